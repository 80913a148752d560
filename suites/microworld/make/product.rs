//! A product of small matrices on one thread: what training is made of. The decoder has its own, for weights that stay.

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

/// `out [m, n] = alpha * a [m, k] * b [k, n]` on one thread; rows of `out` are `stride` apart.
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
