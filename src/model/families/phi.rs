//! Phi-1, 1.5 and 2 (Gunasekar et al., 2023): both branches from one layer norm, rotary positions on a part of each head,
//! biases everywhere, the head's too. Source: transformers `modeling_phi.py`.
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
pub struct Phi;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    #[serde(default = "gelu_new")]
    hidden_act: String,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    #[serde(default)]
    qk_layernorm: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

fn gelu_new() -> String {
    "gelu_new".into()
}

impl Family for Phi {
    fn name(&self) -> &'static str {
        "phi"
    }
    fn about(&self) -> &'static str {
        "Phi-1, 1.5 and 2: parallel branches from one norm, rotary positions on a part of each head, biases"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_phi.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["phi"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["model.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
        let norm = NormSpec::layer(c.layer_norm_eps);
        let head_dim = c.hidden_size / c.num_attention_heads;
        let block = BlockSpec {
            norm,
            residual: Residual::Parallel { shared: true },
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_attention_heads,
                kv_heads: c.num_key_value_heads.unwrap_or(c.num_attention_heads),
                head_dim,
                position: rope::position(config, head_dim, Unsaid { share: 0.5, ..Unsaid::USUAL })?,
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::Scores,
                softcap: None,
                clip: None,
                qk_norm: c.qk_layernorm.then_some(QkNorm { norm, over: Over::Head }),
                bias: AttentionBias { qkv: true, out: true },
            }),
            ffn: Ffn::Plain {
                inner: c.intermediate_size,
                act: Act::named(&c.hidden_act).context("`hidden_act`")?,
                bias: true,
            },
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            context: c.max_position_embeddings,
            embed: EmbedSpec::default(),
            blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec { tied: c.tie_word_embeddings, bias: true, softcap: None },
        })
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embed_tokens.weight".into(),
            Param::FinalNorm(h) => format!("final_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("layers.{b}.input_layernorm.{}", h.torch()),
            Param::QkNorm(b, Role::Q, None, h) => format!("layers.{b}.self_attn.q_layernorm.{}", h.torch()),
            Param::QkNorm(b, Role::K, None, h) => format!("layers.{b}.self_attn.k_layernorm.{}", h.torch()),
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
        Role::O => "self_attn.dense",
        Role::Up => "mlp.fc1",
        Role::Down => "mlp.fc2",
        Role::Head => return Some("lm_head".into()),
        _ => return None,
    };
    Some(format!("layers.{}.{name}", site.block?))
}
