//! Where items of an lm-evaluation-harness task come from: `dataset_path`, its splits and `dataset_kwargs` as `[data]`.
//!
//! `json`, `csv`, `parquet` and `text` are files, relative to the task's own (the harness: to the working directory).
//! Anything else is a dataset on the Hub: at a commit, or no number can be trusted to stay.
use super::{
    super::{
        rows,
        yaml::{Node, Table},
    },
    config::{Config, texts},
};
use crate::{mistake, mistake::nearest};
use anyhow::Result;
use serde_json::{Map, Value, json};

/// What `dataset_kwargs` may say.
const KNOWN: &[&str] = &[
    "data_files",
    "data_dir",
    "revision",
    "field",
    "column_names",
    "delimiter",
    "sep",
    "sample_by",
    "trust_remote_code",
];

/// The readers of files, with the endings of those.
const READERS: &[(&str, &[&str])] = &[
    ("json", &["json", "jsonl"]),
    ("csv", &["csv", "tsv"]),
    ("parquet", &["parquet"]),
    ("text", &["txt", "raw", "tokens"]),
];

/// The split that is asked about: of the test, else of validation.
pub fn items(c: &Config, name: &str) -> Result<Value> {
    match asked(c)? {
        Some(split) => data(c, &split, name),
        None => mistake!(
            "`{}`: neither `test_split` nor `validation_split` says which items are asked",
            c.label()
        ),
    }
}

fn asked(c: &Config) -> Result<Option<String>> {
    Ok(c.text("test_split")?.or(c.text("validation_split")?))
}

/// What examples are drawn from: a split, samples that are written out, or the harness's own rule. None where that is
/// what is asked about.
pub fn pool(c: &Config, split: Option<&str>, samples: Option<&Node>, name: &str) -> Result<Option<Value>> {
    let split = match (split, samples) {
        (Some(split), _) => Some(split.to_string()),
        (None, Some(samples)) => {
            let at = c.at("fewshot_config.samples");
            let Node::List(list) = samples else {
                mistake!("{at} is {}; it is a list of tables", samples.words())
            };
            let table = |node: &Node| match node {
                Node::Table(table) => row(&at, table),
                other => mistake!("{at} holds {}; it is a list of tables", other.words()),
            };
            let items: Vec<Value> = list.iter().map(table).collect::<Result<_>>()?;
            if items.is_empty() {
                mistake!("{at} is empty");
            }
            return Ok(Some(json!({ "items": items })));
        }
        (None, None) => c.text("training_split")?.or(c.text("validation_split")?),
    };
    match split {
        Some(split) if asked(c)?.as_ref() != Some(&split) => {
            data(c, &split, &format!("{name}-fewshot")).map(Some)
        }
        _ => Ok(None),
    }
}

fn row(at: &str, table: &Table) -> Result<Value> {
    let mut map = Map::new();
    for (key, node) in &table.0 {
        map.insert(key.clone(), value(&format!("{at}: `{key}`"), node)?);
    }
    Ok(Value::Object(map))
}

fn value(at: &str, node: &Node) -> Result<Value> {
    Ok(match node {
        Node::Bool(b) => json!(b),
        Node::Int(n) => json!(n),
        Node::Float(x) if x.is_finite() => json!(x),
        Node::Text(text) => json!(text),
        Node::List(list) => list.iter().map(|node| value(at, node)).collect::<Result<_>>()?,
        Node::Table(table) => row(at, table)?,
        Node::Null | Node::Float(_) | Node::Function(_) => {
            mistake!("{at} is {}; an example has texts, numbers, lists and tables", node.words())
        }
    })
}

/// A split's items. `name`: as `--set data.NAME` calls them.
fn data(c: &Config, split: &str, name: &str) -> Result<Value> {
    let kwargs = c.under("dataset_kwargs")?;
    for (key, node) in &kwargs.0 {
        if *node != Node::Null && !KNOWN.contains(&key.as_str()) {
            let close = nearest(key, KNOWN.iter().copied());
            let at = c.at(&format!("dataset_kwargs.{key}"));
            mistake!("{at}: not read here{close}; there are: {}", KNOWN.join(", "));
        }
    }
    let text = |key: &str| match kwargs.get(key) {
        None | Some(Node::Null) => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text.clone())),
        Some(other) => {
            mistake!("{} is {}; it is a text", c.at(&format!("dataset_kwargs.{key}")), other.words())
        }
    };
    let Some(path) = c.text("dataset_path")? else {
        mistake!("`{}`: no `dataset_path` says where its items are", c.label())
    };
    let files = match kwargs.get("data_files") {
        None | Some(Node::Null) => None,
        Some(node) => Some(of_split(c, node, split)?),
    };
    let dir = text("data_dir")?;
    let inside = |name: &String| match &dir {
        Some(dir) if !name.contains("://") => format!("{}/{name}", dir.trim_end_matches('/')),
        _ => name.clone(),
    };
    let files: Option<Vec<String>> = files.map(|f| f.iter().map(inside).collect());
    let revision = text("revision")?;
    if let Some((reader, endings)) = READERS.iter().find(|(reader, _)| *reader == path) {
        let Some(files) = files else {
            mistake!(
                "{}: `{reader}` reads files: say `dataset_kwargs: {{data_files: ...}}`",
                c.at("dataset_path")
            )
        };
        return read(c, &kwargs, &files, revision.as_deref(), (*reader, *endings));
    }
    if path.starts_with(['.', '/', '~']) || path.contains('\\') {
        mistake!(
            "{} is `{path}`, a folder or a script: name its files, with `dataset_path: json` (csv, parquet, text) and \
             `dataset_kwargs: {{data_files: ...}}`",
            c.at("dataset_path")
        );
    }
    if let Some((key, _)) = kwargs
        .0
        .iter()
        .find(|(k, _)| ["field", "column_names", "delimiter", "sep", "sample_by"].contains(&k.as_str()))
    {
        mistake!(
            "{}: it is for files that `dataset_path: json` or csv reads",
            c.at(&format!("dataset_kwargs.{key}"))
        );
    }
    match (files, revision) {
        (Some(files), Some(revision)) => {
            Ok(json!({ "hub": { "repo": path, "revision": revision, "file": files } }))
        }
        (_, revision) => {
            let mut all = json!({ "repo": path, "split": split, "task": name });
            if let Some(config) = c.text("dataset_name")? {
                all["config"] = config.into();
            }
            if let Some(revision) = revision {
                all["revision"] = revision.into();
            }
            Ok(json!({ "split": all }))
        }
    }
}

/// Whether an item is a line of a text, which then has its line break at the end.
pub fn is_lines(c: &Config) -> Result<bool> {
    let document = c.under("dataset_kwargs")?.get("sample_by") == Some(&Node::Text("document".into()));
    Ok(c.get("dataset_path") == Some(&Node::Text("text".into())) && !document)
}

/// The files of a split: `data_files` is one or a list of them (then all is the split `train`), or a table of splits.
fn of_split(c: &Config, node: &Node, split: &str) -> Result<Vec<String>> {
    let at = c.at("dataset_kwargs.data_files");
    let (names, splits) = match node {
        Node::Table(table) => {
            let splits: Vec<&str> = table.0.iter().map(|(key, _)| key.as_str()).collect();
            (table.get(split).map(|node| texts(&at, node)).transpose()?, splits.join(", "))
        }
        node => (Some(texts(&at, node)?).filter(|_| split == "train"), "train".into()),
    };
    match names {
        Some(names) if !names.is_empty() => Ok(names),
        Some(_) => mistake!("{at}: the split `{split}` has no file"),
        None => mistake!("{at}: no split `{split}`; there are: {splits}"),
    }
}

/// Files that one of [`READERS`] reads, here or on the Hub.
fn read(
    c: &Config,
    kwargs: &Table,
    files: &[String],
    revision: Option<&str>,
    (reader, endings): (&str, &[&str]),
) -> Result<Value> {
    let at = c.at("dataset_kwargs.data_files");
    for name in files {
        if !rows::ending(name).is_some_and(|ending| endings.contains(&ending)) {
            mistake!("{at}: `{name}` is no file that `{reader}` reads (.{})", endings.join(" ."));
        }
    }
    let mut all = Map::new();
    for (key, node) in kwargs.0.iter().filter(|(_, node)| *node != Node::Null) {
        let here = c.at(&format!("dataset_kwargs.{key}"));
        match (key.as_str(), node) {
            ("data_files" | "data_dir" | "revision" | "trust_remote_code", _) => {}
            ("field", Node::Text(field)) if reader == "json" => {
                all.insert("field".into(), field.as_str().into());
            }
            ("column_names", node) if reader == "csv" => {
                all.insert("columns".into(), json!(texts(&here, node)?));
            }
            ("delimiter" | "sep", Node::Text(text)) if reader == "csv" => {
                let right =
                    |name: &String| rows::ending(name) == Some(if text == "\t" { "tsv" } else { "csv" });
                if !["\t", ","].contains(&text.as_str()) || !files.iter().all(right) {
                    mistake!("{here} is {text:?}: here a .csv file has commas and a .tsv file tabs");
                }
            }
            ("sample_by", Node::Text(text))
                if reader == "text" && ["line", "document"].contains(&text.as_str()) => {}
            (_, node) => mistake!("{here} is {}: not read here, of `{reader}`", node.words()),
        }
    }
    if is_lines(c)? {
        all.insert("cut".into(), "lines".into());
    }
    let remote: Vec<&str> = files.iter().filter_map(|name| name.strip_prefix("hf://datasets/")).collect();
    if remote.is_empty() {
        if let Some(name) = files.iter().find(|name| name.contains("://")) {
            mistake!("{at}: `{name}` is fetched by nobody here: save it beside the task, and name that file");
        }
        all.insert("path".into(), json!(files));
        return Ok(json!({ "file": all }));
    }
    let mut repos = Vec::new();
    let mut names = Vec::new();
    for name in &remote {
        let mut parts = name.splitn(3, '/');
        let (Some(org), Some(repo), Some(file)) = (parts.next(), parts.next(), parts.next()) else {
            mistake!("{at}: `hf://datasets/{name}` is not hf://datasets/org/name/file");
        };
        let (repo, own) = repo.split_once('@').map_or((repo, None), |(repo, own)| (repo, Some(own)));
        repos.push((format!("{org}/{repo}"), own.or(revision)));
        names.push(file);
    }
    if remote.len() < files.len() || repos.iter().any(|r| *r != repos[0]) {
        mistake!("{at}: files of one split are in one place");
    }
    let (repo, Some(revision)) = (&repos[0].0, repos[0].1) else {
        mistake!("{at}: say which commit: hf://datasets/{}@COMMIT/{}", repos[0].0, names[0]);
    };
    all.insert("repo".into(), json!(repo));
    all.insert("revision".into(), json!(revision));
    all.insert("file".into(), json!(names));
    Ok(json!({ "hub": all }))
}
