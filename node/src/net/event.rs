//! What the network tells the driver.
//!
//! Every kind of news is one variant here; foreign types stay behind private fields. Events arrive through one
//! bounded queue, [`Events`]: when the driver is slow, the readers of sessions wait, their streams fill, and the
//! remote feels it.

use std::fmt;
use std::sync::Arc;

use crypto::PeerId;
use libp2p::gossipsub::MessageId;
use libp2p::request_response::InboundRequestId;
use tokio::sync::mpsc;

use super::address::Address;
use super::session::Sessions;

/// Something happened on the network.
#[derive(Debug)]
pub enum NetEvent {
    /// A remote broke the rules of the wire. What it sent is dropped; the session it came on is closed.
    BadPeer {
        /// Who.
        peer: PeerId,
        /// What it did.
        what: Misconduct,
    },
    /// A bootstrap address did not lead into the mesh. Told once per address until it has succeeded; it is retried.
    BootstrapFailed {
        /// The address as configured.
        address: Address,
        /// Why not.
        reason: BootstrapFailure,
    },
    /// A bootstrap address led to a peer of this mesh.
    BootstrapSucceeded {
        /// The address as configured.
        address: Address,
        /// Who answered there.
        peer: PeerId,
    },
    /// A peer of this mesh is connected (told once, however many connections it has).
    Connected(PeerId),
    /// Its last connection is gone.
    Disconnected(PeerId),
    /// A lookup is over. Comes exactly once for each accepted [`Net::find`](super::Net::find).
    Found {
        /// The caller's number.
        id: u64,
        /// Who announced the key, ourselves excepted.
        peers: Vec<PeerId>,
    },
    /// Frames of a session, in order: everything that one read brought in.
    Frames {
        /// The peer at the other end.
        from: PeerId,
        /// Our side of the session.
        role: Role,
        /// Never empty, and no frame is.
        frames: Vec<Vec<u8>>,
    },
    /// A broadcast message. It is not forwarded before it is judged with [`Net::judge`](super::Net::judge).
    Gossip {
        /// The author, by signature; not whoever passed it on.
        from: PeerId,
        /// The topic.
        topic: String,
        /// The message.
        bytes: Vec<u8>,
        /// What to judge it by.
        token: GossipToken,
    },
    /// We listen on one more address.
    Listening(Address),
    /// Somebody asks. Answer with [`Net::respond`](super::Net::respond) within five seconds.
    Request {
        /// Who asks.
        from: PeerId,
        /// What to answer to.
        inbound: InboundId,
        /// The question.
        bytes: Vec<u8>,
    },
    /// A request is over. Comes exactly once for each accepted [`Net::request`](super::Net::request).
    Response {
        /// The caller's number.
        id: u64,
        /// Who was asked.
        from: PeerId,
        /// The answer.
        result: Result<Vec<u8>, RequestError>,
    },
    /// A session is over: no frame of it follows, and what was queued for it is lost. The next frame that we send as
    /// requester opens a new one.
    SessionClosed {
        /// The peer at the other end.
        peer: PeerId,
        /// Our side of the session.
        role: Role,
        /// How it ended.
        end: SessionEnd,
    },
}

/// Which side of a session we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// They opened it: we work for them.
    Provider,
    /// We opened it: they work for us.
    Requester,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionEnd {
    /// One side closed it in order.
    Closed,
    /// The connection broke.
    Lost,
    /// The remote broke the rules; a [`NetEvent::BadPeer`] came before.
    Misconduct,
    /// The remote opened another one in its place.
    Replaced,
    /// It never began: the peer could not be reached, or has no room.
    Unreachable,
}

/// A rule of the wire that a remote broke.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misconduct {
    /// A frame without content.
    EmptyFrame,
    /// A frame longer than [`Limits::frame`](super::Limits::frame).
    FrameOverCap,
    /// A broadcast longer than [`Limits::gossip`](super::Limits::gossip).
    GossipOverCap,
    /// A request longer than [`Limits::request`](super::Limits::request).
    RequestOverCap,
    /// A response longer than [`Limits::response`](super::Limits::response).
    ResponseOverCap,
    /// A stream that ended within a frame.
    TruncatedFrame,
}

/// Why a bootstrap address did not lead into the mesh.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BootstrapFailure {
    /// The address is our own.
    #[error("this is our own address")]
    Itself,
    /// The peer there belongs to another network.
    #[error("the peer there is not in this network: its protocol is `{theirs}`")]
    OtherNetwork {
        /// What it calls its protocol.
        theirs: String,
    },
    /// We or they refused the connection.
    #[error("the connection was refused: {0}")]
    Refused(String),
    /// Nobody answered.
    #[error("nobody answered: {0}")]
    Unreachable(String),
    /// Somebody else answered.
    #[error(transparent)]
    WrongPeer(#[from] Box<WrongPeer>),
}

/// Somebody else answered at an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{} answered there instead of {expected}", found.map_or_else(|| FOREIGN_KEY.to_owned(), |peer| peer.to_string()))]
pub struct WrongPeer {
    /// The peer in the address.
    pub expected: PeerId,
    /// Who answered; `None` when its key cannot belong to the mesh.
    pub found: Option<PeerId>,
}

const FOREIGN_KEY: &str = "a peer with another kind of key";

/// Why a request has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Too many of our requests are on the way to this peer.
    #[error("too many requests are on the way: wait for an answer")]
    Busy,
    /// The connection broke, or the remote closed the stream without an answer.
    #[error("the peer went away before it answered")]
    Lost,
    /// The response is longer than we accept.
    #[error("the response is longer than allowed")]
    ResponseOverCap,
    /// No answer in time. Whether the request arrived is unknown.
    #[error("no answer in time")]
    Timeout,
    /// The remote does not speak our protocol.
    #[error("the peer does not take requests of this network")]
    Unsupported,
    /// No connection to the peer.
    #[error("the peer cannot be reached")]
    Unreachable,
}

/// Which inbound request an answer belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InboundId(pub(super) InboundRequestId);

/// What a broadcast message is judged by.
pub struct GossipToken {
    pub(super) message: MessageId,
    pub(super) forwarder: libp2p::PeerId,
}

impl fmt::Debug for GossipToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GossipToken").field(&self.message).finish()
    }
}

/// What becomes of a broadcast message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Drop it, nobody is to blame.
    Ignore,
    /// Drop it and lower the standing of who passed it on.
    Reject,
}

/// The queue of events. Dropping it stops the network.
#[derive(Debug)]
pub struct Events {
    pub(super) queue: mpsc::Receiver<NetEvent>,
    pub(super) sessions: Arc<Sessions>,
}

impl Events {
    /// The next event; `None` after the network has stopped. Cancel-safe.
    pub async fn next(&mut self) -> Option<NetEvent> {
        let event = self.queue.recv().await?;
        if let NetEvent::SessionClosed { peer, role, .. } = &event {
            // Only now may a frame open a new session: the driver knows that the old one is over.
            self.sessions.forget(*peer, *role);
        }
        Some(event)
    }
}
