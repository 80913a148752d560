//! Methods that round a weight matrix. One file a method; the table in a config deserializes into the method itself.
pub mod rtn;

use super::{Described, Entry};
use crate::{model::ops::Precision, tensor::int8::Codes};
use anyhow::Result;
use candle_core::Tensor;
use serde::{Deserialize, Serialize};

/// Every method, in the order tables list them.
pub static METHODS: &[Entry] = &[rtn::ENTRY];

/// Rounds one matrix `[out, in]` to what the method can represent.
pub trait Rounder: Described + Send + Sync {
    /// The same matrix, of representable values. Arithmetic in `precision`.
    fn round(&self, weight: &Tensor, precision: Precision) -> Result<Tensor>;
    /// The same as integers with their scales, `(code - zero) * scale` for every weight; `None` where the method makes no
    /// such thing. In f32.
    fn codes(&self, _weight: &Tensor) -> Result<Option<Codes>> {
        Ok(None)
    }
    /// Bytes in memory of what [`codes`](Rounder::codes) gives for a matrix `(out, in)`.
    fn code_bytes(&self, _shape: (usize, usize)) -> Option<usize> {
        None
    }
    /// Bits of one weight's code.
    fn code_bits(&self) -> u8;
    /// Bits of a whole matrix `(out, in)`, scales and zeros included.
    fn bits(&self, shape: (usize, usize)) -> f64;
    /// What a reader must know of a row of this many inputs, if anything: a last group that is shorter.
    fn note(&self, inputs: usize) -> Option<String>;
}

/// `weights = { method = "...", ... }`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Weights {
    /// Round to nearest.
    Rtn(rtn::Rtn),
}

impl Weights {
    /// The method itself.
    pub fn rounder(&self) -> &dyn Rounder {
        match self {
            Weights::Rtn(rtn) => rtn,
        }
    }
}
