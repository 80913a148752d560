//! From what a study calls a model to its files, its spec, its tokenizer and its decoder.
//!
//! `builtin:llama` · a directory in Hugging Face layout · `org/name[@revision]`.
use super::{
    block::Block,
    chat::{ChatTemplate, GenerationConfig},
    checkpoint::{Checkpoint, WEIGHTS, weight_files, whole_shape},
    decoder::{Decoder, Ends, Parts},
    families::{self, Family},
    params::Take,
    site::{Role, Site},
    spec::{DecoderSpec, Param},
    tokenizer::{self, Said},
};
use crate::{
    hub::{Hub, OnProgress, RepoId},
    mistake,
    mistake::{Blame, nearest},
};
use anyhow::{Context, Result, anyhow};
use candle_core::Device;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
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

/// What a config.json says of a model, whether or not its weights are here.
pub struct Outline {
    /// As the study names it.
    pub name: String,
    /// Who reads its config.
    pub family: &'static dyn Family,
    /// What it is.
    pub spec: DecoderSpec,
    /// As weights are stored, where the config or the checkpoint says: `f32`, `f16`, `bf16`.
    pub stored: &'static str,
    config: Value,
    text: String,
    place: Place,
}

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
    /// Hash of the files that the tokenizer was made from.
    pub tokens: String,
    checkpoint: Checkpoint,
    config: Value,
    place: Place,
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

/// Where a model's files are.
enum Place {
    Builtin(&'static Builtin),
    Folder(PathBuf),
    Hub(Box<(Hub, RepoId)>),
}

impl Place {
    /// `config.json`'s folder may be named by the file.
    fn find(name: &str, folder: &Path, progress: Option<OnProgress>) -> Result<Self> {
        if let Some(short) = name.strip_prefix("builtin:") {
            let Some(model) = BUILTIN.iter().find(|b| b.name == short) else {
                let names: Vec<&str> = BUILTIN.iter().map(|b| b.name).collect();
                mistake!(
                    "no built-in model `{name}`{}; there are: builtin:{}",
                    nearest(short, names.iter().copied()),
                    names.join(", builtin:")
                );
            };
            return Ok(Place::Builtin(model));
        }
        let path = folder.join(name);
        if path.is_dir() {
            return Ok(Place::Folder(path));
        }
        if path.is_file() && path.file_name().is_some_and(|f| f == CONFIG) {
            return Ok(Place::Folder(path.parent().unwrap_or(Path::new("")).to_path_buf()));
        }
        // A revision may have slashes of its own.
        let id = name.split('@').next().unwrap_or(name);
        if name.starts_with(['.', '/', '~']) || id.matches('/').count() != 1 {
            mistake!(
                "model `{name}` is no directory; a model is `builtin:llama`, a directory in Hugging Face layout, or \
                 `org/name[@revision]` on the Hub"
            );
        }
        let what = format!("model `{name}` (no directory here, so on the Hub)");
        let repo = RepoId::parse(name).blame(&what)?;
        let hub = Hub::from_env().blame(&what)?.on_progress(progress);
        Ok(Place::Hub(Box::new((hub, repo))))
    }

    fn label(&self) -> String {
        match self {
            Place::Builtin(model) => format!("builtin:{}", model.name),
            Place::Folder(dir) => dir.display().to_string(),
            Place::Hub(hub) => hub.1.to_string(),
        }
    }

    /// A small file; `None` where there is none.
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = match self {
            Place::Builtin(model) => {
                return Ok(match name {
                    CONFIG => Some(model.config.into()),
                    "tokenizer.json" => Some(model.tokenizer.into()),
                    "tokenizer_config.json" => Some(model.tokenizer_config.into()),
                    _ => None,
                });
            }
            Place::Folder(dir) => Some(dir.join(name)).filter(|p| p.exists()),
            Place::Hub(hub) => hub.0.file(&hub.1, name).blame(format!("model `{}`", hub.1))?,
        };
        path.map(|p| std::fs::read(&p).blame(format!("`{}`", p.display()))).transpose()
    }

    /// The same as text.
    fn text(&self, name: &str) -> Result<Option<String>> {
        let bytes = self.read(name)?;
        let text = bytes.map(|b| String::from_utf8(b).map_err(|_| anyhow!("not valid UTF-8")));
        text.transpose().blame(format!("`{}/{name}`", self.label()))
    }

    fn checkpoint(&self) -> Result<Checkpoint> {
        let paths = match self {
            Place::Builtin(model) => return Checkpoint::embedded("model.safetensors", model.weights),
            Place::Folder(dir) => {
                let find = |name: &str| Ok(Some(dir.join(name)).filter(|p| p.is_file()));
                weight_files(find, |name| Ok(dir.join(name))).blame(format!("`{}`", dir.display()))?
            }
            Place::Hub(hub) => {
                let (hub, repo) = &**hub;
                // Look in the cache for all of them before asking the network for any.
                let cached = WEIGHTS.iter().any(|name| hub.cached(repo, name).is_some());
                let find =
                    |name: &str| if cached { Ok(hub.cached(repo, name)) } else { hub.file(repo, name) };
                weight_files(find, |name| hub.required(repo, name)).blame(format!("model `{repo}`"))?
            }
        };
        Checkpoint::open(&paths)
    }

    /// Whether there is any file of weights, without reading one.
    fn has_weights(&self) -> Result<bool> {
        Ok(match self {
            Place::Builtin(_) => true,
            Place::Folder(dir) => WEIGHTS.iter().any(|name| dir.join(name).is_file()),
            Place::Hub(_) => true,
        })
    }
}

const CONFIG: &str = "config.json";

/// Reads a model's config.json and nothing else.
pub fn outline(name: &str, folder: &Path, progress: Option<OnProgress>) -> Result<Outline> {
    let place = Place::find(name, folder, progress)?;
    let label = format!("`{}/{CONFIG}`", place.label());
    let Some(text) = place.text(CONFIG)? else { mistake!("{label}: No such file") };
    let config = families::parse(&text).blame(&label)?;
    let family = families::of(&config).blame(&label)?;
    let spec = family.decoder(&config).blame(&label)?;
    spec.check().blame(&label)?;
    let said = ["torch_dtype", "dtype"].iter().find_map(|key| config.get(key)?.as_str());
    let stored = match said {
        Some("float16") => "f16",
        Some("bfloat16") => "bf16",
        _ => "f32",
    };
    Ok(Outline { name: name.into(), family, spec, stored, config, text, place })
}

impl Outline {
    /// Whether there are weights beside the config. On the Hub, that is taken for granted.
    pub fn has_weights(&self) -> Result<bool> {
        self.place.has_weights()
    }

    /// Opens the rest: everything that can be wrong with it is found now, but for the numbers themselves.
    pub fn open(self) -> Result<Opened> {
        let Outline { name, family, mut spec, config, text, place, .. } = self;
        let label = place.label();
        let checkpoint = place.checkpoint()?;
        // A head that the checkpoint does not hold is the embedding, unless the config says that it is not.
        let head = Param::Weight(Site::end(Role::Head));
        let untied = config.get("tie_word_embeddings") == Some(&Value::Bool(false));
        spec.head.tied |= !untied && !checkpoint.has(family, &spec, head);
        checkpoint.check(family, &spec)?;

        let files = tokenizer::collect(|name| place.read(name))?;
        let tokenizer = tokenizer::build(&label, &files)?;
        if let Some((token, id)) = tokenizer.get_vocab(false).into_iter().max_by_key(|(_, id)| *id)
            && id as usize >= spec.vocab
        {
            mistake!(
                "`{label}/{}`: the tokenizer has token {id} (`{token}`), but the model's vocabulary is {}: it belongs to \
                 another model",
                tokenizer::vocabulary(&files),
                spec.vocab
            );
        }
        let special = |role: &str| -> Result<Option<u32>> {
            // Said to be none, it is none, whatever config.json's id is.
            let id = match tokenizer::role(&label, &files, role)? {
                Said::None => return Ok(None),
                Said::Token(text) => tokenizer.token_to_id(&text),
                Said::Nothing => None,
            };
            let number = &config[format!("{role}_token_id")];
            let number = || number.as_u64().or_else(|| number[0].as_u64());
            let id = id.or_else(|| number().and_then(|id| u32::try_from(id).ok()));
            if let Some(id) = id.filter(|&id| id as usize >= spec.vocab) {
                mistake!("`{label}/{CONFIG}`: {role} token {id} is outside the vocabulary of {}", spec.vocab);
            }
            Ok(id)
        };
        let special = Special { bos: special("bos")?, eos: special("eos")? };
        let commit = match &place {
            Place::Hub(hub) => hub.0.commit(&hub.1),
            _ => None,
        };
        let add = |hash: &mut Sha256| {
            for (name, bytes) in &files {
                hash.update(name);
                hash.update(bytes);
            }
        };
        let mut words = Sha256::new();
        add(&mut words);
        let tokens = format!("{:x}", words.finalize());
        let revision = match commit {
            Some(commit) => commit,
            None => {
                let mut all = Sha256::new();
                all.update(&text);
                add(&mut all);
                all.update(checkpoint.hash());
                format!("{:x}", all.finalize())
            }
        };
        let stored = checkpoint.stored();
        Ok(Opened {
            name,
            revision,
            family,
            spec,
            tokenizer,
            special,
            tokens,
            checkpoint,
            config,
            place,
            stored,
        })
    }
}

/// Bytes that reading one matrix takes beside the model at most, or rounding one: the tensor that it is a part of and the
/// part, or its rows before and after. Of one block, or of all there is.
pub fn transient(family: &dyn Family, spec: &DecoderSpec, block: Option<u16>) -> usize {
    let sites = spec.sites().into_iter().filter(|s| block.is_none() || s.block == block);
    let of = |site: Site| {
        let (out, inner) = spec.linear_shape(site);
        let stored = match family.source(spec, Param::Weight(site)) {
            Some(source) if source.take != Take::default() => {
                let whole: usize = whole_shape(&source, &[out, inner]).iter().product();
                // Turned around before a part is cut out.
                whole * if source.take.transpose && source.take.split.is_some() { 2 } else { 1 }
            }
            _ => 0,
        };
        // Outside the blocks, hardly a recipe rounds anything.
        let rounded = if site.block.is_some() { 2 * out * inner } else { 0 };
        4 * (stored + out * inner).max(rounded)
    };
    sites.map(of).max().unwrap_or(0)
}

/// Opens a model whole.
pub fn open(name: &str, folder: &Path, progress: Option<OnProgress>) -> Result<Opened> {
    outline(name, folder, progress)?.open()
}

impl Opened {
    /// Bits of a number as most weights are stored.
    pub fn stored_bits(&self) -> u8 {
        if self.stored == "f32" { 32 } else { 16 }
    }

    /// What the checkpoint says of generating.
    ///
    /// # Errors
    /// A generation_config.json that is none, or a value of another kind or out of range.
    pub fn generation(&self) -> Result<GenerationConfig> {
        let file = self.place.text("generation_config.json")?;
        GenerationConfig::new(&self.place.label(), file.as_deref(), &self.config)
    }

    /// How the model wants a conversation to be written.
    ///
    /// # Errors
    /// There is no template, or it does not parse.
    pub fn chat(&self) -> Result<ChatTemplate> {
        let (label, settings) = (self.place.label(), self.tokenizer_config()?);
        let jinja = self.place.text("chat_template.jinja")?;
        let json = self.place.text("chat_template.json")?;
        ChatTemplate::new(&label, &settings, jinja.as_deref(), json.as_deref())
    }

    /// A conversation in a template that is not its own, with its own special tokens.
    ///
    /// # Errors
    /// The template does not parse.
    pub fn chat_in(&self, what: &str, template: &str) -> Result<ChatTemplate> {
        ChatTemplate::of(what.into(), &self.tokenizer_config()?, template)
    }

    fn tokenizer_config(&self) -> Result<Value> {
        let label = self.place.label();
        match self.place.text("tokenizer_config.json")? {
            Some(text) => serde_json::from_str(&text).blame(format!("`{label}/tokenizer_config.json`")),
            None => Ok(Value::Null),
        }
    }

    /// Reads the weights; one that is not finite is an error that names its tensor.
    pub fn load(&self, device: &Device) -> Result<Decoder> {
        self.part(device, |parts| Decoder::whole(parts, device))
    }

    /// The same of what stands before the first block.
    pub fn load_entrance(&self, device: &Device) -> Result<Decoder> {
        self.part(device, |parts| parts.ends(device, Ends::Entrance))
    }

    /// The same of what stands after the last.
    pub fn load_exit(&self, device: &Device) -> Result<Decoder> {
        self.part(device, |parts| parts.ends(device, Ends::Exit))
    }

    /// A decoder without parameters, to run single blocks with.
    pub fn bare(&self, device: &Device) -> Result<Decoder> {
        self.part(device, |parts| parts.ends(device, Ends::None))
    }

    /// The same of one block.
    pub fn load_block(&self, block: u16, device: &Device) -> Result<Block> {
        self.part(device, |parts| parts.block(block))
    }

    fn part<T>(&self, device: &Device, make: impl FnOnce(&mut Parts) -> Result<T>) -> Result<T> {
        let mut param =
            |param, shape: &[usize]| self.checkpoint.load(self.family, &self.spec, param, shape, device);
        make(&mut Parts { spec: &self.spec, lay: true, param: &mut param })
            .with_context(|| format!("model `{}`", self.name))
    }
}
