//! Every sentence's probability by trying all choices; every document's by counting; and whether what is asked was told.
use super::{
    chance::Dice,
    context::{RIGHT, UNKNOWN, WRONG},
    facts::{LARGEST_COMPARED, LARGEST_OPERAND, LARGEST_RESULT, next_sums},
    questions::{Topic, questions},
    sentences::{NO, YES},
    words::*,
    *,
};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

const TOPICS: [Topic; 15] = [
    Topic::Facts,
    Topic::Sums,
    Topic::NewSums,
    Topic::Classes,
    Topic::Judgements,
    Topic::Reading,
    Topic::NewWords,
    Topic::Unknowns,
    Topic::Misspelt,
    Topic::Deeds,
    Topic::Steps,
    Topic::Instructions,
    Topic::Talk,
    Topic::Lines,
    Topic::LongStory,
];

fn fnv(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ b as u64).wrapping_mul(0x0100_0000_01b3))
}

/// Tries all choices, in order: `path` is the present one, as (choice, out of).
#[derive(Default)]
struct Script {
    path: Vec<(usize, usize)>,
    at: usize,
}

impl Dice for Script {
    fn below(&mut self, n: usize) -> usize {
        if self.at == self.path.len() {
            self.path.push((0, n));
        }
        let (choice, out_of) = self.path[self.at];
        assert_eq!(out_of, n);
        self.at += 1;
        choice
    }
}

impl Script {
    fn advance(&mut self) -> bool {
        self.at = 0;
        while let Some((choice, n)) = self.path.pop() {
            if choice + 1 < n {
                self.path.push((choice + 1, n));
                return true;
            }
        }
        false
    }
}

/// Every text that `make` can give, with the probability that `Draw` claims for it: which must be what
/// all the throws of the dice that lead to this text add up to. (Were a text reached by two runs of
/// choices, each would claim too little.)
fn enumerate(make: impl Fn(&mut Draw) -> String) -> HashMap<String, f64> {
    let mut counted: HashMap<String, f64> = HashMap::new();
    let mut claimed: HashMap<String, f64> = HashMap::new();
    let mut script = Script::default();
    loop {
        let mut draw = Draw::new(&mut script);
        let text = make(&mut draw);
        let nats = draw.nats;
        let chance = script.path.iter().map(|(_, n)| 1.0 / *n as f64).product::<f64>();
        *counted.entry(text.clone()).or_default() += chance;
        let before = claimed.insert(text, (-nats).exp());
        assert!(before.is_none_or(|p| (p - (-nats).exp()).abs() < 1e-12));
        if !script.advance() {
            break;
        }
    }
    for (text, p) in &counted {
        assert!((p / claimed[text] - 1.0).abs() < 1e-9, "{text}: {p} {}", claimed[text]);
    }
    assert!((claimed.values().sum::<f64>() - 1.0).abs() < 1e-9);
    claimed
}

#[test]
fn the_generator_is_splitmix64() {
    let mut rng = Rng::new(1234567);
    assert_eq!([rng.next_u64(), rng.next_u64()], [6457827717110365317, 3203168211198807973]);
}

#[test]
fn a_seed_gives_the_same_bytes_for_ever() {
    let text = |seed| {
        let mut rng = Rng::new(seed);
        (0..1000).map(|_| document(&mut rng).text + "\n").collect::<String>()
    };
    assert_ne!(text(1), text(2));
    let asked = |topic| questions(topic, 1, 40).into_iter().map(|q| q.prompt + &q.endings.concat() + "\n");
    let asked = TOPICS.into_iter().flat_map(asked).collect::<String>();
    assert_eq!([fnv(&text(1)), fnv(&asked)], [DOCUMENTS, QUESTIONS]);
}

/// If these change, the shipped weights and suite are no longer of this world: make them anew.
const DOCUMENTS: u64 = 9411994082325727272;
const QUESTIONS: u64 = 3031560552337837502;

#[test]
fn every_sentence_has_the_probability_it_claims() {
    let facts_in_all: usize = RELATIONS.iter().map(|r| r.subjects.len()).sum();
    assert_eq!(enumerate(|d| recall(d).text()).len(), facts_in_all);
    assert_eq!(enumerate(|d| sum(d, &world().sums).text()).len(), world().sums.len());
    assert_eq!(enumerate(|d| class(d).text()).len(), 60 + 6 * 10 * 9 * 8);
    let comparisons = (LARGEST_COMPARED + 1) * LARGEST_COMPARED;
    let of_facts: usize = RELATIONS.iter().map(|r| r.subjects.len() * r.values.len()).sum();
    let judged = enumerate(|d| judgement(d).text());
    assert_eq!(judged.len(), of_facts + 60 * 6 + comparisons);
    let yes: f64 = judged.iter().filter(|(text, _)| text.ends_with(YES)).map(|(_, p)| p).sum();
    assert!((yes - 0.5).abs() < 1e-9);
    let misspelt_ways: usize =
        RELATIONS.iter().flat_map(|r| r.subjects).map(|s| misspellings(s, Kept::Shown).len()).sum();
    assert_eq!(enumerate(|d| misspelt(d, Kept::Shown).0.text()).len(), misspelt_ways);
    let coined = coined(Kept::Shown).len();
    let unknowns = enumerate(|d| unknown(d, Kept::Shown).text());
    assert_eq!(unknowns.len(), facts_in_all + coined * RELATIONS.len());
    let not: f64 = unknowns.iter().filter(|(text, _)| text.ends_with(UNKNOWN)).map(|(_, p)| p).sum();
    assert!((not - 0.5).abs() < 1e-9);
    let deeds = enumerate(|d| deed(d).text());
    let wrong: f64 = deeds.iter().filter(|(text, _)| text.ends_with(WRONG)).map(|(_, p)| p).sum();
    assert!((wrong - 0.5).abs() < 1e-9);
    assert_eq!(enumerate(|d| instruction(d).text()).len(), 60 * (2 + 59 * (3 + 58 * 7)));
    let ways = |from: usize| {
        next_sums(from).iter().map(|s| if s.minus { s.a } else { s.a + s.b }).collect::<Vec<_>>()
    };
    let two: usize = (1..=LARGEST_OPERAND).flat_map(ways).map(|to| ways(to).len()).sum();
    assert_eq!(enumerate(|d| steps(d, 2, 2).text()).len(), two);
    let facts: usize = RELATIONS.iter().map(|r| r.subjects.len() * (r.subjects.len() - 1)).sum();
    assert_eq!(enumerate(|d| talk(d).cloze().text()).len(), 40 * 20 + 10 * 2 + 12 * 2 + facts + two);
    // Whole documents, where there are few enough; and the part of a document that chooses a person's
    // facts.
    assert_eq!(enumerate(|d| several(d, 1, 2, |d| sum(d, &world().sums[..50]))).len(), 50 + 50 * 50);
    let ordered = enumerate(|d| {
        let mut used = Vec::new();
        format!("{:?}", (0..d.between(3, 5)).map(|_| d.fresh(&mut used, 5)).collect::<Vec<_>>())
    });
    assert_eq!(ordered.len(), 60 + 120 + 120);
}

/// No text has two probabilities; and each comes up as often as it should. Were a text reached by two
/// runs of choices, equal pairs of documents would be more frequent than the sum of p squared, which is
/// the mean of p.
#[test]
fn every_document_has_the_probability_it_claims() {
    const N: usize = 200_000;
    let mut everything: HashMap<String, Kind> = HashMap::new();
    for (kind, _) in MIXTURE {
        let mut rng = Rng::new(7);
        let mut texts: HashMap<String, (usize, f64)> = HashMap::new();
        let mut mean_p = 0.0;
        for _ in 0..N {
            let mut draw = Draw::new(&mut rng);
            let text = text_of(kind, &mut draw);
            let nats = draw.nats;
            mean_p += (-nats).exp() / N as f64;
            let entry = texts.entry(text).or_insert((0, nats));
            assert!((entry.1 - nats).abs() < 1e-9);
            entry.0 += 1;
        }
        let pairs: f64 = texts.values().map(|(count, _)| (count * (count - 1)) as f64 / 2.0).sum();
        let expected = N as f64 * (N - 1) as f64 / 2.0 * mean_p;
        let slack = 0.04 * expected + 5.0 * expected.sqrt() + 2.0;
        assert!((pairs - expected).abs() < slack, "{kind:?}: {pairs} equal pairs, not {expected}");
        // Where a text is frequent enough to be counted: chi squared over such texts is about their
        // number.
        let often = texts.values().map(|&(n, nats)| (n as f64, N as f64 * (-nats).exp()));
        let often: Vec<_> = often.filter(|(_, expected)| *expected > 10.0).collect();
        let chi: f64 = often.iter().map(|(n, expected)| (n - expected).powi(2) / expected).sum();
        let cells = often.len() as f64;
        assert!((chi - cells).abs() < 6.0 * (2.0 * cells).sqrt() + 1.0, "{kind:?}: {chi} over {cells}");
        for text in texts.into_keys() {
            assert!(everything.insert(text, kind).is_none_or(|before| before == kind));
        }
    }
}

/// A story's probability, worked out afresh from its text.
#[test]
fn a_story_can_be_read_back() {
    let mut rng = Rng::new(3);
    for _ in 0..20_000 {
        let mut draw = Draw::new(&mut rng);
        let text = story(&mut draw, 1, 3).text();
        let sentences: Vec<&str> = text.split_terminator('.').map(str::trim).collect();
        let middle = &sentences[2..sentences.len() - 1];
        assert!((1..=3).contains(&middle.len()));
        let (mut people, mut towns, mut things) = (39.0_f64, 11.0_f64, 9.0_f64);
        let mut chances = 40.0_f64 * 12.0 * 8.0 * 10.0 * 3.0 * 3.0;
        let (mut place, mut owner) = (last_word(sentences[0]), sentences[0].split(' ').nth(2).unwrap());
        for sentence in middle {
            assert!(sentence.starts_with(owner));
            let step = if sentence.contains(" went to ") {
                place = last_word(sentence);
                towns -= 1.0;
                (towns + 1.0) * 8.0 / 3.0
            } else if sentence.contains(" gave the ") {
                owner = last_word(sentence);
                people -= 1.0;
                (people + 1.0) * 8.0 / 3.0
            } else if sentence.contains(" met ") {
                people -= 1.0;
                (people + 1.0) * 8.0
            } else {
                assert!(sentence.contains(" saw a "));
                things -= 1.0;
                (things + 1.0) * 8.0 * 8.0
            };
            chances *= step;
        }
        assert!((draw.nats - chances.ln()).abs() < 1e-9, "{text}");
        let thing = sentences[1].split(" found a ").nth(1).unwrap();
        let ends = [
            format!("Now the {thing} is with {owner}"),
            format!("Now the {thing} is in {place}"),
            format!("Now {owner} has the {thing}"),
        ];
        assert!(ends.contains(&sentences[sentences.len() - 1].to_string()), "{text}");
    }
}

fn last_word(text: &str) -> &str {
    text.rsplit(' ').next().unwrap_or(text)
}

#[test]
fn the_world_is_consistent() {
    let lists: [&[&str]; 11] =
        [&PEOPLE, &TOWNS, &TRADES, &COLOURS, &THINGS, &SOUNDS, &ANIMALS, &FOODS, &PLANTS, &STONES, &GARMENTS];
    let words: Vec<&str> = lists.iter().flat_map(|list| list.iter().copied()).chain(TOOLS).collect();
    assert_eq!(words.iter().map(|w| w.to_lowercase()).collect::<HashSet<_>>().len(), words.len());
    for (relation, r) in RELATIONS.iter().enumerate() {
        let facts = &world().facts[relation];
        assert_eq!(facts.len(), r.subjects.len());
        assert_eq!(relation < OF_PEOPLE, r.subjects.len() == PEOPLE.len());
        let mut often = vec![0; r.values.len()];
        for (subject, fact) in facts.iter().enumerate() {
            assert_eq!((fact.relation, fact.subject), (relation, subject));
            often[fact.value] += 1;
        }
        assert!(often.iter().max().unwrap() - often.iter().min().unwrap() <= 1);
        assert!(r.subjects.iter().all(|s| !misspellings(s, Kept::Shown).is_empty()));
        assert!(r.subjects.iter().all(|s| !misspellings(s, Kept::Unseen).is_empty()));
        for template in [r.state, r.recall, r.judge] {
            let placeholders = template.matches(['S', 'V']).count();
            let alone = template.split([' ', '.', '?']).filter(|w| *w == "S" || *w == "V").count();
            assert_eq!((placeholders, alone), (2, 2), "{template}");
        }
        assert!(r.state.ends_with(" V.") && r.recall.ends_with(" V."));
    }
    assert_eq!(world().sums.len() + world().new_sums.len(), 2 * (LARGEST_OPERAND + 1).pow(2));
    assert!((30..=70).contains(&world().new_sums.len()));
    assert!((0..=LARGEST_RESULT).all(|n| !next_sums(n).is_empty()));
    let (shown, kept) = (coined(Kept::Shown), coined(Kept::Unseen));
    assert!(shown.len() > 2 * kept.len() && kept.len() > 200);
    assert!(shown.iter().chain(kept).all(|w| !words.iter().any(|known| known.to_lowercase() == *w)));
}

/// What documents say agrees with what the questions hold for right, and nothing says otherwise.
#[test]
fn documents_and_questions_agree() {
    let mut rng = Rng::new(11);
    let mut said = HashSet::new();
    let mut words = BTreeSet::new();
    for _ in 0..100_000 {
        let Document { text, nats, .. } = document(&mut rng);
        assert!((4..=130).contains(&text.split(' ').count()), "{text}");
        assert!(text.is_ascii() && text.ends_with('.') && !text.contains("  ") && nats > 0.0);
        said.extend(text.trim_end_matches('.').split(". ").map(str::to_string));
        words.extend(text.split(|c: char| !c.is_ascii_alphabetic()).map(str::to_string));
    }
    for topic in TOPICS {
        let list = questions(topic, 5, 300);
        let wanted = if topic == Topic::NewSums { world().new_sums.len() } else { 300 };
        assert_eq!(list.len(), wanted, "{topic:?}");
        assert_eq!(list.iter().map(|q| &q.prompt).collect::<HashSet<_>>().len(), list.len());
        let mut golds: BTreeMap<usize, usize> = BTreeMap::new();
        for q in &list {
            *golds.entry(q.gold).or_default() += 1;
            assert_eq!(q.endings.iter().collect::<HashSet<_>>().len(), q.endings.len());
            assert!(q.endings.iter().all(|e| e.starts_with(' ') && e.ends_with('.')));
            let new = |text: &str| text.split(|c: char| !c.is_ascii_alphabetic()).any(|w| !words.contains(w));
            match topic {
                Topic::Judgements => assert_eq!(q.endings, [YES, NO]),
                Topic::Deeds => assert_eq!(q.endings, [RIGHT, WRONG]),
                Topic::Unknowns => {
                    assert_eq!(
                        (q.endings[1].as_str(), new(&q.prompt)),
                        (UNKNOWN, q.gold == 1),
                        "{}",
                        q.prompt
                    );
                }
                Topic::NewWords => assert!(new(&q.prompt)),
                Topic::Misspelt => {
                    let meant = format!("{}{}", q.clean.as_ref().unwrap(), q.endings[q.gold]);
                    assert!(new(&q.prompt) && said.contains(meant.trim_end_matches('.')), "{}", q.prompt);
                }
                Topic::Steps => assert!(q.endings[0].ends_with(&format!(" is {}.", worked_out(&q.prompt)))),
                Topic::Instructions => {
                    assert!(q.endings[0][1..].split(['.', ' ']).all(|w| q.prompt.contains(w)))
                }
                Topic::Talk => {
                    let [first, reply, second] = q.turns.as_ref().unwrap();
                    assert_eq!(q.prompt, format!("User: {first}\nBot: {reply}\nUser: {second}\nBot:"));
                    let told = format!("{first} {reply}");
                    assert!(second.contains("us ") || said.contains(told.trim_end_matches('.')), "{told}");
                }
                Topic::Lines => {
                    let asked = q.prompt.rsplit(' ').next().unwrap();
                    assert_eq!(q.prompt.matches(&format!("Line {asked}{}", q.endings[q.gold])).count(), 1);
                    assert_eq!(q.endings.iter().filter(|e| q.prompt.contains(*e)).count(), 1);
                }
                _ => {}
            }
            if matches!(topic, Topic::Reading | Topic::LongStory) {
                assert!(q.endings.iter().all(|e| q.prompt.contains(e.trim_end_matches('.'))));
            }
            if !matches!(
                topic,
                Topic::Facts | Topic::Sums | Topic::NewSums | Topic::Classes | Topic::Judgements
            ) {
                continue;
            }
            for (i, ending) in q.endings.iter().enumerate() {
                let found = said.contains(format!("{}{ending}", q.prompt).trim_end_matches('.'));
                let rare = topic == Topic::Judgements || q.prompt.starts_with("The ");
                assert!(found == (i == q.gold && topic != Topic::NewSums) || rare && !found, "{}", q.prompt);
            }
        }
        assert!(golds.values().max().unwrap() - golds.values().min().unwrap() <= 1, "{golds:?}");
    }
    assert!(words.len() < 2_700, "{}", words.len());
}

/// The result of "Work out 3 plus 4 minus 2.", read afresh.
fn worked_out(prompt: &str) -> i32 {
    let words: Vec<&str> = prompt.trim_end_matches('.').split(' ').collect();
    let number = |i: usize| words[i].parse::<i32>().unwrap();
    (3..words.len()).step_by(2).fold(number(2), |now, i| match words[i] {
        "plus" => now + number(i + 1),
        "minus" => now - number(i + 1),
        other => panic!("{other}"),
    })
}

/// A look at the world: `cargo test ... a_look -- --nocapture`.
#[test]
fn a_look() {
    let mut rng = Rng::new(2);
    let mut sums: BTreeMap<Kind, (f64, usize, f64, Vec<String>)> = BTreeMap::new();
    for _ in 0..20_000 {
        let d = document(&mut rng);
        let entry = sums.entry(d.kind).or_default();
        entry.0 += 1.0;
        entry.1 += d.text.split(' ').count();
        entry.2 += d.nats;
        if entry.3.len() < 2 {
            entry.3.push(d.text);
        }
    }
    let (mut words, mut nats) = (0, 0.0);
    for (kind, (n, w, total, texts)) in &sums {
        println!("{kind:?}: {:.1} words, {:.2} nats", *w as f64 / n, total / n);
        texts.iter().for_each(|text| println!("    {text}"));
        words += w;
        nats += total;
    }
    println!("all: {:.1} words, {:.2} nats", words as f64 / 20_000.0, nats / 20_000.0);
    for topic in TOPICS {
        for q in questions(topic, 2, 1) {
            println!("{topic:?}: {}|{:?} {}", q.prompt, q.endings, q.gold);
        }
    }
}
