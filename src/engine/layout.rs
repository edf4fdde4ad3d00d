//! Writes a model again with its large weights outside the file, each at a page's beginning.
//!
//! Weights that lie outside can be mapped, and an expert that is never chosen then never becomes
//! memory. What goes out: tensors of [`OUTSIDE_BYTES_MIN`] and up that our operators read, and
//! whatever lay outside before. No number is changed. Knows nothing of bundles: it is told where
//! to write.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek as _, SeekFrom, Write as _};
use std::path::Path;

use prost::Message as _;
use tract_onnx::pb::tensor_proto::DataLocation;
use tract_onnx::pb::{StringStringEntryProto, TensorProto};

use super::LoadError;
use super::inspect::{External, InspectError, Inspected, external, inspect};
use super::limits::Limits;

/// Where tensors begin: at multiples of the largest page of the boards that we know (16 KiB).
pub const ALIGN_BYTES: u64 = 16 << 10;
/// Smaller tensors stay inside: outside, each would take a page.
pub const OUTSIDE_BYTES_MIN: usize = 16 << 10;

/// Operators whose weights are mapped; [`tract`](super::tract) copies those of others.
const MAPPED: [&str; 3] = ["MoE", "QMoE", "MatMulNBits"];

/// What was written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the model file.
    pub model_bytes: u64,
    /// Bytes of the file of weights; 0: there is none.
    pub weights_bytes: u64,
}

/// Reads the model `file` of the directory `from`, and writes it as `model` and `weights` into
/// the directory `to`, where neither may exist.
pub fn lay_out(
    from: &Path,
    file: &str,
    to: &Path,
    (model, weights): (&str, &str),
    limits: &Limits,
) -> Result<Layout, LoadError> {
    let refused = |cause: InspectError| LoadError::Inspect { file: file.to_owned(), cause };
    let failed = |cause: io::Error| LoadError::File { file: file.to_owned(), cause };
    let mut bytes = Vec::new();
    let opened = external::open(from, file, limits).map_err(refused)?;
    let read = opened.take(limits.model_bytes_max.saturating_add(1)).read_to_end(&mut bytes);
    read.map_err(failed)?;
    let Inspected { model: mut proto, externals, .. } = inspect(&bytes, limits).map_err(refused)?;
    drop(bytes);
    let externals: HashMap<String, External> =
        externals.into_iter().map(|external| (external.initializer.clone(), external)).collect();
    let mut outside = Outside { from, weights, limits, at: 0, to: None };
    if let Some(graph) = &mut proto.graph {
        let nodes = graph.node.iter().filter(|node| MAPPED.contains(&node.op_type.as_str()));
        let ours: HashSet<String> = nodes.flat_map(|node| node.input.iter().cloned()).collect();
        for tensor in &mut graph.initializer {
            match externals.get(&tensor.name) {
                Some(external) => outside.copy(to, tensor, external)?,
                None => {
                    let is_large = tensor.raw_data.len() >= OUTSIDE_BYTES_MIN;
                    if is_large && ours.contains(&tensor.name) {
                        outside.take(to, tensor)?;
                    }
                }
            }
        }
    }
    let weights_bytes = outside.finish()?;
    let bytes = proto.encode_to_vec();
    let written = File::create_new(to.join(model)).and_then(|mut file| {
        file.write_all(&bytes)?;
        file.sync_all()
    });
    written.map_err(|cause| LoadError::File { file: model.to_owned(), cause })?;
    Ok(Layout { model_bytes: bytes.len() as u64, weights_bytes })
}

/// The file of weights, made when the first one is written.
struct Outside<'a> {
    from: &'a Path,
    weights: &'a str,
    limits: &'a Limits,
    at: u64,
    to: Option<BufWriter<File>>,
}

impl Outside<'_> {
    fn failed(&self, cause: io::Error) -> LoadError {
        LoadError::File { file: self.weights.to_owned(), cause }
    }

    /// Moves data that is inside the model.
    fn take(&mut self, to: &Path, tensor: &mut TensorProto) -> Result<(), LoadError> {
        let data = std::mem::take(&mut tensor.raw_data);
        self.write(to, tensor, &mut data.as_slice(), data.len() as u64)
    }

    /// Copies data that lies in another file.
    fn copy(
        &mut self,
        to: &Path,
        tensor: &mut TensorProto,
        external: &External,
    ) -> Result<(), LoadError> {
        let file = external.location.clone();
        let refused = |cause| LoadError::Inspect { file: file.clone(), cause };
        let failed = |cause| LoadError::File { file: file.clone(), cause };
        let mut data = external::open(self.from, &file, self.limits).map_err(refused)?;
        let present = data.metadata().map_err(failed)?.len();
        external.check_within(present).map_err(refused)?;
        data.seek(SeekFrom::Start(external.offset)).map_err(failed)?;
        self.write(to, tensor, &mut data.take(external.bytes), external.bytes)
    }

    fn write(
        &mut self,
        to: &Path,
        tensor: &mut TensorProto,
        data: &mut dyn Read,
        bytes: u64,
    ) -> Result<(), LoadError> {
        let offset = self.at.next_multiple_of(ALIGN_BYTES);
        let written = self.append(to, offset, data);
        match written {
            Ok(copied) if copied == bytes => {}
            Ok(_) => return Err(self.failed(io::ErrorKind::UnexpectedEof.into())),
            Err(error) => return Err(self.failed(error)),
        }
        self.at = offset + bytes;
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: key.to_owned(), value };
        tensor.external_data = vec![
            entry("location", self.weights.to_owned()),
            entry("offset", offset.to_string()),
            entry("length", bytes.to_string()),
        ];
        tensor.data_location = Some(DataLocation::External as i32);
        Ok(())
    }

    fn append(&mut self, to: &Path, offset: u64, data: &mut dyn Read) -> io::Result<u64> {
        let file = match &mut self.to {
            Some(file) => file,
            None => self.to.insert(BufWriter::new(File::create_new(to.join(self.weights))?)),
        };
        io::copy(&mut io::repeat(0).take(offset - self.at), file)?;
        io::copy(data, file)
    }

    fn finish(mut self) -> Result<u64, LoadError> {
        if let Some(file) = self.to.take() {
            let file = file.into_inner().map_err(|error| self.failed(error.into_error()))?;
            file.sync_all().map_err(|error| self.failed(error))?;
        }
        Ok(self.at)
    }
}
