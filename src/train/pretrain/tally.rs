//! What an epoch's steps said, kept on the device until somebody asks.

use super::numbers::{EpochEnd, How, Over, Row, TABLE};
use crate::checkpoint::EpochRows;
use crate::device::read_scalars;
use crate::native;
use crate::report::Record;
use crate::train::diverged::Fault;
use anyhow::{Result, anyhow, bail};
use std::cell::{OnceCell, RefCell};
use std::time::{Duration, Instant};
use tch::{Device, Kind, Tensor};

/// The columns that a checkpoint without their names has: 13, or without loss scaling the first 11.
const UNNAMED: [&str; 13] = [
    "loss_infonce",
    "contrastive_top1",
    "contrastive_top5",
    "ness_mean",
    "positive_similarity",
    "negative_similarity",
    "vanished_pull_share",
    "gradient_norm",
    "alignment",
    "uniformity",
    "feature_std",
    "overflow_steps",
    "loss_scale",
];

/// Between two readings of a GPU for the progress bar.
const BETWEEN_READS: Duration = Duration::from_secs(1);

/// What is kept of every step; the numbers of a closer look come last.
fn columns() -> impl Iterator<Item = &'static Row> {
    let closer = |row: &&Row| matches!(row.how, How::CloserLook(_));
    TABLE.iter().filter(|row| matches!(row.how, How::EachStep(..))).chain(TABLE.iter().filter(closer))
}

/// The place of a column.
fn place(key: &str) -> usize {
    columns().position(|row| row.number.key == key).unwrap_or_else(|| panic!("{key} is a number of every step"))
}

/// Statistics of the steps of one epoch (of its rest, when a run continues inside it).
pub struct Tally {
    epoch: u64,
    first_step: u64,
    images_per_step: f64,
    /// A row of numbers a step, `[columns]` float32 on the device; NaN where a step was not looked at closely.
    rows: Vec<Tensor>,
    /// What stands in a row for the look that was not taken.
    no_look: Tensor,
    /// NESS of the anchors of the last step, `[M]`.
    last_ness: Option<Tensor>,
    lrs: Vec<f64>,
    /// What [`Tally::latest`] gave, and when.
    shown: RefCell<Option<(Instant, Record)>>,
    /// What [`Tally::numbers`] gives, once somebody has asked for it.
    numbers: OnceCell<Vec<f64>>,
    /// Rows that have been looked at for faults.
    checked: usize,
    /// Rows that [`Tally::new_records`] has given.
    recorded: usize,
    /// Steps taken over from before a stop: they count for the means, not for the speed.
    earlier: usize,
    device: Device,
    started: Instant,
}

impl Tally {
    /// Begins an epoch whose first step is number `first_step`.
    pub fn start(batch_size: u32, epoch: u64, first_step: u64, device: Device) -> Tally {
        let looks = columns().filter(|row| matches!(row.how, How::CloserLook(_))).count() as i64;
        Tally {
            epoch,
            first_step,
            images_per_step: f64::from(batch_size),
            rows: Vec::new(),
            no_look: Tensor::full([looks], f64::NAN, (Kind::Float, device)),
            last_ness: None,
            lrs: Vec::new(),
            shown: RefCell::new(None),
            numbers: OnceCell::new(),
            checked: 0,
            recorded: 0,
            earlier: 0,
            device,
            started: Instant::now(),
        }
    }

    /// Takes over what the epoch's steps before a stop had said: `saved` is what [`Tally::saved`] gave then, by this
    /// version or another, and `lr` the learning rate of a step. Numbers that it lacks are those of the later steps alone.
    ///
    /// Errors: rows of another number than the steps that have been trained of the epoch, or without names.
    pub fn continue_from(&mut self, saved: &EpochRows, lr: impl Fn(u64) -> f64) -> Result<()> {
        let EpochRows { columns: names, rows } = saved;
        let [steps, width] = rows.size()[..] else { bail!("the statistics of its steps are {:?}", rows.size()) };
        let names: Vec<&str> = match names.len() {
            0 if [11, 13].contains(&width) => UNNAMED[..width as usize].to_vec(),
            count if count as i64 == width => names.iter().map(String::as_str).collect(),
            count => bail!("the statistics of its steps have {width} columns and {count} names of columns"),
        };
        self.first_step = self
            .first_step
            .checked_sub(steps as u64)
            .ok_or_else(|| anyhow!("it has statistics of {steps} steps and was saved after {}", self.first_step))?;
        // Everything is asked in main memory and goes to the device once.
        let rows = rows.to_device(Device::Cpu);
        let column = |row: &Row| match names.iter().position(|name| *name == row.number.key) {
            Some(place) => rows.select(1, place as i64),
            None => Tensor::full([steps], f64::NAN, (Kind::Float, Device::Cpu)),
        };
        let rows = Tensor::stack(&columns().map(column).collect::<Vec<_>>(), 1);
        self.rows = rows.to_device(self.device).unbind(0);
        self.numbers.take();
        self.lrs = (0..steps as u64).map(|step| lr(self.first_step + step)).collect();
        (self.checked, self.earlier) = (self.rows.len(), self.rows.len());
        Ok(())
    }

    /// Statistics of every step so far, for a checkpoint.
    pub fn saved(&self) -> EpochRows {
        let columns = columns().map(|row| row.number.key.to_owned()).collect();
        EpochRows { columns, rows: Tensor::stack(&self.rows, 0) }
    }

    /// Takes a step's statistics without waiting for them: what [`Statistics::measure`](super::statistics::Statistics::measure)
    /// gave and the NESS of its anchors `[M]`, both copied, because a recorded step leaves those of the next in their place.
    pub fn add(&mut self, row: &Tensor, ness: &Tensor, lr: f64) {
        let _guard = tch::no_grad_guard();
        self.numbers.take();
        self.rows.push(Tensor::cat(&[row, &self.no_look], 0));
        self.last_ness = Some(ness.copy());
        self.lrs.push(lr);
    }

    /// Takes a close look at the step just added: what [`Statistics::closer_look`](super::statistics::Statistics::closer_look) gave.
    /// Waits for nothing.
    pub fn add_look(&mut self, look: &Tensor) {
        self.numbers.take();
        let (row, count) = (self.rows.last().expect("a step was added"), look.size()[0]);
        row.narrow(0, row.size()[0] - count, count).copy_(look);
    }

    /// The last step's numbers. On a GPU they are a second old at most: reading waits for it.
    pub fn latest(&self) -> Record {
        let mut shown = self.shown.borrow_mut();
        match &*shown {
            Some((seen, record)) if self.device != Device::Cpu && seen.elapsed() < BETWEEN_READS => record.clone(),
            _ => {
                let row = read_scalars(&self.rows[self.rows.len().saturating_sub(1)..]);
                let mut record = Record::new(self.epoch, self.first_step + self.rows.len() as u64);
                columns().zip(row).for_each(|(column, number)| record.set(column.number.key, number));
                record.set("lr", self.lrs.last().copied().unwrap_or(f64::NAN));
                shown.insert((Instant::now(), record)).1.clone()
            }
        }
    }

    /// The first step since the last call that shows that training has come to its end, in words. Waits for the device.
    pub fn fault(&mut self) -> Option<String> {
        let first = std::mem::replace(&mut self.checked, self.rows.len());
        let numbers = read_scalars(&self.rows[first..]);
        let [loss, overflow, scale] = ["loss_infonce", "overflow_steps", "loss_scale"].map(place);
        let mut rows = numbers.chunks_exact(columns().count()).enumerate();
        let (at, fault) =
            rows.find_map(|(at, row)| Some((at, Fault::of(row[loss], row[overflow] > 0.0, row[scale])?)))?;
        let step = self.first_step + (first + at) as u64 + 1;
        Some(fault.told(&format!("at step {step} (epoch {})", self.epoch + 1)))
    }

    /// Every row's numbers, one row after the other; NaN is what a step has not said.
    fn numbers(&self) -> &[f64] {
        self.numbers.get_or_init(|| numbers_of(&self.rows))
    }

    /// One number of every step so far.
    fn column(&self, key: &str) -> impl DoubleEndedIterator<Item = f64> {
        self.numbers().iter().skip(place(key)).step_by(columns().count()).copied()
    }

    /// The numbers of the steps since the last call, for `steps.jsonl`. Waits for the device.
    pub fn new_records(&mut self) -> Vec<Record> {
        let first = std::mem::replace(&mut self.recorded, self.rows.len());
        let record = |(place, row): (usize, &[f64])| {
            let step = first + place;
            let mut record = Record::new(self.epoch, self.first_step + step as u64 + 1);
            for (column, &number) in columns().zip(row).filter(|(column, _)| column.number.step_tag.is_some()) {
                if matches!(column.how, How::CloserLook(_)) {
                    // Behind what every step has.
                    record.numbers.entry("lr").or_insert(self.lrs[step].into());
                    if number.is_nan() {
                        continue;
                    }
                }
                record.set(column.number.key, number);
            }
            record
        };
        numbers_of(&self.rows[first..]).chunks_exact(columns().count()).enumerate().map(record).collect()
    }

    /// The epoch's numbers, but for those that others have ([`How::Given`]). `hidden` is the trunk's features of all ranks
    /// in the last step, `[2B, D]`, where they are finite.
    pub fn report(&self, waited: Duration, temperature: f64, hidden: Option<&Tensor>) -> Record {
        let seconds = self.started.elapsed().as_secs_f64().max(1e-9);
        // NaN is what a step has not said: a look that was not taken, a step that overflowed, a number that an earlier
        // version did not save. Anywhere else it is what the step says, and so does the epoch.
        let mean = |key: &str, looks: bool| {
            let numbers = self.column(key).zip(self.column("overflow_steps")).enumerate();
            let unsaid = |step: usize, overflow: f64| looks || overflow > 0.0 || step < self.earlier;
            let said = numbers.filter(|&(step, (number, overflow))| !number.is_nan() || !unsaid(step, overflow));
            let (sum, count) = said.fold((0.0, 0_u32), |(sum, count), (_, (number, _))| (sum + number, count + 1));
            sum / f64::from(count)
        };
        let last_ness = self.last_ness.as_ref().map(|ness| ness.to_device(Device::Cpu));
        let end = EpochEnd {
            loss: mean("loss_infonce", false),
            hidden,
            ness_quantile: &|share| {
                Some(last_ness.as_ref()?.quantile_scalar(share, 0i64, false, "linear").double_value(&[]))
            },
            images_per_step: self.images_per_step,
            steps: (self.lrs.len() - self.earlier) as f64,
            seconds,
            waited_seconds: waited.as_secs_f64(),
            lr: self.lrs.last().copied().unwrap_or(0.0),
            temperature,
            memory_peak_mib: peak_memory_mib(self.device),
        };
        let last = |key: &str| self.column(key).next_back().filter(|number| !number.is_nan());
        let counted = |key: &str| self.column(key).filter(|&number| number == 1.0).count();
        let mut record = Record::new(self.epoch, self.first_step + self.lrs.len() as u64);
        for Row { number, how } in TABLE {
            let key = number.key;
            let value: Option<serde_json::Value> = match how {
                How::EachStep(_, Over::Mean) => Some(mean(key, false).into()),
                How::EachStep(_, Over::Count) => last("loss_scale").map(|_| counted(key).into()),
                How::EachStep(_, Over::Last) => last(key).map(Into::into),
                How::CloserLook(_) => Some(mean(key, true)).filter(|mean| !mean.is_nan()).map(Into::into),
                How::Epoch(of) => of(&end).map(Into::into),
                How::Given | How::Derived(_) => None,
            };
            value.into_iter().for_each(|value| record.set(key, value));
        }
        record
    }
}

/// The numbers of these rows, one row after the other; NaN is what a step has not said.
fn numbers_of(rows: &[Tensor]) -> Vec<f64> {
    let (mut numbers, overflow) = (read_scalars(rows), place("overflow_steps"));
    let overflowed = numbers.chunks_exact_mut(columns().count()).filter(|row| row[overflow] > 0.0);
    for (column, number) in overflowed.flat_map(|row| columns().zip(row)) {
        // Its gradients are not those of a step, and what is not finite says nothing.
        if matches!(column.how, How::CloserLook(_)) || !number.is_finite() {
            *number = f64::NAN;
        }
    }
    numbers
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

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally::start(4, 0, 2, Device::Cpu)
    }

    fn taken_over(columns: &[&str], rows: &Tensor) -> Result<Tally> {
        let columns = columns.iter().map(|&name| name.to_owned()).collect();
        let mut tally = tally();
        tally.continue_from(&EpochRows { columns, rows: rows.shallow_clone() }, |step| step as f64)?;
        Ok(tally)
    }

    /// Of two steps, in the columns of `UNNAMED`: 50 more than the column's number is the mean.
    fn rows() -> Tensor {
        let number = |step: i64, column: i64| match column {
            11 => 0.0,
            12 => 64.0,
            _ => (100 * step + column) as f32,
        };
        let numbers: Vec<f32> = (0..26).map(|place| number(place / 13, place % 13)).collect();
        Tensor::from_slice(&numbers).view([2, 13])
    }

    fn report(tally: &Tally) -> Record {
        tally.report(Duration::ZERO, 0.1, None)
    }

    #[test]
    fn saved_rows_are_read_by_the_names_of_their_columns() {
        let (rows, mut turned) = (rows(), UNNAMED);
        turned.reverse();
        let cases = [(&UNNAMED[..], rows.shallow_clone()), (&turned[..], rows.flip([1])), (&[], rows.shallow_clone())];
        for (columns, rows) in cases {
            let mut tally = taken_over(columns, &rows).unwrap();
            let found = report(&tally);
            for (place, key) in UNNAMED.iter().enumerate().take(11) {
                assert_eq!(found.get(key), Some(50.0 + place as f64), "{key} of {columns:?}");
            }
            assert_eq!((found.get("loss_scale"), found.get("overflow_steps")), (Some(64.0), Some(0.0)));
            assert_eq!((found.step, found.number("lr"), tally.new_records().len()), (2, 1.0, 2));
            assert!(tally.new_records().is_empty(), "they are given once");
            // What is saved again is the same.
            let EpochRows { columns, rows } = tally.saved();
            let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
            assert_eq!(report(&taken_over(&columns, &rows).unwrap()).get("uniformity"), Some(59.0));
        }
        // Of a version before loss scaling.
        let found = report(&taken_over(&[], &rows.narrow(1, 0, 11)).unwrap());
        assert_eq!((found.get("feature_std"), found.get("loss_scale")), (Some(60.0), None));
        let error = taken_over(&[], &rows.narrow(1, 0, 12)).err().unwrap().to_string();
        assert!(error.contains("12 columns and 0 names"), "{error}");
        assert!(taken_over(&[], &rows.repeat([2, 1])).err().unwrap().to_string().contains("4 steps"));
    }

    #[test]
    fn a_number_that_a_file_lacks_is_that_of_the_later_steps() {
        let mut columns = UNNAMED;
        columns[9] = "of another version";
        let mut tally = taken_over(&columns, &rows()).unwrap();
        assert_eq!(report(&tally).get("uniformity"), None);
        let taken = tally.new_records();
        assert!(taken.iter().all(|step| step.get("uniformity").is_none() && step.get("alignment").is_some()));
        tally.add(
            &Tensor::from_slice(&[1.0f32, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, 0.0, f32::NAN]),
            &Tensor::from_slice(&[0.5f32]),
            0.3,
        );
        tally.add_look(&Tensor::from_slice(&[1.0f32, 2.0, -3.0, 4.0]));
        assert_eq!(report(&tally).get("uniformity"), Some(-3.0));
        assert_eq!(report(&tally).get("loss_infonce"), Some((0.0 + 100.0 + 1.0) / 3.0));
        let new = tally.new_records();
        assert_eq!((new.len(), new[0].step, new[0].number("lr")), (1, 3, 0.3));
        let keys: Vec<String> = new[0].numbers.keys().cloned().collect();
        let each = ["loss_infonce", "contrastive_top1", "ness_mean", "lr"];
        assert_eq!(keys, [&each[..], &["gradient_norm", "alignment", "uniformity", "feature_std"]].concat());
    }

    #[test]
    fn a_step_that_overflowed_counts_with_what_is_finite_and_an_end_is_named() {
        let mut tally = tally();
        let step = |loss: f32, overflow: f32, scale: f32| {
            Tensor::from_slice(&[loss, 0.0, 0.0, 0.5, 0.0, 0.0, 0.0, overflow, scale])
        };
        for row in [step(2.0, 0.0, 64.0), step(f32::INFINITY, 1.0, 32.0), step(4.0, 1.0, 16.0)] {
            tally.add(&row, &Tensor::from_slice(&[0.5f32]), 0.3);
            tally.add_look(&Tensor::from_slice(&[f32::INFINITY, 2.0, 3.0, 4.0]));
        }
        assert_eq!(tally.fault(), None);
        let found = report(&tally);
        assert_eq!((found.number("loss_infonce"), found.number("alignment")), (3.0, 2.0));
        assert_eq!((&found.numbers["overflow_steps"], found.get("loss_scale")), (&2.into(), Some(16.0)));
        tally.add(&step(f32::NAN, 0.0, 16.0), &Tensor::from_slice(&[0.5f32]), 0.3);
        assert_eq!(tally.fault().unwrap(), "the loss is NaN at step 6 (epoch 1)");
        tally.add(&step(f32::NAN, 1.0, 1e-4), &Tensor::from_slice(&[0.5f32]), 0.3);
        assert!(tally.fault().unwrap().starts_with("the loss scale has fallen to 1.0e-4 at step 7"));
    }
}
