//! A small invented world, and the sentences that can be said in it.
//!
//! The built-in model is trained on text from here, so that we know two things no found text can tell: what there was to
//! learn, and how well it can be predicted at best. The world is forty people, twelve towns, sixty made-up words in six
//! classes, and the facts that join them; it is drawn once, from [`facts::WORLD`]. A document says some of it in one of
//! fourteen ways ([`Kind`]). Two ideas carry the folder:
//!
//! * **Every choice is paid for.** A document draws all its choices through [`chance::Draw`], which adds up minus the log of
//!   their probabilities; and two different runs of choices never give the same text. Hence `exp(-document.nats)` is *exactly*
//!   the probability of that text (its end included), and the mean of `nats` over documents estimates the entropy of the
//!   source: the loss that a perfect model would reach.
//! * **Every sentence is a question.** A sentence is kept as a [`Cloze`]: what leads up to the answer, the answer, and answers
//!   that would have fitted in its place. A document writes out the first two; a question of multiple choice shows all
//!   three. So questions come in exactly the words that the model was taught in.
//!
//! Texts come from integer arithmetic alone: a seed gives the same bytes on every machine, for ever.
pub mod chance;
mod context;
mod doing;
mod facts;
pub mod questions;
mod sentences;
#[cfg(test)]
mod tests;
mod words;

use chance::{Draw, Rng};
use context::{deed, misspelt, new_words, unknown};
use doing::{instruction, lines, steps, talk};
use facts::world;
use sentences::{Cloze, class, judgement, recall, statement, story, sum};
use words::{Kept, OF_PEOPLE, PEOPLE, RELATIONS};

/// The ways to say something. The kind of a document shows in its first words, so it needs no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Facts,
    Story,
    Sums,
    Classes,
    Judgements,
    Recall,
    NewWords,
    Unknowns,
    Misspelt,
    Deeds,
    Steps,
    Instructions,
    Talk,
    Lines,
}

/// How many documents in a hundred are of a kind: judgements and sums take longest to learn, and lines are long.
pub const MIXTURE: [(Kind, usize); 14] = [
    (Kind::Facts, 9),
    (Kind::Story, 9),
    (Kind::Sums, 12),
    (Kind::Classes, 4),
    (Kind::Judgements, 15),
    (Kind::Recall, 6),
    (Kind::NewWords, 6),
    (Kind::Unknowns, 5),
    (Kind::Misspelt, 5),
    (Kind::Deeds, 6),
    (Kind::Steps, 8),
    (Kind::Instructions, 6),
    (Kind::Talk, 6),
    (Kind::Lines, 3),
];

/// A text, and minus the natural log of the exact probability with which [`document`] gives it: a probability
/// over whole texts, which sums to one, so the end of the document is paid for too (a model shows it as a
/// token).
pub struct Document {
    pub text: String,
    pub nats: f64,
    pub kind: Kind,
}

/// A document of the world: plain ASCII which ends with a full stop, one line unless it is a [`Kind::Talk`].
pub fn document(rng: &mut Rng) -> Document {
    let mut draw = Draw::new(rng);
    let kind = draw.weighted(&MIXTURE);
    let text = text_of(kind, &mut draw);
    Document { text, nats: draw.nats, kind }
}

/// What is practised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Practice {
    /// Lines, deeds, new words, judgements.
    Mixed,
    /// Lines above all, mostly few of them, and every one asked for.
    Lines,
}

/// A text for training alone, of what is learned last.
pub fn practice(rng: &mut Rng, of: Practice) -> String {
    let mut draw = Draw::new(rng);
    let kind = match of {
        Practice::Mixed => {
            draw.weighted(&[(Kind::NewWords, 3), (Kind::Lines, 8), (Kind::Judgements, 3), (Kind::Deeds, 6)])
        }
        Practice::Lines => draw.weighted(&[
            (Kind::Lines, 12),
            (Kind::NewWords, 3),
            (Kind::Deeds, 2),
            (Kind::Judgements, 2),
            (Kind::Misspelt, 1),
        ]),
    };
    if kind != Kind::Lines {
        return text_of(kind, &mut draw);
    }
    let (lo, hi, asked) = match of {
        Practice::Mixed => {
            let lo = [2, 4, 8, 16][draw.pick(4)];
            (lo, 2 * lo, lo)
        }
        Practice::Lines => {
            let n = [2, 2, 3, 4, 6, 8, 16, 24][draw.pick(8)];
            (n, n, n.min(10))
        }
    };
    written(lines(&mut draw, lo, hi, asked))
}

fn text_of(kind: Kind, draw: &mut Draw) -> String {
    match kind {
        Kind::Facts => facts(draw),
        Kind::Story => story(draw, 1, 3).text(),
        Kind::Sums => several(draw, 2, 4, |draw| sum(draw, &world().sums)),
        Kind::Classes => several(draw, 2, 3, class),
        Kind::Judgements => several(draw, 2, 3, judgement),
        Kind::Recall => several(draw, 2, 4, recall),
        Kind::NewWords => written(new_words(draw, Kept::Shown, 2)),
        Kind::Unknowns => several(draw, 2, 3, |draw| unknown(draw, Kept::Shown)),
        Kind::Misspelt => several(draw, 2, 3, |draw| misspelt(draw, Kept::Shown).0),
        Kind::Deeds => several(draw, 1, 2, deed),
        Kind::Steps => steps(draw, 2, 4).text(),
        Kind::Instructions => several(draw, 1, 3, instruction),
        Kind::Talk => talk(draw).cloze().text(),
        Kind::Lines => written(lines(draw, 8, 36, 4)),
    }
}

/// What is said, then what is asked of it.
fn written((said, asked): (String, Vec<Cloze>)) -> String {
    asked.iter().fold(said, |text, cloze| format!("{text} {}", cloze.text()))
}

/// So many sentences, each drawn on its own.
fn several(draw: &mut Draw, lo: usize, hi: usize, sentence: impl Fn(&mut Draw) -> Cloze) -> String {
    let sentences: Vec<String> = (0..draw.between(lo, hi)).map(|_| sentence(draw).text()).collect();
    sentences.join(" ")
}

/// Several facts about one person, or one kind of fact about several subjects. (At least three, each
/// different, so the one is never the other.)
fn facts(draw: &mut Draw) -> String {
    let facts = &world().facts;
    let about_one = draw.weighted(&[(true, 3), (false, 2)]);
    let mut used = Vec::new();
    let sentences: Vec<String> = if about_one {
        let person = draw.pick(PEOPLE.len());
        let mut next = |draw: &mut Draw| facts[draw.fresh(&mut used, OF_PEOPLE)][person];
        (0..draw.between(3, 5)).map(|_| statement(next(draw)).text()).collect()
    } else {
        let same = &facts[draw.pick(RELATIONS.len())];
        let mut next = |draw: &mut Draw| same[draw.fresh(&mut used, same.len())];
        (0..draw.between(3, 4)).map(|_| statement(next(draw)).text()).collect()
    };
    sentences.join(" ")
}
