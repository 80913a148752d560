//! Number formats, and the one place where a value is rounded: weights, activations and the KV cache share it.
//!
//! ```text
//! Grid     format, convention, and who shares a scale      weights = { bits = 4, group = 64 }   { format = "nf4" }
//!   over   a matrix: what its groups share
//!   fit    a group: scale and zero point                    -> Fit, which snaps values
//! ```
//! [`int`] has integers in four published conventions, [`levels`] small floats and tables.
pub mod int;
pub mod levels;

pub use int::{Int, Zero};

use self::levels::{LEVELS, Levels, Scale};
use super::Entry;
use crate::{
    float::vectorized,
    mistake,
    model::ops::Precision,
    tensor::{
        int8::{Codes, Groups},
        rows,
    },
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::ops::Range;

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
        name: "int2 .. int8, zero = \"free\"",
        about: "the zero point not clamped: OmniQuant's convention",
    },
    Entry {
        name: "int2 .. int8, zero = \"exact\"",
        about: "the smallest value kept as it is beside the scale: KIVI's and KVQuant's convention",
    },
    Entry {
        name: "int2 .. int8, zero = \"in-range\"",
        about: "the range stretched to hold zero: GPTQ's convention, and what its method takes where nothing is said",
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

/// A set of representable values, before it is fitted to any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Format {
    /// Integers.
    Int(Int),
    /// Anything else.
    Levels(&'static Levels),
}

impl From<Int> for Format {
    fn from(int: Int) -> Self {
        Format::Int(int)
    }
}

/// A format fitted to a group's values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fit {
    /// Integers with their scale and zero point.
    Int(int::Fitted),
    /// Levels with their scale.
    Levels(levels::Fitted),
}

impl Fit {
    /// The nearest representable value.
    #[inline(always)]
    pub fn one(&self, x: f32) -> f32 {
        match self {
            Fit::Int(fitted) => fitted.one(x),
            Fit::Levels(fitted) => fitted.one(x),
        }
    }

    /// Of each.
    #[inline(always)]
    pub fn snap(&self, x: &[f32], out: &mut [f32]) {
        match self {
            Fit::Int(fitted) => fitted.snap(x, out),
            Fit::Levels(fitted) => fitted.snap(x, out),
        }
    }
}

impl Format {
    /// Fits a group; `shared` is what its matrix shares.
    #[inline(always)]
    pub fn fit(&self, x: &[f32], shared: f32, precision: Precision) -> Fit {
        match self {
            Format::Int(int) => Fit::Int(int.fit(x, precision)),
            Format::Levels(levels) => Fit::Levels(levels.fit(x, shared)),
        }
    }

    fn shared(&self, all: &[f32]) -> f32 {
        match self {
            Format::Int(_) => 1.,
            Format::Levels(levels) => levels.shared(all),
        }
    }

    /// `int4`, `nf4`.
    pub fn name(&self) -> String {
        match self {
            Format::Int(int) => format!("int{}", int.bits),
            Format::Levels(levels) => levels.name.into(),
        }
    }

    /// Of one code.
    pub fn code_bits(&self) -> f64 {
        match self {
            Format::Int(int) => f64::from(int.bits),
            Format::Levels(levels) => levels.bits,
        }
    }
}

/// What the values of a matrix become: a format, and which of them share a scale. `bits = 4, group = 64` in a table.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    /// Which values there are.
    pub format: Format,
    /// Which weights share a scale.
    pub per: Per,
    /// How many, for `per = "group"`.
    pub group: usize,
    /// The range is cut where that loses less: see [`Int::search`].
    pub search: bool,
}

/// The study's group.
pub fn usual() -> usize {
    128
}

/// A grid as tables write it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    bits: Option<u8>,
    format: Option<String>,
    per: Option<Per>,
    group: Option<usize>,
    symmetric: Option<bool>,
    zero: Option<Zero>,
    search: Option<Search>,
    clip: Option<f32>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Search {
    Mse,
}

/// What all groups of one matrix share.
#[derive(Clone, Debug)]
pub struct Over {
    format: Format,
    search: bool,
    precision: Precision,
    shared: f32,
    /// Of every group, where scales depend on each other.
    scales: Vec<f32>,
    /// Of the whole matrix, where one scale is for all.
    one: Option<Fit>,
}

impl Over {
    /// Fits the values of one group, the `at`-th of the matrix: a row's groups, then the next row's.
    pub fn fit(&self, x: &[f32], at: usize) -> Fit {
        if let Some(one) = self.one {
            return one;
        }
        match (self.format, self.scales.get(at)) {
            (Format::Levels(levels), Some(&scale)) => Fit::Levels(levels.read_as(x, scale)),
            _ => self.fresh(x),
        }
    }

    fn fresh(&self, x: &[f32]) -> Fit {
        match self.format {
            Format::Int(int) if self.search => Fit::Int(int.search(x, self.precision)),
            format => format.fit(x, self.shared, self.precision),
        }
    }
}

impl Grid {
    /// Its keys in a table.
    pub const KEYS: &[&str] = &["bits", "format", "per", "group", "symmetric", "zero", "search", "clip"];

    /// Integers in the study's convention.
    pub fn int(bits: u8, per: Per, group: usize, symmetric: bool) -> Self {
        let format = Format::Int(Int { bits, symmetric, zero: Zero::Clamped, clip: 1. });
        Self { format, per, group, search: false }
    }

    /// A format with the groups that are usual for it; `None` where there is no such format.
    pub fn named(name: &str) -> Option<Self> {
        let levels = Levels::named(name)?;
        let (per, group) = match levels.group {
            0 => (Per::Row, usual()),
            usize::MAX => (Per::Tensor, usual()),
            group => (Per::Group, group),
        };
        Some(Self { format: Format::Levels(levels), per, group, search: false })
    }

    /// From a method's table; `zero` is the method's own convention.
    ///
    /// # Errors
    /// What is unknown, missing, or does not go together.
    pub fn from_table(table: Value, zero: Zero) -> Result<Self> {
        let keys: Keys = match serde_path_to_error::deserialize(table) {
            Ok(keys) => keys,
            Err(e) => mistake!("`{}`: {}", e.path(), e.inner()),
        };
        let mut grid = match (keys.bits, &keys.format) {
            (Some(bits), None) => {
                let mut int = Int::new(bits, keys.symmetric.unwrap_or(false))?;
                int.zero = keys.zero.unwrap_or(zero);
                int.clip = keys.clip.unwrap_or(1.);
                Self { format: Format::Int(int), ..Self::int(bits, Per::Group, usual(), false) }
            }
            (None, Some(name)) => {
                let own = keys.symmetric.is_some() || keys.zero.is_some();
                if own || keys.search.is_some() || keys.clip.is_some() {
                    mistake!("`symmetric`, `zero`, `search` and `clip` are for integers, not for `{name}`");
                }
                match Self::named(name) {
                    Some(grid) => grid,
                    None => mistake!(
                        "no format `{name}`{}; there are: {}",
                        crate::mistake::nearest(name, LEVELS.iter().map(|l| l.name)),
                        LEVELS.iter().map(|l| l.name).collect::<Vec<_>>().join(", ")
                    ),
                }
            }
            (None, None) => mistake!("missing field `bits`, or `format`"),
            (Some(_), Some(name)) => mistake!("both `bits` and `format = \"{name}\"`; it is one of them"),
        };
        grid.search = keys.search.is_some();
        grid.per = keys.per.unwrap_or(if keys.group.is_some() { Per::Group } else { grid.per });
        grid.group = keys.group.unwrap_or(grid.group);
        grid.check()?;
        Ok(grid)
    }

    /// Refuses what cannot be.
    pub fn check(&self) -> Result<()> {
        if let Format::Int(int) = self.format {
            Int::new(int.bits, int.symmetric)?;
            if int.symmetric && int.zero == Zero::Exact {
                mistake!("`zero = \"exact\"` keeps the smallest value, and `symmetric` codes have none");
            }
            if !(int.clip > 0. && int.clip <= 1.) {
                mistake!(
                    "`clip` is {}: the share of a range that is kept is above 0 and at most 1",
                    int.clip
                );
            }
            if int.clip < 1. && self.search {
                mistake!("`clip` and `search` both say where a range is cut; it is one of them");
            }
        }
        if self.group == 0 {
            mistake!("a group of 0; it is at least 1");
        }
        if let Format::Levels(Levels { name, scale: Scale::Double, .. }) = self.format
            && self.per == Per::Tensor
        {
            mistake!(
                "`{name}` quantizes scales together, and `per = \"tensor\"` has one; say \"row\" or \"group\""
            );
        }
        Ok(())
    }

    /// Inputs that share a scale, in a row of `inputs`.
    pub fn groups(&self, inputs: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let group = if self.per == Per::Group { self.group.max(1) } else { inputs.max(1) };
        (0..inputs).step_by(group).map(move |start| start..(start + group).min(inputs))
    }

    /// Looks at a whole matrix once, rows of `inputs`; its groups are fitted one by one.
    pub fn over(&self, weight: &[f32], inputs: usize, precision: Precision) -> Over {
        let shared = self.format.shared(weight);
        let scales = match self.format {
            Format::Levels(l) if l.scale == Scale::Double && self.per != Per::Tensor => {
                let groups: Vec<_> = self.groups(inputs).collect();
                let rows = weight.chunks_exact(inputs.max(1));
                l.scales(rows.flat_map(|row| groups.iter().map(|g| levels::magnitude(&row[g.clone()]))))
            }
            _ => Vec::new(),
        };
        let mut over =
            Over { format: self.format, search: self.search, precision, shared, scales, one: None };
        over.one = (self.per == Per::Tensor).then(|| over.fresh(weight));
        over
    }

    /// The same of rows `[.., width]` that have nothing in common: tokens, heads. What a matrix would share, each row has of its
    /// own.
    pub fn round_rows(&self, x: &Tensor, precision: Precision) -> Result<Tensor> {
        if let (Format::Int(int), false) = (self.format, self.search) {
            return fake_quantize(x, int, self.per, self.group, precision);
        }
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let width = cpu.dim(cpu.rank() - 1)?;
        let groups: Vec<_> = self.groups(width).collect();
        let snapped = rows::map(&cpu, "quantize", |_, x, out| {
            let over = self.over(x, width, precision);
            for (g, group) in groups.iter().enumerate() {
                over.fit(&x[group.clone()], g).snap(&x[group.clone()], &mut out[group.clone()]);
            }
        })?;
        Ok(snapped.to_device(x.device())?)
    }

    /// Each value to the nearest.
    pub fn round(&self, weight: &Tensor, precision: Precision) -> Result<Tensor> {
        if let (Format::Int(int), false) = (self.format, self.search) {
            return fake_quantize(weight, int, self.per, self.group, precision);
        }
        let device = weight.device().clone();
        let cpu = weight.to_device(&Device::Cpu)?.contiguous()?;
        let inputs = cpu.dim(cpu.rank() - 1)?;
        let over = rows::with(&cpu, |all| self.over(all, inputs, precision))?;
        let groups: Vec<_> = self.groups(inputs).collect();
        let snapped = rows::map(&cpu, "quantize", |row, x, out| {
            for (g, group) in groups.iter().enumerate() {
                over.fit(&x[group.clone()], row * groups.len() + g)
                    .snap(&x[group.clone()], &mut out[group.clone()]);
            }
        })?;
        Ok(snapped.to_device(&device)?)
    }

    /// The same as integers with their scales, in f32; `None` where the format has none that fit 8 bits with their zero point.
    pub fn codes(&self, weight: &Tensor) -> Result<Option<Codes>> {
        let Some(format) = self.coded() else { return Ok(None) };
        let ((out, inner), weight) = (weight.dims2()?, weight.contiguous()?);
        let shift = format.shift();
        let codes = rows::with(&weight, |w| {
            let one = (self.per == Per::Tensor).then(|| format.fit(w, Precision::F32));
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
                        let fitted = one.unwrap_or_else(|| format.fit(of, Precision::F32));
                        let zero = fitted.codes(&row[spans[g].clone()], shift, codes, |code| code as i8);
                        (fitted.scale, zero)
                    },
                )
            })
        })?;
        Ok(Some(codes))
    }

    fn coded(&self) -> Option<Int> {
        match self.format {
            Format::Int(Int { zero: Zero::Free | Zero::Exact, .. }) => None,
            Format::Int(int) if !self.search => Some(int),
            _ => None,
        }
    }

    /// Bytes in memory of [`codes`](Grid::codes) of a matrix `(out, in)`.
    pub fn code_bytes(&self, (out, inner): (usize, usize)) -> Option<usize> {
        self.coded().map(|_| out * (inner + 3 * size_of::<f32>() * self.groups(inner).count().max(1)))
    }

    /// Bits of one code.
    pub fn code_bits(&self) -> f64 {
        self.format.code_bits()
    }

    /// Bits of a matrix `(out, in)`: every code; for integers' scales 16 bits each and a code for its zero point; for others'
    /// what their format says.
    pub fn bits(&self, (rows, cols): (usize, usize)) -> f64 {
        let scales = match self.per {
            Per::Tensor => 1,
            Per::Row => rows,
            Per::Group => rows * cols.div_ceil(self.group),
        };
        let (each, once) = match self.format {
            Format::Int(Int { symmetric: false, zero: Zero::Exact, .. }) => (32., 0.),
            Format::Int(int) => (f64::from(16 + if int.symmetric { 0 } else { int.bits }), 0.),
            Format::Levels(levels) => (levels.scale_bits(), levels.shared_bits()),
        };
        self.code_bits() * (rows * cols) as f64 + scales as f64 * each + once
    }

    /// What a reader must know of a row of this many inputs: a last group that is shorter.
    pub fn note(&self, inputs: usize) -> Option<String> {
        let rest = inputs % self.group;
        (self.per == Per::Group && inputs > self.group && rest != 0)
            .then(|| format!("ragged: {inputs} inputs in groups of {}, the last of {rest}", self.group))
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        let mut all = json!({ "format": self.format.name(), "bits": self.code_bits(), "per": self.per, "axis": "input" });
        match self.format {
            Format::Int(int) => {
                all["bits"] = int.bits.into();
                all["scheme"] = if int.symmetric { "symmetric" } else { "asymmetric" }.into();
                all["zero"] = match (int.zero, int.symmetric) {
                    (Zero::Exact, false) => {
                        "the smallest value, kept; range not stretched to zero, scale without a floor"
                    }
                    (Zero::InRange, true) => "the middle code; scale without a floor",
                    (Zero::InRange, false) => "rounded; range stretched to zero, scale without a floor",
                    (_, true) => "none",
                    (Zero::Clamped, false) => "rounded, clamped to the codes; range not stretched to zero",
                    (Zero::Free, false) => "rounded, not clamped; range not stretched to zero",
                }
                .into();
                all["range"] = match (self.search, int.clip) {
                    (true, _) => "cut for the least |error|^2.4".into(),
                    (false, 1.) => "min-max".into(),
                    (false, clip) => format!("{clip} of min-max").into(),
                };
            }
            Format::Levels(levels) => {
                all["scale"] = match levels.scale {
                    Scale::One => "none",
                    Scale::Most => "max|x| over the largest level, 16 bits",
                    Scale::Wide => "max|x| over the largest level, 32 bits",
                    Scale::Double => "max|x| over the largest level, in 8 bits",
                    Scale::Power => "a power of two, 8 bits",
                    Scale::Tensor => "E4M3, times an f32 of the matrix",
                    Scale::Mean => "mean |x|, 16 bits",
                    Scale::Centred => "mean |x - mean x|, and mean x: 16 bits each",
                }
                .into();
            }
        }
        if self.per == Per::Group {
            all["group"] = self.group.into();
        }
        all
    }
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
