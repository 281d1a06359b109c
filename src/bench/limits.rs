//! Every bound of the load generator, each with what happens beyond it.

use std::time::Duration;

/// Connections of one run. The options refuse more.
pub(super) const CONNECTIONS_MAX: u64 = 1_000_000;

/// Streams (rooms, or private senders) and users: what six digits name. The options refuse more.
pub(super) const STREAMS_MAX: u64 = 1_000_000;

/// Messages of one stream: what eight digits number. A run that gets there ends with an error.
pub(super) const SEQUENCE_MAX: u32 = 99_999_999;

/// Messages without their last delivery at any time, in one room. The options refuse more.
pub(super) const OUTSTANDING_MAX: u64 = 100_000;

/// The same in all rooms together, or among all users. The options refuse more.
pub(super) const OUTSTANDING_TOTAL_MAX: usize = 10_000_000;

/// Delivered messages are at least so long: names, stamp and the envelope's fields have to fit.
pub(super) const PAYLOAD_BYTES_MIN: u64 = 112;

/// Delivered messages of JSON are at least so long: a message of this kind has some fields. The options refuse less.
pub(super) const JSON_PAYLOAD_BYTES_MIN: u64 = 256;

/// JSON messages that differ in more than their numbers; then the first comes again. Also what a compressor with a
/// window of 32 KiB must have forgotten by then.
pub(super) const JSON_BODIES: usize = 256;

/// Delivered messages are at most so long, so that any frame fits the receive buffer.
pub(super) const PAYLOAD_BYTES_MAX: u64 = 64 * 1024;

/// Messages that each client of `resume` has missed. The options refuse more.
pub(super) const MISSED_MAX: u64 = 1_000;

/// Attackers of one kind. The options refuse more.
pub(super) const ATTACKERS_MAX: u64 = 1_000_000;

/// Bombs of one kind in a round. The options refuse more.
pub(super) const BOMBS_MAX: u64 = 100_000;

/// What a deflate bomb inflates to, at least: from here on it is worth its name. The options refuse less.
pub(super) const BOMB_BYTES_MIN: u64 = 1 << 20;

/// And at most. The options refuse more.
pub(super) const BOMB_BYTES_MAX: u64 = 64 << 30;

/// Commands that an attacker sends in one write. The options refuse more.
pub(super) const COMMANDS_MAX: u64 = 1_000_000;

/// Messages in the room whose history is asked for, and the bytes of each one's content.
pub(super) const HISTORY_MESSAGES: usize = 1_000;

/// See [`HISTORY_MESSAGES`].
pub(super) const HISTORY_CONTENT_BYTES: usize = 4_096;

/// Bytes of the user ids that members of a crowded room have: the longest that a server takes.
pub(super) const LONG_USER_BYTES: usize = 128;

/// The send buffer of an attacker that always has more to send: what waits lies in the server's socket, not in its own.
pub(super) const BUSY_SEND_BYTES: usize = 128 * 1024;

/// Bytes that such an attacker hands to the kernel at once.
pub(super) const BUSY_PART_BYTES: usize = 256 * 1024;

/// How often it does so before it waits for the next tick, where the server takes everything at once.
pub(super) const BUSY_PARTS_MAX: usize = 16;

/// Bytes of a message's beginning that an attacker looks at.
pub(super) const START_BYTES: usize = 24;

/// How often each dribbler sends a byte, in milliseconds.
pub(super) const DRIBBLE_MS: u64 = 1_000;

/// The pace of attacks, in milliseconds: a share of the dribblers at a time, so that the generator is never long away
/// from its core.
pub(super) const ATTACK_TICK_MS: u64 = 10;

/// Zeros that are compressed to become part of a deflate bomb; the bomb repeats them.
pub(super) const BOMB_PART_BYTES: u64 = 64 << 20;

/// Empty fragments of one message: 1.5 MiB of frames that carry nothing.
pub(super) const EMPTY_FRAGMENTS: usize = 256 * 1024;

/// The receive buffer all connections share. A frame that does not fit is malformed.
pub(super) const RECEIVE_BYTES: usize = 256 * 1024;

/// Readiness events taken from the kernel in one turn; the rest come in the next.
pub(super) const EVENTS_PER_TURN: usize = 1024;

/// Longest response head to an upgrade request. A longer one fails the handshake.
pub(super) const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Header fields in such a head. More fail the handshake.
pub(super) const HEADERS_MAX: usize = 64;

/// Sequence numbers remembered as skipped, so that a late one is told from a doubled one. Beyond it, skipped numbers
/// count as missing at once.
pub(super) const SKIPPED_MAX: usize = 65_536;

/// Faults of one kind described in words; the rest are counted.
pub(super) const FAULTS_TOLD_MAX: usize = 8;

/// Messages that each connection has compared byte for byte with what was published, from its first; of those beyond
/// it only the stamp is looked at, and of compressed ones nothing.
pub(super) const COMPARED_FIRST: u32 = 4;

/// One connection in so many has all its messages compared, the first one among them.
pub(super) const COMPARED_EVERY: usize = 250;

/// How long one turn waits for the kernel at most, in milliseconds: the pace of deadlines and of the progress bar.
pub(super) const TURN_MS_MAX: u64 = 100;

/// A generator busier than this may have been the bottleneck, in percent of its core.
pub(super) const BUSY_PERCENT: f64 = 95.0;

/// A process that had to wait longer than this for its core was not alone on it, in percent of the time.
pub(super) const WAITED_PERCENT: f64 = 5.0;

/// Receivers that each user of `private` sends to in turn.
pub(super) const RECEIVERS_MAX: usize = 16;

/// Texts in flags: paths and names. The options refuse longer ones.
pub(super) const TEXT_BYTES_MAX: usize = 4096;

/// A token in a flag. The options refuse a longer one.
pub(super) const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Largest file with a key that makes tokens, in bytes. The options refuse a larger one.
pub(super) const KEY_FILE_BYTES_MAX: usize = 64 * 1024;

/// How long tokens are good that are made for a run, in milliseconds: longer than any run.
pub(super) const TOKEN_TTL_MS: u64 = 24 * 60 * 60 * 1_000;

/// Clients that log in at once join rooms of so many.
pub(super) const LOGINS_PER_ROOM: usize = 10;

/// By how much the thread of those who log in stands back where it shares a core with the measuring one (nice(2)).
pub(super) const LOGINS_NICENESS: i32 = 5;

/// Time between two rounds of a subscriber of `market`, in milliseconds. The options refuse more.
pub(super) const INTERVAL_MS_MAX: u64 = 3_600_000;

/// Updates in one command of `market`. The options refuse more.
pub(super) const BATCH_MAX: u64 = 10_000;

/// Updates a second of `market`. The options refuse more.
pub(super) const UPDATES_PER_S_MAX: u64 = 100_000_000;

/// Items that a subscriber of `market` names. The options refuse more.
pub(super) const ITEMS_MAX: u64 = 1_000;

/// First values of items in one command: as much as fits into a message of 1 MiB, whatever they carry.
pub(super) const FIRST_VALUES: usize = 200;

/// Batches of a publisher that wait for their acks. More wait until some are acked, and leave late.
pub(super) const UNACKED_MAX: usize = 10_000;

/// Bytes that a publisher's socket has not taken. More wait, and leave late.
pub(super) const UNSENT_BYTES_MAX: usize = 1 << 20;

/// After which pause what was refused as unavailable is sent again, in milliseconds.
pub(super) const UNAVAILABLE_PAUSE_MS: u64 = 200;

/// After which pause at most a connection that has ended comes back, in milliseconds.
pub(super) const RETURN_PAUSE_MS_MAX: u64 = 500;

/// How often at most the open loop of `market` wakes the generator: what is due by then leaves together.
pub(super) const WAKE_EVERY_MIN: Duration = Duration::from_micros(500);

/// Descriptors beside the connections: standard streams, poll, timer, files of `/proc`.
pub(super) const DESCRIPTORS_SPARE: u64 = 32;

const _: () = assert!(DRIBBLE_MS.is_multiple_of(ATTACK_TICK_MS), "every dribbler has its tick");
const _: () = assert!(JSON_BODIES as u64 * JSON_PAYLOAD_BYTES_MIN > 32 * 1024, "no body comes back within a window");
