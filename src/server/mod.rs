//! The node: limits, listeners, threads, and the way out.
//!
//! Owns start and stop, nothing in between: from `listening` to the first signal the main thread only waits. May
//! import everything but `cli` and `main`.

pub mod auth;
mod cores;
mod credential_error;
mod drivers;
mod ending;
mod error;
mod inherited;
mod listen;
mod log;
mod memory;
mod panic;
mod reload;
mod settings;
mod signals;
mod supervisor;
mod tls;
mod unix;
pub mod webhook;

use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use auth::Entrance;
use crossbeam_channel::{Receiver, Sender, bounded};
use drivers::{DriverSettings, Drivers, Layered, OwnListeners};
use ending::Ending;
use error::io_error;
use inherited::Inherited;
use listen::Listeners;
use reload::Reloads;
use settings::settings;
use socket2::Socket;
use supervisor::Supervisor;
use webhook::Webhooks;

use crate::cluster::{self, ClusterSettings, ClusterWaker};
use crate::config::{self, Config, Effective, Io, Role};
use crate::control::{self, Access, ApiSettings, BoundListener, ControlWaker, Doctor, ReloadRequest, Requests, Tokens};
use crate::current::Current;
use crate::descriptors::{self, Shares};
use crate::doctor::{self, Machine};
use crate::ids::{ClientIdCodec, PeerId, ReactorId};
use crate::limits::{ADMIN_CONNECTIONS_MAX, API_CONNECTIONS_MAX};
use crate::metrics::NodeMetrics;
use crate::reactor::{
    Assignment, Driver, Mailbox, NodeState, PostOffice, Pulse, Returns, Settings, Wake, WayBack, Worker, post_office,
};
use crate::router::{Homeward, Watched};
use crate::tls::Acceptor;
use crate::webhook::WebhookWaker;

pub use error::ServeError;
pub use log::last_words;
pub use panic::end_process_if_a_reactor_panics;
pub use reload::Reread;

/// Serves until a signal ends it: SIGTERM or SIGINT drains, a second one leaves at once. SIGHUP has the configuration read
/// again, which `reread` does.
///
/// # Errors
/// [`ServeError`]: nothing was served then, or a reactor failed.
pub fn run(loaded: (Config, Effective), reread: Reread) -> Result<(), ServeError> {
    let outcome = serve(loaded, reread);
    log::flush();
    outcome
}

fn serve((config, running): (Config, Effective), reread: Reread) -> Result<(), ServeError> {
    let inherited = Inherited::from_env()?;
    let cores = cores::assign(&config)?;
    let may_have = Descriptors::take(&config, cores.len())?;
    let requests = signals::catch()?;
    let entrance = Entrance::new(&config, cores.len()).map_err(ServeError::Credential)?;
    let webhooks = Webhooks::new(&config).map_err(ServeError::Credential)?;
    let webhook_secrets = webhooks.as_ref().map(|webhooks| webhooks.secrets.clone());
    let mut node = Node::new(&config, cores.len(), may_have.shares, entrance, webhooks)?;
    node.acceptors = tls::load(&config.listeners, &node.state.metrics).map_err(ServeError::Credential)?;
    let api_keys = Current::new(auth::api_keys(&config.api).map_err(ServeError::Credential)?);
    let tokens = Current::new(auth::tokens(&config.auth).map_err(ServeError::Credential)?);
    let Listeners { sockets, addresses, bound, unix } =
        listen::bind(&config.listeners, cores.len(), inherited, &config.tcp, &config.unix)?;
    let loopback_port =
        |bound: &BoundListener| bound.address.filter(|at| at.ip().to_canonical().is_loopback()).map(|at| at.port());
    node.settings.gate.loopback_ports = bound.iter().map(loopback_port).collect();
    let trusted = node.settings.gate.trusted.clone();
    let access = Access { listeners: bound, keys: api_keys.clone(), loopback: config.admin.loopback, trusted };
    let (reload, reloads) = bounded(1);
    let reactors = node.spawn(sockets, cores, access, tokens.clone(), reload.clone())?;
    node.ready.store(true, Ordering::Relaxed);
    may_have.report(&node, &reactors);
    warn_of_listeners(&config);
    announce(&addresses)?;
    let supervisor =
        Supervisor::start(reactors.pulse.clone()).map_err(io_error("cannot start the supervisor's thread"))?;
    let (ready, drain) = (node.ready, Current::new(config.drain));
    let memory_max = Current::new(memory::bytes_max(config.limits.memory_max));
    memory::watch(memory_max.clone(), node.state.metrics.clone(), reactors.post.clone())
        .map_err(io_error("cannot start the thread that looks at memory"))?;
    Reloads {
        reread,
        running,
        descriptors: (may_have.limit, may_have.own),
        gate: node.settings.gate,
        keyring: node.entrance.keyring.take(),
        tokens,
        api_keys,
        webhook_secrets,
        post: reactors.post.clone(),
        acceptors: node.acceptors,
        drain: drain.clone(),
        memory_max,
        supervisor: supervisor.clone(),
        metrics: node.state.metrics,
    }
    .start(reloads)
    .map_err(io_error("cannot start the thread that reads the configuration again"))?;
    supervisor.serving(&format!("serving with {} reactors", reactors.count));
    Ending { requests, reactors, ready, unix, supervisor }.wait(&reload, &drain)
}

/// What the process may have of descriptors, and what they are for.
struct Descriptors {
    limit: u64,
    /// Those of the node's own.
    own: u64,
    wanted: u64,
    connections_max: u64,
    shares: Shares,
}

impl Descriptors {
    /// Takes as many as there may be, and starts the log. To be called before the first thread.
    ///
    /// # Errors
    /// There are too few for a single connection, or the log has no thread.
    fn take(config: &Config, reactors: usize) -> Result<Descriptors, ServeError> {
        let (limit, raised) = memory::raise_descriptor_limit();
        let own = own_descriptors(config, reactors);
        let connections_max = config.limits.connections_max as u64;
        let wanted = descriptors::wanted(connections_max, own);
        // With one thread the process waits for no lock.
        memory::grow_descriptor_table(limit, wanted);
        log::init(config.log, config.log_level).map_err(io_error("cannot start the log's thread"))?;
        end_process_if_a_reactor_panics();
        if let Err(error) = raised {
            tracing::warn!(%error, "cannot raise the soft descriptor limit to the hard one");
        }
        let shares = descriptors::divide(limit, own, connections_max);
        match shares.connections {
            0 => Err(ServeError::Descriptors { limit, wanted }),
            _ => Ok(Descriptors { limit, own, wanted, connections_max, shares }),
        }
    }

    /// Says that the node serves, and with what.
    fn report(&self, node: &Node, reactors: &Reactors) {
        let Descriptors { limit, wanted, connections_max, shares, .. } = self;
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            reactors = reactors.count,
            driver = reactors.driver,
            descriptors = limit,
            connections_max = node.settings.connections_max,
            queue_budget_bytes = node.settings.outbox_node_bytes_max,
            "serving"
        );
        if shares.connections < *connections_max {
            tracing::warn!(
                configured = connections_max,
                connections_max = shares.connections,
                descriptors = limit,
                wanted,
                "limits.connections_max is cut to what the descriptor limit allows: raise it (ulimit -Hn), or configure less"
            );
        }
    }
}

/// Descriptors that the node keeps for itself.
fn own_descriptors(config: &Config, reactors: usize) -> u64 {
    descriptors::own(reactors as u64, config.listeners.len() as u64, extra_places(config))
        + config.auth.url_sockets_max()
        + config.webhook.iter().map(config::Webhook::sockets_max).sum::<u64>()
}

/// A listener that believes every peer what it says of its client is told, and one for which there are no keys.
fn warn_of_listeners(config: &Config) {
    if config.has_listener(Role::Api) && config.api.key.is_empty() {
        tracing::warn!("api.listen serves nothing but health: there is no [[api.key]] that a program could show");
    }
    let is_exposed = |listener: &config::Listener| listener.proxy_protocol && !listener.address.is_local();
    if config.proxy.trusted.is_empty()
        && let Some(listener) = config.listeners.iter().find(|listener| is_exposed(listener))
    {
        tracing::warn!(
            address = %listener.address,
            "whoever can reach this listener may say that it is a proxy: name those that are in proxy.trusted"
        );
    }
}

/// Says on stdout where the node listens, in a thread that ends with it: a reader that does not read stops nothing.
fn announce(addresses: &[String]) -> Result<(), ServeError> {
    let text: String = addresses.iter().map(|address| format!("listening on {address}\n")).collect();
    let write = move || {
        if let Err(error) = log::write_all(io::stdout().as_fd(), text.as_bytes()) {
            let addresses = text.trim_end().replace('\n', ", ");
            tracing::warn!(%error, addresses, "cannot write to stdout where the node listens");
        }
    };
    std::thread::Builder::new()
        .name("announcement".into())
        .spawn(write)
        .map(drop)
        .map_err(io_error("cannot start the thread that writes to stdout"))
}

/// What all reactors of this process share.
struct Node {
    settings: Settings,
    api: ApiSettings,
    shares: Shares,
    state: NodeState,
    /// The other nodes, if there are any.
    cluster: Option<ClusterSettings>,
    /// Clients see its effects, so it has nothing in common with the secrets.
    jitter_seed: u64,
    started: Instant,
    ready: Arc<AtomicBool>,
    /// How long a reactor may be silent.
    stall_max: Duration,
    entrance: Entrance,
    doctor: Arc<Doctor>,
    /// Who is told of rooms and users, if anyone.
    webhooks: Option<Webhooks>,
    /// Of which topics reactors tell the webhooks' thread.
    watched: Watched,
    /// What TLS sessions begin with, by listener.
    acceptors: Vec<Option<Acceptor>>,
    io: Io,
}

struct Reactors {
    post: PostOffice,
    pulse: Arc<Pulse>,
    ended: Receiver<io::Result<()>>,
    count: usize,
    /// What they wait with.
    driver: &'static str,
    /// Told once when the cluster's thread has sent all it had.
    cluster_finished: Option<Receiver<()>>,
    /// The same of the webhooks' thread.
    webhooks_finished: Option<Receiver<()>>,
}

impl Node {
    fn new(
        config: &Config,
        reactors: usize,
        shares: Shares,
        entrance: Entrance,
        webhooks: Option<Webhooks>,
    ) -> Result<Node, ServeError> {
        let mut secrets = [0; 42];
        getrandom::fill(&mut secrets).map_err(|error| ServeError::Io {
            what: "cannot get random bytes from the operating system",
            error: io::Error::other(error),
        })?;
        let (key, rest) = secrets.split_first_chunk::<16>().expect("42 bytes hold 16");
        let (seed, rest) = rest.split_first_chunk::<8>().expect("26 bytes hold 8");
        let (run, rest) = rest.split_first_chunk::<8>().expect("18 bytes hold 8");
        let (jitter_seed, node) = rest.split_first_chunk::<8>().expect("10 bytes hold 8");
        let state = NodeState {
            metrics: Arc::new(
                match config.redis.url.address() {
                    None => NodeMetrics::new(reactors),
                    Some(_) => NodeMetrics::new(reactors).in_cluster(),
                }
                .with_backend(entrance.metrics.clone())
                .with_webhooks(webhooks.as_ref().map(|webhooks| webhooks.metrics.clone())),
            ),
            codec: ClientIdCodec::new(*key, u16::from_ne_bytes([node[0], node[1]])),
            seed: u64::from_ne_bytes(*seed),
            run: u64::from_ne_bytes(*run),
        };
        let cluster = config.redis.url.address().map(|address| ClusterSettings {
            address: address.clone(),
            tls_ca: config.redis.tls_ca.clone(),
            prefix: config.redis.prefix.clone(),
            identity: cluster::core::Identity {
                run: state.run,
                codec: state.codec.clone(),
                key: *key,
                reactors: reactors as u16,
            },
        });
        let ready = Arc::new(AtomicBool::new(false));
        let jitter_seed = u64::from_ne_bytes(*jitter_seed);
        let settings = settings(config, shares, entrance.gate.clone());
        let api = ApiSettings {
            body_bytes_max: config.api.body_bytes_max,
            message_bytes_max: config.limits.message_bytes_max,
            has_tokens: config.auth.is_on(),
            keyed: settings.router.keyed.rooms.clone(),
        };
        Ok(Node {
            settings,
            api,
            shares,
            state,
            cluster,
            jitter_seed,
            started: Instant::now(),
            ready,
            stall_max: config.health.stall_max,
            entrance,
            doctor: Arc::new(Doctor::new(examine_machine(config.clone()))),
            watched: webhooks.as_ref().map(|webhooks| webhooks.watched).unwrap_or_default(),
            webhooks,
            acceptors: Vec::new(),
            io: config.io,
        })
    }

    fn spawn(
        &mut self,
        listeners: Vec<OwnListeners>,
        cores: Vec<Option<core_affinity::CoreId>>,
        access: Access,
        tokens: Current<Tokens>,
        reload: Sender<ReloadRequest>,
    ) -> Result<Reactors, ServeError> {
        let (drivers, mut wakers) = self.driver_settings().make(listeners)?;
        let reactors = drivers.len() as u16;
        let control_waker = Arc::new(ControlWaker::default());
        wakers.push((PeerId::Control, control_waker.clone()));
        let cluster_waker = self.cluster.as_ref().map(|_| Arc::new(ClusterWaker::default()));
        wakers.extend(cluster_waker.clone().map(|waker| (PeerId::Cluster, waker as Arc<dyn Wake>)));
        let webhook_waker = self.webhooks.as_ref().map(|_| Arc::new(WebhookWaker::default()));
        wakers.extend(webhook_waker.clone().map(|waker| (PeerId::Webhooks, waker as Arc<dyn Wake>)));
        let (post, mut mailboxes) = post_office(wakers);
        self.entrance.start(&post).map_err(io_error("cannot start the threads that find out who may connect"))?;
        let is_clustered = self.cluster.is_some();
        let webhooks = self.webhooks.take().zip(webhook_waker);
        let webhooks =
            webhooks.map(|(webhooks, waker)| webhooks.start(&mut mailboxes, waker, self.started, &self.state));
        let webhooks_finished = webhooks.transpose().map_err(io_error("cannot start the thread of webhooks"))?;
        let cluster_finished = self.start_cluster(cluster_waker, &mut mailboxes)?;
        let mailbox = mailboxes.pop().expect("the last behind the reactors' is the control thread's");
        let pulse = Arc::new(Pulse::new(post.clone(), self.state.metrics.clone()));
        let node = control::Node {
            post: post.clone(),
            window: Arc::default(),
            api: self.api.clone(),
            run: self.state.run,
            revocations: self.settings.gate.auth.as_ref().map(|auth| auth.revocations().clone()),
            pulse: pulse.clone(),
            stall_max: self.stall_max,
            metrics: self.state.metrics.clone(),
            started: self.started,
            ready: self.ready.clone(),
            reload,
            access: Arc::new(access),
            tokens,
            doctor: self.doctor.clone(),
        };
        let homeward = Homeward::new(self.state.seed, reactors).in_cluster(is_clustered);
        let requests = Requests::new(mailbox, control_waker, homeward);
        let capacity = control::Capacity {
            pages: self.shares.pages as usize,
            admin: ADMIN_CONNECTIONS_MAX,
            api: API_CONNECTIONS_MAX,
            health: self.shares.health as usize,
        };
        let count = cores.len();
        let (way_back, returns) = WayBack::new(post.clone(), count);
        let http = control::start(node, capacity, self.settings.head, requests, way_back)
            .map_err(io_error("cannot start the threads of plain HTTP"))?;
        let (end, ended) = bounded(count);
        let driver = drivers.name();
        let seats = Seats { mailboxes, returns, cores, http, end };
        match drivers {
            Drivers::Epoll(drivers) => self.seat(drivers, seats),
            Drivers::Uring(drivers) => self.seat(drivers, seats),
        }
        .map_err(io_error("cannot start a reactor's thread"))?;
        Ok(Reactors { post, pulse, ended, count, driver, cluster_finished, webhooks_finished })
    }
}

/// What the reactors' threads begin with, each in the order of the reactors.
struct Seats {
    mailboxes: Vec<Mailbox>,
    returns: Vec<Returns<crate::tls::Stream<Socket>>>,
    cores: Vec<Option<core_affinity::CoreId>>,
    http: control::Handoff,
    end: Sender<io::Result<()>>,
}

impl Node {
    fn driver_settings(&self) -> DriverSettings {
        DriverSettings {
            io: self.io,
            started: self.started,
            proxied: self.settings.gate.proxied_listeners.to_vec(),
            acceptors: self.acceptors.clone(),
        }
    }

    /// Starts the reactors' threads.
    fn seat<D: Driver<Stream = Socket> + Send + 'static>(
        &self,
        drivers: Vec<Layered<D>>,
        seats: Seats,
    ) -> io::Result<()> {
        let Seats { mailboxes, returns, cores, http, end } = seats;
        let count = drivers.len();
        let seats = drivers.into_iter().zip(mailboxes).zip(returns).zip(cores);
        for (at, (((driver, mailbox), returns), core)) in seats.enumerate() {
            let assignment = Assignment {
                me: ReactorId(at as u16),
                reactors: count as u16,
                mailbox,
                settings: self.settings.clone(),
                node: self.state.clone(),
                watched: self.watched,
                jitter_seed: self.jitter_seed ^ at as u64,
            };
            let body = reactor(assignment, driver, returns, core, http.clone(), end.clone());
            std::thread::Builder::new().name(format!("reactor-{at}")).spawn(body)?;
        }
        Ok(())
    }

    /// Starts the cluster's thread, whose mailbox is the last one, if there is a cluster.
    fn start_cluster(
        &mut self,
        waker: Option<Arc<ClusterWaker>>,
        mailboxes: &mut Vec<Mailbox>,
    ) -> Result<Option<Receiver<()>>, ServeError> {
        let Some((settings, waker)) = self.cluster.take().zip(waker) else { return Ok(None) };
        let mailbox = mailboxes.pop().expect("the last is the cluster's");
        cluster::spawn(settings, mailbox, waker, self.state.metrics.clone(), self.started)
            .map(Some)
            .map_err(io_error("cannot start the cluster's thread"))
    }
}

/// What a reactor's thread does, until it has drained or failed.
fn reactor<D: Driver<Stream = Socket>>(
    assignment: Assignment,
    driver: Layered<D>,
    returns: Returns<crate::tls::Stream<Socket>>,
    core: Option<core_affinity::CoreId>,
    http: control::Handoff,
    end: Sender<io::Result<()>>,
) -> impl FnOnce() {
    move || {
        let me = assignment.me;
        if let Some(core) = core
            && !core_affinity::set_for_current(core)
        {
            tracing::warn!(reactor = me.0, core = core.id, "cannot pin this reactor: it runs where it may");
        }
        let http = Box::new(move |handover| http.give(me, handover));
        let mut worker = Worker::new(assignment, driver, http).with_returns(returns);
        // The receiver is gone where the process leaves at once.
        let _ = end.send(worker.run());
    }
}

/// What `fanfare doctor` says of this machine and configuration.
fn examine_machine(config: Config) -> impl Fn() -> String {
    move || doctor::json(&doctor::examine(&Machine::read(Path::new("/")), &config), &config)
}

/// Places of plain HTTP that are kept back for listeners of their own.
fn extra_places(config: &Config) -> u64 {
    descriptors::extra_places(config.has_listener(Role::Admin), config.has_listener(Role::Api))
}
