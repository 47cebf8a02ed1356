//! `flatnce train DIR`: a run on one's own images, with settings that follow from them and from the machine. It stands
//! for a whole command, which is said and done.

use super::{Typed, flag_name, parse, resolve, table};
use crate::config::{Config, DataConfig, DatasetName, Depth, Job, Part, Pretrain, TrainMode};
use crate::data::{self, Split, counted, grouped, meant};
use crate::report::Console;
use crate::run_dir::shell_words;
use crate::train::facts::{HOUR, about, per_second};
use crate::train::pretrain::budget::{Choice, Fixed, Way, choose, ways};
use crate::train::pretrain::rate;
use crate::values::above_zero;
use anyhow::{Result, bail};
use std::path::PathBuf;
use tch::Device;

/// Deeper networks than ResNet-18 are for so many images.
const DEEP_FROM_IMAGES: usize = 20_000;
/// Headers that are looked at for the usual size of the images.
const SAMPLE: usize = 64;
/// Ways that are timed at most.
const TRIALS: usize = 4;
/// Checkpoints and looks at the neighbours, about.
const LOOKS: u32 = 10;

#[derive(Clone, Debug, clap::Args)]
pub struct TrainArgs {
    /// Your images: a directory, or an archive (.tar, .npz, .parquet)
    #[arg(value_name = "DIR")]
    pub place: PathBuf,
    /// Hours after which the training is to end on this machine, about
    #[arg(long, value_name = "HOURS", default_value = "1", value_parser = above_zero)]
    pub hours: f64,
}

/// Flags that say what `train` says, or are about another run.
pub(super) const REFUSED: [&str; 9] =
    ["data", "dataset_name", "train_mode", "config", "resume", "log_dir", "train_from", "nproc", "checkpoint"];

/// What is chosen where it is not typed.
const CHOSEN: [&str; 12] = [
    "image_size",
    "model",
    "stem",
    "batch_size",
    "epochs",
    "lr",
    "optimizer",
    "warmup_epochs",
    "save_every_n_epochs",
    "keep_last",
    "knn_every",
    "knn_neighbours",
];

/// The tool with the flags of a run: in its help stand those that a new pre-training has, with no default where one is
/// chosen.
pub(super) fn with_flags_of(run: &clap::Command, tool: clap::Command) -> clap::Command {
    let none = |id: &str| table().any(|flag| flag.id == id && !flag.modes.contains(&TrainMode::Ssl));
    tool.args(run.get_arguments().cloned().map(|arg| {
        let id = arg.get_id().as_str();
        if REFUSED.contains(&id) || none(id) {
            arg.hide(true)
        } else if CHOSEN.contains(&id) {
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let help = help.split(" [default").next().unwrap_or_default().to_owned();
            arg.hide_default_value(true).help(help + " [default: chosen]")
        } else {
            arg
        }
    }))
}

/// The run that the command stands for, as if it had been typed. Takes some steps of it for the time.
///
/// Errors: no images, flags that a new run does not have, those of a run until its first step.
pub fn chosen(typed: &Typed, args: &TrainArgs) -> Result<Typed> {
    if let Some(id) = REFUSED.into_iter().find(|id| typed.has_too(id)) {
        bail!(
            "{}: train begins one process with a new run on {}; leave it out, or give the whole command that train prints",
            flag_name(id),
            args.place.display()
        );
    }
    let program = typed.words.first().cloned().unwrap_or_else(|| "flatnce".to_owned());
    let (dataset, source) = images(args)?;
    let mut words = vec![program, format!("--dataset-name={dataset}"), format!("--data={}", source.display())];
    words.extend(table().flat_map(|flag| typed.words_too(flag.id)));
    let plain = parse(&words)?;
    if plain.args.machine.placement()?.is_some() {
        bail!("train chooses for one process: give a launcher the whole command that train prints");
    }
    let output = &plain.args.output;
    let console = Console::new(output.talk()?, output.log_format);

    let images = DataConfig { labels: plain.args.data.labels, ..DataConfig::new(dataset, source, 224) };
    let waiting = console.waiting("looking at the images");
    let split = data::load(&images, Part::Unlabelled)?;
    let side = side(&split);
    drop(waiting);
    let count = plain.args.data.train_images.map_or(split.len(), |count| count as usize);
    let labels = if split.labels.is_some() { counted(split.classes.len(), "class") } else { "unlabelled".to_owned() };
    let sides = side.map_or(String::new(), |side| format!(", the shorter side {side} pixels in the middle"));
    console.note(&format!("images: {}{sides}, {labels}", grouped(split.len())));
    if split.len() < 4 {
        bail!("{} holds {}: too few to train on", args.place.display(), counted(split.len(), "image"));
    }
    let (choice, device) = choice(&plain, args, count, side.unwrap_or(224), split.labels.is_some(), &console)?;
    let words = words_of(&plain, &choice, count, split.labels.is_some(), device);
    console.note("the whole command:");
    console.note(&format!("  {}", shell_words(&words)));
    Ok(parse(&words)?)
}

/// The data set that reads the images, and where.
fn images(args: &TrainArgs) -> Result<(DatasetName, PathBuf)> {
    match meant(&args.place)? {
        Some(found) => Ok(found),
        // The layout of ImageNet: its images are one's own all the same.
        None if args.place.is_dir() => Ok((DatasetName::Folder, args.place.clone())),
        None => bail!("{} is no directory of images and no archive of them", args.place.display()),
    }
}

/// The shorter side of an image in the middle of all, in pixels; `None` where no header can be read.
fn side(split: &Split) -> Option<u32> {
    let step = split.len().div_ceil(SAMPLE).max(1);
    let mut sides: Vec<u32> = (0..split.len()).step_by(step).filter_map(|index| split.side(index)).collect();
    sides.sort_unstable();
    sides.get(sides.len() / 2).copied()
}

/// The most work that the time allows, by the rates of some ways on this machine.
fn choice(
    plain: &Typed,
    args: &TrainArgs,
    count: usize,
    side: u32,
    labelled: bool,
    console: &Console,
) -> Result<(Choice, Device)> {
    let fixed = Fixed {
        depth: plain.has("model").then_some(plain.args.objective.model),
        image_size_px: plain.args.data.image_size,
        stem: plain.args.objective.stem,
    };
    let deepest = if count >= DEEP_FROM_IMAGES { Depth::Res50 } else { Depth::Res18 };
    let mut left = ways(deepest, side, fixed);
    let (.., device) = run(plain)?;
    let (seconds, mut timed) = (HOUR * args.hours, Vec::<(Way, f64)>::new());
    let waiting = console.waiting("taking steps of some settings for the time");
    // The least work first: what it tells is refined by the way that it makes likely.
    let mut next = left.last().copied();
    while let Some(way) = next.filter(|way| timed.len() < TRIALS && timed.iter().all(|(other, _)| other != way)) {
        let choice = Choice { way, epochs: 1_000, train_images: None };
        let words = words_of(plain, &choice, count, labelled, device);
        let (config, run, _) = run(&parse(&words)?)?;
        // What is larger may not fit into memory where the smallest does.
        match rate(&config, &run, device) {
            Ok(Some(rate)) => timed.push((way, rate)),
            Err(error) if timed.is_empty() => return Err(error),
            Ok(None) | Err(_) => left.retain(|other| *other != way),
        }
        let fastest = timed.iter().map(|(way, rate)| way.multiplications * rate).fold(0.0, f64::max);
        next = choose(&left, count, seconds, fastest).map(|choice| choice.way);
    }
    drop(waiting);
    timed.sort_by(|a, b| b.0.multiplications.total_cmp(&a.0.multiplications));
    let choices = timed.iter().map(|(way, rate)| (Choice::of(*way, *rate, count, seconds), *rate));
    let best = choices.clone().find(|(choice, _)| choice.is_worthwhile(count)).or_else(|| choices.clone().next_back());
    let Some((choice, rate)) = best else {
        bail!("there is too little memory for a step of two images; give a smaller --image-size or --model")
    };
    let epochs = if plain.has("epochs") { plain.args.optimisation.epochs } else { choice.epochs };
    let images = choice.train_images.filter(|_| !plain.has("train_images")).map_or(count, |part| part as usize);
    console.note(&format!(
        "time: about {} for {} of {} at {}, timed just now (--hours {})",
        about(f64::from(epochs) * images as f64 / rate),
        counted(epochs as usize, "epoch"),
        counted(images, "image"),
        per_second(rate),
        args.hours
    ));
    Ok((choice, device))
}

/// The run of a command line.
fn run(typed: &Typed) -> Result<(Config, Pretrain, Device)> {
    let resolved = resolve(typed, &resolve::read_saved)?;
    match resolved.config.job.clone() {
        Job::Pretrain(run) => Ok((resolved.config, *run, resolved.device)),
        Job::Evaluate(_) => bail!("train begins a pre-training"),
    }
}

/// The whole command line: what is chosen, but for what was typed.
fn words_of(plain: &Typed, choice: &Choice, count: usize, labelled: bool, device: Device) -> Vec<String> {
    let epochs = if plain.has("epochs") { plain.args.optimisation.epochs } else { choice.epochs };
    let most = if device == Device::Cpu { 64 } else { 256 };
    // Four batches an epoch, or of very few images two.
    let count = choice.train_images.map_or(count, |part| part as usize);
    let batch = [most, most / 2, most / 4, 16].into_iter().find(|batch| 4 * batch <= count);
    let batch = batch.map_or(count / 2, |batch| leaving_least(count, batch));
    let mut flags = choice.way.flags();
    flags.extend([
        format!("--batch-size={batch}"),
        "--optimizer=adam".to_owned(),
        "--lr=1e-3".to_owned(),
        format!("--epochs={epochs}"),
        format!("--warmup-epochs={}", (epochs / 10).min(10)),
        format!("--save-every-n-epochs={}", (epochs / LOOKS).max(1)),
        "--keep-last=2".to_owned(),
    ]);
    if labelled {
        flags.extend([format!("--knn-every={}", (epochs / LOOKS).max(1)), "--knn-neighbours=20".to_owned()]);
    }
    flags.extend(choice.train_images.map(|part| format!("--train-images={part}")));
    let typed = |flag: &String| {
        let name = flag.split('=').next().unwrap_or_default().trim_start_matches('-').replace('-', "_");
        // The rate is one of Adam's.
        let own_rate = plain.has("learning_rate_scaling") || plain.has("optimizer");
        plain.has(&name) || (name == "lr" && own_rate)
    };
    plain.words.iter().cloned().chain(flags.into_iter().filter(|flag| !typed(flag))).collect()
}

/// Of the batches of three quarters to the whole of `most`, in steps of eight or four, that of which an epoch of `count`
/// images leaves out the fewest.
fn leaving_least(count: usize, most: usize) -> usize {
    let step = if most > 64 { 8 } else { 4 };
    let sizes = (3 * most / 4..=most).rev().filter(|size| size % step == 0);
    sizes.min_by_key(|size| count % size).unwrap_or(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str, count: usize, device: Device) -> String {
        let plain = parse(line.split_whitespace()).unwrap();
        let way = ways(Depth::Res18, 64, Fixed::default())[0];
        words_of(&plain, &Choice { way, epochs: 250, train_images: None }, count, true, device).join(" ")
    }

    #[test]
    fn what_is_typed_wins_over_what_is_chosen() {
        let line = "flatnce --dataset-name=folder --data=photos --lr=0.1 --epochs=7";
        let said = words(line, 300, Device::Cpu);
        assert!(said.starts_with(line) && said.matches("--lr").count() == 1, "{said}");
        assert!(!said.contains("--epochs=250") && said.contains("--save-every-n-epochs=1 "), "{said}");
        assert!(said.contains("--model=res18 --image-size=64 --stem=imagenet"), "{said}");
    }

    #[test]
    fn batches_leave_several_steps_an_epoch() {
        for (count, device, batch) in [
            (300, Device::Cpu, 60),
            (300, Device::Cuda(0), 60),
            (4_096, Device::Cuda(0), 256),
            (5_000, Device::Cuda(0), 200),
            (100, Device::Cpu, 16),
            (20, Device::Cpu, 10),
        ] {
            let said = words("flatnce --seed=1", count, device);
            assert!(said.contains(&format!("--batch-size={batch} ")), "{count} {device:?}: {said}");
        }
    }
}
