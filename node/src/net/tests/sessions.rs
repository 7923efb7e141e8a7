//! Frames: in order, both ways, bounded, and with a definite end.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::*;

const FRAMES: u32 = 10_000;

/// Sends `FRAMES` numbered frames at the remote's pace.
async fn count_out(net: Net, to: PeerId, role: Role) {
    let permits = Arc::new(Semaphore::new(64));
    for number in 0..FRAMES {
        let permit = Arc::clone(&permits).acquire_owned().await.unwrap();
        net.frame(to, role, number.to_be_bytes().to_vec(), Some(permit)).unwrap();
    }
}

/// Reads `FRAMES` numbered frames, and fails on the first that is out of order.
async fn count_in(node: &mut Node, expected: PeerId, side: Role) {
    let mut next = 0;
    while next < FRAMES {
        let event = timeout(PATIENCE, node.events.next()).await.expect("frames keep coming").unwrap();
        if let NetEvent::Frames { from, role, frames } = event {
            assert_eq!((from, role), (expected, side));
            for frame in frames {
                assert_eq!(frame, next.to_be_bytes());
                next += 1;
            }
        }
    }
}

async fn both_ways_in_order(listen: &str) {
    let (mut first, mut second) = pair(listen).await;
    let (provider, requester) = (first.me(), second.me());
    let asking = tokio::spawn(count_out(second.net.clone(), provider, Role::Requester));
    count_in(&mut first, requester, Role::Provider).await;
    asking.await.unwrap();
    let answering = tokio::spawn(count_out(first.net.clone(), requester, Role::Provider));
    count_in(&mut second, provider, Role::Requester).await;
    answering.await.unwrap();
}

#[tokio::test]
async fn ten_thousand_frames_both_ways_in_order_over_tcp() {
    both_ways_in_order(TCP).await;
}

#[tokio::test]
async fn ten_thousand_frames_both_ways_in_order_over_quic() {
    both_ways_in_order(QUIC).await;
}

#[tokio::test]
async fn a_session_dials_a_peer_that_is_only_known_by_its_address() {
    let mut first = Node::join(1, TCP, &[]).await;
    let second = Node::join(2, TCP, &[]).await;
    second.net.dial(first.listening[0].clone()).unwrap();
    second.net.frame(first.me(), Role::Requester, b"hello".to_vec(), None).unwrap();
    let frames = first.wait(|event| match event {
        NetEvent::Frames { frames, .. } => Some(frames.clone()),
        _ => None,
    });
    assert_eq!(frames.await, [b"hello"]);
}

#[tokio::test]
async fn a_slow_driver_slows_the_sender_down() {
    let (mut first, second) = pair(TCP).await;
    let (provider, requester) = (first.me(), second.me());
    // Nobody reads the first's events: sooner or later the second's queue is full, and stays full.
    let frame = vec![7; 4000];
    let mut sent = 0_usize;
    loop {
        match second.net.frame(provider, Role::Requester, frame.clone(), None) {
            Ok(()) => sent += 1,
            Err(FrameError::Full) if sent * frame.len() > 4 << 20 => break,
            Err(FrameError::Full) => tokio::task::yield_now().await,
            Err(error) => panic!("{error}"),
        }
        assert!(sent * frame.len() < 1 << 30, "nothing pushes back");
    }
    // Nothing is lost by it.
    let mut arrived = 0;
    while arrived < sent {
        let event = timeout(PATIENCE, first.events.next()).await.expect("frames keep coming").unwrap();
        if let NetEvent::Frames { from, frames, .. } = event {
            assert_eq!(from, requester);
            arrived += frames.len();
        }
    }
    assert_eq!(arrived, sent);
}

fn closed(event: &NetEvent) -> Option<(PeerId, Role, SessionEnd)> {
    match event {
        NetEvent::SessionClosed { peer, role, end } => Some((*peer, *role, *end)),
        _ => None,
    }
}

/// A pair with an open session from the second to the first.
async fn conversing() -> (Node, Node) {
    let (mut first, second) = pair(TCP).await;
    second.net.frame(first.me(), Role::Requester, b"begin".to_vec(), None).unwrap();
    first.wait(|event| matches!(event, NetEvent::Frames { .. }).then_some(())).await;
    (first, second)
}

#[tokio::test]
async fn a_session_that_is_closed_says_what_it_had_to_say_first() {
    let (mut first, mut second) = conversing().await;
    second.net.frame(first.me(), Role::Requester, b"last words".to_vec(), None).unwrap();
    second.net.close_session(first.me(), Role::Requester);
    first
        .wait(|event| {
            matches!(event, NetEvent::Frames { frames, .. } if frames == &[b"last words"]).then_some(())
        })
        .await;
    assert_eq!(first.wait(closed).await, (second.me(), Role::Provider, SessionEnd::Closed));
    assert_eq!(second.wait(closed).await, (first.me(), Role::Requester, SessionEnd::Closed));
    // The next frame opens another one.
    second.net.frame(first.me(), Role::Requester, b"again".to_vec(), None).unwrap();
    first
        .wait(|event| matches!(event, NetEvent::Frames { frames, .. } if frames == &[b"again"]).then_some(()))
        .await;
}

#[tokio::test]
async fn a_peer_that_goes_ends_its_sessions() {
    let (first, mut second) = conversing().await;
    let gone = first.me();
    drop(first);
    let (peer, role, _) = second.wait(closed).await;
    assert_eq!((peer, role), (gone, Role::Requester));
}

#[tokio::test]
async fn a_provider_cannot_begin() {
    let (first, second) = pair(TCP).await;
    assert_eq!(first.net.frame(second.me(), Role::Provider, vec![1], None), Err(FrameError::Closed));
}

#[tokio::test]
async fn a_session_with_nobody_ends_as_unreachable() {
    let mut node = Node::join(1, TCP, &[]).await;
    let nobody = key(7).peer_id();
    node.net.frame(nobody, Role::Requester, vec![1], None).unwrap();
    assert_eq!(node.wait(closed).await, (nobody, Role::Requester, SessionEnd::Unreachable));
}

#[tokio::test]
async fn a_frame_over_the_cap_costs_the_session_and_nothing_else() {
    let mut first = Node::start(NetConfig {
        limits: Limits { frame: 10, ..config(1, TCP, &[]).limits },
        ..config(1, TCP, &[])
    })
    .await;
    let mut second = Node::join(2, TCP, &first.listening).await;
    let mut third = Node::join(3, TCP, &first.listening).await;
    second.connected(first.me()).await;
    third.connected(first.me()).await;
    third.net.frame(first.me(), Role::Requester, vec![3], None).unwrap();
    first.wait(|event| matches!(event, NetEvent::Frames { .. }).then_some(())).await;
    second.net.frame(first.me(), Role::Requester, vec![2; 11], None).unwrap();
    let culprit = second.me();
    let bad = |event: &NetEvent| match event {
        NetEvent::BadPeer { peer, what } => Some((*peer, *what)),
        _ => None,
    };
    assert_eq!(first.wait(bad).await, (culprit, Misconduct::FrameOverCap));
    assert_eq!(first.wait(closed).await, (culprit, Role::Provider, SessionEnd::Misconduct));
    third.net.frame(first.me(), Role::Requester, vec![4], None).unwrap();
    let other = third.me();
    first.wait(|event| matches!(event, NetEvent::Frames { from, .. } if *from == other).then_some(())).await;
    assert_eq!(
        second.net.frame(first.me(), Role::Requester, vec![2; 4001], None),
        Err(FrameError::Size { len: 4001, max: 4000 }),
    );
}

#[tokio::test]
async fn a_shutdown_lets_sessions_finish() {
    let (mut first, second) = conversing().await;
    second.net.frame(first.me(), Role::Requester, b"bye".to_vec(), None).unwrap();
    let net = second.net.clone();
    let leaving = tokio::spawn(async move { net.shutdown().await });
    let reading = second.idle();
    first
        .wait(|event| matches!(event, NetEvent::Frames { frames, .. } if frames == &[b"bye"]).then_some(()))
        .await;
    assert_eq!(first.wait(closed).await.2, SessionEnd::Closed);
    leaving.await.unwrap();
    reading.await.unwrap();
}
