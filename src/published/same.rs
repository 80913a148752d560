//! What is the same as what: names of one model, a printed task and one of ours, a printed recipe and a record's
//! settings.
//!
//! The three tables are text files whose heads say what their keys mean. A figure finds the first section that fits it;
//! what no section calls the same is not compared, and `apart` says why.
use super::{Figure, Recipe, Series, text};
use crate::results::TaskInfo;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// One set of weights.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// Hub ids, the canonical one first; none where the weights are not on the Hub.
    pub ids: Vec<&'static str>,
    /// 10^9.
    pub params: f64,
    /// As records call it.
    pub family: &'static str,
}

/// What figures of some tasks were measured on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Task {
    /// The section's name.
    pub name: &'static str,
    when: When,
    metrics: Vec<&'static str>,
    checkpoints: Vec<&'static str>,
    /// How the text was made and scored.
    pub protocol: &'static str,
    /// What records of these figures are put under.
    pub suite: &'static str,
    /// What a guess scores, as a fraction.
    pub chance: Option<f64>,
    /// Items by task, where the source does not print them; `*` for all.
    n: Vec<(&'static str, usize)>,
    /// Whether lower values are better.
    pub lower: bool,
    /// The task of ours that is the same.
    pub ours: Option<Ours>,
    /// How that is known.
    pub basis: &'static str,
    /// Why there is none.
    pub apart: Option<&'static str>,
}

/// A task of ours, and what its record must say.
#[derive(Clone, Debug, PartialEq)]
pub struct Ours {
    name: &'static str,
    /// Its version.
    pub version: u32,
    metric: &'static str,
    /// The harness's version, by the profile's name.
    pub profile: Option<&'static str>,
    /// The protocol, word for word.
    pub words: &'static str,
    /// A value times this is on our scale, once its unit is no percent.
    pub times: f64,
}

impl Task {
    /// Items of a series: those that its source prints, or else those of the data.
    pub fn items(&self, s: &Series) -> Option<usize> {
        let known = self.n.iter().find(|(task, _)| *task == "*" || *task == s.task);
        s.n.or(known.map(|(_, n)| *n))
    }
}

impl Ours {
    /// `suite/name`, for a figure's task as printed.
    pub fn task(&self, printed: &str) -> String {
        self.name.replace("{task}", printed)
    }

    /// The metric, for a figure's as printed.
    pub fn metric(&self, printed: &str) -> String {
        self.metric.replace("{metric}", printed)
    }

    /// Whether a record is of this task, asked and scored in this way.
    pub fn is(&self, info: &TaskInfo, printed: &str) -> bool {
        format!("{}/{}", info.suite, info.name) == self.task(printed)
            && info.version == self.version
            && info.protocol == self.words
            && self.profile.is_none_or(|p| info.profile.as_deref() == Some(p))
    }
}

/// How far a figure can be met: published-PTQ numbers differ between papers by as much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// Nothing was rounded.
    Full,
    /// Nothing looked at a text.
    DataFree,
    /// Something was fitted to a text.
    Calibrated,
    /// Something was learned on one.
    Learned,
}

/// Recipes that a section speaks of, and what is the same as them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Method {
    /// The section's name.
    pub name: &'static str,
    when: When,
    methods: Vec<&'static str>,
    /// Which tolerance; `None` where nothing of ours is the same.
    pub tier: Option<Tier>,
    /// Which grid the figures are of, as far as the source says.
    pub grid: &'static str,
    group: Option<&'static str>,
    settings: Vec<(&'static str, &'static str)>,
    /// Why nothing of ours is the same.
    pub apart: Option<&'static str>,
}

/// Which figures a section fits, but for what only one kind of section has.
#[derive(Clone, Debug, Default, PartialEq)]
struct When {
    sources: Vec<&'static str>,
    models: Vec<&'static str>,
    tasks: Vec<&'static str>,
    table: Option<&'static str>,
}

fn among(list: &[&str], name: &str) -> bool {
    list.iter().any(|l| *l == "*" || *l == name)
}

impl When {
    fn fits(&self, s: &Series, model: Option<&Model>) -> bool {
        let model = || model.is_some_and(|m| m.ids.iter().any(|id| self.models.contains(id)));
        among(&self.sources, s.source)
            && (self.tasks.is_empty() || among(&self.tasks, s.task))
            && self.table.is_none_or(|t| s.table.contains(t))
            && (self.models.is_empty() || model())
    }

    /// Takes a key that is one of these.
    fn take(&mut self, key: &str, value: &'static str) -> bool {
        match key {
            "sources" => self.sources = value.split(", ").collect(),
            "models" => self.models = value.split(", ").collect(),
            "tasks" => self.tasks = tasks(value),
            "table" => self.table = Some(value),
            _ => return false,
        }
        true
    }
}

/// Names with commas of their own, `avg5(piqa,hs)`, have no space behind them.
fn tasks(value: &'static str) -> Vec<&'static str> {
    value.split(", ").collect()
}

/// The three tables.
pub struct Same {
    models: Vec<Model>,
    by_name: BTreeMap<&'static str, usize>,
    /// In order.
    pub tasks: Vec<Task>,
    /// In order.
    pub methods: Vec<Method>,
}

impl Same {
    /// From the texts of models.txt, tasks.txt and recipes.txt.
    ///
    /// # Errors
    /// The line or key that cannot be read.
    pub fn parse(models: &'static str, tasks: &'static str, recipes: &'static str) -> Result<Self> {
        let mut same =
            Self { models: Vec::new(), by_name: BTreeMap::new(), tasks: Vec::new(), methods: Vec::new() };
        for row in text::rows(models) {
            same.add_model(&row).with_context(|| format!("models.txt: `{}`", row.join(" | ")))?;
        }
        for (name, pairs) in text::sections(tasks).context("tasks.txt")? {
            same.tasks.push(task(name, &pairs).with_context(|| format!("tasks.txt: [{name}]"))?);
        }
        for (name, pairs) in text::sections(recipes).context("recipes.txt")? {
            same.methods.push(method(name, &pairs).with_context(|| format!("recipes.txt: [{name}]"))?);
        }
        Ok(same)
    }

    fn add_model(&mut self, row: &[&'static str]) -> Result<()> {
        let [ids, params, family, names @ ..] = row else {
            bail!("it is ids | 10^9 parameters | family | names")
        };
        let ids: Vec<&str> = ids.split(", ").filter(|id| *id != "-").collect();
        for name in ids.iter().chain(names) {
            ensure!(self.by_name.insert(name, self.models.len()).is_none(), "`{name}` is named twice");
        }
        self.models.push(Model { ids, params: params.parse().context("parameters")?, family });
        Ok(())
    }

    /// A model by a Hub id, or by a name that papers have for it. Never by a part of one.
    pub fn model(&self, name: &str) -> Option<&Model> {
        self.by_name.get(name).map(|&i| &self.models[i])
    }

    /// Every model.
    pub fn models(&self) -> &[Model] {
        &self.models
    }

    /// What a series was measured on.
    pub fn task(&self, s: &Series) -> Option<&Task> {
        self.tasks.iter().find(|t| {
            t.when.fits(s, None)
                && among(&t.metrics, s.metric)
                && (t.checkpoints.is_empty() || among(&t.checkpoints, s.checkpoint))
        })
    }

    /// What was done to a figure's model.
    pub fn method(&'static self, figure: &Figure) -> Option<&'static Method> {
        let model = figure.model(self);
        self.methods
            .iter()
            .find(|m| among(&m.methods, figure.recipe.method) && m.when.fits(&figure.series, model))
    }
}

fn task(name: &'static str, pairs: &[(&'static str, &'static str)]) -> Result<Task> {
    let mut task = Task { name, ..Task::default() };
    let (mut ours, mut profile, mut words, mut times) = (None, None, "", 1.);
    for &(key, value) in pairs {
        match key {
            _ if task.when.take(key, value) => {}
            "metrics" => task.metrics = value.split(", ").collect(),
            "checkpoints" => task.checkpoints = value.split(", ").collect(),
            "protocol" => task.protocol = value,
            "suite" => task.suite = value,
            "chance" => task.chance = Some(value.parse().context("chance")?),
            "n" => {
                for one in value.split(", ") {
                    let (name, n) = one.split_once(' ').unwrap_or(("*", one));
                    task.n.push((name, n.parse().context("n")?));
                }
            }
            "lower" => task.lower = value == "yes",
            "ours" => ours = Some(value),
            "profile" => profile = Some(value),
            "words" => words = value,
            "times" => times = value.parse().context("times")?,
            "basis" => task.basis = value,
            "apart" => task.apart = Some(value),
            _ => bail!("no key `{key}`"),
        }
    }
    ensure!(ours.is_some() != task.apart.is_some(), "it has either `ours` or `apart`");
    if let Some(ours) = ours {
        let parts = ours.split_once(' ').and_then(|(t, metric)| Some((t.split_once('@')?, metric)));
        let ((name, version), metric) = parts.context("ours is `suite/name@version metric`")?;
        let version = version.parse().context("the version")?;
        task.ours = Some(Ours { name, version, metric, profile, words, times });
    }
    Ok(task)
}

fn method(name: &'static str, pairs: &[(&'static str, &'static str)]) -> Result<Method> {
    let mut method = Method { name, ..Method::default() };
    for &(key, value) in pairs {
        match key {
            _ if method.when.take(key, value) => {}
            "methods" => method.methods = value.split(" / ").collect(),
            "grid" => method.grid = value,
            "group" => method.group = Some(value),
            "apart" => method.apart = Some(value),
            "tier" => {
                method.tier = Some(match value {
                    "full" => Tier::Full,
                    "data-free" => Tier::DataFree,
                    "calibrated" => Tier::Calibrated,
                    "learned" => Tier::Learned,
                    _ => bail!("no tier `{value}`"),
                });
            }
            _ => match key.strip_prefix("set ") {
                Some(path) => method.settings.push((path, value)),
                None => bail!("no key `{key}`"),
            },
        }
    }
    ensure!(method.tier.is_some() != method.apart.is_some(), "it has either `tier` or `apart`");
    Ok(method)
}

impl Method {
    /// Whether a record's settings are those of a printed recipe.
    pub fn is(&self, recipe: &Recipe, settings: &Value) -> bool {
        if self.apart.is_some() {
            return false;
        }
        let at = |path: &str| lookup(settings, path);
        let said = |path: &str| self.settings.iter().any(|(p, _)| *p == path);
        let prepare = match at("prepare").and_then(Value::as_array) {
            Some(list) => {
                list.iter().map(|p| p["method"].as_str().unwrap_or("?")).collect::<Vec<_>>().join("+")
            }
            None => String::new(),
        };
        let absent = |path: &str| at(path).is_none_or(Value::is_null);
        if !said("prepare") && !prepare.is_empty() || !plain(settings) {
            return false;
        }
        let group = self.group.or(recipe.group);
        self.weights(recipe.weights, group, settings)
            && bits(recipe.acts, at("acts.bits"), absent("acts"), said("acts.format"))
            && (recipe.acts == Some(16.)
                || at("acts.per").and_then(Value::as_str) == Some("token")
                    && at("acts.dynamic") == Some(&Value::Bool(true))
                || said("acts.format"))
            && self.cache(recipe.kv, settings)
            && self.settings.iter().all(|&(path, want)| {
                let acts = recipe.acts.map_or(String::new(), |bits| bits.to_string());
                let want = want.replace("{recipe}", recipe.notation()).replace("{acts}", &acts);
                match path {
                    "prepare" => prepare == want,
                    _ => match at(path) {
                        Some(found) => want.split(" or ").any(|w| words(found) == w),
                        None => want.split(" or ").any(|w| w == "absent"),
                    },
                }
            })
    }

    fn weights(&self, want: Option<f64>, group: Option<&str>, settings: &Value) -> bool {
        let weights = &settings["weights"];
        if want == Some(16.) || self.tier == Some(Tier::Full) {
            return weights.is_null();
        }
        // A format or a file says it all.
        if self.settings.iter().any(|(p, _)| ["weights.format", "weights.file"].contains(p)) {
            return !weights.is_null();
        }
        let whole = weights["keep"].is_null() && weights["correct"].is_null();
        let per = match group {
            Some("row") => weights["per"] == "row",
            Some(group) => weights["per"] == "group" && words(&weights["group"]) == group,
            // A source that prints none, and whose text this program's names go by: a scale a row.
            None => weights["per"] == "row",
        };
        whole && per && want.is_some() && weights["bits"].as_f64() == want
    }

    fn cache(&self, want: Option<f64>, settings: &Value) -> bool {
        let kv = &settings["kv"];
        match want {
            None => false,
            Some(16.) => kv.is_null(),
            want => {
                let of = |side: &str| kv[side]["bits"].as_f64().or(kv["bits"].as_f64());
                of("keys") == want && of("values") == want
            }
        }
    }
}

/// Whether a recipe leaves alone and treats otherwise what papers do, and nothing more: no sites of its own, no outliers
/// kept, no budget. Routers are a matter of their own, which a section may name.
fn plain(settings: &Value) -> bool {
    let absent = |path: &str| lookup(settings, path).is_none_or(Value::is_null);
    let alone = [
        "at",
        "budget",
        "acts.exact",
        "kv.outliers",
        "kv.sinks",
        "kv.codebook",
        "kv.keys.outliers",
        "kv.values.outliers",
        "kv.keys.codebook",
    ];
    let before = ["kv.keys", "kv.positions"].iter().any(|p| {
        lookup(settings, p).and_then(Value::as_str).is_some_and(|s| s.ends_with("before positions"))
    });
    let skip = lookup(settings, "skip").map(words).unwrap_or_default();
    let whole = lookup(settings, "weights.file").is_some();
    let usual = if whole { skip == "*.router" } else { ["head *.router", "head"].contains(&skip.as_str()) };
    alone.iter().all(|p| absent(p)) && !before && usual
}

/// Whether a setting's bits are the printed ones.
fn bits(want: Option<f64>, found: Option<&Value>, absent: bool, format: bool) -> bool {
    match want {
        None => false,
        Some(16.) => absent,
        Some(want) => format && !absent || found.and_then(Value::as_f64) == Some(want),
    }
}

/// `weights.bits`, `prepare.0.alpha`.
fn lookup<'a>(settings: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(settings, |at, key| match at {
        Value::Array(list) => list.get(key.parse::<usize>().ok()?),
        other => other.get(key),
    })
}

fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(words).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    }
}
