//! `/metrics` of the built binary: a strict reader of Prometheus' text format takes it, and the numbers are right.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use fanfare_testing::{ApiKey, Certificates, Client, Cluster, PATIENCE, Server, http_ask, http_get};
use serde_json::json;
use tungstenite::Message;

#[test]
fn the_page_is_well_formed() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &[]);
        let answer = http_get(&server, "/metrics");
        assert_eq!(answer.status, 200);
        let head = answer.head.to_ascii_lowercase();
        assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
        let page = Page::parse(&answer.body);
        assert_eq!(page.value("fanfare_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), 1.0);
        assert_eq!(page.value("fanfare_ready", &[]), 1.0);
        let is_per_reactor = |family: &&String| page.samples_of(family).any(|(l, _)| l.contains_key("reactor"));
        let per_reactor: Vec<_> = page.families.keys().filter(is_per_reactor).collect();
        assert!(per_reactor.len() > 20, "{per_reactor:?}");
        for family in per_reactor {
            let named: BTreeSet<_> = page.samples_of(family).map(|(labels, _)| labels["reactor"].clone()).collect();
            assert_eq!(named, (0..reactors).map(|reactor| reactor.to_string()).collect(), "{family}");
        }
    }
}

#[test]
fn messages_and_deliveries_are_counted() {
    for reactors in [1, 2] {
        let server = Server::with_reactors(reactors, &["--rooms.notice_members_max", "0"]);
        let mut clients: Vec<Client> = ["a", "b", "c"].map(|user| Client::connect(&server, user)).into();
        for client in &mut clients {
            client.join("den");
        }
        for number in 0..10 {
            clients[0].publish(json!({"type": "room_msg", "roomId": "den", "content": number}));
        }
        clients[1].publish(json!({"type": "broadcast", "data": 1}));
        let to = clients[2].client_id().to_owned();
        clients[0].publish(json!({"type": "private", "to": to, "data": 1}));
        for client in &mut clients {
            client.barrier();
        }
        settled(&server, |page| {
            vec![
                // Three joins and twelve publishes; pings are no messages.
                (page.sum("fanfare_messages_in_total"), 15),
                // Ten to two members, one to all three, one to one.
                (page.sum("fanfare_deliveries_total"), 24),
                // And three welcomes, with an answer to each command.
                (page.sum("fanfare_messages_out_total"), 24 + 3 + 15),
                (page.sum("fanfare_connections"), 3),
                (page.sum("fanfare_connections_opened_total"), 3),
                (page.sum("fanfare_connections_closed_total"), 0),
                (page.value("fanfare_places", &[]) as u64, 3),
                // Each message with its members, the sender among them, once on each reactor that has some.
                (page.sum("fanfare_fan_out_members_sum"), 10 * 3 + 3 + 1),
                (page.sum("fanfare_delivery_latency_seconds_count"), page.sum("fanfare_fan_out_members_count")),
                (page.sum("fanfare_queue_bytes"), 0),
            ]
        });
        let page = scrape(&server);
        let (messages, most) = (page.sum("fanfare_fan_out_members_count"), [12, 23][reactors - 1]);
        assert!((12..=most).contains(&messages), "{messages} messages, each on one or two reactors");
        assert!(page.sum("fanfare_turn_seconds_count") <= page.sum("fanfare_turns_total"));
        for busy in ["fanfare_in_bytes_total", "fanfare_out_bytes_total", "fanfare_sends_total", "fanfare_turns_total"]
        {
            assert!(page.sum(busy) > 0, "{busy}");
        }
    }
}

#[test]
fn rounds_are_counted_for_each_subscriber() {
    for reactors in [1, 2] {
        let settings = ["--rooms.notice_members_max", "0", "--room", "match=px,keyed=true"];
        let server = Server::with_reactors(reactors, &settings);
        let mut publisher = Client::connect(&server, "p");
        let mut clients: Vec<Client> = ["a", "b", "c"].map(|user| Client::connect(&server, user)).into();
        for client in &mut clients {
            client.request(json!({"type": "join_room", "roomId": "px", "mode": "latest"}));
        }
        let before = scrape(&server).sum("fanfare_out_bytes_total");
        let content = "x".repeat(1_000);
        for _ in 0..10 {
            publisher.publish(json!({"type": "room_msg", "roomId": "px", "item": "A", "content": content}));
            for client in &mut clients {
                client.recv_type("room_msg");
            }
        }
        settled(&server, |page| {
            vec![
                (page.sum("fanfare_deliveries_total"), 30),
                // With four welcomes, three joins, and ten acks.
                (page.sum("fanfare_messages_out_total"), 30 + 4 + 3 + 10),
                (page.sum("fanfare_fan_out_members_sum"), 30),
            ]
        });
        let out = scrape(&server).sum("fanfare_out_bytes_total") - before;
        assert!((30_000..60_000).contains(&out), "{out} bytes for thirty messages of a kilobyte each");
        // One that comes later is sent the snapshot by itself.
        let mut late = Client::connect(&server, "late");
        late.send(&json!({"type": "join_room", "roomId": "px", "mode": "latest", "id": 1}));
        late.recv_type("room_msg");
        late.recv_type("joined");
        settled(&server, |page| {
            vec![(page.sum("fanfare_deliveries_total"), 31), (page.sum("fanfare_fan_out_members_sum"), 31)]
        });
    }
}

#[test]
fn closes_are_counted_by_reason() {
    let settings = ["--limits.message_bytes_max", "100", "--heartbeat.interval", "30s"];
    let server = Server::with_reactors(2, &settings);
    Client::connect(&server, "client").leave();
    drop(Client::connect(&server, "lost"));
    let mut too_big = Client::connect(&server, "too_big");
    too_big.send_text(&"x".repeat(101));
    assert_eq!(too_big.close_frame().0, 1009);
    let mut invalid = fanfare_testing::raw::RawConn::upgrade(&server, "/?userId=invalid");
    invalid.send_frame(0x81, b"\xff");
    let mut wrong = fanfare_testing::raw::RawConn::upgrade(&server, "/?userId=wrong");
    wrong.send_frame(0xF1, b"");
    let mut stays = Client::connect(&server, "stays");
    stays.send_message(Message::Ping("still here".into()));
    settled(&server, |page| {
        let closed = |reason| page.sum_where("fanfare_connections_closed_total", "reason", reason);
        vec![
            (closed("client"), 1),
            (closed("lost"), 1),
            (closed("too_big"), 1),
            (closed("invalid_utf8"), 1),
            (closed("protocol_error"), 1),
            (closed("silent") + closed("going_away") + closed("policy") + closed("slow_consumer"), 0),
            (page.sum("fanfare_connections_closed_total"), 5),
            (page.sum("fanfare_connections_opened_total"), 6),
            (page.sum("fanfare_connections"), 1),
        ]
    });
}

#[test]
fn a_silent_client_is_counted_as_such() {
    let server = Server::start(&["--heartbeat.interval", "30ms"]);
    // It reads nothing, and so answers no ping.
    let _mute = Client::connect(&server, "mute");
    settled(&server, |page| {
        vec![
            (page.sum_where("fanfare_connections_closed_total", "reason", "silent"), 1),
            (page.sum("fanfare_connections"), 0),
        ]
    });
}

/// The document and the pages of nodes that have everything agree: names, types, labels and help texts, in both directions.
#[test]
fn what_is_documented_is_served_and_nothing_else() {
    let (certificates, key) = (Certificates::make(), ApiKey::new("ops", "read"));
    let nowhere = format!("http://{}/", fanfare_testing::free_addr());
    let clustered = Cluster::start(1, &["--api.key", key.settings()]);
    let secret = fanfare_testing::temporary_path("secret");
    std::fs::write(&secret, "a secret of the tests, of more than 32 bytes").expect("a file");
    let webhook = format!("url={nowhere},secret_file={}", secret.display());
    let (certificate, private) = (certificates.path("server.pem"), certificates.path("server.key"));
    let admin = fanfare_testing::free_addr().to_string();
    let guarded = Server::start(&[
        "--tls.certificate",
        &certificate,
        "--tls.key",
        &private,
        "--admin.listen",
        &admin,
        "--auth.connect_url",
        &nowhere,
        "--auth.jwks_url",
        &nowhere,
        "--webhook",
        &webhook,
    ]);
    std::fs::remove_file(secret).expect("it is there");
    let admin: std::net::SocketAddr = admin.parse().expect("an address");
    let pages = [http_get(&clustered.at(0), "/metrics"), http_get(&admin, "/metrics")];
    drop(guarded);
    let mut served = BTreeMap::new();
    for page in pages.map(|answer| Page::parse(&answer.body)) {
        for (family, kind) in &page.families {
            let (labels, _) = page.samples_of(family).next().expect("a sample");
            let labels = labels.keys().filter(|label| *label != "le").cloned().collect::<BTreeSet<String>>();
            served.insert(family.clone(), (kind.clone(), labels, page.helps[family].clone()));
        }
    }
    let document = include_str!("../docs/metrics.md");
    let rows = document.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.strip_suffix(" |")?.splitn(4, " | ").collect();
        let [name, kind, labels, help] = cells[..] else { return None };
        let labels = labels.split(", ").map(|label| label.trim_matches('`').to_owned());
        let labels = labels.filter(|label| !label.trim().is_empty()).collect();
        Some((name.trim_end_matches('`').to_owned(), (kind.to_owned(), labels, help.to_owned())))
    });
    let documented: BTreeMap<String, (String, BTreeSet<String>, String)> = rows.collect();
    assert!(documented.len() > 50, "the table is found");
    for (name, row) in &documented {
        assert_eq!(served.get(name), Some(row), "{name} is served as it is documented");
    }
    assert_eq!(served.len(), documented.len(), "nothing is served that is not documented");
}

#[test]
fn refusals_are_counted_by_reason() {
    let key = ApiKey::new("ops", "read");
    let server = Server::with_reactors(2, &["--api.key", key.settings(), "--rooms.notice_members_max", "0"]);
    let mut client = Client::connect(&server, "client");
    client.send_text("[]");
    client.send_text(r#"{"type":"join_room","roomId":""}"#);
    client.barrier();
    let upgrade = "GET /nowhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    assert_eq!(http_ask(&server, upgrade).status, 404);
    assert_eq!(key.get(&server, "/api/v1/node").status, 200);
    assert_eq!(http_get(&server, "/api/v1/node").status, 401);
    settled(&server, |page| {
        let api =
            |status: &str| page.value("fanfare_api_requests_total", &[("route", "node"), ("status", status)]) as u64;
        vec![
            (page.sum_where("fanfare_commands_refused_total", "reason", "malformed"), 2),
            (page.sum("fanfare_commands_refused_total"), 2),
            (page.sum_where("fanfare_requests_refused_total", "reason", "not_found"), 1),
            (page.sum("fanfare_requests_refused_total"), 1),
            (api("200"), 1),
            (api("401"), 1),
        ]
    });
}

fn scrape(server: &Server) -> Page {
    Page::parse(&http_get(server, "/metrics").body)
}

/// Scrapes until the numbers are as expected: a reactor publishes them at the end of a turn, after its answers.
#[track_caller]
fn settled(server: &Server, numbers: impl Fn(&Page) -> Vec<(u64, u64)>) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (found, expected): (Vec<u64>, Vec<u64>) = numbers(&scrape(server)).into_iter().unzip();
        if found == expected {
            return;
        }
        assert!(Instant::now() < deadline, "found {found:?}, expected {expected:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

type Labels = BTreeMap<String, String>;

/// A page in text format 0.0.4, read strictly: whatever the format leaves open is refused.
struct Page {
    /// Type of each family.
    families: BTreeMap<String, String>,
    helps: BTreeMap<String, String>,
    samples: BTreeMap<(String, Labels), f64>,
}

impl Page {
    #[track_caller]
    fn parse(text: &str) -> Page {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut page = Page { families: BTreeMap::new(), helps: BTreeMap::new(), samples: BTreeMap::new() };
        let mut helped = None;
        let mut current = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').expect("a help text");
                assert!(!help.is_empty() && unescape(help, false).is_some(), "{line}");
                assert!(!page.families.contains_key(name), "{name} has one HELP");
                helped = Some(name);
                page.helps.insert(name.to_owned(), help.to_owned());
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a type");
                assert_eq!(helped.take(), Some(name), "TYPE follows HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                assert!(is_name(name), "{line}");
                assert_eq!(page.families.insert(name.to_owned(), kind.to_owned()), None, "{name} has one TYPE");
                current = Some((name.to_owned(), kind == "histogram"));
            } else {
                let (name, labels, value) = sample(line);
                let (family, is_histogram) = current.as_ref().expect("a sample stands below its family");
                let suffix = name.strip_prefix(family.as_str());
                match is_histogram {
                    true => assert!(matches!(suffix, Some("_bucket" | "_sum" | "_count")), "{line}"),
                    false => assert_eq!(suffix, Some(""), "{line}: a sample stands below its family"),
                }
                assert_eq!(suffix == Some("_bucket"), labels.contains_key("le"), "{line}");
                assert!(value >= 0.0, "{line}");
                assert_eq!(page.samples.insert((name, labels), value), None, "{line}: twice");
            }
        }
        for (family, kind) in &page.families {
            let label_sets: BTreeSet<Vec<&String>> = page
                .samples_of(family)
                .map(|(labels, _)| labels.keys().filter(|label| *label != "le").collect())
                .collect();
            assert_eq!(label_sets.len(), 1, "{family}: all samples have the same labels, and there is one");
            if kind == "histogram" {
                page.check_histogram(family);
            }
        }
        page
    }

    /// Buckets go up to all there is, and each holds those below it.
    #[track_caller]
    fn check_histogram(&self, family: &str) {
        let mut of_each = BTreeMap::<Labels, Vec<(f64, f64)>>::new();
        for ((_, labels), value) in self.samples.iter().filter(|((name, _), _)| *name == format!("{family}_bucket")) {
            let mut labels = labels.clone();
            let end = labels.remove("le").expect("a bucket has an end");
            of_each.entry(labels).or_default().push((end.parse().expect("an end is a number"), *value));
        }
        for (labels, mut buckets) in of_each {
            buckets.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            assert!(buckets.is_sorted_by_key(|(_, below)| *below), "{family}{labels:?}: {buckets:?}");
            let (end, all) = *buckets.last().expect("there is a bucket");
            assert_eq!((end, all), (f64::INFINITY, self.samples[&(format!("{family}_count"), labels.clone())]));
            assert!(buckets.len() < 16, "{family} has few");
            assert!(self.samples.contains_key(&(format!("{family}_sum"), labels)), "{family}");
        }
    }

    /// Samples of a family, those of a histogram's parts included.
    fn samples_of(&self, family: &str) -> impl Iterator<Item = (&Labels, f64)> {
        let is_histogram = self.families[family] == "histogram";
        let is_of = move |name: &str| {
            let suffix = name.strip_prefix(family);
            suffix == Some("") || (is_histogram && matches!(suffix, Some("_bucket" | "_sum" | "_count")))
        };
        self.samples.iter().filter(move |((name, _), _)| is_of(name)).map(|((_, labels), value)| (labels, *value))
    }

    #[track_caller]
    fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels = labels.iter().map(|(label, value)| ((*label).to_owned(), (*value).to_owned())).collect();
        self.samples[&(name.to_owned(), labels)]
    }

    #[track_caller]
    fn sum(&self, name: &str) -> u64 {
        let samples = self.samples.iter().filter(|((other, _), _)| other == name).map(|(_, value)| *value as u64);
        samples.reduce(|sum, value| sum + value).unwrap_or_else(|| panic!("{name} is there"))
    }

    #[track_caller]
    fn sum_where(&self, family: &str, label: &str, is: &str) -> u64 {
        let matching: Vec<f64> =
            self.samples_of(family).filter(|(labels, _)| labels[label] == is).map(|(_, value)| value).collect();
        assert!(!matching.is_empty(), "{family} has {label}={is}");
        matching.iter().map(|value| *value as u64).sum()
    }
}

/// `name{label="value",…} number`, without spaces elsewhere.
#[track_caller]
fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, behind) = rest.split_once("=\"").expect("a label and its value");
            assert!(is_name(label) && !label.contains(':'), "{line}");
            let mut escape = false;
            let end = behind.find(|letter| {
                let ends = letter == '"' && !escape;
                escape = letter == '\\' && !escape;
                ends
            });
            let (value, behind) = behind.split_at(end.expect("a closing quote"));
            let value = unescape(value, true).unwrap_or_else(|| panic!("{line}: {value} is escaped wrongly"));
            assert_eq!(labels.insert(label.to_owned(), value), None, "{line}: a label twice");
            match behind.strip_prefix("\",") {
                Some(more) => rest = more,
                None => {
                    rest = behind.strip_prefix("\"}").expect("the end of the labels");
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').expect("one space before the value");
    assert!(value.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.'), "{line}");
    (name.to_owned(), labels, value.parse().expect("a number"))
}

/// `None` where a backslash stands before anything but what the format escapes, or a quote stands bare.
fn unescape(text: &str, quotes: bool) -> Option<String> {
    let mut plain = String::new();
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next()? {
                '\\' => '\\',
                'n' => '\n',
                '"' if quotes => '"',
                _ => return None,
            },
            '"' if quotes => return None,
            letter => letter,
        });
    }
    Some(plain)
}

fn is_name(name: &str) -> bool {
    let start = |letter: char| letter.is_ascii_alphabetic() || letter == '_' || letter == ':';
    name.starts_with(start) && name.chars().all(|letter| start(letter) || letter.is_ascii_digit())
}
