//! BLOOM and BLOOMZ (Scao et al., 2022). ALiBi, normalized embedding, QKV fused and interleaved per head.
//!
//! Source: transformers `modeling_bloom.py`.
use super::{Family, read, renamed};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Bloom;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    n_layer: usize,
    n_head: usize,
    layer_norm_epsilon: f64,
    #[serde(default)]
    apply_residual_connection_post_layernorm: bool,
    /// What it was trained on; positions have no end.
    seq_length: Option<usize>,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}

impl Family for Bloom {
    fn name(&self) -> &'static str {
        "bloom"
    }
    fn about(&self) -> &'static str {
        "BLOOM and BLOOMZ: ALiBi, a norm after the embedding, QKV fused and interleaved per head"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_bloom.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["bloom"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(&renamed(
            config,
            &[
                ("n_embed", "hidden_size"),
                ("num_hidden_layers", "n_layer"),
                ("num_attention_heads", "n_head"),
            ],
        ))?;
        ensure!(c.n_head > 0, "`n_head` is 0");
        let norm = NormSpec::layer(c.layer_norm_epsilon);
        let head_dim = c.hidden_size / c.n_head;
        let block = BlockSpec {
            norm,
            residual: match c.apply_residual_connection_post_layernorm {
                true => Residual::FromNorm,
                false => Residual::Pre,
            },
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.n_head,
                kv_heads: c.n_head,
                head_dim,
                position: Position::Alibi { max: 8., term: AlibiTerm::Rounded },
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::WithAlibi,
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: true, out: true },
            }),
            ffn: Ffn::Plain { inner: c.hidden_size.saturating_mul(4), act: Act::GeluBloom, bias: true },
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            context: c.seq_length.unwrap_or(2048),
            embed: EmbedSpec { norm: Some(norm), ..EmbedSpec::default() },
            blocks: blocks(c.n_layer, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "word_embeddings.weight".into(),
            Param::EmbedNorm(h) => format!("word_embeddings_layernorm.{}", h.torch()),
            Param::FinalNorm(h) => format!("ln_f.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("h.{b}.input_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("h.{b}.post_attention_layernorm.{}", h.torch()),
            Param::Weight(s) => return linear(spec, s, "weight"),
            Param::Bias(s) => return linear(spec, s, "bias"),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site, half: &str) -> Option<Source> {
    let Some(block) = site.block else {
        return (site.role == Role::Head).then(|| Source::whole(format!("lm_head.{half}")));
    };
    let a = spec.blocks.get(usize::from(block))?.mixer.attention()?;
    let fused = |i: usize| {
        let (name, d) = (format!("h.{block}.self_attention.query_key_value.{half}"), a.head_dim);
        Some(Source::split(name, a.heads, 3 * d, i * d..(i + 1) * d))
    };
    let whole = |name: &str| Some(Source::whole(format!("h.{block}.{name}.{half}")));
    match site.role {
        Role::Q => fused(0),
        Role::K => fused(1),
        Role::V => fused(2),
        Role::O => whole("self_attention.dense"),
        Role::Up => whole("mlp.dense_h_to_4h"),
        Role::Down => whole("mlp.dense_4h_to_h"),
        _ => None,
    }
}
