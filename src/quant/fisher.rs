//! What each weight means to a model: squared gradients of its loss, the diagonal of the empirical Fisher information.
//!
//! ```text
//! F(w) = sum over texts (d L / d w)^2        L: the mean cross-entropy of a text's next tokens
//! ```
//! As SqueezeLLM (Kim et al., 2024, section 4.1) and CherryQ (Cui and Wang, 2024, section 3) weigh weights by. A pass back through the
//! whole model, so that must be in memory, and its graph with it; a text at a time, in order. Which experts a token goes to, and with
//! what shares, counts as given: routers have none.
use crate::{
    model::{
        decoder::{Batch, Decoder, Linear},
        ops::Kernels,
        seam::{Age, KvMap},
        site::Site,
    },
    tensor::matmul::Weight,
};
use anyhow::{Context, Result, ensure};
use candle_core::{D, Tensor, Var};
use std::{collections::BTreeMap, sync::Arc};

/// What weights mean, by linear: `[out, in]` each.
pub type Means = BTreeMap<Site, Tensor>;

/// Of all linears in blocks; texts of one token say nothing.
pub fn squares(model: &Decoder, texts: &[Vec<u32>]) -> Result<Means> {
    let mut learned = model.clone();
    learned.mode.kernels = Kernels::Reference;
    learned.embed = Weight::from(learned.embed.rows()?);
    for linear in learned.ends.values_mut() {
        linear.weight = Weight::from(linear.weight.rows()?);
    }
    let mut vars: Vec<(Site, Var)> = Vec::new();
    for linear in learned.blocks.iter_mut().flat_map(|b| b.linears.values_mut()) {
        passable(linear)?;
        let var = Var::from_tensor(&linear.weight.rows()?)?;
        linear.weight = Weight::from(var.as_tensor().clone());
        vars.push((linear.site, var));
    }
    let mut all = Means::new();
    for text in texts.iter().filter(|text| text.len() > 1) {
        let hidden = learned.hidden(&Batch::new([text.as_slice()]), None, None)?;
        let grads = loss(&learned.logits(&hidden)?, text)?.backward()?;
        for (site, var) in &vars {
            // An expert that no token came by has none.
            let Some(grad) = grads.get(var) else { continue };
            let square = grad.sqr()?;
            let sum = match all.remove(site) {
                Some(sum) => (sum + square)?,
                None => square,
            };
            all.insert(*site, sum);
        }
    }
    Ok(all)
}

/// The same of keys without their positions and of values, as a cache would hold them: a block's, `[tokens, kv_heads * head_dim]` each,
/// of all texts in their order. What attention has none of is left out.
pub fn cached(model: &Decoder, texts: &[Vec<u32>]) -> Result<BTreeMap<u16, [Tensor; 2]>> {
    let mut all: BTreeMap<u16, [Vec<Tensor>; 2]> = BTreeMap::new();
    let mut probed = model.clone();
    probed.mode.kernels = Kernels::Reference;
    probed.embed = Weight::from(probed.embed.rows()?);
    for linear in
        probed.ends.values_mut().chain(probed.blocks.iter_mut().flat_map(|b| b.linears.values_mut()))
    {
        passable(linear)?;
        linear.weight = Weight::from(linear.weight.rows()?);
    }
    for text in texts {
        let mut probes = Vec::new();
        for (b, block) in (0..).zip(&mut probed.blocks) {
            let Some(attention) = block.spec.mixer.attention() else { continue };
            let shape = (text.len(), attention.kv_heads, attention.head_dim);
            let zeros = || Var::zeros(shape, candle_core::DType::F32, model.device());
            let probe = Arc::new(Probe { keys: zeros()?, values: zeros()? });
            block.kv = Some(probe.clone());
            probes.push((b, probe));
        }
        let hidden = probed.hidden(&Batch::new([text.as_slice()]), None, None)?;
        let grads = match text.len() > 1 {
            true => Some(loss(&probed.logits(&hidden)?, text)?.backward()?),
            false => None,
        };
        for (b, probe) in probes {
            let sides = all.entry(b).or_default();
            for (side, var) in sides.iter_mut().zip([&probe.keys, &probe.values]) {
                let grad = grads.as_ref().and_then(|grads| grads.get(var));
                let square = grad.map_or_else(|| var.zeros_like(), Tensor::sqr)?;
                side.push(square.flatten_from(1)?);
            }
        }
    }
    let each = all.into_iter().map(|(b, [k, v])| Ok((b, [Tensor::cat(&k, 0)?, Tensor::cat(&v, 0)?])));
    each.collect()
}

/// Adds nothing, and gets a gradient.
struct Probe {
    keys: Var,
    values: Var,
}

impl KvMap for Probe {
    fn ages(&self) -> [Age; 2] {
        [Age::Newest(0); 2]
    }
    fn before_positions(&self) -> bool {
        true
    }
    fn keys(&self, k: &Tensor) -> candle_core::Result<Tensor> {
        k + self.keys.as_tensor()
    }
    fn values(&self, v: &Tensor) -> candle_core::Result<Tensor> {
        v + self.values.as_tensor()
    }
}

/// Refuses what stops gradients.
fn passable(linear: &Linear) -> Result<()> {
    ensure!(
        linear.turn.is_none(),
        "`{}`: no gradient passes what is turned or divided as it comes: say `online = false`, or leave it out",
        linear.site
    );
    Ok(())
}

/// Mean cross-entropy of what comes next, nats.
fn loss(logits: &Tensor, text: &[u32]) -> Result<Tensor> {
    let rows = text.len().checked_sub(1).context("a text")?;
    let logits = logits.narrow(0, 0, rows)?;
    let next = Tensor::new(&text[1..], logits.device())?.unsqueeze(1)?;
    let of_next = logits.gather(&next, D::Minus1)?.squeeze(1)?;
    Ok((logits.log_sum_exp(D::Minus1)? - of_next)?.mean_all()?)
}
