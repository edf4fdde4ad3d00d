//! Who is at the other end of a connection.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::UnixStream;

use crate::infer::ClientId;

/// A peer, as its connections and requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    pub user: User,
    /// Of the process that connected; none over TCP.
    pub process: Option<i32>,
    pub client: ClientId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum User {
    Uid(u32),
    Address(std::net::IpAddr),
    Unknown,
}

impl Peer {
    /// What the kernel says (`SO_PEERCRED`): a peer can't choose it.
    pub fn of_unix(stream: &UnixStream) -> Self {
        let Ok(credentials) = stream.peer_cred() else {
            let client = ClientId(Arc::from("unix"));
            return Self { user: User::Unknown, process: None, client };
        };
        let (uid, process) = (credentials.uid(), credentials.pid());
        let client = ClientId(Arc::from(match process {
            Some(pid) => format!("uid:{uid}/pid:{pid}"),
            None => format!("uid:{uid}"),
        }));
        Self { user: User::Uid(uid), process, client }
    }

    /// Its address without the port, of which it has many.
    pub fn of_tcp(address: SocketAddr) -> Self {
        let address = address.ip();
        let client = ClientId(Arc::from(format!("tcp:{address}")));
        Self { user: User::Address(address), process: None, client }
    }
}
