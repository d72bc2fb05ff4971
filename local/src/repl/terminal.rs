//! A person's terminal: prompt, line editing, completion and history, by rustyline on a thread of its own.
//!
//! The history is the caller's alone (mode 0600), because keys and values are in it; a line that begins with a
//! blank is not kept. A history that cannot be read or written is no reason to stop.

use super::complete::Words;
use super::render::PROMPT;
use dstore_shared::{Error, Result};
use dstore_sys::Sys;
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, Editor};
use std::fmt;
use std::path::PathBuf;

/// Lines kept in the history.
const HISTORY_LINES_MAX: usize = 1_000;

type LineEditor = Editor<Words, FileHistory>;

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
}

impl fmt::Debug for Terminal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Terminal({:?})", self.history)
    }
}

impl Terminal {
    /// The terminal of this process; its lines are remembered in the file `history`.
    ///
    /// # Errors
    /// `Internal` if the terminal cannot be used.
    pub async fn open(sys: &Sys, history: Option<PathBuf>) -> Result<Self> {
        let (disk, path) = (sys.disk.clone(), history.clone());
        let open = move || {
            let config = Config::builder()
                .max_history_size(HISTORY_LINES_MAX)
                .and_then(|config| config.history_ignore_dups(true))?
                .history_ignore_space(true)
                .auto_add_history(true)
                .build();
            let mut editor = Box::new(LineEditor::with_config(config)?);
            editor.set_helper(Some(Words));
            if let Some(path) = path {
                let made = path.parent().is_none_or(|folder| disk.create_dir_all(folder).is_ok());
                let read = made
                    && (disk.exists(&path).is_ok_and(|there| !there) || editor.load_history(&path).is_ok());
                if !read {
                    tracing::warn!(path = %path.display(), "the history cannot be read");
                }
            }
            Ok(editor)
        };
        let editor = sys.blocking.run(open).await.map_err(|e| unusable(&e))?;
        Ok(Self { editor: Some(editor), history })
    }

    pub(super) async fn prompt(&mut self, sys: &Sys) -> Result<Prompted> {
        let Some(mut editor) = self.editor.take() else {
            return Ok(Prompted::End);
        };
        let path = self.history.clone();
        let read = move || {
            let line = editor.readline(PROMPT);
            if let (Ok(_), Some(path)) = (&line, path)
                && let Err(error) = editor.append_history(&path)
            {
                tracing::warn!(path = %path.display(), %error, "the history cannot be written");
            }
            (editor, line)
        };
        let (editor, line) = sys.blocking.run(read).await;
        self.editor = Some(editor);
        match line {
            Ok(text) => Ok(Prompted::Text(text)),
            Err(ReadlineError::Interrupted) => Ok(Prompted::Interrupted),
            Err(ReadlineError::Eof) => Ok(Prompted::End),
            Err(e) => {
                self.editor = None;
                Err(unusable(&e))
            }
        }
    }
}

fn unusable(error: &ReadlineError) -> Error {
    Error::internal(format!(
        "the terminal cannot be used, {error}: give commands with `-c` or on standard input"
    ))
}
