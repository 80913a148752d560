//! Scales of a few values, searched: what GGUF's K-quants, and its other types under an importance matrix, are made by.
//!
//! ```text
//! signed     x ~ d l        l = -n .. n - 1      19 scales tried, each refitted by least squares
//! corrected  x ~ d l        the same, where each code then moves alone while it gains
//! positive   x ~ d l        l = 0 .. n           9 scales tried, then codes move
//! affine     x ~ d l - m    l = 0 .. n, m >= 0   scale and minimum by least squares from each of many ranges
//! ```
//! Operation for operation `make_qx_quants`, `make_q3_quants`, `make_qp_quants` and `make_qkx3_quants` of ggml's
//! `ggml-quants.c`: they compare sums that differ in last bits, so another order gives other codes.
use half::f16;

/// What is smaller is zero.
pub const NOTHING: f32 = 1e-15;

/// In 16 bits.
pub fn half(x: f32) -> f32 {
    f16::from_f32(x).to_f32()
}

/// Half to even, as C does it with the bits of a float: also what it gives out of range.
pub fn nearest(x: f32) -> i32 {
    ((x + 12_582_912.).to_bits() & 0x7f_ffff) as i32 - 0x40_0000
}

/// The largest magnitude, and the value that has it.
fn peak(x: &[f32]) -> (f32, f32) {
    x.iter().fold((0., 0.), |(most, at), &v| if v.abs() > most { (v.abs(), v) } else { (most, at) })
}

/// `sum w x l` and `sum w l^2` of codes.
fn sums(x: &[f32], w: &[f32], code: impl Fn(f32) -> i32) -> (f32, f32) {
    let (mut lx, mut l2) = (0., 0.);
    for (x, w) in x.iter().zip(w) {
        let l = code(*x) as f32;
        lx += w * x * l;
        l2 += w * l * l;
    }
    (lx, l2)
}

/// Codes `-n .. n - 1` and their scale, for the least `sum w (x - d l)^2`.
pub fn signed(n: i32, x: &[f32], w: &[f32], codes: &mut [i32]) -> f32 {
    let (most, max) = peak(x);
    if most < NOTHING {
        codes.fill(0);
        return 0.;
    }
    let code = |by: f32| move |x: f32| nearest(by * x).clamp(-n, n - 1);
    let fill = |codes: &mut [i32], by: f32| codes.iter_mut().zip(x).for_each(|(c, x)| *c = code(by)(*x));
    let first = -n as f32 / max;
    fill(codes, first);
    let (lx, l2) = sums(x, w, code(first));
    let mut scale = if l2 != 0. { lx / l2 } else { 0. };
    let mut best = scale * lx;
    for step in (-9..=9).filter(|&s| s != 0) {
        let by = -(n as f32 + 0.1 * step as f32) / max;
        let (lx, l2) = sums(x, w, code(by));
        if l2 > 0. && lx * lx > best * l2 {
            fill(codes, by);
            scale = lx / l2;
            best = scale * lx;
        }
    }
    scale
}

/// Codes `-n .. n - 1` and their scale, each value counted by its square; codes move one by one, five rounds at most.
pub fn corrected(n: i32, x: &[f32], codes: &mut [i32]) -> f32 {
    let (most, max) = peak(x);
    if most < NOTHING {
        codes.fill(0);
        return 0.;
    }
    let by = -n as f32 / max;
    let (mut lx, mut l2) = (0., 0.);
    for (x, c) in x.iter().zip(&mut *codes) {
        *c = nearest(by * x).clamp(-n, n - 1);
        let (w, l) = (x * x, *c as f32);
        lx += w * x * l;
        l2 += w * l * l;
    }
    for _ in 0..5 {
        let mut moved = false;
        for (x, c) in x.iter().zip(&mut *codes) {
            let (w, l) = (x * x, *c as f32);
            let mut without = lx - w * x * l;
            if without <= 0. {
                continue;
            }
            let mut without2 = l2 - w * l * l;
            let new = nearest(x * without2 / without).clamp(-n, n - 1);
            if new != *c {
                let l = new as f32;
                without += w * x * l;
                without2 += w * l * l;
                if without2 > 0. && without * without * l2 > lx * lx * without2 {
                    (*c, lx, l2, moved) = (new, without, without2, true);
                }
            }
        }
        if !moved {
            break;
        }
    }
    if l2 > 0. { lx / l2 } else { 0. }
}

/// Codes `0 .. n` and their scale, for values that are not negative.
pub fn positive(n: i32, x: &[f32], w: &[f32], codes: &mut [u8]) -> f32 {
    let max = x.iter().fold(0f32, |m, &x| if m > x { m } else { x });
    if max < NOTHING {
        codes.fill(0);
        return 0.;
    }
    let lost = |scale: f32, code: &dyn Fn(f32) -> f32| {
        x.iter().zip(w).fold(0., |sum, (x, w)| {
            let off = x - scale * code(*x);
            sum + w * off * off
        })
    };
    let mut by = n as f32 / max;
    // A negative value wraps in the first look at it, as C's unsigned bytes do.
    let mut least = lost(1. / by, &|x| f32::from(nearest(by * x) as u8));
    for step in (-4..=4).filter(|&s| s != 0) {
        let other = (0.1 * step as f32 + n as f32) / max;
        let mse = lost(1. / other, &|x| nearest(other * x).min(n) as f32);
        if mse < least {
            (least, by) = (mse, other);
        }
    }
    let (mut lx, mut l2) = (0., 0.);
    for ((x, w), c) in x.iter().zip(w).zip(&mut *codes) {
        let l = nearest(by * x).min(n);
        *c = l as u8;
        lx += w * x * l as f32;
        l2 += w * l as f32 * l as f32;
    }
    for _ in 0..5 {
        let mut moved = false;
        for ((x, w), c) in x.iter().zip(w).zip(&mut *codes) {
            let l = f32::from(*c);
            let (mut without, mut without2) = (lx - w * x * l, l2 - w * l * l);
            if without <= 0. || without2 <= 0. {
                continue;
            }
            let new = nearest(x * without2 / without).min(n);
            if new != i32::from(*c) {
                let l = new as f32;
                without += w * x * l;
                without2 += w * l * l;
                if without * without * l2 > lx * lx * without2 {
                    (*c, lx, l2, moved) = (new as u8, without, without2, true);
                }
            }
        }
        if !moved {
            break;
        }
    }
    if l2 > 0. { lx / l2 } else { 0. }
}

/// Which ranges are tried: `(first + step i + n) / (max - min)` for `i = 0 ..= steps`, and by what they are judged.
#[derive(Clone, Copy)]
pub struct Search {
    /// Of the scale's numerator.
    pub first: f32,
    /// See `first`.
    pub step: f32,
    /// See `first`.
    pub steps: i32,
    /// By magnitudes of errors, not by their squares.
    pub magnitude: bool,
}

impl Search {
    /// Under an importance matrix.
    pub const WEIGHED: Search = Search { first: -0.9, step: 0.05, steps: 36, magnitude: false };
}

/// Codes `0 .. n`, their scale, and how far below zero they begin: `x ~ d l - m`.
pub fn affine(n: i32, x: &[f32], w: &[f32], search: Search, codes: &mut [u8]) -> (f32, f32) {
    let (mut min, mut max) = (x[0], x[0]);
    let mut sum_w = w[0];
    let mut sum_x = sum_w * x[0];
    for (&x, &w) in x.iter().zip(w).skip(1) {
        min = if x < min { x } else { min };
        max = if x > max { x } else { max };
        sum_w += w;
        sum_x += w * x;
    }
    min = if min > 0. { 0. } else { min };
    if max <= min {
        codes.fill(0);
        return (0., -min);
    }
    let code = |by: f32, x: f32| nearest(by * x).clamp(0, n);
    let loss = |off: f32| if search.magnitude { off.abs() } else { off * off };
    let by = n as f32 / (max - min);
    let (mut scale, mut least) = (1. / by, 0.);
    for ((x, w), c) in x.iter().zip(w).zip(&mut *codes) {
        *c = code(by, x - min) as u8;
        least += w * loss(scale * f32::from(*c) + min - x);
    }
    let mut trial = [0u8; 32];
    for i in 0..=search.steps {
        // From the best minimum so far, not from the smallest value.
        let by = (search.first + search.step * i as f32 + n as f32) / (max - min);
        let (mut l1, mut l2, mut xl) = (0., 0., 0.);
        for ((x, w), c) in x.iter().zip(w).zip(&mut trial) {
            *c = code(by, x - min) as u8;
            let l = f32::from(*c);
            l1 += w * l;
            l2 += w * l * l;
            xl += w * l * x;
        }
        let d = sum_w * l2 - l1 * l1;
        if d <= 0. {
            continue;
        }
        let mut new = (sum_w * xl - sum_x * l1) / d;
        let mut below = (l2 * sum_x - l1 * xl) / d;
        if below > 0. {
            (below, new) = (0., xl / l2);
        }
        let lost = x
            .iter()
            .zip(w)
            .zip(trial)
            .fold(0., |sum, ((x, w), c)| sum + w * loss(new * f32::from(c) + below - x));
        if lost < least {
            codes.iter_mut().zip(trial).for_each(|(c, t)| *c = t);
            (least, scale, min) = (lost, new, below);
        }
    }
    (scale, -min)
}
