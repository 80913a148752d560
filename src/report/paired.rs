//! `paired.csv`: every recipe against full precision, item by item.
//!
//! A row a metric of every cell whose items are those of full precision's cell: how many answers flipped, whether the
//! difference is real, how large it may be, what these items could have shown at all, and what is left of full precision.
//! docs/numerics.md has each column's formula.
use super::{
    detail::Endings,
    frame::{Frame, Row},
    table::{Column, columns, number},
};
use crate::{
    results::{Item, Items, MetricInfo},
    stats::{
        holm, mcnemar, mcnemar_mid,
        pairs::{Bootstrap, Flips, Interval, percentile},
    },
};
use anyhow::{Result, anyhow};
use std::collections::BTreeMap;

/// Of intervals, and of what a test would have found.
pub const LEVEL: f64 = 0.95;
/// The probability with which a test finds what [`Paired::detectable`] says.
pub const POWER: f64 = 0.8;

/// One metric of one cell against the same of full precision.
#[derive(Clone, Debug, PartialEq)]
pub struct Paired {
    /// Items that both runs answered: all of them.
    pub n: usize,
    /// Clusters of these.
    pub clusters: usize,
    /// `value - full`.
    pub delta: f64,
    /// Its standard error, paired and clustered.
    pub stderr: Option<f64>,
    /// The same if the two runs had seen other items.
    pub stderr_unpaired: Option<f64>,
    /// By bootstrap of clusters.
    pub bootstrap: Option<Bootstrap>,
    /// Whether higher is better: ratios run that way.
    pub higher_is_better: bool,
    /// What is left of full precision, percent: `value / full`, or `full / value` where lower is better.
    pub recovery: Option<f64>,
    /// The same above what a guess scores.
    pub above_chance: Option<f64>,
    /// Where every item is right or wrong.
    pub flips: Option<Flips>,
    /// Wrong before and wrong now, in another way; where the item says what was picked.
    pub elsewhere: Option<u64>,
    /// McNemar's exact test where every item is right or wrong and stands for itself, else a normal one on what clusters
    /// differ by.
    pub p_value: Option<f64>,
    /// [`Paired::p_value`] after Holm's correction over the folder's cells, each by its task's first metric.
    pub p_holm: Option<f64>,
    /// The smallest true difference that would have been found.
    pub detectable: Option<f64>,
    /// How far the right ending's lead moved, where endings have log-likelihoods.
    pub margin: Option<Margin>,
    /// What half precision alone does: `|delta|` of the recipe `bf16`, or `fp16`, on the same model, task and metric.
    pub floor: Option<f64>,
}

/// Change of `log p(right) - log p(best wrong)`, nats, over items: flips before they happen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Margin {
    /// Mean.
    pub mean: f64,
    /// Sample standard deviation.
    pub sd: f64,
    /// The 5th, 50th and 95th percentile.
    pub quantiles: [f64; 3],
}

/// All that pairs of items say of a metric.
pub fn against(now: &Items, full: &Items, metric: &MetricInfo, chance: Option<f64>) -> Option<Paired> {
    let pairs = now.pair(full, metric, None)?;
    let (items, _) = now.of(&metric.name, None)?;
    let (before, _) = full.of(&metric.name, None)?;
    let [a, b] = pairs.values();
    let finite = |x: f64| x.is_finite().then_some(x);
    let ratio =
        if a > 0. && b >= 0. { finite(if metric.higher_is_better { b / a } else { a / b }) } else { None };
    let chance = chance.filter(|&c| metric.higher_is_better && a > c);
    Some(Paired {
        n: pairs.len(),
        clusters: pairs.clusters(),
        delta: b - a,
        stderr: pairs.stderr().and_then(finite),
        stderr_unpaired: pairs.stderr_unpaired().and_then(finite),
        bootstrap: pairs.bootstrap(LEVEL, chance, 0),
        higher_is_better: metric.higher_is_better,
        recovery: ratio.map(|r| 100. * r),
        above_chance: chance.and_then(|c| finite(100. * (b - c) / (a - c))),
        flips: pairs.flips(),
        elsewhere: pairs.flips().and_then(|_| elsewhere(&before, &items, &metric.name)),
        p_value: pairs.p_value().and_then(finite),
        p_holm: None,
        detectable: pairs.detectable(1. - LEVEL, POWER).and_then(finite),
        margin: margin(&before, &items),
        floor: None,
    })
}

fn elsewhere(before: &[&Item], now: &[&Item], metric: &str) -> Option<u64> {
    let mut count = 0;
    for (a, b) in before.iter().zip(now) {
        let (p, q) = (Endings::of(a)?, Endings::of(b)?);
        let (i, j) = (p.pick(metric)?, q.pick(metric)?);
        count += u64::from(i != j && !p.right.contains(&i) && !q.right.contains(&j));
    }
    Some(count)
}

fn margin(before: &[&Item], now: &[&Item]) -> Option<Margin> {
    let one = |(a, b): (&&Item, &&Item)| Some(Endings::of(b)?.margin()? - Endings::of(a)?.margin()?);
    let mut moved: Vec<f64> = before.iter().zip(now).map(one).collect::<Option<_>>()?;
    let n = moved.len() as f64;
    if moved.len() < 2 {
        return None;
    }
    let mean = moved.iter().sum::<f64>() / n;
    let sd = (moved.iter().map(|m| (m - mean).powi(2)).sum::<f64>() / (n - 1.)).sqrt();
    moved.sort_by(f64::total_cmp);
    Some(Margin { mean, sd, quantiles: [0.05, 0.5, 0.95].map(|p| percentile(&moved, p)) })
}

impl Paired {
    /// Interval of [`Paired::recovery`].
    pub fn recovery_interval(&self) -> Option<Interval> {
        let [low, high] = self.bootstrap?.ratio?;
        let both = if self.higher_is_better { [low, high] } else { [1. / high, 1. / low] };
        both.iter().all(|x| x.is_finite() && *x >= 0.).then(|| both.map(|x| 100. * x))
    }

    /// Interval of [`Paired::above_chance`].
    pub fn above_chance_interval(&self) -> Option<Interval> {
        self.bootstrap?.above_chance.map(|both| both.map(|x| 100. * x))
    }
}

/// What only all rows together say: Holm's correction, and the floor of half precision.
pub fn complete(frame: &mut Frame) {
    // The metric that stands for a task; a divergence is above 0 by construction, and asks no question.
    let mut family: Vec<usize> = Vec::new();
    for group in &frame.groups {
        for task in 0..group.tasks.len() {
            let first = group.first_metric(frame, task);
            for record in (0..group.recipes.len()).filter_map(|r| group.cell(r, task)) {
                let at = frame.place_of(record, first);
                let asked = at.filter(|&at| !frame.diverges(&frame.rows[at]));
                family.extend(asked.filter(|at| frame.paired.get(at).is_some_and(|p| p.p_value.is_some())));
            }
        }
    }
    let p: Vec<f64> = family.iter().filter_map(|at| frame.paired[at].p_value).collect();
    for (at, p) in family.iter().zip(holm(&p)) {
        if let Some(paired) = frame.paired.get_mut(at) {
            paired.p_holm = Some(p);
        }
    }
    let mut floors: BTreeMap<usize, f64> = BTreeMap::new();
    for group in &frame.groups {
        let half = |name: &str| {
            (0..group.recipes.len()).find(|&r| frame.records[group.recipes[r].record].recipe.name == name)
        };
        let Some(half) = half("bf16").or_else(|| half("fp16")) else { continue };
        for task in 0..group.tasks.len() {
            let Some(floor) = group.cell(half, task) else { continue };
            for record in (0..group.recipes.len()).filter_map(|r| group.cell(r, task)) {
                for m in 0..frame.rows_of(record).len() {
                    let delta = frame.rows_of(floor).get(m).and_then(|row| row.delta);
                    floors.extend(frame.place_of(record, m).zip(delta.map(f64::abs)));
                }
            }
        }
    }
    for (at, floor) in floors {
        if let Some(paired) = frame.paired.get_mut(&at) {
            paired.floor = Some(floor);
        }
    }
}

type Of = fn(&Paired) -> Option<f64>;

/// The columns of `paired.csv` after those that name a row.
static COLUMNS: &[(&str, Of)] = &[
    ("clusters", |p| Some(p.clusters as f64)),
    ("delta_stderr", |p| p.stderr),
    ("delta_stderr_unpaired", |p| p.stderr_unpaired),
    ("delta_low", |p| Some(p.bootstrap?.delta[0])),
    ("delta_high", |p| Some(p.bootstrap?.delta[1])),
    ("recovery", |p| p.recovery),
    ("recovery_low", |p| Some(p.recovery_interval()?[0])),
    ("recovery_high", |p| Some(p.recovery_interval()?[1])),
    ("above_chance", |p| p.above_chance),
    ("above_chance_low", |p| Some(p.above_chance_interval()?[0])),
    ("above_chance_high", |p| Some(p.above_chance_interval()?[1])),
    ("lost", |p| Some(p.flips?.lost as f64)),
    ("won", |p| Some(p.flips?.won as f64)),
    ("elsewhere", |p| Some(p.elsewhere? as f64)),
    ("flips", |p| p.flips.map(|f| (f.lost + f.won) as f64 / p.n as f64)),
    ("mcnemar", |p| p.flips.map(|f| mcnemar(f.lost, f.won))),
    ("mcnemar_mid", |p| p.flips.map(|f| mcnemar_mid(f.lost, f.won))),
    ("p_holm", |p| p.p_holm),
    ("detectable", |p| p.detectable),
    ("margin_mean", |p| Some(p.margin?.mean)),
    ("margin_sd", |p| Some(p.margin?.sd)),
    ("margin_q05", |p| Some(p.margin?.quantiles[0])),
    ("margin_q50", |p| Some(p.margin?.quantiles[1])),
    ("margin_q95", |p| Some(p.margin?.quantiles[2])),
    ("half_precision", |p| p.floor),
];

/// The first columns, by their names in `table.csv`.
const FIRST: &[&str] = &[
    "model",
    "recipe",
    "suite",
    "task",
    "metric",
    "higher_is_better",
    "n",
    "full",
    "value",
    "delta",
    "p_value",
];

/// `paired.csv`. `None`: nothing is paired.
pub fn csv(frame: &Frame) -> Result<Option<String>> {
    if frame.paired.is_empty() {
        return Ok(None);
    }
    let first: Vec<&Column> = columns(FIRST);
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(first.iter().map(|c| c.0).chain(COLUMNS.iter().map(|c| c.0)))?;
    for (&at, paired) in &frame.paired {
        let row: &Row = &frame.rows[at];
        let cells = first.iter().map(|(_, of)| of(frame, row));
        writer.write_record(cells.chain(COLUMNS.iter().map(|(_, of)| number(of(paired)))))?;
    }
    let bytes = writer.into_inner().map_err(|e| anyhow!("paired.csv: {e}"))?;
    Ok(Some(String::from_utf8(bytes)?))
}
