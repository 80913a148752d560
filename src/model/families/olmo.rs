//! OLMo (Groeneveld et al., 2024): LLaMA with layer norms that learn nothing, and queries, keys and values held to a range.
//! Source: transformers `modeling_olmo.py`.
use super::{
    Family,
    llama::{self, Llama},
    read,
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Olmo;

#[derive(Deserialize)]
struct Config {
    clip_qkv: Option<f64>,
}

impl Family for Olmo {
    fn name(&self) -> &'static str {
        "olmo"
    }
    fn about(&self) -> &'static str {
        "OLMo: LLaMA with layer norms without parameters, and clipped queries, keys and values"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_olmo.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["olmo"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        let norm = NormSpec { gain: Gain::None, shift: false, ..NormSpec::layer(1e-5) };
        let mut spec = llama::like(config, norm, Unsaid { once: true, ..Unsaid::USUAL })?;
        llama::attention(&mut spec, |_, a| a.clip = c.clip_qkv);
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Llama.source(spec, param)
    }
}
