//! Clients that others wrote: npm `ws`, PyPI `websockets`, a headless Chromium; and the examples.
//!
//! What they need is installed by `tests/run`. Without it these tests fail, so that nobody believes they ran.

mod order_book;
mod relay;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fanfare_testing::nginx::Nginx;
use fanfare_testing::{
    ApiKey, Certificates, Client, PATIENCE, Server, Signal, await_metric, http_ask, metric, temporary_path,
};
use order_book::{example_order_book_node, example_order_book_python};
use rustix::process::{Pid, kill_process};
use serde_json::{Value, json};

/// How long an example may take to show a message; a browser starts slowly on a loaded machine.
const EXAMPLE_PATIENCE: Duration = Duration::from_secs(60);

/// All clients may refer to their earlier messages; or only one of them, and the others are told so without having asked.
const TAKEOVER_SETTINGS: [&[&str]; 2] = [&[], &["--deflate.contexts_max", "1"]];

macro_rules! suite {
    ($($case:ident),* $(,)?) => {
        mod one_reactor {
            $(#[test] fn $case() { super::$case(1); })*
        }
        mod two_reactors {
            $(#[test] fn $case() { super::$case(2); })*
        }
    };
}

suite! {
    node_ws,
    node_ws_over_tls,
    python_websockets,
    python_websockets_over_tls,
    chromium_console,
    chromium_console_over_tls,
    chromium_console_behind_a_path_of_nginx,
    chromium_console_on_narrow_screens,
    chromium_operator,
    chromium_ladder,
    chromium_console_with_tokens,
    example_node,
    example_python,
    example_rust,
    example_browser,
    example_order_book_node,
    example_order_book_python,
}

/// A server that waits for the requests of clients that a loaded machine keeps waiting.
#[track_caller]
fn serve(reactors: usize, settings: &[&str]) -> Server {
    Server::with_reactors(reactors, &[settings, &["--limits.handshake_timeout", "1m"]].concat())
}

fn node_ws(reactors: usize) {
    for settings in TAKEOVER_SETTINGS {
        let server = serve(reactors, settings);
        let mut counts = run(node_script("node_ws.mjs").arg(base(&server)));
        compressed_as_it_should_be(&server, &mut counts);
        assert_eq!(
            counts,
            json!({
                "welcome": 3, "room_msg": 1_000, "private_msg": 2, "private": 1, "broadcast": 3,
                "raw": 18, "pong": 2, "closed": 6
            })
        );
    }
}

fn node_ws_over_tls(reactors: usize) {
    let (server, certificates) = secured(reactors);
    let script = node_script("node_ws.mjs");
    let counts = run(with_authority(script, &certificates).arg(format!("wss://{}", server.addr())));
    assert_eq!((&counts["room_msg"], &counts["raw"], &counts["closed"]), (&json!(1_000), &json!(18), &json!(6)));
}

/// A server that speaks TLS, and the authority of its certificate.
fn secured(reactors: usize) -> (Server, Certificates) {
    let certificates = Certificates::make();
    let (certificate, key) = (certificates.path("server.pem"), certificates.path("server.key"));
    let server = serve(reactors, &["--tls.certificate", &certificate, "--tls.key", &key]);
    (server, certificates)
}

fn with_authority(mut script: Command, certificates: &Certificates) -> Command {
    script.env("NODE_EXTRA_CA_CERTS", certificates.path("ca.pem"));
    script
}

fn python_websockets(reactors: usize) {
    for settings in TAKEOVER_SETTINGS {
        let server = serve(reactors, settings);
        let script = clients_folder().join("python_websockets.py");
        let mut counts = run(Command::new(python()).arg(script).arg(base(&server)));
        compressed_as_it_should_be(&server, &mut counts);
        assert_eq!(
            counts,
            json!({
                "welcome": 3, "room_msg": 1_000, "private_msg": 2, "private": 1, "broadcast": 3,
                "raw": 18, "pong": 2, "refused": 2
            })
        );
    }
}

fn python_websockets_over_tls(reactors: usize) {
    let (server, certificates) = secured(reactors);
    let script = clients_folder().join("python_websockets.py");
    let mut python = Command::new(python());
    python.env("SSL_CERT_FILE", certificates.path("ca.pem")).arg(script).arg(format!("wss://{}", server.addr()));
    let counts = run(&mut python);
    assert_eq!((&counts["room_msg"], &counts["raw"], &counts["refused"]), (&json!(1_000), &json!(18), &json!(2)));
}

/// Both directions, as the server counts them: 49 of the room's messages and 4 in each of two raw rooms are worth
/// compressing, and once each; the client compresses whatever it sends, where it agreed on that.
#[track_caller]
fn compressed_as_it_should_be(server: &Server, counts: &mut Value) {
    let deflated_bytes = counts.as_object_mut().and_then(|counts| counts.remove("deflated_bytes"));
    await_metric(server, "fanfare_compressions_total", 49 + 2 * 4);
    await_metric(
        server,
        "fanfare_inflated_bytes_total",
        deflated_bytes.and_then(|bytes| bytes.as_u64()).expect("bytes"),
    );
    await_metric(server, "fanfare_deflate_contexts", 0);
}

fn chromium_console(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let server = serve(reactors, &[]);
    console_works_at(&format!("http://{}", server.addr()));
    // A browser always offers compression, and compresses whatever it sends. One message was worth it for the server.
    await_metric(&server, "fanfare_compressions_total", 1);
    let inflated_bytes: u64 = metric(&server, "fanfare_inflated_bytes_total");
    assert!(inflated_bytes > 1_500, "{inflated_bytes} bytes came compressed");
}

fn chromium_console_over_tls(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let (server, _certificates) = secured(reactors);
    console_works_at(&format!("https://{}", server.addr()));
}

/// The page finds its server beside itself, wherever a proxy has put both.
fn chromium_console_behind_a_path_of_nginx(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let server = serve(reactors, &[]);
    let nginx = Nginx::before(&server);
    console_works_at(&format!("http://{}/push", nginx.addr()));
    await_metric(&server, "fanfare_compressions_total", 1);
}

#[track_caller]
fn console_works_at(base: &str) {
    let counts = run(node_script("console.mjs").arg(base));
    assert_eq!(
        counts,
        json!({
            "said": 4, "private": 1, "broadcast": 1, "rooms": 2, "ticks": 2, "reconnects": 1,
            "between_tabs": 2
        })
    );
}

fn chromium_console_on_narrow_screens(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let server = serve(reactors, &[]);
    let counts = run(node_script("console_narrow.mjs").arg(format!("http://{}", server.addr())));
    assert_eq!(counts, json!({"widths": 9, "cut": 0}));
}

/// On the machine itself the page needs nothing; behind a proxy a person gives it an API key.
fn chromium_operator(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let done = json!({
        "tiles": 9, "published": 3, "rooms": 1, "kicked": 1, "disconnected": 1, "findings": 5, "widths": 4, "cut": 0,
        "violations": 0
    });
    let server = serve(reactors, &[]);
    assert_eq!(run(node_script("operator.mjs").arg(format!("http://{}", server.addr()))), done);

    let key = ApiKey::new("a", "publish private broadcast read kick");
    let server = serve(reactors, &["--api.key", key.settings()]);
    let nginx = Nginx::before(&server);
    let counts = run(node_script("operator.mjs").arg(format!("http://{}/push", nginx.addr())).arg(key.secret()));
    assert_eq!(counts, done);
}

fn chromium_ladder(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let server = serve(reactors, &["--room", "match=ladder,keyed=true"]);
    let counts = run(node_script("ladder.mjs").arg(format!("http://{}", server.addr())).args(["ladder", "plain"]));
    assert_eq!(
        counts,
        json!({
            "instruments": 200, "joined": 2, "fed": 2, "tuned": 2, "resumed": 1, "told": 1, "widths": 4, "cut": 0,
            "violations": 0
        })
    );
}

/// On the machine itself the page gets its tokens from the server; behind a proxy a person pastes one, and an API key.
fn chromium_console_with_tokens(reactors: usize) {
    const API_KEY: &str = "a-key-of-the-tests-that-is-good-for-reading";
    let _alone = one_browser_at_a_time();
    let files = ["a secret of the tests, of more than 32 bytes", API_KEY].map(|text| {
        let path = temporary_path("secret");
        std::fs::write(&path, text).expect("a file");
        path
    });
    let auth_key = format!("alg=HS256,secret_file={}", files[0].display());
    let api_key = format!("name=a,verbs=read,secret_file={}", files[1].display());
    let server = serve(reactors, &["--auth.key", &auth_key, "--api.key", &api_key]);
    files.iter().for_each(|path| std::fs::remove_file(path).expect("it is there"));
    let counts = run(node_script("console_tokens.mjs").arg(format!("http://{}", server.addr())).arg("made"));
    assert_eq!(counts, json!({"online": 2, "said": 2, "refused": 0, "counters": 1}));
    await_metric(&server, "fanfare_connections", 0);
    let addr = server.addr();
    let request = format!(
        "POST /console/token HTTP/1.1\r\nHost: {addr}\r\nX-Fanfare-Console: 1\r\nContent-Type: application/json\r\n\
         Content-Length: 15\r\n\r\n{{\"sub\":\"alice\"}}"
    );
    let answer: Value = serde_json::from_str(&http_ask(&addr, &request).body).expect("a token");
    let nginx = Nginx::before(&server);
    let mut script = node_script("console_tokens.mjs");
    script.arg(format!("http://{}/push", nginx.addr())).arg("asked");
    let counts = run(script.arg(answer["token"].as_str().expect("a token")).arg(API_KEY));
    assert_eq!(counts, json!({"online": 2, "said": 2, "refused": 7, "counters": 1}));
}

fn example_node(reactors: usize) {
    let server = serve(reactors, &[]);
    let mut command = node_example("clients/node.mjs");
    command.arg(base(&server)).arg("example");
    example_talks(&server, &mut command);
}

/// An example that finds its packages where `npm ci` put them: read from stdin, its imports are looked up from the working
/// folder.
#[track_caller]
fn node_example(path: &str) -> Command {
    let script = std::fs::File::open(examples_folder().join(path)).expect("the example is part of the sources");
    let mut command = node();
    command.args(["--input-type=module", "-"]).stdin(script);
    command
}

fn example_python(reactors: usize) {
    let server = serve(reactors, &[]);
    let mut command = Command::new(python());
    command.arg(examples_folder().join("clients/python_client.py")).arg(base(&server)).arg("example");
    example_talks(&server, &mut command);
}

fn example_rust(reactors: usize) {
    let server = serve(reactors, &[]);
    let mut command = Command::new(built_example("client"));
    command.arg(base(&server)).arg("example");
    example_talks(&server, &mut command);
}

fn example_browser(reactors: usize) {
    let _alone = one_browser_at_a_time();
    let server = serve(reactors, &[]);
    let mut command = node_script("browser_example.mjs");
    command.arg(base(&server)).args(["example", "hello back"]).arg(examples_folder().join("clients/browser.html"));
    example_talks(&server, &mut command);
}

/// The example greets its room, and prints what is said there.
#[track_caller]
fn example_talks(server: &Server, command: &mut Command) {
    let mut watcher = Client::connect(server, "watcher");
    watcher.join("lobby");
    watcher.expect_type("system");
    let mut example = Example::start(command);
    let greeting = example.awaited_by(&mut watcher);
    assert_eq!(greeting["from"], "example");
    assert_eq!(greeting["content"], "hello from example");
    watcher.publish(json!({"type": "room_msg", "roomId": "lobby", "content": "hello back"}));
    example.prints("hello back");
}

/// A running example, ended when dropped.
struct Example {
    child: Child,
    lines: Receiver<String>,
}

impl Example {
    #[track_caller]
    fn start(command: &mut Command) -> Example {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody listens once the test has seen enough.
                let _ = sender.send(line);
            }
        });
        Example { child, lines }
    }

    /// The example's first room message, as `watcher` receives it.
    #[track_caller]
    fn awaited_by(&mut self, watcher: &mut Client) -> Value {
        let deadline = Instant::now() + EXAMPLE_PATIENCE;
        while Instant::now() < deadline {
            let Some(message) = watcher.try_recv(Duration::from_millis(200)) else {
                if let Ok(Some(status)) = self.child.try_wait() {
                    panic!("the example ended with {status}");
                }
                continue;
            };
            let message: Value = serde_json::from_str(message.to_text().expect("text")).expect("a message is JSON");
            if message["type"] == "room_msg" {
                return message;
            }
        }
        panic!("the example said nothing within {EXAMPLE_PATIENCE:?}")
    }

    #[track_caller]
    fn prints(&self, wanted: &str) {
        let deadline = Instant::now() + EXAMPLE_PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(wanted) {
                return;
            }
            seen.push(line);
        }
        panic!("the example did not print {wanted:?}, but {seen:#?}")
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        // SIGTERM first: the browser's script closes its browser on it, SIGKILL would leave that behind.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a script to its end and returns the JSON on the last line of its output.
#[track_caller]
fn run(command: &mut Command) -> Value {
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{command:?} ended with {}\n{stdout}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let counts = stdout.lines().last().unwrap_or_default();
    println!("{counts}");
    serde_json::from_str(counts).unwrap_or_else(|error| panic!("{error} in {counts:?}"))
}

fn base(server: &Server) -> String {
    server.url("")
}

fn node_script(name: &str) -> Command {
    let mut command = node();
    command.arg(clients_folder().join(name));
    command
}

/// Node in the folder of its packages.
#[track_caller]
fn node() -> Command {
    let folder = clients_folder();
    let installed = |package: &str| folder.join("node_modules").join(package).is_dir();
    assert!(
        installed("ws") && installed("playwright-core"),
        "the npm packages of tests/clients are not installed: run tests/run"
    );
    let mut command = Command::new(in_path("node"));
    command.current_dir(folder);
    command
}

#[track_caller]
fn python() -> PathBuf {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-python/bin/python");
    assert!(python.exists(), "the Python environment {} does not exist: run tests/run", python.display());
    python
}

#[track_caller]
fn in_path(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
        .unwrap_or_else(|| panic!("`{program}` is not installed: run tests/run"))
}

/// Builds an example as these tests were built (`cargo test --test …` alone would not) and returns its path.
#[track_caller]
fn built_example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("this test is a file");
    let folder = test.parent().and_then(Path::parent).expect("cargo runs tests from target/PROFILE/deps");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        None | Some("debug") => "dev",
        Some(other) => other,
    };
    let status = Command::new(env!("CARGO"))
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .args(["build", "--quiet", "--example", name, "--profile", profile])
        .status()
        .expect("the cargo that built this test");
    assert!(status.success(), "the example `{name}` should build");
    folder.join("examples").join(name)
}

fn clients_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

fn examples_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples")
}

/// Several browsers at once would only slow each other down.
fn one_browser_at_a_time() -> MutexGuard<'static, ()> {
    static BROWSER: Mutex<()> = Mutex::new(());
    BROWSER.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
