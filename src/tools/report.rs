//! `flatnce report`: runs and their evaluations in one table, one picture, one page.

mod charts;
mod differences;
mod gather;
mod page;
mod pictures;
mod rows;

use crate::config::ReportFormat;
use crate::data::counted;
use crate::durable;
use crate::report::plots::{Figure, Panel, curves};
use crate::report::{Console, encode_png, save_png};
use crate::values::one_of;
use anyhow::{Context, Result, bail};
use charts::Chart;
use gather::Found;
use page::{Page, Picture};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Runs and their evaluations in one table.
#[derive(Clone, Debug, clap::Args)]
pub struct Report {
    /// Directories of results; everything below them is gathered
    #[arg(value_name = "DIR", required = true)]
    pub directories: Vec<PathBuf>,

    /// How the table is written
    ///
    /// csv and json have full numbers; markdown is aligned and rounded, for the terminal and for a README. On a terminal
    /// it is no wider than that: what all rows share is said once, and columns that find no room follow in further tables.
    #[arg(long, value_name = "FORMAT", default_value = "markdown", value_parser = one_of!(ReportFormat))]
    pub format: ReportFormat,

    /// Write the table into this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Draw accuracy over the epochs of the pre-training, a line a run
    #[arg(long, value_name = "FILE.png")]
    pub plot: Option<PathBuf>,

    /// Write one self-contained page: table, curves of all runs overlaid, and what their settings differ in
    #[arg(long, value_name = "FILE.html")]
    pub html: Option<PathBuf>,

    /// Draw PNG files into this directory, and with --html into the page
    ///
    /// Every chart; and for each run whose data and newest checkpoint are there, the nearest neighbours of 12 images and a
    /// map of the features (their two principal components) over up to 2,000 test images. Neighbours in the high-dimensional
    /// space are exact; the map is a linear projection: t-SNE and UMAP are left to other programs (flatnce embed).
    #[arg(long, value_name = "DIR")]
    pub pictures: Option<PathBuf>,
}

/// Writes whatever is asked for.
///
/// Errors: nothing found; a file that cannot be written.
pub fn run(report: &Report, console: &Console) -> Result<()> {
    let found = gather::gather(&report.directories, console)?;
    let rows = rows::rows(&found);
    let table = match report.format {
        ReportFormat::Markdown => {
            let changes = found.changes().map(|change| format!("\n{change}\n"));
            let table = match console.result_columns().filter(|_| report.out.is_none()) {
                Some(characters) => rows::for_terminal(&rows, characters),
                None => rows::markdown(&rows),
            };
            changes.fold(table, |table, change| table + &change)
        }
        ReportFormat::Json => serde_json::to_string_pretty(&rows)?,
        ReportFormat::Csv => rows::csv(&rows),
    };
    match &report.out {
        Some(path) => {
            write(path, &table)?;
            console.note(&format!("{}: {}", counted(rows.len(), "row"), path.display()));
        }
        None => console.result(&table),
    }
    let names = charts::names(&found);
    let accuracy = charts::accuracy(&found, &names);
    if let Some(path) = &report.plot {
        let Some(panel) = &accuracy else {
            bail!("nothing to draw for --plot: no run was evaluated, and none has kNN or a probe in its metrics.jsonl")
        };
        curves(path, &figure(panel))?;
        console.note(&format!("accuracy over epochs: {}", path.display()));
    }
    if report.html.is_none() && report.pictures.is_none() {
        return Ok(());
    }
    let charts = charts::charts(&found, &names);
    let looks = match &report.pictures {
        Some(directory) => draw(directory, &found, &names, &charts, accuracy.as_ref(), console)?,
        None => Looks::default(),
    };
    if let Some(path) = &report.html {
        let text = page::html(&Page {
            found: &found,
            names: &names,
            rows: &rows,
            charts: &charts,
            accuracy: accuracy.as_ref(),
            settings: &differences::settings(&found),
            maps: &looks.maps,
            pictures: &looks.sheets,
        });
        write(path, &text)?;
        console.note(&format!("page: {}", path.display()));
    }
    Ok(())
}

/// What the encoders' pictures add to the page.
#[derive(Default)]
struct Looks {
    maps: Vec<(Panel, String)>,
    sheets: Vec<Picture>,
}

/// The PNG files: every chart, and for each run whose data and checkpoint are there its neighbours and its map.
fn draw(
    directory: &Path,
    found: &Found,
    names: &[String],
    charts: &[Chart],
    accuracy: Option<&Panel>,
    console: &Console,
) -> Result<Looks> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut files = 0;
    for panel in charts.iter().map(|chart| &chart.panel).chain(accuracy) {
        curves(&directory.join(format!("{}.png", file_name(&panel.title))), &figure(panel))?;
        files += 1;
    }
    let mut looks = Looks::default();
    for (number, (run, name)) in found.runs.iter().zip(names).enumerate() {
        let pictures = match pictures::pictures(run, name, console) {
            Ok(pictures) => pictures,
            Err(error) => {
                console.warn(&format!("no pictures of {}: {error:#}", run.directory.display()));
                continue;
            }
        };
        let [png, dark] = &pictures.neighbours;
        let path = |what: &str| directory.join(format!("{what}-{}-{}.png", number + 1, file_name(name)));
        save_png(&path("neighbours"), png.as_ref())?;
        curves(&path("map"), &figure(&pictures.map))?;
        files += 2;
        looks.sheets.push(Picture {
            caption: format!("{name}: {}", pictures.about),
            png: encode_png(png.as_ref())?,
            dark: encode_png(dark.as_ref())?,
        });
        looks.maps.push((pictures.map, pictures.about));
    }
    console.note(&format!("{files} pictures: {}", directory.display()));
    Ok(looks)
}

fn figure(panel: &Panel) -> Figure {
    Figure { title: String::new(), panels: vec![panel.clone()] }
}

/// Letters and digits of a title, the rest as one hyphen each.
fn file_name(title: &str) -> String {
    let words: Vec<String> = title
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    words.join("-")
}

fn write(path: &Path, text: &str) -> Result<()> {
    let ending = if text.ends_with('\n') { "" } else { "\n" };
    durable::replace(path, |file| Ok(write!(file, "{text}{ending}")?))
}
