//! Rounding that is learned a block at a time: what a block makes of quantized inputs, beside what the full one makes of its own.
//!
//! ```text
//! minimize  mean (block(x_q; rounded weights) - full block(x))^2      over a method's own parameters, by gradients
//! ```
//! A method says what is learned of a matrix ([`Trainee`]) and how ([`Training`]); [`fit`] runs blocks in the decoder's reference
//! form, whose operations have gradients, and [`fake`] has roundings that let them pass. Passes and sums run in one order: no
//! number of threads moves a bit.
pub mod fake;

use super::{
    Described,
    calibrate::{Bench, Inputs},
    grid::{Format, Grid, Zero},
    prepare::{fold, smoothquant},
    weight::{Given, Needs, Rounded, Rounder, Weights},
};
use crate::{
    mistake,
    model::{
        block::{Block, Carried},
        decoder::Decoder,
        ops::Kernels,
        seam::InputMap,
        site::{Expert, Role, Site},
        spec::{Feeder, ScaleGroup},
    },
    random::Random,
    tensor::matmul::Weight,
};
use anyhow::{Context, Result, ensure};
use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use std::{collections::BTreeMap, sync::Arc};

/// What is learned of one matrix.
pub trait Trainee {
    /// Its parameters, each with the number of its rate.
    fn vars(&self) -> Vec<(Var, usize)>;
    /// The rounded matrix, with gradients; `w` is the one to be rounded.
    fn rounded(&self, w: &Tensor) -> Result<Tensor>;
    /// Keeps parameters where they may be, after each step.
    fn hold(&self) -> Result<()> {
        Ok(())
    }
}

/// A method that learns. As a [`Rounder`] it rounds what no block teaches as its parameters begin.
pub trait Learner {
    /// How.
    fn training(&self) -> Training;
    /// What is learned of a matrix.
    fn trainee(&self, w: &Tensor, grid: &Grid) -> Result<Box<dyn Trainee>>;
    /// The convention of its integers, which are asymmetric.
    fn zero(&self) -> Zero;
    /// Refuses settings that cannot be, beside rates and batches.
    fn settings(&self) -> Result<()> {
        Ok(())
    }
}

impl<L: Learner + Described + Send + Sync> Rounder for L {
    fn needs(&self) -> Needs {
        Needs { channels: true, ..Needs::NOTHING }
    }

    fn learner(&self) -> Option<&dyn Learner> {
        Some(self)
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let weight = self.trainee(weight, given.grid)?.rounded(weight)?.detach();
        Ok(Rounded {
            weight,
            bits: None,
            note: Some("nothing was learned: rounded as learning begins".into()),
        })
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        let training = self.training();
        if training.batch == 0 {
            mistake!("`batch` is 0: a step sees a sequence at least");
        }
        for (name, rate) in training.rates {
            if !(rate > 0. && rate <= 1.) {
                mistake!("`{name}` is {rate}: it is above 0 and at most 1");
            }
        }
        self.settings()?;
        match grid.format {
            Format::Int(int) if !int.symmetric && int.zero == self.zero() && !grid.search => Ok(()),
            _ => mistake!("a method that learns has its own convention, of asymmetric integers: say `bits`"),
        }
    }
}

/// How a block is learned.
#[derive(Clone, Debug)]
pub struct Training {
    /// How many steps.
    pub steps: Steps,
    /// Sequences of a step.
    pub batch: usize,
    /// What a step does with a gradient.
    pub by: By,
    /// A rate, and its key, for each number that [`Trainee::vars`] gives; those of equivalent scales are the last.
    pub rates: Vec<(&'static str, f64)>,
    /// How rates fall.
    pub fall: Fall,
    /// Whether the parameters with the least loss are kept, not the last.
    pub best: bool,
    /// Whether scales between norms (and values) and what they feed are learned too, and how they begin.
    pub equivalent: Option<Moves>,
    /// Of the order of sequences, where it is drawn.
    pub seed: u64,
}

/// What moves between norms (and values) and what they feed.
#[derive(Clone, Copy, Debug)]
pub struct Moves {
    /// Scales begin as SmoothQuant's, of the first linear alone: queries', or up's.
    pub alpha: f64,
    /// Whether what enters rounded inputs is shifted too, where norms have shifts of their own.
    pub shifts: bool,
}

/// How many steps there are, and which sequences each sees.
#[derive(Clone, Copy, Debug)]
pub enum Steps {
    /// All sequences in their order, so often.
    Passes(usize),
    /// So many, each of sequences drawn.
    Drawn(usize),
}

/// What a step does with a gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Loshchilov and Hutter, 2019, without decay; torch's defaults.
    AdamW,
    /// A rate's step against the gradient's sign.
    Sign,
}

/// How rates fall over the steps.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fall {
    /// They do not.
    Never,
    /// To nothing.
    Linear,
    /// Along a cosine, to this share.
    Cosine(f64),
}

impl Fall {
    fn at(self, step: usize, of: usize) -> f64 {
        let done = step as f64 / of.max(1) as f64;
        match self {
            Fall::Never => 1.,
            Fall::Linear => 1. - done,
            Fall::Cosine(least) => least + (1. - least) * (1. + (std::f64::consts::PI * done).cos()) / 2.,
        }
    }
}

type Key = (Option<Expert>, Role);

/// One block to be learned.
pub struct Lesson<'a> {
    /// How blocks are run.
    pub runner: &'a Decoder,
    /// What their inputs are.
    pub bench: &'a Bench,
    /// Which inputs the learned block is given.
    pub inputs: Inputs,
    /// Before anything was cut off or rounded.
    pub faithful: &'a Block,
    /// What rounds a linear's input, where something will.
    pub acts: &'a dyn Fn(Site) -> Option<Arc<dyn InputMap>>,
}

/// Lets a gradient pass a map of inputs.
struct Straight(Arc<dyn InputMap>);

impl InputMap for Straight {
    fn map(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let mapped = self.0.map(&x.detach())?;
        x + (mapped - x)?.detach()
    }
}

/// Scales between what feeds some linears and these, and shifts before them.
struct Equivalent {
    group: ScaleGroup,
    scale: Var,
    shift: Option<Var>,
}

impl Equivalent {
    /// As they are used: none so near to zero that dividing by it is no number.
    fn held(&self) -> Result<Tensor> {
        fake::clamp_through(self.scale.as_tensor(), 1e-2, f64::from(f32::MAX))
    }
}

/// Learns what becomes of the `chosen` linears of a block, all by one method, and puts it there.
///
/// # Errors
/// A loss that is not finite.
pub fn fit(
    block: &mut Block,
    learner: &dyn Learner,
    chosen: &[(Key, Site, &Weights)],
    at: &Lesson,
) -> Result<()> {
    let training = learner.training();
    let mut runner = Decoder { blocks: Vec::new(), ..at.runner.clone() };
    runner.mode.kernels = Kernels::Reference;
    let mut exact: BTreeMap<Key, Tensor> = BTreeMap::new();
    let mut own: BTreeMap<Key, Box<dyn Trainee>> = BTreeMap::new();
    // In the reference form weights are rows, so that they may have gradients.
    for (key, linear) in &mut block.linears {
        let rows = linear.weight.rows()?;
        linear.weight = Weight::Rows(rows.clone());
        exact.insert(*key, rows);
    }
    let equivalent = match training.equivalent {
        Some(moves) => equivalents(block, chosen, at, moves)?,
        None => Vec::new(),
    };
    for (key, _, weights) in chosen {
        let w = exact.get(key).context("a linear to be learned")?;
        own.insert(*key, learner.trainee(w, &weights.grid)?);
    }
    let last = training.rates.len().saturating_sub(1);
    let mut vars: Vec<(Var, usize)> = own.values().flat_map(|t| t.vars()).collect();
    vars.extend(
        equivalent.iter().flat_map(|e| [Some(e.scale.clone()), e.shift.clone()]).flatten().map(|v| (v, last)),
    );
    let mut optimizer = Descent::new(&training, &vars)?;
    let count = at.bench.sequences();
    let batch = training.batch.clamp(1, count.max(1));
    let targets = at.bench.outputs(at.runner, at.faithful, Inputs::Full)?;
    let steps = match training.steps {
        Steps::Passes(passes) => passes.saturating_mul(count.div_ceil(batch)),
        Steps::Drawn(steps) => steps,
    };
    let mut random = Random::new(training.seed);
    let mut best: Option<(f32, Vec<Tensor>)> = None;
    for step in 0..steps {
        let which: Vec<usize> = match training.steps {
            Steps::Passes(_) => {
                let first = step % count.div_ceil(batch) * batch;
                (first..(first + batch).min(count)).collect()
            }
            Steps::Drawn(_) => random.sample(count, batch).unwrap_or_default(),
        };
        let mut trial = block.clone();
        put(&mut trial, &exact, &own, &equivalent)?;
        for linear in trial.linears.values_mut() {
            linear.input = (at.acts)(linear.site).map(|map| Arc::new(Straight(map)) as Arc<dyn InputMap>);
        }
        let (batch, x, want) = at.bench.some(at.inputs, &targets, &which)?;
        let got = runner.through(&trial, &x, &batch, &mut Carried::default())?;
        let loss = (got - want)?.sqr()?.mean_all()?;
        let size = loss.to_scalar::<f32>()?;
        ensure!(size.is_finite(), "learning a block: the loss is not finite at step {step}");
        if training.best && best.as_ref().is_none_or(|(least, _)| size < *least) {
            best = Some((
                size,
                vars.iter().map(|(var, _)| var.as_tensor().copy()).collect::<candle_core::Result<_>>()?,
            ));
        }
        optimizer.step(&loss.backward()?, training.fall.at(step, steps))?;
        own.values().try_for_each(|t| t.hold())?;
    }
    if let Some((_, kept)) = best {
        vars.iter().zip(&kept).try_for_each(|((var, _), kept)| var.set(kept))?;
    }
    // What was learned, exactly: shifts and scales first, then what the matrices with them become.
    for e in &equivalent {
        if let Some(shift) = &e.shift {
            fold::shift(block, &e.group, &shift.to_vec1::<f32>()?)?;
        }
        let s: Vec<f32> = e.held()?.to_vec1()?;
        fold::scale(block, &e.group, &s)?;
    }
    for (key, trainee) in &own {
        let linear = block.linears.get_mut(key).context("a linear to be learned")?;
        linear.weight = Weight::from(trainee.rounded(&linear.weight.rows()?)?.detach()).laid()?;
    }
    for linear in block.linears.values_mut() {
        linear.weight = linear.weight.laid()?;
    }
    Ok(())
}

/// A block with rounded weights and scales moved, all with gradients.
fn put(
    trial: &mut Block,
    exact: &BTreeMap<Key, Tensor>,
    own: &BTreeMap<Key, Box<dyn Trainee>>,
    equivalent: &[Equivalent],
) -> Result<()> {
    let mut scaled = exact.clone();
    for e in equivalent {
        let s = e.held()?;
        if let Some(z) = &e.shift {
            shifted(trial, &scaled, &e.group, z)?;
        }
        match e.group.feeder {
            Feeder::Norm(slot) => {
                let norm = trial.norms.get_mut(&slot).context("a group's norm")?;
                *norm = norm.divided_by(&s)?;
            }
            Feeder::Linear { role, expert, .. } => {
                let feeder = scaled.get_mut(&(expert, role)).context("a group's linear")?;
                *feeder = feeder.broadcast_div(&s.unsqueeze(1)?)?;
                let linear = trial.linears.get_mut(&(expert, role)).context("a group's linear")?;
                linear.bias = linear.bias.as_ref().map(|bias| bias / &s).transpose()?;
            }
            Feeder::Input => {}
        }
        for key in &e.group.linears {
            let w = scaled.get_mut(key).context("a group's linear")?;
            *w = w.broadcast_mul(&s)?;
        }
    }
    for (key, w) in scaled {
        let linear = trial.linears.get_mut(&key).context("a block's linear")?;
        linear.weight = Weight::Rows(match own.get(&key) {
            Some(trainee) => trainee.rounded(&w)?,
            None => w,
        });
    }
    Ok(())
}

/// A shift, with gradients, before a group's linears: what it takes from their input is added to their biases.
fn shifted(trial: &mut Block, weights: &BTreeMap<Key, Tensor>, group: &ScaleGroup, z: &Tensor) -> Result<()> {
    let plus = |bias: &Option<Tensor>, add: Tensor| match bias {
        Some(bias) => bias + add,
        None => Ok(add),
    };
    match group.feeder {
        Feeder::Norm(slot) => {
            let norm = trial.norms.get_mut(&slot).context("a group's norm")?;
            *norm = norm.shifted_by(z)?;
        }
        Feeder::Linear { role, expert, .. } => {
            let feeder = trial.linears.get_mut(&(expert, role)).context("a group's linear")?;
            feeder.bias = Some(plus(&feeder.bias, z.neg()?)?);
        }
        Feeder::Input => return Ok(()),
    }
    for key in &group.linears {
        let add = weights[key].matmul(&z.unsqueeze(1)?)?.squeeze(1)?;
        let linear = trial.linears.get_mut(key).context("a group's linear")?;
        linear.bias = Some(plus(&linear.bias, add)?);
    }
    Ok(())
}

/// Scales that can move, as SmoothQuant would set them, and shifts, as Outlier Suppression+ would.
fn equivalents(
    block: &Block,
    chosen: &[(Key, Site, &Weights)],
    at: &Lesson,
    moves: Moves,
) -> Result<Vec<Equivalent>> {
    let norms_shift = block.norms.values().any(|norm| norm.spec().shift);
    let needs = Needs { channels: true, ..Needs::NOTHING };
    let seen = at.bench.watch(at.runner, at.faithful, Inputs::Full, needs, &|_| true)?;
    let mut found = Vec::new();
    for group in block.spec.scale_groups() {
        let plain = match group.feeder {
            Feeder::Norm(_) => true,
            // Values to attention's output, a channel each.
            Feeder::Linear { role: Role::V, repeat: 1, .. } => true,
            _ => false,
        };
        let all = group.linears.iter().all(|key| chosen.iter().any(|(k, ..)| k == key));
        if !plain || !all || fold::is_turned(block, &group) {
            continue;
        }
        let first = group.linears.iter().filter_map(|key| block.linears.get(key));
        // Of queries, keys and values the queries, of gate and up the latter, as the authors begin them.
        let Some(first) = first.min_by_key(|l| !matches!(l.site.role, Role::Q | Role::Up)) else { continue };
        let Some(seen) = seen.get(&first.site) else { continue };
        let widest = first.weight.rows()?.abs()?.max(0)?.to_vec1::<f32>()?;
        let widest: Vec<f32> = widest.into_iter().map(|w| w.max(1e-5)).collect();
        let most: Vec<f32> = seen.abs_max().into_iter().map(|x| x.max(1e-5)).collect();
        let scale = Tensor::new(smoothquant::scales(&most, &widest, moves.alpha), at.runner.device())?;
        let shift = match moves.shifts && norms_shift && (at.acts)(first.site).is_some() {
            true => {
                let middle: Vec<f32> = seen.low.iter().zip(&seen.high).map(|(l, h)| (l + h) / 2.).collect();
                Some(Var::from_tensor(&Tensor::new(middle, at.runner.device())?)?)
            }
            false => None,
        };
        found.push(Equivalent { group, scale: Var::from_tensor(&scale)?, shift });
    }
    Ok(found)
}

/// Steps down a gradient.
enum Descent {
    AdamW(Vec<(AdamW, f64)>),
    Sign(Vec<(Var, f64)>),
}

impl Descent {
    fn new(training: &Training, vars: &[(Var, usize)]) -> Result<Self> {
        let rate = |i: usize| training.rates.get(i).map(|r| r.1).context("a rate for every parameter");
        Ok(match training.by {
            By::AdamW => {
                let of = |(i, (_, rate)): (usize, &(&str, f64))| -> Result<_> {
                    let mine = vars.iter().filter(|(_, of)| *of == i).map(|(var, _)| var.clone()).collect();
                    let params = ParamsAdamW { lr: *rate, weight_decay: 0., ..ParamsAdamW::default() };
                    Ok((AdamW::new(mine, params)?, *rate))
                };
                Descent::AdamW(training.rates.iter().enumerate().map(of).collect::<Result<_>>()?)
            }
            By::Sign => {
                let of = |(var, i): &(Var, usize)| Ok((var.clone(), rate(*i)?));
                Descent::Sign(vars.iter().map(of).collect::<Result<_>>()?)
            }
        })
    }

    fn step(&mut self, grads: &candle_core::backprop::GradStore, share: f64) -> Result<()> {
        match self {
            Descent::AdamW(all) => {
                for (optimizer, rate) in all {
                    optimizer.set_learning_rate(*rate * share);
                    optimizer.step(grads)?;
                }
            }
            Descent::Sign(all) => {
                for (var, rate) in all {
                    if let Some(grad) = grads.get(var.as_tensor()) {
                        var.set(&(var.as_tensor() - (grad.sign()? * (*rate * share))?)?.detach())?;
                    }
                }
            }
        }
        Ok(())
    }
}
