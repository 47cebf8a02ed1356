//! Checkpoint files against PyTorch's own, against damage, and against malice.
//!
//! Fixtures and what they hold come from `tests/golden/torch_file/make.py`.

#[path = "support/held.rs"]
mod held;
mod support;

use flatnce::rng::{Purpose, Stream};
use flatnce::torch_file::{self, DType, Dict, Error, Limits, Storage, TensorData, Value};
use held::measured;
use serde_json::{Value as Json, json};
use std::fmt::Write as _;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

// ---------------------------------------------------------------- helpers

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/torch_file").join(name)
}

fn read_bytes(bytes: &[u8]) -> Result<Value, Error> {
    torch_file::read_from(&mut Cursor::new(bytes), &Limits::default())
}

fn written(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    torch_file::write(&mut out, "archive", value).expect("the value can be written");
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a string grows");
        text
    })
}

/// The same notation as `render.py`.
fn render(value: &Value) -> Json {
    let list = |items: &[Value]| Json::from(items.iter().map(render).collect::<Vec<_>>());
    match value {
        Value::None => Json::Null,
        Value::Bool(value) => json!(value),
        Value::Int(value) => json!({ "int": value.to_string() }),
        // The only ones in the fixtures.
        Value::BigInt(bytes) => {
            let mut wide = [if bytes.last().is_some_and(|byte| byte & 0x80 != 0) { 0xff } else { 0 }; 16];
            wide[..bytes.len()].copy_from_slice(bytes);
            json!({ "int": i128::from_le_bytes(wide).to_string() })
        }
        Value::Float(value) => json!({ "float": hex(&value.to_be_bytes()) }),
        Value::Str(text) => json!(text),
        Value::Bytes(bytes) => json!({ "bytes": hex(bytes) }),
        Value::List(items) => list(items),
        Value::Tuple(items) => json!({ "tuple": list(items) }),
        Value::Set(items) => json!({ "set": list(items) }),
        Value::Dict(dict) => {
            let pairs: Vec<Json> = dict.iter().map(|(key, value)| json!([render(key), render(value)])).collect();
            match dict.ordered {
                true => json!({ "ordered": pairs, "attributes": dict.attributes.as_deref().map(render) }),
                false => json!({ "dict": pairs }),
            }
        }
        Value::Tensor(tensor) => {
            json!({ "tensor": tensor.dtype().name(), "shape": tensor.shape(), "data": hex(tensor.bytes()) })
        }
        Value::Inert(object) => json!({ "inert": object.class, "state": render(&object.state) }),
    }
}

fn expected() -> Vec<(String, Json)> {
    let text = std::fs::read_to_string(golden("expected.json")).expect("expected.json");
    let all: serde_json::Map<String, Json> = serde_json::from_str(&text).expect("expected.json is JSON");
    let resolve = |value: &Json| value.as_str().map_or_else(|| value.clone(), |same| all[same].clone());
    all.iter().map(|(name, value)| (name.clone(), resolve(value))).collect()
}

fn floats(values: &[f32]) -> TensorData {
    TensorData::new(DType::F32, [values.len()], values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

/// A checkpoint as this program writes them, small.
fn checkpoint() -> Value {
    let weight = Storage::new((0..96u8).collect());
    let mut model = Dict::ordered();
    model.insert("conv1.weight", TensorData::view(DType::F32, [2, 3, 2], weight.clone(), 0));
    model.insert("conv1.tied", TensorData::view(DType::F32, [4, 3], weight, 48));
    model.insert("bn1.num_batches_tracked", TensorData::new(DType::I64, [], 12i64.to_le_bytes().to_vec()));
    model.attributes = Some(Box::new(Dict::from_iter([("_metadata", Dict::ordered())]).into()));
    let buffer = Dict::from_iter([("momentum_buffer", floats(&[1., -2., 3., f32::MIN, 0.]))]);
    let group = Dict::from_iter([
        ("lr", Value::Float(0.6)),
        ("betas", Value::Tuple(vec![0.9.into(), 0.999.into()])),
        ("params", Value::List((0..3).map(Value::Int).collect())),
        ("foreach", Value::None),
        ("nesterov", Value::Bool(false)),
    ]);
    let state = Dict::from_iter([(Value::Int(0), buffer)]);
    let optimizer: Dict =
        [("state", Value::Dict(state)), ("param_groups", Value::List(vec![group.into()]))].into_iter().collect();
    Dict::from_iter([
        ("batch_size", Value::Int(512)),
        ("epoch", Value::Int(70_000)),
        ("model", "res50".into()),
        ("model_state_dict", model.into()),
        ("optimizer", optimizer.into()),
        ("random_state", Value::Bytes((0..=255).collect())),
        ("seed", Value::BigInt(vec![0, 0, 0, 0, 0, 0, 0, 0x80, 0])),
        ("half", TensorData::new(DType::BF16, [2, 2], vec![0, 0x80, 0x80, 0x3f, 1, 2, 3, 4]).into()),
        ("empty", TensorData::new(DType::Bool, [0, 7], vec![]).into()),
    ])
    .into()
}

/// A plain zip archive; `deflate` packs the records.
fn zip(records: &[(String, Vec<u8>)], deflate: bool) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, contents) in records {
        let mut packed = contents.clone();
        if deflate {
            let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(contents).expect("memory");
            packed = encoder.finish().expect("memory");
        }
        let mut common = vec![0, 0, 0, 0, if deflate { 8 } else { 0 }, 0, 0, 0, 0, 0];
        for word in [crc32fast::hash(contents), packed.len() as u32, contents.len() as u32, name.len() as u32] {
            common.extend(word.to_le_bytes());
        }
        directory.extend([b"PK\x01\x02\0\0", common.as_slice(), &[0; 10]].concat());
        directory.extend((out.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        out.extend([b"PK\x03\x04", common.as_slice(), name.as_bytes(), &packed].concat());
    }
    let (size, start) = (directory.len() as u32, out.len() as u32);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend([(records.len() as u16).to_le_bytes(); 2].concat());
    out.extend([size.to_le_bytes(), start.to_le_bytes()].concat());
    out.extend([0, 0]);
    out
}

/// An archive with this structure and these storages of 64 bytes each.
fn archive(pickle: &[u8], storages: usize) -> Vec<u8> {
    let mut records = vec![("a/data.pkl".to_owned(), pickle.to_vec())];
    records.extend((0..storages).map(|key| (format!("a/data/{key}"), vec![7; 64])));
    zip(&records, false)
}

/// A pickle of one float tensor over a storage of 16 elements.
fn tensor_pickle(offset: i64, shape: &[i64], strides: &[i64], elements: i64) -> Vec<u8> {
    let mut out = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
    out.extend(b"X\x01\0\0\x000X\x03\0\0\0cpu");
    let int = |out: &mut Vec<u8>, value: i64| out.extend([b"\x8a\x08".as_slice(), &value.to_le_bytes()].concat());
    int(&mut out, elements);
    out.extend(b"tQ");
    int(&mut out, offset);
    for values in [shape, strides] {
        out.push(b'(');
        values.iter().for_each(|&value| int(&mut out, value));
        out.push(b't');
    }
    out.extend(b"\x89ccollections\nOrderedDict\n)RtR.");
    out
}

fn error(bytes: &[u8]) -> String {
    let (result, peak) = measured(|| read_bytes(bytes));
    assert!(peak < (2 << 20) + 200 * bytes.len() as isize, "{peak} bytes for a file of {}", bytes.len());
    result.expect_err("the file must be refused").to_string()
}

// ---------------------------------------------------------------- PyTorch's files

#[test]
fn files_of_pytorch_read_back_exactly() {
    let all = expected();
    assert!(all.len() >= 14);
    for (name, expected) in all {
        let value = torch_file::read(&golden(&name)).unwrap_or_else(|error| panic!("{error}"));
        let found = render(&value);
        if let (Some(found), Some(expected)) = (found["dict"].as_array(), expected["dict"].as_array()) {
            found.iter().zip(expected).for_each(|(found, expected)| assert_eq!(found, expected, "{name}"));
        }
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn files_without_meaning_here_are_refused_by_name() {
    for (name, parts) in [
        ("big_endian.pth", ["cuda/byteorder", "big-endian"]),
        ("bzip2.pth", ["compression method 12", "pack it again"]),
        ("complex.pth", ["complex/data.pkl, byte", "torch.ComplexFloatStorage"]),
        ("uint16.pth", ["data.pkl", "_rebuild_tensor_v3"]),
        ("sparse.pth", ["_rebuild_sparse_tensor", "to_dense"]),
        ("negated.pth", ["conjugated or negated", "resolve_neg"]),
        ("storage.pth", ["torch.storage.UntypedStorage", "was not run"]),
        ("whole_model.pth", ["torch.nn.modules.linear.Linear", "state_dict"]),
        ("torchscript.pth", ["TorchScript", "torch.jit.load"]),
        ("tar.pth", ["tar archive", "tar xf"]),
        ("expected.json", ["unknown kind", "Download"]),
        ("missing.pth", ["cannot open", "No such file"]),
    ] {
        let text = torch_file::read(&golden(name)).expect_err(name).to_string();
        for part in [name].iter().chain(&parts) {
            assert!(text.contains(part), "{name}: {text:?} lacks {part:?}");
        }
    }
}

#[test]
fn pickles_of_python_2_and_of_gpus_are_read() {
    // Short byte strings for text, a storage class of torch.cuda, the first form of tensors.
    let pickle = [
        b"\x80\x02}U\x06weightctorch._utils\n_rebuild_tensor\n".as_slice(),
        b"((U\x07storagectorch.cuda\nFloatStorage\nU\x010U\x06cuda:3K\x10tQ",
        b"K\x02K\x03\x85K\x01\x85tRs.",
    ];
    let value = read_bytes(&archive(&pickle.concat(), 1)).unwrap();
    let tensor = value.get("weight").and_then(Value::as_tensor).unwrap();
    assert_eq!((tensor.dtype(), tensor.shape(), tensor.bytes()), (DType::F32, [3].as_slice(), [7; 12].as_slice()));
    assert_eq!(tensor.first_byte(), 8);
}

#[test]
fn harmless_objects_are_kept_and_not_run() {
    let value = torch_file::read(&golden("foreign_objects.pth")).unwrap();
    for (key, class, arguments) in [
        ("array", "multiarray._reconstruct", 3),
        ("path", "PurePosixPath", 3),
        ("date", "datetime.datetime", 1),
        ("complex", "builtins.complex", 2),
        ("layout", "torch.serialization._get_layout", 1),
    ] {
        let Some(Value::Inert(object)) = value.get(key) else { panic!("{key}: {:?}", value.get(key)) };
        assert!(object.class.ends_with(class), "{key}: {}", object.class);
        assert_eq!(object.arguments.len(), arguments, "{key}");
    }
    assert_eq!(value.get("weight").and_then(Value::as_tensor), Some(&floats(&[1.0, 1.0])));
    let objects = torch_file::read(&golden("objects.pth")).unwrap();
    assert_eq!(objects.get("args").and_then(|args| args.get("dataset_name")?.as_str()), Some("cifar10"));
}

#[test]
fn sharing_survives_reading_and_writing() {
    let views = torch_file::read(&golden("views.pth")).unwrap();
    let storage = |value: &Value, key: &str| value.get(key).and_then(Value::as_tensor).unwrap().storage().clone();
    let again = read_bytes(&written(&views)).unwrap();
    for value in [&views, &again] {
        for key in ["rows", "one", "empty_view"] {
            assert!(storage(value, "base").is_same(&storage(value, key)), "{key}");
        }
        assert!(storage(value, "tied").is_same(&storage(value, "tied_again")));
        assert!(!storage(value, "base").is_same(&storage(value, "transposed")), "made contiguous");
    }
}

// ---------------------------------------------------------------- our own files

#[test]
fn what_is_written_reads_back() {
    let mut values = vec![checkpoint()];
    for name in ["lars_multi_gpu.pth.tar", "sgd.pth", "adam.pth", "adam_old_format.pth", "views.pth", "dtypes.pth"] {
        values.push(torch_file::read(&golden(name)).unwrap());
    }
    let many: Dict =
        (0..2500).map(|i| (format!("key{i}"), Value::Tuple(vec![Value::Int(i); (i % 6) as usize]))).collect();
    values.push(Value::List(vec![many.into(), Value::Set(vec![Value::Int(1)]), vec![Value::None; 1001].into()]));
    for value in values {
        let bytes = written(&value);
        assert_eq!(bytes, written(&value.clone()), "equal values give equal files");
        let length = torch_file::write(&mut std::io::sink(), "archive", &value).unwrap();
        assert_eq!(length, bytes.len() as u64);
        assert_eq!(render(&read_bytes(&bytes).unwrap()), render(&value));
    }
}

#[test]
fn values_that_pytorch_would_refuse_are_not_written() {
    let namespace = torch_file::read(&golden("objects.pth")).unwrap();
    let namespace = namespace.get("args").unwrap().clone();
    let mut deep = Value::None;
    for _ in 0..100 {
        deep = Value::List(vec![deep]);
    }
    let key: Dict = [(Value::List(vec![]), Value::None)].into_iter().collect();
    for (value, name, part) in [
        (namespace, "archive", "argparse.Namespace"),
        (deep, "archive", "nested"),
        (key.into(), "archive", "a list as key"),
        (Value::None, "a/b", "archive name"),
        (Value::None, "", "archive name"),
    ] {
        let mut out = Vec::new();
        let text = torch_file::write(&mut out, name, &value).expect_err(part).to_string();
        assert!(text.contains(part) && text.contains("Convert"), "{text}");
        assert!(out.is_empty(), "nothing is written before the value is known to be good");
    }
}

#[test]
fn a_full_disk_names_the_record() {
    struct Full(usize);
    impl Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or(std::io::ErrorKind::StorageFull)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let size = written(&checkpoint()).len();
    for room in [0, 100, 1500, size - 1] {
        let error = torch_file::write(&mut Full(room), "archive", &checkpoint()).unwrap_err().in_file("x.pth".as_ref());
        let text = error.to_string();
        assert!(text.contains("x.pth, record ") && text.contains("cannot write"), "{text}");
        assert_eq!(error.source.unwrap().kind(), std::io::ErrorKind::StorageFull);
    }
    assert_eq!(torch_file::write(&mut Full(size), "archive", &checkpoint()).unwrap(), size as u64);
}

#[test]
fn pytorch_loads_what_is_written() {
    let Some(python) = support::python("torch") else { return };
    let folder = tempfile::tempdir().unwrap();
    let mut values = vec![("ours.pth", "", checkpoint())];
    for (name, kind) in [
        ("sgd.pth", ":sgd"),
        ("adam.pth", ":adam"),
        ("lars_multi_gpu.pth.tar", ""),
        ("views.pth", ""),
        ("dtypes.pth", ""),
    ] {
        values.push((name, kind, torch_file::read(&golden(name)).unwrap()));
    }
    // Names and counts that move the alignment, and enough strings for long references.
    let words: Vec<Value> = (0..600).map(|i| Value::Str(format!("word {}", i % 300))).collect();
    values.push(("words.pth", "", Value::List(words)));
    let mut arguments = Vec::new();
    for (name, kind, value) in &values {
        let path = folder.path().join(name);
        let archive_name = path.file_stem().unwrap().to_str().unwrap();
        torch_file::write(&mut std::fs::File::create(&path).unwrap(), archive_name, value).unwrap();
        arguments.push(format!("{}{kind}", path.display()));
    }
    let run = Command::new(python)
        .arg("-B")
        .arg(golden("check.py"))
        .args(arguments)
        .env("TORCH_SERIALIZATION_DEBUG", "1")
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let found: Vec<Json> = serde_json::from_slice(&run.stdout).unwrap();
    assert_eq!(found.len(), values.len());
    for ((name, _, value), found) in values.iter().zip(found) {
        assert_eq!(found, render(value), "{name}");
    }
}

// ---------------------------------------------------------------- damage

/// One of seven ways to damage a file.
fn mutate(bytes: &mut Vec<u8>, stream: &mut Stream) {
    let place = |stream: &mut Stream, bytes: &Vec<u8>| stream.below(bytes.len() as u64) as usize;
    if bytes.is_empty() {
        return;
    }
    match stream.below(7) {
        0 => {
            let at = place(stream, bytes);
            bytes[at] ^= 1 << stream.below(8);
        }
        1 => {
            for _ in 0..=stream.below(8) {
                let at = place(stream, bytes);
                bytes[at] = stream.next_u32() as u8;
            }
        }
        2 => bytes.truncate(place(stream, bytes)),
        3 => {
            let (from, to) = (place(stream, bytes), place(stream, bytes));
            let length = (stream.below(200) as usize).min(bytes.len() - from.max(to));
            bytes.copy_within(from..from + length, to);
        }
        4 => {
            let at = place(stream, bytes);
            let end = (at + 1 + stream.below(64) as usize).min(bytes.len());
            bytes[at..end].fill(if stream.chance(0.5) { 0 } else { 0xff });
        }
        5 => {
            let at = place(stream, bytes);
            let end = (at + 1 + stream.below(16) as usize).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let at = place(stream, bytes);
            let extra: Vec<u8> = (0..=stream.below(16)).map(|_| stream.next_u32() as u8).collect();
            bytes.splice(at..at, extra);
        }
    }
}

/// The bound on memory that the limits promise for a file of this length, with the pickle's own allowance.
fn allowed(bytes: usize) -> isize {
    (2 << 20) + 200 * bytes as isize
}

#[test]
fn ten_thousand_damaged_files_are_detected_or_unharmed() {
    let original = written(&checkpoint());
    let value = read_bytes(&original).unwrap();
    assert_eq!(value, checkpoint());
    let (mut refused, mut unharmed) = (0, 0);
    for round in 0..10_000 {
        let mut stream = Stream::new(1, Purpose::Subset, round, 0, 0);
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut stream);
        let (result, peak) = measured(|| read_bytes(&bytes));
        assert!(peak < allowed(bytes.len()), "round {round}: {peak} bytes");
        match result {
            Err(_) => refused += 1,
            Ok(found) => {
                assert_eq!(found, value, "round {round} gave another value");
                unharmed += 1;
            }
        }
    }
    // Padding, dates and the like may change; most of a file may not.
    println!("{refused} refused, {unharmed} unharmed");
    assert!(refused > 6_000, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn ten_thousand_damaged_structures_do_no_harm() {
    // The checksum is right in these files, so that the damage reaches the machine.
    for (name, seed) in [("objects_protocol4.pth", 2), ("adam.pth", 3)] {
        let original = std::fs::read(golden(name)).unwrap();
        let records = records(&original);
        let mut accepted = 0;
        for round in 0..5_000 {
            let mut stream = Stream::new(seed, Purpose::Subset, round, 0, 0);
            let mut records = records.clone();
            for _ in 0..=stream.below(3) {
                // The first part of a structure has all its kinds of entries.
                let pickle = &mut records[0].1;
                let rest = pickle.split_off(pickle.len().min(3_000));
                mutate(pickle, &mut stream);
                pickle.extend(rest);
            }
            let bytes = zip(&records, false);
            let (result, peak) = measured(|| read_bytes(&bytes));
            assert!(peak < allowed(bytes.len()), "{name}, round {round}: {peak} bytes");
            accepted += u32::from(result.is_ok());
        }
        assert!(accepted < 5_000, "{name}: nothing was ever refused");
    }
}

#[test]
fn damaged_files_of_the_old_format_do_no_harm() {
    let original = std::fs::read(golden("adam_old_format.pth")).unwrap();
    for round in 0..2_000 {
        let mut stream = Stream::new(4, Purpose::Subset, round, 0, 0);
        let mut bytes = original.clone();
        mutate(&mut bytes, &mut stream);
        let (_, peak) = measured(|| read_bytes(&bytes));
        assert!(peak < allowed(bytes.len()), "round {round}: {peak} bytes");
    }
}

/// Names and contents of the records of an archive that PyTorch wrote.
fn records(archive: &[u8]) -> Vec<(String, Vec<u8>)> {
    let word = |at: usize| u32::from_le_bytes(archive[at..at + 4].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(archive[at..at + 2].try_into().unwrap()));
    let end = archive.len() - 22;
    let mut at = word(end + 16);
    let mut records = Vec::new();
    for _ in 0..half(end + 10) {
        let (size, name_len, header) = (word(at + 24), half(at + 28), word(at + 42));
        let name = String::from_utf8(archive[at + 46..at + 46 + name_len].to_vec()).unwrap();
        let data = header + 30 + half(header + 26) + half(header + 28);
        records.push((name, archive[data..data + size].to_vec()));
        at += 46 + name_len + half(at + 30);
    }
    records
}

#[test]
fn every_flipped_bit_of_a_tensor_is_found_and_named() {
    let original = written(&checkpoint());
    let contents = [(0..96).collect::<Vec<u8>>(), b"PK\x07\x08".to_vec()].concat();
    let start = original.windows(contents.len()).position(|window| window == contents).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broken.pth");
    for bit in 0..96 * 8 {
        let mut bytes = original.clone();
        bytes[start + bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &bytes).unwrap();
        let text = torch_file::read(&path).unwrap_err().to_string();
        let place = format!("broken.pth, record archive/data/0, byte {start}: checksum");
        assert!(text.contains(&place) && text.contains("take an older checkpoint"), "{text}");
    }
    for length in 0..original.len() {
        assert!(read_bytes(&original[..length]).is_err(), "cut to {length} bytes");
    }
}

// ---------------------------------------------------------------- malice

#[test]
fn nothing_outside_the_list_is_called() {
    for name in
        ["posix\nsystem", "os\nsystem", "__builtin__\neval", "builtins\nexec", "torch.storage\n_load_from_bytes"]
    {
        let pickle = [b"\x80\x02c".as_slice(), name.as_bytes(), b"\nX\x02\0\0\0id\x85R."].concat();
        let text = error(&archive(&pickle, 0));
        assert!(text.contains("a/data.pkl, byte 2") && text.contains("was not run"), "{text}");
        let full = name.replace("__builtin__", "builtins").replace('\n', ".");
        assert!(text.contains(&full), "{text}");
        let (module, function) = name.split_once('\n').unwrap();
        let mut stacked = b"\x80\x04".to_vec();
        for part in [module, function] {
            stacked.extend([0x8c, part.len() as u8]);
            stacked.extend(part.as_bytes());
        }
        stacked.extend(b"\x93.");
        assert!(error(&archive(&stacked, 0)).contains("was not run"));
    }
}

#[test]
fn tensors_outside_their_storage_are_refused() {
    let good = read_bytes(&archive(&tensor_pickle(4, &[2, 3], &[6, 2], 16), 1)).unwrap();
    assert_eq!(good.as_tensor().unwrap().shape(), [2, 3]);
    for (offset, shape, strides, elements, part) in [
        (5, vec![2, 3], vec![6, 3], 16, "reaches past"),
        (16, vec![], vec![], 16, "reaches past"),
        (0, vec![17], vec![1], 16, "reaches past"),
        (0, vec![2], vec![i64::MAX], 16, "reaches past"),
        (0, vec![i64::MAX, i64::MAX], vec![i64::MAX, i64::MAX], 16, "reaches past"),
        (i64::MAX, vec![2], vec![i64::MAX], 16, "reaches past"),
        (0, vec![-1], vec![1], 16, "is no size"),
        (-1, vec![1], vec![1], 16, "is no size"),
        (0, vec![2], vec![-1], 16, "is no size"),
        (0, vec![2, 2], vec![1], 16, "2 sizes and 1 strides"),
        (0, vec![1; 65], vec![1; 65], 16, "without sizes"),
        (0, vec![2], vec![1], 17, "instead of 68"),
        (0, vec![2], vec![1], i64::MAX, "claims"),
        (0, vec![1 << 40, 1 << 40, 0], vec![0, 0, 0], 16, "address space"),
        (0, vec![1 << 40, 1 << 40], vec![0, 0], 16, "address space"),
        (0, vec![1 << 40], vec![0], 16, "limit is"),
        (0, vec![4096, 4096], vec![0, 0], 16, "limit is"),
    ] {
        let text = error(&archive(&tensor_pickle(offset, &shape, &strides, elements), 1));
        assert!(text.contains(part), "{shape:?} {strides:?}: {text}");
    }
    let missing = error(&archive(&tensor_pickle(0, &[2], &[1], 16), 0));
    assert!(missing.contains("record a/data/0") && missing.contains("missing"), "{missing}");
}

#[test]
fn bombs_do_not_go_off() {
    // Thirty lists, each twice in the next: 2^30 values from 200 bytes.
    let mut laughs = b"\x80\x02]q\0".to_vec();
    for level in 0..30 {
        laughs.extend([b'(', b'h', level, b'h', level, b'l', b'q', level + 1]);
    }
    // Each level leaves one list below the next; the last stays.
    let mut closed = laughs.clone();
    closed.extend([b"\x86".repeat(30), b".".to_vec()].concat());
    assert!(error(&archive(&closed, 0)).contains("limit is"));
    // A long string, mentioned a million times.
    let mut mentions = b"\x80\x02]q\0(X\0\0\x01\0".to_vec();
    mentions.extend([b"x".repeat(65536), b"q\x01".to_vec(), b"h\x01".repeat(100_000), b"e.".to_vec()].concat());
    assert!(error(&archive(&mentions, 0)).contains("limit is"));
    // A list in itself.
    assert!(error(&archive(b"\x80\x02]q\0h\0a.", 0)).contains("contain themselves"));
    // A thousand levels.
    let deep = [b"\x80\x02".to_vec(), b"]".repeat(1000), b"a".repeat(999), b".".to_vec()].concat();
    assert!(error(&archive(&deep, 0)).contains("nested too deeply"));
    // Lengths that nobody has.
    for claim in [b"\x8d".as_slice(), b"\x8e", b"\x96"] {
        let pickle = [b"\x80\x04", claim, &u64::MAX.to_le_bytes(), b"."].concat();
        assert!(error(&archive(&pickle, 0)).contains("bytes are needed"));
    }
    assert!(error(&archive(b"\x80\x02X\xff\xff\xff\xff.", 0)).contains("bytes are needed"));
    assert!(error(&archive(b"\x80\x02Nr\xff\xff\xff\xff0j\xff\xff\xff\xfe.", 0)).contains("remembered"));
    // 64 MiB of zeros in 64 KiB.
    let packed = zip(&[("a/data.pkl".into(), b"N.".to_vec()), ("a/data/0".into(), vec![0; 64 << 20])], true);
    assert!(packed.len() < 128 << 10);
    let (result, peak) = measured(|| read_bytes(&packed));
    assert!(result.is_ok() && peak < 4 << 20, "a record that nobody needs is verified and not kept: {peak} bytes");
    let zeros = tensor_pickle(0, &[16 << 20], &[1], 16 << 20);
    let packed = zip(&[("a/data.pkl".into(), zeros), ("a/data/0".into(), vec![0; 64 << 20])], true);
    assert!(error(&packed).contains("limit is"));
    let generous = Limits { growth: 2000, ..Limits::default() };
    let value = torch_file::read_from(&mut Cursor::new(&packed), &generous).unwrap();
    assert_eq!(value.as_tensor().unwrap().elements(), 16 << 20);
    // A pickle beyond its limit.
    let short = Limits { pickle_bytes: 10, ..Limits::default() };
    let text = torch_file::read_from(&mut Cursor::new(written(&checkpoint())), &short).unwrap_err().to_string();
    assert!(text.contains("limit is 10") && text.contains("Load it in PyTorch"), "{text}");
    let few = Limits { memo_entries: 3, ..Limits::default() };
    let text = torch_file::read_from(&mut Cursor::new(written(&checkpoint())), &few).unwrap_err().to_string();
    assert!(text.contains("remembers too many values, the limit is 3"), "{text}");
}

#[test]
fn a_file_with_holes_is_refused_for_its_length() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("sparse.pth");
    std::fs::write(&path, written(&checkpoint())).unwrap();
    std::fs::File::options().write(true).open(&path).unwrap().set_len(10 << 30).unwrap();
    let (result, peak) = measured(|| torch_file::read(&path));
    let text = result.unwrap_err().to_string();
    assert!(text.contains("sparse.pth") && text.contains("10737418240 bytes, the limit is"), "{text}");
    assert!(peak < 1 << 20, "{peak} bytes");
}

#[test]
fn archives_that_two_readers_could_read_differently_are_refused() {
    let pair = |name: &str| (name.to_owned(), b"N.".to_vec());
    assert!(error(&zip(&[pair("a/data.pkl"), pair("a/data.pkl")], false)).contains("twice"));
    assert!(error(&zip(&[pair("a/data.pkl"), pair("b/data.pkl")], false)).contains("two structures"));
    assert!(error(&zip(&[pair("a/other")], false)).contains("without data.pkl"));
    let good = zip(&[pair("a/data.pkl"), pair("a/version")], false);
    assert_eq!(read_bytes(&good).unwrap(), Value::None);
    // The second entry of the list points at the first record; then a header alone has another name.
    let list = good.windows(4).position(|window| window == b"PK\x01\x02").unwrap();
    let second = list + 46 + "a/data.pkl".len();
    let mut overlap = good.clone();
    overlap[second + 42..second + 46].fill(0);
    assert!(error(&overlap).contains("overlaps"));
    let mut renamed = good.clone();
    renamed[30] = b'b';
    assert!(error(&renamed).contains("contradicts the list"));
    let mut surplus = good.clone();
    surplus.splice(list..list, *b"??");
    assert!(error(&surplus).contains("not where the archive says"));
    let mut commented = good.clone();
    let end = commented.len();
    commented[end - 2] = 3;
    commented.extend(b"yes");
    assert_eq!(read_bytes(&commented).unwrap(), Value::None);
    // A pickle with something behind it; a dictionary with one key twice.
    assert!(error(&archive(b"\x80\x02N.N.", 0)).contains("follows its end"));
    assert!(error(&archive(b"\x80\x02}(K\x01NK\x01\x88u.", 0)).contains("twice"));
}
