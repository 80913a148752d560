//! Choices, and what they cost.
//!
//! [`Rng`] throws the dice; [`Draw`] is the only way from dice to a text, and adds up minus the log of the probability of
//! every choice it makes.
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
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Where choices come from: chance, or (in the tests) a script that tries them all.
pub trait Dice {
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
pub struct Draw<'a> {
    pub dice: &'a mut dyn Dice,
    pub nats: f64,
}

impl<'a> Draw<'a> {
    pub fn new(dice: &'a mut dyn Dice) -> Self {
        Draw { dice, nats: 0.0 }
    }

    /// One of `0..n`, each equally likely.
    pub fn pick(&mut self, n: usize) -> usize {
        self.nats += (n as f64).ln();
        self.dice.below(n)
    }

    /// One of `lo..=hi`, each equally likely.
    pub fn between(&mut self, lo: usize, hi: usize) -> usize {
        lo + self.pick(hi - lo + 1)
    }

    /// One of the options, in proportion to its weight.
    pub fn weighted<T: Copy, const N: usize>(&mut self, options: &[(T, usize); N]) -> T {
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
    pub fn fresh(&mut self, used: &mut Vec<usize>, n: usize) -> usize {
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
