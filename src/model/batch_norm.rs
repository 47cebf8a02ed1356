//! BatchNorm with what follows it in a ResNet: one operation on a GPU with the fused kernels, else libtorch's one by one.

use super::layers::{BatchNorm, Pass};
use crate::native::cuda::kernels;
use tch::Tensor;

/// The output of a block of a ResNet: what its successor convolves, and its successor's shortcut. One tensor, or two in the
/// same memory whose gradients come apart.
#[derive(Debug)]
pub struct Forked {
    pub way: Tensor,
    pub shortcut: Tensor,
}

impl Forked {
    pub fn of(tensor: Tensor) -> Forked {
        Forked { shortcut: tensor.shallow_clone(), way: tensor }
    }
}

impl BatchNorm {
    /// `[M, C, H, W]` to the same shape and precision; with `relu` behind it.
    pub fn then(&self, x: &Tensor, relu: bool, pass: Pass) -> Tensor {
        if let Some((out, _)) = self.fused(x, None, relu, pass) {
            return out;
        }
        let mut out = self.forward(x, pass);
        if relu { out.relu_() } else { out }
    }

    /// The same with the addition of a shortcut, of the same shape and precision, and ReLU behind it.
    pub fn join(&self, x: &Tensor, shortcut: &Tensor, pass: Pass) -> Forked {
        match self.fused(x, Some(shortcut), true, pass) {
            Some((way, Some(shortcut))) => Forked { way, shortcut },
            Some((out, None)) => Forked::of(out),
            None => Forked::of(self.forward(x, pass).g_add_(shortcut).relu_()),
        }
    }

    /// In training over this process's own images, with kernels that are made for `x`.
    fn fused(&self, x: &Tensor, shortcut: Option<&Tensor>, relu: bool, pass: Pass) -> Option<(Tensor, Option<Tensor>)> {
        if !pass.train || pass.group.is_some() {
            return None;
        }
        let norm = kernels::BatchNorm {
            x,
            weight: &self.weight,
            bias: &self.bias,
            running: pass.tracks.then_some((&self.running_mean, &self.running_var)),
            shortcut,
            relu,
            momentum: Self::MOMENTUM,
            epsilon: Self::EPSILON,
        };
        // As tch does: `native::caught` makes an error of it.
        let out = kernels::batch_norm(norm).unwrap();
        if out.is_some() && pass.tracks {
            self.count_batch();
        }
        out
    }
}
