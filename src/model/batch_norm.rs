//! BatchNorm with what follows it in a ResNet: one operation on a GPU with the fused kernels, else libtorch's one by one.

use super::layers::{BatchNorm, Pass};
use crate::native::cuda::kernels;
use tch::Tensor;

/// What follows.
#[derive(Clone, Copy, Debug)]
pub enum After<'a> {
    Nothing,
    Relu,
    /// The addition of a shortcut, of the same shape and precision, and ReLU.
    AddRelu(&'a Tensor),
}

impl BatchNorm {
    /// `[M, C, H, W]` to the same shape and precision.
    pub fn then(&self, x: &Tensor, after: After, pass: Pass) -> Tensor {
        if let Some(out) = self.fused(x, after, pass) {
            return out;
        }
        let mut out = self.forward(x, pass);
        match after {
            After::Nothing => out,
            After::Relu => out.relu_(),
            After::AddRelu(shortcut) => out.g_add_(shortcut).relu_(),
        }
    }

    /// In training over this process's own images, with kernels that are made for `x`.
    fn fused(&self, x: &Tensor, after: After, pass: Pass) -> Option<Tensor> {
        if !pass.train || pass.group.is_some() {
            return None;
        }
        let norm = kernels::BatchNorm {
            x,
            weight: &self.weight,
            bias: &self.bias,
            running: pass.tracks.then_some((&self.running_mean, &self.running_var)),
            shortcut: if let After::AddRelu(shortcut) = after { Some(shortcut) } else { None },
            relu: !matches!(after, After::Nothing),
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
