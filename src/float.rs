//! Loops over floats that the compiler makes vectors of: the exponential, its log-sum over a row, the largest of a row.
//!
//! Sums run in sixteen lanes, whatever the machine's vectors are, and products and additions are fused only where the code says
//! so: no instruction set moves a bit.
use pulp::{Simd, WithSimd};

/// Runs `f` compiled for the instruction set that this machine has. A closure with `#[inline(always)]`, or it is not sure to
/// be: its body may stay where all machines can run it.
pub fn vectorized<R>(f: impl FnMut() -> R) -> R {
    struct Call<F>(F);
    impl<R, F: FnMut() -> R> WithSimd for Call<F> {
        type Output = R;
        #[inline(always)]
        fn with_simd<S: Simd>(mut self, _: S) -> R {
            (self.0)()
        }
    }
    pulp::Arch::new().dispatch(Call(f))
}

/// `e^x` to two units in the last place, without a branch, so that compilers turn loops over it into vectors.
/// Range reduction by `n ln 2` in two parts and a polynomial of degree 6 (as in Cephes' `expf`), multiplications and additions
/// fused. What is no number stays none; from 88.38 on, half of the last power of two, all is infinity, and below -87.3 zero.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    // Adding and taking away 1.5 * 2^23 rounds to the nearest integer.
    const MAGIC: f32 = 12_582_912.;
    let clamped = x.clamp(-87.3, 88.7);
    let shifted = clamped.mul_add(std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = n.mul_add(2.121_944_4e-4, n.mul_add(-0.693_359_4, clamped));
    let p = 1.987_569_1e-4f32;
    let p = p.mul_add(r, 1.398_199_9e-3);
    let p = p.mul_add(r, 8.333_452e-3);
    let p = p.mul_add(r, 4.166_579_5e-2);
    let p = p.mul_add(r, 1.666_666_5e-1);
    let p = p.mul_add(r, 5e-1);
    let p = (p * r).mul_add(r, r + 1.);
    // The last bits of `shifted` are `n`'s; the others are moved out.
    let scale = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    let y = p * scale;
    if x < -87.3 {
        0.
    } else if x > 88.7 {
        f32::INFINITY
    } else {
        y
    }
}

/// Lanes of a sum.
const LANES: usize = 16;

/// `ln(sum(exp(x)))`, exponentials in f32 and their sum in f64.
pub fn log_sum_exp(x: &[f32]) -> f64 {
    vectorized(
        #[inline(always)]
        || {
            let max = largest(x);
            let mut sums = [0f64; LANES];
            let (rows, rest) = x.as_chunks::<LANES>();
            for row in rows {
                for i in 0..LANES {
                    sums[i] += f64::from(exp(row[i] - max));
                }
            }
            for (sum, x) in sums.iter_mut().zip(rest) {
                *sum += f64::from(exp(x - max));
            }
            f64::from(max) + sums.iter().sum::<f64>().ln()
        },
    )
}

/// The index of the largest, the first of equals.
pub fn top(x: &[f32]) -> usize {
    vectorized(
        #[inline(always)]
        || {
            let max = largest(x);
            x.iter().position(|&v| v == max).unwrap_or(0)
        },
    )
}

#[inline(always)]
fn largest(x: &[f32]) -> f32 {
    let mut all = [f32::NEG_INFINITY; LANES];
    let (rows, rest) = x.as_chunks::<LANES>();
    for row in rows {
        for i in 0..LANES {
            all[i] = if row[i] > all[i] { row[i] } else { all[i] };
        }
    }
    all.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_two_units() {
        for i in -87_000..88_000 {
            let x = i as f32 / 1000.;
            let (got, want) = (exp(x), x.exp());
            assert!((got - want).abs() <= 2.5e-7 * want, "exp({x}) = {got}, not {want}");
        }
        assert_eq!(exp(0.), 1.);
        assert_eq!(exp(f32::NEG_INFINITY), 0.);
        assert_eq!([88.5, f32::INFINITY].map(exp), [f32::INFINITY; 2]);
        assert!(exp(88.37).is_finite() && exp(-87.2) > 0. && exp(-87.4) == 0.);
        assert!(exp(f32::NAN).is_nan());
    }

    #[test]
    fn log_sums_and_tops() {
        for n in [1, 15, 16, 17, 100, 32_000] {
            let x: Vec<f32> = (0..n).map(|i| ((i * 7919 + 3) % 1009) as f32 / 40. - 12.).collect();
            let exact = x.iter().map(|&x| f64::from(x).exp()).sum::<f64>().ln();
            assert!((log_sum_exp(&x) - exact).abs() < 1e-7, "{n}: {} not {exact}", log_sum_exp(&x));
            let largest = x.iter().copied().fold(f32::MIN, f32::max);
            assert_eq!(top(&x), x.iter().position(|&v| v == largest).unwrap());
        }
        assert_eq!(log_sum_exp(&[-1e30, 5., -1e30]), 5.);
        assert_eq!(top(&[1., 3., 3., 2.]), 1);
        assert_eq!(top(&[f32::NEG_INFINITY; 3]), 0);
    }
}
