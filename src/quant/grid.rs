//! Number formats, and the one place where a value is rounded: weights, activations and the KV cache share it.
//!
//! The rounding rule is that of the study "Evaluating Quantized Large Language Models" (`pseudo_quantize_tensor`), bit
//! for bit; it is AWQ's convention too:
//! ```text
//! asymmetric  scale = max(max x - min x, 1e-5) / (2^b - 1)      zero = clamp(-round(min x / scale), 0, 2^b - 1)
//! symmetric   scale = max(max |x|, 1e-5) / (2^(b-1) - 1)        zero = 0
//! x -> (clamp(round(x / scale) + zero, lowest, highest) - zero) * scale          round: half to even
//! ```
//! The range is *not* stretched to hold zero, and `zero` is clamped: a group far from zero saturates.
use super::Entry;
use crate::{
    float::vectorized,
    model::ops::{Precision, rounded},
    tensor::{
        int8::{Codes, Groups},
        rows,
    },
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;

/// A set of representable values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Int {
    /// 2 to 8.
    pub bits: u8,
    /// Around zero, without a zero point.
    pub symmetric: bool,
}

/// Formats, for `list formats`.
pub static FORMATS: &[Entry] = &[
    Entry {
        name: "int2 .. int8, asymmetric",
        about: "w4, a8, kv4: scale (max-min)/(2^b-1), zero point clamped to [0, 2^b-1], range not stretched to zero, \
                half to even",
    },
    Entry {
        name: "int2 .. int8, symmetric",
        about: "w4sym, a8sym, kv4sym: scale max|x|/(2^(b-1)-1), codes -2^(b-1) .. 2^(b-1)-1, no zero point",
    },
    Entry {
        name: "fp16",
        about: "IEEE half: parameters rounded, and values wherever such inference stores them",
    },
    Entry { name: "bf16", about: "bfloat16: the same" },
];

/// Which values share one scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Per {
    /// All of a matrix.
    Tensor,
    /// An output's inputs; a token's features.
    Row,
    /// `group` neighbours along a row; the last group may be shorter.
    Group,
}

impl Int {
    /// What is taken from codes so that they fit 8 bits with a sign.
    pub fn shift(self) -> f32 {
        match (self.symmetric, self.bits) {
            (true, _) => 0.,
            // Around the middle, where zero points are: sums of codes stay small.
            (false, bits) => f32::from(1u8 << (bits - 1)),
        }
    }
}

/// What the values of a matrix become: a format, and which of them share a scale. `bits = 4, group = 64` in a table.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// 2 to 8.
    pub bits: u8,
    /// Which weights share a scale.
    #[serde(default = "grouped")]
    pub per: Per,
    /// How many, for `per = "group"`.
    #[serde(default = "usual")]
    pub group: usize,
    /// Without a zero point.
    #[serde(default)]
    pub symmetric: bool,
}

fn grouped() -> Per {
    Per::Group
}
/// The study's group.
pub fn usual() -> usize {
    128
}

/// What all groups of one matrix share.
#[derive(Clone, Copy, Debug)]
pub struct Over {
    format: Int,
    precision: Precision,
    /// Of the whole matrix, where one scale is for all.
    one: Option<Fitted>,
}

impl Over {
    /// Fits the values of one group.
    pub fn fit(&self, x: &[f32]) -> Fitted {
        self.one.unwrap_or_else(|| self.format.fit(x, self.precision))
    }
}

impl Grid {
    /// Its keys in a table.
    pub const KEYS: &[&str] = &["bits", "per", "group", "symmetric"];

    /// Refuses what cannot be.
    pub fn check(&self) -> Result<()> {
        Int::new(self.bits, self.symmetric)?;
        ensure!(self.group > 0, "a group of 0; it is at least 1");
        Ok(())
    }

    fn format(&self) -> Int {
        Int { bits: self.bits, symmetric: self.symmetric }
    }

    /// Inputs that share a scale, in a row of `inputs`.
    pub fn groups(&self, inputs: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let group = if self.per == Per::Group { self.group.max(1) } else { inputs.max(1) };
        (0..inputs).step_by(group).map(move |start| start..(start + group).min(inputs))
    }

    /// Looks at a whole matrix once; its groups are fitted one by one.
    pub fn over(&self, weight: &[f32], precision: Precision) -> Over {
        let format = self.format();
        let one = (self.per == Per::Tensor).then(|| format.fit(weight, precision));
        Over { format, precision, one }
    }

    /// Each value to the nearest.
    pub fn round(&self, weight: &Tensor, precision: Precision) -> Result<Tensor> {
        fake_quantize(weight, self.format(), self.per, self.group, precision)
    }

    /// The same as integers with their scales, in f32.
    pub fn codes(&self, weight: &Tensor) -> Result<Codes> {
        let ((out, inner), weight) = (weight.dims2()?, weight.contiguous()?);
        let (format, shift) = (self.format(), self.format().shift());
        let codes = rows::with(&weight, |w| {
            let over = self.over(w, Precision::F32);
            let group = if self.per == Per::Group { self.group } else { inner };
            let groups = Groups::new(inner, group);
            let spans: Vec<_> = groups.inputs().collect();
            Codes::new(out, groups, |o, g, codes| {
                let row = &w[o * inner..][..inner];
                vectorized(
                    #[inline(always)]
                    || {
                        // A group that is cut for its sums' sake has one scale all the same.
                        let start = spans[g].start / group.max(1) * group;
                        let of = &row[start..(start + group).min(inner)];
                        let fitted = over.one.unwrap_or_else(|| format.fit(of, Precision::F32));
                        let zero = fitted.codes(&row[spans[g].clone()], shift, codes, |code| code as i8);
                        (fitted.scale, zero)
                    },
                )
            })
        })?;
        Ok(codes)
    }

    /// Bytes in memory of [`codes`](Grid::codes) of a matrix `(out, in)`.
    pub fn code_bytes(&self, (out, inner): (usize, usize)) -> usize {
        out * (inner + 3 * size_of::<f32>() * self.groups(inner).count().max(1))
    }

    /// Bits of one code.
    pub fn code_bits(&self) -> f64 {
        f64::from(self.bits)
    }

    /// Bits of a matrix `(out, in)`: `b` a weight; for each scale 16 more, and `b` for its zero point.
    pub fn bits(&self, (rows, cols): (usize, usize)) -> f64 {
        let scales = match self.per {
            Per::Tensor => 1,
            Per::Row => rows,
            Per::Group => rows * cols.div_ceil(self.group),
        };
        let zero = if self.symmetric { 0 } else { self.bits };
        f64::from(self.bits) * (rows * cols) as f64 + scales as f64 * f64::from(16 + zero)
    }

    /// What a reader must know of a row of this many inputs: a last group that is shorter.
    pub fn note(&self, inputs: usize) -> Option<String> {
        let rest = inputs % self.group;
        (self.per == Per::Group && inputs > self.group && rest != 0)
            .then(|| format!("ragged: {inputs} inputs in groups of {}, the last of {rest}", self.group))
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        let mut all = json!({
            "format": format!("int{}", self.bits), "bits": self.bits, "per": self.per,
            "scheme": if self.symmetric { "symmetric" } else { "asymmetric" },
            "zero": if self.symmetric { "none" } else { "rounded, clamped to the codes; range not stretched to zero" },
            "range": "min-max", "axis": "input",
        });
        if self.per == Per::Group {
            all["group"] = self.group.into();
        }
        all
    }
}

/// A format fitted to some values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    /// Distance between representable values.
    pub scale: f32,
    /// The code of zero.
    pub zero: f32,
    low: f32,
    high: f32,
    precision: Precision,
}

impl Int {
    /// Refuses widths that the rule cannot have.
    pub fn new(bits: u8, symmetric: bool) -> Result<Self> {
        ensure!((2..=8).contains(&bits), "{bits} bits: integers have 2 to 8");
        Ok(Self { bits, symmetric })
    }

    /// Fits the range of `x`; each operation rounded to `precision`, as the study's ran in fp16.
    #[inline(always)]
    pub fn fit(self, x: &[f32], precision: Precision) -> Fitted {
        let p = |v| precision.one(v);
        let (min, max) = range(x);
        let floor = p(1e-5);
        if self.symmetric {
            let high = f32::from((1i16 << (self.bits - 1)) - 1);
            let scale = p(max.max(-min).max(floor) / high);
            Fitted { scale, zero: 0., low: -high - 1., high, precision }
        } else {
            let high = f32::from((1i16 << self.bits) - 1);
            let scale = p(p(max - min).max(floor) / high);
            let zero = (-p(min / scale).round_ties_even()).clamp(0., high);
            Fitted { scale, zero, low: 0., high, precision }
        }
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

    /// The nearest representable value.
    #[inline(always)]
    pub fn one(&self, x: f32) -> f32 {
        let r = |v| self.precision.one(v);
        r((self.code_with(x, r) - self.zero) * self.scale)
    }

    /// The integer code of a value.
    pub fn code(&self, x: f32) -> f32 {
        self.code_with(x, |v| self.precision.one(v))
    }

    /// The nearest representable value of each.
    #[inline(always)]
    pub fn snap(&self, x: &[f32], out: &mut [f32]) {
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

/// Rounds `x` and writes the result to `out`, a scale for every `group` values.
#[inline(always)]
pub fn snap_row(x: &[f32], out: &mut [f32], format: Int, group: usize, precision: Precision) {
    for (x, out) in x.chunks(group).zip(out.chunks_mut(group)) {
        format.fit(x, precision).snap(x, out);
    }
}

/// Rounds `x [.., width]` along its last axis. `group` counts only for [`Per::Group`].
pub fn fake_quantize(
    x: &Tensor,
    format: Int,
    per: Per,
    group: usize,
    precision: Precision,
) -> Result<Tensor> {
    let device = x.device().clone();
    let cpu = x.to_device(&Device::Cpu)?;
    let width = cpu.dims().last().copied().unwrap_or(1).max(1);
    let snapped = match per {
        Per::Tensor => {
            let all = cpu.flatten_all()?;
            let fitted = format.fit(&all.to_vec1::<f32>()?, precision);
            rows::map(
                &cpu,
                "quantize",
                #[inline(always)]
                |_, x, out| fitted.snap(x, out),
            )?
        }
        Per::Row | Per::Group => {
            let group = if per == Per::Row { width } else { group.clamp(1, width) };
            rows::map(
                &cpu,
                "quantize",
                #[inline(always)]
                |_, x, out| snap_row(x, out, format, group, precision),
            )?
        }
    };
    Ok(snapped.to_device(&device)?)
}
