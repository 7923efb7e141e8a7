//! The running commitment to a streamed answer.
//!
//! Both ends of a stream fold every token into the same chain,
//! `c₀ = H(job)`, `cᵢ₊₁ = H(cᵢ ‖ index ‖ id ‖ text)`, so that any frame that was lost, doubled, reordered or
//! changed shows at once, and 32 signed bytes speak for everything before them.

use serde::{Deserialize, Serialize};

use crate::{Digest, Hasher};

/// The state of the chain after some number of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commitment(pub Digest);

/// The chain, and how many tokens are in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transcript {
    commitment: Commitment,
    len: u64,
}

impl Transcript {
    /// An empty transcript for the job that `job` identifies.
    pub fn new(job: &[u8]) -> Self {
        Self { commitment: Commitment(Digest::of("transcript", job)), len: 0 }
    }

    /// Adds the next token. Engines without token ids commit to bytes alone (`id` is `None`).
    pub fn push(&mut self, id: Option<u32>, text: &str) -> Commitment {
        let mut id_bytes = [0; 5];
        if let Some(id) = id {
            id_bytes[0] = 1;
            id_bytes[1..].copy_from_slice(&id.to_le_bytes());
        }
        let next = Hasher::new("transcript/token")
            .part(self.commitment.0.as_bytes())
            .part(&self.len.to_le_bytes())
            .part(&id_bytes)
            .part(text.as_bytes());
        self.commitment = Commitment(next.finish());
        self.len += 1;
        self.commitment
    }

    /// The commitment to everything so far.
    pub fn commitment(&self) -> Commitment {
        self.commitment
    }

    /// How many tokens are in it; also the index of the next one.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True before the first token.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over(tokens: &[(Option<u32>, &str)]) -> Commitment {
        let mut transcript = Transcript::new(b"job");
        for (id, text) in tokens {
            transcript.push(*id, text);
        }
        transcript.commitment()
    }

    #[test]
    fn every_kind_of_change_shows() {
        let honest = over(&[(Some(1), "a"), (Some(2), "b")]);
        for changed in [
            over(&[(Some(2), "b"), (Some(1), "a")]),
            over(&[(Some(1), "a")]),
            over(&[(Some(1), "a"), (Some(1), "a"), (Some(2), "b")]),
            over(&[(Some(1), "ab"), (Some(2), "")]),
            over(&[(None, "a"), (Some(2), "b")]),
            over(&[(Some(0), "a"), (Some(2), "b")]),
        ] {
            assert_ne!(honest, changed);
        }
        assert_ne!(Transcript::new(b"job"), Transcript::new(b"other"));
    }
}
