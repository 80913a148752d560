//! The one door to matrix products.
//!
//! On a CPU every product ends in the `gemm` crate, whose AVX-512 and AVX2 kernels are chosen at run time. A row of the
//! result has the same bits whatever rows stand beside it, so packing more or fewer sequences cannot move a score;
//! `tests/engine.rs` holds that. On other devices the product is candle's.
use candle_core::{Result, Tensor};

/// `x [tokens, in]` times the transpose of `weight [out, in]`: `[tokens, out]`.
pub fn linear(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (tokens, _) = x.dims2()?;
    let (out, _) = weight.dims2()?;
    let rows = if x.device().is_cpu() { steady_rows(tokens, out) } else { tokens };
    if rows == tokens {
        x.matmul(&weight.t()?)
    } else {
        x.pad_with_zeros(0, 0, rows - tokens)?.matmul(&weight.t()?)?.narrow(0, 0, tokens)
    }
}

/// `gemm` adds in another order for a single row, for at most 16 x 16 results, and for at most 64 x 64 (there it cuts long
/// sums elsewhere). Padding keeps every product on the one path.
fn steady_rows(tokens: usize, out: usize) -> usize {
    tokens.max(256 / out.max(1) + 1).max(if out <= 64 { 65 } else { 2 })
}

/// A matrix inside a slice: element `(i, j)` is at `i * row + j * col`.
#[derive(Clone, Copy)]
pub struct View<'a> {
    /// The numbers.
    pub data: &'a [f32],
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub col: usize,
}

/// `out [m, n] = alpha * a [m, k] * b [k, n]` on one thread; rows of `out` are `stride` apart. Attention's products.
///
/// # Panics
/// Where a view is too short for the sizes: a bug of the caller, never of a file.
#[allow(clippy::too_many_arguments)]
pub fn small(out: &mut [f32], stride: usize, (m, n, k): (usize, usize, usize), alpha: f32, a: View, b: View) {
    if m == 0 || n == 0 || k == 0 {
        return;
    }
    assert!(out.len() > (m - 1) * stride + n - 1);
    assert!(a.data.len() > (m - 1) * a.row + (k - 1) * a.col);
    assert!(b.data.len() > (k - 1) * b.row + (n - 1) * b.col);
    // SAFETY: the three assertions above bound every address that `gemm` forms from these strides.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            out.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.data.as_ptr(),
            a.col as isize,
            a.row as isize,
            b.data.as_ptr(),
            b.col as isize,
            b.row as isize,
            0.,
            alpha,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}
