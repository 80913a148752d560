//! Did it regress, and is the difference real? Records, held against a baseline or against a study's own rules.
use crate::{
    results::{Item, MetricInfo, Record, Rule, Status, Store, Value, store},
    stats::{self, Paired, Share},
};
use anyhow::{Context, Result, ensure};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What a gate says of one metric of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// `model / recipe / task / metric`.
    pub what: String,
    /// Lets it pass.
    pub ok: bool,
    /// The numbers.
    pub why: String,
}

/// Holds a folder's records against the study's rules: the value at most (or at least) `worst` times full precision's.
pub fn rules(records: &[Record], rules: &[Rule]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for rule in rules {
        let fits = |r: &&Record| rule.names_task(&r.task.suite, &r.task.name);
        let cells: Vec<&Record> =
            records.iter().filter(fits).filter(|r| r.recipe.name == rule.recipe).collect();
        if cells.is_empty() {
            verdicts.push(Verdict {
                what: format!("{} / {} / {}", rule.recipe, rule.task, rule.metric),
                ok: false,
                why: "no such cell among the records".into(),
            });
        }
        let mut met = BTreeSet::new();
        // The first of each: what an earlier form of the study left comes after.
        for cell in cells.into_iter().filter(|c| met.insert(c.model.name.clone())) {
            let full = records
                .iter()
                .filter(fits)
                .find(|r| r.model == cell.model && r.recipe.name == "full" && same_question(r, cell));
            let what = name(cell, &rule.metric);
            let (Some(v), Some(f), Some(info)) = (
                value(cell, &rule.metric),
                full.and_then(|r| value(r, &rule.metric)),
                info(cell, &rule.metric),
            ) else {
                let why = reason(cell).or_else(|| full.and_then(reason));
                verdicts.push(Verdict { what, ok: false, why: why.unwrap_or("no value to compare".into()) });
                continue;
            };
            let limit = rule.worst * f.value;
            let ok = if info.higher_is_better { v.value >= limit } else { v.value <= limit };
            let side = if info.higher_is_better { "at least" } else { "at most" };
            let why = format!(
                "{} beside full {}; {side} {} x full = {}",
                n(v.value),
                n(f.value),
                rule.worst,
                n(limit)
            );
            verdicts.push(Verdict { what, ok, why });
        }
    }
    verdicts
}

/// What records are compared with.
pub struct Baseline {
    label: String,
    records: Vec<Record>,
    items: PathBuf,
}

impl Baseline {
    /// A `records.jsonl`, or the folder that holds one; pairing needs `items/` beside it.
    pub fn open(path: &Path) -> Result<Self> {
        let file = if path.is_dir() { path.join("records.jsonl") } else { path.to_path_buf() };
        let records = store::read_records(&file)?;
        ensure!(!records.is_empty(), "baseline `{}` holds no records", file.display());
        let items = file.parent().unwrap_or(Path::new("")).join("items");
        Ok(Self { label: file.display().to_string(), records, items })
    }
}

/// Holds every cell of a baseline against the same cell now. It regressed where it is worse and the difference is
/// significant at `alpha`, over all comparisons together (Holm).
pub fn against(now: &Store, baseline: &Baseline, alpha: f64) -> Result<Vec<Verdict>> {
    let records = now.records()?;
    let key =
        |r: &Record| (r.model.name.clone(), r.recipe.name.clone(), r.task.suite.clone(), r.task.name.clone());
    // The study's own cells come first in its records; what an earlier form of it left comes after.
    let mut current: BTreeMap<_, &Record> = BTreeMap::new();
    for record in &records {
        current.entry(key(record)).or_insert(record);
    }
    let mut verdicts = Vec::new();
    let mut tests: Vec<(usize, f64)> = Vec::new();
    for old in &baseline.records {
        let Status::Done { metrics } = &old.status else { continue };
        let new = current.get(&key(old)).copied();
        let old_items = store::read_items(&baseline.items, &old.cell)?;
        let new_items = new.map(|r| now.items(&r.cell)).transpose()?.flatten();
        for metric in old.task.metrics.iter().filter(|m| metrics.contains_key(&m.name)) {
            let what = name(old, &metric.name);
            let fail = |why: String| Verdict { what: what.clone(), ok: false, why };
            let Some(new) = new else {
                verdicts.push(fail(format!("in `{}`, but not among the records", baseline.label)));
                continue;
            };
            let (Some(a), Some(b)) = (value(old, &metric.name), value(new, &metric.name)) else {
                verdicts.push(fail(reason(new).unwrap_or("no value now".into())));
                continue;
            };
            if !same_question(old, new) {
                verdicts.push(fail("not comparable: task version, data, protocol or limit differ".into()));
                continue;
            }
            let pair = match (&old_items, &new_items) {
                (Some(x), Some(y)) => pair(x, y, metric),
                _ => None,
            };
            let delta = b.value - a.value;
            let worse = if metric.higher_is_better { delta < 0. } else { delta > 0. };
            let (p, how) = match pair {
                Some(Paired { p_value, .. }) => (p_value, "paired"),
                None => (apart(a, b), "unpaired"),
            };
            let change = format!("{} -> {} ({:+})", n(a.value), n(b.value), rounded(delta));
            let why = match p {
                _ if delta == 0. => format!("{} as before", n(b.value)),
                Some(p) => format!("{change}, {how} p = {}", n(p)),
                None => format!("{change}, no error known"),
            };
            if worse {
                // A change that no error is known of counts as real.
                tests.push((verdicts.len(), p.unwrap_or(0.)));
            }
            verdicts.push(Verdict { what, ok: true, why });
        }
    }
    // Holm (1979): from the smallest p on, until one is not significant.
    tests.sort_by(|x, y| x.1.total_cmp(&y.1));
    let m = verdicts.len();
    for (rank, (at, p)) in tests.into_iter().enumerate() {
        if p * (m - rank) as f64 > alpha {
            break;
        }
        verdicts[at].ok = false;
    }
    Ok(verdicts)
}

/// Whether two records answer the same question: the same task on the same data.
fn same_question(a: &Record, b: &Record) -> bool {
    let key = |r: &Record| (r.task.data.clone(), r.task.version, r.task.protocol.clone(), r.made_by.limit);
    key(a) == key(b)
}

/// Item by item, matched by the items' hashes.
fn pair(a: &[Item], b: &[Item], metric: &MetricInfo) -> Option<Paired> {
    let shares = |items: &[Item]| -> Option<BTreeMap<String, Share>> {
        items.iter().map(|i| Some((i.item.clone(), *i.shares.get(&metric.name)?))).collect()
    };
    let (a, b) = (shares(a)?, shares(b)?);
    if !a.keys().eq(b.keys()) {
        return None;
    }
    let list = |m: BTreeMap<String, Share>| m.into_values().collect::<Vec<_>>();
    stats::paired(&list(a), &list(b), metric.scale)
}

fn apart(a: Value, b: Value) -> Option<f64> {
    let se = (a.stderr?.powi(2) + b.stderr?.powi(2)).sqrt();
    (se > 0.).then(|| stats::two_sided((b.value - a.value) / se))
}

fn info<'a>(r: &'a Record, metric: &str) -> Option<&'a MetricInfo> {
    r.task.metrics.iter().find(|m| m.name == metric)
}

fn value(r: &Record, metric: &str) -> Option<Value> {
    match &r.status {
        Status::Done { metrics } => metrics.get(metric).copied(),
        _ => None,
    }
}

fn reason(r: &Record) -> Option<String> {
    match &r.status {
        Status::Done { .. } => None,
        Status::Failed { why } => Some(format!("failed: {why}")),
        Status::Skipped { why } => Some(format!("skipped: {why}")),
    }
}

fn name(r: &Record, metric: &str) -> String {
    let task =
        [r.task.suite.as_str(), &r.task.name].iter().filter(|s| !s.is_empty()).copied().collect::<Vec<_>>();
    format!("{} / {} / {} / {metric}", r.model.name, r.recipe.name, task.join("/"))
}

/// Five significant digits.
fn n(x: f64) -> String {
    rounded(x).to_string()
}

fn rounded(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}

/// The records of a folder and its rules together, for `run`.
pub fn own_rules(store: &Store) -> Result<Vec<Verdict>> {
    Ok(rules(&store.records()?, &store.rules().context("the study's gates")?))
}
