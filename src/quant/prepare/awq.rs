//! AWQ (Lin et al., 2024): input channels that matter are scaled up before their weights are rounded, and each group of
//! weights is clipped where that helps.
//!
//! ```text
//! s = mean|X|^r, made so that max(s) min(s) = 1        r of 0, 1/20 .. 19/20 with the least loss     (eq. 4, 5)
//! loss = mean (f(X; W) - f(X; round(W diag(s)) diag(s)^-1))^2        f: attention or feed-forward; of one linear, itself
//! ```
//! Then, but for queries and keys, each group's range is cut to `1 - i/20` of its largest magnitude, `i < 10`, where the
//! group's own share of the outputs changes least. As the authors' `auto_scale.py` and `auto_clip.py`: all scales are
//! searched in the block as it was; what a GELU feeds is divided as it comes. `round` is to nearest, whatever rounds in the end. What
//! a rotation turns as it comes has no scale of its own.
use super::{
    Transform, fold, no_groups, of_group,
    smoothquant::{distance, squares},
};
use crate::{
    model::{
        block::Block,
        site::Role,
        spec::{DecoderSpec, Feeder, ScaleGroup},
    },
    quant::{
        Described, Entry,
        apply::At,
        calibrate::Seen,
        grid::Per,
        weight::{Needs, Weights},
    },
    tensor::{
        matmul::{Weight, linear},
        rows,
    },
};
use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "awq",
    about: "prepare: scales for channels that matter, and clipping, both searched (Lin et al., 2024); scale, clip",
};

/// Points of both searches.
const GRID: usize = 20;
/// Tokens that clipping looks at, about.
const TOKENS: usize = 512;

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Awq {
    /// Search scales.
    #[serde(default = "yes")]
    pub scale: bool,
    /// Search where to clip.
    #[serde(default = "yes")]
    pub clip: bool,
}

fn yes() -> bool {
    true
}

impl Default for Awq {
    fn default() -> Self {
        Self { scale: true, clip: true }
    }
}

impl Transform for Awq {
    fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        no_groups(spec, false).map(|why| format!("awq: {why}"))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, ..Needs::NOTHING }
    }

    fn block(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = at.watch(block, self.needs())?;
        let groups = block.spec.scale_groups();
        let mut found: Vec<(&ScaleGroup, Vec<f32>)> = Vec::new();
        for group in groups.iter().filter(|_| self.scale) {
            // The authors leave a value's scale alone where several queries read it.
            let several = matches!(group.feeder, Feeder::Linear { repeat, .. } if repeat > 1);
            let fixed = several || fold::is_turned(block, group);
            if let (false, Some(seen)) = (fixed, of_group(block, group, &seen))
                && let Some(s) = search(block, group, seen, at)?
            {
                found.push((group, s));
            }
        }
        for (group, s) in &found {
            fold::scale(block, group, s)?;
        }
        Ok(())
    }

    fn cut(&self, block: &mut Block, at: &At) -> Result<()> {
        let seen = at.watch(block, self.needs())?;
        let linears: Vec<_> = block.linears.keys().copied().collect();
        for key in linears.into_iter().filter(|(_, role)| !matches!(role, Role::Q | Role::K)) {
            let site = block.linears[&key].site;
            let (Some(weights), Some(seen)) = (at.weights(site), seen.get(&site)) else { continue };
            let x = seen.every(seen.tokens / TOKENS)?;
            if let Some(linear) = block.linears.get_mut(&key) {
                linear.weight = clipped(&linear.weight, &x, weights, at)?;
            }
        }
        Ok(())
    }

    fn cuts(&self) -> bool {
        self.clip
    }

    fn tries(&self) -> bool {
        true
    }
}

/// The scales of a group with the least loss; `None` where none of its linears is rounded.
fn search(block: &Block, group: &ScaleGroup, seen: &Seen, at: &At) -> Result<Option<Vec<f32>>> {
    let linears: Vec<_> =
        group.linears.iter().filter_map(|key| Some((*key, block.linears.get(key)?))).collect();
    if !linears.iter().any(|(_, l)| at.weights(l.site).is_some()) {
        return Ok(None);
    }
    let mean = seen.abs_mean();
    let run = |block: &Block| -> Result<Vec<Tensor>> {
        match group.feeder {
            Feeder::Norm(slot) if group.linears.len() > 1 => {
                let each = at.bench()?.batches().iter().zip(&seen.inputs);
                each.map(|(batch, x)| at.runner.branch(block, slot, &x.to_device(at.device())?, batch, None))
                    .collect()
            }
            _ => {
                let own = group
                    .linears
                    .first()
                    .and_then(|key| block.linears.get(key))
                    .context("a group's linear")?;
                let run =
                    |x: &Tensor| Ok(linear(&x.to_device(at.device())?, &own.weight, own.bias.as_ref())?);
                seen.inputs.iter().map(run).collect()
            }
        }
    };
    let want = run(block)?;
    let mut best: (f64, Option<Vec<f32>>) = (f64::INFINITY, None);
    for step in 0..GRID {
        let s = scales(&mean, step as f32 / GRID as f32);
        let mut trial = block.clone();
        for (key, own) in &linears {
            let Some(method) = at.weights(own.site) else { continue };
            let by = Tensor::new(s.as_slice(), &Device::Cpu)?.to_device(at.device())?;
            let scaled = own.weight.rows()?.broadcast_mul(&by)?;
            let rounded = method.grid.round(&scaled, at.recipe.precision)?.broadcast_div(&by)?;
            if let Some(linear) = trial.linears.get_mut(key) {
                linear.weight = Weight::from(rounded).laid()?;
            }
        }
        let mut loss = 0.;
        for (want, got) in want.iter().zip(run(&trial)?) {
            loss += distance(want, &got)?;
        }
        if loss < best.0 {
            best = (loss, Some(s));
        }
    }
    Ok(best.1)
}

/// One candidate: at least 1e-4, then so that the largest times the smallest is 1.
pub fn scales(mean: &[f32], ratio: f32) -> Vec<f32> {
    let all: Vec<f32> = mean.iter().map(|m| m.powf(ratio).max(1e-4)).collect();
    let (low, high) = all.iter().fold((f32::INFINITY, 0f32), |(l, h), &s| (l.min(s), h.max(s)));
    let middle = (high * low).sqrt();
    all.into_iter().map(|s| s / middle).collect()
}

/// A weight with each group's values held to the range that loses least. `x [tokens, in]`.
fn clipped(weight: &Weight, x: &Tensor, method: &Weights, at: &At) -> Result<Weight> {
    let full = weight.rows()?.to_device(&Device::Cpu)?.contiguous()?;
    let (out, inner) = full.dims2()?;
    ensure!(method.grid.per != Per::Tensor, "one range for the whole matrix has no group of its own to cut");
    let w = rows::with(&full, <[f32]>::to_vec)?;
    let over = method.grid.over(&w, inner, at.recipe.precision);
    let mut all = w.clone();
    let count = method.grid.groups(inner).count();
    for (g, group) in method.grid.groups(inner).enumerate() {
        let (start, len) = (group.start, group.len());
        let x = x.narrow(1, start, len)?.contiguous()?;
        // Errors `d` change the outputs by `x d`: with few inputs the moments of `x` say how much.
        let moments = len < x.dim(0)?;
        let against = match moments {
            true => {
                let turned = x.t()?.contiguous()?;
                linear(&turned, &Weight::from(turned.clone()).laid()?, None)?
            }
            false => x,
        };
        let against = Weight::from(against).laid()?;
        let most: Vec<f32> = w
            .par_chunks(inner)
            .map(|row| row[group.clone()].iter().fold(0f32, |m, w| m.max(w.abs())))
            .collect();
        let mut best: Vec<(f64, f32)> = most.iter().map(|&m| (1e9, m)).collect();
        for i in 0..GRID / 2 {
            let keep = 1. - i as f32 / GRID as f32;
            let mut lost = vec![0f32; out * len];
            lost.par_chunks_mut(len).zip(w.par_chunks(inner)).zip(&most).enumerate().for_each(
                |(o, ((lost, row), &most))| {
                    let (own, limit) = (&row[group.clone()], most * keep);
                    let cut: Vec<f32> = own.iter().map(|w| w.clamp(-limit, limit)).collect();
                    over.fit(&cut, o * count + g).snap(&cut, lost);
                    lost.iter_mut().zip(own).for_each(|(q, w)| *q -= w);
                },
            );
            let lost = Tensor::from_vec(lost, (out, len), &Device::Cpu)?;
            let changed = linear(&lost, &against, None)?;
            let width = changed.dim(1)?;
            rows::with(&lost, |lost| {
                rows::with(&changed, |changed| {
                    best.par_iter_mut().enumerate().for_each(|(o, best)| {
                        let changed = &changed[o * width..][..width];
                        let error = match moments {
                            true => changed.iter().zip(&lost[o * len..]).map(|(a, b)| f64::from(a * b)).sum(),
                            false => squares(changed, &vec![0.; width]),
                        };
                        if error < best.0 {
                            *best = (error, most[o] * keep);
                        }
                    });
                })
            })??;
        }
        all.par_chunks_mut(inner).zip(&best).for_each(|(row, (_, limit))| {
            row[group.clone()].iter_mut().for_each(|w| *w = w.clamp(-limit, *limit));
        });
    }
    Ok(Weight::from(Tensor::from_vec(all, (out, inner), &Device::Cpu)?.to_device(at.device())?).laid()?)
}

impl Described for Awq {
    fn describe(&self) -> Value {
        json!({ "method": "awq", "scale": self.scale, "clip": self.clip })
    }
}
