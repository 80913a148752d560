//! GPT-NeoX and Pythia (Black et al., 2022; Biderman et al., 2023): a layer norm for each of two parallel branches, rotary
//! positions on a quarter of each head, QKV fused and interleaved per head. Source: transformers `modeling_gpt_neox.py`.
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
pub struct GptNeoX;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    #[serde(default = "gelu")]
    hidden_act: String,
    max_position_embeddings: usize,
    layer_norm_eps: f64,
    rotary_pct: Option<f64>,
    rotary_emb_base: Option<f64>,
    #[serde(default = "yes")]
    use_parallel_residual: bool,
    #[serde(default = "yes")]
    attention_bias: bool,
    #[serde(default)]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}
fn gelu() -> String {
    "gelu".into()
}

impl Family for GptNeoX {
    fn name(&self) -> &'static str {
        "gpt_neox"
    }
    fn about(&self) -> &'static str {
        "GPT-NeoX and Pythia: parallel branches with a norm each, rotary positions on a part of each head"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gpt_neox.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gpt_neox"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["gpt_neox.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
        let norm = NormSpec::layer(c.layer_norm_eps);
        let head_dim = c.hidden_size / c.num_attention_heads;
        let unsaid = Unsaid {
            theta: c.rotary_emb_base.unwrap_or(10_000.),
            share: c.rotary_pct.unwrap_or(0.25),
            ..Unsaid::USUAL
        };
        let block = BlockSpec {
            norm,
            residual: match c.use_parallel_residual {
                true => Residual::Parallel { shared: false },
                false => Residual::Pre,
            },
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim,
                position: rope::position(config, head_dim, unsaid)?,
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::Scores,
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: c.attention_bias, out: c.attention_bias },
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
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embed_in.weight".into(),
            Param::FinalNorm(h) => format!("final_layer_norm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("layers.{b}.input_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("layers.{b}.post_attention_layernorm.{}", h.torch()),
            Param::Weight(s) => return linear(spec, s, "weight"),
            Param::Bias(s) => return linear(spec, s, "bias"),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site, half: &str) -> Option<Source> {
    let Some(b) = site.block else {
        return (site.role == Role::Head).then(|| Source::whole(format!("embed_out.{half}")));
    };
    let a = spec.blocks.get(usize::from(b))?.mixer.attention()?;
    let fused = |i: usize| {
        let (name, d) = (format!("layers.{b}.attention.query_key_value.{half}"), a.head_dim);
        Some(Source::split(name, a.heads, 3 * d, i * d..(i + 1) * d))
    };
    let whole = |name: &str| Some(Source::whole(format!("layers.{b}.{name}.{half}")));
    match site.role {
        Role::Q => fused(0),
        Role::K => fused(1),
        Role::V => fused(2),
        Role::O => whole("attention.dense"),
        Role::Up => whole("mlp.dense_h_to_4h"),
        Role::Down => whole("mlp.dense_4h_to_h"),
        _ => None,
    }
}
