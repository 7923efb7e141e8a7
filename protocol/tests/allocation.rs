//! What a few hostile bytes can make a decoder allocate: lengths that promise more than there is.
//!
//! A test of its own program, because it replaces the allocator to see every request for memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt::Debug;

use crypto::{SecretKey, Signed};
use protocol::codec::{MAX_MESSAGE, Message, VERSION};
use protocol::job::Salt;
use protocol::message::{Brief, Start};
use protocol::{
    Capability, Chat, ChatMessage, Constraint, Frame, Inherited, Input, JobError, Response, Role, Tool,
    ToolCall,
};

thread_local! {
    /// The largest single request since it was last reset.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
}

struct Watched;

#[expect(unsafe_code, reason = "an allocator cannot be written without it; this one passes every call on")]
// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from `alloc` above, with this layout.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static WATCHED: Watched = Watched;

/// serde reserves at most this much on the word of a length, and grows only with what arrives.
const SERDE_RESERVES: usize = 1 << 20;

fn largest_request<M: Message + Debug>(bytes: &[u8]) -> usize {
    LARGEST.with(|largest| largest.set(0));
    let _ = M::from_bytes(bytes);
    LARGEST.with(Cell::get)
}

/// An honest message up to some byte, and then a length of 2^40.
fn boasts(honest: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let boast = [[253].as_slice(), &(1u64 << 40).to_le_bytes()].concat();
    (2..honest.len()).map(move |at| [&honest[..at], &boast].concat())
}

fn start(input: Input) -> Frame {
    let signer = SecretKey::from_seed(&[1; 32]).peer_id();
    Frame::Start(Box::new(Start {
        order: Signed::from_parts(signer, vec![1; 40], [2; 64]),
        brief: Brief {
            input,
            salt: Salt([3; 16]),
            constraint: Some(Constraint::Choices(vec!["yes".into()])),
            inherited: Inherited::default(),
        },
        trace: None,
    }))
}

#[test]
fn a_length_that_boasts_allocates_little() {
    let call = ToolCall { id: "1".into(), name: "f".into(), arguments: "{}".into() };
    let said = ChatMessage::new(Role::Assistant, "hello");
    let message = ChatMessage { name: Some("me".into()), tool_calls: vec![call], ..said };
    let tool = Tool { name: "f".into(), description: "does".into(), parameters: "{}".into() };
    let chat = Chat { tools: vec![tool], ..Chat::from(vec![message]) };
    let inputs = [Input::Chat(chat), Input::Text("hello".into()), Input::Tokens(vec![1, 2])];
    for bytes in inputs.into_iter().flat_map(|input| boasts(&start(input).to_bytes()).collect::<Vec<_>>()) {
        assert!(largest_request::<Frame>(&bytes) <= SERDE_RESERVES);
    }
    let capability = Capability::text_generation();
    let error = JobError::NothingOffered { capability: capability.clone(), sample: vec![capability] };
    for bytes in boasts(&Response::Decline(error).to_bytes()) {
        assert!(largest_request::<Response>(&bytes) <= SERDE_RESERVES);
    }
}

#[test]
fn a_message_over_its_cap_allocates_nothing() {
    let mut bytes = vec![0; MAX_MESSAGE + 1];
    for kind in 0..8 {
        (bytes[0], bytes[1]) = (VERSION, kind);
        assert_eq!(largest_request::<Frame>(&bytes), 0);
    }
}

#[test]
fn the_watch_sees_what_is_allocated() {
    LARGEST.with(|largest| largest.set(0));
    drop(Vec::<u8>::with_capacity(12_345));
    assert_eq!(LARGEST.with(Cell::get), 12_345);
}
