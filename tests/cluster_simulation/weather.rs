//! Trouble: what happens to Redis, to the ways there and to nodes, and that it ends.

use fanfare::time::Millis;

use super::node::Node;
use super::plan::Trouble;
use super::redis::Fate;
use super::run::{Phase, Run};

/// What is going on, and until when.
#[derive(Debug, Default)]
pub struct Weather {
    paused_until: Option<Millis>,
    /// Redis is not there, and this is what it will have.
    down_until: Option<(Millis, Fate)>,
    refuses_until: Option<Millis>,
    /// Until then there is an old primary beside the new one.
    split_until: Option<Millis>,
    /// How often all data was deleted.
    pub flushes: u64,
}

impl Run {
    /// Something happens.
    pub fn make_trouble(&mut self) {
        let Some(&trouble) = self.random.choice(&self.plan.troubles) else { return };
        self.trace.note(b"trouble", || format!("trouble: {trouble:?}"));
        self.is_calm = false;
        let short_ms = self.random.u64(0..600);
        let long_ms = self.random.u64(0..6_000);
        let ms = if self.one_in(2) { short_ms } else { long_ms };
        let until = Some(self.now.saturating_add(ms));
        match trouble {
            Trouble::LoseCommands | Trouble::LoseSubscriber | Trouble::SilenceCommands | Trouble::SilenceSubscriber => {
                self.trouble_a_line(trouble);
            }
            Trouble::Pause => {
                self.redis.pause(true);
                self.weather.paused_until = until;
                self.tally.count("Redis was paused");
            }
            Trouble::RestartKept => self.restart(Fate::Kept, until),
            Trouble::RestartLagging => self.restart(Fate::Lagging, until),
            Trouble::RestartEmptied => self.restart(Fate::Emptied, until),
            Trouble::Failover => {
                if self.weather.down_until.is_none() {
                    self.redis.go_on(Fate::Lagging);
                    self.weather.split_until = until;
                    self.tally.count("another server became the primary");
                }
            }
            Trouble::Flush => {
                self.redis.flush();
                self.weather.flushes += 1;
            }
            Trouble::Refuse => {
                self.redis.refuse(true);
                self.weather.refuses_until = until;
            }
            Trouble::Stall => {
                let node = self.random.usize(0..self.nodes.len());
                self.nodes[node].stalled_until = self.now.saturating_add(ms);
                self.tally.count("a node stalled");
            }
            Trouble::Die => self.node_dies(),
        }
    }

    /// What is over is over.
    pub fn weather_changes(&mut self) {
        let now = self.now;
        let is_over = |until: &mut Millis| *until <= now;
        if self.weather.paused_until.take_if(is_over).is_some() {
            self.redis.pause(false);
        }
        if let Some((_, fate)) = self.weather.down_until.take_if(|(until, _)| *until <= now) {
            self.redis.go_on(fate);
        }
        if self.weather.refuses_until.take_if(is_over).is_some() {
            self.redis.refuse(false);
        }
        if self.weather.split_until.take_if(is_over).is_some() {
            self.redis.end_old();
        }
    }

    /// All trouble ends.
    pub fn clear_up(&mut self) {
        let Weather { paused_until, down_until, refuses_until, split_until, flushes: _ } = &mut self.weather;
        for until in [paused_until, refuses_until, split_until].into_iter().flatten() {
            *until = self.now;
        }
        if let Some((until, _)) = down_until {
            *until = self.now;
        }
        self.weather_changes();
        self.nodes.iter_mut().for_each(|node| node.stalled_until = Millis(0));
    }

    fn trouble_a_line(&mut self, trouble: Trouble) {
        let is_commands = matches!(trouble, Trouble::LoseCommands | Trouble::SilenceCommands);
        let lines = self.redis.wanted(is_commands);
        let Some(&line) = self.random.choice(&lines) else { return };
        match trouble {
            Trouble::SilenceCommands | Trouble::SilenceSubscriber => {
                self.redis.silence(line);
                self.tally.count("a connection fell silent");
            }
            _ => {
                self.redis.lose(line);
                self.tally.count("a connection was lost");
            }
        }
    }

    fn restart(&mut self, fate: Fate, until: Option<Millis>) {
        if self.weather.down_until.is_some() {
            return;
        }
        self.redis.stop();
        self.weather.down_until = until.map(|until| (until, fate));
        self.tally.count("Redis was restarted");
    }

    /// A node is gone with all its clients; another takes its place.
    fn node_dies(&mut self) {
        let at = self.random.usize(0..self.nodes.len());
        self.tally.count("a node died");
        self.redis.forsake(self.nodes[at].at);
        for guest in 0..self.guests.len() {
            if self.guests[guest].node == at && self.guests[guest].phase != Phase::Over {
                self.over(guest);
            }
        }
        self.nodes[at] = Node::new(&self.plan, self.nodes_ever, self.now);
        self.nodes_ever += 1;
    }
}
