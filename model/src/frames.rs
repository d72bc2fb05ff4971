//! What is on its way, written down for comparison.

use crate::state::Line;
use dstore_shared::canon::{Canon, Canonical, Sort};
use dstore_shared::frame::{Answer, Ask, Down, Reply, Request, Resumption, Up};
use dstore_shared::{Command, RegSeq};

fn registration(reg_seq: RegSeq, line: Line, into: &mut Canon) {
    let (local, life) = line.who;
    into.ranked(Sort::registrations(local, life), reg_seq.0);
}

fn keep(n: u64, line: Line, into: &mut Canon) {
    let (local, life) = line.who;
    into.ranked(Sort::keeps(local, life), n);
}

fn flight(id: dstore_shared::FlightId, line: Line, into: &mut Canon) {
    let (local, life) = line.who;
    into.ranked(Sort::flights(local, life), id.0);
}

pub(crate) fn up(frame: &Up, line: Line, into: &mut Canon) {
    match frame {
        Up::Hello(hello) => {
            into.put(0u8);
            keep(0, line, into);
            into.maybe(hello.last_epoch, Canon::epoch);
            into.bytes(&hello.history.0.to_le_bytes());
            into.put(hello.applied_rev.0);
        }
        Up::Keep { epoch, n, acked } => {
            into.put(1u8);
            into.epoch(*epoch);
            keep(*n, line, into);
            into.put(*acked);
        }
        Up::Ack { epoch, seq } => {
            into.put(2u8);
            into.epoch(*epoch);
            into.put(*seq);
        }
        Up::Summary { epoch, batch, names, last } => {
            into.put(3u8);
            into.epoch(*epoch);
            into.put(*batch);
            into.put(*last);
            into.count(names.len());
            for listed in names {
                listed.name.canon(into);
                into.put(listed.bind_rev.0);
                registration(listed.reg_seq, line, into);
            }
        }
        Up::Drop { epoch, names } => {
            into.put(4u8);
            into.epoch(*epoch);
            into.count(names.len());
            for (name, reg_seq) in names {
                name.canon(into);
                registration(*reg_seq, line, into);
            }
        }
        Up::Bye { epoch } => {
            into.put(5u8);
            into.epoch(*epoch);
        }
    }
}

pub(crate) fn down(frame: &Down, line: Line, into: &mut Canon) {
    into.epoch(frame.epoch());
    match frame {
        Down::Welcome { head, resumption, list, .. } => {
            into.put(0u8);
            into.put(head.0);
            into.put(match resumption {
                Resumption::Resume => 0u8,
                Resumption::Compacted => 1,
                Resumption::NewHistory => 2,
            });
            into.put(*list);
        }
        Down::Inv { seq, name, upto, .. } => {
            into.put(1u8);
            into.put(*seq);
            name.canon(into);
            into.put(upto.0);
        }
        Down::Resync { seq, upto, .. } => {
            into.put(2u8);
            into.put(*seq);
            into.put(upto.0);
        }
        Down::InvPrefix { seq, prefix, upto, .. } => {
            into.put(3u8);
            into.put(*seq);
            into.bytes(prefix.as_bytes());
            into.put(upto.0);
        }
        Down::Lease { n, through, .. } => {
            into.put(4u8);
            keep(*n, line, into);
            into.put(through.0);
        }
        Down::Summarized { batch, refused, .. } => {
            into.put(5u8);
            into.put(*batch);
            into.count(refused.len());
            refused.iter().for_each(|at| into.put(*at));
        }
        Down::Retire { .. } => into.put(6u8),
    }
}

pub(crate) fn request(request: &Request, line: Line, into: &mut Canon) {
    flight(request.flight, line, into);
    into.epoch(request.epoch);
    registration(request.reg_seq, line, into);
    match &request.ask {
        Ask::Resolve { name, .. } => {
            into.put(0u8);
            name.canon(into);
        }
        Ask::ResolveMany { names, .. } => {
            into.put(1u8);
            names.iter().for_each(|name| name.canon(into));
        }
        // What it asks follows from the call.
        Ask::Change { id, command } => {
            into.put(if matches!(command, Command::Set { .. }) { 2u8 } else { 3 });
            into.put(id.client.0 as u64);
            into.put(id.n);
        }
    }
}

pub(crate) fn reply(reply: &Reply, line: Line, into: &mut Canon) {
    flight(reply.flight, line, into);
    into.put(reply.born.boot);
    match &reply.answer {
        Answer::Resolved(resolved) => {
            into.put(0u8);
            resolved.entry.canon(into);
            into.maybe(resolved.cacheable, Canon::epoch);
        }
        Answer::ResolvedMany(_) => into.put(1u8),
        Answer::Changed { outcome, cacheable, .. } => {
            into.put(2u8);
            outcome.canon(into);
            into.maybe(*cacheable, Canon::epoch);
        }
        Answer::Failed(e) => {
            into.put(3u8);
            into.put(e.kind() as u64);
        }
    }
}
