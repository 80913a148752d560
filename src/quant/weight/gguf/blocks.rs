//! Blocks of 16 to 256 values with one scale: GGUF's first types, its ternary types, MXFP4 and NVFP4.
//!
//! ```text
//! q4_0 q5_0 q8_0      d q              q4_1 q5_1   d q + m            d, m in 16 bits
//! q1_0 q2_0 tq1_0 tq2_0   d times -1 and 1; -1 to 2; -1, 0 and 1     mxfp4 nvfp4   2^e, E4M3 times E2M1
//! ```
//! Every operation is one of f32 in the order of ggml's `ggml-quants.c` (`quantize_row_*_ref`, `*_impl`,
//! `dequantize_row_*`), because a last bit of a scale moves codes.
use super::fit::{Search, affine, half, signed};

/// Where importance weighs values: what the values of a row are like, and each one's importance.
#[derive(Clone, Copy)]
pub struct Weighing<'a> {
    /// Of the block's inputs, the mean square over a text.
    pub importance: &'a [f32],
    /// Of the row's weights.
    pub mean_square: f32,
}

impl Weighing<'_> {
    fn of(&self, x: &[f32]) -> Vec<f32> {
        let each = self.importance.iter().zip(x);
        each.map(|(i, x)| i * (self.mean_square + x * x).sqrt()).collect()
    }
}

/// What becomes of one block.
pub type Round = fn(&[f32], Option<Weighing>, &mut [f32]);

/// The value farthest from zero; the first of several.
fn farthest(x: &[f32]) -> f32 {
    x.iter().fold(0., |far: f32, &v| if far.abs() < v.abs() { v } else { far })
}

fn inverse(d: f32) -> f32 {
    if d == 0. { 0. } else { 1. / d }
}

/// `q4_0`, `q5_0`: codes `-n .. n - 1`, the value farthest from zero at `-n`.
fn around_zero(n: i32, x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    if let Some(weighing) = weighing {
        let mut codes = [0; 32];
        let d = half(signed(n, x, &weighing.of(x), &mut codes));
        out.iter_mut().zip(codes).for_each(|(o, q)| *o = q as f32 * d);
        return;
    }
    let d = farthest(x) / -(n as f32);
    let (id, kept) = (inverse(d), half(d));
    for (o, x) in out.iter_mut().zip(x) {
        let code = i32::from((x * id + (n as f32 + 0.5)) as i8).min(2 * n - 1);
        *o = (code - n) as f32 * kept;
    }
}

/// `q4_1`, `q5_1`: codes `0 .. n` from the smallest value to the largest.
fn from_least(n: i32, x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    if let Some(weighing) = weighing {
        let mut codes = [0; 32];
        let (d, below) = affine(n, x, &weighing.of(x), Search::WEIGHED, &mut codes);
        let (d, m) = (half(d), half(-below));
        out.iter_mut().zip(codes).for_each(|(o, q)| *o = f32::from(q) * d + m);
        return;
    }
    let (low, high) = x.iter().fold((f32::MAX, -f32::MAX), |(l, h), &v| (l.min(v), h.max(v)));
    let d = (high - low) / n as f32;
    let (id, kept, m) = (inverse(d), half(d), half(low));
    for (o, x) in out.iter_mut().zip(x) {
        let code = (((x - low) * id + 0.5) as i32).min(n);
        *o = code as f32 * kept + m;
    }
}

/// 4 bits around zero.
pub fn q4_0(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    around_zero(8, x, weighing, out);
}

/// 5 bits around zero.
pub fn q5_0(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    around_zero(16, x, weighing, out);
}

/// 4 bits and a minimum.
pub fn q4_1(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    from_least(15, x, weighing, out);
}

/// 5 bits and a minimum.
pub fn q5_1(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    from_least(31, x, weighing, out);
}

/// 8 bits; importance is not looked at.
pub fn q8_0(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    let d = farthest(x).abs() / 127.;
    let (id, kept) = (inverse(d), half(d));
    out.iter_mut().zip(x).for_each(|(o, x)| *o = (x * id).round() * kept);
}

/// Signs of 128 values times their mean magnitude.
pub fn q1_0(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    let d = half(x.iter().fold(0., |sum, x| sum + x.abs()) / x.len() as f32);
    out.iter_mut().zip(x).for_each(|(o, &x)| *o = if x >= 0. { d } else { -d });
}

/// -1, 0, 1 or 2 times the largest magnitude of 64 values.
pub fn q2_0(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    let d = farthest(x).abs();
    let (id, kept) = (inverse(d), half(d));
    out.iter_mut().zip(x).for_each(|(o, x)| *o = (x * id).round().clamp(-1., 2.) * kept);
}

/// -1, 0 or 1 times the largest magnitude: `tq1_0` and `tq2_0`, which pack the same values differently.
pub fn ternary(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    let d = farthest(x).abs();
    let (id, kept) = (inverse(d), half(d));
    out.iter_mut().zip(x).for_each(|(o, x)| *o = (x * id).round() * kept);
}

/// Twice the values of E2M1, as their codes order them.
const E2M1: [f32; 16] = [0., 1., 2., 3., 4., 6., 8., 12., 0., -1., -2., -3., -4., -6., -8., -12.];

/// OCP's MXFP4 as ggml rounds to it.
pub fn mxfp4(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    let most = farthest(x).abs();
    // Logarithms of C's f32 are those of f64, rounded: just below a power of two they are that power's.
    let power = (f64::from(most).log2() as f32).floor() as i32;
    let exponent = if most > 0. { (power - 2 + 127).clamp(0, 255) } else { 0 };
    let d = 2f64.powi(exponent - 128) as f32;
    e2m1(d, x, out);
}

/// The nearest of E2M1's values, twice which `d` scales: the first of two that are as near.
fn e2m1(d: f32, x: &[f32], out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        let off = |level: f32| (level * d - x).abs();
        *o = E2M1.iter().fold(E2M1[0], |best, &level| if off(level) < off(best) { level } else { best }) * d;
    }
}

/// The nearest value of E4M3 without a sign, as ggml has it: halves go up, and from 248 on all is 448.
fn e4m3(x: f32) -> f32 {
    if x < 0.015_625 {
        return ((x * 512. + 0.5) as i32).min(7) as f32 / 512.;
    }
    let rounded = f32::from_bits((x.to_bits() + (1 << 19)) & !0xf_ffff);
    if rounded < 256. { rounded } else { 448. }
}

/// NVIDIA's NVFP4, without the scale of the whole matrix: E2M1 under a scale in E4M3 for 16 values.
pub fn nvfp4(x: &[f32], _: Option<Weighing>, out: &mut [f32]) {
    for (x, out) in x.chunks(16).zip(out.chunks_mut(16)) {
        e2m1(0.5 * e4m3(farthest(x).abs() / 6.), x, out);
    }
}
