//! Whose checkpoints lie in a directory.
//!
//! A run is a chain of branches. It begins with one; where it goes on from another checkpoint than the newest of its
//! directory, the next one begins there, and what the one before had saved later is not the run's any more. Every
//! checkpoint carries the chain that led to it, and `config.yml` the chain that its directory is on.

use crate::durable;
use serde::{Deserialize, Serialize};

/// A part of a run between two points where it was continued otherwise than before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Branch {
    /// 16 hexadecimal digits, drawn by chance.
    pub id: String,
    /// Steps of the run that had been done where it begins.
    pub from_step: u64,
}

/// The branches that led to a checkpoint, the oldest first. That of a file of PyTorch's or of an older version is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lineage(Vec<Branch>);

impl Lineage {
    /// That of a new branch, which begins after `step` steps at a checkpoint of this lineage.
    pub fn branch(&self, step: u64) -> Lineage {
        Lineage(self.0.iter().cloned().chain([Branch { id: durable::token(), from_step: step }]).collect())
    }

    /// The branch under way.
    pub fn tip(&self) -> Option<&Branch> {
        self.0.last()
    }

    /// Why a checkpoint of lineage `of`, saved after `step` steps, is none that a run of this lineage goes on from; `None`
    /// where it is.
    pub fn stranger(&self, of: &Lineage, step: u64) -> Option<&'static str> {
        const LEFT: &str = "it is of a branch that this run has left";
        const OTHER: &str = "it is of another run";
        // Where the branch of the checkpoint was left for the next one.
        let left_at = match of.tip() {
            None => self.0.first(),
            Some(tip) => match self.0.iter().position(|own| own.id == tip.id) {
                Some(place) => self.0.get(place + 1),
                None if self.0.is_empty() => None,
                None => {
                    let related = of.0.iter().any(|theirs| self.0.iter().any(|own| own.id == theirs.id));
                    return Some(if related { LEFT } else { OTHER });
                }
            },
        };
        let beyond = left_at.is_some_and(|next| step > next.from_step);
        beyond.then_some(if of.tip().is_some() { LEFT } else { OTHER })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_goes_on_from_its_own_checkpoints_only() {
        let (nobody, run) = (Lineage::default(), Lineage::default().branch(0));
        let first = run.branch(16);
        let second = run.branch(16);
        assert_ne!((first.tip(), run.branch(0).tip()), (second.tip(), run.tip()));
        let own = |of: &Lineage, step| second.stranger(of, step).is_none();
        assert!(own(&run, 8) && own(&run, 16) && own(&second, 16) && own(&second, 99));
        assert_eq!(second.stranger(&run, 17), Some("it is of a branch that this run has left"));
        assert_eq!(second.stranger(&first, 24), Some("it is of a branch that this run has left"));
        assert_eq!(second.stranger(&nobody.branch(0), 8), Some("it is of another run"));
        // What an older version or PyTorch wrote is what the run began with.
        let continued = nobody.branch(40);
        assert!(continued.stranger(&nobody, 40).is_none());
        assert_eq!(continued.stranger(&nobody, 41), Some("it is of another run"));
        // A directory that does not say whose it is.
        assert!(nobody.stranger(&second, 99).is_none() && nobody.stranger(&nobody, 99).is_none());
    }
}
