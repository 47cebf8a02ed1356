//! A process's place among the others, read from its environment: torchrun's
//! variables first (our own `--nproc` sets the same), else Slurm's.

mod slurm;

use anyhow::{Context, Result, bail};

/// Who started the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Launcher {
    /// torchrun, or whatever else sets its variables.
    Torchrun,
    Slurm,
    /// `--nproc` of ours.
    Ourselves,
}

/// One process's place among `world_size`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    pub rank: usize,
    pub world_size: usize,
    /// Among the processes of this machine: which GPU it takes.
    pub local_rank: usize,
    /// Processes on this machine, where the launcher says.
    pub local_world_size: Option<usize>,
    /// Where the store is.
    pub host: String,
    pub port: u16,
    /// Whether rank 0 serves the store; else the launcher does.
    pub rank_zero_serves: bool,
    /// How often the launcher has started the group anew after a failure.
    pub attempt: u32,
    /// Keeps the jobs apart that share a store.
    pub job: String,
    pub launcher: Launcher,
}

/// An environment: the value of a variable, `None` where it is not set.
pub type Environment<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// The variable that tells a process that `--nproc` started it.
pub const SPAWNED: &str = "FLATNCE_SPAWNED";

/// What torchrun sets for every process.
const TORCHRUN: [&str; 5] = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];

/// The place that the environment gives to this process; `None` where it is alone.
///
/// Errors: an environment that is set in part, with the missing variable; a value that is no number or out of range.
pub fn placement(environment: &Environment) -> Result<Option<Placement>> {
    let set = |name: &&str| environment(name).is_some_and(|value| !value.is_empty());
    // MASTER_ADDR and MASTER_PORT alone say nothing: clusters export them everywhere.
    let found = if TORCHRUN[..3].iter().any(set) {
        torchrun(environment)?
    } else if let Some(found) = slurm::placement(environment)? {
        found
    } else {
        return Ok(None);
    };
    let Placement { rank, world_size, local_rank, .. } = found;
    if rank >= world_size || local_rank >= world_size {
        bail!("rank {rank} (local rank {local_rank}) is none of {world_size} processes; ranks count from 0");
    }
    Ok((world_size > 1).then_some(found))
}

fn torchrun(environment: &Environment) -> Result<Placement> {
    let set: Vec<&str> = TORCHRUN.into_iter().filter(|name| environment(name).is_some_and(|v| !v.is_empty())).collect();
    let missing: Vec<&str> = TORCHRUN.into_iter().filter(|name| !set.contains(name)).collect();
    if !missing.is_empty() {
        bail!(
            "{} is not set although {} {}; start the processes with torchrun, srun or --nproc, or unset all of these \
             variables for a single process",
            missing.join(", "),
            set.join(", "),
            if set.len() == 1 { "is" } else { "are" }
        );
    }
    let truth = |name: &str| environment(name).is_some_and(|value| ["1", "true", "True"].contains(&value.as_str()));
    Ok(Placement {
        rank: number(environment, "RANK")?,
        world_size: number(environment, "WORLD_SIZE")?,
        local_rank: number(environment, "LOCAL_RANK")?,
        local_world_size: environment("LOCAL_WORLD_SIZE")
            .is_some()
            .then(|| number(environment, "LOCAL_WORLD_SIZE"))
            .transpose()?,
        host: environment("MASTER_ADDR").unwrap_or_default(),
        port: number(environment, "MASTER_PORT")?,
        rank_zero_serves: !truth("TORCHELASTIC_USE_AGENT_STORE"),
        attempt: environment("TORCHELASTIC_RESTART_COUNT")
            .is_some()
            .then(|| number(environment, "TORCHELASTIC_RESTART_COUNT"))
            .transpose()?
            .unwrap_or(0),
        job: environment("TORCHELASTIC_RUN_ID").unwrap_or_default(),
        launcher: if environment(SPAWNED).is_some() { Launcher::Ourselves } else { Launcher::Torchrun },
    })
}

/// A variable's value as a number.
fn number<T: std::str::FromStr>(environment: &Environment, name: &str) -> Result<T> {
    let value = environment(name).with_context(|| format!("{name} is not set"))?;
    value.trim().parse().ok().with_context(|| format!("{name} is {value:?}, which is no number that it can be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Option<Placement>> {
        placement(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    const WHOLE: [(&str, &str); 5] = [
        ("RANK", "2"),
        ("WORLD_SIZE", "4"),
        ("LOCAL_RANK", "0"),
        ("MASTER_ADDR", "10.0.0.7"),
        ("MASTER_PORT", "29500"),
    ];

    #[test]
    fn torchruns_environment_is_read() {
        let found = read(&WHOLE).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank), (2, 4, 0));
        assert_eq!((found.host.as_str(), found.port, found.rank_zero_serves), ("10.0.0.7", 29500, true));
        let agent = [&WHOLE[..], &[("TORCHELASTIC_USE_AGENT_STORE", "True"), ("TORCHELASTIC_RESTART_COUNT", "3")]];
        let found = read(&agent.concat()).unwrap().unwrap();
        assert_eq!((found.rank_zero_serves, found.attempt), (false, 3));
    }

    #[test]
    fn every_missing_variable_is_named() {
        for left_out in 0..5 {
            let mut part = WHOLE.to_vec();
            let (name, _) = part.remove(left_out);
            let error = read(&part).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{name} is not set although")), "{error}");
        }
        assert_eq!(read(&[("MASTER_ADDR", "10.0.0.7"), ("MASTER_PORT", "29500")]).unwrap(), None);
        assert_eq!(read(&[]).unwrap(), None);
    }

    #[test]
    fn nonsense_is_refused_and_a_single_process_is_alone() {
        let with = |name: &str, value: &str| {
            let mut set: Vec<(&str, &str)> = WHOLE.to_vec();
            set.iter_mut().find(|(key, _)| *key == name).unwrap().1 = value;
            read(&set.iter().map(|(a, b)| (*a, *b)).collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        assert!(with("RANK", "4").unwrap_err().contains("rank 4"));
        assert!(with("MASTER_PORT", "99999").unwrap_err().contains("MASTER_PORT"));
        assert!(with("WORLD_SIZE", "two").unwrap_err().contains("\"two\""));
        let mut alone = WHOLE.to_vec();
        (alone[0].1, alone[1].1) = ("0", "1");
        assert_eq!(read(&alone).unwrap(), None);
    }
}
