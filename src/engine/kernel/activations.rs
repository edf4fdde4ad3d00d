//! Activations quantised to integers, row by row and block by block.
//!
//! A block of `block` elements of a row gets one scale: `s = max|x| / limit`, and codes are
//! `round(x * (limit / max|x|))`, ties to even. With [`Precision::Int8`] the limit is 127, which is
//! what onnxruntime's MLAS does for 8-bit block-wise weights. With [`Precision::Int16`] it is
//! 32512 = 127 * 255 + 127, so that a code is two signed digits of base 255, each of which an int8
//! instruction can multiply; the result is as good as f32 to about 3e-5 of the row's rms.
//!
//! A *chunk* (32 elements, 16 if blocks are 16 long) is what a kernel multiplies at a time. A
//! block is a whole number of chunks; rows are padded with zeros to whole chunks.

use super::wide::{Wide, wide};

/// How finely activations are quantised before they meet quantised weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// 8-bit codes: one integer product for each weight. Error about 0.5% of a row's rms.
    Int8,
    /// 16-bit codes: as accurate as f32 for 8-bit weights, at up to twice the arithmetic.
    Int16,
}

impl Precision {
    /// The largest code.
    fn limit(self) -> f32 {
        match self {
            Self::Int8 => 127.0,
            Self::Int16 => 127.0 * DIGIT_BASE as f32 + 127.0,
        }
    }
}

/// The order in which a kernel wants the codes of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One i16 a code, in order.
    Words,
    /// One i16 a code; in chunks of 32, the 16 even elements first, then the 16 odd ones. That
    /// is how AVX2 takes bytes apart for free (a mask and a shift). Chunks of 16 are in order.
    WordsEvenOdd,
    /// One i8 a digit: 8-bit codes as they are; 16-bit codes as a row of high digits and then a
    /// row of low digits, `code = 255 * high + low`.
    Bytes,
}

/// What a high digit of a 16-bit code is worth.
pub const DIGIT_BASE: i32 = 255;

/// Quantised rows, in buffers that are reused from one run to the next.
#[derive(Debug, Default)]
pub struct Activations {
    rows: usize,
    chunk: usize,
    chunks: usize,
    /// 1 for 8-bit codes; 2 for 16-bit codes in [`Layout::Bytes`].
    planes: usize,
    layout: Option<Layout>,
    /// Codes from one row (or plane of a row) to the next.
    stride: usize,
    words: Vec<i16>,
    bytes: Vec<i8>,
    /// `[rows, chunks]`: the scale of each chunk (chunks of one block share its value).
    scales: Vec<f32>,
    /// `[rows, chunks]`: scale times the sum of codes, which zero points are multiplied with.
    sums: Vec<f32>,
}

impl Activations {
    pub fn rows(&self) -> usize {
        self.rows
    }

    pub fn chunk(&self) -> usize {
        self.chunk
    }

    pub fn chunks(&self) -> usize {
        self.chunks
    }

    /// How the codes lie; nothing before the first use.
    pub fn layout(&self) -> Option<Layout> {
        self.layout
    }

    /// Where the codes of `row` begin, words or bytes; the high digits where there are two.
    pub fn codes(&self, row: usize) -> *const u8 {
        if self.words.is_empty() {
            self.bytes[row * self.planes * self.stride..].as_ptr().cast()
        } else {
            self.words[row * self.stride..].as_ptr().cast()
        }
    }

    /// Bytes of one chunk's codes (of one digit).
    pub fn chunk_bytes(&self) -> usize {
        if self.words.is_empty() { self.chunk } else { self.chunk << 1 }
    }

    /// Bytes from a row's high digits to its low ones; 0 where codes are one digit or word.
    pub fn low_digits(&self) -> usize {
        if self.planes == 2 { self.stride } else { 0 }
    }

    pub fn scales(&self, row: usize) -> &[f32] {
        &self.scales[row * self.chunks..(row + 1) * self.chunks]
    }

    pub fn sums(&self, row: usize) -> &[f32] {
        &self.sums[row * self.chunks..(row + 1) * self.chunks]
    }

    /// Quantises `x`, `[rows, k]`, in blocks of `shape.block` elements of k.
    pub fn quantise(
        &mut self,
        x: &[f32],
        k: usize,
        shape: ChunkShape,
        precision: Precision,
        layout: Layout,
    ) -> Result<(), NotFinite> {
        let ChunkShape { chunk, block } = shape;
        debug_assert!(block.is_multiple_of(chunk) && k > 0);
        self.rows = x.len() / k;
        self.chunk = chunk;
        self.chunks = k.div_ceil(chunk);
        self.layout = Some(layout);
        self.planes = match (layout, precision) {
            (Layout::Bytes, Precision::Int16) => 2,
            _ => 1,
        };
        self.stride = self.chunks * chunk + ROW_GAP;
        let (words, bytes) = match layout {
            Layout::Words | Layout::WordsEvenOdd => (self.rows * self.stride, 0),
            Layout::Bytes => (0, self.rows * self.stride * self.planes),
        };
        self.words.resize(words, 0);
        self.bytes.resize(bytes, 0);
        self.scales.resize(self.rows * self.chunks, 0.0);
        self.sums.resize(self.rows * self.chunks, 0.0);
        wide(Fill { to: self, x, k, block, precision, layout })
    }

    /// Quantises row `row`, whose codes are in chunks of `CHUNK`.
    #[inline(always)]
    fn fill<const CHUNK: usize>(
        &mut self,
        row: usize,
        x: &[f32],
        block: usize,
        precision: Precision,
        layout: Layout,
    ) -> Result<(), NotFinite> {
        let own = row * self.chunks..(row + 1) * self.chunks;
        let (scales, sums) = (&mut self.scales[own.clone()], &mut self.sums[own]);
        let (whole, rest) = x.as_chunks::<CHUNK>();
        let mut last = [0f32; CHUNK];
        last[..rest.len()].copy_from_slice(rest);
        // Step by step, because within one no chunk waits for the one before, or all are computed
        // in vectors. Meanwhile `sums` holds the largest magnitudes, and then their inverses.
        for (c, max) in sums.iter_mut().enumerate() {
            *max = max_abs(whole.get(c).unwrap_or(&last));
        }
        let mut is_finite = true;
        for max in sums.iter() {
            is_finite &= max.is_finite();
        }
        if !is_finite {
            return Err(NotFinite { row });
        }
        if block > CHUNK {
            for sums in sums.chunks_mut(block / CHUNK) {
                let mut max = 0f32;
                for sum in sums.iter() {
                    max = max.max(*sum);
                }
                sums.fill(max);
            }
        }
        for (scale, sum) in scales.iter_mut().zip(sums.iter_mut()) {
            let max = if *sum < MAX_ABS_MIN { 0.0 } else { *sum };
            *scale = max / precision.limit();
            // The largest is scaled to the limit exactly, so that codes stay within it.
            *sum = if max > 0.0 { precision.limit() / max } else { 0.0 };
        }
        let start = row * self.stride * self.planes;
        for (c, (sum, scale)) in sums.iter_mut().zip(scales).enumerate() {
            let codes = codes(whole.get(c).unwrap_or(&last), *sum);
            *sum = *scale * self::sum(&codes) as f32;
            let at = start + c * CHUNK;
            match layout {
                Layout::Bytes if self.planes == 1 => {
                    let mut bytes = [0; CHUNK];
                    for (byte, code) in bytes.iter_mut().zip(codes) {
                        *byte = code as i8;
                    }
                    put(&mut self.bytes[at..], bytes);
                }
                Layout::Bytes => {
                    let (high, low) = self.bytes[at..].split_at_mut(self.stride);
                    let (highs, lows) = digits(&codes);
                    put(high, highs);
                    put(low, lows);
                }
                Layout::WordsEvenOdd if CHUNK == 32 => {
                    let mut words = [0; CHUNK];
                    for i in 0..CHUNK / 2 {
                        words[i] = codes[2 * i] as i16;
                        words[CHUNK / 2 + i] = codes[2 * i + 1] as i16;
                    }
                    put(&mut self.words[at..], words);
                }
                Layout::Words | Layout::WordsEvenOdd => {
                    let mut words = [0; CHUNK];
                    for (word, code) in words.iter_mut().zip(codes) {
                        *word = code as i16;
                    }
                    put(&mut self.words[at..], words);
                }
            }
        }
        Ok(())
    }
}

/// Writes a chunk's codes.
#[inline(always)]
fn put<T: Copy, const CHUNK: usize>(out: &mut [T], codes: [T; CHUNK]) {
    out[..CHUNK].copy_from_slice(&codes);
}

/// [`Activations::quantise`], once there is room.
struct Fill<'a> {
    to: &'a mut Activations,
    x: &'a [f32],
    k: usize,
    block: usize,
    precision: Precision,
    layout: Layout,
}

impl Wide for Fill<'_> {
    type Output = Result<(), NotFinite>;

    #[inline(always)]
    fn compute(self, _is_fused: bool) -> Result<(), NotFinite> {
        let Self { to, x, k, block, precision, layout } = self;
        for (row, x) in x.chunks_exact(k).enumerate() {
            match to.chunk {
                16 => to.fill::<16>(row, x, block, precision, layout)?,
                _ => to.fill::<32>(row, x, block, precision, layout)?,
            }
        }
        Ok(())
    }
}

/// A row of activations holds an infinity or a NaN, which has no integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotFinite {
    pub row: usize,
}

/// A block whose numbers are all smaller is taken for zeros: there is no f32 for its scale's
/// inverse, or the scale times a weight's is subnormal, which is zero for ARMv7's NEON.
const MAX_ABS_MIN: f32 = 1e-30;

/// Codes left empty between rows. Rows whose distance is a power of two would all have their
/// chunks in the same few sets of the first-level cache, and push each other out.
const ROW_GAP: usize = 64;

/// The largest magnitude in `x`; infinite or not a number where one is. Compares bit patterns,
/// which order like the magnitudes: integer maxima vectorise, those of floats don't.
#[inline(always)]
fn max_abs<const CHUNK: usize>(x: &[f32; CHUNK]) -> f32 {
    let mut bits = 0i32;
    for x in x {
        bits = bits.max((x.to_bits() & 0x7fff_ffff) as i32);
    }
    f32::from_bits(bits as u32)
}

/// `round(x * inverse)`, ties to even.
#[inline(always)]
fn codes<const CHUNK: usize>(x: &[f32; CHUNK], inverse: f32) -> [i32; CHUNK] {
    let mut codes = [0; CHUNK];
    for i in 0..CHUNK {
        codes[i] = rounded(x[i] * inverse);
    }
    codes
}

#[inline(always)]
fn sum<const CHUNK: usize>(codes: &[i32; CHUNK]) -> i32 {
    let mut sum = 0i32;
    for code in codes {
        sum = sum.wrapping_add(*code);
    }
    sum
}

/// `x` rounded, ties to even: adding 1.5 * 2^23 leaves the integer in the low bits of the sum,
/// which vectorises on every target; `round_ties_even` is a call on some.
#[inline(always)]
fn rounded(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() as i32).wrapping_sub(MAGIC.to_bits() as i32)
}

/// The two digits of 16-bit codes: both within -127..=127, so that even instructions that saturate
/// (`smlal` into 16 bits, twice) are exact. The high one is the code by 255, rounded: no code lies
/// so near the middle of two that f32 could err.
#[inline(always)]
fn digits<const CHUNK: usize>(codes: &[i32; CHUNK]) -> ([i8; CHUNK], [i8; CHUNK]) {
    let (mut highs, mut lows) = ([0; CHUNK], [0; CHUNK]);
    for i in 0..CHUNK {
        let high = rounded(codes[i] as f32 * (1.0 / DIGIT_BASE as f32));
        highs[i] = high as i8;
        lows[i] = codes[i].wrapping_sub(high.wrapping_mul(DIGIT_BASE)) as i8;
    }
    (highs, lows)
}

/// How k is cut: in blocks with one activation scale each, and those in chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkShape {
    /// 16 or 32.
    pub chunk: usize,
    /// A multiple of `chunk`.
    pub block: usize,
}

impl ChunkShape {
    /// The shape for weights with a scale for every `block` of k, or for every row (`None`).
    pub fn of_weights(block: Option<usize>) -> Self {
        match block {
            None => Self { chunk: 32, block: 32 },
            Some(16) => Self { chunk: 16, block: 16 },
            Some(block) => Self { chunk: 32, block },
        }
    }
}
