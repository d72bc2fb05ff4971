//! Names without their values: DEL, EXISTS, COPY, RENAME and their kin.

use super::{Answer, Answered, Call, Done, Plan, Reply, Run, SYNTAX, replied};
use crate::front::resp::plan::{done, is_done};
use dstore_proto::IdSource;
use dstore_proto::store::Store;
use dstore_shared::limits::DELETE_NAMES_MAX;
use dstore_shared::{Name, Step, StepResult};
use std::collections::HashSet;

/// DEL key [key ...]
pub const DEL: Run = Run::Both(del_now, |call| {
    let steps = distinct(call.names()?).into_iter().map(|name| Step::Delete { name }).collect();
    Ok(Plan::new(steps, |done, _| Answer::Reply(Reply::count(done.iter().filter(|o| is_done(o)).count()))))
});

fn del_now(call: &mut Call<'_>) -> Answered {
    let names = distinct(call.names()?);
    call.started()?;
    let door = call.door.clone();
    Ok(Done::later(async move {
        let delete = async {
            let done = door.node.delete(door.node.next_id()?, names).await?;
            Ok(Reply::count(done.removed.iter().filter(|removed| **removed).count()))
        };
        replied(delete.await)
    }))
}

/// Each name once, in the order in which they came.
fn distinct(names: Vec<Name>) -> Vec<Name> {
    if names.len() < 2 {
        return names;
    }
    let mut seen = HashSet::with_capacity(names.len());
    names.into_iter().filter(|name| seen.insert(name.clone())).collect()
}

/// EXISTS key [key ...], TOUCH key [key ...]
pub const EXISTS: Run = Run::Both(exists_now, |call| {
    let steps = call.names()?.into_iter().map(|name| Step::Get { name }).collect();
    Ok(Plan::new(steps, |done, _| {
        Answer::Reply(Reply::count(done.iter().filter(|o| o.entry.is_some()).count()))
    }))
});

fn exists_now(call: &mut Call<'_>) -> Answered {
    let names = call.names()?;
    let tracked = call.tracks(&names);
    if call.door.hits(&names).is_some() {
        return Ok(Reply::count(names.len()).into());
    }
    call.started()?;
    let door = call.door.clone();
    let tracked = tracked.waits(&door);
    Ok(Done::later(async move {
        let count = async {
            let mut bound = 0;
            for names in names.chunks(DELETE_NAMES_MAX) {
                bound += door.node.exists(names.to_vec()).await?.into_iter().filter(|there| *there).count();
            }
            Ok(Reply::count(bound))
        };
        let reply = replied(count.await);
        tracked.settle(&door, reply)
    }))
}

/// TYPE key
pub const KIND: Run = Run::Steps(|call| {
    let step = Step::Get { name: call.name(1)? };
    Ok(Plan::one(step, |outcome| Reply::Line(if outcome.entry.is_some() { "string" } else { "none" }.into())))
});

/// COPY from to [DB n] [REPLACE]
pub const COPY: Run = Run::Steps(|call| {
    let (mut namespace, mut replace, mut at) = (call.client.namespace.clone(), false, 3);
    while at < call.args.len() {
        match () {
            () if call.args.is(at, "replace") => replace = true,
            () if call.args.is(at, "db") && at + 1 < call.args.len() => {
                at += 1;
                namespace = super::connection::database(call, at)?.1;
            }
            () => return Err(SYNTAX),
        }
        at += 1;
    }
    let (from, to) = (call.name(1)?, call.name_in(&namespace, 2)?);
    if from == to {
        return Err(Reply::err("source and destination objects are the same"));
    }
    Ok(Plan::one(Step::Copy { from, to, replace }, move |outcome| match outcome.result {
        StepResult::Occupied if replace => done(outcome, Reply::Nil),
        _ => Reply::flag(is_done(outcome)),
    }))
});

/// RENAME from to
pub const RENAME: Run = Run::Steps(|call| {
    let step = Step::Rename { from: call.name(1)?, to: call.name(2)?, only_absent: false };
    Ok(Plan::one(step, |outcome| done(outcome, Reply::OK)))
});

/// RENAMENX from to
pub const RENAMENX: Run = Run::Steps(|call| {
    let step = Step::Rename { from: call.name(1)?, to: call.name(2)?, only_absent: true };
    Ok(Plan::one(step, |outcome| match outcome.result {
        StepResult::Done => Reply::Int(1),
        StepResult::NotMet | StepResult::Unchanged | StepResult::Occupied => Reply::Int(0),
        _ => done(outcome, Reply::Int(1)),
    }))
});

/// OBJECT ENCODING | REFCOUNT | IDLETIME | FREQ key
pub const OBJECT: Run = Run::Steps(|call| {
    let sub = call.sub()?.name;
    if sub == "help" {
        let help = call.help();
        return Ok(Plan::new(Vec::<Step>::new(), |_, _| Answer::Reply(help)));
    }
    let step = Step::Get { name: call.name(2)? };
    Ok(Plan::new(vec![step], move |done, _| match (done.first().and_then(|o| o.entry.clone()), sub) {
        (None, _) => Answer::Reply(Reply::Nil),
        (Some(entry), "encoding") => Answer::Encoding(entry),
        (Some(_), "refcount") => Answer::Reply(Reply::Int(1)),
        (Some(_), "idletime") => Answer::Reply(Reply::Int(0)),
        (Some(_), _) => Answer::Reply(Reply::err(
            "An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching \
             between policies at runtime LRU and LFU data will take some time to adjust.",
        )),
    }))
});
