//! Activations entering a linear, rounded as they come: dynamic, one range a token.
use super::{
    Described,
    grid::{Int, Per, fake_quantize},
};
use crate::{
    float::vectorized,
    model::{ops::Precision, seam::InputMap},
    tensor::{
        int8::{Groups, Inputs},
        rows,
    },
};
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

    /// A token's codes are `0 .. 2^b - 1`; symmetric ones are shifted there.
    fn codes(&self, x: &Tensor, groups: &Groups) -> Option<Result<Inputs>> {
        if self.precision != Precision::F32 {
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
