//! A node alone.

use std::fs;

use fanfare_testing::{
    Certificates, Client, Server, Signal, TlsFront, eventually, hears_hangups, http_get, metric_in, temporary_path,
};
use serde_json::json;

use super::receiver::{Came, Receiver, Reply, SECRET, sorted};
use super::{secret_file, start};

#[test]
fn the_first_and_the_last_of_rooms_and_users_are_told_and_signed() {
    let receiver = Receiver::start();
    let server = start(&receiver, "", &[]);
    let mut alice = Client::connect(&server, "alice");
    let again = Client::connect(&server, "alice");
    let mut guest = Client::anonymous(&server);
    alice.join("den");
    guest.join("den");
    let raw = Client::open(&server, "/raw/box");
    receiver.until_all(&["user_online alice", "room_occupied den", "room_occupied raw/box"]);
    alice.request(json!({"type": "leave_room", "roomId": "den"}));
    again.leave();
    guest.leave();
    raw.leave();
    receiver.until_all(&[
        "user_online alice",
        "room_occupied den",
        "room_occupied raw/box",
        "room_vacated den",
        "room_vacated raw/box",
    ]);
    alice.leave();
    receiver.until("user_offline alice");
    let came = receiver.came();
    let first = came[0].json();
    assert!(first["time"].as_u64().is_some_and(|time| time <= came[0].time) && first["node"].is_string());
    assert_eq!(came.iter().flat_map(Came::events).count(), 6, "each once");
    let page = http_get(&server, "/metrics").body;
    assert_eq!(metric_in(&page, "fanfare_webhook_teller"), 1);
    eventually("all is counted", || {
        let page = http_get(&server, "/metrics").body;
        let of = |outcome: &str| metric_in(&page, &format!("fanfare_webhook_events_total{{outcome=\"{outcome}\"}}"));
        (of("queued"), of("delivered"), of("retried"), of("given_up")) == (6, 6, 0, 0)
            && metric_in(&page, "fanfare_webhook_events_waiting") == 0
    });
}

#[test]
fn what_is_undone_before_it_lasts_is_not_told() {
    let receiver = Receiver::start();
    let server = start(&receiver, "", &[]);
    let mut bob = Client::connect(&server, "bob");
    bob.join("kept");
    bob.join("brief");
    bob.request(json!({"type": "leave_room", "roomId": "brief"}));
    receiver.until_all(&["user_online bob", "room_occupied kept"]);
    // Away and back at once, as a page that is loaded again.
    bob.leave();
    let mut bob = Client::connect(&server, "bob");
    bob.join("kept");
    bob.join("later");
    receiver.until_all(&["user_online bob", "room_occupied kept", "room_occupied later"]);
    assert!(metric_in(&http_get(&server, "/metrics").body, "fanfare_webhook_edges_coalesced_total") >= 3);
}

#[test]
fn each_receiver_gets_what_it_names() {
    let (rooms, users) = (Receiver::start(), Receiver::start());
    let file = temporary_path("toml");
    let secret = secret_file();
    let url = |receiver: &Receiver| receiver.entry().trim_start_matches("url=").to_owned();
    fs::write(
        &file,
        format!(
            "[[webhook]]\nurl = \"{}\"\nsecret_file = \"{secret}\"\nevents = [\"room_occupied\"]\nrooms = [\"chat.*\", \
             \"raw/chat.*\"]\n[[webhook]]\nurl = \"{}\"\nsecret = \"{}\"\nevents = [\"user_online\", \"user_offline\"]\n",
            url(&rooms),
            url(&users),
            SECRET,
        ),
    )
    .expect("a file can be written");
    let server = Server::start(&["--config", file.to_str().expect("text")]);
    let mut eve = Client::connect(&server, "eve");
    eve.join("chat.a");
    eve.join("other");
    let raw = Client::open(&server, "/raw/chat.b");
    rooms.until_all(&["room_occupied chat.a", "room_occupied raw/chat.b"]);
    raw.leave();
    eve.leave();
    users.until("user_offline eve");
    assert_eq!(users.events(), ["user_online eve", "user_offline eve"]);
    assert_eq!(sorted(rooms.events()), ["room_occupied chat.a", "room_occupied raw/chat.b"]);
    let _ = fs::remove_file(file);
}

#[test]
fn a_receiver_that_fails_gets_the_same_again_and_other_rooms_are_not_held_up() {
    let receiver = Receiver::start();
    receiver.behave(|body| if body.contains("\"bad\"") { Reply::Status(500) } else { Reply::Status(200) });
    let server = start(&receiver, ",events=room_occupied room_vacated", &[]);
    let mut client = Client::connect(&server, "carol");
    client.join("bad");
    client.join("good");
    // What came together with it is told, too, once it is found out which one is bad.
    receiver.until("room_occupied good");
    client.request(json!({"type": "leave_room", "roomId": "bad"}));
    client.join("fine");
    receiver.until("room_occupied fine");
    assert!(!receiver.events().iter().any(|event| event.ends_with("bad")));
    receiver.behave(|_| Reply::Status(200));
    receiver.until("room_vacated bad");
    let events = receiver.events();
    let place = |event: &str| events.iter().position(|found| found == event).expect(event);
    assert!(place("room_occupied bad") < place("room_vacated bad"), "{events:?}");
    let came = receiver.came();
    let with_bad: Vec<&Came> =
        came.iter().filter(|came| came.body.contains("room_occupied\",\"roomId\":\"bad\"")).collect();
    assert!(with_bad.len() >= 4 && with_bad[0].body == with_bad[1].body && with_bad[1].body == with_bad[2].body);
    // The halves of a batch that is split follow its last attempt at once.
    assert!(with_bad[..3].windows(2).all(|pair| pair[0].time < pair[1].time), "each attempt is signed anew");
    assert!(with_bad[1].time - with_bad[0].time < with_bad[2].time - with_bad[1].time, "pauses grow");
}

#[test]
fn a_receiver_that_hangs_or_leads_elsewhere_is_asked_again() {
    let receiver = Receiver::start();
    receiver.behave(|body| if body.contains("\"hangs\"") { Reply::Silence } else { Reply::Elsewhere });
    let server = start(&receiver, ",timeout=200ms,events=room_occupied", &[]);
    let mut client = Client::connect(&server, "dave");
    client.join("hangs");
    receiver.until_came(1);
    client.join("moves");
    eventually("both are tried", || receiver.came().iter().any(|came| came.body.contains("moves")));
    assert!(receiver.events().is_empty());
    receiver.behave(|_| Reply::Status(202));
    receiver.until_all(&["room_occupied hangs", "room_occupied moves"]);
    eventually("requests are counted by how they ended", || {
        let page = http_get(&server, "/metrics").body;
        let of = |outcome: &str| metric_in(&page, &format!("fanfare_webhook_requests_total{{outcome=\"{outcome}\"}}"));
        of("unanswered") >= 1 && of("refused") >= 1 && of("delivered") >= 1
    });
}

#[test]
fn a_secret_is_read_again() {
    let receiver = Receiver::start();
    let file = temporary_path("secret");
    fs::write(&file, SECRET).expect("a file can be written");
    let webhook = format!("{},secret_file={}", receiver.entry(), file.display());
    let server = Server::changed(hears_hangups, &["--webhook", &webhook]);
    let mut client = Client::connect(&server, "frank");
    receiver.until("user_online frank");
    fs::write(&file, "another secret, which is as good\n").expect("a file can be written");
    receiver.agree_on("another secret, which is as good");
    server.signal(Signal::HUP);
    eventually("the files are read", || server.log().contains("read the secrets of webhooks again"));
    client.join("den");
    receiver.until("room_occupied den");
    let _ = fs::remove_file(file);
}

#[test]
fn a_burst_comes_in_few_requests_and_nothing_is_lost_while_the_receiver_is_down() {
    const ROOMS: usize = 100;
    let receiver = Receiver::start();
    receiver.behave(|_| Reply::Status(503));
    let server = start(&receiver, ",events=room_occupied room_vacated", &["--limits.rooms_max", "128"]);
    let mut client = Client::connect(&server, "grace");
    (0..ROOMS).for_each(|at| drop(client.join(&format!("r{at}"))));
    let await_queued = |count: usize| {
        eventually("all is queued", || {
            let page = http_get(&server, "/metrics").body;
            metric_in(&page, "fanfare_webhook_events_total{outcome=\"queued\"}") == count as u64
        });
    };
    await_queued(ROOMS);
    client.leave();
    await_queued(2 * ROOMS);
    receiver.behave(|_| Reply::Status(200));
    let expected = (0..ROOMS).flat_map(|at| [format!("room_occupied r{at}"), format!("room_vacated r{at}")]);
    let expected: Vec<String> = expected.collect();
    receiver.until_all(&expected.iter().map(String::as_str).collect::<Vec<_>>());
    let events = receiver.events();
    let place = |event: String| events.iter().position(|found| *found == event).expect("it has come");
    assert!((0..ROOMS).all(|at| place(format!("room_occupied r{at}")) < place(format!("room_vacated r{at}"))));
    let page = http_get(&server, "/metrics").body;
    assert_eq!(metric_in(&page, "fanfare_webhook_events_total{outcome=\"given_up\"}"), 0);
}

/// By the authorities that the webhook names; a receiver that they do not know is told nothing.
#[test]
fn a_receiver_behind_tls_is_told_where_its_certificate_is_good() {
    let receiver = Receiver::start();
    let (certificates, others) = (Certificates::make(), Certificates::make());
    let front = TlsFront::to(receiver.addr(), &certificates);
    let webhook = |ca: &Certificates| {
        let (addr, secret, ca) = (front.addr(), secret_file(), ca.path("ca.pem"));
        format!("url=https://{addr}/hook,secret_file={secret},ca={ca}")
    };
    let mistrusting = Server::start(&["--webhook", &webhook(&others)]);
    let trusting = Server::start(&["--webhook", &webhook(&certificates)]);
    let mut alice = Client::connect(&trusting, "alice");
    alice.join("den");
    let mut mallory = Client::connect(&mistrusting, "mallory");
    mallory.join("cellar");
    receiver.until_all(&["user_online alice", "room_occupied den"]);
    eventually("the other one is warned of", || mistrusting.log().contains("has not taken events"));
    assert!(mistrusting.log().contains("certificate"), "{}", mistrusting.log());
    assert!(!receiver.came().iter().flat_map(Came::events).any(|event| event.contains("cellar")));
}
