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
enum Past {
    /// Attention's: exact keys and values, then those that a [`KvMap`](super::seam::KvMap) gives back, if any.
    Kv(Vec<Rows>),
    /// A state-space mixer's.
    State(State),
}

/// A matrix that grows by rows. Its room doubles, so that a row is copied a few times, not at every step; and it
/// is its own, so that no packed pass is kept alive by one sequence.
struct Rows {
    room: Tensor,
    len: usize,
}

impl Rows {
    fn new(rows: &Tensor) -> Result<Self> {
        let mut new = Self { room: rows.zeros_like()?, len: 0 };
        new.push(rows)?;
        Ok(new)
    }

    fn push(&mut self, rows: &Tensor) -> Result<()> {
        let (more, width) = rows.dims2()?;
        let len = self.len + more;
        if len > self.room.dim(0)? {
            let room = Tensor::zeros((len.next_power_of_two(), width), rows.dtype(), rows.device())?;
            room.slice_set(&self.get()?, 0, 0)?;
            self.room = room;
        }
        self.room.slice_set(&rows.contiguous()?, 0, self.len)?;
        self.len = len;
        Ok(())
    }

    /// A view.
    fn get(&self) -> Result<Tensor> {
        Ok(self.room.narrow(0, 0, self.len)?)
    }
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
    /// The same past, for another sequence that begins with it.
    ///
    /// # Errors
    /// No memory on the device.
    pub fn copy(&self) -> Result<Self> {
        let blocks = self.blocks.iter().map(|past| {
            Ok(match past {
                Past::Kv(all) => {
                    Past::Kv(all.iter().map(|rows| Rows::new(&rows.get()?)).collect::<Result<_>>()?)
                }
                Past::State(state) => Past::State(state.clone()),
            })
        });
        Ok(Self { blocks: blocks.collect::<Result<_>>()?, len: self.len })
    }

    /// Adds rows of new tokens to each of a block's matrices, and gives all rows of each.
    pub(super) fn append(&mut self, block: usize, new: &[Tensor]) -> Result<Vec<Tensor>> {
        match self.blocks.get_mut(block) {
            Some(Past::Kv(past)) if past.len() == new.len() => {
                past.iter_mut().zip(new).try_for_each(|(rows, new)| rows.push(new))?;
            }
            Some(_) => bail!("a cache made by another model"),
            None => self.push(block, Past::Kv(new.iter().map(Rows::new).collect::<Result<_>>()?))?,
        }
        match self.blocks.get(block) {
            Some(Past::Kv(past)) => past.iter().map(Rows::get).collect(),
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
