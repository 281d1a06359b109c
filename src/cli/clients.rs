//! The commands for people who want to talk to a server: `pub`, `sub`, `presence`; and what `feed` has in common with them.

use std::io::Write;
use std::str::FromStr;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{EXIT_FAULTS, EXIT_REFUSED, Env, complain, feed, text_of_env};
use crate::client::{
    ClientError, Content, Format, Keyed, Position, Presence, Publish, Start, Subscribe, Target, Tls, Token, Trust, Url,
    presence, publish, subscribe,
};
use crate::config::{Bounds, ENV_TOKEN, Kind, Value, nearest};

pub(super) const PUB: &str = "pub";
pub(super) const SUB: &str = "sub";
pub(super) const PRESENCE: &str = "presence";

const ROOM: &str = "room";
const MESSAGE: &str = "message";
pub(super) const URL: &str = "url";
const USER: &str = "user";
const TOKEN: &str = "token";
const TOKEN_FILE: &str = "token-file";
const CA: &str = "ca";
const INSECURE: &str = "insecure";
const KEY: &str = "key";
const JSON: &str = "json";
const SINCE: &str = "since";
const LAST: &str = "last";
const COUNT: &str = "count";
const MESSAGES_ONLY: &str = "messages-only";
const MODE: &str = "mode";
const INTERVAL: &str = "interval";
const ITEMS: &str = "items";

/// What is told where the server's certificate is not verified.
pub(super) const INSECURE_WARNING: &str =
    "--insecure: the server's certificate is not verified; whoever answers gets the token and what is sent";

/// What `--url` is without being given.
const URL_DEFAULT: &str = "ws://127.0.0.1:8080/";

/// How many past messages may be asked for: no room keeps more.
const LAST_MESSAGES: Kind = Kind::Integer(Bounds { min: 0, max: 1_000_000, zero: false });

const MODES: Kind = Kind::Choice(&["all", "latest"]);

/// As long as a server may be asked for.
const ROUND_INTERVAL: Kind = Kind::Duration(Bounds { min: 1, max: 3_600_000, zero: true });

const COUNTED_MESSAGES: Kind = Kind::Integer(Bounds { min: 1, max: 1_000_000_000_000, zero: false });

pub(super) const EXIT_CODES: &str =
    "Exit code 1 where the server could not be asked or said no, 2 where the command line is wrong.";

/// The commands, for the parser of the command line.
pub(super) fn commands() -> [Command; 3] {
    [publishing(), subscribing(), asking()]
}

fn publishing() -> Command {
    client(PUB)
        .about("Publish a message, or each line of stdin, into a room of a running server")
        .after_help(format!(
            "Prints the place of each message (offset N epoch E) where the room keeps history. A message that the \
             server refuses is\ntold on stderr and not sent again; 64 lines at most wait for their acks. Exit code 0 \
             means that every message was acked.\n{EXIT_CODES}"
        ))
        .arg(
            Arg::new(MESSAGE)
                .value_name("MESSAGE")
                .required(true)
                .allow_negative_numbers(true)
                .help("The message, a text; - reads messages from stdin, one a line"),
        )
        .arg(Arg::new(KEY).long(KEY).value_name("KEY").help(
            "Publish once: a retry with the same key by the same user is the same message, where the room keeps \
             history. Lines have KEY:1, KEY:2, … Needs --user or a token",
        ))
        .arg(switch(JSON).help("The message is JSON and sent as it is"))
}

fn subscribing() -> Command {
    client(SUB)
        .about("Print what a room of a running server gets, until Ctrl-C; comes back when the connection ends")
        .after_help(format!(
            "Messages go to stdout, what happens to the connection to stderr: --since EPOCH:OFFSET there is where to go \
             on another\ntime. After a connection has ended it is opened again, with what was missed where the room \
             keeps history; only the first\nattempt has to succeed.\n\nExit code 0 at Ctrl-C and --count. {EXIT_CODES}"
        ))
        .arg(
            Arg::new(SINCE)
                .long(SINCE)
                .value_name("EPOCH:OFFSET")
                .help("Begin with what came behind this position, where the room still has all of it"),
        )
        .arg(number(LAST, LAST_MESSAGES, "Begin with so many of the newest messages, as far as the room keeps them"))
        .arg(Arg::new(MODE).long(MODE).value_name("MODE").help(
            "In a keyed room: all updates, or the latest of each item [all, latest; default: all]",
        ))
        .arg(number(INTERVAL, ROUND_INTERVAL, "In a keyed room, with --mode latest: the time between two rounds"))
        .arg(Arg::new(ITEMS).long(ITEMS).value_name("ITEMS").help(
            "In a keyed room: only these items, as in AAPL,MSFT or FX.*; may be repeated",
        ).action(ArgAction::Append))
        .arg(number(COUNT, COUNTED_MESSAGES, "End after so many messages; notices do not count"))
        .arg(switch(MESSAGES_ONLY).help("Leave out notices (* alice joined)"))
        .arg(switch(JSON).help("Print the server's JSON, one message a line whatever it holds, notices and gaps too"))
}

fn asking() -> Command {
    client(PRESENCE)
        .about("Print how many users are in a room of a running server, and who, one a line")
        .after_help(EXIT_CODES)
        .arg(switch(JSON).help("Print the server's reply, JSON on one line"))
}

/// What all of them take.
fn client(name: &'static str) -> Command {
    Command::new(name).arg(Arg::new(ROOM).value_name("ROOM").required(true).help("The room")).args(connection_args())
}

/// How a server is reached, and who comes.
pub(super) fn connection_args() -> [Arg; 6] {
    [
        Arg::new(URL).long(URL).value_name("URL").help(format!(
            "The server: ws://HOST:PORT, wss://HOST with TLS, with or without path and query, or unix:/path [default: \
             {URL_DEFAULT}]"
        )),
        Arg::new(USER).long(USER).value_name("NAME").help(
            "The user id, where the server asks for no token [default: none, an anonymous connection]",
        ),
        Arg::new(TOKEN_FILE).long(TOKEN_FILE).value_name("FILE").help("The file with the token"),
        Arg::new(TOKEN).long(TOKEN).value_name("TOKEN").help(format!(
            "The token; everyone on this machine can read it here, so prefer the environment or a file [env: {ENV_TOKEN}]"
        )),
        Arg::new(CA).long(CA).value_name("FILE").help(
            "Authorities whose certificates are good, PEM [default: the system's, or those of SSL_CERT_FILE]",
        ),
        switch(INSECURE).help("Take any certificate, for tests: whoever answers is taken for the server"),
    ]
}

pub(super) fn switch(name: &'static str) -> Arg {
    Arg::new(name).long(name).action(ArgAction::SetTrue)
}

fn number(name: &'static str, kind: Kind, help: &str) -> Arg {
    let help = format!("{help} [{}]", kind.domain());
    Arg::new(name).long(name).value_name(kind.placeholder()).allow_hyphen_values(true).help(help)
}

/// Carries one of the commands out.
pub(super) fn run(name: &str, matches: &ArgMatches, env: &Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let done = target_of(matches, env, text(matches, URL)).and_then(|target| {
        warn_if_insecure(matches, err);
        match name {
            PUB => publish(&publishing_of(matches, target)?, out, err),
            SUB => subscribe(&subscribing_of(matches, target)?, out, err).map(|()| true),
            _ => presence(&Presence { target, room: room_of(matches), json: matches.get_flag(JSON) }, out, err)
                .map(|()| true),
        }
    });
    ended(done, err)
}

/// Says that the server's certificate is not verified, where it is not.
pub(super) fn warn_if_insecure(matches: &ArgMatches, err: &mut dyn Write) {
    if matches.get_flag(INSECURE) {
        complain(err, format_args!("fanfare: {INSECURE_WARNING}"));
    }
}

/// The exit code of a command that has ended, of which it says why where that was an error.
pub(super) fn ended(done: Result<bool, ClientError>, err: &mut dyn Write) -> u8 {
    match done {
        Ok(true) => 0,
        Ok(false) => EXIT_FAULTS,
        Err(error) => {
            complain(err, format_args!("fanfare: {error}"));
            match error {
                ClientError::Options(_) => EXIT_REFUSED,
                ClientError::Lost(_) | ClientError::Refused(_) | ClientError::Io { .. } | ClientError::Output(_) => {
                    EXIT_FAULTS
                }
            }
        }
    }
}

fn publishing_of(matches: &ArgMatches, target: Target) -> Result<Publish, ClientError> {
    let key = text(matches, KEY).map(str::to_owned);
    let Target { url, user, token, .. } = &target;
    let is_anonymous = user.is_none() && token.is_none() && !url.names_user() && !url.holds_token();
    if key.is_some() && is_anonymous {
        return Err(wrong(
            "--key counts for one user, and an anonymous connection is another one each time; add --user or a token",
        ));
    }
    let content = match text(matches, MESSAGE).unwrap_or_default() {
        "-" => Content::Stdin,
        message => Content::Argument(message.to_owned()),
    };
    Ok(Publish { target, room: room_of(matches), content, json: matches.get_flag(JSON), key })
}

fn subscribing_of(matches: &ArgMatches, target: Target) -> Result<Subscribe, ClientError> {
    let start = match (value::<Position>(matches, SINCE)?, integer(matches, LAST, LAST_MESSAGES)?) {
        (Some(_), Some(_)) => return Err(wrong("--since and --last are two ways to begin; give one of them")),
        (Some(position), None) => Start::Since(position),
        (None, Some(last)) => Start::Last(last),
        (None, None) => Start::Now,
    };
    let format = match (matches.get_flag(JSON), matches.get_flag(MESSAGES_ONLY)) {
        (true, true) => return Err(wrong("--json prints all that comes, --messages-only does not; give one of them")),
        (true, false) => Format::Json,
        (false, true) => Format::MessagesOnly,
        (false, false) => Format::People,
    };
    let count = integer(matches, COUNT, COUNTED_MESSAGES)?;
    Ok(Subscribe { target, room: room_of(matches), start, count, format, keyed: keyed_of(matches)? })
}

/// What is wanted of a keyed room.
fn keyed_of(matches: &ArgMatches) -> Result<Keyed, ClientError> {
    let mode = text(matches, MODE).map(|mode| MODES.parse(mode));
    let mode = match mode.transpose().map_err(|why| wrong(&format!("--{MODE}: {why}")))? {
        Some(Value::Word(mode)) => Some(mode),
        Some(_) | None => None,
    };
    let interval_ms = integer(matches, INTERVAL, ROUND_INTERVAL)?;
    let lists: Option<Vec<&String>> = matches.get_many(ITEMS).map(Iterator::collect);
    let items = lists.map(|lists| {
        lists.iter().flat_map(|list| list.split(',')).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    });
    Ok(Keyed { mode, interval_ms, items })
}

/// Who is spoken to, at this URL or the usual one, and by whom.
pub(super) fn target_of(matches: &ArgMatches, env: &Env, url: Option<&str>) -> Result<Target, ClientError> {
    let url = url.unwrap_or(URL_DEFAULT).parse();
    let url: Url = url.map_err(|why| wrong(&format!("--url: {why}")))?;
    let user = value(matches, USER)?;
    if user.is_some() && url.names_user() {
        return Err(wrong("--user: the URL says userId already; give one of them"));
    }
    let (flag, file) = (text(matches, TOKEN), text(matches, TOKEN_FILE));
    let token = match (url.holds_token(), flag.is_some() || file.is_some()) {
        (true, true) => return Err(wrong("the URL holds a token already; leave out --token and --token-file")),
        // As a flag does, the URL goes before the environment.
        (true, false) => None,
        (false, _) => {
            let env = text_of_env(env, ENV_TOKEN).map_err(ClientError::Options)?;
            Token::find(flag, file, env).map_err(ClientError::Options)?
        }
    };
    let trust = Trust::from_flags(text(matches, CA), matches.get_flag(INSECURE)).map_err(ClientError::Options)?;
    let tls = Tls::of(&url, &trust).map_err(ClientError::Options)?;
    Ok(Target { url, user, token, tls })
}

fn room_of(matches: &ArgMatches) -> String {
    text(matches, ROOM).unwrap_or_default().to_owned()
}

pub(super) fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str)
}

fn value<T: FromStr>(matches: &ArgMatches, name: &str) -> Result<Option<T>, ClientError>
where
    T::Err: std::fmt::Display,
{
    let value = text(matches, name).map(str::parse).transpose();
    value.map_err(|why| wrong(&format!("--{name}: {why}")))
}

pub(super) fn integer(matches: &ArgMatches, name: &str, kind: Kind) -> Result<Option<u64>, ClientError> {
    let Some(text) = text(matches, name) else { return Ok(None) };
    match kind.parse(text) {
        Ok(Value::Integer(number) | Value::Bytes(number) | Value::Millis(number)) => Ok(Some(number)),
        Ok(_) => Ok(None),
        Err(why) => Err(wrong(&format!("--{name}: {why}"))),
    }
}

fn wrong(what: &str) -> ClientError {
    ClientError::Options(what.to_owned())
}

/// What is missing, in words.
pub(super) fn missing(name: &str) -> Option<&'static str> {
    match name {
        PUB => Some("pub needs a room and a message; say fanfare pub ROOM MESSAGE (- for the lines of stdin)"),
        SUB => Some("sub needs a room; say fanfare sub ROOM"),
        PRESENCE => Some("presence needs a room; say fanfare presence ROOM"),
        feed::FEED => Some("feed needs a room; say fanfare feed ROOM --stdin, or --redis-stream NAME"),
        _ => None,
    }
}

/// An argument that is not known, in words. One that is no flag may be a URL with a secret, and is not repeated.
pub(super) fn unknown(name: &str, argument: &str) -> Option<String> {
    let mut all = commands().into_iter().chain([feed::command()]);
    let command = all.find(|command| command.get_name() == name)?;
    if let Some(flag) = argument.strip_prefix("--") {
        return Some(match nearest(flag, command.get_arguments().filter_map(Arg::get_long)) {
            Some(near) => format!("unknown flag {argument}; did you mean --{near}?"),
            None => format!("unknown flag {argument}; fanfare {name} --help lists them"),
        });
    }
    Some(match argument.starts_with('-') {
        true => format!("{argument:?} is not expected here; write -- in front of what begins with - and is no flag"),
        false => format!("there is an argument too many; quote one that has spaces (fanfare {name} --help tells more)"),
    })
}
