//! Methods that round a weight matrix. One file a method; the table in a config deserializes into the method itself.
//!
//! ```text
//! weights = { method = "gptq", bits = 4, group = 64, damp = 0.05 }
//!                              \__ Grid: what values become __/  \__ the method's own keys
//! ```
//! A method says what it [`needs`](Rounder::needs) to see of a linear's input; [`Seen`] has it when
//! [`round`](Rounder::round) is called.
pub mod autoround;
pub mod efficientqat;
pub mod gguf;
pub mod gptq;
pub mod hqq;
pub mod kmeans;
pub mod omniquant;
pub mod owq;
pub mod rtn;
pub mod spqr;

use super::{
    Described, Entry,
    calibrate::{Inputs, Seen},
    correct::{Correct, Counts},
    grid::{Format, Grid, Per, Zero, usual},
    keep::{By, Keep},
    learn::Learner,
};
use crate::{
    mistake,
    model::{ops::Precision, site::Site, spec::DecoderSpec},
    tensor::int8::Codes,
};
use anyhow::Result;
use candle_core::Tensor;
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Map, Value};

/// Every method, in the order tables list them.
pub static METHODS: &[Entry] = &[
    rtn::ENTRY,
    gptq::ENTRY,
    owq::ENTRY,
    spqr::ENTRY,
    omniquant::ENTRY,
    autoround::ENTRY,
    efficientqat::ENTRY,
    hqq::ENTRY,
    kmeans::ENTRY,
    gguf::ENTRY,
];

/// What a method must see of a linear's input, over all calibration tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The second moments `x x^T`, `[in, in]`.
    pub hessian: bool,
    /// The inputs themselves, `[tokens, in]`.
    pub inputs: bool,
    /// Sums of each channel alone: what is kept of any input that is looked at.
    pub channels: bool,
    /// Squared gradients of the whole model's loss, for each weight: no matter of inputs.
    pub gradients: bool,
}

impl Needs {
    /// No data.
    pub const NOTHING: Needs = Needs { hessian: false, inputs: false, channels: false, gradients: false };
    /// Whether there is anything to see.
    pub fn any(self) -> bool {
        self != Self::NOTHING
    }
    /// What either needs.
    pub fn and(self, other: Self) -> Self {
        Self {
            hessian: self.hessian || other.hessian,
            inputs: self.inputs || other.inputs,
            channels: self.channels || other.channels,
            gradients: self.gradients || other.gradients,
        }
    }
}

/// Where a matrix is, and what is known of its input.
pub struct Given<'a> {
    /// Its place.
    pub site: Site,
    /// Of which model.
    pub spec: &'a DecoderSpec,
    /// What its values become.
    pub grid: &'a Grid,
    /// What calibration saw; nothing where the method needs nothing, or where no token came by (an expert's).
    pub seen: &'a Seen,
    /// What each weight means to the model, `[out, in]`, where that is asked for and known.
    pub gradients: Option<&'a Tensor>,
    /// Of the arithmetic, where a published method ran in half precision.
    pub precision: Precision,
}

/// A rounded matrix.
pub struct Rounded {
    /// `[out, in]`, of representable values.
    pub weight: Tensor,
    /// Bits of the whole matrix, where they depend on its values.
    pub bits: Option<f64>,
    /// What a reader must know: more damping than asked, no tokens seen.
    pub note: Option<String>,
}

impl From<Tensor> for Rounded {
    fn from(weight: Tensor) -> Self {
        Self { weight, bits: None, note: None }
    }
}

/// Rounds one matrix `[out, in]` to what the method can represent.
pub trait Rounder: Described + Send + Sync {
    /// What it must see.
    fn needs(&self) -> Needs {
        Needs::NOTHING
    }
    /// Whether linears of one block are rounded in the order of a pass, each stage seeing what the stages before it have
    /// become.
    fn in_stages(&self) -> bool {
        false
    }
    /// The method as one that learns a block's matrices together, where it is one.
    fn learner(&self) -> Option<&dyn Learner> {
        None
    }
    /// Which inputs it is shown, where the recipe does not say.
    fn inputs(&self) -> Inputs {
        Inputs::Quantized
    }
    /// The same matrix, of representable values.
    fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded>;
    /// The same as integers with their scales, `(code - zero) * scale` for every weight; `None` where the method makes no
    /// such thing. In f32.
    fn codes(&self, _grid: &Grid, _weight: &Tensor) -> Result<Option<Codes>> {
        Ok(None)
    }
    /// Bytes in memory of what [`codes`](Rounder::codes) gives for a matrix `(out, in)`.
    fn code_bytes(&self, _grid: &Grid, _shape: (usize, usize)) -> Option<usize> {
        None
    }
    /// What it makes of the embedding `[vocab, width]`; `None` where it leaves that alone.
    fn embedding(&self, _embed: &Tensor, _spec: &DecoderSpec) -> Result<Option<Tensor>> {
        Ok(None)
    }
    /// Bits of that embedding.
    fn embedding_bits(&self, _spec: &DecoderSpec) -> Option<f64> {
        None
    }
    /// Bits of one weight's code at a place.
    fn code_bits(&self, grid: &Grid, _place: (Site, &DecoderSpec)) -> f64 {
        grid.code_bits()
    }
    /// Bits of a whole matrix `(out, in)` at a place, scales and zeros included; what is expected, where they depend on its
    /// values.
    fn bits(&self, grid: &Grid, shape: (usize, usize), _place: (Site, &DecoderSpec)) -> f64 {
        grid.bits(shape)
    }
    /// What a reader must know of a row of this many inputs, if anything: a last group that is shorter.
    fn note(&self, grid: &Grid, inputs: usize, _place: (Site, &DecoderSpec)) -> Option<String> {
        grid.note(inputs)
    }
    /// Why the method cannot work, where its settings do not go together.
    fn check(&self, _grid: &Grid) -> Result<()> {
        Ok(())
    }
}

/// `weights = { method = "...", ... }`.
#[derive(Clone, Debug, PartialEq)]
pub struct Weights {
    /// How values are chosen.
    pub method: Method,
    /// Among which.
    pub grid: Grid,
    /// Values that are not rounded.
    pub keep: Option<Keep>,
    /// What gives some of the loss back.
    pub correct: Option<Correct>,
}

/// The methods.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "method", rename_all = "kebab-case")]
pub enum Method {
    /// Round to nearest.
    Rtn(rtn::Rtn),
    /// A column after another.
    Gptq(gptq::Gptq),
    /// GPTQ, some columns kept.
    Owq(owq::Owq),
    /// GPTQ, scales in codes, some values kept.
    Spqr(spqr::Spqr),
    /// Ranges learned.
    Omniquant(omniquant::OmniQuant),
    /// Ups and downs learned.
    Autoround(autoround::AutoRound),
    /// All learned.
    Efficientqat(efficientqat::EfficientQat),
    /// Zero points moved.
    Hqq(hqq::Hqq),
    /// Codebooks.
    Kmeans(kmeans::Kmeans),
    /// llama.cpp's.
    Gguf(gguf::Gguf),
}

impl Method {
    /// The convention of integers that the method's authors have.
    pub fn zero(&self) -> Zero {
        match self {
            Method::Gptq(_) | Method::Owq(_) | Method::Autoround(_) => Zero::InRange,
            Method::Omniquant(_) => Zero::Free,
            Method::Spqr(_) => Zero::Exact,
            _ => Zero::Clamped,
        }
    }

    /// Which weights share a scale, or a codebook, where nobody says.
    pub fn per(&self) -> Per {
        match self {
            Method::Kmeans(_) | Method::Owq(_) => Per::Row,
            _ => Per::Group,
        }
    }

    /// How many weights a group has, where nobody says.
    pub fn group(&self) -> usize {
        match self {
            Method::Spqr(_) => 16,
            _ => usual(),
        }
    }

    /// The grid that stands for a method whose settings say what values become; `None` where the grid says it.
    pub fn own(&self) -> Option<Grid> {
        match self {
            Method::Gguf(gguf) => Some(gguf.grid()),
            _ => None,
        }
    }
}

impl Weights {
    /// Round to nearest.
    pub fn rtn(grid: Grid) -> Self {
        Self { method: Method::Rtn(rtn::Rtn {}), grid, keep: None, correct: None }
    }

    /// The method itself.
    pub fn rounder(&self) -> &dyn Rounder {
        match &self.method {
            Method::Rtn(rtn) => rtn,
            Method::Gptq(gptq) => gptq,
            Method::Owq(owq) => owq,
            Method::Omniquant(omniquant) => omniquant,
            Method::Autoround(autoround) => autoround,
            Method::Efficientqat(efficientqat) => efficientqat,
            Method::Spqr(spqr) => spqr,
            Method::Hqq(hqq) => hqq,
            Method::Kmeans(kmeans) => kmeans,
            Method::Gguf(gguf) => gguf,
        }
    }

    /// What it must see.
    pub fn needs(&self) -> Needs {
        let kept = self.keep.as_ref().is_some_and(|keep| keep.by == By::Loss);
        let corrected = self.correct.as_ref().is_some_and(|correct| correct.by == Counts::Activations);
        let gradients = self.keep.as_ref().is_some_and(|keep| keep.by == By::Gradients);
        self.rounder().needs().and(Needs { channels: kept || corrected, gradients, ..Needs::NOTHING })
    }

    /// The same matrix, of representable values but for those that are kept, and what gives back some of the loss.
    pub fn round(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let mut rounded = self.sparse(weight, given)?;
        if let Some(correct) = &self.correct {
            rounded.weight = (&rounded.weight + correct.of(weight, &rounded.weight, given)?)?;
            rounded.bits = rounded.bits.map(|bits| bits + correct.size(weight.dims2().unwrap_or_default()));
        }
        Ok(rounded)
    }

    fn sparse(&self, weight: &Tensor, given: &Given) -> Result<Rounded> {
        let Some(keep) = &self.keep else { return self.rounder().round(weight, given) };
        let mask = keep.mask(weight, given)?;
        let others = mask.where_cond(&weight.zeros_like()?, weight)?;
        let mut rounded = self.rounder().round(&others, given)?;
        rounded.weight = mask.where_cond(&Precision::F16.round(weight.clone())?, &rounded.weight)?;
        rounded.bits = rounded.bits.map(|bits| bits + keep.bits(weight.elem_count()));
        if keep.by == By::Gradients && given.gradients.is_none() {
            let said = "no gradient came by: its largest weights are kept".to_string();
            rounded.note = Some(rounded.note.map_or(said.clone(), |note| format!("{note}; {said}")));
        }
        Ok(rounded)
    }

    /// The same as integers with their scales; `None` where it is no such thing.
    pub fn codes(&self, weight: &Tensor) -> Result<Option<Codes>> {
        if self.is_wrapped() { Ok(None) } else { self.rounder().codes(&self.grid, weight) }
    }

    /// Whether there is more in the matrix than the method's own values.
    fn is_wrapped(&self) -> bool {
        self.keep.is_some() || self.correct.is_some()
    }

    /// Bits of a matrix `(out, in)` at a place; what is expected, where they depend on its values.
    pub fn bits(&self, shape: (usize, usize), place: (Site, &DecoderSpec)) -> f64 {
        let kept = self.keep.as_ref().map_or(0., |keep| keep.bits(shape.0 * shape.1));
        let correction = self.correct.as_ref().map_or(0., |correct| correct.size(shape));
        self.rounder().bits(&self.grid, shape, place) + kept + correction
    }

    /// Settings, the grid's and the method's own; what a method sets to null does not apply to it.
    pub fn describe(&self) -> Value {
        let mut all = self.describe_dense();
        if let Some(keep) = &self.keep {
            all["keep"] = keep.describe();
        }
        if let Some(correct) = &self.correct {
            all["correct"] = correct.describe();
        }
        all
    }

    fn describe_dense(&self) -> Value {
        if self.method.own().is_some() {
            return self.rounder().describe();
        }
        let (mut all, mut own) = (self.grid.describe(), self.rounder().describe());
        if let (Some(all), Some(own)) = (all.as_object_mut(), own.as_object_mut()) {
            all.append(own);
            all.retain(|_, value| !value.is_null());
        }
        all
    }

    /// Bytes in memory of a matrix `(out, in)` as integers with their scales, where the method makes such.
    pub fn code_bytes(&self, shape: (usize, usize)) -> Option<usize> {
        if self.is_wrapped() { None } else { self.rounder().code_bytes(&self.grid, shape) }
    }

    /// Refuses settings that do not go together.
    pub fn check(&self) -> Result<()> {
        self.grid.check()?;
        self.keep.as_ref().map_or(Ok(()), Keep::check)?;
        self.correct.as_ref().map_or(Ok(()), Correct::check)?;
        let plain = matches!(self.method, Method::Rtn(_) | Method::Gptq(_));
        if matches!(self.grid.format, Format::Int(int) if int.clip < 1.) && !plain {
            mistake!("`clip` is for rtn and gptq: this method finds ranges of its own");
        }
        if self.is_wrapped() && self.rounder().learner().is_some() {
            mistake!(
                "`keep` and `correct` are for methods that round one matrix, not for those that learn a block"
            );
        }
        self.rounder().check(&self.grid)
    }
}

impl<'de> Deserialize<'de> for Weights {
    /// The keys of the grid are taken out, the others are the method's.
    fn deserialize<D: Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let mut own = Map::deserialize(from)?;
        let mut grid = Map::new();
        for key in Grid::KEYS {
            if let Some((key, value)) = own.remove_entry(*key) {
                grid.insert(key, value);
            }
        }
        let keep = own.remove("keep").map(Keep::deserialize).transpose().map_err(D::Error::custom)?;
        let correct =
            own.remove("correct").map(Correct::deserialize).transpose().map_err(D::Error::custom)?;
        let keys =
            || format!("; and for what values become: `{}`, `keep`, `correct`", Grid::KEYS.join("`, `"));
        let method = Method::deserialize(Value::Object(own));
        let method = method.map_err(|e| match e.to_string() {
            text if text.contains("unknown field") => D::Error::custom(text + &keys()),
            text => D::Error::custom(text),
        })?;
        if let Some(own) = method.own() {
            return match grid.keys().next() {
                None => Ok(Self { method, grid: own, keep, correct }),
                Some(key) => Err(D::Error::custom(format!(
                    "`{key}`: this method's own settings say what values become"
                ))),
            };
        }
        if method.per() == Per::Row && !grid.contains_key("group") && !grid.contains_key("format") {
            grid.entry("per").or_insert("row".into());
        }
        if method.group() != usual() && !grid.contains_key("format") {
            grid.entry("group").or_insert(method.group().into());
        }
        let grid = Grid::from_table(Value::Object(grid), method.zero()).map_err(D::Error::custom)?;
        Ok(Self { method, grid, keep, correct })
    }
}
