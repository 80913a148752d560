//! StableLM (Bellagente et al., 2024): layer norms, rotary positions on a quarter of each head; the 12B normalizes each
//! head of queries and keys with a scale of its own, and runs both branches from one norm. Source: transformers
//! `modeling_stablelm.py`.
use super::{
    Family,
    llama::{self, Llama},
    read,
};
use crate::model::{rope::Unsaid, site::Role, spec::*};
use anyhow::Result;
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct StableLm;

impl Family for StableLm {
    fn name(&self) -> &'static str {
        "stablelm"
    }
    fn about(&self) -> &'static str {
        "StableLM: LLaMA with layer norms and rotary positions on a part of each head; 12B in parallel, with head norms"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_stablelm.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["stablelm", "stablelm_epoch"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        // `rope_pct` and `norm_eps` are the keys of the first files.
        let norm = NormSpec::layer(c.layer_norm_eps.or(c.norm_eps).unwrap_or(1e-5));
        let unsaid = Unsaid { share: c.rope_pct.unwrap_or(0.25), ..Unsaid::USUAL };
        let mut spec = llama::like(config, norm, unsaid)?;
        let norm = NormSpec { shift: false, ..norm };
        llama::attention(&mut spec, |_, a| {
            a.bias = AttentionBias { qkv: c.use_qkv_bias, out: false };
            a.qk_norm = c.qk_layernorm.then_some(QkNorm { norm, over: Over::EachHead });
        });
        if c.use_parallel_residual {
            spec.blocks.iter_mut().for_each(|b| b.residual = Residual::Parallel { shared: true });
        }
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        match param {
            Param::QkNorm(b, role, Some(head), h) => {
                let name = if role == Role::Q { "q_layernorm" } else { "k_layernorm" };
                Some(Source::whole(format!("layers.{b}.self_attn.{name}.norms.{head}.{}", h.torch())))
            }
            _ => Llama.source(spec, param),
        }
    }
}

#[derive(Deserialize)]
struct Config {
    layer_norm_eps: Option<f64>,
    norm_eps: Option<f64>,
    rope_pct: Option<f64>,
    #[serde(default)]
    use_qkv_bias: bool,
    #[serde(default)]
    qk_layernorm: bool,
    #[serde(default)]
    use_parallel_residual: bool,
}
