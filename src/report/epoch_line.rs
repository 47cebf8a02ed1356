//! The words of the bar and of the epoch's summary line.

use super::format::{cut, duration, short};
use super::numbers::{Number, Record};
use super::progress::COLUMNS;
use std::time::Duration;

/// Beside the bar: `loss 4.213 top-1 38.2% NESS 0.412 lr 0.6 1893 img/s ETA 2:13:05`. What `room` columns cannot hold
/// goes, from the last but one to the second.
pub(super) fn step_text(
    record: &Record,
    numbers: &[Number],
    images_per_second: f64,
    eta: Option<Duration>,
    room: usize,
) -> String {
    let of_step = numbers.iter().filter(|number| number.step_tag.is_some());
    let mut parts: Vec<String> = of_step.filter_map(|number| (number.words)(number.of(record)?)).collect();
    parts.push(format!("{} img/s", short(images_per_second)));
    parts.push(format!("ETA {}", eta.map_or("-".into(), duration)));
    // The speed tells more than the learning rate before it.
    let mut next = parts.len().saturating_sub(3).max(1);
    while parts.len() > 1 && parts.join(" ").chars().count() > room {
        parts.remove(next);
        next = parts.len().saturating_sub(2).max(1);
    }
    parts.join(" ")
}

/// `epoch   3/100  loss 4.213  top-1 38.2%  NESS 0.412  lr 0.6  1893 img/s  kNN 76.1%  ETA 2:13:05`
pub(super) fn epoch_line(record: &Record, numbers: &[Number], epochs: u64, eta: Option<Duration>) -> String {
    let width = epochs.to_string().len();
    let mut parts = vec![format!("epoch {:>width$}/{epochs}", record.epoch + 1)];
    parts.extend(numbers.iter().filter_map(|number| (number.words)(number.of(record)?)));
    parts.extend(eta.filter(|_| record.epoch + 1 < epochs).map(|eta| format!("ETA {}", duration(eta))));
    let wide = parts.join("  ");
    if wide.chars().count() <= COLUMNS { wide } else { cut(&parts.join(" "), COLUMNS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Words = fn(f64) -> Option<String>;

    fn numbers() -> Vec<Number> {
        let number = |(key, of_step, words): (&'static str, bool, Words)| Number {
            key,
            meaning: "",
            tag: key,
            step_tag: of_step.then_some(key),
            words,
            chart: None,
            derived: None,
        };
        let all: [(&str, bool, Words); 6] = [
            ("loss", true, |loss| Some(format!("loss {loss:.3}"))),
            ("top1", true, |top1| Some(format!("top-1 {top1:.1}%"))),
            ("ness", true, |ness| Some(format!("NESS {ness:.3}"))),
            ("lr", true, |lr| Some(format!("lr {}", short(lr)))),
            ("speed", false, |speed| Some(format!("{} img/s", short(speed)))),
            ("knn", false, |top1| Some(format!("kNN {top1:.1}%"))),
        ];
        all.into_iter().map(number).collect()
    }

    fn record() -> Record {
        let record = Record::new(998, 0).with("loss", 14.2134).with("top1", 100.0).with("lr", 3.17e-5);
        record.with("speed", 123_456.0).with("no number of the table", 1.0)
    }

    #[test]
    fn the_longest_likely_epoch_line_fits() {
        let record = record().with("ness", 0.41234).with("knn", 76.14);
        let line = epoch_line(&record, &numbers(), 1000, Some(Duration::from_secs(1_000_000)));
        assert_eq!(
            line,
            "epoch  999/1000 loss 14.213 top-1 100.0% NESS 0.412 lr 3.2e-5 123456 img/s kNN 76.1% ETA 11 d 13 h"
        );
        assert!(line.chars().count() <= COLUMNS);
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let line = epoch_line(&record().with("loss", f64::NAN), &numbers(), 999, None);
        assert_eq!(line, "epoch 999/999  loss NaN  top-1 100.0%  lr 3.2e-5  123456 img/s");
    }

    #[test]
    fn the_words_beside_the_bar_fit_its_terminal() {
        let record = Record::new(0, 1).with("loss", 4.2134).with("top1", 38.2).with("ness", 0.412).with("lr", 0.6);
        let text = |room| step_text(&record, &numbers(), 1893.2, Some(Duration::from_secs(7_985)), room);
        let whole = "loss 4.213 top-1 38.2% NESS 0.412 lr 0.6 1893 img/s ETA 2:13:05";
        assert_eq!(text(whole.len()), whole);
        assert_eq!(text(whole.len() - 1), "loss 4.213 top-1 38.2% NESS 0.412 1893 img/s ETA 2:13:05");
        assert_eq!(text(50), "loss 4.213 top-1 38.2% NESS 0.412 ETA 2:13:05");
        assert_eq!(text(25), "loss 4.213 ETA 2:13:05");
        assert_eq!(text(5), "loss 4.213");
    }
}
