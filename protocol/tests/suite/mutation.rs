//! Inputs that nobody would write, made of honest ones: the same each time, so that a failure can be looked at.
//!
//! What libFuzzer finds with coverage and hours (`fuzz/`) this does not; what any build must stand, it does.

/// Changes honest inputs a little, again and again.
#[derive(Debug)]
pub(crate) struct Mutator {
    state: u64,
}

impl Mutator {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed | 1 }
    }

    /// xorshift64*: good enough to choose places and bytes.
    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound.max(1)
    }

    /// Bytes without any sense.
    pub(crate) fn noise(&mut self, longest: usize) -> Vec<u8> {
        (0..self.below(longest)).map(|_| self.next().to_le_bytes()[7]).collect()
    }

    /// One of `honest` after one to four changes: a bit, a byte, a piece cut out, doubled, moved from another input, or a
    /// number as large as numbers get.
    pub(crate) fn mutated(&mut self, honest: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = honest[self.below(honest.len())].clone();
        for _ in 0..=self.below(4) {
            let (at, end) = (self.below(bytes.len()), self.below(bytes.len()));
            let (from, to) = (at.min(end), at.max(end));
            match self.below(7) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next().to_le_bytes()[7],
                2 => drop(bytes.drain(from..to)),
                3 => {
                    let piece = bytes[from..to].to_vec();
                    drop(bytes.splice(from..from, piece));
                }
                4 => {
                    let other = &honest[self.below(honest.len())];
                    let (a, b) = (self.below(other.len()), self.below(other.len()));
                    drop(bytes.splice(from..from, other[a.min(b)..a.max(b)].iter().copied()));
                }
                5 => bytes.truncate(at),
                _ => drop(bytes.splice(at..at, *b"99999999999999999999")),
            }
            // Doubling over and over makes inputs that only test patience.
            bytes.truncate(1 << 16);
        }
        bytes
    }
}
