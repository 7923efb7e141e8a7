//! A job as the body of a completion request.
//!
//! Only what the requester changed is sent: stricter servers refuse fields that they do not know, and `top_k`,
//! `min_p` and `repeat_penalty` are not everybody's.

use protocol::{ChatMessage, Input, Role, Sampling};
use serde::Serialize;

/// The body of `/chat/completions`, or of `/completions` for raw text.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(flatten)]
    choosing: Choosing<'a>,
}

#[derive(Debug, Serialize)]
struct Message<'a> {
    role: Role,
    content: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
}

/// [`Sampling`] by the names that such servers use.
#[derive(Debug, Serialize)]
struct Choosing<'a> {
    max_tokens: u32,
    temperature: f32,
    #[serde(skip_serializing_if = "is_one")]
    top_p: f32,
    #[serde(skip_serializing_if = "is_default")]
    top_k: u32,
    #[serde(skip_serializing_if = "is_default")]
    min_p: f32,
    #[serde(skip_serializing_if = "is_one")]
    repeat_penalty: f32,
    #[serde(skip_serializing_if = "is_default")]
    frequency_penalty: f32,
    #[serde(skip_serializing_if = "is_default")]
    presence_penalty: f32,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    stop: &'a [String],
    seed: u64,
}

impl<'a> Body<'a> {
    pub(super) fn new(model: &'a str, input: &'a Input, sampling: &'a Sampling) -> Self {
        let (messages, prompt) = match input {
            Input::Chat(messages) => (Some(messages.iter().map(Message::new).collect()), None),
            Input::Text(text) => (None, Some(text.as_str())),
            Input::Json(_) | Input::Tokens(_) => (None, None),
        };
        Self { model, stream: true, messages, prompt, choosing: Choosing::new(sampling) }
    }
}

impl<'a> Message<'a> {
    fn new(message: &'a ChatMessage) -> Self {
        Self { role: message.role, content: &message.content, name: message.name.as_deref() }
    }
}

impl<'a> Choosing<'a> {
    fn new(sampling: &'a Sampling) -> Self {
        Self {
            max_tokens: sampling.max_tokens,
            temperature: sampling.temperature,
            top_p: sampling.top_p,
            top_k: sampling.top_k,
            min_p: sampling.min_p,
            repeat_penalty: sampling.repeat_penalty,
            frequency_penalty: sampling.frequency_penalty,
            presence_penalty: sampling.presence_penalty,
            stop: &sampling.stop,
            // Others keep the seed in a signed number.
            seed: sampling.seed & i64::MAX.cast_unsigned(),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn is_one(value: &f32) -> bool {
    *value == 1.0
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn body(input: &Input, sampling: &Sampling) -> serde_json::Value {
        let text = serde_json::to_string(&Body::new("m", input, sampling)).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn defaults_stay_at_home() {
        let sent = body(&Input::Text("Once".to_owned()), &Sampling::default());
        let expected = json!({
            "model": "m", "stream": true, "prompt": "Once", "max_tokens": 256, "temperature": 0.0, "seed": 0,
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn everything_else_is_sent_by_its_name_and_unrounded() {
        let sampling = Sampling {
            temperature: 0.7,
            top_p: 0.9,
            top_k: 40,
            min_p: 0.05,
            repeat_penalty: 1.1,
            frequency_penalty: 0.2,
            presence_penalty: -0.3,
            stop: vec!["\n".to_owned()],
            seed: u64::MAX,
            ..Sampling::default()
        };
        let say = ChatMessage { role: Role::System, content: "Be brief.".to_owned(), name: None };
        let sent = body(&Input::Chat(vec![say]), &sampling);
        let expected = json!({
            "model": "m", "stream": true, "messages": [{ "role": "system", "content": "Be brief." }],
            "max_tokens": 256, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
            "repeat_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": -0.3,
            "stop": ["\n"], "seed": i64::MAX,
        });
        assert_eq!(sent, expected);
    }
}
