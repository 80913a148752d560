//! OPT (Zhang et al., 2022). Learned positions from row 2, ReLU, biases everywhere; 350m alone is post-norm and embeds
//! into a narrower space. Source: transformers `modeling_opt.py`.
use super::{Family, read};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Opt;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    word_embed_proj_dim: Option<usize>,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    ffn_dim: usize,
    max_position_embeddings: usize,
    #[serde(default = "yes")]
    do_layer_norm_before: bool,
    #[serde(default, rename = "_remove_final_layer_norm")]
    remove_final_layer_norm: bool,
    #[serde(default = "yes")]
    layer_norm_elementwise_affine: bool,
    #[serde(default = "yes")]
    enable_bias: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
    #[serde(default = "relu")]
    activation_function: String,
}

fn yes() -> bool {
    true
}
fn relu() -> String {
    "relu".into()
}

impl Family for Opt {
    fn name(&self) -> &'static str {
        "opt"
    }
    fn about(&self) -> &'static str {
        "OPT and Galactica: learned positions from row 2, layer norms; 350m is post-norm with projections"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_opt.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["opt"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["model.decoder.", "decoder.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
        let affine = c.layer_norm_elementwise_affine;
        let gain = if affine { Gain::Scale } else { Gain::None };
        let norm = NormSpec { kind: NormKind::Layer, eps: 1e-5, gain, shift: affine };
        let head_dim = c.hidden_size / c.num_attention_heads;
        let block = BlockSpec {
            norm,
            residual: if c.do_layer_norm_before { Residual::Pre } else { Residual::Post },
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_attention_heads,
                kv_heads: c.num_attention_heads,
                head_dim,
                position: Position::None,
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::Queries,
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: c.enable_bias, out: c.enable_bias },
            }),
            ffn: Ffn::Plain {
                inner: c.ffn_dim,
                act: Act::named(&c.activation_function).context("`activation_function`")?,
                bias: c.enable_bias,
            },
        };
        let first = 2;
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            context: c.max_position_embeddings,
            embed: EmbedSpec {
                positions: Some(LearnedPositions {
                    first,
                    rows: c.max_position_embeddings.saturating_add(first),
                }),
                norm: None,
                project: c.word_embed_proj_dim.filter(|&d| d != c.hidden_size),
                scale: None,
            },
            blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
            norm: (c.do_layer_norm_before && !c.remove_final_layer_norm).then_some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embed_tokens.weight".into(),
            Param::Positions => "embed_positions.weight".into(),
            Param::FinalNorm(h) => format!("final_layer_norm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("layers.{b}.self_attn_layer_norm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("layers.{b}.final_layer_norm.{}", h.torch()),
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
        Role::O => "self_attn.out_proj",
        Role::Up => "fc1",
        Role::Down => "fc2",
        Role::ProjectIn => return Some("project_in".into()),
        Role::ProjectOut => return Some("project_out".into()),
        Role::Head => return Some("lm_head".into()),
        _ => return None,
    };
    Some(format!("layers.{}.{name}", site.block?))
}
