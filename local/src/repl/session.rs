//! One caller's conversation with a store: runs commands, one at a time, and writes their answers.
//!
//! Standard output gets exactly the lines of the language (`render`); all else goes to standard error. A
//! command that fails ends itself, never the session; only a standard output that is gone does that.

mod copy;

use super::command::{Command, Line, Refused};
use super::options::{How, request_word};
use super::output::Output;
use super::patience::{Interrupts, Patience, Stop, Upload, Wait, pressed};
use super::render::{self, Mode};
use super::show::show;
use super::{exit, json};
use bytes::Bytes;
use dstore_client::{Client, ClientConfig, WatchQuery};
use dstore_proto::store::{BodyStream, DeleteReply, Found, SetReply, Slice, Store, Target};
use dstore_shared::{
    BlobHash, Entry, Error, Key, Kind, Name, Namespace, Prefix, RequestId, Revision, SetOutcome,
};
use dstore_sys::Sys;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

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

/// What comes after a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// The next command; this one ended with that exit code.
    Next(u8),
    /// The end, with that code if one was given.
    Leave(Option<u8>),
}

/// A conversation.
pub struct Session<S> {
    client: Client<S>,
    sys: Sys,
    settings: Settings,
    output: Output,
    interrupts: Interrupts,
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a SET stores.
enum Value {
    Bytes(Bytes),
    Stream(Upload, BodyStream),
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
        Self { client: Client::over(&sys, store, config), sys, settings, output, interrupts }
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
        let code = match line.command {
            Command::Get { key, stale_ok } => self.get(&key, Slice::ALL, mode, stale_ok).await?,
            Command::Set { key, value } => self.set(&key, Value::Bytes(value), mode).await?,
            Command::Delete { keys, how } => self.delete(&keys, mode, how).await?,
            Command::DeletePrefix { prefix, sure } => self.delete_prefix(&prefix, sure, mode).await?,
            Command::Watch { prefix, after, count } => self.watch(prefix, after, count, mode).await?,
            Command::Copy { from, to } => self.copy((&from, &to), false, mode).await?,
            Command::Rename { from, to } => self.copy((&from, &to), true, mode).await?,
            Command::Status => self.status(mode).await?,
            Command::Exit(code) => return Ok(Step::Leave(code)),
            Command::Version => {
                self.tell(".version", concat!("dstore v", env!("CARGO_PKG_VERSION")), mode).await?
            }
            Command::Help => self.tell(".help", render::HELP, mode).await?,
            Command::Mode(None) => self.tell(".mode", &mode.to_string(), mode).await?,
            Command::Mode(Some(mode)) => {
                self.settings.mode = mode;
                exit::OK
            }
        };
        self.output.flush().await?;
        Ok(Step::Next(code))
    }

    /// Stores what `value` yields, of any size, under `key`.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn upload(&mut self, key: &Key, value: BodyStream) -> io::Result<u8> {
        let (upload, body) = Upload::watch(&self.sys, value);
        let code = self.set(key, Value::Stream(upload, body), self.settings.mode).await?;
        self.output.flush().await?;
        Ok(code)
    }

    /// Writes a part of the value of `key`, and moves no more than that.
    ///
    /// # Errors
    /// Only when standard output cannot be written.
    pub async fn read(&mut self, key: &Key, slice: Slice) -> io::Result<u8> {
        let code = self.get(key, slice, self.settings.mode, None).await?;
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
            (Mode::Json, _) => self.output.line(&json::refused(refused)).await?,
            (_, Refused::UnknownWord(_)) => self.line(render::UNKNOWN, mode).await?,
            (_, Refused::DotWord(_)) => self.line(render::UNPARSED, mode).await?,
            (_, Refused::Usage(_)) => {}
        }
        self.output.error(refused.error().message()).await;
        self.output.flush().await?;
        Ok(exit::of(refused.error().kind()))
    }

    async fn get(
        &mut self,
        key: &Key,
        slice: Slice,
        mode: Mode,
        stale_ok: Option<Duration>,
    ) -> io::Result<u8> {
        let asked = Asked { command: "get", key: Some(key), mode, in_doubt: false, request: None };
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let (client, target) = (&self.client, Target::Name(name(key)));
        // Boxed, because a command's future holds all that it may wait for.
        let answer: Pin<Box<dyn Future<Output = _> + Send + '_>> = match stale_ok {
            Some(patience) => Box::pin(client.get_stream_stale(&target, slice, patience)),
            None => Box::pin(client.get_stream(&target, slice)),
        };
        match wait.on(answer, None, &mut self.output).await {
            Ok(Some(mut found)) => {
                found.from.loss = found.from.loss.or(self.client.loss());
                let (facts, took) = (facts(&found), wait.elapsed());
                if let Some(age) = found.from.stale_for {
                    let age = age.as_secs_f64();
                    self.output
                        .note(&format!(
                            "stale: global does not answer; it may have changed in the last {age:.3} s"
                        ))
                        .await;
                }
                if let Err(stop) = show(key, found, mode, &mut wait, &mut self.output).await {
                    return self.stopped(&asked, stop).await;
                }
                self.label().await;
                self.chat(&facts, took).await;
                Ok(exit::OK)
            }
            Ok(None) => {
                match mode {
                    Mode::Json => self.json(json::nowhere(key)).await?,
                    _ => self.line(render::NOWHERE, mode).await?,
                }
                self.label().await;
                Ok(exit::NOT_FOUND)
            }
            Err(stop) => self.stopped(&asked, stop).await,
        }
    }

    async fn set(&mut self, key: &Key, value: Value, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let (name, output) = (name(key), &mut self.output);
        let mut asked = Asked { command: "set", key: Some(key), mode, in_doubt: false, request: None };
        // Boxed, because a command's future holds all that it may wait for.
        let staged = match value {
            Value::Bytes(bytes) => wait.on(Box::pin(self.client.stage_bytes(bytes)), None, output).await,
            Value::Stream(upload, body) => {
                let staged = wait.on(Box::pin(self.client.stage(body)), Some(&upload), output).await;
                wait.again();
                staged
            }
        };
        let answer = match staged {
            Ok(staged) => {
                asked.in_doubt = true;
                wait.on(Box::pin(self.client.bind(&name, staged)), None, output).await
            }
            Err(stop) => Err(stop),
        };
        match answer {
            Ok(reply) => {
                let took = wait.elapsed();
                self.answer_set(key, &reply, mode, took).await
            }
            Err(stop) => self.stopped(&asked, stop).await,
        }
    }

    async fn answer_set(
        &mut self,
        key: &Key,
        reply: &SetReply,
        mode: Mode,
        took: Duration,
    ) -> io::Result<u8> {
        let (line, code) = render::set_line(reply);
        let unchanged = matches!(reply.outcome, SetOutcome::Unchanged(_));
        match mode {
            Mode::Json => self.json(json::set(key, reply)).await?,
            _ if unchanged && self.settings.one_shot => {}
            _ => self.line(line, mode).await?,
        }
        self.label().await;
        match &reply.outcome {
            SetOutcome::Stored(entry) => {
                let facts = format!("{}, revision {}", short(entry), entry.bind_rev);
                self.chat(&facts, took).await;
            }
            SetOutcome::Unchanged(_) => self.output.note("unchanged").await,
            SetOutcome::Occupied(entry) => {
                let held = blob(entry.hash, entry.size);
                self.output.note(&format!("it holds {held}: delete it first or use another key")).await;
            }
            SetOutcome::NeedBlob => {
                self.output.error("Internal: the node asked for a blob that it was given").await;
            }
        }
        Ok(code)
    }

    async fn delete(&mut self, keys: &[Key], mode: Mode, how: How) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let names: Vec<Name> = keys.iter().map(name).collect();
        wait.longer(how.mode.deadline().unwrap_or_default());
        let mut request = how.request;
        let client = &self.client;
        let deleted = async {
            let id = match request {
                Some(id) => id,
                None => *request.insert(client.request_id().await?),
            };
            client.delete_as(id, &names, how.mode).await
        };
        let answer = wait.on(Box::pin(deleted), None, &mut self.output).await;
        let reply: DeleteReply = match answer {
            Ok(reply) => reply,
            Err(stop) => {
                let key = if keys.len() == 1 { keys.first() } else { None };
                let pending = matches!(&stop, Stop::Failed(e) if e.kind() == Kind::Pending);
                let request = request.filter(|_| pending);
                let asked = Asked { command: "del", key, mode, in_doubt: true, request };
                return self.stopped(&asked, stop).await;
            }
        };
        let took = wait.elapsed();
        match mode {
            Mode::Json => self.json(json::delete(keys, &reply)).await?,
            _ => {
                for line in render::delete_lines(&reply) {
                    self.line(line, mode).await?;
                }
            }
        }
        self.label().await;
        if let Some(bound) = reply.stale {
            let bound = bound.as_secs_f64();
            self.output.note(&format!("others may read the old value for up to {bound:.3} s")).await;
        }
        self.chat(&format!("revision {}", reply.revision), took).await;
        Ok(if reply.removed.contains(&false) { exit::NOT_FOUND } else { exit::OK })
    }

    async fn delete_prefix(&mut self, prefix: &Bytes, sure: bool, mode: Mode) -> io::Result<u8> {
        let asked = Asked { command: "del", key: None, mode, in_doubt: true, request: None };
        let whole = match Prefix::new(&Namespace::default(), prefix) {
            Ok(whole) => whole,
            Err(e) => return self.stopped(&asked, Stop::Failed(e)).await,
        };
        // A script means what it says; a person may have slipped.
        if !sure && (self.settings.chatty || self.settings.one_shot) {
            let e = Error::invalid(format!(
                "this removes every key that begins with `{}`: add `-y` if you mean it",
                prefix.escape_ascii()
            ));
            return self.stopped(&asked, Stop::Failed(e)).await;
        }
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let done = match wait.on(self.client.delete_prefix(&whole), None, &mut self.output).await {
            Ok(done) => done,
            Err(stop) => return self.stopped(&asked, stop).await,
        };
        let took = wait.elapsed();
        match mode {
            Mode::Json => self.json(json::delete_prefix(prefix, &done)).await?,
            _ => self.line(&render::prefix_line(&done), mode).await?,
        }
        self.label().await;
        self.chat(&format!("revision {}", done.revision), took).await;
        Ok(if done.removed == 0 { exit::NOT_FOUND } else { exit::OK })
    }

    /// Tells each event as it comes, until there were `count` or Ctrl-C is pressed.
    async fn watch(
        &mut self,
        prefix: Bytes,
        after: Option<u64>,
        count: Option<u64>,
        mode: Mode,
    ) -> io::Result<u8> {
        let query =
            WatchQuery { namespace: Namespace::default(), prefix, after: after.map(Revision), history: None };
        self.interrupts.mark_unchanged();
        if self.settings.chatty {
            self.output.note("watching, Ctrl-C ends it").await;
        }
        let (mut watch, mut left) = (self.client.watch(query), count.unwrap_or(u64::MAX));
        let mut labelled = false;
        while left > 0 {
            let next = tokio::select! {
                biased;
                () = pressed(&mut self.interrupts) => return Ok(exit::INTERRUPTED),
                next = watch.next() => next,
            };
            let events = match next {
                Ok(seen) => {
                    if !labelled {
                        labelled = true;
                        self.label().await;
                    }
                    seen.events
                }
                Err(e) => {
                    let asked = Asked { command: "watch", key: None, mode, in_doubt: false, request: None };
                    return self.stopped(&asked, Stop::Failed(e)).await;
                }
            };
            let shown = usize::try_from(left).unwrap_or(usize::MAX).min(events.len());
            let loss = self.client.loss();
            let text: String = events[..shown]
                .iter()
                .map(|event| match mode {
                    Mode::Json => json::labelled(json::event(event), loss) + "\n",
                    _ => render::event_line(event) + "\n",
                })
                .collect();
            let write = async {
                self.output.bytes(text.as_bytes()).await?;
                self.output.flush().await
            };
            tokio::select! {
                biased;
                () = pressed(&mut self.interrupts) => return Ok(exit::INTERRUPTED),
                written = write => written?,
            }
            left -= shown as u64;
        }
        Ok(exit::OK)
    }

    async fn status(&mut self, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let status = match wait.on(self.client.status(), None, &mut self.output).await {
            Ok(status) => status,
            Err(stop) => {
                let asked = Asked { command: "status", key: None, mode, in_doubt: false, request: None };
                return self.stopped(&asked, stop).await;
            }
        };
        match mode {
            Mode::Json => self.json(json::status(&status)).await?,
            _ => {
                for line in render::status_lines(&status) {
                    self.output.line(&line).await?;
                }
            }
        }
        Ok(if status.serving { exit::OK } else { exit::UNREACHABLE })
    }

    async fn tell(&mut self, command: &str, text: &str, mode: Mode) -> io::Result<u8> {
        match mode {
            Mode::Json => self.output.line(&json::text(command, text)).await?,
            _ => self.line(text, mode).await?,
        }
        Ok(exit::OK)
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
        if asked.mode == Mode::Json {
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

    async fn chat(&mut self, facts: &str, took: Duration) {
        if self.settings.chatty {
            let millis = took.as_secs_f64() * 1e3;
            self.output.note(&format!("{facts}, {millis:.1} ms")).await;
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

fn facts(found: &Found) -> String {
    let Found { entry, from, .. } = found;
    format!("{}, {}, revision {}", short(entry), render::tier_name(from.tier), from.revision)
}

/// An error for a person: kind, message, and when to try again.
pub fn failure(error: &Error) -> String {
    let text = super::escape::escape(error.to_string().as_bytes());
    match error.delay() {
        Some(delay) => format!("{text} (try again in {delay:?})"),
        None => text,
    }
}
