//! The files of `deploy/prometheus` and `deploy/grafana` with a real Prometheus: rules, the example, and every query of the
//! dashboard against nodes that it scrapes, native histograms included.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use fanfare_testing::{
    ApiKey, Certificates, Client, Cluster, Server, await_metric, eventually, free_addr, http_ask, http_get,
    percent_encode, temporary_path,
};
use serde_json::{Value, json};

#[test]
fn promtool_takes_the_rules_and_the_example_and_each_rule_fires_when_it_should() {
    let folder = root().join("deploy/prometheus");
    for arguments in
        [["check", "rules", "alerts.yml"], ["check", "config", "prometheus.yml"], ["test", "rules", "alerts_test.yml"]]
    {
        let output =
            Command::new("promtool").args(arguments).current_dir(&folder).output().unwrap_or_else(|error| {
                panic!("`promtool` does not start ({error}): run tests/run, which installs it")
            });
        let said = [output.stdout, output.stderr].concat();
        assert!(output.status.success(), "promtool {arguments:?}: {}", String::from_utf8_lossy(&said));
    }
    let (rules, tests) = (read("deploy/prometheus/alerts.yml"), read("deploy/prometheus/alerts_test.yml"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    assert!(alerts.len() > 10, "the rules are found");
    for alert in &alerts {
        assert!(tests.contains(&format!("alertname: {alert}\n")), "{alert} is tested on a healthy node");
        assert!(tests.contains(&format!("alertname=\"{alert}\"")), "{alert} is tested on a node in trouble");
    }
    for text in ["severity: ", "summary: ", "runbook: "] {
        assert_eq!(rules.matches(text).count(), alerts.len(), "each rule has its {text}");
    }
}

#[test]
fn rules_and_dashboard_name_metrics_that_there_are() {
    let document = read("docs/metrics.md");
    let known: BTreeSet<&str> =
        document.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect();
    for file in ["deploy/prometheus/alerts.yml", "deploy/prometheus/alerts_test.yml", "deploy/grafana/fanfare.json"] {
        let text = read(file);
        let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let names: BTreeSet<&str> =
            words.filter(|word| word.starts_with("fanfare_") || word.starts_with("process_")).collect();
        assert!(names.len() > 10, "{file} has names");
        for name in names {
            let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix));
            assert!(known.contains(name) || family.is_some_and(|family| known.contains(family)), "{file}: {name}");
        }
    }
}

#[test]
fn prometheus_answers_every_query_of_the_dashboard_and_has_native_histograms() {
    let (certificates, key) = (Certificates::make(), ApiKey::new("ops", "read"));
    let cluster = Cluster::start(1, &["--api.key", key.settings()]);
    // Nothing is asked there: the families are shown all the same.
    let nowhere = format!("http://{}/", free_addr());
    let secret = temporary_path("secret");
    fs::write(&secret, "a secret of the tests, of more than 32 bytes").expect("a file");
    let webhook = format!("url={nowhere},secret_file={}", secret.display());
    let urls = ["--auth.connect_url", &nowhere, "--auth.jwks_url", &nowhere, "--webhook", &webhook];
    let (certificate, private) = (certificates.path("server.pem"), certificates.path("server.key"));
    // It is scraped through a listener of the operator's own, which speaks no TLS.
    let admin = free_addr();
    let files = ["--tls.certificate", &certificate, "--tls.key", &private, "--admin.listen", &admin.to_string()];
    let guarded = Server::start(&[&urls[..], &files].concat());
    fs::remove_file(secret).expect("it is there");
    let prometheus = Prometheus::scraping(&[cluster.at(0), admin]);

    let mut clients: Vec<Client> = ["a", "b", "c"].map(|user| Client::connect(&cluster, user)).into();
    for client in &mut clients {
        client.join("den");
    }
    for number in 0..20 {
        clients[0].publish(json!({"type": "room_msg", "roomId": "den", "content": number}));
    }
    for client in &mut clients {
        client.barrier();
    }
    await_metric(&cluster.at(0), "fanfare_connections", 3);
    // As many observations as the node itself has counted, in buckets that only native histograms have.
    let counted = || {
        let page = http_get(&cluster.at(0), "/metrics").body;
        fanfare_testing::metric_in(&page, "fanfare_delivery_latency_seconds_count")
    };
    eventually("Prometheus has the native histogram", || {
        let query = "histogram_count(sum(fanfare_delivery_latency_seconds))";
        counted() >= 20 && prometheus.query(query).first().is_some_and(|sample| value(sample) == counted() as f64)
    });

    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/fanfare.json")).expect("the dashboard is JSON");
    let targets = dashboard["panels"].as_array().expect("panels").iter().flat_map(|panel| panel["targets"].as_array());
    let queries: Vec<&str> = targets.flatten().filter_map(|target| target["expr"].as_str()).collect();
    assert!(queries.len() > 50, "the queries are found");
    for query in queries {
        let query = query.replace("$__rate_interval", "10s").replace("$job", ".+").replace("$instance", ".+");
        assert!(!query.contains('$'), "{query}: no variable is left");
        eventually(&format!("{query} has series"), || !prometheus.query(&query).is_empty());
    }
    for variable in dashboard["templating"]["list"].as_array().expect("variables") {
        if let Some(inner) = variable["query"].as_str().and_then(|query| query.strip_prefix("label_values(")) {
            let (series, label) = inner.trim_end_matches(')').rsplit_once(", ").expect("series and a label");
            let query = format!("count by ({label}) ({})", series.replace("$job", ".+"));
            assert!(!prometheus.query(&query).is_empty(), "{query}");
        }
    }
    let rules = prometheus.get("/api/v1/rules");
    let rules = rules["data"]["groups"][0]["rules"].as_array().expect("the rules are loaded");
    for rule in rules {
        assert_ne!(rule["health"], "err", "{rule}");
    }
    drop(guarded);
}

/// A Prometheus with the rules of `deploy/prometheus`, ended with the test.
struct Prometheus {
    process: Child,
    addr: SocketAddr,
    folder: PathBuf,
}

impl Prometheus {
    #[track_caller]
    fn scraping(nodes: &[SocketAddr]) -> Prometheus {
        let folder = temporary_path("prometheus");
        fs::create_dir(&folder).expect("a folder");
        let nodes: Vec<String> = nodes.iter().map(|node| format!("\"{node}\"")).collect();
        let config = format!(
            "global: {{scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 1s}}\n\
             rule_files: ['{}']\nscrape_configs: [{{job_name: fanfare, static_configs: [{{targets: [{}]}}]}}]\n",
            root().join("deploy/prometheus/alerts.yml").display(),
            nodes.join(", ")
        );
        fs::write(folder.join("prometheus.yml"), config).expect("the settings are written");
        let mut process = Command::new("prometheus")
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .args(["--web.listen-address=127.0.0.1:0", "--enable-feature=native-histograms"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("`prometheus` does not start ({error}): run tests/run, which installs it"));
        let mut log = BufReader::new(process.stderr.take().expect("its log is read")).lines().map_while(Result::ok);
        let listening = log.find(|line| line.contains("msg=\"Listening on\"")).expect("it says where it listens");
        let addr = listening.rsplit_once("address=").expect("an address").1.trim().parse().expect("an address");
        // What it says from now on is of no interest, and it must not wait until somebody reads it.
        std::thread::spawn(move || log.for_each(drop));
        let prometheus = Prometheus { process, addr, folder };
        eventually("prometheus is ready", || http_get(&addr, "/-/ready").status == 200);
        prometheus
    }

    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let answer = self.get(&format!("/api/v1/query?query={}", percent_encode(query)));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().expect("a vector").clone()
    }

    fn get(&self, target: &str) -> Value {
        // Version 1.0 has no chunks.
        let answer = http_ask(&self.addr, &format!("GET {target} HTTP/1.0\r\nHost: prometheus\r\n\r\n"));
        serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{target}: {error}: {}", answer.body))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn value(sample: &Value) -> f64 {
    sample["value"][1].as_str().and_then(|value| value.parse().ok()).expect("a number")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
