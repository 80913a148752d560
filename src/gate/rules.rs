//! Which line, and on which side of it: rules and what is usual, applied to cells.
use super::{
    Baseline, State, Usual, Verdict, cell, info, reason,
    refuse::{differences, remarks},
    value,
};
use crate::{
    results::{Against, Items, Limit, MetricInfo, Record, Rule, Store, Value, rule::CONFIDENCE},
    stats::{Pairs, holm, needed, normal_quantile, student_quantile, student_two_sided, two_sided},
};
use anyhow::Result;
use std::collections::BTreeMap;

/// The probability with which a number of items is said to tell.
const POWER: f64 = 0.8;

/// What is known of a difference between two runs.
struct Evidence {
    /// What is lost, in the metric's unit: above 0 is worse, whichever way the metric runs.
    loss: f64,
    stderr: Option<f64>,
    p_value: Option<f64>,
    detectable: Option<f64>,
    n: usize,
    /// Of the error; without end where runs are not paired, and each brings its own.
    df: f64,
    /// How far items moved, as a part of their size; `None` where they are not paired.
    moved: Option<f64>,
}

impl Evidence {
    fn of(before: Value, now: Value, pairs: Option<&Pairs>, metric: &MetricInfo) -> Self {
        let delta = now.value - before.value;
        let loss = if metric.higher_is_better { -delta } else { delta };
        // A difference of nothing is no difference; 0 says so without a sign.
        let loss = if loss == 0. { 0. } else { loss };
        let apart = || Some((before.stderr?.powi(2) + now.stderr?.powi(2)).sqrt());
        let (stderr, p_value) = match pairs {
            Some(pairs) => (pairs.stderr(), pairs.p_value()),
            None => (apart(), apart().filter(|&se| se > 0.).map(|se| two_sided(delta / se))),
        };
        let z = normal_quantile(0.975) + normal_quantile(POWER);
        let detectable = stderr.map(|se| z * se).filter(|d| *d > 0.);
        let moved = pairs.map(|p| p.distance().unwrap_or(f64::INFINITY));
        let df = pairs.map_or(f64::INFINITY, |p| p.clusters() as f64 - 1.);
        Self { loss, stderr, p_value, detectable, n: now.n, df, moved }
    }

    /// The same, with the distance in place of the loss: better counts as worse does.
    fn either_way(&self) -> Self {
        Self { loss: self.loss.abs(), ..*self }
    }

    /// Holds it against a line. With `confidence`: what is left to Holm is the probability of such a loss if the true one lay
    /// on the line; `None` where the verdict stands already.
    fn hold(&self, line: f64, confidence: Option<f64>) -> (State, Option<f64>) {
        let plain = if self.loss <= line { State::Pass } else { State::Fail };
        let Some((confidence, se)) = confidence.zip(self.stderr.filter(|&se| se > 0.)) else {
            return (plain, None);
        };
        let (quantile, tail): (f64, &dyn Fn(f64) -> f64) = match self.df.is_finite() {
            true => (student_quantile(confidence, self.df), &|t| student_two_sided(t, self.df)),
            false => (normal_quantile(confidence), &two_sided),
        };
        if self.loss + quantile * se <= line {
            return (State::Pass, None);
        }
        let items = needed(self.n, se, self.loss - line, 1. - confidence, POWER);
        let beyond = 0.5 * tail((self.loss - line) / se);
        let p = if self.loss > line { beyond } else { 1. - beyond };
        (State::Inconclusive(items), Some(p))
    }
}

/// A cell, what it is held against, and the items of both.
struct Case<'a> {
    now: &'a Record,
    before: &'a Record,
    items: [Option<Items>; 2],
}

impl Case<'_> {
    /// A verdict without its line and state, and the evidence; or why there is none.
    fn weigh(&self, metric: &str) -> Result<(Verdict, Evidence, MetricInfo), String> {
        let mut verdict = blank(cell(self.now), metric);
        let found = value(self.before, metric).zip(value(self.now, metric)).zip(info(self.now, metric));
        let Some(((before, now), metric)) = found else {
            let why = reason(self.now).or_else(|| reason(self.before));
            return Err(why.unwrap_or_else(|| "no value to compare".into()));
        };
        let pairs = match &self.items {
            [Some(before), Some(now)] => now.pair(before, metric, None),
            _ => None,
        };
        let evidence = Evidence::of(before, now, pairs.as_ref(), metric);
        verdict.state = State::Pass;
        verdict.before = Some(before.value);
        verdict.now = Some(now.value);
        verdict.stderr = evidence.stderr;
        verdict.p_value = evidence.p_value;
        verdict.detectable = evidence.detectable;
        verdict.n = Some(evidence.n);
        let mut words = remarks(self.before, self.now);
        // Full precision has other settings by definition.
        if self.before.recipe.name != self.now.recipe.name {
            words.clear();
        }
        if evidence.moved.is_none() {
            words.push("unpaired: the items of both runs are not there, or are not the same".into());
        } else if evidence.stderr.is_none() {
            words.push("one item has no error".into());
        }
        verdict.why = words.join("; ");
        Ok((verdict, evidence, metric.clone()))
    }
}

/// A verdict of which nothing is known but whose it is.
fn blank(cell: [String; 3], metric: &str) -> Verdict {
    Verdict {
        cell,
        metric: metric.to_owned(),
        rule: String::new(),
        state: State::Refused,
        before: None,
        now: None,
        stderr: None,
        p_value: None,
        detectable: None,
        n: None,
        why: String::new(),
    }
}

/// A cell's name: what stays the same when it is run again.
fn key(r: &Record) -> [String; 3] {
    cell(r)
}

/// Cells by name: the study's own stand first in its records; what an earlier form of it left comes after.
fn by_name(records: &[Record]) -> BTreeMap<[String; 3], &Record> {
    let mut all = BTreeMap::new();
    for record in records {
        all.entry(key(record)).or_insert(record);
    }
    all
}

fn items(store: &Store, record: &Record) -> Result<Option<Items>> {
    Ok(store.items(&record.cell)?.map(|items| Items::new(Some(items))))
}

/// Applies a study's own rules.
pub fn judge(
    now: &Store,
    records: &[Record],
    own: &[Rule],
    baseline: Option<&Baseline>,
) -> Result<Vec<Verdict>> {
    let mut verdicts = Vec::new();
    // Where in `verdicts`, the probability of what was seen at the line, and what it must be below.
    let mut tests: Vec<(usize, f64, f64)> = Vec::new();
    let current = by_name(records);
    let old = baseline.map(|b| by_name(&b.records)).unwrap_or_default();
    for rule in own {
        let names = |r: &Record| {
            rule.names_task(&r.task.suite, &r.task.name)
                && rule.names_recipe(&r.recipe.name)
                && rule.names_model(&r.model.name)
        };
        // In the order of the records.
        let mine =
            |r: &&Record| names(r) && current.get(&key(r)).is_some_and(|first| std::ptr::eq(*first, *r));
        let cells: Vec<&Record> = records.iter().filter(mine).collect();
        let said = rule.model.clone().unwrap_or_else(|| "*".into());
        // What the baseline has and the records lack would pass unseen.
        let gone: Vec<&Record> = match (rule.against, baseline) {
            (Against::Baseline, Some(baseline)) => {
                let gone = |r: &&Record| names(r) && reason(r).is_none() && !current.contains_key(&key(r));
                baseline.records.iter().filter(gone).collect()
            }
            _ => Vec::new(),
        };
        for old in &gone {
            let metric = rule.metric.clone().or_else(|| Some(old.task.metrics.first()?.name.clone()));
            let why = "in the baseline, and not among the records".to_owned();
            verdicts.push(Verdict { why, ..blank(cell(old), metric.as_deref().unwrap_or("-")) });
        }
        if cells.is_empty() && gone.is_empty() {
            let cell = [said, rule.recipe.clone(), rule.task.clone()];
            let why = "no such cell among the records".to_owned();
            verdicts.push(Verdict { why, ..blank(cell, rule.metric.as_deref().unwrap_or("-")) });
        }
        for new in cells {
            let metric = rule.metric.clone().or_else(|| Some(new.task.metrics.first()?.name.clone()));
            let metric = metric.unwrap_or_else(|| "-".into());
            let refused = |why: String| Verdict { why, ..blank(cell(new), &metric) };
            let before = match rule.against {
                Against::Full => {
                    let [model, _, task] = key(new);
                    let name = [model, "full".to_owned(), task];
                    // An earlier form of the study may have left one of other items.
                    let fits = |r: &&Record| key(r) == name && differ(r, new).is_none();
                    records.iter().find(fits).or(current.get(&name).copied())
                }
                Against::Baseline => old.get(&key(new)).copied(),
            };
            let Some(before) = before else {
                verdicts.push(refused(match rule.against {
                    Against::Full => "full precision is not among the records".into(),
                    Against::Baseline => match baseline {
                        Some(b) => format!("not in `{}`", b.label),
                        None => "the rule is about a baseline: name one with --baseline".into(),
                    },
                }));
                continue;
            };
            if let Some(why) = differ(before, new) {
                verdicts.push(refused(why));
                continue;
            }
            let of_before = match (rule.against, baseline) {
                (Against::Baseline, Some(baseline)) => baseline.items(&before.cell)?,
                _ => items(now, before)?,
            };
            let case = Case { now: new, before, items: [of_before, items(now, new)?] };
            let (verdict, evidence, info) = match case.weigh(&metric) {
                Ok(all) => all,
                Err(why) => {
                    verdicts.push(refused(why));
                    continue;
                }
            };
            let reference = verdict.before.unwrap_or_default();
            let whose = if rule.asks_baseline() { "the baseline's" } else { "full precision's" };
            for (limit, confidence) in rule.limits() {
                let (line, words) = match limit {
                    Limit::Factor(w) => {
                        let side = if info.higher_is_better { "at least" } else { "at most" };
                        let line = if info.higher_is_better { 1. - w } else { w - 1. };
                        (line * reference, format!("{side} {w} x {whose}"))
                    }
                    Limit::Loss(lost) => (lost, format!("loses at most {lost} of {whose}")),
                    Limit::Same(part) => (part * reference.abs(), format!("moves at most {part} x {whose}")),
                    Limit::Each(part) => {
                        (part, format!("items move at most {part} of their size from {whose}"))
                    }
                };
                let mut why = verdict.why.clone();
                let (state, p) = match (limit, evidence.moved) {
                    (Limit::Each(_), Some(moved)) if moved <= line => (State::Pass, None),
                    (Limit::Each(_), Some(moved)) => {
                        let words = format!("items moved by {} of their size", rounded(moved));
                        why =
                            [words, why].into_iter().filter(|w| !w.is_empty()).collect::<Vec<_>>().join("; ");
                        (State::Fail, None)
                    }
                    (Limit::Each(_), None) => (State::Refused, None),
                    (Limit::Same(_), _) => evidence.either_way().hold(line, confidence),
                    _ => evidence.hold(line, confidence),
                };
                let at = verdicts.len();
                tests.extend(p.map(|p| (at, p, 1. - confidence.unwrap_or(CONFIDENCE))));
                let sure = confidence.map_or_else(String::new, |c| format!(", at {} %", rounded(100. * c)));
                verdicts.push(Verdict { rule: words + &sure, state, why, ..verdict.clone() });
            }
        }
    }
    fail(&mut verdicts, &tests);
    Ok(verdicts)
}

/// Fails those tests that hold together (Holm); the others stay as they are.
fn fail(verdicts: &mut [Verdict], tests: &[(usize, f64, f64)]) {
    let p: Vec<f64> = tests.iter().map(|t| t.1).collect();
    for (&(at, _, alpha), p) in tests.iter().zip(holm(&p)) {
        if p < alpha {
            verdicts[at].state = State::Fail;
        }
    }
}

/// Every metric of every cell of a baseline against the same now: it fails where it lost more than is tolerated and the
/// difference is significant, over all comparisons together.
pub fn usual(now: &Store, records: &[Record], baseline: &Baseline, usual: Usual) -> Result<Vec<Verdict>> {
    let current = by_name(records);
    let mut verdicts = Vec::new();
    let mut tests: Vec<(usize, f64)> = Vec::new();
    let mut asked = 0;
    let rule = format!("no worse than the baseline (alpha {}, tolerance {})", usual.alpha, usual.tolerance);
    let all = by_name(&baseline.records);
    for old in &baseline.records {
        if all.get(&key(old)).is_none_or(|first| !std::ptr::eq(*first, old)) || reason(old).is_some() {
            continue;
        }
        let names: Vec<&str> = old.task.metrics.iter().map(|m| m.name.as_str()).collect();
        let names = names.into_iter().filter(|m| value(old, m).is_some());
        let Some(&new) = current.get(&key(old)) else {
            let why = format!("in `{}`, and not among the records", baseline.label);
            verdicts.extend(names.map(|m| Verdict {
                why: why.clone(),
                rule: rule.clone(),
                ..blank(cell(old), m)
            }));
            continue;
        };
        if let Some(why) = differ(old, new) {
            verdicts.extend(names.map(|m| Verdict {
                why: why.clone(),
                rule: rule.clone(),
                ..blank(cell(old), m)
            }));
            continue;
        }
        let case = Case { now: new, before: old, items: [baseline.items(&old.cell)?, items(now, new)?] };
        for metric in names {
            let (mut verdict, evidence, _) = match case.weigh(metric) {
                Ok(all) => all,
                Err(why) => {
                    verdicts.push(Verdict { why, rule: rule.clone(), ..blank(cell(old), metric) });
                    continue;
                }
            };
            verdict.rule.clone_from(&rule);
            asked += 1;
            let tolerated = usual.tolerance * verdict.before.unwrap_or_default().abs();
            if evidence.loss > tolerated {
                // A change that no error is known of counts as real.
                tests.push((verdicts.len(), evidence.p_value.unwrap_or(0.)));
            }
            verdicts.push(verdict);
        }
    }
    // Over all that was asked, and not over what is worse alone: the others could have been.
    let mut p: Vec<f64> = tests.iter().map(|t| t.1).collect();
    p.resize(asked, 1.);
    for ((at, _), p) in tests.into_iter().zip(holm(&p)) {
        if p < usual.alpha {
            verdicts[at].state = State::Fail;
        }
    }
    Ok(verdicts)
}

/// Why two records must not be compared.
fn differ(old: &Record, new: &Record) -> Option<String> {
    let all = differences(old, new);
    (!all.is_empty()).then(|| format!("not comparable: {}", all.join("; ")))
}

/// Five significant digits.
pub fn rounded(x: f64) -> f64 {
    format!("{x:.4e}").parse().unwrap_or(x)
}
