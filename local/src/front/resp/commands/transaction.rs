//! MULTI, EXEC, DISCARD, WATCH: what is queued is one transaction at Global, at one revision, all or nothing.

use super::{Answered, Call, Done, Plan, Reply, Run, failure};
use crate::front::resp::client::{Multi, QUEUE_MAX};
use crate::front::resp::door::Door;
use crate::front::resp::gathered::Gathered;
use crate::front::resp::own::OwnChange;
use crate::front::resp::plan::{Tell, apply, stepped};
use crate::front::resp::table::{Spec, flag};
use crate::front::resp::tracking::Tracked;
use dstore_proto::store::{Store, Target};
use dstore_shared::{Decision, Guard, Name, Result, Transaction};
use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// MULTI
pub const MULTI: Run = Run::Only(|call| {
    if call.client.multi.is_some() {
        return Err(Reply::err("MULTI calls can not be nested"));
    }
    call.client.multi = Some(Multi::default());
    call.peer.queued.store(1, Ordering::Relaxed);
    Ok(Reply::OK.into())
});

/// DISCARD
pub const DISCARD: Run = Run::Only(|call| {
    let reply = call.client.multi.take().map_or(Reply::err("DISCARD without MULTI"), |_| Reply::OK);
    call.client.watched.lock().clear();
    call.peer.queued.store(0, Ordering::Relaxed);
    Ok(reply.into())
});

const QUEUED: Reply = Reply::Line(Cow::Borrowed("QUEUED"));

/// Queues a command, or says why not; then EXEC refuses all of them.
pub fn queue(call: &mut Call<'_>) -> Reply {
    let refusal = refusal(call);
    let Some(multi) = &mut call.client.multi else { return Reply::err("no MULTI") };
    if let Some(refusal) = refusal {
        multi.refuse();
        return refusal;
    }
    if multi.refused {
        return QUEUED;
    }
    let kept = call.args.keep();
    multi.bytes += kept.bytes();
    multi.queue.push((call.spec, kept));
    if multi.queue.len() > QUEUE_MAX.0 || multi.bytes > QUEUE_MAX.1 {
        multi.refuse();
        return Reply::error(
            "OOM too many commands, or too large ones, between MULTI and EXEC: make it smaller",
        );
    }
    call.peer.queued.store(multi.queue.len() + 1, Ordering::Relaxed);
    QUEUED
}

fn refusal(call: &Call<'_>) -> Option<Reply> {
    match call.spec.run {
        // Its part of the reply of EXEC would be missing, or all of it.
        _ if call.spec.name == "client" && call.args.is(1, "reply") => {
            Some(Reply::err("CLIENT REPLY is not possible within MULTI here"))
        }
        Run::Only(_) => Some(Reply::err(format!("'{}' is not possible within MULTI here", call.spec.name))),
        _ => None,
    }
}

/// UNWATCH
pub const UNWATCH: Run = Run::Plain(|call| {
    call.client.watched.lock().clear();
    Ok(Reply::OK.into())
});

/// WATCH key [key ...]
pub const WATCH: Run = Run::Only(|call| {
    if call.client.multi.is_some() {
        return Err(Reply::err("WATCH inside MULTI is not allowed"));
    }
    let names = call.names()?;
    call.started()?;
    let (door, watched) = (call.door.clone(), call.client.watched.clone());
    Ok(Done::later(async move {
        for name in names {
            match guard(&door, name).await {
                Ok(guard) => {
                    let mut watched = watched.lock();
                    // As it was when it was watched first.
                    if !watched.iter().any(|other| other.name == guard.name) {
                        watched.push(guard);
                    }
                }
                Err(e) => return failure(&e),
            }
        }
        Reply::OK
    }))
});

async fn guard(door: &Door, name: Name) -> Result<Guard> {
    let stat = door.node.stat(Target::Name(name.clone())).await?;
    Ok(Guard { name, bind_rev: stat.map(|stat| stat.entry.bind_rev) })
}

/// Bytes of replies in one EXEC of commands that ask nobody, as COMMAND and CLIENT LIST: each takes time of its loop.
const KNOWN_MAX: usize = 8 << 20;

/// The part of one command in an EXEC.
enum Part {
    /// Its reply is known.
    Known(Reply),
    /// So many steps, and what makes an answer of their outcomes.
    Steps(usize, Tell),
}

/// EXEC
pub const EXEC: Run = Run::Only(|call| {
    let Some(multi) = call.client.multi.take() else { return Err(Reply::err("EXEC without MULTI")) };
    call.peer.queued.store(0, Ordering::Relaxed);
    let guards = std::mem::take(&mut *call.client.watched.lock());
    if multi.refused {
        return Err(Reply::error("EXECABORT Transaction discarded because of previous errors."));
    }
    let (mut parts, mut steps, mut known) = (Vec::with_capacity(multi.queue.len()), Vec::new(), 0);
    let mut reads = Vec::new();
    for (spec, kept) in &multi.queue {
        let mut one =
            Call { door: call.door, peer: call.peer, client: &mut *call.client, args: kept.args(), spec };
        if spec.has(flag::READONLY) && one.client.tracking.tracks_reads() {
            reads.extend(one.names().unwrap_or_default());
        }
        let part = if known > KNOWN_MAX { Err(TOO_MUCH) } else { part(&mut one, spec) };
        parts.push(match part {
            Ok((Some(plan), _)) => {
                let Plan { steps: more, tell, .. } = plan;
                let n = more.len();
                steps.extend(more);
                Part::Steps(n, tell)
            }
            Ok((None, reply)) | Err(reply) => {
                known += reply.held();
                Part::Known(reply)
            }
        });
    }
    if steps.is_empty() && guards.is_empty() {
        let known = parts.into_iter().filter_map(|part| match part {
            Part::Known(reply) => Some(reply),
            Part::Steps(..) => None,
        });
        return Ok(Reply::Array(known.collect()).into());
    }
    call.started()?;
    let own = OwnChange::of_steps(call, &steps);
    let door = call.door.clone();
    let tracked = if reads.is_empty() {
        Tracked::default()
    } else {
        door.tracking.note(call.peer, &reads).waits(&door)
    };
    Ok(Done::later(async move {
        let steps = stepped(&door, steps).await;
        let reply = run(&door, Transaction::guarded(guards, steps), parts).await;
        if let Some(own) = own {
            own.end(&door, &reply).await;
        }
        tracked.settle(&door, reply)
    }))
});

const TOO_MUCH: Reply =
    Reply::error("OOM the replies of this transaction are too large: ask outside of MULTI");

fn part(call: &mut Call<'_>, spec: &Spec) -> Answered<(Option<Plan>, Reply)> {
    match spec.run {
        Run::Steps(plan) | Run::Both(_, plan) => Ok((Some(plan(call)?), Reply::Nil)),
        Run::Plain(run) | Run::Only(run) => match run(call)? {
            Done::Now(reply) => Ok((None, reply)),
            Done::Later(_) => Err(Reply::err("not possible within MULTI here")),
        },
    }
}

async fn run(door: &Arc<Door>, transaction: Transaction, parts: Vec<Part>) -> Reply {
    let (done, at_ms) = match apply(door, transaction).await {
        Ok((Decision::Done(done), at_ms)) => (done, at_ms),
        Ok(_) => return Reply::NilArray,
        Err(e) => return Reply::Error(format!("EXECABORT {}", failure(&e).error_text()).into()),
    };
    let mut gathered = Gathered::new(door);
    let (mut rest, mut replies) = (&done[..], Vec::with_capacity(parts.len()));
    for part in parts {
        replies.push(match part {
            Part::Known(reply) => reply,
            Part::Steps(n, tell) => {
                let (mine, others) = rest.split_at(n.min(rest.len()));
                rest = others;
                tell(mine, at_ms).resolved(&mut gathered).await
            }
        });
    }
    Reply::Array(replies)
}
