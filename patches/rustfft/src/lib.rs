//! The part of rustfft's interface that tract uses, in little code: a Fourier transform of any
//! length, in a time of length x sum of its prime factors, without vector instructions.

pub use num_complex;
pub use num_traits;

use std::fmt::Debug;
use std::marker::PhantomData;
use std::sync::Arc;

use num_complex::Complex;
use num_traits::{FromPrimitive, Signed, Zero as _};

/// A number that can be transformed.
pub trait FftNum: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static {}

impl<T: Copy + FromPrimitive + Signed + Sync + Send + Debug + 'static> FftNum for T {}

/// `X[k] = sum of x[n] e^(-2 pi i k n / N)`, or, inverse, with `+` and without a division by N.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FftDirection {
    Forward,
    Inverse,
}

/// A transform of one length.
pub trait Fft<T: FftNum>: Sync + Send {
    /// Transforms in place each of the pieces of this length that `buffer` is made of.
    fn process(&self, buffer: &mut [Complex<T>]);
}

/// Makes transforms.
#[derive(Debug)]
pub struct FftPlanner<T>(PhantomData<T>);

impl<T: FftNum> FftPlanner<T> {
    #[expect(clippy::new_without_default, reason = "so it is called")]
    pub fn new() -> Self {
        Self(PhantomData)
    }

    pub fn plan_fft(&mut self, len: usize, direction: FftDirection) -> Arc<dyn Fft<T>> {
        Arc::new(MixedRadix { turns: turns(len, direction) })
    }

    pub fn plan_fft_forward(&mut self, len: usize) -> Arc<dyn Fft<T>> {
        self.plan_fft(len, FftDirection::Forward)
    }

    pub fn plan_fft_inverse(&mut self, len: usize) -> Arc<dyn Fft<T>> {
        self.plan_fft(len, FftDirection::Inverse)
    }
}

/// The `len` roots of 1, in the order of their powers.
fn turns<T: FftNum>(len: usize, direction: FftDirection) -> Vec<Complex<T>> {
    let sign = if direction == FftDirection::Forward { -1.0 } else { 1.0 };
    let real = |value: f64| T::from_f64(value).unwrap_or_else(T::zero);
    (0..len)
        .map(|power| {
            let angle = sign * std::f64::consts::TAU * power as f64 / len as f64;
            Complex::new(real(angle.cos()), real(angle.sin()))
        })
        .collect()
}

/// Cooley and Tukey (1965), for any factors: a transform of length p m is p of length m, and sums
/// of p terms.
struct MixedRadix<T> {
    turns: Vec<Complex<T>>,
}

impl<T: FftNum> Fft<T> for MixedRadix<T> {
    fn process(&self, buffer: &mut [Complex<T>]) {
        let len = self.turns.len();
        if len < 2 {
            return;
        }
        let mut input = vec![Complex::zero(); len];
        for piece in buffer.chunks_exact_mut(len) {
            input.copy_from_slice(piece);
            self.transform(&input, 1, piece);
        }
    }
}

impl<T: FftNum> MixedRadix<T> {
    /// Transforms every `step`th of `input`, from the first on, into `output`.
    fn transform(&self, input: &[Complex<T>], step: usize, output: &mut [Complex<T>]) {
        let len = output.len();
        if len == 1 {
            output[0] = input[0];
            return;
        }
        let factor = (2..).take_while(|p| p * p <= len).find(|p| len % p == 0).unwrap_or(len);
        let part = len / factor;
        for (first, output) in output.chunks_exact_mut(part).enumerate() {
            self.transform(&input[first * step..], step * factor, output);
        }
        let mut sums = vec![Complex::zero(); factor];
        for k in 0..part {
            for (q, sum) in sums.iter_mut().enumerate() {
                let turn = (k + q * part) * step;
                *sum = (0..factor).fold(Complex::zero(), |sum, first| {
                    sum + output[first * part + k] * self.turns[first * turn % self.turns.len()]
                });
            }
            for (q, sum) in sums.iter().enumerate() {
                output[q * part + k] = *sum;
            }
        }
    }
}
