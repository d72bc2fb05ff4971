//! The terminal of this process: whether it is one, and how it is left.

use dstore_local::repl::{Output, Screen, failure};
use dstore_shared::Error;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::env;
use std::io::{IsTerminal, Write, stderr, stdin, stdout};

/// What standard output and standard error are.
pub fn of_process() -> Screen {
    let err_is_terminal = stderr().is_terminal();
    let unwanted = env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
        || env::var_os("TERM").is_some_and(|t| t == "dumb");
    let columns = tcgetwinsize(stdout()).map_or(0, |size| size.ws_col);
    let (out_is_terminal, colours) = (stdout().is_terminal(), err_is_terminal && !unwanted);
    Screen { out_is_terminal, err_is_terminal, colours, columns }
}

/// Whether a person types and reads here: then there is a prompt.
pub fn has_person() -> bool {
    stdin().is_terminal() && stdout().is_terminal()
}

/// Whether this process was started at a terminal, which may have gone away since.
pub fn had_terminal() -> bool {
    static HAD: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *HAD.get_or_init(|| stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal())
}

/// The outputs of this process.
pub fn output() -> Output {
    Output::new(Box::new(tokio::io::stdout()), Box::new(tokio::io::stderr()), of_process())
}

/// Says on standard error why the process ends, and gives back `code`.
pub fn complain(error: &Error, code: u8) -> u8 {
    say(&format!("dstore: {}", failure(error)));
    code
}

/// Says something on standard error.
pub fn say(line: &str) {
    let _ = writeln!(stderr(), "{line}");
}

/// Tells something on standard output, for whoever started a server.
pub fn tell(line: &str) {
    let _ = writeln!(stdout(), "{line}").and_then(|()| stdout().flush());
}

/// How the terminal was at the start, to leave it so when a signal ends a prompt.
#[derive(Debug)]
pub struct Manners(Option<Termios>);

impl Manners {
    /// Remembers how the terminal is.
    pub fn learn() -> Self {
        Self(tcgetattr(stdin()).ok())
    }

    /// Makes the terminal as it was, with the cursor on a line of its own.
    pub fn restore(&self) {
        if let Some(termios) = &self.0 {
            let _ = tcsetattr(stdin(), OptionalActions::Now, termios);
            // A prompt asks for pastes in brackets; this takes it back.
            let _ = write!(stdout(), "\x1b[?2004l\r\n").and_then(|()| stdout().flush());
        }
    }
}
