//! The Unix socket: routes, limits, bad input.

mod limits;
mod routes;
mod sockets;
mod wire;
