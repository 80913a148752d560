//! Mamba 2 (Dao and Gu, 2024): Mamba's channels in heads that share a time step, and a gated norm. Source: transformers
//! `modeling_mamba2.py`.
use super::{
    Family,
    mamba::{CONTEXT, Mamba, padded, pure},
    read, renamed,
};
use crate::model::spec::*;
use anyhow::{Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Mamba2;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_heads: Option<usize>,
    head_dim: Option<usize>,
    n_groups: Option<usize>,
    state_size: Option<usize>,
    conv_kernel: Option<usize>,
    expand: Option<usize>,
    use_bias: Option<bool>,
    use_conv_bias: Option<bool>,
    layer_norm_epsilon: Option<f64>,
    residual_in_fp32: Option<bool>,
    time_step_limit: Option<(Limit, Limit)>,
    pad_vocab_size_multiple: Option<usize>,
    ssm_cfg: Option<Original>,
    tie_word_embeddings: Option<bool>,
    tie_embeddings: Option<bool>,
}

/// The authors' own keys.
#[derive(Deserialize, Default)]
struct Original {
    d_state: Option<usize>,
    d_conv: Option<usize>,
    expand: Option<usize>,
    headdim: Option<usize>,
    ngroups: Option<usize>,
    bias: Option<bool>,
    conv_bias: Option<bool>,
}

/// Python writes `Infinity`, which reaches this as a text; others write nothing.
#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Limit {
    Said(f64),
    Word(String),
    Nothing(()),
}

impl Limit {
    fn or(&self, unsaid: f64) -> Result<f64> {
        match self {
            Limit::Said(x) => Ok(*x),
            Limit::Nothing(()) => Ok(unsaid),
            Limit::Word(word) => match word.as_str() {
                "Infinity" | "inf" => Ok(f64::INFINITY),
                _ => bail!("`time_step_limit` holds `{word}`: it is two numbers"),
            },
        }
    }
}

impl Family for Mamba2 {
    fn name(&self) -> &'static str {
        "mamba2"
    }
    fn about(&self) -> &'static str {
        "Mamba 2: channels in heads that share a time step, a gated norm; no KV cache"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_mamba2.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mamba2"]
    }
    fn claims(&self, config: &Value) -> bool {
        config["ssm_cfg"].get("layer").and_then(Value::as_str) == Some("Mamba2")
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Mamba.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        pure(config)?;
        let c: Config =
            read(&renamed(config, &[("d_model", "hidden_size"), ("n_layer", "num_hidden_layers")]))?;
        let original = c.ssm_cfg.is_some();
        let o = c.ssm_cfg.unwrap_or_default();
        let inner = c.hidden_size.saturating_mul(c.expand.or(o.expand).unwrap_or(2));
        let head_dim = c.head_dim.or(o.headdim).unwrap_or(64);
        ensure!(head_dim > 0, "`head_dim` is 0");
        let heads = c.num_heads.unwrap_or(inner / head_dim);
        ensure!(
            heads.checked_mul(head_dim) == Some(inner),
            "{heads} heads of {head_dim} are not {inner} channels (`hidden_size` x `expand`)"
        );
        let dt = match &c.time_step_limit {
            Some((low, high)) => (low.or(0.)?, high.or(f64::INFINITY)?),
            None => (0., f64::INFINITY),
        };
        ensure!(dt.0 <= dt.1, "`time_step_limit` is {} to {}", dt.0, dt.1);
        let eps = c.layer_norm_epsilon.unwrap_or(1e-5);
        let norm = NormSpec::rms(eps);
        let block = BlockSpec {
            norm,
            residual: if c.residual_in_fp32.unwrap_or(true) { Residual::PreWide } else { Residual::Pre },
            mixer: Mixer::Ssm(SsmSpec {
                inner,
                state: c.state_size.or(o.d_state).unwrap_or(128),
                conv: c.conv_kernel.or(o.d_conv).unwrap_or(4),
                conv_bias: c.use_conv_bias.or(o.conv_bias).unwrap_or(true),
                bias: c.use_bias.or(o.bias).unwrap_or(false),
                kind: SsmKind::Mamba2 { heads, groups: c.n_groups.or(o.ngroups).unwrap_or(1), eps, dt },
            }),
            ffn: Ffn::None,
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: padded(c.vocab_size, c.pad_vocab_size_multiple.filter(|_| original)),
            hidden: c.hidden_size,
            context: CONTEXT,
            embed: EmbedSpec::default(),
            blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings.or(c.tie_embeddings).unwrap_or(original)),
        })
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Mamba.source(spec, param)
    }
}
