//! What a checkpoint of res50 with LARS state costs: the copy that training waits for, the write beside it, and
//! reading it back. The peer is `torch.save` of the same state: `scripts/bench.sh save` drives both.
//!
//!     cargo bench --bench checkpoint -- FILE      # writes FILE once, prints one line of JSON

use flatnce::checkpoint::{self, Checkpoint, SavedOptimizer};
use flatnce::cli;
use flatnce::config::Job;
use flatnce::model::{Encoder, HeadKind};
use std::path::Path;
use std::time::Instant;
use tch::Device;

fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if words.is_empty() {
        println!("nothing to measure: give the file to write, cargo bench --bench checkpoint -- FILE");
        return Ok(()); // Plain `cargo bench` runs every bench.
    }
    let [file] = &words[..] else { anyhow::bail!("give the file to write: cargo bench --bench checkpoint -- FILE") };
    let line = ["flatnce", "--dataset-name=cifar10", "--model=res50", "--optimizer=lars", "--device=cpu"];
    let resolved = cli::resolve(&cli::parse(line)?, &cli::resolve::read_saved)?;
    let Job::Pretrain(run) = resolved.config.job else { unreachable!("these flags pre-train") };

    let encoder = Encoder::new(&run.model, HeadKind::Projection, Device::Cpu, 0);
    let parameters = encoder.parameters();
    let momentum = |index: usize| parameters[index].tensor.detach().randn_like();
    let saved = Checkpoint {
        epochs_done: 3,
        step: 300,
        batch_in_epoch: 0,
        model: encoder.state_dict(),
        optimizer: SavedOptimizer {
            state: (0..parameters.len()).map(|i| (i, "momentum_buffer".to_owned(), momentum(i))).collect(),
            parameters: parameters.len(),
            lr: 0.1,
        },
        model_name: Some("res50".into()),
        batch_size: Some(run.batch_size),
        config: Some(*run),
        ..Checkpoint::default()
    };
    if std::fs::exists(file)? {
        std::fs::remove_file(file)?; // A run's checkpoint has a name of its own.
    }
    drop(saved.snapshot()?); // Warm memory, as in a run that has saved before.
    let start = Instant::now();
    let snapshot = saved.snapshot()?;
    let copy = start.elapsed();
    let start = Instant::now();
    let bytes = snapshot.write(Path::new(file))?;
    let write = start.elapsed();
    let start = Instant::now();
    checkpoint::read(Path::new(file))?;
    let read = start.elapsed();
    println!(
        "{{\"bytes\": {bytes}, \"copy_s\": {}, \"write_s\": {}, \"read_s\": {}}}",
        copy.as_secs_f64(),
        write.as_secs_f64(),
        read.as_secs_f64()
    );
    Ok(())
}
