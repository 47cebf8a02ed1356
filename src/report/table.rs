//! Markdown tables that are aligned in a terminal too.

use super::format::middle_out;
use std::fmt;
use std::ops::Range;

/// A column has so many characters at least.
const NARROWEST: usize = 3;
/// What a column takes beside its text: two spaces and a bar. The line begins with one more.
const FRAME: usize = 3;

/// A table: the first column is left-aligned, the others right-aligned, as names and numbers want it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub fn new<T: Into<String>>(header: impl IntoIterator<Item = T>) -> Self {
        Table { rows: vec![cells(header)] }
    }

    /// # Panics
    /// The row has not as many cells as the header: a bug.
    pub fn row<T: Into<String>>(&mut self, row: impl IntoIterator<Item = T>) -> &mut Self {
        let row = cells(row);
        assert_eq!(row.len(), self.rows[0].len(), "a row of {row:?} under {:?}", self.rows[0]);
        self.rows.push(row);
        self
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
        Table { rows: rows.collect() }
    }

    /// Of the columns, in characters.
    fn widths(&self) -> Vec<usize> {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        (0..self.rows[0].len()).map(|column| width(column).max(NARROWEST)).collect()
    }
}

/// A bar would end the cell, a line break the row.
fn cells<T: Into<String>>(row: impl IntoIterator<Item = T>) -> Vec<String> {
    row.into_iter().map(|cell| super::format::plain(&cell.into()).replace('|', "\\|")).collect()
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
