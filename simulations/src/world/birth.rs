//! How a world begins: keys, speeds and prices are drawn, and all that the scenario plans goes into the queue.

use super::*;
use crate::engine::Pace;
use crate::host::Disk;
use crate::scenario::{Group, Offer, Span};
use crypto::{Digest, SecretKey};
use protocol::profile::{LatencyClass, Speed};
use protocol::{AgentOffer, Credits, JobKind, ModelOffer, Price};

/// Hosts come up within so many milliseconds.
const DAWN: u64 = 1000;
/// Context of every simulated model: no job here is too long.
const CONTEXT: u32 = 1 << 20;

impl<'a> World<'a> {
    /// A world in which nothing has happened yet.
    #[must_use]
    pub fn new(scenario: &'a Scenario, seed: u64) -> Self {
        let network = Network::default();
        let mut world = Self {
            scenario,
            seed,
            now: BEGINNING,
            queue: BTreeMap::new(),
            sequence: 0,
            happened: 0,
            hosts: Vec::new(),
            names: BTreeMap::new(),
            groups: BTreeMap::new(),
            links: Links::new(scenario.network, seed),
            streams: Streams::default(),
            fuses: BTreeMap::new(),
            calls: BTreeMap::new(),
            index: BTreeMap::new(),
            jobs: Jobs::new(),
            chance: Chance::of(seed, "world"),
            watch: Watch::new(network.clone()),
            history: History::new(),
        };
        world.populate(&network);
        world.plan();
        world
    }

    fn populate(&mut self, network: &Network) {
        let mut chance = Chance::of(self.seed, "hosts");
        for group in &self.scenario.peers {
            for _ in 0..group.count {
                let disk = draw_disk(&mut chance, network, group, self.scenario.network.skew);
                self.settle_in(disk, &group.name);
            }
        }
    }

    fn settle_in(&mut self, disk: Disk, group: &'a str) {
        let (id, host) = (HostId(self.hosts.len()), Host::new(disk));
        self.names.insert(host.peer_id(), id);
        self.groups.entry(group).or_default().push(id);
        self.hosts.push(host);
        // Spread out, so that no order of rising is built into every history.
        let dawn = self.now.after(self.chance.below(DAWN));
        self.later(dawn, Happening::Rise(id));
    }

    /// Times are known from the start, who is hit is not: that depends on who is there by then.
    fn plan(&mut self) {
        let scenario = self.scenario;
        for (index, batch) in scenario.jobs.iter().enumerate() {
            for turn in 0..batch.count as u64 {
                let at = BEGINNING.after(batch.at + turn * batch.every);
                self.later(at, Happening::Submit(index));
            }
        }
        for (index, fault) in scenario.faults.iter().enumerate() {
            self.later(BEGINNING.after(fault.at()), Happening::Fault(index));
        }
    }
}

fn draw_disk(chance: &mut Chance, network: &Network, group: &Group, skew: u64) -> Disk {
    let key = SecretKey::from_seed(&chance.bytes());
    let skew = chance.between(0, skew);
    let (offers, pace) = match &group.offer {
        Some(offer) => draw_offer(chance, &group.name, offer),
        None => (Vec::new(), Pace { prefill: 1, decode: 1, slots: 1 }),
    };
    Disk { network: network.clone(), key, offers, pace, skew, journal: Vec::new() }
}

fn draw_offer(chance: &mut Chance, name: &str, offer: &Offer) -> (Vec<AgentOffer>, Pace) {
    let mut rate = |Span { min, max }| u32::try_from(chance.between(min, max)).unwrap_or(u32::MAX);
    // What is advertised is what the engine does: everybody here is honest.
    let pace = Pace { prefill: rate(offer.prefill), decode: rate(offer.decode), slots: offer.slots };
    let price = Credits(chance.between(offer.price.min, offer.price.max));
    let offer = AgentOffer {
        agent: name.to_owned(),
        capability: offer.capability.clone(),
        kinds: vec![JobKind::Generate],
        model: Some(ModelOffer {
            name: offer.model.clone(),
            digest: Digest::of_content(offer.model.as_bytes()),
            manifest: false,
            engine: "simulated/1".to_owned(),
            context: CONTEXT,
        }),
        price: Price { prompt: price, completion: price },
        speed: Speed { prefill: pace.prefill, decode: pace.decode, latency: LatencyClass::Moderate },
        languages: Vec::new(),
        modalities: vec!["text".to_owned()],
        tools: Vec::new(),
    };
    (vec![offer], pace)
}
