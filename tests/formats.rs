//! Every number format and every rounding without data: what must hold of all of them, those that a paper defines and no code
//! of its authors, and codebooks.
use crate::common::repo;
use bitsweep::{
    model::{
        load,
        ops::Precision,
        site::{Role, Site},
        spec::DecoderSpec,
    },
    quant::{
        apply::{apply, sizes},
        calibrate::Seen,
        grid::{
            Fit, Format, Grid, Per,
            levels::{LEVELS, Levels, Scale, Set},
        },
        recipe::{Recipe, Table},
        weight::{Given, Weights},
    },
};
use candle_core::{Device, Tensor, safetensors};
use rayon::ThreadPoolBuilder;
use std::{collections::BTreeSet, path::Path};

fn recipe(text: &str) -> Recipe {
    Recipe::from_table(toml::from_str::<Table>(&format!("name = 'x'\n{text}")).unwrap()).unwrap()
}

fn weights(table: &str) -> Weights {
    recipe(&format!("weights = {{ {table} }}")).weights.unwrap()
}

fn grid(table: &str) -> Grid {
    weights(&format!("method = 'rtn', {table}")).grid
}

fn spec() -> DecoderSpec {
    load::open("builtin:llama", Path::new(""), None).unwrap().spec
}

fn round(weights: &Weights, w: &Tensor, seen: &Seen) -> Tensor {
    let (spec, site) = (spec(), Site::new(0, Role::Up));
    let given =
        Given { site, spec: &spec, grid: &weights.grid, seen, gradients: None, precision: Precision::F32 };
    weights.rounder().round(w, &given).unwrap().weight
}

/// Rows of many kinds: of both signs, heavy, far from zero, small, constant, zeros, with a value that stands out.
fn rows(width: usize) -> Tensor {
    let mut all = Vec::new();
    for r in 0..9usize {
        for i in 0..width {
            let x = ((i * i * 7 + r * 131 + i) as f32 * 0.37).sin();
            all.push(match r {
                0 | 1 => x,
                2 => x * x * x * 40.,
                3 => 3. + 0.1 * x,
                4 => -0.5 - x.abs(),
                5 => 1e-3 * x,
                6 => 0.25,
                7 => 0.,
                _ if i == 3 => 50.,
                _ => x,
            });
        }
    }
    matrix(all, 9, width)
}

fn matrix(all: Vec<f32>, out: usize, inner: usize) -> Tensor {
    Tensor::from_vec(all, (out, inner), &Device::Cpu).unwrap()
}

fn numbers(x: &Tensor) -> Vec<f32> {
    x.flatten_all().unwrap().to_vec1().unwrap()
}

fn error(a: &Tensor, b: &Tensor) -> f64 {
    let each = numbers(a).into_iter().zip(numbers(b));
    each.map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

/// Every format in every way that it can be written.
fn every() -> Vec<(String, Grid)> {
    let mut all = Vec::new();
    for per in ["per = 'tensor'", "per = 'row'", "group = 16", "group = 40", "group = 1"] {
        for bits in 2..=8 {
            for zero in ["clamped", "free", "in-range"] {
                for more in
                    ["", ", symmetric = true", ", search = 'mse'", ", symmetric = true, search = 'mse'"]
                {
                    all.push(format!("bits = {bits}, zero = '{zero}', {per}{more}"));
                }
            }
        }
        let fits = |name: &str| !(name.ends_with("-double") && per.contains("tensor"));
        for levels in LEVELS.iter().filter(|l| fits(l.name)) {
            all.push(format!("format = '{}', {per}", levels.name));
        }
    }
    all.into_iter().map(|text| (text.clone(), grid(&text))).collect()
}

fn distinct(x: &[f32]) -> usize {
    x.iter().map(|x| (x + 0.).to_bits()).collect::<BTreeSet<_>>().len()
}

/// What comes out is a value of the format at the group's own scale, of which there are so many as codes; and such a value stays
/// as it is.
#[test]
fn what_comes_out_is_representable() {
    let w = rows(104);
    let x = numbers(&w);
    for (name, grid) in every() {
        let q = numbers(&grid.round(&w, Precision::F32).unwrap());
        let over = grid.over(&x, 104, Precision::F32);
        let codes = match grid.format {
            Format::Int(int) => 1 << int.bits,
            // Ternary codes share bytes.
            Format::Levels(levels) => (levels.bits.exp2().ceil() as usize).min(256),
        };
        // A scale that is read back coarser than values were divided by moves a level, perhaps past the middle to the next.
        let table = match grid.format {
            Format::Levels(Levels { set: Set::Table(table), scale: Scale::Double, .. }) => Some(*table),
            _ => None,
        };
        for (r, (x, q)) in x.chunks(104).zip(q.chunks(104)).enumerate() {
            let groups: Vec<_> = grid.groups(104).collect();
            for (g, group) in groups.iter().enumerate() {
                let fit = over.fit(&x[group.clone()], r * groups.len() + g);
                let q = &q[group.clone()];
                let stays = |q: f32| match (table, fit) {
                    (Some(table), Fit::Levels(fit)) => table.iter().any(|l| fit.one(l * fit.scale) == q),
                    _ => fit.one(q) == q,
                };
                assert!(q.iter().all(|&q| q.is_finite() && stays(q)), "{name} row {r} group {g}");
                assert!(distinct(q) <= codes, "{name} row {r} group {g}: {} of {codes}", distinct(q));
                // One by one or all together.
                let mut out = vec![0.; q.len()];
                fit.snap(&x[group.clone()], &mut out);
                assert!(out == q, "{name} row {r} group {g}");
            }
        }
    }
}

#[test]
fn error_falls_with_bits_and_with_groups() {
    let w = rows(120);
    let off = |table: &str| error(&w, &grid(table).round(&w, Precision::F32).unwrap());
    for per in ["per = 'tensor'", "per = 'row'", "group = 24"] {
        for zero in ["clamped", "free", "in-range"] {
            for more in ["", ", symmetric = true", ", search = 'mse'", ", symmetric = true, search = 'mse'"] {
                // A clamped zero point cuts off groups that are far from zero, however many bits there are.
                let w = if zero == "clamped" { w.narrow(0, 0, 2).unwrap() } else { w.clone() };
                let errors: Vec<f64> = (2..=8)
                    .map(|bits| {
                        let grid = grid(&format!("bits = {bits}, zero = '{zero}', {per}{more}"));
                        error(&w, &grid.round(&w, Precision::F32).unwrap())
                    })
                    .collect();
                assert!(errors.windows(2).all(|e| e[1] < e[0]), "{zero} {per}{more}: {errors:?}");
            }
        }
        for falling in [
            ["mxfp4", "mxfp6", "mxfp8"],
            ["binary", "ternary", "nf4"],
            ["fp4", "nf4", "fp8"],
            ["mxfp4", "nvfp4", "fp8"],
        ] {
            let errors = falling.map(|name| off(&format!("format = '{name}', {per}")));
            assert!(errors.windows(2).all(|e| e[1] < e[0]), "{falling:?} {per}: {errors:?}");
        }
        // The mean is the best middle where values are not around zero, and no worse where they are.
        assert!(
            off(&format!("format = 'binary-centred', {per}")) < off(&format!("format = 'binary', {per}"))
        );
    }
    for format in ["bits = 4", "format = 'nf4'", "format = 'fp8'", "format = 'nvfp4'", "format = 'mxfp4'"] {
        let [fine, coarse] = [8, 60].map(|g| off(&format!("{format}, group = {g}")));
        assert!(fine < coarse, "{format}: {fine} {coarse}");
    }
    for kind in ["nf4", "fp4"] {
        let [own, shared] = ["", "-double"].map(|d| off(&format!("format = '{kind}{d}'")));
        assert!(own < shared && shared < 1.2 * own, "{kind}: {own} {shared}");
    }
    for (zero, bits) in [("in-range", 2), ("in-range", 3), ("free", 3), ("clamped", 4)] {
        let table = format!("bits = {bits}, zero = '{zero}', per = 'row'");
        assert!(off(&format!("{table}, search = 'mse'")) <= off(&table), "{table}");
    }
}

/// No input makes a format panic; zeros stay zeros; what is finite and of usual size stays so; what is no number is not hidden.
#[test]
fn extremes() {
    let nan = f32::NAN;
    let strange: [[f32; 4]; 12] = [
        [0.; 4],
        [-0., 0., -0., 0.],
        [f32::MAX; 4],
        [f32::MAX, f32::MIN, 1., -1.],
        [f32::MIN_POSITIVE, -f32::MIN_POSITIVE, 0., 0.],
        [1e-45, -1e-45, 0., 1e-45],
        [1e-45; 4],
        [1e30, 1e-30, -1e-30, 0.],
        [7.; 4],
        [-7.; 4],
        [f32::INFINITY, 1., f32::NEG_INFINITY, 0.],
        [nan, 1., 2., nan],
    ];
    for (name, grid) in every() {
        for x in &strange {
            for precision in [Precision::F32, Precision::F16, Precision::BF16] {
                for (out, inner) in [(1, 4), (2, 2), (4, 1)] {
                    let w = matrix(x.to_vec(), out, inner);
                    let q = numbers(&grid.round(&w, precision).unwrap());
                    let by_rows = numbers(&grid.round_rows(&w, precision).unwrap());
                    if x.iter().all(|x| *x == 0.) {
                        assert!(q.iter().chain(&by_rows).all(|q| *q == 0.), "{name} {x:?}: {q:?}");
                    }
                    if x.iter().all(|x| x.abs() < 100.) {
                        assert!(q.iter().chain(&by_rows).all(|q| q.is_finite()), "{name} {x:?}: {q:?}");
                    }
                    let hidden = x.iter().zip(&q).any(|(x, q)| x.is_nan() && q.is_finite());
                    assert!(!hidden, "{name} {x:?}: {q:?}");
                }
            }
        }
        for shape in [(0, 4), (3, 0), (0, 0)] {
            let none = Tensor::zeros(shape, candle_core::DType::F32, &Device::Cpu).unwrap();
            assert_eq!(grid.round(&none, Precision::F32).unwrap().dims2().unwrap(), shape, "{name}");
        }
    }
}

/// By hand: codes, scales, what the matrix has once.
#[test]
fn bits_are_counted() {
    // Seven rows of 200: in 32s seven groups a row, in 64s four, in 16s thirteen.
    let n = 7. * 200.;
    for (name, bits) in [
        ("fp8", 8. * n + 7. * 16.),
        ("fp8-e5m2", 8. * n + 7. * 16.),
        ("fp8-cast", 8. * n),
        ("mxfp8", 8. * n + 49. * 8.),
        ("mxfp6", 6. * n + 49. * 8.),
        ("mxfp6-e3m2", 6. * n + 49. * 8.),
        ("mxfp4", 4. * n + 49. * 8.),
        ("nvfp4", 4. * n + 7. * 13. * 8. + 32.),
        ("nf4", 4. * n + 28. * 32.),
        ("fp4", 4. * n + 28. * 32.),
        ("nf4-double", 4. * n + 28. * (8. + 32. / 256.) + 32.),
        ("ternary", 1.6 * n + 16.),
        ("binary", n + 7. * 16.),
        ("binary-centred", n + 7. * 32.),
    ] {
        assert_eq!(Grid::named(name).unwrap().bits((7, 200)), bits, "{name}");
    }
    let kmeans = |table: &str| {
        let weights = weights(&format!("method = 'kmeans', {table}"));
        weights.rounder().bits(&weights.grid, (7, 200), (Site::new(0, Role::Up), &spec()))
    };
    assert_eq!(kmeans("bits = 4"), 4. * n + 7. * 16. * 16.);
    assert_eq!(kmeans("bits = 3, group = 64"), 3. * n + 28. * 8. * 16.);
    assert_eq!(kmeans("bits = 8, per = 'tensor'"), 8. * n + 256. * 16.);
}

/// Sums in f64 both here and there: what differs is where a product is rounded.
#[test]
fn formats_are_the_papers() {
    let all = safetensors::load(repo("tests/goldens/papers/formats.safetensors"), &Device::Cpu).unwrap();
    for format in ["ternary", "binary", "binary-centred", "fp8-e5m2"] {
        for (name, per) in [("tensor", "per = 'tensor'"), ("row", "per = 'row'"), ("g32", "group = 32")] {
            let ours =
                grid(&format!("format = '{format}', {per}")).round(&all["weight"], Precision::F32).unwrap();
            let want = &all[&format!("{format}-{name}")];
            for (i, (a, b)) in numbers(&ours).iter().zip(numbers(want)).enumerate() {
                assert!((a - b).abs() <= 1e-6 * b.abs(), "{format} {per} [{i}]: {a}, not {b}");
            }
        }
    }
    // As they come: ternary a matrix, binary a row.
    assert_eq!(Grid::named("ternary").unwrap().per, Per::Tensor);
    assert_eq!(Grid::named("binary").unwrap().per, Per::Row);
}

/// The authors start at random places and go downhill until it is nearly flat; here the least is found. So no row loses more than
/// theirs, to what f64 means lose in f32; and all of theirs lose little more (0.03% to 17% on this layer).
#[test]
fn kmeans_loses_no_more_than_squeezellms() {
    let all = safetensors::load(repo("tests/goldens/squeezellm/layer.safetensors"), &Device::Cpu).unwrap();
    let w = &all["weight"];
    let power: Vec<f64> = numbers(&all["power"]).into_iter().map(f64::from).collect();
    let seen = Seen { tokens: 256, square: power.clone(), ..Seen::default() };
    for bits in [2, 3, 4] {
        for (name, counts) in [("plain", vec![1.; 200]), ("sensitive", power.clone())] {
            let sensitive = if name == "sensitive" { "inputs" } else { "none" };
            let ours = round(
                &weights(&format!("method = 'kmeans', bits = {bits}, sensitivity = '{sensitive}'")),
                w,
                &seen,
            );
            let lost = |q: &Tensor| -> Vec<f64> {
                let (w, q) = (numbers(w), numbers(q));
                let row = |(w, q): (&[f32], &[f32])| {
                    w.iter().zip(q).zip(&counts).map(|((w, q), s)| s * f64::from(w - q).powi(2)).sum()
                };
                w.chunks(200).zip(q.chunks(200)).map(row).collect()
            };
            let theirs = &all[&format!("w{bits}-{name}")];
            let (a, b) = (lost(&ours), lost(theirs));
            for (r, (a, b)) in a.iter().zip(&b).enumerate() {
                assert!(*a <= b * (1. + 1e-5) + 1e-9, "w{bits} {name} row {r}: {a}, theirs {b}");
            }
            let (a, b): (f64, f64) = (a.iter().sum(), b.iter().sum());
            println!("kmeans w{bits} {name}: lost {a}, theirs {b}");
            assert!(b < 1.25 * a, "w{bits} {name}: {a}, theirs {b}");
        }
    }
}

#[test]
fn kmeans_properties() {
    let w = rows(104);
    let rtn = |bits: usize| {
        error(
            &w,
            &grid(&format!("bits = {bits}, zero = 'free', per = 'row'")).round(&w, Precision::F32).unwrap(),
        )
    };
    let nothing = Seen::default();
    for per in ["per = 'row'", "per = 'tensor'", "group = 52"] {
        let mut last = f64::INFINITY;
        for bits in 2..=8 {
            let method = weights(&format!("method = 'kmeans', bits = {bits}, {per}"));
            let q = round(&method, &w, &nothing);
            let lost = error(&w, &q);
            assert!(lost < last || lost == 0., "{per} {bits}: {lost} after {last}");
            last = lost;
            if per != "per = 'tensor'" {
                assert!(lost < rtn(bits), "{per} {bits}: {lost}, to nearest {}", rtn(bits));
                assert!(numbers(&q).chunks(104).all(|row| distinct(row) <= 2 << bits));
            } else {
                assert!(distinct(&numbers(&q)) <= 1 << bits);
            }
            // What is a codebook's already, stays.
            assert_eq!(numbers(&round(&method, &q, &nothing)), numbers(&q), "{per} {bits}");
            let with = |threads| {
                let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                numbers(&pool.install(|| round(&method, &w, &nothing)))
            };
            assert!(with(1) == numbers(&q) && with(3) == numbers(&q), "{per} {bits}");
        }
    }
    // No more values than codes: nothing is lost. What is no number stays none, and spoils no other.
    let method = weights("method = 'kmeans', bits = 2");
    let few = matrix(vec![1., -2., 1., 0.3, 7e30, -2., f32::NAN, 1e-40, f32::INFINITY, f32::MAX], 2, 5);
    let q = numbers(&round(&method, &few, &nothing));
    assert_eq!(q[..4], [1., -2., 1., 0.3]);
    assert_eq!((q[4], q[5], q[7], q[8], q[9]), (7e30, -2., 1e-40, f32::INFINITY, f32::MAX));
    assert!(q[6].is_nan());
    for x in [[f32::MAX, f32::MIN, 1., -1., 2., 0.], [1e-45, -1e-45, 0., 3e-45, 1e-40, 1.], [f32::NAN; 6]] {
        round(&method, &matrix(x.to_vec(), 1, 6), &nothing);
    }
    // In half precision, codebooks are of such numbers.
    let (spec, site) = (spec(), Site::new(0, Role::Up));
    let given = Given {
        site,
        spec: &spec,
        grid: &method.grid,
        seen: &nothing,
        gradients: None,
        precision: Precision::F16,
    };
    let half = numbers(&method.rounder().round(&rows(20), &given).unwrap().weight);
    assert!(half.iter().all(|&x| Precision::F16.one(x) == x));
}

/// In a model, by its own inputs: what a linear loses is less where weights count by their inputs' power; without a text to see,
/// that is said.
#[test]
fn kmeans_with_a_text() {
    let opened = load::open("builtin:llama", Path::new(""), None).unwrap();
    let full = opened.load(&Device::Cpu).unwrap();
    let texts: Vec<Vec<u32>> =
        (0..3).map(|s| (0..60).map(|i| ((i * 31 + s * 17 + i * i * 7) % 1024) as u32).collect()).collect();
    let (plain, sensitive) = (
        recipe("weights = { method = 'kmeans', bits = 3 }"),
        recipe("weights = { method = 'kmeans', bits = 3, sensitivity = 'inputs' }\nskip = []"),
    );
    assert!(plain.streams().is_empty() && !sensitive.streams().is_empty());
    let said = apply(&sensitive, &full, 16, &[]).err().unwrap().to_string();
    assert!(said.contains("looks at a text"), "{said}");
    let (a, b) = (apply(&plain, &full, 16, &[]).unwrap(), apply(&sensitive, &full, 16, &texts).unwrap());
    assert_eq!(sizes(&plain, &full.spec, 16).unwrap(), a.sizes);
    let mut less = 0;
    for (key, linear) in &full.blocks[0].linears {
        let (w, a, b) = (
            linear.weight.rows().unwrap(),
            a.decoder.blocks[0].linears[key].weight.rows().unwrap(),
            b.decoder.blocks[0].linears[key].weight.rows().unwrap(),
        );
        // In its own metric the plain one is the least.
        assert!(error(&w, &a) <= error(&w, &b));
        less += usize::from(error(&w, &a) < error(&w, &b));
        assert!(numbers(&b).chunks(w.dim(1).unwrap()).all(|row| distinct(row) <= 8), "{}", linear.site);
    }
    assert!(less > 4, "{less}");

    let w = rows(104);
    let square: Vec<f64> = (0..104).map(|i| if i % 5 == 0 { 100. } else { 0.1 }).collect();
    let seen = Seen { tokens: 9, square: square.clone(), ..Seen::default() };
    let method = |by: bool| {
        let by = if by { "inputs" } else { "none" };
        weights(&format!("method = 'kmeans', bits = 3, sensitivity = '{by}'"))
    };
    let lost = |q: Tensor| -> f64 {
        let (w, q) = (numbers(&w), numbers(&q));
        w.iter().zip(&q).enumerate().map(|(i, (w, q))| square[i % 104] * f64::from(w - q).powi(2)).sum()
    };
    assert!(lost(round(&method(true), &w, &seen)) < 0.7 * lost(round(&method(false), &w, &seen)));
    let (spec, site) = (spec(), Site::new(0, Role::Up));
    let with = |seen: &Seen| {
        let method = method(true);
        let given =
            Given { site, spec: &spec, grid: &method.grid, seen, gradients: None, precision: Precision::F32 };
        method.rounder().round(&w, &given)
    };
    let blind = with(&Seen::default()).unwrap();
    assert!(blind.note.unwrap().contains("no calibration token"));
    assert_eq!(numbers(&blind.weight), numbers(&round(&method(false), &w, &seen)));
    let bad = Seen { tokens: 9, square: vec![f64::NAN; 104], ..Seen::default() };
    assert!(with(&bad).err().unwrap().to_string().contains("not finite"));
}

#[test]
fn settings_that_are_none() {
    for (table, part) in [
        ("method = 'kmeans', format = 'nf4'", "say `bits`"),
        ("method = 'kmeans', bits = 4, symmetric = true", "integers"),
        ("method = 'kmeans', bits = 4, zero = 'free'", "integers"),
        ("method = 'kmeans', bits = 4, search = 'mse'", "integers"),
        ("method = 'kmeans', bits = 4, sensitive = true", "sensitivity"),
        ("method = 'kmeans', bits = 1", "2 to 8"),
        ("method = 'kmeans', bits = 4, group = 0", "at least 1"),
        ("method = 'rtn', format = 'nf4-double', per = 'tensor'", "row"),
        ("method = 'rtn', format = 'binary-centered'", "binary-centred"),
    ] {
        let table = toml::from_str::<Table>(&format!("name = 'x'\nweights = {{ {table} }}"));
        let error = match table.map(Recipe::from_table) {
            Ok(Ok(_)) => panic!("{part}: no error"),
            Ok(Err(e)) => format!("{e:#}"),
            Err(e) => e.to_string(),
        };
        assert!(error.contains(part), "{part}: {error}");
    }
    let said = |table: &str| weights(table).describe().to_string();
    let kmeans = said("method = 'kmeans', bits = 4");
    assert!(
        kmeans.contains("\"per\":\"row\"") && !kmeans.contains("zero") && kmeans.contains("codebook"),
        "{kmeans}"
    );
    assert!(said("method = 'kmeans', bits = 4, group = 32").contains("\"per\":\"group\""));
}
