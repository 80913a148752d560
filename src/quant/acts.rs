//! Activations entering a linear, rounded as they come: dynamic, one range a token.
use super::{
    Described,
    grid::{Int, Per, fake_quantize},
};
use crate::model::{ops::Precision, seam::InputMap};
use candle_core::{Error, Result, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// `acts = { bits = 8, per = "token" }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Acts {
    /// 2 to 8.
    pub bits: u8,
    /// Which values share a scale.
    #[serde(default)]
    pub per: PerToken,
    /// Without a zero point.
    #[serde(default)]
    pub symmetric: bool,
}

/// One range over all of a token's features. The only choice that keeps a token's result independent of its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PerToken {
    /// See the type.
    #[default]
    Token,
}

impl Described for Acts {
    fn describe(&self) -> Value {
        json!({
            "format": format!("int{}", self.bits), "bits": self.bits, "per": "token", "dynamic": true,
            "scheme": if self.symmetric { "symmetric" } else { "asymmetric" },
            "operands": "inputs of quantized linears; attention's products stay exact",
        })
    }
}

/// [`Acts`] at the decoder's seam.
pub struct Dynamic {
    pub(super) format: Int,
    pub(super) precision: Precision,
}

impl InputMap for Dynamic {
    fn map(&self, x: &Tensor) -> Result<Tensor> {
        fake_quantize(x, self.format, Per::Row, 0, self.precision).map_err(Error::wrap)
    }
}
