//! What a model's linears see of a text: the inputs that methods fit themselves to.
//!
//! ```text
//! tokens -> embedding -> block 0 -> block 1 -> ...          one stream of hidden states, or two:
//!                          |  watch: Seen of every linear     full       through blocks as they were
//!                          v  round its weights               quantized  through blocks as they have become
//! ```
//! Blocks come in order, each once. Sums run over sequences in their order: neither threads nor packing move a bit.
use super::weight::Needs;
use crate::{
    mistake,
    model::{
        block::{Block, Carried},
        decoder::{Batch, Decoder},
        seam::Observer,
        site::Site,
    },
    tensor::{
        matmul::{Weight, linear},
        rows,
    },
};
use anyhow::Result;
use candle_core::{Tensor, TensorId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};

/// Tokens of one calibration pass at most; a sequence is never cut.
const PASS: usize = 2048;

/// `calibrate = { data = "calibration/wikitext2_train", samples = 128, length = 2048, seed = 0 }`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrate {
    /// A perplexity task whose text it is: a built-in one's name, or a file of one's own.
    pub data: Option<String>,
    /// How many sequences; 128 where it is not said.
    pub samples: Option<usize>,
    /// Tokens of each; 2048, or as many as the model reads, where it is not said.
    pub length: Option<usize>,
    /// Of CPython's `random`.
    pub seed: Option<u64>,
    /// How sequences are drawn; where it is not said, `documents` for a text whose protocol is `drawn`, else `joined`.
    pub draw: Option<Draw>,
    /// What a block is given; each method's own where it is not said.
    pub inputs: Option<Inputs>,
}

/// How sequences are drawn from a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// From the joined text, tokenized once, at `randint(0, tokens - length - 1)`: GPTQ's for WikiText-2 and PTB
    /// (`datautils.py`).
    Joined,
    /// A document by lot until one has more tokens than `length`, and a place in it: GPTQ's for C4.
    Documents,
    /// Documents shuffled, those longer than `length` tokens passed over, the others joined and cut: AWQ's
    /// (`utils/calib_data.py`), with CPython's shuffle.
    Blocks,
}

/// What a block is given while it is calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// What blocks before it, already quantized, make of the text.
    Quantized,
    /// What full precision makes of it.
    Full,
}

impl Calibrate {
    /// What is said here, and where nothing is, there.
    pub fn or(&self, other: &Self) -> Self {
        Self {
            data: self.data.clone().or_else(|| other.data.clone()),
            samples: self.samples.or(other.samples),
            length: self.length.or(other.length),
            seed: self.seed.or(other.seed),
            draw: self.draw.or(other.draw),
            inputs: self.inputs.or(other.inputs),
        }
    }

    /// Sequences.
    pub fn count(&self) -> usize {
        self.samples.unwrap_or(128)
    }

    /// Tokens of a sequence, for a model that reads so many.
    pub fn tokens(&self, context: usize) -> usize {
        self.length.unwrap_or(context.min(2048))
    }

    /// Refuses what cannot be.
    pub fn check(&self) -> Result<()> {
        if let Some(samples) = self.samples.filter(|n| !(1..=100_000).contains(n)) {
            mistake!("calibrate: `samples` is {samples}; it is 1 to 100000");
        }
        if let Some(length) = self.length.filter(|n| !(2..=1_000_000).contains(n)) {
            mistake!("calibrate: `length` is {length}; it is 2 to 1000000 tokens");
        }
        Ok(())
    }

    /// Settings as records keep them; `length` where it is said.
    pub fn describe(&self) -> Value {
        let mut all = json!({
            "data": self.data, "samples": self.count(), "seed": self.seed.unwrap_or(0),
        });
        if let Some(draw) = self.draw {
            all["draw"] = json!(draw);
        }
        match self.length {
            Some(length) => all["length"] = length.into(),
            None => all["length"] = "2048, or the model's context".into(),
        }
        if let Some(inputs) = self.inputs {
            all["inputs"] = json!(inputs);
        }
        all
    }
}

/// What calibration saw of a linear's input.
#[derive(Clone, Default)]
pub struct Seen {
    /// Tokens.
    pub tokens: usize,
    /// Of each input channel, over all tokens: the smallest value, the largest, and the sum of magnitudes.
    pub low: Vec<f32>,
    /// See `low`.
    pub high: Vec<f32>,
    /// See `low`.
    pub magnitude: Vec<f64>,
    /// And the sum of squares.
    pub square: Vec<f64>,
    /// `2/n sum x x^T` over `n` sequences, `[in, in]`, where it is asked for: as GPTQ's `add_batch` has it, because a channel that
    /// no input reaches counts as 1 there.
    pub hessian: Option<Tensor>,
    /// The inputs, `[tokens, in]` each, where they are asked for.
    pub inputs: Vec<Tensor>,
}

impl Seen {
    /// Largest magnitude of each channel.
    pub fn abs_max(&self) -> Vec<f32> {
        self.low.iter().zip(&self.high).map(|(l, h)| h.abs().max(l.abs())).collect()
    }

    /// Mean magnitude of each channel.
    pub fn abs_mean(&self) -> Vec<f32> {
        self.magnitude.iter().map(|m| (m / self.tokens.max(1) as f64) as f32).collect()
    }

    /// The root of each channel's mean square.
    pub fn root_mean_square(&self) -> Vec<f32> {
        self.square.iter().map(|s| (s / self.tokens.max(1) as f64).sqrt() as f32).collect()
    }

    /// Every `n`-th of the inputs, `[tokens, in]`; all of them for 0 or 1.
    pub fn every(&self, n: usize) -> Result<Tensor> {
        let all = Tensor::cat(&self.inputs, 0)?;
        if n < 2 {
            return Ok(all);
        }
        let rows: Vec<u32> = (0..all.dim(0)?).step_by(n).map(|i| i as u32).collect();
        Ok(all.index_select(&Tensor::new(rows, all.device())?, 0)?)
    }

    /// At most about so many of the inputs, spread evenly.
    pub fn some_inputs(&self, tokens: usize) -> Result<Tensor> {
        self.every(self.tokens.div_ceil(tokens.max(1)))
    }

    /// Adds what one pass showed, `[tokens, in]`.
    pub fn add(&mut self, x: &Tensor, needs: Needs) -> Result<()> {
        let (tokens, width) = x.dims2()?;
        if self.low.is_empty() {
            self.low = vec![f32::INFINITY; width];
            self.high = vec![f32::NEG_INFINITY; width];
            self.magnitude = vec![0.; width];
            self.square = vec![0.; width];
        }
        self.tokens += tokens;
        let x = x.to_device(&candle_core::Device::Cpu)?.contiguous()?;
        rows::with(&x, |all| {
            for row in all.chunks_exact(width.max(1)) {
                for (i, &v) in row.iter().enumerate() {
                    self.low[i] = self.low[i].min(v);
                    self.high[i] = self.high[i].max(v);
                    self.magnitude[i] += f64::from(v.abs());
                    self.square[i] += f64::from(v) * f64::from(v);
                }
            }
        })?;
        if needs.hessian {
            let turned = x.t()?.contiguous()?;
            let outer = linear(&turned, &Weight::from(turned.clone()).laid()?, None)?;
            self.hessian = Some(match &self.hessian {
                Some(sum) => (sum + outer)?,
                None => outer,
            });
        }
        if needs.inputs {
            self.inputs.push(x);
        }
        Ok(())
    }
}

/// Watches the linears of one block. Linears that are given the same tensor share what is seen of it.
struct Watch<'a> {
    needs: Needs,
    wanted: &'a dyn Fn(Site) -> bool,
    seen: Vec<Seen>,
    of: BTreeMap<Site, usize>,
    last: Option<(TensorId, usize)>,
}

impl Observer for Watch<'_> {
    fn see(&mut self, site: Site, input: &Tensor) -> candle_core::Result<()> {
        if !(self.wanted)(site) {
            return Ok(());
        }
        let shared = self.last.filter(|(id, _)| *id == input.id()).map(|(_, at)| at);
        let at = match (self.of.get(&site).copied(), shared) {
            // Its turn came with the first of those that share the input.
            (Some(at), Some(shared)) if at == shared => return Ok(()),
            (None, Some(shared)) => {
                self.of.insert(site, shared);
                return Ok(());
            }
            (Some(at), _) => at,
            (None, None) => {
                self.seen.push(Seen::default());
                self.of.insert(site, self.seen.len() - 1);
                self.seen.len() - 1
            }
        };
        self.last = Some((input.id(), at));
        self.seen[at].add(input, self.needs).map_err(|e| candle_core::Error::Msg(format!("{e:#}")))
    }
}

/// What a block's cache would hold of all texts, in their order.
#[derive(Default)]
pub struct Held {
    /// Keys without their positions, `[tokens, kv_heads * head_dim]` a pass.
    pub keys: Vec<Tensor>,
    /// The same of values.
    pub values: Vec<Tensor>,
    /// Rows with which texts begin.
    pub starts: Vec<usize>,
}

impl Observer for Held {
    fn see(&mut self, _: Site, _: &Tensor) -> candle_core::Result<()> {
        Ok(())
    }
    fn see_cached(&mut self, k: &Tensor, v: &Tensor) -> candle_core::Result<()> {
        self.keys.push(k.clone());
        self.values.push(v.clone());
        Ok(())
    }
}

/// What was seen, by linear.
pub type SeenBy = BTreeMap<Site, Arc<Seen>>;

/// Calibration texts on their way through a model.
pub struct Bench {
    batches: Vec<Batch>,
    /// Hidden states before the next block, a tensor a batch.
    full: Option<Vec<Tensor>>,
    quantized: Option<Vec<Tensor>>,
}

impl Bench {
    /// Packs sequences. `wants`: which streams are asked for.
    pub fn new(sequences: &[Vec<u32>], wants: &[Inputs]) -> Self {
        let mut batches = Vec::new();
        let mut start = 0;
        while start < sequences.len() {
            let mut end = start + 1;
            let mut tokens = sequences[start].len();
            while end < sequences.len() && tokens + sequences[end].len() <= PASS {
                tokens += sequences[end].len();
                end += 1;
            }
            batches.push(Batch::new(sequences[start..end].iter().map(Vec::as_slice)));
            start = end;
        }
        let stream = |which| wants.contains(&which).then(Vec::new);
        Self { batches, full: stream(Inputs::Full), quantized: stream(Inputs::Quantized) }
    }

    /// Before the first block: `full` and `quantized` have each stream's embedding.
    pub fn enter(&mut self, full: &Decoder, quantized: &Decoder) -> Result<()> {
        for (stream, ends) in [(&mut self.full, full), (&mut self.quantized, quantized)] {
            if let Some(stream) = stream {
                *stream = self.batches.iter().map(|b| ends.enter(b)).collect::<Result<_>>()?;
            }
        }
        Ok(())
    }

    /// The passes.
    pub fn batches(&self) -> &[Batch] {
        &self.batches
    }

    /// Hidden states before the next block, a tensor a batch.
    pub fn stream(&self, which: Inputs) -> &[Tensor] {
        let own = match which {
            Inputs::Full => &self.full,
            Inputs::Quantized => &self.quantized,
        };
        // Where one alone is kept, it was asked for in place of the other.
        own.as_ref().or(self.full.as_ref()).or(self.quantized.as_ref()).map_or(&[], Vec::as_slice)
    }

    /// What the linears of a block are given.
    pub fn watch(
        &self,
        runner: &Decoder,
        block: &Block,
        which: Inputs,
        needs: Needs,
        wanted: &dyn Fn(Site) -> bool,
    ) -> Result<SeenBy> {
        let mut watch = Watch { needs, wanted, seen: Vec::new(), of: BTreeMap::new(), last: None };
        for (batch, x) in self.batches.iter().zip(self.stream(which)) {
            watch.last = None;
            runner.watched(block, x, batch, &mut watch)?;
        }
        let sequences: usize = self.batches.iter().map(|b| b.spans().len()).sum();
        for seen in &mut watch.seen {
            seen.hessian = seen.hessian.take().map(|h| h * (2. / sequences.max(1) as f64)).transpose()?;
        }
        let seen: Vec<Arc<Seen>> = watch.seen.into_iter().map(Arc::new).collect();
        Ok(watch.of.into_iter().map(|(site, at)| (site, seen[at].clone())).collect())
    }

    /// What a block's cache would hold.
    pub fn held(&self, runner: &Decoder, block: &Block, which: Inputs) -> Result<Held> {
        let (mut held, mut rows) = (Held::default(), 0);
        for (batch, x) in self.batches.iter().zip(self.stream(which)) {
            runner.watched(block, x, batch, &mut held)?;
            for span in batch.spans() {
                held.starts.push(rows);
                rows += span.queries;
            }
        }
        Ok(held)
    }

    /// What a block makes of its inputs, a tensor a batch.
    pub fn outputs(&self, runner: &Decoder, block: &Block, which: Inputs) -> Result<Vec<Tensor>> {
        let each = self.batches.iter().zip(self.stream(which));
        each.map(|(batch, x)| runner.through(block, x, batch, &mut Carried::default())).collect()
    }

    /// How many sequences there are.
    pub fn sequences(&self) -> usize {
        self.batches.iter().map(|b| b.spans().len()).sum()
    }

    /// Some sequences as one pass: their tokens' places, inputs, and rows of `targets`, a tensor a batch.
    pub fn some(
        &self,
        which: Inputs,
        targets: &[Tensor],
        chosen: &[usize],
    ) -> Result<(Batch, Tensor, Tensor)> {
        let places: Vec<(usize, usize, usize)> = (self.batches.iter().enumerate())
            .flat_map(|(b, batch)| batch.spans().iter().map(move |s| (b, s.query, s.queries)))
            .collect();
        let chosen: Vec<_> = chosen.iter().filter_map(|&i| places.get(i).copied()).collect();
        let rows = |all: &[Tensor]| -> Result<Tensor> {
            let each = chosen.iter().map(|&(b, from, count)| all[b].narrow(0, from, count));
            Ok(Tensor::cat(&each.collect::<candle_core::Result<Vec<_>>>()?, 0)?)
        };
        // What tokens they are is in the rows.
        let tokens: Vec<Vec<u32>> = chosen.iter().map(|(.., count)| vec![0; *count]).collect();
        let batch = Batch::new(tokens.iter().map(Vec::as_slice));
        Ok((batch, rows(self.stream(which))?, rows(targets)?))
    }

    /// On to the next block.
    pub fn advance(&mut self, runner: &Decoder, prepared: &Block, rounded: &Block) -> Result<()> {
        let on = |stream: &Option<Vec<Tensor>>, block: &Block| -> Result<Option<Vec<Tensor>>> {
            let Some(stream) = stream else { return Ok(None) };
            let each = self.batches.iter().zip(stream);
            each.map(|(batch, x)| runner.through(block, x, batch, &mut Carried::default()))
                .collect::<Result<_>>()
                .map(Some)
        };
        (self.full, self.quantized) = (on(&self.full, prepared)?, on(&self.quantized, rounded)?);
        Ok(())
    }
}
