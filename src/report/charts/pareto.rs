//! Quality against bytes over all models: a large model in few bits, or a small one in many?
use super::{Chart, Frame, Picture, Swept, one_line, short, swept};
use crate::report::plot::{Dot, Line, Pane, Plane, Run, Way};
use anyhow::Result;

/// A picture for every few tasks, where there are two models or more.
pub struct Pareto;

/// Panels of a picture, at most.
const PANES: usize = 6;
/// Models that have a colour each, at most.
const MODELS: usize = 6;

impl Chart for Pareto {
    fn name(&self) -> &'static str {
        "pareto"
    }
    fn about(&self) -> &'static str {
        "Which model in how many bits is best for so many bytes?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        let panes = panes(frame);
        let mut all: Vec<(bool, Vec<Pane>)> = Vec::new();
        for (higher, pane) in panes {
            match all.iter_mut().find(|(h, list)| *h == higher && list.len() < PANES) {
                Some((_, list)) => list.push(pane),
                None => all.push((higher, vec![pane])),
            }
        }
        for (i, (higher, panes)) in all.into_iter().enumerate() {
            let plane = Plane {
                title: self.about().to_owned(),
                notes: vec![
                    "A line a model, from full precision to few bits; of many models, a colour a family."
                        .to_owned(),
                    "Steps: the best that is to be had for so many bytes. Bars: ± 1 standard error."
                        .to_owned(),
                ],
                x: Way { label: "size of the model, MB".to_owned(), log: true, level: None },
                y: Way {
                    label: if higher { "score (higher is better)" } else { "lower is better" }.to_owned(),
                    log: !higher,
                    level: None,
                },
                panes,
            };
            out.push(plane.render(format!("{}-all-{}", self.name(), i + 1))?);
        }
        Ok(out)
    }
}

/// Of points `(bytes, score)`, those that no other beats with as few bytes, from the smallest on.
pub fn front(points: &[(f64, f64)], higher_is_better: bool) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    let worth = |i: usize| if higher_is_better { points[i].1 } else { -points[i].1 };
    order.sort_by(|&i, &j| points[i].0.total_cmp(&points[j].0).then(worth(j).total_cmp(&worth(i))));
    let mut best = f64::NEG_INFINITY;
    order.retain(|&i| {
        let wins = worth(i) > best;
        best = best.max(worth(i));
        wins
    });
    order
}

/// A panel a task that two models have, and whether higher is better there.
pub fn panes(frame: &Frame) -> Vec<(bool, Pane)> {
    let mut tasks: Vec<(String, String)> = Vec::new();
    for record in &frame.records {
        let task = (record.task.suite.clone(), record.task.name.clone());
        if !tasks.contains(&task) {
            tasks.push(task);
        }
    }
    let mut out = Vec::new();
    for (suite, name) in tasks {
        let (mut lines, mut points, mut sense) = (Vec::new(), Vec::new(), None);
        // Of many models, a colour a family: nobody tells thirty apart.
        let many = frame.groups.len() > MODELS;
        let mut families: Vec<&str> = Vec::new();
        for (at, group) in frame.groups.iter().enumerate() {
            let family = frame.records[group.recipes[0].record].model.family.as_str();
            if !families.contains(&family) {
                families.push(family);
            }
            let of_family = families.iter().position(|f| *f == family).unwrap_or(0);
            let (label, look) = match many && !family.is_empty() {
                true => (one_line(family), of_family),
                false => (short(&group.title), at),
            };
            // The seventh look is the front's.
            let look = look + look / 6;
            let info = |t: usize| &frame.records[group.tasks[t].record].task;
            let Some(task) =
                (0..group.tasks.len()).find(|&t| (&info(t).suite, &info(t).name) == (&suite, &name))
            else {
                continue;
            };
            let metric = group.first_metric(frame, task);
            let mut dots: Vec<Dot> = Vec::new();
            for (r, line) in group.recipes.iter().enumerate() {
                let recipe = &frame.records[line.record].recipe;
                let full = recipe.name == "full";
                // What else is quantized costs no byte of the model.
                if recipe.size_mb <= 0. || !(full || swept(recipe) == Some(Swept::Weights)) {
                    continue;
                }
                let Some(row) = group.cell(r, task).and_then(|cell| frame.rows_of(cell).get(metric)) else {
                    continue;
                };
                let (Some(value), Some(info)) = (row.value, frame.metric(row)) else { continue };
                if frame.diverges(row) {
                    continue;
                }
                sense = Some(info.higher_is_better);
                let name = if full { String::new() } else { one_line(&line.label) };
                dots.push(Dot { x: recipe.size_mb, y: value, error: row.stderr, name });
            }
            if dots.is_empty() {
                continue;
            }
            dots.sort_by(|a, b| b.x.total_cmp(&a.x));
            points.extend(dots.iter().map(|d| (d.x, d.y)));
            lines.push(Line { label, look, run: Run::Line, dots });
        }
        let Some(higher) = sense.filter(|_| lines.len() > 1) else { continue };
        let best = front(&points, higher).into_iter();
        let dots =
            best.map(|i| Dot { x: points[i].0, y: points[i].1, error: None, name: String::new() }).collect();
        // Where many models are in a panel, names of recipes are too many to read.
        if lines.len() > 3 {
            lines.iter_mut().flat_map(|l| &mut l.dots).for_each(|d| d.name.clear());
        }
        lines.push(Line { label: "the best for so many bytes".to_owned(), look: 6, run: Run::Steps, dots });
        out.push((higher, Pane { title: one_line(&name), lines }));
    }
    out
}
