//! Questions: a sentence of the world with its answer held back, and other answers beside it.
use super::{
    chance::{Draw, Rng, mix},
    context::{UNKNOWN, deed, misspelt, new_words, unknown},
    doing::{Talk, instruction, lines, steps, talk},
    facts::{any_fact, world},
    sentences::{Cloze, YES, class, judgement, recall, statement, story, sum},
    words::Kept,
};
use std::collections::HashSet;

/// What a set of questions examines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// Facts, stated or asked for: was it remembered? Four endings.
    Facts,
    /// Sums that documents show: four endings, near misses.
    Sums,
    /// Sums that documents never show.
    NewSums,
    /// Which class a word, or three, is of: four endings.
    Classes,
    /// Yes or no, as often the one as the other; always in this order.
    Judgements,
    /// The last sentence of a new story: two endings, both of them present in the story.
    Reading,
    /// Which class a word is of that no document shows, from what is done with it: four endings.
    NewWords,
    /// A fact, or that nothing is known of a name that no document shows; always in this order.
    Unknowns,
    /// Facts asked for under a misspelt name that no document shows: four endings.
    Misspelt,
    /// Right or wrong, as often the one as the other; always in this order.
    Deeds,
    /// Sums of three or four steps, to be written out.
    Steps,
    /// Words to be said as one is told.
    Instructions,
    /// The second answer of a conversation.
    Talk,
    /// A line of many once more: four endings, of which three stand in no line.
    Lines,
    /// The last sentence of a story much longer than any document: four endings, all of them present in the story.
    LongStory,
}

/// A prompt, ways to go on (each begins with a space and ends with a full stop) and which of them is right. Where the answer is
/// to be written, it is the only one.
pub struct Question {
    pub prompt: String,
    pub endings: Vec<String>,
    pub gold: usize,
    /// The prompt before it was misspelt.
    pub clean: Option<String>,
    /// Of a conversation: its first question and answer, and the second question.
    pub turns: Option<[String; 3]>,
}

/// How many endings a topic's questions have.
fn choices(topic: Topic) -> usize {
    match topic {
        Topic::Judgements | Topic::Reading | Topic::Unknowns | Topic::Deeds => 2,
        Topic::Steps | Topic::Instructions | Topic::Talk => 1,
        _ => 4,
    }
}

/// The ending that always comes first, where there is one.
fn first(topic: Topic, cloze: &Cloze) -> Option<bool> {
    match topic {
        Topic::Judgements => Some(cloze.ending == YES),
        Topic::Deeds => Some(cloze.ending == super::context::RIGHT),
        Topic::Unknowns => Some(cloze.ending != UNKNOWN),
        _ => None,
    }
}

/// `n` questions with different prompts, each a text that a document could begin with (but for what documents never show);
/// fewer when the topic has no more to ask. The right answer is as often in one place as in another.
pub fn questions(topic: Topic, seed: u64, n: usize) -> Vec<Question> {
    // The seed is mixed with the topic so that topics do not share their luck, nor share it with the documents.
    let mut rng = Rng::new(mix(seed ^ ((topic as u64 + 1) << 56)));
    let mut draw = Draw::new(&mut rng);
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    let mut misses = 0;
    while list.len() < n && misses < 20_000 {
        let (mut clean, mut turns) = (None, None);
        let cloze = match topic {
            Topic::Facts if draw.pick(2) == 0 => statement(any_fact(&mut draw)),
            Topic::Facts => recall(&mut draw),
            Topic::Sums => sum(&mut draw, &world().sums),
            Topic::NewSums => sum(&mut draw, &world().new_sums),
            Topic::Classes => class(&mut draw),
            Topic::Judgements => judgement(&mut draw),
            Topic::Reading => story(&mut draw, 1, 3),
            Topic::LongStory => story(&mut draw, 12, 24),
            Topic::NewWords => only(new_words(&mut draw, Kept::Unseen, 1)),
            Topic::Unknowns => unknown(&mut draw, Kept::Unseen),
            Topic::Misspelt => {
                let (cloze, meant) = misspelt(&mut draw, Kept::Unseen);
                clean = Some(meant);
                cloze
            }
            Topic::Deeds => deed(&mut draw),
            Topic::Steps => steps(&mut draw, 3, 4),
            Topic::Instructions => instruction(&mut draw),
            Topic::Talk => {
                let talk = talk(&mut draw);
                let Talk { first, answer, second, .. } = &talk;
                turns = Some([first.clone(), answer.trim().to_string(), second.clone()]);
                talk.cloze()
            }
            Topic::Lines => only(lines(&mut draw, 12, 36, 1)),
        };
        let choices = choices(topic);
        let gold = list.len() % choices;
        let unfit = cloze.others.len() + 1 < choices
            || first(topic, &cloze).is_some_and(|first| first != (gold == 0))
            || !seen.insert(cloze.prompt.clone());
        if unfit {
            misses += 1;
            continue;
        }
        misses = 0;
        let mut used = Vec::new();
        let mut endings: Vec<String> =
            (1..choices).map(|_| cloze.others[draw.fresh(&mut used, cloze.others.len())].clone()).collect();
        endings.insert(gold, cloze.ending);
        list.push(Question { prompt: cloze.prompt, endings, gold, clean, turns });
    }
    list
}

/// The one question behind what is said.
fn only((said, asked): (String, Vec<Cloze>)) -> Cloze {
    asked.into_iter().next_back().unwrap().after(&said)
}
