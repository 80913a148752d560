//! QLLM's channel reassembly (Liu et al., 2024): outlier channels are cut into several, and as many similar ones become one, so that
//! a linear's width stays.
//!
//! ```text
//! cut     x_j -> x_j / n, n times, n = ceil(max|x_j| / t); W_j n times                              (eq. 3)
//! join    x_i, x_j -> (x_i + x_j) / 2, W_i + W_j      of the least ((sum W_i + sum W_j) |x_i - x_j|)^2, i even, j odd   (eq. 4)
//! t       of 100 steps or more from max|x| down, while cuts are at most `ratio` of all channels: the least change of outputs, both
//!         sides rounded                                                                             (eq. 5)
//! ```
//! For what norms feed and for the feed-forward's last linear, as the authors' `cr_module.py`: a threshold is tried with channels
//! joined before others are cut, and kept with channels cut before others are joined. Joining changes the function. The authors'
//! low-rank correction of what is left is a rounder's: see `correct`.
use super::{
    Transform, no_groups,
    smoothquant::distance,
    trial::{STEPS, Trial},
};
use crate::{
    mistake,
    model::{
        block::Block,
        params::Slot,
        seam::InputMap,
        site::{Expert, Role},
        spec::{DecoderSpec, Feeder},
    },
    quant::{Described, Entry, apply::At, calibrate::Seen, weight::Needs},
    tensor::{matmul::Weight, rows},
};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "qllm",
    about: "prepare: outlier channels cut into several, similar ones joined (QLLM, Liu et al., 2024); ratio = 0.1",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Qllm {
    /// How many channels may be added by cutting, of all.
    #[serde(default = "ratio")]
    pub ratio: f64,
}

fn ratio() -> f64 {
    0.1
}

impl Default for Qllm {
    fn default() -> Self {
        Self { ratio: ratio() }
    }
}

/// Linears of one input, and the norm that feeds them, if one does.
type Place = (Option<Slot>, Vec<(Option<Expert>, Role)>);

impl Transform for Qllm {
    fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        no_groups(spec, true).map(|why| format!("qllm: {why}"))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, ..Needs::NOTHING }
    }

    fn block(&self, _: &mut Block, _: &At) -> Result<()> {
        Ok(())
    }

    fn cuts(&self) -> bool {
        true
    }

    fn cut(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = at.watch(block, self.needs())?;
        let whole = block.clone();
        for (slot, linears) in places(&whole) {
            let trial = Trial { at, slot, linears: &linears };
            let first = linears.first().and_then(|key| whole.linears.get(key)).context("a group's linear")?;
            let turned = linears.iter().any(|key| whole.linears.get(key).is_some_and(|l| l.turn.is_some()));
            let Some(seen) = seen.get(&first.site).filter(|_| !turned && trial.rounds(&whole)) else {
                continue;
            };
            let Some(parts) = (Search { trial, seen, block: &whole, ratio: self.ratio }).best()? else {
                continue;
            };
            let turn = Arc::new(Reassembled(parts));
            for key in &linears {
                let linear = block.linears.get_mut(key).context("a group's linear")?;
                linear.weight = Weight::from(turn.columns(&linear.weight.rows()?)?).laid()?;
                linear.turn = Some(turn.clone());
            }
        }
        Ok(())
    }

    fn tries(&self) -> bool {
        true
    }

    fn check(&self) -> Result<()> {
        if !(self.ratio > 0. && self.ratio <= 0.5) {
            mistake!("qllm: `ratio` is {}; it is above 0 and at most 0.5", self.ratio);
        }
        Ok(())
    }
}

/// What norms feed, and what enters the feed-forward's last linear; experts see few tokens, and keep their channels.
fn places(block: &Block) -> Vec<Place> {
    let mut all: Vec<Place> = Vec::new();
    for group in block.spec.scale_groups() {
        if let Feeder::Norm(slot) = group.feeder
            && group.linears.iter().all(|(expert, _)| expert.is_none())
        {
            all.push((Some(slot), group.linears));
        }
    }
    if block.linears.contains_key(&(None, Role::Down)) {
        all.push((None, vec![(None, Role::Down)]));
    }
    all
}

/// New channels, each of old ones, each of these with its share.
type Parts = Vec<Vec<(usize, f32)>>;

/// What becomes of an input's channels: sums by shares; and of weights, whose columns are added.
struct Reassembled(Parts);

impl Reassembled {
    /// A matrix `[out, in]`.
    fn columns(&self, w: &Tensor) -> Result<Tensor> {
        let cpu = w.to_device(&Device::Cpu)?.contiguous()?;
        let new = rows::map(&cpu, "reassemble", |_, w, out| {
            for (o, parts) in out.iter_mut().zip(&self.0) {
                *o = parts.iter().map(|&(j, _)| w[j]).sum();
            }
        })?;
        Ok(new.to_device(w.device())?)
    }
}

impl InputMap for Reassembled {
    fn map(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let new = rows::map(&cpu, "reassemble", |_, x, out| {
            for (o, parts) in out.iter_mut().zip(&self.0) {
                *o = parts.iter().map(|&(j, share)| share * x[j]).sum();
            }
        })?;
        new.to_device(x.device())
    }
}

/// One input's threshold.
struct Search<'a> {
    trial: Trial<'a>,
    seen: &'a Seen,
    block: &'a Block,
    ratio: f64,
}

impl Search<'_> {
    /// What channels become under the best threshold; `None` where none cuts any.
    fn best(&self) -> Result<Option<Parts>> {
        let most = self.seen.abs_max();
        let channels = most.len();
        let x = self.seen.inputs.first().context("calibration inputs")?.to_device(self.trial.at.device())?;
        let (columns, sums) = (columns(&x)?, self.sums()?);
        let scores = Scores::of(&columns, &sums);
        let want = self.trial.outputs(self.block, &x)?;
        let (high, low) = most.iter().fold((0f32, f32::INFINITY), |(h, l), &m| (h.max(m), l.min(m)));
        let (high, low) = (f64::from(high), f64::from(low));
        ensure!(most.iter().all(|m| m.is_finite()), "qllm: calibration inputs are not finite");
        let steps = ((high / 0.5) as usize).clamp(100, STEPS);
        let step = (high - low) / steps as f64;
        let (mut best, mut before) = ((f64::INFINITY, None), 0);
        let mut threshold = high;
        for _ in 0..steps {
            let cuts = cuts(&most, threshold as f32);
            let added = cuts.iter().sum::<usize>() - channels;
            if threshold < low || added > (self.ratio * channels as f64) as usize {
                break;
            }
            if added != before {
                let Some(joined) = scores.least(added, |j| cuts[j] > 1) else { break };
                let parts = joined_then_cut(&cuts, &joined);
                let loss = self.loss(&x, &want, parts)?;
                if loss < best.0 {
                    best = (loss, Some(threshold));
                }
                before = added;
            }
            threshold -= step;
        }
        let Some(threshold) = best.1 else { return Ok(None) };
        let cuts = cuts(&most, threshold as f32);
        // Channels after cutting: which they were, and their share.
        let whole: Vec<(usize, f32)> =
            cuts.iter().enumerate().flat_map(|(j, &n)| vec![(j, 1. / n as f32); n]).collect();
        let cut: Vec<Vec<f32>> =
            whole.iter().map(|&(j, share)| columns[j].iter().map(|x| share * x).collect()).collect();
        let of_cut: Vec<f32> = whole.iter().map(|&(j, _)| sums[j]).collect();
        let joined = Scores::of(&cut, &of_cut).least(whole.len() - channels, |k| whole[k].1 != 1.);
        Ok(joined.map(|joined| join(whole.len(), &joined, |k| whole[k])))
    }

    /// Sums of each input's weights, over all outputs of all linears.
    fn sums(&self) -> Result<Vec<f32>> {
        let mut all: Vec<f32> = Vec::new();
        for key in self.trial.linears {
            let w = self.block.linears.get(key).context("a group's linear")?.weight.rows()?;
            let own = w.sum(0)?.to_device(&Device::Cpu)?.to_vec1::<f32>()?;
            all.resize(own.len(), 0.);
            all.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
        }
        Ok(all)
    }

    fn loss(&self, x: &Tensor, want: &[Tensor], parts: Parts) -> Result<f64> {
        let turn = Reassembled(parts);
        let mut rounded = self.block.clone();
        self.trial.round(&mut rounded, |w| turn.columns(w))?;
        let got = self.trial.outputs(&rounded, &self.trial.entered(&turn.map(x)?)?)?;
        want.iter().zip(&got).map(|(want, got)| distance(want, got)).sum()
    }
}

/// How often each channel is cut.
fn cuts(most: &[f32], threshold: f32) -> Vec<usize> {
    most.iter().map(|m| (m / threshold).ceil().max(1.) as usize).collect()
}

/// Each channel's values, over all tokens.
fn columns(x: &Tensor) -> Result<Vec<Vec<f32>>> {
    Ok(x.to_device(&Device::Cpu)?.t()?.contiguous()?.to_vec2::<f32>()?)
}

/// What joining an even channel with an odd one loses.
struct Scores {
    each: Vec<Vec<f32>>,
}

impl Scores {
    fn of(columns: &[Vec<f32>], sums: &[f32]) -> Self {
        let odd = columns.len() / 2;
        let row = |i: usize| -> Vec<f32> {
            // Of an odd number of channels the last has no weight of its own in the authors' code.
            let own = if i < odd { sums[2 * i] } else { 0. };
            let off = |j: usize| {
                let pairs = columns[2 * i].iter().zip(&columns[2 * j + 1]);
                pairs.map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt() as f32
            };
            (0..odd).map(|j| ((own + sums[2 * j + 1]) * off(j)).powi(2)).collect()
        };
        Self { each: (0..columns.len().div_ceil(2)).into_par_iter().map(row).collect() }
    }

    /// So many even channels, each with its odd one, that lose least; those that are fixed stay out of it. `None` where too few are
    /// left.
    fn least(&self, count: usize, fixed: impl Fn(usize) -> bool) -> Option<Vec<(usize, usize)>> {
        let of =
            |i: usize, j: usize| if fixed(2 * i) || fixed(2 * j + 1) { f32::MAX } else { self.each[i][j] };
        let mut edges: Vec<(f32, usize, usize)> = (0..self.each.len())
            .filter_map(|i| {
                let best = (0..self.each[i].len()).min_by(|&a, &b| of(i, a).total_cmp(&of(i, b)))?;
                Some((of(i, best), 2 * i, 2 * best + 1)).filter(|edge| edge.0 < f32::MAX)
            })
            .collect();
        edges.sort_by(|a, b| a.0.total_cmp(&b.0));
        (edges.len() >= count).then(|| edges.into_iter().take(count).map(|(_, i, j)| (i, j)).collect())
    }
}

/// Channels with some joined to others, in their order: means of what each was.
fn join(count: usize, joined: &[(usize, usize)], was: impl Fn(usize) -> (usize, f32)) -> Parts {
    let mut all: Vec<Vec<usize>> = (0..count).map(|k| vec![k]).collect();
    for &(from, to) in joined {
        all[from].clear();
        all[to].push(from);
    }
    let mean = |of: Vec<usize>| -> Vec<(usize, f32)> {
        let share = 1. / of.len() as f32;
        of.into_iter().map(|k| (was(k).0, was(k).1 * share)).collect()
    };
    all.into_iter().filter(|of| !of.is_empty()).map(mean).collect()
}

/// The same of channels that are whole, some of which are cut then.
fn joined_then_cut(cuts: &[usize], joined: &[(usize, usize)]) -> Parts {
    let whole = join(cuts.len(), joined, |j| (j, 1.));
    let cut = |parts: Vec<(usize, f32)>| -> Parts {
        // A channel that is cut is joined to none.
        let n = parts.iter().map(|&(j, _)| cuts[j]).max().unwrap_or(1);
        vec![parts.into_iter().map(|(j, share)| (j, share / n as f32)).collect(); n]
    };
    whole.into_iter().flat_map(cut).collect()
}

impl Described for Qllm {
    fn describe(&self) -> Value {
        json!({ "method": "qllm", "ratio": self.ratio })
    }
}
