//! GPT-Neo and TinyStories (Black et al., 2021): learned positions, scores that are not scaled and stay in f32, a window in
//! every second layer. Source: transformers `modeling_gpt_neo.py`.
use super::{Family, read};
use crate::model::{
    site::{Role, Site},
    spec::*,
};
use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// See the module.
pub struct GptNeo;

#[derive(Deserialize)]
struct Config {
    vocab_size: usize,
    hidden_size: usize,
    num_layers: usize,
    num_heads: usize,
    max_position_embeddings: usize,
    intermediate_size: Option<usize>,
    #[serde(default = "gelu_new")]
    activation_function: String,
    layer_norm_epsilon: f64,
    window_size: usize,
    /// `[[["global", "local"], 12]]`: the kinds, and how often they are repeated.
    attention_types: Option<Vec<(Vec<String>, usize)>>,
    /// The same, a kind a layer.
    attention_layers: Option<Vec<String>>,
    #[serde(default = "yes")]
    tie_word_embeddings: bool,
}

fn yes() -> bool {
    true
}
fn gelu_new() -> String {
    "gelu_new".into()
}

impl Family for GptNeo {
    fn name(&self) -> &'static str {
        "gpt_neo"
    }
    fn about(&self) -> &'static str {
        "GPT-Neo and TinyStories: learned positions, unscaled scores, a window in every second layer"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_gpt_neo.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["gpt_neo"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        &["transformer.", ""]
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let c: Config = read(config)?;
        ensure!(c.num_heads > 0, "`num_heads` is 0");
        ensure!(c.num_layers <= 10_000, "the number of layers is {}: it must be 1 to 10000", c.num_layers);
        let repeated = |types: &Vec<(Vec<String>, usize)>| {
            let kinds =
                types.iter().flat_map(|(kinds, n)| (0..(*n).min(10_000)).flat_map(move |_| kinds.iter()));
            kinds.take(10_001).cloned().collect::<Vec<_>>()
        };
        let kinds = match (c.attention_layers, &c.attention_types) {
            (Some(layers), _) => layers,
            (None, Some(types)) => repeated(types),
            (None, None) => bail!("neither `attention_layers` nor `attention_types` is there"),
        };
        ensure!(
            kinds.len() == c.num_layers,
            "`attention_layers` or `attention_types` makes {} layers, and `num_layers` is {}",
            kinds.len(),
            c.num_layers
        );
        if let Some(kind) = kinds.iter().find(|k| !["global", "local"].contains(&k.as_str())) {
            bail!("`attention_layers` or `attention_types` has `{kind}`; there are: global, local");
        }
        let norm = NormSpec::layer(c.layer_norm_epsilon);
        let act = Act::named(&c.activation_function).context("`activation_function`")?;
        let block = |layer: usize| BlockSpec {
            norm,
            residual: Residual::Pre,
            mixer: Mixer::Attention(AttentionSpec {
                heads: c.num_heads,
                kv_heads: c.num_heads,
                head_dim: c.hidden_size / c.num_heads,
                position: Position::None,
                window: (kinds[layer] == "local").then_some(c.window_size),
                scale: 1.,
                scaled: Scaled::Wide,
                softcap: None,
                clip: None,
                qk_norm: None,
                bias: AttentionBias { qkv: false, out: true },
            }),
            ffn: Ffn::Plain {
                inner: c.intermediate_size.unwrap_or(c.hidden_size.saturating_mul(4)),
                act,
                bias: true,
            },
        };
        let positions = LearnedPositions { first: 0, rows: c.max_position_embeddings };
        Ok(DecoderSpec {
            family: "",
            fused_qkv: false,
            vocab: c.vocab_size,
            hidden: c.hidden_size,
            context: c.max_position_embeddings,
            embed: EmbedSpec { positions: Some(positions), ..EmbedSpec::default() },
            blocks: blocks(c.num_layers, block)?,
            norm: Some(norm),
            head: HeadSpec::plain(c.tie_word_embeddings),
        })
    }

    fn source(&self, _: &DecoderSpec, param: Param) -> Option<Source> {
        Some(Source::whole(match param {
            Param::Embed => "wte.weight".into(),
            Param::Positions => "wpe.weight".into(),
            Param::FinalNorm(h) => format!("ln_f.{}", h.torch()),
            Param::Norm(b, Slot::Mixer, h) => format!("h.{b}.ln_1.{}", h.torch()),
            Param::Norm(b, Slot::Ffn, h) => format!("h.{b}.ln_2.{}", h.torch()),
            Param::Weight(s) => format!("{}.weight", linear(s)?),
            Param::Bias(s) => format!("{}.bias", linear(s)?),
            _ => return None,
        }))
    }
}

fn linear(site: Site) -> Option<String> {
    let name = match site.role {
        Role::Q => "attn.attention.q_proj",
        Role::K => "attn.attention.k_proj",
        Role::V => "attn.attention.v_proj",
        Role::O => "attn.attention.out_proj",
        Role::Up => "mlp.c_fc",
        Role::Down => "mlp.c_proj",
        Role::Head => return Some("lm_head".into()),
        _ => return None,
    };
    Some(format!("h.{}.{name}", site.block?))
}
