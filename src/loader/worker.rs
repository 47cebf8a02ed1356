//! What the loader's threads do: render the samples of a task.

use super::Rendering;
use crate::augment::{Renderer, ViewParameters, draw};
use crate::data::Split;
use crate::pixels::RgbImage;
use crate::rng::{Purpose, Stream};
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, Sender};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use tch::{Device, Kind, Tensor};

/// Samples of the epoch's order, and who waits for them.
pub struct Task {
    pub samples: Range<usize>,
    pub reply: Sender<Result<Rendered>>,
}

/// The samples of a task, each list by view.
pub struct Rendered {
    /// u8 `[n, S, S, 3]` a view.
    pub images: Vec<Tensor>,
    /// What was drawn for each; empty where nothing is.
    pub drawn: Vec<Vec<ViewParameters>>,
}

/// What a thread needs to know.
#[derive(Clone)]
pub struct Worker {
    pub split: Arc<Split>,
    pub rendering: Arc<Rendering>,
    /// Whether views are finished here, or end with crop, size and flip.
    pub colors: bool,
    pub order: Arc<Vec<usize>>,
    pub seed: u64,
    pub epoch: u64,
}

impl Worker {
    /// Renders tasks until there are no more, or nobody waits for one.
    pub fn run(&self, tasks: &Receiver<Task>) {
        let mut renderer = Renderer::new();
        let mut scratch = RgbImage::default();
        for Task { samples, reply } in tasks {
            // The thread outlives a panic: the other tasks are for it too.
            let attempt = AssertUnwindSafe(|| self.render(&mut renderer, &mut scratch, &self.order[samples]));
            let rendered =
                catch_unwind(attempt).unwrap_or_else(|_| Err(anyhow!("a loader thread panicked (see above)")));
            if reply.send(rendered).is_err() {
                return;
            }
        }
    }

    fn render(&self, renderer: &mut Renderer, scratch: &mut RgbImage, samples: &[usize]) -> Result<Rendered> {
        let size = self.rendering.size_px();
        let stride = size * size * 3;
        let shape = [samples.len() as i64, size as i64, size as i64, 3];
        let mut images = (0..self.rendering.views()).map(|_| unwritten(&shape)).collect::<Result<Vec<Tensor>>>()?;
        let mut buffers: Vec<&mut [u8]> = images.iter_mut().map(bytes_of).collect();
        let mut drawn = vec![Vec::with_capacity(samples.len()); self.rendering.views()];
        for (i, &sample) in samples.iter().enumerate() {
            let image = self.split.image(sample, scratch)?;
            for (view, buffer) in buffers.iter_mut().enumerate() {
                let out = &mut buffer[i * stride..(i + 1) * stride];
                let stream = |purpose| Stream::new(self.seed, purpose, self.epoch, sample as u64, view as u32);
                match &*self.rendering {
                    Rendering::Views { recipe, size_px } => {
                        let parameters = draw(recipe, &mut stream(Purpose::View), image.width, image.height);
                        drawn[view].push(parameters);
                        let here = if self.colors { parameters } else { parameters.without_colors() };
                        renderer.view(image, &here, recipe.blur_kernel_px, *size_px, out);
                    }
                    Rendering::Single(transform) => {
                        transform.apply(renderer, image, &mut stream(Purpose::Evaluation), out);
                    }
                }
            }
        }
        Ok(Rendered { images, drawn })
    }
}

/// A u8 tensor of arbitrary content.
///
/// None of libtorch's operations that may share their work among threads is called here: the first that a thread calls
/// gives it a team of its own, and the presence of a second team makes the training thread's own sleep between any two
/// operations, instead of waiting awake.
fn unwritten(shape: &[i64]) -> Result<Tensor> {
    Tensor::f_empty(shape, (Kind::Uint8, Device::Cpu)).context("no memory for a batch")
}

/// The elements of a u8 tensor that [`unwritten`] made and nobody else has.
fn bytes_of(tensor: &mut Tensor) -> &mut [u8] {
    let bytes = tensor.numel();
    // SAFETY: fresh, contiguous memory of that many bytes, borrowed as long as the tensor; any bytes are valid as u8,
    // and libtorch has allocated them, so that they are memory of this process.
    unsafe { std::slice::from_raw_parts_mut(tensor.data_ptr().cast(), bytes) }
}
