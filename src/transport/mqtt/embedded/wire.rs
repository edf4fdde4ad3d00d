//! The parts that MQTT's packets are made of: numbers, texts, MQTT 5's properties. Knows no packet.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// A packet that breaks the protocol's rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

/// Takes a packet's body apart, from its front.
pub struct Reader(pub Bytes);

impl Reader {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> Result<u8, Malformed> {
        self.0.try_get_u8().map_err(|_| Malformed)
    }

    pub fn number(&mut self) -> Result<u16, Malformed> {
        self.0.try_get_u16().map_err(|_| Malformed)
    }

    /// Of a packet: never 0.
    pub fn packet(&mut self) -> Result<u16, Malformed> {
        self.number().and_then(|packet| if packet == 0 { Err(Malformed) } else { Ok(packet) })
    }

    pub fn long(&mut self) -> Result<u32, Malformed> {
        self.0.try_get_u32().map_err(|_| Malformed)
    }

    pub fn data(&mut self) -> Result<Bytes, Malformed> {
        let length = usize::from(self.number()?);
        self.take(length)
    }

    pub fn text(&mut self) -> Result<String, Malformed> {
        let text = std::str::from_utf8(&self.data()?).map(str::to_owned);
        text.ok().filter(|text| !text.contains('\0')).ok_or(Malformed)
    }

    pub fn take(&mut self, length: usize) -> Result<Bytes, Malformed> {
        if length > self.0.len() {
            return Err(Malformed);
        }
        Ok(self.0.split_to(length))
    }

    /// All that is left.
    pub fn rest(self) -> Bytes {
        self.0
    }

    fn variable(&mut self) -> Result<usize, Malformed> {
        let (length, bytes) = variable(&self.0)?.ok_or(Malformed)?;
        self.take(bytes)?;
        Ok(length)
    }

    /// MQTT 5's properties, whose length is in front of them.
    pub fn properties(&mut self) -> Result<Properties, Malformed> {
        let length = self.variable()?;
        let mut reader = Reader(self.take(length)?);
        let mut found = Properties::default();
        while !reader.is_empty() {
            found.read_one(&mut reader)?;
        }
        Ok(found)
    }
}

/// A number of one to four bytes at the front, and how many; `None` if its end is not there yet.
///
/// # Errors
/// It is longer.
pub fn variable(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok(Some((number, at + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Malformed) }
}

/// Writes a number of one to four bytes.
pub fn put_variable(buffer: &mut BytesMut, mut number: usize) {
    loop {
        let byte = (number & 0x7f) as u8;
        number >>= 7;
        buffer.put_u8(if number > 0 { byte | 0x80 } else { byte });
        if number == 0 {
            return;
        }
    }
}

/// Writes a text or data of at most 64 KiB, its length in front.
pub fn put_data(buffer: &mut BytesMut, data: &[u8]) {
    let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
    buffer.put_u16(length);
    buffer.extend_from_slice(data.get(..usize::from(length)).unwrap_or_default());
}

/// What a broker wants to know of a packet's properties.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Properties {
    /// Of a message, in seconds.
    pub message_expiry: Option<u32>,
    pub session_expiry: Option<u32>,
    pub will_delay: Option<u32>,
    pub receive_max: Option<u16>,
    pub packet_bytes_max: Option<u32>,
    pub has_subscription_id: bool,
    pub has_topic_alias: bool,
    pub has_authentication: bool,
    /// As they came: what the broker passes on without knowing it.
    pub passed_on: BytesMut,
}

impl Properties {
    fn read_one(&mut self, reader: &mut Reader) -> Result<(), Malformed> {
        let id = reader.byte()?;
        match id {
            // Payload format.
            0x01 => self.passed_on.extend_from_slice(&[id, reader.byte()?]),
            0x02 => self.message_expiry = Some(reader.long()?),
            // Content type, response topic.
            0x03 | 0x08 => self.pass_on(id, reader.text()?.as_bytes()),
            // Correlation data.
            0x09 => self.pass_on(id, &reader.data()?),
            0x0b => self.has_subscription_id = reader.variable()? > 0,
            0x11 => self.session_expiry = Some(reader.long()?),
            0x15 => self.has_authentication = !reader.text()?.is_empty(),
            0x16 => drop(reader.data()?),
            // The problem and response information that a client would like.
            0x17 | 0x19 => drop(reader.byte()?),
            0x18 => self.will_delay = Some(reader.long()?),
            // A reason in words.
            0x1f => drop(reader.text()?),
            0x21 => self.receive_max = Some(reader.packet()?),
            // What a client takes: the broker uses no aliases.
            0x22 => drop(reader.number()?),
            0x23 => self.has_topic_alias = reader.packet()? > 0,
            0x26 => {
                let (name, value) = (reader.text()?, reader.text()?);
                self.pass_on(id, name.as_bytes());
                put_data(&mut self.passed_on, value.as_bytes());
            }
            0x27 => self.packet_bytes_max = Some(reader.long()?),
            _ => return Err(Malformed),
        }
        Ok(())
    }

    fn pass_on(&mut self, id: u8, data: &[u8]) {
        self.passed_on.put_u8(id);
        put_data(&mut self.passed_on, data);
    }
}
