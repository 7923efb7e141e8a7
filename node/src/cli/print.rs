//! Output: the only file that writes to stdout and stderr.

#![expect(clippy::print_stderr, reason = "this is where the program speaks")]

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::failure::{Class, Failure};

/// What others say, fit for a terminal: control characters could move the cursor, or say things in our name.
pub(super) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// A line of data.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    write(&format!("{text}\n"))
}

/// A JSON document on a line of its own.
pub(super) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string(value).map_err(Failure::of(Class::Internal))?)
}

/// Data without an end of line, seen at once.
pub(super) fn write(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // Whoever reads has seen enough, as in `llamesh find … | head -1`; what follows is for nobody.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failure::of(Class::Internal)),
    }
}

/// Talk.
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// A failure, on stderr; as JSON it is data, too.
pub(super) fn failure(failure: &Failure, as_json: bool) {
    if as_json {
        failure_as_data(failure);
    }
    let mark = if io::stderr().is_terminal() { "\u{1b}[1;31merror\u{1b}[0m" } else { "error" };
    eprintln!("{mark}: {}", plain(&failure.message));
}

/// The last line of data of a command that failed.
pub(super) fn failure_as_data(failure: &Failure) {
    let code = failure.class as u8;
    // A stdout that fails is told on stderr, or is what failed.
    let _ = json(&serde_json::json!({ "event": "error", "class": code, "message": failure.message }));
}

/// `text` in a style, where the terminal shows styles.
pub(super) fn styled(style: Style, text: &str) -> String {
    if !io::stdout().is_terminal() || std::env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match style {
        Style::Dim => 2,
        Style::Good => 32,
        Style::Strong => 1,
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

/// How a word is meant.
#[derive(Clone, Copy, Debug)]
pub(super) enum Style {
    Dim,
    Good,
    Strong,
}
