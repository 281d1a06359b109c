//! Imports run downward only, and what is sans-IO stays so: every `crate::…` path in `src/` is checked against the lists
//! in the documentation of `src/lib.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What nothing sans-IO mentions.
const IMPURE: [&str; 10] = [
    "std::net",
    "std::os",
    "std::thread",
    "std::time",
    "Instant::now",
    "SystemTime",
    "mio::",
    "socket2::",
    "fastrand",
    "std::fs",
];

/// Dice that are as pure as their seed.
const SEEDED: &str = "fastrand::Rng::with_seed(";

#[test]
fn imports_run_downward_only() {
    let documented = Documented::read();
    let layers: BTreeMap<&str, BTreeSet<&str>> = documented
        .layers
        .iter()
        .map(|layer| (&*layer.name, layer.below.iter().map(|name| &**name).collect()))
        .collect();
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    assert!(files.len() > 30, "the sources are found");
    let mut seen = BTreeSet::new();
    for file in files {
        let module = module_of(&file);
        if module == "lib" {
            continue;
        }
        let allowed = layers.get(&*module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for used in imports(&fs::read_to_string(&file).unwrap()) {
            assert!(used == module || allowed.contains(&*used), "{}: {module} imports {used}", file.display());
            seen.insert((module.clone(), used));
        }
    }
    let unused = |layer: &Layer| {
        let below = layer.below.iter().map(|lower| (layer.name.clone(), lower.clone()));
        below.filter(|import| !seen.contains(import)).collect::<Vec<_>>()
    };
    let unused: Vec<_> = documented.layers.iter().flat_map(unused).collect();
    assert_eq!(unused, [], "src/lib.rs allows what no module imports");
}

#[test]
fn a_layer_imports_only_what_stands_below_it() {
    let Documented { layers, .. } = Documented::read();
    for (at, Layer { name, below }) in layers.iter().enumerate() {
        for lower in below {
            let place = layers.iter().position(|layer| layer.name == *lower).expect("a layer");
            assert!(place > at, "{name} imports {lower}, which stands above it");
        }
    }
}

#[test]
fn what_is_sans_io_sees_no_descriptor_clock_or_thread() {
    for part in Documented::read().sans_io {
        let (folder, file) = (source().join(&part), source().join(format!("{part}.rs")));
        assert!(folder.is_dir() || file.is_file(), "{part} is found");
        let mut files = Vec::new();
        for at in [folder, file] {
            if at.exists() {
                rust_files(&at, &mut files);
            }
        }
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for word in IMPURE {
                let is_said = |line: &str| line.contains(word) && !line.contains(SEEDED);
                assert!(!code(&text).any(is_said), "{} mentions {word}", file.display());
            }
        }
    }
}

/// Everything else is safe, whatever the contracts between its parts are.
#[test]
fn unsafe_code_stands_in_the_driver_on_io_uring_alone() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    let is_unsafe = |file: &PathBuf| {
        let text = fs::read_to_string(file).unwrap();
        code(&text).any(|line| line.contains("unsafe ") || line.contains("unsafe_code"))
    };
    let found: BTreeSet<PathBuf> = files.into_iter().filter(is_unsafe).collect();
    let expected = ["mod.rs", "ring.rs", "buffers.rs"].map(|name| source().join("reactor/uring").join(name));
    assert_eq!(found, BTreeSet::from(expected));
}

#[test]
fn imports_are_found_however_they_are_written() {
    let found = |text: &str| imports(text).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(found("use crate::router::Router;"), "router");
    assert_eq!(found("pub(in crate::reactor) fn f(at: &crate::ids::ConnId) {}"), "ids reactor");
    assert_eq!(found("use crate::{conn::Decoder, router::{Batch, Router}, time};"), "conn router time");
    assert_eq!(
        found("use crate::{\n    conn::Decoder,\n    router::{\n        Batch, mail::{self, Mail},\n    },\n};"),
        "conn router"
    );
    assert_eq!(found("use {\n    crate::{ids, time::Millis},\n    std::fs,\n};"), "ids time");
    assert_eq!(found("use crate::{self, conn};"), "conn");
    assert_eq!(found("use crate::{\n    conn, // not router, nor {limits\n    time,\n};"), "conn time");
    assert_eq!(found("use crate ::\n    conn;"), "conn");
    assert_eq!(found("use fanfare::cli; // crate::server"), "cli");
    assert_eq!(found("//! crate::router\n    /// crate::conn\nuse std::fs;"), "");
    assert_eq!(found("use other_crate::conn; use my_fanfare::cli;"), "");
}

#[test]
fn the_lists_are_read_from_the_documentation() {
    let text = "//! ```text\n//! top → middle,\n//!       low\n//! middle → low\n//! low →\n//! ```\n//! Words.\n//!\n//! \
                ```text\n//! middle/part,\n//! low\n//! ```\n";
    let Documented { layers, sans_io } = Documented::parse(text);
    let layer = |name: &str, below: &[&str]| Layer {
        name: name.to_owned(),
        below: below.iter().map(|&lower| lower.to_owned()).collect(),
    };
    assert_eq!(layers, [layer("top", &["middle", "low"]), layer("middle", &["low"]), layer("low", &[])]);
    assert_eq!(sans_io, ["middle/part", "low"]);
}

/// What the documentation of `src/lib.rs` says.
struct Documented {
    /// From the top down.
    layers: Vec<Layer>,
    /// Modules, and parts of modules.
    sans_io: Vec<String>,
}

/// A module, and what it may import; its own parts always.
#[derive(Debug, PartialEq, Eq)]
struct Layer {
    name: String,
    below: Vec<String>,
}

impl Documented {
    fn read() -> Documented {
        let read = Documented::parse(&fs::read_to_string(source().join("lib.rs")).unwrap());
        assert!(read.layers.len() > 10 && read.sans_io.len() > 5, "the lists are found");
        read
    }

    /// The first block of text has a line for each layer, or more, with an arrow in the first; the second has names.
    fn parse(source: &str) -> Documented {
        let text: String =
            source.lines().map_while(|line| line.strip_prefix("//!")).flat_map(|line| [line, "\n"]).collect();
        let mut blocks = text.split(" ```text\n").skip(1).map(|block| block.split(" ```\n").next().expect("an end"));
        let names = |list: &str| -> Vec<String> {
            list.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
        };
        let mut layers: Vec<Layer> = Vec::new();
        for line in blocks.next().expect("a block of layers").lines() {
            match line.split_once('→') {
                Some((name, below)) => layers.push(Layer { name: name.trim().to_owned(), below: names(below) }),
                None => layers.last_mut().expect("a layer to continue").below.extend(names(line)),
            }
        }
        Documented { layers, sans_io: names(blocks.next().expect("a block of what is sans-IO")) }
    }
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The module of the crate that a file is part of.
fn module_of(file: &Path) -> String {
    let inside = file.strip_prefix(source()).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn rust_files(at: &Path, found: &mut Vec<PathBuf>) {
    if at.is_file() {
        found.push(at.to_owned());
        return;
    }
    for entry in fs::read_dir(at).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Lines that are no comments, without the comments behind them.
fn code(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| line.split(" // ").next().unwrap_or(line))
}

/// The modules named behind `crate::` (or `fanfare::`, in the binary).
fn imports(text: &str) -> BTreeSet<String> {
    let code: String = code(text).flat_map(|line| [line, "\n"]).collect();
    let mut found = BTreeSet::new();
    for root in ["crate", "fanfare"] {
        for (at, _) in code.match_indices(root) {
            let is_whole = !code[..at].ends_with(is_of_a_name);
            let Some(path) = code[at + root.len()..].trim_start().strip_prefix("::").filter(|_| is_whole) else {
                continue;
            };
            match path.trim_start().strip_prefix('{') {
                Some(group) => found.extend(members(group).into_iter().map(first_name)),
                None => _ = found.insert(first_name(path)),
            }
        }
    }
    found.retain(|name| !name.is_empty() && name != "self");
    found
}

/// The members of a group of imports, up to the brace that ends it.
fn members(group: &str) -> Vec<&str> {
    let (mut found, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, letter) in group.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found
}

fn first_name(path: &str) -> String {
    path.trim_start().chars().take_while(|&letter| is_of_a_name(letter)).collect()
}

fn is_of_a_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}
