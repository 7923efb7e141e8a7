//! Bytes: every message comes back as it went, and no other bytes do any harm.

use std::fmt::Debug;

use proptest::prelude::*;
use protocol::codec::{DecodeError, MAX_MESSAGE, Message, VERSION};
use protocol::{Announcement, Entry, Frame, Request, Response};

use crate::any;

fn comes_back<M: Message + PartialEq + Debug>(message: &M) -> Result<(), TestCaseError> {
    let bytes = message.to_bytes();
    let back = M::from_bytes(&bytes);
    prop_assert_eq!(back.as_ref(), Ok(message));
    prop_assert!(M::from_bytes(&bytes[..bytes.len() - 1]).is_err(), "cut short");
    prop_assert!(M::from_bytes(&[bytes.as_slice(), &[0]].concat()).is_err(), "with something behind it");
    let other = [&[VERSION + 1], &bytes[1..]].concat();
    prop_assert_eq!(M::from_bytes(&other), Err(DecodeError::UnknownVersion(VERSION + 1)));
    Ok(())
}

/// What the bytes mean does not matter here; that they are judged, and judged alike, does.
fn harms_nobody(bytes: &[u8]) -> Result<(), TestCaseError> {
    fn judge<M: Message + PartialEq + Debug>(bytes: &[u8]) -> Result<(), TestCaseError> {
        if let Ok(message) = M::from_bytes(bytes) {
            let again = message.to_bytes();
            prop_assert!(again.len() <= bytes.len(), "one value has one shortest form, and we write it");
            // Not compared as values: a NaN does not equal itself.
            prop_assert_eq!(M::from_bytes(&again).map(|m| m.to_bytes()), Ok(again));
        }
        Ok(())
    }
    judge::<Request>(bytes)?;
    judge::<Response>(bytes)?;
    judge::<Announcement>(bytes)?;
    judge::<Frame>(bytes)?;
    let _ = Entry::from_bytes(bytes);
    Ok(())
}

proptest! {
    #[test]
    fn every_request_comes_back(message in any::request()) {
        comes_back(&message)?;
    }

    #[test]
    fn every_response_comes_back(message in any::response()) {
        comes_back(&message)?;
    }

    #[test]
    fn every_announcement_comes_back(message in any::announcement()) {
        comes_back(&message)?;
    }

    #[test]
    fn every_frame_comes_back(message in any::frame()) {
        comes_back(&message)?;
    }

    #[test]
    fn every_error_fits_its_cap(error in any::error()) {
        comes_back(&Response::Decline(error))?;
    }

    #[test]
    fn random_bytes_do_no_harm(mut bytes in prop::collection::vec(any::<u8>(), 0..300), known in any::<bool>()) {
        if known && bytes.len() > 1 {
            (bytes[0], bytes[1]) = (VERSION, bytes[1] % 8);
        }
        harms_nobody(&bytes)?;
    }

    #[test]
    fn mutated_frames_do_no_harm(
        frame in any::frame(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = frame.to_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        harms_nobody(&bytes)?;
        harms_nobody(&bytes[..cut.index(bytes.len())])?;
    }

    #[test]
    fn mutated_answers_do_no_harm(
        response in any::response(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = response.to_bytes();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        harms_nobody(&bytes)?;
    }
}

#[test]
fn a_message_over_the_cap_of_its_kind_is_not_decoded() {
    fn check<M: Message + PartialEq + Debug>(kinds: u8) {
        for kind in 0..kinds {
            let cap = M::cap(kind).unwrap();
            assert!(cap <= MAX_MESSAGE);
            let mut bytes = vec![0; cap + 1];
            (bytes[0], bytes[1]) = (VERSION, kind);
            assert_eq!(M::from_bytes(&bytes), Err(DecodeError::OverCap), "kind {kind}");
        }
        assert_eq!(M::cap(kinds), None);
        assert_eq!(M::from_bytes(&[VERSION, kinds]), Err(DecodeError::Malformed));
        assert_eq!(M::from_bytes(&[VERSION]), Err(DecodeError::Malformed));
        assert_eq!(M::from_bytes(&[]), Err(DecodeError::Malformed));
    }
    check::<Request>(4);
    check::<Response>(4);
    check::<Announcement>(1);
    check::<Frame>(10);
}

#[test]
fn an_input_is_measured_as_it_is_sent_names_included() {
    use protocol::{Chat, ChatMessage, Input, JobSpec, Role};

    let is_taken = |input: Input| input.check().is_ok();
    // One byte says which kind, and five how long.
    assert!(is_taken(Input::Text("x".repeat(JobSpec::MAX_INPUT - 6))));
    assert!(!is_taken(Input::Text("x".repeat(JobSpec::MAX_INPUT - 5))));
    let named = |len| {
        let message = ChatMessage { name: Some("x".repeat(len)), ..ChatMessage::new(Role::User, "hi") };
        Input::Chat(Chat::from(vec![message]))
    };
    assert!(is_taken(named(9)));
    assert!(!is_taken(named(JobSpec::MAX_INPUT)));
    assert!(!is_taken(Input::Text(String::new())));
}

#[test]
fn the_largest_input_constraint_and_inheritance_fit_a_frame_with_the_largest_order() {
    use crate::values::{SALT, START, job_id, key, peer};
    use protocol::message::{Brief, Start};
    use protocol::{
        AgentOffer, Constraint, Continuation, Credits, Inherited, Input, Limits, Order, Rendering, Sampling,
        Token,
    };

    let (stops, len) = Sampling::MAX_STOPS;
    let input = Input::Text("x".repeat(protocol::JobSpec::MAX_INPUT));
    let constraint = Constraint::Regex("x".repeat(Constraint::MAX_LEN));
    let text = "x".repeat(Inherited::MAX_LEN - 64);
    let inherited = Inherited { output: vec![Token { id: Some(1), text }], segments: Vec::new() };
    let digest = crypto::Digest::of_content(b"");
    let rendering = Rendering { prompt: digest, tokens: u32::MAX, template_time: u64::MAX };
    let continues = Continuation { tokens: u64::MAX, commitment: crypto::Commitment(digest), rendering };
    let order = Order {
        job: job_id(1),
        parent: Some(job_id(2)),
        kind: protocol::JobKind::Generate,
        provider: peer(2),
        agent: "x".repeat(AgentOffer::MAX_NAME),
        capability: protocol::Capability::text_generation(),
        model: Some(crypto::Digest::of_content(b"")),
        input: input.commitment(&SALT),
        sampling: Sampling { stop: vec!["x".repeat(len); stops], ..Sampling::default() },
        limits: Limits { budget: Credits(u64::MAX), depth: 9, children: 9, deadline: START },
        price: protocol::Price::default(),
        bid: crypto::Digest::of_content(b""),
        constraint: Some(constraint.digest()),
        continues: Some(continues),
        issued: START,
    };
    let order = crypto::Signed::sign(&crypto::Network::default(), &key(1), order).into_signed();
    assert!(order.clone().verify(&crypto::Network::default()).is_ok());
    let frame = Frame::Start(Box::new(Start {
        order,
        brief: Brief { input, salt: SALT, constraint: Some(constraint), inherited },
        trace: Some(protocol::Trace { id: [1; 16], span: [1; 8], flags: 1 }),
    }));
    assert!(Frame::from_bytes(&frame.to_bytes()).is_ok());
}
