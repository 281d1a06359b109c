//! The load generator finds what a server does wrong, and finds nothing where it does right.

mod centrifugo;
mod exchange;
mod faulty;
mod market;
mod tokens;

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use fanfare_testing::Server;
use serde_json::Value;

use faulty::{Deflate, Fault, Manners};

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

    /// Missing, doubled, reordered, misrouted, altered, ended, refused.
    fn faults(&self) -> [u64; 7] {
        let report = self.report();
        ["missing", "doubled", "reordered", "misrouted", "altered", "ended", "refused"]
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
        assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_dropped_message_is_missing() {
    for arguments in [FANOUT, ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Drop), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [1, 0, 0, 0, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_repeated_message_is_doubled() {
    for arguments in [FANOUT, ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Double), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [0, 1, 0, 0, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_swapped_message_is_reordered() {
    for arguments in [FANOUT, ROOMS] {
        let ran = bench(faulty::start(Fault::Swap), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [0, 0, 1, 0, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn a_message_for_someone_else_is_misrouted() {
    for arguments in [ROOMS, PRIVATE] {
        let ran = bench(faulty::start(Fault::Misroute), arguments);
        assert_eq!((ran.code, ran.faults()), (Some(1), [1, 0, 0, 1, 0, 0, 0]), "{arguments}: {}", ran.out);
    }
}

#[test]
fn an_ended_connection_and_a_refused_command_are_faults() {
    let ran = bench(faulty::start(Fault::Close), FANOUT);
    let [_, doubled, reordered, misrouted, altered, ended, refused] = ran.faults();
    assert_eq!((ran.code, ended), (Some(1), 1), "{}", ran.out);
    assert_eq!((doubled, reordered, misrouted, altered, refused), (0, 0, 0, 0, 0), "{}", ran.out);
    let ran = bench(faulty::start(Fault::End), FANOUT);
    let [_, _, _, _, altered, ended, _] = ran.faults();
    assert_eq!((ran.code, altered, ended), (Some(1), 0, 1), "an end behind the last bytes: {}", ran.out);
    let ran = bench(faulty::start(Fault::Refuse), FANOUT);
    assert_eq!((ran.code, ran.faults()), (Some(1), [0, 0, 0, 0, 0, 0, 1]), "{}", ran.out);
    assert!(ran.out.contains("rate_limited"), "{}", ran.out);
}

/// Enough messages for a fault behind those that every connection has compared.
const DEFLATED: &str = "fanout --connections 5 --outstanding 4 --messages 100 --deflate --json";

#[test]
fn compressed_messages_are_counted_and_some_are_compared() {
    for deflate in [Deflate::Alone, Deflate::Window] {
        let ran = bench(faulty::start_with(Manners { deflate, ..Manners::default() }), DEFLATED);
        assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{deflate:?}: {}", ran.out);
        let median = &ran.report()["median"];
        assert_eq!(median["compressed_percent"], 100.0, "{deflate:?}: {median}");
        // All hundred of the first connection and four of each other: a few more of each may come before the end.
        let inflated = median["inflated_percent"].as_f64().expect("a share");
        assert!((20.0..30.0).contains(&inflated), "{deflate:?}: {median}");
        let bytes = median["received_bytes_each"].as_f64().expect("a size");
        assert!((100.0..450.0).contains(&bytes), "512 bytes of JSON compress: {deflate:?}: {median}");
    }
}

#[test]
fn what_is_wrong_with_compressed_messages_is_found() {
    // The first user's messages are all compared, the second's only up to the fourth.
    for (fault, victim, fault_at, faults) in [
        (Fault::Alter, "u000000", 50, [0, 0, 0, 0, 1, 0, 0]),
        (Fault::Alter, "u000001", 3, [0, 0, 0, 0, 1, 0, 0]),
        (Fault::Drop, "u000000", 50, [1, 0, 0, 0, 0, 0, 0]),
        (Fault::Drop, "u000001", 50, [1, 0, 0, 0, 0, 0, 0]),
        (Fault::Double, "u000000", 50, [0, 1, 0, 0, 0, 0, 0]),
        (Fault::Swap, "u000000", 50, [0, 0, 1, 0, 0, 0, 0]),
        // Counted as the message that comes next, until there is none.
        (Fault::Double, "u000001", 50, [0, 0, 0, 1, 0, 0, 0]),
    ] {
        for deflate in [Deflate::Alone, Deflate::Window] {
            let ran = bench(faulty::start_with(Manners { fault, victim, fault_at, deflate }), DEFLATED);
            let what = format!("{fault:?} for {victim} at {fault_at}, {deflate:?}: {}", ran.out);
            assert_eq!((ran.code, ran.faults()), (Some(1), faults), "{what}");
        }
    }
    let deflate = Deflate::Alone;
    let ran = bench(faulty::start_with(Manners { fault: Fault::Garble, deflate, ..Manners::default() }), DEFLATED);
    assert_eq!((ran.code, ran.faults()[5]), (Some(1), 1), "{}", ran.out);
    assert!(ran.out.contains("not DEFLATE"), "{}", ran.out);
}

#[test]
fn an_altered_message_is_found_without_compression_too() {
    let plain = "fanout --connections 5 --outstanding 4 --messages 100 --payload json --json";
    let ran = bench(faulty::start_with(Manners { fault: Fault::Alter, fault_at: 50, ..Manners::default() }), plain);
    assert_eq!((ran.code, ran.faults()), (Some(1), [0, 0, 0, 0, 1, 0, 0]), "{}", ran.out);
}

#[test]
fn compression_has_to_be_agreed_on() {
    let refused = "connection 0: the server does not agree to permessage-deflate; turn compression on there\n";
    let unasked = "connection 0: the server sent a compressed message without an agreement\n";
    for (deflate, arguments, why) in
        [(Deflate::Never, DEFLATED.to_owned(), refused), (Deflate::Unasked, DEFLATED.replace("--deflate", ""), unasked)]
    {
        let arguments = format!("{arguments} --handshakes 1");
        let ran = bench(faulty::start_with(Manners { deflate, ..Manners::default() }), &arguments);
        assert_eq!((ran.code, ran.out.as_str(), ran.err), (Some(2), "", format!("fanfare: {why}")), "{deflate:?}");
    }
    let ran = bench(faulty::start_with(Manners { deflate: Deflate::Idle, ..Manners::default() }), DEFLATED);
    assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{}", ran.out);
    assert_eq!(ran.report()["median"]["compressed_percent"], 0.0);
    assert!(ran.out.contains("agreed to compress messages and compressed none"), "{}", ran.out);
}

#[test]
fn attackers_are_counted_until_the_last_is_gone() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--limits.handshake_timeout", "200ms"]);
        let ran = run(&format!(
            "hostile --connections 20 --rate 100 --duration 300ms --dribblers 150 --bombers 2 --fragmenters 2 --bombs 6 \
             --bomb-bytes 8MiB --timeout 30s --json --server-pid {} --url ws://{}",
            server.pid(),
            server.addr(),
        ));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
        let median = &ran.report()["median"];
        for (figure, count) in [
            ("dribblers_left", 0),
            ("bombs_sent", 6),
            ("bombs_closed", 6),
            ("bombs_close_code", 1009),
            ("fragment_bombs_sent", 6),
            ("fragment_bombs_closed", 6),
            ("fragment_bombs_close_code", 1008),
        ] {
            assert_eq!(median[figure], f64::from(count), "{figure}: {median}");
        }
        for figure in ["calm_p99_us", "attacked_p50_us", "attacked_server_busy_percent", "p99_attacked_by_calm"] {
            assert!(median[figure].is_number(), "no {figure} in {median}");
        }
    }
}

/// What greedy clients ask for is what they are told to, and what they get is counted whole.
#[test]
fn greedy_clients_are_counted() {
    // The frame of a command: its header, its mask, its text.
    let frame_bytes = |text: &str| (2 + 4 + text.len()) as u64;
    let history = frame_bytes(r#"{"type":"history","roomId":"greedy"}"#);
    let presence = frame_bytes(r#"{"type":"presence","roomId":"greedy"}"#);
    for (attack, replies, sent_bytes, received_bytes_min) in [
        ("history --attack-commands 1", 1, history, 100 * history),
        ("presence --members 30 --attack-commands 4", 4, 4 * presence, 4 * 30 * 128),
        ("presence --members 30 --attack-commands 4 --attack-deflate", 4, 4 * presence, 1),
    ] {
        let server = Server::start(&["--room", "match=greedy,history.size=1000"]);
        let ran = run(&format!(
            "hostile --connections 5 --rate 100 --duration 300ms --timeout 30s --json --server-pid {} --url ws://{} \
             --attack {attack}",
            server.pid(),
            server.addr(),
        ));
        assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{attack}: {}", ran.out);
        let median = &ran.report()["median"];
        let count = |figure: &str| median[figure].as_f64().unwrap_or_else(|| panic!("no {figure}: {median}")) as u64;
        assert_eq!(count("attackers_sent_bytes"), sent_bytes, "{attack}: {median}");
        let became = ["attackers_replies", "attackers_refused", "attackers_closed", "attackers_cut", "attackers_left"];
        assert_eq!(became.map(count), [replies, 0, 0, 0, 1], "{attack}: {median}");
        assert!(count("attackers_received_bytes") >= received_bytes_min, "{attack}: {median}");
        assert!(median["attacked_resident_grown_bytes"].is_number(), "{attack}: {median}");
    }
}

#[test]
fn busy_clients_always_have_more_to_send() {
    let server = Server::start(&[]);
    let ran = run(&format!(
        "hostile --connections 5 --rate 100 --duration 300ms --timeout 30s --json --attack busy --attackers 2 --url ws://{}",
        server.addr(),
    ));
    assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{}", ran.out);
    let median = &ran.report()["median"];
    let count = |figure: &str| median[figure].as_f64().unwrap_or_else(|| panic!("no {figure}: {median}")) as u64;
    assert!(count("attackers_sent_bytes") > 2 * 128 * 1024, "{median}");
    assert!(count("attackers_replies") > 1_000, "{median}");
    assert_eq!([count("attackers_cut"), count("attackers_left")], [0, 2], "{median}");
    let ran = run("hostile --attack busy --peer-url ws://127.0.0.1:1");
    assert_eq!(
        ran.err,
        "fanfare: --peer-url is for fanout, rooms, latency, market, and --attack presence; leave it out\n"
    );
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
            ("fanout --connections 40 --outstanding 8 --messages 600 --deflate", &["compressed_percent"]),
            ("fanout --connections 40 --duration 100ms --deflate --payload-bytes 4KiB", &["received_bytes_each"]),
            ("rooms --rooms 10 --connections 40 --publishers 3 --messages 500 --deflate", &["inflated_percent"]),
            ("latency --connections 20 --rate 200 --duration 200ms --deflate", &["p99_us", "compressed_percent"]),
            ("idle --connections 60 --base 20 --rooms 4 --duration 50ms --deflate", &["unanswered"]),
            ("connect --connections 80 --handshakes 8 --warmup 10ms --deflate", &["connections_per_s"]),
            ("storm --connections 60 --rooms 3 --publishers 2 --rounds 3 --deflate", &["opened_ms", "served_ms"]),
        ] {
            let ran = bench(server.addr(), &format!("{arguments} --json"));
            assert_eq!((ran.code, ran.err.as_str()), (Some(0), ""), "{arguments}: {}", ran.out);
            assert_eq!(ran.faults(), [0; 7], "{arguments}");
            for figure in figures {
                assert!(ran.report()["median"][figure].is_number(), "{arguments}: no {figure} in {}", ran.out);
            }
            if let Some(compressed) = ran.report()["median"]["compressed_percent"].as_f64() {
                assert!(compressed > 90.0, "{arguments}: {}", ran.out);
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
        ("", "bench needs a scenario: fanout, rooms, private, echo, idle, connect, resume, latency, storm, hostile, logins, market".to_owned()),
        ("fanuot", "unknown scenario \"fanuot\"; did you mean fanout?".to_owned()),
        ("fanout --conections 5", "unknown flag --conections; did you mean --connections?".to_owned()),
        ("fanout --rounds many", "--rounds: \"many\" is no whole number; write 1 to 1000".to_owned()),
        ("rooms --rooms 7", "--connections 10000 do not fill --rooms 7 evenly; write a multiple".to_owned()),
        ("fanout --publishers 2", "--publishers 2 are more than --rooms 1; write at most as many".to_owned()),
        ("fanout --payload json --payload-bytes 200", "--payload json needs --payload-bytes 256 or more".to_owned()),
        (
            "private --deflate",
            "private has no --deflate and no --payload: who sent a message stands in it, so each has to be read"
                .to_owned(),
        ),
        ("hostile --messages 5", "--messages: hostile takes its time; write --duration instead".to_owned()),
        ("logins --messages 5", "--messages: logins takes its time; write --duration instead".to_owned()),
        ("fanout --join", "--join is for connect; leave it out".to_owned()),
        (
            "fanout --ca /nowhere",
            "--ca is for wss:// URLs, and ws://127.0.0.1:8080/ has no TLS; leave it out".to_owned(),
        ),
        (
            "private --token a.b.c",
            "private needs users of their own, and a token makes all one; give --token-secret-file instead".to_owned(),
        ),
        (
            "fanout --token-alg ES256",
            "--token-alg and --token-kid are about a key; name one with --token-secret-file or --token-key-file"
                .to_owned(),
        ),
        (
            "fanout --token-secret short",
            "the key to make tokens with: the secret has 5 bytes, few enough to be guessed; make one of at least 32 with \
             `openssl rand -base64 48`"
                .to_owned(),
        ),
        (
            "fanout --url http://h",
            "--url: \"http://h\" is not how a WebSocket is named; write ws:// in place of http://".to_owned(),
        ),
        (
            "fanout --url ws://127.0.0.1:1/?token=secret",
            "--url: ws://127.0.0.1:1/ has a query, where bench puts its own; leave it out".to_owned(),
        ),
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

/// The campaign against hostile clients runs and has a row for each attack. What it says does not matter here.
#[test]
fn the_campaign_runs() {
    let ran = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/hostile/run"))
        .args(["--smoke", "--only", "history", "--only", "presence-cluster", "--only", "busy-5"])
        .env("FANFARE_BIN", env!("CARGO_BIN_EXE_fanfare"))
        .output()
        .expect("Python runs");
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{out}{err}");
    for attack in ["(`history`) |", "(`presence-cluster`) |", "(`busy-5`) |"] {
        assert_eq!(out.matches(attack).count(), 1, "{attack}: {out}{err}");
    }
    assert!(!out.contains("**"), "who behaves gets everything: {out}");
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
    let of_fanfare = |workload: &str| &results["results"][workload]["fanfare"][0];
    let plain = [
        ["fanout-1", "fanout-32", "fanout-10000", "rooms", "private", "latency", "connect"],
        ["idle", "echo-512-1", "echo-4096-1", "echo-16384-1", "echo-512-16", "echo-4096-16", "echo-again"],
    ]
    .concat();
    let deflated = ["deflate-512", "deflate-4096"];
    for workload in plain.iter().copied().chain(deflated) {
        assert_eq!(of_fanfare(workload)["exit_code"], 0, "{workload}: {}", of_fanfare(workload));
    }
    for workload in deflated {
        let (compressed, own) = (of_fanfare(workload), of_fanfare(&format!("{workload}-plain")));
        assert_eq!((&compressed["settings"]["deflate"], &own["settings"]["deflate"]), (&true.into(), &false.into()));
        assert_eq!(compressed["settings"]["payload_bytes"], own["settings"]["payload_bytes"]);
        let bytes = |run: &Value| run["median"]["received_bytes_each"].as_f64().expect("a size");
        assert!(bytes(compressed) < bytes(own), "{workload}: {compressed} {own}");
    }
    let tables = plain.len() + 1 + deflated.len();
    assert_eq!(page.matches("\n| fanfare |").count(), tables, "one each, and two for latency");
    for server in ["fanfare", "fanfare-hs256", "fanfare-es256", "fanfare-eddsa"] {
        let ran = &results["results"]["login"][server][0];
        assert_eq!((&ran["exit_code"], &ran["settings"]["join"]), (&0.into(), &true.into()), "{server}: {ran}");
        let tokens = if server == "fanfare" { "none" } else { "minted" };
        assert_eq!(ran["settings"]["tokens"], tokens, "{server}");
    }
    assert!(page.contains("\n| fanfare, EdDSA |"), "{page}");
    assert!(page.contains("× own plain"), "{page}");
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

#[test]
fn those_who_come_back_to_fanfare_get_what_they_missed() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--room", "match=r*,history.size=200"]);
        for deflate in ["", "--deflate"] {
            let arguments = format!("resume --connections 30 --missed 150 --rounds 2 {deflate} --json");
            let ran = bench(server.addr(), &arguments);
            assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{arguments}: {} {}", ran.out, ran.err);
        }
        // No more than is kept can be recovered, and then nothing is.
        let ran = bench(server.addr(), "resume --connections 3 --missed 201 --json");
        assert_eq!((ran.code, ran.faults()[0]), (Some(1), 3 * 201), "{} {}", ran.out, ran.err);
    }
    let ran = bench(Server::start(&[]).addr(), "resume --connections 3 --json");
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.contains("keeps no history"), "{}", ran.err);
}

#[test]
fn echoes_come_back_or_are_faults() {
    let server = Server::with_reactors(2, &["--echo", "/echo"]);
    let at = |path: &str, arguments: &str| {
        run(&format!("echo --json --timeout 1s --connections 20 {arguments} --url ws://{}{path}", server.addr()))
    };
    for arguments in ["--messages 500", "--outstanding 16 --messages 500", "--each 10 --messages 500 --rounds 2"] {
        let ran = at("/echo", arguments);
        assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{arguments}: {} {}", ran.out, ran.err);
    }
    let ran = at("/raw/den", "--messages 500");
    assert_eq!(ran.code, Some(1), "others' messages are none of its own: {} {}", ran.out, ran.err);
    assert!(ran.faults()[4] > 0, "altered: {}", ran.out);
}

#[test]
fn publishers_can_sit_at_another_node() {
    let redis = fanfare_testing::Redis::start();
    let nodes = [0, 1].map(|_| Server::start(&["--redis.url", &redis.url()]));
    for scenario in ["fanout --connections 5 --messages 50", "latency --connections 5 --rate 100 --duration 200ms"] {
        let ran = run(&format!(
            "{scenario} --json --timeout 10s --url ws://{} --peer-url ws://{}",
            nodes[0].addr(),
            nodes[1].addr()
        ));
        assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{scenario}: {} {}", ran.out, ran.err);
    }
    let ran = bench(nodes[0].addr(), "storm --connections 5 --peer-url ws://127.0.0.1:1");
    assert_eq!(ran.code, Some(2));
    assert!(ran.err.contains("--peer-url is for"), "{}", ran.err);
}
