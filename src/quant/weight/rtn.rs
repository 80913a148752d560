//! Round to nearest: the baseline that every method is measured against.
//!
//! Each value goes to the nearest representable one; nothing is calibrated. Groups run along the input.
use super::Rounder;
use crate::{
    float::vectorized,
    model::ops::Precision,
    quant::{
        Described, Entry,
        grid::{Int, Per, fake_quantize},
    },
    tensor::{
        int8::{Codes, Groups},
        rows,
    },
};
use anyhow::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "rtn",
    about: "round to nearest, per tensor, per output row, or per group of inputs (default 128)",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtn {
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
/// The study's.
pub fn usual() -> usize {
    128
}

impl Rtn {
    fn format(&self) -> Int {
        Int { bits: self.bits, symmetric: self.symmetric }
    }
}

impl Rounder for Rtn {
    fn round(&self, weight: &Tensor, precision: Precision) -> Result<Tensor> {
        fake_quantize(weight, self.format(), self.per, self.group, precision)
    }

    fn codes(&self, weight: &Tensor) -> Result<Option<Codes>> {
        let ((out, inner), weight) = (weight.dims2()?, weight.contiguous()?);
        let (format, shift) = (self.format(), self.format().shift());
        let f32s = Precision::F32;
        let codes = rows::with(&weight, |w| {
            let one = (self.per == Per::Tensor).then(|| format.fit(w, f32s));
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
                        let fitted = one.unwrap_or_else(|| format.fit(of, f32s));
                        let zero = fitted.codes(&row[spans[g].clone()], shift, codes, |code| code as i8);
                        (fitted.scale, zero)
                    },
                )
            })
        })?;
        Ok(Some(codes))
    }

    fn code_bytes(&self, (out, inner): (usize, usize)) -> Option<usize> {
        let groups = if self.per == Per::Group { inner.div_ceil(self.group) } else { 1 };
        Some(out * (inner + 3 * size_of::<f32>() * groups))
    }

    fn code_bits(&self) -> u8 {
        self.bits
    }

    /// `b` a weight; for each scale 16 more, and `b` for its zero point.
    fn bits(&self, (rows, cols): (usize, usize)) -> f64 {
        let scales = match self.per {
            Per::Tensor => 1,
            Per::Row => rows,
            Per::Group => rows * cols.div_ceil(self.group),
        };
        let zero = if self.symmetric { 0 } else { self.bits };
        f64::from(self.bits) * (rows * cols) as f64 + scales as f64 * f64::from(16 + zero)
    }

    fn note(&self, inputs: usize) -> Option<String> {
        let rest = inputs % self.group;
        (self.per == Per::Group && inputs > self.group && rest != 0)
            .then(|| format!("ragged: {inputs} inputs in groups of {}, the last of {rest}", self.group))
    }
}

impl Described for Rtn {
    fn describe(&self) -> Value {
        let mut all = json!({
            "method": "rtn", "format": format!("int{}", self.bits), "bits": self.bits, "per": self.per,
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
