//! `flatnce list`: the networks, the data sets and the flags, as a table for people or as JSON for programs.

use super::flags::Flag;
use super::{command, flag_name, table};
use crate::config::{DatasetName, Depth, Listing, Stem};
use crate::data::{Source, source_of};
use crate::model::{feature_dim, layers, trunk_weights};
use crate::tools::Pages;
use crate::values::one_of;
use anyhow::Result;
use clap::Arg;
use serde::Serialize;

/// What there is to choose from.
#[derive(Clone, Debug, clap::Args)]
pub struct ListArgs {
    /// What is listed
    #[arg(value_name = "WHAT", value_parser = one_of!(Listing))]
    pub what: Listing,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A value of `--model`.
#[derive(Debug, Serialize)]
struct Model {
    name: &'static str,
    /// Layers with weights, the classifier's counted in, as the names have it.
    layers: u32,
    /// Numbers of a feature: the trunk's width at its end.
    features: i64,
    /// Weights of the trunk with the stem for large images.
    weights: i64,
    weights_small_stem: i64,
}

/// A value of `--dataset-name`.
#[derive(Debug, Serialize)]
struct Dataset {
    name: &'static str,
    /// `None`: as many as the images have.
    classes: Option<u32>,
    /// Side in pixels that the encoder is given them at, where `--image-size` names no other.
    image_size_px: u32,
    /// Whether all its images have that size themselves.
    fixed_size: bool,
    from: &'static str,
}

/// A flag of runs.
#[derive(Debug, Serialize)]
struct FlagEntry {
    name: String,
    /// As the help has it: a value, or what it follows from. `None`: without the flag there is no such thing.
    default: Option<String>,
    /// What its value is called; `None` of one that takes none.
    value: Option<String>,
    /// All values, where they are a closed set.
    values: Option<Vec<String>>,
    /// The values of `--train-mode` with which a run reads it.
    modes: Vec<&'static str>,
    /// The tools that have it too.
    tools: Vec<String>,
    help: String,
}

/// The list that was asked for.
///
/// Errors: it cannot be written as JSON.
pub fn list(args: &ListArgs) -> Result<Pages> {
    let text = match args.what {
        Listing::Models => {
            told(&models(), args.json, ["model", "layers", "features", "weights", "small stem"], |row| {
                [
                    row.name.to_owned(),
                    row.layers.to_string(),
                    row.features.to_string(),
                    row.weights.to_string(),
                    row.weights_small_stem.to_string(),
                ]
            })
        }
        Listing::Datasets => told(&datasets(), args.json, ["data set", "classes", "pixels", "where from"], |row| {
            [
                row.name.to_owned(),
                row.classes.map_or_else(|| "its own".to_owned(), |classes| classes.to_string()),
                format!("{}{}", row.image_size_px, if row.fixed_size { "" } else { ", from any size" }),
                row.from.to_owned(),
            ]
        }),
        Listing::Flags => told(&flags(), args.json, ["flag", "value", "read by", "default"], |row| {
            let short = row.values.as_ref().map(|values| values.join(", ")).filter(|all| all.len() <= VALUES_CHARS);
            [
                row.name.clone(),
                short.or_else(|| row.value.clone()).unwrap_or_default(),
                row.modes.iter().copied().chain(row.tools.iter().map(String::as_str)).collect::<Vec<_>>().join(" "),
                row.default.clone().unwrap_or_else(|| "none".to_owned()),
            ]
        }),
    }?;
    Ok(Pages { pages: vec![(args.what.to_string(), text)], out: None })
}

/// A longer set of values is left to the help and to JSON.
const VALUES_CHARS: usize = 30;

/// The rows as JSON, or as columns under their headings; the last column is as long as it is.
fn told<T: Serialize, const N: usize>(
    rows: &[T],
    json: bool,
    headings: [&str; N],
    cells: impl Fn(&T) -> [String; N],
) -> Result<String> {
    if json {
        return Ok(serde_json::to_string_pretty(rows)?);
    }
    let lines: Vec<[String; N]> = std::iter::once(headings.map(str::to_owned)).chain(rows.iter().map(cells)).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |cells: &[String; N]| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    Ok(lines.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn models() -> Vec<Model> {
    let row = |&depth: &Depth| Model {
        name: depth.name(),
        layers: layers(depth),
        features: feature_dim(depth),
        weights: trunk_weights(depth, Stem::Imagenet),
        weights_small_stem: trunk_weights(depth, Stem::Small),
    };
    Depth::ALL.iter().map(row).collect()
}

fn datasets() -> Vec<Dataset> {
    let row = |&name: &DatasetName| {
        let Source { protocol, classes, how_to_get, .. } = source_of(name);
        Dataset {
            name: name.name(),
            classes: *classes,
            image_size_px: protocol.size_px,
            fixed_size: protocol.fixed_size,
            from: how_to_get,
        }
    };
    DatasetName::ALL.iter().map(row).collect()
}

fn flags() -> Vec<FlagEntry> {
    let program = command();
    let of = |row: &Flag| {
        let arg = program.get_arguments().find(|arg| arg.get_id() == row.id).expect("every row has its flag");
        let values: Vec<String> = arg.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
        // `train` has the flags of pre-training, which are named by that mode.
        let own = |tool: &&clap::Command| tool.get_name() != "train";
        let has = |tool: &&clap::Command| own(tool) && tool.get_arguments().any(|arg| arg.get_id() == row.id);
        FlagEntry {
            name: flag_name(row.id),
            default: default_of(arg),
            value: arg
                .get_value_names()
                .map(|names| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(" ")),
            values: (!values.is_empty()).then_some(values),
            modes: row.modes.iter().map(|mode| mode.name()).collect(),
            tools: program.get_subcommands().filter(has).map(|tool| tool.get_name().to_owned()).collect(),
            help: arg.get_help().map(ToString::to_string).unwrap_or_default(),
        }
    };
    table().map(of).collect()
}

/// The value that a flag has where it is not typed; of one that follows from other flags what the help says of it, in
/// brackets (`[default: all]`) or in a sentence of its own (`Default: ...`).
fn default_of(arg: &Arg) -> Option<String> {
    let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    if !values.is_empty() {
        return Some(values.join(","));
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let long = arg.get_long_help().map(ToString::to_string).unwrap_or_default();
    let in_brackets = |open: &str, close: char| {
        let (_, rest) = help.split_once(open)?;
        rest.split(close).next()
    };
    let in_sentence = || {
        let (_, rest) = long.split_once("Default: ")?;
        let sentence = rest.split("\n\n").next()?.split(". ").next()?;
        Some(sentence.trim_end_matches('.'))
    };
    let found = in_brackets("[default", ']').or_else(|| in_brackets("(default", ')')).or_else(in_sentence)?;
    Some(found.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_found_wherever_the_help_has_them() {
        let of = |name: &str| flags().into_iter().find(|flag| flag.name == name).expect("a flag").default;
        assert_eq!(of("--batch-size").as_deref(), Some("512"));
        assert_eq!(of("--train-images").as_deref(), Some("all"));
        assert_eq!(of("--crop-scale-min").as_deref(), Some("0.08"));
        assert_eq!(of("--image-size").as_deref(), Some("the data set's own"));
        assert_eq!(of("--ess-target").as_deref(), Some("the temperature is fixed"));
        assert_eq!(of("--resume"), None);
    }
}
