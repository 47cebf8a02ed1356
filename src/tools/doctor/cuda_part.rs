//! The part of the program that uses CUDA itself: whether it was built in, and
//! whether it loads.

use super::Finding;
use crate::native::cuda::{self, Versions};

const NAME: &str = "CUDA part";

/// `loaded`: libtorch's CUDA libraries are. `wanted`: a GPU is there or was asked for.
pub(super) fn look(loaded: bool, wanted: bool) -> Finding {
    match cuda::built() {
        Err(why) if wanted => Finding::note(NAME, why, REMEDY),
        Err(why) => Finding::good(NAME, why),
        Ok(()) if !loaded => Finding::good(NAME, "is in the program, and loads where libtorch's CUDA libraries do"),
        Ok(()) => match cuda::part().map(|part| part.versions()) {
            Ok(Ok(versions)) => Finding::good(NAME, format!("loads: {}", in_words(versions))),
            Ok(Err(error)) => Finding::wrong(NAME, error.to_string(), MIXED),
            Err(error) => Finding::wrong(NAME, error, MIXED),
        },
    }
}

const REMEDY: &str = "run ./scripts/setup.sh (any set brings CUDA's headers), then cargo build --release; until then one \
                      process computes on GPUs without what needs the part";
const MIXED: &str =
    "take one libtorch 2.11.0 with CUDA 13.0 throughout: see libtorch's place above, and LD_LIBRARY_PATH";

fn in_words(versions: Versions) -> String {
    let Versions { headers, runtime, driver, nccl, cudnn } = versions;
    let cuda = |version: i32| format!("{}.{}", version / 1000, version % 1000 / 10);
    let driver = if driver == 0 { "no driver".to_owned() } else { format!("driver {}", cuda(driver)) };
    // Since NCCL 2.9 and cuDNN 9 two digits a place, three for cuDNN's minor version.
    let nccl = format!("{}.{}.{}", nccl / 10_000, nccl / 100 % 100, nccl % 100);
    let cudnn = format!("{}.{}.{}", cudnn / 10_000, cudnn / 100 % 100, cudnn % 100);
    format!("CUDA {}, runtime {}, {driver}, cuDNN {cudnn}, NCCL {nccl}", cuda(headers), cuda(runtime))
}

#[cfg(test)]
mod tests {
    use super::super::Health;
    use super::*;

    #[test]
    fn versions_read_as_nvidia_writes_them() {
        let versions = Versions { headers: 13_000, runtime: 13_000, driver: 0, nccl: 22_809, cudnn: 91_900 };
        assert_eq!(in_words(versions), "CUDA 13.0, runtime 13.0, no driver, cuDNN 9.19.0, NCCL 2.28.9");
        let newer = Versions { driver: 13_010, ..versions };
        assert!(in_words(newer).contains("driver 13.1,"), "{}", in_words(newer));
    }

    #[test]
    fn without_the_cuda_libraries_nothing_is_wrong() {
        let finding = look(false, false);
        assert!(finding.health == Health::Good, "{finding:?}");
        assert_eq!(finding.found.contains("is in the program"), cuda::built().is_ok(), "{finding:?}");
    }
}
