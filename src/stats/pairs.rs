//! Two runs over the same items: is the difference real, how large may it be, and what would have been seen?
//!
//! Both runs answered the same items, so what differs is each item's own difference: a test on those sees what two separate
//! errors hide (Miller, 2024, arXiv:2411.00640). Items that belong together (questions on one article, windows of one text)
//! are clusters: they err together, and count as one draw in every error here.
use super::{Scale, Share, normal_quantile, student_two_sided};
use crate::random::Random;
use rayon::prelude::*;

/// Replicates of a bootstrap.
pub const REPLICATES: usize = 2000;

/// Replicates drawn by one generator: threads share the work by blocks, and cannot be seen in it.
const BLOCK: usize = 100;

/// Items under two runs: `a`, that of reference, and `b`.
#[derive(Clone, Debug)]
pub struct Pairs {
    scale: Scale,
    items: Vec<[Share; 2]>,
    /// The cluster of each item, from 0 on in order of appearance.
    clusters: Vec<usize>,
    count: usize,
    a: Sum,
    b: Sum,
}

/// One run's sums.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    x: f64,
    w: f64,
}

impl Sum {
    fn add(&mut self, share: Share) {
        self.x += share[0];
        self.w += share[1];
    }
    fn ratio(self) -> f64 {
        self.x / self.w
    }
}

/// Answers that changed, where every item is right or wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flips {
    /// Right before, wrong now.
    pub lost: u64,
    /// Wrong before, right now.
    pub won: u64,
}

/// An interval.
pub type Interval = [f64; 2];

/// Intervals of one bootstrap: percentiles of its replicates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Of `b - a`.
    pub delta: Interval,
    /// Of `b / a`; `None` where a replicate has none.
    pub ratio: Option<Interval>,
    /// Of `(b - chance) / (a - chance)`, where a chance was given and every replicate has one.
    pub above_chance: Option<Interval>,
}

impl Pairs {
    /// The same items in the same order. `None` where the runs differ in length, or one has no weight.
    pub fn new(a: &[Share], b: &[Share], scale: Scale) -> Option<Self> {
        if a.len() != b.len() || a.is_empty() {
            return None;
        }
        let (mut sum_a, mut sum_b) = (Sum::default(), Sum::default());
        a.iter().for_each(|&s| sum_a.add(s));
        b.iter().for_each(|&s| sum_b.add(s));
        if sum_a.w <= 0. || sum_b.w <= 0. {
            return None;
        }
        let items: Vec<[Share; 2]> = a.iter().zip(b).map(|(&a, &b)| [a, b]).collect();
        let count = items.len();
        Some(Self { scale, items, clusters: (0..count).collect(), count, a: sum_a, b: sum_b })
    }

    /// The same, items in clusters: one name an item, in order. Names that are alike are one cluster.
    pub fn clustered<K: Ord>(mut self, names: &[K]) -> Self {
        debug_assert_eq!(names.len(), self.items.len());
        let mut known = std::collections::BTreeMap::new();
        self.clusters = names
            .iter()
            .map(|name| {
                let next = known.len();
                *known.entry(name).or_insert(next)
            })
            .collect();
        self.count = known.len();
        self
    }

    /// Items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Never: there are no pairs of nothing.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Clusters; as many as items where none were named.
    pub fn clusters(&self) -> usize {
        self.count
    }

    /// `a` and `b` on the scale people read.
    pub fn values(&self) -> [f64; 2] {
        [self.a, self.b].map(|sum| self.scale.apply(sum.ratio()))
    }

    /// `b - a` on the scale people read.
    pub fn delta(&self) -> f64 {
        let [a, b] = self.values();
        b - a
    }

    /// One standard error of [`Pairs::delta`], by the delta method, clustered:
    /// `SE^2 = G / (G - 1) * sum over clusters of (sum of their items' influence)^2`. `None` of one cluster.
    pub fn stderr(&self) -> Option<f64> {
        self.influence(self.scale.slope(self.a.ratio()), self.scale.slope(self.b.ratio()))
    }

    /// The same as if the two runs had seen other items: what pairing saves is the difference.
    pub fn stderr_unpaired(&self) -> Option<f64> {
        let [a, b] = [
            self.influence(self.scale.slope(self.a.ratio()), 0.)?,
            self.influence(0., self.scale.slope(self.b.ratio()))?,
        ];
        Some((a * a + b * b).sqrt())
    }

    /// The error of `db * mb - da * ma`, where `ma` and `mb` are the two ratios.
    fn influence(&self, da: f64, db: f64) -> Option<f64> {
        let (ma, mb) = (self.a.ratio(), self.b.ratio());
        let mut sums = vec![0.; self.count];
        for ([p, q], &cluster) in self.items.iter().zip(&self.clusters) {
            sums[cluster] += db * (q[0] - mb * q[1]) / self.b.w - da * (p[0] - ma * p[1]) / self.a.w;
        }
        let n = self.count as f64;
        let sum: f64 = sums.iter().map(|s| s * s).sum();
        (self.count > 1).then(|| (n / (n - 1.) * sum).sqrt())
    }

    /// How far items moved, as a part of their size: `sqrt(sum (x_b - x_a)^2 / sum x_a^2)`. 0 only where every item is what it
    /// was; `None` where items were 0 and are not.
    pub fn distance(&self) -> Option<f64> {
        let sum = |of: fn(&[Share; 2]) -> f64| self.items.iter().map(|i| of(i).powi(2)).sum::<f64>();
        let (moved, size) = (sum(|[p, q]| q[0] - p[0]), sum(|[p, _]| p[0]));
        if moved == 0. { Some(0.) } else { Some((moved / size).sqrt()).filter(|d| d.is_finite()) }
    }

    /// Answers that changed. `None` where items are not simply right or wrong.
    pub fn flips(&self) -> Option<Flips> {
        let binary = |s: &Share| s[1] == 1. && (s[0] == 0. || s[0] == 1.);
        if !self.items.iter().flatten().all(binary) {
            return None;
        }
        let count = |way: fn(f64, f64) -> bool| self.items.iter().filter(|[p, q]| way(p[0], q[0])).count();
        Some(Flips { lost: count(|p, q| p > q) as u64, won: count(|p, q| p < q) as u64 })
    }

    /// Two-sided: McNemar's exact test where every item is right or wrong and stands for itself, else [`Pairs::p_mean`].
    pub fn p_value(&self) -> Option<f64> {
        match self.flips().filter(|_| self.count == self.items.len()) {
            Some(flips) => Some(mcnemar(flips.lost, flips.won)),
            None => self.p_mean(),
        }
    }

    /// Two-sided, Student's t of the clusters' differences before the scale, with one degree of freedom less than there are
    /// clusters. `None` where nothing varies and the runs differ all the same, or of one cluster.
    pub fn p_mean(&self) -> Option<f64> {
        let (ma, mb) = (self.a.ratio(), self.b.ratio());
        match self.influence(1., 1.) {
            Some(se) if se > 0. => Some(student_two_sided((mb - ma) / se, self.count as f64 - 1.)),
            Some(_) if mb == ma => Some(1.),
            _ => None,
        }
    }

    /// The smallest true difference that a two-sided test at `alpha` finds with probability `power`:
    /// `(z(1 - alpha / 2) + z(power)) * SE` (Miller, 2024, section 5).
    pub fn detectable(&self, alpha: f64, power: f64) -> Option<f64> {
        Some((normal_quantile(1. - alpha / 2.) + normal_quantile(power)) * self.stderr()?)
    }

    /// Percentile intervals at `level` of the differences and ratios of [`REPLICATES`] resamples: whole clusters are drawn,
    /// the same for both runs. Every block of replicates has its own generator, so the same seed gives the same bits on any
    /// number of threads. `None` of one cluster.
    pub fn bootstrap(&self, level: f64, chance: Option<f64>, seed: u64) -> Option<Bootstrap> {
        if self.count < 2 {
            return None;
        }
        let mut sums = vec![[Sum::default(); 2]; self.count];
        for ([p, q], &cluster) in self.items.iter().zip(&self.clusters) {
            sums[cluster][0].add(*p);
            sums[cluster][1].add(*q);
        }
        let block = |number: usize| -> Vec<[f64; 2]> {
            let mut random = Random::new(seed.wrapping_mul(1_000_003).wrapping_add(number as u64));
            let one = |_| {
                let (mut a, mut b) = (Sum::default(), Sum::default());
                for _ in 0..self.count {
                    let [p, q] = sums[random.choice(self.count)];
                    (a.x, a.w, b.x, b.w) = (a.x + p.x, a.w + p.w, b.x + q.x, b.w + q.w);
                }
                [a, b].map(|sum| self.scale.apply(sum.ratio()))
            };
            (0..BLOCK).map(one).collect()
        };
        let blocks: Vec<Vec<[f64; 2]>> = (0..REPLICATES / BLOCK).into_par_iter().map(block).collect();
        let all = blocks.concat();
        let interval = |of: &dyn Fn(f64, f64) -> f64| {
            let mut values: Vec<f64> = all.iter().map(|&[a, b]| of(a, b)).collect();
            values.iter().all(|v| v.is_finite()).then(|| {
                values.sort_by(f64::total_cmp);
                [(1. - level) / 2., (1. + level) / 2.].map(|p| percentile(&values, p))
            })
        };
        let above = |chance: f64| {
            move |a: f64, b: f64| if a > chance { (b - chance) / (a - chance) } else { f64::NAN }
        };
        Some(Bootstrap {
            delta: interval(&|a, b| b - a)?,
            ratio: interval(&|a, b| b / a),
            above_chance: chance.and_then(|c| interval(&above(c))),
        })
    }
}

/// Items with which a one-sided test at `alpha` would tell a difference from a limit that it is `gap` away from, with
/// probability `power`, the spread of `n` items taken to stay as it is: `n * ((z(1 - alpha) + z(power)) * SE / gap)^2`. At
/// least `n`; `None` where no number of items is enough.
pub fn needed(n: usize, stderr: f64, gap: f64, alpha: f64, power: f64) -> Option<f64> {
    let z = normal_quantile(1. - alpha) + normal_quantile(power);
    let items = (n as f64 * (z * stderr / gap).powi(2)).ceil();
    items.is_finite().then(|| items.max(n as f64))
}

/// Of sorted values, the one below which a part `p` of them lies, between neighbours in proportion (numpy's `linear`).
pub fn percentile(sorted: &[f64], p: f64) -> f64 {
    let at = p * (sorted.len() - 1) as f64;
    let low = at.floor() as usize;
    let high = (low + 1).min(sorted.len() - 1);
    sorted[low] + (at - low as f64) * (sorted[high] - sorted[low])
}

/// McNemar's exact two-sided test: `min(1, 2 * P[Binomial(b + c, 1/2) <= min(b, c)])`.
pub fn mcnemar(b: u64, c: u64) -> f64 {
    (2. * tail(b, c).0).min(1.)
}

/// The same with half of the probability of what was seen (Fagerland, Lydersen and Laake, 2013): less cautious, and closer to
/// the level promised where few answers changed.
pub fn mcnemar_mid(b: u64, c: u64) -> f64 {
    let (sum, last) = tail(b, c);
    match b + c {
        0 => 1.,
        // What was seen lies in the middle: once, not once on either side.
        _ if b == c => 1. - last / 2.,
        _ => 2. * sum - last,
    }
}

/// `P[Binomial(b + c, 1/2) <= min(b, c)]`, and the last term of that sum.
fn tail(b: u64, c: u64) -> (f64, f64) {
    let n = b + c;
    // Terms of the binomial in logarithms: C(n, j) overflows long before n is large.
    let mut log_term = -(n as f64) * std::f64::consts::LN_2;
    let (mut sum, mut last) = (0., 0.);
    for j in 0..=b.min(c) {
        last = log_term.exp();
        sum += last;
        log_term += ((n - j) as f64).ln() - ((j + 1) as f64).ln();
    }
    (sum, last)
}

/// p-values that hold together: Holm's step-down correction (Holm 1979, Scand. J. Statist. 6, 65-70), in the order given.
pub fn holm(p: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|&a, &b| p[a].total_cmp(&p[b]));
    let mut adjusted = vec![0.; p.len()];
    let mut floor = 0f64;
    for (rank, &i) in order.iter().enumerate() {
        floor = floor.max(((p.len() - rank) as f64 * p[i]).min(1.));
        adjusted[i] = floor;
    }
    adjusted
}
