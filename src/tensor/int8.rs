//! Products of integers: weights and inputs of up to 8 bits, with their scales and zero points, summed in 32 bits.
//!
//! ```text
//! y = sum_i s_x (x_i - z_x) s_w (w_i - z_w)                     i over inputs; s_w, z_w of i's group g
//!   = s_x sum_g s_w [ sum_(i in g) x_i w_i  -  z_x W_g  -  z_w (X_g - n_g z_x) ]       W_g, X_g: sums of codes
//! ```
//! What is in brackets is an integer, and exact, zero points included: the large parts of it that cancel do so before anything is
//! rounded. Then comes one operation in f32 a group. So this is the product of the dequantized matrices up to f32's rounding, at a
//! quarter of the bytes and of the multiplications' cost.
//! Inputs are unsigned, weights signed, as the instructions want them: a format's codes are shifted with their zero point.
//!
//! ```text
//! x codes [tokens][quads][4]          w codes, panels [out / 32][quads][32][4]          a group begins with a quad
//! ```
use super::{
    share::{Part, share},
    strip::WIDE,
};
use crate::float::vectorized;
use rayon::prelude::*;
use std::ops::Range;

/// Inputs of one sum, longer groups are cut: as many as leave the sums of codes, and what zero points add to them, 16 bits.
const LONGEST: usize = 128;
/// Rows of one task.
const ROWS: usize = 96;

/// Where groups of inputs are, and where their codes: each begins with a quad, and zeros fill its last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    inner: usize,
    /// Inputs, and quads, of each.
    each: Vec<(Range<usize>, Range<usize>)>,
}

impl Groups {
    /// `inner` inputs in groups of `group`, the last may be shorter.
    pub fn new(inner: usize, group: usize) -> Self {
        let mut each = Vec::new();
        let mut quad = 0;
        for start in (0..inner).step_by(group.max(1)) {
            let end = (start + group).min(inner);
            for from in (start..end).step_by(LONGEST) {
                let to = (from + LONGEST).min(end);
                let quads = (to - from).div_ceil(4);
                each.push((from..to, quad..quad + quads));
                quad += quads;
            }
        }
        Self { inner, each }
    }

    /// Inputs of each.
    pub fn inputs(&self) -> impl Iterator<Item = Range<usize>> {
        self.each.iter().map(|g| g.0.clone())
    }

    fn quads(&self) -> usize {
        self.each.last().map_or(0, |g| g.1.end)
    }
}

/// A weight matrix of codes, laid out once.
pub struct Codes {
    out: usize,
    groups: Groups,
    /// `[out / 32][quads][32][4]`.
    codes: Vec<[[i8; 4]; WIDE]>,
    /// `[out / 32][groups]`.
    scales: Vec<Scales>,
}

/// Of a group, for the outputs of a panel.
#[derive(Clone)]
struct Scales {
    scale: [f32; WIDE],
    /// Sum of the codes, and zero point.
    pairs: [[i16; 2]; WIDE],
}

impl Codes {
    /// `fill(output, group, codes)` writes the group's codes of an output and gives their scale and zero point, an integer of
    /// 9 bits at most.
    pub fn new(
        out: usize,
        groups: Groups,
        fill: impl Fn(usize, usize, &mut [i8]) -> (f32, f32) + Sync,
    ) -> Self {
        let (quads, count) = (groups.quads(), groups.each.len());
        let panels = out.div_ceil(WIDE);
        let mut codes = vec![[[0i8; 4]; WIDE]; panels * quads];
        let mut scales = vec![Scales { scale: [0.; WIDE], pairs: [[0; 2]; WIDE] }; panels * count];
        if quads > 0 {
            let parts = codes.par_chunks_mut(quads).zip(scales.par_chunks_mut(count));
            parts.enumerate().for_each(|(panel, (codes, scales))| {
                let mut row = vec![0i8; groups.inner];
                for o in 0..WIDE.min(out - panel * WIDE) {
                    for (g, (inputs, quads)) in groups.each.iter().enumerate() {
                        let row = &mut row[..inputs.len()];
                        let (scale, zero) = fill(panel * WIDE + o, g, row);
                        scales[g].scale[o] = scale;
                        scales[g].pairs[o] = [row.iter().map(|&c| i16::from(c)).sum(), zero as i16];
                        for (quad, row) in codes[quads.clone()].iter_mut().zip(row.chunks(4)) {
                            quad[o][..row.len()].copy_from_slice(row);
                        }
                    }
                }
            });
        }
        Self { out, groups, codes, scales }
    }

    /// `(out, in)`.
    pub fn dims(&self) -> (usize, usize) {
        (self.out, self.groups.inner)
    }

    /// How inputs are grouped.
    pub fn groups(&self) -> &Groups {
        &self.groups
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.codes[..]) + size_of_val(&self.scales[..])
    }

    /// The dequantized matrix `[out, in]`: `(code - zero) * scale`, as the format's own rounding gives it.
    pub fn rows(&self) -> Vec<f32> {
        let (quads, count) = (self.groups.quads(), self.groups.each.len());
        let mut all = vec![0f32; self.out * self.groups.inner];
        all.par_chunks_mut(self.groups.inner.max(1)).enumerate().for_each(|(row, out)| {
            let (panel, o) = (row / WIDE, row % WIDE);
            for (g, (inputs, at)) in self.groups.each.iter().enumerate() {
                let of = &self.scales[panel * count + g];
                let (scale, zero) = (of.scale[o], f32::from(of.pairs[o][1]));
                let codes = self.codes[panel * quads..][at.clone()].iter().flat_map(|quad| quad[o]);
                for (to, code) in out[inputs.clone()].iter_mut().zip(codes) {
                    *to = (f32::from(code) - zero) * scale;
                }
            }
        });
        all
    }

    /// `x` times the transpose: `[tokens, out]`, the bias added last.
    ///
    /// # Panics
    /// Where `x` is grouped otherwise: a bug of the caller, never of a file.
    pub fn linear(&self, x: &Inputs, bias: Option<&[f32]>) -> Vec<f32> {
        self.linear_with(Kernel::best(), x, bias)
    }

    /// The same with one of [`Kernel::all`].
    pub fn linear_with(&self, kernel: Kernel, x: &Inputs, bias: Option<&[f32]>) -> Vec<f32> {
        assert_eq!(x.groups, self.groups);
        let tokens = x.scales.len();
        let work = tokens * self.groups.inner * self.out / 3;
        share(tokens, self.out, ROWS, work, |part| self.run(kernel, x, part, bias))
    }

    fn run(&self, kernel: Kernel, x: &Inputs, mut part: Part, bias: Option<&[f32]>) {
        let (quads, count) = (self.groups.quads(), self.groups.each.len());
        let width = part.out.first().map_or(0, |row| row.len());
        let tall = kernel.rows();
        // [strips][quads][tall], [strips][groups][tall]
        let strips = part.out.len().div_ceil(tall);
        let mut a = vec![[0u8; 4]; strips * quads * tall];
        let mut pairs = vec![[0i16; 2]; strips * count * tall];
        for i in 0..part.out.len() {
            let (s, at, row) = (i / tall, i % tall, part.row + i);
            let from = x.codes[row * quads..][..quads].iter();
            a[s * quads * tall + at..].iter_mut().step_by(tall).zip(from).for_each(|(to, q)| *to = *q);
            let from = x.pairs[row * count..][..count].iter();
            pairs[s * count * tall + at..].iter_mut().step_by(tall).zip(from).for_each(|(to, v)| *to = *v);
        }
        let mut totals = vec![[0f32; WIDE]; tall];
        for p in 0..width.div_ceil(WIDE) {
            let panel = part.panel + p;
            let b = &self.codes[panel * quads..][..quads];
            let scales = &self.scales[panel * count..][..count];
            for s in 0..strips {
                let strip = Strip {
                    a: &a[s * quads * tall..][..quads * tall],
                    pairs: &pairs[s * count * tall..][..count * tall],
                    b,
                    scales,
                    groups: &self.groups.each,
                };
                kernel.run(&strip, &mut totals);
                for (i, total) in totals.iter().enumerate().take(part.out.len() - s * tall) {
                    let row = part.row + s * tall + i;
                    let scale = x.scales[row];
                    let out = &mut part.out[s * tall + i];
                    let end = out.len().min((p + 1) * WIDE);
                    let out = &mut out[p * WIDE..end];
                    out.iter_mut().zip(total).for_each(|(y, total)| *y = scale * total);
                    if let Some(bias) = bias {
                        out.iter_mut().zip(&bias[panel * WIDE..]).for_each(|(y, b)| *y += b);
                    }
                }
            }
        }
    }
}

/// Rows of codes that enter a product.
pub struct Inputs {
    groups: Groups,
    /// `[tokens][quads]`.
    codes: Vec<[u8; 4]>,
    /// `[tokens]`.
    scales: Vec<f32>,
    /// `[tokens][groups]`: what a weight group's sum of codes and zero point are multiplied by: less the zero point, and less
    /// the sum of the codes without it.
    pairs: Vec<[i16; 2]>,
}

impl Inputs {
    /// `fill(token, codes)` writes a token's codes and gives their scale and zero point, an integer of 0 to 255.
    pub fn new(tokens: usize, groups: &Groups, fill: impl Fn(usize, &mut [u8]) -> (f32, f32) + Sync) -> Self {
        let (quads, count) = (groups.quads(), groups.each.len());
        let mut codes = vec![[0u8; 4]; tokens * quads];
        let mut scales = vec![0f32; tokens];
        let mut pairs = vec![[0i16; 2]; tokens * count];
        if quads > 0 {
            let parts = codes.par_chunks_mut(quads).zip(pairs.par_chunks_mut(count)).zip(&mut scales);
            let least = (16_384 / groups.inner).max(1);
            parts.enumerate().with_min_len(least).for_each_init(
                || vec![0u8; groups.inner],
                |row, (token, ((codes, pairs), scale))| {
                    let zero;
                    (*scale, zero) = fill(token, row);
                    let zero = zero as i32;
                    vectorized(
                        #[inline(always)]
                        || {
                            for ((inputs, quads), pair) in groups.each.iter().zip(&mut *pairs) {
                                let row = &row[inputs.clone()];
                                let sum = row.iter().fold(0, |sum, &c| sum + i32::from(c));
                                *pair = [-zero as i16, (zero * row.len() as i32 - sum) as i16];
                                let flat = codes[quads.clone()].as_flattened_mut();
                                flat[..row.len()].copy_from_slice(row);
                            }
                        },
                    );
                },
            );
        }
        Self { groups: groups.clone(), codes, scales, pairs }
    }
}

/// Some rows of inputs and one panel of weights.
struct Strip<'a> {
    /// `[quads][rows]`.
    a: &'a [[u8; 4]],
    /// `[groups][rows]`.
    pairs: &'a [[i16; 2]],
    /// `[quads]`.
    b: &'a [[[i8; 4]; WIDE]],
    /// `[groups]`.
    scales: &'a [Scales],
    groups: &'a [(Range<usize>, Range<usize>)],
}

/// A way to multiply integers that this machine has; all give the same bits. Made by [`Kernel::all`] alone, which asks the
/// machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel(Kind);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// AVX-512 with VNNI: four products and their sum a lane.
    #[cfg(target_arch = "x86_64")]
    Vnni,
    /// AVX2: pairs of 16-bit products, so that nothing saturates.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// Whatever the compiler makes of a loop.
    Plain,
}

impl Kernel {
    /// Without instructions made for it: no quicker than products of f32.
    pub const PLAIN: Self = Self(Kind::Plain);

    /// Those that this machine can run, the fastest first.
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let has = |ok: bool, kernel| ok.then_some(kernel);
            let f = is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512bw");
            all.extend(has(f && is_x86_feature_detected!("avx512vnni"), Self(Kind::Vnni)));
            all.extend(has(
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma"),
                Self(Kind::Avx2),
            ));
        }
        all.push(Self::PLAIN);
        all
    }

    /// The fastest.
    pub fn best() -> Self {
        Self::all()[0]
    }

    fn rows(self) -> usize {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            Kind::Vnni => 6,
            _ => 2,
        }
    }

    /// Writes the sum over groups to `totals [rows]`, before the input's scale.
    fn run(self, strip: &Strip, totals: &mut [[f32; WIDE]]) {
        match self.0 {
            // SAFETY: `all` is where kernels come from, and it asks the machine first.
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kind::Vnni => unsafe { x86::vnni(strip, totals) },
            #[cfg(target_arch = "x86_64")]
            #[allow(unsafe_code)]
            Kind::Avx2 => unsafe { x86::avx2(strip, totals) },
            Kind::Plain => plain(strip, totals),
        }
    }
}

fn plain(strip: &Strip, totals: &mut [[f32; WIDE]]) {
    let rows = totals.len();
    totals.fill([0.; WIDE]);
    for ((g, scales), (_, quads)) in strip.scales.iter().enumerate().zip(strip.groups) {
        for (i, total) in totals.iter_mut().enumerate() {
            let mut sums = [0i32; WIDE];
            for q in quads.clone() {
                let a = strip.a[q * rows + i].map(i32::from);
                for (sum, b) in sums.iter_mut().zip(&strip.b[q]) {
                    *sum += a.iter().zip(b).map(|(a, &b)| a * i32::from(b)).sum::<i32>();
                }
            }
            let [less_zero, less_sum] = strip.pairs[g * rows + i].map(i32::from);
            for o in 0..WIDE {
                let [sum, zero] = scales.pairs[o].map(i32::from);
                let all = sums[o] + less_zero * sum + less_sum * zero;
                total[o] = scales.scale[o].mul_add(all as f32, total[o]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    // Registers are told by their number.
    #![allow(unsafe_code, clippy::needless_range_loop)]
    use super::{Strip, WIDE};
    use std::arch::x86_64::*;

    /// Two numbers of 16 bits as one of 32, as they lie in memory.
    fn both(pair: [i16; 2]) -> i32 {
        let [[a, b], [c, d]] = pair.map(i16::to_ne_bytes);
        i32::from_ne_bytes([a, b, c, d])
    }

    /// # Safety
    /// The machine has the features named.
    #[target_feature(enable = "avx512f,avx512bw,avx512vnni")]
    pub unsafe fn vnni(strip: &Strip, totals: &mut [[f32; WIDE]]) {
        const ROWS: usize = 6;
        let mut all = [[_mm512_setzero_ps(); 2]; ROWS];
        let (a, _) = strip.a.as_chunks::<ROWS>();
        let (pairs, _) = strip.pairs.as_chunks::<ROWS>();
        for ((scales, pairs), (_, quads)) in strip.scales.iter().zip(pairs).zip(strip.groups) {
            let mut sums = [[_mm512_setzero_si512(); 2]; ROWS];
            for (a, b) in a[quads.clone()].iter().zip(&strip.b[quads.clone()]) {
                let b = b.as_flattened().as_ptr();
                // SAFETY: a quad of a panel is 128 bytes.
                let b = unsafe { [_mm512_loadu_epi8(b), _mm512_loadu_epi8(b.add(64))] };
                for i in 0..ROWS {
                    let a = _mm512_set1_epi32(i32::from_le_bytes(a[i]));
                    for v in 0..2 {
                        sums[i][v] = _mm512_dpbusd_epi32(sums[i][v], a, b[v]);
                    }
                }
            }
            let own = scales.pairs.as_flattened().as_ptr();
            let scale = scales.scale.as_ptr();
            // SAFETY: 32 pairs, and 32 numbers.
            let (own, scale) = unsafe {
                (
                    [_mm512_loadu_epi16(own), _mm512_loadu_epi16(own.add(32))],
                    [_mm512_loadu_ps(scale), _mm512_loadu_ps(scale.add(16))],
                )
            };
            for i in 0..ROWS {
                let pair = _mm512_set1_epi32(both(pairs[i]));
                for v in 0..2 {
                    let sum = _mm512_cvtepi32_ps(_mm512_dpwssd_epi32(sums[i][v], pair, own[v]));
                    all[i][v] = _mm512_fmadd_ps(scale[v], sum, all[i][v]);
                }
            }
        }
        for (to, all) in totals.iter_mut().zip(all) {
            // SAFETY: a row of totals is 32 numbers.
            unsafe {
                _mm512_storeu_ps(to.as_mut_ptr(), all[0]);
                _mm512_storeu_ps(to.as_mut_ptr().add(16), all[1]);
            }
        }
    }

    /// # Safety
    /// The machine has the features named.
    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn avx2(strip: &Strip, totals: &mut [[f32; WIDE]]) {
        const ROWS: usize = 2;
        let (a, _) = strip.a.as_chunks::<ROWS>();
        let (pairs, _) = strip.pairs.as_chunks::<ROWS>();
        totals.fill([0.; WIDE]);
        for ((scales, pairs), (_, quads)) in strip.scales.iter().zip(pairs).zip(strip.groups) {
            for half in [0, 16] {
                let mut sums = [[_mm256_setzero_si256(); 4]; ROWS];
                for (a, b) in a[quads.clone()].iter().zip(&strip.b[quads.clone()]) {
                    // Four codes as 16 bits each, over and over.
                    let a = a.map(|a| {
                        let four = _mm_cvtepu8_epi16(_mm_cvtsi32_si128(i32::from_le_bytes(a)));
                        _mm256_broadcastq_epi64(four)
                    });
                    for v in 0..4 {
                        // SAFETY: four outputs of a quad are 16 bytes, and half a panel has four times four.
                        let b = unsafe {
                            _mm_loadu_si128(b.as_flattened().as_ptr().add(4 * (half + 4 * v)).cast())
                        };
                        let b = _mm256_cvtepi8_epi16(b);
                        for i in 0..ROWS {
                            sums[i][v] = _mm256_add_epi32(sums[i][v], _mm256_madd_epi16(a[i], b));
                        }
                    }
                }
                for i in 0..ROWS {
                    for pair in 0..2 {
                        // Neighbours belong to one output.
                        let sum = _mm256_hadd_epi32(sums[i][2 * pair], sums[i][2 * pair + 1]);
                        let sum = _mm256_permute4x64_epi64::<0b11_01_10_00>(sum);
                        let at = half + 8 * pair;
                        // SAFETY: eight of 32 numbers, and of as many pairs, from a place that leaves as many.
                        unsafe {
                            let total = totals[i].as_mut_ptr().add(at);
                            let own = _mm256_loadu_si256(scales.pairs.as_ptr().add(at).cast());
                            let less = _mm256_madd_epi16(_mm256_set1_epi32(both(pairs[i])), own);
                            let sum = _mm256_cvtepi32_ps(_mm256_add_epi32(sum, less));
                            let scale = _mm256_loadu_ps(scales.scale.as_ptr().add(at));
                            _mm256_storeu_ps(total, _mm256_fmadd_ps(scale, sum, _mm256_loadu_ps(total)));
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers below `n` from a fixed formula.
    fn draws(seed: u32) -> impl FnMut(u32) -> u32 {
        let mut x = seed;
        move |n| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            x % n
        }
    }

    #[test]
    fn every_kernel_is_the_dequantized_product() {
        for (tokens, inner, out, group) in
            [(1, 4, 1, 4), (5, 172, 33, 128), (13, 300, 70, 7), (7, 40_000, 3, 40_000)]
        {
            let mut draw = draws(7);
            let groups = Groups::new(inner, group);
            let w: Vec<i8> = (0..out * inner).map(|_| (draw(256) as i32 - 128) as i8).collect();
            let settings: Vec<(f32, f32)> = (0..out * groups.each.len())
                .map(|_| (draw(1000) as f32 / 1e4 + 1e-3, draw(256) as f32 - 128.))
                .collect();
            // Some tokens near their zero point, at the far end of the codes, but for an outlier.
            let mut x: Vec<u8> = (0..tokens * inner).map(|_| draw(256) as u8).collect();
            let mut of_x: Vec<(f32, f32)> =
                (0..tokens).map(|_| (draw(1000) as f32 / 1e4 + 1e-3, draw(256) as f32)).collect();
            for t in (0..tokens).step_by(2) {
                x[t * inner..][..inner].iter_mut().for_each(|c| *c = 253 + *c % 3);
                x[t * inner] = 0;
                of_x[t].1 = 254.;
            }
            let codes = Codes::new(out, groups.clone(), |o, g, to| {
                to.copy_from_slice(&w[o * inner..][groups.each[g].0.clone()]);
                settings[o * groups.each.len() + g]
            });
            let inputs = Inputs::new(tokens, &groups, |t, to| {
                to.copy_from_slice(&x[t * inner..][..inner]);
                of_x[t]
            });
            let dequantized = codes.rows();
            let want = codes.linear_with(Kernel::PLAIN, &inputs, None);
            for (t, y) in want.chunks(out).enumerate() {
                for (o, &y) in y.iter().enumerate() {
                    let x = x[t * inner..][..inner]
                        .iter()
                        .map(|&c| f64::from((f32::from(c) - of_x[t].1) * of_x[t].0));
                    let w = dequantized[o * inner..][..inner].iter().map(|&w| f64::from(w));
                    let (mut exact, mut size) = (0., 0.);
                    for (x, w) in x.zip(w) {
                        exact += x * w;
                        size += (x * w).abs();
                    }
                    assert!(
                        (f64::from(y) - exact).abs() <= 1e-6 * size,
                        "{tokens} {inner} {out}: {y}, not {exact}"
                    );
                }
            }
            for kernel in Kernel::all() {
                let y = codes.linear_with(kernel, &inputs, None);
                assert!(y.iter().zip(&want).all(|(a, b)| a.to_bits() == b.to_bits()), "{kernel:?}");
            }
        }
    }
}
