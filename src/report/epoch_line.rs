//! The words of the bar and of the epoch's summary line.

use super::format::{cut, duration, short};
use super::numbers::{EpochReport, StepReport};
use super::progress::COLUMNS;
use std::time::Duration;

/// Beside the bar: `loss 4.213 top-1 38.2% NESS 0.41 lr 0.6 1893 img/s ETA 2:13:05`. What `room` columns
/// cannot hold goes, the learning rate first.
pub(super) fn step_text(report: &StepReport, images_per_second: f64, eta: Option<Duration>, room: usize) -> String {
    let parts = [
        format!("loss {:.3}", report.loss_infonce),
        format!("top-1 {:.1}%", report.contrastive_top1),
        format!("NESS {:.2}", report.ness_mean),
        format!("lr {}", short(report.lr)),
        format!("{} img/s", short(images_per_second)),
        format!("ETA {}", eta.map_or("-".into(), duration)),
    ];
    // What each width leaves out, by position.
    let leave_out: [&[usize]; 5] = [&[], &[3], &[3, 4], &[2, 3, 4], &[1, 2, 3, 4]];
    let texts = leave_out.map(|left_out| {
        let kept = parts.iter().enumerate().filter(|(place, _)| !left_out.contains(place));
        kept.map(|(_, part)| part.as_str()).collect::<Vec<_>>().join(" ")
    });
    let fits = texts.iter().find(|text| text.chars().count() <= room);
    fits.unwrap_or(&parts[0]).clone()
}

/// `epoch   3/100  loss 4.213  top-1 38.2%  NESS 0.412  lr 0.6  1893 img/s  kNN 76.1%  ETA 2:13:05`
pub(super) fn epoch_line(report: &EpochReport, epochs: u64, eta: Option<Duration>) -> String {
    let width = epochs.to_string().len();
    let mut parts = vec![
        format!("epoch {:>width$}/{epochs}", report.epoch + 1),
        format!("loss {:.3}", report.loss_infonce),
        format!("top-1 {:.1}%", report.contrastive_top1),
    ];
    parts.extend(report.ness_mean.map(|ness| format!("NESS {ness:.3}")));
    parts.push(format!("lr {}", short(report.lr)));
    parts.push(format!("{} img/s", short(report.images_per_second)));
    let overflows = report.extra.get("overflow_steps").and_then(|count| count.as_u64()).filter(|&count| count > 0);
    parts.extend(overflows.map(|count| format!("overflows {count}")));
    parts.extend(report.knn_top1.map(|top1| format!("kNN {top1:.1}%")));
    parts.extend(eta.filter(|_| report.epoch + 1 < epochs).map(|eta| format!("ETA {}", duration(eta))));
    let wide = parts.join("  ");
    if wide.chars().count() <= COLUMNS { wide } else { cut(&parts.join(" "), COLUMNS) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> EpochReport {
        EpochReport {
            epoch: 998,
            loss_infonce: 14.2134,
            contrastive_top1: 100.0,
            ness_mean: Some(0.41234),
            lr: 3.17e-5,
            images_per_second: 123_456.0,
            knn_top1: Some(76.14),
            ..EpochReport::default()
        }
    }

    #[test]
    fn the_longest_likely_epoch_line_fits() {
        let line = epoch_line(&report(), 1000, Some(Duration::from_secs(1_000_000)));
        assert_eq!(
            line,
            "epoch  999/1000 loss 14.213 top-1 100.0% NESS 0.412 lr 3.2e-5 123456 img/s kNN 76.1% ETA 11 d 13 h"
        );
        assert!(line.chars().count() <= COLUMNS);
    }

    #[test]
    fn what_is_absent_is_left_out() {
        let report = EpochReport { ness_mean: None, knn_top1: None, loss_infonce: f64::NAN, ..report() };
        let line = epoch_line(&report, 999, None);
        assert_eq!(line, "epoch 999/999  loss NaN  top-1 100.0%  lr 3.2e-5  123456 img/s");
    }

    #[test]
    fn the_words_beside_the_bar_fit_its_terminal() {
        let report = StepReport { loss_infonce: 4.2134, contrastive_top1: 38.2, ness_mean: 0.412, lr: 0.6 };
        let text = |room| step_text(&report, 1893.2, Some(Duration::from_secs(7_985)), room);
        let whole = "loss 4.213 top-1 38.2% NESS 0.41 lr 0.6 1893 img/s ETA 2:13:05";
        assert_eq!(text(whole.len()), whole);
        assert_eq!(text(whole.len() - 1), "loss 4.213 top-1 38.2% NESS 0.41 1893 img/s ETA 2:13:05");
        assert_eq!(text(50), "loss 4.213 top-1 38.2% NESS 0.41 ETA 2:13:05");
        assert_eq!(text(25), "loss 4.213 ETA 2:13:05");
        assert_eq!(text(5), "loss 4.213");
    }
}
