//! Which samples of every batch a process makes.

use std::ops::Range;

/// One of `ranks` processes that train together: it makes a contiguous part of every batch. The order of an epoch, and so
/// the batches, are the same in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    /// From 0.
    pub rank: usize,
    /// At least 1.
    pub ranks: usize,
}

impl Share {
    /// All of it: the only process.
    pub const WHOLE: Share = Share { rank: 0, ranks: 1 };

    /// The part of a batch that lies at `batch` in the epoch's order. The parts of all ranks cover the batch, in the order
    /// of ranks, and differ in length by one sample at most; a part of a batch smaller than `ranks` may be empty.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn of(self, batch: Range<usize>) -> Range<usize> {
        assert!(self.rank < self.ranks, "rank {} of {} processes", self.rank, self.ranks);
        let bound = |rank: usize| batch.start + batch.len() * rank / self.ranks;
        bound(self.rank)..bound(self.rank + 1)
    }
}

impl Default for Share {
    fn default() -> Self {
        Share::WHOLE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_cover_a_batch_in_order() {
        for (start, length, ranks) in [(0, 8, 2), (24, 8, 3), (5, 2, 4), (7, 0, 2), (3, 9, 1)] {
            let mut at = start;
            for rank in 0..ranks {
                let part = Share { rank, ranks }.of(start..start + length);
                assert_eq!(part.start, at);
                assert!(part.len().abs_diff(length / ranks) <= 1);
                at = part.end;
            }
            assert_eq!(at, start + length);
        }
        assert_eq!(Share::WHOLE.of(3..9), 3..9);
    }
}
