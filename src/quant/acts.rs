//! Activations entering a linear, rounded as they come.
//!
//! ```text
//! acts = { bits = 8 }                                    a range a token, found as it comes
//! acts = { format = "mxfp8" }                            a scale for 32 features
//! acts = { bits = 8, per = "tensor", range = "mse" }     one range for all tokens, found by calibration
//! acts = { bits = 8, symmetric = true, threshold = 6.0 } values of 6 and more stay as they are: LLM.int8()'s
//! ```
//! A range over a whole tensor as it comes would depend on what stands beside a token; so that is calibrated or nothing.
use super::{
    calibrate::Seen,
    grid::{Fit, Format, Grid, Int, Per, Zero, fake_quantize},
    weight::Needs,
};
use crate::{
    float::vectorized,
    mistake,
    model::{ops::Precision, seam::InputMap},
    tensor::{
        int8::{Groups, Inputs},
        rows,
    },
};
use anyhow::Context;
use candle_core::{Device, Error, Result, Tensor};
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Tokens that a range is searched on, at most.
const TOKENS: usize = 2048;

/// `acts = { bits = 8, per = "token" }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Acts {
    /// What values become; [`Per::Row`] is a token.
    pub grid: Grid,
    /// Where the range is from.
    pub range: Range,
    /// Values of this magnitude and more are exact, and in no range (Dettmers et al., 2022, section 3.2). bitsandbytes takes a
    /// feature out for all tokens of a batch where one of them is so large; here each token has its own, so that none depends on
    /// what stands beside it.
    pub threshold: Option<f32>,
}

/// Where a range is from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Range {
    /// What comes.
    #[default]
    Dynamic,
    /// Calibration: the smallest and the largest value.
    MinMax,
    /// Calibration: so that one value in 10,000 on either side lies outside.
    Percentile,
    /// Calibration: cut to the share of the whole with the least squared error, of 1, 0.99 .. 0.21.
    Mse,
}

impl Acts {
    /// Dynamic, a range a token.
    pub fn token(format: Format) -> Self {
        let grid = match format {
            Format::Int(int) => Grid::int(int.bits, Per::Row, super::grid::usual(), int.symmetric),
            Format::Levels(levels) => Grid {
                format,
                per: if levels.group == 0 || levels.group == usize::MAX { Per::Row } else { Per::Group },
                group: if levels.group == usize::MAX { super::grid::usual() } else { levels.group.max(1) },
                search: false,
            },
        };
        Self { grid, range: Range::Dynamic, threshold: None }
    }

    /// What calibration must see.
    pub fn needs(&self) -> Option<Needs> {
        match self.range {
            Range::Dynamic => None,
            Range::MinMax => Some(Needs::NOTHING),
            Range::Percentile | Range::Mse => Some(Needs { inputs: true, ..Needs::NOTHING }),
        }
    }

    /// Whether they can be integers with a scale a token, for products of integers.
    pub fn are_codes(&self) -> bool {
        let int = matches!(self.grid.format, Format::Int(int) if int.zero == Zero::Clamped);
        int && self.grid.per == Per::Row && self.are_plain()
    }

    /// Refuses what does not go together.
    pub fn check(&self) -> anyhow::Result<()> {
        self.grid.check()?;
        if let Some(threshold) = self.threshold {
            if !(threshold > 0. && threshold.is_finite()) {
                mistake!(
                    "`threshold` is {threshold}: values of that magnitude stay exact, so it is above 0 (LLM.int8() has 6.0)"
                );
            }
            if self.range != Range::Dynamic {
                mistake!(
                    "`threshold` is for ranges that are found as values come, not for a calibrated `range`"
                );
            }
        }
        match (self.grid.per, self.range, self.grid.format) {
            (Per::Tensor, Range::Dynamic, _) => mistake!(
                "`per = \"tensor\"` as it comes depends on what else comes; say `per = \"token\"`, or `range = \"min-max\"`, \
                 \"percentile\" or \"mse\" to calibrate it"
            ),
            (Per::Row | Per::Group, range, _) if range != Range::Dynamic => {
                mistake!("a calibrated `range` is one for all tokens: say `per = \"tensor\"`")
            }
            (_, range, Format::Levels(levels)) if range != Range::Dynamic => {
                mistake!("a calibrated `range` is for integers, not for `{}`", levels.name)
            }
            _ => Ok(()),
        }
    }

    /// What stands before linears that share an input. `seen` is what calibration saw of it, for a range that is calibrated.
    pub fn map(&self, precision: Precision, seen: Option<&Seen>) -> anyhow::Result<Arc<dyn InputMap>> {
        let (Format::Int(int), false) = (self.grid.format, self.range == Range::Dynamic) else {
            return Ok(match (self.grid.format, self.grid.per) {
                (Format::Int(format), Per::Row) if self.are_plain() => {
                    Arc::new(Dynamic { format, precision })
                }
                _ => Arc::new(Grouped { grid: self.grid.clone(), precision, threshold: self.threshold }),
            });
        };
        let seen = seen.context("a calibrated range without a text")?;
        let (low, high) =
            seen.low.iter().zip(&seen.high).fold((0f32, 0f32), |(l, h), (a, b)| (l.min(*a), h.max(*b)));
        let fit = match self.range {
            Range::Dynamic | Range::MinMax => int.fit_range(low, high, precision),
            Range::Percentile => {
                let mut all = sample(seen)?;
                all.sort_by(f32::total_cmp);
                let out = all.len() / 10_000;
                let at = |i: usize| all.get(i).copied().unwrap_or_default();
                int.fit_range(at(out).min(0.), at(all.len().saturating_sub(1 + out)).max(0.), precision)
            }
            Range::Mse => {
                let all = sample(seen)?;
                let lost = |share: f32| {
                    let fit = int.fit_range(share * low, share * high, precision);
                    let lost: f64 = all.iter().map(|&x| f64::from(fit.one(x) - x).powi(2)).sum();
                    (lost, fit)
                };
                let each = (0..80).map(|i| lost(1. - i as f32 / 100.));
                each.reduce(|best, next| if next.0 < best.0 { next } else { best }).context("a candidate")?.1
            }
        };
        Ok(Arc::new(Static { fit: Fit::Int(fit) }))
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        let operands = "inputs of quantized linears; attention's products stay exact";
        if let (Format::Int(int @ Int { zero: Zero::Clamped, clip: 1., .. }), Per::Row, true) =
            (self.grid.format, self.grid.per, self.are_plain())
        {
            return json!({
                "format": format!("int{}", int.bits), "bits": int.bits, "per": "token", "dynamic": true,
                "scheme": if int.symmetric { "symmetric" } else { "asymmetric" }, "operands": operands,
            });
        }
        let mut all = self.grid.describe();
        if self.grid.per == Per::Row {
            all["per"] = "token".into();
        }
        all["axis"] = "features".into();
        all["calibrated"] = json!(self.range);
        if let Some(threshold) = self.threshold {
            all["exact"] = format!("values of {threshold} and more, of each token").into();
        }
        all["operands"] = operands.into();
        all
    }

    fn are_plain(&self) -> bool {
        self.range == Range::Dynamic && !self.grid.search && self.threshold.is_none()
    }
}

/// Some of what was seen, one list.
fn sample(seen: &Seen) -> anyhow::Result<Vec<f32>> {
    Ok(seen.some_inputs(TOKENS)?.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?)
}

impl<'de> Deserialize<'de> for Acts {
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let mut keys = Map::deserialize(from)?;
        let range = match keys.remove("range") {
            Some(range) => Range::deserialize(range).map_err(de::Error::custom)?,
            None => Range::Dynamic,
        };
        let threshold =
            keys.remove("threshold").map(f32::deserialize).transpose().map_err(de::Error::custom)?;
        let grouped = keys.contains_key("group");
        let per = match keys.get("per").map(|per| per.as_str()) {
            Some(Some("token")) => Some("row"),
            Some(Some("row")) => {
                return Err(de::Error::custom("unknown variant `row`, expected `token`, `group`, `tensor`"));
            }
            None if keys.contains_key("bits") && !grouped => Some("row"),
            _ => None,
        };
        keys.extend(per.map(|per| ("per".to_string(), per.into())));
        let grid = Grid::from_table(Value::Object(keys), Zero::Clamped).map_err(de::Error::custom)?;
        let acts = Self { grid, range, threshold };
        acts.check().map_err(de::Error::custom)?;
        Ok(acts)
    }
}

/// Integers, a range a token.
pub struct Dynamic {
    pub(super) format: Int,
    pub(super) precision: Precision,
}

impl InputMap for Dynamic {
    fn map(&self, x: &Tensor) -> Result<Tensor> {
        fake_quantize(x, self.format, Per::Row, 0, self.precision).map_err(Error::wrap)
    }

    /// A token's codes are `0 .. 2^b - 1`; symmetric ones are shifted there.
    fn codes(&self, x: &Tensor, groups: &Groups) -> Option<Result<Inputs>> {
        if self.precision != Precision::F32 || self.format.zero != Zero::Clamped {
            return None;
        }
        let shift = if self.format.symmetric { -f32::from(1u8 << (self.format.bits - 1)) } else { 0. };
        Some((|| {
            let (x, (tokens, width)) = (x.contiguous()?, x.dims2()?);
            rows::with(&x, |x| {
                Inputs::new(tokens, groups, |token, codes| {
                    let row = &x[token * width..][..width];
                    vectorized(
                        #[inline(always)]
                        || {
                            let fitted = self.format.fit(row, self.precision);
                            let zero = fitted.codes(row, shift, codes, |code| code as u8);
                            // A code is finite whatever it stands for.
                            let finite = row.iter().fold(true, |all, x| all & x.is_finite());
                            (if finite { fitted.scale } else { f32::NAN }, zero)
                        },
                    )
                })
            })
        })())
    }
}

/// Anything with a scale a token or a group of its features.
struct Grouped {
    grid: Grid,
    precision: Precision,
    threshold: Option<f32>,
}

impl InputMap for Grouped {
    fn map(&self, x: &Tensor) -> Result<Tensor> {
        let Some(threshold) = self.threshold else {
            return self.grid.round_rows(x, self.precision).map_err(Error::wrap);
        };
        let large = x.abs()?.ge(f64::from(threshold))?;
        let others = large.where_cond(&x.zeros_like()?, x)?;
        large.where_cond(x, &self.grid.round_rows(&others, self.precision).map_err(Error::wrap)?)
    }
}

/// One range for all.
struct Static {
    fit: Fit,
}

impl InputMap for Static {
    fn map(&self, x: &Tensor) -> Result<Tensor> {
        let cpu = x.to_device(&Device::Cpu)?;
        rows::map(&cpu, "quantize", |_, x, out| self.fit.snap(x, out))?.to_device(x.device())
    }
}
