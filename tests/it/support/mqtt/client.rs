//! A client of a broker: blocking, one packet at a time.

use std::collections::VecDeque;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::packet::{
    CONNACK, Connect, Message, PATIENCE, PUBACK, PUBLISH, Packet, SUBACK, SUBSCRIBE, write_text,
};

pub struct Client {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
    is_v5: bool,
    next: u16,
    /// Came while something else was waited for.
    messages: VecDeque<Message>,
    /// Packets of ours that the broker has acknowledged, with its reason.
    pub acknowledged: Vec<(u16, u8)>,
}

impl Client {
    pub fn v5(broker: SocketAddr, name: &str) -> Self {
        Self::connect(broker, &Connect { level: 5, clean: true, ..named(name) }).expect("connected")
    }

    pub fn v311(broker: SocketAddr, name: &str) -> Self {
        Self::connect(broker, &Connect { level: 4, clean: true, ..named(name) }).expect("connected")
    }

    pub fn connect(broker: SocketAddr, connect: &Connect) -> io::Result<Self> {
        let stream = TcpStream::connect(broker)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let reader = BufReader::new(stream.try_clone()?);
        let is_v5 = connect.level == 5;
        let mut client = Self {
            stream,
            reader,
            is_v5,
            next: 1,
            messages: VecDeque::new(),
            acknowledged: Vec::new(),
        };
        client.write(&connect.packet())?;
        let consent = client.read_packet()?;
        match (consent.kind(), consent.body[1]) {
            (CONNACK, 0) => Ok(client),
            (_, reason) => Err(io::Error::other(format!("refused: {reason}"))),
        }
    }

    fn write(&mut self, packet: &Packet) -> io::Result<()> {
        self.stream.write_all(&packet.bytes())
    }

    fn read_packet(&mut self) -> io::Result<Packet> {
        let end = || io::Error::from(io::ErrorKind::UnexpectedEof);
        Packet::read(&mut self.reader)?.ok_or_else(end)
    }

    fn number(&mut self) -> u16 {
        let number = self.next;
        self.next = self.next.checked_add(1).unwrap_or(1);
        number
    }

    /// Subscribes, and waits for the broker's word.
    pub fn subscribe(&mut self, filter: &str) {
        self.subscribe_at(filter, 1);
    }

    pub fn subscribe_at(&mut self, filter: &str, qos: u8) {
        let id = self.number();
        let mut body = id.to_be_bytes().to_vec();
        if self.is_v5 {
            body.push(0);
        }
        write_text(&mut body, filter.as_bytes());
        body.push(qos);
        self.write(&Packet::new(SUBSCRIBE, body)).expect("the broker takes it");
        loop {
            let packet = self.read_packet().expect("the broker answers");
            if packet.kind() == SUBACK {
                assert!(*packet.body.last().unwrap() < 0x80, "{filter}: granted");
                return;
            }
            self.note(&packet).expect("the broker takes it");
        }
    }

    /// Keeps a message, and acknowledges it.
    fn note(&mut self, packet: &Packet) -> io::Result<()> {
        match packet.kind() {
            PUBLISH => {
                let message = Message::of(packet, self.is_v5);
                if message.qos == 1 {
                    let id = message.packet.to_be_bytes().to_vec();
                    self.write(&Packet::new(PUBACK, id))?;
                }
                self.messages.push_back(message);
            }
            PUBACK => {
                let reason = packet.body.get(2).copied().unwrap_or(0);
                self.acknowledged.push((packet.id(), reason));
            }
            // QoS 2: PUBREC is answered with PUBREL; PUBCOMP ends it.
            0x50 => self.write(&Packet::new(0x62, packet.body[..2].to_vec()))?,
            0x70 => self.acknowledged.push((packet.id(), 0)),
            _ => {}
        }
        Ok(())
    }

    /// Publishes, and waits for nothing.
    pub fn publish(&mut self, message: Message) -> u16 {
        self.try_publish(message).expect("the broker takes it")
    }

    pub fn try_publish(&mut self, message: Message) -> io::Result<u16> {
        let packet = if message.qos > 0 { self.number() } else { 0 };
        self.write(&Message { packet, ..message }.packet(self.is_v5))?;
        Ok(packet)
    }

    /// The next message.
    pub fn receive(&mut self) -> Message {
        self.receive_within(PATIENCE).expect("a message comes")
    }

    /// The next message, if one comes in time.
    pub fn receive_within(&mut self, time: Duration) -> Option<Message> {
        self.try_receive_within(time).expect("the connection holds")
    }

    pub fn try_receive_within(&mut self, time: Duration) -> io::Result<Option<Message>> {
        let end = Instant::now() + time;
        loop {
            if let Some(message) = self.messages.pop_front() {
                return Ok(Some(message));
            }
            // What is buffered comes first; a packet that has begun is read to its end.
            if self.reader.buffer().is_empty() {
                let left = end.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(None);
                }
                self.stream.set_read_timeout(Some(left))?;
                let peeked = self.stream.peek(&mut [0]);
                self.stream.set_read_timeout(Some(PATIENCE))?;
                match peeked {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                    Err(e) => return Err(e),
                }
            }
            let packet = self.read_packet()?;
            self.note(&packet)?;
        }
    }

    /// The next message on `topic`; others are dropped.
    pub fn receive_on(&mut self, topic: &str) -> Message {
        loop {
            let message = self.receive();
            if message.topic == topic {
                return message;
            }
        }
    }

    /// The next message on `topic` that is `payload`; others are dropped.
    pub fn receive_text(&mut self, topic: &str, payload: &str) {
        while self.receive_on(topic).payload != payload.as_bytes() {}
    }

    /// Waits until the broker has all that was published: a connection that is closed earlier takes
    /// along what the broker has not read.
    pub fn flush(&mut self) {
        let last = self.publish(Message::new("flushed", "").qos(1));
        while !self.acknowledged.iter().any(|(packet, _)| *packet == last) {
            let packet = self.read_packet().expect("the broker acknowledges");
            self.note(&packet).expect("the broker takes it");
        }
    }

    /// Publishes a request, and waits for the message on its response topic.
    pub fn ask(&mut self, request: Message) -> Message {
        let topic = request.response_topic.clone().expect("the request says where to");
        self.publish(request);
        self.receive_on(&topic)
    }
}

fn named(name: &str) -> Connect {
    Connect { client: name.to_owned(), keep_alive_s: 60, ..Connect::default() }
}
