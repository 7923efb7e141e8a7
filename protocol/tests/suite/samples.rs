//! One fixed value of everything that travels, for the golden vectors and the schemas: no field left at its default
//! where another value is possible.

use crypto::{Commitment, Digest, Payload, Signed, Transcript, Verified};
use protocol::job::Salt;
use protocol::message::{Ask, Bid, Brief, Counter, Start};
use protocol::profile::Versions;
use protocol::receipt::{SignedStretch, prompt_digest};
use protocol::{
    Acknowledgement, AgentOffer, Alternative, Announcement, Chat, ChatMessage, Choosing, Constraint,
    Continuation, Credits, Finish, Frame, Inherited, Input, JobError, JobKind, JobSpec, Limits, Logprobs,
    Order, Preference, Profile, Receipt, Rendering, Request, Requirement, Response, Role, Sampling, Scores,
    Segment, Token, Tool, ToolCall, ToolChoice, Trace, Usage, Weights,
};

use crate::values::{START, capability, job_id, key, peer, price, text_offer};

/// The requester's seed.
const REQUESTER: u8 = 1;
/// The provider's seed.
const PROVIDER: u8 = 2;

fn signed<T: Payload>(seed: u8, value: T) -> Verified<T> {
    Signed::sign(&crypto::Network::default(), &key(seed), value)
}

fn salt() -> Salt {
    Salt(*b"sixteen bytes ok")
}

pub(crate) fn input() -> Input {
    let call = ToolCall { id: "call-1".into(), name: "clock".into(), arguments: "{}".into() };
    let result = ChatMessage::new(Role::Tool, "It is noon.");
    Input::Chat(Chat {
        messages: vec![
            ChatMessage::new(Role::System, "Be brief."),
            ChatMessage { name: Some("ada".into()), ..ChatMessage::new(Role::User, "Say hé.") },
            ChatMessage { tool_calls: vec![call], ..ChatMessage::new(Role::Assistant, "") },
            ChatMessage { tool_call_id: Some("call-1".into()), ..result },
        ],
        tools: vec![Tool {
            name: "clock".into(),
            description: "What time it is".into(),
            parameters: r#"{"type":"object"}"#.into(),
        }],
        tool_choice: ToolChoice::Named("clock".into()),
    })
}

pub(crate) fn constraint() -> Constraint {
    Constraint::Choices(vec!["yes".into(), "no".into()])
}

fn alternative(id: u32, logprob: f32) -> Alternative {
    Alternative { id, text: format!(" w{id}"), logprob }
}

pub(crate) fn scores() -> Scores {
    Scores {
        tokens: vec![1, 7],
        texts: vec!["Say".into(), " hé".into()],
        logprobs: vec![None, Some(-1.25)],
        top: vec![None, Some(vec![alternative(9, -0.5), alternative(7, -1.25)])],
    }
}

fn sampling() -> Sampling {
    Sampling {
        max_tokens: 64,
        temperature: 0.5,
        top_p: 0.75,
        top_k: 40,
        min_p: 0.125,
        repeat_penalty: 1.25,
        frequency_penalty: 0.5,
        presence_penalty: 0.25,
        stop: vec!["\n\n".into()],
        seed: 42,
        choice: 3,
        logprobs: Some(2),
    }
}

fn limits() -> Limits {
    Limits { budget: Credits(1_000_000), depth: 2, children: 4, deadline: START.after(60_000) }
}

fn requirement() -> Requirement {
    Requirement {
        capability: capability("text"),
        model: Some(Digest::of_content(b"tiny")),
        context: 1024,
        ceiling: Some(price(100, 2000)),
    }
}

fn offer() -> AgentOffer {
    AgentOffer { price: price(100, 2000), tools: vec!["search".into()], ..text_offer(0) }
}

pub(crate) fn spec() -> JobSpec {
    JobSpec {
        kind: JobKind::Generate,
        requirement: requirement(),
        provider: Some(peer(PROVIDER)),
        choosing: Choosing::Auction,
        preference: Preference {
            peer: Some(peer(PROVIDER)),
            avoid: vec![peer(PROVIDER)],
            target: Some(price(90, 1800)),
            weights: Weights { price: 4, latency: 3, evidence: 2, locality: 5 },
        },
        input: input(),
        sampling: sampling(),
        limits: limits(),
        constraint: Some(constraint()),
        approval: vec!["cost:5000".parse().unwrap()],
        parent: Some(job_id(9)),
    }
}

fn ask() -> Ask {
    Ask {
        job: job_id(1),
        kind: JobKind::Generate,
        requirement: requirement(),
        input: input().commitment(&salt()),
        input_len: 17,
        max_tokens: 64,
        deadline: START.after(60_000),
    }
}

pub(crate) fn bid() -> Verified<Bid> {
    let bid = Bid {
        job: job_id(1),
        requester: peer(REQUESTER),
        offer: offer(),
        queue: 1,
        expires: START.after(5_000),
    };
    signed(PROVIDER, bid)
}

pub(crate) fn profile() -> Verified<Profile> {
    let versions = Versions { min: 1, max: 1 };
    let (issued, expires) = (START, START.after(Profile::LIFETIME));
    signed(PROVIDER, Profile { versions, agents: vec![offer()], issued, expires })
}

pub(crate) fn order() -> Verified<Order> {
    let bid = bid();
    let order = Order {
        job: job_id(1),
        parent: Some(job_id(9)),
        kind: JobKind::Generate,
        provider: bid.signer(),
        agent: bid.offer.agent.clone(),
        capability: capability("text"),
        model: bid.offer.model.as_ref().map(|model| model.digest),
        input: input().commitment(&salt()),
        sampling: sampling(),
        limits: limits(),
        price: bid.offer.price,
        bid: bid.digest(),
        constraint: None,
        continues: None,
        issued: START.after(100),
    };
    signed(REQUESTER, order)
}

fn token(index: u64) -> Token {
    Token { id: Some(700 + index as u32), text: if index == 0 { " hé".into() } else { format!(" {index}") } }
}

/// The transcript after `tokens` tokens of the sample answer.
fn transcript(tokens: u64) -> Transcript {
    let mut transcript = order().transcript();
    for index in 0..tokens {
        transcript.push(token(index).id, &token(index).text);
    }
    transcript
}

pub(crate) fn segment() -> Verified<Segment> {
    let commitment = transcript(32).commitment();
    let segment = Segment { job: job_id(1), order: order().digest(), end: 32, commitment, activations: None };
    signed(PROVIDER, segment)
}

fn rendering() -> Rendering {
    Rendering { prompt: prompt_digest(&[1, 2, 3, 4, 5]), tokens: 5, template_time: 1_700_000_000 }
}

/// What the sample's provider left behind after 33 tokens.
fn inherited() -> Inherited {
    Inherited { output: (0..33).map(token).collect(), segments: vec![segment().into_signed()] }
}

/// The order to go on with it.
pub(crate) fn continued() -> Verified<Order> {
    let commitment = transcript(33).commitment();
    let continues = Some(Continuation { tokens: 33, commitment, rendering: rendering() });
    signed(REQUESTER, Order { continues, constraint: Some(constraint().digest()), ..order().value().clone() })
}

pub(crate) fn receipt() -> Verified<Receipt> {
    let (order, usage) = (order(), Usage { prompt_tokens: 5, completion_tokens: 33 });
    let stretch = SignedStretch {
        provider: peer(PROVIDER),
        order: order.digest(),
        end: 32,
        segment: segment().digest(),
    };
    let receipt = Receipt {
        network: crypto::Network::default(),
        job: order.job,
        parent: order.parent,
        kind: order.kind,
        requester: order.signer(),
        order: order.digest(),
        agent: order.agent.clone(),
        capability: order.capability.clone(),
        model: order.model,
        engine: Some("candle-f32/1".into()),
        input: order.input,
        prompt: Some(prompt_digest(&[1, 2, 3, 4, 5])),
        template_time: 1_700_000_000,
        sampling: order.sampling.clone(),
        output: transcript(33).commitment(),
        segments: vec![stretch],
        finish: Finish::EndOfText,
        usage,
        price: order.price,
        cost: order.price.cost(usage).unwrap(),
        started: START.after(110),
        finished: START.after(900),
        constraint: order.constraint,
        continues: None,
        children: vec![Digest::of_content(b"child")],
    };
    signed(PROVIDER, receipt)
}

pub(crate) fn acknowledgement() -> Verified<Acknowledgement> {
    signed(REQUESTER, Acknowledgement { receipt: receipt().digest() })
}

fn error() -> JobError {
    JobError::NothingOffered { capability: capability("image"), sample: vec![capability("text.generation")] }
}

pub(crate) fn requests() -> [(&'static str, Request); 4] {
    [
        ("request-ask", Request::Ask(ask())),
        ("request-bid", Request::Bid(bid().into_signed())),
        ("request-profile", Request::Profile),
        (
            "request-counter",
            Request::Counter(Counter { job: job_id(1), bid: bid().digest(), price: price(90, 1800) }),
        ),
    ]
}

pub(crate) fn responses() -> [(&'static str, Response); 4] {
    [
        ("response-bid", Response::Bid(bid().into_signed())),
        ("response-decline", Response::Decline(error())),
        ("response-profile", Response::Profile(profile().into_signed())),
        ("response-received", Response::Received),
    ]
}

pub(crate) fn announcements() -> [(&'static str, Announcement); 1] {
    [("announcement-job", Announcement::Job { ask: ask(), closes: START.after(800) })]
}

pub(crate) fn frames() -> [(&'static str, Frame); 11] {
    let job = job_id(1);
    let commitment = transcript(1).commitment();
    let brief = Brief {
        input: input(),
        salt: salt(),
        constraint: Some(constraint()),
        inherited: Inherited::default(),
    };
    let continued = Start {
        order: continued().into_signed(),
        brief: Brief { inherited: inherited(), ..brief.clone() },
        trace: Some(Trace { id: [7; 16], span: [9; 8], flags: 1 }),
    };
    let start = Start { order: order().into_signed(), brief, trace: None };
    let logprobs = Some(Logprobs { logprob: -1.25, top: vec![alternative(9, -0.5), alternative(0, -1.25)] });
    [
        ("frame-start", Frame::Start(Box::new(start))),
        ("frame-start-continued", Frame::Start(Box::new(continued))),
        ("frame-cancel", Frame::Cancel { job }),
        ("frame-acknowledge", Frame::Acknowledge { job, acknowledgement: acknowledgement().into_signed() }),
        ("frame-probe", Frame::Probe { job }),
        ("frame-prompt", Frame::Prompt { job, rendering: rendering() }),
        ("frame-progress", Frame::Progress { job, done: 2, of: 5 }),
        ("frame-token", Frame::Token { job, index: 0, token: token(0), commitment, logprobs }),
        ("frame-segment", Frame::Segment { job, segment: segment().into_signed() }),
        ("frame-finish", Frame::Finish { job, receipt: receipt().into_signed() }),
        ("frame-fail", Frame::Fail { job, error: error() }),
    ]
}

/// The commitment before the first token of the sample job.
pub(crate) fn beginning() -> Commitment {
    transcript(0).commitment()
}
