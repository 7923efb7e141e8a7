//! `llamesh chat`: a conversation with the mesh, line by line, kept in the peer's folder.
//!
//! Each line that does not begin with `/` is a turn: a job with all that was said. It goes to whoever answered last if
//! that one still can, because it has read the conversation; if it is gone, another one reads it again. What does not fit the
//! context any more is left out from the oldest exchange on, and said so; with `--keep-all` it is refused instead.

use std::io::{self, IsTerminal};

use clap::Args;
use crypto::Digest;
use protocol::Capability;
use tokio::sync::mpsc;

use super::session::{Peer, Through, busy};
use super::submit::{Screen, stream};
use super::{Common, print};
use crate::api::control::{PeerView, peer_views};
use crate::conversation::{Conversation, Turn};
use crate::failure::{Class, Failure};
use crate::request::{JobRequest, JobUpdate};

/// The conversation that is gone on with unless another one is named.
const DEFAULT_SESSION: &str = "default";

/// Talk with a model of the mesh, line by line
#[derive(Debug, Args)]
pub(super) struct Chat {
    /// The conversation to go on with, or to begin
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SESSION)]
    session: String,
    /// What the provider must be able to do [default: text.generation]
    #[arg(long, value_name = "C")]
    capability: Option<Capability>,
    /// With this model: a name or a digest
    #[arg(long, value_name = "NAME|DIGEST")]
    model: Option<String>,
    /// Put before the conversation, when it begins
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// Longest answer in tokens [default: 256]
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// The most that a turn may cost, in micro-credits [default: 0]
    #[arg(long, value_name = "N")]
    budget: Option<u64>,
    /// Refuse a turn that does not fit the context, instead of leaving the oldest exchanges out
    #[arg(long)]
    keep_all: bool,
    #[command(flatten)]
    through: Through,
}

/// What a line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Line<'a> {
    Turn(&'a str),
    Cost,
    Help,
    Nothing,
    Peers,
    Quit,
    Receipt,
    Unknown(&'a str),
}

impl Chat {
    pub(super) async fn run(self, common: Common) -> Result<(), Failure> {
        let dir = common.data_dir()?;
        let path = dir.sessions().join(format!("{}.jsonl", name(&self.session)?));
        let conversation =
            Conversation::open(&path, self.system.clone()).map_err(Failure::of(Class::Request))?;
        let peer = self.through.reach(&common).await?;
        let mut talk = Talk { chat: &self, common: &common, peer: &peer, conversation, left_out: 0 };
        let outcome = talk.hold().await;
        let left = peer.leave().await;
        outcome.and(left)
    }
}

/// A conversation under way.
struct Talk<'a> {
    chat: &'a Chat,
    common: &'a Common,
    peer: &'a Peer,
    conversation: Conversation,
    /// Exchanges that do not fit any more.
    left_out: usize,
}

impl Talk<'_> {
    async fn hold(&mut self) -> Result<(), Failure> {
        self.left_out = self.conversation.turns().last().map_or(0, |turn| turn.left_out);
        if !self.common.json {
            let (name, turns) = (&self.chat.session, self.conversation.turns().len());
            print::say(&format!(
                "session {name}, {turns} turns so far; /help tells the commands, /quit leaves"
            ));
        }
        let mut lines = typed();
        while let Some(line) = self.ask(&mut lines).await? {
            match parse(&line) {
                Line::Nothing => {}
                Line::Quit => break,
                Line::Cost => print::say(&format!("{} so far", self.conversation.cost())),
                Line::Help => print::say("/peers  /cost  /receipt  /quit; anything else is a turn"),
                Line::Peers => self.peers().await?,
                Line::Receipt => self.receipt(),
                Line::Turn(question) => self.turn(question).await?,
                Line::Unknown(what) => print::say(&format!("there is no /{what}; /help tells what there is")),
            }
        }
        Ok(())
    }

    async fn ask(&self, lines: &mut mpsc::Receiver<io::Result<String>>) -> Result<Option<String>, Failure> {
        if io::stdin().is_terminal() && !self.common.json {
            print::write("> ")?;
        }
        tokio::select! {
            line = lines.recv() => line.transpose().map_err(Failure::of(Class::Request)),
            _ = tokio::signal::ctrl_c() => Ok(None),
        }
    }

    /// One turn. A job that fails ends nothing: the next line may do better.
    async fn turn(&mut self, question: &str) -> Result<(), Failure> {
        loop {
            let request = self.request(question);
            let mut screen = Screen::new(self.common)?;
            let outcome = tokio::select! {
                outcome = stream(self.peer, &request, &mut screen) => outcome,
                _ = tokio::signal::ctrl_c() => Err(Failure::new(Class::Job, "cancelled")),
            };
            match (outcome, screen.last()) {
                (Ok(()), Some(JobUpdate::Done { text, provider, receipt, cost, .. })) => {
                    let (previous, left_out) = (Digest::of_content(b""), self.left_out);
                    let (question, answer) = (question.to_owned(), text);
                    let turn = Turn { previous, question, answer, provider, receipt, cost, left_out };
                    return self.conversation.add(turn).map_err(Failure::of(Class::Internal));
                }
                (Err(_), Some(JobUpdate::Failed { code, .. })) if self.leaves_out(&code) => {
                    self.left_out += 1;
                    let many = self.left_out;
                    print::say(&format!("the context is full: the oldest {many} exchanges are left out"));
                }
                (Err(failure), _) => {
                    print::failure(&failure, self.common.json);
                    return Ok(());
                }
                (Ok(()), _) => return Ok(()),
            }
        }
    }

    /// Whether there is something to be left out, and that may help.
    fn leaves_out(&self, code: &str) -> bool {
        code == "context_exceeded" && !self.chat.keep_all && self.left_out < self.conversation.turns().len()
    }

    fn request(&self, question: &str) -> JobRequest {
        JobRequest {
            messages: self.conversation.messages(question, self.left_out),
            capability: self.chat.capability.clone(),
            model: self.chat.model.clone(),
            max_tokens: self.chat.max_tokens,
            budget: self.chat.budget,
            // The running peer remembers who has read it; one of the moment is told.
            prefer: self.conversation.turns().last().map(|turn| turn.provider),
            ..JobRequest::default()
        }
    }

    async fn peers(&self) -> Result<(), Failure> {
        let peers: Vec<PeerView> = match (self.peer, self.peer.own()) {
            (Peer::Api(client), _) => client.get("/control/peers").await?,
            (_, Some(node)) => peer_views(node).await.map_err(busy)?,
            (Peer::Own(_), None) => Vec::new(),
        };
        for peer in peers.iter().filter(|peer| !peer.capabilities.is_empty()) {
            let offers: Vec<_> = peer.capabilities.iter().map(Capability::as_str).collect();
            print::say(&format!("{}  {}", peer.peer, offers.join(" ")));
        }
        Ok(())
    }

    fn receipt(&self) {
        match self.conversation.turns().last() {
            Some(turn) => print::say(&format!(
                "{} by {}\n  llamesh verify --replay {}",
                turn.receipt, turn.provider, turn.receipt
            )),
            None => print::say("nothing was answered yet"),
        }
    }
}

/// Lines as they are typed. A thread of its own waits for them, one line ahead at most; it ends with stdin or with the
/// program.
fn typed() -> mpsc::Receiver<io::Result<String>> {
    let (lines, typed) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in io::stdin().lines() {
            if lines.blocking_send(line).is_err() {
                return;
            }
        }
    });
    typed
}

fn parse(line: &str) -> Line<'_> {
    let line = line.trim();
    match line.strip_prefix('/') {
        None if line.is_empty() => Line::Nothing,
        None => Line::Turn(line),
        Some("cost") => Line::Cost,
        Some("help") => Line::Help,
        Some("peers") => Line::Peers,
        Some("quit" | "exit") => Line::Quit,
        Some("receipt") => Line::Receipt,
        Some(other) => Line::Unknown(other),
    }
}

/// A name that is a file's, and nothing else.
fn name(session: &str) -> Result<&str, Failure> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if (1..=64).contains(&session.len()) && session.chars().all(plain) {
        return Ok(session);
    }
    let why = format!("--session {session}: a name has 1 to 64 letters, digits, - and _");
    Err(Failure::new(Class::Usage, why))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_turn_or_a_command() {
        assert_eq!(parse("  hello /there "), Line::Turn("hello /there"));
        assert_eq!(parse("/cost"), Line::Cost);
        assert_eq!(parse("/exit "), Line::Quit);
        assert_eq!(parse("/x y"), Line::Unknown("x y"));
        assert_eq!(parse("   "), Line::Nothing);
    }

    #[test]
    fn a_session_is_no_path() {
        assert!(name("my-talk_2").is_ok());
        for bad in ["", "a/b", "..", "ä", &"x".repeat(65)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
