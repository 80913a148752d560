//! Weights alone.
use super::{Chart, Frame, Picture, Swept, relative};
use anyhow::Result;

/// Each task against the weights' bits, all else in full precision.
pub struct Weights;

impl Chart for Weights {
    fn name(&self) -> &'static str {
        "weights"
    }
    fn about(&self) -> &'static str {
        "What do fewer weight bits cost?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let title = |model: &str| format!("What do fewer weight bits cost {model}?");
        relative(frame, self.name(), Swept::Weights, title, "bits of a weight")
    }
}
