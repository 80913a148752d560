//! How far a quantized model's next-token distribution is from full precision's, position by position.
//!
//! Two models run side by side, exactly: no file of rounded reference logits, no cut-off, both directions. The formulas
//! are those of llama.cpp's `--kl-divergence`, without its 16-bit logits.
use super::{Lm, Logits, Names, Outcome, Outcomes, Sequence};
use crate::float::{log_sum_exp, top};
use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

/// Sums over a window's predicted tokens. P is full precision, Q the quantized model, y the token that came.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Gap {
    /// Predicted tokens.
    pub tokens: usize,
    /// `KL(P || Q)`, nats.
    pub kl: f64,
    /// `KL(Q || P)`, nats.
    pub kl_reverse: f64,
    /// Jensen-Shannon, nats.
    pub js: f64,
    /// How often both have the same likeliest token.
    pub same_top: usize,
    /// `Q(y) - P(y)`.
    pub delta_p: f64,
    /// Its square.
    pub delta_p2: f64,
    /// `-ln Q(y)`.
    pub nll: f64,
    /// `-ln P(y)`.
    pub nll_full: f64,
    /// `[KL(P || Q), tokens]` by how sure full precision was: ten bins of P's largest probability, each with its upper end.
    /// A sure prediction that moves is damage; a flat one moves at a touch.
    #[serde(default)]
    pub confidence: [[f64; 2]; 10],
}

/// Numbers of one model's logits that wait for the other's: 128 MB.
pub const WAITING: usize = 32 << 20;

/// An outcome a window.
pub fn run(lm: &mut dyn Lm, full: &mut dyn Lm, windows: &[Sequence]) -> Result<Outcomes> {
    ensure!(lm.vocab() == full.vocab(), "{} logits beside {}", lm.vocab(), full.vocab());
    let mut gaps = Vec::with_capacity(windows.len());
    let mut rest = windows;
    while !rest.is_empty() {
        // As many windows as may wait, and one at least: both models then run over a packed set.
        let mut waiting = 0;
        let fits = |w: &&Sequence| {
            waiting += w.predict.len() * lm.vocab();
            waiting <= WAITING
        };
        let (now, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        rest = later;
        let mut logits: Vec<Vec<f32>> = vec![Vec::new(); now.len()];
        lm.score(now, &mut |i, q| {
            logits[i].extend_from_slice(q.rows);
            Ok(())
        })?;
        let mut here = vec![Gap::default(); now.len()];
        full.score(now, &mut |i, p| {
            let rows = &logits[i][p.first * p.vocab..];
            let q = Logits { rows, ..p };
            let targets = p.targets(&now[i]);
            let each: Vec<Gap> =
                targets.par_iter().enumerate().map(|(t, &y)| gap(p.row(t), q.row(t), y as usize)).collect();
            here[i] = each.into_iter().fold(std::mem::take(&mut here[i]), sum);
            Ok(())
        })?;
        gaps.append(&mut here);
    }
    let mut names = Names::new();
    Ok(windows
        .iter()
        .zip(gaps)
        .map(|(w, gap)| (names.name(&super::bytes(&w.tokens)), Outcome::Divergence(gap)))
        .collect())
}

/// One position, from logits.
fn gap(p: &[f32], q: &[f32], y: usize) -> Gap {
    let (zp, zq) = (log_sum_exp(p), log_sum_exp(q));
    let (mut kl, mut kl_reverse, mut js) = (0., 0., 0.);
    for (&p, &q) in p.iter().zip(q) {
        let (lp, lq) = (f64::from(p) - zp, f64::from(q) - zq);
        let (pp, qq) = (lp.exp(), lq.exp());
        let middle = (0.5 * (pp + qq)).ln();
        kl += pp * (lp - lq);
        kl_reverse += qq * (lq - lp);
        if pp + qq > 0. {
            js += 0.5 * (pp * (lp - middle) + qq * (lq - middle));
        }
    }
    let likeliest = top(p);
    let sure = (f64::from(p[likeliest]) - zp).exp();
    let mut confidence = [[0.; 2]; 10];
    confidence[((sure * 10.).ceil() as usize).clamp(1, 10) - 1] = [kl, 1.];
    let (nll_full, nll) = (zp - f64::from(p[y]), zq - f64::from(q[y]));
    let delta_p = (-nll).exp() - (-nll_full).exp();
    Gap {
        tokens: 1,
        kl,
        kl_reverse,
        // No rounding makes a distance of nothing, or less.
        js: if p == q { 0. } else { js.max(0.) },
        same_top: usize::from(likeliest == top(q)),
        delta_p,
        delta_p2: delta_p * delta_p,
        nll,
        nll_full,
        confidence,
    }
}

fn sum(a: Gap, b: Gap) -> Gap {
    let mut confidence = a.confidence;
    confidence.iter_mut().zip(b.confidence).for_each(|(a, b)| (a[0], a[1]) = (a[0] + b[0], a[1] + b[1]));
    Gap {
        confidence,
        tokens: a.tokens + b.tokens,
        kl: a.kl + b.kl,
        kl_reverse: a.kl_reverse + b.kl_reverse,
        js: a.js + b.js,
        same_top: a.same_top + b.same_top,
        delta_p: a.delta_p + b.delta_p,
        delta_p2: a.delta_p2 + b.delta_p2,
        nll: a.nll + b.nll,
        nll_full: a.nll_full + b.nll_full,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        // P = (1/2, 1/2), Q = (3/4, 1/4).
        let g = gap(&[0., 0.], &[3f32.ln(), 0.], 0);
        let half = 0.5f64;
        assert!((g.kl - (half * (half / 0.75).ln() + half * (half / 0.25).ln())).abs() < 1e-7);
        assert!((g.kl_reverse - (0.75 * (0.75 / half).ln() + 0.25 * (0.25 / half).ln())).abs() < 1e-7);
        let js = half * (half * (half / 0.625).ln() + half * (half / 0.375).ln())
            + half * (0.75 * (0.75f64 / 0.625).ln() + 0.25 * (0.25f64 / 0.375).ln());
        assert!((g.js - js).abs() < 1e-7);
        assert!((g.delta_p - 0.25).abs() < 1e-7 && g.same_top == 1);
        // P's largest is 1/2: the fifth bin, at its upper end.
        assert_eq!((g.confidence[4], g.confidence[5]), ([g.kl, 1.], [0.; 2]));
    }
}
