//! `flatnce doctor`: whether this machine can do what is asked of it, and for
//! each thing that is wrong the step that mends it.

mod bench;
mod cpu;
mod cuda_part;
mod gpu;

use crate::config::DeviceChoice;
use crate::native::LIBTORCH;
use crate::report::Console;
use crate::{device, memory, native, values};
use anyhow::{Result, bail};
use serde::Serialize;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Less free memory than this ends no training.
const LEAST_FREE_BYTES: u64 = 1 << 30;

/// Whether this machine is fit, and what mends it.
#[derive(Clone, Debug, clap::Args)]
pub struct Doctor {
    /// Device that is to work: auto, cpu, cuda or cuda:N
    ///
    /// With auto a GPU is wanted only where there is one.
    #[arg(long, value_name = "DEVICE", default_value = "auto", value_parser = values::device)]
    pub device: DeviceChoice,
    /// Measure products of matrices, copies and training steps too
    #[arg(long)]
    pub bench: bool,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// How a thing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Good,
    /// Worth knowing; nothing fails for it.
    Note,
    Wrong,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    name: &'static str,
    health: Health,
    found: String,
    /// What mends it, or makes it better.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

impl Finding {
    fn good(name: &'static str, found: impl Into<String>) -> Finding {
        Finding { name, health: Health::Good, found: found.into(), remedy: None }
    }

    fn note(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, health: Health::Note, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn wrong(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { name, health: Health::Wrong, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Looks, prints, and with `--bench` measures.
///
/// Errors: something is wrong; what it is has been printed with its remedy.
pub fn run(doctor: &Doctor, console: &Console) -> Result<()> {
    if doctor.device != DeviceChoice::Cpu {
        // First, because libtorch asks itself about CUDA as it describes its build, and remembers the answer. What went
        // wrong is told below.
        let _ = device::load_cuda_libraries();
    }
    let mut findings = vec![Finding::good("program", format!("flatnce {}", env!("CARGO_PKG_VERSION")))];
    findings.extend(libtorch());
    findings.extend(cpu::look());
    findings.extend(main_memory(memory::bounds()));
    findings.extend(gpu::look(doctor.device));
    let wrong = findings.iter().filter(|finding| finding.health == Health::Wrong).count();
    let measured = if doctor.bench && wrong == 0 {
        let (device, _) = device::resolve(doctor.device)?;
        Some(bench::measure(device, console)?)
    } else {
        None
    };
    if doctor.json {
        let all = json!({ "healthy": wrong == 0, "findings": findings, "bench": measured });
        console.result(&serde_json::to_string_pretty(&all)?);
    } else {
        console.result(as_text(&findings).trim_end());
        if let Some(measured) = &measured {
            console.result(&format!("\n{}", bench::as_text(measured)));
        }
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("1 thing is wrong; what mends it stands beside it"),
        many => bail!("{many} things are wrong; what mends them stands beside them"),
    }
}

fn as_text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, health, found, remedy } in findings {
        let sign = match health {
            Health::Good => "     ",
            Health::Note => "note ",
            Health::Wrong => "WRONG",
        };
        text.push_str(&format!("{sign} {name:<width$}  {found}\n"));
        if let Some(remedy) = remedy {
            text.push_str(&format!("{:>1$}-> {remedy}\n", "", 5 + 1 + width + 2));
        }
    }
    text
}

/// Which libtorch it is, and where it came from.
fn libtorch() -> Vec<Finding> {
    let mend = "run ./scripts/setup.sh and cargo build --release again";
    let version = match native::version() {
        Some(version) if version == LIBTORCH => Finding::good("libtorch", version),
        Some(other) => Finding::wrong("libtorch", format!("{other}, and this program needs {LIBTORCH}"), mend),
        None => Finding::wrong("libtorch", format!("does not say its version; {LIBTORCH} does"), mend),
    };
    let place = libtorch_place(device::loaded_from("libtorch_cpu.so"), Path::new(device::LIBTORCH_DIRECTORY));
    vec![version, place]
}

/// Where libtorch was loaded from, and whether that is a surprise: on the machine on which the program was built, where
/// the libtorch that it was linked to still is.
fn libtorch_place(loaded: Option<PathBuf>, built: &Path) -> Finding {
    match loaded {
        Some(loaded) if loaded != built && built.is_dir() => Finding::note(
            "libtorch's place",
            format!("{}, not {} that the program was built with", loaded.display(), built.display()),
            "unset LD_LIBRARY_PATH (or LD_PRELOAD), unless you mean it",
        ),
        Some(loaded) => Finding::good("libtorch's place", loaded.display().to_string()),
        None => Finding::note("libtorch's place", "unknown", "look at /proc/self/maps by hand"),
    }
}

fn main_memory(bounds: memory::Bounds) -> Vec<Finding> {
    let mut found = match (bounds.machine_total, bounds.machine) {
        (Some(total), Some(free)) => format!("{} of {} free", gib(free), gib(total)),
        _ => "the system does not tell".to_owned(),
    };
    if let (Some(limit), Some(rest)) = (bounds.group_limit, bounds.group) {
        found.push_str(&format!("; the control group allows {}, {} are left", gib(limit), gib(rest)));
    }
    if let Some(rest) = bounds.address_space {
        found.push_str(&format!("; ulimit -v leaves {}", gib(rest)));
    }
    vec![match bounds.free() {
        Some(free) if free < LEAST_FREE_BYTES => Finding::wrong(
            "memory",
            found,
            "end other programs, or raise the limit (docker run --memory, Slurm's --mem, ulimit -v); 1 GiB is the least",
        ),
        _ => Finding::good("memory", found),
    }]
}

fn gib(bytes: u64) -> String {
    format!("{:.1} GiB", bytes as f64 / f64::from(1 << 30))
}

/// Whether a GPU has been asked for by name.
fn wants_cuda(choice: DeviceChoice) -> bool {
    matches!(choice, DeviceChoice::Cuda(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Bounds;

    #[test]
    fn another_libtorch_is_a_surprise_only_where_the_program_was_built() {
        let place = tempfile::tempdir().unwrap();
        let loaded = || Some(PathBuf::from("/elsewhere/lib"));
        let surprise = libtorch_place(loaded(), place.path());
        assert_eq!(surprise.health, Health::Note);
        assert!(surprise.remedy.unwrap().contains("LD_LIBRARY_PATH"));
        assert_eq!(libtorch_place(loaded(), &place.path().join("gone")).health, Health::Good);
        assert_eq!(libtorch_place(Some(place.path().to_owned()), place.path()).health, Health::Good);
    }

    #[test]
    fn little_memory_is_wrong_and_says_which_bound_it_is() {
        let few = Bounds {
            machine: Some(64 << 30),
            machine_total: Some(128 << 30),
            group: Some(1 << 29),
            group_limit: Some(2 << 30),
            address_space: None,
        };
        let [finding] = &main_memory(few)[..] else { panic!("one") };
        assert_eq!(finding.health, Health::Wrong);
        assert!(finding.found.contains("the control group allows 2.0 GiB, 0.5 GiB are left"), "{}", finding.found);
        let text = as_text(std::slice::from_ref(finding));
        assert!(text.starts_with("WRONG memory") && text.contains("-> end other programs"), "{text}");
        assert_eq!(main_memory(Bounds { group: Some(4 << 30), ..few })[0].health, Health::Good);
    }
}
