//! Records as rows: one a cell and metric, with the value at full precision beside it.
//!
//! A cell that failed or was skipped has its rows too, without values. Runs are paired item by item, by the items'
//! hashes, so the order in which an evaluator wrote them does not matter.
use super::paired::{self, Paired};
use crate::{
    results::{Items, MetricInfo, Record, Status, Store, Value},
    stats::Pairs,
};
use anyhow::Result;
use std::collections::{BTreeMap, BTreeSet};

/// The recipe that all others are compared with.
pub const FULL: &str = "full";

/// All that a report is drawn from.
pub struct Frame {
    /// As the store gives them.
    pub records: Vec<Record>,
    /// In the order of `records`, and within one in the order of its task's metrics.
    pub rows: Vec<Row>,
    /// What can stand in one table: one model, evaluated in one way.
    pub groups: Vec<Group>,
    /// The same of each part of a task, by its name, where records have parts. In the order of `records`, then of parts.
    pub parts: Vec<(String, Row)>,
    /// By row: what its items say beside those of full precision, where both are known.
    pub paired: BTreeMap<usize, Paired>,
    /// Where each record's rows begin, and one more.
    first: Vec<usize>,
}

/// One metric of one cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// Index into [`Frame::records`].
    pub record: usize,
    /// Index into the task's metrics. `None` for a cell whose task declares none: it has one row all the same.
    pub metric: Option<usize>,
    /// The recipe is [`FULL`].
    pub is_full: bool,
    /// On the scale people read.
    pub value: Option<f64>,
    /// One standard error of `value`, clustered by item.
    pub stderr: Option<f64>,
    /// Items.
    pub n: Option<usize>,
    /// The same model, task and metric under the recipe [`FULL`].
    pub full: Option<f64>,
    /// `value - full`.
    pub delta: Option<f64>,
    /// One standard error of `delta`: paired where the items match, else as if the two runs were independent.
    pub delta_stderr: Option<f64>,
    /// `value / full`; 1 for the full row itself.
    pub relative: Option<f64>,
    /// One standard error of `relative`, by the delta method.
    pub relative_stderr: Option<f64>,
    /// Two-sided, from [`Pairs::p_value`]. `None` for the full row and where the items of the two runs differ.
    pub p_value: Option<f64>,
}

/// The part of full precision that is left, 1 = all of it, whichever way the metric runs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Kept {
    /// `value / full` where higher is better, else `full / value`.
    pub share: f64,
    /// One standard error, by the delta method.
    pub stderr: Option<f64>,
}

/// One model's cells, which share a revision, limit, seed and device: a table's worth.
pub struct Group {
    /// The model's name; where groups share it, what tells them apart as well.
    pub title: String,
    /// For file names; no two groups have the same.
    pub slug: String,
    /// Table rows: [`FULL`] first, else as they come.
    pub recipes: Vec<Line>,
    /// Table columns, as they come.
    pub tasks: Vec<Line>,
    cells: BTreeMap<(usize, usize), usize>,
}

/// A recipe or a task of a group.
pub struct Line {
    /// Its name; where the group has another of that name, what tells them apart as well.
    pub label: String,
    /// A record that has it.
    pub record: usize,
}

impl Frame {
    /// Reads the records, and of each finished cell the items, one cell's at a time and each once.
    pub fn read(store: &Store) -> Result<Self> {
        let records = store.records()?;
        let mut rows = Vec::new();
        let mut parts = Vec::new();
        let mut first = vec![0];
        for (i, record) in records.iter().enumerate() {
            let metrics = record.task.metrics.len();
            let empty = Row { record: i, is_full: record.recipe.name == FULL, ..Row::default() };
            if metrics == 0 {
                rows.push(empty.clone());
            }
            for m in 0..metrics {
                let row = Row { metric: Some(m), ..empty.clone() };
                let values = match &record.status {
                    Status::Done { metrics } => Some(metrics),
                    _ => None,
                };
                rows.push(row.with(values, &record.task.metrics[m]));
            }
            for (part, values) in &record.parts.0 {
                let row = |m| Row { metric: Some(m), ..empty.clone() };
                let of = |m: usize| row(m).with(Some(values), &record.task.metrics[m]);
                parts.extend((0..metrics).map(|m| (part.clone(), of(m))));
            }
            first.push(rows.len());
        }
        let groups = groups(&records);
        let mut frame = Self { records, rows, groups, parts, paired: BTreeMap::new(), first };
        frame.compare(store)?;
        paired::complete(&mut frame);
        Ok(frame)
    }

    /// A record's rows, one a metric.
    pub fn rows_of(&self, record: usize) -> &[Row] {
        &self.rows[self.first[record]..self.first[record + 1]]
    }

    /// Where a record's row of a metric stands.
    pub fn place_of(&self, record: usize, metric: usize) -> Option<usize> {
        Some(self.first[record] + metric).filter(|&at| at < self.first[record + 1])
    }

    /// The record that a row belongs to.
    pub fn record(&self, row: &Row) -> &Record {
        &self.records[row.record]
    }

    /// The metric that a row has the value of.
    pub fn metric(&self, row: &Row) -> Option<&MetricInfo> {
        self.record(row).task.metrics.get(row.metric?)
    }

    /// The part of full precision that a row keeps. `None` where a ratio says nothing: full precision is 0 (a
    /// divergence from itself) or below.
    pub fn kept(&self, row: &Row) -> Option<Kept> {
        let (full, r) = (row.full?, row.relative?);
        if full <= 0. || r < 0. {
            return None;
        }
        let kept = if self.metric(row)?.higher_is_better {
            Kept { share: r, stderr: row.relative_stderr }
        } else {
            Kept { share: 1. / r, stderr: row.relative_stderr.map(|s| s / (r * r)) }
        };
        (kept.share.is_finite() && kept.stderr.is_none_or(f64::is_finite)).then_some(kept)
    }

    /// Whether a row is a divergence from full precision: 0 there, so there is no ratio to it.
    pub fn diverges(&self, row: &Row) -> bool {
        self.metric(row).is_some_and(|m| {
            !m.higher_is_better && (row.full == Some(0.) || row.full.is_none() && m.name.starts_with("kl"))
        })
    }

    /// Fills in what stands beside each value: `full`, `delta`, `relative` and `p_value`.
    fn compare(&mut self, store: &Store) -> Result<()> {
        // Cells by the full-precision cell that they are compared with: its items are then read once.
        let mut partners: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        let mut fulls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, record) in self.records.iter().enumerate().filter(|(_, r)| r.recipe.name == FULL) {
            fulls.entry(question(record)).or_default().push(i);
        }
        for (i, record) in self.records.iter().enumerate() {
            let all = fulls.get(&question(record)).map_or(&[][..], Vec::as_slice);
            let alike = |&&j: &&usize| {
                let (a, b) = (&self.records[j].made_by, &record.made_by);
                a.device == b.device && a.dtype == b.dtype
            };
            let full =
                if record.recipe.name == FULL { Some(&i) } else { all.iter().rfind(alike).or(all.last()) };
            if let Some(&full) = full {
                partners.entry(full).or_default().push(i);
            }
        }
        for (full, cells) in partners {
            let mut full_items = None;
            for cell in cells {
                let items = if cell == full || !self.done(cell) || !self.done(full) {
                    None
                } else {
                    if full_items.is_none() {
                        full_items = Some(Items::new(store.items(&self.records[full].cell)?));
                    }
                    Some(Items::new(store.items(&self.records[cell].cell)?))
                };
                let both = full_items.as_ref().zip(items.as_ref());
                for at in self.first[cell]..self.first[cell + 1] {
                    let Some(metric) = self.metric(&self.rows[at]) else { continue };
                    let Some(base) = self
                        .rows_of(full)
                        .iter()
                        .find(|r| self.metric(r).is_some_and(|m| m.name == metric.name))
                        .cloned()
                    else {
                        continue;
                    };
                    let pairs = both.and_then(|(full, items)| items.pair(full, metric, None));
                    // What a guess scores is said of the first metric.
                    let first = self.rows[at].metric == Some(0);
                    let chance = self.records[cell].task.chance.filter(|_| first);
                    let known = self.rows[at].value.is_some() && base.value.is_some();
                    let paired = both
                        .filter(|_| known)
                        .and_then(|(full, items)| paired::against(items, full, metric, chance));
                    fill(&mut self.rows[at], &base, pairs);
                    self.paired.extend(paired.map(|p| (at, p)));
                }
                for at in 0..self.parts.len() {
                    let (part, row) = &self.parts[at];
                    if row.record != cell {
                        continue;
                    }
                    let Some(metric) = self.metric(row) else { continue };
                    let same = |(p, r): &&(String, Row)| {
                        r.record == full && p == part && self.metric(r).is_some_and(|m| m.name == metric.name)
                    };
                    let Some((_, base)) = self.parts.iter().find(same).cloned() else { continue };
                    let pairs = both.and_then(|(full, items)| items.pair(full, metric, Some(part)));
                    fill(&mut self.parts[at].1, &base, pairs);
                }
            }
        }
        Ok(())
    }

    fn done(&self, record: usize) -> bool {
        matches!(self.records[record].status, Status::Done { .. })
    }
}

impl Group {
    /// The record where a recipe (index into `recipes`) met a task (index into `tasks`), if it did.
    pub fn cell(&self, recipe: usize, task: usize) -> Option<usize> {
        self.cells.get(&(recipe, task)).copied()
    }

    /// The metric that stands for a task: the first that any recipe has a value of, else the first. A judge's come late.
    pub fn first_metric(&self, frame: &Frame, task: usize) -> usize {
        let records: Vec<usize> = (0..self.recipes.len()).filter_map(|r| self.cell(r, task)).collect();
        let metrics = frame.records[self.tasks[task].record].task.metrics.len();
        let known = |&m: &usize| {
            records.iter().any(|&r| frame.rows_of(r).get(m).is_some_and(|row| row.value.is_some()))
        };
        (0..metrics).find(known).unwrap_or(0)
    }
}

fn fill(row: &mut Row, base: &Row, pairs: Option<Pairs>) {
    let finite = |x: f64| x.is_finite().then_some(x);
    row.full = base.value;
    let (Some(value), Some(full)) = (row.value, base.value) else { return };
    if row.is_full {
        (row.delta, row.relative) = (Some(0.), Some(1.));
        return;
    }
    row.delta = finite(value - full);
    row.relative = finite(value / full);
    row.p_value = pairs.as_ref().and_then(Pairs::p_value).and_then(finite);
    if let (Some(a), Some(b)) = (base.stderr, row.stderr) {
        let (va, vb) = (a * a, b * b);
        let vd = pairs.as_ref().and_then(Pairs::stderr).map_or(va + vb, |s| s * s);
        row.delta_stderr = finite(vd.sqrt());
        // Var(b / a) = [Var b - 2 r Cov + r^2 Var a] / a^2 with Cov from Var(b - a) = Var a + Var b - 2 Cov.
        if let Some(r) = row.relative {
            let v = ((1. - r) * vb + r * (r - 1.) * va + r * vd).max(0.);
            row.relative_stderr = finite(v.sqrt() / full.abs());
        }
    }
}

/// What two cells must share to be compared, as text: everything but the recipe and the machine.
fn question(r: &Record) -> String {
    let (m, t, by) = (&r.model, &r.task, &r.made_by);
    format!(
        "{:?}",
        (&m.name, &m.revision, &t.suite, &t.name, t.version, &t.data, &t.protocol, by.limit, by.seed)
    )
}

impl Row {
    /// With the value that is among `values`, if there is one.
    fn with(mut self, values: Option<&BTreeMap<String, Value>>, metric: &MetricInfo) -> Self {
        if let Some(v) = values.and_then(|v| v.get(&metric.name)).filter(|v| v.value.is_finite()) {
            self.value = Some(v.value);
            self.stderr = v.stderr.filter(|s| s.is_finite());
            self.n = Some(v.n);
        }
        self
    }
}

fn groups(records: &[Record]) -> Vec<Group> {
    // In order of appearance: a study's own order is the one its reader expects.
    let (heads, place) = distinct(0..records.len(), |i| (records[i].model.name.clone(), traits(&records[i])));
    let mut members = vec![Vec::new(); heads.len()];
    for (i, &group) in place.iter().enumerate() {
        members[group].push(i);
    }
    let titles = tell_apart(&heads, |i| records[i].model.name.clone(), |i| traits(&records[i]));
    let mut slugs = BTreeSet::new();
    members
        .into_iter()
        .zip(titles)
        .map(|(members, title)| {
            let plain = slug(&records[members[0]].model.name);
            let mut name = plain.clone();
            let mut number = 2;
            while !slugs.insert(name.clone()) {
                name = format!("{plain}-{number}");
                number += 1;
            }
            group(records, &members, title, name)
        })
        .collect()
}

/// The first of each kind, in order of appearance, and for each of `of` the place of its kind among those.
fn distinct<K: Ord>(of: impl Iterator<Item = usize>, key: impl Fn(usize) -> K) -> (Vec<usize>, Vec<usize>) {
    let (mut firsts, mut known, mut places) = (Vec::new(), BTreeMap::new(), Vec::new());
    for i in of {
        let place = *known.entry(key(i)).or_insert_with(|| {
            firsts.push(i);
            firsts.len() - 1
        });
        places.push(place);
    }
    (firsts, places)
}

/// What separates groups of one model, in words that its title can take.
fn traits(r: &Record) -> Vec<String> {
    let revision: String = r.model.revision.chars().take(12).collect();
    let by = &r.made_by;
    vec![
        if revision.is_empty() { "no revision".to_owned() } else { format!("revision {revision}") },
        by.limit.map_or("all items".to_owned(), |n| format!("at most {n} items")),
        format!("seed {}", by.seed),
        format!("on {} in {}", by.device, by.dtype),
    ]
}

fn group(records: &[Record], members: &[usize], title: String, slug: String) -> Group {
    let (mut members, rest): (Vec<usize>, Vec<usize>) =
        members.iter().partition(|&&i| records[i].recipe.name == FULL);
    members.extend(rest);
    let (recipes, row) = distinct(members.iter().copied(), |i| {
        let recipe = &records[i].recipe;
        (recipe.name.clone(), recipe.settings.to_string())
    });
    // Tasks in the records' own order, not in that of the full cells alone: one of those may be missing.
    let mut by_task = members.clone();
    by_task.sort_unstable();
    let task = |i: usize| {
        let t = &records[i].task;
        (t.suite.clone(), t.name.clone(), t.version, t.data.clone(), t.protocol.clone())
    };
    let (tasks, column) = distinct(by_task.iter().copied(), task);
    let column: BTreeMap<usize, usize> = by_task.into_iter().zip(column).collect();
    let cells = members.iter().zip(row).map(|(&i, row)| ((row, column[&i]), i)).collect();
    let recipe_labels = tell_apart(&recipes, |i| records[i].recipe.name.clone(), |_| Vec::new());
    let task_labels = tell_apart(
        &tasks,
        |i| records[i].task.name.clone(),
        |i| {
            let t = &records[i].task;
            let data: String = t.data.chars().take(6).collect();
            vec![t.suite.clone(), format!("v{}", t.version), t.protocol.clone(), format!("data {data}")]
        },
    );
    let lines = |of: Vec<usize>, labels: Vec<String>| {
        labels.into_iter().zip(of).map(|(label, record)| Line { label, record }).collect()
    };
    Group { title, slug, recipes: lines(recipes, recipe_labels), tasks: lines(tasks, task_labels), cells }
}

/// A label each: the name, then, where names repeat, the traits in which those differ, then a number.
fn tell_apart(
    of: &[usize],
    name: impl Fn(usize) -> String,
    traits: impl Fn(usize) -> Vec<String>,
) -> Vec<String> {
    let mut known = BTreeMap::new();
    let mut labels = Vec::new();
    for &i in of {
        let same: Vec<usize> = of.iter().copied().filter(|&j| name(j) == name(i)).collect();
        let mine = traits(i);
        let differ: Vec<&str> = (0..mine.len())
            .filter(|&k| !mine[k].is_empty() && same.iter().any(|&j| traits(j)[k] != mine[k]))
            .map(|k| mine[k].as_str())
            .collect();
        let label = if differ.is_empty() { name(i) } else { format!("{} ({})", name(i), differ.join(", ")) };
        let count = known.entry(label.clone()).or_insert(0);
        *count += 1;
        labels.push(if *count == 1 { label } else { format!("{label} #{count}") });
    }
    labels
}

/// A name as a file's: lower-case letters, digits and single dashes; the last 80 of them.
pub fn slug(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_alphanumeric() {
            out.push(c.to_ascii_lowercase());
        } else if !out.is_empty() && !out.ends_with('-') {
            out.push('-');
        }
    }
    let from = out.len().saturating_sub(80);
    let out = out[from..].trim_matches('-');
    if out.is_empty() { "model".to_owned() } else { out.to_owned() }
}

/// Text for a line of its own: no line breaks, no control characters, single spaces.
pub fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|w| !w.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
