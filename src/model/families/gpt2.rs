//! GPT-2 (Radford et al., 2019). Learned positions, and linears kept as `[in, out]` (Conv1D) with QKV side by side.
//!
//! Source: transformers `modeling_gpt2.py`.
use super::{Family, read, renamed};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Gpt2;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    n_embd: usize,
    n_layer: usize,
    n_head: usize,
    n_positions: usize,
    n_inner: Option<usize>,
    #[serde(default = "gelu_new")]
    activation_function: String,
    layer_norm_epsilon: f64,
    #[serde(default = "yes")]
    scale_attn_weights: bool,
    #[serde(default)]
    scale_attn_by_inverse_layer_idx: bool,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}
fn gelu_new() -> String {
    "gelu_new".into()
}

impl Family for Gpt2 {
    fn name(&self) -> &'static str {
        "gpt2"
    }
    fn about(&self) -> &'static str {
        "GPT-2: learned positions, layer norms, linears stored transposed with QKV side by side"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gpt2.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gpt2"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(&renamed(config, &[("n_ctx", "n_positions")]))?;
        ensure!(
            c.n_head > 0 && c.n_embd.is_multiple_of(c.n_head),
            "`n_head` {} does not divide `n_embd`",
            c.n_head
        );
        let norm = NormSpec::layer(c.layer_norm_epsilon);
        let head_dim = c.n_embd / c.n_head;
        let act = Act::named(&c.activation_function).context("`activation_function`")?;
        let block = |layer: usize| {
            let scale = if c.scale_attn_weights { 1. / (head_dim as f64).sqrt() } else { 1. };
            let by_layer = if c.scale_attn_by_inverse_layer_idx { 1. / (layer + 1) as f64 } else { 1. };
            BlockSpec {
                norm,
                residual: Residual::Pre,
                mixer: Mixer::Attention(AttentionSpec {
                    heads: c.n_head,
                    kv_heads: c.n_head,
                    head_dim,
                    position: Position::None,
                    window: None,
                    scale: scale * by_layer,
                    scaled: Scaled::Scores,
                    softcap: None,
                    clip: None,
                    qk_norm: None,
                    bias: AttentionBias { qkv: true, out: true },
                }),
                ffn: Ffn::Plain { inner: c.n_inner.unwrap_or(c.n_embd.saturating_mul(4)), act, bias: true },
            }
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.n_embd,
            context: c.n_positions,
            embed: EmbedSpec {
                positions: Some(LearnedPositions { first: 0, rows: c.n_positions }),
                ..EmbedSpec::default()
            },
            blocks: blocks(c.n_layer, block)?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "wte.weight".into(),
            Param::Positions => "wpe.weight".into(),
            Param::FinalNorm(h) => format!("ln_f.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("h.{b}.ln_1.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("h.{b}.ln_2.{}", h.torch()),
            Param::Weight(Site { role: Role::Head, .. }) => "lm_head.weight".into(),
            Param::Weight(s) => return linear(spec, s, "weight").map(Source::transposed),
            Param::Bias(s) => return linear(spec, s, "bias"),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site, half: &str) -> Option<Source> {
    let block = site.block?;
    let fused = |i: usize| {
        let d = spec.hidden;
        Some(Source::split(format!("h.{block}.attn.c_attn.{half}"), 1, 3 * d, i * d..(i + 1) * d))
    };
    let whole = |name: &str| Some(Source::whole(format!("h.{block}.{name}.{half}")));
    match site.role {
        Role::Q => fused(0),
        Role::K => fused(1),
        Role::V => fused(2),
        Role::O => whole("attn.c_proj"),
        Role::Up => whole("mlp.c_fc"),
        Role::Down => whole("mlp.c_proj"),
        _ => None,
    }
}
