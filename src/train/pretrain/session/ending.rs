//! The end of a run: the final checkpoint, the encoder alone, the curves, and the
//! commands that come next.

use super::Session;
use crate::config::{ExportFormat, Pretrain};
use crate::data::{self, Part, counted};
use crate::own::ENCODER_WEIGHTS;
use crate::report::{duration, plots, read_json_lines};
use crate::run_dir::{CheckpointName, shell_words};
use crate::train::encoder_file;
use crate::train::encoder_source::Source;
use crate::train::pretrain::curves;
use anyhow::Result;
use std::path::Path;

impl Session {
    /// Saves the final checkpoint, writes the encoder, draws the curves and closes the log.
    pub fn finish(mut self) -> Result<()> {
        let name = CheckpointName::finished(self.pretrain.epochs);
        self.begin_save(name, None)?;
        self.wait_for_save()?;
        let path = self.directory.join(name.to_string());
        let encoder = self.writes.then(|| self.write_encoder(&path));
        if let Some(Err(error)) = &encoder {
            self.log.warn(&without_encoder(&self.directory, &path, error));
        }
        if self.writes {
            self.draw_curves();
        }
        let took = self.started.elapsed();
        let (saves, paused) = (self.saver.saves, self.saver.paused.as_secs_f64());
        let share = 100.0 * paused / took.as_secs_f64().max(1e-9);
        let saves = counted(saves as usize, "checkpoint");
        self.log.detail(&format!("{saves}: training stood still for {paused:.2} s ({share:.2}%)"));
        if let Some(group) = self.ranks.group() {
            let traffic = group.traffic();
            let trained = (self.at.step - self.first_step).max(1) as f64;
            self.log.detail(&format!(
                "collectives: {:.1} a step with {:.2} MiB of this rank's, waited for {:.1}% of the time",
                traffic.calls as f64 / trained,
                traffic.bytes as f64 / trained / 1048576.0,
                100.0 * traffic.seconds / took.as_secs_f64().max(1e-9)
            ));
        }
        let next = encoder.map(|encoder| self.next_commands(&path, encoder.is_ok())).unwrap_or_default();
        self.log.finish(&format!("pre-training finished in {}: {}", duration(took), path.display()), &next);
        Ok(())
    }

    /// The encoder that the run has trained, saved in the checkpoint at `path`, as files of its own beside it.
    ///
    /// Errors: no space, no permission.
    pub(super) fn write_encoder(&self, path: &Path) -> Result<()> {
        let source = Source::of_run(self.pretrain.clone(), self.encoder.state_dict(), self.pretrain.epochs)?;
        encoder_file::write_beside_checkpoints(&self.directory, &source.saved_as(path), self.data.images)
    }

    /// `curves.png` from the run's own files; a run without a picture is still a run.
    pub(super) fn draw_curves(&mut self) {
        let draw = || -> Result<()> {
            let epochs = read_json_lines(&self.directory.join("metrics.jsonl"))?;
            let steps = read_json_lines(&self.directory.join("steps.jsonl"))?;
            let title = format!("{} on {}", self.pretrain.objective.directory_suffix(), self.pretrain.data.dataset);
            plots::curves(&self.directory.join("curves.png"), &curves::training_figure(&title, &epochs, &steps))
        };
        if let Err(error) = draw() {
            self.log.warn(&format!("curves.png was not drawn: {error:#}"));
        }
    }

    /// What may be done with the encoder saved at `path`, and in a file of its own if that was `written`: a line that says so,
    /// then three to be pasted into a shell.
    fn next_commands(&self, path: &Path, written: bool) -> Vec<String> {
        let show = |path: &Path| path.display().to_string();
        let (directory, weights) = (show(&self.directory), self.directory.join(ENCODER_WEIGHTS));
        let (judged, out) = (self.has_labels(), show(&self.directory.join("features")));
        let first: &[&str] = if judged {
            &["flatnce", "--train-mode", "eval", "--transfer-mode", "linear_eval", "--checkpoint-dir", &directory]
        } else {
            &["flatnce", "embed", "--checkpoint-dir", &directory, "--out", &out]
        };
        let load = if written {
            let Pretrain { model, data, .. } = &self.pretrain;
            let size = Some(data.image_size_px);
            let lines = encoder_file::recipe(&weights, ExportFormat::Safetensors, model, size);
            shell_words(&["python3", "-i", "-c", &lines.join("; ")])
        } else {
            export_command(path, &weights)
        };
        let what = if judged { "evaluate the encoder" } else { "write the features of the images" };
        let header = format!("to be pasted: {what}, load the encoder in Python, show the results");
        vec![header, shell_words(first), load, shell_words(&["flatnce", "report", &directory])]
    }

    /// Whether a linear evaluation finds labelled images where the run's images are.
    fn has_labels(&self) -> bool {
        data::load(&self.pretrain.data, Part::Train).is_ok_and(|split| split.labels.is_some())
    }
}

/// Why the encoder is not there, and what makes up for it.
pub fn without_encoder(directory: &Path, checkpoint: &Path, error: &anyhow::Error) -> String {
    format!(
        "{ENCODER_WEIGHTS} was not written: {error:#}; the run is complete and its last checkpoint is saved, and this writes \
         the encoder: {}",
        export_command(checkpoint, &directory.join(ENCODER_WEIGHTS))
    )
}

/// Writes the encoder of a checkpoint into a file of its own.
fn export_command(checkpoint: &Path, out: &Path) -> String {
    let [checkpoint, out] = [checkpoint, out].map(|path| path.display().to_string());
    shell_words(&["flatnce", "export", "--force", "--checkpoint", &checkpoint, "--out", &out])
}
