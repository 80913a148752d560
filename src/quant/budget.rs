//! Bits by measured sensitivity: few where a model does not mind them, more where it does, and no more of them than a budget has.
//!
//! ```text
//! budget = { bits_per_weight = 3.25, among = [2, 3, 4, 8] }
//!
//! s(g, b)   KL(full || rounded) of next tokens, where group g alone (a block's linears of one role) is rounded to nearest in b bits
//! least     sum s(g, b_g)   where   sum bits(g, b_g) <= bits_per_weight * weights
//! ```
//! That is a multiple-choice knapsack. Steps along each group's lower convex hull are taken in the order of what they gain a bit, as
//! far as the budget goes: the least there is, but for less than what one step gains (Sinha and Zoltners, 1979, section 2).
use super::{
    alone::{Group, Trace, divergence},
    apply::{rewritten, rounded_sites},
    grid::{Format, Grid},
    recipe::{Elsewhere, Recipe},
    weight::Weights,
};
use crate::{
    mistake,
    model::{
        block::Block,
        decoder::Decoder,
        ops::Precision,
        site::{Expert, Site},
        spec::DecoderSpec,
    },
    tensor::matmul::Weight,
};
use anyhow::Result;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Of the blocks' rounded linears, scales and zero points included.
    pub bits_per_weight: f64,
    /// What a group may get; takes the place of the weights' own `bits`.
    #[serde(default = "among")]
    pub among: Vec<u8>,
    /// How many of the calibration's texts are looked at.
    #[serde(default = "samples")]
    pub samples: usize,
}

fn among() -> Vec<u8> {
    vec![2, 3, 4, 8]
}

fn samples() -> usize {
    4
}

/// One way to have a group: bits of all its matrices, and what is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Of all matrices.
    pub bits: f64,
    /// What is lost.
    pub loss: f64,
}

/// Which choice each group gets, for the least loss within so many bits; `None` where the cheapest are too many.
pub fn spend(groups: &[Vec<Choice>], bits: f64) -> Option<Vec<usize>> {
    let mut steps: Vec<(f64, usize, usize)> = Vec::new();
    let (mut chosen, mut spent) = (Vec::new(), 0.);
    for (g, choices) in groups.iter().enumerate() {
        let mut order: Vec<usize> = (0..choices.len()).collect();
        order.sort_by(|&a, &b| choices[a].bits.total_cmp(&choices[b].bits));
        let gain = |from: usize, to: usize| {
            (choices[from].loss - choices[to].loss) / (choices[to].bits - choices[from].bits)
        };
        let mut hull: Vec<usize> = Vec::new();
        for at in order {
            if hull.last().is_some_and(|&last| choices[at].loss >= choices[last].loss) {
                continue;
            }
            while let [.., before, last] = hull[..]
                && gain(last, at) >= gain(before, last)
            {
                hull.pop();
            }
            hull.push(at);
        }
        let first = *hull.first()?;
        chosen.push(first);
        spent += choices[first].bits;
        steps.extend(hull.windows(2).map(|s| (gain(s[0], s[1]), g, s[1])));
    }
    if spent > bits {
        return None;
    }
    // Within a group gains fall, so its steps stay in their order.
    steps.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut closed = vec![false; groups.len()];
    for (_, g, to) in steps {
        let more = groups[g][to].bits - groups[g][chosen[g]].bits;
        closed[g] |= spent + more > bits;
        if !closed[g] {
            (chosen[g], spent) = (to, spent + more);
        }
    }
    Some(chosen)
}

impl Budget {
    /// The weights of a recipe in so many bits.
    fn with(weights: &Weights, bits: u8) -> Weights {
        let mut other = weights.clone();
        if let Format::Int(int) = &mut other.grid.format {
            int.bits = bits;
        }
        other
    }

    /// What has its bits from the budget: linears in blocks that have the recipe's own weights.
    fn groups(recipe: &Recipe, spec: &DecoderSpec) -> BTreeMap<Group, Vec<Site>> {
        let mut groups: BTreeMap<Group, Vec<Site>> = BTreeMap::new();
        for site in rounded_sites(recipe, spec) {
            let own = recipe.weights.as_ref().zip(recipe.weights_at(site, spec));
            if own.is_some_and(|(a, b)| std::ptr::eq(a, b))
                && let Some(group) = Group::of(site)
            {
                groups.entry(group).or_default().push(site);
            }
        }
        groups
    }

    fn bits(weights: &Weights, sites: &[Site], spec: &DecoderSpec) -> f64 {
        sites.iter().map(|site| weights.bits(spec.linear_shape(*site), (*site, spec))).sum()
    }

    fn least(&self) -> u8 {
        self.among.iter().copied().min().unwrap_or(2)
    }

    /// Why a model cannot have it: what the fewest bits take.
    pub fn unfit(&self, recipe: &Recipe, spec: &DecoderSpec) -> Option<String> {
        let least = Self::with(recipe.weights.as_ref()?, self.least());
        let groups = Self::groups(recipe, spec);
        let count: usize = groups.values().flatten().map(|s| spec.linear_shape(*s)).map(|(o, i)| o * i).sum();
        let bits: f64 = groups.values().map(|sites| Self::bits(&least, sites, spec)).sum();
        (bits > self.bits_per_weight * count as f64).then(|| {
            format!(
                "budget: {} bits a weight, and {} bits with their scales are {:.3} in this model",
                self.bits_per_weight,
                self.least(),
                bits / count.max(1) as f64
            )
        })
    }

    /// The recipe with its bits given out, and where they went.
    pub fn give(&self, recipe: &Recipe, full: &Decoder, texts: &[Vec<u32>]) -> Result<(Recipe, String)> {
        let Some(weights) = &recipe.weights else {
            mistake!("budget: without `weights` there is none to give")
        };
        let spec = &full.spec;
        let groups = Self::groups(recipe, spec);
        let model = rewritten(recipe, full, texts)?;
        let some = &texts[..texts.len().min(self.samples)];
        let losses = self.losses(weights, &groups, &model, some)?;
        let each: Vec<Weights> = self.among.iter().map(|b| Self::with(weights, *b)).collect();
        let choices: Vec<Vec<Choice>> = (groups.values().zip(&losses))
            .map(|(sites, losses)| {
                let bits = each.iter().map(|w| Self::bits(w, sites, spec));
                bits.zip(losses).map(|(bits, &loss)| Choice { bits, loss }).collect()
            })
            .collect();
        let count: usize = groups.values().flatten().map(|s| spec.linear_shape(*s)).map(|(o, i)| o * i).sum();
        let Some(chosen) = spend(&choices, self.bits_per_weight * count as f64) else {
            mistake!("recipe `{}`: {}", recipe.name, self.unfit(recipe, spec).unwrap_or_default());
        };
        let mut given: BTreeMap<u8, Vec<Group>> = BTreeMap::new();
        for (group, at) in groups.keys().zip(chosen) {
            given.entry(self.among[at]).or_default().push(*group);
        }
        let mut recipe = Recipe { budget: None, ..recipe.clone() };
        // The pattern of routed experts means a shared one too, whose own comes after it.
        let routed = |group: &Group| matches!(group.expert, Some(Expert::Routed(_)));
        let mut at = Vec::new();
        for those in [true, false] {
            at.extend(given.iter().map(|(bits, groups)| Elsewhere {
                sites: groups.iter().filter(|g| routed(g) == those).map(|g| g.pattern()).collect(),
                weights: Self::with(weights, *bits),
            }));
        }
        at.retain(|elsewhere| !elsewhere.sites.is_empty());
        // What the recipe says of a site comes last, and holds.
        at.append(&mut recipe.at);
        recipe.at = at;
        Ok((recipe, told(&given)))
    }

    /// KL of each group in each number of bits, the sum over all tokens.
    fn losses(
        &self,
        weights: &Weights,
        groups: &BTreeMap<Group, Vec<Site>>,
        model: &Decoder,
        texts: &[Vec<u32>],
    ) -> Result<Vec<Vec<f64>>> {
        let mut losses = vec![vec![0.; self.among.len()]; groups.len()];
        for text in texts {
            let trace = Trace::of(model, text)?;
            for ((group, sites), losses) in groups.iter().zip(&mut losses) {
                let at = usize::from(group.block);
                let mut other = model.clone();
                for (bits, loss) in self.among.iter().zip(losses) {
                    other.blocks[at] = rounded(&model.blocks[at], sites, &Self::with(weights, *bits).grid)?;
                    let x = trace.resume(&other, Some(at))?;
                    let lost = divergence((model, trace.last()), (&other, &x))?;
                    // What overflows loses all there is.
                    *loss += if lost.is_nan() { f64::INFINITY } else { lost };
                }
            }
        }
        Ok(losses)
    }

    /// Refuses settings that cannot be.
    pub fn check(&self, weights: Option<&Weights>) -> Result<()> {
        let Some(weights) = weights else { mistake!("`budget` gives bits to `weights`, and there are none") };
        if !matches!(weights.grid.format, Format::Int(_)) || weights.method.own().is_some() {
            mistake!("`budget` is for weights of integers: say `bits`, not a format");
        }
        if self.among.len() < 2 || self.among.iter().any(|b| !(2..=8).contains(b)) {
            mistake!("`among` has two numbers or more, each from 2 to 8: {:?}", self.among);
        }
        for bits in &self.among {
            Self::with(weights, *bits).check()?;
        }
        if !(self.bits_per_weight.is_finite() && self.bits_per_weight > 0.) {
            mistake!("`bits_per_weight` is {}: it is above 0", self.bits_per_weight);
        }
        if self.samples == 0 {
            mistake!("`samples` is 0: bits are given by what texts show");
        }
        Ok(())
    }

    /// Settings as records keep them.
    pub fn describe(&self) -> Value {
        json!({ "bits_per_weight": self.bits_per_weight, "among": self.among, "samples": self.samples })
    }
}

/// A block with some of its linears rounded to nearest.
fn rounded(block: &Block, sites: &[Site], grid: &Grid) -> Result<Block> {
    let mut block = block.clone();
    for site in sites {
        if let Some(linear) = block.linears.get_mut(&(site.expert, site.role)) {
            let q = grid.round(&linear.weight.rows()?, Precision::F32)?;
            linear.weight = Weight::from(q).laid()?;
        }
    }
    Ok(block)
}

/// `bits by sensitivity: 2 for attn.q of blocks 0-3, 7; ...`
fn told(given: &BTreeMap<u8, Vec<Group>>) -> String {
    let each = given.iter().map(|(bits, groups)| {
        let mut by_role: BTreeMap<String, Vec<u16>> = BTreeMap::new();
        for group in groups {
            let name = group.pattern();
            let name = name.splitn(3, '.').nth(2).unwrap_or(&name).to_string();
            by_role.entry(name).or_default().push(group.block);
        }
        let roles = by_role.into_iter().map(|(name, blocks)| format!("{name} of {}", ranges(&blocks)));
        format!("{bits} for {}", roles.collect::<Vec<_>>().join(", "))
    });
    format!("bits by sensitivity: {}", each.collect::<Vec<_>>().join("; "))
}

/// `0-3 and 7`, of rising numbers.
fn ranges(all: &[u16]) -> String {
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for &n in all {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => runs.push((n, n)),
        }
    }
    let each = runs.iter().map(|(a, b)| if a == b { a.to_string() } else { format!("{a}-{b}") });
    each.collect::<Vec<_>>().join(" and ")
}
