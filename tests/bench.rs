//! The load generator finds what a server does wrong, and finds nothing where it does right.

mod common;
#[path = "bench/faulty.rs"]
mod faulty;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use common::Server;
use faulty::Fault;

/// What a run said: exit code, stdout, stderr.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn report(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {} {}", self.out, self.err))
    }

    /// Missing, doubled, reordered, misrouted, ended, refused.
    fn faults(&self) -> [u64; 6] {
        let report = self.report();
        ["missing", "doubled", "reordered", "misrouted", "ended", "refused"]
            .map(|kind| report["faults"][kind].as_u64().expect("a count"))
    }
}

fn bench(address: SocketAddr, arguments: &str) -> Ran {
    run(&format!("{arguments} --url ws://{address} --timeout 1s"))
}

fn run(arguments: &str) -> Ran {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_fanfare"))
        .arg("bench")
        .args(arguments.split_whitespace())
        .stdin(Stdio::null())
        .output()
        .expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran { code: status.code(), out: text(stdout), err: text(stderr) }
}

/// Runs in which the first user gets enough deliveries for the fault to happen before anyone waits for any other.
const FANOUT: &str = "fanout --connections 5 --outstanding 4 --messages 100 --json";
const ROOMS: &str = "rooms --rooms 2 --connections 6 --publishers 2 --outstanding 4 --messages 200 --json";
const PRIVATE: &str = "private --connections 4 --outstanding 16 --messages 400 --json";

#[test]
fn a_server_without_faults_has_none() {
    for arguments in [FANOUT, ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::None), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(0), [0; 6]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_dropped_message_is_missing() {
    for arguments in [FANOUT, ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Drop), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [1, 0, 0, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_repeated_message_is_doubled() {
    for arguments in [FANOUT, ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Double), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [0, 1, 0, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_swapped_message_is_reordered() {
    for arguments in [FANOUT, ROOMS] {
        let ran = bench(faulty::start(Fault::Swap), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [0, 0, 1, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_message_for_someone_else_is_misrouted() {
    for arguments in [ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Misroute), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [1, 0, 0, 1, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn an_ended_connection_and_a_refused_command_are_faults() {
    let ran = bench(faulty::start(Fault::Close), FANOUT);
    let [_, doubled, reordered, misrouted, ended, refused] = ran.faults();
    assert_eq!((ran.code, ended), (Some(1), 1), "{}", ran.out);
    assert_eq!((doubled, reordered, misrouted, refused), (0, 0, 0, 0), "{}", ran.out);
    let ran = bench(faulty::start(Fault::Refuse), FANOUT);
    assert_eq!((ran.code, ran.faults()), (Some(1), [0, 0, 0, 0, 0, 1]), "{}", ran.out);
    assert!(ran.out.contains("rate_limited"), "{}", ran.out);
}

#[test]
fn faults_are_told_to_people_too() {
    let ran = bench(faulty::start(Fault::Double), &FANOUT.replace("--json", ""));
    assert_eq!(ran.code, Some(1));
    assert!(ran.out.contains("\n  missing 0, doubled 1, reordered 0,"), "{}", ran.out);
    assert!(ran.out.contains("\n  fault: listener 0 got message 2 again\n"), "{}", ran.out);
    assert_eq!(ran.err, "", "no progress bar where there is no terminal");
}

#[test]
fn fanfare_does_right_in_every_scenario() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--rooms.notice_members_max", "0"]);
        for (arguments, figures) in [
            ("fanout --connections 40 --outstanding 1 --messages 200 --rounds 3", &["deliveries_per_s"][..]),
            ("fanout --connections 40 --outstanding 32 --duration 100ms --payload-bytes 4KiB", &["messages_per_s"]),
            ("rooms --rooms 10 --connections 40 --publishers 3 --messages 500", &["deliveries_per_s"]),
            ("private --connections 30 --messages 2000", &["deliveries_per_s"]),
            ("private --connections 2 --outstanding 1 --messages 50", &["deliveries_per_s"]),
            ("latency --connections 20 --rate 200 --duration 200ms", &["p50_us", "p99_us", "p99_9_us", "max_us"]),
            ("idle --connections 60 --base 20 --rooms 4 --duration 50ms", &["unanswered"]),
            ("connect --connections 80 --handshakes 8 --rounds 2 --warmup 10ms", &["connections_per_s", "p99_us"]),
            ("storm --connections 60 --rooms 3 --publishers 2 --rounds 3", &["opened_ms", "served_ms"]),
        ] {
            let ran = bench(server.addr(), &format!("{arguments} --json"));
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments}: {}", ran.out);
            assert_eq!(ran.faults(), [0; 6], "{arguments}");
            for figure in figures {
                assert!(ran.report()["median"][figure].is_number(), "{arguments}: no {figure} in {}", ran.out);
            }
        }
    }
}

#[test]
fn a_round_ends_with_its_messages() {
    let server = Server::start(&[]);
    let ran = bench(server.addr(), "fanout --connections 7 --messages 50 --rounds 2 --json");
    let report = ran.report();
    for round in report["rounds"].as_array().expect("rounds") {
        let count = |figure: &str| round[figure].as_f64().expect("a rate") * round["seconds"].as_f64().expect("a time");
        assert!(count("messages_per_s").round() >= 50.0, "{report}");
        assert_eq!(count("deliveries_per_s").round() as u64 / 7, count("messages_per_s").round() as u64, "{report}");
    }
}

#[test]
fn the_servers_own_cost_is_reported_where_its_process_is_named() {
    let server = Server::start(&[]);
    let pid = server.pid();
    let ran = bench(server.addr(), &format!("idle --connections 50 --duration 50ms --server-pid {pid} --json"));
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    for figure in ["resident_bytes", "each_connection_bytes", "server_busy_percent", "server_cpu_us_each"] {
        assert!(ran.report()["median"][figure].is_number(), "no {figure} in {}", ran.out);
    }
}

#[test]
fn what_cannot_be_measured_is_said_in_one_line() {
    let nobody = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    for (arguments, line) in [
        ("", "bench needs a scenario: fanout, rooms, private, idle, connect, latency, storm".to_owned()),
        ("fanuot", "unknown scenario \"fanuot\"; did you mean fanout?".to_owned()),
        ("fanout --conections 5", "unknown flag --conections; did you mean --connections?".to_owned()),
        ("fanout --rounds many", "--rounds: \"many\" is no whole number; write 1 to 1000".to_owned()),
        ("rooms --rooms 7", "--connections 10000 do not fill --rooms 7 evenly; write a multiple".to_owned()),
        ("fanout --publishers 2", "--publishers 2 are more than --rooms 1; write at most as many".to_owned()),
        ("fanout --url http://h", "--url: \"http://h\" is no ws:// URL; write ws://HOST:PORT".to_owned()),
        (
            "fanout --server-pid 4194304",
            "--server-pid: cannot look at process 4194304: No such file or directory (os error 2); name the server's \
             process"
                .to_owned(),
        ),
        (
            &format!("fanout --url ws://{nobody}"),
            format!(
                "connection 0: cannot connect to ws://{nobody}: Connection refused (os error 111); start the server, or \
                 name it with --url"
            ),
        ),
    ] {
        let Ran { code, out, err } = run(arguments);
        assert_eq!((code, out.as_str(), err), (Some(2), "", format!("fanfare: {line}\n")), "{arguments}");
    }
}

#[test]
fn the_help_lists_scenarios_and_flags() {
    let Ran { code, out, err } = run("--help");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for (_, name, what) in fanfare::bench::SCENARIOS {
        assert!(out.contains(name) && out.contains(what), "{name}: {out}");
    }
    for flag in fanfare::bench::FLAGS {
        assert!(out.contains(&format!("--{} ", flag.name)) && out.contains(flag.help), "{}: {out}", flag.name);
    }
}

/// The comparison with the floor runs and writes its page and chart. What they say does not matter here.
#[test]
fn the_comparison_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compare");
    let ran = Command::new(root.join("benches/compare/run"))
        .args(["--smoke", "--fanfare", env!("CARGO_BIN_EXE_fanfare"), "--floor"])
        .arg(floor())
        .arg("--out")
        .arg(&out)
        .stdin(Stdio::null())
        .output()
        .expect("python3 is installed");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let results: Value =
        serde_json::from_str(&fs::read_to_string(out.join("results.json")).expect("results")).expect("JSON");
    let page = fs::read_to_string(out.join("results.md")).expect("a page");
    let chart = fs::read_to_string(out.join("results.svg")).expect("a chart");
    let workloads = ["fanout-1", "fanout-32", "fanout-10000", "rooms", "private", "latency", "connect", "idle"];
    for workload in workloads {
        let fanfare = &results["results"][workload]["fanfare"][0];
        assert_eq!(fanfare["exit_code"], 0, "{workload}: {fanfare}");
    }
    assert_eq!(page.matches("\n| fanfare |").count(), workloads.len() + 1, "one table each, and two for latency");
    assert!(page.contains("a smoke run") || page.contains("A smoke run"), "{page}");
    assert!(chart.starts_with("<svg ") && chart.trim_end().ends_with("</svg>"));
}

/// The floor, built as these tests are.
fn floor() -> PathBuf {
    let profile = Path::new(env!("CARGO_BIN_EXE_fanfare")).parent().expect("a folder");
    let target = profile.parent().expect("the target folder");
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--example", "floor", "--target-dir"]).arg(target);
    if profile.ends_with("release") {
        build.arg("--release");
    }
    let built = build.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(built.success(), "the floor builds");
    profile.join("examples/floor")
}
