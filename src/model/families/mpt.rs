//! MPT (MosaicML, 2023): ALiBi, layer norms without shift, no bias anywhere, QKV side by side, a tied head.
//!
//! Source: transformers `modeling_mpt.py`.
use super::{Family, read};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Mpt;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    d_model: usize,
    n_layers: usize,
    n_heads: usize,
    max_seq_len: usize,
    expansion_ratio: Option<usize>,
    layer_norm_epsilon: Option<f64>,
    logit_scale: Option<Value>,
    #[serde(default = "yes")]
    no_bias: bool,
    #[serde(default)]
    attn_config: Attention,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

#[derive(Deserialize)]
#[serde(default)]
struct Attention {
    alibi: bool,
    alibi_bias_max: f64,
    clip_qkv: Option<f64>,
    prefix_lm: bool,
    qk_ln: bool,
    softmax_scale: Option<f64>,
    attn_type: String,
}

impl Default for Attention {
    fn default() -> Self {
        Self {
            alibi: true,
            alibi_bias_max: 8.,
            clip_qkv: None,
            prefix_lm: false,
            qk_ln: false,
            softmax_scale: None,
            attn_type: "multihead_attention".into(),
        }
    }
}

fn yes() -> bool {
    true
}

impl Family for Mpt {
    fn name(&self) -> &'static str {
        "mpt"
    }
    fn about(&self) -> &'static str {
        "MPT: ALiBi, no biases, layer norms without shift, QKV side by side"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_mpt.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mpt"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        ensure!(
            c.n_heads > 0 && c.d_model.is_multiple_of(c.n_heads),
            "`n_heads` {} does not divide `d_model`",
            c.n_heads
        );
        let a = &c.attn_config;
        // What transformers' code does not compute either.
        ensure!(a.alibi, "`attn_config.alibi` is false: only MPT with ALiBi is there");
        ensure!(!a.prefix_lm, "`attn_config.prefix_lm` is true: only causal MPT is there");
        ensure!(!a.qk_ln, "`attn_config.qk_ln` is true: MPT with normalized queries is not there");
        ensure!(a.attn_type == "multihead_attention", "`attn_config.attn_type` is `{}`", a.attn_type);
        ensure!(c.no_bias, "`no_bias` is false: MPT with biases is not there");
        ensure!(c.logit_scale.is_none(), "`logit_scale` is set: MPT with scaled logits is not there");
        let eps = c.layer_norm_epsilon.unwrap_or(1e-5);
        let norm = NormSpec { shift: false, ..NormSpec::layer(eps) };
        let head_dim = c.d_model / c.n_heads;
        let block = BlockSpec {
            norm,
            residual: Residual::Pre,
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.n_heads,
                kv_heads: c.n_heads,
                head_dim,
                position: Position::Alibi { max: a.alibi_bias_max, term: AlibiTerm::Wide },
                window: None,
                scale: a.softmax_scale.unwrap_or(1. / (head_dim as f64).sqrt()),
                scaled: Scaled::Scores,
                softcap: None,
                clip: a.clip_qkv.filter(|&c| c != 0.),
                qk_norm: None,
                bias: AttentionBias { qkv: false, out: false },
            }),
            ffn: Ffn::Plain {
                inner: c.d_model.saturating_mul(c.expansion_ratio.unwrap_or(4)),
                act: Act::Gelu,
                bias: false,
            },
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.d_model,
            context: c.max_seq_len,
            embed: EmbedSpec::default(),
            blocks: blocks(c.n_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "wte.weight".into(),
            Param::FinalNorm(h) => format!("norm_f.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("blocks.{b}.norm_1.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("blocks.{b}.norm_2.{}", h.torch()),
            Param::Weight(s) => return linear(spec, s),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site) -> Option<Source> {
    let Some(b) = site.block else {
        return (site.role == Role::Head).then(|| Source::whole("lm_head.weight"));
    };
    let fused = |i: usize| {
        let d = spec.hidden;
        Some(Source::split(format!("blocks.{b}.attn.Wqkv.weight"), 1, 3 * d, i * d..(i + 1) * d))
    };
    let whole = |name: &str| Some(Source::whole(format!("blocks.{b}.{name}.weight")));
    match site.role {
        Role::Q => fused(0),
        Role::K => fused(1),
        Role::V => fused(2),
        Role::O => whole("attn.out_proj"),
        Role::Up => whole("ffn.up_proj"),
        Role::Down => whole("ffn.down_proj"),
        _ => None,
    }
}
