//! Qwen 2 and 2.5 (Yang et al., 2024): LLaMA with biases on queries, keys and values, and a window in the upper layers
//! where a config turns it on. Source: transformers `modeling_qwen2.py`.
use super::{
    Family, filled,
    llama::{self, Llama},
    read, sliding,
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

/// See the module.
pub struct Qwen2;

impl Family for Qwen2 {
    fn name(&self) -> &'static str {
        "qwen2"
    }
    fn about(&self) -> &'static str {
        "Qwen 2 and 2.5: LLaMA with biases on queries, keys and values"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_qwen2.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut spec = windowed(config)?;
        llama::attention(&mut spec, |_, a| a.bias = AttentionBias { qkv: true, out: false });
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Llama.source(spec, param)
    }
}

#[derive(Deserialize)]
struct Config {
    sliding_window: Option<usize>,
    #[serde(default)]
    use_sliding_window: bool,
    max_window_layers: Option<usize>,
}

/// LLaMA with Qwen's windows: from layer `max_window_layers` on, where `use_sliding_window` says so.
pub(super) fn windowed(config: &Value) -> Result<DecoderSpec> {
    let c: Config = read(&filled(config, json!({ "sliding_window": 4096, "max_window_layers": 28 }))?)?;
    let mut spec = llama::like(config, llama::rms(config)?, Unsaid::USUAL)?;
    let window = c.sliding_window.filter(|_| c.use_sliding_window);
    let upper = sliding(config, spec.blocks.len(), |layer| c.max_window_layers.is_none_or(|n| layer >= n))?;
    llama::attention(&mut spec, |layer, a| a.window = window.filter(|_| upper[layer]));
    Ok(spec)
}
