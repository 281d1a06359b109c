//! The commands for an operator of a cluster: `disconnect`, `kick`. They go to Redis, and from there to the nodes.

use std::io::Write;

use clap::{Arg, ArgMatches, Command};

use super::{EXIT_FAULTS, Env, complain, file_flag, flag, load, print, refuse};
use crate::cluster::{Order, OrderError, give};
use crate::config::{SETTINGS, Setting, nearest};

pub(super) const DISCONNECT: &str = "disconnect";
pub(super) const KICK: &str = "kick";

const USER: &str = "user";
const ROOM: &str = "room-id";
const REASON: &str = "reason";

const EXIT_CODES: &str = "Exit code 1 where no node has heard it or Redis cannot be asked, 2 where the command line or the \
    configuration is wrong.\n\nSources of settings, later ones win: default, file, environment (FANFARE_REDIS_URL), flag \
    (--redis).";

/// The commands, for the parser of the command line.
pub(super) fn commands() -> [Command; 2] {
    let user = Arg::new(USER).value_name("USER").required(true).help("The user id");
    let disconnect = order(DISCONNECT)
        .about("End every connection of a user, on all nodes with the same Redis")
        .after_help(format!(
            "Prints how many nodes have heard it. The connections end with close code 1008; the user may come \
             back.\n{EXIT_CODES}"
        ))
        .arg(user.clone());
    let kick = order(KICK)
        .about("Remove a user from a room, on all nodes with the same Redis")
        .after_help(format!(
            "Prints how many nodes have heard it: those with a member of the room. Each connection of the user in the room \
             gets\na message `left` with the reason; the user may join again.\n{EXIT_CODES}"
        ))
        .arg(Arg::new(ROOM).value_name("ROOM").required(true).help("The room"))
        .arg(user)
        .arg(Arg::new(REASON).long(REASON).value_name("TEXT").help("The reason that the user is told [default: none]"));
    [disconnect, kick]
}

/// What both take: where Redis is.
fn order(name: &'static str) -> Command {
    Command::new(name).arg(file_flag()).args(settings().map(flag))
}

fn settings() -> impl Iterator<Item = &'static Setting> {
    SETTINGS.iter().filter(|setting| setting.section() == Some("redis"))
}

/// Carries one of the commands out.
pub(super) fn run(name: &str, matches: &ArgMatches, env: Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let config = match load(matches, env) {
        Ok((config, _)) => config,
        Err(error) => return refuse(err, error),
    };
    let text = |id: &str| matches.try_get_one::<String>(id).ok().flatten().map_or("", String::as_str);
    let order = match name {
        KICK => Order::Kick { room: text(ROOM), user: text(USER), reason: text(REASON) },
        _ => Order::Disconnect { user: text(USER) },
    };
    match give(&config.redis, order) {
        Ok(0) => {
            let unheard = match order {
                Order::Disconnect { .. } => {
                    "no node has heard it: none is connected to this Redis with this redis.prefix"
                }
                Order::Kick { .. } => {
                    "no node has heard it: none with this Redis and this redis.prefix has a member of the room"
                }
            };
            complain(err, format_args!("fanfare: {unheard}"));
            EXIT_FAULTS
        }
        Ok(1) => print(out, err, "1 node has heard it\n"),
        Ok(nodes) => print(out, err, format_args!("{nodes} nodes have heard it\n")),
        Err(error @ OrderError::Wrong(_)) => refuse(err, error),
        Err(error @ OrderError::Redis(_)) => {
            complain(err, format_args!("fanfare: {error}"));
            EXIT_FAULTS
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
