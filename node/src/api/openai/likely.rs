//! Log-probabilities as replies have them: a list of objects in a chat, four parallel lists in a completion.

use protocol::{Alternative, Logprobs, Token};
use serde_json::{Map, Value, json};

/// Those of a chat's tokens; null where none were asked for.
pub(super) fn of_chat<'a>(tokens: impl IntoIterator<Item = (&'a Token, Option<&'a Logprobs>)>) -> Value {
    let entry = |(token, logprobs): (&Token, Option<&'a Logprobs>)| {
        let Logprobs { logprob, top } = logprobs?;
        let top: Vec<Value> = top.iter().map(|other| likely(&other.text, other.logprob)).collect();
        let mut entry = likely(&token.text, *logprob);
        entry["top_logprobs"] = top.into();
        Some(entry)
    };
    let content: Vec<Value> = tokens.into_iter().filter_map(entry).collect();
    if content.is_empty() { Value::Null } else { json!({ "content": content, "refusal": null }) }
}

fn likely(text: &str, logprob: f32) -> Value {
    json!({ "token": text, "logprob": logprob, "bytes": text.as_bytes() })
}

/// Those of a completion's tokens, in parallel lists.
#[derive(Debug, Default)]
pub(super) struct Likely {
    tokens: Vec<String>,
    logprobs: Vec<Option<f32>>,
    top: Vec<Value>,
    offsets: Vec<usize>,
    /// Characters of the text so far.
    offset: usize,
}

impl Likely {
    /// Lists of tokens that stand behind so many characters.
    pub(super) fn after(offset: usize) -> Self {
        Self { offset, ..Self::default() }
    }

    /// The next token. What comes first in a text has no likelihood.
    pub(super) fn push(&mut self, text: &str, likelihood: Option<(f32, &[Alternative])>) {
        self.logprobs.push(likelihood.map(|(logprob, _)| logprob));
        self.top.push(likelihood.map_or(Value::Null, |(logprob, top)| by_text(text, logprob, top)));
        self.offsets.push(self.offset);
        self.offset += text.chars().count();
        self.tokens.push(text.to_owned());
    }

    /// Characters of the text so far.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn value(self) -> Value {
        json!({ "tokens": self.tokens, "token_logprobs": self.logprobs, "top_logprobs": self.top,
                "text_offset": self.offsets })
    }
}

/// Alternatives by their text. Two may read the same, as parts of a character do; then the likelier one counts. The token
/// itself is among them, as OpenAI has it.
fn by_text(text: &str, logprob: f32, top: &[Alternative]) -> Value {
    let mut all = Map::new();
    for other in top {
        all.entry(other.text.clone()).or_insert_with(|| json!(other.logprob));
    }
    all.entry(text.to_owned()).or_insert_with(|| json!(logprob));
    Value::Object(all)
}
