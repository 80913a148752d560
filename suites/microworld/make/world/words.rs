//! The words of the world: lists written out, templates of facts, words coined by rule, and misspellings.
use super::chance::mix;
use std::{
    collections::{HashMap, HashSet},
    sync::OnceLock,
};

// Written out, not assembled from syllables by chance: so somebody has read them. All invented words begin
// with a consonant sound, so that "a" is always right.

#[rustfmt::skip]
pub const PEOPLE: [&str; 40] = [
    "Tavo", "Mirel", "Orsun", "Kelda", "Dunor", "Hesmi", "Jarro", "Lunet", "Pavik", "Rilsa",
    "Sorvin", "Bexa", "Caldo", "Dessu", "Elvik", "Fanno", "Gorim", "Hadri", "Ilset", "Jomar",
    "Kirra", "Lodan", "Mavel", "Nerro", "Ostri", "Petka", "Quilo", "Resna", "Sefti", "Tulan",
    "Ulmer", "Vasko", "Wendo", "Yorla", "Zebin", "Ansul", "Belto", "Corvi", "Dimra", "Essol",
];
#[rustfmt::skip]
pub const TOWNS: [&str; 12] = [
    "Ombra", "Tessel", "Durnow", "Calva", "Wexim", "Yarrod", "Stelm", "Quorle", "Nimbeth", "Hollam", "Pirro",
    "Zandle",
];
#[rustfmt::skip]
pub const TRADES: [&str; 12] = [
    "baker", "smith", "weaver", "miller", "potter", "tailor", "sailor", "farmer", "doctor", "teacher",
    "painter", "singer",
];
pub const COLOURS: [&str; 8] = ["red", "blue", "green", "yellow", "white", "black", "brown", "grey"];
pub const THINGS: [&str; 10] = ["lamp", "coin", "key", "book", "cup", "ring", "bell", "drum", "rope", "box"];
pub const SOUNDS: [&str; 10] =
    ["kree", "moop", "hurro", "zizz", "pokko", "wuwu", "niff", "gallo", "shuu", "yeep"];

pub const ANIMALS: [&str; 10] =
    ["brin", "corl", "fenk", "gorv", "jurl", "lisk", "morp", "nalt", "prell", "twim"];
pub const FOODS: [&str; 10] =
    ["pelm", "bisto", "dorrel", "ganti", "havo", "kubbin", "lomo", "mundel", "sarro", "tippo"];
pub const PLANTS: [&str; 10] =
    ["thurl", "vesh", "holn", "yarl", "drosk", "bremm", "sneth", "wolt", "zelk", "plun"];
pub const STONES: [&str; 10] =
    ["garn", "kodd", "ruvik", "stolm", "tarz", "vorn", "drell", "nukk", "pliss", "shurm"];
pub const GARMENTS: [&str; 10] =
    ["sarl", "tuvet", "lappin", "jessum", "robbel", "kirrel", "mantu", "pobby", "hulla", "dastin"];
pub const TOOLS: [&str; 10] =
    ["dolm", "marp", "pindo", "grask", "telv", "snurp", "hocken", "vemmer", "trosp", "blick"];

/// A class of words: that a brin is an animal is known only from being told.
pub struct Class {
    pub one: &'static str,
    pub many: &'static str,
    pub words: &'static [&'static str; 10],
}

pub const CLASSES: [Class; 6] = [
    Class { one: "an animal", many: "animals", words: &ANIMALS },
    Class { one: "a food", many: "foods", words: &FOODS },
    Class { one: "a plant", many: "plants", words: &PLANTS },
    Class { one: "a stone", many: "stones", words: &STONES },
    Class { one: "a garment", many: "garments", words: &GARMENTS },
    Class { one: "a tool", many: "tools", words: &TOOLS },
];

/// A kind of fact, and the ways to say it. In the templates S stands for the subject, V for the value.
pub struct Relation {
    pub subjects: &'static [&'static str],
    pub values: &'static [&'static str],
    /// As a statement; V is its last word.
    pub state: &'static str,
    /// As a question with its answer; V is its last word.
    pub recall: &'static str,
    /// As a question to be judged.
    pub judge: &'static str,
    /// As a second question about the subject of the first; empty where there is nothing to ask first.
    pub again: &'static str,
}

/// How many of [`RELATIONS`], from the first, are about people.
pub const OF_PEOPLE: usize = 5;

#[rustfmt::skip]
pub const RELATIONS: [Relation; 10] = [
    Relation {
        subjects: &PEOPLE, values: &TOWNS,
        state: "S lives in V.", recall: "Where does S live? In V.", judge: "does S live in V?",
        again: "And where do they live?",
    },
    Relation {
        subjects: &PEOPLE, values: &TRADES,
        state: "S is a V.", recall: "What is the trade of S? A V.", judge: "is S a V?",
        again: "And what is their trade?",
    },
    Relation {
        subjects: &PEOPLE, values: &ANIMALS,
        state: "S keeps a V.", recall: "What does S keep? A V.", judge: "does S keep a V?",
        again: "And what do they keep?",
    },
    Relation {
        subjects: &PEOPLE, values: &FOODS,
        state: "S likes the V.", recall: "What does S like? The V.", judge: "does S like the V?",
        again: "And what do they like?",
    },
    Relation {
        subjects: &PEOPLE, values: &COLOURS,
        state: "S wears V.", recall: "Which colour does S wear? Always V.", judge: "does S wear V?",
        again: "And which colour do they wear?",
    },
    Relation {
        subjects: &ANIMALS, values: &PLANTS,
        state: "A S eats a V.", recall: "What does a S eat? A V.", judge: "does a S eat a V?",
        again: "And what does it eat?",
    },
    Relation {
        subjects: &ANIMALS, values: &SOUNDS,
        state: "A S says V.", recall: "What does a S say? It says V.", judge: "does a S say V?",
        again: "And what does it say?",
    },
    Relation {
        subjects: &TOWNS, values: &STONES,
        state: "S is made of V.", recall: "What is S made of? Of V.", judge: "is S made of V?",
        again: "And what is it made of?",
    },
    Relation {
        subjects: &TOWNS, values: &GARMENTS,
        state: "In S they sell a V.", recall: "What do they sell in S? A V.", judge: "do they sell a V in S?",
        again: "And what do they sell there?",
    },
    Relation {
        subjects: &TRADES, values: &TOOLS,
        state: "A S needs a V.", recall: "What does a S need? A V.", judge: "does a S need a V?",
        again: "",
    },
];

/// Fills a template. Its only capital S and V are the placeholders: the tests hold this.
pub fn fill(template: &str, subject: &str, value: &str) -> String {
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

/// Every word of the lists, in lower case.
fn known() -> HashSet<String> {
    let lists: [&[&str]; 6] = [&PEOPLE, &TOWNS, &TRADES, &COLOURS, &THINGS, &SOUNDS];
    let classes = CLASSES.iter().flat_map(|c| c.words.iter());
    lists.iter().flat_map(|l| l.iter()).chain(classes).map(|w| w.to_lowercase()).collect()
}

/// Words of the six classes, one after the other.
pub fn word(i: usize) -> &'static str {
    CLASSES[i / 10].words[i % 10]
}

/// Which words a text may use: those that documents show, or those kept for questions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Shown,
    Unseen,
}

/// Whether a coined word is kept for questions: one in four, by its letters.
fn unseen(word: &str) -> bool {
    let hash = word.bytes().fold(0xcbf2_9ce4_8422_2325, |h: u64, b| mix(h ^ u64::from(b)));
    hash.is_multiple_of(4)
}

/// Words without a meaning, coined by rule; none is in the lists. They mean what the text around them says, or nothing.
pub fn coined(kept: Kept) -> &'static [String] {
    const FIRST: [&str; 20] = [
        "b", "d", "f", "g", "h", "j", "k", "l", "m", "n", "p", "r", "s", "t", "v", "w", "z", "dr", "kr", "tr",
    ];
    const LAST: [&str; 12] =
        ["lmo", "ska", "vlu", "rbi", "nko", "zda", "gnu", "mpa", "dro", "bli", "sto", "rva"];
    static ONCE: OnceLock<[Vec<String>; 2]> = OnceLock::new();
    let both = ONCE.get_or_init(|| {
        let known = known();
        let all = FIRST.iter().flat_map(|first| {
            ["a", "e", "i", "o", "u"]
                .iter()
                .flat_map(move |v| LAST.iter().map(move |last| [*first, v, last].concat()))
        });
        let (kept, shown) = all.filter(|w| !known.contains(w)).partition(|w| unseen(w));
        [shown, kept]
    });
    &both[kept as usize]
}

/// A word with a capital letter.
pub fn capital(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

/// Ways to get a subject's name wrong, by [`Kept`]: two neighbouring letters change places, or one is written twice; the first
/// letter stays. None is a word of the lists, and none is a misspelling of two of them: so what was meant is never in doubt.
pub fn misspellings(subject: &str, kept: Kept) -> &'static [String] {
    static ONCE: OnceLock<HashMap<&'static str, [Vec<String>; 2]>> = OnceLock::new();
    let all = ONCE.get_or_init(|| {
        let known = known();
        let subjects: HashSet<&str> = RELATIONS.iter().flat_map(|r| r.subjects.iter().copied()).collect();
        let mut often: HashMap<String, usize> = HashMap::new();
        subjects.iter().flat_map(|s| wrong(s)).for_each(|w| *often.entry(w).or_default() += 1);
        let own = |s: &&'static str| {
            let fit = wrong(s).into_iter().filter(|w| often[w] == 1 && !known.contains(&w.to_lowercase()));
            let turn = usize::from(s.as_bytes()[s.len() - 1] % 4);
            let (kept, shown): (Vec<_>, Vec<_>) = fit.enumerate().partition(|(i, _)| i % 4 == turn);
            let words = |list: Vec<(usize, String)>| list.into_iter().map(|(_, w)| w).collect();
            (*s, [words(shown), words(kept)])
        };
        subjects.iter().map(own).collect()
    });
    &all[subject][kept as usize]
}

fn wrong(word: &str) -> Vec<String> {
    let letters: Vec<char> = word.chars().collect();
    let mut list: Vec<String> = Vec::new();
    for i in 1..letters.len() {
        let mut swapped = letters.clone();
        if i + 1 < letters.len() {
            swapped.swap(i, i + 1);
        }
        let mut doubled = letters.clone();
        doubled.insert(i, letters[i]);
        for other in [swapped, doubled] {
            let other: String = other.into_iter().collect();
            if other != word && !list.contains(&other) {
                list.push(other);
            }
        }
    }
    list
}
