//! Mixtral (Jiang et al., 2024): Mistral with experts. Source: transformers `modeling_mixtral.py`.
use super::{Family, filled, llama::Llama, mistral, read};
use crate::model::{
    site::{Expert, Role},
    spec::*,
};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Config {
    num_local_experts: usize,
    num_experts_per_tok: usize,
}

/// See the module.
pub struct Mixtral;

impl Family for Mixtral {
    fn name(&self) -> &'static str {
        "mixtral"
    }
    fn about(&self) -> &'static str {
        "Mixtral: Mistral with experts, two a token, their shares made to sum to 1"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_mixtral.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mixtral"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        let mut spec = mistral::spec(&filled(config, json!({ "sliding_window": null }))?)?;
        for block in &mut spec.blocks {
            if let Ffn::Gated { inner, act, .. } = block.ffn {
                let (count, top) = (c.num_local_experts, c.num_experts_per_tok);
                block.ffn = Ffn::Experts { count, top, renormalize: true, inner, act, shared: None };
            }
        }
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let Param::Weight(site) = param else { return Llama.source(spec, param) };
        let name = match (site.expert, site.role) {
            (None, Role::Router) => "gate".into(),
            (Some(Expert::Routed(e)), Role::Gate) => format!("experts.{e}.w1"),
            (Some(Expert::Routed(e)), Role::Down) => format!("experts.{e}.w2"),
            (Some(Expert::Routed(e)), Role::Up) => format!("experts.{e}.w3"),
            _ => return Llama.source(spec, param),
        };
        Some(Source::whole(format!("layers.{}.block_sparse_moe.{name}.weight", site.block?)))
    }
}
