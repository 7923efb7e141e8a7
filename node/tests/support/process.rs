//! One process: what it says, how it ends, and that it ends.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Lines of stdout that wait to be looked at; a process that says more waits.
const LINES: usize = 1 << 16;

/// A running process.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
    deadline: Instant,
    command: String,
}

/// How a process ended.
pub(crate) struct Outcome {
    /// Its exit code; −1 when a signal ended it.
    pub(crate) code: i32,
    /// What it printed and nobody had read yet.
    pub(crate) lines: Vec<Value>,
    /// The same as it stood there.
    pub(crate) stdout: String,
    /// What it said on stderr.
    pub(crate) stderr: String,
}

impl Process {
    /// Starts a command, and ends it after `limit` at the latest.
    pub(crate) fn start(mut command: Command, limit: Duration) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
        let (sender, lines) = sync_channel(LINES);
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let said = Arc::new(Mutex::new(String::new()));
        let log = Arc::clone(&said);
        let listener = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
            }
        });
        let (stdin, deadline, command) = (child.stdin.take(), Instant::now() + limit, format!("{command:?}"));
        Self { child, stdin, lines, said, listener: Some(listener), deadline, command }
    }

    /// The next line of stdout, as JSON.
    pub(crate) fn line(&mut self) -> Value {
        self.next().unwrap_or_else(|| panic!("ended: {}\n{}", self.command, self.stderr()))
    }

    /// The next line of stdout as it is.
    pub(crate) fn text(&mut self) -> Option<String> {
        self.read()
    }

    /// The next line of this event; what comes before it is passed over.
    pub(crate) fn until(&mut self, event: &str) -> Value {
        loop {
            let line = self.line();
            if line["event"] == event {
                return line;
            }
        }
    }

    /// Gives it all of its stdin.
    pub(crate) fn feed(&mut self, text: &str) {
        // It may have had enough of it and be gone.
        let _ = self.stdin.take().unwrap().write_all(text.as_bytes());
    }

    /// Its number.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, by name.
    pub(crate) fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// Kills it at once.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Outcome {
        drop(self.stdin.take());
        let mut stdout = String::new();
        let mut lines = Vec::new();
        while let Some(line) = self.read() {
            lines.extend(serde_json::from_str(&line));
            stdout = stdout + &line + "\n";
        }
        // It has closed its stdout, so its end is a matter of moments.
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < self.deadline, "does not end: {}\n{}", self.command, self.stderr());
            thread::yield_now();
        }
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.listener.take().unwrap().join().unwrap();
        Outcome { code, lines, stdout, stderr: self.stderr() }
    }

    /// What it has said on stderr so far.
    pub(crate) fn stderr(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn next(&mut self) -> Option<Value> {
        let line = self.read()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|error| panic!("not JSON: {line:?}: {error}")))
    }

    fn read(&mut self) -> Option<String> {
        match self.lines.recv_timeout(self.deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("takes too long: {}\n{}", self.command, self.stderr()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- {}\n{}", self.command, self.stderr());
        }
    }
}

impl Outcome {
    /// The only line of an event.
    pub(crate) fn one(&self, event: &str) -> &Value {
        let mut found = self.lines.iter().filter(|line| line["event"] == event);
        match (found.next(), found.next()) {
            (Some(line), None) => line,
            _ => panic!("not exactly one `{event}`: {self:?}"),
        }
    }

    /// The document of a command that prints one, and ends well.
    pub(crate) fn document(&self) -> &Value {
        assert_eq!((self.code, self.lines.len()), (0, 1), "{self:?}");
        &self.lines[0]
    }

    /// The last line of a job that was done.
    pub(crate) fn done(&self) -> &Value {
        assert_eq!(self.code, 0, "{self:?}");
        let last = self.lines.last().unwrap();
        assert_eq!(last["event"], "done", "{self:?}");
        last
    }

    /// The answer's text.
    pub(crate) fn answer(&self) -> String {
        super::text(&self.done()["text"])
    }

    /// Asserts that it failed in this way and said so, on both streams.
    pub(crate) fn refused(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{self:?}");
        let error = self.one("error");
        assert_eq!(error["class"], code, "{self:?}");
        let message = super::text(&error["message"]);
        for part in says {
            assert!(message.contains(part), "`{part}` is missing in: {message}");
        }
        assert!(self.stderr.contains(message.lines().next().unwrap()), "{self:?}");
    }
}

/// The end of it: an answer may have hundreds of lines.
impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skipped = self.lines.len().saturating_sub(4);
        write!(f, "exit code {}, stdout after {skipped} lines:", self.code)?;
        self.lines[skipped..].iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        write!(f, "\nstderr:\n{}", self.stderr)
    }
}
