//! Activation functions of experts. A NaN stays one: what would make a number of it would hide a
//! wrong input, or a sum that overflowed, behind a plausible answer.

use crate::engine::kernel::wide::{Wide, multiply_add, wide};

/// An activation on a single projection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    Relu,
    /// The tanh form: `0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3)))` (Hendrycks and Gimpel
    /// 2016, equation 3), which is onnxruntime's.
    Gelu,
    /// `x * sigmoid(x)`.
    Silu,
    Identity,
}

impl Function {
    /// Applies it in place.
    pub fn apply(self, x: &mut [f32]) {
        wide(Each(self, x));
    }
}

/// [`Function::apply`].
struct Each<'a>(Function, &'a mut [f32]);

impl Wide for Each<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, is_fused: bool) {
        let Self(function, x) = self;
        match function {
            Function::Relu => {
                for x in x {
                    *x = if *x < 0.0 { 0.0 } else { *x };
                }
            }
            Function::Gelu => {
                for x in x {
                    *x = gelu(is_fused, *x);
                }
            }
            Function::Silu => {
                for x in x {
                    *x *= sigmoid(is_fused, *x);
                }
            }
            Function::Identity => {}
        }
    }
}

/// SwiGLU of a gate and a linear projection, as gpt-oss has it and `com.microsoft.MoE` takes it:
/// `g = min(gate, limit); l = clamp(linear, -limit, limit); g * sigmoid(alpha * g) * (l + beta)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SwiGlu {
    pub alpha: f32,
    pub beta: f32,
    /// Infinite where there is none.
    pub limit: f32,
}

impl SwiGlu {
    #[inline(always)]
    fn one(self, is_fused: bool, gate: f32, linear: f32) -> f32 {
        let gate = if gate > self.limit { self.limit } else { gate };
        let linear = if linear > self.limit { self.limit } else { linear };
        let linear = if linear < -self.limit { -self.limit } else { linear };
        gate * sigmoid(is_fused, self.alpha * gate) * (linear + self.beta)
    }

    /// `out[i]` of `gate[i]` and `linear[i]`.
    pub fn split(self, gate: &[f32], linear: &[f32], out: &mut [f32]) {
        wide(Split { swiglu: self, gate, linear, out });
    }

    /// `out[i]` of `pairs[2 i]` (gate) and `pairs[2 i + 1]` (linear).
    pub fn interleaved(self, pairs: &[f32], out: &mut [f32]) {
        wide(Interleaved { swiglu: self, pairs, out });
    }
}

/// [`SwiGlu::split`].
struct Split<'a> {
    swiglu: SwiGlu,
    gate: &'a [f32],
    linear: &'a [f32],
    out: &'a mut [f32],
}

impl Wide for Split<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, is_fused: bool) {
        for ((out, &gate), &linear) in self.out.iter_mut().zip(self.gate).zip(self.linear) {
            *out = self.swiglu.one(is_fused, gate, linear);
        }
    }
}

/// [`SwiGlu::interleaved`].
struct Interleaved<'a> {
    swiglu: SwiGlu,
    pairs: &'a [f32],
    out: &'a mut [f32],
}

impl Wide for Interleaved<'_> {
    type Output = ();

    #[inline(always)]
    fn compute(self, is_fused: bool) {
        for (out, &[gate, linear]) in self.out.iter_mut().zip(self.pairs.as_chunks::<2>().0) {
            *out = self.swiglu.one(is_fused, gate, linear);
        }
    }
}

#[inline(always)]
pub(super) fn sigmoid(is_fused: bool, x: f32) -> f32 {
    1.0 / (1.0 + exp(is_fused, -x))
}

#[inline(always)]
fn gelu(is_fused: bool, x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    // tanh(y) = 1 - 2 / (1 + e^2y)
    0.5 * x * (2.0 - 2.0 / (1.0 + exp(is_fused, 2.0 * inner)))
}

/// e^x to about 2 units in the last place, written so that loops over it vectorise: reduction by
/// powers of two and Cephes' polynomial for `expf` (Moshier). Saturates beyond -87 and 88.
#[inline(always)]
fn exp(is_fused: bool, x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer
    let x = if x < -87.0 { -87.0 } else { x };
    let x = if x > 88.0 { 88.0 } else { x };
    let shifted = multiply_add(is_fused, x, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = multiply_add(is_fused, n, -0.693_359_4, x);
    let r = multiply_add(is_fused, n, 2.121_944_4e-4, r);
    let p = multiply_add(is_fused, 1.987_569_1e-4, r, 1.398_199_9e-3);
    let p = multiply_add(is_fused, p, r, 8.333_452e-3);
    let p = multiply_add(is_fused, p, r, 4.166_579_6e-2);
    let p = multiply_add(is_fused, p, r, 1.666_666_5e-1);
    let p = multiply_add(is_fused, p, r, 5e-1);
    let p = multiply_add(is_fused, p * r, r, r + 1.0);
    let bits = shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127);
    p * f32::from_bits(bits << 23)
}
