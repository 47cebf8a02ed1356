//! Other programs on the same cores. OpenMP's threads wait for each other at the end of every loop, so one that is kept
//! from running keeps all of them: on a crowded machine fewer threads are faster. (Two threads among twelve other
//! programs on two cores: 4.7 images a second; one: 15.5.)

use crate::config::Numerics;
use std::num::NonZero;
use std::time::{Duration, Instant};
use tch::Device;

/// Between two looks, and so many in a row that agree before anything changes: a short burst is no crowd.
const BETWEEN: Duration = Duration::from_secs(10);
const AGREEING: u32 = 3;
/// Nobody waits for a core of a machine that is idle for a larger share of the time.
const IDLE_SHARE: f64 = 0.1;
/// A program that has a larger share of the cores is not crowded.
const OWN_SHARE: f64 = 0.7;
/// So much of the machine must be idle before the threads come back.
const FREE_SHARE: f64 = 0.3;

/// Looks at the machine now and then, and sets the number of libtorch's threads.
pub struct Crowd {
    /// Threads of a machine of one's own.
    all: i32,
    now: i32,
    last: (Instant, Times),
    /// What the last looks have asked for, and how many.
    wanted: (i32, u32),
    told: bool,
}

/// Seconds since some time ago.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Times {
    /// Of this process, over all its threads.
    own: f64,
    /// Of all cores.
    idle: f64,
    cores: f64,
}

impl Crowd {
    /// `None` where the number of threads is to stay: on a GPU, where it was asked for, with `--deterministic` (sums are
    /// added up in another order by other numbers), and where the system tells of other cores than there are for this
    /// program.
    pub fn new(device: Device, numerics: Numerics) -> Option<Crowd> {
        let (all, times) = (tch::get_num_threads(), times()?);
        let asked = std::env::var_os("OMP_NUM_THREADS").is_some();
        let others = std::thread::available_parallelism().map_or(0, NonZero::get) as f64 != times.cores;
        let fixed = device != Device::Cpu || numerics.deterministic || asked || others || all < 2;
        (!fixed).then(|| Crowd { all, now: all, last: (Instant::now(), times), wanted: (all, 0), told: false })
    }

    /// Looks when it is time to; what it says is to be said once.
    pub fn look(&mut self) -> Option<String> {
        let (then, before) = self.last;
        if then.elapsed() < BETWEEN {
            return None;
        }
        let after = times()?;
        let cores = after.cores * then.elapsed().as_secs_f64();
        self.last = (Instant::now(), after);
        let (own, idle) = ((after.own - before.own) / cores, (after.idle - before.idle) / cores);
        let wanted = threads(own, idle, after.cores, self.now, self.all);
        self.wanted = if wanted == self.wanted.0 { (wanted, self.wanted.1 + 1) } else { (wanted, 1) };
        if wanted == self.now || self.wanted.1 < AGREEING {
            return None;
        }
        let instead = std::mem::replace(&mut self.now, wanted);
        tch::set_num_threads(wanted);
        if wanted > instead || std::mem::replace(&mut self.told, true) {
            return None;
        }
        Some(format!(
            "other programs take {:.0}% of this machine: libtorch computes with {wanted} instead of {instead} threads, which \
             wait for each other, until there is room again; OMP_NUM_THREADS={instead} or --deterministic keeps them (the \
             last digits of the weights depend on their number)",
            100.0 * (1.0 - own - idle)
        ))
    }
}

/// The number of threads for a program that has had the share `own` of the `cores`, while the share `idle` had nothing to
/// do; it has `now` of `all` threads.
fn threads(own: f64, idle: f64, cores: f64, now: i32, all: i32) -> i32 {
    if idle > FREE_SHARE {
        return all;
    }
    if idle > IDLE_SHARE || own > OWN_SHARE {
        return now;
    }
    ((own * cores) as i32).clamp(1, now)
}

/// `None` where the system does not tell.
fn times() -> Option<Times> {
    let mut own = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: room for the answer.
    if unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut own) } != 0 {
        return None;
    }
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    // SAFETY: a plain question.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    let (idle, cores) = idle(&text)?;
    let own = own.tv_sec as f64 + own.tv_nsec as f64 * 1e-9;
    (ticks > 0).then(|| Times { own, idle: idle / ticks as f64, cores })
}

/// From `/proc/stat`: how long all cores had nothing to do, in ticks, and how many they are.
fn idle(text: &str) -> Option<(f64, f64)> {
    let all: Vec<f64> = text.strip_prefix("cpu ")?.lines().next()?.split(' ').filter_map(|n| n.parse().ok()).collect();
    let cores = text.lines().filter(|line| line.starts_with("cpu")).count() - 1;
    // user, nice, system, idle, waiting for a disk.
    Some((all.get(3)? + all.get(4)?, cores as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_follow_the_share_of_the_machine_that_is_left() {
        for (own, idle, cores, now, all, wanted) in [
            // One's own machine, however its threads spend their time; a machine with room.
            (0.95, 0.0, 2.0, 2, 2, 2),
            (0.4, 0.2, 2.0, 2, 2, 2),
            // Twelve other programs on two cores; another user on half of sixteen.
            (0.2, 0.0, 2.0, 2, 2, 1),
            (0.5, 0.02, 16.0, 16, 16, 8),
            // They have gone: or they have not yet, and the threads stay as few.
            (0.5, 0.45, 2.0, 1, 2, 2),
            (0.2, 0.0, 2.0, 1, 2, 1),
            (0.9, 0.0, 16.0, 8, 16, 8),
        ] {
            assert_eq!(threads(own, idle, cores, now, all), wanted, "{own} {idle} {cores} {now}");
        }
    }

    #[test]
    fn the_system_tells_how_long_its_cores_were_idle() {
        let text =
            "cpu  100 2 30 4000 50 6 7 0 0 0\ncpu0 50 1 15 2000 25 3 3 0 0 0\ncpu1 50 1 15 2000 25 3 4 0 0 0\nintr 5\n";
        assert_eq!(idle(text), Some((4050.0, 2.0)));
        assert_eq!(idle("intr 5\n"), None);
        let (first, started) = (times().unwrap(), Instant::now());
        while started.elapsed() < Duration::from_millis(50) {}
        let second = times().unwrap();
        assert!(second.own > first.own + 0.005 && second.idle >= first.idle && second.cores >= 1.0, "{second:?}");
    }
}
