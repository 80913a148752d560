//! Factors of a symmetric matrix, in f64: what second-order methods ask of a Hessian; singular values of any.
//!
//! The factorizations are faer's. Work is cut into [`PARTS`] whatever the machine has, so that no number of threads moves a
//! bit.
use faer::{
    Accum, Auto, Mat, MatMut, MatRef, Par, Spec,
    diag::Diag,
    dyn_stack::{MemBuffer, MemStack},
    linalg::{cholesky::llt::factor, evd, matmul::matmul, svd, triangular_inverse::invert_lower_triangular},
};
use rayon::prelude::*;

/// Threads that a factorization is made for.
const PARTS: usize = 4;

/// The upper triangular `U` with `U^T U = H^-1`, row by row; `h` is `[n, n]`, symmetric. `None` where it is not positive
/// definite.
///
/// With rows and columns in reverse, `H = L L^T` becomes `H = R R^T` with `R` upper triangular; then `U = R^-1`. One
/// factorization and one triangular inverse give what factor, inverse and factor of the inverse would.
pub fn inverse_upper(mut h: Vec<f64>, n: usize) -> Option<Vec<f32>> {
    if n == 0 || h.len() != n * n || !h.iter().all(|x| x.is_finite()) {
        return None;
    }
    let par = Par::rayon(PARTS);
    // Reversed in both directions, a matrix is its numbers from the last to the first.
    h.reverse();
    let params = Spec::<factor::LltParams, f64>::new(Auto::<f64>::auto());
    let mut memory = MemBuffer::try_new(factor::cholesky_in_place_scratch::<f64>(n, par, params)).ok()?;
    let matrix = MatMut::from_column_major_slice_mut(&mut h, n, n);
    factor::cholesky_in_place(matrix, Default::default(), par, MemStack::new(&mut memory), params).ok()?;
    let mut inverse = vec![0f64; n * n];
    let factor = faer::MatRef::from_column_major_slice(&h, n, n);
    invert_lower_triangular(MatMut::from_column_major_slice_mut(&mut inverse, n, n), factor, par);
    let mut upper = vec![0f32; n * n];
    // Columns of the inverse, turned around, are columns of `U`.
    upper.par_chunks_mut(n).enumerate().for_each(|(i, row)| {
        for (j, u) in row.iter_mut().enumerate().skip(i) {
            *u = inverse[(n - 1 - j) * n + (n - 1 - i)] as f32;
        }
    });
    upper.iter().all(|x| x.is_finite()).then_some(upper)
}

/// The best approximation of `m [rows, cols]` by a product of so thin matrices: left singular vectors, one after another
/// `[rank, rows]`, and right ones times their values, `[rank, cols]`. `None` where there are none.
pub fn leading(m: &[f64], (rows, cols): (usize, usize), rank: usize) -> Option<(Vec<f64>, Vec<f64>)> {
    let size = rows.min(cols);
    if size == 0 || rank > size || m.len() != rows * cols || !m.iter().all(|x| x.is_finite()) {
        return None;
    }
    let par = Par::rayon(PARTS);
    let params = Spec::<svd::SvdParams, f64>::new(Auto::<f64>::auto());
    let (u, v) = (svd::ComputeSvdVectors::Thin, svd::ComputeSvdVectors::Thin);
    let mut memory = MemBuffer::try_new(svd::svd_scratch::<f64>(rows, cols, u, v, par, params)).ok()?;
    let (mut s, mut u, mut v) = (Diag::zeros(size), Mat::zeros(rows, size), Mat::zeros(cols, size));
    let matrix = faer::MatRef::from_row_major_slice(m, rows, cols);
    let stack = MemStack::new(&mut memory);
    svd::svd(matrix, s.as_mut(), Some(u.as_mut()), Some(v.as_mut()), par, stack, params).ok()?;
    let left = (0..rank).flat_map(|k| (0..rows).map(move |i| (i, k))).map(|(i, k)| u[(i, k)]).collect();
    let right =
        (0..rank).flat_map(|k| (0..cols).map(move |j| (j, k))).map(|(j, k)| v[(j, k)] * s[k]).collect();
    Some((left, right))
}

/// `X X^T [rows, rows]` of a matrix `[rows, cols]`.
pub fn gram(x: &[f64], (rows, cols): (usize, usize)) -> Vec<f64> {
    let mut out = vec![0f64; rows * rows];
    if rows > 0 && cols > 0 && x.len() == rows * cols {
        let x = MatRef::from_row_major_slice(x, rows, cols);
        let to = MatMut::from_column_major_slice_mut(&mut out, rows, rows);
        matmul(to, Accum::Replace, x, x.transpose(), 1., Par::rayon(PARTS));
    }
    out
}

/// Eigenvalues of a symmetric matrix `[n, n]`, rising. `None` where it has numbers that are none.
pub fn eigenvalues(h: &[f64], n: usize) -> Option<Vec<f64>> {
    if h.len() != n * n || !h.iter().all(|x| x.is_finite()) {
        return None;
    }
    let par = Par::rayon(PARTS);
    let params = Spec::<evd::SelfAdjointEvdParams, f64>::new(Auto::<f64>::auto());
    let scratch = evd::self_adjoint_evd_scratch::<f64>(n, evd::ComputeEigenvectors::No, par, params);
    let mut memory = MemBuffer::try_new(scratch).ok()?;
    let mut values = Diag::zeros(n);
    let h = MatRef::from_column_major_slice(h, n, n);
    let stack = MemStack::new(&mut memory);
    evd::self_adjoint_evd(h, values.as_mut(), None, par, stack, params).ok()?;
    let mut values: Vec<f64> = (0..n).map(|i| values[i]).collect();
    values.sort_by(f64::total_cmp);
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn symmetric(n: usize) -> Vec<f64> {
        let a: Vec<f64> = (0..n * n).map(|i| ((i * 7919 + 13) % 101) as f64 / 50. - 1.).collect();
        let mut h = vec![0.; n * n];
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] = (0..n).map(|k| a[i * n + k] * a[j * n + k]).sum::<f64>();
            }
            h[i * n + i] += 0.5;
        }
        h
    }

    #[test]
    fn the_factor_of_the_inverse() {
        for n in [1, 2, 7, 33, 130] {
            let h = symmetric(n);
            let u = inverse_upper(h.clone(), n).unwrap();
            // U H^-1... : U H U^T is the identity.
            for i in 0..n {
                assert!(u[i * n + i] > 0. && u[i * n..i * n + i].iter().all(|&x| x == 0.));
                let uh: Vec<f64> =
                    (0..n).map(|j| (i..n).map(|k| f64::from(u[i * n + k]) * h[k * n + j]).sum()).collect();
                for j in 0..n {
                    let x: f64 = (j..n).map(|k| uh[k] * f64::from(u[j * n + k])).sum();
                    assert!((x - f64::from(u8::from(i == j))).abs() < 1e-4, "{n} {i} {j}: {x}");
                }
            }
        }
    }

    #[test]
    fn what_has_no_factor_has_none() {
        assert!(inverse_upper(vec![1., 2., 2., 1.], 2).is_none());
        assert!(inverse_upper(vec![0.; 9], 3).is_none());
        assert!(inverse_upper(vec![f64::NAN, 0., 0., 1.], 2).is_none());
        assert!(inverse_upper(vec![1.; 3], 2).is_none());
    }

    #[test]
    fn threads_move_no_bit() {
        let h = symmetric(300);
        let with = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| inverse_upper(h.clone(), 300).unwrap())
        };
        assert!([2, 3, 7].into_iter().all(|n| with(n) == with(1)));
        let spectrum = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                let g = gram(&h, (300, 300));
                (eigenvalues(&g, 300).unwrap(), g)
            })
        };
        assert!([2, 3, 7].into_iter().all(|n| spectrum(n) == spectrum(1)));
    }

    #[test]
    fn products_and_spectra() {
        let (x, h) = ([1., 2., 3., 4., 5., 6.], symmetric(40));
        assert_eq!(gram(&x, (2, 3)), [14., 32., 32., 77.]);
        assert_eq!(gram(&x, (3, 2)), [5., 11., 17., 11., 25., 39., 17., 39., 61.]);
        assert_eq!(gram(&[], (2, 0)), [0.; 4]);
        let values = eigenvalues(&h, 40).unwrap();
        let (trace, squares) =
            ((0..40).map(|i| h[i * 41]).sum::<f64>(), h.iter().map(|x| x * x).sum::<f64>());
        assert!((values.iter().sum::<f64>() / trace - 1.).abs() < 1e-12);
        assert!((values.iter().map(|v| v * v).sum::<f64>() / squares - 1.).abs() < 1e-12);
        assert!(eigenvalues(&[], 0).unwrap().is_empty());
        assert!(eigenvalues(&[f64::NAN], 1).is_none() && eigenvalues(&[1.], 2).is_none());
    }
}
