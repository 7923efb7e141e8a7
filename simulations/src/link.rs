//! The wires: how long a message takes from one host to another, and when it does not arrive at all.
//!
//! Every pair has a distance of its own, drawn once, and every message a jitter on top. All roads of Llamesh run over
//! reliable transports, so a lost packet is not a lost message but a retransmission later. What does lose messages is
//! a *cut*: while it lasts, nothing crosses it.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::chance::{Chance, MILLION};
use crate::host::HostId;
use crate::scenario::Span;

/// What the wires are like.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// One way between two hosts, in milliseconds.
    pub latency: Span,
    /// Added to each message, up to so many milliseconds.
    #[serde(default)]
    pub jitter: u64,
    /// Lost packets of a million.
    #[serde(default)]
    pub loss_per_million: u64,
    /// How far clocks may be ahead of the world's, in milliseconds.
    #[serde(default)]
    pub skew: u64,
}

/// How long a sender waits before it sends a lost packet again, in milliseconds; doubled each time.
const RETRANSMISSION: u64 = 200;
/// Retransmissions before the simulation has mercy: a link this bad is a cut, and cuts are said as such.
const MAX_RETRANSMISSIONS: u32 = 5;
/// Round trips of a DHT lookup or publication over a mesh of some thousand peers.
const LOOKUP_TRIPS: u64 = 3;
/// Neighbours of a host in the gossip's mesh.
const DEGREE: usize = 6;

/// All wires.
#[derive(Debug)]
pub struct Links {
    config: Config,
    seed: u64,
    chance: Chance,
    distances: BTreeMap<(HostId, HostId), u64>,
    cuts: BTreeMap<usize, BTreeSet<HostId>>,
}

impl Links {
    /// Whole wires.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        let chance = Chance::of(seed, "links");
        Self { config, seed, chance, distances: BTreeMap::new(), cuts: BTreeMap::new() }
    }

    /// How long the next message between two hosts takes; `None` while they are cut apart.
    pub fn delay(&mut self, a: HostId, b: HostId) -> Option<u64> {
        (!self.is_cut(a, b)).then(|| self.transit(a, b))
    }

    /// How long gossip takes: a few hops of the mesh, more where there are more hosts.
    pub fn gossip(&mut self, a: HostId, b: HostId, hosts: usize) -> Option<u64> {
        let hops = 1 + self.chance.below(u64::from(hosts.max(2).ilog(DEGREE)) + 1);
        (!self.is_cut(a, b)).then(|| (0..hops).map(|_| self.transit(a, b)).sum())
    }

    /// How long a lookup in the DHT, or a publication there, takes.
    pub fn lookup(&mut self) -> u64 {
        let Span { min, max } = self.config.latency;
        (0..2 * LOOKUP_TRIPS).map(|_| self.chance.between(min, max)).sum()
    }

    /// From now on nothing passes between `side` and everybody else.
    pub fn cut(&mut self, name: usize, side: BTreeSet<HostId>) {
        self.cuts.insert(name, side);
    }

    /// A cut is mended.
    pub fn heal(&mut self, name: usize) {
        self.cuts.remove(&name);
    }

    /// True while nothing passes between the two.
    #[must_use]
    pub fn is_cut(&self, a: HostId, b: HostId) -> bool {
        self.cuts.values().any(|side| side.contains(&a) != side.contains(&b))
    }

    fn transit(&mut self, a: HostId, b: HostId) -> u64 {
        let lost = (0..MAX_RETRANSMISSIONS).take_while(|_| self.chance.happens(self.config.loss_per_million));
        let waited: u64 = lost.map(|time| RETRANSMISSION << time).sum();
        self.distance(a, b) + self.chance.between(0, self.config.jitter) + waited
    }

    /// Drawn for each pair by itself: who talks first does not matter.
    fn distance(&mut self, a: HostId, b: HostId) -> u64 {
        let (seed, Span { min, max }) = (self.seed, self.config.latency);
        let (a, b) = (a.min(b), a.max(b));
        *self
            .distances
            .entry((a, b))
            .or_insert_with(|| Chance::of(seed, &format!("distance {a} {b}")).between(min, max))
    }
}

impl Config {
    /// True when no chance exceeds one.
    pub(crate) fn is_sound(&self) -> bool {
        self.latency.is_ordered() && self.loss_per_million <= MILLION
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links(loss_per_million: u64) -> Links {
        let config = Config { latency: Span { min: 10, max: 50 }, jitter: 5, loss_per_million, skew: 0 };
        Links::new(config, 3)
    }

    #[test]
    fn distance_is_the_pairs_own_and_symmetric() {
        let mut links = links(0);
        let distance = links.distance(HostId(1), HostId(2));
        assert_eq!(links.distance(HostId(2), HostId(1)), distance);
        let delays = (0..100).map(|_| links.delay(HostId(1), HostId(2)).unwrap());
        assert!(delays.into_iter().all(|delay| (distance..=distance + 5).contains(&delay)));
    }

    #[test]
    fn loss_is_delay_and_a_cut_is_silence() {
        let mut links = links(MILLION);
        assert!(links.delay(HostId(1), HostId(2)).unwrap() >= 31 * RETRANSMISSION);
        links.cut(0, BTreeSet::from([HostId(1)]));
        assert_eq!(links.delay(HostId(1), HostId(2)), None);
        assert!(links.delay(HostId(2), HostId(3)).is_some(), "both on one side");
        links.heal(0);
        assert!(links.delay(HostId(2), HostId(1)).is_some());
    }
}
