//! BatchNorm with ReLU and shortcut against libtorch's own operations in float64, forward and backward.

use super::emulation::Emulation;
use flatnce::model::channels_last;
use flatnce::native::cuda::kernels::{BatchNorm, batch_norm};
use tch::{Device, Kind, Tensor};

const MOMENTUM: f64 = 0.1;
const EPSILON: f64 = 1e-5;

/// What follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum After {
    Nothing,
    Relu,
    AddRelu,
}

pub const AFTER: [After; 3] = [After::Nothing, After::Relu, After::AddRelu];
pub const KINDS: [Kind; 3] = [Kind::Float, Kind::BFloat16, Kind::Half];

/// Half a unit in the last place of numbers about 1.
fn rounding(kind: Kind) -> f64 {
    match kind {
        Kind::Float => 0.5f64.powi(24),
        Kind::Half => 0.5f64.powi(11),
        _ => 0.5f64.powi(8),
    }
}

/// Numbers between -1 and 1 of no generator: other tests share libtorch's.
pub fn numbers(shape: &[i64], salt: i64) -> Tensor {
    let count: i64 = shape.iter().product();
    let place = Tensor::arange(count, (Kind::Int64, Device::Cpu)) + salt * 7919;
    let mixed = (&place * 2_654_435_761i64 + (&place * &place).remainder(65_537) * 40_503).remainder(2_000_003);
    (mixed.to_kind(Kind::Double) / 1_000_001.0 - 1.0).view(shape)
}

/// What goes in, in float64, exactly as the kernels see it.
pub struct Case {
    pub kind: Kind,
    pub after: After,
    x: Tensor,
    shortcut: Tensor,
    gradient: Tensor,
    weight: Tensor,
    bias: Tensor,
}

/// What comes out, in float64. The gradient of the shortcut where there is one.
pub struct Outcome {
    pub y: Tensor,
    pub of_x: Tensor,
    pub of_shortcut: Option<Tensor>,
    pub of_weight: Tensor,
    pub of_bias: Tensor,
    pub running_mean: Tensor,
    pub running_var: Tensor,
}

impl Outcome {
    pub fn all(&self) -> Vec<&Tensor> {
        let Outcome { y, of_x, of_shortcut, of_weight, of_bias, running_mean, running_var } = self;
        [y, of_x, of_weight, of_bias, running_mean, running_var].into_iter().chain(of_shortcut).collect()
    }
}

impl Case {
    pub fn new(kind: Kind, after: After, shape: [i64; 4]) -> Case {
        let channels = shape[1];
        let rounded = |tensor: Tensor| tensor.to_kind(kind).to_kind(Kind::Double);
        let spread = numbers(&[1, channels, 1, 1], 1).abs() * 3.0 + 0.05;
        let x = numbers(&shape, 2) * spread + numbers(&[1, channels, 1, 1], 3) * 2.0;
        Case {
            kind,
            after,
            x: rounded(x),
            shortcut: rounded(numbers(&shape, 4) * 1.5),
            gradient: rounded(numbers(&shape, 5)),
            weight: (numbers(&[channels], 6) * 1.5).to_kind(Kind::Float).to_kind(Kind::Double),
            bias: numbers(&[channels], 7).to_kind(Kind::Float).to_kind(Kind::Double),
        }
    }

    fn with_x(self, x: Tensor) -> Case {
        Case { x: x.to_kind(self.kind).to_kind(Kind::Double), ..self }
    }

    fn leaf(&self, tensor: &Tensor, kind: Kind) -> Tensor {
        let tensor = if tensor.dim() == 4 { channels_last(tensor) } else { tensor.copy() };
        tensor.to_kind(kind).detach().copy().set_requires_grad(true)
    }

    /// Through the kernels, emulated.
    pub fn fused(&self) -> Outcome {
        self.fused_on(Device::Cpu)
    }

    /// Through the kernels.
    pub fn fused_on(&self, device: Device) -> Outcome {
        let leaf = |tensor: &Tensor, kind| {
            let there = self.leaf(tensor, kind).detach().to_device(device);
            there.set_requires_grad(true)
        };
        let [x, shortcut] = [&self.x, &self.shortcut].map(|tensor| leaf(tensor, self.kind));
        let [weight, bias] = [&self.weight, &self.bias].map(|tensor| leaf(tensor, Kind::Float));
        let channels = self.x.size()[1];
        let running_mean = Tensor::zeros([channels], (Kind::Float, device));
        let running_var = Tensor::ones([channels], (Kind::Float, device));
        let norm = BatchNorm {
            x: &x,
            weight: &weight,
            bias: &bias,
            running: Some((&running_mean, &running_var)),
            shortcut: (self.after == After::AddRelu).then_some(&shortcut),
            relu: self.after != After::Nothing,
            momentum: MOMENTUM,
            epsilon: EPSILON,
        };
        let y = batch_norm(norm).expect("it runs").expect("the kernels are made for it");
        assert_eq!((y.kind(), y.size()), (self.kind, self.x.size()));
        assert!(y.permute([0, 2, 3, 1]).is_contiguous(), "channels stay last");
        (&y * self.gradient.to_kind(self.kind).to_device(device)).sum(Kind::Double).backward();
        let wide = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
        Outcome {
            y: wide(&y),
            of_x: wide(&x.grad()),
            of_shortcut: (self.after == After::AddRelu).then(|| wide(&shortcut.grad())),
            of_weight: wide(&weight.grad()),
            of_bias: wide(&bias.grad()),
            running_mean: wide(&running_mean),
            running_var: wide(&running_var),
        }
    }

    /// By libtorch in float64; ReLU passes what `passes` (of the shape of x) says.
    fn expected(&self, passes: &Tensor) -> (Outcome, Tensor) {
        let [x, shortcut, weight, bias] =
            [&self.x, &self.shortcut, &self.weight, &self.bias].map(|tensor| self.leaf(tensor, Kind::Double));
        let channels = self.x.size()[1];
        let running_mean = Tensor::zeros([channels], (Kind::Double, Device::Cpu));
        let running_var = Tensor::ones([channels], (Kind::Double, Device::Cpu));
        let (mean, var) = (Some(&running_mean), Some(&running_var));
        let mut z = x.batch_norm(Some(&weight), Some(&bias), mean, var, true, MOMENTUM, EPSILON, false);
        if self.after == After::AddRelu {
            z += &shortcut;
        }
        let y = if self.after == After::Nothing { z.shallow_clone() } else { &z * passes };
        (&y * &self.gradient).sum(Kind::Double).backward();
        let outcome = Outcome {
            y: y.detach(),
            of_x: x.grad(),
            of_shortcut: (self.after == After::AddRelu).then(|| shortcut.grad()),
            of_weight: weight.grad(),
            of_bias: bias.grad(),
            running_mean,
            running_var,
        };
        (outcome, z.detach())
    }

    /// Holds the kernels against libtorch. What is off beyond the rounding of results is the arithmetic in float32: a mean
    /// that is rounded once, distances from it and sums of a block's numbers.
    fn check(&self, name: &str) {
        let got = self.fused();
        let passes = got.y.gt(0.0).to_kind(Kind::Double);
        let (wanted, z) = self.expected(&passes);
        let each = [0i64, 2, 3].as_slice();
        let channel = |tensor: Tensor| tensor.view([1, -1, 1, 1]);
        let count = (self.x.numel() as i64 / self.x.size()[1]) as f64;
        let mean = channel(self.x.mean_dim(each, false, Kind::Double));
        let var = (&self.x - &mean).square().mean_dim(each, true, Kind::Double);
        let inverse = (&var + EPSILON).rsqrt();
        let scale = channel(self.weight.shallow_clone()).abs() * &inverse;
        let unit = 0.5f64.powi(24);
        // Of normalised numbers: the mean, rounded at every merging of threads, in units of the deviation; the deviation.
        let normalised = (mean.abs() * &inverse * 6.0 + 8.0 + (&self.x - &mean).abs() * &inverse * 16.0) * unit;
        let slack = channel(self.weight.shallow_clone()).abs() * &normalised + (z.abs() + 4.0) * (4.0 * unit);
        if self.after != After::Nothing {
            let torn = z.gt(0.0).to_kind(Kind::Double).ne_tensor(&passes).to_kind(Kind::Double) * (z.abs() - &slack);
            // What float16 rounds to 0 does not pass.
            assert!(torn.max().double_value(&[]) <= 6e-8, "{name}: ReLU");
        }
        let within = |what: &str, got: &Tensor, wanted: &Tensor, slack: &Tensor, kind: Kind| {
            let bound = wanted.abs() * rounding(kind) * 1.01 + slack + 6e-8;
            let worst = ((got - wanted).abs() / bound).max().double_value(&[]);
            assert!(worst <= 1.0, "{name}: {what} is off by {worst} of what is allowed");
        };
        within("y", &got.y, &wanted.y, &slack, self.kind);
        let g = if self.after == After::Nothing { self.gradient.copy() } else { &self.gradient * &passes };
        let h = (&self.x - &mean) * &inverse;
        let sums = |tensor: Tensor| tensor.abs().sum_dim_intlist(each, true, Kind::Double);
        // A block's sum of n numbers in pairs and in runs of some dozens.
        let sloppy = 80.0 * unit;
        let (of_g, of_gh) = (sums(g.copy()) * sloppy, (sums(&g * &h) + sums(&g * &normalised) / unit) * sloppy);
        let of_x = (&scale * (&of_g + h.abs() * &of_gh)) / count
            + &scale * (g.abs() + 1.0) * (4.0 * unit)
            + &scale * sums(&g * &h) / count * &normalised
            + &wanted.of_x.abs() * (8.0 * unit);
        within("the gradient of x", &got.of_x, &wanted.of_x, &of_x, self.kind);
        within("the gradient of bias", &channel(got.of_bias), &channel(wanted.of_bias), &of_g, Kind::Float);
        within("the gradient of weight", &channel(got.of_weight), &channel(wanted.of_weight), &of_gh, Kind::Float);
        if let (Some(got), Some(wanted)) = (&got.of_shortcut, &wanted.of_shortcut) {
            assert_eq!(got, wanted, "{name}: the gradient of the shortcut is a part of the given one");
        }
        within("the running mean", &got.running_mean, &wanted.running_mean, &(mean.abs().view(-1) * unit), Kind::Float);
        // Means of threads are rounded at every merging, which looks like spread.
        let of_mean = mean.abs().view(-1) * unit;
        let of_var = &wanted.running_var * (60.0 * unit) + of_mean.square() * 8.0 + of_mean * 4.0 * var.view(-1).sqrt();
        within("the running variance", &got.running_var, &wanted.running_var, &of_var, Kind::Float);
    }
}

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
    let y = batch_norm(norm).unwrap().unwrap();
    assert!(!y.requires_grad());
    assert_eq!(y.to_kind(Kind::Double), tch::with_grad(|| case.fused()).y);
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
