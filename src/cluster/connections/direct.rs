//! One server without TLS: both connections are [`Wire`]s, which the cluster's thread drives itself. No task stands
//! between it and the socket, so a message costs no further turn of the scheduler on its way out or in.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use redis::{Client, Value};

use super::super::core::Command;
use super::super::redis::{Mode, Scripts, reply};
use super::resp::{Pushed, integer, pushed, put_command};
use super::wire::{Watch, Wire};
use super::{Answers, needs_other_connection, reason, refusal, scripts_of};
use crate::limits::{CLUSTER_DEFERRED_BYTES, CLUSTER_DEFERRED_MS};
use crate::time::Millis;

/// A server that commands are sent to.
///
/// ```text
///              something was sent whose answer nothing waits for
///   Prompt ────────────────────────────────────────────────────────► Deferred(until)
///      ▲                                                               │      ▲ │ as much is sent again
///      └── an answer is awaited, or `until` has come ──────────────────┘      └─┘
/// ```
///
/// An answer that comes at once would wake this thread just when the message goes to the other nodes, which may be on the
/// same core. So where nothing waits for it, it is looked at in passing.
pub(in super::super) struct DirectCommands {
    wire: Wire,
    attention: Attention,
    scripts: Scripts,
    /// What is not answered, in order.
    sent: VecDeque<Sent>,
    /// Bytes that were sent since answers were looked for last.
    sent_bytes: usize,
}

/// Whether an answer of Redis is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum Awaited {
    BySomething,
    ByNothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attention {
    /// An answer wakes the thread.
    Prompt,
    /// The thread looks when it is awake, and at this time at the latest.
    Deferred(Millis),
}

struct Sent {
    batch: u64,
    /// Without their contents.
    commands: Vec<Command>,
    answers: Vec<Value>,
}

impl DirectCommands {
    /// Connects, loads the scripts and asks who the server is.
    pub(super) async fn connect(client: &Client) -> Result<DirectCommands, String> {
        let (wire, answers) = Wire::connect(client, &Scripts::preparation(Mode::Alone)).await?;
        Ok(DirectCommands {
            wire,
            scripts: scripts_of(&answers, Mode::Alone)?,
            attention: Attention::Prompt,
            sent: VecDeque::new(),
            sent_bytes: 0,
        })
    }

    /// Sends commands; [`DirectCommands::next_answers`] has what becomes of them.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) fn send(&mut self, batch: u64, mut commands: Vec<Command>) -> Result<(), String> {
        let before_bytes = self.wire.outgoing().len();
        for command in &mut commands {
            match command {
                Command::Publish { channel, payload } => {
                    let payload = std::mem::take(payload);
                    put_command(self.wire.outgoing(), &[b"PUBLISH", channel.as_bytes(), &payload]);
                }
                Command::Append { .. }
                | Command::Read { .. }
                | Command::Purge { .. }
                | Command::Revoke { .. }
                | Command::Revocations { .. }
                | Command::Tell(_)
                | Command::UpdateItems(_)
                | Command::ReadItems(_) => {
                    let mut pipeline = redis::pipe();
                    self.scripts.add(&mut pipeline, command);
                    self.wire.outgoing().extend_from_slice(&pipeline.get_packed_pipeline());
                    match command {
                        Command::Append { entries, .. } => *entries = Vec::new(),
                        Command::UpdateItems(update) => update.call.strip(),
                        _ => {}
                    }
                }
            }
        }
        self.sent_bytes += self.wire.outgoing().len() - before_bytes;
        self.sent.push_back(Sent { batch, answers: Vec::with_capacity(commands.len()), commands });
        self.wire.flush().map_err(why)
    }

    /// To be called when all is sent, before waiting: whether something waits for an answer, as things are now. When the
    /// next call is due, where that is not left to [`DirectCommands::ready`].
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) fn attend(&mut self, awaited: Awaited, now: Millis) -> Result<Option<Millis>, String> {
        self.attention = match (awaited, self.attention) {
            (Awaited::ByNothing, Attention::Prompt) if !self.sent.is_empty() => {
                match self.wire.unwatch().map_err(why)? {
                    Watch::Off => Attention::Deferred(now.saturating_add(CLUSTER_DEFERRED_MS)),
                    Watch::On => Attention::Prompt,
                }
            }
            (Awaited::ByNothing, Attention::Deferred(until)) if now < until => Attention::Deferred(until),
            (Awaited::BySomething | Awaited::ByNothing, _) => {
                self.wire.watch().map_err(why)?;
                Attention::Prompt
            }
        };
        match self.attention {
            Attention::Prompt => Ok(None),
            Attention::Deferred(until) => Ok(Some(until)),
        }
    }

    /// Waits until something has come, or something that waited has gone. May be given up at any time.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) async fn ready(&mut self) -> Result<(), String> {
        self.wire.ready().await.map_err(why)
    }

    /// The answers to the oldest batch, if they are all there.
    ///
    /// # Errors
    /// The connection is of no use any more, and why.
    pub(in super::super) fn next_answers(&mut self) -> Result<Option<(u64, Answers)>, String> {
        if self.sent_bytes >= CLUSTER_DEFERRED_BYTES {
            self.sent_bytes = 0;
            self.wire.read_unwatched().map_err(why)?;
        }
        while let Some(value) = self.wire.next_value().map_err(why)? {
            let answer = match integer(value) {
                Some(number) => Value::Int(number),
                None => redis::parse_redis_value(value).map_err(|error| reason(&error))?,
            };
            if let Some(why) = needs_other_connection(&answer) {
                return Err(why);
            }
            let Some(oldest) = self.sent.front_mut() else {
                return Err("it answers what it was not asked".to_owned());
            };
            oldest.answers.push(answer);
            if oldest.answers.len() == oldest.commands.len()
                && let Some(Sent { batch, commands, answers }) = self.sent.pop_front()
            {
                let refusal = answers.iter().find_map(refusal);
                let replies = commands.iter().zip(answers).map(|(command, answer)| reply(command, answer)).collect();
                return Ok(Some((batch, Answers { replies, refusal })));
            }
        }
        Ok(None)
    }

    /// Carries commands out, where nothing else is under way.
    pub(super) async fn run(&mut self, commands: Vec<Command>) -> Result<Answers, String> {
        self.send(0, commands)?;
        loop {
            if let Some((_, answers)) = self.next_answers()? {
                return Ok(answers);
            }
            self.ready().await?;
        }
    }
}

/// A server whose channels are subscribed to.
pub(in super::super) struct DirectSubscriber(Wire);

/// What has come to one that subscribes.
pub(in super::super) enum Came<'a> {
    /// This channel is subscribed to from here on.
    Subscribed(Arc<str>),
    /// A channel is not subscribed to any more.
    Unsubscribed,
    /// A message on a channel.
    Message { channel: &'a str, payload: &'a [u8] },
}

impl DirectSubscriber {
    pub(super) async fn connect(client: &Client) -> Result<DirectSubscriber, String> {
        Ok(DirectSubscriber(Wire::connect(client, &redis::pipe()).await?.0))
    }

    /// Subscribes; [`Came::Subscribed`] tells of each when that is done.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) fn subscribe(&mut self, channels: &[Arc<str>]) -> Result<(), String> {
        self.send(b"SUBSCRIBE", channels)
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) fn unsubscribe(&mut self, channels: &[Arc<str>]) -> Result<(), String> {
        self.send(b"UNSUBSCRIBE", channels)
    }

    fn send(&mut self, name: &'static [u8], channels: &[Arc<str>]) -> Result<(), String> {
        let parts: Vec<&[u8]> =
            std::iter::once(name).chain(channels.iter().map(|channel| channel.as_bytes())).collect();
        put_command(self.0.outgoing(), &parts);
        self.0.flush().map_err(why)
    }

    /// Waits until something has come, or something that waited has gone. May be given up at any time.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(in super::super) async fn ready(&mut self) -> Result<(), String> {
        self.0.ready().await.map_err(why)
    }

    /// The next that has come.
    ///
    /// # Errors
    /// The connection is of no use any more, and why.
    pub(in super::super) fn next(&mut self) -> Result<Option<Came<'_>>, String> {
        let Some(value) = self.0.next_value().map_err(why)? else { return Ok(None) };
        match pushed(value).map_err(why)? {
            Pushed::Message(message) => Ok(Some(Came::Message { channel: message.channel, payload: message.payload })),
            Pushed::Subscribed(channel) => Ok(Some(Came::Subscribed(channel.into()))),
            Pushed::Unsubscribed => Ok(Some(Came::Unsubscribed)),
            Pushed::Error(value) => {
                let answer = redis::parse_redis_value(value).map_err(|error| reason(&error))?;
                Err(refusal(&answer).unwrap_or_else(|| "it refuses a subscription".to_owned()))
            }
        }
    }

    /// Bytes that have come and were not looked at.
    pub(in super::super) fn waiting_bytes(&self) -> usize {
        self.0.waiting_bytes()
    }
}

fn why(error: io::Error) -> String {
    error.to_string()
}
