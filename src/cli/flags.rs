//! The table of flags: which modes read each, what one that nobody reads means, which setting each is, and what it may
//! change in a run that is continued.
//!
//! The rows stand beside the flags, one list a group; [`table`] joins them. A tool has only flags that it reads, and
//! nothing to continue: those that are its own have no row.

use super::{Typed, flag_name, table};
use crate::config::OptimizerName;
use crate::config::TrainMode::{self, Eval, Semi, Ssl, Supervised, Transfer};
use crate::data::source_of;
use anyhow::{Result, bail};

pub const EVERY: &[TrainMode] = TrainMode::ALL;
pub const PRETRAINING: &[TrainMode] = &[Ssl];
/// The modes that begin with the encoder of a checkpoint.
pub const ENCODER: &[TrainMode] = &[Eval, Transfer, Semi];
/// Pre-training, and those that ask whether the encoder was made so.
pub const ENCODER_TOO: &[TrainMode] = &[Ssl, Eval, Transfer, Semi];
pub const LABELS: &[TrainMode] = &[Eval, Transfer, Semi, Supervised];

/// One row.
#[derive(Debug)]
pub struct Flag {
    /// The name with underscores.
    pub id: &'static str,
    /// The modes that read it.
    pub modes: &'static [TrainMode],
    /// What else must hold for it to be read.
    pub only: Option<Only>,
    /// In another mode it is an error with this advice behind it; `None`: a warning.
    pub refused: Option<&'static str>,
    pub resume: Resume,
    /// Its setting in [`crate::config::Evaluate`].
    pub evaluation: Option<&'static str>,
    /// Its setting in [`crate::config::Config`], where that is no job's.
    pub command: Option<&'static str>,
}

/// A condition beside the mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    Linear,
    WholeNetwork,
    /// LBFGS takes all images at once and searches its own step.
    NotLbfgs,
    /// Nothing else names the checkpoints, through which upstream's `main_eval` counts.
    Sweep,
    /// No other flag names the images.
    NamedImages,
    /// The images are one's own: published sets have labels of their own.
    OwnImages,
}

/// What a typed flag means to a run that is continued. A path is that of the setting in [`crate::config::Pretrain`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Resume {
    /// It changes nothing that the run keeps.
    Free,
    /// A value other than the run's is an error.
    Identity(&'static str),
    /// The typed value holds from here on; `changes` is what differs then from an uninterrupted run.
    Adopted { path: &'static str, changes: Option<&'static str> },
}

/// A row of a flag that is free on resume.
pub const fn flag(id: &'static str, modes: &'static [TrainMode]) -> Flag {
    Flag { id, modes, only: None, refused: None, resume: Resume::Free, evaluation: None, command: None }
}

impl Flag {
    pub const fn only(self, only: Only) -> Flag {
        Flag { only: Some(only), ..self }
    }

    pub const fn refused(self, advice: &'static str) -> Flag {
        Flag { refused: Some(advice), ..self }
    }

    pub const fn identity(self, path: &'static str) -> Flag {
        Flag { resume: Resume::Identity(path), ..self }
    }

    pub const fn adopted(self, path: &'static str) -> Flag {
        Flag { resume: Resume::Adopted { path, changes: None }, ..self }
    }

    /// Adopted, with a warning.
    pub const fn adopted_changing(self, path: &'static str, what: &'static str) -> Flag {
        Flag { resume: Resume::Adopted { path, changes: Some(what) }, ..self }
    }

    /// Read by evaluations, as this setting of theirs.
    pub const fn evaluated(self, path: &'static str) -> Flag {
        Flag { evaluation: Some(path), ..self }
    }

    /// A setting of whatever is done.
    pub const fn beside_the_job(self, path: &'static str) -> Flag {
        Flag { command: Some(path), ..self }
    }

    /// Its setting in [`crate::config::Pretrain`].
    pub fn pretraining(&self) -> Option<&'static str> {
        match self.resume {
            Resume::Free => None,
            Resume::Identity(path) | Resume::Adopted { path, .. } => Some(path),
        }
    }
}

/// Refuses the flags that another `--train-mode` reads, where leaving them unread would give another result than
/// the one that was asked for.
pub fn refuse(typed: &Typed) -> Result<()> {
    let mode = typed.args.evaluation.train_mode;
    for flag in table().filter(|flag| typed.has(flag.id) && !flag.modes.contains(&mode)) {
        if let Some(advice) = flag.refused {
            let (name, modes) = (flag_name(flag.id), flag.modes.iter().map(|mode| mode.name()).collect::<Vec<_>>());
            bail!("{name} goes with --train-mode {}; this command's is {mode}{advice}", modes.join(", "));
        }
    }
    Ok(())
}

/// A warning for typed flags that change nothing in what this command does, as upstream's scripts often carry them.
pub fn without_effect(typed: &Typed) -> Vec<String> {
    let mode = typed.args.evaluation.train_mode;
    let idle = |circumstance: String, unread: &dyn Fn(&Flag) -> bool| {
        let flags = table().filter(|flag| typed.has(flag.id) && unread(flag));
        let names: Vec<String> = flags.map(|flag| flag_name(flag.id)).collect();
        (!names.is_empty()).then(|| format!("no effect {circumstance}: {}", names.join(", ")))
    };
    let mut found = vec![idle(format!("with --train-mode {mode}"), &|flag: &Flag| !flag.modes.contains(&mode))];
    for only in Only::ALL.into_iter().filter(|only| !only.holds(typed)) {
        let unread = |flag: &Flag| flag.only == Some(only) && flag.modes.contains(&mode);
        found.push(idle(only.otherwise().to_owned(), &unread));
    }
    found.into_iter().flatten().collect()
}

impl Only {
    const ALL: [Only; 6] =
        [Only::Linear, Only::WholeNetwork, Only::NotLbfgs, Only::Sweep, Only::NamedImages, Only::OwnImages];

    fn holds(self, typed: &Typed) -> bool {
        let flags = &typed.args.evaluation;
        let mode = flags.train_mode;
        (mode == Ssl && self != Only::OwnImages)
            || match self {
                Only::Linear => !flags.trains_whole_network(),
                Only::WholeNetwork => flags.trains_whole_network(),
                Only::NotLbfgs => flags.fc_optimizer != OptimizerName::Lbfgs,
                Only::Sweep => !typed.says("transfer_from_epoch") && !typed.says("checkpoint"),
                // A continued run knows its images.
                Only::OwnImages => {
                    typed.has("resume") || typed.has("log_dir") || source_of(typed.dataset()).several_roots
                }
                Only::NamedImages => mode != Supervised || !typed.has("transfer_dataset_name"),
            }
    }

    /// Where it does not hold.
    fn otherwise(self) -> &'static str {
        match self {
            Only::Linear => "where the whole network is trained",
            Only::WholeNetwork => "on a linear evaluation",
            Only::NotLbfgs => "with --fc-optimizer LBFGS",
            Only::Sweep => "where --transfer-from-epoch or --checkpoint names the checkpoint",
            Only::OwnImages => "on a data set that has labels of its own",
            Only::NamedImages => "where --transfer-dataset-name names the images",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::settings::shown;
    use crate::cli::{command, parse};
    use crate::config::{Precision, Pretrain, Settings, side_by_side};
    use tch::Device;

    #[test]
    fn every_flag_has_one_row_and_every_row_a_flag() {
        let command = command();
        let flags: Vec<&str> = command.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        let rows: Vec<&str> = table().map(|row| row.id).collect();
        for id in &flags {
            assert_eq!(rows.iter().filter(|row| *row == id).count(), 1, "{id}");
        }
        assert!(rows.iter().all(|id| flags.contains(id)), "{rows:?}");
        // Where a mode does not read a flag, another one does.
        assert!(table().all(|row| !row.modes.is_empty()));
    }

    /// So that no setting of a run can be forgotten on resume, and none renamed without its row.
    #[test]
    fn the_rows_name_every_setting_of_a_run() {
        let line = "flatnce --ess-target=0.5 --train-images=9 --workers=3 --keep-last=1 --keep-every=2 \
                    --save-every-n-steps=3 --checkpoint-prefix=module. --probe-every=4";
        let typed = parse(line.split_whitespace()).unwrap();
        let run = crate::cli::pretrain::from_flags(&typed, Precision::Fp32, Device::Cpu).unwrap();
        let run = serde_json::to_value(run).unwrap();
        let named: Vec<&str> = table().filter_map(Flag::pretraining).collect();
        for setting in side_by_side(&[&run]) {
            // The data set's.
            let derived = setting.path.starts_with("model.normalisation");
            let path = setting.path.as_str();
            assert!(derived || named.iter().any(|name| path.starts_with(name)), "no row names {path}");
        }
        for path in named {
            assert_ne!(shown(&run, path), "none", "{path} is no setting");
        }
    }

    /// So that a file of settings forgets none of an evaluation's.
    #[test]
    fn the_rows_name_every_setting_of_an_evaluation() {
        let of = |line: &str| {
            let typed = parse(line.split_whitespace()).unwrap();
            serde_json::to_value(crate::cli::evaluate::from_flags(&typed, Precision::Fp32).unwrap()).unwrap()
        };
        let (judged, trained) = (of("flatnce --train-mode=eval --checkpoint=x"), of("flatnce --train-mode=supervised"));
        let named: Vec<&str> = table().filter_map(|row| row.evaluation).collect();
        // What the source is, whose images they are, and whether a rate was given is told by flags of more than one setting.
        let by_themselves =
            ["source.file", "source.scratch.depth", "data.dataset", "stated.dataset", "rate_follows_batch", "resume"];
        // The data set's; and nothing but pre-training warms up.
        let derived = ["source.scratch.normalisation", "schedule.warmup_epochs"];
        for setting in side_by_side(&[&judged, &trained]) {
            let path = setting.path.as_str();
            let known = named.iter().chain(&by_themselves).chain(&derived).any(|name| path.starts_with(name));
            assert!(known, "no row names {path}");
        }
        for path in named {
            let somewhere = [&judged, &trained].iter().any(|run| shown(run, path) != "none");
            assert!(somewhere || path.starts_with("stated."), "{path} is no setting");
        }
    }

    /// A flag reads what its setting may be in a file, and nothing else.
    #[test]
    fn flags_and_settings_in_files_have_the_same_ranges() {
        let mut compared = 0;
        for (part, rows) in Pretrain::RANGES {
            for (name, range) in *rows {
                let path = if part.is_empty() { (*name).to_owned() } else { format!("{part}.{name}") };
                let reads = |row: &&Flag| row.pretraining() == Some(path.as_str());
                // The rule that the rate follows and the number of images both have the setting of another flag.
                let own = |row: &&Flag| row.id != "learning_rate_scaling";
                let Some(row) = table().filter(own).find(reads) else { continue };
                // Of these flags 0 means that there is no such setting.
                let least = if ["knn_every", "probe_every", "save_every_n_steps", "keep_last", "keep_every"]
                    .contains(&row.id)
                {
                    1.0
                } else {
                    -1.0
                };
                let numbers = [
                    -1.0,
                    0.0,
                    1e-9,
                    0.5,
                    0.999,
                    1.0,
                    1.001,
                    2.0,
                    2.5,
                    2.6,
                    3.0,
                    4.0,
                    7.0,
                    8.0,
                    64.0,
                    65.0,
                    255.0,
                    257.0,
                    1024.0,
                    1025.0,
                    65536.0,
                    65537.0,
                    1e6,
                    1e6 + 1.0,
                    2e9,
                    2e9 + 1.0,
                ];
                for number in numbers.into_iter().filter(|number| *number >= least) {
                    let flag = format!("{}={number}", flag_name(row.id));
                    assert_eq!(
                        parse(["flatnce", &flag]).is_ok(),
                        range.allows(number),
                        "{flag}: {path} has to be {range}"
                    );
                    compared += 1;
                }
            }
        }
        assert!(compared > 500, "{compared}");
    }
}
