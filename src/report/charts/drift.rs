//! Divergence from full precision, which has no ratio to it.
use super::{
    Axis, Chart, Figure, Frame, Panel, Picture, Point, Series, Swept, one_line, plain_or, short, status,
    sweep,
};
use crate::results::MetricInfo;
use anyhow::Result;

/// Divergence on a logarithmic axis against bits, for weights, for several kinds together, and for the cache.
pub struct Drift;

impl Chart for Drift {
    fn name(&self) -> &'static str {
        "drift"
    }
    fn about(&self) -> &'static str {
        "How far do predictions drift from full precision?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let mut out = Vec::new();
        for group in &frame.groups {
            // A task's first divergence, and where in its metrics it stands.
            let tasks: Vec<(usize, usize, &MetricInfo)> = (0..group.tasks.len())
                .filter_map(|task| {
                    let metrics = &frame.records[group.tasks[task].record].task.metrics;
                    let any = |m: usize| {
                        (0..group.recipes.len())
                            .filter_map(|r| frame.rows_of(group.cell(r, task)?).get(m))
                            .any(|row| row.value.is_some() && frame.diverges(row))
                    };
                    (0..metrics.len()).find(|&m| any(m)).map(|m| (task, m, &metrics[m]))
                })
                .collect();
            let Some((first, _, metric)) = tasks.first() else { continue };
            let task = if tasks.len() > 1 {
                String::new()
            } else {
                format!("{}: ", one_line(&group.tasks[*first].label))
            };
            let y_label = format!("{task}{} (lower is better)", one_line(&metric.name));
            let label = |task: usize, stem: &str, stems: usize| {
                let task = one_line(&group.tasks[task].label);
                if stems > 1 { format!("{task}, {}", plain_or(stem)) } else { task }
            };
            let kinds = [
                (Swept::Weights, "weights", "bits of a weight"),
                (Swept::Joint, "with activations", "bits"),
                (Swept::Kv, "KV cache", "bits of a key or value"),
            ];
            let (mut panels, mut looks) = (Vec::new(), Vec::<String>::new());
            let (mut failed, mut some) = (false, false);
            let sweeps: Vec<_> =
                kinds.into_iter().filter_map(|k| Some((k, sweep(frame, group, k.0)?))).collect();
            let stems = sweeps.iter().map(|(_, s)| s.lines.len()).max().unwrap_or(0);
            for ((_, title, x_label), sweep) in sweeps {
                let mut series = Vec::new();
                for &(task, m, _) in &tasks {
                    for (stem, recipes) in &sweep.lines {
                        let mut points = Vec::new();
                        for &(recipe, tick) in recipes {
                            let Some(record) = group.cell(recipe, task) else { continue };
                            let Some(row) = frame.rows_of(record).get(m) else { continue };
                            match row.value {
                                Some(v) if v > 0. => points.push((tick, Point::At(v, row.stderr))),
                                None if status(&frame.records[record]) == "failed" => {
                                    points.push((tick, Point::Failed));
                                    failed = true;
                                }
                                _ => {}
                            }
                        }
                        some |= points.iter().any(|(_, p)| matches!(p, Point::At(..)));
                        let label = label(task, stem, stems);
                        let look = looks.iter().position(|l| *l == label).unwrap_or_else(|| {
                            looks.push(label.clone());
                            looks.len() - 1
                        });
                        if !points.is_empty() {
                            series.push(Series { label, look, points });
                        }
                    }
                }
                if !series.is_empty() {
                    panels.push(Panel {
                        title: title.to_owned(),
                        x_label: x_label.to_owned(),
                        ticks: sweep.ticks,
                        places: Vec::new(),
                        levels: Vec::new(),
                        series,
                    });
                }
            }
            if !some {
                continue;
            }
            let mut note = "Bars: ± 1 standard error, clustered by item. The axis is logarithmic.".to_owned();
            if failed {
                note.push_str(" Crosses: the cell failed.");
            }
            let title = format!("How far does {} drift from full precision?", short(&group.title));
            let figure = Figure { title, notes: vec![note], y_label, axis: Axis::Log, panels };
            out.push(figure.render(format!("{}-{}", self.name(), group.slug))?);
        }
        Ok(out)
    }
}
