//! The director: starts the cluster and everybody around it, lets the episodes happen, and waits after each until
//! everybody has caught up.

use std::thread;
use std::time::{Duration, Instant};

use fanfare_testing::{Cluster, Data, Entrance};
use serde_json::json;

use super::audit::{Content, Heard, Journal, Outcome, Place, Publish, ROOMS, Shared};
use super::link::Link;
use super::market::{self, Market, MarketVerdict};
use super::plan::{Episode, Kind};
use super::publisher::{Publisher, publish_marker};
use super::subscriber::Subscriber;

const SUBSCRIBERS: usize = 6;
const PUBLISHERS: u32 = 4;
/// The publisher of the messages that show whether everybody has caught up.
const MARKERS: u32 = 1_000;
/// Whoever has not caught up after so long is left behind.
const CATCH_UP_MS_MAX: u64 = 20_000;

/// Everything that a run brought.
pub struct Record {
    pub publishes: Vec<Publish>,
    pub journals: Vec<Journal>,
    pub ends: [Place; ROOMS.len()],
    /// The faults that happened.
    pub kinds: Vec<Kind>,
    /// For those that were waited for, how long it took from their end to everybody having caught up.
    pub caught_up_ms: Vec<(Kind, u64)>,
    /// Publishes that got no answer for long on a connection that lived.
    pub unanswered: u32,
    pub epochs: usize,
    /// Of the keyed room.
    pub market: MarketVerdict,
    /// What each node has logged since it was started last.
    pub logs: Vec<String>,
    /// What went wrong in a way that the judge cannot see.
    pub failures: Vec<String>,
}

/// Runs all episodes against a cluster; `seed` is for the clients' own dice.
pub fn run(cluster: Cluster, episodes: &[Episode], seed: u64) -> Record {
    let shared = Shared::new(cluster.addrs(), SUBSCRIBERS);
    let market = Market::new(&shared);
    thread::scope(|scope| {
        // However this ends, the others have to.
        let _ending = Ending(&shared);
        let (shared, market) = (&shared, &market);
        let dice = |id: u64| seed.wrapping_mul(1_000).wrapping_add(id);
        let subscribers: Vec<_> = (0..SUBSCRIBERS)
            .map(|id| scope.spawn(move || Subscriber::new(shared, id, dice(id as u64)).run()))
            .collect();
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|id| scope.spawn(move || Publisher::new(shared, id, id % 2 == 0, dice(100 + u64::from(id))).run()))
            .collect();

        for id in 0..market::SUBSCRIBERS_COUNT {
            scope.spawn(move || market.subscribe(id, fastrand::Rng::with_seed(dice(200 + id as u64))));
        }
        let tickers: Vec<_> = (0..market::PUBLISHERS)
            .map(|id| scope.spawn(move || market.publish(id, fastrand::Rng::with_seed(dice(300 + id)))))
            .collect();

        let mut director = Director {
            cluster,
            shared,
            market,
            markers: Vec::new(),
            kinds: Vec::new(),
            caught_up_ms: Vec::new(),
            failures: Vec::new(),
        };
        director.play(episodes);
        shared.end_load();
        let mut publishes: Vec<Publish> =
            publishers.into_iter().flat_map(|publisher| publisher.join().expect("a publisher")).collect();
        tickers.into_iter().for_each(|ticker| ticker.join().expect("a publisher"));
        let ends = director.settle();
        let market = director.judge_market();
        let mut journals = director.pages();
        shared.end();
        journals.extend(subscribers.into_iter().flat_map(|subscriber| subscriber.join().expect("a subscriber")));
        publishes.append(&mut director.markers);
        Record {
            publishes,
            journals,
            ends,
            kinds: director.kinds,
            caught_up_ms: director.caught_up_ms,
            unanswered: shared.unanswered(),
            epochs: shared.epochs_count(),
            market,
            logs: (0..shared.addrs.len()).map(|node| director.cluster.log(node)).collect(),
            failures: director.failures,
        }
    })
}

struct Ending<'a>(&'a Shared);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Director<'a> {
    cluster: Cluster,
    shared: &'a Shared,
    market: &'a Market<'a>,
    markers: Vec<Publish>,
    kinds: Vec<Kind>,
    caught_up_ms: Vec<(Kind, u64)>,
    failures: Vec<String>,
}

impl Director<'_> {
    fn play(&mut self, episodes: &[Episode]) {
        if let Err(failure) = self.catch_up() {
            self.failures.push(format!("before the first episode: {failure}"));
            return;
        }
        for (episode, number) in episodes.iter().zip(1..) {
            self.shared.begin_episode(number);
            thread::sleep(Duration::from_millis(episode.lead_ms));
            self.strike(episode);
            self.kinds.push(episode.kind);
            if let Some(node) = self.cluster.ended_node() {
                self.failures.push(format!("in episode {number} ({}) node {node} has ended by itself", episode.kind));
                return;
            }
            if !episode.is_waited_for {
                println!("{number:>4}  {:<40} {:>5} ms  and the next", episode.kind, episode.hold_ms);
                continue;
            }
            let healed = Instant::now();
            match self.catch_up() {
                Ok(()) => {
                    let took_ms = u64::try_from(healed.elapsed().as_millis()).expect("a run is short");
                    println!(
                        "{number:>4}  {:<40} {:>5} ms  caught up after {took_ms} ms",
                        episode.kind, episode.hold_ms
                    );
                    self.caught_up_ms.push((episode.kind, took_ms));
                }
                Err(failure) => {
                    self.failures.push(format!("after episode {number} ({}): {failure}", episode.kind));
                    return;
                }
            }
        }
    }

    /// The fault, from its beginning to its end. Returns once what was ended or stopped answers again.
    fn strike(&mut self, episode: &Episode) {
        let (node, hold) = (episode.node, Duration::from_millis(episode.hold_ms));
        match episode.kind {
            Kind::NodeKilled => {
                self.cluster.kill(node);
                thread::sleep(hold);
                self.cluster.restart(node);
            }
            Kind::NodeStopped => {
                self.cluster.stop(node);
                thread::sleep(hold);
                self.cluster.cont(node);
            }
            Kind::RedisStopped => {
                self.cluster.redis().stop();
                thread::sleep(hold);
                self.cluster.redis().cont();
                assert!(self.cluster.redis().answers());
            }
            Kind::RedisKept => self.restart_redis(Data::Kept, hold),
            Kind::RedisEmptied => self.restart_redis(Data::Emptied, hold),
            Kind::SubscriptionsKilled => {
                let from = Instant::now();
                loop {
                    self.cluster.redis().kill_pubsub();
                    if from.elapsed() >= hold {
                        break;
                    }
                    // They are back soon, and fall again under load.
                    thread::sleep(Duration::from_millis(50));
                }
            }
            Kind::RedisPaused => {
                self.cluster.redis().pause_clients(episode.hold_ms);
                assert!(self.cluster.redis().answers());
            }
            Kind::ClientsDropped => self.shared.drop_all(),
            Kind::NodeMissedRestart => {
                self.cluster.stop(node);
                self.restart_redis(Data::Emptied, hold);
                self.cluster.cont(node);
            }
            Kind::NodeKilledInPause => {
                self.cluster.redis().stop();
                self.cluster.kill(node);
                thread::sleep(hold);
                self.cluster.restart(node);
                self.cluster.redis().cont();
                assert!(self.cluster.redis().answers());
            }
        }
    }

    fn restart_redis(&mut self, data: Data, hold: Duration) {
        self.cluster.redis_mut().kill();
        thread::sleep(hold);
        self.cluster.redis_mut().restart(data);
    }

    /// Returns when every room has taken a message that every subscriber then has.
    fn catch_up(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS_MAX);
        for (room, name) in ROOMS.iter().enumerate() {
            let place = self.mark(room, deadline)?;
            let stands_there = |found: Option<Place>| {
                found.is_some_and(|found| found.epoch == place.epoch && found.offset >= place.offset)
            };
            while !self.shared.progress().iter().all(|rooms| stands_there(rooms[room])) {
                if Instant::now() > deadline {
                    let found: Vec<Option<Place>> = self.shared.progress().iter().map(|rooms| rooms[room]).collect();
                    return Err(format!("{name} is at {place:?} at least, and subscribers stand at {found:?}"));
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        self.market.catch_up(deadline)
    }

    /// What became of the keyed room.
    fn judge_market(&mut self) -> MarketVerdict {
        let judged = self.market.judge(Instant::now() + Duration::from_millis(CATCH_UP_MS_MAX));
        judged.unwrap_or_else(|failure| {
            self.failures.push(format!("in the end: {failure}"));
            MarketVerdict::default()
        })
    }

    fn mark(&mut self, room: usize, deadline: Instant) -> Result<Place, String> {
        let number = u32::try_from(self.markers.len()).expect("few markers");
        let mut marker = Publish {
            room,
            content: Content { publisher: MARKERS, number },
            connection: 0,
            attempts: 0,
            episode: self.shared.episode(),
            outcome: Outcome::Unknown,
        };
        let taken = publish_marker(self.shared, &mut marker, deadline);
        self.markers.push(marker.clone());
        match (taken, marker.outcome) {
            (Ok(()), Outcome::Acked(place)) => Ok(place),
            (Ok(()), outcome) => Err(format!("{} has answered a publish with {outcome:?}", ROOMS[room])),
            (Err(last), _) => Err(format!("{} takes no message: {last}", ROOMS[room])),
        }
    }

    /// Waits until all nodes name the same positions, everybody stands there, and everybody is present once.
    fn settle(&mut self) -> [Place; ROOMS.len()] {
        let deadline = Instant::now() + Duration::from_millis(CATCH_UP_MS_MAX);
        loop {
            let ends: Vec<_> = (0..self.shared.addrs.len()).map(|node| self.ends_on(node)).collect();
            let settled = match &ends[0] {
                Some(first) => {
                    let all = self.shared.progress().iter().all(|rooms| *rooms == first.map(Some));
                    (all && ends.iter().all(|end| end.as_ref() == Some(first))).then_some(*first)
                }
                None => None,
            };
            if let Some(settled) = settled {
                return settled;
            }
            if Instant::now() > deadline {
                self.failures
                    .push(format!("in the end the nodes name these positions, and not all stand there: {ends:?}"));
                return ends.into_iter().flatten().next().unwrap_or([Place { epoch: 0, offset: 0 }; ROOMS.len()]);
            }
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// The positions of the rooms as a node tells a new member, where everybody is present once.
    fn ends_on(&self, node: usize) -> Option<[Place; ROOMS.len()]> {
        let mut link = Link::connect(self.shared.addrs[node], "reader").ok()?;
        let mut ends = [Place { epoch: 0, offset: 0 }; ROOMS.len()];
        let mut expected: Vec<String> = (0..SUBSCRIBERS).map(|id| format!("subscriber-{id}")).collect();
        expected.push("reader".to_owned());
        expected.sort_unstable();
        for (room, name) in ROOMS.iter().enumerate() {
            let joined = ask(&mut link, &json!({"type": "join_room", "roomId": name, "id": "join"}))?;
            ends[room] = self.shared.place_of(&joined)?;
            let presence = ask(&mut link, &json!({"type": "presence", "roomId": name, "id": "presence"}))?;
            let mut users: Vec<&str> = presence["users"].as_array()?.iter().filter_map(|user| user.as_str()).collect();
            users.sort_unstable();
            if users != expected {
                return None;
            }
        }
        Some(ends)
    }

    /// The newest thousand messages of every room on every node, each as the journal of somebody who was there.
    fn pages(&self) -> Vec<Journal> {
        let nodes = 0..self.shared.addrs.len();
        nodes.flat_map(|node| (0..ROOMS.len()).filter_map(move |room| self.page(node, room))).collect()
    }

    fn page(&self, node: usize, room: usize) -> Option<Journal> {
        let mut link = Link::connect(self.shared.addrs[node], "reader").ok()?;
        ask(&mut link, &json!({"type": "join_room", "roomId": ROOMS[room], "id": "join"}))?;
        let page = ask(&mut link, &json!({"type": "history", "roomId": ROOMS[room], "limit": 1_000, "id": "page"}))?;
        let end = self.shared.place_of(&page)?;
        let messages = page["messages"].as_array()?;
        let heard: Vec<(u64, Content)> = messages
            .iter()
            .filter_map(|message| Some((message["offset"].as_u64()?, Content::of(&message["content"])?)))
            .collect();
        let offset = heard.first().map_or(end.offset, |(offset, _)| offset - 1);
        let joined = Heard::Joined { place: Place { epoch: end.epoch, offset }, recovered: None };
        let messages = heard.into_iter().map(|(offset, content)| Heard::Message { offset, content });
        let entries = [Heard::Asked { since: None }, joined].into_iter().chain(messages);
        let episode = self.shared.episode();
        Some(Journal {
            subscriber: 100 + node,
            is_page: true,
            room,
            entries: entries.map(|heard| (episode, heard)).collect(),
        })
    }
}

/// The answer to a command, whatever comes before it.
fn ask(link: &mut Link, command: &serde_json::Value) -> Option<serde_json::Value> {
    let deadline = Instant::now() + Duration::from_secs(5);
    link.send(command).ok()?;
    while Instant::now() < deadline {
        if let Some(answer) = link.receive(Duration::from_millis(100)).ok()?
            && answer["id"] == command["id"]
        {
            return Some(answer);
        }
    }
    None
}
