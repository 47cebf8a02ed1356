//! The learning rate of a step, where the step reads it.

use tch::{Device, Kind, Tensor};

/// A learning rate. For parameters on a GPU it lies there too: a recorded step reads it anew each time.
#[derive(Debug)]
pub struct Rate {
    number: f64,
    /// `[]` float32, always the same tensor.
    there: Option<Tensor>,
}

impl Rate {
    /// For parameters on `device`; 0 until it is set.
    pub fn on(device: Device) -> Rate {
        let there = device.is_cuda().then(|| Tensor::zeros([], (Kind::Float, device)));
        Rate { number: 0.0, there }
    }

    /// As a GPU has it, on any device.
    pub fn as_tensor(lr: f64, device: Device) -> Rate {
        Rate { number: lr, there: Some(Tensor::from(lr as f32).to_device(device)) }
    }

    /// Waits for nothing.
    pub fn set(&mut self, lr: f64) {
        self.number = lr;
        if let Some(there) = &mut self.there {
            let _guard = tch::no_grad_guard();
            let _ = there.fill_(lr);
        }
    }

    /// For steps that are taken on the host.
    pub fn number(&self) -> f64 {
        self.number
    }

    /// `[]` on `device`; where the rate does not lie there, a copy.
    pub(super) fn tensor(&self, device: Device) -> Tensor {
        match &self.there {
            Some(there) if there.device() == device => there.shallow_clone(),
            _ if device == Device::Cpu => Tensor::from(self.number),
            _ => Tensor::from(self.number as f32).to_device(device),
        }
    }

    /// `[]` float32, for steps that are taken on a device.
    pub fn there(&self) -> Option<&Tensor> {
        self.there.as_ref()
    }
}

/// For parameters in main memory.
impl From<f64> for Rate {
    fn from(lr: f64) -> Rate {
        Rate { number: lr, there: None }
    }
}
