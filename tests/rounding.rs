//! The rounding rule is the study's, bit for bit; and what must hold for every width.
use crate::common::repo;
use bitsweep::{
    model::ops::Precision,
    quant::{
        grid::{Int, Per, fake_quantize, snap_row},
        recipe::Recipe,
    },
};
use candle_core::{Device, Tensor};
use serde::Deserialize;

#[derive(Deserialize)]
struct Vector {
    case: String,
    dtype: String,
    bits: u8,
    zero_point: bool,
    input: Vec<f32>,
    scale: f32,
    zero: f32,
    q: Vec<f32>,
    output: Vec<f32>,
}

#[test]
fn all_144_vectors_bit_for_bit() {
    let text = std::fs::read_to_string(repo("tests/goldens/quantizer.json")).unwrap();
    let vectors: Vec<Vector> = serde_json::from_str(&text).unwrap();
    assert_eq!(vectors.len(), 144);
    for v in vectors {
        let what = format!("{} {} {} bits, zero point {}", v.case, v.dtype, v.bits, v.zero_point);
        let precision = if v.dtype == "f16" { Precision::F16 } else { Precision::F32 };
        let format = Int::new(v.bits, !v.zero_point).unwrap();
        let fitted = format.fit(&v.input, precision);
        assert_eq!((fitted.scale, fitted.zero), (v.scale, v.zero), "{what}");
        let codes: Vec<f32> = v.input.iter().map(|&x| fitted.code(x)).collect();
        assert_eq!(codes, v.q, "{what}");
        let mut out = vec![0.; v.input.len()];
        snap_row(&v.input, &mut out, format, v.input.len(), precision);
        assert_eq!(out, v.output, "{what}");
    }
}

fn wavy(rows: usize, cols: usize) -> Tensor {
    let x =
        (0..rows * cols).map(|i| ((i * i) as f32 * 0.37).sin() * (1. + (i % 7) as f32)).collect::<Vec<_>>();
    Tensor::from_vec(x, (rows, cols), &Device::Cpu).unwrap()
}

fn error(a: &Tensor, b: &Tensor) -> f32 {
    (a - b).unwrap().sqr().unwrap().mean_all().unwrap().to_scalar().unwrap()
}

#[test]
fn rounding_twice_is_rounding_once_and_error_falls_with_bits() {
    let w = wavy(12, 300);
    for symmetric in [false, true] {
        for (per, group) in [(Per::Group, 128), (Per::Group, 7), (Per::Row, 0), (Per::Tensor, 0)] {
            let mut last = f32::INFINITY;
            for bits in 2..=8 {
                let round = |x: &Tensor| {
                    fake_quantize(x, Int::new(bits, symmetric).unwrap(), per, group, Precision::F32).unwrap()
                };
                let once = round(&w);
                // The range of rounded values may be a step shorter: the grid moves by less than half of one.
                let e = error(&w, &once);
                assert!(error(&once, &round(&once)) < 0.3 * e, "{per:?} {bits} {symmetric}");
                assert!(e < last, "{per:?} {bits} {symmetric}: {e} after {last}");
                last = e;
            }
        }
    }
}

#[test]
fn groups_run_along_the_row_and_the_last_may_be_shorter() {
    let w = wavy(3, 10);
    let format = Int::new(3, false).unwrap();
    let whole = fake_quantize(&w, format, Per::Group, 4, Precision::F32).unwrap();
    for (start, len) in [(0, 4), (4, 4), (8, 2)] {
        let part =
            fake_quantize(&w.narrow(1, start, len).unwrap(), format, Per::Row, 0, Precision::F32).unwrap();
        assert_eq!(error(&part, &whole.narrow(1, start, len).unwrap()), 0.);
    }
    // A group that is not smaller than the row is the row.
    let row = fake_quantize(&w, format, Per::Row, 0, Precision::F32).unwrap();
    assert_eq!(error(&row, &fake_quantize(&w, format, Per::Group, 128, Precision::F32).unwrap()), 0.);
}

#[test]
fn bits_count_scales_and_zeros() {
    let bits = |recipe: &str, shape: (usize, usize)| {
        Recipe::parse(recipe).unwrap().weights.unwrap().grid.bits(shape) / (shape.0 * shape.1) as f64
    };
    assert_eq!(bits("w4", (8, 256)), 4. + 20. / 128.);
    assert_eq!(bits("w4sym", (8, 256)), 4. + 16. / 128.);
    assert_eq!(bits("w4row", (8, 256)), 4. + 20. / 256.);
    // 172 = 128 + 44: two scales a row.
    assert_eq!(bits("w2", (3, 172)), 2. + 2. * 18. / 172.);
}

#[test]
fn extremes_do_not_panic() {
    for x in [
        vec![f32::MAX, f32::MIN],
        vec![0.; 5],
        vec![f32::NAN, 1.],
        vec![f32::INFINITY, 0.],
        vec![1e-40, -1e-40],
    ] {
        for bits in 2..=8 {
            for symmetric in [false, true] {
                for precision in [Precision::F32, Precision::F16, Precision::BF16] {
                    let mut out = vec![0.; x.len()];
                    snap_row(&x, &mut out, Int::new(bits, symmetric).unwrap(), 2, precision);
                }
            }
        }
    }
}
