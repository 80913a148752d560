//! Moving a number a channel from a linear's input into its weight, exactly: `W x = (W diag(s)) (x / s)`.
//!
//! Who makes the input takes the division in: a norm's learned rows, a linear's output rows; or it is done as the input comes. And
//! the same of a number that is added.
use crate::{
    model::{
        block::Block,
        decoder::Linear,
        seam::InputMap,
        site::Role,
        spec::{Feeder, ScaleGroup},
    },
    tensor::{matmul::Weight, rows},
};
use anyhow::{Context, Result, bail, ensure};
use candle_core::{Device, Tensor};
use std::sync::Arc;

/// Divides a group's input by `s`, one a channel, and multiplies it into the weights. All of `s` must be positive; where one
/// output reaches several inputs, these must have one scale. What a linear's input is turned by lies between the feeder and the
/// weight, and a scale does not pass through it: only what a norm feeds can be scaled then.
pub fn scale(block: &mut Block, group: &ScaleGroup, s: &[f32]) -> Result<()> {
    ensure!(s.iter().all(|s| *s > 0. && s.is_finite()), "a scale that is not positive");
    ensure!(!is_turned(block, group), "inputs that are turned as they come cannot be scaled");
    match group.feeder {
        Feeder::Norm(slot) => {
            let norm = block.norms.get_mut(&slot).context("a group's norm")?;
            *norm = norm.divided(s)?;
        }
        Feeder::Linear { role, expert, head, repeat } => {
            let own: Vec<f32> = one_of(s, head, repeat).collect();
            let feeder = block.linears.get_mut(&(expert, role)).context("a group's linear")?;
            ensure!(feeder.weight.dims()?.0 == own.len(), "a scale for every output");
            feeder.weight = times(&feeder.weight, |w, o| w.iter_mut().for_each(|w| *w /= own[o]))?;
            if let Some(bias) = &feeder.bias {
                feeder.bias = Some((bias / Tensor::new(own.as_slice(), bias.device())?)?);
            }
        }
        Feeder::Input => {
            for key in &group.linears {
                let linear = block.linears.get_mut(key).context("a group's linear")?;
                linear.turn = Some(Arc::new(Divide(s.to_vec())));
            }
        }
    }
    for key in &group.linears {
        let linear = block.linears.get_mut(key).context("a group's linear")?;
        columns(linear, s)?;
    }
    Ok(())
}

/// Takes `z`, one a channel, from what a group is given, and adds what that was to the linears' biases: `W x + b = W (x - z) +
/// (b + W z)`. Of a norm, or of values on their way to attention's output, whose shares add up to one.
pub fn shift(block: &mut Block, group: &ScaleGroup, z: &[f32]) -> Result<()> {
    if z.iter().all(|z| *z == 0.) {
        return Ok(());
    }
    ensure!(!is_turned(block, group), "inputs that are turned as they come cannot be shifted");
    match group.feeder {
        Feeder::Norm(slot) => {
            let norm = block.norms.get_mut(&slot).context("a group's norm")?;
            *norm = norm.shifted(z)?;
        }
        Feeder::Linear { role: Role::V, expert, repeat: 1, .. } => {
            let values = block.linears.get_mut(&(expert, Role::V)).context("values")?;
            let z = Tensor::new(z, values.weight.rows()?.device())?;
            values.bias = Some(match &values.bias {
                Some(bias) => (bias - z)?,
                None => z.neg()?,
            });
        }
        _ => bail!("only what a norm gives, and values, can be shifted"),
    }
    for key in &group.linears {
        let linear = block.linears.get_mut(key).context("a group's linear")?;
        let weight = linear.weight.rows()?;
        let add = weight.matmul(&Tensor::new(z, weight.device())?.unsqueeze(1)?)?.squeeze(1)?;
        linear.bias = Some(match &linear.bias {
            Some(bias) => (bias + add)?,
            None => add,
        });
    }
    Ok(())
}

/// Whether something stands between a group's feeder and its weights that a scale does not pass through.
pub fn is_turned(block: &Block, group: &ScaleGroup) -> bool {
    group.linears.iter().any(|key| block.linears.get(key).is_some_and(|l| l.turn.is_some()))
}

/// Multiplies a number into each column of a linear's weight.
pub fn columns(linear: &mut Linear, s: &[f32]) -> Result<()> {
    ensure!(linear.weight.dims()?.1 == s.len(), "a scale for every input");
    linear.weight = times(&linear.weight, |w, _| w.iter_mut().zip(s).for_each(|(w, s)| *w *= s))?;
    Ok(())
}

/// Every row of a matrix rewritten; `f` is given the row and its number.
pub fn times(weight: &Weight, f: impl Fn(&mut [f32], usize) + Sync + Send) -> Result<Weight> {
    let all = weight.rows()?;
    let new = rows::map(&all.to_device(&Device::Cpu)?, "rewrite", |o, from, to| {
        to.copy_from_slice(from);
        f(to, o);
    })?;
    Ok(Weight::from(new.to_device(all.device())?).laid()?)
}

/// One scale for each output of a group's feeder.
fn one_of(s: &[f32], head: usize, repeat: usize) -> impl Iterator<Item = f32> + '_ {
    (0..s.len() / repeat.max(1)).filter_map(move |i| s.get(i / head * repeat * head + i % head).copied())
}

/// Divides what comes by a number a channel.
struct Divide(Vec<f32>);

impl InputMap for Divide {
    fn map(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        if !x.device().is_cpu() {
            return x.broadcast_div(&Tensor::new(self.0.as_slice(), x.device())?);
        }
        rows::map(
            x,
            "divide",
            #[inline(always)]
            |_, x, out| out.iter_mut().zip(x).zip(&self.0).for_each(|((o, x), s)| *o = x / s),
        )
    }
}
