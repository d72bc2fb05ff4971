//! Lends the line editor what `hint` knows: completions, hints, colours, and whether a line wants another.

use super::command::is_open;
use super::hint::{coloured, completions, hint};
use super::keys::Keys;
use rustyline::completion::{Completer, Pair};
use rustyline::highlight::{CmdKind, Highlighter};
use rustyline::hint::{Hint, Hinter};
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Helper};
use std::borrow::Cow;

/// Columns of the prompt, and one in which the cursor stands.
const PROMPT_COLUMNS: usize = 6;

/// What helps a person who types.
#[derive(Debug, Default)]
pub(super) struct Help {
    pub keys: Keys,
    pub colours: bool,
    /// How wide the terminal is; 0: it does not say.
    pub columns: u16,
    /// What is typed is no command but the answer to a question.
    pub asking: bool,
}

/// Grey text that is shown and never inserted.
#[derive(Debug)]
pub(super) struct Grey(String);

impl Hint for Grey {
    fn display(&self) -> &str {
        &self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Completer for Help {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        if self.asking {
            return Ok((at, Vec::new()));
        }
        let (begins, found) = completions(line.get(..at).unwrap_or_default(), &self.keys);
        let pair = |one: super::hint::Candidate| Pair { display: one.shown, replacement: one.text };
        Ok((begins, found.into_iter().map(pair).collect()))
    }
}

impl Hinter for Help {
    type Hint = Grey;

    fn hint(&self, line: &str, at: usize, _: &Context<'_>) -> Option<Grey> {
        if self.asking || at < line.len() {
            return None;
        }
        let columns = usize::from(if self.columns == 0 { 80 } else { self.columns });
        let room = columns.saturating_sub(PROMPT_COLUMNS + line.chars().count());
        hint(line, &self.keys, room).map(Grey)
    }
}

impl Highlighter for Help {
    fn highlight<'l>(&self, line: &'l str, _: usize) -> Cow<'l, str> {
        if self.colours && !self.asking { coloured(line) } else { Cow::Borrowed(line) }
    }

    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        if self.colours { Cow::Owned(format!("\x1b[90m{hint}\x1b[0m")) } else { Cow::Borrowed(hint) }
    }

    fn highlight_char(&self, _: &str, _: usize, _: CmdKind) -> bool {
        self.colours && !self.asking
    }
}

impl Validator for Help {
    fn validate(&self, typed: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let open = !self.asking && is_open(typed.input());
        Ok(if open { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Helper for Help {}
