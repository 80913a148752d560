//! The KV cache alone.
use super::{Chart, Frame, Picture, Swept, relative};
use anyhow::Result;

/// Each task against the bits of a cached key or value, all else in full precision.
pub struct Kv;

impl Chart for Kv {
    fn name(&self) -> &'static str {
        "kv"
    }
    fn about(&self) -> &'static str {
        "What does a smaller KV cache cost?"
    }
    fn draw(&self, frame: &Frame) -> Result<Vec<Picture>> {
        let title = |model: &str| format!("What does a smaller KV cache cost {model}?");
        relative(frame, self.name(), Swept::Kv, title, "bits of a cached key or value")
    }
}
