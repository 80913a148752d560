//! Falcon (Almazrouei et al., 2023), which is three architectures: 7B (one key head, both branches from one norm), 40B and
//! 180B (groups of key heads, a norm a branch), RW (ALiBi, one branch after the other). QKV is fused.
//!
//! Source: transformers `modeling_falcon.py`. `RefinedWebModel` and `RefinedWeb` are what the first files call 7B and 40B.
use super::{Family, read, renamed};
use crate::model::{
    rope::{self, Unsaid},
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Falcon;

#[derive(Deserialize)]
struct Config {
    model_type: String,
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_kv_heads: Option<usize>,
    ffn_hidden_size: Option<usize>,
    #[serde(default = "gelu")]
    activation: String,
    layer_norm_epsilon: f64,
    #[serde(default)]
    alibi: bool,
    #[serde(default)]
    bias: bool,
    multi_query: Option<bool>,
    parallel_attn: Option<bool>,
    new_decoder_architecture: Option<bool>,
    num_ln_in_parallel_attn: Option<usize>,
    max_position_embeddings: Option<usize>,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}
fn gelu() -> String {
    "gelu".into()
}

impl Family for Falcon {
    fn name(&self) -> &'static str {
        "falcon"
    }
    fn about(&self) -> &'static str {
        "Falcon: 7B (one key head, parallel), 11B, 40B, 180B (key groups, parallel), RW (ALiBi, sequential)"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_falcon.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["falcon", "RefinedWebModel", "RefinedWeb"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(&renamed(
            config,
            &[
                ("n_embed", "hidden_size"),
                ("n_layer", "num_hidden_layers"),
                ("n_head", "num_attention_heads"),
                ("n_head_kv", "num_kv_heads"),
            ],
        ))?;
        ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
        let new =
            c.new_decoder_architecture.unwrap_or(c.model_type == "RefinedWeb" && c.num_kv_heads.is_some());
        let kv_heads = match (new, c.multi_query.unwrap_or(true)) {
            (true, _) => c.num_kv_heads.unwrap_or(c.num_attention_heads),
            (false, true) => 1,
            (false, false) => c.num_attention_heads,
        };
        // The new architecture is parallel, whatever `parallel_attn` says.
        let residual = match (new, c.parallel_attn.unwrap_or(true), c.num_ln_in_parallel_attn) {
            (true, _, None | Some(2)) => Residual::Parallel { shared: false },
            (false, true, Some(2)) => {
                bail!("`num_ln_in_parallel_attn` is 2 without `new_decoder_architecture`: no such model")
            }
            (true, _, _) | (false, true, _) => Residual::Parallel { shared: true },
            (false, false, _) => Residual::Pre,
        };
        let norm = NormSpec::layer(c.layer_norm_epsilon);
        let head_dim = c.hidden_size / c.num_attention_heads;
        let block = BlockSpec {
            norm,
            residual,
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_attention_heads,
                kv_heads,
                head_dim,
                position: match c.alibi {
                    true => Position::Alibi { max: 8., term: AlibiTerm::Bf16 },
                    false => rope::position(config, head_dim, Unsaid::USUAL)?,
                },
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: if c.alibi { Scaled::Sum } else { Scaled::Scores },
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: c.bias, out: c.bias },
            }),
            ffn: Ffn::Plain {
                inner: c.ffn_hidden_size.unwrap_or(c.hidden_size.saturating_mul(4)),
                act: Act::named(&c.activation).context("`activation`")?,
                bias: c.bias,
            },
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            context: c.max_position_embeddings.unwrap_or(2048),
            embed: EmbedSpec::default(),
            blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let two = spec.blocks.first()?.residual == Residual::Parallel { shared: false };
        Some(Source::whole(match param {
            Param::Embed => "word_embeddings.weight".into(),
            Param::FinalNorm(h) => format!("ln_f.{}", h.torch()),
            Param::Norm(b, slot, h) => {
                let name = match (slot, two) {
                    (Slot::Mixer, true) => "ln_attn",
                    (Slot::Ffn, true) => "ln_mlp",
                    (Slot::Mixer, false) => "input_layernorm",
                    (Slot::Ffn, false) => "post_attention_layernorm",
                    _ => return None,
                };
                format!("h.{b}.{name}.{}", h.torch())
            }
            Param::Weight(s) => return linear(spec, s, "weight"),
            Param::Bias(s) => return linear(spec, s, "bias"),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site, half: &str) -> Option<Source> {
    let Some(b) = site.block else {
        return (site.role == Role::Head).then(|| Source::whole(format!("lm_head.{half}")));
    };
    let a = spec.blocks.get(usize::from(b))?.mixer.attention()?;
    // Each key head with its queries: [q .. q, k, v]. One key head makes that all queries, then k, then v.
    let (d, each) = (a.head_dim, a.heads / a.kv_heads);
    let fused = |heads: std::ops::Range<usize>| {
        let name = format!("h.{b}.self_attention.query_key_value.{half}");
        Some(Source::split(name, a.kv_heads, (each + 2) * d, heads.start * d..heads.end * d))
    };
    let whole = |name: &str| Some(Source::whole(format!("h.{b}.{name}.{half}")));
    match site.role {
        Role::Q => fused(0..each),
        Role::K => fused(each..each + 1),
        Role::V => fused(each + 1..each + 2),
        Role::O => whole("self_attention.dense"),
        Role::Up => whole("mlp.dense_h_to_4h"),
        Role::Down => whole("mlp.dense_4h_to_h"),
        _ => None,
    }
}
