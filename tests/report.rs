//! The reports as files and text: what a run leaves behind and prints.

use flatnce::report::plots::{curves, training_figure};
use flatnce::report::{EpochReport, StepRecord};

/// A made-up run: falling loss with noise from a fixed sequence.
fn run(epochs: u64, steps_per_epoch: u64) -> (Vec<EpochReport>, Vec<StepRecord>) {
    let mut noise = 1u64;
    let mut random = || {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) as f64 / (1u64 << 31) as f64 - 0.5
    };
    let mut steps = Vec::new();
    let mut reports = Vec::new();
    for epoch in 0..epochs {
        let mut sums = (0.0, 0.0);
        for step in epoch * steps_per_epoch..(epoch + 1) * steps_per_epoch {
            let progress = step as f64 / (epochs * steps_per_epoch) as f64;
            let loss_infonce = 2.2 + 2.6 * (-6.0 * progress).exp() + 0.3 * random();
            let ness_mean = 0.22 + 0.7 * (-9.0 * progress).exp() + 0.04 * random();
            sums = (sums.0 + loss_infonce, sums.1 + ness_mean);
            steps.push(StepRecord { epoch, step: step + 1, loss_infonce, contrastive_top1: 40.0, ness_mean, lr: 1e-3 });
        }
        reports.push(EpochReport {
            epoch,
            step: (epoch + 1) * steps_per_epoch,
            loss_infonce: sums.0 / steps_per_epoch as f64,
            ness_mean: Some(sums.1 / steps_per_epoch as f64),
            mi_ceiling_nats: 127f64.ln(),
            ..EpochReport::default()
        });
    }
    (reports, steps)
}

#[test]
fn the_training_picture_is_a_png_of_the_right_size() {
    let (epochs, steps) = run(4, 62);
    let directory = tempfile::tempdir().unwrap();
    let path = std::env::var_os("FLATNCE_KEEP_PLOT").map_or(directory.path().join("training.png"), Into::into);
    curves(&path, &training_figure("FlatCLR, res10, batch 64", &epochs, &steps)).unwrap();
    let picture = image::open(&path).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (1280, 492));
}
