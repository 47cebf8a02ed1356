//! Our side of the pairs that scripts/bench/ measures: a process that does one piece of work for each line that it
//! reads, and answers with a line of JSON. So a pair takes turns without either being started anew, and each process
//! has a peak of memory of its own.
//!
//!     cargo bench --bench measure -- loss VIEWS DIM
//!     cargo bench --bench measure -- lars
//!     cargo bench --bench measure -- diagnostics MODEL
//!     cargo bench --bench measure -- index DIRECTORY CACHE|-
//!     cargo bench --bench measure -- loader embedded|DIRECTORY WORKERS IMAGES
//!     cargo bench --bench measure -- photographs read|views DIRECTORY|PATTERN.tar WORKERS IMAGES
//!     cargo bench --bench measure -- tensors 32|224 BATCH DEVICE BATCHES
//!     cargo bench --bench measure -- loop MODEL PRECISION STEPS

mod data;
mod training;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::io::BufRead;
use std::time::Instant;

/// Answers every line of standard input with what `work` says, and the seconds that it took where it names none.
fn serve(mut work: impl FnMut() -> Result<Value>) -> Result<()> {
    println!("{}", json!({"ready": true, "memory_mib": memory_mib("VmRSS"), "peak_mib": memory_mib("VmHWM")}));
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        let mut answer = work()?;
        let seconds = start.elapsed().as_secs_f64();
        let fields = answer.as_object_mut().context("work answers with an object")?;
        fields.entry("seconds").or_insert_with(|| seconds.into());
        fields.insert("peak_mib".into(), memory_mib("VmHWM").into());
        println!("{answer}");
    }
    Ok(())
}

/// A line of /proc/self/status, in MiB.
fn memory_mib(name: &str) -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
    kilobytes.unwrap_or(f64::NAN) / 1024.0
}

fn main() -> Result<()> {
    flatnce::memory::keep_freed_blocks(); // As the program does.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words[..] {
        [] => println!("nothing to measure: this serves scripts/bench.sh, which says what"), // plain `cargo bench`
        ["loss", views, dim] => training::loss(views.parse()?, dim.parse()?)?,
        ["lars"] => training::lars()?,
        ["diagnostics", model] => training::diagnostics(model)?,
        ["index", directory, cache] => data::index(directory.as_ref(), (cache != "-").then(|| cache.as_ref()))?,
        ["loader", source, workers, images] => data::loader(source, workers.parse()?, images.parse()?)?,
        ["photographs", work, source, workers, images] => {
            data::photographs(work, source, workers.parse()?, images.parse()?)?
        }
        ["tensors", shape, batch, device, batches] => data::tensors(shape, batch.parse()?, device, batches.parse()?)?,
        ["loop", model, precision, steps] => training::whole_loop(model, precision, steps.parse()?)?,
        _ => bail!("the head of benches/measure/main.rs says what can be asked for"),
    }
    Ok(())
}
