//! What quantization does inside a model: what stands in it, what a recipe changes of that, and which place costs the output most.
//!
//! ```text
//! statistics   the full model: weights, inputs, keys, values, hidden states        why a place is hard to round
//! deviations   full precision beside a recipe, place by place                      what is lost there
//! sensitivity  next tokens with one place quantized, and with all but one          what that costs
//! ```
//! All of it is of whole models in memory, over a fixed sample of text, drawn as calibration texts are; what a recipe is calibrated
//! with is drawn from the same text with another seed. Every number is a line of a table
//! ([`inspection`](crate::results::inspection)); no number of threads moves one.
pub mod damage;
pub mod errors;
pub mod moments;
pub mod sensitivity;
pub mod shape;
pub mod within;

pub use damage::{Made, deviations};
pub use sensitivity::{By, sensitivity};
pub use within::statistics;

use crate::{
    mistake,
    model::{load::Opened, site::Site},
    quant::calibrate::Calibrate,
    study::{
        calibrate::{Text, sequences},
        engine::Words,
    },
};
use anyhow::Result;

/// Sequences that are looked at, where nobody says how many.
pub const SAMPLES: usize = 8;
/// Tokens of each, where nobody says.
pub const TOKENS: usize = 256;
/// Of the draw; calibration texts have 0.
const SEED: u64 = 1;

/// The sample: sequences of a text in a model's tokens.
///
/// # Errors
/// No samples, sequences longer than the model reads, or a text too short to draw them from.
pub fn sample(opened: &Opened, text: &Text, samples: usize, tokens: Option<usize>) -> Result<Vec<Vec<u32>>> {
    let length = tokens.unwrap_or(TOKENS.min(opened.spec.context));
    if samples == 0 || length < 2 {
        mistake!("samples are 1 or more, of 2 tokens or more: {samples} of {length}");
    }
    let how =
        Calibrate { samples: Some(samples), length: Some(length), seed: Some(SEED), ..Calibrate::default() };
    sequences(Words::of(opened), &how, text)
}

/// A site's block, and its name in there.
pub fn place(site: Site) -> (Option<u16>, String) {
    let name = site.to_string();
    let inside = site.block.and_then(|b| name.strip_prefix(&format!("blocks.{b}.")));
    (site.block, inside.unwrap_or(&name).to_string())
}
