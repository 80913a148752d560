//! Causal attention in tiles of keys: the score matrix is never in memory.
//!
//! ```text
//! for each tile of 168 keys:  S = K Q^T  [keys, queries]     max, exp and sum in lanes, a lane a query
//!                             O = O exp(old max - new max) + exp(S - new max)^T V
//! at the end:                 O / sum                        (Milakov and Gimelshein, 2018; FlashAttention's algorithm 1)
//! ```
//! Tiles lie at multiples of 168 positions of a sequence, wherever its rows are, and what a query does not see adds zeros:
//! so a query's bits depend on its sequence alone, not on what is packed beside it, shared with it or cached before it.
//! Tiles of the same rows are copied once: sequences that share a prefix share them. Spans are taken in groups, so that
//! copies of many sequences are not in memory at once.
//!
//! In half precision the probabilities are rounded after they are divided, as such inference stores them, and a recipe may
//! round them: there one tile holds all keys.
use super::{
    attention::{Newest, Span, alibi_term, first_key, slopes},
    ops::{self, Precision},
    seam::{Age, RowMap},
    spec::{AlibiTerm, AttentionSpec, Position, Scaled},
};
use crate::{
    float::exp,
    tensor::{
        rows::{Fresh, build, with},
        strip::{self, Aligned, Flat, Into, Product, fitting, pack},
    },
};
use candle_core::{Result, Tensor};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::{collections::HashMap, ops::Range};

/// Keys of a tile: whole strips of 14 and of 6.
const TILE: usize = 168;
/// Queries of a block, a lane each.
const LANES: usize = 32;
/// Numbers that the tiles of a group of spans take, about: 64 MB.
const GROUP: usize = 1 << 24;

/// `q [tokens, heads * head_dim]` to the same shape.
pub(super) fn attend(
    spec: &AttentionSpec,
    q: &Tensor,
    kv: (&Tensor, &Tensor),
    newest: Newest,
    probabilities: Option<&dyn RowMap>,
    spans: &[Span],
    precision: Precision,
) -> Result<Tensor> {
    let whole = precision != Precision::F32 || probabilities.is_some();
    let q = match spec.scaled {
        Scaled::Queries => precision.round((q * spec.scale)?)?,
        _ => q.contiguous()?,
    };
    let arch = Arch::new();
    let mut all: Vec<Vec<f32>> = Vec::new();
    let mut rest = spans;
    while !rest.is_empty() {
        let plan = Plan::new(spec, rest, whole, arch);
        rest = &rest[plan.spans.len()..];
        let kept = Kept::new(&plan, kv)?;
        let newest = newest.map(|(kv, ages)| Ok::<_, candle_core::Error>((Kept::new(&plan, kv)?, ages)));
        let newest = newest.transpose()?;
        let newest = newest.as_ref();
        let group = All { spec, plan: &plan, kept: &kept, newest, probabilities, precision, arch };
        all.push(with(&q, |q| group.run(q))?);
    }
    let out = if all.len() == 1 { all.remove(0) } else { all.concat() };
    Tensor::from_vec(out, q.shape(), q.device())
}

/// Bytes that tiles take at most at once, for these spans: once more where a map stands before keys and values. `whole`: one
/// tile holds all keys.
pub(super) fn bytes(spec: &AttentionSpec, spans: &[Span], whole: bool) -> usize {
    let arch = Arch::new();
    let (mut rest, mut most) = (spans, 0);
    while !rest.is_empty() {
        let plan = Plan::new(spec, rest, whole, arch);
        rest = &rest[plan.spans.len()..];
        most = most.max(4 * plan.numbers);
    }
    most
}

/// Which rows each tile holds, and which tiles each span reads, of as many spans as make a group.
struct Plan<'a> {
    /// The first of those that there are.
    spans: &'a [Span],
    /// Tiles that differ: pieces of rows.
    tiles: Vec<Vec<Range<usize>>>,
    /// A span's tiles from the first that it sees on: its number in `tiles`.
    of_span: Vec<(usize, Vec<usize>)>,
    /// Keys of a tile.
    size: usize,
    /// Rows of a strip of keys.
    tall: usize,
    /// Width of a head, and of its values with what fills the last vector.
    head: (usize, usize),
    /// Heads of keys and values.
    heads: usize,
    /// What all tiles take.
    numbers: usize,
}

impl<'a> Plan<'a> {
    fn new(spec: &AttentionSpec, spans: &'a [Span], whole: bool, arch: Arch) -> Self {
        let size = if whole { usize::MAX } else { TILE };
        let mut known: HashMap<Vec<Range<usize>>, usize> = HashMap::new();
        let mut tiles = Vec::new();
        let mut of_span = Vec::with_capacity(spans.len());
        let d = spec.head_dim;
        let (tall, head) = (strip::rows(arch), (d, d.next_multiple_of(16)));
        let (mut numbers, mut alone) = (0, 0);
        for span in spans {
            // A group begins with its first span's tiles again: that is half of it at most.
            if numbers > GROUP.max(2 * alone) {
                break;
            }
            let first = first_key(spec.window, span.past()) / size;
            let mut mine = Vec::new();
            let mut open: Vec<Range<usize>> = Vec::new();
            let (mut at, mut filled) = (0usize, 0usize);
            let mut close = |open: &mut Vec<Range<usize>>, at: usize| {
                let tile = std::mem::take(open);
                if (at - 1) / size >= first {
                    mine.push(*known.entry(tile.clone()).or_insert_with(|| {
                        let keys: usize = tile.iter().map(ExactSizeIterator::len).sum();
                        numbers += spec.kv_heads * (keys.next_multiple_of(tall) * d + keys * head.1);
                        tiles.push(tile);
                        tiles.len() - 1
                    }));
                }
            };
            for piece in &span.keys {
                let mut rest = piece.clone();
                while !rest.is_empty() {
                    let take = rest.len().min(size - filled);
                    open.push(rest.start..rest.start + take);
                    rest.start += take;
                    at += take;
                    filled += take;
                    if filled == size {
                        close(&mut open, at);
                        filled = 0;
                    }
                }
            }
            if !open.is_empty() {
                close(&mut open, at);
            }
            of_span.push((first, mine));
            if of_span.len() == 1 {
                alone = numbers;
            }
        }
        let spans = &spans[..of_span.len()];
        Self { spans, tiles, of_span, size, tall, head, heads: spec.kv_heads, numbers }
    }
}

/// Keys in strips `[strips][head_dim][strip]` and values `[keys][padded head_dim]`, a tile and head after another.
struct Kept {
    keys: Aligned,
    values: Aligned,
    /// Where each tile begins in both, and how many keys it has; heads of a tile are that far apart.
    at: Vec<Place>,
}

struct Place {
    keys: usize,
    values: usize,
    count: usize,
    /// Numbers of one head.
    each: (usize, usize),
}

impl Kept {
    fn new(plan: &Plan, (k, v): (&Tensor, &Tensor)) -> Result<Self> {
        let (d, wide) = plan.head;
        let (mut keys, mut values) = (0, 0);
        let mut at = Vec::with_capacity(plan.tiles.len());
        for tile in &plan.tiles {
            let count: usize = tile.iter().map(ExactSizeIterator::len).sum();
            let each = (count.next_multiple_of(plan.tall) * d, count * wide);
            at.push(Place { keys, values, count, each });
            keys += each.0 * plan.heads;
            values += each.1 * plan.heads;
        }
        let (k, v) = (k.contiguous()?, v.contiguous()?);
        let fill = |k: &[f32], v: &[f32], keys: Fresh, values: Fresh| {
            let (mut keys, mut values) = (keys, values);
            let mut jobs = Vec::with_capacity(plan.tiles.len() * plan.heads);
            for (tile, place) in plan.tiles.iter().zip(&at) {
                for head in 0..plan.heads {
                    let (mine, later) = keys.split_at(place.each.0);
                    keys = later;
                    let (own, later) = values.split_at(place.each.1);
                    values = later;
                    jobs.push((tile, head, mine, own));
                }
            }
            let width = plan.heads * d;
            let fill = |(tile, head, keys, values): (&Vec<Range<usize>>, usize, Fresh, Fresh)| {
                let rows = || tile.iter().cloned().flatten().map(|row| row * width + head * d);
                let mut from = rows();
                for strip in keys.cleared().chunks_mut(plan.tall * d) {
                    pack(from.by_ref().take(plan.tall).map(|at| &k[at..at + d]), plan.tall, strip);
                }
                for (to, at) in values.cleared().chunks_mut(wide).zip(rows()) {
                    to[..d].copy_from_slice(&v[at..at + d]);
                }
            };
            // A few keys are not worth a task.
            if jobs.len() > 1 && k.len() > 1 << 15 {
                jobs.into_par_iter().for_each(fill);
            } else {
                jobs.into_iter().for_each(fill);
            }
        };
        let mut filled = Aligned::default();
        let keys = with(&k, |k| {
            with(&v, |v| {
                Aligned::build(keys, |keys| {
                    filled = Aligned::build(values, |values| fill(k, v, keys, values));
                })
            })
        })??;
        Ok(Self { keys, values: filled, at })
    }

    /// A head's strips and values of a tile.
    fn tile(&self, tile: usize, head: usize) -> (&[f32], &[f32]) {
        let place = &self.at[tile];
        let (k, v) = place.each;
        (&self.keys.get()[place.keys + head * k..][..k], &self.values.get()[place.values + head * v..][..v])
    }
}

struct All<'a> {
    spec: &'a AttentionSpec,
    plan: &'a Plan<'a>,
    kept: &'a Kept,
    newest: Option<&'a (Kept, [Age; 2])>,
    probabilities: Option<&'a dyn RowMap>,
    precision: Precision,
    arch: Arch,
}

/// Which of a tile's tokens are old enough to be read as a map gives them back.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Old {
    All,
    None,
    /// To some queries some are.
    Some,
}

impl Old {
    /// Of these tokens, to queries at these positions.
    fn of(tokens: &Range<usize>, queries: (usize, usize), age: Age) -> Self {
        if tokens.end <= age.mapped(queries.0) {
            Old::All
        } else if tokens.start >= age.mapped(queries.1) {
            Old::None
        } else {
            Old::Some
        }
    }
}

impl All<'_> {
    /// `q` of all spans; what comes out, of this plan's.
    fn run(&self, q: &[f32]) -> Vec<f32> {
        let queries: usize = self.plan.spans.iter().map(|s| s.queries).sum();
        build(queries * self.spec.heads * self.spec.head_dim, |out| self.fill(q, out))
    }

    fn fill(&self, q: &[f32], out: Fresh) {
        let width = self.spec.heads * self.spec.head_dim;
        let slopes = match self.spec.position {
            Position::Alibi { max, .. } => slopes(self.spec.heads, max),
            _ => Vec::new(),
        };
        let mut blocks = Vec::new();
        let mut rest = out;
        // Spans lie one after another, in the order of their rows.
        for (i, span) in self.plan.spans.iter().enumerate() {
            for first in (0..span.queries).step_by(LANES) {
                let count = LANES.min(span.queries - first);
                let (here, later) = rest.split_at(count * width);
                rest = later;
                let q = &q[(span.query + first) * width..][..count * width];
                blocks.push((Block { all: self, span: i, first, count, q, slopes: &slopes }, here));
            }
        }
        match blocks.len() {
            1 => blocks.into_iter().for_each(|(block, out)| block.run(out)),
            // The later of a sequence's have more to do: none waits behind another.
            _ => blocks.into_par_iter().rev().with_max_len(1).for_each(|(block, out)| block.run(out)),
        }
    }
}

/// Some queries of a span, all heads.
struct Block<'a> {
    all: &'a All<'a>,
    span: usize,
    first: usize,
    count: usize,
    /// `[count, heads * head_dim]`.
    q: &'a [f32],
    slopes: &'a [f32],
}

/// What a block works with, again and again.
#[derive(Default)]
struct Room {
    /// `[head_dim][lanes]`.
    q: Aligned,
    /// `[keys][lanes]`.
    scores: Aligned,
    /// The same, where some are read exactly.
    other: Aligned,
    /// `[queries][padded head_dim]`.
    out: Aligned,
}

impl Block<'_> {
    /// Fills as many rows as it has queries.
    fn run(&self, out: Fresh) {
        let rows = out.cleared();
        thread_local! { static ROOM: std::cell::RefCell<Room> = std::cell::RefCell::default(); }
        let mut room = ROOM.take();
        for head in 0..self.all.spec.heads {
            if self.count <= 16 {
                self.head::<16>(head, &mut room, rows);
            } else {
                self.head::<LANES>(head, &mut room, rows);
            }
        }
        ROOM.set(room);
    }

    fn head<const L: usize>(&self, head: usize, room: &mut Room, rows: &mut [f32]) {
        let All { spec, plan, kept, newest, precision, .. } = *self.all;
        let ((d, wide), width) = (plan.head, spec.heads * spec.head_dim);
        let kv_head = head / (spec.heads / spec.kv_heads);
        let Room { q, scores, other, out } = room;
        let q = q.at_least(d * L);
        pack(self.q.chunks_exact(width).map(|row| &row[head * d..][..d]), L, q);
        let out = out.at_least(self.count * wide);
        out.fill(0.);
        let (mut top, mut sum) = ([f32::NEG_INFINITY; L], [0f32; L]);
        let position = plan.spans[self.span].past() + self.first;
        let last = position + self.count - 1;
        let (first_tile, tiles) = &plan.of_span[self.span];
        for (i, &tile) in tiles.iter().enumerate() {
            let start = (first_tile + i) * if plan.size == usize::MAX { 0 } else { plan.size };
            if start > last {
                break;
            }
            let keys = kept.at[tile].count.min(last + 1 - start);
            if start + keys <= first_key(spec.window, position) {
                continue;
            }
            let (k, v) = kept.tile(tile, kv_head);
            let span = start..start + keys;
            let at = (position, last);
            let (exact, ages) = match newest {
                Some((exact, ages)) => (exact.tile(tile, kv_head), *ages),
                None => ((k, v), [Age::Newest(0); 2]),
            };
            let [old_keys, old_values] = match newest {
                Some(_) => ages.map(|age| Old::of(&span, at, age)),
                None => [Old::All; 2],
            };
            let is_old = |age: Age, j: usize, i: usize| start + j < age.mapped(position + i);
            self.scores::<L>(if old_keys == Old::All { k } else { exact.0 }, keys, q, scores);
            let mine = &mut scores.get_mut()[..keys * L];
            if old_keys == Old::Some {
                self.scores::<L>(k, keys, q, other);
                let old = &other.get_mut()[..keys * L];
                for (j, (new, old)) in mine.chunks_exact_mut(L).zip(old.chunks_exact(L)).enumerate() {
                    for i in 0..L {
                        new[i] = if is_old(ages[0], j, i) { old[i] } else { new[i] };
                    }
                }
            }
            let corrections = self.probabilities::<L>(head, &span, mine, &mut top, &mut sum);
            rescale(out, wide, &corrections);
            if old_values == Old::Some {
                let old = &mut other.at_least(keys * L)[..keys * L];
                for (j, (new, old)) in mine.chunks_exact_mut(L).zip(old.chunks_exact_mut(L)).enumerate() {
                    for i in 0..L {
                        let p = new[i];
                        (old[i], new[i]) = if is_old(ages[1], j, i) { (p, 0.) } else { (0., p) };
                    }
                }
                self.mix::<L>(old, v, wide, out);
            }
            self.mix::<L>(mine, if old_values == Old::All { v } else { exact.1 }, wide, out);
        }
        for (i, (to, from)) in rows.chunks_exact_mut(width).zip(out.chunks_exact(wide)).enumerate() {
            let to = &mut to[head * d..][..d];
            match precision {
                // Divided before.
                Precision::F32 if self.all.probabilities.is_some() => to.copy_from_slice(&from[..d]),
                Precision::F32 => {
                    let inverse = 1. / sum[i];
                    to.iter_mut().zip(from).for_each(|(to, x)| *to = x * inverse);
                }
                p => to.iter_mut().zip(from).for_each(|(to, &x)| *to = p.one(x)),
            }
        }
    }

    /// `k` in strips times `q [head_dim][L]`: `[keys][L]`.
    fn scores<const L: usize>(&self, k: &[f32], keys: usize, q: &[f32], to: &mut Aligned) {
        let (tall, d) = (self.all.plan.tall, self.all.plan.head.0);
        let to = to.at_least(keys.next_multiple_of(tall) * L);
        for (a, rows) in k.chunks_exact(tall * d).zip(to.chunks_exact_mut(tall * L)) {
            let out = Flat { rows, width: L };
            let (across, from, height, stride, column) = (tall, 0, tall, L, 0);
            let into = Into::Set;
            self.all.arch.dispatch(Product { a, across, from, height, b: q, stride, out, column, into });
        }
    }

    /// Adds `p [keys][L]` transposed times `v [keys][wide]` to `out [queries][wide]`.
    fn mix<const L: usize>(&self, p: &[f32], v: &[f32], wide: usize, out: &mut [f32]) {
        // Half a strip's height and two vectors each.
        let tall = if self.all.plan.tall == 14 { 9 } else { 5 };
        let mut from = 0;
        while from < self.count {
            let left = (self.count - from).min(tall - 1);
            let height = fitting(left, tall);
            let rows = &mut out[from * wide..(from + left) * wide];
            let out = Flat { rows, width: wide };
            let (across, stride, column, into) = (L, wide, 0, Into::Add);
            self.all.arch.dispatch(Product { a: p, across, from, height, b: v, stride, out, column, into });
            from += left;
        }
    }

    /// From products to probabilities, before they are divided by their sum; gives what earlier tiles' must be multiplied by.
    fn probabilities<const L: usize>(
        &self,
        head: usize,
        keys: &Range<usize>,
        scores: &mut [f32],
        top: &mut [f32; L],
        sum: &mut [f32; L],
    ) -> [f32; L] {
        self.all.arch.dispatch(Softmax { block: self, head, keys, scores, top, sum })
    }

    #[inline(always)]
    fn softmax<const L: usize>(
        &self,
        head: usize,
        keys: &Range<usize>,
        scores: &mut [f32],
        top: &mut [f32; L],
        sum: &mut [f32; L],
    ) -> [f32; L] {
        let All { spec, plan, precision: p, .. } = *self.all;
        let (scores, _) = scores.as_chunks_mut::<L>();
        let position = plan.spans[self.span].past() + self.first;
        let scale = spec.scale as f32;
        match spec.scaled {
            Scaled::Scores if p != Precision::F32 => {
                scores.as_flattened_mut().iter_mut().for_each(|x| *x = p.one(p.one(*x) * scale));
            }
            Scaled::Scores | Scaled::WithAlibi | Scaled::Wide => {
                scores.iter_mut().for_each(|row| row.iter_mut().for_each(|x| *x *= scale));
            }
            Scaled::Queries | Scaled::Sum if p != Precision::F32 => {
                scores.as_flattened_mut().iter_mut().for_each(|x| *x = p.one(*x));
            }
            Scaled::Queries | Scaled::Sum => {}
        }
        if let Position::Alibi { term, .. } = spec.position {
            let scale = if spec.scaled == Scaled::Sum { scale } else { 1. };
            for (key, row) in keys.clone().zip(scores.iter_mut()) {
                let bias = alibi_term(self.slopes[head], key, term, p);
                for x in row {
                    let sum = (*x + bias) * scale;
                    *x = if term == AlibiTerm::Wide { sum } else { p.one(sum) };
                }
            }
        }
        if let Some(cap) = spec.softcap {
            let all = scores.as_flattened_mut();
            ops::rounded!(p, r => all.iter_mut().for_each(|x| *x = ops::capped(*x, cap as f32, r)));
        }
        // Lanes without a query see what the last one sees, and nobody reads them.
        let last = position + self.count - 1;
        let bounds: [(u32, u32); L] = std::array::from_fn(|i| {
            let at = (position + i).min(last);
            (first_key(spec.window, at) as u32, at as u32)
        });
        let (low, high) = (bounds.map(|b| b.0), bounds.map(|b| b.1));
        for (key, row) in keys.clone().zip(scores.iter_mut()) {
            if key > position || key < first_key(spec.window, last) {
                let key = key as u32;
                for i in 0..L {
                    row[i] = if low[i] <= key && key <= high[i] { row[i] } else { f32::NEG_INFINITY };
                }
            }
        }
        let mut new = *top;
        for row in scores.iter() {
            for i in 0..L {
                new[i] = if row[i] > new[i] { row[i] } else { new[i] };
            }
        }
        // A query that has seen no key yet subtracts nothing, so that minus infinity stays what it is.
        let base: [f32; L] = std::array::from_fn(|i| if new[i] == f32::NEG_INFINITY { 0. } else { new[i] });
        let corrections: [f32; L] = std::array::from_fn(|i| exp(top[i] - base[i]));
        let mut sums = [0f32; L];
        for row in scores.iter_mut() {
            for i in 0..L {
                row[i] = exp(row[i] - base[i]);
                sums[i] += row[i];
            }
        }
        for i in 0..L {
            sum[i] = sum[i] * corrections[i] + sums[i];
        }
        *top = new;
        if p != Precision::F32 || self.all.probabilities.is_some() {
            let inverse = sum.map(|s| 1. / s);
            for row in scores.iter_mut() {
                for i in 0..L {
                    row[i] = p.one(row[i] * inverse[i]);
                }
            }
        }
        if let Some(map) = self.all.probabilities {
            let mut row = Vec::new();
            for i in 0..self.count {
                let seen = low[i] as usize..high[i] as usize + 1;
                row.clear();
                row.extend(scores[seen.clone()].iter().map(|all| all[i]));
                map.map(&mut row);
                scores[seen].iter_mut().zip(&row).for_each(|(all, x)| all[i] = *x);
            }
        }
        corrections
    }
}

/// A struct, because a closure's body is not sure to be compiled for the instruction set that runs it.
struct Softmax<'a, 'b, const L: usize> {
    block: &'a Block<'b>,
    head: usize,
    keys: &'a Range<usize>,
    scores: &'a mut [f32],
    top: &'a mut [f32; L],
    sum: &'a mut [f32; L],
}

impl<const L: usize> WithSimd for Softmax<'_, '_, L> {
    type Output = [f32; L];
    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f32; L] {
        self.block.softmax(self.head, self.keys, self.scores, self.top, self.sum)
    }
}

#[inline(always)]
fn rescale(out: &mut [f32], wide: usize, by: &[f32]) {
    for (row, &by) in out.chunks_exact_mut(wide).zip(by) {
        if by != 1. {
            row.iter_mut().for_each(|x| *x *= by);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::Device;

    /// Many endings behind one header do not fit a group: what they see is the same in whatever group they are.
    #[test]
    fn groups_of_spans_cannot_be_seen() {
        let spec = AttentionSpec {
            heads: 16,
            kv_heads: 16,
            head_dim: 256,
            position: Position::None,
            scale: 0.0625,
            scaled: Scaled::Scores,
            softcap: None,
            window: None,
            clip: None,
            qk_norm: None,
            bias: crate::model::spec::AttentionBias { qkv: false, out: false },
        };
        let (header, own, count) = (300, 3, 20);
        let mut spans = vec![Span { query: 0, queries: header, keys: vec![0..header] }];
        for i in 0..count {
            let at = header + i * own;
            spans.push(Span { query: at, queries: own, keys: vec![0..header, at..at + own] });
        }
        let rows = header + count * own;
        let numbers = |seed: usize| -> Tensor {
            let all = (0..rows * 4096).map(|i| ((i * 31 + seed * 7 + i / 97) % 101) as f32 / 50. - 1.);
            Tensor::from_vec(all.collect::<Vec<f32>>(), (rows, 4096), &Device::Cpu).unwrap()
        };
        let (q, k, v) = (numbers(1), numbers(2), numbers(3));
        for precision in [Precision::F32, Precision::BF16] {
            let first = Plan::new(&spec, &spans, precision != Precision::F32, Arch::new()).spans.len();
            assert!(first > 1 && first < spans.len(), "{first} of {} in a group", spans.len());
            let bound = 4 * (GROUP + 2 * (header + own).next_multiple_of(14) * 2 * 4096);
            assert!(bytes(&spec, &spans, precision != Precision::F32) <= bound);
            let all = attend(&spec, &q, (&k, &v), None, None, &spans, precision).unwrap();
            let all = all.to_vec2::<f32>().unwrap();
            // Alone, a span's rows of queries are the first; so its queries are brought there.
            for span in &spans {
                let alone = Span { query: 0, ..span.clone() };
                let rows = q.narrow(0, span.query, span.queries).unwrap();
                let alone = attend(&spec, &rows, (&k, &v), None, None, &[alone], precision).unwrap();
                assert!(alone.to_vec2::<f32>().unwrap() == all[span.query..][..span.queries], "{span:?}");
            }
        }
    }
}
