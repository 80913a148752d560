//! Does a distance foretell a loss? Divergence against accuracy and against flips ("Accuracy is Not All You Need", Dutta et al., 2024).
use super::{Chart, Frame, Group, Picture, one_line, short};
use crate::report::plot::{Dot, Line, Pane, Plane, Run, Way};
use anyhow::Result;

/// A point a recipe; a panel for accuracy, and one for flips.
pub struct Agreement;

impl Chart for Agreement {
    fn name(&self) -> &'static str {
        "agreement"
    }
    fn about(&self) -> &'static str {
        "Does divergence foretell flips, and flips lost accuracy?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for group in &frame.groups {
            let points = points(frame, group);
            if points.len() < 3 {
                continue;
            }
            let pane = |title: &str, of: fn(&Agreed) -> f64, look: usize| Pane {
                title: title.to_owned(),
                lines: vec![Line {
                    label: title.to_owned(),
                    look,
                    run: Run::Dots,
                    dots: points
                        .iter()
                        .map(|p| Dot {
                            x: p.divergence,
                            y: 100. * of(p),
                            error: None,
                            name: p.recipe.clone(),
                        })
                        .collect(),
                }],
            };
            let plane = Plane {
                title: format!("Does divergence foretell flips and lost accuracy? {}", short(&group.title)),
                notes: vec![
                    "A point a recipe. Flips: share of answers that became wrong or right. Means over the tasks whose items are right or wrong."
                        .to_owned(),
                ],
                x: Way { label: "KL(full || quantized), nats a token".to_owned(), log: true, level: None },
                y: Way { label: "% of items".to_owned(), log: false, level: Some(0.) },
                panes: vec![pane("flips", |p| p.flips, 0), pane("change of accuracy", |p| p.change, 1)],
            };
            out.push(plane.render(format!("{}-{}", self.name(), group.slug))?);
        }
        Ok(out)
    }
}

/// What a recipe does to a model's predictions and answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Agreed {
    /// Its label.
    pub recipe: String,
    /// The first divergence that the group has, above 0.
    pub divergence: f64,
    /// Mean share of items that flipped.
    pub flips: f64,
    /// Mean change of accuracy.
    pub change: f64,
}

/// By recipe, where both are known.
pub fn points(frame: &Frame, group: &Group) -> Vec<Agreed> {
    let mut out = Vec::new();
    for (r, line) in group.recipes.iter().enumerate() {
        let (mut divergence, mut flips, mut change, mut n) = (None, 0., 0., 0.);
        for cell in (0..group.tasks.len()).filter_map(|t| group.cell(r, t)) {
            for (m, row) in frame.rows_of(cell).iter().enumerate() {
                if frame.diverges(row) && divergence.is_none() {
                    divergence = row.value.filter(|v| *v > 0.);
                }
                let paired = frame.place_of(cell, m).and_then(|at| frame.paired.get(&at));
                if m == 0
                    && let Some((paired, f)) = paired.and_then(|p| Some((p, p.flips?)))
                {
                    flips += (f.lost + f.won) as f64 / paired.n as f64;
                    change += paired.delta;
                    n += 1.;
                }
            }
        }
        if let Some(divergence) = divergence.filter(|_| n > 0.) {
            out.push(Agreed {
                recipe: one_line(&line.label),
                divergence,
                flips: flips / n,
                change: change / n,
            });
        }
    }
    out
}
