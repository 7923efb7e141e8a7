//! The long-lived streams between requesters and providers: in order, or broken, and each end learns it in its time.
//!
//! Only the requester opens one. While a cut lasts, what is sent is held, as a transport would send it again; a cut
//! that outlasts the transport's patience breaks the stream at both ends. What is on its way to an end that has
//! closed is lost.

use std::collections::BTreeMap;

use protocol::Timestamp;
use protocol::event::Side;

use crate::host::HostId;

/// Names a stream; a pair that loses one gets another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(u64);

/// One stream.
#[derive(Debug)]
pub struct Stream {
    /// Who opened it.
    pub requester: HostId,
    /// Who works.
    pub provider: HostId,
    requesting: End,
    providing: End,
    held: Vec<(Side, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug)]
struct End {
    open: bool,
    /// When the latest frame arrives here; the next may not overtake it.
    latest: Timestamp,
}

/// All streams.
#[derive(Debug, Default)]
pub struct Streams {
    streams: BTreeMap<StreamId, Stream>,
    /// The one that a requester uses for a provider.
    current: BTreeMap<(HostId, HostId), StreamId>,
    next: u64,
}

impl Streams {
    /// The stream that a requester sends on, and whether it was opened for this.
    pub fn open(&mut self, requester: HostId, provider: HostId) -> (StreamId, bool) {
        if let Some(id) = self.current.get(&(requester, provider)) {
            return (*id, false);
        }
        self.next += 1;
        let id = StreamId(self.next);
        let end = End { open: true, latest: Timestamp(0) };
        let stream = Stream { requester, provider, requesting: end, providing: end, held: Vec::new() };
        self.streams.insert(id, stream);
        self.current.insert((requester, provider), id);
        (id, true)
    }

    /// The stream that a provider answers on, if its end is open.
    #[must_use]
    pub fn back(&self, requester: HostId, provider: HostId) -> Option<StreamId> {
        let id = *self.current.get(&(requester, provider))?;
        self.is_open(id, Side::Provider).then_some(id)
    }

    /// A stream, while either end of it is open.
    #[must_use]
    pub fn find(&self, id: StreamId) -> Option<&Stream> {
        self.streams.get(&id)
    }

    /// When something arrives that would by itself arrive at `earliest`: never before what was sent before.
    pub fn queue(&mut self, id: StreamId, to: Side, earliest: Timestamp) -> Timestamp {
        let Some(stream) = self.streams.get_mut(&id) else { return earliest };
        let end = stream.end_mut(to);
        end.latest = end.latest.max(earliest);
        end.latest
    }

    /// Keeps a frame until the cut is over.
    pub fn hold(&mut self, id: StreamId, to: Side, bytes: Vec<u8>) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.held.push((to, bytes));
        }
    }

    /// Everything that was held, in order.
    pub fn release(&mut self, id: StreamId) -> Vec<(Side, Vec<u8>)> {
        self.streams.get_mut(&id).map(|stream| std::mem::take(&mut stream.held)).unwrap_or_default()
    }

    /// True while an end takes frames.
    #[must_use]
    pub fn is_open(&self, id: StreamId, side: Side) -> bool {
        self.streams.get(&id).is_some_and(|stream| stream.end(side).open)
    }

    /// An end closes. True when it was open until now.
    pub fn close(&mut self, id: StreamId, side: Side) -> bool {
        let Some(stream) = self.streams.get_mut(&id) else { return false };
        let was_open = std::mem::replace(&mut stream.end_mut(side).open, false);
        let pair = (stream.requester, stream.provider);
        let over = !stream.requesting.open && !stream.providing.open;
        if side == Side::Requester && self.current.get(&pair) == Some(&id) {
            self.current.remove(&pair);
        }
        if over {
            self.streams.remove(&id);
        }
        was_open
    }

    /// All streams, in the order in which they were opened.
    pub fn iter(&self) -> impl Iterator<Item = (StreamId, &Stream)> {
        self.streams.iter().map(|(id, stream)| (*id, stream))
    }
}

impl Stream {
    /// The host at an end.
    #[must_use]
    pub fn host(&self, side: Side) -> HostId {
        match side {
            Side::Provider => self.provider,
            Side::Requester => self.requester,
        }
    }

    fn end(&self, side: Side) -> &End {
        match side {
            Side::Provider => &self.providing,
            Side::Requester => &self.requesting,
        }
    }

    fn end_mut(&mut self, side: Side) -> &mut End {
        match side {
            Side::Provider => &mut self.providing,
            Side::Requester => &mut self.requesting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: HostId = HostId(0);
    const B: HostId = HostId(1);

    #[test]
    fn frames_do_not_overtake_each_other() {
        let mut streams = Streams::default();
        let (id, opened) = streams.open(A, B);
        assert!(opened && streams.open(A, B) == (id, false), "one long-lived stream");
        assert_eq!(streams.queue(id, Side::Provider, Timestamp(50)), Timestamp(50));
        assert_eq!(streams.queue(id, Side::Provider, Timestamp(20)), Timestamp(50));
        assert_eq!(streams.queue(id, Side::Requester, Timestamp(20)), Timestamp(20), "the ways are separate");
    }

    #[test]
    fn each_end_closes_by_itself_and_a_new_stream_is_another() {
        let mut streams = Streams::default();
        let (old, _) = streams.open(A, B);
        assert_eq!(streams.back(A, B), Some(old));
        assert!(streams.close(old, Side::Requester) && !streams.close(old, Side::Requester));
        assert!(streams.is_open(old, Side::Provider), "it has not heard yet");
        let (new, opened) = streams.open(A, B);
        assert!(opened && new != old);
        assert!(streams.close(old, Side::Provider) && streams.find(old).is_none());
        assert_eq!(streams.back(A, B), Some(new));
    }
}
