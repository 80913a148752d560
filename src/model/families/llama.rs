//! LLaMA (Touvron et al., 2023), and what only renames it: Vicuna, LongChat, TinyLlama, SmolLM, LLaMA 3.
//!
//! Pre-norm with RMS norms, rotary positions, gated feed-forward. Source: transformers `modeling_llama.py`. Many families
//! are [`like`] it but for a few things, and say only those.
use super::{Family, read};
use crate::model::{
    rope::{self, Unsaid},
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Llama;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: Option<usize>,
    /// LLaMA's first files.
    max_sequence_length: Option<usize>,
    tie_word_embeddings: Option<bool>,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    hidden_act: Option<String>,
}

/// LLaMA's norm, with the config's `rms_norm_eps`.
pub(super) fn rms(config: &Value) -> Result<NormSpec> {
    #[derive(Deserialize)]
    struct Config {
        rms_norm_eps: f64,
    }
    Ok(NormSpec::rms(read::<Config>(config)?.rms_norm_eps))
}

/// The spec that LLaMA's code would make of a config with LLaMA's keys, for families that change a few things of it.
pub(super) fn like(config: &Value, norm: NormSpec, unsaid: Unsaid) -> Result<DecoderSpec> {
    let c: Config = read(config)?;
    ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
    let head_dim = c.head_dim.unwrap_or(c.hidden_size / c.num_attention_heads);
    let bias = c.attention_bias.unwrap_or(false);
    let block = BlockSpec {
        norm,
        residual: Residual::Pre,
        mixer: Mixer::Attention(AttentionSpec {
            heads: c.num_attention_heads,
            kv_heads: c.num_key_value_heads.unwrap_or(c.num_attention_heads),
            head_dim,
            position: rope::position(config, head_dim, unsaid)?,
            window: None,
            scale: 1. / (head_dim as f64).sqrt(),
            scaled: Scaled::Scores,
            softcap: None,
            clip: None,
            qk_norm: None,
            bias: AttentionBias { qkv: bias, out: bias },
        }),
        ffn: Ffn::Gated {
            inner: c.intermediate_size,
            act: Act::named(c.hidden_act.as_deref().unwrap_or("silu")).context("`hidden_act`")?,
            bias: c.mlp_bias.unwrap_or(false),
        },
    };
    Ok(DecoderSpec {
        family: "",
        fused_qkv: false,
        vocab: c.vocab_size,
        hidden: c.hidden_size,
        context: (c.max_position_embeddings.or(c.max_sequence_length))
            .context("missing field `max_position_embeddings`")?,
        embed: EmbedSpec::default(),
        blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
        norm: Some(norm),
        head: HeadSpec::plain(c.tie_word_embeddings.unwrap_or(false)),
    })
}

/// Changes the attention of each layer.
pub(super) fn attention(spec: &mut DecoderSpec, mut change: impl FnMut(usize, &mut AttentionSpec)) {
    for (layer, block) in spec.blocks.iter_mut().enumerate() {
        if let Some(a) = block.mixer.attention_mut() {
            change(layer, a);
        }
    }
}

/// Gives every norm of the stream another kind of scale.
pub(super) fn gain(spec: &mut DecoderSpec, gain: Gain) {
    let norms = spec.blocks.iter_mut().map(|b| &mut b.norm).chain(spec.norm.as_mut());
    norms.for_each(|n| n.gain = gain);
}

impl Family for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }
    fn about(&self) -> &'static str {
        "LLaMA 1 to 3, Vicuna, LongChat, TinyLlama, SmolLM: RMS norms, rotary positions, gated feed-forward"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_llama.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["llama"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["model.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        like(config, rms(config)?, Unsaid::USUAL)
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embed_tokens.weight".into(),
            Param::FinalNorm(h) => format!("norm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("layers.{b}.input_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("layers.{b}.post_attention_layernorm.{}", h.torch()),
            Param::QkNorm(b, Role::Q, None, h) => format!("layers.{b}.self_attn.q_norm.{}", h.torch()),
            Param::QkNorm(b, Role::K, None, h) => format!("layers.{b}.self_attn.k_norm.{}", h.torch()),
            Param::Weight(s) => format!("{}.weight", linear(s)?),
            Param::Bias(s) => format!("{}.bias", linear(s)?),
            _ => return None,
        }))
    }
}

fn linear(site: Site) -> Option<String> {
    let name = match (site.expert, site.role) {
        (None, Role::Q) => "self_attn.q_proj",
        (None, Role::K) => "self_attn.k_proj",
        (None, Role::V) => "self_attn.v_proj",
        (None, Role::O) => "self_attn.o_proj",
        (None, Role::Gate) => "mlp.gate_proj",
        (None, Role::Up) => "mlp.up_proj",
        (None, Role::Down) => "mlp.down_proj",
        (None, Role::Head) => return Some("lm_head".into()),
        _ => return None,
    };
    Some(format!("layers.{}.{name}", site.block?))
}
