//! Line charts as PNG files, with the font inside the program: nothing needs
//! to be installed on the machine.
//!
//! A [`Figure`] says what to show; [`curves`] draws it. Colours are Okabe and
//! Ito's, which colour-blind readers can tell apart, on white.

mod canvas;
mod draw;
mod panel;
mod sheet;
mod svg;
mod ticks;

pub use sheet::{Paper, Row, Tile, neighbour_sheet};
pub use svg::{escape, sample, svg};

use super::png::save_png;
use crate::pixels::RgbImage;
use anyhow::Result;
use std::path::Path;
use ticks::Axis;

/// A picture: panels side by side.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    pub title: String,
    pub panels: Vec<Panel>,
}

/// One pair of axes. Labels carry the units: `loss (nats)`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Panel {
    pub title: String,
    pub x_label: String,
    pub y_label: String,
    /// What x covers at least: panels of one figure then agree.
    pub x_range: Option<(f64, f64)>,
    /// What y covers at least: small numbers then look small.
    pub y_range: Option<(f64, f64)>,
    /// Whole numbers only along x: epochs, steps.
    pub x_whole: bool,
    /// What y cannot leave, whatever the margin: (0, 100) for percent.
    pub y_limits: Option<(f64, f64)>,
    pub series: Vec<Series>,
}

/// A line through (x, y) points; where a number is not finite, the line has a gap.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// In the legend, if the panel has more than one series; series of one name share the first one's entry.
    pub name: String,
    /// Index into the palette; lines that belong together share one. Beyond the last colour the first ones come again
    /// with lines broken in another way, so that [`TOLD_APART`] series are told apart.
    pub colour: usize,
    pub stroke: Stroke,
    pub points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stroke {
    /// The curve to read; with markers where there are few points.
    Bold,
    /// Raw values behind a bold curve.
    Faint,
    /// A level to compare with.
    Dashed,
    /// Points that no line joins.
    Dots,
}

impl Panel {
    /// The range and ticks of x and y, with about so many ticks each.
    fn axes(&self, ticks: (usize, usize)) -> (Axis, Axis) {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let ends = |range: Option<(f64, f64)>| range.into_iter().flat_map(|(from, to)| [from, to]);
        let x = points().map(|point| point.0).chain(ends(self.x_range));
        let y = points().map(|point| point.1).chain(ends(self.y_range));
        (Axis::new(x, ticks.0, 0.02, None, self.x_whole), Axis::new(y, ticks.1, 0.05, self.y_limits, false))
    }
}

/// Colours that can be told apart.
pub const PALETTE_COLOURS: usize = 10;

/// Series that no two of look alike.
pub const TOLD_APART: usize = PALETTE_COLOURS * BREAKS.len();

/// How lines are broken that share a colour, the first ones first: `(whole, dashed)`, each of line and gap in pixels.
const BREAKS: [(Option<Dashes>, Dashes); 4] = [
    (None, (8.0, 5.0)),
    (Some((14.0, 4.0)), (14.0, 8.0)),
    (Some((5.0, 4.0)), (3.0, 6.0)),
    (Some((2.0, 3.0)), (1.5, 9.0)),
];

type Dashes = (f64, f64);

impl Series {
    /// The place of its colour in a palette of [`PALETTE_COLOURS`].
    fn paint(&self) -> usize {
        self.colour % PALETTE_COLOURS
    }

    /// How its line is broken; `None` for one that is whole, and for points.
    fn dashes(&self) -> Option<Dashes> {
        let (whole, dashed) = BREAKS[self.colour / PALETTE_COLOURS % BREAKS.len()];
        match self.stroke {
            Stroke::Bold | Stroke::Faint => whole,
            Stroke::Dashed => Some(dashed),
            Stroke::Dots => None,
        }
    }

    /// The corners of a mark around `(x, y)`, about as large as a circle of that radius; `None` where it is one. Lone points
    /// show no breaks: their shapes tell them apart.
    fn corners(&self, (x, y): (f64, f64), radius: f64) -> Option<Vec<(f64, f64)>> {
        const SHAPES: [&[(f64, f64)]; BREAKS.len()] = [
            &[],
            &[(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            &[(0.0, -1.4), (1.4, 0.0), (0.0, 1.4), (-1.4, 0.0)],
            &[(0.0, -1.4), (1.3, 0.9), (-1.3, 0.9)],
        ];
        let shape = SHAPES[self.colour / PALETTE_COLOURS % SHAPES.len()];
        let placed = || shape.iter().map(|(dx, dy)| (x + radius * dx, y + radius * dy)).collect();
        (!shape.is_empty()).then(placed)
    }
}

/// Draws `figure` into a PNG file.
///
/// # Errors
/// The file cannot be written.
pub fn curves(path: &Path, figure: &Figure) -> Result<()> {
    save_png(path, draw(figure).as_ref())
}

/// Draws `figure`: 640 x 440 pixels a panel, and 52 more rows for the title if there is one.
pub fn draw(figure: &Figure) -> RgbImage {
    draw::draw(figure)
}
