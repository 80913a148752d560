//! Every metric: a share `[x, w]` of each outcome, and a scale in front of `sum(x) / sum(w)`.
use super::{Outcome, choice::Answer, divergence::Gap, generate, perplexity::Loss};
use crate::stats::{Scale, Share};

/// A number computed from outcomes. It knows which way is better, so that tables, charts and gates need not.
pub struct Metric {
    /// As tasks name it.
    pub name: &'static str,
    /// One line, with its formula.
    pub about: &'static str,
    /// The kinds of task that have it.
    pub of: &'static [&'static str],
    /// Which way is better.
    pub higher_is_better: bool,
    /// In front of the ratio.
    pub scale: Scale,
    /// What an outcome contributes; `None` where it is of another kind.
    pub share: fn(&Outcome) -> Option<Share>,
}

/// Every metric, in the order tables list them.
pub static METRICS: &[Metric] = &[
    Metric {
        name: "perplexity",
        about: "exp(nll / tokens); of a cloze, exp(nll / items)",
        of: &["perplexity", "cloze"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| match o {
            Outcome::Cloze(g) => Some([-g.log_prob, 1.]),
            _ => text(o, |l| [l.nll, l.tokens as f64]),
        },
    },
    Metric {
        name: "word_perplexity",
        about: "exp(nll / words); words as lm-evaluation-harness counts them, `rolling` only",
        of: &["perplexity"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| text(o, |l| [l.nll, l.words as f64]),
    },
    Metric {
        name: "byte_perplexity",
        about: "exp(nll / UTF-8 bytes), `rolling` only",
        of: &["perplexity"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| text(o, |l| [l.nll, l.bytes as f64]),
    },
    Metric {
        name: "bits_per_byte",
        about: "nll / (bytes ln 2), `rolling` only",
        of: &["perplexity"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| text(o, |l| [l.nll / std::f64::consts::LN_2, l.bytes as f64]),
    },
    Metric {
        name: "acc",
        about: "share of items whose right ending has the highest log-likelihood; of a cloze, whose ending is greedy",
        of: &["choice", "cloze"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| match o {
            Outcome::Cloze(g) => Some([f64::from(u8::from(g.greedy)), 1.]),
            _ => choice(o, |a| a.is_right(a.best(|_| 1.))),
        },
    },
    Metric {
        name: "acc_norm",
        about: "the same, log-likelihood divided by the ending's length in code points",
        of: &["choice"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| choice(o, |a| a.is_right(a.best(|i| a.chars[i] as f64))),
    },
    Metric {
        name: "acc_bytes",
        about: "the same, divided by its length in UTF-8 bytes",
        of: &["choice"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| choice(o, |a| a.is_right(a.best(|i| a.bytes[i] as f64))),
    },
    Metric {
        name: "mc2",
        about: "mean of the right endings' part of the probability of all (TruthfulQA's)",
        of: &["choice"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| match o {
            Outcome::Choice(a) => Some([a.right_mass(), 1.]),
            _ => None,
        },
    },
    Metric {
        name: "kl",
        about: "KL(full || quantized), nats a token",
        of: &["divergence"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| gap(o, |g| g.kl),
    },
    Metric {
        name: "kl_reverse",
        about: "KL(quantized || full), nats a token",
        of: &["divergence"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| gap(o, |g| g.kl_reverse),
    },
    Metric {
        name: "js",
        about: "Jensen-Shannon divergence, nats a token",
        of: &["divergence"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| gap(o, |g| g.js),
    },
    Metric {
        name: "same_top",
        about: "share of tokens where both have the same likeliest one",
        of: &["divergence"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| gap(o, |g| g.same_top as f64),
    },
    Metric {
        name: "delta_p",
        about: "mean change of the probability of the token that came",
        of: &["divergence"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| gap(o, |g| g.delta_p),
    },
    Metric {
        name: "rms_delta_p",
        about: "root mean square of that change",
        of: &["divergence"],
        higher_is_better: false,
        scale: Scale::Sqrt,
        share: |o| gap(o, |g| g.delta_p2),
    },
    Metric {
        name: "ppl_ratio",
        about: "PPL(quantized) / PPL(full), its error from the pairs",
        of: &["divergence"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| gap(o, |g| g.nll - g.nll_full),
    },
    Metric {
        name: "exact_match",
        about: "share of answers that are the gold one, after the first filter; `exact_match:NAME` after that one",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| generated(o, |a| Some([a.filtered.first()?.exact, 1.])),
    },
    Metric {
        name: "contains",
        about: "share of answers that a gold one stands in, after the first filter; ignores what `exact_match` ignores",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| generated(o, |a| Some([a.filtered.first()?.contains, 1.])),
    },
    Metric {
        name: "best_subspan_em",
        about: "the same of texts as SQuAD's script normalizes them: case, punctuation, articles, spaces",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| generated(o, |a| Some([a.filtered.first()?.subspan, 1.])),
    },
    Metric {
        name: "same_tokens",
        about: "tokens before the first that full precision would have written otherwise, a sample",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([s.full?.same as f64, 1.])),
    },
    Metric {
        name: "same_answer",
        about: "share of samples that full precision would have written token for token",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([f64::from(u8::from(s.full?.same == s.tokens.len())), 1.])),
    },
    Metric {
        name: "full_ppl",
        about: "exp(nll / tokens) of the answers under full precision",
        of: &["generate"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| sampled(o, |s| Some([s.full?.nll, s.tokens.len() as f64])),
    },
    Metric {
        name: "unfinished",
        about: "share of samples that the limit ended, neither EOS nor a stop text",
        of: &["generate"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([f64::from(u8::from(s.ended == generate::Ended::Limit)), 1.])),
    },
    Metric {
        name: "cut_prompts",
        about: "share of items whose prompt lost its left to fit the model",
        of: &["generate"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| generated(o, |a| Some([f64::from(u8::from(a.cut > 0)), 1.])),
    },
];

/// By name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    let base = if name.starts_with(OF_FILTER) { "exact_match" } else { name };
    METRICS.iter().find(|m| m.name == base)
}

/// `exact_match:strict-match`.
const OF_FILTER: &str = "exact_match:";

/// What an outcome contributes to a metric by its name, a filter's among them.
pub fn share(name: &str, outcome: &Outcome) -> Option<Share> {
    match name.strip_prefix(OF_FILTER) {
        Some(filter) => {
            generated(outcome, |a| Some([a.filtered.iter().find(|f| f.filter == filter)?.exact, 1.]))
        }
        None => (metric(name)?.share)(outcome),
    }
}

/// The error of a perplexity as if tokens were independent: `ppl * sqrt((mean(nll^2) - mean(nll)^2) / (n - 1))`, as
/// llama.cpp prints it.
pub fn independent_stderr(outcomes: &[Outcome]) -> Option<f64> {
    let (mut nll, mut nll2, mut n) = (0., 0., 0.);
    for outcome in outcomes {
        let Outcome::Text(loss) = outcome else { return None };
        nll += loss.nll;
        nll2 += loss.nll2;
        n += loss.tokens as f64;
    }
    let mean = nll / n;
    (n > 1.).then(|| mean.exp() * ((nll2 / n - mean * mean).max(0.) / (n - 1.)).sqrt())
}

fn text(o: &Outcome, f: impl Fn(&Loss) -> Share) -> Option<Share> {
    match o {
        Outcome::Text(loss) => Some(f(loss)),
        _ => None,
    }
}
fn choice(o: &Outcome, right: impl Fn(&Answer) -> bool) -> Option<Share> {
    match o {
        Outcome::Choice(a) => Some([f64::from(u8::from(right(a))), 1.]),
        _ => None,
    }
}
fn generated(o: &Outcome, f: impl Fn(&generate::Answer) -> Option<Share>) -> Option<Share> {
    match o {
        Outcome::Generated(a) => f(a),
        _ => None,
    }
}
/// Summed over an item's samples.
fn sampled(o: &Outcome, f: impl Fn(&generate::Sample) -> Option<Share>) -> Option<Share> {
    let add = |sum: Share, x: Share| [sum[0] + x[0], sum[1] + x[1]];
    generated(o, |a| a.samples.iter().try_fold([0.; 2], |sum, s| Some(add(sum, f(s)?))))
}
fn gap(o: &Outcome, f: impl Fn(&Gap) -> f64) -> Option<Share> {
    match o {
        Outcome::Divergence(g) => Some([f(g), g.tokens as f64]),
        _ => None,
    }
}
