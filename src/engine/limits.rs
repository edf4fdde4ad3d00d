//! The limits that a model file is held to before anything large is done with it.
//!
//! A plain value, handed to whoever must refuse: [`inspect`](super::inspect) reads it, the
//! configuration may lower it. It knows neither ONNX nor files. Every name ends in its unit and
//! `_max`; a value equal to the limit passes, one more is refused.

/// What a model file may hold at most. [`Limits::default`] suits a board with 512 MiB and up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the protobuf file, inline weights included.
    pub model_bytes_max: u64,
    /// Bytes of external data: of all tensors together, and of each file that is opened.
    pub external_bytes_max: u64,
    /// Different files that external data may lie in.
    pub external_files_max: u64,
    /// Heap bytes that decoding may take beyond four times the file. A small message decodes to
    /// a large struct (2 wire bytes of an attribute to over 1 KiB), so a multiple of the file
    /// alone would refuse every small model.
    pub decode_overhead_bytes_max: u64,
    /// Nodes, those of subgraphs included. Loading takes more than linear time in them.
    pub nodes_max: u64,
    /// Initializers, those of subgraphs included.
    pub initializers_max: u64,
    /// Attributes of all nodes together.
    pub attributes_max: u64,
    /// Graphs inside each other through attributes; the model's own graph is level 1.
    pub nesting_depth_max: u64,
    /// Bytes of one name: of a node, a value, an operator, an attribute, a key, a location.
    pub name_bytes_max: u64,
    /// Bytes of one symbolic dimension. A parser that recurses reads it.
    pub dim_param_bytes_max: u64,
    /// Parentheses inside each other in one symbolic dimension.
    pub dim_param_nesting_max: u64,
    /// Dimensions of one tensor.
    pub rank_max: u64,
    /// Elements of one tensor.
    pub elements_max: u64,
    /// Inputs and outputs of one graph together, initializers listed as inputs not counted.
    pub graph_ios_max: u64,
    /// Experts of one layer. Choosing takes time with their number times k.
    pub experts_max: u64,
    /// Bytes of external data that operators other than ours read. They are copied to the heap, by
    /// us and by tract, while ours are mapped.
    pub external_heap_bytes_max: u64,
    /// Protobuf messages inside each other. At most 64 is honoured.
    pub message_depth_max: u64,
    /// Protobuf fields of the file, which bounds the time that the scan takes.
    pub fields_max: u64,
}

/// Tensors must be addressable: on 32 bits, 2^28 elements of 8 bytes are 2 GiB.
const ELEMENTS_MAX: u64 = if cfg!(target_pointer_width = "64") { 1 << 31 } else { 1 << 28 };

/// A mapping cannot be larger than half the address space: 2 GiB less a byte on 32 bits.
const EXTERNAL_BYTES_MAX: u64 =
    if cfg!(target_pointer_width = "64") { 4 << 30 } else { (2 << 30) - 1 };

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            model_bytes_max: 256 << 20,
            external_bytes_max: EXTERNAL_BYTES_MAX,
            external_files_max: 1024,
            decode_overhead_bytes_max: 64 << 20,
            nodes_max: 65_536,
            initializers_max: 65_536,
            attributes_max: 1_048_576,
            nesting_depth_max: 8,
            name_bytes_max: 1024,
            dim_param_bytes_max: 128,
            dim_param_nesting_max: 8,
            rank_max: 8,
            elements_max: ELEMENTS_MAX,
            graph_ios_max: 256,
            experts_max: 4096,
            external_heap_bytes_max: 128 << 20,
            message_depth_max: 32,
            fields_max: 8_000_000,
        }
    }
}
