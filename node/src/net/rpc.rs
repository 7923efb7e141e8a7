//! Questions and answers: the codec of `/llamesh/<network>/rpc/1`, and who waits for what.
//!
//! A message is its length (four bytes, big-endian) and its bytes. The length is checked before anything is
//! allocated, and memory grows only as bytes arrive. Answers come within seconds or not at all: long work goes over a
//! session. libp2p queues requests without a bound, so ours is here.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crypto::PeerId;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, OutboundFailure, OutboundRequestId, ProtocolSupport, ResponseChannel};

use super::event::{InboundId, RequestError};

/// libp2p's behaviour, with our codec.
pub(super) type Rpc = request_response::Behaviour<Codec>;

pub(super) fn behaviour(protocol: StreamProtocol, codec: Codec) -> Rpc {
    let config = request_response::Config::default()
        .with_request_timeout(REQUEST_TIMEOUT)
        .with_max_concurrent_streams(MAX_STREAMS);
    Rpc::with_codec(codec, [(protocol, ProtocolSupport::Full)], config)
}

/// Length-prefixed bytes, each direction with its cap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Codec {
    pub(super) max_request: usize,
    pub(super) max_response: usize,
}

/// A request as it comes in. libp2p is silent about requests that cannot be read, so a bad one is a value too.
#[derive(Debug)]
pub(super) enum Request {
    Bytes(Vec<u8>),
    /// It declared more than its cap, and was not read.
    OverCap,
}

/// The declared length is over the cap.
#[derive(Debug, thiserror::Error)]
#[error("the message is longer than allowed")]
struct OverCap;

/// True when a stream failed because the remote declared too much.
fn is_over_cap(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<OverCap>())
}

impl request_response::Codec for Codec {
    type Protocol = StreamProtocol;
    type Request = Request;
    type Response = Vec<u8>;

    async fn read_request<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Request>
    where
        T: AsyncRead + Unpin + Send,
    {
        match read(io, self.max_request).await {
            Err(error) if is_over_cap(&error) => Ok(Request::OverCap),
            read => read.map(Request::Bytes),
        }
    }

    async fn read_response<T>(&mut self, _: &StreamProtocol, io: &mut T) -> io::Result<Vec<u8>>
    where
        T: AsyncRead + Unpin + Send,
    {
        read(io, self.max_response).await
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, request: Request) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        match request {
            Request::Bytes(bytes) => write(io, &bytes).await,
            Request::OverCap => Err(io::Error::new(io::ErrorKind::InvalidInput, OverCap)),
        }
    }

    async fn write_response<T>(&mut self, _: &StreamProtocol, io: &mut T, response: Vec<u8>) -> io::Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        write(io, &response).await
    }
}

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T, cap: usize) -> io::Result<Vec<u8>> {
    let mut prefix = [0; 4];
    io.read_exact(&mut prefix).await?;
    let len = u32::from_be_bytes(prefix) as usize;
    if len > cap {
        return Err(io::Error::new(io::ErrorKind::InvalidData, OverCap));
    }
    let mut bytes = Vec::with_capacity(len.min(FIRST_ALLOCATION));
    io.take(len as u64).read_to_end(&mut bytes).await?;
    if bytes.len() < len { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(bytes) }
}

/// One write per message: prefix and body leave in one packet.
async fn write<T: AsyncWrite + Unpin + Send>(io: &mut T, bytes: &[u8]) -> io::Result<()> {
    let len = u32::try_from(bytes.len()).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, OverCap))?;
    let mut message = Vec::with_capacity(4 + bytes.len());
    message.extend_from_slice(&len.to_be_bytes());
    message.extend_from_slice(bytes);
    io.write_all(&message).await
}

/// Requests on the way, in both directions.
#[derive(Debug, Default)]
pub(super) struct Requests {
    outbound: HashMap<OutboundRequestId, Outbound>,
    /// How many of `outbound` wait for each peer.
    per_peer: HashMap<PeerId, usize>,
    inbound: HashMap<InboundId, ResponseChannel<Vec<u8>>>,
}

/// A request of ours on the way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outbound {
    pub(super) id: u64,
    pub(super) to: PeerId,
}

impl Requests {
    pub(super) fn has_room_for(&self, to: &PeerId) -> bool {
        self.outbound.len() < MAX_OUTBOUND && self.with(to) < MAX_PER_PEER
    }

    /// How many of our requests wait for this peer.
    pub(super) fn with(&self, peer: &PeerId) -> usize {
        self.per_peer.get(peer).copied().unwrap_or(0)
    }

    pub(super) fn sent(&mut self, request: OutboundRequestId, outbound: Outbound) {
        *self.per_peer.entry(outbound.to).or_default() += 1;
        self.outbound.insert(request, outbound);
    }

    /// Answered or failed: it counts no more.
    pub(super) fn ended(&mut self, request: OutboundRequestId) -> Option<Outbound> {
        let outbound = self.outbound.remove(&request)?;
        if let Some(count) = self.per_peer.get_mut(&outbound.to) {
            *count -= 1;
            if *count == 0 {
                self.per_peer.remove(&outbound.to);
            }
        }
        Some(outbound)
    }

    /// Keeps the way back. False when too many answers are owed already; then the remote sees its stream closed.
    pub(super) fn arrived(&mut self, inbound: InboundId, channel: ResponseChannel<Vec<u8>>) -> bool {
        let room = self.inbound.len() < MAX_INBOUND;
        if room {
            self.inbound.insert(inbound, channel);
        }
        room
    }

    /// The way back, unless the answer comes too late.
    pub(super) fn answer(&mut self, inbound: InboundId) -> Option<ResponseChannel<Vec<u8>>> {
        self.inbound.remove(&inbound)
    }
}

/// The reason in our words.
pub(super) fn reason(failure: &OutboundFailure) -> RequestError {
    match failure {
        OutboundFailure::ConnectionClosed => RequestError::Lost,
        OutboundFailure::DialFailure => RequestError::Unreachable,
        OutboundFailure::Io(error) if is_over_cap(error) => RequestError::ResponseOverCap,
        OutboundFailure::Io(_) => RequestError::Lost,
        OutboundFailure::Timeout => RequestError::Timeout,
        OutboundFailure::UnsupportedProtocols => RequestError::Unsupported,
    }
}

/// From the dial to the last byte of the answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Requests that one connection may have open at us.
const MAX_STREAMS: usize = 64;
/// Our requests on the way, to everybody; each may hold its cap in bytes.
const MAX_OUTBOUND: usize = 1024;
/// Our requests on the way to one peer: no more than it takes at once.
const MAX_PER_PEER: usize = MAX_STREAMS;
/// Answers that we may owe at once.
const MAX_INBOUND: usize = 1024;
/// Reserved on the word of a stranger; the rest is paid for by bytes that arrived.
const FIRST_ALLOCATION: usize = 8 * 1024;

#[cfg(test)]
mod tests {
    use futures::executor::block_on;
    use futures::io::Cursor;

    use super::*;

    fn read_back(bytes: &[u8], cap: usize) -> io::Result<Vec<u8>> {
        block_on(read(&mut Cursor::new(bytes), cap))
    }

    #[test]
    fn what_is_written_is_read() {
        for body in [&b""[..], b"x", &[7; 100_000]] {
            let mut wire = Cursor::new(Vec::new());
            block_on(write(&mut wire, body)).unwrap();
            assert_eq!(read_back(wire.get_ref(), 100_000).unwrap(), body);
        }
    }

    #[test]
    fn a_length_over_the_cap_is_refused_by_its_prefix() {
        let error = read_back(&[0, 0, 0, 5], 4).unwrap_err();
        assert!(is_over_cap(&error));
        let error = read_back(&[0xff; 4], 1 << 20).unwrap_err();
        assert!(is_over_cap(&error));
    }

    #[test]
    fn a_message_that_breaks_off_is_an_error() {
        for bytes in [&[][..], &[0, 0], &[0, 0, 0, 2, 7]] {
            assert_eq!(read_back(bytes, 10).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
    }
}
