//! GLM-4 in transformers' own form (GLM Team, 2024): LLaMA with rotary positions on the first half of each head, each
//! feature with its neighbour, and a fused gate. Source: transformers `modeling_glm.py`.
use super::{
    Family, filled,
    llama::{self, Llama},
    phi3,
};
use crate::model::{
    rope::Unsaid,
    site::{Role, Site},
    spec::*,
};
use anyhow::Result;
use serde_json::{Value, json};

/// See the module.
pub struct Glm;

impl Family for Glm {
    fn name(&self) -> &'static str {
        "glm"
    }
    fn about(&self) -> &'static str {
        "GLM-4 (`-hf`): LLaMA with neighbouring rotary pairs on half of each head, fused gate and up"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_glm.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["glm"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        spec(config)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        match param {
            Param::Weight(Site { block: Some(b), role: role @ (Role::Gate | Role::Up), .. }) => {
                phi3::fused_gate(spec, b, role, format!("layers.{b}.mlp.gate_up_proj.weight"))
            }
            _ => Llama.source(spec, param),
        }
    }
}

/// GLM-4-0414's too.
pub(super) fn spec(config: &Value) -> Result<DecoderSpec> {
    let config = filled(config, json!({ "head_dim": 128 }))?;
    let unsaid = Unsaid { share: 0.5, pairing: Pairing::Neighbours, ..Unsaid::USUAL };
    let mut spec = llama::like(&config, llama::rms(&config)?, unsaid)?;
    llama::attention(&mut spec, |_, a| a.bias.out = false);
    Ok(spec)
}
