//! Paired statistics against scipy's and statsmodels' own numbers (`tests/make_stats.py`), and what they promise, counted.
use crate::common::repo;
use bitsweep::{
    random::Random,
    stats::{
        Pairs, Scale, Share, holm, mcnemar, needed, normal_quantile, student_quantile, student_two_sided,
    },
};
use serde::Deserialize;
use std::fs;

#[derive(Deserialize)]
struct Goldens {
    cases: Vec<Case>,
    holm: Holm,
    mcnemar: Vec<McNemar>,
    quantiles: Vec<[f64; 2]>,
    student: Vec<[f64; 3]>,
    student_quantiles: Vec<[f64; 3]>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    scale: Scale,
    chance: Option<f64>,
    a: Vec<Share>,
    b: Vec<Share>,
    clusters: Vec<usize>,
    delta: f64,
    stderr: f64,
    p_mean: f64,
    detectable: f64,
    scipy_interval: [f64; 2],
    interval: [f64; 2],
    ratio_interval: [f64; 2],
    above_chance_interval: Option<[f64; 2]>,
    lost: Option<u64>,
    won: Option<u64>,
    mcnemar: Option<f64>,
    mid: Option<f64>,
}

#[derive(Deserialize)]
struct Holm {
    p: Vec<f64>,
    adjusted: Vec<f64>,
}

#[derive(Deserialize)]
struct McNemar {
    lost: u64,
    won: u64,
    exact: f64,
}

fn goldens() -> Goldens {
    serde_json::from_str(&fs::read_to_string(repo("tests/goldens/stats.json")).unwrap()).unwrap()
}

fn near(what: &str, a: f64, b: f64, relative: f64) {
    assert!((a - b).abs() <= relative * b.abs().max(1e-300), "{what}: {a} where the reference has {b}");
}

impl Case {
    fn pairs(&self) -> Pairs {
        let pairs = Pairs::new(&self.a, &self.b, self.scale).unwrap();
        let names = &self.clusters;
        if names.iter().enumerate().all(|(i, &c)| i == c) { pairs } else { pairs.clustered(names) }
    }
}

#[test]
fn paired_statistics_equal_statsmodels() {
    for case in goldens().cases {
        let (name, pairs) = (&case.name, case.pairs());
        near(name, pairs.delta(), case.delta, 1e-12);
        near(name, pairs.stderr().unwrap(), case.stderr, 1e-9);
        near(name, pairs.p_mean().unwrap(), case.p_mean, 1e-6);
        // statsmodels solves for the whole power function; the far tail is what the formula leaves out.
        near(name, pairs.detectable(0.05, 0.8).unwrap(), case.detectable, 1e-4);
        if let Some(exact) = case.mcnemar {
            let flips = pairs.flips().unwrap();
            assert_eq!((Some(flips.lost), Some(flips.won)), (case.lost, case.won));
            near(name, mcnemar(flips.lost, flips.won), exact, 1e-9);
            near(name, bitsweep::stats::mcnemar_mid(flips.lost, flips.won), case.mid.unwrap(), 1e-9);
            // Alone, a question is right or wrong: the exact test. In clusters, that test would promise too much.
            let alone = Pairs::new(&case.a, &case.b, case.scale).unwrap();
            near(name, alone.p_value().unwrap(), exact, 1e-9);
            near(name, pairs.p_value().unwrap(), case.p_mean, 1e-6);
        }
    }
}

#[test]
fn bootstraps_equal_python_draw_for_draw_and_scipy_roughly() {
    for case in goldens().cases {
        let boot = case.pairs().bootstrap(0.95, case.chance, 7).unwrap();
        for (side, scipy) in boot.delta.into_iter().zip(case.scipy_interval) {
            // Of 2,000 replicates, the 2.5th percentile is off by some 4 % of the interval's half.
            assert!((side - scipy).abs() < 0.3 * case.stderr, "{}: {side} beside scipy's {scipy}", case.name);
        }
        for (ours, python) in [
            (Some(boot.delta), Some(case.interval)),
            (boot.ratio, Some(case.ratio_interval)),
            (boot.above_chance, case.above_chance_interval),
        ] {
            assert_eq!(ours.is_some(), python.is_some(), "{}", case.name);
            for (a, b) in ours.into_iter().flatten().zip(python.into_iter().flatten()) {
                near(&case.name, a, b, 1e-9);
            }
        }
    }
}

#[test]
fn threads_cannot_be_seen_in_a_bootstrap() {
    let case = goldens().cases.remove(0);
    let with = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| case.pairs().bootstrap(0.95, Some(0.25), 3))
    };
    assert_eq!(with(1), with(5));
    assert_ne!(with(1), case.pairs().bootstrap(0.95, Some(0.25), 4));
}

#[test]
fn tables_of_tests_equal_statsmodels() {
    let goldens = goldens();
    for (ours, theirs) in holm(&goldens.holm.p).iter().zip(&goldens.holm.adjusted) {
        near("holm", *ours, *theirs, 1e-12);
    }
    for case in &goldens.mcnemar {
        near("mcnemar", mcnemar(case.lost, case.won), case.exact, 1e-9);
    }
    for [p, z] in goldens.quantiles {
        assert!((normal_quantile(p) - z).abs() < 1e-8);
    }
    for [t, df, p] in goldens.student {
        near(&format!("t = {t}, df = {df}"), student_two_sided(t, df), p, 1e-9);
    }
    for [p, df, t] in goldens.student_quantiles {
        near(&format!("p = {p}, df = {df}"), student_quantile(p, df), t, 1e-9);
    }
}

/// Of runs whose answers differ by luck alone, the share that a test at 5 % calls different; and of runs that lose what
/// [`Pairs::detectable`] says, the share that it finds.
#[test]
fn tests_keep_their_level_and_their_power() {
    const RUNS: usize = 2000;
    const ITEMS: usize = 400;
    let mut random = Random::new(11);
    let mut draw = |lose: f64, win: f64| {
        let a: Vec<Share> = (0..ITEMS).map(|_| [f64::from(u8::from(random.unit() < 0.6)), 1.]).collect();
        let flip =
            |s: &Share| [if random.unit() < [win, lose][s[0] as usize] { 1. - s[0] } else { s[0] }, 1.];
        let b: Vec<Share> = a.iter().map(flip).collect();
        Pairs::new(&a, &b, Scale::Plain).unwrap()
    };
    // As many of the 60 % right are lost as of the 40 % wrong are won: nothing but luck.
    let (mut exact, mut normal, mut power) = (0, 0, 0);
    for _ in 0..RUNS {
        let pairs = draw(0.05, 0.075);
        exact += usize::from(pairs.p_value().unwrap() < 0.05);
        normal += usize::from(pairs.p_mean().unwrap() < 0.05);
    }
    let share = |n: usize| n as f64 / RUNS as f64;
    // 5 % of 2,000 is 100, one standard error 9.7: three of them above.
    assert!(share(exact) <= 0.05 && share(normal) < 0.065, "{} and {}", share(exact), share(normal));
    // A true loss of 4.5 points beside 6.4 % flips: what 400 items find four times in five is
    // 2.8 * sqrt((0.0645 - 0.0435^2) / 400) = 3.5 points; they must find this more often.
    let found = draw(0.09, 0.02625).detectable(0.05, 0.8).unwrap();
    assert!((0.025..0.045).contains(&found), "{found}");
    for _ in 0..RUNS {
        // 0.6 lose - 0.4 win = 3.5 points, 0.6 lose + 0.4 win = 6.45 %.
        power += usize::from(draw(0.0829, 0.0369).p_mean().unwrap() < 0.05);
    }
    assert!((0.75..0.85).contains(&share(power)), "{}", share(power));
}

#[test]
fn items_needed_are_those_that_tell() {
    // 100 items at three flips in a hundred, all lost: 3 points, and a margin of 5 that they cannot tell yet.
    let a: Vec<Share> = vec![[1., 1.]; 100];
    let b: Vec<Share> = (0..100).map(|i| [f64::from(u8::from(i >= 3)), 1.]).collect();
    let pairs = Pairs::new(&a, &b, Scale::Plain).unwrap();
    let needed = needed(100, pairs.stderr().unwrap(), pairs.delta() + 0.05, 0.05, 0.8).unwrap();
    let z = 1.644_853_627 + 0.841_621_234;
    let by_hand = 100. * (z * pairs.stderr().unwrap() / 0.02f64).powi(2);
    assert!((needed - by_hand.ceil()).abs() < 1e-9 && needed > 400., "{needed} beside {by_hand}");
}
