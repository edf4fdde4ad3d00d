//! The Unix socket: routes, limits, bad input.

mod clients;
mod limits;
mod routes;
mod sockets;
mod wire;
