//! Too little memory or too few images, seen before anything is written: an error
//! where it is certain as far as an estimate can be, a warning where it is near.

use crate::data::{Split, grouped};
use anyhow::{Result, bail};
use tch::Device;

/// How far an estimate of memory may lie above the peak. tests/memory.rs has it between 14% below and 3% above on a CPU;
/// on a GPU, whose allocator leaves smaller gaps, only a few peaks of one network are measured.
fn too_high_at_most(device: Device) -> f64 {
    if device == Device::Cpu { 1.05 } else { 1.5 }
}

/// What a step needs of a device's memory, and what is there.
#[derive(Clone, Debug)]
pub struct Memory {
    pub device: Device,
    /// Bytes, an estimate.
    pub needed: u64,
    /// Bytes; `None` where the system does not tell.
    pub free: Option<u64>,
}

impl Memory {
    /// Where it is, in words.
    pub fn place(device: Device) -> String {
        if let Device::Cuda(index) = device { format!("on cuda:{index}") } else { "in main memory".into() }
    }

    /// A warning, if one is due; `advice` says what would fit. `check` is `--memory-check`.
    ///
    /// Errors: a step cannot fit, and `check` asks for it to be seen.
    pub fn foresee(&self, check: bool, advice: impl FnOnce() -> String) -> Result<Option<String>> {
        let Some(free) = self.free.filter(|&free| free < self.needed) else { return Ok(None) };
        let what = format!(
            "a step will need about {}, and {} are free {}",
            gib(self.needed),
            gib(free),
            Memory::place(self.device)
        );
        if check && self.needed as f64 > too_high_at_most(self.device) * free as f64 {
            bail!("{what}: too little; {}; --memory-check off begins all the same", advice());
        }
        Ok(Some(format!("{what}: it may run out of memory; {}", advice())))
    }
}

/// A warning where all labelled images are of one class.
pub fn single_class(labelled: &Split) -> Option<String> {
    let [class] = &labelled.classes[..] else { return None };
    Some(format!(
        "all images of {} are of a single class, {class}: every answer is right, and an accuracy says nothing; give images \
         of several classes, a directory each",
        labelled.name
    ))
}

/// A warning where more neighbours are to vote than there are labelled images.
pub fn voters(neighbours: u32, labelled: &Split) -> Option<String> {
    let (images, classes) = (labelled.len(), labelled.classes.len());
    (neighbours as usize > images).then(|| {
        format!(
            "--knn-neighbours {neighbours} are more than the {} labelled images, so that all of them vote on every test \
             image; fewer tell more, such as --knn-neighbours {}",
            grouped(images),
            (images / classes.max(1) / 2).clamp(1, 20)
        )
    })
}

/// Bytes as people read them.
pub fn gib(bytes: u64) -> String {
    format!("{:.2} GiB", bytes as f64 / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_fit_is_a_warning_and_what_cannot_an_error() {
        let foresee =
            |device, needed, free, check| Memory { device, needed, free }.foresee(check, || "less".to_owned());
        assert_eq!(foresee(Device::Cpu, 100, Some(100), true).unwrap(), None);
        assert_eq!(foresee(Device::Cpu, 100, None, true).unwrap(), None);
        let near = foresee(Device::Cpu, 104 << 30, Some(100 << 30), true).unwrap().unwrap();
        assert!(near.contains("104.00 GiB") && near.contains("100.00 GiB") && near.contains("may run out"), "{near}");
        let error = foresee(Device::Cpu, 106 << 30, Some(100 << 30), true).unwrap_err().to_string();
        assert!(error.contains("less") && error.contains("--memory-check off"), "{error}");
        assert!(foresee(Device::Cpu, 106 << 30, Some(100 << 30), false).unwrap().is_some());
        // Nobody has measured how good the estimate is there.
        assert!(foresee(Device::Cuda(0), 140, Some(100), true).unwrap().is_some());
        assert!(foresee(Device::Cuda(0), 160, Some(100), true).is_err());
    }
}
