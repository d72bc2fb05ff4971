//! GET as a session answers it: to the screen, into a file, or to a command of the shell.

use super::super::command::{Get, Sent, What};
use super::super::output::{Output, Screen};
use super::super::outside::Writing;
use super::super::patience::{Stop, Wait};
use super::super::render::{self, Mode};
use super::super::show::{exact, show};
use super::super::{exit, json};
use super::{Asked, Footer, Session, target};
use dstore_proto::store::{Found, Store};
use dstore_shared::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;

impl<S: Store> Session<S> {
    pub(super) async fn get(&mut self, get: &Get, mode: Mode) -> io::Result<u8> {
        let key = get.what.key();
        let asked = Asked { command: "get", key, mode, in_doubt: false, request: None };
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let (client, target, slice) = (&self.client, target(&get.what), get.slice);
        // Boxed, because a command's future holds all that it may wait for.
        let answer: Pin<Box<dyn Future<Output = _> + Send + '_>> = match get.stale_ok {
            Some(patience) => Box::pin(client.get_stream_stale(&target, slice, patience)),
            None => Box::pin(client.get_stream(&target, slice)),
        };
        match wait.on(answer, None, &mut self.output).await {
            Ok(Some(mut found)) => {
                found.from.loss = found.from.loss.or(self.client.loss());
                let footer = Footer::of(&found.entry, found.from, wait.elapsed());
                if let Some(age) = found.from.stale_for {
                    let age = age.as_secs_f64();
                    self.output
                        .note(&format!(
                            "stale: global does not answer; it may have changed in the last {age:.3} s"
                        ))
                        .await;
                }
                self.keys.saw(key, found.entry.size, found.from.cached);
                let shown = match &get.to {
                    None => show(&get.what, found, mode, &mut wait, &mut self.output).await,
                    Some(to) => return self.send(to, found, &asked).await,
                };
                if let Err(stop) = shown {
                    return self.stopped(&asked, stop).await;
                }
                self.label().await;
                self.footer(&footer).await;
                Ok(exit::OK)
            }
            Ok(None) => {
                match mode {
                    Mode::Json | Mode::Jsonl => self.json(json::nowhere("get", &get.what)).await?,
                    _ => self.line(render::NOWHERE, mode).await?,
                }
                self.label().await;
                Ok(exit::NOT_FOUND)
            }
            Err(stop) => self.stopped(&asked, stop).await,
        }
    }

    /// The exact bytes to somewhere else than the answers.
    async fn send(&mut self, to: &Sent, found: Found, asked: &Asked<'_>) -> io::Result<u8> {
        self.output.flush().await?;
        let begun = match to {
            Sent::File(path) => self.outside.create(path).await,
            Sent::Command(command) => self.outside.pipe(command).await,
        };
        let Writing { sink, done } = match begun {
            Ok(writing) => writing,
            Err(e) => return self.stopped(asked, Stop::Failed(e)).await,
        };
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let mut elsewhere = Output::new(sink, Box::new(tokio::io::sink()), Screen::default());
        let mut size = 0;
        let written = exact(found.body.into_stream(), &mut wait, &mut elsewhere).await;
        let flushed = elsewhere.flush().await;
        drop(elsewhere);
        match (written, flushed) {
            (Ok(n), Ok(())) => size = n,
            // A command that has read enough, as `head` does.
            (Err(Stop::Output(e)), _) | (Ok(_), Err(e)) if e.kind() == io::ErrorKind::BrokenPipe => {}
            (Err(Stop::Output(e)), _) | (Ok(_), Err(e)) => {
                let error = Error::invalid(format!("the value cannot be written, {e}: check its place"));
                return self.stopped(asked, Stop::Failed(error)).await;
            }
            (Err(stop), _) => return self.stopped(asked, stop).await,
        }
        match (done.await, to) {
            (Ok(_), Sent::File(path)) => {
                let path = super::super::escape::escape(path.as_os_str().as_encoded_bytes());
                let told = format!("{} written to {path}", super::super::pretty::size(size));
                self.output.note(&told).await;
                Ok(exit::OK)
            }
            (Ok(code), Sent::Command(_)) => Ok(code),
            (Err(e), _) => self.stopped(asked, Stop::Failed(e)).await,
        }
    }

    /// Says that there is no such key.
    pub(super) async fn nowhere(&mut self, command: &str, what: &What, mode: Mode) -> io::Result<u8> {
        match mode {
            Mode::Json | Mode::Jsonl => self.json(json::nowhere(command, what)).await?,
            _ => self.line(render::NOWHERE, mode).await?,
        }
        Ok(exit::NOT_FOUND)
    }
}
