//! The points of IQ types: of all codes that eight values (or four) could have, the few that an index names.
//!
//! ```text
//! iq2_xxs 256   iq2_xs 512   iq2_s 1024   iq1_s iq1_m 2048     eight codes, 0 to 2
//! iq3_xxs 256   iq3_s 512                                      four codes, 0 to 7
//! ```
//! Codes that are no point move to a neighbour: of the points at the two nearest distances (or one, or three)
//! to that which loses least; of several, to the nearest, then to the first. As ggml's `iq2xs_init_impl` and
//! `iq3xs_init_impl` list them and `iq?_find_best_neighbour*` choose.
use std::{ops::Range, sync::LazyLock};

/// For `iq2_xxs`.
pub static IQ2_XXS: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(0, 256, Codes::EIGHT, 2));
/// For `iq2_xs`.
pub static IQ2_XS: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(256, 512, Codes::EIGHT, 2));
/// For `iq2_s`.
pub static IQ2_S: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(768, 1024, Codes::EIGHT, 1));
/// For `iq1_s` and `iq1_m`.
pub static IQ1: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(1792, 2048, Codes::EIGHT, 3));
/// For `iq3_xxs`.
pub static IQ3_XXS: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(3840, 256, Codes::FOUR, 2));
/// For `iq3_s`.
pub static IQ3_S: LazyLock<Lattice> = LazyLock::new(|| Lattice::of(4096, 512, Codes::FOUR, 3));

/// All points, two bytes each, as [`Codes::packed`] packs them (`tests/make_gguf.py` writes it).
static POINTS: &[u8] = include_bytes!("grids.bin");

/// Codes that are one index together.
#[derive(Clone, Copy)]
struct Codes {
    count: usize,
    bits: usize,
    most: u8,
}

impl Codes {
    const EIGHT: Self = Self { count: 8, bits: 2, most: 2 };
    const FOUR: Self = Self { count: 4, bits: 3, most: 7 };

    fn packed(self, codes: &[u8]) -> usize {
        codes.iter().rev().fold(0, |all, &code| all << self.bits | usize::from(code))
    }

    fn unpacked(self, packed: usize) -> impl Iterator<Item = u8> {
        (0..self.count).map(move |i| (packed >> (i * self.bits)) as u8 & ((1 << self.bits) - 1))
    }
}

/// See the module.
pub struct Lattice {
    codes: Codes,
    /// Codes, point after point.
    points: Vec<u8>,
    /// Where in `neighbours` those of packed codes are: nowhere, where the codes are a point.
    near: Vec<Range<usize>>,
    neighbours: Vec<u16>,
}

impl Lattice {
    fn of(first: usize, count: usize, codes: Codes, distances: usize) -> Self {
        let packed = POINTS.chunks(2).skip(first).take(count);
        let packed = packed.map(|p| p.iter().rev().fold(0, |all, &byte| all << 8 | usize::from(byte)));
        let points: Vec<u8> = packed.flat_map(|p| codes.unpacked(p)).collect();
        let mut neighbours = vec![];
        let near = (0..1 << (codes.count * codes.bits)).map(|packed| {
            let start = neighbours.len();
            let all: Vec<u8> = codes.unpacked(packed).collect();
            if all.iter().all(|&c| c <= codes.most) {
                nearest(&all, &points, distances, &mut neighbours);
            }
            start..neighbours.len()
        });
        Self { codes, near: near.collect(), points, neighbours }
    }

    /// How many codes are one index.
    pub fn together(&self) -> usize {
        self.codes.count
    }

    /// Codes of a point.
    pub fn point(&self, index: u16) -> &[u8] {
        &self.points[usize::from(index) * self.codes.count..][..self.codes.count]
    }

    /// Which point codes are.
    pub fn index(&self, codes: &[u8]) -> u16 {
        (0..)
            .zip(self.points.chunks(self.codes.count))
            .find(|(_, point)| *point == codes)
            .map_or(0, |(i, _)| i)
    }

    /// Moves codes to the point of least `sum w (scale level - x)^2`; whether they were one already.
    pub fn snap(
        &self,
        codes: &mut [u8],
        x: &[f32],
        w: &[f32],
        scale: f32,
        level: impl Fn(u8) -> f32,
    ) -> bool {
        let near = &self.neighbours[self.near[self.codes.packed(codes)].clone()];
        let (mut least, mut best) = (f32::MAX, near.first());
        for point in near {
            let levels = self.point(*point).iter().map(|&code| level(code));
            let lost = levels.zip(x).zip(w).fold(0., |sum, ((level, x), w)| {
                let off = scale * level - x;
                sum + w * off * off
            });
            if lost < least {
                (least, best) = (lost, Some(point));
            }
        }
        if let Some(point) = best {
            codes.copy_from_slice(self.point(*point));
        }
        best.is_none()
    }
}

/// Adds the points at the smallest so many distances; none, where the codes are a point.
fn nearest(codes: &[u8], points: &[u8], distances: usize, into: &mut Vec<u16>) {
    let squares =
        |point: &[u8]| point.iter().zip(codes).fold(0, |sum, (p, c)| sum + u32::from(p.abs_diff(*c)).pow(2));
    let all: Vec<u32> = points.chunks(codes.len()).map(squares).collect();
    let mut beyond = 0;
    for _ in 0..distances {
        let Some(&next) = all.iter().filter(|&&d| d >= beyond).min() else { return };
        if next == 0 {
            return;
        }
        into.extend((0..).zip(&all).filter(|(_, d)| **d == next).map(|(index, _)| index));
        beyond = next + 1;
    }
}
