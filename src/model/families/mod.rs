//! One file a family: `config.json -> DecoderSpec`, and where the checkpoint keeps each parameter.
//!
//! A family holds no tensors, does no I/O and owns no forward pass.
pub mod bloom;
pub mod chatglm;
pub mod falcon;
pub mod gemma;
pub mod gemma2;
pub mod gemma3;
pub mod glm;
pub mod glm4;
pub mod gpt2;
pub mod gpt_neo;
pub mod gpt_neox;
pub mod llama;
pub mod mamba;
pub mod mamba2;
pub mod mistral;
pub mod mixtral;
pub mod mpt;
pub mod olmo;
pub mod olmo2;
pub mod opt;
pub mod phi;
pub mod phi3;
pub mod qwen2;
pub mod qwen2_moe;
pub mod qwen3;
pub mod qwen3_moe;
pub mod stablelm;

use super::{
    site::{Role, Site},
    spec::{DecoderSpec, Param, Source},
};
use crate::{mistake, mistake::nearest};
use anyhow::{Result, bail, ensure};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An architecture as the Hub knows it. Two pure functions over plain data.
pub trait Family: Sync {
    /// What tables call it.
    fn name(&self) -> &'static str;
    /// One line: who made it, and what differs.
    fn about(&self) -> &'static str;
    /// What `tests/families.rs` holds its logits to.
    fn reference(&self) -> &'static str;
    /// How near they are held: the largest difference of a logit in f32, where logits are 1 to 2 in size.
    fn tolerance(&self) -> f32 {
        2e-5
    }
    /// The `model_type` values in `config.json` that this family answers to.
    fn model_types(&self) -> &'static [&'static str];
    /// Whether it answers to a config that has no `model_type`.
    fn claims(&self, _config: &Value) -> bool {
        false
    }
    /// What the checkpoint is, in the vocabulary of `model::spec`.
    fn spec(&self, config: &Value) -> Result<DecoderSpec>;
    /// The same, with whose it is and how its files keep attention.
    fn decoder(&self, config: &Value) -> Result<DecoderSpec> {
        let spec = self.spec(config)?;
        let block = spec.blocks.iter().position(|b| b.mixer.attention().is_some()).unwrap_or(0) as u16;
        let name = |role| Some(self.source(&spec, Param::Weight(Site::new(block, role)))?.name);
        let fused_qkv = name(Role::Q).is_some() && name(Role::Q) == name(Role::V);
        Ok(DecoderSpec { family: self.name(), fused_qkv, ..spec })
    }
    /// Where the checkpoint keeps a parameter, without base prefix. `None`: this family never has it.
    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source>;
    /// What checkpoints may put before a tensor's name, the likeliest first.
    fn prefixes(&self) -> &'static [&'static str];
}

/// Every family, in the order tables list them.
pub static FAMILIES: &[&dyn Family] = &[
    &llama::Llama,
    &mistral::Mistral,
    &mixtral::Mixtral,
    &qwen2::Qwen2,
    &qwen2_moe::Qwen2Moe,
    &qwen3::Qwen3,
    &qwen3_moe::Qwen3Moe,
    &gemma::Gemma,
    &gemma2::Gemma2,
    &gemma3::Gemma3,
    &phi::Phi,
    &phi3::Phi3,
    &stablelm::StableLm,
    &chatglm::ChatGlm,
    &glm::Glm,
    &glm4::Glm4,
    &olmo::Olmo,
    &olmo2::Olmo2,
    &falcon::Falcon,
    &mpt::Mpt,
    &opt::Opt,
    &bloom::Bloom,
    &gpt2::Gpt2,
    &gpt_neo::GptNeo,
    &gpt_neox::GptNeoX,
    &mamba::Mamba,
    &mamba2::Mamba2,
];

/// A config.json as Python writes it: JSON, but with `Infinity` and `NaN`, which reach families as texts.
pub fn parse(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str(text).or_else(|error| {
        let mut fixed = String::with_capacity(text.len() + 16);
        let (mut quoted, mut rest) = (false, text);
        while let Some(c) = rest.chars().next() {
            let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|w| !quoted && rest.starts_with(w));
            let taken = match (word, quoted && c == '\\') {
                (Some(word), _) => {
                    fixed.extend(["\"", word, "\""]);
                    word.len()
                }
                // An escaped character, whatever it is.
                (None, true) => c.len_utf8() + rest[1..].chars().next().map_or(0, char::len_utf8),
                (None, false) => c.len_utf8(),
            };
            if word.is_none() {
                fixed.push_str(&rest[..taken]);
            }
            quoted ^= c == '"';
            rest = &rest[taken..];
        }
        // What is still wrong is told by its place in the text as it was.
        serde_json::from_str(&fixed).map_err(|_| error)
    })
}

/// The family that answers to a config's `model_type`, or claims one without.
pub fn of(config: &Value) -> Result<&'static dyn Family> {
    let known = || FAMILIES.iter().flat_map(|f| f.model_types().iter().copied());
    let list = || known().collect::<Vec<_>>().join(", ");
    let Some(name) = config.get("model_type").and_then(Value::as_str) else {
        if let Some(family) = FAMILIES.iter().find(|f| config.get("model_type").is_none() && f.claims(config))
        {
            return Ok(*family);
        }
        mistake!("no `model_type`, or one that is no string; there are: {}", list());
    };
    match FAMILIES.iter().find(|f| f.model_types().contains(&name)) {
        Some(family) => Ok(*family),
        None => mistake!(
            "no family answers to model_type `{name}`{}; there are: {}",
            nearest(name, known()),
            list()
        ),
    }
}

/// The config's keys, an error naming the one that is missing or of the wrong kind. A key that is null is taken for absent:
/// a family that makes a difference says so with [`filled`] before.
pub(crate) fn read<C: DeserializeOwned>(config: &Value) -> Result<C> {
    fn without_nulls(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let there = map.iter().filter(|(_, v)| !v.is_null());
                Value::Object(there.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
            }
            other => other.clone(),
        }
    }
    serde_path_to_error::deserialize(without_nulls(config)).map_err(|e| {
        let path = e.path().to_string();
        let mut inner = e.into_inner().to_string();
        let null = |key: &str| config.get(key).is_some_and(Value::is_null);
        if let Some(key) =
            inner.strip_prefix("missing field `").and_then(|k| k.split('`').next()).filter(|k| null(k))
        {
            inner = format!("`{key}` is null");
        }
        if path == "." { anyhow::anyhow!("{inner}") } else { anyhow::anyhow!("`{path}`: {inner}") }
    })
}

/// A config with a family's own values for keys that it leaves out. A key that is null is there.
fn filled(config: &Value, unsaid: Value) -> Result<Value> {
    let mut config = config.clone();
    let Some(keys) = config.as_object_mut() else { bail!("the config is no table of keys") };
    if let Value::Object(unsaid) = unsaid {
        for (key, value) in unsaid {
            keys.entry(key).or_insert(value);
        }
    }
    Ok(config)
}

/// A config with the old names of keys, `(old, new)`, brought to the new ones; where both are there, the new one counts.
fn renamed(config: &Value, names: &[(&str, &str)]) -> Value {
    let mut config = config.clone();
    if let Some(keys) = config.as_object_mut() {
        for &(old, new) in names {
            if let Some(value) = keys.get(old).cloned() {
                keys.entry(new).or_insert(value);
            }
        }
    }
    config
}

/// Which layers see a window: as `layer_types` says, or as the family's older configs mean.
fn sliding(config: &Value, layers: usize, unsaid: impl Fn(usize) -> bool) -> Result<Vec<bool>> {
    #[derive(serde::Deserialize)]
    struct Config {
        layer_types: Option<Vec<String>>,
    }
    let Some(types) = read::<Config>(config)?.layer_types else {
        return Ok((0..layers).map(unsaid).collect());
    };
    ensure!(types.len() == layers, "`layer_types` has {} entries for {layers} layers", types.len());
    let windowed = types.iter().map(|kind| match kind.as_str() {
        "sliding_attention" => Ok(true),
        "full_attention" => Ok(false),
        other => bail!("`layer_types` has `{other}`; there are: full_attention, sliding_attention"),
    });
    windowed.collect()
}
