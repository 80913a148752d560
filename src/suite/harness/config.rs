//! A task's file with all that it includes: keys, the file that said each, and errors that name both.
use super::super::yaml::{self, Node, Table};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::Result;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// What a task's file may say.
const KEYS: &[&str] = &[
    "task",
    "task_alias",
    "tag",
    "dataset_path",
    "dataset_name",
    "dataset_kwargs",
    "training_split",
    "validation_split",
    "test_split",
    "fewshot_split",
    "output_type",
    "doc_to_text",
    "doc_to_target",
    "doc_to_choice",
    "description",
    "target_delimiter",
    "fewshot_delimiter",
    "fewshot_config",
    "num_fewshot",
    "metric_list",
    "filter_list",
    "generation_kwargs",
    "repeats",
    "metadata",
    "should_decontaminate",
    "doc_to_decontamination_query",
    "unsafe_code",
    "include",
];

/// Keys of the harness that no file can say here, with why.
const NOT_HERE: &[(&str, &str)] = &[
    ("class", "a task that is written in Python"),
    ("custom_dataset", "data that Python makes"),
    ("process_docs", "items that Python changes"),
    ("process_results", "scores that Python computes"),
    ("use_prompt", "a prompt of promptsource, which is another package"),
    ("gen_prefix", "the beginning of an answer; write it at the end of `doc_to_text`"),
    ("doc_to_image", "pictures"),
    ("doc_to_audio", "sounds"),
    ("task_list", "several tasks of one file; a file of your own for each can include it"),
];

/// What cannot move a number, whatever it says.
const IDLE: &[&str] =
    &["metadata", "doc_to_decontamination_query", "should_decontaminate", "unsafe_code", "tag"];

/// Files that a file includes, and they.
const FILES: usize = 256;

/// A file with what it includes.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file.
    pub path: PathBuf,
    /// Its keys, over those of what it includes.
    pub table: Table,
    /// The file that said each.
    from: BTreeMap<String, String>,
}

impl Config {
    /// Reads a file and all that it includes.
    pub fn load(path: &Path) -> Result<Self> {
        let mut config = Self { path: path.into(), table: Table::default(), from: BTreeMap::new() };
        include(path, &mut Vec::new(), &mut 0, &mut config)?;
        Ok(config)
    }

    /// Keys of another in place of this one's.
    pub fn overlay(&mut self, table: &Table, label: &str) {
        self.table.over(&table.0);
        self.from.extend(table.0.iter().map(|(key, _)| (key.clone(), label.to_string())));
    }

    /// The file's name, for errors.
    pub fn label(&self) -> String {
        self.path.display().to_string()
    }

    /// Where a key stands, for errors.
    pub fn at(&self, key: &str) -> String {
        let top = key.split('.').next().unwrap_or(key);
        let file = self.from.get(top).cloned().unwrap_or_else(|| self.label());
        format!("`{file}`: `{key}`")
    }

    /// A key's value; none where it is null, as in Python.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.table.get(key).filter(|node| **node != Node::Null)
    }

    /// A text; a number where one was meant as a name.
    pub fn text(&self, key: &str) -> Result<Option<String>> {
        match self.get(key) {
            None => Ok(None),
            Some(Node::Text(text)) => Ok(Some(text.clone())),
            Some(Node::Int(n)) if key == "dataset_name" => Ok(Some(n.to_string())),
            Some(other) => mistake!("{} is {}; it is a text", self.at(key), other.words()),
        }
    }

    /// A whole number.
    pub fn whole(&self, key: &str, usual: usize) -> Result<usize> {
        match self.get(key) {
            None => Ok(usual),
            Some(Node::Int(n)) if (0..=1 << 20).contains(n) => Ok(*n as usize),
            Some(other) => mistake!("{} is {}; it is a whole number, 0 or more", self.at(key), other.words()),
        }
    }

    /// A table under a key; an empty one where there is none.
    pub fn under(&self, key: &str) -> Result<Table> {
        match self.get(key) {
            None => Ok(Table::default()),
            Some(Node::Table(table)) => Ok(table.clone()),
            Some(other) => mistake!("{} is {}; it is a table", self.at(key), other.words()),
        }
    }

    /// A list of tables under a key, or one table.
    pub fn tables(&self, key: &str) -> Result<Option<Vec<Table>>> {
        let list = match self.get(key) {
            None => return Ok(None),
            Some(Node::Table(table)) => return Ok(Some(vec![table.clone()])),
            Some(Node::List(list)) => list,
            Some(other) => mistake!("{} is {}; it is a list of tables", self.at(key), other.words()),
        };
        let table = |node: &Node| match node {
            Node::Table(table) => Ok(table.clone()),
            other => mistake!("{} holds {}; it is a list of tables", self.at(key), other.words()),
        };
        list.iter().map(table).collect::<Result<_>>().map(Some)
    }

    /// Every key is known, and none is Python.
    pub fn check(&self) -> Result<()> {
        let mut python = Vec::new();
        for (key, node) in &self.table.0 {
            if !IDLE.contains(&key.as_str()) {
                functions(key, node, &mut python);
            }
        }
        if let Some((first, name)) = python.first() {
            let keys: Vec<String> = python.iter().map(|(key, _)| format!("`{key}`")).collect();
            mistake!(
                "{}: `!function {name}` is Python, which is never run here (in all: {}). A TOML task can say most of it: \
                 `[fields]`, `clean` and templates change items, `filters` answers (docs/adding.md, \"A task\")",
                self.at(first),
                keys.join(", ")
            );
        }
        for (key, node) in &self.table.0 {
            if let Some((_, why)) = NOT_HERE.iter().find(|(k, _)| k == key) {
                if *node != Node::Null {
                    mistake!("{}: {why}: not read here", self.at(key));
                }
            } else if !KEYS.contains(&key.as_str()) {
                let close = nearest(key, KEYS.iter().copied());
                mistake!("{}: no such key{close}; there are: {}", self.at(key), KEYS.join(", "));
            }
        }
        Ok(())
    }
}

fn functions(key: &str, node: &Node, found: &mut Vec<(String, String)>) {
    match node {
        Node::Function(name) => found.push((key.into(), name.clone())),
        Node::List(list) => list.iter().for_each(|node| functions(key, node, found)),
        Node::Table(table) => {
            table.0.iter().for_each(|(k, node)| functions(&format!("{key}.{k}"), node, found));
        }
        _ => {}
    }
}

/// One file into a configuration: first what it includes, in order, then its own keys.
fn include(path: &Path, way: &mut Vec<PathBuf>, files: &mut usize, into: &mut Config) -> Result<()> {
    let label = path.display().to_string();
    let place = path.canonicalize().unwrap_or_else(|_| path.into());
    if way.contains(&place) {
        mistake!("`{label}`: `include`: it includes itself, by way of {} files", way.len());
    }
    *files += 1;
    if *files > FILES {
        mistake!("`{label}`: `include`: more than {FILES} files include one another");
    }
    let about = fs::metadata(path).blame(format!("`{label}`"))?;
    if about.is_dir() {
        mistake!("`{label}` is a folder; a task is one file");
    }
    if about.len() > yaml::LARGEST as u64 {
        mistake!("`{label}`: {} bytes; a task file has at most {}", about.len(), yaml::LARGEST);
    }
    let table = yaml::parse(&fs::read(path).blame(format!("`{label}`"))?).blame(format!("`{label}`"))?;
    let names = match table.get("include") {
        None | Some(Node::Null) => Vec::new(),
        Some(Node::List(list)) => list.clone(),
        Some(one) => vec![one.clone()],
    };
    way.push(place);
    for name in names {
        let Node::Text(name) = name else {
            mistake!("`{label}`: `include` is {}; it is a file's name, or a list of them", name.words())
        };
        let other = path.parent().unwrap_or(Path::new("")).join(&name);
        if !other.exists() {
            mistake!("`{label}`: `include`: there is no `{}`", other.display());
        }
        include(&other, way, files, into)?;
    }
    way.pop();
    let own = Table(table.0.into_iter().filter(|(key, _)| key != "include").collect());
    into.overlay(&own, &label);
    Ok(())
}

/// A text, or a list of them.
pub fn texts(at: &str, node: &Node) -> Result<Vec<String>> {
    let one = |node: &Node| match node {
        Node::Text(text) => Ok(text.clone()),
        other => mistake!("{at} holds {}; it is a text, or a list of texts", other.words()),
    };
    match node {
        Node::Null => Ok(Vec::new()),
        Node::List(list) => list.iter().map(one).collect(),
        node => Ok(vec![one(node)?]),
    }
}
