//! The inner loops of every f32 product: a strip of a few rows times a panel of 32 columns, kept in registers.
//!
//! ```text
//! a [depth][rows]   rows of the left side, one column after another      -> a broadcast a number
//! b [depth][32]     columns of the right side, one row after another     -> one or two vectors a row
//! c = sum over depth of a b, in order, multiplication and addition fused
//! ```
//! A number of `c` is one chain of fused operations, whatever stands beside it and however wide the machine's vectors
//! are: so packing, sharing and the instruction set cannot move a bit.
use super::rows::{Fresh, build, zeros};
use pulp::{Arch, Simd, WithSimd};

/// Columns of a panel.
pub const WIDE: usize = 32;

/// Numbers that begin where a cache line does.
#[derive(Debug, Default)]
pub struct Aligned {
    room: Vec<f32>,
    at: usize,
    len: usize,
}

impl Aligned {
    /// Zeros.
    pub fn new(len: usize) -> Self {
        let room = zeros(len + 16);
        let at = room.as_ptr().align_offset(64).min(16);
        Self { room, at, len }
    }

    /// As many as `f` clears every part of; see [`build`].
    pub fn build(len: usize, f: impl FnOnce(Fresh)) -> Self {
        let mut at = 0;
        let room = build(len + 16, |room| {
            at = room.start().align_offset(64).min(16);
            let (before, rest) = room.split_at(at);
            let (mine, after) = rest.split_at(len);
            before.cleared();
            after.cleared();
            f(mine);
        });
        Self { room, at, len }
    }

    /// Room for at least `len` numbers, of which what is in them is not known.
    pub fn at_least(&mut self, len: usize) -> &mut [f32] {
        if self.len < len {
            *self = Self::new(len);
        }
        &mut self.get_mut()[..len]
    }

    /// The numbers.
    pub fn get(&self) -> &[f32] {
        &self.room[self.at..][..self.len]
    }

    /// The same, to write.
    pub fn get_mut(&mut self) -> &mut [f32] {
        &mut self.room[self.at..][..self.len]
    }
}

/// Rows of a strip on this machine: as many sums as its registers hold.
pub fn rows(arch: Arch) -> usize {
    struct Rows;
    impl WithSimd for Rows {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> usize {
            if S::F32_LANES >= 16 { 14 } else { 6 }
        }
    }
    arch.dispatch(Rows)
}

/// The narrowest kernel that takes `left` rows, of `rows` at most: 1, 2, 4, 8 or `rows`.
pub fn fitting(left: usize, rows: usize) -> usize {
    [1, 2, 4, 8].into_iter().find(|&n| left <= n && n < rows).unwrap_or(rows)
}

/// Copies rows into a strip `[depth][height]`; a row that is not there is zeros. By a few columns at a time, so that what is
/// written is in the first cache until it is whole.
#[inline(always)]
pub fn pack<'a>(rows: impl Iterator<Item = &'a [f32]>, height: usize, strip: &mut [f32]) {
    const COLUMNS: usize = 16;
    let mut all: [&[f32]; WIDE] = [&[]; WIDE];
    let mut count = 0;
    for (to, row) in all.iter_mut().zip(rows).take(height) {
        *to = row;
        count += 1;
    }
    for (block, strip) in strip.chunks_mut(COLUMNS * height).enumerate() {
        let depth = strip.len() / height;
        for (i, row) in all[..height].iter().enumerate() {
            let to = strip[i..].iter_mut().step_by(height);
            match row.get(block * COLUMNS..block * COLUMNS + depth) {
                Some(row) if i < count => to.zip(row).for_each(|(to, &v)| *to = v),
                _ => to.for_each(|v| *v = 0.),
            }
        }
    }
}

/// What becomes of a result.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// It replaces what is there.
    Set,
    /// It is added to that.
    Add,
}

/// Where a strip's rows go.
pub trait Rows {
    /// Row `i`; `None` where it is not wanted.
    fn row(&mut self, i: usize) -> Option<&mut [f32]>;
}

impl Rows for &mut [&mut [f32]] {
    #[inline(always)]
    fn row(&mut self, i: usize) -> Option<&mut [f32]> {
        self.get_mut(i).map(|row| &mut **row)
    }
}

/// Rows that lie one after another.
pub struct Flat<'a> {
    /// All of them.
    pub rows: &'a mut [f32],
    /// Numbers of each.
    pub width: usize,
}

impl Rows for Flat<'_> {
    #[inline(always)]
    fn row(&mut self, i: usize) -> Option<&mut [f32]> {
        self.rows.get_mut(i * self.width..(i + 1) * self.width)
    }
}

/// A strip of rows times a panel of columns.
pub struct Product<'a, R> {
    /// `[depth][across]`, of which the strip is the numbers `from .. from + height`.
    pub a: &'a [f32],
    /// Distance between rows of `a`.
    pub across: usize,
    /// Where the strip begins in them.
    pub from: usize,
    /// Rows of the result: one of [`fitting`]'s.
    pub height: usize,
    /// `[depth][stride]`.
    pub b: &'a [f32],
    /// Distance between rows of `b`; a multiple of 16.
    pub stride: usize,
    /// Rows of the result.
    pub out: R,
    /// Where in them the panel's first column goes; what does not fit is dropped.
    pub column: usize,
    /// See there.
    pub into: Into,
}

impl<R: Rows> WithSimd for Product<'_, R> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.height {
            14 => self.go::<S, 14>(simd),
            8 => self.go::<S, 8>(simd),
            6 => self.go::<S, 6>(simd),
            4 => self.go::<S, 4>(simd),
            2 => self.go::<S, 2>(simd),
            _ => self.go::<S, 1>(simd),
        }
    }
}

impl<R: Rows> Product<'_, R> {
    #[inline(always)]
    fn go<S: Simd, const ROWS: usize>(mut self, simd: S) {
        let mut at = 0;
        while at < self.stride {
            let left = self.stride - at;
            if left >= 2 * S::F32_LANES {
                let sums = self.sums::<S, ROWS, 2>(simd, at);
                self.store::<S, ROWS, 2>(simd, &sums, at);
                at += 2 * S::F32_LANES;
            } else {
                let sums = self.sums::<S, ROWS, 1>(simd, at);
                self.store::<S, ROWS, 1>(simd, &sums, at);
                at += S::F32_LANES;
            }
        }
    }

    #[inline(always)]
    fn sums<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &self,
        simd: S,
        at: usize,
    ) -> [[S::f32s; VECTORS]; ROWS] {
        let mut sums = [[simd.splat_f32s(0.); VECTORS]; ROWS];
        let rows = self.a.chunks_exact(self.across).filter_map(|a| a.get(self.from..)?.first_chunk::<ROWS>());
        for (a, b) in rows.zip(self.b.chunks_exact(self.stride)) {
            let (b, _) = S::as_simd_f32s(&b[at..at + VECTORS * S::F32_LANES]);
            let b: [S::f32s; VECTORS] = std::array::from_fn(|v| b[v]);
            for i in 0..ROWS {
                let a = simd.splat_f32s(a[i]);
                for v in 0..VECTORS {
                    sums[i][v] = simd.mul_add_f32s(a, b[v], sums[i][v]);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn store<S: Simd, const ROWS: usize, const VECTORS: usize>(
        &mut self,
        simd: S,
        sums: &[[S::f32s; VECTORS]; ROWS],
        at: usize,
    ) {
        let (column, set) = (self.column + at, self.into == Into::Set);
        for (i, sums) in sums.iter().enumerate() {
            let Some(row) = self.out.row(i) else { return };
            let begin = column.min(row.len());
            let end = (begin + VECTORS * S::F32_LANES).min(row.len());
            let row = &mut row[begin..end];
            if row.len() == VECTORS * S::F32_LANES {
                let (to, _) = S::as_mut_simd_f32s(row);
                for (to, &sum) in to.iter_mut().zip(sums) {
                    *to = if set { sum } else { simd.add_f32s(*to, sum) };
                }
            } else {
                let mut flat = [0f32; WIDE];
                let (to, _) = S::as_mut_simd_f32s(&mut flat);
                for (to, &sum) in to.iter_mut().zip(sums) {
                    *to = sum;
                }
                for (to, sum) in row.iter_mut().zip(flat) {
                    *to = if set { sum } else { *to + sum };
                }
            }
        }
    }
}
