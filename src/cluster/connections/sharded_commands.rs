//! Commands to a Redis Cluster: each goes to the primary of its slot, and follows the slot where that has moved.
//!
//! What is under way is answered before the next is sent, so that a command which has to go elsewhere is not overtaken by
//! a later one; what comes meanwhile goes out together. A command is sent again only where a server has said that it was
//! not carried out.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::Value;
use tokio::sync::{Mutex, oneshot};
use tokio::time::Instant;

use super::super::core::Command;
use super::super::redis::{Mode, channel, reply};
use super::single::Server;
use super::slots::{Redirect, Slots};
use super::{Answers, Redis, at, deadline, in_time, refusal};
use crate::config::RedisHost;

/// How often one command is sent at most.
const ROUNDS_MAX: usize = 16;

/// Before it is sent again to where its keys are arriving, in milliseconds.
const AGAIN_MS: u64 = 50;

/// The primaries of all shards.
#[derive(Clone)]
pub(in super::super) struct ShardedCommands(Rc<Shards>);

struct Shards {
    /// What is to be sent next.
    waiting: RefCell<Vec<Waiting>>,
    servers: Mutex<Servers>,
}

struct Waiting {
    commands: Vec<Command>,
    answer: oneshot::Sender<Result<Answers, String>>,
}

struct Servers {
    redis: Arc<Redis>,
    servers: HashMap<RedisHost, Server>,
}

/// A command that is to be sent, by its number, and the server that is to be asked instead of the slot's.
type Left = Vec<(usize, Option<RedisHost>)>;

impl ShardedCommands {
    pub(super) async fn connect(
        redis: &Arc<Redis>,
        nodes: &[RedisHost],
        deadline: Instant,
    ) -> Result<ShardedCommands, String> {
        let slots = Slots::ask(redis, nodes).await?;
        let mut servers = Servers { redis: redis.clone(), servers: HashMap::new() };
        servers.connect(slots.hosts().to_vec(), deadline).await?;
        Ok(ShardedCommands(Rc::new(Shards { waiting: RefCell::default(), servers: Mutex::new(servers) })))
    }

    pub(super) async fn run(&self, commands: Vec<Command>) -> Result<Answers, String> {
        let (answer, mut answered) = oneshot::channel();
        self.0.waiting.borrow_mut().push(Waiting { commands, answer });
        // Whoever comes first takes what all have that came until then.
        let mut servers = self.0.servers.lock().await;
        if let Ok(outcome) = answered.try_recv() {
            return outcome;
        }
        let waiting = self.0.waiting.take();
        servers.run_all(waiting).await;
        answered.await.unwrap_or_else(|_| Err("it was given up".to_owned()))
    }
}

impl Servers {
    async fn run_all(&mut self, waiting: Vec<Waiting>) {
        let commands: Vec<&Command> = waiting.iter().flat_map(|waiting| &waiting.commands).collect();
        let answers = match self.run(&commands).await {
            Ok(answers) => answers,
            Err(why) => {
                for Waiting { answer, .. } in waiting {
                    // Who has asked is gone where it fails.
                    let _ = answer.send(Err(why.clone()));
                }
                return;
            }
        };
        let mut answers = answers.into_iter();
        for Waiting { commands, answer } in waiting {
            let own: Vec<Value> = answers.by_ref().take(commands.len()).collect();
            let refusal = own.iter().find_map(refusal);
            let replies = commands.iter().zip(own).map(|(command, answer)| reply(command, answer)).collect();
            let _ = answer.send(Ok(Answers { replies, refusal }));
        }
    }

    /// The answers to all commands.
    async fn run(&mut self, commands: &[&Command]) -> Result<Vec<Value>, String> {
        let mut answers = vec![Value::Nil; commands.len()];
        let mut left: Left = (0..commands.len()).map(|at| (at, None)).collect();
        for _ in 0..ROUNDS_MAX {
            let (mut next, mut wait) = (Left::new(), false);
            for (host, at, answer) in self.round(commands, left).await? {
                match Redirect::read(&answer, &host) {
                    None => answers[at] = answer,
                    Some(Redirect::Moved(slot, owner)) => {
                        self.redis.slots().set(slot, &owner);
                        next.push((at, None));
                    }
                    Some(Redirect::Ask(host)) => next.push((at, Some(host))),
                    Some(Redirect::Again) => {
                        wait = true;
                        next.push((at, None));
                    }
                }
            }
            if next.is_empty() {
                return Ok(answers);
            }
            if wait {
                tokio::time::sleep(Duration::from_millis(AGAIN_MS)).await;
            }
            next.sort_by_key(|(at, _)| *at);
            left = next;
        }
        Err("the servers disagree about which of them has a slot".to_owned())
    }

    /// Sends each command to one server, and waits for all.
    async fn round(&mut self, commands: &[&Command], left: Left) -> Result<Vec<(RedisHost, usize, Value)>, String> {
        let mut shares: BTreeMap<RedisHost, Vec<(usize, bool)>> = BTreeMap::new();
        for (at, asking) in left {
            let is_asking = asking.is_some();
            let host = match asking {
                Some(host) => host,
                None => self.redis.slots().owner(channel(commands[at]))?.clone(),
            };
            shares.entry(host).or_default().push((at, is_asking));
        }
        self.connect(shares.keys().cloned().collect(), deadline()).await?;
        let asked = shares.into_iter().filter_map(|(host, share)| {
            let mut server = self.servers.get(&host)?.clone();
            let mut pipeline = redis::pipe();
            for (at, asking) in &share {
                if *asking {
                    pipeline.cmd("ASKING");
                }
                server.scripts().add(&mut pipeline, commands[*at]);
            }
            Some(async move {
                let mut answers = server.ask(&pipeline).await.map_err(|why| at(&host, &why))?.into_iter();
                let own = share.into_iter().filter_map(move |(at, asking)| {
                    let answer = if asking { answers.nth(1) } else { answers.next() };
                    Some((host.clone(), at, answer?))
                });
                Ok::<_, String>(own.collect::<Vec<_>>())
            })
        });
        let outcomes = join_all(asked).await;
        Ok(outcomes.into_iter().collect::<Result<Vec<_>, String>>()?.concat())
    }

    /// Connects to those servers that there is no connection to.
    async fn connect(&mut self, hosts: Vec<RedisHost>, deadline: Instant) -> Result<(), String> {
        let redis = &self.redis;
        let missing = hosts.into_iter().filter(|host| !self.servers.contains_key(host));
        let connected = join_all(missing.map(|host| async move {
            let client = redis.shard(&host)?;
            let server = in_time(deadline, &host, Server::connect(&client, Mode::Cluster)).await?;
            Ok::<_, String>((host, server))
        }));
        for connected in connected.await {
            let (host, server) = connected?;
            self.servers.insert(host, server);
        }
        Ok(())
    }
}
