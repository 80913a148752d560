//! One file a family: `config.json -> DecoderSpec`, and where the checkpoint keeps each parameter.
//!
//! A family holds no tensors, does no I/O and owns no forward pass.
pub mod bloom;
pub mod gpt2;
pub mod llama;
pub mod mistral;
pub mod opt;

use super::spec::{DecoderSpec, Param, Source};
use crate::{mistake, mistake::nearest};
use anyhow::Result;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An architecture as the Hub knows it. Two pure functions over plain data.
pub trait Family: Sync {
    /// What tables call it.
    fn name(&self) -> &'static str;
    /// One line: who made it, and what differs.
    fn about(&self) -> &'static str;
    /// The `model_type` values in `config.json` that this family answers to.
    fn model_types(&self) -> &'static [&'static str];
    /// What the checkpoint is, in the vocabulary of `model::spec`.
    fn spec(&self, config: &Value) -> Result<DecoderSpec>;
    /// Where the checkpoint keeps a parameter, without base prefix. `None`: this family never has it.
    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source>;
    /// What checkpoints may put before a tensor's name, the likeliest first.
    fn prefixes(&self) -> &'static [&'static str];
}

/// Every family, in the order tables list them.
pub static FAMILIES: &[&dyn Family] =
    &[&llama::Llama, &mistral::Mistral, &opt::Opt, &bloom::Bloom, &gpt2::Gpt2];

/// The family that answers to a config's `model_type`.
pub fn of(config: &Value) -> Result<&'static dyn Family> {
    let known = || FAMILIES.iter().flat_map(|f| f.model_types().iter().copied());
    let Some(name) = config.get("model_type").and_then(Value::as_str) else {
        mistake!(
            "no `model_type`, or one that is no string; there are: {}",
            known().collect::<Vec<_>>().join(", ")
        );
    };
    match FAMILIES.iter().find(|f| f.model_types().contains(&name)) {
        Some(family) => Ok(*family),
        None => mistake!(
            "no family answers to model_type `{name}`{}; there are: {}",
            nearest(name, known()),
            known().collect::<Vec<_>>().join(", ")
        ),
    }
}

/// The config's keys, an error naming the one that is missing or of the wrong kind.
pub(super) fn read<C: DeserializeOwned>(config: &Value) -> Result<C> {
    serde_path_to_error::deserialize(config).map_err(|e| {
        let path = e.path().to_string();
        let inner = e.into_inner();
        if path == "." { anyhow::anyhow!("{inner}") } else { anyhow::anyhow!("`{path}`: {inner}") }
    })
}
