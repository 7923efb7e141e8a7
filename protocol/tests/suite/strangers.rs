//! Everything that a stranger's bytes reach: some thousand inputs each, made of honest ones. All end in a value or an error.

use crypto::Payload;
use protocol::ledger::Direction;
use protocol::message::Bid;
use protocol::plan::Plan;
use protocol::{Acknowledgement, Credits, Entry, Message, Order, Price, Profile, Receipt, Scores, Segment};

use crate::mutation::Mutator;
use crate::samples;

/// Inputs for each parser.
const INPUTS: usize = 4000;

/// Shows mutations of `honest`, and plain noise, to a parser; returns how many of them it could read.
fn show(seed: u64, honest: &[Vec<u8>], reads: impl Fn(&[u8]) -> bool) -> usize {
    for whole in honest {
        assert!(reads(whole), "what is honest is read");
    }
    let mut mutator = Mutator::new(seed);
    let mut readable = 0;
    for number in 0..INPUTS {
        let bytes = if number % 8 == 0 { mutator.noise(300) } else { mutator.mutated(honest) };
        readable += usize::from(reads(&bytes));
    }
    readable
}

fn messages<M: Message>(seed: u64, honest: &[M]) {
    let honest: Vec<_> = honest.iter().map(Message::to_bytes).collect();
    let readable = show(seed, &honest, |bytes| M::from_bytes(bytes).is_ok());
    assert!(readable > 0, "mutations must get past the first byte to mean anything");
}

#[test]
fn frames_and_other_messages() {
    messages(1, &samples::frames().map(|(_, frame)| frame));
    messages(2, &samples::requests().map(|(_, request)| request));
    messages(3, &samples::responses().map(|(_, response)| response));
    messages(4, &samples::announcements().map(|(_, announcement)| announcement));
}

/// What is decoded only after its signature held is decoded here without one: a signer may be hostile, too.
fn payloads<T: Payload>(seed: u64, honest: &T) {
    let readable = show(seed, &[honest.encode()], |bytes| T::decode(bytes).is_ok());
    assert!(readable > 0);
}

#[test]
fn profiles_bids_orders_and_receipts() {
    payloads::<Profile>(11, samples::profile().value());
    payloads::<Bid>(12, samples::bid().value());
    payloads::<Order>(13, samples::order().value());
    payloads::<Segment>(14, samples::segment().value());
    payloads::<Receipt>(15, samples::receipt().value());
    payloads::<Acknowledgement>(16, samples::acknowledgement().value());
}

#[test]
fn entries_of_the_journal() {
    let receipt = samples::receipt();
    let (peer, amount) = (receipt.requester, Credits(5));
    let entry = Entry { receipt: receipt.digest(), peer, direction: Direction::Spent, amount };
    assert!(show(17, &[entry.to_bytes()], |bytes| Entry::from_bytes(bytes).is_ok()) > 0);
}

/// A plan is read, checked, and priced; whatever it says, that ends soon.
fn plan(bytes: &[u8], read: impl Fn(&str) -> Option<Plan>) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Some(plan) = read(text) else { return false };
    if let Ok(checked) = plan.check() {
        checked.estimate(|_| Some(Price::default()));
    }
    true
}

#[test]
fn plans() {
    let files = ["best", "report", "tools"];
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/plans");
    let texts = files.map(|name| std::fs::read_to_string(format!("{folder}/{name}.toml")).unwrap());
    let toml: Vec<_> = texts.iter().map(|text| text.clone().into_bytes()).collect();
    show(21, &toml, |bytes| plan(bytes, |text| toml::from_str(text).ok()));
    let json = |text: &String| serde_json::to_vec(&toml::from_str::<Plan>(text).unwrap()).unwrap();
    let json: Vec<_> = texts.iter().map(json).collect();
    let readable = show(22, &json, |bytes| plan(bytes, |text| serde_json::from_str(text).ok()));
    assert!(readable > 0);
}

#[test]
fn answers_of_scores() {
    let honest = vec![serde_json::to_vec(&samples::scores()).unwrap()];
    let reads = |bytes: &[u8]| std::str::from_utf8(bytes).is_ok_and(|text| Scores::parse(text).is_some());
    assert!(show(31, &honest, reads) > 0);
}
