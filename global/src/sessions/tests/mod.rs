//! Tables of interleavings for Global's machine: a test a rule of docs/PROTOCOL.md, named after its number,
//! a test for each way in which it was once wrong, and what a hostile peer may send.
//!
//! A [`Table`] is one Global with a lease of 2 s and A = 250 ms. Every event takes the time in milliseconds;
//! [`Table::gives`] tells all that was to be done since it was last asked, in order. `s1` is session stream 1,
//! `e1` the first epoch of this boot, `d1` a DEL and `w1` a SET by the label of their requests.

mod busy;
mod copied;
mod hostile;
mod lease;
mod modes;
mod once;
mod prefixes;
mod replaced;
mod replay;
mod restart;
mod resume;
mod resync;
mod slow;

use super::*;
use dstore_shared::frame::{Hello, Resumption};
use dstore_shared::{BlobHash, DeleteMode, DeleteOutcome, Entry, Incarnation, Kind, SetOutcome};
use std::fmt::Write;

const LEASE_MS: u64 = 2_000;
/// After how long without renewal a session is over: D(1+ρ).
const OVER_MS: u64 = 2_010;
const ACK_MAX_MS: u64 = 250;
const HISTORY: HistoryId = HistoryId(0xd);
const BOOT: u64 = 3;
/// The head revision at which every table begins.
const HEAD: u64 = 10;

fn at(ms: u64) -> Moment {
    // The machine has been up for a second when the boot begins.
    Moment::from_nanos((1_000 + ms) * 1_000_000)
}

fn name(k: &str) -> Name {
    Name::of(k.to_owned()).unwrap()
}

fn e(counter: u64) -> Epoch {
    Epoch { history: HISTORY, boot: BOOT, counter }
}

/// An epoch of the boot before.
fn older(counter: u64) -> Epoch {
    Epoch { boot: BOOT - 1, ..e(counter) }
}

fn entry(rev: u64) -> Entry {
    Entry {
        hash: BlobHash::of(b"bytes"),
        size: 5,
        bind_rev: Revision(rev),
        expires_at: None,
        content_type: None,
    }
}

/// One life of a Local's process.
#[derive(Clone, Copy)]
struct Life {
    local: u128,
    incarnation: u64,
}

const A: Life = Life { local: 1, incarnation: 1 };
/// A's process, started again.
const A2: Life = Life { local: 1, incarnation: 2 };
const B: Life = Life { local: 2, incarnation: 1 };

impl Life {
    fn hello(self, last_epoch: Option<Epoch>) -> Hello {
        Hello {
            local_id: LocalId(self.local),
            incarnation: Incarnation(self.incarnation),
            last_epoch,
            history: last_epoch.map_or(HistoryId::default(), |e| e.history),
            applied_rev: Revision(0),
            label: format!("local {}.{}", self.local, self.incarnation),
            negatives: false,
        }
    }
}

struct Table {
    m: Sessions<&'static str, &'static str>,
    /// By label: the request's id, and the op it became.
    ids: HashMap<&'static str, (RequestId, Option<OpNo>)>,
    done: Vec<String>,
    /// That of DELs from now on.
    mode: DeleteMode,
}

impl Table {
    fn new() -> Self {
        Self::with(Terms::for_lease(Duration::from_millis(LEASE_MS)), 0)
    }

    /// A boot after a crash: leases of the boot before may run for `grace_ms`.
    fn restarted(grace_ms: u64) -> Self {
        Self::with(Terms::for_lease(Duration::from_millis(LEASE_MS)), grace_ms)
    }

    fn with(terms: Terms, grace_ms: u64) -> Self {
        Self::that_knows(terms, grace_ms, false)
    }

    /// `all_wait`: there were asynchronous DELs, or absent names were leased, before the boot.
    fn that_knows(terms: Terms, grace_ms: u64, all_wait: bool) -> Self {
        let grace = Duration::from_millis(grace_ms);
        let boot = Boot { history: HISTORY, number: BOOT, head: Revision(HEAD), at: at(0), grace, all_wait };
        let m = Sessions::new(terms, boot);
        Self { m, ids: HashMap::new(), done: Vec::new(), mode: DeleteMode::Strict }
    }

    // ---- events

    /// A Local that has had no session in this life.
    fn hello(&mut self, ms: u64, who: Life, stream: u64) {
        self.m.hello(at(ms), StreamId(stream), &who.hello(None)).expect("a session");
    }

    fn hello_again(&mut self, ms: u64, who: Life, stream: u64, last: Epoch) {
        self.m.hello(at(ms), StreamId(stream), &who.hello(Some(last))).expect("a session");
    }

    /// A Local that has applied everything up to `applied`.
    fn resumes(&mut self, ms: u64, who: Life, stream: u64, last: Epoch, applied: u64) {
        let hello = Hello { applied_rev: Revision(applied), ..who.hello(Some(last)) };
        self.m.hello(at(ms), StreamId(stream), &hello).expect("a session");
    }

    /// A DEL from its mark to its end, which nobody has to wait for.
    fn deleted(&mut self, ms: u64, label: &'static str, names: &[&str], head: u64) {
        self.del(ms, label, names);
        self.removed(ms, label, head);
    }

    fn refused_hello(&mut self, ms: u64, who: Life, stream: u64) -> Kind {
        self.m.hello(at(ms), StreamId(stream), &who.hello(None)).expect_err("no session").kind()
    }

    fn keep(&mut self, ms: u64, stream: u64, epoch: Epoch, n: u64, acked: u64) {
        self.m.keep(at(ms), StreamId(stream), epoch, n, acked);
    }

    fn ack(&mut self, ms: u64, stream: u64, epoch: Epoch, seq: u64) {
        self.m.ack(at(ms), StreamId(stream), epoch, seq);
    }

    fn bye(&mut self, ms: u64, stream: u64, epoch: Epoch) {
        self.m.bye(at(ms), StreamId(stream), epoch);
    }

    fn lost(&mut self, stream: u64) {
        self.m.stream_lost(StreamId(stream));
    }

    fn drop(&mut self, ms: u64, stream: u64, epoch: Epoch, k: &str, reg: u64) {
        self.m.drop_name(at(ms), StreamId(stream), epoch, &name(k), RegSeq(reg));
    }

    fn tick(&mut self, ms: u64) {
        self.m.tick(at(ms));
    }

    fn begin(&mut self, ms: u64, epoch: Epoch, k: &str, reg: u64) -> Option<Registration> {
        self.m.begin_read(at(ms), epoch, &name(k), RegSeq(reg))
    }

    fn end(&mut self, ms: u64, k: &str, made: Option<Registration>, found: bool) -> Option<Epoch> {
        self.m.end_read(at(ms), &name(k), made?, found)
    }

    /// A Resolve that finds the name, both halves at once; gives whether it may be cached.
    fn fills(&mut self, ms: u64, epoch: Epoch, k: &str, reg: u64) -> bool {
        let made = self.begin(ms, epoch, k, reg);
        let cacheable = self.end(ms, k, made, true);
        assert!(cacheable.is_none_or(|c| c == epoch), "cacheable in another epoch");
        cacheable.is_some()
    }

    /// A SUMMARY batch of names with whether each is bound as listed; the whole round if `last`.
    fn summary(
        &mut self,
        ms: u64,
        stream: u64,
        epoch: Epoch,
        batch: u64,
        listed: &[(&str, bool)],
        last: bool,
    ) {
        let mut refused = Vec::new();
        for (i, (k, equal)) in listed.iter().enumerate() {
            let made = self.begin(ms, epoch, k, batch * 1000 + i as u64);
            if self.end(ms, k, made, *equal).is_none() {
                refused.push(i as u32);
            }
        }
        self.m.summarized(at(ms), StreamId(stream), epoch, batch, refused, last);
    }

    fn del(&mut self, ms: u64, label: &'static str, names: &[&str]) {
        self.submit(ms, label, names, true, None);
    }

    fn del_async(&mut self, ms: u64, label: &'static str, names: &[&str]) {
        self.mode = DeleteMode::Async;
        self.del(ms, label, names);
        self.mode = DeleteMode::Strict;
    }

    fn del_within(&mut self, ms: u64, label: &'static str, names: &[&str], limit_ms: u64) {
        self.mode = DeleteMode::Deadline(Duration::from_millis(limit_ms));
        self.del(ms, label, names);
        self.mode = DeleteMode::Strict;
    }

    /// A Local that keeps "not found" answers, and has had no session in this life.
    fn hello_keeping(&mut self, ms: u64, who: Life, stream: u64, last: Option<Epoch>) {
        let hello = Hello { negatives: true, ..who.hello(last) };
        self.m.hello(at(ms), StreamId(stream), &hello).expect("a session");
    }

    /// A Resolve that finds nothing; gives whether that may be kept.
    fn misses(&mut self, ms: u64, epoch: Epoch, k: &str, reg: u64) -> bool {
        let Some(made) = self.begin(ms, epoch, k, reg) else { return false };
        let kept = self.m.end_absent(at(ms), &name(k), made);
        assert!(kept.is_none_or(|kept| kept == epoch), "kept in another epoch");
        kept.is_some()
    }

    fn set(&mut self, ms: u64, label: &'static str, k: &str, caller: Option<(Epoch, u64)>) {
        self.submit(ms, label, &[k], false, caller);
    }

    /// Gives the request a number at its first attempt; an attempt under the same label is a retry.
    fn submit(
        &mut self,
        ms: u64,
        label: &'static str,
        names: &[&str],
        drains: bool,
        caller: Option<(Epoch, u64)>,
    ) {
        let n = self.ids.len() as u64 + 1;
        let new = RequestId { client: ClientId(7), n, born: self.m.born(at(ms)) };
        let id = self.ids.entry(label).or_insert((new, None)).0;
        let caller = caller.map(|(epoch, reg)| Caller { epoch, reg_seq: RegSeq(reg) });
        let names = names.iter().map(|k| name(k)).collect();
        self.m.submit(
            at(ms),
            Submission {
                id,
                names,
                drains,
                spared: Vec::new(),
                mode: self.mode,
                job: label,
                caller,
                responder: label,
            },
        );
    }

    /// The committer is done with what `label` asked, and what it did is visible.
    fn finish(&mut self, ms: u64, label: &str, result: &Result<Outcome>, head: u64) {
        self.obey();
        let op = self.ids[label].1.expect("committing");
        self.m.finish(at(ms), op, result, Revision(head));
    }

    fn removed(&mut self, ms: u64, label: &str, head: u64) {
        let outcome = DeleteOutcome { removed: vec![true], revision: Revision(head) };
        self.finish(ms, label, &Ok(Outcome::Delete(outcome)), head);
    }

    fn stored(&mut self, ms: u64, label: &str, head: u64) {
        self.finish(ms, label, &Ok(Outcome::Set(SetOutcome::Stored(entry(head)))), head);
    }

    fn occupied(&mut self, ms: u64, label: &str, by: u64) {
        self.finish(ms, label, &Ok(Outcome::Set(SetOutcome::Occupied(entry(by)))), by);
    }

    // ---- what came of it

    fn obey(&mut self) {
        for action in self.m.take_actions() {
            if let Action::Commit(op, label) = &action {
                self.ids.get_mut(label).expect("submitted").1 = Some(*op);
            }
            self.done.push(told(&action));
        }
    }

    /// All that was to be done since the last such question is this, in order.
    #[track_caller]
    fn gives(&mut self, expected: &[&str]) {
        self.obey();
        assert_eq!(std::mem::take(&mut self.done), expected);
    }

    #[track_caller]
    fn gives_nothing(&mut self) {
        self.gives(&[]);
    }

    /// Everything until now is of no interest.
    fn skip(&mut self) {
        self.obey();
        self.done.clear();
    }

    fn registrations(&self) -> usize {
        self.m.counts().registrations
    }
}

fn told(action: &Action<&'static str, &'static str>) -> String {
    match action {
        Action::Send(stream, frame) => format!("s{} {}", stream.0, frame_told(frame)),
        Action::Close(stream, _) => format!("s{} close", stream.0),
        Action::Commit(_, label) => format!("commit {label}"),
        Action::Answer(label, Ok(answered)) => {
            let mut text = match &answered.outcome {
                Outcome::Set(SetOutcome::Stored(e)) => format!("{label}: stored {}", e.bind_rev),
                Outcome::Set(SetOutcome::Occupied(e)) => format!("{label}: occupied {}", e.bind_rev),
                Outcome::Set(other) => format!("{label}: {other:?}"),
                Outcome::Delete(d) => format!("{label}: removed {}", d.revision),
                Outcome::Copy(c) | Outcome::Rename(c) => format!("{label}: {c:?}"),
                Outcome::DeletePrefix(d) => format!("{label}: removed {} at {}", d.removed, d.revision),
                Outcome::Transaction(done) => format!("{label}: applied {}", done.revision),
                Outcome::Namespace(done) => format!("{label}: {done:?}"),
            };
            if let Some(epoch) = answered.cacheable {
                write!(text, ", cache in e{}", epoch.counter).unwrap();
            }
            if let Some(bound) = answered.stale {
                write!(text, ", stale for {} ms", bound.as_millis()).unwrap();
            }
            text
        }
        Action::Answer(label, Err(e)) => format!("{label}: {}", e.kind()),
    }
}

fn frame_told(frame: &Down) -> String {
    let e = frame.epoch().counter;
    match frame {
        Down::Welcome { resumption: Resumption::Compacted, .. } => format!("welcome e{e}"),
        Down::Welcome { resumption: Resumption::Resume, list: true, .. } => {
            format!("welcome e{e} Resume, list")
        }
        Down::Welcome { resumption, .. } => format!("welcome e{e} {resumption:?}"),
        Down::Resync { seq, upto, .. } => format!("resync {seq} upto {upto} e{e}"),
        Down::Inv { seq, name, upto, .. } => format!("inv {seq} {} upto {upto} e{e}", key(name)),
        Down::InvPrefix { seq, prefix, upto, .. } => {
            format!("inv {seq} {}* upto {upto} e{e}", prefix.bytes().escape_ascii())
        }
        Down::Lease { n, .. } => format!("lease {n} e{e}"),
        Down::Summarized { batch, refused, .. } => format!("summarized {batch} refused {refused:?} e{e}"),
        Down::Retire { .. } => format!("retire e{e}"),
    }
}

fn key(name: &Name) -> String {
    String::from_utf8(name.as_bytes().split(|b| *b == 0).next_back().unwrap().to_vec()).unwrap()
}
