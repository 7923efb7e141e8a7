//! The terminal, for as long as somebody watches. It is given back when this is dropped, and when the program panics.

use std::io::{self, IsTerminal};
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::failure::{Class, Failure};

/// Keys that wait to be looked at: more than anybody types ahead.
const KEYS: usize = 64;
/// How long the reader of keys waits before it looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(100);

/// Whether somebody can watch and type.
pub(super) fn is_there() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The terminal, taken.
#[derive(Debug)]
pub(super) struct Screen {
    terminal: DefaultTerminal,
    keys: mpsc::Receiver<io::Result<Option<KeyEvent>>>,
    over: CancellationToken,
}

impl Screen {
    /// Takes it: raw, and on its other page, so that what stood there comes back.
    pub(super) fn take() -> Result<Self, Failure> {
        let terminal = ratatui::try_init().map_err(|error| {
            // It may have got half of the way.
            ratatui::restore();
            lost(&error)
        })?;
        let (sender, keys) = mpsc::channel(KEYS);
        let over = CancellationToken::new();
        let wanted = over.clone();
        std::thread::spawn(move || read(&sender, &wanted));
        Ok(Self { terminal, keys, over })
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<(), Failure> {
        self.terminal.draw(draw).map(|_| ()).map_err(|error| lost(&error))
    }

    /// The next key; `None` where something else happened, after which all is drawn again. Cancel-safe.
    pub(super) async fn key(&mut self) -> Result<Option<KeyEvent>, Failure> {
        let read = self.keys.recv().await.unwrap_or_else(|| Err(io::ErrorKind::BrokenPipe.into()));
        read.map_err(|error| lost(&error))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.over.cancel();
        ratatui::restore();
    }
}

fn lost(error: &io::Error) -> Failure {
    Failure::new(Class::Internal, format!("the terminal is lost: {error}"))
}

/// Reads keys until nobody wants them any more. A queue that is full drops them: they were typed to nobody.
fn read(sender: &mpsc::Sender<io::Result<Option<KeyEvent>>>, over: &CancellationToken) {
    while !over.is_cancelled() {
        let key = match event::poll(LOOK) {
            Ok(false) => continue,
            Ok(true) => event::read().map(|event| match event {
                Event::Key(key) if key.kind != KeyEventKind::Release => Some(key),
                _ => None,
            }),
            Err(error) => Err(error),
        };
        let failed = key.is_err();
        if matches!(sender.try_send(key), Err(mpsc::error::TrySendError::Closed(_))) || failed {
            return;
        }
    }
}
