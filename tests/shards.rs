//! Images in tar archives: what is found in them, how they are labelled, what is wrong with them; and packing.

#[allow(dead_code, reason = "this test writes other sets")]
#[path = "support/formats.rs"]
mod formats;
#[path = "support/program.rs"]
mod program;
#[path = "support/tars.rs"]
mod tars;
#[allow(dead_code, reason = "this test needs some of them")]
#[path = "support/trees.rs"]
mod trees;

use flatnce::augment::{Filter, Renderer};
use flatnce::config::{DataConfig, DatasetName, Labels, Orientation};
use flatnce::data::{self, Part, Split, Stored, semi_subset};
use flatnce::pixels::RgbImage;
use flatnce::rng::{Purpose, Stream};
use program::{find_run, flatnce, run_directory, said, save_dir, start, succeeds};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tar::EntryType;
use tars::{closed, golden, pax, raw, tar};
use tempfile::TempDir;

const IMAGES: [&str; 6] = ["420.jpg", "rgb.png", "grey.JPG", "progressive.jpeg", "palette.png", "cmyk.jpg"];

fn image(number: usize) -> Vec<u8> {
    golden(IMAGES[number % IMAGES.len()])
}

fn place() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn config(roots: &[&Path]) -> DataConfig {
    let more = roots[1..].iter().map(|root| root.to_path_buf()).collect();
    DataConfig { more_roots: more, ..DataConfig::new(DatasetName::Shards, roots[0], 16) }
}

fn load(root: impl AsRef<Path>, part: Part) -> Split {
    data::load(&config(&[root.as_ref()]), part).unwrap_or_else(|error| panic!("{error:#}"))
}

fn refused(root: impl AsRef<Path>, part: Part) -> String {
    format!("{:#}", data::load(&config(&[root.as_ref()]), part).expect_err("an error was expected"))
}

/// The error must hold every one of `words`.
fn fails(root: impl AsRef<Path>, part: Part, words: &[&str]) {
    let error = refused(root, part);
    words.iter().for_each(|word| assert!(error.contains(word), "{error:?} should contain {word:?}"));
}

fn names(split: &Split) -> Vec<String> {
    (0..split.len()).map(|index| split.file_name(index).unwrap().to_string_lossy().into_owned()).collect()
}

fn encoded(split: &Split, index: usize) -> Vec<u8> {
    match split.images.stored(index).unwrap() {
        Stored::Encoded(bytes) => bytes.into_owned(),
        Stored::Pixels(_) => panic!("an encoded image was expected"),
    }
}

/// An archive of samples with labels, and a file for each image with a class directory above it.
fn samples(count: usize, label: impl Fn(usize) -> String) -> Vec<u8> {
    let members = (0..count).flat_map(|number| {
        [(format!("{number:04}.cls"), label(number).into_bytes()), (format!("{number:04}.jpg"), image(number))]
    });
    let members: Vec<(String, Vec<u8>)> = members.collect();
    tar(members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())))
}

#[test]
fn images_come_as_they_lie_whatever_wrote_the_archive() {
    let place = place();
    let long = format!("{}/{}.jpg", "d".repeat(120), "x".repeat(150));
    let (first, second) = (image(0), image(1));
    let of_tar = tar([("a/1.jpg", first.clone()), (long.as_str(), second.clone())]);
    let by_hand = closed(&[
        raw(b"./a/2.png", EntryType::Regular, &second),
        raw(b"a/", EntryType::Directory, b""),
        pax(&[("comment", "of nobody"), ("path", "a/\u{e9}\n3.jpg"), ("size", &first.len().to_string())], &first),
        raw(b"a/link.jpg", EntryType::Symlink, b""),
        raw(b"/etc/../x", EntryType::Regular, &second),
        raw(b"../../up.jpg", EntryType::Regular, &first),
        raw(b"a/.hidden.jpg", EntryType::Regular, &first),
        raw(b"a/notes.md", EntryType::Regular, b"# nothing"),
    ]);
    fs::write(place.path().join("1.tar"), of_tar).unwrap();
    fs::write(place.path().join("2.tar"), by_hand).unwrap();
    let split = load(place.path(), Part::Unlabelled);
    assert_eq!(names(&split), ["a/1.jpg", &long, "a/2.png", "a/\u{e9}\n3.jpg", "/etc/../x", "../../up.jpg"]);
    for (index, bytes) in [&first, &second, &second, &first, &second, &first].into_iter().enumerate() {
        assert!(&encoded(&split, index) == bytes, "image {index}");
        let Stored::Encoded(beginning) = split.images.beginning(index, 100).unwrap() else { panic!() };
        assert_eq!(*beginning, bytes[..100]);
    }
    let at = split.images.place(5).display().to_string();
    assert!(at.ends_with("2.tar: ../../up.jpg"), "{at}");
    let notes = split.notes.join("\n");
    assert!(notes.contains("links (1)") && notes.contains("hidden files (1)") && notes.contains(".md (1)"), "{notes}");
    // In whatever order, and of whatever files: the same marks wherever the archives lie, others for other images.
    let subset = split.subset(&[5, 0]);
    assert!(encoded(&subset, 1) == first && names(&subset) == ["../../up.jpg", "a/1.jpg"]);
    let elsewhere = self::place();
    ["1.tar", "2.tar"].iter().for_each(|name| {
        fs::copy(place.path().join(name), elsewhere.path().join(name)).unwrap();
    });
    assert_eq!(load(elsewhere.path(), Part::Unlabelled).marks(), split.marks());
    fs::remove_file(elsewhere.path().join("1.tar")).unwrap();
    let fewer = load(elsewhere.path(), Part::Unlabelled);
    assert!(split.marks().differ(&fewer.marks()).is_some());
    let print = |split: &Split| {
        let mut all = Vec::new();
        split.images.fingerprint(&mut |bytes| all.extend_from_slice(bytes)).unwrap();
        all
    };
    assert!(print(&split) == print(&load(place.path(), Part::Unlabelled)) && print(&split) != print(&fewer));
}

#[test]
fn labels_are_those_beside_the_images() {
    let place = place();
    let file = place.path().join("x.tar");
    let one = |beside: &dyn Fn(usize) -> Vec<(&'static str, String)>| {
        let mut members = Vec::new();
        for number in 0..12 {
            members.push((format!("d{}/{number:02}.jpg", number % 3), image(number)));
            for (extension, text) in beside(number) {
                members.push((format!("d{}/{number:02}.{extension}", number % 3), text.into_bytes()));
            }
        }
        fs::write(&file, tar(members.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())))).unwrap();
        load(&file, Part::Train)
    };
    // Numbers sort as numbers; .cls comes before all others.
    let split = one(&|n| vec![("cls", format!("{}\n", [10, 9, 100][n % 3])), ("json", r#"{"label": 1}"#.into())]);
    assert_eq!(split.classes, ["9", "10", "100"]);
    assert_eq!(split.labels.as_ref().unwrap()[..4], [1, 0, 2, 1]);
    assert!(split.notes.iter().any(|note| note.contains(".cls")), "{:?}", split.notes);
    let named = |n: usize| format!(r#"{{"class": {}, "class_name": "{}", "url": "x"}}"#, n % 2, ["cat", "dog"][n % 2]);
    let split = one(&|n| vec![("json", named(n)), ("txt", "a caption".into())]);
    assert_eq!(
        (split.classes.as_slice(), split.labels.unwrap()[1]),
        (["cat".to_owned(), "dog".to_owned()].as_slice(), 1)
    );
    let split = one(&|n| vec![("txt", ["dog", "cat"][n % 2].into())]);
    assert_eq!((split.classes.join(" "), split.labels.unwrap()[0]), ("cat dog".into(), 1));
    // Captions are none, and then the directories are.
    let split = one(&|n| vec![("txt", format!("photograph number {n}")), ("json", r#"{"url": "x"}"#.into())]);
    assert_eq!(split.classes, ["d0", "d1", "d2"]);
    let notes = split.notes.join("\n");
    assert!(notes.contains("captions") && notes.contains("directories"), "{notes}");
    let asked = |labels| data::load(&DataConfig { labels: Some(labels), ..config(&[&file]) }, Part::Train).unwrap();
    assert_eq!(asked(Labels::None).labels, None);
    one(&|n| vec![("cls", n.to_string())]);
    assert_eq!(asked(Labels::Directories).classes, ["d0", "d1", "d2"]);
    // One that lacks its label, or has a bad one.
    let broken = |text: &str, words: &[&str]| {
        let members = [("1.jpg", image(0)), ("1.cls", b"3".to_vec()), ("2.jpg", image(1)), ("2.cls", text.into())];
        fs::write(&file, tar(members)).unwrap();
        fails(&file, Part::Train, words);
    };
    broken("", &["2.jpg has no label in a .cls", "2.cls is empty", "1.jpg has one", "--labels none"]);
    broken("1\n2", &["2.cls has several lines"]);
    broken("-1", &["2.jpg has the label -1", "no class"]);
}

#[test]
fn samples_are_what_has_one_key() {
    let place = place();
    let (a, b) = (image(0), image(1));
    // What tar packs is in no order: labels far from their images.
    let scattered = [
        ("x/2.cls", b"1".to_vec()),
        ("x/1.jpg", a.clone()),
        ("x/1.seg.png", b.clone()),
        ("x/2.jpg", b.clone()),
        ("x/1.cls", b"0".to_vec()),
        ("y/names.with.dots.jpg", a.clone()),
        ("y/names.with.more.jpg", b.clone()),
        ("y/names.cls", b"1".to_vec()),
    ];
    fs::write(place.path().join("x.tar"), tar(scattered)).unwrap();
    let split = load(place.path(), Part::Train);
    assert_eq!(names(&split), ["x/1.jpg", "x/2.jpg", "y/names.with.dots.jpg", "y/names.with.more.jpg"]);
    assert_eq!(split.labels.as_deref(), Some([0, 1, 1, 1].as_slice()));
    assert!(split.notes.join(" ").contains("further images of a sample (1)"), "{:?}", split.notes);
}

#[test]
fn parts_and_classes_belong_together() {
    let place = place();
    let write = |name: &str, bytes: Vec<u8>| formats::write(place.path(), name, bytes);
    write("set-train-0000.tar", samples(8, |n| (n % 4 * 5).to_string()));
    write("set-train-0001.tar", samples(4, |_| "2".into()));
    write("set-val-00.tar", samples(4, |_| "15".into()));
    write("other-test-0.tar", samples(4, |_| "7".into()));
    let pattern = place.path().join("set-train-{0000..0001}.tar");
    let train = load(&pattern, Part::Train);
    assert_eq!((train.len(), train.classes.join(" ")), (12, "0 2 5 10 15".into()));
    assert_eq!(train.labels.as_ref().unwrap()[8..], [1; 4]);
    // The test part lies beside it, under the same name, and has the same classes.
    for root in [pattern.clone(), place.path().join("set-train-*.tar"), place.path().join("set-train-0000.tar")] {
        let test = load(&root, Part::Test);
        assert_eq!((test.len(), test.name.as_str()), (4, "shards val"));
        assert_eq!(test.labels.unwrap()[0] as usize, test.classes.iter().position(|name| name == "15").unwrap());
    }
    assert_eq!(load(&pattern, Part::Test).classes, train.classes);
    write("set-val-00.tar", samples(4, |_| "3".into()));
    fails(&pattern, Part::Test, &["set-val-00.tar: 0000.jpg has the label 3", "no training image"]);
    // A list of the classes gives names, and numbers that no image has.
    write("classnames.txt", (0..16).map(|n| format!("class {n}\n")).collect::<String>().into_bytes());
    assert_eq!(load(&pattern, Part::Test).classes[3], "class 3");
    assert_eq!(load(&pattern, Part::Train).labels.unwrap()[8], 2);
    write("classes.txt", b"one\ntwo\n".to_vec());
    fails(&pattern, Part::Train, &["classes.txt", "classnames.txt", "different classes"]);
    fs::remove_file(place.path().join("classnames.txt")).unwrap();
    fails(&pattern, Part::Train, &["has the label 5", "classes.txt names 2 classes"]);

    // Directories of parts; several roots; shards that name no part.
    let other = self::place();
    let write = |name: &str, bytes: Vec<u8>| formats::write(other.path(), name, bytes);
    write("train/0.tar", samples(3, |n| format!("c{n}")));
    write("validation/0.tar", samples(2, |_| "c2".into()));
    assert_eq!(load(other.path(), Part::Train).len(), 3);
    assert_eq!(load(other.path(), Part::Test).labels.unwrap(), [2, 2]);
    assert_eq!(load(other.path().join("train"), Part::Test).labels.unwrap(), [2, 2]);
    let both = config(&[&other.path().join("train/0.tar"), &other.path().join("train/*.tar"), &pattern]);
    let _ = fs::remove_file(place.path().join("classes.txt"));
    assert_eq!(data::load(&both, Part::Train).unwrap().len(), 15);
    let alone = self::place();
    formats::write(alone.path(), "0.tar", samples(2, |_| "0".into()));
    assert_eq!(load(alone.path(), Part::Train).len(), 2);
    fails(alone.path(), Part::Test, &["no shards of test images", "test-*.tar", "val-*.tar", "dev-*.tar"]);
    fails(alone.path().join("{0..1}.tar"), Part::Train, &["1.tar is not there", "{0..1}"]);
    fails(alone.path().join("no-*.tar"), Part::Train, &["no-*.tar is no shard", "{0000..0099}"]);
}

#[test]
fn what_is_no_whole_archive_is_refused_by_name_and_place() {
    let place = place();
    let file = place.path().join("train-0.tar");
    let whole = samples(4, |n| n.to_string());
    let broken = |bytes: &[u8], words: &[&str]| {
        fs::write(&file, bytes).unwrap();
        fails(&file, Part::Train, &[&["train-0.tar cannot be used as a shard"], words].concat());
    };
    broken(&whole[..whole.len() - 1024], &["it ends at byte", "truncated"]);
    broken(&whole[..2000], &["bytes, of which", "truncated"]);
    broken(b"", &["ends at byte 0"]);
    broken(&b"no archive at all, but text ".repeat(100), &["at byte 0 is no header"]);
    broken(&[whole.clone(), whole.clone()].concat(), &["behind its end", "several archives in one file"]);
    broken(&closed(&[raw(b"x", EntryType::GNULongName, &[b'y'; 3 << 20])]), &["a name of 3145728 bytes"]);
    broken(&closed(&[raw(b"x", EntryType::XHeader, b"99 path=a\n")]), &["pax records that are none"]);
    let huge = pax(&[("path", "x.jpg"), ("size", &u64::MAX.to_string())], b"");
    broken(&closed(&[huge]), &["18446744073709551615 bytes", "truncated"]);
    fs::write(&file, closed(&[raw(b"x.md", EntryType::Regular, b"nothing")])).unwrap();
    fails(&file, Part::Train, &["train-0.tar holds no image", ".md (1)"]);
    // Compressed ones, by their names and by what is in them.
    let gz = formats::gzip(&whole);
    broken(&gz, &["compressed", "gunzip -k"]);
    fs::remove_file(&file).unwrap();
    for (name, command) in
        [("a.tar.gz", "gunzip -k"), ("a.tgz", "gunzip -k"), ("a.tar.zst", "zstd -d"), ("a.txz", "xz -dk")]
    {
        let file = place.path().join(name);
        fs::write(&file, &gz).unwrap();
        fails(place.path(), Part::Train, &[name, "compressed", command]);
        fails(&file, Part::Train, &[name, command]);
        fs::remove_file(file).unwrap();
    }
    fs::write(place.path().join("a.tar.gz"), &gz).unwrap();
    fs::write(place.path().join("a.tar"), &whole).unwrap();
    assert_eq!(load(place.path(), Part::Train).len(), 4, "it has been unpacked");
}

#[test]
fn a_shard_that_changes_is_noticed() {
    let place = place();
    let file = place.path().join("x.tar");
    fs::write(&file, samples(4, |n| n.to_string())).unwrap();
    let split = load(&file, Part::Train);
    assert!(split.images.stored(3).is_ok());
    fs::File::options().write(true).open(&file).unwrap().set_len(3000).unwrap();
    let error = split.images.stored(3).unwrap_err().to_string();
    assert!(error.contains("x.tar: 0003.jpg") && error.contains("has changed since it was indexed"), "{error}");
    fs::remove_file(&file).unwrap();
    fs::write(&file, samples(4, |n| n.to_string())).unwrap();
    let split = load(&file, Part::Train);
    fs::remove_file(&file).unwrap();
    assert!(split.images.stored(0).unwrap_err().to_string().contains("x.tar: 0000.jpg"));
}

#[test]
fn mutated_archives_are_errors_or_lists() {
    let place = place();
    let file = place.path().join("x.tar");
    let long = format!("{}.jpg", "x".repeat(150));
    let label = || b"0".to_vec();
    let members =
        tar([("1.jpg", image(0)), ("1.cls", label()), (&long, image(1)), (&long.replace("jpg", "cls"), label())]);
    let whole = closed(&[
        members[..members.len() - 1024].to_vec(),
        pax(&[("path", "a/2.jpg"), ("size", "700")], &[0xff; 700]),
        raw(b"a/2.cls", EntryType::Regular, b"0"),
        raw(b"3.json", EntryType::Regular, br#"{"label": 4, "class_name": "x"}"#),
    ]);
    let mut draw = Stream::new(7, Purpose::Subset, 0, 0, 0);
    let mut lists = 0;
    for _ in 0..500 {
        let mut bytes = whole.clone();
        for _ in 0..1 + draw.below(4) {
            let at = draw.below(bytes.len() as u64) as usize;
            match draw.below(4) {
                0 => bytes[at] = draw.below(256) as u8,
                1 => bytes[at] ^= 1 << draw.below(8),
                2 => bytes.truncate(at.max(1)),
                // Headers are few: most of what is there is pixels.
                _ => {
                    let place = at / 512 * 512 + draw.below(160) as usize;
                    let last = bytes.len() - 1;
                    bytes[place.min(last)] = draw.below(256) as u8;
                }
            }
        }
        // Half of them with sums that are right.
        if draw.below(2) == 0 {
            mend(&mut bytes);
        }
        fs::write(&file, &bytes).unwrap();
        match data::load(&config(&[&file]), Part::Unlabelled) {
            Ok(split) => {
                lists += 1;
                (0..split.len()).for_each(|index| drop(split.image(index, &mut RgbImage::default())));
            }
            Err(error) => assert!(format!("{error:#}").contains("x.tar"), "{error:#}"),
        }
    }
    assert!((50..450).contains(&lists), "{lists} of 500 were lists");
}

/// Makes the sums of whatever looks like a header right.
fn mend(bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
        let mut header = tar::Header::from_byte_slice(block).clone();
        header.set_cksum();
        block.copy_from_slice(header.as_bytes());
    }
}

#[test]
fn an_index_is_kept_and_believed_while_the_shards_stay_as_they_are() {
    let place = place();
    let (file, cache) = (place.path().join("train-0.tar"), place.path().join("cache"));
    let image = golden("one_bit.png");
    let members: Vec<String> = (0..10_000).map(|number| format!("{number:05}")).collect();
    let write = |label: &str| {
        let both = members
            .iter()
            .flat_map(|key| [(format!("{key}.cls"), label.as_bytes().to_vec()), (format!("{key}.png"), image.clone())]);
        let both: Vec<(String, Vec<u8>)> = both.collect();
        fs::write(&file, tar(both.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())))).unwrap();
    };
    write("5");
    std::thread::sleep(Duration::from_secs(5));
    let describe = || {
        let mut command =
            flatnce(&["--dataset-name=shards", "--image-size=8", "--model=res10", "--batch-size=8", "--dry-run"]);
        let command = command.arg(format!("--data={}", file.display())).env("XDG_CACHE_HOME", &cache);
        command.args(["--knn-every=0", "--device=cpu"]).output().unwrap()
    };
    let first = said(&describe());
    let kept: Vec<PathBuf> =
        fs::read_dir(cache.join("flatnce/index")).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(kept.len(), 1);
    let written = fs::metadata(&kept[0]).unwrap().modified().unwrap();
    assert!(first.contains("10,000 images in 1 shard, 1 class"), "{first}");
    // Times differ from run to run; what is found does not.
    let line = |text: &str| text.lines().find(|line| line.starts_with("data ")).unwrap().to_owned();
    assert_eq!(line(&said(&describe())), line(&first));
    assert_eq!(fs::metadata(&kept[0]).unwrap().modified().unwrap(), written, "it has been read, not made anew");
    // Damaged, and out of date.
    let mut bytes = fs::read(&kept[0]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&kept[0], bytes).unwrap();
    assert_eq!(line(&said(&describe())), line(&first));
    write("6");
    assert_eq!(line(&said(&describe())), line(&first));
}

/// A tree of `folder` with two parts.
fn tree(place: &Path) -> PathBuf {
    let root = place.join("tree");
    trees::named("folder").write(&root);
    root
}

fn pack(words: &[&str], out: &Path) -> std::process::Output {
    start(&[&["pack"], words, &[&format!("--out={}", out.display())]].concat())
}

fn packed(words: &[&str], out: &Path) -> String {
    let output = pack(words, out);
    assert!(output.status.success(), "{}", said(&output));
    said(&output)
}

/// Every file of a directory and what is in it.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<(String, Vec<u8>)> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_pack_holds_the_same_images_names_and_labels() {
    let place = place();
    let (root, out) = (tree(place.path()), place.path().join("out"));
    let source = root.to_str().unwrap();
    let text = packed(&[source], &out);
    assert!(text.contains("33 train and 9 test images in 2 shards"), "{text}");
    let folder = DataConfig::new(DatasetName::Folder, &root, 16);
    for part in [Part::Train, Part::Test] {
        let (files, shards) = (data::load(&folder, part).unwrap(), load(&out, part));
        assert_eq!((&files.labels, &files.classes), (&shards.labels, &shards.classes));
        for index in 0..files.len() {
            assert!(encoded(&files, index) == encoded(&shards, index), "image {index}");
            assert_eq!(files.file_name(index), shards.file_name(index));
        }
    }
    // The same once more, in any order of shards, of shards themselves.
    let (again, of_shards) = (place.path().join("again"), place.path().join("of shards"));
    packed(&[&format!("--data={source}"), "--dataset-name=folder"], &again);
    assert!(files(&out) == files(&again));
    packed(&[&out.join("train-*.tar").display().to_string()], &of_shards);
    assert_eq!(fs::read(out.join("train-000000.tar")).unwrap(), fs::read(of_shards.join("train-000000.tar")).unwrap());
    // Done is done, and others do not get mixed in.
    assert!(packed(&[source], &out).contains("is whole already"));
    let refused = said(&pack(&[source, "--max-side=20"], &out));
    assert!(refused.contains("holds another pack (it has other settings)"), "{refused}");
    fs::remove_file(root.join("train/class_0/image_0000.jpg")).unwrap();
    let refused = said(&pack(&[source], &out));
    assert!(refused.contains("holds another pack (it has other images)"), "{refused}");
    let refused = said(&pack(&[source], &root));
    assert!(refused.contains("is not empty and holds no pack"), "{refused}");
    // A shard that has been changed is found.
    let shard = out.join("test-000000.tar");
    let mut bytes = fs::read(&shard).unwrap();
    bytes[700] ^= 1;
    fs::write(&shard, bytes).unwrap();
    fs::write(root.join("train/class_0/image_0000.jpg"), golden("420.jpg")).unwrap();
    let refused = said(&pack(&[source], &out));
    assert!(refused.contains("test-000000.tar reads back other bytes"), "{refused}");
}

#[test]
fn small_sets_are_packed_without_loss() {
    let place = place();
    for (set, images) in [("cifar10", [20, 10, 0]), ("stl10", [20, 10, 24])] {
        let (root, out) = (place.path().join(set), place.path().join(format!("{set} packed")));
        trees::named(set).write(&root);
        packed(&[set, &format!("--data={}", root.display())], &out);
        let config = DataConfig::new(DatasetName::parse(set).unwrap(), &root, 32);
        for (part, count) in [Part::Train, Part::Test, Part::Unlabelled].into_iter().zip(images) {
            let (original, shards) = (data::load(&config, part).unwrap(), load(&out, part));
            if count > 0 {
                assert_eq!(shards.len(), count, "{set} {part}");
            }
            assert_eq!((&original.labels, &original.classes), (&shards.labels, &shards.classes), "{set} {part}");
            let (mut a, mut b) = (RgbImage::default(), RgbImage::default());
            for index in 0..original.len() {
                let (a, b) = (original.image(index, &mut a).unwrap(), shards.image(index, &mut b).unwrap());
                assert!(a.pixels == b.pixels && (a.width, a.height) == (b.width, b.height), "{set} {part} {index}");
            }
        }
        assert_eq!(out.join("unlabelled-000000.tar").exists(), set == "stl10");
    }
}

#[test]
fn larger_images_are_made_smaller() {
    let place = place();
    let (root, out) = (tree(place.path()), place.path().join("out"));
    packed(&[root.to_str().unwrap(), "--max-side=20", "--quality=90", "--part=train"], &out);
    let (files, shards) =
        (data::load(&DataConfig::new(DatasetName::Folder, &root, 16), Part::Train).unwrap(), load(&out, Part::Train));
    let (mut a, mut b) = (RgbImage::default(), RgbImage::default());
    let mut exact = 0;
    for index in 0..files.len() {
        let original = files.image(index, &mut a).unwrap();
        let small = shards.image(index, &mut b).unwrap();
        let shorter = original.width.min(original.height);
        let wanted = Renderer::new().resized(
            original,
            20 * original.width / shorter,
            20 * original.height / shorter,
            Filter::Bicubic,
        );
        assert_eq!((small.width, small.height), (wanted.width, wanted.height));
        let name = shards.file_name(index).unwrap();
        let most = small.pixels.iter().zip(&wanted.pixels).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        let mean = small.pixels.iter().zip(&wanted.pixels).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>()
            / small.pixels.len() as f64;
        match name.extension().unwrap().to_str().unwrap() {
            "png" => {
                assert_eq!(most, 0, "{}", name.display());
                exact += 1;
            }
            "jpg" => assert!(mean < 12.0, "{}: {mean} levels on average", name.display()),
            other => panic!("{other}"),
        }
    }
    assert!(exact > 5 && exact < files.len() - 5);
}

#[test]
fn a_broken_image_stops_a_pack_or_is_left_out() {
    let place = place();
    let (root, out) = (tree(place.path()), place.path().join("out"));
    let broken = root.join("train/class_1/image_0001.JPG");
    assert!(broken.exists());
    fs::write(&broken, &golden("420.jpg")[..400]).unwrap();
    let refused = said(&pack(&[root.to_str().unwrap()], &out));
    assert!(refused.contains(broken.to_str().unwrap()) && refused.contains("cannot be used"), "{refused}");
    assert!(!out.join("pack.json").exists());
    let text = packed(&[root.to_str().unwrap(), "--bad-images=skip"], &out);
    assert!(text.contains("32 train"), "{text}");
    assert!(fs::read_to_string(out.join("bad_images.txt")).unwrap().contains("image_0001.JPG"));
}

const TRAINING: &[&str] = &[
    "--image-size=16",
    "--model=res10",
    "--batch-size=8",
    "--epochs=2",
    "--warmup-epochs=1",
    "--optimizer=sgd",
    "--lr=0.05",
    "--precision=fp32",
    "--device=cpu",
    "--save-every-n-epochs=1",
    "--log-every=1",
    "--workers=2",
];

/// What was measured in every step, without times.
fn steps(run: &Path) -> Vec<String> {
    fs::read_to_string(run.join("steps.jsonl")).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn a_training_on_shards_is_that_on_the_files_to_the_bit() {
    let place = place();
    let (root, out) = (tree(place.path()), place.path().join("out"));
    packed(&[root.to_str().unwrap()], &out);
    let words = |set: &str, data: &Path, results: &str, more: &[&str]| -> Vec<String> {
        let own = [
            format!("--dataset-name={set}"),
            format!("--data={}", data.display()),
            save_dir(&place.path().join(results)),
        ];
        TRAINING.iter().chain(more).map(|word| (*word).to_owned()).chain(own).collect()
    };
    let run = |words: Vec<String>, results: &str| {
        succeeds(flatnce(&words.iter().map(String::as_str).collect::<Vec<_>>()));
        run_directory(&place.path().join(results))
    };
    let files = run(words("folder", &root, "files", &[]), "files");
    let shards = run(words("shards", &out, "shards", &[]), "shards");
    assert!(steps(&files).len() == 8 && steps(&files) == steps(&shards), "other losses");
    // A run that is killed in the middle of an epoch goes on to the same bits.
    let own = words("shards", &out, "half", &["--save-every-n-steps=1"]);
    let mut child = flatnce(&own.iter().map(String::as_str).collect::<Vec<_>>()).stdout(Stdio::null()).spawn().unwrap();
    let within = || {
        let files = find_run(&place.path().join("half")).map(|run| fs::read_dir(run).unwrap());
        let mut names = files.into_iter().flatten().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.any(|name| name.contains("_step_") && name.ends_with(".pth.tar"))
    };
    while !within() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it has ended before it was killed");
    let half = run_directory(&place.path().join("half"));
    succeeds(flatnce(&["--resume", half.to_str().unwrap()]));
    assert_eq!(steps(&half), steps(&shards), "other losses after a stop");
    // Evaluation, a share of the labels, embeddings.
    let checkpoint = |run: &Path| format!("--checkpoint={}", run.join("checkpoint_0002.pth.tar").display());
    let outcome = |set: &str, data: &Path, results: &str, mode: &str| {
        let more = [checkpoint(&files), format!("--train-mode={mode}"), "--fc-epochs=2".into(), "--fc-lr=0.1".into()];
        let more: Vec<&str> = more
            .iter()
            .map(String::as_str)
            .chain(["--semi-ratio=0.5"].into_iter().filter(|_| mode == "semi"))
            .collect();
        let own = words(set, data, results, &more);
        let own: Vec<&str> = own
            .iter()
            .map(String::as_str)
            .filter(|word| {
                !TRAINING.contains(word)
                    || word.starts_with("--image")
                    || word.starts_with("--dev")
                    || word.starts_with("--prec")
            })
            .collect();
        let text = said(&succeeds(flatnce(&own)));
        let wanted = |line: &&str| line.contains("top-1");
        text.lines().filter(wanted).map(str::to_owned).collect::<Vec<_>>()
    };
    for mode in ["eval", "semi"] {
        let (a, b) = (
            outcome("folder", &root, &format!("{mode} files"), mode),
            outcome("shards", &out, &format!("{mode} shards"), mode),
        );
        assert!(!a.is_empty() && a == b, "{a:?} {b:?}");
    }
    let embed = |set: &str, data: &Path| {
        let to = place.path().join(format!("embedded {set}"));
        let own = [
            format!("--dataset-name={set}"),
            format!("--data={}", data.display()),
            format!("--out={}", to.display()),
            checkpoint(&files),
        ];
        let own: Vec<&str> = ["embed", "--image-size=16", "--device=cpu", "--precision=fp32"]
            .into_iter()
            .chain(own.iter().map(String::as_str))
            .collect();
        succeeds(flatnce(&own));
        ["features.npy", "labels.npy", "names.txt"].map(|name| fs::read(to.join(name)).unwrap())
    };
    assert!(embed("folder", &root) == embed("shards", &out));
    let subset = |split: &Split| semi_subset(split, 0.5, 3, None).unwrap().labels;
    let folder = data::load(&DataConfig::new(DatasetName::Folder, &root, 16), Part::Train).unwrap();
    assert_eq!(subset(&folder), subset(&load(&out, Part::Train)));
    assert_eq!(folder.orientation, Orientation::Stored);
}

#[test]
fn few_open_files_are_enough() {
    let place = place();
    (0..60).for_each(|number| {
        formats::write(place.path(), &format!("train-{number:02}.tar"), samples(2, |n| n.to_string()))
    });
    let binary = env!("CARGO_BIN_EXE_flatnce");
    let words = format!(
        "ulimit -n 40; exec {} {} --dataset-name=shards --data={} --save-dir={} --epochs=1",
        binary,
        TRAINING.join(" "),
        place.path().display(),
        place.path().join("results").display()
    );
    let output = std::process::Command::new("bash").args(["-c", &words]).env("OMP_NUM_THREADS", "1").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}
