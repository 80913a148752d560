//! For the same bytes: a small model in many bits, or a large one of its family in few? (The study's bars of equal storage.)
use super::{Chart, Frame, Picture, Swept, one_line, short, swept};
use crate::report::plot::{Dot, Line, Pane, Plane, Run, Way};
use anyhow::Result;

/// A picture a family and task, with a panel a budget: that of each but its largest model at full precision.
pub struct Storage;

/// How far from the budget a member's bytes may be.
const NEAR: f64 = 0.3;
/// Panels of a picture, at most.
const PANES: usize = 6;

impl Chart for Storage {
    fn name(&self) -> &'static str {
        "storage"
    }
    fn about(&self) -> &'static str {
        "For the same bytes: a small model in many bits, or a large one in few?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for (i, (family, task, higher, budgets)) in budgets(frame).into_iter().enumerate() {
            let panes = budgets.into_iter().take(PANES).map(|budget| Pane {
                title: format!("{:.0} MB ± {:.0} %", budget.bytes, 100. * NEAR),
                lines: vec![Line {
                    label: String::new(),
                    look: 0,
                    run: Run::Line,
                    dots: budget
                        .members
                        .into_iter()
                        .map(|m| Dot { x: m.bits, y: m.score, error: m.stderr, name: m.name })
                        .collect(),
                }],
            });
            let plane = Plane {
                title: format!("{family}, {task}: for the same bytes, few bits or a small model?"),
                notes: vec!["A point a model of the family in the bits that make it that large. Bars: ± 1 standard error.".to_owned()],
                x: Way { label: "bits a weight".to_owned(), log: true, level: None },
                y: Way {
                    label: if higher { "score (higher is better)" } else { "lower is better" }.to_owned(),
                    log: !higher,
                    level: None,
                },
                panes: panes.collect(),
            };
            out.push(plane.render(format!("{}-{}", self.name(), i + 1))?);
        }
        Ok(out)
    }
}

/// What may be had for so many bytes.
#[derive(Clone, Debug, PartialEq)]
pub struct Budget {
    /// MB.
    pub bytes: f64,
    /// From the most bits a weight to the fewest.
    pub members: Vec<Member>,
}

/// A model in some width.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    /// Model and recipe.
    pub name: String,
    /// A weight's.
    pub bits: f64,
    /// The task's first metric.
    pub score: f64,
    /// Its error.
    pub stderr: Option<f64>,
    bytes: f64,
    params: u64,
    full: bool,
}

/// By family and task: whether higher is better, and the budgets that two sizes of a family meet.
pub fn budgets(frame: &Frame) -> Vec<(String, String, bool, Vec<Budget>)> {
    let mut all: Vec<(String, String, bool, Vec<Member>)> = Vec::new();
    for group in &frame.groups {
        let model = &frame.records[group.recipes[0].record].model;
        for (t, task) in group.tasks.iter().enumerate() {
            let metric = group.first_metric(frame, t);
            for (r, line) in group.recipes.iter().enumerate() {
                let recipe = &frame.records[line.record].recipe;
                let full = recipe.name == "full";
                let row = group.cell(r, t).and_then(|cell| frame.rows_of(cell).get(metric));
                let Some((row, score)) = row.and_then(|row| Some((row, row.value?))) else { continue };
                let Some(info) = frame.metric(row).filter(|_| !frame.diverges(row)) else { continue };
                // The plain notation alone: methods are compared elsewhere.
                let plain = full || swept(recipe) == Some(Swept::Weights) && super::stem(recipe).is_empty();
                if !plain || recipe.size_mb <= 0. || model.params == 0 || model.family.is_empty() {
                    continue;
                }
                let bits = if recipe.weight_bits < 16. { recipe.weight_bits } else { 16. };
                let name = short(&group.title);
                let name = format!("{} {}", name.rsplit('/').next().unwrap_or(&name), one_line(&line.label));
                let member = Member {
                    name,
                    bits,
                    score,
                    stderr: row.stderr,
                    bytes: recipe.size_mb,
                    params: model.params,
                    full,
                };
                let key = (one_line(&model.family), one_line(&task.label));
                match all.iter_mut().find(|(f, t, ..)| (f, t) == (&key.0, &key.1)) {
                    Some((.., members)) => members.push(member),
                    None => all.push((key.0, key.1, info.higher_is_better, vec![member])),
                }
            }
        }
    }
    let mut out = Vec::new();
    for (family, task, higher, members) in all {
        let mut budgets = Vec::new();
        for small in members.iter().filter(|m| m.full) {
            let near = |m: &&Member| (m.bytes / small.bytes).ln().abs() <= (1. + NEAR).ln();
            // Itself, and larger models in fewer bits.
            let larger = |m: &&Member| m.params > small.params && !m.full;
            let mut of: Vec<Member> = members
                .iter()
                .filter(near)
                .filter(|m| larger(m) || m.full && m.name == small.name)
                .cloned()
                .collect();
            of.sort_by(|a, b| b.bits.total_cmp(&a.bits).then(a.params.cmp(&b.params)));
            if of.len() > 1 {
                budgets.push(Budget { bytes: small.bytes, members: of });
            }
        }
        budgets.sort_by(|a, b| a.bytes.total_cmp(&b.bytes));
        if !budgets.is_empty() {
            out.push((family, task, higher, budgets));
        }
    }
    out
}
