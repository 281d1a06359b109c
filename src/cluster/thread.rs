//! The cluster's thread: its mailbox, the two connections to Redis, the clock. What happens is the core's business.

use std::cell::Cell;
use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};

use super::connections::{Answers, Awaited, Came, Commands, Heard, Redis, Subscriber};
use super::core::{Command, Core, Identity, Input, Output};
use super::vitals::LastTold;
use crate::config::RedisAddress;
use crate::limits::{CLUSTER_BACKLOG_BYTES_MAX, CLUSTER_REFUSAL_MS, CLUSTER_RETRY_MS_MAX, CLUSTER_RETRY_MS_MIN};
use crate::metrics::{ClusterMetrics, Connection, NodeMetrics};
use crate::reactor::{Mailbox, Order, Parcel, Wake};
use crate::time::Millis;

/// Where the cluster is.
pub struct ClusterSettings {
    /// What the URL of Redis says, which may hold a password.
    pub address: RedisAddress,
    /// The file with certificate authorities of one's own; empty is the system's.
    pub tls_ca: String,
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

/// Starts the thread; it ends with the process. Redis is not waited for. The receiver gets one message, behind
/// [`Order::Finish`], when all that was to be sent is sent.
///
/// # Errors
/// Where the certificate authorities cannot be read, or the thread or its event loop cannot be made.
pub fn spawn(
    settings: ClusterSettings,
    mailbox: Mailbox,
    waker: Arc<ClusterWaker>,
    metrics: Arc<NodeMetrics>,
    started: Instant,
) -> io::Result<Receiver<()>> {
    let redis = Arc::new(Redis::new(settings.address, &settings.tls_ca)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (finish, finished) = bounded(1);
    let body = move || {
        let (events, inbox) = mpsc::unbounded_channel();
        let thread = Thread {
            core: Core::new(settings.identity, &settings.prefix),
            mailbox,
            waker,
            last_told: LastTold::new(Instant::now()),
            metrics,
            started,
            redis,
            events,
            commands: Line::default(),
            subscriber: Line::default(),
            sent: VecDeque::new(),
            refusal: None,
            waiting_bytes: Rc::default(),
            finish,
            is_finishing: false,
            mail: MailState::Posted,
        };
        LocalSet::new().block_on(&runtime, thread.run(inbox));
    };
    std::thread::Builder::new().name("cluster".into()).spawn(body)?;
    Ok(finished)
}

struct Thread {
    core: Core,
    mailbox: Mailbox,
    waker: Arc<ClusterWaker>,
    metrics: Arc<NodeMetrics>,
    last_told: LastTold,
    started: Instant,
    redis: Arc<Redis>,
    events: mpsc::UnboundedSender<Event>,
    commands: Line<Commands>,
    subscriber: Line<Subscriber>,
    /// Commands that are under way, and since when: as many as the core has under way.
    sent: VecDeque<(u64, Instant)>,
    /// Why Redis refused a command last, and when that was logged.
    refusal: Option<(String, Millis)>,
    /// Bytes of messages that a task has heard and that were not looked at yet.
    waiting_bytes: Rc<Cell<usize>>,
    /// Notified when all is sent, once the node goes away.
    finish: Sender<()>,
    is_finishing: bool,
    mail: MailState,
}

/// What became of the mail for the reactors in the last turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MailState {
    /// They have it all.
    Posted,
    /// Some of it found no room.
    Spilled,
}

/// What the thread does between two turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pause {
    /// There is mail already: only sockets and other tasks have their turn.
    GiveWay,
    /// It sleeps until something comes, but no longer than this.
    AtMost(Duration),
}

/// A connection that is there, or is being made.
struct Line<C> {
    /// Which connection; events of an earlier one are skipped.
    session: u64,
    connection: Option<C>,
    /// Where it leads.
    address: String,
    /// Attempts since one was of use.
    attempts: u32,
    /// What makes the connection, keeps it going, or waits for its answers.
    tasks: JoinSet<()>,
}

impl<C> Default for Line<C> {
    fn default() -> Line<C> {
        Line { session: 0, connection: None, address: String::new(), attempts: 0, tasks: JoinSet::new() }
    }
}

/// What comes from the tasks of the connections, each with the session it belongs to.
enum Event {
    CommandsUp(u64, Commands, String),
    CommandsDown(u64, String),
    Answered(u64, u64, Answers),
    SubscriberUp(u64, Subscriber, String),
    Heard(u64, Heard),
}

impl Thread {
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Event>) {
        self.connect_commands();
        self.connect_subscriber();
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            self.tell_vitals();
            self.core.handle_time(self.now());
            self.take_mail();
            // While the reactors have no room for more, what comes from Redis waits.
            while self.takes_messages()
                && let Ok(event) = inbox.try_recv()
            {
                self.take(event);
            }
            self.take_answers();
            if self.takes_messages() {
                self.take_messages();
            }
            if self.waiting_bytes() > CLUSTER_BACKLOG_BYTES_MAX {
                self.subscriber_down("messages come faster than the reactors take them");
            }
            self.hand_out();
            self.mail = if self.post() { MailState::Posted } else { MailState::Spilled };
            if self.is_finishing && self.core.is_idle() {
                // The server may have waited long enough.
                let _ = self.finish.try_send(());
            }
            if let Some(metrics) = &self.metrics.cluster {
                metrics.publish(&self.core.counts());
            }
            let next_at = self.attend();
            let pause = match self.mail {
                MailState::Spilled => Pause::AtMost(Duration::from_millis(1)),
                MailState::Posted if !self.mailbox.fall_asleep() => Pause::GiveWay,
                MailState::Posted => Pause::AtMost(Duration::from_millis(next_at.since(self.now()))),
            };
            self.pause(&mut inbox, alarm.as_mut(), pause).await;
            self.mailbox.wake_up();
        }
    }

    /// Has the core tell the others how this node is doing, and those who ask here how they are.
    fn tell_vitals(&mut self) {
        if self.core.wants_vitals(self.now()) {
            self.core.set_vitals(self.last_told.take(&self.metrics, Instant::now()));
        }
        if let Some(nodes) = self.core.poll_nodes() {
            self.metrics.cluster_nodes.replace(nodes);
        }
    }

    /// Whether the reactors have room for what comes from Redis. While they have not, it waits.
    fn takes_messages(&self) -> bool {
        match self.mail {
            MailState::Posted => true,
            MailState::Spilled => false,
        }
    }

    /// Says how urgent the answers of Redis are; when there is something to do at the latest.
    fn attend(&mut self) -> Millis {
        let (now, next_at) = (self.now(), self.core.next_at());
        let Some(Commands::Direct(direct)) = &mut self.commands.connection else { return next_at };
        let awaited = match self.core.awaits_answers() || self.is_finishing {
            true => Awaited::BySomething,
            false => Awaited::ByNothing,
        };
        match direct.attend(awaited, now) {
            Ok(due) => next_at.min(due.unwrap_or(next_at)),
            Err(why) => {
                self.commands_down(&why);
                now
            }
        }
    }

    /// Waits for mail, an event, the sockets of direct connections, or as long as `pause` says.
    async fn pause(
        &mut self,
        inbox: &mut mpsc::UnboundedReceiver<Event>,
        mut alarm: Pin<&mut tokio::time::Sleep>,
        pause: Pause,
    ) {
        if let Pause::AtMost(at_most) = pause {
            // An alarm that rings early costs one turn. One that is set anew for each wait has the runtime wake itself,
            // which is two system calls for many a message.
            let due = tokio::time::Instant::now() + at_most;
            if alarm.is_elapsed() || due < alarm.deadline() {
                alarm.as_mut().reset(due);
            }
        }
        let takes_messages = self.takes_messages();
        let over = async {
            match pause {
                Pause::GiveWay => tokio::task::yield_now().await,
                Pause::AtMost(_) => alarm.await,
            }
        };
        let commands = async {
            match &mut self.commands.connection {
                Some(Commands::Direct(direct)) => direct.ready().await,
                Some(Commands::Tasked(_)) | None => std::future::pending().await,
            }
        };
        let subscriber = async {
            match &mut self.subscriber.connection {
                Some(Subscriber::Direct(direct)) => direct.ready().await,
                Some(Subscriber::Tasked(_)) | None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.waker.0.notified() => {}
            outcome = subscriber => if let Err(why) = outcome { self.subscriber_down(&why) },
            outcome = commands => if let Err(why) = outcome { self.commands_down(&why) },
            event = inbox.recv(), if takes_messages => if let Some(event) = event { self.take(event) },
            () = over => {}
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
                Parcel::Order(Order::Drain { .. }) | Parcel::News(_) => {}
                Parcel::Order(Order::Finish) => self.is_finishing = true,
            }
        }
    }

    fn take(&mut self, event: Event) {
        if let Event::Heard(_, heard) = &event {
            self.waiting_bytes.set(self.waiting_bytes.get() - heard.bytes());
        }
        match event {
            Event::CommandsUp(session, connection, address) if session == self.commands.session => {
                tracing::info!(address, "connected to Redis");
                self.commands.up(connection, address);
                self.core.handle(Input::CommandsUp);
                if self.subscriber.leads_elsewhere(&self.commands.address) {
                    self.subscriber_down("it leads to another Redis than the newer connection for commands");
                }
            }
            Event::CommandsDown(session, why) if session == self.commands.session => self.commands_down(&why),
            Event::Answered(session, batch, answers) if session == self.commands.session => {
                self.answered(batch, answers);
            }
            Event::SubscriberUp(session, connection, address) if session == self.subscriber.session => {
                self.subscriber.up(connection, address);
                self.core.handle(Input::SubscriberUp);
                if self.commands.leads_elsewhere(&self.subscriber.address) {
                    self.commands_down("it leads to another Redis than the newer connection that subscribes");
                }
            }
            Event::Heard(session, heard) if session == self.subscriber.session => match heard {
                Heard::Subscribed(channels) => {
                    self.subscriber.attempts = 0;
                    self.core.handle(Input::Subscribed(channels));
                }
                Heard::Message(message) => {
                    let (channel, payload) = (message.get_channel_name(), message.get_payload_bytes());
                    self.core.handle(Input::Received { channel, payload });
                }
                Heard::Lost(why) => self.subscriber_down(&why),
            },
            // Of a connection that was given up.
            Event::CommandsUp(..)
            | Event::CommandsDown(..)
            | Event::Answered(..)
            | Event::SubscriberUp(..)
            | Event::Heard(..) => {}
        }
    }

    /// Looks at what has come on a direct connection for commands.
    fn take_answers(&mut self) {
        while let Some(Commands::Direct(direct)) = &mut self.commands.connection {
            match direct.next_answers() {
                Ok(None) => return,
                Ok(Some((batch, answers))) => self.answered(batch, answers),
                Err(why) => self.commands_down(&why),
            }
        }
    }

    fn answered(&mut self, batch: u64, answers: Answers) {
        self.commands.attempts = 0;
        self.note_round_trip(batch);
        self.log_refusal(answers.refusal);
        self.core.handle(Input::Replies { batch, replies: answers.replies });
    }

    /// Answers may come in another order than their commands were sent.
    fn note_round_trip(&mut self, batch: u64) {
        let Some(at) = self.sent.iter().position(|(sent, _)| *sent == batch) else { return };
        if let (Some((_, since)), Some(metrics)) = (self.sent.remove(at), self.metrics()) {
            metrics.round_trip.record(since.elapsed().as_nanos() as u64, 1);
        }
    }

    fn count_lost(&self, connection: Connection) {
        if let Some(metrics) = self.metrics() {
            metrics.lost.count(connection);
        }
    }

    fn metrics(&self) -> Option<&ClusterMetrics> {
        self.metrics.cluster.as_ref()
    }

    /// Looks at what has come on a direct connection that subscribes.
    fn take_messages(&mut self) {
        while let Some(Subscriber::Direct(direct)) = &mut self.subscriber.connection {
            match direct.next() {
                Ok(None) => return,
                Ok(Some(Came::Message { channel, payload })) => self.core.handle(Input::Received { channel, payload }),
                Ok(Some(Came::Subscribed(channel))) => {
                    self.subscriber.attempts = 0;
                    self.core.handle(Input::Subscribed(vec![channel]));
                }
                Ok(Some(Came::Unsubscribed)) => {}
                Err(why) => self.subscriber_down(&why),
            }
        }
    }

    /// Bytes of messages that have come and were not looked at.
    fn waiting_bytes(&self) -> usize {
        match &self.subscriber.connection {
            Some(Subscriber::Direct(direct)) => direct.waiting_bytes(),
            Some(Subscriber::Tasked(_)) | None => self.waiting_bytes.get(),
        }
    }

    fn commands_down(&mut self, why: &str) {
        if self.commands.connection.take().is_some() {
            tracing::warn!(why, "lost the connection to Redis: history is unavailable until it is back");
            self.count_lost(Connection::Commands);
            self.core.handle(Input::CommandsDown);
        } else if self.commands.attempts == 1 {
            tracing::warn!(why, "cannot reach Redis: history is unavailable; trying again");
        }
        self.connect_commands();
    }

    fn subscriber_down(&mut self, why: &str) {
        if self.subscriber.connection.take().is_some() {
            tracing::warn!(why, "lost the subscriptions at Redis: other nodes' messages are late");
            self.count_lost(Connection::Subscriptions);
            self.core.handle(Input::SubscriberDown);
        } else if self.subscriber.attempts == 1 && self.commands.connection.is_some() {
            tracing::warn!(why, "cannot subscribe at Redis: other nodes' messages are late; trying again");
        }
        self.connect_subscriber();
    }

    /// Says why Redis refuses commands, from time to time.
    fn log_refusal(&mut self, refusal: Option<String>) {
        let (Some(why), now) = (refusal, self.now()) else { return };
        let logged = self.refusal.as_ref();
        if logged.is_none_or(|(last, at)| *last != why || now.since(*at) >= CLUSTER_REFUSAL_MS) {
            tracing::warn!(why, "Redis refuses a command");
            self.refusal = Some((why, now));
        }
    }

    /// Does what the core wants done.
    fn hand_out(&mut self) {
        while let Some(output) = self.core.poll_output() {
            match output {
                Output::Commands { batch, commands } => self.send(batch, commands),
                Output::Subscribe(channels) => {
                    let asked = self.subscriber.connection.as_mut().map(|subscriber| subscriber.subscribe(channels));
                    if let Some(Err(why)) = asked {
                        self.subscriber_down(&why);
                    }
                }
                Output::Unsubscribe(channels) => {
                    let asked = self.subscriber.connection.as_mut().map(|subscriber| subscriber.unsubscribe(channels));
                    if let Some(Err(why)) = asked {
                        self.subscriber_down(&why);
                    }
                }
                Output::ResetCommands => {
                    tracing::warn!("Redis does not answer: connecting anew");
                    self.commands.connection = None;
                    self.count_lost(Connection::Commands);
                    self.connect_commands();
                }
                Output::ResetSubscriber => {
                    tracing::warn!("nothing arrives from Redis: subscribing anew");
                    self.subscriber.connection = None;
                    self.count_lost(Connection::Subscriptions);
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
        self.sent.push_back((batch, Instant::now()));
        let mut connection = match &mut self.commands.connection {
            None => return,
            Some(Commands::Direct(direct)) => {
                if let Err(why) = direct.send(batch, commands) {
                    self.commands_down(&why);
                }
                return;
            }
            Some(Commands::Tasked(connection)) => connection.clone(),
        };
        let (events, session) = (self.events.clone(), self.commands.session);
        self.commands.spawn(async move {
            let event = match connection.run(commands).await {
                Ok(answers) => Event::Answered(session, batch, answers),
                Err(why) => Event::CommandsDown(session, why),
            };
            // Nobody listens any more where the process ends.
            let _ = events.send(event);
        });
    }

    /// Makes a connection for commands in place of the one there was.
    fn connect_commands(&mut self) {
        // What was under way is not answered any more.
        self.sent.clear();
        let (session, delay) = self.commands.begin();
        let (redis, events) = (self.redis.clone(), self.events.clone());
        self.commands.spawn(async move {
            tokio::time::sleep(delay).await;
            let event = match redis.commands().await {
                Ok((commands, address)) => Event::CommandsUp(session, commands, address),
                Err(why) => Event::CommandsDown(session, why),
            };
            let _ = events.send(event);
        });
    }

    /// Makes a connection that subscribes in place of the one there was, and listens to it.
    fn connect_subscriber(&mut self) {
        let (session, delay) = self.subscriber.begin();
        let (redis, events) = (self.redis.clone(), self.events.clone());
        let waiting_bytes = self.waiting_bytes.clone();
        self.subscriber.spawn(async move {
            tokio::time::sleep(delay).await;
            let heard = events.clone();
            let hearing = Rc::new(move |what: Heard| {
                waiting_bytes.set(waiting_bytes.get() + what.bytes());
                let _ = heard.send(Event::Heard(session, what));
            });
            let why = match redis.subscriber(hearing).await {
                Ok((subscriber, listening, address)) => {
                    let _ = events.send(Event::SubscriberUp(session, subscriber, address));
                    listening.await
                }
                Err(why) => why,
            };
            let _ = events.send(Event::Heard(session, Heard::Lost(why)));
        });
    }
}

impl<C> Line<C> {
    /// Gives up what there is; the session of the next connection, and how long to wait before it is tried.
    fn begin(&mut self) -> (u64, Duration) {
        self.tasks = JoinSet::new();
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

    fn up(&mut self, connection: C, address: String) {
        self.connection = Some(connection);
        self.address = address;
    }

    /// Whether this is a connection to somewhere else.
    fn leads_elsewhere(&self, address: &str) -> bool {
        self.connection.is_some() && self.address != address
    }

    /// Runs a task until it ends, or the connection is given up.
    fn spawn(&mut self, task: impl Future<Output = ()> + 'static) {
        while self.tasks.try_join_next().is_some() {}
        self.tasks.spawn_local(task);
    }
}
