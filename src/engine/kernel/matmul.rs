//! `y = x · Wᵀ` for quantised `W`.
//!
//! `y[m][n] = sum over k of (q[n][k] - z[n][b]) * s[n][b] * x[m][k]`, b the block that k is in.

use std::ops::Range;

use super::Kernel;
use super::activations::Activations;
use super::panel::{Panel, Scales, Zeros};
use super::wide::{Wide, wide};

/// A quantised matrix `[n, k]`, borrowed from where it lies in the file.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<'a> {
    codes: &'a [u8],
    bits: u8,
    n: usize,
    k: usize,
    /// Bytes from one row to the next.
    row_bytes: usize,
    /// Elements of k that share a scale; `None`: a whole row.
    block: Option<usize>,
    /// `[n]`, or `[n, ceil(k / block)]`.
    scales: &'a [f32],
    /// One byte for each scale; `None`: `2^(bits-1)` everywhere.
    zero_points: Option<&'a [u8]>,
    cached: bool,
}

impl<'a> Matrix<'a> {
    /// `codes` is packed along k, low bits first, each row ending at a whole byte, or at a whole
    /// block where there are blocks (`MatMulNBits` pads its last one).
    pub fn new(
        codes: &'a [u8],
        bits: u8,
        n: usize,
        k: usize,
        block: Option<usize>,
        scales: &'a [f32],
        zero_points: Option<&'a [u8]>,
    ) -> Self {
        let row_bytes = row_bytes(bits, k, block);
        debug_assert!(codes.len() == n * row_bytes);
        debug_assert!(scales.len() == n * blocks(k, block));
        Self { codes, bits, n, k, row_bytes, block, scales, zero_points, cached: false }
    }

    /// Whether its codes are expected in the last-level cache. Without, it is not.
    pub fn cached(self, cached: bool) -> Self {
        Self { cached, ..self }
    }

    pub fn n(&self) -> usize {
        self.n
    }
}

/// Bytes of one row of a matrix of `bits`-bit codes.
pub fn row_bytes(bits: u8, k: usize, block: Option<usize>) -> usize {
    let stored = block.map_or(k, |block| k.div_ceil(block) * block);
    (stored * usize::from(bits)).div_ceil(8)
}

/// Scales of one row.
pub fn blocks(k: usize, block: Option<usize>) -> usize {
    block.map_or(1, |block| k.div_ceil(block))
}

/// Rows that are expanded to bytes at a time, where they can't be read in place.
const EXPANDED_ROWS: usize = 16;

/// Computes columns `features` of `x · Wᵀ` for the rows `columns` of `x`, into
/// `out[columns.len()][features.len()]`. `expanded` is a buffer.
pub fn matmul(
    kernel: &dyn Kernel,
    matrix: &Matrix<'_>,
    features: Range<usize>,
    x: &Activations,
    columns: &[u32],
    out: &mut [f32],
    expanded: &mut Vec<u8>,
) {
    let width = features.len();
    if width == 0 || columns.is_empty() {
        return;
    }
    let padded = x.chunks() * x.chunk();
    // A row may be shorter than its chunks: what is read beyond it meets codes of 0. The last
    // rows of a matrix have nothing beyond them.
    let in_place = if matrix.bits == 8 || (matrix.bits == 4 && x.chunk() == 32) {
        let read = padded * usize::from(matrix.bits) / 8;
        let spare = read.saturating_sub(matrix.row_bytes).div_ceil(matrix.row_bytes.max(1));
        features.end.min(matrix.n.saturating_sub(spare)).max(features.start)
    } else {
        features.start
    };
    let offset = kernel.weight_offset();
    let mut job = Job { kernel, matrix, x, columns, width, start: features.start, out };
    if features.start < in_place {
        let weights = &matrix.codes[features.start * matrix.row_bytes..];
        let bias = if matrix.bits == 8 { -f32::from(offset) } else { 0.0 };
        let cached = matrix.cached;
        job.run(features.start..in_place, weights, matrix.bits, cached, matrix.row_bytes, bias);
    }
    // A signed kernel wants small codes around 0, an unsigned one as they are.
    let lift = if offset == 0 { 0 } else { offset - (1 << (matrix.bits - 1)) };
    for n in (in_place..features.end).step_by(EXPANDED_ROWS) {
        let rows = n..features.end.min(n + EXPANDED_ROWS);
        expanded.resize(EXPANDED_ROWS * padded, 0);
        for (row, out) in rows.clone().zip(expanded.chunks_exact_mut(padded)) {
            let packed = &matrix.codes[row * matrix.row_bytes..][..matrix.row_bytes];
            wide(Expand { packed, bits: matrix.bits, lift, out });
        }
        job.run(rows, expanded, 8, true, padded, f32::from(lift) - f32::from(offset));
    }
}

struct Job<'a> {
    kernel: &'a dyn Kernel,
    matrix: &'a Matrix<'a>,
    x: &'a Activations,
    columns: &'a [u32],
    width: usize,
    start: usize,
    out: &'a mut [f32],
}

impl Job<'_> {
    /// Multiplies `rows`, whose weights of `bits` bits are above the file's codes, as the kernel
    /// takes them, by `bias`.
    fn run(
        &mut self,
        rows: Range<usize>,
        weights: &[u8],
        bits: u8,
        cached: bool,
        stride: usize,
        bias: f32,
    ) {
        let matrix = self.matrix;
        let blocks = blocks(matrix.k, matrix.block);
        let own = rows.start * blocks..rows.end * blocks;
        let scales = &matrix.scales[own.clone()];
        let middle = f32::from(1u8 << (matrix.bits - 1));
        self.kernel.multiply(&mut Panel {
            weights,
            bits,
            cached,
            stride,
            rows: rows.len(),
            scales: match matrix.block {
                None => Scales::Row(scales),
                Some(block) => Scales::Block { scales, blocks, chunks: block / self.x.chunk() },
            },
            zeros: match matrix.zero_points {
                None => Zeros::Same(middle + bias),
                Some(zeros) => Zeros::Each { zeros: &zeros[own], bias },
            },
            x: self.x,
            columns: self.columns,
            out: &mut self.out[rows.start - self.start..],
            out_stride: self.width,
        });
    }
}

/// Unpacks codes of 8, 4 or 2 bits into bytes, each raised by `lift`, which can't wrap: it is
/// written so because checked sums would not vectorise.
struct Expand<'a> {
    packed: &'a [u8],
    bits: u8,
    lift: u8,
    out: &'a mut [u8],
}

impl Wide for Expand<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, _is_fused: bool) {
        let Self { packed, bits, lift, out } = self;
        match bits {
            8 => {
                let len = packed.len().min(out.len());
                out[..len].copy_from_slice(&packed[..len]);
            }
            4 => {
                // 16 bytes at a time, which compile to vectors.
                let (out32, out_rest) = out.as_chunks_mut::<32>();
                let (packed16, _) = packed.as_chunks::<16>();
                for (out, packed) in out32.iter_mut().zip(packed16) {
                    for i in 0..16 {
                        out[2 * i] = (packed[i] & 15).wrapping_add(lift);
                        out[2 * i + 1] = (packed[i] >> 4).wrapping_add(lift);
                    }
                }
                let done = out32.len().min(packed16.len());
                let rest = out32[done..].as_flattened_mut().iter_mut().chain(out_rest);
                for (i, out) in rest.enumerate() {
                    let Some(byte) = packed.get(done * 16 + i / 2) else { break };
                    *out = ((byte >> (4 * (i % 2))) & 15).wrapping_add(lift);
                }
            }
            _ => {
                for (out, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
                    *out = std::array::from_fn(|i| ((byte >> (2 * i)) & 3).wrapping_add(lift));
                }
            }
        }
    }
}
