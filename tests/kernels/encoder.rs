//! The whole network: with the kernels as without them.

use super::batch_norm::numbers;
use super::emulation::Emulation;
use flatnce::config::{Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Stem};
use flatnce::model::{Encoder, HeadKind, Pass};
use flatnce::native::cuda::kernels;
use tch::{Device, Kind, Tensor};

fn encoder(depth: Depth, stem: Stem) -> Encoder {
    let config = ModelConfig {
        depth,
        stem,
        normalisation: Normalisation { mean: [0.5; 3], std: [0.25; 3] },
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 16 },
    };
    Encoder::new(&config, HeadKind::Projection, Device::Cpu, 3)
}

/// Features of a training pass, then the gradients and the buffers.
fn trained(depth: Depth, stem: Stem) -> (Vec<(String, Tensor)>, Vec<Tensor>) {
    let (encoder, pass) = (encoder(depth, stem), Pass::train(Kind::Float));
    let images = numbers(&[6, 3, 24, 24], 1).abs().to_kind(Kind::Float);
    let features = encoder.forward(&flatnce::model::channels_last(&images), pass);
    let weights = numbers(&features.projected.size(), 2).to_kind(Kind::Float);
    (&features.projected * weights).sum(Kind::Float).backward();
    let mut all = vec![("features".to_owned(), features.hidden.detach())];
    all.extend(encoder.parameters().into_iter().map(|p| (p.name, p.tensor.grad())));
    let state = encoder.state_dict();
    let buffers = state.iter().filter(|(name, _)| name.contains("running") || name.contains("tracked"));
    (all, buffers.map(|(_, tensor)| tensor.copy()).collect())
}

#[test]
fn a_network_trains_the_same_with_the_kernels() {
    for (depth, stem) in [(Depth::Res18, Stem::Small), (Depth::Res50, Stem::Imagenet)] {
        let emulation = Emulation::start();
        let (got, got_buffers) = trained(depth, stem);
        kernels::disable();
        let (wanted, wanted_buffers) = trained(depth, stem);
        drop(emulation);
        assert_eq!(got.len(), wanted.len());
        let mut different = 0;
        for ((name, got), (_, wanted)) in got.iter().zip(&wanted) {
            let error = (got - wanted).norm().double_value(&[]) / wanted.norm().double_value(&[]);
            // Where a number is 0 but for its rounding, ReLU passes its gradient or not: one such number of some
            // thousands is what a layer's gradient may be off by.
            let bound = if name == "features" { 1e-5 } else { 3e-2 };
            assert!(error < bound, "{depth:?}: {name} is off by {error:e}");
            different += usize::from(got != wanted);
        }
        assert!(different > 0, "the kernels were not used");
        for (got, wanted) in got_buffers.iter().zip(&wanted_buffers) {
            assert!(got.allclose(wanted, 1e-4, 1e-5, false), "{depth:?}: running statistics");
        }
    }
}

#[test]
fn evaluation_does_not_use_them() {
    let images = numbers(&[2, 3, 16, 16], 1).to_kind(Kind::Float);
    let images = flatnce::model::channels_last(&images);
    let encoder = encoder(Depth::Res10, Stem::Small);
    let emulation = Emulation::start();
    let with = encoder.forward(&images, Pass::eval(Kind::Float)).projected;
    drop(emulation);
    assert_eq!(with, encoder.forward(&images, Pass::eval(Kind::Float)).projected);
}
