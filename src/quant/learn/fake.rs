//! Rounding with a gradient: what is rounded passes its gradient on as if it were not (Bengio et al., 2013).
use crate::quant::grid::{Grid, Per};
use anyhow::Result;
use candle_core::Tensor;

/// 1.5 * 2^23: floats there are a unit apart.
const MAGIC: f64 = 12_582_912.;

/// Half to even, as torch rounds; the gradient passes.
pub fn round(x: &Tensor) -> Result<Tensor> {
    let rounded = ((x + MAGIC)? - MAGIC)?;
    Ok((x + (rounded - x)?.detach())?)
}

/// Within bounds; the gradient passes where nothing was cut, at the bounds too, as torch's `clamp` has it.
pub fn clamp(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    let fixed = x.detach();
    let inside = (fixed.ge(low)? * fixed.le(high)?)?.to_dtype(x.dtype())?;
    let passed = (x * inside)?;
    Ok((&passed + (x.clamp(low, high)? - &passed)?.detach())?)
}

/// Within bounds; the gradient passes everywhere.
pub fn clamp_through(x: &Tensor, low: f64, high: f64) -> Result<Tensor> {
    Ok((x + (x.clamp(low, high)? - x)?.detach())?)
}

/// `1 / (1 + e^-x)`.
pub fn sigmoid(x: &Tensor) -> Result<Tensor> {
    Ok((x.neg()?.exp()? + 1.)?.recip()?)
}

/// `(clamp(round(x / scale) + zero + offset) - zero) * scale`; `x [out, groups, n]`, the others a number a group.
pub fn quantized(
    x: &Tensor,
    scale: &Tensor,
    zero: &Tensor,
    offset: Option<&Tensor>,
    most: f64,
) -> Result<Tensor> {
    let mut code = x.broadcast_div(scale)?;
    if let Some(offset) = offset {
        code = (code + offset)?;
    }
    let code = clamp(&round(&code)?.broadcast_add(zero)?, 0., most)?;
    Ok(code.broadcast_sub(zero)?.broadcast_mul(scale)?)
}

/// A matrix `[out, in]` as parts `[out, groups, n]`: whole groups, and a last one that is shorter.
pub fn parts(w: &Tensor, grid: &Grid) -> Result<Vec<Tensor>> {
    let (out, inner) = w.dims2()?;
    let size = match grid.per {
        Per::Group => grid.group.min(inner),
        Per::Row => inner,
        Per::Tensor => return Ok(vec![w.reshape((1, 1, out * inner))?]),
    };
    let whole = inner / size * size;
    let mut parts = vec![w.narrow(1, 0, whole)?.reshape((out, whole / size, size))?];
    if whole < inner {
        parts.push(w.narrow(1, whole, inner - whole)?.reshape((out, 1, inner - whole))?);
    }
    Ok(parts)
}

/// Parts as the matrix that they were.
pub fn whole(parts: &[Tensor], shape: (usize, usize)) -> Result<Tensor> {
    match parts {
        [one] => Ok(one.reshape(shape)?),
        many => {
            let flat = many
                .iter()
                .map(|p| Ok(p.reshape((shape.0, p.elem_count() / shape.0))?))
                .collect::<Result<Vec<_>>>()?;
            Ok(Tensor::cat(&flat, 1)?)
        }
    }
}
