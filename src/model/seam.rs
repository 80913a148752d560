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

/// Stands between the cache and attention.
pub trait KvMap: Send + Sync {
    /// The newest tokens that attention still reads exactly: 0 for none, not even the current one.
    fn residual(&self) -> usize;
    /// `[tokens, kv_heads, head_dim]`, after positions are applied; each token and head on its own.
    fn keys(&self, k: &Tensor) -> Result<Tensor>;
    /// The same for values.
    fn values(&self, v: &Tensor) -> Result<Tensor>;
}
