//! GLM-4-0414 (GLM Team, 2025): GLM-4 with norms on both sides of each branch. Source: transformers `modeling_glm4.py`.
use super::{
    Family,
    glm::{self, Glm},
    llama::Llama,
};
use crate::model::spec::*;
use anyhow::Result;
use serde_json::Value;

/// See the module.
pub struct Glm4;

impl Family for Glm4 {
    fn name(&self) -> &'static str {
        "glm4"
    }
    fn about(&self) -> &'static str {
        "GLM-4-0414: GLM-4 with sandwich norms"
    }
    fn reference(&self) -> &'static str {
        "transformers `modeling_glm4.py`"
    }
    fn model_types(&self) -> &'static [&'static str] {
        &["glm4"]
    }
    fn prefixes(&self) -> &'static [&'static str] {
        Llama.prefixes()
    }

    fn spec(&self, config: &Value) -> Result<DecoderSpec> {
        let mut spec = glm::spec(config)?;
        spec.blocks.iter_mut().for_each(|b| b.residual = Residual::Sandwich);
        Ok(spec)
    }

    fn source(&self, spec: &DecoderSpec, param: Param) -> Option<Source> {
        let (b, name, h) = match param {
            Param::Norm(b, Slot::AfterMixer, h) => (b, "post_self_attn_layernorm", h),
            Param::Norm(b, Slot::AfterFfn, h) => (b, "post_mlp_layernorm", h),
            _ => return Glm.source(spec, param),
        };
        Some(Source::whole(format!("layers.{b}.{name}.{}", h.torch())))
    }
}
