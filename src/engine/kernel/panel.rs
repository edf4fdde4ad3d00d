//! The loops around an instruction set's dot products, written once for all of them.
//!
//! What runs for each tile is `inline(always)`, so that each kernel's [`Isa::strip`], which carries
//! the `target_feature` attribute, compiles it with its own instructions.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::activations::{Activations, Layout};

/// Weight rows of a tile.
pub const TILE_ROWS: usize = 4;
/// Rows of x of a tile.
pub const TILE_COLUMNS: usize = 4;
/// Chunks of k that a tile covers at most; longer rows are summed from several tiles.
pub const TILE_CHUNKS: usize = 64;

/// Some rows of a matrix, in codes of 8 or 4 bits, to be multiplied with some rows of x.
///
/// ```text
/// out[m * out_stride + n] =
///     sum over c of s[n][c] * xs[m][c] * (dot(w[n][c], x[m][c]) - zero[n][c] * sum(x[m][c]))
/// ```
///
/// where c counts chunks of k, s and zero are the weights' scales and zero points, xs are the
/// scales of x.
pub struct Panel<'a> {
    /// Row `n` at `n * stride`, at least as many codes as the chunks of x.
    pub weights: &'a [u8],
    /// 8; or 4, low halves of bytes first, if chunks are of 32.
    pub bits: u8,
    /// Whether they are expected in a cache: those of memory must be asked for further ahead.
    pub cached: bool,
    pub stride: usize,
    pub rows: usize,
    pub scales: Scales<'a>,
    pub zeros: Zeros<'a>,
    pub x: &'a Activations,
    pub columns: &'a [u32],
    pub out: &'a mut [f32],
    pub out_stride: usize,
}

/// Weight scales of a panel's rows.
#[derive(Debug, Clone, Copy)]
pub enum Scales<'a> {
    /// One for each row.
    Row(&'a [f32]),
    /// `[rows, blocks]`, a block being `chunks` chunks.
    Block { scales: &'a [f32], blocks: usize, chunks: usize },
}

/// What a weight byte must be lowered by, as the kernel takes it.
#[derive(Debug, Clone, Copy)]
pub enum Zeros<'a> {
    /// The same for all.
    Same(f32),
    /// A zero point for each scale, plus a constant.
    Each { zeros: &'a [u8], bias: f32 },
}

impl Zeros<'_> {
    #[inline(always)]
    pub fn at(&self, scale: usize) -> f32 {
        match self {
            Self::Same(zero) => *zero,
            Self::Each { zeros, bias } => f32::from(zeros[scale]) + bias,
        }
    }
}

impl Panel<'_> {
    /// Leaves out the first `rows` rows, which have been done.
    pub fn skip(&mut self, rows: usize) {
        let rows = rows.min(self.rows);
        self.weights = &self.weights[(rows * self.stride).min(self.weights.len())..];
        self.rows -= rows;
        let per_row = match &mut self.scales {
            Scales::Row(scales) => {
                *scales = &scales[rows..];
                1
            }
            Scales::Block { scales, blocks, .. } => {
                *scales = &scales[rows * *blocks..];
                *blocks
            }
        };
        if let Zeros::Each { zeros, .. } = &mut self.zeros {
            *zeros = &zeros[rows * per_row..];
        }
        let out = std::mem::take(&mut self.out);
        let done = rows.min(out.len());
        self.out = &mut out[done..];
    }

    /// Panics unless all that a kernel reads through raw pointers is there, in the layout that it
    /// expects. Every kernel's entry point calls it; the soundness of the kernels rests on it.
    pub fn check(&self, layout: Layout) {
        assert!(self.x.layout() == Some(layout), "x was quantised for another kernel");
        let row_bytes = self.x.chunks() * self.x.chunk() * usize::from(self.bits) / 8;
        match self.bits {
            8 => assert!(self.x.chunk() == 16 || self.x.chunk() == 32),
            bits => assert!(bits == 4 && self.x.chunk() == 32),
        }
        assert!(self.rows >= 1, "an empty panel");
        assert!((self.rows - 1) * self.stride + row_bytes <= self.weights.len());
        assert!(self.columns.iter().all(|&m| (m as usize) < self.x.rows()));
        match self.scales {
            Scales::Row(scales) => assert!(scales.len() >= self.rows),
            Scales::Block { scales, blocks, chunks } => {
                assert!(chunks >= 1 && blocks >= self.x.chunks().div_ceil(chunks));
                assert!(scales.len() >= self.rows * blocks);
            }
        }
        if let Some(last) = self.columns.len().checked_sub(1) {
            assert!(last * self.out_stride + self.rows <= self.out.len());
        }
    }
}

/// What a tile's dot products are computed from: pointers into slices that are long enough for
/// `chunks` chunks, as [`Panel::check`] has made sure. Offsets, not products: overflow checks are
/// on in release builds, and one in an inner loop costs as much as its work.
pub struct Dots<const N: usize, const M: usize> {
    /// Weight row `n` at `weights + rows[n]`.
    pub weights: *const u8,
    pub rows: [usize; N],
    /// Codes of row `m` of x: words or bytes, as the kernel's layout has them.
    pub codes: [*const u8; M],
    /// Bytes from the high digits of a row to its low ones; 0 where codes are one digit.
    pub low_digits: usize,
    pub chunks: usize,
    /// Factor of (n, m, c) at `factors[m] + factor_rows[n] + c`.
    pub factors: [*const f32; M],
    pub factor_rows: [usize; N],
}

/// An instruction set: exact integer dot products of chunks, summed over chunks in f32.
pub trait Isa {
    /// Vector registers.
    const REGISTERS: usize;

    /// `sums[m][n] = sum over c of factor(n, m, c) * dot(weights[n][c], x[m][first + c])`.
    /// `inline(always)`: it becomes part of [`Isa::strip`].
    ///
    /// # Safety
    /// The CPU has the instructions, and the pointers of `dots` are good as its fields say.
    unsafe fn dots<const N: usize, const M: usize, const CHUNK: usize, const BITS: usize>(
        dots: &Dots<N, M>,
    ) -> [[f32; N]; M];

    /// Weight scale times activation scale for each chunk, into `out`; returns the sum of weight
    /// scales times x sums. `inline(always)`, as [`Isa::dots`].
    ///
    /// # Safety
    /// `out` has room for as many floats as the three slices, equally long, have.
    #[inline(always)]
    unsafe fn block_factors(
        weights: &[f32],
        x_scales: &[f32],
        x_sums: &[f32],
        out: *mut f32,
    ) -> f32 {
        let mut off = 0.0;
        for (c, ((w, s), x)) in weights.iter().zip(x_scales).zip(x_sums).enumerate() {
            // SAFETY: the caller vouches for the room.
            unsafe { out.add(c).write(w * s) };
            off += w * x;
        }
        off
    }

    /// Calls [`strip`] from a function that has the `target_feature` attribute of these
    /// instructions and is not inlined: one function for each shape keeps its registers.
    ///
    /// # Safety
    /// As for [`strip`].
    unsafe fn strip<const M: usize, const CHUNK: usize, const BITS: usize>(
        panel: &mut Panel<'_>,
        rows: Range<usize>,
        m: usize,
    );
}

/// Weight bytes that stay in the first-level cache while all rows of x pass over them.
const STRIP_BYTES: usize = 16 << 10;

/// Multiplies a panel.
///
/// # Safety
/// The CPU has the instructions of `I`, and `panel.check()` was called.
pub unsafe fn multiply<I: Isa>(panel: &mut Panel<'_>) {
    let strip = (STRIP_BYTES / panel.stride.max(1)).next_multiple_of(TILE_ROWS).max(TILE_ROWS);
    for first in (0..panel.rows).step_by(strip) {
        let rows = first..panel.rows.min(first + strip);
        for m in (0..panel.columns.len()).step_by(TILE_COLUMNS) {
            let columns = TILE_COLUMNS.min(panel.columns.len() - m);
            let rows = rows.clone();
            // SAFETY: the caller's conditions; rows and columns are inside the panel.
            unsafe {
                match (panel.bits, panel.x.chunk()) {
                    (4, _) => columns_strip::<I, 32, 4>(panel, rows, m, columns),
                    (_, 32) => columns_strip::<I, 32, 8>(panel, rows, m, columns),
                    _ => columns_strip::<I, 16, 8>(panel, rows, m, columns),
                }
            }
        }
    }
}

/// [`Isa::strip`] for that many columns.
///
/// # Safety
/// As for [`strip`].
unsafe fn columns_strip<I: Isa, const CHUNK: usize, const BITS: usize>(
    panel: &mut Panel<'_>,
    rows: Range<usize>,
    m: usize,
    columns: usize,
) {
    // SAFETY: the same conditions.
    unsafe {
        match columns {
            1 => I::strip::<1, CHUNK, BITS>(panel, rows, m),
            2 => I::strip::<2, CHUNK, BITS>(panel, rows, m),
            3 => I::strip::<3, CHUNK, BITS>(panel, rows, m),
            _ => I::strip::<TILE_COLUMNS, CHUNK, BITS>(panel, rows, m),
        }
    }
}

/// Multiplies weight rows `rows` of a panel with `M` rows of x from `panel.columns[m]` on.
///
/// # Safety
/// As for [`multiply`], and rows and columns are inside the panel.
#[inline(always)]
pub unsafe fn strip<I: Isa, const M: usize, const CHUNK: usize, const BITS: usize>(
    panel: &mut Panel<'_>,
    rows: Range<usize>,
    m: usize,
) {
    let mut columns = Columns {
        codes: [std::ptr::null(); M],
        scales: [std::ptr::null(); M],
        sums: [std::ptr::null(); M],
        out: [std::ptr::null_mut(); M],
    };
    // One pointer for all columns: to borrow `out` again would make the earlier ones invalid.
    let out = panel.out.as_mut_ptr();
    for i in 0..M {
        let column = panel.columns[m + i] as usize;
        columns.codes[i] = panel.x.codes(column);
        columns.scales[i] = panel.x.scales(column).as_ptr();
        columns.sums[i] = panel.x.sums(column).as_ptr();
        columns.out[i] = out.wrapping_add((m + i) * panel.out_stride);
    }
    let panel: &Panel<'_> = panel;
    // SAFETY: the same conditions.
    unsafe {
        match panel.scales {
            Scales::Row(_) => tiles::<I, M, CHUNK, BITS, false>(panel, rows, &columns),
            Scales::Block { .. } => tiles::<I, M, CHUNK, BITS, true>(panel, rows, &columns),
        }
    }
}

/// Cuts the rows of a strip into tiles whose accumulators, N times M, stay in registers.
#[inline(always)]
unsafe fn tiles<
    I: Isa,
    const M: usize,
    const CHUNK: usize,
    const BITS: usize,
    const BY_BLOCK: bool,
>(
    panel: &Panel<'_>,
    rows: Range<usize>,
    columns: &Columns<M>,
) {
    let mut n = rows.start;
    // SAFETY: the same conditions as for `strip`.
    unsafe {
        if M == 1 || (M == 2 && I::REGISTERS >= 32) {
            while n + 4 <= rows.end {
                tile::<I, 4, M, CHUNK, BITS, BY_BLOCK>(panel, n, columns);
                n += 4;
            }
        } else if M == 2 {
            while n + 3 <= rows.end {
                tile::<I, 3, M, CHUNK, BITS, BY_BLOCK>(panel, n, columns);
                n += 3;
            }
        } else {
            while n + 2 <= rows.end {
                tile::<I, 2, M, CHUNK, BITS, BY_BLOCK>(panel, n, columns);
                n += 2;
            }
        }
        while n < rows.end {
            tile::<I, 1, M, CHUNK, BITS, BY_BLOCK>(panel, n, columns);
            n += 1;
        }
    }
}

/// Where the rows of x of a strip begin, and where their sums go.
struct Columns<const M: usize> {
    codes: [*const u8; M],
    scales: [*const f32; M],
    sums: [*const f32; M],
    out: [*mut f32; M],
}

/// `N` weight rows from `n` on, times the columns.
#[inline(always)]
unsafe fn tile<
    I: Isa,
    const N: usize,
    const M: usize,
    const CHUNK: usize,
    const BITS: usize,
    const BY_BLOCK: bool,
>(
    panel: &Panel<'_>,
    n: usize,
    columns: &Columns<M>,
) {
    let x = panel.x;
    let code_bytes = x.chunk_bytes();
    let mut rows = [0usize; N];
    for j in 1..N {
        rows[j] = rows[j - 1].wrapping_add(panel.stride);
    }
    let mut factor_rows = [0usize; N];
    for j in 1..N {
        factor_rows[j] = if BY_BLOCK { j * TILE_CHUNKS } else { 0 };
    }
    let mut buffer = MaybeUninit::<[[[f32; TILE_CHUNKS]; N]; M]>::uninit();
    let mut sums = [[0f32; N]; M];
    let mut weights = panel.weights.as_ptr().wrapping_add(n.wrapping_mul(panel.stride));
    let mut first = 0;
    while first < x.chunks() {
        let chunks = TILE_CHUNKS.min(x.chunks() - first);
        let mut codes = columns.codes;
        let mut factors = columns.scales;
        for i in 0..M {
            codes[i] = codes[i].wrapping_add(first.wrapping_mul(code_bytes));
            factors[i] = factors[i].wrapping_add(first);
            let out = buffer.as_mut_ptr().cast::<f32>().wrapping_add(i * N * TILE_CHUNKS);
            // SAFETY: x has `chunks` scales and sums from `first` on; `out` has N rows for
            // TILE_CHUNKS factors; `check` has measured the weights' scales.
            unsafe {
                let x_scales = std::slice::from_raw_parts(factors[i], chunks);
                let x_sums = std::slice::from_raw_parts(columns.sums[i].add(first), chunks);
                let off = off::<I, N>(panel, n, first, x_scales, x_sums, out);
                for j in 0..N {
                    sums[i][j] -= off[j];
                }
            }
            if BY_BLOCK {
                factors[i] = out;
            }
        }
        let low_digits = x.low_digits();
        let dots = Dots::<N, M> { weights, rows, codes, low_digits, chunks, factors, factor_rows };
        // SAFETY: the caller has the instructions; the pointers are good for `chunks` chunks.
        let dots = unsafe { I::dots::<N, M, CHUNK, BITS>(&dots) };
        for i in 0..M {
            for j in 0..N {
                sums[i][j] += dots[i][j];
            }
        }
        first += chunks;
        weights = weights.wrapping_add(chunks.wrapping_mul(CHUNK * BITS / 8));
    }
    for i in 0..M {
        if let Scales::Row(scales) = panel.scales {
            for j in 0..N {
                // SAFETY: `check` has seen a scale for each row.
                sums[i][j] *= unsafe { *scales.as_ptr().add(n).add(j) };
            }
        }
        // SAFETY: `check` has measured `out`.
        unsafe { columns.out[i].add(n).cast::<[f32; N]>().write_unaligned(sums[i]) };
    }
}

/// What the zero points take off the sums of `N` rows with one row of x; and, where scales are by
/// block, the factors of the chunks into `out[N][TILE_CHUNKS]`.
///
/// # Safety
/// The panel was checked, and `out` has that room.
#[inline(always)]
unsafe fn off<I: Isa, const N: usize>(
    panel: &Panel<'_>,
    n: usize,
    first: usize,
    x_scales: &[f32],
    x_sums: &[f32],
    out: *mut f32,
) -> [f32; N] {
    let mut offs = [0f32; N];
    let Scales::Block { scales, blocks, chunks: per_block } = panel.scales else {
        if let Zeros::Same(0.0) = panel.zeros {
            return offs;
        }
        let total = lanes_sum(x_sums);
        for (j, off) in offs.iter_mut().enumerate() {
            *off = panel.zeros.at(n.wrapping_add(j)) * total;
        }
        return offs;
    };
    let mut row = scales.as_ptr().wrapping_add(n.wrapping_mul(blocks));
    let mut out = out;
    if let (1, Zeros::Same(zero)) = (per_block, panel.zeros) {
        for off in &mut offs {
            // SAFETY: row n + j has a scale for each chunk; there are at most TILE_CHUNKS.
            unsafe {
                let row = std::slice::from_raw_parts(row.add(first), x_scales.len());
                *off = zero * I::block_factors(row, x_scales, x_sums, out);
            }
            row = row.wrapping_add(blocks);
            out = out.wrapping_add(TILE_CHUNKS);
        }
        return offs;
    }
    for (j, off) in offs.iter_mut().enumerate() {
        for (c, (x_scale, x_sum)) in x_scales.iter().zip(x_sums).enumerate() {
            let block = (first + c) / per_block;
            // SAFETY: `check` has seen that there are as many blocks; c is below TILE_CHUNKS.
            let scale = unsafe { *row.add(block) };
            // SAFETY: the same.
            unsafe { out.add(c).write(scale * x_scale) };
            *off += panel.zeros.at((n + j) * blocks + block) * scale * x_sum;
        }
        row = row.wrapping_add(blocks);
        out = out.wrapping_add(TILE_CHUNKS);
    }
    offs
}

/// The sum of `x` in eight lanes, which compile to a vector.
#[inline(always)]
fn lanes_sum(x: &[f32]) -> f32 {
    let (x8, rest) = x.as_chunks::<8>();
    let mut lanes = [0f32; 8];
    for x in x8 {
        for j in 0..8 {
            lanes[j] += x[j];
        }
    }
    let mut sum = 0.0;
    for x in rest {
        sum += x;
    }
    sum + lanes.iter().sum::<f32>()
}
