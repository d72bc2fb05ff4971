//! Where answers go: standard output for the texts, standard error for everything more.
//!
//! Only standard output can fail a session; a standard error that nobody reads must not. Nothing is written
//! here that was not escaped before, except raw values to something that is no terminal.

use super::escape::escape;
use std::fmt;
use std::io;
use tokio::io::{AsyncWrite, AsyncWriteExt};

/// A place to write to.
pub type Sink = Box<dyn AsyncWrite + Send + Unpin>;

/// What the two outputs are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Screen {
    /// Standard output is a terminal.
    pub out_is_terminal: bool,
    /// Standard error is a terminal.
    pub err_is_terminal: bool,
    /// Colours are wanted: standard error is a terminal, and `NO_COLOR` is not set.
    pub colours: bool,
    /// How wide standard output is; 0: it does not say.
    pub columns: u16,
}

/// Standard output and standard error, or what stands for them in a test.
pub struct Output {
    out: Sink,
    err: Sink,
    screen: Screen,
    /// Standard output and what it is, while answers go to a file.
    kept: Option<(Sink, Screen)>,
}

impl Output {
    /// Writes answers to `out` and notes to `err`.
    pub fn new(out: Sink, err: Sink, screen: Screen) -> Self {
        Self { out, err, screen, kept: None }
    }

    /// What the outputs are.
    pub fn screen(&self) -> Screen {
        self.screen
    }

    /// Standard output is so wide now.
    pub fn set_columns(&mut self, columns: u16) {
        self.screen.columns = columns;
    }

    /// From now on answers go to `file`.
    pub fn divert(&mut self, file: Sink) {
        let screen = Screen { out_is_terminal: false, ..self.screen };
        let out = std::mem::replace(&mut self.out, file);
        self.kept.get_or_insert((out, self.screen));
        self.screen = screen;
    }

    /// Answers go where they went before they were diverted. Gives what they were diverted to.
    pub fn restore(&mut self) -> Option<Sink> {
        let (out, screen) = self.kept.take()?;
        self.screen = screen;
        Some(std::mem::replace(&mut self.out, out))
    }

    /// Writes one line of an answer.
    pub async fn line(&mut self, line: &str) -> io::Result<()> {
        self.bytes(format!("{line}\n").as_bytes()).await
    }

    /// Writes a part of an answer.
    pub async fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes).await
    }

    /// Hands over to the system what was written so far.
    pub async fn flush(&mut self) -> io::Result<()> {
        self.out.flush().await
    }

    /// Says more than the answer, on standard error.
    pub async fn note(&mut self, note: &str) {
        self.say(note, "\x1b[2m").await;
    }

    /// Says what went wrong, on standard error.
    pub async fn error(&mut self, error: &str) {
        self.say(error, "\x1b[31m").await;
    }

    async fn say(&mut self, text: &str, colour: &str) {
        // What was answered before must be seen before.
        let _ = self.out.flush().await;
        // Whatever a message quotes: a terminal obeys none of it.
        let text = escape(text.as_bytes());
        let line = if self.screen.colours { format!("{colour}{text}\x1b[0m\n") } else { format!("{text}\n") };
        let _ = self.err.write_all(line.as_bytes()).await;
        let _ = self.err.flush().await;
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Output({:?})", self.screen)
    }
}
