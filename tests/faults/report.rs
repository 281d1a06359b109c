//! What a run came to, as Markdown.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::audit::{Outcome, Publish};
use super::director::Record;
use super::judge::Verdict;
use super::plan::Kind;

/// The figures of a run, and what was found in words.
pub fn report(command: &str, nodes: usize, record: &Record, verdict: &Verdict) -> String {
    let mut text = format!("`{command}`: {} episodes on {nodes} nodes.\n\n", record.kinds.len());
    text.push_str("| episodes | of | caught up after at most | usually |\n| ---: | --- | ---: | ---: |\n");
    let mut kinds: BTreeMap<Kind, (usize, Vec<u64>)> = BTreeMap::new();
    record.kinds.iter().for_each(|kind| kinds.entry(*kind).or_default().0 += 1);
    for (kind, took_ms) in &record.caught_up_ms {
        kinds.entry(*kind).or_default().1.push(*took_ms);
    }
    for (kind, (count, mut times)) in kinds {
        times.sort_unstable();
        let ms = |at: usize| times.get(at).map_or("not waited for".to_owned(), |took_ms| format!("{took_ms} ms"));
        let (longest, median) = (ms(times.len().saturating_sub(1)), ms(times.len() / 2));
        line(&mut text, format_args!("| {count} | {kind} | {longest} | {median} |"));
    }
    let outcomes =
        |wanted: fn(&Outcome) -> bool| record.publishes.iter().filter(|publish| wanted(&publish.outcome)).count();
    let again = record.publishes.iter().filter(|publish: &&Publish| publish.attempts > 1).count();
    let longest_ms = record.caught_up_ms.iter().map(|(_, took_ms)| *took_ms).max().unwrap_or(0);
    text.push_str("\n| figure | |\n| --- | ---: |\n");
    for (name, figure) in [
        ("messages", record.publishes.len() as u64),
        ("acked", outcomes(|outcome| matches!(outcome, Outcome::Acked(_) | Outcome::AckedNowhere)) as u64),
        ("refused", outcomes(|outcome| matches!(outcome, Outcome::Refused(_))) as u64),
        ("outcome unknown", outcomes(|outcome| *outcome == Outcome::Unknown) as u64),
        ("sent more than once by key", again as u64),
        ("unanswered for 6 s on a living connection", u64::from(record.unanswered)),
        ("deliveries to subscribers", verdict.deliveries),
        ("epochs", record.epochs as u64),
        ("told gaps: joins answered `recovered:false`", verdict.told_joins),
        ("told gaps: members", verdict.told_gaps),
        ("of both, within one epoch", verdict.told_within_epoch),
        ("repeats by key in a later epoch", verdict.repeats),
        ("updates of a keyed room", record.market.updates),
        ("acked", record.market.acked),
        ("values shown to its subscribers", record.market.heard),
        ("told gaps: its members", record.market.gaps),
        ("longest time until all have caught up, ms", longest_ms),
        ("**silent gaps**", verdict.silent_gaps),
        ("**messages missing in them**", verdict.messages_missing),
        ("**doubles**", verdict.doubles),
        ("**reorderings**", verdict.reorderings),
        ("**false acks**", verdict.false_acks),
        ("**messages that no publisher sent, or refused ones**", verdict.strangers),
        ("**contradictory answers**", verdict.contradictions),
        ("**told gaps where nothing was gone**", verdict.needless_gaps),
        ("**values older than one that was shown**", record.market.older),
        ("**updates missed by who gets each one**", record.market.missed),
        ("**false acks of updates**", record.market.false_acks),
        ("**one place with two updates, or nodes with other values**", record.market.contradictions),
        ("**last values that never arrived**", record.market.left_behind),
        ("**left behind**", verdict.left_behind + record.failures.len() as u64),
    ] {
        line(&mut text, format_args!("| {name} | {figure} |"));
    }
    if !(record.failures.is_empty() && verdict.findings.is_empty()) {
        text.push_str("\nFound:\n\n");
        for finding in record.failures.iter().chain(&verdict.findings) {
            line(&mut text, format_args!("- {finding}"));
        }
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(text, "{line}").expect("a String takes everything");
}
