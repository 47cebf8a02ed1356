//! Which archives are meant: patterns, directories and files of `--data`, and the parts of a data set by the names of
//! their shards.

use super::archive::unpacks;
use crate::config::Part;
use crate::data::parts::{TEST, TRAIN, VAL};
use crate::data::source::NoPart;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// More shards than that no pattern stands for.
const MOST_SHARDS: usize = 1_000_000;
/// The words for the images without labels.
const UNLABELLED: [&str; 2] = ["unlabelled", "unlabeled"];

/// The shards of a part.
#[derive(Debug)]
pub struct Chosen {
    pub shards: Vec<PathBuf>,
    /// The part's name: the word in the names of the shards.
    pub word: &'static str,
    pub notes: Vec<String>,
}

/// Every shard that `roots` mean, sorted, each once.
///
/// Errors: nothing is there; an archive that is compressed, with the command that unpacks it.
pub fn shards(roots: &[&Path]) -> Result<Vec<PathBuf>> {
    let mut found = BTreeSet::new();
    for &root in roots {
        let mut here = Vec::new();
        if root.is_dir() {
            here = archives_in(root)?;
            for directory in part_directories(root)? {
                here.extend(archives_in(&directory)?);
            }
        } else if root.exists() {
            refuse_compressed(root)?;
            here.push(root.to_path_buf());
        } else {
            here = matching(root)?;
        }
        if here.is_empty() {
            bail!(
                "{} is no shard: give a directory of .tar files, a file, or a pattern in quotes, as \
                 --data 'DIR/train-*.tar' or --data 'DIR/train-{{0000..0099}}.tar'",
                root.display()
            );
        }
        found.extend(here);
    }
    Ok(found.into_iter().collect())
}

/// Those of `found` that belong to a part; for the test part and for the classes of the training part also what lies
/// beside them.
///
/// Errors: none does ([`NoPart`] where there is no such part at all), with what was looked for.
pub fn of_part(found: &[PathBuf], part: Part) -> Result<Chosen> {
    let words: BTreeSet<&str> = found.iter().filter_map(|path| word_of(path)).collect();
    let of = |word: &'static str, all: &[PathBuf]| -> Vec<PathBuf> {
        all.iter().filter(|path| word_of(path) == Some(word)).cloned().collect()
    };
    if words.is_empty() && part != Part::Test {
        return Ok(Chosen { shards: found.to_vec(), word: "train", notes: Vec::new() });
    }
    // The first of them counts that shards have.
    let wanted = match part {
        Part::Train => TRAIN.to_vec(),
        Part::Test => [&TEST[..], &VAL].concat(),
        Part::Unlabelled => [UNLABELLED, TRAIN].concat(),
    };
    let beside = beside(found)?;
    let mut all: Vec<&[PathBuf]> = vec![found];
    // Images without labels are an offer of the one who packed them; nobody has to want them.
    if part != Part::Unlabelled || !words.contains("train") && !words.contains("training") {
        all.push(&beside);
    }
    for place in all {
        if let Some(&word) = wanted.iter().find(|&&word| place.iter().any(|path| word_of(path) == Some(word))) {
            let shards = of(word, place);
            return Ok(Chosen { notes: passed_over(found, part), shards, word });
        }
    }
    Err(absent(found, part, &wanted))
}

/// What is said of shards whose names name no part, where others do.
fn passed_over(found: &[PathBuf], part: Part) -> Vec<String> {
    let nameless: Vec<&PathBuf> = found.iter().filter(|path| word_of(path).is_none()).collect();
    let Some(first) = nameless.first().filter(|_| part != Part::Test) else { return Vec::new() };
    let count = nameless.len();
    let (are, names) = if count == 1 { ("shard is", "name names") } else { ("shards are", "names name") };
    vec![format!("{count} {are} passed over, whose {names} no part: {}", first.display())]
}

fn absent(found: &[PathBuf], part: Part, wanted: &[&str]) -> anyhow::Error {
    let directories: BTreeSet<String> = found.iter().map(|path| parent(path).display().to_string()).collect();
    let names: Vec<String> = wanted.iter().map(|word| format!("{word}-*.tar")).collect();
    let (directories, names) = (directories.into_iter().collect::<Vec<_>>().join(", "), names.join(", "));
    let what = if part == Part::Test { "test images" } else { "training images" };
    NoPart(format!("no shards of {what}: looked for {names}, and directories of these names, in {directories}")).into()
}

/// The archives beside `found` that belong to the same set: only the word for the part differs in what stands before it.
fn beside(found: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let (mut beside, mut places, mut directories) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for path in found {
        if let Some((before, _)) = word_in(path) {
            places.insert((parent(path).to_path_buf(), before));
        } else if let Some(above) = part_of_directory(parent(path)).and(parent(path).parent()) {
            directories.insert(above.to_path_buf());
        }
    }
    for (directory, before) in &places {
        let same = |path: &PathBuf| word_in(path).is_some_and(|(other, _)| other == *before);
        beside.extend(archives_in(directory)?.into_iter().filter(same));
    }
    for directory in &directories {
        for part in part_directories(if directory.as_os_str().is_empty() { Path::new(".") } else { directory })? {
            beside.extend(archives_in(&part)?);
        }
    }
    Ok(beside.into_iter().collect())
}

/// The word for a part that a shard's name has, or the directory that it lies in.
fn word_of(path: &Path) -> Option<&'static str> {
    word_in(path).map(|(_, word)| word).or_else(|| part_of_directory(parent(path)))
}

/// The first word for a part in the name of a file, and what stands before it. Whatever is no letter ends a word.
fn word_in(path: &Path) -> Option<(String, &'static str)> {
    let name = path.file_stem()?.to_string_lossy().to_lowercase();
    let mut at = 0;
    for text in name.split(|c: char| !c.is_ascii_alphabetic()) {
        if let Some(word) = part_word(text) {
            return Some((name[..at].to_owned(), word));
        }
        at += text.len();
        at += name[at..].chars().next().map_or(0, char::len_utf8);
    }
    None
}

fn part_word(text: &str) -> Option<&'static str> {
    let all = TRAIN.iter().chain(&TEST).chain(&VAL).chain(&UNLABELLED);
    all.copied().find(|word| word.eq_ignore_ascii_case(text))
}

fn part_of_directory(directory: &Path) -> Option<&'static str> {
    part_word(&directory.file_name()?.to_string_lossy())
}

/// The directory that shards lie in, and, where that is one part of a set, the directory above it.
pub fn homes(shard: &Path) -> Vec<PathBuf> {
    let directory = parent(shard);
    let above = part_of_directory(directory).and(directory.parent());
    std::iter::once(directory).chain(above).map(Path::to_path_buf).collect()
}

fn parent(path: &Path) -> &Path {
    crate::durable::parent(path)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let unreadable = || format!("the directory {} cannot be read", directory.display());
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory).with_context(unreadable)? {
        let entry = entry.with_context(unreadable)?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            // The directory that is meant when none is written is not part of a name.
            paths.push(if directory == Path::new(".") { entry.file_name().into() } else { entry.path() });
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

fn part_directories(directory: &Path) -> Result<Vec<PathBuf>> {
    Ok(entries(directory)?.into_iter().filter(|path| part_of_directory(path).is_some() && path.is_dir()).collect())
}

/// The archives that lie in a directory.
///
/// Errors: one that is compressed and has not been unpacked beside it.
fn archives_in(directory: &Path) -> Result<Vec<PathBuf>> {
    let all = entries(directory)?;
    let mut archives = Vec::new();
    for path in &all {
        if has_extension(path, "tar") {
            archives.push(path.clone());
        } else if !all.contains(&path.with_extension("")) && !all.contains(&path.with_extension("tar")) {
            refuse_compressed(path)?;
        }
    }
    Ok(archives)
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(wanted))
}

/// Refuses `x.tar.gz`, `x.tgz` and their like.
fn refuse_compressed(path: &Path) -> Result<()> {
    let Some(extension) = path.extension().and_then(|extension| extension.to_str()) else { return Ok(()) };
    let of_tar = has_extension(Path::new(path.file_stem().unwrap_or_default()), "tar")
        || extension.to_ascii_lowercase().starts_with('t');
    if let Some(command) = unpacks(extension).filter(|_| of_tar) {
        bail!(
            "{0} is compressed, and images are read at random from uncompressed archives: unpack it with `{command} {0}`",
            path.display()
        );
    }
    Ok(())
}

/// The files that a pattern stands for: `*`, `?`, `[abc]`, and WebDataset's `{0000..0099}` and `{a,b}`.
///
/// Errors: a file that braces name is not there; a pattern that is none.
pub fn matching(pattern: &Path) -> Result<Vec<PathBuf>> {
    let Some(text) = pattern.to_str() else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    let mut missing = None;
    let patterns = braces(text)?;
    for one in &patterns {
        let paths = glob::glob(one).with_context(|| format!("{one} is no pattern of files"))?;
        let before = found.len();
        for path in paths {
            found.push(path.with_context(|| format!("the files of {one} cannot be listed"))?);
        }
        if found.len() == before && missing.is_none() {
            missing = Some(one);
        }
    }
    if let (Some(missing), false) = (missing, found.is_empty()) {
        bail!("{missing} is not there, and {} names it", pattern.display());
    }
    found.retain(|path| path.is_file());
    found.iter().try_for_each(|path| refuse_compressed(path))?;
    Ok(found)
}

/// What stands for a text with braces: `a{0..2}{x,y}` is `a0x a0y a1x ...`. Braces that hold neither are kept.
fn braces(text: &str) -> Result<Vec<String>> {
    let open = text.find('{').and_then(|open| Some((open, open + text[open..].find('}')?)));
    let Some((open, close)) = open else { return Ok(vec![text.to_owned()]) };
    let (inside, rest) = (&text[open + 1..close], braces(&text[close + 1..])?);
    let choices = match inside.split_once("..") {
        Some((first, last)) => numbers(first, last)?,
        None if inside.contains(',') => inside.split(',').map(str::to_owned).collect(),
        None => vec![format!("{{{inside}}}")],
    };
    if choices.len().saturating_mul(rest.len()) > MOST_SHARDS {
        bail!("{text} stands for more than {MOST_SHARDS} files");
    }
    let before = &text[..open];
    Ok(choices.iter().flat_map(|choice| rest.iter().map(move |rest| format!("{before}{choice}{rest}"))).collect())
}

/// `08..11` as 08, 09, 10, 11: as many digits as the ends have.
fn numbers(first: &str, last: &str) -> Result<Vec<String>> {
    let bounds = first.parse::<u32>().ok().zip(last.parse::<u32>().ok()).filter(|(first, last)| first <= last);
    let Some((from, to)) = bounds.filter(|(from, to)| ((to - from) as usize) < MOST_SHARDS) else {
        bail!("{{{first}..{last}}} is no range of numbers, as in {{0000..0099}}");
    };
    let padded = first.starts_with('0') && first.len() > 1 || last.starts_with('0') && last.len() > 1;
    let digits = if padded { first.len().max(last.len()) } else { 0 };
    Ok((from..=to).map(|number| format!("{number:0digits$}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn braces_stand_for_numbers_and_words() {
        let all = |text: &str| braces(text).unwrap().join(" ");
        assert_eq!(all("a{08..11}.tar"), "a08.tar a09.tar a10.tar a11.tar");
        assert_eq!(all("a{0..1}{x,y}"), "a0x a0y a1x a1y");
        assert_eq!(
            (all("a{8..10}"), all("{a}-}{"), all("plain")),
            ("a8 a9 a10".into(), "{a}-}{".into(), "plain".into())
        );
        for refused in ["{9..3}", "{a..z}", "{0..9999999}", "{0..999}{0..999}{0..999}"] {
            assert!(braces(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn a_part_is_named_by_a_word() {
        let word = |path: &str| word_of(Path::new(path));
        for (path, part) in [
            ("train-0000.tar", Some("train")),
            ("x/imagenet1k-validation-00.tar", Some("validation")),
            ("x/TRAIN/0001.tar", Some("train")),
            ("x/test/train-1.tar", Some("train")),
            ("x/trainer-0.tar", None),
            ("contest-0.tar", None),
            ("0001.tar", None),
        ] {
            assert_eq!(word(path), part, "{path}");
        }
        assert_eq!(word_in(Path::new("a-train-1.tar")).unwrap().0, "a-");
    }
}
