//! The webhooks' thread: its mailbox, the clock, Redis, the requests. What happens is decided in `ledger`, `registry` and
//! `queue`.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver as Finished, Sender, bounded};
use tokio::sync::{Notify, mpsc};
use tokio::task::LocalSet;

use super::edges::{Edges, Kept};
use super::event::{Event, Subject, body};
use super::journal::Place;
use super::ledger::Ledger;
use super::queue::{Attempt, BatchId, Ended, Outcome};
use super::receiver::{Receiver, ReceiverSettings};
use super::registry::{News, Registry};
use super::signature::SigningSecret;
use crate::clock;
use crate::cluster::tell::{Tell, Told};
use crate::cluster::{TellAddress, TellError, Telling};
use crate::config::RedisAddress;
use crate::current::Current;
use crate::ids::{ClientIdCodec, node_name};
use crate::limits::{CLUSTER_RETRY_MS_MAX, CLUSTER_RETRY_MS_MIN, WEBHOOK_HOLD_MS};
use crate::metrics::{EventOutcome, Request, WebhookMetrics, WebhookState};
use crate::reactor::{Mailbox, Order, Parcel, Wake};
use crate::router::{Edge, Turned};
use crate::time::Millis;

/// Threads that look up the addresses of hosts.
const LOOKUPS_MAX: usize = 2;

/// What the thread is told to do.
pub struct WebhookSettings {
    /// Who is told, at least one.
    pub receivers: Vec<ReceiverSettings>,
    /// What requests to each are signed with, in the same order.
    pub secrets: Current<Vec<SigningSecret>>,
    /// Events that are not delivered yet, at most.
    pub queue_max: usize,
    /// Where a node alone keeps them; empty is in memory.
    pub directory: String,
    /// The other nodes, if there are any.
    pub cluster: Option<WebhookCluster>,
    /// A number that no other run of a server has.
    pub run: u64,
    /// Tells client ids from other user ids.
    pub codec: ClientIdCodec,
}

/// Where the cluster is.
pub struct WebhookCluster {
    /// What the URL of Redis says, which may hold a password.
    pub address: RedisAddress,
    /// The file with certificate authorities of one's own; empty is the system's.
    pub tls_ca: String,
    /// What names in Redis begin with.
    pub prefix: String,
}

/// Wakes the thread; its mailbox needs it before the thread is there.
#[derive(Debug, Default)]
pub struct WebhookWaker(Notify);

impl Wake for WebhookWaker {
    fn wake(&self) {
        self.0.notify_one();
    }
}

/// Starts the thread; it ends with the process. The receiver gets one message, behind [`Order::Finish`], when all that can
/// be delivered is, and another node of a cluster may deliver the rest.
///
/// # Errors
/// Where the certificate authorities of Redis cannot be read, or the thread or its event loop cannot be made.
pub fn spawn(
    settings: WebhookSettings,
    mailbox: Mailbox,
    waker: Arc<WebhookWaker>,
    metrics: Arc<WebhookMetrics>,
    started: Instant,
) -> io::Result<Finished<()>> {
    let telling = settings.cluster.as_ref().map(|cluster| TellAddress::new(cluster.address.clone(), &cluster.tls_ca));
    let telling = telling.transpose()?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().max_blocking_threads(LOOKUPS_MAX).enable_all().build()?;
    let (finish, finished) = bounded(1);
    let body = move || {
        let work = Thread::new(settings, mailbox, waker, metrics, started, finish).run(telling);
        LocalSet::new().block_on(&runtime, work);
    };
    std::thread::Builder::new().name("webhooks".into()).spawn(body)?;
    Ok(finished)
}

struct Thread {
    mailbox: Mailbox,
    waker: Arc<WebhookWaker>,
    metrics: Arc<WebhookMetrics>,
    started: Instant,
    node: String,
    codec: ClientIdCodec,
    edges: Edges,
    receivers: Vec<Receiver>,
    secrets: Current<Vec<SigningSecret>>,
    queue_max: usize,
    /// Events that are not finished, and how many receivers are still to get each.
    unfinished: HashMap<u64, usize>,
    random: fastrand::Rng,
    /// Calls of Redis that have failed since one was answered.
    failed_calls: u32,
    /// Told when all is delivered, once the node goes away.
    finish: Sender<()>,
    is_finishing: bool,
}

/// What comes from tasks.
enum Done {
    /// A request has ended so.
    Request { receiver: usize, batch: BatchId, counted: Request, error: Option<String> },
    /// Redis was called.
    Call(Result<Told, TellError>),
}

impl Thread {
    fn new(
        settings: WebhookSettings,
        mailbox: Mailbox,
        waker: Arc<WebhookWaker>,
        metrics: Arc<WebhookMetrics>,
        started: Instant,
        finish: Sender<()>,
    ) -> Thread {
        let WebhookSettings { receivers, secrets, queue_max, directory, cluster, run, codec } = settings;
        let node = node_name(run);
        let edges = match cluster {
            Some(cluster) => Edges::Cluster(Registry::new(&cluster.prefix, run, queue_max)),
            None if directory.is_empty() => Edges::Alone(Ledger::new(&node), Kept::Memory),
            None => Edges::Alone(Ledger::new(&node), Kept::Awaited(Place::new(&directory), Millis(0))),
        };
        Thread {
            mailbox,
            waker,
            metrics,
            started,
            node,
            codec,
            edges,
            receivers: receivers.into_iter().map(Receiver::new).collect(),
            secrets,
            queue_max,
            unfinished: HashMap::new(),
            random: fastrand::Rng::with_seed(run),
            failed_calls: 0,
            finish,
            is_finishing: false,
        }
    }

    async fn run(mut self, telling: Option<TellAddress>) {
        let (done, mut ended) = mpsc::unbounded_channel();
        let (calls, awaited) = mpsc::unbounded_channel();
        if let Some(telling) = telling {
            tokio::task::spawn_local(call_redis(Telling::to(telling), awaited, done.clone()));
        }
        loop {
            let now = self.now();
            self.take_mail(now);
            while let Ok(done) = ended.try_recv() {
                self.take(done, now);
            }
            self.make_events(now);
            if let Edges::Cluster(registry) = &mut self.edges
                && let Some(call) = registry.next_call(now)
            {
                // The task ends with the thread alone.
                let _ = calls.send(call);
            }
            self.begin_requests(&done, now);
            self.publish();
            if self.is_finishing && self.is_finished() && self.edges.leave(now) {
                // The server may have waited long enough.
                let _ = self.finish.try_send(());
            }
            self.pause(&mut ended, now).await;
        }
    }

    /// Waits for mail, for what tasks have done, or for the next thing that is due.
    async fn pause(&mut self, ended: &mut mpsc::UnboundedReceiver<Done>, now: Millis) {
        let due = self.next_at(now).map(|at| Duration::from_millis(at.since(now)));
        if self.mailbox.fall_asleep() {
            let over = async {
                match due {
                    Some(due) => tokio::time::sleep(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.waker.0.notified() => {}
                done = ended.recv() => {
                    if let Some(done) = done {
                        let now = self.now();
                        self.take(done, now);
                    }
                }
                () = over => {}
            }
        } else {
            tokio::task::yield_now().await;
        }
        self.mailbox.wake_up();
    }

    /// When there is something to do, at the latest.
    fn next_at(&self, now: Millis) -> Option<Millis> {
        // While the queue is full, edges wait for events to be finished.
        let edges = self.edges.next_at().filter(|at| *at > now || self.has_room());
        let may_deliver = self.edges.may_deliver(now);
        let queues = self.receivers.iter().filter(|_| may_deliver).filter_map(|receiver| receiver.queue.next_at());
        queues.chain(edges).min()
    }

    fn has_room(&self) -> bool {
        self.unfinished.len() < self.queue_max || matches!(self.edges, Edges::Cluster(_))
    }

    fn take_mail(&mut self, now: Millis) {
        while let Some(parcel) = self.mailbox.take() {
            match parcel {
                Parcel::Mail(_, mut parcel) => {
                    for mail in parcel.drain(..) {
                        self.turned(mail.into_edge(), now);
                    }
                    self.mailbox.give_back(parcel);
                }
                Parcel::Order(Order::Drain { .. }) | Parcel::News(_) => {}
                Parcel::Order(Order::Finish) => self.is_finishing = true,
            }
        }
    }

    fn turned(&mut self, edge: Edge, now: Millis) {
        let Some(subject) = Subject::of_topic(edge.topic.kind, &edge.topic.name) else { return };
        // Whoever has no user id goes by its client id, and is not told of.
        if subject.user().is_some_and(|user| self.codec.decode(user).is_some()) {
            return;
        }
        // Nothing is kept of rooms that no receiver hears of.
        let of_interest = |receiver: &Receiver| receiver.is_about(&subject);
        if !self.receivers.iter().any(of_interest) {
            return;
        }
        let (is_present, hold_ms) = match edge.turned {
            Turned::Occupied => (true, WEBHOOK_HOLD_MS),
            Turned::Vacant { back_ms } => (false, WEBHOOK_HOLD_MS + u64::from(back_ms)),
        };
        self.edges.turned(subject, is_present, hold_ms, now);
    }

    fn take(&mut self, done: Done, now: Millis) {
        match done {
            Done::Request { receiver, batch, counted, error } => {
                self.request_ended(receiver, batch, counted, error, now)
            }
            Done::Call(outcome) => self.redis_answered(outcome, now),
        }
    }

    fn request_ended(&mut self, at: usize, batch: BatchId, counted: Request, error: Option<String>, now: Millis) {
        self.metrics.requests.count(counted);
        let outcome = match counted {
            Request::Delivered => Outcome::Delivered,
            Request::Refused | Request::Unanswered => Outcome::Failed,
        };
        let receiver = &mut self.receivers[at];
        if let Some(error) = error {
            receiver.warn(&error, now);
        }
        match receiver.queue.ended(batch, outcome, self.random.u8(..), now) {
            Ended::Delivered(events) => {
                self.metrics.events.add(EventOutcome::Delivered, events.len() as u64);
                self.finished(&events, now);
            }
            Ended::GivenUp(events) => {
                receiver.warn_of_loss(events.len());
                self.metrics.events.add(EventOutcome::GivenUp, events.len() as u64);
                self.finished(&events, now);
            }
            Ended::Retried(count) => self.metrics.events.add(EventOutcome::Retried, count as u64),
        }
    }

    fn finished(&mut self, events: &[Arc<Event>], now: Millis) {
        for event in events {
            // Of an event that was given out anew meanwhile, another delivery counts.
            let Some(left) = self.unfinished.get_mut(&event.number) else { continue };
            *left -= 1;
            if *left == 0 {
                self.unfinished.remove(&event.number);
                self.edges.finished(event.number, now);
            }
        }
    }

    fn redis_answered(&mut self, outcome: Result<Told, TellError>, now: Millis) {
        let Edges::Cluster(registry) = &mut self.edges else { return };
        match outcome {
            Ok(told) => {
                if self.failed_calls > 0 {
                    tracing::info!("webhooks reach Redis again");
                }
                self.failed_calls = 0;
                for news in registry.answered(told, now) {
                    self.hear(news, now);
                }
            }
            Err(error) => {
                if self.failed_calls == 0 {
                    tracing::warn!(%error, "webhooks cannot reach Redis: nothing new is told until it is back");
                }
                let again_ms = CLUSTER_RETRY_MS_MIN.saturating_mul(1 << self.failed_calls.min(8));
                self.failed_calls = self.failed_calls.saturating_add(1);
                registry.failed(error.was_sent(), again_ms.min(CLUSTER_RETRY_MS_MAX), now);
            }
        }
    }

    fn hear(&mut self, news: News, now: Millis) {
        match news {
            News::Event(event) => self.push(event, now),
            News::Forget => {
                self.unfinished.clear();
                self.receivers.iter_mut().for_each(|receiver| receiver.queue.clear());
            }
        }
    }

    fn make_events(&mut self, now: Millis) {
        for news in self.edges.keep(now) {
            self.hear(news, now);
        }
        while self.has_room()
            && let Some(event) = self.edges.take_due(now)
        {
            self.push(event.into(), now);
        }
        for news in self.edges.keep(now) {
            self.hear(news, now);
        }
    }

    /// One more event, for all receivers that want it.
    fn push(&mut self, event: Arc<Event>, now: Millis) {
        let mut wanted = 0;
        for receiver in self.receivers.iter_mut().filter(|receiver| receiver.wants(&event)) {
            receiver.queue.push(event.clone());
            wanted += 1;
        }
        match wanted {
            0 => self.edges.finished(event.number, now),
            _ => {
                self.metrics.events.count(EventOutcome::Queued);
                self.unfinished.insert(event.number, wanted);
            }
        }
    }

    fn begin_requests(&mut self, done: &mpsc::UnboundedSender<Done>, now: Millis) {
        if !self.edges.may_deliver(now) {
            return;
        }
        let secrets = self.secrets.get();
        for (at, (receiver, secret)) in self.receivers.iter_mut().zip(secrets.iter()).enumerate() {
            while let Some(Attempt { batch, events, body: sent }) = receiver.queue.next(now) {
                let time_unix_ms = clock::unix_ms();
                let body = sent.unwrap_or_else(|| {
                    let body: Arc<[u8]> = body(time_unix_ms, &self.node, &events).into();
                    receiver.queue.keep_body(batch, body.clone());
                    body
                });
                let request = receiver.send(&body, secret, time_unix_ms);
                let done = done.clone();
                tokio::task::spawn_local(async move {
                    let (counted, error) = request.await;
                    // The thread ends with the process alone.
                    let _ = done.send(Done::Request { receiver: at, batch, counted, error });
                });
            }
        }
    }

    /// Whether nothing is to be waited for where the node goes away: what is tried again later is not.
    fn is_finished(&self) -> bool {
        let is_idle = |receiver: &Receiver| receiver.queue.under_way() == 0 && !receiver.queue.has_ready();
        self.edges.is_settled() && self.receivers.iter().all(is_idle)
    }

    fn publish(&self) {
        let (edges_waiting, coalesced) = self.edges.counts();
        let waiting = self.unfinished.len() as u64;
        let teller = u64::from(self.edges.is_teller());
        self.metrics.publish(WebhookState { coalesced, waiting, edges_waiting, teller });
    }

    fn now(&self) -> Millis {
        Millis(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Carries calls out, one after the other.
async fn call_redis(mut telling: Telling, mut calls: mpsc::UnboundedReceiver<Tell>, done: mpsc::UnboundedSender<Done>) {
    while let Some(call) = calls.recv().await {
        let outcome = telling.tell(call).await;
        if done.send(Done::Call(outcome)).is_err() {
            return;
        }
    }
}
