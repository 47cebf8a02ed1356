//! From a [`Figure`] to pixels, through plotters.

use super::canvas::{FONT, SCALE, load_font, shrink};
use super::ticks::Axis;
use super::{Arrangement, Figure, PALETTE_COLOURS, Panel, Series, Stroke};
use crate::pixels::RgbImage;
use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
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
const INK: RGBColor = RGBColor(40, 40, 40);
const GRID: RGBColor = RGBColor(228, 228, 228);
const PANEL_PX: (u32, u32) = (640, 440);
const TITLE_PX: u32 = 52;
const PANEL_TITLE_PX: u32 = 32;
const LEGEND_ROW_PX: u32 = 24;
/// The strength of the colour of raw values.
const FAINT: f64 = 0.45;
/// Up to this many points a curve shows each of them.
const MARKED_POINTS: usize = 40;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;
type Chart<'a, 'b> = ChartContext<'a, BitMapBackend<'b>, Cartesian2d<Axis, Axis>>;

/// Lengths below are pixels of the finished picture; this turns them into drawn ones.
fn px(length: f64) -> u32 {
    (length * f64::from(SCALE)).round() as u32
}

fn font(size_px: f64) -> TextStyle<'static> {
    (FONT, px(size_px)).into_font().color(&INK)
}

pub(super) fn draw(figure: &Figure) -> Result<RgbImage> {
    load_font();
    let count = figure.panels.len().max(1) as u32;
    let (columns, rows) = match figure.arrangement {
        Arrangement::SideBySide => (count, 1),
        Arrangement::Stacked => (1, count),
    };
    let title_px = if figure.title.is_empty() { 0 } else { TITLE_PX };
    let (width, height) = (PANEL_PX.0 * columns, PANEL_PX.1 * rows + title_px);
    let mut drawn = vec![255; (width * SCALE) as usize * (height * SCALE) as usize * 3];
    {
        let root = BitMapBackend::with_buffer(&mut drawn, (width * SCALE, height * SCALE)).into_drawing_area();
        let (head, body) = root.split_vertically(px(f64::from(title_px)));
        let centred = font(24.0).pos(Pos::new(HPos::Center, VPos::Center));
        let middle = (px(f64::from(width) / 2.0) as i32, px(30.0) as i32);
        if title_px > 0 {
            head.draw_text(&figure.title, &centred, middle).map_err(plain)?;
        }
        for (panel, area) in figure.panels.iter().zip(body.split_evenly((rows as usize, columns as usize))) {
            draw_panel(panel, &area)?;
        }
        root.present().map_err(plain)?;
    }
    Ok(shrink(&drawn, width as usize, height as usize))
}

fn draw_panel(panel: &Panel, area: &Area) -> Result<()> {
    let (x, y) = panel.axes((8, 6));
    let widest = y.ticks.iter().map(|&tick| area.estimate_text_size(&y.label(tick), &font(15.0)));
    let widest = widest.collect::<Result<Vec<_>, _>>().map_err(plain)?.into_iter().map(|size| size.0).max();
    let centred = font(19.0).pos(Pos::new(HPos::Center, VPos::Center));
    let width = area.dim_in_pixel().0 as i32;
    area.draw_text(&panel.title, &centred, (width / 2, px(16.0) as i32)).map_err(plain)?;
    let legend_px = if panel.series.len() > 1 { draw_legend(panel, area)? } else { 0 };

    let mut chart = ChartBuilder::on(area)
        .margin_top(px(f64::from(PANEL_TITLE_PX + legend_px.max(LEGEND_ROW_PX) + 4)))
        .margin_right(px(28.0))
        .margin_bottom(px(8.0))
        .margin_left(px(12.0))
        .x_label_area_size(px(54.0))
        // The labels, what is left and right of them, and the words along the axis.
        .y_label_area_size(px(72.0).max(widest.unwrap_or(0) + px(44.0)))
        .build_cartesian_2d(x, y)
        .map_err(plain)?;
    chart
        .configure_mesh()
        .disable_axes()
        .bold_line_style(ShapeStyle::from(GRID).stroke_width(px(1.0)))
        .max_light_lines(1)
        .draw()
        .map_err(plain)?;
    for series in &panel.series {
        draw_series(series, &mut chart)?;
    }
    // The axes come last, over the curves.
    chart
        .configure_mesh()
        .disable_mesh()
        .axis_style(ShapeStyle::from(INK).stroke_width(px(1.0)))
        .set_all_tick_mark_size(px(5.0))
        .label_style(font(15.0))
        // plotters' idea of a label's middle is a little high.
        .y_label_offset(px(2.0))
        .axis_desc_style(font(17.0))
        .x_desc(&panel.x_label)
        .y_desc(&panel.y_label)
        .draw()
        .map_err(plain)
}

fn draw_series(series: &Series, chart: &mut Chart) -> Result<()> {
    let style = line_style(series);
    if series.stroke == Stroke::Dots {
        let there = series.points.iter().filter(|point| point.0.is_finite() && point.1.is_finite());
        let dots = there.map(|&point| Circle::new(point, px(2.2), style.filled()));
        return chart.draw_series(dots).map(drop).map_err(plain);
    }
    for part in unbroken(&series.points) {
        let part = thinned(part);
        if series.stroke == Stroke::Dashed {
            chart.draw_series(DashedLineSeries::new(part, px(8.0), px(5.0), style)).map_err(plain)?;
            continue;
        }
        // Piece by piece: plotters draws a spike where a thick line turns sharply.
        if let ([only], Stroke::Faint) = (part.as_slice(), series.stroke) {
            chart.draw_series([Circle::new(*only, px(2.5), style.filled())]).map_err(plain)?;
        }
        let pieces = part.windows(2).map(|ends| PathElement::new(ends, style));
        chart.draw_series(pieces).map_err(plain)?;
        if series.stroke == Stroke::Bold {
            // A lone point makes no line, and joints are round.
            let marked = series.points.len() <= MARKED_POINTS || part.len() == 1;
            let radius = if marked { px(4.0) } else { style.stroke_width / 2 };
            let dots = part.iter().map(|&point| Circle::new(point, radius, style.filled()));
            chart.draw_series(dots).map_err(plain)?;
        }
    }
    Ok(())
}

fn line_style(series: &Series) -> ShapeStyle {
    let colour = PALETTE[series.colour % PALETTE.len()];
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
fn draw_legend(panel: &Panel, area: &Area) -> Result<u32> {
    let style = font(15.0).pos(Pos::new(HPos::Left, VPos::Center));
    let (sample, gap, space) = (px(26.0) as i32, px(7.0) as i32, px(24.0) as i32);
    let room = area.dim_in_pixel().0 as i32 - 2 * space;
    let mut rows: Vec<(i32, Vec<(&Series, i32)>)> = Vec::new();
    for (place, series) in panel.series.iter().enumerate() {
        // Lines of one name belong together.
        if panel.series[..place].iter().any(|earlier| earlier.name == series.name) {
            continue;
        }
        let width = sample + gap + area.estimate_text_size(&series.name, &style).map_err(plain)?.0 as i32;
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
            draw_sample(series, area, (left, y), sample)?;
            area.draw_text(&series.name, &style, (left + sample + gap, y)).map_err(plain)?;
            left += width + space;
        }
        y += px(f64::from(LEGEND_ROW_PX)) as i32;
    }
    Ok(LEGEND_ROW_PX * rows.len() as u32)
}

/// A piece of a series's line.
fn draw_sample(series: &Series, area: &Area, (left, y): (i32, i32), length: i32) -> Result<()> {
    if series.stroke == Stroke::Dots {
        let dot = Circle::new((left + length / 2, y), px(4.0), line_style(series).filled());
        return area.draw(&dot).map_err(plain);
    }
    let pieces = match series.stroke {
        Stroke::Dashed => vec![(0, length * 2 / 5), (length * 3 / 5, length)],
        Stroke::Bold | Stroke::Faint | Stroke::Dots => vec![(0, length)],
    };
    for (from, to) in pieces {
        let piece = PathElement::new([(left + from, y), (left + to, y)], line_style(series));
        area.draw(&piece).map_err(plain)?;
    }
    Ok(())
}

/// The stretches of finite points.
fn unbroken(points: &[(f64, f64)]) -> impl Iterator<Item = &[(f64, f64)]> {
    points.split(|point| !(point.0.is_finite() && point.1.is_finite())).filter(|part| !part.is_empty())
}

/// At most 2,000 points that keep the lowest and the highest of every stretch: the line shows the spread.
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    const BUCKETS: usize = 1000;
    if points.len() <= 2 * BUCKETS {
        return points.to_vec();
    }
    let bucket = points.len().div_ceil(BUCKETS);
    let by_y = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
    let extremes = |part: &[(f64, f64)]| {
        let mut two: Vec<(f64, f64)> =
            part.iter().min_by(by_y).into_iter().chain(part.iter().max_by(by_y)).copied().collect();
        two.sort_by(|a, b| a.0.total_cmp(&b.0));
        two
    };
    points.chunks(bucket).flat_map(extremes).collect()
}

fn plain(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
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
