//! Gemma (Gemma Team, 2024): LLaMA with scaled embeddings, norms that multiply by `1 + w`, a GELU gate and a tied head.
//! Source: transformers `modeling_gemma.py`.
use super::{
    Family, filled,
    llama::{self, Llama},
};
use crate::model::{rope::Unsaid, spec::*};
use anyhow::{Result, ensure};
use serde_json::Value;
use serde_json::json;

/// See the module.
pub struct Gemma;

impl Family for Gemma {
    fn name(&self) -> &'static str {
        "gemma"
    }
    fn about(&self) -> &'static str {
        "Gemma: scaled embeddings, norms by 1 + w, GELU gate, tied head"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gemma.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gemma"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        spec(config, Unsaid::USUAL)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Llama.source(spec, param)
    }
}

/// What all Gemmas share.
pub(super) fn spec(config: &Value, unsaid: Unsaid) -> Result<DecoderSpec> {
    let mut config =
        filled(config, json!({ "head_dim": 256, "tie_word_embeddings": true, "rms_norm_eps": 1e-6 }))?;
    // Null and absent are the same; the first files said `hidden_act: gelu`, and meant the tanh form all the same.
    config["hidden_act"] = match config.get("hidden_activation") {
        Some(Value::Null) | None => json!("gelu_pytorch_tanh"),
        Some(act) => act.clone(),
    };
    ensure!(
        config.get("use_bidirectional_attention") != Some(&Value::Bool(true)),
        "`use_bidirectional_attention` is true: only models that predict the next token are there"
    );
    let mut spec = llama::like(&config, llama::rms(&config)?, unsaid)?;
    llama::gain(&mut spec, Gain::OnePlus);
    spec.embed.scale = Some((spec.hidden as f64).sqrt());
    Ok(spec)
}
