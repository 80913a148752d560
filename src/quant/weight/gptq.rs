//! GPTQ (Frantar et al., 2023): columns are rounded one after another, and what a column lost is made good by those that
//! are not rounded yet, as the inputs' second moments say how.
//!
//! ```text
//! H = 2/n sum x x^T + damp * mean(diag H) I          U^T U = H^-1, U upper triangular
//! for each column j:  e = (w_j - snap(w_j)) / U_jj          w_k -= e U_jk  for k > j              (paper: algorithm 1)
//! ```
//! Rows do not touch each other, so they run in parallel; columns after a block of 128 are caught up by one product. As in
//! the authors' `gptq.py`, a group is fitted to its columns as they stand when its first column's turn comes, but for what
//! its own block's columns still owe them.
use super::{Given, Needs, Rounded, Rounder};
use crate::{
    float::vectorized,
    mistake,
    model::{site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        grid::{Fit, Grid, Per},
    },
    tensor::{
        linalg::inverse_upper,
        matmul::{Weight, linear},
        rows,
    },
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::ops::Range;

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "gptq",
    about: "a column after another, its loss made good by the others (Frantar et al., 2023); damp, act_order, \
            static_groups, sequential",
};

/// Columns between two products.
const BLOCK: usize = 128;

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gptq {
    /// Added to the Hessian's diagonal, as a share of its mean.
    #[serde(default = "damp")]
    pub damp: f64,
    /// Columns in the order of their inputs' power, greatest first.
    #[serde(default)]
    pub act_order: bool,
    /// Groups are fitted before any column is rounded, and are of neighbours whatever the order.
    #[serde(default)]
    pub static_groups: bool,
    /// Linears of a block in the order of a pass, each seeing what the ones before it have become (`--true-sequential`).
    #[serde(default)]
    pub sequential: bool,
}

fn damp() -> f64 {
    0.01
}

impl Default for Gptq {
    fn default() -> Self {
        Self { damp: damp(), act_order: false, static_groups: false, sequential: false }
    }
}

impl Rounder for Gptq {
    fn needs(&self) -> Needs {
        Needs { hessian: true, ..Needs::NOTHING }
    }

    fn in_stages(&self) -> bool {
        self.sequential
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Some(hessian) = &given.seen.hessian else {
            let weight = given.grid.round(weight, given.precision)?;
            let note = Some("no calibration token came by: rounded to nearest".into());
            return Ok(Rounded { weight, bits: None, note });
        };
        let (out, inner) = weight.dims2()?;
        let h: Vec<f32> = hessian.to_device(&Device::Cpu)?.flatten_all()?.to_vec1()?;
        let w = weight.to_device(&Device::Cpu)?.contiguous()?;
        let w = rows::with(&w, <[f32]>::to_vec)?;
        let (rounded, damp) = self.columns(w, (out, inner), &h, given)?;
        let note = (damp > self.damp)
            .then(|| format!("the Hessian is damped by {damp} of its mean, not {}", self.damp));
        let weight = Tensor::from_vec(rounded, (out, inner), &Device::Cpu)?.to_device(weight.device())?;
        Ok(Rounded { weight, bits: None, note })
    }

    /// With columns out of order, each says which group is its own.
    fn bits(&self, grid: &Grid, (out, inner): (usize, usize), _: (Site, &DecoderSpec)) -> f64 {
        let groups = grid.groups(inner).count();
        let named = self.act_order && !self.static_groups && grid.per == Per::Group && groups > 1;
        let index = if named { inner as f64 * (groups as f64).log2().ceil() } else { 0. };
        grid.bits((out, inner)) + index
    }

    fn check(&self, _: &Grid) -> Result<()> {
        if !(self.damp > 0. && self.damp <= 1.) {
            mistake!("`damp` is {}: it is a share of the Hessian's mean, above 0 and at most 1", self.damp);
        }
        Ok(())
    }
}

impl Gptq {
    /// The rounded matrix and the damping that it took.
    fn columns(
        &self,
        mut w: Vec<f32>,
        (out, inner): (usize, usize),
        h: &[f32],
        given: &Given,
    ) -> Result<(Vec<f32>, f64)> {
        ensure!(h.iter().all(|x| x.is_finite()), "its calibration inputs are not finite");
        let over = given.grid.over(&w, inner, given.precision);
        let whole = given.grid.per != Per::Group;
        let groups: Vec<_> = given.grid.groups(inner).collect();
        // A row's own range is its full one, with columns that no input ever reaches.
        let by_row: Vec<Fit> = if whole {
            w.par_chunks(inner).enumerate().map(|(o, row)| over.fit(row, o)).collect()
        } else {
            Vec::new()
        };
        let dead: Vec<bool> = (0..inner).map(|i| h[i * inner + i] == 0.).collect();
        for row in w.chunks_mut(inner) {
            row.iter_mut().zip(&dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.);
        }
        let fixed: Vec<Fit> = match whole || !self.static_groups {
            true => Vec::new(),
            false => {
                let each = |(o, row): (usize, &[f32])| {
                    let fit = |(g, group): (usize, &Range<usize>)| {
                        over.fit(&row[group.clone()], o * groups.len() + g)
                    };
                    groups.iter().enumerate().map(fit).collect::<Vec<_>>()
                };
                w.par_chunks(inner).enumerate().flat_map_iter(each).collect()
            }
        };
        let order = self.order(h, &dead);
        let (upper, damp) = self.factor(h, &dead, &order)?;
        let mut w = turned(&w, inner, &order);
        let mut fits: Vec<Fit> = by_row;
        for start in (0..inner).step_by(BLOCK) {
            let end = (start + BLOCK).min(inner);
            let count = end - start;
            // Fits of the groups that begin in this block, a row after another; what a group that began before has.
            let begins: Vec<usize> = if whole || self.static_groups {
                Vec::new()
            } else {
                groups.iter().map(|g| g.start).filter(|s| (start..end).contains(s)).collect()
            };
            let sizes: Vec<usize> = begins.iter().map(|s| groups[s / given.grid.group].len()).collect();
            let mut lost = vec![0f32; out * count];
            let each = |(o, (row, lost)): (usize, (&mut [f32], &mut [f32]))| -> Option<Fit> {
                let new: Vec<Fit> = begins
                    .iter()
                    .zip(&sizes)
                    .map(|(&s, &n)| over.fit(&row[s..s + n], o * groups.len() + s / given.grid.group))
                    .collect();
                let before = fits.get(o).copied();
                let last = new.last().copied().or(before);
                let fit = |j: usize| -> Option<Fit> {
                    if whole {
                        return before;
                    }
                    if self.static_groups {
                        return fixed.get(o * groups.len() + order[j] / given.grid.group).copied();
                    }
                    match begins.partition_point(|&s| s <= j) {
                        0 => before,
                        n => new.get(n - 1).copied(),
                    }
                };
                for (i, lost) in lost.iter_mut().enumerate() {
                    let j = start + i;
                    let Some(fit) = fit(j) else { continue };
                    let u = &upper[j * inner + j..j * inner + end];
                    let q = fit.one(row[j]);
                    let e = (row[j] - q) / u[0];
                    row[j] = q;
                    *lost = e;
                    vectorized(
                        #[inline(always)]
                        || row[j + 1..end].iter_mut().zip(&u[1..]).for_each(|(w, u)| *w -= e * u),
                    );
                }
                last
            };
            let ends: Vec<Option<Fit>> =
                w.par_chunks_mut(inner).zip(lost.par_chunks_mut(count)).enumerate().map(each).collect();
            if !whole && !self.static_groups {
                fits = ends.into_iter().flatten().collect();
            }
            if end < inner {
                self.catch_up(&mut w, lost, (out, inner), &upper, start..end)?;
            }
        }
        let mut back = vec![0; inner];
        order.iter().enumerate().for_each(|(to, &from)| back[from] = to);
        Ok((turned(&w, inner, &back), damp))
    }

    /// Columns in the order of their turn.
    fn order(&self, h: &[f32], dead: &[bool]) -> Vec<usize> {
        let mut order: Vec<usize> = (0..dead.len()).collect();
        if self.act_order {
            let power = |i: usize| if dead[i] { 1. } else { h[i * dead.len() + i] };
            order.sort_by(|&a, &b| power(b).total_cmp(&power(a)));
        }
        order
    }

    /// The factor of the damped inverse, columns in order; more damping until there is one.
    fn factor(&self, h: &[f32], dead: &[bool], order: &[usize]) -> Result<(Vec<f32>, f64)> {
        let n = dead.len();
        let power = |i: usize| if dead[i] { 1. } else { f64::from(h[i * n + i]) };
        let mean = (0..n).map(power).sum::<f64>() / n.max(1) as f64;
        let mut damp = self.damp;
        loop {
            let mut all = vec![0f64; n * n];
            all.par_chunks_mut(n).zip(order).for_each(|(row, &i)| {
                for (x, &j) in row.iter_mut().zip(order) {
                    *x = if i == j { power(i) + damp * mean } else { f64::from(h[i * n + j]) };
                }
            });
            if let Some(upper) = inverse_upper(all, n) {
                return Ok((upper, damp));
            }
            ensure!(damp < 1e4, "its Hessian has no Cholesky factor, whatever it is damped by");
            damp *= 10.;
        }
    }

    /// Takes from the columns after a block what its columns lost.
    fn catch_up(
        &self,
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
}

/// Columns in another order.
fn turned(w: &[f32], inner: usize, order: &[usize]) -> Vec<f32> {
    let mut all = vec![0f32; w.len()];
    all.par_chunks_mut(inner.max(1)).zip(w.par_chunks(inner.max(1))).for_each(|(to, from)| {
        to.iter_mut().zip(order).for_each(|(x, &i)| *x = from[i]);
    });
    all
}

impl Described for Gptq {
    fn describe(&self) -> Value {
        json!({
            "method": "gptq", "damp": self.damp, "act_order": self.act_order, "static_groups": self.static_groups,
            "sequential": self.sequential,
        })
    }
}
