//! What stands in the full model: its weights, what enters each linear, keys and values, and what leaves each block.
use super::{
    moments::Spread,
    place,
    shape::{codebook_error, distinct, effective_rank},
};
use crate::{
    model::{
        block::Block,
        decoder::Decoder,
        seam::{Age, KvMap},
        site::{Role, Site},
    },
    quant::{
        calibrate::{Bench, Inputs, Seen},
        weight::Needs,
    },
    results::inspection::{Statistic, What},
};
use anyhow::Result;
use candle_core::Tensor;
use std::sync::{Arc, Mutex, PoisonError};

/// Keeps what passes between cache and attention, and changes nothing of it.
#[derive(Default)]
struct Spy {
    /// Keys, with their positions, and values: `[tokens, kv_heads * head_dim]` a pass.
    seen: Mutex<[Vec<Tensor>; 2]>,
}

impl Spy {
    fn keep(&self, which: usize, x: &Tensor) -> candle_core::Result<Tensor> {
        let (tokens, heads, width) = x.dims3()?;
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen[which].push(x.reshape((tokens, heads * width))?);
        Ok(x.clone())
    }
}

impl KvMap for Spy {
    fn ages(&self) -> [Age; 2] {
        [Age::Newest(0); 2]
    }
    fn keys(&self, k: &Tensor) -> candle_core::Result<Tensor> {
        self.keep(0, k)
    }
    fn values(&self, v: &Tensor) -> candle_core::Result<Tensor> {
        self.keep(1, v)
    }
}

/// Statistics by name.
type Named = Vec<(&'static str, Option<f64>)>;

/// Lines of `inspect.csv` on their way.
struct Lines<'a> {
    model: &'a str,
    all: Vec<Statistic>,
}

impl Lines<'_> {
    fn add(&mut self, what: What, (block, site): (Option<u16>, &str), named: &[(&str, Option<f64>)]) {
        for (statistic, value) in named {
            self.all.push(Statistic {
                model: self.model.into(),
                what,
                block,
                site: site.into(),
                statistic: (*statistic).into(),
                value: value.filter(|v| v.is_finite()),
            });
        }
    }

    /// A linear's matrix.
    fn weight(&mut self, (block, site): (Option<u16>, &str), rows: &Tensor) -> Result<()> {
        let mut named = Spread::of(std::slice::from_ref(rows))?.named();
        named.push(("effective_rank", effective_rank(rows)?));
        named.push(("distinct", Some(distinct(rows)? as f64)));
        named.push(("codebook_error", codebook_error(rows)?));
        self.add(What::Weight, (block, site), &named);
        Ok(())
    }
}

/// What is said of rows of tokens, in several pieces; nothing where there are none.
fn of_tokens(parts: &[Tensor]) -> Result<Named> {
    if parts.is_empty() {
        return Ok(Vec::new());
    }
    let mut named = Spread::of(parts)?.named();
    named.push(("effective_rank", effective_rank(&Tensor::cat(parts, 0)?)?));
    Ok(named)
}

/// Every statistic of a full model over some texts, block after block, then what is outside the blocks. `step` hears of each block.
///
/// # Errors
/// A text that the model cannot read.
pub fn statistics(
    model: &str,
    full: &Decoder,
    texts: &[Vec<u32>],
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Statistic>> {
    let mut lines = Lines { model, all: Vec::new() };
    let mut bench = Bench::new(texts, &[Inputs::Full]);
    bench.enter(full, full)?;
    for (b, block) in full.blocks.iter().enumerate() {
        step(b);
        let number = Some(b as u16);
        for linear in block.linears.values() {
            let (_, site) = place(linear.site);
            lines.weight((number, &site), &linear.weight.rows()?)?;
        }
        let spy = Arc::new(Spy::default());
        let spied = match block.spec.mixer.attention() {
            Some(_) => Block { kv: Some(spy.clone()), ..block.clone() },
            None => block.clone(),
        };
        let needs = Needs { inputs: true, ..Needs::NOTHING };
        let seen = bench.watch(full, &spied, Inputs::Full, needs, &|_| true)?;
        // What several linears are given is counted once.
        let mut known: Vec<(*const Seen, Named)> = Vec::new();
        for (site, seen) in &seen {
            let of = Arc::as_ptr(seen);
            let named = match known.iter().find(|(p, _)| *p == of) {
                Some((_, named)) => named.clone(),
                None => of_tokens(&seen.inputs)?,
            };
            lines.add(What::Input, (number, &place(*site).1), &named);
            known.push((of, named));
        }
        let cached = std::mem::take(&mut *spy.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for (what, role, parts) in [(What::Key, Role::K, &cached[0]), (What::Value, Role::V, &cached[1])] {
            lines.add(what, (number, role.name()), &of_tokens(parts)?);
        }
        bench.advance(full, block, block)?;
        lines.add(What::Hidden, (number, OUT), &of_tokens(bench.stream(Inputs::Full))?);
    }
    for linear in full.ends.values() {
        lines.weight((None, &place(linear.site).1), &linear.weight.rows()?)?;
    }
    lines.weight((None, crate::quant::recipe::EMBEDDING), &full.embed.rows()?)?;
    let read: Vec<Tensor> =
        bench.stream(Inputs::Full).iter().map(|x| full.leave(x.clone())).collect::<Result<_>>()?;
    lines.add(What::Input, place_of_head(), &of_tokens(&read)?);
    Ok(lines.all)
}

/// What leaves a block, as tables call it.
pub const OUT: &str = "out";

fn place_of_head() -> (Option<u16>, &'static str) {
    (Site::end(Role::Head).block, Role::Head.name())
}
