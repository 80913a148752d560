//! Gemma 2 (Gemma Team, 2024): Gemma with norms on both sides of each branch, soft caps on scores and logits, and a window
//! in every second layer. Source: transformers `modeling_gemma2.py`.
use super::{
    Family, filled, gemma,
    llama::{self, Llama},
    read, sliding,
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

/// See the module.
pub struct Gemma2;

impl Family for Gemma2 {
    fn name(&self) -> &'static str {
        "gemma2"
    }
    fn about(&self) -> &'static str {
        "Gemma 2: Gemma with sandwich norms, soft caps, and a window in every second layer"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gemma2.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gemma2"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        // What is absent has these; what is null has none.
        let usual = json!({
            "sliding_window": 4096, "attn_logit_softcapping": 50., "final_logit_softcapping": 30.,
        });
        let c: Config = read(&filled(config, usual)?)?;
        let mut spec = gemma::spec(config, Unsaid::USUAL)?;
        let windowed = sliding(config, spec.blocks.len(), |layer| layer % 2 == 0)?;
        sandwich(&mut spec);
        llama::attention(&mut spec, |layer, a| {
            a.scale = 1. / c.query_pre_attn_scalar.unwrap_or(256.).sqrt();
            a.softcap = c.attn_logit_softcapping;
            a.window = c.sliding_window.filter(|_| windowed[layer]);
        });
        spec.head.softcap = c.final_logit_softcapping;
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let Param::Norm(b, slot, h) = param else { return Llama.source(spec, param) };
        let name = match slot {
            Slot::Mixer => "input_layernorm",
            Slot::AfterMixer => "post_attention_layernorm",
            Slot::Ffn => "pre_feedforward_layernorm",
            Slot::AfterFfn => "post_feedforward_layernorm",
        };
        Some(Source::whole(format!("layers.{b}.{name}.{}", h.torch())))
    }
}

#[derive(Deserialize)]
struct Config {
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<usize>,
}

/// Norms on both sides of each branch.
pub(super) fn sandwich(spec: &mut DecoderSpec) {
    spec.blocks.iter_mut().for_each(|b| b.residual = Residual::Sandwich);
}
