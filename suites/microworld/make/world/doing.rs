//! What is done step by step: sums of several steps, instructions, a conversation of two turns, a line found again.
//!
//! Answers here are whole phrases, so tasks ask for them to be written, not chosen.
use super::{
    chance::Draw,
    context::ask,
    facts::{LARGEST_OPERAND, next_sums, world},
    sentences::Cloze,
    words::*,
};

/// "Work out 3 plus 4 minus 2. 3 plus 4 is 7. 7 minus 2 is 5. The result is 5."; the answer begins with the first step.
pub fn steps(draw: &mut Draw, lo: usize, hi: usize) -> Cloze {
    let n = draw.between(lo, hi);
    let mut now = draw.between(1, LARGEST_OPERAND);
    let (mut prompt, mut ending) = (format!("Work out {now}"), String::new());
    for _ in 0..n {
        let (with, to) = step(draw, now);
        prompt += &format!(" {with}");
        ending += &format!(" {now} {with} is {to}.");
        now = to;
    }
    Cloze { prompt: prompt + ".", ending: format!("{ending} The result is {now}."), others: Vec::new() }
}

/// "plus 4", and what comes of it.
fn step(draw: &mut Draw, from: usize) -> (String, usize) {
    let ways = next_sums(from);
    let s = ways[draw.pick(ways.len())];
    if s.minus { (format!("minus {}", s.b), s.a) } else { (format!("plus {}", s.b), s.a + s.b) }
}

/// "Say brin and dolm backwards: dolm brin."
pub fn instruction(draw: &mut Draw) -> Cloze {
    let form = draw.pick(10);
    let mut used = Vec::new();
    let many = if form < 2 {
        1
    } else if form < 5 {
        2
    } else {
        3
    };
    let w: Vec<&str> = (0..many).map(|_| word(draw.fresh(&mut used, 60))).collect();
    let list = || format!("{}, {} and {}", w[0], w[1], w[2]);
    let (told, answer) = match form {
        0 => (format!("{} twice", w[0]), vec![w[0]; 2]),
        1 => (format!("{} three times", w[0]), vec![w[0]; 3]),
        2 => (format!("{} and {} backwards", w[0], w[1]), vec![w[1], w[0]]),
        3 => (format!("{} after {}", w[0], w[1]), vec![w[1], w[0]]),
        4 => (format!("{} before {}", w[0], w[1]), vec![w[0], w[1]]),
        5 => (list(), w.clone()),
        6 => (format!("{} backwards", list()), vec![w[2], w[1], w[0]]),
        7 => {
            let out = draw.pick(3);
            let rest = (0..3).filter(|i| *i != out).map(|i| w[i]).collect();
            (format!("{} without {}", list(), w[out]), rest)
        }
        8 => (format!("the last of {}", list()), vec![w[2]]),
        _ => (format!("the first of {}", list()), vec![w[0]]),
    };
    Cloze { prompt: format!("Say {told}:"), ending: format!(" {}.", answer.join(" ")), others: Vec::new() }
}

/// A conversation of two turns, of which the second cannot be understood without the first.
pub struct Talk {
    pub first: String,
    /// What is answered; begins with a space, as all that follows `Bot:`.
    pub answer: String,
    pub second: String,
    pub answers: Cloze,
}

impl Talk {
    /// As the chat template writes it, up to the second answer.
    pub fn cloze(self) -> Cloze {
        let Talk { first, answer, second, answers } = self;
        Cloze { prompt: format!("User: {first}\nBot:{answer}\nUser: {second}\nBot:"), ..answers }
    }
}

/// What the second turn leaves unsaid.
#[derive(Clone, Copy)]
enum Unsaid {
    Subject,
    Question,
    Number,
}

/// "Where does Tavo live?" "In Ombra." "And what do they keep?" "A brin." Or: "And Kelda?" Or a sum that goes on.
pub fn talk(draw: &mut Draw) -> Talk {
    let facts = &world().facts;
    match draw.weighted(&[(Unsaid::Subject, 3), (Unsaid::Question, 3), (Unsaid::Number, 2)]) {
        Unsaid::Subject => {
            let asked: Vec<usize> =
                (0..RELATIONS.len()).filter(|r| !RELATIONS[*r].again.is_empty()).collect();
            let one = asked[draw.pick(asked.len())];
            let subject = draw.pick(RELATIONS[one].subjects.len());
            let same = |r: &usize| *r != one && RELATIONS[*r].subjects == RELATIONS[one].subjects;
            let others: Vec<usize> = asked.into_iter().filter(same).collect();
            let other = others[draw.pick(others.len())];
            let (first, answer) = told(one, subject);
            Talk {
                first,
                answer,
                second: RELATIONS[other].again.to_string(),
                answers: among(other, facts[other][subject].value),
            }
        }
        Unsaid::Question => {
            let r = draw.pick(RELATIONS.len());
            let subjects = RELATIONS[r].subjects;
            let mut used = Vec::new();
            let (one, other) = (draw.fresh(&mut used, subjects.len()), draw.fresh(&mut used, subjects.len()));
            let article = if RELATIONS[r].recall.contains(" a S ") { "a " } else { "" };
            let (first, answer) = told(r, one);
            let second = format!("And {article}{}?", subjects[other]);
            Talk { first, answer, second, answers: among(r, facts[r][other].value) }
        }
        Unsaid::Number => {
            let from = draw.between(1, LARGEST_OPERAND);
            let (with, to) = step(draw, from);
            let (then, end) = step(draw, to);
            let near = [-2, -1, 1, 2].into_iter().filter_map(|d| end.checked_add_signed(d));
            let others = near.map(|n| format!(" {n}.")).collect();
            Talk {
                first: format!("What is {from} {with}?"),
                answer: format!(" {to}."),
                second: format!("And {then}?"),
                answers: Cloze { prompt: String::new(), ending: format!(" {end}."), others },
            }
        }
    }
}

fn told(relation: usize, subject: usize) -> (String, String) {
    let r = &RELATIONS[relation];
    ask(r, r.subjects[subject], r.values[world().facts[relation][subject].value])
}

/// An answer to a relation's question among all that there are.
fn among(relation: usize, right: usize) -> Cloze {
    let r = &RELATIONS[relation];
    let answers: Vec<String> = r.values.iter().map(|v| ask(r, "", v).1).collect();
    let answers: Vec<&str> = answers.iter().map(String::as_str).collect();
    Cloze::answer(String::new(), &answers, right)
}

/// "Line vesh 14. Line brin 52. ... Again line brin 52.": a list of words, each with a number of its own, and `asked` of the
/// lines once more; what is wrong there stands in no line.
pub fn lines(draw: &mut Draw, lo: usize, hi: usize, asked: usize) -> (String, Vec<Cloze>) {
    let n = draw.between(lo, hi);
    let (mut words, mut numbers) = (Vec::new(), Vec::new());
    let said: Vec<String> = (0..n)
        .map(|_| {
            let key = word(draw.fresh(&mut words, 60));
            format!("Line {key} {}.", 10 + draw.fresh(&mut numbers, 90))
        })
        .collect();
    let others: Vec<String> =
        (0..90).filter(|n| !numbers.contains(n)).map(|n| format!(" {}.", n + 10)).collect();
    let mut order = Vec::new();
    let asked = (0..asked).map(|_| {
        let i = draw.fresh(&mut order, n);
        Cloze {
            prompt: format!("Again line {}", word(words[i])),
            ending: format!(" {}.", 10 + numbers[i]),
            others: others.clone(),
        }
    });
    let asked = asked.collect();
    (said.join(" "), asked)
}
