//! What some linears of a block make of their input, as it is and rounded: what searches compare.
//!
//! ```text
//! q k v        what enters attention's last linear        gate up   act(gate) * up
//! up, or any   their own outputs                          experts   what leaves the whole branch
//! ```
//! Weights are rounded to nearest, whatever rounds in the end; inputs as the recipe has it, a calibrated range being theirs.
use crate::{
    model::{
        block::Block,
        params::Slot,
        seam::Observer,
        site::{Expert, Role, Site},
    },
    quant::{apply::At, calibrate::Seen},
    tensor::matmul::{Weight, linear},
};
use anyhow::{Context, Result};
use candle_core::Tensor;

/// Thresholds that are tried, at most: as many as authors' code tries where activations reach 10,000.
pub(super) const STEPS: usize = 20_000;

/// Linears of one input.
pub(super) struct Trial<'a> {
    pub at: &'a At<'a>,
    /// The norm that feeds them; `None` where their own outputs are compared.
    pub slot: Option<Slot>,
    pub linears: &'a [(Option<Expert>, Role)],
}

impl Trial<'_> {
    /// Whether any of them is rounded.
    pub fn rounds(&self, block: &Block) -> bool {
        let mut each = self.linears.iter().filter_map(|key| block.linears.get(key));
        each.any(|linear| self.at.weights(linear.site).is_some())
    }

    /// Rounds their weights in a block, each after `f` has rewritten it.
    pub fn round(&self, block: &mut Block, f: impl Fn(&Tensor) -> Result<Tensor>) -> Result<()> {
        for key in self.linears {
            let own = block.linears.get_mut(key).context("a group's linear")?;
            let new = f(&own.weight.rows()?)?;
            let weight = match self.at.weights(own.site) {
                Some(method) => method.grid.round(&new, self.at.recipe.precision)?,
                None => new,
            };
            own.weight = Weight::from(weight).laid()?;
        }
        Ok(())
    }

    /// What the recipe makes of an input.
    pub fn entered(&self, x: &Tensor) -> Result<Tensor> {
        if let Some(acts) = &self.at.recipe.acts
            && let Some(needs) = acts.needs()
        {
            let mut seen = Seen::default();
            seen.add(x, needs)?;
            return Ok(acts.map(self.at.recipe.precision, Some(&seen))?.map(x)?);
        }
        self.at.entered(x)
    }

    /// Of an input of the first calibration pass, `[tokens, in]`.
    pub fn outputs(&self, block: &Block, x: &Tensor) -> Result<Vec<Tensor>> {
        let has = |role: Role| self.linears.iter().any(|(_, r)| *r == role);
        let experts = self.linears.iter().any(|(expert, _)| expert.is_some());
        let mut ends = Ends { roles: Vec::new(), inputs: Vec::new() };
        for (from, to) in [(Role::V, Role::O), (Role::Gate, Role::Down), (Role::SsmIn, Role::SsmOut)] {
            if has(from) && !(experts && from == Role::Gate) {
                ends.roles.push(to);
            }
        }
        let mut all = Vec::new();
        if let (Some(slot), true) = (self.slot, experts || !ends.roles.is_empty()) {
            let batch = self.at.bench()?.batches().first().context("calibration texts")?;
            let out = self.at.runner.branch(block, slot, x, batch, Some(&mut ends))?;
            all.append(&mut ends.inputs);
            if experts {
                all.push(out);
            }
        }
        let alone = |role: &Role| self.slot.is_none() || (*role == Role::Up && !has(Role::Gate));
        for (_, role) in self.linears.iter().filter(|(_, role)| alone(role)) {
            let own = block.linears.get(&(None, *role)).context("a group's linear")?;
            all.push(linear(x, &own.weight, own.bias.as_ref())?);
        }
        Ok(all)
    }
}

/// Keeps what enters some linears.
struct Ends {
    roles: Vec<Role>,
    inputs: Vec<Tensor>,
}

impl Observer for Ends {
    fn see(&mut self, site: Site, input: &Tensor) -> candle_core::Result<()> {
        if site.expert.is_none() && self.roles.contains(&site.role) {
            self.inputs.push(input.clone());
        }
        Ok(())
    }
}
