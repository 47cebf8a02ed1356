//! Where an axis begins, ends and carries its labels.

/// One axis: its range and its labelled places.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    step: f64,
    decimals: usize,
}

impl Axis {
    /// An axis that holds the finite ones among `values`, with about `count` ticks at 1, 2 or 5 times a power of ten.
    /// `limits` are not passed, whatever the margin; `margin` is a share of the range.
    pub fn new(
        values: impl Iterator<Item = f64>,
        count: usize,
        margin: f64,
        limits: Option<(f64, f64)>,
        whole: bool,
    ) -> Self {
        let (mut low, mut high) =
            values.filter(|v| v.is_finite()).fold((f64::INFINITY, f64::NEG_INFINITY), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            low = limits.map_or(0.0, |(floor, _)| floor);
            high = low + 1.0;
        }
        // A flat curve lies in the middle of something that can be labelled.
        let flat = (high - low) < 1e-9 * high.abs().max(low.abs()).max(1e-300);
        let pad = match (flat, whole || high == 0.0) {
            (true, true) => 1.0,
            (true, false) => 0.1 * high.abs(),
            (false, _) => margin * (high - low),
        };
        (low, high) = (low - pad, high + pad);
        if let Some((floor, ceiling)) = limits {
            (low, high) = (low.max(floor), high.min(ceiling));
        }
        let rough = (high - low) / count as f64;
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|step| *step >= rough * 0.999);
        let step = step.unwrap_or(10.0 * power).max(if whole { 1.0 } else { 0.0 });
        let first = (low / step - 1e-9).ceil() as i64;
        let last = (high / step + 1e-9).floor() as i64;
        let decimals = (-step.log10().floor()).max(0.0) as usize;
        Axis { low, high, ticks: (first..=last).map(|i| i as f64 * step).collect(), step, decimals }
    }

    pub fn label(&self, tick: f64) -> String {
        // Zero may come as -0.
        let tick = tick + 0.0;
        if self.decimals <= 5 && tick.abs() < 1e6 {
            return format!("{tick:.*}", self.decimals);
        }
        // As many digits as tell neighbours apart.
        let digits = (tick.abs().max(self.step).log10().floor() - self.step.log10().floor()).max(0.0);
        format!("{tick:.*e}", digits as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<String> {
        axis.ticks.iter().map(|&tick| axis.label(tick)).collect()
    }

    #[test]
    fn ticks_are_round_numbers_inside_the_axis() {
        let axis = Axis::new([0.0, 100.0].into_iter(), 5, 0.0, None, false);
        assert_eq!(labels(&axis), ["0", "20", "40", "60", "80", "100"]);
        let axis = Axis::new([0.012, 0.019].into_iter(), 5, 0.0, None, false);
        assert_eq!(labels(&axis), ["0.012", "0.014", "0.016", "0.018"]);
        let axis = Axis::new([-0.5, 0.5].into_iter(), 4, 0.05, None, false);
        assert_eq!(labels(&axis), ["-0.5", "0.0", "0.5"]);
    }

    #[test]
    fn labels_of_tiny_and_huge_numbers_differ() {
        let axis = Axis::new([0.9e-5, 1.1e-5].into_iter(), 4, 0.0, None, false);
        assert_eq!(labels(&axis), ["9.0e-6", "9.5e-6", "1.00e-5", "1.05e-5", "1.10e-5"]);
        let axis = Axis::new([0.0, 3e7].into_iter(), 3, 0.0, None, false);
        assert_eq!(labels(&axis), ["0", "1e7", "2e7", "3e7"]);
    }

    #[test]
    fn few_epochs_get_whole_ticks() {
        let axis = Axis::new([0.0, 2.0].into_iter(), 8, 0.0, None, true);
        assert_eq!(labels(&axis), ["0", "1", "2"]);
    }

    #[test]
    fn limits_hold_against_the_margin() {
        let axis = Axis::new([0.01, 0.99].into_iter(), 5, 0.05, Some((0.0, 1.0)), false);
        assert_eq!((axis.low, axis.high), (0.0, 1.0));
    }

    #[test]
    fn flat_empty_and_poisoned_curves_have_an_axis() {
        for values in [vec![1.0, 1.0], vec![0.0], vec![], vec![f64::NAN, f64::INFINITY], vec![1e-30, 1e-30], vec![1e12]]
        {
            for whole in [false, true] {
                let axis = Axis::new(values.iter().copied(), 5, 0.05, None, whole);
                assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(), "{values:?} {axis:?}");
                assert!((1..=12).contains(&axis.ticks.len()), "{values:?} {axis:?}");
            }
        }
    }
}
