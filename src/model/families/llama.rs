//! LLaMA (Touvron et al., 2023), and what only renames it: Vicuna, LongChat, TinyLlama, SmolLM.
//!
//! Pre-norm with RMS norms, rotary positions, gated feed-forward. Source: transformers `modeling_llama.py`.
use super::{Family, read};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Llama;

#[derive(Deserialize)]
pub(super) struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    max_position_embeddings: usize,
    rms_norm_eps: f64,
    rope_theta: Option<f64>,
    rope_scaling: Option<Rope>,
    /// Since transformers 5, in place of the two keys above.
    rope_parameters: Option<Rope>,
    /// LongChat's own key, from before `rope_scaling`.
    rope_condense_ratio: Option<f64>,
    pub(super) sliding_window: Option<usize>,
    #[serde(default)]
    tie_word_embeddings: bool,
    attention_bias: Option<bool>,
    mlp_bias: Option<bool>,
    #[serde(default = "silu")]
    hidden_act: String,
}

#[derive(Deserialize)]
struct Rope {
    #[serde(alias = "type")]
    rope_type: Option<String>,
    factor: Option<f64>,
    rope_theta: Option<f64>,
}

fn silu() -> String {
    "silu".into()
}

impl Config {
    fn position(&self) -> Result<Position> {
        let old = self.rope_scaling.as_ref();
        let rope = self.rope_parameters.as_ref().or(old);
        let theta = rope.and_then(|r| r.rope_theta).or(self.rope_theta).unwrap_or(10_000.);
        let divide = match rope.and_then(|r| r.rope_type.as_deref()) {
            Some("linear") => {
                rope.and_then(|r| r.factor).context("`rope_scaling` is linear, but has no `factor`")?
            }
            None | Some("default") => self.rope_condense_ratio.unwrap_or(1.),
            Some(other) => bail!("`rope_scaling` of type `{other}`; there are: default, linear"),
        };
        Ok(Position::Rope { theta, divide })
    }

    pub(super) fn spec(&self) -> Result<DecoderSpec> {
        ensure!(self.num_attention_heads > 0, "`num_attention_heads` is 0");
        let norm = NormSpec { kind: NormKind::Rms, eps: self.rms_norm_eps, scale: true, shift: false };
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads);
        let bias = self.attention_bias.unwrap_or(false);
        let block = BlockSpec {
            norm,
            residual: Residual::Pre,
            attention: AttentionSpec {
                heads: self.num_attention_heads,
                kv_heads: self.num_key_value_heads.unwrap_or(self.num_attention_heads),
                head_dim,
                position: self.position()?,
                window: self.sliding_window,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::Scores,
                bias: AttentionBias { qkv: bias, out: bias },
            },
            ffn: Ffn::Gated {
                inner: self.intermediate_size,
                act: Act::named(&self.hidden_act).context("`hidden_act`")?,
                bias: self.mlp_bias.unwrap_or(false),
            },
        };
        Ok(DecoderSpec {
            vocab: self.vocab_size,
            hidden: self.hidden_size,
            context: self.max_position_embeddings,
            embed: EmbedSpec::default(),
            blocks: blocks(self.num_hidden_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec { tied: self.tie_word_embeddings, bias: false },
        })
    }
}

impl Family for Llama {
    fn name(&self) -> &'static str {
        "llama"
    }
    fn about(&self) -> &'static str {
        "LLaMA 1 and 2, Vicuna, LongChat, TinyLlama, SmolLM: RMS norms, rotary positions, gated feed-forward"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["llama"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["model.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut config: Config = read(config)?;
        // Only Mistral reads it.
        config.sliding_window = None;
        config.spec()
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embed_tokens.weight".into(),
            Param::FinalNorm(h) => format!("norm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("layers.{b}.input_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("layers.{b}.post_attention_layernorm.{}", h.torch()),
            Param::Weight(s) => format!("{}.weight", linear(s)?),
            Param::Bias(s) => format!("{}.bias", linear(s)?),
            _ => return None,
        }))
    }
}

fn linear(site: Site) -> Option<String> {
    let name = match site.role {
        Role::Q => "self_attn.q_proj",
        Role::K => "self_attn.k_proj",
        Role::V => "self_attn.v_proj",
        Role::O => "self_attn.o_proj",
        Role::Gate => "mlp.gate_proj",
        Role::Up => "mlp.up_proj",
        Role::Down => "mlp.down_proj",
        Role::Head => return Some("lm_head".into()),
        _ => return None,
    };
    Some(format!("layers.{}.{name}", site.block?))
}
