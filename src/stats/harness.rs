//! Errors as lm-evaluation-harness has them: bootstrapped, and pooled over the parts of a group.
use super::Estimate;
use crate::random::Random;
use rayon::prelude::*;

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
