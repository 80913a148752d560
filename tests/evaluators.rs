//! Evaluators, against models written by hand.
use anyhow::Result;
use bitsweep::{
    eval::{
        Lm, Logits, Outcome, Sequence, choice, choice::Question, cloze, divergence, metrics::metric,
        perplexity,
    },
    mistake::is_mistake,
    stats::{self, Share},
    suite::{
        ask::{Profile, Protocol},
        requests::Blank,
    },
};

const VOCAB: usize = 256;
pub const BOS: u32 = 1;
const EOS: u32 = 2;

/// Bytes are tokens; the next token's logits are a function of the last one alone.
pub struct Bytes<F> {
    next: F,
    pub asked: Vec<Sequence>,
    context: usize,
}

pub fn bytes<F: Fn(u32) -> Vec<f32> + Sync>(next: F) -> Bytes<F> {
    Bytes { next, asked: Vec::new(), context: 64 }
}

impl<F: Fn(u32) -> Vec<f32> + Sync> Lm for Bytes<F> {
    fn encode(&self, text: &str, specials: bool) -> Result<Vec<u32>> {
        Ok(specials.then_some(BOS).into_iter().chain(text.bytes().map(u32::from)).collect())
    }
    fn context(&self) -> usize {
        self.context
    }
    fn vocab(&self) -> usize {
        VOCAB
    }
    fn prefix(&self) -> Option<u32> {
        Some(BOS)
    }
    fn end(&self) -> Option<u32> {
        Some(EOS)
    }
    fn score(
        &mut self,
        all: &[Sequence],
        visit: &mut dyn FnMut(usize, Logits<'_>) -> Result<()>,
    ) -> Result<()> {
        for (i, s) in all.iter().enumerate() {
            let rows: Vec<f32> = s.rows().flat_map(|r| (self.next)(s.tokens[r])).collect();
            visit(i, Logits { first: 0, rows: &rows, vocab: VOCAB })?;
        }
        self.asked.extend_from_slice(all);
        Ok(())
    }
}

fn value(outcomes: &[(String, Outcome)], name: &str) -> Option<f64> {
    let m = metric(name).unwrap();
    let shares: Vec<Share> = outcomes.iter().map(|(_, o)| (m.share)(o).unwrap()).collect();
    stats::ratio(&shares, m.scale).map(|e| e.value)
}

fn close(a: f64, b: f64) {
    assert!((a - b).abs() < 1e-6 * b.abs().max(1.), "{a} is not {b}");
}

/// Knows nothing.
pub fn uniform(_: u32) -> Vec<f32> {
    vec![0.; VOCAB]
}
/// Sure that the last token comes again.
fn parrot(last: u32) -> Vec<f32> {
    (0..VOCAB as u32).map(|v| if v == last { 50. } else { 0. }).collect()
}

#[test]
fn uniform_has_the_vocabulary_for_perplexity_and_a_parrot_one() {
    let same = "a".repeat(200);
    for protocol in [Protocol::Windows, Protocol::LlamaCpp] {
        let run = |lm: &mut dyn Lm| perplexity::joined(lm, &same, protocol, Some(20), None).unwrap();
        close(value(&run(&mut bytes(uniform)), "perplexity").unwrap(), 256.);
    }
    // All but the first window, whose BOS is followed by an `a`.
    let all = perplexity::joined(&mut bytes(parrot), &same, Protocol::Windows, Some(20), None).unwrap();
    close(value(&all[1..], "perplexity").unwrap(), 1.);
    let rolled =
        perplexity::rolling(&mut bytes(uniform), &[same.as_str().into()], None, Profile::Bare).unwrap();
    close(value(&rolled, "perplexity").unwrap(), 256.);
    close(value(&rolled, "byte_perplexity").unwrap(), 256.);
    close(value(&rolled, "bits_per_byte").unwrap(), 8.);
    let two =
        perplexity::rolling(&mut bytes(uniform), &["a b".into(), "c".into()], None, Profile::Bare).unwrap();
    // Four bytes, three words.
    close(value(&two, "word_perplexity").unwrap(), 256f64.powf(4. / 3.));
}

#[test]
fn windows_do_not_overlap_and_the_tail_is_dropped() {
    let text: String = (0..53).map(|i| char::from(b'a' + i % 26)).collect();
    let mut lm = bytes(uniform);
    let all = perplexity::joined(&mut lm, &text, Protocol::Windows, Some(10), None).unwrap();
    // BOS and 53 bytes are 54 tokens: five windows, four tokens dropped.
    assert_eq!((all.len(), lm.asked.len()), (5, 5));
    let tokens: Vec<u32> = lm.asked.iter().flat_map(|s| s.tokens.clone()).collect();
    assert_eq!(tokens, lm.encode(&text, true).unwrap()[..50]);
    assert!(lm.asked.iter().all(|s| s.predict == (1..10)));
}

#[test]
fn llama_cpp_puts_bos_first_and_scores_the_second_half() {
    let text = "b".repeat(64);
    let mut lm = bytes(uniform);
    perplexity::joined(&mut lm, &text, Protocol::LlamaCpp, Some(16), None).unwrap();
    assert_eq!(lm.asked.len(), 4);
    // Predictions are made from positions 8 to 14: 7 = 16 - 1 - 8 of them.
    assert!(lm.asked.iter().all(|s| s.tokens[0] == BOS && s.predict == (9..16)));
    let short =
        perplexity::joined(&mut bytes(uniform), "short", Protocol::LlamaCpp, Some(16), None).unwrap_err();
    assert!(is_mistake(&short) && short.to_string().contains("two windows"), "{short}");
}

#[test]
fn rolling_scores_every_token_once_after_the_prefix() {
    let mut lm = bytes(uniform);
    lm.context = 8;
    let text = "abcdefghijklmnopqrst".to_string();
    let all =
        perplexity::rolling(&mut lm, &[text.as_str().into(), "x".into()], None, Profile::Tokenizer).unwrap();
    let predicted: Vec<u32> = lm.asked.iter().flat_map(|s| s.tokens[s.predict.clone()].to_vec()).collect();
    let mut want = lm.encode(&text, true).unwrap();
    want.extend([BOS, u32::from(b'x')]);
    assert_eq!(predicted, want);
    // The tokenizer's own BOS after the prefix: twice, as the harness has it.
    assert_eq!(lm.asked[0].tokens[..3], [BOS, BOS, u32::from(b'a')]);
    let Outcome::Text(loss) = &all[0].1 else { panic!() };
    assert_eq!((loss.tokens, loss.bytes, loss.words), (21, 20, 1));
}

fn question(prompt: &str, endings: &[&str], gold: usize) -> Question {
    Question::new(prompt, " ", endings, gold)
}

#[test]
fn choices_by_sum_by_characters_and_by_bytes() {
    // `a` costs 1 nat, all else 2, but for the common constant.
    let next = |_: u32| {
        (0..VOCAB as u32).map(|v| if v == u32::from(b'a') { -1. } else { -2. }).collect::<Vec<f32>>()
    };
    let q =
        [question("q", &["aaaa", "b"], 1), question("q", &["éé", "bbb"], 0), question("q", &["b", "a"], 1)];
    let all = choice::run(&mut bytes(next), &q, Profile::Bare).unwrap();
    let norm = f64::from((-1f32).exp() + 255. * (-2f32).exp()).ln();
    let Outcome::Choice(answer) = &all[0].1 else { panic!() };
    close(answer.log_probs[0], -2. - 4. - 5. * norm);
    close(answer.log_probs[1], -2. - 2. - 2. * norm);
    assert_eq!((answer.chars.clone(), answer.bytes.clone()), (vec![4, 1], vec![4, 1]));
    assert_eq!(answer.greedy, [false, false]);
    let Outcome::Choice(answer) = &all[1].1 else { panic!() };
    assert_eq!((answer.chars.clone(), answer.bytes.clone()), (vec![2, 3], vec![4, 3]));
    close(value(&all, "acc").unwrap(), 2. / 3.);
}

#[test]
fn white_space_at_a_prompts_end_belongs_to_the_ending() {
    let mut lm = bytes(uniform);
    let mut q = question("ab \n", &["c", "dd"], 0);
    q.delimiter = String::new();
    choice::run(&mut lm, &[q], Profile::Tokenizer).unwrap();
    let s = &lm.asked[1];
    assert_eq!(s.tokens, [BOS, 97, 98, 32, 10, 100, 100]);
    assert_eq!(s.predict, 3..7);
}

#[test]
fn before_0_4_prompt_and_ending_are_tokenized_apart() {
    let mut lm = bytes(uniform);
    let mut q = [question("ab \n", &["c", "dd"], 0), question("", &["c", "d"], 0)];
    q[0].delimiter = String::new();
    choice::run(&mut lm, &q, Profile::Separate).unwrap();
    // White space stays where it stands, and nothing is added.
    assert_eq!(
        (lm.asked[1].tokens.clone(), lm.asked[1].predict.clone()),
        (vec![97, 98, 32, 10, 100, 100], 4..6)
    );
    // Before nothing stands EOS.
    assert_eq!(lm.asked[2].tokens, [EOS, 32, 99]);
    perplexity::rolling(&mut lm, &["a".into()], None, Profile::Separate).unwrap();
    assert_eq!(lm.asked[4].tokens, [EOS, 97]);
}

#[test]
fn one_ending_of_several_prompts() {
    // Sure of the letter after the last one.
    let next =
        |last: u32| (0..VOCAB as u32).map(|v| if v == last + 1 { 9. } else { 0. }).collect::<Vec<f32>>();
    let q = Question {
        prompts: vec!["xa".into(), "xb".into(), "xq".into()],
        delimiter: String::new(),
        endings: vec!["c".into()],
        golds: vec![1],
        bare: vec![],
    };
    let all = choice::run(&mut bytes(next), &[q], Profile::Bare).unwrap();
    let Outcome::Choice(answer) = &all[0].1 else { panic!() };
    assert_eq!((answer.best(|_| 1.), answer.greedy.clone()), (1, vec![false, true, false]));
    assert_eq!(answer.chars, [2, 2, 2]);
    assert_eq!(value(&all, "acc"), Some(1.));
}

#[test]
fn several_endings_may_be_right() {
    let next =
        |_: u32| (0..VOCAB as u32).map(|v| if v == u32::from(b'a') { 1. } else { 0. }).collect::<Vec<f32>>();
    let mut q = question("q", &["b", "a", "c"], 0);
    q.golds = vec![0, 1];
    let all = choice::run(&mut bytes(next), &[q.clone()], Profile::Bare).unwrap();
    let e = std::f64::consts::E;
    close(value(&all, "mc2").unwrap(), (1. + e) / (2. + e));
    assert_eq!(value(&all, "acc"), Some(1.));
    q.golds = vec![0, 3];
    assert!(is_mistake(&choice::run(&mut bytes(next), &[q], Profile::Bare).unwrap_err()));
}

#[test]
fn a_cloze_is_greedy_or_not() {
    let next =
        |last: u32| (0..VOCAB as u32).map(|v| if v == last + 1 { 2. } else { 0. }).collect::<Vec<f32>>();
    let blank = |prompt: &str, ending: &str| Blank { prompt: prompt.into(), ending: ending.into() };
    let blanks = [blank("a", "bc"), blank("a", "bd"), blank("a", "bc")];
    let all = cloze::run(&mut bytes(next), &blanks, Profile::Bare).unwrap();
    close(value(&all, "acc").unwrap(), 2. / 3.);
    let norm = (2f64.exp() + 255.).ln();
    let sum = 2. * 2. * (2. - norm) + (2. - norm) - norm;
    close(value(&all, "perplexity").unwrap(), (-sum / 3.).exp());
    // Twins stay apart.
    assert!(all[0].0 != all[2].0 && all[2].0.starts_with(&all[0].0));
}

#[test]
fn a_long_prompt_loses_its_left() {
    let mut lm = bytes(uniform);
    lm.context = 10;
    choice::run(&mut lm, &[question(&"x".repeat(30), &["yy", "z"], 0)], Profile::Bare).unwrap();
    // Ten tokens of input, of which the last predict; the ending's own last token is not input.
    assert_eq!((lm.asked[0].tokens.len(), lm.asked[0].predict.clone()), (11, 8..11));
    let long = choice::run(&mut lm, &[question("x", &["y".repeat(40).as_str(), "z"], 0)], Profile::Bare);
    assert!(is_mistake(&long.unwrap_err()));
}

#[test]
fn a_model_is_no_distance_from_itself_and_some_from_another() {
    let text = "some text that is long enough for two windows of twenty tokens";
    let windows = perplexity::windows(&bytes(parrot), text, Protocol::Windows, Some(20)).unwrap();
    let same = divergence::run(&mut bytes(parrot), &mut bytes(parrot), &windows).unwrap();
    for name in ["kl", "kl_reverse", "js", "delta_p", "rms_delta_p"] {
        assert_eq!(value(&same, name), Some(0.), "{name}");
    }
    assert_eq!((value(&same, "same_top"), value(&same, "ppl_ratio")), (Some(1.), Some(1.)));
    let other = divergence::run(&mut bytes(uniform), &mut bytes(parrot), &windows).unwrap();
    // KL(parrot || uniform) = ln 256, but for the parrot's own small doubt.
    assert!((value(&other, "kl").unwrap() - 256f64.ln()).abs() < 1e-6);
    assert!(
        value(&other, "kl_reverse").unwrap() > 40. && value(&other, "js").unwrap() < std::f64::consts::LN_2
    );
    let uniform_ppl = 256.;
    let parrot_ppl = {
        let all = perplexity::joined(&mut bytes(parrot), text, Protocol::Windows, Some(20), None).unwrap();
        value(&all, "perplexity").unwrap()
    };
    close(value(&other, "ppl_ratio").unwrap(), uniform_ppl / parrot_ppl);
}

#[test]
fn llama_cpps_own_error_treats_tokens_as_independent() {
    let text = "abracadabra, abracadabra, abracadabra, abracadabra";
    let next =
        |last: u32| (0..VOCAB as u32).map(|v| -((v as f32 - last as f32).abs()) / 9.).collect::<Vec<f32>>();
    let all = perplexity::joined(&mut bytes(next), text, Protocol::LlamaCpp, Some(16), None).unwrap();
    let outcomes: Vec<Outcome> = all.iter().map(|(_, o)| o.clone()).collect();
    let mut lm = bytes(next);
    let windows = perplexity::windows(&lm, text, Protocol::LlamaCpp, Some(16)).unwrap();
    let mut nll = Vec::new();
    lm.score(&windows, &mut |i, logits| {
        let w = &windows[i];
        nll.extend(logits.score(w).iter().map(|s| -s.0));
        Ok(())
    })
    .unwrap();
    let n = nll.len() as f64;
    let mean = nll.iter().sum::<f64>() / n;
    let variance = nll.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
    let want = mean.exp() * (variance / (n - 1.)).sqrt();
    close(bitsweep::eval::metrics::independent_stderr(&outcomes).unwrap(), want);
}

/// OpenCompass scores prompt and ending as one text, and divides by all its tokens, the first of which nothing predicts.
#[test]
fn opencompass_divides_by_one_token_more_than_it_predicts() {
    let mut lm = bytes(uniform);
    let questions = [Question::new("ab", " ", &["c", "defg"], 1)];
    let all = choice::run(&mut lm, &questions, Profile::OpenCompass).unwrap();
    let texts: Vec<Vec<u32>> = lm.asked.iter().map(|s| s.tokens.clone()).collect();
    assert_eq!(texts, [lm.encode("ab c", true).unwrap(), lm.encode("ab defg", true).unwrap()]);
    assert!(lm.asked.iter().all(|s| s.predict == (1..s.tokens.len())));
    let Outcome::Choice(answer) = &all[0].1 else { panic!() };
    for (score, tokens) in answer.log_probs.iter().zip([5., 8.]) {
        close(*score, -256f64.ln() * (tokens - 1.) / tokens);
    }
    // Of equal losses a token, the shorter text has the better score: its one token too many weighs more.
    assert_eq!(answer.best(|_| 1.), 0);

    // Too long: the left goes, BOS stays.
    let mut lm = bytes(uniform);
    lm.context = 5;
    let long = [Question::new("abcdefgh", "", &["i", "j"], 0)];
    choice::run(&mut lm, &long, Profile::OpenCompass).unwrap();
    assert_eq!(lm.asked[0].tokens, [BOS, 102, 103, 104, 105]);
}
