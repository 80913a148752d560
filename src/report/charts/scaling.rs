//! Does size help? What a width costs against a model's parameters (k-bit scaling: Dettmers and Zettlemoyer, 2023).
use super::{Chart, Frame, Picture, Swept, one_line, swept};
use crate::report::{
    answer::{abilities, left},
    plot::{Dot, Line, Pane, Plane, Run, Way},
};
use anyhow::Result;

/// A picture a kind of tensor, with a panel an ability, where there are three sizes or more.
pub struct Scaling;

/// Lines of a panel, at most.
const LINES: usize = 7;

impl Chart for Scaling {
    fn name(&self) -> &'static str {
        "scaling"
    }
    fn about(&self) -> &'static str {
        "Do larger models bear fewer bits?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for (kind, what, file) in [
            (Swept::Weights, "weights alone", "weights"),
            (Swept::Joint, "activations too", "acts"),
            (Swept::Kv, "the KV cache", "kv"),
        ] {
            let panes = panes(frame, kind);
            if panes.is_empty() {
                continue;
            }
            let plane = Plane {
                title: format!("Do larger models bear fewer bits? Quantized: {what}"),
                notes: vec!["A line a recipe, a point a model; of several models of a size, each its own. Bars: ± 1 standard error.".to_owned()],
                x: Way { label: "parameters, billions".to_owned(), log: true, level: None },
                y: Way { label: "% of full precision".to_owned(), log: false, level: Some(100.) },
                panes,
            };
            out.push(plane.render(format!("{}-{file}", self.name()))?);
        }
        Ok(out)
    }
}

/// A panel an ability.
pub fn panes(frame: &Frame, kind: Swept) -> Vec<Pane> {
    let mut labels: Vec<String> = Vec::new();
    for group in &frame.groups {
        for line in &group.recipes {
            if swept(&frame.records[line.record].recipe) == Some(kind) && !labels.contains(&line.label) {
                labels.push(line.label.clone());
            }
        }
    }
    labels.truncate(LINES);
    let mut out = Vec::new();
    for ability in abilities(frame) {
        let mut lines = Vec::new();
        for (look, label) in labels.iter().enumerate() {
            let mut dots = Vec::new();
            for group in &frame.groups {
                let params = frame.records[group.recipes[0].record].model.params;
                let Some(recipe) = group.recipes.iter().position(|l| l.label == *label) else { continue };
                let Some(left) = left(frame, group, recipe).remove(&ability).filter(|_| params > 0) else {
                    continue;
                };
                let error = left.stderr.map(|s| 100. * s);
                dots.push(Dot { x: params as f64 / 1e9, y: 100. * left.kept, error, name: String::new() });
            }
            dots.sort_by(|a, b| a.x.total_cmp(&b.x));
            let mut sizes: Vec<f64> = dots.iter().map(|d| d.x).collect();
            sizes.dedup();
            if sizes.len() >= 3 {
                lines.push(Line { label: one_line(label), look, run: Run::Line, dots });
            }
        }
        if !lines.is_empty() {
            out.push(Pane { title: one_line(&ability), lines });
        }
    }
    out
}
