//! Convolution, BatchNorm and linear layers with PyTorch's names, order and
//! initial distributions, and with an explicit precision.
//!
//! Weights are float32 masters. In a lower precision the weight is cast where
//! it is used: every layer runs once a step (both views are one batch), so that
//! is one cast a step, and autograd carries the gradient back to the master.

use crate::distributed::Group;
use crate::rng::{Purpose, Stream};
use crate::state::{Parameter, Role, StateDict};
use anyhow::{Result, bail};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use tch::{Device, Kind, Tensor};

/// How a forward pass runs.
#[derive(Clone, Copy, Debug)]
pub struct Pass<'a> {
    /// BatchNorm normalises with the batch's statistics.
    pub train: bool,
    /// In training: BatchNorm updates its running statistics.
    pub tracks: bool,
    /// Arithmetic of convolutions and activations.
    pub compute: Kind,
    /// Whose images BatchNorm's statistics are of in training; `None` = this process's alone.
    pub group: Option<&'a Group>,
}

impl Pass<'static> {
    pub fn train(compute: Kind) -> Self {
        Pass { train: true, tracks: true, compute, group: None }
    }

    pub fn eval(compute: Kind) -> Self {
        Pass { train: false, tracks: false, compute, group: None }
    }

    /// The same pass with BatchNorm's statistics over all ranks of a group.
    pub fn over(self, group: &Group) -> Pass<'_> {
        Pass { group: Some(group), ..self }
    }
}

impl Pass<'_> {
    /// The same pass, and every running statistic stays as it is.
    pub fn untracked(self) -> Self {
        Pass { tracks: false, ..self }
    }
}

/// One entry of a state dict.
#[derive(Debug)]
enum Slot {
    Parameter(Parameter),
    Buffer(String, Tensor),
    /// BatchNorm's `num_batches_tracked`: counted on the host, a tensor only in files.
    Counter(String, Arc<AtomicI64>),
}

/// All parameters and buffers of a network in PyTorch's order.
#[derive(Debug, Default)]
pub struct Registry {
    slots: Vec<Slot>,
}

impl Registry {
    /// The trained tensors in the order of PyTorch's `model.parameters()`.
    pub fn parameters(&self) -> Vec<Parameter> {
        self.slots
            .iter()
            .filter_map(|slot| if let Slot::Parameter(p) = slot { Some(p.clone()) } else { None })
            .collect()
    }

    /// BatchNorm's running means and variances, the live tensors.
    pub fn running_statistics(&self) -> Vec<Tensor> {
        let of = |slot: &Slot| match slot {
            Slot::Buffer(name, tensor) if name.contains(".running_") => Some(tensor.shallow_clone()),
            _ => None,
        };
        self.slots.iter().filter_map(of).collect()
    }

    fn counters(&self) -> impl Iterator<Item = &AtomicI64> {
        self.slots.iter().filter_map(|slot| if let Slot::Counter(_, count) = slot { Some(&**count) } else { None })
    }

    /// Counts a batch of every BatchNorm that a forward pass has not counted itself.
    pub fn count_batch(&self) {
        for count in self.counters() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// `num_batches_tracked` of every BatchNorm.
    pub fn batches_counted(&self) -> Vec<i64> {
        self.counters().map(|count| count.load(Ordering::Relaxed)).collect()
    }

    /// The reverse of [`Registry::batches_counted`].
    pub fn set_batches_counted(&self, counts: &[i64]) {
        self.counters().zip(counts).for_each(|(count, &value)| count.store(value, Ordering::Relaxed));
    }

    /// Every parameter and buffer; the tensors are the live ones, not copies.
    pub fn state_dict(&self) -> StateDict {
        let mut state = StateDict::new();
        for slot in &self.slots {
            match slot {
                Slot::Parameter(p) => state.push(&p.name, p.tensor.detach()),
                Slot::Buffer(name, tensor) => state.push(name, tensor.shallow_clone()),
                Slot::Counter(name, count) => state.push(name, Tensor::from(count.load(Ordering::Relaxed))),
            }
        }
        state
    }

    /// Copies a state dict in. Entries whose name begins with one of `optional` may be absent; everything is
    /// checked before anything is changed.
    ///
    /// Errors: all missing, unexpected, mis-shaped and unusable entries at once, by name.
    pub fn load(&self, state: &StateDict, optional: &[&str]) -> Result<()> {
        let is_optional = |name: &str| optional.iter().any(|prefix| name.starts_with(prefix));
        let mut problems = Vec::new();
        let mut known = std::collections::HashSet::new();
        for slot in &self.slots {
            let (name, wanted) = match slot {
                Slot::Parameter(p) => (&p.name, p.tensor.size()),
                Slot::Buffer(name, tensor) => (name, tensor.size()),
                Slot::Counter(name, _) => (name, vec![]),
            };
            known.insert(name.as_str());
            match state.get(name) {
                // PyTorch before 0.4.1 wrote no counters.
                None if is_optional(name) || matches!(slot, Slot::Counter(..)) => {}
                None => problems.push(format!("missing: {name} {wanted:?}")),
                Some(found) if found.size() != wanted => problems
                    .push(format!("wrong shape: {name} is {:?} in the file, {wanted:?} in the model", found.size())),
                Some(found) => problems.extend(fault(slot, found).map(|what| format!("unusable: {name} {what}"))),
            }
        }
        for (name, tensor) in state.iter() {
            if !known.contains(name) && !is_optional(name) {
                problems.push(format!("unexpected: {name} {:?}", tensor.size()));
            }
        }
        if !problems.is_empty() {
            bail!("the weights do not fit the model:\n  {}", problems.join("\n  "));
        }
        let _guard = tch::no_grad_guard();
        for slot in &self.slots {
            match slot {
                Slot::Parameter(Parameter { name, tensor, .. }) | Slot::Buffer(name, tensor) => {
                    if let Some(found) = state.get(name) {
                        tensor.shallow_clone().f_copy_(found)?;
                    }
                }
                Slot::Counter(name, count) => {
                    if let Some(found) = state.get(name) {
                        count.store(found.int64_value(&[]), Ordering::Relaxed);
                    }
                }
            }
        }
        Ok(())
    }
}

/// What makes numbers of the right shape unfit for their place in a network, in words.
fn fault(slot: &Slot, found: &Tensor) -> Option<String> {
    let _guard = tch::no_grad_guard();
    let whole = matches!(found.kind(), Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64);
    let holds = |condition: Tensor| condition.all().int64_value(&[]) != 0;
    let name = match slot {
        Slot::Counter(..) if !whole || found.int64_value(&[]) < 0 => return Some("is no count".to_owned()),
        Slot::Counter(..) => return None,
        Slot::Parameter(Parameter { name, .. }) | Slot::Buffer(name, _) => name,
    };
    if !found.is_floating_point() {
        return Some(format!("has whole numbers ({:?})", found.kind()));
    }
    if !holds(found.isfinite()) {
        return Some("holds a number that is not finite".to_owned());
    }
    match name.rsplit('.').next() {
        Some("running_var") if !holds(found.ge(0.0)) => Some("holds a variance below 0".to_owned()),
        Some("std") if !holds(found.gt(0.0)) => Some("holds a standard deviation that is not above 0".to_owned()),
        _ => None,
    }
}

/// Creates layers and enters their tensors into a [`Registry`].
pub struct Builder {
    registry: Registry,
    device: Device,
    seed: u64,
    prefix: Vec<String>,
    drawn: u64,
}

impl Builder {
    /// Initial weights are drawn from streams of `seed`, one per parameter.
    pub fn new(device: Device, seed: u64) -> Self {
        Builder { registry: Registry::default(), device, seed, prefix: Vec::new(), drawn: 0 }
    }

    pub fn finish(self) -> Registry {
        self.registry
    }

    /// Runs `build` with `name.` in front of every name.
    pub fn scope<T>(&mut self, name: impl Into<String>, build: impl FnOnce(&mut Self) -> T) -> T {
        self.prefix.push(name.into());
        let built = build(self);
        self.prefix.pop();
        built
    }

    fn full_name(&self, name: &str) -> String {
        let mut full = self.prefix.join(".");
        if !full.is_empty() {
            full.push('.');
        }
        full + name
    }

    fn stream(&mut self) -> Stream {
        self.drawn += 1;
        Stream::new(self.seed, Purpose::Initialisation, self.drawn - 1, 0, 0)
    }

    fn parameter(&mut self, name: &str, values: &[f32], shape: &[i64], role: Role) -> Tensor {
        let mut tensor = Tensor::from_slice(values).view(shape).to_device(self.device);
        if shape.len() == 4 {
            tensor = channels_last(&tensor);
        }
        let tensor = tensor.set_requires_grad(true);
        let name = self.full_name(name);
        self.registry.slots.push(Slot::Parameter(Parameter { name, tensor: tensor.shallow_clone(), role }));
        tensor
    }

    /// A tensor that is saved but not trained.
    pub fn buffer(&mut self, name: &str, values: &[f32]) -> Tensor {
        let tensor = Tensor::from_slice(values).to_device(self.device);
        let name = self.full_name(name);
        self.registry.slots.push(Slot::Buffer(name, tensor.shallow_clone()));
        tensor
    }

    fn counter(&mut self, name: &str) -> Arc<AtomicI64> {
        let count = Arc::new(AtomicI64::new(0));
        let name = self.full_name(name);
        self.registry.slots.push(Slot::Counter(name, Arc::clone(&count)));
        count
    }

    /// A convolution without bias; weights normal with variance 2 / (out * side^2), PyTorch's `kaiming_normal_`
    /// with `mode="fan_out"`.
    pub fn conv(&mut self, name: &str, input: i64, output: i64, side: i64, stride: i64) -> Conv2d {
        let deviation = (2.0 / (output * side * side) as f64).sqrt();
        let mut stream = self.stream();
        let count = (output * input * side * side) as usize;
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let (a, b) = stream.normal_pair();
            values.push((a * deviation) as f32);
            values.push((b * deviation) as f32);
        }
        values.truncate(count);
        let weight = self.scope(name, |b| b.parameter("weight", &values, &[output, input, side, side], Role::Weight));
        Conv2d { weight, stride, padding: side / 2 }
    }

    /// BatchNorm with weight 1 and bias 0, over `[M, C, H, W]` or `[M, C]`.
    pub fn batch_norm(&mut self, name: &str, channels: i64) -> BatchNorm {
        let (ones, zeros) = (vec![1f32; channels as usize], vec![0f32; channels as usize]);
        self.scope(name, |b| BatchNorm {
            weight: b.parameter("weight", &ones, &[channels], Role::BatchNorm),
            bias: b.parameter("bias", &zeros, &[channels], Role::BatchNorm),
            running_mean: b.buffer("running_mean", &zeros),
            running_var: b.buffer("running_var", &ones),
            batches_tracked: b.counter("num_batches_tracked"),
        })
    }

    /// A linear layer, weight and bias uniform in ±1/sqrt(input), as `torch.nn.Linear`.
    pub fn linear(&mut self, name: &str, input: i64, output: i64) -> Linear {
        let bound = 1.0 / (input as f64).sqrt();
        let draw =
            |stream: &mut Stream, n: i64| -> Vec<f32> { (0..n).map(|_| stream.range(-bound, bound) as f32).collect() };
        let weight = draw(&mut self.stream(), input * output);
        let bias = draw(&mut self.stream(), output);
        self.scope(name, |b| Linear {
            weight: b.parameter("weight", &weight, &[output, input], Role::Weight),
            bias: b.parameter("bias", &bias, &[output], Role::Bias),
        })
    }
}

/// The same values with the channel as the fastest dimension in memory (NHWC), the layout that oneDNN and the
/// tensor cores prefer. Shape stays `[N, C, H, W]`.
pub fn channels_last(tensor: &Tensor) -> Tensor {
    tensor.permute([0, 2, 3, 1]).contiguous().permute([0, 3, 1, 2])
}

/// Convolution without bias, zero padding of half the kernel.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    stride: i64,
    padding: i64,
}

/// Matrix units of GPUs read so many channels of 16 bits at once: 16 bytes.
const CHANNELS_AT_ONCE: i64 = 8;

/// `[N, C, H, W]` with channels of zeros behind its own, to a multiple of `multiple`.
fn widened(tensor: &Tensor, multiple: i64) -> Tensor {
    let missing = (-tensor.size()[1]).rem_euclid(multiple);
    tensor.constant_pad_nd([0, 0, 0, 0, 0, missing])
}

impl Conv2d {
    /// `[M, C_in, H, W]` to `[M, C_out, H/stride, W/stride]`, in the pass's precision.
    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let weight = self.weight.to_kind(pass.compute);
        let units = x.device().is_cuda() && pass.compute != Kind::Float;
        if units && x.size()[1] % CHANNELS_AT_ONCE != 0 {
            // An image's 3 channels leave cuDNN only kernels without the matrix units: a stem then costs as much as four
            // convolutions of 64 channels. Zeros change no sum.
            return self.convolve(&widened(x, CHANNELS_AT_ONCE), &widened(&weight, CHANNELS_AT_ONCE));
        }
        self.convolve(x, &weight)
    }

    fn convolve(&self, x: &Tensor, weight: &Tensor) -> Tensor {
        x.conv2d(weight, None::<&Tensor>, [self.stride; 2], [self.padding; 2], [1, 1], 1)
    }
}

/// BatchNorm with float32 statistics and affine parameters, whatever the precision of its input.
#[derive(Debug)]
pub struct BatchNorm {
    pub(super) weight: Tensor,
    pub(super) bias: Tensor,
    pub(super) running_mean: Tensor,
    pub(super) running_var: Tensor,
    batches_tracked: Arc<AtomicI64>,
}

impl BatchNorm {
    /// PyTorch's defaults.
    pub(super) const MOMENTUM: f64 = 0.1;
    pub const EPSILON: f64 = 1e-5;

    /// The running statistics have moved once more.
    pub(super) fn count_batch(&self) {
        self.batches_tracked.fetch_add(1, Ordering::Relaxed);
    }

    pub fn forward(&self, x: &Tensor, pass: Pass) -> Tensor {
        let updates = pass.train && pass.tracks;
        if updates {
            self.count_batch();
            // No pass over a group is untracked: `ranks::check_job` refuses chunks.
            if let Some(group) = pass.group {
                let parameters = [&self.weight, &self.bias, &self.running_mean, &self.running_var];
                return group.batch_norm(x, parameters, Self::MOMENTUM, Self::EPSILON);
            }
        }
        x.batch_norm(
            Some(&self.weight),
            Some(&self.bias),
            // A training pass without them uses the batch's statistics and leaves no trace.
            (updates || !pass.train).then_some(&self.running_mean),
            (updates || !pass.train).then_some(&self.running_var),
            pass.train,
            Self::MOMENTUM,
            Self::EPSILON,
            true,
        )
    }
}

/// `x W^T + b` in float32.
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    pub fn outputs(&self) -> i64 {
        self.bias.size()[0]
    }

    /// `[M, in]` to `[M, out]`.
    pub fn forward(&self, x: &Tensor) -> Tensor {
        x.linear(&self.weight, Some(&self.bias))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_of_zeros_change_neither_output_nor_gradient() {
        let input = || Tensor::randn([2, 3, 9, 7], (Kind::Double, Device::Cpu));
        let weight = channels_last(&input().narrow(2, 0, 3).narrow(3, 0, 3)).set_requires_grad(true);
        let (conv, x) = (Conv2d { weight: weight.shallow_clone(), stride: 2, padding: 1 }, channels_last(&input()));
        let wide = widened(&x, CHANNELS_AT_ONCE);
        assert_eq!((wide.size(), widened(&wide, CHANNELS_AT_ONCE).size()), (vec![2, 8, 9, 7], vec![2, 8, 9, 7]));
        assert!(wide.permute([0, 2, 3, 1]).is_contiguous(), "channels stay last");
        let found = [conv.convolve(&x, &weight), conv.convolve(&wide, &widened(&weight, CHANNELS_AT_ONCE))].map(|y| {
            let mut weight = weight.shallow_clone();
            weight.zero_grad();
            (&y * &y).sum(Kind::Double).backward();
            (y.detach(), weight.grad().copy())
        });
        let [(_, plain), (_, of_wide)] = &found;
        assert_eq!(plain.stride(), of_wide.stride(), "what steps the optimiser sees the gradient as it lies");
        let apart = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]);
        assert!(apart(&found[0].0, &found[1].0) < 1e-12 && apart(&found[0].1, &found[1].1) < 1e-12);
    }
}
