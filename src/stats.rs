//! Numbers with their uncertainty.
//!
//! Every metric here is a *ratio of sums over items*, `sum(x) / sum(w)`, seen through a monotone [`Scale`]: accuracy has
//! `x` in {0, 1} and `w = 1`; perplexity has `x = nll`, `w = tokens` and `exp` in front. One estimator then gives every
//! value its standard error, clustered by item (a window, a document, a question), and every pair of runs its paired
//! difference.
use crate::random::Random;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// A number, how far it may be off, and how many items it rests on.
///
/// `stderr` is absent, not zero, where one item cannot tell.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number itself, on the scale people read.
    pub value: f64,
    /// One standard error, clustered by item.
    pub stderr: Option<f64>,
    /// Items.
    pub n: usize,
}

/// What stands in front of the ratio.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scale {
    /// The ratio itself: accuracy, bits per byte, divergence.
    #[default]
    Plain,
    /// `exp(ratio)`: perplexities.
    Exp,
    /// `sqrt(ratio)`: root mean squares.
    Sqrt,
}

impl Scale {
    /// The value that people read.
    pub fn apply(self, ratio: f64) -> f64 {
        match self {
            Scale::Plain => ratio,
            Scale::Exp => ratio.exp(),
            Scale::Sqrt => ratio.max(0.).sqrt(),
        }
    }

    /// Its derivative, for the delta method.
    fn slope(self, ratio: f64) -> f64 {
        match self {
            Scale::Plain => 1.,
            Scale::Exp => ratio.exp(),
            Scale::Sqrt => 0.5 / ratio.max(f64::MIN_POSITIVE).sqrt(),
        }
    }
}

/// What one item contributes to one metric: `[x, w]`.
pub type Share = [f64; 2];

/// `sum(x) / sum(w)` through `scale`; its error by the delta method, clustered by item:
/// `SE^2 = n / (n - 1) * sum_k (x_k - m w_k)^2 / (sum w)^2` (Cochran 1977, ratio estimator).
///
/// `None` for no items or no weight: an empty evaluation has no score, not a score of zero.
pub fn ratio(shares: &[Share], scale: Scale) -> Option<Estimate> {
    let (m, stderr) = ratio_parts(shares)?;
    Some(Estimate { value: scale.apply(m), stderr: stderr.map(|s| s * scale.slope(m)), n: shares.len() })
}

fn ratio_parts(shares: &[Share]) -> Option<(f64, Option<f64>)> {
    let n = shares.len();
    let (x, w) = shares.iter().fold((0., 0.), |(a, b), s| (a + s[0], b + s[1]));
    if n == 0 || w <= 0. {
        return None;
    }
    let m = x / w;
    let spread: f64 = shares.iter().map(|s| (s[0] - m * s[1]).powi(2)).sum();
    let stderr = (n > 1).then(|| (n as f64 / (n - 1) as f64 * spread).sqrt() / w);
    Some((m, stderr))
}

/// Two runs over the same items.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// `b - a` on the scale people read.
    pub delta: f64,
    /// Its standard error, from the items' differences.
    pub stderr: Option<f64>,
    /// Two-sided. McNemar's exact test where every item is right or wrong, else normal. `None` where nothing varies.
    pub p_value: Option<f64>,
}

/// Compares run `b` with run `a`, item by item (same order, same items).
pub fn paired(a: &[Share], b: &[Share], scale: Scale) -> Option<Paired> {
    if a.len() != b.len() {
        return None;
    }
    let (ma, _) = ratio_parts(a)?;
    let (mb, _) = ratio_parts(b)?;
    let delta = scale.apply(mb) - scale.apply(ma);
    let (wa, wb): (f64, f64) = (a.iter().map(|s| s[1]).sum(), b.iter().map(|s| s[1]).sum());
    let n = a.len() as f64;
    // Each item's influence on `scale(mb) - scale(ma)`, and on the plain difference that the test is about.
    let influence = |da: f64, db: f64| -> Option<f64> {
        let sum: f64 = a
            .iter()
            .zip(b)
            .map(|(p, q)| (db * (q[0] - mb * q[1]) / wb - da * (p[0] - ma * p[1]) / wa).powi(2))
            .sum();
        (a.len() > 1).then(|| (n / (n - 1.) * sum).sqrt())
    };
    let stderr = influence(scale.slope(ma), scale.slope(mb));
    let binary = |s: &Share| s[1] == 1. && (s[0] == 0. || s[0] == 1.);
    let p_value = if a.iter().all(binary) && b.iter().all(binary) {
        let lost = a.iter().zip(b).filter(|(p, q)| p[0] > q[0]).count() as u64;
        let won = a.iter().zip(b).filter(|(p, q)| p[0] < q[0]).count() as u64;
        Some(mcnemar(lost, won))
    } else {
        let plain = influence(1., 1.);
        match plain {
            Some(se) if se > 0. => Some(two_sided((mb - ma) / se)),
            Some(_) if mb == ma => Some(1.),
            _ => None,
        }
    };
    Some(Paired { delta, stderr, p_value })
}

/// McNemar's exact two-sided test: `min(1, 2 * P[Binomial(b + c, 1/2) <= min(b, c)])`.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    let n = b + c;
    // Terms of the binomial in logarithms: C(n, j) overflows long before n is large.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let mut sum = 0.;
    for j in 0..=b.min(c) {
        sum += log_term.exp();
        log_term += ((n - j) as f64).ln() - ((j + 1) as f64).ln();
    }
    (2. * sum).min(1.)
}

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

/// The standard error of `statistic` as lm-evaluation-harness bootstraps it: replicates in blocks of at most 1000, each
/// block from a generator seeded with its number; then their sample standard deviation. `None` for fewer than two.
pub fn bootstrap(xs: &[f64], iterations: usize, statistic: impl Fn(&[f64]) -> f64 + Sync) -> Option<f64> {
    let block = iterations.min(1000);
    if xs.is_empty() || block == 0 {
        return None;
    }
    // A block needs nothing of another, and they are joined in order: threads cannot be seen in the error.
    let blocks = (0..iterations / block).into_par_iter().map(|seed| {
        let mut random = Random::new(seed as u64);
        let mut drawn = vec![0.; xs.len()];
        let one = |_| {
            drawn.iter_mut().for_each(|x| *x = xs[random.choice(xs.len())]);
            statistic(&drawn)
        };
        (0..block).map(one).collect::<Vec<f64>>()
    });
    let replicates = blocks.collect::<Vec<_>>().concat();
    let n = replicates.len() as f64;
    let mean = replicates.iter().sum::<f64>() / n;
    let spread: f64 = replicates.iter().map(|x| (x - mean).powi(2)).sum();
    (n > 1.).then(|| (spread / (n - 1.)).sqrt())
}

/// The mean of several means, each weighted by its size, and its standard error from the variance within them, as
/// lm-evaluation-harness gives a group's. Each part: value, standard error, size.
pub fn pooled(parts: &[(f64, f64, usize)]) -> Option<Estimate> {
    let n: usize = parts.iter().map(|p| p.2).sum();
    if n == 0 {
        return None;
    }
    let value = parts.iter().map(|p| p.0 * p.2 as f64).sum::<f64>() / n as f64;
    let within: f64 = parts.iter().map(|p| p.2.saturating_sub(1) as f64 * p.1 * p.1 * p.2 as f64).sum();
    let stderr = (n > parts.len()).then(|| (within / (n - parts.len()) as f64 / n as f64).sqrt());
    Some(Estimate { value, stderr, n })
}

/// The mean of several means, each counting the same, and its standard error, as lm-evaluation-harness gives a group's
/// where size does not count. Each part as in [`pooled`].
pub fn pooled_evenly(parts: &[(f64, f64, usize)]) -> Option<Estimate> {
    let k = parts.len() as f64;
    let value = parts.iter().map(|p| p.0).sum::<f64>() / k;
    let stderr = parts.iter().map(|p| p.1 * p.1).sum::<f64>().sqrt() / k;
    let n = parts.iter().map(|p| p.2).sum();
    (!parts.is_empty()).then_some(Estimate { value, stderr: Some(stderr), n })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_mean_has_the_textbook_error() {
        let e = ratio(&[[1., 1.], [2., 1.], [3., 1.], [6., 1.]], Scale::Plain).unwrap();
        assert_eq!((e.value, e.n), (3., 4));
        // Sample variance 14/3, over 4 items.
        assert!((e.stderr.unwrap() - (14. / 3. / 4f64).sqrt()).abs() < 1e-12);
    }

    #[test]
    fn absent_is_absent() {
        assert_eq!(ratio(&[], Scale::Plain), None);
        assert_eq!(ratio(&[[0., 0.]], Scale::Exp), None);
        assert_eq!(ratio(&[[1., 1.]], Scale::Plain).unwrap().stderr, None);
    }

    #[test]
    fn mcnemar_by_hand() {
        assert_eq!(mcnemar(0, 0), 1.);
        assert!((mcnemar(0, 5) - 2. / 32.).abs() < 1e-12);
        // C(10,0..=2) = 1 + 10 + 45, of 1024, doubled.
        assert!((mcnemar(2, 8) - 112. / 1024.).abs() < 1e-12);
        assert!(mcnemar(1000, 3000) < 1e-200);
    }

    #[test]
    fn pairing_sees_what_two_separate_errors_hide() {
        let a: Vec<Share> = (0..100).map(|i| [f64::from(i), 10.]).collect();
        let b: Vec<Share> = a.iter().map(|s| [s[0] + 1. + 0.01 * (s[0] % 3.), 10.]).collect();
        let p = paired(&a, &b, Scale::Exp).unwrap();
        let alone = ratio(&b, Scale::Exp).unwrap().stderr.unwrap();
        assert!(p.p_value.unwrap() < 1e-12 && p.delta > 0.);
        assert!(p.stderr.unwrap() < alone / 5.);
        assert_eq!(paired(&a, &a, Scale::Exp).unwrap().p_value, Some(1.));
    }

    #[test]
    fn quantiles() {
        assert!((normal_quantile(0.975) - 1.959_963_985).abs() < 1e-8);
        assert!((two_sided(1.959_963_985) - 0.05).abs() < 1e-9);
    }
}
