//! lm-evaluation-harness's task files: its YAML becomes a [`Task`], and all behind it is as for any other task.
//!
//! A key means what it means in release 0.4.13. What would be Python (`!function`), what is not known, and what is known
//! but not computed here are errors that name the file and the key. Nothing is run. The Jinja that it takes to say
//! [`Field`](Said::Field) is in `python`: `field`, `words`, `told`, `answers`.
use super::{
    data::Place,
    filter::{Chain, Filter},
    find::Found,
    sources,
    task::Task,
    template::Template,
    yaml::{self, Node, Table},
};
use crate::{mistake, mistake::Blame, mistake::nearest};
use anyhow::Result;
use serde_json::{Map, Value, json};
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
pub(super) struct Config {
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
        for (key, node) in &table.0 {
            self.table.set(key, node.clone());
            self.from.insert(key.clone(), label.into());
        }
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

    fn whole(&self, key: &str, usual: usize) -> Result<usize> {
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
    fn tables(&self, key: &str) -> Result<Option<Vec<Table>>> {
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
    fn check(&self) -> Result<()> {
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

/// What `doc_to_text`, `doc_to_target` or a description says.
enum Said {
    /// The name of a field; where an item has none of that name, the text as it stands.
    Field(String),
    /// Jinja.
    Template(String),
    /// An index.
    Number(usize),
}

impl Said {
    fn read(at: &str, node: &Node) -> Result<Self> {
        match node {
            Node::Text(text) if is_template(text) => {
                Template::new("it", text).blame(at)?;
                Ok(Said::Template(text.clone()))
            }
            Node::Text(text) if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) => {
                Self::number(at, text.parse().unwrap_or(i64::MAX))
            }
            Node::Text(text) => Ok(Said::Field(text.clone())),
            Node::Int(n) => Self::number(at, *n),
            other => mistake!("{at} is {}; it is a template, a field's name, or an index", other.words()),
        }
    }

    fn number(at: &str, n: i64) -> Result<Self> {
        match usize::try_from(n).ok().filter(|n| *n < 1 << 20) {
            Some(n) => Ok(Said::Number(n)),
            None => mistake!("{at} is {n}, which is no index"),
        }
    }

    /// A template that gives a text.
    fn words(&self, at: &str) -> Result<String> {
        match self {
            Said::Template(source) => Ok(source.clone()),
            Said::Field(name) if name.is_empty() => Ok(String::new()),
            Said::Field(name) => Ok(format!("{{{{ field({}) | words }}}}", quoted(name))),
            Said::Number(n) => mistake!(
                "{at} is the index {n}: of several contexts with one ending. Say it in TOML: `prompts` and `ending`"
            ),
        }
    }

    /// An expression that gives the value, where it can be said in one.
    fn expression(&self) -> Option<String> {
        match self {
            Said::Number(n) => Some(n.to_string()),
            Said::Field(name) => Some(format!("field({})", quoted(name))),
            Said::Template(source) => {
                let inside = source.trim().strip_prefix("{{")?.strip_suffix("}}")?;
                let inside = inside.strip_prefix(['-', '+']).unwrap_or(inside);
                let inside = inside.strip_suffix(['-', '+']).unwrap_or(inside);
                (!is_template(inside) && !inside.contains("}}")).then(|| format!("({})", inside.trim()))
            }
        }
    }
}

fn is_template(text: &str) -> bool {
    ["{{", "{%", "{#"].iter().any(|mark| text.contains(mark))
}

/// As a text inside of Jinja.
fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// As a template that gives just this text.
fn constant(text: &str) -> String {
    if is_template(text) { format!("{{{{ {} }}}}", quoted(text)) } else { text.into() }
}

/// The tasks of a file: one, or a group's.
pub fn find(path: &Path) -> Result<Vec<Found>> {
    let config = Config::load(path)?;
    match (config.get("group"), config.get("task")) {
        (None, Some(Node::List(_))) | (Some(_), _) => super::group::tasks(&config),
        _ => Ok(vec![task(&config, "", None)?]),
    }
}

/// One task. `name`: in place of its own.
pub(super) fn task(c: &Config, suite: &str, name: Option<&str>) -> Result<Found> {
    c.check()?;
    let label = c.label();
    let Some(name) = name.map(str::to_string).or(c.text("task")?) else {
        mistake!("`{label}`: no `task` names it: a file that others include is no task");
    };
    if name.is_empty() || name.contains(['/', '\\']) {
        mistake!("{} is `{name}`; it is a name, without a slash", c.at("task"));
    }
    let kind = c.text("output_type")?.unwrap_or_else(|| "generate_until".into());
    let (metrics, ask) = match kind.as_str() {
        "multiple_choice" => (metrics(c, CHOICE)?.0, json!({ "choice": choice(c)? })),
        "loglikelihood" => (metrics(c, CLOZE)?.0, json!({ "cloze": cloze(c)? })),
        "loglikelihood_rolling" => {
            let text = target(c)?.words(&c.at("doc_to_target"))?;
            (metrics(c, ROLLING)?.0, json!({ "perplexity": { "text": text, "protocol": "rolling" } }))
        }
        "generate_until" => {
            let (names, exact) = metrics(c, GENERATE)?;
            let (filters, generate) = generate(c, exact)?;
            // Where there are several filters, each one's value.
            let each = |m: &String| filters.iter().map(|f| format!("{m}:{f}")).collect::<Vec<_>>();
            let names = if filters.len() > 1 { names.iter().flat_map(each).collect() } else { names };
            (names, json!({ "generate": generate }))
        }
        other => mistake!(
            "{} is `{other}`{}; there are: {}",
            c.at("output_type"),
            nearest(other, OUTPUTS.iter().copied()),
            OUTPUTS.join(", ")
        ),
    };
    if kind != "generate_until" {
        only_first(c)?;
    }
    let about =
        c.text("task_alias")?.filter(|alias| *alias != name).map_or(String::new(), |a| format!(" ({a})"));
    let mut all = json!({
        "about": format!("lm-evaluation-harness's {name}{about}"),
        "version": version(c),
        "metrics": metrics,
        "data": sources::items(c, &name)?,
        "ask": ask,
    });
    let shots = c.whole("num_fewshot", 0)?;
    if shots > 0 && kind != "loglikelihood_rolling" {
        all["fewshot"] = fewshot(c, shots, &kind, &name)?;
    }
    let text = toml::Table::try_from(&all).blame(format!("`{label}`"))?.to_string();
    Ok(Found {
        suite: suite.into(),
        name,
        task: Task::parse(&label, &text)?,
        place: Place::Folder(c.path.parent().unwrap_or(Path::new("")).to_path_buf()),
        label,
    })
}

const OUTPUTS: &[&str] = &["multiple_choice", "loglikelihood", "loglikelihood_rolling", "generate_until"];

/// The whole part of `metadata.version`: what else it says is in the task itself.
fn version(c: &Config) -> u32 {
    let said = match c.get("metadata") {
        Some(Node::Table(table)) => table.get("version"),
        _ => None,
    };
    match said {
        Some(Node::Int(n)) => u32::try_from(*n).unwrap_or(0),
        Some(Node::Float(x)) if x.is_finite() && *x >= 0. => *x as u32,
        Some(Node::Text(t)) => t.split('.').next().and_then(|first| first.parse().ok()).unwrap_or(0),
        _ => 0,
    }
}

fn said(c: &Config, key: &str) -> Result<Said> {
    match c.get(key) {
        Some(node) => Said::read(&c.at(key), node),
        None => mistake!("`{}`: no `{key}`", c.label()),
    }
}

fn target(c: &Config) -> Result<Said> {
    said(c, "doc_to_target")
}

/// A delimiter: a text as it stands.
fn delimiter(c: &Config, key: &str, usual: &str) -> Result<String> {
    Ok(c.text(key)?.unwrap_or_else(|| usual.into()))
}

fn description(c: &Config) -> Result<String> {
    match c.get("description") {
        Some(node) => Said::read(&c.at("description"), node)?.words(&c.at("description")),
        None => Ok(String::new()),
    }
}

/// `doc_to_choice`: the endings as a task has them, and as an expression.
fn choices(c: &Config) -> Result<(Value, Option<String>)> {
    let at = c.at("doc_to_choice");
    let list: Vec<&Node> = match c.get("doc_to_choice") {
        None => mistake!("`{}`: a multiple_choice task has `doc_to_choice`", c.label()),
        Some(Node::List(list)) => list.iter().collect(),
        Some(Node::Table(table)) => table.0.iter().map(|(_, node)| node).collect(),
        Some(node) => {
            return Ok(match Said::read(&at, node)? {
                Said::Number(n) => {
                    mistake!("{at} is {n}; it is a list, a template that gives one, or a field")
                }
                Said::Template(source) => {
                    let expression = Said::Template(source.clone()).expression();
                    (json!(source.trim()), expression)
                }
                Said::Field(name) => {
                    let expression = Said::Field(name).expression();
                    (json!(format!("{{{{ {} }}}}", expression.clone().unwrap_or_default())), expression)
                }
            });
        }
    };
    let text = |(i, node): (usize, &&Node)| match node {
        Node::Text(text) => Ok(text.clone()),
        other => mistake!("{at}: number {} is {}; it is a text", i + 1, other.words()),
    };
    let texts: Vec<String> = list.iter().enumerate().map(text).collect::<Result<_>>()?;
    if texts.is_empty() {
        mistake!("{at} is empty");
    }
    Ok((json!(texts.iter().map(|t| constant(t)).collect::<Vec<_>>()), Some(json!(texts).to_string())))
}

fn choice(c: &Config) -> Result<Value> {
    let gold = match target(c)? {
        Said::Number(n) => n.to_string(),
        // pandas takes a column of digits for numbers.
        field @ Said::Field(_) if c.get("dataset_path") == Some(&Node::Text("csv".into())) => {
            as_text(&format!("{{{{ {} }}}}", field.expression().unwrap_or_default()))
        }
        field @ Said::Field(_) => format!("{{{{ {} | told }}}}", field.expression().unwrap_or_default()),
        Said::Template(source) => as_text(&source),
    };
    Ok(json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "endings": choices(c)?.0,
        "gold": gold,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
    }))
}

/// A template whose value is the text that it renders, even where it is one expression: `True` is then a text.
fn as_text(source: &str) -> String {
    format!("{{##}}{source}")
}

fn cloze(c: &Config) -> Result<Value> {
    if c.get("doc_to_choice").is_some() {
        mistake!("{}: a loglikelihood task has one ending, `doc_to_target`", c.at("doc_to_choice"));
    }
    Ok(json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "ending": target(c)?.words(&c.at("doc_to_target"))?,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
    }))
}

/// The filters' names, and what is asked.
fn generate(c: &Config, exact: Value) -> Result<(Vec<String>, Value)> {
    let target = target(c)?;
    let gold = match (c.get("doc_to_choice").is_some(), &target) {
        (true, target) => {
            let index = match target {
                Said::Template(_) => target.expression().map(|e| format!("{e} | int")),
                other => other.expression(),
            };
            let (Some(list), Some(index)) = (choices(c)?.1, index) else {
                mistake!(
                    "{}: with `doc_to_choice`, it is one expression that gives an index",
                    c.at("doc_to_target")
                )
            };
            format!("{{{{ {list}[{index}] }}}}")
        }
        (false, Said::Number(n)) => n.to_string(),
        (false, target) => match target.expression() {
            Some(expression) => format!("{{{{ {expression} | answers }}}}"),
            None => target.words("")?,
        },
    };
    let mut all = json!({
        "description": description(c)?,
        "prompt": said(c, "doc_to_text")?.words(&c.at("doc_to_text"))?,
        "gold": gold,
        "delimiter": delimiter(c, "target_delimiter", " ")?,
        "exact_match": exact,
    });
    written(c, &mut all)?;
    let filters = filters(c)?;
    let names = filters.iter().map(|f| f.name.clone()).collect();
    all["filters"] = serde_json::to_value(filters)?;
    Ok((names, all))
}

/// `generation_kwargs` and `repeats`.
fn written(c: &Config, all: &mut Value) -> Result<()> {
    const KNOWN: &[&str] = &[
        "until",
        "max_gen_toks",
        "max_new_tokens",
        "do_sample",
        "temperature",
        "top_k",
        "top_p",
        "num_beams",
    ];
    let key = |k: &str| format!("generation_kwargs.{k}");
    let said = c.under("generation_kwargs")?;
    for (k, _) in &said.0 {
        if !KNOWN.contains(&k.as_str()) {
            let close = nearest(k, KNOWN.iter().copied());
            mistake!("{}: no such setting{close}; there are: {}", c.at(&key(k)), KNOWN.join(", "));
        }
    }
    let get = |k: &str| said.get(k).filter(|node| **node != Node::Null);
    let number = |k: &str| match get(k) {
        None => Ok(None),
        Some(Node::Int(n)) => Ok(Some(*n as f64)),
        Some(Node::Float(x)) => Ok(Some(*x)),
        Some(other) => mistake!("{} is {}; it is a number", c.at(&key(k)), other.words()),
    };
    let whole = |k: &str| match number(k)? {
        None => Ok(None),
        Some(x) if x.fract() == 0. && (1. ..=1048576.).contains(&x) => Ok(Some(x as usize)),
        Some(x) => mistake!("{} is {x}; it is a whole number, 1 to 1048576", c.at(&key(k))),
    };
    let stop = match said.get("until") {
        None => vec![delimiter(c, "fewshot_delimiter", "\n\n")?],
        Some(node) => texts(&c.at(&key("until")), node)?,
    };
    all["stop"] = json!(stop);
    if let Some(limit) = whole("max_gen_toks")?.or(whole("max_new_tokens")?) {
        all["limit"] = json!(limit);
    }
    if whole("num_beams")?.is_some_and(|n| n > 1) {
        mistake!("{}: beams are not searched here; it is 1", c.at(&key("num_beams")));
    }
    let temperature = number("temperature")?.unwrap_or(0.);
    let drawn = match get("do_sample") {
        None => temperature > 0.,
        Some(Node::Bool(false)) => false,
        Some(Node::Bool(true)) if temperature > 0. => true,
        Some(Node::Bool(true)) => mistake!("{}: draws need a `temperature` above 0", c.at(&key("do_sample"))),
        Some(other) => mistake!("{} is {}; it is true or false", c.at(&key("do_sample")), other.words()),
    };
    let repeats = c.whole("repeats", 1)?;
    // Of the likeliest token there is only one, however often it is asked for.
    if drawn {
        all["temperature"] = json!(temperature);
        all["samples"] = json!(repeats.max(1));
        if let Some(k) = whole("top_k")? {
            all["top_k"] = json!(k);
        }
        if let Some(p) = number("top_p")? {
            all["top_p"] = json!(p);
        }
    }
    Ok(())
}

/// A text, or a list of them.
pub(super) fn texts(at: &str, node: &Node) -> Result<Vec<String>> {
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

/// A metric: its name in the harness, how it is aggregated, and which way is better.
type Known = (&'static str, &'static str, bool);
const CHOICE: &[Known] = &[
    ("acc", "mean", true),
    ("acc_norm", "mean", true),
    ("acc_bytes", "mean", true),
    ("brier_score", "brier_score", false),
];
const CLOZE: &[Known] = &[("perplexity", "perplexity", false), ("acc", "mean", true)];
const ROLLING: &[Known] = &[
    ("word_perplexity", "weighted_perplexity", false),
    ("byte_perplexity", "weighted_perplexity", false),
    ("bits_per_byte", "bits_per_byte", false),
];
const GENERATE: &[Known] = &[("exact_match", "mean", true)];

/// `metric_list`: names, and the settings of `exact_match`.
fn metrics(c: &Config, known: &[Known]) -> Result<(Vec<String>, Value)> {
    let mut exact = json!({});
    let Some(list) = c.tables("metric_list")? else {
        let usual = known.iter().map(|(name, ..)| name.to_string());
        // Where nothing is said, a choice has two.
        return Ok((usual.take(if known == CHOICE { 2 } else { 3 }).collect(), exact));
    };
    let at = |name: &str, key: &str| format!("{}: `{name}`: `{key}`", c.at("metric_list"));
    let mut names: Vec<String> = Vec::new();
    for metric in &list {
        let Some(Node::Text(name)) = metric.get("metric") else {
            mistake!("{}: an entry without a text as its `metric`", c.at("metric_list"));
        };
        let Some((_, usual, better)) = known.iter().find(|(known, ..)| known == name) else {
            let all: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
            mistake!(
                "{}: `{name}` is not computed here{}; of such a task there are: {}. A file of your own can include this one \
                 and say another `metric_list`",
                c.at("metric_list"),
                nearest(name, all.iter().copied()),
                all.join(", ")
            );
        };
        if names.contains(name) {
            mistake!("{}: `{name}` stands twice", c.at("metric_list"));
        }
        names.push(name.clone());
        for (key, node) in metric.0.iter().filter(|(_, node)| *node != Node::Null) {
            match (key.as_str(), node) {
                ("metric" | "weight_by_size", _) | ("hf_evaluate", Node::Bool(false)) => {}
                ("hf_evaluate", Node::Bool(true)) if name == "exact_match" => {}
                ("aggregation", Node::Text(text)) if text == usual => {}
                ("aggregation", other) => {
                    mistake!("{} is {}; here it is {usual}", at(name, key), other.words())
                }
                ("higher_is_better", Node::Bool(b)) if b == better => {}
                ("higher_is_better", other) => {
                    mistake!("{} is {}; here it is {better}", at(name, key), other.words())
                }
                ("ignore_case" | "ignore_punctuation" | "ignore_numbers", Node::Bool(b))
                    if name == "exact_match" =>
                {
                    exact[key] = json!(b);
                }
                ("regexes_to_ignore", node) if name == "exact_match" => {
                    exact[key] = json!(texts(&at(name, key), node)?);
                }
                (_, other) => {
                    mistake!("{} is {}; no such setting is read here", at(name, key), other.words())
                }
            }
        }
    }
    if names.is_empty() {
        mistake!("{} is empty", c.at("metric_list"));
    }
    // The one that has another name here.
    names.iter_mut().filter(|name| *name == "brier_score").for_each(|name| *name = "brier".into());
    Ok((names, exact))
}

/// Log-likelihoods are one a request: there is nothing to filter.
fn only_first(c: &Config) -> Result<()> {
    let filters = c.get("filter_list").map(|_| filters(c)).transpose()?.unwrap_or_default();
    let idle = |f: &Filter| matches!(f.steps[..], [] | [super::filter::Step::TakeFirst]);
    match filters.iter().all(idle) {
        true => Ok(()),
        false => mistake!("{}: only written answers are filtered", c.at("filter_list")),
    }
}

/// `filter_list`.
fn filters(c: &Config) -> Result<Vec<Filter>> {
    let Some(list) = c.tables("filter_list")? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for table in &list {
        let Some(Node::Text(name)) = table.get("name") else {
            mistake!("{}: a filter without a text as its `name`", c.at("filter_list"));
        };
        let at = format!("{}: `{name}`", c.at("filter_list"));
        if let Some((key, _)) = table.0.iter().find(|(key, _)| !["name", "filter"].contains(&key.as_str())) {
            mistake!("{at}: no such key `{key}`; there are: name, filter");
        }
        let Some(Node::List(steps)) = table.get("filter") else {
            mistake!("{at}: `filter` is a list of steps, each with its `function`");
        };
        let steps: Vec<Value> = steps.iter().map(|node| step(&at, node)).collect::<Result<_>>()?;
        let filter: Filter = serde_json::from_value(json!({ "name": name, "steps": steps })).blame(&at)?;
        Chain::new(&filter).blame(&at)?;
        all.push(filter);
    }
    Ok(all)
}

/// One step of a filter, as `[ask.generate]` says it.
fn step(at: &str, node: &Node) -> Result<Value> {
    const KNOWN: &[(&str, &[&str])] = &[
        ("regex", &["regex_pattern", "group_select", "fallback"]),
        ("remove_whitespace", &[]),
        ("lowercase", &[]),
        ("uppercase", &[]),
        ("map", &["mapping_dict", "default_value"]),
        ("take_first", &[]),
        ("take_first_k", &["k"]),
        ("majority_vote", &[]),
    ];
    let Node::Table(table) = node else { mistake!("{at}: a step is {}; it is a table", node.words()) };
    let Some(Node::Text(name)) = table.get("function") else {
        mistake!("{at}: a step without a text as its `function`");
    };
    let names = || KNOWN.iter().map(|(name, _)| *name);
    let Some((_, settings)) = KNOWN.iter().find(|(known, _)| known == name) else {
        mistake!(
            "{at}: the filter `{name}` is not here{}; there are: {}",
            nearest(name, names()),
            names().collect::<Vec<_>>().join(", ")
        );
    };
    if let Some((key, _)) = table.0.iter().find(|(k, _)| k != "function" && !settings.contains(&k.as_str())) {
        mistake!("{at}: `{name}` has no `{key}`; it has: {}", settings.join(", "));
    }
    let text = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text.clone())),
        Some(other) => mistake!("{at}: `{name}`: `{key}` is {}; it is a text", other.words()),
    };
    let whole = |key: &str| match table.get(key) {
        None => Ok(None),
        Some(Node::Int(n)) => Ok(Some(*n)),
        Some(other) => mistake!("{at}: `{name}`: `{key}` is {}; it is a whole number", other.words()),
    };
    Ok(match name.as_str() {
        "regex" => {
            let pattern = text("regex_pattern")?.unwrap_or_else(|| r"#### (\-?[0-9\.\,]+)".into());
            let mut find = json!({ "pattern": pattern, "pick": whole("group_select")?.unwrap_or(0) });
            if let Some(fallback) = text("fallback")? {
                find["fallback"] = fallback.into();
            }
            json!({ "regex": find })
        }
        "map" => {
            let Some(Node::Table(words)) = table.get("mapping_dict") else {
                mistake!("{at}: `map`: `mapping_dict` is a table of texts");
            };
            let mut to = Map::new();
            for (from, node) in &words.0 {
                let Node::Text(word) = node else {
                    mistake!("{at}: `map`: `mapping_dict.{from}` is {}; it is a text", node.words())
                };
                to.insert(from.clone(), word.as_str().into());
            }
            let Some(fallback) = text("default_value")? else {
                mistake!("{at}: `map` needs a text as its `default_value`");
            };
            json!({ "map": { "to": to, "fallback": fallback } })
        }
        "take_first_k" => match whole("k")? {
            Some(k) if k > 0 => json!({ "take-first-k": k }),
            _ => mistake!("{at}: `take_first_k` needs `k`, at least 1"),
        },
        "remove_whitespace" => json!("remove-whitespace"),
        "take_first" => json!("take-first"),
        "majority_vote" => json!("majority-vote"),
        same => json!(same),
    })
}

/// `num_fewshot` with what belongs to it.
fn fewshot(c: &Config, n: usize, kind: &str, name: &str) -> Result<Value> {
    const KNOWN: &[&str] = &[
        "sampler",
        "split",
        "samples",
        "doc_to_text",
        "doc_to_target",
        "fewshot_delimiter",
        "target_delimiter",
    ];
    let table = c.under("fewshot_config")?;
    let key = |k: &str| c.at(&format!("fewshot_config.{k}"));
    let own = |k: &str| table.get(k).filter(|node| **node != Node::Null);
    for (k, node) in &table.0 {
        if *node != Node::Null && !KNOWN.contains(&k.as_str()) {
            let close = nearest(k, KNOWN.iter().copied());
            mistake!("{}: not read here{close}; there are: {}", key(k), KNOWN.join(", "));
        }
    }
    let text = |k: &str| match own(k) {
        None => Ok(None),
        Some(Node::Text(text)) => Ok(Some(text.clone())),
        Some(other) => mistake!("{} is {}; it is a text", key(k), other.words()),
    };
    let sampler = text("sampler")?.unwrap_or_else(|| "default".into());
    if !["default", "first_n"].contains(&sampler.as_str()) {
        mistake!("{} is `{sampler}`; there are: default, first_n", key("sampler"));
    }
    let split = match table.get("split") {
        Some(_) => text("split")?,
        None => c.text("fewshot_split")?,
    };
    let between = text("fewshot_delimiter")?.map_or_else(|| delimiter(c, "fewshot_delimiter", "\n\n"), Ok)?;
    let mut all = json!({
        "n": n, "sampler": sampler, "between": between,
        // Of two splits that are not named, too.
        "exclude": split == c.text("test_split")?,
    });
    if let Some(delimiter) = text("target_delimiter")? {
        all["delimiter"] = delimiter.into();
    }
    if let Some(node) = own("doc_to_text") {
        all["prompt"] = Said::read(&key("doc_to_text"), node)?.words(&key("doc_to_text"))?.into();
    }
    if let Some(node) = own("doc_to_target") {
        if kind == "multiple_choice" || c.get("doc_to_choice").is_some() {
            mistake!(
                "{}: with `doc_to_choice`, examples are answered as questions are",
                key("doc_to_target")
            );
        }
        all["answer"] = Said::read(&key("doc_to_target"), node)?.words(&key("doc_to_target"))?.into();
    }
    if let Some(data) = sources::pool(c, split.as_deref(), own("samples"), name)? {
        all["data"] = data;
    }
    Ok(all)
}
