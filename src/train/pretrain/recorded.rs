//! A training step that is recorded once as a CUDA graph and replayed from then on.
//!
//! A step of a small network is some 800 operations, and telling a GPU of them
//! takes the host longer than the GPU takes to do them. A replay tells it all at
//! once. What a recorded step reads and writes stays where it is: images and
//! learning rate are put into its tensors before, and its results are read from
//! the same tensors after each replay.

use crate::config::{CudaGraph, Pretrain};
use crate::model::Encoder;
use crate::native::cuda::{self, Graph};
use anyhow::Result;
use std::rc::Rc;
use tch::{Device, Tensor};

/// Steps taken as they come before one is recorded: libraries choose their algorithms in them, and the optimiser makes its
/// state.
pub const WARM_UP_STEPS: u32 = 5;

/// Takes steps, and records one when it can be.
pub struct Recorder<T> {
    state: State<T>,
    warning: Option<String>,
}

enum State<T> {
    /// Every step is told operation by operation, for the reason given; without one there is nothing to say.
    Eager(Option<String>),
    /// So many steps have been.
    WarmingUp(u32),
    Recorded(Recorded<T>),
}

struct Recorded<T> {
    graph: Graph,
    /// What it reads: u8 `[2B, S, S, 3]`.
    images: Tensor,
    output: Rc<T>,
}

impl<T> Recorder<T> {
    /// For a run's steps; `ranks` processes train together.
    pub fn new(wish: CudaGraph, run: &Pretrain, device: Device, ranks: usize) -> Recorder<T> {
        if device == Device::Cpu {
            return Recorder::in_state(State::Eager(None));
        }
        let reasons = [
            (wish == CudaGraph::No, "--cuda-graph no"),
            (run.numerics.deterministic, "--deterministic"),
            (run.grad_cache > 1, "--grad-cache"),
            (run.ess_target.is_some(), "--ess-target moves the temperature"),
            (ranks > 1, "several ranks exchange tensors within it"),
        ];
        let reason = reasons.iter().find(|(holds, _)| *holds).map(|(_, reason)| (*reason).to_owned());
        let reason = reason.or_else(|| cuda::part().err().map(str::to_owned));
        Recorder::in_state(reason.map_or(State::WarmingUp(0), |reason| State::Eager(Some(reason))))
    }

    fn in_state(state: State<T>) -> Recorder<T> {
        Recorder { state, warning: None }
    }

    /// Why no step is recorded any more, once.
    pub fn warning(&mut self) -> Option<String> {
        self.warning.take()
    }

    /// Forgets what was recorded, for batches of another size.
    pub fn begin_again(&mut self) {
        if !matches!(self.state, State::Eager(_)) {
            self.state = State::WarmingUp(0);
        }
    }

    /// How steps are going to be taken, in a sentence; on a CPU there is none.
    pub fn describe(&self) -> Option<String> {
        match &self.state {
            State::Eager(reason) => reason.as_ref().map(|reason| format!("step: eager ({reason})")),
            State::WarmingUp(_) | State::Recorded(_) => {
                Some(format!("step: replayed as a CUDA graph, after {WARM_UP_STEPS} eager steps"))
            }
        }
    }

    /// Takes one step of `encoder`: `work` on `images`, now or as it was recorded. A recording that fails is a
    /// [`Recorder::warning`]; the step is taken all the same.
    ///
    /// Errors: those of `work`; the device fails in a replay.
    pub fn take(
        &mut self,
        images: &Tensor,
        encoder: &Encoder,
        mut work: impl FnMut(&Tensor) -> Result<T>,
    ) -> Result<Rc<T>> {
        match &mut self.state {
            State::Recorded(recorded) if recorded.images.size() == images.size() => {
                recorded.images.copy_(images);
                encoder.count_batch();
                recorded.graph.replay()?;
                return Ok(Rc::clone(&recorded.output));
            }
            State::WarmingUp(steps) if *steps == WARM_UP_STEPS => {
                let counted = encoder.batches_counted();
                match record(images, &mut work) {
                    // Recording has gone through all operations on the host, and done none of them on the device.
                    Ok(recorded) => {
                        recorded.graph.replay()?;
                        let output = Rc::clone(&recorded.output);
                        self.state = State::Recorded(recorded);
                        return Ok(output);
                    }
                    Err(error) => {
                        encoder.set_batches_counted(&counted);
                        self.warning =
                            Some(format!("step: eager, because it could not be recorded as a CUDA graph: {error:#}"));
                        self.state = State::Eager(None);
                    }
                }
            }
            State::WarmingUp(steps) => *steps += 1,
            State::Recorded(_) => {
                let text = "step: eager from here on, because a batch has another size than the recorded one";
                self.warning = Some(text.to_owned());
                self.state = State::Eager(None);
            }
            State::Eager(_) => {}
        }
        work(images).map(Rc::new)
    }
}

/// Records `work` on a copy of `images`.
fn record<T>(images: &Tensor, work: &mut impl FnMut(&Tensor) -> Result<T>) -> Result<Recorded<T>> {
    let images = images.copy();
    let (graph, output) = Graph::record(|| work(&images))?;
    Ok(Recorded { graph, images, output: Rc::new(output?) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pass;
    use tch::Kind;

    /// Without a GPU nothing can be recorded, which is how a recording fails.
    #[test]
    fn a_recording_that_fails_is_told_once_and_no_step_is_lost() {
        let encoder = Encoder::small(8, 1);
        let mut recorder = Recorder::in_state(State::WarmingUp(0));
        let (mut steps, mut warnings) = (0, Vec::new());
        for step in 0..8 {
            let images = Tensor::full([2, 8, 8, 3], step, (Kind::Uint8, Device::Cpu));
            let work = |images: &Tensor| {
                steps += 1;
                encoder.forward(&encoder.prepare(images), Pass::train(Kind::Float));
                Ok(images.copy())
            };
            let seen = recorder.take(&images, &encoder, work).unwrap();
            warnings.extend(recorder.warning());
            assert_eq!(*seen, images, "step {step} is on its own images");
        }
        assert_eq!(steps, 8);
        assert!(warnings.len() == 1 && warnings[0].contains("CUDA"), "{warnings:?}");
        assert!(encoder.batches_counted().iter().all(|&count| count == 8), "{:?}", encoder.batches_counted());
    }

    #[test]
    fn a_recorded_batch_is_counted_by_every_batch_norm() {
        let encoder = Encoder::small(8, 1);
        let images = Tensor::zeros([2, 8, 8, 3], (Kind::Uint8, Device::Cpu));
        encoder.forward(&encoder.prepare(&images), Pass::train(Kind::Float));
        let (before, layers) = (encoder.batches_counted(), encoder.running_statistics().len() / 2);
        encoder.count_batch();
        assert_eq!(before, vec![1; layers]);
        assert_eq!(encoder.batches_counted(), vec![2; layers]);
        encoder.set_batches_counted(&before);
        assert_eq!(encoder.batches_counted(), before);
    }
}
