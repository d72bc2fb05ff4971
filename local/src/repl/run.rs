//! The loop: line in, answer out, to the end of the input.

use super::command::{Refused, parse};
use super::exit;
use super::input::{Input, Next};
use super::render::banner;
use super::session::{Session, Step};
use dstore_proto::store::Store;
use dstore_sys::Sys;
use std::io;

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
    let mut first_failure = exit::OK;
    match lines(session, sys, &mut input, bail, &mut first_failure).await {
        Ok(code) => Ok(code.unwrap_or(if input.is_terminal() { exit::OK } else { first_failure })),
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(first_failure),
        Err(e) => Err(e),
    }
}

async fn lines<S: Store>(
    session: &mut Session<S>,
    sys: &Sys,
    input: &mut Input,
    bail: bool,
    first_failure: &mut u8,
) -> io::Result<Option<u8>> {
    if input.is_terminal() {
        greet(session).await?;
    }
    loop {
        let next = if input.is_terminal() {
            input.next(sys).await // there Ctrl-C is a key of the prompt
        } else {
            tokio::select! {
                biased;
                () = session.interrupted() => return Ok(Some(exit::INTERRUPTED)),
                next = input.next(sys) => next,
            }
        };
        let step = match next {
            Next::Line(line) => match parse(line) {
                Ok(None) => continue,
                Ok(Some(line)) => session.execute(line).await?,
                Err(refused) => Step::Next(session.refuse(&refused).await?),
            },
            Next::Bad(refused) => Step::Next(session.refuse(&refused).await?),
            Next::Broken(e) => return session.refuse(&Refused::Usage(e)).await.map(Some),
            Next::End => return Ok(None),
        };
        match step {
            Step::Leave(code) => return Ok(code),
            Step::Next(exit::OK) => {}
            Step::Next(code) => {
                if *first_failure == exit::OK {
                    *first_failure = code;
                }
                if !input.is_terminal() && (bail || code == exit::INTERRUPTED) {
                    return Ok(None);
                }
            }
        }
    }
}

async fn greet<S: Store>(session: &mut Session<S>) -> io::Result<()> {
    let address = session.settings().address.clone();
    for line in banner(env!("CARGO_PKG_VERSION"), &address) {
        session.output().line(&line).await?;
    }
    session.output().flush().await
}
