//! Methods that rewrite a model before anything is rounded: the same function, easier to quantize. One file a method;
//! `prepare = [{ method = "smoothquant", alpha = 0.5 }]` deserializes into the methods themselves, and they work in that order.
use super::{Described, Entry, calibrate::Inputs, weight::Needs};
use crate::model::{block::Block, decoder::Decoder, spec::DecoderSpec};
use anyhow::Result;
use serde::Deserialize;

/// Every method, in the order tables list them.
pub static METHODS: &[Entry] = &[];

/// Rewrites the model into one that computes the same function and quantizes better.
pub trait Transform: Described + Send + Sync {
    /// Why it cannot work on a model, where it cannot.
    fn unfit(&self, spec: &DecoderSpec) -> Option<String>;
    /// Whether it looks at calibration text.
    fn calibrated(&self) -> bool {
        true
    }
    /// Which inputs a block is given meanwhile, where the recipe does not say.
    fn inputs(&self) -> Inputs {
        Inputs::Full
    }
    /// What is outside the blocks.
    fn ends(&self, _ends: &mut Decoder) -> Result<()> {
        Ok(())
    }
    /// One block, in order.
    fn block(&self, block: &mut Block, at: &super::apply::At) -> Result<()>;
}

/// One entry of `prepare`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Prepare {}

impl Prepare {
    /// The method itself.
    pub fn transform(&self) -> &dyn Transform {
        match *self {}
    }
}

/// What a method asks to see.
pub const RANGES: Needs = Needs::NOTHING;
