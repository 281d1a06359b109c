//! What lies in `deploy/`, run or checked: the proxies in front of two nodes on one Redis, with the very files; the units, the
//! image's steps, compose and Kubernetes files, kernel settings and scripts. The end-to-end suite through the proxies is
//! in `tests/e2e/main.rs`.

mod addresses;
mod containers;
mod machine;
mod reload;
mod routing;
mod units;

use std::process::Command;

/// Runs a program to its end: whether it succeeded, and all that it wrote.
///
/// # Panics
///
/// Where it is not installed.
#[track_caller]
fn run(command: &mut Command) -> (bool, String) {
    let ran = command.output().unwrap_or_else(|error| {
        panic!("{:?} does not start ({error}): run tests/run, which installs it", command.get_program())
    });
    let text = [ran.stdout, ran.stderr].concat();
    (ran.status.success(), String::from_utf8_lossy(&text).into_owned())
}
