//! Tables of results: for people in Markdown that is aligned in a terminal too, for programs a record a row.

use super::format::middle_out;
use serde_json::{Map, Value, json};
use std::fmt;
use std::ops::Range;

/// A column has so many characters at least.
const NARROWEST: usize = 3;
/// What a column takes beside its text: two spaces and a bar. The line begins with one more.
const FRAME: usize = 3;

/// A cell: what people read, and what programs do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    text: String,
    value: Value,
}

impl Cell {
    /// A number, of which people read so many digits behind the point; `None` is a dash and null.
    pub fn number(value: impl Into<Option<f64>>, digits: usize) -> Cell {
        let value = value.into();
        Cell { text: value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}")), value: json!(value) }
    }

    /// A number that people read as this text.
    pub fn said(value: f64, text: String) -> Cell {
        Cell { text, value: json!(value) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Cell {
        let text = text.into();
        Cell { value: json!(text), text }
    }
}

/// A table: the first column is left-aligned, the others right-aligned, as names and numbers want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
    /// What the fields of the records are called, a column each; none where the whole table is one record.
    fields: Vec<String>,
    records: Vec<Map<String, Value>>,
}

impl Table {
    /// A table whose records have the headings as names of their fields.
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        let fields: Vec<String> = header.into_iter().map(Into::into).collect();
        Table { rows: vec![cells(&fields)], fields, records: Vec::new() }
    }

    /// A table of columns with a heading for people and a name of the field for programs.
    pub fn with_fields(columns: &[(&str, &str)]) -> Self {
        let (headings, fields): (Vec<&str>, Vec<&str>) = columns.iter().copied().unzip();
        Table { fields: fields.into_iter().map(str::to_owned).collect(), ..Table::new(headings) }
    }

    /// A table whose rows tell people the numbers of one thing, which programs get whole.
    pub fn of_one<T: Into<String>>(header: impl IntoIterator<Item = T>, record: Map<String, Value>) -> Self {
        Table { fields: Vec::new(), records: vec![record], ..Table::new(header) }
    }

    /// # Panics
    /// The row has not as many cells as the header: a bug.
    pub fn row<T: Into<Cell>>(&mut self, row: impl IntoIterator<Item = T>) -> &mut Self {
        let (texts, values): (Vec<String>, Vec<Value>) =
            row.into_iter().map(Into::into).map(|Cell { text, value }| (text, value)).unzip();
        let row = cells(&texts);
        assert_eq!(row.len(), self.rows[0].len(), "a row of {row:?} under {:?}", self.rows[0]);
        self.rows.push(row);
        if !self.fields.is_empty() {
            self.records.push(self.fields.iter().cloned().zip(values).collect());
        }
        self
    }

    /// What programs get: one a row, or that of the one thing that all rows are about.
    pub fn records(&self) -> &[Map<String, Value>] {
        &self.records
    }

    /// The same in lines of at most so many characters. Columns that find no room stand in further tables, in their order,
    /// and every table then begins with the rows' numbers, from 1; a cell that is too long for a table of its own is
    /// shortened in the middle.
    pub fn within(&self, characters: usize) -> Vec<Table> {
        let widths = self.widths();
        let line = |columns: &[usize]| columns.iter().map(|width| width + FRAME).sum::<usize>() + 1;
        if line(&widths) <= characters {
            return vec![self.clone()];
        }
        let numbers = (self.rows.len() - 1).to_string().len().max(NARROWEST);
        let most = characters.saturating_sub(line(&[numbers]) + FRAME).max(NARROWEST);
        let (mut tables, mut first) = (Vec::new(), 0);
        for end in 1..=widths.len() {
            let room = |end: usize| line(&[numbers]) + line(&widths[first..end]) - 1 <= characters;
            if end == widths.len() || !room(end + 1) {
                tables.push(self.numbered(first..end, most));
                first = end;
            }
        }
        tables
    }

    /// Some of the columns behind the numbers of the rows, in cells of at most `most` characters.
    fn numbered(&self, columns: Range<usize>, most: usize) -> Table {
        let number = |row: usize| if row == 0 { "row".to_owned() } else { row.to_string() };
        let cells =
            |row: &Vec<String>| row[columns.clone()].iter().map(|cell| middle_out(cell, most)).collect::<Vec<_>>();
        let rows = self.rows.iter().enumerate().map(|(row, all)| [vec![number(row)], cells(all)].concat());
        Table { rows: rows.collect(), fields: Vec::new(), records: Vec::new() }
    }

    /// Of the columns, in characters.
    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (0..self.rows[0].len()).map(|column| width(column).max(NARROWEST)).collect()
    }
}

/// A bar would end the cell, a line break the row.
fn cells<T: AsRef<str>>(row: &[T]) -> Vec<String> {
    row.iter().map(|cell| super::format::plain(cell.as_ref()).replace('|', "\\|")).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let widths = self.widths();
        for (index, row) in self.rows.iter().enumerate() {
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "| {cell:<width$} |")?,
                    _ => write!(f, " {cell:>width$} |")?,
                }
            }
            writeln!(f)?;
            if index == 0 {
                write!(f, "|{}|", "-".repeat(widths[0] + 2))?;
                for &width in &widths[1..] {
                    write!(f, "{}:|", "-".repeat(width + 1))?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_cell() {
        let mut table = Table::new(["tensor", "shape"]);
        table.row(["a|b\nc\u{1b}[2J", "[1]"]);
        assert!(table.to_string().ends_with("| a\\|b\\nc\\u001b[2J |   [1] |\n"), "{table}");
    }

    #[test]
    fn programs_get_numbers_under_the_names_of_fields() {
        let mut table = Table::with_fields(&[("encoder", "encoder"), ("top-1 (%)", "top1"), ("kNN", "knn")]);
        table.row(["a|b".into(), Cell::number(80.123, 2), Cell::number(None, 2)]);
        table.row(["c".into(), Cell::said(1e-4, "0.0001".into()), Cell::number(3.0, 0)]);
        assert!(table.to_string().contains("| a\\|b    |     80.12 |   - |"), "{table}");
        let records =
            [json!({"encoder": "a|b", "top1": 80.123, "knn": null}), json!({"encoder": "c", "top1": 1e-4, "knn": 3.0})];
        assert_eq!(table.records().iter().cloned().map(Value::Object).collect::<Vec<_>>(), records);
        let whole = Map::from_iter([("test_top1".to_owned(), json!(80.123))]);
        let mut one = Table::of_one(["linear_eval", "percent"], whole.clone());
        one.row(["test top-1".into(), Cell::number(80.123, 2)]);
        assert_eq!(one.records(), [whole]);
        assert!(one.to_string().ends_with("| test top-1  |   80.12 |\n"), "{one}");
    }

    #[test]
    fn columns_are_aligned_and_markdown() {
        let mut table = Table::new(["encoder", "linear top-1 (%)", "kNN"]);
        table.row(["untrained", "80.80", "75.40"]).row(["FlatCLR|res10", "85.40", "é"]);
        assert_eq!(
            table.to_string(),
            "| encoder        | linear top-1 (%) |   kNN |\n\
             |----------------|-----------------:|------:|\n\
             | untrained      |            80.80 | 75.40 |\n\
             | FlatCLR\\|res10 |            85.40 |     é |\n"
        );
    }

    #[test]
    fn what_finds_no_room_stands_in_further_tables() {
        let mut table = Table::new(["encoder", "linear top-1 (%)", "kNN", "directory"]);
        table.row(["untrained", "80.80", "75.40", "results/cifar10/8_FlatCLR/a-long-name/2"]);
        table.row(["FlatCLR", "85.40", "76.00", "results/cifar10/8_FlatCLR/a-long-name/3"]);
        assert_eq!(table.within(200), [table.clone()]);
        for width in 20..80 {
            let tables = table.within(width);
            let lines: Vec<String> = tables
                .iter()
                .flat_map(|table| table.to_string().lines().map(str::to_owned).collect::<Vec<_>>())
                .collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{width}: {lines:#?}");
            let headings: Vec<&str> =
                tables.iter().flat_map(|table| table.rows[0][1..].iter().map(String::as_str)).collect();
            assert!(width < 26 || headings == ["encoder", "linear top-1 (%)", "kNN", "directory"], "{headings:?}");
        }
        let tables: Vec<String> = table.within(40).iter().map(ToString::to_string).collect();
        assert_eq!(
            tables.concat(),
            "| row |   encoder | linear top-1 (%) |\n\
             |-----|----------:|-----------------:|\n\
             | 1   | untrained |            80.80 |\n\
             | 2   |   FlatCLR |            85.40 |\n\
             | row |   kNN |\n\
             |-----|------:|\n\
             | 1   | 75.40 |\n\
             | 2   | 76.00 |\n\
             | row |                      directory |\n\
             |-----|-------------------------------:|\n\
             | 1   | results/c...tCLR/a-long-name/2 |\n\
             | 2   | results/c...tCLR/a-long-name/3 |\n"
        );
    }
}
