//! Transactions and namespaces, on the link and at a door alike.

use super::{Packer, carried, need, type_to};
use crate::wire;
use bytes::Bytes;
use dstore_shared::limits::{NAMESPACES_MAX, TRANSACTION_STEPS_MAX};
use dstore_shared::{
    Blob, BlobHash, ContentType, Decision, Entry, Error, ExpireWhen, Expiry, Guard, Name, Namespace,
    NamespaceInfo, NamespaceMode, NamespaceOutcome, NamespaceResult, NamespaceSpec, Payload, RequestId,
    Result, Revision, Step, StepOutcome, StepResult, Transaction, TransactionOutcome, When,
};
use std::time::Duration;

pub(crate) fn apply_to(packer: &mut Packer, id: &RequestId, transaction: &Transaction) -> wire::ApplyRequest {
    let guards = transaction.guards.iter();
    let guards = guards.map(|guard| wire::Guard {
        name: Some((&guard.name).into()),
        bind_rev: guard.bind_rev.map_or(0, |revision| revision.0),
    });
    let steps = transaction.steps.iter().map(|step| step_to(packer, step)).collect();
    let transaction = Some(wire::Transaction { guards: guards.collect(), steps, whole: transaction.whole });
    wire::ApplyRequest { id: Some(packer.request_id(id)), transaction }
}

fn step_to(packer: &mut Packer, step: &Step) -> wire::Step {
    use wire::step::Step as Wire;
    let name = |name: &Name| Some(name.into());
    let step = match step {
        Step::Get { name: n } => Wire::Get(wire::StepGet { name: name(n) }),
        Step::Set { name: n, value, when, expiry } => Wire::Set(wire::StepSet {
            name: name(n),
            hash: packer.hash(value.hash),
            size: value.size,
            carried: value.carried.as_ref().map(|blob| blob.bytes().clone()),
            when: match when {
                When::Always => wire::SetWhen::Always,
                When::Absent => wire::SetWhen::Absent,
                When::Present => wire::SetWhen::Present,
            }
            .into(),
            expiry: expiry_to(*expiry),
            content_type: type_to(value.content_type.as_ref()),
        }),
        Step::Delete { name: n } => Wire::Delete(wire::StepDelete { name: name(n) }),
        Step::Expire { name: n, expiry, when } => Wire::Expire(wire::StepExpire {
            name: name(n),
            expiry: expiry_to(*expiry),
            when: match when {
                ExpireWhen::Always => wire::ExpireWhen::Always,
                ExpireWhen::None => wire::ExpireWhen::None,
                ExpireWhen::Some => wire::ExpireWhen::Some,
                ExpireWhen::Greater => wire::ExpireWhen::Greater,
                ExpireWhen::Less => wire::ExpireWhen::Less,
            }
            .into(),
        }),
        Step::Add { name: n, by } => Wire::Add(wire::StepAdd { name: name(n), by: *by }),
        Step::Append { name: n, bytes } => {
            Wire::Append(wire::StepAppend { name: name(n), data: bytes.clone() })
        }
        Step::Copy { from, to, replace } => {
            Wire::Copy(wire::StepCopy { from: name(from), to: name(to), replace: *replace })
        }
        Step::Rename { from, to, only_absent } => {
            Wire::Rename(wire::StepRename { from: name(from), to: name(to), only_absent: *only_absent })
        }
    };
    wire::Step { step: Some(step) }
}

fn expiry_to(expiry: Expiry) -> Option<wire::Expiry> {
    use wire::expiry::Expiry as Wire;
    let expiry = match expiry {
        Expiry::Clear => return None,
        Expiry::Keep => Wire::Keep(true),
        Expiry::At(ms) => Wire::AtMs(ms),
        Expiry::In(ttl) => Wire::InMs(millis(ttl)),
    };
    Some(wire::Expiry { expiry: Some(expiry) })
}

/// A time to live in whole milliseconds.
fn millis(ttl: Duration) -> u64 {
    u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)
}

/// The transaction of a request, within its limits. What it is about owns its bytes.
pub(crate) fn transaction_from(request: Option<wire::Transaction>) -> Result<Transaction> {
    let wire::Transaction { guards, steps, whole } = need(request, "transaction")?;
    if guards.len() + steps.len() > TRANSACTION_STEPS_MAX {
        return Err(Error::too_large(format!(
            "a transaction has more than {TRANSACTION_STEPS_MAX} guards and steps: apply several"
        )));
    }
    let guard = |guard: wire::Guard| {
        let bind_rev = (guard.bind_rev > 0).then_some(Revision(guard.bind_rev));
        Ok(Guard { name: name_from(guard.name, "guard.name")?, bind_rev })
    };
    let transaction = Transaction {
        guards: guards.into_iter().map(guard).collect::<Result<_>>()?,
        steps: steps.into_iter().map(step_from).collect::<Result<_>>()?,
        whole,
    };
    transaction.check()?;
    Ok(transaction.compact())
}

fn name_from(name: Option<wire::Name>, what: &str) -> Result<Name> {
    need(name, what)?.try_into()
}

fn step_from(step: wire::Step) -> Result<Step> {
    use wire::step::Step as Wire;
    Ok(match need(step.step, "step")? {
        Wire::Get(get) => Step::Get { name: name_from(get.name, "get.name")? },
        Wire::Set(set) => {
            let when = match wire::SetWhen::try_from(set.when) {
                Ok(wire::SetWhen::Always) => When::Always,
                Ok(wire::SetWhen::Absent) => When::Absent,
                Ok(wire::SetWhen::Present) => When::Present,
                Err(_) => return Err(unknown("set.when", set.when)),
            };
            let value = payload_from(&set.hash, set.size, set.carried)?;
            let value = value.typed(ContentType::optional(&set.content_type)?);
            let expiry = expiry_from(set.expiry)?;
            Step::Set { name: name_from(set.name, "set.name")?, value, when, expiry }
        }
        Wire::Delete(delete) => Step::Delete { name: name_from(delete.name, "delete.name")? },
        Wire::Expire(expire) => {
            let when = match wire::ExpireWhen::try_from(expire.when) {
                Ok(wire::ExpireWhen::Always) => ExpireWhen::Always,
                Ok(wire::ExpireWhen::None) => ExpireWhen::None,
                Ok(wire::ExpireWhen::Some) => ExpireWhen::Some,
                Ok(wire::ExpireWhen::Greater) => ExpireWhen::Greater,
                Ok(wire::ExpireWhen::Less) => ExpireWhen::Less,
                Err(_) => return Err(unknown("expire.when", expire.when)),
            };
            let expiry = expiry_from(expire.expiry)?;
            Step::Expire { name: name_from(expire.name, "expire.name")?, expiry, when }
        }
        Wire::Add(add) => Step::Add { name: name_from(add.name, "add.name")?, by: add.by },
        Wire::Append(append) => {
            Step::Append { name: name_from(append.name, "append.name")?, bytes: append.data }
        }
        Wire::Copy(wire::StepCopy { from, to, replace }) => {
            Step::Copy { from: name_from(from, "copy.from")?, to: name_from(to, "copy.to")?, replace }
        }
        Wire::Rename(wire::StepRename { from, to, only_absent }) => {
            let (from, to) = (name_from(from, "rename.from")?, name_from(to, "rename.to")?);
            Step::Rename { from, to, only_absent }
        }
    })
}

/// What is not known must not be taken for something weaker.
fn unknown(what: &str, number: i32) -> Error {
    Error::invalid(format!("`{number}` is not known as `{what}`: ask a newer dstore"))
}

fn payload_from(hash: &[u8], size: u64, bytes: Option<Bytes>) -> Result<Payload> {
    match bytes {
        Some(bytes) if hash.is_empty() => Ok(Payload::carrying(Blob::hash(bytes))),
        Some(bytes) => {
            let hash = BlobHash::from_slice(hash)?;
            Ok(Payload { carried: Some(carried(bytes, hash, size)?), ..Payload::stored(hash, size) })
        }
        None => Ok(Payload::stored(BlobHash::from_slice(hash)?, size)),
    }
}

fn expiry_from(expiry: Option<wire::Expiry>) -> Result<Expiry> {
    use wire::expiry::Expiry as Wire;
    let Some(expiry) = expiry else { return Ok(Expiry::Clear) };
    Ok(match need(expiry.expiry, "expiry")? {
        Wire::Keep(true) => Expiry::Keep,
        Wire::Keep(false) => Expiry::Clear,
        Wire::AtMs(ms) => Expiry::At(ms),
        Wire::InMs(ms) => Expiry::In(Duration::from_millis(ms)),
    })
}

pub(crate) fn applied_to(packer: &mut Packer, outcome: &TransactionOutcome) -> wire::ApplyResponse {
    let place = |at: &usize| u32::try_from(*at).unwrap_or(u32::MAX);
    let mut response = wire::ApplyResponse {
        revision: outcome.revision.0,
        at_ms: outcome.at_ms,
        ..wire::ApplyResponse::default()
    };
    match &outcome.decision {
        Decision::Done(steps) => {
            response.steps = steps.iter().map(|step| step_done_to(packer, step)).collect();
        }
        Decision::Aborted(guard) => response.aborted = Some(place(guard)),
        Decision::NeedBlobs(steps) => response.need_blobs = steps.iter().map(place).collect(),
        Decision::Refused(step, outcome) => {
            response.refused = Some(place(step));
            response.steps = vec![step_done_to(packer, outcome)];
        }
    }
    response
}

fn step_done_to(packer: &mut Packer, done: &StepOutcome) -> wire::StepDone {
    wire::StepDone {
        result: i32::from(done.result.number()),
        old: done.old.as_ref().map(|entry| packer.entry(entry)),
        entry: done.entry.as_ref().map(|entry| packer.entry(entry)),
        number: done.number,
    }
}

pub(crate) fn applied_from(response: wire::ApplyResponse) -> Result<TransactionOutcome> {
    let mut steps = response.steps.into_iter().map(step_done_from);
    let decision = match (response.aborted, response.refused, response.need_blobs) {
        (Some(guard), ..) => Decision::Aborted(guard as usize),
        (None, Some(step), _) => Decision::Refused(step as usize, need(steps.next(), "steps")??),
        (None, None, needed) if !needed.is_empty() => {
            Decision::NeedBlobs(needed.into_iter().map(|step| step as usize).collect())
        }
        (None, None, _) => Decision::Done(steps.collect::<Result<_>>()?),
    };
    Ok(TransactionOutcome { decision, revision: Revision(response.revision), at_ms: response.at_ms })
}

fn step_done_from(done: wire::StepDone) -> Result<StepOutcome> {
    let result = u8::try_from(done.result).ok().and_then(StepResult::of_number);
    Ok(StepOutcome {
        result: result.ok_or_else(|| unknown("step.result", done.result))?,
        old: done.old.map(Entry::try_from).transpose()?,
        entry: done.entry.map(Entry::try_from).transpose()?,
        number: done.number,
    })
}

pub(crate) fn spec_from(mode: i32, ttl_ms: u64) -> Result<NamespaceSpec> {
    let mode = match wire::NamespaceMode::try_from(mode) {
        Ok(wire::NamespaceMode::WriteOnce) => NamespaceMode::WriteOnce,
        Ok(wire::NamespaceMode::Replace) => NamespaceMode::Replace,
        Err(_) => return Err(unknown("mode", mode)),
    };
    Ok(NamespaceSpec { mode, ttl: (ttl_ms > 0).then(|| Duration::from_millis(ttl_ms)) })
}

pub(crate) fn spec_to(spec: NamespaceSpec) -> (i32, u64) {
    let mode = match spec.mode {
        NamespaceMode::WriteOnce => wire::NamespaceMode::WriteOnce,
        NamespaceMode::Replace => wire::NamespaceMode::Replace,
    };
    (mode.into(), spec.ttl.map_or(0, millis))
}

pub(crate) fn create_namespace_to(
    id: &RequestId,
    namespace: &Namespace,
    spec: NamespaceSpec,
) -> wire::CreateNamespaceRequest {
    let (mode, ttl_ms) = spec_to(spec);
    let id = Some(Packer::new(64).request_id(id));
    wire::CreateNamespaceRequest { id, namespace: namespace.to_string(), mode, ttl_ms }
}

pub(crate) fn drop_namespace_to(id: &RequestId, namespace: &Namespace) -> wire::DropNamespaceRequest {
    let id = Some(Packer::new(64).request_id(id));
    wire::DropNamespaceRequest { id, namespace: namespace.to_string() }
}

/// A namespace that a request names; here an empty one is none.
pub(crate) fn named_namespace(given: &str) -> Result<Namespace> {
    Namespace::new(Bytes::copy_from_slice(given.as_bytes()))
}

impl From<NamespaceOutcome> for wire::NamespaceResponse {
    fn from(done: NamespaceOutcome) -> Self {
        Self { result: i32::from(done.result.number()), revision: done.revision.0, loss_ms: 0 }
    }
}

impl TryFrom<wire::NamespaceResponse> for NamespaceOutcome {
    type Error = Error;

    fn try_from(done: wire::NamespaceResponse) -> Result<Self> {
        let result = u8::try_from(done.result).ok().and_then(NamespaceResult::of_number);
        let result = result.ok_or_else(|| unknown("result", done.result))?;
        Ok(Self { result, revision: Revision(done.revision) })
    }
}

pub(crate) fn namespaces_to(namespaces: Vec<NamespaceInfo>) -> wire::NamespacesResponse {
    let namespaces = namespaces.into_iter().map(|info| {
        let (mode, ttl_ms) = spec_to(info.spec);
        wire::NamespaceInfo { namespace: info.namespace.to_string(), mode, ttl_ms, created: info.created.0 }
    });
    wire::NamespacesResponse { namespaces: namespaces.collect(), loss_ms: 0 }
}

pub(crate) fn namespaces_from(response: wire::NamespacesResponse) -> Result<Vec<NamespaceInfo>> {
    if response.namespaces.len() > NAMESPACES_MAX + 1 {
        return Err(Error::too_large("the answer has more namespaces than there may be"));
    }
    let namespaces = response.namespaces.into_iter().map(|info| {
        let namespace = named_namespace(&info.namespace)?;
        let spec = spec_from(info.mode, info.ttl_ms)?;
        Ok(NamespaceInfo { namespace, spec, created: Revision(info.created) })
    });
    namespaces.collect()
}
