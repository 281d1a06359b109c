//! The simulated Redis: its servers, of which one is the primary, and the connections of the nodes to them.
//!
//! A connection is two queues, to Redis and back, each in order and with delays of its own. Two connections have no
//! order between them. What can happen to a connection or a server happens between any two commands.

use std::collections::VecDeque;
use std::sync::Arc;

use fanfare::cluster::core::{Command, Reply};
use fanfare::time::Millis;

use super::chronicle::Chronicle;
use super::server::{Data, Server};

/// Redis' clock when the simulation's began, in milliseconds since 1970.
const UNIX_MS_BEGIN: u64 = 1_700_000_000_000;

/// One in so many things that are sent takes long.
const SLOW_ONE_IN: usize = 150;

/// How long that is at most, in milliseconds.
const SLOW_MS_MAX: u64 = 300;

/// A connection, each with a number of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LineAt(pub usize);

/// A node, each run with a number of its own.
pub type NodeAt = usize;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Commands,
    Subscriber,
}

/// What a node sends.
#[derive(Debug)]
pub enum Request {
    Connect,
    /// One of a batch, whose answers come together.
    Command {
        batch: u64,
        command: Command,
        is_last: bool,
    },
    Subscribe(Vec<Arc<str>>),
    Unsubscribe(Vec<Arc<str>>),
    /// The connection ends.
    Close,
}

/// What a connection tells its node.
#[derive(Debug)]
pub enum Event {
    Up,
    Down,
    Replies { batch: u64, replies: Vec<Reply> },
    Subscribed(Vec<Arc<str>>),
    Received { channel: Arc<str>, payload: Arc<[u8]> },
}

struct Line {
    node: NodeAt,
    kind: Kind,
    server: usize,
    /// The server's run when the connection was prepared.
    run: String,
    to_redis: Pipe<Request>,
    to_node: Pipe<Event>,
    replies: Vec<Reply>,
    /// Whether the node still listens to it.
    is_wanted: bool,
    /// Whether what is sent still arrives, either way.
    is_silent: bool,
    /// Whether it was closed, or broke: what the node sends goes nowhere.
    is_lost: bool,
}

/// Things on their way, each with when it arrives.
struct Pipe<T> {
    things: VecDeque<(Millis, T)>,
    last: Millis,
}

impl<T> Pipe<T> {
    fn new() -> Pipe<T> {
        Pipe { things: VecDeque::new(), last: Millis(0) }
    }

    fn push(&mut self, at: Millis, thing: T) {
        self.last = self.last.max(at);
        self.things.push_back((self.last, thing));
    }

    fn arrives_at(&self) -> Option<Millis> {
        self.things.front().map(|(at, _)| *at)
    }
}

/// See the module's documentation.
pub struct Redis {
    pub chronicle: Chronicle,
    now: Millis,
    random: fastrand::Rng,
    delay_ms_max: u64,
    servers: Vec<Server>,
    /// The one that new connections come to; `None` while there is none.
    primary: Option<usize>,
    /// What a replica has of it.
    replica: Data,
    is_paused: bool,
    lines: Vec<Line>,
    /// Connections that something is left of.
    live: Vec<LineAt>,
    seed: u64,
}

/// What becomes of the data when a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Kept,
    /// All but the newest: what a replica had.
    Lagging,
    Emptied,
}

impl Redis {
    /// One server without data.
    pub fn new(seed: u64, delay_ms_max: u64) -> Redis {
        let mut redis = Redis {
            chronicle: Chronicle::default(),
            now: Millis(0),
            random: fastrand::Rng::with_seed(seed ^ 0x5EED),
            delay_ms_max,
            servers: Vec::new(),
            primary: None,
            replica: Data::new(),
            is_paused: false,
            lines: Vec::new(),
            live: Vec::new(),
            seed,
        };
        redis.start(Data::new());
        redis
    }

    /// The time is `now`.
    pub fn pass_to(&mut self, now: Millis) {
        self.now = now;
    }

    /// A node connects. The connection is told of as up or as down.
    pub fn connect(&mut self, node: NodeAt, kind: Kind) -> LineAt {
        let at = LineAt(self.lines.len());
        self.lines.push(Line {
            node,
            kind,
            server: self.primary.unwrap_or(0),
            run: String::new(),
            to_redis: Pipe::new(),
            to_node: Pipe::new(),
            replies: Vec::new(),
            is_wanted: true,
            is_silent: false,
            is_lost: self.primary.is_none(),
        });
        self.live.push(at);
        match self.primary {
            Some(_) => self.send(at, Request::Connect),
            None => self.tell(at, Event::Down),
        }
        at
    }

    /// A node sends something.
    pub fn send(&mut self, at: LineAt, request: Request) {
        let arrives = self.some_time();
        let line = &mut self.lines[at.0];
        if !line.is_lost && !line.is_silent {
            line.to_redis.push(arrives, request);
        }
    }

    /// A node gives a connection up. What it has sent may still arrive.
    pub fn give_up(&mut self, at: LineAt) {
        self.lines[at.0].is_wanted = false;
        self.lines[at.0].to_node.things.clear();
        self.end(at);
    }

    /// Connections of which a request has arrived that can be done.
    pub fn with_requests(&self) -> Vec<LineAt> {
        let is_ready = |at: &&LineAt| {
            let line = &self.lines[at.0];
            line.to_redis.arrives_at().is_some_and(|arrives| arrives <= self.now)
        };
        if self.is_paused { Vec::new() } else { self.live.iter().filter(is_ready).copied().collect() }
    }

    /// Connections that have something for their node.
    pub fn with_events(&self) -> Vec<LineAt> {
        let arrives = |at: &LineAt| self.lines[at.0].to_node.arrives_at();
        self.live.iter().filter(|at| arrives(at).is_some_and(|arrives| arrives <= self.now)).copied().collect()
    }

    /// Whose a connection is.
    pub fn node_of(&self, at: LineAt) -> NodeAt {
        self.lines[at.0].node
    }

    /// The next of what a connection has for its node. That a subscription is confirmed goes another way within the
    /// node than what comes of it, and may be overtaken.
    pub fn take_event(&mut self, at: LineAt) -> Option<Event> {
        let overtakes = self.random.bool();
        let things = &mut self.lines[at.0].to_node.things;
        let overtakes = overtakes
            && matches!(things.front(), Some((_, Event::Subscribed(_))))
            && matches!(things.get(1), Some((arrives, Event::Received { .. })) if *arrives <= self.now);
        let taken = things.remove(usize::from(overtakes)).map(|(_, event)| event);
        self.forget_if_over(at);
        taken
    }

    /// When the next thing arrives.
    pub fn next_due(&self) -> Option<Millis> {
        let due = |at: &LineAt| {
            let line = &self.lines[at.0];
            let to_redis = line.to_redis.arrives_at().filter(|_| !self.is_paused);
            to_redis.into_iter().chain(line.to_node.arrives_at()).min()
        };
        self.live.iter().filter_map(due).min()
    }

    /// Does the next request of a connection; what it was, in words.
    pub fn execute(&mut self, at: LineAt) -> String {
        let Some((_, request)) = self.lines[at.0].to_redis.things.pop_front() else { return String::new() };
        let words = format!("{:?} of node {}: {}", at, self.lines[at.0].node, words(&request));
        let server = self.lines[at.0].server;
        match request {
            Request::Connect => {
                self.finish_earlier(at);
                self.lines[at.0].run = self.servers[server].run.clone();
                self.tell(at, Event::Up);
            }
            Request::Command { batch, command, is_last } => {
                self.execute_command(at, &command);
                if is_last {
                    let replies = std::mem::take(&mut self.lines[at.0].replies);
                    self.tell(at, Event::Replies { batch, replies });
                }
            }
            Request::Subscribe(channels) => {
                channels.iter().for_each(|channel| self.servers[server].subscribe(channel, at));
                self.tell(at, Event::Subscribed(channels));
            }
            Request::Unsubscribe(channels) => {
                channels.iter().for_each(|channel| self.servers[server].unsubscribe(channel, at));
            }
            Request::Close => {
                self.lines[at.0].is_lost = true;
                self.servers[server].forget(at);
            }
        }
        self.forget_if_over(at);
        if Some(server) == self.primary && self.random.usize(0..20) == 0 {
            self.replica = self.servers[server].data.clone();
        }
        words
    }

    fn execute_command(&mut self, at: LineAt, command: &Command) {
        let (server, now_ms) = (self.lines[at.0].server, self.now_ms());
        let run = std::mem::take(&mut self.lines[at.0].run);
        let outcome = self.servers[server].execute(&run, command, now_ms, &mut self.chronicle);
        self.lines[at.0].run = run;
        self.lines[at.0].replies.push(outcome.reply);
        for (channel, payload) in outcome.published {
            self.publish(server, &channel, &payload);
        }
    }

    /// Everybody who subscribes to a channel gets a message.
    pub fn publish(&mut self, server: usize, channel: &Arc<str>, payload: &Arc<[u8]>) {
        let lines: Vec<LineAt> = self.servers[server].channels.get(channel).into_iter().flatten().copied().collect();
        for line in lines {
            self.tell(line, Event::Received { channel: channel.clone(), payload: payload.clone() });
        }
    }

    /// What a node's earlier connection had sent when it was given up is done, or never will be, when the next one is
    /// made.
    fn finish_earlier(&mut self, at: LineAt) {
        let (node, kind) = (self.lines[at.0].node, self.lines[at.0].kind);
        let earlier = |other: &&LineAt| {
            let line = &self.lines[other.0];
            **other < at && (line.node, line.kind) == (node, kind)
        };
        for other in self.live.iter().filter(earlier).copied().collect::<Vec<LineAt>>() {
            let is_done = self.random.bool();
            for (_, request) in std::mem::take(&mut self.lines[other.0].to_redis.things) {
                if let Request::Command { command, .. } = request
                    && is_done
                {
                    self.execute_command(other, &command);
                }
            }
            // A subscription is closed later.
            match self.random.bool() {
                true => self.close(other),
                false => self.end(other),
            }
        }
    }

    fn tell(&mut self, at: LineAt, event: Event) {
        let arrives = self.some_time();
        let line = &mut self.lines[at.0];
        let is_heard = line.is_wanted && !line.is_silent && (!line.is_lost || matches!(event, Event::Down));
        if is_heard {
            line.to_node.push(arrives, event);
        }
    }

    /// The server learns of the end of a connection when all is read that was sent on it.
    fn end(&mut self, at: LineAt) {
        let arrives = self.some_time();
        let line = &mut self.lines[at.0];
        line.to_redis.push(arrives, Request::Close);
        line.is_lost = true;
    }

    fn close(&mut self, at: LineAt) {
        let server = self.lines[at.0].server;
        self.lines[at.0].to_redis.things.clear();
        self.lines[at.0].is_lost = true;
        self.servers[server].forget(at);
        self.forget_if_over(at);
    }

    fn forget_if_over(&mut self, at: LineAt) {
        let line = &self.lines[at.0];
        if line.is_lost && line.to_redis.things.is_empty() && (line.to_node.things.is_empty() || !line.is_wanted) {
            self.live.retain(|live| *live != at);
        }
    }

    /// When what is sent now arrives.
    fn some_time(&mut self) -> Millis {
        let ms = match self.random.usize(0..SLOW_ONE_IN) {
            0 => self.random.u64(0..=SLOW_MS_MAX),
            _ => self.random.u64(0..=self.delay_ms_max),
        };
        self.now.saturating_add(ms)
    }

    fn now_ms(&self) -> u64 {
        UNIX_MS_BEGIN + self.now.0
    }
}

/// What happens to it.
impl Redis {
    /// A connection is lost: some of what was sent is still done, no answer arrives.
    pub fn lose(&mut self, at: LineAt) {
        let queued = self.lines[at.0].to_redis.things.len();
        let done = self.random.usize(0..=queued);
        let line = &mut self.lines[at.0];
        line.to_redis.things.truncate(done);
        line.to_node.things.clear();
        self.end(at);
        self.tell(at, Event::Down);
    }

    /// Nothing arrives any more on a connection, and nobody is told.
    pub fn silence(&mut self, at: LineAt) {
        let queued = self.lines[at.0].to_redis.things.len();
        let done = self.random.usize(0..=queued);
        let line = &mut self.lines[at.0];
        line.to_redis.things.truncate(done);
        line.to_node.things.clear();
        line.is_silent = true;
    }

    /// A node is gone with all its connections.
    pub fn forsake(&mut self, node: NodeAt) {
        for at in self.live.clone() {
            if self.lines[at.0].node == node && self.lines[at.0].is_wanted {
                self.lose(at);
                self.lines[at.0].is_wanted = false;
                self.lines[at.0].to_node.things.clear();
            }
        }
    }

    /// The connections for commands that nodes have, or those that subscribe.
    pub fn wanted(&self, is_commands: bool) -> Vec<LineAt> {
        let is_wanted = |at: &&LineAt| {
            let line = &self.lines[at.0];
            let is_usable = line.is_wanted && !line.is_lost && !line.is_silent;
            is_usable && (line.kind == Kind::Commands) == is_commands
        };
        self.live.iter().filter(is_wanted).copied().collect()
    }

    /// Nothing is done until it is resumed.
    pub fn pause(&mut self, is_paused: bool) {
        self.is_paused = is_paused;
    }

    /// Whether what needs memory is refused.
    pub fn refuse(&mut self, refuses: bool) {
        self.servers.iter_mut().for_each(|server| server.refuses = refuses);
    }

    /// The primary ends, and all its connections with it.
    pub fn stop(&mut self) {
        if let Some(primary) = self.primary.take() {
            self.lose_all_of(primary);
        }
    }

    /// A new primary, which has some of what the last one had.
    pub fn go_on(&mut self, fate: Fate) {
        let last = self.primary.unwrap_or(self.servers.len() - 1);
        let data = match fate {
            Fate::Kept => self.servers[last].data.clone(),
            Fate::Lagging => self.replica.clone(),
            Fate::Emptied => Data::new(),
        };
        self.start(data);
    }

    /// All data of the primary is deleted; its connections stay.
    pub fn flush(&mut self) {
        if let Some(primary) = self.primary {
            self.servers[primary].data.clear();
            self.replica.clear();
        }
    }

    /// Servers that are the primary no more lose the connections they still have.
    pub fn end_old(&mut self) {
        for at in 0..self.servers.len() {
            if Some(at) != self.primary {
                self.lose_all_of(at);
            }
        }
    }

    fn start(&mut self, data: Data) {
        let number = self.servers.len();
        self.replica = data.clone();
        self.servers.push(Server::new(format!("r{:x}n{number}", self.seed), data));
        self.primary = Some(number);
    }

    fn lose_all_of(&mut self, server: usize) {
        for at in self.live.clone() {
            if self.lines[at.0].server != server {
                continue;
            }
            // Some of what had arrived is done before the end.
            let done = self.random.usize(0..=self.lines[at.0].to_redis.things.len());
            for _ in 0..done {
                self.execute(at);
            }
            self.lines[at.0].to_node.things.clear();
            self.tell(at, Event::Down);
            self.close(at);
        }
    }
}

/// What the model may know of it.
impl Redis {
    /// The primary, if there is one.
    pub fn primary(&self) -> Option<&Server> {
        self.primary.map(|primary| &self.servers[primary])
    }

    /// Whether a message is nowhere to be had.
    pub fn is_gone(&self, topic: &str, epoch: &str, offset: u64) -> bool {
        let is_held = self.primary().is_some_and(|primary| primary.holds(topic, epoch, offset, self.now_ms()));
        !is_held || self.chronicle.is_trimmed(topic, epoch, offset)
    }

    /// Whether nodes are connected to different servers.
    pub fn is_split(&self) -> bool {
        self.live.iter().any(|at| Some(self.lines[at.0].server) != self.primary)
    }

    /// Whether nothing is on its way.
    pub fn is_quiet(&self) -> bool {
        let is_empty = |at: &LineAt| {
            let line = &self.lines[at.0];
            line.to_redis.things.is_empty() && line.to_node.things.is_empty()
        };
        self.live.iter().all(is_empty)
    }
}

fn words(request: &Request) -> String {
    match request {
        Request::Command { command: Command::Publish { channel, payload }, .. } => {
            format!("publish {} bytes on {channel}", payload.len())
        }
        Request::Command { command: Command::Append { topic, entries, .. }, .. } => {
            format!("append {} to {topic}", entries.len())
        }
        Request::Command { command: Command::Read { topic, range, .. }, .. } => format!("read {range:?} of {topic}"),
        other => format!("{other:?}"),
    }
}
