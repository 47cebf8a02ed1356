//! The end of a run: the final checkpoint, the encoder alone, the curves, and the
//! commands that come next.

use super::Session;
use crate::config::{BadImages, ExportFormat, Orientation, Pretrain};
use crate::data::{self, Part, counted, source_of, usual_size_px};
use crate::own::ENCODER_WEIGHTS;
use crate::report::{duration, plots, read_json_lines};
use crate::run_dir::{self, CheckpointName, shell_words};
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
        let (judged, out) = (self.has_labelled_test(), show(&self.directory.join("features")));
        let encoder = show(if written { &weights } else { path });
        let images = self.data_flags();
        let mut first = if judged {
            let words = ["flatnce", "--train-mode", "eval", "--transfer-mode", "linear_eval"];
            [&words[..], &["--checkpoint-dir", &directory]].concat()
        } else {
            vec!["flatnce", "embed", "--part", "train", "--checkpoint", &encoder, "--out", &out]
        };
        first.extend(images.iter().map(String::as_str));
        let results = self.results().map(show).filter(|results| judged && results != "results");
        first.extend(results.iter().flat_map(|results| ["--save-dir", results]));
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
        vec![header, shell_words(&first), load, shell_words(&["flatnce", "report", &directory])]
    }

    /// Whether a linear evaluation finds labelled images, and labelled test images, where the run's images are.
    fn has_labelled_test(&self) -> bool {
        let labelled = |part: Part| data::load(&self.pretrain.data, part).is_ok_and(|split| split.labels.is_some());
        labelled(Part::Test) && labelled(Part::Train)
    }

    /// The directory of all results, where the run lies in it as runs do.
    fn results(&self) -> Option<&Path> {
        let Pretrain { data, batch_size, objective, .. } = &self.pretrain;
        let results = self.directory.ancestors().nth(3)?;
        let parent = run_dir::pretrain_parent(results, data.dataset, *batch_size, *objective);
        (self.directory.parent() == Some(&parent)).then_some(results)
    }

    /// The images of the run, as flags.
    fn data_flags(&self) -> Vec<String> {
        let data = &self.pretrain.data;
        let mut words = vec!["--dataset-name".to_owned(), data.dataset.to_string()];
        let mut flag = |name: &str, value: String| words.extend([name.to_owned(), value]);
        let found_without = source_of(data.dataset).homes.is_empty() || data.root == Path::new("datasets");
        if !found_without {
            data.roots().for_each(|root| flag("--data", root.display().to_string()));
        }
        if data.image_size_px != usual_size_px(data.dataset, &data.root) {
            flag("--image-size", data.image_size_px.to_string());
        }
        if data.bad_images != BadImages::default() {
            flag("--bad-images", data.bad_images.to_string());
        }
        if data.orientation != Orientation::default() {
            flag("--orientation", data.orientation.to_string());
        }
        data.labels.into_iter().for_each(|labels| flag("--labels", labels.to_string()));
        words
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
