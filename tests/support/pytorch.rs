//! PyTorch's own CUDA libraries, beside which the CUDA part of the program is opened.

use super::support::{python, skipped};
use flatnce::native::cuda;
use std::path::{Path, PathBuf};
use std::process::Command;

/// site-packages of a Python with PyTorch's CUDA wheels; `None` skips the test, which is said.
pub fn site_packages() -> Option<PathBuf> {
    let python = python("torch")?;
    let where_torch_is = "import importlib.util; print(importlib.util.find_spec('torch').origin)";
    let output = Command::new(python).args(["-c", where_torch_is]).output().expect("it starts");
    let torch = PathBuf::from(String::from_utf8(output.stdout).expect("a path").trim());
    let site = torch.parent().and_then(Path::parent).expect("torch/__init__.py in a directory").to_owned();
    if !site.join("torch/lib/libtorch_cuda.so").exists() {
        skipped(&format!("the torch in {} has no CUDA half", site.display()));
        return None;
    }
    Some(site)
}

/// Started as on a machine with a GPU: all of libtorch is PyTorch's.
pub fn beside_pytorch(mut command: Command, site: &Path) -> Command {
    let directories = ["torch/lib", "nvidia/cu13/lib", "nvidia/cudnn/lib"].map(|lib| site.join(lib));
    command.env("LD_LIBRARY_PATH", std::env::join_paths(directories).expect("no colon in it"));
    command.env("OMP_NUM_THREADS", "1");
    command
}

/// Runs the test `inside` of the calling program in a process of its own, beside PyTorch's libraries. Nothing where they
/// or the part are missing, which is said.
pub fn run_inside(variables: &[(&str, &str)]) {
    let Some(site) = site_packages().filter(|_| is_built()) else { return };
    let own = std::env::current_exe().expect("this test");
    let mut command = beside_pytorch(Command::new(own), &site);
    command.envs(variables.iter().copied());
    let output = command.args(["--ignored", "--exact", "inside", "--nocapture"]).output().expect("it starts");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

/// Skips a test of the part in a build that has none.
pub fn is_built() -> bool {
    cuda::built().inspect_err(|why| skipped(why)).is_ok()
}
