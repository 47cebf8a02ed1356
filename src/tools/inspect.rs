//! `flatnce inspect`: what is inside a checkpoint, and whether it is whole.
//!
//! Works on any file that `torch.save` or safetensors wrote: the tree is walked,
//! no layout is expected. Reading has verified every checksum before anything is
//! printed.

use crate::checkpoint::{self, Weights, WeightsFile};
use crate::report::{Console, Table};
use crate::torch_file::{self, DType, TensorData, Value};
use crate::train::encoder_source;
use anyhow::{Context, Result};
use serde::Serialize;
use serde_json::{Map, json};
use std::path::{Path, PathBuf};

/// What is inside a checkpoint.
#[derive(Clone, Debug, clap::Args)]
pub struct Inspect {
    /// Checkpoint to look into, or the directory of a run: its newest good one
    #[arg(value_name = "FILE|DIR")]
    pub place: PathBuf,
    /// Where in another program's file the network stands: what is before the names of its tensors, or words of that
    #[arg(long, value_name = "PREFIX")]
    pub checkpoint_key: Option<String>,
    /// JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

/// A tensor of the file.
#[derive(Debug, Serialize)]
struct TensorEntry {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: usize,
    /// Infinite and undefined numbers.
    not_finite: usize,
}

/// What is told of a file.
#[derive(Debug)]
struct Contents {
    kind: &'static str,
    /// Whether this program wrote it.
    ours: bool,
    integrity: String,
    /// Facts of the run, as far as the file knows them.
    facts: Map<String, serde_json::Value>,
    tensors: Vec<TensorEntry>,
    /// Entries that are no tensors: name and value.
    others: Vec<(String, serde_json::Value)>,
}

/// Prints the contents.
///
/// Errors: a file that cannot be read or is damaged, with the entry at fault.
pub fn run(inspect: &Inspect, console: &Console) -> Result<()> {
    let newest = if inspect.place.is_dir() {
        Some(checkpoint::newest_good(&inspect.place, &mut |text| console.warn(&text))?.0)
    } else {
        None
    };
    let path = newest.as_ref().unwrap_or(&inspect.place);
    let bytes = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?.len();
    let mut contents = read(path)?;
    if inspect.checkpoint_key.is_some() || !contents.ours {
        let network = match encoder_source::describe(path, inspect.checkpoint_key.as_deref()) {
            Err(error) if inspect.checkpoint_key.is_none() => format!("{:#}", error),
            described => described.with_context(|| path.display().to_string())?,
        };
        contents.facts.insert("network".to_owned(), json!(network));
    }
    if inspect.json {
        console.result(&serde_json::to_string_pretty(&as_json(path, bytes, &contents))?);
    } else {
        console.result(&as_text(path, bytes, &contents));
    }
    Ok(())
}

fn read(path: &Path) -> Result<Contents> {
    let mut tensors = Vec::new();
    let mut others = Vec::new();
    if checkpoint::is_safetensors(path)? {
        let Weights { state, file } = checkpoint::read_weights(path)?;
        for (name, tensor) in state.iter() {
            tensors.push(entry(name, &checkpoint::from_tensor(tensor)?));
        }
        let notes = if let WeightsFile::Safetensors(notes) = file { notes } else { Default::default() };
        let facts = notes.into_iter().map(|(key, value)| (key, json!(value))).collect();
        let integrity = "whole (header and length agree; the format has no checksums)".to_owned();
        return Ok(Contents { kind: "safetensors file", ours: false, integrity, facts, tensors, others });
    }
    let value = torch_file::read(path)?;
    walk("", &value, &mut tensors, &mut others);
    let zip = torch_file::verify(path).is_ok();
    let integrity = if zip {
        "whole (every record has its checksum)"
    } else {
        "readable (a file of PyTorch before 1.6 has no checksums)"
    };
    let (kind, facts) = facts(&value);
    let ours = ["flatnce", "flatnce_evaluation"].iter().any(|entry| value.get(entry).is_some());
    Ok(Contents { kind, ours, integrity: integrity.to_owned(), facts, tensors, others })
}

/// What kind of file it is, and what it says of its run.
fn facts(root: &Value) -> (&'static str, Map<String, serde_json::Value>) {
    let mut facts = Map::new();
    let mut say = |key: &str, value: Option<serde_json::Value>| {
        if let Some(value) = value {
            facts.insert(key.to_owned(), value);
        }
    };
    let settings =
        |key: &str| -> Option<serde_json::Value> { serde_json::from_str(root.get(key)?.get("config")?.as_str()?).ok() };
    let scalar = |value: Option<&Value>| value.and_then(plain);
    let kind = if let Some(ours) = root.get("flatnce") {
        let run = settings("flatnce").unwrap_or_default();
        let optional = |pointer: &str| run.pointer(pointer).cloned();
        say("program", scalar(ours.get("version")).map(|v| json!(format!("flatnce {}", v.as_str().unwrap_or("?")))));
        say("epochs done", scalar(ours.get("epochs_done")));
        say("epochs asked for", optional("/epochs"));
        say("steps done", scalar(ours.get("step")));
        say("batches of the epoch done", scalar(ours.get("batch_in_epoch")));
        for (name, pointer) in [
            ("data set", "/data/dataset"),
            ("image side in pixels", "/data/image_size_px"),
            ("objective", "/objective"),
            ("temperature", "/temperature"),
            ("model", "/model/depth"),
            ("stem", "/model/stem"),
            ("batch size", "/batch_size"),
            ("optimiser", "/optimizer/name"),
            ("peak learning rate", "/optimizer/lr"),
            ("precision", "/precision"),
            ("seed", "/seed"),
        ] {
            say(name, optional(pointer));
        }
        "pre-training checkpoint of flatnce"
    } else if let Some(ours) = root.get("flatnce_evaluation") {
        let run = settings("flatnce_evaluation").unwrap_or_default();
        let optional = |pointer: &str| run.pointer(pointer).cloned();
        say("epochs done", scalar(ours.get("epochs_done")));
        say("mode", optional("/mode"));
        say("data set", optional("/data/dataset"));
        say("best top-1 in percent", scalar(root.get("best_top1_acc")));
        say("best epoch, from 0", scalar(root.get("best_epoch")));
        say("hash of the trunk", scalar(ours.get("trunk_hash")));
        "evaluation checkpoint of flatnce"
    } else if root.get("model_state_dict").is_some() {
        say("epoch", scalar(root.get("epoch")));
        say("model", scalar(root.get("model")));
        say("batch size", scalar(root.get("batch_size")));
        say("steps scheduled", root.get("scheduler").and_then(|s| s.get("last_epoch")).and_then(plain));
        "training checkpoint of a PyTorch program"
    } else {
        let of_tensors = root.as_dict().is_some_and(|d| d.iter().all(|(_, value)| value.as_tensor().is_some()));
        if of_tensors { "state dict" } else { "file of torch.save" }
    };
    (kind, facts)
}

/// Sorts the leaves of a tree by what they are; `name` is the way to `value`.
fn walk(name: &str, value: &Value, tensors: &mut Vec<TensorEntry>, others: &mut Vec<(String, serde_json::Value)>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::Tensor(tensor) => tensors.push(entry(name, tensor)),
        Value::Dict(entries) => {
            for (key, entry) in entries.iter() {
                let key = key.as_str().map_or_else(|| plain(key).unwrap_or_default().to_string(), str::to_owned);
                walk(&below(&key), entry, tensors, others);
            }
        }
        Value::List(items) | Value::Tuple(items) | Value::Set(items) if !items.iter().all(|i| plain(i).is_some()) => {
            for (place, item) in items.iter().enumerate() {
                walk(&format!("{name}[{place}]"), item, tensors, others);
            }
        }
        Value::Inert(object) => {
            others.push((name.to_owned(), json!(format!("{} (not run)", object.class))));
            walk(name, &object.state, tensors, others);
        }
        other => others.push((name.to_owned(), plain(other).unwrap_or_else(|| json!(other.kind().to_string())))),
    }
}

/// A value without tensors as JSON.
fn plain(value: &Value) -> Option<serde_json::Value> {
    Some(match value {
        Value::None => serde_json::Value::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!(value),
        Value::Float(value) => json!(value),
        Value::Str(value) => json!(value),
        Value::BigInt(bytes) => json!(format!("an integer of {} bytes", bytes.len())),
        Value::Bytes(bytes) => json!(format!("{} bytes", bytes.len())),
        Value::List(items) | Value::Tuple(items) | Value::Set(items) => {
            serde_json::Value::Array(items.iter().map(plain).collect::<Option<_>>()?)
        }
        Value::Dict(_) | Value::Tensor(_) | Value::Inert(_) => return None,
    })
}

fn entry(name: &str, tensor: &TensorData) -> TensorEntry {
    let count = |bad: fn(&[u8]) -> bool, width: usize| tensor.bytes().chunks_exact(width).filter(|b| bad(b)).count();
    let not_finite = match tensor.dtype() {
        DType::F32 => count(|b| !f32::from_le_bytes([b[0], b[1], b[2], b[3]]).is_finite(), 4),
        DType::F64 => count(|b| !f64::from_le_bytes(b.try_into().unwrap_or_default()).is_finite(), 8),
        DType::F16 => count(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7c00 == 0x7c00, 2),
        DType::BF16 => count(|b| u16::from_le_bytes([b[0], b[1]]) & 0x7f80 == 0x7f80, 2),
        _ => 0,
    };
    TensorEntry {
        name: name.to_owned(),
        shape: tensor.shape().to_vec(),
        dtype: tensor.dtype().name().to_owned(),
        bytes: tensor.bytes().len(),
        not_finite,
    }
}

fn as_json(path: &Path, bytes: u64, contents: &Contents) -> serde_json::Value {
    let others: Map<String, serde_json::Value> = contents.others.iter().cloned().collect();
    let key = |name: &String| name.replace(", ", " ").replace(' ', "_");
    let facts: Map<String, serde_json::Value> = contents.facts.iter().map(|(k, v)| (key(k), v.clone())).collect();
    json!({
        "file": path.display().to_string(),
        "bytes": bytes,
        "kind": contents.kind,
        "integrity": contents.integrity,
        "facts": facts,
        "numbers": contents.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum::<usize>(),
        "tensors": contents.tensors,
        "other_entries": others,
    })
}

/// Longest value shown in the table of entries.
const VALUE_CHARS: usize = 60;

fn as_text(path: &Path, bytes: u64, contents: &Contents) -> String {
    let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let numbers: usize = contents.tensors.iter().map(|t| t.shape.iter().product::<usize>()).sum();
    let mut facts = Table::new(["file".to_owned(), path.display().to_string()]);
    facts.row(["kind", contents.kind]);
    facts.row(["integrity", &contents.integrity]);
    facts.row(["size".to_owned(), format!("{:.1} MiB", bytes as f64 / 1048576.0)]);
    facts.row(["tensors".to_owned(), format!("{} with {numbers} numbers", contents.tensors.len())]);
    for (name, value) in &contents.facts {
        facts.row([name.clone(), text(value)]);
    }
    let bad: Vec<&TensorEntry> = contents.tensors.iter().filter(|t| t.not_finite > 0).collect();
    let named: Vec<String> = bad.iter().take(5).map(|t| format!("{} ({})", t.name, t.not_finite)).collect();
    facts.row(["not finite".to_owned(), if bad.is_empty() { "none".to_owned() } else { named.join(", ") }]);

    let mut tensors = Table::new(["tensor", "shape", "type"]);
    for tensor in &contents.tensors {
        tensors.row([tensor.name.clone(), format!("{:?}", tensor.shape), tensor.dtype.clone()]);
    }
    let mut out = format!("{facts}\n{tensors}");
    if !contents.others.is_empty() {
        let mut others = Table::new(["entry", "value"]);
        for (name, value) in &contents.others {
            let value = text(value);
            let short: String = value.chars().take(VALUE_CHARS).collect();
            let cut = if short.len() < value.len() { format!("{short}...") } else { short };
            others.row([name.clone(), cut]);
        }
        out.push_str(&format!("\n{others}"));
    }
    out
}
