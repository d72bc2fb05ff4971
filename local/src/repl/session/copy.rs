//! COPY and RENAME as a session answers them: the texts and codes of a SET, and those of a key that is nowhere.

use super::super::json;
use super::super::patience::Wait;
use super::super::render::{self, Mode};
use super::{Asked, Session, blob, name, short};
use dstore_proto::store::Store;
use dstore_shared::{CopyResult, Key};
use std::io;

impl<S: Store> Session<S> {
    /// COPY; RENAME, if it unbinds the first key.
    pub(super) async fn copy(
        &mut self,
        (from, to): (&Key, &Key),
        unbinds: bool,
        mode: Mode,
    ) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let command = if unbinds { "rename" } else { "copy" };
        let (source, target) = (name(from), name(to));
        let answer = if unbinds {
            wait.on(Box::pin(self.client.rename(&source, &target)), None, &mut self.output).await
        } else {
            wait.on(Box::pin(self.client.copy(&source, &target)), None, &mut self.output).await
        };
        let outcome = match answer {
            Ok(outcome) => outcome,
            Err(stop) => {
                return self
                    .stopped(&Asked { command, key: Some(from), mode, in_doubt: true, request: None }, stop)
                    .await;
            }
        };
        let took = wait.elapsed();
        let (line, code) = render::copy_line(&outcome.result);
        let unchanged = matches!(outcome.result, CopyResult::Unchanged(_));
        match mode {
            Mode::Json | Mode::Jsonl => self.json(json::copy(command, (from, to), &outcome)).await?,
            _ if unchanged && self.settings.one_shot => {}
            _ => self.line(line, mode).await?,
        }
        self.label().await;
        match outcome.result {
            CopyResult::Done(entry) => {
                self.chat(&format!("{}, revision {}", short(&entry), outcome.revision), took).await;
            }
            CopyResult::Unchanged(_) => self.output.note("unchanged").await,
            CopyResult::Occupied(entry) => {
                let held = blob(entry.hash, entry.size);
                self.output.note(&format!("it holds {held}: delete it first or use another key")).await;
            }
            CopyResult::NotFound => {}
        }
        Ok(code)
    }
}
