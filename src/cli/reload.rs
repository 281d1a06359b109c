//! The command `reload`: a running server is asked to read its configuration again, and says what that came to.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command};
use serde_json::Value;

use super::{EXIT_FAULTS, Env, complain, file_flag, load, print, refuse};
use crate::config::{Config, Listen, Listener, Role};
use crate::limits::{RELOAD_ANSWER_BYTES_MAX, RELOAD_MS_MAX};

pub(super) const RELOAD: &str = "reload";

const ADDRESS: &str = "address";

/// The command, for the parser of the command line.
pub(super) fn command() -> Command {
    Command::new(RELOAD)
        .about("Have the server of this machine read its configuration again, and say what has changed")
        .after_help(
            "The server reads the file, environment and flags again that it was started with. A fault changes nothing. What \
             needs a\nrestart is named, and left as it was. The server is asked on an address of admin.listen, or on a loopback \
             address\n(POST /reload); without ADDRESS, where the configuration says. SIGHUP does the same without an answer.\n\n\
             Exit code 1 where the server has refused, 2 where the configuration is wrong or no server answers.",
        )
        .arg(Arg::new(ADDRESS).value_name("ADDRESS").help("Where the server listens: IP:PORT or unix:/path"))
        .arg(file_flag())
}

pub(super) fn run(matches: &ArgMatches, env: Env, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let address = match matches.get_one::<String>(ADDRESS) {
        Some(text) => text.parse(),
        None => load(matches, env).map_err(|error| error.to_string()).and_then(|(config, _)| address_of(&config)),
    };
    let address: Listen = match address {
        Ok(address) => address,
        Err(what) => return refuse(err, what),
    };
    let answer = match ask(&address) {
        Ok(answer) => answer,
        Err(error) => return refuse(err, format_args!("cannot ask the server at {address}: {error}")),
    };
    match outcome(&answer) {
        Ok(text) => print(out, err, text),
        Err(what) => {
            complain(err, format_args!("fanfare: {address}: {what}"));
            EXIT_FAULTS
        }
    }
}

/// Where a server with this configuration can be asked: on an address of the operator's, else on one of loopback.
fn address_of(config: &Config) -> Result<Listen, String> {
    let plain = || config.listeners.iter().filter(|listener| listener.tls.is_none() && !listener.proxy_protocol);
    let is_loopback = |listener: &&Listener| {
        config.admin.loopback
            && listener.role == Role::Clients
            && listener.address.is_local()
            && !matches!(listener.address, Listen::Unix(_))
    };
    let found = plain().find(|listener| listener.role == Role::Admin).or_else(|| plain().find(is_loopback));
    found.map(|listener| listener.address.clone()).ok_or_else(|| {
        "no address of the configuration takes this: add one with admin.listen, as unix:/run/fanfare/admin.sock, or send \
         SIGHUP to the server"
            .to_owned()
    })
}

fn ask(address: &Listen) -> io::Result<Vec<u8>> {
    let patience = Duration::from_millis(RELOAD_MS_MAX);
    match address {
        Listen::Tcp(address) => {
            let address = reachable(*address);
            let stream = TcpStream::connect_timeout(&address, patience)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, &address.to_string())
        }
        Listen::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(patience))?;
            exchange(stream, "localhost")
        }
    }
}

/// What stands for all addresses of a machine is reached at its own.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        other => other,
    };
    SocketAddr::new(ip, address.port())
}

/// One request; the server closes behind its answer.
fn exchange(mut stream: impl Read + Write, host: &str) -> io::Result<Vec<u8>> {
    let request = format!("POST /reload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(RELOAD_ANSWER_BYTES_MAX as u64).read_to_end(&mut answer)?;
    Ok(answer)
}

/// What an answer says, in words.
fn outcome(answer: &[u8]) -> Result<String, String> {
    let mut headers = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut headers);
    let (Ok(httparse::Status::Complete(head_bytes)), Some(status)) = (head.parse(answer), head.code) else {
        return Err("this is no answer of a fanfare server over plain HTTP".to_owned());
    };
    let body = &answer[head_bytes..];
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    if status != 200 {
        let text = value["error"]["message"].as_str().map_or_else(|| String::from_utf8_lossy(body), Into::into);
        return Err(format!("{} (status {status})", text.trim()));
    }
    let names =
        |of: &str| -> Vec<&str> { value[of].as_array().into_iter().flatten().filter_map(Value::as_str).collect() };
    let (applied, left) = (names("applied"), names("needs_restart"));
    let mut text = match applied.is_empty() {
        true => "no setting has changed; keys and certificates were read again\n".to_owned(),
        false => format!("changed: {}\n", applied.join(", ")),
    };
    if !left.is_empty() {
        text += &format!("needs a restart, and is left as it was: {}\n", left.join(", "));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Sources;

    fn found(flags: &[(&'static str, &str)]) -> Result<String, String> {
        let setting = |key| crate::config::Setting::find(key).expect(key);
        let flags = flags.iter().map(|(key, value)| (setting(key), vec![(*value).to_owned()])).collect();
        let (config, _) = Config::load(&Sources { flags, ..Sources::default() }).expect("good settings");
        address_of(&config).map(|address| address.to_string())
    }

    #[test]
    fn the_operators_address_is_asked_first() {
        assert_eq!(found(&[]).as_deref(), Ok("127.0.0.1:8080"));
        assert_eq!(found(&[("listen", "10.0.0.1:80,[::1]:80"), ("open", "true")]).as_deref(), Ok("[::1]:80"));
        let admin = [("listen", "127.0.0.1:80"), ("admin.listen", "unix:/run/a.sock")];
        assert_eq!(found(&admin).as_deref(), Ok("unix:/run/a.sock"));
        for nowhere in [
            &[("listen", "unix:/run/x.sock")][..],
            &[("admin.loopback", "false")],
            &[("open", "true"), ("listen", "0.0.0.0:80")],
        ] {
            assert!(found(nowhere).is_err_and(|what| what.contains("admin.listen")), "{nowhere:?}");
        }
    }

    #[test]
    fn an_answer_is_told_in_words() {
        let said =
            |head: &str, body: &str| outcome(format!("HTTP/1.1 {head}\r\nContent-Type: x\r\n\r\n{body}").as_bytes());
        let good = r#"{"applied":["log_level","room"],"needs_restart":["listen"]}"#;
        let text = "changed: log_level, room\nneeds a restart, and is left as it was: listen\n";
        assert_eq!(said("200 OK", good).as_deref(), Ok(text));
        assert!(
            said("200 OK", r#"{"applied":[],"needs_restart":[]}"#).is_ok_and(|text| text.starts_with("no setting"))
        );
        let bad = r#"{"error":{"code":"bad_config","message":"f.toml:1: no"}}"#;
        assert_eq!(said("422 X", bad), Err("f.toml:1: no (status 422)".to_owned()));
        assert_eq!(said("404 X", "nothing here\n"), Err("nothing here (status 404)".to_owned()));
        assert!(outcome(b"\x15\x03\x01").is_err());
    }
}
