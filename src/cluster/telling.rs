//! A connection to Redis for webhooks, of their thread: one call at a time.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::connections::{Commands, Redis};
use super::core::{Command, Reply};
use super::tell::{Tell, Told};
use crate::config::RedisAddress;
use crate::limits::CLUSTER_ANSWER_MS_MAX;

/// Why Redis did not answer, without a secret.
#[derive(Debug)]
pub enum TellError {
    /// There is no connection: nothing has happened.
    NotSent(String),
    /// What became of the call is not known.
    Lost(String),
}

impl TellError {
    /// Whether the call may have been carried out.
    pub fn was_sent(&self) -> bool {
        match self {
            TellError::NotSent(_) => false,
            TellError::Lost(_) => true,
        }
    }
}

impl fmt::Display for TellError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TellError::NotSent(why) | TellError::Lost(why) => f.write_str(why),
        }
    }
}

/// Where Redis is.
pub struct TellAddress(Arc<Redis>);

/// See the module's documentation.
pub struct Telling {
    redis: Arc<Redis>,
    commands: Option<Commands>,
}

impl TellAddress {
    /// Reads the file `tls_ca`, if there is a name.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no certificate.
    pub fn new(address: RedisAddress, tls_ca: &str) -> io::Result<TellAddress> {
        Ok(TellAddress(Arc::new(Redis::new(address, tls_ca)?)))
    }
}

impl Telling {
    /// Connects at the first call.
    pub fn to(address: TellAddress) -> Telling {
        Telling { redis: address.0, commands: None }
    }

    /// Has the script run, over the connection of the last call or a new one.
    ///
    /// # Errors
    /// Why it has not. The connection is given up.
    pub async fn tell(&mut self, tell: Tell) -> Result<Told, TellError> {
        let commands = match self.commands.take() {
            Some(commands) => commands,
            None => self.redis.commands().await.map_err(TellError::NotSent)?.0,
        };
        self.call(commands, tell).await.map_err(TellError::Lost)
    }

    async fn call(&mut self, mut commands: Commands, tell: Tell) -> Result<Told, String> {
        let answer_ms_max = Duration::from_millis(CLUSTER_ANSWER_MS_MAX);
        let answered = tokio::time::timeout(answer_ms_max, commands.run(vec![Command::Tell(Box::new(tell))])).await;
        let answers = answered.map_err(|_| "no answer".to_owned())??;
        match answers.replies.into_iter().next() {
            Some(Reply::Told(told)) => {
                self.commands = Some(commands);
                Ok(*told)
            }
            _ => Err(answers.refusal.unwrap_or_else(|| "an answer that is none".to_owned())),
        }
    }
}
