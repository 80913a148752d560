//! Gemma 3 (Gemma Team, 2025), its text model: Gemma 2 with norms of queries and keys in place of soft caps, and five
//! layers with a window and a base of their own for each one without. Source: transformers `modeling_gemma3.py`.
use super::{
    Family, filled, gemma,
    gemma2::{self, Gemma2},
    llama, read, sliding,
};
use crate::model::{
    rope::{self, Unsaid},
    spec::*,
};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Config {
    query_pre_attn_scalar: Option<f64>,
    attn_logit_softcapping: Option<f64>,
    final_logit_softcapping: Option<f64>,
    sliding_window: Option<usize>,
    sliding_window_pattern: Option<usize>,
    rope_local_base_freq: Option<f64>,
}

/// See the module.
pub struct Gemma3;

impl Family for Gemma3 {
    fn name(&self) -> &'static str {
        "gemma3"
    }
    fn about(&self) -> &'static str {
        "Gemma 3 (text): Gemma 2 with query and key norms instead of caps; five windowed layers to a full one"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gemma3.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gemma3_text", "gemma3"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["model.", "language_model.model.", "model.language_model.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        // Models that also see keep the text model's config inside theirs.
        let config = filled(
            config.get("text_config").unwrap_or(config),
            json!({
                "vocab_size": 262_208, "num_attention_heads": 8, "num_key_value_heads": 4, "sliding_window": 4096,
                "max_position_embeddings": 131_072, "hidden_activation": "gelu_pytorch_tanh",
            }),
        )?;
        let c: Config = read(&config)?;
        // Since transformers 5 there is a table of positions a kind of layer.
        let tables = config.get("rope_parameters").filter(|t| t.get("full_attention").is_some()).cloned();
        let part = |kind: &str, old: Value| match &tables {
            Some(tables) => json!({ "rope_parameters": tables[kind] }),
            None => old,
        };
        let mut plain = config.clone();
        if tables.is_some() {
            plain["rope_parameters"] = Value::Null;
        }
        let unsaid = Unsaid { theta: 1e6, ..Unsaid::USUAL };
        let mut spec = gemma::spec(&plain, unsaid)?;
        let layers = spec.blocks.len();
        let windowed = sliding(&config, layers, |layer| {
            (layer + 1) % c.sliding_window_pattern.unwrap_or(6).max(1) != 0
        })?;
        gemma2::sandwich(&mut spec);
        let head_dim = spec.blocks[0].mixer.attention().map_or(256, |a| a.head_dim);
        let full = part("full_attention", plain.clone());
        let full = rope::position(&full, head_dim, unsaid)?;
        let local = part("sliding_attention", json!({}));
        let unsaid = Unsaid { theta: c.rope_local_base_freq.unwrap_or(10_000.), ..Unsaid::USUAL };
        let local = rope::position(&local, head_dim, unsaid)?;
        let norm = spec.blocks[0].norm;
        llama::attention(&mut spec, |layer, a| {
            a.scale = 1. / c.query_pre_attn_scalar.unwrap_or(256.).sqrt();
            a.softcap = c.attn_logit_softcapping;
            a.window = c.sliding_window.filter(|_| windowed[layer]);
            a.position = if windowed[layer] { local.clone() } else { full.clone() };
            a.qk_norm = Some(QkNorm { norm, over: Over::Head });
        });
        spec.head.softcap = c.final_logit_softcapping;
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Gemma2.source(spec, param)
    }
}
