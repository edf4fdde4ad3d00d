//! The kernels that this CPU can run, on the first projection of one expert of each shape.
//!
//! Throughput is in multiply-adds.

use std::time::Duration;

use criterion::{Bencher, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moed::engine::kernel::activations::{Activations, ChunkShape, Precision};
use moed::engine::kernel::matmul::{Matrix, blocks, matmul};
use moed::engine::kernel::{Kernel, available};

/// (name, k, n): hidden size, and twice the inner size for gate and linear part.
const SHAPES: [(&str, usize, usize); 3] = [("s", 256, 1024), ("m", 512, 2048), ("g", 1024, 1024)];

const ROWS: [usize; 4] = [1, 2, 4, 16];

/// How weights are scaled, and how finely activations are quantised for them.
const FORMATS: [(&str, u8, Option<usize>, Precision); 3] = [
    ("q8_b32", 8, Some(32), Precision::Int8),
    ("q8_chan", 8, None, Precision::Int16),
    ("q4_b32", 4, Some(32), Precision::Int8),
];

fn kernels(criterion: &mut Criterion) {
    for (shape, k, n) in SHAPES {
        let codes: Vec<u8> = (0..n * k).map(|i| (i * 89 + i / 7) as u8).collect();
        for (format, bits, block, precision) in FORMATS {
            let scales: Vec<f32> =
                (0..n * blocks(k, block)).map(|i| (i % 7) as f32 * 1e-3 - 3e-3).collect();
            let codes = &codes[..n * k * usize::from(bits) / 8];
            let matrix = Matrix::new(codes, bits, n, k, block, &scales, None);
            let mut group = criterion.benchmark_group(format!("{shape}_{format}"));
            for rows in ROWS {
                group.throughput(Throughput::Elements((rows * n * k) as u64));
                let x: Vec<f32> = (0..rows * k).map(|i| (i * 57 % 251) as f32 - 125.0).collect();
                for &kernel in available() {
                    let mut activations = Activations::default();
                    let shape = ChunkShape::of_weights(block);
                    let done = activations.quantise(&x, k, shape, precision, kernel.layout());
                    assert_eq!(done, Ok(()), "the inputs are finite");
                    let id = BenchmarkId::new(kernel.name(), rows);
                    group.bench_function(id, |bencher| {
                        multiply(bencher, kernel, &matrix, &activations);
                    });
                }
            }
            group.finish();
        }
    }
}

fn multiply(bencher: &mut Bencher<'_>, kernel: &dyn Kernel, matrix: &Matrix<'_>, x: &Activations) {
    let columns: Vec<u32> = (0..x.rows() as u32).collect();
    let mut out = vec![0f32; x.rows() * matrix.n()];
    let mut expanded = Vec::new();
    bencher.iter(|| {
        matmul(kernel, matrix, 0..matrix.n(), x, &columns, &mut out, &mut expanded);
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(30)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(500));
    targets = kernels
}
criterion_main!(benches);
