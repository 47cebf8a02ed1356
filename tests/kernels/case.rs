//! BatchNorm with what follows it: by the kernels, by libtorch in float64, and how far they may be apart.

use flatnce::model::channels_last;
use flatnce::native::cuda::kernels::{BatchNorm, batch_norm};
use tch::{Device, Kind, Tensor};

pub const MOMENTUM: f64 = 0.1;
pub const EPSILON: f64 = 1e-5;

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
    pub x: Tensor,
    pub shortcut: Tensor,
    gradient: Tensor,
    pub weight: Tensor,
    pub bias: Tensor,
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

    /// The same with another x.
    pub fn with_x(self, x: Tensor) -> Case {
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
        let [input, shortcut] = [&self.x, &self.shortcut].map(|tensor| leaf(tensor, self.kind));
        let [weight, bias] = [&self.weight, &self.bias].map(|tensor| leaf(tensor, Kind::Float));
        // As a convolution's output: nothing but BatchNorm keeps it, and its gradient may be written over it.
        let x = &input * 1.0;
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
        let (y, twin) = batch_norm(norm).expect("it runs").expect("the kernels are made for it");
        assert_eq!((y.kind(), y.size()), (self.kind, self.x.size()));
        assert!(y.permute([0, 2, 3, 1]).is_contiguous(), "channels stay last");
        drop(x);
        let gradient = self.gradient.to_kind(self.kind).to_device(device);
        let sum = match &twin {
            // Two ways, whose gradients add up to the whole.
            Some(twin) => (&y * (&gradient * 2.0)).sum(Kind::Double) - (twin * &gradient).sum(Kind::Double),
            None => (&y * &gradient).sum(Kind::Double),
        };
        assert_eq!(twin.is_some(), self.after == After::AddRelu);
        drop(twin);
        sum.backward();
        let wide = |tensor: &Tensor| tensor.detach().to_device(Device::Cpu).to_kind(Kind::Double);
        Outcome {
            y: wide(&y),
            of_x: wide(&input.grad()),
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
    pub fn check(&self, name: &str) {
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
