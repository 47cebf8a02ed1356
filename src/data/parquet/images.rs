//! Images in parquet files. They stay encoded. Where they fit into the memory, each row group is read when it is first
//! asked for and kept; where they do not, and are asked for in their order only, the last few are kept.

use super::table::{Blobs, Holds, Table};
use crate::config::{DataConfig, Labels};
use crate::data::source::inside;
use crate::data::walk::file_fingerprint;
use crate::data::{BadImage, FileList, Images, Split, Stored, grouped};
use crate::memory;
use crate::state::DataMarks;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

/// Of the memory that is free, images may take so much.
const SHARE_OF_MEMORY: f64 = 0.6;
/// Row groups kept of images that are asked for in their order.
const KEPT_GROUPS: usize = 8;
/// Columns that are looked for, the first one that is there.
const IMAGE_COLUMNS: [&str; 2] = ["image", "img"];
const LABEL_COLUMNS: [&str; 3] = ["label", "labels", "fine_label"];
/// More classes than any set has.
const MOST_CLASSES: i64 = 100_000;

/// Rows of parquet files.
#[derive(Clone, Debug)]
pub struct ParquetImages {
    shared: Arc<Shared>,
    /// Which rows, counted over all files.
    rows: Vec<u32>,
}

#[derive(Debug)]
struct Shared {
    tables: Vec<Table>,
    /// Of each file the column of the images' bytes.
    columns: Vec<usize>,
    groups: Vec<Group>,
    /// The names that the files give their images, where all have one.
    names: Option<FileList>,
    held: Held,
}

/// A row group: where it is, and which row it begins with, counted over all files.
#[derive(Clone, Copy, Debug)]
struct Group {
    table: usize,
    number: usize,
    first: usize,
}

type Loaded = Arc<Result<Blobs, String>>;

#[derive(Debug)]
enum Held {
    All(Vec<OnceLock<Result<Blobs, String>>>),
    Few(Mutex<VecDeque<(usize, Loaded)>>),
}

/// The columns of a file that matter.
struct Columns {
    image: usize,
    name: Option<usize>,
    label: Option<usize>,
    /// Class names by number; none where the file has none.
    classes: Option<Vec<String>>,
}

/// The images of some files, labelled where they have a column of labels. `others` are the files of the other parts, which
/// may have more classes where these are mere numbers.
///
/// Errors: files that are damaged or hold no images, labels without a class, images that do not fit into the memory.
pub fn split(data: &DataConfig, paths: &[PathBuf], others: &[PathBuf], name: String) -> Result<Split> {
    let tables = paths.iter().map(|path| Table::open(path)).collect::<Result<Vec<_>>>()?;
    let columns = tables.iter().map(columns).collect::<Result<Vec<_>>>()?;
    let fit = fit_in_memory(data, &tables, &columns)?;
    let (mut groups, mut rows) = (Vec::new(), 0usize);
    for (at, table) in tables.iter().enumerate() {
        for number in 0..table.groups() {
            groups.push(Group { table: at, number, first: rows });
            rows = rows.saturating_add(table.rows(number)?);
        }
    }
    let count = u32::try_from(rows).ok().filter(|&count| count > 0);
    let Some(count) = count else { bail!("{name}: {} rows are no images that can be read", grouped(rows)) };
    let labelled = data.labels != Some(Labels::None) && columns.iter().all(|columns| columns.label.is_some());
    let labels = if labelled { labels(&tables, &columns, &groups)? } else { None };
    let names = names(&tables, &columns, &groups, rows)?;
    let held = match fit {
        true => Held::All(groups.iter().map(|_| OnceLock::new()).collect()),
        false => Held::Few(Mutex::default()),
    };
    let (image, first) = (columns.iter().map(|columns| columns.image).collect(), columns.into_iter().next());
    let shared = Arc::new(Shared { tables, columns: image, groups, names, held });
    let images = ParquetImages { shared, rows: (0..count).collect() };
    let Some(labels) = labels else { return Ok(Split::unlabelled(images, name)) };
    let classes = match first.and_then(|columns| columns.classes) {
        Some(classes) => classes,
        None => {
            let most = labels.iter().copied().fold(0, i64::max).max(most_label(others)?);
            (0..=most.min(MOST_CLASSES)).map(|class| class.to_string()).collect()
        }
    };
    if let Some(row) = labels.iter().position(|&label| label >= classes.len() as i64) {
        bail!(
            "{} has the label {}, and its file names {} classes",
            images.place(row).display(),
            labels[row],
            classes.len()
        );
    }
    Ok(Split::labelled(images, labels, classes, name))
}

/// Whether all images may lie in memory.
///
/// Errors: they may not, and are to be read in any order.
fn fit_in_memory(data: &DataConfig, tables: &[Table], columns: &[Columns]) -> Result<bool> {
    let sizes = tables.iter().zip(columns).map(|(table, columns)| table.unpacked_bytes(columns.image));
    let needed = sizes.fold(0u64, u64::saturating_add) as f64;
    let Some(free) = memory::bounds().free() else { return Ok(true) };
    let free = free as f64 * SHARE_OF_MEMORY;
    if needed <= free {
        return Ok(true);
    }
    if data.in_order {
        return Ok(false);
    }
    let gib = f64::from(1 << 30);
    bail!(
        "{}: its images take {:.1} GiB of memory, and {:.1} GiB may be used for them; `flatnce pack` writes them as shards, \
         which are read from the disk (--dataset-name shards)",
        data.root.display(),
        needed / gib,
        free / gib
    )
}

/// Finds the columns of a file.
fn columns(table: &Table) -> Result<Columns> {
    let all = table.columns();
    let notes: Value = table.note("huggingface").and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default();
    let features = notes.pointer("/info/features").and_then(Value::as_object);
    let of_type = |wanted: &str| -> Vec<&str> {
        let fields = features.into_iter().flatten();
        fields.filter(|(_, about)| about["_type"] == wanted).map(|(name, _)| name.as_str()).collect()
    };
    let find = |name: &str, holds: Holds| all.iter().position(|column| *column == (name.to_owned(), holds));
    let bytes_of = |name: &str| find(&format!("{name}.bytes"), Holds::Bytes).or_else(|| find(name, Holds::Bytes));
    let noted = of_type("Image");
    let usual = IMAGE_COLUMNS.iter().copied().filter(|name| noted.is_empty() || noted.contains(name));
    let only = (noted.len() == 1).then(|| noted[0]);
    let Some((name, image)) = usual.chain(only).find_map(|name| Some((name, bytes_of(name)?))) else {
        let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
        bail!("{} has no column of images (image or img); its columns are {}", table.path.display(), names.join(", "));
    };
    let noted = of_type("ClassLabel");
    let only = (noted.len() == 1).then(|| noted[0]);
    let label = LABEL_COLUMNS.into_iter().chain(only).find_map(|name| Some((name, find(name, Holds::WholeNumbers)?)));
    let classes = label.and_then(|(name, _)| {
        let names = features?.get(name)?.get("names")?.as_array()?.iter();
        names.map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    let name = find(&format!("{name}.path"), Holds::Bytes);
    Ok(Columns { image, name, label: label.map(|(_, column)| column), classes })
}

/// A label an image; `None` where all are missing, or -1, which stands for a label that is kept secret.
fn labels(tables: &[Table], columns: &[Columns], groups: &[Group]) -> Result<Option<Vec<i64>>> {
    let mut labels = Vec::new();
    for group in groups {
        let column = columns[group.table].label.context("a file has no labels")?;
        let read = tables[group.table].whole_numbers(group.number, column)?;
        labels.extend(read.into_iter().map(|label| label.unwrap_or(-1)));
    }
    let hidden = labels.iter().filter(|&&label| label == -1).count();
    if hidden == labels.len() {
        return Ok(None);
    }
    match labels.iter().position(|label| !(0..MOST_CLASSES).contains(label)) {
        Some(row) => bail!(
            "{} has the label {}; classes are numbered from 0 on (--labels none reads the images without them)",
            place(tables, groups, row).display(),
            labels[row]
        ),
        None => Ok(Some(labels)),
    }
}

/// The largest label of some files, which need not have any.
fn most_label(paths: &[PathBuf]) -> Result<i64> {
    let mut most = 0;
    for path in paths {
        let table = Table::open(path)?;
        let Some(column) = columns(&table)?.label else { continue };
        for group in 0..table.groups() {
            most = table.whole_numbers(group, column)?.into_iter().flatten().fold(most, i64::max);
        }
    }
    Ok(most)
}

/// The names of the images, where every one has a name that can be a file's.
fn names(tables: &[Table], columns: &[Columns], groups: &[Group], rows: usize) -> Result<Option<FileList>> {
    let mut names = FileList::new("");
    for group in groups {
        let Some(column) = columns[group.table].name else { return Ok(None) };
        let read = tables[group.table].blobs(group.number, column)?;
        for at in 0..read.len() {
            match std::str::from_utf8(read.get(at)) {
                Ok(name) if inside(name).is_ok() => names.push(Path::new(name)),
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(names).filter(|names| names.len() == rows))
}

/// `train-00000-of-00005.parquet, row 7`, with the directory.
fn place(tables: &[Table], groups: &[Group], row: usize) -> PathBuf {
    let group = groups[groups.partition_point(|group| group.first <= row).saturating_sub(1)];
    let first = groups.iter().find(|other| other.table == group.table).map_or(0, |group| group.first);
    let mut place = tables[group.table].path.clone().into_os_string();
    place.push(format!(", row {}", row - first));
    place.into()
}

impl Shared {
    fn load(&self, group: usize) -> Result<Blobs, String> {
        let Group { table, number, .. } = self.groups[group];
        let read = self.tables[table].blobs(number, self.columns[table]);
        read.map_err(|error| format!("{error:#}"))
    }

    /// A row group that may go again.
    fn few(&self, group: usize, kept: &Mutex<VecDeque<(usize, Loaded)>>) -> Loaded {
        // Others wait: they mostly want the same one.
        let mut kept = kept.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((_, loaded)) = kept.iter().find(|(number, _)| *number == group) {
            return Arc::clone(loaded);
        }
        let loaded = Arc::new(self.load(group));
        if kept.len() == KEPT_GROUPS {
            kept.pop_front();
        }
        kept.push_back((group, Arc::clone(&loaded)));
        loaded
    }
}

impl ParquetImages {
    fn bad(&self, index: usize, reason: &str) -> BadImage {
        BadImage { path: self.place(index), reason: reason.to_owned() }
    }

    /// Value `at` of a row group.
    fn value<'a>(&self, index: usize, loaded: &'a Result<Blobs, String>, at: usize) -> Result<&'a [u8], BadImage> {
        match loaded {
            Ok(blobs) if at < blobs.len() && !blobs.get(at).is_empty() => Ok(blobs.get(at)),
            Ok(_) => Err(self.bad(index, "its bytes are not in the file")),
            Err(error) => Err(self.bad(index, error)),
        }
    }
}

impl Images for ParquetImages {
    fn count(&self) -> usize {
        self.rows.len()
    }

    fn stored(&self, index: usize) -> Result<Stored<'_>, BadImage> {
        let (shared, row) = (&self.shared, self.rows[index] as usize);
        let group = shared.groups.partition_point(|group| group.first <= row) - 1;
        let at = row - shared.groups[group].first;
        Ok(Stored::Encoded(match &shared.held {
            Held::All(all) => self.value(index, all[group].get_or_init(|| shared.load(group)), at)?.into(),
            Held::Few(kept) => self.value(index, &shared.few(group, kept), at)?.to_vec().into(),
        }))
    }

    fn place(&self, index: usize) -> PathBuf {
        place(&self.shared.tables, &self.shared.groups, self.rows[index] as usize)
    }

    fn subset(&self, indices: &[usize]) -> Arc<dyn Images> {
        let rows = indices.iter().map(|&index| self.rows[index]).collect();
        Arc::new(ParquetImages { shared: Arc::clone(&self.shared), rows })
    }

    fn describe(&self) -> String {
        match &self.shared.tables[..] {
            [table] => format!("images in {}", table.path.display()),
            tables => format!("images in {} parquet files from {} on", grouped(tables.len()), tables[0].path.display()),
        }
    }

    /// Names, sizes and times of the files, and which rows.
    fn fingerprint(&self, hash: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.shared.tables.iter().try_for_each(|table| file_fingerprint(&table.path, hash))?;
        self.rows.iter().for_each(|row| hash(&row.to_le_bytes()));
        Ok(())
    }

    fn marks(&self) -> DataMarks {
        let (mut names, mut sizes) = (crc32fast::Hasher::new(), crc32fast::Hasher::new());
        for table in &self.shared.tables {
            names.update(table.path.file_name().unwrap_or_default().as_encoded_bytes());
            sizes.update(&table.length.to_le_bytes());
        }
        self.rows.iter().for_each(|row| names.update(&row.to_le_bytes()));
        DataMarks { names: names.finalize(), sizes: sizes.finalize(), ..DataMarks::default() }
    }

    fn file_name(&self, index: usize) -> Option<&Path> {
        self.shared.names.as_ref().map(|names| names.relative(self.rows[index] as usize))
    }
}
