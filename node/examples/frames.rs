//! How fast the network layer is on loopback: frames per second in one session, and the round trip of a frame and of
//! a request, over TCP and over QUIC.
//!
//! `cargo run --release -p llamesh-node --example frames`

#![expect(clippy::print_stdout, reason = "an example prints its result")]

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crypto::{PeerId, SecretKey};
use node::net::{Address, Events, Limits, Net, NetConfig, NetEvent, Role};
use tokio::sync::Semaphore;

const FRAMES: usize = 300_000;
const ROUNDS: usize = 3_000;
/// A token frame: index, id, a few bytes of text, a commitment.
const FRAME: usize = 64;
const QUESTION: usize = 1024;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    for listen in ["/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"] {
        let (provider, mut heard) = Net::start(config(1, listen, Vec::new())?).await?;
        let place = listening(&mut heard).await?;
        println!("{place}");
        let (requester, mut events) = Net::start(config(2, listen, vec![place])?).await?;
        connected(&mut events).await?;
        let serving = tokio::spawn(serve(provider.clone(), heard));
        stream(&requester, provider.me(), &mut events).await?;
        frame_round_trips(&requester, provider.me(), &mut events).await?;
        request_round_trips(&requester, provider.me(), &mut events).await?;
        requester.shutdown().await;
        serving.abort();
    }
    Ok(())
}

fn config(seed: u8, listen: &str, bootstrap: Vec<Address>) -> Result<NetConfig, Box<dyn Error>> {
    Ok(NetConfig {
        network: "bench".parse()?,
        key: SecretKey::from_seed(&[seed; 32]),
        listen: vec![listen.parse()?],
        external: Vec::new(),
        bootstrap,
        lan: false,
        client: false,
        limits: Limits::default(),
    })
}

async fn listening(events: &mut Events) -> Result<Address, Box<dyn Error>> {
    while let Some(event) = events.next().await {
        if let NetEvent::Listening(address) = event {
            return Ok(address);
        }
    }
    Err("the network stopped".into())
}

async fn connected(events: &mut Events) -> Result<(), Box<dyn Error>> {
    while let Some(event) = events.next().await {
        if matches!(event, NetEvent::Connected(_)) {
            return Ok(());
        }
    }
    Err("the network stopped".into())
}

/// Answers requests and single frames; a frame of one byte asks for the stream.
async fn serve(net: Net, mut events: Events) {
    while let Some(event) = events.next().await {
        match event {
            NetEvent::Request { inbound, bytes, .. } => _ = net.respond(inbound, bytes),
            NetEvent::Frames { from, frames, .. } => {
                for frame in frames {
                    if frame.len() == 1 {
                        tokio::spawn(pour(net.clone(), from));
                    } else {
                        let _ = net.frame(from, Role::Provider, frame, None);
                    }
                }
            }
            _ => {}
        }
    }
}

async fn pour(net: Net, to: PeerId) {
    let permits = Arc::new(Semaphore::new(128));
    for _ in 0..FRAMES {
        let permit = Arc::clone(&permits).acquire_owned().await.ok();
        let _ = net.frame(to, Role::Provider, vec![7; FRAME], permit);
    }
}

async fn stream(net: &Net, to: PeerId, events: &mut Events) -> Result<(), Box<dyn Error>> {
    net.frame(to, Role::Requester, vec![1], None)?;
    let (mut arrived, mut wakes, begin) = (0, 0_usize, Instant::now());
    while arrived < FRAMES {
        if let Some(NetEvent::Frames { frames, .. }) = events.next().await {
            arrived += frames.len();
            wakes += 1;
        }
    }
    let rate = arrived as f64 / begin.elapsed().as_secs_f64();
    println!("  frames of {FRAME} B       {rate:>9.0} /s   {:.1} per event", arrived as f64 / wakes as f64);
    Ok(())
}

async fn frame_round_trips(net: &Net, to: PeerId, events: &mut Events) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        net.frame(to, Role::Requester, vec![7; QUESTION], None)?;
        while !matches!(events.next().await, Some(NetEvent::Frames { .. }) | None) {}
        times.push(begin.elapsed());
    }
    report("frame there and back", times);
    Ok(())
}

async fn request_round_trips(net: &Net, to: PeerId, events: &mut Events) -> Result<(), Box<dyn Error>> {
    let mut times = Vec::with_capacity(ROUNDS);
    for id in 0..ROUNDS {
        let begin = Instant::now();
        net.request(id as u64, to, vec![7; QUESTION])?;
        while !matches!(events.next().await, Some(NetEvent::Response { .. }) | None) {}
        times.push(begin.elapsed());
    }
    report("request and response", times);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default();
    println!("  {what}  p50 {:>8.1?}  p99 {:>8.1?}", at(50), at(99));
}
