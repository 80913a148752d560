//! Quality against bytes: of the model, and of the cache for a token.
use super::{Chart, Frame, Group, Picture, RecipeInfo, Sweep, Swept, Tasks, draw, stem, swept};
use crate::report::plot::Panel;
use anyhow::Result;

/// Each task against the model's size, where weights alone are quantized.
pub struct Size;

/// Each task against the cache's bytes for a token, where the cache alone is.
pub struct Cache;

impl Chart for Size {
    fn name(&self) -> &'static str {
        "size"
    }
    fn about(&self) -> &'static str {
        "What does each megabyte of the model buy?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let title = |model: &str| format!("What does each megabyte of {model} buy?");
        against(frame, self.name(), Swept::Weights, title, "size of the model, MB", |r| r.size_mb)
    }
}

impl Chart for Cache {
    fn name(&self) -> &'static str {
        "cache"
    }
    fn about(&self) -> &'static str {
        "What does each byte of the KV cache buy?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let title = |model: &str| format!("What does each byte of the KV cache of {model} buy?");
        against(frame, self.name(), Swept::Kv, title, "bytes of the cache for a token", |r| {
            r.kv_bytes_per_token
        })
    }
}

fn against(
    frame: &Frame,
    name: &str,
    kind: Swept,
    title: impl Fn(&str) -> String,
    x_label: &str,
    bytes: impl Fn(&RecipeInfo) -> f64,
) -> Result<Vec<Picture>> {
    let mut out = Vec::new();
    for group in &frame.groups {
        let Some((sweep, sizes)) = by_bytes(frame, group, kind, &bytes) else { continue };
        let place = |panel: &mut Panel| on_an_axis(panel, &sizes);
        out.extend(draw(frame, Tasks { group, name, sweep: &sweep, x_label }, &title, &place)?);
    }
    Ok(out)
}

/// Recipes from most bytes to fewest, one category each; and the bytes of full precision and of each category.
fn by_bytes(
    frame: &Frame,
    group: &Group,
    kind: Swept,
    bytes: &impl Fn(&RecipeInfo) -> f64,
) -> Option<(Sweep, Vec<f64>)> {
    let recipe = |i: usize| &frame.records[group.recipes[i].record].recipe;
    let full = (0..group.recipes.len()).find(|&i| recipe(i).name == "full").map(|i| bytes(recipe(i)))?;
    let mut found: Vec<usize> = (0..group.recipes.len())
        .filter(|&i| swept(recipe(i)) == Some(kind) && bytes(recipe(i)) > 0.)
        .collect();
    found.sort_by(|&i, &j| bytes(recipe(j)).total_cmp(&bytes(recipe(i))).then(i.cmp(&j)));
    let mut lines: Vec<(String, Vec<(usize, usize)>)> = Vec::new();
    for (tick, &i) in found.iter().enumerate() {
        let stem = stem(recipe(i));
        match lines.iter_mut().find(|(s, _)| *s == stem) {
            Some((_, line)) => line.push((i, tick)),
            None => lines.push((stem, vec![(i, tick)])),
        }
    }
    lines.sort_by_key(|(stem, line)| (!stem.is_empty(), line.iter().map(|p| p.0).min()));
    let sizes: Vec<f64> = std::iter::once(full).chain(found.iter().map(|&i| bytes(recipe(i)))).collect();
    let least = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let ticks = vec![String::new(); found.len()];
    (full > 0. && least < 0.99 * full).then_some((Sweep { ticks, lines }, sizes))
}

/// Categories at their bytes, on a logarithmic axis that falls to the right as bits do elsewhere, and round numbers below it.
fn on_an_axis(panel: &mut Panel, sizes: &[f64]) {
    let most = sizes.iter().copied().fold(0f64, f64::max);
    let least = sizes.iter().copied().fold(f64::INFINITY, f64::min);
    let place = |bytes: f64| 0.05 + 0.9 * (most / bytes).ln() / (most / least).ln();
    panel.ticks = vec![String::new(); sizes.len()];
    panel.places = sizes.iter().map(|&s| place(s)).collect();
    let mut left = -1.;
    for tick in round(least, most) {
        // Where names would touch, the smaller number is left out.
        if place(tick) - left > 0.09 {
            left = place(tick);
            let digits = (1. - tick.log10().floor()).max(0.) as usize;
            let name = format!("{tick:.digits$}");
            let name = if digits > 0 { name.trim_end_matches('0').trim_end_matches('.') } else { &name };
            panel.ticks.push(name.to_owned());
            panel.places.push(left);
        }
    }
}

/// Round numbers within some bounds, falling; the bounds' middle where there is none.
fn round(least: f64, most: f64) -> Vec<f64> {
    let decades = least.log10().floor() as i32..=most.log10().ceil() as i32;
    let all = decades.rev().flat_map(|d| [7., 5., 3., 2., 1.5, 1.].map(|n| n * 10f64.powi(d)));
    let inside: Vec<f64> = all.filter(|n| (least..=most).contains(n)).collect();
    if inside.is_empty() { vec![(least * most).sqrt()] } else { inside }
}
