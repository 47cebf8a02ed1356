//! One parquet file, read by the `parquet` crate: its columns, its notes, and a row group's values.

use crate::files;
use anyhow::{Context, Result, bail};
use parquet::basic::Type;
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::DataType;
use parquet::file::metadata::page_index::RowGroupPageIndex;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use parquet::file::properties::ReaderProperties;
use parquet::file::reader::RowGroupReader;
use parquet::file::serialized_reader::SerializedRowGroupReader;
use std::cell::Cell;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

/// Values decoded at a time: a page's memory lives as long as one of its values.
const ROWS_AT_ONCE: usize = 64;

/// Rows that a byte of a file may stand for: of images that are all alike the numbers are packed.
const ROWS_A_BYTE: u64 = 8;

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Bytes,
    WholeNumbers,
    Other,
}

/// A file whose rows are not read yet.
#[derive(Debug)]
pub struct Table {
    pub path: PathBuf,
    /// Bytes of the file.
    pub length: u64,
    about: Arc<ParquetMetaData>,
}

/// Values one after the other. One that is missing has no bytes.
#[derive(Debug, Default)]
pub struct Blobs {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Blobs {
    /// Value `at`. Panics beyond the last one.
    pub fn get(&self, at: usize) -> &[u8] {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        &self.bytes[start..self.ends[at]]
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }
}

impl Table {
    /// Reads what the file says of itself.
    ///
    /// Errors: it cannot be read, or is no parquet file.
    pub fn open(path: &Path) -> Result<Table> {
        let cannot = || format!("cannot read {}", path.display());
        let file = files::open(path).with_context(cannot)?;
        let length = file.metadata().with_context(cannot)?.len();
        let about = guarded(|| Ok(ParquetMetaDataReader::new().parse_and_finish(&file)?));
        let about = about.with_context(|| format!("{} is no parquet file, or a damaged one", path.display()))?;
        Ok(Table { path: path.to_owned(), length, about: Arc::new(about) })
    }

    /// The names of the columns, such as `image.bytes`, and what they hold; those with several values a row hold nothing
    /// that is known here.
    pub fn columns(&self) -> Vec<(String, Holds)> {
        let columns = self.about.file_metadata().schema_descr().columns().iter();
        let holds = |column: &parquet::schema::types::ColumnDescriptor| match column.physical_type() {
            _ if column.max_rep_level() > 0 => Holds::Other,
            Type::BYTE_ARRAY => Holds::Bytes,
            Type::INT32 | Type::INT64 => Holds::WholeNumbers,
            _ => Holds::Other,
        };
        columns.map(|column| (column.path().string(), holds(column))).collect()
    }

    /// One of the file's notes.
    pub fn note(&self, key: &str) -> Option<&str> {
        let notes = self.about.file_metadata().key_value_metadata()?;
        notes.iter().find(|note| note.key == key)?.value.as_deref()
    }

    pub fn groups(&self) -> usize {
        self.about.num_row_groups()
    }

    /// Rows of a group, as the file says.
    ///
    /// Errors: more than a file of this length can have.
    pub fn rows(&self, group: usize) -> Result<usize> {
        let rows = self.about.row_group(group).num_rows();
        let possible = usize::try_from(rows).ok().filter(|&rows| rows as u64 / ROWS_A_BYTE <= self.length);
        possible.with_context(|| format!("{}: row group {group} claims {rows} rows", self.path.display()))
    }

    /// Bytes of a column once it is unpacked, as the file says.
    pub fn unpacked_bytes(&self, column: usize) -> u64 {
        let of = |group: usize| {
            let columns = self.about.row_group(group).columns();
            columns.get(column).and_then(|chunk| u64::try_from(chunk.uncompressed_size()).ok()).unwrap_or(0)
        };
        (0..self.groups()).fold(0, |sum, group| sum.saturating_add(of(group)))
    }

    /// The values of a column of bytes.
    ///
    /// Errors: damage, with the file.
    pub fn blobs(&self, group: usize, column: usize) -> Result<Blobs> {
        let mut blobs = Blobs::default();
        self.read(group, column, |reader, rows, deepest| match reader {
            ColumnReader::ByteArrayColumnReader(reader) => each(reader, rows, deepest, |value| {
                blobs.bytes.extend_from_slice(value.map_or(&[], |value| value.data()));
                blobs.ends.push(blobs.bytes.len());
            }),
            _ => bail!("it holds no bytes"),
        })?;
        Ok(blobs)
    }

    /// The values of a column of whole numbers; one that is missing is none.
    ///
    /// Errors: damage, with the file.
    pub fn whole_numbers(&self, group: usize, column: usize) -> Result<Vec<Option<i64>>> {
        let mut numbers = Vec::new();
        self.read(group, column, |reader, rows, deepest| match reader {
            ColumnReader::Int64ColumnReader(reader) => {
                each(reader, rows, deepest, |value| numbers.push(value.copied()))
            }
            ColumnReader::Int32ColumnReader(reader) => {
                each(reader, rows, deepest, |value| numbers.push(value.map(|&value| i64::from(value))))
            }
            _ => bail!("it holds no whole numbers"),
        })?;
        Ok(numbers)
    }

    fn read(
        &self,
        group: usize,
        column: usize,
        take: impl FnOnce(ColumnReader, usize, i16) -> Result<()>,
    ) -> Result<()> {
        let read = || {
            let file = files::open(&self.path)?;
            let properties = Arc::new(ReaderProperties::builder().build());
            let index = RowGroupPageIndex::new(group, None);
            let about = self.about.row_group(group);
            let reader = SerializedRowGroupReader::new(Arc::new(file), about, index, properties)?;
            let Some(chunk) = about.columns().get(column) else { bail!("the row group has no column {column}") };
            let deepest = chunk.column_descr().max_def_level();
            take(reader.get_column_reader(column)?, self.rows(group)?, deepest)
        };
        guarded(read)
            .with_context(|| format!("{} is damaged (row group {group}): download it again", self.path.display()))
    }
}

thread_local!(static GUARDED: Cell<bool> = const { Cell::new(false) });
static HOOK: Once = Once::new();

/// The library panics at some kinds of damage, such as a page that wants a dictionary which is not there. That is an error
/// of the file like any other, and nothing is printed of it.
fn guarded<T>(read: impl FnOnce() -> Result<T>) -> Result<T> {
    HOOK.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |about| {
            if !GUARDED.get() {
                usual(about);
            }
        }));
    });
    GUARDED.set(true);
    let read = panic::catch_unwind(AssertUnwindSafe(read));
    GUARDED.set(false);
    read.unwrap_or_else(|_| bail!("it contradicts itself"))
}

/// Hands over the values of a column, `None` for those that are missing.
fn each<T: DataType>(
    mut reader: ColumnReaderImpl<T>,
    rows: usize,
    deepest: i16,
    mut take: impl FnMut(Option<&T::T>),
) -> Result<()> {
    let (mut levels, mut values, mut done) = (Vec::new(), Vec::new(), 0);
    while done < rows {
        levels.clear();
        values.clear();
        let most = ROWS_AT_ONCE.min(rows - done);
        let (records, found, _) = reader.read_records(most, Some(&mut levels), None, &mut values)?;
        let there = |row: usize| deepest == 0 || levels.get(row) == Some(&deepest);
        if records == 0 || (0..records).filter(|&row| there(row)).count() != found || values.len() != found {
            bail!("a column ends after {done} of {rows} rows");
        }
        let mut values = values.iter();
        (0..records).for_each(|row| take(if there(row) { values.next() } else { None }));
        done += records;
    }
    Ok(())
}
