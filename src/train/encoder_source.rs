//! Which encoder a file or directory holds: for an evaluation (upstream:
//! `main_eval` and `main_transfer`, which rebuild the network from the command
//! line; here the checkpoint says what it holds), or for the weights that a new
//! run begins with. What a file does not say, its tensors do (`architecture`).

mod architecture;

use crate::checkpoint::{self, Checkpoint, Notes, Weights, WeightsFile};
use crate::config::{
    CheckpointChoice, DataConfig, DatasetName, EncoderSource, HeadMode, ModelConfig, Normalisation, Objective,
    StatedEncoder, Stem,
};
use crate::model::{Encoder, HEAD_PREFIX, HeadKind, NORMALISATION_PREFIX};
use crate::run_dir::{CheckpointKind, CheckpointName, list_checkpoints};
use crate::state::StateDict;
use anyhow::{Context, Result, bail};
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
    /// What had to be assumed, in a sentence.
    pub assumed: Option<String>,
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

impl Origin {
    /// Reads and verifies the checkpoint. Damaged ones that are passed over are named through `warn`.
    ///
    /// Errors: the file and the entry at fault, or what cannot be known from it.
    pub fn open(&self, warn: &mut dyn FnMut(String)) -> Result<Source> {
        let (path, checkpoint) = match self {
            Origin::Scratch(model) => {
                return Ok(Source {
                    model: model.clone(),
                    state: None,
                    path: None,
                    epoch: 0,
                    epochs_done: 0,
                    batch_size: None,
                    objective: None,
                    data: None,
                    assumed: None,
                });
            }
            Origin::File(path) => {
                let Weights { state, file } = checkpoint::read_weights(path)?;
                match file {
                    WeightsFile::Checkpoint(checkpoint) => (path.clone(), Checkpoint { model: state, ..*checkpoint }),
                    WeightsFile::StateDict => return Source::from_weights(path, state, &Notes::new()),
                    WeightsFile::Safetensors(notes) => return Source::from_weights(path, state, &notes),
                }
            }
            Origin::Newest(directory) => checkpoint::newest_good(directory, warn)?,
        };
        Source::from_checkpoint(&path, checkpoint)
            .with_context(|| format!("the encoder in {} cannot be understood", path.display()))
    }
}

impl Source {
    fn from_checkpoint(path: &Path, checkpoint: Checkpoint) -> Result<Source> {
        let Checkpoint { model: state, config, epochs_done, batch_size, .. } = checkpoint;
        let named = path.file_name().and_then(|name| CheckpointName::parse(name.to_str()?));
        let epoch = named.map_or(epochs_done.saturating_sub(1), |name| name.epoch);
        let (model, objective, data) = match config {
            Some(run) => (run.model, Some(run.objective), Some(run.data)),
            None => (architecture::recognise(&state)?, None, None),
        };
        let state = Some(architecture::with_flat_normalisation(&state)?);
        Ok(Source {
            model,
            state,
            path: Some(path.to_owned()),
            epoch,
            epochs_done,
            batch_size,
            objective,
            data,
            assumed: None,
        })
    }

    /// Weights without a run: of `flatnce export`, torchvision or timm. `notes` are those of a safetensors file.
    fn from_weights(path: &Path, mut state: StateDict, notes: &Notes) -> Result<Source> {
        let mut read = || -> Result<Source> {
            architecture::recognise_trunk(&state)?;
            let mut assumed = None;
            if !has_normalisation(&state) {
                let noted = |key: &str| serde_json::from_str::<[f32; 3]>(notes.get(key)?).ok();
                let Normalisation { mean, std } = match (noted("normalize_mean"), noted("normalize_std")) {
                    (Some(mean), Some(std)) => Normalisation { mean, std },
                    _ => {
                        let imagenet = Normalisation::of(DatasetName::Imagenet);
                        assumed = Some(format!(
                            "{} names no normalisation: that of torchvision's and timm's own weights is taken (mean {:?}, \
                             std {:?})",
                            path.display(),
                            imagenet.mean,
                            imagenet.std
                        ));
                        imagenet
                    }
                };
                state.push("normalize.mean", Tensor::from_slice(&mean));
                state.push("normalize.std", Tensor::from_slice(&std));
            }
            let model = architecture::recognise(&state)?;
            Ok(Source {
                model,
                state: Some(architecture::with_flat_normalisation(&state)?),
                path: Some(path.to_owned()),
                epochs_done: 0,
                epoch: notes.get("epoch").and_then(|epoch| epoch.parse().ok()).unwrap_or(0),
                batch_size: notes.get("batch_size").and_then(|size| size.parse().ok()),
                objective: notes.get("objective").and_then(|name| Objective::parse(name)),
                data: None,
                assumed,
            })
        };
        read().with_context(|| format!("the encoder in {} cannot be understood", path.display()))
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
        let Some(pretraining) = &self.data else { return found };
        if pretraining.image_size_px != size {
            found.push(format!(
                "the encoder was trained on images of {} px and is given {size} px; --image-size {} repeats its training",
                pretraining.image_size_px, pretraining.image_size_px
            ));
        }
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
pub fn load_weights(encoder: &Encoder, model: &ModelConfig, path: &Path) -> Result<String> {
    let weights = checkpoint::read_weights(path)?;
    let context = || format!("cannot start from {}", path.display());
    let (depth, stem) = architecture::recognise_trunk(&weights.state).with_context(context)?;
    if (depth, stem) != (model.depth, model.stem) {
        bail!(
            "{} holds a {depth} with the {stem} stem, the run has a {} with the {} stem: give --model {depth} --stem {stem}",
            path.display(),
            model.depth,
            model.stem
        );
    }
    let state = architecture::with_flat_normalisation(&weights.state).with_context(context)?;
    let own_head = architecture::recognise_head(&state).with_context(context)?;
    if own_head.mode != HeadMode::None && own_head == model.head {
        encoder.load(&state).with_context(context)?;
        return Ok(format!("starting from {}: {depth} with its projection head", path.display()));
    }
    encoder.load_backbone(&state).with_context(context)?;
    let left_out = state.iter().filter(|(name, _)| name.starts_with(HEAD_PREFIX)).count();
    let mut said = format!("starting from {}: the trunk of a {depth}", path.display());
    if left_out > 0 {
        said.push_str(&format!("; its head ({left_out} tensors under {HEAD_PREFIX}) is left out"));
    }
    said.push_str("; the projection head is new");
    if !has_normalisation(&state) {
        let Normalisation { mean, std } = model.normalisation;
        said.push_str(&format!("; it names no normalisation, so the run's is kept (mean {mean:?}, std {std:?})"));
    }
    Ok(said)
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
