//! A whole layer of experts through the engine: tensors in, tensors out.
//!
//! The models are those of `benches/figures engine`, which makes them; without them there is
//! nothing to measure, and that is said. Throughput is in rows.

#![expect(clippy::disallowed_methods, reason = "the cache's place is in the environment")]

use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput};
use moed::engine::{Backend as _, Dim, LoadOptions, Model, RunOptions, tract::Tract};
use moed::tensor::{Data, Tensor};

const SHAPES: [&str; 3] = ["s", "m", "g"];
const VARIANTS: [&str; 3] = ["q8_b32", "q8_chan", "q4_b32"];
const ROWS: [usize; 3] = [1, 8, 64];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Where `benches/peers/models.py` puts the models: the same as in `benches/figures`.
fn models() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("MOED_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("moed")))
        .or_else(|| Some(set("HOME")?.join(".cache/moed")))?;
    let script = include_str!("peers/models.py");
    let version = script.lines().find_map(|line| line.strip_prefix("FORMAT = "))?;
    Some(cache.join(format!("bench/models-{version}")))
}

fn main() -> Result<()> {
    let mut criterion = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800))
        .configure_from_args();
    let Some(models) = models().filter(|models| models.is_dir()) else {
        println!("block: no models: run `benches/figures engine --quick` once, which makes them");
        return Ok(());
    };
    for shape in SHAPES {
        for variant in VARIANTS {
            layer(&mut criterion, &models, shape, variant)?;
        }
    }
    criterion.final_summary();
    Ok(())
}

fn layer(criterion: &mut Criterion, models: &Path, shape: &str, variant: &str) -> Result<()> {
    let mut group = criterion.benchmark_group(format!("{shape}_{variant}"));
    let options = LoadOptions { threads: 1, ..LoadOptions::default() };
    let model = Tract.load(models, &format!("{shape}_{variant}.onnx"), &options)?;
    let mut session = model.session()?;
    for rows in ROWS {
        let sets = read_sets(models, shape, rows, model.as_ref())?;
        group.throughput(Throughput::Elements(rows as u64));
        group.bench_function(BenchmarkId::from_parameter(rows), |bencher| {
            let mut runs = 0;
            bencher.iter(|| {
                runs += 1;
                session.run(&sets[runs % sets.len()], RunOptions::default())
            });
        });
    }
    group.finish();
    Ok(())
}

/// Sets of inputs, different experts in each.
fn read_sets(
    models: &Path,
    shape: &str,
    rows: usize,
    model: &dyn Model,
) -> Result<Vec<Vec<Tensor>>> {
    let mut sets: Vec<Vec<Tensor>> = Vec::new();
    for port in &model.signature().inputs {
        let bytes = std::fs::read(models.join(format!("{shape}_rows{rows}_{}.f32", port.name)))?;
        let floats: Vec<f32> =
            bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
        let Some(&Dim::Fixed(width)) = port.dims.last() else {
            return Err(format!("input `{}`: its width is not fixed", port.name).into());
        };
        let chunks = floats.chunks_exact(rows * width);
        sets.resize_with(sets.len().max(chunks.len()), Vec::new);
        for (set, floats) in sets.iter_mut().zip(chunks) {
            set.push(Tensor::new(&[rows, width], Data::F32(floats.to_vec()))?);
        }
    }
    Ok(sets)
}
