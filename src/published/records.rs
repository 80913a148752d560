//! Figures as records, so that the ordinary report draws them.
//!
//! ```text
//! model      the Hub id, or the label where it could be of two checkpoints
//! task       as printed, under its ability; what the source has one number each of is a part (length, position, turn)
//! value      as a fraction where the source has percents; with parts: their mean, items counted alike
//! stderr     sqrt(p (1 - p) / n) where the metric is a share of n items; the source prints none
//! ```
//! What is to be doubted is no value: a record whose figures are all suspect is skipped, and its reason has the printed
//! numbers; where some are, those are left out, and the recipe's notes name them. Drawn, they would look as if they had
//! been measured. Left out too are figures that the source itself has in a comment.
use super::{Figure, Published, Recipe, same::Task};
use crate::{
    results::{
        Cost, MadeBy, MetricInfo, ModelInfo, Parts, RecipeInfo, Record, SCHEMA, Status, TaskInfo, Value,
    },
    stats::Scale,
};
use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What `made_by` says of records that nobody computed.
const DEVICE: &str = "published";

/// Whether a record is of figures, not of a run.
pub fn is_published(record: &Record) -> bool {
    record.made_by.device == DEVICE
}

/// What one record is of, by name.
type Cell = (String, &'static str, &'static str, &'static str);

/// All records of a source, by model, then recipe (`full` first), then task, each in the order of the source.
///
/// # Errors
/// A task that tasks.txt does not know.
pub fn records(published: &'static Published, source: &str) -> Result<Vec<Record>> {
    let mut order: [Vec<String>; 3] = Default::default();
    let mut cells: BTreeMap<Cell, Vec<&Figure>> = BTreeMap::new();
    for figure in published.figures.iter().filter(|f| f.series.source == source && !f.series.commented_out())
    {
        let s = &figure.series;
        let model = name_of(published, figure);
        let task =
            published.same.task(s).with_context(|| format!("tasks.txt has no `{}` of {source}", s.task))?;
        let recipe = recipe_name(&figure.recipe);
        for (known, name) in order.iter_mut().zip([&model, recipe, s.task]) {
            if !known.iter().any(|k| k == name) {
                known.push(name.to_string());
            }
        }
        cells.entry((model, recipe, task.suite, s.task)).or_default().push(figure);
    }
    let place = |i: usize, name: &str| order[i].iter().position(|n| n == name);
    let mut sorted: Vec<(Cell, Vec<&Figure>)> = cells.into_iter().collect();
    sorted.sort_by_key(|((model, recipe, _, task), figures)| {
        (place(0, model), !figures[0].recipe.is_full(), place(1, recipe), place(2, task))
    });
    sorted.into_iter().map(|(cell, figures)| record(published, cell, &figures)).collect()
}

/// Full precision has one name, whatever it is called there.
fn recipe_name(recipe: &Recipe) -> &'static str {
    if recipe.is_full() && recipe.notation() != "fp16" { "full" } else { recipe.name }
}

fn name_of(published: &'static Published, figure: &Figure) -> String {
    let model = figure.model(&published.same).and_then(|m| m.ids.first());
    model.copied().unwrap_or(figure.series.model).to_string()
}

/// A figure on our scale, with its error.
fn value(figure: &Figure, task: &Task) -> Value {
    let s = &figure.series;
    let (value, n) = (figure.plain(), task.items(s));
    // A mean of subjects, a part of a probability and a ratio are no shares of items.
    let share = [
        "accuracy",
        "acc",
        "acc_norm",
        "accuracy_weighted_average",
        "mc1",
        "acc_before",
        "acc_after",
        "best_subspan_em",
    ];
    let known = n.filter(|_| share.contains(&s.metric) && (0. ..=1.).contains(&value));
    let stderr = known.map(|n| binomial(value, n));
    Value { value, stderr, n: n.unwrap_or(0), ..Value::default() }
}

/// One standard error of a share of `n` items.
pub fn binomial(share: f64, n: usize) -> f64 {
    (share * (1. - share) / n as f64).sqrt()
}

/// In which order a task's metrics stand; the first speaks for the task.
const FIRST: [&str; 3] = ["acc_after", "accuracy_weighted_average", "self_calibration_weighted_average"];

fn record(published: &'static Published, cell: Cell, figures: &[&Figure]) -> Result<Record> {
    let (model, recipe, suite, name) = cell;
    let s = &figures[0].series;
    let task = published.same.task(s).context("a task that was found before")?;
    let mut metrics: Vec<&str> = Vec::new();
    for figure in figures {
        if !metrics.contains(&figure.series.metric) {
            metrics.push(figure.series.metric);
        }
    }
    metrics.sort_by_key(|m| !FIRST.contains(m));
    // Full precision stands in every sweep's file: once is enough, and the first that is not doubted counts.
    let mut once: Vec<&Figure> = Vec::new();
    let mut notes = Vec::new();
    for figure in figures {
        let key = |f: &Figure| (f.series.metric, f.series.part.clone());
        let doubted = |f: &Figure| f.suspect.is_some();
        match once.iter_mut().find(|f| key(f) == key(figure)) {
            None => once.push(figure),
            Some(kept) => {
                if kept.value != figure.value {
                    notes.push(format!(
                        "{} is {} in {}, {} in {}",
                        s.task, kept.printed, kept.series.table, figure.printed, figure.series.table
                    ));
                }
                if doubted(kept) && !doubted(figure) {
                    *kept = figure;
                }
            }
        }
    }
    let (doubted, sound): (Vec<&Figure>, Vec<&Figure>) = once.iter().partition(|f| f.suspect.is_some());
    let (mut values, mut parts) = (BTreeMap::new(), Parts::default());
    for metric in &metrics {
        let mine: Vec<&Figure> = sound.iter().copied().filter(|f| f.series.metric == *metric).collect();
        let whole = !doubted.iter().any(|f| f.series.metric == *metric);
        for figure in &mine {
            let Some(part) = &figure.series.part else {
                values.insert(metric.to_string(), value(figure, task));
                continue;
            };
            let at = parts.0.iter().position(|(name, _)| name == part).unwrap_or_else(|| {
                parts.0.push((part.clone(), BTreeMap::new()));
                parts.0.len() - 1
            });
            parts.0[at].1.insert(metric.to_string(), value(figure, task));
        }
        // A mean over some of the parts would be another number than one over all of them.
        if whole && mine.iter().all(|f| f.series.part.is_some()) && !mine.is_empty() {
            values.insert(metric.to_string(), mean(&mine, task));
            notes.push("the value is the mean of the parts, which is not printed".into());
        }
    }
    let status = if sound.is_empty() {
        Status::Skipped { why: format!("published, but to be doubted: {}", doubts(&doubted)) }
    } else {
        if !doubted.is_empty() {
            notes.push(format!("left out, to be doubted: {}", doubts(&doubted)));
        }
        Status::Done { metrics: values }
    };
    let known = figures[0].model(&published.same);
    let billions = figures[0].params(&published.same);
    let lower = |metric: &str| task.lower || metric == "acc_drop";
    Ok(Record {
        schema: SCHEMA,
        cell: identity(s.source, &model, recipe, suite, name),
        model: ModelInfo {
            name: model,
            revision: String::new(),
            family: known.map_or(String::new(), |m| m.family.into()),
            params: billions.map_or(0, |b| (b * 1e9).round() as u64),
            stored: "f16".into(),
            tokenizer: String::new(),
        },
        recipe: recipe_info(published, figures[0], billions, notes),
        task: TaskInfo {
            suite: suite.into(),
            name: name.into(),
            version: 1,
            ability: suite.into(),
            chance: task.chance,
            protocol: task.protocol.into(),
            parts_alike: false,
            profile: None,
            data: String::new(),
            metrics: metrics
                .iter()
                .map(|m| MetricInfo { name: m.to_string(), higher_is_better: !lower(m), scale: Scale::Plain })
                .collect(),
        },
        status,
        parts,
        cost: Cost::default(),
        made_by: MadeBy {
            version: format!("published {}: {}", s.source, s.citation),
            device: DEVICE.into(),
            dtype: "fp16".into(),
            seed: 0,
            limit: None,
        },
    })
}

/// Of a task's parts, by their items.
fn mean(figures: &[&Figure], task: &Task) -> Value {
    let all: Vec<Value> = figures.iter().map(|f| value(f, task)).collect();
    let weigh = |v: &Value| if v.n > 0 { v.n as f64 } else { 1. };
    let total: f64 = all.iter().map(weigh).sum();
    let value = all.iter().map(|v| weigh(v) * v.value).sum::<f64>() / total;
    let n: usize = all.iter().map(|v| v.n).sum();
    let squares: Option<f64> = all.iter().map(|v| v.stderr.map(|e| (e * weigh(v) / total).powi(2))).sum();
    Value { value, stderr: squares.map(f64::sqrt), n, ..Value::default() }
}

/// What is printed and to be doubted, and why: each value once, with the parts that have it.
fn doubts(figures: &[&Figure]) -> String {
    let mut all: Vec<(String, Vec<&str>)> = Vec::new();
    for figure in figures {
        let why = figure.suspect.unwrap_or_default();
        let what = format!("{why}: {} {}", figure.series.metric, figure.printed);
        let part = figure.series.part.as_deref();
        match all.iter_mut().find(|(w, _)| *w == what) {
            Some((_, parts)) => parts.extend(part),
            None => all.push((what, part.into_iter().collect())),
        }
    }
    let words = |(what, parts): &(String, Vec<&str>)| match parts.is_empty() {
        true => what.clone(),
        false => format!("{what} at {}", parts.join(", ")),
    };
    all.iter().map(words).collect::<Vec<_>>().join("; ")
}

fn recipe_info(
    published: &'static Published,
    figure: &Figure,
    billions: Option<f64>,
    mut notes: Vec<String>,
) -> RecipeInfo {
    let Recipe { weights, acts, kv, group, .. } = *figure.recipe;
    let method = published.same.method(figure);
    if let Some(grid) = method.map(|m| m.grid).filter(|g| !g.is_empty() && *g != "none") {
        notes.push(format!("grid: {grid}"));
    }
    notes.push(format!(
        "figures of {}; standard errors are binomial, the source has none",
        figure.series.citation
    ));
    let bits = weights.unwrap_or(0.);
    // 16 bits of scale and the codes' bits of zero point a group, as the study's own grid would be stored.
    let group: Option<f64> = group.and_then(|g| g.parse().ok());
    let extra = group.filter(|_| bits > 0. && bits < 16.).map_or(0., |g| (16. + bits) / g);
    let size = billions.map_or(0., |b| b * 1e3 * (bits + extra) / 8.);
    notes.dedup();
    RecipeInfo {
        name: recipe_name(&figure.recipe).into(),
        settings: json!({
            "published": figure.series.source, "method": figure.recipe.method, "weight_bits": weights, "act_bits": acts,
            "kv_bits": kv, "group": figure.recipe.group,
        }),
        weight_bits: bits,
        act_bits: acts.unwrap_or(0.),
        kv_bits: kv.unwrap_or(0.),
        kv_bytes_per_token: 0.,
        bits_per_weight: bits + extra,
        size_mb: size,
        notes,
    }
}

fn identity(source: &str, model: &str, recipe: &str, suite: &str, task: &str) -> String {
    let text = json!(["published", source, model, recipe, suite, task]).to_string();
    format!("{:x}", Sha256::digest(text.as_bytes()))[..16].to_string()
}
