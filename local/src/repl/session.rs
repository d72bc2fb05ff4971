//! One caller's conversation with a store: runs commands, one at a time, and writes their answers.
//!
//! Standard output gets exactly the lines of the language (`render`); all else goes to standard error. A
//! command that fails ends itself, never the session; only a standard output that is gone does that.

mod bench;
mod copy;
mod delete;
mod get;
mod held;
mod hops;
mod look;
mod set;
mod watch;

use super::command::{Command, Get, Line, Refused, What};
use super::keys::Keys;
use super::options::request_word;
use super::output::Output;
use super::outside::{Nowhere, Outside};
use super::patience::{Interrupts, Patience, Stop, Upload, pressed};
use super::render::{self, Footer, Mode};
use super::{exit, json, words};
use dstore_client::{Client, ClientConfig};
use dstore_proto::store::{BodyStream, Slice, Store, Target};
use dstore_shared::{Attributes, BlobHash, Entry, Error, Key, Name, Namespace, RequestId};
use dstore_sys::Sys;
use serde_json::Value as Json;
use set::Value;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use watch::Above;
pub use watch::Printer;

/// What a session is told by whoever starts it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where the node is, for messages and the banner.
    pub address: String,
    /// How answers are written.
    pub mode: Mode,
    /// One command of the shell and not the REPL language.
    pub one_shot: bool,
    /// A person is there: tell hash, size and time after an answer.
    pub chatty: bool,
    /// How long a command waits.
    pub patience: Patience,
}

/// What comes after a command. What is asked of the person, or of the loop of lines, is done by `run`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// The next command; this one ended with that exit code.
    Next(u8),
    /// The end, with that code if one was given.
    Leave(Option<u8>),
    /// The line, if the person says yes.
    Ask {
        /// What the person is asked.
        question: String,
        /// What is then done.
        then: Box<Line>,
    },
    /// The line, unless the person says no.
    More {
        /// What the person is asked.
        question: String,
        /// What is then done.
        then: Box<Line>,
    },
    /// The lines of a file.
    Read(PathBuf),
    /// The last line, as the person writes it anew.
    Edit,
    /// The last lines, so many.
    History(usize),
    /// Another node.
    Connect(String),
    /// A script ends at its first failure, or not.
    Bail(Option<bool>),
}

/// What a person chose.
#[derive(Clone, Copy, Debug)]
struct Manner {
    timer: bool,
    pager: bool,
    /// Keys a page.
    limit: usize,
}

/// Keys that LS tells at a time: a screen or two.
const LIST_LIMIT: usize = 100;

/// A conversation.
pub struct Session<S> {
    client: Client<S>,
    sys: Sys,
    settings: Settings,
    output: Output,
    interrupts: Interrupts,
    outside: Arc<dyn Outside>,
    manner: Manner,
    keys: Keys,
    /// Only at a prompt.
    above: Option<Above>,
    /// Of `.output`: what makes the file count.
    diverted: Option<super::outside::Writing>,
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// The answer of a command that is lines for people and an object for programs.
struct Told {
    command: &'static str,
    lines: Vec<String>,
    object: Json,
    /// The names of the columns, and the rows as objects.
    rows: Option<(&'static [&'static str], Vec<Json>)>,
    code: u8,
}

impl Told {
    fn new(command: &'static str, lines: Vec<String>, object: Json, code: u8) -> Self {
        Self { command, lines, object, rows: None, code }
    }
}

/// A command that is under way, for the answer to its failure.
struct Asked<'a> {
    command: &'static str,
    key: Option<&'a Key>,
    mode: Mode,
    /// It may be done although it was not answered: a change that was sent.
    in_doubt: bool,
    /// It goes on, and can be asked about as this.
    request: Option<RequestId>,
}

impl<S: Store> Session<S> {
    /// A conversation with `store`. A new number in `interrupts` cancels the command that is running.
    pub fn new(store: Arc<S>, sys: Sys, settings: Settings, output: Output, interrupts: Interrupts) -> Self {
        let config = ClientConfig {
            deadline: settings.patience.give_up_after,
            node: Some(settings.address.clone()),
            ..ClientConfig::default()
        };
        let client = Client::over(&sys, store, config);
        let manner = Manner { timer: false, pager: true, limit: LIST_LIMIT };
        let (outside, keys) = (Arc::new(Nowhere), Keys::idle());
        Self { client, sys, settings, output, interrupts, outside, manner, keys, above: None, diverted: None }
    }

    /// The same, with files and commands.
    #[must_use]
    pub fn with_outside(mut self, outside: Arc<dyn Outside>) -> Self {
        self.outside = outside;
        self
    }

    /// A person types: gives the memory of keys that completion reads. `printer` prints above the prompt.
    pub fn at_prompt(&mut self, printer: Printer) -> Keys {
        let store = self.client.store().clone();
        self.keys = Keys::new(Arc::new(move |key| store.peek(&name(key))));
        let above = Above::new(printer);
        above.follow(self.client.clone(), self.keys.clone(), self.sys.clone());
        self.above = Some(above);
        self.keys.clone()
    }

    /// What it does outside of the store.
    pub fn outside(&self) -> &Arc<dyn Outside> {
        &self.outside
    }

    /// Where answers go.
    pub fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// What it was told at its start, and the mode as it is now.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Waits for a Ctrl-C that no command has taken.
    ///
    /// # Cancel safety
    /// A cancelled call has taken none.
    pub async fn interrupted(&mut self) {
        pressed(&mut self.interrupts).await;
    }

    /// Runs one command.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn execute(&mut self, line: Line) -> io::Result<Step> {
        let mode = line.mode.unwrap_or(self.settings.mode);
        let began = self.sys.clock.now();
        let step = self.run(line.command, mode).await?;
        if self.manner.timer && matches!(step, Step::Next(_)) {
            let took = hops::short_time(self.sys.clock.now().since(began));
            self.output.note(&format!("took {took}")).await;
        }
        self.output.flush().await?;
        Ok(step)
    }

    async fn run(&mut self, command: Command, mode: Mode) -> io::Result<Step> {
        // Each is boxed, because a command's future holds all that it may wait for.
        let code = match command {
            Command::Get(get) => Box::pin(self.get(&get, mode)).await?,
            Command::Set { key, value, attributes } => {
                Box::pin(self.set_given(&key, value, &attributes, mode)).await?
            }
            Command::Add(value) => Box::pin(self.add(value, mode)).await?,
            Command::Delete { keys, how } => Box::pin(self.delete(&keys, mode, how)).await?,
            Command::DeletePrefix { prefix, sure } => {
                return Box::pin(self.delete_prefix(&prefix, sure, mode)).await;
            }
            Command::Stat(what) => Box::pin(self.stat(&what, mode)).await?,
            Command::Exists(keys) => Box::pin(self.exists(&keys, mode)).await?,
            Command::Same(a, b) => Box::pin(self.same((&a, &b), mode)).await?,
            Command::List(list) => return Box::pin(self.list(list, mode)).await,
            Command::Watch { prefix, after, count } => {
                Box::pin(self.watch(prefix, after, count, mode)).await?
            }
            Command::Unwatch => self.unwatch(mode).await?,
            Command::Copy { from, to } => Box::pin(self.copy((&from, &to), false, mode)).await?,
            Command::Rename { from, to } => Box::pin(self.copy((&from, &to), true, mode)).await?,
            Command::Evict(keys) => Box::pin(self.evict(&keys, mode)).await?,
            Command::Pin(keys, keep) => Box::pin(self.pin(&keys, keep, mode)).await?,
            Command::Warm(what) => Box::pin(self.warm(&what, mode)).await?,
            Command::Locals(key) => Box::pin(self.locals(key.as_ref(), mode)).await?,
            Command::Why(key) => Box::pin(self.why(&key, mode)).await?,
            Command::Status => Box::pin(self.status(mode)).await?,
            Command::Bench { count, size } => Box::pin(self.bench(count, size, mode)).await?,
            other => return self.about_session(other, mode).await,
        };
        Ok(Step::Next(code))
    }

    /// The dot words.
    async fn about_session(&mut self, command: Command, mode: Mode) -> io::Result<Step> {
        let on_off = |on: bool| if on { "on" } else { "off" }.to_owned();
        let (word, text) = match command {
            Command::Exit(code) => return Ok(Step::Leave(code)),
            Command::Read(path) => return Ok(Step::Read(path)),
            Command::Edit => return Ok(Step::Edit),
            Command::Connect(address) => return Ok(Step::Connect(address)),
            Command::History(n) => return Ok(Step::History(n)),
            Command::Bail(on) => return Ok(Step::Bail(on)),
            Command::Output(to) => return self.divert(to).await.map(Step::Next),
            Command::Version => (".version", concat!("dstore v", env!("CARGO_PKG_VERSION")).to_owned()),
            Command::Help(None) => (".help", words::help()),
            Command::Help(Some(word)) => (".help", words::help_of(&word).unwrap_or_else(words::help)),
            Command::Mode(None) => (".mode", mode.to_string()),
            Command::Timer(None) => (".timer", on_off(self.manner.timer)),
            Command::Pager(None) => (".pager", on_off(self.manner.pager)),
            Command::Limit(None) => (".limit", self.manner.limit.to_string()),
            Command::Mode(Some(mode)) => {
                self.settings.mode = mode;
                return Ok(Step::Next(exit::OK));
            }
            Command::Timer(Some(on)) => {
                self.manner.timer = on;
                return Ok(Step::Next(exit::OK));
            }
            Command::Pager(Some(on)) => {
                self.manner.pager = on;
                return Ok(Step::Next(exit::OK));
            }
            Command::Limit(Some(n)) => {
                self.manner.limit = n;
                return Ok(Step::Next(exit::OK));
            }
            _ => return Ok(Step::Next(exit::OK)),
        };
        self.tell(word, &text, mode).await.map(Step::Next)
    }

    /// Writes what comes to a file, or to the screen again.
    pub(super) async fn divert(&mut self, to: Option<PathBuf>) -> io::Result<u8> {
        let asked =
            Asked { command: ".output", key: None, mode: self.settings.mode, in_doubt: false, request: None };
        if let Some(before) = self.diverted.take() {
            self.output.flush().await?;
            drop(self.output.restore());
            drop(before.sink);
            if let Err(e) = before.done.await {
                return self.stopped(&asked, Stop::Failed(e)).await;
            }
        }
        let Some(path) = to else { return Ok(exit::OK) };
        match self.outside.create(&path).await {
            Ok(super::outside::Writing { sink, done }) => {
                self.output.divert(sink);
                let nothing = Box::new(tokio::io::sink());
                self.diverted = Some(super::outside::Writing { sink: nothing, done });
                Ok(exit::OK)
            }
            Err(e) => self.stopped(&asked, Stop::Failed(e)).await,
        }
    }

    /// Stores what `value` yields, of any size, under `key`.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn upload(&mut self, key: &Key, value: BodyStream, said: &Attributes) -> io::Result<u8> {
        let (upload, body) = Upload::watch(&self.sys, value);
        let code = self.set(key, Value::Stream(upload, body), said, self.settings.mode).await?;
        self.output.flush().await?;
        Ok(code)
    }

    /// Writes a part of the value of `key`, and moves no more than that.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn read(&mut self, key: &Key, slice: Slice) -> io::Result<u8> {
        let get = Get { slice, ..Get::of(key.clone()) };
        let code = self.get(&get, self.settings.mode).await?;
        self.output.flush().await?;
        Ok(code)
    }

    /// Answers a line that is no command.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn refuse(&mut self, refused: &Refused) -> io::Result<u8> {
        let mode = self.settings.mode;
        match (mode, refused) {
            (Mode::Json | Mode::Jsonl, _) => self.output.line(&json::refused(refused)).await?,
            (_, Refused::UnknownWord(_)) => self.line(render::UNKNOWN, mode).await?,
            (_, Refused::DotWord(_)) => self.line(render::UNPARSED, mode).await?,
            (_, Refused::Usage(_)) => {}
        }
        self.output.error(refused.error().message()).await;
        self.output.flush().await?;
        Ok(exit::of(refused.error().kind()))
    }

    async fn tell(&mut self, command: &str, text: &str, mode: Mode) -> io::Result<u8> {
        match mode {
            Mode::Json | Mode::Jsonl => self.output.line(&json::text(command, text)).await?,
            _ => self.line(text, mode).await?,
        }
        Ok(exit::OK)
    }

    /// Writes an answer as the mode says.
    async fn told(&mut self, told: Told, mode: Mode) -> io::Result<()> {
        match (mode, &told.rows) {
            (Mode::Jsonl, Some((_, rows))) => {
                for row in rows {
                    let line = json::line(row);
                    self.output.line(&line).await?;
                }
            }
            (Mode::Json | Mode::Jsonl, _) => {
                self.json(json::answer(told.command, told.object, told.code)).await?;
            }
            (Mode::Csv, Some((header, rows))) => {
                self.output.line(&header.join(",")).await?;
                for row in rows {
                    self.output.line(&json::csv(header, row)).await?;
                }
            }
            _ => {
                for line in &told.lines {
                    self.line(line, mode).await?;
                }
            }
        }
        self.label().await;
        Ok(())
    }

    /// Answers a command that has no answer.
    async fn stopped(&mut self, asked: &Asked<'_>, stop: Stop) -> io::Result<u8> {
        let error = match stop {
            Stop::Output(e) => return Err(e),
            Stop::Interrupted => {
                let outcome = if asked.in_doubt { ": it may be done all the same" } else { "" };
                self.output.note(&format!("cancelled{outcome}")).await;
                return Ok(exit::INTERRUPTED);
            }
            Stop::Late if asked.in_doubt => self.client.in_doubt(),
            Stop::Late => self.client.no_answer(),
            Stop::Failed(error) => error,
        };
        if matches!(asked.mode, Mode::Json | Mode::Jsonl) {
            self.output.line(&json::failed(asked.command, asked.key, asked.request.as_ref(), &error)).await?;
        }
        // The last line is the error, here as everywhere.
        if let Some(request) = &asked.request {
            self.output.note(&format!("ask again with `--request {}`", request_word(request))).await;
        }
        self.output.error(&failure(&error)).await;
        self.output.flush().await?;
        Ok(exit::of(error.kind()))
    }

    /// Writes a line of the language: in raw mode standard output is for values only.
    async fn line(&mut self, line: &str, mode: Mode) -> io::Result<()> {
        if mode == Mode::Raw {
            self.output.note(line).await;
            return Ok(());
        }
        self.output.line(line).await
    }

    /// Writes an answer as JSON, with what a crash may take of it.
    async fn json(&mut self, answer: String) -> io::Result<()> {
        let answer = json::labelled(answer, self.client.loss());
        self.output.line(&answer).await
    }

    /// Says what a crash may take of what was answered.
    async fn label(&mut self) {
        if let Some(loss) = self.client.loss() {
            self.output.note(&render::loss_note(loss)).await;
        }
    }

    /// What a person is told of an answer, dimly: of which tier, how large, which bytes, how long.
    async fn footer(&mut self, footer: &Footer) {
        if self.settings.chatty {
            self.output.note(&footer.to_string()).await;
        }
    }

    async fn took(&mut self, took: Duration) {
        if self.settings.chatty {
            self.output.note(&hops::short_time(took)).await;
        }
    }

    async fn chat(&mut self, facts: &str, took: Duration) {
        if self.settings.chatty {
            self.output.note(&format!("{facts}, {}", hops::short_time(took))).await;
        }
    }
}

fn name(key: &Key) -> Name {
    Name::new(&Namespace::default(), key)
}

fn blob(hash: BlobHash, size: u64) -> String {
    format!("blake3:{hash}, {size} B")
}

/// Enough of a hash for a person to tell two values apart.
fn short(entry: &Entry) -> String {
    format!("blake3:{}.., {} B", entry.hash.fmt_short(), entry.size)
}

fn target(what: &What) -> Target {
    match what {
        What::Key(key) => Target::Name(name(key)),
        What::Hash(hash) => Target::Hash(*hash),
    }
}

/// An error for a person: kind, message, and when to try again.
pub fn failure(error: &Error) -> String {
    let text = super::escape::escape(error.to_string().as_bytes());
    match error.delay() {
        Some(delay) => format!("{text} (try again in {delay:?})"),
        None => text,
    }
}
