//! How peers meet, and how they do not.

use super::*;

async fn bootstrap_succeeds(listen: &str) {
    let (first, mut second) = pair(listen).await;
    let (expected, me) = (first.listening[0].clone(), first.me());
    let succeeded = |event: &NetEvent| matches!(event, NetEvent::BootstrapSucceeded { address, peer } if *address == expected && *peer == me);
    if !second.seen.iter().any(succeeded) {
        second.wait(|event| succeeded(event).then_some(())).await;
    }
    let snapshot = second.net.snapshot().await.unwrap();
    assert_eq!(snapshot.peers.len(), 1);
    let info = &snapshot.peers[0];
    assert_eq!((info.peer, info.direction), (me, Direction::Outbound));
    assert_eq!(info.transport, expected.transport());
    assert_eq!(info.agent.as_deref(), Some(concat!("llamesh/", env!("CARGO_PKG_VERSION"))));
    assert_eq!(snapshot.advertised, second.listening);
    assert!(snapshot.serves_lookups);
    assert_eq!(snapshot.routing_table, 1);
}

#[tokio::test]
async fn peers_meet_over_tcp() {
    bootstrap_succeeds(TCP).await;
}

#[tokio::test]
async fn peers_meet_over_quic() {
    bootstrap_succeeds(QUIC).await;
}

#[tokio::test]
async fn a_bootstrap_address_without_a_peer_learns_it() {
    let mut first = Node::join(1, TCP, &[]).await;
    let bare: Address = first.listening[0].to_string().split("/p2p/").next().unwrap().parse().unwrap();
    let mut second = Node::join(2, TCP, std::slice::from_ref(&bare)).await;
    first.connected(second.me()).await;
    let learnt = second.wait(|event| match event {
        NetEvent::BootstrapSucceeded { address, peer } => Some((address.clone(), *peer)),
        _ => None,
    });
    assert_eq!(learnt.await, (bare, first.me()));
}

/// The first failure of the only bootstrap address.
async fn failure(bootstrap: Address) -> BootstrapFailure {
    let mut node = Node::join(9, TCP, &[bootstrap]).await;
    node.wait(|event| match event {
        NetEvent::BootstrapFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    })
    .await
}

#[tokio::test]
async fn another_peer_at_the_address_is_told_apart() {
    let first = Node::join(1, TCP, &[]).await;
    let expected = key(3).peer_id();
    let reason = failure(first.listening[0].with_peer(&expected)).await;
    assert_eq!(reason, Box::new(WrongPeer { expected, found: Some(first.me()) }).into());
}

#[tokio::test]
async fn nobody_at_the_address_is_unreachable() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let reason = failure(format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap()).await;
    let BootstrapFailure::Unreachable(why) = reason else { panic!("{reason:?}") };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn our_own_address_is_noticed() {
    let node = Node::join(9, TCP, &[]).await;
    let mut twin = Node::join(9, TCP, &node.listening).await;
    let reason = twin.wait(|event| match event {
        NetEvent::BootstrapFailed { reason, .. } => Some(reason.clone()),
        _ => None,
    });
    assert_eq!(reason.await, BootstrapFailure::Itself);
}

#[tokio::test]
async fn peers_of_another_network_do_not_stay() {
    let mut other = Node::start(NetConfig { network: "other".parse().unwrap(), ..config(1, TCP, &[]) }).await;
    let reason = failure(other.listening[0].clone()).await;
    assert_eq!(reason, BootstrapFailure::OtherNetwork { theirs: "/llamesh/other/id/1".to_owned() });
    // The other side has not called it a peer either: the next thing it hears of is a real one.
    let friend = NetConfig { network: "other".parse().unwrap(), ..config(2, TCP, &other.listening) };
    let friend = Node::start(friend).await;
    other.connected(friend.me()).await;
    let met = other.seen.iter().filter(|event| matches!(event, NetEvent::Connected(_))).count();
    assert_eq!(met, 1);
}

#[tokio::test]
async fn a_port_in_use_is_an_error_before_anything_runs() {
    for listen in [TCP, QUIC] {
        let first = Node::join(1, listen, &[]).await;
        let taken = first.listening[0].clone();
        let error =
            Net::start(NetConfig { listen: vec![taken.clone()], ..config(2, TCP, &[]) }).await.unwrap_err();
        assert!(matches!(error, NetError::AddressInUse { address } if address == taken));
    }
}

#[tokio::test]
async fn a_lost_bootstrap_peer_is_found_again() {
    let first = Node::join(1, TCP, &[]).await;
    let (place, me) = (first.listening[0].clone(), first.me());
    let mut second = Node::join(2, TCP, std::slice::from_ref(&place)).await;
    second.connected(me).await;
    first.net.shutdown().await;
    drop(first.events);
    second.wait(|event| matches!(event, NetEvent::Disconnected(peer) if *peer == me).then_some(())).await;
    second.seen.clear();
    let again = Node::start(NetConfig { listen: vec![place], ..config(1, TCP, &[]) }).await;
    second.connected(again.me()).await;
}

#[tokio::test]
async fn a_blocked_peer_is_disconnected_and_refused() {
    let (mut first, second) = pair(TCP).await;
    let blocked = second.me();
    first.net.block(blocked).unwrap();
    first.wait(|event| matches!(event, NetEvent::Disconnected(peer) if *peer == blocked).then_some(())).await;
    first.net.request(1, blocked, b"hello".to_vec()).unwrap();
    let result = first.wait(|event| match event {
        NetEvent::Response { id: 1, result, .. } => Some(result.clone()),
        _ => None,
    });
    assert_eq!(result.await, Err(RequestError::Unreachable));
}

#[tokio::test]
async fn a_failed_dial_is_remembered_for_the_doctor() {
    let mut node = Node::join(1, TCP, &[]).await;
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let nowhere: Address = format!("/ip4/127.0.0.1/tcp/{free}").parse().unwrap();
    // The bootstrap of a second address gives the event to wait for; both end in the same list.
    node.net.dial(nowhere.with_peer(&key(7).peer_id())).unwrap();
    node.net.request(1, key(7).peer_id(), b"?".to_vec()).unwrap();
    node.wait(|event| matches!(event, NetEvent::Response { id: 1, result: Err(_), .. }).then_some(())).await;
    let errors = node.net.snapshot().await.unwrap().dial_errors;
    assert!(errors.iter().any(|failure| failure.peer == Some(key(7).peer_id())), "{errors:?}");
}

/// A machine that went down without a word leaves connections that look alive. It must not be locked out by them when
/// it is back, however often.
#[tokio::test]
async fn a_peer_that_vanished_again_and_again_is_let_in() {
    for listen in [TCP, QUIC] {
        let mut first = Node::join(1, listen, &[]).await;
        let mut vanished = Vec::new();
        for _ in 0..4 {
            let mut second = Node::join(2, listen, &first.listening).await;
            let met = second.wait(|event| matches!(event, NetEvent::BootstrapSucceeded { .. }).then_some(()));
            tokio::select! {
                () = met => {}
                () = async { loop { first.events.next().await; } } => {}
            }
            // It is not driven any more, and so says nothing of its end.
            vanished.push(second);
        }
        let snapshot = first.net.snapshot().await.unwrap();
        assert_eq!(snapshot.peers.len(), 1);
    }
}
