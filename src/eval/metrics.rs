//! Every metric: a share `[x, w]` of each outcome, and a scale in front of `sum(x) / sum(w)`.
use super::{Outcome, calibration, choice::Answer, divergence::Gap, generate, perplexity::Loss};
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
    /// What an outcome contributes; `None` where it is of another kind. Of `ece`, before [`shares`] has seen the others.
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
        name: "brier",
        about: "squared distance of the endings' probabilities (softmax of log-likelihoods) from the truth",
        of: &["choice"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| match o {
            Outcome::Choice(a) => Some([calibration::brier(a), 1.]),
            _ => None,
        },
    },
    Metric {
        name: "ece",
        about: "expected calibration error: |how often it is right - the likeliest ending's probability|, by ten bins of it",
        of: &["choice"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| match o {
            Outcome::Choice(a) => Some([calibration::Belief::of(a).gap(), 1.]),
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
        of: &["generate", "dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| exact(o, None),
    },
    Metric {
        name: "exact_match_before",
        about: "the same of the questions as they were before something was done to them (`before`)",
        of: &["generate"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| before(o, None),
    },
    Metric {
        name: "exact_match_drop",
        about: "1 - exact_match / exact_match_before",
        of: &["generate"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| dropped(o, None),
    },
    Metric {
        name: "unparsed",
        about: "share of answers in which the first filter found nothing; `unparsed:NAME` of that one",
        of: &["generate", "dialogue"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| unparsed(o, None),
    },
    Metric {
        name: "contains",
        about: "share of answers that a gold one stands in, after the first filter; ignores what `exact_match` ignores",
        of: &["generate", "dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| filtered(o, None, |f| f.contains),
    },
    Metric {
        name: "best_subspan_em",
        about: "the same of texts as SQuAD's script normalizes them: case, punctuation, articles, spaces",
        of: &["generate", "dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| filtered(o, None, |f| f.subspan),
    },
    Metric {
        name: "same_tokens",
        about: "tokens before the first that full precision would have written otherwise, a sample",
        of: &["generate", "dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([s.full?.same as f64, 1.])),
    },
    Metric {
        name: "same_answer",
        about: "share of samples that full precision would have written token for token",
        of: &["generate", "dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([f64::from(u8::from(s.full?.same == s.tokens.len())), 1.])),
    },
    Metric {
        name: "full_ppl",
        about: "exp(nll / tokens) of the answers under full precision",
        of: &["generate", "dialogue"],
        higher_is_better: false,
        scale: Scale::Exp,
        share: |o| sampled(o, |s| Some([s.full?.nll, s.tokens.len() as f64])),
    },
    Metric {
        name: "unfinished",
        about: "share of samples that the limit ended, neither EOS nor a stop text",
        of: &["generate", "dialogue"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| sampled(o, |s| Some([f64::from(u8::from(s.ended == generate::Ended::Limit)), 1.])),
    },
    Metric {
        name: "cut_prompts",
        about: "share of items with a prompt that lost its left to fit the model",
        of: &["generate", "dialogue"],
        higher_is_better: false,
        scale: Scale::Plain,
        share: |o| match o {
            Outcome::Generated(a) => Some([f64::from(u8::from(a.cut > 0)), 1.]),
            Outcome::Dialogue(a) => Some([f64::from(u8::from(a.turns.iter().any(|t| t.cut > 0))), 1.]),
            _ => None,
        },
    },
    Metric {
        name: "judge",
        about: "mean of what a judge gave the answers; there once `bitsweep judge` has asked it",
        of: &["dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| judged(o, |_| true),
    },
    Metric {
        name: "judge_turn_1",
        about: "the same, of first answers",
        of: &["dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| judged(o, |turn| turn == 0),
    },
    Metric {
        name: "judge_turn_2",
        about: "the same, of second answers",
        of: &["dialogue"],
        higher_is_better: true,
        scale: Scale::Plain,
        share: |o| judged(o, |turn| turn == 1),
    },
];

/// Metrics of what a filter leaves: the first one's, or that of the name behind a colon, `exact_match:strict-match`.
const OF_FILTER: [&str; 4] = ["exact_match", "exact_match_before", "exact_match_drop", "unparsed"];

/// A metric's own name, and the filter's.
fn split(name: &str) -> (&str, Option<&str>) {
    match name.split_once(':') {
        Some((base, filter)) if OF_FILTER.contains(&base) => (base, Some(filter)),
        _ => (name, None),
    }
}

/// By name.
pub fn metric(name: &str) -> Option<&'static Metric> {
    let (base, _) = split(name);
    METRICS.iter().find(|m| m.name == base)
}

/// What an outcome contributes to a metric by its name, a filter's among them.
pub fn share(name: &str, outcome: &Outcome) -> Option<Share> {
    match split(name) {
        ("exact_match", filter @ Some(_)) => exact(outcome, filter),
        ("exact_match_before", filter @ Some(_)) => before(outcome, filter),
        ("exact_match_drop", filter @ Some(_)) => dropped(outcome, filter),
        ("unparsed", filter @ Some(_)) => unparsed(outcome, filter),
        (base, _) => (metric(base)?.share)(outcome),
    }
}

/// What every outcome contributes; `None` where one contributes nothing.
pub fn shares(name: &str, outcomes: &[Outcome]) -> Option<Vec<Share>> {
    if name == "ece" {
        let answer = |o: &Outcome| match o {
            Outcome::Choice(a) => Some(calibration::Belief::of(a)),
            _ => None,
        };
        return outcomes.iter().map(answer).collect::<Option<Vec<_>>>().map(|all| calibration::shares(&all));
    }
    outcomes.iter().map(|o| share(name, o)).collect()
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
/// Summed over an item's samples, or a talk's turns.
fn sampled(o: &Outcome, f: impl Fn(&generate::Sample) -> Option<Share>) -> Option<Share> {
    match o {
        Outcome::Generated(a) => sum(a.samples.iter().map(f)),
        Outcome::Dialogue(a) => sum(a.turns.iter().map(|t| f(&t.sample))),
        _ => None,
    }
}
fn sum(mut shares: impl Iterator<Item = Option<Share>>) -> Option<Share> {
    shares.try_fold([0.; 2], |sum, s| s.map(|s| [sum[0] + s[0], sum[1] + s[1]]))
}
/// A number of what a filter by name, or the first, made of an item; over a talk's turns that have a gold answer.
fn filtered(o: &Outcome, name: Option<&str>, number: fn(&generate::Filtered) -> f64) -> Option<Share> {
    let of = |all: &[generate::Filtered]| Some([number(named(all, name)?), 1.]);
    match o {
        Outcome::Generated(a) => of(&a.filtered),
        Outcome::Dialogue(a) => {
            sum(a.turns.iter().filter(|t| !t.filtered.is_empty()).map(|t| of(&t.filtered)))
        }
        _ => None,
    }
}
fn named<'a>(all: &'a [generate::Filtered], name: Option<&str>) -> Option<&'a generate::Filtered> {
    all.iter().find(|f| name.is_none_or(|name| f.filter == name))
}
fn exact(o: &Outcome, name: Option<&str>) -> Option<Share> {
    filtered(o, name, |f| f.exact)
}
fn unparsed(o: &Outcome, name: Option<&str>) -> Option<Share> {
    filtered(o, name, |f| f.unparsed)
}
fn before(o: &Outcome, name: Option<&str>) -> Option<Share> {
    let Outcome::Generated(a) = o else { return None };
    Some([named(&a.before.as_ref()?.filtered, name)?.exact, 1.])
}
/// `1 - sum(after) / sum(before)` is a ratio of sums too.
fn dropped(o: &Outcome, name: Option<&str>) -> Option<Share> {
    let (after, before) = (exact(o, name)?[0], before(o, name)?[0]);
    Some([before - after, before])
}
/// What a judge gave a talk's turns, of those that `turn` picks.
fn judged(o: &Outcome, turn: impl Fn(usize) -> bool) -> Option<Share> {
    let Outcome::Dialogue(a) = o else { return None };
    sum(a.turns.iter().enumerate().filter(|(i, _)| turn(*i)).map(|(_, t)| Some([t.score?, 1.])))
}
fn gap(o: &Outcome, f: impl Fn(&Gap) -> f64) -> Option<Share> {
    match o {
        Outcome::Divergence(g) => Some([f(g), g.tokens as f64]),
        _ => None,
    }
}
