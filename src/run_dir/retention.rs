//! Which checkpoints of a run may go once a newer one is whole.

use super::{CheckpointKind, CheckpointName};

/// Checkpoints within an epoch that stay until the epoch's own is written: the newest may turn out damaged.
const WITHIN_EPOCH: usize = 2;

/// The names among `all` that have been superseded, oldest first.
///
/// Of those written after an epoch, the newest `keep_last` stay (`None`: all), and those whose epoch is a multiple of
/// `keep_every`. Of those within an epoch, the newest two stay until one is written after an epoch. The newest of all
/// always stays.
pub fn superseded(all: &[CheckpointName], keep_last: Option<u32>, keep_every: Option<u32>) -> Vec<CheckpointName> {
    let mut newest_first: Vec<CheckpointName> = all.to_vec();
    newest_first.sort_unstable();
    newest_first.reverse();
    let (mut after_epochs, mut within) = (0, 0);
    let mut go: Vec<CheckpointName> = newest_first
        .into_iter()
        .filter(|name| match name.kind {
            CheckpointKind::Finished => {
                after_epochs += 1;
                let kept_for_good = keep_every.is_some_and(|every| name.epoch.is_multiple_of(every.max(1)));
                !kept_for_good && keep_last.is_some_and(|last| after_epochs > last.max(1))
            }
            CheckpointKind::Within { .. } => {
                within += 1;
                after_epochs > 0 || within > WITHIN_EPOCH
            }
        })
        .collect();
    go.reverse();
    go
}

#[cfg(test)]
mod tests {
    use super::*;

    fn go(all: &[&str], keep_last: Option<u32>, keep_every: Option<u32>) -> Vec<String> {
        let names: Vec<CheckpointName> = all
            .iter()
            .map(|name| CheckpointName::parse(&format!("checkpoint_{name}.pth.tar")).expect("a checkpoint's name"))
            .collect();
        let short = |name: CheckpointName| name.to_string()[11..].trim_end_matches(".pth.tar").to_owned();
        superseded(&names, keep_last, keep_every).into_iter().map(short).collect()
    }

    #[test]
    fn nothing_goes_unless_it_was_asked_for() {
        assert!(go(&["0000", "0002", "0004"], None, None).is_empty());
        assert!(go(&[], Some(1), Some(1)).is_empty());
    }

    #[test]
    fn the_newest_stay_and_so_does_every_kth() {
        let all = ["0000", "0002", "0004", "0006", "0008", "0009"];
        assert_eq!(go(&all, Some(2), None), ["0000", "0002", "0004", "0006"]);
        assert_eq!(go(&all, Some(2), Some(4)), ["0002", "0006"]);
        assert_eq!(go(&all, Some(9), Some(4)), [""; 0]);
        assert_eq!(go(&["0007"], Some(1), None), [""; 0], "the last one never goes");
        assert_eq!(go(&["0006", "0007"], Some(0), None), ["0006"], "not even when 0 are to be kept");
    }

    #[test]
    fn within_an_epoch_two_stay_until_the_epoch_ends() {
        let all = ["0000", "0001_step_00000012", "0001_step_00000014", "0001_step_00000016"];
        assert_eq!(go(&all, None, None), ["0001_step_00000012"]);
        assert_eq!(go(&all, Some(1), None), ["0001_step_00000012"], "0000 is the only one after an epoch");
        let ended = [&all[1..], &["0001"]].concat();
        assert_eq!(go(&ended, None, None).len(), 3);
        // One that is older than the newest after an epoch, whatever its epoch.
        assert_eq!(go(&["0001_step_00000012", "0002", "0003_step_00000030"], None, None), ["0001_step_00000012"]);
    }
}
