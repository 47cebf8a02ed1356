//! The forward and backward pass of a training step: both views of a batch
//! through the encoder, and a gradient by their features back to the parameters.
//!
//! With chunks (`--grad-cache`; Gao et al., arXiv 2101.06983) the batch goes
//! through the encoder twice, a chunk at a time: once without a graph, for the
//! features that the contrast compares, and once with one, each chunk running
//! backward with its share of the contrast's gradient. Memory holds the graph of
//! one chunk; the gradient is that of the whole batch, except that BatchNorm
//! normalises by the statistics of a chunk.

use crate::loss::{self, Contrast};
use crate::model::{Encoder, Pass};
use tch::Tensor;

/// The features of one step, not recorded for autograd.
pub struct StepFeatures {
    /// Of the trunk, `[2B, D]`; of several ranks, this one's rows.
    pub hidden: Tensor,
    /// Of the projection head, rows of length 1, `[2B, P]`; of all ranks.
    pub unit: Tensor,
}

/// What a step leaves on the device. Of a recorded step these are the same tensors each time.
pub struct StepOutput {
    /// The numbers that every step has, `[columns]` float32.
    pub row: Tensor,
    pub contrast: Contrast,
    pub features: StepFeatures,
    /// `[2]` float32: 1 if the step overflowed and was left out, else 0; the loss scale, NaN without one.
    pub scaling: Tensor,
}

/// The features of both views of a batch, ready to run backward.
pub struct Views<'a> {
    /// Of the trunk, `[2B, D]`, not recorded for autograd.
    pub hidden: Tensor,
    /// Of the projection head, rows of length 1, `[2B, P]`.
    pub unit: Tensor,
    /// With chunks: what goes through the encoder once more, with a graph.
    again: Option<(Chunks, &'a Encoder, Tensor, Pass<'a>)>,
}

/// A batch of views, u8 `[2B, S, S, 3]`, view-major, through the encoder in so many `chunks`, from 1 to B. Waits for
/// nothing.
pub fn forward<'a>(encoder: &'a Encoder, images: &Tensor, pass: Pass<'a>, chunks: u32) -> Views<'a> {
    let through = |images: &Tensor, pass: Pass| {
        let features = encoder.forward(&encoder.prepare(images), pass);
        (features.hidden.detach(), loss::normalise(&features.projected))
    };
    if chunks == 1 {
        let (hidden, unit) = through(images, pass);
        return Views { hidden, unit, again: None };
    }
    let chunks = Chunks::new(images.size()[0] / 2, i64::from(chunks));
    let _guard = tch::no_grad_guard();
    // The second pass has the same statistics, and updates the running ones.
    let first_pass = chunks.each().map(|chunk| through(&chunk.of(images), pass.untracked()));
    let (hidden, units): (Vec<Tensor>, Vec<Tensor>) = first_pass.unzip();
    let again = Some((chunks, encoder, images.shallow_clone(), pass));
    Views { hidden: view_major(&hidden), unit: view_major(&units), again }
}

impl Views<'_> {
    /// Adds to the parameters' gradients what follows from `gradient`, that by the unit features, `[2B, P]`.
    pub fn backward(&self, gradient: &Tensor) {
        let Some((chunks, encoder, images, pass)) = &self.again else { return loss::backward(&self.unit, gradient) };
        for chunk in chunks.each() {
            let projected = encoder.forward(&encoder.prepare(&chunk.of(images)), *pass).projected;
            loss::backward(&loss::normalise(&projected), &chunk.of(gradient));
        }
    }
}

/// A batch of images cut into chunks; both views of an image are in the same.
#[derive(Clone, Copy)]
struct Chunks {
    images: i64,
    /// In a chunk, but for the last.
    at_once: i64,
}

/// Images `first .. first + count` of a batch of `images`.
struct Chunk {
    images: i64,
    first: i64,
    count: i64,
}

impl Chunks {
    fn new(images: i64, chunks: i64) -> Chunks {
        Chunks { images, at_once: (images + chunks - 1) / chunks.max(1) }
    }

    fn each(self) -> impl Iterator<Item = Chunk> {
        let Chunks { images, at_once } = self;
        (0..images).step_by(at_once as usize).map(move |first| Chunk {
            images,
            first,
            count: at_once.min(images - first),
        })
    }
}

impl Chunk {
    /// The chunk's rows of a tensor whose rows are the batch's views, view-major.
    fn of(&self, views: &Tensor) -> Tensor {
        let rows = |start: i64| views.narrow(0, start + self.first, self.count);
        Tensor::cat(&[rows(0), rows(self.images)], 0)
    }
}

/// Puts the view-major rows of chunks, `[2n, ...]` each, together to those of their batch, `[2B, ...]`.
fn view_major(chunks: &[Tensor]) -> Tensor {
    let view =
        |number: i64| chunks.iter().map(move |rows| rows.narrow(0, number * rows.size()[0] / 2, rows.size()[0] / 2));
    Tensor::cat(&view(0).chain(view(1)).collect::<Vec<_>>(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::loss::{Objective, Pairs};
    use crate::optim::{Optimizer, Rate, Scaler, StateEntry, Update};
    use tch::{Device, Kind};

    /// Moves nothing.
    struct Idle;

    impl Optimizer for Idle {
        fn step(&mut self, _: &Rate, _: Option<&Tensor>) {}

        fn state(&self) -> Vec<StateEntry> {
            Vec::new()
        }

        fn load(&mut self, _: &dyn Fn(usize, &str) -> Option<Tensor>) -> anyhow::Result<()> {
            Ok(())
        }
    }

    /// The features of a batch, and the gradients that InfoNCE leaves; with a scaler also whether it overflowed.
    fn stepped<'a>(
        encoder: &'a Encoder,
        pass: Pass<'a>,
        chunks: u32,
        images: &Tensor,
        scaler: Option<&mut Scaler>,
    ) -> (Views<'a>, Vec<Tensor>, bool) {
        let parameters = encoder.parameters();
        let mut idle = Idle;
        let update = Update::begin(&mut idle, &parameters, scaler);
        let views = forward(encoder, images, pass, chunks);
        let loss = Objective::SimClr.loss(16, Device::Cpu);
        views.backward(&update.scaled(&loss.contrast(&Pairs::new(&views.unit, 0.2)).gradient));
        let overflowed = update.finish(&Rate::from(0.0)).is_some_and(|scaling| scaling.double_value(&[0]) > 0.0);
        (views, parameters.iter().map(|p| p.tensor.grad().copy()).collect(), overflowed)
    }

    fn images(count: i64) -> Tensor {
        // Of no generator: other tests share libtorch's.
        let numbers = Tensor::arange(2 * count * 8 * 8 * 3, (Kind::Int64, Device::Cpu));
        (&numbers * &numbers * 7919).remainder(251).to_kind(Kind::Uint8).view([2 * count, 8, 8, 3])
    }

    #[test]
    fn chunks_give_the_gradient_of_the_whole_batch() {
        let (encoder, images) = (Encoder::small(16, 3), images(7));
        // Gradients flow; BatchNorm uses its running statistics, which no chunk changes.
        let pass = Pass::eval(Kind::Float);
        let (whole, wanted, _) = stepped(&encoder, pass, 1, &images, None);
        for chunks in [2, 3, 7] {
            let (parts, gradients, _) = stepped(&encoder, pass, chunks, &images, None);
            assert!(parts.unit.allclose(&whole.unit, 1e-5, 1e-6, false), "{chunks} chunks");
            assert!(parts.hidden.allclose(&whole.hidden, 1e-5, 1e-6, false), "{chunks} chunks");
            for ((got, wanted), p) in gradients.iter().zip(&wanted).zip(encoder.parameters()) {
                let error = (got - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
                assert!(error < 1e-5, "{chunks} chunks: {} is off by {error:e}", p.name);
            }
        }
    }

    #[test]
    fn running_statistics_move_once_a_chunk_and_not_in_the_first_pass() {
        let images = images(6);
        let chunked = Encoder::small(16, 3);
        stepped(&chunked, Pass::train(Kind::Float), 3, &images, None);
        // The same as plain forward passes over the chunks.
        let plain = Encoder::small(16, 3);
        for chunk in Chunks::new(6, 3).each() {
            plain.forward(&plain.prepare(&chunk.of(&images)), Pass::train(Kind::Float));
        }
        for ((name, got), (_, wanted)) in chunked.state_dict().iter().zip(plain.state_dict().iter()) {
            assert!(got.allclose(wanted, 1e-6, 1e-7, false), "{name}");
            if name.ends_with("num_batches_tracked") {
                assert_eq!(got.int64_value(&[]), 3, "{name}");
            }
        }
    }

    #[test]
    fn an_overflow_of_float16_leaves_the_running_statistics_as_they_were() {
        let (encoder, images) = (Encoder::small(16, 3), images(4));
        let statistics = || -> Vec<Tensor> { encoder.running_statistics().iter().map(Tensor::copy).collect() };
        let mut scaler = Scaler::new(Device::Cpu, encoder.running_statistics());
        let mut step = |chunks: u32| stepped(&encoder, Pass::train(Kind::Half), chunks, &images, Some(&mut scaler)).2;
        // A scale that is too high may cost some steps at first.
        let settled = (0..20).position(|_| !step(1)).expect("the scale settles");
        let before = statistics();
        assert!(!before.is_empty() && before.iter().all(|tensor| tensor.isfinite().all().int64_value(&[]) != 0));
        assert!(!step(1), "settled after {settled} steps");
        assert_ne!(statistics(), before, "a step that counts moves them");

        let before = statistics();
        let stem = encoder.parameters().remove(0).tensor;
        // Beyond 65504, the largest number of float16.
        let _ = tch::no_grad(|| stem.detach().g_mul_scalar_(1e6));
        for chunks in [1, 2] {
            assert!(step(chunks), "{chunks} chunks");
            assert_eq!(statistics(), before, "{chunks} chunks");
        }
    }

    #[test]
    fn both_views_of_an_image_are_in_one_chunk_and_rows_keep_their_order() {
        let views = Tensor::arange(10, (Kind::Int64, Device::Cpu)).view([10, 1]);
        let parts: Vec<Tensor> = Chunks::new(5, 2).each().map(|chunk| chunk.of(&views)).collect();
        let numbers = |tensor: &Tensor| Vec::<i64>::try_from(tensor.view(-1)).unwrap();
        assert_eq!(parts.iter().map(numbers).collect::<Vec<_>>(), [vec![0, 1, 2, 5, 6, 7], vec![3, 4, 8, 9]]);
        assert_eq!(numbers(&view_major(&parts)), (0..10).collect::<Vec<_>>());
    }
}
