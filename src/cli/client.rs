//! Conversations with a node: a prompt, a script, one command of the shell.

use super::attach::{Attached, RemoteStore, attach};
use super::outside::Files;
use super::screen::{self, Manners};
use super::signals::{Signals, TERMINATED};
use super::sys;
use crate::config::{Node, ScriptSettings, Source};
use dstore_local::repl::{
    self, Command, Ended, Input, Line, Mode, Output, Patience, Session, Settings, Step, Terminal, body, exit,
};
use dstore_proto::store::{Slice, Store};
use dstore_shared::{Attributes, Error, Key, Result};
use dstore_sys::Sys;
use std::env;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::BufReader;

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
        // Nobody can be asked.
        _ => Ok(exit::OK),
    };
    Box::pin(once(node, mode, execute)).await
}

/// `dstore get KEY` of a part of the value.
pub async fn part(node: Node, key: Key, slice: Slice, mode: Mode) -> u8 {
    Box::pin(once(node, mode, async |session: &mut Session<_>| session.read(&key, slice).await)).await
}

/// `dstore set KEY -`.
pub async fn upload(node: Node, key: Key, attributes: Attributes, mode: Mode) -> u8 {
    let upload = async |session: &mut Session<_>| {
        session.upload(&key, body(Box::new(tokio::io::stdin())), &attributes).await
    };
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
    let mut session =
        Session::new(store, sys, settings, output, signals.interrupts()).with_outside(Arc::new(Files));
    tokio::select! {
        ended = act(&mut session) => ended,
        () = signals.end_of_session() => Ok(TERMINATED),
    }
}

/// How a conversation with one node ended.
enum Talked {
    Code(u8),
    Connect(String),
}

/// A conversation with `store`, with whoever is at this process's inputs and outputs; `.connect` goes on with others.
pub async fn converse<S: Store>(
    sys: &Sys,
    store: Arc<S>,
    address: String,
    script: ScriptSettings,
    mode: Mode,
) -> u8 {
    let manners = Manners::learn();
    let ScriptSettings { source, bail } = script;
    let (mut input, mut signals) = match (input(sys, source).await, Signals::listen()) {
        (Ok(input), Ok(signals)) => (input, signals),
        (Err(e), _) | (_, Err(e)) => return screen::complain(&e, exit::of(e.kind())),
    };
    let at_prompt = input.is_terminal();
    // Exact lines are for scripts; a person sees values laid out.
    let mode = if at_prompt && mode == Mode::Text { Mode::Pretty } else { mode };
    let mut talk = Talk { sys, input: &mut input, signals: &mut signals, bail, mode, greeting: true };
    let mut talked = Box::pin(talk.with(store.clone(), address.clone())).await;
    let mut other: Option<Attached> = None;
    let code = loop {
        let to = match talked {
            Talked::Code(code) => break code,
            Talked::Connect(to) => to,
        };
        match connect(sys, &to).await {
            Ok(attached) => {
                screen::say(&format!("connected to {}", attached.address));
                other = Some(attached);
            }
            Err(e) => {
                screen::complain(&e, exit::UNREACHABLE);
                if !at_prompt && bail {
                    break exit::of(e.kind());
                }
            }
        }
        talked = match &other {
            Some(at) => Box::pin(talk.with(at.store.clone(), at.address.to_string())).await,
            None => Box::pin(talk.with(store.clone(), address.clone())).await,
        };
    };
    if at_prompt && code == TERMINATED {
        manners.restore();
    }
    code
}

async fn connect(sys: &Sys, to: &str) -> Result<Attached> {
    let address = to.parse().map_err(|e: Error| {
        Error::invalid(format!("`.connect`: {}: write HOST:PORT or unix:PATH", e.message()))
    })?;
    attach(sys, Node::At(address)).await
}

/// What stays from node to node.
struct Talk<'a> {
    sys: &'a Sys,
    input: &'a mut Input,
    signals: &'a mut Signals,
    bail: bool,
    mode: Mode,
    greeting: bool,
}

impl Talk<'_> {
    async fn with<S: Store>(&mut self, store: Arc<S>, address: String) -> Talked {
        let at_prompt = self.input.is_terminal();
        let settings = Settings { chatty: at_prompt, ..settings(address, self.mode) };
        let interrupts = self.signals.interrupts();
        let mut session = Session::new(store, self.sys.clone(), settings, screen::output(), interrupts)
            .with_outside(Arc::new(Files));
        let greeting = std::mem::take(&mut self.greeting);
        tokio::select! {
            ended = repl::converse(&mut session, self.sys, self.input, self.bail, greeting) => match ended {
                Ok(Ended::Connect(address)) => {
                    self.mode = session.settings().mode;
                    Talked::Connect(address)
                }
                Ok(Ended::Code(code)) => Talked::Code(code),
                Err(e) => Talked::Code(code_of(Err(e))),
            },
            () = self.signals.end_of_session() => Talked::Code(TERMINATED),
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
        None if screen::has_person() => {
            Ok(Input::terminal(Terminal::open(sys, history(), screen::of_process().colours).await?))
        }
        None => Ok(Input::lines(BufReader::with_capacity(READ_BYTES, tokio::io::stdin()))),
    }
}

/// `$XDG_STATE_HOME/dstore/history`, or `~/.local/state/dstore/history`; nowhere without a home.
fn history() -> Option<PathBuf> {
    let absolute = |variable| env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = absolute("XDG_STATE_HOME").or_else(|| Some(absolute("HOME")?.join(".local/state")))?;
    Some(state.join("dstore/history"))
}
