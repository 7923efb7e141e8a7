//! The network's words ↔ the protocol's: bytes become messages here, and whoever sent bytes that do not gets the blame.

use protocol::event::Side;
use protocol::{Announcement, Evidence};

use crate::net::{Misconduct, Role};

/// What a broken rule of the wire says of whoever broke it.
pub(crate) fn misconduct(what: Misconduct) -> Evidence {
    match what {
        Misconduct::EmptyFrame | Misconduct::TruncatedFrame => Evidence::Malformed,
        Misconduct::FrameOverCap
        | Misconduct::GossipOverCap
        | Misconduct::RequestOverCap
        | Misconduct::ResponseOverCap => Evidence::OverCap,
    }
}

/// Our end of a stream.
pub(crate) fn side(role: Role) -> Side {
    match role {
        Role::Provider => Side::Provider,
        Role::Requester => Side::Requester,
    }
}

/// Our end of a stream, as the network says it.
pub(crate) fn role(side: Side) -> Role {
    match side {
        Side::Provider => Role::Provider,
        Side::Requester => Role::Requester,
    }
}

/// The topic of a root capability.
pub(crate) fn topic(network: &crypto::Network, root: &protocol::Capability) -> String {
    format!("llamesh/{network}/1/{root}")
}

/// True when an announcement came on the topic where it belongs.
pub(crate) fn belongs(network: &crypto::Network, on: &str, announcement: &Announcement) -> bool {
    let Announcement::Job { ask, .. } = announcement;
    on == topic(network, &ask.requirement.capability.root())
}
