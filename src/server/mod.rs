//! The node: limits, listeners, threads, and the way out.
//!
//! Owns start and stop, nothing in between: from `listening` to the first signal the main thread only waits. May
//! import everything but `cli` and `main`.

pub mod auth;
mod cores;
mod credential_error;
mod listen;
mod log;
mod memory;
mod reload;
mod signals;
mod tls;
mod unix;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use auth::Entrance;
use credential_error::CredentialError;
use crossbeam_channel::{Receiver, Sender, bounded, select};
use listen::Listeners;
use reload::Reloads;
use signals::Request;
use socket2::Socket;
use unix::UnixSocket;

use crate::cluster::{self, ClusterSettings, ClusterWaker};
use crate::compress::WindowBits;
use crate::config::{self, Config, HistoryBounds};
use crate::conn::{HeadLimits, MessageLimits};
use crate::control::{self, Access, ApiSettings, BoundListener, ControlWaker, Doctor, Requests, Tokens};
use crate::current::Current;
use crate::descriptors::{self, Shares};
use crate::doctor::{self, Machine};
use crate::ids::{ClientIdCodec, PeerId, ReactorId};
use crate::limits::{ADMIN_CONNECTIONS_MAX, CLUSTER_FINISH_MS_MAX};
use crate::metrics::NodeMetrics;
use crate::reactor::epoll::Epoll;
use crate::reactor::{
    Assignment, DeflateSettings, Gate, NodeState, Order, PostOffice, Proxied, Settings, Tls, Wake, Worker, post_office,
};
use crate::router::{
    HistoryPolicy, HistorySettings, Homeward, NoticeSettings, RoomPolicies, RouterSettings, UserConnections,
    UserConnectionsPolicy,
};
use crate::tls::Acceptor;

pub use log::last_words;

/// Why a node did not start, or did not end well. Each says what to do.
#[derive(Debug)]
pub enum ServeError {
    /// An address cannot be listened on.
    Listen {
        /// The address as configured.
        address: String,
        /// What the kernel said.
        error: io::Error,
    },
    /// The file of a Unix socket cannot be given to the group that was asked for.
    Group {
        /// The socket as configured.
        address: String,
        /// The group as configured.
        group: String,
        /// What the system said.
        error: io::Error,
    },
    /// A key or a certificate that the configuration names is not there, or is none.
    Credential(CredentialError),
    /// A core that was asked for is not there.
    Core(usize),
    /// The process may have too few descriptors for a single connection.
    Descriptors {
        /// How many it may have.
        limit: u64,
        /// How many the configuration asks for.
        wanted: u64,
    },
    /// The operating system refused something else.
    Io {
        /// What was being done.
        what: &'static str,
        /// What it said.
        error: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ServeError::Listen { address, error } if error.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "{address} is in use: stop what listens there, or choose another address with --listen")
            }
            ServeError::Listen { address, error } => {
                write!(f, "cannot listen on {address}: {error}; choose another address with --listen")
            }
            ServeError::Group { address, group, error } => write!(
                f,
                "cannot give {address} to the group {group}: {error}; name one with --unix.group that there is, and that \
                 the server's user is in"
            ),
            ServeError::Credential(error) => write!(f, "{error}"),
            ServeError::Core(core) => {
                write!(f, "core {core} is not available to this process: choose others with --pin, or --pin none")
            }
            ServeError::Descriptors { limit, wanted } => {
                write!(
                    f,
                    "a limit of {limit} open files leaves none for connections: raise it, best to {wanted} (ulimit -Hn)"
                )
            }
            ServeError::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl std::error::Error for ServeError {}

fn io_error(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::Io { what, error }
}

/// Serves until a signal ends it: SIGTERM or SIGINT drains, a second one leaves at once. SIGHUP has files read again.
///
/// # Errors
/// [`ServeError`]: nothing was served then, or a reactor failed.
pub fn run(config: Config) -> Result<(), ServeError> {
    let outcome = serve(config);
    log::flush();
    outcome
}

fn serve(config: Config) -> Result<(), ServeError> {
    let cores = cores::assign(&config)?;
    let (descriptors, raised) = memory::raise_descriptor_limit();
    let has_admin = config.listeners.iter().any(|listener| listener.admin);
    let own =
        descriptors::own(cores.len() as u64, config.listeners.len() as u64, has_admin) + config.auth.url_sockets_max();
    let connections_max = config.limits.connections_max as u64;
    let wanted = descriptors::wanted(connections_max, own);
    // Before the first thread: with one thread the process waits for no lock.
    memory::grow_descriptor_table(descriptors, wanted);
    log::init(config.log).map_err(io_error("cannot start the log's thread"))?;
    end_process_if_a_reactor_panics();
    if let Err(error) = raised {
        tracing::warn!(%error, "cannot raise the soft descriptor limit to the hard one");
    }
    let shares = descriptors::divide(descriptors, own, connections_max);
    if shares.connections == 0 {
        return Err(ServeError::Descriptors { limit: descriptors, wanted });
    }
    let requests = signals::catch()?;
    let entrance = Entrance::new(&config, cores.len()).map_err(ServeError::Credential)?;
    let mut node = Node::new(&config, cores.len(), shares, entrance)?;
    node.acceptors = tls::load(&config.listeners).map_err(ServeError::Credential)?;
    let keys = Current::new(auth::api_keys(&config.api).map_err(ServeError::Credential)?);
    let tokens = Current::new(auth::tokens(&config.auth).map_err(ServeError::Credential)?);
    let Listeners { sockets, addresses, bound, unix } =
        listen::bind(&config.listeners, cores.len(), &config.tcp, &config.unix)?;
    let loopback_port =
        |bound: &BoundListener| bound.address.filter(|at| at.ip().to_canonical().is_loopback()).map(|at| at.port());
    node.settings.gate.loopback_ports = bound.iter().map(loopback_port).collect();
    let access = Access { listeners: bound, keys: keys.clone(), loopback: config.admin.loopback };
    let reactors = node.spawn(sockets, cores, access, tokens.clone())?;
    node.ready.store(true, Ordering::Relaxed);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        reactors = reactors.count,
        driver = "epoll",
        descriptors,
        connections_max = node.settings.connections_max,
        queue_budget_bytes = node.settings.outbox_node_bytes_max,
        "serving"
    );
    warn_of_proxies(&config);
    if shares.connections < connections_max {
        tracing::warn!(
            configured = connections_max,
            connections_max = shares.connections,
            descriptors,
            wanted,
            "limits.connections_max is cut to what the descriptor limit allows: raise it (ulimit -Hn), or configure less"
        );
    }
    announce(&addresses)?;
    let ready = node.ready;
    let reloads = Reloads {
        auth: config.auth,
        keyring: node.entrance.keyring.take(),
        tokens,
        api: config.api,
        api_keys: keys,
        post: reactors.post.clone(),
        listeners: config.listeners,
        acceptors: node.acceptors,
    };
    let reload = reloads.start().map_err(io_error("cannot start the thread that reads files again"))?;
    wait_for_signal(&requests, &reactors, &reload)?;
    drain(&requests, &reactors, &ready, unix, config.drain.timeout)
}

/// A listener that believes every peer what it says of its client is told.
fn warn_of_proxies(config: &Config) {
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
    entrance: Entrance,
    doctor: Arc<Doctor>,
    /// What TLS sessions begin with, by listener.
    acceptors: Vec<Option<Acceptor>>,
}

struct Reactors {
    post: PostOffice,
    ended: Receiver<io::Result<()>>,
    count: usize,
    /// Told once when the cluster's thread has sent all it had.
    cluster_finished: Option<Receiver<()>>,
}

impl Node {
    fn new(config: &Config, reactors: usize, shares: Shares, entrance: Entrance) -> Result<Node, ServeError> {
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
                .with_backend(entrance.metrics.clone()),
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
            entrance,
            doctor: Arc::new(Doctor::new(examine_machine(config.clone()))),
            acceptors: Vec::new(),
        })
    }

    fn spawn(
        &mut self,
        listeners: Vec<Vec<Socket>>,
        cores: Vec<Option<core_affinity::CoreId>>,
        access: Access,
        tokens: Current<Tokens>,
    ) -> Result<Reactors, ServeError> {
        let node = control::Node {
            api: self.api.clone(),
            metrics: self.state.metrics.clone(),
            started: self.started,
            ready: self.ready.clone(),
            access: Arc::new(access),
            tokens,
            doctor: self.doctor.clone(),
        };
        let Shares { pages, health, .. } = self.shares;
        let (mut drivers, mut wakers) = (Vec::new(), Vec::<(PeerId, Arc<dyn Wake>)>::new());
        for (peer, sockets) in PeerId::reactors(listeners.len() as u16).zip(listeners) {
            let (driver, waker) = Epoll::new(sockets, self.started).map_err(io_error("cannot set up epoll"))?;
            let driver = Proxied::new(driver, self.settings.gate.proxied_listeners.to_vec());
            drivers.push(Tls::new(driver, self.acceptors.clone()));
            wakers.push((peer, waker));
        }
        let reactors = drivers.len() as u16;
        let control_waker = Arc::new(ControlWaker::default());
        wakers.push((PeerId::Control, control_waker.clone()));
        let cluster_waker = self.cluster.as_ref().map(|_| Arc::new(ClusterWaker::default()));
        wakers.extend(cluster_waker.clone().map(|waker| (PeerId::Cluster, waker as Arc<dyn Wake>)));
        let (post, mut mailboxes) = post_office(wakers);
        self.entrance.start(&post).map_err(io_error("cannot start the threads that find out who may connect"))?;
        let mut cluster_finished = None;
        if let (Some(settings), Some(waker)) = (self.cluster.take(), cluster_waker) {
            let mailbox = mailboxes.pop().expect("the last is the cluster's");
            let finished = cluster::spawn(settings, mailbox, waker, self.state.metrics.clone(), self.started)
                .map_err(io_error("cannot start the cluster's thread"))?;
            cluster_finished = Some(finished);
        }
        let mailbox = mailboxes.pop().expect("the last behind the reactors' is the control thread's");
        let requests = Requests::new(mailbox, control_waker, Homeward::new(self.state.seed, reactors));
        let places = control::Places { pages: pages as usize, admin: ADMIN_CONNECTIONS_MAX, health: health as usize };
        let http =
            control::start(node, places, requests).map_err(io_error("cannot start the threads of plain HTTP"))?;
        let (end, ended) = bounded(cores.len());
        let count = cores.len();
        for (at, ((driver, mailbox), core)) in drivers.into_iter().zip(mailboxes).zip(cores).enumerate() {
            let assignment = Assignment {
                me: ReactorId(at as u16),
                reactors: count as u16,
                mailbox,
                settings: self.settings.clone(),
                node: self.state.clone(),
                jitter_seed: self.jitter_seed ^ at as u64,
            };
            self.spawn_reactor(assignment, driver, core, http.clone(), end.clone())?;
        }
        Ok(Reactors { post, ended, count, cluster_finished })
    }

    fn spawn_reactor(
        &self,
        assignment: Assignment,
        driver: Tls<Proxied<Epoll>>,
        core: Option<core_affinity::CoreId>,
        http: control::Handoff,
        end: Sender<io::Result<()>>,
    ) -> Result<(), ServeError> {
        let at = assignment.me.0;
        let body = move || {
            if let Some(core) = core
                && !core_affinity::set_for_current(core)
            {
                tracing::warn!(reactor = at, core = core.id, "cannot pin this reactor: it runs where it may");
            }
            let http = Box::new(move |socket, read, provenance| http.give(socket, read, provenance));
            let mut worker = Worker::new(assignment, driver, http);
            // The receiver is gone where the process leaves at once.
            let _ = end.send(worker.run());
        };
        std::thread::Builder::new()
            .name(format!("reactor-{at}"))
            .spawn(body)
            .map(drop)
            .map_err(io_error("cannot start a reactor's thread"))
    }
}

/// What `fanfare doctor` says of this machine and configuration.
fn examine_machine(config: Config) -> impl Fn() -> String {
    move || doctor::json(&doctor::examine(&Machine::read(Path::new("/")), &config), &config)
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn settings(config: &Config, shares: Shares, gate: Gate) -> Settings {
    Settings {
        connections_max: shares.connections as usize,
        handshakes_max: shares.handshakes as usize,
        message: MessageLimits {
            bytes_max: config.limits.message_bytes_max,
            fragments_max: config.limits.fragments_max,
        },
        deflate: config.deflate.enabled.then(|| DeflateSettings {
            level: config.deflate.level,
            min_bytes: config.deflate.min_bytes,
            client_bits_max: WindowBits::new(config.deflate.client_window_bits).unwrap_or(WindowBits::MAX),
            contexts_max: config.deflate.contexts_max,
            memory_bytes_max: config.deflate.memory_max,
        }),
        gate,
        head: HeadLimits { bytes_max: config.limits.head_bytes_max, headers_max: config.limits.headers_max },
        handshake_ms_max: ms(config.limits.handshake_timeout),
        heartbeat_ms: ms(config.heartbeat.interval),
        outbox_bytes_max: config.outbox.bytes_max,
        outbox_age_ms_max: ms(config.outbox.age_max),
        outbox_node_bytes_max: match config.outbox.node_bytes_max {
            0 => memory::available_bytes() / 4,
            bytes => bytes as u64,
        },
        messages_per_second: config.rate.messages_per_second,
        bytes_per_second: config.rate.bytes_per_second,
        intake_bytes_max: crate::limits::INTAKE_BYTES_MAX,
        router: RouterSettings {
            rooms_max: config.limits.rooms_max,
            notices: NoticeSettings {
                members_max: config.rooms.notice_members_max as u64,
                join_text: config.rooms.join_text.clone(),
                leave_text: config.rooms.leave_text.clone(),
            },
            history: history(config),
            user_connections: user_connections(&config.limits),
            cluster: config.redis.url.address().is_some(),
        },
    }
}

fn user_connections(limits: &config::Limits) -> Option<UserConnections> {
    let policy = match limits.user_connections_policy {
        config::UserConnectionsPolicy::Refuse => UserConnectionsPolicy::Refuse,
        config::UserConnectionsPolicy::Replace => UserConnectionsPolicy::Replace,
    };
    (limits.user_connections_max > 0).then_some(UserConnections { max: limits.user_connections_max, policy })
}

fn history(config: &Config) -> HistorySettings {
    let policy = |bounds: HistoryBounds| {
        let ttl_ms = ms(bounds.ttl);
        (bounds.size > 0).then_some(HistoryPolicy { messages_max: bounds.size, ttl_ms })
    };
    let rules = config.clone();
    let rooms = move |room: &str| rules.room_rule(room).and_then(|rule| policy(rule.history));
    HistorySettings {
        rooms: (!config.room.is_empty()).then(|| RoomPolicies(Arc::new(rooms))),
        inbox: policy(config.inbox.history),
        bytes_max: config.history.memory_max,
        pinned: Arc::default(),
        pinned_bytes_max: config.history.memory_max as u64,
    }
}

/// Waits for the signal that ends the node, or for a reactor that fails. Others are passed on.
fn wait_for_signal(requests: &Receiver<Request>, reactors: &Reactors, reload: &Sender<()>) -> Result<(), ServeError> {
    loop {
        select! {
            recv(requests) -> request => match request {
                // Where a reload waits already, it will read the same.
                Ok(Request::Reload) => drop(reload.try_send(())),
                Ok(Request::Drain | Request::Leave) | Err(_) => return Ok(()),
            },
            recv(reactors.ended) -> ended => return ended.unwrap_or(Ok(())).map_err(io_error("a reactor failed")),
        }
    }
}

/// Waits for all reactors to have drained, for the time to be up, or for a second signal.
fn drain(
    requests: &Receiver<Request>,
    reactors: &Reactors,
    ready: &AtomicBool,
    unix: Vec<UnixSocket>,
    drain_max: Duration,
) -> Result<(), ServeError> {
    ready.store(false, Ordering::Relaxed);
    tracing::info!(timeout_ms = drain_max.as_millis() as u64, "draining: a second signal leaves at once");
    // From here on their paths are the next process's.
    drop(unix);
    reactors.post.order(Order::Drain);
    let deadline = Instant::now() + drain_max;
    let mut left = reactors.count;
    while left > 0 {
        select! {
            recv(reactors.ended) -> ended => {
                ended.unwrap_or(Ok(())).map_err(io_error("a reactor failed while draining"))?;
                left -= 1;
            }
            recv(requests) -> _ => {
                tracing::warn!("second signal: leaving at once");
                return Ok(());
            }
            recv(crossbeam_channel::at(deadline)) -> _ => {
                tracing::warn!("drain.timeout is over: the connections left are cut");
                return Ok(());
            }
        }
    }
    if let Some(finished) = &reactors.cluster_finished {
        reactors.post.order(Order::Finish);
        // The other nodes hear of the last leaves, if Redis is there to tell them.
        let _ = finished.recv_timeout(Duration::from_millis(CLUSTER_FINISH_MS_MAX));
    }
    tracing::info!("drained");
    Ok(())
}

/// A reactor that panics ends the process with a line on stderr: without it, its connections would hang and every topic
/// it is home to would be mute, while the rest looks healthy. Of other threads' panics there is a line, too.
pub fn end_process_if_a_reactor_panics() {
    std::panic::set_hook(Box::new(move |panic| {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("?");
        let what = panic.payload_as_str().unwrap_or("?");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        let trace = Backtrace::capture();
        let trace = match trace.status() {
            BacktraceStatus::Captured => format!("{trace}"),
            _ => String::new(),
        };
        let line = format!("fanfare: {name} panicked at {place}: {what}\n{trace}");
        if name.starts_with("reactor-") || name == "cluster" || name == "auth" || name == "backend" {
            tracing::error!(thread = name, place, what, "a reactor panicked: the process ends");
            last_words(line.as_bytes());
            std::process::abort();
        }
        tracing::error!(thread = name, place, what, "a thread panicked");
        log::say(line.as_bytes());
    }));
}
