//! Methods that rewrite a model before anything is rounded. One file a method; `prepare = [{ method = "smoothquant" }]`
//! deserializes into the methods themselves, and they work in that order.
//!
//! All but those that cut something off (clipping, pruning, joining channels) leave the function as it is: [`fold`] moves scales,
//! [`rotate`] turns the stream. What searches compare is in `trial`.
pub mod awq;
pub mod fold;
pub mod osplus;
pub mod prune;
pub mod qllm;
pub mod rotate;
pub mod smoothquant;
mod trial;

use super::{
    Described, Entry,
    apply::At,
    calibrate::{Inputs, Seen, SeenBy},
    weight::Needs,
};
use crate::model::{
    block::Block,
    decoder::Decoder,
    seam::KvMap,
    spec::{DecoderSpec, Feeder, ScaleGroup},
};
use anyhow::Result;
use serde::Deserialize;
use std::sync::Arc;

/// Every method, in the order tables list them.
pub static METHODS: &[Entry] =
    &[smoothquant::ENTRY, osplus::ENTRY, awq::ENTRY, rotate::ENTRY, qllm::ENTRY, prune::ENTRY];

/// Rewrites the model into one that computes the same function and quantizes better.
pub trait Transform: Described + Send + Sync {
    /// Why it cannot work on a model, where it cannot.
    fn unfit(&self, spec: &DecoderSpec) -> Option<String>;
    /// Whether it looks at calibration text.
    fn calibrated(&self) -> bool {
        true
    }
    /// What it must see of linears' inputs, beside their ranges.
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }
    /// Which inputs a block is given meanwhile, where the recipe does not say.
    fn inputs(&self) -> Inputs {
        Inputs::Full
    }
    /// What is outside the blocks.
    fn ends(&self, _ends: &mut Decoder) -> Result<()> {
        Ok(())
    }
    /// One block, in order: the same function.
    fn block(&self, block: &mut Block, at: &At) -> Result<()>;
    /// Whether it cuts something off, so that the function is another after [`cut`](Transform::cut).
    fn cuts(&self) -> bool {
        false
    }
    /// Cuts it off.
    fn cut(&self, _block: &mut Block, _at: &At) -> Result<()> {
        Ok(())
    }
    /// What stands between cache and attention, where it is more than what the recipe rounds with.
    fn kv(&self, _block: &Block, map: Arc<dyn KvMap>) -> Arc<dyn KvMap> {
        map
    }
    /// The share of a block's weights that it makes zero, and that stay it.
    fn zeros(&self) -> f64 {
        0.
    }
    /// Whether it turns the stream, so that blocks before and after it do not fit each other.
    fn turns(&self) -> bool {
        false
    }
    /// Whether it tries roundings, so that a recipe must say what rounds.
    fn tries(&self) -> bool {
        false
    }
    /// Refuses settings that cannot be.
    fn check(&self) -> Result<()> {
        Ok(())
    }
}

/// One entry of `prepare`.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Prepare {
    /// Scales from activations to weights.
    Smoothquant(smoothquant::SmoothQuant),
    /// Shifts, and scales to a searched threshold.
    Osplus(osplus::OsPlus),
    /// Scales and clipping, searched.
    Awq(awq::Awq),
    /// The stream turned.
    Rotate(rotate::Rotate),
    /// Channels cut and joined.
    Qllm(qllm::Qllm),
    /// Weights that become zero.
    Prune(prune::Prune),
}

impl Prepare {
    /// The method itself.
    pub fn transform(&self) -> &dyn Transform {
        match self {
            Prepare::Smoothquant(method) => method,
            Prepare::Osplus(method) => method,
            Prepare::Awq(method) => method,
            Prepare::Rotate(method) => method,
            Prepare::Qllm(method) => method,
            Prepare::Prune(method) => method,
        }
    }
}

/// What was seen of a group's input: the linear's that saw most tokens, a router's before its experts'.
fn of_group<'a>(block: &Block, group: &ScaleGroup, seen: &'a SeenBy) -> Option<&'a Arc<Seen>> {
    let each = group.linears.iter().filter_map(|key| seen.get(&block.linears.get(key)?.site));
    each.fold(None, |best: Option<&Arc<Seen>>, seen| match best {
        Some(best) if best.tokens >= seen.tokens => Some(best),
        _ => Some(seen),
    })
}

/// Why no scale can move in a model.
fn no_groups(spec: &DecoderSpec, norms: bool) -> Option<String> {
    let any = |g: &ScaleGroup| !norms || matches!(g.feeder, Feeder::Norm(_));
    let none = !spec.blocks.iter().any(|b| b.scale_groups().iter().any(any));
    none.then(|| {
        "no norm of this model feeds linears alone, so there is nothing that could take a scale in".into()
    })
}
