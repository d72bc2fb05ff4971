//! A person's terminal: prompt, line editing, completion and history, by rustyline on a thread of its own.
//!
//! The history is the caller's alone (mode 0600), because keys and values are in it; `history` says which lines are not
//! kept. A history that cannot be read or written is no reason to stop.

use super::complete::Help;
use super::history::{keeps, once};
use super::keys::Keys;
use super::render::PROMPT;
use super::session::Printer;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use parking_lot::Mutex;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Behavior, ColorMode, CompletionType, Config, Editor, ExternalPrinter};
use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

/// Lines kept in the history.
const HISTORY_LINES_MAX: usize = 1_000;
/// Candidates that are shown without a question.
const CANDIDATES_SHOWN: usize = 100;

type LineEditor = Editor<Help, FileHistory>;

/// What a person did at the prompt.
#[derive(Debug)]
pub(super) enum Prompted {
    Text(String),
    Interrupted,
    End,
}

/// A terminal.
pub struct Terminal {
    /// Away while it reads, on its thread; gone if that thread panicked.
    editor: Option<Box<LineEditor>>,
    history: Option<PathBuf>,
    /// What was typed last, whether it is kept or not.
    last: Option<String>,
    printer: Printer,
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal({:?})", self.history)
    }
}

impl Terminal {
    /// The terminal of this process, with colours or without; its lines are remembered in the file `history`.
    ///
    /// # Errors
    /// `Internal` if the terminal cannot be used.
    pub async fn open(sys: &Sys, history: Option<PathBuf>, colours: bool) -> Result<Self> {
        let (disk, path) = (sys.disk.clone(), history.clone());
        let open = move || {
            let config = Config::builder()
                .max_history_size(HISTORY_LINES_MAX)
                .and_then(|config| config.history_ignore_dups(true))?
                .history_ignore_space(true)
                .completion_type(CompletionType::List)
                .completion_prompt_limit(CANDIDATES_SHOWN)
                .color_mode(if colours { ColorMode::Enabled } else { ColorMode::Disabled })
                .behavior(Behavior::Stdio)
                .bracketed_paste(true)
                .build();
            let mut editor = Box::new(LineEditor::with_config(config)?);
            editor.set_helper(Some(Help { colours, ..Help::default() }));
            if let Some(path) = path {
                let made = path.parent().is_none_or(|folder| disk.create_dir_all(folder).is_ok());
                let read = made && (disk.exists(&path).is_ok_and(|there| !there) || load(&mut editor, &path));
                if !read {
                    tracing::warn!(path = %path.display(), "the history cannot be read");
                }
            }
            let printer = printer(&mut editor);
            Ok((editor, printer))
        };
        let (editor, printer) = sys.blocking.run(open).await.map_err(|e| unusable(&e))?;
        Ok(Self { editor: Some(editor), history, last: None, printer })
    }

    /// Prints above the prompt.
    pub(super) fn printer(&self) -> Printer {
        self.printer.clone()
    }

    /// Completion reads this memory from now on.
    pub(super) fn remember(&mut self, keys: Keys) {
        if let Some(help) = self.editor.as_mut().and_then(|editor| editor.helper_mut()) {
            help.keys = keys;
        }
    }

    /// How wide it is, if it says so.
    pub(super) fn columns(&mut self) -> Option<u16> {
        let editor = self.editor.as_mut()?;
        let (columns, _) = editor.dimensions()?;
        if let Some(help) = editor.helper_mut() {
            help.columns = columns;
        }
        Some(columns)
    }

    /// The last `n` lines that are kept, and what was typed last.
    pub(super) fn history(&self, n: usize) -> Vec<String> {
        let Some(editor) = &self.editor else { return Vec::new() };
        let mut lines: Vec<String> = editor.history().iter().cloned().collect();
        if let Some(last) = &self.last
            && lines.last() != Some(last)
            && !last.trim_start().starts_with('.')
        {
            lines.push(last.clone());
        }
        lines.split_off(lines.len().saturating_sub(n))
    }

    /// Keeps a line, if it may be kept.
    pub(super) fn keep(&mut self, line: &str) {
        if let Some(editor) = &mut self.editor
            && keeps(line)
        {
            let _ = editor.add_history_entry(line.trim_end());
        }
    }

    pub(super) async fn prompt(&mut self, sys: &Sys) -> Result<Prompted> {
        let Some(mut editor) = self.editor.take() else {
            return Ok(Prompted::End);
        };
        let path = self.history.clone();
        let read = move || {
            let line = editor.readline(PROMPT);
            if let Ok(line) = &line
                && keeps(line)
                && editor.add_history_entry(line.as_str()).is_ok_and(|added| added)
                && let Some(path) = path
                && let Err(error) = editor.append_history(&path)
            {
                tracing::warn!(path = %path.display(), %error, "the history cannot be written");
            }
            (editor, line)
        };
        let (editor, line) = sys.blocking.run(read).await;
        self.editor = Some(editor);
        match line {
            Ok(text) => {
                self.last = Some(text.clone());
                Ok(Prompted::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Prompted::Interrupted),
            Err(ReadlineError::Eof) => Ok(Prompted::End),
            Err(e) => {
                self.editor = None;
                Err(unusable(&e))
            }
        }
    }

    /// What the person says; no, if that is nothing.
    pub(super) async fn ask(&mut self, sys: &Sys, question: &str) -> Option<String> {
        let (mut editor, question) = (self.editor.take()?, question.to_owned());
        let read = move || {
            let asking = |editor: &mut LineEditor, asking| {
                if let Some(help) = editor.helper_mut() {
                    help.asking = asking;
                }
            };
            asking(&mut editor, true);
            let said = editor.readline(&question);
            asking(&mut editor, false);
            (editor, said)
        };
        let (editor, said) = sys.blocking.run(read).await;
        self.editor = Some(editor);
        Some(said.unwrap_or_else(|_| "n".to_owned()))
    }
}

/// Reads the history, each line once.
fn load(editor: &mut LineEditor, path: &std::path::Path) -> bool {
    if editor.load_history(path).is_err() {
        return false;
    }
    let lines: Vec<String> = editor.history().iter().cloned().collect();
    let before = lines.len();
    let kept = once(lines);
    if kept.len() < before && editor.clear_history().is_ok() {
        for line in kept {
            let _ = editor.add_history_entry(line);
        }
        // Another prompt may append at the same moment: what it adds is lost at worst.
        let _ = editor.save_history(path);
    }
    true
}

/// What prints above the prompt; on a terminal that has none of that, where the cursor is.
fn printer(editor: &mut LineEditor) -> Printer {
    match editor.create_external_printer() {
        Ok(printer) => {
            let printer = Mutex::new(printer);
            Arc::new(move |lines| _ = printer.lock().print(lines))
        }
        Err(_) => Arc::new(|lines: String| {
            let mut out = std::io::stdout().lock();
            let _ = out.write_all(lines.as_bytes()).and_then(|()| out.flush());
        }),
    }
}

fn unusable(error: &ReadlineError) -> Error {
    Error::internal(format!(
        "the terminal cannot be used, {error}: give commands with `-c` or on standard input"
    ))
}
