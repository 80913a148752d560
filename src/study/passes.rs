//! From sequences to passes: no padding, and what a sequence has in common with the one before it is computed once.
//!
//! ```text
//! header question-1 A        rows 0 ..                   keys: header, question-1
//! header question-1 B        nothing new but B           keys: header, question-1, B
//! header question-2 A        question-2 A                keys: header, question-2, A        (a trie, walked depth first)
//! ```
//! Rows are numbered through all passes. A pass takes about a pack of new rows; keys and values of those that the next pass
//! reads too are carried over to it.
use crate::{
    eval::Sequence,
    model::{
        attention::Span,
        decoder::Batch,
        spec::{DecoderSpec, Mixer, Position, RopeScaling},
    },
};
use std::ops::Range;

/// A prefix of fewer tokens is not worth its bookkeeping.
pub const LEAST: usize = 8;

/// Why a model's sequences cannot share prefixes, where they cannot.
pub fn apart(spec: &DecoderSpec) -> Option<&'static str> {
    for block in &spec.blocks {
        match &block.mixer {
            Mixer::Ssm(_) => {
                return Some("prefixes are not shared: a state-space mixer keeps no keys to go back to");
            }
            Mixer::Attention(a) => {
                if let Position::Rope(rope) = &a.position
                    && matches!(rope.scaling, RopeScaling::Long { .. })
                {
                    return Some("prefixes are not shared: rotary frequencies depend on a sequence's length");
                }
            }
        }
    }
    None
}

/// Tokens that both begin with.
pub fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// See the module.
pub struct Passes {
    /// In order.
    pub passes: Vec<Pass>,
    /// A sequence's rows, in pieces, from its first token on.
    pub rows: Vec<Vec<Range<usize>>>,
    /// Tokens that are computed.
    pub computed: usize,
    /// Tokens of all sequences.
    pub asked: usize,
}

/// One pass through the blocks.
pub struct Pass {
    /// What it computes.
    pub batch: Batch,
    /// Its rows among all.
    pub rows: Range<usize>,
    /// Rows of earlier passes that it reads, before its own.
    pub carried: Vec<Range<usize>>,
    /// Rows that the next pass reads, counted as this one's keys are.
    pub keep: Vec<Range<usize>>,
    /// Sequences that are whole after it.
    pub sequences: Range<usize>,
}

impl Pass {
    /// Where rows are among those carried over and this pass's own.
    pub fn place(&self, rows: &[Range<usize>]) -> Vec<Range<usize>> {
        place(rows, &self.carried, self.rows.start)
    }
}

fn place(rows: &[Range<usize>], carried: &[Range<usize>], start: usize) -> Vec<Range<usize>> {
    let mut here: Vec<Range<usize>> = Vec::new();
    let mut add = |r: Range<usize>| match here.last_mut() {
        Some(last) if last.end == r.start => last.end = r.end,
        _ => here.push(r),
    };
    let all: usize = carried.iter().map(ExactSizeIterator::len).sum();
    for r in rows {
        let mut before = 0;
        for c in carried {
            let (from, to) = (r.start.max(c.start), r.end.min(c.end));
            if from < to {
                add(before + from - c.start..before + to - c.start);
            }
            before += c.len();
        }
        let from = r.start.max(start);
        if from < r.end {
            add(all + from - start..all + r.end - start);
        }
    }
    here
}

/// The first `count` rows of some pieces.
fn first(pieces: &[Range<usize>], count: usize) -> Vec<Range<usize>> {
    let mut left = count;
    let mut all = Vec::new();
    for piece in pieces {
        let take = left.min(piece.len());
        if take > 0 {
            all.push(piece.start..piece.start + take);
        }
        left -= take;
    }
    all
}

/// Packs sequences, `pack` tokens a pass or one sequence's; `share`: see the module.
pub fn plan(sequences: &[Sequence], pack: usize, share: bool) -> Passes {
    let mut all =
        Passes { passes: Vec::new(), rows: Vec::with_capacity(sequences.len()), computed: 0, asked: 0 };
    let mut open = Open::default();
    let mut before: &[u32] = &[];
    for (i, sequence) in sequences.iter().enumerate() {
        let input = sequence.input();
        let mut same = if share { common(before, input) } else { 0 };
        if same < LEAST {
            same = 0;
        }
        let mut pieces = all.rows.last().map_or_else(Vec::new, |last| first(last, same));
        let new = &input[same..];
        if !open.tokens.is_empty() && open.tokens.len() + new.len() > pack {
            let carried = pieces.clone();
            let next = Open { start: all.computed, carried, from: i, ..Open::default() };
            let keep = place(&pieces, &open.carried, open.start);
            all.passes.push(std::mem::replace(&mut open, next).close(i, keep));
        }
        if !new.is_empty() {
            let own = all.computed..all.computed + new.len();
            match pieces.last_mut() {
                Some(last) if last.end == own.start => last.end = own.end,
                _ => pieces.push(own),
            }
            let keys = place(&pieces, &open.carried, open.start);
            open.spans.push(Span { query: open.tokens.len(), queries: new.len(), keys });
            open.tokens.extend_from_slice(new);
            all.computed += new.len();
        }
        all.asked += input.len();
        all.rows.push(pieces);
        before = input;
    }
    if !sequences.is_empty() {
        all.passes.push(open.close(sequences.len(), Vec::new()));
    }
    all
}

#[derive(Default)]
struct Open {
    tokens: Vec<u32>,
    spans: Vec<Span>,
    start: usize,
    carried: Vec<Range<usize>>,
    from: usize,
}

impl Open {
    fn close(self, to: usize, keep: Vec<Range<usize>>) -> Pass {
        let rows = self.start..self.start + self.tokens.len();
        let batch = Batch::sharing(self.tokens, self.spans, keep.clone());
        Pass { batch, rows, carried: self.carried, keep, sequences: self.from..to }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sequence(tokens: impl IntoIterator<Item = u32>) -> Sequence {
        let mut tokens: Vec<u32> = tokens.into_iter().collect();
        tokens.push(0);
        let predict = tokens.len() - 1..tokens.len();
        Sequence { tokens, predict }
    }

    /// Questions behind one header, each with endings.
    fn few_shot() -> Vec<Sequence> {
        let mut all = Vec::new();
        for question in 0..6u32 {
            for ending in 0..3u32 {
                let text = (0..20).chain((0..9 + question).map(|t| 100 * (question + 1) + t));
                all.push(sequence(text.chain((0..ending).map(|t| 5000 + 10 * ending + t))));
            }
        }
        all
    }

    #[test]
    fn every_row_holds_the_token_it_should() {
        let sequences = few_shot();
        for (pack, share) in [(1, true), (30, true), (64, true), (10_000, true), (64, false)] {
            let all = plan(&sequences, pack, share);
            let tokens: Vec<u32> = all.passes.iter().flat_map(|p| p.batch.tokens().to_vec()).collect();
            assert_eq!(tokens.len(), all.computed);
            for (s, rows) in sequences.iter().zip(&all.rows) {
                let own: Vec<u32> = rows.iter().cloned().flatten().map(|r| tokens[r]).collect();
                assert_eq!(own, s.input());
            }
            // Each pass's keys, through what is carried, are its sequence's rows too.
            let mut held: Vec<u32> = Vec::new();
            for p in &all.passes {
                let carried: Vec<u32> = p.carried.iter().cloned().flatten().map(|r| tokens[r]).collect();
                assert_eq!(carried, held);
                let keys = [carried, p.batch.tokens().to_vec()].concat();
                for s in p.sequences.clone() {
                    let own: Vec<u32> =
                        p.place(&all.rows[s]).into_iter().flatten().map(|r| keys[r]).collect();
                    assert_eq!(own, sequences[s].input());
                }
                held = p.keep.iter().cloned().flatten().map(|r| keys[r]).collect();
            }
            assert_eq!(all.passes.iter().map(|p| p.sequences.len()).sum::<usize>(), sequences.len());
        }
    }

    #[test]
    fn a_header_is_computed_once_whatever_the_passes() {
        let once = 20 + (9..15).sum::<usize>() + 6 * (1 + 2);
        for pack in [1, 30, 64, 10_000] {
            assert_eq!(plan(&few_shot(), pack, true).computed, once);
        }
        let apart = plan(&few_shot(), 64, false);
        assert_eq!(apart.computed, apart.asked);
    }
}
