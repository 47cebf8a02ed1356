//! Which part of an epoch a process makes.

use std::ops::Range;

/// The part of one of `ranks` processes, `rank` from 0, that share the work. The order of an epoch, and so the batches,
/// are the same in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// All of it: the only process.
    #[default]
    Whole,
    /// A contiguous part of every batch. The parts of all ranks cover the batch, in the order of ranks, and differ in
    /// length by one sample at most; a part of a batch smaller than `ranks` may be empty.
    Rows { rank: usize, ranks: usize },
    /// Whole batches: every `ranks`-th, from number `rank` on.
    Batches { rank: usize, ranks: usize },
}

impl Share {
    /// How many of an epoch's `all` batches have something for this process.
    pub fn batches(self, all: usize) -> usize {
        match self {
            Share::Whole | Share::Rows { .. } => all,
            Share::Batches { rank, ranks } => (all + ranks - 1 - rank) / ranks,
        }
    }

    /// Where this process's `number`-th batch, or its part of it, lies in an epoch's order of `samples`.
    ///
    /// # Panics
    /// If there is no such rank.
    pub fn of(self, number: usize, batch_size: usize, samples: usize) -> Range<usize> {
        let batch = |number: usize| number * batch_size..((number + 1) * batch_size).min(samples);
        match self {
            Share::Whole => batch(number),
            Share::Rows { rank, ranks } => {
                assert!(rank < ranks, "rank {rank} of {ranks} processes");
                let batch = batch(number);
                let bound = |rank: usize| batch.start + batch.len() * rank / ranks;
                bound(rank)..bound(rank + 1)
            }
            Share::Batches { rank, ranks } => {
                assert!(rank < ranks, "rank {rank} of {ranks} processes");
                batch(number * ranks + rank)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_cover_a_batch_in_order() {
        for (number, size, samples, ranks) in [(0, 8, 8, 2), (3, 8, 40, 3), (1, 5, 7, 4), (0, 9, 9, 1)] {
            let batch = Share::Whole.of(number, size, samples);
            let mut at = batch.start;
            for rank in 0..ranks {
                let part = Share::Rows { rank, ranks }.of(number, size, samples);
                assert_eq!(part.start, at);
                assert!(part.len().abs_diff(batch.len() / ranks) <= 1);
                at = part.end;
            }
            assert_eq!(at, batch.end);
        }
        assert_eq!(Share::Whole.of(1, 6, 9), 6..9);
    }

    #[test]
    fn batches_of_all_ranks_are_all_batches() {
        let (size, samples) = (4, 27);
        let all: Vec<Range<usize>> = (0..7).map(|number| Share::Whole.of(number, size, samples)).collect();
        for ranks in 1..9 {
            let mut dealt = vec![None; all.len()];
            for rank in 0..ranks {
                let share = Share::Batches { rank, ranks };
                for number in 0..share.batches(all.len()) {
                    dealt[number * ranks + rank] = Some(share.of(number, size, samples));
                }
            }
            assert!(dealt.into_iter().flatten().eq(all.iter().cloned()), "{ranks} ranks");
        }
    }
}
