//! Conversations with a node: a prompt, a script, one command of the shell.

use super::attach::{Attached, RemoteStore, attach};
use super::screen::{self, Manners};
use super::signals::{Signals, TERMINATED};
use super::sys;
use crate::config::{Node, ScriptSettings, Source};
use bytes::BytesMut;
use dstore_local::repl::{
    Command, Input, Line, Mode, Output, Patience, Session, Settings, Step, Terminal, exit, run,
};
use dstore_proto::store::{BodyStream, Slice, Store};
use dstore_shared::limits::CHUNK_BYTES;
use dstore_shared::{Error, Key, Result};
use dstore_sys::Sys;
use std::env;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncReadExt, BufReader};

/// Bytes read at once from a script.
const READ_BYTES: usize = 64 << 10;

/// `dstore repl`.
pub async fn repl(node: Node, script: ScriptSettings, mode: Mode) -> u8 {
    let sys = sys();
    match attach(&sys, node).await {
        Ok(Attached { address, store, client: _client }) => {
            Box::pin(converse(&sys, store, address.to_string(), script, mode)).await
        }
        Err(e) => screen::complain(&e, exit::UNREACHABLE),
    }
}

/// `dstore get`, `set`, `del`, `copy`, `rename` and `status`.
pub async fn one_shot(node: Node, command: Command, mode: Mode) -> u8 {
    let line = Line { command, mode: None };
    let execute = async |session: &mut Session<_>| match session.execute(line).await? {
        Step::Next(code) => Ok(code),
        Step::Leave(code) => Ok(code.unwrap_or(exit::OK)),
    };
    Box::pin(once(node, mode, execute)).await
}

/// `dstore get KEY` of a part of the value.
pub async fn part(node: Node, key: Key, slice: Slice, mode: Mode) -> u8 {
    Box::pin(once(node, mode, async |session: &mut Session<_>| session.read(&key, slice).await)).await
}

/// `dstore set KEY -`.
pub async fn upload(node: Node, key: Key, mode: Mode) -> u8 {
    let upload = async |session: &mut Session<_>| session.upload(&key, pieces(tokio::io::stdin())).await;
    Box::pin(once(node, mode, upload)).await
}

async fn once(
    node: Node,
    mode: Mode,
    act: impl AsyncFnOnce(&mut Session<RemoteStore>) -> io::Result<u8>,
) -> u8 {
    match once_to(node, mode, screen::output(), act).await {
        Ok(code) => code,
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(e) => code_of(Err(e)),
    }
}

/// One command, whose answer goes to `output`.
///
/// # Errors
/// Only when `output` cannot be written.
pub(super) async fn once_to(
    node: Node,
    mode: Mode,
    output: Output,
    act: impl AsyncFnOnce(&mut Session<RemoteStore>) -> io::Result<u8>,
) -> io::Result<u8> {
    let sys = sys();
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return Ok(screen::complain(&e, exit::SOFTWARE)),
    };
    let Attached { address, store, client: _client } = match attach(&sys, node).await {
        Ok(attached) => attached,
        Err(e) => return Ok(screen::complain(&e, exit::UNREACHABLE)),
    };
    let settings = Settings { one_shot: true, chatty: false, ..settings(address.to_string(), mode) };
    let mut session = Session::new(store, sys, settings, output, signals.interrupts());
    tokio::select! {
        ended = act(&mut session) => ended,
        () = signals.end_of_session() => Ok(TERMINATED),
    }
}

/// A conversation with `store`, with whoever is at this process's inputs and outputs.
pub async fn converse<S: Store>(
    sys: &Sys,
    store: Arc<S>,
    address: String,
    script: ScriptSettings,
    mode: Mode,
) -> u8 {
    let manners = Manners::learn();
    let ScriptSettings { source, bail } = script;
    let (input, mut signals) = match (input(sys, source).await, Signals::listen()) {
        (Ok(input), Ok(signals)) => (input, signals),
        (Err(e), _) | (_, Err(e)) => return screen::complain(&e, exit::of(e.kind())),
    };
    let at_prompt = input.is_terminal();
    let settings = Settings { chatty: at_prompt, ..settings(address, mode) };
    let mut session = Session::new(store, sys.clone(), settings, screen::output(), signals.interrupts());
    tokio::select! {
        ended = run(&mut session, sys, input, bail) => code_of(ended),
        () = signals.end_of_session() => {
            if at_prompt {
                manners.restore();
            }
            TERMINATED
        }
    }
}

fn settings(address: String, mode: Mode) -> Settings {
    Settings { address, mode, one_shot: false, chatty: false, patience: Patience::default() }
}

fn code_of(ended: io::Result<u8>) -> u8 {
    ended.unwrap_or_else(|e| {
        let error = Error::internal(format!(
            "standard output cannot be written, {e}: free its disk or mend its pipe"
        ));
        screen::complain(&error, exit::SOFTWARE)
    })
}

async fn input(sys: &Sys, source: Option<Source>) -> Result<Input> {
    match source {
        Some(Source::Text(text)) => Ok(Input::script(text.into_vec())),
        Some(Source::File(path)) => {
            let file = tokio::fs::File::open(&path).await.map_err(|e| {
                Error::invalid(format!("the script `{}` cannot be opened, {e}: correct `-f`", path.display()))
            })?;
            Ok(Input::lines(BufReader::with_capacity(READ_BYTES, file)))
        }
        None if screen::has_person() => Ok(Input::terminal(Terminal::open(sys, history()).await?)),
        None => Ok(Input::lines(BufReader::with_capacity(READ_BYTES, tokio::io::stdin()))),
    }
}

/// `$XDG_STATE_HOME/dstore/history`, or `~/.local/state/dstore/history`; nowhere without a home.
fn history() -> Option<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("dstore/history"))
}

/// The bytes of `source` in full pieces, the last one excepted.
fn pieces(source: impl AsyncRead + Send + Unpin + 'static) -> BodyStream {
    Box::pin(futures_util::stream::unfold(Some(source), |source| async {
        let mut source = source?;
        let mut piece = BytesMut::with_capacity(CHUNK_BYTES);
        while piece.len() < CHUNK_BYTES {
            let room = CHUNK_BYTES - piece.len();
            match (&mut source).take(room as u64).read_buf(&mut piece).await {
                Ok(0) => {
                    let last = (!piece.is_empty()).then(|| Ok(piece.freeze()));
                    return last.map(|piece| (piece, None));
                }
                Ok(_) => {}
                Err(e) => {
                    let error =
                        Error::invalid(format!("standard input cannot be read, {e}: nothing was stored"));
                    return Some((Err(error), None));
                }
            }
        }
        Some((Ok(piece.freeze()), Some(source)))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::TryStreamExt;

    async fn lengths(len: usize) -> Vec<usize> {
        let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let source = tokio::io::BufReader::with_capacity(1000, io::Cursor::new(bytes.clone()));
        let pieces: Vec<_> = pieces(source).try_collect().await.expect("read");
        assert_eq!(pieces.concat(), bytes);
        pieces.iter().map(bytes::Bytes::len).collect()
    }

    #[tokio::test]
    async fn standard_input_is_cut_into_full_pieces() {
        assert_eq!(lengths(0).await, [0_usize; 0]);
        assert_eq!(lengths(1).await, [1]);
        assert_eq!(lengths(CHUNK_BYTES).await, [CHUNK_BYTES]);
        assert_eq!(lengths(CHUNK_BYTES + 1).await, [CHUNK_BYTES, 1]);
        assert_eq!(lengths(2 * CHUNK_BYTES - 1).await, [CHUNK_BYTES, CHUNK_BYTES - 1]);
    }
}
