//! MQTT's packets, as far as tests need them: written and read apart from the daemon's library.

use std::io::{self, Read};
use std::time::Duration;

pub const CONNECT: u8 = 0x10;
pub const CONNACK: u8 = 0x20;
pub const PUBLISH: u8 = 0x30;
pub const PUBACK: u8 = 0x40;
pub const SUBSCRIBE: u8 = 0x82;
pub const SUBACK: u8 = 0x90;
pub const PINGREQ: u8 = 0xc0;
pub const PINGRESP: u8 = 0xd0;

/// A packet: its first byte, and what follows its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Packet {
    pub fn new(first: u8, body: Vec<u8>) -> Self {
        Self { first, body }
    }

    pub fn kind(&self) -> u8 {
        self.first & 0xf0
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = vec![self.first];
        write_length(&mut bytes, self.body.len());
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// The next packet; `None` at the end of the stream.
    pub fn read(stream: &mut impl Read) -> io::Result<Option<Self>> {
        let mut byte = [0];
        if stream.read(&mut byte)? == 0 {
            return Ok(None);
        }
        let first = byte[0];
        let (mut length, mut shift) = (0, 0);
        loop {
            stream.read_exact(&mut byte)?;
            length |= usize::from(byte[0] & 0x7f) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body)?;
        Ok(Some(Self { first, body }))
    }

    /// Of PUBACK, SUBSCRIBE, SUBACK.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }
}

fn write_length(bytes: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

/// Text or bytes, their length before them.
pub fn write_text(bytes: &mut Vec<u8>, text: &[u8]) {
    bytes.extend_from_slice(&(text.len() as u16).to_be_bytes());
    bytes.extend_from_slice(text);
}

/// Reads from the front of a body.
pub struct Reader<'a>(pub &'a [u8]);

impl Reader<'_> {
    pub fn byte(&mut self) -> u8 {
        self.take(1)[0]
    }

    pub fn number(&mut self) -> u16 {
        let bytes = self.take(2);
        u16::from_be_bytes([bytes[0], bytes[1]])
    }

    pub fn long(&mut self) -> u32 {
        let bytes = self.take(4);
        u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }

    pub fn length(&mut self) -> usize {
        let (mut length, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            length |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return length;
            }
        }
    }

    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(n);
        self.0 = rest;
        taken.to_vec()
    }

    pub fn data(&mut self) -> Vec<u8> {
        let n = self.number();
        self.take(n.into())
    }

    pub fn text(&mut self) -> String {
        String::from_utf8(self.data()).expect("MQTT's texts are UTF-8")
    }
}

/// A message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub packet: u16,
    pub response_topic: Option<String>,
    pub correlation: Option<Vec<u8>>,
    pub content_type: Option<String>,
    pub expiry_s: Option<u32>,
    pub user: Vec<(String, String)>,
}

impl Message {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>) -> Self {
        let (topic, payload) = (topic.to_owned(), payload.as_ref().to_vec());
        Self { topic, payload, ..Self::default() }
    }

    pub fn qos(self, qos: u8) -> Self {
        Self { qos, ..self }
    }

    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    pub fn reply_to(self, topic: &str, correlation: &str) -> Self {
        Self {
            response_topic: Some(topic.to_owned()),
            correlation: Some(correlation.as_bytes().to_vec()),
            ..self
        }
    }

    pub fn expires(self, seconds: u32) -> Self {
        Self { expiry_s: Some(seconds), ..self }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.user.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the payload is text")
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.payload).unwrap_or_else(|e| panic!("{e}: {:?}", self.payload))
    }

    pub fn user(&self, name: &str) -> Option<&str> {
        self.user.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn correlation(&self) -> &str {
        std::str::from_utf8(self.correlation.as_deref().unwrap_or_default()).expect("text")
    }

    pub fn packet(&self, is_v5: bool) -> Packet {
        let flags = u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain);
        let mut body = Vec::new();
        write_text(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend_from_slice(&self.packet.to_be_bytes());
        }
        if is_v5 {
            let properties = self.properties();
            write_length(&mut body, properties.len());
            body.extend_from_slice(&properties);
        }
        body.extend_from_slice(&self.payload);
        Packet::new(PUBLISH | flags, body)
    }

    fn properties(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if let Some(seconds) = self.expiry_s {
            bytes.push(2);
            bytes.extend_from_slice(&seconds.to_be_bytes());
        }
        let texts = [
            (3, self.content_type.as_ref().map(String::as_bytes)),
            (8, self.response_topic.as_ref().map(String::as_bytes)),
            (9, self.correlation.as_deref()),
        ];
        for (id, text) in texts {
            if let Some(text) = text {
                bytes.push(id);
                write_text(&mut bytes, text);
            }
        }
        for (name, value) in &self.user {
            bytes.push(38);
            write_text(&mut bytes, name.as_bytes());
            write_text(&mut bytes, value.as_bytes());
        }
        bytes
    }

    pub fn of(packet: &Packet, is_v5: bool) -> Self {
        let mut reader = Reader(&packet.body);
        let mut message = Self {
            topic: reader.text(),
            qos: packet.first >> 1 & 3,
            retain: packet.first & 1 == 1,
            dup: packet.first & 8 == 8,
            ..Self::default()
        };
        if message.qos > 0 {
            message.packet = reader.number();
        }
        if is_v5 {
            let length = reader.length();
            let properties = reader.take(length);
            let mut properties = Reader(&properties);
            while !properties.0.is_empty() {
                match properties.byte() {
                    1 => drop(properties.byte()),
                    2 => message.expiry_s = Some(properties.long()),
                    3 => message.content_type = Some(properties.text()),
                    8 => message.response_topic = Some(properties.text()),
                    9 => message.correlation = Some(properties.data()),
                    11 => drop(properties.length()),
                    35 => drop(properties.number()),
                    38 => message.user.push((properties.text(), properties.text())),
                    other => panic!("property {other}: not of a message"),
                }
            }
        }
        message.payload = reader.0.to_vec();
        message
    }
}

/// What a CONNECT says.
#[derive(Debug, Clone, Default)]
pub struct Connect {
    pub level: u8,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub client: String,
    pub receive_max: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub session_expiry_s: Option<u32>,
    /// Topic, payload.
    pub will: Option<(String, Vec<u8>)>,
    pub username: Option<String>,
    pub password: Option<String>,
}

impl Connect {
    pub fn of(packet: &Packet) -> Self {
        let mut reader = Reader(&packet.body);
        assert_eq!(reader.text(), "MQTT");
        let (level, flags) = (reader.byte(), reader.byte());
        let mut connect =
            Self { level, clean: flags & 2 == 2, keep_alive_s: reader.number(), ..Self::default() };
        if level == 5 {
            let length = reader.length();
            let properties = reader.take(length);
            let mut properties = Reader(&properties);
            while !properties.0.is_empty() {
                match properties.byte() {
                    17 => connect.session_expiry_s = Some(properties.long()),
                    33 => connect.receive_max = Some(properties.number()),
                    39 => connect.packet_bytes_max = Some(properties.long()),
                    34 => drop(properties.number()),
                    other => panic!("property {other}: not one that the daemon should send"),
                }
            }
        }
        connect.client = reader.text();
        if flags & 4 == 4 {
            if level == 5 {
                let length = reader.length();
                reader.take(length);
            }
            connect.will = Some((reader.text(), reader.data()));
        }
        connect.username = (flags & 0x80 != 0).then(|| reader.text());
        connect.password = (flags & 0x40 != 0).then(|| reader.text());
        connect
    }

    pub fn packet(&self) -> Packet {
        let mut body = Vec::new();
        write_text(&mut body, b"MQTT");
        let has = |is: bool, flag: u8| if is { flag } else { 0 };
        let flags = has(self.clean, 2)
            | has(self.username.is_some(), 0x80)
            | has(self.password.is_some(), 0x40);
        body.extend_from_slice(&[self.level, flags]);
        body.extend_from_slice(&self.keep_alive_s.to_be_bytes());
        if self.level == 5 {
            // Receive Maximum: the tests' client takes what comes.
            body.extend_from_slice(&[3, 33, 0xff, 0xff]);
        }
        write_text(&mut body, self.client.as_bytes());
        for text in [&self.username, &self.password].into_iter().flatten() {
            write_text(&mut body, text.as_bytes());
        }
        Packet::new(CONNECT, body)
    }
}

/// Nothing in these tests takes as long.
pub const PATIENCE: Duration = Duration::from_secs(20);
