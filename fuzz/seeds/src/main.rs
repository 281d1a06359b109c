//! Writes the first inputs of the fuzz targets: `fanfare-seeds FOLDER` makes `FOLDER/TARGET/seed-NAME`.
//!
//! Each is something that a client may well send, or nearly so, under a name that says what it is. The engine makes
//! the rest from them.

mod assembly;
mod commands;
mod frames;
mod handshake;
mod inflate;
mod keyed;
mod offers;
mod operations;
mod proxy;
mod tokens;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

/// An input's name and its bytes.
type Seed = (&'static str, Vec<u8>);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder] = arguments.as_slice() else {
        eprintln!("fanfare-seeds: give the folder of the corpus, like fuzz/corpus");
        return ExitCode::FAILURE;
    };
    let targets = [
        ("assembly", assembly::seeds()),
        ("commands", commands::seeds()),
        ("frames", frames::seeds()),
        ("handshake", handshake::seeds()),
        ("inflate", inflate::seeds()),
        ("keyed", keyed::seeds()),
        ("offers", offers::seeds()),
        ("operations", operations::seeds()),
        ("proxy", proxy::seeds()),
        ("tokens", tokens::seeds()),
    ];
    for (target, seeds) in targets {
        if let Err(error) = write(&Path::new(folder).join(target), &seeds) {
            eprintln!("fanfare-seeds: cannot write the seeds of {target} into {folder}: {error}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

/// Writes the seeds, and takes away those of an earlier version.
fn write(folder: &Path, seeds: &[Seed]) -> std::io::Result<()> {
    fs::create_dir_all(folder)?;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("seed-") {
            fs::remove_file(entry.path())?;
        }
    }
    for (name, bytes) in seeds {
        fs::write(folder.join(format!("seed-{name}")), bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct() {
        let small = [assembly::seeds(), commands::seeds(), frames::seeds(), handshake::seeds(), inflate::seeds()];
        for seeds in small.into_iter().chain([keyed::seeds(), offers::seeds(), operations::seeds(), proxy::seeds()]) {
            let mut names: Vec<&str> = seeds.iter().map(|(name, _)| *name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), seeds.len());
        }
    }
}
