//! Round to nearest: the baseline that every method is measured against.
//!
//! Each value goes to the nearest representable one; nothing is calibrated.
use super::{Given, Rounded, Rounder};
use crate::{
    quant::{Described, Entry, grid::Grid},
    tensor::int8::Codes,
};
use anyhow::Result;
use candle_core::Tensor;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "rtn",
    about: "round to nearest, per tensor, per output row, or per group of inputs (default 128)",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rtn {}

impl Rounder for Rtn {
    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        Ok(given.grid.round(weight, given.precision)?.into())
    }

    fn codes(&self, grid: &Grid, weight: &Tensor) -> Result<Option<Codes>> {
        grid.codes(weight)
    }

    fn code_bytes(&self, grid: &Grid, shape: (usize, usize)) -> Option<usize> {
        grid.code_bytes(shape)
    }
}

impl Described for Rtn {
    fn describe(&self) -> Value {
        json!({ "method": "rtn" })
    }
}
