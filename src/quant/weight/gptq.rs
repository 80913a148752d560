//! GPTQ (Frantar et al., 2023): columns are rounded one after another, and what a column lost is made good by those that
//! are not rounded yet, as the inputs' second moments say how.
//!
//! ```text
//! H = 2/n sum x x^T + damp * mean(diag H) I          U^T U = H^-1, U upper triangular
//! for each column j:  e = (w_j - snap(w_j)) / U_jj          w_k -= e U_jk  for k > j              (paper: algorithm 1)
//! ```
//! [`columns`](crate::quant::columns) does the sweep. As in the authors' `gptq.py`, a group is fitted to its columns as they stand when
//! its first column's turn comes, but for what its own block's columns still owe them.
use super::{Given, Needs, Rounded, Rounder};
use crate::{
    mistake,
    model::{site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        columns::{Dead, by_power, damped, factor, returned, sweep, turned},
        grid::{Fit, Grid, Per},
    },
    tensor::rows,
};
use anyhow::Result;
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
        let order = match self.act_order {
            true => by_power(&h, inner, Dead::Counted),
            false => (0..inner).collect(),
        };
        let (rounded, took) = self.columns(w, inner, &h, given, (order, inner))?;
        let note = damped(took, self.damp);
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
    /// The rounded matrix and the damping that it took. Columns are in this order, and those from `open` on are not rounded
    /// (OWQ).
    pub(super) fn columns(
        &self,
        mut w: Vec<f32>,
        inner: usize,
        h: &[f32],
        given: &Given,
        (order, open): (Vec<usize>, usize),
    ) -> Result<(Vec<f32>, f64)> {
        let out = w.len() / inner.max(1);
        let over = given.grid.over(&w, inner, given.precision);
        let groups: Vec<_> = given.grid.groups(inner).collect();
        let fits = match (given.grid.per, self.static_groups) {
            // A row's own range is its full one, with columns that no input ever reaches, without those that are kept.
            (Per::Row | Per::Tensor, _) => {
                let fit = |(o, row): (usize, &[f32])| match open == inner {
                    true => over.fit(row, o),
                    false => over.fit(&order[..open].iter().map(|&j| row[j]).collect::<Vec<_>>(), o),
                };
                Fits::Row(w.par_chunks(inner).enumerate().map(fit).collect())
            }
            _ => Fits::AsTheyCome,
        };
        let dead: Vec<bool> = (0..inner).map(|i| h[i * inner + i] == 0.).collect();
        for row in w.chunks_mut(inner) {
            row.iter_mut().zip(&dead).filter(|(_, dead)| **dead).for_each(|(w, _)| *w = 0.);
        }
        let fits = match (fits, self.static_groups) {
            (Fits::AsTheyCome, true) => {
                let each = |(o, row): (usize, &[f32])| {
                    let fit = |(g, group): (usize, &Range<usize>)| {
                        over.fit(&row[group.clone()], o * groups.len() + g)
                    };
                    groups.iter().enumerate().map(fit).collect::<Vec<_>>()
                };
                Fits::Group(w.par_chunks(inner).enumerate().flat_map_iter(each).collect())
            }
            (fits, _) => fits,
        };
        let (upper, damp) = factor(h, &order, self.damp, Dead::Counted)?;
        let mut w = turned(&w, inner, &order);
        let size = given.grid.group;
        let mut states: Vec<Option<Fit>> = vec![None; out];
        sweep(&mut w, inner, &upper, open, 1, &mut states, |o, mut turn, state| {
            // Groups that begin in this block are fitted as its first column finds them.
            let begins = turn.block.clone().filter(|j| j % size == 0);
            let new: Vec<(usize, Fit)> = match fits {
                Fits::AsTheyCome => begins
                    .map(|j| {
                        let group = &turn.row(0)[j..(j + size).min(open)];
                        (j, over.fit(group, o * groups.len() + j / size))
                    })
                    .collect(),
                _ => Vec::new(),
            };
            let mut next = new.iter().peekable();
            for j in turn.block.clone() {
                if let Some((_, fit)) = next.next_if(|(start, _)| *start == j) {
                    *state = Some(*fit);
                }
                let fit = match &fits {
                    Fits::Row(all) => all.get(o).copied(),
                    Fits::Group(all) => all.get(o * groups.len() + order[j] / size).copied(),
                    Fits::AsTheyCome => *state,
                };
                if let Some(fit) = fit {
                    turn.settle(0, j, fit.one(turn.row(0)[j]));
                }
            }
        })?;
        Ok((returned(&w, inner, &order), damp))
    }
}

/// Which fit a value has.
enum Fits {
    /// Its row's.
    Row(Vec<Fit>),
    /// Its group's, groups fitted before any column is rounded.
    Group(Vec<Fit>),
    /// Its group's, fitted when its turn comes.
    AsTheyCome,
}

impl Described for Gptq {
    fn describe(&self) -> Value {
        json!({
            "method": "gptq", "damp": self.damp, "act_order": self.act_order, "static_groups": self.static_groups,
            "sequential": self.sequential,
        })
    }
}
