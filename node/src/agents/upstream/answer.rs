//! A server's event stream as pieces of text and a finish.
//!
//! The stream is a stranger's. An event that does not end is cut off by [`Bounded`] before a parser keeps it, an event
//! with too much text is refused, and a stream that breaks off without saying why is a failure, never an answer.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use eventsource_stream::Eventsource;
use futures::{Stream, StreamExt};
use protocol::{Finish, JobError};
use reqwest::Response;
use serde::Deserialize;
use serde::de::IgnoredAny;

/// What comes out of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The last one.
    Finished(Finish),
    /// At most [`MAX_PIECE`] bytes.
    Text(String),
}

/// An answer as it arrives.
pub(super) struct Answer {
    events: Pin<Box<dyn Stream<Item = Result<String, JobError>> + Send>>,
    /// What the last event held; bounded by what one event may hold.
    ready: VecDeque<Piece>,
}

impl Answer {
    pub(super) fn new<B, E>(body: impl Stream<Item = Result<B, E>> + Send + 'static) -> Self
    where
        B: AsRef<[u8]> + 'static,
        E: fmt::Display + 'static,
    {
        Self { events: Box::pin(events(body, MAX_EVENT)), ready: VecDeque::new() }
    }

    /// The next piece. Whoever has seen the finish does not ask again.
    pub(super) async fn next(&mut self) -> Result<Piece, JobError> {
        loop {
            if let Some(piece) = self.ready.pop_front() {
                return Ok(piece);
            }
            let event = self.events.next().await;
            self.ready.extend(pieces(&event.ok_or_else(|| broken(&"it ended without a finish"))??)?);
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("ready", &self.ready.len()).finish_non_exhaustive()
    }
}

/// The data of a stream's events, none of which has more than `most` bytes.
pub(in crate::agents) fn events<B, E>(
    body: impl Stream<Item = Result<B, E>> + Send + 'static,
    most: usize,
) -> impl Stream<Item = Result<String, JobError>> + Send
where
    B: AsRef<[u8]> + 'static,
    E: fmt::Display + 'static,
{
    let events = Bounded { body: Box::pin(body), event: 0, line: 0, most }.eventsource();
    events.map(|event| event.map(|event| event.data).map_err(|error| broken(&error)))
}

/// One event. Both kinds of completion are read by it: a chat's text is in `delta`, raw text in `text`.
#[derive(Debug, Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    error: Option<IgnoredAny>,
}

#[derive(Debug, Deserialize)]
struct Choice {
    delta: Option<Delta>,
    text: Option<String>,
    finish_reason: Option<Reason>,
    /// Which stop text it was, by servers that tell; null or a token's id when the model ended by itself.
    stop_reason: Option<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
struct Delta {
    content: Option<String>,
}

/// Why a server stopped, as far as an answer can have ended that way.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Reason {
    Length,
    #[serde(alias = "eos")]
    Stop,
    /// A filter, a tool, an abort: what came is not the answer.
    #[serde(other)]
    Unusable,
}

impl Choice {
    fn finish(&self) -> Option<Result<Finish, JobError>> {
        let named_stop = self.stop_reason.as_ref().is_some_and(serde_json::Value::is_string);
        self.finish_reason.map(|reason| match reason {
            Reason::Length => Ok(Finish::Length),
            Reason::Stop if named_stop => Ok(Finish::Stop),
            Reason::Stop => Ok(Finish::EndOfText),
            Reason::Unusable => Err(JobError::Engine),
        })
    }

    fn into_text(self) -> String {
        self.delta.and_then(|delta| delta.content).or(self.text).unwrap_or_default()
    }
}

/// What one event says.
fn pieces(event: &str) -> Result<Vec<Piece>, JobError> {
    // A server that says only this has ended well and given no reason.
    if event.trim() == "[DONE]" {
        return Ok(vec![Piece::Finished(Finish::EndOfText)]);
    }
    let chunk: Chunk = serde_json::from_str(event).map_err(|error| broken(&error))?;
    if chunk.error.is_some() {
        return Err(broken(&"it reports an error in the middle of its answer"));
    }
    // One choice was ordered; an event without any (of counts, say) is nothing.
    let Some(choice) = chunk.choices.into_iter().next() else { return Ok(Vec::new()) };
    let finish = choice.finish().transpose()?;
    let text = choice.into_text();
    if text.len() > MAX_TEXT {
        return Err(broken(&"an event has more text than any token"));
    }
    Ok(split(&text).map(Piece::Text).chain(finish.map(Piece::Finished)).collect())
}

/// A text in pieces that fit a frame, characters whole.
pub(in crate::agents) fn split(mut text: &str) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        let (piece, rest) = text.split_at(text.floor_char_boundary(MAX_PIECE));
        text = rest;
        (!piece.is_empty()).then(|| piece.to_owned())
    })
}

/// What a server has to say about a bad request: its message where it is JSON, the beginning of its text where not.
pub(in crate::agents) async fn complaint(mut response: Response) -> String {
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        let left = MAX_COMPLAINT - body.len();
        body.extend_from_slice(&chunk[..chunk.len().min(left)]);
        if body.len() == MAX_COMPLAINT {
            break;
        }
    }
    let message = serde_json::from_slice::<Complaint>(&body).ok().map(|complaint| complaint.error.message);
    let text = message.unwrap_or_else(|| String::from_utf8_lossy(&body).into_owned());
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[derive(Debug, Deserialize)]
struct Complaint {
    error: Message,
}

#[derive(Debug, Deserialize)]
struct Message {
    message: String,
}

/// The bytes of an event stream, up to an event that is too long.
struct Bounded<S> {
    body: Pin<Box<S>>,
    /// Bytes since the last empty line, which is where a parser lets go of what it keeps.
    event: usize,
    /// Bytes since the last line feed.
    line: usize,
    /// Bytes that an event may have.
    most: usize,
}

impl<S> Bounded<S> {
    /// Counts a chunk. Carriage returns count for the event and not for the line, so that both kinds of line end are
    /// seen and neither hides bytes.
    fn fits(&mut self, chunk: &[u8]) -> bool {
        for byte in chunk {
            self.event += 1;
            match byte {
                b'\n' if self.line == 0 => self.event = 0,
                b'\n' => self.line = 0,
                b'\r' => {}
                _ => self.line += 1,
            }
            if self.event > self.most {
                return false;
            }
        }
        true
    }
}

impl<S, B, E> Stream for Bounded<S>
where
    S: Stream<Item = Result<B, E>>,
    B: AsRef<[u8]>,
    E: fmt::Display,
{
    type Item = Result<B, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(ready!(self.body.as_mut().poll_next(context)).map(|chunk| match chunk {
            Ok(chunk) if self.fits(chunk.as_ref()) => Ok(chunk),
            Ok(_) => Err(Broken("an event does not end".to_owned())),
            Err(error) => Err(Broken(error.to_string())),
        }))
    }
}

/// Why the stream is over.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Broken(String);

/// The operator learns why from the log; the requester, that another provider may succeed.
pub(in crate::agents) fn broken(why: &dyn fmt::Display) -> JobError {
    tracing::warn!(%why, "the upstream server's answer is broken");
    JobError::Engine
}

/// Most bytes of text in one event: a token has some ten, a server that gathers tokens some hundred.
const MAX_TEXT: usize = 16 << 10;

/// Most bytes of one piece, as the frame that carries it allows.
const MAX_PIECE: usize = 8 << 10;

/// Most bytes of one event: the text with every character escaped, and what else servers tell.
const MAX_EVENT: usize = 128 << 10;

/// Most bytes of a complaint that are read; far more than fits an error.
const MAX_COMPLAINT: usize = 4 << 10;

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    /// All pieces of a body that arrives in these chunks.
    fn read(chunks: Vec<Vec<u8>>) -> Result<Vec<Piece>, JobError> {
        let body = futures::stream::iter(chunks.into_iter().map(Ok::<_, Infallible>));
        let mut answer = Answer::new(body);
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let mut pieces = Vec::new();
            while !matches!(pieces.last(), Some(Piece::Finished(_))) {
                pieces.push(answer.next().await?);
            }
            Ok(pieces)
        })
    }

    fn event(text: &str) -> String {
        format!("data: {}\n\n", serde_json::json!({ "choices": [{ "delta": { "content": text } }] }))
    }

    proptest! {
        #[test]
        fn how_bytes_arrive_does_not_matter(
            texts in prop::collection::vec("[a-zé🦙 \\n]{1,8}", 0..6),
            size in 1_usize..40,
            carriage_returns: bool,
        ) {
            let mut body = texts.iter().map(|text| event(text)).collect::<String>() + "data: [DONE]\n\n";
            if carriage_returns {
                body = body.replace('\n', "\r\n");
            }
            let pieces = read(body.as_bytes().chunks(size).map(<[u8]>::to_vec).collect()).unwrap();
            let mut expected: Vec<Piece> = texts.into_iter().map(Piece::Text).collect();
            expected.push(Piece::Finished(Finish::EndOfText));
            prop_assert_eq!(pieces, expected);
        }

        #[test]
        fn no_bytes_make_it_panic_or_say_more_than_a_frame_holds(body: Vec<u8>) {
            let body = [b"data: ".to_vec(), body, b"\n\n".to_vec(), event("é").into_bytes()];
            prop_assert!(read(body.to_vec()).is_err(), "there is no finish in it");
        }
    }

    #[test]
    fn a_long_text_is_split_at_characters_and_a_longer_one_refused() {
        let text = format!("x{}", "🦙".repeat(MAX_TEXT / 4 - 1));
        let pieces = read(vec![(event(&text) + "data: [DONE]\n\n").into_bytes()]).unwrap();
        let texts: Vec<&str> = pieces
            .iter()
            .filter_map(|p| if let Piece::Text(text) = p { Some(text.as_str()) } else { None })
            .collect();
        assert_eq!(texts.concat(), text);
        assert!(texts.len() > 1 && texts.iter().all(|text| text.len() <= MAX_PIECE));
        assert_eq!(read(vec![event(&"x".repeat(MAX_TEXT + 1)).into_bytes()]), Err(JobError::Engine));
    }

    #[test]
    fn an_event_that_does_not_end_is_cut_off() {
        for line in [b"data: x\r".as_slice(), b"data: x\n", b"data: x\r\n", b"x", b": \n", b"\r"] {
            let endless = line.repeat(1 + 1024 / line.len());
            let mut taken = 0;
            let body = std::iter::from_fn(|| Some(endless.clone())).inspect(|chunk| taken += chunk.len());
            let mut bounded = Bounded { body: Box::pin(()), event: 0, line: 0, most: MAX_EVENT };
            assert!(body.take(1000).any(|chunk| !bounded.fits(&chunk)), "{line:?}");
            assert!(taken <= MAX_EVENT + endless.len());
        }
    }

    #[test]
    fn each_reason_is_told_and_an_unusable_one_is_a_failure() {
        let finish = |fields: &str| {
            read(vec![format!("data: {{\"choices\":[{{\"text\":\"\",{fields}}}]}}\n\n").into_bytes()])
        };
        let told = |finish| Ok(vec![Piece::Finished(finish)]);
        assert_eq!(finish(r#""finish_reason":"stop""#), told(Finish::EndOfText));
        assert_eq!(finish(r#""finish_reason":"stop","stop_reason":2"#), told(Finish::EndOfText));
        assert_eq!(finish(r#""finish_reason":"stop","stop_reason":"\n""#), told(Finish::Stop));
        assert_eq!(finish(r#""finish_reason":"length""#), told(Finish::Length));
        assert_eq!(finish(r#""finish_reason":"content_filter""#), Err(JobError::Engine));
        assert_eq!(finish(r#""finish_reason":null"#), Err(JobError::Engine));
    }
}
