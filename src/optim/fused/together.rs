//! One large parameter on all threads at once.
//!
//! A thread that walks a large parameter by itself has read more than its share
//! of the cache holds when it turns back for the update, and reads it from
//! memory again. Together the threads hold one parameter at a time, and what the
//! norms have read is still there. The sums are those of blocks, added in the
//! order of the blocks: the bits are those of one thread.

use super::{BLOCK, Gradient, Rule, Work, sums, trust, walk_back};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Fewer numbers than this are one thread's work.
pub(super) const LARGE: usize = 1 << 19;
/// Looks at whether the others have arrived before the core is offered to somebody else.
const PATIENCE: usize = 1 << 12;

/// A parameter that all threads work on.
pub(super) struct Shared<'a> {
    gradient: Gradient,
    rule: Rule,
    /// One a thread, until it takes it.
    parts: Vec<Mutex<Option<Part<'a>>>>,
    /// Of every block of each part: the squares of the values and of the decayed gradients.
    sums: Vec<OnceLock<Vec<(f32, f32)>>>,
    /// Threads whose sums are there.
    arrived: AtomicUsize,
}

/// What one thread does of it.
struct Part<'a> {
    value: &'a mut [f32],
    buffer: &'a mut [f32],
    range: Range<usize>,
}

impl<'a> Shared<'a> {
    /// Cuts a parameter into a part for each of so many threads.
    pub fn new(work: Work<'a>, threads: usize) -> Shared<'a> {
        let Work { mut value, gradient, mut buffer, rule } = work;
        let (numbers, blocks) = (value.len(), value.len().div_ceil(BLOCK));
        let bound = |thread: usize| (blocks * thread / threads * BLOCK).min(numbers);
        let parts = (0..threads).map(|thread| {
            let range = bound(thread)..bound(thread + 1);
            let (own_value, own_buffer);
            (own_value, value) = std::mem::take(&mut value).split_at_mut(range.len());
            (own_buffer, buffer) = std::mem::take(&mut buffer).split_at_mut(range.len());
            Mutex::new(Some(Part { value: own_value, buffer: own_buffer, range }))
        });
        let parts = parts.collect();
        let sums = (0..threads).map(|_| OnceLock::new()).collect();
        Shared { gradient, rule, parts, sums, arrived: AtomicUsize::new(0) }
    }

    /// The step of one thread's part. Every thread has to come, once, each with a number of its own.
    pub fn run(&self, thread: usize) {
        let part = self.parts[thread].lock().unwrap_or_else(PoisonError::into_inner).take();
        let Part { value, buffer, range } = part.expect("every thread comes once");
        let gradient = &self.gradient.numbers()[range];
        let Some(eeta) = self.rule.eeta else { return walk_back(value, gradient, buffer, self.rule, 1.0) };
        let own = sums(value, gradient, self.rule.decay).collect();
        self.sums[thread].set(own).expect("every thread comes once");
        self.wait();
        let all = self.sums.iter().filter_map(OnceLock::get).flatten().copied();
        walk_back(value, gradient, buffer, self.rule, trust(all, eeta));
    }

    /// Until the sums of all threads are there.
    fn wait(&self) {
        self.arrived.fetch_add(1, Ordering::Release);
        let mut looks = 0;
        while self.arrived.load(Ordering::Acquire) < self.parts.len() {
            looks += 1;
            if looks < PATIENCE { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}
