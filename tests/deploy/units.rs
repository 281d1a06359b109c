//! The systemd units: as systemd's own checks see them, and whether what they forbid is what the server does without.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fanfare_testing::front::{deploy_folder, deployed};
use fanfare_testing::{
    Certificates, Client, Redis, Server, Signal, TlsTunnel, binary, eventually, free_addr, http_get, temporary_path,
};
use serde_json::json;

use crate::run;

/// A folder of the test's own, removed with it.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Folder {
        let folder = Folder(temporary_path("units"));
        fs::create_dir(&folder.0).expect("a folder of our own");
        folder
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::write(&file, text).expect("a file of our own");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The unit, with the program where it was built.
fn service() -> String {
    let text = deployed("systemd/fanfare.service");
    assert!(text.contains("ExecStart=/usr/local/bin/fanfare serve"));
    text.replace("/usr/local/bin/fanfare", &binary().display().to_string())
}

/// What `systemd-analyze verify` says of the two units.
#[track_caller]
fn verified(service: &str, socket: &str) -> (bool, String) {
    let folder = Folder::make();
    let files = [folder.write("fanfare.service", service), folder.write("fanfare.socket", socket)];
    run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(files))
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    let (service, socket) = (service(), deployed("systemd/fanfare.socket"));
    let (is_good, said) = verified(&service, &socket);
    assert!(is_good && !said.contains("fanfare."), "{said}");
    // It would have been told.
    let (_, said) = verified(&service.replace("MemoryDenyWriteExecute", "MemoryDenyWriteExecut"), &socket);
    assert!(said.contains("MemoryDenyWriteExecut"), "{said}");
}

/// 0 is confined, 10 is not; most services have more than 9.
#[test]
fn the_service_is_confined() {
    let folder = Folder::make();
    let file = folder.write("fanfare.service", &service());
    let exposure = |threshold: &str| {
        run(Command::new("systemd-analyze").args(["security", "--offline=yes", "--threshold", threshold]).arg(&file))
    };
    let (is_below, said) = exposure("16");
    assert!(is_below, "an exposure above 1.6: {said}");
    assert!(!exposure("5").0, "the threshold counts");
}

/// The server does all kinds of its work under strace; every call has to be one that the unit allows.
#[test]
fn the_unit_allows_what_the_server_does() {
    let allowed = allowed_calls(&service());
    for (call, is_allowed) in [("epoll_wait", true), ("sched_setaffinity", true), ("mount", false), ("setuid", false)] {
        assert_eq!(allowed.contains(call), is_allowed, "{call}");
    }
    let families = value_of(&service(), "RestrictAddressFamilies").replace("AF_NETLINK", "AF_NETLINK AF_UNSPEC");
    let folder = Folder::make();
    let trace = folder.0.join("trace");
    work_under_strace(&trace);
    let text = fs::read_to_string(&trace).expect("strace has written");
    let mut calls_count = 0;
    for line in text.lines() {
        // `PID call(…) = …`; what goes on from an earlier line, signals and ends are none.
        let Some((call, rest)) = line.split_once(' ').and_then(|(_, rest)| rest.trim_start().split_once('(')) else {
            continue;
        };
        if !call.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            continue;
        }
        calls_count += 1;
        assert!(allowed.contains(call), "the unit forbids what the server does: {line}");
        if call == "socket" || call == "socketpair" {
            let family = rest.split(',').next().unwrap_or_default();
            assert!(families.split(' ').any(|allowed| allowed == family), "the unit forbids {line}");
        }
        if ["mmap", "mprotect"].contains(&call) {
            assert!(!(rest.contains("PROT_WRITE") && rest.contains("PROT_EXEC")), "MemoryDenyWriteExecute: {line}");
        }
    }
    assert!(calls_count > 300, "{calls_count} calls were seen");
}

/// A start with pinned reactors, TLS, keys, Redis by its name and a Unix socket; clients, pages, a reload, a drain.
fn work_under_strace(trace: &Path) {
    let (certificates, redis, folder) = (Certificates::make(), Redis::start(), Folder::make());
    let (key, public) = (folder.0.join("key.pem"), folder.0.join("public.pem"));
    let (made, said) = run(Command::new("openssl")
        .args(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-out"])
        .arg(&key));
    assert!(made, "{said}");
    let (made, said) = run(Command::new("openssl").args(["pkey", "-pubout", "-in"]).arg(&key).arg("-out").arg(&public));
    assert!(made, "{said}");
    let url = format!("redis://localhost:{}/", redis.addr().port());
    let (unix, auth_key) = (
        format!("unix:{}", folder.0.join("sock").display()),
        format!("alg=ES256,public_key_file={}", public.display()),
    );
    let secured = format!(
        "address={},certificate={},key={}",
        free_addr(),
        certificates.path("server.pem"),
        certificates.path("server.key")
    );
    let settings = [
        &["--listen", "127.0.0.1:0", "--listen", &unix, "--listener", &secured, "--pin", "0", "--reactors", "1"][..],
        &["--redis", &url, "--auth.key", &auth_key, "--auth.anonymous", "true"],
        &["--auth.default.join", "*", "--auth.default.publish", "*", "--room", "match=*,history.size=10"],
    ]
    .concat();
    let mut server = Server::changed(
        |command| {
            let mut traced = Command::new("strace");
            // With -D the server stays this process' child.
            traced.args(["-D", "-f", "-qq", "-s", "0", "-o"]).arg(trace).arg(command.get_program());
            traced.args(command.get_args()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            traced.current_dir(command.get_current_dir().expect("it has one"));
            *command = traced;
        },
        &settings,
    );
    eventually("it is ready", || http_get(&server, "/health/ready").status == 200);
    let mut alice = Client::anonymous(&server);
    alice.join("den");
    alice.publish(json!({"type": "room_msg", "roomId": "den", "content": "x".repeat(1_000)}));
    for target in ["/", "/metrics", "/stats", "/health/live"] {
        assert_eq!(http_get(&server, target).status, 200, "{target}");
    }
    let secured = server.listeners().iter().find(|listener| listener.starts_with("https")).expect("one with TLS");
    let secured = secured.trim_start_matches("https://").trim_end_matches('/').parse().expect("an address");
    let tunnel = TlsTunnel::to(secured, &certificates);
    let mut bob = Client::anonymous(&tunnel.addr());
    bob.join("den");
    server.signal(Signal::HUP);
    bob.barrier();
    server.signal(Signal::TERM);
    assert!(server.wait_exit().success(), "{}", server.log());
}

/// What `SystemCallFilter=` lets through: the first line lists it, later ones take away (`~`) or add.
fn allowed_calls(unit: &str) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for line in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (is_taken_away, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        for call in names.split(' ').flat_map(calls_of) {
            if is_taken_away {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    allowed
}

/// The calls of a set of systemd's, or the one call.
fn calls_of(name: &str) -> BTreeSet<String> {
    if !name.starts_with('@') {
        return BTreeSet::from([name.to_owned()]);
    }
    let (is_known, said) = run(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager", name]));
    assert!(is_known, "{said}");
    let names = said.lines().filter(|line| line.starts_with("    ")).map(str::trim);
    names.filter(|line| !line.starts_with('#')).flat_map(calls_of).collect()
}

/// The value of a setting that stands in a unit once.
#[track_caller]
fn value_of(unit: &str, name: &str) -> String {
    let values: Vec<&str> = unit.lines().filter_map(|line| line.strip_prefix(&format!("{name}="))).collect();
    assert_eq!(values.len(), 1, "{name} in the unit");
    values[0].to_owned()
}

#[test]
fn units_and_configuration_fit_each_other() {
    let (unit, socket) = (deployed("systemd/fanfare.service"), deployed("systemd/fanfare.socket"));
    let text = deployed("systemd/fanfare.toml");
    let address = value_of(&socket, "ListenStream");
    assert!(text.contains(&format!("\nlisten = [\"{address}\"]\n")), "a socket that no listener names is an error");
    assert!(unit.contains("serve --config /etc/fanfare/fanfare.toml"));
    assert!(value_of(&unit, "ConfigurationDirectory") == "fanfare" && text.contains("/etc/fanfare/secret"));
    let seconds = |text: &str| -> u64 { text.trim_end_matches('s').parse().expect("seconds") };
    let drain = text.lines().find_map(|line| line.strip_prefix("timeout = \"")).expect("drain.timeout");
    assert!(seconds(&value_of(&unit, "TimeoutStopSec")) > seconds(drain.trim_end_matches('"')) + 10);
    let descriptors: u64 = value_of(&unit, "LimitNOFILE").parse().expect("a number");
    let connections = text.lines().find_map(|line| line.strip_prefix("connections_max = ")).expect("connections_max");
    assert!(descriptors > connections.parse::<u64>().expect("a number") + 10_000);
    // The configuration is good, with files that are there.
    let (folder, certificates) = (Folder::make(), Certificates::make());
    let secret = folder.write("secret", "a secret of the tests, of more than 32 bytes");
    let text = text
        .replace("/etc/fanfare/secret", &secret.display().to_string())
        .replace("/etc/fanfare/fullchain.pem", &certificates.path("server.pem"))
        .replace("/etc/fanfare/privkey.pem", &certificates.path("server.key"));
    assert!(!text.contains("\"/etc/fanfare"), "all files were replaced");
    let (is_good, said) = run(Command::new(binary()).arg("check").arg(folder.write("fanfare.toml", &text)));
    assert!(is_good, "{said}");
    assert!(deploy_folder().join("systemd/sysusers.conf").is_file());
    assert!(deployed("systemd/sysusers.conf").contains(&format!("u {} ", value_of(&unit, "User"))));
}
