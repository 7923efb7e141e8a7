//! Finding through a third peer, asking, telling everybody.

use super::*;

const KEY: [u8; 32] = [0xc0; 32];

async fn found_through_a_third(listen: &str) {
    let middle = Node::join(1, listen, &[]).await;
    let mut provider = Node::join(2, listen, &middle.listening).await;
    let place = middle.listening.clone();
    let middle = middle.idle();
    provider.net.provide(vec![KEY]).unwrap();
    let mut seeker = Node::join(3, listen, &place).await;
    let sought = provider.me();
    // The provider has joined only now: what it announces takes a moment to arrive, as in life.
    let answering = async {
        loop {
            let (inbound, bytes) = provider
                .wait(|event| match event {
                    NetEvent::Request { inbound, bytes, .. } => Some((*inbound, bytes.clone())),
                    _ => None,
                })
                .await;
            provider.net.respond(inbound, [&b"re: "[..], &bytes].concat()).unwrap();
        }
    };
    let asking = async {
        for id in 0.. {
            seeker.net.find(id, KEY, 1).unwrap();
            let peers = seeker
                .wait(|event| match event {
                    NetEvent::Found { id: it, peers } if *it == id => Some(peers.clone()),
                    _ => None,
                })
                .await;
            if !peers.is_empty() {
                assert_eq!(peers, [sought]);
                break;
            }
        }
        // The seeker was never told an address of the provider.
        seeker.net.request(7, sought, b"who are you".to_vec()).unwrap();
        let answer = seeker.wait(|event| match event {
            NetEvent::Response { id: 7, from, result } => Some((*from, result.clone())),
            _ => None,
        });
        assert_eq!(answer.await, (sought, Ok(b"re: who are you".to_vec())));
    };
    tokio::select! {
        () = answering => {}
        () = asking => {}
    }
    middle.abort();
}

#[tokio::test]
async fn a_provider_is_found_through_a_third_and_asked_over_tcp() {
    found_through_a_third(TCP).await;
}

#[tokio::test]
async fn a_provider_is_found_through_a_third_and_asked_over_quic() {
    found_through_a_third(QUIC).await;
}

#[tokio::test]
async fn a_seeker_that_listens_nowhere_finds_and_asks_too() {
    let mut provider = Node::join(1, TCP, &[]).await;
    provider.net.provide(vec![KEY]).unwrap();
    let client = NetConfig { listen: Vec::new(), client: true, ..config(2, TCP, &provider.listening) };
    let mut seeker = Node::start(client).await;
    // At once: the lookup waits for the first acquaintance.
    seeker.net.find(1, KEY, 4).unwrap();
    let peers = seeker.wait(|event| match event {
        NetEvent::Found { id: 1, peers } => Some(peers.clone()),
        _ => None,
    });
    assert_eq!(peers.await, [provider.me()]);
    assert!(!seeker.net.snapshot().await.unwrap().serves_lookups);
    provider.connected(seeker.me()).await;
    assert_eq!(provider.net.snapshot().await.unwrap().routing_table, 0);
}

#[tokio::test]
async fn what_nobody_provides_is_not_found() {
    let (_first, mut second) = pair(TCP).await;
    second.net.find(5, [1; 32], 1).unwrap();
    let peers = second.wait(|event| match event {
        NetEvent::Found { id: 5, peers } => Some(peers.clone()),
        _ => None,
    });
    assert!(peers.await.is_empty());
}

#[tokio::test]
async fn a_request_over_the_cap_is_refused_and_counted() {
    let (mut first, mut second) = pair(TCP).await;
    let culprit = second.me();
    second.net.request(1, first.me(), vec![0; 1001]).unwrap();
    let what = first.wait(|event| match event {
        NetEvent::BadPeer { peer, what } if *peer == culprit => Some(*what),
        NetEvent::Request { .. } => panic!("an oversized request arrived"),
        _ => None,
    });
    assert_eq!(what.await, Misconduct::RequestOverCap);
    let result = second.wait(|event| match event {
        NetEvent::Response { id: 1, result, .. } => Some(result.clone()),
        _ => None,
    });
    assert_eq!(result.await, Err(RequestError::Lost));
}

#[tokio::test]
async fn a_response_over_the_cap_is_refused_and_counted() {
    let (mut first, mut second) = pair(TCP).await;
    second.net.request(1, first.me(), vec![0; 1000]).unwrap();
    let inbound = first.wait(|event| match event {
        NetEvent::Request { inbound, .. } => Some(*inbound),
        _ => None,
    });
    let inbound = inbound.await;
    first.net.respond(inbound, vec![0; 2001]).unwrap();
    let culprit = first.me();
    let bad = |event: &NetEvent| match event {
        NetEvent::BadPeer { peer, what } if *peer == culprit => Some(*what),
        _ => None,
    };
    assert_eq!(second.wait(bad).await, Misconduct::ResponseOverCap);
    let result = second.wait(|event| match event {
        NetEvent::Response { id: 1, result, .. } => Some(result.clone()),
        _ => None,
    });
    assert_eq!(result.await, Err(RequestError::ResponseOverCap));
}

#[tokio::test]
async fn a_broadcast_names_its_author_and_travels_only_when_accepted() {
    // A line: the author, somebody who judges, somebody at the end.
    let mut middle = Node::join(1, TCP, &[]).await;
    middle.net.subscribe("news".to_owned()).unwrap();
    let place = middle.listening.clone();
    let client = |seed| NetConfig { listen: Vec::new(), client: true, ..config(seed, TCP, &place) };
    let mut end = Node::start(client(3)).await;
    end.net.subscribe("news".to_owned()).unwrap();
    middle.connected(end.me()).await;
    // It does not know anybody yet who listens: both messages wait for that.
    let author = Node::start(client(2)).await;
    author.net.publish("news".to_owned(), b"rejected".to_vec()).unwrap();
    author.net.publish("news".to_owned(), b"accepted".to_vec()).unwrap();
    for _ in 0..2 {
        middle.wait(|event| matches!(event, NetEvent::Gossip { .. }).then_some(())).await;
        let Some(NetEvent::Gossip { from, topic, bytes, token }) = middle.seen.pop() else { unreachable!() };
        assert_eq!((from, topic.as_str()), (author.me(), "news"));
        let verdict = if bytes == b"accepted" { Verdict::Accept } else { Verdict::Reject };
        middle.net.judge(token, verdict).unwrap();
    }
    let forwarding = async { while middle.events.next().await.is_some() {} };
    let arriving = end.wait(|event| match event {
        NetEvent::Gossip { from, bytes, .. } => Some((*from, bytes.clone())),
        _ => None,
    });
    tokio::select! {
        () = forwarding => {}
        arrived = arriving => assert_eq!(arrived, (author.me(), b"accepted".to_vec())),
    }
}
