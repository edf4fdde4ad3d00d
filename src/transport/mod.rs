//! The ways in: each takes requests from outside, hands them to the daemon's
//! [`Service`](crate::infer::Service), and sends back the answers. Knows no queue, no model and no
//! engine.

pub mod mqtt;
pub mod unix;
