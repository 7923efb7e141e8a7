//! A job as the body of a completion request.
//!
//! Only what the requester changed is sent: stricter servers refuse fields that they do not know, and `top_k`,
//! `min_p` and `repeat_penalty` are not everybody's.

use protocol::{ChatMessage, Constraint, Input, JobError, Role, Sampling};
use serde::Serialize;
use serde_json::value::RawValue;

/// What a job asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) input: &'a Input,
    pub(super) sampling: &'a Sampling,
    pub(super) constraint: Option<&'a Constraint>,
}

/// The body of `/chat/completions`, or of `/completions` for raw text.
#[derive(Debug, Serialize)]
pub(super) struct Body<'a> {
    model: &'a str,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    messages: Option<Vec<Message<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<ResponseFormat>,
    #[serde(flatten)]
    choosing: Choosing<'a>,
}

/// A JSON schema by the name that such servers know.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum ResponseFormat {
    JsonSchema { json_schema: NamedSchema },
}

#[derive(Debug, Serialize)]
struct NamedSchema {
    name: &'static str,
    strict: bool,
    schema: Box<RawValue>,
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
    /// Constraints of other forms than a JSON schema are left out: who asks has refused them before.
    pub(super) fn new(model: &'a str, asked: &Asked<'a>) -> Result<Self, JobError> {
        let (messages, prompt) = match asked.input {
            Input::Chat(chat) => (Some(chat.messages.iter().map(Message::new).collect()), None),
            Input::Text(text) => (None, Some(text.as_str())),
            Input::Json(_) | Input::Tokens(_) => (None, None),
        };
        let response_format = match asked.constraint {
            Some(Constraint::JsonSchema(schema)) => Some(ResponseFormat::of(schema)?),
            _ => None,
        };
        let choosing = Choosing::new(asked.sampling);
        Ok(Self { model, stream: true, messages, prompt, response_format, choosing })
    }
}

impl ResponseFormat {
    fn of(schema: &str) -> Result<Self, JobError> {
        let broken = |_| JobError::invalid("constraint", "is a schema that is not valid JSON");
        let schema = RawValue::from_string(schema.to_owned()).map_err(broken)?;
        Ok(Self::JsonSchema { json_schema: NamedSchema { name: "answer", strict: true, schema } })
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
            // Others keep the seed in a signed number, and know no choices: another seed is another answer.
            seed: sampling.seed.wrapping_add(u64::from(sampling.choice)) & i64::MAX.cast_unsigned(),
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
    use protocol::Chat;
    use serde_json::json;

    use super::*;

    fn body(input: &Input, sampling: &Sampling, constraint: Option<&Constraint>) -> serde_json::Value {
        let asked = Asked { input, sampling, constraint };
        let text = serde_json::to_string(&Body::new("m", &asked).unwrap()).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn defaults_stay_at_home() {
        let sent = body(&Input::Text("Once".to_owned()), &Sampling::default(), None);
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
        let say = ChatMessage::new(Role::System, "Be brief.");
        let sent = body(&Input::Chat(Chat::from(vec![say])), &sampling, None);
        let expected = json!({
            "model": "m", "stream": true, "messages": [{ "role": "system", "content": "Be brief." }],
            "max_tokens": 256, "temperature": 0.7, "top_p": 0.9, "top_k": 40, "min_p": 0.05,
            "repeat_penalty": 1.1, "frequency_penalty": 0.2, "presence_penalty": -0.3,
            "stop": ["\n"], "seed": i64::MAX,
        });
        assert_eq!(sent, expected);
    }

    #[test]
    fn a_schema_goes_along_and_a_choice_changes_the_seed() {
        let schema = Constraint::JsonSchema(r#"{"type":"object"}"#.to_owned());
        let sampling = Sampling { seed: 5, choice: 2, ..Sampling::default() };
        let chat = Input::Chat(Chat::from(vec![ChatMessage::new(Role::User, "x")]));
        let sent = body(&chat, &sampling, Some(&schema));
        let format = json!({
            "type": "json_schema",
            "json_schema": { "name": "answer", "strict": true, "schema": { "type": "object" } },
        });
        assert_eq!((&sent["response_format"], &sent["seed"]), (&format, &json!(7)));
    }
}
