//! Compressed messages from clients: in every legal form, and what becomes of those that are none.

use std::sync::atomic::{AtomicU32, Ordering};

use fanfare_testing::deflate::{Agreed, Packer, RSV1};
use fanfare_testing::raw::{BINARY, CONTINUATION, FIN, PING, PONG, RawConn, TEXT, masked};
use fanfare_testing::{Client, Entrance, Server, Way, await_metric, one_per_reactor};
use serde_json::{Value, json};

const INFLATED: &str = "fanfare_inflated_bytes_total";
const OFFER: &str = "permessage-deflate";
const TAKING_NO_CONTEXT: &str = "permessage-deflate; client_no_context_takeover";

/// A connection to a raw room that gets back what it sends.
struct Echo {
    conn: RawConn,
    agreed: Agreed,
    packer: Packer,
}

impl Echo {
    /// In a room of its own: in a cluster, what was said in one may still be on its way to another node.
    #[track_caller]
    fn connect(server: &dyn Entrance, offer: &str) -> Echo {
        static ROOMS: AtomicU32 = AtomicU32::new(0);
        Echo::of_room(server, &format!("own-{}", ROOMS.fetch_add(1, Ordering::Relaxed)), offer)
    }

    #[track_caller]
    fn of_room(server: &dyn Entrance, room: &str, offer: &str) -> Echo {
        let (conn, agreed) = RawConn::deflating(server, &format!("/raw/{room}?echo=1"), offer);
        let packer = agreed.packer();
        Echo { conn, agreed, packer }
    }

    /// Sends a compressed message; its bytes on the wire, without header.
    #[track_caller]
    fn send(&mut self, first: u8, message: &[u8]) -> usize {
        let payload = self.packer.pack(message);
        self.conn.send_frame(first | RSV1, &payload);
        payload.len()
    }

    #[track_caller]
    fn expect(&mut self, first: u8, message: &[u8]) {
        let received = self.conn.read_message(self.agreed.server_bits);
        assert_eq!(received.text, first == TEXT, "the opcode is kept");
        assert!(
            received.bytes == message,
            "sent {} bytes {:.200}, got {} bytes {:.200}",
            message.len(),
            message.escape_ascii().to_string(),
            received.bytes.len(),
            received.bytes.escape_ascii().to_string()
        );
    }

    /// There and back.
    #[track_caller]
    fn echoes(&mut self, first: u8, message: &[u8]) -> usize {
        let payload_bytes = self.send(first, message);
        self.expect(first, message);
        payload_bytes
    }
}

pub fn messages_may_refer_to_earlier_ones(way: Way) {
    let server = way.start(&[]);
    let mut echo = Echo::connect(&server, OFFER);
    let mut random = fastrand::Rng::with_seed(1);
    let mut total_bytes = 0;
    let blocks: Vec<Vec<u8>> = (0..40).map(|_| (0..250).map(|_| random.u8(..)).collect()).collect();
    for at in 0..300 {
        // A block that was sent before is only referred to, up to a window back.
        let message = &blocks[at % 40];
        let payload_bytes = echo.echoes(BINARY, message);
        assert!(at < 40 || payload_bytes < 50, "{payload_bytes} bytes refer to 250");
        total_bytes += message.len() as u64;
    }
    // What is longer than the window pushes everything else out of it.
    let long: Vec<u8> = (0..100_000).map(|_| random.u8(..)).collect();
    echo.echoes(BINARY, &long);
    assert!(echo.echoes(BINARY, &long[90_000..]) < 500);
    assert!(echo.echoes(BINARY, &long[..1_000]) > 900);
    // A message that is sent as it is does not belong to what may be referred to (RFC 7692 §7.2.3.2).
    echo.conn.send_frame(BINARY, &blocks[0]);
    echo.expect(BINARY, &blocks[0]);
    assert!(echo.echoes(BINARY, &long[..1_000]) < 50, "the last one but one");
    echo.conn.nothing_more();
    await_metric(&server, INFLATED, total_bytes + 100_000 + 10_000 + 1_000 + 1_000);
}

pub fn messages_without_context_takeover(way: Way) {
    let server = way.start(&[]);
    let mut echo = Echo::connect(&server, TAKING_NO_CONTEXT);
    let message = "the same again and again ".repeat(4);
    let first_bytes = echo.echoes(TEXT, message.as_bytes());
    for _ in 0..100 {
        assert_eq!(echo.echoes(TEXT, message.as_bytes()), first_bytes);
    }
    await_metric(&server, "fanfare_deflate_contexts", 0);

    // RFC 7692 §7.2.3.2: "Hello" and "Hello" again, the second by reference.
    let (hello, again) = ([0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00], [0xF2, 0x00, 0x11, 0x00, 0x00]);
    let mut allowed = Echo::connect(&server, OFFER);
    for payload in [&hello[..], &again] {
        allowed.conn.send_frame(TEXT | RSV1, payload);
        allowed.expect(TEXT, b"Hello");
    }
    let mut forbidden = Echo::connect(&server, TAKING_NO_CONTEXT);
    forbidden.conn.send_frame(TEXT | RSV1, &hello);
    forbidden.expect(TEXT, b"Hello");
    forbidden.conn.send_frame(TEXT | RSV1, &again);
    forbidden.conn.expect_close(1007, "a reference to an earlier message where none was agreed on");
}

/// Also where the client is told not to, because nothing is left to keep earlier messages in.
pub fn a_client_that_was_told_so_must_not_refer_back(reactors: usize) {
    let server = Server::with_reactors(reactors, &["--deflate.contexts_max", "1"]);
    let mut first = Echo::of_room(&server, "den", OFFER);
    let mut second = Echo::of_room(&server, "den", OFFER);
    assert!(first.agreed.client_takeover && !second.agreed.client_takeover);
    let message = b"one message that is long enough to be referred to";
    for _ in 0..3 {
        first.echoes(TEXT, message);
        second.expect(TEXT, message);
        second.echoes(TEXT, message);
        first.expect(TEXT, message);
    }
    let mut disobedient = Packer::new(15, true);
    second.conn.send_frame(TEXT | RSV1, &disobedient.pack(message));
    second.expect(TEXT, message);
    second.conn.send_frame(TEXT | RSV1, &disobedient.pack(message));
    second.conn.expect_close(1007, "a reference back");
    first.expect(TEXT, message);
    first.echoes(TEXT, message);
}

pub fn compressed_fragments_with_pings_between(way: Way) {
    let server = way.start(&[]);
    for offer in [OFFER, TAKING_NO_CONTEXT] {
        let mut echo = Echo::connect(&server, offer);
        let message = "fragments of a message, 🦀 some of them cut inside of a letter ".repeat(3);
        // Each payload cut in two at every byte.
        for cut in 0.. {
            let payload = echo.packer.pack(message.as_bytes());
            if cut > payload.len() {
                echo.conn.send_frame(TEXT | RSV1, &payload);
                echo.expect(TEXT, message.as_bytes());
                break;
            }
            echo.conn.send_frame(TEXT & !FIN | RSV1, &payload[..cut]);
            echo.conn.send_frame(PING, b"between");
            let pong = echo.conn.read_frame().expect("a pong before the message is complete");
            assert_eq!((pong.first, pong.payload.as_slice()), (PONG, &b"between"[..]));
            echo.conn.send_frame(CONTINUATION, &payload[cut..]);
            echo.expect(TEXT, message.as_bytes());
        }
        // And one in single bytes, with empty fragments, pings and pongs.
        let payload = echo.packer.pack(message.as_bytes());
        echo.conn.send_frame(BINARY & !FIN | RSV1, b"");
        for byte in &payload {
            echo.conn.send_frame(CONTINUATION & !FIN, &[*byte]);
            echo.conn.send_frame(PONG, b"unasked");
            echo.conn.send_frame(CONTINUATION & !FIN, b"");
            echo.conn.send_frame(PING, b"");
        }
        echo.conn.send_frame(CONTINUATION, b"");
        // Pongs come before it, and are passed over.
        echo.expect(BINARY, message.as_bytes());
        echo.echoes(TEXT, b"and on");
    }
}

pub fn compressed_messages_cut_at_every_byte(reactors: usize) {
    let server = Server::with_reactors(reactors, &[]);
    // Once these are answered, what was written before has been received.
    let mut witnesses = one_per_reactor(&server, reactors, || Client::connect(&server, "witness"));
    let mut echo = Echo::connect(&server, TAKING_NO_CONTEXT);
    let message = "more than 125 bytes compressed, so that the longer form of the header is cut as well: 0123456789 \
                   abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 🦀";
    let frame = masked(TEXT | RSV1, &echo.packer.pack(message.as_bytes()));
    assert_eq!(frame[1], 0x80 | 126, "the longer form");
    for cut in 1..frame.len() {
        echo.conn.send(&frame[..cut]);
        witnesses.iter_mut().for_each(Client::barrier);
        echo.conn.send(&frame[cut..]);
        echo.expect(TEXT, message.as_bytes());
    }
    let mut echo = Echo::connect(&server, OFFER);
    let message = "in single bytes ".repeat(20);
    for byte in masked(BINARY | RSV1, &echo.packer.pack(message.as_bytes())) {
        echo.conn.send(&[byte]);
    }
    echo.expect(BINARY, message.as_bytes());
    // Many in one piece, the last of them cut.
    let mut bytes = Vec::new();
    for at in 0..100 {
        bytes.extend(masked(TEXT | RSV1, &echo.packer.pack(format!("message {at} of many").as_bytes())));
    }
    echo.conn.send(&bytes[..bytes.len() - 3]);
    witnesses.iter_mut().for_each(Client::barrier);
    echo.conn.send(&bytes[bytes.len() - 3..]);
    for at in 0..100 {
        echo.expect(TEXT, format!("message {at} of many").as_bytes());
    }
}

/// RFC 7692 §7.2.3.4: a block may say that it is the last; what follows in the message is a new stream.
pub fn streams_may_end_within_messages(way: Way) {
    let server = way.start(&[]);
    for offer in [OFFER, TAKING_NO_CONTEXT] {
        let mut echo = Echo::connect(&server, offer);
        // The RFC's own example.
        echo.conn.send_frame(TEXT | RSV1, &[0xF3, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00, 0x00]);
        echo.expect(TEXT, b"Hello");
        let part = "each part is a stream of its own; ".repeat(5);
        for streams in 1..16 {
            let message = part.repeat(streams);
            for ends in [true, false] {
                echo.packer.begin();
                let mut payload: Vec<u8> = Vec::new();
                (1..streams).for_each(|_| payload.extend(echo.packer.last_part(part.as_bytes())));
                match ends {
                    true => {
                        payload.extend(echo.packer.last_part(part.as_bytes()));
                        payload.push(0);
                    }
                    false => payload.extend(echo.packer.pack(part.as_bytes())),
                }
                echo.conn.send_frame(TEXT | RSV1, &payload);
                echo.expect(TEXT, message.as_bytes());
                // Without takeover the same bytes mean the same again: now in fragments.
                if !echo.agreed.client_takeover {
                    let cut = payload.len() / 3;
                    echo.conn.send_frame(BINARY & !FIN | RSV1, &payload[..cut]);
                    echo.conn.send_frame(CONTINUATION & !FIN, &payload[cut..2 * cut]);
                    echo.conn.send_frame(CONTINUATION, &payload[2 * cut..]);
                    echo.expect(BINARY, message.as_bytes());
                }
                echo.echoes(TEXT, b"one that goes on");
            }
        }
    }
}

pub fn empty_compressed_messages(way: Way) {
    let server = way.start(&[]);
    for offer in [OFFER, TAKING_NO_CONTEXT] {
        let mut echo = Echo::connect(&server, offer);
        echo.echoes(TEXT, b"something before");
        // RFC 7692 §7.2.3.6; an empty stream that ends, and empty blocks.
        for payload in [&[0x00][..], &[0x03, 0x00, 0x00], &[0x02, 0x00], &[0x00, 0x00, 0x00, 0xFF, 0xFF, 0x00]] {
            for first in [TEXT, BINARY] {
                echo.conn.send_frame(first | RSV1, payload);
                echo.expect(first, b"");
                echo.conn.send_frame(first & !FIN | RSV1, payload);
                echo.conn.send_frame(CONTINUATION, b"");
                echo.expect(first, b"");
            }
        }
        echo.echoes(TEXT, b"something before and after");
    }
}

pub fn clients_with_windows_of_every_size(way: Way) {
    let server = way.start(&["--deflate.client_window_bits", "15"]);
    let mut random = fastrand::Rng::with_seed(3);
    for bits in 9..=15 {
        let mut echo = Echo::connect(&server, &format!("{OFFER}; client_max_window_bits={bits}"));
        assert_eq!((echo.agreed.client_bits, echo.agreed.client_takeover), (bits, true));
        await_metric(&server, "fanfare_deflate_context_bytes", 1 << bits);
        // Blocks that come again at all distances up to the window, across several messages.
        let blocks: Vec<Vec<u8>> = (0..(1 << bits) / 100).map(|_| (0..90).map(|_| random.u8(..)).collect()).collect();
        let mut smaller = 0;
        for at in 0..300 {
            let count = random.usize(1..4);
            let message = (0..count).flat_map(|_| blocks[random.usize(..blocks.len())].clone()).collect::<Vec<u8>>();
            smaller += usize::from(echo.echoes(BINARY, &message) < message.len() / 2);
            if at % 50 == 0 {
                // Longer than the small windows.
                let long: Vec<u8> = blocks.concat();
                echo.echoes(BINARY, &long);
            }
        }
        assert!(smaller > 30, "only {smaller} messages of {bits} bits refer to earlier ones");
        drop(echo);
        await_metric(&server, "fanfare_deflate_context_bytes", 0);
    }
}

pub fn commands_may_be_compressed(way: Way) {
    let server = way.start(&[]);
    let mut bob = Client::connect(&server, "bob");
    let (mut alice, agreed) = RawConn::deflating(&server, "/?userId=alice", OFFER);
    let mut packer = agreed.packer();
    assert!(alice.read_text().contains("welcome"));
    for at in 0..200 {
        let content = format!("content {at} ").repeat(at);
        let command = json!({"type": "private_msg", "toUser": "bob", "content": content, "id": at}).to_string();
        // Text or binary, compressed or not: a command is a command.
        match at % 4 {
            0 => alice.send_frame(TEXT, command.as_bytes()),
            1 => alice.send_frame(BINARY | RSV1, &packer.pack(command.as_bytes())),
            _ => alice.send_frame(TEXT | RSV1, &packer.pack(command.as_bytes())),
        }
        let reply: Value = serde_json::from_str(&alice.read_text()).expect("a reply");
        assert_eq!(reply, json!({"type": "ack", "id": at}));
        let message = bob.recv_type("private_msg");
        assert_eq!((&message["from"], &message["content"]), (&json!("alice"), &json!(content)));
    }
}

/// More at once than a reactor decompresses as they come.
pub fn many_unfinished_compressed_messages(way: Way) {
    const CLIENTS: usize = 150;
    let server = way.start(&[]);
    let mut echoes: Vec<Echo> = (0..CLIENTS).map(|at| Echo::of_room(&server, &format!("room-{at}"), OFFER)).collect();
    let mut total_bytes = 0;
    for round in 0..3 {
        let message = |at: usize| format!("a message of client {at}, ").repeat(20 + round).into_bytes();
        let mut rests = Vec::new();
        for (at, echo) in echoes.iter_mut().enumerate() {
            let mut payload = echo.packer.pack(&message(at));
            let rest = payload.split_off(payload.len() / 2);
            echo.conn.send_frame(BINARY & !FIN | RSV1, &payload);
            echo.conn.send_frame(PING, b"");
            assert_eq!(echo.conn.read_frame().map(|frame| frame.first), Some(PONG));
            rests.push(rest);
        }
        for (at, (echo, rest)) in echoes.iter_mut().zip(rests).enumerate() {
            echo.conn.send_frame(CONTINUATION, &rest);
            echo.expect(BINARY, &message(at));
            total_bytes += message(at).len() as u64;
        }
    }
    echoes.iter_mut().for_each(|echo| echo.conn.nothing_more());
    await_metric(&server, INFLATED, total_bytes);
}

pub fn the_size_limit_counts_what_a_message_holds(way: Way) {
    let server = way.start(&["--limits.message_bytes_max", "64KiB"]);
    let mut random = fastrand::Rng::with_seed(4);
    let noise: Vec<u8> = (0..65_536).map(|_| random.u8(..)).collect();
    for offer in [OFFER, TAKING_NO_CONTEXT] {
        let mut echo = Echo::connect(&server, offer);
        // Zeros are far smaller on the wire, noise is a little larger there.
        for message in [&[0; 65_536][..], &noise] {
            echo.echoes(BINARY, message);
            let payload = echo.packer.pack(message);
            let cut = payload.len() / 2;
            echo.conn.send_frame(BINARY & !FIN | RSV1, &payload[..cut]);
            echo.conn.send_frame(CONTINUATION, &payload[cut..]);
            echo.expect(BINARY, message);
        }
    }
}
