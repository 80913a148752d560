//! Makes everything in this suite: the tasks' data, the tokenizer, and the built-in model, trained here.
//!
//! ```text
//! cargo run --release --example microworld -- data            text and questions, and the tokenizer
//! cargo run --release --example microworld -- train [STEPS]   the model (hours are not needed: see README.md)
//! cargo run --release --example microworld -- check           held-out loss beside the generator's own entropy
//! ```
//! Training runs on bitsweep's own decoder, in its reference form, which has gradients.
// No hash's order reaches a text: the tests only look through their own tables.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::iter_over_hash_type, missing_docs)]
mod world;

use anyhow::{Context, Result};
use bitsweep::model::{
    decoder::{Batch, Decoder},
    families::{Family, llama::Llama},
    ops::Kernels,
    spec::{DecoderSpec, Param},
};
use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use serde_json::json;
use std::{collections::HashMap, fs, path::Path, time::Instant};
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, BpeTrainerBuilder},
    pre_tokenizers::{PreTokenizerWrapper, digits::Digits, sequence::Sequence},
    processors::template::TemplateProcessing,
};
use world::{Rng, Topic, document, questions};

/// Training makes and drops large tensors by the thousand; the system's allocator would give each back to the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const VOCAB: usize = 768;
const WINDOW: usize = 192;
const BATCH: usize = 16;
const STEPS: usize = 2600;
const PEAK: f64 = 4e-3;
const SEED: u64 = 20_261_122;
/// Seeds of what is asked; training draws from [`SEED`] on, so that no text below was trained on.
const HELD_OUT: u64 = 7_000;
/// Held-out documents.
const DOCUMENTS: usize = 400;

fn main() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/microworld");
    let mut args = std::env::args().skip(1);
    match args.next().as_deref() {
        Some("data") => data(&here),
        Some("train") => train(&here, args.next().map_or(Ok(STEPS), |s| s.parse())?),
        Some("check") => check(&here),
        _ => anyhow::bail!("say `data`, `train` or `check`"),
    }
}

fn config() -> serde_json::Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCAB, "hidden_size": 128,
        "intermediate_size": 384, "num_hidden_layers": 5, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 32, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"
    })
}

/// One document, as training and the perplexity task see it.
fn line(rng: &mut Rng) -> (String, f64) {
    let d = document(rng);
    let _ = d.kind;
    (format!("{}\n", d.text), d.nats)
}

fn data(here: &Path) -> Result<()> {
    let lines = |rows: Vec<serde_json::Value>| rows.iter().map(|r| format!("{r}\n")).collect::<String>();
    let mut rng = Rng::new(HELD_OUT);
    let text = (0..DOCUMENTS)
        .map(|_| line(&mut rng))
        .map(|(text, nats)| json!({"text": text, "nats": nats}))
        .collect();
    fs::write(here.join("text.jsonl"), lines(text))?;
    for (name, topic, n) in [
        ("facts", Topic::Facts, 300),
        ("sums", Topic::Sums, 300),
        ("new-sums", Topic::NewSums, 46),
        ("classes", Topic::Classes, 300),
        ("judgements", Topic::Judgements, 300),
        ("reading", Topic::Reading, 300),
    ] {
        let rows = questions(topic, HELD_OUT, n)
            .into_iter()
            .map(|q| json!({"prompt": q.prompt, "endings": q.endings, "gold": q.gold}))
            .collect();
        fs::write(here.join(format!("{name}.jsonl")), lines(rows))?;
    }
    tokenizer(here)
}

/// Byte-level BPE, digits one by one, learned from the world's own text.
fn tokenizer(here: &Path) -> Result<()> {
    let mut rng = Rng::new(SEED);
    let corpus: Vec<String> = (0..40_000).map(|_| line(&mut rng).0).collect();
    let mut tok = Tokenizer::new(BPE::default());
    tok.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Digits(Digits::new(true)),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ]))));
    tok.with_decoder(Some(ByteLevel::default()));
    let bos = "<s>";
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(VOCAB)
        .show_progress(false)
        .special_tokens(vec![AddedToken::from(bos, true)])
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    let mut trainer = tokenizers::models::TrainerWrapper::from(trainer);
    tok.train(&mut trainer, corpus.iter()).map_err(anyhow::Error::msg)?;
    tok.with_post_processor(Some(
        TemplateProcessing::builder()
            .try_single(format!("{bos} $A"))
            .map_err(anyhow::Error::msg)?
            .special_tokens(vec![(bos, 0)])
            .build()?,
    ));
    let dir = here.join("model");
    fs::create_dir_all(&dir)?;
    tok.save(dir.join("tokenizer.json"), false).map_err(anyhow::Error::msg)?;
    fs::write(
        dir.join("tokenizer_config.json"),
        serde_json::to_string_pretty(&json!({
            "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": bos, "eos_token": bos,
            "add_bos_token": true, "model_max_length": 512
        }))?,
    )?;
    let sample =
        tok.encode("One day Rilsa went to Yarrod. 11 plus 12 is 23.\n", true).map_err(anyhow::Error::msg)?;
    println!("vocabulary {}; {:?}", tok.get_vocab_size(true), sample.get_tokens());
    Ok(())
}

fn load_tokenizer(here: &Path) -> Result<Tokenizer> {
    Tokenizer::from_file(here.join("model/tokenizer.json")).map_err(anyhow::Error::msg)
}

fn encode(tok: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    Ok(tok.encode(text, true).map_err(anyhow::Error::msg)?.get_ids().to_vec())
}

/// Standard normal numbers from the world's own dice (Box and Muller).
fn normal(rng: &mut Rng) -> f32 {
    let uniform = |rng: &mut Rng| ((rng.next_u64() >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    let (a, b) = (uniform(rng), uniform(rng));
    ((-2. * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

fn train(here: &Path, steps: usize) -> Result<()> {
    let tok = load_tokenizer(here)?;
    let config = config();
    let spec: DecoderSpec = Llama.spec(&config)?;
    let mut dice = Rng::new(SEED ^ 1);
    let mut vars: Vec<(Param, Var)> = Vec::new();
    let depth = (2. * spec.blocks.len() as f32).sqrt();
    let mut decoder = Decoder::build(spec.clone(), &Device::Cpu, |param, shape| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = match param {
            Param::Norm(..) | Param::FinalNorm(_) => vec![1.; n],
            Param::Weight(site) => {
                let into_stream = matches!(site.role.name(), "attn.o" | "ffn.down");
                let sd = 1. / (shape[1] as f32).sqrt() / if into_stream { depth } else { 1. };
                (0..n).map(|_| normal(&mut dice) * sd).collect()
            }
            _ => (0..n).map(|_| normal(&mut dice) * 0.05).collect(),
        };
        let var = Var::from_vec(values, shape, &Device::Cpu)?;
        vars.push((param, var.clone()));
        Ok(var.as_tensor().clone())
    })?;
    decoder.mode.kernels = Kernels::Reference;
    println!("{} parameters, {steps} steps of {} tokens", spec.count(), BATCH * WINDOW);
    let all = vars.iter().map(|(_, v)| v.clone()).collect();
    let mut optimizer =
        AdamW::new(all, ParamsAdamW { lr: PEAK, beta1: 0.9, beta2: 0.98, eps: 1e-8, weight_decay: 0.02 })?;
    let mut stream = Stream { rng: Rng::new(SEED), tok: &tok, rest: Vec::new() };
    let began = Instant::now();
    let mut mean = 0.;
    for step in 0..steps {
        let warm = (step as f64 + 1.) / 100.;
        let progress = step as f64 / steps as f64;
        optimizer.set_learning_rate(
            PEAK * warm.min(1.) * (0.01 + 0.99 * 0.5 * (1. + (progress * std::f64::consts::PI).cos())),
        );
        let windows: Vec<Vec<u32>> = (0..BATCH).map(|_| stream.next()).collect::<Result<_>>()?;
        let targets: Vec<u32> = windows.iter().flat_map(|w| w[1..].to_vec()).collect();
        let hidden = decoder.hidden(&Batch::new(windows.iter().map(|w| &w[..WINDOW])), None, None)?;
        let loss =
            candle_nn::loss::cross_entropy(&decoder.logits(&hidden)?, &Tensor::new(targets, &Device::Cpu)?)?;
        optimizer.backward_step(&loss)?;
        mean += loss.to_scalar::<f32>()?;
        // Norms keep copies of their rows for fused loops: of no use here, where the reference form runs.
        if (step + 1) % 50 == 0 {
            let speed = ((step + 1) * BATCH * WINDOW) as f64 / began.elapsed().as_secs_f64();
            println!("step {:5}  loss {:.4}  {speed:.0} tokens/s", step + 1, mean / 50.);
            mean = 0.;
        }
        if (step + 1) % 500 == 0 || step + 1 == steps {
            save(here, &spec, &vars, &config)?;
        }
    }
    check(here)
}

/// Endless windows of `<s>document\n<s>document\n...`, one token longer than the model reads.
struct Stream<'a> {
    rng: Rng,
    tok: &'a Tokenizer,
    rest: Vec<u32>,
}

impl Stream<'_> {
    fn next(&mut self) -> Result<Vec<u32>> {
        while self.rest.len() < WINDOW + 1 {
            let (text, _) = line(&mut self.rng);
            self.rest.extend(encode(self.tok, &text)?);
        }
        let window = self.rest[..WINDOW + 1].to_vec();
        self.rest.drain(..WINDOW);
        Ok(window)
    }
}

fn save(here: &Path, spec: &DecoderSpec, vars: &[(Param, Var)], config: &serde_json::Value) -> Result<()> {
    let mut tensors = HashMap::new();
    for (param, var) in vars {
        let source = Llama.source(spec, *param).context("a parameter without a name")?;
        tensors.insert(format!("model.{}", source.name), var.as_tensor().to_dtype(DType::BF16)?);
    }
    let dir = here.join("model");
    candle_core::safetensors::save(&tensors, dir.join("model.safetensors"))?;
    fs::write(dir.join("config.json"), serde_json::to_string_pretty(config)? + "\n")?;
    Ok(())
}

/// The shipped weights on text drawn with another seed: nats a token beside the generator's own.
fn check(here: &Path) -> Result<()> {
    let tok = load_tokenizer(here)?;
    let path = here.join("model/model.safetensors");
    let checkpoint = bitsweep::model::checkpoint::Checkpoint::open(std::slice::from_ref(&path))?;
    let spec = Llama.spec(&config())?;
    let decoder = Decoder::build(spec.clone(), &Device::Cpu, |p, shape| {
        checkpoint.load(&Llama, &spec, p, shape, &Device::Cpu)
    })?;
    let mut rng = Rng::new(HELD_OUT);
    let (mut nll, mut nats, mut tokens) = (0f64, 0f64, 0usize);
    for _ in 0..DOCUMENTS {
        let (text, own) = line(&mut rng);
        let ids = encode(&tok, &text)?;
        let hidden = decoder.hidden(&Batch::new([&ids[..ids.len() - 1]]), None, None)?;
        let targets = Tensor::new(&ids[1..], &Device::Cpu)?;
        let loss = candle_nn::loss::cross_entropy(&decoder.logits(&hidden)?, &targets)?.to_scalar::<f32>()?;
        nll += f64::from(loss) * (ids.len() - 1) as f64;
        nats += own;
        tokens += ids.len() - 1;
    }
    let (model, source) = ((nll / tokens as f64).exp(), (nats / tokens as f64).exp());
    println!(
        "{DOCUMENTS} documents, {tokens} tokens: perplexity {model:.4}, the generator's own {source:.4}, ratio {:.4}",
        model / source
    );
    println!("sha256 {}", checkpoint.hash());
    Ok(())
}
