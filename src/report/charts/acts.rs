//! Weights and activations together, and any other combination.
use super::{Chart, Frame, Picture, Swept, relative};
use anyhow::Result;

/// Each task against recipes that quantize activations, or several kinds of tensor.
pub struct Acts;

impl Chart for Acts {
    fn name(&self) -> &'static str {
        "acts"
    }
    fn about(&self) -> &'static str {
        "What does quantizing activations as well cost?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let title = |model: &str| format!("What does quantizing activations as well cost {model}?");
        relative(frame, self.name(), Swept::Joint, title, "bits of weights (W), activations (A), cache (KV)")
    }
}
