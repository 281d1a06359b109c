//! `fanfare pub`, `sub`, `presence` and `feed`: a client for people, of any server of the user dialect.
//!
//! Owns the URL a server is named by (`url`), TLS with it (`tls`, `transport`) and the token that is brought (`token`),
//! all of which the load generator uses too; one connection that is waited on
//! together with stdin or a signal (`link`, `interrupt`), what the server's messages say (`message`), when to try
//! again (`backoff`), and the four commands. One thread, one connection at a time: a crowd of them is `bench`'s.
//!
//! The commands of an operator ask a server's HTTP API (`api`).
//!
//! It never touches the server's modules: what it knows of a server is what `docs/wire.md` tells anyone. The query of
//! a URL may hold a secret, and a token is one. They are sent to the server and never shown.
//!
//! Imports `config` (for the forms in which addresses are written) and nothing else of this crate.
//!
//! ```text
//! publish, subscribe, presence ─► link ─► tungstenite ─► a socket, TCP or Unix
//!     │            │ joined, acks   │ url, token   └─ transport: TLS or none
//!   stdin      interrupt, backoff   └─► poll: the socket, and stdin or the signal
//! ```

mod api;
mod backoff;
mod error;
mod feed;
mod interrupt;
mod lines;
mod link;
mod message;
mod presence;
mod publish;
mod subscribe;
mod tls;
mod token;
mod transport;
mod url;

use std::fmt::Display;
use std::io::{self, Write};

pub use api::{Api, ApiAnswer};
pub use error::ClientError;
pub use feed::{Feed, FeedSource, Stream, StreamEntry, feed};
pub use message::Position;
pub use presence::{Presence, presence};
pub use publish::{Content, Publish, publish};
pub use subscribe::{Format, Keyed, Start, Subscribe, subscribe};
pub use tls::{Tls, Trust, tls_failure};
pub use token::Token;
pub use transport::{Secure, Transport};
pub use url::Url;

use crate::config::{one_json_line, one_line};

/// Whose connection it is, and with whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// The server.
    pub url: Url,
    /// The user id; without one the connection is anonymous, or of the user that the URL's own query names.
    pub user: Option<String>,
    /// What says who the user is, where the server asks for that.
    pub token: Option<Token>,
    /// What TLS needs, where the URL asks for TLS.
    pub tls: Option<Tls>,
}

impl Target {
    /// Whether the server is told by a token who it is.
    fn brings_token(&self) -> bool {
        self.token.is_some() || self.url.holds_token()
    }
}

/// What was not asked for and should be known: one line. Where even that cannot be written, no one is there to read it.
fn note(err: &mut dyn Write, what: impl Display) {
    let _ = writeln!(err, "fanfare: {}", one_line(&what.to_string()));
}

/// What was asked for, of what others wrote: one line, whatever it holds.
struct Line(String);

impl Line {
    /// For people.
    fn of_text(text: &str) -> Line {
        Line(one_line(text))
    }

    /// Valid JSON, for programs.
    fn of_json(json: &str) -> Line {
        Line(one_json_line(json))
    }
}

/// A line of what was asked for. Returns whether stdout still has a reader.
fn print(out: &mut dyn Write, Line(line): &Line) -> Result<bool, ClientError> {
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(ClientError::Output(error)),
    }
}
