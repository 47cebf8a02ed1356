//! The loss, the optimiser, and what the loop around them costs.

use super::data::resolved;
use super::serve;
use anyhow::{Context, Result, bail};
use flatnce::config::{Job, Objective};
use flatnce::loader::{Loader, Order, Rendering};
use flatnce::model::{Encoder, HeadKind, Pass};
use flatnce::monitor::geometry;
use flatnce::{data, device, loss, optim};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// FlatNCE of `views` random features, forward and backward.
pub fn loss(views: i64, dim: i64) -> Result<()> {
    tch::manual_seed(0);
    let projected = Tensor::randn([views, dim], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    serve(|| {
        let start = Instant::now();
        let unit = loss::normalise(&projected);
        let contrast = loss::contrast(&unit, 0.1, Objective::FlatClr);
        loss::backward(&unit, &contrast.gradient);
        let seconds = start.elapsed().as_secs_f64();
        let value = contrast.value().double_value(&[]);
        let _ = projected.grad().zero_();
        Ok(json!({"seconds": seconds, "value": value}))
    })
}

/// One step of LARS over res50, ten times.
pub fn lars() -> Result<()> {
    let line = ["flatnce", "--dataset-name=cifar10", "--model=res50", "--optimizer=lars", "--device=cpu"];
    let Job::Pretrain(run) = resolved(&line)?.config.job else { bail!("these flags pre-train") };
    let parameters = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, 0).parameters();
    tch::manual_seed(0);
    for p in &parameters {
        (&p.tensor * p.tensor.detach().randn_like()).sum(Kind::Float).backward();
    }
    let mut optimizer = optim::build(&run.optimizer, parameters)?;
    optimizer.step(&1e-6.into(), None);
    serve(|| {
        let start = Instant::now();
        (0..10).for_each(|_| optimizer.step(&1e-6.into(), None));
        Ok(json!({"seconds": start.elapsed().as_secs_f64() / 10.0}))
    })
}

/// What the numbers for people cost beside a step of the arithmetic, at batch 128: those of every step, those of a close
/// look (once in `--log-every` steps, 50), those of an epoch's end.
pub fn diagnostics(model: &str) -> Result<()> {
    let model = format!("--model={model}");
    let line = ["flatnce", "--dataset-name=fashion_mnist_mini", "--batch-size=128", "--device=cpu", &model];
    let Job::Pretrain(run) = resolved(&line)?.config.job else { bail!("these flags pre-train") };
    let encoder = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, 0);
    let parameters = encoder.parameters();
    let mut optimizer = optim::build(&run.optimizer, parameters.clone())?;
    let images = Tensor::randint(256, [256, 32, 32, 3], (Kind::Uint8, Device::Cpu));
    let timed = |work: &mut dyn FnMut()| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    serve(|| {
        let (mut seen, mut hidden) = (None, Tensor::new());
        let step = timed(&mut || {
            let features = encoder.forward(&encoder.prepare(&images), Pass::train(device::compute_kind(run.precision)));
            let unit = loss::normalise(&features.projected);
            let contrast = loss::contrast(&unit, run.temperature, run.objective);
            optim::clear_gradients(&parameters);
            loss::backward(&unit, &contrast.gradient);
            optimizer.step(&1e-6.into(), None);
            (seen, hidden) = (Some((contrast, unit.detach())), features.hidden.detach());
        });
        let _guard = tch::no_grad_guard();
        let (contrast, unit) = seen.context("a step was taken")?;
        let every = timed(&mut || {
            let a = &contrast.anchors;
            let vanished = a.log_xi.le(-10.0).to_kind(Kind::Float);
            let mean = |tensor: &Tensor| tensor.mean(Kind::Float);
            let row = [
                contrast.value(),
                a.top(1),
                a.top(5),
                mean(&a.ness),
                mean(&a.positive),
                mean(&a.negative),
                mean(&vanished),
            ];
            let _ = std::hint::black_box(Tensor::stack(&row, 0).isfinite().all());
        });
        let closer = timed(&mut || {
            let numbers = [
                optim::gradient_norm(&parameters),
                geometry::alignment(&unit),
                geometry::uniformity(&unit),
                geometry::spread(&unit),
            ];
            let _ = std::hint::black_box(Tensor::stack(&numbers, 0));
        });
        let epoch = timed(&mut || {
            std::hint::black_box(geometry::effective_rank(&hidden));
            std::hint::black_box(Vec::<f32>::try_from(unit.matmul(&unit.tr()).view(-1)).map(|all| all.len()).ok());
        });
        Ok(json!({"step": step, "every": every, "closer": closer, "epoch": epoch}))
    })
}

/// The program's own training loop beside forward, loss, backward and optimiser alone, on one batch that is there
/// already: the difference is what the loop costs. Both in turns, `steps` steps each, on the embedded images.
pub fn whole_loop(model: &str, precision: &str, steps: usize) -> Result<()> {
    let place = tempfile::tempdir()?;
    let images = steps * 128;
    let (model, precision) = (format!("--model={model}"), format!("--precision={precision}"));
    let (count, results) = (format!("--train-images={images}"), format!("--save-dir={}", place.path().display()));
    let line = [
        "flatnce",
        "--dataset-name=fashion_mnist_mini",
        "--batch-size=128",
        "--epochs=1",
        "--device=cpu",
        "--quiet",
        &model,
        &precision,
        &count,
        &results,
    ];
    let Job::Pretrain(run) = resolved(&line)?.config.job else { bail!("these flags pre-train") };

    let encoder = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, 0);
    let parameters = encoder.parameters();
    let mut optimizer = optim::build(&run.optimizer, parameters.clone())?;
    let split = Arc::new(data::load(&run.data, data::Part::Unlabelled)?);
    let rendering = Rendering::Views { recipe: run.augmentation.clone(), size_px: 32 };
    let batch = Loader::new(split, rendering, Order::Shuffled, 128, 0, 1)?.epoch(0, 0).next().context("a batch")??;
    let mut bare_step = || {
        let features =
            encoder.forward(&encoder.prepare(&batch.images), Pass::train(device::compute_kind(run.precision)));
        let unit = loss::normalise(&features.projected);
        let contrast = loss::contrast(&unit, run.temperature, run.objective);
        optim::clear_gradients(&parameters);
        loss::backward(&unit, &contrast.gradient);
        optimizer.step(&1e-6.into(), None);
    };
    bare_step();
    serve(|| {
        let loader_seconds = Arc::new(AtomicBool::new(true));
        let watch = watch_loader(Arc::clone(&loader_seconds));
        flatnce::run(resolved(&line)?)?;
        loader_seconds.store(false, Ordering::Relaxed);
        let loader_seconds = watch.join().unwrap_or(f64::NAN);
        let row = newest_metrics(place.path())?;
        let epoch_seconds = row["epoch_seconds"].as_f64().context("metrics.jsonl has epoch_seconds")?;
        let start = Instant::now();
        (0..steps).for_each(|_| bare_step());
        let bare_seconds = start.elapsed().as_secs_f64();
        Ok(json!({
            "epoch_seconds": epoch_seconds, "bare_seconds": bare_seconds, "steps": steps,
            "share": 1.0 - bare_seconds / epoch_seconds, "data_wait_share": row["data_wait_share"],
            "loader_cpu_share": loader_seconds / epoch_seconds,
        }))
    })
}

/// CPU seconds of the loader's threads until told to stop: the last that was seen of each. Looked at so seldom that
/// looking costs nothing of what is measured (every 5 ms it took 1.4% of two cores); the threads outlive their work.
fn watch_loader(going: Arc<AtomicBool>) -> std::thread::JoinHandle<f64> {
    std::thread::spawn(move || {
        let mut seen = std::collections::HashMap::new();
        while going.load(Ordering::Relaxed) {
            for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
                let text = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
                if text("comm").starts_with("loader-") {
                    // Nanoseconds on a core come first.
                    let schedstat = text("schedstat");
                    let nanoseconds = schedstat.split(' ').next().and_then(|first| first.parse::<f64>().ok());
                    seen.insert(task.file_name(), nanoseconds.unwrap_or(0.0));
                }
            }
            std::thread::sleep(Duration::from_millis(200));
        }
        seen.values().sum::<f64>() / 1e9
    })
}

/// The last line of the newest metrics.jsonl below `directory`.
fn newest_metrics(directory: &Path) -> Result<Value> {
    let (mut files, mut directories) = (Vec::new(), vec![directory.to_owned()]);
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let path = entry?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.ends_with("metrics.jsonl") {
                files.push((path.metadata()?.modified()?, path));
            }
        }
    }
    let (_, newest) = files.into_iter().max().context("the run wrote no metrics.jsonl")?;
    let text = std::fs::read_to_string(newest)?;
    Ok(serde_json::from_str(text.lines().last().context("metrics.jsonl is empty")?)?)
}
