//! `fanfare doctor` on recorded machines, good and bad, and on this one.
//!
//! A file in `tests/machines` is a machine as `tail -n +1` prints its files: `==> /proc/sys/fs/nr_open <==`, then
//! what the file holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use fanfare::config::{Config, Pin, Setting, Sources};
use fanfare::doctor::{Finding, Level, Machine, Neighbour, bites, examine, json, table};
use proptest::prelude::*;
use serde_json::Value;

const MACHINES: [&str; 4] = ["tuned-server", "distribution-defaults", "small-container", "virtual-machine"];

/// A recorded machine, read back through the doctor's own reader.
fn recorded(name: &str) -> Machine {
    changed(name, &BTreeMap::new())
}

/// A recorded machine with other values in some files.
fn changed(name: &str, files: &BTreeMap<String, String>) -> Machine {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/machines").join(format!("{name}.txt"));
    let text = std::fs::read_to_string(&source).unwrap_or_else(|error| panic!("{}: {error}", source.display()));
    let serial = NEXT.fetch_add(1, Ordering::Relaxed);
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("machine-{}-{serial}", std::process::id()));
    for file in text.split("==> ").skip(1) {
        let (path, content) = file.split_once(" <==\n").expect("a path between arrows");
        let path: PathBuf = root.join(path.trim_start_matches('/'));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder can be made");
        std::fs::write(path, content.trim_end_matches("\n\n")).expect("a file can be written");
    }
    for (path, content) in files {
        std::fs::write(root.join(path), content).expect("only files that were recorded are changed");
    }
    let machine = Machine::read(&root);
    std::fs::remove_dir_all(root).expect("the folder is ours");
    machine
}

fn config(connections_max: usize) -> Config {
    let mut config = Config::default();
    config.limits.connections_max = connections_max;
    config
}

/// Level and connection count of every check but the good ones without a count.
fn remarkable(findings: &[Finding]) -> BTreeMap<&str, (Level, Option<u64>)> {
    findings
        .iter()
        .filter(|finding| finding.level != Good || finding.bites_from.is_some())
        .map(|finding| (finding.check, (finding.level, finding.bites_from)))
        .collect()
}

fn finding<'a>(findings: &'a [Finding], check: &str) -> &'a Finding {
    findings.iter().find(|finding| finding.check == check).unwrap_or_else(|| panic!("no finding {check}"))
}

use Level::{Bites, Good, Note};

#[test]
fn a_tuned_server_carries_a_million() {
    let findings = examine(&recorded("tuned-server"), &config(1_000_000));
    assert!(!bites(&findings), "{}", table(&findings, &config(1_000_000), false));
    let expected = [
        ("descriptors_hard", (Good, Some(2_095_649))),
        ("descriptors_nr_open", (Good, Some(2_095_649))),
        ("ports", (Note, None)),
        ("tcp_mem", (Good, Some(4_000_001))),
        ("memory", (Good, Some(8_512_753))),
        ("queue_memory", (Good, Some(6_295_890))),
    ];
    assert_eq!(remarkable(&findings), expected.into());
}

#[test]
fn the_defaults_of_a_distribution_bite_early() {
    let findings = examine(&recorded("distribution-defaults"), &config(50_000));
    let expected = [
        ("descriptors_hard", (Bites, Some(3_013))),
        ("descriptors_nr_open", (Good, Some(1_047_089))),
        ("descriptors_file_max", (Bites, Some(29_201))),
        ("backlog", (Bites, Some(513))),
        ("syn_backlog", (Note, None)),
        ("ports", (Note, None)),
        ("tw_reuse", (Note, None)),
        ("tcp_mem", (Bites, Some(36_001))),
        ("send_buffers", (Note, None)),
        ("conntrack", (Bites, Some(32_459))),
        ("nic_queues", (Note, None)),
        ("memory", (Good, Some(692_770))),
        ("queue_memory", (Good, Some(420_533))),
        ("swap", (Note, None)),
        ("huge_pages", (Note, None)),
        ("governor", (Note, None)),
        ("idle_states", (Note, None)),
    ];
    assert_eq!(remarkable(&findings), expected.into());
    let mends: BTreeMap<&str, &str> =
        findings.iter().filter_map(|finding| Some((finding.check, finding.mend.as_deref()?))).collect();
    assert_eq!(
        mends["descriptors_hard"],
        "ulimit -Hn 51488   # in the shell that starts it; LimitNOFILE=51488 in a systemd unit"
    );
    assert_eq!(mends["backlog"], "sysctl -w net.core.somaxconn=4096");
    assert_eq!(mends["tcp_mem"], "sysctl -w net.ipv4.tcp_mem=\"100000 150000 200000\"");
    assert_eq!(mends["conntrack"], "sysctl -w net.netfilter.nf_conntrack_max=100620");
    assert_eq!(mends["swap"], "sysctl -w vm.swappiness=1");
    assert_eq!(mends["nic_queues"], "for q in /sys/class/net/enp3s0/queues/rx-*; do echo f > $q/rps_cpus; done");
}

#[test]
fn a_small_container_has_memory_quota_and_threads_of_its_own() {
    let machine = recorded("small-container");
    let findings = examine(&machine, &config(100_000));
    let expected = [
        ("descriptors_hard", (Good, Some(1_047_089))),
        ("descriptors_nr_open", (Good, Some(1_047_089))),
        ("ports", (Note, None)),
        ("tcp_mem", (Note, None)),
        ("send_buffers", (Note, None)),
        ("busy_poll", (Note, None)),
        ("memory", (Bites, Some(70_940))),
        ("queue_memory", (Bites, Some(53_205))),
        ("cpu_quota", (Note, None)),
        ("threads", (Bites, Some(1))),
        ("governor", (Note, None)),
        ("idle_states", (Note, None)),
    ];
    assert_eq!(remarkable(&findings), expected.into());
    assert_eq!(finding(&findings, "cpu_quota").read, "the control group grants 1.500 cores");
    assert_eq!(finding(&findings, "threads").mend.as_deref(), Some("raise pids.max of the control group by 1"));
    // Cores 2 to 5 are what it may use.
    let pinned = Config { pin: Pin::Cores(vec![0, 2]), ..config(100) };
    let findings = examine(&machine, &pinned);
    let pinning = finding(&findings, "pinning");
    assert_eq!((pinning.level, pinning.mend.as_deref()), (Bites, Some("fanfare serve --pin 2,3")));
    let pinned = Config { pin: Pin::Cores(vec![5, 2]), ..config(100) };
    assert!(!bites(&examine(&machine, &pinned)));
}

#[test]
fn a_virtual_machine_is_held_by_its_descriptors() {
    let machine = recorded("virtual-machine");
    assert_eq!(machine.memory.cgroup_bytes, Some(16 << 30), "the group's own limit, two levels down in version 1");
    let biting = |connections_max| {
        let findings = examine(&machine, &config(connections_max));
        findings.iter().filter(|finding| finding.level == Bites).map(|finding| finding.check).collect::<Vec<_>>()
    };
    assert_eq!(biting(18_520), [""; 0]);
    assert_eq!(biting(18_521), ["descriptors_hard"]);
    assert_eq!(biting(262_145), ["descriptors_hard", "conntrack"]);
    assert_eq!(biting(575_803), ["descriptors_hard", "tcp_mem", "conntrack"]);
    assert_eq!(
        biting(10_000_000),
        [
            "descriptors_hard",
            "descriptors_nr_open",
            "descriptors_file_max",
            "tcp_mem",
            "conntrack",
            "memory",
            "queue_memory"
        ]
    );
}

/// On its two cores run another node, whose reactor is pinned, a Redis with a pinned thread, and what keeps to no core:
/// a proxy, and the kernel's own.
#[test]
fn others_on_the_same_cores_are_named() {
    let machine = recorded("virtual-machine");
    let neighbour = |name: &str, pid, reactors, pinned: &[usize]| {
        let (name, pinned) = (name.to_owned(), pinned.to_vec());
        Neighbour { name, pid, reactors, pinned }
    };
    let expected = [neighbour("redis-server", 900, 0, &[1]), neighbour("fanfare", 4711, 1, &[0])];
    assert_eq!(machine.cores.neighbours.as_deref(), Some(&expected[..]));
    let found = |reactors, pin| {
        let findings = examine(&machine, &Config { reactors, pin, ..config(100) });
        let Finding { level, read, means, mend, .. } = finding(&findings, "neighbours").clone();
        assert_eq!(read, "redis-server 900: pinned to 1; fanfare 4711: 1 reactor, pinned to 0");
        (level, means, mend)
    };
    let part = |cores| format!("this node's reactors keep to core {cores} as well: each gets a part of it");
    let unpinned = Some("fanfare serve --pin none".to_owned());
    assert_eq!(found(0, Pin::Auto), (Note, part("0,1"), unpinned.clone()));
    assert_eq!(found(1, Pin::Cores(vec![0])), (Note, part("0"), unpinned));
    assert_eq!(found(1, Pin::Auto), (Good, "there are cores enough for all".to_owned(), None));
    let crowded = "with this node's that is 3 reactors on 2 cores".to_owned();
    assert_eq!(found(2, Pin::None), (Note, crowded, Some("fanfare serve --reactors 1".to_owned())));
    // With cores that nobody keeps to, these.
    let mut wider = machine.clone();
    wider.cores.allowed = vec![0, 1, 2, 3];
    let findings = examine(&wider, &Config { reactors: 2, pin: Pin::Cores(vec![0, 1]), ..config(100) });
    let mend = finding(&findings, "neighbours").mend.clone();
    assert_eq!(mend.as_deref(), Some("fanfare serve --reactors 2 --pin 2,3"));
    let pinning = finding(&findings, "pinning");
    assert_eq!(pinning.level, Good);
    let findings = examine(&wider, &Config { reactors: 2, ..config(100) });
    assert!(finding(&findings, "pinning").means.contains("none is pinned"), "fewer reactors than cores");
    let alone = examine(&recorded("tuned-server"), &config(100));
    assert_eq!(finding(&alone, "neighbours").level, Good);
}

#[test]
fn what_is_configured_is_weighed() {
    let machine = recorded("virtual-machine");
    let mut asked = config(10_000);
    asked.tcp.backlog = 65_535;
    asked.tcp.send_buffer = 64 << 20;
    asked.reactors = 3;
    asked.pin = Pin::None;
    let findings = examine(&machine, &asked);
    let levels = remarkable(&findings);
    // Three listeners of 4096 each: more than the connections there may be.
    assert_eq!(levels["backlog"], (Note, Some(12_289)));
    assert_eq!(levels["send_buffer_cut"], (Note, None));
    assert_eq!(levels["reactors"], (Note, None));
    assert_eq!(levels["pinning"], (Note, None));
    asked.tcp.send_buffer = 16 * 1024;
    assert_eq!(finding(&examine(&machine, &asked), "send_buffers").level, Good, "10,000 times 32 KiB fit");
    asked.outbox.node_bytes_max = 17 << 30;
    let findings = examine(&machine, &asked);
    assert_eq!(remarkable(&findings)["queue_memory"], (Bites, Some(1)));
    let mend = finding(&findings, "queue_memory").mend.clone();
    assert_eq!(mend.as_deref(), Some("fanfare serve --outbox.node_bytes_max 12828141888"));
}

#[test]
fn a_machine_that_hides_everything_bites_nothing() {
    let findings = examine(&Machine::default(), &config(50_000));
    assert!(!bites(&findings));
    let hidden = findings.iter().filter(|finding| finding.read.ends_with("cannot be read here")).count();
    assert_eq!(hidden, 18);
}

/// The commands that a report advises, carried out on the recording and on the configuration, as far as they are no
/// one's but the kernel's and fanfare's.
#[test]
fn what_is_advised_helps() {
    for (machine, connections_max) in MACHINES.iter().flat_map(|machine| [(machine, 50_000), (machine, 3_000_000)]) {
        let findings = examine(&recorded(machine), &config(connections_max));
        let mut files = BTreeMap::new();
        let mut flags = BTreeMap::from([("limits.connections_max", connections_max as u64)]);
        let elsewhere = |finding: &Finding| ["descriptors_hard", "threads"].contains(&finding.check);
        for finding in findings.iter().filter(|finding| finding.level == Bites && !elsewhere(finding)) {
            let mend =
                finding.mend.as_deref().expect("what bites can be mended").split("   #").next().expect("a command");
            if let Some((key, value)) = mend.strip_prefix("sysctl -w ").and_then(|sysctl| sysctl.split_once('=')) {
                let path = format!("proc/sys/{}", key.replace('.', "/"));
                files.insert(path, value.trim_matches('"').to_owned());
            } else if let Some(flag) = mend.strip_prefix("fanfare serve --") {
                let (key, value) = flag.split_once(' ').expect("a value");
                let value: u64 = value.parse().expect("a number");
                let least = flags.get(key).map_or(value, |other| value.min(*other));
                flags.insert(Setting::find(key).expect("a setting").key, least);
            } else {
                panic!("{machine}: {mend} is no command known here");
            }
        }
        let flags =
            flags.into_iter().map(|(key, value)| (Setting::find(key).expect("a setting"), vec![value.to_string()]));
        let (config, _) = Config::load(&Sources { flags: flags.collect(), ..Sources::default() }).expect("all fit");
        let after = examine(&changed(machine, &files), &config);
        let biting: Vec<&Finding> =
            after.iter().filter(|finding| finding.level == Bites && !elsewhere(finding)).collect();
        assert!(biting.is_empty(), "{machine} at {connections_max}: {biting:#?}");
    }
}

#[test]
fn the_report_is_a_table_or_json() {
    let config = config(50_000);
    let findings = examine(&recorded("distribution-defaults"), &config);
    let table = table(&findings, &config, false);
    let lines: Vec<&str> = table.lines().collect();
    let at = lines.iter().position(|line| line.contains("  backlog  ")).expect("a line on the backlog");
    assert_eq!(lines[at], "bites  backlog               net.core.somaxconn 128, tcp.backlog 4,096");
    assert!(lines[at + 1].starts_with("                             from 513 connections on: the kernel cuts"));
    assert_eq!(lines[at + 2], "                             mend: sysctl -w net.core.somaxconn=4096");
    let last = "5 settings bite within limits.connections_max = 50,000; 9 to note, ";
    assert!(lines.last().is_some_and(|line| line.starts_with(last)), "{table}");
    assert!(!table.contains('\x1b'));

    let report: Value = serde_json::from_str(&json(&findings, &config)).expect("JSON");
    assert_eq!(report["bites"], true);
    assert_eq!(report["connections_max"], 50_000);
    assert_eq!(report["findings"].as_array().map(Vec::len), Some(findings.len()));
    let soft = &report["findings"][0];
    assert_eq!((&soft["check"], &soft["level"]), (&"descriptors_soft".into(), &"good".into()));
    assert_eq!((&soft["bites_from"], &soft["mend"]), (&Value::Null, &Value::Null));
}

#[test]
fn the_command_examines_this_machine() {
    let doctor = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanfare"));
        let output = command.arg("doctor").args(args).env_clear().output().expect("the binary should run");
        let code = output.status.code();
        (code, String::from_utf8(output.stdout).expect("text"), String::from_utf8(output.stderr).expect("text"))
    };
    let (code, text, complaint) = doctor(&["--json", "--limits.connections_max", "1"]);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{complaint}"));
    assert_eq!((code, report["connections_max"].as_u64()), (Some(i32::from(report["bites"] == true)), Some(1)));
    let (code, text, _) = doctor(&["--limits.connections_max", "10000000"]);
    assert_eq!(code, Some(1), "no machine of today carries ten million: {text}");
    assert!(!text.contains('\x1b'), "colours are for terminals");
    let (code, _, complaint) = doctor(&["--limits.connections_max", "many"]);
    assert_eq!((code, complaint.lines().count()), (Some(2), 1));
}

proptest! {
    /// A finding that counts connections bites exactly from there on, and what it says of the count does not depend on
    /// how many are configured.
    #[test]
    fn it_bites_from_where_it_says(machine in 0..MACHINES.len(), connections_max in 1_usize..10_000_000) {
        static RECORDED: LazyLock<[Machine; 4]> = LazyLock::new(|| MACHINES.map(recorded));
        let machine = &RECORDED[machine];
        let findings = examine(machine, &config(connections_max));
        for finding in &findings {
            let within = finding.bites_from.is_some_and(|from| from <= connections_max as u64);
            prop_assert_eq!(finding.level == Bites, within, "{:?}", finding);
            prop_assert_eq!(finding.mend.is_some() || finding.level != Bites, true, "{:?}", finding);
            prop_assert!(!finding.read.is_empty() && !finding.means.is_empty());
        }
        if let Some(first) = findings.iter().filter(|finding| finding.level == Bites).filter_map(|f| f.bites_from).min() {
            let below = examine(machine, &config((first as usize).saturating_sub(1).max(1)));
            prop_assert!(first == 1 || !bites(&below));
        }
    }
}
