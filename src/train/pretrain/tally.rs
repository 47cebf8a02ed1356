//! What an epoch's steps said, kept on the device until somebody asks.

use super::statistics::{
    COLUMNS, LOSS, LOSS_SCALE, NEGATIVE, NESS, OVERFLOW, POSITIVE, TOP1, TOP5, VANISHED, unscaled,
};
use crate::config::Pretrain;
use crate::device::read_scalars;
use crate::monitor::geometry;
use crate::native;
use crate::optim::{self, Scaler, Schedule};
use crate::report::{CloserLook, EpochReport, StepRecord, StepReport};
use crate::state::Parameter;
use anyhow::{Result, anyhow, bail};
use std::cell::{Cell, OnceCell};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// The last two, of loss scaling; checkpoints of older versions lack them.
const SCALING_COLUMNS: i64 = 2;
/// Numbers of a [`CloserLook`].
const CLOSER_COLUMNS: i64 = 4;
/// A saved row: the first seven statistics, the close look, the scaling.
const UNSCALED_COLUMNS: i64 = COLUMNS as i64 - SCALING_COLUMNS;
const OLD_SAVED_COLUMNS: i64 = UNSCALED_COLUMNS + CLOSER_COLUMNS;
const SAVED_COLUMNS: i64 = OLD_SAVED_COLUMNS + SCALING_COLUMNS;

/// Between two readings of a GPU for the progress bar.
const BETWEEN_READS: Duration = Duration::from_secs(1);

/// The features of one step, not recorded for autograd.
pub struct StepFeatures {
    /// Of the trunk, `[2B, D]`; of several ranks, this one's rows.
    pub hidden: Tensor,
    /// Of the projection head, rows of length 1, `[2B, P]`; of all ranks.
    pub unit: Tensor,
}

/// Statistics of the steps of one epoch (of its rest, when a run continues inside it).
pub struct Tally {
    epoch: u64,
    first_step: u64,
    temperature: f64,
    images_per_step: u64,
    ceiling: f64,
    /// One row of statistics per step, `[COLUMNS]` each, on the device.
    rows: Vec<Tensor>,
    /// NESS of the anchors of the last step, `[M]`.
    last_ness: Option<Tensor>,
    lrs: Vec<f64>,
    /// Steps that were looked at closely: place among the rows, then the numbers of a [`CloserLook`], `[4]`.
    closer: Vec<(usize, Tensor)>,
    /// What [`Tally::latest`] gave, and when.
    shown: Cell<Option<(Instant, StepReport)>>,
    /// Every row's numbers, one row after the other, once somebody has asked for them.
    numbers: OnceCell<Vec<f64>>,
    /// Rows that have been looked at for faults.
    checked: usize,
    /// Steps taken over from before a stop: they count for the means, not for the speed.
    earlier: u64,
    device: Device,
    started: Instant,
}

impl Tally {
    /// Begins an epoch whose first step is number `first_step`.
    pub fn start(pretrain: &Pretrain, epoch: u64, first_step: u64, device: Device) -> Tally {
        Tally {
            epoch,
            first_step,
            temperature: pretrain.temperature,
            images_per_step: u64::from(pretrain.batch_size),
            ceiling: f64::from(2 * pretrain.batch_size - 1).ln(),
            rows: Vec::new(),
            last_ness: None,
            lrs: Vec::new(),
            closer: Vec::new(),
            shown: Cell::new(None),
            numbers: OnceCell::new(),
            checked: 0,
            earlier: 0,
            device,
            started: Instant::now(),
        }
    }

    /// Takes over what the epoch's steps before a stop had said: `rows` is what [`Tally::rows`] gave then.
    ///
    /// Errors: rows of another number than the steps that have been trained of the epoch.
    pub fn continue_from(&mut self, rows: &Tensor, schedule: &Schedule) -> Result<()> {
        let [steps, columns] = rows.size()[..] else { bail!("the statistics of its steps are {:?}", rows.size()) };
        if columns != SAVED_COLUMNS && columns != OLD_SAVED_COLUMNS {
            bail!("the statistics of its steps have {columns} columns instead of {SAVED_COLUMNS}");
        }
        self.first_step = self
            .first_step
            .checked_sub(steps as u64)
            .ok_or_else(|| anyhow!("it has statistics of {steps} steps and was saved after {}", self.first_step))?;
        // Everything is asked in main memory and goes to the device once.
        let rows = rows.to_device(Device::Cpu);
        let closer = rows.narrow(1, UNSCALED_COLUMNS, CLOSER_COLUMNS);
        let unseen = Vec::<bool>::try_from(closer.isnan().all_dim(1, false))?;
        let scaling = if columns == SAVED_COLUMNS {
            rows.narrow(1, OLD_SAVED_COLUMNS, SCALING_COLUMNS)
        } else {
            unscaled().expand([steps, SCALING_COLUMNS], false)
        };
        self.rows = Tensor::cat(&[rows.narrow(1, 0, UNSCALED_COLUMNS), scaling], 1).to_device(self.device).unbind(0);
        let closer = closer.to_device(self.device).unbind(0);
        self.closer = closer.into_iter().enumerate().filter(|(place, _)| !unseen[*place]).collect();
        self.numbers.take();
        self.lrs = (0..steps as u64).map(|step| schedule.lr(self.first_step + step)).collect();
        self.checked = self.rows.len();
        self.earlier = steps as u64;
        Ok(())
    }

    /// Statistics of every step so far, `[steps, 7 + 4 + 2]`; those of a close look are NaN where there was none.
    pub fn rows(&self) -> Tensor {
        let _guard = tch::no_grad_guard();
        let rows = Tensor::stack(&self.rows, 0);
        let closer = Tensor::full([self.rows.len() as i64, CLOSER_COLUMNS], f64::NAN, (Kind::Float, self.device));
        for (place, numbers) in &self.closer {
            closer.get(*place as i64).copy_(numbers);
        }
        let [plain, scaling] = [(0, UNSCALED_COLUMNS), (UNSCALED_COLUMNS, SCALING_COLUMNS)]
            .map(|(first, columns)| rows.narrow(1, first, columns));
        Tensor::cat(&[plain, closer, scaling], 1)
    }

    /// Takes a step's statistics without waiting for them: what [`super::statistics::Statistics::row`] gave and the NESS of its anchors
    /// `[M]`, both copied, because a recorded step leaves those of the next in their place.
    pub fn add(&mut self, row: &Tensor, ness: &Tensor, lr: f64) {
        let _guard = tch::no_grad_guard();
        self.numbers.take();
        self.rows.push(row.copy());
        self.last_ness = Some(ness.copy());
        self.lrs.push(lr);
    }

    /// Takes a close look at the step just added: its features, and the gradients it left. Waits for nothing.
    pub fn look_closer(&mut self, features: &StepFeatures, parameters: &[Parameter]) {
        let _guard = tch::no_grad_guard();
        let unit = &features.unit;
        let numbers = [
            optim::gradient_norm(parameters).to_device(self.device),
            geometry::alignment(unit),
            geometry::uniformity(unit),
            geometry::spread(unit),
        ];
        self.closer.push((self.rows.len() - 1, Tensor::stack(&numbers, 0)));
    }

    /// The numbers of the close looks: place among the rows, and what was seen.
    fn closer_looks(&self) -> Vec<(usize, CloserLook)> {
        let rows: Vec<Tensor> = self.closer.iter().map(|(_, row)| row.shallow_clone()).collect();
        let numbers = read_scalars(&rows);
        let look = |n: &[f64]| CloserLook { gradient_norm: n[0], alignment: n[1], uniformity: n[2], feature_std: n[3] };
        self.closer.iter().zip(numbers.chunks_exact(4)).map(|((place, _), n)| (*place, look(n))).collect()
    }

    /// The last step's numbers. On a GPU they are a second old at most: reading waits for it.
    pub fn latest(&self) -> StepReport {
        if let Some((seen, report)) = self.shown.get()
            && self.device != Device::Cpu
            && seen.elapsed() < BETWEEN_READS
        {
            return report;
        }
        let report = self.read_latest();
        self.shown.set(Some((Instant::now(), report)));
        report
    }

    fn read_latest(&self) -> StepReport {
        let row = self
            .rows
            .last()
            .map(|row| read_scalars(std::slice::from_ref(row)))
            .unwrap_or_else(|| vec![f64::NAN; COLUMNS]);
        StepReport {
            loss_infonce: row[LOSS],
            contrastive_top1: row[TOP1],
            ness_mean: row[NESS],
            lr: self.lrs.last().copied().unwrap_or(f64::NAN),
        }
    }

    /// The first step since the last call that shows that training has come to its end, in words: a loss that is not
    /// finite though no scaled gradient overflowed, or a loss scale that has no floor. Waits for the device.
    pub fn fault(&mut self) -> Option<String> {
        let first = std::mem::replace(&mut self.checked, self.rows.len());
        let rows = read_scalars(&self.rows[first..]);
        let (at, row) = rows.chunks_exact(COLUMNS).enumerate().find(|(_, row)| {
            let diverged = !row[LOSS].is_finite() && row[OVERFLOW] == 0.0;
            diverged || row[LOSS_SCALE] < Scaler::FLOOR
        })?;
        let at = format!("at step {} (epoch {})", self.first_step + (first + at) as u64 + 1, self.epoch + 1);
        Some(if row[LOSS_SCALE] < Scaler::FLOOR {
            format!(
                "the loss scale has fallen to {:.1e} {at}: whatever the scale, numbers overflow in fp16",
                row[LOSS_SCALE]
            )
        } else {
            format!("the loss is {} {at}", row[LOSS])
        })
    }

    /// One statistic of every step so far.
    fn column(&self, column: usize) -> Vec<f64> {
        let numbers = self.numbers.get_or_init(|| read_scalars(&self.rows));
        numbers.chunks_exact(COLUMNS).map(|row| row[column]).collect()
    }

    /// Every step's numbers.
    pub fn records(&self) -> Vec<StepRecord> {
        let (loss, top1, ness) = (self.column(LOSS), self.column(TOP1), self.column(NESS));
        let overflow = self.column(OVERFLOW);
        // The gradients of a step that overflowed are not those of a step.
        let mut looks = self.closer_looks();
        looks.retain(|(place, _)| overflow[*place] == 0.0);
        let closer: HashMap<usize, CloserLook> = looks.into_iter().collect();
        (0..loss.len())
            .map(|i| StepRecord {
                epoch: self.epoch,
                step: self.first_step + i as u64 + 1,
                loss_infonce: loss[i],
                contrastive_top1: top1[i],
                ness_mean: ness[i],
                lr: self.lrs[i],
                closer: closer.get(&i).copied(),
            })
            .collect()
    }

    /// The epoch's numbers: means over its steps, quantiles over the anchors of its last step.
    pub fn report(&self, waited: Duration) -> EpochReport {
        let overflowed: Vec<bool> = self.column(OVERFLOW).into_iter().map(|flag| flag > 0.0).collect();
        // A step that overflowed has said nothing where it is not finite.
        let mean = |column: usize| {
            let values = self.column(column);
            let values =
                values.iter().zip(&overflowed).filter(|(value, overflowed)| value.is_finite() || !**overflowed);
            let (sum, count) = values.fold((0.0, 0_u64), |(sum, count), (value, _)| (sum + value, count + 1));
            if count == 0 && !overflowed.is_empty() { f64::NAN } else { sum / count.max(1) as f64 }
        };
        let last_ness = self.last_ness.as_ref().map(|ness| ness.to_device(Device::Cpu));
        let quantile =
            |q: f64| last_ness.as_ref().map(|ness| ness.quantile_scalar(q, 0i64, false, "linear").double_value(&[]));
        let mut closer = self.closer_looks();
        closer.retain(|(place, _)| !overflowed.get(*place).copied().unwrap_or(false));
        let mut extra = serde_json::Map::new();
        if let Some(scale) = self.column(LOSS_SCALE).last().filter(|scale| !scale.is_nan()) {
            extra.insert("overflow_steps".into(), overflowed.iter().filter(|flag| **flag).count().into());
            extra.insert("loss_scale".into(), (*scale).into());
        }
        let seen = |number: fn(&CloserLook) -> f64| {
            (!closer.is_empty()).then(|| closer.iter().map(|(_, look)| number(look)).sum::<f64>() / closer.len() as f64)
        };
        let loss = mean(LOSS);
        let steps = self.lrs.len() as u64;
        let seconds = self.started.elapsed().as_secs_f64();
        EpochReport {
            epoch: self.epoch,
            step: self.first_step + steps,
            loss_infonce: loss,
            contrastive_top1: mean(TOP1),
            contrastive_top5: mean(TOP5),
            ness_mean: Some(mean(NESS)),
            ness_p10: quantile(0.1),
            ness_p50: quantile(0.5),
            ness_p90: quantile(0.9),
            mi_estimate_nats: self.ceiling - loss,
            mi_ceiling_nats: self.ceiling,
            positive_similarity: mean(POSITIVE),
            negative_similarity: mean(NEGATIVE),
            vanished_pull_share: Some(mean(VANISHED)),
            gradient_norm: seen(|look| look.gradient_norm),
            alignment: seen(|look| look.alignment),
            uniformity: seen(|look| look.uniformity),
            feature_std: seen(|look| look.feature_std),
            lr: self.lrs.last().copied().unwrap_or(0.0),
            temperature: self.temperature,
            images_per_second: ((steps - self.earlier) * self.images_per_step) as f64 / seconds.max(1e-9),
            data_wait_share: (waited.as_secs_f64() / seconds.max(1e-9)).min(1.0),
            epoch_seconds: seconds,
            memory_peak_mib: peak_memory_mib(self.device),
            extra,
            ..EpochReport::default()
        }
    }
}

/// The largest memory so far, of the device or, on the CPU, of the process; where somebody tells.
pub fn peak_memory_mib(device: Device) -> Option<f64> {
    if let Device::Cuda(index) = device {
        return Some(native::cuda_memory(index).ok()?.reserved_peak as f64 / 1_048_576.0);
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok()? / 1024.0)
}
