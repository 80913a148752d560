//! Did it regress, and is the difference real? Records, held against a baseline or against full precision.
//!
//! A rule draws a line; a verdict says on which side of it a cell lies: pass, fail, or inconclusive where these items cannot
//! tell, and how many could. Without rules a baseline is enough: nothing may be worse than it was, beyond what luck explains.
//! What asks another question is refused, and the difference named.
mod baseline;
mod refuse;
mod rules;
mod show;

pub use baseline::Baseline;
pub use show::{annotations, junit, markdown, table};

use crate::results::{MetricInfo, Record, Rule, Status, Store, Value};
use anyhow::{Context, Result};

/// How a folder is held against a baseline where no rule says it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usual {
    /// The chance of even one false alarm, over all comparisons together (Holm).
    pub alpha: f64,
    /// What a metric may lose, as a part of the baseline's value, however sure the loss is: a difference can be real and nothing.
    pub tolerance: f64,
}

impl Default for Usual {
    fn default() -> Self {
        Self { alpha: 0.05, tolerance: 0.001 }
    }
}

/// On which side of its line a cell lies.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum State {
    /// Lets it pass.
    Pass,
    /// Beyond the line.
    Fail,
    /// These items cannot tell; about so many could, if items go on as they are.
    Inconclusive(Option<f64>),
    /// There is nothing to compare, or it asks another question.
    Refused,
}

/// What a gate says of one metric of one cell.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// The cell: model, recipe, task with its suite.
    pub cell: [String; 3],
    /// The metric.
    pub metric: String,
    /// The line, in words.
    pub rule: String,
    /// On which side of it.
    pub state: State,
    /// What the value is held against: full precision's or the baseline's.
    pub before: Option<f64>,
    /// The value.
    pub now: Option<f64>,
    /// One standard error of the difference, paired where items match.
    pub stderr: Option<f64>,
    /// Two-sided, of the difference.
    pub p_value: Option<f64>,
    /// The smallest true difference that these items find four times in five.
    pub detectable: Option<f64>,
    /// Items.
    pub n: Option<usize>,
    /// What a reader must know beside the numbers; may be empty.
    pub why: String,
}

impl Verdict {
    /// `model / recipe / task / metric`.
    pub fn what(&self) -> String {
        let [model, recipe, task] = &self.cell;
        format!("{model} / {recipe} / {task} / {}", self.metric)
    }

    /// Whether it ends in exit code 1; `strict`: what is inconclusive too.
    pub fn is_bad(&self, strict: bool) -> bool {
        match self.state {
            State::Pass => false,
            State::Fail | State::Refused => true,
            State::Inconclusive(_) => strict,
        }
    }
}

/// Holds a folder against `own` rules, and against a baseline: by those of the rules that speak of one, or by what is usual
/// where none does.
pub fn gate(now: &Store, own: &[Rule], baseline: Option<&Baseline>, usual: Usual) -> Result<Vec<Verdict>> {
    let records = now.records()?;
    let mut verdicts = rules::judge(now, &records, own, baseline)?;
    if let Some(baseline) = baseline.filter(|_| !own.iter().any(Rule::asks_baseline)) {
        verdicts.extend(rules::usual(now, &records, baseline, usual)?);
    }
    Ok(verdicts)
}

/// The records of a folder and its own rules together, for `run`: those that need no baseline.
pub fn own_rules(store: &Store) -> Result<Vec<Verdict>> {
    let mut own = store.rules().context("the study's gates")?;
    own.retain(|rule| !rule.asks_baseline());
    gate(store, &own, None, Usual::default())
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

/// Why a cell has no values.
fn reason(r: &Record) -> Option<String> {
    match &r.status {
        Status::Done { .. } => None,
        Status::Failed { why } => Some(format!("failed: {why}")),
        Status::Skipped { why } => Some(format!("skipped: {why}")),
    }
}

/// The cell that a record is of.
fn cell(r: &Record) -> [String; 3] {
    let task = [r.task.suite.as_str(), &r.task.name];
    let task = task.into_iter().filter(|s| !s.is_empty()).collect::<Vec<_>>().join("/");
    [r.model.name.clone(), r.recipe.name.clone(), task]
}
