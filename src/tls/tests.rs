//! A session against rustls' own client.

use std::sync::Arc;

use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ServerConfig};

use super::testing::{Authority, Client};
use super::*;

const NAME: &str = "push.example";

/// Lets both sides speak until neither has anything to say; what each has heard.
///
/// # Errors
/// What broke on the server's side, or on the client's.
fn converse(session: &mut Session, client: &mut Client, piece_bytes: usize) -> Result<(Vec<u8>, Vec<u8>), String> {
    let (mut to_server, mut to_client) = (Vec::new(), Vec::new());
    loop {
        let said = client.output();
        let mut out = Vec::new();
        for piece in said.chunks(piece_bytes) {
            match session.receive(&mut piece.to_vec(), &mut to_server, &mut out) {
                Progress::Open | Progress::PeerClosed => {}
                Progress::Failed(error) => {
                    // What it has to say about that is heard as well.
                    let heard = client.input(&out).err().map(|error| error.to_string());
                    return Err(format!("{error}; {}", heard.unwrap_or_default()));
                }
            }
        }
        to_client.extend(client.input(&out).map_err(|error| error.to_string())?);
        if said.is_empty() && out.is_empty() {
            return Ok((to_server, to_client));
        }
    }
}

fn open(config: ServerConfig, client: ClientConfig) -> Result<(Session, Client), String> {
    let mut session = Session::new(Arc::new(config)).expect("a session");
    let mut client = Client::new(&Arc::new(client), NAME);
    converse(&mut session, &mut client, usize::MAX)?;
    Ok((session, client))
}

#[test]
fn both_versions_carry_bytes_both_ways_whatever_the_pieces() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        for piece_bytes in [1, 2, 7, 100, 5_000, usize::MAX] {
            let config = authority.config(&[NAME], ClientAuth::None);
            let mut session = Session::new(Arc::new(config)).expect("a session");
            let mut client = Client::new(&Arc::new(Client::config(authority.roots(), version)), NAME);
            assert!(session.is_handshaking());
            converse(&mut session, &mut client, piece_bytes).expect("a handshake");
            assert!(!session.is_handshaking() && session.is_resumed() == Some(false), "{version:?}");
            let long: Vec<u8> = (0..100_000_u32).map(|number| number as u8).collect();
            let records = client.say(&long);
            let (mut heard, mut out) = (Vec::new(), Vec::new());
            for piece in records.chunks(piece_bytes) {
                let progress = session.receive(&mut piece.to_vec(), &mut heard, &mut out);
                assert_eq!(progress, Progress::Open);
                assert!(session.partial_bytes() <= crate::limits::TLS_RECORD_BYTES_MAX + 300, "one record is held");
            }
            assert!(heard == long && out.is_empty());
            session.seal(b"to the client, ", &mut out).expect("sealed");
            session.seal(&long, &mut out).expect("sealed");
            let heard = client.input(&out).expect("good records");
            assert!(heard.starts_with(b"to the client, ") && heard.ends_with(&long));
            assert_eq!(session.partial_bytes(), 0, "nothing is held while nothing is under way");
        }
    }
}

#[test]
fn the_end_is_told_both_ways() {
    let authority = Authority::new();
    let (mut session, mut client) =
        open(authority.config(&[NAME], ClientAuth::None), Client::config(authority.roots(), &TLS13)).expect("open");
    let mut out = Vec::new();
    session.close(&mut out);
    client.input(&out).expect("a good record");
    client.tls().send_close_notify();
    let (mut heard, mut none) = (Vec::new(), Vec::new());
    let progress = session.receive(&mut client.say(b""), &mut heard, &mut none);
    assert_eq!(progress, Progress::Open, "our side has ended: nothing more is looked at");
    assert!(heard.is_empty() && session.partial_bytes() == 0);
}

#[test]
fn what_comes_behind_the_peers_end_is_dropped() {
    let authority = Authority::new();
    let (mut session, mut client) =
        open(authority.config(&[NAME], ClientAuth::None), Client::config(authority.roots(), &TLS13)).expect("open");
    client.tls().send_close_notify();
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    assert_eq!(session.receive(&mut client.say(b""), &mut heard, &mut out), Progress::PeerClosed);
    for _ in 0..100 {
        assert_eq!(session.receive(&mut [23; 10_000], &mut heard, &mut out), Progress::PeerClosed);
    }
    assert!(heard.is_empty() && session.partial_bytes() == 0);
    session.seal(b"good bye", &mut out).expect("our side goes on");
    assert_eq!(client.input(&out).expect("good records"), b"good bye");
}

#[test]
fn a_message_behind_the_handshake_holds_no_more_than_a_record() {
    let authority = Authority::new();
    for version in [&TLS12, &TLS13] {
        let (mut session, mut client) =
            open(authority.config(&[NAME], ClientAuth::None), Client::config(authority.roots(), version))
                .expect("open");
        // Records that say to be handshake messages are refused by their keys; those of application data, as long as they
        // can be, in pieces.
        let record = client.say(&[7; 0x4000]);
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        for byte in &record[..record.len() - 1] {
            assert_eq!(session.receive(&mut [*byte], &mut heard, &mut out), Progress::Open);
        }
        assert!(session.partial_bytes() < record.len() && heard.is_empty());
        assert_eq!(session.receive(&mut [record[record.len() - 1]], &mut heard, &mut out), Progress::Open);
        assert_eq!(heard, [7; 0x4000]);
    }
}

#[test]
fn a_client_is_shown_the_certificate_for_the_name_it_asks_for() {
    let authority = Authority::new();
    let config = Arc::new(authority.config(&["first.example", "*.second.example", "127.0.0.1"], ClientAuth::None));
    let client = Arc::new(Client::config(authority.roots(), &TLS13));
    for (name, is_good) in
        [("first.example", true), ("a.second.example", true), ("second.example", false), ("other.example", false)]
    {
        let mut session = Session::new(config.clone()).expect("a session");
        let outcome = converse(&mut session, &mut Client::new(&client, name), usize::MAX);
        assert_eq!(outcome.is_ok(), is_good, "{name}: {outcome:?}");
    }
    // Who asks for no name, as with an address, gets the first, which is for another one.
    let mut session = Session::new(config).expect("a session");
    assert!(converse(&mut session, &mut Client::new(&client, "127.0.0.1"), usize::MAX).is_err());
}

#[test]
fn a_ticket_spares_the_signature_and_holds_with_its_configuration_alone() {
    let authority = Authority::new();
    let config = Arc::new(authority.config(&[NAME], ClientAuth::None));
    for version in [&TLS12, &TLS13] {
        let client = Arc::new(Client::config(authority.roots(), version));
        let mut resumed = Vec::new();
        for config in [config.clone(), config.clone(), Arc::new(authority.config(&[NAME], ClientAuth::None))] {
            let mut session = Session::new(config).expect("a session");
            converse(&mut session, &mut Client::new(&client, NAME), usize::MAX).expect("a handshake");
            resumed.push(session.is_resumed());
        }
        assert_eq!(resumed, [Some(false), Some(true), Some(false)], "{version:?}");
    }
}

#[test]
fn a_client_certificate_names_its_user_and_is_asked_for_as_configured() {
    let (authority, clients, strangers) = (Authority::new(), Authority::new(), Authority::new());
    let plain = || Client::config(authority.roots(), &TLS13);
    let certified = |pair| Client::certified(authority.roots(), &pair);
    let required = || authority.config(&[NAME], ClientAuth::Required(clients.roots()));
    let optional = || authority.config(&[NAME], ClientAuth::Optional(clients.roots()));
    let user = |config, client| open(config, client).map(|(session, _)| session.client_name());
    let named = |name: &str| Ok(ClientName::User(name.to_owned()));
    assert_eq!(user(required(), certified(clients.client(&["alice"]))), named("alice"));
    assert_eq!(user(optional(), certified(clients.client(&["Zoë"]))), named("Zoë"));
    assert_eq!(user(optional(), plain()), Ok(ClientName::NotShown));
    let unasked = authority.config(&[NAME], ClientAuth::None);
    assert_eq!(user(unasked, certified(clients.client(&["alice"]))), Ok(ClientName::NotShown));
    assert!(user(required(), plain()).is_err());
    for config in [required(), optional()] {
        let refused = user(config, certified(strangers.client(&["alice"]))).expect_err("another authority's");
        assert!(refused.contains("invalid peer certificate"), "{refused}");
    }
    for names in [&[][..], &[""], &["a".repeat(129).as_str()]] {
        assert_eq!(user(optional(), certified(clients.client(names))), Ok(ClientName::Nameless), "{names:?}");
    }
    // Each shows its certificate each time: a ticket would spare it that.
    let (config, client) = (Arc::new(optional()), Arc::new(certified(clients.client(&["alice"]))));
    for _ in 0..2 {
        let mut session = Session::new(config.clone()).expect("a session");
        converse(&mut session, &mut Client::new(&client, NAME), usize::MAX).expect("a handshake");
        assert_eq!(session.is_resumed(), Some(false));
    }
}

#[test]
fn what_is_no_tls_is_told_and_broken_off() {
    let config = Arc::new(Authority::new().config(&[NAME], ClientAuth::None));
    let receive = |bytes: &[u8]| {
        let mut session = Session::new(config.clone()).expect("a session");
        let (mut heard, mut out) = (Vec::new(), Vec::new());
        let progress = session.receive(&mut bytes.to_vec(), &mut heard, &mut out);
        assert!(heard.is_empty());
        (progress, out)
    };
    let (progress, out) = receive(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(progress, Progress::Failed(SessionError::PlainHttp));
    let text = String::from_utf8(out).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    assert!(head.starts_with("HTTP/1.1 400 ") && head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    let (progress, out) = receive(&[0; 100]);
    assert!(matches!(progress, Progress::Failed(SessionError::Tls(_))), "{progress:?}");
    assert_eq!(out.first(), Some(&21), "an alert");
}

#[test]
fn a_handshake_holds_no_more_than_its_bound() {
    let config = Arc::new(Authority::new().config(&[NAME], ClientAuth::None));
    let mut session = Session::new(config).expect("a session");
    // A ClientHello of 16 MB, in records of its first bytes.
    let mut record = vec![22, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF];
    record.resize(5 + 0x4000, 0);
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let mut received = 0;
    let broken = (0..100).find_map(|_| {
        received += record.len();
        match session.receive(&mut record.clone(), &mut heard, &mut out) {
            Progress::Open | Progress::PeerClosed => None,
            Progress::Failed(error) => Some(error),
        }
    });
    assert!(broken.is_some() && received <= 3 * record.len(), "{broken:?} behind {received} bytes");
    let mut waiting = Session::new(Arc::new(Authority::new().config(&[NAME], ClientAuth::None))).expect("a session");
    assert_eq!(waiting.keep(&vec![22; crate::limits::TLS_HANDSHAKE_BYTES_MAX]), Ok(()));
    assert_eq!(waiting.keep(b"x"), Err(SessionError::TooLarge));
}

#[test]
fn changed_records_break_the_session() {
    let authority = Authority::new();
    let (mut session, mut client) =
        open(authority.config(&[NAME], ClientAuth::None), Client::config(authority.roots(), &TLS13)).expect("open");
    let mut record = client.say(b"hello");
    *record.last_mut().expect("a record") ^= 1;
    let (mut heard, mut out) = (Vec::new(), Vec::new());
    let progress = session.receive(&mut record, &mut heard, &mut out);
    assert_eq!(progress, Progress::Failed(SessionError::Tls(rustls::Error::DecryptError)));
    assert!(heard.is_empty() && !out.is_empty());
    assert!(client.input(&out).is_err(), "the client is told");
}

#[test]
fn a_certificate_has_to_be_one_with_its_own_key() {
    let authority = Authority::new();
    let (one, other) = (authority.server(&[NAME]), authority.server(&[NAME]));
    let error = |chain: &str, key: &str| {
        Certificate::from_pem(chain.as_bytes(), key.as_bytes()).expect_err("no certificate").to_string()
    };
    assert_eq!(error(&one.certificate, &other.key), "its key is another certificate's");
    assert_eq!(error("nothing", &one.key), "there is no certificate in PEM in it");
    assert_eq!(error(&one.certificate, &one.certificate), "there is no private key in PEM in its key file");
    for alg in [&rcgen::PKCS_ED25519, &rcgen::PKCS_ECDSA_P384_SHA384] {
        authority.sign(&[NAME], &[], alg).parse();
    }
}

#[test]
fn an_idle_session_is_small() {
    let authority = Authority::new();
    let (config, client) =
        (Arc::new(authority.config(&[NAME], ClientAuth::None)), Arc::new(Client::config(authority.roots(), &TLS13)));
    let mut client = Client::new(&client, NAME);
    let mut session = None;
    let mut session_bytes = 0;
    for round in 0..6 {
        let mut said = client.output();
        if round == 4 {
            said.extend(client.say(b"hello"));
        }
        let (mut heard, mut out) = (Vec::with_capacity(16_384), Vec::with_capacity(16_384));
        let info = allocation_counter::measure(|| {
            let session = session.get_or_insert_with(|| Session::new(config.clone()).expect("a session"));
            session.receive(&mut said, &mut heard, &mut out);
            if round == 5 {
                session.seal(b"hello", &mut out).expect("sealed");
            }
        });
        session_bytes += info.bytes_current;
        client.input(&out).expect("good records");
    }
    let session = session.expect("it has begun");
    assert!(!session.is_handshaking());
    let bytes = session_bytes + size_of::<Session>() as i64;
    assert!(bytes <= 4_096, "a session takes {bytes} bytes");
}
