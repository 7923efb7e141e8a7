//! Arbitrary values of everything that travels, from a domain small enough that names collide.
//!
//! Every strategy is boxed: the trees that shrink nested tuples are too large for the stack of a test.

use crypto::{Commitment, Digest, Payload, PeerId, Signed};
use proptest::option;
use proptest::prelude::*;
use protocol::error::{Feature, Limit, OrderFault, Text};
use protocol::job::Salt;
use protocol::message::{Ask, Bid, Brief, Counter, Start};
use protocol::profile::{LatencyClass, Speed, Versions};
use protocol::receipt::SignedStretch;
use protocol::{
    Acknowledgement, AgentOffer, Alternative, Announcement, Capability, Chat, ChatMessage, Constraint,
    Continuation, Credits, Evidence, Finish, Frame, Inherited, Input, JobError, JobId, JobKind, Limits,
    Logprobs, ModelOffer, Order, Price, Profile, Receipt, Rendering, Request, Requirement, Response, Role,
    Sampling, Segment, Timestamp, Token, Tool, ToolCall, ToolChoice, Usage,
};

use crate::values::{START, capability, job_id, peer};

/// Names in the collections of arbitrary values.
const FEW: usize = 4;

pub(crate) fn digest() -> BoxedStrategy<Digest> {
    any::<[u8; 32]>().prop_map(Digest::from_bytes).boxed()
}

pub(crate) fn some_peer() -> BoxedStrategy<PeerId> {
    (1u8..5).prop_map(peer).boxed()
}

pub(crate) fn some_job() -> BoxedStrategy<JobId> {
    (0u8..4).prop_map(job_id).boxed()
}

/// Near the beginning of the story, or anywhere.
pub(crate) fn time() -> BoxedStrategy<Timestamp> {
    prop_oneof![4 => (0u64..200_000).prop_map(|ms| START.after(ms)), 1 => any::<u64>().prop_map(Timestamp)]
        .boxed()
}

pub(crate) fn some_capability() -> BoxedStrategy<Capability> {
    let known =
        prop::sample::select(vec!["text", "text.generation", "code", "code.review"]).prop_map(capability);
    let any = "[a-z0-9_-]{1,8}(\\.[a-z0-9_-]{1,8}){0,3}".prop_map(|text| capability(&text));
    prop_oneof![4 => known, 1 => any].boxed()
}

fn money() -> BoxedStrategy<Credits> {
    prop_oneof![0u64..10_000, any::<u64>()].prop_map(Credits).boxed()
}

fn price() -> BoxedStrategy<Price> {
    (money(), money()).prop_map(|(prompt, completion)| Price { prompt, completion }).boxed()
}

fn float() -> BoxedStrategy<f32> {
    any::<f32>().prop_filter("a value that equals itself", |f| !f.is_nan()).boxed()
}

pub(crate) fn offer() -> BoxedStrategy<AgentOffer> {
    let model = (".{0,9}", digest(), any::<bool>(), ".{0,9}", any::<u32>()).prop_map(
        |(name, digest, manifest, engine, context)| ModelOffer { name, digest, manifest, engine, context },
    );
    let latency =
        prop::sample::select(vec![LatencyClass::Interactive, LatencyClass::Moderate, LatencyClass::Batch]);
    let speed = (any::<u32>(), any::<u32>(), latency).prop_map(|(prefill, decode, latency)| Speed {
        prefill,
        decode,
        latency,
    });
    let list = || prop::collection::vec(".{0,5}", 0..FEW);
    let does = (some_capability(), prop::collection::vec(kind(), 0..FEW));
    (".{0,9}", does, option::of(model), price(), speed, list(), list(), list())
        .prop_map(|(agent, does, model, price, speed, languages, modalities, tools)| AgentOffer {
            agent,
            capability: does.0,
            kinds: does.1,
            model,
            price,
            speed,
            languages,
            modalities,
            tools,
        })
        .boxed()
}

pub(crate) fn profile() -> BoxedStrategy<Profile> {
    (any::<[u8; 2]>(), prop::collection::vec(offer(), 0..FEW), time(), time())
        .prop_map(|([min, max], agents, issued, expires)| Profile {
            versions: Versions { min, max },
            agents,
            issued,
            expires,
        })
        .boxed()
}

pub(crate) fn ask() -> BoxedStrategy<Ask> {
    let requirement = (some_capability(), option::of(digest()), any::<u32>(), option::of(price())).prop_map(
        |(capability, model, context, ceiling)| Requirement { capability, model, context, ceiling },
    );
    (some_job(), kind(), requirement, digest(), any::<u32>(), any::<u32>(), time())
        .prop_map(|(job, kind, requirement, input, input_len, max_tokens, deadline)| Ask {
            job,
            kind,
            requirement,
            input,
            input_len,
            max_tokens,
            deadline,
        })
        .boxed()
}

pub(crate) fn bid() -> BoxedStrategy<Bid> {
    (some_job(), some_peer(), offer(), any::<u32>(), time())
        .prop_map(|(job, requester, offer, queue, expires)| Bid { job, requester, offer, queue, expires })
        .boxed()
}

pub(crate) fn counter() -> BoxedStrategy<Counter> {
    (some_job(), digest(), price()).prop_map(|(job, bid, price)| Counter { job, bid, price }).boxed()
}

pub(crate) fn input() -> BoxedStrategy<Input> {
    let role = prop::sample::select(vec![Role::Assistant, Role::System, Role::Tool, Role::User]);
    let call =
        (".{0,5}", ".{0,5}", ".{0,9}").prop_map(|(id, name, arguments)| ToolCall { id, name, arguments });
    let calls = (prop::collection::vec(call, 0..FEW), option::of(".{0,5}"));
    let message = (role, ".{0,20}", option::of(".{0,5}"), calls).prop_map(
        |(role, content, name, (tool_calls, tool_call_id))| ChatMessage {
            role,
            content,
            name,
            tool_calls,
            tool_call_id,
        },
    );
    let tool = (".{0,5}", ".{0,5}", ".{0,9}").prop_map(|(name, description, parameters)| Tool {
        name,
        description,
        parameters,
    });
    let tool_choice = prop_oneof![
        Just(ToolChoice::Auto),
        ".{0,5}".prop_map(ToolChoice::Named),
        Just(ToolChoice::None),
        Just(ToolChoice::Required),
    ];
    let lists = (prop::collection::vec(message, 0..FEW), prop::collection::vec(tool, 0..FEW));
    let chat = (lists, tool_choice).prop_map(|((messages, tools), tool_choice)| Chat {
        messages,
        tools,
        tool_choice,
    });
    prop_oneof![
        chat.prop_map(Input::Chat),
        ".{0,20}".prop_map(Input::Json),
        ".{0,20}".prop_map(Input::Text),
        prop::collection::vec(any::<u32>(), 0..FEW).prop_map(Input::Tokens),
    ]
    .boxed()
}

pub(crate) fn constraint() -> BoxedStrategy<Constraint> {
    prop_oneof![
        prop::collection::vec(".{0,9}", 0..FEW).prop_map(Constraint::Choices),
        ".{0,20}".prop_map(Constraint::Grammar),
        ".{0,20}".prop_map(Constraint::JsonSchema),
        ".{0,20}".prop_map(Constraint::Regex),
    ]
    .boxed()
}

pub(crate) fn alternatives() -> BoxedStrategy<Vec<Alternative>> {
    let one = (any::<u32>(), ".{0,5}", -90.0_f32..0.0).prop_map(|(id, text, logprob)| Alternative {
        id,
        text,
        logprob,
    });
    prop::collection::vec(one, 0..FEW).boxed()
}

fn logprobs() -> BoxedStrategy<Logprobs> {
    (float(), alternatives()).prop_map(|(logprob, top)| Logprobs { logprob, top }).boxed()
}

fn sampling() -> BoxedStrategy<Sampling> {
    let floats = (float(), float(), float(), float(), float(), float());
    let stops = prop::collection::vec(".{0,5}", 0..FEW);
    (any::<[u32; 3]>(), floats, stops, any::<u64>(), option::of(any::<u8>()))
        .prop_map(|([max_tokens, top_k, choice], f, stop, seed, logprobs)| {
            let (temperature, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty) = f;
            let penalties = Sampling {
                repeat_penalty,
                frequency_penalty,
                presence_penalty,
                logprobs,
                ..Sampling::default()
            };
            Sampling { max_tokens, temperature, top_p, top_k, min_p, stop, seed, choice, ..penalties }
        })
        .boxed()
}

fn limits() -> BoxedStrategy<Limits> {
    (money(), any::<u8>(), any::<u16>(), time())
        .prop_map(|(budget, depth, children, deadline)| Limits { budget, depth, children, deadline })
        .boxed()
}

fn kind() -> BoxedStrategy<JobKind> {
    prop::sample::select(JobKind::ALL.to_vec()).boxed()
}

fn rendering() -> BoxedStrategy<Rendering> {
    (digest(), any::<u32>(), any::<u64>())
        .prop_map(|(prompt, tokens, template_time)| Rendering { prompt, tokens, template_time })
        .boxed()
}

fn continuation() -> BoxedStrategy<Continuation> {
    (0u64..5, digest(), rendering())
        .prop_map(|(tokens, commitment, rendering)| Continuation {
            tokens,
            commitment: Commitment(commitment),
            rendering,
        })
        .boxed()
}

fn said() -> BoxedStrategy<Token> {
    (option::of(any::<u32>()), ".{0,9}").prop_map(|(id, text)| Token { id, text }).boxed()
}

fn inherited() -> BoxedStrategy<Inherited> {
    let segments = prop::collection::vec(claim(segment()), 0..FEW);
    (prop::collection::vec(said(), 0..FEW), segments)
        .prop_map(|(output, segments)| Inherited { output, segments })
        .boxed()
}

pub(crate) fn order() -> BoxedStrategy<Order> {
    let who = (some_job(), option::of(some_job()), kind(), some_peer(), ".{0,9}", some_capability());
    let what = (
        option::of(digest()),
        digest(),
        sampling(),
        limits(),
        price(),
        digest(),
        (option::of(digest()), option::of(continuation())),
        time(),
    );
    (who, what)
        .prop_map(|((job, parent, kind, provider, agent, capability), what)| {
            let (model, input, sampling, limits, price, bid, constraint, issued) = what;
            let named = (job, parent, kind, provider, agent, capability);
            let (job, parent, kind, provider, agent, capability) = named;
            Order {
                job,
                parent,
                kind,
                provider,
                agent,
                capability,
                model,
                input,
                sampling,
                limits,
                price,
                bid,
                constraint: constraint.0,
                continues: constraint.1,
                issued,
            }
        })
        .boxed()
}

pub(crate) fn segment() -> BoxedStrategy<Segment> {
    (some_job(), digest(), any::<u64>(), digest(), option::of(digest()))
        .prop_map(|(job, order, end, commitment, activations)| Segment {
            job,
            order,
            end,
            commitment: Commitment(commitment),
            activations,
        })
        .boxed()
}

pub(crate) fn receipt() -> BoxedStrategy<Receipt> {
    let stretch = (some_peer(), digest(), any::<u64>(), digest())
        .prop_map(|(provider, order, end, segment)| SignedStretch { provider, order, end, segment });
    let usage = any::<[u32; 2]>()
        .prop_map(|[prompt_tokens, completion_tokens]| Usage { prompt_tokens, completion_tokens });
    let finish = prop::sample::select(vec![Finish::EndOfText, Finish::Length, Finish::Stop]);
    let lists = (prop::collection::vec(stretch, 0..FEW), prop::collection::vec(digest(), 0..FEW));
    let rest =
        (option::of(".{0,9}"), option::of(digest()), any::<u64>(), digest(), finish, usage, money(), time());
    (order(), some_peer(), digest(), lists, rest)
        .prop_map(|(order, requester, digest, lists, rest)| {
            let (engine, prompt, template_time, output, finish, usage, cost, started) = rest;
            Receipt {
                network: "test".parse().unwrap(),
                job: order.job,
                parent: order.parent,
                kind: order.kind,
                requester,
                order: digest,
                agent: order.agent,
                capability: order.capability,
                model: order.model,
                engine,
                input: order.input,
                prompt,
                template_time,
                sampling: order.sampling,
                output: Commitment(output),
                segments: lists.0,
                finish,
                usage,
                price: order.price,
                cost,
                started,
                finished: order.issued,
                constraint: order.constraint,
                continues: order.continues,
                children: lists.1,
            }
        })
        .boxed()
}

pub(crate) fn error() -> BoxedStrategy<JobError> {
    let limit = prop::sample::select(vec![Limit::Budget, Limit::Children, Limit::Depth]);
    let why = prop::sample::select(vec![
        OrderFault::Commitment,
        OrderFault::Expired,
        OrderFault::Lease,
        OrderFault::Replayed,
        OrderFault::Signature,
    ]);
    let feature = prop::sample::select(vec![
        Feature::Constraint,
        Feature::JobKind,
        Feature::Input,
        Feature::Choices,
        Feature::Logprobs,
        Feature::Tools,
        Feature::Continuation,
    ]);
    let bare =
        vec![JobError::Cancelled, JobError::DeadlineExceeded, JobError::Engine, JobError::ProviderLost];
    prop_oneof![
        prop::sample::select(bare),
        any::<u64>().prop_map(|retry_after_ms| JobError::Busy { retry_after_ms }),
        any::<[u32; 2]>().prop_map(|[tokens, context]| JobError::ContextExceeded { tokens, context }),
        (".{0,300}", ".{0,9}")
            .prop_map(|(field, p)| JobError::Invalid { field: Text::new(&field), problem: Text::new(&p) }),
        any::<u32>().prop_map(|index| JobError::Inherited { index }),
        limit.prop_map(|limit| JobError::Limit { limit }),
        Just(JobError::Misbehaved { evidence: Evidence::BadReceipt }),
        any::<u32>().prop_map(|asked| JobError::NoTaker { asked }),
        (some_capability(), prop::collection::vec(some_capability(), 0..FEW))
            .prop_map(|(capability, sample)| JobError::NothingOffered { capability, sample }),
        why.prop_map(|why| JobError::Order { why }),
        feature.prop_map(|feature| JobError::Unsupported { feature }),
    ]
    .boxed()
}

/// A statement as a liar writes it: any payload under any name.
fn claim<T: Payload + std::fmt::Debug + 'static>(value: BoxedStrategy<T>) -> BoxedStrategy<Signed<T>> {
    (value, some_peer(), any::<[u8; 32]>())
        .prop_map(|(value, signer, half)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&half);
            Signed::from_parts(signer, value.encode(), signature)
        })
        .boxed()
}

pub(crate) fn acknowledgement() -> BoxedStrategy<Acknowledgement> {
    digest().prop_map(|receipt| Acknowledgement { receipt }).boxed()
}

pub(crate) fn request() -> BoxedStrategy<Request> {
    prop_oneof![
        ask().prop_map(Request::Ask),
        claim(bid()).prop_map(Request::Bid),
        Just(Request::Profile),
        counter().prop_map(Request::Counter),
    ]
    .boxed()
}

pub(crate) fn response() -> BoxedStrategy<Response> {
    prop_oneof![
        claim(bid()).prop_map(Response::Bid),
        error().prop_map(Response::Decline),
        claim(profile()).prop_map(Response::Profile),
        Just(Response::Received),
    ]
    .boxed()
}

pub(crate) fn announcement() -> BoxedStrategy<Announcement> {
    (ask(), time()).prop_map(|(ask, closes)| Announcement::Job { ask, closes }).boxed()
}

pub(crate) fn frame() -> BoxedStrategy<Frame> {
    let brief = (input(), any::<[u8; 16]>(), option::of(constraint()), inherited()).prop_map(
        |(input, salt, constraint, inherited)| Brief { input, salt: Salt(salt), constraint, inherited },
    );
    let trace = option::of(any::<([u8; 16], [u8; 8], u8)>())
        .prop_map(|found| found.map(|(id, span, flags)| protocol::Trace { id, span, flags }));
    let start = (claim(order()), brief, trace)
        .prop_map(|(order, brief, trace)| Frame::Start(Box::new(Start { order, brief, trace })));
    let token = (some_job(), 0u64..5, said(), digest(), option::of(logprobs())).prop_map(
        |(job, index, token, commitment, logprobs)| Frame::Token {
            job,
            index,
            token,
            commitment: Commitment(commitment),
            logprobs,
        },
    );
    prop_oneof![
        start,
        some_job().prop_map(|job| Frame::Cancel { job }),
        (some_job(), claim(acknowledgement()))
            .prop_map(|(job, acknowledgement)| Frame::Acknowledge { job, acknowledgement }),
        some_job().prop_map(|job| Frame::Probe { job }),
        (some_job(), rendering()).prop_map(|(job, rendering)| Frame::Prompt { job, rendering }),
        (some_job(), any::<[u32; 2]>()).prop_map(|(job, [done, of])| Frame::Progress { job, done, of }),
        token,
        (some_job(), claim(segment())).prop_map(|(job, segment)| Frame::Segment { job, segment }),
        (some_job(), claim(receipt())).prop_map(|(job, receipt)| Frame::Finish { job, receipt }),
        (some_job(), error()).prop_map(|(job, error)| Frame::Fail { job, error }),
    ]
    .boxed()
}
