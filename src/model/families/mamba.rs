//! Mamba (Gu and Dao, 2023): no attention, a selective state space. As transformers keeps it (`-hf`) and as its authors'
//! files do, which say neither `model_type` nor tokenizer. Source: transformers `modeling_mamba.py`.
use super::{Family, read, renamed};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Result, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct Mamba;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    state_size: Option<usize>,
    conv_kernel: Option<usize>,
    expand: Option<usize>,
    time_step_rank: Option<Rank>,
    use_bias: Option<bool>,
    use_conv_bias: Option<bool>,
    layer_norm_epsilon: Option<f64>,
    residual_in_fp32: Option<bool>,
    pad_vocab_size_multiple: Option<usize>,
    ssm_cfg: Option<Original>,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

/// The authors' own keys.
#[derive(Deserialize, Default)]
struct Original {
    d_state: Option<usize>,
    d_conv: Option<usize>,
    expand: Option<usize>,
    dt_rank: Option<Rank>,
    bias: Option<bool>,
    conv_bias: Option<bool>,
}

#[derive(Deserialize, Clone)]
#[serde(untagged)]
enum Rank {
    Said(usize),
    /// `auto`.
    Auto(String),
}

fn yes() -> bool {
    true
}

/// How long a text may be where nothing says so: what lm-evaluation-harness assumes.
pub(super) const CONTEXT: usize = 2048;

/// Refuses what the authors' files can say and nothing here computes.
pub(super) fn pure(config: &Value) -> Result<()> {
    let said = |key: &str| config.get(key).cloned().unwrap_or_default();
    ensure!(
        said("d_intermediate").as_u64().unwrap_or(0) == 0,
        "`d_intermediate`: blocks with a feed-forward"
    );
    ensure!(
        said("attn_layer_idx").as_array().is_none_or(Vec::is_empty),
        "`attn_layer_idx`: a Mamba that has attention in some layers is not there"
    );
    ensure!(
        said("rms_norm") != Value::Bool(false),
        "`rms_norm` is false: only Mamba with RMS norms is there"
    );
    let act = said("hidden_act");
    ensure!(act.is_null() || act == "silu", "`hidden_act` is {act}: only Mamba with silu is there");
    Ok(())
}

/// Rows of an embedding that is padded to a multiple.
pub(super) fn padded(vocab: usize, multiple: Option<usize>) -> usize {
    match multiple {
        Some(m) if m > 0 => vocab.checked_next_multiple_of(m).unwrap_or(vocab),
        _ => vocab,
    }
}

impl Family for Mamba {
    fn name(&self) -> &'static str {
        "mamba"
    }
    fn about(&self) -> &'static str {
        "Mamba: a selective state space in place of attention; no KV cache"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_mamba.py`, candle-transformers"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mamba"]
    }
    fn claims(&self, config: &Value) -> bool {
        let layer = config["ssm_cfg"].get("layer").and_then(Value::as_str);
        config.get("ssm_cfg").is_some() && matches!(layer, None | Some("Mamba1"))
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["backbone.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        pure(config)?;
        let c: Config =
            read(&renamed(config, &[("d_model", "hidden_size"), ("n_layer", "num_hidden_layers")]))?;
        let o = c.ssm_cfg.unwrap_or_default();
        let expand = c.expand.or(o.expand).unwrap_or(2);
        let rank = match c.time_step_rank.or(o.dt_rank) {
            Some(Rank::Said(rank)) => rank,
            Some(Rank::Auto(word)) => {
                ensure!(word == "auto", "`time_step_rank` is `{word}`: it is a number, or `auto`");
                c.hidden_size.div_ceil(16)
            }
            None => c.hidden_size.div_ceil(16),
        };
        let norm = NormSpec::rms(c.layer_norm_epsilon.unwrap_or(1e-5));
        let block = BlockSpec {
            norm,
            residual: if c.residual_in_fp32.unwrap_or(true) { Residual::PreWide } else { Residual::Pre },
            mixer: Mixer::Ssm(SsmSpec {
                inner: c.hidden_size.saturating_mul(expand),
                state: c.state_size.or(o.d_state).unwrap_or(16),
                conv: c.conv_kernel.or(o.d_conv).unwrap_or(4),
                conv_bias: c.use_conv_bias.or(o.conv_bias).unwrap_or(true),
                bias: c.use_bias.or(o.bias).unwrap_or(false),
                kind: SsmKind::Mamba { rank },
            }),
            ffn: Ffn::None,
        };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: padded(c.vocab_size, c.pad_vocab_size_multiple),
            hidden: c.hidden_size,
            context: CONTEXT,
            embed: EmbedSpec::default(),
            blocks: blocks(c.num_hidden_layers, |_| block.clone())?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(match param {
            Param::Embed => Source::whole("embeddings.weight").or("embedding.weight"),
            Param::FinalNorm(h) => Source::whole(format!("norm_f.{}", h.torch())),
            Param::Norm(b, Slot::Mixer, h) => Source::whole(format!("layers.{b}.norm.{}", h.torch())),
            Param::Weight(s) => Source::whole(linear(s, "weight")?),
            Param::Bias(s) => Source::whole(linear(s, "bias")?),
            Param::Ssm(b, part) => {
                let name = match part {
                    SsmPart::Conv => "conv1d.weight",
                    SsmPart::ConvBias => "conv1d.bias",
                    SsmPart::ALog => "A_log",
                    SsmPart::D => "D",
                    SsmPart::DtBias => "dt_bias",
                    SsmPart::Norm => "norm.weight",
                };
                Source::whole(format!("layers.{b}.mixer.{name}"))
            }
            _ => return None,
        })
    }
}

fn linear(site: Site, half: &str) -> Option<String> {
    let name = match site.role {
        Role::SsmIn => "in_proj",
        Role::SsmX => "x_proj",
        Role::SsmDt => "dt_proj",
        Role::SsmOut => "out_proj",
        Role::Head => return Some(format!("lm_head.{half}")),
        _ => return None,
    };
    Some(format!("layers.{}.mixer.{name}.{half}", site.block?))
}
