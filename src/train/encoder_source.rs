//! Which encoder a file or directory holds: for an evaluation (upstream:
//! `main_eval` and `main_transfer`, which rebuild the network from the command
//! line; here the checkpoint says what it holds), or for the weights that a new
//! run begins with. Where in others' files the weights stand, their names tell
//! (`layout`); what a file does not say, its tensors do (`architecture`).

mod architecture;
mod layout;

use crate::checkpoint::{self, Checkpoint, Notes, Weights, WeightsFile};
use crate::config::{
    CheckpointChoice, DataConfig, DatasetName, EncoderSource, HeadMode, ModelConfig, Normalisation, Objective,
    Pretrain, Range, StatedEncoder, Stem,
};
use crate::data::{counted, protocol};
use crate::model::{Encoder, HEAD_PREFIX, HeadKind, NORMALISATION_PREFIX};
use crate::run_dir::{CheckpointKind, CheckpointName, list_checkpoints};
use crate::state::StateDict;
use anyhow::{Context, Result, bail};
use layout::Taken;
use std::fmt::Display;
use std::path::{Path, PathBuf};
use tch::{Device, Tensor};

/// One encoder to be evaluated, not read yet.
#[derive(Clone, Debug, PartialEq)]
pub enum Origin {
    File(PathBuf),
    /// The newest checkpoint of a directory that verifies.
    Newest(PathBuf),
    /// Random weights.
    Scratch(ModelConfig),
}

/// An encoder's weights and what is known of the run that made them.
#[derive(Debug)]
pub struct Source {
    pub model: ModelConfig,
    /// `None`: random weights, from the evaluation's seed.
    pub state: Option<StateDict>,
    pub path: Option<PathBuf>,
    /// As the checkpoint's name has it.
    pub epoch: u32,
    /// Of the pre-training, where the checkpoint says it.
    pub epochs_done: u32,
    pub batch_size: Option<u32>,
    pub objective: Option<Objective>,
    /// The data of the pre-training, where the checkpoint says it.
    pub data: Option<DataConfig>,
    /// Side of the images that it was trained on.
    pub image_size_px: Option<u32>,
    /// Where in the file the weights stood, and what beside them was left out.
    pub taken: Option<String>,
    /// What had to be assumed, in a sentence.
    pub assumed: Option<String>,
}

/// What helps to read the weights of other programs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading<'a> {
    /// `--checkpoint-key`: what stands before the names of the network, or words of it.
    pub key: Option<&'a str>,
    /// The images that the encoder is to see.
    pub images: Option<DatasetName>,
}

/// The encoders that a source names: one, or with `All` one per checkpoint, oldest first.
///
/// Errors: a directory that cannot be read or lacks what was asked for.
pub fn origins(source: &EncoderSource) -> Result<Vec<Origin>> {
    match source {
        EncoderSource::Scratch(model) => Ok(vec![Origin::Scratch(model.clone())]),
        EncoderSource::File(path) => Ok(vec![Origin::File(path.clone())]),
        EncoderSource::Directory { directory, which: CheckpointChoice::Last } => {
            Ok(vec![Origin::Newest(directory.clone())])
        }
        EncoderSource::Directory { directory, which } => {
            let mut found = list_checkpoints(directory)?;
            // What an interrupted epoch left behind belongs to no point of the curve.
            found.retain(|(name, _)| name.kind == CheckpointKind::Finished);
            if found.is_empty() {
                bail!("{} holds no checkpoint (checkpoint_NNNN.pth.tar)", directory.display());
            }
            let epochs: Vec<String> = found.iter().map(|(name, _)| name.epoch.to_string()).collect();
            found.retain(|(name, _)| which.takes(name.epoch));
            if found.is_empty() {
                let wanted = match which {
                    CheckpointChoice::Epoch(wanted) => CheckpointName::finished(*wanted).to_string(),
                    _ => "checkpoint of those that --epochs and --save-every-n-epochs count".to_owned(),
                };
                bail!(
                    "{} has no {wanted}; it has the epochs {} (--transfer-from-epoch N, last or all)",
                    directory.display(),
                    epochs.join(", ")
                );
            }
            Ok(found.into_iter().map(|(_, path)| Origin::File(path)).collect())
        }
    }
}

/// The images that an encoder was trained on, where its file says it; of several the newest that can be read. `key` is
/// that of [`Reading`].
///
/// Errors: none can be read.
pub fn trained_on(source: &EncoderSource, key: Option<&str>) -> Result<Option<DataConfig>> {
    let mut origins = origins(source)?;
    let mut last = None;
    while let Some(origin) = origins.pop() {
        match origin.open(Reading { key, images: None }, &mut |_| {}) {
            Ok(source) => return Ok(source.data),
            Err(error) => last = Some(error),
        }
    }
    last.map_or(Ok(None), Err)
}

impl Origin {
    /// Reads and verifies the checkpoint. Damaged ones that are passed over are named through `warn`.
    ///
    /// Errors: the file and the entry at fault, or what cannot be known from it.
    pub fn open(&self, reading: Reading, warn: &mut dyn FnMut(String)) -> Result<Source> {
        match self {
            Origin::Scratch(model) => Ok(Source::of(model.clone(), None)),
            Origin::File(path) => Source::from_weights(path, checkpoint::read_weights(path)?, reading),
            Origin::Newest(directory) => {
                let (path, mut run) = checkpoint::newest_good(directory, warn)?;
                let state = std::mem::take(&mut run.model);
                let ours = run.config.is_some();
                let run = Box::new(run);
                let file = if ours { WeightsFile::Checkpoint(run) } else { WeightsFile::Foreign(Some(run)) };
                Source::from_weights(&path, Weights { state, file }, reading)
            }
        }
    }
}

/// The network in a file, and what the file says of the run that made it.
fn network(path: &Path, weights: Weights, key: Option<&str>) -> Result<(Taken, Option<Box<Checkpoint>>, Notes)> {
    let Weights { state, file } = weights;
    Ok(match file {
        WeightsFile::Checkpoint(_) if key.is_some() => bail!(
            "--checkpoint-key: {} is a checkpoint of this program, which knows where its weights are; leave the flag out",
            path.display()
        ),
        WeightsFile::Checkpoint(run) => (Taken::whole(state), Some(run), Notes::new()),
        WeightsFile::Foreign(run) => (layout::take(&state, key)?, run, Notes::new()),
        WeightsFile::Safetensors(notes) => (layout::take(&state, key)?, None, notes),
    })
}

impl Source {
    /// Weights of which nothing else is known.
    fn of(model: ModelConfig, state: Option<StateDict>) -> Source {
        Source {
            model,
            state,
            path: None,
            epoch: 0,
            epochs_done: 0,
            batch_size: None,
            objective: None,
            data: None,
            image_size_px: None,
            taken: None,
            assumed: None,
        }
    }

    fn from_weights(path: &Path, weights: Weights, reading: Reading) -> Result<Source> {
        let read = || -> Result<Source> {
            let (taken, run, notes) = network(path, weights, reading.key)?;
            let said = taken.says(true);
            let source = match run {
                Some(mut run) if run.config.is_some() => {
                    let config = run.config.take().context("it has no settings")?;
                    Source::of_run(config, taken.state, run.epochs_done)?
                }
                run => Source::from_others(path, run.map(|run| *run), taken.state, &notes, reading.images)?,
            };
            Ok(Source { taken: said, ..source.saved_as(path) })
        };
        read().with_context(|| format!("the encoder in {} cannot be understood", path.display()))
    }

    /// The network of a run with these settings, `state`, after so many epochs.
    ///
    /// Errors: constants of normalisation that are none.
    pub fn of_run(config: Pretrain, state: StateDict, epochs_done: u32) -> Result<Source> {
        let state = architecture::with_flat_normalisation(&state)?;
        Ok(Source {
            epoch: epochs_done.saturating_sub(1),
            epochs_done,
            batch_size: Some(config.batch_size),
            objective: Some(config.objective),
            image_size_px: Some(config.data.image_size_px),
            data: Some(config.data),
            ..Source::of(config.model, Some(state))
        })
    }

    /// The same, as it lies in a file, whose name may say which epoch it is.
    pub fn saved_as(self, path: &Path) -> Source {
        let named = path.file_name().and_then(|name| CheckpointName::parse(name.to_str()?));
        let epoch = named.map_or(self.epoch, |name| name.epoch);
        Source { path: Some(path.to_owned()), epoch, ..self }
    }

    /// Weights that do not say of which network they are: of `flatnce export`, of fine-tuning, of other programs. `notes`
    /// are those of a safetensors file.
    fn from_others(
        path: &Path,
        run: Option<Checkpoint>,
        mut state: StateDict,
        notes: &Notes,
        images: Option<DatasetName>,
    ) -> Result<Source> {
        let (_, stem) = architecture::recognise_trunk(&state)?;
        let mut assumed = None;
        if !has_normalisation(&state) {
            let noted = |key: &str| serde_json::from_str::<[f32; 3]>(notes.get(key)?).ok();
            let Normalisation { mean, std } = match (noted("normalize_mean"), noted("normalize_std")) {
                (Some(mean), Some(std)) => Normalisation { mean, std },
                _ => {
                    let (normalisation, whose) = usual_normalisation(stem, images);
                    let Normalisation { mean, std } = normalisation;
                    let path = path.display();
                    assumed =
                        Some(format!("{path} names no normalisation: {whose} is taken (mean {mean:?}, std {std:?})"));
                    normalisation
                }
            };
            state.push("normalize.mean", Tensor::from_slice(&mean));
            state.push("normalize.std", Tensor::from_slice(&std));
        }
        let model = architecture::recognise(&state)?;
        fn number<T: std::str::FromStr>(notes: &Notes, key: &str) -> Option<T> {
            notes.get(key)?.parse().ok()
        }
        let run = run.unwrap_or_default();
        let size = number::<u32>(notes, "image_size_px").filter(|&size| Range::IMAGE_SIDE.allows(size.into()));
        Ok(Source {
            epoch: number(notes, "epoch").unwrap_or_else(|| run.epochs_done.saturating_sub(1)),
            epochs_done: run.epochs_done,
            batch_size: number(notes, "batch_size").or(run.batch_size),
            objective: notes.get("objective").and_then(|name| Objective::parse(name)),
            image_size_px: size.or(run.image_size_px),
            assumed,
            ..Source::of(model, Some(architecture::with_flat_normalisation(&state)?))
        })
    }

    /// Whether it is known to have been trained on this data set.
    fn saw(&self, dataset: DatasetName) -> bool {
        self.data.as_ref().is_some_and(|data| data.dataset == dataset)
    }

    /// The side of the images that it is given, and where that is from. An encoder sees the images of its training, and those
    /// without a size of their own, as large as in its training, unless another size is asked for.
    pub fn image_size(&self, data: &DataConfig) -> (u32, &'static str) {
        match self.image_size_px {
            _ if !data.size_is_default => (data.image_size_px, "as --image-size asks"),
            Some(size) if !protocol(data.dataset).fixed_size || self.saw(data.dataset) => {
                (size, "as the encoder was trained")
            }
            _ => (data.image_size_px, "the usual size of these images"),
        }
    }

    /// Builds the network with `head` on top; the head's weights, and without a checkpoint the trunk's, come from `seed`.
    ///
    /// Errors: weights that do not fit the network that the checkpoint describes.
    pub fn build(&self, head: HeadKind, device: Device, seed: u64) -> Result<Encoder> {
        let encoder = Encoder::new(&self.model, head, device, seed);
        if let Some(state) = &self.state {
            encoder.load_trunk(state).with_context(|| format!("the weights of {}", self.name()))?;
        }
        Ok(encoder)
    }

    /// The encoder, with what the command says of it where the checkpoint does not. Where neither names the objective, the
    /// names of the checkpoint's directories are asked.
    ///
    /// Errors: the two contradict each other.
    pub fn as_stated(mut self, stated: &StatedEncoder) -> Result<Source> {
        let dataset = self.data.as_ref().map(|data| data.dataset);
        contradiction("--dataset-name", stated.dataset, dataset, &self)?;
        contradiction("--clr", stated.objective, self.objective, &self)?;
        contradiction("--model", stated.depth, Some(self.model.depth), &self)?;
        contradiction("--batch-size", stated.batch_size, self.batch_size, &self)?;
        self.objective = self.objective.or(stated.objective).or_else(|| objective_in(self.path.as_deref()?));
        self.batch_size = self.batch_size.or(stated.batch_size);
        Ok(self)
    }

    /// The checkpoint's path, or that there is none.
    pub fn name(&self) -> String {
        self.path.as_ref().map_or("random weights".to_owned(), |path| path.display().to_string())
    }

    /// What about these images is unlike what the encoder was made for; a sentence each.
    pub fn mismatches(&self, data: &DataConfig) -> Vec<String> {
        let size = data.image_size_px;
        let mut found = Vec::new();
        match self.model.stem {
            Stem::Small if size > 112 => found.push(format!(
                "the encoder has the stem for small images (3x3, no pooling) and is given {size} px: this takes about \
                 16 times the work of the other stem, and its features were learned at another scale; give a smaller \
                 --image-size"
            )),
            Stem::Imagenet if size < 64 => found.push(format!(
                "the encoder has ImageNet's stem (7x7, stride 2, pooling) and is given {size} px: its last stage sees \
                 {0}x{0} positions; give --image-size 224 to enlarge the images",
                size.div_ceil(32)
            )),
            _ => {}
        }
        if let Some(trained) = self.image_size_px.filter(|trained| *trained != size) {
            found.push(format!(
                "the encoder was trained on images of {trained} px and is given {size} px; --image-size {trained} repeats \
                 its training"
            ));
        }
        let Some(pretraining) = &self.data else { return found };
        if pretraining.dataset != data.dataset && self.model.normalisation != Normalisation::of(data.dataset) {
            found.push(format!(
                "the images of {} are normalised with the constants of {}, which are part of the encoder",
                data.dataset, pretraining.dataset
            ));
        }
        found
    }
}

fn contradiction<T: PartialEq + Display>(flag: &str, said: Option<T>, known: Option<T>, of: &Source) -> Result<()> {
    match (said, known) {
        (Some(said), Some(known)) if said != known => bail!(
            "{flag} {said}: the encoder in {} was pre-trained with {known}; leave the flag out{}",
            of.name(),
            if flag == "--batch-size" { " (the batches of an evaluation: --fc-batch-size)" } else { "" }
        ),
        _ => Ok(()),
    }
}

/// Loads another program's or run's weights: with the head where it is the same, else the trunk alone. The answer says
/// what was taken.
///
/// Errors: a file without weights; another network than the run's, with the flags that would fit; every entry that is
/// missing, unexpected or of another shape.
pub fn load_weights(encoder: &Encoder, model: &ModelConfig, path: &Path, key: Option<&str>) -> Result<String> {
    let context = || format!("cannot start from {}", path.display());
    let (taken, ..) = network(path, checkpoint::read_weights(path)?, key).with_context(context)?;
    let (depth, stem) = architecture::recognise_trunk(&taken.state).with_context(context)?;
    if (depth, stem) != (model.depth, model.stem) {
        bail!(
            "{} holds a {depth} with the {stem} stem, the run has a {} with the {} stem: give --model {depth} --stem {stem}",
            path.display(),
            model.depth,
            model.stem
        );
    }
    let state = architecture::with_flat_normalisation(&taken.state).with_context(context)?;
    let own_head = architecture::recognise_head(&state).with_context(context)?;
    let place = taken.says(false).map_or(String::new(), |said| format!("; {said}"));
    if own_head.mode != HeadMode::None && own_head == model.head {
        encoder.load(&state).with_context(context)?;
        return Ok(format!("starting from {}: {depth} with its projection head{place}", path.display()));
    }
    encoder.load_backbone(&state).with_context(context)?;
    let left_out = state.iter().filter(|(name, _)| name.starts_with(HEAD_PREFIX)).count();
    let mut said = format!("starting from {}: the trunk of a {depth}{place}", path.display());
    if left_out > 0 {
        said.push_str(&format!("; its head ({} under {HEAD_PREFIX}) is left out", counted(left_out, "tensor")));
    }
    said.push_str("; the projection head is new");
    if !has_normalisation(&state) {
        let Normalisation { mean, std } = model.normalisation;
        said.push_str(&format!("; it names no normalisation, so the run's is kept (mean {mean:?}, std {std:?})"));
    }
    Ok(said)
}

/// The ResNet in a file of another program, in words: what it is, and where its weights are.
///
/// Errors: those of an evaluation of it.
pub fn describe(path: &Path, key: Option<&str>) -> Result<String> {
    let (taken, ..) = network(path, checkpoint::read_weights(path)?, key)?;
    let (depth, stem) = architecture::recognise_trunk(&taken.state)?;
    let place = taken.says(true).map_or(String::new(), |said| format!("; {said}"));
    Ok(format!("{depth} with the {stem} stem{place}"))
}

/// The constants that weights without any were probably trained with, and whose they are. A network with ImageNet's stem is
/// ImageNet's, whatever it is to see; one for small images was trained on such images.
fn usual_normalisation(stem: Stem, images: Option<DatasetName>) -> (Normalisation, String) {
    // Upstream's constants of the sets whose own it does not know.
    let unknown = Normalisation { mean: [0.5; 3], std: [0.5; 3] };
    let known = images.map(|name| (name, Normalisation::of(name))).filter(|(_, constants)| *constants != unknown);
    match known {
        Some((name, constants)) if stem == Stem::Small && name != DatasetName::Imagenet => {
            (constants, format!("that of {name}"))
        }
        _ => {
            (Normalisation::of(DatasetName::Imagenet), "that of torchvision's and timm's own weights (ImageNet)".into())
        }
    }
}

/// Whether weights come with the constants that their images are normalised with.
fn has_normalisation(state: &StateDict) -> bool {
    state.iter().any(|(name, _)| name.starts_with(NORMALISATION_PREFIX))
}

/// The objective that a directory of upstream's is named after: `512_FlatCLR`, `512_larsSimCLR`.
fn objective_in(path: &Path) -> Option<Objective> {
    path.ancestors().skip(1).filter_map(|parent| parent.file_name()?.to_str()).find_map(|name| {
        let name = name.to_ascii_lowercase();
        Objective::ALL.iter().copied().find(|objective| name.contains(objective.name()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Depth, HeadConfig, HeadMode};

    #[test]
    fn an_encoder_sees_its_own_images_and_those_without_a_size_as_in_its_training() {
        let head = HeadConfig { mode: HeadMode::None, layers: 0, out_dim: 0 };
        let normalisation = Normalisation::of(DatasetName::Cifar10);
        let model = ModelConfig { depth: Depth::Res18, stem: Stem::Small, normalisation, head };
        let data = |dataset, size| DataConfig { size_is_default: true, ..DataConfig::new(dataset, "datasets", size) };
        let trained =
            Source { image_size_px: Some(64), data: Some(data(DatasetName::Cifar10, 64)), ..Source::of(model, None) };
        for (dataset, usual, wanted) in [
            (DatasetName::Cifar10, 32, 64),
            (DatasetName::Folder, 224, 64),
            (DatasetName::Cifar100, 32, 32),
            (DatasetName::Stl10, 96, 96),
        ] {
            assert_eq!(trained.image_size(&data(dataset, usual)).0, wanted, "{dataset}");
        }
        let asked = DataConfig { size_is_default: false, ..data(DatasetName::Folder, 128) };
        assert_eq!(trained.image_size(&asked).0, 128);
    }

    #[test]
    fn what_the_command_says_of_an_encoder_is_checked_or_believed() {
        let source = |objective| Source {
            model: ModelConfig {
                depth: Depth::Res18,
                stem: Stem::Small,
                normalisation: Normalisation::of(DatasetName::Cifar10),
                head: HeadConfig { mode: HeadMode::None, layers: 0, out_dim: 0 },
            },
            state: None,
            path: Some("run/checkpoint_0002.pth.tar".into()),
            epoch: 2,
            epochs_done: 3,
            batch_size: Some(64),
            objective,
            data: None,
            image_size_px: None,
            taken: None,
            assumed: None,
        };
        let (flat, simclr) = (Some(Objective::FlatClr), Some(Objective::SimClr));
        let stated =
            StatedEncoder { dataset: None, objective: simclr, depth: Some(Depth::Res18), batch_size: Some(64) };
        assert_eq!(source(None).as_stated(&stated).unwrap().objective, simclr);
        assert_eq!(source(flat).as_stated(&StatedEncoder::default()).unwrap().objective, flat);
        let said = |stated| source(flat).as_stated(&stated).unwrap_err().to_string();
        let named = || Source { path: Some("FlatCLR/run/checkpoint_0002.pth.tar".into()), ..source(None) };
        assert_eq!(named().as_stated(&stated).unwrap().objective, simclr, "a directory's name gives way");
        assert_eq!(named().as_stated(&StatedEncoder::default()).unwrap().objective, flat, "and is else believed");
        let message = said(stated);
        assert!(message.starts_with("--clr simclr: the encoder in run/checkpoint_0002"), "{message}");
        let message = said(StatedEncoder { objective: None, depth: Some(Depth::Res50), ..stated });
        assert!(message.contains("--model res50") && message.contains("with res18"), "{message}");
        let message = said(StatedEncoder { objective: None, batch_size: Some(8), ..stated });
        assert!(message.contains("--batch-size 8") && message.contains("--fc-batch-size"), "{message}");
    }
}
