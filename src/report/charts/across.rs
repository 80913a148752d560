//! Over many models: how far the best and the worst are apart under a recipe, whether tasks rank models alike, and scores by the
//! parts of a task.
use super::{
    Chart, Frame, Group, Picture, Swept, not_all, one_line, plain_or, short, slug, stem, sweep, swept,
};
use crate::report::{
    answer::{abilities, left},
    plot::{Axis, Figure, Heat, Panel, Place, Point, Series},
};
use anyhow::Result;

/// Best and worst of all models, and their mean, by precision.
pub struct Spread;
/// Spearman's correlation of tasks over models, at full precision and under one recipe.
pub struct Ranks;
/// Scores by a task's parts: positions, depths, lengths, subjects.
pub struct Curves;

/// Lines of a panel, at most.
const LINES: usize = 7;
/// Panels of a picture, at most.
const PANELS: usize = 6;
/// Tasks of a matrix, at most.
const TASKS: usize = 8;
/// Parts of a picture, at most: more are no axis.
const PARTS: usize = 30;

impl Chart for Spread {
    fn name(&self) -> &'static str {
        "spread"
    }
    fn about(&self) -> &'static str {
        "How far apart are the best and the worst model under a recipe?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for (kind, what, file) in [
            (Swept::Weights, "weights alone", "weights"),
            (Swept::Joint, "activations too", "acts"),
            (Swept::Kv, "KV cache", "kv"),
        ] {
            // A panel a method, so that no line joins what is not one sweep.
            let mut stems: Vec<(String, Vec<String>)> = Vec::new();
            for group in &frame.groups {
                for line in &group.recipes {
                    let recipe = &frame.records[line.record].recipe;
                    if swept(recipe) != Some(kind) {
                        continue;
                    }
                    let stem = stem(recipe);
                    match stems.iter_mut().find(|(s, _)| *s == stem) {
                        Some((_, list)) if list.contains(&line.label) => {}
                        Some((_, list)) => list.push(line.label.clone()),
                        None => stems.push((stem, vec![line.label.clone()])),
                    }
                }
            }
            let abilities = abilities(frame);
            let mut panels = Vec::new();
            stems.retain(|(_, ticks)| ticks.len() > 1);
            let methods = stems.len();
            for (stem, ticks) in stems.into_iter().take(PANELS) {
                let mut series = Vec::new();
                for (look, ability) in abilities.iter().enumerate() {
                    let mut points = Vec::new();
                    for (tick, label) in ticks.iter().enumerate() {
                        if let Some((mean, ends)) = ends(frame, label, ability) {
                            points.push((tick, Point::Span(100. * mean, ends.map(|e| 100. * e))));
                        }
                    }
                    if !points.is_empty() {
                        series.push(Series { label: one_line(ability), look, points });
                    }
                }
                if !series.is_empty() {
                    panels.push(Panel {
                        title: plain_or(&stem),
                        x_label: "recipe".to_owned(),
                        ticks: ticks.iter().map(|t| one_line(t)).collect(),
                        places: Vec::new(),
                        levels: Vec::new(),
                        series,
                    });
                }
            }
            if frame.groups.len() < 3 || panels.is_empty() {
                continue;
            }
            let figure = Figure {
                title: format!("How far apart are the best and the worst model? Quantized: {what}"),
                notes: std::iter::once(format!(
                    "Means over {} models; bars reach from the worst to the best of them.",
                    frame.groups.len()
                ))
                .chain(not_all(methods.min(PANELS), methods, "methods"))
                .collect(),
                y_label: "% of full precision".to_owned(),
                axis: Axis::Percent,
                panels,
            };
            out.push(figure.render(format!("{}-{file}", self.name()))?);
        }
        Ok(out)
    }
}

/// Mean, lowest and highest of what models keep under a recipe; of two models at least.
pub fn ends(frame: &Frame, label: &str, ability: &str) -> Option<(f64, [f64; 2])> {
    let kept: Vec<f64> = frame
        .groups
        .iter()
        .filter_map(|group| {
            let recipe = group.recipes.iter().position(|l| l.label == label)?;
            Some(left(frame, group, recipe).get(ability)?.kept)
        })
        .collect();
    let ends = kept.iter().fold([f64::INFINITY, 0f64], |[l, h], &k| [l.min(k), h.max(k)]);
    (kept.len() > 1).then(|| (kept.iter().sum::<f64>() / kept.len() as f64, ends))
}

impl Chart for Ranks {
    fn name(&self) -> &'static str {
        "ranks"
    }
    fn about(&self) -> &'static str {
        "Do tasks rank models alike, and still alike when quantized?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let Some(Ranking { recipe: label, tasks: names, known, matrix }) = ranks(frame) else {
            return Ok(Vec::new());
        };
        let name = |i: usize| {
            let which = if i < names.len() { "full" } else { &label };
            format!("{} · {}", one_line(&names[i % names.len()]), one_line(which))
        };
        let all: Vec<String> = (0..2 * names.len()).map(name).collect();
        let heat = Heat {
            title: format!("Do tasks rank models alike, and still alike under {}?", one_line(&label)),
            notes: std::iter::once(
                "Spearman's correlation of first metrics over models; darker is less alike.".to_owned(),
            )
            .chain(not_all(names.len(), known, "tasks"))
            .collect(),
            columns: all.clone(),
            rows: all,
            cells: matrix
                .iter()
                .map(|row| {
                    let one = |r: &Option<f64>| {
                        r.map_or(Place::Empty, |r| Place::At(1. - r.max(0.), format!("{r:.2}")))
                    };
                    row.iter().map(one).collect()
                })
                .collect(),
        };
        Ok(vec![heat.render(format!("{}-all", self.name()))?])
    }
}

/// Correlations between tasks over models.
pub struct Ranking {
    /// The recipe of few weight bits that most models have.
    pub recipe: String,
    /// Tasks of at least four models.
    pub tasks: Vec<String>,
    /// How many such tasks there are.
    pub known: usize,
    /// Of those tasks' scores at full precision, then under the recipe.
    pub matrix: Vec<Vec<Option<f64>>>,
}

/// `None`: too few models, or tasks.
pub fn ranks(frame: &Frame) -> Option<Ranking> {
    let mut best: Option<(usize, f64, String)> = None;
    for group in &frame.groups {
        for line in &group.recipes {
            let recipe = &frame.records[line.record].recipe;
            if swept(recipe) != Some(Swept::Weights) || recipe.weight_bits < 3. {
                continue;
            }
            let count =
                frame.groups.iter().filter(|g| g.recipes.iter().any(|l| l.label == line.label)).count();
            let better = best
                .as_ref()
                .is_none_or(|(n, bits, _)| count > *n || count == *n && recipe.weight_bits < *bits);
            if better {
                best = Some((count, recipe.weight_bits, line.label.clone()));
            }
        }
    }
    let (.., label) = best.filter(|(n, ..)| *n >= 4)?;
    let score = |group: &Group, recipe: &str, task: &str| -> Option<f64> {
        let r = group.recipes.iter().position(|l| l.label == recipe)?;
        let t = group.tasks.iter().position(|l| l.label == task)?;
        let row = frame.rows_of(group.cell(r, t)?).get(group.first_metric(frame, t))?;
        let sign = if frame.metric(row)?.higher_is_better { 1. } else { -1. };
        row.value.filter(|_| !frame.diverges(row)).map(|v| sign * v)
    };
    let mut names: Vec<String> = Vec::new();
    for group in &frame.groups {
        for line in &group.tasks {
            let both = |g: &&Group| {
                score(g, "full", &line.label).is_some() && score(g, &label, &line.label).is_some()
            };
            if !names.contains(&line.label) && frame.groups.iter().filter(both).count() >= 4 {
                names.push(line.label.clone());
            }
        }
    }
    let known = names.len();
    names.truncate(TASKS);
    if names.len() < 2 {
        return None;
    }
    let column = |i: usize| -> Vec<Option<f64>> {
        let recipe = if i < names.len() { "full" } else { label.as_str() };
        frame.groups.iter().map(|g| score(g, recipe, &names[i % names.len()])).collect()
    };
    let columns: Vec<Vec<Option<f64>>> = (0..2 * names.len()).map(column).collect();
    let matrix = columns.iter().map(|a| columns.iter().map(|b| spearman(a, b)).collect()).collect();
    Some(Ranking { recipe: label, tasks: names, known, matrix })
}

/// Spearman's rank correlation over places where both are known, equals sharing their mean rank. `None` for fewer than four, or
/// where nothing varies.
pub fn spearman(a: &[Option<f64>], b: &[Option<f64>]) -> Option<f64> {
    let (x, y): (Vec<f64>, Vec<f64>) = a.iter().zip(b).filter_map(|(a, b)| Some(((*a)?, (*b)?))).unzip();
    if x.len() < 4 {
        return None;
    }
    let ranks = |v: &[f64]| -> Vec<f64> {
        v.iter()
            .map(|a| {
                let below = v.iter().filter(|b| *b < a).count() as f64;
                let equal = v.iter().filter(|b| *b == a).count() as f64;
                below + (equal - 1.) / 2.
            })
            .collect()
    };
    let (x, y) = (ranks(&x), ranks(&y));
    let mean = (x.len() - 1) as f64 / 2.;
    let product = |p: &[f64], q: &[f64]| p.iter().zip(q).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let r = product(&x, &y) / (product(&x, &x) * product(&y, &y)).sqrt();
    r.is_finite().then_some(r)
}

impl Chart for Curves {
    fn name(&self) -> &'static str {
        "curves"
    }
    fn about(&self) -> &'static str {
        "Where in a task does a recipe lose: at which position, depth or length?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for group in &frame.groups {
            for task in 0..group.tasks.len() {
                let panels: Vec<Panel> = [
                    (Swept::Weights, "weights"),
                    (Swept::Joint, "with activations"),
                    (Swept::Kv, "KV cache"),
                ]
                .into_iter()
                .filter_map(|(kind, title)| curve(frame, group, task, kind, title))
                .collect();
                if panels.is_empty() {
                    continue;
                }
                let name = one_line(&group.tasks[task].label);
                let figure = Figure {
                    title: format!("Where does {} lose? {name}", short(&group.title)),
                    notes: vec![format!(
                        "The score of each part of the task, in percent; {LINES} lines a panel at most. Bars: ± 1 standard error."
                    )],
                    y_label: "score, %".to_owned(),
                    axis: Axis::Percent,
                    panels,
                };
                out.push(figure.render(format!("{}-{}--{}", self.name(), group.slug, slug(&name)))?);
            }
        }
        Ok(out)
    }
}

/// Scores by part under full precision and recipes of a kind; of tasks whose first metric is a share.
fn curve(frame: &Frame, group: &Group, task: usize, kind: Swept, title: &str) -> Option<Panel> {
    let metric = group.first_metric(frame, task);
    let sweep = sweep(frame, group, kind)?;
    let full =
        (0..group.recipes.len()).find(|&r| frame.records[group.recipes[r].record].recipe.name == "full");
    let recipes: Vec<usize> =
        full.into_iter().chain(sweep.lines.iter().flat_map(|l| l.1.iter().map(|p| p.0))).collect();
    let of = |r: usize| -> Vec<(String, f64, Option<f64>)> {
        let Some(cell) = group.cell(r, task) else { return Vec::new() };
        frame
            .parts
            .iter()
            .filter(|(_, row)| row.record == cell && row.metric == Some(metric))
            .filter_map(|(part, row)| Some((part.clone(), row.value?, row.stderr)))
            .collect()
    };
    let ticks: Vec<String> = of(*recipes.first()?).into_iter().map(|p| p.0).collect();
    let share = frame.records[group.tasks[task].record].task.metrics.get(metric)?.higher_is_better;
    if !(3..=PARTS).contains(&ticks.len()) || !share {
        return None;
    }
    let mut series = Vec::new();
    for &r in recipes.iter().take(LINES) {
        let points: Vec<(usize, Point)> = of(r)
            .into_iter()
            .filter(|p| p.1 <= 1.)
            .filter_map(|(part, v, se)| {
                Some((ticks.iter().position(|t| *t == part)?, Point::At(100. * v, se.map(|s| 100. * s))))
            })
            .collect();
        if !points.is_empty() {
            // The same recipe, the same look in all panels.
            series.push(Series { label: one_line(&group.recipes[r].label), look: r, points });
        }
    }
    (series.len() > 1).then(|| Panel {
        title: title.to_owned(),
        x_label: "part".to_owned(),
        ticks: ticks.iter().map(|t| one_line(t)).collect(),
        places: Vec::new(),
        levels: Vec::new(),
        series,
    })
}
