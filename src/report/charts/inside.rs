//! What items say beyond a score: how losses are spread, where in a window they grow, which predictions moved, which margins shrank.
use super::{Chart, Frame, Group, Picture, not_all, one_line, short};
use crate::report::{
    detail::{BIN, Detail},
    plot::{Dot, Line, Pane, Plane, Run, Way},
};
use anyhow::Result;

/// The distribution of losses over tokens.
pub struct Losses;
/// Loss by how much of the window was read.
pub struct Positions;
/// Divergence by how sure full precision was.
pub struct Confidence;
/// How the right ending's lead is spread over questions.
pub struct Margins;

/// Lines of a panel, at most: full precision, and six recipes.
const LINES: usize = 7;

impl Chart for Losses {
    fn name(&self) -> &'static str {
        "losses"
    }
    fn about(&self) -> &'static str {
        "Which tokens pay: all a little, or a few a lot?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        each(frame, |group| {
            let panes = panes(frame, group, true, spread);
            Some((
                Plane {
                    title: format!("Which tokens pay: all a little, or a few a lot? {}", short(&group.title)),
                    notes: vec!["Share of scored tokens by their loss, in bins of a quarter of a nat; the last is open. Errors: profiles.csv.".to_owned()],
                    x: Way { label: "loss of a token, nats".to_owned(), log: false, level: None },
                    y: Way { label: "share of tokens".to_owned(), log: true, level: None },
                    panes,
                },
                self.name(),
            ))
        })
    }
}

impl Chart for Positions {
    fn name(&self) -> &'static str {
        "positions"
    }
    fn about(&self) -> &'static str {
        "Does a longer context pay more?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        each(frame, |group| {
            let panes = panes(frame, group, false, places);
            Some((
                Plane {
                    title: format!("Does a longer context pay more? {}", short(&group.title)),
                    notes: vec![
                        "Loss a token above full precision's, by how many tokens were read before."
                            .to_owned(),
                    ],
                    x: Way { label: "tokens read before".to_owned(), log: true, level: None },
                    y: Way { label: "nats above full precision".to_owned(), log: false, level: Some(0.) },
                    panes,
                },
                self.name(),
            ))
        })
    }
}

impl Chart for Confidence {
    fn name(&self) -> &'static str {
        "confidence"
    }
    fn about(&self) -> &'static str {
        "Do sure predictions move, or only doubtful ones?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        each(frame, |group| {
            let panes = panes(frame, group, false, confidence);
            Some((
                Plane {
                    title: format!("Do sure predictions move, or only doubtful ones? {}", short(&group.title)),
                    notes: vec!["KL(full || quantized), nats a token, by full precision's largest probability, in ten bins. Bars: ± 1 standard error.".to_owned()],
                    x: Way { label: "full precision's largest probability".to_owned(), log: false, level: None },
                    y: Way { label: "KL, nats a token".to_owned(), log: true, level: None },
                    panes,
                },
                self.name(),
            ))
        })
    }
}

impl Chart for Margins {
    fn name(&self) -> &'static str {
        "margins"
    }
    fn about(&self) -> &'static str {
        "How far are answers from flipping?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        each(frame, |group| {
            let panes = panes(frame, group, true, margins);
            Some((
                Plane {
                    title: format!("How far are answers from flipping? {}", short(&group.title)),
                    notes: vec![
                        "Share of questions whose right ending leads by less: log p(right) - log p(best wrong). Left of 0 is wrong."
                            .to_owned(),
                    ],
                    x: Way { label: "lead of the right ending, nats".to_owned(), log: false, level: Some(0.) },
                    y: Way { label: "share of questions".to_owned(), log: false, level: None },
                    panes,
                },
                self.name(),
            ))
        })
    }
}

fn each(frame: &Frame, plane: impl Fn(&Group) -> Option<(Plane, &'static str)>) -> Result<Vec<Picture>> {
    let mut out = Vec::new();
    for group in &frame.groups {
        let Some((mut plane, name)) = plane(group).filter(|(p, _)| !p.panes.is_empty()) else { continue };
        let most = plane.panes.iter().map(|p| p.lines.len()).max().unwrap_or(0);
        plane.notes.extend(not_all(most, group.recipes.len(), "recipes, those of fewest bits"));
        out.push(plane.render(format!("{name}-{}", group.slug))?);
    }
    Ok(out)
}

/// A panel for each of the first three tasks that have such a detail; `full`: full precision has a line of its own.
fn panes(frame: &Frame, group: &Group, full: bool, dots: fn(&Detail, &Detail) -> Vec<Dot>) -> Vec<Pane> {
    let mut out = Vec::new();
    for task in 0..group.tasks.len() {
        let is_full = |r: usize| frame.records[group.recipes[r].record].recipe.name == "full";
        let detail = |r: usize| frame.details.get(&group.cell(r, task)?);
        let Some(reference) = (0..group.recipes.len()).find(|&r| is_full(r)).and_then(detail) else {
            continue;
        };
        // Those of fewest bits, where there is something to see, in the study's order.
        let bits = |&r: &usize| {
            let recipe = &frame.records[group.recipes[r].record].recipe;
            [recipe.weight_bits, recipe.act_bits, recipe.kv_bits].iter().map(|b| b.min(16.)).sum::<f64>()
        };
        let mut picked: Vec<usize> = (0..group.recipes.len()).filter(|&r| !is_full(r)).collect();
        picked.sort_by(|a, b| bits(a).total_cmp(&bits(b)));
        picked.truncate(LINES - usize::from(full));
        picked.extend((0..group.recipes.len()).filter(|&r| full && is_full(r)));
        picked.sort_unstable();
        let mut lines = Vec::new();
        for (look, &r) in picked.iter().enumerate() {
            let Some(dots) = detail(r).map(|d| dots(d, reference)).filter(|d| d.len() > 1) else { continue };
            let run = if full { Run::Steps } else { Run::Line };
            lines.push(Line { label: one_line(&group.recipes[r].label), look, run, dots });
        }
        if !lines.is_empty() {
            out.push(Pane { title: one_line(&group.tasks[task].label), lines });
        }
        if out.len() == 3 {
            break;
        }
    }
    out
}

fn dot(x: f64, y: f64, error: Option<f64>) -> Dot {
    Dot { x, y, error, name: String::new() }
}

/// Share of tokens by loss.
pub fn spread(detail: &Detail, _: &Detail) -> Vec<Dot> {
    let all: f64 = detail.spread.iter().sum();
    // Each bin from its left end on; the last has a width too.
    let end = std::iter::once(dot(detail.spread.len() as f64 * BIN, 0., None));
    detail.spread.iter().enumerate().map(|(i, n)| dot(i as f64 * BIN, n / all, None)).chain(end).collect()
}

/// Loss above full precision's, in the middle of each bin of places.
pub fn places(detail: &Detail, full: &Detail) -> Vec<Dot> {
    let both = detail.places.iter().zip(&full.places).enumerate();
    both.filter(|(_, (a, b))| a[1] > 0. && b[1] > 0.)
        .map(|(k, (a, b))| {
            dot(1.5 * 2f64.powi(k as i32) - 0.5, a[0] / a[1] - b[0] / b[1], detail.place_error_from(full, k))
        })
        .collect()
}

/// KL by confidence.
pub fn confidence(detail: &Detail, _: &Detail) -> Vec<Dot> {
    let bins = detail.confidence.iter().enumerate().filter(|(_, bin)| bin[1] > 0.);
    bins.map(|(i, bin)| dot((i as f64 + 0.5) / 10., bin[0] / bin[1], detail.confidence_error(i))).collect()
}

/// The share of questions whose lead is below each.
pub fn margins(detail: &Detail, _: &Detail) -> Vec<Dot> {
    let mut sorted = detail.margins.clone();
    sorted.sort_by(f64::total_cmp);
    let n = sorted.len() as f64;
    // A hundred steps show a curve; more only grow the file.
    let step = sorted.len().div_ceil(100).max(1);
    let last = sorted.len().saturating_sub(1);
    let kept = sorted.iter().enumerate().filter(|(i, _)| i % step == 0 || *i == last);
    kept.map(|(i, m)| dot(*m, (i + 1) as f64 / n, None)).collect()
}
