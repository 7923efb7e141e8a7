//! When bids have stopped coming: one peer alone, to whom bids come when the test says.

use crypto::{Network, PeerId, Signed, Verified};
use protocol::event::{Command, InboundId, RequestId, Side, Submission};
use protocol::message::Bid;
use protocol::peer::Config;
use protocol::profile::Versions;
use protocol::{
    Event, Evidence, Frame, JobError, JobEvent, JobSpec, Output, Peer, Profile, Request, Response, Timestamp,
};

use crate::values::*;

/// Peer 1, whose job looks for a provider among puppets.
struct Alone {
    peer: Peer,
    now: Timestamp,
    outputs: Vec<Output>,
}

impl Alone {
    /// Everybody in `found` was found at the beginning.
    fn seeking(spec: JobSpec, found: &[u8], own: bool) -> Self {
        let peer = Peer::new(Config::default(), Network::default(), key(1));
        let mut alone = Self { peer, now: START, outputs: Vec::new() };
        if own {
            alone.tell(0, Event::Command(Command::Offer(vec![text_offer(900)])));
        }
        let submission = Submission { job: job_id(1), salt: SALT, spec, run: None, trace: None };
        alone.tell(0, Event::Command(Command::Submit(Box::new(submission))));
        alone.find(0, found);
        alone
    }

    fn tell(&mut self, at: u64, event: Event) {
        self.pass(at);
        self.peer.handle(self.now, event);
        self.drain();
    }

    /// Time passes until `at` milliseconds from the beginning, and what becomes due on the way is done in time.
    fn pass(&mut self, at: u64) {
        let end = START.after(at);
        while let Some(due) = self.peer.poll_timeout().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.peer.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
    }

    fn drain(&mut self) {
        self.outputs.extend(std::iter::from_fn(|| self.peer.poll_output()));
    }

    fn find(&mut self, at: u64, seeds: &[u8]) {
        let profiles = seeds.iter().map(|seed| profile(*seed, START.after(at))).collect();
        let mut outputs = self.outputs.iter().rev();
        let query =
            outputs.find_map(|o| if let Output::Discover { query, .. } = o { Some(*query) } else { None });
        let query = query.expect("a search");
        self.tell(at, Event::Discovered { query, profiles });
    }

    /// Who was asked, with what each answer must repeat.
    fn asked(&self) -> Vec<(PeerId, RequestId)> {
        let asks = self.outputs.iter();
        asks.filter_map(|o| if let Output::Request { id, to, .. } = o { Some((*to, *id)) } else { None })
            .collect()
    }

    /// The answer to the first ask that is not answered yet.
    fn quote(&mut self, at: u64, seed: u8, nth: usize) {
        let asked = self.asked();
        let (_, id) = asked.iter().filter(|(to, _)| *to == peer(seed)).nth(nth).expect("it was asked");
        let answer = Some(Response::Bid(signed(seed, at)));
        self.tell(at, Event::Answer { id: *id, from: peer(seed), answer });
    }

    fn seal(&mut self, at: u64, seed: u8) {
        let request = Request::Bid(signed(seed, at));
        self.tell(at, Event::Request { from: peer(seed), inbound: InboundId(0), request });
    }

    fn started(&self) -> usize {
        let notices = self.outputs.iter();
        notices.filter(|o| matches!(o, Output::Notify { event: JobEvent::Started { .. }, .. })).count()
    }

    fn bids(&self) -> usize {
        let notices = self.outputs.iter();
        notices.filter(|o| matches!(o, Output::Notify { event: JobEvent::Bid(..), .. })).count()
    }

    /// The award comes at that moment, and not before.
    fn awards_at(&mut self, at: u64) {
        self.pass(at - 1);
        assert_eq!(self.started(), 0);
        self.pass(at);
        assert_eq!(self.started(), 1);
    }
}

fn profile(seed: u8, issued: Timestamp) -> Verified<Profile> {
    let versions = Versions { min: 1, max: 1 };
    let profile = Profile { versions, agents: vec![text_offer(1000)], issued, expires: issued.after(1000) };
    Signed::sign(&Network::default(), &key(seed), profile)
}

fn signed(seed: u8, at: u64) -> Signed<Bid> {
    let expires = START.after(at + 5_000);
    let bid = Bid { job: job_id(1), requester: peer(1), offer: text_offer(1000), queue: 0, expires };
    Signed::sign(&Network::default(), &key(seed), bid).into_signed()
}

#[test]
fn after_the_first_quote_the_others_have_twice_its_time() {
    let mut alone = Alone::seeking(spec(), &[2, 3, 4], false);
    alone.quote(30, 2, 0);
    alone.quote(89, 3, 0);
    alone.awards_at(90);
    let mut quick = Alone::seeking(spec(), &[2, 3, 4], false);
    quick.quote(1, 2, 0);
    quick.awards_at(21);
    let mut slow = Alone::seeking(spec(), &[2, 3, 4], false);
    slow.quote(2_400, 2, 0);
    slow.awards_at(2_500);
}

#[test]
fn who_is_only_slow_has_done_no_wrong_and_who_is_silent_to_the_end_has() {
    let mut alone = Alone::seeking(spec(), &[2, 3, 4], false);
    alone.quote(1, 2, 0);
    alone.awards_at(21);
    alone.quote(22, 3, 0);
    assert_eq!((alone.bids(), alone.started()), (1, 1), "too late to count");
    assert_eq!(alone.peer.reputation().peers().count(), 0);

    let mut alone = Alone::seeking(spec(), &[2, 3], false);
    alone.pass(2_500);
    for seed in [2, 3] {
        let counts: Vec<_> = alone.peer.reputation().counts(&peer(seed)).collect();
        assert_eq!(counts, [(Evidence::Unreachable, 1)]);
    }
}

#[test]
fn a_slow_answer_to_an_earlier_round_is_not_taken_for_a_second_one() {
    let mut alone = Alone::seeking(spec(), &[2, 3], false);
    alone.quote(1, 2, 0);
    alone.awards_at(21);
    let frame = Frame::Fail { job: job_id(1), error: JobError::Engine };
    alone.tell(30, Event::Frame { from: peer(2), side: Side::Requester, frame });
    alone.find(31, &[2, 3]);
    assert_eq!(alone.asked().iter().filter(|(to, _)| *to == peer(3)).count(), 2, "it is asked again");
    alone.quote(32, 3, 0);
    assert_eq!(alone.bids(), 1);
    alone.quote(33, 3, 1);
    assert_eq!((alone.bids(), alone.started()), (2, 2));
    assert_eq!(alone.peer.reputation().counts(&peer(3)).count(), 0);
}

#[test]
fn sealed_bids_end_when_they_stop_coming() {
    let mut alone = Alone::seeking(auction(), &[2, 3], false);
    for (at, seed) in [(5, 2), (12, 3), (38, 4)] {
        alone.seal(at, seed);
    }
    // 26 ms was the longest time between two: the next one has three times as long.
    alone.awards_at(116);
    alone.seal(116, 5);
    assert_eq!(alone.bids(), 3);
    assert_eq!(alone.peer.reputation().peers().count(), 0, "late is nobody's fault");
}

#[test]
fn without_a_bid_or_with_a_trickle_of_them_an_auction_closes_when_it_said() {
    let mut alone = Alone::seeking(auction(), &[2], false);
    let said = alone.outputs.iter().find_map(|o| match o {
        Output::Announce { announcement: protocol::Announcement::Job { closes, .. }, .. } => Some(*closes),
        _ => None,
    });
    assert_eq!(said, Some(START.after(800)), "bidders see the last moment");
    for seed in 2..9 {
        alone.seal(u64::from(seed) * 95, seed);
    }
    alone.awards_at(800);
}

#[test]
fn the_requesters_own_bid_shortens_nothing() {
    let mut alone = Alone::seeking(auction(), &[2], true);
    assert_eq!(alone.bids(), 1, "its own");
    alone.seal(300, 2);
    alone.awards_at(600);

    let mut alone = Alone::seeking(spec(), &[2, 3], true);
    assert_eq!(alone.bids(), 1);
    alone.quote(100, 2, 0);
    alone.awards_at(300);
}

#[test]
fn nobody_waits_for_bids_that_would_not_count() {
    let mut alone = Alone::seeking(auction(), &[2], false);
    (2..66).for_each(|seed| alone.seal(1, seed));
    assert_eq!((alone.bids(), alone.started()), (64, 1));
}
