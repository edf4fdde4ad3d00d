//! Every matrix kernel that this CPU can run computes what plain arithmetic says.
//!
//! Where all sums are integers below 2^24, f32 is exact and results must be equal; elsewhere
//! they may differ by rounding, which is measured against the sum of the terms' magnitudes.

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use half::f16;
use moed::engine::kernel::activations::{Activations, ChunkShape, NotFinite, Precision};
use moed::engine::kernel::float::{self, FloatMatrix};
use moed::engine::kernel::matmul::{Matrix, blocks, matmul, row_bytes};
use moed::engine::kernel::pool::Pool;
use moed::engine::kernel::{KERNEL_VARIABLE, Kernel, SelectError, active, available, by_name};
use proptest::prelude::*;

/// What `.ci/arm` expects to be chosen on the CPU that it emulates.
const EXPECTED_VARIABLE: &str = "MOED_EXPECT_KERNEL";

/// SplitMix64: shapes come from proptest and shrink, their contents from a seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// Uniform within -1..1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }

    /// A weight scale, sometimes zero.
    fn scale(&mut self) -> f32 {
        if self.one_in(8) { 0.0 } else { 0.01 + 0.005 * self.float() }
    }
}

/// The weight codes of a problem.
#[derive(Debug, Clone, Copy)]
enum Codes {
    Any,
    /// The smallest and the largest code only.
    Extreme,
    /// The smallest in even rows, the largest in odd ones.
    Rows,
}

#[derive(Debug, Clone)]
struct Shape {
    n: usize,
    k: usize,
    rows: usize,
    bits: u8,
    block: Option<usize>,
    zero_points: bool,
    codes: Codes,
    seed: u64,
}

fn shapes(
    k: impl Strategy<Value = usize>,
    bits: impl Strategy<Value = u8>,
) -> impl Strategy<Value = Shape> {
    let block =
        prop_oneof![Just(None), Just(Some(16)), Just(Some(32)), Just(Some(64)), Just(Some(128)),];
    let codes =
        prop_oneof![2 => Just(Codes::Any), 1 => Just(Codes::Extreme), 1 => Just(Codes::Rows)];
    (1..40usize, k, 1..20usize, bits, block, any::<bool>(), codes, any::<u64>()).prop_map(
        |(n, k, rows, bits, block, zero_points, codes, seed)| Shape {
            n,
            k,
            rows,
            bits,
            block,
            zero_points,
            codes,
            seed,
        },
    )
}

/// Any k, or a whole number of the largest blocks.
fn any_k(limit: usize) -> impl Strategy<Value = usize> {
    prop_oneof![3 => 1..=limit, 1 => (1..=limit / 128).prop_map(|blocks| blocks * 128)]
}

fn any_bits() -> impl Strategy<Value = u8> {
    prop_oneof![Just(8), Just(4), Just(2)]
}

/// The largest activation code, with which quantisation leaves integers as they are.
fn limit(precision: Precision) -> i64 {
    match precision {
        Precision::Int8 => 127,
        Precision::Int16 => 127 * 255 + 127,
    }
}

struct Problem {
    shape: Shape,
    /// `[n, k]`, one code a byte; and the same, packed.
    codes: Vec<u8>,
    packed: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Option<Vec<u8>>,
    x: Vec<f32>,
}

impl Problem {
    fn new(shape: Shape, scale: impl Fn(&mut Random) -> f32) -> (Self, Random) {
        let mut random = Random(shape.seed);
        let Shape { n, k, bits, block, .. } = shape;
        let top = (1usize << bits) - 1;
        let codes: Vec<u8> = (0..n * k)
            .map(|i| match shape.codes {
                Codes::Any => random.below(top + 1) as u8,
                Codes::Extreme => (random.below(2) * top) as u8,
                Codes::Rows => ((i / k) % 2 * top) as u8,
            })
            .collect();
        let row_bytes = row_bytes(bits, k, block);
        // What lies beyond k in the last block is not zero in real files either.
        let mut packed: Vec<u8> = (0..n * row_bytes).map(|_| random.next() as u8).collect();
        for (row, packed) in codes.chunks(k).zip(packed.chunks_mut(row_bytes)) {
            for (i, &code) in row.iter().enumerate() {
                let at = i * usize::from(bits);
                let byte = &mut packed[at / 8];
                *byte = (*byte & !((top as u8) << (at % 8))) | (code << (at % 8));
            }
        }
        let count = n * blocks(k, block);
        let scales = (0..count).map(|_| scale(&mut random)).collect();
        let zero_points =
            shape.zero_points.then(|| (0..count).map(|_| random.below(top + 1) as u8).collect());
        let problem = Self { shape, codes, packed, scales, zero_points, x: Vec::new() };
        (problem, random)
    }

    /// Scales of 1 and integer activations, which quantisation leaves as they are because each
    /// block has one of the largest. Some rows are all zero.
    fn integers(shape: Shape, precision: Precision) -> Self {
        let (mut problem, mut random) = Self::new(shape, |_| 1.0);
        let limit = limit(precision);
        let block = ChunkShape::of_weights(problem.shape.block).block;
        for _ in 0..problem.shape.rows {
            let zero = random.one_in(8);
            let mut row: Vec<f32> = (0..problem.shape.k)
                .map(|_| (random.below(2 * limit as usize + 1) as i64 - limit) as f32)
                .collect();
            for block in row.chunks_mut(block) {
                let at = random.below(block.len());
                block[at] = if random.one_in(2) { limit as f32 } else { -limit as f32 };
                if zero {
                    block.fill(0.0);
                }
            }
            problem.x.extend(row);
        }
        problem
    }

    /// Fractional scales and activations. Some scales, and some rows, are zero.
    fn floats(shape: Shape) -> Self {
        let (mut problem, mut random) = Self::new(shape, Random::scale);
        for _ in 0..problem.shape.rows {
            let zero = random.one_in(8);
            let row = (0..problem.shape.k).map(|_| if zero { 0.0 } else { random.float() });
            problem.x.extend(row);
        }
        problem
    }

    fn all_columns(&self) -> Vec<u32> {
        (0..self.shape.rows as u32).collect()
    }

    fn product(&self, kernel: &dyn Kernel, precision: Precision) -> Vec<f32> {
        self.part(kernel, precision, 0..self.shape.n, &self.all_columns())
    }

    fn part(
        &self,
        kernel: &dyn Kernel,
        precision: Precision,
        features: Range<usize>,
        columns: &[u32],
    ) -> Vec<f32> {
        let Shape { n, k, bits, block, .. } = self.shape;
        let zero_points = self.zero_points.as_deref();
        let matrix = Matrix::new(&self.packed, bits, n, k, block, &self.scales, zero_points);
        let mut x = Activations::default();
        let shape = ChunkShape::of_weights(block);
        x.quantise(&self.x, k, shape, precision, kernel.layout()).expect("finite");
        // Not zero before: a kernel writes, it doesn't add.
        let mut out = vec![f32::NAN; columns.len() * features.len()];
        matmul(kernel, &matrix, features.clone(), &x, columns, &mut out, &mut Vec::new());
        // Where weights are expected changes what is asked for ahead, and no result.
        let mut same = vec![f32::NAN; out.len()];
        let matrix = matrix.cached(true);
        matmul(kernel, &matrix, features, &x, columns, &mut same, &mut Vec::new());
        assert_eq!(out, same, "kernel {}", kernel.name());
        out
    }

    /// Folds the terms `(code, zero point, scale, x)` of each output, in f64.
    fn each_output(&self, fold: impl Fn(f64, [f64; 4]) -> f64) -> Vec<f64> {
        let Shape { n, k, rows, bits, block, .. } = self.shape;
        let per_row = blocks(k, block);
        let mut out = Vec::with_capacity(rows * n);
        for x in self.x.chunks(k) {
            for feature in 0..n {
                let terms = x.iter().enumerate().map(|(i, &x)| {
                    let at = feature * per_row + block.map_or(0, |block| i / block);
                    let zero = self.zero_points.as_ref().map_or(1 << (bits - 1), |z| z[at]);
                    let code = self.codes[feature * k + i];
                    [f64::from(code), f64::from(zero), f64::from(self.scales[at]), f64::from(x)]
                });
                out.push(terms.fold(0.0, &fold));
            }
        }
        assert_eq!(out.len(), rows * n);
        out
    }

    /// The product, in f64.
    fn expected(&self) -> Vec<f64> {
        self.each_output(|sum, [code, zero, scale, x]| sum + (code - zero) * scale * x)
    }

    /// What rounding errors are measured against. Kernels may shift codes and zero points alike.
    fn magnitudes(&self) -> Vec<f64> {
        let shift = f64::from(1u8 << (self.shape.bits - 1));
        self.each_output(|sum, [code, zero, scale, x]| {
            sum + (code + zero + shift) * scale * x.abs()
        })
    }
}

fn check_equal(problem: &Problem, precision: Precision) -> Result<(), TestCaseError> {
    let expected = problem.expected();
    for kernel in available() {
        let got: Vec<f64> =
            problem.product(*kernel, precision).into_iter().map(f64::from).collect();
        prop_assert_eq!(&got, &expected, "kernel {}", kernel.name());
    }
    Ok(())
}

/// `got` and `want` differ by no more than rounding: 1e-6 of the sum of magnitudes.
fn check_close(
    what: &str,
    got: &[f32],
    want: &[f32],
    magnitudes: &[f64],
) -> Result<(), TestCaseError> {
    prop_assert_eq!(got.len(), want.len());
    prop_assert_eq!(got.len(), magnitudes.len());
    for (i, ((&got, &want), magnitude)) in got.iter().zip(want).zip(magnitudes).enumerate() {
        let difference = (f64::from(got) - f64::from(want)).abs();
        prop_assert!(difference <= 1e-6 * magnitude, "{}: output {}: {} {}", what, i, got, want);
    }
    Ok(())
}

/// The root of the mean of squares.
fn rms(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    (values.map(|value| value * value).sum::<f64>() / count).sqrt()
}

proptest! {
    // 512 * 255 * 127 is just below 2^24, up to where f32 has every integer.
    #[test]
    fn every_kernel_gives_the_exact_integers(shape in shapes(any_k(512), any_bits())) {
        check_equal(&Problem::integers(shape, Precision::Int8), Precision::Int8)?;
    }

    // 32 * 15 * 32512 is below 2^24.
    #[test]
    fn every_kernel_gives_the_exact_integers_for_16_bit_activations(
        shape in shapes(1..=32usize, prop_oneof![Just(4u8), Just(2u8)])
    ) {
        check_equal(&Problem::integers(shape, Precision::Int16), Precision::Int16)?;
    }

    // 2 * 255 * 32512 is below 2^24.
    #[test]
    fn every_kernel_gives_the_exact_integers_for_16_bit_activations_and_8_bit_weights(
        shape in shapes(1..=2usize, Just(8u8))
    ) {
        check_equal(&Problem::integers(shape, Precision::Int16), Precision::Int16)?;
    }

    #[test]
    fn kernels_differ_from_scalar_by_rounding_only(
        shape in shapes(any_k(520), any_bits()),
        wide in any::<bool>(),
    ) {
        let precision = if wide { Precision::Int16 } else { Precision::Int8 };
        let problem = Problem::floats(shape);
        let scalar = by_name("scalar").expect("always there");
        let want = problem.product(scalar, precision);
        let magnitudes = problem.magnitudes();
        for kernel in available() {
            let got = problem.product(*kernel, precision);
            check_close(kernel.name(), &got, &want, &magnitudes)?;
        }
    }

    #[test]
    fn some_features_alone_give_the_same_numbers(
        shape in shapes(any_k(512), any_bits()),
        from in 0..40usize,
        count in 0..40usize,
    ) {
        let n = shape.n;
        let from = from % n;
        let features = from..n.min(from + 1 + count);
        let problem = Problem::integers(shape, Precision::Int8);
        let columns = problem.all_columns();
        for kernel in available() {
            let all = problem.product(*kernel, Precision::Int8);
            let want: Vec<f32> =
                all.chunks(n).flat_map(|row| row[features.clone()].iter().copied()).collect();
            let got = problem.part(*kernel, Precision::Int8, features.clone(), &columns);
            prop_assert_eq!(&got, &want, "kernel {}", kernel.name());
        }
    }

    #[test]
    fn a_row_does_not_depend_on_the_rows_beside_it(
        shape in shapes(any_k(520), any_bits()),
        wide in any::<bool>(),
        some in prop::collection::vec(0..20u32, 1..12),
    ) {
        let precision = if wide { Precision::Int16 } else { Precision::Int8 };
        let problem = Problem::floats(shape);
        let (n, rows) = (problem.shape.n, problem.shape.rows);
        // In any order, and with repetitions.
        let some: Vec<u32> = some.iter().map(|row| row % rows as u32).collect();
        let magnitudes = problem.magnitudes();
        for kernel in available() {
            let together = problem.part(*kernel, precision, 0..n, &some);
            for (&row, together) in some.iter().zip(together.chunks(n)) {
                let alone = problem.part(*kernel, precision, 0..n, &[row]);
                let magnitudes = &magnitudes[row as usize * n..][..n];
                check_close(kernel.name(), together, &alone, magnitudes)?;
            }
        }
    }

    #[test]
    fn products_are_close_to_those_of_dequantised_weights(
        shape in shapes(any_k(520), any_bits())
    ) {
        let problem = Problem::floats(shape);
        let expected = problem.expected();
        // The size that an output has if its terms are independent: unlike the outputs' own rms,
        // it is not small by accident where there are few of them.
        let squares = problem.each_output(|sum, [code, zero, scale, x]| {
            sum + ((code - zero) * scale * x).powi(2)
        });
        let size = rms(squares.iter().map(|square| square.sqrt()));
        // Where all weights are zero, what the zero points take off leaves f32's rounding.
        let rounding = 1e-6 * rms(problem.magnitudes().into_iter());
        for (precision, tolerance) in [(Precision::Int8, 2e-2), (Precision::Int16, 2e-4)] {
            for kernel in available() {
                let got = problem.product(*kernel, precision);
                let errors = got.iter().zip(&expected).map(|(&got, want)| f64::from(got) - want);
                let error = rms(errors);
                prop_assert!(
                    error <= tolerance * size + rounding,
                    "kernel {}, {:?}: {} of {}", kernel.name(), precision, error, size
                );
            }
        }
    }

    // From subnormal numbers up to what still has a product.
    #[test]
    fn activations_of_any_size_are_taken(
        shape in shapes(any_k(256), any_bits()),
        exponent in -149..100i32,
        wide in any::<bool>(),
    ) {
        let precision = if wide { Precision::Int16 } else { Precision::Int8 };
        let mut problem = Problem::floats(shape);
        for x in &mut problem.x {
            *x = (f64::from(*x) * f64::from(exponent).exp2()) as f32;
        }
        let expected = problem.expected();
        let magnitudes = problem.magnitudes();
        // Where there is no f32 for a scale, its inverse or a factor, numbers may be lost: all of
        // them are below 2^-99.
        let ones = problem.each_output(|sum, [code, zero, scale, _]| sum + (code + zero) * scale);
        for kernel in available() {
            let got = problem.product(*kernel, precision);
            for (i, &got) in got.iter().enumerate() {
                let difference = (f64::from(got) - expected[i]).abs();
                let tolerance = 2e-2 * magnitudes[i] + ones[i] * 99f64.exp2().recip();
                prop_assert!(
                    difference <= tolerance,
                    "kernel {}, {:?}: {} {}", kernel.name(), precision, got, expected[i]
                );
            }
        }
    }

    #[test]
    fn a_row_with_a_number_that_is_not_finite_is_refused(
        rows in 1..5usize,
        k in 1..200usize,
        at in any::<prop::sample::Index>(),
        bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
        block in prop_oneof![Just(None), Just(Some(16)), Just(Some(128))],
        wide in any::<bool>(),
    ) {
        let precision = if wide { Precision::Int16 } else { Precision::Int8 };
        let at = at.index(rows * k);
        let mut x = vec![1.0; rows * k];
        x[at] = bad;
        for kernel in available() {
            let shape = ChunkShape::of_weights(block);
            let mut activations = Activations::default();
            let result = activations.quantise(&x, k, shape, precision, kernel.layout());
            prop_assert_eq!(result, Err(NotFinite { row: at / k }));
        }
    }

    #[test]
    fn float_products_are_those_of_plain_arithmetic(
        n in 1..20usize,
        k in 1..300usize,
        rows in 1..6usize,
        from in 0..20usize,
        columns in prop::collection::vec(0..6u32, 1..8),
        seed in any::<u64>(),
    ) {
        let mut random = Random(seed);
        let weights: Vec<f16> = (0..n * k).map(|_| f16::from_f32(random.float())).collect();
        let x: Vec<f32> = (0..rows * k).map(|_| random.float()).collect();
        let columns: Vec<u32> = columns.iter().map(|row| row % rows as u32).collect();
        let features = from % n..n;
        let widened: Vec<f32> = weights.iter().map(|weight| weight.to_f32()).collect();
        let matrices =
            [FloatMatrix::F16 { weights: &weights, k }, FloatMatrix::F32 { weights: &widened, k }];
        for matrix in matrices {
            let mut out = vec![f32::NAN; columns.len() * features.len()];
            float::matmul(matrix, features.clone(), &x, &columns, &mut out, &mut Vec::new());
            for (&row, out) in columns.iter().zip(out.chunks(features.len())) {
                for (feature, &got) in features.clone().zip(out) {
                    let (mut want, mut magnitude) = (0.0, 0.0);
                    let x = &x[row as usize * k..][..k];
                    for (&w, &x) in widened[feature * k..][..k].iter().zip(x) {
                        want += f64::from(w) * f64::from(x);
                        magnitude += (f64::from(w) * f64::from(x)).abs();
                    }
                    let difference = (f64::from(got) - want).abs();
                    prop_assert!(difference <= 1e-6 * magnitude, "{} {}", got, want);
                }
            }
        }
    }
}

/// All products of one sign and as large as they get: where a kernel's narrow sums would
/// overflow or saturate.
#[test]
fn extreme_codes_and_activations_do_not_overflow() {
    for (block, k) in [(None, 96), (Some(16), 48), (Some(32), 64), (Some(128), 256)] {
        for precision in [Precision::Int8, Precision::Int16] {
            for sign in [1.0, -1.0] {
                let shape = Shape {
                    n: 9,
                    k,
                    rows: 5,
                    bits: 8,
                    block,
                    zero_points: false,
                    codes: Codes::Rows,
                    seed: 1,
                };
                let mut problem = Problem::integers(shape, precision);
                problem.x.fill(sign * limit(precision) as f32);
                let (expected, magnitudes) = (problem.expected(), problem.magnitudes());
                for kernel in available() {
                    let got = problem.product(*kernel, precision);
                    for ((&got, want), magnitude) in got.iter().zip(&expected).zip(&magnitudes) {
                        let difference = (f64::from(got) - want).abs();
                        let name = kernel.name();
                        assert!(difference <= 1e-6 * magnitude, "kernel {name}: {got} {want}");
                    }
                }
            }
        }
    }
}

#[test]
fn scalar_is_always_there() {
    let scalar = by_name("scalar").expect("always there");
    assert_eq!(scalar.name(), "scalar");
    assert_eq!(available().last().map(|kernel| kernel.name()), Some("scalar"));
}

/// A kernel that computes something wrong is left out; then the tests here would not see it.
#[test]
fn every_kernel_that_this_cpu_has_the_instructions_for_is_available() {
    #[cfg(target_arch = "x86_64")]
    let wanted = {
        use std::arch::is_x86_feature_detected as has;
        [
            ("avx2", has!("avx2") && has!("fma")),
            ("avxvnni", has!("avxvnni")),
            ("avx512vnni", has!("avx512vnni") && has!("avx512vl")),
        ]
    };
    #[cfg(target_arch = "aarch64")]
    let wanted = {
        use std::arch::is_aarch64_feature_detected as has;
        [("neon", true), ("dotprod", has!("dotprod")), ("i8mm", has!("dotprod") && has!("i8mm"))]
    };
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let wanted = [("neon", cfg!(target_arch = "arm"))];
    let wanted = wanted.iter().filter(|(_, has)| *has).map(|(name, _)| *name);
    let expected: Vec<_> = std::iter::once("scalar").chain(wanted).collect();
    let names: Vec<_> = available().iter().map(|kernel| kernel.name()).rev().collect();
    assert_eq!(names, expected);
}

#[test]
fn an_unknown_kernel_is_refused_with_a_list_of_the_known_ones() {
    let SelectError::Unknown { name, known } = by_name("abacus").expect_err("no such kernel");
    assert_eq!(name, "abacus");
    let names: Vec<_> = available().iter().map(|kernel| kernel.name()).collect();
    assert_eq!(known, names.join(", "));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "`.ci/arm` says it beside the program's options")]
fn chooses_the_kernel_this_cpu_should_have() {
    println!("available: {:?}", available());
    let active = match active() {
        Ok(kernel) => kernel.name(),
        Err(error) => panic!("{error}"),
    };
    match (std::env::var(EXPECTED_VARIABLE), std::env::var(KERNEL_VARIABLE)) {
        (Ok(expected), _) => assert_eq!(active, expected),
        (_, Ok(named)) if !named.is_empty() => assert_eq!(active, named),
        _ => assert_eq!(active, available()[0].name()),
    }
}

/// The choice is made once for a process, so this runs the test above in others.
#[test]
#[cfg_attr(not(target_arch = "x86_64"), ignore = "a process under qemu can't start another one")]
fn the_environment_names_the_kernel() {
    let run = |name: &str| {
        let module = module_path!().split_once("::").map_or("", |(_, module)| module);
        let test = format!("{module}::chooses_the_kernel_this_cpu_should_have");
        let program = std::env::current_exe().expect("a test binary has a path");
        let output = Command::new(program)
            .args([&test, "--exact", "--nocapture"])
            .env(KERNEL_VARIABLE, name)
            .env(EXPECTED_VARIABLE, name)
            .output()
            .expect("starts");
        let text = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    };
    for kernel in available() {
        let (passed, text) = run(kernel.name());
        assert!(passed && text.contains("1 passed"), "{text}");
    }
    let (passed, text) = run("abacus");
    assert!(!passed && text.contains("kernel `abacus`"), "{text}");
    assert!(text.contains("choose one of: ") && text.contains("scalar"), "{text}");
}

/// Waits until `count` has come to `target`; false if it takes too long.
fn reaches(count: &AtomicUsize, target: usize) -> bool {
    let start = Instant::now();
    while count.load(Ordering::SeqCst) < target {
        if start.elapsed() > Duration::from_secs(20) {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    true
}

#[test]
fn a_pool_runs_every_item_once() {
    for threads in [0, 1, 2, 5] {
        let pool = Pool::new(threads).expect("threads");
        assert_eq!(pool.threads(), threads.max(1));
        for count in [0, 1, 2, 3, 100] {
            let mut items = vec![0; count];
            pool.each(&mut items, |i, item| *item += i + 1);
            let want: Vec<usize> = (1..=count).collect();
            assert_eq!(items, want);
        }
    }
}

#[test]
fn a_pool_runs_items_on_all_its_threads_at_once() {
    let pool = Pool::new(3).expect("threads");
    for _ in 0..10 {
        let arrived = AtomicUsize::new(0);
        let mut together = [false; 3];
        pool.each(&mut together, |_, together| {
            arrived.fetch_add(1, Ordering::SeqCst);
            *together = reaches(&arrived, 3);
        });
        assert_eq!(together, [true; 3]);
    }
}

#[test]
fn a_pool_passes_on_a_panic_and_goes_on_working() {
    let pool = Pool::new(3).expect("threads");
    for round in 0..20 {
        let ran = AtomicUsize::new(0);
        let result = catch_unwind(AssertUnwindSafe(|| {
            pool.each(&mut [(); 10], |i, ()| {
                ran.fetch_add(1, Ordering::SeqCst);
                assert!(i != round % 10, "item {i} fails");
            });
        }));
        let panic = result.expect_err("passed on");
        let text = panic.downcast_ref::<String>().expect("a formatted message");
        assert_eq!(*text, format!("item {} fails", round % 10));
        assert_eq!(ran.into_inner(), 10, "the other items ran");
        let mut items = [1; 10];
        pool.each(&mut items, |_, item| *item *= 2);
        assert_eq!(items, [2; 10]);
    }
}

#[test]
fn a_second_caller_of_a_pool_does_not_wait_for_the_first() {
    let pool = Pool::new(2).expect("threads");
    let (started, is_started) = mpsc::sync_channel(2);
    let finished = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let (pool, finished) = (&pool, &finished);
        let first = scope.spawn(move || {
            let mut released = [false; 2];
            pool.each(&mut released, |_, released| {
                started.send(()).expect("there is a receiver");
                *released = reaches(finished, 1);
            });
            released
        });
        is_started.recv().expect("the first caller runs");
        let second = std::thread::current().id();
        let mut ids = [None; 8];
        pool.each(&mut ids, |_, id| *id = Some(std::thread::current().id()));
        assert_eq!(ids, [Some(second); 8], "it does its work itself");
        finished.store(1, Ordering::SeqCst);
        assert_eq!(first.join().expect("no panic"), [true; 2]);
    });
}

/// Rows of more chunks than a tile takes at once, in every format, for few and many rows of x.
#[test]
fn long_rows_differ_from_scalar_by_rounding_only() {
    let scalar = by_name("scalar").expect("always there");
    let mut seed = 0;
    for bits in [8, 4, 2] {
        for block in [None, Some(16), Some(32), Some(128)] {
            for (k, rows) in [(2048, 1), (2049, 2), (2080, 3), (4999, 5), (2304, 70)] {
                let (zero_points, codes) = (seed % 2 == 0, Codes::Any);
                let shape = Shape { n: 19, k, rows, bits, block, zero_points, codes, seed };
                seed += 1;
                let problem = Problem::floats(shape);
                let magnitudes = problem.magnitudes();
                for precision in [Precision::Int8, Precision::Int16] {
                    let want = problem.product(scalar, precision);
                    for kernel in available() {
                        let what = format!("{}: {:?}", kernel.name(), problem.shape);
                        let got = problem.product(*kernel, precision);
                        check_close(&what, &got, &want, &magnitudes)
                            .unwrap_or_else(|error| panic!("{error}"));
                    }
                }
            }
        }
    }
}

#[test]
fn rows_longer_than_any_cache_are_multiplied_too() {
    const K: usize = 40_000;
    const N: usize = 9;
    let codes: Vec<u8> = (0..N * K).map(|i| (i % 256) as u8).collect();
    let matrix = Matrix::new(&codes, 8, N, K, None, &[1.0; N], None);
    let x: Vec<f32> = (0..4 * K).map(|i| (i % 255) as f32 - 127.0).collect();
    for kernel in available() {
        let mut activations = Activations::default();
        let shape = ChunkShape::of_weights(None);
        activations
            .quantise(&x, K, shape, Precision::Int16, kernel.layout())
            .expect("all numbers are finite");
        let mut out = vec![0.0; 4 * N];
        matmul(*kernel, &matrix, 0..N, &activations, &[0, 1, 2, 3], &mut out, &mut Vec::new());
        for (m, out) in out.chunks_exact(N).enumerate() {
            for (n, &out) in out.iter().enumerate() {
                let row = codes[n * K..(n + 1) * K].iter().map(|&q| f64::from(q) - 128.0);
                let products = row.zip(&x[m * K..]).map(|(w, &x)| w * f64::from(x));
                let (sum, size) =
                    products.fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
                let error = (f64::from(out) - sum).abs();
                assert!(error <= 1e-4 * size, "{}: {out}, not {sum}", kernel.name());
            }
        }
    }
}
