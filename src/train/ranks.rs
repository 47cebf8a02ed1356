//! The processes that train together, as the recipes see them: who writes, which
//! rows of a batch are whose, and how a step's parts come together.
//!
//! Alone, every method is the identity and costs nothing. With W ranks and a
//! global batch of B images, rank r has the images r B/W .. (r + 1) B/W of it and
//! both their views. A gathering of `[2b, ...]` rows, view-major on every rank,
//! comes out as `[2B, ...]`, view-major, in the order of one process.

use crate::checkpoint;
use crate::config::{Job, Pretrain, Start, TransferMode};
use crate::distributed::{Group, Reduction, reduce_gradients};
use crate::loader::Share;
use crate::loss::{Anchors, Contrast, Loss, Pairs};
use crate::model::{Encoder, Pass};
use crate::report::Console;
use crate::state::{DataMarks, Parameter};
use anyhow::{Result, bail};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tch::{Device, Kind, Tensor};

impl From<Option<Rc<Group>>> for Ranks {
    fn from(group: Option<Rc<Group>>) -> Ranks {
        Ranks { group }
    }
}

/// Errors: what so many processes cannot do together.
pub fn check_job(job: &Job, ranks: u32) -> Result<()> {
    match job {
        _ if ranks <= 1 => {}
        Job::Evaluate(run) if run.mode == TransferMode::Finetune => {
            bail!("fine-tuning and supervised training are done by one process, not by {ranks}: start one alone")
        }
        Job::Evaluate(run) if run.resume.is_some() => {
            bail!("an evaluation is continued by one process, not by {ranks}: start one alone")
        }
        Job::Pretrain(run) if run.grad_cache > 1 => bail!(
            "--grad-cache {} works in one process; of {ranks} ranks each has a part of the batch in its memory already; \
             leave it out",
            run.grad_cache
        ),
        Job::Pretrain(run) if !run.batch_size.is_multiple_of(ranks) => {
            let batch = run.batch_size;
            let (below, above) = (batch / ranks * ranks, batch.div_ceil(ranks) * ranks);
            let near = if below > 0 { format!("{below} or {above}") } else { above.to_string() };
            bail!(
                "--batch-size {batch} is the batch of all {ranks} ranks together and cannot be divided by their number; \
                 use {near}"
            );
        }
        _ => {}
    }
    Ok(())
}

/// One rank's view of the group; by default a process that is alone.
#[derive(Clone, Debug, Default)]
pub struct Ranks {
    group: Option<Rc<Group>>,
}

impl Ranks {
    /// A process without others.
    pub fn alone() -> Ranks {
        Ranks::default()
    }

    pub fn group(&self) -> Option<&Group> {
        self.group.as_deref()
    }

    pub fn rank(&self) -> usize {
        self.group().map_or(0, Group::rank)
    }

    pub fn count(&self) -> usize {
        self.group().map_or(1, Group::world_size)
    }

    /// How many of `processes`, which are to work together, share this machine, as far as the launcher says.
    pub fn on_this_machine(&self, processes: u64) -> u64 {
        self.group().and_then(|group| group.placement().local_world_size).map_or(processes, |count| count as u64)
    }

    /// Whether this process writes files: one of them does.
    pub fn writes(&self) -> bool {
        self.rank() == 0
    }

    /// This rank's rows of every training batch.
    pub fn share_of_batch(&self) -> Share {
        match self.count() {
            1 => Share::Whole,
            ranks => Share::Rows { rank: self.rank(), ranks },
        }
    }

    /// This rank's batches of a pass over data in order: every W-th.
    pub fn share_of_batches(&self) -> Share {
        match self.count() {
            1 => Share::Whole,
            ranks => Share::Batches { rank: self.rank(), ranks },
        }
    }

    /// The pass, with BatchNorm's statistics over all ranks where that is asked for.
    pub fn pass(&self, pass: Pass<'static>, sync_bn: bool) -> Pass<'_> {
        match self.group() {
            Some(group) if sync_bn => pass.over(group),
            _ => pass,
        }
    }

    /// The results directory that rank 0 makes with `create`, for all.
    pub fn directory(&self, create: impl FnOnce() -> Result<PathBuf>) -> Result<PathBuf> {
        let Some(group) = self.group() else { return create() };
        let text = group.text("directory", || Ok(create()?.to_string_lossy().into_owned()))?;
        Ok(PathBuf::from(text))
    }

    /// Leaves the name of the results directory for the group that a launcher starts after a failure of this one.
    pub fn remember_directory(&self, directory: &Path) -> Result<()> {
        match self.group() {
            Some(group) if self.writes() => group.remember("directory", &directory.to_string_lossy()),
            _ => Ok(()),
        }
    }

    /// Where the run begins: as asked for; or, where a launcher started the group anew after a failure, at the newest
    /// good checkpoint of what the group before has trained.
    pub fn start(&self, asked: &Start, console: &Console) -> Result<Start> {
        let Some(group) = self.group().filter(|group| group.placement().attempt > 0) else { return Ok(asked.clone()) };
        let newest = group.text("continued", || {
            let Some(directory) = group.recall("directory")? else {
                console
                    .warn("started anew after a failure; the launcher's store knows no results directory to go on in");
                return Ok(String::new());
            };
            match checkpoint::newest_good(Path::new(&directory), &mut |text| console.warn(&text)) {
                Ok((path, _)) => {
                    console.note(&format!("started anew after a failure: goes on from {}", path.display()));
                    Ok(path.to_string_lossy().into_owned())
                }
                Err(error) => {
                    console.warn(&format!("started anew after a failure, from the beginning: {error:#}"));
                    Ok(String::new())
                }
            }
        })?;
        Ok(if newest.is_empty() { asked.clone() } else { Start::Resume(newest.into()) })
    }

    /// One line about the group; `None` alone.
    pub fn describe(&self, pretrain: &Pretrain) -> Option<String> {
        let placement = self.group()?.placement();
        let (ranks, batch) = (self.count(), pretrain.batch_size as usize);
        let statistics =
            if pretrain.sync_bn { "BatchNorm over all ranks" } else { "BatchNorm of each rank's own images" };
        Some(format!(
            "{ranks} ranks ({:?}, store at {}:{}): {} of {batch} images each; {statistics}",
            placement.launcher,
            placement.host,
            placement.port,
            batch / ranks
        ))
    }

    /// Whether any rank says yes.
    pub fn any(&self, own: bool) -> Result<bool> {
        self.group().map_or(Ok(own), |group| group.any(own))
    }

    /// View-major rows `[2b, ...]` of every rank as those of the whole batch, `[2B, ...]`.
    pub fn gather_views(&self, rows: &Tensor) -> Result<Tensor> {
        let Some(group) = self.group() else { return Ok(rows.shallow_clone()) };
        let _guard = tch::no_grad_guard();
        let size = rows.size();
        let (ranks, images) = (self.count() as i64, size[0] / 2);
        let rest = &size[1..];
        let all = group.all_gather(&rows.detach())?; // [W * 2b, ...]
        let apart = all.view([&[ranks, 2, images][..], rest].concat().as_slice());
        Ok(apart.transpose(0, 1).reshape([&[2 * ranks * images][..], rest].concat())) // [2B, ...]
    }

    /// This rank's rows `[2b, ...]` of view-major rows `[2B, ...]` of the whole batch.
    fn own_views(&self, rows: &Tensor) -> Tensor {
        let size = rows.size();
        let images = size[0] / 2 / self.count() as i64;
        let apart = rows.view([&[2, size[0] / 2][..], &size[1..]].concat().as_slice());
        apart.narrow(1, self.rank() as i64 * images, images).reshape([&[2 * images][..], &size[1..]].concat())
    }

    /// The contrast of this rank's unit-length features `[2b, P]` with those of all ranks: the gradient is that of
    /// its own rows, `[2b, P]`, the statistics are those of the whole batch. Beside it the features of all, `[2B, P]`.
    pub fn contrast(&self, loss: &mut dyn Loss, unit: &Tensor, temperature: f64) -> Result<(Contrast, Tensor)> {
        let all = self.gather_views(unit)?.detach(); // [2B, P]
        let images = unit.size()[0] / 2;
        let first = self.rank() as i64 * images;
        let own = Pairs { images: first..first + images, ..Pairs::new(&all, temperature) };
        let Contrast { mut gradient, mut anchors } = loss.contrast(&own);
        if let Some(group) = self.group() {
            // This rank's anchors pull at the features of every rank, so what they say of others' rows has to get there.
            group.all_reduce(&[&gradient], Reduction::Sum)?;
            gradient = self.own_views(&gradient);
            anchors = Anchors::from_rows(&self.gather_views(&anchors.to_rows())?);
        }
        loss.update(&all, &anchors);
        Ok((Contrast { gradient, anchors }, all))
    }

    /// Replaces the gradients of this rank's rows by those of the whole batch.
    ///
    /// Errors: a rank has gone, now or during the forward or backward pass.
    pub fn sum_gradients(&self, parameters: &[Parameter]) -> Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        group.check()?;
        let gradients: Vec<Tensor> = parameters.iter().map(|p| p.tensor.grad()).filter(Tensor::defined).collect();
        reduce_gradients(group, &gradients)
    }

    /// Gives every rank rank 0's weights and buffers.
    pub fn broadcast_state(&self, encoder: &Encoder) -> Result<()> {
        let Some(group) = self.group() else { return Ok(()) };
        let _guard = tch::no_grad_guard();
        let state = encoder.state_dict();
        let floats: Vec<&Tensor> = state.iter().map(|(_, t)| t).filter(|t| t.is_floating_point()).collect();
        let flat = Tensor::cat(&floats.iter().map(|t| t.reshape([-1])).collect::<Vec<_>>(), 0);
        group.broadcast(&flat)?;
        let mut at = 0;
        for tensor in floats {
            let count = tensor.numel() as i64;
            tensor.shallow_clone().copy_(&flat.narrow(0, at, count).view_as(tensor));
            at += count;
        }
        Ok(())
    }

    /// Checks that a count is the same on all ranks.
    ///
    /// Errors: it is not, as when each read another file.
    pub fn check_equal(&self, what: &str, count: u64) -> Result<()> {
        let (least, most) = self.range(count)?;
        if most != least {
            bail!(
                "the ranks read different files: one has {least} {what}, one {most}; all need the same data, and a \
                 results directory on a file system that they share"
            );
        }
        Ok(())
    }

    /// Checks that all ranks train on the same images.
    ///
    /// Errors: they do not; in what the images differ.
    pub fn check_data(&self, marks: &DataMarks) -> Result<()> {
        self.check_equal("images", marks.images)?;
        let DataMarks { names, sizes, pixels, labels, .. } = *marks;
        for (what, mark) in [("names", names), ("sizes", sizes), ("pixels", pixels), ("labels", labels)] {
            let (least, most) = self.range(mark.into())?;
            if most != least {
                bail!("the ranks read different images: their {what} are not the same; all need the same data");
            }
        }
        Ok(())
    }

    /// The least and the largest of all ranks' numbers, which are below 2^53.
    fn range(&self, number: u64) -> Result<(f64, f64)> {
        let Some(group) = self.group() else { return Ok((number as f64, number as f64)) };
        // The largest of both signs: the least is the largest only where all agree.
        let ends = Tensor::from_slice(&[number as f64, -(number as f64)]);
        group.all_reduce(&[&ends], Reduction::Max)?;
        Ok((-ends.double_value(&[1]), ends.double_value(&[0])))
    }

    /// Features `[n, D]` of this rank's batch, n up to `rows`, as those of all batches of one round, in order. In the
    /// last round a rank may have none. `counts` are the n of those that have.
    pub fn gather_round(
        &self,
        own: Option<&Tensor>,
        rows: i64,
        width: i64,
        counts: &[i64],
        device: Device,
    ) -> Result<Vec<Tensor>> {
        let Some(group) = self.group() else { return Ok(own.map(Tensor::shallow_clone).into_iter().collect()) };
        let _guard = tch::no_grad_guard();
        let padded = match own {
            Some(own) if own.size()[0] == rows => own.to_kind(Kind::Float),
            Some(own) => own.to_kind(Kind::Float).constant_pad_nd([0, 0, 0, rows - own.size()[0]]),
            None => Tensor::zeros([rows, width], (Kind::Float, device)),
        };
        let all = group.all_gather(&padded)?; // [W * rows, D]
        Ok(counts.iter().enumerate().map(|(rank, &count)| all.narrow(0, rank as i64 * rows, count)).collect())
    }
}
