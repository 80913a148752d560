//! Does size help? What a width costs against a model's parameters (k-bit scaling: Dettmers and Zettlemoyer, 2023).
use super::{Chart, Frame, Picture, Swept, not_all, one_line, swept};
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
            let tried = labels(frame, kind).len();
            if panes.is_empty() {
                continue;
            }
            let plane = Plane {
                title: format!("Do larger models bear fewer bits? Quantized: {what}"),
                notes: std::iter::once(
                    "A colour a recipe, a point a model; lines join the sizes of a family. Bars: ± 1 standard error."
                        .to_owned(),
                )
                .chain(not_all(tried.min(LINES), tried, "recipes"))
                .collect(),
                x: Way { label: "parameters, billions".to_owned(), log: true, level: None },
                y: Way { label: "% of full precision".to_owned(), log: false, level: Some(100.) },
                panes,
            };
            out.push(plane.render(format!("{}-{file}", self.name()))?);
        }
        Ok(out)
    }
}

/// Recipes of a kind, in order of appearance.
fn labels(frame: &Frame, kind: Swept) -> Vec<String> {
    let mut labels: Vec<String> = Vec::new();
    for group in &frame.groups {
        for line in &group.recipes {
            if swept(&frame.records[line.record].recipe) == Some(kind) && !labels.contains(&line.label) {
                labels.push(line.label.clone());
            }
        }
    }
    labels
}

/// A panel an ability.
pub fn panes(frame: &Frame, kind: Swept) -> Vec<Pane> {
    let mut labels = labels(frame, kind);
    labels.truncate(LINES);
    let mut out = Vec::new();
    for ability in abilities(frame) {
        let mut lines = Vec::new();
        for (look, label) in labels.iter().enumerate() {
            // A family's sizes are joined; what is alone of its kind stands alone.
            let mut families: Vec<(&str, Vec<Dot>)> = Vec::new();
            for group in &frame.groups {
                let model = &frame.records[group.recipes[0].record].model;
                let Some(recipe) = group.recipes.iter().position(|l| l.label == *label) else { continue };
                let left = left(frame, group, recipe).remove(&ability).filter(|_| model.params > 0);
                let Some(left) = left else { continue };
                let error = left.stderr.map(|s| 100. * s);
                let dot =
                    Dot { x: model.params as f64 / 1e9, y: 100. * left.kept, error, name: String::new() };
                match families.iter_mut().find(|(f, _)| *f == model.family) {
                    Some((_, dots)) => dots.push(dot),
                    None => families.push((&model.family, vec![dot])),
                }
            }
            let mut sizes: Vec<u64> = families.iter().flat_map(|(_, d)| d).map(|d| d.x.to_bits()).collect();
            sizes.sort_unstable();
            sizes.dedup();
            if sizes.len() < 3 {
                continue;
            }
            for (_, mut dots) in families {
                dots.sort_by(|a, b| a.x.total_cmp(&b.x));
                let rises = dots.windows(2).all(|pair| pair[0].x < pair[1].x);
                let run = if rises { Run::Line } else { Run::Dots };
                lines.push(Line { label: one_line(label), look, run, dots });
            }
        }
        if !lines.is_empty() {
            out.push(Pane { title: one_line(&ability), lines });
        }
    }
    out
}
