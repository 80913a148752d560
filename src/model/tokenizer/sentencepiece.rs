//! `tokenizer.model`: sentencepiece's pieces and rules, as a model and normalizers of `tokenizers`.
use super::{
    around, declare, foreign,
    settings::{Class, Settings},
};
use crate::mistake;
use anyhow::{Context, Result};
use prost::Message;
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use tokenizers::{
    AddedToken, DecoderWrapper, NormalizedString, Normalizer, NormalizerWrapper, PreTokenizerWrapper,
    Tokenizer,
    models::{
        bpe::{BPE, Vocab},
        unigram::Unigram,
    },
    normalizers::{Precompiled, Sequence},
};

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
pub fn build(bytes: &[u8], settings: &Settings) -> Result<Tokenizer> {
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
