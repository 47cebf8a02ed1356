//! The whole network: with the kernels as without them.

use super::case::numbers;
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
fn trained(depth: Depth, stem: Stem, side: i64, noise: f64) -> (Vec<(String, Tensor)>, Vec<Tensor>) {
    let (encoder, pass) = (encoder(depth, stem), Pass::train(Kind::Float));
    let shape = [6, 3, side, side];
    let images = (numbers(&shape, 1).abs() + numbers(&shape, 3) * noise).to_kind(Kind::Float);
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
    for (depth, stem, side) in [(Depth::Res18, Stem::Small, 24), (Depth::Res50, Stem::Imagenet, 64)] {
        let emulation = Emulation::start();
        let (got, got_buffers) = trained(depth, stem, side, 0.0);
        kernels::disable();
        let (wanted, wanted_buffers) = trained(depth, stem, side, 0.0);
        // What libtorch makes of images that differ by a rounding or two.
        let (other, other_buffers) = trained(depth, stem, side, 1e-7);
        drop(emulation);
        assert_eq!(got.len(), wanted.len());
        let mut different = 0;
        let apart = |a: &Tensor, b: &Tensor| (a - b).norm().double_value(&[]) / b.norm().double_value(&[]);
        let by_rounding = apart(&other[0].1, &wanted[0].1);
        let gradients = other.iter().zip(&wanted).skip(1).map(|((_, other), (_, wanted))| apart(other, wanted));
        let gradients_by_rounding = gradients.fold(0f64, f64::max);
        for ((name, got), (_, wanted)) in got.iter().zip(&wanted) {
            let error = apart(got, wanted);
            // Where a number is 0 but for its rounding, ReLU passes its gradient or not: one such number of some
            // thousands is what a layer's gradient may be off by, and a network of many layers has some.
            let bound = if name == "features" { 8.0 * by_rounding } else { 8.0 * gradients_by_rounding.max(4e-3) };
            assert!(error < bound, "{depth:?}: {name} is off by {error:e}, not {bound:e}");
            different += usize::from(got != wanted);
        }
        assert!(by_rounding < 1e-4 && gradients_by_rounding < 0.1, "{by_rounding:e}, {gradients_by_rounding:e}");
        assert!(different > 0, "the kernels were not used");
        let farthest = |buffers: &[Tensor]| {
            let all = buffers.iter().zip(&wanted_buffers).map(|(a, b)| {
                let [a, b] = [a, b].map(|tensor| tensor.to_kind(Kind::Double));
                apart(&a, &b)
            });
            all.fold(0f64, f64::max)
        };
        let (error, by_rounding) = (farthest(&got_buffers), farthest(&other_buffers));
        assert!(by_rounding < 1e-2 && error < 8.0 * by_rounding, "{depth:?}: {error:e}, {by_rounding:e}");
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
