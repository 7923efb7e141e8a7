//! What a message says of the mesh: an object under [`EXTENSION`] in its metadata, or in the request's, where the message
//! counts. Beside what OpenAI's clients may say in `llamesh` (`capability`, `max_price`, `deadline`, `provider`, `auction`):
//!
//! | wish | |
//! |---|---|
//! | `model` | a name, a digest, `cap:` and a capability, or `auto`, the default |
//! | `max_tokens`, `temperature`, `seed` | how the answer is drawn; 256 tokens, greedy, unless said |
//!
//! Anything else is refused: who asks for a limit must not get an answer without it.

use protocol::{Capability, ChatMessage, JobKind, Role};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::EXTENSION;
use super::error::Error;
use super::message::{Message, whole};
use crate::request::JobRequest;

/// What was wished.
#[derive(Debug)]
pub(super) struct Wishes {
    pub(super) model: String,
    max_tokens: Option<u32>,
    temperature: Option<f32>,
    seed: Option<u64>,
    /// What every gateway knows.
    pub(super) options: Map<String, Value>,
}

impl Wishes {
    pub(super) fn read(message: &Message, request: Option<&Map<String, Value>>) -> Result<Self, Error> {
        let mut said = Map::new();
        for metadata in [request, message.metadata.as_ref()].into_iter().flatten() {
            match metadata.get(EXTENSION) {
                Some(Value::Object(wishes)) => said.extend(wishes.clone()),
                Some(_) => {
                    return Err(Error::invalid(&format!("metadata[{EXTENSION}]"), "must be an object"));
                }
                None => {}
            }
        }
        said.values_mut().for_each(whole);
        let model = take(&mut said, "model")?.unwrap_or_else(|| "auto".to_owned());
        Ok(Self {
            model,
            max_tokens: take(&mut said, "max_tokens")?,
            temperature: take(&mut said, "temperature")?,
            seed: take(&mut said, "seed")?,
            options: said,
        })
    }

    /// The job for a message that comes after what was said before.
    pub(super) fn job(&self, message: &Message, before: Vec<ChatMessage>) -> Result<JobRequest, Error> {
        let request = JobRequest {
            max_tokens: self.max_tokens,
            temperature: self.temperature,
            seed: self.seed,
            ..JobRequest::default()
        };
        if self.wants_tool() {
            let problem = "must be one data part for a tool: the object of its arguments";
            let arguments = message.arguments().ok_or_else(|| Error::invalid("message.parts", problem))?;
            let raw = RawValue::from_string(arguments.to_string());
            let call = raw.map_err(|error| Error::invalid("message.parts", &error.to_string()))?;
            return Ok(JobRequest { kind: Some(JobKind::Call), call: Some(call), ..request });
        }
        let now = ChatMessage::new(Role::User, message.words());
        let messages = before.into_iter().chain([now]).collect();
        Ok(JobRequest { kind: Some(JobKind::Generate), messages, ..request })
    }

    fn wants_tool(&self) -> bool {
        let path = self.model.strip_prefix("cap:");
        let path = path.or_else(|| self.options.get("capability").and_then(Value::as_str));
        let capability: Option<Capability> = path.and_then(|path| path.parse().ok());
        capability.is_some_and(|capability| Capability::tool().covers(&capability))
    }
}

fn take<T: DeserializeOwned>(said: &mut Map<String, Value>, name: &str) -> Result<Option<T>, Error> {
    let wish = said.remove(name).filter(|wish| !wish.is_null());
    let read = |wish| serde_json::from_value(wish);
    wish.map(read)
        .transpose()
        .map_err(|error| Error::invalid(&format!("{EXTENSION}.{name}"), &format!("is wrong: {error}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::error::Kind;
    use super::*;

    fn message(parts: Value, wishes: Value) -> Message {
        let metadata = json!({ EXTENSION: wishes, "other": 1 });
        let message = json!({ "messageId": "m", "role": "ROLE_USER", "parts": parts, "metadata": metadata });
        serde_json::from_value(message).unwrap()
    }

    #[test]
    fn wishes_of_the_message_count_before_those_of_the_request() {
        let said =
            message(json!([{ "text": "x" }]), json!({ "model": "m", "max_tokens": 3.0, "max_price": 7.0 }));
        let request = json!({ EXTENSION: { "model": "n", "deadline": 9, "seed": null } });
        let wishes = Wishes::read(&said, request.as_object()).unwrap();
        assert_eq!((wishes.model.as_str(), &wishes.options["max_price"]), ("m", &json!(7)));
        assert_eq!(wishes.options["deadline"], 9);
        let job = wishes.job(&said, vec![ChatMessage::new(Role::Assistant, "before")]).unwrap();
        assert_eq!((job.max_tokens, job.messages.len(), job.kind), (Some(3), 2, Some(JobKind::Generate)));
    }

    #[test]
    fn a_tool_takes_an_object_and_nothing_else() {
        let wish = json!({ "capability": "tool.add" });
        let call = message(json!([{ "data": { "a": 1 } }]), wish.clone());
        let job = Wishes::read(&call, None).unwrap().job(&call, Vec::new()).unwrap();
        assert_eq!(job.call.unwrap().get(), "{\"a\":1}");
        let text = message(json!([{ "text": "1 + 1" }]), wish);
        assert!(Wishes::read(&text, None).unwrap().job(&text, Vec::new()).is_err());
    }

    #[test]
    fn what_is_wrong_is_refused_by_name() {
        for wishes in [json!(7), json!({ "max_tokens": "many" }), json!({ "temperature": [] })] {
            let error = Wishes::read(&message(json!([{ "text": "x" }]), wishes), None).unwrap_err();
            assert_eq!(error.kind(), Kind::InvalidParams);
        }
    }
}
