//! What a task file says.
use super::{
    ask::{Ask, Profile, Protocol},
    clean::{Clean, Cleaner},
    made::Made,
    rows::{self, Cut, Layout},
    split::Split,
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
    /// Where the data holds the items of all parts: a template that gives an item's part. Items of a part keep their order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub part: Option<String>,
    /// The names of all parts that its file has, whichever of them a study asks for.
    #[serde(skip)]
    pub own_parts: Vec<String>,
    /// What items have in common that err together: a template that gives the name of an item's cluster, such as its article.
    /// It moves no score, only what a difference is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<String>,
    /// What counts the same in the score of a task with parts.
    #[serde(default)]
    pub weigh: Weigh,
    /// Which rows are items: those for which this expression is true. It sees a row as the data has it.
    #[serde(default)]
    pub keep: Option<String>,
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
    /// An example's own prompt, where it is not written as the question is.
    #[serde(default)]
    pub prompt: Option<String>,
    /// An example's own answer, where it says more than the right one.
    #[serde(default)]
    pub answer: Option<String>,
    /// Between them, where it is not the question's own `delimiter`.
    #[serde(default)]
    pub delimiter: Option<String>,
    /// Where examples come from; without it, the task's own data.
    #[serde(default)]
    pub data: Option<Data>,
}

impl Fewshot {
    /// See [`Fewshot::exclude`].
    pub fn excludes(&self) -> bool {
        self.exclude.unwrap_or(self.data.is_none())
    }

    /// Every template with its key.
    fn templates(&self) -> impl Iterator<Item = (&str, &str)> {
        let all = [("fewshot.prompt", &self.prompt), ("fewshot.answer", &self.answer)];
        all.into_iter().filter_map(|(key, t)| Some((key, t.as_deref()?)))
    }

    /// What a cell's identity holds of it.
    fn identity(&self) -> serde_json::Value {
        let mut all = vec![
            serde_json::json!(self.n),
            serde_json::json!(self.sampler),
            self.seed.into(),
            self.excludes().into(),
            self.between.as_str().into(),
        ];
        // Only where one is said: the others keep the identity that they had before there was any.
        let own = [&self.prompt, &self.answer, &self.delimiter];
        if own.iter().any(|o| o.is_some()) {
            all.push(serde_json::json!(own));
        }
        all.into()
    }
}

/// See [`Task::weigh`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weigh {
    /// Every item: lm-evaluation-harness's `weight_by_size: true`.
    #[default]
    Items,
    /// Every part, whatever its size.
    Parts,
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
    /// A split of a dataset on the Hub, whose files are looked for.
    Split(Split),
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
    /// How a text is more than one item: `"lines"`, or `{ begins = 'EXPRESSION' }` of an item's first line. Files of rows,
    /// among which a text may stand in, have no use for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
}

/// See [`Data::Hub`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
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
    /// As in [`FileData::cut`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<Cut>,
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

impl Default for Names {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
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
        let (field, cut) = (layout.field.map(str::to_string), layout.cut.cloned());
        Self { path: Names::Many(names), field, columns, cut }
    }

    /// What the bytes do not say.
    pub fn layout(&self) -> Layout<'_> {
        Layout { field: self.field.as_deref(), columns: self.columns.as_deref(), cut: self.cut.as_ref() }
    }
}

impl HubData {
    /// What the bytes do not say.
    pub fn layout(&self) -> Layout<'_> {
        Layout { field: self.field.as_deref(), columns: self.columns.as_deref(), cut: self.cut.as_ref() }
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
            Data::Split(split) => return split.check(),
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
        if let Some(Cut::Begins(pattern)) = layout.cut {
            fancy_regex::Regex::new(pattern).blame(format!("{key}: `cut.begins`"))?;
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
            Data::Items(_) | Data::Made(_) | Data::Split(_) => &[],
        }
    }

    /// How its texts are cut into items.
    pub fn cut(&self) -> Option<&Cut> {
        match self {
            Data::File(file) => file.cut.as_ref(),
            Data::Hub(hub) => hub.cut.as_ref(),
            Data::Items(_) | Data::Made(_) | Data::Split(_) => None,
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
            Data::Items(_) | Data::Made(_) | Data::Split(_) => {}
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
        let mut task: Task = toml::from_str(text).blame(format!("`{label}`"))?;
        task.own_parts = task.parts.keys().cloned().collect();
        let pool = task.fewshot.as_ref().and_then(|f| f.data.as_ref());
        for data in std::iter::once(&task.data).chain(pool) {
            data.check().blame(format!("`{label}`"))?;
        }
        if task.metrics.is_empty() {
            mistake!("`{label}`: `metrics` is empty; name at least one (`bitsweep list metrics`)");
        }
        task.ask.check().blame(format!("`{label}`"))?;
        task.check_data().blame(format!("`{label}`"))?;
        match &task.ask {
            Ask::Generate(g) => g.check(label, &task.metrics)?,
            Ask::Dialogue(d) => d.check(label, &task.metrics)?,
            _ => {}
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
        match (&self.fewshot, &self.ask) {
            (None, _) | (_, Ask::Choice(_) | Ask::Cloze(_)) => {}
            (Some(f), Ask::Generate(g)) if g.gold.is_some() || f.answer.is_some() => {}
            (_, Ask::Generate(_)) => {
                mistake!("`fewshot`: an example's answer is `gold`, or its own: say `fewshot.answer`")
            }
            (_, ask) => {
                mistake!("`fewshot`: a {} task has no examples; choice, cloze and generate have", ask.kind())
            }
        }
        let pool = self.fewshot.as_ref().and_then(|f| f.data.as_ref());
        if self.part.is_some() && self.parts.is_empty() {
            mistake!("`part` gives an item's part, and the task has no `parts`");
        }
        let sources = [("data", Some(&self.data)), ("fewshot.data", pool)];
        for (key, data) in sources.into_iter().filter(|_| self.part.is_none()) {
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
        if self.weigh == Weigh::Parts && (self.parts.is_empty() || self.joins()) {
            mistake!(
                "`weigh` is `parts`, and {}",
                if self.parts.is_empty() { "the task has none" } else { "windows of joined items have none" }
            );
        }
        let Ask::Choice(c) = &self.ask else { return Ok(()) };
        if let (Profile::OpenCompass, Some(m)) = (c.profile, self.metrics.iter().find(|m| *m != "acc")) {
            mistake!(
                "`metrics`: `{m}`: the profile `opencompass` gives `acc` alone: its scores are means, of whole texts"
            );
        }
        if c.labels.is_some() && self.metrics.iter().any(|m| m == "brier") {
            mistake!("`brier` is of questions with one right ending: `gold`, not `labels`");
        }
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

    /// Scored as another profile says, where the task has one. OpenCompass's leaves a choice its accuracy, and other kinds as
    /// they are.
    pub fn as_profile(&mut self, profile: Profile) -> Result<()> {
        if profile == Profile::OpenCompass && matches!(self.ask, Ask::Choice(_)) {
            let all = self.metrics.join(", ");
            self.metrics.retain(|m| m == "acc");
            if self.metrics.is_empty() {
                mistake!("`opencompass` gives a choice `acc` alone, and a task reports {all}");
            }
        }
        self.ask.set_profile(profile);
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

    /// Whether items are joined to one text, so that what is scored belongs to none of them.
    pub fn joins(&self) -> bool {
        match &self.ask {
            Ask::Perplexity(p) => p.protocol != Protocol::Rolling,
            Ask::Divergence(_) => true,
            Ask::Choice(_) | Ask::Cloze(_) | Ask::Generate(_) | Ask::Dialogue(_) => false,
        }
    }

    /// What a cell's identity holds beside [`Task::ask`] and [`Task::clean`]: `None` where a task says none of it, so
    /// that cells of such tasks keep the identity that they had before there was any.
    pub fn more(&self) -> Option<serde_json::Value> {
        let shots = self.fewshot.as_ref().filter(|f| f.n > 0);
        let shots = shots.map(Fewshot::identity);
        let none = shots.is_none() && self.parts.is_empty() && self.fields.is_empty() && self.keep.is_none();
        // As lists: an order counts, and an object of JSON has none.
        let list = |t: &toml::Table| t.iter().map(|(k, v)| (k.clone(), v.to_string())).collect::<Vec<_>>();
        let mut all = vec![
            serde_json::json!(list(&self.parts)),
            serde_json::json!(list(&self.fields)),
            serde_json::json!(shots),
        ];
        if self.weigh == Weigh::Parts {
            all.push("parts count the same".into());
        }
        all.extend(self.keep.as_ref().map(|k| serde_json::json!(k)));
        all.extend(self.part.as_deref().map(|p| format!("part {p}").into()));
        (!none).then(|| all.into())
    }

    /// Every template with its key.
    fn templates(&self) -> Vec<(&str, &str)> {
        let part = self.part.as_deref().map(|p| ("part", p));
        let keep = self.keep.as_deref().map(|k| ("keep", k));
        let cluster = self.cluster.as_deref().map(|c| ("cluster", c));
        let shots = self.fewshot.iter().flat_map(Fewshot::templates);
        let first = keep.into_iter().chain(part).chain(cluster);
        first.chain(self.fields()).chain(shots).chain(self.ask.templates()).collect()
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
