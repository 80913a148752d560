//! Formats whose values are not evenly spaced: small floats, tables of levels, one bit and three values.
//!
//! A group's values are divided by its scale, taken to the nearest level, and multiplied again. What a scale may itself be
//! is part of the format: any float, a power of two (OCP Microscaling), an 8-bit float (NVFP4).
use Scale::*;
use std::sync::LazyLock;

/// A set of levels, and how a group finds its scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Levels {
    /// As recipes say it.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
    /// Of one code.
    pub bits: f64,
    /// Which values there are.
    pub set: Set,
    /// What a group's scale is.
    pub scale: Scale,
    /// Values of a group, where nobody says.
    pub group: usize,
}

/// Which values there are, at a scale of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Set {
    /// Floats with a sign, so many bits of mantissa, this least exponent and this largest value; subnormals below. Beyond the
    /// largest is the largest.
    Float {
        /// Bits of the fraction.
        mantissa: i32,
        /// Of the smallest normal number.
        least: i32,
        /// The largest magnitude.
        most: f32,
    },
    /// These, rising.
    Table(&'static [f32]),
    /// -1, 0, 1.
    Ternary,
    /// -1 and 1; zero is 1.
    Binary,
}

/// What a group's scale is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// There is none: values are taken as they are.
    One,
    /// The largest magnitude over the largest level, as a 16-bit float would hold it (counted, not rounded).
    Most,
    /// The same, in 32 bits.
    Wide,
    /// The same, less the mean of all of them, as one of 256 levels of its block of 256 scales: bitsandbytes' double
    /// quantization (Dettmers et al., 2023, section 3).
    Double,
    /// `2^(floor(log2 max|x|) - floor(log2 most))`, 8 bits: OCP Microscaling Formats v1.0, section 6.3.
    Power,
    /// An E4M3 float, times one f32 of the whole matrix: NVFP4.
    Tensor,
    /// The mean magnitude, in 16 bits: BitNet b1.58's absmean (Ma et al., 2024), XNOR-Net's alpha (Rastegari et al., 2016).
    Mean,
    /// The same of what is left when the mean is taken away, which is kept beside it: 16 bits each. For one bit a value it is
    /// XNOR-Net's rule, which wants values around zero, for those that are not.
    Centred,
}

/// E4M3 without infinities (OCP 8-bit floats).
const E4M3: Set = Set::Float { mantissa: 3, least: -6, most: 448. };
const E5M2: Set = Set::Float { mantissa: 2, least: -14, most: 57_344. };
const E3M2: Set = Set::Float { mantissa: 2, least: -2, most: 28. };
const E2M3: Set = Set::Float { mantissa: 3, least: 0, most: 7.5 };
const E2M1: Set = Set::Float { mantissa: 1, least: 0, most: 6. };

/// Quantiles of a normal distribution, made so that 0 is one of them: NF4 (Dettmers et al., 2023, appendix E).
const NF4: &[f32] = &[
    -1.,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.,
];

/// bitsandbytes' FP4: E2M1's spacing with a subnormal of its own, over 12.
const FP4: &[f32] = &[
    -1.,
    -2. / 3.,
    -0.5,
    -1. / 3.,
    -0.25,
    -1. / 6.,
    -0.005_208_333_3,
    0.,
    0.005_208_333_3,
    1. / 6.,
    0.25,
    1. / 3.,
    0.5,
    2. / 3.,
    1.,
];

macro_rules! levels {
    ($($name:literal, $bits:expr, $set:expr, $scale:expr, $group:expr, $about:literal;)*) => {
        /// Every such format, in the order tables list them.
        pub static LEVELS: &[Levels] = &[$(Levels {
            name: $name, about: $about, bits: $bits, set: $set, scale: $scale, group: $group,
        }),*];
    };
}

levels! {
    "fp8", 8., E4M3, Most, 0, "E4M3 (largest 448), a scale a row";
    "fp8-e5m2", 8., E5M2, Most, 0, "E5M2 (largest 57344), a scale a row";
    "fp8-cast", 8., E4M3, One, 0, "E4M3 without a scale: values as they are";
    "fp8-e5m2-cast", 8., E5M2, One, 0, "E5M2 without a scale";
    "mxfp8", 8., E4M3, Power, 32, "OCP MX: E4M3, a power of two for 32 values";
    "mxfp8-e5m2", 8., E5M2, Power, 32, "OCP MX: E5M2";
    "mxfp6", 6., E2M3, Power, 32, "OCP MX: E2M3";
    "mxfp6-e3m2", 6., E3M2, Power, 32, "OCP MX: E3M2";
    "mxfp4", 4., E2M1, Power, 32, "OCP MX: E2M1";
    "nvfp4", 4., E2M1, Tensor, 16, "E2M1, an E4M3 scale for 16 values, one f32 for all";
    "nf4", 4., Set::Table(NF4), Wide, 64, "bitsandbytes' NormalFloat, an f32 scale for 64 values";
    "fp4", 4., Set::Table(FP4), Wide, 64, "bitsandbytes' FP4, an f32 scale for 64 values";
    "nf4-double", 4., Set::Table(NF4), Double, 64, "nf4 with double quantization: its scales in 8 bits";
    "fp4-double", 4., Set::Table(FP4), Double, 64, "fp4 with double quantization";
    "ternary", 1.6, Set::Ternary, Mean, usize::MAX, "-1, 0, 1 times the matrix's mean magnitude (BitNet b1.58); five to a byte";
    "binary", 1., Set::Binary, Mean, 0, "-1, 1 times the row's mean magnitude (XNOR-Net)";
    "binary-centred", 1., Set::Binary, Centred, 0, "-1, 1 times the row's mean |x - m|, around its mean m";
}

/// A scale's format where it is one of 8 bits.
const SCALES: Fitted = Fitted { set: E4M3, scale: 1., read: 1., middle: 0. };

/// Scales that share one of their own.
const DOUBLE: usize = 256;

/// bitsandbytes' dynamic map of 8 bits: for each power of ten down to 1e-6, half as many numbers as for the one before, evenly
/// between a tenth and one; both signs, zero and one (Dettmers et al., 2022, section 2).
static DYNAMIC: LazyLock<Vec<f32>> = LazyLock::new(|| {
    let mut all = vec![0f32, 1.];
    for i in 0..7 {
        let count = 1usize << i;
        let edge = |k: usize| 0.1 + 0.9 * k as f64 / count as f64;
        for k in 0..count {
            let value = (10f64.powi(i - 6) * (edge(k) + edge(k + 1)) / 2.) as f32;
            all.extend([value, -value]);
        }
    }
    all.sort_by(f32::total_cmp);
    all
});

/// Levels at a group's scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fitted {
    set: Set,
    /// What values are divided by.
    pub scale: f32,
    /// What a level is multiplied by: the same, but where the scale is stored coarser than values are divided (bitsandbytes'
    /// double quantization).
    read: f32,
    /// Where zero is: the mean, for [`Scale::Centred`].
    middle: f32,
}

impl Levels {
    /// By name.
    pub fn named(name: &str) -> Option<&'static Levels> {
        LEVELS.iter().find(|l| l.name == name)
    }

    /// The largest level.
    pub fn most(&self) -> f32 {
        match self.set {
            Set::Float { most, .. } => most,
            Set::Table(levels) => levels.iter().fold(0., |m, l| l.abs().max(m)),
            Set::Ternary | Set::Binary => 1.,
        }
    }

    /// What all groups of a matrix share: NVFP4's one scale, which brings the largest group's scale to 448.
    pub fn shared(&self, all: &[f32]) -> f32 {
        match self.scale {
            Tensor => {
                // Of zeros, or of what is too small to have such a scale: any does.
                let shared = magnitude(all) / (448. * self.most());
                if shared > 0. { shared } else { 1. }
            }
            _ => 1.,
        }
    }

    /// The scales of all groups, where each depends on others'; nothing elsewhere. `most` are the groups' largest magnitudes,
    /// a row of the matrix after another.
    pub fn scales(&self, most: impl Iterator<Item = f32>) -> Vec<f32> {
        if self.scale != Double {
            return Vec::new();
        }
        let all: Vec<f32> = most.collect();
        let mean = (all.iter().map(|&m| f64::from(m)).sum::<f64>() / all.len().max(1) as f64) as f32;
        let mut scales = Vec::with_capacity(all.len());
        for block in all.chunks(DOUBLE) {
            let block: Vec<f32> = block.iter().map(|m| m - mean).collect();
            let most = magnitude(&block);
            let by = 1. / most.max(1e-38);
            scales.extend(block.iter().map(|m| nearest(&DYNAMIC, (m * by).clamp(-1., 1.)) * most + mean));
        }
        scales
    }

    /// Fits a group whose scale is read back as another.
    pub fn read_as(&self, x: &[f32], read: f32) -> Fitted {
        Fitted { read, ..self.fit(x, 1.) }
    }

    /// Fits a group; `shared` is what its matrix shares.
    pub fn fit(&self, x: &[f32], shared: f32) -> Fitted {
        let most = magnitude(x);
        let middle = if self.scale == Centred { mean(x, f64::from) } else { 0. };
        let scale = match self.scale {
            One => 1.,
            Most | Wide | Double => most / self.most(),
            Power => power(exponent(most) - exponent(self.most())),
            Tensor => SCALES.one(most / self.most() / shared) * shared,
            Mean | Centred => mean(x, |v| f64::from((v - middle).abs())),
        };
        let scale = if most > 0. || scale.is_nan() || self.scale == One { scale } else { 0. };
        Fitted { set: self.set, scale, read: scale, middle }
    }

    /// Bits of a group's scale.
    pub fn scale_bits(&self) -> f64 {
        match self.scale {
            One => 0.,
            Most | Mean => 16.,
            Wide | Centred => 32.,
            Power | Tensor => 8.,
            Double => 8. + 32. / DOUBLE as f64,
        }
    }

    /// Bits that the matrix has once.
    pub fn shared_bits(&self) -> f64 {
        if matches!(self.scale, Tensor | Double) { 32. } else { 0. }
    }
}

impl Fitted {
    /// The nearest representable value; of two equally near, the one with an even code in a float, the lower in a table.
    #[inline(always)]
    pub fn one(&self, x: f32) -> f32 {
        if self.scale == 0. {
            return if x.is_nan() { x } else { self.middle };
        }
        self.set.nearest((x - self.middle) / self.scale) * self.read + self.middle
    }

    /// Of each.
    pub fn snap(&self, x: &[f32], out: &mut [f32]) {
        for (o, &x) in out.iter_mut().zip(x) {
            *o = self.one(x);
        }
    }
}

impl Set {
    #[inline(always)]
    fn nearest(self, x: f32) -> f32 {
        match self {
            Set::Float { mantissa, least, most } => {
                let magnitude = x.abs();
                let step = power(exponent(magnitude).max(least) - mantissa);
                let to = (magnitude / step).round_ties_even() * step;
                // What is no number stays none.
                if to > most { most.copysign(x) } else { to.copysign(x) }
            }
            Set::Table(levels) => nearest(levels, x),
            Set::Ternary => x.round_ties_even().clamp(-1., 1.),
            Set::Binary if x.is_nan() => x,
            Set::Binary => {
                if x < 0. {
                    -1.
                } else {
                    1.
                }
            }
        }
    }
}

/// The mean of what `f` makes of each; 0 of nothing.
fn mean(x: &[f32], f: impl Fn(f32) -> f64) -> f32 {
    (x.iter().map(|&v| f(v)).sum::<f64>() / x.len().max(1) as f64) as f32
}

/// The nearest of some numbers that rise; of two, the lower.
pub fn nearest(levels: &[f32], x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    let above = levels.partition_point(|l| *l < x);
    match (above.checked_sub(1).map(|i| levels[i]), levels.get(above)) {
        (Some(low), Some(&high)) if x > 0.5 * (low + high) => high,
        (Some(low), _) => low,
        (None, Some(&high)) => high,
        (None, None) => x,
    }
}

/// `floor(log2 x)` of a positive number; that of the smallest normal one for what is below it.
#[inline(always)]
fn exponent(x: f32) -> i32 {
    ((x.to_bits() >> 23) & 0xff).max(1) as i32 - 127
}

/// `2^n`, of what f32 has.
#[inline(always)]
fn power(n: i32) -> f32 {
    if n < -126 {
        // Subnormal.
        f32::from_bits(1 << (149 + n.max(-149)))
    } else {
        f32::from_bits(((n.min(127) + 127) as u32) << 23)
    }
}

/// Largest magnitude.
pub fn magnitude(x: &[f32]) -> f32 {
    x.iter().fold(0., |m, v| v.abs().max(m))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_what_their_bits_say() {
        for (set, exponent_bits, mantissa, bias, most) in [
            (E4M3, 4, 3, 7, 448.),
            (E5M2, 5, 2, 15, 57_344.),
            (E3M2, 3, 2, 3, 28.),
            (E2M3, 2, 3, 1, 7.5),
            (E2M1, 2, 1, 1, 6.),
        ] {
            let mut values = Vec::new();
            for code in 0..1u32 << (exponent_bits + mantissa) {
                let (e, f) = (code >> mantissa, code & ((1 << mantissa) - 1));
                let fraction = f as f32 / (1 << mantissa) as f32;
                let value = match e {
                    0 => fraction * 2f32.powi(1 - bias),
                    _ => (1. + fraction) * 2f32.powi(e as i32 - bias),
                };
                values.extend((value <= most).then_some(value));
            }
            for pair in values.windows(2) {
                let (low, high) = (pair[0], pair[1]);
                assert_eq!(set.nearest(low), low);
                assert_eq!(set.nearest(-high), -high);
                let middle = 0.5 * (low + high);
                assert_eq!(set.nearest(middle + 0.01 * (high - low)), high);
                assert_eq!(set.nearest(middle - 0.01 * (high - low)), low);
            }
            assert_eq!(set.nearest(1e30), most);
            assert!(set.nearest(f32::NAN).is_nan());
        }
    }

    #[test]
    fn snapping_twice_is_snapping_once() {
        let x: Vec<f32> = (0..64).map(|i| ((i * 7919 + 3) % 1009) as f32 / 40. - 12.).collect();
        for levels in LEVELS {
            for x in [
                &x[..],
                &x[..5],
                &[0.; 4],
                &[1e-42, -1e-42],
                &[3e38, -1.],
                &[f32::NAN, 1.],
                &[f32::INFINITY, 1.],
            ] {
                let fitted = levels.fit(x, levels.shared(x));
                for &v in x {
                    let once = fitted.one(v);
                    assert!(!once.is_finite() || fitted.one(once) == once, "{} {v} {once}", levels.name);
                }
            }
        }
    }
}
