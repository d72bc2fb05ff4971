//! Completes the first word of a line.

use super::command::words;
use rustyline::Context;
use rustyline::Helper;
use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::Validator;

/// The words of the language, for rustyline.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words;

/// The words that `typed` begins, long ones only: one letter is quicker typed than completed.
fn completions(typed: &str) -> Vec<String> {
    let begins = |word: &&str| {
        word.len() > 2 && word.get(..typed.len()).is_some_and(|start| start.eq_ignore_ascii_case(typed))
    };
    words().filter(begins).map(|word| format!("{word} ")).collect()
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..at).unwrap_or_default();
        let first = !typed.contains(char::is_whitespace);
        Ok((0, if first { completions(typed) } else { Vec::new() }))
    }
}

impl Hinter for Words {
    type Hint = String;
}
impl Highlighter for Words {}
impl Validator for Words {}
impl Helper for Words {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_word_is_completed_in_any_case() {
        assert_eq!(completions("sel"), ["SELECT "]);
        assert_eq!(completions(".v"), [".version "]);
        assert_eq!(completions("De"), ["DEL ", "DELETE "]);
        assert!(completions("ä").is_empty() && completions("x").is_empty());
    }
}
