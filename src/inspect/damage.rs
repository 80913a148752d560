//! What a recipe changes, place by place: weights, what a linear makes of the input that full precision gives it, and what has added
//! up in the hidden states by then.
//!
//! ```text
//! weight_*       W against its rounded Q                                  sqnr, nmse, cosine
//! hessian*       the same, weighted by the inputs                          hessian, hessian_relative
//! output_*       f(x) against f'(x), x as full precision has it            of a linear, of keys and values (`attn.kv`: what attention
//!                                                                          makes of them), of a whole block (`out`), of the head
//! accumulated_*  a block's outputs in the one model and in the other       sqnr, nmse, cosine, and cka
//! ```
//! Full precision is the model as the recipe rewrites it before anything is rounded (`rotate`, `smoothquant`): the same function, whose
//! weights stand in the same basis. Where a method moves scales between norms and linears while it learns (OmniQuant), a block's linears
//! have no counterpart: only what the block as a whole does is compared there.
use super::{
    errors::{Gap, cka, hessian},
    place,
    within::OUT,
};
use crate::{
    model::{
        block::Block,
        decoder::{Decoder, Linear},
        ops::Norm,
        site::{Role, Site},
    },
    quant::{
        apply::{apply, rewritten},
        calibrate::{Bench, Inputs},
        recipe::{EMBEDDING, Recipe},
        weight::Needs,
    },
    results::inspection::Deviation,
    tensor::rows,
};
use anyhow::Result;
use candle_core::Tensor;

/// Tokens whose logits are in memory at a time.
const ROWS: usize = 256;
/// How far norms may be apart, relative, and be the same: more than half precision rounds, less than a method moves.
const SAME: f32 = 0.01;

/// A recipe applied, beside what it is compared with.
pub struct Made {
    /// The recipe's name.
    pub recipe: String,
    /// Before anything is rounded or cut off.
    pub full: Decoder,
    /// After.
    pub quantized: Decoder,
}

impl Made {
    /// Applies a recipe. `stored`: the checkpoint's bits a number; `texts`: what a calibrated recipe looks at.
    ///
    /// # Errors
    /// A recipe that looks at a text and has none, or whose `skip` matches nothing.
    pub fn new(recipe: &Recipe, full: &Decoder, stored: u8, texts: &[Vec<u32>]) -> Result<Self> {
        let quantized = apply(recipe, full, stored, texts)?.decoder;
        let full = if recipe.prepare.is_empty() { full.clone() } else { rewritten(recipe, full, texts)? };
        Ok(Self { recipe: recipe.name.clone(), full, quantized })
    }

    /// Whether a block's linears stand in the basis of full precision's.
    pub fn comparable(&self, block: usize) -> Result<bool> {
        let (a, b) = (&self.full.blocks[block], &self.quantized.blocks[block]);
        for (slot, norm) in &a.norms {
            if !b.norms.get(slot).map_or(Ok(false), |other| same(norm, other))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Whether two norms multiply and add the same, up to half precision.
fn same(a: &Norm, b: &Norm) -> Result<bool> {
    let ((scale, shift), (other_scale, other_shift)) = (a.params(), b.params());
    for pair in [(scale, other_scale), (shift, other_shift)] {
        let (x, y) = match pair {
            (Some(x), Some(y)) => (x, y),
            (None, None) => continue,
            _ => return Ok(false),
        };
        let far = (x - y)?.abs()?.max_all()?.to_scalar::<f32>()?;
        if far > SAME * x.abs()?.max_all()?.to_scalar::<f32>()? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether two weights are of the same inputs: an exact turn before both, or before neither.
pub(super) fn alike(a: &Linear, b: &Linear) -> Result<bool> {
    Ok(a.turn.is_some() == b.turn.is_some() && a.weight.dims()? == b.weight.dims()?)
}

/// Lines of `errors.csv` on their way.
struct Lines<'a> {
    model: &'a str,
    recipe: &'a str,
    all: Vec<Deviation>,
}

impl Lines<'_> {
    fn add(&mut self, (block, site): (Option<u16>, &str), measure: &str, value: Option<f64>) {
        let (model, recipe) = (self.model.into(), self.recipe.into());
        let value = value.filter(|v| v.is_finite());
        self.all.push(Deviation { model, recipe, block, site: site.into(), measure: measure.into(), value });
    }

    fn gap(&mut self, at: (Option<u16>, &str), what: &str, gap: &Gap) {
        self.add(at, &format!("{what}_sqnr"), gap.sqnr());
        self.add(at, &format!("{what}_nmse"), gap.nmse());
        self.add(at, &format!("{what}_cosine"), gap.cosine());
        if gap.not_finite > 0 {
            self.add(at, &format!("{what}_not_finite"), Some(gap.not_finite as f64));
        }
    }

    /// A linear's two matrices, where they mean the same.
    fn weight(&mut self, at: (Option<u16>, &str), full: &Tensor, other: &Tensor) -> Result<()> {
        if full.dims() == other.dims() {
            self.gap(at, "weight", &Gap::between(full, other)?);
        }
        Ok(())
    }
}

/// What one linear makes of inputs as another has them; none where it cannot be given them.
fn outputs(full: &Linear, other: &Linear, x: &[Tensor], models: [&Decoder; 2]) -> Result<Option<Gap>> {
    let mut gap = Gap::default();
    for x in x {
        let x = x.to_device(models[0].device())?;
        let given = match (&full.turn, &other.turn) {
            (None, Some(_)) => other.turned(&x)?,
            (Some(_), None) => return Ok(None),
            _ => x.clone(),
        };
        let (y, z) = (full.after_turn(&x, models[0].mode)?, other.after_turn(&given, models[1].mode)?);
        gap = gap.merge(Gap::between(&y, &z)?);
    }
    Ok((gap.count > 0).then_some(gap))
}

/// Every deviation of a recipe from full precision over some texts, block after block, then what is outside the blocks. `step` hears of
/// each block.
pub fn deviations(
    model: &str,
    made: &Made,
    texts: &[Vec<u32>],
    step: &mut dyn FnMut(usize),
) -> Result<Vec<Deviation>> {
    let (full, quantized) = (&made.full, &made.quantized);
    let mut lines = Lines { model, recipe: &made.recipe, all: Vec::new() };
    let (mut exact, mut rounded) = (Bench::new(texts, &[Inputs::Full]), Bench::new(texts, &[Inputs::Full]));
    exact.enter(full, full)?;
    rounded.enter(quantized, quantized)?;
    let needs = Needs { inputs: true, ..Needs::NOTHING };
    for (b, (block, other)) in full.blocks.iter().zip(&quantized.blocks).enumerate() {
        step(b);
        let number = Some(b as u16);
        if made.comparable(b)? {
            let seen = exact.watch(full, block, Inputs::Full, needs, &|_| true)?;
            for (key, linear) in &block.linears {
                let Some(rounded) = other.linears.get(key) else { continue };
                let (_, site) = place(linear.site);
                let at = (number, site.as_str());
                let inputs = seen.get(&linear.site).map_or(&[][..], |s| &s.inputs);
                if alike(linear, rounded)? {
                    let (w, q) = (linear.weight.rows()?, rounded.weight.rows()?);
                    lines.weight(at, &w, &q)?;
                    if !inputs.is_empty() {
                        let x = Tensor::cat(inputs, 0)?.to_device(full.device())?;
                        let (lost, whole) = hessian(&w, &q, &x)?;
                        lines.add(at, "hessian", Some(lost));
                        lines.add(at, "hessian_relative", (whole > 0.).then(|| lost / whole));
                    }
                }
                if let Some(gap) = outputs(linear, rounded, inputs, [full, quantized])? {
                    lines.gap(at, "output", &gap);
                }
            }
            if let Some(kv) = &other.kv {
                let site = Site::new(b as u16, Role::O);
                let mapped = Block { kv: Some(kv.clone()), ..block.clone() };
                let with = exact.watch(full, &mapped, Inputs::Full, needs, &|s| s == site)?;
                if let (Some(exact), Some(mapped)) = (seen.get(&site), with.get(&site)) {
                    let mut gap = Gap::default();
                    for (x, y) in exact.inputs.iter().zip(&mapped.inputs) {
                        gap = gap.merge(Gap::between(x, y)?);
                    }
                    lines.gap((number, KV), "output", &gap);
                }
            }
        }
        let here = exact.outputs(quantized, other, Inputs::Full)?;
        exact.advance(full, block, block)?;
        rounded.advance(quantized, other, other)?;
        let (exact, rounded) = (exact.stream(Inputs::Full), rounded.stream(Inputs::Full));
        let over = |others: &[Tensor]| -> Result<Gap> {
            let each = exact.iter().zip(others).map(|(x, y)| Gap::between(x, y));
            Ok(each.collect::<Result<Vec<_>>>()?.into_iter().fold(Gap::default(), Gap::merge))
        };
        lines.gap((number, OUT), "output", &over(&here)?);
        lines.gap((number, OUT), "accumulated", &over(rounded)?);
        lines.add((number, OUT), "cka", cka(&Tensor::cat(exact, 0)?, &Tensor::cat(rounded, 0)?)?);
    }
    for (role, linear) in &full.ends {
        if let Some(other) = quantized.ends.get(role).filter(|_| *role != Role::Head) {
            lines.weight((None, role.name()), &linear.weight.rows()?, &other.weight.rows()?)?;
        }
    }
    lines.weight((None, EMBEDDING), &full.embed.rows()?, &quantized.embed.rows()?)?;
    let head = |model: &Decoder| model.ends.get(&Role::Head).map_or(&model.embed, |l| &l.weight).rows();
    lines.weight((None, Role::Head.name()), &head(full)?, &head(quantized)?)?;
    let mut gap = Gap::default();
    for x in exact.stream(Inputs::Full) {
        let x = full.leave(x.clone())?;
        let tokens = x.dim(0)?;
        for from in (0..tokens).step_by(ROWS) {
            let some = x.narrow(0, from, ROWS.min(tokens - from))?.contiguous()?;
            gap = gap.merge(Gap::between(&full.logits(&some)?, &quantized.logits(&some)?)?);
        }
    }
    lines.gap((None, Role::Head.name()), "output", &gap);
    Ok(lines.all)
}

/// Keys and values of a block together, as tables call them.
pub const KV: &str = "attn.kv";

/// Whether anything at all differs between two matrices.
pub(super) fn differ(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.dims() != b.dims() {
        return Ok(true);
    }
    let cpu = |x: &Tensor| x.to_device(&candle_core::Device::Cpu)?.contiguous();
    Ok(rows::with(&cpu(a)?, |a| rows::with(&cpu(b)?, |b| a.iter().zip(b).any(|(a, b)| a != b)))??)
}
