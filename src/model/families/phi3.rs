//! Phi-3 (Abdin et al., 2024): LLaMA with fused linears, and LongRoPE in the long variants. Source: transformers
//! `modeling_phi3.py`.
use super::{
    Family,
    llama::{self, Llama},
    read,
};
use crate::model::{
    rope::Unsaid,
    site::{Role, Site},
    spec::*,
};
use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Phi3;

impl Family for Phi3 {
    fn name(&self) -> &'static str {
        "phi3"
    }
    fn about(&self) -> &'static str {
        "Phi-3 and Phi-4: LLaMA with fused QKV and fused gate and up; LongRoPE"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_phi3.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["phi3"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let window = read::<Config>(config)?.sliding_window;
        let mut spec = llama::like(config, llama::rms(config)?, Unsaid::USUAL)?;
        llama::attention(&mut spec, |_, a| {
            a.window = window;
            a.bias = AttentionBias { qkv: false, out: false };
        });
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let Param::Weight(Site { block: Some(b), role, .. }) = param else {
            return Llama.source(spec, param);
        };
        if matches!(role, Role::Gate | Role::Up) {
            return fused_gate(spec, b, role, format!("layers.{b}.mlp.gate_up_proj.weight"));
        }
        let a = spec.blocks.get(usize::from(b))?.mixer.attention()?;
        let (q, kv) = (a.q_width(), a.kv_width());
        let rows = match role {
            Role::Q => 0..q,
            Role::K => q..q + kv,
            Role::V => q + kv..q + 2 * kv,
            _ => return Llama.source(spec, param),
        };
        Some(Source::split(format!("layers.{b}.self_attn.qkv_proj.weight"), 1, q + 2 * kv, rows))
    }
}

#[derive(Deserialize)]
struct Config {
    sliding_window: Option<usize>,
}

/// Gate and up in one tensor, the gate first.
pub(super) fn fused_gate(spec: &DecoderSpec, block: u16, role: Role, name: String) -> Option<Source> {
    let Ffn::Gated { inner, .. } = spec.blocks.get(usize::from(block))?.ffn else { return None };
    let first = if role == Role::Gate { 0 } else { inner };
    Some(Source::split(name, 1, 2 * inner, first..first + inner))
}
