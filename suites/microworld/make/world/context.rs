//! What only the text at hand can tell: what a new word is, who is unknown, which name was meant, whether a deed was right.
//!
//! The words coined here mean nothing outside their document, so nothing about them can be remembered.
use super::{
    chance::Draw,
    facts::any_fact,
    sentences::{Cloze, perhaps},
    words::*,
};

/// What is done with something of each class, in the order of [`CLASSES`].
pub const DEEDS: [[&str; 2]; 6] = [
    ["fed a", "heard a"],
    ["ate a", "cooked a"],
    ["watered a", "planted a"],
    ["carved a", "dug up a"],
    ["wore a", "sewed a"],
    ["sharpened a", "worked with a"],
];

/// "Tulan ate a pilmo. Kelda wore a druska. So a pilmo is a food.": two or three new words, each of a class of its own, and
/// `asked` of them asked about. What is said before, and the sentences asked.
pub fn new_words(draw: &mut Draw, kept: Kept, asked: usize) -> (String, Vec<Cloze>) {
    let words = coined(kept);
    let (mut people, mut classes, mut used) = (Vec::new(), Vec::new(), Vec::new());
    let n = draw.between(2, 3);
    let said: Vec<String> = (0..n)
        .map(|_| {
            let person = PEOPLE[draw.fresh(&mut people, PEOPLE.len())];
            let class = draw.fresh(&mut classes, CLASSES.len());
            let deed = DEEDS[class][draw.pick(2)];
            format!("{person} {deed} {}.", words[draw.fresh(&mut used, words.len())])
        })
        .collect();
    let endings = CLASSES.each_ref().map(|c| format!(" {}.", c.one));
    let endings = endings.each_ref().map(String::as_str);
    let mut order = Vec::new();
    let asked = (0..asked).map(|_| {
        let i = draw.fresh(&mut order, n);
        Cloze::answer(format!("So a {} is", words[used[i]]), &endings, classes[i])
    });
    let asked = asked.collect();
    (said.join(" "), asked)
}

/// What is said of a subject that nothing was ever told about.
pub const UNKNOWN: &str = " I do not know.";

/// "If you know, where does Tavo live? In Ombra.", and as often of a subject that is new: "I do not know."
pub fn unknown(draw: &mut Draw, kept: Kept) -> Cloze {
    let known = draw.pick(2) == 0;
    if known {
        let fact = any_fact(draw);
        let r = &RELATIONS[fact.relation];
        let (question, answer) = ask(r, r.subjects[fact.subject], r.values[fact.value]);
        return Cloze { prompt: polite(&question), ending: answer, others: vec![UNKNOWN.to_string()] };
    }
    let r = &RELATIONS[draw.pick(RELATIONS.len())];
    let words = coined(kept);
    let word = &words[draw.pick(words.len())];
    let name = r.subjects[0].starts_with(|c: char| c.is_uppercase());
    let subject = if name { capital(word) } else { word.clone() };
    let others = r.values.iter().map(|v| ask(r, &subject, v).1).collect();
    Cloze { prompt: polite(&ask(r, &subject, "").0), ending: UNKNOWN.to_string(), others }
}

fn polite(question: &str) -> String {
    let mut letters = question.chars();
    let first = letters.next().map(|c| c.to_ascii_lowercase());
    format!("If you know, {}{}", first.into_iter().collect::<String>(), letters.as_str())
}

/// A relation's question about a subject, and the answer, which begins with a space.
pub fn ask(r: &Relation, subject: &str, value: &str) -> (String, String) {
    let (question, answer) = r.recall.split_once('?').unwrap();
    (fill(question, subject, "") + "?", fill(answer, "", value))
}

/// "Where does Tvao live? In Ombra.": a subject's name with two letters exchanged, or one written twice. Also the same question
/// as it should be.
pub fn misspelt(draw: &mut Draw, kept: Kept) -> (Cloze, String) {
    let fact = any_fact(draw);
    let r = &RELATIONS[fact.relation];
    let subject = r.subjects[fact.subject];
    let ways = misspellings(subject, kept);
    let wrong = &ways[draw.pick(ways.len())];
    let clean = Cloze::of_fact(r.recall, fact);
    let lead = r.recall.trim_end_matches(" V.");
    (Cloze { prompt: fill(lead, wrong, ""), ..Cloze::of_fact(r.recall, fact) }, clean.prompt)
}

pub const RIGHT: &str = " right.";
pub const WRONG: &str = " wrong.";

/// "Tavo promised to go to Ombra and went to Calva. That was wrong.": what is lent goes back, what is promised is done, what
/// is said is true, what is owed is paid, what is found goes to its owner. As often right as wrong.
pub fn deed(draw: &mut Draw) -> Cloze {
    let mut people = Vec::new();
    let person = PEOPLE[draw.fresh(&mut people, PEOPLE.len())];
    let (told, right) = match draw.pick(5) {
        0 => {
            let (owner, thing) =
                (PEOPLE[draw.fresh(&mut people, PEOPLE.len())], THINGS[draw.pick(THINGS.len())]);
            let right = draw.pick(2) == 0;
            let did = if right { ["gave it back", "brought it back"] } else { ["kept it", "sold it"] };
            (format!("borrowed the {thing} of {owner} and {}", did[draw.pick(2)]), right)
        }
        1 => {
            let promised = draw.pick(TOWNS.len());
            let (went, right) = perhaps(draw, promised, TOWNS.len());
            (format!("promised to go to {} and went to {}", TOWNS[promised], TOWNS[went]), right)
        }
        2 => {
            let (thing, colour) = (THINGS[draw.pick(THINGS.len())], draw.pick(COLOURS.len()));
            let (said, right) = perhaps(draw, colour, COLOURS.len());
            (format!("saw a {} {thing} and said it was {}", COLOURS[colour], COLOURS[said]), right)
        }
        3 => {
            let owed = draw.pick(9);
            let (paid, right) = perhaps(draw, owed, 9);
            (format!("owed {} coins and paid {}", owed + 1, paid + 1), right)
        }
        _ => {
            let owner = PEOPLE[draw.fresh(&mut people, PEOPLE.len())];
            let thing = THINGS[draw.pick(THINGS.len())];
            let right = draw.pick(2) == 0;
            let to = if right { owner } else { PEOPLE[draw.fresh(&mut people, PEOPLE.len())] };
            (format!("found the {thing} of {owner} and gave it to {to}"), right)
        }
    };
    Cloze::answer(format!("{person} {told}. That was"), &[RIGHT, WRONG], usize::from(!right))
}
