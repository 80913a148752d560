//! A linear with what stands before it, and what a pass carries from one to the next.
use super::{
    attention::Span,
    ops::{self, Mode},
    rope::Rope,
    seam::{InputMap, Observer},
    site::Site,
    spec::RopeSpec,
};
use crate::tensor::{
    int8::Inputs,
    matmul::{Weight, integers},
};
use anyhow::{Context, Result};
use candle_core::Tensor;
use std::{ops::Range, sync::Arc};

/// See the module.
#[derive(Clone)]
pub struct Linear {
    /// Its place.
    pub site: Site,
    /// `[out, in]`.
    pub weight: Weight,
    /// `[out]`.
    pub bias: Option<Tensor>,
    /// Turns its input, where its weight holds the inverse: the two together change nothing.
    pub turn: Option<Arc<dyn InputMap>>,
    /// Replaces its input, after that.
    pub input: Option<Arc<dyn InputMap>>,
}

/// What a pass carries along.
pub(super) struct Pass<'a, 'b> {
    pub mode: Mode,
    pub spans: Vec<Span>,
    pub ropes: Vec<(RopeSpec, Arc<Rope>)>,
    pub observer: Option<&'a mut (dyn Observer + 'b)>,
    /// Rows of keys and values that the next pass reads too.
    pub keep: Vec<Range<usize>>,
}

impl<'a, 'b> Pass<'a, 'b> {
    pub fn new(mode: Mode, spans: Vec<Span>) -> Self {
        Self { mode, spans, ropes: Vec::new(), observer: None, keep: Vec::new() }
    }

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

/// What a linear multiplies.
enum Entered {
    Floats(Tensor),
    Codes(Inputs),
}

impl Linear {
    /// `[tokens, in]` to `[tokens, out]`.
    pub(super) fn forward(&self, x: &Tensor, pass: &mut Pass) -> Result<Tensor> {
        let x = self.turned(x)?;
        let entered = self.enter(&x, pass.mode)?;
        self.product(&x, &entered, pass)
    }

    /// The same of an input as an observer sees it: turned already, and not yet rounded.
    pub fn after_turn(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        let entered = self.enter(x, mode)?;
        self.product(x, &entered, &mut Pass::new(mode, Vec::new()))
    }

    /// What an exact turn before the weight makes of an input; the input itself where there is none.
    pub fn turned(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match &self.turn {
            Some(turn) => turn.map(x)?,
            None => x.clone(),
        })
    }

    /// What an input becomes before the product: integers where the weight is integers.
    fn enter(&self, x: &Tensor, mode: Mode) -> Result<Entered> {
        let Some(map) = &self.input else { return Ok(Entered::Floats(x.clone())) };
        let codes = match &self.weight {
            Weight::Codes(codes) if mode.fused() => map.codes(x, codes.groups()),
            _ => None,
        };
        Ok(match codes {
            Some(codes) => Entered::Codes(codes?),
            None => Entered::Floats(map.map(x)?),
        })
    }

    /// Whether another linear's input becomes the same.
    fn enters_as(&self, other: &Self) -> bool {
        let same = |a: &Option<Arc<dyn InputMap>>, b: &Option<Arc<dyn InputMap>>| match (a, b) {
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            (None, None) => true,
            _ => false,
        };
        same(&self.turn, &other.turn)
            && same(&self.input, &other.input)
            && match (&self.weight, &other.weight) {
                (Weight::Codes(a), Weight::Codes(b)) => a.groups() == b.groups(),
                (Weight::Codes(_), _) | (_, Weight::Codes(_)) => false,
                _ => true,
            }
    }

    fn product(&self, x: &Tensor, entered: &Entered, pass: &mut Pass) -> Result<Tensor> {
        if let Some(observer) = &mut pass.observer {
            observer.see(self.site, x)?;
        }
        match entered {
            Entered::Floats(x) => Ok(ops::linear(x, &self.weight, self.bias.as_ref(), pass.mode)?),
            Entered::Codes(codes) => match &self.weight {
                Weight::Codes(weight) => Ok(integers(codes, weight, self.bias.as_ref())?),
                _ => None.context("a product of integers and floats"),
            },
        }
    }

    /// Of what is not watched: the head.
    pub(super) fn alone(&self, x: &Tensor, mode: Mode) -> Result<Tensor> {
        self.forward(x, &mut Pass::new(mode, Vec::new()))
    }
}

/// Several linears of one input; an [`InputMap`] that they share works once.
pub(super) fn together<const N: usize>(
    linears: [&Linear; N],
    x: &Tensor,
    pass: &mut Pass,
) -> Result<[Tensor; N]> {
    let mut outs = Vec::with_capacity(N);
    let mut entered: Option<(&Linear, Tensor, Entered)> = None;
    for linear in linears {
        if entered.as_ref().is_none_or(|(first, ..)| !linear.enters_as(first)) {
            let x = linear.turned(x)?;
            let as_is = linear.enter(&x, pass.mode)?;
            entered = Some((linear, x, as_is));
        }
        if let Some((_, x, entered)) = &entered {
            outs.push(linear.product(x, entered, pass)?);
        }
    }
    outs.try_into().map_err(|_| anyhow::anyhow!("as many outputs as linears"))
}
