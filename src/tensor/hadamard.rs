//! Orthogonal transforms that spread a value over all channels: Hadamard matrices, by butterflies.
//!
//! `n = 2^k m`: `H = H_{2^k} (x) H_m`, with Sylvester's matrices for the powers of two and Paley's for `m` (Paley, 1933): of order
//! `q + 1` for a prime `q = 3 (mod 4)`, of order `2 (q + 1)` for a prime `q = 1 (mod 4)`. Where no such order divides `n`, the odd
//! part has the cosine transform (DCT-II), which is orthogonal and nearly as flat.
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
            if let Some(small) = paley(m) {
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
        let m = self.m;
        if m > 1 {
            let mut out = vec![0f32; m];
            for part in x.chunks_exact_mut(m) {
                out.fill(0.);
                for (&v, row) in part.iter().zip(self.small.chunks_exact(m)) {
                    out.iter_mut().zip(row).for_each(|(o, h)| *o += v * h);
                }
                part.copy_from_slice(&out);
            }
        }
        let mut half = m;
        while half < self.n {
            for pair in x.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                a.iter_mut().zip(b).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
            }
            half *= 2;
        }
        let scale = ((self.n / m) as f64).sqrt().recip() as f32;
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
        let s = skew(m - 1, -1.);
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
    // Zeros of the symmetric conference matrix become [1 -1; -1 -1], others v [1 1; 1 -1].
    let (s, half) = (skew(q, 1.), q + 1);
    let mut all = vec![0f32; m * m];
    for i in 0..half {
        for j in 0..half {
            let v = s[i * half + j];
            let block = if v == 0. { [1., -1., -1., -1.] } else { [v, v, v, -v] };
            for (k, x) in block.into_iter().enumerate() {
                all[(2 * i + k / 2) * m + 2 * j + k % 2] = x * by(m);
            }
        }
    }
    Some(all)
}

/// The conference matrix of order `q + 1` of the quadratic residues: ones in the first row, `left` in the first column.
fn skew(q: usize, left: f32) -> Vec<f32> {
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
                _ => residue[(q + i - j) % q],
            };
        }
    }
    all
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
        for n in [1, 2, 4, 12, 20, 24, 28, 36, 40, 44, 60, 64, 76, 84, 108, 256, 7, 52, 86, 172, 224] {
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
        // Those of models' feed-forwards: 13,824 = 128 x 108, 14,336 = 512 x 28.
        assert!([4096, 5120, 8192, 13_824, 14_336, 28_672].into_iter().all(|n| Hadamard::new(n).is_flat()));
    }
}
