//! Where views are rendered, and whether the data set lies there.

use super::{Loader, Rendering};
use crate::augment::TensorRenderer;
use crate::config::DataOnDevice;
use crate::data::{Packed, Split};
use crate::device;
use anyhow::{Context, Result, bail};
use std::rc::Rc;
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// A GPU whose free memory cannot be asked for gets data sets up to this size.
const UNASKED_BYTES: u64 = 1 << 30;

/// Who makes the views of a batch.
#[derive(Clone, Debug)]
pub(super) enum Pipeline {
    /// Worker threads; the batches go to the device.
    Workers(Device),
    /// Worker threads decode, crop and resize; the device does the rest.
    Colors(Rc<TensorRenderer>),
    /// The device, from the data set in its memory.
    Resident(Rc<TensorRenderer>, Rc<Resident>),
}

impl Pipeline {
    /// Where the batches are.
    pub fn device(&self) -> Device {
        match self {
            Pipeline::Workers(device) => *device,
            Pipeline::Colors(renderer) | Pipeline::Resident(renderer, _) => renderer.device(),
        }
    }
}

/// A packed data set as a tensor.
#[derive(Debug)]
pub(super) struct Resident {
    /// u8 `[N, H, W, 3]`; on the CPU the split's own memory.
    pub images: Tensor,
    /// Owns that memory.
    _split: Arc<Split>,
}

impl Resident {
    fn new(split: &Arc<Split>, device: Device) -> Result<Resident> {
        let packed = packed(split)?;
        let shape = [split.len(), packed.height(), packed.width(), 3].map(|length| length as i64);
        let pixels = packed.pixels().as_ptr();
        // SAFETY: the pixels are N * H * W * 3 initialised bytes that nobody changes, and the split lives as long as the
        // tensor, beside it; the tensor is only read.
        let borrowed = unsafe { Tensor::from_blob(pixels, &shape, &[], Kind::Uint8, Device::Cpu) };
        let images = if device == Device::Cpu {
            borrowed
        } else {
            borrowed.f_to_device(device).with_context(|| {
                format!("{} does not fit into the device's memory; use --data-on-device no", split.name)
            })?
        };
        Ok(Resident { images, _split: Arc::clone(split) })
    }
}

/// The images of a split as one block of memory.
///
/// Errors: they are not.
pub fn packed(split: &Split) -> Result<&Packed> {
    split.packed().with_context(|| {
        format!(
            "--data-on-device yes: {} is made of {}, which are decoded batch by batch as they come; use auto or no",
            split.name,
            split.images.describe()
        )
    })
}

/// Whether the data set is to lie on the device.
fn resides(split: &Split, device: Device, wish: DataOnDevice) -> Result<bool> {
    if wish == DataOnDevice::No || (wish == DataOnDevice::Auto && split.packed().is_none()) {
        return Ok(false);
    }
    let bytes = packed(split)?.pixels().len() as u64;
    let Device::Cuda(index) = device else {
        return Ok(true); // It is in this memory already.
    };
    let free = device::free_memory(device);
    match (wish, free) {
        (DataOnDevice::Yes, Some(free)) if bytes > free => bail!(
            "--data-on-device yes: {} takes {:.0} MiB, and cuda:{index} has {:.0} MiB free; use auto or no",
            split.name,
            mib(bytes),
            mib(free)
        ),
        (DataOnDevice::Yes, _) => Ok(true),
        (_, Some(free)) => Ok(bytes <= free / 3),
        (_, None) => Ok(bytes <= UNASKED_BYTES),
    }
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}

impl Loader {
    /// The same loader, whose batches the worker threads render and which arrive on `device`.
    pub fn deliver_to(self, device: Device) -> Loader {
        Loader { pipeline: Pipeline::Workers(device), ..self }
    }

    /// The same loader with the tensor engine: views are rendered on `device`, and the data set lies there if `wish` says so.
    ///
    /// Errors: a data set that is to lie there and is made of files or does not fit.
    ///
    /// # Panics
    /// If the loader does not make views.
    pub fn on_device(self, device: Device, wish: DataOnDevice) -> Result<Loader> {
        let Rendering::Views { recipe, size_px } = &*self.rendering else {
            panic!("the tensor engine renders views");
        };
        let renderer = Rc::new(TensorRenderer::new(device, *size_px, recipe.blur_kernel_px));
        let pipeline = if resides(&self.split, device, wish)? {
            Pipeline::Resident(renderer, Rc::new(Resident::new(&self.split, device)?))
        } else {
            Pipeline::Colors(renderer)
        };
        Ok(Loader { pipeline, ..self })
    }

    /// Who renders, in a sentence.
    pub fn describe(&self) -> String {
        let threads = match self.workers {
            1 => "1 thread".to_owned(),
            count => format!("{count} threads"),
        };
        match &self.pipeline {
            Pipeline::Workers(_) => format!("views: rendered by {threads}"),
            Pipeline::Colors(renderer) => {
                format!("views: cropped and resized by {threads}, coloured on {}", name(renderer.device()))
            }
            Pipeline::Resident(renderer, resident) => format!(
                "views: rendered on {} from the data set in its memory, {:.0} MiB",
                name(renderer.device()),
                mib(resident.images.numel() as u64)
            ),
        }
    }
}

fn name(device: Device) -> String {
    match device {
        Device::Cuda(index) => format!("cuda:{index}"),
        _ => "the CPU".to_owned(),
    }
}
