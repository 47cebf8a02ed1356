//! What scripts/release.sh makes, used as its users do: the wheel in an environment of its own beside PyTorch, the
//! archive under another name without Python; and the Python package, against the program and PyTorch.

#[path = "support/program.rs"]
mod program;
mod support;

use flatnce::{device, run_dir};
use program::{SMALL_EVALUATION, flatnce, run_directory, said, save_dir, succeeds};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A pre-training of some seconds.
const SMALL: &[&str] = &[
    "--dataset-name=fashion_mnist_mini",
    "--train-images=32",
    "--image-size=16",
    "--model=res10",
    "--batch-size=16",
    "--epochs=1",
    "--warmup-epochs=0",
    "--precision=fp32",
    "--device=cpu",
];

/// Runs tests/release.py with these words.
fn peer(python: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(python);
    command.arg(format!("{ROOT}/tests/release.py")).args(words).env("OMP_NUM_THREADS", "1");
    command
}

/// The same with the package's sources.
fn peer_with_sources(python: &Path, words: &[&str]) -> Command {
    let mut command = peer(python, words);
    command.env("PYTHONPATH", format!("{ROOT}/scripts/python")).env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("utf-8")
}

/// Twelve pictures in one directory, and in one file the bytes that the encoder sees of each: at 16 pixels the evaluation of
/// one's own images resizes to 18 pixels, which these have, and takes the middle.
fn write_pictures(place: &Path) -> (PathBuf, PathBuf) {
    let (directory, pixels) = (place.join("pictures"), place.join("pixels.bin"));
    std::fs::create_dir(&directory).expect("a directory");
    let mut all = Vec::new();
    for number in 0..12u32 {
        let level = |x: u32, y: u32, channel: u32| ((x * (7 + number) + y * 13 + channel * 60) % 256) as u8;
        let picture =
            image::RgbImage::from_fn(18, 18, |x, y| image::Rgb([0, 1, 2].map(|channel| level(x, y, channel))));
        picture.save(directory.join(format!("{number:02}.png"))).expect("writes");
        all.extend_from_slice(&image::imageops::crop_imm(&picture, 1, 1, 16, 16).to_image());
    }
    std::fs::write(&pixels, all).expect("writes");
    (directory, pixels)
}

/// What scripts/release.sh has made of the program that these tests were built with.
struct Release {
    place: TempDir,
    wheel: PathBuf,
    archive: PathBuf,
}

impl Release {
    /// `None` where something that it needs is missing, which is said.
    fn make() -> Option<Release> {
        if ["strip", "objdump"].iter().any(|tool| Command::new(tool).arg("--version").output().is_err()) {
            support::skipped("no strip and objdump (binutils)");
            return None;
        }
        let libtorch = Path::new(device::LIBTORCH_DIRECTORY).parent().expect("a directory above lib");
        if !["licences", "../licences"].iter().any(|licences| libtorch.join(licences).is_dir()) {
            support::skipped("the program was built with a libtorch without licences (scripts/setup.sh brings them)");
            return None;
        }
        let place = tempfile::tempdir().expect("a directory");
        let mut command = Command::new(format!("{ROOT}/scripts/release.sh"));
        command.args(["--quick", "--binary"]).arg(flatnce(&[]).get_program()).arg("--out").arg(place.path());
        succeeds({
            command.env("LIBTORCH", libtorch).current_dir("/");
            command
        });
        let files: Vec<PathBuf> = std::fs::read_dir(&place).expect("reads").flatten().map(|file| file.path()).collect();
        assert_eq!(files.len(), 3, "{files:?}");
        let of = |end: &str| files.iter().find(|file| utf8(file).ends_with(end)).expect("is made").clone();
        let (wheel, archive) = (of(".whl"), of(".tar.gz"));
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--strict", "SHA256SUMS"]).current_dir(&place);
        assert_eq!(said(&succeeds(check)).matches(": OK").count(), 2);
        Some(Release { place, wheel, archive })
    }
}

/// Every file and link below a directory.
fn files_below(directory: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(directory).expect("reads").flatten() {
        if entry.file_type().expect("known").is_dir() {
            found.extend(files_below(&entry.path()));
        } else {
            found.insert(entry.path());
        }
    }
    found
}

/// The number that stands between two texts, such as 35 in `manylinux_2_35_x86_64`.
fn number(text: &str, before: &str) -> u32 {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("{before} in {text}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().and_then(|digits| digits.parse().ok()).expect("a number")
}

/// The shipped program keeps nothing that ties it to this machine, and its platform is not better than the truth.
fn check_program(shipped: &Path, platform: &str) {
    let ask = |flags: &str| {
        let mut command = Command::new("objdump");
        command.arg(flags).arg(shipped);
        String::from_utf8(succeeds(command).stdout).expect("text")
    };
    let private = ask("-p");
    let places: Vec<&str> = private.lines().filter(|line| line.contains("PATH")).map(str::trim).collect();
    assert!(matches!(places[..], [one] if one.ends_with(" $ORIGIN/../lib")), "{places:?}");
    let symbols = ask("-T");
    let wanted = symbols.split("GLIBC_2.").skip(1).map(|rest| number(rest, "")).max().expect("it uses libc");
    let promised = number(platform, "manylinux_2_");
    assert!(wanted <= promised && promised >= 28, "GLIBC_2.{wanted} is asked for, and {platform} promised");
}

/// What the doctor says of libtorch's directory.
fn libtorch_place(mut doctor: Command) -> PathBuf {
    doctor.args(["doctor", "--json", "--device=cpu"]);
    let told: Value = serde_json::from_slice(&succeeds(doctor).stdout).expect("JSON");
    let findings = told["findings"].as_array().expect("a list");
    let place = findings.iter().find(|finding| finding["name"] == "libtorch's place").expect("is said");
    let found = place["found"].as_str().expect("words");
    PathBuf::from(found.split_once(", not ").map_or(found, |(loaded, _)| loaded))
}

#[test]
fn the_wheel_and_the_archive_work_where_nothing_was_built() {
    let Some(python) = support::python("torch") else { return };
    let Some(release) = Release::make() else { return };
    let name = utf8(release.wheel.file_name().expect("a name").as_ref());
    assert!(name.starts_with(concat!("flatnce-", env!("CARGO_PKG_VERSION"), "-py3-none-manylinux_2_")), "{name}");
    let bytes = release.wheel.metadata().expect("is there").len();
    assert!(bytes < 12_000_000, "the wheel has {bytes} bytes");
    wheel(&release, &python, name);
    archive(&release);
}

/// Installs the wheel, works with it as users do, and removes it.
fn wheel(release: &Release, python: &Path, platform: &str) {
    let environment = release.place.path().join("environment");
    let run = |arguments: &[&str]| {
        let mut command = Command::new(python);
        command.args(arguments).current_dir(&release.place);
        succeeds(command)
    };
    run(&["-m", "venv", "--without-pip", utf8(&environment)]);
    let before = files_below(&environment);
    let (own_python, program) = (environment.join("bin/python"), environment.join("bin/flatnce"));
    let pip = ["-m", "pip", "--disable-pip-version-check", "--python", utf8(&own_python)];
    run(&[&pip[..], &["install", "--no-deps", "--no-index", utf8(&release.wheel)]].concat());

    let elsewhere = release.place.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).expect("a directory");
    let start = |words: &[&str]| {
        let mut command = Command::new(&program);
        command.args(words).current_dir(&elsewhere).env("OMP_NUM_THREADS", "1");
        command.env_remove("LD_LIBRARY_PATH").env_remove("PYTHONPATH");
        command
    };
    let output = start(&["--version"]).output().expect("it starts");
    let words = said(&output);
    let mends = words.contains("there is no PyTorch") && words.contains("pip install 'torch==2.11.*'");
    assert!(output.status.code() == Some(1) && mends, "{words}");

    // As --system-site-packages would, of the environment that holds PyTorch.
    let site = run(&["-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]).stdout;
    let site = PathBuf::from(String::from_utf8(site).expect("utf-8").trim());
    let own = files_below(&environment).into_iter().find(|path| path.ends_with("flatnce/_launch.py"));
    let own = own.as_deref().and_then(Path::parent).and_then(Path::parent).expect("is installed");
    check_program(&own.join("flatnce/bin/flatnce"), platform);
    let old = own.join("torch");
    std::fs::create_dir(&old).expect("a directory");
    std::fs::write(old.join("__init__.py"), "raise SystemExit('imported')\n").expect("writes");
    std::fs::write(old.join("version.py"), "__version__ = '2.10.0+cu130'\n").expect("writes");
    let words = said(&start(&["--version"]).output().expect("it starts"));
    assert!(words.contains("needs PyTorch 2.11, and ") && words.contains(" is 2.10.0+cu130; "), "{words}");
    std::fs::remove_dir_all(&old).expect("removes");
    std::fs::write(own.join("beside.pth"), format!("{}\n", site.display())).expect("writes");

    let version = String::from_utf8(succeeds(start(&["--version"])).stdout).expect("text");
    assert!(version.starts_with(concat!("flatnce ", env!("CARGO_PKG_VERSION"))), "{version}");
    let torch = std::fs::canonicalize(site.join("torch/lib")).expect("PyTorch's libraries");
    assert_eq!(libtorch_place(start(&[])), torch);

    // The command's own time: that of loading libtorch, half a second, differs from start to start by more.
    let (shipped, aside) = (own.join("flatnce/bin/flatnce"), own.join("flatnce/bin/aside"));
    std::fs::rename(&shipped, &aside).expect("moves");
    std::os::unix::fs::symlink("/bin/true", &shipped).expect("links");
    succeeds(peer_with_sources(python, &["startup", utf8(&program)]));
    std::fs::rename(&aside, &shipped).expect("moves back");

    succeeds(start(&[SMALL, &["--save-dir=results"]].concat()));
    let run_directory = run_directory(&elsewhere.join("results"));
    let checkpoint = run_directory.join("checkpoint_0001.pth.tar");
    let from = format!("--checkpoint-dir={}", run_directory.display());
    let evaluated = succeeds(start(&[SMALL_EVALUATION, &["--save-dir=evaluation", &from]].concat()));
    assert!(said(&evaluated).contains("test top-1"), "{}", said(&evaluated));

    let (pictures, pixels) = write_pictures(&elsewhere);
    let (from, data) = (format!("--checkpoint={}", checkpoint.display()), format!("--data={}", pictures.display()));
    let words = ["embed", "--dataset-name=folder", &data, "--part=unlabelled", "--image-size=16", "--precision=fp32"];
    succeeds(start(&[&words[..], &["--device=cpu", "--out=features", &from]].concat()));
    succeeds(start(&["export", "--format=safetensors", "--out=encoder.safetensors", &from]));
    let features = elsewhere.join("features/features.npy");
    for file in [&checkpoint, &elsewhere.join("encoder.safetensors")] {
        let mut command = peer(&own_python, &["features", utf8(file), utf8(&pixels), utf8(&features)]);
        command.current_dir(&elsewhere).env_remove("PYTHONPATH");
        let told = said(&succeeds(command));
        let own = format!("{}/flatnce/__init__.py {}\n", own.display(), env!("CARGO_PKG_VERSION"));
        assert!(told.starts_with(&own), "another package was imported: {told}");
    }

    std::fs::remove_file(own.join("beside.pth")).expect("removes");
    run(&[&pip[..], &["uninstall", "--yes", "flatnce"]].concat());
    assert_eq!(files_below(&environment), before);
    assert!(!own.join("flatnce").exists());
}

/// Unpacks the archive under a name with a space, and trains with nothing of this machine's environment.
fn archive(release: &Release) {
    let home = release.place.path().join("another place");
    std::fs::create_dir(&home).expect("a directory");
    let mut command = Command::new("tar");
    command.arg("-xzf").arg(&release.archive).arg("-C").arg(&home);
    succeeds(command);
    let [tree] = &std::fs::read_dir(&home).expect("reads").flatten().map(|entry| entry.path()).collect::<Vec<_>>()[..]
    else {
        panic!("one directory")
    };
    let moved = home.join("moved");
    std::fs::rename(tree, &moved).expect("moves");
    let start = |words: &[&str]| {
        let mut command = Command::new(moved.join("bin/flatnce"));
        command.args(words).env_clear().env("OMP_NUM_THREADS", "1").current_dir(&home);
        command
    };
    let lib = std::fs::canonicalize(moved.join("lib")).expect("is there");
    assert_eq!(libtorch_place(start(&[])), lib);
    succeeds(start(&[SMALL, &["--save-dir=results"]].concat()));
    assert!(run_directory(&home.join("results")).join("checkpoint_0001.pth.tar").is_file());

    let licences = |name: &str| moved.join("licences").join(name);
    let crates = std::fs::read_to_string(licences("CRATES.txt")).expect("reads");
    for part in ["\ntch 0.24.0: ", "\nparquet ", "SIL OPEN FONT LICENSE", "epaint_default_fonts"] {
        assert!(crates.contains(part), "CRATES.txt lacks {part}");
    }
    assert!(!crates.contains("\ncriterion "), "it is no part of the program");
    assert!(licences("LICENSE.txt").is_file() && licences("fashion_mnist.txt").is_file());
    assert!(files_below(&licences("libtorch")).len() > 2, "libtorch's licences");
}

#[test]
fn the_package_reads_what_the_program_writes() {
    let Some(python) = support::python("torchvision") else { return };
    let place = tempfile::tempdir().expect("a directory");
    succeeds(flatnce(&[SMALL, &["--log-every=1", &save_dir(&place.path().join("results"))]].concat()));
    let run = run_directory(&place.path().join("results"));
    succeeds(peer_with_sources(&python, &["run", utf8(&run)]));

    // Everything that the writer of config.yml can be asked to write.
    let odd = json!({
        "lr": 1e-6, "epochs": 4, "huge": 1e300, "negative": -3, "t": 0.07, "device": "cuda:0", "none": null,
        "yes": true, "odd key: x": "a: b, \"c\" \\ # d", "control": "tab\t line\n bell\u{7} high \u{1f600} é \\U0001f600",
        "mean": [0.5, 0.25], "words": ["a, b", "12", "null", "it's", "[x]"], "empty": {}, "nothing": [],
        "long": [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], "seed": u64::MAX, "edge": "\\\u{1f600}",
        "command": ["x", "--lr", "1e-3", "a: b", "", "-", "- x", "[", "{}", "k:", "o'k", "f", "g"],
        "runs": [{ "a": 1, "b": [], "c": { "d": [[1, 2], [3]] } }, "no", { "e": {} }],
    });
    run_dir::write_config(place.path(), &odd, &["flatnce".to_owned(), "a\nb".to_owned()]).expect("writes");
    std::fs::write(place.path().join("odd.json"), odd.to_string()).expect("writes");
    succeeds(peer_with_sources(&python, &["config", utf8(place.path())]));
}

#[test]
fn the_package_has_the_programs_objectives_and_torchvisions_networks() {
    let Some(python) = support::python("torchvision") else { return };
    succeeds(peer_with_sources(&python, &["objectives", &format!("{ROOT}/tests/golden/loss/loss.json")]));
    let place = tempfile::tempdir().expect("a directory");
    succeeds(peer_with_sources(&python, &["encoders", utf8(place.path())]));
}
