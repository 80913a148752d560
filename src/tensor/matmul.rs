//! The one door to matrix products.
//!
//! ```text
//! Weight::Rows   a candle tensor [out, in]: training, other devices, and what a quantizer reads
//! Weight::Laid   f32 in panels: inference on a CPU
//! Weight::Codes  integers with scales: both sides quantized to 8 bits or less
//! ```
//! A row of a result has the same bits whatever rows stand beside it, so packing sequences, sharing prefixes and the number
//! of threads cannot move a score; `tests/engine.rs` holds that.
use super::{
    int8::{Codes, Inputs},
    panels::Panels,
    rows,
};
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, bail};
use std::sync::Arc;

/// A linear's matrix. Cloning shares it.
#[derive(Clone)]
pub enum Weight {
    /// `[out, in]`, contiguous.
    Rows(Tensor),
    /// See the module.
    Laid(Arc<Panels>),
    /// See the module.
    Codes(Arc<Codes>),
}

impl From<Tensor> for Weight {
    fn from(rows: Tensor) -> Self {
        Weight::Rows(rows)
    }
}

impl Weight {
    /// `(out, in)`.
    pub fn dims(&self) -> Result<(usize, usize)> {
        match self {
            Weight::Rows(rows) => rows.dims2(),
            Weight::Laid(panels) => Ok(panels.dims()),
            Weight::Codes(codes) => Ok(codes.dims()),
        }
    }

    /// The matrix as a tensor `[out, in]`, made anew where it is laid out.
    pub fn rows(&self) -> Result<Tensor> {
        let of = |rows: Vec<f32>, dims| Tensor::from_vec(rows, dims, &Device::Cpu);
        match self {
            Weight::Rows(rows) => Ok(rows.clone()),
            Weight::Laid(panels) => of(panels.rows(), panels.dims()),
            Weight::Codes(codes) => of(codes.rows(), codes.dims()),
        }
    }

    /// Another matrix, laid out as this one is.
    pub fn like(&self, rows: Tensor) -> Result<Weight> {
        let rows = Weight::from(rows);
        if matches!(self, Weight::Rows(_)) { Ok(rows) } else { rows.laid() }
    }

    /// Some of its rows, `[count, in]`.
    pub fn pick(&self, ids: &[u32]) -> Result<Tensor> {
        match self {
            Weight::Laid(panels) => {
                let (out, inner) = panels.dims();
                if let Some(id) = ids.iter().find(|&&id| id as usize >= out) {
                    bail!("row {id} of a matrix with {out}");
                }
                let mut rows = vec![0f32; ids.len() * inner];
                for (row, &id) in rows.chunks_mut(inner.max(1)).zip(ids) {
                    panels.row(id as usize, row);
                }
                Tensor::from_vec(rows, (ids.len(), inner), &Device::Cpu)
            }
            other => {
                let rows = other.rows()?;
                rows.index_select(&Tensor::new(ids, rows.device())?, 0)
            }
        }
    }

    /// Laid out for a CPU's products; elsewhere as it is.
    pub fn laid(&self) -> Result<Self> {
        match self {
            Weight::Rows(rows) if rows.device().is_cpu() => {
                let (out, inner) = rows.dims2()?;
                let rows = rows.contiguous()?;
                let panels = rows::with(&rows, |rows| Panels::new(rows, out, inner))?;
                Ok(Weight::Laid(Arc::new(panels)))
            }
            other => Ok(other.clone()),
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Weight::Rows(rows) => rows.elem_count() * rows.dtype().size_in_bytes(),
            Weight::Laid(panels) => panels.bytes(),
            Weight::Codes(codes) => codes.bytes(),
        }
    }
}

/// `x [tokens, in]` times the transpose of `weight [out, in]`: `[tokens, out]`, the bias `[out]` added last.
pub fn linear(x: &Tensor, weight: &Weight, bias: Option<&Tensor>) -> Result<Tensor> {
    match weight {
        Weight::Laid(panels) => {
            let bias = bias.map(|b| b.to_vec1::<f32>()).transpose()?;
            x.contiguous()?.apply_op1_no_bwd(&Laid { panels, bias })
        }
        other => {
            let y = x.matmul(&other.rows()?.t()?)?;
            match bias {
                Some(bias) => y.broadcast_add(bias),
                None => Ok(y),
            }
        }
    }
}

/// The same of integers.
pub fn integers(x: &Inputs, codes: &Codes, bias: Option<&Tensor>) -> Result<Tensor> {
    let bias = bias.map(|b| b.to_vec1::<f32>()).transpose()?;
    let y = codes.linear(x, bias.as_deref());
    let out = codes.dims().0;
    let tokens = y.len() / out.max(1);
    Tensor::from_vec(y, (tokens, out), &Device::Cpu)
}

struct Laid<'a> {
    panels: &'a Panels,
    bias: Option<Vec<f32>>,
}

impl CustomOp1 for Laid<'_> {
    fn name(&self) -> &'static str {
        "linear"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (tokens, inner) = layout.shape().dims2()?;
        let (out, wanted) = self.panels.dims();
        if inner != wanted {
            bail!("a matrix of {wanted} inputs is given {inner}");
        }
        let y = self.panels.linear(rows::slice(storage, layout)?, self.bias.as_deref());
        Ok((CpuStorage::F32(y), Shape::from((tokens, out))))
    }
}
