//! Quantizers, held to their authors' own code (`tests/make_quantizers.py` ran it) and to what must be true of any.
use crate::{
    common::repo,
    families::{self, Fixture, all, gap, logits},
};
use bitsweep::{
    model::{
        decoder::Decoder,
        load,
        ops::Precision,
        params::Slot,
        site::{Role, Site},
        spec::DecoderSpec,
    },
    quant::{
        apply::{At, Maker, apply},
        calibrate::{Bench, Inputs, Seen},
        grid::{Grid, levels::LEVELS},
        prepare::prune::Prune,
        recipe::{Recipe, Table},
        weight::{Given, Needs, Weights},
    },
};
use candle_core::{Device, Tensor, safetensors};
use std::{collections::HashMap, path::Path};

/// Linears of a block by the names that goldens have.
pub const ROLES: [(&str, Role); 7] = [
    ("q", Role::Q),
    ("k", Role::K),
    ("v", Role::V),
    ("o", Role::O),
    ("gate", Role::Gate),
    ("up", Role::Up),
    ("down", Role::Down),
];

type Golden = HashMap<String, Tensor>;

pub fn golden(path: &str) -> Golden {
    safetensors::load(repo(&format!("tests/goldens/{path}.safetensors")), &Device::Cpu).unwrap()
}

pub fn recipe(text: &str) -> Recipe {
    Recipe::from_table(toml::from_str::<Table>(&format!("name = 'x'\n{text}")).unwrap()).unwrap()
}

fn weights(table: &str) -> Weights {
    recipe(&format!("weights = {{ {table} }}")).weights.unwrap()
}

/// The share of values that differ by more than `within` of the matrix's largest.
fn differ(a: &Tensor, b: &Tensor, within: f32) -> f32 {
    let (a, b) = (
        a.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
        b.flatten_all().unwrap().to_vec1::<f32>().unwrap(),
    );
    assert_eq!(a.len(), b.len());
    let most = b.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.iter().zip(&b).filter(|(a, b)| (*a - *b).abs() > within * most).count() as f32 / a.len() as f32
}

fn round(weights: &Weights, w: &Tensor, seen: &Seen) -> Tensor {
    let (spec, site) = (tiny(), Site::new(0, Role::Up));
    let given =
        Given { site, spec: &spec, grid: &weights.grid, seen, gradients: None, precision: Precision::F32 };
    weights.round(w, &given).unwrap().weight
}

pub fn tiny() -> DecoderSpec {
    load::open("builtin:llama", Path::new(""), None).unwrap().spec
}

/// What a matrix loses in its own metric: `sum (w - q) H (w - q)^T`.
pub fn lost(w: &Tensor, q: &Tensor, h: &Tensor) -> f32 {
    let d = (w - q).unwrap();
    (d.matmul(h).unwrap() * d).unwrap().sum_all().unwrap().to_scalar().unwrap()
}

const GPTQ: [(&str, &str); 11] = [
    ("w4-row", "bits = 4, per = 'row'"),
    ("w3-g40", "bits = 3, group = 40"),
    ("w2-g64", "bits = 2, group = 64"),
    ("w4-g40-order", "bits = 4, group = 40, act_order = true"),
    ("w4-g40-order-static", "bits = 4, group = 40, act_order = true, static_groups = true"),
    ("w3-g40-static", "bits = 3, group = 40, static_groups = true, damp = 0.1"),
    ("w4-row-sym", "bits = 4, per = 'row', symmetric = true"),
    ("w4-row-order", "bits = 4, per = 'row', act_order = true"),
    ("w4-row-mse", "bits = 4, per = 'row', search = 'mse'"),
    ("w3-g40-sym-mse", "bits = 3, group = 40, symmetric = true, search = 'mse'"),
    ("w8-row", "bits = 8, per = 'row'"),
];

/// Rounding to nearest is the authors', code for code. GPTQ's factors are f32 with them and f64 here: where a value lies at
/// the edge between two codes, one goes the other way, and what it loses goes to the columns after it. So: nearly all values
/// equal, and the loss in GPTQ's own metric the same.
#[test]
fn gptq_is_the_authors() {
    let all = golden("gptq/layer");
    let (w, h) = (&all["weight"], all["hessian"].clone());
    let seen = Seen { tokens: 512, hessian: Some(h.clone()), ..Seen::default() };
    for (name, table) in GPTQ {
        let nearest: String = table
            .split(", ")
            .filter(|key| !["damp", "act_order", "static_groups"].iter().any(|own| key.starts_with(own)))
            .collect::<Vec<_>>()
            .join(", ");
        let rtn =
            round(&weights(&format!("method = 'rtn', zero = 'in-range', {nearest}")), w, &Seen::default());
        let theirs = &all[&format!("rtn-{name}")];
        let off = differ(&rtn, theirs, 1e-5);
        assert!(
            off <= if name.contains("mse") { 0.02 } else { 0. },
            "rtn {name}: {off} of all values differ"
        );

        let ours = round(&weights(&format!("method = 'gptq', {table}")), w, &seen);
        let off = differ(&ours, &all[name], 1e-4);
        let (mine, want, plain) = (lost(w, &ours, &h), lost(w, &all[name], &h), lost(w, &rtn, &h));
        println!("gptq {name}: {off} differ, lost {mine} ({want} theirs, {plain} nearest)");
        assert!(off < 0.03, "{name}: {off} of all values differ");
        assert!((mine - want).abs() < 0.02 * want, "{name}: {mine}, not {want}");
        assert!(mine < plain, "{name}: {mine} against {plain} of rounding to nearest");
    }
}

/// As GPTQ's: where a value lies at the edge between two codes, or its loss at the threshold, factors in f64 send it the other way.
/// Outliers are held in 16 bits here, in f32 there.
#[test]
fn spqr_is_the_authors() {
    let all = golden("spqr/layer");
    let (w, h) = (&all["weight"], all["hessian"].clone());
    let seen = Seen { tokens: 512, hessian: Some(h.clone()), ..Seen::default() };
    for (name, table) in [
        ("w3-g16", "bits = 3"),
        ("w4-g16-order", "bits = 4, threshold = 0.05, act_order = true"),
        ("w2-g32", "bits = 2, group = 32, threshold = 0.5, damp = 0.1"),
        ("w3-g16-none", "bits = 3, threshold = 1e30"),
    ] {
        let method = weights(&format!("method = 'spqr', {table}"));
        let (spec, site) = (tiny(), Site::new(0, Role::Up));
        let given = Given {
            site,
            spec: &spec,
            grid: &method.grid,
            seen: &seen,
            gradients: None,
            precision: Precision::F32,
        };
        let ours = method.rounder().round(w, &given).unwrap();
        let off = differ(&ours.weight, &all[name], 1e-3);
        let (mine, want) = (lost(w, &ours.weight, &h), lost(w, &all[name], &h));
        let outliers = all[&format!("{name}-outliers")].to_vec1::<f32>().unwrap()[0];
        let keys =
            table.split(", ").filter(|key| !key.starts_with("threshold")).collect::<Vec<_>>().join(", ");
        let plain = weights(&format!("method = 'spqr', threshold = 1e30, {keys}"));
        let dense = plain.rounder().round(w, &given).unwrap().bits.unwrap();
        println!("spqr {name}: {off} differ, lost {mine} ({want} theirs), {outliers} outliers");
        let kept = (ours.bits.unwrap() - dense) / 32.;
        assert!(
            (kept - f64::from(outliers)).abs() <= 0.04 * f64::from(outliers),
            "{name}: {kept} outliers, not {outliers}"
        );
        assert!(off < 0.02, "{name}: {off} of all values differ");
        assert!((mine - want).abs() < 0.02 * want, "{name}: {mine}, not {want}");
    }
}

#[test]
fn owq_is_the_authors() {
    let all = golden("owq/layer");
    let (w, h) = (&all["weight"], all["hessian"].clone());
    let seen = Seen { tokens: 512, hessian: Some(h.clone()), ..Seen::default() };
    for (name, table) in [
        ("w3-row", "bits = 3, share = 0.01"),
        ("w4-row-order", "bits = 4, share = 0.03, act_order = true"),
        ("w3-g40", "bits = 3, group = 40, share = 0.02, damp = 0.05"),
    ] {
        let ours = round(&weights(&format!("method = 'owq', {table}")), w, &seen);
        let off = differ(&ours, &all[name], 1e-3);
        let (mine, want) = (lost(w, &ours, &h), lost(w, &all[name], &h));
        println!("owq {name}: {off} differ, lost {mine} ({want} theirs)");
        assert!(off < 0.02, "{name}: {off} of all values differ");
        assert!((mine - want).abs() < 0.02 * want, "{name}: {mine}, not {want}");
    }
}

/// The corrected matrix; singular vectors are f64 here, so a code of `A` or `B` may be another here and there.
#[test]
fn lqer_is_the_authors() {
    let all = golden("lqer/layer");
    let (w, nearest) = (&all["weight"], &all["nearest"]);
    let magnitude = all["magnitude"].to_vec1::<f32>().unwrap().iter().map(|m| f64::from(*m)).collect();
    let seen = Seen { tokens: 512, magnitude, ..Seen::default() };
    for (name, table) in [
        ("activations-8", "rank = 8"),
        ("activations-20", "rank = 20"),
        ("error-8", "rank = 8, by = 'error'"),
    ] {
        let method = weights(&format!("method = 'rtn', bits = 3, correct = {{ {table} }}"));
        let (spec, site) = (tiny(), Site::new(0, Role::Up));
        let given = Given {
            site,
            spec: &spec,
            grid: &method.grid,
            seen: &seen,
            gradients: None,
            precision: Precision::F32,
        };
        let correct = method.correct.as_ref().unwrap();
        let ours = (nearest + correct.of(w, nearest, &given).unwrap()).unwrap();
        let off = differ(&ours, &all[name], 1e-4);
        println!("lqer {name}: {off} differ");
        assert!(off < 0.02, "{name}: {off} of all values differ");
        let before = (w - nearest).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        let after = (w - &ours).unwrap().sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(name != "error-8" || after < 0.8 * before, "{after} of {before}");
        // A matrix that had its correction is nearer in what is asked of it, and the bits are counted.
        let whole = method.round(w, &given).unwrap().weight;
        let plain = round(&weights("method = 'rtn', bits = 3"), w, &seen);
        assert!(differ(&whole, &plain, 1e-4) > 0.5, "{name}");
        let rank = correct.rank as f64;
        let bits = method.bits((32, 208), (site, &spec))
            - weights("method = 'rtn', bits = 3").bits((32, 208), (site, &spec));
        assert_eq!(bits, rank * (8. * 240. + 16. * 15.), "{name}");
    }
}

#[test]
fn omniquants_grid_is_the_authors() {
    let all = golden("omniquant/quantizer");
    for bits in [2, 3, 4, 8] {
        for (group, per) in [("row", "per = 'row'"), ("32", "group = 32")] {
            for (sym, symmetric) in [("", false), ("-sym", true)] {
                let table =
                    format!("method = 'rtn', bits = {bits}, zero = 'free', symmetric = {symmetric}, {per}");
                let ours = round(&weights(&table), &all["weight"], &Seen::default());
                assert_eq!(
                    differ(&ours, &all[&format!("w{bits}-{group}{sym}")], 1e-6),
                    0.,
                    "w{bits} {group}{sym}"
                );
            }
        }
    }
}

/// Means are summed in another order than torch's, so a zero point moves in its last bits, and a value at the edge between two
/// codes may go the other way.
#[test]
fn hqq_is_the_authors() {
    let all = golden("hqq/layer");
    for bits in [2, 3, 4, 8] {
        for group in [32, 64] {
            let ours = round(
                &weights(&format!("method = 'hqq', bits = {bits}, group = {group}")),
                &all["weight"],
                &Seen::default(),
            );
            let off = differ(&ours, &all[&format!("w{bits}-g{group}")], 1e-4);
            println!("hqq w{bits} g{group}: {off}");
            assert!(off < 0.01, "w{bits} g{group}: {off} of all values differ");
        }
    }
}

/// Bit for bit, but for the products with a scale that is rounded elsewhere.
#[test]
fn small_floats_and_tables_are_the_authors() {
    let mut all = golden("mx/formats");
    let tables = golden("bitsandbytes/formats");
    let (w, many) = (all["weight"].clone(), tables["many"].clone());
    all.extend(tables);
    let mut held = 0;
    for levels in LEVELS {
        let Some(want) = all.get(levels.name) else { continue };
        let w = if levels.name.ends_with("-double") { &many } else { &w };
        let ours = Grid::named(levels.name).unwrap().round(w, Precision::F32).unwrap();
        let (ours, want) = (ours.to_vec2::<f32>().unwrap(), want.to_vec2::<f32>().unwrap());
        for (r, (a, b)) in ours.iter().zip(&want).enumerate() {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                assert!((a - b).abs() <= 2e-6 * b.abs(), "{} [{r}, {i}]: {a}, not {b}", levels.name);
            }
        }
        held += 1;
    }
    assert_eq!(held, 13);
}

/// One block's norms and matrices by the names that the goldens have.
/// A token at a time, as bitsandbytes' decomposition is where it is given one token.
#[test]
fn llm_int8_is_bitsandbytes() {
    let all = golden("llm_int8/tokens");
    let acts = recipe("acts = { bits = 8, symmetric = true, threshold = 6.0 }").acts.unwrap();
    let got = acts.map(Precision::F32, None).unwrap().map(&all["x"]).unwrap();
    // A code at the edge between two goes either way: they multiply by 127 / max, here x is divided by max / 127.
    assert!(differ(&got, &all["y"], 1e-6) < 0.005, "{}", differ(&got, &all["y"], 1e-6));
    let exact = all["x"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let got = got.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let large = exact.iter().zip(&got).filter(|(x, _)| x.abs() >= 6.);
    assert!(large.clone().count() > 12 && large.clone().all(|(x, y)| x == y));
}

fn part(decoder: &Decoder, b: usize, name: &str) -> Option<Tensor> {
    let block = &decoder.blocks[b];
    let (what, key) = name.split_once('.')?;
    if let Some(slot) = match what {
        "norm1" => Some(Slot::Mixer),
        "norm2" => Some(Slot::Ffn),
        _ => None,
    } {
        let (scale, shift) = block.norms[&slot].params();
        return if key == "weight" { scale.cloned() } else { shift.cloned() };
    }
    let role = ROLES.into_iter().find(|(name, _)| *name == what)?.1;
    let linear = &block.linears[&(None, role)];
    if key == "weight" { Some(linear.weight.rows().unwrap()) } else { linear.bias.clone() }
}

/// A fixture with the golden's parameters, as they were before.
pub fn planted(fixture: &str, all: &Golden) -> Fixture {
    let mut f = families::load(&repo("tests/fixtures").join(fixture)).unwrap();
    let spec = f.spec.clone();
    let old = f.decoder.clone();
    let opened = bitsweep::model::decoder::Decoder::build(spec, &Device::Cpu, true, |param, shape| {
        use bitsweep::model::spec::{Half, Param};
        let name = match param {
            Param::Weight(s) | Param::Bias(s) if s.block.is_some() => {
                let role = match s.role {
                    Role::Q => "q",
                    Role::K => "k",
                    Role::V => "v",
                    Role::O => "o",
                    Role::Gate => "gate",
                    Role::Up => "up",
                    Role::Down => "down",
                    _ => "none",
                };
                let key = if matches!(param, Param::Weight(_)) { "weight" } else { "bias" };
                Some(format!("before.{}.{role}.{key}", s.block.unwrap()))
            }
            Param::Norm(b, slot, half) => {
                let slot = if slot == Slot::Mixer { "norm1" } else { "norm2" };
                Some(format!("before.{b}.{slot}.{}", if half == Half::Scale { "weight" } else { "bias" }))
            }
            _ => None,
        };
        Ok(match name {
            Some(name) => all[&name].clone(),
            None => match param {
                Param::Embed => old.embed.rows()?,
                Param::Positions => old.positions.clone().unwrap(),
                Param::FinalNorm(Half::Scale) => old.norm.as_ref().unwrap().params().0.unwrap().clone(),
                Param::FinalNorm(Half::Shift) => old.norm.as_ref().unwrap().params().1.unwrap().clone(),
                Param::Weight(s) => old.ends[&s.role].weight.rows()?,
                other => panic!("{other:?} {shape:?}"),
            },
        })
    });
    f.decoder = opened.unwrap();
    f
}

pub fn texts(all: &Golden) -> Vec<Vec<u32>> {
    let rows = all["tokens"].to_vec2::<i64>().unwrap();
    rows.into_iter().map(|row| row.into_iter().map(|t| t as u32).collect()).collect()
}

/// Blocks after a recipe's preparation alone.
fn prepared(text: &str, f: &Fixture, texts: &[Vec<u32>], skip: bool) -> Decoder {
    let mut r = recipe(text);
    if skip {
        // Nothing is rounded; what prepares has looked at what would be.
        r.skip = vec!["*".into()];
    }
    apply(&r, &f.decoder, 32, texts).unwrap().decoder
}

fn compare(name: &str, decoder: &Decoder, all: &Golden, within: f32, unlike: f32) {
    let mut wrong = Vec::new();
    for (key, want) in all.iter().filter(|(k, _)| k.starts_with("after.")) {
        let rest = &key["after.".len()..];
        let (b, rest) = rest.split_once('.').unwrap();
        let got = part(decoder, b.parse().unwrap(), rest).unwrap();
        let off = differ(&got, want, within);
        if off > unlike {
            wrong.push(format!("{name} {key}: {off} of all values differ by more than {within}"));
        }
    }
    wrong.sort();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The same numbers, to what f32 sums of activations in another order leave of a maximum's power.
#[test]
fn smoothquant_is_the_authors() {
    for name in ["llama/mha-untied", "llama/gqa-tied", "opt/125m"] {
        let all = golden(&format!("smoothquant/{}", name.replace('/', "-")));
        let f = planted(name, &all);
        let alpha = all["alpha"].to_vec1::<f32>().unwrap()[0];
        let text = format!("prepare = [{{ method = 'smoothquant', alpha = {alpha} }}]");
        compare(name, &prepared(&text, &f, &texts(&all), false), &all, 2e-5, 0.);
    }
}

/// The same search finds the same scales in every group of both blocks. Where two ranges to clip to are as good as each other,
/// an error that is summed in another order picks the other: at most one value in fifty.
#[test]
fn awq_is_the_authors() {
    for name in ["llama/mha-untied", "llama/gqa-tied", "opt/125m"] {
        let all = golden(&format!("awq/{}", name.replace('/', "-")));
        let f = planted(name, &all);
        let settings = all["settings"].to_vec1::<i64>().unwrap();

        let grid = format!("bits = {}, group = {}", settings[0], settings[1]);
        let texts = texts(&all);
        let r = recipe(&format!("prepare = [{{ method = 'awq' }}]\nweights = {{ method = 'rtn', {grid} }}"));
        let decoder = apply(&r, &f.decoder, 32, &texts).unwrap().decoder;
        // Norms hold nothing but the inverse of the scales.
        let scaled = unrounded(&r, &f, &texts);
        let norms =
            all.iter().filter(|(k, _)| k.contains("norm")).map(|(k, v)| (k.clone(), v.clone())).collect();
        compare(&format!("{name}, scales"), &scaled, &norms, 2e-5, 0.);
        // What is left to do with theirs is to round it.
        let rounder = r.weights.as_ref().unwrap();
        let rounded: Golden = all
            .iter()
            .filter(|(k, _)| k.starts_with("after."))
            .map(|(k, v)| {
                let matrix = v.dims().len() == 2;
                (k.clone(), if matrix { round(rounder, v, &Seen::default()) } else { v.clone() })
            })
            .collect();
        compare(name, &decoder, &rounded, 2e-5, 0.02);
    }
}

/// Thresholds, and so scales and shifts, are the authors' in every norm of both blocks, for attention's outputs, gated ones and OPT's.
#[test]
fn osplus_is_the_authors() {
    for name in ["llama/mha-untied", "llama/gqa-tied", "opt/125m"] {
        let all = golden(&format!("osplus/{}", name.replace('/', "-")));
        let f = planted(name, &all);
        let bits = all["bits"].to_vec1::<i64>().unwrap()[0];
        let r = recipe(&format!(
            "prepare = [{{ method = 'osplus', down = {} }}]\nweights = {{ method = 'rtn', bits = {bits}, per = 'row', zero = 'in-range' }}\n\
             acts = {{ bits = {bits}, zero = 'in-range' }}",
            name != "llama/gqa-tied"
        ));
        compare(name, &unrounded(&r, &f, &texts(&all)), &all, 2e-5, 0.);
    }
}

/// Thresholds, cut and joined channels, weights and inputs are the authors', for what norms feed and what enters the last linear.
#[test]
fn qllm_is_the_authors() {
    for name in ["llama/mha-untied", "llama/gqa-tied"] {
        let all = golden(&format!("qllm/{}", name.replace('/', "-")));
        let f = planted(name, &all);
        let settings = all["settings"].to_vec1::<f32>().unwrap();
        let r = recipe(&format!(
            "prepare = [{{ method = 'qllm', ratio = {1} }}]\nweights = {{ method = 'rtn', bits = {0}, per = 'row', zero = 'free' }}\n\
             acts = {{ bits = {0}, zero = 'free' }}",
            settings[0], settings[1]
        ));
        let decoder = cut(&r, &f, &texts(&all));
        compare(name, &decoder, &all, 2e-5, 0.);
        for (key, x) in all.iter().filter(|(key, _)| key.starts_with("x.")) {
            let parts: Vec<&str> = key.split('.').collect();
            let role = match parts[2] {
                "qkv" => Role::Q,
                "mlp" => Role::Gate,
                _ => Role::Down,
            };
            let linear = &decoder.blocks[parts[1].parse::<usize>().unwrap()].linears[&(None, role)];
            let turned = linear.turn.as_ref().unwrap().map(x).unwrap();
            let off = differ(&turned, &all[&format!("turned.{}.{}", parts[1], parts[2])], 2e-5);
            assert_eq!(off, 0., "{name} {key}");
        }
    }
}

/// What a recipe's first rewriting cuts off, before anything is rounded.
fn cut(r: &Recipe, f: &Fixture, texts: &[Vec<u32>]) -> Decoder {
    let mut decoder = f.decoder.clone();
    let mut bench = Bench::new(texts, &[Inputs::Full]);
    bench.enter(&f.decoder, &f.decoder).unwrap();
    let input = r.acts.as_ref().unwrap().map(Precision::F32, None).unwrap();
    for (block, new) in f.decoder.blocks.iter().zip(&mut decoder.blocks) {
        let at = At {
            spec: &f.spec,
            recipe: r,
            runner: &f.decoder,
            bench: Some(&bench),
            inputs: Inputs::Full,
            chosen: &|_| true,
            input: Some(&*input),
        };
        r.prepare[0].transform().cut(new, &at).unwrap();
        bench.advance(&f.decoder, block, block).unwrap();
    }
    decoder
}

/// Calibration texts of a fixture's vocabulary.
pub fn some_texts(spec: &DecoderSpec) -> Vec<Vec<u32>> {
    let length = spec.longest().unwrap_or(24).min(24);
    (0..6).map(|s| (0..length).map(|i| ((i * 7 + s * 13 + i * i) % spec.vocab) as u32).collect()).collect()
}

const KEEP: [&str; 8] = [
    "prepare = [{ method = 'osplus' }]\nweights = { method = 'rtn', bits = 6, per = 'row' }\nacts = { bits = 6 }",
    "prepare = [{ method = 'rotate' }]",
    "prepare = [{ method = 'rotate', online = false }, { method = 'smoothquant' }]",
    "prepare = [{ method = 'smoothquant' }]",
    "prepare = [{ method = 'smoothquant', alpha = 'search' }]\nweights = { method = 'rtn', bits = 8 }\nacts = { bits = 8 }",
    "prepare = [{ method = 'awq', clip = false }]\nweights = { method = 'rtn', bits = 4, group = 8 }",
    "prepare = [{ method = 'rotate' }, { method = 'awq', clip = false }]\nweights = { method = 'rtn', bits = 4, group = 8 }",
    "prepare = [{ method = 'awq', clip = false }, { method = 'rotate' }]\nweights = { method = 'rtn', bits = 4, group = 8 }",
];

/// A rewriting that claims to change nothing changes nothing, on every family that it fits.
#[test]
fn rewriting_keeps_the_function() {
    for text in KEEP {
        let r = recipe(text);
        let mut fits = 0;
        for f in all() {
            if r.unfit(&f.spec).is_some() {
                continue;
            }
            fits += 1;
            let mut only = r.clone();
            only.weights = None;
            only.acts = None;
            let texts = some_texts(&f.spec);
            // With the weights left out, AWQ has nothing to search for: so round none of them instead.
            let keep = match ["awq", "search", "osplus"].iter().any(|tries| text.contains(tries)) {
                true => unrounded(&r, &f, &texts),
                false => apply(&only, &f.decoder, 32, &texts).unwrap().decoder,
            };
            let (was, is) = (logits(&f.decoder, &f.tokens), logits(&keep, &f.tokens));
            let size = was.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let off = gap(&was, &is);
            assert!(off < 1e-4 * size.max(1.), "{text}\n{}: {off} of {size}", f.name);
        }
        assert!(fits > 20, "{text}: {fits}");
    }
}

/// A recipe's rewriting as it would be, with nothing rounded after it.
pub fn unrounded(r: &Recipe, f: &Fixture, texts: &[Vec<u32>]) -> Decoder {
    let mut maker = Maker::new(r, &f.spec, texts).unwrap();
    let mut decoder = maker.ends(&f.decoder).unwrap();
    maker.enter(&f.decoder, &decoder).unwrap();
    let only = Recipe { weights: None, acts: None, ..r.clone() };
    let only =
        Recipe { prepare: r.prepare.iter().filter(|p| !p.transform().tries()).cloned().collect(), ..only };
    decoder.ends = Maker::new(&only, &f.spec, texts).unwrap().ends(&f.decoder).unwrap().ends;
    for block in &f.decoder.blocks {
        let block = maker.prepared(block, &decoder).unwrap();
        decoder.blocks.push(block);
    }
    decoder
}

/// GPTQ's loss is below rounding's in its own metric, on every linear of the built-in model and of every family.
#[test]
fn gptq_beats_nearest_on_every_layer() {
    let grid = "bits = 3, group = 16, zero = 'in-range'";
    let (gptq, rtn) =
        (weights(&format!("method = 'gptq', {grid}")), weights(&format!("method = 'rtn', {grid}")));
    for f in all() {
        let texts = some_texts(&f.spec);
        let mut bench = Bench::new(&texts, &[Inputs::Full]);
        bench.enter(&f.decoder, &f.decoder).unwrap();
        let needs = Needs { hessian: true, ..Needs::NOTHING };
        let (mut ours, mut plain) = (0., 0.);
        for block in &f.decoder.blocks {
            let seen = bench.watch(&f.decoder, block, Inputs::Full, needs, &|_| true).unwrap();
            for linear in block.linears.values() {
                let Some(seen) = seen.get(&linear.site) else { continue };
                let (w, h) = (linear.weight.rows().unwrap(), seen.hessian.clone().unwrap());
                let (a, b) = (lost(&w, &round(&gptq, &w, seen), &h), lost(&w, &round(&rtn, &w, seen), &h));
                // An expert that few tokens reached has little to gain, and damping may cost more than that.
                let most = if linear.site.expert.is_some() { 1.02 * b } else { b };
                assert!(a <= most, "{} {}: {a} against {b}", f.name, linear.site);
                (ours, plain) = (ours + a, plain + b);
            }
            bench.advance(&f.decoder, block, block).unwrap();
        }
        assert!(ours < 0.95 * plain, "{}: {ours} against {plain}", f.name);
    }
}

/// Threads, and how texts are packed into passes, move no bit of a calibrated model.
#[test]
fn calibration_moves_no_bit() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let r = recipe(
        "prepare = [{ method = 'awq' }, { method = 'smoothquant' }]\nweights = { method = 'gptq', bits = 3, sequential = true, correct = { rank = 6 } }",
    );
    let texts: Vec<Vec<u32>> =
        (0..4).map(|s| (0..100).map(|i| ((i * 31 + s * 17 + i * i * 7) % 1024) as u32).collect()).collect();
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let q = pool.install(|| apply(&r, &full, 16, &texts).unwrap());
        logits(&q.decoder, &texts[0]).to_vec2::<f32>().unwrap()
    };
    let one = with(1);
    assert!(one.iter().flatten().all(|x| x.is_finite()));
    assert!(with(2) == one && with(3) == one);
}

#[test]
fn pruning_is_the_papers() {
    let all = golden("prune/layer");
    let power = all["power"].to_vec1::<f32>().unwrap();
    for by in ["magnitude", "wanda"] {
        for (name, key) in [("0.6", "share = 0.6"), ("2:4", "pattern = '2:4'")] {
            let prune: Prune = toml::from_str(&format!("by = '{by}'\n{key}")).unwrap();
            let mut w = all["weight"].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            prune.pruned(&mut w, 104, &power);
            let want = all[&format!("{by}-{name}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert!(w == want, "{by} {name}");
        }
    }
}

/// A Hessian that no damping asked for makes positive definite is damped more, and it is said; inputs that are no numbers are
/// an error.
#[test]
fn hessians_that_are_none() {
    let w =
        Tensor::from_vec((0..32).map(|i| (i as f32 * 0.7).sin()).collect::<Vec<_>>(), (4, 8), &Device::Cpu)
            .unwrap();
    let (spec, site) = (tiny(), Site::new(0, Role::Up));
    let gptq = weights("method = 'gptq', bits = 3, group = 4");
    let with = |h: Vec<f32>| {
        let hessian = Some(Tensor::from_vec(h, (8, 8), &Device::Cpu).unwrap());
        let seen = Seen { tokens: 9, hessian, ..Seen::default() };
        let given = Given {
            site,
            spec: &spec,
            grid: &gptq.grid,
            seen: &seen,
            gradients: None,
            precision: Precision::F32,
        };
        gptq.rounder().round(&w, &given)
    };
    let eye = |d: f32, rest: f32| (0..64).map(|i| if i % 9 == 0 { d } else { rest }).collect::<Vec<_>>();
    let indefinite = with(eye(1., -0.9)).unwrap();
    assert!(indefinite.note.unwrap().contains("damped by"));
    assert!(indefinite.weight.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|x| x.is_finite()));
    assert!(with(eye(0., 0.)).unwrap().note.is_none());
    assert!(with(eye(1e30, 0.)).unwrap().note.is_none());
    assert!(format!("{:#}", with(eye(f32::NAN, 0.)).err().unwrap()).contains("not finite"));
    let nothing = Seen::default();
    let given = Given {
        site,
        spec: &spec,
        grid: &gptq.grid,
        seen: &nothing,
        gradients: None,
        precision: Precision::F32,
    };
    assert!(gptq.rounder().round(&w, &given).unwrap().note.unwrap().contains("no calibration token"));
}
