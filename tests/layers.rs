//! Imports run downward only: every `crate::…` path in `src/` is checked against the layers that `src/lib.rs` draws.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each module may import. A module's own parts are always allowed.
const LAYERS: &[(&str, &[&str])] = &[
    ("main", &["cli"]),
    ("cli", &["bench", "client", "cluster", "config", "doctor", "server"]),
    ("bench", &["client", "config", "frame"]),
    ("client", &["config"]),
    ("doctor", &["config", "cgroup", "descriptors", "limits"]),
    (
        "server",
        &[
            "cgroup",
            "cluster",
            "config",
            "control",
            "descriptors",
            "reactor",
            "router",
            "conn",
            "compress",
            "ids",
            "limits",
            "metrics",
            "time",
        ],
    ),
    ("control", &["limits", "metrics"]),
    ("cluster", &["config", "reactor", "router", "compress", "protocol", "frame", "ids", "limits", "metrics", "time"]),
    ("config", &["limits"]),
    ("reactor", &["router", "conn", "compress", "protocol", "frame", "ids", "limits", "metrics", "time"]),
    ("router", &["compress", "protocol", "frame", "ids", "limits", "time"]),
    ("conn", &["compress", "frame", "limits", "time"]),
    ("compress", &["frame", "limits"]),
    ("protocol", &["limits"]),
    ("metrics", &["limits"]),
    ("frame", &["limits"]),
    ("ids", &["limits"]),
    ("time", &["limits"]),
    ("descriptors", &["limits"]),
    ("cgroup", &[]),
    ("limits", &[]),
];

#[test]
fn imports_run_downward_only() {
    let layers: BTreeMap<&str, BTreeSet<&str>> =
        LAYERS.iter().map(|(layer, below)| (*layer, below.iter().copied().collect())).collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&source, &mut files);
    assert!(files.len() > 30, "the sources are found");
    let mut seen = BTreeSet::new();
    for file in files {
        let inside = file.strip_prefix(&source).unwrap();
        let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
        let module = first.trim_end_matches(".rs");
        if module == "lib" {
            continue;
        }
        let allowed = layers.get(module).unwrap_or_else(|| panic!("{module} is in no layer"));
        for used in imports(&fs::read_to_string(&file).unwrap()) {
            seen.insert((module.to_owned(), used.clone()));
            assert!(used == module || allowed.contains(used.as_str()), "{}: {module} imports {used}", file.display());
        }
    }
    assert!(seen.contains(&("reactor".to_owned(), "router".to_owned())), "imports are found: {seen:?}");
}

#[test]
fn the_layers_have_no_cycle() {
    for (at, (layer, below)) in LAYERS.iter().enumerate() {
        for lower in *below {
            let place = LAYERS.iter().position(|(name, _)| name == lower).expect("a layer");
            assert!(place > at, "{layer} imports {lower}, which stands above it");
        }
    }
}

#[test]
fn the_pure_layers_see_no_descriptor_clock_or_thread() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let impure = [
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
    let pure =
        ["conn", "router", "protocol", "time", "frame.rs", "ids.rs", "cgroup.rs", "descriptors.rs", "doctor/checks"];
    for layer in
        pure.into_iter().chain(["cluster/core", "cluster/follower.rs", "cluster/record.rs", "cluster/names.rs"])
    {
        let mut files = Vec::new();
        rust_files(&source.join(layer), &mut files);
        assert!(!files.is_empty(), "{layer} is found");
        for file in files {
            let text = fs::read_to_string(&file).unwrap();
            for word in impure {
                assert!(!code(&text).any(|line| line.contains(word)), "{} mentions {word}", file.display());
            }
        }
    }
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

/// Lines that are no comments.
fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim_start().starts_with("//"))
}

/// The modules named behind `crate::` (or `fanfare::`, in the binary).
fn imports(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in code(text) {
        for root in ["crate::", "fanfare::"] {
            for (at, _) in line.match_indices(root) {
                let rest = &line[at + root.len()..];
                let names = match rest.strip_prefix('{') {
                    Some(group) => group.split(',').collect(),
                    None => vec![rest],
                };
                for name in names {
                    let end = name.trim_start().find(|letter: char| !(letter.is_alphanumeric() || letter == '_'));
                    let name = name.trim_start();
                    found.insert(name[..end.unwrap_or(name.len())].to_owned());
                }
            }
        }
    }
    found.retain(|name| !name.is_empty());
    found
}
