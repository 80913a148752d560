//! From what a study calls a model to its files, its spec, its tokenizer and its decoder.
//!
//! `builtin:llama` · a directory in Hugging Face layout · `org/name[@revision]`.
use super::{
    checkpoint::{Checkpoint, WEIGHTS, weight_files},
    decoder::Decoder,
    families::{self, Family},
    hub::{Hub, OnProgress, RepoId},
    site::Role,
    site::Site,
    spec::{DecoderSpec, Param},
};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::{Context, Result};
use candle_core::Device;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;
use tokenizers::Tokenizer;

/// A model that is part of the program.
pub struct Builtin {
    /// Behind `builtin:`.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    config: &'static str,
    tokenizer: &'static [u8],
    tokenizer_config: &'static str,
    weights: &'static [u8],
}

/// Models that need no file and no network.
pub static BUILTIN: &[Builtin] = &[Builtin {
    name: "llama",
    about: "1.1M parameters, LLaMA architecture, bf16, trained by this project on the microworld's text",
    config: include_str!("../../suites/microworld/model/config.json"),
    tokenizer: include_bytes!("../../suites/microworld/model/tokenizer.json"),
    tokenizer_config: include_str!("../../suites/microworld/model/tokenizer_config.json"),
    weights: include_bytes!("../../suites/microworld/model/model.safetensors"),
}];

/// A model whose headers are read and whose weights are not.
pub struct Opened {
    /// As the study names it.
    pub name: String,
    /// The Hub's commit, or a hash of the files' content.
    pub revision: String,
    /// Who reads its config.
    pub family: &'static dyn Family,
    /// What it is.
    pub spec: DecoderSpec,
    /// Text to tokens.
    pub tokenizer: Tokenizer,
    /// Special tokens that the tokenizer's or the model's config names.
    pub special: Special,
    checkpoint: Checkpoint,
    /// As most weights are stored: `f32`, `f16`, `bf16`.
    pub stored: &'static str,
}

/// Special tokens by role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Begins a text.
    pub bos: Option<u32>,
    /// Ends one.
    pub eos: Option<u32>,
}

/// The files, wherever they are.
struct Files {
    label: String,
    config: String,
    tokenizer: Vec<u8>,
    tokenizer_config: Option<String>,
    checkpoint: Checkpoint,
    revision: Option<String>,
}

/// Opens a model: everything that can be wrong with it is found now, but for the numbers themselves.
pub fn open(name: &str, folder: &Path, progress: Option<OnProgress>) -> Result<Opened> {
    let files = find(name, folder, progress)?;
    let config_label = format!("{}/config.json", files.label);
    let config: Value = families::parse(&files.config).blame(format!("`{config_label}`"))?;
    let family = families::of(&config).blame(format!("`{config_label}`"))?;
    let mut spec = family.spec(&config).blame(format!("`{config_label}`"))?;
    spec.check().blame(format!("`{config_label}`"))?;
    // A head that the checkpoint does not hold is the embedding, unless the config says that it is not.
    let head = Param::Weight(Site::end(Role::Head));
    let untied = config.get("tie_word_embeddings") == Some(&Value::Bool(false));
    spec.head.tied |= !untied && !files.checkpoint.has(family, &spec, head);
    files.checkpoint.check(family, &spec)?;

    let tokenizer_label = format!("{}/tokenizer.json", files.label);
    let mut tokenizer = Tokenizer::from_bytes(&files.tokenizer)
        .map_err(anyhow::Error::msg)
        .blame(format!("`{tokenizer_label}`"))?;
    // A saved tokenizer may still cut or pad as its last user wished.
    tokenizer.with_truncation(None).map_err(anyhow::Error::msg)?;
    tokenizer.with_padding(None);
    if let Some((token, id)) = tokenizer.get_vocab(false).into_iter().max_by_key(|(_, id)| *id)
        && id as usize >= spec.vocab
    {
        mistake!(
            "`{tokenizer_label}` has token {id} (`{token}`), but the model's vocabulary is {}: it belongs to another \
             model",
            spec.vocab
        );
    }
    let tokenizer_config: Value = match &files.tokenizer_config {
        Some(text) => serde_json::from_str(text).blame(format!("`{}/tokenizer_config.json`", files.label))?,
        None => Value::Null,
    };
    let special = Special {
        bos: special(&tokenizer, &tokenizer_config, &config, "bos"),
        eos: special(&tokenizer, &tokenizer_config, &config, "eos"),
    };
    for (role, id) in [("bos", special.bos), ("eos", special.eos)] {
        if let Some(id) = id.filter(|&id| id as usize >= spec.vocab) {
            mistake!("`{config_label}`: {role} token {id} is outside the vocabulary of {}", spec.vocab);
        }
    }
    let revision = match files.revision {
        Some(commit) => commit,
        None => {
            let mut all = Sha256::new();
            all.update(&files.config);
            all.update(&files.tokenizer);
            all.update(files.tokenizer_config.unwrap_or_default());
            all.update(files.checkpoint.hash());
            format!("{:x}", all.finalize())
        }
    };
    let stored = files.checkpoint.stored();
    Ok(Opened {
        name: name.into(),
        revision,
        family,
        spec,
        tokenizer,
        special,
        checkpoint: files.checkpoint,
        stored,
    })
}

impl Opened {
    /// Bits of a number as most weights are stored.
    pub fn stored_bits(&self) -> u8 {
        if self.stored == "f32" { 32 } else { 16 }
    }

    /// Reads the weights; one that is not finite is an error that names its tensor.
    pub fn load(&self, device: &Device) -> Result<Decoder> {
        Decoder::build(self.spec.clone(), device, |param, shape| {
            self.checkpoint.load(self.family, &self.spec, param, shape, device)
        })
        .with_context(|| format!("model `{}`", self.name))
    }
}

/// A special token's id: by its text in tokenizer_config.json, else by its id in config.json.
fn special(tokenizer: &Tokenizer, tokenizer_config: &Value, config: &Value, role: &str) -> Option<u32> {
    // Said to be none, it is none, whatever config.json's id is.
    if tokenizer_config.get(format!("{role}_token")).is_some_and(Value::is_null) {
        return None;
    }
    let text = &tokenizer_config[format!("{role}_token")];
    let text = text.as_str().or_else(|| text["content"].as_str());
    text.and_then(|t| tokenizer.token_to_id(t)).or_else(|| {
        let id = &config[format!("{role}_token_id")];
        id.as_u64().or_else(|| id[0].as_u64()).and_then(|id| u32::try_from(id).ok())
    })
}

fn find(name: &str, folder: &Path, progress: Option<OnProgress>) -> Result<Files> {
    if let Some(short) = name.strip_prefix("builtin:") {
        let Some(model) = BUILTIN.iter().find(|b| b.name == short) else {
            let names: Vec<&str> = BUILTIN.iter().map(|b| b.name).collect();
            mistake!(
                "no built-in model `{name}`{}; there are: builtin:{}",
                nearest(short, names.iter().copied()),
                names.join(", builtin:")
            );
        };
        return Ok(Files {
            label: name.into(),
            config: model.config.into(),
            tokenizer: model.tokenizer.to_vec(),
            tokenizer_config: Some(model.tokenizer_config.into()),
            checkpoint: Checkpoint::embedded("model.safetensors", model.weights)?,
            revision: None,
        });
    }
    let dir = folder.join(name);
    if dir.is_dir() {
        return from_dir(&dir);
    }
    // A revision may have slashes of its own.
    let id = name.split('@').next().unwrap_or(name);
    if name.starts_with(['.', '/', '~']) || id.matches('/').count() != 1 {
        mistake!(
            "model `{name}` is no directory; a model is `builtin:llama`, a directory in Hugging Face layout, or \
             `org/name[@revision]` on the Hub"
        );
    }
    from_hub(name, progress)
}

fn text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).blame(format!("`{}`", path.display()))
}

fn from_dir(dir: &Path) -> Result<Files> {
    let find = |name: &str| Ok(Some(dir.join(name)).filter(|p| p.is_file()));
    let paths = weight_files(find, |name| Ok(dir.join(name))).blame(format!("`{}`", dir.display()))?;
    let tokenizer = dir.join("tokenizer.json");
    Ok(Files {
        label: dir.display().to_string(),
        config: text(&dir.join("config.json"))?,
        tokenizer: std::fs::read(&tokenizer).blame(format!("`{}`", tokenizer.display()))?,
        tokenizer_config: std::fs::read_to_string(dir.join("tokenizer_config.json")).ok(),
        checkpoint: Checkpoint::open(&paths)?,
        revision: None,
    })
}

fn from_hub(name: &str, progress: Option<OnProgress>) -> Result<Files> {
    let what = || format!("model `{name}`");
    let repo = RepoId::parse(name).blame(what())?;
    let hub = Hub::from_env().blame(what())?.on_progress(progress);
    let required = |file: &str| hub.required(&repo, file).blame(what());
    // Look in the cache for all of them before asking the network for any.
    let cached = WEIGHTS.iter().any(|name| hub.cached(&repo, name).is_some());
    let find = |name: &str| if cached { Ok(hub.cached(&repo, name)) } else { hub.file(&repo, name) };
    let paths = weight_files(find, required).blame(what())?;
    let tokenizer = required("tokenizer.json")?;
    let tokenizer_config = hub.file(&repo, "tokenizer_config.json").blame(what())?;
    Ok(Files {
        label: name.into(),
        config: text(&required("config.json")?)?,
        tokenizer: std::fs::read(&tokenizer).blame(what())?,
        tokenizer_config: tokenizer_config.and_then(|p| std::fs::read_to_string(p).ok()),
        checkpoint: Checkpoint::open(&paths)?,
        revision: hub.commit(&repo),
    })
}
