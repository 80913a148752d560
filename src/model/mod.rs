//! One decoder, described by data.
//!
//! [`families`] turn a `config.json` into a [`spec::DecoderSpec`] and say where the checkpoint keeps each parameter;
//! [`decoder::Decoder`] computes. Nothing here knows that quantization exists: [`seam`] has the three places where
//! something may stand.
pub mod attention;
pub mod block;
mod cache;
pub mod chat;
pub mod checkpoint;
pub mod decoder;
pub mod describe;
pub mod families;
mod linear;
pub mod load;
pub mod ops;
pub mod params;
pub mod pickle;
pub mod rope;
pub mod seam;
pub mod site;
pub mod spec;
mod ssm;
mod tiles;
pub mod tokenizer;
pub mod torch;
