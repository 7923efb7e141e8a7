//! A conversation: what was said, by whom it was answered, and what proves it.
//!
//! It belongs to whoever asks. Each turn names the one before by digest, so that nothing in the middle can be changed
//! without changing all that follows; the receipts prove each answer on its own. The file is a line of JSON for the
//! beginning and one for each turn, so it can be read, appended to, and moved to another machine.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crypto::{Digest, Hasher, PeerId};
use protocol::{ChatMessage, Credits, Role};
use serde::{Deserialize, Serialize};

/// The beginning's format; a reader refuses any other.
const FORMAT: &str = "llamesh-conversation/1";
/// Largest file read: more than any model's context holds.
const MAX_FILE: u64 = 64 << 20;

/// A conversation and its file.
#[derive(Debug)]
pub struct Conversation {
    path: PathBuf,
    head: Head,
    turns: Vec<Turn>,
}

/// What stands before the first turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    system: Option<String>,
}

/// A question and its answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    /// The name of the turn before, or of the beginning.
    pub previous: Digest,
    /// What was asked.
    pub question: String,
    /// What was answered.
    pub answer: String,
    /// Who answered.
    pub provider: PeerId,
    /// What proves it.
    pub receipt: Digest,
    /// What it cost.
    pub cost: Credits,
    /// Exchanges that were left out of the prompt, the oldest first, because they did not fit the context.
    pub left_out: usize,
}

/// Why a conversation cannot be read or kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConversationError {
    /// A line is not what it must be.
    #[error("{}: line {line} is not part of a conversation ({why}); start another one with --session NAME", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// The system said no.
    #[error("{}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// It was begun with another system prompt.
    #[error("{}: it was begun with another system prompt; start another one with --session NAME", .0.display())]
    System(PathBuf),
}

impl Conversation {
    /// Reads a conversation, or begins one where there is no file. A system prompt can be given at the beginning only.
    ///
    /// # Errors
    /// [`ConversationError`].
    pub fn open(path: &Path, system: Option<String>) -> Result<Self, ConversationError> {
        let failed = |error| ConversationError::Io { path: path.to_owned(), error };
        let text = match fs::metadata(path) {
            Ok(found) if found.len() > MAX_FILE => {
                return Err(failed(io::Error::other("larger than any conversation")));
            }
            Ok(_) => fs::read_to_string(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Self::begin(path, system),
            Err(error) => return Err(failed(error)),
        };
        let found = Self::parse(path, &text)?;
        match system.is_none() || found.head.system == system {
            true => Ok(found),
            false => Err(ConversationError::System(path.to_owned())),
        }
    }

    fn begin(path: &Path, system: Option<String>) -> Result<Self, ConversationError> {
        let head = Head { format: FORMAT.to_owned(), system };
        let conversation = Self { path: path.to_owned(), head, turns: Vec::new() };
        conversation.append(&conversation.head)?;
        Ok(conversation)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConversationError> {
        let broken =
            |line: usize, why: String| ConversationError::Broken { path: path.to_owned(), line, why };
        let mut lines = text.lines();
        let head: Head = serde_json::from_str(lines.next().unwrap_or_default())
            .map_err(|error| broken(1, error.to_string()))?;
        if head.format != FORMAT {
            return Err(broken(1, format!("its format is not {FORMAT}")));
        }
        let mut conversation = Self { path: path.to_owned(), head, turns: Vec::new() };
        for (number, line) in (2..).zip(lines) {
            let turn: Turn = serde_json::from_str(line).map_err(|error| broken(number, error.to_string()))?;
            if turn.previous != conversation.digest() {
                return Err(broken(number, "it does not follow the line before".to_owned()));
            }
            conversation.turns.push(turn);
        }
        Ok(conversation)
    }

    /// What was said so far, the beginning without the oldest `left_out` exchanges, and then `question`.
    #[must_use]
    pub fn messages(&self, question: &str, left_out: usize) -> Vec<ChatMessage> {
        let system = self.head.system.iter().map(|text| ChatMessage::new(Role::System, text));
        let turns = self.turns.iter().skip(left_out).flat_map(|turn| {
            [ChatMessage::new(Role::User, &turn.question), ChatMessage::new(Role::Assistant, &turn.answer)]
        });
        system.chain(turns).chain([ChatMessage::new(Role::User, question)]).collect()
    }

    /// The turns.
    #[must_use]
    pub fn turns(&self) -> &[Turn] {
        &self.turns
    }

    /// The name of all that was said so far.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.turns.last().map_or_else(|| name(&self.head), name)
    }

    /// What all of it cost.
    #[must_use]
    pub fn cost(&self) -> Credits {
        Credits(self.turns.iter().fold(0, |sum, turn| sum.saturating_add(turn.cost.0)))
    }

    /// Adds a turn, and keeps it. Its `previous` is seen to here.
    ///
    /// # Errors
    /// [`ConversationError::Io`].
    pub fn add(&mut self, turn: Turn) -> Result<(), ConversationError> {
        let turn = Turn { previous: self.digest(), ..turn };
        self.append(&turn)?;
        self.turns.push(turn);
        Ok(())
    }

    fn append<T: Serialize>(&self, line: &T) -> Result<(), ConversationError> {
        let failed = |error| ConversationError::Io { path: self.path.clone(), error };
        let text = serde_json::to_string(line).map_err(|error| failed(error.into()))?;
        if let Some(folder) = self.path.parent() {
            fs::create_dir_all(folder).map_err(failed)?;
        }
        let mut file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path).map_err(failed)?;
        file.write_all(format!("{text}\n").as_bytes()).map_err(failed)
    }
}

fn name<T: Serialize>(line: &T) -> Digest {
    // A line that cannot be written has no name that anybody would ask for.
    let text = serde_json::to_vec(line).unwrap_or_default();
    Hasher::new("conversation line").part(&text).finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(question: &str) -> Turn {
        let nothing = Digest::of_content(b"");
        Turn {
            previous: nothing,
            question: question.to_owned(),
            answer: format!("{question}!"),
            provider: crypto::SecretKey::from_seed(&[2; 32]).peer_id(),
            receipt: nothing,
            cost: Credits(3),
            left_out: 0,
        }
    }

    fn roles(conversation: &Conversation, left_out: usize) -> Vec<String> {
        conversation.messages("now", left_out).into_iter().map(|message| message.content).collect()
    }

    #[test]
    fn a_conversation_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sessions/a.jsonl");
        let mut first = Conversation::open(&path, Some("Be brief.".to_owned())).unwrap();
        first.add(turn("one")).unwrap();
        first.add(turn("two")).unwrap();
        let again = Conversation::open(&path, None).unwrap();
        assert_eq!((again.digest(), again.turns()), (first.digest(), first.turns()));
        assert_eq!(again.cost(), Credits(6));
        assert_eq!(roles(&again, 0), ["Be brief.", "one", "one!", "two", "two!", "now"]);
        assert_eq!(roles(&again, 1), ["Be brief.", "two", "two!", "now"]);
        assert_eq!(roles(&again, 9), ["Be brief.", "now"]);
        assert!(matches!(
            Conversation::open(&path, Some("Be long.".to_owned())),
            Err(ConversationError::System(_))
        ));
    }

    #[test]
    fn nothing_in_the_middle_can_be_changed_left_out_or_moved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.jsonl");
        let mut conversation = Conversation::open(&path, None).unwrap();
        ["one", "two", "three"].iter().for_each(|question| conversation.add(turn(question)).unwrap());
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for (changed, at) in [
            (text.replace("one!", "One!"), 3),
            (text.replace("null", "\"x\""), 2),
            ([lines[0], lines[1], lines[3]].join("\n"), 3),
            ([lines[0], lines[2], lines[1], lines[3]].join("\n"), 2),
            (text.replace("llamesh-conversation/1", "other/1"), 1),
            (format!("{text}{{\n"), 5),
            (String::new(), 1),
        ] {
            let found = Conversation::parse(&path, &changed);
            assert!(matches!(found, Err(ConversationError::Broken { line, .. }) if line == at), "{found:?}");
        }
    }
}
