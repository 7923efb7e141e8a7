//! Sessions: one long-lived stream per peer and direction of work, frames both ways.
//!
//! A new stream costs round trips, a kept one does not: so a session is opened by its first frame and kept. The frames
//! never pass through the swarm's task. Each session is one task that reads and writes its stream; it delivers to the
//! driver's queue directly, everything that one read brought in at once, and it flushes everything that was queued
//! meanwhile at once.
//!
//! libp2p's stream behaviour drops inbound streams when its acceptor is busy, without a word. So the acceptor does
//! nothing but start tasks, and greets: the opener sends nothing before it has read the greeting, and tries once more
//! when the stream ends without one.

mod wire;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crypto::PeerId;
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::{Stream, StreamProtocol};
use libp2p_stream::{Control, IncomingStreams};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::event::{Misconduct, NetEvent, Role, SessionEnd};
use super::swarm::Command;

/// All sessions of this peer, shared by the handle, the event queue and the tasks.
pub(super) struct Sessions {
    table: Mutex<HashMap<(PeerId, Role), Session>>,
    control: Control,
    protocol: StreamProtocol,
    /// Weak, like `events`: sessions must not keep a network alive that nobody holds.
    commands: mpsc::WeakSender<Command>,
    events: mpsc::WeakSender<NetEvent>,
    runtime: Handle,
    max_frame: usize,
}

/// The near end of one session.
struct Session {
    /// Dropped to end the session in order.
    queue: mpsc::Sender<Outgoing>,
    /// Ends it at once, when another one takes its place.
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A frame that waits to be written.
struct Outgoing {
    frame: Vec<u8>,
    /// Given back when the frame has left or is lost; this is how a producer feels the remote.
    _permit: Option<OwnedSemaphorePermit>,
}

/// Why a frame was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The session is over, or the peer has not opened one: wait for news of it.
    #[error("there is no such session")]
    Closed,
    /// The remote reads slower than we write: send later, or hold a permit per frame.
    #[error("the session's queue is full: the peer reads too slowly")]
    Full,
    /// A frame has at least one byte and at most [`Limits::frame`](super::Limits::frame).
    #[error("a frame of {len} bytes cannot be sent: it must have 1 to {max}")]
    Size {
        /// Its length.
        len: usize,
        /// The cap.
        max: usize,
    },
}

/// What comes before the conversation.
trait Begin: Future<Output = io::Result<Stream>> + Send + 'static {}
impl<F: Future<Output = io::Result<Stream>> + Send + 'static> Begin for F {}

/// What a session needs of its surroundings.
pub(super) struct Surroundings {
    pub(super) control: Control,
    pub(super) protocol: StreamProtocol,
    pub(super) commands: mpsc::WeakSender<Command>,
    pub(super) events: mpsc::WeakSender<NetEvent>,
    pub(super) max_frame: usize,
}

impl Sessions {
    pub(super) fn new(around: Surroundings) -> Arc<Self> {
        let Surroundings { control, protocol, commands, events, max_frame } = around;
        let runtime = Handle::current();
        Arc::new(Self { table: Mutex::default(), control, protocol, commands, events, runtime, max_frame })
    }

    /// Queues a frame; the first one as requester opens the session.
    pub(super) fn send(
        self: &Arc<Self>,
        peer: PeerId,
        role: Role,
        frame: Vec<u8>,
        permit: Option<OwnedSemaphorePermit>,
    ) -> Result<(), FrameError> {
        if frame.is_empty() || frame.len() > self.max_frame {
            return Err(FrameError::Size { len: frame.len(), max: self.max_frame });
        }
        let mut table = self.table();
        if role == Role::Requester && !table.contains_key(&(peer, role)) {
            if table.len() >= MAX_SESSIONS {
                return Err(FrameError::Full);
            }
            table.insert((peer, role), self.open(peer));
        }
        let session = table.get(&(peer, role)).ok_or(FrameError::Closed)?;
        session.queue.try_send(Outgoing { frame, _permit: permit }).map_err(|error| match error {
            mpsc::error::TrySendError::Closed(_) => FrameError::Closed,
            mpsc::error::TrySendError::Full(_) => FrameError::Full,
        })
    }

    /// Sends what is queued, then ends the session in order.
    pub(super) fn close(&self, peer: PeerId, role: Role) {
        if let Some(session) = self.table().get_mut(&(peer, role)) {
            // A queue whose receiver lives on in nobody: the task drains the old one and ends.
            session.queue = mpsc::channel(1).0;
        }
    }

    /// Takes a session that is over out of the table, unless another one is already in its place.
    pub(super) fn forget(&self, peer: PeerId, role: Role) {
        let mut table = self.table();
        if table.get(&(peer, role)).is_some_and(|session| session.queue.is_closed()) {
            table.remove(&(peer, role));
        }
    }

    pub(super) fn len(&self) -> usize {
        self.table().len()
    }

    /// True when a session with this peer is open.
    pub(super) fn serves(&self, peer: PeerId) -> bool {
        let table = self.table();
        [Role::Provider, Role::Requester].iter().any(|role| table.contains_key(&(peer, *role)))
    }

    /// Ends everything in order and waits for it.
    pub(super) async fn close_all(&self) {
        let sessions: Vec<_> = self.table().drain().map(|(_, session)| session).collect();
        for Session { queue, task, .. } in sessions {
            drop(queue);
            let _ = task.await;
        }
    }

    /// Accepts what others open, until the network stops.
    pub(super) async fn accept(self: Arc<Self>, mut incoming: IncomingStreams) {
        while let Some((peer, stream)) = incoming.next().await {
            match super::name(&peer) {
                Some(peer) => self.admit(peer, stream),
                None => drop(stream),
            }
        }
    }

    /// Starts a session that a peer has opened. A second one replaces the first: the peer has lost it.
    fn admit(self: &Arc<Self>, peer: PeerId, stream: Stream) {
        let key = (peer, Role::Provider);
        let mut table = self.table();
        if table.len() >= MAX_SESSIONS && !table.contains_key(&key) {
            tracing::warn!(%peer, "a session was refused: too many are open");
            return;
        }
        let before = table.remove(&key).map(|session| {
            session.stop.cancel();
            session.task
        });
        let greeted = async move {
            if let Some(before) = before {
                // Its last event comes before our first.
                let _ = before.await;
            }
            greet(stream).await
        };
        table.insert(key, self.start(key, greeted));
    }

    fn open(self: &Arc<Self>, peer: PeerId) -> Session {
        let sessions = Arc::clone(self);
        self.start((peer, Role::Requester), async move { sessions.connect(peer).await })
    }

    /// Starts the task of a session: it begins, converses, and says that it is over, whatever happened.
    fn start(self: &Arc<Self>, key: (PeerId, Role), begin: impl Begin) -> Session {
        let (queue, outgoing) = mpsc::channel(FRAME_QUEUE);
        let stop = CancellationToken::new();
        let (sessions, stopped) = (Arc::clone(self), stop.clone());
        let task = self.runtime.spawn(async move {
            let Some(events) = sessions.events.upgrade() else { return };
            let end = match begin.await {
                Ok(stream) => tokio::select! {
                    end = converse(stream, outgoing, sessions.inflow(), Delivery { key, events: &events }) => end,
                    () = stopped.cancelled() => SessionEnd::Replaced,
                },
                Err(error) => {
                    drop(outgoing);
                    tracing::debug!(peer = %key.0, role = ?key.1, %error, "a session did not begin");
                    SessionEnd::Unreachable
                }
            };
            let _ = events.send(NetEvent::SessionClosed { peer: key.0, role: key.1, end }).await;
        });
        Session { queue, stop, task }
    }

    /// Opens a stream to the peer; once more when the first one ended without a greeting.
    async fn connect(&self, peer: PeerId) -> io::Result<Stream> {
        let first = self.open_stream(peer).await;
        match first {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                sleep(jitter()).await;
                self.open_stream(peer).await
            }
            other => other,
        }
    }

    /// Connects, opens a stream, and reads the greeting.
    async fn open_stream(&self, peer: PeerId) -> io::Result<Stream> {
        let remote = super::foreign(&peer).ok_or(io::ErrorKind::NotFound)?;
        let (reached, answer) = oneshot::channel();
        // libp2p-stream would dial too, but its dial can get lost; the swarm's task knows the addresses.
        let commands = self.commands.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let asked = commands.send(Command::Reach { peer: remote, reached }).await;
        asked.map_err(|_| io::ErrorKind::NotConnected)?;
        if !answer.await.unwrap_or(false) {
            return Err(io::ErrorKind::NotConnected.into());
        }
        let opening = async {
            let mut control = self.control.clone();
            let mut stream =
                control.open_stream(remote, self.protocol.clone()).await.map_err(io::Error::other)?;
            let mut greeting = wire::GREETING;
            stream.read_exact(&mut greeting).await?;
            if greeting == wire::GREETING { Ok(stream) } else { Err(io::ErrorKind::InvalidData.into()) }
        };
        timeout(OPEN_TIMEOUT, opening).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
    }

    fn inflow(&self) -> wire::Inflow {
        wire::Inflow::new(self.max_frame)
    }

    /// A panic elsewhere cannot leave the table half-changed: every change is one call.
    fn table(&self) -> MutexGuard<'_, HashMap<(PeerId, Role), Session>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sessions").field("open", &self.len()).finish_non_exhaustive()
    }
}

/// Where what a session hears goes to.
struct Delivery<'a> {
    key: (PeerId, Role),
    events: &'a mpsc::Sender<NetEvent>,
}

/// Reads and writes until either side has ended.
async fn converse(
    stream: Stream,
    outgoing: mpsc::Receiver<Outgoing>,
    inflow: wire::Inflow,
    delivery: Delivery<'_>,
) -> SessionEnd {
    let (reader, writer) = stream.split();
    let activity = Activity::default();
    let mut listening = pin!(listen(reader, inflow, delivery, &activity));
    tokio::select! {
        end = &mut listening => end,
        () = activity.ceased() => SessionEnd::Closed,
        written = talk(writer, outgoing, &activity) => match written {
            Ok(()) => SessionEnd::Closed,
            // It is there and reads nothing; waiting for a word of it could take for ever.
            Err(error) if error.kind() == io::ErrorKind::TimedOut => SessionEnd::Lost,
            // The remote is gone, but what it sent before may still be unread.
            Err(_) => listening.await,
        },
    }
}

/// When bytes last passed, in either direction. A session that nobody uses holds a connection that others may need;
/// the next job opens another one.
struct Activity(Mutex<Instant>);

impl Default for Activity {
    fn default() -> Self {
        Self(Mutex::new(Instant::now()))
    }
}

impl Activity {
    fn note(&self) {
        *self.last() = Instant::now();
    }

    /// Returns when nothing has passed for [`IDLE`].
    async fn ceased(&self) {
        loop {
            let due = *self.last() + IDLE;
            if due <= Instant::now() {
                return;
            }
            sleep_until(due).await;
        }
    }

    fn last(&self) -> MutexGuard<'_, Instant> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads until the stream ends, at the driver's pace.
async fn listen(
    mut reader: impl AsyncRead + Unpin,
    mut inflow: wire::Inflow,
    to: Delivery<'_>,
    activity: &Activity,
) -> SessionEnd {
    let (from, role) = to.key;
    loop {
        let frames = match reader.read(inflow.room()).await {
            Err(_) => return SessionEnd::Lost,
            Ok(0) if inflow.is_between_frames() => return SessionEnd::Closed,
            Ok(0) => Err(Misconduct::TruncatedFrame),
            Ok(read) => {
                activity.note();
                inflow.advance(read)
            }
        };
        match frames {
            Err(what) => {
                let _ = to.events.send(NetEvent::BadPeer { peer: from, what }).await;
                return SessionEnd::Misconduct;
            }
            Ok(frames) if frames.is_empty() => {}
            Ok(frames) => {
                if to.events.send(NetEvent::Frames { from, role, frames }).await.is_err() {
                    return SessionEnd::Closed;
                }
            }
        }
    }
}

/// Tells the opener that its stream has arrived.
async fn greet(mut stream: Stream) -> io::Result<Stream> {
    stream.write_all(&wire::GREETING).await?;
    stream.flush().await?;
    Ok(stream)
}

/// Writes what is queued, all of it before each flush, until the queue is closed and empty.
async fn talk(
    mut writer: impl AsyncWrite + Unpin,
    mut outgoing: mpsc::Receiver<Outgoing>,
    activity: &Activity,
) -> io::Result<()> {
    let mut batch = Vec::with_capacity(FRAME_QUEUE);
    let mut bytes = Vec::new();
    while outgoing.recv_many(&mut batch, FRAME_QUEUE).await > 0 {
        for Outgoing { frame, .. } in &batch {
            wire::put(&mut bytes, frame);
            if bytes.len() >= COALESCE {
                timeout(WRITE_TIMEOUT, writer.write_all(&bytes)).await??;
                bytes.clear();
            }
        }
        let flushed = async {
            writer.write_all(&bytes).await?;
            writer.flush().await
        };
        timeout(WRITE_TIMEOUT, flushed).await??;
        activity.note();
        bytes.clear();
        bytes.shrink_to(COALESCE);
        batch.clear();
    }
    writer.close().await
}

/// Two peers that lost the same race must not meet again in the next one.
fn jitter() -> Duration {
    RETRY_AFTER.mul_f64(1.0 + f64::from(getrandom::u32().unwrap_or(0)) / f64::from(u32::MAX))
}

/// Sessions at once, both directions: some 10 KiB each when idle.
const MAX_SESSIONS: usize = 1024;
/// Frames that wait for the remote to read, per session. Tokens are held to a quarter of it by their window
/// ([`crate::agents`]); the rest is for what goes between them, so a full queue means a remote that does not read.
pub(super) const FRAME_QUEUE: usize = 1024;
/// Bytes that are handed to the stream at once.
const COALESCE: usize = 32 * 1024;
/// From the request for a stream to the greeting.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Longer than the gap between two jobs of somebody at work, and than any sign of life is apart.
const IDLE: Duration = Duration::from_secs(300);
/// A remote that takes nothing for so long will not: what works for it is stopped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(25);
