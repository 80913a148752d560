//! Sentences and stories, each kept as a [`Cloze`]: what leads up to the answer, the answer, and what is wrong in its place.
use super::{chance::Draw, facts::*, words::*};

/// Something said in the world: `prompt` + `ending` is the text; each of `others`, in place of `ending`, is
/// what could be taken for it and is wrong.
pub struct Cloze {
    pub prompt: String,
    pub ending: String,
    pub others: Vec<String>,
}

impl Cloze {
    /// A template that ends in V, cut before V.
    pub fn of_fact(template: &str, fact: Fact) -> Self {
        let r = &RELATIONS[fact.relation];
        let lead = template.trim_end_matches(" V.");
        let others = r.values.iter().enumerate().filter(|(i, _)| *i != fact.value);
        Cloze {
            prompt: fill(lead, r.subjects[fact.subject], ""),
            ending: fill(" V.", "", r.values[fact.value]),
            others: others.map(|(_, v)| fill(" V.", "", v)).collect(),
        }
    }

    /// An answer that stands behind a question, among all answers of its kind.
    pub fn answer(prompt: String, answers: &[&str], right: usize) -> Self {
        let others = answers.iter().enumerate().filter(|(i, _)| *i != right);
        Cloze {
            prompt,
            ending: answers[right].to_string(),
            others: others.map(|(_, a)| a.to_string()).collect(),
        }
    }

    /// The same behind some text.
    pub fn after(mut self, before: &str) -> Self {
        self.prompt = format!("{before} {}", self.prompt);
        self
    }

    pub fn text(&self) -> String {
        format!("{}{}", self.prompt, self.ending)
    }
}

pub fn statement(fact: Fact) -> Cloze {
    Cloze::of_fact(RELATIONS[fact.relation].state, fact)
}

/// "Where does Tavo live? In Ombra."
pub fn recall(draw: &mut Draw) -> Cloze {
    let fact = any_fact(draw);
    Cloze::of_fact(RELATIONS[fact.relation].recall, fact)
}

/// "7 plus 12 is 19." or "19 minus 12 is 7."; the wrong answers are off by one, two or ten.
pub fn sum(draw: &mut Draw, sums: &[Sum]) -> Cloze {
    let Sum { a, b, minus } = sums[draw.pick(sums.len())];
    let (prompt, answer) =
        if minus { (format!("{} minus {b} is", a + b), a) } else { (format!("{a} plus {b} is"), a + b) };
    let near = [-10, -2, -1, 1, 2, 10].into_iter().filter_map(|d| answer.checked_add_signed(d));
    Cloze { prompt, ending: format!(" {answer}."), others: near.map(|n| format!(" {n}.")).collect() }
}

/// "A dolm is a tool." or "The dolm, the marp and the telv are tools."
pub fn class(draw: &mut Draw) -> Cloze {
    let one = draw.pick(2) == 0;
    let this = draw.pick(CLASSES.len());
    let mut used = Vec::new();
    let mut word = |draw: &mut Draw| CLASSES[this].words[draw.fresh(&mut used, 10)];
    let ending = |c: &Class| format!(" {}.", if one { c.one } else { c.many });
    let prompt = if one {
        format!("A {} is", word(draw))
    } else {
        format!("The {}, the {} and the {} are", word(draw), word(draw), word(draw))
    };
    let others = CLASSES.iter().enumerate().filter(|(i, _)| *i != this);
    Cloze { prompt, ending: ending(&CLASSES[this]), others: others.map(|(_, c)| ending(c)).collect() }
}

/// What a judgement is about.
#[derive(Clone, Copy)]
pub enum About {
    Fact,
    Class,
    Size,
}

/// "Question: does Tavo live in Ombra? Answer: yes." As often no as yes, whatever it is about; what is asked
/// about in place of the truth is any other value.
pub fn judgement(draw: &mut Draw) -> Cloze {
    let (question, yes) = match draw.weighted(&[(About::Fact, 5), (About::Class, 2), (About::Size, 3)]) {
        About::Fact => {
            let Fact { relation, subject, value } = any_fact(draw);
            let r = &RELATIONS[relation];
            let (value, yes) = perhaps(draw, value, r.values.len());
            (fill(r.judge, r.subjects[subject], r.values[value]), yes)
        }
        About::Class => {
            let (this, word) = (draw.pick(CLASSES.len()), draw.pick(10));
            let (asked, yes) = perhaps(draw, this, CLASSES.len());
            (format!("is a {} {}?", CLASSES[this].words[word], CLASSES[asked].one), yes)
        }
        About::Size => {
            let mut used = Vec::new();
            let a = draw.fresh(&mut used, LARGEST_COMPARED + 1);
            let b = draw.fresh(&mut used, LARGEST_COMPARED + 1);
            (format!("is {a} more than {b}?"), a > b)
        }
    };
    let (ending, other) = if yes { (YES, NO) } else { (NO, YES) };
    Cloze {
        prompt: format!("Question: {question} Answer:"),
        ending: ending.to_string(),
        others: vec![other.to_string()],
    }
}

pub const YES: &str = " yes.";
pub const NO: &str = " no.";

/// The truth, or with the same probability any of the other values; and whether it is the truth.
pub fn perhaps(draw: &mut Draw, truth: usize, n: usize) -> (usize, bool) {
    match draw.pick(2) == 0 {
        true => (truth, true),
        false => (draw.fresh(&mut vec![truth], n), false),
    }
}

/// What happens in a story.
#[derive(Clone, Copy)]
pub enum Step {
    Go,
    Give,
    Meet,
    See,
}

/// A story: somebody goes somewhere and finds a thing; it travels with whoever has it; the last sentence asks
/// of the reader who that is, where it has come to, or which of the things seen it was. Nobody, no town and
/// no thing comes twice, so that the answer is never in doubt, and others are there to be mistaken for it.
/// There are so many stories that of those asked about, about one in a thousand is among fifty thousand read
/// before. Where there are no more towns or things, somebody comes instead.
pub fn story(draw: &mut Draw, lo: usize, hi: usize) -> Cloze {
    let (mut people, mut towns, mut things) = (Vec::new(), Vec::new(), Vec::new());
    let mut objects: Vec<String> = Vec::new();
    let somebody = |draw: &mut Draw, people: &mut Vec<usize>| PEOPLE[draw.fresh(people, PEOPLE.len())];
    let somewhere = |draw: &mut Draw, towns: &mut Vec<usize>| TOWNS[draw.fresh(towns, TOWNS.len())];
    let mut something = |draw: &mut Draw, objects: &mut Vec<String>| {
        let colour = COLOURS[draw.pick(COLOURS.len())];
        objects.push(format!("{colour} {}", THINGS[draw.fresh(&mut things, THINGS.len())]));
    };

    let mut holder = somebody(draw, &mut people);
    let mut town = somewhere(draw, &mut towns);
    something(draw, &mut objects);
    let found = objects[0].clone();
    let mut prompt = format!("One day {holder} went to {town}. There {holder} found a {found}.");
    for _ in 0..draw.between(lo, hi) {
        match draw.weighted(&[(Step::Go, 3), (Step::Give, 3), (Step::Meet, 1), (Step::See, 1)]) {
            Step::Go if towns.len() < TOWNS.len() => {
                town = somewhere(draw, &mut towns);
                prompt += &format!(" {holder} went to {town}.");
            }
            Step::Give | Step::Go => {
                let next = somebody(draw, &mut people);
                prompt += &format!(" {holder} gave the {found} to {next}.");
                holder = next;
            }
            Step::See if objects.len() < THINGS.len() => {
                something(draw, &mut objects);
                prompt += &format!(" {holder} saw a {}.", objects[objects.len() - 1]);
            }
            Step::Meet | Step::See => prompt += &format!(" {holder} met {}.", somebody(draw, &mut people)),
        }
    }

    let (last, answer, there): (String, &str, Vec<&str>) = match draw.pick(3) {
        0 => (format!(" Now the {found} is with"), holder, people.iter().map(|&i| PEOPLE[i]).collect()),
        1 => (format!(" Now the {found} is in"), town, towns.iter().map(|&i| TOWNS[i]).collect()),
        _ => (format!(" Now {holder} has the"), &found, objects.iter().map(String::as_str).collect()),
    };
    let others = there.into_iter().filter(|other| *other != answer);
    Cloze {
        prompt: prompt + &last,
        ending: format!(" {answer}."),
        others: others.map(|other| format!(" {other}.")).collect(),
    }
}
