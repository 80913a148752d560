//! The KV cache: keys after their positions and values, each token and head on its own, in groups along the head.
//!
//! The study's setting (its §2.5): every position, the current one too, and while the prompt is read.
use super::{
    Described,
    grid::{Int, Per, fake_quantize},
};
use crate::model::{ops::Precision, seam::KvMap};
use candle_core::{Error, Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `kv = { bits = 4, group = 128, residual = 0 }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kv {
    /// 2 to 8, keys and values alike.
    pub bits: u8,
    /// Values along a head that share a scale; a shorter head is one group.
    #[serde(default = "super::grid::usual")]
    pub group: usize,
    /// The newest tokens that attention still reads exactly.
    #[serde(default)]
    pub residual: usize,
    /// Without a zero point.
    #[serde(default)]
    pub symmetric: bool,
}

impl Described for Kv {
    fn describe(&self) -> Value {
        json!({
            "format": format!("int{}", self.bits), "bits": self.bits, "per": "token and head", "axis": "head_dim",
            "group": self.group, "residual": self.residual, "keys": "after positions",
            "scheme": if self.symmetric { "symmetric" } else { "asymmetric" },
            "operands": "keys and values; queries and probabilities stay exact",
        })
    }
}

/// [`Kv`] at the decoder's seam.
pub struct PerHead {
    pub(super) settings: Kv,
    pub(super) format: Int,
    pub(super) precision: Precision,
}

impl KvMap for PerHead {
    fn residual(&self) -> usize {
        self.settings.residual
    }
    fn keys(&self, k: &Tensor) -> Result<Tensor> {
        fake_quantize(k, self.format, Per::Group, self.settings.group, self.precision).map_err(Error::wrap)
    }
    fn values(&self, v: &Tensor) -> Result<Tensor> {
        self.keys(v)
    }
}
