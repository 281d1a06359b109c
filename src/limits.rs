//! Every fixed bound in one place, each with what happens beyond it.
//!
//! What an operator may want to change is a setting (`config`); what stands here is part of the design. The
//! assertions at the end hold the bounds together at compile time.

mod items;

pub use items::*;

/// Longest user id, in bytes of UTF-8. A longer one in the request is answered 400.
pub const USER_ID_BYTES_MAX: usize = 128;

/// Longest room id, in bytes of UTF-8. A longer one is `bad_room_id` (400 for a raw room's path).
pub const ROOM_ID_BYTES_MAX: usize = 255;

/// Longest name of an item of a keyed room, in bytes of UTF-8, and of a pattern for items. A longer name is `bad_item`, a
/// longer pattern `bad_options`.
pub const ITEM_BYTES_MAX: usize = 128;

/// Updates of one `room_msgs`. One more is `too_many_items`.
pub const ITEM_UPDATES_MAX: usize = 10_000;

/// Items and patterns that one subscription of a keyed room may name. One more is `too_many_items`.
pub const ITEM_PATTERNS_MAX: usize = 1_000;

/// Longest time between two rounds that a subscriber of a keyed room may ask for, in milliseconds: an hour. More is taken
/// for so much, as the answer says.
pub const ROUND_INTERVAL_MS_MAX: u64 = 60 * 60 * 1_000;

/// Longest reason that an operator gives for removing a user from a room, in bytes of UTF-8. A longer one is refused.
pub const KICK_REASON_BYTES_MAX: usize = 1024;

/// Longest token at the handshake, in bytes: it stands in the request head, whose bound is a setting. A longer one is
/// refused.
pub const TOKEN_BYTES_MAX: usize = 64 * 1024;

/// Longest token in `refresh`, in bytes. A longer one is `unauthorized`.
pub const TOKEN_REFRESH_BYTES_MAX: usize = 8 * 1024;

/// A connection whose token has ended is closed at most so much later, in milliseconds, by chance, so that not all who came
/// at once go at once. With the turn that closes it, it stays within five seconds.
pub const EXPIRY_JITTER_MS_MAX: u64 = 4_000;

/// Tokens of one reactor that wait for the thread that checks signatures by public keys. More wait in the reactor, with
/// their connections.
pub const VERIFICATIONS_UNDER_WAY: usize = 64;

/// By how much the thread that checks signatures by public keys stands back where it shares a core with a reactor
/// (nice(2)): deliveries go first, and logins get what is left, a quarter of a core at least.
pub const VERIFIER_NICENESS: i32 = 5;

/// Keys that check tokens, of the settings and of a key set each. One more in the settings is refused, in a key set the
/// whole set.
pub const TOKEN_KEYS_MAX: usize = 100;

/// Longest key set, in bytes. A longer one is refused.
pub const KEY_SET_BYTES_MAX: usize = 256 * 1024;

/// How often a key set is fetched because of tokens whose key is not there, in milliseconds, at most. The others are
/// refused: with 401 where the last fetch was good, else with 503.
pub const KEYS_WANTED_MS_MIN: u64 = 10_000;

/// Before a key set that could not be fetched is fetched for the second time, in milliseconds; doubled with each further
/// time.
pub const KEYS_RETRY_MS_MIN: u64 = 1_000;

/// Before a key set is fetched again, in milliseconds, at most, where `auth.jwks_refresh` is not shorter.
pub const KEYS_RETRY_MS_MAX: u64 = 60_000;

/// Questions to the backend that wait or are under way; handshakes have three quarters of them at most. One more is refused
/// at once, as where the backend is away.
pub const QUESTIONS_MAX: usize = 16_384;

/// Bytes of an answer of the backend, beside twice those of its question. A longer one is not read, and counts as none.
pub const DECISION_BYTES_MAX: usize = 64 * 1024;

/// Decisions that are known for `auth.url_cache`; beyond it the oldest is forgotten early.
pub const DECISIONS_KEPT_MAX: usize = 4_096;

/// Longest answer for which that is done, in bytes.
pub const DECISION_KEPT_BYTES_MAX: usize = 4 * 1024;

/// Bytes of a response's head, of the backend or with a key set. With a longer one the request has failed.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 16 * 1024;

/// Patterns with a `*` elsewhere than at their end in one list of a token. With more, the token is refused: they alone are
/// tried one by one.
pub const TOKEN_PATTERNS_MAX: usize = 64;

/// Permissions that are found again when a token with the same claim comes; beyond it those that no connection has are
/// forgotten, or all of them.
pub const PERMISSIONS_KEPT_MAX: usize = 1_024;

/// Longest claim for which that is done, in bytes.
pub const PERMISSIONS_KEPT_BYTES_MAX: usize = 1_024;

/// Reactors in one node. The configuration refuses more.
pub const REACTORS_MAX: usize = 256;

/// Bytes a reactor takes from one socket in one read. A socket with more is read again in the next turn, after the
/// others had theirs.
pub const READ_BYTES: usize = 64 * 1024;

/// Bytes of application data in one TLS record (RFC 8446 §5.1). What a socket has not taken of the last one is held.
pub const TLS_RECORD_BYTES_MAX: usize = 16 * 1024;

/// Bytes of a TLS handshake that are held until its message is whole; a client that sends a larger one is let go.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// Steps of TLS handshakes that a reactor takes in one turn: each may be a signature, which takes as long as a hundred
/// sends. The others wait for the next turns.
pub const TLS_HANDSHAKES_PER_TURN: usize = 8;

/// Bytes of the buffers for records that a reactor keeps between flushes.
pub const TLS_POOL_BYTES_MAX: usize = 1 << 20;

/// Longest header of the PROXY protocol, in bytes: 16 and what they tell the length of. A longer one ends the connection.
pub const PROXY_HEADER_BYTES_MAX: usize = 16 + 2048;

/// Hops of `X-Forwarded-For` that are looked at, from the last; where all of them are trusted proxies the client is the
/// first of these.
pub const PROXY_HOPS_MAX: usize = 32;

/// Addresses without a socket whose handshakes of this second are remembered; beyond it the one that has been idle for
/// longest is forgotten early. Those with sockets are bounded by the sockets.
pub const ADDRESSES_IDLE_MAX: usize = 64 * 1024;

/// Shards of the table of addresses: reactors that take clients at the same time seldom meet in one.
pub const ADDRESS_SHARDS: usize = 64;

/// Bytes that a client may have sent behind its request while another thread looks at its token: whoever it is, it is not
/// let in yet. More are answered 400. Behind that it is [`READ_BYTES`] until the handshake is answered, although RFC 6455
/// §4.1 asks clients to wait.
pub const EARLY_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a request that count as part of the socket, which is bounded by number; from more on they count against the
/// node's budget, and over that their connection is refused before others are closed.
pub const REQUEST_BYTES_FREE: usize = 2 * 1024;

/// Descriptors a node needs for itself beside its reactors': standard streams, signals, its other threads, Redis. How those
/// beyond are divided stands in `descriptors`.
pub const OWN_DESCRIPTORS: u64 = 64;

/// Bytes of answers that a connection may have waiting before what it sends is decoded no further: it goes on when its
/// socket has taken half of them. As many may be made for it, and decompressed of it, in one turn. One answer, or one
/// message, may go beyond.
pub const INTAKE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of answers that connections which waited for their turn may cause together in one turn; the others wait for the
/// next.
pub const RESUMED_BYTES_PER_TURN: u64 = 256 * 1024;

/// Bytes of answers of one connection and turn that lie in one buffer; more go into the next.
pub const OWN_BATCH_BYTES_MAX: usize = 16 << 20;

/// Bytes of messages in one page of history, of which one message may go beyond: what a client asks for beyond is not
/// sent.
pub const HISTORY_PAGE_BYTES_MAX: usize = 256 * 1024;

/// Descriptors a reactor needs beside its sockets and one listener for each address: epoll, a waker, the reserve.
pub const REACTOR_DESCRIPTORS: u64 = 3;

/// Listeners of a node, all sources together; a configuration with more is refused.
pub const LISTENERS_MAX: usize = 64;

/// Listening sockets that a process takes from who has started it; with more it does not start.
pub const INHERITED_MAX: usize = 1024;

/// Keys of the operator's programs, all sources together; a configuration with more is refused.
pub const API_KEYS_MAX: usize = 100;

/// Bytes of a key that a program shows; a longer one is none.
pub const API_KEY_BYTES_MAX: usize = 4096;

/// Bytes of a request for a token of the console; a larger one is answered 413.
pub const CONSOLE_REQUEST_BYTES_MAX: usize = 1024;

/// How long such a request may take to come behind its head, in milliseconds; then it is answered 408.
pub const CONSOLE_BODY_MS_MAX: u64 = 2_000;

/// How long an answer of the doctor stands for all who ask, in milliseconds.
pub const DOCTOR_MS_MAX: u64 = 5_000;

/// How long a token of the console is good, in seconds. The page gets another before that.
pub const CONSOLE_TOKEN_S: u64 = 600;

/// Readiness events taken from the kernel in one turn; the rest come in the next.
pub const EVENTS_PER_TURN: usize = 1024;

/// Requests that a ring of io_uring takes before the kernel is told of them. A turn with more tells it more often.
pub const RING_REQUESTS: u32 = 1024;

/// Completions that such a ring has room for; the kernel keeps those beyond until there is room again.
pub const RING_COMPLETIONS: u32 = 4096;

/// Buffers that the kernel receives into, for all connections of a reactor: a power of two. Where all are in use, a socket
/// waits until some were read. The kernel fills them one after the other, so that few of them stay in the processor's caches.
pub const RING_BUFFERS: u16 = 256;

/// Bytes of each. A longer read comes in pieces.
pub const RING_BUFFER_BYTES: usize = 4096;

/// While no more buffers than this are free, a turn takes no further completions: what they bring would find none.
pub const RING_BUFFERS_KEPT: usize = 64;

/// Connections accepted in one turn; the rest wait in the backlog for the next. Behind each stands a handshake, perhaps a
/// token and a first join, some 50 µs: clients that come all at once lengthen a turn by a millisecond or two, and not by
/// what their number is.
pub const ACCEPTS_PER_TURN: usize = 32;

/// Connections answered 503 in one go while descriptors have run out; then accepting pauses.
pub const REFUSALS_PER_PAUSE: usize = 64;

/// How long accepting pauses once descriptors have run out, in milliseconds.
pub const ACCEPT_PAUSE_MS: u64 = 100;

/// Parcels of mail a reactor's mailbox holds. A sender that finds it full keeps its mail as an ordered spill and
/// stops reading its clients until the spill is gone.
pub const MAILBOX_PARCELS: usize = 1024;

/// Pieces of mail in one parcel: a fuller one leaves before the turn ends, so that the peer can start.
pub const PARCEL_MAIL_MAX: usize = 512;

/// Bytes of mail in one parcel from which it leaves before the turn ends.
pub const PARCEL_BYTES_MAX: usize = 256 * 1024;

/// Bytes of mail that a mailbox holds, frames that several reactors share counted in each. A parcel that would go beyond
/// spills, unless the mailbox is empty; each sender may go beyond by one parcel.
pub const MAILBOX_BYTES_MAX: usize = 16 << 20;

/// What one piece of mail is counted as beside the frames in it: names, ids, positions.
pub const MAIL_BYTES: usize = 256;

/// Ends of connections that a reactor takes in one turn, where each room that one leaves counts as a quarter of an end; the
/// rest in the next turns. When all go at once, those who come and what is delivered wait for a part of them only.
pub const ENDS_PER_TURN: usize = 256;

/// Pieces of mail that a reactor takes in one turn, and the rest of a parcel; the others in the next turns.
pub const MAIL_PER_TURN: usize = 4_096;

/// Thousandths of `limits.memory_max` from which a new connection is answered 503 whose user neither a token, nor the backend,
/// nor a certificate names.
pub const MEMORY_TIGHT_PERMILLE: u32 = 875;

/// The same for every new connection. From 1,000 on the newest are closed with 1013.
pub const MEMORY_SCARCE_PERMILLE: u32 = 950;

/// How often it is looked what the process takes, in milliseconds.
pub const MEMORY_LOOK_MS: u64 = 250;

/// Of so many connections of a reactor one is closed with each look that finds all memory taken.
pub const SHED_SHARE: usize = 128;

/// Connections that a reactor knows as the newest, 12 bytes each; beyond them it does not know which are newer.
pub const NEWEST_MAX: usize = 4_096;

/// Parcels a reactor opens in one turn; the rest wait for the next, so that sockets are not starved.
pub const PARCELS_PER_TURN: usize = 64;

/// Timers looked at in one turn; the rest come in the next ones.
pub const TIMERS_PER_TURN: usize = 256;

/// Topics that take other settings in one turn: each may be tried with every rule for rooms. The others in the next ones.
pub const POLICIES_PER_TURN: usize = 64;

/// Bytes of fan-out gathered in one turn before connections are flushed in the middle of it.
pub const TURN_BYTES_MAX: usize = 256 * 1024;

/// A frame from this size up is shared as it is instead of being copied into the turn's batch.
pub const FRAME_SHARE_BYTES: usize = 16 * 1024;

/// Spare batch buffers a router keeps for later turns; more are freed.
pub const BATCH_POOL_MAX: usize = 1024;

/// A batch buffer that grew beyond this is freed instead of pooled.
pub const BATCH_POOL_BYTES_MAX: usize = 64 * 1024;

/// How many times as large as what a connection is to get of it a segment may be, before that is copied out of it: at
/// once where the connection has sent the rest itself, else when the node is over its budget.
pub const SCRAP_FACTOR: usize = 4;

/// Chunks handed to the kernel in one gathering write.
pub const SEND_SLICES_MAX: usize = 64;

/// Bytes that the kernel takes for a connection in keyed rooms beyond what it has sent; it may exceed that by one of its
/// own buffers. Without this bound it takes megabytes for a client that does not read, and what it has taken nothing newer
/// replaces. Beyond it the socket takes no more, and the connection lags. Other connections have the system's bounds: what
/// waits for them is theirs wherever it is.
pub const UNSENT_BYTES_MAX: u32 = 16 * 1024;

/// Payload of a control frame (RFC 6455 §5.5). A longer one is a protocol error, 1002.
pub const CONTROL_BYTES_MAX: usize = 125;

/// Compressed messages a reactor decompresses as they arrive in pieces. One more is gathered
/// compressed and decompressed when it is whole.
pub const INFLATE_STREAMS_MAX: usize = 64;

/// What the state of one of them is counted as, in bytes: zlib's tables and its window.
pub const INFLATE_STREAM_BYTES: usize = 48 * 1024;

/// Bytes by which the room for a decompressed message grows at first; then it doubles, up to what it may hold.
pub const INFLATE_STEP_BYTES: usize = 4 * 1024;

/// Compressed streams in one message (RFC 7692 §7.2.3.4): each costs a new start. So many are malformed.
pub const DEFLATE_STREAMS_MAX: u32 = 16;

/// Sockets beyond `limits.connections_max` that may be in their handshake or being refused, where descriptors allow so
/// many. One more goes to the health thread, which answers 503 unless it asks about health.
pub const HANDSHAKES_SPARE: usize = 1024;

/// How long the last words and the closing handshake may take, in milliseconds; then the socket is dropped.
pub const CLOSE_MS_MAX: u64 = 5_000;

/// How long a peer that was refused or cut off may take to read why and to end its side, in milliseconds; until then
/// what it still sends is thrown away, since closing at once would reset the connection under the explanation.
pub const LINGER_MS_MAX: u64 = 2_000;

/// Users named in one presence answer; the count stays exact beyond it.
pub const PRESENCE_USERS_MAX: usize = 1_000;

/// Distinct users of a room that nodes of a cluster count one by one; beyond it the count is an estimate.
pub const PRESENCE_EXACT_MAX: usize = 100_000;

/// What one allocation is counted as beside the bytes that were asked for: the allocator's header, and what it rounds up.
pub const ALLOCATION_BYTES: usize = 16;

/// What a place in one of the orders by age is counted as, in bytes: a leaf of the tree is half full at worst.
pub const HISTORY_ORDER_BYTES: usize = 40;

/// Messages, keys and positions that are dropped in one turn because they are too old, and topics looked at for it; the
/// rest in the next turns. Who asks for a topic's history never gets what is too old.
pub const HISTORY_EXPIRIES_PER_TURN: usize = 1_000;

/// How long a publish's key is known, in milliseconds.
pub const PUBLISH_KEY_MS_MAX: u64 = 5 * 60 * 1_000;

/// Keys known for one topic; beyond it the oldest is forgotten early.
pub const PUBLISH_KEYS_MAX: usize = 10_000;

/// Messages in one page of history: what a client asks for beyond is not sent.
pub const HISTORY_PAGE_MAX: usize = 1_000;

/// Pieces of mail that wait at a topic's home for the cluster's answer; beyond it all but joins and leaves are answered
/// `unavailable`.
pub const CLUSTER_WAITING_MAX: usize = 4_096;

/// Live messages of one topic that wait until what is missing in front of them was read; beyond it they are read, too.
pub const CLUSTER_HELD_MAX: usize = 4_096;

/// Messages in one read of a stream; the rest in the next.
pub const CLUSTER_READ_MAX: usize = 1_000;

/// Bytes of messages after which one read of a stream ends, short of the few that the script has in hand; the rest in the
/// next.
pub const CLUSTER_READ_BYTES_MAX: usize = 256 << 10;

/// What an item of a keyed room counts beside its update, in bytes: about what it takes at a node that follows the room.
pub const CLUSTER_ITEM_BYTES: usize = 200;

/// Calls that update items of one room and that Redis has not answered; further commands gather for the next.
pub const CLUSTER_ITEMS_CALLS_MAX: usize = 2;

/// Rooms whose items are read from Redis at once; one more waits until one of them is here. Each takes as much as its items
/// may.
pub const CLUSTER_ITEMS_LOADS_MAX: usize = 8;

/// Items that a script looks at in one go: so many may come beyond [`CLUSTER_READ_BYTES_MAX`].
pub const CLUSTER_ITEMS_SCAN: usize = 250;

/// Bytes of what was published to a keyed room lately that Redis keeps for those who miss some of it; the older half goes
/// when it is full.
pub const CLUSTER_ITEMS_LOG_BYTES_MAX: usize = 2 << 20;

/// How long it is kept after the last update, in milliseconds.
pub const CLUSTER_ITEMS_LOG_MS: u64 = 60_000;

/// Reads of older messages that Redis has not answered; one more waits until one of them is.
pub const CLUSTER_LOADS_MAX: usize = 64;

/// How long a home does not ask again for older messages that found no room, in milliseconds.
pub const CLUSTER_LOAD_AGAIN_MS: u64 = 10_000;

/// How often a connection's last fence goes round after the first time: what an answer of Redis makes a home ask for is
/// answered then, too.
pub const CLUSTER_FENCE_ROUNDS: u8 = 1;

/// Bytes of commands that Redis has not answered; beyond it publishes without history are dropped, and those into
/// history answered `unavailable`.
pub const CLUSTER_UNANSWERED_BYTES_MAX: usize = 64 << 20;

/// Bytes of messages from Redis for which the reactors have no room yet; beyond it the subscribing connection is given up,
/// and what was missed is read from the streams.
pub const CLUSTER_BACKLOG_BYTES_MAX: usize = 64 << 20;

/// How long answers of Redis that nothing waits for may stay unread, in milliseconds.
pub const CLUSTER_DEFERRED_MS: u64 = 20;

/// Bytes that may be sent to Redis before such answers are looked for again.
pub const CLUSTER_DEFERRED_BYTES: usize = 4 << 10;

/// Bytes of the buffer that a connection to Redis is read into at first, and again when it is quiet.
pub const CLUSTER_READ_BUFFER_BYTES: usize = 16 << 10;

/// Bytes up to which that buffer grows while reads fill it; beyond it only for a single value that is larger, up to
/// [`CLUSTER_BACKLOG_BYTES_MAX`].
pub const CLUSTER_READ_BUFFER_BYTES_MAX: usize = 256 << 10;

/// Time a node that goes away has to send its last messages to Redis, in milliseconds.
pub const CLUSTER_FINISH_MS_MAX: u64 = 500;

/// Bytes of publishes to one channel that go out as one; the rest as the next.
pub const CLUSTER_BATCH_BYTES_MAX: usize = 256 << 10;

/// Bytes from which a frame from another node is fanned out by itself; smaller ones go together.
pub const CLUSTER_SINGLE_FRAME_BYTES: usize = 256;

/// Time Redis has to answer a command, in milliseconds; beyond it the connection is given up.
pub const CLUSTER_ANSWER_MS_MAX: u64 = 2_000;

/// Between two canaries, in milliseconds.
pub const CLUSTER_CANARY_MS: u64 = 1_000;

/// Time a canary has to come back, in milliseconds; beyond it the subscribing connection is given up.
pub const CLUSTER_CANARY_MS_MAX: u64 = 2_500;

/// Between two greetings to the other nodes, in milliseconds; one that was silent for four times that is gone.
pub const CLUSTER_HELLO_MS: u64 = 5_000;

/// Channels in one command that subscribes.
pub const CLUSTER_SUBSCRIBE_MAX: usize = 1_000;

/// Bytes of one piece of a node's answer who is in a room; the rest of it when the asking node asks for that.
pub const CLUSTER_PRESENT_BYTES: usize = 32 << 10;

/// Bytes of such pieces that may be on their way to a node: Redis drops a subscriber to whom more than 32 MiB are owed. One
/// more question waits for its turn.
pub const CLUSTER_PRESENT_OWED_BYTES_MAX: usize = 8 << 20;

/// Bytes that a node holds of answers that are not complete; beyond it only the oldest question goes on.
pub const CLUSTER_CENSUS_BYTES_MAX: usize = 32 << 20;

/// Bytes of answers that other nodes have not asked the rest of; beyond it an answer is an estimate that needs no rest.
pub const CLUSTER_PRESENCE_ANSWERS_BYTES_MAX: usize = 32 << 20;

/// Bytes of those who wait for an answer who is in a room; one more is answered `unavailable`.
pub const CLUSTER_ASKERS_BYTES_MAX: usize = 8 << 20;

/// What one of them is counted as beside its command's id.
pub const CLUSTER_ASKER_BYTES: usize = 64;

/// Time the other nodes have to say who is in a room, in milliseconds, for each piece of the answer; beyond it the reply
/// goes without them. A question that waits for its turn longer is answered `unavailable`.
pub const CLUSTER_PRESENCE_MS_MAX: u64 = 1_000;

/// How long a room is not asked about again, in milliseconds, at least; who asks meanwhile shares the next question.
pub const CLUSTER_PRESENCE_REST_MS: u64 = 10;

/// Bytes of answers that make this a millisecond longer, up to [`CLUSTER_PRESENCE_MS_MAX`]. A user counts as 8 bytes at
/// least.
pub const CLUSTER_PRESENCE_BYTES_PER_MS: u64 = 8 << 10;

/// How long an epoch is known in Redis beyond the last message, in milliseconds.
pub const CLUSTER_EPOCH_MS: u64 = 24 * 60 * 60 * 1_000;

/// Time a connection to Redis may take to be made, in milliseconds.
pub const CLUSTER_CONNECT_MS_MAX: u64 = 2_000;

/// Time a node of a Redis Cluster has to say who serves what, in milliseconds; beyond it another one is asked.
pub const CLUSTER_TOPOLOGY_MS_MAX: u64 = 500;

/// Time a Redis Cluster has to confirm a subscription, be it on another shard than before, in milliseconds; beyond it
/// all are made anew.
pub const CLUSTER_SUBSCRIBE_MS_MAX: u64 = 4_000;

/// Between two warnings that Redis refuses commands, in milliseconds.
pub const CLUSTER_REFUSAL_MS: u64 = 10_000;

/// Before a connection to Redis is tried for the second time, in milliseconds; doubled with each further time.
pub const CLUSTER_RETRY_MS_MIN: u64 = 100;

/// Before a connection to Redis is tried again, in milliseconds, at most.
pub const CLUSTER_RETRY_MS_MAX: u64 = 1_500;

/// How long a topic stays subscribed without a member, in milliseconds, in case one comes back.
pub const CLUSTER_LINGER_MS: u64 = 5_000;

/// Connections told to go away per turn of a draining reactor, at most: the rest follow `DRAIN_PACE_MS` later.
pub const DRAIN_CLOSES_PER_TURN: usize = 512;

/// The same at least, however much time there is.
pub const DRAIN_CLOSES_PER_TURN_MIN: usize = 16;

/// Slots that a draining reactor looks at in one turn for those; the others in the next turns.
pub const DRAIN_SLOTS_PER_TURN: u32 = 16_384;

/// How long a client that connected right before a drain has to say its request, in milliseconds.
pub const DRAIN_HANDSHAKE_MS: u64 = 1_000;

/// Pause between two such groups, in milliseconds.
pub const DRAIN_PACE_MS: u64 = 10;

/// What a supervisor allows a process that goes away beyond `drain.delay` and `drain.timeout`, in milliseconds: its last
/// words to Redis, and its log.
pub const STOP_SPARE_MS: u64 = 5_000;

/// Clients of a node that goes away come back at this rate: so the reconnect hints of 1001 are spread.
pub const RETURNS_PER_SECOND: u64 = 5_000;

/// Width of the reconnect hint in a 1001 close, in milliseconds, for a node without clients: each client gets a random one
/// below this, and what its number needs beyond.
pub const RETRY_MS_MIN: u64 = 1_000;

/// What the number of clients adds to it, in milliseconds, at most: three million clients.
pub const RETRY_SPREAD_MS_MAX: u64 = 600_000;

/// What a client that is refused with 503 is told to wait, at most, in seconds: each gets a random time.
pub const RETRY_AFTER_S_MAX: u32 = 10;

/// Messages over the rate that are answered `rate_limited` before the connection is closed with 1008. The count
/// starts anew after [`RATE_FORGIVEN_MS`] within the rate.
pub const RATE_STRIKES_MAX: u32 = 100;

/// Control frames of one connection that are handled in a second, whatever its rate is. More are not answered; with
/// [`RATE_STRIKES_MAX`] beyond in the same second the connection is closed with 1008.
pub const CONTROL_FRAMES_PER_SECOND_MAX: u16 = 1_000;

/// How long a connection must keep within its rate for earlier excesses to be forgotten, in milliseconds.
pub const RATE_FORGIVEN_MS: u64 = 1_000;

/// Plain HTTP connections the control thread serves at once, health aside, where descriptors allow so many. One more takes the
/// place of one that idles; where all are busy it is answered 503.
pub const HTTP_CONNECTIONS_MAX: usize = 256;

/// Requests about health that are served at once, where descriptors allow so many, and as many that wait for that. The same
/// again holds for sockets for which the node had no place: they are read to see whether they ask about health. When one
/// more comes of either, the one that has been there for longest is answered 503.
pub const HEALTH_CONNECTIONS_MAX: usize = 32;

/// Plain HTTP connections of the operator's own listeners that the control thread serves at once, health aside: no other
/// client takes these places, of which the same holds. Kept back where there are such listeners.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;

/// Plain HTTP connections of listeners of the API that the control thread serves at once: no other client takes these places.
/// One more is answered 503. Kept back where there are such listeners.
pub const API_CONNECTIONS_MAX: usize = 256;

/// Sockets that wait to be taken back by a reactor, because a request behind their first asks for an upgrade. One more is
/// answered 503.
pub const RETURNS_WAITING_MAX: usize = 64;

/// How long a connection that asks about health may live, in milliseconds.
pub const HEALTH_MS_MAX: u64 = 2_000;

/// How long a kept connection of plain HTTP may be without a request, in seconds; then it is ended. It is ended earlier where
/// its place is wanted.
pub const HTTP_IDLE_S_MAX: u32 = 75;

/// How long the head of a further request may take from its first byte on, in seconds; then the connection is cut.
pub const HTTP_HEAD_S_MAX: u32 = 10;

/// How long the client may take nothing of an answer to plain HTTP, in seconds and up to one more; then its socket is
/// dropped.
pub const HTTP_STALL_S_MAX: u32 = 2;

/// How long a request of plain HTTP may take until its answer is sent, in seconds and up to half as many more; then its
/// connection is cut.
pub const HTTP_REQUEST_S_MAX: u32 = 60;

/// The least buffer of the HTTP library for what it reads, in bytes.
pub const HTTP_HEAD_BYTES_MIN: usize = 8 * 1024;

/// Header fields of a request that the HTTP library takes without an allocation; it is told where the settings allow more.
pub const HTTP_HEADERS_FREE: usize = 100;

/// Requests under way on one HTTP/2 connection; with one more the stream is refused (RFC 9113 §5.1.2).
pub const HTTP2_STREAMS_MAX: u32 = 128;

/// Bytes of bodies that an HTTP/2 client may send before they are read, on one stream and on all of a connection.
pub const HTTP2_WINDOW_BYTES: u32 = 256 * 1024;

/// Bytes of answers that are buffered for one HTTP/2 stream.
pub const HTTP2_SEND_BYTES_MAX: usize = 64 * 1024;

/// Streams that an HTTP/2 client has reset before they were looked at; with one more the connection is ended
/// (CVE-2023-44487).
pub const HTTP2_RESETS_WAITING_MAX: usize = 20;

/// Streams of an HTTP/2 connection that were reset because of the client's own errors; with one more the connection is ended
/// (CVE-2025-8671).
pub const HTTP2_ERROR_RESETS_MAX: usize = 64;

/// How long percentiles in `/stats` look back at least, in milliseconds, and at most twice that while somebody asks.
pub const STATS_WINDOW_MS: u64 = 10_000;

/// Bytes of the server's answer to `fanfare reload`; what is beyond is not read.
pub const RELOAD_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// How long `fanfare reload` waits for it, in milliseconds: below what plain HTTP has.
pub const RELOAD_MS_MAX: u64 = 30_000;

/// Requests of the control thread that wait for topics' homes; one more is refused.
pub const REQUESTS_MAX: usize = 1_024;

/// Publishes of the HTTP API in one piece of mail; more go in the next, so that a reactor serves its clients between them.
pub const PUBLISHES_MAX: usize = 128;

/// Bytes of their names and frames from which a piece of mail leaves; it holds one publish of any size.
pub const PUBLISHES_BYTES_MAX: usize = 32 << 10;

/// Commands of one batch; one more is answered 413.
pub const API_COMMANDS_MAX: usize = 10_000;

/// Pieces of one batch that wait for what becomes of them; the next goes when the first has come back.
pub const API_PIECES_MAX: usize = 2;

/// Bytes of bodies that the HTTP API holds; a request whose body goes beyond is answered 429.
pub const API_BODIES_BYTES_MAX: usize = 64 << 20;

/// How long a body may take to come in whole, in milliseconds; beyond it the request is answered 408.
pub const API_BODY_MS_MAX: u64 = 20_000;

/// How long publishes of the HTTP API wait for reactors and Redis, in milliseconds; beyond it they are answered 503. Redis
/// has less, so that it is a reactor that has ended.
pub const API_ANSWER_MS_MAX: u64 = 10_000;

/// What a client of the HTTP API is told to wait that is answered 429 or 503, in seconds.
pub const API_RETRY_AFTER_S: u32 = 1;

/// Rooms in one page of the HTTP API: what a request asks for beyond is not listed.
pub const API_ROOMS_MAX: usize = 1_000;

/// Surveys that one page of rooms takes; a page that is not full then says where the next begins.
pub const API_SURVEYS_MAX: usize = 32;

/// Bytes of what one node answers to a survey of all reactors, shared out among them: which rooms there are, which
/// connections a user has. What does not fit comes with the next question, or is said to be missing.
pub const SURVEY_BYTES_MAX: usize = 256 << 10;

/// The least share of a reactor in that.
pub const SURVEY_BYTES_MIN: usize = 4 << 10;

/// Rooms in one reactor's answer to a survey; the rest with the next question.
pub const SURVEY_ROOMS_MAX: usize = 256;

/// Rooms that a reactor looks at for one survey, times the patterns that it tries; the rest with the next question.
pub const SURVEY_VISITED_MAX: usize = 4_096;

/// Bytes of answers to surveys that may be on their way to a node, by what its peers may send at most; one more survey waits
/// for its turn. One is always under way.
pub const CLUSTER_SURVEYS_OWED_BYTES_MAX: usize = 8 << 20;

/// Time all nodes have to answer a survey, in milliseconds, and time that one waits for its turn; beyond it, it is
/// answered `unavailable`.
pub const CLUSTER_SURVEY_MS_MAX: u64 = 2_000;

/// Pages of histories that requests have asked Redis for; one more is answered `unavailable`.
pub const CLUSTER_PAGES_MAX: usize = 64;

/// Users whose tokens are revoked. One more takes the place of the one that was revoked first, where that was longer ago
/// than [`REVOCATION_KEPT_S`], and is refused otherwise.
pub const REVOCATIONS_MAX: usize = 65_536;

/// How long a revocation is kept whatever comes, in seconds: 400 days.
pub const REVOCATION_KEPT_S: u64 = 400 * 24 * 60 * 60;

/// Revocations in one answer of Redis, about.
pub const CLUSTER_REVOCATIONS_SCAN: usize = 1_000;

/// How long the control thread waits where its mail found no room, in milliseconds; then it tries again.
pub const CONTROL_SPILL_MS: u64 = 1;

/// How often it is looked whether a reactor that was asked has turned, in milliseconds.
pub const PULSE_LOOK_MS: u64 = 5;

/// How long an answer whether the node lives waits for its reactors, in milliseconds; below what probes wait. One that has
/// not turned by then is judged by how long it has been silent.
pub const PULSE_MS_MAX: u64 = 500;

/// Log lines that wait to be written, for a slow reader of stderr; one more is dropped and counted.
pub const LOG_QUEUE_LINES_MAX: usize = 4_096;

/// Bytes of these lines; beyond it a line is dropped and counted.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// How often a line from one place in the code is written, in milliseconds; those between are counted and told in one.
pub const LOG_REPEAT_MS: u64 = 1_000;

/// How long the end of the process waits for its last log lines to be written, in milliseconds; then they are lost.
pub const LOG_FLUSH_MS_MAX: u64 = 500;

/// How long a webhook's edge waits to be undone, in milliseconds; after a close with 1001 the hint of that is added.
pub const WEBHOOK_HOLD_MS: u64 = 3_000;

/// How long rooms and users that an earlier run of a node alone has told of may take to come back, in milliseconds: with
/// 80,000 clients the reconnect hints and the hold.
pub const WEBHOOK_RETURN_MS: u64 = 20_000;

/// Events in one request to a webhook's receiver; the rest in the next.
pub const WEBHOOK_BATCH_EVENTS_MAX: usize = 256;

/// How long a batch of a webhook is tried again, in milliseconds from its first attempt; then it is given up.
pub const WEBHOOK_GIVE_UP_MS: u64 = 5 * 60 * 1_000;

/// Before a batch is tried for the second time, in milliseconds; doubled with each further time.
pub const WEBHOOK_PAUSE_MS_MIN: u64 = 1_000;

/// Before a batch is tried again, in milliseconds, at most.
pub const WEBHOOK_PAUSE_MS_MAX: u64 = 30_000;

/// Attempts of a batch that fail before it may be split.
pub const WEBHOOK_SPLIT_AFTER: u32 = 3;

/// Attempts that fail one after the other before new batches begin at a slower pace.
pub const WEBHOOK_DOWN_AFTER: u32 = 4;

/// Between two new batches then, in milliseconds.
pub const WEBHOOK_DOWN_PACE_MS: u64 = 250;

/// Bytes of a receiver's answer that are read; the attempt fails where there are more.
pub const WEBHOOK_ANSWER_BYTES_MAX: usize = 64 << 10;

/// Bytes up to which a node alone does not tidy up its journal of webhooks; beyond it where four times what counts is there.
pub const WEBHOOK_JOURNAL_BYTES_SPARED: usize = 1 << 20;

/// Webhooks of a configuration. One more is refused.
pub const WEBHOOKS_MAX: usize = 16;

/// Between two warnings that a webhook's receiver does not take events, in milliseconds.
pub const WEBHOOK_WARNING_MS: u64 = 10_000;

/// Time a node that goes away has to deliver the events that it has, in milliseconds.
pub const WEBHOOK_FINISH_MS_MAX: u64 = 2_000;

/// How long a node, and the one that delivers webhooks for the cluster, are believed without a word, in milliseconds; then
/// what a node had is vacant, and another node delivers.
pub const WEBHOOK_LEASE_MS: u64 = 10_000;

/// Between two calls of a node that has nothing to say, in milliseconds.
pub const WEBHOOK_CALL_MS: u64 = 1_000;

/// The same of the node that delivers.
pub const WEBHOOK_TELLER_CALL_MS: u64 = 250;

/// How long changes are gathered for one call, in milliseconds.
pub const WEBHOOK_GATHER_MS: u64 = 50;

/// Changes, and finished events, in one call; the rest in the next.
pub const WEBHOOK_CALL_CHANGES_MAX: usize = 500;

/// Events that one call brings; the rest with the next.
pub const WEBHOOK_CALL_EVENTS_MAX: usize = 1_000;

/// How long the edges of a dead node wait to be undone, in milliseconds: its clients come back elsewhere.
pub const WEBHOOK_SWEEP_HOLD_MS: u64 = 4_000;

/// How long a node must have reached Redis without a break before it takes others for dead, in milliseconds: they may be
/// on their way back, too.
pub const WEBHOOK_SWEEP_AFTER_MS: u64 = 5_000;

/// How long a difference waits that shows when Redis comes back empty, in milliseconds: nodes are still saying who is here.
pub const WEBHOOK_LOST_HOLD_MS: u64 = 10_000;

/// How long a new node knows its Redis before it would deliver, in milliseconds: where Redis has just come back empty, the
/// node that delivered before comes first.
pub const WEBHOOK_FRESH_VOLUNTEER_MS: u64 = 2_500;

/// The same of a node that knew the Redis before it came back empty.
pub const WEBHOOK_LOST_VOLUNTEER_MS: u64 = 10_000;

/// A node's earlier registrations in Redis that it keeps alive until all is said anew; of more the oldest ends by its lease.
pub const WEBHOOK_REGISTRATIONS_MAX: usize = 4;

/// Bytes the hot part of a connection may take.
pub const CONNECTION_BYTES_MAX: usize = 128;

const _: () = assert!(RING_BUFFERS.is_power_of_two() && RING_BUFFERS_KEPT < RING_BUFFERS as usize);
const _: () = assert!(REQUEST_BYTES_FREE < EARLY_BYTES_MAX && EARLY_BYTES_MAX <= READ_BYTES);
const _: () = assert!(CONTROL_BYTES_MAX < 126, "a control frame has the short length form");
const _: () = assert!(PARCEL_BYTES_MAX < MAILBOX_BYTES_MAX);
const _: () = assert!(PARCEL_MAIL_MAX > 0 && MAILBOX_PARCELS > 0 && PARCELS_PER_TURN > 0);
const _: () = assert!(API_ANSWER_MS_MAX > 2 * CLUSTER_ANSWER_MS_MAX);
const _: () = assert!(PUBLISHES_BYTES_MAX < PARCEL_BYTES_MAX && API_COMMANDS_MAX < u32::MAX as usize);
const _: () = assert!(FRAME_SHARE_BYTES < TURN_BYTES_MAX && READ_BYTES <= TURN_BYTES_MAX);
const _: () = assert!(BATCH_POOL_BYTES_MAX >= FRAME_SHARE_BYTES);
const _: () =
    assert!(CLUSTER_PRESENT_BYTES < CLUSTER_PRESENT_OWED_BYTES_MAX && PRESENCE_USERS_MAX < PRESENCE_EXACT_MAX);
const _: () = assert!(REACTORS_MAX <= u16::MAX as usize);
const _: () = assert!(RATE_STRIKES_MAX < (u16::MAX - CONTROL_FRAMES_PER_SECOND_MAX) as u32);
const _: () = assert!(WEBHOOK_FRESH_VOLUNTEER_MS < WEBHOOK_HOLD_MS, "the first events are not late");
const _: () = assert!(WEBHOOK_LEASE_MS + WEBHOOK_CALL_MS + WEBHOOK_SWEEP_HOLD_MS + WEBHOOK_CALL_MS < 20_000);
const _: () = assert!(CLUSTER_RETRY_MS_MAX + CLUSTER_CONNECT_MS_MAX < WEBHOOK_SWEEP_AFTER_MS);
