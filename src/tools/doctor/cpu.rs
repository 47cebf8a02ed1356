//! The processor: which it is, how many threads compute, and in what.

use super::Finding;
use crate::device;

pub(super) fn look() -> Vec<Finding> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = info.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = field("model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let flags: Vec<String> = field("flags").unwrap_or_default().split(' ').map(str::to_owned).collect();
    let has = |flag: &str| flags.iter().any(|found| found == flag);
    vec![
        Finding::good("processor", format!("{model}, {cores} cores for this process")),
        threads(usize::try_from(tch::get_num_threads()).unwrap_or(1), cores),
        precisions(&has),
    ]
}

/// Threads of libtorch against the cores that this process may use (a container's share included).
fn threads(threads: usize, cores: usize) -> Finding {
    let found = format!("libtorch computes on {threads}");
    if threads > cores {
        Finding::note(
            "threads",
            found,
            format!("set OMP_NUM_THREADS={cores}: more threads than cores wait for each other"),
        )
    } else if 2 * threads <= cores {
        Finding::note("threads", found, format!("OMP_NUM_THREADS={cores} uses all cores, if nobody else needs them"))
    } else {
        Finding::good("threads", found)
    }
}

/// What the processor multiplies itself, and what is emulated.
fn precisions(has: &dyn Fn(&str) -> bool) -> Finding {
    let vectors = ["avx512f", "avx2"].into_iter().find(|flag| has(flag)).unwrap_or("no wide vectors");
    let or_emulated = |flags: &[&str]| {
        let found: Vec<&str> = flags.iter().copied().filter(|flag| has(flag)).collect();
        if found.is_empty() { "emulated, slow".to_owned() } else { found.join(", ") }
    };
    let text = format!(
        "fp32 ({vectors}), bf16 ({}), fp16 ({})",
        or_emulated(&["avx512_bf16", "amx_bf16"]),
        or_emulated(&["avx512_fp16", "amx_fp16"])
    );
    let automatic = if device::cpu_has_bf16() { "bf16" } else { "fp32" };
    Finding::good("CPU precisions", format!("{text}; --precision auto is {automatic}"))
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn threads_are_judged_by_the_cores() {
        assert_eq!(threads(4, 4).health, Health::Good);
        assert!(threads(16, 4).remedy.unwrap().contains("OMP_NUM_THREADS=4"));
        assert!(threads(1, 8).remedy.unwrap().contains("OMP_NUM_THREADS=8"));
    }

    #[test]
    fn what_a_processor_lacks_is_emulated() {
        let found = precisions(&|flag| ["avx2", "avx512f", "amx_bf16"].contains(&flag)).found;
        assert!(found.starts_with("fp32 (avx512f), bf16 (amx_bf16), fp16 (emulated, slow)"), "{found}");
    }
}
