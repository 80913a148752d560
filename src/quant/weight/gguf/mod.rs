//! GGUF's types, to the last bit what `llama-quantize` writes, and the mixtures it makes files of.
//!
//! ```text
//! { method = "gguf", type = "q4_k" }        the recipe's linears, in one type
//! { method = "gguf", file = "q4_k_m" }      a whole file: each linear in the mixture's type, the head and the embedding too
//! imatrix = true                            values count by the mean square of their inputs (llama-imatrix)
//! ```
//! One file an idea: [`types`] has their blocks, [`files`] the mixtures, [`blocks`], [`k`], [`iq4`], [`iq`]
//! and [`iq1`] what is rounded, [`fit`] how scales are searched, [`lattice`] the points that the last two
//! round to. Rows that no block divides fall back as they do there.
pub mod blocks;
pub mod files;
pub mod fit;
pub mod iq;
pub mod iq1;
pub mod iq4;
pub mod k;
pub mod lattice;
pub mod types;

use self::{
    blocks::Weighing,
    files::{DEMANDING, FILES, Place, kind},
    types::Type,
};
use super::{Given, Needs, Rounded, Rounder};
use crate::{
    mistake,
    mistake::nearest,
    model::{
        ops::Precision,
        site::{Role, Site},
        spec::DecoderSpec,
    },
    quant::{
        Described, Entry,
        calibrate::Inputs,
        grid::{Grid, Per},
    },
    tensor::rows,
};
use anyhow::{Result, ensure};
use candle_core::{Device, Tensor};
use rayon::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};

/// For `list methods`.
pub const ENTRY: Entry = Entry {
    name: "gguf",
    about: "GGUF's types as llama-quantize writes them, and its files' mixtures, head and embedding included; imatrix = true: \
            with an importance matrix",
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gguf {
    /// A tensor type for all linears of the recipe: `q4_k`.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// A file type: `q4_k_m`.
    pub file: Option<String>,
    /// Whether values count by their inputs' mean square.
    #[serde(default)]
    pub imatrix: bool,
}

impl Gguf {
    /// A file as `llama-quantize` makes it.
    pub fn file(name: &str, imatrix: bool) -> Option<Self> {
        let (name, _) = FILES.iter().find(|(file, _)| *file == name)?;
        Some(Self { kind: None, file: Some((*name).into()), imatrix })
    }

    /// The grid that stands for it where a method before it tries roundings (AWQ's search): integers of as many bits, in
    /// groups of 32.
    pub fn grid(&self) -> Grid {
        Grid::int(self.usual().code_bits().round().clamp(2., 8.) as u8, Per::Group, 32, false)
    }

    /// Of most tensors.
    fn usual(&self) -> Type {
        let file = |name: &String| FILES.iter().find(|(f, _)| f == name).map(|(_, kind)| *kind);
        let named = |name: &String| Type::named(name);
        self.file.as_ref().and_then(file).or(self.kind.as_ref().and_then(named)).unwrap_or(Type::F32)
    }

    /// Of a linear.
    pub fn at(&self, site: Site, spec: &DecoderSpec) -> Type {
        let inputs = spec.linear_shape(site).1;
        match &self.file {
            // Routers, and the shared expert's gate, are kept as they are.
            Some(_) if site.role == Role::Router => Type::F32,
            Some(file) => kind(file, self.usual(), &Place::of(site, spec, self.imatrix)).for_rows(inputs),
            None => self.usual().for_rows(inputs),
        }
    }

    /// Of the embedding, where a file is made.
    pub fn of_embedding(&self, spec: &DecoderSpec) -> Option<Type> {
        let place = Place::embedding(spec, self.imatrix);
        self.file.as_ref().map(|file| kind(file, self.usual(), &place).for_rows(place.inputs))
    }
}

impl Type {
    /// A matrix `[rows, inputs]` in this type; `importance`: of each input, its mean square. Where a type
    /// demands it and there is none, inputs count alike, as in llama.cpp for an expert that saw no token.
    ///
    /// # Errors
    /// Rows that its blocks do not divide.
    pub fn snap(self, weight: &Tensor, importance: Option<&[f32]>) -> Result<Tensor> {
        let Some(round) = self.round() else {
            return match self {
                Type::F16 => Ok(Precision::F16.round(weight.clone())?),
                _ => Ok(weight.clone()),
            };
        };
        let (out, inner) = weight.dims2()?;
        let block = self.block();
        ensure!(inner.is_multiple_of(block), "rows of {inner} in blocks of {block}");
        let alike = vec![1.; if self.demands_importance() { inner } else { 0 }];
        let importance = importance.or_else(|| self.demands_importance().then_some(&alike[..]));
        let w = weight.to_device(&Device::Cpu)?.contiguous()?;
        let mut all = vec![0f32; out * inner];
        rows::with(&w, |w| {
            all.par_chunks_mut(inner.max(1)).zip(w.par_chunks(inner.max(1))).for_each(|(out, row)| {
                let mean_square = row.iter().fold(0., |sum, x| sum + x * x) / inner as f32;
                for (g, (out, x)) in out.chunks_mut(block).zip(row.chunks(block)).enumerate() {
                    let weighing = importance
                        .map(|all| Weighing { importance: &all[g * block..][..block], mean_square });
                    round(x, weighing, out);
                }
            });
        })?;
        Ok(Tensor::from_vec(all, (out, inner), &Device::Cpu)?.to_device(weight.device())?)
    }
}

impl Rounder for Gguf {
    fn needs(&self) -> Needs {
        Needs { channels: self.imatrix, ..Needs::NOTHING }
    }

    /// An importance matrix is made of the full model.
    fn inputs(&self) -> Inputs {
        Inputs::Full
    }

    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let (kind, inner) = (self.at(given.site, given.spec), weight.dim(1)?);
        let mut note = None;
        let mut importance = None;
        // What is outside the blocks has no importance there either.
        if self.imatrix && given.site.block.is_some() {
            ensure!(given.seen.square.iter().all(|s| s.is_finite()), "its calibration inputs are not finite");
            let mean = given.seen.square.iter().map(|s| (s / given.seen.tokens.max(1) as f64) as f32);
            importance = Some(mean.collect::<Vec<f32>>()).filter(|all| all.len() == inner);
            if importance.is_none() {
                note = Some("no calibration token came by: rounded without importance".into());
            }
        }
        Ok(Rounded { weight: kind.snap(weight, importance.as_deref())?, bits: None, note })
    }

    fn embedding(&self, embed: &Tensor, spec: &DecoderSpec) -> Result<Option<Tensor>> {
        self.of_embedding(spec).map(|kind| kind.snap(embed, None)).transpose()
    }

    fn embedding_bits(&self, spec: &DecoderSpec) -> Option<f64> {
        let width = spec.embed.project.unwrap_or(spec.hidden);
        self.of_embedding(spec).map(|kind| kind.bits(spec.vocab * width))
    }

    fn code_bits(&self, _: &Grid, (site, spec): (Site, &DecoderSpec)) -> f64 {
        self.at(site, spec).code_bits()
    }

    fn bits(&self, _: &Grid, (out, inner): (usize, usize), (site, spec): (Site, &DecoderSpec)) -> f64 {
        self.at(site, spec).bits(out * inner)
    }

    fn note(&self, _: &Grid, inputs: usize, (site, spec): (Site, &DecoderSpec)) -> Option<String> {
        let whole = match &self.file {
            Some(file) => kind(file, self.usual(), &Place::of(site, spec, self.imatrix)),
            None => self.usual(),
        };
        let kept = self.at(site, spec);
        (kept != whole && site.role != Role::Router).then(|| {
            format!(
                "rows of {inputs} are no blocks of {}: {} in place of {}",
                whole.block(),
                kept.name(),
                whole.name()
            )
        })
    }

    fn check(&self, _: &Grid) -> Result<()> {
        match (&self.kind, &self.file) {
            (Some(name), None) => {
                let kind = Type::named(name);
                if kind.is_none() {
                    let all: Vec<_> = Type::names().collect();
                    mistake!(
                        "no GGUF type `{name}`{}; there are: {}",
                        nearest(name, all.iter().copied()),
                        all.join(", ")
                    );
                }
                if kind.is_some_and(Type::demands_importance) && !self.imatrix {
                    mistake!("ggml makes {name} with an importance matrix alone: say imatrix = true");
                }
            }
            (None, Some(name)) => {
                if !FILES.iter().any(|(file, _)| file == name) {
                    let all: Vec<_> = FILES.iter().map(|(name, _)| *name).collect();
                    mistake!(
                        "no GGUF file type `{name}`{}; there are: {}",
                        nearest(name, all.iter().copied()),
                        all.join(", ")
                    );
                }
                if DEMANDING.contains(&name.as_str()) && !self.imatrix {
                    mistake!(
                        "llama-quantize makes {name} with an importance matrix alone: say imatrix = true"
                    );
                }
            }
            _ => mistake!("gguf: say `type` (q4_k) or `file` (q4_k_m), and not both"),
        }
        Ok(())
    }
}

impl Described for Gguf {
    fn describe(&self) -> Value {
        let mut all = json!({ "method": "gguf", "imatrix": self.imatrix });
        if let Some(kind) = &self.kind {
            all["type"] = json!(kind);
        }
        if let Some(file) = &self.file {
            all["file"] = json!(file);
        }
        all
    }
}
