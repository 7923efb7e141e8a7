//! A peer at one moment, in numbers: what is read when somebody asks, and not counted.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, EncodeMetric, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Unit;
use protocol::Peer;

use super::process::Process;
use super::words;
use crate::handle::{NodeHandle, Unavailable};
use crate::hosting::volume::Resident;
use crate::net::Snapshot;

/// Everything that is read at once.
#[derive(Debug)]
pub(crate) struct Reading {
    network: Snapshot,
    books: Books,
    models: Vec<Model>,
    process: Process,
}

/// What the driver knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Books {
    /// Jobs of this peer, by where they stand: awaiting, seeking, running.
    jobs: [(&'static str, usize); 3],
    /// Agents at work.
    runs: usize,
    /// Agents on offer.
    agents: usize,
    /// Everything that others ever owed us, and we them, in micro-credits.
    earned: u64,
    spent: u64,
    /// Answers that went on with another provider although theirs came later.
    hasty: u64,
    /// Facts of peers that are known now, by kind.
    facts: BTreeMap<&'static str, u64>,
}

impl Books {
    /// What a peer has in its books, beside its jobs.
    pub(crate) fn of(peer: &Peer, agents: usize) -> Self {
        let sum = |credits: &mut dyn Iterator<Item = u64>| credits.fold(0, u64::saturating_add);
        let mut facts = BTreeMap::new();
        for known in peer.reputation().peers() {
            for (evidence, count) in peer.reputation().counts(&known) {
                *facts.entry(words::evidence(evidence)).or_default() += u64::from(count);
            }
        }
        Self {
            agents,
            earned: sum(&mut peer.ledger().accounts().map(|(_, account)| account.earned.0)),
            spent: sum(&mut peer.ledger().accounts().map(|(_, account)| account.spent.0)),
            hasty: peer.takeovers().hasty,
            facts,
            ..Self::default()
        }
    }

    /// The same with what is under way.
    pub(crate) fn with(self, jobs: [(&'static str, usize); 3], runs: usize) -> Self {
        Self { jobs, runs, ..self }
    }
}

/// One model of this peer.
#[derive(Debug)]
struct Model {
    name: String,
    resident: Option<Resident>,
}

impl Reading {
    /// Reads a peer.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn of(node: &NodeHandle) -> Result<Self, Unavailable> {
        let (network, books) = (node.snapshot().await?, node.books().await?);
        let mut models: Vec<Model> = Vec::new();
        for hosted in node.agents().hosted() {
            let name = hosted.volume().name().to_owned();
            if models.iter().all(|known| known.name != name) {
                models.push(Model { name, resident: hosted.resident().await });
            }
        }
        Ok(Self { network, books, models, process: Process::look() })
    }
}

impl Collector for Reading {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        let build = [("version", env!("CARGO_PKG_VERSION"))];
        let info = Info::new(build);
        info.encode(page.0.encode_descriptor("llamesh_build", "This build.", None, MetricType::Info)?)?;
        self.network(&mut page)?;
        self.books(&mut page)?;
        self.models(&mut page)?;
        self.process(&mut page)
    }
}

impl Reading {
    fn network(&self, page: &mut Page<'_>) -> fmt::Result {
        let mut connections = BTreeMap::new();
        for direction in ["inbound", "outbound"] {
            for transport in ["quic", "tcp"] {
                connections.insert((direction, transport), 0_usize);
            }
        }
        for peer in &self.network.peers {
            let key = (words::direction(peer.direction), words::transport(peer.transport));
            *connections.entry(key).or_default() += 1;
        }
        let connected = connections.into_iter().map(|((direction, transport), count)| {
            ([("direction", direction), ("transport", transport)], count)
        });
        page.gauges(
            "llamesh_network_peers",
            "Connected peers, by who dialled and what carries it",
            connected,
        )?;
        let routing = self.network.routing_table;
        page.gauge("llamesh_network_routing_table_peers", "Peers in the routing table", None, routing)?;
        page.gauge("llamesh_network_sessions", "Open sessions, both ways", None, self.network.sessions)
    }

    fn books(&self, page: &mut Page<'_>) -> fmt::Result {
        let books = &self.books;
        let jobs = books.jobs.map(|(state, count)| ([("state", state)], count));
        page.gauges("llamesh_jobs_open", "Jobs of this peer that are not over", jobs)?;
        page.gauge("llamesh_jobs_runs_open", "Jobs that agents of this peer work on", None, books.runs)?;
        page.gauge("llamesh_agents", "Agents on offer", None, books.agents)?;
        let help = "Takeovers from providers that were only slow";
        page.counter("llamesh_jobs_hasty_takeovers", help, None, books.hasty)?;
        let help = "What others ever owed this peer, by its books";
        page.gauge("llamesh_ledger_earned_microcredits", help, None, books.earned)?;
        let help = "What this peer ever owed others, by its books";
        page.gauge("llamesh_ledger_spent_microcredits", help, None, books.spent)?;
        let facts = books.facts.iter().map(|(kind, count)| ([("kind", *kind)], *count));
        page.gauges("llamesh_reputation_facts", "Facts that are known of other peers, of all together", facts)
    }

    fn models(&self, page: &mut Page<'_>) -> fmt::Result {
        let loaded = self
            .models
            .iter()
            .map(|model| ([("model", model.name.as_str())], u64::from(model.resident.is_some())));
        page.gauges("llamesh_engine_model_loaded", "Whether a model is in memory", loaded)?;
        let workers: Vec<_> = self.models.iter().filter_map(Model::worker).collect();
        let mut gauge = |name, help, value: fn(&Work) -> u64| {
            page.gauges(name, help, workers.iter().map(|(name, work)| ([("model", *name)], value(work))))
        };
        gauge("llamesh_engine_slots", "Jobs that can run at once", |work| work.load.slots as u64)?;
        gauge("llamesh_engine_running", "Jobs that get steps", |work| work.load.running as u64)?;
        gauge("llamesh_engine_queued", "Jobs that wait for a slot", |work| work.load.waiting as u64)?;
        gauge("llamesh_engine_cache_pages", "Pages of caches that are held", |work| work.pages)?;
        gauge("llamesh_engine_cache_bytes", "Bytes of these pages", |work| work.bytes)?;
        let mut counter = |name, help, value: fn(&Work) -> u64| {
            page.counters(
                name,
                help,
                None,
                workers.iter().map(|(name, work)| ([("model", *name)], value(work))),
            )
        };
        let help = "Passes through the model: tokens by passes is the size of a batch";
        counter("llamesh_engine_passes", help, |work| work.tally.passes)?;
        counter("llamesh_engine_tokens", "Tokens that were read in passes", |work| work.tally.rows)?;
        let help = "Tokens that need not be read because they had been before";
        counter("llamesh_engine_reused_tokens", help, |work| work.tally.reused)?;
        counter("llamesh_engine_prefix_hits", "Jobs that found a part read", |work| work.tally.hits)?;
        counter("llamesh_engine_prefix_misses", "Jobs that found nothing read", |work| work.tally.misses)?;
        counter("llamesh_engine_preempted", "Jobs set back for want of memory", |work| work.tally.preempted)?;
        let help = "Kept prefixes that were given up for want of memory";
        counter("llamesh_engine_evicted", help, |work| work.tally.evicted)?;
        let busy = workers.iter().map(|(name, work)| ([("model", *name)], work.tally.busy.as_secs_f64()));
        page.counters("llamesh_engine_pass", "How long all passes took together", Some(Unit::Seconds), busy)
    }

    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let Process { resident, cpu, files, started } = self.process;
        if let Some(bytes) = resident {
            page.gauge("process_resident_memory", "Memory of the process", Some(Unit::Bytes), bytes)?;
        }
        if let Some(cpu) = cpu {
            let help = "Time of processors";
            page.counter("process_cpu", help, Some(Unit::Seconds), cpu.as_secs_f64())?;
        }
        if let Some(files) = files {
            page.gauge("process_open_fds", "Open files and sockets", None, files)?;
        }
        if let Some(started) = started {
            page.gauge(
                "process_start_time",
                "When the process began, since 1970",
                Some(Unit::Seconds),
                started,
            )?;
        }
        Ok(())
    }
}

/// What a model's worker has done and has to do.
struct Work {
    load: inference::Load,
    tally: inference::Tally,
    pages: u64,
    bytes: u64,
}

impl Model {
    fn worker(&self) -> Option<(&str, Work)> {
        let Some(Resident::Language(worker)) = &self.resident else { return None };
        let cache = worker.engine().cache();
        let pages = cache.map_or(0, |cache| cache.pages as u64);
        let bytes = cache.map_or(0, |cache| pages.saturating_mul(cache.page_bytes as u64));
        Some((&self.name, Work { load: worker.load(), tally: worker.tally(), pages, bytes }))
    }
}

/// Where metrics are written.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: impl EncodeGaugeValue,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let encoder = self.0.encode_descriptor(name, &help, unit.as_ref(), MetricType::Gauge)?;
        ConstGauge::new(value).encode(encoder)
    }

    fn counter(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        value: impl EncodeCounterValue,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let encoder = self.0.encode_descriptor(name, &help, unit.as_ref(), MetricType::Counter)?;
        ConstCounter::new(value).encode(encoder)
    }

    fn gauges<L: EncodeLabelSet, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let encoder = self.0.encode_descriptor(name, &help, None, MetricType::Gauge)?;
        family(encoder, values.into_iter().map(|(labels, value)| (labels, ConstGauge::new(value))))
    }

    fn counters<L: EncodeLabelSet, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (L, V)>,
    ) -> fmt::Result {
        let help = format!("{help}.");
        let encoder = self.0.encode_descriptor(name, &help, unit.as_ref(), MetricType::Counter)?;
        family(encoder, values.into_iter().map(|(labels, value)| (labels, ConstCounter::new(value))))
    }
}

/// One line for each set of labels.
fn family<L: EncodeLabelSet>(
    mut encoder: MetricEncoder<'_>,
    values: impl Iterator<Item = (L, impl EncodeMetric)>,
) -> fmt::Result {
    for (labels, value) in values {
        value.encode(encoder.encode_family(&labels)?)?;
    }
    Ok(())
}
