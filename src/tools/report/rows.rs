//! The table: a row for each evaluation, and for each run without one.

use super::gather::{Evaluation, Found, Run};
use crate::report::{Table, short};
use serde_json::{Map, Value, json};

/// How a number is rounded for people.
#[derive(Clone, Copy)]
enum Show {
    /// As it is: words and whole numbers.
    Plain,
    /// Three significant digits.
    Short,
    /// So many decimals.
    Decimals(usize),
}

/// Key in JSON and CSV, heading for people, and how it is shown.
type Column = (&'static str, &'static str, Show);

const COLUMNS: [Column; 25] = [
    ("dataset", "data set", Show::Plain),
    ("objective", "objective", Show::Plain),
    ("model", "model", Show::Plain),
    ("batch_size", "batch", Show::Plain),
    ("epochs_done", "epochs done", Show::Plain),
    ("epochs_asked", "of", Show::Plain),
    ("temperature", "temperature", Show::Short),
    ("lr", "lr", Show::Short),
    ("seed", "seed", Show::Plain),
    ("final_loss_nats", "final loss (nats)", Show::Decimals(3)),
    ("final_ness", "NESS", Show::Decimals(3)),
    ("evaluation", "evaluation", Show::Plain),
    ("evaluated_dataset", "evaluated on", Show::Plain),
    ("label_ratio", "labels", Show::Short),
    ("checkpoint_epoch", "checkpoint", Show::Plain),
    ("test_top1_last_epoch", "top-1 last (%)", Show::Decimals(2)),
    ("test_top1_chosen_epoch", "top-1 held-out choice (%)", Show::Decimals(2)),
    ("test_top1_best_epoch", "top-1 best (%)", Show::Decimals(2)),
    ("test_top5_last_epoch", "top-5 last (%)", Show::Decimals(2)),
    ("knn_weighted_top1", "kNN weighted (%)", Show::Decimals(2)),
    ("knn_plain_top1", "kNN plain (%)", Show::Decimals(2)),
    ("train_top1", "train top-1 (%)", Show::Decimals(2)),
    ("directory", "directory", Show::Plain),
    ("evaluation_directory", "evaluation's directory", Show::Plain),
    ("checkpoint", "checkpoint's file", Show::Plain),
];

/// Too long for people to read in a row; JSON and CSV have them.
const FOR_MACHINES: [&str; 2] = ["evaluation_directory", "checkpoint"];

/// One row: the keys of the columns in their order, null where something is not known.
pub type Row = Map<String, Value>;

/// The rows: runs in the order found, each with its evaluations by epoch; then evaluations without a run.
pub fn rows(found: &Found) -> Vec<Row> {
    let mut rows = Vec::new();
    for run in &found.runs {
        if run.evaluations.is_empty() {
            rows.push(row(Some(run), None));
        }
        rows.extend(run.evaluations.iter().map(|evaluation| row(Some(run), Some(evaluation))));
    }
    rows.extend(found.others.iter().map(|evaluation| row(None, Some(evaluation))));
    rows
}

fn row(run: Option<&Run>, evaluation: Option<&Evaluation>) -> Row {
    let setting = |pointer: &str| run.and_then(|run| run.settings.as_ref()?.pointer(pointer).cloned());
    // A run from scratch with labels has its settings in the evaluation's own configuration.
    let scratch = |pointer: &str| match run {
        None => evaluation.and_then(|one| one.settings.as_ref()?.pointer(pointer).cloned()),
        Some(_) => None,
    };
    let last = run.and_then(|run| run.epochs.last());
    let outcome = evaluation.and_then(|one| serde_json::to_value(&one.outcome).ok());
    let value = |key: &str| -> Option<Value> {
        match key {
            "dataset" => setting("/data/dataset"),
            "objective" => setting("/objective"),
            "model" => setting("/model/depth").or_else(|| scratch("/source/scratch/depth")),
            "batch_size" => setting("/batch_size"),
            "epochs_done" => run.map(|run| json!(run.epochs.last().map_or(0, |last| last.epoch + 1))),
            "epochs_asked" => setting("/epochs"),
            "temperature" => setting("/temperature"),
            "lr" => setting("/optimizer/lr"),
            "seed" => setting("/seed").or_else(|| scratch("/seed")),
            "final_loss_nats" => last.map(|last| json!(last.number("loss_infonce"))),
            "final_ness" => last.and_then(|last| last.get("ness_mean")).map(|ness| json!(ness)),
            "evaluation" => outcome.as_ref()?.get("protocol").cloned(),
            "evaluated_dataset" => outcome.as_ref()?.get("dataset").cloned(),
            "checkpoint_epoch" => outcome.as_ref().filter(|all| !all["checkpoint"].is_null())?.get(key).cloned(),
            "directory" => run
                .map(|run| &run.directory)
                .or(evaluation.map(|one| &one.directory))
                .map(|directory| json!(directory.display().to_string())),
            "evaluation_directory" => evaluation.map(|one| json!(one.directory.display().to_string())),
            _ => outcome.as_ref()?.get(key).cloned(),
        }
    };
    COLUMNS.iter().map(|(key, ..)| ((*key).to_owned(), value(key).unwrap_or_default())).collect()
}

/// What people read: a heading and the rounded cells, for the columns that say anything.
pub fn for_people(rows: &[Row]) -> Vec<(&'static str, Vec<String>)> {
    let wanted = |column: &&Column| {
        !FOR_MACHINES.contains(&column.0) && rows.iter().any(|row| row.get(column.0).is_some_and(|v| !v.is_null()))
    };
    let cells = |column: &Column| rows.iter().map(|row| text(&row[column.0], column.2)).collect();
    COLUMNS.iter().filter(wanted).map(|column| (column.1, cells(column))).collect()
}

/// The columns that say the same in all of several rows, in a sentence; and the others.
pub fn told_apart(rows: &[Row]) -> (Option<String>, Vec<(&'static str, Vec<String>)>) {
    let alike = |(_, cells): &(&str, Vec<String>)| cells.len() > 1 && cells.iter().all(|cell| *cell == cells[0]);
    let (same, others): (Vec<_>, Vec<_>) = for_people(rows).into_iter().partition(alike);
    let facts: Vec<String> = same.iter().map(|(heading, cells)| format!("{heading} {}", cells[0])).collect();
    ((!facts.is_empty()).then(|| format!("The same in all rows: {}.", facts.join(", "))), others)
}

fn text(value: &Value, show: Show) -> String {
    match (value, value.as_f64(), show) {
        (Value::Null, ..) => "-".to_owned(),
        (Value::String(text), ..) => text.clone(),
        (_, Some(number), Show::Short) => short(number),
        (_, Some(number), Show::Decimals(count)) => format!("{number:.count$}"),
        (other, ..) => other.to_string(),
    }
}

/// An aligned table, which is markdown too.
pub fn markdown(rows: &[Row]) -> String {
    table(&for_people(rows), rows.len()).to_string()
}

/// The same for a terminal of so many characters a line: what all rows share is said once, a single row stands upright,
/// and columns that find no room follow in further tables ([`Table::within`]).
pub fn for_terminal(rows: &[Row], characters: usize) -> String {
    let (same, columns) = told_apart(rows);
    let mut parts: Vec<String> = same.map(|text| lines(&text, characters)).into_iter().collect();
    let whole = match (rows, columns.as_slice()) {
        // Evaluations of one encoder may agree in everything.
        (_, []) => return parts.concat(),
        ([_], [(heading, cells), others @ ..]) => {
            let mut upright = Table::new([*heading, &cells[0]]);
            for (heading, cells) in others {
                upright.row([*heading, &cells[0]]);
            }
            upright
        }
        _ => table(&columns, rows.len()),
    };
    parts.extend(whole.within(characters).iter().map(ToString::to_string));
    parts.join("\n")
}

fn table(columns: &[(&'static str, Vec<String>)], rows: usize) -> Table {
    let mut table = Table::new(columns.iter().map(|(heading, _)| *heading));
    for index in 0..rows {
        table.row(columns.iter().map(|(_, cells)| cells[index].clone()));
    }
    table
}

/// Text in lines of at most so many characters, broken at its spaces; a longer word has a line of its own.
fn lines(text: &str, characters: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let length = word.chars().count();
        if used > 0 {
            let fits = used + 1 + length <= characters;
            out.push(if fits { ' ' } else { '\n' });
            used = if fits { used + 1 } else { 0 };
        }
        out.push_str(word);
        used += length;
    }
    out + "\n"
}

/// A line a row under a line of keys, as RFC 4180 has it; an empty cell is a number that is not known.
pub fn csv(rows: &[Row]) -> String {
    let line = |cells: Vec<String>| cells.join(",") + "\r\n";
    let mut out = line(COLUMNS.iter().map(|(key, ..)| (*key).to_owned()).collect());
    for row in rows {
        out.push_str(&line(row.values().map(csv_cell).collect()));
    }
    out
}

/// A spreadsheet takes a cell that begins like a formula for one; an apostrophe tells it that this is text. Numbers may
/// begin with their sign.
fn csv_cell(value: &Value) -> String {
    let text = match value {
        Value::Null => String::new(),
        Value::String(text) if text.starts_with(['=', '+', '-', '@', '\t', '\r']) => format!("'{text}"),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let quoted = text.contains([',', '"', '\n', '\r']);
    if quoted { format!("\"{}\"", text.replace('"', "\"\"")) } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_quoted_and_never_formulas() {
        for (value, cell) in [
            (json!("=cmd|' /C calc'!A0"), "'=cmd|' /C calc'!A0"),
            (json!("-2+3"), "'-2+3"),
            (json!("@SUM(1,2)"), "\"'@SUM(1,2)\""),
            (json!("+a \"b\"\nc"), "\"'+a \"\"b\"\"\nc\""),
            (json!("\t=1"), "'\t=1"),
            (json!("results/a=b"), "results/a=b"),
            (json!(-0.25), "-0.25"),
            (Value::Null, ""),
        ] {
            assert_eq!(csv_cell(&value), cell);
        }
    }
}
