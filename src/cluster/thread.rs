//! The cluster's thread: its mailbox, the two connections to Redis, the clock. What happens is the core's business.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use redis::aio::{ConnectionLike, MultiplexedConnection, PubSubSink, PubSubStream};
use redis::{AsyncConnectionConfig, Client, Msg, RedisError, Value};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinHandle, LocalSet};

use super::core::{Command, Core, Identity, Input, Output, Reply};
use super::redis::{Scripts, reply, server_error};
use crate::limits::{CLUSTER_CONNECT_MS_MAX, CLUSTER_RETRY_MS_MAX, CLUSTER_RETRY_MS_MIN};
use crate::metrics::NodeMetrics;
use crate::reactor::{Mailbox, Parcel, Wake};
use crate::time::Millis;

/// Where the cluster is.
pub struct ClusterSettings {
    /// The URL of Redis, which may hold a password.
    pub url: String,
    /// What names in Redis begin with.
    pub prefix: String,
    /// Who this node is.
    pub identity: Identity,
}

/// Wakes the cluster's thread; its mailbox needs it before the thread is there.
#[derive(Debug, Default)]
pub struct ClusterWaker(Notify);

impl Wake for ClusterWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Starts the thread; it ends with the process. Redis is not waited for.
///
/// # Errors
/// Where the URL cannot be understood, or the thread or its event loop cannot be made.
pub fn spawn(
    settings: ClusterSettings,
    mailbox: Mailbox,
    waker: Arc<ClusterWaker>,
    metrics: Arc<NodeMetrics>,
    started: Instant,
) -> io::Result<()> {
    // The error names no part of the URL.
    let client = Client::open(&*settings.url).map_err(|error| io::Error::other(error.to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let body = move || {
        let (events, inbox) = mpsc::unbounded_channel();
        let thread = Thread {
            core: Core::new(settings.identity, &settings.prefix),
            mailbox,
            waker,
            metrics,
            started,
            client,
            events,
            commands: Line::default(),
            subscriber: Line::default(),
        };
        LocalSet::new().block_on(&runtime, thread.run(inbox));
    };
    std::thread::Builder::new().name("cluster".into()).spawn(body).map(drop)
}

struct Thread {
    core: Core,
    mailbox: Mailbox,
    waker: Arc<ClusterWaker>,
    metrics: Arc<NodeMetrics>,
    started: Instant,
    client: Client,
    events: mpsc::UnboundedSender<Event>,
    commands: Line<Commands>,
    subscriber: Line<PubSubSink>,
}

/// A connection that is there, or is being made.
struct Line<C> {
    /// Which connection; what an earlier one still tells is nobody's.
    session: u64,
    connection: Option<C>,
    attempts: u32,
    task: Option<JoinHandle<()>>,
}

impl<C> Default for Line<C> {
    fn default() -> Line<C> {
        Line { session: 0, connection: None, attempts: 0, task: None }
    }
}

#[derive(Clone)]
struct Commands {
    connection: MultiplexedConnection,
    scripts: Arc<Scripts>,
}

/// What the tasks of the connections tell the loop, each with the session it belongs to.
enum Event {
    CommandsUp(u64, Commands),
    CommandsDown(u64, String),
    Replies(u64, u64, Vec<Reply>),
    SubscriberUp(u64, PubSubSink),
    SubscriberDown(u64, String),
    Subscribed(u64, Vec<Arc<str>>),
    Received(u64, Msg),
}

impl Thread {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        self.connect_commands();
        self.connect_subscriber();
        loop {
            self.core.handle_time(self.now());
            self.take_mail();
            while let Ok(event) = inbox.try_recv() {
                self.take(event);
            }
            self.hand_out();
            let spilled = !self.post();
            if let Some(metrics) = &self.metrics.cluster {
                metrics.publish(&self.core.counts());
            }
            if spilled {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else if self.mailbox.fall_asleep() {
                let wait = Duration::from_millis(self.core.next_at().since(self.now()));
                tokio::select! {
                    () = self.waker.0.notified() => {}
                    event = inbox.recv() => if let Some(event) = event { self.take(event) },
                    () = tokio::time::sleep(wait) => {}
                }
                self.mailbox.wake_up();
            } else {
                tokio::task::yield_now().await;
            }
        }
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn take_mail(&mut self) {
        while let Some(parcel) = self.mailbox.take() {
            match parcel {
                Parcel::Mail(from, mut parcel) => {
                    for mail in parcel.drain(..) {
                        self.core.handle_mail(from, mail.into_cluster());
                    }
                    self.mailbox.give_back(parcel);
                }
                // The node goes away; its cluster is left when the process ends.
                Parcel::Order(_) => {}
            }
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::CommandsUp(session, connection) if session == self.commands.session => {
                self.commands.connection = Some(connection);
                self.commands.attempts = 0;
                self.core.handle(Input::CommandsUp);
                tracing::info!("connected to Redis");
            }
            Event::CommandsDown(session, why) if session == self.commands.session => {
                if self.commands.connection.take().is_some() {
                    tracing::warn!(why, "lost the connection to Redis: history is unavailable until it is back");
                    self.core.handle(Input::CommandsDown);
                } else if self.commands.attempts == 1 {
                    tracing::warn!(why, "cannot reach Redis: history is unavailable; trying again");
                }
                self.connect_commands();
            }
            Event::Replies(session, batch, replies) if session == self.commands.session => {
                self.core.handle(Input::Replies { batch, replies });
            }
            Event::SubscriberUp(session, sink) if session == self.subscriber.session => {
                self.subscriber.connection = Some(sink);
                self.subscriber.attempts = 0;
                self.core.handle(Input::SubscriberUp);
            }
            Event::SubscriberDown(session, why) if session == self.subscriber.session => {
                if self.subscriber.connection.take().is_some() {
                    tracing::warn!(why, "lost the subscriptions at Redis: other nodes' messages are late");
                    self.core.handle(Input::SubscriberDown);
                }
                self.connect_subscriber();
            }
            Event::Subscribed(session, channels) if session == self.subscriber.session => {
                self.core.handle(Input::Subscribed(channels));
            }
            Event::Received(session, message) if session == self.subscriber.session => {
                let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
                self.core.handle(Input::Received { channel, payload });
            }
            // Of a connection that was given up.
            Event::CommandsUp(..)
            | Event::CommandsDown(..)
            | Event::Replies(..)
            | Event::SubscriberUp(..)
            | Event::SubscriberDown(..)
            | Event::Subscribed(..)
            | Event::Received(..) => {}
        }
    }

    /// Does what the core wants done.
    fn hand_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commands { batch, commands } => self.send(batch, commands),
                Output::Subscribe(channels) => self.subscribe(channels),
                Output::Unsubscribe(channels) => {
                    if let Some(mut sink) = self.subscriber.connection.clone() {
                        let channels: Vec<String> = channels.iter().map(ToString::to_string).collect();
                        tokio::task::spawn_local(async move {
                            // Where it fails the connection is lost, and with it the subscription.
                            let _ = sink.unsubscribe(channels).await;
                        });
                    }
                }
                Output::ResetCommands => {
                    tracing::warn!("Redis does not answer: connecting anew");
                    self.commands.connection = None;
                    self.connect_commands();
                }
                Output::ResetSubscriber => {
                    tracing::warn!("nothing arrives from Redis: subscribing anew");
                    self.subscriber.connection = None;
                    self.connect_subscriber();
                }
            }
        }
    }

    /// Posts the mail for the reactors; whether all of it found room.
    fn post(&mut self) -> bool {
        for (to, mail) in self.core.poll_mail() {
            self.mailbox.gather(to, mail);
        }
        self.mailbox.post()
    }

    fn send(&mut self, batch: u64, commands: Vec<Command>) {
        let Some(Commands { mut connection, scripts }) = self.commands.connection.clone() else { return };
        let (events, session) = (self.events.clone(), self.commands.session);
        tokio::task::spawn_local(async move {
            let pipeline = scripts.pipeline(&commands);
            let event = match connection.req_packed_commands(&pipeline, 0, commands.len()).await {
                Ok(answers) => match answers.iter().find_map(needs_other_connection) {
                    Some(code) => Event::CommandsDown(session, code),
                    None => {
                        let replies =
                            commands.iter().zip(answers).map(|(command, answer)| reply(command, answer)).collect();
                        Event::Replies(session, batch, replies)
                    }
                },
                Err(error) => Event::CommandsDown(session, reason(&error)),
            };
            // Nobody listens any more where the process ends.
            let _ = events.send(event);
        });
    }

    fn subscribe(&mut self, channels: Vec<Arc<str>>) {
        let Some(mut sink) = self.subscriber.connection.clone() else { return };
        let (events, session) = (self.events.clone(), self.subscriber.session);
        tokio::task::spawn_local(async move {
            let names: Vec<&str> = channels.iter().map(|channel| &**channel).collect();
            let event = match sink.subscribe(names).await {
                Ok(()) => Event::Subscribed(session, channels),
                Err(error) => Event::SubscriberDown(session, reason(&error)),
            };
            let _ = events.send(event);
        });
    }

    /// Makes a connection for commands in place of the one there was.
    fn connect_commands(&mut self) {
        let (session, delay) = self.commands.begin();
        let (client, events) = (self.client.clone(), self.events.clone());
        self.commands.task = Some(tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let event = match within(prepare_commands(&client)).await {
                Ok(commands) => Event::CommandsUp(session, commands),
                Err(why) => Event::CommandsDown(session, why),
            };
            let _ = events.send(event);
        }));
    }

    /// Makes a connection that subscribes in place of the one there was, and listens to it.
    fn connect_subscriber(&mut self) {
        let (session, delay) = self.subscriber.begin();
        let (client, events) = (self.client.clone(), self.events.clone());
        self.subscriber.task = Some(tokio::task::spawn_local(async move {
            tokio::time::sleep(delay).await;
            let why = match within(subscriber(&client)).await {
                Ok((sink, mut stream)) => {
                    let _ = events.send(Event::SubscriberUp(session, sink));
                    while let Some(message) = stream.next().await {
                        let _ = events.send(Event::Received(session, message));
                    }
                    "it was closed".to_owned()
                }
                Err(why) => why,
            };
            let _ = events.send(Event::SubscriberDown(session, why));
        }));
    }
}

impl<C> Line<C> {
    /// Gives up what there is; the session of the next connection, and how long to wait before it is tried.
    fn begin(&mut self) -> (u64, Duration) {
        if let Some(task) = self.task.take() {
            task.abort();
        }
        self.session += 1;
        let delay_ms = match self.attempts {
            0 => 0,
            attempts => {
                let ms_max = (CLUSTER_RETRY_MS_MIN << (attempts - 1).min(16)).min(CLUSTER_RETRY_MS_MAX);
                fastrand::u64(ms_max / 2..=ms_max)
            }
        };
        self.attempts += 1;
        (self.session, Duration::from_millis(delay_ms))
    }
}

async fn within<T>(attempt: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    match tokio::time::timeout(Duration::from_millis(CLUSTER_CONNECT_MS_MAX), attempt).await {
        Ok(outcome) => outcome,
        Err(_) => Err("no answer".to_owned()),
    }
}

async fn prepare_commands(client: &Client) -> Result<Commands, String> {
    // The core sees to it that an answer comes in time.
    let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
    let connected = client.get_multiplexed_async_connection_with_config(&config).await;
    let mut connection = connected.map_err(|error| reason(&error))?;
    let preparation = Scripts::preparation();
    let answers = connection.req_packed_commands(&preparation, 0, preparation.len()).await;
    let scripts = Arc::new(Scripts::at(&answers.map_err(|error| reason(&error))?)?);
    Ok(Commands { connection, scripts })
}

async fn subscriber(client: &Client) -> Result<(PubSubSink, PubSubStream), String> {
    let connection = client.get_async_pubsub().await.map_err(|error| reason(&error))?;
    Ok(connection.split())
}

/// Errors after which another connection may fare better: the server is no primary any more, is loading, or has
/// forgotten the scripts.
fn needs_other_connection(answer: &Value) -> Option<String> {
    let code = server_error(answer)?;
    matches!(&*code, "READONLY" | "LOADING" | "MASTERDOWN" | "NOSCRIPT" | "NOAUTH" | "UNBLOCKED").then_some(code)
}

/// Why something failed, without what was sent.
fn reason(error: &RedisError) -> String {
    match error.code() {
        Some(code) => code.to_owned(),
        None => error.category().to_owned(),
    }
}
