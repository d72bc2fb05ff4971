//! DEL as a session answers it: of keys, and of all keys under a prefix, about which a person is asked.

use super::super::command::{Command, Line};
use super::super::options::How;
use super::super::patience::{Stop, Wait};
use super::super::render::{self, Mode};
use super::super::{exit, json};
use super::{Asked, Session, Step, name};
use bytes::Bytes;
use dstore_proto::store::{DeleteReply, ListQuery, Store};
use dstore_shared::limits::{LIST_NAMES_MAX, PREFIX_NAMES_MAX};
use dstore_shared::{Error, Key, Kind, Name, Namespace, Prefix, Result};
use std::io;

impl<S: Store> Session<S> {
    pub(super) async fn delete(&mut self, keys: &[Key], mode: Mode, how: How) -> io::Result<u8> {
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
        keys.iter().for_each(|key| self.keys.gone(key));
        match mode {
            Mode::Json | Mode::Jsonl => self.json(json::delete(keys, &reply)).await?,
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

    pub(super) async fn delete_prefix(&mut self, prefix: &Bytes, sure: bool, mode: Mode) -> io::Result<Step> {
        let asked = Asked { command: "del", key: None, mode, in_doubt: true, request: None };
        let whole = match Prefix::new(&Namespace::default(), prefix) {
            Ok(whole) => whole,
            Err(e) => return self.stopped(&asked, Stop::Failed(e)).await.map(Step::Next),
        };
        // A script means what it says; a person may have slipped.
        if !sure && self.settings.chatty {
            return self.ask_about(prefix, mode).await;
        }
        if !sure && self.settings.one_shot {
            return self.unsure(prefix, mode).await.map(Step::Next);
        }
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let done = match wait.on(self.client.delete_prefix(&whole), None, &mut self.output).await {
            Ok(done) => done,
            Err(stop) => return self.stopped(&asked, stop).await.map(Step::Next),
        };
        let took = wait.elapsed();
        self.keys.gone_under(prefix);
        match mode {
            Mode::Json | Mode::Jsonl => self.json(json::delete_prefix(prefix, &done)).await?,
            _ => self.line(&render::prefix_line(&done), mode).await?,
        }
        self.label().await;
        self.chat(&format!("revision {}", done.revision), took).await;
        Ok(Step::Next(if done.removed == 0 { exit::NOT_FOUND } else { exit::OK }))
    }

    /// Says that a DEL by prefix was not meant clearly enough.
    pub(in super::super) async fn unsure(&mut self, prefix: &Bytes, mode: Mode) -> io::Result<u8> {
        let asked = Asked { command: "del", key: None, mode, in_doubt: false, request: None };
        let e = Error::invalid(format!(
            "this removes every key that begins with `{}`: add `-y` if you mean it",
            prefix.escape_ascii()
        ));
        self.stopped(&asked, Stop::Failed(e)).await
    }

    /// Counts what would go, for the person to decide.
    async fn ask_about(&mut self, prefix: &Bytes, mode: Mode) -> io::Result<Step> {
        let asked = Asked { command: "del", key: None, mode, in_doubt: false, request: None };
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let counted = wait.on(Box::pin(count(&self.client, prefix)), None, &mut self.output).await;
        let (keys, more) = match counted {
            Ok(counted) => counted,
            Err(stop) => return self.stopped(&asked, stop).await.map(Step::Next),
        };
        if keys == 0 {
            return self.nothing_under(prefix, mode).await.map(Step::Next);
        }
        let (than, s) = (if more { "more than " } else { "" }, if keys == 1 { "" } else { "s" });
        let prefix = prefix.clone();
        let begin = super::super::escape::escape(&prefix);
        let question = if begin.is_empty() {
            format!("remove all keys, {than}{keys} key{s}? [y/N] ")
        } else {
            format!(
                "remove {than}{keys} key{s} that begin{} with `{begin}`? [y/N] ",
                if keys == 1 { "s" } else { "" }
            )
        };
        let then = Line { command: Command::DeletePrefix { prefix, sure: true }, mode: Some(mode) };
        Ok(Step::Ask { question, then: Box::new(then) })
    }

    async fn nothing_under(&mut self, prefix: &Bytes, mode: Mode) -> io::Result<u8> {
        match mode {
            Mode::Json | Mode::Jsonl => {
                let none = dstore_shared::PrefixOutcome { removed: 0, revision: dstore_shared::Revision(0) };
                self.json(json::delete_prefix(prefix, &none)).await?;
            }
            _ => self.line(render::NOWHERE, mode).await?,
        }
        Ok(exit::NOT_FOUND)
    }
}

/// How many keys begin with `prefix`, as far as one DEL may go, and whether there are more.
async fn count<S: Store>(client: &dstore_client::Client<S>, prefix: &Bytes) -> Result<(usize, bool)> {
    let (mut keys, mut after) = (0, None);
    while keys < PREFIX_NAMES_MAX {
        let (namespace, prefix) = (Namespace::default(), prefix.clone());
        let page = client.list(&ListQuery { namespace, prefix, after, limit: LIST_NAMES_MAX }).await?;
        keys += page.names.len();
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok((keys, false)),
        }
    }
    Ok((keys, true))
}
