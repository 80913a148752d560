//! Squared gradients of a model's loss, held to PyTorch's, and what methods do with them.
use crate::{
    families::{all, gap, logits},
    methods::{ROLES, golden, planted, recipe, some_texts, texts},
};
use bitsweep::{
    model::{ops::Precision, site::Role},
    quant::{apply::apply, fisher::squares},
};
use candle_core::Tensor;

#[test]
fn squares_are_pytorchs() {
    for name in ["llama/gqa-tied", "opt/125m"] {
        let all = golden(&format!("fisher/{}", name.replace('/', "-")));
        let f = planted(name, &all);
        let found = squares(&f.decoder, &texts(&all)).unwrap();
        let mut held = 0;
        for (site, ours) in &found {
            let role = ROLES.iter().find(|(_, role)| *role == site.role).unwrap().0;
            let want = &all[&format!("squares.{}.{role}", site.block.unwrap())];
            let most = want.max_all().unwrap().to_scalar::<f32>().unwrap();
            let off = gap(ours, want) / most;
            assert!(off < 1e-4, "{name} {site}: {off}");
            held += 1;
        }
        assert_eq!(held, all.keys().filter(|k| k.starts_with("squares.")).count(), "{name}");
    }
}

/// Every family has them, of all its linears that a token came by; and methods that ask are nearer in them than those that do not.
#[test]
fn every_family_has_them() {
    for f in all() {
        let texts = some_texts(&f.spec);
        let means = squares(&f.decoder, &texts).unwrap();
        let linears = f.decoder.blocks.iter().flat_map(|b| b.linears.values());
        let missing = linears
            .filter(|l| l.site.expert.is_none() && l.site.role != Role::Router)
            .filter(|l| !means.contains_key(&l.site))
            .count();
        assert_eq!(missing, 0, "{}", f.name);
        let lost = |table: &str| -> f32 {
            let q =
                apply(&recipe(&format!("weights = {{ {table} }}")), &f.decoder, 32, &texts).unwrap().decoder;
            let sum: f32 = logits(&q, &f.tokens).sum_all().unwrap().to_scalar().unwrap();
            assert!(sum.is_finite(), "{} {table}", f.name);
            let mut lost = 0.;
            for (full, block) in f.decoder.blocks.iter().zip(&q.blocks) {
                for (key, linear) in &block.linears {
                    let Some(squares) = means.get(&linear.site) else { continue };
                    let d =
                        (full.linears[key].weight.rows().unwrap() - linear.weight.rows().unwrap()).unwrap();
                    let each = (d.sqr().unwrap() * squares).unwrap().sum_all().unwrap();
                    lost += each.to_scalar::<f32>().unwrap();
                }
            }
            lost
        };
        let plain = lost("method = 'kmeans', bits = 2");
        assert!(lost("method = 'kmeans', bits = 2, sensitivity = 'gradients'") < 0.9 * plain, "{}", f.name);
    }
}

/// What means most stays, in 16 bits, and all else is rounded.
#[test]
fn what_means_most_is_kept() {
    let all = golden("fisher/llama-gqa-tied");
    let f = planted("llama/gqa-tied", &all);
    let r = recipe(
        "weights = { method = 'rtn', bits = 2, group = 8, keep = { share = 0.05, by = 'gradients' } }",
    );
    let q = apply(&r, &f.decoder, 32, &texts(&all)).unwrap().decoder;
    for (full, block) in f.decoder.blocks.iter().zip(&q.blocks) {
        for (key, linear) in &block.linears {
            let role = ROLES.iter().find(|(_, role)| *role == linear.site.role).unwrap().0;
            let numbers = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            let squares = numbers(&all[&format!("squares.{}.{role}", linear.site.block.unwrap())]);
            let half = Precision::F16.round(full.linears[key].weight.rows().unwrap()).unwrap();
            let (half, got) = (numbers(&half), numbers(&linear.weight.rows().unwrap()));
            let mut order: Vec<usize> = (0..squares.len()).collect();
            order.sort_by(|&a, &b| squares[b].total_cmp(&squares[a]));
            let count = (0.05 * squares.len() as f64).round() as usize;
            // At the edge, gradients that differ in their last bits change places.
            let kept = order[..count - 1].iter().filter(|&&i| half[i] == got[i]).count();
            assert!(kept >= count - 1, "{}: {kept} of {count}", linear.site);
            let same = half.iter().zip(&got).filter(|(a, b)| a == b).count();
            assert!(same <= count + squares.len() / 20, "{}: {same} of {}", linear.site, squares.len());
        }
    }
}
