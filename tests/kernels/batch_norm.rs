//! BatchNorm with ReLU and shortcut against libtorch's own operations in float64, forward and backward.

use super::case::{AFTER, After, Case, EPSILON, KINDS, MOMENTUM, numbers};
use super::emulation::Emulation;
use flatnce::model::channels_last;
use flatnce::native::cuda::kernels::{BatchNorm, batch_norm};
use tch::{Device, Kind, Tensor};

#[test]
fn every_format_and_what_follows_agree_with_libtorch() {
    let _emulation = Emulation::start();
    for kind in KINDS {
        for after in AFTER {
            // Odd rows, fewer than a block's threads take; some blocks; many channels; a row an image.
            for shape in [[3, 64, 7, 5], [5, 128, 13, 11], [2, 2048, 3, 3], [2, 64, 1, 1], [1, 192, 1, 2]] {
                Case::new(kind, after, shape).check(&format!("{kind:?} {after:?} {shape:?}"));
            }
        }
    }
}

#[test]
fn as_many_rows_as_blocks_can_be_agree_too() {
    let _emulation = Emulation::start();
    // More than one round of 128 (or 64) rows for each of the 384 blocks, and a last block that has fewer.
    Case::new(Kind::BFloat16, After::AddRelu, [13, 64, 67, 61]).check("many rows");
    Case::new(Kind::Float, After::Relu, [7, 64, 67, 61]).check("many rows");
}

#[test]
fn a_mean_far_beyond_the_spread_cancels_nothing() {
    let _emulation = Emulation::start();
    for mean in [1e2, 1e4, -1e6] {
        let case = Case::new(Kind::Float, After::Relu, [6, 64, 31, 17]);
        let x = &case.x + mean;
        case.with_x(x).check(&format!("mean {mean}"));
    }
    // The first row of all is far off; and one in the middle of a thread's.
    for row in [0, 1581] {
        let case = Case::new(Kind::Float, After::Nothing, [6, 64, 31, 17]);
        let x = case.x.permute([0, 2, 3, 1]).contiguous().view([-1, 64]);
        let _ = x.narrow(0, row, 1).g_add_scalar_(1e4);
        let x = x.view([6, 31, 17, 64]).permute([0, 3, 1, 2]);
        case.with_x(x).check(&format!("row {row} is far off"));
    }
}

#[test]
fn where_nothing_passes_no_gradient_does() {
    let _emulation = Emulation::start();
    for kind in KINDS {
        let mut case = Case::new(kind, After::AddRelu, [3, 64, 9, 7]);
        case.shortcut = case.shortcut.abs() * -1.0 - 16.0;
        case.check(&format!("{kind:?}"));
        let outcome = case.fused();
        for tensor in [outcome.y, outcome.of_x, outcome.of_weight, outcome.of_bias, outcome.of_shortcut.unwrap()] {
            assert_eq!(tensor.abs().max().double_value(&[]), 0.0, "{kind:?}");
        }
    }
}

#[test]
fn a_channel_of_one_value_is_its_bias() {
    let _emulation = Emulation::start();
    for kind in KINDS {
        let case = Case::new(kind, After::Nothing, [4, 64, 6, 5]);
        let x = case.x.ones_like() * 3.25;
        let case = case.with_x(x);
        let outcome = case.fused();
        let bias = case.bias.view([1, -1, 1, 1]).expand_as(&outcome.y).to_kind(kind).to_kind(Kind::Double);
        assert_eq!(outcome.y, bias, "{kind:?}");
        assert!(outcome.of_x.isfinite().all().int64_value(&[]) == 1, "{kind:?}");
    }
}

#[test]
fn what_is_no_number_stays_none() {
    let _emulation = Emulation::start();
    for (kind, value) in [(Kind::Half, f64::INFINITY), (Kind::BFloat16, f64::NAN), (Kind::Float, f64::NEG_INFINITY)] {
        for after in AFTER {
            let case = Case::new(kind, after, [3, 64, 5, 5]);
            let x = case.x.copy();
            let _ = x.narrow(1, 10, 1).narrow(0, 1, 1).fill_(value);
            let outcome = case.with_x(x).fused();
            let finite = |tensor: &Tensor, channel: i64| {
                tensor.narrow(i64::from(tensor.dim() == 4), channel, 1).isfinite().any().int64_value(&[]) == 1
            };
            for tensor in [&outcome.y, &outcome.of_x, &outcome.running_var, &outcome.of_weight] {
                assert!(!finite(tensor, 10) && finite(tensor, 11), "{kind:?} {after:?} {value}");
            }
        }
    }
}

#[test]
fn without_running_statistics_and_without_a_graph_the_output_is_the_same() {
    let _emulation = Emulation::start();
    let case = Case::new(Kind::BFloat16, After::Relu, [3, 64, 5, 5]);
    let x = channels_last(&case.x).to_kind(case.kind);
    let [weight, bias] = [&case.weight, &case.bias].map(|tensor| tensor.to_kind(Kind::Float));
    let norm = BatchNorm {
        x: &x,
        weight: &weight,
        bias: &bias,
        running: None,
        shortcut: None,
        relu: true,
        momentum: MOMENTUM,
        epsilon: EPSILON,
    };
    let _guard = tch::no_grad_guard();
    let (y, _) = batch_norm(norm).unwrap().unwrap();
    assert!(!y.requires_grad());
    assert_eq!(y.to_kind(Kind::Double), tch::with_grad(|| case.fused()).y);
}

/// A convolution's output, its BatchNorm with a shortcut and ReLU, and leaves: the convolution's input, of the shape of the
/// output, and the shortcut.
struct Block {
    input: Tensor,
    shortcut: Tensor,
    x: Tensor,
}

impl Block {
    fn new() -> Block {
        let leaf = |salt| channels_last(&numbers(&[3, 64, 9, 7], salt).to_kind(Kind::Float)).set_requires_grad(true);
        let [input, shortcut] = [1, 2].map(leaf);
        // The backward pass of an addition hands its gradient on as it is.
        Block { x: &input + 0.0, input, shortcut }
    }

    fn y(&self) -> Tensor {
        self.forked().0
    }

    /// The output, twice.
    fn forked(&self) -> (Tensor, Tensor) {
        let ones = Tensor::ones([64], (Kind::Float, Device::Cpu));
        let norm = BatchNorm {
            x: &self.x,
            weight: &ones,
            bias: &ones,
            running: None,
            shortcut: Some(&self.shortcut),
            relu: true,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        };
        let (y, twin) = batch_norm(norm).unwrap().unwrap();
        (y, twin.expect("there is a shortcut"))
    }

    fn gradients(&self) -> [Tensor; 2] {
        [&self.input, &self.shortcut].map(|leaf| leaf.grad().copy())
    }
}

#[test]
fn gradients_take_the_place_of_what_nothing_reads_any_more() {
    let _emulation = Emulation::start();
    let mut block = Block::new();
    let (place, y) = (block.x.data_ptr(), block.y());
    block.x = Tensor::new();
    (y * 2.0).sum(Kind::Double).backward();
    assert_eq!(block.input.grad().data_ptr(), place, "the gradient of x lies where x lay");
}

#[test]
fn the_shortcuts_gradient_takes_the_place_of_that_of_the_output() {
    let _emulation = Emulation::start();
    // The gradient of the first block's output lies where the second block's x lay, and is handed on as it is.
    let (first, mut second) = (Block::new(), Block::new());
    second.x = first.y() + 0.0;
    let (place, y) = (second.x.data_ptr(), second.y());
    second.x = Tensor::new();
    (y * 2.0).sum(Kind::Double).backward();
    assert_eq!(first.shortcut.grad().data_ptr(), place);
}

#[test]
fn what_somebody_else_reads_is_never_written_over() {
    let _emulation = Emulation::start();
    let plain = Block::new();
    (plain.y() * 2.0).sum(Kind::Double).backward();
    let wanted = plain.gradients();

    // x, kept by whoever made it: itself, or another tensor in the same memory.
    for apart in [false, true] {
        let mut block = Block::new();
        let (before, y) = (block.x.copy(), block.y());
        let kept = if apart { block.x.detach() } else { block.x.shallow_clone() };
        block.x = Tensor::new();
        (y * 2.0).sum(Kind::Double).backward();
        assert_eq!(kept, before, "x stays as it was");
        assert_eq!(block.gradients(), wanted);
    }

    // The gradient of y, which an addition gives to both of its inputs, whichever of them comes first.
    for swapped in [false, true] {
        let block = Block::new();
        let other = block.shortcut.zeros_like().set_requires_grad(true);
        let sum = if swapped { &other + block.y() } else { block.y() + &other };
        (sum * 2.0).sum(Kind::Double).backward();
        assert_eq!(other.grad(), other.full_like(2.0), "the other's gradient stays as it was");
        assert_eq!(block.gradients(), wanted);
    }
}

#[test]
fn the_gradients_of_two_ways_are_added() {
    let _emulation = Emulation::start();
    let plain = Block::new();
    (plain.y() * 2.0).sum(Kind::Double).backward();
    let wanted = plain.gradients();
    let factors: [(Option<f64>, Option<f64>); 4] =
        [(Some(3.0), Some(-1.0)), (Some(-0.5), Some(2.5)), (None, Some(2.0)), (Some(2.0), None)];
    for (first, second) in factors {
        let block = Block::new();
        let (y, twin) = block.forked();
        assert_eq!(y.data_ptr(), twin.data_ptr(), "one memory");
        let sums =
            [(y, first), (twin, second)].map(|(way, factor)| factor.map(|factor| (way * factor).sum(Kind::Double)));
        sums.into_iter().flatten().reduce(|a, b| a + b).expect("one way at least").backward();
        assert_eq!(block.gradients(), wanted, "{first:?} {second:?}");
    }

    // Neither way's gradient is written over where somebody else has it too.
    let block = Block::new();
    let (y, twin) = block.forked();
    let others = [0, 1].map(|_| block.shortcut.zeros_like().set_requires_grad(true));
    let sum = ((y + &others[0]) * 3.0).sum(Kind::Double) + ((twin + &others[1]) * -1.0).sum(Kind::Double);
    sum.backward();
    assert_eq!(others.map(|other| other.grad().mean(Kind::Double).double_value(&[])), [3.0, -1.0]);
    assert_eq!(block.gradients(), wanted);
}

#[test]
fn a_second_pass_over_what_was_written_over_is_an_error() {
    let _emulation = Emulation::start();
    let mut block = Block::new();
    let sum = (block.y() * 2.0).sum(Kind::Double);
    block.x = Tensor::new();
    Tensor::run_backward(&[&sum], &[&block.input], true, false);
    let again = Tensor::f_run_backward(&[&sum], &[&block.input], false, false);
    assert!(again.unwrap_err().to_string().contains("modified by an inplace operation"));
}

#[test]
fn what_the_kernels_are_not_made_for_is_left_to_libtorch() {
    let emulation = Emulation::start();
    let taken = |x: &Tensor, shortcut: Option<&Tensor>| {
        let ones = Tensor::ones([x.size()[1]], (Kind::Float, Device::Cpu));
        let norm = BatchNorm {
            x,
            weight: &ones,
            bias: &ones,
            running: None,
            shortcut,
            relu: true,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        };
        batch_norm(norm).unwrap().is_some()
    };
    let last = |shape: [i64; 4], kind| channels_last(&numbers(&shape, 0).to_kind(kind));
    let fine = last([2, 64, 4, 4], Kind::Float);
    assert!(taken(&fine, None) && taken(&fine, Some(&fine)));
    assert!(!taken(&last([2, 60, 4, 4], Kind::Float), None), "channels that are no tiles");
    assert!(!taken(&last([2, 64, 4, 4], Kind::Double), None), "float64");
    assert!(!taken(&numbers(&[2, 64, 4, 4], 0).to_kind(Kind::Float), None), "channels first");
    assert!(!taken(&numbers(&[8, 64], 0).to_kind(Kind::Float), None), "no image");
    assert!(!taken(&last([1, 64, 1, 1], Kind::Float), None), "one row");
    assert!(!taken(&fine, Some(&last([2, 64, 4, 4], Kind::BFloat16))), "a shortcut of another format");
    drop(emulation);
    let _later = Emulation::start();
    flatnce::native::cuda::kernels::disable();
    assert!(!taken(&fine, None), "nobody asked for them");
}
