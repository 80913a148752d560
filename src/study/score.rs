//! From outcomes to what a record holds: metrics over all items and over each part, and every item with its share.
//!
//! A part's items stand together, so whatever kind of task it is, the parts of its outcomes are a list beside them. Where
//! each part is to count the same, an item's share is divided by its part's weight: the score is still a ratio of sums,
//! and whatever reads shares (errors, paired tests, gates) needs to know nothing of parts.
use crate::{
    eval::{Outcome, Outcomes, metrics, metrics::Metric},
    results::{Item, Parts, Value},
    stats::{self, Scale, Share},
    suite::{Task, task::Weigh},
};
use anyhow::{Result, ensure};
use std::{collections::BTreeMap, ops::Range};

/// Replicates that lm-evaluation-harness draws where nothing is said.
const REPLICATES: usize = 100_000;

/// What a cell's outcomes come to.
#[derive(Debug, Default)]
pub struct Scored {
    /// Over all items, by name.
    pub metrics: BTreeMap<String, Value>,
    /// Over each part's.
    pub parts: Parts,
    /// Each with its share of every metric.
    pub items: Vec<Item>,
}

/// What each outcome's item belongs to, in order; empty where the task says nothing of it, and where outcomes are windows of
/// all items joined.
#[derive(Debug, Default)]
pub struct Kin<'a> {
    /// Parts by name.
    pub parts: Vec<&'a str>,
    /// Clusters by name.
    pub clusters: Vec<&'a str>,
}

/// Scores outcomes.
pub fn score(task: &Task, Kin { parts, clusters }: &Kin, outcomes: Outcomes) -> Result<Scored> {
    let runs = runs(parts);
    for (what, names) in [("parts", parts), ("clusters", clusters)] {
        ensure!(
            names.is_empty() || names.len() == outcomes.len(),
            "{} outcomes of {} items: their {what} are not known",
            outcomes.len(),
            names.len()
        );
    }
    let mut items: Vec<Item> = Vec::with_capacity(outcomes.len());
    for (i, (name, outcome)) in outcomes.iter().enumerate() {
        let name_of = |names: &[&str]| names.get(i).map(|p| p.to_string());
        let (part, cluster) = (name_of(parts), name_of(clusters));
        let outcome = serde_json::to_value(outcome)?;
        items.push(Item { item: name.clone(), part, cluster, outcome, shares: BTreeMap::new() });
    }
    let all: Vec<Outcome> = outcomes.into_iter().map(|(_, o)| o).collect();
    let mut values = BTreeMap::new();
    let mut of_parts: Vec<_> = runs.iter().map(|r| (parts[r.start].to_string(), BTreeMap::new())).collect();
    for (name, metric) in task.metrics.iter().filter_map(|n| Some((n, metrics::metric(n)?))) {
        // A judge comes later.
        if metric.name.starts_with("judge") {
            continue;
        }
        let mut shares: Vec<Share> = metrics::shares(name, &all).unwrap_or_default();
        ensure!(
            shares.len() == all.len() && shares.iter().flatten().all(|x| x.is_finite()),
            "metric `{name}` is not finite on every item"
        );
        let mut each = Vec::new();
        for (run, (_, of_part)) in runs.iter().zip(&mut of_parts) {
            // A calibration error has bins of its own.
            let of = &all[run.clone()];
            let part = value(metric, &metrics::shares(name, of).unwrap_or_default(), of)?;
            each.extend(part);
            of_part.extend(part.map(|v| (name.clone(), v)));
        }
        let total = if runs.is_empty() {
            value(metric, &shares, &all)?
        } else {
            let plain = metric.scale == Scale::Plain && shares.iter().all(|s| s[1] == 1.);
            if task.weigh == Weigh::Parts {
                even(&mut shares, &runs);
            }
            let stderr_lm_eval = if plain { grouped(&each, task.weigh) } else { None };
            base(metric, &shares, &all)?.map(|v| Value { stderr_lm_eval, ..v })
        };
        for (item, share) in items.iter_mut().zip(&shares) {
            item.shares.insert(name.clone(), *share);
        }
        // Absent is absent: windows have no words.
        values.extend(total.map(|v| (name.clone(), v)));
    }
    let none = values.is_empty() && task.metrics.iter().any(|n| !n.starts_with("judge"));
    ensure!(!none, "no metric of {} is a finite number", task.metrics.join(", "));
    Ok(Scored { metrics: values, parts: Parts(of_parts), items })
}

/// Where each part's outcomes stand.
fn runs(parts: &[&str]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match runs.last_mut().filter(|r| parts[r.start] == *part) {
            Some(run) => run.end = i + 1,
            None => runs.push(i..i + 1),
        }
    }
    runs
}

/// Makes the shares of each part weigh 1 together.
fn even(shares: &mut [Share], runs: &[Range<usize>]) {
    for run in runs {
        let weight: f64 = shares[run.clone()].iter().map(|s| s[1]).sum();
        if weight > 0. {
            shares[run.clone()].iter_mut().flatten().for_each(|x| *x /= weight);
        }
    }
}

/// A metric's value over these items, with the harness's error where it is not this program's.
fn value(metric: &Metric, shares: &[Share], outcomes: &[Outcome]) -> Result<Option<Value>> {
    let Some(value) = base(metric, shares, outcomes)? else { return Ok(None) };
    let cloze = outcomes.iter().all(|o| matches!(o, Outcome::Cloze(_)));
    let stderr_lm_eval = (cloze && metric.scale == Scale::Exp).then(|| {
        let losses: Vec<f64> = shares.iter().map(|s| s[0]).collect();
        stats::bootstrap(&losses, REPLICATES, |x| (x.iter().sum::<f64>() / x.len() as f64).exp())
    });
    Ok(Some(Value { stderr_lm_eval: stderr_lm_eval.flatten().filter(|s| s.is_finite()), ..value }))
}

fn base(metric: &Metric, shares: &[Share], outcomes: &[Outcome]) -> Result<Option<Value>> {
    let Some(e) = stats::ratio(shares, metric.scale) else { return Ok(None) };
    // Beyond what a number holds, as a word's perplexity is where a text has one word: absent, and the others stay.
    if !e.value.is_finite() {
        return Ok(None);
    }
    let stderr_iid = (metric.name == "perplexity").then(|| metrics::independent_stderr(outcomes)).flatten();
    Ok(Some(Value {
        value: e.value,
        stderr: e.stderr.filter(|s| s.is_finite()),
        stderr_iid: stderr_iid.filter(|s| s.is_finite()),
        stderr_lm_eval: None,
        n: e.n,
    }))
}

/// The error of a group's mean, from its parts' own.
fn grouped(parts: &[Value], weigh: Weigh) -> Option<f64> {
    let parts = parts.iter().map(|v| Some((v.value, v.stderr?, v.n))).collect::<Option<Vec<_>>>()?;
    match weigh {
        Weigh::Items => stats::pooled(&parts)?.stderr,
        Weigh::Parts => stats::pooled_evenly(&parts)?.stderr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::eval::{choice::Answer, cloze::Guess};

    fn task(ask: &str, more: &str) -> Task {
        let text = format!(
            "about = 'x'\nversion = 1\n{more}[data.file]\npath = 'x-{{part}}.jsonl'\n{ask}\
             [parts]\nnear = 'near'\nfar = 'far'\n"
        );
        Task::parse("x", &text).unwrap()
    }

    const CHOICE: &str = "[ask.choice]\nprompt = 'p'\nendings = ['a', 'b']\ngold = '0'\n";

    fn choice(right: bool) -> Outcome {
        let log_probs = if right { vec![-1., -2.] } else { vec![-2., -1.] };
        Outcome::Choice(Answer { log_probs, chars: vec![1; 2], bytes: vec![1; 2], ..Answer::default() })
    }

    fn of<'a>(parts: &[&'a str]) -> Kin<'a> {
        Kin { parts: parts.to_vec(), clusters: Vec::new() }
    }

    fn named(outcomes: Vec<Outcome>) -> Outcomes {
        outcomes.into_iter().enumerate().map(|(i, o)| (i.to_string(), o)).collect()
    }

    #[test]
    fn parts_have_their_own_values() {
        // Near: 3 of 4. Far: 0 of 2. In that order, though it is not the alphabet's.
        let outcomes = || named([true, true, false, true, false, false].map(choice).to_vec());
        let parts = ["near", "near", "near", "near", "far", "far"];
        let items = score(&task(CHOICE, "metrics = ['acc']\n"), &of(&parts), outcomes()).unwrap();
        let each: Vec<_> =
            items.parts.0.iter().map(|(p, m)| (p.as_str(), m["acc"].value, m["acc"].n)).collect();
        assert_eq!(each, [("near", 0.75, 4), ("far", 0., 2)]);
        assert_eq!((items.metrics["acc"].value, items.metrics["acc"].n), (0.5, 6));
        assert_eq!(items.items[4].part.as_deref(), Some("far"));
        // sqrt((4 - 1) * 0.25^2 * 4 / (6 - 2) / 6): the harness's formula, by hand.
        let pooled = items.metrics["acc"].stderr_lm_eval.unwrap();
        assert!((pooled - (0.75f64 / 24.).sqrt()).abs() < 1e-15, "{pooled}");

        let even =
            score(&task(CHOICE, "metrics = ['acc']\nweigh = 'parts'\n"), &of(&parts), outcomes()).unwrap();
        assert_eq!(even.parts, items.parts);
        assert_eq!((even.metrics["acc"].value, even.metrics["acc"].n), (0.375, 6));
        // sqrt(0.25^2 + 0) / 2.
        assert!((even.metrics["acc"].stderr_lm_eval.unwrap() - 0.125).abs() < 1e-15);
        // Whoever reads shares gets the same number.
        let shares: Vec<Share> = even.items.iter().map(|i| i.shares["acc"]).collect();
        assert_eq!(stats::ratio(&shares, Scale::Plain).unwrap().value, 0.375);
    }

    #[test]
    fn a_part_of_one_item_has_no_error_and_neither_has_the_group() {
        let outcomes = named(vec![choice(true), choice(true), choice(false)]);
        let scored =
            score(&task(CHOICE, "metrics = ['acc']\n"), &of(&["near", "near", "far"]), outcomes).unwrap();
        assert_eq!(scored.parts.get("far").unwrap()["acc"].stderr, None);
        assert_eq!(scored.metrics["acc"].stderr_lm_eval, None);
        assert!(scored.metrics["acc"].stderr.is_some());
    }

    #[test]
    fn parts_of_a_cloze_have_bootstrapped_errors() {
        let cloze = "[ask.cloze]\nprompt = 'p'\nending = ' e'\n";
        let guess = |log_prob: f64| Outcome::Cloze(Guess { log_prob, greedy: log_prob > -2. });
        let outcomes = named([-1., -2.5, -0.5, -3.].map(guess).to_vec());
        let parts = ["near", "near", "far", "far"];
        let scored =
            score(&task(cloze, "metrics = ['perplexity', 'acc']\n"), &of(&parts), outcomes.clone()).unwrap();
        let near = scored.parts.get("near").unwrap()["perplexity"];
        assert!((near.value - 1.75f64.exp()).abs() < 1e-12);
        // Of two items, a replicate is both or one of them twice: the spread of those three values.
        let (a, b, m) = (1f64.exp(), 2.5f64.exp(), 1.75f64.exp());
        let mean = (a + b + 2. * m) / 4.;
        let spread = ((a - mean).powi(2) + (b - mean).powi(2) + 2. * (m - mean).powi(2)) / 4.;
        assert!((near.stderr_lm_eval.unwrap() / spread.sqrt() - 1.).abs() < 0.01, "{near:?}");
        // The harness would average the parts' perplexities; this program's is that of all items.
        assert_eq!(scored.metrics["perplexity"].stderr_lm_eval, None);
        assert!((scored.metrics["perplexity"].value - 1.75f64.exp()).abs() < 1e-12);
        // Without parts: of all four.
        let whole = score(&task(cloze, "metrics = ['perplexity']\n"), &of(&[]), outcomes).unwrap();
        assert!(whole.metrics["perplexity"].stderr_lm_eval.is_some() && whole.parts.is_empty());
        assert!(whole.items.iter().all(|i| i.part.is_none()));
    }
}
