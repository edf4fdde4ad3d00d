//! A scan of the protobuf wire format that counts what decoding would allocate, and allocates
//! nothing itself.
//!
//! It walks the messages of `onnx.proto` that [`ModelProto`] decodes, by field number
//! ([`schema`](super::schema)), and refuses a file before prost sees it: too many messages, names
//! too long, messages too deep, lengths past the end. It knows neither what the fields mean nor
//! whether the model makes sense.
//!
//! [`ModelProto`]: tract_onnx::pb::ModelProto

use super::error::InspectError;
use super::schema::{Counted, Field, Kind, Text, Width, field};
use crate::engine::limits::Limits;

/// Frames of the stack, and so the most that `message_depth_max` can ask for.
const FRAMES: usize = 64;
/// Heap bytes, malloc's own included, that a string costs beside its slot and its content.
const STRING_BYTES: u64 = 32;
/// Decoding may take this many times the file's bytes, and the flat overhead.
const FILE_FACTOR: u64 = 4;

/// What the scan counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub fields: u64,
    pub nodes: u64,
    pub initializers: u64,
    pub attributes: u64,
    /// An upper bound of what decoding puts on the heap. While it copies a text or raw data, prost
    /// holds that one twice.
    pub heap_bytes: u64,
}

/// Scans `bytes` as a `ModelProto`. `Ok` bounds what prost can allocate for them.
pub fn scan(bytes: &[u8], limits: &Limits) -> Result<Counts, InspectError> {
    over("file bytes", count(bytes.len()), limits.model_bytes_max)?;
    let mut scan = Scan {
        bytes,
        at: 0,
        limits,
        heap_bytes_max: count(bytes.len())
            .saturating_mul(FILE_FACTOR)
            .saturating_add(limits.decode_overhead_bytes_max),
        counts: Counts::default(),
        graphs: 0,
        stack: Stack::new(),
    };
    scan.enter(Kind::Model, bytes.len())?;
    while let Some(frame) = scan.stack.top() {
        if scan.at >= frame.end {
            scan.leave(frame);
        } else {
            scan.field(frame)?;
        }
    }
    Ok(scan.counts)
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: &'a Limits,
    heap_bytes_max: u64,
    counts: Counts,
    /// Graphs on the stack.
    graphs: u64,
    stack: Stack,
}

impl Scan<'_> {
    fn enter(&mut self, kind: Kind, end: usize) -> Result<(), InspectError> {
        let depth = count(self.stack.depth).saturating_add(1);
        over("depth of messages", depth, self.limits.message_depth_max.min(count(FRAMES)))?;
        if kind == Kind::Graph {
            self.graphs = self.graphs.saturating_add(1);
            over("depth of graphs", self.graphs, self.limits.nesting_depth_max)?;
        }
        if self.stack.push(Frame { kind, end }) {
            Ok(())
        } else {
            Err(self.malformed("messages too deep"))
        }
    }

    fn leave(&mut self, frame: Frame) {
        if frame.kind == Kind::Graph {
            self.graphs = self.graphs.saturating_sub(1);
        }
        self.stack.pop();
    }

    /// Reads one field of the message in `frame`: its key and its value.
    fn field(&mut self, frame: Frame) -> Result<(), InspectError> {
        self.counts.fields = self.counts.fields.saturating_add(1);
        over("fields", self.counts.fields, self.limits.fields_max)?;
        let key = self.varint(frame.end)?;
        let Ok(key) = u32::try_from(key) else {
            return Err(self.malformed("a field number is too large"));
        };
        if key >> 3 == 0 {
            return Err(self.malformed("a field number is 0"));
        }
        let known = field(frame.kind, key >> 3);
        match key & 7 {
            0 => {
                self.varint(frame.end)?;
                self.number(known)
            }
            1 => {
                self.skip(8, frame.end)?;
                self.number(known)
            }
            5 => {
                self.skip(4, frame.end)?;
                self.number(known)
            }
            2 => self.delimited(known, frame.end),
            3 | 4 => Err(self.malformed("a group, which ONNX does not have")),
            _ => Err(self.malformed("an unknown wire type")),
        }
    }

    /// A number was read: it costs something where it is one of many.
    fn number(&mut self, known: Field) -> Result<(), InspectError> {
        match known {
            Field::Numbers { slot_bytes, .. } => self.charge(slot_bytes),
            Field::Refused { what, remedy } => Err(InspectError::Unsupported { what, remedy }),
            Field::Other => Ok(()),
            // prost would say the same, but not where.
            Field::Message { .. } | Field::Text { .. } => {
                Err(self.malformed("a number where a message or a text belongs"))
            }
        }
    }

    /// Reads a length and what it spans, or enters it where it is a message.
    fn delimited(&mut self, known: Field, end: usize) -> Result<(), InspectError> {
        let length = self.varint(end)?;
        let Some(stop) = usize::try_from(length)
            .ok()
            .and_then(|length| self.at.checked_add(length))
            .filter(|stop| *stop <= end)
        else {
            return Err(self.malformed("a length leads past the end"));
        };
        match known {
            Field::Message { kind, counted, slot_bytes } => {
                self.count(counted)?;
                self.charge(slot_bytes)?;
                return self.enter(kind, stop);
            }
            Field::Text { text, slot_bytes } => {
                match text {
                    Text::Name => over("bytes of a name", length, self.limits.name_bytes_max)?,
                    Text::DimParam => over(
                        "bytes of a symbolic dimension",
                        length,
                        self.limits.dim_param_bytes_max,
                    )?,
                    Text::Free => {}
                }
                let own = slot_bytes.saturating_add(STRING_BYTES);
                self.charge(own.saturating_add(length))?;
            }
            Field::Numbers { width, slot_bytes } => {
                let elements = self.elements(width, stop);
                // In a long vector three of the four times that `slot_bytes` counts are enough; the
                // fourth is for the room that a vector of one has.
                let each = slot_bytes.saturating_mul(3) / 4;
                self.charge(elements.saturating_mul(each).saturating_add(slot_bytes))?;
            }
            Field::Refused { what, remedy } => {
                return Err(InspectError::Unsupported { what, remedy });
            }
            Field::Other => {}
        }
        self.at = stop;
        Ok(())
    }

    /// How many numbers are packed between here and `stop`.
    fn elements(&self, width: Width, stop: usize) -> u64 {
        let packed = self.bytes.get(self.at..stop).unwrap_or_default();
        match width {
            Width::Varint => count(packed.iter().filter(|byte| **byte < 0x80).count()),
            Width::Four => count(packed.len()) / 4,
            Width::Eight => count(packed.len()) / 8,
        }
    }

    fn count(&mut self, counted: Counted) -> Result<(), InspectError> {
        let (what, counter, limit) = match counted {
            Counted::Node => ("nodes", &mut self.counts.nodes, self.limits.nodes_max),
            Counted::Initializer => {
                ("initializers", &mut self.counts.initializers, self.limits.initializers_max)
            }
            Counted::Attribute => {
                ("attributes", &mut self.counts.attributes, self.limits.attributes_max)
            }
            Counted::No => return Ok(()),
        };
        *counter = counter.saturating_add(1);
        over(what, *counter, limit)
    }

    fn charge(&mut self, bytes: u64) -> Result<(), InspectError> {
        self.counts.heap_bytes = self.counts.heap_bytes.saturating_add(bytes);
        over("memory to decode it", self.counts.heap_bytes, self.heap_bytes_max)
    }

    fn skip(&mut self, bytes: usize, end: usize) -> Result<(), InspectError> {
        match self.at.checked_add(bytes).filter(|at| *at <= end) {
            Some(at) => {
                self.at = at;
                Ok(())
            }
            None => Err(self.malformed("a number leads past the end")),
        }
    }

    /// Reads a varint of at most ten bytes and 64 bits that ends before `end`.
    fn varint(&mut self, end: usize) -> Result<u64, InspectError> {
        let mut value: u64 = 0;
        for shift in (0..70_u32).step_by(7) {
            if self.at >= end {
                return Err(self.malformed("a number leads past the end"));
            }
            let Some(byte) = self.bytes.get(self.at) else {
                return Err(self.malformed("a number leads past the end"));
            };
            self.at = self.at.saturating_add(1);
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.malformed("a number has more than 64 bits"));
            }
            value |= bits << shift;
            if *byte < 0x80 {
                return Ok(value);
            }
        }
        Err(self.malformed("a number has more than ten bytes"))
    }

    fn malformed(&self, cause: &'static str) -> InspectError {
        InspectError::Malformed { at: count(self.at), cause }
    }
}

/// A message that is being read: what it is, and where it ends.
#[derive(Clone, Copy)]
struct Frame {
    kind: Kind,
    end: usize,
}

/// The messages around the one being read. An array: recursion would spend the thread's stack.
struct Stack {
    frames: [Frame; FRAMES],
    depth: usize,
}

impl Stack {
    fn new() -> Stack {
        Stack { frames: [Frame { kind: Kind::Model, end: 0 }; FRAMES], depth: 0 }
    }

    fn top(&self) -> Option<Frame> {
        self.depth.checked_sub(1).and_then(|top| self.frames.get(top)).copied()
    }

    /// False where the stack is full.
    fn push(&mut self, frame: Frame) -> bool {
        let Some(slot) = self.frames.get_mut(self.depth) else { return false };
        *slot = frame;
        self.depth = self.depth.saturating_add(1);
        true
    }

    fn pop(&mut self) {
        self.depth = self.depth.saturating_sub(1);
    }
}

/// Refuses `found` where it is over `limit`.
pub(super) fn over(what: &'static str, found: u64, limit: u64) -> Result<(), InspectError> {
    if found > limit { Err(InspectError::OverLimit { what, found, limit }) } else { Ok(()) }
}

/// A `usize` as a count. No target of Rust has a wider one than 64 bits.
pub(super) fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}
