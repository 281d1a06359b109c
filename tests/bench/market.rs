//! `market` finds what a server of keyed rooms does wrong, and finds nothing where it does right.

use std::path::Path;
use std::process::Command;
use std::thread;

use fanfare_testing::Server;

use crate::bench;
use crate::exchange::{self, Wrong};

/// Few items, so that each has many updates; the first subscriber wants all but the last two of them.
const ALL: &str = "market --instruments 10 --items 8 --same-items --updates 1000 --duration 400ms --json \
                   --subscribers all=2,latest@40ms=2";
const LATEST: &str = "market --instruments 10 --items 8 --same-items --updates 1000 --batch 5 --duration 1500ms \
                      --json --subscribers latest@40ms=2,all=2";

/// Missing, doubled, reordered, misrouted, altered, hurried, ended, refused.
fn faults(wrong: Wrong, arguments: &str) -> (Option<i32>, [u64; 8], String) {
    let ran = bench(exchange::start(wrong), arguments);
    let kinds = ["missing", "doubled", "reordered", "misrouted", "altered", "hurried", "ended", "refused"];
    let report = ran.report();
    let faults = kinds.map(|kind| report["faults"][kind].as_u64().expect("a count"));
    (ran.code, faults, ran.out)
}

#[test]
fn a_server_that_does_right_has_no_faults() {
    for arguments in [
        ALL.to_owned(),
        LATEST.to_owned(),
        format!("{ALL} --removals 7"),
        format!("{LATEST} --drop-every 20ms --away 30ms --removals 9"),
        format!("{LATEST} --stalled 1"),
        format!("{LATEST} --resilient --publishers 3 --payload json"),
    ] {
        let (code, faults, out) = faults(Wrong::Nothing, &arguments);
        assert_eq!((code, faults), (Some(0), [0; 8]), "{arguments}: {out}");
    }
}

#[test]
fn what_a_server_does_wrong_is_found() {
    let cases = [
        (Wrong::LastValue, LATEST, 0),
        (Wrong::OneUpdate, ALL, 0),
        (Wrong::Snapshot, LATEST, 0),
        (Wrong::Twice, ALL, 1),
        (Wrong::Twice, LATEST, 1),
        (Wrong::Older, ALL, 2),
        (Wrong::Older, LATEST, 2),
        (Wrong::Unwanted, ALL, 3),
        (Wrong::Unwanted, LATEST, 3),
        (Wrong::Seq, ALL, 4),
        (Wrong::Seq, LATEST, 4),
        (Wrong::Hurry, LATEST, 5),
        (Wrong::Close, ALL, 6),
    ];
    // Most of their time they wait.
    thread::scope(|scope| {
        for (wrong, arguments, kind) in cases {
            scope.spawn(move || {
                let (code, faults, out) = faults(wrong, arguments);
                assert!(code == Some(1) && faults[kind] > 0, "{wrong:?}, {arguments}: {faults:?} {out}");
            });
        }
    });
}

/// Of every kind of subscriber at once, on one reactor and on two, with a history and without.
#[test]
fn fanfare_does_right() {
    for (reactors, room) in [(1, "match=r*,keyed=true"), (2, "match=r*,keyed=true,history.size=1000")] {
        let server = Server::with_reactors(reactors, &["--room", room, "--rooms.notice_members_max", "0"]);
        for (arguments, figures) in [
            ("--subscribers all=5,latest@50ms=20,latest=5", &["p99_us", "all_p50_us", "updates_wanted_each"][..]),
            ("--items 7 --batch 10 --removals 5 --publishers 3 --subscribers all=5,latest@50ms=20", &["latest_p99_us"]),
            ("--batch 10 --drop-every 10ms --away 50ms --subscribers latest@50ms=20,all=5", &["recovery_by_snapshot"]),
            ("--batch 50 --instruments 500 --stalled 5 --subscribers latest@50ms=20", &["p99_stalled_by_calm"]),
            (
                "--batch 10 --resilient --removals 9 --drop-every 20ms --subscribers latest@50ms=20,latest=2",
                &["recoveries"],
            ),
            ("--deflate --subscribers all=5,latest@50ms=20", &["compressed_percent"]),
        ] {
            let arguments = format!("market --updates 1000 --duration 700ms --timeout 20s --json {arguments}");
            let ran = crate::run(&format!("{arguments} --url ws://{}", server.addr()));
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments}: {}", ran.out);
            for figure in figures {
                assert!(ran.report()["median"][figure].is_number(), "{arguments}: no {figure} in {}", ran.out);
            }
        }
    }
}

/// The campaign runs and has a row for each. What it says does not matter here.
#[test]
fn the_campaign_of_markets_runs() {
    let ran = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/market/run"))
        .args(["--smoke", "--only", "all-latest", "--only", "stalled"])
        .env("FANFARE_BIN", env!("CARGO_BIN_EXE_fanfare"))
        .output()
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    for row in ["(`all-latest`) |", "(`stalled`) |"] {
        assert_eq!(out.matches(row).count(), 1, "{row}: {out}{err}");
    }
}

/// A room that is not keyed is told before anything is measured.
#[test]
fn a_room_that_is_not_keyed_is_no_market() {
    let server = Server::start(&[]);
    let ran = bench(server.addr(), "market");
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("bad_options") && ran.err.contains("--room 'match=r*,keyed=true'"), "{}", ran.err);
}

/// One update that is left out is no fault where only the newest is asked for.
#[test]
fn conflation_is_no_fault() {
    let (code, faults, out) = faults(Wrong::OneUpdate, LATEST);
    assert_eq!((code, faults), (Some(0), [0; 8]), "{out}");
}

/// What two who come back get is told beside what those get who were not here before.
#[test]
fn returns_are_counted() {
    let arguments = format!("{LATEST} --drop-every 10ms --away 20ms");
    let ran = bench(exchange::start(Wrong::Nothing), &arguments);
    let median = &ran.report()["median"];
    for figure in ["snapshots", "snapshot_bytes_each", "recoveries", "recovery_by_snapshot", "return_p50_us"] {
        assert!(median[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {median}");
    }
    assert!(median["snapshot_messages_each"].as_f64().is_some_and(|count| count <= 8.0), "{median}");
}

#[test]
fn what_cannot_be_measured_is_said() {
    for (arguments, line) in [
        (
            "market --subscribers all",
            "--subscribers: \"all\" is no group of subscribers; write all=10, latest=10 or latest@100ms=10",
        ),
        ("market --items 200", "--items 200 are more than --instruments 100; write at most as many"),
        ("market --publishers 200", "--publishers 200 are more than --instruments 100; write less"),
        ("market --stalled 100", "--stalled 100 leaves no subscriber to be measured; write less"),
        ("market --subscribers latest@9s=5", "--timeout 5s is over before an interval of 9000 ms; write more"),
        ("market --rooms 2", "--rooms: market has one room; leave it out"),
    ] {
        let ran = crate::run(arguments);
        assert_eq!((ran.code, ran.err), (Some(2), format!("fanfare: {line}\n")), "{arguments}");
    }
}
