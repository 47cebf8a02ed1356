//! Memory in huge pages.
//!
//! Whoever walks over much memory at once waits for translations of addresses
//! too, and the hardware's prefetching ends with a page. A page of 2 MiB instead
//! of 4 KiB makes both rare.

use std::ops::Range;

/// Of x86-64, and of ARM with pages of 4 KiB.
const HUGE: usize = 2 << 20;
/// Ranges with less between them are taken together.
const GAP: usize = HUGE;

/// Asks the kernel to move these addresses of this process, from the first to before the last, into huge pages. A wish:
/// where the kernel has none, or its administrator wants none, everything stays where it is.
///
/// The kernel copies the memory on the way, so this is for what is walked over again and again.
#[cfg(target_os = "linux")]
pub fn prefer_huge(ranges: impl IntoIterator<Item = Range<usize>>) {
    let setting = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    if setting.is_empty() || setting.contains("[never]") {
        return;
    }
    for Range { start, end } in whole_pages(ranges) {
        for advice in [libc::MADV_HUGEPAGE, libc::MADV_COLLAPSE] {
            // SAFETY: both only change how the kernel keeps the pages, not what is in them; addresses that are not
            // mapped are an error of the call, which a wish may ignore.
            unsafe { libc::madvise(start as *mut libc::c_void, end - start, advice) };
        }
    }
}

/// Elsewhere the system decides alone.
#[cfg(not(target_os = "linux"))]
pub fn prefer_huge(_: impl IntoIterator<Item = Range<usize>>) {}

/// The huge pages that lie wholly within the ranges, neighbours joined.
fn whole_pages(ranges: impl IntoIterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = ranges.into_iter().collect();
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    let pages = joined.into_iter().map(|range| range.start.next_multiple_of(HUGE)..range.end / HUGE * HUGE);
    pages.filter(|range| range.start < range.end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_lie_within_the_ranges_and_neighbours_are_one() {
        let far = 10 * HUGE;
        let ranges = [far + 5..far + 3 * HUGE + 7, 100..HUGE, HUGE + 5..2 * HUGE + 1, 20 * HUGE + 1..21 * HUGE];
        assert_eq!(whole_pages(ranges), [HUGE..2 * HUGE, far + HUGE..far + 3 * HUGE]);
        assert!(whole_pages([]).is_empty());
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn memory_keeps_its_content() {
        let words: Vec<u64> = (0..(16 << 20) / 8).collect();
        let range = words.as_ptr() as usize..words.as_ptr() as usize + (16 << 20);
        prefer_huge([range.clone()]);
        assert!(words.iter().zip(0..).all(|(&word, wanted)| word == wanted));
    }
}
