//! Student's t: what stands in for the normal distribution where few items say how far items spread.
//!
//! A mean over ten windows is off by more than two of its own standard errors one time in twelve, not one in twenty: a test
//! that takes the error for known promises too much.
use super::normal_quantile;

/// Two-sided p of Student's t with `df` degrees of freedom: `I(df / (df + t^2); df / 2, 1 / 2)`, the regularized incomplete
/// beta function (NIST DLMF 8.17; Johnson, Kotz and Balakrishnan 1995, chapter 28).
pub fn student_two_sided(t: f64, df: f64) -> f64 {
    if t.is_nan() || df.is_nan() || df <= 0. {
        return f64::NAN;
    }
    if t.is_infinite() {
        return 0.;
    }
    beta(df / (df + t * t), df / 2., 0.5)
}

/// The number that Student's t stays below with probability `p`: by bisection, from the normal quantile outwards.
pub fn student_quantile(p: f64, df: f64) -> f64 {
    if p == 0.5 {
        return 0.;
    }
    if p < 0.5 {
        return -student_quantile(1. - p, df);
    }
    let tail = |t: f64| 0.5 * student_two_sided(t, df);
    let (mut low, mut high) = (0., normal_quantile(p).max(1.));
    while tail(high) > 1. - p && high < 1e300 {
        high *= 2.;
    }
    for _ in 0..200 {
        let mid = 0.5 * (low + high);
        if tail(mid) > 1. - p { low = mid } else { high = mid }
    }
    0.5 * (low + high)
}

/// The regularized incomplete beta function, by its continued fraction (DLMF 8.17.22), turned round where that converges
/// faster (DLMF 8.17.4).
fn beta(x: f64, a: f64, b: f64) -> f64 {
    if x <= 0. || x >= 1. {
        return if x <= 0. { 0. } else { 1. };
    }
    let front = libm::lgamma(a + b) - libm::lgamma(a) - libm::lgamma(b) + a * x.ln() + b * (-x).ln_1p();
    if x < (a + 1.) / (a + b + 2.) {
        front.exp() / (a * fraction(x, a, b))
    } else {
        1. - front.exp() / (b * fraction(1. - x, b, a))
    }
}

/// `1 + d1 / (1 + d2 / (1 + ...))` from its convergents' ratios (Lentz 1976), which neither overflow nor need a place to begin.
fn fraction(x: f64, a: f64, b: f64) -> f64 {
    const TINY: f64 = 1e-300;
    let term = |n: usize| {
        let m = (n / 2) as f64;
        if n.is_multiple_of(2) {
            m * (b - m) * x / ((a + 2. * m - 1.) * (a + 2. * m))
        } else {
            -(a + m) * (a + b + m) * x / ((a + 2. * m) * (a + 2. * m + 1.))
        }
    };
    let away = |v: f64| if v.abs() < TINY { TINY } else { v };
    let (mut whole, mut above, mut below) = (1., 1., 0.);
    for n in 1..10_000 {
        let d = term(n);
        above = away(1. + d / above);
        below = 1. / away(1. + d * below);
        let step = above * below;
        whole *= step;
        if (step - 1.).abs() < 1e-15 {
            break;
        }
    }
    whole
}
