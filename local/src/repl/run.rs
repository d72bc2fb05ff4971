//! The loop: line in, answer out, to the end of the input.

use super::command::{Command, Line, Refused, parse};
use super::exit;
use super::input::{Input, Next};
use super::render::banner;
use super::session::{Session, Step};
use dstore_proto::store::Store;
use dstore_shared::Error;
use dstore_sys::Sys;
use std::io;
use tokio::io::BufReader;

/// Files that run one within the other.
const READ_DEPTH_MAX: usize = 8;
/// Bytes read at once from a script.
const READ_BYTES: usize = 64 << 10;

/// How a conversation ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// With this exit code.
    Code(u8),
    /// It is to go on with the node at this address.
    Connect(String),
}

/// Runs every line of `input` and gives the exit code: that of `.exit CODE`, else that of a script's first
/// failure; a person's session ends with 0. `bail` ends a script at its first failure, Ctrl-C always does.
///
/// # Errors
/// Only when standard output cannot be written. A reader that went away is no error.
pub async fn run<S: Store>(
    session: &mut Session<S>,
    sys: &Sys,
    mut input: Input,
    bail: bool,
) -> io::Result<u8> {
    match converse(session, sys, &mut input, bail, true).await? {
        Ended::Code(code) => Ok(code),
        Ended::Connect(_) => {
            let e = Error::invalid("another node is for a prompt or a script: start it with `--node`");
            session.refuse(&Refused::Usage(e)).await
        }
    }
}

/// As [`run`], with an input that outlives it: after [`Ended::Connect`] it goes on with another session, then without
/// a `greeting`.
///
/// # Errors
/// As [`run`].
pub async fn converse<S: Store>(
    session: &mut Session<S>,
    sys: &Sys,
    input: &mut Input,
    bail: bool,
    greeting: bool,
) -> io::Result<Ended> {
    let mut lines = Lines { sys, first: input, read: Vec::new(), bail, first_failure: exit::OK };
    let ended = lines.run(session, greeting).await;
    let ended = match session.divert(None).await {
        Ok(_) => ended,
        Err(e) => ended.and(Err(e)),
    };
    match ended {
        Ok(Some(ended)) => Ok(ended),
        Ok(None) if lines.first.is_terminal() => Ok(Ended::Code(exit::OK)),
        Ok(None) => Ok(Ended::Code(lines.first_failure)),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(Ended::Code(lines.first_failure)),
        Err(e) => Err(e),
    }
}

/// Where lines come from, and how it went so far.
struct Lines<'a> {
    sys: &'a Sys,
    first: &'a mut Input,
    /// Files that `.read` named, the innermost last.
    read: Vec<Input>,
    bail: bool,
    first_failure: u8,
}

impl Lines<'_> {
    async fn run<S: Store>(&mut self, session: &mut Session<S>, greeting: bool) -> io::Result<Option<Ended>> {
        let person = self.first.is_terminal();
        if person && greeting {
            greet(session).await?;
        }
        if let Input::Terminal { terminal, .. } = &mut *self.first {
            let keys = session.at_prompt(terminal.printer());
            terminal.remember(keys);
        }
        loop {
            let step = match self.next(session).await {
                Next::Line(line) => match parse(line) {
                    Ok(None) => continue,
                    Ok(Some(line)) => session.execute(line).await?,
                    Err(refused) => Step::Next(session.refuse(&refused).await?),
                },
                Next::Pasted(count) => {
                    session.output().note(&format!("{count} lines pasted")).await;
                    continue;
                }
                Next::Bad(refused) => Step::Next(session.refuse(&refused).await?),
                Next::Broken(e) => {
                    return session.refuse(&Refused::Usage(e)).await.map(|code| Some(Ended::Code(code)));
                }
                Next::End if self.read.pop().is_some() => continue,
                Next::End => return Ok(None),
            };
            let code = match self.follow(session, step).await? {
                Followed::Left(ended) => return Ok(ended),
                Followed::Code(code) => code,
            };
            if code == exit::OK {
                continue;
            }
            if self.first_failure == exit::OK {
                self.first_failure = code;
            }
            if self.bail || code == exit::INTERRUPTED {
                // At a prompt it is the file that ends, not the session.
                self.read.clear();
                if !person {
                    return Ok(None);
                }
            }
        }
    }

    async fn next<S: Store>(&mut self, session: &mut Session<S>) -> Next {
        let input = self.read.last_mut().unwrap_or(self.first);
        if let Input::Terminal { terminal, .. } = input {
            if let Some(columns) = terminal.columns() {
                session.output().set_columns(columns);
            }
            return input.next(self.sys).await; // there Ctrl-C is a key of the prompt
        }
        tokio::select! {
            biased;
            () = session.interrupted() => {
                self.first_failure = exit::INTERRUPTED;
                self.read.clear();
                if self.first.is_terminal() { Next::Line(bytes::Bytes::new()) } else { Next::End }
            }
            next = input.next(self.sys) => next,
        }
    }

    /// Does what a step asks of the loop, until there is an exit code.
    async fn follow<S: Store>(&mut self, session: &mut Session<S>, mut step: Step) -> io::Result<Followed> {
        loop {
            step = match step {
                Step::Next(code) => return Ok(Followed::Code(code)),
                Step::Leave(code) => return Ok(Followed::Left(code.map(Ended::Code))),
                Step::Connect(address) => return Ok(Followed::Left(Some(Ended::Connect(address)))),
                Step::Ask { question, then } => match self.answer(&question).await {
                    Some(yes) if yes => session.execute(*then).await?,
                    Some(_) => {
                        session.output().note("nothing was removed").await;
                        Step::Next(exit::OK)
                    }
                    None => Step::Next(unsure(session, &then).await?),
                },
                Step::More { question, then } => {
                    if self.more(&question).await {
                        session.execute(*then).await?
                    } else {
                        Step::Next(exit::OK)
                    }
                }
                Step::Bail(None) => {
                    let told = if self.bail { "on" } else { "off" };
                    session.output().line(told).await?;
                    session.output().flush().await?;
                    Step::Next(exit::OK)
                }
                Step::Bail(Some(on)) => {
                    self.bail = on;
                    Step::Next(exit::OK)
                }
                Step::History(n) => {
                    for line in self.first.history(n) {
                        session.output().line(&super::escape(line.as_bytes())).await?;
                    }
                    session.output().flush().await?;
                    Step::Next(exit::OK)
                }
                Step::Read(path) => Step::Next(self.open(session, &path).await?),
                Step::Edit => match self.edit(session).await {
                    Ok(Some(line)) => session.execute(line).await?,
                    Ok(None) => Step::Next(exit::OK),
                    Err(refused) => Step::Next(session.refuse(&refused).await?),
                },
            };
        }
    }

    /// Whether the person says yes; `None`: nobody is there to be asked.
    async fn answer(&mut self, question: &str) -> Option<bool> {
        let said = self.first.ask(self.sys, question).await?;
        Some(matches!(said.trim().to_ascii_lowercase().as_str(), "y" | "yes"))
    }

    async fn more(&mut self, question: &str) -> bool {
        let said = self.first.ask(self.sys, question).await;
        said.is_some_and(|said| matches!(said.trim().to_ascii_lowercase().as_str(), "" | "y" | "yes"))
    }

    /// From now on lines come from the file, to its end.
    async fn open<S: Store>(&mut self, session: &mut Session<S>, path: &std::path::Path) -> io::Result<u8> {
        let opened = if self.read.len() >= READ_DEPTH_MAX {
            Err(Error::invalid(format!("files read files {READ_DEPTH_MAX} deep already: unfold one")))
        } else {
            let outside = session.outside().clone();
            outside.open(path).await
        };
        match opened {
            Ok(source) => {
                self.read.push(Input::lines(BufReader::with_capacity(READ_BYTES, source)));
                Ok(exit::OK)
            }
            Err(e) => session.refuse(&Refused::Usage(e)).await,
        }
    }

    /// The last line, as the person wrote it anew.
    async fn edit<S: Store>(&mut self, session: &mut Session<S>) -> Result<Option<Line>, Refused> {
        if !self.first.is_terminal() {
            return Err(Error::invalid("an editor is for a prompt: write another line instead").into());
        }
        let mut last = self.first.history(2);
        last.retain(|line| !line.trim().eq_ignore_ascii_case(".edit"));
        let text = last.pop().unwrap_or_default();
        let outside = session.outside().clone();
        let written = outside.edit(&text).await?;
        self.first.keep(&written);
        match parse(written)? {
            Some(Line { command: Command::Edit, .. }) => Ok(None),
            line => Ok(line),
        }
    }
}

/// What a step came to.
enum Followed {
    Code(u8),
    Left(Option<Ended>),
}

/// Nobody could be asked.
async fn unsure<S: Store>(session: &mut Session<S>, then: &Line) -> io::Result<u8> {
    match &then.command {
        Command::DeletePrefix { prefix, .. } => session.unsure(prefix, then.mode.unwrap_or_default()).await,
        _ => Ok(exit::OK),
    }
}

async fn greet<S: Store>(session: &mut Session<S>) -> io::Result<()> {
    let address = session.settings().address.clone();
    for line in banner(env!("CARGO_PKG_VERSION"), &address) {
        session.output().line(&line).await?;
    }
    session.output().flush().await
}
