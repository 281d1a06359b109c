//! Connections to Redis of every kind: one for commands and one that subscribes.
//!
//! ```text
//!   redis://, rediss://, redis+unix://      one server    that one
//!   redis+sentinel://                       one server    the primary that the Sentinels name, asked each time
//!   redis+cluster://                        sharded       the primary of every shard
//! ```
//!
//! To one server without TLS they are `direct`: the cluster's thread reads and writes the socket in its own turn. With TLS
//! (`single`), and to a Redis Cluster, tasks do it, with the connections of the `redis` crate.
//!
//! Both connections look the same from outside, whatever they are made of: commands of one hand-over are carried out in
//! order and answered together, and whatever may have been lost on the way from a channel is told, be it by the end of
//! the connection or by another [`Heard::Subscribed`]. A connection is made once; what comes after its end is the
//! caller's business.

mod direct;
mod resp;
mod sentinel;
mod sharded_commands;
mod sharded_subscriber;
mod single;
mod slots;
mod wire;

use std::fmt::Display;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use redis::io::tcp::TcpSettings;
use redis::{
    Client, ConnectionAddr, ErrorKind, IntoConnectionInfo, ProtocolVersion, RedisConnectionInfo, RedisError,
    ServerErrorKind, TlsCertificates, Value,
};
use tokio::time::{Instant, timeout_at};

pub(super) use self::direct::{Awaited, Came, DirectCommands, DirectSubscriber};
use self::sharded_commands::ShardedCommands;
use self::sharded_subscriber::ShardedSubscriber;
use self::single::{Server, SingleSubscriber};
use self::slots::Slots;
use super::core::{Command, Reply};
use super::redis::{Mode, Scripts};
use crate::config::{RedisAddress, RedisHost, RedisKind};
use crate::limits::CLUSTER_CONNECT_MS_MAX;

/// Where Redis is, and how its certificates are checked.
pub(super) struct Redis {
    address: RedisAddress,
    /// Certificate authorities of one's own.
    authority: Option<Authority>,
    /// Who serves what in a Redis Cluster, as it was heard last. Both connections go by it.
    slots: Mutex<Slots>,
}

struct Authority {
    certificates: TlsCertificates,
    /// Of no server in particular, with what was made of the certificates.
    addr: ConnectionAddr,
}

/// A connection for commands.
pub(super) enum Commands {
    /// The thread reads and writes the socket itself.
    Direct(Box<DirectCommands>),
    /// A task awaits the answers.
    Tasked(TaskedCommands),
}

/// See [`Commands::Tasked`].
#[derive(Clone)]
pub(super) enum TaskedCommands {
    Single(Server),
    Sharded(ShardedCommands),
}

/// What became of some commands.
pub(super) struct Answers {
    /// One for each.
    pub(super) replies: Vec<Reply>,
    /// Why one of them was refused, if one was.
    pub(super) refusal: Option<String>,
}

/// A connection that subscribes.
pub(super) enum Subscriber {
    /// The thread reads and writes the socket itself.
    Direct(DirectSubscriber),
    /// A task listens, and what it hears is [`Heard`].
    Tasked(TaskedSubscriber),
}

/// See [`Subscriber::Tasked`].
#[derive(Clone)]
pub(super) enum TaskedSubscriber {
    Single(SingleSubscriber),
    Sharded(ShardedSubscriber),
}

/// What comes from a connection that subscribes.
pub(super) enum Heard {
    /// These channels are subscribed to from here on. Where they were before, messages may be missing in between.
    Subscribed(Vec<Arc<str>>),
    /// A message on a channel.
    Message(redis::Msg),
    /// The connection is of no use any more, and why.
    Lost(String),
}

impl Heard {
    /// What a message takes while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Heard::Message(message) => message.get_payload_bytes().len() + size_of::<Heard>(),
            Heard::Subscribed(_) | Heard::Lost(_) => 0,
        }
    }
}

/// Takes what comes from a connection that subscribes.
pub(super) type Hearing = Rc<dyn Fn(Heard)>;

/// What a connection that subscribes lives by: it hears while this is awaited, and ends with it. Says why it ended.
pub(super) type Listening = Pin<Box<dyn Future<Output = String>>>;

impl Redis {
    /// Reads the file `tls_ca`, if there is a name.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds no certificate.
    pub(super) fn new(address: RedisAddress, tls_ca: &str) -> io::Result<Redis> {
        // Another choice was made already where this fails, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let authority = (address.tls && !tls_ca.is_empty()).then(|| authority(tls_ca)).transpose()?;
        Ok(Redis { address, authority, slots: Mutex::default() })
    }

    /// Makes a connection for commands, and says where it leads.
    ///
    /// # Errors
    /// Why there is none, without a secret.
    pub(super) async fn commands(self: &Arc<Redis>) -> Result<(Commands, String), String> {
        let deadline = deadline();
        if let RedisKind::Cluster(nodes) = &self.address.kind {
            let commands = ShardedCommands::connect(self, nodes, deadline).await?;
            return Ok((Commands::Tasked(TaskedCommands::Sharded(commands)), A_CLUSTER.to_owned()));
        }
        let (client, address) = in_time(deadline, &"Sentinels", self.primary()).await?;
        let commands = match has_tls(&client) {
            false => {
                let direct = in_time(deadline, &address, DirectCommands::connect(&client)).await?;
                Commands::Direct(Box::new(direct))
            }
            true => {
                let server = in_time(deadline, &address, Server::connect(&client, Mode::Alone)).await?;
                Commands::Tasked(TaskedCommands::Single(server))
            }
        };
        Ok((commands, address))
    }

    /// Makes a connection that subscribes, and says where it leads: where the other one does not lead to the same address,
    /// one of them is wrong.
    ///
    /// # Errors
    /// Why there is none, without a secret.
    pub(super) async fn subscriber(
        self: &Arc<Redis>,
        hearing: Hearing,
    ) -> Result<(Subscriber, Listening, String), String> {
        let deadline = deadline();
        if let RedisKind::Cluster(nodes) = &self.address.kind {
            let (subscriber, listening) = ShardedSubscriber::connect(self, nodes, hearing, deadline).await?;
            let subscriber = Subscriber::Tasked(TaskedSubscriber::Sharded(subscriber));
            return Ok((subscriber, listening, A_CLUSTER.to_owned()));
        }
        let (client, address) = in_time(deadline, &"Sentinels", self.primary()).await?;
        let (subscriber, listening): (Subscriber, Listening) = match has_tls(&client) {
            false => {
                let direct = in_time(deadline, &address, DirectSubscriber::connect(&client)).await?;
                // Its reader sees its end.
                (Subscriber::Direct(direct), Box::pin(std::future::pending()))
            }
            true => {
                let connecting = SingleSubscriber::connect(&client, hearing);
                let (subscriber, listening) = in_time(deadline, &address, connecting).await?;
                (Subscriber::Tasked(TaskedSubscriber::Single(subscriber)), listening)
            }
        };
        match self.address.kind {
            RedisKind::Sentinel { .. } => {
                let (redis, known) = (self.clone(), address.clone());
                let listening = async move {
                    tokio::select! {
                        why = listening => why,
                        why = redis.replaced(&known) => why,
                    }
                };
                Ok((subscriber, Box::pin(listening), address))
            }
            _ => Ok((subscriber, listening, address)),
        }
    }

    /// The one server there is, or the one that is the primary now.
    pub(super) async fn primary(&self) -> Result<(Client, String), String> {
        let addr = match &self.address.kind {
            RedisKind::Server(host) => self.addr(host),
            RedisKind::Unix(path) => ConnectionAddr::Unix(path.clone()),
            RedisKind::Sentinel { .. } => self.named_by_sentinels().await?,
            RedisKind::Cluster(_) => return Err("a Redis Cluster has many primaries".to_owned()),
        };
        let address = addr.to_string();
        Ok((self.client(addr, ProtocolVersion::RESP2)?, address))
    }

    /// What kind of Redis, and where.
    pub(super) fn kind(&self) -> &RedisKind {
        &self.address.kind
    }

    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client of one server of many.
    pub(super) fn shard(&self, host: &RedisHost) -> Result<Client, String> {
        // Only this version tells apart what a server says by itself and what it answers.
        self.client(self.addr(host), ProtocolVersion::RESP3)
    }

    fn client(&self, addr: ConnectionAddr, protocol: ProtocolVersion) -> Result<Client, String> {
        let mut settings = RedisConnectionInfo::default()
            .set_db(self.address.database.into())
            .set_protocol(protocol)
            .set_skip_set_lib_name();
        if let Some(user) = &self.address.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.address.password {
            settings = settings.set_password(password);
        }
        let info = addr.into_connection_info().map_err(|error| reason(&error))?.set_redis_settings(settings);
        let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
        Client::open(info).map_err(|error| reason(&error))
    }

    fn addr(&self, host: &RedisHost) -> ConnectionAddr {
        let RedisHost { name, port } = host.clone();
        if !self.address.tls {
            return ConnectionAddr::Tcp(name, port);
        }
        let tls_params = match self.authority.as_ref().map(|authority| &authority.addr) {
            Some(ConnectionAddr::TcpTls { tls_params, .. }) => tls_params.clone(),
            _ => None,
        };
        ConnectionAddr::TcpTls { host: name, port, insecure: false, tls_params }
    }
}

/// Where the connections to a Redis Cluster lead.
const A_CLUSTER: &str = "a Redis Cluster";

impl Commands {
    /// Carries commands out, where nothing else is under way.
    ///
    /// # Errors
    /// As for [`TaskedCommands::run`].
    pub(super) async fn run(&mut self, commands: Vec<Command>) -> Result<Answers, String> {
        match self {
            Commands::Direct(direct) => direct.run(commands).await,
            Commands::Tasked(tasked) => tasked.run(commands).await,
        }
    }
}

impl TaskedCommands {
    /// Carries commands out, in order; those of an earlier call first.
    ///
    /// # Errors
    /// The connection is of no use any more, and why. What became of the commands is not known.
    pub(super) async fn run(&mut self, commands: Vec<Command>) -> Result<Answers, String> {
        match self {
            TaskedCommands::Single(server) => server.run(&commands).await,
            TaskedCommands::Sharded(shards) => shards.run(commands).await,
        }
    }
}

impl Subscriber {
    /// Subscribes; [`Heard::Subscribed`] or [`Came::Subscribed`] tells when that is done.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(super) fn subscribe(&mut self, channels: Vec<Arc<str>>) -> Result<(), String> {
        match self {
            Subscriber::Direct(direct) => direct.subscribe(&channels)?,
            Subscriber::Tasked(TaskedSubscriber::Single(server)) => server.subscribe(channels),
            Subscriber::Tasked(TaskedSubscriber::Sharded(shards)) => shards.subscribe(channels),
        }
        Ok(())
    }

    /// Unsubscribes.
    ///
    /// # Errors
    /// The connection is lost, and why.
    pub(super) fn unsubscribe(&mut self, channels: Vec<Arc<str>>) -> Result<(), String> {
        match self {
            Subscriber::Direct(direct) => direct.unsubscribe(&channels)?,
            Subscriber::Tasked(TaskedSubscriber::Single(server)) => server.unsubscribe(channels),
            Subscriber::Tasked(TaskedSubscriber::Sharded(shards)) => shards.unsubscribe(channels),
        }
        Ok(())
    }
}

fn has_tls(client: &Client) -> bool {
    matches!(client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. })
}

/// The scripts at a server that has answered [`Scripts::preparation`].
fn scripts_of(answers: &[Value], mode: Mode) -> Result<Scripts, String> {
    match (Scripts::wrong_server(answers, mode), answers.iter().find_map(refusal)) {
        (Some(why), _) | (None, Some(why)) => Err(why),
        (None, None) => Scripts::at(answers, mode),
    }
}

/// Until when a connection that is begun now is to be made.
fn deadline() -> Instant {
    Instant::now() + Duration::from_millis(CLUSTER_CONNECT_MS_MAX)
}

/// One step on the way to a connection; where it fails, with the name of who is at fault.
async fn in_time<T>(
    deadline: Instant,
    address: &dyn Display,
    step: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let outcome = timeout_at(deadline, step).await.unwrap_or_else(|_| Err("no answer".to_owned()));
    outcome.map_err(|why| format!("{address}: {why}"))
}

fn authority(path: &str) -> io::Result<Authority> {
    let wrong = |why: &dyn Display| io::Error::other(format!("redis.tls_ca {path:?}: {why}"));
    let pem = std::fs::read(path).map_err(|error| wrong(&error))?;
    if memchr::memmem::find(&pem, b"-----BEGIN CERTIFICATE-----").is_none() {
        return Err(wrong(&"the file holds no certificate in PEM form"));
    }
    let certificates = TlsCertificates { client_tls: None, root_cert: Some(pem) };
    // There is no other way to have the certificates read than for a server.
    let nowhere = ConnectionAddr::TcpTls { host: String::new(), port: 0, insecure: false, tls_params: None };
    let client = Client::build_with_tls(nowhere, certificates.clone()).map_err(|error| wrong(&error))?;
    Ok(Authority { certificates, addr: client.get_connection_info().addr().clone() })
}

/// Why something failed, without what was sent.
pub(super) fn reason(error: &RedisError) -> String {
    match (error.code(), error.detail(), error.kind()) {
        // Who lacks which permission is what the operator has to know.
        (Some(code @ ("NOPERM" | "WRONGPASS")), Some(detail), _) => format!("{code} {detail}"),
        (Some(code), _, _) => code.to_owned(),
        (None, _, ErrorKind::Io) => error.to_string(),
        (None, _, _) => error.category().to_owned(),
    }
}

/// The same of an error that came as an answer.
fn refusal(answer: &Value) -> Option<String> {
    let Value::ServerError(error) = answer else { return None };
    Some(reason(&error.clone().into()))
}

/// The answer is an error after which another connection may fare better: the server is no primary any more, is loading,
/// or has forgotten the scripts.
fn needs_other_connection(answer: &Value) -> Option<String> {
    let Value::ServerError(error) = answer else { return None };
    let is_lasting = match error.kind() {
        Some(ServerErrorKind::ReadOnly | ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown) => true,
        Some(ServerErrorKind::NoScript | ServerErrorKind::ClusterDown) => true,
        _ => matches!(error.code(), "NOAUTH" | "UNBLOCKED"),
    };
    is_lasting.then(|| error.code().to_owned())
}

fn at(address: &dyn Display, why: &str) -> String {
    format!("{address}: {why}")
}
