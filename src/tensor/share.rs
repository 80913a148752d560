//! How a product is shared out among threads: some rows and some panels a task.
use super::strip::WIDE;
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

/// Multiplications that are worth a task of their own: some 20 microseconds.
const WORTH: usize = 1 << 21;

/// Runs `each` for all parts of `y [rows, width]`, of at most `tall` rows, side by side where `work` multiplications are
/// worth it. Rows come first: panels are shared out only where there are few.
pub fn share(y: &mut [f32], width: usize, tall: usize, work: usize, each: impl Fn(Part) + Sync) {
    if width == 0 || y.is_empty() {
        return;
    }
    let (blocks, panels) = ((y.len() / width).div_ceil(tall), width.div_ceil(WIDE));
    let worth = (work / WORTH).max(1);
    let wanted = (4 * rayon::current_num_threads()).min(worth).div_ceil(blocks);
    let at_once = panels.div_ceil(wanted).max(1);
    let mut parts = Vec::new();
    for (block, y) in y.chunks_mut(tall * width).enumerate() {
        let from = parts.len();
        let starts = (0..panels).step_by(at_once);
        parts.extend(starts.map(|panel| Part { row: block * tall, panel, out: Vec::new() }));
        for row in y.chunks_mut(width) {
            for (part, piece) in parts[from..].iter_mut().zip(row.chunks_mut(at_once * WIDE)) {
                part.out.push(piece);
            }
        }
    }
    if worth == 1 {
        parts.into_iter().for_each(&each);
    } else {
        parts.into_par_iter().for_each(&each);
    }
}
