//! Texts to predict, in every protocol of the suite `language`: which tokens are read, and which of them are scored.
use crate::{
    common::{repo, shared},
    evaluators::{BOS, bytes, uniform},
};
use bitsweep::{
    eval::Outcome,
    mistake::is_mistake,
    study::evaluate::evaluate,
    suite::{
        ask::Ask,
        data::{self, Instead, Local},
        find::{self, Found},
        task::{FileData, Names},
    },
};
use serde_json::Value;
use std::{fs, path::Path};

fn golden() -> Value {
    serde_json::from_slice(&fs::read(repo("tests/goldens/language.json")).unwrap()).unwrap()
}

fn task(name: &str) -> Found {
    find::find(&format!("language/{name}"), Path::new("")).unwrap().remove(0)
}

/// With a window for short texts.
fn small(name: &str, change: impl Fn(&mut bitsweep::suite::ask::Perplexity)) -> Found {
    let mut found = task(name);
    let Ask::Perplexity(p) = &mut found.task.ask else { panic!("{name}") };
    p.window = Some(24);
    change(p);
    found
}

fn items(found: &Found, path: &Path) -> data::Items {
    let file =
        FileData { path: Names::One(path.display().to_string()), field: None, columns: None, cut: None };
    let instead = Instead { items: Some(Local { folder: "".into(), file }), ..Instead::default() };
    let no_hub = || anyhow::bail!("no hub here");
    data::load(&found.label, &found.task, &found.place, &instead, &no_hub).unwrap()
}

fn tokens(value: &Value) -> Vec<Vec<u32>> {
    serde_json::from_value(value.clone()).unwrap()
}

/// The windows that a task reads of a file.
fn read(found: &Found, path: &Path, limit: Option<usize>) -> anyhow::Result<Vec<Vec<u32>>> {
    let (mut lm, mut full) = (bytes(uniform), bytes(uniform));
    let outcomes = evaluate(&mut lm, &mut full, (limit, 0), found, &items(found, path))?;
    assert_eq!(outcomes.len(), lm.asked.len());
    for (s, (_, outcome)) in lm.asked.iter().zip(&outcomes) {
        let Outcome::Text(loss) = outcome else { panic!() };
        assert_eq!((s.predict.clone(), loss.tokens), (1..24, 23));
    }
    Ok(lm.asked.into_iter().map(|s| s.tokens).collect())
}

#[test]
fn windows_are_gptq_s() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let wiki = write("wiki.test.raw", golden["wiki"].as_str().unwrap());
    assert_eq!(read(&small("wikitext2", |_| ()), &wiki, None).unwrap(), tokens(&golden["wikitext2"]));
    let sentences = write("ptb.txt", golden["sentences"].as_str().unwrap());
    for name in ["ptb", "ptb_new"] {
        assert_eq!(read(&small(name, |_| ()), &sentences, None).unwrap(), tokens(&golden[name]), "{name}");
    }
    // As the Hub's files have it, and as GPTQ's code reads it.
    let rows: String = golden["sentences"].as_str().unwrap().lines().fold(String::new(), |all, line| {
        all + &serde_json::json!({ "sentence": line.trim() }).to_string() + "\n"
    });
    let rows = write("ptb.jsonl", &rows);
    assert_eq!(read(&small("ptb", |_| ()), &rows, None).unwrap(), tokens(&golden["ptb"]));

    let documents = golden["documents"].as_array().unwrap();
    let documents = documents
        .iter()
        .fold(String::new(), |all, d| all + &serde_json::json!({ "text": d }).to_string() + "\n");
    let documents = write("c4.jsonl", &documents);
    let c4 = small("c4", |p| p.windows = Some(30));
    let drawn = tokens(&golden["c4"]);
    assert_eq!(read(&c4, &documents, None).unwrap(), drawn);
    // A limit takes the first of the same draws.
    assert_eq!(read(&c4, &documents, Some(7)).unwrap(), drawn[..7]);
    let other = small("c4", |p| (p.windows, p.seed) = (Some(30), Some(3)));
    assert_eq!(read(&other, &documents, None).unwrap(), tokens(&golden["c4_seed_3"]));
    let new = small("c4_new", |p| (p.items, p.windows) = (Some(9), Some(6)));
    assert_eq!(read(&new, &documents, None).unwrap(), tokens(&golden["c4_new"]));

    let short = write("short.jsonl", "{\"text\": \"too short\"}\n{\"text\": \"\"}\n");
    let error = read(&c4, &short, None).unwrap_err();
    assert!(is_mistake(&error) && format!("{error:#}").contains("none of 2 items"), "{error:#}");
    // An item as long as a window is one; GPTQ's code fails there.
    let just = write("just.jsonl", "{\"text\": \"twenty-three characters.\"}\n");
    let one = &read(&c4, &just, Some(1)).unwrap()[0];
    assert_eq!((one.len(), one[0]), (24, BOS));
}

#[test]
fn pages_are_the_harness_s() {
    let (golden, folder) = (golden(), tempfile::tempdir().unwrap());
    let path = folder.path().join("wiki.test.raw");
    fs::write(&path, golden["wiki"].as_str().unwrap()).unwrap();
    let found = task("wikitext");
    let Ask::Perplexity(p) = &found.task.ask else { panic!() };
    let texts = bitsweep::suite::requests::texts(&found.task, &items(&found, &path), &p.text).unwrap();
    let wanted = golden["pages"].as_array().unwrap();
    assert_eq!(texts.len(), wanted.len());
    for (text, want) in texts.iter().zip(wanted) {
        assert_eq!(text.text, want["text"].as_str().unwrap());
        assert_eq!(text.raw.len() as u64, want["bytes"].as_u64().unwrap());
    }
    let (mut lm, mut full) = (bytes(uniform), bytes(uniform));
    let outcomes = evaluate(&mut lm, &mut full, (None, 0), &found, &items(&found, &path)).unwrap();
    for ((_, outcome), want) in outcomes.iter().zip(wanted) {
        let Outcome::Text(loss) = outcome else { panic!() };
        assert_eq!((loss.words as u64, loss.bytes as u64), {
            (want["words"].as_u64().unwrap(), want["bytes"].as_u64().unwrap())
        });
    }
}

/// The published test split: 4,358 lines and 62 pages, as everybody counts them.
#[test]
fn wikitext_is_whole() {
    let Some(path) = shared("data/wikitext2/wiki.test.raw") else { return };
    assert_eq!(items(&task("wikitext2"), &path).rows.len(), 4358);
    assert_eq!(items(&task("wikitext"), &path).rows.len(), 62);
    assert_eq!(items(&task("wikitext2_llama_cpp"), &path).rows.len(), 1);
}

#[test]
fn settings_that_make_no_sense() {
    let head = "about = ''\nversion = 1\nmetrics = ['perplexity']\n[data.file]\npath = 'a.txt'\n";
    for (more, ask, says) in [
        ("", "protocol = 'windows'\nseed = 1", "`seed` is for the protocol `drawn`"),
        ("", "protocol = 'rolling'\nwindows = 1", "`windows` is for"),
        ("", "protocol = 'drawn'\nitems = 1", "`items` is for"),
        ("", "windows = 0", "`windows` 1 to"),
        ("", "protocol = 'drawn'\nwindows = 9999999", "`windows` 1 to"),
        ("cut = 'pages'\n", "", "unknown variant `pages`"),
        ("cut = { begins = '(' }\n", "", "`cut.begins`"),
    ] {
        let text = format!("{head}{more}[ask.perplexity]\n{ask}\n");
        let error = bitsweep::suite::Task::parse("t.toml", &text).unwrap_err();
        assert!(is_mistake(&error) && format!("{error:#}").contains(says), "{more}{ask}: {error:#}");
    }
}
