//! Markdown tables that are aligned in a terminal too.

use std::fmt;

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
}

/// A bar would end the cell, a line break the row.
fn cells<T: Into<String>>(row: impl IntoIterator<Item = T>) -> Vec<String> {
    row.into_iter().map(|cell| super::format::plain(&cell.into()).replace('|', "\\|")).collect()
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |column: usize| self.rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0).max(3);
        let widths: Vec<usize> = (0..self.rows[0].len()).map(width).collect();
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
}
