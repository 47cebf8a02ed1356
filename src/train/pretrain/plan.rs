//! A pre-training run before anything of it is written: data, network and
//! checkpoint opened, read and checked, a place for its results found. The run is
//! begun with it; `--dry-run` prints what it says of itself.

use super::online_knn::Judge;
use super::out_of_memory::Room;
use super::restore::{Counters, load_weights, restore};
use super::temperature::Temperature;
use crate::checkpoint::{self, Checkpoint};
use crate::config::{Config, Engine, Precision, Pretrain, Start};
use crate::data::{BadImage, Part, Split};
use crate::loader::{Loader, Order, Rendering};
use crate::model::{Encoder, HeadKind};
use crate::native::cuda;
use crate::optim::{self, Optimizer, Scaler};
use crate::report::{self, Console};
use crate::run_dir;
use crate::state::Parameter;
use crate::train::ranks::Ranks;
use crate::train::readable::{self, Readable};
use anyhow::{Context, Result};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tch::{Device, Tensor};

/// What a run begins with.
pub struct Plan {
    pub(super) config: Config,
    pub(super) pretrain: Pretrain,
    pub(super) device: Device,
    pub(super) ranks: Ranks,
    pub(super) loader: Loader,
    pub(super) left_out: Vec<BadImage>,
    pub(super) state: State,
    pub(super) judge: Option<Judge>,
    pub(super) room: Room,
    pub(super) place: Place,
    /// What the user should know, with the next step in it.
    pub(super) warnings: Vec<String>,
}

/// What training changes.
pub(super) struct State {
    pub encoder: Encoder,
    pub parameters: Vec<Parameter>,
    pub optimizer: Box<dyn Optimizer>,
    pub scaler: Option<Scaler>,
    pub temperature: Temperature,
    pub at: Counters,
    pub earlier_rows: Option<Tensor>,
    /// What was taken of another run's weights.
    pub taken: Option<String>,
    /// The checkpoint that it was read from, where a run is continued.
    pub resumed: Option<PathBuf>,
    /// That checkpoint is this program's, not PyTorch's.
    pub ours: bool,
}

/// Where results go.
pub(super) enum Place {
    /// Into a new directory below this one.
    Below(PathBuf),
    /// On in the continued run's, claimed by the rank that writes.
    Here(PathBuf, Option<File>),
}

impl Plan {
    /// Opens everything that `config` names. `saved` is the checkpoint that a run continues, if it has been read already.
    /// Nothing is written; of several ranks all come here.
    ///
    /// Errors: data that are missing or too small, weights that do not fit, a directory that cannot be written.
    pub fn make(
        config: &Config,
        pretrain: &Pretrain,
        saved: Option<Checkpoint>,
        device: Device,
        console: &Console,
        ranks: &Ranks,
    ) -> Result<Plan> {
        // Before the first tensor: what is recorded must not be on the device's default stream.
        if let Device::Cuda(index) = device
            && cuda::part().is_ok()
            && let Err(error) = cuda::own_stream(index)
        {
            console.warn(&format!(
                "work on cuda:{index} stays on its default stream, where no step can be recorded: {error:#}"
            ));
        }
        let start = ranks.start(&config.start, console)?;
        let saved = saved.filter(|_| start == config.start);
        let config = Config { start, ..config.clone() };
        let Readable { split, left_out } = readable::load(&pretrain.data, Part::Unlabelled, console)?;
        let (images, mut room) = (split.len() as u64, Room::before(pretrain, device));
        let loader = loader(&config, pretrain, split, device, ranks)?;
        let mut state = State::fresh(pretrain, device)?;
        let mut warnings: Vec<String> = room.foresee(&state.parameters).into_iter().collect();
        match &config.start {
            Start::Fresh => {}
            Start::Pretrained(path) => state.taken = Some(load_weights(&state.encoder, &pretrain.model, path)?),
            Start::Resume(path) => {
                let saved = saved.map_or_else(|| checkpoint::read(path), Ok)?;
                state.resume(path, saved, loader.batches() as u64)?;
            }
        }
        // Nobody touches the directory before everybody has read the checkpoint.
        ranks.same("images", images)?;
        ranks.same("steps trained", state.at.step)?;
        ranks.same_state(&state.encoder)?;
        let judge = judge(pretrain, console, &mut warnings, ranks)?;
        let place = Place::find(&config, pretrain, state.resumed.as_deref(), ranks)?;
        let (pretrain, ranks) = (pretrain.clone(), ranks.clone());
        Ok(Plan { config, pretrain, device, ranks, loader, left_out, state, judge, room, place, warnings })
    }

    pub(super) fn extent(&self) -> report::Plan {
        report::Plan {
            first_epoch: self.state.at.epoch,
            epochs: u64::from(self.pretrain.epochs),
            steps_per_epoch: self.loader.batches() as u64,
        }
    }

    /// Steps yet to be taken.
    pub(super) fn steps_left(&self) -> u64 {
        let report::Plan { epochs, steps_per_epoch, .. } = self.extent();
        (epochs * steps_per_epoch).saturating_sub(self.state.at.step)
    }
}

impl State {
    /// Drawn from the seed.
    fn fresh(pretrain: &Pretrain, device: Device) -> Result<State> {
        let encoder = Encoder::new(&pretrain.model, HeadKind::Projection, device, pretrain.seed);
        let (parameters, statistics) = (encoder.parameters(), encoder.running_statistics());
        Ok(State {
            optimizer: optim::build(&pretrain.optimizer, parameters.clone())?,
            scaler: (pretrain.precision == Precision::Fp16).then(|| Scaler::new(device, statistics)),
            temperature: Temperature::new(pretrain.temperature, pretrain.ess_target),
            at: Counters::default(),
            earlier_rows: None,
            taken: None,
            resumed: None,
            ours: false,
            encoder,
            parameters,
        })
    }

    /// Takes up what a checkpoint holds.
    ///
    /// Errors: a file that does not fit.
    fn resume(&mut self, path: &Path, saved: Checkpoint, steps_per_epoch: u64) -> Result<()> {
        let refused = || format!("cannot continue from {}", path.display());
        self.at = restore(&saved, &self.encoder, self.optimizer.as_mut(), steps_per_epoch).with_context(refused)?;
        if let (Some(scaler), Some(state)) = (&mut self.scaler, saved.scaler) {
            scaler.restore(state).with_context(refused)?;
        }
        if let Some(state) = &saved.temperature {
            self.temperature.restore(state);
        }
        (self.earlier_rows, self.ours) = (saved.epoch_rows, saved.config.is_some());
        self.resumed = Some(path.to_owned());
        Ok(())
    }
}

impl Place {
    /// Errors: nothing can be written there, or another process does.
    fn find(config: &Config, pretrain: &Pretrain, resumed: Option<&Path>, ranks: &Ranks) -> Result<Place> {
        let Some(file) = resumed else {
            let (dataset, batch, objective) = (pretrain.data.dataset, pretrain.batch_size, pretrain.objective);
            let parent = run_dir::pretrain_parent(&config.save_dir, dataset, batch, objective);
            if ranks.writes() {
                run_dir::check_place(&parent)?;
            }
            return Ok(Place::Below(parent));
        };
        let directory = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned();
        let claim = ranks.writes().then(|| run_dir::claim(&directory)).transpose()?;
        if claim.is_some() {
            run_dir::check_place(&directory)?;
        }
        Ok(Place::Here(directory, claim))
    }
}

/// Batches of views for this rank, on the device.
fn loader(config: &Config, pretrain: &Pretrain, split: Split, device: Device, ranks: &Ranks) -> Result<Loader> {
    let rendering =
        Rendering::Views { recipe: pretrain.augmentation.clone(), size_px: pretrain.data.image_size_px as usize };
    let (batch, workers) = (pretrain.batch_size as usize, config.workers as usize);
    let loader = Loader::new(Arc::new(split), rendering, Order::Shuffled, batch, pretrain.seed, workers)?;
    let loader = loader.with_share(ranks.share_of_batch());
    match pretrain.engine {
        Engine::Cpu => Ok(loader.deliver_to(device)),
        Engine::Tensor => loader.on_device(device, config.data_on_device),
    }
}

/// Who evaluates by nearest neighbours during training; of several ranks all of them or none, because they do it together.
fn judge(pretrain: &Pretrain, console: &Console, warnings: &mut Vec<String>, ranks: &Ranks) -> Result<Option<Judge>> {
    // A run that ends before the first evaluation needs no labels.
    let asked = pretrain.online_knn.filter(|knn| knn.every_epochs <= pretrain.epochs);
    let judge = asked.and_then(|knn| match Judge::new(knn, &pretrain.data, console) {
        Ok(judge) => Some(judge),
        Err(error) => {
            warnings.push(format!("no kNN evaluation during training: {error:#} (--knn-every 0 asks for none)"));
            None
        }
    });
    Ok(if ranks.any(asked.is_some() && judge.is_none())? { None } else { judge })
}
