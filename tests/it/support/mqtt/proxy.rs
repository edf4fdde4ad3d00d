//! Between a client and a broker: passes bytes on, or does to them what networks do.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What happens to bytes, in both directions, on connections that are and that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Pass,
    /// Each piece waits.
    Delay(Duration),
    /// So many bytes in a second, about.
    Throttle(usize),
    /// They vanish, and nobody is told.
    BlackHole,
}

struct Shared {
    fault: Mutex<Fault>,
    streams: Mutex<Vec<TcpStream>>,
    is_over: AtomicBool,
    connections: AtomicUsize,
    /// A byte that, as protocol level in a CONNECT, is answered as a broker of old does.
    refused_level: Option<u8>,
}

pub struct Proxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    pub fn start(to: SocketAddr) -> Self {
        Self::with(to, None)
    }

    /// One before a broker that knows only MQTT 3.1.1.
    pub fn refusing_v5(to: SocketAddr) -> Self {
        Self::with(to, Some(5))
    }

    fn with(to: SocketAddr, refused_level: Option<u8>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            fault: Mutex::new(Fault::Pass),
            streams: Mutex::default(),
            is_over: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            refused_level,
        });
        let accepting = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if accepting.is_over.load(Ordering::SeqCst) {
                    return;
                }
                accepting.connections.fetch_add(1, Ordering::SeqCst);
                let (shared, client) = (Arc::clone(&accepting), client.unwrap());
                std::thread::spawn(move || shared.connect(client, to));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap() = fault;
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Ends all connections.
    pub fn cut(&self) {
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Ends one direction of all connections: what clients send goes nowhere, and brokers are told.
    pub fn half_close(&self) {
        for stream in &*self.shared.streams.lock().unwrap() {
            let _ = stream.shutdown(Shutdown::Write);
        }
    }
}

impl Shared {
    fn connect(self: Arc<Self>, mut client: TcpStream, to: SocketAddr) {
        if let Some(level) = self.refused_level {
            let mut head = [0; 16];
            let n = client.peek(&mut head).unwrap_or(0);
            // After one length byte and the protocol's name.
            if head[..n].get(8) == Some(&level) {
                let _ = client.write_all(&[0x20, 0x02, 0x00, 0x01]);
                let _ = client.shutdown(Shutdown::Both);
                return;
            }
        }
        let Ok(broker) = TcpStream::connect(to) else { return };
        client.set_nodelay(true).unwrap();
        broker.set_nodelay(true).unwrap();
        {
            let mut streams = self.streams.lock().unwrap();
            streams.push(client.try_clone().unwrap());
            streams.push(broker.try_clone().unwrap());
        }
        let (from_client, to_client) = (client.try_clone().unwrap(), client);
        let (from_broker, to_broker) = (broker.try_clone().unwrap(), broker);
        let shared = Arc::clone(&self);
        std::thread::spawn(move || shared.pump(from_client, to_broker));
        self.pump(from_broker, to_client);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 16 << 10];
        loop {
            let n = match from.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(n) => n,
            };
            match *self.fault.lock().unwrap() {
                Fault::Pass => {}
                Fault::Delay(time) => std::thread::sleep(time),
                Fault::Throttle(rate) => {
                    std::thread::sleep(Duration::from_secs_f64(n as f64 / rate as f64));
                }
                Fault::BlackHole => continue,
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
        }
        if *self.fault.lock().unwrap() != Fault::BlackHole {
            let _ = to.shutdown(Shutdown::Write);
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
