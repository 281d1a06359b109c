//! One server that tasks talk to, because what goes over the wire is not what is said (TLS).

use std::sync::Arc;

use futures_util::StreamExt;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSubSink};
use redis::{AsyncConnectionConfig, Client, Pipeline, Value};

use super::super::core::Command;
use super::super::redis::{Mode, Scripts, reply};
use super::{Answers, Heard, Hearing, Listening, needs_other_connection, reason, refusal, scripts_of};

/// A server that commands are sent to.
#[derive(Clone)]
pub(in super::super) struct Server {
    connection: MultiplexedConnection,
    scripts: Arc<Scripts>,
}

impl Server {
    /// Connects, loads the scripts and asks who the server is.
    pub(super) async fn connect(client: &Client, mode: Mode) -> Result<Server, String> {
        // The core sees to it that an answer comes in time.
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
        let connected = client.get_multiplexed_async_connection_with_config(&config).await;
        let mut connection = connected.map_err(|error| reason(&error))?;
        let preparation = Scripts::preparation(mode);
        let answers = connection.req_packed_commands(&preparation, 0, preparation.len()).await;
        let answers = answers.map_err(|error| reason(&error))?;
        Ok(Server { connection, scripts: Arc::new(scripts_of(&answers, mode)?) })
    }

    pub(super) fn scripts(&self) -> &Scripts {
        &self.scripts
    }

    /// What the server says to some commands, its errors too.
    ///
    /// # Errors
    /// The connection is lost, or the server is of no use.
    pub(super) async fn ask(&mut self, pipeline: &Pipeline) -> Result<Vec<Value>, String> {
        let asked = self.connection.req_packed_commands(pipeline, 0, pipeline.len()).await;
        let answers = asked.map_err(|error| reason(&error))?;
        match answers.iter().find_map(needs_other_connection) {
            Some(why) => Err(why),
            None => Ok(answers),
        }
    }

    pub(super) async fn run(&mut self, commands: &[Command]) -> Result<Answers, String> {
        let mut pipeline = redis::pipe();
        commands.iter().for_each(|command| self.scripts.add(&mut pipeline, command));
        let answers = self.ask(&pipeline).await?;
        Ok(Answers {
            refusal: answers.iter().find_map(refusal),
            replies: commands.iter().zip(answers).map(|(command, answer)| reply(command, answer)).collect(),
        })
    }
}

/// A server whose channels are subscribed to.
#[derive(Clone)]
pub(in super::super) struct SingleSubscriber {
    sink: PubSubSink,
    hearing: Hearing,
}

impl SingleSubscriber {
    pub(super) async fn connect(client: &Client, hearing: Hearing) -> Result<(SingleSubscriber, Listening), String> {
        let connection = client.get_async_pubsub().await.map_err(|error| reason(&error))?;
        let (sink, mut stream) = connection.split();
        let subscriber = SingleSubscriber { sink, hearing: hearing.clone() };
        let listening = async move {
            while let Some(message) = stream.next().await {
                hearing(Heard::Message(message));
            }
            "it was closed".to_owned()
        };
        Ok((subscriber, Box::pin(listening)))
    }

    pub(super) fn subscribe(&self, channels: Vec<Arc<str>>) {
        let SingleSubscriber { mut sink, hearing } = self.clone();
        tokio::task::spawn_local(async move {
            let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
            hearing(match sink.subscribe(names).await {
                Ok(()) => Heard::Subscribed(channels),
                Err(error) => Heard::Lost(reason(&error)),
            });
        });
    }

    pub(super) fn unsubscribe(&self, channels: Vec<Arc<str>>) {
        let mut sink = self.sink.clone();
        tokio::task::spawn_local(async move {
            let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
            // Where it fails the connection is lost, and with it the subscription.
            let _ = sink.unsubscribe(names).await;
        });
    }
}
