//! What calibrated quantizers cost; `benches/quantizers.py` runs it beside their authors' code.
//!
//! ```sh
//! cargo bench --bench quantizers -- gptq FILE      # weight [out, in] and hessian [in, in], safetensors
//! cargo bench --bench quantizers -- awq FILE       # a LLaMA block's matrices as transformers names them, and inputs
//! ```
//! Prints seconds of the method alone: reading is not counted.
#![allow(clippy::print_stdout, clippy::unwrap_used)]
use bitsweep::{
    model::{
        decoder::{Batch, Decoder},
        families,
        ops::Precision,
        site::{Role, Site},
        spec::{Half, Param, Slot},
    },
    quant::{
        apply::Maker,
        calibrate::Seen,
        recipe::{Recipe, Table},
        weight::Given,
    },
};
use candle_core::{DType, Device, Tensor, safetensors};
use serde_json::json;
use std::time::Instant;

fn recipe(text: &str) -> Recipe {
    Recipe::from_table(toml::from_str::<Table>(&format!("name = 'x'\n{text}")).unwrap()).unwrap()
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [method, file] = &args[..] else {
        println!("name a method, gptq or awq, and a file; see benches/quantizers.py");
        return;
    };
    let mut all = safetensors::load(file, &Device::Cpu).unwrap();
    match method.as_str() {
        "gptq" => {
            let recipe = recipe("weights = { method = 'gptq', bits = 4, group = 128 }");
            let weights = recipe.weights.as_ref().unwrap();
            let seen = Seen { tokens: 1, hessian: all.remove("hessian"), ..Seen::default() };
            let config = json!({ "model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                "num_hidden_layers": 1, "num_attention_heads": 1, "max_position_embeddings": 8, "rms_norm_eps": 1e-5 });
            let spec = families::of(&config).unwrap().spec(&config).unwrap();
            let site = Site::new(0, Role::Up);
            let given = Given {
                site,
                spec: &spec,
                grid: &weights.grid,
                seen: &seen,
                gradients: None,
                precision: Precision::F32,
            };
            let began = Instant::now();
            let rounded = weights.rounder().round(&all["weight"], &given).unwrap().weight;
            let seconds = began.elapsed().as_secs_f64();
            let lost = (&all["weight"] - rounded).unwrap();
            let hessian = seen.hessian.as_ref().unwrap();
            let lost = (lost.matmul(hessian).unwrap() * lost)
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap();
            println!("{seconds} {lost}");
        }
        "awq" => {
            let inputs = all.remove("inputs").unwrap();
            let (tokens, hidden) = inputs.dims2().unwrap();
            let inner = all["mlp.up_proj"].dims2().unwrap().0;
            let config = json!({ "model_type": "llama", "vocab_size": tokens, "hidden_size": hidden,
                "intermediate_size": inner, "num_hidden_layers": 1, "num_attention_heads": hidden / 128,
                "max_position_embeddings": 2048, "rms_norm_eps": 1e-5, "tie_word_embeddings": true });
            let spec = families::of(&config).unwrap().spec(&config).unwrap();
            let full = Decoder::build(spec.clone(), &Device::Cpu, true, |param, shape| {
                Ok(match param {
                    // A token's embedding is its input.
                    Param::Embed => inputs.clone(),
                    Param::Weight(site) => all[match site.role {
                        Role::Q => "self_attn.q_proj",
                        Role::K => "self_attn.k_proj",
                        Role::V => "self_attn.v_proj",
                        Role::O => "self_attn.o_proj",
                        Role::Gate => "mlp.gate_proj",
                        Role::Up => "mlp.up_proj",
                        _ => "mlp.down_proj",
                    }]
                    .clone(),
                    Param::Norm(0, Slot::Mixer | Slot::Ffn, Half::Scale) | Param::FinalNorm(_) => {
                        Tensor::ones(shape, DType::F32, &Device::Cpu)?
                    }
                    other => panic!("{other:?}"),
                })
            })
            .unwrap();
            let recipe = recipe(
                "prepare = [{ method = 'awq', clip = false }]\nweights = { method = 'rtn', bits = 4 }",
            );
            let texts: Vec<Vec<u32>> = vec![(0..tokens as u32).collect()];
            let mut maker = Maker::new(&recipe, &spec, &texts).unwrap();
            maker.enter(&full, &full).unwrap();
            let began = Instant::now();
            maker.prepared(&full.blocks[0], &full).unwrap();
            println!("{} {}", began.elapsed().as_secs_f64(), Batch::new([&texts[0][..]]).len());
        }
        other => println!("no method `{other}`; there are: gptq, awq"),
    }
}
