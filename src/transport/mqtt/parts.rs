//! What the session is made of, for tests that have no broker.

pub use super::acknowledgements::Acknowledgements;
pub use super::backoff::Backoff;
pub use super::incoming::{Task, Work, Written};
pub use super::message::{Outgoing, Properties, Qos, Received};
pub use super::negotiation::Negotiation;
pub use super::secrets::password;
pub use super::session::{Action, Event, Link, Session};
pub use super::topics::{Filter, Route, Topics};
