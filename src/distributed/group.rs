//! The ranks of one run, met and connected.

use super::engine::{Engine, Nccl, Store};
use super::meeting;
use super::pulse::{self, Keys, Pulse};
use super::surroundings::Placement;
use super::{Reduction, Traffic};
use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// How long whoever serves the store stays after a fault, so that the others can read in it what happened.
const FAREWELL: Duration = Duration::from_secs(10);

/// A collective that failed: another rank has gone, or the network between them.
#[derive(Debug, thiserror::Error)]
#[error("{what} with the other ranks failed: {said}")]
pub struct PeerFault {
    what: &'static str,
    said: String,
}

/// The group that this process belongs to. Its collectives are called by every rank, in the same order.
#[derive(Debug)]
pub struct Group {
    engine: Engine,
    // Before the store that it counts in.
    pulse: Pulse,
    store: Store,
    placement: Placement,
    timeout: Duration,
}

/// Does a process's part of what a group does, or with `None` of place the whole alone. `hello`, `nccl` and `timeout`
/// as [`Group::join`] takes them.
///
/// Errors: those of joining; those of `work`, and where they come from another rank's fault, which rank that was.
pub fn together<T>(
    place: Option<&Placement>,
    hello: &Value,
    nccl: bool,
    timeout: Duration,
    work: impl FnOnce(Option<Rc<Group>>) -> Result<T>,
) -> Result<T> {
    let Some(place) = place else { return work(None) };
    let who = || format!("rank {} of {}", place.rank, place.world_size);
    let group = Rc::new(Group::join(place, hello, nccl, timeout).with_context(who)?);
    work(Some(Rc::clone(&group)))
        .and_then(|done| group.leave().map(|()| done))
        .map_err(|error| group.explain(error))
        .with_context(who)
}

impl Group {
    /// Meets the others; `hello` is what all must have in common. `nccl`: tensors on a GPU are reduced too.
    ///
    /// Errors: NCCL is wanted and not to be had; the store is not reached or its port is taken; a rank that does not come
    /// within `timeout` or was started differently.
    pub fn join(placement: &Placement, hello: &Value, nccl: bool, timeout: Duration) -> Result<Group> {
        // Before the others are met, who would wait for this rank.
        let nccl = nccl.then(Nccl::find).transpose()?;
        let store = meeting::open_store(placement, timeout)?;
        meeting::agree(&store, placement, hello, timeout)?;
        let Placement { rank, world_size, attempt, .. } = *placement;
        let beating = meeting::join_store(placement, None, timeout)?;
        let key = |what: &str| format!("{attempt}/{what}");
        let keys = Keys {
            count: key(&format!("pulse/{rank}")),
            verdict: key("verdict"),
            surveyed: key(&format!("surveyed/{rank}")),
        };
        let pulse = Pulse::start(beating, keys)?;
        let reached = meeting::reached(placement)?;
        let engine = Engine::open(&store, &attempt.to_string(), (rank, world_size), &reached, nccl, timeout)
            .with_context(|| format!("the ranks cannot be connected ({reached:?})"))?;
        Ok(Group { engine, pulse, store, placement: placement.clone(), timeout })
    }

    pub fn rank(&self) -> usize {
        self.placement.rank
    }

    pub fn world_size(&self) -> usize {
        self.placement.world_size
    }

    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Reduces each tensor in place.
    pub fn all_reduce(&self, tensors: &[&Tensor], how: Reduction) -> Result<()> {
        self.told("a reduction", self.engine.all_reduce(tensors, how))
    }

    /// `[n, ...]` of every rank, the same shape everywhere, as `[W * n, ...]` in the order of ranks.
    pub fn all_gather(&self, part: &Tensor) -> Result<Tensor> {
        self.told("a gathering", self.engine.all_gather(part))
    }

    /// Overwrites the tensor, which is contiguous, with rank 0's.
    pub fn broadcast(&self, tensor: &Tensor) -> Result<()> {
        self.told("a broadcast", self.engine.broadcast(tensor, 0))
    }

    /// Returns when every rank has come here.
    pub fn barrier(&self) -> Result<()> {
        self.told("a barrier", self.engine.barrier())
    }

    /// Whether any rank says yes.
    pub fn any(&self, own: bool) -> Result<bool> {
        let flag = Tensor::from_slice(&[f32::from(u8::from(own))]);
        self.all_reduce(&[&flag], Reduction::Max)?;
        Ok(flag.to_device(Device::Cpu).double_value(&[0]) > 0.0)
    }

    /// Rank 0's text, for all; `name` is used once in the group's life.
    pub fn text(&self, name: &str, rank_zeros: impl FnOnce() -> Result<String>) -> Result<String> {
        let key = self.key(name);
        if self.rank() == 0 {
            let text = rank_zeros()?;
            self.told("a message", self.store.set(&key, text.as_bytes()))?;
            return Ok(text);
        }
        let deadline = Instant::now() + self.timeout;
        while !self.told("a message", self.store.has(&key))? {
            // A launcher's store stays when rank 0 goes, so its fault is looked for.
            let failed = self.told("a message", self.store.has(&self.key("failed/0")))?;
            if failed || Instant::now() > deadline {
                let said = if failed { "rank 0 failed" } else { "rank 0 said nothing" }.to_owned();
                return Err(PeerFault { what: "a message", said }.into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(String::from_utf8(self.told("a message", self.store.get(&key, self.timeout))?)?)
    }

    /// A value that outlives the group: the next one that the launcher starts after a failure can read it, where the
    /// launcher keeps the store.
    pub fn remember(&self, name: &str, value: &str) -> Result<()> {
        self.told("a message", self.store.set(&format!("kept/{name}"), value.as_bytes()))
    }

    /// What an earlier group remembered.
    pub fn recall(&self, name: &str) -> Result<Option<String>> {
        let key = format!("kept/{name}");
        if !self.told("a message", self.store.has(&key))? {
            return Ok(None);
        }
        Ok(Some(String::from_utf8(self.told("a message", self.store.get(&key, self.timeout))?)?))
    }

    /// BatchNorm in training mode over the images of all ranks: `x` `[M, C, ...]`; weight, bias and running
    /// statistics `[C]`, of which the running ones are updated. Recorded for autograd. Here and in the backward pass a
    /// fault of the network leaves this rank's own numbers, which [`Group::check`] must keep from being used.
    pub fn batch_norm(&self, x: &Tensor, parameters: [&Tensor; 4], momentum: f64, epsilon: f64) -> Tensor {
        // What is left to fail are shapes: a bug.
        self.engine.batch_norm(x, parameters, momentum, epsilon).expect("BatchNorm over the ranks")
    }

    /// Errors: a collective within the forward or the backward pass has failed.
    pub fn check(&self) -> Result<()> {
        match self.engine.fault() {
            None => Ok(()),
            Some(said) => Err(PeerFault { what: "BatchNorm's exchange", said }.into()),
        }
    }

    /// What the collectives have cost so far.
    pub fn traffic(&self) -> Traffic {
        self.engine.traffic()
    }

    /// The end of a run that went well: whoever serves the store leaves last.
    fn leave(&self) -> Result<()> {
        self.barrier()?;
        let left = self.store.add(&self.key("left"), 1);
        if self.serves() {
            let deadline = Instant::now() + FAREWELL;
            let everybody = self.world_size() as i64;
            while left.as_ref().is_ok() && Instant::now() < deadline {
                if self.store.add(&self.key("left"), 0)? >= everybody {
                    break;
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(())
    }

    /// The end of a run that failed: tells the others, and where the fault is another rank's, says whose.
    fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        self.engine.abandon();
        let explained = if error.downcast_ref::<PeerFault>().is_none() {
            let _ = self.store.set(&self.key(&format!("failed/{}", self.rank())), format!("{error:#}").as_bytes());
            error
        } else {
            let cause = self.survey().unwrap_or_else(|_| match self.pulse.verdict() {
                Some(verdict) => verdict.to_owned(),
                None => self.store_is_gone(),
            });
            let _ = self.store.set(&self.key(&format!("surveyed/{}", self.rank())), b"");
            anyhow!("{cause} ({error:#})")
        };
        if self.serves() {
            self.stay_for_the_others();
        }
        explained
    }

    fn store_is_gone(&self) -> String {
        let Placement { host, port, .. } = &self.placement;
        match self.placement.rank_zero_serves {
            true => format!("rank 0 has gone, and with it the store at {host}:{port}"),
            false => format!("the launcher's store at {host}:{port} has gone"),
        }
    }

    /// Which ranks have failed or gone, in words. Takes a few seconds: a silence has to last.
    fn survey(&self) -> Result<String> {
        let others: Vec<usize> = (0..self.world_size()).filter(|&rank| rank != self.rank()).collect();
        let key = |what: &str, rank: usize| self.key(&format!("{what}/{rank}"));
        self.store.set(&key("noticed", self.rank()), b"")?;
        let pulses = || others.iter().map(|&rank| self.store.add(&key("pulse", rank), 0)).collect::<Result<Vec<i64>>>();
        let before = pulses()?;
        let deadline = Instant::now() + 3 * pulse::INTERVAL + pulse::INTERVAL / 2;
        while Instant::now() < deadline {
            for &rank in &others {
                if self.store.has(&key("failed", rank))? {
                    let said = self.store.get(&key("failed", rank), self.timeout)?;
                    ensure!(!said.is_empty(), "the store goes and answers with nothing");
                    let of = self.world_size();
                    return self.publish(format!("rank {rank} of {of} failed: {}", String::from_utf8_lossy(&said)));
                }
            }
            std::thread::sleep(pulse::INTERVAL / 10);
        }
        let mut gone = Vec::new();
        for ((&rank, before), now) in others.iter().zip(before).zip(pulses()?) {
            // One that noticed the fault too has every right to leave.
            if before == now && !self.store.has(&key("noticed", rank))? {
                gone.push(rank.to_string());
            }
        }
        let of = self.world_size();
        match &gone[..] {
            [] => Ok(format!(
                "every rank is alive, but not all answered within --distributed-timeout {} s",
                self.timeout.as_secs()
            )),
            [rank] => self.publish(format!(
                "rank {rank} of {of} has gone: its process was killed or its machine is out of reach"
            )),
            several => self.publish(format!("ranks {} of {of} have gone", several.join(", "))),
        }
    }

    /// Tells those who have not noticed yet, and may not be able to ask any more when they do.
    fn publish(&self, verdict: String) -> Result<String> {
        self.store.set(&self.key("verdict"), verdict.as_bytes())?;
        Ok(verdict)
    }

    fn stay_for_the_others(&self) {
        let deadline = Instant::now() + FAREWELL;
        let done = |rank: usize| -> Result<bool> {
            Ok(self.store.has(&self.key(&format!("surveyed/{rank}")))?
                || self.store.has(&self.key(&format!("failed/{rank}")))?)
        };
        // Those that are gone never come; their number is not known here, so the wait is for its whole length then.
        while Instant::now() < deadline
            && (0..self.world_size()).any(|rank| rank != self.rank() && !done(rank).unwrap_or(true))
        {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// A failure of the engine or the store is another rank's, or the network's.
    fn told<T>(&self, what: &'static str, result: Result<T>) -> Result<T> {
        result.map_err(|error| PeerFault { what, said: format!("{error:#}") }.into())
    }

    fn serves(&self) -> bool {
        self.rank() == 0 && self.placement.rank_zero_serves
    }

    fn key(&self, name: &str) -> String {
        format!("{}/{name}", self.placement.attempt)
    }
}
