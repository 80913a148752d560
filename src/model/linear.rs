//! A linear with what stands before it, and what a pass carries from one to the next.
use super::{
    attention::Span,
    ops::{self, Mode},
    rope::Rope,
    seam::{InputMap, Observer},
    site::Site,
    spec::RopeSpec,
};
use anyhow::Result;
use candle_core::Tensor;
use std::sync::Arc;

/// See the module.
#[derive(Clone)]
pub struct Linear {
    /// Its place.
    pub site: Site,
    /// `[out, in]`.
    pub weight: Tensor,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Replaces its input.
    pub input: Option<Arc<dyn InputMap>>,
}

/// What a pass carries along.
pub(super) struct Pass<'a, 'b> {
    pub mode: Mode,
    pub spans: Vec<Span>,
    pub ropes: Vec<(RopeSpec, Arc<Rope>)>,
    pub observer: Option<&'a mut (dyn Observer + 'b)>,
}

impl Pass<'_, '_> {
    /// The table for a block's rotary positions, made once a pass.
    pub fn rope(&mut self, spec: &RopeSpec) -> Arc<Rope> {
        if let Some((_, rope)) = self.ropes.iter().find(|(known, _)| known == spec) {
            return rope.clone();
        }
        let rope = Arc::new(Rope::new(spec, &self.spans));
        self.ropes.push((spec.clone(), rope.clone()));
        rope
    }
}

impl Linear {
    /// `[tokens, in]` to `[tokens, out]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let mapped = self.input.as_ref().map(|m| m.map(x)).transpose()?;
        self.product(x, mapped.as_ref().unwrap_or(x), pass)
    }

    fn product(&self, x: &Tensor, mapped: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        if let Some(observer) = &mut pass.observer {
            observer.see(self.site, x)?;
        }
        Ok(ops::linear(mapped, &self.weight, self.bias.as_ref(), pass.mode)?)
    }
}

/// Several linears of one input; an [`InputMap`] that they share works once.
pub(super) fn together<const N: usize>(
    linears: [&Linear; N],
    x: &Tensor,
    pass: &mut Pass,
) -> Result<[Tensor; N]> {
    let shared = match &linears[0].input {
        Some(map) if linears.iter().all(|l| l.input.as_ref().is_some_and(|m| Arc::ptr_eq(m, map))) => {
            Some(map.map(x)?)
        }
        _ => None,
    };
    let mut outs = Vec::with_capacity(N);
    for linear in linears {
        outs.push(match &shared {
            Some(mapped) => linear.product(x, mapped, pass)?,
            None => linear.forward(x, pass)?,
        });
    }
    outs.try_into().map_err(|_| anyhow::anyhow!("as many outputs as linears"))
}
