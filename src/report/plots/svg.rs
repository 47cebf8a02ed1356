//! A panel as an SVG element for a page: colours are classes (`c0` to `c9`,
//! `axis`, `grid`), so that the page's style decides about light and dark. Every
//! marked point says its numbers when the pointer rests on it.

use super::ticks::Axis;
use super::{PALETTE_COLOURS, Panel, Series, Stroke};
use std::fmt::Write;

/// The drawing's own units; the page scales it.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 280.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 44.0;
/// The width of a digit of the labels, in any usual font.
const DIGIT: f64 = 6.6;
/// Up to this many points a curve shows each of them.
const MARKED_POINTS: usize = 60;

/// `panel` without its title and legend, which are text of the page.
pub fn svg(panel: &Panel) -> String {
    let (x, y) = panel.axes((7, 5));
    let widest = y.ticks.iter().map(|&tick| y.label(tick).chars().count()).max().unwrap_or(0);
    // The words along the axis, then the labels.
    let left = (30.0 + DIGIT * widest as f64).max(52.0);
    let place = Place { x, y, left };
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        escape(&format!("{}: {} over {}", panel.title, panel.y_label, panel.x_label))
    );
    draw_axes(&mut out, &place, panel);
    // What is to be read comes over what it is compared with.
    let rank = |stroke: Stroke| match stroke {
        Stroke::Faint => 0,
        Stroke::Dashed => 1,
        Stroke::Dots | Stroke::Bold => 2,
    };
    let mut order: Vec<&Series> = panel.series.iter().collect();
    order.sort_by_key(|series| rank(series.stroke));
    order.into_iter().for_each(|series| draw_series(&mut out, &place, series));
    out.push_str("</svg>");
    out
}

/// Text with the characters that mean something to HTML and XML replaced.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

/// From values to the drawing's units.
struct Place {
    x: Axis,
    y: Axis,
    /// Where the axes begin.
    left: f64,
}

impl Place {
    fn x(&self, value: f64) -> f64 {
        self.left + (value - self.x.low) / (self.x.high - self.x.low) * (WIDTH - self.left - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - (value - self.y.low) / (self.y.high - self.y.low) * (HEIGHT - TOP - BOTTOM)
    }
}

// Writing to a String cannot fail, so the results below are dropped.
fn draw_axes(out: &mut String, place: &Place, panel: &Panel) {
    let (bottom, left, right) = (HEIGHT - BOTTOM, place.left, WIDTH - RIGHT);
    for &tick in &place.y.ticks {
        let (y, label) = (place.y(tick), escape(&place.y.label(tick)));
        let _ = write!(out, "<path class=\"grid\" d=\"M{left} {y:.1}H{right}\"/>");
        let _ = write!(out, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", left - 6.0, y + 4.0);
    }
    for &tick in &place.x.ticks {
        let (x, label) = (place.x(tick), escape(&place.x.label(tick)));
        let _ = write!(out, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>");
        let _ = write!(out, "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 16.0);
    }
    let _ = write!(out, "<path class=\"axis\" d=\"M{left} {TOP}V{bottom}H{right}\"/>");
    let middle = (left + right) / 2.0;
    let x_label = escape(&panel.x_label);
    let _ = write!(out, "<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{x_label}</text>", HEIGHT - 8.0);
    let (middle, y_label) = ((TOP + bottom) / 2.0, escape(&panel.y_label));
    let _ =
        write!(out, "<text transform=\"translate(14 {middle}) rotate(-90)\" text-anchor=\"middle\">{y_label}</text>");
}

fn draw_series(out: &mut String, place: &Place, series: &Series) {
    let colour = series.colour % PALETTE_COLOURS;
    let finite = |point: &&(f64, f64)| point.0.is_finite() && point.1.is_finite();
    let name = escape(&series.name);
    if series.stroke == Stroke::Dots {
        let _ = write!(out, "<g class=\"dots f{colour}\"><title>{name}</title>");
        for point in series.points.iter().filter(finite) {
            let _ = write!(out, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>", place.x(point.0), place.y(point.1));
        }
        out.push_str("</g>");
        return;
    }
    let stroke = match series.stroke {
        Stroke::Bold | Stroke::Dots => "bold",
        Stroke::Faint => "faint",
        Stroke::Dashed => "dashed",
    };
    let mut path = String::new();
    let mut pen_down = false;
    for point in &series.points {
        let there = finite(&point);
        if there {
            let _ = write!(path, "{}{:.1} {:.1}", if pen_down { 'L' } else { 'M' }, place.x(point.0), place.y(point.1));
        }
        pen_down = there;
    }
    lone_points(out, place, series, colour);
    let _ = write!(out, "<path class=\"{stroke} c{colour}\" d=\"{path}\"><title>{name}</title></path>");
    if series.stroke == Stroke::Bold && series.points.len() <= MARKED_POINTS {
        for point in series.points.iter().filter(finite) {
            let (x, y) = (place.x(point.0), place.y(point.1));
            let value = crate::report::short(point.1);
            let _ = write!(
                out,
                "<circle class=\"f{colour}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"><title>{name}: {value} at {}</title></circle>",
                crate::report::short(point.0)
            );
        }
    }
}

/// A curve of one point is no line: a dot stands for it. Bold curves have their own.
fn lone_points(out: &mut String, place: &Place, series: &Series, colour: usize) {
    let stretches = series.points.split(|point| !(point.0.is_finite() && point.1.is_finite()));
    for stretch in stretches.filter(|_| series.stroke == Stroke::Faint) {
        if let [(x, y)] = stretch {
            let _ = write!(
                out,
                "<circle class=\"f{colour}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"2\"/>",
                place.x(*x),
                place.y(*y)
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_end_its_element() {
        assert_eq!(escape("a<b> & \"c\" 'd'\n"), "a&lt;b&gt; &amp; &quot;c&quot; &#39;d&#39; ");
    }

    #[test]
    fn points_lie_where_their_values_say() {
        let series = |stroke, points| Series { name: "<x>".into(), colour: 13, stroke, points };
        let panel = Panel {
            x_range: Some((0.0, 10.0)),
            y_limits: Some((0.0, 1.0)),
            series: vec![
                series(Stroke::Bold, vec![(0.0, 0.0), (5.0, f64::NAN), (10.0, 1.0)]),
                series(Stroke::Dots, vec![(5.0, 0.5)]),
            ],
            ..Panel::default()
        };
        let text = svg(&panel);
        // A gap where a number is missing: two moves, no line.
        let path = text.split("class=\"bold c3\" d=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        assert_eq!(path.matches('M').count(), 2);
        assert_eq!(path.matches('L').count(), 0);
        let dot = text.split("<circle").find(|part| part.contains("r=\"2\"")).unwrap();
        let middle = (52.0 + WIDTH - RIGHT) / 2.0;
        assert!(dot.contains(&format!("cx=\"{middle:.1}\"")), "{dot}");
        assert!(text.contains("&lt;x&gt;: 1 at 10") && !text.contains("<x>"));
    }
}
