//! Findings for people and for machines.

use std::fmt::Write;

use serde_json::{Value, json};

use super::checks::grouped;
use super::{Finding, Level, bites};
use crate::config::Config;

/// A line for each finding; where it is not good, what it means and how to mend it stand below. A summary at the end.
/// `colour` is for terminals.
pub fn table(findings: &[Finding], config: &Config, colour: bool) -> String {
    let width = findings.iter().map(|finding| finding.check.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Finding { check, level, read, means, bites_from, mend } in findings {
        let word = painted(*level, colour);
        let indent = " ".repeat(width + 9);
        match (level, bites_from) {
            (Level::Good, _) => line(&mut out, format_args!("{word}  {check:width$}  {read}: {means}")),
            (Level::Bites, Some(from)) => {
                let from = grouped(*from);
                line(
                    &mut out,
                    format_args!("{word}  {check:width$}  {read}\n{indent}from {from} connections on: {means}"),
                );
            }
            (Level::Note | Level::Bites, _) => {
                line(&mut out, format_args!("{word}  {check:width$}  {read}\n{indent}{means}"));
            }
        }
        if let Some(mend) = mend {
            line(&mut out, format_args!("{indent}mend: {mend}"));
        }
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let connections = grouped(config.limits.connections_max as u64);
    let verdict = match count(Level::Bites) {
        0 => format!("nothing bites up to limits.connections_max = {connections}"),
        1 => format!("1 setting bites within limits.connections_max = {connections}"),
        more => format!("{more} settings bite within limits.connections_max = {connections}"),
    };
    line(&mut out, format_args!("\n{verdict}; {} to note, {} good", count(Level::Note), count(Level::Good)));
    out
}

/// One JSON object: `bites`, `connections_max`, and the `findings` with `check`, `level`, `read`, `means`,
/// `bites_from` (a number or null) and `mend` (a text or null).
pub fn json(findings: &[Finding], config: &Config) -> String {
    let findings_json: Vec<Value> = findings
        .iter()
        .map(|Finding { check, level, read, means, bites_from, mend }| {
            json!({
                "check": check,
                "level": level.name(),
                "read": read,
                "means": means,
                "bites_from": bites_from,
                "mend": mend,
            })
        })
        .collect();
    let report = json!({
        "bites": bites(findings),
        "connections_max": config.limits.connections_max,
        "findings": findings_json,
    });
    format!("{report:#}\n")
}

fn line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a string takes all that is written");
}

/// The level's word, five wide.
fn painted(level: Level, colour: bool) -> String {
    let word = format!("{:5}", level.name());
    let code = match level {
        Level::Good => "32",
        Level::Note => "33",
        Level::Bites => "1;31",
    };
    match colour {
        true => format!("\x1b[{code}m{word}\x1b[0m"),
        false => word,
    }
}
