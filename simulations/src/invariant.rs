//! What must hold in every history, and the watch that sees to it.
//!
//! | while the world runs | when it is quiet |
//! |---|---|
//! | a debt is in the journal before anything that depends on it is sent or told | what one says it earned, the other says it spent; what is missing was lost on a wire |
//! | no prompt in anything but a [`Frame::Start`], and that only to the provider of its order | the books are the fold of the journal |
//! | every job ends once; nothing is told after that | every job has ended |
//! | every answer has a receipt that its opening lifts, and is what the model says | nothing runs for nobody |
//! | what a peer sends decodes; no honest peer is blocked | |

use std::collections::{BTreeMap, BTreeSet};

use crypto::{Digest, Network, PeerId};
use protocol::event::Completion;
use protocol::ledger::{Direction, Ledger};
use protocol::{Credits, Entry, Frame, JobEvent, JobId, Output, Timestamp};

use crate::engine::Answer;
use crate::host::{Host, HostId};
use crate::job::{End, Job, Jobs, MARKER};

/// Something that must not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// An honest peer was blocked.
    #[error("{0} blocked {1}, though everybody is honest: {2}")]
    Blocked(HostId, HostId, String),
    /// Books that are not what the journal says.
    #[error("the books of {0} are not the fold of its journal")]
    Books(HostId),
    /// An answer that is not what it is said to be.
    #[error("{0} was told that {1} is done, but {2}")]
    Completion(HostId, JobId, &'static str),
    /// A job that nobody was told the end of.
    #[error("{0} never ended")]
    Endless(JobId),
    /// News of a job after its last event.
    #[error("{0} went on after it had ended")]
    Late(JobId),
    /// Money from nowhere, or gone without a trace.
    #[error("of the receipt {0}, {1}")]
    Money(String, &'static str),
    /// Work or questions that are left over.
    #[error("{0} still has {1}, and nothing left to have it for")]
    Leftover(HostId, &'static str),
    /// A prompt where none may be.
    #[error("{0} sent a prompt in a message that is no start: {1}")]
    Prompt(HostId, &'static str),
    /// The world does not come to rest.
    #[error("the world never comes to rest")]
    Restless,
    /// A start for one peer, sent to another.
    #[error("{0} sent a start to a peer that is not the provider of its order")]
    Stray(HostId),
    /// Something depends on a debt that is not in the journal.
    #[error("{0} relied on the debt of receipt {1} before it was in the journal")]
    Unrecorded(HostId, String),
    /// Bytes that no peer would read.
    #[error("{0} sent a message that does not decode: {1}")]
    Undecodable(HostId, String),
}

/// Violations kept: the first few tell the story, the rest would only fill the memory.
const MAX_FOUND: usize = 64;

/// Watches a world.
#[derive(Debug)]
pub struct Watch {
    network: Network,
    found: Vec<(Timestamp, Violation)>,
    /// Receipts whose countersignature never arrived, or whose booking a crash forestalled.
    lost: BTreeSet<Digest>,
    unsettled: usize,
}

impl Watch {
    /// Begins to watch.
    #[must_use]
    pub fn new(network: Network) -> Self {
        Self { network, found: Vec::new(), lost: BTreeSet::new(), unsettled: 0 }
    }

    /// What was found so far, and when.
    #[must_use]
    pub fn found(&self) -> &[(Timestamp, Violation)] {
        &self.found
    }

    /// Debts that their creditor never learnt of. No violation where a wire or a crash is to blame, but a loss.
    #[must_use]
    pub fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Notes a violation.
    pub fn report(&mut self, now: Timestamp, violation: Violation) {
        if self.found.len() < MAX_FOUND {
            self.found.push((now, violation));
        }
    }

    /// A message leaves.
    pub fn on_message(&mut self, now: Timestamp, from: HostId, kind: &'static str, bytes: &[u8]) {
        if kind != "start" && holds(bytes, MARKER.as_bytes()) {
            self.report(now, Violation::Prompt(from, kind));
        }
    }

    /// A frame leaves `from` for `to`.
    pub fn on_frame(&mut self, now: Timestamp, (id, from): (HostId, &Host), to: PeerId, frame: &Frame) {
        match frame {
            Frame::Acknowledge { .. } => {
                let receipt = self.acknowledged(frame);
                let recorded = receipt.is_some_and(|receipt| is_recorded(from, receipt));
                if !recorded {
                    let receipt = receipt.map(|receipt| receipt.short()).unwrap_or_default();
                    self.report(now, Violation::Unrecorded(id, receipt));
                }
            }
            Frame::Start(start) => {
                let order = start.order.clone().verify(&self.network);
                if !order.is_ok_and(|order| order.provider == to) {
                    self.report(now, Violation::Stray(id));
                }
            }
            _ => {}
        }
    }

    /// A frame will not arrive.
    pub fn on_lost(&mut self, frame: &Frame) {
        if let Some(receipt) = self.acknowledged(frame) {
            self.lost.insert(receipt);
        }
    }

    /// A client has taken a job back, or is gone with all of them: nothing may go on for it from this moment.
    pub fn on_released(
        &mut self,
        now: Timestamp,
        (id, host): (HostId, &Host),
        client: PeerId,
        job: Option<JobId>,
    ) {
        if host.serves(client, job) {
            self.report(now, Violation::Leftover(id, "a run for nobody"));
        }
    }

    /// An output that a crash came before.
    pub fn on_swallowed(&mut self, output: &Output) {
        match output {
            Output::Frame { frame, .. } => self.on_lost(frame),
            Output::Record(entry) => drop(self.lost.insert(entry.receipt)),
            _ => {}
        }
    }

    /// A submitter is told something of its job.
    pub fn on_notice(&mut self, now: Timestamp, (name, job): (JobId, &Job), host: &Host, event: &JobEvent) {
        if job.end.is_some() {
            self.report(now, Violation::Late(name));
        }
        let JobEvent::Done(completion) = event else { return };
        if let Err(why) = self.check_completion(job, host, completion) {
            self.report(now, Violation::Completion(job.host, name, why));
        }
        let receipt = completion.receipt.digest();
        if !is_recorded(host, receipt) {
            self.report(now, Violation::Unrecorded(job.host, receipt.short()));
        }
    }

    /// Nothing is left to happen.
    pub fn on_quiet(&mut self, now: Timestamp, hosts: &[Host], jobs: &Jobs) {
        for name in jobs.iter().filter(|(_, job)| job.end.is_none()).map(|(name, _)| *name) {
            self.report(now, Violation::Endless(name));
        }
        for (index, host) in hosts.iter().enumerate() {
            self.check_host(now, HostId(index), host);
        }
        self.check_money(now, hosts);
    }

    fn check_completion(&self, job: &Job, host: &Host, done: &Completion) -> Result<(), &'static str> {
        let Completion { receipt, acknowledgement, opening } = done;
        let holds = |is: bool, why: &'static str| is.then_some(()).ok_or(why);
        holds(receipt.check_opening(opening).is_ok(), "the opening does not lift the receipt")?;
        holds(opening.input == job.spec.input, "the opening holds another input")?;
        holds(opening.output == job.output, "its submitter has read something else")?;
        holds(receipt.requester == host.peer_id(), "the receipt is for somebody else")?;
        let signed = acknowledgement.clone().verify(&self.network);
        let signed = signed.is_ok_and(|a| a.signer() == host.peer_id() && a.receipt == receipt.digest());
        holds(signed, "the countersignature is not the submitter's")?;
        let expected = Answer::to(receipt.model, &receipt.sampling, &job.spec.input);
        holds(expected.tokens().eq(job.output.iter().cloned()), "the model would not have said so")
    }

    fn check_host(&mut self, now: Timestamp, id: HostId, host: &Host) {
        let Some(peer) = host.peer() else { return };
        if host.load() > 0 {
            self.report(now, Violation::Leftover(id, "a run"));
        }
        if peer.poll_timeout().is_some() {
            self.report(now, Violation::Leftover(id, "a deadline"));
        }
        let mut books = Ledger::default();
        let replayed = host.journal().iter().all(|entry| books.apply(entry).is_ok());
        if !replayed || !books.accounts().eq(peer.ledger().accounts()) {
            self.report(now, Violation::Books(id));
        }
    }

    /// Receipt by receipt: nobody earns what nobody owes, and what is owed but not earned was lost on a wire or by
    /// a crash.
    fn check_money(&mut self, now: Timestamp, hosts: &[Host]) {
        let spent = booked(hosts, Direction::Spent);
        let earned = booked(hosts, Direction::Earned);
        let unowed = earned.iter().filter(|(receipt, claim)| spent.get(receipt) != Some(claim));
        let unowed: Vec<_> = unowed.map(|(receipt, _)| *receipt).collect();
        let unsettled = spent.keys().filter(|receipt| !earned.contains_key(receipt));
        let (excused, gone): (Vec<_>, Vec<_>) = unsettled.copied().partition(|r| self.lost.contains(r));
        self.unsettled = excused.len() + gone.len();
        for (receipts, what) in
            [(unowed, "somebody earned what nobody owes"), (gone, "nobody knows that it is owed")]
        {
            for receipt in receipts {
                self.report(now, Violation::Money(receipt.short(), what));
            }
        }
    }

    fn acknowledged(&self, frame: &Frame) -> Option<Digest> {
        let Frame::Acknowledge { acknowledgement, .. } = frame else { return None };
        acknowledgement.clone().verify(&self.network).ok().map(|acknowledgement| acknowledgement.receipt)
    }
}

impl End {
    /// What an event says of the end, if it is one.
    #[must_use]
    pub fn of(event: &JobEvent) -> Option<Self> {
        match event {
            JobEvent::Done(_) => Some(Self::Done),
            JobEvent::Failed(error) => Some(Self::Failed(error.code())),
            _ => None,
        }
    }
}

/// By receipt: who owes whom how much, in the books of all hosts, dead ones included.
fn booked(hosts: &[Host], direction: Direction) -> BTreeMap<Digest, (PeerId, PeerId, Credits)> {
    let entries = hosts.iter().flat_map(|host| host.journal().iter().map(|entry| (host.peer_id(), entry)));
    let entries = entries.filter(|(_, entry)| entry.direction == direction);
    let claim = |(own, entry): (PeerId, &Entry)| match direction {
        Direction::Earned => (entry.receipt, (entry.peer, own, entry.amount)),
        Direction::Spent => (entry.receipt, (own, entry.peer, entry.amount)),
    };
    entries.map(claim).collect()
}

fn is_recorded(host: &Host, receipt: Digest) -> bool {
    let debt = |entry: &Entry| entry.receipt == receipt && entry.direction == Direction::Spent;
    host.journal().iter().any(debt)
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use crypto::{SecretKey, Signed};
    use protocol::Acknowledgement;

    use super::*;
    use crate::engine::Pace;
    use crate::host::Disk;

    const NOW: Timestamp = Timestamp(1);

    fn host(seed: u8) -> Host {
        let pace = Pace { prefill: 1, decode: 1, slots: 1 };
        let (network, key) = (Network::default(), SecretKey::from_seed(&[seed; 32]));
        Host::new(Disk { network, key, offers: Vec::new(), pace, skew: 0, journal: Vec::new() })
    }

    fn entry(direction: Direction, with: &Host) -> Entry {
        let receipt = Digest::of("test", b"receipt");
        Entry { receipt, peer: with.peer_id(), direction, amount: Credits(5) }
    }

    /// The countersignature of the host with this seed under the one receipt of these tests.
    fn acknowledge(seed: u8) -> Frame {
        let acknowledgement = Acknowledgement { receipt: Digest::of("test", b"receipt") };
        let key = SecretKey::from_seed(&[seed; 32]);
        let acknowledgement = Signed::sign(&Network::default(), &key, acknowledgement).into_signed();
        Frame::Acknowledge { job: JobId([0; 16]), acknowledgement }
    }

    fn watch() -> Watch {
        Watch::new(Network::default())
    }

    #[test]
    fn a_prompt_belongs_in_a_start_only() {
        let (mut watch, leaky) = (watch(), format!("x{MARKER}y"));
        watch.on_message(NOW, HostId(0), "start", leaky.as_bytes());
        watch.on_message(NOW, HostId(0), "ask", b"innocent");
        assert!(watch.found().is_empty());
        watch.on_message(NOW, HostId(0), "ask", leaky.as_bytes());
        assert_eq!(watch.found(), [(NOW, Violation::Prompt(HostId(0), "ask"))]);
    }

    #[test]
    fn a_countersignature_needs_a_debt_in_the_journal() {
        let (mut watch, mut debtor, creditor) = (watch(), host(1), host(2));
        watch.on_frame(NOW, (HostId(0), &debtor), creditor.peer_id(), &acknowledge(1));
        assert!(matches!(watch.found(), [(_, Violation::Unrecorded(HostId(0), _))]));
        debtor.record(entry(Direction::Spent, &creditor));
        watch.on_frame(NOW, (HostId(0), &debtor), creditor.peer_id(), &acknowledge(1));
        assert_eq!(watch.found().len(), 1, "this time it was there");
    }

    #[test]
    fn money_comes_from_somebody_and_goes_to_somebody() {
        let (mut debtor, mut creditor) = (host(1), host(2));
        creditor.record(entry(Direction::Earned, &debtor));
        let mut from_nowhere = watch();
        from_nowhere.on_quiet(NOW, &[debtor, creditor], &Jobs::new());
        assert!(matches!(from_nowhere.found(), [(_, Violation::Money(..))]));

        (debtor, creditor) = (host(1), host(2));
        debtor.record(entry(Direction::Spent, &creditor));
        let hosts = [debtor, creditor];
        let mut gone = watch();
        gone.on_quiet(NOW, &hosts, &Jobs::new());
        assert!(matches!(gone.found(), [(_, Violation::Money(..))]));
        let mut lost = watch();
        lost.on_lost(&acknowledge(1));
        lost.on_quiet(NOW, &hosts, &Jobs::new());
        assert_eq!((lost.found().len(), lost.unsettled()), (0, 1), "a wire is to blame");
    }
}
