//! One panel for any canvas: where axes, ticks, curves and points go.

use super::ticks::Axis;
use super::{Panel, Series, Stroke};

/// In the units of a canvas, y downwards; of a series, as its numbers are.
pub(super) type Point = (f64, f64);

/// What a panel is drawn on.
pub(super) trait Canvas {
    /// Up to so many points a bold curve shows each of them.
    const MARKED_POINTS: usize;

    /// Straight lines from point to point.
    fn rule(&mut self, points: &[Point], rule: Rule);

    /// Text; `at` is half its height, and its middle or, left of the axes, its end.
    fn words(&mut self, text: &str, at: Point, words: Words);

    /// A series without its marks: every stretch is a line, or of [`Stroke::Dots`] a set of points.
    fn curve(&mut self, stretches: &[Vec<Point>], series: &Series);

    /// The mark of one point of a series, whose numbers are `value`.
    fn mark(&mut self, at: Point, value: Point, series: &Series);
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    Grid,
    Axis,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Words {
    TickOfX,
    TickOfY,
    LabelOfX,
    /// Turned upwards.
    LabelOfY,
}

/// Where a panel's axes and words stand on a canvas.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame {
    pub left: f64,
    pub right: f64,
    pub top: f64,
    pub bottom: f64,
    /// Length of the marks at ticks.
    pub tick: f64,
    /// From the axes to the words of a tick.
    pub below: f64,
    pub beside: f64,
    /// Of the axes' labels.
    pub label_y: f64,
    pub label_x: f64,
}

/// Draws `panel` with the axes `x` and `y` into `frame`, without its title and legend.
pub(super) fn draw(panel: &Panel, (x, y): (&Axis, &Axis), frame: Frame, canvas: &mut impl Canvas) {
    let Frame { left, right, top, bottom, tick, below, beside, .. } = frame;
    let at_x = |value: f64| left + (value - x.low) / (x.high - x.low) * (right - left);
    let at_y = |value: f64| bottom - (value - y.low) / (y.high - y.low) * (bottom - top);
    for &value in &y.ticks {
        let at = at_y(value);
        canvas.rule(&[(left, at), (right, at)], Rule::Grid);
        canvas.words(&y.label(value), (left - beside, at), Words::TickOfY);
    }
    for &value in &x.ticks {
        let at = at_x(value);
        canvas.rule(&[(at, top), (at, bottom)], Rule::Grid);
        canvas.words(&x.label(value), (at, bottom + below), Words::TickOfX);
    }
    // What is to be read comes over what it is compared with.
    let mut order: Vec<&Series> = panel.series.iter().collect();
    order.sort_by_key(|series| [Stroke::Faint, Stroke::Dashed].iter().position(|s| *s == series.stroke).unwrap_or(2));
    for series in order {
        draw_series(series, |(x, y)| (at_x(x), at_y(y)), canvas);
    }
    // The axes come last, over the curves.
    canvas.rule(&[(left, top), (left, bottom), (right, bottom)], Rule::Axis);
    if tick > 0.0 {
        y.ticks.iter().for_each(|&y| canvas.rule(&[(left - tick, at_y(y)), (left, at_y(y))], Rule::Axis));
        x.ticks.iter().for_each(|&x| canvas.rule(&[(at_x(x), bottom), (at_x(x), bottom + tick)], Rule::Axis));
    }
    canvas.words(&panel.x_label, ((left + right) / 2.0, frame.label_y), Words::LabelOfX);
    canvas.words(&panel.y_label, (frame.label_x, (top + bottom) / 2.0), Words::LabelOfY);
}

fn draw_series<C: Canvas>(series: &Series, place: impl Fn(Point) -> Point, canvas: &mut C) {
    let stretches: Vec<Vec<Point>> = unbroken(&series.points).map(thinned).collect();
    let placed: Vec<Vec<Point>> =
        stretches.iter().map(|stretch| stretch.iter().map(|&point| place(point)).collect()).collect();
    canvas.curve(&placed, series);
    let every = series.stroke == Stroke::Bold && series.points.len() <= C::MARKED_POINTS;
    let can_be_alone = series.stroke != Stroke::Dots;
    for stretch in stretches {
        // A lone point makes no line.
        if every || can_be_alone && stretch.len() == 1 {
            stretch.into_iter().for_each(|point| canvas.mark(place(point), point, series));
        }
    }
}

/// The stretches of finite points.
fn unbroken(points: &[Point]) -> impl Iterator<Item = &[Point]> {
    points.split(|point| !(point.0.is_finite() && point.1.is_finite())).filter(|part| !part.is_empty())
}

/// At most 2,000 points that keep the lowest and the highest of every stretch: the line shows the spread.
fn thinned(points: &[Point]) -> Vec<Point> {
    const BUCKETS: usize = 1000;
    if points.len() <= 2 * BUCKETS {
        return points.to_vec();
    }
    let bucket = points.len().div_ceil(BUCKETS);
    let by_y = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
    let extremes = |part: &[Point]| {
        let mut two: Vec<Point> =
            part.iter().min_by(by_y).into_iter().chain(part.iter().max_by(by_y)).copied().collect();
        two.sort_by(|a, b| a.0.total_cmp(&b.0));
        two
    };
    points.chunks(bucket).flat_map(extremes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_split_a_line() {
        let points = [(0.0, 1.0), (1.0, f64::NAN), (2.0, 3.0), (3.0, 4.0), (f64::INFINITY, 0.0)];
        let parts: Vec<&[(f64, f64)]> = unbroken(&points).collect();
        assert_eq!(parts, [&points[0..1], &points[2..4]]);
    }

    #[test]
    fn thinning_keeps_the_spikes_and_the_order() {
        let mut points: Vec<(f64, f64)> = (0..50_000).map(|i| (f64::from(i), f64::from(i % 7))).collect();
        points[12_345].1 = 99.0;
        points[40_000].1 = -99.0;
        let thin = thinned(&points);
        assert!(thin.len() <= 2000);
        assert!(thin.contains(&(12_345.0, 99.0)) && thin.contains(&(40_000.0, -99.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 <= b.0));
    }
}
