//! The commands for an operator: `disconnect`, `kick`. They go to Redis, and from there to the nodes; or to a server's HTTP
//! API, which a node alone has as well.

use std::io::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{EXIT_FAULTS, Env, complain, file_flag, flag, load, print, refuse, text_of_env};
use crate::client::{Api, Token, Trust};
use crate::clock;
use crate::cluster::{Order, OrderError, give};
use crate::config::{ENV_OPERATOR_KEY, SETTINGS, Setting, nearest};

pub(super) const DISCONNECT: &str = "disconnect";
pub(super) const KICK: &str = "kick";

const USER: &str = "user";
const ROOM: &str = "room-id";
const REASON: &str = "reason";
const REVOKE: &str = "revoke";
const URL: &str = "url";
const KEY_FILE: &str = "key-file";
const CA: &str = "ca";

/// What `--url` is without being given.
const URL_DEFAULT: &str = "http://127.0.0.1:8080";

const NOTES: &str = "With --url, or where no Redis is configured, the order goes to the HTTP API of a server, with a key \
    that may kick.\nExit code 1 where no node has heard it or nothing can be asked, 2 where the command line or the \
    configuration is wrong.\n\nSources of settings, later ones win: default, file, environment (FANFARE_REDIS_URL), flag \
    (--redis).";

/// The commands, for the parser of the command line.
pub(super) fn commands() -> [Command; 2] {
    let user = Arg::new(USER).value_name("USER").required(true).help("The user id");
    let disconnect = order(DISCONNECT)
        .about("End every connection of a user, on a node alone or on all nodes with the same Redis")
        .after_help(format!(
            "Prints how many nodes have heard it. The connections end with close code 1008; the user may come \
             back, with --revoke only with a token that is made later.\n{NOTES}"
        ))
        .arg(user.clone())
        .arg(
            Arg::new(REVOKE)
                .long(REVOKE)
                .action(ArgAction::SetTrue)
                .help("Refuse the user's tokens that were made up to now, until they expire"),
        );
    let kick = order(KICK)
        .about("Remove a user from a room, on a node alone or on all nodes with the same Redis")
        .after_help(format!(
            "Prints how many nodes have heard it: those with a member of the room. Each connection of the user in the room \
             gets\na message `left` with the reason; the user may join again.\n{NOTES}"
        ))
        .arg(Arg::new(ROOM).value_name("ROOM").required(true).help("The room"))
        .arg(user)
        .arg(Arg::new(REASON).long(REASON).value_name("TEXT").help("The reason that the user is told [default: none]"));
    [disconnect, kick]
}

/// What both take: where Redis is, or a server with its key.
fn order(name: &'static str) -> Command {
    Command::new(name)
        .arg(file_flag())
        .arg(Arg::new(URL).long(URL).value_name("URL").help(format!(
            "A server whose HTTP API is asked: http://HOST:PORT, https://HOST or unix:/path [default: {URL_DEFAULT} where no \
             Redis is configured]"
        )))
        .arg(Arg::new(KEY_FILE).long(KEY_FILE).value_name("FILE").help(format!(
            "The file with an [[api.key]] of the server [env: {ENV_OPERATOR_KEY}, the key itself]"
        )))
        .arg(Arg::new(CA).long(CA).value_name("FILE").help("Authorities whose certificates are good, PEM [default: the system's]"))
        .args(settings().map(flag))
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.section() == Some("redis"))
}

/// Carries one of the commands out.
pub(super) fn run(name: &str, matches: &ArgMatches, env: Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = |id: &str| matches.try_get_one::<String>(id).ok().flatten().map(String::as_str);
    let order = match name {
        KICK => Order::Kick {
            room: text(ROOM).unwrap_or_default(),
            user: text(USER).unwrap_or_default(),
            reason: text(REASON).unwrap_or_default(),
        },
        _ => Order::Disconnect {
            user: text(USER).unwrap_or_default(),
            revoke_unix_s: matches.get_flag(REVOKE).then(clock::unix_s),
        },
    };
    let (url, key_file, ca) = (text(URL), text(KEY_FILE), text(CA));
    let key = text_of_env(&env, ENV_OPERATOR_KEY).map(|key| key.map(str::to_owned));
    let config = match load(matches, env) {
        Ok((config, _)) => config,
        Err(error) => return refuse(err, error),
    };
    let given = match (url, config.redis.url.address()) {
        (None, Some(_)) => give(&config.redis, order),
        (url, _) => key
            .and_then(|key| api(url.unwrap_or(URL_DEFAULT), key_file, key.as_deref(), ca))
            .map_or_else(|wrong| Err(OrderError::Wrong(wrong)), |api| order.check().and_then(|()| tell(&api, order))),
    };
    match given {
        Ok(0) => {
            let unheard = match order {
                Order::Disconnect { .. } => {
                    "no node has heard it: none is connected to this Redis with this redis.prefix"
                }
                Order::Kick { .. } => "no node has heard it: none has a member of the room",
            };
            complain(err, format_args!("fanfare: {unheard}"));
            EXIT_FAULTS
        }
        Ok(1) => print(out, err, "1 node has heard it\n"),
        Ok(nodes) => print(out, err, format_args!("{nodes} nodes have heard it\n")),
        Err(error @ OrderError::Wrong(_)) => refuse(err, error),
        Err(error @ (OrderError::Redis(_) | OrderError::Api(_))) => {
            complain(err, format_args!("fanfare: {error}"));
            EXIT_FAULTS
        }
    }
}

/// The server that takes an order, and the key that it is given with.
fn api(url: &str, key_file: Option<&str>, env: Option<&str>, ca: Option<&str>) -> Result<Api, String> {
    let key = match (key_file, env) {
        (Some(path), _) => Token::read(path).map_err(|why| format!("--{KEY_FILE}: {path:?} {why}"))?,
        (None, Some(key)) if !key.is_empty() => key.parse().map_err(|why| format!("{ENV_OPERATOR_KEY}: {why}"))?,
        (None, _) => {
            return Err(format!(
                "an order needs --redis URL, or a key for the HTTP API of a server: say --{KEY_FILE} FILE, or set \
                 {ENV_OPERATOR_KEY}; the key is an [[api.key]] with the verb kick"
            ));
        }
    };
    Api::new(url, &Trust::from_flags(ca, false)?, key).map_err(|why| format!("--{URL}: {why}"))
}

/// Gives an order to a server.
fn tell(api: &Api, order: Order<'_>) -> Result<u64, OrderError> {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let target = match order {
        // The server's clock counts.
        Order::Disconnect { user, revoke_unix_s: Some(_) } => {
            format!("/api/v1/users/{}/connections?revoke=true", encoded(user))
        }
        Order::Disconnect { user, revoke_unix_s: None } => format!("/api/v1/users/{}/connections", encoded(user)),
        Order::Kick { room, user, reason } => {
            format!("/api/v1/rooms/{}/users/{}?reason={}", encoded(room), encoded(user), encoded(reason))
        }
    };
    let answer = api.delete(&target).map_err(OrderError::Api)?;
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap_or_default();
    match (answer.status, body["nodes"].as_u64()) {
        (200, Some(nodes)) => Ok(nodes),
        (status, _) => {
            let why =
                body["error"]["message"].as_str().unwrap_or("what answers there is no fanfare server with an API");
            Err(OrderError::Api(format!("{status}: {why}")))
        }
    }
}
/// What is missing, in words.
pub(super) fn missing(name: &str) -> Option<&'static str> {
    match name {
        DISCONNECT => Some("disconnect needs a user; say fanfare disconnect USER"),
        KICK => Some("kick needs a room and a user; say fanfare kick ROOM USER"),
        _ => None,
    }
}

/// An argument that is not known, in words.
pub(super) fn unknown(name: &str, argument: &str) -> Option<String> {
    let command = commands().into_iter().find(|command| command.get_name() == name)?;
    let Some(flag) = argument.strip_prefix("--") else {
        return Some(format!(
            "there is an argument too many; quote one that has spaces (fanfare {name} --help tells more)"
        ));
    };
    let flags = command.get_arguments().filter_map(Arg::get_long_and_visible_aliases).flatten();
    Some(match nearest(flag, flags) {
        Some(near) => format!("unknown flag {argument}; did you mean --{near}?"),
        None => format!("unknown flag {argument}; fanfare {name} --help lists them"),
    })
}
