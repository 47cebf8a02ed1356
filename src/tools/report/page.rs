//! The page: one HTML file with everything inside, for light and dark screens.
//! No script, nothing fetched.

use super::charts::Chart;
use super::differences::Settings;
use super::gather::Found;
use super::rows::{self, Row};
use crate::data::counted;
use crate::report::plots::{PALETTE_COLOURS, Panel, Series, Stroke, escape, sample, svg};
use std::fmt::Write;

/// A picture inside the page.
pub struct Picture {
    pub caption: String,
    /// Of a PNG file on white paper, and of the same on dark.
    pub png: Vec<u8>,
    pub dark: Vec<u8>,
}

/// What the page shows.
pub struct Page<'a> {
    pub found: &'a Found,
    /// The runs' names.
    pub names: &'a [String],
    pub rows: &'a [Row],
    pub charts: &'a [Chart],
    pub accuracy: Option<&'a Panel>,
    pub settings: &'a Settings,
    /// Maps of features, with a caption each.
    pub maps: &'a [(Panel, String)],
    pub pictures: &'a [Picture],
}

/// Colours of the series on light and on dark paper; see `plots::draw`.
const COLOURS: [(&str, &str); PALETTE_COLOURS] = [
    ("#0072b2", "#4fb0ea"),
    ("#d55e00", "#ff8d3f"),
    ("#009e73", "#2ecfa0"),
    ("#cc79a7", "#e9a3c9"),
    ("#e69f00", "#f5bd3d"),
    ("#56b4e9", "#a5d8f6"),
    ("#3c3c3c", "#d0d0d0"),
    ("#882255", "#d76a9f"),
    ("#999933", "#cccc66"),
    ("#332288", "#9a8cf0"),
];

const STYLE: &str = "
:root { color-scheme: light dark; --paper: #fff; --ink: #222; --soft: #666; --line: #ddd; --box: #f6f6f6; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181b; --ink: #e8e8e8; --soft: #a8a8a8; --line: #3a3d42; --box: #202327; }
}
body { margin: 0 auto; padding: 1.5rem; max-width: 1500px; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin: 2rem 0 .6rem; } h3 { font-size: 1rem; margin: 0 0 .2rem; }
p { margin: .2rem 0 .6rem; } .soft, figcaption { color: var(--soft); font-size: .86rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .8rem; }
th, td { padding: .25rem .4rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--line); white-space: normal; vertical-align: bottom; }
td:last-child { white-space: normal; min-width: 9rem; overflow-wrap: anywhere; }
.legend { position: sticky; top: 0; background: var(--paper); padding: .5rem 0; border-bottom: 1px solid var(--line);
  display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; z-index: 1; }
.key { display: inline-flex; align-items: center; gap: .4rem; }
.grid-of { display: grid; grid-template-columns: repeat(auto-fill, minmax(390px, 1fr)); gap: 1rem; }
figure { margin: 0; padding: .8rem; background: var(--box); border-radius: 8px; }
figure img { max-width: 100%; border-radius: 4px; }
svg { width: 100%; height: auto; display: block; }
svg.sample { width: 34px; height: 8px; flex: none; display: inline-block; }
svg text { fill: var(--ink); font: 11px system-ui, sans-serif; }
svg .grid { stroke: var(--line); fill: none; } svg .axis { stroke: var(--soft); fill: none; }
svg .bold { stroke-width: 2; fill: none; } svg .faint { stroke-width: 1; opacity: .65; fill: none; }
svg .dashed { stroke-width: 1.3; fill: none; } svg .dots { opacity: .75; }
";

/// The whole file.
pub fn html(page: &Page) -> String {
    let runs = page.found.runs.len();
    let evaluations = page.found.runs.iter().map(|run| run.evaluations.len()).sum::<usize>() + page.found.others.len();
    let mut out = String::from("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<link rel=\"icon\" href=\"data:,\">\n");
    out.push_str("<title>flatnce report</title>\n<style>");
    out.push_str(STYLE);
    colours(&mut out);
    out.push_str("</style>\n</head>\n<body>\n<h1>flatnce report</h1>\n");
    let _ = writeln!(
        out,
        "<p class=\"soft\">{} and {}, written by flatnce {}</p>",
        counted(runs, "run"),
        counted(evaluations, "evaluation"),
        env!("CARGO_PKG_VERSION")
    );
    legend(&mut out, page.names);
    out.push_str("<h2>Runs and evaluations</h2>\n");
    results(&mut out, page.rows);
    for change in page.found.changes() {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", escape(&change));
    }
    if let Some(panel) = page.accuracy {
        out.push_str("<h2>Accuracy over the epochs</h2>\n<div class=\"grid-of\">\n");
        let reading = "Bold: linear evaluation, last epoch. Dashed: weighted kNN beside it. Thin: kNN while training. Dots: a linear probe while training.";
        figure(&mut out, panel, reading);
        out.push_str("</div>\n");
    }
    if !page.charts.is_empty() {
        out.push_str("<h2>Training</h2>\n<div class=\"grid-of\">\n");
        page.charts.iter().for_each(|chart| figure(&mut out, &chart.panel, chart.reading));
        out.push_str("</div>\n");
    }
    if !page.maps.is_empty() {
        out.push_str("<h2>Maps of the features</h2>\n<div class=\"grid-of\">\n");
        page.maps.iter().for_each(|(panel, about)| figure(&mut out, panel, about));
        out.push_str("</div>\n");
    }
    if !page.pictures.is_empty() {
        out.push_str("<h2>Nearest neighbours</h2>\n");
        for picture in page.pictures {
            let caption = escape(&picture.caption);
            let _ = writeln!(
                out,
                "<figure><picture><source media=\"(prefers-color-scheme: dark)\" srcset=\"data:image/png;base64,{}\">\
                 <img alt=\"{caption}\" src=\"data:image/png;base64,{}\"></picture><figcaption>{caption}</figcaption></figure>",
                base64(&picture.dark),
                base64(&picture.png)
            );
        }
    }
    differences(&mut out, page);
    out.push_str("</body>\n</html>\n");
    out
}

/// `.c0` strokes and `.f0` fills, for both kinds of paper.
fn colours(out: &mut String) {
    let classes = |of: fn(&(&'static str, &'static str)) -> &'static str| -> String {
        let line = |(n, paint)| format!(".c{n} {{ stroke: {paint}; }} .f{n} {{ fill: {paint}; }}\n");
        COLOURS.iter().map(of).enumerate().map(line).collect()
    };
    let (light, dark) = (classes(|colours| colours.0), classes(|colours| colours.1));
    let _ = writeln!(out, "{light}@media (prefers-color-scheme: dark) {{\n{dark}}}");
}

fn legend(out: &mut String, names: &[String]) {
    if names.is_empty() {
        return;
    }
    out.push_str("<div class=\"legend\">");
    for (colour, name) in names.iter().enumerate() {
        key(out, &Series { name: name.clone(), colour, stroke: Stroke::Bold, points: Vec::new() });
    }
    out.push_str("</div>\n");
}

/// How a series looks, and its name.
fn key(out: &mut String, series: &Series) {
    let _ = write!(out, "<span class=\"key\">{}{}</span> ", sample(series), escape(&series.name));
}

/// A table of what differs, under a line of what does not.
fn results(out: &mut String, all: &[Row]) {
    let (same, told) = rows::told_apart(all);
    if let Some(text) = same {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", escape(&text));
    }
    // A heading is broken at its spaces, not at the hyphen of `top-1`.
    let head: Vec<String> = told.iter().map(|(heading, _)| heading.replace('-', "\u{2011}")).collect();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let row = |place: usize| told.iter().map(|(_, cells)| cells[place].as_str()).collect();
    table(out, &head, (0..all.len()).map(row), "td");
}

/// `first` is the element of a row's first cell.
fn table<'a>(out: &mut String, head: &[&str], rows: impl Iterator<Item = Vec<&'a str>>, first: &str) {
    out.push_str("<div class=\"wide\"><table>\n");
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th>{}</th>", escape(cell))).collect();
        let _ = writeln!(out, "<thead><tr>{cells}</tr></thead>");
    }
    out.push_str("<tbody>\n");
    for row in rows {
        out.push_str("<tr>");
        for (place, cell) in row.into_iter().enumerate() {
            let element = if place == 0 { first } else { "td" };
            let _ = write!(out, "<{element}>{}</{element}>", escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody></table></div>\n");
}

fn figure(out: &mut String, panel: &Panel, reading: &str) {
    let _ = writeln!(out, "<figure><h3>{}</h3>{}", escape(&panel.title), svg(panel));
    // Of a map the colours are classes, which the page's legend does not know.
    let dots: Vec<_> = panel.series.iter().filter(|series| series.stroke == Stroke::Dots).collect();
    if !dots.is_empty() {
        out.push_str("<p class=\"soft\">");
        dots.into_iter().for_each(|series| key(out, series));
        out.push_str("</p>");
    }
    let _ = writeln!(out, "<figcaption>{}</figcaption></figure>", escape(reading));
}

fn differences(out: &mut String, page: &Page) {
    let Settings { different, common } = page.settings;
    if page.names.len() > 1 {
        out.push_str("<h2>What the runs differ in</h2>\n");
        if different.is_empty() {
            out.push_str("<p>In nothing that config.yml says.</p>\n");
        } else {
            let head: Vec<&str> = std::iter::once("setting").chain(page.names.iter().map(String::as_str)).collect();
            let rows = different.iter().map(|(path, values)| {
                std::iter::once(path.as_str()).chain(values.iter().map(String::as_str)).collect()
            });
            table(out, &head, rows, "th");
        }
    }
    if !common.is_empty() {
        let title = if page.names.len() > 1 { "Settings that all runs share" } else { "Settings" };
        let _ = write!(out, "<details><summary>{title}</summary>");
        table(out, &[], common.iter().map(|(path, value)| vec![path.as_str(), value.as_str()]), "th");
        out.push_str("</details>\n");
    }
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word =
            three.iter().enumerate().fold(0_u32, |word, (place, &byte)| word | u32::from(byte) << (16 - 8 * place));
        for place in 0..4 {
            let letter = LETTERS[(word >> (18 - 6 * place)) as usize & 63];
            out.push(if place <= three.len() { letter as char } else { '=' });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::base64;

    #[test]
    fn base64_is_that_of_the_rfc() {
        let cases =
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in cases {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }
}
