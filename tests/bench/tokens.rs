//! The load generator with tokens, and over TLS.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_testing::{Certificates, Server, TlsFront, temporary_path};
use serde_json::Value;

use super::{Ran, run};

/// A secret in a file of its own.
pub struct Secret(pub PathBuf);

impl Secret {
    /// A file among the temporary ones.
    pub fn new() -> Secret {
        let path = temporary_path("secret");
        fs::write(&path, "a secret of the tests, of more than 32 bytes\n").expect("a file of our own");
        Secret(path)
    }

    fn server(&self, settings: &[&str]) -> Server {
        Server::start(&[&["--auth.key", &format!("alg=HS256,secret_file={}", self.0.display())], settings].concat())
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        // What is left behind lies among the temporary files.
        let _ = fs::remove_file(&self.0);
    }
}

/// The medians of a run without faults.
pub fn assert_clean(ran: &Ran, what: &str) -> Value {
    assert_eq!((ran.code, ran.faults()), (Some(0), [0; 7]), "{what}: {} {}", ran.out, ran.err);
    ran.report()["median"].clone()
}

#[test]
fn every_scenario_runs_with_tokens_and_over_tls() {
    let (secret, certificates) = (Secret::new(), Certificates::make());
    let server = secret.server(&["--room", "match=greedy,history.size=1000"]);
    let front = TlsFront::to(server.addr(), &certificates);
    for scenario in [
        "fanout --connections 5 --outstanding 4 --messages 100",
        "fanout --connections 5 --outstanding 4 --messages 50 --payload-bytes 60KiB",
        "rooms --rooms 2 --connections 6 --publishers 2 --outstanding 4 --messages 100",
        "private --connections 4 --outstanding 16 --messages 100",
        "latency --connections 5 --rate 100 --duration 200ms",
        "idle --connections 12 --base 4 --duration 10ms",
        "connect --connections 20 --join --rooms 5",
        "storm --connections 10",
        "hostile --connections 5 --rate 100 --duration 200ms --dribblers 0 --bombers 1 --fragmenters 1 --bombs 2 \
         --bomb-bytes 8MiB",
        "hostile --attack history --attack-commands 5 --connections 5 --rate 100 --duration 200ms",
        "logins --connections 5 --logins 30 --duration 200ms",
    ] {
        let arguments = format!(
            "{scenario} --json --timeout 10s --url wss://{} --ca {} --token-secret-file {}",
            front.addr(),
            certificates.path("ca.pem"),
            secret.0.display(),
        );
        let ran = run(&arguments);
        assert_clean(&ran, scenario);
        assert_eq!(ran.report()["settings"]["tokens"], "minted", "{scenario}");
    }
}

#[test]
fn tokens_are_signed_by_each_kind_of_key() {
    let keys = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/auth/tests/keys");
    for (alg, private, public) in [
        ("ES256", "p256-private.pem", "p256-public.pem"),
        ("EdDSA", "ed25519-private.pem", "ed25519-public.pem"),
        ("RS256", "rsa-private.pem", "rsa-public.pem"),
    ] {
        let key = format!("alg={alg},kid=k,public_key_file={}", keys.join(public).display());
        let server = Server::start(&["--auth.key", &key]);
        let ran = run(&format!(
            "connect --connections 20 --join --json --url ws://{} --token-alg {alg} --token-kid k --token-key-file {}",
            server.addr(),
            keys.join(private).display(),
        ));
        assert_clean(&ran, alg);
    }
}

#[test]
fn one_token_is_good_for_all_and_none_for_no_one() {
    let secret = Secret::new();
    let server = secret.server(&["--auth.default.join", "*", "--auth.default.publish", "*"]);
    let arguments = format!("fanout --connections 5 --messages 20 --json --url ws://{}", server.addr());
    let ran = run(&arguments);
    assert_eq!((ran.code, ran.out.as_str()), (Some(2), ""));
    assert!(ran.err.starts_with("fanfare: connection 0: the server asks for another token, or for one at all (401); "));
    let key = format!("alg=HS256,secret_file={}", secret.0.display());
    let made = run_fanfare(&["token", "--auth.key", &key, "--sub", "everyone"]);
    let ran = run(&format!("{arguments} --token {}", made.trim()));
    assert_clean(&ran, "a shared token");
    assert_eq!(ran.report()["settings"]["tokens"], "shared");
}

#[test]
fn those_who_log_in_are_told_of_beside_those_who_are_connected() {
    let secret = Secret::new();
    let server = secret.server(&[]);
    let ran = run(&format!(
        "logins --connections 20 --logins 100 --rate 200 --duration 300ms --rounds 2 --json --url ws://{} \
         --token-secret-file {} --server-pid {}",
        server.addr(),
        secret.0.display(),
        server.pid(),
    ));
    let median = assert_clean(&ran, "logins");
    for figure in [
        "calm_p50_us",
        "storm_p50_us",
        "calm_p99_us",
        "storm_p99_us",
        "calm_max_us",
        "storm_max_us",
        "p99_storm_by_calm",
        "logins_per_s",
        "login_p50_us",
        "login_p99_us",
        "login_max_us",
    ] {
        assert!(median[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {median}");
    }
    assert_eq!(ran.report()["rounds"].as_array().map(Vec::len), Some(2));
    assert_eq!(ran.report()["settings"]["logins"], 100);
}

/// What `fanfare` prints.
fn run_fanfare(arguments: &[&str]) -> String {
    let ran = Command::new(env!("CARGO_BIN_EXE_fanfare")).args(arguments).output().expect("the binary runs");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).expect("UTF-8")
}
