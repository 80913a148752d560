//! Figures that others have printed: those of the study that this program's sweeps come from, and those of papers.
//!
//! ```text
//! suites/published/SOURCE.txt      what is printed, a line a series      text     -> Figure
//!                  models.txt      names of the same weights             same
//!                  tasks.txt       which task of ours is the same
//!                  recipes.txt     which settings are the same
//! figures                          as records, for the ordinary report   records
//! figures, records of ours         side by side, with a verdict          beside
//! figures of the study             its rules, recomputed                 rules, claims
//! ```
//! A figure is kept as it is printed, digit for digit. Whether it is the same measurement as one of ours is said in
//! those three tables and nowhere else: no name is matched in part.
pub mod beside;
pub mod claims;
pub mod records;
pub mod rules;
pub mod same;
pub mod text;

use crate::mistake;
use anyhow::{Context, Result, anyhow};
use include_dir::{Dir, include_dir};
use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};
use wildmatch::WildMatch;

use same::{Model, Same};

static FILES: Dir = include_dir!("$CARGO_MANIFEST_DIR/suites/published");

/// The source whose figures are those of the study.
pub const STUDY: &str = "qllm-eval";

/// The tables that say what is the same as what; every other file is a source.
const TABLES: [&str; 3] = ["models", "tasks", "recipes"];

/// One printed number.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What it is one number of.
    pub series: Arc<Series>,
    /// How the model was quantized.
    pub recipe: Arc<Recipe>,
    /// The number as it stands in the source, a typing error put right.
    pub printed: &'static str,
    /// The same as a number, in the source's unit.
    pub value: f64,
    /// What the source has there, where that was a typing error.
    pub typed: Option<&'static str>,
    /// Why it is to be doubted, where it is.
    pub suspect: Option<&'static str>,
}

/// What a line of a source has in common.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// The file's stem.
    pub source: &'static str,
    /// Whose figures they are: the paper, or the repository with its commit.
    pub citation: &'static str,
    /// The table or file in it. Where it is one file a recipe, `{recipe}` stands in the name.
    pub table: &'static str,
    /// The model, as it is called there.
    pub label: &'static str,
    /// The model, as it is called there or, where the label says less, its Hub id.
    pub model: &'static str,
    /// Parameters, 10^9, where the source's table has them.
    pub params: Option<f64>,
    /// How the checkpoint is known, where a label does not name one: `inferred_base`, `inferred_chat`, `ambiguous`.
    pub checkpoint: &'static str,
    /// As the source groups its tasks; empty where it does not.
    pub ability: &'static str,
    /// As printed, with its protocol where the name has one.
    pub task: &'static str,
    /// As printed.
    pub metric: &'static str,
    /// `percent`, `fraction`, `score_1_10`; empty where the source says none.
    pub unit: &'static str,
    /// Items, where they are known.
    pub n: Option<usize>,
    /// The sweep that its file belongs to: `w`, `wa`, `kv`, `wkv`.
    pub sweep: &'static str,
    /// Which part of the task, in the words that tasks of ours have for it: a length, a position, a turn.
    pub part: Option<String>,
    /// All of the line's fields, as printed, those above among them.
    pub fields: Vec<(&'static str, &'static str)>,
}

/// How a model was quantized.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Recipe {
    /// In this program's notation, where that can say it; else the method's name and its bits.
    pub name: &'static str,
    /// The method, as printed.
    pub method: &'static str,
    /// Bits of weights. `None`: not printed.
    pub weights: Option<f64>,
    /// Bits of activations. `None`: not printed.
    pub acts: Option<f64>,
    /// Bits of keys and values. `None`: not printed.
    pub kv: Option<f64>,
    /// Weights that share a scale: a number, or `row`. `None`: not printed.
    pub group: Option<&'static str>,
}

impl Recipe {
    /// Whether nothing was rounded.
    pub fn is_full(&self) -> bool {
        [self.weights, self.acts, self.kv].iter().all(|bits| *bits == Some(16.))
    }

    /// The name without what tells two printed recipes of one notation apart.
    pub fn notation(&self) -> &'static str {
        self.name.split('~').next().unwrap_or_default()
    }
}

impl Series {
    /// A field of the line, as printed.
    pub fn get(&self, key: &str) -> Option<&'static str> {
        self.fields.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }

    /// Whether the source's own text has it in a comment, out of use.
    pub fn commented_out(&self) -> bool {
        self.get("commented_out_in_source") == Some("true")
    }
}

impl Figure {
    /// The model, where its name is that of one checkpoint.
    pub fn model<'a>(&self, same: &'a Same) -> Option<&'a Model> {
        if self.series.checkpoint == "ambiguous" { None } else { same.model(self.series.model) }
    }

    /// The value, a percentage as a fraction.
    pub fn plain(&self) -> f64 {
        // As many digits as are printed: 71.73 % is 0.7173, not the double next to it.
        match self.series.unit {
            "percent" => format!("{}e-2", self.printed).parse().unwrap_or(self.value / 100.),
            _ => self.value,
        }
    }

    /// What a unit of the source is on the scale of [`Figure::plain`].
    pub fn plain_unit(&self) -> f64 {
        if self.series.unit == "percent" { 0.01 } else { 1. }
    }

    /// Half a unit of the last printed digit, in the source's unit: what the value is known to.
    pub fn rounding(&self) -> f64 {
        let (digits, power) = self.printed.split_once('e').unwrap_or((self.printed, "0"));
        let after = digits.split_once('.').map_or(0, |(_, after)| after.len() as i32);
        0.5 * 10f64.powi(power.parse::<i32>().unwrap_or(0) - after)
    }

    /// Parameters, 10^9: the source's, or else the model's.
    pub fn params(&self, same: &Same) -> Option<f64> {
        self.series.params.or(self.model(same).map(|m| m.params))
    }
}

/// All figures, and what is the same as what.
pub struct Published {
    /// By source, in the order of their lines; the study's first.
    pub figures: Vec<Figure>,
    /// Models, tasks and recipes.
    pub same: Same,
    /// Places of figures, by the model's canonical id.
    by_model: BTreeMap<&'static str, Vec<usize>>,
}

impl Published {
    /// The figures of a model, in order.
    pub fn of(&'static self, model: &Model) -> impl Iterator<Item = &'static Figure> {
        let places = model.ids.first().and_then(|id| self.by_model.get(id));
        places.into_iter().flatten().map(|&i| &self.figures[i])
    }
}

/// What is part of the program, parsed once.
///
/// # Errors
/// A file of the program that cannot be read: a test reads them all.
pub fn all() -> Result<&'static Published> {
    static ALL: OnceLock<std::result::Result<Published, String>> = OnceLock::new();
    ALL.get_or_init(|| read().map_err(|e| format!("{e:#}"))).as_ref().map_err(|e| anyhow!("{e}"))
}

fn read() -> Result<Published> {
    let file = |name: &str| -> Result<&'static str> {
        let name = format!("{name}.txt");
        let found = FILES.get_file(&name).and_then(|f| f.contents_utf8());
        found.with_context(|| format!("suites/published/{name} is not part of this build"))
    };
    let mut figures = Vec::new();
    for source in sources() {
        figures
            .extend(text::figures(file(source)?).with_context(|| format!("suites/published/{source}.txt"))?);
    }
    let [models, tasks, recipes] = TABLES;
    let same = Same::parse(file(models)?, file(tasks)?, file(recipes)?)?;
    let mut by_model: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (i, figure) in figures.iter().enumerate() {
        if let Some(&id) = figure.model(&same).and_then(|m| m.ids.first()) {
            by_model.entry(id).or_default().push(i);
        }
    }
    Ok(Published { figures, same, by_model })
}

/// Sources by name: the study's, then the others by the alphabet.
pub fn sources() -> Vec<&'static str> {
    let stem = |f: &'static include_dir::File| f.path().file_stem()?.to_str();
    let mut names: Vec<&str> = FILES.files().filter_map(stem).filter(|n| !TABLES.contains(n)).collect();
    names.sort_by_key(|n| (*n != STUDY, *n));
    names
}

/// Which figures are meant. A pattern has `*` and `?`; absent is any.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Of the model: as printed, or its Hub id.
    pub model: Option<String>,
    /// Of the recipe: its notation, or the method as printed.
    pub recipe: Option<String>,
    /// Of the task: as printed, or the one of ours that is the same.
    pub task: Option<String>,
    /// Of the source's name.
    pub source: Option<String>,
    /// Of the metric, as printed.
    pub metric: Option<String>,
    /// Only such as are to be doubted.
    pub suspect: bool,
}

impl Filter {
    /// Whether it asks for anything.
    pub fn is_empty(&self) -> bool {
        let patterns = [&self.model, &self.recipe, &self.task, &self.source, &self.metric];
        patterns.iter().all(|p| p.is_none()) && !self.suspect
    }

    /// The figures that it picks, in order.
    ///
    /// # Errors
    /// A mistake where it picks none.
    pub fn pick(&self, published: &'static Published) -> Result<Vec<&'static Figure>> {
        let glob = |pattern: &Option<String>| pattern.as_deref().map(WildMatch::new_case_insensitive);
        let any = |glob: &Option<WildMatch>, names: &[&str]| {
            glob.as_ref().is_none_or(|g| names.iter().any(|n| g.matches(n)))
        };
        let [model, recipe, task, source, metric] =
            [&self.model, &self.recipe, &self.task, &self.source, &self.metric].map(glob);
        let same = &published.same;
        let picked: Vec<&Figure> = published
            .figures
            .iter()
            .filter(|f| {
                let s = &f.series;
                (!self.suspect || f.suspect.is_some())
                    && any(&source, &[s.source])
                    && any(&metric, &[s.metric])
                    && any(&recipe, &[f.recipe.notation(), f.recipe.method])
                    && (model.is_none()
                        || any(&model, &[s.label, s.model])
                        || f.model(same).is_some_and(|m| any(&model, &m.ids)))
                    && (task.is_none()
                        || any(&task, &[s.task])
                        || same
                            .task(s)
                            .and_then(|t| t.ours.as_ref())
                            .is_some_and(|o| any(&task, &[&o.task(s.task)])))
            })
            .collect();
        if picked.is_empty() {
            mistake!(
                "no published figure is of {}; sources are: {}; `bitsweep list published` counts them by task",
                self.words(),
                sources().join(", ")
            );
        }
        Ok(picked)
    }

    fn words(&self) -> String {
        let named = [
            ("--model", &self.model),
            ("--recipe", &self.recipe),
            ("--task", &self.task),
            ("--source", &self.source),
            ("--metric", &self.metric),
        ];
        let mut words: Vec<String> =
            named.iter().filter_map(|(key, p)| Some(format!("{key} `{}`", p.as_deref()?))).collect();
        if self.suspect {
            words.push("--suspect".into());
        }
        words.join(" ")
    }
}
