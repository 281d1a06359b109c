//! The documents say what the software does: code blocks, tables and links are compared with the sources.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use fanfare::conn::{CloseReason, PeerError};
use fanfare::protocol::ERROR_CODES;

/// Folders whose documents are checked.
const FOLDERS: &[&str] = &["", "deploy", "docs", "docs/benchmarks", "docs/internals"];

#[test]
fn the_readme_shows_the_examples_as_they_are() {
    let readme = read("README.md");
    for (language, path) in [
        ("html", "examples/clients/browser.html"),
        ("js", "examples/clients/node.mjs"),
        ("python", "examples/clients/python_client.py"),
        ("rust", "examples/client.rs"),
    ] {
        let block = format!("\n```{language}\n{}```\n", read(path));
        assert!(readme.contains(&block), "README.md shows another text than {path}");
    }
}

#[test]
fn the_backend_document_shows_the_example_as_it_is() {
    let block = format!("\n```python\n{}```\n", read("examples/backend.py"));
    assert!(read("docs/backend.md").contains(&block), "docs/backend.md shows another text than examples/backend.py");
}

#[test]
fn the_webhooks_document_shows_the_examples_as_they_are() {
    let document = read("docs/webhooks.md");
    for (language, path) in [("python", "examples/webhook_receiver.py"), ("js", "examples/webhook_receiver.mjs")] {
        let block = format!("\n```{language}\n{}```\n", read(path));
        assert!(document.contains(&block), "docs/webhooks.md shows another text than {path}");
    }
}

#[test]
fn the_wire_document_lists_every_error_code_and_no_other() {
    let listed: BTreeSet<String> = first_cells(section(&read("docs/wire.md"), "## Errors"))
        .into_iter()
        .filter_map(|cell| Some(cell.strip_prefix('`')?.strip_suffix('`')?.to_owned()))
        .collect();
    let known: BTreeSet<String> = ERROR_CODES.iter().map(|(code, _)| code.as_str().to_owned()).collect();
    assert_eq!(listed, known);
}

#[test]
fn the_wire_document_lists_every_close_code_and_no_other() {
    let listed: BTreeSet<u16> = first_cells(section(&read("docs/wire.md"), "## Closing"))
        .into_iter()
        .filter_map(|cell| cell.parse().ok())
        .collect();
    let peer_errors = [PeerError::Unmasked, PeerError::InvalidUtf8, PeerError::RateAbuse, PeerError::MessageTooBig];
    let known: BTreeSet<u16> = peer_errors
        .into_iter()
        .map(CloseReason::Peer)
        .chain([
            CloseReason::GoingAway { retry_ms: 0 },
            CloseReason::AtCapacity,
            CloseReason::SlowConsumer,
            CloseReason::Disconnected,
            CloseReason::Expired,
            CloseReason::TooManyConnections,
            CloseReason::Replaced,
        ])
        .map(CloseReason::code)
        .collect();
    assert_eq!(listed, known);
}

/// A link whose text is the name of a test leads to a file that has it.
#[test]
fn links_lead_somewhere() {
    let root = root();
    let mut links_count = 0;
    for document in &documents() {
        let text = without_code_blocks(&read(document));
        let folder = root.join(document).parent().map(Path::to_owned).expect("a document is in a folder");
        for (label, target) in links(&text) {
            links_count += 1;
            if target.contains("://") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() { root.join(document) } else { folder.join(path) };
            assert!(file.exists(), "{document} links to {target}, which is not there");
            if !anchor.is_empty() {
                let headings = headings(&fs::read_to_string(&file).expect("a document is text"));
                assert!(headings.contains(anchor), "{document} links to {target}, which has no such heading");
            }
            if let Some(name) = label.strip_prefix('`').and_then(|label| label.strip_suffix('`'))
                && path.ends_with(".rs")
                && !name.contains(['/', '.'])
            {
                let source = fs::read_to_string(&file).expect("a source is text");
                assert!(source.contains(&format!("fn {name}(")), "{document} names {name}, which {path} does not have");
            }
        }
    }
    assert!(links_count > 50, "the links are found");
}

/// A row with too many or too few cells is shown as text, or loses some of them.
#[test]
fn every_row_of_a_table_has_as_many_cells_as_its_head() {
    let mut tables_count = 0;
    for document in &documents() {
        let mut cells_of_head = None;
        for line in without_code_blocks(&read(document)).lines() {
            if !line.starts_with('|') {
                cells_of_head = None;
                continue;
            }
            let cells = line.replace("\\|", "").matches('|').count() - 1;
            match cells_of_head {
                None => (cells_of_head, tables_count) = (Some(cells), tables_count + 1),
                Some(expected) => assert_eq!(cells, expected, "{document}: {line}"),
            }
        }
        let text = without_code_blocks(&read(document));
        for table in text.split("\n\n").filter_map(|part| part.trim_start().strip_prefix('|')) {
            let rule = table.lines().nth(1).unwrap_or_default();
            assert!(rule.starts_with("| -") || rule.starts_with("|-"), "{document}: a table without a head: {table}");
        }
    }
    assert!(tables_count > 30, "the tables are found");
}

/// A path in code quotes, of a folder of the sources, leads to a file or a folder.
#[test]
fn paths_in_code_quotes_lead_somewhere() {
    let folders = ["src/", "tests/", "benches/", "deploy/", "docs/", "examples/", "fuzz/"];
    let mut paths_count = 0;
    for document in &documents() {
        let text = without_code_blocks(&read(document));
        for quoted in text.split('`').skip(1).step_by(2) {
            let path = quoted.split([' ', ';', ':']).next().unwrap_or_default();
            let is_made_by_a_run = ["fuzz/corpus", "fuzz/artifacts"].contains(&path);
            if folders.iter().any(|folder| path.starts_with(folder)) && !is_made_by_a_run {
                paths_count += 1;
                assert!(root().join(path).exists(), "{document} names {path}, which is not there");
            }
        }
    }
    assert!(paths_count > 50, "the paths are found");
}

/// All documents, by their paths.
fn documents() -> BTreeSet<String> {
    FOLDERS
        .iter()
        .flat_map(|folder| {
            let names = fs::read_dir(root().join(folder)).expect("a folder of the sources");
            names.map(move |name| Path::new(folder).join(name.expect("an entry").file_name()))
        })
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn the_contributing_document_names_every_suite_and_no_other() {
    let mut suites = BTreeSet::new();
    for entry in fs::read_dir(root().join("tests")).expect("the tests") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|extension| extension == "rs") || path.join("main.rs").exists() {
            suites.insert(path.file_stem().expect("a name").to_string_lossy().into_owned());
        }
    }
    // One is run by a script, which says how many episodes.
    let suite = |cell: &str| {
        let command = cell.strip_prefix('`')?.strip_suffix('`')?;
        let script = command.strip_prefix("tests/").and_then(|path| path.strip_suffix("/run"));
        let name = command.strip_prefix("cargo test --test ").or(script.filter(|name| suites.contains(*name)))?;
        Some(name.to_owned())
    };
    let contributing = read("CONTRIBUTING.md");
    let named: BTreeSet<String> =
        first_cells(section(&contributing, "## Test")).into_iter().filter_map(suite).collect();
    assert_eq!(named, suites);
}

#[test]
fn the_contributing_document_names_every_fuzz_target_and_no_other() {
    let manifest = read("fuzz/Cargo.toml");
    let targets: BTreeSet<&str> = manifest
        .split("[[bin]]")
        .skip(1)
        .map(|target| target.split('"').nth(1).expect("a target's name stands first"))
        .collect();
    let contributing = read("CONTRIBUTING.md");
    let named: BTreeSet<&str> = first_cells(section(&contributing, "## Fuzzing"))
        .into_iter()
        .filter_map(|cell| cell.strip_prefix('`')?.strip_suffix('`'))
        .collect();
    assert_eq!(named, targets);
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The lines from a heading to the next one of its level.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading}")) + 1;
    let end = text[start..].find("\n## ").map_or(text.len(), |end| start + end);
    &text[start..end]
}

/// The first cell of every row of the tables.
fn first_cells(text: &str) -> Vec<&str> {
    text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).collect()
}

fn without_code_blocks(text: &str) -> String {
    let mut inside = false;
    let mut kept = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// The label and target of every `[label](target)`.
fn links(text: &str) -> Vec<(&str, &str)> {
    text.match_indices("](")
        .filter_map(|(middle, _)| {
            let label = text[..middle].rfind('[').map(|start| &text[start + 1..middle])?;
            let rest = &text[middle + 2..];
            Some((label, &rest[..rest.find(')')?]))
        })
        .collect()
}

/// The anchors of a document's headings: lower case, hyphens for spaces, nothing but letters, digits and hyphens.
fn headings(text: &str) -> BTreeSet<String> {
    without_code_blocks(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let name = line.trim_start_matches('#').trim().to_lowercase();
            name.chars()
                .map(|letter| if letter == ' ' { '-' } else { letter })
                .filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_'))
                .collect()
        })
        .collect()
}
