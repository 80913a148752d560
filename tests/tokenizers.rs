//! Ids are those of the original tokenizer: sentencepiece's own, or the one that `transformers` makes of the
//! same files. `tests/make_tokenizers.py` made the goldens.
use crate::common::{repo, shared};
use bitsweep::model::tokenizer::{self, Files, SETTINGS, VOCABULARIES};
use rand::{Rng, SeedableRng, rngs::StdRng};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, path::Path};
use tokenizers::Tokenizer;

#[derive(Deserialize)]
struct Case {
    name: String,
    /// Of the repository, to ours.
    files: BTreeMap<String, String>,
    settings: BTreeMap<String, Value>,
    /// One list a text; none where the original is known to differ.
    ids: Vec<Option<Vec<u32>>>,
}

#[derive(Deserialize)]
struct Original {
    model: String,
    /// As `transformers` derives them, in its order.
    merges: String,
    texts: Sum,
    files: BTreeMap<String, Sum>,
}

#[derive(Deserialize)]
struct Sum {
    n: usize,
    sha256: String,
}

fn golden(file: &str) -> Vec<u8> {
    std::fs::read(repo("tests/goldens/tokenizers").join(file)).unwrap()
}

fn texts() -> Vec<String> {
    serde_json::from_slice(&golden("texts.json")).unwrap()
}

/// Files under the names that the library knows.
fn files<'a>(all: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Files {
    let known = VOCABULARIES.iter().flat_map(|set| set.iter()).chain(SETTINGS);
    let known: BTreeMap<&str, &'static str> = known.map(|name| (*name, *name)).collect();
    all.into_iter().map(|(name, bytes)| (known[name], bytes)).collect()
}

fn alone(name: &str, bytes: Vec<u8>) -> Files {
    files([(name, bytes)])
}

fn built(path: &Path, name: &str) -> Tokenizer {
    tokenizer::build("here", &alone(name, std::fs::read(path).unwrap())).unwrap()
}

fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode_fast(text, true).unwrap().get_ids().to_vec()
}

fn error(files: &Files) -> String {
    let error = tokenizer::build("here", files).expect_err("a tokenizer was made of it");
    assert!(bitsweep::mistake::is_mistake(&error), "{error:#}");
    format!("{error:#}")
}

#[test]
fn ids_are_those_of_the_original() {
    let cases: Vec<Case> = serde_json::from_slice(&golden("cases.json")).unwrap();
    let texts = texts();
    let mut wrong = String::new();
    for case in cases {
        let vocabulary = case.files.iter().map(|(name, ours)| (name.as_str(), golden(ours)));
        let settings = case.settings.iter().map(|(name, v)| (name.as_str(), v.to_string().into_bytes()));
        let tokenizer = tokenizer::build(&case.name, &files(vocabulary.chain(settings))).unwrap();
        assert_eq!(case.ids.len(), texts.len());
        for (text, want) in texts.iter().zip(&case.ids) {
            let got = ids(&tokenizer, text);
            if let Some(want) = want
                && got != *want
            {
                wrong += &format!("{}: {text:?}\n  ours {got:?}\n  want {want:?}\n", case.name);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// What a file says once saved is what it said before: a vocabulary made here can be written as
/// tokenizer.json.
#[test]
fn a_built_tokenizer_survives_tokenizer_json() {
    for model in ["llama.model", "gemma.model", "symbols.model", "unigram.model", "unigram-bytes.model"] {
        let built = tokenizer::build(model, &alone("tokenizer.model", golden(model))).unwrap();
        let json = built.to_string(false).unwrap().into_bytes();
        let read = tokenizer::build(model, &alone("tokenizer.json", json)).unwrap();
        for text in texts() {
            assert_eq!(ids(&built, &text), ids(&read, &text), "{model}: {text:?}");
        }
    }
}

/// The first merge first.
fn merges(tokenizer: &Tokenizer) -> Vec<(String, String)> {
    let mut model = serde_json::to_value(tokenizer.get_model()).unwrap();
    serde_json::from_value(model["merges"].take()).unwrap()
}

fn sum(ids: impl IntoIterator<Item = u32>) -> (usize, String) {
    let bytes: Vec<u8> = ids.into_iter().flat_map(u32::to_le_bytes).collect();
    (bytes.len() / 4, format!("{:x}", Sha256::digest(&bytes)))
}

#[test]
fn published_models_give_sentencepieces_ids_on_whole_files() {
    let all: Vec<Original> = serde_json::from_slice(&golden("shared.json")).unwrap();
    for Original { model, merges: want_merges, texts: want, files } in all {
        let Some(path) = shared(&model) else { continue };
        let tokenizer = built(&path, "tokenizer.model");
        let merges: Vec<String> = merges(&tokenizer).into_iter().map(|(a, b)| format!("{a} {b}")).collect();
        assert_eq!(format!("{:x}", Sha256::digest(merges.join("\n"))), want_merges, "{model}");
        // A token's text is the token here, and letters to sentencepiece.
        let plain = |t: &&String| !["<s>", "</s>", "<unk>", "<mark>"].iter().any(|token| t.contains(token));
        let got = texts().iter().filter(plain).flat_map(|text| ids(&tokenizer, text)).collect::<Vec<_>>();
        assert_eq!(sum(got), (want.n, want.sha256), "{model}: texts");
        for (file, want) in files {
            let Some(path) = shared(&file) else { continue };
            let text = std::fs::read_to_string(path).unwrap();
            assert_eq!(sum(ids(&tokenizer, &text)), (want.n, want.sha256), "{model}: {file}");
        }
    }
}

/// Text of many kinds, in pieces of a few lines.
fn real_text() -> Vec<String> {
    let mut all = texts();
    for file in [
        "data/wikitext2/wiki.valid.tokens",
        "data/c4/c4_sample.jsonl",
        "data/tinystories/tinystories_valid_excerpt.txt",
        "data/gsm8k/train.jsonl",
        "data/mt_bench/question.jsonl",
        "data/hellaswag/hellaswag_val.jsonl",
        "tokenizers/gpt2/merges.txt",
        "design.md",
    ] {
        let Some(path) = shared(file) else { continue };
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.split_inclusive('\n').take(1500).collect();
        all.extend(lines.chunks(7).map(|lines| lines.concat()));
    }
    all
}

#[test]
fn two_forms_of_one_vocabulary_give_the_same_ids() {
    let all = real_text();
    for (folder, parts, config) in [
        ("tokenizers/llama_spm", &["tokenizer.model"][..], r#"{"tokenizer_class": "LlamaTokenizer"}"#),
        ("models/stories260K", &["tokenizer.model"], r#"{"tokenizer_class": "LlamaTokenizer"}"#),
        ("tokenizers/gpt2", &["vocab.json", "merges.txt"], r#"{"tokenizer_class": "GPT2Tokenizer"}"#),
    ] {
        let Some(folder) = shared(folder) else { continue };
        let read = |name: &str| std::fs::read(folder.join(name)).unwrap();
        let config = |name: &'static str| (name, config.as_bytes().to_vec());
        let parts = parts.iter().map(|name| (*name, read(name))).chain([config("tokenizer_config.json")]);
        let parts = tokenizer::build("parts", &files(parts)).unwrap();
        let whole = [("tokenizer.json", read("tokenizer.json")), config("tokenizer_config.json")];
        let whole = tokenizer::build("whole", &files(whole)).unwrap();
        assert_eq!(parts.get_vocab(true), whole.get_vocab(true), "{}", folder.display());
        // Those that make the same piece may stand in another order: published files are older than the
        // converter.
        let [mut a, mut b] = [&parts, &whole].map(merges);
        a.sort();
        b.sort();
        assert!(a == b, "{}: merges", folder.display());
        for text in &all {
            assert_eq!(ids(&parts, text), ids(&whole, text), "{}: {text:?}", folder.display());
        }
    }
}

#[test]
fn a_class_that_sets_its_own_bos_does_so_with_tokenizer_json_too() {
    let built = tokenizer::build("x", &alone("tokenizer.model", golden("llama.model"))).unwrap();
    let json = built.to_string(false).unwrap().into_bytes();
    let with = |config: &str| {
        let all = [("tokenizer.json", json.clone()), ("tokenizer_config.json", config.into())];
        ids(&tokenizer::build("x", &files(all)).unwrap(), "a")
    };
    let a = with("{}")[1..].to_vec();
    assert_eq!(with("{}"), [vec![1], a.clone()].concat());
    let class = r#"{"tokenizer_class": "LlamaTokenizerFast""#;
    assert_eq!(with(&format!("{class}}}")), [vec![1], a.clone()].concat());
    assert_eq!(with(&format!(r#"{class}, "add_bos_token": false}}"#)), a);
    assert_eq!(
        with(&format!(r#"{class}, "add_bos_token": true, "add_eos_token": true}}"#)),
        [vec![1], a.clone(), vec![2]].concat()
    );
    // A class that does not is let be.
    let other = r#"{"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": false}"#;
    assert_eq!(with(other), [vec![1], a].concat());
}

#[test]
fn only_what_is_needed_is_read() {
    let asked = |present: &[&str]| {
        let mut asked = Vec::new();
        let found = tokenizer::collect(|name| {
            asked.push(name);
            Ok(present.contains(&name).then(Vec::new))
        });
        (asked[SETTINGS.len()..].to_vec(), found.unwrap().into_keys().collect::<Vec<_>>())
    };
    assert_eq!(
        asked(&["tokenizer.json", "tokenizer.model"]),
        (vec!["tokenizer.json"], vec!["tokenizer.json"])
    );
    assert_eq!(
        asked(&["tokenizer.model", "vocab.json", "added_tokens.json"]),
        (vec!["tokenizer.json", "tokenizer.model"], vec!["added_tokens.json", "tokenizer.model"])
    );
    assert_eq!(
        asked(&["vocab.json", "tekken.json"]).0,
        ["tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", "tekken.json"]
    );
    assert!(tokenizer::collect(|_| anyhow::bail!("no network")).is_err());
}

#[test]
fn what_is_no_vocabulary_is_named() {
    let tiktoken = b"IQ== 0\nIg== 1\nIw== 2\n".to_vec();
    let tekken = br#"{"config": {"pattern": "x"}, "vocab": [{"rank": 0, "token_bytes": "AA=="}]}"#.to_vec();
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n".to_vec();
    let config = |text: &str| ("tokenizer_config.json", text.as_bytes().to_vec());
    let llama = || ("tokenizer.model", golden("llama.model"));
    let gpt2 = || [("vocab.json", golden("vocab.json")), ("merges.txt", golden("merges.txt"))];
    for (all, parts) in [
        (
            vec![],
            &["`here`", "tokenizer.json, tokenizer.model (sentencepiece), or vocab.json with merges.txt"][..],
        ),
        (vec![("vocab.json", b"{}".to_vec())], &["`here`", "no vocabulary"]),
        (vec![("tekken.json", tekken.clone())], &["`here`", "tekken.json"]),
        (vec![("tokenizer.model", tekken.clone())], &["here/tokenizer.model`", "tekken.json"]),
        (vec![("tokenizer.json", tekken)], &["here/tokenizer.json`", "tekken.json"]),
        (vec![("tokenizer.model", tiktoken)], &["here/tokenizer.model`", "tiktoken"]),
        (vec![("tokenizer.model", lfs.clone())], &["here/tokenizer.model`", "Git LFS"]),
        (vec![("tokenizer.json", lfs)], &["here/tokenizer.json`", "Git LFS"]),
        (vec![("tokenizer.model", vec![])], &["here/tokenizer.model`", "no pieces"]),
        (vec![("tokenizer.json", b"{".to_vec())], &["here/tokenizer.json`"]),
        (vec![llama(), config("[]")], &["here/tokenizer_config.json`"]),
        (vec![llama(), config(r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#)], &["id `x`"]),
        (vec![llama(), config(r#"{"added_tokens_decoder": {"7": {}}}"#)], &["id 7", "`content`"]),
        (vec![llama(), config(r#"{"added_tokens_decoder": {"300": {"content": "a"}}}"#)], &["`a`", "300"]),
        (
            vec![llama(), config(r#"{"tokenizer_class": "OwnTokenizer"}"#)],
            &["`OwnTokenizer`", "add_bos_token"],
        ),
        (
            vec![llama(), config(r#"{"bos_token": "<B>", "add_bos_token": true}"#)],
            &["`<B>`", "no such token"],
        ),
        (
            vec![llama(), config(r#"{"tokenizer_class": "LlamaTokenizer", "bos_token": null}"#)],
            &["add_bos_token", "no bos_token"],
        ),
        (
            gpt2().into_iter().chain([config(r#"{"tokenizer_class": "OwnTokenizer"}"#)]).collect(),
            &["`OwnTokenizer`", "GPT2Tokenizer"],
        ),
        (
            vec![gpt2()[0].clone(), ("merges.txt", b"#version: 0.2\na b\nc\n".to_vec())],
            &["here/merges.txt`", "line 3", "`c`"],
        ),
        (
            vec![gpt2()[0].clone(), ("merges.txt", b"#version: 0.2\n\xe4 b\n".to_vec())],
            &["merges.txt`", "UTF-8"],
        ),
        (vec![gpt2()[0].clone(), ("merges.txt", "龘 b\n".into())], &["`here`", "龘"]),
        (vec![("vocab.json", br#"{"a": -1}"#.to_vec()), gpt2()[1].clone()], &["here/vocab.json`"]),
        (
            vec![("vocab.json", br#"{"a": 1, "b": 1}"#.to_vec()), gpt2()[1].clone()],
            &["`a` and `b`", "token 1"],
        ),
    ] {
        let error = error(&files(all));
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}

/// A varint, and a field of bytes: enough of protobuf to write a model by hand.
fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
    let mut all = vec![tag << 3 | 2];
    let mut n = bytes.len();
    while n > 127 {
        all.push(n as u8 | 128);
        n >>= 7;
    }
    all.push(n as u8);
    [all, bytes.to_vec()].concat()
}

fn piece(text: &str, score: f32, kind: u8) -> Vec<u8> {
    let score = [vec![2 << 3 | 5], score.to_le_bytes().to_vec()].concat();
    field(1, &[field(1, text.as_bytes()), score, vec![3 << 3, kind]].concat())
}

#[test]
fn a_model_at_odds_with_itself_is_named() {
    let unk = || piece("<unk>", 0., 2);
    let bpe = field(2, &[3 << 3, 2]);
    let map = |size: u32, trie: &[u32], texts: &[u8]| {
        let trie: Vec<u8> = trie.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        field(3, &field(2, &[size.to_le_bytes().to_vec(), trie, texts.to_vec()].concat()))
    };
    for (parts, part) in [
        (vec![piece("a", 0., 1)], "0 pieces stand for the unknown"),
        (vec![unk(), piece("b", 0., 2)], "2 pieces stand for the unknown"),
        (vec![unk(), piece("", 0., 1)], "piece 1 is empty"),
        (vec![unk(), piece("a", 0., 1), piece("a", 0., 1)], "`a` for the second time"),
        (vec![unk(), piece("a", f32::NAN, 1)], "the score of piece 1 (`a`) is NaN"),
        (vec![unk(), piece("a", 0., 5)], "kind 5"),
        (vec![unk(), piece(&"a".repeat(5000), 0., 1)], "5000 bytes"),
        (vec![unk(), field(2, &[3 << 3, 3])], "cuts into words"),
        (vec![unk(), field(2, &[3 << 3, 4])], "cuts into characters"),
        (vec![unk(), field(2, &[3 << 3, 9])], "model_type 9"),
        (vec![unk(), bpe.clone(), field(2, &[24 << 3 & 0x7f | 0x80, 1, 1])], "treat_whitespace_as_suffix"),
        (vec![unk(), bpe.clone()], "`<s>`"),
        (vec![unk(), field(3, &field(2, &[1, 2]))], "2 bytes are too few"),
        (vec![unk(), map(u32::MAX, &[0], b"")], "a trie of 4294967295 bytes"),
        (vec![unk(), map(0, &[], b"a\0")], "a trie of 0 bytes"),
        (vec![unk(), map(4, &[0], b"\xff")], "UTF-8"),
        (vec![unk(), map(4, &[0], b"")], "points outside itself"),
        (vec![unk(), vec![0xff; 40]], "no sentencepiece model"),
    ] {
        let error = error(&alone("tokenizer.model", parts.concat()));
        assert!(error.contains("`here/tokenizer.model`") && error.contains(part), "{part}: {error}");
    }
}

/// Cut anywhere, or with bytes thrown in: an error, or a tokenizer that encodes; never a panic.
#[test]
fn damaged_models_do_no_harm() {
    let mut rng = StdRng::seed_from_u64(7);
    let texts = texts();
    for file in ["llama.model", "unigram.model"] {
        let whole = golden(file);
        for round in 0..300 {
            let mut bytes = whole.clone();
            if round % 2 == 0 {
                bytes.truncate(rng.random_range(0..whole.len()));
            }
            for _ in 0..rng.random_range(0..4) {
                if !bytes.is_empty() {
                    // The charsmap lies near the end.
                    let from = if rng.random() { bytes.len() * 3 / 4 } else { 0 };
                    let at = rng.random_range(from..bytes.len());
                    bytes[at] = rng.random();
                }
            }
            if let Ok(tokenizer) = tokenizer::build("here", &alone("tokenizer.model", bytes)) {
                for text in &texts {
                    let _ = tokenizer.encode_fast(text.as_str(), true);
                }
            }
        }
        for _ in 0..200 {
            let bytes: Vec<u8> = (0..rng.random_range(0..400)).map(|_| rng.random()).collect();
            error(&alone("tokenizer.model", bytes));
        }
    }
}
