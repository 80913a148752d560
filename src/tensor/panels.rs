//! A weight matrix laid out once, in the order in which products read it, and the product with it.
//!
//! ```text
//! w [out, in]  ->  panels [out / 32][in][32]          y [tokens, out] = x [tokens, in] w^T (+ bias)
//! ```
//! A task takes some rows and some panels: it copies its rows into strips, [`DEPTH`] inputs at a time, and runs every
//! strip against every panel while both are in the core's own cache. Which rows and panels meet in a task depends on the
//! number of threads; what comes out does not ([`strip`](super::strip)).
use super::{
    share::{Part, share},
    strip::{Aligned, Into, Product, WIDE, fitting, pack, rows},
};
use pulp::Arch;
use rayon::prelude::*;

/// Inputs of one sweep. Sums begin anew and are added where it ends, whatever the shape.
const DEPTH: usize = 512;
/// Rows of one task: with [`DEPTH`] inputs, 344 KB.
const ROWS: usize = 168;

/// See the module.
pub struct Panels {
    out: usize,
    inner: usize,
    data: Aligned,
}

impl Panels {
    /// From rows `[out, inner]`.
    ///
    /// # Panics
    /// Where there are fewer numbers than the sizes say: a bug of the caller, never of a file.
    pub fn new(w: &[f32], out: usize, inner: usize) -> Self {
        assert!(w.len() >= out * inner);
        let mut data = Aligned::new(out.div_ceil(WIDE) * WIDE * inner);
        if inner > 0 {
            data.get_mut().par_chunks_mut(WIDE * inner).zip(w.par_chunks(WIDE * inner)).for_each(
                |(panel, rows)| {
                    // By inputs in blocks, so that neither side leaves the cache.
                    for from in (0..inner).step_by(64) {
                        let to = (from + 64).min(inner);
                        pack(
                            rows.chunks_exact(inner).map(|r| &r[from..to]),
                            WIDE,
                            &mut panel[from * WIDE..to * WIDE],
                        );
                    }
                },
            );
        }
        Self { out, inner, data }
    }

    /// `(out, in)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.out, self.inner)
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        4 * self.data.get().len()
    }

    /// Writes row `row` of the matrix to `out`.
    pub fn row(&self, row: usize, out: &mut [f32]) {
        let panel = &self.data.get()[row / WIDE * WIDE * self.inner..];
        for (to, &v) in out.iter_mut().zip(panel[row % WIDE..].iter().step_by(WIDE)) {
            *to = v;
        }
    }

    /// All rows `[out, in]` again.
    pub fn rows(&self) -> Vec<f32> {
        let mut all = vec![0f32; self.out * self.inner];
        all.par_chunks_mut(self.inner.max(1)).enumerate().for_each(|(i, row)| self.row(i, row));
        all
    }

    /// `x [tokens, in]` times the transpose: `[tokens, out]`, the bias added last.
    ///
    /// # Panics
    /// Where `x` is no whole number of rows: a bug of the caller, never of a file.
    pub fn linear(&self, x: &[f32], bias: Option<&[f32]>) -> Vec<f32> {
        let tokens = x.len().checked_div(self.inner).unwrap_or(0);
        assert_eq!(tokens * self.inner, x.len());
        share(tokens, self.out, ROWS, tokens * self.inner * self.out, |part| self.run(x, part, bias))
    }

    fn run(&self, x: &[f32], mut part: Part, bias: Option<&[f32]>) {
        let arch = Arch::new();
        let (inner, tall, count) = (self.inner, rows(arch), part.out.len());
        let width = part.out.first().map_or(0, |row| row.len());
        let x = &x[part.row * inner..];
        // Strips: as many of full height as there are, and one that fits what is left.
        let heights: Vec<usize> = (0..count).step_by(tall).map(|at| fitting(count - at, tall)).collect();
        let total: usize = heights.iter().sum();
        thread_local! { static ROOM: std::cell::RefCell<Aligned> = std::cell::RefCell::default(); }
        let mut room = ROOM.take();
        let strips_room = room.at_least(total * DEPTH.min(inner));
        for begin in (0..inner).step_by(DEPTH) {
            let depth = DEPTH.min(inner - begin);
            let mut rest = &mut strips_room[..total * depth];
            let mut strips = Vec::with_capacity(heights.len());
            for (s, &height) in heights.iter().enumerate() {
                let (strip, later) = rest.split_at_mut(height * depth);
                let left = height.min(count - s * tall);
                let rows = x[s * tall * inner..].chunks_exact(inner).take(left);
                pack(rows.map(|r| &r[begin..begin + depth]), height, strip);
                strips.push((height, &*strip));
                rest = later;
            }
            let into = if begin == 0 { Into::Set } else { Into::Add };
            for p in 0..width.div_ceil(WIDE) {
                let at = ((part.panel + p) * inner + begin) * WIDE;
                let b = &self.data.get()[at..at + depth * WIDE];
                for (&(height, a), out) in strips.iter().zip(part.out.chunks_mut(tall)) {
                    let column = p * WIDE;
                    let (across, from, stride) = (height, 0, WIDE);
                    arch.dispatch(Product { a, across, from, height, b, stride, out, column, into });
                }
            }
        }
        ROOM.set(room);
        if let Some(bias) = bias {
            let bias = &bias[part.panel * WIDE..];
            for row in &mut part.out {
                row.iter_mut().zip(bias).for_each(|(y, b)| *y += b);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, seed: u32) -> Vec<f32> {
        let mut x = seed;
        let mut next = || {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x as f32 / u32::MAX as f32 - 0.5
        };
        (0..n).map(|_| next()).collect()
    }

    #[test]
    fn products_of_awkward_shapes() {
        for (tokens, inner, out) in
            [(1, 1, 1), (3, 5, 33), (14, 512, 32), (15, 513, 31), (170, 1030, 70), (29, 64, 1), (400, 7, 129)]
        {
            let (x, w, bias) = (noise(tokens * inner, 1), noise(out * inner, 2), noise(out, 3));
            let panels = Panels::new(&w, out, inner);
            assert_eq!(panels.rows(), w);
            let y = panels.linear(&x, Some(&bias));
            for (t, y) in y.chunks(out).enumerate() {
                for (o, y) in y.iter().enumerate() {
                    let (x, w) = (&x[t * inner..][..inner], &w[o * inner..][..inner]);
                    let exact: f64 = x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum();
                    let want = exact + f64::from(bias[o]);
                    assert!((f64::from(*y) - want).abs() < 1e-4, "{tokens} {inner} {out}: {y} not {want}");
                }
            }
        }
    }

    #[test]
    fn a_result_is_one_chain_of_fused_operations() {
        let (inner, out) = (700, 40);
        let (x, w) = (noise(inner, 4), noise(out * inner, 5));
        let y = Panels::new(&w, out, inner).linear(&x, None);
        for (y, w) in y.iter().zip(w.chunks(inner)) {
            let chain = |x: &[f32], w: &[f32]| x.iter().zip(w).fold(0f32, |sum, (x, w)| x.mul_add(*w, sum));
            let want = chain(&x[..DEPTH], &w[..DEPTH]) + chain(&x[DEPTH..], &w[DEPTH..]);
            assert_eq!(y.to_bits(), want.to_bits());
        }
    }
}
