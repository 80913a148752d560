//! How far one matrix is from another that it stands for.
//!
//! ```text
//! sqnr     10 log10(sum x^2 / sum (x - y)^2), dB; none where nothing is lost      nmse     sum (x - y)^2 / sum x^2
//! cosine   <x, y> / (|x| |y|)
//! hessian  tr(D H D^T), D = W - Q, H = 2 X^T X / n of the n tokens X [n, in]       = 2/n |X D^T|^2 : GPTQ's objective
//!          relative: over tr(W H W^T)
//! cka      |Y^T X|^2 / (|X^T X| |Y^T Y|), columns centred: linear CKA (Kornblith et al., 2019, section 3), the biased estimate
//! ```
//! Sums are in f64, over pieces of a fixed size in their order. CKA is computed from products of tokens, `<K, L> / (|K| |L|)` with
//! `K = X X^T`, over at most [`TOKENS`](self::TOKENS) of them, spread evenly.
use super::shape::{numbers, some_rows};
use crate::tensor::{
    linalg::gram,
    matmul::{Weight, linear},
    rows,
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Tokens of which CKA is.
pub const TOKENS: usize = 1024;
/// Numbers of a piece.
const PIECE: usize = 1 << 14;

/// Sums over pairs of numbers: what was meant, and what stands for it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Gap {
    /// Pairs.
    pub count: u64,
    /// Pairs of which one is no number, or infinite; they are in nothing else here.
    pub not_finite: u64,
    /// Squares of what was meant.
    pub signal: f64,
    /// Squares of what stands for it.
    pub other: f64,
    /// Squares of differences.
    pub noise: f64,
    /// Products.
    pub dot: f64,
}

impl Gap {
    /// Of two rows of numbers, as long.
    pub fn of(x: &[f32], y: &[f32]) -> Self {
        let each = x.par_chunks(PIECE).zip(y.par_chunks(PIECE)).map(|(x, y)| {
            let mut gap = Self::default();
            for (&x, &y) in x.iter().zip(y) {
                if !(x.is_finite() && y.is_finite()) {
                    gap.not_finite += 1;
                    continue;
                }
                let (x, y) = (f64::from(x), f64::from(y));
                gap.signal += x * x;
                gap.other += y * y;
                gap.noise += (x - y) * (x - y);
                gap.dot += x * y;
            }
            gap.count = x.len() as u64;
            gap
        });
        each.collect::<Vec<_>>().into_iter().fold(Self::default(), Self::merge)
    }

    /// Of two tensors of one shape.
    pub fn between(x: &Tensor, y: &Tensor) -> Result<Self> {
        ensure!(x.dims() == y.dims(), "{:?} beside {:?}", x.dims(), y.dims());
        let cpu = |x: &Tensor| x.to_device(&Device::Cpu)?.contiguous();
        Ok(rows::with(&cpu(x)?, |x| rows::with(&cpu(y)?, |y| Self::of(x, y)))??)
    }

    /// Of both together.
    pub fn merge(self, other: Self) -> Self {
        Self {
            count: self.count + other.count,
            not_finite: self.not_finite + other.not_finite,
            signal: self.signal + other.signal,
            other: self.other + other.other,
            noise: self.noise + other.noise,
            dot: self.dot + other.dot,
        }
    }

    /// Signal over noise, dB; none without noise, without signal, or where something is no number.
    pub fn sqnr(&self) -> Option<f64> {
        let ratio = self.whole()?.signal / self.noise;
        (self.noise > 0. && self.signal > 0.).then(|| 10. * ratio.log10())
    }

    /// Noise over signal; none without signal, or where something is no number.
    pub fn nmse(&self) -> Option<f64> {
        (self.whole()?.signal > 0.).then(|| self.noise / self.signal)
    }

    /// The cosine between them; none where one is zero, or something is no number.
    pub fn cosine(&self) -> Option<f64> {
        let both = (self.whole()?.signal * self.other).sqrt();
        // Rounding makes no angle below nothing.
        (both > 0.).then(|| if self.noise == 0. { 1. } else { (self.dot / both).clamp(-1., 1.) })
    }

    fn whole(&self) -> Option<&Self> {
        (self.not_finite == 0).then_some(self)
    }
}

/// Hessian-weighted error of a matrix `[out, in]`, and of nothing in its place, over inputs `[tokens, in]`.
pub fn hessian(full: &Tensor, other: &Tensor, x: &Tensor) -> Result<(f64, f64)> {
    let tokens = x.dim(0)?;
    let weighted = |w: &Tensor| -> Result<f64> {
        let y = linear(x, &Weight::from(w.contiguous()?).laid()?, None)?.to_device(&Device::Cpu)?;
        let gap = rows::with(&y.contiguous()?, |y| Gap::of(y, y))?;
        Ok(if gap.not_finite > 0 { f64::NAN } else { 2. * gap.signal / tokens.max(1) as f64 })
    };
    Ok((weighted(&(full - other)?)?, weighted(full)?))
}

/// Linear CKA of `[tokens, _]` and `[tokens, _]`; none where one does not vary, or has what is no number.
pub fn cka(x: &Tensor, y: &Tensor) -> Result<Option<f64>> {
    ensure!(x.dim(0)? == y.dim(0)?, "as many tokens in both");
    let products = |x: &Tensor| -> Result<Vec<f64>> {
        let x = some_rows(x, TOKENS)?;
        let (tokens, width) = x.dims2()?;
        let mut x = numbers(&x)?;
        let mut means = vec![0f64; width];
        for row in x.chunks_exact(width.max(1)) {
            means.iter_mut().zip(row).for_each(|(m, v)| *m += v);
        }
        x.par_chunks_mut(width.max(1))
            .for_each(|row| row.iter_mut().zip(&means).for_each(|(v, m)| *v -= m / tokens as f64));
        Ok(gram(&x, (tokens, width)))
    };
    let (k, l) = (products(x)?, products(y)?);
    let inner = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let both = inner(&k, &k).sqrt() * inner(&l, &l).sqrt();
    let cka = inner(&k, &l) / both;
    Ok((both > 0. && cka.is_finite()).then(|| cka.min(1.)))
}
