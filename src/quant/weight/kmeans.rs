//! A codebook for each row: `2^b` values of its own, chosen for the least squared error (weight clustering, Han et al., 2016).
//!
//! ```text
//! minimize  sum_i s_i (w_i - c(w_i))^2      over values c_1 < .. < c_k, c(w) the nearest of them       k = 2^b
//! s_i = 1, or with `sensitivity`
//!       "gradients"   the weight's squared gradients of the model's loss: SqueezeLLM's dense part (Kim et al., 2024, section 4.1)
//!       "inputs"      the sum of squares of input i: the layer's own loss, whose Hessian X X^T is the same for all rows
//! ```
//!
//! On a line, clusters are intervals of the sorted values, so the least error is found, not approached: by dynamic programming
//! over where intervals end (Wang and Song, 2011), where the best last interval begins no earlier for a later end (Grønlund et
//! al., 2017). So there is no seed, and no run that another would beat. Time is rows times `n k`; where a row has more different
//! values than [`PLACES`]` / k` (16384 at 4 bits, 4096 at 6, 1024 at 8), intervals end at one of so many places, spread as centres
//! will be, and then centres and borders take turns until neither moves (Lloyd, 1982): 1% more error at 8 bits for 4096 values.
use super::{Given, Needs, Rounded, Rounder};
use crate::{
    mistake,
    model::{ops::Precision, site::Site, spec::DecoderSpec},
    quant::{
        Described, Entry,
        grid::{Format, Grid, Per, Zero, levels::nearest},
    },
    tensor::rows,
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "kmeans",
    about: "a codebook a row (default), group or tensor, of the least squared error (Han et al., 2016); sensitivity = \"gradients\": \
            weighted as SqueezeLLM does (Kim et al., 2024); \"inputs\": by inputs' power",
};

/// Places where intervals may end, times intervals.
pub const PLACES: usize = 1 << 18;

/// Turns of centres and borders, at most. Each lowers the error; the last of many lower it by nothing that matters.
const TURNS: usize = 100;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kmeans {
    /// What a weight's loss counts.
    #[serde(default)]
    pub sensitivity: Sensitivity,
}

/// What a weight's loss counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Value")]
pub enum Sensitivity {
    /// All the same.
    #[default]
    None,
    /// The power of its input.
    Inputs,
    /// Its squared gradients of the model's loss.
    Gradients,
}

impl TryFrom<Value> for Sensitivity {
    type Error = String;

    fn try_from(said: Value) -> std::result::Result<Self, String> {
        match said.as_str() {
            Some("none") => Ok(Sensitivity::None),
            Some("inputs") => Ok(Sensitivity::Inputs),
            Some("gradients") => Ok(Sensitivity::Gradients),
            _ => Err(format!("`sensitivity` is {said}; there are: \"none\", \"inputs\", \"gradients\"")),
        }
    }
}

impl Rounder for Kmeans {
    fn needs(&self) -> Needs {
        Needs {
            channels: self.sensitivity == Sensitivity::Inputs,
            gradients: self.sensitivity == Sensitivity::Gradients,
            ..Needs::NOTHING
        }
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Format::Int(int) = given.grid.format else { mistake!("kmeans makes its own values: say `bits`") };
        let (out, inner) = weight.dims2()?;
        let (count, precision) = (1usize << int.bits, given.precision);
        let (counts, note) = self.counts(given, (out, inner))?;
        let w = weight.to_device(&Device::Cpu)?.contiguous()?;
        let groups: Vec<_> = given.grid.groups(inner).collect();
        let rounded = rows::with(&w, |w| {
            let mut all = w.to_vec();
            let each = all.par_chunks_mut(inner.max(1));
            // One row's, or all rows'.
            let counts_of = |o: usize| &counts[o * inner % counts.len().max(1)..][..inner];
            if given.grid.per == Per::Tensor {
                let rows = w.chunks(inner.max(1)).enumerate();
                let points = Points::of(rows.flat_map(|(o, row)| row.iter().zip(counts_of(o))));
                let book = points.codebook(count, precision);
                each.for_each(|row| snap(row, &book));
            } else {
                each.enumerate().for_each(|(o, row)| {
                    for group in &groups {
                        let points = Points::of(row[group.clone()].iter().zip(&counts_of(o)[group.clone()]));
                        snap(&mut row[group.clone()], &points.codebook(count, precision));
                    }
                });
            }
            all
        })?;
        let weight = Tensor::from_vec(rounded, (out, inner), &Device::Cpu)?.to_device(weight.device())?;
        Ok(Rounded { weight, bits: None, note })
    }

    /// A code for each weight, and codebooks of 16-bit values.
    fn bits(&self, grid: &Grid, (out, inner): (usize, usize), _: (Site, &DecoderSpec)) -> f64 {
        let books = match grid.per {
            Per::Tensor => 1,
            Per::Row => out,
            Per::Group => out * grid.groups(inner).count(),
        };
        grid.code_bits() * (out * inner) as f64 + 16. * grid.code_bits().exp2() * books as f64
    }

    fn check(&self, grid: &Grid) -> Result<()> {
        let Format::Int(int) = grid.format else {
            mistake!("kmeans makes its own values: say `bits`, not `format`")
        };
        if int.symmetric || int.zero != Zero::Clamped || grid.search {
            mistake!("kmeans makes its own values: `symmetric`, `zero` and `search` are for integers");
        }
        Ok(())
    }
}

impl Kmeans {
    /// What weights count, at most 1, those of one row for all or of all rows; and what there is to say of it.
    fn counts(&self, given: &Given, (out, inner): (usize, usize)) -> Result<(Vec<f32>, Option<String>)> {
        let even = vec![1.; inner];
        let (power, whole) = match (self.sensitivity, given.gradients) {
            (Sensitivity::None, _) => return Ok((even, None)),
            (Sensitivity::Inputs, _) => (given.seen.square.clone(), inner),
            (Sensitivity::Gradients, Some(squares)) => {
                let all = squares.to_device(&Device::Cpu)?.flatten_all()?.to_vec1::<f32>()?;
                (all.into_iter().map(f64::from).collect(), out * inner)
            }
            (Sensitivity::Gradients, None) => (Vec::new(), inner),
        };
        ensure!(power.iter().all(|s| s.is_finite()), "its calibration inputs are not finite");
        let most = power.iter().fold(0f64, |m, &s| m.max(s));
        if power.len() != whole || most == 0. {
            return Ok((
                even,
                Some("no calibration token came by, or zeros alone: all weights count the same".into()),
            ));
        }
        Ok((power.iter().map(|s| (s / most) as f32).collect(), None))
    }
}

/// The `count` values, rising, that lose least of some values, each with what it counts; fewer where there are no more.
pub fn codebook(values: impl Iterator<Item = (f32, f32)>, count: usize) -> Vec<f32> {
    let (values, counts): (Vec<f32>, Vec<f32>) = values.unzip();
    Points::of(values.iter().zip(&counts)).codebook(count, Precision::F32)
}

/// Each value to the nearest of a codebook; what is no number stays none.
fn snap(x: &mut [f32], book: &[f32]) {
    for x in x.iter_mut().filter(|x| x.is_finite()) {
        *x = nearest(book, *x);
    }
}

/// Different values that count, rising.
struct Points {
    /// A value, and what it counts.
    all: Vec<(f32, f32)>,
}

impl Points {
    fn of<'a>(values: impl Iterator<Item = (&'a f32, &'a f32)>) -> Self {
        let mut all: Vec<(f32, f32)> = Vec::with_capacity(values.size_hint().0);
        let mut rest = Vec::new();
        for (&value, &counts) in values.filter(|(value, _)| value.is_finite()) {
            // 0 and -0 are one value.
            let point = (value + 0., counts);
            if counts > 0. { all.push(point) } else { rest.push(point) }
        }
        if all.is_empty() {
            // Where nothing counts, all count the same.
            all = rest.into_iter().map(|(value, _)| (value, 1.)).collect();
        }
        // A stable sort: equal values are added up in the order in which they stand, whoever sorts them.
        all.par_sort_by(|a, b| a.0.total_cmp(&b.0));
        all.dedup_by(|next, first| {
            let same = next.0 == first.0;
            if same {
                first.1 += next.1;
            }
            same
        });
        Self { all }
    }

    /// The `count` values that lose least, rising, as numbers of that precision; fewer where there are no more.
    fn codebook(&self, count: usize, precision: Precision) -> Vec<f32> {
        let mut book: Vec<f32> = match self.all.len() <= count {
            true => self.all.iter().map(|p| precision.one(p.0)).collect(),
            false => self.best_centres(count).into_iter().map(|c| precision.one(c as f32)).collect(),
        };
        book.dedup();
        book
    }

    /// The same of more values than that.
    fn best_centres(&self, count: usize) -> Vec<f64> {
        let n = self.all.len();
        let places = self.places(PLACES / count);
        let mut starts = Sums::of(&self.all, &places).intervals(count);
        starts.iter_mut().for_each(|start| *start = places[*start]);
        let mut book = self.centres(&starts);
        for _ in 0..TURNS {
            let borders = book.windows(2).map(|c| {
                let border = 0.5 * (c[0] + c[1]);
                self.all.partition_point(|p| f64::from(p.0) <= border)
            });
            let mut next: Vec<usize> = std::iter::once(0).chain(borders).collect();
            next.dedup();
            next.retain(|&start| start < n);
            if next == starts {
                break;
            }
            book = self.centres(&next);
            starts = next;
        }
        book
    }

    /// Where intervals may begin and end: everywhere, or at about `most` places; half of them evenly among the points, half as
    /// dense as the best centres are, which goes with the cube root of how dense the points are (Panter and Dite, 1951).
    fn places(&self, most: usize) -> Vec<usize> {
        let n = self.all.len();
        if n <= most {
            return (0..=n).collect();
        }
        let step = |pair: &[(f32, f32)]| {
            let gap = f64::from(pair[1].0) - f64::from(pair[0].0);
            (f64::from(pair[0].1) * gap * gap).cbrt()
        };
        let total: f64 = self.all.windows(2).map(step).sum();
        let mut places = vec![0];
        let (mut sum, mut last) = (0f64, 0);
        for (i, pair) in self.all.windows(2).enumerate() {
            sum += step(pair);
            let now = (0.5 * most as f64 * ((i + 1) as f64 / n as f64 + sum / total)) as usize;
            if now > last {
                places.push(i + 1);
                last = now;
            }
        }
        places.push(n);
        places
    }

    /// The mean of each interval, by where it begins.
    fn centres(&self, starts: &[usize]) -> Vec<f64> {
        let ends = starts.iter().skip(1).copied().chain([self.all.len()]);
        let mean = |(&start, end): (&usize, usize)| {
            // From its first value on: what is near to each other far from zero loses no digits.
            let first = f64::from(self.all[start].0);
            let (mut sum, mut total) = (0f64, 0f64);
            for &(value, counts) in &self.all[start..end] {
                sum += f64::from(counts) * (f64::from(value) - first);
                total += f64::from(counts);
            }
            first + sum / total
        };
        starts.iter().zip(ends).map(mean).collect()
    }
}

/// The best of so many intervals up to each place: what is lost, and where the last begins.
struct Layer<'a> {
    least: &'a [f64],
    begin: &'a [u32],
}

/// Sums of points up to each place where an interval may end: of what they count, and of that times value and square.
struct Sums {
    counts: Vec<f64>,
    values: Vec<f64>,
    squares: Vec<f64>,
}

impl Sums {
    /// `places`: how many points are before each.
    fn of(points: &[(f32, f32)], places: &[usize]) -> Self {
        let total: f64 = points.iter().map(|p| f64::from(p.1)).sum();
        // Around their mean, where squares are small and differences of sums keep their digits.
        let middle = points.iter().map(|p| f64::from(p.0) * f64::from(p.1)).sum::<f64>() / total;
        let mut sums = Self {
            counts: Vec::with_capacity(places.len()),
            values: Vec::with_capacity(places.len()),
            squares: Vec::with_capacity(places.len()),
        };
        let (mut counts, mut values, mut squares, mut at) = (0f64, 0f64, 0f64, 0);
        for &end in places {
            for &(value, weight) in &points[at..end] {
                let (value, weight) = (f64::from(value) - middle, f64::from(weight));
                counts += weight;
                values += weight * value;
                squares += weight * value * value;
            }
            at = end;
            sums.counts.push(counts);
            sums.values.push(values);
            sums.squares.push(squares);
        }
        sums
    }

    /// What one value loses for all points between two places.
    #[inline(always)]
    fn lost(&self, from: usize, to: usize) -> f64 {
        let counts = self.counts[to] - self.counts[from];
        let value = self.values[to] - self.values[from];
        if counts > 0. {
            (self.squares[to] - self.squares[from] - value * value / counts).max(0.)
        } else {
            0.
        }
    }

    /// At which place each of `count` intervals begins, so that they lose least. There are more places than intervals.
    fn intervals(&self, count: usize) -> Vec<usize> {
        let places = self.counts.len() - 1;
        // Of one interval up to each place; then of two, of three ..
        let mut least: Vec<f64> = (0..=places).map(|to| self.lost(0, to)).collect();
        let mut begins: Vec<Vec<u32>> = Vec::with_capacity(count.saturating_sub(2));
        let first = vec![0u32; places + 1];
        for before in 1..count.saturating_sub(1) {
            let (mut next, mut begin) = (vec![f64::INFINITY; places + 1], vec![0u32; places + 1]);
            let one_less = Layer { least: &least, begin: begins.last().unwrap_or(&first) };
            self.best(&one_less, (before + 1, places), (before, places - 1), &mut next, &mut begin);
            least = next;
            begins.push(begin);
        }
        let mut starts = Vec::with_capacity(count);
        let mut end = places;
        if count > 1 {
            end = self.begin(&least, places, (count - 1, places - 1)).1;
            starts.push(end);
        }
        for begin in begins.iter().rev() {
            end = begin[end] as usize;
            starts.push(end);
        }
        starts.push(0);
        starts.reverse();
        starts
    }

    /// For all ends of `ends`, the best begin of the last interval among `from`: that of the middle end divides those of the ends
    /// before it from those after it.
    fn best(
        &self,
        one_less: &Layer,
        ends: (usize, usize),
        from: (usize, usize),
        next: &mut [f64],
        begin: &mut [u32],
    ) {
        if ends.0 > ends.1 {
            return;
        }
        let end = usize::midpoint(ends.0, ends.1);
        // With an interval more, the last begins no earlier.
        let last = from.1.min(end - 1);
        let first = from.0.max(one_less.begin[end] as usize).min(last);
        let (lost, at) = self.begin(one_less.least, end, (first, last));
        (next[end], begin[end]) = (lost, at as u32);
        self.best(one_less, (ends.0, end - 1), (from.0, at), next, begin);
        self.best(one_less, (end + 1, ends.1), (at, from.1), next, begin);
    }

    /// The best begin of an interval with this end: what is lost, and where.
    #[inline(always)]
    fn begin(&self, least: &[f64], end: usize, from: (usize, usize)) -> (f64, usize) {
        let (mut lost, mut at) = (f64::INFINITY, from.1);
        for begin in (from.0..=from.1).rev() {
            let own = self.lost(begin, end);
            // The interval grows, and what it loses with it; and what is before it loses no less than it does up to the first.
            if own + least[from.0] > lost {
                break;
            }
            if least[begin] + own < lost {
                (lost, at) = (least[begin] + own, begin);
            }
        }
        (lost, at)
    }
}

impl Described for Kmeans {
    fn describe(&self) -> Value {
        json!({
            "method": "kmeans", "format": "codebook", "scheme": null, "zero": null, "range": null,
            "weighted": match self.sensitivity {
                Sensitivity::None => "no",
                Sensitivity::Inputs => "by the sum of squares of each input",
                Sensitivity::Gradients => "by squared gradients of the model's loss",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(points: &Points, book: &[f32]) -> f64 {
        let each = points.all.iter().map(|&(x, s)| f64::from(s) * f64::from(nearest(book, x) - x).powi(2));
        each.sum()
    }

    /// Every way to cut a few points into intervals: none loses less.
    #[test]
    fn no_codebook_loses_less() {
        for seed in 0..40u32 {
            let x: Vec<f32> = (0..11)
                .map(|i| (((i * 37 + seed * 101) % 89) as f32 * 0.7).sin() * ((i % 3) as f32 + 0.2))
                .collect();
            let s: Vec<f32> = (0..11).map(|i| ((i * 13 + seed * 7) % 10) as f32 / 9.).collect();
            let points = Points::of(x.iter().zip(&s));
            let n = points.all.len();
            for count in 1..=5 {
                let book = points.codebook(count, Precision::F32);
                assert!(book.len() <= count && book.is_sorted());
                let mut least = f64::INFINITY;
                for cuts in 0..1u32 << (n - 1) {
                    if cuts.count_ones() as usize == count - 1 {
                        let starts: Vec<usize> =
                            (0..n).filter(|&i| i == 0 || cuts >> (i - 1) & 1 == 1).collect();
                        let book: Vec<f32> = points.centres(&starts).iter().map(|&c| c as f32).collect();
                        least = least.min(lost(&points, &book));
                    }
                }
                let ours = lost(&points, &book);
                assert!(ours <= least * (1. + 1e-5) + 1e-12, "{seed} {count}: {ours}, not {least}");
            }
        }
    }

    /// Where there are more values than places, little is lost by it.
    #[test]
    fn many_values() {
        let most = PLACES / 16;
        let n = 3 * most + 5;
        let x: Vec<f32> =
            (0..n).map(|i| (i as f32 * 0.377).sin() + 0.1 * (i as f32 * 1.1e-3).cos()).collect();
        let points = Points::of(x.iter().zip(&vec![1.; n]));
        let few = Points { all: points.all.iter().copied().step_by(4).collect() };
        assert!(points.all.len() > 2 * most && few.all.len() < most);
        let (ours, fair) = (
            lost(&points, &points.codebook(16, Precision::F32)),
            lost(&points, &few.codebook(16, Precision::F32)),
        );
        assert!(ours <= fair * (1. + 1e-4), "{ours} {fair}");
    }
}
