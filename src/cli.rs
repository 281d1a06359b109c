//! The command line: `serve`, `config`, `check`, `bench`, `doctor`; `pub`, `sub`, `presence` (`clients`), `feed`; and
//! `disconnect`, `kick` (`orders`); `reload`; `token`; `webhook`.
//!
//! Owns the flags (made from the table of settings), the help texts, the exit codes and what is printed where. What
//! was asked for goes to stdout; what went wrong goes to stderr, one line each. Never decides what a value means:
//! that is `config`'s.
//!
//! Imports `auth`, `bench`, `client`, `cluster`, `config`, `doctor`, `limits`, `server` and
//! `webhook`.

mod clients;
mod feed;
mod orders;
mod reload;
mod token;
mod webhook;

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use crate::bench::{self, Options};
use crate::config::{
    Config, ConfigError, ENV_CONFIG, ENV_TOKEN, Effective, Kind, LISTS, List, SETTINGS, Setting, SourceFile, Sources,
    nearest, nearest_flag, one_line,
};
use crate::doctor::{self, Machine};
use crate::server;

/// Exit code where a bench found a fault in the server, the doctor one in the machine, or a server did not do what a
/// client asked for.
const EXIT_FAULTS: u8 = 1;

/// Exit code where the command line, the configuration or the machine does not allow what was asked for.
const EXIT_REFUSED: u8 = 2;

const SERVE: &str = "serve";
const CONFIG: &str = "config";
const CHECK: &str = "check";
const BENCH: &str = "bench";
const DOCTOR: &str = "doctor";
const COMMANDS: [&str; 14] = [
    SERVE,
    CONFIG,
    CHECK,
    BENCH,
    DOCTOR,
    clients::PUB,
    clients::SUB,
    clients::PRESENCE,
    feed::FEED,
    orders::DISCONNECT,
    orders::KICK,
    reload::RELOAD,
    token::TOKEN,
    webhook::WEBHOOK,
];

/// Id of the flag that asks for JSON.
const JSON: &str = "json";

/// Id of the flag that names the file, and of `check`'s argument.
const FILE: &str = "config";

/// Runs the command that the process was started with.
///
/// The exit code is 0, or 2 with one line on stderr which says what is wrong, where, and what to do (`check` prints
/// one line per problem). A bench that found a fault in the server ends with 1, a doctor
/// whose finding bites too, and a client whose server did not do what was asked for.
pub fn main() -> ExitCode {
    let env: Vec<_> = std::env::vars_os().collect();
    let code = run(std::env::args_os(), env, &mut io::stdout(), &mut io::stderr());
    ExitCode::from(code)
}

type Env = Vec<(OsString, OsString)>;

fn run(args: impl Iterator<Item = OsString>, env: Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let args: Vec<_> = args.collect();
    let name = args.get(1).map_or(String::new(), |name| name.to_string_lossy().into_owned());
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return usage(&error, &name, out, err),
    };
    match matches.subcommand() {
        Some((SERVE, matches)) => match load(matches, env.clone()) {
            Ok(loaded) => {
                let matches = matches.clone();
                serve(loaded, Box::new(move || load(&matches, env.clone())))
            }
            Err(error) => refuse(err, error),
        },
        Some((CONFIG, matches)) => match load(matches, env) {
            Ok((_, effective)) => print(out, err, effective),
            Err(error) => refuse(err, error),
        },
        Some((CHECK, matches)) => check(matches, out, err),
        Some((DOCTOR, matches)) => match load(matches, env) {
            Ok((config, _)) => examine(&config, matches.get_flag(JSON), out, err),
            Err(error) => refuse(err, error),
        },
        Some((BENCH, matches)) => measure(matches, &env, out, err),
        Some((name @ (orders::DISCONNECT | orders::KICK), matches)) => orders::run(name, matches, env, out, err),
        Some((reload::RELOAD, matches)) => reload::run(matches, env, out, err),
        Some((webhook::WEBHOOK, matches)) => webhook::run(matches, out, err),
        Some((feed::FEED, matches)) => feed::run(matches, &env, err),
        Some((token::TOKEN, matches)) => token::run(matches, env, out, err),
        Some((name, matches)) => clients::run(name, matches, &env, out, err),
        None => refuse(err, no_command()),
    }
}

/// What went wrong goes the way of the log, so that a stuck reader of stderr cannot hold the end of the process.
fn serve(loaded: (Config, Effective), reread: server::Reread) -> u8 {
    match server::run(loaded, reread) {
        Ok(()) => 0,
        Err(error) => {
            let mut line = Vec::new();
            let code = refuse(&mut line, error);
            server::last_words(&line);
            code
        }
    }
}

/// Puts load on a server.
fn measure(matches: &ArgMatches, env: &Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let token = match text_of_env(env, ENV_TOKEN) {
        Ok(token) => token,
        Err(what) => return refuse(err, what),
    };
    let measured = Options::from_matches(matches, token).and_then(|options| {
        if options.insecure {
            complain(err, format_args!("fanfare: {}", clients::INSECURE_WARNING));
        }
        bench::run(&options, out)
    });
    match measured {
        Ok(true) => 0,
        Ok(false) => EXIT_FAULTS,
        Err(error) => refuse(err, error),
    }
}

/// A variable that is set.
fn text_of_env<'a>(env: &'a Env, name: &str) -> Result<Option<&'a str>, String> {
    let Some((_, value)) = env.iter().find(|(known, _)| known == name) else { return Ok(None) };
    value.to_str().map(Some).ok_or_else(|| format!("{name}: the value is not UTF-8; write it in UTF-8"))
}

fn load(matches: &ArgMatches, env: Env) -> Result<(Config, Effective), ConfigError> {
    let by_flag = matches.get_one::<PathBuf>(FILE).map(|path| (path.clone(), "--config"));
    let by_env = || {
        let (_, path) = env.iter().find(|(name, _)| name == ENV_CONFIG)?;
        Some((PathBuf::from(path), ENV_CONFIG))
    };
    let named = by_flag.or_else(by_env);
    let file = named.map(|(path, named_by)| SourceFile::read(&path, named_by)).transpose()?;
    // Not every command has all of the flags.
    let given = |name: &str| matches.try_get_many::<String>(name).ok().flatten();
    let flags = SETTINGS.iter().filter_map(|setting| Some((setting, given(setting.key)?.cloned().collect()))).collect();
    let of_list = |list: &'static List| given(list.name).into_iter().flatten().map(move |text| (list, text.clone()));
    let list_flags = LISTS.into_iter().flat_map(of_list).collect();
    Config::load(&Sources { file, env, flags, list_flags })
}

/// Checks a file by itself, without environment and flags.
fn check(matches: &ArgMatches, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let path = matches.get_one::<PathBuf>(FILE).map_or(Path::new(""), PathBuf::as_path);
    let loaded = SourceFile::read(path, CHECK)
        .and_then(|file| Config::load(&Sources { file: Some(file), ..Sources::default() }));
    match loaded {
        Ok((config, _)) => match server::auth::load(&config.auth).and(server::auth::api_keys(&config.api)) {
            Ok(_) => print(out, err, format_args!("{}: ok\n", path.display())),
            Err(error) => {
                complain(err, error);
                EXIT_REFUSED
            }
        },
        Err(error @ ConfigError::Unreadable { .. }) => refuse(err, error),
        Err(ConfigError::Invalid(problems)) => {
            for problem in problems {
                complain(err, problem);
            }
            EXIT_REFUSED
        }
    }
}

/// Says what this machine's settings mean for a node so configured.
fn examine(config: &Config, json: bool, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let findings = doctor::examine(&Machine::read(Path::new("/")), config);
    let colour = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let report = match json {
        true => doctor::json(&findings, config),
        false => doctor::table(&findings, config, colour),
    };
    match print(out, err, report) {
        0 if doctor::bites(&findings) => EXIT_FAULTS,
        code => code,
    }
}

fn command() -> Command {
    let configurable = |name: &'static str| {
        Command::new(name)
            .after_help(settings_notes())
            .arg(file_flag())
            .args(SETTINGS.iter().map(flag))
            .args(LISTS.map(list_flag))
    };
    Command::new("fanfare")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A WebSocket push server: rooms, private messages, broadcast and presence")
        .subcommand_required(true)
        .subcommand(configurable(SERVE).about("Serve until SIGTERM or SIGINT; SIGHUP has the configuration read again"))
        .subcommand(
            configurable(CONFIG).about("Print the effective configuration as TOML, with the source of each value"),
        )
        .subcommand(
            configurable(DOCTOR)
                .about("Say what of this machine's settings will bite a node so configured; changes nothing")
                .arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("Print JSON instead of a table")),
        )
        .subcommand(
            Command::new(CHECK)
                .about("Say what is wrong with a configuration file, and where; environment and flags do not count")
                .arg(file().required(true).help("The configuration file, TOML")),
        )
        .subcommand(bench_command())
        .subcommands(clients::commands())
        .subcommand(feed::command())
        .subcommands(orders::commands())
        .subcommand(reload::command())
        .subcommand(token::command())
        .subcommand(webhook::command())
}

fn file() -> Arg {
    Arg::new(FILE).value_name("FILE").value_parser(value_parser!(PathBuf))
}

fn file_flag() -> Arg {
    file().long(FILE).help("The configuration file, TOML [env: FANFARE_CONFIG]")
}

fn bench_command() -> Command {
    let rows: Vec<_> = bench::SCENARIOS.iter().map(|(_, name, what)| format!("  {name:9} {what}")).collect();
    let scenario = Arg::new(bench::SCENARIO).value_name("SCENARIO").help("What is measured, see below");
    let flags = bench::FLAGS.iter().map(|bench::Flag { name, kind, default, help }| {
        let help = format!("{help} [{}; default: {default}]", kind.domain());
        let arg = Arg::new(*name).long(*name).value_name(kind.placeholder()).help(help);
        if *kind == Kind::Bool {
            arg.num_args(0..=1).default_missing_value("true")
        } else {
            arg.allow_hyphen_values(true)
        }
    });
    Command::new(BENCH)
        .about("Put load on a server of the user dialect and check every delivery; exit code 1 if one was wrong")
        .after_help(format!("Scenarios:\n{}", rows.join("\n")))
        .arg(scenario)
        .args(flags)
}

fn flag(setting: &'static Setting) -> Arg {
    let Setting { key, kind, default, help } = setting;
    let arg = Arg::new(*key)
        .long(*key)
        .value_name(kind.placeholder())
        .help(format!("{help} [{}; default: {default}]", kind.domain()))
        .help_heading(setting.section().unwrap_or("Settings"));
    // What is given by hand often.
    let arg = match *key {
        "redis.url" => arg.visible_alias("redis"),
        "echo.paths" => arg.visible_alias("echo"),
        _ => arg,
    };
    // A value that starts with a hyphen is a wrong value, to be named as one, wherever it can be no right one.
    match kind {
        Kind::Addresses { .. } | Kind::Paths | Kind::Patterns | Kind::Networks | Kind::Fields => {
            arg.action(ArgAction::Append).allow_hyphen_values(true)
        }
        Kind::Bool => arg.num_args(0..=1).default_missing_value("true"),
        Kind::Text { .. } => arg,
        Kind::Integer(_)
        | Kind::Bytes(_)
        | Kind::Duration(_)
        | Kind::Choice(_)
        | Kind::Words(_)
        | Kind::Pin
        | Kind::Mode
        | Kind::Address
        | Kind::Pattern
        | Kind::Secret { .. }
        | Kind::HttpUrl
        | Kind::RedisUrl => arg.allow_hyphen_values(true),
    }
}

/// A flag that gives entries of a list, which are no setting.
fn list_flag(list: &'static List) -> Arg {
    Arg::new(list.name)
        .long(list.name)
        .value_name(list.placeholder)
        .help(list.help)
        .help_heading(list.name)
        .action(ArgAction::Append)
        .allow_hyphen_values(true)
}

/// What stands below the flags of a command that takes settings.
fn settings_notes() -> String {
    let mut notes = String::new();
    for list in LISTS {
        notes += &format!("{}:\n", list.heading);
        let name_of = |row: &'static Setting| row.name_in_entry().unwrap_or(row.key);
        let width = list.rows.iter().map(|row| name_of(row).len()).max().unwrap_or(0);
        for row @ Setting { kind, default, help, .. } in list.rows {
            let default = match list.has_defaults && *kind != Kind::Pattern {
                true => format!("; default: {default}"),
                false => String::new(),
            };
            notes += &format!("  {:width$}  {help} [{}{default}]\n", name_of(row), kind.domain());
        }
        notes.push('\n');
    }
    notes
        + "Sources, later ones win: default, file, environment (FANFARE_HEARTBEAT_INTERVAL), \
           flag (--heartbeat.interval)."
}

/// Answers what the parser of the command line did not take: help and version are answers, all else is a mistake.
fn usage(error: &clap::Error, name: &str, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let text = match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            return print(out, err, error.render());
        }
        ErrorKind::MissingSubcommand => no_command(),
        ErrorKind::InvalidSubcommand => unknown_command(context(ContextKind::InvalidSubcommand)),
        ErrorKind::UnknownArgument => unknown_argument(name, context(ContextKind::InvalidArg)),
        ErrorKind::InvalidValue => format!("{} needs a value", context(ContextKind::InvalidArg)),
        ErrorKind::ArgumentConflict => {
            format!("{} is given more than once; give it once", context(ContextKind::InvalidArg))
        }
        ErrorKind::MissingRequiredArgument => {
            let missing = clients::missing(name).or_else(|| orders::missing(name));
            missing.unwrap_or("check needs a file; say fanfare check FILE").to_owned()
        }
        ErrorKind::InvalidUtf8 => "a flag's value is not UTF-8; write it in UTF-8".to_owned(),
        _ => {
            let rendered = error.render().to_string();
            let line = rendered.lines().next().unwrap_or_default();
            line.strip_prefix("error: ").unwrap_or(line).to_owned()
        }
    };
    refuse(err, text)
}

fn no_command() -> String {
    "say what to do: fanfare serve, fanfare config or fanfare check FILE (fanfare --help tells more)".to_owned()
}

fn unknown_command(name: &str) -> String {
    match nearest(name, COMMANDS) {
        Some(near) => format!("unknown command {name:?}; did you mean {near}?"),
        None => format!("unknown command {name:?}; there are {}", COMMANDS.join(", ")),
    }
}

fn unknown_argument(command: &str, argument: &str) -> String {
    match clients::unknown(command, argument)
        .or_else(|| orders::unknown(command, argument))
        .or_else(|| token::unknown(command, argument))
    {
        Some(text) => text,
        None if command == BENCH => unknown_bench_argument(argument),
        None => unknown_setting(argument),
    }
}

fn unknown_setting(argument: &str) -> String {
    let Some(name) = argument.strip_prefix("--") else {
        return format!("{argument:?} is not expected here; fanfare --help tells what is");
    };
    let near = nearest(name, [FILE]).or_else(|| nearest_flag(name));
    match near {
        Some(near) if near == name => {
            format!(
                "--{name} does not belong here; it goes with a command: fanfare serve --{name} or fanfare config --{name}"
            )
        }
        Some(near) => format!("unknown flag {argument}; did you mean --{near}?"),
        None => format!("unknown flag {argument}; fanfare serve --help lists them"),
    }
}

fn unknown_bench_argument(argument: &str) -> String {
    let near = argument.strip_prefix("--").and_then(|name| nearest(name, bench::FLAGS.iter().map(|flag| flag.name)));
    match near {
        Some(near) => format!("unknown flag {argument}; did you mean --{near}?"),
        None => format!("{argument:?} is not expected here; fanfare bench --help tells what is"),
    }
}

/// Prints what was asked for. A reader that has gone away has seen enough.
fn print(out: &mut dyn Write, err: &mut dyn Write, what: impl Display) -> u8 {
    match write!(out, "{what}").and_then(|()| out.flush()) {
        Ok(()) => 0,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => refuse(err, format_args!("cannot write to stdout: {error}")),
    }
}

fn refuse(err: &mut dyn Write, what: impl Display) -> u8 {
    complain(err, format_args!("fanfare: {what}"));
    EXIT_REFUSED
}

/// One line on stderr. Where even that cannot be written, no one is there to read it.
fn complain(err: &mut dyn Write, line: impl Display) {
    let _ = writeln!(err, "{}", one_line(&line.to_string()));
}
