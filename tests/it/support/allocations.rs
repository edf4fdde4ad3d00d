//! Counts what a thread allocates, and runs a model's operators outside of tract to see what they
//! do: for the test of that, and for `benches/figures daemon`.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use moed::engine::kernel::pool::Pool;
use moed::engine::kernel::{self, Kernel};
use moed::engine::moe::{
    Node, TensorSource, Tensors, experts, group_router, nbits, parse_experts, parse_group_router,
    parse_mat_mul_nbits,
};
use prost::Message as _;
use tract_onnx::pb::{ModelProto, TensorProto, tensor_proto::DataLocation};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator; counts the calls of each thread.
pub struct Counting;

fn count() {
    // A thread that ends may free and allocate after its counter is gone.
    let _ = COUNT.try_with(|count| count.set(count.get() + 1));
}

#[expect(unsafe_code, reason = "there is no other way to see allocations")]
// SAFETY: every call is passed on as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is ours.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promise is ours.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is ours.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Times that this thread has allocated.
pub fn allocations() -> u64 {
    COUNT.with(Cell::get)
}

/// Times that this thread and those of `pool` have allocated.
fn allocations_with(pool: &Pool) -> u64 {
    let mut counts = vec![0; pool.threads()];
    // Nobody takes a second part before all have one.
    let all = std::sync::Barrier::new(pool.threads());
    pool.each(&mut counts, |_, count| {
        all.wait();
        *count = allocations();
    });
    counts.iter().sum()
}

enum Operator {
    Experts(Box<experts::Experts>),
    Dense(nbits::MatMulNBits),
    Router(group_router::GroupRouter),
}

/// One operator with its inputs, its output, and the buffers that all operators of a run share.
struct Subject<'a> {
    operator: &'a Operator,
    x: Vec<f32>,
    logits: Vec<f32>,
    out: Vec<f32>,
    ran: Vec<(u32, u32)>,
}

#[derive(Default)]
struct Buffers {
    experts: experts::Workspace,
    dense: nbits::Workspace,
    router: group_router::Workspace,
}

/// Reads the operators of `dir`/`file` that are ours.
fn operators(dir: &Path, file: &str) -> Vec<Operator> {
    let bytes = std::fs::read(dir.join(file)).expect("the model is there");
    let mut graph = ModelProto::decode(bytes.as_slice()).expect("it decodes").graph.expect("one");
    let mut tensors = Tensors::default();
    for proto in &mut graph.initializer {
        let name = proto.name.clone();
        read_external(dir, proto);
        if let Some(source) = TensorSource::take(proto) {
            tensors.insert(name, source);
        }
    }
    let ours = graph.node.iter().filter(|node| node.domain == "com.microsoft");
    let parse = |proto| {
        let node = Node { proto, tensors: &tensors };
        Some(match proto.op_type.as_str() {
            "MoE" | "QMoE" => Operator::Experts(Box::new(parse_experts(node).expect("it parses"))),
            "MatMulNBits" => Operator::Dense(parse_mat_mul_nbits(node).expect("it parses")),
            "MoEGroupRouter" => Operator::Router(parse_group_router(node).expect("it parses")),
            _ => return None,
        })
    };
    ours.filter_map(parse).collect()
}

fn read_external(dir: &Path, proto: &mut TensorProto) {
    if proto.data_location != Some(DataLocation::External as i32) {
        return;
    }
    let entry = |key: &str| {
        proto.external_data.iter().find(|entry| entry.key == key).map(|entry| entry.value.clone())
    };
    let number = |key: &str| entry(key).map(|text| text.parse::<usize>().expect("a number"));
    let file = std::fs::read(dir.join(entry("location").expect("a place"))).expect("it is there");
    let start = number("offset").unwrap_or(0);
    let end = number("length").map_or(file.len(), |length| start + length);
    proto.raw_data = file[start..end].to_vec();
}

/// Numbers in -1..1 that look random.
fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = 0x9e37_79b9u32 ^ seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

impl<'a> Subject<'a> {
    fn new(operator: &'a Operator, rows: usize) -> Self {
        let (width, experts, out) = match operator {
            Operator::Experts(layer) => (layer.hidden, layer.experts, layer.hidden),
            Operator::Dense(layer) => (layer.projection.k, 0, layer.projection.n),
            Operator::Router(router) => (router.width(), 0, router.bias.len()),
        };
        let (x, logits) = (noise(rows * width, 0), noise(rows * experts, 0));
        Self { operator, x, logits, out: vec![0.0; rows * out], ran: Vec::new() }
    }

    fn run(&mut self, kernel: &dyn Kernel, pool: &Pool, buffers: &mut Buffers) {
        let Self { x, logits, out, ran, .. } = self;
        match self.operator {
            Operator::Experts(layer) => {
                // Also what its run-time router weights would be.
                let weights =
                    matches!(layer.weighing, moed::engine::moe::gate::Weighing::Given { .. });
                let weights = weights.then_some(logits.as_slice());
                let workspace = &mut buffers.experts;
                layer.run(kernel, pool, workspace, x, logits, weights, layer.k, out, ran)
            }
            Operator::Dense(layer) => layer.run(kernel, pool, &mut buffers.dense, x, out),
            Operator::Router(router) => router.route(kernel, &mut buffers.router, x, out),
        }
        .expect("the numbers are finite");
    }
}

/// How often a model's operators allocate in a run of `rows` rows, on `threads` threads, when each
/// has run twice; and how many operators there are.
pub fn allocations_of_operators(
    dir: &Path,
    file: &str,
    rows: usize,
    threads: usize,
) -> (u64, usize) {
    let kernel = kernel::active().expect("a kernel");
    let pool = Pool::new(threads).expect("threads");
    let operators = operators(dir, file);
    let mut subjects: Vec<_> = operators.iter().map(|one| Subject::new(one, rows)).collect();
    let mut buffers = Buffers::default();
    let mut run_all = || subjects.iter_mut().for_each(|one| one.run(kernel, &pool, &mut buffers));
    run_all();
    run_all();
    // What counting itself allocates is the same for both.
    let (first, second) = (allocations_with(&pool), allocations_with(&pool));
    run_all();
    let third = allocations_with(&pool);
    ((third - second) - (second - first), operators.len())
}
