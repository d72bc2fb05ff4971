//! POST of several steps: read, stored and deleted in one call, in their order. Not a transaction.
//!
//! Gets that stand together read as of one moment, deletes that stand together are one atomic DEL, each set is by itself.
//! A step that fails says so and the next are carried out all the same. Bounded: steps, bytes of the request, bytes of
//! the values in the answer.

use super::body::{Arriving, need_type};
use super::problem::Problem;
use super::{Answered, Desk, json};
use axum::extract::Request;
use axum::http::StatusCode;
use bytes::Bytes;
use dstore_proto::store::{Found, SetOne, SetReply, Store};
use dstore_shared::limits::{FRAME_BYTES_MAX, SET_MANY_NAMES_MAX};
use dstore_shared::{Blob, Entry, Error, Key, Name, Namespace, Result, SetOutcome};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

/// Steps of one batch.
const STEPS_MAX: usize = SET_MANY_NAMES_MAX;
/// Bytes of a batch, and of the values in its answer.
const BYTES_MAX: usize = FRAME_BYTES_MAX;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch {
    steps: Vec<Step>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Step {
    op: Op,
    #[serde(default, deserialize_with = "text")]
    namespace: Option<String>,
    #[serde(default, deserialize_with = "text")]
    key: Option<String>,
    #[serde(default, deserialize_with = "text")]
    key_base64: Option<String>,
    #[serde(default, deserialize_with = "text")]
    value: Option<String>,
    #[serde(default, deserialize_with = "text")]
    value_base64: Option<String>,
}

/// A field that is there is a text, and not null.
fn text<'de, D: Deserializer<'de>>(field: D) -> Result<Option<String>, D::Error> {
    String::deserialize(field).map(Some)
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Op {
    Get,
    Set,
    Delete,
}

/// A step that was read.
struct Checked {
    op: Op,
    name: Name,
    value: Bytes,
}

pub(super) async fn batch<S: Store>(desk: &Desk<S>, request: Request) -> Answered {
    super::url::Query::read(request.uri().query(), &[])?;
    let (parts, body) = request.into_parts();
    need_type(&parts.headers, "application/json")?;
    let mut body = Arriving::new(body, parts.version, BYTES_MAX as u64, desk.idle)?;
    let late = |_| {
        Error::unavailable(format!("the batch was not whole within `{:?}`: send all of it", desk.handler))
    };
    let (text, _) = tokio::time::timeout(desk.handler, body.gather(BYTES_MAX)).await.map_err(late)??;
    let steps = read(&text)?;
    let mut results = Vec::with_capacity(steps.len());
    let mut room = BYTES_MAX as u64;
    for run in steps.chunk_by(|one, next| one.op == next.op) {
        let done = match run[0].op {
            Op::Get => gets(desk, run, &mut room).await,
            Op::Set => sets(desk, run).await,
            Op::Delete => deletes(desk, run).await,
        };
        match done {
            Ok(done) => results.extend(done),
            Err(e) => results.extend(run.iter().map(|step| failed(step, &e.clone().into()))),
        }
    }
    Ok(json::response(Map::from_iter([("results".to_owned(), Value::Array(results))])))
}

/// The steps of a batch, each of which is checked before any is carried out.
fn read(text: &[u8]) -> Result<Vec<Checked>> {
    let wrong = |e: serde_json::Error| Error::invalid(format!("the batch cannot be read, {e}: correct it"));
    let Batch { steps } = serde_json::from_slice(text).map_err(wrong)?;
    let n = steps.len();
    if n == 0 {
        return Err(Error::invalid("the batch has no step: send at least one"));
    }
    if n > STEPS_MAX {
        return Err(Error::too_large(format!("a batch of `{n}` steps: send at most {STEPS_MAX}")));
    }
    steps.into_iter().map(checked).collect()
}

fn checked(step: Step) -> Result<Checked> {
    let Step { op, namespace, key, key_base64, value, value_base64 } = step;
    let namespace = namespace.map_or_else(|| Ok(Namespace::default()), Namespace::new)?;
    let name = Name::new(&namespace, &Key::new(json::one_of("key", key, key_base64)?)?);
    let value = match op {
        Op::Set => json::one_of("value", value, value_base64)?,
        _ if value.is_some() || value_base64.is_some() => {
            return Err(Error::invalid("only a step that sets has a value: leave it out"));
        }
        _ => Bytes::new(),
    };
    Ok(Checked { op, name, value })
}

async fn gets<S: Store>(desk: &Desk<S>, run: &[Checked], room: &mut u64) -> Result<Vec<Value>> {
    let names = run.iter().map(|step| step.name.clone()).collect();
    let found = desk.in_time(desk.store.get_many(names)).await?;
    let mut results = Vec::with_capacity(run.len());
    for (step, found) in run.iter().zip(found.found) {
        results.push(match found {
            None => failed(step, &Problem::not_found("the key is bound to nothing")),
            Some(found) => got(desk, step, found, room).await,
        });
    }
    Ok(results)
}

/// One value, as long as there is room for it in the answer.
async fn got<S: Store>(desk: &Desk<S>, step: &Checked, found: Found, room: &mut u64) -> Value {
    let size = found.entry.size;
    let Some(left) = room.checked_sub(size) else {
        let text =
            format!("the values of a batch have at most {BYTES_MAX} bytes together: read this one by itself");
        return failed(step, &Error::too_large(text).into());
    };
    match desk.in_time(found.body.collect(size)).await {
        Err(e) => failed(step, &e.into()),
        Ok(value) => {
            *room = left;
            let mut fields = of_entry(step, StatusCode::OK, &found.entry);
            json::put_bytes(&mut fields, "value", &value);
            Value::Object(fields)
        }
    }
}

async fn sets<S: Store>(desk: &Desk<S>, run: &[Checked]) -> Result<Vec<Value>> {
    let one = |step: &Checked| {
        let id = desk.ids.next_id()?;
        let (name, value) = (step.name.clone(), Blob::hash(step.value.clone()));
        Ok(SetOne { id, name, value, attributes: dstore_shared::Attributes::default() })
    };
    let sets = run.iter().map(one).collect::<Result<_>>()?;
    let done = desk.in_time(desk.store.set_many(sets)).await?;
    Ok(run.iter().zip(done).map(|(step, done)| set(step, done)).collect())
}

fn set(step: &Checked, done: Result<SetReply>) -> Value {
    let (status, entry) = match done.map(|reply| reply.outcome) {
        Ok(SetOutcome::Stored(entry)) => (StatusCode::CREATED, entry),
        Ok(SetOutcome::Unchanged(entry)) => (StatusCode::NO_CONTENT, entry),
        Ok(SetOutcome::Occupied(entry)) => return failed(step, &Error::occupied(entry.hash).into()),
        Ok(SetOutcome::NeedBlob) => {
            return failed(step, &Error::unavailable("the blob was swept meanwhile: send it again").into());
        }
        Err(e) => return failed(step, &e.into()),
    };
    Value::Object(of_entry(step, status, &entry))
}

async fn deletes<S: Store>(desk: &Desk<S>, run: &[Checked]) -> Result<Vec<Value>> {
    let names = run.iter().map(|step| step.name.clone()).collect();
    let done = desk.in_time(desk.store.delete(desk.ids.next_id()?, names)).await?;
    let one = |(step, removed): (&Checked, &bool)| {
        let mut fields = match removed {
            true => told(step, StatusCode::NO_CONTENT),
            false => return failed(step, &Problem::not_found("the key is bound to nothing")),
        };
        fields.insert("revision".into(), json!(done.revision.0));
        Value::Object(fields)
    };
    Ok(run.iter().zip(&done.removed).map(one).collect())
}

fn told(step: &Checked, status: StatusCode) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("status".into(), status.as_u16().into());
    fields.insert("namespace".into(), step.name.namespace().as_str().into());
    json::put_bytes(&mut fields, "key", step.name.key().as_bytes());
    fields
}

fn of_entry(step: &Checked, status: StatusCode, entry: &Entry) -> Map<String, Value> {
    let mut fields = told(step, status);
    fields.insert("hash".into(), entry.hash.to_string().into());
    fields.insert("size".into(), entry.size.into());
    fields.insert("revision".into(), json!(entry.bind_rev.0));
    fields
}

fn failed(step: &Checked, problem: &Problem) -> Value {
    let mut fields = told(step, problem.status());
    fields.insert("problem".into(), json!(problem.document()));
    Value::Object(fields)
}
