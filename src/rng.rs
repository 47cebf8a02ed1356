//! Random streams that depend on nothing but their key.
//!
//! Every draw of the program comes from a stream named by (seed, purpose, three
//! indices), so the same seed gives the same initial weights, order and views
//! whatever the number of workers, and a resumed run needs no saved state.

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};

/// What a stream is used for; part of its key. Never renumber: old runs would not continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Initial weights; first index = parameter.
    Initialisation = 1,
    /// Order of an epoch; first index = epoch.
    Shuffle = 2,
    /// One view of one image; indices = epoch, sample, view.
    View = 3,
    /// Choice of a subset of a data set.
    Subset = 4,
    /// Everything in an evaluation: first index = epoch.
    Evaluation = 5,
}

/// ChaCha8 with the key's own words as its seed: portable and cheap to start (one block).
#[derive(Clone, Debug)]
pub struct Stream(ChaCha8Rng);

impl Stream {
    /// The stream of (`seed`, `purpose`, `a`, `b`, `c`).
    pub fn new(seed: u64, purpose: Purpose, a: u64, b: u64, c: u32) -> Self {
        let mut key = [0u8; 32];
        key[0..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&a.to_le_bytes());
        key[16..24].copy_from_slice(&b.to_le_bytes());
        key[24..28].copy_from_slice(&c.to_le_bytes());
        key[28..32].copy_from_slice(&(purpose as u32).to_le_bytes());
        Stream(ChaCha8Rng::from_seed(key))
    }

    pub fn next_u32(&mut self) -> u32 {
        self.0.next_u32()
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Uniform in [0, 1), 53 bits.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// Uniform in [low, high).
    pub fn range(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }

    /// True with probability `p`.
    pub fn chance(&mut self, p: f64) -> bool {
        self.uniform() < p
    }

    /// Uniform in 0..n without bias (Lemire's method). `n` must not be 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "an empty range has no random member");
        loop {
            let wide = u128::from(self.next_u64()) * u128::from(n);
            if (wide as u64) >= n.wrapping_neg() % n {
                return (wide >> 64) as u64;
            }
        }
    }

    /// Two independent standard normal draws (Box and Muller's transform).
    pub fn normal_pair(&mut self) -> (f64, f64) {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let angle = std::f64::consts::TAU * self.uniform();
        (radius * angle.cos(), radius * angle.sin())
    }

    /// Shuffles in place (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_depends_on_every_part_of_its_key() {
        let first = |seed, purpose, a, b, c| Stream::new(seed, purpose, a, b, c).next_u64();
        let base = first(1, Purpose::View, 2, 3, 4);
        assert_eq!(base, first(1, Purpose::View, 2, 3, 4));
        for other in [
            first(9, Purpose::View, 2, 3, 4),
            first(1, Purpose::Shuffle, 2, 3, 4),
            first(1, Purpose::View, 9, 3, 4),
            first(1, Purpose::View, 2, 9, 4),
            first(1, Purpose::View, 2, 3, 9),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn draws_have_the_moments_of_their_distributions() {
        let mut stream = Stream::new(42, Purpose::View, 0, 0, 0);
        let n = 40_000;
        let (mut sum, mut squares, mut uniform) = (0.0, 0.0, 0.0);
        let mut counts = [0u32; 7];
        for _ in 0..n {
            let (a, b) = stream.normal_pair();
            sum += a + b;
            squares += a * a + b * b;
            uniform += stream.uniform();
            counts[stream.below(7) as usize] += 1;
        }
        // Five standard errors each.
        assert!((sum / (2.0 * n as f64)).abs() < 5.0 / (2.0 * n as f64).sqrt());
        assert!((squares / (2.0 * n as f64) - 1.0).abs() < 5.0 * (2.0 / (2.0 * n as f64)).sqrt());
        assert!((uniform / n as f64 - 0.5).abs() < 5.0 * (1.0 / 12.0f64 / n as f64).sqrt());
        for count in counts {
            assert!((f64::from(count) - n as f64 / 7.0).abs() < 5.0 * (n as f64 * 6.0 / 49.0).sqrt());
        }
    }

    #[test]
    fn a_shuffle_is_a_permutation_and_moves_things() {
        let mut items: Vec<u32> = (0..100).collect();
        Stream::new(7, Purpose::Shuffle, 0, 0, 0).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
