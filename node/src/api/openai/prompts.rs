//! What completions go on from and embeddings are made of: texts or token ids, one or many.

use protocol::Input;
use serde::Deserialize;

use crate::request::JobRequest;

/// As a client writes them.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Prompts {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<u32>),
    Batch(Vec<Vec<u32>>),
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Prompt {
    Text(String),
    Tokens(Vec<u32>),
}

impl Prompts {
    pub(super) fn all(&self) -> Vec<Prompt> {
        match self {
            Self::Text(text) => vec![Prompt::Text(text.clone())],
            Self::Texts(texts) => texts.iter().cloned().map(Prompt::Text).collect(),
            Self::Tokens(ids) => vec![Prompt::Tokens(ids.clone())],
            Self::Batch(all) => all.iter().cloned().map(Prompt::Tokens).collect(),
        }
    }
}

impl Prompt {
    pub(super) fn input(&self) -> Input {
        match self {
            Self::Text(text) => Input::Text(text.clone()),
            Self::Tokens(ids) => Input::Tokens(ids.clone()),
        }
    }

    /// A request that begins here.
    pub(super) fn on(&self, request: JobRequest) -> JobRequest {
        match self {
            Self::Text(text) => JobRequest { text: Some(text.clone()), ..request },
            Self::Tokens(ids) => JobRequest { tokens: ids.clone(), ..request },
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::Tokens(ids) => ids.is_empty(),
        }
    }
}
