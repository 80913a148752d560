//! Qwen 3 (Yang et al., 2025): LLaMA with heads of their own width, and norms of queries and keys. Source: transformers
//! `modeling_qwen3.py`.
use super::{
    Family, filled,
    llama::{self, Llama},
    qwen2,
};
use crate::model::spec::*;
use anyhow::Result;
use serde_json::{Value, json};

/// See the module.
pub struct Qwen3;

impl Family for Qwen3 {
    fn name(&self) -> &'static str {
        "qwen3"
    }
    fn about(&self) -> &'static str {
        "Qwen 3: LLaMA with a norm of each query and key head, before positions"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_qwen3.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["qwen3"]
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

/// Qwen 3's mixture of experts too.
pub(super) fn spec(config: &Value) -> Result<DecoderSpec> {
    let mut spec = qwen2::windowed(&filled(config, json!({ "head_dim": 128 }))?)?;
    let norm = spec.blocks.first().map_or(NormSpec::rms(1e-6), |b| b.norm);
    llama::attention(&mut spec, |_, a| a.qk_norm = Some(QkNorm { norm, over: Over::Head }));
    Ok(spec)
}
