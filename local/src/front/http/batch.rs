//! POST of several steps: read, stored and deleted in one call.
//!
//! By themselves, in their order: gets that stand together read as of one moment, deletes that stand together are one
//! atomic DEL, each set is by itself; a step that fails says so and the next are carried out all the same. Or all or
//! none, as one transaction ([`atomic`]).
//!
//! Bounded: steps, bytes of the request, bytes of the answer as it is written ([`answer`]), and the time of all steps
//! together. A step that asks for more than there may be does not keep those beside it from what they ask for.

mod answer;
mod atomic;

use super::attributes::ttl;
use super::body::{Arriving, late, need_type};
use super::conditions::Conditions;
use super::problem::Problem;
use super::until::Until;
use super::write::{Stored, store};
use super::{Answered, Desk, json};
use crate::rooms::Room;
use answer::Answer;
use axum::extract::Request;
use bytes::Bytes;
use dstore_proto::store::{Body, Found, Store};
use dstore_shared::limits::{FRAME_BYTES_MAX, SET_MANY_NAMES_MAX};
use dstore_shared::{
    Attributes, Blob, ContentType, Error, Key, Kind, Name, Namespace, Payload, Result, Revision,
    Step as Doing, When,
};
use futures_util::future::join_all;
use serde::de::{Error as _, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Number;
use std::collections::BTreeSet;
use std::fmt;

/// Steps of one batch.
const STEPS_MAX: usize = SET_MANY_NAMES_MAX;
/// Bytes of a batch.
const BYTES_MAX: usize = FRAME_BYTES_MAX;

/// What a step that was read takes beside its bytes.
const STEP_BYTES: usize = 1024;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    #[serde(default)]
    atomic: bool,
    steps: Steps,
}

/// As many steps as there may be, and how many there are.
struct Steps {
    first: Vec<Step>,
    all: usize,
}

impl<'de> Deserialize<'de> for Steps {
    fn deserialize<D: Deserializer<'de>>(list: D) -> Result<Self, D::Error> {
        /// Keeps no step beyond the most: the shortest take a hundred times the memory of their text.
        struct Few;
        impl<'de> Visitor<'de> for Few {
            type Value = Steps;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of steps")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Steps, A::Error> {
                let mut first = Vec::new();
                while first.len() < STEPS_MAX {
                    let Some(step) = list.next_element()? else {
                        let all = first.len();
                        return Ok(Steps { first, all });
                    };
                    first.push(step);
                }
                let mut all = first.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    all += 1;
                }
                Ok(Steps { first, all })
            }
        }
        list.deserialize_seq(Few)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    op: Op,
    #[serde(default, deserialize_with = "given")]
    namespace: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key: Option<String>,
    #[serde(default, deserialize_with = "given")]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value: Option<String>,
    #[serde(default, deserialize_with = "given")]
    value_base64: Option<String>,
    #[serde(default, deserialize_with = "given")]
    content_type: Option<String>,
    #[serde(default, deserialize_with = "whole")]
    ttl_ms: Option<u64>,
    #[serde(default, deserialize_with = "whole")]
    if_revision: Option<u64>,
}

/// A field that is there has a value, and is not null.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

/// A whole number; `7.0` is one too, as JSON has it.
fn whole<'de, D: Deserializer<'de>>(field: D) -> Result<Option<u64>, D::Error> {
    /// Up to which every whole number has a floating point of its own.
    const EXACT_MAX: f64 = (1_u64 << 53) as f64;
    let number = Number::deserialize(field)?;
    let whole =
        |float: f64| (float.fract() == 0.0 && (0.0..=EXACT_MAX).contains(&float)).then_some(float as u64);
    let read = number.as_u64().or_else(|| number.as_f64().and_then(whole));
    read.map(Some).ok_or_else(|| D::Error::custom(format!("`{number}` is no whole number from 0 on")))
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    Get,
    Set,
    Delete,
}

/// A step that was read.
#[cfg_attr(test, derive(Clone))]
struct Checked {
    op: Op,
    name: Name,
    value: Bytes,
    attributes: Attributes,
    /// What the name must be bound by before any step is done; 0 = not at all.
    if_revision: Option<Revision>,
}

impl Checked {
    /// What Global is asked to do.
    fn doing(&self) -> Doing {
        let name = self.name.clone();
        match self.op {
            Op::Get => Doing::Get { name },
            Op::Delete => Doing::Delete { name },
            Op::Set => {
                let value = self.payload().typed(self.attributes.content_type.clone());
                Doing::Set { name, value, when: When::Always, expiry: self.attributes.expiry() }
            }
        }
    }

    fn payload(&self) -> Payload {
        Payload::carrying(Blob::hash(self.value.clone()))
    }
}

pub(super) async fn batch<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    super::url::Query::read(request.uri().query(), &[])?;
    let until = desk.until();
    let (parts, body) = request.into_parts();
    need_type(&parts.headers, "application/json")?;
    let mut body = Arriving::new(body, parts.version, BYTES_MAX as u64, desk.idle)?;
    // As it comes, and as it is read.
    let mut room = desk.room(2 * body.memory(BYTES_MAX)).await?;
    let late = || late(format!("the batch was not whole within `{:?}`: send all of it", desk.handler));
    let (text, _) = until.within(body.gather(BYTES_MAX)).await.ok_or_else(late)??;
    let (is_atomic, steps) = read(&text)?;
    room.shrink_to((text.len() + steps.len() * STEP_BYTES) as u64);
    drop(text);
    let mut answer = Answer::to(&steps, &desk.rooms)?;
    if is_atomic {
        return atomic::batch(desk, until, &steps, answer).await;
    }
    for run in steps.chunk_by(|one, next| one.op == next.op) {
        let done = match run[0].op {
            Op::Get => gets(desk, until, run, &mut answer).await,
            Op::Set => {
                sets(desk, until, run, &mut answer).await;
                Ok(())
            }
            Op::Delete => deletes(desk, until, run, &mut answer).await,
        };
        if let Err(e) = done {
            let problem = Problem::from(e);
            run.iter().for_each(|step| answer.failed(step, &problem));
        }
    }
    Ok(answer.response(None))
}

/// The steps of a batch, each of which is checked before any is carried out; and whether all or none are.
fn read(text: &[u8]) -> Result<(bool, Vec<Checked>)> {
    let wrong = |e: serde_json::Error| Error::invalid(format!("the batch cannot be read, {e}: correct it"));
    let Batch { atomic, steps } = serde_json::from_slice(text).map_err(wrong)?;
    let n = steps.all;
    if n == 0 {
        return Err(Error::invalid("the batch has no step: send at least one"));
    }
    if n > STEPS_MAX {
        return Err(Error::too_large(format!("a batch of `{n}` steps: send at most {STEPS_MAX}")));
    }
    let steps = steps.first.into_iter().map(|step| checked(step, atomic)).collect::<Result<_>>()?;
    Ok((atomic, steps))
}

fn checked(step: Step, atomic: bool) -> Result<Checked> {
    let Step { op, namespace, key, key_base64, value, value_base64, content_type, ttl_ms, if_revision } =
        step;
    let namespace = namespace.map_or_else(|| Ok(Namespace::default()), Namespace::new)?;
    let name = Name::new(&namespace, &Key::new(json::one_of("key", key, key_base64)?)?);
    let value = match op {
        Op::Set => json::one_of("value", value, value_base64)?,
        _ if value.is_some() || value_base64.is_some() || content_type.is_some() || ttl_ms.is_some() => {
            return Err(Error::invalid(
                "only a step that sets has a value, `content_type` or `ttl_ms`: leave it out",
            ));
        }
        _ => Bytes::new(),
    };
    if if_revision.is_some() && !atomic {
        return Err(Error::invalid(
            "only a step of an atomic batch has `if_revision`: say `\"atomic\": true`",
        ));
    }
    let content_type = content_type.map(|words| ContentType::new(&words)).transpose()?;
    let attributes = Attributes { content_type, ttl: ttl_ms.map(ttl).transpose()? };
    Ok(Checked { op, name, value, attributes, if_revision: if_revision.map(Revision) })
}

async fn gets<S: Store>(desk: &Desk<S>, until: Until, run: &[Checked], answer: &mut Answer) -> Result<()> {
    let names = run.iter().map(|step| step.name.clone()).collect();
    let found = match until.of(desk.store.get_many(names)).await {
        Ok(found) => found.found,
        // More than one call gives. Whichever of them fit are given all the same.
        Err(e) if e.kind() == Kind::TooLarge => return atomic::gets(desk, until, run, answer).await,
        Err(e) => return Err(e),
    };
    for (step, found) in run.iter().zip(found) {
        match found {
            None => answer.failed(step, &Problem::not_found("the key is bound to nothing")),
            Some(Found { entry, body, .. }) if answer.may_take(entry.size) => {
                match collected(until, body, entry.size, answer).await {
                    Ok((value, _room)) => answer.value(step, &entry, &value),
                    Err(e) => answer.failed(step, &e.into()),
                }
            }
            Some(found) => answer.full(step, &found.entry),
        }
    }
    Ok(())
}

/// The bytes of a value, and their room.
async fn collected(until: Until, body: Body, size: u64, answer: &Answer) -> Result<(Bytes, Room)> {
    let room = answer.room(size)?;
    Ok((until.of(body.collect(size)).await?, room))
}

/// Each by itself, side by side; those of one name one after the other.
async fn sets<S: Store>(desk: &Desk<S>, until: Until, mut run: &[Checked], answer: &mut Answer) {
    while !run.is_empty() {
        let mut seen = BTreeSet::new();
        let distinct = run.iter().take_while(|step| seen.insert(&step.name)).count();
        let (now, later) = run.split_at(distinct);
        let anyhow = Conditions::default();
        let set = async |step: &Checked| {
            store(desk, until, &step.name, (step.payload(), step.attributes.clone()), &anyhow).await
        };
        for (step, done) in now.iter().zip(join_all(now.iter().map(set)).await) {
            match done {
                Ok(Stored { status, entry, .. }) => answer.entry(step, status, &entry),
                Err(problem) => answer.failed(step, &problem),
            }
        }
        run = later;
    }
}

async fn deletes<S: Store>(desk: &Desk<S>, until: Until, run: &[Checked], answer: &mut Answer) -> Result<()> {
    let names = run.iter().map(|step| step.name.clone()).collect();
    let done = until.of(desk.store.delete(desk.ids.next_id()?, names)).await?;
    for (step, removed) in run.iter().zip(&done.removed) {
        answer.deleted(step, *removed, done.revision);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;

    #[test]
    fn what_an_atomic_batch_alone_may_say_is_refused_of_others() {
        let of = |text: &str| read(text.as_bytes()).map(|(atomic, steps)| (atomic, steps.len()));
        let step = r#"{"op":"get","key":"k","if_revision":0}"#;
        assert_eq!(of(&format!(r#"{{"atomic":true,"steps":[{step}]}}"#)).expect("atomic"), (true, 1));
        let floating = r#"{"atomic":true,"steps":[{"op":"get","key":"k","if_revision":7.0}]}"#;
        assert_eq!(of(floating).expect("a whole number"), (true, 1));
        for bad in [
            r#"{"atomic":true,"steps":[{"op":"get","key":"k","if_revision":7.5}]}"#,
            r#"{"atomic":true,"steps":[{"op":"get","key":"k","if_revision":1e300}]}"#,
            r#"{"atomic":true,"steps":[{"op":"get","key":"k","if_revision":"7"}]}"#,
            &format!(r#"{{"steps":[{step}]}}"#),
            r#"{"atomic":null,"steps":[{"op":"get","key":"k"}]}"#,
            r#"{"atomic":true,"steps":[]}"#,
            r#"{"atomic":true,"steps":[{"op":"get","key":"k","ttl_ms":1}]}"#,
            r#"{"steps":[{"op":"delete","key":"k","content_type":"text/plain"}]}"#,
            r#"{"steps":[{"op":"set","key":"k","value":"","content_type":"a\u0001b"}]}"#,
            r#"{"steps":[{"op":"set","key":"k","value":"","content_type":""}]}"#,
            r#"{"steps":[{"op":"set","key":"k","value":"","ttl_ms":0}]}"#,
            r#"{"steps":[{"op":"set","key":"k","value":"","ttl_ms":-1}]}"#,
        ] {
            assert_eq!(of(bad).expect_err(bad).kind(), Kind::Invalid, "{bad}");
        }
    }
}
