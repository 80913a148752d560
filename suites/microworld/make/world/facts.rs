//! What is true in the world: facts, and sums. Drawn once, from [`WORLD`].
use super::{
    chance::{Dice, Draw, Rng, mix},
    words::*,
};
use std::sync::OnceLock;

/// The seed of the world itself: who lives where, what eats what. Another seed is another world.
pub const WORLD: u64 = 1;

/// A fact: `RELATIONS[relation]` holds between `subjects[subject]` and `values[value]`.
#[derive(Clone, Copy)]
pub struct Fact {
    pub relation: usize,
    pub subject: usize,
    pub value: usize,
}

/// `a` plus `b`, or, taken the other way round, what is left when `b` is taken from their sum.
#[derive(Clone, Copy)]
pub struct Sum {
    pub a: usize,
    pub b: usize,
    pub minus: bool,
}

pub struct World {
    /// Relation by relation, subject by subject.
    pub facts: Vec<Vec<Fact>>,
    /// The sums that documents may show, and those that they never do.
    pub sums: Vec<Sum>,
    pub new_sums: Vec<Sum>,
}

/// The largest operand of a sum, and the largest number in a comparison.
pub const LARGEST_OPERAND: usize = 13;
pub const LARGEST_COMPARED: usize = 30;

/// One family of sums in eight is never shown. A family goes as a whole (7 plus 12, 12 plus 7, 19 minus 7, 19
/// minus 12), or else the others would give the answer away.
pub fn held_out(a: usize, b: usize) -> bool {
    let family = (a.min(b) * 256 + a.max(b)) as u64;
    mix(WORLD ^ (family << 16)).is_multiple_of(8)
}

pub fn world() -> &'static World {
    pub static ONCE: OnceLock<World> = OnceLock::new();
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
pub fn any_fact(draw: &mut Draw) -> Fact {
    let facts = &world().facts;
    let mut rank = draw.pick(facts.iter().map(Vec::len).sum());
    let mut relation = 0;
    while rank >= facts[relation].len() {
        rank -= facts[relation].len();
        relation += 1;
    }
    facts[relation][rank]
}

/// What can be done with a number, by at most nine and without leaving `0..=`[`LARGEST_RESULT`], so that no sum comes up that
/// is never shown.
pub fn next_sums(from: usize) -> Vec<Sum> {
    let plus = (1..=9).map(|b| Sum { a: from, b, minus: false });
    let minus = (1..=9.min(from)).map(|b| Sum { a: from - b, b, minus: true });
    plus.chain(minus)
        .filter(|s| s.a <= LARGEST_OPERAND && s.a + s.b <= LARGEST_RESULT && !held_out(s.a, s.b))
        .collect()
}

/// The largest number on the way through a sum of several steps.
pub const LARGEST_RESULT: usize = 20;
