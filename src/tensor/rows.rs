//! Fused loops over the rows of a matrix.
//!
//! A chain of candle operations walks memory once an operation; a norm or a fake quantization written that way costs
//! ten times what one loop does. These loops run on CPU tensors, in parallel over rows, each row on one thread in one
//! order: thread count cannot change a bit. They have no gradient.
use candle_core::{CpuStorage, CustomOp1, CustomOp2, Layout, Result, Shape, Storage, Tensor, bail};
use pulp::{Simd, WithSimd};
use rayon::prelude::*;
use std::{
    mem::MaybeUninit,
    sync::atomic::{AtomicUsize, Ordering},
};

/// Replaces each row of `x [rows, width]` by what `f(row index, row, out)` writes to `out`, of the same width. `f` is a
/// closure with `#[inline(always)]`; see [`vectorized`](crate::float::vectorized).
pub fn map<F>(x: &Tensor, name: &'static str, f: F) -> Result<Tensor>
where
    F: Fn(usize, &[f32], &mut [f32]) + Sync + Send,
{
    x.contiguous()?.apply_op1_no_bwd(&Map { name, arch: pulp::Arch::new(), f })
}

/// As [`map`], from two matrices of one shape.
pub fn zip<F>(x: &Tensor, y: &Tensor, name: &'static str, f: F) -> Result<Tensor>
where
    F: Fn(&[f32], &[f32], &mut [f32]) + Sync + Send,
{
    x.contiguous()?.apply_op2_no_bwd(&y.contiguous()?, &Zip { name, arch: pulp::Arch::new(), f })
}

/// The numbers of a contiguous f32 CPU tensor.
pub fn slice<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(data), Some((start, end))) => Ok(&data[start..end]),
        _ => bail!("a fused loop wants contiguous f32"),
    }
}

/// Part of a vector that is being made, whose numbers nobody has written yet.
pub struct Fresh<'a> {
    room: &'a mut [MaybeUninit<f32>],
    /// Of the whole vector, numbers that were.
    written: &'a AtomicUsize,
}

impl<'a> Fresh<'a> {
    /// Where the first number will be.
    pub fn start(&self) -> *const f32 {
        self.room.as_ptr().cast()
    }

    /// The first `count` numbers, and the others.
    pub fn split_at(self, count: usize) -> (Self, Self) {
        let (a, b) = self.room.split_at_mut(count);
        (Self { room: a, written: self.written }, Self { room: b, written: self.written })
    }

    /// Pieces of `size` numbers, the last may be shorter.
    pub fn chunks(self, size: usize) -> impl Iterator<Item = Self> {
        let written = self.written;
        self.room.chunks_mut(size).map(move |room| Self { room, written })
    }

    /// Zeros there, to work on. Written just before, they are in a core's cache; a vector of zeros would go through memory once
    /// more.
    #[allow(unsafe_code)]
    pub fn cleared(self) -> &'a mut [f32] {
        for x in self.room.iter_mut() {
            x.write(0.);
        }
        self.written.fetch_add(self.room.len(), Ordering::Relaxed);
        // SAFETY: all were written, and the type has the layout of what it wraps.
        unsafe { &mut *(std::ptr::from_mut(self.room) as *mut [f32]) }
    }
}

/// A vector of `len` numbers, of which `f` must clear every part.
///
/// # Panics
/// Where it did not: a bug of the caller, never of a file.
#[allow(unsafe_code)]
pub fn build(len: usize, f: impl FnOnce(Fresh)) -> Vec<f32> {
    let mut all: Vec<f32> = Vec::with_capacity(len);
    let written = AtomicUsize::new(0);
    f(Fresh { room: &mut all.spare_capacity_mut()[..len], written: &written });
    assert_eq!(written.into_inner(), len, "every part is written once");
    // SAFETY: there is room for them, and as many were written: parts do not overlap, and each is written once at most.
    unsafe { all.set_len(len) };
    all
}

/// Zeros, written by all threads: a new page costs the kernel as much as a loop costs that fills it.
pub fn zeros(len: usize) -> Vec<f32> {
    const WORTH: usize = 1 << 18;
    if len < WORTH {
        return vec![0.; len];
    }
    let mut all = Vec::with_capacity(len);
    all.par_extend(rayon::iter::repeat_n(0f32, len).with_min_len(WORTH / 4));
    all
}

/// Shows the numbers of a contiguous f32 CPU tensor.
pub fn with<T>(x: &Tensor, f: impl FnOnce(&[f32]) -> T) -> Result<T> {
    let (storage, layout) = x.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(slice(storage, layout)?)),
        _ => bail!("a fused loop wants a CPU tensor"),
    }
}

struct Map<F> {
    name: &'static str,
    /// Compiles the loop for each instruction set, and picks at run time. Vectors of any width give the same bits: no
    /// multiplication is fused with an addition unless the code says so.
    arch: pulp::Arch,
    f: F,
}

impl<F: Fn(usize, &[f32], &mut [f32]) + Sync + Send> CustomOp1 for Map<F> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let x = slice(storage, layout)?;
        let width = layout.dims().last().copied().unwrap_or(1).max(1);
        let size = chunk(width);
        let out = build(x.len(), |out| {
            let parts: Vec<_> = out.chunks(size * width).zip(x.chunks(size * width)).enumerate().collect();
            parts.into_par_iter().with_max_len(4).for_each(|(part, (out, x))| {
                let rows = out.cleared().chunks_mut(width).zip(x.chunks(width)).enumerate();
                rows.for_each(|(i, (out, x))| {
                    self.arch.dispatch(Row { f: &self.f, i: part * size + i, x, out });
                });
            });
        });
        Ok((CpuStorage::F32(out), layout.shape().clone()))
    }
}

struct Zip<F> {
    name: &'static str,
    arch: pulp::Arch,
    f: F,
}

impl<F: Fn(&[f32], &[f32], &mut [f32]) + Sync + Send> CustomOp2 for Zip<F> {
    fn name(&self) -> &'static str {
        self.name
    }
    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (x, y) = (slice(s1, l1)?, slice(s2, l2)?);
        if l1.shape() != l2.shape() {
            bail!("{}: {:?} is not {:?}", self.name, l1.shape(), l2.shape());
        }
        let width = l1.dims().last().copied().unwrap_or(1).max(1);
        let size = chunk(width) * width;
        let out = build(x.len(), |out| {
            let parts: Vec<_> = out.chunks(size).zip(x.chunks(size).zip(y.chunks(size))).collect();
            parts.into_par_iter().with_max_len(4).for_each(|(out, (x, y))| {
                let rows = out.cleared().chunks_mut(width).zip(x.chunks(width).zip(y.chunks(width)));
                rows.for_each(|(out, (x, y))| self.arch.dispatch(Pair { f: &self.f, x, y, out }));
            });
        });
        Ok((CpuStorage::F32(out), l1.shape().clone()))
    }
}

/// One row. A struct, because a closure around `f` is not sure to be compiled for the instruction set that runs it.
struct Row<'a, F> {
    f: &'a F,
    i: usize,
    x: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Fn(usize, &[f32], &mut [f32])> WithSimd for Row<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        (self.f)(self.i, self.x, self.out)
    }
}

/// The same of two.
struct Pair<'a, F> {
    f: &'a F,
    x: &'a [f32],
    y: &'a [f32],
    out: &'a mut [f32],
}

impl<F: Fn(&[f32], &[f32], &mut [f32])> WithSimd for Pair<'_, F> {
    type Output = ();
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        (self.f)(self.x, self.y, self.out)
    }
}

/// Rows that are worth a task of their own.
fn chunk(width: usize) -> usize {
    (16_384 / width).max(1)
}
