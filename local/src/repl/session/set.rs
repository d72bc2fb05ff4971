//! SET and ADD as a session answers them: the value from the line, a heredoc, a file or standard input.

use super::super::command::Given;
use super::super::output::Output;
use super::super::outside;
use super::super::patience::{Stop, Upload, Wait};
use super::super::render::{self, Mode};
use super::super::{exit, json};
use super::{Asked, Footer, Session, Told, blob, name};
use bytes::Bytes;
use dstore_client::{Client, Staged};
use dstore_proto::store::{BodyStream, SetReply, Store};
use dstore_shared::{Attributes, Error, Key, Result, SetOutcome};
use serde_json::json;
use std::io;
use std::time::Duration;

/// What a SET stores.
pub(super) enum Value {
    Bytes(Bytes),
    Stream(Upload, BodyStream),
}

/// Hands the bytes over, so that a name can be bound to them.
async fn stage<S: Store>(
    client: &Client<S>,
    value: Value,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<Staged, Stop> {
    // Boxed, because a command's future holds all that it may wait for.
    match value {
        Value::Bytes(bytes) => wait.on(Box::pin(client.stage_bytes(bytes)), None, output).await,
        Value::Stream(upload, body) => {
            let staged = wait.on(Box::pin(client.stage(body)), Some(&upload), output).await;
            wait.again();
            staged
        }
    }
}

impl<S: Store> Session<S> {
    /// What a line gives, wherever it is.
    async fn value(&mut self, given: Given) -> Result<Value> {
        match given {
            Given::Bytes(bytes) => Ok(Value::Bytes(bytes)),
            Given::File(path) => {
                let body = outside::body(self.outside.open(&path).await?);
                let (upload, body) = Upload::watch(&self.sys, body);
                Ok(Value::Stream(upload, body))
            }
        }
    }

    pub(super) async fn set_given(
        &mut self,
        key: &Key,
        given: Given,
        attributes: &Attributes,
        mode: Mode,
    ) -> io::Result<u8> {
        match self.value(given).await {
            Ok(value) => self.set(key, value, attributes, mode).await,
            Err(e) => {
                let asked = Asked { command: "set", key: Some(key), mode, in_doubt: false, request: None };
                self.stopped(&asked, Stop::Failed(e)).await
            }
        }
    }

    /// Stores a value without a key, and tells its hash.
    pub(super) async fn add(&mut self, given: Given, mode: Mode) -> io::Result<u8> {
        let asked = Asked { command: "add", key: None, mode, in_doubt: false, request: None };
        let value = match self.value(given).await {
            Ok(value) => value,
            Err(e) => return self.stopped(&asked, Stop::Failed(e)).await,
        };
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let stored = match value {
            Value::Bytes(bytes) => wait.on(Box::pin(self.client.put(bytes)), None, &mut self.output).await,
            Value::Stream(upload, body) => {
                let stored = Box::pin(self.client.set_stream(None, body));
                wait.on(stored, Some(&upload), &mut self.output).await
            }
        };
        let took = wait.elapsed();
        match stored {
            Ok(SetReply { outcome: SetOutcome::Stored(entry), from }) => {
                let (hash, size) = (entry.hash.to_string(), entry.size);
                let object = json!({"outcome": "stored", "hash": hash, "size": size});
                let footer = Footer::of(&entry, from, took);
                let told = Told::new("add", vec![format!("blake3:{hash}")], object, exit::OK);
                self.told(told, mode).await?;
                self.output.note("kept for an hour, unless a key is bound to it").await;
                self.footer(&footer).await;
                Ok(exit::OK)
            }
            Ok(_) => {
                let e = Error::internal("a value without a key was not stored: report this");
                self.stopped(&asked, Stop::Failed(e)).await
            }
            Err(stop) => self.stopped(&asked, stop).await,
        }
    }

    pub(super) async fn set(
        &mut self,
        key: &Key,
        value: Value,
        attributes: &Attributes,
        mode: Mode,
    ) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let (name, output) = (name(key), &mut self.output);
        let mut asked = Asked { command: "set", key: Some(key), mode, in_doubt: false, request: None };
        let staged = stage(&self.client, value, &mut wait, output).await;
        let answer = match staged {
            Ok(staged) => {
                asked.in_doubt = true;
                wait.on(Box::pin(self.client.bind_as(&name, staged, attributes)), None, output).await
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
            Mode::Json | Mode::Jsonl => self.json(json::set(key, reply)).await?,
            _ if unchanged && self.settings.one_shot => {}
            _ => self.line(line, mode).await?,
        }
        self.label().await;
        match &reply.outcome {
            SetOutcome::Stored(entry) => {
                self.keys.saw(Some(key), entry.size, reply.from.cached);
                self.footer(&Footer::of(entry, reply.from, took)).await;
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
}
