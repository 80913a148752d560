//! What a task file says.
use super::{
    ask::{Ask, Divergence, Protocol},
    clean::{Clean, Cleaner},
    made::Made,
    rows::{self, Layout},
    template::Template,
};
use crate::{hub::RepoId, mistake, mistake::Blame};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// One task file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Task {
    /// One line.
    pub about: String,
    /// The group of abilities: `language`, `basic`, `emergent`, `trust`, `dialogue`, `long`, or one's own word.
    #[serde(default)]
    pub ability: String,
    /// Raise it when a number could change. Part of every record's identity.
    pub version: u32,
    /// What is reported, the first one first.
    pub metrics: Vec<String>,
    /// What a guess scores on the first metric. Tables and charts draw the line.
    #[serde(default)]
    pub chance: Option<f64>,
    /// Where items come from.
    pub data: Data,
    /// Parts of the task, each with a title: the data is read once for each, with `{part}` in its path, or made once
    /// for each, and templates have `part` and `title`.
    #[serde(default)]
    pub parts: toml::Table,
    /// Fields made of an item's others before repairs, each a template, in order.
    #[serde(default)]
    pub fields: toml::Table,
    /// Text repairs, applied in order to every field that is a text.
    #[serde(default)]
    pub clean: Vec<Clean>,
    /// Examples with their answers, before each question.
    #[serde(default)]
    pub fewshot: Option<Fewshot>,
    /// What is asked of an item.
    pub ask: Ask,
}

/// `[fewshot]`: examples before each question, as lm-evaluation-harness draws them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fewshot {
    /// How many.
    pub n: usize,
    /// Which.
    #[serde(default)]
    pub sampler: Sampler,
    /// Of the task's generator, where the sampler is `default`.
    #[serde(default = "usual_seed")]
    pub seed: u64,
    /// Whether the question itself is kept from being its own example; the sampler then draws one more, whether it came
    /// or not. Where nothing is said: if examples are of the task's own data.
    #[serde(default)]
    pub exclude: Option<bool>,
    /// After each example.
    #[serde(default = "two_lines")]
    pub between: String,
    /// Where examples come from; without it, the task's own data.
    #[serde(default)]
    pub data: Option<Data>,
}

impl Fewshot {
    /// See [`Fewshot::exclude`].
    pub fn excludes(&self) -> bool {
        self.exclude.unwrap_or(self.data.is_none())
    }
}

/// See [`Fewshot::sampler`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sampler {
    /// Another draw for each question.
    #[default]
    #[serde(rename = "default")]
    Default,
    /// The pool's first ones, for every question.
    #[serde(rename = "first_n")]
    FirstN,
}

/// `[data.file]`, `[data.hub]`, `[data.made]` or `[[data.items]]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Data {
    /// A file beside the task, or anywhere: `.txt` is one item with a field `text`; `.jsonl`, `.json`, `.csv`, `.tsv` and
    /// `.parquet` hold an item a row; each also `.gz` or `.zst`.
    #[serde(rename_all = "kebab-case")]
    File(FileData),
    /// Files of a dataset on the Hub.
    Hub(HubData),
    /// Items drawn from a seed.
    Made(Made),
    /// Rows written out here.
    Items(Vec<toml::Table>),
}

/// See [`Data::File`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileData {
    /// Relative to the task file, or absolute; in its last part `*` and `?` stand for whatever is there.
    pub path: Names,
    /// The list of items inside a `.json` file's table; a dot leads into a table in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// Names of a `.csv` or `.tsv` file's columns, where it has no header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

/// See [`Data::Hub`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HubData {
    /// `org/name`.
    pub repo: String,
    /// A commit, so that the number cannot move under us.
    pub revision: String,
    /// Inside the repository.
    pub file: Names,
    /// As in [`FileData::field`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// As in [`FileData::columns`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<Vec<String>>,
}

/// One file, or several that are one data set, in this order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "a file's name, or a list of names")]
pub enum Names {
    /// A file.
    One(String),
    /// Its parts.
    Many(Vec<String>),
}

impl Names {
    /// As a list.
    pub fn names(&self) -> &[String] {
        match self {
            Names::One(name) => std::slice::from_ref(name),
            Names::Many(names) => names,
        }
    }
}

impl FileData {
    /// Files that are read as another's are.
    pub fn new(names: Vec<String>, layout: Layout<'_>) -> Self {
        let columns = layout.columns.map(<[String]>::to_vec);
        Self { path: Names::Many(names), field: layout.field.map(str::to_string), columns }
    }

    /// What the bytes do not say.
    pub fn layout(&self) -> Layout<'_> {
        Layout { field: self.field.as_deref(), columns: self.columns.as_deref() }
    }
}

impl HubData {
    /// What the bytes do not say.
    pub fn layout(&self) -> Layout<'_> {
        Layout { field: self.field.as_deref(), columns: self.columns.as_deref() }
    }
}

impl Data {
    /// Mistakes that show without a look at the files.
    fn check(&self) -> Result<()> {
        let (key, names, layout) = match self {
            Data::File(file) => ("data.file: `path`", &file.path, file.layout()),
            Data::Hub(hub) => {
                RepoId::dataset(&hub.repo, &hub.revision).blame("data.hub")?;
                ("data.hub: `file`", &hub.file, hub.layout())
            }
            Data::Made(made) => return made.check(),
            Data::Items(_) => return Ok(()),
        };
        if names.names().is_empty() {
            mistake!("{key} is empty");
        }
        let all = |endings: &[&str]| {
            names
                .names()
                .iter()
                .all(|name| rows::ending(name).is_some_and(|ending| endings.contains(&ending)))
        };
        if layout.field.is_some() && !all(&["json"]) {
            mistake!("{key}: only a .json file has a `field`");
        }
        if layout.columns.is_some() && !all(&["csv", "tsv"]) {
            mistake!("{key}: only a .csv or .tsv file has `columns` to name");
        }
        Ok(())
    }
}

impl Data {
    /// The paths that name the data: inside the repository, or of files.
    pub fn names(&self) -> &[String] {
        match self {
            Data::File(file) => file.path.names(),
            Data::Hub(hub) => hub.file.names(),
            Data::Made(_) | Data::Items(_) => &[],
        }
    }

    /// With a part's name in its path.
    pub fn of_part(&self, part: &str) -> Self {
        let mut data = self.clone();
        match &mut data {
            Data::File(FileData { path, .. }) | Data::Hub(HubData { file: path, .. }) => {
                *path = match path {
                    Names::One(name) => Names::One(name.replace(PART, part)),
                    Names::Many(names) => Names::Many(names.iter().map(|n| n.replace(PART, part)).collect()),
                };
            }
            Data::Made(_) | Data::Items(_) => {}
        }
        data
    }
}

/// What stands for a part's name in paths.
pub const PART: &str = "{part}";

fn two_lines() -> String {
    "\n\n".into()
}
fn usual_seed() -> u64 {
    1234
}

impl Task {
    /// Reads a task file; `label` is what errors call it.
    pub fn parse(label: &str, text: &str) -> Result<Self> {
        let task: Task = toml::from_str(text).blame(format!("`{label}`"))?;
        let pool = task.fewshot.as_ref().and_then(|f| f.data.as_ref());
        for data in std::iter::once(&task.data).chain(pool) {
            data.check().blame(format!("`{label}`"))?;
        }
        if task.metrics.is_empty() {
            mistake!("`{label}`: `metrics` is empty; name at least one (`bitsweep list metrics`)");
        }
        if let Ask::Divergence(Divergence { protocol: Protocol::Rolling, .. }) = &task.ask {
            mistake!("`{label}`: divergence has the protocols `windows` and `llama-cpp`, not `rolling`");
        }
        let window = match &task.ask {
            Ask::Perplexity(p) => p.window,
            Ask::Divergence(d) => d.window,
            Ask::Choice(_) | Ask::Cloze(_) | Ask::Generate(_) => None,
        };
        if window.is_some_and(|w| w < 2) {
            mistake!("`{label}`: `window` is at least 2: a token is predicted from one before it");
        }
        task.check_data().blame(format!("`{label}`"))?;
        if let Ask::Generate(g) = &task.ask {
            g.check(label, &task.metrics)?;
        }
        for (key, source) in task.templates() {
            Template::new(key, source).blame(format!("`{label}`"))?;
        }
        Cleaner::new(&task.clean).blame(format!("`{label}`"))?;
        Ok(task)
    }

    /// What no single key can know of parts, fields and examples.
    fn check_data(&self) -> Result<()> {
        for (key, table) in [("parts", &self.parts), ("fields", &self.fields)] {
            if let Some((name, value)) = table.iter().find(|(_, v)| !v.is_str()) {
                mistake!("`{key}.{name}` is {value}; it is a text");
            }
        }
        let asked = matches!(self.ask, Ask::Choice(_) | Ask::Cloze(_));
        if self.fewshot.is_some() && !asked {
            mistake!("`fewshot`: a {} task has no examples; choice and cloze have", self.ask.kind());
        }
        let pool = self.fewshot.as_ref().and_then(|f| f.data.as_ref());
        for (key, data) in [("data", Some(&self.data)), ("fewshot.data", pool)] {
            // What is made needs no path to tell parts apart.
            let Some(data) = data.filter(|d| !matches!(d, Data::Made(_))) else { continue };
            let open = !data.names().is_empty() && data.names().iter().all(|p| p.contains(PART));
            if open && self.parts.is_empty() {
                mistake!("`{key}`: its path has `{PART}`, and the task has no `parts`");
            }
            if !open && !self.parts.is_empty() {
                mistake!(
                    "`{key}`: the task has `parts`, so its path has `{PART}` where a part's name stands"
                );
            }
        }
        let Ask::Choice(c) = &self.ask else { return Ok(()) };
        let (one, several) =
            (c.prompt.is_some() && c.endings.is_some(), c.prompts.is_some() && c.ending.is_some());
        let keys = [c.prompt.is_some(), c.endings.is_some(), c.prompts.is_some(), c.ending.is_some()];
        if !(one || several) || keys.iter().filter(|k| **k).count() != 2 {
            mistake!(
                "`ask.choice` has `prompt` and `endings`, or `prompts` and `ending`; both of the one, none of the other"
            );
        }
        if c.gold.is_some() == c.labels.is_some() {
            mistake!("`ask.choice` has `gold`, or `labels` where several endings are right; one of the two");
        }
        Ok(())
    }

    /// Derived fields and their templates, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().filter_map(|(name, source)| Some((name.as_str(), source.as_str()?)))
    }

    /// Whether examples are drawn from data of their own.
    pub fn has_pool(&self) -> bool {
        self.fewshot.as_ref().is_some_and(|f| f.data.is_some())
    }

    /// Names of the lists that made items, or made examples, draw from.
    pub fn lists(&self) -> Vec<&str> {
        let pool = self.fewshot.as_ref().and_then(|f| f.data.as_ref());
        let made = std::iter::once(&self.data).chain(pool).filter_map(|data| match data {
            Data::Made(made) => Some(made.lists.keys().map(String::as_str)),
            _ => None,
        });
        made.flatten().collect()
    }

    /// What a cell's identity holds beside [`Task::ask`] and [`Task::clean`]: `None` where a task says none of it, so
    /// that cells of such tasks keep the identity that they had before there was any.
    pub fn more(&self) -> Option<serde_json::Value> {
        let shots = self.fewshot.as_ref().filter(|f| f.n > 0);
        let shots = shots.map(|f| serde_json::json!([f.n, f.sampler, f.seed, f.excludes(), f.between]));
        let none = shots.is_none() && self.parts.is_empty() && self.fields.is_empty();
        // As lists: an order counts, and an object of JSON has none.
        let list = |t: &toml::Table| t.iter().map(|(k, v)| (k.clone(), v.to_string())).collect::<Vec<_>>();
        (!none).then(|| serde_json::json!([list(&self.parts), list(&self.fields), shots]))
    }

    /// Every template with its key.
    fn templates(&self) -> Vec<(&str, &str)> {
        self.fields().chain(self.ask.templates()).collect()
    }

    /// The task's protocol in words, for records.
    pub fn protocol(&self) -> String {
        let shots = match self.fewshot.as_ref().filter(|f| f.n > 0) {
            Some(Fewshot { n, sampler: Sampler::FirstN, .. }) => format!("; the first {n} examples"),
            Some(Fewshot { n, seed, .. }) => format!("; {n} examples, seed {seed}"),
            None => String::new(),
        };
        format!("{}{shots}", self.ask.protocol())
    }
}
