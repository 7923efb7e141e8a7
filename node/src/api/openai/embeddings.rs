//! `/v1/embeddings`: texts or token ids become vectors, each by a job of its own, some at a time.

use axum::Json;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use crypto::Digest;
use futures::{StreamExt, TryStreamExt};
use protocol::{AgentOffer, Input, JobError, JobKind, JobSpec};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::body::Body;
use super::course::{Course, Told};
use super::prompts::{Prompt, Prompts};
use super::reply::{Bill, stamped};
use super::target::{Aimed, aim};
use super::{Error, Gateway};
use crate::request::JobRequest;

/// Texts in one request, as OpenAI has it.
const MAX_INPUTS: usize = 2048;
/// Jobs at work at once for one request: a provider reads two texts at a time, and others wait, too.
const AT_ONCE: usize = 8;

/// What this build understands of a request.
#[derive(Debug, Deserialize)]
pub(super) struct EmbeddingRequest {
    model: String,
    input: Prompts,
    encoding_format: Option<Format>,
    dimensions: Option<usize>,
}

/// How a vector is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    /// Single-precision numbers, the least significant byte first.
    Base64,
    #[default]
    Float,
}

/// A reply. No document in between: that knows no single precision, and would tell twice as many digits.
#[derive(Serialize)]
struct List {
    object: &'static str,
    data: Vec<Entry>,
    model: String,
    usage: Value,
    llamesh: Value,
}

#[derive(Serialize)]
struct Entry {
    object: &'static str,
    index: usize,
    embedding: Written,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Written {
    Base64(String),
    Numbers(Vec<f32>),
}

pub(super) async fn answer(
    gateway: Gateway,
    Body { request, options, .. }: Body<EmbeddingRequest>,
) -> Result<Response, Error> {
    let EmbeddingRequest { model, input, encoding_format, dimensions } = request;
    let inputs = input.all();
    let aimed = aim(&gateway, &model, &options, job(&inputs)?).await?.shared(inputs.len());
    let specs = inputs.iter().map(|input| JobSpec { input: input.input(), ..aimed.spec.clone() });
    let told = all(&gateway, specs.collect()).await.map_err(|error| aimed.error(error))?;
    let (format, mut bill) = (encoding_format.unwrap_or_default(), Bill::default());
    let mut data = Vec::with_capacity(told.len());
    for (index, told) in told.iter().enumerate() {
        let vector = vector(told)?;
        fits(&vector, dimensions)?;
        bill.add_read(&told.completion);
        data.push(Entry { object: "embedding", index, embedding: format.write(vector) });
    }
    Ok(reply(&aimed, data, &bill))
}

impl EmbeddingRequest {
    /// The job of the first text.
    pub(super) fn job(&self) -> Result<JobRequest, Error> {
        job(&self.input.all())
    }
}

/// The job of the first of them.
fn job(inputs: &[Prompt]) -> Result<JobRequest, Error> {
    let usual = JobRequest { capability: Some(embedding()), ..JobRequest::default() };
    Ok(checked(inputs)?.on(JobRequest { kind: Some(JobKind::Embed), ..usual }))
}

fn embedding() -> protocol::Capability {
    protocol::Capability::text_embedding()
}

/// The first of them, if there are as many as there may be and none is empty.
fn checked(inputs: &[Prompt]) -> Result<&Prompt, Error> {
    match inputs.first() {
        Some(first) if inputs.len() <= MAX_INPUTS && !inputs.iter().any(Prompt::is_empty) => Ok(first),
        _ => {
            let message = format!("input must have between 1 and {MAX_INPUTS} texts, and none may be empty");
            Err(Error::invalid(message).about("input"))
        }
    }
}

fn reply(aimed: &Aimed, data: Vec<Entry>, bill: &Bill) -> Response {
    let (model, usage, llamesh) = (aimed.model.clone(), bill.read(), bill.receipts());
    stamped(bill.job(), bill, Json(List { object: "list", data, model, usage, llamesh }))
}

/// A vector's length is its model's: numbers that are left out would leave another vector than the model meant.
fn fits(vector: &[f32], dimensions: Option<usize>) -> Result<(), Error> {
    match dimensions {
        Some(wanted) if wanted != vector.len() => {
            let message = format!("this model's vectors have {} dimensions and cannot be cut", vector.len());
            Err(Error::unsupported(message).about("dimensions"))
        }
        _ => Ok(()),
    }
}

impl Format {
    fn write(self, vector: Vec<f32>) -> Written {
        match self {
            Self::Float => Written::Numbers(vector),
            Self::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                Written::Base64(BASE64.encode(bytes))
            }
        }
    }
}

/// Does all of them, some at a time; in their order. One that fails ends them all.
async fn all(gateway: &Gateway, specs: Vec<JobSpec>) -> Result<Vec<Told>, Error> {
    let one = |spec: JobSpec| async move {
        let mut told = Course::start(&gateway.node, vec![spec])?.all().await?;
        told.pop().ok_or_else(|| Error::from(JobError::Engine))
    };
    futures::stream::iter(specs.into_iter().map(one)).buffered(AT_ONCE).try_collect().await
}

fn vector(told: &Told) -> Result<Vec<f32>, Error> {
    serde_json::from_str(&told.text()).map_err(|_| Error::from(JobError::Engine))
}

/// Vectors made by an embedder of this peer; the last text is nobody else's to know, and is not remembered.
pub(super) async fn here(
    gateway: &Gateway,
    embedder: &AgentOffer,
    mut texts: Vec<String>,
) -> Result<Vec<Vec<f32>>, Error> {
    let model = embedder.model.as_ref().map(|model| model.digest);
    let key = |text: &String| (model, text.clone());
    let last = texts.pop();
    let mut known: Vec<Option<Vec<f32>>> =
        texts.iter().map(|text| gateway.memory.vector(&key(text))).collect();
    known.extend(last.iter().map(|_| None));
    texts.extend(last);
    let wanted: Vec<usize> = (0..texts.len()).filter(|&at| known[at].is_none()).collect();
    let specs =
        wanted.iter().map(|&at| spec(gateway, embedder, model, &texts[at])).collect::<Result<_, _>>()?;
    for (&at, told) in wanted.iter().zip(&all(gateway, specs).await?) {
        let vector = vector(told)?;
        if at + 1 < texts.len() {
            gateway.memory.keep_vector(key(&texts[at]), vector.clone());
        }
        known[at] = Some(vector);
    }
    Ok(known.into_iter().flatten().collect())
}

fn spec(
    gateway: &Gateway,
    embedder: &AgentOffer,
    model: Option<Digest>,
    text: &str,
) -> Result<JobSpec, JobError> {
    let request = JobRequest {
        kind: Some(JobKind::Embed),
        capability: Some(embedder.capability.clone()),
        provider: Some(gateway.node.id()),
        ..JobRequest::default()
    };
    let request = Prompt::Text(if text.is_empty() { " ".to_owned() } else { text.to_owned() }).on(request);
    let spec = request.spec(crate::clock::now(), model)?;
    debug_assert!(matches!(spec.input, Input::Text(_)), "the prompt stays a text");
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vector_is_written_as_numbers_or_as_their_bytes() {
        let vector = [1.0, -0.5, 0.1];
        let written = |format: Format| serde_json::to_string(&format.write(vector.to_vec())).unwrap();
        assert_eq!(written(Format::Float), "[1.0,-0.5,0.1]");
        assert_eq!(written(Format::Base64), r#""AACAPwAAAL/NzMw9""#);
        assert!(fits(&vector, Some(3)).is_ok() && fits(&vector, None).is_ok());
        assert_eq!(fits(&vector, Some(1)).unwrap_err().param(), Some("dimensions"));
    }

    #[test]
    fn inputs_are_counted_and_none_is_empty() {
        let text = |text: &str| Prompt::Text(text.to_owned());
        assert_eq!(checked(&[text("a"), text("b")]).unwrap(), &text("a"));
        for wrong in [vec![], vec![text("a"), text("")], vec![Prompt::Tokens(vec![])], vec![text("a"); 2049]]
        {
            assert_eq!(checked(&wrong).unwrap_err().param(), Some("input"));
        }
    }
}
