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

    #[inline(always)]
    fn store(&mut self, row: usize, c: usize, codes: &[i32; CHUNK_MAX], layout: Layout) {
        let (chunk, stride) = (self.chunk, self.stride);
        match layout {
            Layout::WordsEvenOdd if chunk == 32 => {
                let out = &mut self.words[row * stride + c * chunk..][..32];
                for i in 0..16 {
                    out[i] = codes[2 * i] as i16;
                    out[16 + i] = codes[2 * i + 1] as i16;
                }
            }
            Layout::Words | Layout::WordsEvenOdd => {
                let mut words = [0; CHUNK_MAX];
                for (word, &code) in words.iter_mut().zip(codes) {
                    *word = code as i16;
                }
                copy(&mut self.words[row * stride + c * chunk..][..chunk], &words);
            }
            Layout::Bytes if self.planes == 1 => {
                let mut bytes = [0; CHUNK_MAX];
                for (byte, &code) in bytes.iter_mut().zip(codes) {
                    *byte = code as i8;
                }
                copy(&mut self.bytes[row * stride + c * chunk..][..chunk], &bytes);
            }
            Layout::Bytes => {
                let start = row * 2 * stride + c * chunk;
                let (high, low) = self.bytes[start..].split_at_mut(stride);
                let (highs, lows) = digits(codes);
                copy(&mut high[..chunk], &highs);
                copy(&mut low[..chunk], &lows);
            }
        }
    }
}

/// Copies the first of a chunk's codes. A length that the compiler knows takes a move, any other a
/// call.
#[inline(always)]
fn copy<T: Copy>(out: &mut [T], codes: &[T; CHUNK_MAX]) {
    match <&mut [T; CHUNK_MAX]>::try_from(&mut *out) {
        Ok(out) => *out = *codes,
        Err(_) => out.copy_from_slice(&codes[..out.len()]),
    }
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
        let mut c = 0;
        for (row, x) in x.chunks_exact(k).enumerate() {
            for x in x.chunks(block) {
                // A length that the compiler knows needs no loop for what is left over.
                let max = match <&[f32; CHUNK_MAX]>::try_from(x) {
                    Ok(x) => max_abs(x),
                    Err(_) => max_abs(x),
                };
                let max = max.ok_or(NotFinite { row })?;
                // Below that there is no f32 for the inverse: the block counts as zeros.
                let max = if max < MAX_ABS_MIN { 0.0 } else { max };
                let scale = max / precision.limit();
                // The largest is scaled to the limit exactly, so that codes stay within it.
                let inverse = if max > 0.0 { precision.limit() / max } else { 0.0 };
                for x in x.chunks(to.chunk) {
                    let codes = match x.first_chunk::<CHUNK_MAX>() {
                        Some(x) => codes(x, inverse),
                        None => {
                            let mut padded = [0f32; CHUNK_MAX];
                            padded[..x.len()].copy_from_slice(x);
                            codes(&padded, inverse)
                        }
                    };
                    to.scales[c] = scale;
                    to.sums[c] = scale * sum(&codes) as f32;
                    to.store(row, c - row * to.chunks, &codes, layout);
                    c += 1;
                }
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

/// A block whose numbers are all smaller is taken for zeros.
const MAX_ABS_MIN: f32 = 1e-33;

/// Codes left empty between rows. Rows whose distance is a power of two would all have their
/// chunks in the same few sets of the first-level cache, and push each other out.
const ROW_GAP: usize = 64;

/// The longest chunk.
const CHUNK_MAX: usize = 32;

/// The largest magnitude in `x`, or nothing where one is not finite. Compares bit patterns, which
/// order like the magnitudes: integer maxima vectorise, those of floats don't.
#[inline(always)]
fn max_abs(x: &[f32]) -> Option<f32> {
    let mut bits = 0i32;
    for x in x {
        bits = bits.max((x.to_bits() & 0x7fff_ffff) as i32);
    }
    let max = f32::from_bits(bits as u32);
    max.is_finite().then_some(max)
}

/// `round(x * inverse)`, ties to even.
#[inline(always)]
fn codes(x: &[f32; CHUNK_MAX], inverse: f32) -> [i32; CHUNK_MAX] {
    let mut codes = [0; CHUNK_MAX];
    for (code, x) in codes.iter_mut().zip(x) {
        *code = rounded(x * inverse);
    }
    codes
}

/// In lanes, which the compiler puts into a vector.
#[inline(always)]
fn sum(codes: &[i32; CHUNK_MAX]) -> i32 {
    let mut lanes = [0i32; 8];
    for codes in codes.as_chunks::<8>().0 {
        for lane in 0..8 {
            lanes[lane] = lanes[lane].wrapping_add(codes[lane]);
        }
    }
    let mut sum = 0i32;
    for lane in lanes {
        sum = sum.wrapping_add(lane);
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
fn digits(codes: &[i32; CHUNK_MAX]) -> ([i8; CHUNK_MAX], [i8; CHUNK_MAX]) {
    let (mut highs, mut lows) = ([0; CHUNK_MAX], [0; CHUNK_MAX]);
    for i in 0..CHUNK_MAX {
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
