//! Models that are installed while the daemon runs: a real daemon, its sockets, a real broker, and
//! `kill -9` at any time.

mod documents;
mod over_mqtt;
mod power_cut;
mod process;
mod trial;
mod verbs;
