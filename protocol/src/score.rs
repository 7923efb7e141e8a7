//! How likely tokens are: beside each token of an answer, and as the whole answer of a job of the kind `score`.
//!
//! Nobody commits to these numbers: whoever has the model computes them again from the tokens.

use serde::{Deserialize, Serialize};

use crate::{JobError, Sampling, Token};

/// How likely a token of an answer was, before anything of the sampling was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Logprobs {
    /// Natural logarithm of its probability.
    pub logprob: f32,
    /// The likeliest tokens in its place, the likeliest first; as many as were ordered, or all that there are.
    pub top: Vec<Alternative>,
}

/// A token that could have stood in a place.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alternative {
    /// The model's id.
    pub id: u32,
    /// Its text by itself; a part of a character reads as U+FFFD.
    pub text: String,
    /// Natural logarithm of its probability.
    pub logprob: f32,
}

impl Logprobs {
    /// Most alternatives of one token, as others have it.
    pub const MAX_TOP: u8 = 20;
    /// Longest text in bytes of all alternatives of one token together; a frame holds it beside the token's own.
    pub const MAX_TEXT: usize = Token::MAX_TEXT;

    /// True when a token may come with these, or without any, in an answer ordered with `sampling`: every token with an
    /// id has them if they were ordered, and nothing else has.
    pub fn may_come(logprobs: Option<&Self>, token: &Token, sampling: &Sampling) -> bool {
        match (sampling.logprobs.filter(|_| token.id.is_some()), logprobs) {
            (Some(most), Some(logprobs)) => logprobs.fits(most),
            (ordered, found) => ordered.is_none() && found.is_none(),
        }
    }

    fn fits(&self, most: u8) -> bool {
        let text_len: usize = self.top.iter().map(|alternative| alternative.text.len()).sum();
        self.top.len() <= usize::from(most)
            && text_len <= Self::MAX_TEXT
            && self.top.iter().map(|a| a.logprob).chain([self.logprob]).all(f32::is_finite)
    }
}

/// The answer of a job of the kind `score`: four lists of one length, an element for each token of the input as the
/// model reads it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scores {
    /// Their ids.
    pub tokens: Vec<u32>,
    /// Their texts; together the text that was scored, and the model's own tokens around it.
    pub texts: Vec<String>,
    /// Natural logarithms of their probabilities, each after those before it; the first has none.
    pub logprobs: Vec<Option<f32>>,
    /// The likeliest tokens in their places, the likeliest first, as many as were ordered; the first has none.
    pub top: Vec<Option<Vec<Alternative>>>,
}

impl Scores {
    /// Most tokens and alternatives in one answer: at 64 bytes of JSON each they fill the longest that there may be.
    pub const MAX_ENTRIES: usize = Token::MAX_ANSWER / 64;
    /// Pieces of the longest answer: a character that would be cut in two makes a piece three bytes shorter at most.
    pub const MAX_PIECES: u32 = Token::MAX_ANSWER.div_ceil(Token::MAX_TEXT - 3) as u32;

    /// Refuses an input whose answer would be too long, before anything is computed.
    ///
    /// # Errors
    /// [`JobError::Invalid`].
    pub fn check_size(tokens: usize, sampling: &Sampling) -> Result<(), JobError> {
        let each = 1 + usize::from(sampling.logprobs.unwrap_or(0));
        let most = Self::MAX_ENTRIES / each;
        if tokens <= most {
            return Ok(());
        }
        let problem = format!(
            "has {tokens} tokens, and {most} can be scored at once with {} alternatives each: send it in parts",
            each - 1
        );
        Err(JobError::invalid("input", &problem))
    }

    /// The answer in pieces without ids, as many as `sampling` allows.
    ///
    /// # Errors
    /// [`JobError::Invalid`] when they are too many; [`JobError::Engine`] where the lists do not belong together.
    pub fn pieces(&self, sampling: &Sampling) -> Result<Vec<Token>, JobError> {
        if !self.is_whole() {
            return Err(JobError::Engine);
        }
        let text = serde_json::to_string(self).map_err(|_| JobError::Engine)?;
        if text.len() > Token::MAX_ANSWER {
            let problem =
                "has too many tokens to score at once: send it in parts, or ask for fewer alternatives";
            return Err(JobError::invalid("input", problem));
        }
        Token::pieces(&text, sampling)
    }

    /// Reads the text of an answer; `None` where it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(Self::is_whole)
    }

    fn is_whole(&self) -> bool {
        let len = self.tokens.len();
        let first = |at: usize| self.logprobs[at].is_none() && self.top[at].is_none();
        let later = |at: usize| self.logprobs[at].is_some_and(f32::is_finite) && self.top[at].is_some();
        (self.texts.len(), self.logprobs.len(), self.top.len()) == (len, len, len)
            && (0..len).all(|at| if at == 0 { first(at) } else { later(at) })
    }
}
