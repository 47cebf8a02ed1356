//! The index of a large tree: kept, believed while it holds, made anew when it does not.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use flatnce::data::indexed_in;

const PER_CLASS: usize = 4_000;
const CLASSES: [&str; 3] = ["cat", "dog", "eel"];

/// A tree of 12,000 empty files, and a place for its index.
struct Place {
    _temporary: tempfile::TempDir,
    tree: PathBuf,
    cache: PathBuf,
}

fn place() -> Place {
    let temporary = tempfile::tempdir().unwrap();
    let (tree, cache) = (temporary.path().join("tree"), temporary.path().join("cache"));
    for class in CLASSES {
        fs::create_dir_all(tree.join(class)).unwrap();
        for number in 0..PER_CLASS {
            File::create(tree.join(class).join(format!("{number}.jpg"))).unwrap();
        }
    }
    Place { _temporary: temporary, tree, cache }
}

/// Waits until every directory has rested as long as it must to be believed: 3 seconds, counted in whole ones.
fn rest(place: &Place) {
    let classes = fs::read_dir(&place.tree).unwrap().map(|entry| entry.unwrap().path());
    let changed = classes.chain([place.tree.clone()]).map(|path| fs::metadata(path).unwrap().ctime()).max();
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64;
    while now() < changed.unwrap() + 3 {
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Names, counts, and whether they came from the index.
fn look(root: &Path, cache: &Path) -> (Vec<PathBuf>, Vec<usize>, bool) {
    let (tree, kept) = indexed_in(root, Some(cache)).unwrap();
    let names = (0..tree.files.len()).map(|index| tree.files.path(index)).collect();
    (names, tree.classes.iter().map(|(_, count)| *count).collect(), kept)
}

fn only_file(cache: &Path) -> PathBuf {
    let mut files = fs::read_dir(cache).unwrap().map(|entry| entry.unwrap().path());
    let file = files.next().expect("an index");
    assert!(files.next().is_none(), "one tree has one index");
    file
}

#[test]
fn an_index_is_believed_until_a_directory_changes() {
    let place = place();
    let (names, counts, kept) = look(&place.tree, &place.cache);
    assert!(!kept && counts == [PER_CLASS; 3] && names.len() == 3 * PER_CLASS);
    assert!(!place.cache.exists(), "directories that have just changed may change again within the same tick");
    rest(&place);
    assert!(!look(&place.tree, &place.cache).2, "nothing was kept yet");
    assert_eq!(look(&place.tree, &place.cache), (names.clone(), counts, true));

    // The same tree by another path: the same index, with that path before the names.
    let other = place.tree.join("../tree");
    let (again, _, kept) = look(&other, &place.cache);
    assert!(kept && again[0] == other.join("cat/0.jpg"), "{}", again[0].display());
    only_file(&place.cache);

    // Each change is seen at once: a file more, one less, one renamed, a class more, one below a class.
    let changes: [(&str, &dyn Fn()); 5] = [
        ("added", &|| drop(File::create(place.tree.join("dog/new.jpg")).unwrap())),
        ("removed", &|| fs::remove_file(place.tree.join("eel/7.jpg")).unwrap()),
        ("renamed", &|| fs::rename(place.tree.join("cat/1.jpg"), place.tree.join("cat/one.jpg")).unwrap()),
        ("a class", &|| fs::create_dir(place.tree.join("fox")).unwrap()),
        ("nested", &|| drop(File::create(place.tree.join("fox/deep.png")).unwrap())),
    ];
    for (what, change) in changes {
        change();
        let (fresh, _, kept) = look(&place.tree, &place.cache);
        assert!(!kept, "{what}: believed");
        let (plain, _) = indexed_in(&place.tree, None).unwrap();
        assert_eq!(fresh.len(), plain.files.len(), "{what}");
    }
    // The settled tree is kept again, with the change in it.
    rest(&place);
    look(&place.tree, &place.cache);
    let (names, counts, kept) = look(&place.tree, &place.cache);
    assert!(kept && counts == [PER_CLASS, PER_CLASS + 1, PER_CLASS - 1, 1]);
    assert!(names.iter().any(|name| name.file_name() == Some(OsStr::new("deep.png"))));
}

#[test]
fn a_damaged_index_is_made_anew() {
    let place = place();
    rest(&place);
    let (names, _, _) = look(&place.tree, &place.cache);
    let file = only_file(&place.cache);
    let whole = fs::read(&file).unwrap();
    let mut damaged: Vec<Vec<u8>> =
        [0, 3, 16, 40, whole.len() / 2, whole.len() - 1].iter().map(|&length| whole[..length].to_vec()).collect();
    for place in [0, 17, 60, whole.len() / 3, whole.len() - 5, whole.len() - 1] {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        damaged.push(changed);
    }
    for bytes in damaged {
        fs::write(&file, &bytes).unwrap();
        let (found, _, kept) = look(&place.tree, &place.cache);
        assert!(!kept, "{} bytes were believed", bytes.len());
        assert_eq!(found, names);
        assert_eq!(fs::read(&file).unwrap(), whole, "the index is whole again");
    }
    // The index of another tree, under this one's name.
    let other = tempfile::tempdir().unwrap();
    fs::create_dir(other.path().join("cat")).unwrap();
    File::create(other.path().join("cat/0.jpg")).unwrap();
    look(other.path(), &place.cache);
    only_file(&place.cache); // A small tree is not worth a file.

    // A place that cannot be written is no error.
    let blocked = place.tree.parent().unwrap().join("blocked");
    File::create(&blocked).unwrap();
    assert_eq!(look(&place.tree, &blocked.join("below")).0, names);
}

#[test]
fn the_program_keeps_an_index_and_sees_a_new_image() {
    let place = place();
    let mut picture = std::io::Cursor::new(Vec::new());
    image::RgbImage::new(1, 1).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let picture = picture.into_inner();
    for class in CLASSES {
        (0..PER_CLASS).for_each(|n| fs::write(place.tree.join(class).join(format!("{n}.jpg")), &picture).unwrap());
    }
    rest(&place);
    let results = place.tree.parent().unwrap().join("results");
    let run = |off: bool| {
        let mut command = assert_cmd::Command::cargo_bin("flatnce").unwrap();
        command.env("XDG_CACHE_HOME", &place.cache).env("OMP_NUM_THREADS", "1");
        command.env("FLATNCE_INDEX_CACHE", if off { "off" } else { "on" });
        command.args(["--dataset-name=folder", "--model=res10", "--epochs=0", "--batch-size=8", "--device=cpu"]);
        command.args(["--image-size=32"]);
        command.arg("--data").arg(&place.tree).arg("--save-dir").arg(&results);
        let output = command.assert().success().get_output().clone();
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
    };
    assert!(run(true).contains("12,000 image files"));
    let indexes = place.cache.join("flatnce/index");
    assert!(!indexes.exists(), "turned off");
    assert!(run(false).contains("12,000 image files"));
    only_file(&indexes);
    assert!(run(false).contains("12,000 image files"));
    fs::write(place.tree.join("cat/new.jpg"), &picture).unwrap();
    assert!(run(false).contains("12,001 image files"));
}
