//! The share of the machine's f32 peak that products reach, beside the `gemm` crate's, which candle uses; products of
//! integers; and rounding weights beside copying them.
//!
//! ```sh
//! cargo bench --bench products
//! ```
//! Peak: fused multiplications and additions that stay in registers, on all threads, measured before each product. Shapes are
//! those of a LLaMA of 134 million parameters, a window of 2048 tokens; the last line weighs them as that window does.
//! Medians of five, the sides in turn. Zeros that a result begins with, and inputs that are laid out, are counted.
#![allow(clippy::print_stdout)]
use bitsweep::{
    quant::grid::{Grid, Per},
    tensor::{
        int8::{Codes, Groups, Inputs, Kernel},
        panels::Panels,
    },
};
use candle_core::{Device, Tensor};
use gemm::Parallelism;
use pulp::{Arch, Simd, WithSimd};
use rand::{Rng, SeedableRng, rngs::StdRng};
use std::{hint::black_box, time::Instant};

const TOKENS: usize = 2048;
/// Inputs, outputs, and how many of them a pass has.
const SHAPES: [(usize, usize, usize); 4] =
    [(768, 768, 48), (768, 2048, 24), (2048, 768, 12), (768, 32_000, 1)];
const TIMES: usize = 5;

struct Peak;

impl WithSimd for Peak {
    type Output = f64;
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> f64 {
        const SUMS: usize = 24;
        const STEPS: usize = 5_000_000;
        let (a, b) = (simd.splat_f32s(black_box(1.0001)), simd.splat_f32s(black_box(0.999)));
        let mut sums = [simd.splat_f32s(0.); SUMS];
        let began = Instant::now();
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = simd.mul_add_f32s(a, b, *sum);
            }
        }
        let seconds = began.elapsed().as_secs_f64();
        let all = sums.into_iter().fold(simd.splat_f32s(0.), |all, sum| simd.add_f32s(all, sum));
        black_box(simd.reduce_sum_f32s(all));
        (STEPS * SUMS * S::F32_LANES * 2) as f64 / seconds / 1e9
    }
}

/// Of all threads, 10^9 operations a second.
fn peak() -> f64 {
    std::thread::scope(|scope| {
        let threads = 0..rayon::current_num_threads();
        let running: Vec<_> = threads.map(|_| scope.spawn(|| Arch::new().dispatch(Peak))).collect();
        running.into_iter().map(|t| t.join().unwrap_or(f64::NAN)).sum()
    })
}

fn noise(n: usize) -> Vec<f32> {
    let mut draws = StdRng::seed_from_u64(1);
    (0..n).map(|_| draws.random::<f32>() - 0.5).collect()
}

fn seconds(f: impl FnOnce()) -> f64 {
    let began = Instant::now();
    f();
    began.elapsed().as_secs_f64()
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

fn main() {
    println!(
        "{} threads; GFLOP/s (integers: 10^9 operations/s), {TOKENS} tokens",
        rayon::current_num_threads()
    );
    println!(
        "| inputs x outputs | peak | ours | of peak | gemm | of peak | integers, groups of 128 | of ours |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let (mut work, mut took, mut best) = (0., 0., Vec::new());
    for (inner, out, count) in SHAPES {
        let (x, w) = (noise(TOKENS * inner), noise(out * inner));
        let panels = Panels::new(&w, out, inner);
        let groups = Groups::new(inner, 128);
        let codes = Codes::new(out, groups.clone(), |o, g, to| {
            to.iter_mut().enumerate().for_each(|(i, c)| *c = ((o * 7 + g * 3 + i * 5) % 255) as u8 as i8);
            (0.01, 3.)
        });
        let mut y = vec![0f32; TOKENS * out];
        let (mut ours, mut theirs, mut integers, mut peaks) = (vec![], vec![], vec![], vec![]);
        for _ in 0..=TIMES {
            peaks.push(peak());
            ours.push(seconds(|| drop(black_box(panels.linear(&x, None)))));
            theirs.push(seconds(|| product(&x, &w, (inner, out), &mut y)));
            integers.push(seconds(|| {
                let x = Inputs::new(TOKENS, &groups, |t, to| {
                    to.iter_mut().enumerate().for_each(|(i, c)| *c = (t + i) as u8);
                    (0.1, 128.)
                });
                black_box(codes.linear(&x, None));
            }));
        }
        // The first is not counted.
        let of = |all: Vec<f64>| median(all[1..].to_vec());
        let (ours, theirs, integers, peak) = (of(ours), of(theirs), of(integers), of(peaks));
        let operations = (2 * TOKENS * inner * out) as f64 / 1e9;
        let speed = |seconds: f64| operations / seconds;
        println!(
            "| {inner} x {out} | {peak:.0} | {:.0} | {:.2} | {:.0} | {:.2} | {:.0} | {:.2} |",
            speed(ours),
            speed(ours) / peak,
            speed(theirs),
            speed(theirs) / peak,
            speed(integers),
            ours / integers
        );
        work += operations * count as f64;
        took += ours * count as f64;
        best.push(peak);
    }
    let peak = median(best);
    println!("integers by {:?}", Kernel::best());
    println!("all linears of a window: {:.2} of the f32 peak, wanted at least 0.75", work / took / peak);

    let (out, inner) = (5632, 2048);
    let w = noise(out * inner);
    let tensor = Tensor::from_slice(&w, (out, inner), &Device::Cpu).unwrap_or_else(|e| panic!("{e}"));
    for (name, bits, group) in [("w8", 8, 128), ("w4", 4, 128), ("w4g32", 4, 32)] {
        let grid = Grid::int(bits, Per::Group, group, false);
        let (mut copy, mut round, mut code) = (vec![], vec![], vec![]);
        for _ in 0..=TIMES {
            copy.push(seconds(|| drop(black_box(w.clone()))));
            round.push(seconds(|| {
                black_box(grid.round(&tensor, bitsweep::model::ops::Precision::F32).is_ok());
            }));
            code.push(seconds(|| {
                black_box(grid.codes(&tensor).is_ok());
            }));
        }
        let of = |all: Vec<f64>| (4 * out * inner) as f64 / median(all[1..].to_vec()) / 1e9;
        let (copy, round, code) = (of(copy), of(round), of(code));
        println!(
            "{name}: {round:.2} GB/s of weights rounded, {code:.2} made codes and laid out; one thread copies {copy:.2}"
        );
    }
}

/// By the `gemm` crate: `y = x w^T`.
fn product(x: &[f32], w: &[f32], (inner, out): (usize, usize), y: &mut [f32]) {
    assert!(x.len() == TOKENS * inner && w.len() == out * inner && y.len() == TOKENS * out);
    // SAFETY: the lengths above are those that the strides reach.
    #[allow(unsafe_code)]
    unsafe {
        gemm::gemm(
            TOKENS,
            out,
            inner,
            y.as_mut_ptr(),
            1,
            out as isize,
            false,
            x.as_ptr(),
            1,
            inner as isize,
            w.as_ptr(),
            inner as isize,
            1,
            0f32,
            1f32,
            false,
            false,
            false,
            Parallelism::Rayon(0),
        );
    }
}
