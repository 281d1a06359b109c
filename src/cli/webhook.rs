//! `fanfare webhook`: a receiver that prints what comes, for people who develop one.

use std::convert::Infallible;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::rc::Rc;

use clap::{Arg, ArgMatches, Command};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::LocalSet;

use super::{EXIT_REFUSED, complain, refuse};
use crate::config::{one_line, read_at_most};
use crate::webhook::{SIGNATURE_FIELD, SigningSecret};

pub(super) const WEBHOOK: &str = "webhook";

const LISTEN: &str = "listen";
const SECRET_FILE: &str = "secret-file";

/// Largest request, in bytes: 256 events with the longest names take less.
const BODY_BYTES_MAX: usize = 2 << 20;

/// Largest file with a secret, in bytes.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// The command, for the parser of the command line.
pub(super) fn command() -> Command {
    let listen = Arg::new(LISTEN).long(LISTEN).value_name("ADDR").default_value("127.0.0.1:3000");
    let secret = Arg::new(SECRET_FILE).long(SECRET_FILE).value_name("FILE");
    Command::new(WEBHOOK)
        .about("Receive the events of webhooks and print them, one a line; to try out what is sent")
        .after_help(
            "Point a server at it: --webhook url=http://127.0.0.1:3000/,secret_file=FILE. Ends at Ctrl-C. Exit code 2 where it \
             cannot listen or read the secret.",
        )
        .arg(listen.help("Where to listen; port 0 is a free one"))
        .arg(secret.help("The secret that signatures are checked with [default: they are not checked]"))
}

/// Receives until stdout is gone.
pub(super) fn run(matches: &ArgMatches, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let text = |id: &str| matches.get_one::<String>(id);
    let address: SocketAddr = match text(LISTEN).map(|text| (text.parse(), text)) {
        Some((Ok(address), _)) => address,
        Some((Err(_), text)) => {
            return refuse(err, format_args!("--listen {text:?} is no address; write 127.0.0.1:3000"));
        }
        None => return refuse(err, "--listen is missing"),
    };
    let secret = match text(SECRET_FILE).map(|path| secret(path)).transpose() {
        Ok(secret) => secret,
        Err(what) => return refuse(err, what),
    };
    if secret.is_none() {
        complain(err, "fanfare: signatures are not checked: give the secret with --secret-file");
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return refuse(err, error),
    };
    match LocalSet::new().block_on(&runtime, receive(address, secret, out)) {
        Ok(()) => 0,
        Err(error) => {
            complain(err, format_args!("fanfare: cannot listen on {address}: {error}"));
            EXIT_REFUSED
        }
    }
}

fn secret(path: &str) -> Result<SigningSecret, String> {
    let bytes = read_at_most(path, SECRET_BYTES_MAX).map_err(|what| format!("--secret-file {path:?}: {what}"))?;
    let end = bytes.iter().rposition(|byte| !matches!(byte, b'\n' | b'\r')).map_or(0, |last| last + 1);
    Ok(SigningSecret::new(&bytes[..end]))
}

async fn receive(address: SocketAddr, secret: Option<SigningSecret>, out: &mut dyn Write) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let (lines, mut printed) = mpsc::unbounded_channel::<String>();
    let _ = lines.send(format!("listening on http://{}/\n", listener.local_addr()?));
    let secret = Rc::new(secret);
    tokio::task::spawn_local(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (lines, secret) = (lines.clone(), secret.clone());
            let service = service_fn(move |request| {
                let (lines, secret) = (lines.clone(), secret.clone());
                async move {
                    let (status, text) = taken(request, secret.as_ref().as_ref()).await;
                    // Who prints ends with the process alone.
                    let _ = lines.send(text);
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = status;
                    Ok::<_, Infallible>(response)
                }
            });
            // A connection that breaks is the other side's business.
            tokio::task::spawn_local(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    while let Some(text) = printed.recv().await {
        if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
            // Nobody reads any more.
            break;
        }
    }
    Ok(())
}

/// How a request is answered, and what is printed of it.
async fn taken(request: Request<Incoming>, secret: Option<&SigningSecret>) -> (StatusCode, String) {
    if request.method() != Method::POST {
        let line = format!("refused: {} is no POST\n", one_line(request.method().as_str()));
        return (StatusCode::METHOD_NOT_ALLOWED, line);
    }
    let signature = request.headers().get(SIGNATURE_FIELD).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = match Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return (StatusCode::BAD_REQUEST, format!("refused: {}\n", one_line(&error.to_string()))),
    };
    if let Some(secret) = secret
        && let Err(error) = secret.check(signature.as_deref().unwrap_or_default(), &body)
    {
        return (StatusCode::UNAUTHORIZED, format!("refused: {error}\n"));
    }
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let Some(events) = body["events"].as_array() else {
        return (StatusCode::BAD_REQUEST, "refused: there are no events in it\n".to_owned());
    };
    (StatusCode::NO_CONTENT, events.iter().map(line).collect())
}

/// `ID room_occupied den`: names that others chose stay on their line.
fn line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let name = if event["roomId"].is_string() { text("roomId") } else { text("userId") };
    one_line(&format!("{} {} {name}", text("id"), text("event"))) + "\n"
}
