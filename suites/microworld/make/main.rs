//! Makes everything in this suite: the tasks' data, the tokenizer, and the built-in model, trained here.
//!
//! ```text
//! cargo run --release --example microworld -- data            text and questions, and the tokenizer
//! cargo run --release --example microworld -- train           the model, in four stages (see README.md)
//! cargo run --release --example microworld -- more            the last stage alone, from the weights as they are
//! cargo run --release --example microworld -- check           held-out loss beside the generator's own entropy
//! ```
//! The last three take a folder, so that the shipped weights are left alone, and a number: the last stage's steps.
// No hash's order reaches a text: the tests only look through their own tables.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::iter_over_hash_type, missing_docs)]
mod learn;
mod product;
mod world;

use anyhow::{Context, Result};
use bitsweep::model::{
    checkpoint::Checkpoint,
    decoder::{Batch, Decoder},
    families::{Family, llama::Llama},
};
use candle_core::{DType, Device, Tensor};
use learn::{Adam, Shape};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};
use tokenizers::{
    AddedToken, Tokenizer,
    decoders::byte_level::ByteLevel,
    models::bpe::{BPE, BpeTrainerBuilder},
    pre_tokenizers::{PreTokenizerWrapper, digits::Digits, sequence::Sequence},
    processors::template::TemplateProcessing,
};
use world::{
    Document, Practice,
    chance::Rng,
    document,
    questions::{Topic, questions},
};

/// Training makes and drops large tensors by the thousand; the system's allocator would give each back to the kernel.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SHAPE: Shape =
    Shape { vocab: 1024, width: 128, inner: 384, blocks: 5, heads: 4, kv_heads: 2, eps: 1e-5, theta: 1e4 };
/// Tokens of a step, about, half of them on each of two threads.
const BATCH: usize = 4096;
/// Documents are packed, whole, until a sequence has so many tokens.
const PACKED: usize = 128;
const SEED: u64 = 20_261_126;
/// Seeds of what is asked; training draws from [`SEED`] on, so that no text below was trained on.
const HELD_OUT: u64 = 7_000;
/// Held-out documents.
const DOCUMENTS: usize = 300;
/// Seed of the documents that methods calibrate with.
const CALIBRATION: u64 = 9_000;

fn main() -> Result<()> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("suites/microworld");
    let args: Vec<String> = std::env::args().skip(1).collect();
    let mut stages = STAGES;
    let last = stages.len() - 1;
    let mut model = here.join("model");
    for word in args.iter().skip(1) {
        match word.parse() {
            Ok(steps) => (stages[last].steps, stages[last].of) = (steps, steps),
            Err(_) => model = PathBuf::from(word),
        }
    }
    match args.first().map(String::as_str) {
        Some("data") => data(&here),
        Some("train") => {
            train(&here, &stages[0], start(), &model)?;
            stages[1..].iter().try_for_each(|stage| train(&here, stage, stored(&model)?, &model))
        }
        Some("more") => train(&here, &stages[last], stored(&model)?, &model),
        Some("check") => check(&here, &model),
        _ => anyhow::bail!("say `data`, `train`, `more` or `check`"),
    }
}

fn config() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": SHAPE.vocab,
        "hidden_size": SHAPE.width, "intermediate_size": SHAPE.inner, "num_hidden_layers": SHAPE.blocks,
        "num_attention_heads": SHAPE.heads, "num_key_value_heads": SHAPE.kv_heads,
        "head_dim": SHAPE.width / SHAPE.heads, "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "hidden_act": "silu", "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": true,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16"
    })
}

/// One document, as training and the perplexity task see it.
fn line(rng: &mut Rng) -> Document {
    let mut document = document(rng);
    document.text.push('\n');
    document
}

/// How the model is spoken to: the words of the world's conversations.
const CHAT: &str = "{{ bos_token }}{% for message in messages %}\
    {{ 'User: ' if message['role'] == 'user' else 'Bot: ' }}{{ message['content'] | trim }}{{ '\\n' }}{% endfor %}\
    {% if add_generation_prompt %}{{ 'Bot:' }}{% endif %}";

fn data(here: &Path) -> Result<()> {
    let lines = |rows: Vec<Value>| rows.iter().map(|r| format!("{r}\n")).collect::<String>();
    let mut rng = Rng::new(HELD_OUT);
    let text =
        (0..DOCUMENTS).map(|_| line(&mut rng)).map(|d| json!({"nats": d.nats, "text": d.text})).collect();
    fs::write(here.join("text.jsonl"), lines(text))?;
    let mut rng = Rng::new(CALIBRATION);
    let text = (0..2 * DOCUMENTS).map(|_| json!({"text": line(&mut rng).text})).collect();
    fs::write(here.with_file_name("calibration").join("microworld.jsonl"), lines(text))?;
    for (name, topic, n) in [
        ("facts", Topic::Facts, 300),
        ("sums", Topic::Sums, 300),
        ("new-sums", Topic::NewSums, 46),
        ("classes", Topic::Classes, 300),
        ("judgements", Topic::Judgements, 300),
        ("reading", Topic::Reading, 300),
        ("new-words", Topic::NewWords, 200),
        ("unknowns", Topic::Unknowns, 300),
        ("misspelt", Topic::Misspelt, 200),
        ("deeds", Topic::Deeds, 300),
        ("steps", Topic::Steps, 100),
        ("instructions", Topic::Instructions, 200),
        ("turns", Topic::Talk, 150),
        ("lines", Topic::Lines, 80),
        ("long-story", Topic::LongStory, 80),
    ] {
        let rows = questions(topic, HELD_OUT, n).into_iter().map(|q| {
            // By name, so that rows keep their bytes.
            let mut row: BTreeMap<&str, Value> = BTreeMap::from([("prompt", json!(q.prompt))]);
            if let [answer] = &q.endings[..] {
                let bare = topic == Topic::Instructions;
                let answer = answer.trim();
                let end = answer.trim_end_matches('.');
                row.insert("answer", json!(if bare { end } else { answer }));
                if topic == Topic::Steps {
                    row.insert("result", json!(end.rsplit(' ').next()));
                }
            } else {
                row.extend([("endings", json!(q.endings)), ("gold", json!(q.gold))]);
            }
            row.extend(q.clean.map(|clean| ("clean", json!(clean))));
            if let Some([first, reply, second]) = q.turns {
                row.extend([("turns", json!([first, second])), ("reply", json!(reply))]);
            }
            json!(row)
        });
        fs::write(here.join(format!("{name}.jsonl")), lines(rows.collect()))?;
    }
    tokenizer(here)
}

/// Byte-level BPE, digits one by one, learned from the world's own text.
fn tokenizer(here: &Path) -> Result<()> {
    let mut rng = Rng::new(SEED);
    let corpus: Vec<String> = (0..40_000).map(|_| line(&mut rng).text).collect();
    let mut tok = Tokenizer::new(BPE::default());
    tok.with_pre_tokenizer(Some(PreTokenizerWrapper::Sequence(Sequence::new(vec![
        PreTokenizerWrapper::Digits(Digits::new(true)),
        PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
    ]))));
    tok.with_decoder(Some(ByteLevel::default()));
    let bos = "<s>";
    let trainer = BpeTrainerBuilder::new()
        .vocab_size(SHAPE.vocab)
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
            "add_bos_token": true, "model_max_length": 512, "chat_template": CHAT
        }))? + "\n",
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

/// A stretch of training: so many steps of a schedule `of` some, and how often documents of what is learned last come in
/// between.
struct Stage {
    steps: usize,
    of: usize,
    peak: f64,
    warm: usize,
    /// A batch is cut into so many, which two threads take in turn; their gradients are added in one order.
    pieces: usize,
    /// One text in so many, until the last quarter, which sees the world as it is.
    practice: Option<(u64, Practice)>,
    seed: u64,
}

/// From chance; then from the weights as they are stored. The last two read the same documents.
const STAGES: [Stage; 4] = [
    Stage { steps: 4000, of: 4000, peak: 4e-3, warm: 100, pieces: 2, practice: None, seed: SEED },
    Stage { steps: 1000, of: 1200, practice: Some((3, Practice::Mixed)), ..LATER },
    Stage { steps: 500, of: 1200, practice: Some((2, Practice::Lines)), seed: SEED + 2, ..LATER },
    Stage { steps: 800, of: 800, practice: Some((2, Practice::Lines)), seed: SEED + 2, ..LATER },
];
const LATER: Stage =
    Stage { steps: 0, of: 0, peak: 2e-3, warm: 50, pieces: 8, practice: None, seed: SEED + 1 };

fn start() -> Vec<f32> {
    let mut dice = Rng::new(SEED ^ 1);
    let mut params = Vec::new();
    let depth = (2. * SHAPE.blocks as f32).sqrt();
    for slot in SHAPE.layout() {
        let n: usize = slot.sizes.iter().product();
        let into_stream = ["o_proj.weight", "down_proj.weight"].iter().any(|end| slot.name.ends_with(end));
        let sd = match slot.sizes[..] {
            [_] => 0.,
            _ if slot.start == 0 => 0.05,
            _ => 1. / (slot.sizes[1] as f32).sqrt() / if into_stream { depth } else { 1. },
        };
        params.extend((0..n).map(|_| if sd == 0. { 1. } else { normal(&mut dice) * sd }));
    }
    params
}

fn stored(dir: &Path) -> Result<Vec<f32>> {
    let tensors = candle_core::safetensors::load(dir.join("model.safetensors"), &Device::Cpu)?;
    let mut params = Vec::new();
    for slot in SHAPE.layout() {
        let tensor = tensors.get(&slot.name).with_context(|| slot.name.clone())?;
        params.extend(tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?);
    }
    Ok(params)
}

fn train(here: &Path, stage: &Stage, mut params: Vec<f32>, into: &Path) -> Result<()> {
    let tok = load_tokenizer(here)?;
    println!("{} parameters, {} steps of about {BATCH} tokens", params.len(), stage.steps);
    let mut adam = Adam::new(params.len());
    let pieces: Vec<Mutex<(f64, Vec<f32>)>> =
        (0..stage.pieces).map(|_| Mutex::new((0., vec![0f32; params.len()]))).collect();
    let mut stream = Stream { rng: Rng::new(stage.seed), tok: &tok, size: BATCH / stage.pieces };
    let (began, mut seen, mut sum, mut count) = (Instant::now(), 0, 0., 0);
    for step in 0..stage.steps {
        let warm = (step as f64 + 1.) / stage.warm as f64;
        let progress = step as f64 / stage.of as f64;
        let cosine = 0.01 + 0.99 * 0.5 * (1. + (progress * std::f64::consts::PI).cos());
        let practice = stage.practice.filter(|_| progress < 0.75);
        let batch = pieces.iter().map(|_| stream.piece(practice)).collect::<Result<Vec<_>>>()?;
        let tokens: usize = batch.iter().flatten().map(|s| s.len() - 1).sum();
        let next = AtomicUsize::new(0);
        let work = || {
            while let Some((piece, here)) = {
                let i = next.fetch_add(1, Relaxed);
                batch.get(i).zip(pieces.get(i))
            } {
                let mut here = here.lock().unwrap();
                here.0 = SHAPE.loss(&params, piece, &mut here.1, 1. / tokens as f32);
            }
        };
        std::thread::scope(|scope| {
            scope.spawn(work);
            work();
        });
        let mut all = pieces.iter().map(|p| p.lock().unwrap());
        let mut first = all.next().context("no pieces")?;
        sum += first.0;
        for other in all {
            sum += other.0;
            first.1.iter_mut().zip(&other.1).for_each(|(a, b)| *a += b);
        }
        adam.step(&mut params, &first.1, (stage.peak * warm.min(1.) * cosine) as f32);
        (seen, count) = (seen + tokens, count + tokens);
        if (step + 1) % 50 == 0 {
            let speed = seen as f64 / began.elapsed().as_secs_f64();
            println!(
                "step {:5}  loss {:.4}  {speed:.0} tokens/s, {seen} tokens",
                step + 1,
                sum / count as f64
            );
            (sum, count) = (0., 0);
        }
        if (step + 1) % 250 == 0 || step + 1 == stage.steps {
            save(into, &SHAPE.layout(), &params)?;
        }
    }
    check(here, into)
}

/// Endless sequences of `<s>document\n<s>document\n...`: whole documents, until there are [`PACKED`] tokens.
struct Stream<'a> {
    rng: Rng,
    tok: &'a Tokenizer,
    size: usize,
}

impl Stream<'_> {
    /// A part of a batch.
    fn piece(&mut self, practice: Option<(u64, Practice)>) -> Result<Vec<Vec<u32>>> {
        let (mut list, mut tokens) = (Vec::new(), 0);
        while tokens < self.size {
            let mut one = Vec::new();
            while one.len() < PACKED {
                if let Some((often, of)) = practice
                    && self.rng.next_u64().is_multiple_of(often)
                {
                    one.extend(encode(self.tok, &(world::practice(&mut self.rng, of) + "\n"))?);
                } else {
                    one.extend(encode(self.tok, &line(&mut self.rng).text)?);
                }
            }
            one.push(0); // the end of the last document is to be learned too
            one.truncate(512);
            tokens += one.len();
            list.push(one);
        }
        Ok(list)
    }
}

fn save(dir: &Path, layout: &[learn::Slot], params: &[f32]) -> Result<()> {
    let mut tensors = HashMap::new();
    for slot in layout {
        let tensor = Tensor::from_slice(&params[slot.range()], &slot.sizes[..], &Device::Cpu)?;
        tensors.insert(slot.name.clone(), tensor.to_dtype(DType::BF16)?);
    }
    fs::create_dir_all(dir)?;
    let (whole, part) = (dir.join("model.safetensors"), dir.join("model.safetensors.part"));
    candle_core::safetensors::save(&tensors, &part)?;
    fs::rename(part, whole)?;
    fs::write(dir.join("config.json"), serde_json::to_string_pretty(&config())? + "\n")?;
    Ok(())
}

/// The shipped weights on text drawn with another seed: losses beside the generator's own, by kind of document.
fn check(here: &Path, model: &Path) -> Result<()> {
    let tok = load_tokenizer(here)?;
    let path = model.join("model.safetensors");
    let checkpoint = Checkpoint::open(std::slice::from_ref(&path))?;
    let spec = Llama.spec(&config())?;
    let decoder = Decoder::build(spec.clone(), &Device::Cpu, true, |p, shape| {
        checkpoint.load(&Llama, &spec, p, shape, &Device::Cpu)
    })?;
    let mut rng = Rng::new(HELD_OUT);
    let (mut nll, mut nats, mut tokens) = (0f64, 0f64, 0usize);
    let mut kinds: BTreeMap<_, [f64; 4]> = BTreeMap::new();
    for _ in 0..DOCUMENTS {
        let document = line(&mut rng);
        let ids = encode(&tok, &document.text)?;
        let n = ids.len() - 1;
        let hidden = decoder.hidden(&Batch::new([&ids[..n]]), None, None)?;
        let targets = Tensor::new(&ids[1..], &Device::Cpu)?;
        let loss = candle_nn::loss::cross_entropy(&decoder.logits(&hidden)?, &targets)?.to_scalar::<f32>()?;
        let loss = f64::from(loss) * n as f64;
        (nll, nats, tokens) = (nll + loss, nats + document.nats, tokens + n);
        let of_kind = kinds.entry(document.kind).or_default();
        let one = [1., n as f64, loss, document.nats];
        of_kind.iter_mut().zip(one).for_each(|(sum, one)| *sum += one);
    }
    for (kind, [documents, tokens, loss, own]) in kinds {
        println!(
            "{:14} {documents:3} documents of {:5.1} tokens: {:6.2} nats each, the generator's own {:6.2}",
            format!("{kind:?}"),
            tokens / documents,
            loss / documents,
            own / documents
        );
    }
    let (model, source) = ((nll / tokens as f64).exp(), (nats / tokens as f64).exp());
    println!(
        "{DOCUMENTS} documents, {tokens} tokens: perplexity {model:.4}, the generator's own {source:.4}, ratio {:.4}",
        model / source
    );
    println!("sha256 {:x}", Sha256::digest(fs::read(&path)?));
    Ok(())
}
