//! Mistral (Jiang et al., 2023): LLaMA with a sliding window. Source: transformers `modeling_mistral.py`.
use super::{
    Family, filled,
    llama::{self, Llama},
    read,
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;
use serde_json::json;

/// See the module.
pub struct Mistral;

impl Family for Mistral {
    fn name(&self) -> &'static str {
        "mistral"
    }
    fn about(&self) -> &'static str {
        "Mistral: LLaMA whose tokens see a window of the last `sliding_window`"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_mistral.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mistral"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }
    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        spec(config)
    }
    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Llama.source(spec, param)
    }
}

#[derive(Deserialize)]
struct Config {
    sliding_window: Option<usize>,
}

/// Mixtral's too.
pub(super) fn spec(config: &Value) -> Result<DecoderSpec> {
    // Mistral's own defaults: a key that is absent is not a key that is null.
    let config = filled(config, json!({ "num_key_value_heads": 8, "sliding_window": 4096 }))?;
    let window = read::<Config>(&config)?.sliding_window;
    let mut spec = llama::like(&config, llama::rms(&config)?, Unsaid::USUAL)?;
    llama::attention(&mut spec, |_, a| a.window = window);
    Ok(spec)
}
