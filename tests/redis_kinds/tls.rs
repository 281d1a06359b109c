//! Encrypted connections: to one server, to Sentinels and what they name, to a Redis Cluster.

use fanfare_testing::{Certificates, Cluster, Redis, eventually, free_addr, refused_start, run_fanfare};

use crate::servers::{Sentinel, Shards};
use crate::{assert_works, nodes};

/// What a server needs to speak TLS on this port.
pub(crate) fn tls_settings(certificates: &Certificates, port: u16) -> Vec<String> {
    let pairs = [
        ("--tls-port", port.to_string()),
        ("--tls-cert-file", certificates.path("server.pem")),
        ("--tls-key-file", certificates.path("server.key")),
        ("--tls-ca-cert-file", certificates.path("ca.pem")),
        ("--tls-auth-clients", "no".to_owned()),
    ];
    pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// The same as arguments.
pub(crate) fn words(settings: &[String]) -> Vec<&str> {
    settings.iter().map(String::as_str).collect()
}

#[test]
fn certificates_are_checked() {
    let certificates = Certificates::make();
    let port = free_addr().port();
    let _redis = Redis::with(&words(&tls_settings(&certificates, port)));
    let url = format!("rediss://127.0.0.1:{port}/");
    assert_works(&nodes(&url, &["--redis.tls_ca", &certificates.path("ca.pem")]));
    // The system knows nothing of our authority, and another one has not signed the certificate.
    let other = Certificates::make();
    for settings in [&[][..], &["--redis.tls_ca", &other.path("ca.pem")]] {
        let cluster = Cluster::at_url(&url, 1, settings);
        eventually("the log says what is wrong", || cluster.log(0).contains("invalid peer certificate"));
        cluster.await_readiness(503);
    }
    // The system's authorities are those of a file here.
    let order = ["disconnect", "nobody", "--redis", &url];
    let (code, _, told) = run_fanfare(&order, &[("SSL_CERT_FILE", &certificates.path("ca.pem"))]);
    assert_eq!((code, told.contains("no node has heard it")), (Some(1), true), "{told}");
    let (code, _, told) = run_fanfare(&order, &[("SSL_CERT_FILE", &other.path("ca.pem"))]);
    assert_eq!((code, told.contains("invalid peer certificate")), (Some(1), true), "{told}");
    // The certificate is for the address, not for the name.
    let named = format!("rediss://localhost:{port}/");
    let cluster = Cluster::at_url(&named, 1, &["--redis.tls_ca", &certificates.path("ca.pem")]);
    eventually("the log says what is wrong", || cluster.log(0).contains("not valid for name"));
}

#[test]
fn authorities_that_cannot_be_read_are_refused_at_the_start() {
    let certificates = Certificates::make();
    for (path, why) in [("/nowhere/ca.pem".to_owned(), "No such file"), (certificates.path("ca.key"), "no certificate")]
    {
        let refusal = refused_start(&["--redis", "rediss://127.0.0.1/", "--redis.tls_ca", &path]);
        assert_ne!(refusal.code, Some(0));
        assert!(refusal.stderr.contains(why) && refusal.stderr.contains(&path), "{}", refusal.stderr);
    }
}

/// Servers and Sentinel speak TLS; or the Sentinel does not, and the URL says so.
#[test]
fn servers_behind_sentinels_speak_tls() {
    let certificates = Certificates::make();
    let (port, sentinel_port) = (free_addr().port(), free_addr().port());
    let settings = tls_settings(&certificates, port);
    let _redis = Redis::with(&words(&settings));
    let lines: Vec<String> =
        tls_settings(&certificates, sentinel_port).chunks(2).map(|pair| pair.join(" ").replace("--", "")).collect();
    let sentinel = Sentinel::watching(port, &format!("{}\ntls-replication yes", lines.join("\n")));
    let authority = ["--redis.tls_ca", &certificates.path("ca.pem")];
    assert_works(&nodes(&format!("rediss+sentinel://127.0.0.1:{sentinel_port}/{}", Sentinel::NAME), &authority));
    let plain = format!("rediss+sentinel://{}/{}?sentinels=plain", sentinel.host(), Sentinel::NAME);
    Cluster::at_url(&plain, 1, &authority).await_ready();
}

#[test]
fn a_redis_cluster_speaks_tls() {
    let certificates = Certificates::make();
    let port = free_addr().port();
    let settings = [tls_settings(&certificates, port), vec!["--tls-cluster".to_owned(), "yes".to_owned()]].concat();
    let (server, _) = Shards::server(&words(&settings));
    server.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]);
    eventually("all slots are served", || server.command(&["CLUSTER", "INFO"]).contains("cluster_state:ok"));
    let url = format!("rediss+cluster://127.0.0.1:{port}");
    assert_works(&nodes(&url, &["--redis.tls_ca", &certificates.path("ca.pem")]));
}
