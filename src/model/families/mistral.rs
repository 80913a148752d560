//! Mistral (Jiang et al., 2023): LLaMA with a sliding window. Source: transformers `modeling_mistral.py`.
use super::{
    Family,
    llama::{Config, Llama},
    read,
};
use crate::model::spec::{DecoderSpec, Param, Source};
use anyhow::Result;
use serde_json::Value;

/// See the module.
pub struct Mistral;

impl Family for Mistral {
    fn name(&self) -> &'static str {
        "mistral"
    }
    fn about(&self) -> &'static str {
        "Mistral: LLaMA whose tokens see a window of the last `sliding_window`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["mistral"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }
    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        // Mistral's own defaults: a key that is absent is not a key that is null.
        let mut config = config.clone();
        if let Some(keys) = config.as_object_mut() {
            keys.entry("num_key_value_heads").or_insert(8.into());
            keys.entry("sliding_window").or_insert(4096.into());
        }
        read::<Config>(&config)?.spec()
    }
    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        Llama.source(spec, param)
    }
}
