//! `--nproc N`: the launcher for one machine. Starts this program N times,
//! serves their store, hands signals on, and ends all when one fails.

use super::engine::Store;
use super::surroundings::SPAWNED;
use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

/// How the processes ended, when none failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Done,
    /// Stopped on request after saving.
    Stopped,
}

/// Exit code of a process that was stopped on request, with everything saved: sysexits' EX_TEMPFAIL.
pub const STOPPED: i32 = 75;

/// After one has failed, the others find out by themselves and say why they end; who does not is killed.
const GRACE: Duration = Duration::from_secs(20);

const LOOK: Duration = Duration::from_millis(20);

/// Runs this command line as `count` ranks on this machine and waits for them.
///
/// Errors: a process cannot be started; the first that fails, by its rank.
pub fn nproc(count: usize, timeout: Duration) -> Result<Ended> {
    // Bound before the port is told to anybody: no other program can take it in between.
    let listening = TcpListener::bind("127.0.0.1:0").context("no port for the store on the loopback interface")?;
    let port = listening.local_addr()?.port();
    let _store = Store::open("127.0.0.1", port, Some(OwnedFd::from(listening)), "launcher", timeout)?;
    // Before the first child, so that no signal meets a parent that does not hand it on.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let mut children = Vec::with_capacity(count);
    for rank in 0..count {
        match start(rank, count, port) {
            Ok(child) => children.push(child),
            Err(error) => {
                kill(&mut children);
                return Err(error);
            }
        }
    }
    wait(&mut children, &mut signals)
}

fn start(rank: usize, count: usize, port: u16) -> Result<Child> {
    let program = std::env::current_exe().context("this program's own file is not known")?;
    let mut command = Command::new(&program);
    command.args(std::env::args_os().skip(1));
    for (name, value) in [
        ("RANK", rank.to_string()),
        ("LOCAL_RANK", rank.to_string()),
        ("WORLD_SIZE", count.to_string()),
        ("LOCAL_WORLD_SIZE", count.to_string()),
        ("MASTER_ADDR", "127.0.0.1".to_owned()),
        ("MASTER_PORT", port.to_string()),
        ("TORCHELASTIC_USE_AGENT_STORE", "True".to_owned()),
        (SPAWNED, std::process::id().to_string()),
    ] {
        command.env(name, value);
    }
    command.env_remove("TORCHELASTIC_RESTART_COUNT").env_remove("TORCHELASTIC_RUN_ID");
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        command.env("OMP_NUM_THREADS", (cores / count).max(1).to_string());
    }
    // A group of its own: Ctrl-C at the terminal comes once, through us.
    command.process_group(0);
    // SAFETY: prctl is a system call without memory, allowed between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            Ok(())
        });
    }
    command.spawn().with_context(|| format!("rank {rank} cannot be started ({})", program.display()))
}

fn wait(children: &mut [Child], signals: &mut Signals) -> Result<Ended> {
    let mut ends: Vec<Option<ExitStatus>> = vec![None; children.len()];
    let mut failed: Option<(usize, Instant)> = None;
    while ends.contains(&None) {
        for signal in signals.pending() {
            for (child, _) in children.iter().zip(&ends).filter(|(_, end)| end.is_none()) {
                send(child, signal);
            }
        }
        for (rank, child) in children.iter_mut().enumerate() {
            if ends[rank].is_some() {
                continue;
            }
            ends[rank] = child.try_wait().with_context(|| format!("rank {rank} cannot be waited for"))?;
            let bad = ends[rank].is_some_and(|end| !end.success() && end.code() != Some(STOPPED));
            if bad && failed.is_none() {
                failed = Some((rank, Instant::now()));
            }
        }
        if failed.is_some_and(|(_, when)| when.elapsed() > GRACE) {
            kill(children);
            break;
        }
        std::thread::sleep(LOOK);
    }
    if let Some((rank, _)) = failed {
        let end = ends[rank].expect("it has ended");
        let how = match end.signal() {
            Some(signal) => format!("was killed by signal {signal}"),
            None => format!("ended with exit code {}; its message is above", end.code().unwrap_or(-1)),
        };
        bail!("rank {rank} of {} {how}; the others were ended", children.len());
    }
    let stopped = ends.iter().flatten().any(|end| end.code() == Some(STOPPED));
    Ok(if stopped { Ended::Stopped } else { Ended::Done })
}

fn send(child: &Child, signal: i32) {
    if let Ok(process) = libc::pid_t::try_from(child.id()) {
        // SAFETY: a plain system call; the child has not been waited for, so the number is still its own.
        unsafe { libc::kill(process, signal) };
    }
}

fn kill(children: &mut [Child]) {
    for child in children.iter_mut() {
        let _ = child.kill();
        let _ = child.wait();
    }
}
