//! How a model is quantized: a [`recipe`] in the field's notation or as a table, and [`apply`], which makes the
//! quantized model from the full one.
//!
//! ```text
//! recipe -> prepare::Transform rewrites a block first, the same function
//!        -> weight::Rounder   rounds each linear's matrix        -> Linear::weight
//!        -> acts::PerToken    rounds what enters each linear     -> Linear::input   (seam InputMap)
//!        -> kv::map::Cached      rounds what attention reads back   -> Block::kv       (seam KvMap)
//! ```
//! [`grid`] is the one place where a value is rounded. What a method must see of a text, [`calibrate`] shows it.
pub mod acts;
pub mod alone;
pub mod apply;
pub mod budget;
pub mod calibrate;
pub mod columns;
pub mod correct;
pub mod fisher;
pub mod grid;
pub mod keep;
pub mod kv;
pub mod learn;
pub mod prepare;
pub mod recipe;
pub mod weight;

use serde_json::Value;

/// What a method, a format or a notation is, for `list`.
pub struct Entry {
    /// As recipes say it.
    pub name: &'static str,
    /// One line.
    pub about: &'static str,
}

/// Settings as records keep them: scheme, zero handling, axis, all written out.
pub trait Described {
    /// A JSON object.
    fn describe(&self) -> Value;
}
