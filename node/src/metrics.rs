//! What a peer counts of itself, for whoever watches many of them: Prometheus reads it at `/metrics`.
//!
//! Two kinds. What *happens* is counted where the driver and the network hear of it or do it, in atomics that everybody
//! shares. What *is* (connections, queues, books, memory) is read when somebody asks, as one [`Reading`].
//!
//! A label's values are words of this program, or names that the owner gave to models. Nothing that a stranger chooses is
//! ever a label: nobody can make a peer's metrics grow, or read in them with whom it deals.
//!
//! | module | concern |
//! |---|---|
//! | [`api`], [`jobs`], [`market`], [`network`] | what happens, by room |
//! | [`reading`], [`process`] | what is: of the peer, and of its process |
//! | [`words`] | labels for the variants of foreign enums |

pub(crate) mod api;
pub(crate) mod jobs;
pub(crate) mod market;
pub(crate) mod network;
mod process;
pub(crate) mod reading;
pub(crate) mod words;

use std::fmt;
use std::sync::Arc;

use prometheus_client::encoding::text;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use self::reading::Reading;

/// How long somebody waits: from a pause that nobody notices to the deadline of a job, in seconds.
const WAITS: [f64; 18] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 120.0, 300.0,
    600.0,
];

/// All that is counted. Clones are one.
#[derive(Clone, Default)]
pub(crate) struct Metrics(Arc<Rooms>);

/// The counters of each room, and the registry that knows their names.
pub(crate) struct Rooms {
    registry: Registry,
    pub(crate) api: api::Api,
    pub(crate) jobs: jobs::Jobs,
    pub(crate) market: market::Market,
    pub(crate) network: network::Network,
}

impl Metrics {
    /// Everything as OpenMetrics text, with what `reading` says of this moment.
    ///
    /// # Errors
    /// None at present: a string takes everything.
    pub(crate) fn text(&self, reading: Reading) -> Result<String, fmt::Error> {
        let mut now = Registry::default();
        now.register_collector(Box::new(reading));
        let mut text = String::with_capacity(32 << 10);
        text::encode_registry(&mut text, &self.0.registry)?;
        text::encode_registry(&mut text, &now)?;
        text::encode_eof(&mut text)?;
        Ok(text)
    }
}

impl std::ops::Deref for Metrics {
    type Target = Rooms;

    fn deref(&self) -> &Rooms {
        &self.0
    }
}

impl Default for Rooms {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("llamesh");
        Self {
            api: api::Api::new(&mut Room { name: "api", registry: &mut registry }),
            jobs: jobs::Jobs::new(&mut Room { name: "jobs", registry: &mut registry }),
            market: market::Market::new(&mut Room { name: "market", registry: &mut registry }),
            network: network::Network::new(&mut Room { name: "network", registry: &mut registry }),
            registry,
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

/// Where a room's counters get their names.
pub(crate) struct Room<'a> {
    name: &'static str,
    registry: &'a mut Registry,
}

impl Room<'_> {
    /// A counter; its name ends in `_total`.
    fn counter(&mut self, name: &str, help: &str) -> Counter {
        let counter = Counter::default();
        self.registry.register(format!("{}_{name}", self.name), help, counter.clone());
        counter
    }

    /// Counters by one word.
    fn by(&mut self, name: &str, help: &str, label: &'static str, words: &[&'static str]) -> By {
        let by = By::of(label, words);
        self.registry.register(format!("{}_{name}", self.name), help, by.family.clone());
        by
    }

    /// Bytes by one word.
    fn bytes_by(&mut self, name: &str, help: &str, label: &'static str, words: &[&'static str]) -> By {
        let by = By::of(label, words);
        let name = format!("{}_{name}", self.name);
        self.registry.register_with_unit(name, help, Unit::Bytes, by.family.clone());
        by
    }

    /// How long something takes.
    fn seconds(&mut self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::new(buckets.iter().copied());
        let name = format!("{}_{name}", self.name);
        self.registry.register_with_unit(name, help, Unit::Seconds, histogram.clone());
        histogram
    }
}

/// Counters by one label, whose values are words of this program.
pub(crate) struct By {
    label: &'static str,
    family: Family<[(&'static str, &'static str); 1], Counter>,
}

impl By {
    /// Known words are there from the start, at zero: a rate of what has never happened is no gap.
    fn of(label: &'static str, words: &[&'static str]) -> Self {
        let by = Self { label, family: Family::default() };
        for word in words {
            by.add(word, 0);
        }
        by
    }

    /// Once more.
    pub(crate) fn one(&self, word: &'static str) {
        self.add(word, 1);
    }

    /// So many more.
    pub(crate) fn add(&self, word: &'static str, count: u64) {
        self.family.get_or_create(&[(self.label, word)]).inc_by(count);
    }
}
