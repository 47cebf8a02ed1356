//! `flatnce doctor --bench`: what the device does when asked for as much as it
//! can: products of matrices, copies, and training steps of the program's own.

use crate::config::{
    Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, Numerics, Objective, OptimizerConfig, OptimizerName,
    Precision, Stem,
};
use crate::device;
use crate::loss;
use crate::model::{Encoder, HeadKind, Pass};
use crate::native;
use crate::optim::{self, Rate, Scaler, Update};
use crate::report::{Console, Table};
use crate::train::pretrain::step;
use anyhow::Result;
use serde::Serialize;
use std::time::{Duration, Instant};
use tch::{Cuda, Device, Kind, Tensor};

/// Each number is the median of the runs that fit into this, one at least.
const TIME: Duration = Duration::from_millis(700);

/// One number.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Measured {
    what: String,
    /// Or TF32, which is how fp32 may be computed.
    precision: String,
    value: f64,
    unit: &'static str,
}

/// Sizes that keep a device busy and end in seconds.
struct Sizes {
    matrix: i64,
    copy_mib: i64,
    batch: i64,
}

/// Measures everything, a line of progress each.
///
/// Errors: what libtorch cannot do here, too little memory for instance.
pub(super) fn measure(device: Device, console: &Console) -> Result<Vec<Measured>> {
    let sizes = match device {
        Device::Cpu => Sizes { matrix: 1024, copy_mib: 64, batch: 16 },
        _ => Sizes { matrix: 8192, copy_mib: 1024, batch: 512 },
    };
    let mut all = Vec::new();
    for (name, precision, tf32) in precisions(device) {
        device::configure(Numerics { allow_tf32: tf32, deterministic: false })?;
        console.detail(&format!("measuring {name}"));
        native::caught(|| {
            all.push(matmul(device, precision, name, &sizes));
            all.push(training(device, precision, name, &sizes));
        })?;
    }
    native::caught(|| all.extend(copies(device, &sizes)))?;
    Ok(all)
}

pub(super) fn as_text(measured: &[Measured]) -> String {
    let mut table = Table::new(["measured", "precision", "value", "unit"]);
    for Measured { what, precision, value, unit } in measured {
        table.row([what.clone(), precision.clone(), format!("{value:.1}"), (*unit).to_owned()]);
    }
    table.to_string()
}

/// Name, precision and whether TF32 is allowed: what the device computes with itself.
fn precisions(device: Device) -> Vec<(&'static str, Precision, bool)> {
    let mut all = vec![("fp32", Precision::Fp32, false)];
    if device != Device::Cpu {
        all.push(("tf32", Precision::Fp32, true));
        all.push(("fp16", Precision::Fp16, false));
    }
    all.push(("bf16", Precision::Bf16, false));
    all
}

/// Median seconds of `work` on the device, after one run that warms it up.
fn seconds(device: Device, mut work: impl FnMut()) -> f64 {
    let mut run = || {
        let start = Instant::now();
        work();
        if let Device::Cuda(index) = device {
            Cuda::synchronize(index as i64);
        }
        start.elapsed().as_secs_f64()
    };
    run();
    let (start, mut times) = (Instant::now(), Vec::new());
    while times.is_empty() || (start.elapsed() < TIME && times.len() < 1000) {
        times.push(run());
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn matmul(device: Device, precision: Precision, name: &str, sizes: &Sizes) -> Measured {
    let n = sizes.matrix;
    let matrix = || Tensor::randn([n, n], (Kind::Float, device)).to_kind(device::compute_kind(precision));
    let (a, b) = (matrix(), matrix());
    let _guard = tch::no_grad_guard();
    let took = seconds(device, || drop(a.matmul(&b)));
    let value = 2.0 * (n as f64).powi(3) / took / 1e9;
    Measured { what: format!("matrix product, {n} x {n}"), precision: name.to_owned(), value, unit: "GFLOP/s" }
}

/// Steps of res18 at 32 px with LARS and FlatNCE, the images there already.
fn training(device: Device, precision: Precision, name: &str, sizes: &Sizes) -> Measured {
    let config = ModelConfig {
        depth: Depth::Res18,
        stem: Stem::Small,
        normalisation: Normalisation { mean: [0.5; 3], std: [0.5; 3] },
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 },
    };
    let encoder = Encoder::new(&config, HeadKind::Projection, device, 0);
    let parameters = encoder.parameters();
    let optimizer = OptimizerConfig {
        name: OptimizerName::Lars,
        lr: 1e-6,
        weight_decay: 1e-6,
        momentum: 0.9,
        lars_exclude_bn: true,
        lars_exclude_bias: true,
    };
    let mut optimizer = optim::build(&optimizer, parameters.clone()).expect("LARS trains whole networks");
    let mut scaler = (precision == Precision::Fp16).then(|| Scaler::new(device, encoder.running_statistics()));
    let images = Tensor::randint(256, [2 * sizes.batch, 32, 32, 3], (Kind::Uint8, device));
    let mut rate = Rate::on(device);
    rate.set(1e-6);
    let took = seconds(device, || {
        let update = Update::begin(optimizer.as_mut(), &parameters, scaler.as_mut());
        let views = step::forward(&encoder, &images, Pass::train(device::compute_kind(precision)), 1);
        let contrast = loss::contrast(&views.unit, 0.1, Objective::FlatClr);
        views.backward(&update.scaled(&contrast.gradient));
        update.finish(&rate);
    });
    let what = format!("training step, res18, 32 px, batch {}", sizes.batch);
    Measured { what, precision: name.to_owned(), value: sizes.batch as f64 / took, unit: "images/s" }
}

/// Within the device's memory (read and written bytes), and from main memory to a GPU.
fn copies(device: Device, sizes: &Sizes) -> Vec<Measured> {
    let bytes = sizes.copy_mib << 20;
    let measured = |what: &str, took: f64, passes: f64| Measured {
        what: format!("{what}, {} MiB", sizes.copy_mib),
        precision: "bytes".to_owned(),
        value: passes * bytes as f64 / took / 1e9,
        unit: "GB/s",
    };
    let (from, mut to) = (Tensor::ones([bytes], (Kind::Uint8, device)), Tensor::zeros([bytes], (Kind::Uint8, device)));
    let mut all = vec![measured("copy within memory", seconds(device, || to.copy_(&from)), 2.0)];
    if device != Device::Cpu {
        let host = Tensor::ones([bytes], (Kind::Uint8, Device::Cpu));
        all.push(measured("copy from main memory", seconds(device, || to.copy_(&host)), 1.0));
        let pinned = host.pin_memory(device);
        all.push(measured("copy from pinned memory", seconds(device, || to.copy_(&pinned)), 1.0));
    }
    all
}
