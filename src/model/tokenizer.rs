//! A tokenizer from whatever a repository has: `tokenizer.json`, `tokenizer.model`, or `vocab.json` with
//! `merges.txt`.
//!
//! ```text
//! tokenizer.model -> ModelProto -> pieces, renamed and extended by the settings -> BPE or Unigram
//!                              \-> normalizer and pre-tokenizer, as sentencepiece itself normalizes
//! settings (tokenizer_config.json, ...) -> tokens found in raw text before all that; BOS and EOS around it
//! ```
//!
//! Ids are those of `transformers` 4.57, whose `convert_slow_tokenizer.py` does the same job class by class.
//! Where a converter departs from sentencepiece (it takes no notice of how a model normalizes, and puts a
//! space after every user-defined symbol), this follows sentencepiece: that is what the model was trained
//! with.
use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result};
use prost::Message;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizedString, Normalizer, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, Tokenizer,
    models::{
        bpe::{BPE, Vocab},
        unigram::Unigram,
    },
    normalizers::{Precompiled, Sequence},
};

/// What a tokenizer can be made of: one of these sets, the first that is there in full.
pub const VOCABULARIES: &[&[&str]] =
    &[&["tokenizer.json"], &["tokenizer.model"], &["vocab.json", "merges.txt"], &["tekken.json"]];

/// What else counts, where it is there.
pub const SETTINGS: &[&str] = &["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];

/// Files by the names in [`VOCABULARIES`] and [`SETTINGS`].
pub type Files = BTreeMap<&'static str, Vec<u8>>;

/// Asks `read` for the files that [`build`] needs, and for no others. `None` is a file that is not there.
pub fn collect(mut read: impl FnMut(&'static str) -> Result<Option<Vec<u8>>>) -> Result<Files> {
    let mut files = Files::new();
    let mut take = |name| -> Result<bool> {
        Ok(match read(name)? {
            Some(bytes) => files.insert(name, bytes).is_none(),
            None => false,
        })
    };
    for name in SETTINGS {
        take(name)?;
    }
    'sets: for set in VOCABULARIES {
        for name in *set {
            if !take(name)? {
                continue 'sets;
            }
        }
        break;
    }
    Ok(files)
}

/// The tokenizer that `transformers` would make of these files, without truncation and padding. `label` is
/// the repository's name in messages.
///
/// Errors, all of them the user's to mend: no vocabulary among the files; one in another format (tiktoken,
/// tekken, a Git LFS pointer); one that is malformed, or at odds with the settings; a `tokenizer_class` whose
/// rules are not known here.
pub fn build(label: &str, files: &Files) -> Result<Tokenizer> {
    let named = |name: &str| format!("`{label}/{name}`");
    let settings = Settings::read(label, files)?;
    let mut tokenizer = if let Some(bytes) = files.get("tokenizer.json") {
        serialized(bytes, &settings).blame(named("tokenizer.json"))?
    } else if let Some(bytes) = files.get("tokenizer.model") {
        sentencepiece(bytes, &settings).blame(named("tokenizer.model"))?
    } else if let (Some(vocab), Some(merges)) = (files.get("vocab.json"), files.get("merges.txt")) {
        let vocab = serde_json::from_slice(vocab).blame(named("vocab.json"))?;
        let merges = read_merges(merges).blame(named("merges.txt"))?;
        byte_level(vocab, merges, &settings).blame(format!("`{label}`: vocab.json and merges.txt"))?
    } else if files.contains_key("tekken.json") {
        mistake!("`{label}` has its vocabulary as {TEKKEN}")
    } else {
        mistake!(
            "`{label}` holds no vocabulary: tokenizer.json, tokenizer.model (sentencepiece), or vocab.json \
             with merges.txt would do"
        )
    };
    // A saved tokenizer may still cut or pad as its last user wished.
    tokenizer.with_truncation(None).map_err(anyhow::Error::msg)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

const TEKKEN: &str = "Mistral's tekken.json, which is not read here; tokenizer.json would do";

/// What a `tokenizer_class` stands for, as far as ids go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Class {
    Llama,
    Gemma,
    ChatGlm,
    Gpt2,
    Qwen2,
    /// None is named.
    Unsaid,
    /// One that has no rules of its own here.
    Other,
}

impl Class {
    fn of(name: &str) -> Self {
        match name.strip_suffix("Fast").unwrap_or(name) {
            "" => Self::Unsaid,
            // The second is how the first conversions of LLaMA spell it.
            "LlamaTokenizer" | "LLaMATokenizer" | "CodeLlamaTokenizer" => Self::Llama,
            "GemmaTokenizer" => Self::Gemma,
            "ChatGLMTokenizer" => Self::ChatGlm,
            "GPT2Tokenizer" | "CodeGenTokenizer" => Self::Gpt2,
            "Qwen2Tokenizer" => Self::Qwen2,
            _ => Self::Other,
        }
    }

    /// Special tokens that the class has where the settings name none.
    fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Llama => &[("bos", "<s>"), ("eos", "</s>"), ("unk", "<unk>")],
            Self::Gemma => &[("bos", "<bos>"), ("eos", "<eos>"), ("unk", "<unk>"), ("pad", "<pad>")],
            Self::Gpt2 => &[("bos", "<|endoftext|>"), ("eos", "<|endoftext|>"), ("unk", "<|endoftext|>")],
            Self::Qwen2 => &[("eos", "<|endoftext|>"), ("unk", "<|endoftext|>"), ("pad", "<|endoftext|>")],
            Self::ChatGlm | Self::Unsaid | Self::Other => &[],
        }
    }
}

/// The settings' files as one.
struct Settings {
    class: Class,
    class_name: String,
    config: Map<String, Value>,
    /// Tokens with ids of their own, by id: `added_tokens_decoder`, or added_tokens.json.
    numbered: BTreeMap<u32, AddedToken>,
}

impl Settings {
    fn read(label: &str, files: &Files) -> Result<Self> {
        let object = |name: &str| -> Result<Map<String, Value>> {
            match files.get(name) {
                Some(bytes) => serde_json::from_slice(bytes).blame(format!("`{label}/{name}`")),
                None => Ok(Map::new()),
            }
        };
        let [config, map, added] = [SETTINGS[0], SETTINGS[1], SETTINGS[2]].map(object);
        let (mut config, map, added) = (config?, map?, added?);
        let mut numbered = BTreeMap::new();
        if let Some(decoder) = config.get("added_tokens_decoder") {
            let what = || format!("`{label}/tokenizer_config.json`: added_tokens_decoder");
            let decoder: BTreeMap<String, Value> = serde_json::from_value(decoder.clone()).blame(what())?;
            for (id, token) in decoder {
                let token = added_token(&token).with_context(|| format!("id {id}")).blame(what())?;
                numbered.insert(id.parse().with_context(|| format!("id `{id}`")).blame(what())?, token);
            }
        } else {
            // The older layout. A map of special tokens is newer than the config beside it.
            for (key, value) in map {
                config.insert(key, value);
            }
            for (content, id) in added {
                let Some(id) = id.as_u64().and_then(|id| u32::try_from(id).ok()) else {
                    mistake!("`{label}/added_tokens.json`: the id of `{content}` is {id}");
                };
                numbered.insert(id, AddedToken::from(content, false));
            }
        }
        // Remote code is named by where it is: `["tokenization_chatglm.ChatGLMTokenizer", null]`.
        let remote = &config.get("auto_map").map_or(&Value::Null, |m| &m["AutoTokenizer"]);
        let class_name = config.get("tokenizer_class").and_then(Value::as_str);
        let class_name = class_name.or_else(|| remote[0].as_str().or(remote.as_str())?.rsplit('.').next());
        let class_name = class_name.unwrap_or_default().to_string();
        let mut settings = Self { class: Class::of(&class_name), class_name, config, numbered };
        // In the older layout a numbered token is special if a role names it, and then it is not normalized.
        let special: HashSet<String> = settings.special(true).into_iter().map(|t| t.content).collect();
        if !settings.config.contains_key("added_tokens_decoder") {
            for token in settings.numbered.values_mut() {
                token.special = special.contains(&token.content);
                token.normalized = !token.special;
            }
        }
        Ok(settings)
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.config.get(key).and_then(Value::as_bool)
    }

    /// The text of the token that has a role; an empty one, as the first conversions of LLaMA have it, is
    /// none.
    fn role(&self, role: &str) -> Option<&str> {
        let default = || self.class.defaults().iter().find(|(r, _)| *r == role).map(|(_, text)| *text);
        match self.config.get(&format!("{role}_token")) {
            Some(Value::Null) => None,
            Some(token) => {
                token.as_str().or(token["content"].as_str()).filter(|t| !t.is_empty()).or(default())
            }
            None => default(),
        }
    }

    /// Tokens that have a role or are declared special. A class's own are left out with `said`.
    fn special(&self, said: bool) -> Vec<AddedToken> {
        const ROLES: [&str; 7] = ["bos", "eos", "unk", "sep", "pad", "cls", "mask"];
        let mut all: Vec<AddedToken> = Vec::new();
        for role in ROLES {
            match self.config.get(&format!("{role}_token")) {
                Some(token) if token.is_object() => all.extend(added_token(token).ok()),
                Some(Value::Null) => {}
                value if value.is_some() || !said => {
                    all.extend(self.role(role).map(|text| AddedToken::from(text, true)))
                }
                _ => {}
            }
        }
        for key in ["additional_special_tokens", "extra_special_tokens"] {
            let list = self.config.get(key).and_then(Value::as_array);
            all.extend(list.into_iter().flatten().filter_map(|token| match token.as_str() {
                Some(text) => Some(AddedToken::from(text, true)),
                None => added_token(token).ok(),
            }));
        }
        for token in &mut all {
            token.special = true;
        }
        all
    }

    /// All tokens that are found in raw text, each with its id where the settings give one.
    fn found_in_text(&self) -> Vec<(Option<u32>, AddedToken)> {
        let mut all: Vec<_> = self.numbered.iter().map(|(id, token)| (Some(*id), token.clone())).collect();
        // Its class keeps its special tokens to itself; what the config numbers is found in text all the
        // same.
        if self.class == Class::ChatGlm {
            all.iter_mut().for_each(|(_, token)| token.normalized = false);
            return all;
        }
        for token in self.special(false) {
            if !all.iter().any(|(_, other)| other.content == token.content) {
                all.push((None, token));
            }
        }
        all
    }

    /// BOS and EOS around every text, where the settings or the class ask for them.
    fn around(&self, tokenizer: &mut Tokenizer, bos: bool, eos: bool) -> Result<()> {
        let token = |on: bool, role: &str| -> Result<Vec<&str>> {
            let text = self.role(role);
            if on && text.is_none() {
                mistake!("tokenizer_config.json: add_{role}_token is set, but there is no {role}_token");
            }
            Ok(text.filter(|_| on).into_iter().collect())
        };
        around(tokenizer, &token(bos, "bos")?, &token(eos, "eos")?)
    }
}

/// `{"content": ..., "lstrip": ..., ...}`, with the library's defaults for what is left out.
fn added_token(value: &Value) -> Result<AddedToken> {
    let Some(content) = value["content"].as_str() else {
        anyhow::bail!("a token without its `content`: {value}")
    };
    let flag = |key: &str| value[key].as_bool();
    let special = flag("special").unwrap_or(false);
    Ok(AddedToken::from(content, special)
        .single_word(flag("single_word").unwrap_or(false))
        .lstrip(flag("lstrip").unwrap_or(false))
        .rstrip(flag("rstrip").unwrap_or(false))
        .normalized(flag("normalized").unwrap_or(!special)))
}

/// Special tokens before and after every text.
fn around(tokenizer: &mut Tokenizer, before: &[&str], after: &[&str]) -> Result<()> {
    let mut special = Map::new();
    for token in before.iter().chain(after) {
        let Some(id) = tokenizer.token_to_id(token) else {
            mistake!("`{token}` is to stand beside every text, but the vocabulary has no such token");
        };
        special.insert(token.to_string(), json!({ "id": token, "ids": [id], "tokens": [token] }));
    }
    let part = |sequence: &str, n: u8| -> Vec<Value> {
        let tokens = |all: &[&str]| -> Vec<Value> {
            all.iter().map(|t| json!({ "SpecialToken": { "id": t, "type_id": n } })).collect()
        };
        let text = json!({ "Sequence": { "id": sequence, "type_id": n } });
        [tokens(before), vec![text], tokens(after)].concat()
    };
    let pair = [part("A", 0), part("B", 1)].concat();
    let processor: PostProcessorWrapper = serde_json::from_value(json!({
        "type": "TemplateProcessing", "single": part("A", 0), "pair": pair, "special_tokens": special,
    }))?;
    tokenizer.with_post_processor(Some(processor));
    Ok(())
}

/// Adds tokens that are found in raw text. One that has no id and is in no vocabulary is left out: a model
/// has no embedding for it.
fn declare(tokenizer: &mut Tokenizer, tokens: Vec<(Option<u32>, AddedToken)>) -> Result<()> {
    let known = |(id, token): &(Option<u32>, AddedToken)| {
        !token.content.is_empty() && (id.is_some() || tokenizer.token_to_id(&token.content).is_some())
    };
    let tokens: Vec<_> = tokens.into_iter().filter(known).collect();
    tokenizer.add_tokens(tokens.iter().map(|(_, token)| token.clone())).map_err(anyhow::Error::msg)?;
    for (id, token) in tokens {
        let given = tokenizer.token_to_id(&token.content);
        if id.is_some() && id != given {
            let (id, given) = (id.unwrap_or_default(), given.unwrap_or_default());
            mistake!("the settings number `{}` {id}, the vocabulary {given}", token.content);
        }
    }
    Ok(())
}

/// `tokenizer.json`, which holds everything but what its class does to it when it is loaded.
fn serialized(bytes: &[u8], settings: &Settings) -> Result<Tokenizer> {
    if let Some(other) = foreign(bytes) {
        mistake!("this is {other}");
    }
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(anyhow::Error::msg)?;
    let mut tokens = settings.found_in_text();
    tokens.retain(|(id, token)| {
        let given = tokenizer.token_to_id(&token.content);
        given.is_some() && (id.is_none() || *id == given)
    });
    // What the file says of a token stands, unless the config says more than its text.
    tokens.retain(|(id, token)| {
        let known = tokenizer.get_added_vocabulary().get_vocab().contains_key(&token.content);
        id.is_some() || !known
    });
    declare(&mut tokenizer, tokens)?;
    // These classes write their post-processor anew from the two settings.
    if let (Class::Llama | Class::Gemma, Some(bos)) = (settings.class, settings.flag("add_bos_token")) {
        settings.around(&mut tokenizer, bos, settings.flag("add_eos_token").unwrap_or(false))?;
    }
    Ok(tokenizer)
}

/// A format that is known, and is not what its name says.
fn foreign(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(4096)];
    if head.starts_with(b"version https://git-lfs") {
        return Some("a Git LFS pointer, not the file itself (`git lfs pull` fetches it)");
    }
    // A tiktoken vocabulary: base64 of a token, a space, its rank.
    let line = head.split(|b| *b == b'\n').next().unwrap_or_default();
    let base64 = |b: &u8| b.is_ascii_alphanumeric() || b"+/=".contains(b);
    if let [token, rank] = line.trim_ascii_end().split(|b| *b == b' ').collect::<Vec<_>>()[..]
        && !token.is_empty()
        && token.iter().all(base64)
        && !rank.is_empty()
        && rank.iter().all(u8::is_ascii_digit)
    {
        return Some(
            "a tiktoken vocabulary (base64 and rank), which is not read here; tokenizer.json would do",
        );
    }
    let json = head.trim_ascii_start().starts_with(b"{");
    let tekken =
        |b: &[u8]| b.windows(13).any(|w| w == b"\"token_bytes\"") || b.windows(8).any(|w| w == b"\"tekken\"");
    if json && tekken(head) {
        return Some(TEKKEN);
    }
    None
}

/// `merges.txt`: a line `#version`, then two tokens a line, the first merge first.
fn read_merges(bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let text = std::str::from_utf8(bytes).context("this is no UTF-8")?;
    let mut merges = Vec::new();
    for (i, line) in text.split('\n').map(|l| l.trim_end_matches('\r')).enumerate() {
        if line.is_empty() || (i == 0 && line.starts_with("#version")) {
            continue;
        }
        match line.split(' ').collect::<Vec<_>>()[..] {
            [a, b] if !a.is_empty() && !b.is_empty() => merges.push((a.into(), b.into())),
            _ => {
                mistake!("line {} is not two tokens: `{}`", i + 1, line.chars().take(60).collect::<String>())
            }
        }
    }
    Ok(merges)
}

/// GPT-2's tokenizer: BPE over bytes, each written as one printable character.
fn byte_level(
    vocab: BTreeMap<String, u32>,
    merges: Vec<(String, String)>,
    settings: &Settings,
) -> Result<Tokenizer> {
    // Qwen2's own expression, from its `PRETOKENIZE_REGEX`.
    const QWEN2: &str = concat!(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    );
    let qwen2 = settings.class == Class::Qwen2;
    if !qwen2 && !matches!(settings.class, Class::Gpt2 | Class::Unsaid) {
        mistake!(
            "tokenizer_class `{}` is none of GPT2Tokenizer, CodeGenTokenizer, Qwen2Tokenizer; tokenizer.json \
             would do",
            settings.class_name
        );
    }
    if vocab.is_empty() {
        mistake!("the vocabulary is empty");
    }
    let mut ids = HashMap::new();
    for (token, id) in &vocab {
        if let Some(other) = ids.insert(*id, token) {
            mistake!("`{other}` and `{token}` are both token {id}");
        }
    }
    let mut vocab: Vocab = vocab.into_iter().collect();
    for (id, token) in &settings.numbered {
        vocab.entry(token.content.clone()).or_insert(*id);
    }
    let bpe = BPE::builder().vocab_and_merges(vocab, merges).build().map_err(anyhow::Error::msg)?;
    let mut tokenizer = Tokenizer::new(bpe);
    let bytes = json!({
        "type": "ByteLevel", "trim_offsets": true, "use_regex": !qwen2,
        "add_prefix_space": settings.flag("add_prefix_space").unwrap_or(false),
    });
    let before: PreTokenizerWrapper = serde_json::from_value(if qwen2 {
        let pattern = json!({ "Regex": QWEN2 });
        let split = json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false });
        json!({ "type": "Sequence", "pretokenizers": [split, bytes] })
    } else {
        bytes.clone()
    })?;
    if qwen2 {
        let nfc: NormalizerWrapper = serde_json::from_value(json!({ "type": "NFC" }))?;
        tokenizer.with_normalizer(Some(nfc)).map_err(anyhow::Error::msg)?;
    }
    tokenizer.with_pre_tokenizer(Some(before));
    tokenizer.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(bytes)?));
    let mut tokens = settings.found_in_text();
    if settings.class == Class::Unsaid {
        let ends = AddedToken::from("<|endoftext|>", true);
        if !tokens.iter().any(|(_, t)| t.content == ends.content) {
            tokens.push((None, ends));
        }
    }
    declare(&mut tokenizer, tokens)?;
    if settings.flag("add_bos_token") == Some(true) {
        settings.around(&mut tokenizer, true, false)?;
    }
    Ok(tokenizer)
}

/// sentencepiece's `ModelProto` (sentencepiece_model.proto), as far as encoding goes.
#[derive(Clone, PartialEq, prost::Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3", default = "1")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3", default = "1")]
    model_type: Option<i32>,
    #[prost(bool, optional, tag = "24")]
    treat_whitespace_as_suffix: Option<bool>,
    #[prost(bool, optional, tag = "35")]
    byte_fallback: Option<bool>,
    #[prost(string, optional, tag = "46", default = "<s>")]
    bos_piece: Option<String>,
    #[prost(string, optional, tag = "47", default = "</s>")]
    eos_piece: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    charsmap: Option<Vec<u8>>,
    #[prost(bool, optional, tag = "3", default = "true")]
    add_dummy_prefix: Option<bool>,
    #[prost(bool, optional, tag = "4", default = "true")]
    remove_extra_whitespaces: Option<bool>,
    #[prost(bool, optional, tag = "5", default = "true")]
    escape_whitespaces: Option<bool>,
}

// `SentencePiece.Type`.
const NORMAL: i32 = 1;
const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const BYTE: i32 = 6;

/// How sentencepiece writes a space.
const SPACE: &str = "\u{2581}";

/// Longer than any vocabulary there is (Gemma 3's is 5 MB): memory goes with the file's size.
const LONGEST_MODEL: usize = 32 << 20;

/// Longer than any piece that a trainer makes (its own limit is 512 characters): splitting one costs its
/// length squared.
const LONGEST_PIECE: usize = 2048;

/// What ChatGLM's class puts behind the vocabulary of ChatGLM2 (the first five) and ChatGLM3.
const CHATGLM: [&str; 9] = [
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
];

fn read_model(bytes: &[u8]) -> Result<ModelProto> {
    if let Some(other) = foreign(bytes) {
        mistake!("this is {other}");
    }
    if bytes.len() > LONGEST_MODEL {
        mistake!("{} bytes are too many for a sentencepiece model", bytes.len());
    }
    let model = ModelProto::decode(bytes).context("this is no sentencepiece model, or a part of one")?;
    if model.pieces.is_empty() {
        mistake!("this is no sentencepiece model: it has no pieces");
    }
    let mut seen = HashSet::new();
    let mut unknown = 0;
    for (id, piece) in model.pieces.iter().enumerate() {
        let (text, kind) = (piece.text(), piece.kind());
        let short: String = text.chars().take(60).collect();
        if text.is_empty() {
            mistake!("piece {id} is empty");
        } else if !seen.insert(text) {
            mistake!("piece {id} is `{short}` for the second time");
        } else if !piece.score().is_finite() {
            mistake!("the score of piece {id} (`{short}`) is {}", piece.score());
        } else if !matches!(kind, NORMAL | UNKNOWN | CONTROL | USER_DEFINED | BYTE) {
            mistake!("piece {id} (`{short}`) is of kind {kind}, which is not read here");
        } else if text.len() > LONGEST_PIECE {
            mistake!("piece {id} (`{short}`...) has {} bytes", text.len());
        }
        unknown += usize::from(kind == UNKNOWN);
    }
    if unknown != 1 {
        mistake!("{unknown} pieces stand for the unknown, not one");
    }
    Ok(model)
}

/// A tokenizer that encodes as sentencepiece does, between tokens that the settings have found in raw text.
fn sentencepiece(bytes: &[u8], settings: &Settings) -> Result<Tokenizer> {
    let mut model = read_model(bytes)?;
    let trainer = model.trainer.take().unwrap_or_default();
    let rules = model.normalizer.take().unwrap_or_default();
    let mut pieces = model.pieces;
    if trainer.treat_whitespace_as_suffix() {
        mistake!("treat_whitespace_as_suffix is not read here");
    }

    // Settings may rename a piece that no text becomes, and number tokens behind the vocabulary.
    let n = pieces.len();
    let mut ids: HashMap<String, u32> = (0..).zip(&pieces).map(|(id, p)| (p.text().into(), id)).collect();
    let mut behind = BTreeMap::new();
    if settings.class == Class::ChatGlm {
        behind.extend((n as u32..).zip(CHATGLM.map(String::from)));
    }
    for (id, token) in &settings.numbered {
        match pieces.get_mut(*id as usize) {
            _ if ids.contains_key(&token.content) => {}
            Some(piece) if matches!(piece.kind(), NORMAL | BYTE) => {
                mistake!("the settings number `{}` {id}, which is piece `{}`", token.content, piece.text());
            }
            Some(piece) => {
                ids.remove(piece.text());
                ids.insert(token.content.clone(), *id);
                piece.text = Some(token.content.clone());
            }
            None => drop(behind.insert(*id, token.content.clone())),
        }
    }
    let of_kind = |kind: i32| pieces.iter().filter(move |p| p.kind() == kind).map(|p| p.text());
    let own: Vec<&str> = of_kind(USER_DEFINED).collect();
    let control: Vec<&str> = of_kind(CONTROL).collect();

    let mut tokenizer = match trainer.model_type() {
        1 => unigram(&pieces, trainer.byte_fallback())?,
        2 => {
            let mut vocab: Vocab = ids.into_iter().collect();
            vocab.extend(behind.iter().map(|(id, text)| (text.clone(), *id)));
            let unknown = of_kind(UNKNOWN).next().unwrap_or_default().to_string();
            bpe(&pieces, vocab, unknown, trainer.byte_fallback(), !own.is_empty())?
        }
        3 => mistake!("this model cuts into words, which is not read here"),
        4 => mistake!("this model cuts into characters, which is not read here"),
        other => mistake!("model_type {other} is none of sentencepiece's"),
    };

    let prefix = rules.add_dummy_prefix() && settings.flag("add_prefix_space") != Some(false);
    // `legacy = false`: a space before the text, not before every stretch between special tokens.
    let first =
        matches!(settings.class, Class::Llama | Class::Unsaid) && settings.flag("legacy") == Some(false);
    let normalizers = normalizers(&rules, prefix && !first, &own)?;
    if !normalizers.is_empty() {
        let all = NormalizerWrapper::Sequence(Sequence::new(normalizers));
        tokenizer.with_normalizer(Some(all)).map_err(anyhow::Error::msg)?;
    }
    let mut before = Vec::new();
    if prefix && first {
        let space = SPACE;
        before.push(
            json!({ "type": "Metaspace", "replacement": space, "prepend_scheme": "first", "split": false }),
        );
    }
    if !own.is_empty() {
        // The longest wins, as in sentencepiece: an alternation takes the first that fits.
        let mut own: Vec<String> = own.iter().map(|text| regex::escape(text)).collect();
        own.sort_by_key(|text| std::cmp::Reverse(text.len()));
        let pattern = json!({ "Regex": own.join("|") });
        before.push(json!({ "type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false }));
    }
    if !before.is_empty() {
        let all = json!({ "type": "Sequence", "pretokenizers": before });
        tokenizer.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(all)?));
    }
    let mut after = vec![
        json!({ "type": "Replace", "pattern": { "String": SPACE }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if prefix {
        after.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    let after = json!({ "type": "Sequence", "decoders": after });
    tokenizer.with_decoder(Some(serde_json::from_value::<DecoderWrapper>(after)?));

    let mut tokens = Vec::new();
    if settings.class == Class::ChatGlm {
        if trainer.model_type() == 1 {
            declare(
                &mut tokenizer,
                behind.into_iter().map(|(id, t)| (Some(id), AddedToken::from(t, true))).collect(),
            )?;
        }
    } else {
        // A class that is known has its own word for the unknown.
        let unsaid = matches!(settings.class, Class::Unsaid | Class::Other);
        let unknown = of_kind(UNKNOWN).filter(|_| unsaid);
        tokens.extend(control.into_iter().chain(unknown).map(|text| (None, AddedToken::from(text, true))));
    }
    tokens.extend(settings.found_in_text());
    declare(&mut tokenizer, tokens)?;

    match (settings.class, settings.flag("add_bos_token"), settings.flag("add_eos_token")) {
        (Class::ChatGlm, ..) => around(&mut tokenizer, &["[gMASK]", "sop"], &[])?,
        (Class::Other, None, _) => mistake!(
            "whether a text begins with BOS is not known of tokenizer_class `{}`: add_bos_token in \
             tokenizer_config.json would say; so would tokenizer.json",
            settings.class_name
        ),
        (Class::Unsaid | Class::Other, bos, eos) => {
            // Without a class, as LLaMA has it, with the model's own BOS and EOS.
            let [own_bos, own_eos] = [trainer.bos_piece(), trainer.eos_piece()];
            let bos = bos.unwrap_or(true).then(|| settings.role("bos").unwrap_or(own_bos));
            let eos = eos.unwrap_or(false).then(|| settings.role("eos").unwrap_or(own_eos));
            let [bos, eos] = [bos, eos].map(|token| token.into_iter().collect::<Vec<_>>());
            around(&mut tokenizer, &bos, &eos)?;
        }
        (_, bos, eos) => settings.around(&mut tokenizer, bos.unwrap_or(true), eos.unwrap_or(false))?,
    }
    Ok(tokenizer)
}

/// Merges are what two pieces make a third; the third's score ranks them, then the longer left half, then the
/// right.
fn bpe(
    pieces: &[Piece],
    mut vocab: Vocab,
    unknown: String,
    byte_fallback: bool,
    own: bool,
) -> Result<Tokenizer> {
    let normal = |piece: &&Piece| piece.kind() == NORMAL;
    // sentencepiece merges characters that have no piece (Gemma's tab); here each must be in the vocabulary.
    // A byte that is a character of its own can bear that character's name: no other text falls back to it.
    let mut texts: HashMap<&str, u32> =
        (0..).zip(pieces).filter(|(_, p)| normal(p)).map(|(id, p)| (p.text(), id)).collect();
    let mut renamed: Vec<(String, u32)> = Vec::new();
    for byte in 0..128u8 {
        let (text, name) = (char::from(byte).to_string(), format!("<{byte:#04X}>"));
        let merged = |p: &Piece| p.kind() == NORMAL && p.text().len() > 1 && p.text().contains(&text);
        if byte_fallback
            && !vocab.contains_key(&text)
            && pieces.iter().any(merged)
            && let Some(id) = vocab.remove(&name)
        {
            vocab.insert(text.clone(), id);
            renamed.push((text, id));
        }
    }
    texts.extend(renamed.iter().map(|(text, id)| (text.as_str(), *id)));

    let mut merges = Vec::new();
    for piece in pieces.iter().filter(normal) {
        let text = piece.text();
        let mut splits: Vec<_> = text
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = text.split_at(at);
                Some((*texts.get(left)?, *texts.get(right)?, left, right))
            })
            .collect();
        splits.sort();
        // `+ 0.0`: the two zeros are one score.
        merges.extend(splits.into_iter().map(|(.., left, right)| (piece.score() + 0., left, right)));
    }
    let length = |text: &str| text.chars().count();
    merges.sort_by(|(a, al, ar), (b, bl, br)| {
        b.total_cmp(a).then_with(|| length(bl).cmp(&length(al))).then_with(|| length(br).cmp(&length(ar)))
    });
    let merges = merges.into_iter().map(|(_, left, right)| (left.to_string(), right.to_string())).collect();
    let bpe = BPE::builder()
        .vocab_and_merges(vocab, merges)
        .unk_token(unknown)
        .fuse_unk(true)
        .byte_fallback(byte_fallback)
        // A user-defined symbol, cut out before, is whole.
        .ignore_merges(own)
        .build()
        .map_err(anyhow::Error::msg)?;
    Ok(Tokenizer::new(bpe))
}

fn unigram(pieces: &[Piece], byte_fallback: bool) -> Result<Tokenizer> {
    let unknown = pieces.iter().position(|p| p.kind() == UNKNOWN);
    let vocab = pieces.iter().map(|p| (p.text().to_string(), f64::from(p.score()))).collect();
    Ok(Tokenizer::new(Unigram::from(vocab, unknown, byte_fallback).map_err(anyhow::Error::msg)?))
}

/// sentencepiece's normalization, in its order: characters, needless spaces, the space in front, the sign for
/// spaces.
fn normalizers(rules: &NormalizerSpec, prefix: bool, own: &[&str]) -> Result<Vec<NormalizerWrapper>> {
    let one = |value: Value| serde_json::from_value::<NormalizerWrapper>(value);
    let replace = |from: &str, to: &str| {
        one(json!({ "type": "Replace", "pattern": { "String": from }, "content": to }))
    };
    let mut all = Vec::new();
    if let Some(charsmap) = rules.charsmap.as_deref().filter(|c| !c.is_empty()) {
        check_charsmap(charsmap).context("precompiled_charsmap")?;
        let map = Precompiled::from(charsmap).map_err(anyhow::Error::msg)?;
        // A user-defined symbol passes untouched: a private character stands in for one that would not.
        let mut aside = Vec::new();
        for (symbol, stand_in) in own.iter().zip('\u{F0000}'..='\u{FFFFD}') {
            let mut mapped = NormalizedString::from(*symbol);
            map.normalize(&mut mapped).map_err(anyhow::Error::msg)?;
            if mapped.get() != *symbol {
                aside.push((*symbol, stand_in.to_string()));
            }
        }
        aside.sort_by_key(|(symbol, _)| std::cmp::Reverse(symbol.len()));
        for (symbol, stand_in) in &aside {
            all.push(replace(symbol, stand_in)?);
        }
        all.push(NormalizerWrapper::Precompiled(map));
        for (symbol, stand_in) in &aside {
            all.push(replace(stand_in, symbol)?);
        }
    }
    let regex = |pattern: &str, to: &str| {
        one(json!({ "type": "Replace", "pattern": { "Regex": pattern }, "content": to }))
    };
    let space = if rules.escape_whitespaces() { SPACE } else { " " };
    if rules.remove_extra_whitespaces() {
        all.push(regex(r"\A +", "")?);
        all.push(regex(" {2,}", " ")?);
    }
    if prefix {
        all.push(one(json!({ "type": "Prepend", "prepend": space }))?);
    }
    if rules.escape_whitespaces() {
        all.push(replace(" ", SPACE)?);
    }
    if rules.remove_extra_whitespaces() {
        // At the end it goes by the sign, not by the space: a text's own sign goes too.
        all.push(regex(&format!(r"(?:{space})+\z"), "")?);
    }
    Ok(all)
}

/// A `precompiled_charsmap` is a length, a double-array trie (darts-clone) of that many bytes, and
/// replacements that each end in a zero byte. Whoever walks it checks no index: all that a text can reach is
/// checked here.
fn check_charsmap(charsmap: &[u8]) -> Result<()> {
    let (Some(size), Some(rest)) = (charsmap.first_chunk::<4>(), charsmap.get(4..)) else {
        mistake!("{} bytes are too few", charsmap.len());
    };
    let size = u32::from_le_bytes(*size) as usize;
    if size == 0 || !size.is_multiple_of(4) || size > rest.len() {
        mistake!("a trie of {size} bytes in {} bytes", rest.len());
    }
    let (trie, texts) = rest.split_at(size);
    let texts = std::str::from_utf8(texts).context("the replacements are no UTF-8")?;
    let units: Vec<usize> =
        trie.as_chunks::<4>().0.iter().map(|unit| u32::from_le_bytes(*unit) as usize).collect();
    let base = |at: usize| at ^ ((units[at] >> 10) << ((units[at] & (1 << 9)) >> 6));
    let mut seen = vec![false; units.len()];
    let mut open = vec![base(0)];
    while let Some(node) = open.pop() {
        for label in 1..256 {
            let at = node ^ label;
            let Some(unit) = units.get(at) else { mistake!("the trie points outside itself") };
            if unit & (1 << 31 | 0xFF) != label || std::mem::replace(&mut seen[at], true) {
                continue;
            }
            let next = base(at);
            if unit >> 8 & 1 == 1 {
                let Some(leaf) = units.get(next) else { mistake!("the trie points outside itself") };
                if !texts.is_char_boundary(leaf & ((1 << 31) - 1)) {
                    mistake!("a replacement lies outside the replacements");
                }
            }
            open.push(next);
        }
    }
    Ok(())
}
