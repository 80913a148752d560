//! Qwen 1.5 and 2 with experts (Yang et al., 2024), and one that every token goes through. Source: transformers
//! `modeling_qwen2_moe.py`.
use super::{
    Family,
    llama::{self, Llama},
    qwen2::Qwen2,
    read,
};
use crate::model::{
    site::{Expert, Role},
    spec::*,
};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Qwen2Moe;

impl Family for Qwen2Moe {
    fn name(&self) -> &'static str {
        "qwen2_moe"
    }
    fn about(&self) -> &'static str {
        "Qwen 1.5 and 2 MoE: Qwen 2 with experts, and a gated one that every token goes through"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_qwen2_moe.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["qwen2_moe"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut spec = Qwen2.spec(config)?;
        let bias = config.get("qkv_bias").and_then(Value::as_bool).unwrap_or(true);
        llama::attention(&mut spec, |_, a| a.bias.qkv = bias);
        experts(config, &mut spec, false)?;
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let Param::Weight(site) = param else { return Llama.source(spec, param) };
        let whose = match (site.expert, site.role) {
            (None, Role::Router) => "gate".into(),
            (Some(Expert::Shared), Role::Router) => "shared_expert_gate".into(),
            (Some(Expert::Shared), role) => format!("shared_expert.{}", part(role)?),
            (Some(Expert::Routed(e)), role) => format!("experts.{e}.{}", part(role)?),
            _ => return Llama.source(spec, param),
        };
        Some(Source::whole(format!("layers.{}.mlp.{whose}.weight", site.block?)))
    }
}

#[derive(Deserialize)]
struct Config {
    num_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    shared_expert_intermediate_size: Option<usize>,
    norm_topk_prob: Option<bool>,
    decoder_sparse_step: Option<usize>,
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
}

/// Gives experts to the layers that have them: each `decoder_sparse_step`-th, but for `mlp_only_layers`.
pub(super) fn experts(config: &Value, spec: &mut DecoderSpec, renormalize: bool) -> Result<()> {
    // transformers gives them windows by other rules than Qwen 2's, and no published one has any.
    ensure!(
        config.get("use_sliding_window") != Some(&Value::Bool(true)),
        "`use_sliding_window` is true: windows in Qwen's mixtures of experts are not there"
    );
    let c: Config = read(config)?;
    let step = c.decoder_sparse_step.unwrap_or(1);
    ensure!(step > 0, "`decoder_sparse_step` is 0: it must be at least 1");
    for (layer, block) in spec.blocks.iter_mut().enumerate() {
        let dense = c.mlp_only_layers.contains(&layer) || c.num_experts == 0 || (layer + 1) % step != 0;
        if let (false, Ffn::Gated { act, .. }) = (dense, block.ffn) {
            block.ffn = Ffn::Experts {
                count: c.num_experts,
                top: c.num_experts_per_tok,
                renormalize: c.norm_topk_prob.unwrap_or(renormalize),
                inner: c.moe_intermediate_size,
                act,
                shared: c.shared_expert_intermediate_size,
            };
        }
    }
    Ok(())
}

fn part(role: Role) -> Option<&'static str> {
    match role {
        Role::Gate => Some("gate_proj"),
        Role::Up => Some("up_proj"),
        Role::Down => Some("down_proj"),
        _ => None,
    }
}
