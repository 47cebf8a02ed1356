//! Training images that are kept from training, to choose a penalty or an epoch by.

use crate::rng::{Purpose, Stream};

/// Images by their labels: those to train on, and those held out, `count` of a class of so many. They are drawn from
/// `seed`; what differs in `purpose` is drawn independently.
pub fn hold_out(labels: &[i64], seed: u64, purpose: u64, count: impl Fn(usize) -> usize) -> (Vec<usize>, Vec<usize>) {
    let classes = labels.iter().max().map_or(0, |&largest| largest as usize + 1);
    let mut by_class = vec![Vec::new(); classes];
    for (image, &label) in labels.iter().enumerate() {
        by_class[label as usize].push(image);
    }
    let (mut kept, mut held_out) = (Vec::new(), Vec::new());
    for (class, mut members) in by_class.into_iter().enumerate() {
        Stream::new(seed, Purpose::Subset, class as u64, purpose, 0).shuffle(&mut members);
        let (first, rest) = members.split_at(count(members.len()));
        held_out.extend_from_slice(first);
        kept.extend_from_slice(rest);
    }
    kept.sort_unstable();
    held_out.sort_unstable();
    (kept, held_out)
}
