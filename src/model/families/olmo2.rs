//! OLMo 2 (OLMo Team, 2025): norms after each branch and not before it, and norms of all queries and of all keys. Source:
//! transformers `modeling_olmo2.py`.
use super::{
    Family,
    llama::{self, Llama},
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::Result;
use serde_json::Value;

/// See the module.
pub struct Olmo2;

impl Family for Olmo2 {
    fn name(&self) -> &'static str {
        "olmo2"
    }
    fn about(&self) -> &'static str {
        "OLMo 2: norms after each branch; queries and keys normalized over all heads"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_olmo2.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["olmo2"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut spec = llama::like(config, llama::rms(config)?, Unsaid { once: true, ..Unsaid::USUAL })?;
        llama::gain(&mut spec, Gain::ScaleOnce);
        spec.blocks.iter_mut().for_each(|b| b.residual = Residual::Branch);
        let norm = spec.blocks[0].norm;
        llama::attention(&mut spec, |_, a| a.qk_norm = Some(QkNorm { norm, over: Over::Row }));
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let (b, name, h) = match param {
            Param::Norm(b, Slot::AfterMixer, h) => (b, "post_attention_layernorm", h),
            Param::Norm(b, Slot::AfterFfn, h) => (b, "post_feedforward_layernorm", h),
            _ => return Llama.source(spec, param),
        };
        Some(Source::whole(format!("layers.{b}.{name}.{}", h.torch())))
    }
}
