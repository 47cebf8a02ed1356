//! From a [`Figure`] to pixels.

use super::canvas::{Area, DRAWS, INK, SCALE, painted, px, text, width_of};
use super::panel::{self, Canvas, Frame, Point, Rule, Words};
use super::{Figure, PALETTE_COLOURS, Panel, Series, Stroke};
use crate::pixels::RgbImage;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::FontTransform;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Okabe and Ito, "Color universal design", 2008; the yellow is left out, it vanishes on white. Three of Tol's follow.
const PALETTE: [RGBColor; PALETTE_COLOURS] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(60, 60, 60),
    RGBColor(136, 34, 85),
    RGBColor(153, 153, 51),
    RGBColor(51, 34, 136),
];
const GRID: RGBColor = RGBColor(228, 228, 228);
const PANEL_PX: (u32, u32) = (640, 440);
const TITLE_PX: u32 = 52;
const PANEL_TITLE_PX: u32 = 32;
const LEGEND_ROW_PX: u32 = 24;
/// The strength of the colour of raw values.
const FAINT: f64 = 0.45;

pub(super) fn draw(figure: &Figure) -> RgbImage {
    let panels = figure.panels.len().max(1);
    let title_px = if figure.title.is_empty() { 0 } else { TITLE_PX };
    let (width, height) = (PANEL_PX.0 * panels as u32, PANEL_PX.1 + title_px);
    painted(width as usize, height as usize, |root| {
        let (head, body) = root.split_vertically(px(f64::from(title_px)));
        text(&head, &figure.title, 24.0, HPos::Center, on_pixel((f64::from(width) / 2.0, 30.0)));
        for (panel, area) in figure.panels.iter().zip(body.split_evenly((1, panels))) {
            draw_panel(panel, &area);
        }
    })
}

fn draw_panel(panel: &Panel, area: &Area) {
    let (width, height) = (f64::from(PANEL_PX.0), f64::from(PANEL_PX.1));
    let (x, y) = panel.axes((8, 6));
    text(area, &panel.title, 19.0, HPos::Center, on_pixel((width / 2.0, 16.0)));
    let legend_px = if panel.series.len() > 1 { draw_legend(panel, area) } else { 0 };
    let widest = y.ticks.iter().map(|&tick| width_of(area, &y.label(tick), 15.0)).fold(0.0, f64::max);
    let frame = Frame {
        // The labels, what is left and right of them, and the words along the axis.
        left: 12.0 + (widest + 44.0).max(72.0),
        right: width - 28.0,
        top: f64::from(PANEL_TITLE_PX + legend_px.max(LEGEND_ROW_PX) + 4),
        bottom: height - 62.0,
        tick: 5.0,
        below: 14.0,
        beside: 10.0,
        label_y: height - 19.0,
        label_x: 19.0,
    };
    panel::draw(panel, (&x, &y), frame, &mut Pixels(area));
}

/// Pixels of the finished picture to drawn ones.
fn on_pixel(point: Point) -> (i32, i32) {
    let scale = f64::from(SCALE);
    ((point.0 * scale).round() as i32, (point.1 * scale).round() as i32)
}

struct Pixels<'a, 'b>(&'a Area<'b>);

impl Pixels<'_, '_> {
    fn line(&self, points: &[Point], style: ShapeStyle) {
        let points: Vec<(i32, i32)> = points.iter().copied().map(on_pixel).collect();
        self.0.draw(&PathElement::new(points, style)).expect(DRAWS);
    }

    fn dot(&self, at: Point, radius: u32, series: &Series) {
        self.0.draw(&Circle::new(on_pixel(at), radius, line_style(series).filled())).expect(DRAWS);
    }
}

impl Canvas for Pixels<'_, '_> {
    const MARKED_POINTS: usize = 40;

    fn rule(&mut self, points: &[Point], rule: Rule) {
        let colour = if rule == Rule::Grid { GRID } else { INK };
        self.line(points, colour.stroke_width(px(1.0)));
    }

    fn words(&mut self, words: &str, at: Point, what: Words) {
        // plotters' idea of the middle of digits is a little high.
        let digits = on_pixel((at.0, at.1 + 2.0));
        match what {
            Words::TickOfX => text(self.0, words, 15.0, HPos::Center, digits),
            Words::TickOfY => text(self.0, words, 15.0, HPos::Right, digits),
            Words::LabelOfX => text(self.0, words, 17.0, HPos::Center, on_pixel(at)),
            Words::LabelOfY => {
                let style = super::canvas::font(17.0).transform(FontTransform::Rotate270);
                let style = style.pos(Pos::new(HPos::Center, VPos::Center));
                self.0.draw_text(words, &style, on_pixel(at)).expect(DRAWS);
            }
        }
    }

    fn curve(&mut self, stretches: &[Vec<Point>], series: &Series) {
        let style = line_style(series);
        for stretch in stretches {
            match (series.stroke, series.dashes()) {
                (Stroke::Dots, _) => stretch.iter().for_each(|&at| self.dot(at, px(2.2), series)),
                (_, Some((line, gap))) => {
                    let points: Vec<(i32, i32)> = stretch.iter().copied().map(on_pixel).collect();
                    self.0.draw(&DashedPathElement::new(points, px(line), px(gap), style)).expect(DRAWS);
                }
                // Piece by piece: plotters draws a spike where a thick line turns sharply.
                (_, None) => stretch.windows(2).for_each(|ends| self.line(ends, style)),
            }
            if series.stroke == Stroke::Bold && series.dashes().is_none() {
                // Joints are round.
                stretch.iter().for_each(|&at| self.dot(at, style.stroke_width / 2, series));
            }
        }
    }

    fn mark(&mut self, at: Point, _: Point, series: &Series) {
        let radius = if series.stroke == Stroke::Bold { 4.0 } else { 2.5 };
        match series.corners(at, radius) {
            Some(corners) => {
                let corners: Vec<(i32, i32)> = corners.into_iter().map(on_pixel).collect();
                self.0.draw(&Polygon::new(corners, line_style(series).filled())).expect(DRAWS);
            }
            None => self.dot(at, px(radius), series),
        }
    }
}

fn line_style(series: &Series) -> ShapeStyle {
    let colour = PALETTE[series.paint()];
    match series.stroke {
        Stroke::Bold | Stroke::Dots => colour.stroke_width(px(2.4)),
        Stroke::Dashed => colour.stroke_width(px(1.6)),
        // Paler, not transparent, which would show every joint.
        Stroke::Faint => {
            let paler = |part: u8| (255.0 - FAINT * f64::from(255 - part)) as u8;
            RGBColor(paler(colour.0), paler(colour.1), paler(colour.2)).stroke_width(px(1.0))
        }
    }
}

/// Rows of samples and names between title and axes, where no curve can run through them. Returns their height.
fn draw_legend(panel: &Panel, area: &Area) -> u32 {
    let (sample, gap, space) = (px(26.0) as i32, px(7.0) as i32, px(24.0) as i32);
    let room = area.dim_in_pixel().0 as i32 - 2 * space;
    let mut rows: Vec<(i32, Vec<(&Series, i32)>)> = Vec::new();
    for (place, series) in panel.series.iter().enumerate() {
        // Lines of one name belong together.
        if panel.series[..place].iter().any(|earlier| earlier.name == series.name) {
            continue;
        }
        let width = sample + gap + px(width_of(area, &series.name, 15.0)) as i32;
        match rows.last_mut() {
            Some((taken, row)) if *taken + space + width <= room => {
                *taken += space + width;
                row.push((series, width));
            }
            _ => rows.push((width, vec![(series, width)])),
        }
    }
    let mut y = px(f64::from(PANEL_TITLE_PX) + 10.0) as i32;
    for (taken, row) in &rows {
        let mut left = (area.dim_in_pixel().0 as i32 - taken) / 2;
        for (series, width) in row {
            draw_sample(series, area, (left, y), sample);
            text(area, &series.name, 15.0, HPos::Left, (left + sample + gap, y));
            left += width + space;
        }
        y += px(f64::from(LEGEND_ROW_PX)) as i32;
    }
    LEGEND_ROW_PX * rows.len() as u32
}

/// A piece of a series's line.
fn draw_sample(series: &Series, area: &Area, (left, y): (i32, i32), length: i32) {
    if series.stroke == Stroke::Dots {
        let dot = Circle::new((left + length / 2, y), px(4.0), line_style(series).filled());
        return area.draw(&dot).expect(DRAWS);
    }
    let pieces: Vec<(i32, i32)> = match series.dashes() {
        Some((line, gap)) => {
            let (line, step) = (px(line) as i32, px(line + gap) as i32);
            (0..length).step_by(step as usize).map(|from| (from, (from + line).min(length))).collect()
        }
        None => vec![(0, length)],
    };
    for (from, to) in pieces {
        let piece = PathElement::new([(left + from, y), (left + to, y)], line_style(series));
        area.draw(&piece).expect(DRAWS);
    }
}
