//! A panel as an SVG element for a page: colours are classes (`c0` to `c9`,
//! `axis`, `grid`), so that the page's style decides about light and dark. Every
//! marked point says its numbers when the pointer rests on it.

use super::panel::{self, Canvas, Frame, Point, Rule, Words};
use super::{Panel, Series, Stroke};
use crate::report::short;
use std::fmt::Write;

/// The drawing's own units; the page scales it.
const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 280.0;
const RIGHT: f64 = 12.0;
/// The width of a digit of the labels, in any usual font.
const DIGIT: f64 = 6.6;

/// `panel` without its title and legend, which are text of the page.
pub fn svg(panel: &Panel) -> String {
    let (x, y) = panel.axes((7, 5));
    let widest = y.ticks.iter().map(|&tick| y.label(tick).chars().count()).max().unwrap_or(0);
    let frame = Frame {
        // The words along the axis, then the labels.
        left: (30.0 + DIGIT * widest as f64).max(52.0),
        right: WIDTH - RIGHT,
        top: 10.0,
        bottom: HEIGHT - 44.0,
        tick: 0.0,
        below: 12.0,
        beside: 6.0,
        label_y: HEIGHT - 12.0,
        label_x: 10.0,
    };
    let label = escape(&format!("{}: {} over {}", panel.title, panel.y_label, panel.x_label));
    let open = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{label}\">");
    let mut elements = Elements(open);
    panel::draw(panel, (&x, &y), frame, &mut elements);
    elements.0 + "</svg>"
}

/// A piece of the series's line, for a legend.
pub fn sample(series: &Series) -> String {
    let mut elements = Elements("<svg class=\"sample\" viewBox=\"0 0 34 8\">".to_owned());
    match series.stroke {
        Stroke::Dots => elements.circle((17.0, 4.0), 4, &format!(" class=\"f{}\"", series.paint()), ""),
        _ => elements.curve(&[vec![(1.0, 4.0), (33.0, 4.0)]], series),
    }
    elements.0 + "</svg>"
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

/// The elements so far. Writing to a String cannot fail, so the results below are dropped.
struct Elements(String);

impl Elements {
    fn path(&mut self, stretches: &[&[Point]], attributes: &str, inside: &str) {
        let _ = write!(self.0, "<path {attributes} d=\"");
        for stretch in stretches {
            for (place, (x, y)) in stretch.iter().enumerate() {
                let _ = write!(self.0, "{}{x:.1} {y:.1}", if place > 0 { 'L' } else { 'M' });
            }
        }
        let _ = write!(self.0, "\">{inside}</path>");
    }

    fn circle(&mut self, (x, y): Point, radius: u32, class: &str, inside: &str) {
        let _ = write!(self.0, "<circle{class} cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\">{inside}</circle>");
    }
}

impl Canvas for Elements {
    const MARKED_POINTS: usize = 60;

    fn rule(&mut self, points: &[Point], rule: Rule) {
        self.path(&[points], if rule == Rule::Grid { "class=\"grid\"" } else { "class=\"axis\"" }, "");
    }

    fn words(&mut self, text: &str, (x, y): Point, words: Words) {
        // A line stands on its letters' feet.
        let place = match words {
            Words::TickOfX | Words::LabelOfX => format!("x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\"", y + 4.0),
            Words::TickOfY => format!("x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"end\"", y + 4.0),
            Words::LabelOfY => {
                format!("transform=\"translate({:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\"", x + 4.0)
            }
        };
        let _ = write!(self.0, "<text {place}>{}</text>", escape(text));
    }

    fn curve(&mut self, stretches: &[Vec<Point>], series: &Series) {
        let (colour, title) = (series.paint(), format!("<title>{}</title>", escape(&series.name)));
        let stroke = match series.stroke {
            Stroke::Dots => {
                let _ = write!(self.0, "<g class=\"dots f{colour}\">{title}");
                stretches.iter().flatten().for_each(|&at| self.circle(at, 2, "", ""));
                return self.0.push_str("</g>");
            }
            Stroke::Bold => "bold",
            Stroke::Faint => "faint",
            Stroke::Dashed => "dashed",
        };
        let stretches: Vec<&[Point]> = stretches.iter().map(Vec::as_slice).collect();
        let dashes = series.dashes().map_or(String::new(), |(line, gap)| format!(" stroke-dasharray=\"{line} {gap}\""));
        self.path(&stretches, &format!("class=\"{stroke} c{colour}\"{dashes}"), &title);
    }

    fn mark(&mut self, at: Point, value: Point, series: &Series) {
        let told = format!("<title>{}: {} at {}</title>", escape(&series.name), short(value.1), short(value.0));
        let radius = if series.stroke == Stroke::Bold { 3 } else { 2 };
        let class = format!("class=\"f{}\"", series.paint());
        match series.corners(at, f64::from(radius)) {
            Some(corners) => self.path(&[&corners], &class, &told),
            None => self.circle(at, radius, &format!(" {class}"), &told),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::TOLD_APART;
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
        let path = text
            .split("class=\"bold c3\" stroke-dasharray=\"14 4\" d=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next())
            .unwrap();
        assert_eq!(path.matches('M').count(), 2);
        assert_eq!(path.matches('L').count(), 0);
        let dot = text.split("<circle").find(|part| part.contains("r=\"2\"")).unwrap();
        let middle = (52.0 + WIDTH - RIGHT) / 2.0;
        assert!(dot.contains(&format!("cx=\"{middle:.1}\"")), "{dot}");
        assert!(text.contains("&lt;x&gt;: 1 at 10") && !text.contains("<x>"));
    }

    #[test]
    fn no_two_series_look_alike_and_a_lone_point_is_seen() {
        for stroke in [Stroke::Bold, Stroke::Faint, Stroke::Dashed] {
            let series = |colour| Series { name: String::new(), colour, stroke, points: vec![(1.0, 2.0)] };
            let looks: std::collections::BTreeSet<String> = (0..TOLD_APART).map(|n| sample(&series(n))).collect();
            assert_eq!(looks.len(), TOLD_APART);
            let text = svg(&Panel { series: vec![series(0)], ..Panel::default() });
            assert_eq!(text.matches("<circle class=\"f0\"").count(), 1, "{text}");
            let mark = |colour| {
                let mut elements = Elements(String::new());
                elements.mark((9.0, 9.0), (1.0, 2.0), &series(colour));
                elements.0
            };
            let marks: std::collections::BTreeSet<String> = (0..TOLD_APART).map(mark).collect();
            assert_eq!(marks.len(), TOLD_APART);
        }
    }
}
