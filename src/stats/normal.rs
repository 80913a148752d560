//! The standard normal distribution.

/// Two-sided p of a standard normal: `erfc(|z| / sqrt 2)`.
pub fn two_sided(z: f64) -> f64 {
    libm::erfc(z.abs() / std::f64::consts::SQRT_2)
}

/// The number that a standard normal stays below with probability `p`, by bisection on `erfc`.
pub fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-40., 40.);
    for _ in 0..200 {
        let mid = 0.5 * (low + high);
        if 0.5 * libm::erfc(-mid / std::f64::consts::SQRT_2) < p { low = mid } else { high = mid }
    }
    0.5 * (low + high)
}
