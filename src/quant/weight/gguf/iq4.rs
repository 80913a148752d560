//! 4-bit codes of sixteen uneven values: `iq4_nl`, a scale for 32 of them, and `iq4_xs`, eight such scales in 6 bits each.
//!
//! As ggml's `quantize_row_iq4_nl_impl`: fifteen scales are tried, each refitted by least squares, and codes are those of the best.
use super::{
    blocks::Weighing,
    fit::{NOTHING, half, nearest},
};

/// What codes mean, rising.
const VALUES: [f32; 16] =
    [-127., -104., -83., -65., -49., -35., -22., -10., 1., 13., 25., 38., 53., 69., 89., 113.];

/// The nearest of them; of two that are as near, the larger.
fn value(x: f32) -> f32 {
    let above = VALUES.partition_point(|v| *v <= x);
    match above {
        0 => VALUES[0],
        16 => VALUES[15],
        _ if x - VALUES[above - 1] < VALUES[above] - x => VALUES[above - 1],
        _ => VALUES[above],
    }
}

fn inverse(d: f32) -> f32 {
    if d == 0. { 0. } else { 1. / d }
}

/// The scale of 32 values. `spread`: twice the mean square of those that are rounded together.
fn scale(x: &[f32], importance: Option<&[f32]>, spread: f32) -> f32 {
    let mut w = [0.; 32];
    match importance {
        Some(importance) => {
            w.iter_mut().zip(x).zip(importance).for_each(|((w, x), i)| *w = i * (spread + x * x).sqrt())
        }
        None => w.iter_mut().zip(x).for_each(|(w, x)| *w = x * x),
    }
    let max = x.iter().fold(0., |far: f32, &v| if v.abs() > far.abs() { v } else { far });
    if max.abs() < NOTHING {
        return 0.;
    }
    let sums = |by: f32| {
        x.iter().zip(w).fold((0., 0.), |(qx, q2), (x, w)| {
            let q = value(by * x);
            (qx + w * q * x, q2 + w * q * q)
        })
    };
    let (qx, q2) = sums(1. / (-max / VALUES[0]));
    let mut d = if q2 > 0. { qx / q2 } else { 0. };
    let mut best = d * qx;
    for step in -7..=7 {
        let (qx, q2) = sums((step as f32 + VALUES[0]) / max);
        if q2 > 0. && qx * qx > best * q2 {
            d = qx / q2;
            best = d * qx;
        }
    }
    d
}

fn spread(x: &[f32]) -> f32 {
    x.iter().fold(0., |sum, x| sum + x * x) * (2. / x.len() as f32)
}

/// 32 values.
pub fn iq4_nl(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let d = scale(x, weighing.map(|w| w.importance), spread(x));
    let (by, kept) = (inverse(d), half(d));
    out.iter_mut().zip(x).for_each(|(o, x)| *o = kept * value(by * x));
}

/// 256 values.
pub fn iq4_xs(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    let (mut scales, spread) = ([0.; 8], spread(x));
    for (g, x) in x.chunks(32).enumerate() {
        scales[g] = scale(x, weighing.map(|w| &w.importance[32 * g..]), spread);
    }
    let far = scales.iter().fold(0., |far: f32, &s| if s.abs() > far.abs() { s } else { far });
    let d = -far / 32.;
    let (by, kept) = (inverse(d), half(d));
    for ((x, out), scale) in x.chunks(32).zip(out.chunks_mut(32)).zip(scales) {
        let code = nearest(by * scale).clamp(-32, 31) as f32;
        let by = inverse(d * code);
        out.iter_mut().zip(x).for_each(|(o, x)| *o = kept * code * value(by * x));
    }
}
