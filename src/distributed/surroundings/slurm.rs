//! Slurm's environment, under `srun`: the step's tasks are the ranks.

use super::{Environment, Launcher, Placement, number};
use anyhow::{Context, Result};

/// The place in the job step; `None` outside of `srun` and for a step of one task.
///
/// Errors: a variable that srun sets is missing or no number.
pub fn placement(environment: &Environment) -> Result<Option<Placement>> {
    // An allocation without a step (sbatch's script, salloc's shell) has the other variables too.
    if environment("SLURM_STEP_ID").is_none() {
        return Ok(None);
    }
    let tasks = if environment("SLURM_STEP_NUM_TASKS").is_some() { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" };
    if environment(tasks).is_none() || number::<usize>(environment, tasks)? < 2 {
        return Ok(None);
    }
    let (job, step) = (number::<u64>(environment, "SLURM_JOB_ID")?, environment("SLURM_STEP_ID").unwrap_or_default());
    let host = match environment("MASTER_ADDR").filter(|host| !host.is_empty()) {
        Some(host) => host,
        None => {
            let nodes =
                ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST"].iter().find_map(|n| environment(n));
            first_node(&nodes.context("SLURM_STEP_NODELIST is not set; give rank 0's machine with MASTER_ADDR")?)
        }
    };
    let port = match environment("MASTER_PORT").filter(|port| !port.is_empty()) {
        Some(_) => number(environment, "MASTER_PORT")?,
        None => usual_port(job, step.parse().unwrap_or(0)),
    };
    Ok(Some(Placement {
        rank: number(environment, "SLURM_PROCID")?,
        world_size: number(environment, tasks)?,
        local_rank: number(environment, "SLURM_LOCALID")?,
        local_world_size: environment("SLURM_STEP_TASKS_PER_NODE").and_then(|text| first_count(&text)),
        host,
        port,
        rank_zero_serves: true,
        attempt: 0,
        job: format!("slurm-{job}.{step}"),
        launcher: Launcher::Slurm,
    }))
}

/// The same number in every task of a step, and another one in the next: from 20000 to 39999.
fn usual_port(job: u64, step: u64) -> u16 {
    (20_000 + (job * 31 + step) % 20_000) as u16
}

/// The first of `node[01-03,7],other`: `node01`.
fn first_node(list: &str) -> String {
    let Some((head, rest)) = list.split_once('[') else {
        return list.split(',').next().unwrap_or_default().to_owned();
    };
    if let Some((first, _)) = head.split_once(',') {
        return first.to_owned();
    }
    let (inner, after) = rest.split_once(']').unwrap_or((rest, ""));
    let first = inner.split([',', '-']).next().unwrap_or_default();
    let tail = after.split(',').next().unwrap_or_default();
    format!("{head}{first}{}", if tail.contains('[') { first_node(tail) } else { tail.to_owned() })
}

/// `4(x2),3`: 4 where all nodes have as many, else unknown.
fn first_count(text: &str) -> Option<usize> {
    let (first, rest) = text.split_once(',').unwrap_or((text, ""));
    let count = first.split('(').next()?.parse().ok()?;
    rest.is_empty().then_some(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distributed::placement as of;

    #[test]
    fn the_first_node_is_found() {
        for (list, first) in [
            ("gpu7", "gpu7"),
            ("gpu7,gpu9", "gpu7"),
            ("gpu[07-09,12]", "gpu07"),
            ("gpu[3,5]-ib,cpu1", "gpu3-ib"),
            ("login,gpu[1-2]", "login"),
            ("rack[1-2]node[03-04]", "rack1node03"),
        ] {
            assert_eq!(first_node(list), first, "{list}");
        }
    }

    #[test]
    fn a_step_of_several_tasks_is_a_group_and_nothing_else_is() {
        let step = [
            ("SLURM_JOB_ID", "4711"),
            ("SLURM_STEP_ID", "2"),
            ("SLURM_NTASKS", "6"),
            ("SLURM_PROCID", "5"),
            ("SLURM_LOCALID", "1"),
            ("SLURM_STEP_NODELIST", "n[1-3]"),
            ("SLURM_STEP_TASKS_PER_NODE", "2(x3)"),
        ];
        let read = |set: &[(&str, &str)]| {
            of(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
        };
        let found = read(&step).unwrap().unwrap();
        assert_eq!((found.rank, found.world_size, found.local_rank, found.local_world_size), (5, 6, 1, Some(2)));
        assert_eq!((found.host.as_str(), found.port), ("n1", 20_000 + ((4711 * 31 + 2) % 20_000) as u16));
        let outside: Vec<_> = step.iter().copied().filter(|(name, _)| *name != "SLURM_STEP_ID").collect();
        assert_eq!(read(&outside).unwrap(), None);
        let error = read(&[&step[..3], &step[4..]].concat()).unwrap_err().to_string();
        assert_eq!(error, "SLURM_PROCID is not set");
        let interactive = [&step[..], &[("SLURM_STEP_NUM_TASKS", "1")]].concat();
        assert_eq!(read(&interactive).unwrap(), None);
    }
}
