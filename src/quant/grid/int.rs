//! Integers with a scale and a zero point, in the conventions that published code has.
//!
//! ```text
//! asymmetric  scale = max(max x - min x, 1e-5) / (2^b - 1)      zero = -round(min x / scale)
//! symmetric   scale = max(max |x|, 1e-5) / (2^(b-1) - 1)        zero = 0
//! x -> (clamp(round(x / scale) + zero, lowest, highest) - zero) * scale          round: half to even
//! ```
//! [`Zero`] says what becomes of the range and of the zero point: three tools, three rules, and at few bits they are far apart.
use crate::model::ops::{Precision, rounded};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// Integers of so many bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Int {
    /// 2 to 8.
    pub bits: u8,
    /// Around zero, without a zero point of its own.
    pub symmetric: bool,
    /// Whose convention.
    pub zero: Zero,
    /// The share of a range that is kept, as QuaRot's `clip_ratio`: what lies outside goes to its ends.
    pub clip: f32,
}

/// What becomes of a group whose values do not straddle zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Zero {
    /// The range is not stretched, and the zero point is held to the codes: such a group saturates. The study's
    /// `pseudo_quantize_tensor`, bit for bit; AWQ's too.
    #[default]
    Clamped,
    /// The range is not stretched, and the zero point lies where it lies; the least scale is 1e-5, and symmetric codes are
    /// `0 .. 2^b - 1` around `2^(b-1) - 1`: OmniQuant's `UniformAffineQuantizer`.
    Free,
    /// The range is not stretched, without a least scale, and the smallest value is kept as it is, in 16 bits beside the scale:
    /// KIVI's and KVQuant's, for asymmetric codes alone.
    Exact,
    /// The range is stretched to hold zero, without a least scale; symmetric codes are `0 .. 2^b - 1` around their middle:
    /// GPTQ's `Quantizer`.
    InRange,
}

impl Int {
    /// What is taken from codes so that they fit 8 bits with a sign.
    pub fn shift(self) -> f32 {
        match (self.symmetric && self.zero == Zero::Clamped, self.bits) {
            (true, _) => 0.,
            // Around the middle, where zero points are: sums of codes stay small.
            (false, bits) => f32::from(1u8 << (bits - 1)),
        }
    }
}

/// A format fitted to some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    /// Distance between representable values.
    pub scale: f32,
    /// The code of zero.
    pub zero: f32,
    /// What code 0 stands for, where that is no multiple of the scale; else 0.
    base: f32,
    low: f32,
    high: f32,
    precision: Precision,
}

impl Int {
    /// Refuses widths that the rule cannot have.
    pub fn new(bits: u8, symmetric: bool) -> Result<Self> {
        ensure!((2..=8).contains(&bits), "{bits} bits: integers have 2 to 8");
        Ok(Self { bits, symmetric, zero: Zero::Clamped, clip: 1. })
    }

    /// Fits the range of `x`; each operation rounded to `precision`, as the study's ran in fp16.
    #[inline(always)]
    pub fn fit(self, x: &[f32], precision: Precision) -> Fitted {
        let (min, max) = range(x);
        self.fit_range(min * self.clip, max * self.clip, precision)
    }

    /// The same of a range.
    #[inline(always)]
    pub fn fit_range(self, min: f32, max: f32, precision: Precision) -> Fitted {
        let p = |v| precision.one(v);
        let floor = p(1e-5);
        let codes = f32::from((1i16 << self.bits) - 1);
        match (self.zero, self.symmetric) {
            (Zero::InRange, _) => self.in_range(min, max, precision),
            (Zero::Exact, false) => {
                let scale = p(p(max - min) / codes);
                let scale = if scale == 0. { 1. } else { scale };
                Fitted { scale, zero: 0., base: min, low: 0., high: codes, precision }
            }
            (Zero::Free, true) => {
                let half = f32::from((1i16 << (self.bits - 1)) - 1);
                let scale = p(max.max(-min) / half).max(floor);
                Fitted { scale, zero: half, base: 0., low: 0., high: codes, precision }
            }
            (Zero::Clamped | Zero::Exact, true) => {
                let high = f32::from((1i16 << (self.bits - 1)) - 1);
                let scale = p(max.max(-min).max(floor) / high);
                Fitted { scale, zero: 0., base: 0., low: -high - 1., high, precision }
            }
            (Zero::Clamped, false) => {
                let scale = p(p(max - min).max(floor) / codes);
                let zero = (-p(min / scale).round_ties_even()).clamp(0., codes);
                Fitted { scale, zero, base: 0., low: 0., high: codes, precision }
            }
            (Zero::Free, false) => {
                let scale = p(p(max - min) / codes).max(floor);
                let zero = (-p(min / scale)).clamp(-1e4, 1e4).round_ties_even();
                Fitted { scale, zero, base: 0., low: 0., high: codes, precision }
            }
        }
    }

    fn in_range(self, min: f32, max: f32, precision: Precision) -> Fitted {
        let p = |v| precision.one(v);
        let codes = f32::from((1i16 << self.bits) - 1);
        let (mut min, mut max) = (min.min(0.), max.max(0.));
        if self.symmetric {
            max = max.max(-min);
            min = if min < 0. { -max } else { min };
        }
        // Zeros; or so near to it that the precision has no scale for them, and they are zeros in it.
        if p(p(max - min) / codes) == 0. {
            (min, max) = (-1., 1.);
        }
        let scale = p(p(max - min) / codes);
        let zero = if self.symmetric { (codes + 1.) / 2. } else { p(-min / scale).round_ties_even() };
        Fitted { scale, zero, base: 0., low: 0., high: codes, precision }
    }

    /// The range, cut to the share of it with the least `sum |q - x|^2.4`: 1, 0.99 .. 0.21, as GPTQ's `Quantizer` with `mse`.
    pub fn search(self, x: &[f32], precision: Precision) -> Fitted {
        let (min, max) = range(x);
        let (min, max) = if self.zero == Zero::InRange { (min.min(0.), max.max(0.)) } else { (min, max) };
        let first = self.fit_range(min, max, precision);
        // The whole range is among the candidates.
        let (mut best, mut least) = (first, f32::INFINITY);
        let (low, high) = match (self.zero, self.symmetric) {
            (Zero::InRange, true) => (if min < 0. { -max.max(-min) } else { min }, max.max(-min)),
            _ => (min, max),
        };
        for i in 0..80 {
            let share = 1. - i as f32 / 100.;
            let mut fitted = self.fit_range(share * low, share * high, precision);
            if self.symmetric {
                fitted.zero = first.zero;
            }
            let lost: f32 = x.iter().map(|&v| (fitted.one(v) - v).abs().powf(2.4)).sum();
            if lost < least {
                (best, least) = (fitted, lost);
            }
        }
        best
    }
}

impl Fitted {
    /// The code of each, less `shift`, so that it fits what holds it, and the zero point in the same codes. `hold` is given an
    /// integer whose last eight bits are the code's.
    #[inline(always)]
    pub fn codes<T>(&self, x: &[f32], shift: f32, out: &mut [T], hold: impl Fn(u32) -> T) -> f32 {
        debug_assert!(self.precision == Precision::F32, "codes are those of f32");
        for (o, &v) in out.iter_mut().zip(x) {
            // A small integer is the last bits of what this sum is made of.
            *o = hold((self.code_with(v, |v| v) - shift + MAGIC).to_bits());
        }
        self.zero - shift
    }

    /// The integer code of a value; `r` rounds as the precision does.
    #[inline(always)]
    fn code_with(&self, x: f32, r: impl Fn(f32) -> f32) -> f32 {
        r(round(r(x / self.scale)) + self.zero).clamp(self.low, self.high)
    }

    /// From the smallest value on.
    #[inline(always)]
    fn above_base(&self, x: f32, r: impl Fn(f32) -> f32) -> f32 {
        r(r(self.code_with(r(x - self.base), &r) * self.scale) + self.base)
    }

    /// The nearest representable value.
    #[inline(always)]
    pub fn one(&self, x: f32) -> f32 {
        let r = |v| self.precision.one(v);
        if self.base != 0. {
            return self.above_base(x, r);
        }
        r((self.code_with(x, r) - self.zero) * self.scale)
    }

    /// The integer code of a value.
    pub fn code(&self, x: f32) -> f32 {
        self.code_with(x - self.base, |v| self.precision.one(v))
    }

    /// The nearest representable value of each.
    #[inline(always)]
    pub fn snap(&self, x: &[f32], out: &mut [f32]) {
        if self.base != 0. {
            return rounded!(self.precision, r => for (o, &v) in out.iter_mut().zip(x) {
                *o = self.above_base(v, r);
            });
        }
        rounded!(self.precision, r => for (o, &v) in out.iter_mut().zip(x) {
            *o = r((self.code_with(v, r) - self.zero) * self.scale);
        })
    }
}

/// 1.5 * 2^23: floats there are a unit apart.
const MAGIC: f32 = 12_582_912.;

/// Half to even, in two additions that compilers turn into vectors. Right for codes: what lies beyond 2^21 lies beyond
/// every code too.
#[inline(always)]
fn round(x: f32) -> f32 {
    x.clamp(-2_097_152., 2_097_152.) + MAGIC - MAGIC
}

/// Smallest and largest, in eight lanes.
#[inline(always)]
fn range(x: &[f32]) -> (f32, f32) {
    let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
    let (whole, rest) = x.as_chunks::<8>();
    for chunk in whole {
        for i in 0..8 {
            low[i] = low[i].min(chunk[i]);
            high[i] = high[i].max(chunk[i]);
        }
    }
    for &v in rest {
        low[0] = low[0].min(v);
        high[0] = high[0].max(v);
    }
    (low.into_iter().fold(f32::INFINITY, f32::min), high.into_iter().fold(f32::NEG_INFINITY, f32::max))
}
