//! What a matrix is like beyond its numbers one by one: how many directions it has, and into how few values it falls.
//!
//! ```text
//! effective_rank    exp(-sum p_i ln p_i)      p_i = s_i / sum s of the singular values (Roy and Vetterli, 2007)
//! distinct          different numbers in it: few where weights were rounded before, or trained so
//! codebook_error    sum (w - c(w))^2 / sum w^2 over rows, each with the 16 values c that lose least (`quant::weight::kmeans`)
//! ```
//! Singular values are square roots of the eigenvalues of `X X^T` or `X^T X`, whichever is smaller, in f64: not centred, so a mean that
//! all rows share is a direction. Where both sides are above [`SIDE`], the rows are that many of them, spread evenly; codebooks are of
//! at most [`ROWS`] rows. Both are said where the numbers are shown.
use super::errors::Gap;
use crate::{
    quant::{grid::levels::nearest, weight::kmeans},
    tensor::{
        linalg::{eigenvalues, gram},
        rows,
    },
};
use anyhow::Result;
use candle_core::{Device, Tensor};
use rayon::prelude::*;

/// Rows and columns of the largest matrix whose eigenvalues are computed.
pub const SIDE: usize = 1024;
/// Rows whose codebooks are fitted.
pub const ROWS: usize = 128;
/// Values of a codebook.
const VALUES: usize = 16;

/// At most so many of `[rows, width]`, spread evenly from the first on.
pub fn some_rows(x: &Tensor, most: usize) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if rows <= most {
        return Ok(x.contiguous()?);
    }
    let picked: Vec<u32> = (0..most).map(|i| (i * rows / most) as u32).collect();
    Ok(x.index_select(&Tensor::new(picked, x.device())?, 0)?)
}

/// See the module. `[rows, width]`; none where it is zero, or has what is no number.
pub fn effective_rank(x: &Tensor) -> Result<Option<f64>> {
    let (rows, width) = x.dims2()?;
    let x = if width > SIDE { some_rows(x, SIDE)? } else { x.clone() };
    let x = if x.dim(0)? <= width { x } else { x.t()?.contiguous()? };
    if rows == 0 || width == 0 {
        return Ok(None);
    }
    let dims = x.dims2()?;
    let values = eigenvalues(&gram(&numbers(&x)?, dims), dims.0);
    let Some(values) = values else { return Ok(None) };
    // What is below f64's noise is zero: its root would be no longer small.
    let noise = values.last().map_or(0., |most| most * f64::EPSILON * dims.0 as f64);
    let singular: Vec<f64> = values.iter().map(|v| if *v > noise { v.sqrt() } else { 0. }).collect();
    let sum: f64 = singular.iter().sum();
    if sum <= 0. {
        return Ok(None);
    }
    let entropy: f64 = (singular.iter().map(|s| s / sum)).filter(|p| *p > 0.).map(|p| -p * p.ln()).sum();
    Ok(Some(entropy.exp()))
}

/// Different numbers; 0 and -0 are one.
pub fn distinct(x: &Tensor) -> Result<usize> {
    let mut bits: Vec<u32> = rows::with(&cpu(x)?, |x| x.par_iter().map(|v| (v + 0.).to_bits()).collect())?;
    bits.par_sort_unstable();
    bits.dedup();
    Ok(bits.len())
}

/// See the module; none where all is zero.
pub fn codebook_error(x: &Tensor) -> Result<Option<f64>> {
    let x = cpu(&some_rows(x, ROWS)?)?;
    let width = x.dim(1)?;
    let each: Vec<Gap> = rows::with(&x, |x| {
        let rows = x.par_chunks(width.max(1)).map(|row| {
            let book = kmeans::codebook(row.iter().map(|v| (*v, 1.)), VALUES);
            let snapped: Vec<f32> = row.iter().map(|v| nearest(&book, *v)).collect();
            Gap::of(row, &snapped)
        });
        rows.collect()
    })?;
    Ok(each.into_iter().fold(Gap::default(), Gap::merge).nmse())
}

fn cpu(x: &Tensor) -> Result<Tensor> {
    Ok(x.to_device(&Device::Cpu)?.contiguous()?)
}

/// In f64, row by row.
pub(super) fn numbers(x: &Tensor) -> Result<Vec<f64>> {
    Ok(rows::with(&cpu(x)?, |x| x.par_iter().map(|v| f64::from(*v)).collect())?)
}
