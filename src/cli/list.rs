//! `bitsweep list`.
use super::Exit;
use crate::{
    eval::METRICS,
    mistake,
    model::{families::FAMILIES, load::BUILTIN},
    published::{self, Figure, Filter, Published},
    quant::{
        grid::{FORMATS, levels::LEVELS},
        prepare,
        recipe::NOTATION,
        weight,
    },
    report::charts::CHARTS,
    study::config,
    suite::find,
};
use anyhow::Result;
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets::ASCII_MARKDOWN};
use std::{collections::BTreeSet, path::Path};

/// What there is.
#[derive(Args)]
pub struct List {
    /// One kind; all of them without it
    kind: Option<Kind>,
    #[command(flatten)]
    only: Only,
}

/// Which published figures: patterns with `*`.
#[derive(Args)]
struct Only {
    /// Published figures of models with such a name, as printed or on the Hub
    #[arg(long, value_name = "GLOB")]
    model: Option<String>,
    /// Of such recipes, in the notation, or methods as printed
    #[arg(long, value_name = "GLOB")]
    recipe: Option<String>,
    /// Of such tasks, as printed, or the ones here that are the same
    #[arg(long, value_name = "GLOB")]
    task: Option<String>,
    /// Of such sources
    #[arg(long, value_name = "GLOB")]
    source: Option<String>,
    /// Of such metrics, as printed
    #[arg(long, value_name = "GLOB")]
    metric: Option<String>,
    /// Only figures that are to be doubted
    #[arg(long)]
    suspect: bool,
}

/// What can be listed, in the order it is listed.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Models,
    Families,
    Recipes,
    Methods,
    Formats,
    Tasks,
    Metrics,
    Charts,
    Studies,
    Published,
}

impl List {
    pub(super) fn run(self) -> Result<Exit> {
        let Only { model, recipe, task, source, metric, suspect } = self.only;
        let filter = Filter { model, recipe, task, source, metric, suspect };
        if !filter.is_empty() {
            if self.kind != Some(Kind::Published) {
                mistake!(
                    "--model, --recipe, --task, --source, --metric and --suspect pick published figures: \
                     `bitsweep list published --model '*opt-125m*'`"
                );
            }
            let all = published::all()?;
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            table.set_header([
                "source", "model", "recipe", "task", "part", "metric", "value", "here", "suspect",
            ]);
            table.add_rows(filter.pick(all)?.into_iter().map(|f| figure(all, f)));
            out!("{table}");
            return Ok(Exit::Fine);
        }
        let kinds: Vec<Kind> = self.kind.map_or_else(|| Kind::value_variants().to_vec(), |k| vec![k]);
        for (i, kind) in kinds.iter().enumerate() {
            if kinds.len() > 1 {
                let name = kind.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default();
                out!("{}{name}", if i > 0 { "\n" } else { "" });
            }
            let mut table = Table::new();
            table.load_style(ASCII_MARKDOWN);
            let (header, rows) = rows(*kind)?;
            table.set_header(header);
            table.add_rows(rows);
            out!("{table}");
        }
        Ok(Exit::Fine)
    }
}

fn rows(kind: Kind) -> Result<(Vec<&'static str>, Vec<Vec<String>>)> {
    let pair = |name: &str, about: &str| vec![name.to_string(), about.to_string()];
    Ok(match kind {
        Kind::Models => {
            let mut rows: Vec<_> =
                BUILTIN.iter().map(|b| pair(&format!("builtin:{}", b.name), b.about)).collect();
            rows.push(pair("DIRECTORY", "a checkpoint in Hugging Face layout"));
            rows.push(pair(
                "org/name[@revision]",
                "on the Hub; HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE",
            ));
            (vec!["model", "about"], rows)
        }
        Kind::Families => {
            let row = |f: &&dyn crate::model::families::Family| {
                vec![
                    f.name().to_string(),
                    f.model_types().join(" "),
                    f.about().to_string(),
                    f.reference().to_string(),
                    format!("{:e}", f.tolerance()),
                ]
            };
            let header = vec!["family", "model_type", "about", "held to", "within"];
            (header, FAMILIES.iter().map(row).collect())
        }
        Kind::Recipes => (vec!["recipe", "about"], NOTATION.iter().map(|e| pair(e.name, e.about)).collect()),
        Kind::Methods => {
            let all = weight::METHODS.iter().chain(prepare::METHODS);
            (vec!["method", "about"], all.map(|e| pair(e.name, e.about)).collect())
        }
        Kind::Formats => {
            let mut rows: Vec<_> = FORMATS.iter().map(|e| pair(e.name, e.about)).collect();
            rows.extend(LEVELS.iter().map(|l| pair(l.name, l.about)));
            rows.push(pair(
                "groups",
                "weights: along the input, default 128; acts: a token; kv: along a head, default 128",
            ));
            rows.push(pair(
                "skipped",
                "embeddings, norms, biases always; `head` and `*.router` unless a recipe's `skip` says otherwise",
            ));
            (vec!["format", "about"], rows)
        }
        Kind::Tasks => {
            let mut rows = Vec::new();
            for name in find::built_in() {
                for t in find::find(&name, Path::new(""))? {
                    rows.push(vec![
                        name.clone(),
                        t.task.ask.kind().into(),
                        t.task.metrics.join(" "),
                        t.task.about,
                    ]);
                }
            }
            (vec!["task", "kind", "metrics", "about"], rows)
        }
        Kind::Metrics => {
            let row = |m: &crate::eval::Metric| {
                let sense = if m.higher_is_better { "higher" } else { "lower" };
                vec![m.name.to_string(), m.of.join(" "), sense.to_string(), m.about.to_string()]
            };
            (vec!["metric", "task", "better", "about"], METRICS.iter().map(row).collect())
        }
        Kind::Charts => (vec!["chart", "about"], CHARTS.iter().map(|c| pair(c.name(), c.about())).collect()),
        Kind::Studies => {
            let row = |n: &str| pair(n, &config::about(n).unwrap_or_default());
            (vec!["study", "about"], config::built_in().into_iter().map(row).collect())
        }
        Kind::Published => {
            (vec!["source", "task", "figures", "suspect", "models", "here"], counts(published::all()?))
        }
    })
}

/// A published figure, and the task that is the same here.
fn figure(all: &'static Published, f: &Figure) -> Vec<String> {
    let s = &f.series;
    let id = f.model(&all.same).and_then(|m| m.ids.first()).copied();
    vec![
        s.source.into(),
        id.unwrap_or(s.label).into(),
        f.recipe.notation().into(),
        s.task.into(),
        s.part.clone().unwrap_or_default(),
        s.metric.into(),
        f.printed.into(),
        here(all, f),
        f.suspect.unwrap_or_default().into(),
    ]
}

fn here(all: &'static Published, f: &Figure) -> String {
    let ours = all.same.task(&f.series).and_then(|t| t.ours.as_ref());
    ours.map_or(String::new(), |o| o.task(f.series.task))
}

/// How many figures there are, by source and task, in the order of the sources.
fn counts(all: &'static Published) -> Vec<Vec<String>> {
    let mut rows: Vec<(&str, &str, Vec<&Figure>)> = Vec::new();
    for f in &all.figures {
        match rows.iter_mut().find(|(source, task, _)| (*source, *task) == (f.series.source, f.series.task)) {
            Some((_, _, figures)) => figures.push(f),
            None => rows.push((f.series.source, f.series.task, vec![f])),
        }
    }
    let row = |(source, task, figures): (&str, &str, Vec<&Figure>)| {
        let models: BTreeSet<&str> = figures.iter().map(|f| f.series.model).collect();
        let suspect = figures.iter().filter(|f| f.suspect.is_some()).count();
        let here = figures.iter().map(|f| here(all, f)).find(|h| !h.is_empty()).unwrap_or_default();
        vec![
            source.into(),
            task.into(),
            figures.len().to_string(),
            if suspect > 0 { suspect.to_string() } else { String::new() },
            models.len().to_string(),
            here,
        ]
    };
    rows.into_iter().map(row).collect()
}
