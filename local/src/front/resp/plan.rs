//! What a command asks of Global as steps of a transaction, and how their outcome is told.
//!
//! ```text
//! plan -> values hashed, large ones stored first -> apply, at one revision -> outcomes -> answer -> values by their hash -> reply
//! ```
//! Invariant: what a plan answers is as of the revision at which it was decided: values are read by their hash, not
//! by their name.

use super::commands::{failure, replied};
use super::door::Door;
use super::draft::Draft;
use super::gathered::Gathered;
use super::reply::Reply;
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::store::{Slice, Stat, Store, Target};
use dstore_shared::{
    Blob, Decision, Entry, Error, Guard, Result, Step, StepOutcome, StepResult, Transaction,
};
use std::ops::Range;

/// Values of more bytes are hashed where it holds up nobody.
pub const HASH_HERE_MAX: usize = 256 << 10;
/// How often values may be swept between their storing and their binding.
const ATTEMPTS: usize = 3;

/// What is made of the outcomes of a plan's steps, and journal time of the decision.
pub type Tell = Box<dyn FnOnce(&[StepOutcome], u64) -> Answer + Send>;

/// Steps, and how their outcome is told.
pub struct Plan {
    /// What must hold; of a command alone, a guard that does not hold is told by `aborted`.
    pub guards: Vec<Guard>,
    /// What is done.
    pub steps: Vec<Draft>,
    /// Makes the answer of the steps' outcomes.
    pub tell: Tell,
    /// The reply if a guard does not hold.
    pub aborted: Reply,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Plan({:?})", self.steps)
    }
}

/// A reply, or what it is made of.
#[derive(Clone, PartialEq, Debug)]
pub enum Answer {
    /// It.
    Reply(Reply),
    /// The value of an entry, or nil.
    Value(Option<Entry>),
    /// A part of the value of an entry.
    Part(Entry, Range<u64>),
    /// Values and nils.
    Values(Vec<Option<Entry>>),
    /// What Redis would call the form of the value.
    Encoding(Entry),
}

impl Plan {
    /// Steps, and how their outcome is told.
    pub fn new(
        steps: Vec<impl Into<Draft>>,
        tell: impl FnOnce(&[StepOutcome], u64) -> Answer + Send + 'static,
    ) -> Self {
        let steps = steps.into_iter().map(Into::into).collect();
        Self { guards: Vec::new(), steps, tell: Box::new(tell), aborted: Reply::Nil }
    }

    /// One step, told by a reply.
    pub fn one(step: impl Into<Draft>, tell: impl FnOnce(&StepOutcome) -> Reply + Send + 'static) -> Self {
        Self::new(vec![step], |done, _| Answer::Reply(first(done, tell)))
    }

    /// Runs it by itself.
    pub async fn run(self, door: &Door) -> Reply {
        let Self { guards, steps, tell, aborted } = self;
        if let ([Draft::Step(Step::Get { name })], true) = (&steps[..], guards.is_empty()) {
            // One read needs no transaction: a Local may answer it.
            return match door.node.stat(Target::Name(name.clone())).await {
                Ok(stat) => {
                    let now = stat.as_ref().and_then(|stat| stat.from.journal_ms).unwrap_or(0);
                    tell(&[read(stat)], now).resolved(&mut Gathered::new(door)).await
                }
                Err(e) => failure(&e),
            };
        }
        let steps = stepped(door, steps).await;
        let decided = apply(door, Transaction::guarded(guards, steps)).await;
        match decided {
            Ok((Decision::Done(done), at_ms)) => tell(&done, at_ms).resolved(&mut Gathered::new(door)).await,
            Ok(_) => aborted,
            Err(e) => failure(&e),
        }
    }
}

/// What a GET would have had as its outcome.
fn read(stat: Option<Stat>) -> StepOutcome {
    let result = if stat.is_some() { StepResult::Done } else { StepResult::NotFound };
    StepOutcome { result, old: None, entry: stat.map(|stat| stat.entry), number: None }
}

fn first(done: &[StepOutcome], tell: impl FnOnce(&StepOutcome) -> Reply) -> Reply {
    done.first().map_or_else(|| failure(&Error::internal("a step has no outcome: report this")), tell)
}

/// Has a transaction decided. Gives the decision, and its journal time.
///
/// # Errors
/// As `Store::apply`.
pub async fn apply(door: &Door, transaction: Transaction) -> Result<(Decision, u64)> {
    let id = door.node.next_id()?;
    for _ in 0..ATTEMPTS {
        // Values that are too large to travel with it are stored before, by the node.
        let done = door.node.apply(id, transaction.clone()).await?;
        if !matches!(done.decision, Decision::NeedBlobs(_)) {
            return Ok((done.decision, done.at_ms));
        }
    }
    Err(Error::unavailable("a value was swept meanwhile: try again"))
}

/// Steps with their values hashed: here if they are small together.
pub async fn stepped(door: &Door, drafts: Vec<Draft>) -> Vec<Step> {
    let here = is_quick(&drafts);
    let hash = move || drafts.into_iter().map(Draft::into_step).collect();
    if here { hash() } else { door.blocking.run(hash).await }
}

/// Whether hashing all of them holds up nobody.
fn is_quick(drafts: &[Draft]) -> bool {
    drafts.iter().fold(0_usize, |sum, draft| sum.saturating_add(draft.bytes())) <= HASH_HERE_MAX
}

/// A value as a blob: hashed here if it is small.
pub async fn hashed(door: &Door, value: Bytes) -> Blob {
    if value.len() <= HASH_HERE_MAX {
        return Blob::hash(value);
    }
    door.blocking.run(move || Blob::hash(value)).await
}

impl Answer {
    /// An answer of entries, for a key that is bound or not.
    pub fn of(entry: Option<Entry>, bound: impl FnOnce(Entry) -> Reply, unbound: Reply) -> Self {
        Self::Reply(entry.map_or(unbound, bound))
    }

    /// The reply, its values read by their hash.
    pub async fn resolved(self, gathered: &mut Gathered<'_>) -> Reply {
        replied(self.resolve(gathered).await)
    }

    async fn resolve(self, gathered: &mut Gathered<'_>) -> Result<Reply> {
        Ok(match self {
            Self::Reply(reply) => reply,
            Self::Value(None) => Reply::Nil,
            Self::Value(Some(entry)) => Reply::Bulk(value(gathered, &entry).await?),
            Self::Part(entry, part) => {
                let value = value(gathered, &entry).await?;
                Reply::Bulk(value.slice(part.start as usize..part.end as usize))
            }
            Self::Values(entries) => {
                let mut replies = Vec::with_capacity(entries.len());
                for entry in entries {
                    replies.push(match entry {
                        Some(entry) => Reply::Bulk(value(gathered, &entry).await?),
                        None => Reply::Nil,
                    });
                }
                Reply::Array(replies)
            }
            Self::Encoding(entry) if entry.size > 44 => Reply::word("raw"),
            Self::Encoding(entry) => {
                let value = value(gathered, &entry).await?;
                let is_number = value.len() <= 20 && super::commands::number(&value).is_some();
                Reply::word(if is_number { "int" } else { "embstr" })
            }
        })
    }
}

/// The bytes of an entry's blob.
async fn value(gathered: &mut Gathered<'_>, entry: &Entry) -> Result<Bytes> {
    gathered.value(entry.size)?;
    let door = gathered.door();
    let found = door.node.get(Target::Hash(entry.hash), Slice::ALL).await?;
    match found {
        Some(found) => door.whole(found).await,
        None => Err(Error::unavailable("the value was swept meanwhile: try again")),
    }
}

/// The reply of a step that should have been done.
pub fn done(outcome: &StepOutcome, reply: Reply) -> Reply {
    match outcome.result {
        StepResult::Done | StepResult::Unchanged => reply,
        StepResult::Occupied => match outcome.entry.as_ref().or(outcome.old.as_ref()) {
            Some(entry) => failure(&Error::occupied(entry.hash)),
            None => Reply::error("OCCUPIED Key occupied!"),
        },
        StepResult::NotMet => Reply::Nil,
        StepResult::NotFound => Reply::error("ERR no such key"),
        StepResult::NotInteger => super::commands::NOT_INTEGER,
        StepResult::OutOfRange => Reply::error("ERR increment or decrement would overflow"),
        StepResult::TooLarge => Reply::error("ERR string exceeds maximum allowed size (proto-max-bulk-len)"),
        StepResult::WriteOnce => Reply::error(
            "ERR the namespace is write-once, a value in it does not change: SELECT one in replace mode",
        ),
        StepResult::Damaged => Reply::error("ERR the value is damaged at global: SET it again"),
    }
}

/// Whether it is done, or was so already.
pub fn is_done(outcome: &StepOutcome) -> bool {
    matches!(outcome.result, StepResult::Done | StepResult::Unchanged)
}

#[cfg(test)]
mod tests {
    use super::super::config::RespConfig;
    use super::super::harness::Harness;
    use super::*;
    use dstore_shared::{Expiry, Name, When};

    #[test]
    fn many_bytes_are_hashed_by_another_thread_and_few_at_once() {
        let harness = Harness::new(RespConfig::default(), true);
        for (len, values, at_once) in
            [(1000, 3, true), (HASH_HERE_MAX + 1, 1, false), (HASH_HERE_MAX / 2, 3, false)]
        {
            let value = Bytes::from(vec![7; len]);
            let name = Name::of("k").expect("valid");
            let draft = Draft::Set { name, value: value.clone(), when: When::Always, expiry: Expiry::Clear };
            let drafts = vec![draft; values];
            assert_eq!(is_quick(&drafts), at_once, "{values} of {len} bytes");
            let steps = harness.runtime().block_on(stepped(harness.door(), drafts));
            let wanted = Blob::hash(value).id();
            let right = |step: &Step| matches!(step, Step::Set { value, .. } if value.hash == wanted);
            assert!(steps.len() == values && steps.iter().all(right));
        }
    }
}
