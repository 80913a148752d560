//! IQ types of 1 bit: -1, 0 and 1, all moved up or down by an eighth; eight of them are an index.
//!
//! ```text
//! x ~ d (2 s + 1) (q + 1/8)      or (q - 1/8); s of 3 bits, d in 16 bits for 256
//! iq1_s    s and shift for 32    iq1_m    s for 16, shift for 8
//! ```
//! Sorted, a group's values are split in three at every two places, under every shift: what is found is the
//! best there is; only then codes are moved onto points. The order of operations is that of ggml's
//! `quantize_row_iq1_s_impl` and `quantize_row_iq1_m_impl`.
use super::{
    blocks::Weighing,
    fit::{half, nearest},
    k::{counts, power},
    lattice::IQ1,
};
use std::cmp::Ordering;

/// What -1, 0 and 1 become.
type Levels = [f32; 3];

const UP: Levels = [-0.875, 0.125, 1.125];
const DOWN: Levels = [-1.125, -0.125, 0.875];

/// A group before its scale is stored: how it is split, and the levels of its first half and of its second.
struct Split {
    ends: (usize, usize),
    levels: [Levels; 2],
    scale: f32,
    score: f32,
}

impl Split {
    const NONE: Self = Self { ends: (0, 0), levels: [UP, UP], scale: 0., score: -f32::MAX };

    fn better(&mut self, (qx, q2): (f32, f32), ends: (usize, usize), levels: [Levels; 2]) {
        if q2 > 0. && qx * qx > self.score * q2 {
            let scale = qx / q2;
            *self = Self { ends, levels, scale, score: scale * qx };
        }
    }
}

/// 32 values of one scale and one shift.
pub fn iq1_s(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut w) = ([0.; 8], [0.; 256]);
    weigh(x, weighing, &mut w);
    for (g, (x, out)) in x.chunks(32).zip(out.chunks_mut(32)).enumerate() {
        scales[g] = group(x, &w[32 * g..][..32], 1e-12, by_sums, out);
    }
    let most = scales.iter().fold(0., |most: f32, &s| most.max(s));
    if most == 0. {
        return out.fill(0.);
    }
    let d = most / 15.;
    let kept = half(d * 1.125);
    for (out, scale) in out.chunks_mut(32).zip(scales) {
        let d = kept * odd(1. / d, scale);
        out.iter_mut().for_each(|o| *o *= d);
    }
}

/// 16 values of one scale, each eight of one shift.
pub fn iq1_m(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut w) = ([0.; 16], [0.; 256]);
    weigh(x, weighing, &mut w);
    for (g, (x, out)) in x.chunks(16).zip(out.chunks_mut(16)).enumerate() {
        scales[g] = group(x, &w[16 * g..][..16], 1e-7, one_by_one, out);
    }
    let most = scales.iter().fold(0., |most: f32, &s| most.max(s));
    if most == 0. {
        return out.fill(0.);
    }
    let mut d = most / 15.;
    let scales = scales.map(|scale| odd(1. / d, scale));
    let (mut qx, mut q2) = (0., 0.);
    for (i, ((x, w), level)) in x.iter().zip(w).zip(&*out).enumerate() {
        let q = level * scales[i / 16];
        qx += w * q * x;
        q2 += w * q * q;
    }
    d = if q2 > 0. { qx / q2 } else { d };
    let kept = half(d * 1.1125);
    for (out, scale) in out.chunks_mut(16).zip(scales) {
        out.iter_mut().for_each(|o| *o *= kept * scale);
    }
}

/// The scale as it is stored, 1, 3, 5 and so on to 15.
fn odd(by: f32, scale: f32) -> f32 {
    (2 * nearest(0.5 * (by * scale - 1.)).clamp(0, 7) + 1) as f32
}

fn weigh(x: &[f32], weighing: Option<Weighing>, w: &mut [f32]) {
    match weighing {
        Some(weighing) => counts(x, weighing.importance, 2. * power(x) / 256., w),
        None => w.iter_mut().zip(x).for_each(|(w, x)| *w = x * x),
    }
}

/// Levels into `out`, and the scale that they want.
fn group(x: &[f32], w: &[f32], nothing: f32, search: Search, out: &mut [f32]) -> f32 {
    let max = x.iter().fold(0., |max: f32, x| max.max(x.abs()));
    let mut order: [usize; 32] = std::array::from_fn(|i| i);
    let order = &mut order[..x.len()];
    order.sort_by(|&a, &b| x[a].partial_cmp(&x[b]).unwrap_or(Ordering::Equal));
    let best = if max < nothing { Split::NONE } else { search(x, w, order) };
    if best.score < 0. {
        // The first point, not zero: a scale cannot say that.
        out.fill(UP[0]);
        return 0.;
    }
    let (mut scale, mut levels, turned) = (best.scale, best.levels, best.scale < 0.);
    if turned {
        scale = -scale;
        levels = levels.map(|levels| if levels == UP { DOWN } else { UP });
    }
    let mut codes = [0; 32];
    for (at, &i) in order.iter().enumerate() {
        let code = u8::from(at >= best.ends.0) + u8::from(at >= best.ends.1);
        codes[i] = if turned { 2 - code } else { code };
    }
    let (eights, mut all_on, mut qx, mut q2) = (x.len() / 8, true, 0., 0.);
    for (k, ((x, w), out)) in x.chunks(8).zip(w.chunks(8)).zip(out.chunks_mut(8)).enumerate() {
        let (codes, levels) = (&mut codes[8 * k..][..8], levels[2 * k / eights]);
        let level = |code: u8| levels[usize::from(code)];
        all_on &= IQ1.snap(codes, x, w, scale, level);
        for (((x, w), code), o) in x.iter().zip(w).zip(codes).zip(out) {
            *o = level(*code);
            qx += w * *o * x;
            q2 += w * *o * *o;
        }
    }
    if !all_on && qx > 0. && q2 > 0. { qx / q2 } else { scale }
}

/// How the best split is found; it is given the values' order.
type Search = fn(&[f32], &[f32], &[usize]) -> Split;

/// One shift for all, from running sums.
fn by_sums(x: &[f32], w: &[f32], order: &[usize]) -> Split {
    let n = x.len();
    let (mut wx, mut w1) = ([0.; 33], [0.; 33]);
    for (j, &i) in order.iter().enumerate() {
        wx[j + 1] = wx[j] + w[i] * x[i];
        w1[j + 1] = w1[j] + w[i];
    }
    let mut best = Split::NONE;
    for first in 0..=n {
        for second in first..=n {
            let parts =
                |sum: &[f32; 33]| [sum[first] - sum[0], sum[second] - sum[first], sum[n] - sum[second]];
            let (wx, w1) = (parts(&wx), parts(&w1));
            for l in [UP, DOWN] {
                let qx = wx[0] * l[0] + wx[1] * l[1] + wx[2] * l[2];
                let q2 = w1[0] * l[0] * l[0] + w1[1] * l[1] * l[1] + w1[2] * l[2] * l[2];
                best.better((qx, q2), (first, second), [l, l]);
            }
        }
    }
    best
}

/// A shift for each half, value by value.
fn one_by_one(x: &[f32], w: &[f32], order: &[usize]) -> Split {
    const ALL: [[Levels; 2]; 4] = [[UP, UP], [UP, DOWN], [DOWN, UP], [DOWN, DOWN]];
    let n = x.len();
    // Of a value with each code: what it adds to both sums under all four pairs of shifts.
    let terms = |&i: &usize| {
        [0, 1, 2].map(|code| {
            let each = ALL.map(|levels| levels[2 * i / n][code]);
            (each.map(|q| w[i] * q * x[i]), each.map(|q| w[i] * q * q))
        })
    };
    let terms: Vec<[Sums; 3]> = order.iter().map(terms).collect();
    let (mut best, mut low) = (Split::NONE, Sums::default());
    for first in 0..=n {
        let mut middle = low;
        for second in first..=n {
            let (qx, q2) = terms[second..].iter().fold(middle, |sums, term| plus(sums, &term[2]));
            for (i, levels) in ALL.into_iter().enumerate() {
                best.better((qx[i], q2[i]), (first, second), levels);
            }
            middle = terms.get(second).map_or(middle, |term| plus(middle, &term[1]));
        }
        low = terms.get(first).map_or(low, |term| plus(low, &term[0]));
    }
    best
}

/// `sum w q x` and `sum w q^2`, four of each.
type Sums = ([f32; 4], [f32; 4]);

fn plus(mut sums: Sums, term: &Sums) -> Sums {
    sums.0.iter_mut().zip(term.0).for_each(|(sum, x)| *sum += x);
    sums.1.iter_mut().zip(term.1).for_each(|(sum, x)| *sum += x);
    sums
}
