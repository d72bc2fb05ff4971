//! Where lines come from: a text, a stream of bytes, or a person at a terminal.

use super::command::{Refused, heredoc};
use super::script::{Script, Separators};
use super::terminal::{Prompted, Terminal};
use bytes::{Bytes, BytesMut};
use dstore_shared::Error;
use dstore_sys::Sys;
use std::fmt;
use tokio::io::{AsyncBufRead, AsyncBufReadExt};

/// Longest line: a larger value comes with `dstore set KEY -`, in constant memory.
pub const LINE_BYTES_MAX: usize = 16 << 20;

/// What a source gives.
#[derive(Debug)]
pub enum Next {
    /// A line, without its end.
    Line(Bytes),
    /// So many lines come together: a person pasted them.
    Pasted(usize),
    /// Something that can be no line.
    Bad(Refused),
    /// No more, because the source broke.
    Broken(Error),
    /// No more.
    End,
}

/// A source of lines.
pub enum Input {
    /// The text of `-c`.
    Script(Script),
    /// Standard input that is no terminal, or the file of `-f`.
    Lines(Box<dyn AsyncBufRead + Send + Unpin>),
    /// A person.
    Terminal {
        /// The terminal.
        terminal: Terminal,
        /// What is left of a paste of several lines.
        pasted: Script,
    },
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Script(_) => "Script",
            Self::Lines(_) => "Lines",
            Self::Terminal { .. } => "Terminal",
        })
    }
}

impl Input {
    /// The commands of a text, separated by `;` or line ends.
    pub fn script(text: impl Into<Bytes>) -> Self {
        Self::Script(Script::new(text, Separators::Semicolons))
    }

    /// The lines of a stream.
    pub fn lines(lines: impl AsyncBufRead + Send + Unpin + 'static) -> Self {
        Self::Lines(Box::new(lines))
    }

    /// The lines a person types.
    pub fn terminal(terminal: Terminal) -> Self {
        Self::Terminal { terminal, pasted: Script::new("", Separators::LineEnds) }
    }

    /// Whether a person types.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal { .. })
    }

    /// What the person says to a question; `None`: nobody is there.
    pub(super) async fn ask(&mut self, sys: &Sys, question: &str) -> Option<String> {
        match self {
            Self::Terminal { terminal, .. } => terminal.ask(sys, question).await,
            Self::Script(_) | Self::Lines(_) => None,
        }
    }

    /// The last `n` lines that the person typed, the newest last.
    pub(super) fn history(&self, n: usize) -> Vec<String> {
        match self {
            Self::Terminal { terminal, .. } => terminal.history(n),
            Self::Script(_) | Self::Lines(_) => Vec::new(),
        }
    }

    /// Remembers a line that was not typed at the prompt.
    pub(super) fn keep(&mut self, line: &str) {
        if let Self::Terminal { terminal, .. } = self {
            terminal.keep(line);
        }
    }

    /// The next line.
    pub async fn next(&mut self, sys: &Sys) -> Next {
        match self {
            Self::Script(script) => from_script(script).unwrap_or(Next::End),
            Self::Lines(lines) => read_lines(lines).await,
            Self::Terminal { terminal, pasted } => {
                if let Some(next) = from_script(pasted) {
                    return next;
                }
                match terminal.prompt(sys).await {
                    Ok(Prompted::Text(text)) => {
                        *pasted = Script::new(text, Separators::LineEnds);
                        let count =
                            pasted.clone().filter(|line| line.as_ref().is_ok_and(|l| !l.is_empty())).count();
                        if count > 1 {
                            return Next::Pasted(count);
                        }
                        from_script(pasted).unwrap_or(Next::Line(Bytes::new()))
                    }
                    Ok(Prompted::Interrupted) => Next::Line(Bytes::new()),
                    Ok(Prompted::End) => Next::End,
                    Err(e) => Next::Broken(e),
                }
            }
        }
    }
}

fn from_script(script: &mut Script) -> Option<Next> {
    script.next().map(|line| line.map_or_else(|e| Next::Bad(Refused::Usage(e)), Next::Line))
}

/// Reads a line, and those of its heredoc with what ends it.
async fn read_lines(lines: &mut (dyn AsyncBufRead + Send + Unpin)) -> Next {
    let first = match read_line(lines).await {
        Next::Line(line) => line,
        other => return other,
    };
    let Some(end) = heredoc(&first) else { return Next::Line(first) };
    let mut all = BytesMut::from(first);
    loop {
        match read_line(lines).await {
            Next::Line(line) => {
                if all.len() + line.len() >= LINE_BYTES_MAX {
                    return Next::Bad(Refused::Usage(Error::too_large(format!(
                        "the lines of a value have more than `{LINE_BYTES_MAX}` bytes: store it with `SET KEY < FILE`"
                    ))));
                }
                all.extend_from_slice(b"\n");
                all.extend_from_slice(&line);
                if line.trim_ascii_end() == end {
                    return Next::Line(all.freeze());
                }
            }
            // Its end did not come: the parser says so.
            Next::End => return Next::Line(all.freeze()),
            other => return other,
        }
    }
}

/// Reads up to a line end. Of a line that is too long nothing is kept, and reading goes on after it.
async fn read_line(lines: &mut (dyn AsyncBufRead + Send + Unpin)) -> Next {
    let (mut line, mut len) = (BytesMut::new(), 0);
    loop {
        let buffer = match lines.fill_buf().await {
            Ok(buffer) => buffer,
            Err(e) => return broken(&e),
        };
        let end = buffer.iter().position(|b| *b == b'\n');
        let part = &buffer[..end.unwrap_or(buffer.len())];
        len += part.len();
        if len <= LINE_BYTES_MAX {
            line.extend_from_slice(part);
        } else {
            line = BytesMut::new();
        }
        let (at_end, used) = (buffer.is_empty(), part.len() + usize::from(end.is_some()));
        lines.consume(used);
        match (end, at_end) {
            (None, true) if len == 0 => return Next::End,
            (None, false) => {}
            _ if len > LINE_BYTES_MAX => {
                return Next::Bad(Refused::Usage(Error::too_large(format!(
                    "a line has `{len}` bytes, at most `{LINE_BYTES_MAX}`: store the value with `dstore set KEY -`"
                ))));
            }
            _ => return Next::Line(line.freeze()),
        }
    }
}

/// A source that broke ends like one that ran out, but not unnoticed.
fn broken(error: &std::io::Error) -> Next {
    Next::Broken(Error::invalid(format!("the input cannot be read, {error}: check the file or pipe")))
}
