//! Generated answers: against the full pass, transformers and lm-evaluation-harness, and themselves in any
//! company.
use crate::{
    common::{repo, shared},
    families::{all, gap, logits},
    kit::Desk,
};
use anyhow::Result;
use bitsweep::{
    eval::{
        Lm, Logits, Next, Outcome, Outcomes, Sequence, generate,
        generate::{Answer, Ended, Question},
        metrics,
    },
    float::top,
    mistake::is_mistake,
    model::{decoder::Decoder, load, load::Opened},
    quant::{apply::apply, recipe::Recipe},
    stats::{self, Share},
    study::engine::{Engine, Words},
    suite,
    suite::{
        filter::{Chain, ExactMatch, Filter, Find, Same, Several, Step},
        generate::Generate,
    },
};
use candle_core::{Device, Tensor};
use serde::Deserialize;
use serde_json::Value;
use std::{collections::BTreeMap, ops::ControlFlow, path::Path};

fn builtin() -> Opened {
    load::open("builtin:llama", Path::new(""), None).unwrap()
}

/// What a sequence came to: its tokens and the bits of all logits on the way.
type Trace = (Vec<u32>, Vec<Vec<u32>>);

/// Greedy; sequence `i` of `of` ends by itself after some steps, so that they leave at different times.
fn trace(engine: &mut Engine, prompts: &[Vec<u32>], of: &[usize], limit: usize) -> Vec<Trace> {
    let mut traces = vec![Trace::default(); prompts.len()];
    engine
        .generate(prompts, limit, &mut |_, i, logits| {
            let (tokens, bits) = &mut traces[i];
            tokens.push(top(logits) as u32);
            bits.push(logits.iter().map(|x| x.to_bits()).collect());
            Ok(if bits.len() > 2 + of[i] % 4 {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(tokens[tokens.len() - 1])
            })
        })
        .unwrap();
    traces
}

/// In any company: alone, all at once, in small passes, the other way round, on one thread.
fn alone_is_together(what: &str, decoder: &Decoder, opened: &Opened, prompts: &[Vec<u32>]) -> Vec<Trace> {
    let engine = |pack| Engine::new(decoder, Words::of(opened)).with_pack(pack);
    let of: Vec<usize> = (0..prompts.len()).collect();
    let want: Vec<Trace> =
        of.iter().flat_map(|&i| trace(&mut engine(4096), &prompts[i..=i], &of[i..=i], 5)).collect();
    for (i, (_, steps)) in want.iter().enumerate() {
        assert_eq!(steps.len(), (3 + i % 4).min(5), "{what}: sequence {i}");
    }
    for pack in [4096, 1] {
        assert!(trace(&mut engine(pack), prompts, &of, 5) == want, "{what}: together, passes of {pack}");
    }
    let reversed: Vec<Vec<u32>> = prompts.iter().rev().cloned().collect();
    let of_reversed: Vec<usize> = of.iter().rev().copied().collect();
    let mut back = trace(&mut engine(100), &reversed, &of_reversed, 5);
    back.reverse();
    assert!(back == want, "{what}: the other way round");
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(one.install(|| trace(&mut engine(4096), prompts, &of, 5)) == want, "{what}: one thread");
    want
}

#[test]
fn neighbours_cannot_be_seen_in_a_generated_answer_of_any_family() {
    let opened = builtin();
    for f in all() {
        let t = &f.tokens;
        let prompts: Vec<Vec<u32>> =
            [&t[..7], &t[2..3], &t[1..6], &t[..4], &t[3..], &t[..t.len() - 5]].map(<[u32]>::to_vec).into();
        let longest = f.decoder.spec.longest().unwrap_or(usize::MAX);
        let prompts: Vec<Vec<u32>> = prompts.into_iter().filter(|p| p.len() + 5 <= longest).collect();
        let want = alone_is_together(&f.name, &f.decoder, &opened, &prompts);
        // And each step is the last row of a pass over all that came before.
        for (prompt, (tokens, bits)) in prompts.iter().zip(&want).filter(|_| f.cached.is_none()) {
            let mut so_far = prompt.clone();
            for (token, bits) in tokens.iter().zip(bits) {
                let whole = logits(&f.decoder, &so_far);
                let whole = whole.narrow(0, so_far.len() - 1, 1).unwrap();
                let step: Vec<f32> = bits.iter().map(|&b| f32::from_bits(b)).collect();
                let step = Tensor::from_vec(step, whole.dims2().unwrap(), &Device::Cpu).unwrap();
                let gap = gap(&step, &whole);
                assert!(gap < 1e-4, "{}: {gap} after {} tokens", f.name, so_far.len());
                so_far.push(*token);
            }
        }
    }
}

#[test]
fn nor_of_any_quantized_model() {
    let opened = builtin();
    let full = opened.load(&Device::Cpu).unwrap();
    let residual = "name = 'kv'\nkv = { bits = 2, residual = 4 }";
    let residual = bitsweep::study::sweep::expand("test", &residual.parse().unwrap()).unwrap().remove(0);
    let mut recipes = vec![residual];
    recipes.extend(["full", "w4a8kv4", "kv2", "bf16"].map(|r| Recipe::parse(r).unwrap()));
    let prompts: Vec<Vec<u32>> = [3, 40, 1, 17, 90, 5]
        .iter()
        .enumerate()
        .map(|(i, &n)| (0..n).map(|t| ((t * 31 + i * 7) % 700) as u32).collect())
        .collect();
    let mut seen = Vec::new();
    for recipe in recipes {
        let q = apply(&recipe, &full, 16, &[]).unwrap();
        seen.push(alone_is_together(&recipe.name, &q.decoder, &opened, &prompts));
    }
    // The cache's rounding is in force.
    assert!(seen[1] != seen[3] && seen[0] != seen[3]);
}

#[derive(Deserialize)]
struct Written {
    prompt: Vec<u32>,
    want: Vec<u32>,
}

fn golden(name: &str) -> Value {
    let path = repo("tests/goldens/generate").join(name).with_extension("json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn of<T: serde::de::DeserializeOwned>(value: &Value) -> T {
    serde_json::from_value(value.clone()).unwrap()
}

#[test]
fn greedy_answers_are_those_of_transformers() {
    let opened = builtin();
    let golden: BTreeMap<String, Vec<Written>> = of(&golden("tokens")["tokens"]);
    assert!(golden.len() >= 6);
    for f in all() {
        let Some(cases) = golden.get(&f.name) else { continue };
        let prompts: Vec<Vec<u32>> = cases.iter().map(|c| c.prompt.clone()).collect();
        let mut got = vec![Vec::new(); prompts.len()];
        let mut engine = Engine::new(&f.decoder, Words::of(&opened));
        engine
            .generate(&prompts, 12, &mut |_, i, logits| {
                got[i].push(top(logits) as u32);
                Ok(ControlFlow::Continue(top(logits) as u32))
            })
            .unwrap();
        for (case, got) in cases.iter().zip(got) {
            assert_eq!(got, case.want, "{} after {:?}", f.name, case.prompt);
        }
    }
}

fn settings(text: &str) -> Generate {
    toml::from_str(&format!("prompt = ''\n{text}")).unwrap()
}

fn ask(prompt: &str, gold: &[&str]) -> Question {
    let gold = gold.iter().map(|g| g.to_string()).collect();
    Question { prompt: prompt.into(), gold, ..Question::default() }
}

fn answers(outcomes: &Outcomes) -> Vec<&Answer> {
    outcomes
        .iter()
        .map(|(_, o)| match o {
            Outcome::Generated(a) => a,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn value(outcomes: &Outcomes, name: &str) -> f64 {
    let shares: Vec<Share> = outcomes.iter().map(|(_, o)| metrics::share(name, o).unwrap()).collect();
    stats::ratio(&shares, metrics::metric(name).unwrap().scale).unwrap().value
}

#[test]
fn texts_are_those_of_lm_eval() {
    let dir = repo("tests/fixtures/scores/model");
    let opened = load::open(dir.to_str().unwrap(), Path::new(""), None).unwrap();
    let decoder = opened.load(&Device::Cpu).unwrap();
    let mut lm = Engine::new(&decoder, Words::of(&opened));
    let cases: Vec<Value> = of(&golden("answers")["answers"]);
    let (mut stopped, mut cut) = (0, 0);
    for case in &cases {
        let mut settings = settings(&format!("limit = {}", case["limit"]));
        settings.stop = of(&case["stop"]);
        let question = ask(case["prompt"].as_str().unwrap(), &[]);
        let outcomes = generate::run(&mut lm, None, &[question], &settings, 0).unwrap();
        let answer = answers(&outcomes)[0];
        let want = case["want"].as_str().unwrap();
        // The harness keeps what is left of a character that the limit cut in two.
        let want =
            if answer.samples[0].ended == Ended::Limit { want.trim_end_matches('\u{fffd}') } else { want };
        assert_eq!(answer.samples[0].text, want, "{case}");
        stopped += usize::from(answer.samples[0].ended == Ended::Stop);
        cut += usize::from(answer.cut > 0);
        assert_eq!(answer.samples[0].ended == Ended::Stop, !settings.stop.is_empty(), "{case}");
    }
    assert!(stopped >= 8 && cut >= 2, "{stopped} {cut}");
}

#[test]
fn filters_are_those_of_lm_eval() {
    let golden = golden("filters");
    let texts: Vec<String> = of(&golden["answers"]);
    let chain = |steps: Vec<Step>| Chain::new(&Filter { name: "it".into(), steps }).unwrap();
    let one = |chain: &Chain, text: &String| chain.apply(vec![text.clone()]).unwrap().remove(0);
    for case in golden["regex"].as_array().unwrap() {
        let (pattern, pick) = (of(&case["pattern"]), of(&case["pick"]));
        let chain = chain(vec![Step::Regex(Find { pattern, pick, fallback: "[invalid]".into() })]);
        let want: Vec<String> = of(&case["want"]);
        for (text, want) in texts.iter().zip(want) {
            assert_eq!(one(&chain, text), want, "{} on {text:?}", case["pattern"]);
        }
    }
    for case in golden["chains"].as_array().unwrap() {
        let step = |step: &Value| match step.as_str() {
            Some("lowercase") => Step::Lowercase,
            Some("uppercase") => Step::Uppercase,
            Some("remove_whitespace") => Step::RemoveWhitespace,
            _ => {
                let part = |key: &str| step[1][key].as_str().unwrap().to_string();
                Step::Regex(Find { pattern: part("regex_pattern"), pick: 0, fallback: part("fallback") })
            }
        };
        let chain = chain(case["steps"].as_array().unwrap().iter().map(step).collect());
        let want: Vec<String> = of(&case["want"]);
        for (text, want) in texts.iter().zip(want) {
            assert_eq!(one(&chain, text), want, "{} on {text:?}", case["steps"]);
        }
    }
    for case in golden["several"].as_array().unwrap() {
        let several: Vec<String> = of(&case["answers"]);
        let first = chain(vec![Step::TakeFirst]).apply(several.clone()).unwrap();
        assert_eq!(first, [case["take_first"].as_str().unwrap()]);
        let vote = chain(vec![Step::MajorityVote]).apply(several.clone()).unwrap();
        assert_eq!(vote, of::<Vec<String>>(&case["majority_vote"]), "{several:?}");
        assert_eq!(
            chain(vec![Step::TakeFirstK(2)]).apply(several.clone()).unwrap(),
            several[..several.len().min(2)]
        );
    }
    let to = [("yes", "1"), ("7", "seven")].map(|(a, b)| (a.to_string(), b.to_string()));
    let map = chain(vec![Step::Map(suite::filter::Words { to: to.into(), fallback: "?".into() })]);
    let mapped: Vec<String> = texts.iter().map(|t| one(&map, t)).collect();
    assert_eq!(mapped, of::<Vec<String>>(&golden["map"]));
    let pairs: Vec<(String, String)> = of(&golden["pairs"]);
    for case in golden["match"].as_array().unwrap() {
        let settings: ExactMatch = of(&case["settings"]);
        let same = Same::new(&settings).unwrap();
        let got: Vec<bool> =
            pairs.iter().map(|(a, g)| same.any(a, std::slice::from_ref(g)).unwrap()).collect();
        assert_eq!(got, of::<Vec<bool>>(&case["want"]), "{settings:?}");
    }
    let removed = chain(vec![Step::Remove(vec!["[0-9]".into(), r"\s+$".into()])]);
    assert_eq!(one(&removed, &"a1b 2 \n".into()), "ab");
}

/// `tests/make_expressions.py` made the golden.
#[test]
fn filters_read_expressions_as_python_does() {
    let golden = golden("expressions");
    let texts: Vec<String> = of(&golden["texts"]);
    let chain = |step: Step| Chain::new(&Filter { name: "it".into(), steps: vec![step] }).unwrap();
    for case in golden["cases"].as_array().unwrap() {
        let left = chain(Step::Remove(vec![of(&case["pattern"])])).apply(texts.clone()).unwrap();
        assert_eq!(left, of::<Vec<String>>(&case["left"]), "{}", case["pattern"]);
    }
    // A match with nothing in its groups is no find: the next expression is tried, the answer is unparsed.
    let parsed = |step: Step, text: &str| chain(step).parse(vec![text.into()]).unwrap().remove(0);
    let empty = r"(a)?(b)?";
    let find = Find { pattern: empty.into(), pick: 0, fallback: "none".into() };
    for (text, want, found) in [("zb", "none", false), ("bz", "b", true)] {
        let p = parsed(Step::Regex(find.clone()), text);
        assert_eq!((p.text.as_str(), p.found), (want, found));
    }
    let several = Several { patterns: vec![empty.into(), "z".into()], fallback: "none".into() };
    assert_eq!(parsed(Step::FirstRegex(several), "zb").text, "z");
    let named = |names: &[&str]| {
        let filter = |name: &&str| Filter { name: name.to_string(), steps: Vec::new() };
        Chain::all(&names.iter().map(filter).collect::<Vec<_>>()).map(|_| ()).unwrap_err().to_string()
    };
    assert_eq!(named(&["a", "b", "a"]), "two filters are called `a`");
    assert_eq!(named(&["a", ""]), "a filter has no name");
}

/// lm-evaluation-harness's GSM8K, as a task of ours says it.
const GSM8K: &str = r##"
gold = "{{ answer }}"
stop = ["Question:", "</s>", "<|im_end|>"]
exact_match = { ignore_case = true, regexes_to_ignore = [",", '\$', '(?s).*#### ', '\.$'] }
filters = [
    { name = "strict-match", steps = [{ regex = { pattern = '#### (\-?[0-9\.\,]+)' } }, "take-first"] },
    { name = "flexible-extract", steps = [
        { regex = { pattern = '(-?[$0-9.,]{2,})|(-?[0-9]+)', pick = -1 } }, "take-first",
    ] },
]
"##;

#[test]
fn gsm8ks_two_filters_are_lm_evals() {
    let Some(path) = shared("reference/lm-eval/lmeval_misc_vectors.json") else { return };
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let settings = settings(GSM8K);
    let vectors = vectors["gsm8k_filters"].as_array().unwrap();
    assert!(vectors.len() >= 8);
    for v in vectors {
        let text = |key: &str| v[key].as_str().unwrap().to_string();
        let mut lm = Script::new(&[&text("response")]);
        let asked = [ask("Question: how many?\nAnswer:", &[&text("gold")])];
        let outcomes = generate::run(&mut lm, None, &asked, &settings, 0).unwrap();
        let filtered = &answers(&outcomes)[0].filtered;
        assert_eq!(
            (filtered[0].answers.clone(), filtered[1].answers.clone()),
            (vec![text("strict")], vec![text("flexible")])
        );
        for (name, want) in [("strict-match", "em_strict"), ("flexible-extract", "em_flexible")] {
            assert_eq!(value(&outcomes, &format!("exact_match:{name}")), v[want].as_f64().unwrap(), "{v}");
        }
        assert_eq!(value(&outcomes, "exact_match"), v["em_strict"].as_f64().unwrap());
    }
}

const EOS: u32 = 256;
/// A special token; the byte 1 stands for it in a script.
const MARK: u32 = 257;

/// Bytes are tokens; each prompt is answered by a text written down here.
pub struct Script {
    texts: Vec<Vec<u8>>,
    prompts: Vec<Vec<u32>>,
}

impl Script {
    /// The first prompt is answered by the first text, and so on, and round again.
    pub fn new(texts: &[&str]) -> Self {
        Self { texts: texts.iter().map(|t| t.as_bytes().to_vec()).collect(), prompts: Vec::new() }
    }
}

impl Lm for Script {
    fn encode(&self, text: &str, _: bool) -> Result<Vec<u32>> {
        Ok(if text == "<|im_end|>" { vec![MARK] } else { text.bytes().map(u32::from).collect() })
    }
    fn decode(&self, tokens: &[u32]) -> Result<String> {
        let bytes: Vec<u8> = tokens.iter().filter(|&&t| t < EOS).map(|&t| t as u8).collect();
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
    fn context(&self) -> usize {
        300
    }
    fn vocab(&self) -> usize {
        258
    }
    fn prefix(&self) -> Option<u32> {
        Some(EOS)
    }
    fn ends(&self) -> Result<Vec<u32>> {
        Ok(vec![EOS])
    }
    fn score(&mut self, _: &[Sequence], _: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>) -> Result<()> {
        panic!("nobody asks for scores")
    }
    fn generate(&mut self, prompts: &[Vec<u32>], limit: usize, next: &mut Next) -> Result<()> {
        self.prompts = prompts.to_vec();
        for i in (0..prompts.len()).rev() {
            let tokens =
                self.texts[i % self.texts.len()].iter().map(|&b| if b == 1 { MARK } else { b.into() });
            for token in tokens.chain(std::iter::repeat(EOS)).take(limit) {
                let row: Vec<f32> = (0..258).map(|v| if v == token { 9. } else { 0. }).collect();
                if next(&*self, i, &row)?.is_break() {
                    break;
                }
            }
        }
        Ok(())
    }
}

#[test]
fn answers_end_at_stop_texts_at_eos_and_at_the_limit() {
    let settings = settings("stop = ['Question:', '\u{2603}!', '<|im_end|>']\nlimit = 30");
    for (text, want, ended, tokens) in [
        ("forty-two\nQuestion: and", "forty-two\n", Ended::Stop, 19),
        ("caf\u{e9} \u{2603}! more", "caf\u{e9} ", Ended::Stop, 10),
        ("caf\u{e9} \u{2603}?", "caf\u{e9} \u{2603}?", Ended::Eos, 11),
        // The thirtieth byte is the first of a snowman's three: no replacement character stands there.
        ("12345678901234567890123456789\u{2603}", "12345678901234567890123456789", Ended::Limit, 30),
        ("", "", Ended::Eos, 1),
        ("Question:", "", Ended::Stop, 9),
        ("Questio", "Questio", Ended::Eos, 8),
        ("done\u{1}and on", "done", Ended::Stop, 5),
    ] {
        let mut lm = Script::new(&[text]);
        let outcomes = generate::run(&mut lm, None, &[ask("q", &[])], &settings, 0).unwrap();
        let sample = &answers(&outcomes)[0].samples[0];
        assert_eq!(
            (sample.text.as_str(), sample.ended, sample.tokens.len()),
            (want, ended, tokens),
            "{text:?}"
        );
        assert_eq!(value(&outcomes, "unfinished"), f64::from(u8::from(ended == Ended::Limit)));
    }
}

#[test]
fn long_prompts_lose_their_left_and_are_counted() {
    let mut lm = Script::new(&["x"]);
    let long: String = (0..280).map(|i| char::from(b'a' + i as u8 % 26)).collect();
    let asked = [ask(&long, &["x"]), ask("short", &["y", "x"]), ask("", &["y"])];
    let outcomes = generate::run(&mut lm, None, &asked, &settings("limit = 50\ngold = 'x'"), 0).unwrap();
    let want: Vec<u32> = long.bytes().skip(30).map(u32::from).collect();
    assert_eq!(lm.prompts[0], want);
    assert_eq!(lm.prompts[2], [EOS]);
    assert_eq!(answers(&outcomes).iter().map(|a| a.cut).collect::<Vec<_>>(), [30, 0, 0]);
    assert_eq!((value(&outcomes, "cut_prompts"), value(&outcomes, "exact_match")), (1. / 3., 2. / 3.));
    let none = generate::run(&mut lm, None, &asked, &settings("limit = 300"), 0).unwrap_err();
    assert!(is_mistake(&none) && format!("{none:#}").contains("no prompt fits"), "{none:#}");
    // Outcomes on disk are the outcomes.
    for (_, outcome) in &outcomes {
        let text = serde_json::to_string(outcome).unwrap();
        assert_eq!(&serde_json::from_str::<Outcome>(&text).unwrap(), outcome);
    }
}

fn asked(n: usize) -> Vec<Question> {
    (0..n).map(|i| ask(&format!("the {} cat {i} ", "big ".repeat(i % 5)), &[])).collect()
}

#[test]
fn draws_depend_on_seed_item_and_sample_alone() {
    let opened = builtin();
    let decoder = opened.load(&Device::Cpu).unwrap();
    let settings = settings("temperature = 3\ntop_p = 0.95\nsamples = 3\nlimit = 8");
    let run = |pack: usize, n: usize, seed: u64| {
        let mut lm = Engine::new(&decoder, Words::of(&opened)).with_pack(pack);
        generate::run(&mut lm, None, &asked(n), &settings, seed).unwrap()
    };
    let want = run(4096, 12, 7);
    assert_eq!(run(1, 12, 7), want);
    assert_eq!(run(4096, 5, 7), want[..5]);
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert_eq!(one.install(|| run(4096, 12, 7)), want);
    assert_ne!(run(4096, 12, 8), want);
    let texts: Vec<Vec<Vec<u32>>> =
        answers(&want).iter().map(|a| a.samples.iter().map(|s| s.tokens.clone()).collect()).collect();
    assert!(texts.iter().all(|s| s.len() == 3 && s[0] != s[1] && s[1] != s[2]));
}

#[test]
fn the_first_difference_is_where_full_precision_parts() {
    let opened = builtin();
    let full = opened.load(&Device::Cpu).unwrap();
    let quantized = apply(&Recipe::parse("w2").unwrap(), &full, 32, &[]).unwrap().decoder;
    for text in ["limit = 12", "limit = 12\ntemperature = 0.8\nsamples = 2\ntop_k = 40"] {
        let settings = settings(text);
        let words = Words::of(&opened);
        let run = |decoder: &Decoder, full: Option<&mut dyn Lm>| {
            generate::run(&mut Engine::new(decoder, words), full, &asked(10), &settings, 3).unwrap()
        };
        let mut reference = Engine::new(&full, words);
        let own = run(&full, Some(&mut reference));
        assert_eq!(value(&own, "same_answer"), 1.);
        let other = run(&quantized, Some(&mut reference));
        assert!(value(&other, "same_answer") < 1. && value(&other, "full_ppl") > value(&own, "full_ppl"));
        let (mut same, mut samples) = (0, 0);
        for ((a, b), q) in answers(&own).iter().zip(answers(&other)).zip(asked(10)) {
            for (a, b) in a.samples.iter().zip(&b.samples) {
                let until = a.tokens.iter().zip(&b.tokens).take_while(|(a, b)| a == b).count();
                assert_eq!(b.full.unwrap().same, until, "{:?} and {:?}", a.text, b.text);
                same += until;
                samples += 1;
                let mut tokens = reference.encode(&q.prompt, true).unwrap();
                let start = tokens.len();
                tokens.extend(&b.tokens);
                let sequence = Sequence { predict: start..tokens.len(), tokens };
                let mut nll = 0.;
                reference
                    .score(std::slice::from_ref(&sequence), &mut |_, l| {
                        nll = -l.score(&sequence).iter().map(|s| s.0).sum::<f64>();
                        Ok(())
                    })
                    .unwrap();
                assert!((nll - b.full.unwrap().nll).abs() < 1e-9);
            }
        }
        assert_eq!(value(&other, "same_tokens"), f64::from(same as u32) / f64::from(samples));
    }
}

const TASK: &str = r##"about = 'A riddle'
version = 1
metrics = ['exact_match', 'exact_match:last', 'same_tokens', 'same_answer', 'full_ppl', 'unfinished']
[data.file]
path = 'quiz.jsonl'
[ask.generate]
prompt = '{{ prompt }}'
gold = '{{ endings }}'
stop = ['a', 'e']
limit = 6
filters = [
    { name = 'any', steps = [{ regex = { pattern = '[a-z]+' } }] },
    { name = 'last', steps = ["remove-whitespace", { regex = { pattern = '\w', pick = -1 } }] },
]
"##;

#[test]
fn a_study_with_generated_answers_runs_resumes_and_keeps_them() {
    let desk = Desk::new();
    desk.write("riddle.toml", TASK);
    desk.study(&["m"], &["full", "w3"], &["riddle.toml"]);
    desk.go().expect(0);
    let records = desk.records();
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(record["status"], "done", "{record}");
        let metrics = record["metrics"].as_object().unwrap();
        assert_eq!(metrics.len(), 6, "{metrics:?}");
        assert!(record["task"]["protocol"].as_str().unwrap().contains("greedy"));
    }
    assert_eq!(records[0]["metrics"]["same_answer"]["value"], 1.);
    let items = desk.read(&format!("out/items/{}.jsonl", records[1]["cell"].as_str().unwrap()));
    let item: Value = serde_json::from_str(items.lines().next().unwrap()).unwrap();
    assert!(item["outcome"]["generated"]["samples"][0]["text"].is_string(), "{item}");
    assert_eq!(item["outcome"]["generated"]["gold"], serde_json::json!(["ran", "sat", "fell"]));
    let before = crate::kit::snapshot(&desk.path("out"));
    desk.go().expect(0);
    crate::kit::assert_same(&before, &crate::kit::snapshot(&desk.path("out")), "again");
    let plan = desk.run(&["plan", &desk.arg("study.toml")]).expect(0);
    assert!(plan.out.contains("riddle"), "{}", plan.out);
    for (from, to, parts) in [
        ("limit = 6", "limit = 0", &["`limit`", "1 to 1048576"][..]),
        ("limit = 6", "limit = 6000", &["`limit`", "context"]),
        ("limit = 6", "limt = 6", &["limt", "`limit`"]),
        ("limit = 6", "samples = 2", &["`temperature`"]),
        ("limit = 6", "temperature = -1.0", &["`temperature`"]),
        ("limit = 6", "temperature = 1.0\ntop_p = 1.5", &["`top_p`"]),
        ("stop = ['a', 'e']", "stop = ['']", &["`stop`"]),
        ("'exact_match:last'", "'exact_match:lats'", &["lats", "any, last"]),
        ("'exact_match'", "'acc'", &["`acc`", "exact_match"]),
        ("'\\w'", "'('", &["`filters`", "regex"]),
        ("\"remove-whitespace\"", "\"trimm\"", &["trimm", "`take-first`"]),
        ("name = 'last'", "name = 'any'", &["`filters`", "any"]),
        ("gold = '{{ endings }}'\n", "", &["`gold`"]),
        ("gold = '{{ endings }}'", "gold = '{{ prompt'", &["`gold`", "syntax"]),
    ] {
        assert!(TASK.contains(from), "{from}");
        desk.write("riddle.toml", TASK.replacen(from, to, 1));
        desk.go().expect(2).says(&["riddle.toml"]).says(parts);
    }
}
