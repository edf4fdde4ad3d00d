//! A broker that does what real ones do not: each connection is handed to a script, byte by byte.

use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use super::packet::{
    CONNACK, CONNECT, Connect, Message, PATIENCE, PINGREQ, PINGRESP, PUBACK, PUBLISH, Packet,
    SUBACK, SUBSCRIBE,
};

pub struct FakeBroker {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// One client, and what it has said.
pub struct Peer {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    pub connect: Connect,
}

impl FakeBroker {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { address: listener.local_addr().unwrap(), listener }
    }

    /// The next client, which has said CONNECT and been answered nothing.
    pub fn accept(&self) -> Peer {
        let (stream, _) = self.listener.accept().expect("a client comes");
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let packet = Packet::read(&mut reader).unwrap().expect("it says something");
        assert_eq!(packet.kind(), CONNECT);
        Peer { stream, reader, connect: Connect::of(&packet) }
    }

    /// The next client, let in.
    pub fn welcome(&self) -> Peer {
        let mut peer = self.accept();
        peer.consent(&[]);
        peer
    }

    /// Whether a client comes within that time.
    pub fn is_visited_within(&self, time: Duration) -> bool {
        self.listener.set_nonblocking(true).unwrap();
        let start = std::time::Instant::now();
        let mut is_visited = false;
        while !is_visited && start.elapsed() < time {
            is_visited = self.listener.accept().is_ok();
            std::thread::sleep(Duration::from_millis(2));
        }
        self.listener.set_nonblocking(false).unwrap();
        is_visited
    }
}

impl Peer {
    /// Says CONNACK, with these properties.
    pub fn consent(&mut self, properties: &[u8]) {
        let mut body = vec![0, 0];
        if self.connect.level == 5 {
            body.push(properties.len() as u8);
            body.extend_from_slice(properties);
        }
        self.send(&Packet::new(CONNACK, body));
    }

    pub fn send(&mut self, packet: &Packet) {
        self.send_bytes(&packet.bytes());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the client takes it");
    }

    pub fn publish(&mut self, message: &Message) {
        let packet = message.packet(self.connect.level == 5);
        self.send(&packet);
    }

    /// The next packet; `None` at the end.
    pub fn read(&mut self) -> Option<Packet> {
        Packet::read(&mut self.reader).ok().flatten()
    }

    /// The next packet of that kind. Pings and subscriptions are answered, messages acknowledged.
    pub fn read_kind(&mut self, kind: u8) -> Packet {
        loop {
            let packet = self.read().expect("the client says more");
            self.answer(&packet);
            if packet.kind() == kind & 0xf0 {
                return packet;
            }
        }
    }

    fn answer(&mut self, packet: &Packet) {
        match packet.kind() {
            PINGREQ => self.send(&Packet::new(PINGRESP, Vec::new())),
            kind if kind == SUBSCRIBE & 0xf0 => {
                let filters = filters(packet, self.connect.level == 5);
                let mut body = packet.body[..2].to_vec();
                if self.connect.level == 5 {
                    body.push(0);
                }
                body.extend(filters.iter().map(|_| 1));
                self.send(&Packet::new(SUBACK, body));
            }
            PUBLISH => {
                let message = Message::of(packet, self.connect.level == 5);
                if message.qos == 1 {
                    self.send(&Packet::new(PUBACK, message.packet.to_be_bytes().to_vec()));
                }
            }
            _ => {}
        }
    }

    /// The next message on `topic`.
    pub fn read_message(&mut self, topic: &str) -> Message {
        loop {
            let packet = self.read_kind(PUBLISH);
            let message = Message::of(&packet, self.connect.level == 5);
            if message.topic == topic {
                return message;
            }
        }
    }
}

/// The filters of a SUBSCRIBE, with their options.
pub fn filters(packet: &Packet, is_v5: bool) -> Vec<(String, u8)> {
    let mut reader = super::packet::Reader(&packet.body);
    reader.number();
    if is_v5 {
        let length = reader.length();
        reader.take(length);
    }
    let mut filters = Vec::new();
    while !reader.0.is_empty() {
        filters.push((reader.text(), reader.byte()));
    }
    filters
}
