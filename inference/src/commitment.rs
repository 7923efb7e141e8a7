//! What an exact engine commits to: the hidden states behind each segment of an answer.
//!
//! Thirty-two bytes for [`SEGMENT`] tokens say which numbers the tokens were drawn from, not only which tokens came
//! out. A provider that ran a smaller model, or made up tokens that happen to be likely, cannot know them without
//! doing the work. The digest is BLAKE3 (with a context of its own) over the states, in order, each as its 32-bit
//! floats with the lowest byte first. Only exact engines have states that anybody can compute again.

use crypto::Digest;

/// Tokens in a segment. The wire's segments are as long.
pub const SEGMENT: usize = 32;

/// The states of an answer as they come.
#[derive(Debug, Default)]
pub(crate) struct Commitment {
    hasher: Option<blake3::Hasher>,
    tokens: usize,
    /// Whether a token had no state: then there is nothing to commit to.
    void: bool,
}

impl Commitment {
    /// Takes the state that the next token was drawn from; the digest if the token ends a segment.
    pub(crate) fn push(&mut self, state: Option<&[f32]>) -> Option<Digest> {
        self.tokens += 1;
        let Some(state) = state.filter(|_| !self.void) else {
            self.void = true;
            return None;
        };
        let hasher = self.hasher.get_or_insert_with(|| blake3::Hasher::new_derive_key(CONTEXT));
        let bytes: Vec<u8> = state.iter().flat_map(|number| number.to_le_bytes()).collect();
        hasher.update(&bytes);
        if !self.tokens.is_multiple_of(SEGMENT) {
            return None;
        }
        self.hasher.take().map(|hasher| Digest::from_bytes(*hasher.finalize().as_bytes()))
    }

    /// Whether every token so far had a state.
    pub(crate) const fn is_made(&self) -> bool {
        !self.void && self.tokens > 0
    }
}

const CONTEXT: &str = "llamesh inference 1 activations";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_the_hash_of_its_states_and_of_nothing_else() {
        let states: Vec<Vec<f32>> = (0..70).map(|n| vec![n as f32, -0.5]).collect();
        let mut commitment = Commitment::default();
        let made: Vec<_> = states.iter().map(|state| commitment.push(Some(state))).collect();
        let found: Vec<_> =
            made.iter().enumerate().filter_map(|(at, digest)| digest.map(|d| (at, d))).collect();
        let expected = |range: std::ops::Range<usize>| {
            let bytes: Vec<u8> = states[range].iter().flatten().flat_map(|x| x.to_le_bytes()).collect();
            Digest::from_bytes(blake3::derive_key("llamesh inference 1 activations", &bytes))
        };
        assert_eq!(found, [(31, expected(0..32)), (63, expected(32..64))]);
    }

    #[test]
    fn a_token_without_a_state_makes_it_void() {
        let mut commitment = Commitment::default();
        commitment.push(Some(&[1.0]));
        commitment.push(None);
        assert!((0..64).all(|_| commitment.push(Some(&[1.0])).is_none()) && !commitment.is_made());
    }
}
