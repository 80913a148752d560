//! What a model's output loses where some of it is quantized: the distance of next tokens, with only that computed again which can
//! have changed.
//!
//! ```text
//! Trace   a text's hidden states before each block            x_0 -> block 0 -> x_1 -> .. -> x_b -> block b -> ..
//! resume  another model that is the same up to block b                                       x_b -> block b' -> .. -> head
//! loss    sum over tokens of KL(full || other)
//! ```
//! A budget asks it of groups in so many bits, an inspection of what a recipe did to each place.
use crate::{
    float::{exp, log_sum_exp},
    model::{
        block::Carried,
        decoder::{Batch, Decoder},
        site::{Expert, Role, Site},
    },
    tensor::rows,
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Logits that are in memory at a time.
const ROWS: usize = 256;

/// A block's linears of one role, all its routed experts together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group {
    /// Which block.
    pub block: u16,
    /// A routed expert stands for all of them.
    pub expert: Option<Expert>,
    /// What they do.
    pub role: Role,
}

impl Group {
    /// A site's group; `None` outside the blocks.
    pub fn of(site: Site) -> Option<Self> {
        let expert = site.expert.map(|e| if e == Expert::Shared { e } else { Expert::Routed(0) });
        Some(Self { block: site.block?, expert, role: site.role })
    }

    /// As a recipe names it.
    pub fn pattern(self) -> String {
        let site = Site::of(self.block, self.expert, self.role).to_string();
        match self.expert {
            Some(Expert::Routed(_)) => match site.rsplit_once(".0.") {
                Some((part, what)) => format!("{part}.*.{what}"),
                None => site,
            },
            _ => site,
        }
    }
}

/// A text on its way through a model.
pub struct Trace {
    batch: Batch,
    /// Before each block, and after the last.
    states: Vec<Tensor>,
    /// What the head reads, `[tokens, width]`.
    last: Tensor,
}

impl Trace {
    /// Of one text, which may not be empty.
    pub fn of(model: &Decoder, text: &[u32]) -> Result<Self> {
        let batch = Batch::new([text]);
        let mut states = vec![model.enter(&batch)?];
        for block in &model.blocks {
            states.push(model.through(block, &states[states.len() - 1], &batch, &mut Carried::default())?);
        }
        let last = model.leave(states[model.blocks.len()].clone())?;
        Ok(Self { batch, states, last })
    }

    /// What the head reads in the model itself.
    pub fn last(&self) -> &Tensor {
        &self.last
    }

    /// What it reads in another model: one whose blocks before `from` are this one's; with `None`, whose embedding is another too.
    pub fn resume(&self, other: &Decoder, from: Option<usize>) -> Result<Tensor> {
        let from_block = from.unwrap_or(0).min(other.blocks.len());
        let mut x = match from {
            Some(_) => self.states[from_block].clone(),
            None => other.enter(&self.batch)?,
        };
        for block in &other.blocks[from_block..] {
            x = other.through(block, &x, &self.batch, &mut Carried::default())?;
        }
        other.leave(x)
    }
}

/// `sum KL(p || q)` of next tokens, nats, over the rows of hidden states `[tokens, width]`, each with the model whose head reads them.
pub fn divergence(
    (full, of_full): (&Decoder, &Tensor),
    (other, of_other): (&Decoder, &Tensor),
) -> Result<f64> {
    let (tokens, vocab) = (of_full.dim(0)?, full.spec.vocab);
    let mut sum = 0.;
    for from in (0..tokens).step_by(ROWS) {
        let logits = |model: &Decoder, x: &Tensor| -> Result<Tensor> {
            let some = x.narrow(0, from, ROWS.min(tokens - from))?.contiguous()?;
            Ok(model.logits(&some)?.to_device(&Device::Cpu)?.contiguous()?)
        };
        let (p, q) = (logits(full, of_full)?, logits(other, of_other)?);
        let each: Vec<f64> = rows::with(&p, |p| {
            rows::with(&q, |q| p.par_chunks(vocab).zip(q.par_chunks(vocab)).map(|(p, q)| kl(p, q)).collect())
        })??;
        sum += each.iter().sum::<f64>();
    }
    Ok(sum)
}

/// `KL(p || q)` of two rows of logits, nats; no number where a logit is none.
fn kl(p: &[f32], q: &[f32]) -> f64 {
    let (of_p, of_q) = (log_sum_exp(p), log_sum_exp(q));
    let each = p.iter().zip(q).map(|(p, q)| {
        let (p, q) = (f64::from(*p) - of_p, f64::from(*q) - of_q);
        f64::from(exp(p as f32)) * (p - q)
    });
    let sum: f64 = each.sum();
    // Rounding makes no distance below nothing.
    if sum < 0. { 0. } else { sum }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let by_hand = 0.5 * (0.5f64 / 0.75).ln() + 0.5 * (0.5f64 / 0.25).ln();
        assert!((kl(&[0., 0.], &[3f32.ln(), 0.]) - by_hand).abs() < 1e-7);
        assert_eq!(kl(&[1., -3., 0.5], &[1., -3., 0.5]), 0.);
        assert!(kl(&[0., 0.], &[f32::NAN, 0.]).is_nan());
    }
}
