//! IQ types of 2 and 3 bits: eight magnitudes (or four) are a point of a lattice, signs are apart.
//!
//! ```text
//! x ~ d (s + 1/2) level sign     s of 4 bits for 16 or 32 values, d in 16 bits for 256
//! iq2_xxs iq2_xs iq3_xxs         seven signs of eight, the last such that the minus signs are even
//! iq2_s iq3_s                    all signs
//! ```
//! Scales of a group are tried one by one; each gives codes, which are moved onto points, and a scale by least
//! squares. Under the best of them codes are taken once more. The order of operations is that of ggml's
//! `quantize_row_iq2_*_impl` and `quantize_row_iq3_*_impl`.
use super::{
    blocks::Weighing,
    fit::{NOTHING, half, nearest, positive},
    k::{counts, power},
    lattice::{self, Lattice},
};
use std::sync::LazyLock;

/// Which codes are taken again under the best scale.
#[derive(Clone, Copy, PartialEq)]
enum Again {
    /// All.
    All,
    /// All, unless every one was on a point by itself.
    AllUnlessOn,
    /// Those that were not.
    Off,
}

/// How a type is made.
struct Form {
    lattice: &'static LazyLock<Lattice>,
    /// Values of a scale.
    group: usize,
    /// What magnitudes become.
    levels: &'static [f32],
    /// Of `s + 1/2`.
    unit: f32,
    /// How many scales are tried on each side of the first, and how far apart they put the largest magnitude,
    /// where codes count 1, 3, 5 and so on.
    tries: i32,
    step: f32,
    /// Whether the first is searched for as well; the largest magnitude's otherwise.
    fitted: bool,
    again: Again,
    /// Whether minus signs are even.
    even: bool,
    /// A largest magnitude that is less is nothing.
    nothing: f32,
    /// What counts beside a value's square: so many times the mean square.
    spread: f32,
    /// Without importance, so many times that.
    alone: f32,
    /// The scale is stored as so many times what it is.
    stretch: f32,
    /// Whether groups of zeros take no room; see [`Form::slide`].
    slides: bool,
}

const LEVELS: &[f32] = &[8., 25., 43.];

static IQ2_XXS: Form = Form {
    lattice: &lattice::IQ2_XXS,
    group: 32,
    levels: LEVELS,
    unit: 0.25,
    tries: 6,
    step: 0.1,
    fitted: true,
    again: Again::All,
    even: true,
    nothing: NOTHING,
    spread: 1.,
    alone: 0.,
    stretch: 1.,
    slides: false,
};

static IQ2_XS: Form =
    Form { lattice: &lattice::IQ2_XS, group: 16, tries: 9, fitted: false, again: Again::Off, ..IQ2_XXS };

static IQ2_S: Form = Form {
    lattice: &lattice::IQ2_S,
    even: false,
    nothing: 1e-8,
    spread: 2.,
    alone: 0.25,
    stretch: 0.9875,
    ..IQ2_XS
};

static IQ3_XXS: Form = Form {
    lattice: &lattice::IQ3_XXS,
    group: 32,
    levels: &[4., 12., 20., 28., 36., 44., 52., 62.],
    unit: 0.5,
    tries: 15,
    step: 0.2,
    fitted: false,
    again: Again::Off,
    even: true,
    nothing: 1e-8,
    spread: 2.,
    alone: 0.,
    stretch: 1.0125,
    slides: false,
};

static IQ3_S: Form = Form {
    lattice: &lattice::IQ3_S,
    levels: &[1., 3., 5., 7., 9., 11., 13., 15.],
    unit: 2.,
    tries: 9,
    again: Again::AllUnlessOn,
    even: false,
    nothing: f32::from_bits(1),
    stretch: 1.033,
    slides: true,
    ..IQ3_XXS
};

/// 256 points; without importance ggml does not make it.
pub fn iq2_xxs(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    IQ2_XXS.round(x, weighing, out);
}

/// 512 points; without importance ggml does not make it.
pub fn iq2_xs(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    IQ2_XS.round(x, weighing, out);
}

/// 1024 points.
pub fn iq2_s(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    IQ2_S.round(x, weighing, out);
}

/// 256 points of four values.
pub fn iq3_xxs(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    IQ3_XXS.round(x, weighing, out);
}

/// 512 points of four values.
pub fn iq3_s(x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
    IQ3_S.round(x, weighing, out);
}

/// `sum w x q` and `sum w q^2` of codes `q = 1 3 5 ..`.
fn sums(x: &[f32], w: &[f32], codes: &[u8]) -> (f32, f32) {
    x.iter().zip(w).zip(codes).fold((0., 0.), |(qx, q2), ((x, w), &code)| {
        let q = odd(code);
        (qx + w * x * q, q2 + w * q * q)
    })
}

fn odd(code: u8) -> f32 {
    f32::from(2 * code + 1)
}

impl Form {
    fn round(&self, x: &[f32], weighing: Option<Weighing>, out: &mut [f32]) {
        let (mut scales, mut w) = ([0.; 16], [0.; 32]);
        let spread = self.spread * power(x) / 256.;
        let n = self.group;
        for (g, (x, out)) in x.chunks(n).zip(out.chunks_mut(n)).enumerate() {
            match weighing {
                Some(weighing) => counts(x, &weighing.importance[n * g..], spread, &mut w),
                None => w.iter_mut().zip(x).for_each(|(w, x)| *w = self.alone * spread + x * x),
            }
            scales[g] = self.group(x, &w[..n], out);
        }
        let most = scales.iter().fold(0., |most: f32, &s| most.max(s));
        if most == 0. {
            return out.fill(0.);
        }
        if self.slides {
            self.slide(x, out);
        }
        let d = most / 31.;
        let (by, kept) = (1. / d, half(d * self.stretch));
        for (out, scale) in out.chunks_mut(n).zip(scales) {
            let code = nearest(0.5 * (by * scale - 1.)).clamp(0, 15) as f32;
            let d = kept * (0.5 + code) * self.unit;
            out.iter_mut().for_each(|o| *o *= d);
        }
    }

    /// ggml writes nothing for a group of zeros, and the next one where that should be: from there on a group
    /// is read with a later one's signs and low bytes of indices, but with its own high bits and scale.
    fn slide(&self, x: &[f32], out: &mut [f32]) {
        let whole = out.to_vec();
        let all = x.chunks(self.group).zip(whole.chunks(self.group));
        let mut written =
            all.filter(|(x, _)| x.iter().any(|x| *x != 0.)).flat_map(|(_, group)| group.chunks(4));
        let index = |values: &[f32]| {
            let code = |v: &f32| self.levels.iter().position(|level| *level == v.abs()).unwrap_or(0) as u8;
            self.lattice.index(&values.iter().map(code).collect::<Vec<u8>>())
        };
        for (own, out) in whole.chunks(4).zip(out.chunks_mut(4)) {
            let low = written.next().unwrap_or(&[1.; 4]);
            let codes = self.lattice.point(index(own) & 0x100 | index(low) & 0xff);
            for ((o, code), sign) in out.iter_mut().zip(codes).zip(low) {
                *o = self.levels[usize::from(*code)].copysign(*sign);
            }
        }
    }

    /// Levels with their signs, and the scale that they want.
    fn group(&self, x: &[f32], w: &[f32], out: &mut [f32]) -> f32 {
        let (mut a, mut codes) = ([0.; 32], [0; 32]);
        let (a, codes) = (&mut a[..x.len()], &mut codes[..x.len()]);
        self.split(x, w, a, out);
        let max = a.iter().fold(a[0], |max, &a| if a > max { a } else { max });
        let found = if max < self.nothing { None } else { self.search(a, w, max, codes) };
        let Some(scale) = found else {
            // The first point, not zero: a scale cannot say that.
            out.fill(self.levels[0]);
            return 0.;
        };
        let sign = if scale < 0. { -1. } else { 1. };
        out.iter_mut().zip(codes).for_each(|(o, code)| *o *= sign * self.levels[usize::from(*code)]);
        scale.abs()
    }

    /// Magnitudes, and signs into `out`. Where minus signs must be even and are not, the value that counts
    /// least takes the wrong one.
    fn split(&self, x: &[f32], w: &[f32], a: &mut [f32], out: &mut [f32]) {
        let all = x.chunks(8).zip(w.chunks(8)).zip(a.chunks_mut(8)).zip(out.chunks_mut(8));
        for (((x, w), a), out) in all {
            for ((x, a), sign) in x.iter().zip(&mut *a).zip(&mut *out) {
                *sign = if *x >= 0. { 1. } else { -1. };
                *a = x * *sign;
            }
            if self.even && out.iter().product::<f32>() < 0. {
                let lost = |i: usize| w[i] * x[i] * x[i];
                let least = (1..8).fold(0, |least, i| if lost(i) < lost(least) { i } else { least });
                (a[least], out[least]) = (-a[least], -out[least]);
            }
        }
    }

    /// Codes of magnitudes, and their scale: less than nothing, where all signs should be turned.
    fn search(&self, a: &[f32], w: &[f32], max: f32, codes: &mut [u8]) -> Option<f32> {
        let top = odd(self.levels.len() as u8 - 1);
        let (mut scale, reach) = if self.fitted {
            let scale = positive(4, a, w, codes);
            (scale, scale * 3.)
        } else {
            (max / top, max)
        };
        if reach <= 0. {
            return None;
        }
        let mut root = [0.; 32];
        root.iter_mut().zip(w).for_each(|(r, w)| *r = w.sqrt());
        let mut on = [self.again != Again::AllUnlessOn; 8];
        let mut best = 0.;
        for step in -self.tries..=self.tries {
            let by = (top + step as f32 * self.step) / reach;
            let (mut trial, mut on_trial) = ([0; 32], [false; 8]);
            self.take((by, 1. / by), (a, &root), &mut trial[..a.len()], &mut on_trial);
            let (qx, q2) = sums(a, w, &trial);
            if q2 > 0. && qx * qx > best * q2 {
                scale = qx / q2;
                best = scale * qx;
                codes.copy_from_slice(&trial[..a.len()]);
                on = on_trial;
            }
        }
        let all_on = !on[..a.len() / self.lattice.together()].contains(&false);
        if scale > 0. && (self.again == Again::All || !all_on) {
            on = on.map(|on| on && self.again == Again::Off);
            self.take((1. / scale, scale), (a, &root), codes, &mut on);
            let (qx, q2) = sums(a, w, codes);
            scale = if q2 > 0. { qx / q2 } else { scale };
        }
        Some(scale)
    }

    /// Codes, but where `on` already; and which were on a point by themselves.
    fn take(
        &self,
        (by, scale): (f32, f32),
        (a, root): (&[f32], &[f32]),
        codes: &mut [u8],
        on: &mut [bool; 8],
    ) {
        let n = self.lattice.together();
        for (((a, root), codes), on) in a.chunks(n).zip(root.chunks(n)).zip(codes.chunks_mut(n)).zip(on) {
            if !*on {
                let most = self.levels.len() as i32 - 1;
                let code = |a: &f32| nearest(0.5 * (by * a - 1.)).clamp(0, most) as u8;
                codes.iter_mut().zip(a).for_each(|(c, a)| *c = code(a));
                *on = self.lattice.snap(codes, a, root, scale, odd);
            }
        }
    }
}
