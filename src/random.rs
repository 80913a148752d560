//! CPython's random numbers, so that a draw here is the draw of a tool written in Python. A leaf: imports nothing of
//! ours.
//!
//! The generator is MT19937 (Matsumoto and Nishimura, 1998), seeded as CPython's `random.Random` seeds it; what stands
//! on it follows `Lib/random.py` as of 3.11. `tests/requests.rs` holds each to Python's own values.
use sha2::{Digest, Sha512};

const N: usize = 624;
const M: usize = 397;

/// `random.Random`.
#[derive(Clone)]
pub struct Random {
    state: [u32; N],
    next: usize,
}

impl Random {
    /// `Random(seed)` of a whole number.
    pub fn new(seed: u64) -> Self {
        Self::from_words(&[seed as u32, (seed >> 32) as u32])
    }

    /// `Random(seed)` of a text: the number that its bytes and their sha512 are, the first byte highest.
    pub fn of_text(seed: &str) -> Self {
        let mut bytes = seed.as_bytes().to_vec();
        bytes.extend(Sha512::digest(seed.as_bytes()));
        let words: Vec<u32> =
            bytes.rchunks(4).map(|c| c.iter().fold(0, |w, &b| (w << 8) | u32::from(b))).collect();
        Self::from_words(&words)
    }

    /// `init_by_array`, with the number's words from the lowest; zeros above its highest do not count.
    fn from_words(words: &[u32]) -> Self {
        let used = words.iter().rposition(|&w| w != 0).map_or(1, |i| i + 1);
        let key = &words[..used];
        let mut state = [0u32; N];
        state[0] = 19_650_218;
        let mix = |before: u32, by: u32| (before ^ (before >> 30)).wrapping_mul(by);
        for i in 1..N {
            state[i] = mix(state[i - 1], 1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        let step = |state: &mut [u32; N], i: &mut usize| {
            *i += 1;
            if *i >= N {
                state[0] = state[N - 1];
                *i = 1;
            }
        };
        for _ in 0..N.max(key.len()) {
            let mixed = state[i] ^ mix(state[i - 1], 1_664_525);
            state[i] = mixed.wrapping_add(key[j]).wrapping_add(j as u32);
            step(&mut state, &mut i);
            j = (j + 1) % key.len();
        }
        for _ in 0..N - 1 {
            let mixed = state[i] ^ mix(state[i - 1], 1_566_083_941);
            state[i] = mixed.wrapping_sub(i as u32);
            step(&mut state, &mut i);
        }
        state[0] = 1 << 31;
        Self { state, next: N }
    }

    /// The next 32 bits.
    fn word(&mut self) -> u32 {
        if self.next == N {
            for i in 0..N {
                let y = (self.state[i] & (1 << 31)) | (self.state[(i + 1) % N] & (u32::MAX >> 1));
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.next = 0;
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `getrandbits(bits)`, up to 64 of them.
    pub fn bits(&mut self, bits: u32) -> u64 {
        assert!(bits <= 64, "{bits} bits do not fit 64");
        let mut value = 0;
        for low in (0..bits).step_by(32) {
            // The last word's highest bits are what counts.
            let want = (bits - low).min(32);
            value |= u64::from(self.word() >> (32 - want)) << low;
        }
        value
    }

    /// `_randbelow(n)`: redrawn until it is below; 0 for 0.
    pub fn below(&mut self, n: u64) -> u64 {
        if n == 0 {
            return 0;
        }
        let bits = 64 - n.leading_zeros();
        loop {
            let drawn = self.bits(bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    fn index(&mut self, n: usize) -> usize {
        self.below(n as u64) as usize
    }

    /// `randint(low, high)`, both ends among the values.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low.wrapping_add(self.below(high.wrapping_sub(low).wrapping_add(1) as u64) as i64)
    }

    /// `random()`: 53 bits from 0 to below 1.
    pub fn unit(&mut self) -> f64 {
        let (high, low) = (self.word() >> 5, self.word() >> 6);
        (f64::from(high) * 67_108_864. + f64::from(low)) / 9_007_199_254_740_992.
    }

    /// `shuffle`.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            let j = self.index(i + 1);
            items.swap(i, j);
        }
    }

    /// `sample(range(n), k)`; `None` where `k` is more than `n`.
    pub fn sample(&mut self, n: usize, k: usize) -> Option<Vec<usize>> {
        if k > n {
            return None;
        }
        // Python asks which takes less room, a list of all or a set of those drawn; the draws depend on the answer.
        let mut room = 21;
        if k > 5 {
            let mut power = 1;
            while power < 3 * k {
                power *= 4;
            }
            room += power;
        }
        if n <= room {
            let mut pool: Vec<usize> = (0..n).collect();
            return Some(
                (0..k)
                    .map(|i| {
                        let j = self.index(n - i);
                        let drawn = pool[j];
                        pool[j] = pool[n - i - 1];
                        drawn
                    })
                    .collect(),
            );
        }
        let mut seen = std::collections::BTreeSet::new();
        Some(
            (0..k)
                .map(|_| {
                    loop {
                        let j = self.index(n);
                        if seen.insert(j) {
                            return j;
                        }
                    }
                })
                .collect(),
        )
    }

    /// One of `choices(range(n), ...)`: with replacement.
    pub fn choice(&mut self, n: usize) -> usize {
        (self.unit() * n as f64) as usize
    }

    /// `choices(range(n), k=k)`.
    pub fn choices(&mut self, n: usize, k: usize) -> Vec<usize> {
        (0..k).map(|_| self.choice(n)).collect()
    }
}
