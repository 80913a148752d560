//! Does a model know what it knows? Its probabilities of a question's endings, held against which is right.
//!
//! A model believes in an ending with the softmax of the endings' log-likelihoods, as lm-evaluation-harness has it. `brier`
//! is a mean over questions. The expected calibration error is not: it is a sum over bins of `|sum of gaps|`, each question's
//! gap being 1 or 0 for right or wrong less the likeliest ending's probability. But once all questions have said which way
//! their bin errs, it is the mean of `sign of the bin * gap`: so it has shares that add up to it, and the spread of these
//! is its error to first order, as the delta method has it.
use super::choice::Answer;
use crate::stats::Share;

/// Bins of equal width, each with its upper end: `(0, 0.1]` and so on.
const BINS: usize = 10;

/// The endings' probabilities: the softmax of their log-likelihoods.
pub fn probabilities(answer: &Answer) -> Vec<f64> {
    let top = answer.log_probs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let weights: Vec<f64> = answer.log_probs.iter().map(|l| (l - top).exp()).collect();
    let all: f64 = weights.iter().sum();
    weights.into_iter().map(|w| w / all).collect()
}

/// `sum over endings of (probability - 1 if right else 0)^2` (Brier, 1950): 0 to 2.
pub fn brier(answer: &Answer) -> f64 {
    let square = |(i, p): (usize, f64)| (p - f64::from(u8::from(answer.is_right(i)))).powi(2);
    probabilities(answer).into_iter().enumerate().map(square).sum()
}

/// How sure a model was of its likeliest ending, and whether that was right.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Belief {
    confidence: f64,
    right: bool,
}

impl Belief {
    /// Of an answered question.
    pub fn of(answer: &Answer) -> Self {
        let best = answer.best(|_| 1.);
        let confidence = probabilities(answer).get(best).copied().unwrap_or(f64::NAN);
        Self { confidence, right: answer.is_right(best) }
    }

    /// Above zero where it was too unsure.
    pub fn gap(self) -> f64 {
        f64::from(u8::from(self.right)) - self.confidence
    }

    fn bin(self) -> usize {
        ((self.confidence * BINS as f64).ceil() as usize).clamp(1, BINS) - 1
    }
}

/// Shares whose mean is the expected calibration error (Guo et al., 2017).
pub fn shares(beliefs: &[Belief]) -> Vec<Share> {
    let mut sums = [0.; BINS];
    beliefs.iter().for_each(|b| sums[b.bin()] += b.gap());
    beliefs.iter().map(|b| [sums[b.bin()].signum() * b.gap(), 1.]).collect()
}
