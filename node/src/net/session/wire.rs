//! Frames in a stream of bytes: `length (four bytes, big-endian) | content`.
//!
//! An empty frame is the greeting of whoever accepts a session, and is sent once, before everything else; after it
//! an empty frame is misconduct. A length is checked as soon as its four bytes are there, and the buffer grows only by
//! what has arrived, so that a declared length costs nothing.

use crate::net::event::Misconduct;

/// What the accepting side says first: the other may send now.
pub(super) const GREETING: [u8; PREFIX] = [0; PREFIX];

const PREFIX: usize = 4;

/// Collects bytes, gives frames.
#[derive(Debug)]
pub(super) struct Inflow {
    buffer: Vec<u8>,
    filled: usize,
    cap: usize,
}

impl Inflow {
    pub(super) fn new(cap: usize) -> Self {
        Self { buffer: Vec::new(), filled: 0, cap }
    }

    /// Room for the next read.
    pub(super) fn room(&mut self) -> &mut [u8] {
        self.buffer.resize(self.filled + CHUNK, 0);
        &mut self.buffer[self.filled..]
    }

    /// Takes `read` bytes that were put into [`room`](Self::room); gives the frames that are complete now.
    pub(super) fn advance(&mut self, read: usize) -> Result<Vec<Vec<u8>>, Misconduct> {
        self.filled += read;
        let mut frames = Vec::new();
        let mut start = 0;
        while let Some(end) = self.frame_end(start)? {
            frames.push(self.buffer[start + PREFIX..end].to_vec());
            start = end;
        }
        self.buffer.copy_within(start..self.filled, 0);
        self.filled -= start;
        self.buffer.truncate(self.filled);
        self.buffer.shrink_to(self.filled + CHUNK);
        Ok(frames)
    }

    /// True when the stream may end here.
    pub(super) fn is_between_frames(&self) -> bool {
        self.filled == 0
    }

    fn frame_end(&self, start: usize) -> Result<Option<usize>, Misconduct> {
        let Some(prefix) = self.buffer[start..self.filled].first_chunk::<PREFIX>() else { return Ok(None) };
        let len = u32::from_be_bytes(*prefix) as usize;
        if len == 0 {
            return Err(Misconduct::EmptyFrame);
        }
        if len > self.cap {
            return Err(Misconduct::FrameOverCap);
        }
        let end = start + PREFIX + len;
        Ok((end <= self.filled).then_some(end))
    }
}

/// Appends a frame.
pub(super) fn put(buffer: &mut Vec<u8>, frame: &[u8]) {
    // A frame is far shorter than 4 GiB: its cap is checked where it enters.
    let len = u32::try_from(frame.len()).unwrap_or(u32::MAX);
    buffer.extend_from_slice(&len.to_be_bytes());
    buffer.extend_from_slice(frame);
}

/// One read. Also what one wake-up of the driver may bring from one peer, a started frame apart.
const CHUNK: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn feed(inflow: &mut Inflow, bytes: &[u8]) -> Result<Vec<Vec<u8>>, Misconduct> {
        inflow.room()[..bytes.len()].copy_from_slice(bytes);
        inflow.advance(bytes.len())
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..300), 0..20),
            cuts in prop::collection::vec(1_usize..200, 1..10),
        ) {
            let mut wire = Vec::new();
            frames.iter().for_each(|frame| put(&mut wire, frame));
            let (mut inflow, mut got, mut rest) = (Inflow::new(300), Vec::new(), &wire[..]);
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                got.extend(feed(&mut inflow, now).unwrap());
                rest = later;
                if rest.is_empty() { break }
            }
            prop_assert_eq!(got, frames);
            prop_assert!(inflow.is_between_frames());
        }

        #[test]
        fn garbage_never_costs_more_than_it_is(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let mut inflow = Inflow::new(1 << 20);
            let _ = feed(&mut inflow, &bytes);
            prop_assert!(inflow.buffer.capacity() <= 2 * (bytes.len() + CHUNK));
        }
    }

    #[test]
    fn a_bad_length_is_refused_before_its_content() {
        assert_eq!(feed(&mut Inflow::new(4), &[0, 0, 0, 5]), Err(Misconduct::FrameOverCap));
        assert_eq!(feed(&mut Inflow::new(4), &[0xff; 4]), Err(Misconduct::FrameOverCap));
        assert_eq!(feed(&mut Inflow::new(4), &[0; 4]), Err(Misconduct::EmptyFrame));
    }

    #[test]
    fn a_frame_of_exactly_the_cap_passes() {
        assert_eq!(feed(&mut Inflow::new(2), &[0, 0, 0, 2, 7, 8, 0]), Ok(vec![vec![7, 8]]));
    }
}
