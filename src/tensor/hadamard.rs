//! Orthogonal transforms that spread a value over all channels: Hadamard matrices, by butterflies.
//!
//! `n = m 2^k`: `H = H_m (x) H_{2^k}`, with Sylvester's matrices for the powers of two. `H_m` is Paley's (1933), of order `q + 1` for
//! a prime `q = 3 (mod 4)`, of order `2 (q + 1)` for a prime `q = 1 (mod 4)`; or Williamson's (1944), of four symmetric circulants,
//! for 52, 156 and 172. Where no such order divides `n`, the odd part has the cosine transform (DCT-II), which is orthogonal and
//! nearly as flat. In that order QuaRot's matrices are these (`hadamard_utils.py`), but for multiples of 40.
use rayon::prelude::*;

/// An orthogonal matrix `[n, n]`, applied from the right: `x -> x H`.
#[derive(Clone, Debug)]
pub struct Hadamard {
    n: usize,
    /// What stands beside the powers of two, `[m, m]`, row by row.
    small: Vec<f32>,
    m: usize,
    flat: bool,
}

impl Hadamard {
    /// Of any order from 1.
    pub fn new(n: usize) -> Self {
        let odd = n >> n.trailing_zeros().min(usize::BITS - 1);
        let mut m = odd;
        // A larger power of two inside the small part may make it a Paley order.
        while m <= n && n.is_multiple_of(m) && m <= 2048 && odd > 1 {
            if let Some(small) = williamson(m).or_else(|| paley(m)) {
                return Self { n, small, m, flat: true };
            }
            m *= 2;
        }
        Self { n, small: cosine(odd), m: odd, flat: odd == 1 }
    }

    /// Whether all entries have one magnitude: a Hadamard matrix in the strict sense.
    pub fn is_flat(&self) -> bool {
        self.flat
    }

    /// `x H` in place, for one row of `n` numbers.
    pub fn apply(&self, x: &mut [f32]) {
        debug_assert_eq!(x.len(), self.n);
        let (m, width) = (self.m, self.n / self.m);
        if m > 1 {
            let mut all = vec![0f32; self.n];
            for (x, row) in x.chunks_exact(width).zip(self.small.chunks_exact(m)) {
                for (out, h) in all.chunks_exact_mut(width).zip(row) {
                    out.iter_mut().zip(x).for_each(|(o, x)| *o += h * x);
                }
            }
            x.copy_from_slice(&all);
        }
        let mut half = 1;
        while half < width {
            for pair in x.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            half *= 2;
        }
        let scale = (width as f64).sqrt().recip() as f32;
        if scale != 1. {
            x.iter_mut().for_each(|x| *x *= scale);
        }
    }

    /// `x H^T`, which undoes [`apply`](Hadamard::apply).
    pub fn undo(&self, x: &mut [f32]) {
        let turned = |i: usize, j: usize| self.small[j * self.m + i];
        let small = (0..self.m * self.m).map(|k| turned(k / self.m, k % self.m)).collect();
        // Sylvester's own are symmetric.
        Self { small, ..self.clone() }.apply(x);
    }

    /// Every row of a matrix.
    pub fn rows(&self, all: &mut [f32]) {
        all.par_chunks_mut(self.n.max(1)).for_each(|row| self.apply(row));
    }
}

/// A Hadamard matrix over the root of its order; `None` where Paley's constructions over primes give none.
fn paley(m: usize) -> Option<Vec<f32>> {
    let by = |m: usize| (m as f64).sqrt().recip() as f32;
    if m.is_multiple_of(4) && m > 4 && prime(m - 1) && (m - 1) % 4 == 3 {
        let s = skew(m - 1);
        return Some(
            s.into_iter()
                .enumerate()
                .map(|(k, v)| by(m) * if k % (m + 1) == 0 { v + 1. } else { v })
                .collect(),
        );
    }
    let q = (m / 2).checked_sub(1)?;
    if !m.is_multiple_of(4) || q < 5 || !prime(q) || q % 4 != 1 {
        return None;
    }
    // Of the symmetric conference matrix C: [C + 1, C - 1; C - 1, -C - 1].
    let (s, half) = (skew(q), q + 1);
    let entry = |k: usize| {
        let (i, j) = (k / m, k % m);
        let (v, one) = (s[i % half * half + j % half], f32::from(u8::from(i % half == j % half)));
        by(m)
            * match (i < half, j < half) {
                (true, true) => v + one,
                (false, false) => -v - one,
                _ => v - one,
            }
    };
    Some((0..m * m).map(entry).collect())
}

/// The conference matrix of order `q + 1` of the quadratic residues, ones in its first row: symmetric for `q = 1 (mod 4)`, else its
/// transpose is its negative.
fn skew(q: usize) -> Vec<f32> {
    let left = if q % 4 == 1 { 1. } else { -1. };
    let mut residue = vec![-1f32; q];
    residue[0] = 0.;
    (1..q).for_each(|i| residue[i * i % q] = 1.);
    let n = q + 1;
    let mut all = vec![0f32; n * n];
    for i in 0..n {
        for j in 0..n {
            all[i * n + j] = match (i, j) {
                (0, 0) => 0.,
                (0, _) => 1.,
                (_, 0) => left,
                _ => residue[(q + j - i) % q],
            };
        }
    }
    all
}

/// First rows of the circulants, a quarter of the order each.
const CIRCULANTS: [[&str; 4]; 3] = [
    ["+-+--++++--+-", "+---++++++---", "++-+--++--+-+", "+----+--+----"],
    [
        "+++--+-+-----+--++----++--+-----+-+--++",
        "++++---+--++----+-+--+-+----++--+---+++",
        "+++--++-+---+-+--+----+--+-+---+-++--++",
        "+---++-+-+-----+++-++-+++-----+-+-++---",
    ],
    [
        "+---++--++++-+-+++-++--++-+++-+-++++--++---",
        "++-++++++----+-+--++-++-++--+-+----++++++-+",
        "+++-+-++--+-+-++++-+----+-++++-+-+--++-+-++",
        "++---++++-+--+--++--------++--+--+-++++---+",
    ],
];

/// `[A B C D; -B A -D C; -C D A -B; -D -C B A]` over the root of its order, turned over; `None` where no circulants are known here.
fn williamson(m: usize) -> Option<Vec<f32>> {
    let rows = CIRCULANTS.iter().find(|rows| 4 * rows[0].len() == m)?;
    // Which circulant a block is, and its sign.
    const BLOCKS: [[(usize, f32); 4]; 4] = [
        [(0, 1.), (1, -1.), (2, -1.), (3, -1.)],
        [(1, 1.), (0, 1.), (3, 1.), (2, -1.)],
        [(2, 1.), (3, -1.), (0, 1.), (1, 1.)],
        [(3, 1.), (2, 1.), (1, -1.), (0, 1.)],
    ];
    let (part, by) = (m / 4, (m as f64).sqrt().recip() as f32);
    let entry = |k: usize| {
        let (i, j) = (k / m, k % m);
        let (which, sign) = BLOCKS[i / part][j / part];
        let plus = rows[which].as_bytes()[(part + j % part - i % part) % part] == b'+';
        if plus { sign * by } else { -sign * by }
    };
    Some((0..m * m).map(entry).collect())
}

fn prime(q: usize) -> bool {
    q > 1 && (2..).take_while(|d| d * d <= q).all(|d| !q.is_multiple_of(d))
}

fn cosine(m: usize) -> Vec<f32> {
    let n = m as f64;
    let entry = |k: usize| {
        let (i, j) = ((k / m) as f64, (k % m) as f64);
        let scale = if j == 0. { (1. / n).sqrt() } else { (2. / n).sqrt() };
        (scale * (std::f64::consts::PI * (i + 0.5) * j / n).cos()) as f32
    };
    (0..m * m).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orthogonal_and_flat() {
        for n in [1, 2, 4, 12, 20, 24, 28, 36, 40, 44, 60, 64, 76, 84, 108, 256, 7, 52, 86, 156, 172, 224] {
            let h = Hadamard::new(n);
            let mut all = vec![0f32; n * n];
            (0..n).for_each(|i| all[i * (n + 1)] = 1.);
            h.rows(&mut all);
            for i in 0..n {
                for j in 0..n {
                    let dot: f32 = (0..n).map(|k| all[i * n + k] * all[j * n + k]).sum();
                    assert!((dot - f32::from(u8::from(i == j))).abs() < 2e-5, "{n} {i} {j} {dot}");
                }
            }
            let root = (n as f32).sqrt().recip();
            let flat = all.iter().all(|x| (x.abs() - root).abs() < 1e-6);
            assert_eq!(flat, h.is_flat(), "{n}");
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7).sin()).collect();
            let mut y = x.clone();
            h.apply(&mut y);
            h.undo(&mut y);
            assert!(x.iter().zip(&y).all(|(a, b)| (a - b).abs() < 1e-5), "{n}");
        }
        // Those of models' feed-forwards: 11,008 = 172 x 64, 13,824 = 108 x 128, 14,336 = 28 x 512.
        assert!(
            [4096, 5120, 8192, 11_008, 13_824, 14_336, 28_672]
                .into_iter()
                .all(|n| Hadamard::new(n).is_flat())
        );
    }
}
