//! Compose and Kubernetes files: by their schemas, and whether the server takes what they tell it. The Dockerfile's steps are run by
//! `tests/deploy/dockerfile.py`, which `tests/run` starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use fanfare_testing::front::{deploy_folder, deployed};
use fanfare_testing::{binary, run_fanfare, temporary_path};
use serde_json::Value;

use crate::run;

const MANIFESTS: [&str; 5] = ["config", "deployment", "disruption-budget", "ingress", "service"];

fn manifest(name: &str) -> PathBuf {
    deploy_folder().join("kubernetes").join(format!("{name}.yaml"))
}

/// Of the environment that `tests/run` makes.
fn yaml(words: &[&str]) -> (bool, String) {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = sources.join("target/test-python/bin/python");
    assert!(python.is_file(), "{} is missing: run tests/run, which makes it", python.display());
    run(Command::new(python).arg(sources.join("tests/deploy/yaml.py")).args(words))
}

/// The only document of a YAML file.
#[track_caller]
fn document(file: &Path) -> Value {
    let (is_read, said) = yaml(&["json", file.to_str().expect("a name of ours")]);
    assert!(is_read, "{said}");
    let documents: Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert_eq!(documents.as_array().map(Vec::len), Some(1), "{}", file.display());
    documents[0].clone()
}

#[test]
fn compose_takes_its_file() {
    let file = deploy_folder().join("docker/compose.yaml");
    let check = |file: &Path| run(Command::new("docker-compose").arg("-f").arg(file).args(["config", "-q"]));
    let (is_good, said) = check(&file);
    assert!(is_good, "{said}");
    // It would have been told.
    let broken = temporary_path("yaml");
    fs::write(&broken, deployed("docker/compose.yaml").replace("stop_grace_period", "stop_grace"))
        .expect("our own file");
    let (is_good, said) = check(&broken);
    fs::remove_file(&broken).expect("our own file");
    assert!(!is_good && said.contains("stop_grace"), "{said}");
}

/// Each node's environment is a configuration; with it the proxy is believed and nobody else.
#[test]
fn the_nodes_of_compose_are_configured() {
    let compose = document(&deploy_folder().join("docker/compose.yaml"));
    let subnet = compose["networks"]["push"]["ipam"]["config"][0]["subnet"].as_str().expect("a subnet");
    for node in ["node-1", "node-2"] {
        let service = &compose["services"][node];
        let environment = service["environment"].as_object().expect("an environment");
        let pairs: Vec<(&str, &str)> =
            environment.iter().map(|(name, value)| (name.as_str(), value.as_str().expect("a text"))).collect();
        let (code, said, complaint) = run_fanfare(&["config"], &pairs);
        assert_eq!(code, Some(0), "{complaint}");
        assert!(said.contains("redis://redis:6379/") && said.contains(subnet), "{said}");
        let seconds = |value: &Value| -> u64 {
            value.as_str().and_then(|text| text.trim_end_matches('s').parse().ok()).expect("seconds")
        };
        let drain = ["FANFARE_DRAIN_DELAY", "FANFARE_DRAIN_TIMEOUT"].map(|name| seconds(&service["environment"][name]));
        assert!(seconds(&service["stop_grace_period"]) > drain.iter().sum());
        assert!(service["cpus"].is_null() && service["cpu_quota"].is_null(), "no quota for the CPU");
        let caddy = compose["services"]["caddy"]["environment"]["FANFARE_NODES"].as_str().expect("the nodes");
        assert!(caddy.split(' ').any(|entry| entry == format!("{node}:8080")), "{caddy}");
    }
}

/// The oldest that has every field used, and the newest known.
#[test]
fn kubernetes_takes_the_manifests() {
    let files = MANIFESTS.map(|name| manifest(name).display().to_string());
    for version in ["1.30", "1.37"] {
        let words: Vec<&str> = ["kubernetes", version].into_iter().chain(files.iter().map(String::as_str)).collect();
        let (is_good, said) = yaml(&words);
        assert!(is_good, "{version}: {said}");
    }
    let broken = temporary_path("yaml");
    let text = deployed("kubernetes/deployment.yaml").replace("preStop:", "preStopp:");
    fs::write(&broken, text).expect("our own file");
    let (is_good, said) = yaml(&["kubernetes", "1.37", &broken.display().to_string()]);
    fs::remove_file(&broken).expect("our own file");
    assert!(!is_good && said.contains("preStopp"), "{said}");
    let listed = deployed("kubernetes/kustomization.yaml");
    for name in MANIFESTS {
        assert!(listed.contains(&format!("  - {name}.yaml\n")), "kustomization.yaml lists {name}.yaml");
    }
}

#[test]
fn the_manifests_fit_each_other_and_the_server() {
    let deployment = document(&manifest("deployment"));
    let pod = &deployment["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    for (probe, path) in [("livenessProbe", "/health/live"), ("readinessProbe", "/health/ready")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert_eq!(container[probe]["httpGet"]["port"], "http");
    }
    assert!(container["resources"]["limits"]["cpu"].is_null(), "no quota for the CPU");
    assert!(!pod["affinity"]["podAntiAffinity"].is_null());
    let labels = &deployment["spec"]["template"]["metadata"]["labels"];
    assert_eq!(&document(&manifest("service"))["spec"]["selector"], labels);
    assert_eq!(&document(&manifest("disruption-budget"))["spec"]["selector"]["matchLabels"], labels);
    assert_eq!(&deployment["spec"]["selector"]["matchLabels"], labels);

    let config = document(&manifest("config"));
    let text = config["data"]["fanfare.toml"].as_str().expect("a text");
    let drain = text.lines().find_map(|line| line.strip_prefix("timeout = \"")).expect("drain.timeout");
    let drain: u64 = drain.trim_end_matches("s\"").parse().expect("seconds");
    let sleep = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64().expect("seconds");
    assert!(pod["terminationGracePeriodSeconds"].as_u64().expect("seconds") > sleep + drain);

    let secret = temporary_path("secret");
    fs::write(&secret, "a secret of the tests, of more than 32 bytes").expect("our own file");
    let file = temporary_path("toml");
    let text = text.replace("/run/secrets/fanfare/token-secret", &secret.display().to_string());
    fs::write(&file, text).expect("our own file");
    let (is_good, said) = run(Command::new(binary()).arg("check").arg(&file));
    fs::remove_file(file).expect("our own file");
    fs::remove_file(secret).expect("our own file");
    assert!(is_good, "{said}");
}
