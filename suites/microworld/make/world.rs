//! A small invented world, and the sentences that can be said in it.
//!
//! The built-in model is trained on text from here, so that we know two things no found text can tell: what
//! there was to learn, and how well it can be predicted at best. The world is forty people, twelve towns,
//! sixty made-up words in six classes, and the facts that join them; it is drawn once, from [`WORLD`]. A
//! document says some of it in one of six ways ([`Kind`]). Two ideas carry the file:
//!
//! * **Every choice is paid for.** A document draws all its choices through [`Draw`], which adds up minus the
//!   log of their probabilities; and two different runs of choices never give the same text. Hence
//!   `exp(-document.nats)` is *exactly* the probability of that text (its end included), and the mean of
//!   `nats` over documents estimates the entropy of the source: the loss that a perfect model would reach.
//! * **Every sentence is a question.** A sentence is kept as a [`Cloze`]: what leads up to the answer, the
//!   answer, and answers that would have fitted in its place. A document writes out the first two; a question
//!   of multiple choice shows all three. So questions come in exactly the words that the model was taught in.
//!
//! Texts come from integer arithmetic alone: a seed gives the same bytes on every machine, for ever.

use std::collections::HashSet;
use std::sync::OnceLock;

/// The seed of the world itself: who lives where, what eats what. Another seed is another world.
pub const WORLD: u64 = 1;

// ------------------------------------------------------------------------------------------------ chance

/// SplitMix64 (Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014;
/// constants as in Vigna's public-domain <https://prng.di.unimi.it/splitmix64.c>). Written out so that no
/// update of a crate can change the world.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }
}

/// The finalizer of SplitMix64; also the hash that decides which sums are held out.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where choices come from: chance, or (in the tests) a script that tries them all.
trait Dice {
    /// One of `0..n`, each equally likely; `n` is at least one.
    fn below(&mut self, n: usize) -> usize;
}

impl Dice for Rng {
    fn below(&mut self, n: usize) -> usize {
        let n = n as u64;
        let surplus = n.wrapping_neg() % n; // 2^64 mod n: drop that many values, and n divides the rest
        loop {
            let x = self.next_u64();
            if x >= surplus {
                return (x % n) as usize;
            }
        }
    }
}

/// Makes choices and keeps account of what they cost. The only way from [`Dice`] to a text.
struct Draw<'a> {
    dice: &'a mut dyn Dice,
    nats: f64,
}

impl<'a> Draw<'a> {
    fn new(dice: &'a mut dyn Dice) -> Self {
        Draw { dice, nats: 0.0 }
    }

    /// One of `0..n`, each equally likely.
    fn pick(&mut self, n: usize) -> usize {
        self.nats += (n as f64).ln();
        self.dice.below(n)
    }

    /// One of `lo..=hi`, each equally likely.
    fn between(&mut self, lo: usize, hi: usize) -> usize {
        lo + self.pick(hi - lo + 1)
    }

    /// One of the options, in proportion to its weight.
    fn weighted<T: Copy, const N: usize>(&mut self, options: &[(T, usize); N]) -> T {
        let total: usize = options.iter().map(|(_, weight)| weight).sum();
        let mut ticket = self.dice.below(total);
        let mut chosen = 0;
        while ticket >= options[chosen].1 {
            ticket -= options[chosen].1;
            chosen += 1;
        }
        self.nats -= (options[chosen].1 as f64 / total as f64).ln();
        options[chosen].0
    }

    /// One of those of `0..n` that are not in `used`, each equally likely; it is then in `used`. Called again
    /// and again it draws an ordered sample without replacement, whose order is paid for because the text
    /// shows it.
    fn fresh(&mut self, used: &mut Vec<usize>, n: usize) -> usize {
        let mut rank = self.pick(n - used.len());
        let mut sorted = used.clone();
        sorted.sort_unstable();
        for taken in sorted {
            if rank >= taken {
                rank += 1;
            }
        }
        used.push(rank);
        rank
    }
}

// ------------------------------------------------------------------------------------------------- words

// Written out, not assembled from syllables by chance: so somebody has read them. All invented words begin
// with a consonant sound, so that "a" is always right.

#[rustfmt::skip]
const PEOPLE: [&str; 40] = [
    "Tavo", "Mirel", "Orsun", "Kelda", "Dunor", "Hesmi", "Jarro", "Lunet", "Pavik", "Rilsa",
    "Sorvin", "Bexa", "Caldo", "Dessu", "Elvik", "Fanno", "Gorim", "Hadri", "Ilset", "Jomar",
    "Kirra", "Lodan", "Mavel", "Nerro", "Ostri", "Petka", "Quilo", "Resna", "Sefti", "Tulan",
    "Ulmer", "Vasko", "Wendo", "Yorla", "Zebin", "Ansul", "Belto", "Corvi", "Dimra", "Essol",
];
#[rustfmt::skip]
const TOWNS: [&str; 12] = [
    "Ombra", "Tessel", "Durnow", "Calva", "Wexim", "Yarrod", "Stelm", "Quorle", "Nimbeth", "Hollam", "Pirro",
    "Zandle",
];
#[rustfmt::skip]
const TRADES: [&str; 12] = [
    "baker", "smith", "weaver", "miller", "potter", "tailor", "sailor", "farmer", "doctor", "teacher",
    "painter", "singer",
];
const COLOURS: [&str; 8] = ["red", "blue", "green", "yellow", "white", "black", "brown", "grey"];
const THINGS: [&str; 10] = ["lamp", "coin", "key", "book", "cup", "ring", "bell", "drum", "rope", "box"];
const SOUNDS: [&str; 10] =
    ["kree", "moop", "hurro", "zizz", "pokko", "wuwu", "niff", "gallo", "shuu", "yeep"];

const ANIMALS: [&str; 10] = ["brin", "corl", "fenk", "gorv", "jurl", "lisk", "morp", "nalt", "prell", "twim"];
const FOODS: [&str; 10] =
    ["pelm", "bisto", "dorrel", "ganti", "havo", "kubbin", "lomo", "mundel", "sarro", "tippo"];
const PLANTS: [&str; 10] =
    ["thurl", "vesh", "holn", "yarl", "drosk", "bremm", "sneth", "wolt", "zelk", "plun"];
const STONES: [&str; 10] =
    ["garn", "kodd", "ruvik", "stolm", "tarz", "vorn", "drell", "nukk", "pliss", "shurm"];
const GARMENTS: [&str; 10] =
    ["sarl", "tuvet", "lappin", "jessum", "robbel", "kirrel", "mantu", "pobby", "hulla", "dastin"];
const TOOLS: [&str; 10] =
    ["dolm", "marp", "pindo", "grask", "telv", "snurp", "hocken", "vemmer", "trosp", "blick"];

/// A class of words: that a brin is an animal is known only from being told.
struct Class {
    one: &'static str,
    many: &'static str,
    words: &'static [&'static str; 10],
}

const CLASSES: [Class; 6] = [
    Class { one: "an animal", many: "animals", words: &ANIMALS },
    Class { one: "a food", many: "foods", words: &FOODS },
    Class { one: "a plant", many: "plants", words: &PLANTS },
    Class { one: "a stone", many: "stones", words: &STONES },
    Class { one: "a garment", many: "garments", words: &GARMENTS },
    Class { one: "a tool", many: "tools", words: &TOOLS },
];

/// A kind of fact, and the ways to say it. In the templates S stands for the subject, V for the value.
struct Relation {
    subjects: &'static [&'static str],
    values: &'static [&'static str],
    /// As a statement; V is its last word.
    state: &'static str,
    /// As a question with its answer; V is its last word.
    recall: &'static str,
    /// As a question to be judged.
    judge: &'static str,
}

/// How many of [`RELATIONS`], from the first, are about people.
const OF_PEOPLE: usize = 5;

#[rustfmt::skip]
const RELATIONS: [Relation; 10] = [
    Relation {
        subjects: &PEOPLE, values: &TOWNS,
        state: "S lives in V.", recall: "Where does S live? In V.", judge: "does S live in V?",
    },
    Relation {
        subjects: &PEOPLE, values: &TRADES,
        state: "S is a V.", recall: "What is the trade of S? A V.", judge: "is S a V?",
    },
    Relation {
        subjects: &PEOPLE, values: &ANIMALS,
        state: "S keeps a V.", recall: "What does S keep? A V.", judge: "does S keep a V?",
    },
    Relation {
        subjects: &PEOPLE, values: &FOODS,
        state: "S likes the V.", recall: "What does S like? The V.", judge: "does S like the V?",
    },
    Relation {
        subjects: &PEOPLE, values: &COLOURS,
        state: "S wears V.", recall: "Which colour does S wear? Always V.", judge: "does S wear V?",
    },
    Relation {
        subjects: &ANIMALS, values: &PLANTS,
        state: "A S eats a V.", recall: "What does a S eat? A V.", judge: "does a S eat a V?",
    },
    Relation {
        subjects: &ANIMALS, values: &SOUNDS,
        state: "A S says V.", recall: "What does a S say? It says V.", judge: "does a S say V?",
    },
    Relation {
        subjects: &TOWNS, values: &STONES,
        state: "S is made of V.", recall: "What is S made of? Of V.", judge: "is S made of V?",
    },
    Relation {
        subjects: &TOWNS, values: &GARMENTS,
        state: "In S they sell a V.", recall: "What do they sell in S? A V.", judge: "do they sell a V in S?",
    },
    Relation {
        subjects: &TRADES, values: &TOOLS,
        state: "A S needs a V.", recall: "What does a S need? A V.", judge: "does a S need a V?",
    },
];

/// Fills a template. Its only capital S and V are the placeholders: the tests hold this.
fn fill(template: &str, subject: &str, value: &str) -> String {
    let mut text = String::with_capacity(64);
    for c in template.chars() {
        match c {
            'S' => text.push_str(subject),
            'V' => text.push_str(value),
            _ => text.push(c),
        }
    }
    text
}

// ------------------------------------------------------------------------------------------------- world

/// A fact: `RELATIONS[relation]` holds between `subjects[subject]` and `values[value]`.
#[derive(Clone, Copy)]
struct Fact {
    relation: usize,
    subject: usize,
    value: usize,
}

/// `a` plus `b`, or, taken the other way round, what is left when `b` is taken from their sum.
#[derive(Clone, Copy)]
struct Sum {
    a: usize,
    b: usize,
    minus: bool,
}

struct World {
    /// Relation by relation, subject by subject.
    facts: Vec<Vec<Fact>>,
    /// The sums that documents may show, and those that they never do.
    sums: Vec<Sum>,
    new_sums: Vec<Sum>,
}

/// The largest operand of a sum, and the largest number in a comparison.
const LARGEST_OPERAND: usize = 13;
const LARGEST_COMPARED: usize = 30;

/// One family of sums in eight is never shown. A family goes as a whole (7 plus 12, 12 plus 7, 19 minus 7, 19
/// minus 12), or else the others would give the answer away.
fn held_out(a: usize, b: usize) -> bool {
    let family = (a.min(b) * 256 + a.max(b)) as u64;
    mix(WORLD ^ (family << 16)).is_multiple_of(8)
}

fn world() -> &'static World {
    static ONCE: OnceLock<World> = OnceLock::new();
    ONCE.get_or_init(|| {
        let mut rng = Rng::new(WORLD);
        let facts = RELATIONS.iter().enumerate().map(|(relation, r)| {
            // Every value about equally often, so that no answer is better than another before the facts are
            // known.
            let mut values: Vec<usize> = (0..r.subjects.len()).map(|i| i % r.values.len()).collect();
            for i in (1..values.len()).rev() {
                values.swap(i, rng.below(i + 1));
            }
            values.into_iter().enumerate().map(|(subject, value)| Fact { relation, subject, value }).collect()
        });
        let facts = facts.collect();
        let operands = 0..=LARGEST_OPERAND;
        let pairs = operands.clone().flat_map(|a| operands.clone().map(move |b| (a, b)));
        let sums = pairs.flat_map(|(a, b)| [false, true].map(|minus| Sum { a, b, minus }));
        let (new_sums, sums) = sums.partition(|s| held_out(s.a, s.b));
        World { facts, sums, new_sums }
    })
}

/// Any fact of the world, each equally likely.
fn any_fact(draw: &mut Draw) -> Fact {
    let facts = &world().facts;
    let mut rank = draw.pick(facts.iter().map(Vec::len).sum());
    let mut relation = 0;
    while rank >= facts[relation].len() {
        rank -= facts[relation].len();
        relation += 1;
    }
    facts[relation][rank]
}

// --------------------------------------------------------------------------------------------- sentences

/// Something said in the world: `prompt` + `ending` is the text; each of `others`, in place of `ending`, is
/// what could be taken for it and is wrong.
struct Cloze {
    prompt: String,
    ending: String,
    others: Vec<String>,
}

impl Cloze {
    /// A template that ends in V, cut before V.
    fn of_fact(template: &str, fact: Fact) -> Self {
        let r = &RELATIONS[fact.relation];
        let lead = template.trim_end_matches(" V.");
        let others = r.values.iter().enumerate().filter(|(i, _)| *i != fact.value);
        Cloze {
            prompt: fill(lead, r.subjects[fact.subject], ""),
            ending: fill(" V.", "", r.values[fact.value]),
            others: others.map(|(_, v)| fill(" V.", "", v)).collect(),
        }
    }

    fn text(&self) -> String {
        format!("{}{}", self.prompt, self.ending)
    }
}

fn statement(fact: Fact) -> Cloze {
    Cloze::of_fact(RELATIONS[fact.relation].state, fact)
}

/// "Where does Tavo live? In Ombra."
fn recall(draw: &mut Draw) -> Cloze {
    let fact = any_fact(draw);
    Cloze::of_fact(RELATIONS[fact.relation].recall, fact)
}

/// "7 plus 12 is 19." or "19 minus 12 is 7."; the wrong answers are off by one, two or ten.
fn sum(draw: &mut Draw, sums: &[Sum]) -> Cloze {
    let Sum { a, b, minus } = sums[draw.pick(sums.len())];
    let (prompt, answer) =
        if minus { (format!("{} minus {b} is", a + b), a) } else { (format!("{a} plus {b} is"), a + b) };
    let near = [-10, -2, -1, 1, 2, 10].into_iter().filter_map(|d| answer.checked_add_signed(d));
    Cloze { prompt, ending: format!(" {answer}."), others: near.map(|n| format!(" {n}.")).collect() }
}

/// "A dolm is a tool." or "The dolm, the marp and the telv are tools."
fn class(draw: &mut Draw) -> Cloze {
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
enum About {
    Fact,
    Class,
    Size,
}

/// "Question: does Tavo live in Ombra? Answer: yes." As often no as yes, whatever it is about; what is asked
/// about in place of the truth is any other value.
fn judgement(draw: &mut Draw) -> Cloze {
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

const YES: &str = " yes.";
const NO: &str = " no.";

/// The truth, or with the same probability any of the other values; and whether it is the truth.
fn perhaps(draw: &mut Draw, truth: usize, n: usize) -> (usize, bool) {
    match draw.pick(2) == 0 {
        true => (truth, true),
        false => (draw.fresh(&mut vec![truth], n), false),
    }
}

/// What happens in a story.
#[derive(Clone, Copy)]
enum Step {
    Go,
    Give,
    Meet,
    See,
}

/// A story: somebody goes somewhere and finds a thing; it travels with whoever has it; the last sentence asks
/// of the reader who that is, where it has come to, or which of the things seen it was. Nobody, no town and
/// no thing comes twice, so that the answer is never in doubt, and others are there to be mistaken for it.
/// There are so many stories that of those asked about, about one in a thousand is among fifty thousand read
/// before.
fn story(draw: &mut Draw) -> Cloze {
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
    for _ in 0..draw.between(1, 3) {
        match draw.weighted(&[(Step::Go, 3), (Step::Give, 3), (Step::Meet, 1), (Step::See, 1)]) {
            Step::Go => {
                town = somewhere(draw, &mut towns);
                prompt += &format!(" {holder} went to {town}.");
            }
            Step::Give => {
                let next = somebody(draw, &mut people);
                prompt += &format!(" {holder} gave the {found} to {next}.");
                holder = next;
            }
            Step::Meet => prompt += &format!(" {holder} met {}.", somebody(draw, &mut people)),
            Step::See => {
                something(draw, &mut objects);
                prompt += &format!(" {holder} saw a {}.", objects[objects.len() - 1]);
            }
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

// --------------------------------------------------------------------------------------------- documents

/// The six ways to say something. The kind of a document shows in its first words, so it needs no mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Facts,
    Story,
    Sums,
    Classes,
    Judgements,
    Recall,
}

/// How many documents in a hundred are of a kind: judgements and sums take longest to learn.
const MIXTURE: [(Kind, usize); 6] = [
    (Kind::Facts, 18),
    (Kind::Story, 18),
    (Kind::Sums, 20),
    (Kind::Classes, 8),
    (Kind::Judgements, 24),
    (Kind::Recall, 12),
];

/// A text, and minus the natural log of the exact probability with which [`document`] gives it: a probability
/// over whole texts, which sums to one, so the end of the document is paid for too (a model shows it as a
/// token).
pub struct Document {
    pub text: String,
    pub nats: f64,
    pub kind: Kind,
}

/// A document of the world: one line of plain ASCII, which ends with a full stop.
pub fn document(rng: &mut Rng) -> Document {
    let mut draw = Draw::new(rng);
    let kind = draw.weighted(&MIXTURE);
    let text = text_of(kind, &mut draw);
    Document { text, nats: draw.nats, kind }
}

fn text_of(kind: Kind, draw: &mut Draw) -> String {
    match kind {
        Kind::Facts => facts(draw),
        Kind::Story => story(draw).text(),
        Kind::Sums => several(draw, 2, 4, |draw| sum(draw, &world().sums)),
        Kind::Classes => several(draw, 2, 3, class),
        Kind::Judgements => several(draw, 2, 3, judgement),
        Kind::Recall => several(draw, 2, 4, recall),
    }
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

// --------------------------------------------------------------------------------------------- questions

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
}

/// A prompt, ways to go on (each begins with a space and ends with a full stop) and which of them is right.
pub struct Question {
    pub prompt: String,
    pub endings: Vec<String>,
    pub gold: usize,
}

/// `n` questions with different prompts, each a text that a document could begin with (but for the operands
/// of [`Topic::NewSums`]); fewer when the topic has no more to ask. The right answer is as often in one place
/// as in another.
pub fn questions(topic: Topic, seed: u64, n: usize) -> Vec<Question> {
    // The seed is mixed with the topic so that topics do not share their luck, nor share it with the
    // documents.
    let mut rng = Rng::new(mix(seed ^ ((topic as u64 + 1) << 56)));
    let mut draw = Draw::new(&mut rng);
    let mut seen = HashSet::new();
    let mut list = Vec::new();
    let mut misses = 0;
    while list.len() < n && misses < 20_000 {
        let cloze = match topic {
            Topic::Facts if draw.pick(2) == 0 => statement(any_fact(&mut draw)),
            Topic::Facts => recall(&mut draw),
            Topic::Sums => sum(&mut draw, &world().sums),
            Topic::NewSums => sum(&mut draw, &world().new_sums),
            Topic::Classes => class(&mut draw),
            Topic::Judgements => judgement(&mut draw),
            Topic::Reading => story(&mut draw),
        };
        let choices = if matches!(topic, Topic::Judgements | Topic::Reading) { 2 } else { 4 };
        let gold = list.len() % choices;
        let unfit = cloze.others.len() + 1 < choices
            || topic == Topic::Judgements && cloze.ending != [YES, NO][gold]
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
        list.push(Question { prompt: cloze.prompt, endings, gold });
    }
    list
}

// ------------------------------------------------------------------------------------------------- tests

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet, HashMap};

    const TOPICS: [Topic; 6] =
        [Topic::Facts, Topic::Sums, Topic::NewSums, Topic::Classes, Topic::Judgements, Topic::Reading];

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
        assert_eq!(fnv(&text(1)), DOCUMENTS);
        assert_ne!(text(1), text(2));
        let asked =
            |topic| questions(topic, 1, 40).into_iter().map(|q| q.prompt + &q.endings.concat() + "\n");
        assert_eq!(fnv(&TOPICS.into_iter().flat_map(asked).collect::<String>()), QUESTIONS);
    }

    /// If these change, the shipped weights and suite are no longer of this world: make them anew.
    const DOCUMENTS: u64 = 10702395218747189366;
    const QUESTIONS: u64 = 10811776879096691747;

    #[test]
    fn every_sentence_has_the_probability_it_claims() {
        assert_eq!(enumerate(|d| recall(d).text()).len(), 256);
        assert_eq!(enumerate(|d| sum(d, &world().sums).text()).len(), world().sums.len());
        assert_eq!(enumerate(|d| class(d).text()).len(), 60 + 6 * 10 * 9 * 8);
        let comparisons = (LARGEST_COMPARED + 1) * LARGEST_COMPARED;
        let of_facts: usize = RELATIONS.iter().map(|r| r.subjects.len() * r.values.len()).sum();
        let judged = enumerate(|d| judgement(d).text());
        assert_eq!(judged.len(), of_facts + 60 * 6 + comparisons);
        let yes: f64 = judged.iter().filter(|(text, _)| text.ends_with(YES)).map(|(_, p)| p).sum();
        assert!((yes - 0.5).abs() < 1e-9);
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
            let text = story(&mut draw).text();
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
        let lists: [&[&str]; 11] = [
            &PEOPLE, &TOWNS, &TRADES, &COLOURS, &THINGS, &SOUNDS, &ANIMALS, &FOODS, &PLANTS, &STONES,
            &GARMENTS,
        ];
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
            for template in [r.state, r.recall, r.judge] {
                let placeholders = template.matches(['S', 'V']).count();
                let alone = template.split([' ', '.', '?']).filter(|w| *w == "S" || *w == "V").count();
                assert_eq!((placeholders, alone), (2, 2), "{template}");
            }
            assert!(r.state.ends_with(" V.") && r.recall.ends_with(" V."));
        }
        assert_eq!(world().sums.len() + world().new_sums.len(), 2 * (LARGEST_OPERAND + 1).pow(2));
        assert!((30..=70).contains(&world().new_sums.len()));
    }

    /// What documents say agrees with what the questions hold for right, and nothing says otherwise.
    #[test]
    fn documents_and_questions_agree() {
        let mut rng = Rng::new(11);
        let mut said = HashSet::new();
        let mut words = BTreeSet::new();
        for _ in 0..100_000 {
            let Document { text, nats, .. } = document(&mut rng);
            assert!((8..=60).contains(&text.split(' ').count()), "{text}");
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
                if topic == Topic::Judgements {
                    assert_eq!(q.endings, [YES, NO]);
                }
                if topic == Topic::Reading {
                    assert!(q.endings.iter().all(|e| q.prompt.contains(e.trim_end_matches('.'))));
                    continue;
                }
                for (i, ending) in q.endings.iter().enumerate() {
                    let found = said.contains(format!("{}{ending}", q.prompt).trim_end_matches('.'));
                    let rare = topic == Topic::Judgements || q.prompt.starts_with("The ");
                    assert!(
                        found == (i == q.gold && topic != Topic::NewSums) || rare && !found,
                        "{}",
                        q.prompt
                    );
                }
            }
            assert!(golds.values().max().unwrap() - golds.values().min().unwrap() <= 1, "{golds:?}");
        }
        assert!(words.len() < 350, "{}", words.len());
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
}
