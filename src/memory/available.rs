//! How much main memory a process may still ask for: the machine's, its
//! container's and its own limit, whichever is nearest.

use std::path::{Path, PathBuf};

/// What bounds the memory of this process, in bytes; `None` where there is no such bound, or the system does not tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bounds {
    /// Free on the machine, caches that would be given up included.
    pub machine: Option<u64>,
    /// Of the machine in all.
    pub machine_total: Option<u64>,
    /// Left of the control group's limit: a container's, a batch job's.
    pub group: Option<u64>,
    /// That limit.
    pub group_limit: Option<u64>,
    /// Left of the address space that `ulimit -v` allows.
    pub address_space: Option<u64>,
}

impl Bounds {
    /// The nearest.
    pub fn free(&self) -> Option<u64> {
        [self.machine, self.group, self.address_space].into_iter().flatten().min()
    }
}

/// Reads all of them; Linux only, elsewhere nothing is known.
pub fn bounds() -> Bounds {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (group_limit, group) = group().unzip();
    Bounds {
        machine: kilobytes(&meminfo, "MemAvailable:"),
        machine_total: kilobytes(&meminfo, "MemTotal:"),
        group,
        group_limit,
        address_space: address_space(),
    }
}

/// `name:   123 kB` of a file of the kernel's, in bytes.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? << 10)
}

/// Limit and rest of the control group, version 2 or 1; of its ancestors the tightest counts.
fn group() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = |prefix: &str| text.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned);
    let v2 = own("0::").unwrap_or_else(|| "/".into());
    let v1 = text.lines().find_map(|line| line.split_once(":memory:")).map_or("/".to_owned(), |(_, path)| path.into());
    let places = [
        ("/sys/fs/cgroup", v2, "memory.max", "memory.current"),
        ("/sys/fs/cgroup/memory", v1, "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ];
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (root, path, limit, usage) in places {
        let mut at = Some(PathBuf::from(root).join(path.trim_start_matches('/')));
        while let Some(directory) = at.filter(|directory| directory.starts_with(root)) {
            found.extend(group_at(&directory, limit, usage));
            at = directory.parent().map(Path::to_owned);
        }
    }
    found.into_iter().min_by_key(|(_, rest)| *rest)
}

fn group_at(directory: &Path, limit: &str, usage: &str) -> Option<(u64, u64)> {
    let number = |name: &str| std::fs::read_to_string(directory.join(name)).ok()?.trim().parse::<u64>().ok();
    // `max`, or in version 1 a number beyond every machine: no limit.
    let limit = number(limit).filter(|&limit| limit < 1 << 60)?;
    let stat = std::fs::read_to_string(directory.join("memory.stat")).unwrap_or_default();
    // Pages of files, which go when memory is wanted.
    let cached = stat.lines().filter_map(|line| {
        line.strip_prefix("inactive_file ").or_else(|| line.strip_prefix("active_file "))?.trim().parse::<u64>().ok()
    });
    let cached: u64 = cached.sum();
    let used = number(usage).unwrap_or(0).saturating_sub(cached);
    Some((limit, limit.saturating_sub(used)))
}

fn address_space() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    let told = unsafe { libc::getrlimit(libc::RLIMIT_AS, &mut limit) } == 0;
    if !told || limit.rlim_cur == libc::RLIM_INFINITY {
        return None;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    Some(limit.rlim_cur.saturating_sub(kilobytes(&status, "VmSize:").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_has_some_and_the_nearest_bound_counts() {
        let here = bounds();
        assert!(here.machine.unwrap() > 0 && here.machine.unwrap() <= here.machine_total.unwrap());
        let bounds = Bounds { machine: Some(8), group: Some(3), address_space: None, ..Bounds::default() };
        assert_eq!(bounds.free(), Some(3));
        assert_eq!(Bounds::default().free(), None);
    }

    #[test]
    fn a_group_without_a_limit_is_none_and_caches_do_not_count() {
        let place = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(place.path().join(name), text).unwrap();
        write("memory.max", "max\n");
        assert_eq!(group_at(place.path(), "memory.max", "memory.current"), None);
        write("memory.max", "1000\n");
        write("memory.current", "700\n");
        write("memory.stat", "anon 400\ninactive_file 200\nactive_file 100\ntotal_inactive_file 7\n");
        assert_eq!(group_at(place.path(), "memory.max", "memory.current"), Some((1000, 600)));
    }
}
