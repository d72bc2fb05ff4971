//! The tier link as typed streams: [`LinkHost`] is what Global offers, [`LinkClient`] what a Local holds.
//!
//! Invariants: every queue is bounded, a slow reader slows its writer; a stream ends after its first error; a
//! peer of another protocol version is refused before anything else; bytes of a fetch are passed on only
//! verified.

mod client;
mod host;

pub use client::{Fetched, LinkClient, RequestSink, UpSink};
pub use host::{Fetch, LinkHost};

pub(crate) use host::{LinkService, STAGE};

use crate::status::from_status;
use dstore_shared::frame::{Answer, Ask, Reply, Request, Resolved};
use dstore_shared::limits::{BATCH_BYTES_MAX, BATCH_LEN_MAX};
use dstore_shared::{Command, Decision, Entry, Error, Outcome, Result, StepOutcome};
use futures_util::stream::{self, Stream, StreamExt};
use std::pin::Pin;
use tonic::Status;

/// Why a session cannot begin at an address: who answers there has none to offer, so it is no Global. The cause
/// ([`std::error::Error::source`]) of the error that a session stream ends with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotGlobal;

impl std::fmt::Display for NotGlobal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("sessions are not served there")
    }
}

impl std::error::Error for NotGlobal {}

/// A stream of frames; its first error is its end.
pub type Frames<T> = Pin<Box<dyn Stream<Item = Result<T>> + Send>>;

/// Reads each message with `read`, and ends after the first error.
fn frames<W: Send + 'static, T: Send + 'static>(
    wire: impl Stream<Item = Result<W, Status>> + Send + 'static,
    read: fn(W) -> Result<T>,
) -> Frames<T> {
    frames_or(wire, read, from_status)
}

/// As [`frames`], with `told` to say what a status means.
fn frames_or<W: Send + 'static, T: Send + 'static>(
    wire: impl Stream<Item = Result<W, Status>> + Send + 'static,
    read: fn(W) -> Result<T>,
    told: impl Fn(&Status) -> Error + Send + 'static,
) -> Frames<T> {
    until_error(wire.map(move |message| message.map_err(|s| told(&s)).and_then(read)))
}

fn until_error<T: Send + 'static>(all: impl Stream<Item = Result<T>> + Send + 'static) -> Frames<T> {
    let mut failed = false;
    Box::pin(all.take_while(move |frame| {
        let before = failed;
        failed |= frame.is_err();
        std::future::ready(!before)
    }))
}

/// Payload of a request or reply besides what every one has.
pub(crate) trait Weight {
    fn weight(&self) -> usize;
}

/// What every request or reply has at most, besides names and payload.
const WEIGHT: usize = 256;
/// What each name of a request counts for besides its bytes: so a batch of the shortest has no more of them than may be
/// read (`shape.rs`).
const NAME_WEIGHT: usize = 8;

impl Weight for Request {
    fn weight(&self) -> usize {
        WEIGHT
            + match &self.ask {
                Ask::Resolve { name, .. } => name.as_bytes().len(),
                Ask::Change { command: Command::Set { name, carried, attributes, .. }, .. } => {
                    let carried = carried.as_ref().map_or(0, |b| b.bytes().len());
                    name.as_bytes().len() + carried + attributes.weight()
                }
                Ask::ResolveMany { names, .. }
                | Ask::Change { command: Command::Delete { names, .. }, .. } => {
                    names.iter().map(|n| n.as_bytes().len() + NAME_WEIGHT).sum()
                }
                Ask::Change {
                    command: Command::Copy { from, to } | Command::Rename { from, to }, ..
                } => from.as_bytes().len() + to.as_bytes().len(),
                Ask::Change { command: Command::DeletePrefix { prefix }, .. } => prefix.as_bytes().len(),
                Ask::Change { command: Command::Apply(transaction), .. } => {
                    let parts = transaction.guards.len() + transaction.steps.len();
                    transaction.weight() + parts * STEP_WEIGHT
                }
            }
    }
}

impl Weight for Reply {
    fn weight(&self) -> usize {
        WEIGHT
            + match &self.answer {
                Answer::Resolved(resolved) => resolved_len(resolved),
                Answer::ResolvedMany(all) => {
                    all.iter().map(|resolved| RESOLVED_WEIGHT + resolved_len(resolved)).sum()
                }
                Answer::Changed { outcome: Outcome::Delete(outcome), .. } => outcome.removed.len(),
                Answer::Changed { outcome: Outcome::Transaction(outcome), .. } => match &outcome.decision {
                    Decision::Done(steps) => steps.iter().map(step_done_len).sum(),
                    Decision::NeedBlobs(steps) => steps.len() * 5,
                    Decision::Refused(_, step) => step_done_len(step),
                    Decision::Aborted(_) => 0,
                },
                Answer::Changed { outcome, .. } => outcome.type_len(),
                Answer::Failed(error) => error.message().len(),
            }
    }
}

/// What a guard or step has at most besides its names and what it carries: a hash, a size, a time to live.
const STEP_WEIGHT: usize = 96;
/// What a step has at most in the reply: two entries and a number.
const STEP_DONE_WEIGHT: usize = 168;
/// What one name of a resolve of many has at most in the reply, besides carried bytes.
const RESOLVED_WEIGHT: usize = 128;

/// What is carried of a name, and its type.
fn resolved_len(resolved: &Resolved) -> usize {
    let carried = resolved.carried.as_ref().map_or(0, |blob| blob.bytes().len());
    carried + resolved.entry.as_ref().map_or(0, Entry::type_len)
}

fn step_done_len(done: &StepOutcome) -> usize {
    STEP_DONE_WEIGHT + done.type_len()
}

/// Cuts a batch so that each part fits a frame; most fit as they are.
pub(crate) fn cut<T: Weight>(mut batch: Vec<T>) -> Vec<Vec<T>> {
    let mut parts = Vec::with_capacity(1);
    let (mut weight, mut len) = (0, 0);
    let mut at = 0;
    while at < batch.len() {
        let next = batch[at].weight();
        if len > 0 && (len == BATCH_LEN_MAX || weight + next > BATCH_BYTES_MAX) {
            let rest = batch.split_off(at);
            parts.push(std::mem::replace(&mut batch, rest));
            (weight, len, at) = (0, 0, 0);
        }
        (weight, len, at) = (weight + next, len + 1, at + 1);
    }
    if !batch.is_empty() {
        parts.push(batch);
    }
    parts
}

/// The parts of each batch, one after another.
fn cut_all<T: Weight + Send + 'static>(batches: Frames<Vec<T>>) -> impl Stream<Item = Result<Vec<T>>> + Send {
    batches.flat_map(|batch| {
        stream::iter(match batch {
            Ok(batch) => cut(batch).into_iter().map(Ok).collect(),
            Err(e) => vec![Err(e)],
        })
    })
}

#[cfg(test)]
mod tests;
