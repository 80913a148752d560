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
        decoder::{Batch, Decoder},
        ops::Kernels,
        site::Site,
    },
    tensor::matmul::Weight,
};
use anyhow::{Context, Result, ensure};
use candle_core::{D, Tensor, Var};
use std::collections::BTreeMap;

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
        ensure!(
            linear.turn.is_none(),
            "`{}`: no gradient passes what is turned or divided as it comes: say `online = false`, or leave it out",
            linear.site
        );
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

/// Mean cross-entropy of what comes next, nats.
fn loss(logits: &Tensor, text: &[u32]) -> Result<Tensor> {
    let rows = text.len().checked_sub(1).context("a text")?;
    let logits = logits.narrow(0, 0, rows)?;
    let next = Tensor::new(&text[1..], logits.device())?.unsqueeze(1)?;
    let of_next = logits.gather(&next, D::Minus1)?.squeeze(1)?;
    Ok((logits.log_sum_exp(D::Minus1)? - of_next)?.mean_all()?)
}
