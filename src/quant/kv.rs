//! The KV cache: keys after their positions and values, each token and head on its own, in groups along the head.
//!
//! ```text
//! kv = { bits = 4, group = 128, residual = 0 }                         the study's setting (its section 2.5)
//! kv = { bits = 4, values = { bits = 2, group = 32 } }                 values apart
//! kv = { format = "fp8" }                                              any format
//! ```
//! Every position, the current one too, and while the prompt is read; but for the newest `residual` tokens.
use super::grid::{Grid, Per, Zero};
use crate::model::{ops::Precision, seam::KvMap, spec::DecoderSpec};
use candle_core::{Error, Result, Tensor};
use serde::{Deserialize, Deserializer, de};
use serde_json::{Map, Value, json};

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub struct Kv {
    /// What keys become; groups are along a head.
    pub keys: Grid,
    /// What values become.
    pub values: Grid,
    /// The newest tokens that attention still reads exactly.
    pub residual: usize,
}

impl Kv {
    /// Keys and values alike.
    pub fn both(grid: Grid) -> Self {
        Self { keys: grid.clone(), values: grid, residual: 0 }
    }

    /// Bits of a code, the mean of a key's and a value's.
    pub fn code_bits(&self) -> f64 {
        (self.keys.code_bits() + self.values.code_bits()) / 2.
    }

    /// Bits that the cache takes for a token of a model, scales and zeros included, for tokens older than the residual window.
    pub fn token_bits(&self, spec: &DecoderSpec) -> f64 {
        let of =
            |heads: usize, width: usize| self.keys.bits((heads, width)) + self.values.bits((heads, width));
        spec.blocks.iter().filter_map(|b| b.mixer.attention()).map(|a| of(a.kv_heads, a.head_dim)).sum()
    }

    /// What a reader must know of heads of this width.
    pub fn note(&self, width: usize) -> Option<String> {
        let one = |grid: &Grid| grid.note(width);
        one(&self.keys).or_else(|| one(&self.values)).map(|_| {
            let g = if self.keys.note(width).is_some() { self.keys.group } else { self.values.group };
            format!("kv: ragged: heads of {width} in groups of {g}, the last of {}", width % g)
        })
    }

    /// Refuses what cannot be.
    pub fn check(&self) -> anyhow::Result<()> {
        for grid in [&self.keys, &self.values] {
            grid.check()?;
            if grid.per == Per::Tensor {
                crate::mistake!(
                    "a range for the whole cache would depend on tokens that are not there yet: `per` is `row` or `group`"
                );
            }
        }
        Ok(())
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        let one = |grid: &Grid| {
            let mut all = json!({
                "format": grid.format.name(), "bits": grid.code_bits(), "per": "token and head", "axis": "head_dim",
            });
            let own = grid.describe();
            all["group"] = grid.group.into();
            if let super::grid::Format::Int(int) = grid.format {
                all["bits"] = int.bits.into();
                all["scheme"] = own["scheme"].clone();
                if int.zero != Zero::Clamped {
                    all["zero"] = own["zero"].clone();
                }
            }
            all
        };
        let mut all = match self.keys == self.values {
            true => one(&self.keys),
            false => json!({ "keys": one(&self.keys), "values": one(&self.values) }),
        };
        all["residual"] = self.residual.into();
        if self.keys == self.values {
            all["keys"] = "after positions".into();
        } else {
            all["positions"] = "keys after positions".into();
        }
        all["operands"] = "keys and values; queries and probabilities stay exact".into();
        all
    }
}

impl<'de> Deserialize<'de> for Kv {
    /// What is said beside `keys` and `values` is for both; `bits` and `format` of either take each other's place.
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let mut both = Map::deserialize(from)?;
        let residual =
            both.remove("residual").map(usize::deserialize).transpose().map_err(de::Error::custom)?;
        let mut own = |name: &str| -> std::result::Result<Map<String, Value>, D::Error> {
            both.remove(name)
                .map(Map::deserialize)
                .transpose()
                .map_err(de::Error::custom)
                .map(Option::unwrap_or_default)
        };
        let (keys, values) = (own("keys")?, own("values")?);
        let grid = |own: Map<String, Value>| {
            let mut all = both.clone();
            if own.contains_key("bits") || own.contains_key("format") {
                all.remove("bits");
                all.remove("format");
            }
            all.extend(own);
            Grid::from_table(Value::Object(all), Zero::Clamped).map_err(|e| match e.to_string() {
                said if said.contains("unknown field") => {
                    de::Error::custom(said + "; and `residual`, `keys`, `values`")
                }
                said => de::Error::custom(said),
            })
        };
        let kv = Self { keys: grid(keys)?, values: grid(values)?, residual: residual.unwrap_or(0) };
        kv.check().map_err(de::Error::custom)?;
        Ok(kv)
    }
}

/// [`Kv`] at the decoder's seam.
pub struct PerHead {
    pub(super) settings: Kv,
    pub(super) precision: Precision,
}

impl KvMap for PerHead {
    fn residual(&self) -> usize {
        self.settings.residual
    }
    fn keys(&self, k: &Tensor) -> Result<Tensor> {
        self.settings.keys.round_rows(k, self.precision).map_err(Error::wrap)
    }
    fn values(&self, v: &Tensor) -> Result<Tensor> {
        self.settings.values.round_rows(v, self.precision).map_err(Error::wrap)
    }
}
