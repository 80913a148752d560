//! `configs/<study>.toml`, strictly: a misspelt key is an error that names the valid ones.
use super::{calibrate, sweep};
use crate::{
    mistake,
    mistake::Blame,
    quant::{calibrate::Calibrate, recipe::Recipe},
    results::Rule,
    suite::{
        ask::Profile,
        data::{Instead, Local},
        find::{self, Found},
        task::{FileData, Names},
    },
};
use anyhow::Result;
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

static CONFIGS: Dir = include_dir!("$CARGO_MANIFEST_DIR/configs");

/// The study that runs when none is named.
pub const QUICKSTART: &str = "quickstart";

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    about: String,
    models: Vec<String>,
    tasks: Vec<String>,
    #[serde(default)]
    recipes: Vec<String>,
    #[serde(default)]
    recipe: Vec<toml::Table>,
    /// Where a recipe does not say it.
    #[serde(default)]
    calibrate: Calibrate,
    #[serde(default)]
    gate: Vec<Rule>,
    #[serde(default)]
    seed: u64,
    limit: Option<usize>,
    /// In place of the tasks' own, where they have one.
    profile: Option<Profile>,
    /// Local files in place of tasks' own data.
    #[serde(default)]
    data: BTreeMap<String, Own>,
    /// Parts in place of tasks' own.
    #[serde(default)]
    parts: BTreeMap<String, Parts>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a list of parts, each a text or a whole number, or a table of their titles")]
enum Parts {
    Names(Vec<Part>),
    Titles(BTreeMap<String, String>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a text or a whole number")]
enum Part {
    Name(String),
    Number(u64),
}

impl Parts {
    /// Each with its title: the one that is given, else the task's own, else its name.
    fn of(&self, own: &toml::Table) -> Result<toml::Table> {
        let title = |name: &str| own.get(name).cloned().unwrap_or_else(|| name.into());
        let pairs: Vec<(String, toml::Value)> = match self {
            Parts::Titles(titles) => titles.iter().map(|(n, t)| (n.clone(), t.as_str().into())).collect(),
            Parts::Names(names) => names
                .iter()
                .map(|part| match part {
                    Part::Name(name) => (name.clone(), title(name)),
                    Part::Number(number) => (number.to_string(), title(&number.to_string())),
                })
                .collect(),
        };
        if pairs.is_empty() {
            mistake!("it is empty");
        }
        let mut parts = toml::Table::new();
        for (name, title) in pairs {
            if name.is_empty() || parts.insert(name.clone(), title).is_some() {
                mistake!("each part has a name of its own; `{name}` is none");
            }
        }
        Ok(parts)
    }
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "a path, a list of paths, or a table of `path`, `field` and `columns`")]
enum Own {
    Names(Names),
    Table(FileData),
}

impl Own {
    fn local(self, folder: &Path) -> Local {
        let file = match self {
            Own::Names(path) => FileData { path, field: None, columns: None, cut: None },
            Own::Table(file) => file,
        };
        Local { folder: folder.into(), file }
    }
}

/// A study, everything in it found and checked.
#[derive(Debug)]
pub struct Study {
    /// The file's stem.
    pub name: String,
    /// One line.
    pub about: String,
    /// As loaders take them.
    pub models: Vec<String>,
    /// What models' and tasks' paths are relative to.
    pub folder: PathBuf,
    /// `full` first.
    pub recipes: Vec<Recipe>,
    /// In the study's order.
    pub tasks: Vec<Found>,
    /// Rules on the outcome.
    pub gates: Vec<Rule>,
    /// Of anything drawn by lot.
    pub seed: u64,
    /// Items a task at most.
    pub limit: Option<usize>,
    /// By task name.
    pub data: BTreeMap<String, Local>,
}

/// Built-in studies' names: `quickstart`, then `studies/...`, each kind by the alphabet.
pub fn built_in() -> Vec<&'static str> {
    let files = CONFIGS.files().chain(CONFIGS.dirs().flat_map(|d| d.files()));
    let mut names: Vec<&str> = files.filter_map(|f| f.path().to_str()?.strip_suffix(".toml")).collect();
    names.sort_by_key(|n| (*n != QUICKSTART, n.contains('/'), *n));
    names
}

/// What a built-in study says of itself.
pub fn about(name: &str) -> Option<String> {
    let text = CONFIGS.get_file(format!("{name}.toml"))?.contents_utf8()?;
    Some(text.parse::<toml::Table>().ok()?.get("about")?.as_str()?.to_string())
}

impl Study {
    /// Reads a study: a path, or a built-in one's name. `sets` are `key=value` overrides.
    pub fn read(word: &str, sets: &[String]) -> Result<Self> {
        let path = Path::new(word);
        if path.is_file() {
            let text = std::fs::read_to_string(path).blame(format!("study `{word}`"))?;
            let name = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
            return Self::parse(word, &name, path.parent().unwrap_or(Path::new("")), &text, sets);
        }
        match CONFIGS.get_file(format!("{word}.toml")).and_then(|f| f.contents_utf8()) {
            Some(text) => {
                let name = word.rsplit('/').next().unwrap_or(word);
                Self::parse(&format!("configs/{word}.toml"), name, Path::new(""), text, sets)
            }
            None => mistake!(
                "no study `{word}`{}: it is neither a file nor built in; built in: {}",
                crate::mistake::nearest(word, built_in()),
                built_in().join(", ")
            ),
        }
    }

    fn parse(label: &str, name: &str, folder: &Path, text: &str, sets: &[String]) -> Result<Self> {
        // First as it stands, so that errors have the file's own line numbers; then with the overrides.
        let plain = toml::from_str::<File>(text);
        let mut table: toml::Table = text.parse::<toml::Table>().blame(format!("study `{label}`"))?;
        for set in sets {
            override_key(&mut table, set)?;
        }
        let file: File = match plain {
            Ok(file) if sets.is_empty() => file,
            Err(e) if sets.is_empty() => mistake!("study `{label}`: {e}"),
            _ => serde_path_to_error::deserialize(toml::Value::Table(table)).map_err(|e| {
                let at = e.path().to_string();
                anyhow::Error::new(crate::mistake::Mistake(format!(
                    "study `{label}` with --set: `{at}`: {}",
                    e.into_inner().to_string().trim()
                )))
            })?,
        };
        if file.models.is_empty() {
            mistake!("study `{label}`: `models` is empty");
        }
        if file.tasks.is_empty() {
            mistake!("study `{label}`: `tasks` is empty");
        }
        if file.limit == Some(0) {
            mistake!("study `{label}`: `limit` is 0; it is at least 1");
        }
        // Cell zero, always.
        let mut recipes = vec![Recipe::full()];
        for word in file.recipes.iter().filter(|w| *w != "full") {
            recipes.push(Recipe::parse(word).blame(format!("study `{label}`"))?);
        }
        for table in &file.recipe {
            recipes.extend(sweep::expand(label, table)?);
        }
        file.calibrate.check().blame(format!("study `{label}`"))?;
        let built_in = file.models.iter().all(|m| m.starts_with("builtin:"));
        let usual = calibrate::USUAL[usize::from(!built_in)];
        let usual = Calibrate { data: Some(usual.into()), ..Calibrate::default() };
        for recipe in recipes.iter_mut().filter(|r| !r.streams().is_empty()) {
            recipe.calibrate = recipe.calibrate.or(&file.calibrate).or(&usual);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = recipes.iter().find(|r| !names.insert(r.name.as_str())) {
            mistake!("study `{label}`: two recipes are called `{}`", twice.name);
        }
        let mut names = BTreeSet::new();
        if let Some(twice) = file.models.iter().find(|m| !names.insert(m.as_str())) {
            mistake!("study `{label}`: model `{twice}` is named twice");
        }
        let mut tasks: Vec<Found> = Vec::new();
        for word in &file.tasks {
            for found in find::find(word, folder).blame(format!("study `{label}`"))? {
                match tasks.iter().find(|t| t.full_name() == found.full_name()) {
                    None => tasks.push(found),
                    Some(same) if same.label == found.label => {}
                    Some(other) => mistake!(
                        "study `{label}`: two tasks are called `{}`: `{}` and `{}`",
                        found.full_name(),
                        other.label,
                        found.label
                    ),
                }
            }
        }
        for (name, parts) in &file.parts {
            other_parts(&mut tasks, name, parts).blame(format!("study `{label}`: `parts.{name}`"))?;
        }
        if let Some(profile) = file.profile {
            for found in &mut tasks {
                found.task.as_profile(profile).blame(format!("study `{label}`: `profile`"))?;
            }
        }
        for task in &tasks {
            for metric in &task.task.metrics {
                check_metric(&task.label, metric, task.task.ask.kind())?;
            }
        }
        let mut task_names: Vec<&str> = tasks.iter().map(Found::file_name).collect();
        let mut more: Vec<String> = tasks.iter().filter(|t| t.task.has_pool()).map(pool_name).collect();
        more.extend(tasks.iter().flat_map(|t| t.task.lists().into_iter().map(move |l| list_name(t, l))));
        for word in
            recipes.iter().filter(|r| !r.streams().is_empty()).filter_map(|r| r.calibrate.data.as_ref())
        {
            more.push(calibrate::find(word, folder).blame(format!("study `{label}`"))?.file_name().into());
        }
        task_names.extend(more.iter().map(String::as_str));
        if let Some(bad) = file.data.keys().find(|k| !task_names.contains(&k.as_str())) {
            mistake!(
                "study `{label}`: `data.{bad}` names no task of this study{}; there are: {}",
                crate::mistake::nearest(bad, task_names.iter().copied()),
                task_names.join(", ")
            );
        }
        for (i, rule) in file.gate.iter().enumerate() {
            let what = || format!("study `{label}`: [[gate]] number {}", i + 1);
            rule.check().blame(what())?;
            let mine: Vec<&Found> = tasks.iter().filter(|t| rule.names_task(&t.suite, &t.name)).collect();
            if mine.is_empty() {
                mistake!("{} names task `{}`, which the study does not run", what(), rule.task);
            }
            for task in mine {
                let names = &task.task.metrics;
                let metric = rule.metric.as_ref().or(names.first()).map_or("", String::as_str);
                if !names.iter().any(|n| n == metric) {
                    mistake!(
                        "{} names metric `{metric}`, which `{}` does not report; it reports: {}",
                        what(),
                        task.full_name(),
                        names.join(", ")
                    );
                }
                let known = crate::eval::metrics::metric(metric);
                let zero = known.is_some_and(|m| {
                    m.of.contains(&"divergence") && !["same_top", "ppl_ratio"].contains(&m.name)
                });
                if zero && (rule.worst.is_some() || rule.same.is_some()) && !rule.asks_baseline() {
                    mistake!(
                        "{} on `{metric}` of `{}`: full precision's value is 0, and no factor of it is a limit; say \
                         `points`, or name same_top or ppl_ratio",
                        what(),
                        task.full_name()
                    );
                }
            }
            if !recipes.iter().any(|r| rule.names_recipe(&r.name)) {
                mistake!("{} names recipe `{}`, which the study does not run", what(), rule.recipe);
            }
            if !file.models.iter().any(|m| rule.names_model(m)) {
                let model = rule.model.as_deref().unwrap_or_default();
                mistake!("{} names model `{model}`, which the study does not run", what());
            }
        }
        Ok(Self {
            name: name.into(),
            about: file.about,
            models: file.models,
            folder: folder.into(),
            recipes,
            tasks,
            gates: file.gate,
            seed: file.seed,
            limit: file.limit,
            data: file.data.into_iter().map(|(k, own)| (k, own.local(folder))).collect(),
        })
    }

    /// The files that stand in for a task's own data, if the user has some: named in the study, or below
    /// `BITSWEEP_DATA`.
    pub fn instead(&self, task: &Found) -> Result<Instead> {
        let root = std::env::var_os("BITSWEEP_DATA").filter(|r| !r.is_empty());
        if let Some(root) = root.as_ref().filter(|r| !Path::new(r).is_dir()) {
            mistake!("BITSWEEP_DATA is `{}`, which is no directory", root.display());
        }
        Ok(Instead {
            items: self.data.get(task.file_name()).cloned(),
            examples: self.data.get(&pool_name(task)).cloned(),
            lists: task
                .task
                .lists()
                .into_iter()
                .filter_map(|list| Some((list.to_string(), self.data.get(&list_name(task, list))?.clone())))
                .collect(),
            root: root.map(|r| (PathBuf::from(r), task.file_name().to_string())),
        })
    }
}

/// The key of `data` that names what a task's examples are drawn from.
fn pool_name(task: &Found) -> String {
    format!("{}-fewshot", task.file_name())
}

/// The key of `data` that names the file of a list that made items draw from.
fn list_name(task: &Found, list: &str) -> String {
    format!("{}-{list}", task.file_name())
}

/// Gives the tasks of this name other parts.
fn other_parts(tasks: &mut [Found], name: &str, parts: &Parts) -> Result<()> {
    let mut named = false;
    for task in tasks.iter_mut().filter(|t| t.file_name() == name) {
        if task.name != name || task.task.parts.is_empty() {
            mistake!("`{}` has no parts to choose from", task.full_name());
        }
        task.task.parts = parts.of(&task.task.parts)?;
        named = true;
    }
    if !named {
        let names: Vec<&str> = tasks.iter().map(Found::file_name).collect();
        mistake!(
            "no task of this study has that name{}; there are: {}",
            crate::mistake::nearest(name, names.iter().copied()),
            names.join(", ")
        );
    }
    Ok(())
}

fn check_metric(label: &str, name: &str, kind: &str) -> Result<()> {
    let of = || crate::eval::METRICS.iter().filter(|m| m.of.contains(&kind)).map(|m| m.name);
    if crate::eval::metrics::metric(name).is_some_and(|m| m.of.contains(&kind)) {
        return Ok(());
    }
    mistake!(
        "`{label}`: no metric `{name}` for a {kind} task{}; there are: {}",
        crate::mistake::nearest(name, of()),
        of().collect::<Vec<_>>().join(", ")
    )
}

/// `--set 'a.b=value'`: the value is TOML, or a text as it stands. A number in the path picks from a list.
fn override_key(table: &mut toml::Table, set: &str) -> Result<()> {
    let Some((key, text)) = set.split_once('=') else {
        mistake!("--set `{set}`: it is `key=value`");
    };
    let value = format!("v = {text}")
        .parse::<toml::Table>()
        .ok()
        .and_then(|mut t| t.remove("v"))
        .unwrap_or_else(|| toml::Value::String(text.into()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path.pop().unwrap_or_default();
    let mut root = toml::Value::Table(std::mem::take(table));
    let result = (|| {
        let mut at = &mut root;
        for part in path {
            at = step(at, part, key)?;
        }
        *step(at, last, key)? = value;
        Ok(())
    })();
    if let toml::Value::Table(changed) = root {
        *table = changed;
    }
    result
}

fn step<'a>(at: &'a mut toml::Value, part: &str, key: &str) -> Result<&'a mut toml::Value> {
    match at {
        toml::Value::Table(t) => {
            Ok(t.entry(part.to_string()).or_insert_with(|| toml::Value::Table(toml::Table::new())))
        }
        toml::Value::Array(list) => {
            let len = list.len();
            match part.parse::<usize>().ok().and_then(|i| list.get_mut(i)) {
                Some(value) => Ok(value),
                None => mistake!("--set `{key}`: `{part}` is no index of a list of {len}"),
            }
        }
        _ => mistake!("--set `{key}`: `{part}` is inside something that is neither table nor list"),
    }
}
