//! `feed`: updates from stdin, or from a stream of Redis, into a keyed room.

use std::io::Write;
use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::clients::{self, EXIT_CODES, connection_args, ended, integer, switch, text};
use super::{Env, text_of_env};
use crate::client::{ClientError, Feed, FeedSource, Stream, StreamEntry, Target, feed};
use crate::cluster::StreamReader;
use crate::config::{Bounds, Kind, RedisUrl};

pub(super) const FEED: &str = "feed";

/// Where the stream is, unless a flag says it: the setting of a node.
const ENV_REDIS_URL: &str = "FANFARE_REDIS_URL";

const ROOM: &str = "room";
const STDIN: &str = "stdin";
const REDIS_STREAM: &str = "redis-stream";
const REDIS_URL: &str = "redis-url";
const REDIS_CA: &str = "redis-ca";
const POSITION_KEY: &str = "position-key";
const FROM: &str = "from";
const NO_VERSIONS: &str = "no-versions";
const BATCH: &str = "batch";
const BATCH_BYTES: &str = "batch-bytes";
const STRICT: &str = "strict";

/// Where a stream begins.
const BEGINNING: &str = "0-0";

/// What stands for its end.
const END: &str = "$";

const BATCH_UPDATES: Kind = Kind::Integer(Bounds { min: 1, max: 10_000, zero: false });
const BATCH_UPDATES_DEFAULT: u64 = 500;
const BATCH_SIZE: Kind = Kind::Bytes(Bounds { min: 256, max: 64 * 1024 * 1024, zero: false });
const BATCH_BYTES_DEFAULT: u64 = 256 * 1024;

const NOTES: &str = "Lines are JSON: {\"item\":\"AAPL\",\"content\":…} or {\"item\":\"AAPL\",\"remove\":true}, with \
    \"version\":N if you like.\nEntries of a stream have the fields item and content (JSON), or item and remove (true), and \
    version if you like;\nwithout one their id is the version, so that what is sent twice, as after a crash, counts \
    once.\n\nWhat has been read goes as one command. So many wait for their acks; then nothing more is read. A connection \
    that ends\nis opened again, with the next --url, and what is not acked is sent again under its key. The id up to which all is \
    acked\nis kept in Redis, for another time. A bad line or entry is told with its number and left out. SIGINT and SIGTERM \
    wait for\nwhat is on its way.\n\nExit code 0 means that all that was read is acked.";

/// The command, for the parser of the command line.
pub(super) fn command() -> Command {
    Command::new(FEED)
        .about("Publish updates from stdin, or from a stream of Redis, into a keyed room, each of them acked")
        .after_help(format!("{NOTES}\n{EXIT_CODES}"))
        .arg(Arg::new(ROOM).value_name("ROOM").required(true).help("The room, which has to be keyed"))
        .arg(switch(STDIN).help("Read updates from stdin, one a line"))
        .arg(Arg::new(REDIS_STREAM).long(REDIS_STREAM).value_name("NAME").help("Read the entries of this stream"))
        .arg(Arg::new(REDIS_URL).long(REDIS_URL).value_name("URL").allow_hyphen_values(true).help(format!(
            "Where the stream is: redis://HOST:PORT/, rediss://, redis+unix:///PATH, redis+sentinel://HOST:PORT/NAME, \
             redis+cluster://HOST:PORT. Everyone on this machine can read a password here [env: {ENV_REDIS_URL}]"
        )))
        .arg(
            Arg::new(REDIS_CA)
                .long(REDIS_CA)
                .value_name("FILE")
                .help("rediss: authorities whose certificates are good, PEM [default: the system's]"),
        )
        .arg(
            Arg::new(POSITION_KEY)
                .long(POSITION_KEY)
                .value_name("KEY")
                .help("The key at which Redis keeps the id up to which all is acked [default: NAME:fanfare:ROOM]"),
        )
        .arg(Arg::new(FROM).long(FROM).value_name("ID").help(format!(
            "Behind which id to begin where none is kept; $ is the newest [default: {BEGINNING}, the oldest first]"
        )))
        .arg(switch(NO_VERSIONS).help("The ids of entries are no versions"))
        .arg(number(BATCH, BATCH_UPDATES, "Updates in one command", &BATCH_UPDATES_DEFAULT.to_string()))
        .arg(number(BATCH_BYTES, BATCH_SIZE, "Bytes of updates in one command", "256KiB"))
        .arg(switch(STRICT).help("End at the first bad line or entry"))
        .args(connection_args().map(|arg| match arg.get_id() == clients::URL {
            true => arg.action(ArgAction::Append),
            false => arg,
        }))
}

fn number(name: &'static str, kind: Kind, help: &str, default: &str) -> Arg {
    let help = format!("{help}, at most [{}; default: {default}]", kind.domain());
    Arg::new(name).long(name).value_name(kind.placeholder()).allow_hyphen_values(true).help(help)
}

/// Carries it out.
pub(super) fn run(matches: &ArgMatches, env: &Env, err: &mut dyn Write) -> u8 {
    let done = options_of(matches, env, err).and_then(|options| feed(options, err));
    ended(done, err)
}

fn options_of(matches: &ArgMatches, env: &Env, err: &mut dyn Write) -> Result<Feed, ClientError> {
    let room = text(matches, ROOM).unwrap_or_default().to_owned();
    let urls: Vec<&String> = matches.get_many(clients::URL).into_iter().flatten().collect();
    let mut targets: Vec<Target> = match urls.is_empty() {
        true => vec![clients::target_of(matches, env, None)?],
        false => urls.into_iter().map(|url| clients::target_of(matches, env, Some(url))).collect::<Result<_, _>>()?,
    };
    // A key counts for one user, and an anonymous connection is another one each time. Where a token says who it is, the name is
    // ignored; a server that asks for none does not look at a token.
    let user = format!("feed-{:08x}", fastrand::u32(..));
    for Target { url, user: own, .. } in &mut targets {
        if own.is_none() && !url.names_user() {
            *own = Some(user.clone());
        }
    }
    clients::warn_if_insecure(matches, err);
    let source = match (matches.get_flag(STDIN), text(matches, REDIS_STREAM)) {
        (true, None) => stdin_of(matches)?,
        (false, Some(name)) => stream_of(matches, env, name, &room)?,
        (true, Some(_)) => return Err(wrong("--stdin and --redis-stream are two sources; give one of them")),
        (false, None) => return Err(wrong("say where updates come from: --stdin, or --redis-stream NAME")),
    };
    let count = integer(matches, BATCH, BATCH_UPDATES)?.unwrap_or(BATCH_UPDATES_DEFAULT);
    let bytes = integer(matches, BATCH_BYTES, BATCH_SIZE)?.unwrap_or(BATCH_BYTES_DEFAULT);
    Ok(Feed {
        targets,
        room,
        source,
        batch_max: count as usize,
        batch_bytes_max: bytes as usize,
        strict: matches.get_flag(STRICT),
    })
}

fn stdin_of(matches: &ArgMatches) -> Result<FeedSource, ClientError> {
    let of_stream = [REDIS_URL, REDIS_CA, POSITION_KEY, FROM].into_iter().find(|name| text(matches, name).is_some());
    match of_stream.or(matches.get_flag(NO_VERSIONS).then_some(NO_VERSIONS)) {
        Some(name) => Err(wrong(&format!("--{name} is for --redis-stream; leave it out"))),
        None => Ok(FeedSource::Stdin),
    }
}

fn stream_of(matches: &ArgMatches, env: &Env, name: &str, room: &str) -> Result<FeedSource, ClientError> {
    let by_env = text_of_env(env, ENV_REDIS_URL).map_err(ClientError::Options)?;
    let url: RedisUrl = match text(matches, REDIS_URL).or(by_env) {
        Some(url) => url.parse().map_err(|why| wrong(&format!("--{REDIS_URL}: {why}")))?,
        None => RedisUrl::default(),
    };
    let address = url.address().cloned();
    let address =
        address.ok_or_else(|| wrong(&format!("say where the stream is: --{REDIS_URL} redis://HOST:PORT/")))?;
    let ca = text(matches, REDIS_CA).unwrap_or_default();
    if !ca.is_empty() && !address.tls {
        return Err(wrong(&format!("--{REDIS_CA} is for rediss:// URLs; leave it out")));
    }
    let usual_key = format!("{name}:fanfare:{room}");
    let key = text(matches, POSITION_KEY).unwrap_or(&usual_key);
    if key == name {
        return Err(wrong(&format!("--{POSITION_KEY} is the stream itself; name another key")));
    }
    let from = text(matches, FROM).unwrap_or(BEGINNING);
    let is_id = from.split('-').count() <= 2 && from.split('-').all(|number| number.parse::<u64>().is_ok());
    if !is_id && from != END {
        return Err(wrong(&format!("--{FROM}: {from:?} is no id; write MS-SEQUENCE, or {END} for the newest")));
    }
    let reader = StreamReader::new(address, ca, name, key).map_err(|error| wrong(&error.to_string()))?;
    Ok(FeedSource::Stream {
        stream: Box::new(RedisStream { reader, is_from_end: from == END }),
        from: from.to_owned(),
        versions: !matches.get_flag(NO_VERSIONS),
    })
}

/// A stream of Redis.
struct RedisStream {
    reader: StreamReader,
    /// Whether to begin at the end where no place is kept.
    is_from_end: bool,
}

impl Stream for RedisStream {
    fn kept(&mut self) -> Result<Option<String>, String> {
        match self.reader.position()? {
            None if self.is_from_end => self.reader.newest().map(Some),
            position => Ok(position),
        }
    }

    fn read(&mut self, behind: &str, count_max: usize, wait: Duration) -> Result<Vec<StreamEntry>, String> {
        let entries = self.reader.read(behind, count_max, wait)?;
        Ok(entries.into_iter().map(|(id, fields)| StreamEntry { id, fields }).collect())
    }

    fn keep(&mut self, id: &str) -> Result<(), String> {
        self.reader.keep(id)
    }
}

fn wrong(what: &str) -> ClientError {
    ClientError::Options(what.to_owned())
}
