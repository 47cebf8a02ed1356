//! scripts/setup.sh, run for real in a copy of the repository's `scripts/` with a cache of
//! its own. The wheels are tiny fakes whose hashes are pinned in that copy; nothing here
//! uses the network, and pip is told that there is none.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const ALL_H: &str = "torch/include/torch/csrc/api/include/torch/all.h";

/// A repository with nothing but scripts, and an empty cache.
struct Clone(TempDir);

impl Clone {
    fn new() -> Self {
        let clone = Self(tempfile::tempdir().unwrap());
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
        fs::create_dir_all(clone.path("scripts/setup")).unwrap();
        fs::copy(scripts.join("setup.sh"), clone.path("scripts/setup.sh")).unwrap();
        for part in fs::read_dir(scripts.join("setup")).unwrap().map(Result::unwrap) {
            if part.file_type().unwrap().is_file() {
                fs::copy(part.path(), clone.path("scripts/setup").join(part.file_name())).unwrap();
            }
        }
        clone
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    fn write(&self, below: &str, text: &str) -> PathBuf {
        let path = self.path(below);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path
    }

    fn write_program(&self, below: &str, text: &str) {
        fs::set_permissions(self.write(below, text), fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.path("scripts/setup.sh"));
        command.args(arguments).current_dir("/").stdin(Stdio::null());
        // Cargo gives LIBTORCH to its tests; the caller's choices are not these tests'.
        for name in
            ["LIBTORCH", "LIBTORCH_USE_PYTORCH", "FLATNCE_WHEELS", "FLATNCE_KEEP_DOWNLOADS", "VIRTUAL_ENV", "CC", "CXX"]
        {
            command.env_remove(name);
        }
        command.env("XDG_CACHE_HOME", self.path("cache")).env("PIP_NO_INDEX", "1").env_remove("PIP_FIND_LINKS");
        command
    }

    fn setup(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Programs in `bin/` win over those of the machine.
    fn command_with_bin(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(arguments);
        command.env("PATH", format!("{}:{}", self.path("bin").display(), std::env::var("PATH").unwrap()));
        command
    }

    /// What a libtorch of this version looks like to the script.
    fn make_libtorch(&self, below: &str, version: &str) -> PathBuf {
        for file in
            ["lib/libtorch_cpu.so", "lib/libtorch.so", "lib/libc10.so", "include/torch/csrc/api/include/torch/all.h"]
        {
            self.write(&format!("{below}/{file}"), "");
        }
        self.write(&format!("{below}/build-version"), version);
        self.path(below)
    }

    /// Makes the four wheels of the CPU set in `wheels/` and pins their hashes.
    fn make_wheels(&self) -> PathBuf {
        let wheels = self.path("wheels");
        fs::create_dir_all(&wheels).unwrap();
        let program = r#"
import hashlib, pathlib, sys, zipfile
wheels, pins, header = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
cu13, headers = "nvidia/cu13/lib/", "nvidia/cu13/include/"
contents = {
    "torch-2.11.0": ["torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.1",
                     "torch/lib/libtorch_cuda.so", "torch/nn/functional.py", header,
                     "torch-2.11.0.dist-info/licenses/LICENSE"],
    "nvidia_cuda_runtime-13.0.96": [cu13 + "libcudart.so.13", headers + "cuda.h", headers + "cuda_runtime.h"],
    "nvidia_cuda_crt-13.0.88": [headers + "crt/host_defines.h"],
    "nvidia_cuda_cupti-13.0.85": [cu13 + "libcupti.so.13", cu13 + "libnvperf_host.so", headers + "cupti.h"],
}
lines = []
for stem, members in contents.items():
    wheel = wheels / (stem + "-py3-none-manylinux_2_28_x86_64.whl")
    with zipfile.ZipFile(wheel, "w") as archive:
        for member in members:
            archive.writestr(member, "bytes of " + member)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    lines.append(stem.replace("_", "-").replace("-1", "==1").replace("-2.", "==2.") + " --hash=sha256:" + digest)
pins.write_text("\n".join(lines) + "\n")
"#;
        let status = Command::new("python3")
            .args(["-c", program])
            .arg(&wheels)
            .arg(self.path("scripts/setup/libtorch-cpu.txt"))
            .arg(ALL_H)
            .status()
            .expect("python3, which scripts/setup.sh needs too");
        assert!(status.success());
        wheels
    }

    fn install(&self, wheels: &Path) -> Output {
        self.command(&[]).env("FLATNCE_WHEELS", wheels).output().unwrap()
    }

    fn home(&self) -> PathBuf {
        self.path("cache/flatnce/libtorch-2.11.0-cpu")
    }

    fn cache_entries(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path("cache/flatnce")) else { return Vec::new() };
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn linked(&self) -> Option<PathBuf> {
        fs::read_link(self.path(".libtorch")).ok()
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[track_caller]
fn assert_ok(output: &Output) {
    assert!(output.status.success(), "{}", text(output));
}

#[track_caller]
fn assert_refused(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{}", text(output));
    let stderr = String::from_utf8_lossy(&output.stderr);
    for part in parts {
        assert!(stderr.contains(part), "no '{part}' in: {stderr}");
    }
}

/// Less than a second; the best of three, because other tests share the machine.
#[track_caller]
fn assert_quick(run: impl Fn() -> Output) {
    let seconds = (0..3).map(|_| {
        let start = Instant::now();
        assert_ok(&run());
        start.elapsed()
    });
    let best = seconds.min().unwrap();
    assert!(best < Duration::from_secs(1), "{best:?}");
}

#[test]
fn help_names_every_option_and_variable() {
    let output = Clone::new().setup(&["--help"]);
    assert_ok(&output);
    for part in
        ["--cpu", "--cuda", "--python", "LIBTORCH=", "LIBTORCH_USE_PYTORCH", "FLATNCE_WHEELS", "FLATNCE_KEEP_DOWNLOADS"]
    {
        assert!(text(&output).contains(part), "{part}");
    }
    assert!(text(&output).lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn wrong_options_are_refused() {
    let clone = Clone::new();
    assert_refused(&clone.setup(&["--gpu"]), &["unknown option '--gpu'"]);
    assert_refused(&clone.setup(&["--cpu", "--cuda"]), &["exclude each other"]);
    let own = clone.make_libtorch("own", "2.11.0");
    assert_refused(&clone.command(&["--cuda"]).env("LIBTORCH", own).output().unwrap(), &["LIBTORCH is set", "--cuda"]);
    assert_eq!(clone.linked(), None);
}

#[test]
fn a_wrong_own_libtorch_is_refused() {
    let clone = Clone::new();
    let with = |directory: &Path| clone.command(&[]).env("LIBTORCH", directory).output().unwrap();
    assert_refused(&with(&clone.path("nowhere")), &["nowhere", "no such directory"]);
    assert_refused(&with(Path::new("own")), &["relative"]);
    let old = clone.make_libtorch("old", "2.3.0+cu121\n");
    assert_refused(&with(&old), &["old", "2.3.0", "2.11.0"]);
    let partial = clone.make_libtorch("partial", "2.11.0");
    fs::remove_file(partial.join("lib/libtorch_cpu.so")).unwrap();
    assert_refused(&with(&partial), &["lib/libtorch_cpu.so is missing"]);
    // Without build-version the headers tell.
    let unnamed = clone.make_libtorch("unnamed", "");
    fs::remove_file(unnamed.join("build-version")).unwrap();
    clone.write(
        "unnamed/include/torch/headeronly/version.h",
        "#define TORCH_VERSION_MAJOR 2\n#define TORCH_VERSION_MINOR 10\n#define TORCH_VERSION_PATCH 1\n",
    );
    assert_refused(&with(&unnamed), &["2.10.1"]);
    assert_eq!(clone.linked(), None);
}

#[test]
fn an_own_libtorch_is_linked_and_stays_linked() {
    let clone = Clone::new();
    let own = clone.make_libtorch("own", "2.11.0+cpu\n");
    assert_ok(&clone.command(&[]).env("LIBTORCH", &own).output().unwrap());
    assert_eq!(clone.linked(), Some(fs::canonicalize(&own).unwrap()));
    // Without the variable, and with the value that cargo itself gives.
    assert_ok(&clone.setup(&[]));
    let link = fs::canonicalize(clone.0.path()).unwrap().join(".libtorch");
    assert_ok(&clone.command(&[]).env("LIBTORCH", link).output().unwrap());
    assert_eq!(clone.linked(), Some(fs::canonicalize(&own).unwrap()));
    assert_eq!(clone.cache_entries(), [""; 0], "nothing is fetched");
}

#[test]
fn the_libtorch_of_pytorch_is_linked_where_asked_for() {
    let clone = Clone::new();
    let asked = || {
        let mut command = clone.command(&[]);
        command.env("LIBTORCH_USE_PYTORCH", "1").env("PYTHONPATH", clone.path("site"));
        command.output().unwrap()
    };
    clone.make_libtorch("site/torch", "2.9.1+cu130");
    clone.write("site/torch/__init__.py", "raise SystemExit('torch must not be imported')\n");
    assert_refused(&asked(), &["2.9.1", "pip install torch==2.11.0"]);
    clone.write("site/torch/build-version", "2.11.0");
    assert_ok(&asked());
    assert_eq!(clone.linked(), Some(fs::canonicalize(clone.path("site/torch")).unwrap()));
}

#[test]
fn the_cpu_set_is_installed_once() {
    let clone = Clone::new();
    let wheels = clone.make_wheels();
    assert_ok(&clone.install(&wheels));
    let home = fs::canonicalize(clone.home()).unwrap();
    assert_eq!(clone.linked(), Some(home.clone()));
    let mut libraries: Vec<_> = fs::read_dir(home.join("lib"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    libraries.sort();
    assert_eq!(
        libraries,
        ["libc10.so", "libcudart.so.13", "libcupti.so.13", "libgomp.so.1", "libtorch.so", "libtorch_cpu.so"]
    );
    assert_eq!(fs::read_to_string(home.join("lib/libtorch.so")).unwrap().trim(), "INPUT(libtorch_cpu.so)");
    assert_eq!(fs::read_to_string(home.join("lib/libc10.so")).unwrap(), "bytes of torch/lib/libc10.so");
    assert_eq!(fs::read_to_string(home.join("build-version")).unwrap().trim(), "2.11.0");
    assert!(home.join(ALL_H.strip_prefix("torch/").unwrap()).is_file());
    assert!(home.join("licences/torch-2.11.0/LICENSE").is_file());
    for header in ["cuda.h", "cuda_runtime.h", "crt/host_defines.h"] {
        assert!(home.join("include-cuda").join(header).is_file(), "{header}");
    }
    assert!(!home.join("include-cuda/cupti.h").exists(), "the CUDA part needs none of CUPTI's headers");
    assert_eq!(clone.cache_entries(), [".lock", "libtorch-2.11.0-cpu"]);
    assert_eq!(fs::read_dir(&wheels).unwrap().count(), 4, "the caller's wheels are left alone");

    // The second run needs neither wheels nor network.
    assert_quick(|| clone.setup(&[]));
}

#[test]
fn a_half_installed_or_damaged_directory_is_not_believed() {
    let clone = Clone::new();
    let wheels = clone.make_wheels();
    let library = clone.home().join("lib/libtorch_cpu.so");
    let whole = "bytes of torch/lib/libtorch_cpu.so";

    // Everything is there but the stamp, as after an unpacking that was killed.
    clone.make_libtorch("cache/flatnce/libtorch-2.11.0-cpu", "2.11.0");
    clone.write("cache/flatnce/libtorch-2.11.0-cpu.partial/lib/libc10.so", "left by a killed run");
    assert_refused(&clone.setup(&[]), &["could not be fetched"]);
    assert_eq!(clone.linked(), None);
    assert_ok(&clone.install(&wheels));
    assert_eq!(fs::read_to_string(&library).unwrap(), whole);
    assert_eq!(clone.cache_entries(), [".lock", "libtorch-2.11.0-cpu"]);

    // A library that lost its end after it was installed.
    fs::write(&library, "bytes").unwrap();
    assert_ok(&clone.install(&wheels));
    assert_eq!(fs::read_to_string(&library).unwrap(), whole);

    // Other pins: the old set does not pass for the new one.
    let pins = clone.path("scripts/setup/libtorch-cpu.txt");
    let newer = format!("# newer\n{}", fs::read_to_string(&pins).unwrap());
    fs::write(&pins, newer).unwrap();
    assert_refused(&clone.setup(&[]), &["could not be fetched"]);
}

#[test]
fn a_wheel_with_other_bytes_is_refused() {
    let clone = Clone::new();
    let wheels = clone.make_wheels();
    let torch = wheels.join("torch-2.11.0-py3-none-manylinux_2_28_x86_64.whl");
    let mut bytes = fs::read(&torch).unwrap();
    bytes[60] ^= 1;
    fs::write(&torch, bytes).unwrap();
    assert_refused(&clone.install(&wheels), &["torch==2.11.0", "SHA-256", "pip download"]);
    assert_eq!(clone.linked(), None);
    assert_eq!(clone.cache_entries(), [".lock"]);
}

#[test]
fn two_set_ups_at_once_both_succeed() {
    let clone = Clone::new();
    let wheels = clone.make_wheels();
    let start = || clone.command(&[]).env("FLATNCE_WHEELS", &wheels).stdout(Stdio::null()).spawn().unwrap();
    let (mut first, mut second) = (start(), start());
    assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
    assert_eq!(clone.cache_entries(), [".lock", "libtorch-2.11.0-cpu"]);
}

#[test]
fn a_signal_ends_a_download_at_once_and_leaves_nothing() {
    let clone = Clone::new();
    let wheels = clone.make_wheels();
    clone.write_program("bin/python3", "#!/bin/sh\n[ \"$1\" = -m ] || exit 0\ntouch \"$TMPDIR/started\"\nsleep 60\n");
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let mut run = clone.command_with_bin(&[]);
        // A shell that starts the tests in the background has them ignore SIGINT, which a script cannot undo; a terminal's
        // own does not.
        // SAFETY: signal may be called between fork and exec.
        unsafe {
            run.pre_exec(|| match libc::signal(libc::SIGINT, libc::SIG_DFL) {
                libc::SIG_ERR => Err(std::io::Error::last_os_error()),
                _ => Ok(()),
            })
        };
        let mut child = run.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let started = clone.path(&format!("cache/flatnce/wheels/tmp.{}/started", child.id()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while !started.exists() {
            assert!(Instant::now() < deadline, "the download did not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        let stopped = Instant::now();
        Command::new("kill").args([format!("-{signal}"), child.id().to_string()]).status().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(code));
        assert!(stopped.elapsed() < Duration::from_secs(5));
        assert_eq!(clone.cache_entries(), [".lock", "wheels"]);
        assert_eq!(fs::read_dir(clone.path("cache/flatnce/wheels")).unwrap().count(), 0);
    }
    assert_ok(&clone.install(&wheels));
}

#[test]
fn what_the_machine_lacks_is_named() {
    let clone = Clone::new();
    let output = clone.command(&[]).env("CXX", "no-such-compiler").output().unwrap();
    assert_refused(&output, &["compiler", "no-such-compiler", "build-essential"]);
    assert_refused(&clone.setup(&[]), &["could not be fetched", "Network", "Disk", "FLATNCE_WHEELS"]);
    clone.write_program("bin/python3", "#!/bin/sh\nexit 1\n");
    assert_refused(&clone.command_with_bin(&[]).output().unwrap(), &["no pip", "python3-pip"]);
    clone.write_program("bin/df", "#!/bin/sh\necho header\necho disk 9 9 2048 50% /\n");
    fs::remove_file(clone.path("bin/python3")).unwrap();
    assert_refused(
        &clone.command_with_bin(&[]).output().unwrap(),
        &["not enough room", "2 MB are free", "XDG_CACHE_HOME"],
    );
    clone.write_program("bin/uname", "#!/bin/sh\nif [ \"$1\" = -m ]; then echo aarch64; else echo Linux; fi\n");
    assert_refused(
        &clone.command_with_bin(&[]).output().unwrap(),
        &["Linux on aarch64", "LIBTORCH=", "LIBTORCH_USE_PYTORCH=1"],
    );
}

#[test]
fn something_else_named_libtorch_is_not_overwritten() {
    let clone = Clone::new();
    clone.write(".libtorch/precious", "kept");
    let own = clone.make_libtorch("own", "2.11.0");
    assert_refused(&clone.command(&[]).env("LIBTORCH", own).output().unwrap(), &[".libtorch is not a link"]);
    assert!(clone.path(".libtorch/precious").is_file());
}

#[test]
fn a_python_environment_with_the_pinned_versions_is_adopted() {
    let clone = Clone::new();
    let own = clone.make_libtorch("own", "2.11.0");
    let asked = || clone.command(&["--python"]).env("LIBTORCH", &own).output().unwrap();
    clone.write("scripts/setup/python.txt", "# pins\nfake-package==1.0\nsetuptools<82\n");
    clone
        .write("site/fake_package-1.1.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-package\nVersion: 1.1\n");
    let wrapper = format!("#!/bin/sh\nPYTHONPATH={} exec python3 \"$@\"\n", clone.path("site").display());
    clone.write_program("cache/flatnce/python/bin/python", &wrapper);
    assert_refused(&asked(), &["fake-package 1.1 instead of 1.0", "Move it away"]);
    assert!(clone.path("cache/flatnce/python/bin/python").is_file(), "never deleted");

    fs::rename(clone.path("site/fake_package-1.1.dist-info"), clone.path("site/fake_package-1.0.dist-info")).unwrap();
    clone
        .write("site/fake_package-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: fake-package\nVersion: 1.0\n");
    assert_ok(&asked());
    assert!(clone.path("cache/flatnce/python/.complete").is_file());
    assert_quick(asked);

    // A stamp of other pins, behind a link of ours: not believed, so it would be made anew.
    clone.write("scripts/setup/python.txt", "fake-package==2.0\n");
    fs::rename(clone.path("cache/flatnce/python"), clone.path("cache/flatnce/python-old")).unwrap();
    symlink(clone.path("cache/flatnce/python-old"), clone.path("cache/flatnce/python")).unwrap();
    clone.write_program("bin/df", "#!/bin/sh\necho header\necho disk 9 9 2048 50% /\n");
    let output = clone.command_with_bin(&["--python"]).env("LIBTORCH", &own).output().unwrap();
    assert_refused(&output, &["not enough room"]);
}
