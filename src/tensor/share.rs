//! How a product is shared out among threads: some rows and some panels a task.
use super::{
    rows::{Fresh, build},
    strip::WIDE,
};
use rayon::prelude::*;

/// Part of a result `[rows, width]`.
pub struct Part<'a> {
    /// The first of its rows.
    pub row: usize,
    /// The first of its panels.
    pub panel: usize,
    /// Its rows, from that panel's first column on.
    pub out: Vec<&'a mut [f32]>,
}

/// Panels of one task, at most and, with more than a few rows, at least.
const MOST: usize = 32;
const LEAST: usize = 4;
/// A few rows.
const FEW: usize = 28;
/// Multiplications that are worth a task of their own: some 20 microseconds.
const WORTH: usize = 1 << 21;

/// A result `[rows, width]` that `each` fills, part by part, from zeros: parts of at most `tall` rows, side by side where `work`
/// multiplications are worth it. Rows come first: panels are shared out only where there are few.
pub fn share(rows: usize, width: usize, tall: usize, work: usize, each: impl Fn(Part) + Sync) -> Vec<f32> {
    if width == 0 || rows == 0 {
        return Vec::new();
    }
    let panels = width.div_ceil(WIDE);
    let worth = (work / WORTH).max(1);
    let wanted = (8 * rayon::current_num_threads()).min(worth);
    // A task copies its rows, so it has some panels to make up for that; where threads are many, it has fewer rows.
    let least = if rows < FEW { 1 } else { LEAST };
    let across = wanted.div_ceil(rows.div_ceil(tall)).clamp(1, panels.div_ceil(least));
    let tall = (rows * across).div_ceil(wanted).next_multiple_of(FEW).min(tall);
    // What a task clears and writes stays in the core's cache.
    let at_once = panels.div_ceil(across).min(MOST);
    let run = |(row, panel, out): (usize, usize, Vec<Fresh>)| {
        each(Part { row, panel, out: out.into_iter().map(Fresh::cleared).collect() });
    };
    build(rows * width, |y| {
        let mut parts: Vec<(usize, usize, Vec<Fresh>)> = Vec::new();
        for (block, y) in y.chunks(tall * width).enumerate() {
            let from = parts.len();
            let starts = (0..panels).step_by(at_once);
            parts.extend(starts.map(|panel| (block * tall, panel, Vec::new())));
            for row in y.chunks(width) {
                for (part, piece) in parts[from..].iter_mut().zip(row.chunks(at_once * WIDE)) {
                    part.2.push(piece);
                }
            }
        }
        if worth == 1 {
            parts.into_iter().for_each(run);
        } else {
            parts.into_par_iter().with_max_len(1).for_each(run);
        }
    })
}
