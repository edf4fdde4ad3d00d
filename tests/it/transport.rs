//! The Unix socket: routes, limits, bad input.

mod routes;
