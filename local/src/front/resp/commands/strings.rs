//! Values: GET, SET and their kin.

use super::{Answer, Answered, Call, Done, Plan, Reply, Run, SYNTAX, expiry, replied};
use crate::front::resp::door::Door;
use crate::front::resp::draft::Draft;
use crate::front::resp::gathered::{Gathered, REPLY_MAX};
use crate::front::resp::plan::{done, hashed, is_done};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Slice, Store, Target};
use dstore_shared::limits::GET_MANY_NAMES_MAX;
use dstore_shared::{
    Entry, Error, ExpireWhen, Expiry, Guard, Name, Result, SetOutcome, Step, StepResult, When,
};

/// GET key
pub const GET: Run = Run::Both(get_now, |call| {
    Ok(Plan::new(vec![Step::Get { name: call.name(1)? }], |done, _| Answer::Value(entry(done))))
});

fn entry(done: &[dstore_shared::StepOutcome]) -> Option<Entry> {
    done.first().and_then(|outcome| outcome.entry.clone())
}

fn get_now(call: &mut Call<'_>) -> Answered {
    let name = call.name(1)?;
    let tracked = call.tracks(std::slice::from_ref(&name));
    if let Some(value) = call.door.hit(&name) {
        return Ok(Reply::Bulk(value).into());
    }
    call.started()?;
    let door = call.door.clone();
    let tracked = tracked.waits(&door);
    Ok(Done::later(async move {
        let reply = replied(value_of(&door, name).await.map(Reply::maybe));
        tracked.settle(&door, reply)
    }))
}

/// The whole value of a name.
pub async fn value_of(door: &Door, name: Name) -> Result<Option<Bytes>> {
    match door.node.get(Target::Name(name), Slice::ALL).await? {
        Some(found) => door.whole(found).await.map(Some),
        None => Ok(None),
    }
}

/// MGET key [key ...]
pub const MGET: Run = Run::Both(mget_now, |call| {
    let steps = call.names()?.into_iter().map(|name| Step::Get { name }).collect();
    Ok(Plan::new(steps, |done, _| Answer::Values(done.iter().map(|outcome| outcome.entry.clone()).collect())))
});

fn mget_now(call: &mut Call<'_>) -> Answered {
    let names = call.names()?;
    let tracked = call.tracks(&names);
    if let Some(values) = call.door.hits(&names) {
        let bytes = values.iter().fold(0_usize, |sum, value| sum.saturating_add(value.len()));
        // Nobody copies them, but they stay in memory until they are sent.
        if bytes > REPLY_MAX {
            return Err(Reply::err(format!(
                "more than `{REPLY_MAX}` bytes for one reply: ask for fewer values at a time"
            )));
        }
        return Ok(Reply::Array(values.into_iter().map(Reply::Bulk).collect()).into());
    }
    call.started()?;
    let door = call.door.clone();
    let tracked = tracked.waits(&door);
    Ok(Done::later(async move {
        let reply = replied(values_of(&door, names).await);
        tracked.settle(&door, reply)
    }))
}

/// As of one moment for as many names as one call takes; more are read one call after another.
async fn values_of(door: &Door, names: Vec<Name>) -> Result<Reply> {
    let (mut replies, mut gathered) = (Vec::with_capacity(names.len()), Gathered::new(door));
    for names in names.chunks(GET_MANY_NAMES_MAX) {
        for found in door.node.get_many(names.to_vec()).await?.found {
            replies.push(match found {
                Some(found) => {
                    gathered.value(found.entry.size)?;
                    Reply::Bulk(door.whole(found).await?)
                }
                None => Reply::Nil,
            });
        }
    }
    Ok(Reply::Array(replies))
}

/// STRLEN key
pub const STRLEN: Run = Run::Steps(|call| {
    let step = Step::Get { name: call.name(1)? };
    Ok(Plan::new(vec![step], |done, _| {
        Answer::of(entry(done), |entry| Reply::Int(entry.size as i64), Reply::Int(0))
    }))
});

/// GETRANGE key start end
pub const GETRANGE: Run = Run::Both(getrange_now, |call| {
    let (from, to) = (call.number(2)?, call.number(3)?);
    Ok(Plan::new(vec![Step::Get { name: call.name(1)? }], move |done, _| match entry(done) {
        Some(entry) => {
            let part = part(entry.size, from, to);
            Answer::Part(entry, part)
        }
        None => Answer::Reply(Reply::word("")),
    }))
});

fn getrange_now(call: &mut Call<'_>) -> Answered {
    let (name, from, to) = (call.name(1)?, call.number(2)?, call.number(3)?);
    let tracked = call.tracks(std::slice::from_ref(&name));
    let cut = move |value: &Bytes| {
        let part = part(value.len() as u64, from, to);
        value.slice(part.start as usize..part.end as usize)
    };
    if let Some(value) = call.door.hit(&name) {
        return Ok(Reply::Bulk(cut(&value)).into());
    }
    call.started()?;
    let door = call.door.clone();
    let tracked = tracked.waits(&door);
    Ok(Done::later(async move {
        let value = value_of(&door, name).await;
        let reply = replied(value.map(|value| Reply::Bulk(value.as_ref().map(cut).unwrap_or_default())));
        tracked.settle(&door, reply)
    }))
}

/// The bytes from `from` to `to`, both counted from the end if negative, of `size` bytes.
fn part(size: u64, from: i64, to: i64) -> std::ops::Range<u64> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    if from < 0 && to < 0 && from > to {
        return 0..0;
    }
    let place = |at: i64| if at < 0 { at.saturating_add(size).max(0) } else { at };
    let (from, to) = (place(from), place(to).min(size - 1));
    if size == 0 || from > to { 0..0 } else { from as u64..to as u64 + 1 }
}

/// What SET may be told beside key and value.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct How {
    when: When,
    expiry: Expiry,
    old: bool,
}

fn how(call: &Call<'_>) -> Answered<How> {
    let (mut how, mut at) = (How::default(), 3);
    while at < call.args.len() {
        let args = call.args;
        let expiry = expiry::option(call, &mut at)?;
        match expiry {
            Some(expiry) if how.expiry == Expiry::Clear => how.expiry = expiry,
            None if args.is(at, "nx") && how.when != When::Present => how.when = When::Absent,
            None if args.is(at, "xx") && how.when != When::Absent => how.when = When::Present,
            None if args.is(at, "get") => how.old = true,
            None if args.is(at, "keepttl") && how.expiry == Expiry::Clear => how.expiry = Expiry::Keep,
            _ => return Err(SYNTAX),
        }
        at += 1;
    }
    Ok(how)
}

/// SET key value [NX | XX] [GET] [EX s | PX ms | EXAT s | PXAT ms | KEEPTTL]
pub const SET: Run = Run::Both(set_now, set_steps);

fn set_now(call: &mut Call<'_>) -> Answered {
    let name = call.name(1)?;
    call.started()?;
    if call.args.len() > 3 {
        return super::alone(call, set_steps);
    }
    let (door, value) = (call.door.clone(), call.args.bytes(2));
    Ok(Done::later(async move { replied(bind(&door, name, value).await) }))
}

async fn bind(door: &Door, name: Name, value: Bytes) -> Result<Reply> {
    let blob = hashed(door, value).await;
    let id = door.node.next_id()?;
    let done = door.node.set(id, Some(name), Body::Blob(blob)).await?;
    match done.outcome {
        SetOutcome::Stored(_) | SetOutcome::Unchanged(_) => Ok(Reply::OK),
        SetOutcome::Occupied(entry) => Err(Error::occupied(entry.hash)),
        SetOutcome::NeedBlob => Err(Error::unavailable("the value was swept meanwhile: set it again")),
    }
}

fn set_steps(call: &Call<'_>) -> Answered<Plan> {
    let how = how(call)?;
    let step = set_step(call, 1, 2, how.when, how.expiry)?;
    Ok(Plan::new(vec![step], move |steps, _| {
        let Some(outcome) = steps.first() else { return Answer::Value(None) };
        match outcome.result {
            StepResult::Occupied => Answer::Reply(done(outcome, Reply::OK)),
            _ if how.old => Answer::Value(outcome.old.clone()),
            _ => Answer::Reply(done(outcome, Reply::OK)),
        }
    }))
}

fn set_step(call: &Call<'_>, key: usize, value: usize, when: When, expiry: Expiry) -> Answered<Draft> {
    Ok(Draft::Set { name: call.name(key)?, value: call.args.bytes(value), when, expiry })
}

/// SETNX key value
pub const SETNX: Run = Run::Steps(|call| {
    let step = set_step(call, 1, 2, When::Absent, Expiry::Clear)?;
    Ok(Plan::one(step, |outcome| Reply::flag(outcome.result == StepResult::Done)))
});

/// SETEX key seconds value
pub const SETEX: Run = Run::Steps(|call| set_expiring(call, 1000));
/// PSETEX key milliseconds value
pub const PSETEX: Run = Run::Steps(|call| set_expiring(call, 1));

fn set_expiring(call: &Call<'_>, unit: i64) -> Answered<Plan> {
    let expiry = expiry::after(call, call.number(2)?, unit)?;
    Ok(Plan::one(set_step(call, 1, 3, When::Always, expiry)?, |outcome| done(outcome, Reply::OK)))
}

/// GETSET key value
pub const GETSET: Run = Run::Steps(|call| {
    let step = set_step(call, 1, 2, When::Always, Expiry::Clear)?;
    Ok(Plan::new(vec![step], |steps, _| match steps.first() {
        Some(outcome) if is_done(outcome) => Answer::Value(outcome.old.clone()),
        Some(outcome) => Answer::Reply(done(outcome, Reply::Nil)),
        None => Answer::Value(None),
    }))
});

/// GETDEL key
pub const GETDEL: Run = Run::Steps(|call| {
    let step = Step::Delete { name: call.name(1)? };
    Ok(Plan::new(vec![step], |steps, _| Answer::Value(steps.first().and_then(|outcome| outcome.old.clone()))))
});

/// GETEX key [EX s | PX ms | EXAT s | PXAT ms | PERSIST]
pub const GETEX: Run = Run::Steps(|call| {
    let name = call.name(1)?;
    let mut steps = vec![Step::Get { name: name.clone() }];
    let mut at = 2;
    let expiry = match call.args.len() {
        2 => None,
        3 if call.args.is(2, "persist") => Some(Expiry::Clear),
        _ => Some(expiry::option(call, &mut at)?.filter(|_| at + 1 == call.args.len()).ok_or(SYNTAX)?),
    };
    steps.extend(expiry.map(|expiry| Step::Expire { name, expiry, when: ExpireWhen::Always }));
    Ok(Plan::new(steps, |done, _| Answer::Value(entry(done))))
});

/// MSET key value [key value ...]
pub const MSET: Run = Run::Steps(|call| {
    let steps = pairs(call)?;
    Ok(Plan::new(steps, |steps, _| {
        let refused = steps.iter().find(|outcome| !is_done(outcome));
        Answer::Reply(refused.map_or(Reply::OK, |outcome| done(outcome, Reply::OK)))
    }))
});

/// MSETNX key value [key value ...]
pub const MSETNX: Run = Run::Only(|call| {
    call.started()?;
    let steps = pairs(call)?;
    let guards = call.names()?.into_iter().map(|name| Guard { name, bind_rev: None }).collect();
    let plan =
        Plan { guards, aborted: Reply::Int(0), ..Plan::new(steps, |_, _| Answer::Reply(Reply::Int(1))) };
    let door = call.door.clone();
    Ok(Done::later(async move { plan.run(&door).await }))
});

/// The SETs of a command with pairs. Of a key that comes more than once the last value counts.
fn pairs(call: &Call<'_>) -> Answered<Vec<Draft>> {
    if call.args.len().is_multiple_of(2) {
        return Err(super::wrong_arity(call.spec.name));
    }
    let mut last = std::collections::HashMap::new();
    let places: Vec<usize> = (1..call.args.len()).step_by(2).collect();
    for at in &places {
        last.insert(call.args.get(*at), *at);
    }
    let kept = places.into_iter().filter(|at| last.get(call.args.get(*at)) == Some(at));
    kept.map(|at| set_step(call, at, at + 1, When::Always, Expiry::Clear)).collect()
}

/// INCR key
pub const INCR: Run = Run::Steps(|call| add(call, 1));
/// DECR key
pub const DECR: Run = Run::Steps(|call| add(call, -1));
/// INCRBY key n
pub const INCRBY: Run = Run::Steps(|call| add(call, call.number(2)?));
/// DECRBY key n
pub const DECRBY: Run = Run::Steps(|call| {
    let by = call.number(2)?.checked_neg().ok_or(Reply::error("ERR decrement would overflow"))?;
    add(call, by)
});

fn add(call: &Call<'_>, by: i64) -> Answered<Plan> {
    Ok(Plan::one(Step::Add { name: call.name(1)?, by }, |outcome| match outcome.number {
        Some(sum) if is_done(outcome) => Reply::Int(sum),
        _ => done(outcome, Reply::err("a sum without a number: report this")),
    }))
}

/// APPEND key value
pub const APPEND: Run = Run::Steps(|call| {
    let step = Step::Append { name: call.name(1)?, bytes: call.args.bytes(2) };
    Ok(Plan::one(step, |outcome| {
        done(outcome, Reply::Int(outcome.entry.as_ref().map_or(0, |entry| entry.size as i64)))
    }))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_cut_as_redis_does() {
        for (size, from, to, wanted) in [
            (5, 0, -1, 0..5),
            (5, 0, 3, 0..4),
            (5, -3, -1, 2..5),
            (5, -100, 1, 0..2),
            (5, 3, 100, 3..5),
            (5, 5, 10, 0..0),
            (5, 3, 1, 0..0),
            (5, -1, -3, 0..0),
            (0, 0, -1, 0..0),
            (5, i64::MIN, i64::MAX, 0..5),
            (5, 0, -100, 0..1),
        ] {
            assert_eq!(part(size, from, to), wanted, "{size} {from} {to}");
        }
    }
}
