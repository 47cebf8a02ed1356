//! Features on disk: an evaluation that is repeated with another classifier,
//! penalty or schedule does not run the trunk again.
//!
//! A file holds the features of one split under one deterministic transform. Its
//! name is the hash of everything that decides the numbers: the trunk's bytes,
//! images and labels (pixels, or the files' names, sizes and times), the transform, the
//! arithmetic and the device's kind. The contents carry that name and checksums;
//! what does not verify, has other labels than the split or belongs to another
//! user is computed again. Nobody else may read or change what is written here.
//! The oldest files go when the directory grows beyond `LARGEST_BYTES`.

use crate::augment::EvalTransform;
use crate::checkpoint::{from_tensor, to_tensor};
use crate::data::Split;
use crate::digest::hex;
use crate::durable;
use crate::model::HEAD_PREFIX;
use crate::report::Log;
use crate::state::StateDict;
use crate::torch_file::{self, Dict, Limits, Value};
use crate::train::Stop;
use crate::train::features::{Extractor, Features};
use anyhow::{Context, Result, anyhow, bail};
use sha2::{Digest, Sha256};
use std::fs::{DirBuilder, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tch::{Device, Kind, Tensor};

/// Of all features together, on disk.
const LARGEST_BYTES: u64 = 8 << 30;

/// In a file, beside the numbers.
const ROOM_FOR_STRUCTURE: u64 = 64 << 10;

/// A directory of features.
#[derive(Clone, Debug)]
pub struct FeatureCache {
    directory: PathBuf,
}

/// What the numbers follow from besides the images.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// Normalisation and trunk.
    pub trunk: &'a StateDict,
    pub transform: EvalTransform,
    pub compute: Kind,
    pub device: Device,
}

impl FeatureCache {
    pub fn new(directory: &Path) -> FeatureCache {
        FeatureCache { directory: directory.to_owned() }
    }

    /// The file for the features of `split`, there or not.
    ///
    /// Errors: an image file that is not there.
    pub fn file(&self, split: &Split, of: &Circumstances) -> Result<PathBuf> {
        let mut hash = Sha256::new();
        // Another version of the program may compute other last bits.
        hash.update(concat!("flatnce features 1, ", env!("CARGO_PKG_VERSION")));
        hash.update(build_of_program());
        hash.update(format!("{:?} {:?} {}", of.transform, of.compute, matches!(of.device, Device::Cpu)));
        for (name, tensor) in of.trunk.iter() {
            hash.update(format!("{name} {:?}", tensor.size()));
            hash.update(from_tensor(tensor)?.bytes());
        }
        hash.update(format!("{} {:?}", split.len(), split.classes));
        for label in split.labels.iter().flatten() {
            hash.update(label.to_le_bytes());
        }
        hash.update(split.orientation.name());
        split.images.fingerprint(&mut |bytes| hash.update(bytes))?;
        let name = hex(&hash.finalize()[..16]);
        Ok(self.directory.join(format!("{name}.features")))
    }

    /// The features of a split: read if they are there, else made and written. The answer tells which.
    ///
    /// Errors: those of [`Extractor::extract`], a request to stop. A file that is damaged or cannot be written costs a warning.
    pub fn features(
        &self,
        extractor: &Extractor,
        split: &Arc<Split>,
        transform: EvalTransform,
        stop: Stop,
        log: &mut Log,
    ) -> Result<(Features, bool)> {
        let encoder = extractor.encoder;
        let trunk = encoder.state_dict().renamed(|name| (!name.starts_with(HEAD_PREFIX)).then(|| name.to_owned()));
        let of = Circumstances { trunk: &trunk, transform, compute: extractor.compute, device: encoder.device() };
        let file = self.file(split, &of)?;
        let read = self.read(&file, split.labels.as_deref().unwrap_or_default(), encoder.trunk_width(), of.device);
        // Features are made by all ranks or by none.
        let missing = extractor.ranks.any(!matches!(read, Ok(Some(_))))?;
        match read {
            Ok(Some(_)) if missing => {}
            Ok(Some(features)) => {
                log.note(&format!("features of {}: from {}", split.name, file.display()));
                return Ok((features, true));
            }
            Ok(None) => {}
            Err(error) => log.warn(&format!("cached features are made anew: {error:#}")),
        }
        let features = extractor.extract_while(split, transform, 0, &|| stop.check())?;
        if extractor.ranks.writes()
            && let Err(error) = self.write(&file, &features)
        {
            log.warn(&format!("the features are not kept for the next evaluation: {error:#}"));
        }
        Ok((features, false))
    }

    /// The features `[N, width]` in `file` of images with these labels, on `device`; `None` where there is no such file.
    ///
    /// Errors: a file that is damaged, of other images or another user's.
    pub fn read(&self, file: &Path, labels: &[i64], width: i64, device: Device) -> Result<Option<Features>> {
        let Ok(about) = std::fs::metadata(file) else { return Ok(None) };
        // SAFETY: asks for a number.
        if about.uid() != unsafe { libc::geteuid() } {
            bail!("{} belongs to another user", file.display());
        }
        let images = labels.len() as i64;
        let most = (images * (4 * width + 8)) as u64 + ROOM_FOR_STRUCTURE;
        let value = torch_file::read_within(file, &Limits { file_bytes: most, ..Limits::default() })?;
        if value.get("key").and_then(Value::as_str) != Some(&key_of(file)) {
            bail!("{} holds the features of something else", file.display());
        }
        let tensor = |key: &str| {
            let data = value.get(key).and_then(Value::as_tensor).ok_or_else(|| anyhow!("it holds no {key}"))?;
            to_tensor(data)
        };
        let (values, found) = (tensor("features")?, tensor("labels")?);
        let labels = Tensor::from_slice(labels);
        let alike = found.kind() == Kind::Int64 && found.size() == labels.size() && found.equal(&labels);
        if values.size() != [images, width] || values.kind() != Kind::Float || !alike {
            bail!(
                "{} holds {:?} features and {:?} labels, not [{images}, {width}] and those of the images",
                file.display(),
                values.size(),
                found.size()
            );
        }
        // The oldest by use go first.
        let _ = std::fs::File::options().append(true).open(file).and_then(|f| f.set_modified(SystemTime::now()));
        Ok(Some(Features { values: values.to_device(device), labels: labels.to_device(device) }))
    }

    /// Writes features, and removes the oldest files beyond the limit.
    ///
    /// Errors: the directory cannot be made, the file cannot be written.
    pub fn write(&self, file: &Path, features: &Features) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.with_context(|| format!("cannot create {}", self.directory.display()))?;
        let mut root = Dict::new();
        root.insert("key", key_of(file));
        root.insert("features", from_tensor(&features.values)?);
        root.insert("labels", from_tensor(&features.labels)?);
        durable::replace(file, |out| {
            out.get_ref().file().set_permissions(Permissions::from_mode(0o600))?;
            torch_file::write(out, "features", &Value::Dict(root))?;
            Ok(())
        })?;
        self.remove_oldest(file, LARGEST_BYTES);
        Ok(())
    }

    fn remove_oldest(&self, newest: &Path, limit: u64) {
        let Ok(entries) = std::fs::read_dir(&self.directory) else { return };
        let mut files: Vec<(SystemTime, u64, PathBuf)> = entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "features"))
            .filter_map(|entry| {
                let about = entry.metadata().ok()?;
                Some((about.modified().ok()?, about.len(), entry.path()))
            })
            .collect();
        files.sort();
        let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        for (_, bytes, path) in files.iter().filter(|(_, _, path)| path != newest) {
            if total <= limit {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                total -= bytes;
            }
        }
    }
}

/// What the contents of a file say that they are of: its name.
fn key_of(file: &Path) -> String {
    file.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Length and time of the program's own file: a program built anew may compute other numbers.
fn build_of_program() -> String {
    let about = std::env::current_exe().and_then(std::fs::metadata);
    about.map_or(String::new(), |about| format!("{} {:?}", about.len(), about.modified().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{DataConfig, DatasetName};
    use crate::data::{self, Part};

    fn mini(images: u32) -> Split {
        let data =
            DataConfig { train_images: Some(images), ..DataConfig::new(DatasetName::FashionMnistMini, "datasets", 32) };
        data::load(&data, Part::Train).unwrap()
    }

    fn trunk(weight: f32) -> StateDict {
        let mut state = StateDict::new();
        state.push("conv1.weight", Tensor::from_slice(&[weight, 2.0]));
        state
    }

    fn features(images: i64, fill: f64) -> Features {
        let values = Tensor::full([images, 4], fill, (Kind::Float, Device::Cpu));
        Features { values, labels: Tensor::arange(images, (Kind::Int64, Device::Cpu)) }
    }

    #[test]
    fn everything_that_decides_the_numbers_is_in_the_name() {
        let cache = FeatureCache::new(Path::new("cache"));
        let plain = EvalTransform::Plain { size_px: 32 };
        let (one, other) = (trunk(1.0), trunk(1.5));
        let usual = Circumstances { trunk: &one, transform: plain, compute: Kind::Float, device: Device::Cpu };
        let file = |images: u32, of: &Circumstances| cache.file(&mini(images), of).unwrap();
        let mut names = vec![
            file(20, &usual),
            file(21, &usual),
            file(20, &Circumstances { trunk: &other, ..usual }),
            file(20, &Circumstances { transform: EvalTransform::Plain { size_px: 28 }, ..usual }),
            file(20, &Circumstances { compute: Kind::BFloat16, ..usual }),
            file(20, &Circumstances { device: Device::Cuda(0), ..usual }),
        ];
        assert_eq!(names[0], file(20, &usual), "the same again");
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn what_is_written_is_read_and_damage_is_found() {
        let place = tempfile::tempdir().unwrap();
        let cache = FeatureCache::new(&place.path().join("below"));
        let file = cache.directory.join("a.features");
        let labels: Vec<i64> = (0..500).collect();
        assert!(cache.read(&file, &labels, 4, Device::Cpu).unwrap().is_none());
        cache.write(&file, &features(500, 0.25)).unwrap();
        let read = cache.read(&file, &labels, 4, Device::Cpu).unwrap().unwrap();
        assert!(read.values.equal(&features(500, 0.25).values) && read.labels.equal(&features(500, 0.25).labels));
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&cache.directory), mode(&file)), (0o700, 0o600), "nobody else's");
        let other: Vec<i64> = (1..501).collect();
        for (labels, width) in [(&labels[1..], 4), (&other, 4), (&labels, 5)] {
            assert!(cache.read(&file, labels, width, Device::Cpu).is_err(), "of other images");
        }
        let elsewhere = cache.directory.join("b.features");
        std::fs::copy(&file, &elsewhere).unwrap();
        let error = cache.read(&elsewhere, &labels, 4, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("of something else"), "{error}");
        let whole = std::fs::read(&file).unwrap();
        let mut flipped = whole.clone();
        flipped[whole.len() / 3] ^= 4;
        for damaged in [&flipped[..], &whole[..whole.len() - 7], b""] {
            std::fs::write(&file, damaged).unwrap();
            assert!(cache.read(&file, &labels, 4, Device::Cpu).is_err());
        }
        let hole = std::fs::File::create(&file).unwrap();
        hole.set_len(1 << 40).unwrap();
        let error = cache.read(&file, &labels, 4, Device::Cpu).unwrap_err().to_string();
        assert!(error.contains("limit"), "{error}");
    }

    #[test]
    fn the_oldest_files_go_first() {
        let place = tempfile::tempdir().unwrap();
        let cache = FeatureCache::new(place.path());
        let paths: Vec<PathBuf> = (0..4).map(|n| place.path().join(format!("{n}.features"))).collect();
        for (age, path) in paths.iter().enumerate() {
            std::fs::write(path, [0u8; 100]).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1000 * age as u64);
            std::fs::File::options().append(true).open(path).unwrap().set_modified(time).unwrap();
        }
        std::fs::write(place.path().join("other.txt"), [0u8; 1000]).unwrap();
        // The one just written stays, however old it looks.
        cache.remove_oldest(&paths[0], 250);
        let left: Vec<bool> = paths.iter().map(|path| path.exists()).collect();
        assert_eq!(left, [true, false, false, true]);
        assert!(place.path().join("other.txt").exists());
    }
}
