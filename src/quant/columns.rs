//! Columns of a matrix settled one after another, each loss made good by those that are still open: what GPTQ, OWQ and SpQR
//! share.
//!
//! ```text
//! U^T U = (H + damping)^-1, U upper triangular
//! for each column j:  e = (w_j - settled_j) / U_jj          w_k -= e U_jk  for k > j
//! ```
//! Rows touch each other only where a method fits some of them together, so groups of rows run in parallel; columns after a
//! block of 128 are caught up by one product.
use crate::{
    float::vectorized,
    tensor::{
        linalg::inverse_upper,
        matmul::{Weight, linear},
        rows,
    },
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use std::ops::Range;

/// Columns between two products.
const BLOCK: usize = 128;

/// What a channel that no input ever reaches counts in the Hessian.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Dead {
    /// 1, in the mean of the diagonal too, and it is damped: GPTQ's `fasterquant`.
    Counted,
    /// Nothing in the mean, then 1: SpQR's.
    Apart,
}

/// The factor of the damped inverse, columns in order, and the damping that it took: more than asked until there is one.
///
/// # Errors
/// A Hessian `[n, n]` that is not finite, or has no factor however it is damped.
pub fn factor(h: &[f32], order: &[usize], damp: f64, dead: Dead) -> Result<(Vec<f32>, f64)> {
    ensure!(h.iter().all(|x| x.is_finite()), "its calibration inputs are not finite");
    let n = order.len();
    let own = |i: usize| f64::from(h[i * n + i]);
    let counted = |i: usize| if own(i) == 0. && dead == Dead::Counted { 1. } else { own(i) };
    let mean = (0..n).map(counted).sum::<f64>() / n.max(1) as f64;
    let mut damp = damp;
    loop {
        let mut all = vec![0f64; n * n];
        all.par_chunks_mut(n).zip(order).for_each(|(row, &i)| {
            for (x, &j) in row.iter_mut().zip(order) {
                *x = match i == j {
                    true if own(i) == 0. && dead == Dead::Apart => 1.,
                    true => counted(i) + damp * mean,
                    false => f64::from(h[i * n + j]),
                };
            }
        });
        if let Some(upper) = inverse_upper(all, n) {
            return Ok((upper, damp));
        }
        ensure!(damp < 1e4, "its Hessian has no Cholesky factor, whatever it is damped by");
        damp *= 10.;
    }
}

/// What to say of damping that was not enough.
pub fn damped(took: f64, asked: f64) -> Option<String> {
    (took > asked).then(|| format!("the Hessian is damped by {took} of its mean, not {asked}"))
}

/// Some rows of the matrix, while columns of one block have their turn.
pub struct Turn<'a> {
    /// `[rows, inner]`.
    rows: &'a mut [f32],
    /// `[rows, columns of the block]`.
    lost: &'a mut [f32],
    inner: usize,
    upper: &'a [f32],
    /// The columns whose turn it is.
    pub block: Range<usize>,
}

impl Turn<'_> {
    /// How many rows.
    pub fn count(&self) -> usize {
        self.rows.len() / self.inner
    }

    /// A row as it stands.
    pub fn row(&self, r: usize) -> &[f32] {
        &self.rows[r * self.inner..][..self.inner]
    }

    /// What a loss at a column weighs: `U_jj`.
    pub fn weighs(&self, j: usize) -> f32 {
        self.upper[j * self.inner + j]
    }

    /// Settles one value of a row; later columns of the block answer for what it lost.
    pub fn settle(&mut self, r: usize, j: usize, value: f32) {
        let u = &self.upper[j * self.inner + j..j * self.inner + self.block.end];
        let row = &mut self.rows[r * self.inner..][..self.inner];
        let e = (row[j] - value) / u[0];
        row[j] = value;
        self.lost[r * self.block.len() + j - self.block.start] = e;
        vectorized(
            #[inline(always)]
            || row[j + 1..self.block.end].iter_mut().zip(&u[1..]).for_each(|(w, u)| *w -= e * u),
        );
    }
}

/// Gives every column before `open` its turn, `tall` rows at a time with a state of their own; columns from `open` on take what
/// the others lost and are not settled. `turn` is told the number of the first of its rows.
pub fn sweep<S: Send>(
    w: &mut [f32],
    inner: usize,
    upper: &[f32],
    open: usize,
    tall: usize,
    states: &mut [S],
    turn: impl Fn(usize, Turn, &mut S) + Sync,
) -> Result<()> {
    let out = w.len() / inner.max(1);
    for start in (0..open).step_by(BLOCK) {
        let block = start..(start + BLOCK).min(open);
        let mut lost = vec![0f32; out * block.len()];
        let each = w.par_chunks_mut(tall * inner).zip(lost.par_chunks_mut(tall * block.len()));
        each.zip(states.par_iter_mut()).enumerate().for_each(|(i, ((rows, lost), state))| {
            turn(i * tall, Turn { rows, lost, inner, upper, block: block.clone() }, state);
        });
        if block.end < inner {
            catch_up(w, lost, (out, inner), upper, block)?;
        }
    }
    Ok(())
}

/// Takes from the columns after a block what its columns lost.
fn catch_up(
    w: &mut [f32],
    lost: Vec<f32>,
    (out, inner): (usize, usize),
    upper: &[f32],
    block: Range<usize>,
) -> Result<()> {
    let (count, rest) = (block.len(), inner - block.end);
    let mut turned = vec![0f32; rest * count];
    turned.par_chunks_mut(count).enumerate().for_each(|(k, row)| {
        for (x, j) in row.iter_mut().zip(block.clone()) {
            *x = upper[j * inner + block.end + k];
        }
    });
    let turned = Weight::from(Tensor::from_vec(turned, (rest, count), &Device::Cpu)?).laid()?;
    let owed = linear(&Tensor::from_vec(lost, (out, count), &Device::Cpu)?, &turned, None)?;
    rows::with(&owed, |owed| {
        w.par_chunks_mut(inner).zip(owed.par_chunks(rest)).for_each(|(row, owed)| {
            row[block.end..].iter_mut().zip(owed).for_each(|(w, o)| *w -= o);
        });
    })?;
    Ok(())
}

/// The order of columns by what their inputs weigh, greatest first.
pub fn by_power(h: &[f32], n: usize, dead: Dead) -> Vec<usize> {
    let power = |i: usize| match h[i * n + i] {
        0. if dead == Dead::Counted => 1.,
        power => power,
    };
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| power(b).total_cmp(&power(a)));
    order
}

/// Columns in another order.
pub fn turned(w: &[f32], inner: usize, order: &[usize]) -> Vec<f32> {
    let mut all = vec![0f32; w.len()];
    all.par_chunks_mut(inner.max(1)).zip(w.par_chunks(inner.max(1))).for_each(|(to, from)| {
        to.iter_mut().zip(order).for_each(|(x, &i)| *x = from[i]);
    });
    all
}

/// Columns back in their own order.
pub fn returned(w: &[f32], inner: usize, order: &[usize]) -> Vec<f32> {
    let mut back = vec![0; inner];
    order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
    turned(w, inner, &back)
}
