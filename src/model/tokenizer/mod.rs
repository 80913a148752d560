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
mod sentencepiece;
mod settings;

use crate::{mistake, mistake::Blame};
use anyhow::{Context, Result};
use serde_json::{Map, Value, json};
use settings::{Class, Settings};
use std::collections::{BTreeMap, HashMap};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Tokenizer,
    models::bpe::{BPE, Vocab},
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
        sentencepiece::build(bytes, &settings).blame(named("tokenizer.model"))?
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

/// The file that [`build`] takes the vocabulary from.
pub fn vocabulary(files: &Files) -> &'static str {
    let whole = |set: &&&[&'static str]| set.iter().all(|name| files.contains_key(name));
    VOCABULARIES.iter().find(whole).map_or("tokenizer.json", |set| set[0])
}

/// What the settings say of a role's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// Nothing.
    Nothing,
    /// That there is none.
    None,
    /// Its text.
    Token(String),
}

/// The token that has a role: `bos`, `eos`.
pub fn role(label: &str, files: &Files, role: &str) -> Result<Said> {
    let settings = Settings::read(label, files)?;
    if settings.config.get(&format!("{role}_token")).is_some_and(Value::is_null) {
        return Ok(Said::None);
    }
    Ok(settings.role(role).map_or(Said::Nothing, |text| Said::Token(text.into())))
}

const TEKKEN: &str = "Mistral's tekken.json, which is not read here; tokenizer.json would do";

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
