//! QuaRot (Ashkboos et al., 2024): the residual stream is turned by a random Hadamard matrix, so that no channel stands out;
//! the same function, exactly.
//!
//! ```text
//! x' = x R, R = diag(signs) H          readers of the stream W R, writers R^T W, embeddings E R        (section 4, stage 1)
//! online: what enters down is turned as it comes, x H, and W H undoes it; values and the output projection head by head
//! ```
//! Norms must commute with `R`: their scales and shifts go into the linears that they feed; and where a norm takes the mean
//! away, writers stop writing one (SliceGPT, Ashkboos et al., 2024, section 3.1), so that it is an RMS norm. Keys are turned
//! after their positions, where they are rounded ([`Turned`]).
use super::{Transform, fold::times};
use crate::{
    model::{
        block::Block,
        decoder::{Decoder, Linear},
        ops::{Kernels, Mode, Norm, Precision},
        seam::{Age, InputMap, KvMap, RowMap},
        site::{Role, Site},
        spec::{DecoderSpec, Feeder, Gain, Mixer, NormKind, NormSpec, Residual},
    },
    quant::{Described, Entry, apply::At},
    random::Random,
    tensor::{hadamard::Hadamard, matmul::Weight, rows},
};
use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "rotate",
    about: "prepare: the stream turned by a random Hadamard matrix (QuaRot, Ashkboos et al., 2024); online, seed",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    /// Turn what enters the feed-forward's and attention's last linears too, as it comes; and keys, where they are rounded.
    #[serde(default = "yes")]
    pub online: bool,
    /// Of the signs.
    #[serde(default)]
    pub seed: u64,
    /// Signs that are known, in place of drawn ones: how another program's rotation is held to ours.
    #[serde(skip)]
    pub signs: Option<Vec<f32>>,
}

fn yes() -> bool {
    true
}

impl Default for Rotate {
    fn default() -> Self {
        Self { online: true, seed: 0, signs: None }
    }
}

/// The stream's rotation.
struct Stream {
    signs: Vec<f32>,
    hadamard: Hadamard,
    /// Norms take the mean away: writers must not write one.
    mean: bool,
}

impl Rotate {
    fn stream(&self, spec: &DecoderSpec) -> Stream {
        let mut random = Random::new(self.seed);
        let drawn = (0..spec.hidden).map(|_| if random.bits(1) == 0 { 1. } else { -1. });
        let signs = self.signs.clone().unwrap_or_else(|| drawn.collect());
        let mean = spec.blocks.iter().map(|b| b.norm).chain(spec.norm).any(|n| n.kind == NormKind::Layer);
        Stream { signs, hadamard: Hadamard::new(spec.hidden), mean }
    }
}

impl Stream {
    fn row(&self, x: &mut [f32]) {
        x.iter_mut().zip(&self.signs).for_each(|(x, s)| *x *= s);
        self.hadamard.apply(x);
    }

    /// What is written to the stream, one row.
    fn written(&self, x: &mut [f32]) {
        if self.mean {
            let mean = (x.iter().map(|&x| f64::from(x)).sum::<f64>() / x.len().max(1) as f64) as f32;
            x.iter_mut().for_each(|x| *x -= mean);
        }
        self.row(x);
    }

    /// A reader's weight, with what its norm was in it: `W diag(g) R`, and the bias `b + W s`.
    fn read(&self, linear: &mut Linear, [scale, shift]: &[Vec<f32>; 2]) -> Result<()> {
        absorb(linear, scale, shift)?;
        linear.weight = times(&linear.weight, |row, _| self.row(row))?;
        Ok(())
    }

    /// A writer's weight and bias.
    fn write(&self, linear: &mut Linear) -> Result<()> {
        linear.weight = turned(&linear.weight, |column| self.written(column))?;
        linear.bias = linear.bias.as_ref().map(|b| self.table(b)).transpose()?;
        Ok(())
    }

    /// Rows that enter the stream.
    fn table(&self, rows: &Tensor) -> Result<Tensor> {
        let flat = if rows.rank() == 1 { rows.unsqueeze(0)? } else { rows.clone() };
        let new = times(&Weight::from(flat), |row, _| self.written(row))?.rows()?;
        Ok(new.reshape(rows.shape())?)
    }
}

/// A norm's scale and shift into a linear that it feeds.
fn absorb(linear: &mut Linear, scale: &[f32], shift: &[f32]) -> Result<()> {
    if !shift.is_empty() {
        let weight = linear.weight.rows()?;
        let shift = Tensor::new(shift, weight.device())?.unsqueeze(1)?;
        let add = weight.matmul(&shift)?.squeeze(1)?;
        linear.bias = Some(match &linear.bias {
            Some(bias) => (bias + add)?,
            None => add,
        });
    }
    if !scale.is_empty() {
        linear.weight = times(&linear.weight, |row, _| row.iter_mut().zip(scale).for_each(|(w, s)| *w *= s))?;
    }
    Ok(())
}

/// Every column of a matrix rewritten.
fn turned(weight: &Weight, f: impl Fn(&mut [f32]) + Sync + Send) -> Result<Weight> {
    let columns = weight.rows()?.t()?.contiguous()?;
    let new = times(&Weight::from(columns), |column, _| f(column))?.rows()?;
    Ok(Weight::from(new.t()?.contiguous()?).laid()?)
}

/// A norm without learned rows that takes no mean away.
fn plain(norm: &Norm) -> Result<Norm> {
    let spec = NormSpec { kind: NormKind::Rms, gain: Gain::None, shift: false, ..norm.spec() };
    Ok(Norm::new(spec, None, None)?)
}

impl Transform for Rotate {
    fn unfit(&self, spec: &DecoderSpec) -> Option<String> {
        let fits = |r: Residual| matches!(r, Residual::Pre | Residual::PreWide | Residual::Parallel { .. });
        if spec.embed.norm.is_some() && (spec.embed.positions.is_some() || spec.embed.scale.is_some()) {
            return Some(
                "rotate: a norm stands behind the embedding and its positions, so no table can be turned"
                    .into(),
            );
        }
        if spec.blocks.iter().any(|b| !fits(b.residual))
            || spec.norm.is_none()
            || spec.embed.project.is_some()
        {
            return Some("rotate: norms of this model stand on the stream or behind a branch, where they do not commute with a \
                         rotation".into());
        }
        None
    }

    fn calibrated(&self) -> bool {
        false
    }

    fn turns(&self) -> bool {
        true
    }

    fn kv(&self, block: &Block, map: Arc<dyn KvMap>) -> Arc<dyn KvMap> {
        match block.spec.mixer.attention() {
            Some(attention) if self.online => {
                Arc::new(Turned { inner: map, hadamard: Hadamard::new(attention.head_dim) })
            }
            _ => map,
        }
    }

    fn ends(&self, ends: &mut Decoder) -> Result<()> {
        let stream = self.stream(&ends.spec);
        let vocab = ends.embed.dims()?.0;
        let tied = !ends.ends.contains_key(&Role::Head);
        // What comes one at a time is not all there.
        if vocab > 0 {
            let mut table = ends.embed.rows()?;
            let head = ends.norm.is_some() && tied;
            if head {
                let weight = Weight::from(table.clone());
                let site = Site::end(Role::Head);
                ends.ends.insert(Role::Head, Linear { site, weight, bias: None, turn: None, input: None });
            }
            if let Some(norm) = ends.embed_norm.take() {
                let mode = Mode { kernels: Kernels::Fused, precision: Precision::F32 };
                table = norm.forward(&table.to_device(&Device::Cpu)?, mode)?.to_device(table.device())?;
            }
            ends.embed = Weight::from(stream.table(&table)?);
        }
        if let Some(positions) = &ends.positions {
            ends.positions = Some(stream.table(positions)?);
        }
        if let Some(norm) = ends.norm.take() {
            let head = ends.ends.get_mut(&Role::Head).context("a head behind the last norm")?;
            stream.read(head, norm.rows())?;
            ends.norm = Some(plain(&norm)?);
        }
        Ok(())
    }

    fn block(&self, block: &mut Block, at: &At) -> Result<()> {
        let stream = self.stream(at.spec);
        for group in block.spec.scale_groups() {
            let Feeder::Norm(slot) = group.feeder else { continue };
            let norm = block.norms.get(&slot).context("a group's norm")?;
            let (rows, plain) = (norm.rows().clone(), plain(norm)?);
            block.norms.insert(slot, plain);
            for key in &group.linears {
                stream.read(block.linears.get_mut(key).context("a group's linear")?, &rows)?;
            }
        }
        for (_, linear) in block.linears.iter_mut().filter(|((_, role), _)| writes(*role)) {
            stream.write(linear)?;
        }
        if self.online { online(block) } else { Ok(()) }
    }
}

fn writes(role: Role) -> bool {
    matches!(role, Role::O | Role::Down | Role::SsmOut)
}

/// Turns what enters a block's last linears.
fn online(block: &mut Block) -> Result<()> {
    for ((_, role), linear) in &mut block.linears {
        if *role == Role::Down && linear.turn.is_none() {
            let hadamard = Hadamard::new(linear.weight.dims()?.1);
            linear.weight = times(&linear.weight, |row, _| hadamard.apply(row))?;
            linear.turn = Some(Arc::new(Turn { heads: 1, hadamard }));
        }
    }
    let Mixer::Attention(attention) = &block.spec.mixer else { return Ok(()) };
    if attention.clip.is_some() {
        // Values are held to a range before they are read: turned ones would be cut elsewhere.
        return Ok(());
    }
    let (heads, width) = (attention.heads, attention.head_dim);
    let each = Hadamard::new(width);
    let by_head = |x: &mut [f32]| x.chunks_exact_mut(width).for_each(|head| each.apply(head));
    let values = block.linears.get_mut(&(None, Role::V)).context("values")?;
    values.weight = turned(&values.weight, by_head)?;
    values.bias = match &values.bias {
        Some(bias) => {
            let new = times(&Weight::from(bias.unsqueeze(0)?), |row, _| by_head(row))?.rows()?;
            Some(new.reshape(bias.shape())?)
        }
        None => None,
    };
    let out = block.linears.get_mut(&(None, Role::O)).context("the output projection")?;
    out.weight = times(&out.weight, |row, _| by_head(row))?;
    if out.turn.is_none() {
        let turn = Turn { heads, hadamard: Hadamard::new(heads) };
        out.weight = times(&out.weight, |row, _| turn.apply(row))?;
        out.turn = Some(Arc::new(turn));
    }
    Ok(())
}

/// Turns a row as it comes: all of it, or its heads among each other.
struct Turn {
    /// 1 for all of it.
    heads: usize,
    hadamard: Hadamard,
}

impl Turn {
    fn apply(&self, x: &mut [f32]) {
        if self.heads == 1 {
            self.hadamard.apply(x);
            return;
        }
        let width = x.len() / self.heads;
        let mut column = vec![0f32; self.heads];
        for i in 0..width {
            (0..self.heads).for_each(|h| column[h] = x[h * width + i]);
            self.hadamard.apply(&mut column);
            (0..self.heads).for_each(|h| x[h * width + i] = column[h]);
        }
    }
}

impl InputMap for Turn {
    fn map(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let cpu = x.to_device(&Device::Cpu)?;
        let y = rows::map(&cpu, "turn", |_, x, out| {
            out.copy_from_slice(x);
            self.apply(out);
        })?;
        y.to_device(x.device())
    }
}

/// Keys in the basis that a rotation gives them, where they are rounded: queries would be turned the same way, and their
/// product is what it was.
pub struct Turned {
    /// What rounds.
    pub inner: Arc<dyn KvMap>,
    /// Of one head.
    pub hadamard: Hadamard,
}

impl Turned {
    fn turn(&self, x: &Tensor, back: bool) -> candle_core::Result<Tensor> {
        let cpu = x.to_device(&Device::Cpu)?.contiguous()?;
        let y = rows::map(&cpu, "turn", |_, x, out| {
            out.copy_from_slice(x);
            if back { self.hadamard.undo(out) } else { self.hadamard.apply(out) }
        })?;
        y.to_device(x.device())
    }
}

impl KvMap for Turned {
    fn ages(&self) -> [Age; 2] {
        self.inner.ages()
    }
    fn sinks(&self) -> usize {
        self.inner.sinks()
    }
    fn before_positions(&self) -> bool {
        self.inner.before_positions()
    }
    fn tokens(&self) -> usize {
        self.inner.tokens()
    }
    fn keys(&self, k: &Tensor) -> candle_core::Result<Tensor> {
        self.turn(&self.inner.keys(&self.turn(k, false)?)?, true)
    }
    fn values(&self, v: &Tensor) -> candle_core::Result<Tensor> {
        self.inner.values(v)
    }
    fn queries(&self, q: &Tensor) -> Option<candle_core::Result<Tensor>> {
        let turned = match self.turn(q, false) {
            Ok(turned) => turned,
            Err(e) => return Some(Err(e)),
        };
        Some(self.inner.queries(&turned)?.and_then(|q| self.turn(&q, true)))
    }
    fn probabilities(&self) -> Option<&dyn RowMap> {
        self.inner.probabilities()
    }
}

impl Described for Rotate {
    fn describe(&self) -> Value {
        json!({ "method": "rotate", "online": self.online, "seed": self.seed })
    }
}
