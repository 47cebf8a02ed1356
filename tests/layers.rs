//! The floors of the house: a module of the library uses only floors below its own.
//! And within a room no modules use each other in a circle. Read from the source text, so that no import has to compile
//! first.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The modules, highest floor first. `lib.rs` and `main.rs` stand above all of them.
const FLOORS: &[&[&str]] = &[
    &["cli"],
    &["tools"],
    &["train"],
    &["loader"],
    &["data", "augment", "model", "optim", "monitor", "report", "run_dir", "checkpoint"],
    &[
        "torch_file",
        "state",
        "clock",
        "digest",
        "config",
        "device",
        "distributed",
        "pixels",
        "protobuf",
        "rng",
        "durable",
        "files",
        "own",
        "loss",
        "memory",
        "native",
        "threads",
        "values",
        "vectorise",
    ],
];

/// An import between two modules of one floor: (from, to, why).
type Neighbours = [(&'static str, &'static str, &'static str)];

/// The imports of that kind that are meant.
const NEIGHBOURS: &Neighbours = &[
    ("config", "loss", "which objectives can be asked for is said beside them"),
    ("torch_file", "digest", "archives are known by a hash of their names and checksums"),
    ("native", "digest", "compiled kernels are known by a digest of their source"),
    ("loss", "state", "an objective may keep tensors between steps, which checkpoints save by name"),
    ("device", "config", "which devices and precisions can be asked for is configuration"),
    ("device", "native", "what a device is told goes through libtorch's C++ interface"),
    ("device", "memory", "the main memory is the memory of the CPU as a device"),
    ("values", "config", "a value is read as what configuration has: its closed sets, ranges, devices, checkpoints"),
    ("own", "files", "what may be the program's own is opened as every file is"),
    ("torch_file", "files", "a checkpoint is opened as every file is"),
    ("native", "files", "a kept kernel is opened as every file is"),
    ("distributed", "config", "ranks compare their settings as every comparison of configurations does"),
    ("distributed", "native", "NCCL is in the part of the program that uses CUDA"),
    ("checkpoint", "run_dir", "the names of checkpoint files are the directory's business: which is the newest"),
];

/// Two modules of one room that use each other: (room, one, other, why).
type Circles = [(&'static str, &'static str, &'static str, &'static str)];

/// The circles that are meant.
const CIRCLES: &Circles = &[
    ("data", "cifar", "cifar_python", "one data set in two file formats, of the same variants and sizes"),
    (
        "augment",
        "blur",
        "op",
        "an operation's row stands beside it, and the view it works on brings its working memory",
    ),
];

fn floor_of(module: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&module))
}

/// `text` with comments and literals blanked, its lines kept.
fn code_only(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = match next {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => string(rest),
            'r' if !code.ends_with(is_name) || code.ends_with('b') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if skipped == 0 {
            code.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            code.extend(rest[..skipped].chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
            rest = &rest[skipped..];
        }
    }
    code
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length of the block comment at the start; they nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Length of the string literal at the start.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Length of the raw string literal at the start (`r#"..."#`), 0 where there is none.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|&c| c == '#').count();
    let open = 1 + hashes;
    if !text[open..].starts_with('"') {
        return 0;
    }
    let close = format!("\"{}", "#".repeat(hashes));
    text[open + 1..].find(&close).map_or(text.len(), |at| open + 1 + at + close.len())
}

/// Length of the character literal at the start, 0 where it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, escaped))) => {
            let after = at + escaped.len_utf8();
            text[after..].find('\'').map_or(0, |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 0,
    }
}

/// The modules of the crate that a source text names through `crate::`, with the line.
/// `use crate::{a, b::C}` names several.
fn modules_named(text: &str) -> Vec<(usize, String)> {
    let code = code_only(text);
    let mut named = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        // `$crate::` of a macro is the same crate; `flat_crate::` would be another name.
        if code[..at].ends_with(is_name) {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        let path = code[at + "crate::".len()..].trim_start();
        let heads = if let Some(group) = path.strip_prefix('{') { group_heads(group) } else { vec![first_name(path)] };
        named.extend(heads.into_iter().map(|head| (line, head)));
    }
    named
}

/// Edges within rooms that the source text of `module` (`["train", "pretrain", "step"]`) makes: of the room, from which
/// of its modules, to which. A room's own file is its door: what stands in it may be used by all of the room.
fn uses_in_room(module: &[&str], text: &str, all: &BTreeSet<Vec<String>>) -> BTreeSet<(String, String, String)> {
    let code = code_only(text);
    // Tests may look everywhere.
    let code = code.split("#[cfg(test)]").next().unwrap_or_default();
    let mut edges = BTreeSet::new();
    let starts = ["super::", "crate::"].iter().flat_map(|start| code.match_indices(*start));
    for (at, start) in starts.filter(|(at, _)| !code[..*at].ends_with(is_name) && !code[..*at].ends_with("super::")) {
        let mut path = &code[at..];
        let mut base: Vec<&str> = if start == "crate::" { Vec::new() } else { module.to_vec() };
        while let Some(rest) = path.strip_prefix("super::") {
            base.pop();
            path = rest;
        }
        path = path.strip_prefix("crate::").unwrap_or(path);
        while let Some((head, rest)) = path.split_once("::").filter(|(head, _)| head.chars().all(is_name)) {
            base.push(head);
            path = rest;
        }
        let heads = path.strip_prefix('{').map_or_else(|| vec![first_name(path)], group_heads);
        for head in heads {
            let named = base.iter().copied().chain([head.as_str()]);
            let mut used: Vec<String> = named.map(str::to_owned).collect();
            while !used.is_empty() && !all.contains(&used) {
                used.pop();
            }
            let shared = used.iter().zip(module).take_while(|(a, b)| a == b).count();
            if shared < used.len() && shared < module.len() {
                edges.insert((module[..shared].join("::"), module[shared].to_owned(), used[shared].clone()));
            }
        }
    }
    edges
}

/// Modules of one room that reach themselves, with the room and those of them that they use.
fn circles(edges: &BTreeSet<(String, String, String)>, meant: &Circles) -> Vec<String> {
    let is_meant = |(room, from, to): &&(String, String, String)| {
        meant.iter().any(|(r, a, b, _)| r == room && ((a == from && b == to) || (a == to && b == from)))
    };
    let edges: Vec<_> = edges.iter().filter(|edge| !is_meant(edge)).collect();
    let reaches = |room: &str, from: &str, to: &str| {
        let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
        while let Some(at) = next.pop() {
            for (_, _, used) in edges.iter().filter(|(r, f, _)| r == room && f == at) {
                if used == to {
                    return true;
                }
                if seen.insert(used.as_str()) {
                    next.push(used);
                }
            }
        }
        false
    };
    let closes = |(room, from, to): &&(String, String, String)| reaches(room, to, from);
    let name = |(room, from, to): &(String, String, String)| format!("in '{room}': {from} uses {to}, which leads back");
    edges.iter().copied().filter(closes).map(name).collect()
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|&c| is_name(c)).collect()
}

/// The first names in `a, b::{C, D}, e}`: those outside every inner brace.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0, Vec::new(), 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' | ',' if depth == 0 => {
                heads.push(first_name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.retain(|head| !head.is_empty());
    heads
}

/// What is wrong with the imports of one source file of `module`.
fn violations(module: &str, text: &str, neighbours: &Neighbours) -> Vec<String> {
    let Some(own) = floor_of(module) else {
        return vec![format!("module '{module}' stands on no floor; add it to FLOORS and to src/lib.rs")];
    };
    let mut found = Vec::new();
    for (line, used) in modules_named(text) {
        let neighbour = neighbours.iter().any(|(from, to, _)| *from == module && *to == used);
        let direction = match floor_of(&used) {
            _ if used == module || neighbour => continue,
            Some(floor) if floor > own => continue,
            Some(floor) if floor == own => "beside it",
            Some(_) => "above it",
            None => "which is on no floor",
        };
        found.push(format!("line {line}: {module} uses crate::{used}, {direction}"));
    }
    found
}

/// Every source file below `directory` with the name of its top module.
fn sources(directory: &Path, module: Option<&str>, found: &mut Vec<(String, std::path::PathBuf)>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        let path = entry.path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let top = module.unwrap_or(&stem).to_owned();
        if path.is_dir() {
            sources(&path, Some(&top), found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push((top, path));
        }
    }
}

#[test]
fn no_module_uses_its_own_floor_or_a_higher_one() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), None, &mut files);
    files.retain(|(module, _)| module != "lib" && module != "main");
    assert!(files.len() >= 5, "the sources were not found");
    let mut wrong: Vec<String> = Vec::new();
    for (module, path) in &files {
        let text = fs::read_to_string(path).unwrap();
        wrong.extend(
            violations(module, &text, NEIGHBOURS).into_iter().map(|what| format!("{}: {what}", path.display())),
        );
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_modules_of_a_room_use_each_other_in_a_circle() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, None, &mut files);
    let module_of = |path: &Path| -> Vec<String> {
        let path = path.strip_prefix(&root).unwrap().with_extension("");
        let parts = path.iter().map(|part| part.to_str().unwrap().to_owned());
        parts.filter(|part| !["mod", "lib", "main"].contains(&part.as_str())).collect()
    };
    let all: BTreeSet<Vec<String>> = files.iter().map(|(_, path)| module_of(path)).collect();
    let mut edges = BTreeSet::new();
    for (_, path) in &files {
        let module = module_of(path);
        let module: Vec<&str> = module.iter().map(String::as_str).collect();
        edges.append(&mut uses_in_room(&module, &fs::read_to_string(path).unwrap(), &all));
    }
    assert!(edges.len() > 100, "the imports were not found");
    let wrong = circles(&edges, CIRCLES);
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    for (room, one, other, why) in CIRCLES {
        let has = |from: &str, to: &str| edges.contains(&((*room).into(), from.into(), to.into()));
        assert!(has(one, other) && has(other, one) && why.len() > 20, "{room}: {one} and {other} make no circle");
    }
}

#[test]
fn made_up_circles_are_found() {
    let names = ["room", "room::a", "room::b", "room::b::part", "room::c", "other"];
    let all: BTreeSet<Vec<String>> = names.iter().map(|name| name.split("::").map(str::to_owned).collect()).collect();
    let sources = [
        ("room", "use a::A; pub trait Door {}"),
        ("room::a", "use super::{Door, b::{B, super_b}}; // use super::c;"),
        ("room::b", "use crate::other; fn f() { part::g(\"use super::a\") }"),
        ("room::b::part", "fn g() { super::super::c::C; super::B }"),
        ("room::c", "use crate::room::{Door, a::A}; #[cfg(test)] mod tests { use super::super::b; }"),
    ];
    let edges_of = |sources: &[(&str, &str)]| -> BTreeSet<_> {
        let each = |(module, text): &(&str, &str)| uses_in_room(&module.split("::").collect::<Vec<_>>(), text, &all);
        sources.iter().flat_map(each).collect()
    };
    let edges = edges_of(&sources);
    let found = ["a uses b", "b uses c", "c uses a"].map(|edge| format!("in 'room': {edge}, which leads back"));
    assert_eq!(circles(&edges, &[]), found);
    assert_eq!(circles(&edges, &[("room", "c", "a", "for the sake of the test")]), [""; 0]);
    assert_eq!(circles(&edges_of(&sources[..4]), &[]), [""; 0]);
}

#[test]
fn every_module_of_the_library_stands_on_a_floor() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let code = code_only(&lib);
    let modules = code.lines().filter_map(|line| {
        let line = line.trim().trim_start_matches("pub ").trim_start_matches("pub(crate) ");
        line.strip_prefix("mod ")?.strip_suffix(';')
    });
    let mut count = 0;
    for module in modules {
        assert!(floor_of(module).is_some(), "src/lib.rs declares '{module}', which stands on no floor");
        count += 1;
    }
    assert!(count > 0, "no module was read from src/lib.rs");
}

#[test]
fn the_table_of_neighbours_is_in_order() {
    for (from, to, why) in NEIGHBOURS {
        assert_eq!(floor_of(from), floor_of(to), "{from} -> {to} are not neighbours");
        assert!(why.len() > 20, "{from} -> {to} needs a reason");
        let back = NEIGHBOURS.iter().any(|(a, b, _)| a == to && b == from);
        assert!(!back, "{from} and {to} use each other");
    }
}

#[test]
fn made_up_violations_are_found() {
    let source = r##"
//! use crate::train is only talked about here.
use crate::config::Config;
use crate::{
    rng::{Stream, train as not_a_module},
    report::Console,
};
/* use crate::train; /* nested */ use crate::cli; */
fn f<'a>(text: &'a str) -> char {
    let _ = "use crate::train::x"; let _ = r#"crate::"cli"#; let _ = '"';
    crate::train::pretrain(crate::optim::lars());
    my_crate::loader();
    crate::model::self_is_fine()
}
"##;
    let none = |module, text| violations(module, text, &[]);
    assert_eq!(
        none("model", source),
        [
            "line 4: model uses crate::report, beside it",
            "line 11: model uses crate::train, above it",
            "line 11: model uses crate::optim, beside it",
        ]
    );
    assert_eq!(none("rng", "use crate::data::Split;"), ["line 1: rng uses crate::data, above it"]);
    assert_eq!(none("loader", "use crate::helpers;"), ["line 1: loader uses crate::helpers, which is on no floor"]);
    assert_eq!(none("helpers", "").len(), 1);
    assert_eq!(none("train", "use crate::{loader, data::Split, loss, config};"), [""; 0]);
    // A listed neighbour is allowed, in that direction alone.
    let listed = [("torch_file", "state", "for the sake of the test")];
    assert_eq!(violations("torch_file", "use crate::state::StateDict;", &listed), [""; 0]);
    assert_eq!(
        violations("state", "use crate::torch_file;", &listed),
        ["line 1: state uses crate::torch_file, beside it"]
    );
}
