//! The three places where a pass through the decoder can be watched or changed.
//!
//! The decoder knows that something may stand here, never what: `model` does not import `quant`.
use super::site::Site;
use crate::tensor::int8::{Groups, Inputs};
use candle_core::{Result, Tensor};

/// Watches the input of every linear. Calibration is one.
pub trait Observer {
    /// `input [tokens, features]`, as the weight meets it: after an exact turn, before what rounds it.
    fn see(&mut self, site: Site, input: &Tensor) -> Result<()>;
    /// Keys of a block without their positions, and values, `[tokens, kv_heads * head_dim]` each.
    fn see_cached(&mut self, _k: &Tensor, _v: &Tensor) -> Result<()> {
        Ok(())
    }
}

/// Stands before a linear: activation quantization.
pub trait InputMap: Send + Sync {
    /// `[tokens, features]` in, the same shape out. A row of the result depends on that row alone, so that packing
    /// and prefix sharing stay exact.
    fn map(&self, x: &Tensor) -> Result<Tensor>;
    /// The same rows as codes with a scale and a zero point each, for weights that are codes too; `None` where the map's
    /// values are no such thing.
    fn codes(&self, _x: &Tensor, _groups: &Groups) -> Option<Result<Inputs>> {
        None
    }
}

/// How old a token must be for attention to read what a [`KvMap`] gives back in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// So many of the newest tokens are read exactly, the current one among them: 0 for none.
    Newest(usize),
    /// Tokens wait until there are so many; from the next one on, those are mapped.
    Batches(usize),
}

impl Age {
    /// How many of a sequence's first tokens the one at `position` reads mapped. It never falls as positions rise.
    pub fn mapped(self, position: usize) -> usize {
        match self {
            Age::Newest(exact) => (position + 1).saturating_sub(exact),
            Age::Batches(count) => position / count.max(1) * count.max(1),
        }
    }
}

/// Stands between the cache and attention.
pub trait KvMap: Send + Sync {
    /// From when on keys, and values, are read as they come out of here.
    fn ages(&self) -> [Age; 2];
    /// The first tokens of a sequence, which are read exactly whatever their age.
    fn sinks(&self) -> usize {
        0
    }
    /// Whether keys come without their positions, and get them afterwards.
    fn before_positions(&self) -> bool {
        false
    }
    /// How many tokens of a sequence share what their keys become, counted from its first; those at its end that are fewer stay
    /// exact. With 1 each token is on its own, and only then may sequences share prefixes.
    fn tokens(&self) -> usize {
        1
    }
    /// `[tokens, kv_heads, head_dim]`.
    fn keys(&self, k: &Tensor) -> Result<Tensor>;
    /// The same for values; each token on its own.
    fn values(&self, v: &Tensor) -> Result<Tensor>;
    /// `[tokens, heads, head_dim]`, with positions; each token on its own. `None` where they stay as they are.
    fn queries(&self, _q: &Tensor) -> Option<Result<Tensor>> {
        None
    }
    /// What becomes of a query's probabilities, over the keys that it sees; `None` where they stay.
    fn probabilities(&self) -> Option<&dyn RowMap> {
        None
    }
}

/// Replaces a row.
pub trait RowMap: Sync {
    /// In place.
    fn map(&self, row: &mut [f32]);
}
