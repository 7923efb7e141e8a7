//! What clients and agents say to each other: messages of parts (A2A §4.1.4, §4.1.6), and what a job can take of them.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::error::{Error, Kind};

/// Names of messages, contexts and the like, in bytes: a UUID and what programs put around one.
pub(super) const MAX_NAME: usize = 128;
/// Parts of one message; a job's input bounds what is in them.
const MAX_PARTS: usize = 256;

/// Up to this every integer is a number of 64-bit floating point of its own.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Role {
    #[serde(rename = "ROLE_AGENT")]
    Agent,
    #[serde(rename = "ROLE_USER")]
    User,
}

/// Something that was said.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Message {
    pub(super) message_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) context_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) task_id: Option<String>,
    pub(super) role: Role,
    pub(super) parts: Vec<Part>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) metadata: Option<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) extensions: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) reference_task_ids: Option<Vec<String>>,
}

/// A piece of it: exactly one of the first four.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Part {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    raw: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) data: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    filename: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    media_type: Option<String>,
}

impl Part {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self { text: Some(text.into()), media_type: Some("text/plain".to_owned()), ..Self::default() }
    }

    fn check(&self) -> Result<(), Error> {
        let given = [self.text.is_some(), self.raw.is_some(), self.url.is_some(), self.data.is_some()];
        if given.iter().filter(|given| **given).count() != 1 {
            return Err(Error::invalid(
                "message.parts",
                "must each have exactly one of text, raw, url and data",
            ));
        }
        let media = self.media_type.as_deref().unwrap_or_default();
        let fits = match (&self.text, &self.data) {
            (Some(_), _) => media.is_empty() || media.starts_with("text/") || is_json(media),
            (_, Some(_)) => media.is_empty() || is_json(media),
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let message = "only text and JSON are understood here: no files, no other media types";
        Err(Error::new(Kind::ContentType, message).with("mediaType", media))
    }

    /// As a model reads it.
    fn words(&self) -> String {
        match (&self.text, &self.data) {
            (Some(text), _) => text.clone(),
            (None, Some(data)) => data.to_string(),
            (None, None) => String::new(),
        }
    }
}

impl Message {
    /// What the agent says.
    pub(super) fn of_agent(id: String, (task, context): (&str, &str), text: String) -> Self {
        Self {
            message_id: id,
            context_id: Some(context.to_owned()),
            task_id: Some(task.to_owned()),
            role: Role::Agent,
            parts: vec![Part::text(text)],
            metadata: None,
            extensions: None,
            reference_task_ids: None,
        }
    }

    /// Refuses what no job could be made of. Empty names are none.
    pub(super) fn checked(mut self) -> Result<Self, Error> {
        for name in [&mut self.context_id, &mut self.task_id] {
            *name = name.take().filter(|name| !name.is_empty());
        }
        let names = [Some(&self.message_id), self.context_id.as_ref(), self.task_id.as_ref()];
        let bad = |name: &&String| name.len() > MAX_NAME || name.chars().any(char::is_control);
        if self.message_id.is_empty() || names.iter().flatten().any(bad) {
            let problem = format!("must have a messageId, and names of {MAX_NAME} bytes at most");
            return Err(Error::invalid("message", &problem));
        }
        if self.role != Role::User {
            return Err(Error::invalid("message.role", "must be ROLE_USER: the agent speaks here"));
        }
        if self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            let problem = format!("must be between 1 and {MAX_PARTS}");
            return Err(Error::invalid("message.parts", &problem));
        }
        self.parts.iter().try_for_each(Part::check)?;
        self.parts.iter_mut().filter_map(|part| part.data.as_mut()).for_each(whole);
        Ok(self)
    }

    /// All of it as a model reads it: parts one after the other, data as JSON.
    pub(super) fn words(&self) -> String {
        self.parts.iter().map(Part::words).collect::<Vec<_>>().join("\n\n")
    }

    /// The arguments of a tool: its only part, an object.
    pub(super) fn arguments(&self) -> Option<&Value> {
        match self.parts.as_slice() {
            [Part { data: Some(data), .. }] if data.is_object() => Some(data),
            _ => None,
        }
    }

    /// About what it takes in memory.
    pub(super) fn size(&self) -> usize {
        serde_json::to_vec(self).map_or(0, |bytes| bytes.len())
    }
}

/// Clients made from the protocol's buffers know one kind of number, and write 4 as 4.0: whole ones become integers again.
pub(super) fn whole(value: &mut Value) {
    match value {
        Value::Array(values) => values.iter_mut().for_each(whole),
        Value::Object(values) => values.values_mut().for_each(whole),
        Value::Number(number) => {
            let float = number.as_f64().filter(|x| number.is_f64() && x.fract() == 0.0 && x.abs() <= EXACT);
            if let Some(float) = float {
                *number = (float as i64).into();
            }
        }
        _ => {}
    }
}

fn is_json(media: &str) -> bool {
    let kind = media.split(';').next().unwrap_or_default().trim();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(message: Value) -> Result<Message, Error> {
        serde_json::from_value::<Message>(message).unwrap().checked()
    }

    fn said(parts: Value) -> Value {
        json!({ "messageId": "m", "role": "ROLE_USER", "parts": parts, "contextId": "", "unknown": 1 })
    }

    #[test]
    fn parts_become_words_in_order() {
        let message = read(said(
            json!([{ "text": "a" }, { "data": { "b": 1 } }, { "text": "c", "mediaType": "text/markdown" }]),
        ));
        let message = message.unwrap();
        assert_eq!(message.words(), "a\n\n{\"b\":1}\n\nc");
        assert!(message.context_id.is_none() && message.arguments().is_none());
        let call = read(said(json!([{ "data": { "a": 1.0, "b": [-2.0, 0.5, 1e300] } }]))).unwrap();
        assert_eq!(call.arguments(), Some(&json!({ "a": 1, "b": [-2, 0.5, 1e300] })));
    }

    #[test]
    fn what_no_job_can_be_made_of_is_refused() {
        let kind = |message: Value| read(message).unwrap_err().kind();
        assert_eq!(kind(said(json!([]))), Kind::InvalidParams);
        assert_eq!(kind(said(json!([{}]))), Kind::InvalidParams);
        assert_eq!(kind(said(json!([{ "text": "a", "data": 1 }]))), Kind::InvalidParams);
        assert_eq!(kind(said(json!([{ "raw": "AAAA", "mediaType": "image/png" }]))), Kind::ContentType);
        assert_eq!(kind(said(json!([{ "url": "https://a.example/b" }]))), Kind::ContentType);
        assert_eq!(kind(said(json!([{ "text": "a", "mediaType": "image/svg" }]))), Kind::ContentType);
        let mut other = said(json!([{ "text": "a" }]));
        other["role"] = json!("ROLE_AGENT");
        assert_eq!(kind(other), Kind::InvalidParams);
        let mut nameless = said(json!([{ "text": "a" }]));
        nameless["messageId"] = json!("");
        assert_eq!(kind(nameless), Kind::InvalidParams);
        let mut long = said(json!([{ "text": "a" }]));
        long["contextId"] = json!("x".repeat(MAX_NAME + 1));
        assert_eq!(kind(long), Kind::InvalidParams);
    }
}
