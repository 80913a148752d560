//! QuaRot, held to its authors' code on whole models (`tests/make_quarot.py`): rotated weights, and logits of what is rounded after.
use crate::{
    common::repo,
    families::{self, gap, logits},
    methods::{golden, recipe},
};
use bitsweep::{
    model::{params::Slot, site::Role},
    quant::{
        apply::apply,
        prepare::{Prepare, rotate::Rotate},
        recipe::Recipe,
    },
    tensor::hadamard::Hadamard,
};
use candle_core::{Device, Tensor, safetensors};

/// `y = x H^T` there; multiples of 40 have another basis here.
#[test]
fn hadamard_matrices_are_quarots() {
    let all = golden("quarot/hadamard");
    let mut held = 0;
    for (name, x) in all.iter().filter(|(name, _)| name.starts_with("x-")) {
        let n: usize = name[2..].parse().unwrap();
        if n.is_multiple_of(40) {
            continue;
        }
        let h = Hadamard::new(n);
        assert!(h.is_flat(), "{n}");
        for (of, undo) in [("y", false), ("t", true)] {
            let want = all[&format!("{of}-{n}")].flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let mut rows = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for row in rows.chunks_exact_mut(n) {
                if undo { h.undo(row) } else { h.apply(row) }
            }
            let off = rows.iter().zip(&want).map(|(a, b)| (a - b).abs()).fold(0., f32::max);
            assert!(off < 5e-5, "{of}-{n}: {off}");
        }
        held += 1;
    }
    assert!(held > 10, "{held}");
}

/// What a recipe says, after the golden's own rotation.
fn rotated(text: &str, signs: &[f32]) -> Recipe {
    let mut r = recipe(text);
    r.prepare.push(Prepare::Rotate(Rotate { signs: Some(signs.to_vec()), ..Rotate::default() }));
    r
}

/// Their code rounds as papers' tables say; what no value of theirs lies at the edge of was checked in f64.
#[test]
fn quarot_is_the_authors() {
    let clipped = "weights = { method = 'rtn', bits = 4, per = 'row', symmetric = true, search = 'mse' }";
    let kv = |clip: &str| {
        format!(
            "kv = {{ bits = 4, keys = {{ zero = 'in-range'{clip} }}, values = {{ zero = 'free'{clip} }} }}"
        )
    };
    let acts = "acts = { bits = 4, symmetric = true, clip = 0.9 }";
    let cases = [
        ("rotated", "weights = { method = 'gguf', type = 'q4_k' }\nskip = ['*']".to_string()),
        ("w4", "weights = { method = 'rtn', bits = 4, per = 'row', symmetric = true }".into()),
        ("w4-asym", "weights = { method = 'rtn', bits = 4, per = 'row', zero = 'in-range' }".into()),
        ("w4-clip", clipped.into()),
        (
            "w4-asym-clip",
            "weights = { method = 'rtn', bits = 4, per = 'row', zero = 'in-range', search = 'mse' }".into(),
        ),
        ("a4", "acts = { bits = 4, symmetric = true }".into()),
        ("a4-clip", acts.into()),
        ("a4-asym", "acts = { bits = 4, zero = 'in-range' }".into()),
        ("kv4", kv("")),
        ("kv4-clip", kv(", clip = 0.95")),
        ("w4a4kv4", format!("{clipped}\n{acts}\n{}", kv(", clip = 0.95"))),
    ];
    for model in ["sylvester", "paley"] {
        let dir = repo("tests/goldens/quarot").join(model);
        let f = families::load(&dir).unwrap();
        let all = safetensors::load(dir.join("expected.safetensors"), &Device::Cpu).unwrap();
        let signs = all["signs"].to_vec1::<f32>().unwrap();
        let full = gap(&logits(&f.decoder, &f.tokens), &all["logits"]);
        assert!(full < 1e-4, "{model}: {full}");
        let mut held = 0;
        for (name, text) in &cases {
            let Some(want) = all.get(*name) else { continue };
            let q = apply(&rotated(text, &signs), &f.decoder, 16, &[]).unwrap().decoder;
            let (off, moved) = (gap(&logits(&q, &f.tokens), want), gap(&all["logits"], want));
            println!("{model} {name}: {off} (rounding moves {moved})");
            assert!(off < 2e-4, "{model} {name}: {off}");
            assert!(*name == "rotated" || moved > 0.1, "{model} {name}: {moved}");
            held += 1;
        }
        assert!(held >= 5, "{model}: {held}");
        let turned = apply(&rotated(&cases[0].1, &signs), &f.decoder, 16, &[]).unwrap().decoder;
        let weight = |name: &str| all.get(&format!("rotated.model.layers.0.{name}.weight"));
        for (name, role) in [
            ("self_attn.q_proj", Role::Q),
            ("self_attn.k_proj", Role::K),
            ("self_attn.v_proj", Role::V),
            ("self_attn.o_proj", Role::O),
            ("mlp.gate_proj", Role::Gate),
            ("mlp.up_proj", Role::Up),
            ("mlp.down_proj", Role::Down),
        ] {
            let Some(want) = weight(name) else { continue };
            let off = gap(&turned.blocks[0].linears[&(None, role)].weight.rows().unwrap(), want);
            assert!(off < 1e-5, "{model} {name}: {off}");
        }
        assert!(turned.blocks[0].norms[&Slot::Mixer].params().0.is_none());
    }
}

/// Another rotation is another basis, and the same function.
#[test]
fn signs_are_drawn_from_the_seed() {
    let f = families::load(&repo("tests/goldens/quarot/paley")).unwrap();
    let with = |seed: u64| -> Tensor {
        let r = recipe(&format!("prepare = [{{ method = 'rotate', seed = {seed} }}]"));
        apply(&r, &f.decoder, 16, &[]).unwrap().decoder.embed.rows().unwrap()
    };
    assert!(gap(&with(0), &with(0)) == 0. && gap(&with(0), &with(1)) > 0.01);
}
