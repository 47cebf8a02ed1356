//! The estimate against measured peaks, batches in parts, and what happens when memory is not enough.

#[path = "support/program.rs"]
mod program;

use flatnce::config::{Depth, HeadConfig, HeadMode, ModelConfig, Normalisation, OptimizerName, Precision, Stem};
use flatnce::model::footprint::{StepSize, estimate};
use flatnce::model::{Encoder, HeadKind};
use program::{run_directory, save_dir, succeeds};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

const MIB: f64 = 1_048_576.0;

/// How far the estimate may be from the peak of the process, as a share of it.
const TOLERANCE: f64 = 0.2;

fn flatnce(results: &Path, settings: &[&str]) -> Command {
    let always = ["--dataset-name=fashion_mnist_mini", "--knn-every=0", "--device=cpu", "--workers=1"];
    program::flatnce(&[&always[..], settings, &["--warmup-epochs=0", "--lr=0.01", &save_dir(results)]].concat())
}

/// Peak of a process that trains two steps, in MiB.
fn peak(depth: Depth, batch: u32, precision: Precision, parts: u32) -> f64 {
    let place = tempfile::tempdir().expect("a directory");
    let settings = [
        format!("--model={depth}"),
        "--image-size=32".into(),
        format!("--batch-size={batch}"),
        format!("--train-images={}", 2 * batch),
        format!("--precision={precision}"),
        format!("--grad-cache={parts}"),
        "--epochs=1".into(),
    ];
    succeeds(flatnce(place.path(), &settings.iter().map(String::as_str).collect::<Vec<_>>()));
    let text = std::fs::read_to_string(run_directory(place.path()).join("metrics.jsonl")).expect("metrics");
    let line: serde_json::Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    line["memory_peak_mib"].as_f64().expect("Linux tells")
}

fn estimated(depth: Depth, batch: u32, precision: Precision) -> f64 {
    let config = ModelConfig {
        depth,
        stem: Stem::Small,
        normalisation: Normalisation { mean: [0.5; 3], std: [0.5; 3] },
        head: HeadConfig { mode: HeadMode::Nonlinear, layers: 2, out_dim: 128 },
    };
    let parameters = Encoder::new(&config, HeadKind::Projection, tch::Device::Cpu, 0).parameters();
    let size = StepSize {
        device: tch::Device::Cpu,
        stem: Stem::Small,
        image_size_px: 32,
        views: 2 * u64::from(batch),
        precision,
        optimizer: OptimizerName::Lars,
    };
    estimate(&parameters, size).total() as f64 / MIB
}

#[test]
fn the_estimate_is_near_the_peak() {
    let cases = [
        (Depth::Res10, 12, Precision::Fp32),
        (Depth::Res10, 32, Precision::Fp32),
        (Depth::Res18, 8, Precision::Fp32),
        (Depth::Res18, 24, Precision::Fp32),
        (Depth::Res18, 24, Precision::Bf16),
        (Depth::Res50, 4, Precision::Fp32),
        (Depth::Res50, 8, Precision::Fp32),
    ];
    let mut wrong = Vec::new();
    for (depth, batch, precision) in cases {
        let estimated = estimated(depth, batch, precision);
        // How many batches wait in memory depends on the timing of threads: 405 to 430 MiB have been seen of one case. A
        // peak that seems too low is measured again, and the largest counts.
        let mut peak_mib = peak(depth, batch, precision, 1);
        for _ in 0..2 {
            if estimated / peak_mib - 1.0 > TOLERANCE {
                peak_mib = peak_mib.max(peak(depth, batch, precision, 1));
            }
        }
        let (peak, share) = (peak_mib, estimated / peak_mib - 1.0);
        println!(
            "{depth} batch {batch} {precision}: peak {peak:.0} MiB, estimate {estimated:.0} ({:+.0}%)",
            100.0 * share
        );
        if share.abs() > TOLERANCE {
            wrong.push(format!("{depth} batch {batch} {precision}: peak {peak:.0} MiB, estimate {estimated:.0}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn parts_of_a_batch_take_less_memory() {
    let (whole, parts) = (peak(Depth::Res10, 48, Precision::Fp32, 1), peak(Depth::Res10, 48, Precision::Fp32, 8));
    println!("res10 batch 48: {whole:.0} MiB, in 8 parts {parts:.0}");
    assert!(parts < 0.65 * whole, "{parts:.0} MiB in 8 parts, {whole:.0} in one");
}

/// The same process with so many MiB of address space at most.
fn limited(mut command: Command, mib: u64) -> Output {
    let limit = libc::rlimit { rlim_cur: mib << 20, rlim_max: mib << 20 };
    // SAFETY: setrlimit may be called between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_AS, &limit) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    command.output().expect("it starts")
}

fn number_after(text: &str, after: &str) -> u32 {
    let rest = text.split(after).nth(1).unwrap_or_else(|| panic!("{after}: {text}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().expect("a number").parse().expect("a number")
}

#[test]
fn running_out_is_one_sentence_and_spares_the_checkpoints() {
    let place = tempfile::tempdir().expect("a directory");
    let settings = ["--model=res10", "--image-size=16", "--batch-size=4", "--train-images=8", "--epochs=1"];
    let small = succeeds(flatnce(place.path(), &[&settings[..], &["--precision=fp32"]].concat()));
    assert!(!String::from_utf8_lossy(&small.stderr).contains("GiB are free"));
    let saved = run_directory(place.path()).join("checkpoint_0001.pth.tar");
    let before = std::fs::read(&saved).expect("saved");

    // 1,024 images want 8 GiB; there are 3 of address space, of which the program takes some.
    let large = ["--model=res10", "--image-size=32", "--batch-size=1024", "--precision=fp32", "--epochs=1"];
    // That is said before anything is written.
    let refused = limited(flatnce(&place.path().join("new"), &large), 3072);
    let errors = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(1), "{errors}");
    for part in ["error: a step will need about ", "gradient accumulation: --grad-cache ", "--memory-check off"] {
        assert!(errors.contains(part), "{part}: {errors}");
    }
    assert!(!place.path().join("new").exists());
    let foreseen: u32 = number_after(&errors, "; --batch-size ");
    assert!((16..512).contains(&foreseen), "{errors}");

    // And it begins where that is asked for.
    let output = limited(flatnce(place.path(), &[&large[..], &["--memory-check=off"]].concat()), 3072);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{errors}");
    let warning = errors.lines().find(|line| line.contains("may run out of memory")).expect("it was foreseen");
    assert!(warning.contains("are free in main memory"), "{warning}");
    let error = errors.lines().find(|line| line.starts_with("error: ")).expect("an error");
    assert!(error.starts_with("error: out of memory in main memory in step 1: --batch-size 1024 in fp32"), "{errors}");
    assert!(!errors.contains("panicked") && !errors.contains("frame #"), "{errors}");
    // What it advises is what fits.
    let fits = number_after(error, "; --batch-size ");
    assert!((16..512).contains(&fits), "{error}");
    assert_eq!(number_after(error, "--grad-cache "), 1024_u32.div_ceil(fits), "{error}");
    assert_eq!(std::fs::read(&saved).expect("saved"), before);
    flatnce::checkpoint::verify(&saved).expect("whole");
}
