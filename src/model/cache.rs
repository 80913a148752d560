//! What a sequence's past leaves behind, a block at a time: keys and values, or a state of fixed size.
use anyhow::{Result, bail};
use candle_core::Tensor;

/// One sequence's past.
#[derive(Default)]
pub struct Cache {
    blocks: Vec<Past>,
    /// Tokens seen.
    pub len: usize,
}

/// One block's.
pub(super) enum Past {
    /// Attention's, `[tokens, kv_heads * head_dim]`.
    Kv(KvPast),
    /// A state-space mixer's.
    State(State),
}

/// Keys and values.
pub(super) struct KvPast {
    /// As computed.
    pub exact: (Tensor, Tensor),
    /// As a [`KvMap`](super::seam::KvMap) gives them back.
    pub mapped: Option<(Tensor, Tensor)>,
}

/// What a state-space mixer knows of the tokens before.
#[derive(Clone)]
pub(super) struct State {
    /// The convolution's last inputs, `[conv - 1, channels]`, oldest first.
    pub tail: Vec<f32>,
    /// `[inner, state]`.
    pub state: Vec<f32>,
}

impl Cache {
    /// Adds keys and values of new tokens to a block's, and gives all of them.
    pub(super) fn append(&mut self, block: usize, now: KvPast) -> Result<&KvPast> {
        let join = |a: &(Tensor, Tensor), b: &(Tensor, Tensor)| -> Result<(Tensor, Tensor)> {
            Ok((Tensor::cat(&[&a.0, &b.0], 0)?, Tensor::cat(&[&a.1, &b.1], 0)?))
        };
        match self.blocks.get_mut(block) {
            Some(Past::Kv(past)) => {
                past.exact = join(&past.exact, &now.exact)?;
                past.mapped = match (&past.mapped, &now.mapped) {
                    (Some(a), Some(b)) => Some(join(a, b)?),
                    _ => None,
                };
            }
            Some(Past::State(_)) => bail!("a cache made by another model"),
            None => self.push(block, Past::Kv(now))?,
        }
        match self.blocks.get(block) {
            Some(Past::Kv(past)) => Ok(past),
            _ => bail!("a cache is filled block by block"),
        }
    }

    /// A block's state; `None` before the first token.
    pub(super) fn state(&self, block: usize) -> Option<&State> {
        match self.blocks.get(block) {
            Some(Past::State(state)) => Some(state),
            _ => None,
        }
    }

    /// Replaces it.
    pub(super) fn set_state(&mut self, block: usize, state: State) -> Result<()> {
        match self.blocks.get_mut(block) {
            Some(past) => *past = Past::State(state),
            None => self.push(block, Past::State(state))?,
        }
        Ok(())
    }

    fn push(&mut self, block: usize, past: Past) -> Result<()> {
        if block != self.blocks.len() {
            bail!("a cache is filled block by block");
        }
        self.blocks.push(past);
        Ok(())
    }
}
