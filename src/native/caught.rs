//! libtorch's failures as errors. Most of tch's methods panic where libtorch
//! throws; around a whole training it is better told in a sentence.

use super::NativeError;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook};
use std::sync::Once;

/// How tch's panics begin.
const MARK: &str = "called `Result::unwrap()` on an `Err` value: Torch(\"";

thread_local! {
    /// This thread turns libtorch's failures into errors, so the panic is not worth a report.
    static CATCHING: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work`; a failure of libtorch inside it, which tch makes a panic, is an error. Other panics go on. What `work`
/// was doing is left as it was then: use nothing of it but to tidy up.
///
/// Errors: libtorch's message.
pub fn caught<T>(work: impl FnOnce() -> T) -> Result<T, NativeError> {
    install_hook();
    let before = CATCHING.replace(true);
    let outcome = catch_unwind(AssertUnwindSafe(work));
    CATCHING.set(before);
    outcome.map_err(|payload| match payload.downcast_ref::<String>().and_then(|text| message(text)) {
        Some(text) => NativeError(text),
        None => resume_unwind(payload),
    })
}

/// libtorch's own words in tch's panic, without the C++ stack that follows them.
fn message(panic: &str) -> Option<String> {
    let quoted = panic.strip_prefix(MARK)?;
    let line = quoted.split("\\n").next().unwrap_or(quoted);
    let line = line.strip_suffix("\")").unwrap_or(line);
    Some(line.replace("\\\"", "\"").replace("\\'", "'"))
}

/// Panics that become errors are not reported as well.
fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = take_hook();
        set_hook(Box::new(move |info| {
            let ours = CATCHING.get() && info.payload().downcast_ref::<String>().is_some_and(|t| t.starts_with(MARK));
            if !ours {
                before(info);
            }
        }));
    });
}

impl NativeError {
    /// Whether there was not enough memory, of the machine or of a GPU.
    pub fn is_out_of_memory(&self) -> bool {
        is_out_of_memory(&self.0)
    }
}

/// Whether a message of libtorch's says that there was not enough memory.
pub fn is_out_of_memory(message: &str) -> bool {
    let signs = ["can't allocate memory", "out of memory", "_ALLOC_FAILED", "bad_alloc", "could not allocate"];
    signs.iter().any(|sign| message.contains(sign))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind, Tensor};

    #[test]
    fn what_libtorch_says_is_an_error_and_other_panics_go_on() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        assert_eq!(caught(|| 3).unwrap(), 3);
        let error = caught(|| zeros(&[2, 3]).matmul(&zeros(&[2, 3]))).unwrap_err();
        assert!(error.to_string().contains("cannot be multiplied") && !error.is_out_of_memory(), "{error}");
        assert!(!error.to_string().contains('\n') && !error.to_string().contains("\\n"), "{error}");
        // 4 EiB.
        let error = caught(|| zeros(&[1 << 60])).unwrap_err();
        assert!(error.is_out_of_memory(), "{error}");
        let other = catch_unwind(|| caught(|| panic!("a bug"))).unwrap_err();
        assert_eq!(other.downcast_ref::<&str>(), Some(&"a bug"));
    }

    #[test]
    fn the_words_of_cpu_and_gpu_are_known() {
        assert!(is_out_of_memory("CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of"));
        assert!(is_out_of_memory(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory"
        ));
        assert!(is_out_of_memory("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"));
        assert!(!is_out_of_memory("Expected 3-dimensional input"));
    }
}
