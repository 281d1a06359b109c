//! Channels of a Redis Cluster: each is subscribed to at the primary of its slot (`SSUBSCRIBE`).
//!
//! What is published on one shard comes through the connection to it, so every one of them is watched: where one ends, or
//! does not answer any more, all are given up, and the listener begins anew. Each is asked for its role, too: a replica
//! would be subscribed to just as well, but not everything comes there.
//!
//! Where a slot moves away, or its primary is one no more, the server says so for each channel (`SUNSUBSCRIBE`). It is
//! asked then who serves what; channels that are elsewhere now are subscribed to there, and reported as subscribed again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::{AsyncConnectionConfig, Msg, PushInfo, PushKind, Value};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior};

use super::slots::{Redirect, Slots, ask_connected, slot};
use super::{Heard, Hearing, Listening, Redis, at, deadline, in_time, reason, refusal};
use crate::config::RedisHost;
use crate::limits::{CLUSTER_CANARY_MS, CLUSTER_CANARY_MS_MAX, CLUSTER_SUBSCRIBE_MS_MAX};

/// Before a server is asked who serves what, in milliseconds: servers hear of a slot's move one after the other.
const ASK_MS: u64 = 20;

/// The channels of all shards.
#[derive(Clone)]
pub(in super::super) struct ShardedSubscriber(UnboundedSender<Order>);

enum Order {
    Subscribe(Vec<Arc<str>>),
    Unsubscribe(Vec<Arc<str>>),
}

/// What comes from a shard.
enum ShardEvent {
    Push(RedisHost, PushInfo),
    /// It refuses a subscription.
    Refused(RedisHost, Value),
    /// It is no primary.
    Replica(RedisHost),
    /// Who serves what, as it sees it.
    Slots(RedisHost, Slots),
    /// Its connection is of no use any more.
    Lost(RedisHost, String),
}

struct Shards {
    redis: Arc<Redis>,
    /// By which channels are subscribed to.
    slots: Slots,
    connections: HashMap<RedisHost, MultiplexedConnection>,
    /// All that are wanted.
    channels: HashSet<Arc<str>>,
    /// Those that no server has confirmed, and since when.
    unconfirmed: HashMap<Arc<str>, Instant>,
    /// Those to be subscribed to again when it is known where.
    homeless: HashSet<Arc<str>>,
    /// Those that are being asked who serves what.
    asked: HashSet<RedisHost>,
    events: UnboundedSender<ShardEvent>,
    hearing: Hearing,
}

impl ShardedSubscriber {
    pub(super) async fn connect(
        redis: &Arc<Redis>,
        nodes: &[RedisHost],
        hearing: Hearing,
        deadline: Instant,
    ) -> Result<(ShardedSubscriber, Listening), String> {
        let slots = Slots::ask(redis, nodes).await?;
        let (events, inbox) = mpsc::unbounded_channel();
        let (ordering, orders) = mpsc::unbounded_channel();
        let mut shards = Shards {
            redis: redis.clone(),
            connections: HashMap::new(),
            channels: HashSet::new(),
            unconfirmed: HashMap::new(),
            homeless: HashSet::new(),
            asked: HashSet::new(),
            events,
            hearing,
            slots,
        };
        for host in shards.slots.hosts().to_vec() {
            shards.connect(&host, deadline).await?;
        }
        let listening = async move {
            match shards.listen(orders, inbox).await {
                Ok(()) => "it was given up".to_owned(),
                Err(why) => why,
            }
        };
        Ok((ShardedSubscriber(ordering), Box::pin(listening)))
    }

    pub(super) fn subscribe(&self, channels: Vec<Arc<str>>) {
        // Nobody listens any more where it has ended, which is reported elsewhere.
        let _ = self.0.send(Order::Subscribe(channels));
    }

    pub(super) fn unsubscribe(&self, channels: Vec<Arc<str>>) {
        let _ = self.0.send(Order::Unsubscribe(channels));
    }
}

impl Shards {
    async fn listen(
        mut self,
        mut orders: UnboundedReceiver<Order>,
        mut inbox: UnboundedReceiver<ShardEvent>,
    ) -> Result<(), String> {
        let mut pulse = tokio::time::interval(Duration::from_millis(CLUSTER_CANARY_MS));
        pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(Order::Subscribe(channels)) => {
                        self.channels.extend(channels.iter().cloned());
                        self.subscribe(channels).await?;
                    }
                    Some(Order::Unsubscribe(channels)) => self.unsubscribe(channels).await?,
                    None => return Ok(()),
                },
                event = inbox.recv() => if let Some(event) = event {
                    self.hear(event).await?;
                },
                _ = pulse.tick() => self.look_after()?,
            }
        }
    }

    async fn subscribe(&mut self, channels: Vec<Arc<str>>) -> Result<(), String> {
        let now = Instant::now();
        for channel in &channels {
            self.unconfirmed.entry(channel.clone()).or_insert(now);
        }
        self.send("SSUBSCRIBE", channels).await
    }

    async fn unsubscribe(&mut self, channels: Vec<Arc<str>>) -> Result<(), String> {
        for channel in &channels {
            self.channels.remove(channel);
            self.unconfirmed.remove(channel);
        }
        self.send("SUNSUBSCRIBE", channels).await
    }

    /// One command for each channel: two of them may be in different slots.
    async fn send(&mut self, command_name: &str, channels: Vec<Arc<str>>) -> Result<(), String> {
        let mut shares: HashMap<RedisHost, redis::Pipeline> = HashMap::new();
        for channel in channels {
            let host = self.slots.owner(&channel)?.clone();
            shares.entry(host).or_default().cmd(command_name).arg(&*channel);
        }
        for (host, pipeline) in shares {
            let mut connection = self.connect(&host, deadline()).await?;
            let events = self.events.clone();
            tokio::task::spawn_local(async move {
                match connection.req_packed_commands(&pipeline, 0, pipeline.len()).await {
                    Ok(answers) => {
                        for answer in answers.into_iter().filter(|answer| matches!(answer, Value::ServerError(_))) {
                            let _ = events.send(ShardEvent::Refused(host.clone(), answer));
                        }
                    }
                    Err(error) => {
                        let _ = events.send(ShardEvent::Lost(host, reason(&error)));
                    }
                }
            });
        }
        Ok(())
    }

    async fn hear(&mut self, event: ShardEvent) -> Result<(), String> {
        match event {
            // One that was given up is not heard any more.
            ShardEvent::Push(host, push) if self.connections.contains_key(&host) => self.hear_push(host, push),
            ShardEvent::Refused(host, answer) => match Redirect::read(&answer, &host) {
                Some(Redirect::Moved(moved, _)) => {
                    // The refusal does not name the channel, so it is all of the slot that are not confirmed.
                    self.homeless.extend(self.unconfirmed.keys().filter(|channel| slot(channel) == moved).cloned());
                    self.ask(host);
                }
                Some(Redirect::Ask(_) | Redirect::Again) | None => {
                    return Err(at(&host, &refusal(&answer).unwrap_or_else(|| "it refuses a subscription".to_owned())));
                }
            },
            ShardEvent::Replica(host) => self.ask(host),
            ShardEvent::Slots(host, slots) => {
                self.asked.remove(&host);
                self.follow(slots).await?;
            }
            ShardEvent::Lost(host, why) if self.connections.contains_key(&host) => return Err(at(&host, &why)),
            ShardEvent::Push(..) | ShardEvent::Lost(..) => {}
        }
        Ok(())
    }

    fn hear_push(&mut self, host: RedisHost, push: PushInfo) {
        let heard = match push.kind {
            PushKind::SMessage => Msg::from_push_info(push).map(Heard::Message),
            PushKind::SSubscribe => self.channel_of(&push).map(|channel| {
                self.unconfirmed.remove(&channel);
                Heard::Subscribed(vec![channel])
            }),
            PushKind::SUnsubscribe => {
                // What is not wanted any more has been asked for, or does not matter.
                if let Some(channel) = self.channel_of(&push) {
                    self.unconfirmed.entry(channel.clone()).or_insert_with(Instant::now);
                    self.homeless.insert(channel);
                    self.ask(host);
                }
                None
            }
            _ => None,
        };
        if let Some(heard) = heard {
            (self.hearing)(heard);
        }
    }

    /// Asks a server who serves what.
    fn ask(&mut self, host: RedisHost) {
        let Some(mut connection) = self.connections.get(&host).cloned() else { return };
        if !self.asked.insert(host.clone()) {
            return;
        }
        let events = self.events.clone();
        tokio::task::spawn_local(async move {
            tokio::time::sleep(Duration::from_millis(ASK_MS)).await;
            let _ = events.send(match ask_connected(&mut connection, &host).await {
                Ok(slots) => ShardEvent::Slots(host, slots),
                Err(why) => ShardEvent::Lost(host, why),
            });
        });
    }

    /// Has every channel where its slot is now.
    async fn follow(&mut self, slots: Slots) -> Result<(), String> {
        self.redis.slots().clone_from(&slots);
        let before = std::mem::replace(&mut self.slots, slots);
        let moved = |channel: &&Arc<str>| before.owner(channel).ok() != self.slots.owner(channel).ok();
        let mut channels: HashSet<Arc<str>> = self.channels.iter().filter(moved).cloned().collect();
        channels.extend(self.homeless.drain().filter(|channel| self.channels.contains(channel)));
        // Nothing is to come twice from a server that has become a replica.
        self.connections.retain(|host, _| self.slots.hosts().contains(host));
        self.subscribe(channels.into_iter().collect()).await
    }

    /// The wanted channel that a push is about.
    fn channel_of(&self, push: &PushInfo) -> Option<Arc<str>> {
        let Some(Value::BulkString(name)) = push.data.first() else { return None };
        self.channels.get(std::str::from_utf8(name).ok()?).cloned()
    }

    /// Asks every shard what it is.
    fn look_after(&self) -> Result<(), String> {
        let overdue = |since: &Instant| since.elapsed() > Duration::from_millis(CLUSTER_SUBSCRIBE_MS_MAX);
        if let Some((channel, _)) = self.unconfirmed.iter().find(|(_, since)| overdue(since)) {
            return Err(format!("slot {}: subscriptions are not confirmed", slot(channel)));
        }
        for (host, connection) in &self.connections {
            let (host, mut connection, events) = (host.clone(), connection.clone(), self.events.clone());
            tokio::task::spawn_local(async move {
                let role = redis::cmd("ROLE");
                let limit = Duration::from_millis(CLUSTER_CANARY_MS_MAX);
                let _ = match tokio::time::timeout(limit, connection.req_packed_command(&role)).await {
                    Ok(Ok(Value::Array(role))) if role.first() == Some(&Value::BulkString(b"slave".into())) => {
                        events.send(ShardEvent::Replica(host))
                    }
                    // The end of the connection is an event of its own.
                    Ok(_) => Ok(()),
                    Err(_) => events.send(ShardEvent::Lost(host, "no answer".to_owned())),
                };
            });
        }
        Ok(())
    }

    /// The connection to a server, made now if there is none.
    async fn connect(&mut self, host: &RedisHost, deadline: Instant) -> Result<MultiplexedConnection, String> {
        if let Some(connection) = self.connections.get(host) {
            return Ok(connection.clone());
        }
        let (events, shard) = (self.events.clone(), host.clone());
        let config = AsyncConnectionConfig::new().set_response_timeout(None).set_push_sender(move |push: PushInfo| {
            events.send(match push.kind {
                PushKind::Disconnection => ShardEvent::Lost(shard.clone(), "it was closed".to_owned()),
                _ => ShardEvent::Push(shard.clone(), push),
            })
        });
        let client = self.redis.shard(host)?;
        let connection = in_time(deadline, host, async {
            client.get_multiplexed_async_connection_with_config(&config).await.map_err(|error| reason(&error))
        });
        let connection = connection.await?;
        self.connections.insert(host.clone(), connection.clone());
        Ok(connection)
    }
}
