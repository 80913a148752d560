//! Qwen 3 with experts (Yang et al., 2025). Source: transformers `modeling_qwen3_moe.py`.
use super::{
    Family,
    llama::Llama,
    qwen2_moe::{self, Qwen2Moe},
    qwen3,
};
use crate::model::spec::*;
use anyhow::Result;
use serde_json::Value;

/// See the module.
pub struct Qwen3Moe;

impl Family for Qwen3Moe {
    fn name(&self) -> &'static str {
        "qwen3_moe"
    }
    fn about(&self) -> &'static str {
        "Qwen 3 MoE: Qwen 3 with experts"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_qwen3_moe.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["qwen3_moe"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut spec = qwen3::spec(config)?;
        qwen2_moe::experts(config, &mut spec, false)?;
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Qwen2Moe.source(spec, param)
    }
}
