//! What the market costs: `cargo bench -p llamesh-protocol --bench market -- [jobs|waiting]`.
//!
//! `jobs` is the machines' own work for whole jobs, two peers in one thread and no wire between them. Built in
//! `benches/unsigned`, with an ed25519 that believes everybody, it says what is left without signatures. `waiting` is the
//! time from found providers to an order, in virtual time, with fifty bidders at different distances.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a bench tells its numbers, or why there are none"
)]

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use crypto::{Digest, Network, Payload, PeerId, SecretKey, Signed, Verified};
use protocol::event::{Command, InboundId, Production, RequestId, Submission};
use protocol::job::Salt;
use protocol::peer::Config;
use protocol::profile::LatencyClass;
use protocol::receipt::{Rendering, prompt_digest};
use protocol::{
    Acknowledgement, AgentOffer, Capability, Choosing, Credits, Event, Finish, Input, JobEvent, JobId,
    JobKind, JobSpec, Limits, ModelOffer, Output, Peer, Preference, Price, Profile, Requirement, Response,
    Sampling, Speed, Timestamp, Token,
};

const START: Timestamp = Timestamp(1_700_000_000_000);

fn main() {
    match std::env::args().skip(1).find(|argument| argument != "--bench").as_deref() {
        Some("jobs") => jobs(),
        Some("waiting") => waiting(),
        _ => {
            jobs();
            waiting();
        }
    }
}

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn offer(completion: u64) -> AgentOffer {
    AgentOffer {
        agent: "writer".into(),
        capability: Capability::text_generation(),
        kinds: vec![JobKind::Generate],
        model: Some(ModelOffer {
            name: "tiny".into(),
            digest: Digest::of_content(b"tiny"),
            manifest: false,
            engine: "exact-1".into(),
            context: 2048,
        }),
        price: Price { prompt: Credits(0), completion: Credits(completion) },
        speed: Speed { prefill: 1000, decode: 50, latency: LatencyClass::Interactive },
        languages: vec!["en".into()],
        modalities: vec!["text".into()],
        tools: Vec::new(),
    }
}

fn submission(job: u64, now: Timestamp, choosing: Choosing) -> Event {
    let mut name = [0; 16];
    name[..8].copy_from_slice(&job.to_le_bytes());
    let capability = Capability::text_generation();
    let requirement = Requirement { capability, model: None, context: 0, ceiling: None };
    let limits = Limits { budget: Credits(1 << 40), depth: 0, children: 0, deadline: now.after(60_000) };
    let spec = JobSpec {
        kind: JobKind::Generate,
        requirement,
        provider: None,
        choosing,
        preference: Preference::default(),
        input: Input::Text("Say something of the length of a sentence or two, and no more.".into()),
        sampling: Sampling { max_tokens: MAX_TOKENS, ..Sampling::default() },
        limits,
        constraint: None,
        approval: Vec::new(),
        parent: None,
    };
    let submission = Submission { job: JobId(name), salt: Salt([7; 16]), spec, run: None, trace: None };
    Event::Command(Command::Submit(Box::new(submission)))
}

// --- The machines' own work.

/// Jobs of one measurement; they are submitted so many at once.
const JOBS: u64 = 256;
const AT_ONCE: u64 = 16;
/// Tokens that are ordered,
const MAX_TOKENS: u32 = 64;
/// and those of an answer.
const TOKENS: u32 = 8;
/// Measurements, each short enough that some are left alone by whatever else the machine does.
const ROUNDS: u64 = 200;

/// A requester and a provider, joined by nothing but a queue.
struct Pair {
    peers: [Peer; 2],
    queue: VecDeque<(usize, Event)>,
    found: Vec<Verified<Profile>>,
    now: Timestamp,
    done: u64,
    recorded: u64,
}

impl Pair {
    fn new() -> Self {
        let peers = [1, 2].map(|seed| Peer::new(Config::default(), Network::default(), key(seed)));
        let (queue, found) = (VecDeque::new(), Vec::new());
        let mut pair = Self { peers, queue, found, now: START, done: 0, recorded: 0 };
        pair.queue.push_back((1, Event::Command(Command::Offer(vec![offer(1000)]))));
        pair.settle();
        // It is fresh for as long as all the measurements take in virtual time.
        pair.found = vec![pair.peers[1].profile(START)];
        pair
    }

    /// Announces, bids, awards, works, settles.
    fn work(&mut self, jobs: u64, first: u64) {
        for wave in (first..first + jobs).step_by(AT_ONCE as usize) {
            let end = self.done + AT_ONCE;
            let wave = wave..wave + AT_ONCE;
            self.queue.extend(wave.map(|job| (0, submission(job, self.now, Choosing::Auction))));
            self.settle();
            while self.done < end {
                self.now = self.peers[0].poll_timeout().unwrap();
                self.peers[0].handle_timeout(self.now);
                self.drain(0);
                self.settle();
            }
        }
    }

    fn settle(&mut self) {
        while let Some((to, event)) = self.queue.pop_front() {
            self.peers[to].handle(self.now, event);
            self.drain(to);
        }
    }

    fn drain(&mut self, at: usize) {
        while let Some(output) = self.peers[at].poll_output() {
            self.perform(at, output);
        }
    }

    fn perform(&mut self, at: usize, output: Output) {
        let (from, other) = (self.peers[at].id(), 1 - at);
        let event = match output {
            Output::Announce { announcement, .. } => Event::Announced { from, announcement },
            Output::Discover { query, .. } => {
                let profiles = self.found.clone();
                return self.queue.push_back((at, Event::Discovered { query, profiles }));
            }
            Output::Frame { side, frame, .. } => Event::Frame { from, side: side.opposite(), frame },
            Output::Request { id, request, .. } => Event::Request { from, inbound: InboundId(id.0), request },
            Output::Respond { inbound, response } => {
                Event::Answer { id: RequestId(inbound.0), from, answer: Some(response) }
            }
            Output::Run(run) => {
                let produced = |production| (at, Event::Produced { run: run.run, production });
                return self.queue.extend(answer().map(produced));
            }
            Output::Notify { event: JobEvent::Done(_), .. } => return self.done += 1,
            Output::Record(_) => return self.recorded += 1,
            _ => return,
        };
        self.queue.push_back((other, event));
    }
}

fn answer() -> impl Iterator<Item = Production> {
    let prompt =
        Production::Prompt(Rendering { prompt: prompt_digest(&[1; 16]), tokens: 16, template_time: 0 });
    let token = |index| Production::from(Token { id: Some(index), text: " word".into() });
    let tokens = (0..TOKENS).map(token);
    [prompt].into_iter().chain(tokens).chain([Production::Finished(Finish::EndOfText)])
}

fn jobs() {
    let mut pair = Pair::new();
    pair.work(AT_ONCE, 0);
    let round = |round| {
        let start = Instant::now();
        pair.work(JOBS, round * JOBS);
        start.elapsed() / JOBS as u32
    };
    let mut rounds: Vec<_> = (1..=ROUNDS).map(round).collect();
    let jobs = ROUNDS * JOBS + AT_ONCE;
    assert_eq!((pair.done, pair.recorded), (jobs, 2 * jobs), "every job was done, and booked on both sides");
    rounds.sort_unstable();
    let with = if forgeries_pass() { "without" } else { "with" };
    // The quickest of all is what the machine does when it is left alone.
    for (what, time) in [("quickest", rounds[0]), ("median", rounds[rounds.len() / 2])] {
        println!("{with} signatures, {what}: {:.0} jobs/s, {time:?} a job", 1.0 / time.as_secs_f64());
    }
}

/// Whether anybody may say anything in anybody's name, as in `benches/unsigned`.
fn forgeries_pass() -> bool {
    let network = Network::default();
    let said = Signed::sign(&network, &key(1), Acknowledgement { receipt: Digest::of_content(b"one") });
    let other = Acknowledgement { receipt: Digest::of_content(b"another") }.encode();
    let forged = Signed::<Acknowledgement>::from_parts(said.signer(), other, *said.signed().signature());
    forged.verify(&network).is_ok()
}

// --- Waiting for bids.

/// Who could do it.
const BIDDERS: u8 = 50;
/// Jobs of one measurement.
const AUCTIONS: u64 = 400;

/// A requester and its bidders, each at its own distance.
struct Mesh {
    peers: Vec<Peer>,
    /// Milliseconds from the requester, one way.
    distances: Vec<u64>,
    prices: Vec<u64>,
    /// What happens when, to whom.
    queue: BTreeMap<(Timestamp, u64), (usize, Event)>,
    sent: u64,
    now: Timestamp,
}

impl Mesh {
    fn new(farthest: u64, chance: &mut Chance) -> Self {
        let peer = |seed| Peer::new(Config::default(), Network::default(), key(seed));
        let distances = (0..=BIDDERS).map(|_| 1 + chance.below(farthest)).collect();
        let prices: Vec<_> = (0..=BIDDERS).map(|_| 1000 + chance.below(1000)).collect();
        let (queue, sent, now) = (BTreeMap::new(), 0, START);
        let mut mesh =
            Self { peers: (1..=1 + BIDDERS).map(peer).collect(), distances, prices, queue, sent, now };
        for at in 1..mesh.peers.len() {
            let offers = Event::Command(Command::Offer(vec![offer(mesh.prices[at])]));
            mesh.peers[at].handle(START, offers);
            while mesh.peers[at].poll_output().is_some() {}
        }
        mesh
    }

    /// Milliseconds until somebody is chosen, bids until then, and whether nobody would have been cheaper.
    fn choose(&mut self, job: u64, choosing: Choosing) -> (u64, u64, bool) {
        let found = self.peers[1..].iter().map(|peer| peer.profile(self.now)).collect();
        self.peers[0].handle(self.now, submission(job, self.now, choosing));
        let query = std::iter::from_fn(|| self.peers[0].poll_output())
            .find_map(|o| if let Output::Discover { query, .. } = o { Some(query) } else { None });
        self.peers[0].handle(self.now, Event::Discovered { query: query.unwrap(), profiles: found });
        let (start, mut bids) = (self.now, 0);
        loop {
            for event in self.drain() {
                match event {
                    JobEvent::Bid(..) => bids += 1,
                    JobEvent::Started { offer, .. } => {
                        // What counts is what the job costs, and that is rounded up.
                        let cost = |price: u64| (price * u64::from(MAX_TOKENS)).div_ceil(1000);
                        let cheapest = self.prices[1..].iter().map(|price| cost(*price)).min();
                        let best = Some(cost(offer.price.completion.0)) == cheapest;
                        return (self.now.since(start), bids, best);
                    }
                    _ => {}
                }
            }
            self.step();
        }
    }

    /// The next message arrives, or the requester's time is up.
    fn step(&mut self) {
        let due = self.peers[0].poll_timeout().unwrap();
        let next = self.queue.first_key_value().map(|((at, _), _)| *at);
        match next.filter(|at| *at <= due) {
            Some(at) => {
                let (_, (to, event)) = self.queue.pop_first().unwrap();
                self.now = at;
                self.peers[to].handle(at, event);
            }
            None => {
                self.now = due;
                self.peers[0].handle_timeout(due);
            }
        }
    }

    /// Sends what everybody wants sent, and returns what the requester's user is told.
    fn drain(&mut self) -> Vec<JobEvent> {
        let mut told = Vec::new();
        for at in 0..self.peers.len() {
            while let Some(output) = self.peers[at].poll_output() {
                let from = self.peers[at].id();
                match output {
                    Output::Announce { announcement, .. } => {
                        for to in 1..self.peers.len() {
                            let announcement = announcement.clone();
                            self.send(at, to, Event::Announced { from, announcement });
                        }
                    }
                    Output::Notify { event, .. } => told.push(event),
                    Output::Request { id, to, request } => {
                        let to = self.index(to);
                        self.send(at, to, Event::Request { from, inbound: InboundId(id.0), request });
                    }
                    Output::Respond { inbound, response: response @ Response::Bid(_) } => {
                        let id = RequestId(inbound.0);
                        self.send(at, 0, Event::Answer { id, from, answer: Some(response) });
                    }
                    _ => {}
                }
            }
        }
        told
    }

    fn index(&self, id: PeerId) -> usize {
        self.peers.iter().position(|peer| peer.id() == id).unwrap()
    }

    /// Everything goes to the requester or comes from it.
    fn send(&mut self, from: usize, to: usize, event: Event) {
        let at = self.now.after(self.distances[from.max(to)]);
        self.sent += 1;
        self.queue.insert((at, self.sent), (to, event));
    }
}

fn waiting() {
    println!("{BIDDERS} bidders, {AUCTIONS} jobs: median, 95 % and longest time until somebody is chosen");
    for (name, farthest) in [("round trips of 2-30 ms", 15), ("one way 1-30 ms", 30)] {
        for choosing in [Choosing::Direct, Choosing::Auction] {
            let mut chance = Chance(1);
            let mut outcomes: Vec<_> =
                (0..AUCTIONS).map(|job| Mesh::new(farthest, &mut chance).choose(job, choosing)).collect();
            outcomes.sort_unstable();
            let at = |part: usize| outcomes[(outcomes.len() - 1) * part / 100].0;
            let bids = outcomes.iter().map(|(_, bids, _)| bids).sum::<u64>() as f64 / AUCTIONS as f64;
            let best = 100 * outcomes.iter().filter(|(_, _, best)| *best).count() as u64 / AUCTIONS;
            println!(
                "{name}, {choosing:?}: {} / {} / {} ms, {bids:.1} bids, the cheapest of all in {best} %",
                at(50),
                at(95),
                at(100),
            );
        }
    }
}

/// Splitmix64: the same meshes in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % end
    }
}
