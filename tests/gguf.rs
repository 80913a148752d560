//! GGUF's types and mixtures, held to ggml and llama.cpp (`tests/make_gguf.py` compiled and ran them).
use crate::{
    common::repo,
    families::{gap, logits},
    methods::{golden, recipe},
};
use bitsweep::{
    model::{
        families, load,
        ops::Precision,
        site::{Expert, Role, Site},
        spec::DecoderSpec,
    },
    quant::{
        apply::{apply, sizes},
        calibrate::Seen,
        recipe::Recipe,
        weight::{
            Given,
            gguf::{Gguf, files::FILES, types::Type},
        },
    },
};
use candle_core::Device;
use serde_json::{Value, json};
use std::path::Path;

/// Every value of every type, without and with an importance matrix, is ggml's to the last bit; so are sizes.
#[test]
fn types_are_ggmls_bit_for_bit() {
    let all = golden("gguf/types");
    let (weight, importance) = (&all["weight"], all["importance"].to_vec1::<f32>().unwrap());
    let square = importance.iter().map(|i| f64::from(*i)).collect();
    let seen = Seen { tokens: 1, square, ..Seen::default() };
    // Rows of a matrix there are whole blocks, as the golden's are.
    let (spec, site) = (spec("llama-32"), Site::new(0, Role::Up));
    let mut count = 0;
    for name in Type::names() {
        let demands = Type::named(name).unwrap().demands_importance();
        for (suffix, imatrix) in [("", false), ("-imatrix", true)].into_iter().skip(usize::from(demands)) {
            let r = recipe(&format!("weights = {{ method = 'gguf', type = '{name}', imatrix = {imatrix} }}"));
            let weights = r.weights.unwrap();
            let given = Given {
                site,
                spec: &spec,
                grid: &weights.grid,
                seen: &seen,
                gradients: None,
                precision: Precision::F32,
            };
            let ours = weights.rounder().round(weight, &given).unwrap().weight;
            let (ours, want) =
                (ours.to_vec2::<f32>().unwrap(), all[&format!("{name}{suffix}")].to_vec2::<f32>().unwrap());
            for (row, (ours, want)) in ours.iter().zip(&want).enumerate() {
                let off = ours.iter().zip(want).filter(|(a, b)| a != b).count();
                assert_eq!(off, 0, "{name}{suffix}, row {row}: {:?}\n{:?}", &ours[..8], &want[..8]);
            }
            count += 1;
        }
        let bits = all[&format!("{name}-bits")].to_vec1::<f32>().unwrap()[0];
        assert_eq!(Type::named(name).unwrap().bits(8 * 256) as f32, bits, "{name}");
    }
    assert_eq!(count, 47);
}

/// Without importance, what is made under it alone is a mistake; an expert that saw no token has all ones, with
/// a note.
#[test]
fn some_types_demand_importance() {
    let text = |what: &str, imatrix: bool| {
        let table = format!("name = 'x'\nweights = {{ method = 'gguf', {what}, imatrix = {imatrix} }}");
        Recipe::from_table(toml::from_str(&table).unwrap())
    };
    for what in ["type = 'iq1_s'", "type = 'iq2_xs'", "file = 'iq1_m'", "file = 'iq3_xs'"] {
        let error = format!("{:#}", text(what, false).unwrap_err());
        assert!(error.contains("imatrix = true"), "{error}");
        text(what, true).unwrap();
    }
    let weight = &golden("gguf/types")["weight"];
    let (spec, site) = (spec("mixtral"), Site { expert: Some(Expert::Routed(3)), ..Site::new(0, Role::Up) });
    let weights = text("type = 'iq2_xxs'", true).unwrap().weights.unwrap();
    let rounded = |seen: &Seen| {
        let given = Given {
            site,
            spec: &spec,
            grid: &weights.grid,
            seen,
            gradients: None,
            precision: Precision::F32,
        };
        let rounded = weights.rounder().round(weight, &given).unwrap();
        (rounded.weight.to_vec2::<f32>().unwrap(), rounded.note)
    };
    let (unseen, note) = rounded(&Seen::default());
    let (ones, none) = rounded(&Seen { tokens: 1, square: vec![1.; 256], ..Seen::default() });
    assert!(note.unwrap().contains("no calibration token") && none.is_none());
    assert_eq!(unseen, ones);
}

fn spec(name: &str) -> DecoderSpec {
    let llama = |blocks: usize, heads: usize, kv: usize, width: usize, inner: usize, tied: bool| {
        json!({ "model_type": "llama", "vocab_size": 1000, "hidden_size": width, "intermediate_size": inner,
                "num_hidden_layers": blocks, "num_attention_heads": heads, "num_key_value_heads": kv, "rms_norm_eps": 1e-5,
                "tie_word_embeddings": tied, "max_position_embeddings": 2048 })
    };
    let with = |mut config: Value, more: Value| {
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        config
    };
    let config = match name {
        "llama-32" => llama(32, 32, 32, 4096, 11008, false),
        "llama-3.1-8b" => with(llama(32, 32, 8, 4096, 14336, false), json!({ "vocab_size": 128_256 })),
        "llama-80" => llama(80, 64, 8, 8192, 28672, false),
        "smollm" => llama(30, 9, 3, 576, 1536, true),
        "tiny" => llama(5, 8, 4, 64, 172, true),
        "mixtral" => with(
            llama(32, 32, 8, 4096, 14336, false),
            json!({ "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2 }),
        ),
        "qwen2" => with(llama(24, 14, 2, 896, 4864, true), json!({ "model_type": "qwen2" })),
        "qwen3_moe" => with(
            llama(48, 32, 4, 2048, 6144, false),
            json!({ "model_type": "qwen3_moe", "head_dim": 128, "num_experts": 128, "num_experts_per_tok": 8,
                    "moe_intermediate_size": 768, "decoder_sparse_step": 1, "norm_topk_prob": true, "mlp_only_layers": [] }),
        ),
        "falcon" => {
            json!({ "model_type": "falcon", "vocab_size": 1000, "hidden_size": 4544, "num_hidden_layers": 32,
                "num_attention_heads": 71, "layer_norm_epsilon": 1e-5, "multi_query": true, "parallel_attn": true,
                "new_decoder_architecture": false, "bias": false })
        }
        "gpt2" => {
            json!({ "model_type": "gpt2", "vocab_size": 1000, "n_embd": 768, "n_layer": 12, "n_head": 12,
                "n_positions": 1024, "layer_norm_epsilon": 1e-5, "activation_function": "gelu_new" })
        }
        other => panic!("{other}"),
    };
    families::of(&config).unwrap().decoder(&config).unwrap()
}

/// Every tensor of every file type, for nine shapes of model, gets the type that llama.cpp's own rule gives it.
#[test]
fn mixtures_are_llama_cpps() {
    let text = std::fs::read_to_string(repo("tests/goldens/gguf/mixtures.json")).unwrap();
    let golden: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.len(), 9 * FILES.len() * 2);
    for of in golden {
        let (model, file, imatrix) =
            (of["model"].as_str().unwrap(), of["file"].as_str().unwrap(), of["imatrix"] == true);
        let (spec, gguf) = (spec(model), Gguf::file(file, imatrix).unwrap());
        let types = |key: &str| -> Vec<String> {
            let runs = of[key].as_str().unwrap_or("");
            let runs = runs.split(' ').filter_map(|run| run.split_once('*'));
            runs.flat_map(|(kind, n)| vec![kind.to_string(); n.parse().unwrap()]).collect()
        };
        if of.as_object().unwrap().values().any(|v| v.as_str().is_some_and(|v| v.contains("none"))) {
            // llama-quantize refuses to make it.
            assert_eq!(file, "q1_0");
            continue;
        }
        let name = |kind: Type| kind.name().to_string();
        assert_eq!(
            gguf.of_embedding(&spec).map(name),
            types("embed").first().cloned(),
            "{model} {file} {imatrix}"
        );
        if !spec.head.tied {
            let head = gguf.at(Site::end(Role::Head), &spec);
            assert_eq!(Some(name(head)), types("head").first().cloned(), "{model} {file} {imatrix}: head");
        }
        for (key, roles) in [
            ("attn.q", &[Role::Q][..]),
            ("attn.k", &[Role::K]),
            ("attn.v", if of["attn.q"].is_null() { &[Role::Q, Role::K, Role::V] } else { &[Role::V] }),
            ("attn.o", &[Role::O]),
            ("ffn.gate", &[Role::Gate]),
            ("ffn.up", &[Role::Up]),
            ("ffn.down", &[Role::Down]),
        ] {
            for (b, want) in types(key).into_iter().enumerate() {
                for role in roles {
                    let ffn = matches!(role, Role::Gate | Role::Up | Role::Down);
                    let expert =
                        (ffn && ["mixtral", "qwen3_moe"].contains(&model)).then_some(Expert::Routed(1));
                    let site = Site { expert, ..Site::new(b as u16, *role) };
                    assert_eq!(name(gguf.at(site, &spec)), want, "{model} {file} {imatrix}: {site}");
                }
            }
        }
    }
}

/// A file's embedding is rounded, and a tied head with it; `skip` leaves it; the size counts it.
#[test]
fn a_file_rounds_the_embedding_too() {
    let full = load::open("builtin:llama", Path::new(""), None).unwrap().load(&Device::Cpu).unwrap();
    let tokens: Vec<u32> = (0..40).map(|i| (i * i * 7 + i * 31 + 3) % 1024).collect();
    let text = |skip: &str| recipe(&format!("weights = {{ method = 'gguf', file = 'q8_0' }}\n{skip}"));
    let exact = full.embed.rows().unwrap();
    let whole = apply(&text(""), &full, 16, &[]).unwrap();
    let linears = apply(&text("skip = ['embed', 'head']"), &full, 16, &[]).unwrap();
    assert!(gap(&whole.decoder.embed.rows().unwrap(), &exact) > 0.);
    assert_eq!(gap(&linears.decoder.embed.rows().unwrap(), &exact), 0.);
    assert!(whole.sizes.size_mb < linears.sizes.size_mb, "{} {}", whole.sizes.size_mb, linears.sizes.size_mb);
    assert!(whole.sizes.notes.is_empty(), "{:?}", whole.sizes.notes);
    assert!(gap(&logits(&whole.decoder, &tokens), &logits(&full, &tokens)) > 0.);
}

/// Bits of a whole file over all parameters: what llama.cpp publishes for LLaMA-3.1-8B (`tools/quantize/README.md`).
#[test]
fn files_have_their_published_sizes() {
    let spec = spec("llama-3.1-8b");
    let published = [
        ("imatrix-iq1_s", 2.0042),
        ("imatrix-iq1_m", 2.1460),
        ("imatrix-iq2_xxs", 2.3824),
        ("imatrix-iq2_xs", 2.5882),
        ("imatrix-iq2_s", 2.7403),
        ("imatrix-iq2_m", 2.9294),
        ("imatrix-iq3_xxs", 3.2548),
        ("imatrix-iq3_xs", 3.4977),
        ("iq3_s", 3.6606),
        ("iq3_m", 3.7628),
        ("imatrix-q2_k_s", 2.9697),
        ("q2_k", 3.1593),
        ("q3_k_s", 3.6429),
        ("q3_k_m", 3.9960),
        ("q3_k_l", 4.2979),
        ("iq4_xs", 4.4597),
        ("iq4_nl", 4.6818),
        ("q4_k_s", 4.6672),
        ("q4_k_m", 4.8944),
        ("q5_k_s", 5.5704),
        ("q5_k_m", 5.7036),
        ("q6_k", 6.5633),
        ("q8_0", 8.5008),
    ];
    for (file, published) in published {
        let size = sizes(&Recipe::parse(file).unwrap(), &spec, 32).unwrap().size_mb;
        let bits = size * 8e6 / spec.count() as f64;
        assert!((bits - published).abs() < 2e-3, "{file}: {bits} bits, published {published}");
    }
}
