//! One training step: forward, contrast, backward, optimiser. The one place for
//! whatever changes how gradients come about; the loop around it knows batches
//! and epochs, this knows neither.
//!
//! With chunks (`--grad-cache`; Gao et al., arXiv 2101.06983) the batch goes
//! through the encoder twice, a chunk at a time: once without a graph, for the
//! features that the contrast compares, and once with one, each chunk running
//! backward with its share of the contrast's gradient. Memory holds the graph of
//! one chunk; the gradient is that of the whole batch, except that BatchNorm
//! normalises by the statistics of a chunk.

use super::tally::StepFeatures;
use crate::config::Objective;
use crate::loss::{self, Contrast};
use crate::model::{Encoder, Pass};
use crate::optim::{Optimizer, Rate, Scaler, Update};
use crate::state::Parameter;
use crate::train::ranks::Ranks;
use anyhow::Result;
use tch::Tensor;

/// What a step works on, and how.
pub struct Step<'a> {
    pub encoder: &'a Encoder,
    /// The encoder's own.
    pub parameters: &'a [Parameter],
    pub optimizer: &'a mut dyn Optimizer,
    /// Scales the gradients on their way: float16 needs it.
    pub scaler: Option<&'a mut Scaler>,
    pub objective: Objective,
    pub temperature: f64,
    pub pass: Pass<'a>,
    /// Parts of the batch that go through the encoder one after the other; from 1 to the number of images.
    pub chunks: i64,
    pub ranks: &'a Ranks,
}

/// What a step leaves behind, on the device.
pub struct Taken {
    pub contrast: Contrast,
    pub features: StepFeatures,
    /// With a scaler, `[2]` float32: 1 if the optimiser was passed over, else 0; the scale of the next step.
    pub scaling: Option<Tensor>,
}

impl Step<'_> {
    /// Takes the step on a batch of views, u8 `[2B, S, S, 3]`, view-major, with learning rate `rate`; of several ranks,
    /// on this one's rows of the batch. Nothing here waits for the device.
    ///
    /// Errors: another rank has gone; nothing is updated then.
    pub fn take(self, images: &Tensor, rate: &Rate) -> Result<Taken> {
        let Step { encoder, parameters, optimizer, scaler, objective, temperature, pass, chunks, ranks } = self;
        let update = Update::begin(optimizer, parameters, scaler);
        let gradients = Gradients { encoder, objective, temperature, pass, ranks, update };
        let (contrast, features) =
            if chunks == 1 { gradients.add(images)? } else { gradients.add_in_chunks(images, chunks)? };
        ranks.sum_gradients(parameters)?;
        let scaling = gradients.update.finish(rate);
        Ok(Taken { contrast, features, scaling })
    }
}

/// From a batch to gradients.
struct Gradients<'a> {
    encoder: &'a Encoder,
    objective: Objective,
    temperature: f64,
    pass: Pass<'a>,
    ranks: &'a Ranks,
    update: Update<'a>,
}

impl Gradients<'_> {
    /// Adds the gradients of the batch to the parameters'.
    fn add(&self, images: &Tensor) -> Result<(Contrast, StepFeatures)> {
        let images = self.encoder.prepare(images); // [2B, 3, S, S]
        let features = self.encoder.forward(&images, self.pass);
        let unit = loss::normalise(&features.projected); // [2B, P]
        let (contrast, all) = self.ranks.contrast(&unit, self.temperature, self.objective)?;
        self.backward(&unit, &contrast.gradient);
        Ok((contrast, StepFeatures { hidden: features.hidden.detach(), unit: all }))
    }

    /// As [`Gradients::add`], with the graph of one chunk in memory at a time.
    fn add_in_chunks(&self, images: &Tensor, chunks: i64) -> Result<(Contrast, StepFeatures)> {
        let chunks = Chunks::new(images.size()[0] / 2, chunks);
        let (hidden, units): (Vec<Tensor>, Vec<Tensor>) = chunks
            .each()
            .map(|chunk| {
                let _guard = tch::no_grad_guard();
                let images = self.encoder.prepare(&chunk.of(images));
                // The second pass has the same statistics, and updates the running ones.
                let features = self.encoder.forward(&images, self.pass.untracked());
                (features.hidden, loss::normalise(&features.projected))
            })
            .unzip();
        let unit = view_major(&units);
        let (contrast, all) = self.ranks.contrast(&unit, self.temperature, self.objective)?;
        for chunk in chunks.each() {
            let images = self.encoder.prepare(&chunk.of(images));
            let unit = loss::normalise(&self.encoder.forward(&images, self.pass).projected);
            self.backward(&unit, &chunk.of(&contrast.gradient));
        }
        Ok((contrast, StepFeatures { hidden: view_major(&hidden), unit: all }))
    }

    /// Runs features `[M, P]` backward with their gradient.
    fn backward(&self, unit: &Tensor, gradient: &Tensor) {
        loss::backward(unit, &self.update.scaled(gradient));
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
    use crate::config::{
        Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, OptimizerConfig, OptimizerName, Stem,
    };
    use crate::model::HeadKind;
    use crate::optim;
    use tch::{Device, Kind};

    fn encoder() -> Encoder {
        let config = ModelConfig {
            depth: Depth::Res10,
            stem: Stem::Small,
            normalisation: Normalisation { mean: [0.5; 3], std: [0.25; 3] },
            head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 16 },
        };
        Encoder::new(&config, HeadKind::Projection, Device::Cpu, 3)
    }

    /// A step that moves nothing, and what it leaves.
    fn stepped(encoder: &Encoder, pass: Pass, chunks: i64, images: &Tensor) -> (Taken, Vec<Tensor>) {
        stepped_with(None, encoder, pass, chunks, images)
    }

    fn stepped_with(
        scaler: Option<&mut Scaler>,
        encoder: &Encoder,
        pass: Pass,
        chunks: i64,
        images: &Tensor,
    ) -> (Taken, Vec<Tensor>) {
        let config = OptimizerConfig {
            name: OptimizerName::Sgd,
            lr: 0.0,
            weight_decay: 0.0,
            momentum: 0.0,
            lars_exclude_bn: true,
            lars_exclude_bias: true,
        };
        let parameters = encoder.parameters();
        let mut optimizer = optim::build(&config, parameters.clone()).unwrap();
        let step = Step {
            encoder,
            parameters: &parameters,
            optimizer: optimizer.as_mut(),
            scaler,
            objective: Objective::SimClr,
            temperature: 0.2,
            pass,
            ranks: &Ranks::alone(),
            chunks,
        };
        let taken = step.take(images, &Rate::from(0.0)).unwrap();
        let gradients = parameters.iter().map(|p| p.tensor.grad().copy()).collect();
        (taken, gradients)
    }

    fn images(count: i64) -> Tensor {
        // Of no generator: other tests share libtorch's.
        let numbers = Tensor::arange(2 * count * 8 * 8 * 3, (Kind::Int64, Device::Cpu));
        (&numbers * &numbers * 7919).remainder(251).to_kind(Kind::Uint8).view([2 * count, 8, 8, 3])
    }

    #[test]
    fn chunks_give_the_gradient_of_the_whole_batch() {
        let (encoder, images) = (encoder(), images(7));
        // Gradients flow; BatchNorm uses its running statistics, which no chunk changes.
        let pass = Pass::eval(Kind::Float);
        let (whole, wanted) = stepped(&encoder, pass, 1, &images);
        for chunks in [2, 3, 7] {
            let (parts, gradients) = stepped(&encoder, pass, chunks, &images);
            assert!(parts.features.unit.allclose(&whole.features.unit, 1e-5, 1e-6, false), "{chunks} chunks");
            assert!(parts.features.hidden.allclose(&whole.features.hidden, 1e-5, 1e-6, false), "{chunks} chunks");
            for ((got, wanted), p) in gradients.iter().zip(&wanted).zip(encoder.parameters()) {
                let error = (got - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
                assert!(error < 1e-5, "{chunks} chunks: {} is off by {error:e}", p.name);
            }
        }
    }

    #[test]
    fn running_statistics_move_once_a_chunk_and_not_in_the_first_pass() {
        let images = images(6);
        let chunked = encoder();
        stepped(&chunked, Pass::train(Kind::Float), 3, &images);
        // The same as plain forward passes over the chunks.
        let plain = encoder();
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
        let (encoder, images) = (encoder(), images(4));
        let statistics = || -> Vec<Tensor> { encoder.running_statistics().iter().map(Tensor::copy).collect() };
        let mut scaler = Scaler::new(Device::Cpu, encoder.running_statistics());
        let mut step = |chunks: i64| {
            let pass = Pass::train(Kind::Half);
            let (taken, _) = stepped_with(Some(&mut scaler), &encoder, pass, chunks, &images);
            taken.scaling.expect("there is a scaler").double_value(&[0]) > 0.0
        };
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
