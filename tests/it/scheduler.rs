//! The scheduler: the queue alone, and with workers behind it.

mod queue;
