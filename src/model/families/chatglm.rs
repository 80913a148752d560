//! ChatGLM 2 and 3, and GLM-4 in its first form (Zeng et al., 2022; GLM Team, 2024). Rotary positions on the first half of
//! each head, each feature with its neighbour; fused QKV with few key heads, fused gate.
//!
//! Source: `modeling_chatglm.py` beside the checkpoints (transformers has none of its own). Its scaling of queries and keys
//! by the layer's number cancels out, so it is not here.
use super::{Family, phi3, read};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct ChatGlm;

#[derive(Deserialize)]
struct Config {
    padded_vocab_size: usize,
    hidden_size: usize,
    ffn_hidden_size: usize,
    num_layers: usize,
    num_attention_heads: usize,
    #[serde(default)]
    multi_query_attention: bool,
    multi_query_group_num: Option<usize>,
    kv_channels: Option<usize>,
    layernorm_epsilon: f64,
    #[serde(default = "yes")]
    rmsnorm: bool,
    #[serde(default)]
    add_qkv_bias: bool,
    #[serde(default)]
    add_bias_linear: bool,
    #[serde(default)]
    apply_residual_connection_post_layernorm: bool,
    #[serde(default = "yes")]
    post_layer_norm: bool,
    seq_length: usize,
    rope_ratio: Option<f64>,
    transformers_version: Option<String>,
    #[serde(default)]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}

impl Family for ChatGlm {
    fn name(&self) -> &'static str {
        "chatglm"
    }
    fn about(&self) -> &'static str {
        "ChatGLM 2 and 3, GLM-4: neighbouring rotary pairs on half of each head, fused QKV and gate"
    }
    fn reference(&self) -> &'static str {
        "its published formulas in numpy (f64), and transformers `modeling_glm.py` with the same weights, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["chatglm"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        ensure!(
            config.get("position_encoding_2d").is_none(),
            "this is the first ChatGLM-6B; only ChatGLM 2 and later are there"
        );
        let c: Config = read(config)?;
        // Heads side by side and heads one by one would have the same shape.
        ensure!(
            !c.multi_query_attention || c.multi_query_group_num != Some(c.num_attention_heads),
            "`multi_query_group_num` is the number of heads: no such model"
        );
        ensure!(c.num_attention_heads > 0, "`num_attention_heads` is 0");
        let norm =
            if c.rmsnorm { NormSpec::rms(c.layernorm_epsilon) } else { NormSpec::layer(c.layernorm_epsilon) };
        let head_dim = c.kv_channels.unwrap_or(c.hidden_size / c.num_attention_heads);
        let ratio = c.rope_ratio.unwrap_or(1.);
        // One key, two meanings: ChatGLM2-32k's code divides positions, what came after raises the base. Nothing in the
        // config says which code lies beside it but the version that wrote it, which ChatGLM2's files share.
        let (theta, scaling) = match c.transformers_version.as_deref() {
            Some("4.27.1") if ratio != 1. => (10_000., RopeScaling::Linear(ratio)),
            // Saved anew, ChatGLM2's and ChatGLM3's are alike; GLM-4 has another vocabulary.
            version if ratio != 1. && c.padded_vocab_size == 65_024 && version != Some("4.30.2") => bail!(
                "`rope_ratio` is {ratio}, which ChatGLM2 divides positions by and ChatGLM3 multiplies the base by; \
                 `transformers_version` tells them apart, where it is 4.27.1 (ChatGLM2) or 4.30.2 (ChatGLM3) as in \
                 the published files: set it to one of them"
            ),
            _ => (10_000. * ratio, RopeScaling::None),
        };
        let (dims, pairing) = (head_dim / 2, Pairing::Neighbours);
        let position = Position::Rope(RopeSpec { theta, dims, pairing, scaling, once: false });
        let block = BlockSpec {
            norm,
            residual: match c.apply_residual_connection_post_layernorm {
                true => Residual::FromNorm,
                false => Residual::Pre,
            },
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_attention_heads,
                kv_heads: match c.multi_query_attention {
                    true => c.multi_query_group_num.unwrap_or(1),
                    false => c.num_attention_heads,
                },
                head_dim,
                position,
                window: None,
                scale: 1. / (head_dim as f64).sqrt(),
                scaled: Scaled::Scores,
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: c.add_bias_linear || c.add_qkv_bias, out: c.add_bias_linear },
            }),
            ffn: Ffn::Gated { inner: c.ffn_hidden_size, act: Act::Silu, bias: c.add_bias_linear },
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.padded_vocab_size,
            hidden: c.hidden_size,
            context: c.seq_length,
            embed: EmbedSpec::default(),
            blocks: blocks(c.num_layers, |_| block.clone())?,
            norm: c.post_layer_norm.then_some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "embedding.word_embeddings.weight".into(),
            Param::FinalNorm(h) => format!("encoder.final_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("encoder.layers.{b}.input_layernorm.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => {
                format!("encoder.layers.{b}.post_attention_layernorm.{}", h.torch())
            }
            Param::Weight(s) => return linear(spec, s, "weight"),
            Param::Bias(s) => return linear(spec, s, "bias"),
            _ => return None,
        }))
    }
}

fn linear(spec: &DecoderSpec, site: Site, half: &str) -> Option<Source> {
    let Some(b) = site.block else {
        return (site.role == Role::Head).then(|| Source::whole(format!("output_layer.{half}")));
    };
    let name = |part: &str| format!("encoder.layers.{b}.{part}.{half}");
    let a = spec.blocks.get(usize::from(b))?.mixer.attention()?;
    let (q, kv) = (a.q_width(), a.kv_width());
    // Without groups of keys, `num_heads` times query, key, value of one head.
    let per_head = |i: usize| {
        let d = a.head_dim;
        Source::split(name("self_attention.query_key_value"), a.heads, 3 * d, i * d..(i + 1) * d)
    };
    let rows = |rows| Source::split(name("self_attention.query_key_value"), 1, q + 2 * kv, rows);
    Some(match (site.role, a.heads == a.kv_heads) {
        (Role::Q, true) => per_head(0),
        (Role::K, true) => per_head(1),
        (Role::V, true) => per_head(2),
        (Role::Q, false) => rows(0..q),
        (Role::K, false) => rows(q..q + kv),
        (Role::V, false) => rows(q + kv..q + 2 * kv),
        (Role::O, _) => Source::whole(name("self_attention.dense")),
        (Role::Gate | Role::Up, _) => {
            return phi3::fused_gate(spec, b, site.role, name("mlp.dense_h_to_4h"));
        }
        (Role::Down, _) => Source::whole(name("mlp.dense_4h_to_h")),
        _ => return None,
    })
}
