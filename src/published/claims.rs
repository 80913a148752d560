//! What the study claims, each claim with the numbers of its own figures that speak for and against it.
use super::{
    Figure, Published, STUDY,
    rules::{self, ABILITIES, Cell, Kept, Size, Table},
};
use std::{collections::BTreeMap, fmt};

/// A claim and what becomes of it.
#[derive(Clone, Debug)]
pub struct Claim {
    /// In a few words.
    pub claim: &'static str,
    /// Whether the figures bear it out.
    pub verdict: Verdict,
    /// The numbers.
    pub evidence: String,
}

/// Whether figures bear a claim out.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// All of them.
    Holds,
    /// But for these.
    But(Vec<String>),
    /// They do not.
    Fails,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Holds => f.write_str("holds"),
            Verdict::But(these) => write!(f, "holds, but for {}", these.join(", ")),
            Verdict::Fails => f.write_str("does not hold"),
        }
    }
}

fn but(these: Vec<String>) -> Verdict {
    if these.is_empty() { Verdict::Holds } else { Verdict::But(these) }
}

/// The study's figures in the shapes that claims ask for.
struct Data {
    table: Table,
    kept: Vec<Kept>,
    /// By model, task and recipe, in percent: the first metric that [`rules`] takes, of tasks without parts.
    scores: BTreeMap<(&'static str, &'static str, &'static str), f64>,
}

impl Data {
    fn cell(&self, ability: &'static str, size: Size, recipe: &'static str) -> Option<Cell> {
        self.table.get(&(ability, size, recipe)).copied()
    }

    /// Means over all sizes, by ability.
    fn means(&self, recipe: &'static str) -> Vec<(&'static str, Cell)> {
        ABILITIES.into_iter().filter_map(|a| Some((a, self.cell(a, Size::All, recipe)?))).collect()
    }

    /// The median of what is kept where `pick` says so.
    fn median(&self, pick: impl Fn(&Kept) -> bool) -> f64 {
        let mut shares: Vec<f64> = self.kept.iter().filter(|k| pick(k)).map(|k| k.kept).collect();
        shares.sort_by(f64::total_cmp);
        match shares.len() {
            0 => f64::NAN,
            n if n % 2 == 1 => shares[n / 2],
            n => (shares[n / 2 - 1] + shares[n / 2]) / 2.,
        }
    }

    /// Points between two recipes on a task, by model, where both are printed and `a` is not at the floor.
    fn points(&self, task: &'static str, a: &'static str, b: &'static str) -> Vec<(&'static str, f64)> {
        let both =
            self.scores.iter().filter(|((_, t, r), _)| *t == task && *r == a).filter_map(|((m, ..), va)| {
                let known =
                    self.kept.iter().any(|k| k.figure.series.model == *m && k.figure.series.task == task);
                known.then_some(())?;
                Some((*m, self.scores.get(&(*m, task, b))? - va))
            });
        both.collect()
    }
}

fn short(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

fn by_ability(means: &[(&'static str, Cell)]) -> String {
    means.iter().map(|(a, c)| format!("{a} {:.0} %", c.kept)).collect::<Vec<_>>().join(", ")
}

fn by_model(points: &[(&'static str, f64)]) -> String {
    points.iter().map(|(m, p)| format!("{} {p:+.1}", short(m))).collect::<Vec<_>>().join(", ")
}

/// Every claim, from the figures.
pub fn claims(published: &'static Published) -> Vec<Claim> {
    let kept = rules::kept(published);
    let mut scores = BTreeMap::new();
    let study = published.figures.iter().filter(|f| f.series.source == STUDY && f.series.part.is_none());
    for f in study.filter(|f| ["accuracy", "accuracy_weighted_average"].contains(&f.series.metric)) {
        let percent = if f.series.unit == "fraction" { 100. * f.value } else { f.value };
        scores.entry((f.series.model, f.series.task, f.recipe.name)).or_insert(percent);
    }
    let data = Data { table: rules::table(&kept), kept, scores };
    vec![
        eight_bits(&data),
        four(&data, "4-bit weights cost next to nothing", "w4"),
        four(&data, "a 4-bit cache costs next to nothing", "kv4"),
        with_acts(&data),
        three_bits(&data),
        collapse(&data, published),
        larger(&data),
        larger_acts(&data),
        experts(&data),
        retrieval(&data),
        awq(&data),
        families(&data),
    ]
}

fn eight_bits(data: &Data) -> Claim {
    let all: Vec<_> =
        ["w8", "kv8"].into_iter().flat_map(|r| data.means(r).into_iter().map(move |m| (r, m))).collect();
    let mut off = Vec::new();
    for (recipe, (ability, cell)) in &all {
        if (cell.kept - 100.).abs() >= 1.5 {
            let doubted =
                data.kept.iter().filter(|k| k.ability == *ability && k.figure.recipe.name == *recipe);
            let (mut doubt, mut of) = (0, 0);
            for k in doubted {
                of += 1;
                doubt += usize::from(k.figure.suspect.is_some());
            }
            off.push(format!(
                "{recipe} on {ability} ({:.0} %; {doubt} of {of} figures are suspect)",
                cell.kept
            ));
        }
    }
    let (low, high) = range(all.iter().map(|(_, (_, c))| c.kept));
    Claim {
        claim: "8 bits are free",
        verdict: but(off),
        evidence: format!("w8 and kv8 keep {low:.0} to {high:.0} % by ability"),
    }
}

fn range(of: impl Iterator<Item = f64>) -> (f64, f64) {
    of.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(x), high.max(x)))
}

/// 95 % of full precision, on the mean, is next to nothing.
fn four(data: &Data, claim: &'static str, recipe: &'static str) -> Claim {
    let means = data.means(recipe);
    let off =
        means.iter().filter(|(_, c)| c.kept < 94.5).map(|(a, c)| format!("{a} ({:.0} %)", c.kept)).collect();
    let (low, high) = range(means.iter().map(|(_, c)| c.near));
    let steps = |size| data.cell("emergent multi-step", size, recipe).map_or(f64::NAN, |c| c.near);
    Claim {
        claim,
        verdict: but(off),
        evidence: format!(
            "{}; of the cells, {low:.0} to {high:.0} % by ability keep 98 % and more, of reasoning in steps {:.0} % ({:.0} % at 3 to 8 B)",
            by_ability(&means),
            steps(Size::All),
            steps(Size::Middle)
        ),
    }
}

fn with_acts(data: &Data) -> Claim {
    let points = data.points("mmlu", "w4", "w4a8");
    let off =
        points.iter().filter(|(_, p)| *p < -1.).map(|(m, p)| format!("{} ({p:+.1})", short(m))).collect();
    Claim {
        claim: "8-bit activations cost nothing beside 4-bit weights",
        verdict: but(off),
        evidence: format!("MMLU, points of w4a8 over w4: {}", by_model(&points)),
    }
}

fn three_bits(data: &Data) -> Claim {
    let off = ["w3", "kv3"]
        .into_iter()
        .flat_map(|r| data.means(r).into_iter().map(move |(a, c)| (r, a, c)))
        .filter(|(_, _, c)| !(69.5..=95.5).contains(&c.kept))
        .map(|(r, a, c)| format!("{r} on {a} ({:.0} %)", c.kept));
    Claim {
        claim: "3 bits, rounded to nearest, cost 5 to 30 %",
        verdict: but(off.collect()),
        evidence: format!("w3: {}; kv3: {}", by_ability(&data.means("w3")), by_ability(&data.means("kv3"))),
    }
}

fn collapse(data: &Data, published: &'static Published) -> Claim {
    let off = ["w2", "w4a4"]
        .into_iter()
        .flat_map(|r| data.means(r).into_iter().map(move |(a, c)| (r, a, c)))
        // What is left of a choice among four, or of yes and no, is chance: about half of full precision, or four fifths.
        .filter(|(_, a, c)| {
            c.kept >= if ["emergent self-calib", "truthfulqa"].contains(a) { 85. } else { 60. }
        })
        .map(|(r, a, c)| format!("{r} on {a} ({:.0} %)", c.kept));
    let kv2 = |size| data.cell("emergent IF", size, "kv2").map_or(f64::NAN, |c| c.kept);
    let doubted = published.figures.iter().filter(|f| {
        f.series.source == STUDY && ["w2", "w4a4"].contains(&f.recipe.name) && f.suspect.is_some()
    });
    Claim {
        claim: "2-bit weights and 4-bit activations collapse",
        verdict: but(off.collect()),
        evidence: format!(
            "w2: {}; w4a4: {}; kv2 is milder: instructions {:.0} %, {:.0} % from 66 B; {} of these figures are suspect",
            by_ability(&data.means("w2")),
            by_ability(&data.means("w4a4")),
            kv2(Size::All),
            kv2(Size::Huge),
            doubted.count()
        ),
    }
}

fn larger(data: &Data) -> Claim {
    let mut off = Vec::new();
    let mut words = Vec::new();
    for (ability, recipe) in [
        ("emergent IF", "kv3"),
        ("emergent multi-step", "kv3"),
        ("emergent ICL", "kv3"),
        ("basic", "w2"),
        ("basic", "w3"),
    ] {
        let sizes = Size::ALL.into_iter().skip(1).filter_map(|s| Some((s, data.cell(ability, s, recipe)?)));
        let sizes: Vec<(Size, Cell)> = sizes.collect();
        if let (Some((a, first)), Some((b, last))) = (sizes.first(), sizes.last()) {
            words.push(format!(
                "{recipe} on {ability}: {:.0} % at {a}, {:.0} % at {b}",
                first.kept, last.kept
            ));
            // From the smallest class to the largest, and no class in between above both.
            let rises = last.kept > first.kept && sizes.iter().all(|(_, c)| c.kept <= last.kept + 0.5);
            if !rises {
                off.push(format!("{recipe} on {ability}"));
            }
        }
    }
    let opt = |model| data.scores.get(&(model, "lambada", "w3")).copied().unwrap_or(f64::NAN);
    words.push(format!(
        "w3 on LAMBADA: OPT-30B {:.1}, OPT-66B {:.1}",
        opt("facebook/opt-30b"),
        opt("facebook/opt-66b")
    ));
    Claim {
        claim: "larger models bear fewer bits of weights and cache better",
        verdict: but(off),
        evidence: words.join("; "),
    }
}

fn larger_acts(data: &Data) -> Claim {
    let points = data.points("mmlu", "w8", "w8a8");
    let of = |name: &str| points.iter().find(|(m, _)| *m == name).map_or(f64::NAN, |(_, p)| *p);
    let direction = of("meta-llama/Llama-2-7b-hf") > of("meta-llama/Llama-2-70b-hf");
    let most = points.iter().filter(|(m, _)| !m.contains("Mixtral")).map(|(_, p)| p.abs()).fold(0., f64::max);
    Claim {
        claim: "larger models bear fewer bits of activations worse",
        verdict: match direction {
            true => Verdict::But(vec![format!("its size: {most:.1} points at most outside Mixtral")]),
            false => Verdict::Fails,
        },
        evidence: format!("MMLU, points of w8a8 over w8: {}", by_model(&points)),
    }
}

fn experts(data: &Data) -> Claim {
    let loss = |model: &str, task, recipe| {
        let points = data.points(task, "full", recipe);
        points.iter().find(|(m, _)| m.ends_with(model)).map_or(f64::NAN, |(_, p)| *p)
    };
    let mut off = Vec::new();
    let mut words = Vec::new();
    for (task, recipe, models) in [
        ("mmlu", "kv3", ["Mixtral-8x7B-v0.1", "Mistral-7B-v0.1"]),
        ("mmlu", "kv4", ["Mixtral-8x7B-v0.1", "Mistral-7B-v0.1"]),
        ("mmlu", "w3", ["Mixtral-8x7B-v0.1", "Mistral-7B-v0.1"]),
        ("gsm8k", "kv3", ["Mixtral-8x7B-Instruct-v0.1", "Mistral-7B-Instruct-v0.2"]),
    ] {
        let [many, one] = models.map(|m| loss(m, task, recipe));
        words.push(format!("{recipe} on {task}: Mixtral {many:+.1}, Mistral-7B {one:+.1}"));
        if many > one {
            off.push(format!("{recipe} on {task}"));
        }
    }
    Claim {
        claim: "experts bear no fewer bits than a dense model",
        verdict: but(off),
        evidence: words.join("; "),
    }
}

/// From 13k tokens on.
const LONG: f64 = 600.;

fn retrieval(data: &Data) -> Claim {
    let long = |recipe: &'static str| {
        data.median(|k| {
            k.figure.series.task == "longeval_lines"
                && rules::lines(&k.figure.series) >= LONG
                && k.figure.recipe.name == recipe
        })
    };
    let documents = data.median(|k| k.ability == "litm" && k.figure.recipe.name == "kv4");
    let (kv, w, wa) = (long("kv4"), long("w4"), long("w4a8"));
    Claim {
        claim: "finding a line by its key tries a cache hardest",
        verdict: if kv + 10. < w.min(wa).min(documents) { Verdict::Holds } else { Verdict::Fails },
        evidence: format!(
            "LongEval from 13k tokens, median kept: kv4 {kv:.1} %, w4 {w:.1} %, w4a8 {wa:.1} %; of documents, kv4 {documents:.1} %"
        ),
    }
}

/// How much more AWQ keeps than rounding to nearest on LongEval, by model: the mean over lengths, as a share of the
/// score.
fn gains(data: &Data, plain: &'static str, awq: &'static str) -> Vec<(&'static str, f64)> {
    let of = |recipe: &'static str| -> Vec<&'static Figure> {
        let long = data
            .kept
            .iter()
            .filter(|k| k.figure.series.task == "longeval_lines" && k.figure.recipe.name == recipe);
        long.map(|k| k.figure).collect()
    };
    let (plain, awq) = (of(plain), of(awq));
    let mut by_model: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for a in &awq {
        let same = |p: &&&Figure| p.series.model == a.series.model && p.series.part == a.series.part;
        if let Some(p) = plain.iter().find(same) {
            by_model.entry(a.series.model).or_default().push(a.value - p.value);
        }
    }
    by_model.into_iter().map(|(m, d)| (m, d.iter().sum::<f64>() / d.len() as f64)).collect()
}

fn awq(data: &Data) -> Claim {
    let [w3, w4, w2] =
        [("w3", "awq-w3"), ("w4", "awq-w4"), ("w2", "awq-w2")].map(|(plain, awq)| gains(data, plain, awq));
    let mut off: Vec<String> =
        w3.iter().filter(|(_, g)| *g <= 0.).map(|(m, g)| format!("{} ({g:+.2})", short(m))).collect();
    off.extend(w2.iter().filter(|(_, g)| *g != 0.).map(|(m, g)| format!("{} at 2 bits ({g:+.2})", short(m))));
    let words = |gains: &[(&str, f64)]| {
        gains.iter().map(|(m, g)| format!("{} {g:+.2}", short(m))).collect::<Vec<_>>().join(", ")
    };
    let (low, high) = range(w4.iter().map(|(_, g)| *g));
    Claim {
        claim: "AWQ helps at 3 bits, not at 2",
        verdict: but(off),
        evidence: format!(
            "LongEval, share of lines found, awq-w3 over w3: {}; awq-w4 over w4: {low:+.2} to {high:+.2}; 2 bits find none either way",
            words(&w3)
        ),
    }
}

fn families(data: &Data) -> Claim {
    let named = [
        ("Falcon", "falcon"),
        ("BLOOM and BLOOMZ", "bloom"),
        ("LLaMA-2", "Llama-2"),
        ("Mistral and Mixtral", "mi"),
        ("OPT", "opt"),
    ];
    let ranges: Vec<(&str, f64, f64)> = named
        .into_iter()
        .map(|(name, begins)| {
            let mine = data.kept.iter().filter(|k| {
                k.ability == "basic"
                    && k.figure.recipe.name == "w3"
                    && begins_with(k.figure.series.model, begins)
            });
            let (low, high) = range(mine.map(|k| k.kept));
            (name, low, high)
        })
        .collect();
    let opt = ranges.last().map_or(f64::NAN, |r| r.1);
    let least = ranges.iter().rev().skip(1).map(|r| r.1).fold(f64::INFINITY, f64::min);
    Claim {
        claim: "families differ, and OPT is the fragile one",
        verdict: if opt < least { Verdict::Holds } else { Verdict::Fails },
        evidence: format!(
            "w3 on LAMBADA keeps {}",
            ranges.iter().map(|(n, l, h)| format!("{n} {l:.0} to {h:.0} %")).collect::<Vec<_>>().join(", ")
        ),
    }
}

/// A Hub id's own name, without its owner.
fn begins_with(model: &str, begins: &str) -> bool {
    short(model).to_lowercase().starts_with(&begins.to_lowercase())
}
