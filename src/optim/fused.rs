//! A step of a momentum optimiser over parameters in the CPU's memory, each
//! read and written once.
//!
//! As operations on whole tensors a LARS step passes over the weights some
//! fifteen times, and memory is what it waits for. Here a parameter is walked
//! forward for the two norms and backward for the update, so that what the first
//! walk read last is still in the cache. Large parameters are walked by all
//! threads together, the others by one thread each. Sums are added in a fixed
//! order: the bits do not depend on how many threads there are.

mod together;

use crate::memory;
use crate::native::lists::Algorithm;
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};
use tch::{Device, Kind, Tensor};
use together::Shared;

/// `g += decay p; m = momentum m + rate g; p -= step m` for every value p, gradient g and buffer m, where `rate` is
/// multiplied with `eeta |p| / |g|` (1 where either norm is 0) if `eeta` is set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    pub decay: f64,
    pub momentum: f64,
    pub rate: f64,
    pub step: f64,
    pub eeta: Option<f64>,
}

impl Rule {
    /// An algorithm with a momentum buffer as a rule; Adam is none.
    pub fn of(algorithm: Algorithm, lr: f64) -> Option<Rule> {
        match algorithm {
            Algorithm::Sgd { decay, momentum } => Some(Rule { decay, momentum, rate: 1.0, step: lr, eeta: None }),
            Algorithm::Lars { decay, momentum, eeta } => Some(Rule { decay, momentum, rate: lr, step: 1.0, eeta }),
            Algorithm::Adam { .. } => None,
        }
    }
}

/// One parameter: value, gradient, momentum buffer, all of one layout in memory.
pub(super) struct Work<'a> {
    value: &'a mut [f32],
    gradient: Gradient,
    buffer: &'a mut [f32],
    rule: Rule,
}

/// A gradient's memory, and the tensor that owns it.
struct Gradient {
    tensor: Tensor,
    numbers: usize,
}

impl Gradient {
    fn numbers(&self) -> &[f32] {
        // SAFETY: `Work::fits` has said that the tensor is dense float32 on the CPU; it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.tensor.data_ptr() as *const f32, self.numbers) }
    }
}

// SAFETY: a libtorch tensor on the CPU may be read from any thread; its reference count is atomic.
unsafe impl Sync for Gradient {}

impl<'a> Work<'a> {
    /// Whether the three are float32 in the CPU's memory without gaps, so that `of` takes them.
    pub fn fits(value: &Tensor, gradient: &Tensor, buffer: &Tensor) -> bool {
        let plain = |tensor: &Tensor| tensor.device() == Device::Cpu && tensor.kind() == Kind::Float;
        [value, gradient, buffer].into_iter().all(plain)
            && gradient.size() == value.size()
            && dense(value)
            && alike(value, buffer)
    }

    /// The three tensors as plain memory; a gradient of another layout is copied. Panics if they do not fit.
    pub fn of(value: &'a mut Tensor, gradient: Tensor, buffer: &'a mut Tensor, rule: Rule) -> Work<'a> {
        assert!(Work::fits(value, &gradient, buffer), "asked for before");
        let gradient = if alike(value, &gradient) {
            gradient
        } else {
            let mut own = value.empty_like();
            own.copy_(&gradient);
            own
        };
        let numbers = value.numel();
        // SAFETY: dense float32 tensors on the CPU; a parameter and its buffer share no memory with anything else
        // that is used while the optimiser, which holds them, takes its step.
        let slice =
            |tensor: &mut Tensor| unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr() as *mut f32, numbers) };
        Work { value: slice(value), gradient: Gradient { tensor: gradient, numbers }, buffer: slice(buffer), rule }
    }

    /// Where the three lie.
    fn addresses(&self) -> [Range<usize>; 3] {
        let gradient = self.gradient.numbers();
        [self.value.as_ptr_range(), gradient.as_ptr_range(), self.buffer.as_ptr_range()]
            .map(|range| range.start as usize..range.end as usize)
    }

    fn run(self) {
        let gradient = self.gradient.numbers();
        let trust = self.rule.eeta.map_or(1.0, |eeta| trust(sums(self.value, gradient, self.rule.decay), eeta));
        walk_back(self.value, gradient, self.buffer, self.rule, trust);
    }
}

/// Elements that are summed in float32 before they are added in float64.
const BLOCK: usize = 4096;
/// Fewer numbers than this stay in the caches, or are soon done.
const WORTH_MOVING: usize = 1 << 21;
/// Fewer numbers than this are done before a thread has begun.
const WORTH_A_THREAD: usize = 100_000;
/// More threads than this wait for memory, not for arithmetic.
const MOST_THREADS: usize = 8;

/// Steps over one set of parameters.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Whether the memory has been moved to where it is walked over best.
    settled: bool,
}

impl Walk {
    /// Takes the step of every parameter, on as many threads as libtorch computes with.
    pub fn run(&mut self, work: Vec<Work>) {
        let total: usize = work.iter().map(|one| one.value.len()).sum();
        if !std::mem::replace(&mut self.settled, true) && total >= WORTH_MOVING {
            memory::prefer_huge(work.iter().flat_map(Work::addresses));
        }
        let allowed = usize::try_from(tch::get_num_threads()).unwrap_or(1);
        run_on(work, allowed.min(MOST_THREADS).min(total / WORTH_A_THREAD).max(1));
    }
}

/// On so many threads, or as many of them as the system grants.
fn run_on(work: Vec<Work>, threads: usize) {
    // Held until it is known how many threads there are to cut the work for.
    let plan = RwLock::new(None);
    let mut unknown = plan.write().unwrap_or_else(PoisonError::into_inner);
    let part_of = |thread: usize| {
        let plan = plan.read().unwrap_or_else(PoisonError::into_inner);
        plan.iter().for_each(|plan: &Plan| plan.run(thread));
    };
    std::thread::scope(|scope| {
        let part_of = &part_of;
        let starts = |thread: &usize| {
            std::thread::Builder::new()
                .spawn_scoped(scope, {
                    let thread = *thread;
                    move || part_of(thread)
                })
                .is_ok()
        };
        let started = (1..threads).take_while(starts).count();
        *unknown = Some(Plan::new(work, started + 1));
        drop(unknown);
        part_of(0);
    });
}

/// The work of a step, cut for a number of threads.
struct Plan<'a> {
    large: Vec<Shared<'a>>,
    small: Mutex<std::vec::IntoIter<Work<'a>>>,
}

impl<'a> Plan<'a> {
    fn new(work: Vec<Work<'a>>, threads: usize) -> Plan<'a> {
        let (large, mut small): (Vec<Work>, Vec<Work>) =
            work.into_iter().partition(|one| threads > 1 && one.value.len() >= together::LARGE);
        // The larger ones first, so that the threads end together.
        small.sort_by_key(|one| std::cmp::Reverse(one.value.len()));
        let large = large.into_iter().map(|one| Shared::new(one, threads)).collect();
        Plan { large, small: Mutex::new(small.into_iter()) }
    }

    /// What one of the threads does. Every one has to come.
    fn run(&self, thread: usize) {
        let take = || self.small.lock().unwrap_or_else(PoisonError::into_inner).next();
        self.large.iter().for_each(|one| one.run(thread));
        while let Some(one) = take() {
            one.run();
        }
    }
}

/// Whether the elements lie without gaps, in whatever order of dimensions.
fn dense(tensor: &Tensor) -> bool {
    let span: i64 = tensor.size().iter().zip(tensor.stride()).map(|(size, stride)| (size - 1) * stride).sum();
    tensor.numel() > 0 && span + 1 == tensor.numel() as i64
}

/// Whether both have the same shape and the same order in memory. The stride of a dimension of one element says nothing.
fn alike(a: &Tensor, b: &Tensor) -> bool {
    let told = |tensor: &Tensor| -> Vec<(i64, i64)> {
        let sizes = tensor.size();
        sizes.iter().zip(tensor.stride()).map(|(&size, stride)| (size, if size == 1 { 0 } else { stride })).collect()
    };
    told(a) == told(b)
}

/// Of every block: the squares of the values and of the decayed gradients.
fn sums(value: &[f32], gradient: &[f32], decay: f64) -> impl Iterator<Item = (f32, f32)> {
    let blocks = value.chunks(BLOCK).zip(gradient.chunks(BLOCK));
    blocks.map(move |(value, gradient)| squares(value, gradient, decay as f32))
}

/// The trust ratio, from the sums of all blocks in their order.
fn trust(sums: impl Iterator<Item = (f32, f32)>, eeta: f64) -> f64 {
    let (mut of_value, mut of_gradient) = (0.0, 0.0);
    for (a, b) in sums {
        of_value += f64::from(a);
        of_gradient += f64::from(b);
    }
    if of_value > 0.0 && of_gradient > 0.0 { eeta * of_value.sqrt() / of_gradient.sqrt() } else { 1.0 }
}

/// The rule's update with its rate times `trust`, from the last block to the first.
fn walk_back(value: &mut [f32], gradient: &[f32], buffer: &mut [f32], rule: Rule, trust: f64) {
    let Rule { decay, momentum, rate, step, .. } = rule;
    let (decay, momentum, rate, step) = (decay as f32, momentum as f32, (rate * trust) as f32, step as f32);
    let blocks = value.chunks_mut(BLOCK).zip(gradient.chunks(BLOCK)).zip(buffer.chunks_mut(BLOCK));
    for ((value, gradient), buffer) in blocks.rev() {
        update(value, gradient, buffer, decay, momentum, rate, step);
    }
}

vectorised! {
    /// Sums of squares of the values and of the decayed gradients.
    fn squares(value: &[f32], gradient: &[f32], decay: f32) -> (f32, f32) {
        const LANES: usize = 64;
        let (mut a, mut b) = ([0.0_f32; LANES], [0.0_f32; LANES]);
        let (values, rest) = value.as_chunks::<LANES>();
        let (gradients, gradient_rest) = gradient.as_chunks::<LANES>();
        for (values, gradients) in values.iter().zip(gradients) {
            for lane in 0..LANES {
                let decayed = gradients[lane] + decay * values[lane];
                a[lane] += values[lane] * values[lane];
                b[lane] += decayed * decayed;
            }
        }
        for (lane, (&value, &gradient)) in rest.iter().zip(gradient_rest).enumerate() {
            let decayed = gradient + decay * value;
            a[lane] += value * value;
            b[lane] += decayed * decayed;
        }
        (a.iter().sum(), b.iter().sum())
    }
}

vectorised! {
    fn update(
        value: &mut [f32], gradient: &[f32], buffer: &mut [f32], decay: f32, momentum: f32, rate: f32, step: f32
    ) {
        for ((value, gradient), buffer) in value.iter_mut().zip(gradient).zip(buffer) {
            *buffer = momentum * *buffer + rate * (gradient + decay * *value);
            *value -= step * *buffer;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: Rule = Rule { decay: 0.1, momentum: 0.9, rate: 0.3, step: 0.5, eeta: Some(0.02) };

    /// The same step as operations on whole tensors, in float64.
    fn reference(value: &Tensor, gradient: &Tensor, buffer: &Tensor, rule: Rule) -> (Tensor, Tensor) {
        let [value, gradient, buffer] = [value, gradient, buffer].map(|tensor| tensor.to_kind(Kind::Double));
        let decayed = gradient + &value * rule.decay;
        let (p, g) = (value.norm().double_value(&[]), decayed.norm().double_value(&[]));
        let trust = rule.eeta.map_or(1.0, |eeta| if p > 0.0 && g > 0.0 { eeta * p / g } else { 1.0 });
        let buffer = buffer * rule.momentum + decayed * (rule.rate * trust);
        (&value - &buffer * rule.step, buffer)
    }

    fn step(value: &mut Tensor, gradient: &Tensor, buffer: &mut Tensor, rule: Rule) {
        Walk::default().run(vec![Work::of(value, gradient.shallow_clone(), buffer, rule)]);
    }

    fn near(got: &Tensor, wanted: &Tensor) -> bool {
        got.to_kind(Kind::Double).allclose(wanted, 1e-5, 1e-6, false)
    }

    #[test]
    fn a_step_is_that_of_whole_tensors() {
        tch::manual_seed(3);
        let shapes: [&[i64]; 6] = [&[1], &[63], &[4097], &[16, 8, 3, 3], &[8, 16, 1, 1], &[300, 400]];
        for shape in shapes {
            for channels_last in [false, true] {
                let plain = || Tensor::randn(shape, tch::kind::FLOAT_CPU);
                let make = || {
                    let tensor = plain();
                    if channels_last && shape.len() == 4 {
                        tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
                    } else {
                        tensor
                    }
                };
                for rule in [RULE, Rule { eeta: None, ..RULE }] {
                    let (mut value, mut buffer) = (make(), make());
                    // One gradient in the value's layout, one in the other.
                    for gradient in [make(), plain()] {
                        let (wanted, wanted_buffer) = reference(&value, &gradient, &buffer, rule);
                        step(&mut value, &gradient, &mut buffer, rule);
                        assert!(near(&value, &wanted) && near(&buffer, &wanted_buffer), "{shape:?} {rule:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn zeros_move_and_nothing_divides_by_them() {
        let (mut value, mut buffer) =
            (Tensor::zeros([5], tch::kind::FLOAT_CPU), Tensor::zeros([5], tch::kind::FLOAT_CPU));
        step(&mut value, &Tensor::ones([5], tch::kind::FLOAT_CPU), &mut buffer, RULE);
        assert!(near(&value, &(Tensor::ones([5], (Kind::Double, Device::Cpu)) * -0.15)));
        let before = value.copy();
        step(
            &mut value,
            &Tensor::zeros([5], tch::kind::FLOAT_CPU),
            &mut buffer,
            Rule { momentum: 0.0, decay: 0.0, ..RULE },
        );
        assert_eq!(value, before);
    }

    #[test]
    fn many_threads_give_the_bits_of_one() {
        // Of no generator: other tests share libtorch's.
        let wave = |n: i64, salt: f64| (Tensor::arange(n, tch::kind::FLOAT_CPU) * (0.37 + salt)).sin();
        let stepped = |threads: usize| {
            // Two that all threads share, one of them of no whole number of blocks.
            let sizes = (1..30).map(|n| n * 1000).chain([1 << 19, (1 << 19) + 12_345]);
            let mut tensors: Vec<[Tensor; 3]> = sizes.map(|n| [0.0, 0.11, 0.23].map(|salt| wave(n, salt))).collect();
            let work = |rule: Rule, tensors: &mut [[Tensor; 3]]| {
                let of = |[value, gradient, buffer]: &mut [Tensor; 3]| -> [Tensor; 3] {
                    [value.shallow_clone(), gradient.shallow_clone(), buffer.shallow_clone()]
                };
                let mut own: Vec<[Tensor; 3]> = tensors.iter_mut().map(of).collect();
                let work = own
                    .iter_mut()
                    .map(|[value, gradient, buffer]| Work::of(value, gradient.shallow_clone(), buffer, rule))
                    .collect();
                run_on(work, threads);
            };
            work(RULE, &mut tensors);
            work(Rule { eeta: None, ..RULE }, &mut tensors);
            tensors
        };
        let one = stepped(1);
        for threads in [2, 4, 7] {
            assert_eq!(stepped(threads), one, "{threads} threads");
        }
    }

    #[test]
    fn what_is_not_plain_memory_is_left_to_tensors() {
        let float = || Tensor::ones([4, 6], tch::kind::FLOAT_CPU);
        let narrow = || Tensor::ones([4, 3], tch::kind::FLOAT_CPU);
        assert!(Work::fits(&float(), &float(), &float()));
        assert!(!Work::fits(&float().to_kind(Kind::Double), &float(), &float()));
        assert!(!Work::fits(&float().slice(1, 0, 6, 2), &narrow(), &narrow()));
        assert!(!Work::fits(&float(), &float(), &float().transpose(0, 1).contiguous().transpose(0, 1)));
    }
}
