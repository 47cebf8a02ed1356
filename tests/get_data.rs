//! `scripts/get_data.sh` against a mirror on this machine: nothing here reaches the network.

use flatnce::config::{DataConfig, DatasetName};
use flatnce::data::{Part, load};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

const CIFAR_ARCHIVE: &str = "cifar-10-binary.tar.gz";
const CIFAR_PIN: &str = "c32a1d4ab5d03f1284b67883e8d87530";

/// A copy of the script in a place of its own, a mirror that holds small archives, and the pins set to those.
struct Place {
    root: TempDir,
    url: String,
}

impl Place {
    /// With cifar10 in the mirror: one image a file.
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let inside = root.path().join("make/cifar-10-batches-bin");
        fs::create_dir_all(&inside).unwrap();
        let names = (1..=5).map(|batch| format!("data_batch_{batch}.bin")).chain(["test_batch.bin".to_owned()]);
        for (index, name) in names.enumerate() {
            // Noise that does not compress, so that half an archive is really half of it.
            let noise =
                (0..3073u32).map(|at| (at.wrapping_mul(2_654_435_761).rotate_left(index as u32 * 5) >> 13) as u8);
            let mut record: Vec<u8> = noise.collect();
            record[0] = index as u8;
            fs::write(inside.join(name), record).unwrap();
        }
        for directory in ["mirror", "scripts/setup"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        let place = Place { url: format!("file://{}/mirror", root.path().display()), root };
        for file in ["scripts/get_data.sh", "scripts/setup/common.sh"] {
            fs::copy(file, place.path(file)).unwrap();
        }
        let archive = place.path("mirror").join(CIFAR_ARCHIVE);
        run(Command::new("tar")
            .arg("-czf")
            .arg(&archive)
            .arg("-C")
            .arg(place.path("make"))
            .arg("cifar-10-batches-bin"));
        place.pin(CIFAR_PIN, &sum("md5sum", &archive));
        place
    }

    fn path(&self, relative: &str) -> PathBuf {
        self.root.path().join(relative)
    }

    /// Replaces a pinned checksum in the copy of the script.
    fn pin(&self, old: &str, new: &str) {
        let path = self.path("scripts/get_data.sh");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(old), "the script pins {old}");
        fs::write(path, text.replace(old, new)).unwrap();
    }

    /// Runs the script from another directory.
    fn get(&self, arguments: &[&str]) -> (i32, String) {
        self.get_with(arguments, None)
    }

    fn get_with(&self, arguments: &[&str], tools: Option<&Path>) -> (i32, String) {
        let mut command = Command::new("/bin/bash");
        command.arg(self.path("scripts/get_data.sh")).args(arguments).current_dir("/").env("FLATNCE_MIRROR", &self.url);
        if let Some(tools) = tools {
            command.env("PATH", tools);
        }
        let output = command.output().unwrap();
        (output.status.code().unwrap(), text(&output))
    }

    fn images(&self) -> usize {
        let config = DataConfig::new(DatasetName::Cifar10, self.path("datasets"), 32);
        load(&config, Part::Train).unwrap().len()
    }

    fn archive(&self) -> Vec<u8> {
        fs::read(self.path("mirror").join(CIFAR_ARCHIVE)).unwrap()
    }

    /// Leaves `bytes` as the beginning of a broken download.
    fn leave_part(&self, bytes: &[u8]) {
        fs::create_dir_all(self.path("datasets/.downloads")).unwrap();
        fs::write(self.path("datasets/.downloads").join(format!("{CIFAR_ARCHIVE}.part")), bytes).unwrap();
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    text(&output)
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn sum(tool: &str, path: &Path) -> String {
    run(Command::new(tool).arg(path)).split_whitespace().next().unwrap().to_owned()
}

#[test]
fn a_set_is_fetched_once_and_mended_when_damaged() {
    let place = Place::new();
    let (code, said) = place.get(&["cifar10"]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("fetching") && said.contains("cifar10 is complete"), "{said}");
    assert_eq!(place.images(), 5);
    assert!(!place.path("datasets/.downloads").join(CIFAR_ARCHIVE).exists(), "the archive is removed");

    let (code, said) = place.get(&["cifar10"]);
    assert_eq!((code, said.contains("there and complete"), said.contains("fetching")), (0, true, false), "{said}");

    fs::remove_file(place.path("datasets/cifar10/cifar-10-batches-bin/data_batch_3.bin")).unwrap();
    let (code, said) = place.get(&["--keep", "cifar10"]);
    assert!(code == 0 && said.contains("damaged"), "{said}");
    assert_eq!(place.images(), 5);
    assert!(place.path("datasets/.downloads").join(CIFAR_ARCHIVE).exists());
    let left: Vec<_> = fs::read_dir(place.path("datasets")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "nothing temporary is left: {left:?}");
}

#[test]
fn a_wrong_archive_is_refused_and_not_unpacked() {
    let place = Place::new();
    let mut archive = place.archive();
    let middle = archive.len() / 2;
    archive[middle] ^= 1;
    fs::write(place.path("mirror").join(CIFAR_ARCHIVE), archive).unwrap();
    let (code, said) = place.get(&["cifar10"]);
    assert!(code == 1 && said.contains("not what was published") && said.contains("MD5"), "{said}");
    assert!(!place.path("datasets/cifar10").exists());
}

#[test]
fn what_cannot_be_reached_is_explained_and_may_be_put_there_by_hand() {
    let place = Place::new();
    let archive = place.archive();
    fs::remove_file(place.path("mirror").join(CIFAR_ARCHIVE)).unwrap();
    let (code, said) = place.get(&["cifar10"]);
    assert_eq!(code, 1);
    let target = place.path("datasets/.downloads").join(CIFAR_ARCHIVE);
    for word in [
        "cannot be reached",
        "By hand",
        CIFAR_ARCHIVE,
        &fs::canonicalize(target.parent().unwrap()).unwrap().display().to_string(),
    ] {
        assert!(said.contains(word), "{said} should contain {word}");
    }
    fs::write(&target, archive).unwrap();
    let (code, said) = place.get(&["cifar10"]);
    assert_eq!((code, place.images()), (0, 5), "{said}");
}

#[test]
fn a_set_that_was_put_there_by_hand_is_left_alone() {
    let place = Place::new();
    fs::create_dir_all(place.path("datasets/cifar10")).unwrap();
    fs::write(place.path("datasets/cifar10/mine"), "x").unwrap();
    let (code, said) = place.get(&["cifar10"]);
    assert!(code == 1 && said.contains("was not made here"), "{said}");
    assert!(place.path("datasets/cifar10/mine").exists());
}

#[test]
fn names_and_help_are_listed() {
    let place = Place::new();
    let (code, help) = place.get(&["--help"]);
    assert_eq!(code, 0);
    let (unknown, said) = place.get(&["cifar11"]);
    assert_eq!(unknown, 2);
    for name in ["fashion_mnist", "cifar10", "cifar100", "stl10", "tiny_imagenet"] {
        assert!(help.contains(name) && said.contains(name), "{name}");
    }
    assert!(said.contains("cifar11") && help.lines().all(|line| line.len() <= 80));
    assert_eq!(place.get(&[]).0, 2);
    assert_eq!(place.get(&["--wrong"]).0, 2);
}

#[test]
fn zip_archives_and_single_files_are_laid_out_too() {
    let place = Place::new();
    let tree = place.path("make/tiny-imagenet-200");
    fs::create_dir_all(tree.join("train/n01/images")).unwrap();
    fs::write(tree.join("train/n01/images/n01_0.JPEG"), "x").unwrap();
    let archive = place.path("mirror/tiny-imagenet-200.zip");
    run(Command::new("python3").args(["-m", "zipfile", "-c"]).arg(&archive).arg(&tree));
    place.pin("90528d7ca1a48142e341f4ef8d21d0de", &sum("md5sum", &archive));
    let (code, said) = place.get(&["--into", place.path("elsewhere").to_str().unwrap(), "tiny-imagenet"]);
    assert_eq!(code, 0, "{said}");
    let config = DataConfig::new(DatasetName::TinyImagenet, place.path("elsewhere"), 64);
    assert_eq!(load(&config, Part::Train).unwrap().len(), 1);

    // The embedded choice of Fashion-MNIST stands in for the whole.
    for (name, pin) in [
        ("train-images-idx3-ubyte", "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
        ("train-labels-idx1-ubyte", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
        ("t10k-images-idx3-ubyte", "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
        ("t10k-labels-idx1-ubyte", "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"),
    ] {
        let packed = place.path(&format!("mirror/{name}.gz"));
        fs::copy(format!("datasets/fashion_mnist_mini/{name}.gz"), &packed).unwrap();
        let plain = place.path(name);
        fs::write(&plain, run_bytes(Command::new("gzip").arg("-dc").arg(&packed))).unwrap();
        if name.starts_with("t10k-labels") {
            let (code, said) = place.get(&["fashion_mnist"]);
            assert!(code == 1 && said.contains("t10k-labels-idx1-ubyte.gz is not what was published"), "{said}");
        }
        place.pin(pin, &sum("sha256sum", &plain));
    }
    let (code, said) = place.get(&["fashion_mnist"]);
    assert_eq!(code, 0, "{said}");
    let config = DataConfig::new(DatasetName::FashionMnist, place.path("datasets"), 32);
    assert_eq!(load(&config, Part::Test).unwrap().len(), 1000);
}

fn run_bytes(command: &mut Command) -> Vec<u8> {
    command.output().unwrap().stdout
}

/// Serves one file under any path, with ranges, and notes what was asked for.
fn serve(file: Vec<u8>) -> (String, std::sync::mpsc::Receiver<Option<usize>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (note, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let header: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let range = header
                .iter()
                .find_map(|line| line.to_ascii_lowercase().strip_prefix("range: bytes=").map(str::to_owned));
            let from: Option<usize> = range.and_then(|range| range.trim_end_matches('-').parse().ok());
            let (status, body) = match from {
                Some(from) if from >= file.len() => ("416 Range Not Satisfiable", &file[..0]),
                Some(from) => ("206 Partial Content", &file[from..]),
                None => ("200 OK", &file[..]),
            };
            let place = from.filter(|from| *from < file.len());
            let place = place.map(|from| format!("Content-Range: bytes {from}-{}/{}\r\n", file.len() - 1, file.len()));
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{}\r\n",
                body.len(),
                place.unwrap_or_default()
            );
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_ok() {
                let _ = note.send(from);
            }
        }
    });
    (url, asked)
}

/// A directory with links to everything on the usual paths, except the downloaders that are not `wanted`.
fn tools(directory: &Path, wanted: &str) -> Option<PathBuf> {
    let target = directory.join(wanted);
    fs::create_dir(&target).unwrap();
    for source in std::env::split_paths(&std::env::var_os("PATH").unwrap()) {
        for entry in fs::read_dir(source).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let other = ["curl", "wget", "python3"].iter().any(|&tool| name == tool && tool != wanted);
            if !other && !target.join(&name).exists() {
                symlink(entry.path(), target.join(&name)).unwrap();
            }
        }
    }
    target.join(wanted).exists().then_some(target)
}

/// Broken downloads of several kinds with the one downloader `wanted`, where this machine has it.
fn resumes_with(wanted: &str) {
    let mut place = Place::new();
    let Some(tools) = tools(place.root.path(), wanted) else { return };
    let whole = place.archive();
    let half = whole.len() / 2;
    let (url, asked) = serve(whole.clone());
    place.url = url;
    let spoiled: Vec<u8> = whole[..half].iter().map(|byte| byte ^ 1).collect();
    let longer = [&spoiled[..], &whole[..]].concat();
    for (what, part, first) in [
        ("nothing", &whole[..0], None),
        ("half of it", &whole[..half], Some(half)),
        ("another archive's half", &spoiled[..], Some(half)),
        ("something longer", &longer[..], Some(longer.len())),
    ] {
        if !part.is_empty() {
            place.leave_part(part);
        }
        let (code, said) = place.get_with(&["cifar10"], Some(&tools));
        assert_eq!((code, place.images()), (0, 5), "{wanted}, {what}: {said}");
        assert_eq!(said.contains("resuming"), first.is_some(), "{wanted}, {what}: {said}");
        let requests: Vec<_> = asked.try_iter().collect();
        assert_eq!(requests[0], first, "{wanted}, {what}: {requests:?}");
        fs::remove_dir_all(place.path("datasets")).unwrap();
    }
    // All of it was there already: nothing is asked for.
    place.leave_part(&whole);
    assert_eq!(place.get_with(&["cifar10"], Some(&tools)).0, 0);
    assert_eq!(asked.try_iter().count(), 0);
}

#[test]
fn broken_downloads_are_resumed_by_curl() {
    resumes_with("curl");
}

#[test]
fn broken_downloads_are_resumed_by_wget() {
    resumes_with("wget");
}

#[test]
fn broken_downloads_are_resumed_by_python() {
    resumes_with("python3");
}
