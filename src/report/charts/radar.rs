//! What stays of each ability, a polygon a recipe: where a model's shape shrinks first.
//!
//! Radius: `max(0, (value - chance) / (full - chance))`, as "Evaluating Quantized Large Language Models" draws it.
use super::{Chart, Frame, Group, Picture, Swept, not_all, one_line, short, swept};
use crate::report::{answer::abilities, plot::Radar};
use anyhow::Result;

/// A star a model and kind of tensor.
pub struct Star;

/// Axes of a picture, at most: with more it is a disc.
const AXES: usize = 12;
/// Polygons of a picture, at most.
const RINGS: usize = 6;

impl Chart for Star {
    fn name(&self) -> &'static str {
        "radar"
    }
    fn about(&self) -> &'static str {
        "Which ability goes first?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for group in &frame.groups {
            for (kind, what, file) in [
                (Swept::Weights, "fewer weight bits", "weights"),
                (Swept::Joint, "quantized activations", "acts"),
                (Swept::Kv, "a smaller KV cache", "kv"),
            ] {
                if let Some(radar) = star(frame, group, kind, what) {
                    out.push(radar.render(format!("{}-{file}--{}", self.name(), group.slug))?);
                }
            }
        }
        Ok(out)
    }
}

/// What is left of a cell above chance, 1 being full precision; `None` where that says nothing.
pub fn above_chance(frame: &Frame, group: &Group, recipe: usize, task: usize) -> Option<f64> {
    let metric = group.first_metric(frame, task);
    let cell = group.cell(recipe, task)?;
    let row = frame.rows_of(cell).get(metric)?;
    let chance = frame.records[cell].task.chance.filter(|_| metric == 0);
    let higher = frame.metric(row)?.higher_is_better;
    match chance.filter(|_| higher) {
        Some(chance) => {
            let (value, full) = (row.value?, row.full?);
            // As in the answer: what full precision cannot do, nobody can lose.
            let base = (0..group.recipes.len()).filter_map(|r| group.cell(r, task));
            let base = base.filter_map(|cell| frame.rows_of(cell).get(metric)).find(|row| row.is_full);
            let error = base.and_then(|row| row.stderr).unwrap_or(0.);
            (full > chance + 2. * error).then(|| ((value - chance) / (full - chance)).max(0.))
        }
        None => Some(frame.kept(row)?.share),
    }
}

/// A star's data: abilities where there are three or more, else tasks.
pub fn star(frame: &Frame, group: &Group, kind: Swept, what: &str) -> Option<Radar> {
    let mut recipes: Vec<usize> = (0..group.recipes.len())
        .filter(|&r| swept(&frame.records[group.recipes[r].record].recipe) == Some(kind))
        .collect();
    let tried = recipes.len();
    recipes.truncate(RINGS);
    let task_of = |ability: &str, task: usize| {
        let info = &frame.records[group.tasks[task].record].task;
        info.ability == ability || info.ability.is_empty() && info.name == ability
    };
    let known = |tasks: &[usize]| {
        recipes.iter().any(|&r| tasks.iter().any(|&t| above_chance(frame, group, r, t).is_some()))
    };
    let all = 0..group.tasks.len();
    let mut axes: Vec<(String, Vec<usize>)> = abilities(frame)
        .into_iter()
        .map(|a| (one_line(&a), all.clone().filter(|&t| task_of(&a, t)).collect()))
        .filter(|(_, tasks): &(String, Vec<usize>)| known(tasks))
        .collect();
    if axes.len() < 3 {
        axes = all.map(|t| (one_line(&group.tasks[t].label), vec![t])).filter(|(_, t)| known(t)).collect();
    }
    if !(3..=AXES).contains(&axes.len()) || recipes.is_empty() {
        return None;
    }
    let ring = |&recipe: &usize| {
        let radius = |(_, tasks): &(String, Vec<usize>)| {
            let each: Vec<f64> =
                tasks.iter().filter_map(|&t| above_chance(frame, group, recipe, t)).collect();
            (!each.is_empty()).then(|| each.iter().sum::<f64>() / each.len() as f64)
        };
        (one_line(&group.recipes[recipe].label), axes.iter().map(radius).collect())
    };
    Some(Radar {
        title: format!("Which ability goes first under {what}? {}", short(&group.title)),
        notes: std::iter::once(
            "Outer ring: full precision; centre: what a guess scores, or nothing left where there is no guess. A mean over an \
             ability's tasks."
                .to_owned(),
        )
        .chain(not_all(recipes.len(), tried, "recipes"))
        .collect(),
        rings: recipes.iter().map(ring).collect(),
        axes: axes.into_iter().map(|a| a.0).collect(),
    })
}
