//! K-quants: super-blocks of 256 values, whose groups' scales are codes themselves.
//!
//! ```text
//! q2_k   d s q - e m    16 groups of 16, s and m of 4 bits     q3_k   d s q    16 groups, s of 6 bits with a sign
//! q4_k q5_k             8 groups of 32, s and m of 6 bits      q6_k   d s q    16 groups, s of 8 bits with a sign
//! ```
//! `d` and `e` in 16 bits. The order of operations is that of ggml's `quantize_row_q?_K_ref` and, under an importance matrix,
//! `quantize_row_q?_K_impl`.
use super::{
    blocks::Weighing,
    fit::{NOTHING, Search, affine, corrected, half, nearest, positive, signed},
};

/// The sum of squares.
pub fn power(x: &[f32]) -> f32 {
    x.iter().fold(0., |sum, x| sum + x * x)
}

/// What each value of a group counts: its importance, and more where it is large.
pub fn counts(x: &[f32], importance: &[f32], spread: f32, w: &mut [f32]) {
    w.iter_mut().zip(x).zip(importance).for_each(|((w, x), i)| *w = i * (spread + x * x).sqrt());
}

/// Scales and minima of a super-block's groups, as they are stored.
#[derive(Default)]
struct Stored {
    scale: f32,
    min: f32,
    scales: [u8; 16],
    mins: [u8; 16],
}

impl Stored {
    /// Each as a share of the largest, of `n`.
    fn of_largest(n: i32, scales: &[f32], mins: &[f32]) -> Self {
        let mut stored = Self::default();
        let largest = |x: &[f32]| x.iter().fold(0f32, |m, &x| if x > m { x } else { m });
        let fill = |x: &[f32], codes: &mut [u8; 16]| {
            let largest = largest(x);
            if largest > 0. {
                let by = n as f32 / largest;
                codes.iter_mut().zip(x).for_each(|(c, x)| *c = (nearest(by * x) as u8).min(n as u8));
            }
            half(largest / n as f32)
        };
        stored.scale = fill(scales, &mut stored.scales);
        stored.min = fill(mins, &mut stored.mins);
        stored
    }

    /// Chosen for the least loss, groups counted by what their values count.
    fn fitted(n: i32, scales: &[f32], mins: &[f32], counts: &[f32]) -> Self {
        let mut stored = Self::default();
        stored.scale = half(positive(n, scales, counts, &mut stored.scales[..scales.len()]));
        stored.min = half(positive(n, mins, counts, &mut stored.mins[..mins.len()]));
        stored
    }

    /// The nearest codes `0 .. n`, and their values.
    fn snap(&self, n: i32, group: usize, x: &[f32], out: &mut [f32]) {
        for ((x, out), g) in x.chunks(group).zip(out.chunks_mut(group)).zip(0..) {
            let d = self.scale * f32::from(self.scales[g]);
            let m = self.min * f32::from(self.mins[g]);
            for (x, o) in x.iter().zip(out) {
                let code = if d == 0. { 0 } else { nearest((x + m) / d).clamp(0, n) };
                *o = d * code as f32 - m;
            }
        }
    }
}

/// 2 bits and a minimum.
pub fn q2_k(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut mins, mut sums) = ([0.; 16], [0.; 16], [0.; 16]);
    let (mut w, mut codes) = ([0.; 16], [0; 16]);
    let search = match weighing {
        None => Search { first: -0.5, step: 0.1, steps: 15, magnitude: true },
        Some(_) => Search::WEIGHED,
    };
    let spread = power(x) / 256.;
    for (g, x) in x.chunks(16).enumerate() {
        match weighing {
            None => w.iter_mut().zip(x).for_each(|(w, x)| *w = x.abs()),
            Some(weighing) => counts(x, &weighing.importance[16 * g..], spread, &mut w),
        }
        sums[g] = w.iter().fold(0., |sum, w| sum + w);
        (scales[g], mins[g]) = affine(3, x, &w, search, &mut codes);
    }
    let stored = match weighing {
        None => Stored::of_largest(15, &scales, &mins),
        Some(_) => Stored::fitted(15, &scales, &mins, &sums),
    };
    stored.snap(3, 16, x, out);
}

/// 4 or 5 bits and a minimum, groups of 32; codes are `0 .. n`.
fn q45_k(n: i32, search: Search, x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut mins, mut sums) = ([0.; 8], [0.; 8], [0.; 8]);
    let (mut w, mut codes) = ([0.; 32], [0; 32]);
    let spread = 2. * power(x) / 256.;
    for (g, x) in x.chunks(32).enumerate() {
        let search = match weighing {
            None => {
                let mean = (power(x) / 32.).sqrt();
                w.iter_mut().zip(x).for_each(|(w, x)| *w = mean + x.abs());
                search
            }
            Some(weighing) => {
                counts(x, &weighing.importance[32 * g..], spread, &mut w);
                Search::WEIGHED
            }
        };
        sums[g] = w.iter().fold(0., |sum, w| sum + w);
        (scales[g], mins[g]) = affine(n, x, &w, search, &mut codes);
    }
    let stored = match weighing {
        None => Stored::of_largest(63, &scales, &mins),
        Some(_) => Stored::fitted(63, &scales, &mins, &sums),
    };
    stored.snap(n, 32, x, out);
}

/// 4 bits and a minimum.
pub fn q4_k(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    q45_k(15, Search { first: -1., step: 0.1, steps: 20, magnitude: false }, x, weighing, out);
}

/// 5 bits and a minimum.
pub fn q5_k(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    q45_k(31, Search { first: -0.5, step: 0.1, steps: 15, magnitude: false }, x, weighing, out);
}

/// The nearest codes `-n .. n - 1` under a scale a group of 16.
fn snap_signed(n: i32, d: f32, scales: &[i32; 16], x: &[f32], out: &mut [f32]) {
    for ((x, out), scale) in x.chunks(16).zip(out.chunks_mut(16)).zip(scales) {
        let d = d * *scale as f32;
        for (x, o) in x.iter().zip(out) {
            let code = if d == 0. { 0 } else { nearest(x / d).clamp(-n, n - 1) };
            *o = d * code as f32;
        }
    }
}

/// The scale of the largest magnitude.
fn farthest(scales: &[f32]) -> f32 {
    scales.iter().fold(0., |far: f32, &s| if s.abs() > far.abs() { s } else { far })
}

/// 3 bits around zero.
pub fn q3_k(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut sums) = ([0.; 16], [0.; 16]);
    let (mut w, mut codes) = ([0.; 16], [0; 16]);
    let spread = 2. * power(x) / 256.;
    for (g, x) in x.chunks(16).enumerate() {
        scales[g] = match weighing {
            None => corrected(4, x, &mut codes),
            Some(weighing) => {
                counts(x, &weighing.importance[16 * g..], spread, &mut w);
                sums[g] = w.iter().fold(0., |sum, w| sum + w);
                signed(4, x, &w, &mut codes)
            }
        };
    }
    let mut stored = [0; 16];
    let d = match weighing {
        Some(_) => signed(32, &scales, &sums, &mut stored),
        None => match farthest(&scales) {
            0. => 0.,
            far => {
                let by = -32. / far;
                stored.iter_mut().zip(scales).for_each(|(s, scale)| *s = nearest(by * scale).clamp(-32, 31));
                1. / by
            }
        },
    };
    snap_signed(4, half(d), &stored, x, out);
}

/// 6 bits around zero.
pub fn q6_k(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, mut w, mut codes) = ([0.; 16], [0.; 16], [0; 16]);
    for (g, x) in x.chunks(16).enumerate() {
        match weighing {
            None => w.iter_mut().zip(x).for_each(|(w, x)| *w = x * x),
            Some(weighing) => w.copy_from_slice(&weighing.importance[16 * g..][..16]),
        }
        scales[g] = signed(32, x, &w, &mut codes);
    }
    let far = farthest(&scales);
    if far.abs() < NOTHING {
        return out.fill(0.);
    }
    let by = -128. / far;
    snap_signed(32, half(1. / by), &scales.map(|s| nearest(by * s).min(127)), x, out);
}
