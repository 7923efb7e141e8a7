//! Broadcasts: gossipsub, signed and judged, and the wait for a first listener.
//!
//! Every message carries its author's signature and is passed on only after the driver has judged it. gossipsub
//! refuses to publish while it knows no subscriber, which is the normal state of the first second of a peer's life;
//! so a message waits here a little, in a bounded queue.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crypto::Network;
use libp2p::gossipsub::{
    Behaviour, ConfigBuilder, IdentTopic, MessageAcceptance, MessageAuthenticity, PeerScoreParams,
    PeerScoreThresholds, PublishError, TopicScoreParams, ValidationMode,
};
use libp2p::identity::Keypair;

use super::event::Verdict;

/// The behaviour. Its protocol id names the network, so that meshes do not mix.
pub(super) fn behaviour(key: &Keypair, network: &Network, cap: usize) -> Result<Behaviour, String> {
    let config = ConfigBuilder::default()
        .protocol_id_prefix(format!("/llamesh/{network}/gossip"))
        .heartbeat_initial_delay(FIRST_HEARTBEAT)
        .max_transmit_size((cap + ENVELOPE).max(MIN_TRANSMIT))
        .validate_messages()
        .validation_mode(ValidationMode::Strict)
        .build()
        .map_err(|error| error.to_string())?;
    let mut gossip = Behaviour::new(MessageAuthenticity::Signed(key.clone()), config)?;
    gossip.with_peer_score(score(), PeerScoreThresholds::default())?;
    Ok(gossip)
}

/// Listens to a topic. False when gossipsub refuses it.
pub(super) fn subscribe(gossip: &mut Behaviour, topic: &str) -> bool {
    let topic = IdentTopic::new(topic);
    let subscribed = gossip.subscribe(&topic).is_ok();
    let scored = gossip.set_topic_params(topic, topic_score()).is_ok();
    subscribed && scored
}

/// Neither many peers behind one address (a container host, a NAT) nor a quiet topic is a fault: only what was judged
/// as rejected counts.
fn score() -> PeerScoreParams {
    PeerScoreParams { ip_colocation_factor_weight: 0.0, ..PeerScoreParams::default() }
}

fn topic_score() -> TopicScoreParams {
    TopicScoreParams {
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        ..TopicScoreParams::default()
    }
}

pub(super) fn acceptance(verdict: Verdict) -> MessageAcceptance {
    match verdict {
        Verdict::Accept => MessageAcceptance::Accept,
        Verdict::Ignore => MessageAcceptance::Ignore,
        Verdict::Reject => MessageAcceptance::Reject,
    }
}

/// Messages that wait for somebody to hear them.
#[derive(Debug, Default)]
pub(super) struct Publications {
    waiting: VecDeque<Publication>,
}

#[derive(Debug)]
struct Publication {
    topic: String,
    bytes: Vec<u8>,
    deadline: Instant,
}

impl Publications {
    /// Publishes now or as soon as a subscriber is known; gives up after ten seconds.
    pub(super) fn publish(&mut self, gossip: &mut Behaviour, topic: String, bytes: Vec<u8>, now: Instant) {
        let publication = Publication { topic, bytes, deadline: now + PATIENCE };
        if !publication.try_send(gossip) {
            if self.waiting.len() == MAX_WAITING {
                self.waiting.pop_front();
                tracing::warn!("too many broadcasts wait for a listener: the oldest is dropped");
            }
            self.waiting.push_back(publication);
        }
    }

    /// Tries again: a subscriber has appeared, or time has passed.
    pub(super) fn retry(&mut self, gossip: &mut Behaviour, now: Instant) {
        self.waiting.retain(|publication| publication.deadline > now && !publication.try_send(gossip));
    }
}

impl Publication {
    /// True when nothing is left to do: it is out, or can never be.
    fn try_send(&self, gossip: &mut Behaviour) -> bool {
        match gossip.publish(IdentTopic::new(&self.topic), self.bytes.clone()) {
            Ok(_) | Err(PublishError::Duplicate) => true,
            Err(PublishError::AllQueuesFull(_) | PublishError::NoPeersSubscribedToTopic) => false,
            Err(error) => {
                tracing::warn!(%error, topic = self.topic, "a broadcast was dropped");
                true
            }
        }
    }
}

/// A young peer must not be deaf for the five seconds of the default.
const FIRST_HEARTBEAT: Duration = Duration::from_millis(500);
/// Author, signature, sequence number, topic.
const ENVELOPE: usize = 1024;
/// gossipsub's own default: its control messages need room too.
const MIN_TRANSMIT: usize = 64 * 1024;
/// An announcement older than this is of no use to anybody.
const PATIENCE: Duration = Duration::from_secs(10);
/// Broadcasts that wait for a first listener.
const MAX_WAITING: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_waits_for_a_listener_and_not_for_ever() {
        let key = Keypair::generate_ed25519();
        let mut gossip = behaviour(&key, &Network::default(), 4096).unwrap();
        let mut publications = Publications::default();
        let now = Instant::now();
        for n in 0..=MAX_WAITING {
            publications.publish(&mut gossip, "topic".to_owned(), vec![n as u8], now);
        }
        assert_eq!(publications.waiting.len(), MAX_WAITING);
        assert_eq!(publications.waiting[0].bytes, [1]);
        publications.retry(&mut gossip, now + PATIENCE);
        assert!(publications.waiting.is_empty());
    }
}
