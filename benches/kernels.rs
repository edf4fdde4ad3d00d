//! The kernels that this CPU can run, on the first projection of one expert of each shape.
//!
//! Throughput is in multiply-adds.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use moed::engine::kernel::activations::{Activations, ChunkShape, Precision};
use moed::engine::kernel::available;
use moed::engine::kernel::matmul::{Matrix, blocks, matmul};

/// (name, k, n): hidden size, and twice the inner size for gate and linear part.
const SHAPES: [(&str, usize, usize); 3] = [("s", 256, 1024), ("m", 512, 2048), ("g", 1024, 1024)];

const ROWS: [usize; 4] = [1, 2, 4, 16];

/// How weights are scaled, and how finely activations are quantised for them.
const FORMATS: [(&str, Option<usize>, Precision); 2] =
    [("q8_b32", Some(32), Precision::Int8), ("q8_chan", None, Precision::Int16)];

fn kernels(criterion: &mut Criterion) {
    for (shape, k, n) in SHAPES {
        let codes: Vec<u8> = (0..n * k).map(|i| (i * 89 + i / 7) as u8).collect();
        for (format, block, precision) in FORMATS {
            let scales: Vec<f32> =
                (0..n * blocks(k, block)).map(|i| (i % 7) as f32 * 1e-3 - 3e-3).collect();
            let matrix = Matrix::new(&codes, 8, n, k, block, &scales, None);
            let mut group = criterion.benchmark_group(format!("{shape}_{format}"));
            for rows in ROWS {
                let x: Vec<f32> = (0..rows * k).map(|i| (i * 57 % 251) as f32 - 125.0).collect();
                let columns: Vec<u32> = (0..rows as u32).collect();
                let mut out = vec![0f32; rows * n];
                let mut expanded = Vec::new();
                group.throughput(Throughput::Elements((rows * n * k) as u64));
                for &kernel in available() {
                    let mut activations = Activations::default();
                    let shape = ChunkShape::of_weights(block);
                    let done = activations.quantise(&x, k, shape, precision, kernel.layout());
                    assert_eq!(done, Ok(()), "the inputs are finite");
                    group.bench_function(BenchmarkId::new(kernel.name(), rows), |bencher| {
                        bencher.iter(|| {
                            let out = &mut out;
                            matmul(kernel, &matrix, 0..n, &activations, &columns, out, &mut expanded);
                        });
                    });
                }
            }
            group.finish();
        }
    }
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
