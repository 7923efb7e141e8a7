//! Real peers on loopback, over TCP and over QUIC. Every wait is for an event.

mod lookups;
mod meeting;
mod sessions;

use std::time::Duration;

use crypto::{PeerId, SecretKey};
use tokio::time::timeout;

use super::*;

/// A peer under test: its handle, its events, and what they said of where it listens.
struct Node {
    net: Net,
    events: Events,
    listening: Vec<Address>,
    seen: Vec<NetEvent>,
}

/// What a peer listens on.
const TCP: &str = "/ip4/127.0.0.1/tcp/0";
const QUIC: &str = "/ip4/127.0.0.1/udp/0/quic-v1";
/// Longer than any wait that succeeds; only failures take so long.
const PATIENCE: Duration = Duration::from_secs(20);

fn key(seed: u8) -> SecretKey {
    SecretKey::from_seed(&[seed; 32])
}

fn config(seed: u8, listen: &str, bootstrap: &[Address]) -> NetConfig {
    NetConfig {
        network: "test".parse().unwrap(),
        key: key(seed),
        listen: vec![listen.parse().unwrap()],
        external: Vec::new(),
        bootstrap: bootstrap.to_vec(),
        lan: false,
        client: false,
        limits: Limits { request: 1000, response: 2000, frame: 4000, gossip: 500 },
    }
}

impl Node {
    async fn start(config: NetConfig) -> Self {
        let listeners = config.listen.len();
        let (net, events) = Net::start(config).await.unwrap();
        let mut node = Self { net, events, listening: Vec::new(), seen: Vec::new() };
        for _ in 0..listeners {
            let address = node.wait(|event| match event {
                NetEvent::Listening(address) => Some(address.clone()),
                _ => None,
            });
            let address = address.await;
            node.listening.push(address);
        }
        node
    }

    async fn join(seed: u8, listen: &str, bootstrap: &[Address]) -> Self {
        Self::start(config(seed, listen, bootstrap)).await
    }

    fn me(&self) -> PeerId {
        self.net.me()
    }

    /// The first event for which `pick` has an answer. What comes before it is kept in `seen`.
    async fn wait<T>(&mut self, pick: impl Fn(&NetEvent) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let event = self.events.next().await.expect("the network runs");
                let picked = pick(&event);
                self.seen.push(event);
                if let Some(picked) = picked {
                    return picked;
                }
            }
        };
        let picked = timeout(PATIENCE, waiting).await;
        picked.unwrap_or_else(|_| panic!("{} waited in vain after {:#?}", self.me(), self.seen))
    }

    async fn connected(&mut self, peer: PeerId) {
        if self.seen.iter().any(|event| matches!(event, NetEvent::Connected(it) if *it == peer)) {
            return;
        }
        self.wait(|event| matches!(event, NetEvent::Connected(it) if *it == peer).then_some(())).await;
    }

    /// Drives the network of a peer that has nothing to do in this test: nobody reads its events otherwise.
    fn idle(self) -> tokio::task::JoinHandle<()> {
        let Self { net, mut events, .. } = self;
        tokio::spawn(async move {
            while events.next().await.is_some() {}
            drop(net);
        })
    }
}

/// A pair, connected, the second to the first.
async fn pair(listen: &str) -> (Node, Node) {
    let mut first = Node::join(1, listen, &[]).await;
    let mut second = Node::join(2, listen, &first.listening).await;
    second.connected(first.me()).await;
    first.connected(second.me()).await;
    (first, second)
}
