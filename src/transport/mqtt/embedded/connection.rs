//! One client of the embedded broker: bytes to packets and back. Knows nothing of other clients.

use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::super::stopped;
use super::hub::{Hub, Ticket, reason};
use super::packet::{Connect, Packet, Reply, Version, Wrong, read};

/// From the connection to the packet that connects.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// A client that takes nothing for so long is left.
const WRITE_TIME_MAX: Duration = Duration::from_secs(30);
/// Of what the broker says last.
const FAREWELL_TIME_MAX: Duration = Duration::from_millis(500);
const READ_BYTES: usize = 16 << 10;

/// Nothing panics while it is held, and if it did, each change is whole.
pub fn lock(hub: &Mutex<Hub>) -> MutexGuard<'_, Hub> {
    hub.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Why a connection is over: what the client is told, if anything.
struct Over(Option<u8>);

impl From<io::Error> for Over {
    fn from(_: io::Error) -> Self {
        Self(None)
    }
}

impl From<u8> for Over {
    fn from(reason: u8) -> Self {
        Self(Some(reason))
    }
}

impl From<Wrong> for Over {
    fn from(wrong: Wrong) -> Self {
        Self(Some(match wrong {
            Wrong::Malformed => reason::MALFORMED,
            Wrong::TooLarge => reason::TOO_LARGE,
            Wrong::Version => reason::VERSION,
        }))
    }
}

struct Incoming {
    stream: OwnedReadHalf,
    buffer: BytesMut,
    packet_bytes_max: usize,
}

impl Incoming {
    /// The next packet.
    async fn packet(&mut self, version: Option<Version>) -> Result<Packet, Over> {
        loop {
            let now = Instant::now();
            if let Some(packet) = read(&mut self.buffer, version, self.packet_bytes_max, now)? {
                return Ok(packet);
            }
            self.buffer.reserve(READ_BYTES);
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(Over(None));
            }
        }
    }
}

/// Serves a client until one of them has enough.
pub async fn serve(
    stream: TcpStream,
    hub: Arc<Mutex<Hub>>,
    packet_bytes_max: usize,
    mut stop: watch::Receiver<bool>,
) {
    // Else Nagle's algorithm and delayed acknowledgements add 40 ms to an answer at QoS 1.
    let _ = stream.set_nodelay(true);
    let (stream, mut writer) = stream.into_split();
    let mut incoming = Incoming { stream, buffer: BytesMut::new(), packet_bytes_max };
    let connect = match timeout(CONNECT_TIME_MAX, incoming.packet(None)).await {
        Ok(Ok(Packet::Connect(connect))) => *connect,
        Ok(Err(Over(Some(reason)))) if reason == reason::VERSION => {
            return say(&mut writer, Version::V311, &Reply::Refused(reason)).await;
        }
        _ => return,
    };
    let wake = Arc::new(Notify::new());
    let Connect { version, keep_alive, .. } = connect;
    let admitted = lock(&hub).connect(connect, Arc::clone(&wake), Instant::now());
    let ticket = match admitted {
        Ok(ticket) => ticket,
        Err(reason) => return say(&mut writer, version, &Reply::Refused(reason)).await,
    };
    let Over(reason) = {
        let listening = pin!(listen(&mut incoming, version, keep_alive, &hub, &ticket));
        let writing = pin!(write(&mut writer, &wake, &hub, &ticket));
        tokio::select! {
            over = listening => over,
            over = writing => over,
            () = stopped(&mut stop) => Over(Some(reason::STOPPING)),
        }
    };
    lock(&hub).parted(&ticket, Instant::now());
    if let Some(reason) = reason {
        log::debug!("embedded broker: {:?}: reason {reason:#x}", ticket.client);
        say(&mut writer, version, &Reply::Disconnect(reason)).await;
    }
}

async fn listen(
    incoming: &mut Incoming,
    version: Version,
    keep_alive: Duration,
    hub: &Mutex<Hub>,
    ticket: &Ticket,
) -> Over {
    loop {
        let next = incoming.packet(Some(version));
        let packet = if keep_alive.is_zero() {
            next.await
        } else {
            let silent = Err(Over(Some(reason::KEEP_ALIVE)));
            timeout(keep_alive * 3 / 2, next).await.unwrap_or(silent)
        };
        let packet = match packet {
            Ok(packet) => packet,
            Err(over) => return over,
        };
        match lock(hub).handle(ticket, packet, Instant::now()) {
            Ok(true) => {}
            Ok(false) => return Over(None),
            Err(reason) => return reason.into(),
        }
    }
}

async fn write(
    writer: &mut OwnedWriteHalf,
    wake: &Notify,
    hub: &Mutex<Hub>,
    ticket: &Ticket,
) -> Over {
    let mut buffer = BytesMut::new();
    loop {
        buffer.clear();
        if let Err(reason) = lock(hub).write(ticket, Instant::now(), &mut buffer) {
            return reason.into();
        }
        if buffer.is_empty() {
            wake.notified().await;
        } else {
            match timeout(WRITE_TIME_MAX, writer.write_all(&buffer)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return error.into(),
                Err(_) => return Over(None),
            }
        }
    }
}

/// Says one last thing.
async fn say(writer: &mut OwnedWriteHalf, version: Version, reply: &Reply) {
    let mut buffer = BytesMut::new();
    reply.write(version, Instant::now(), &mut buffer);
    let _ = timeout(FAREWELL_TIME_MAX, writer.write_all(&buffer)).await;
}
