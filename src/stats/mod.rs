//! Numbers with their uncertainty.
//!
//! Every metric here is a *ratio of sums over items*, `sum(x) / sum(w)`, seen through a monotone [`Scale`]: accuracy has
//! `x` in {0, 1} and `w = 1`; perplexity has `x = nll`, `w = tokens` and `exp` in front. One estimator then gives every
//! value its standard error, clustered by item (a window, a document, a question), and every pair of runs its paired
//! difference.
mod harness;
mod normal;
pub mod pairs;
mod student;

pub use harness::{bootstrap, pooled, pooled_evenly};
pub use normal::{normal_quantile, two_sided};
pub use pairs::{Pairs, holm, mcnemar, mcnemar_mid, needed};
pub use student::{student_quantile, student_two_sided};

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
        assert_eq!((mcnemar(0, 0), mcnemar_mid(0, 0)), (1., 1.));
        assert!((mcnemar(0, 5) - 2. / 32.).abs() < 1e-12);
        // C(10,0..=2) = 1 + 10 + 45, of 1024, doubled; the mid-p takes the last once.
        assert!((mcnemar(2, 8) - 112. / 1024.).abs() < 1e-12);
        assert!((mcnemar_mid(8, 2) - (112. - 45.) / 1024.).abs() < 1e-12);
        assert!((mcnemar_mid(1, 1) - 0.75).abs() < 1e-12);
        assert!(mcnemar(1000, 3000) < 1e-200);
    }

    #[test]
    fn pairing_sees_what_two_separate_errors_hide() {
        let a: Vec<Share> = (0..100).map(|i| [f64::from(i), 10.]).collect();
        let b: Vec<Share> = a.iter().map(|s| [s[0] + 1. + 0.01 * (s[0] % 3.), 10.]).collect();
        let p = Pairs::new(&a, &b, Scale::Exp).unwrap();
        assert!(p.p_value().unwrap() < 1e-12 && p.delta() > 0.);
        assert!(p.stderr().unwrap() < p.stderr_unpaired().unwrap() / 5.);
        assert_eq!(Pairs::new(&a, &a, Scale::Exp).unwrap().p_value(), Some(1.));
    }

    #[test]
    fn clusters_are_what_is_drawn() {
        // Every item four times: four times the items, and not a bit more to know.
        let a: Vec<Share> = (0..30).map(|i| [f64::from(i % 2), 1.]).collect();
        let b: Vec<Share> = (0..30).map(|i| [f64::from(u8::from(i % 7 < 2)), 1.]).collect();
        let four = |s: &[Share]| s.iter().flat_map(|s| [*s; 4]).collect::<Vec<_>>();
        let names: Vec<usize> = (0..120).map(|i| i / 4).collect();
        let once = Pairs::new(&a, &b, Scale::Plain).unwrap();
        let copied = Pairs::new(&four(&a), &four(&b), Scale::Plain).unwrap();
        assert!(copied.stderr().unwrap() < 0.51 * once.stderr().unwrap());
        let clustered = copied.clustered(&names);
        assert_eq!((clustered.len(), clustered.clusters()), (120, 30));
        assert!((clustered.stderr().unwrap() - once.stderr().unwrap()).abs() < 1e-12);
        let [p, q] = [&once, &clustered].map(|p| p.bootstrap(0.95, None, 1).unwrap().delta);
        assert!(p.iter().zip(q).all(|(a, b)| (a - b).abs() < 1e-12), "{p:?} {q:?}");
    }

    #[test]
    fn quantiles() {
        assert!((normal_quantile(0.975) - 1.959_963_985).abs() < 1e-8);
        assert!((two_sided(1.959_963_985) - 0.05).abs() < 1e-9);
    }
}
