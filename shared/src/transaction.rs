//! Several reads and changes that are decided together, at one revision, all or none.
//!
//! A [`Transaction`] first checks its guards: each must find its name bound as it says. If one does not, nothing
//! is done. Then its steps are done in order, each seeing what those before it did. A step that cannot be done
//! (the name is occupied, the value is no number, ...) is an answer of its own and fails no other, unless the
//! transaction is `whole`: then nothing is done at all.

use crate::limits::{
    APPEND_BYTES_MAX, CARRIED_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_STEPS_MAX, TTL_MAX,
};
use crate::{Blob, BlobHash, ContentType, Entry, Error, Name, Result, Revision, type_len};
use bytes::Bytes;
use std::time::Duration;

/// Reads and changes that are decided together.
#[derive(Clone, Default, Debug)]
pub struct Transaction {
    /// What must hold for any of it to be done.
    pub guards: Vec<Guard>,
    /// What is done, in order.
    pub steps: Vec<Step>,
    /// Whether a step that is refused makes that nothing is done.
    pub whole: bool,
}

/// What a name must be bound to when a transaction is decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Guard {
    /// The name.
    pub name: Name,
    /// The revision of its binding; `None` = it must not be bound.
    pub bind_rev: Option<Revision>,
}

/// A blob that a step binds.
#[derive(Clone, Debug)]
pub struct Payload {
    /// The blob's hash.
    pub hash: BlobHash,
    /// The blob's length in bytes.
    pub size: u64,
    /// The bytes, if they travel with the transaction; otherwise Global must hold the blob already.
    pub carried: Option<Blob>,
    /// Of what type it is.
    pub content_type: Option<ContentType>,
}

impl Payload {
    /// A blob that travels with the transaction, if it is small enough in the end.
    pub fn carrying(blob: Blob) -> Self {
        Self { hash: blob.id(), size: blob.size(), carried: Some(blob), content_type: None }
    }

    /// A blob that was stored before.
    pub fn stored(hash: BlobHash, size: u64) -> Self {
        Self { hash, size, carried: None, content_type: None }
    }

    /// The same, of a type.
    #[must_use]
    pub fn typed(self, content_type: Option<ContentType>) -> Self {
        Self { content_type, ..self }
    }
}

/// When a SET is done.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum When {
    /// In any case.
    #[default]
    Always,
    /// If the name is not bound.
    Absent,
    /// If the name is bound.
    Present,
}

/// When a step gives a name another time to live. A name without one lives for ever, which is longer than any.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum ExpireWhen {
    /// In any case.
    #[default]
    Always,
    /// If it has none.
    None,
    /// If it has one.
    Some,
    /// If it then lives longer.
    Greater,
    /// If it then lives less long.
    Less,
}

/// How long a name lives.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Expiry {
    /// Of a SET: as long as its namespace says, else for ever. Of an `Expire`: for ever.
    #[default]
    Clear,
    /// As long as it did: of a name that was not bound, as `Clear`.
    Keep,
    /// Until this journal time, in milliseconds since 1970. One that is over means that the name is not bound.
    At(u64),
    /// For so long, counted by journal time from the decision. Whole milliseconds count.
    In(Duration),
}

/// One step of a [`Transaction`].
#[derive(Clone, Debug)]
pub enum Step {
    /// What is `name` bound to?
    Get {
        /// The name.
        name: Name,
    },
    /// Bind `name` to a blob. In a write-once namespace a name that is bound to another blob is `Occupied`.
    Set {
        /// The name.
        name: Name,
        /// The blob.
        value: Payload,
        /// Whether it is done.
        when: When,
        /// How long the name lives.
        expiry: Expiry,
    },
    /// Unbind `name`.
    Delete {
        /// The name.
        name: Name,
    },
    /// Give `name` another time to live.
    Expire {
        /// The name.
        name: Name,
        /// How long it lives; `Keep` is not allowed.
        expiry: Expiry,
        /// Whether it is done.
        when: ExpireWhen,
    },
    /// Add to the number whose decimal text `name` is bound to, 0 if it is not bound, and bind it to the text of
    /// the sum. Replace namespaces only.
    Add {
        /// The name.
        name: Name,
        /// What is added.
        by: i64,
    },
    /// Bind `name` to its value with `bytes` after it. Replace namespaces only.
    Append {
        /// The name.
        name: Name,
        /// What is appended.
        bytes: Bytes,
    },
    /// Bind `to` to the blob of `from`, with its time to live.
    Copy {
        /// The name that has the blob.
        from: Name,
        /// The name to bind.
        to: Name,
        /// Whether it is done if `to` is bound; in a write-once namespace then only to the same blob.
        replace: bool,
    },
    /// As `Copy`, and unbind `from`.
    Rename {
        /// The name to unbind.
        from: Name,
        /// The name to bind.
        to: Name,
        /// Only if `to` is not bound.
        only_absent: bool,
    },
}

impl Step {
    /// The names that it is about.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        let (first, second) = match self {
            Self::Get { name }
            | Self::Set { name, .. }
            | Self::Delete { name }
            | Self::Expire { name, .. }
            | Self::Add { name, .. }
            | Self::Append { name, .. } => (name, None),
            Self::Copy { from, to, .. } | Self::Rename { from, to, .. } => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    /// Whether `result` says that it was refused: that what it asks for is not so now. To delete what is not bound is
    /// to have it so.
    pub fn is_refused(&self, result: StepResult) -> bool {
        match result {
            StepResult::Done | StepResult::Unchanged => false,
            StepResult::NotFound => !matches!(self, Self::Delete { .. }),
            _ => true,
        }
    }

    /// The bytes that it carries, beside its names.
    pub fn carried_len(&self) -> usize {
        match self {
            Self::Set { value, .. } => {
                let carried = value.carried.as_ref().map_or(0, |blob| blob.bytes().len());
                carried + type_len(value.content_type.as_ref())
            }
            Self::Append { bytes, .. } => bytes.len(),
            _ => 0,
        }
    }

    /// The same with every name in an allocation of its own.
    #[must_use]
    pub fn compact(self) -> Self {
        match self {
            Self::Get { name } => Self::Get { name: name.compact() },
            Self::Set { name, mut value, when, expiry } => {
                value.carried = value.carried.map(|blob| blob.compact());
                Self::Set { name: name.compact(), value, when, expiry }
            }
            Self::Delete { name } => Self::Delete { name: name.compact() },
            Self::Expire { name, expiry, when } => Self::Expire { name: name.compact(), expiry, when },
            Self::Add { name, by } => Self::Add { name: name.compact(), by },
            Self::Append { name, bytes } => {
                Self::Append { name: name.compact(), bytes: Bytes::copy_from_slice(&bytes) }
            }
            Self::Copy { from, to, replace } => {
                Self::Copy { from: from.compact(), to: to.compact(), replace }
            }
            Self::Rename { from, to, only_absent } => {
                Self::Rename { from: from.compact(), to: to.compact(), only_absent }
            }
        }
    }

    fn expiry(&self) -> Option<Expiry> {
        match self {
            Self::Set { expiry, .. } | Self::Expire { expiry, .. } => Some(*expiry),
            _ => None,
        }
    }
}

impl Transaction {
    /// One step without guards.
    pub fn of(step: Step) -> Self {
        Self::steps(vec![step])
    }

    /// Steps without guards, of which one that is refused fails no other.
    pub fn steps(steps: Vec<Step>) -> Self {
        Self::guarded(Vec::new(), steps)
    }

    /// Steps under guards, of which one that is refused fails no other.
    pub fn guarded(guards: Vec<Guard>, steps: Vec<Step>) -> Self {
        Self { guards, steps, whole: false }
    }

    /// The same, of which nothing is done if a step is refused.
    #[must_use]
    pub fn whole(self) -> Self {
        Self { whole: true, ..self }
    }

    /// The names that it is about; one may come more than once.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.guards.iter().map(|guard| &guard.name).chain(self.steps.iter().flat_map(Step::names))
    }

    /// The bytes of its names and of what it carries.
    pub fn weight(&self) -> usize {
        let names: usize = self.names().map(|name| name.as_bytes().len()).sum();
        names + self.steps.iter().map(Step::carried_len).sum::<usize>()
    }

    /// Whether it is within the limits.
    ///
    /// # Errors
    /// `TooLarge` for too many steps or bytes, `Invalid` for a step that makes no sense.
    pub fn check(&self) -> Result<()> {
        self.check_len(self.weight())?;
        self.steps.iter().try_for_each(|step| check_step(step).and_then(|()| check_carried(step)))
    }

    /// Whether it is within the limits once its values are stored apart, all of them if need be: what this refuses need
    /// not be begun.
    ///
    /// # Errors
    /// As [`Transaction::check`].
    pub fn check_apart(&self) -> Result<()> {
        let values: usize = self.steps.iter().map(value_len).sum();
        self.check_len(self.weight() - values)?;
        self.steps.iter().try_for_each(check_step)
    }

    fn check_len(&self, bytes: usize) -> Result<()> {
        let n = self.guards.len() + self.steps.len();
        if n > TRANSACTION_STEPS_MAX || bytes > TRANSACTION_BYTES_MAX {
            return Err(Error::too_large(format!(
                "a transaction of `{n}` guards and steps, `{bytes}` bytes: at most {TRANSACTION_STEPS_MAX} of \
                 {TRANSACTION_BYTES_MAX} bytes together; store large values first and name them by their hash"
            )));
        }
        Ok(())
    }

    /// The same with every name and small value in an allocation of its own, for whoever keeps it long.
    #[must_use]
    pub fn compact(self) -> Self {
        let guards = self.guards.into_iter();
        let guards = guards.map(|guard| Guard { name: guard.name.compact(), bind_rev: guard.bind_rev });
        let steps = self.steps.into_iter().map(Step::compact).collect();
        Self { guards: guards.collect(), steps, whole: self.whole }
    }
}

/// The bytes of the value that a SET carries, and could name instead.
fn value_len(step: &Step) -> usize {
    match step {
        Step::Set { value: Payload { carried: Some(blob), .. }, .. } => blob.bytes().len(),
        _ => 0,
    }
}

/// Whether the value that a step carries is small enough for that.
fn check_carried(step: &Step) -> Result<()> {
    let len = value_len(step);
    if len > CARRIED_BYTES_MAX {
        return Err(Error::too_large(format!(
            "a SET of a transaction carries `{len}` bytes: store a value of more than {CARRIED_BYTES_MAX} bytes first, \
             and name it by its hash"
        )));
    }
    Ok(())
}

fn check_step(step: &Step) -> Result<()> {
    match step {
        Step::Set { value: Payload { hash, size, carried: Some(blob), .. }, .. }
            if (blob.id(), blob.size()) != (*hash, *size) =>
        {
            return Err(Error::invalid("a SET carries another blob than it names: report this"));
        }
        Step::Expire { expiry: Expiry::Keep, .. } => {
            return Err(Error::invalid("an EXPIRE that keeps the time to live does nothing: leave it out"));
        }
        Step::Append { bytes, .. } if bytes.len() > APPEND_BYTES_MAX => {
            return Err(Error::too_large(format!(
                "an APPEND of `{}` bytes: at most {APPEND_BYTES_MAX}, set the whole value instead",
                bytes.len()
            )));
        }
        _ => {}
    }
    match step.expiry() {
        Some(Expiry::In(ttl)) => check_ttl(ttl),
        _ => Ok(()),
    }
}

/// Whether a name may live for so long.
///
/// # Errors
/// `Invalid` for less than a millisecond, or more than [`TTL_MAX`].
pub fn check_ttl(ttl: Duration) -> Result<()> {
    if ttl < Duration::from_millis(1) || ttl > TTL_MAX {
        return Err(Error::invalid(format!(
            "a time to live of `{ttl:?}`: use 1 ms to {} days",
            TTL_MAX.as_secs() / 86_400
        )));
    }
    Ok(())
}

/// What became of a [`Transaction`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TransactionOutcome {
    /// What was decided.
    pub decision: Decision,
    /// The revision of the change; if nothing was changed, the one as of which the answers hold.
    pub revision: Revision,
    /// Journal time of the decision in milliseconds since 1970: what is left of an entry's time to live is
    /// `expires_at - at_ms`.
    pub at_ms: u64,
}

impl TransactionOutcome {
    /// Bytes of the content types of what it tells.
    pub fn type_len(&self) -> usize {
        match &self.decision {
            Decision::Done(steps) => steps.iter().map(StepOutcome::type_len).sum(),
            Decision::Refused(_, step) => step.type_len(),
            Decision::Aborted(_) | Decision::NeedBlobs(_) => 0,
        }
    }
}

/// What was decided of a [`Transaction`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision {
    /// The guards held. What became of each step, in order.
    Done(Vec<StepOutcome>),
    /// This guard, counted from 0, did not hold: nothing was done.
    Aborted(usize),
    /// Global does not hold the blobs that these steps, counted from 0, name; nothing was done. Store them, then
    /// ask again with the same id.
    NeedBlobs(Vec<usize>),
    /// The transaction was whole, and this step, counted from 0, was refused: nothing was done. What would have become
    /// of it after those before it.
    Refused(usize, StepOutcome),
}

/// What became of a [`Step`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StepOutcome {
    /// Whether it was done, or why not.
    pub result: StepResult,
    /// What the name, of a `Copy` or `Rename` the name `to`, was bound to before the step.
    pub old: Option<Entry>,
    /// What it is bound to after the step.
    pub entry: Option<Entry>,
    /// Of an `Add` that was done: the sum.
    pub number: Option<i64>,
}

impl StepOutcome {
    /// Bytes of the content types of what it tells.
    pub fn type_len(&self) -> usize {
        self.old.iter().chain(&self.entry).map(Entry::type_len).sum()
    }
}

/// Whether a [`Step`] was done.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StepResult {
    /// It was done.
    Done,
    /// All was so already: nothing was written.
    Unchanged,
    /// Its `when`, `replace` or `only_absent` did not allow it.
    NotMet,
    /// The name is bound to another blob, and its namespace is write-once.
    Occupied,
    /// The name, of a `Copy` or `Rename` the name `from`, is not bound.
    NotFound,
    /// The value is not the decimal text of a whole number of 64 bits.
    NotInteger,
    /// The sum does not fit 64 bits.
    OutOfRange,
    /// The value would be, or is, longer than may be appended to.
    TooLarge,
    /// It would change a value in place, and the namespace is write-once.
    WriteOnce,
    /// The value that it would change in place is damaged at Global: set the whole value again.
    Damaged,
}

impl StepResult {
    /// Every result, in the order of its number on wire and disk, which begins with 1.
    pub const ALL: [Self; 10] = [
        Self::Done,
        Self::Unchanged,
        Self::NotMet,
        Self::Occupied,
        Self::NotFound,
        Self::NotInteger,
        Self::OutOfRange,
        Self::TooLarge,
        Self::WriteOnce,
        Self::Damaged,
    ];

    /// Its number on wire and disk.
    pub fn number(self) -> u8 {
        let place = Self::ALL.iter().position(|one| *one == self);
        place.map_or(0, |place| place as u8 + 1)
    }

    /// The result of a number, if there is one.
    pub fn of_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).checked_sub(1)?).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    fn name(key: &str) -> Name {
        Name::of(key.to_owned()).expect("valid")
    }

    fn set(bytes: usize) -> Step {
        let value = Payload::carrying(Blob::hash(vec![0; bytes]));
        Step::Set { name: name("k"), value, when: When::Always, expiry: Expiry::Clear }
    }

    #[test]
    fn every_result_has_a_number_of_its_own() {
        for result in StepResult::ALL {
            assert_eq!(StepResult::of_number(result.number()), Some(result));
        }
        assert_eq!(StepResult::of_number(0), None);
        assert_eq!(StepResult::of_number(StepResult::ALL.len() as u8 + 1), None);
    }

    #[test]
    fn a_transaction_over_its_limits_is_refused() {
        let of = |steps: Vec<Step>| Transaction::steps(steps).check().map_err(|e| e.kind());
        assert_eq!(of(vec![set(CARRIED_BYTES_MAX)]), Ok(()));
        assert_eq!(of(vec![set(CARRIED_BYTES_MAX + 1)]), Err(Kind::TooLarge));
        assert_eq!(of(vec![set(CARRIED_BYTES_MAX); 9]), Err(Kind::TooLarge), "together too many bytes");
        let get = Step::Get { name: name("k") };
        assert_eq!(of(vec![get.clone(); TRANSACTION_STEPS_MAX]), Ok(()));
        assert_eq!(of(vec![get; TRANSACTION_STEPS_MAX + 1]), Err(Kind::TooLarge));
    }

    #[test]
    fn what_would_be_over_the_limits_with_all_values_stored_apart_is_known_before() {
        let of = |transaction: Transaction| transaction.check_apart().map_err(|e| e.kind());
        assert_eq!(of(Transaction::steps(vec![set(CARRIED_BYTES_MAX + 1); 20])), Ok(()));
        let long = Name::of("k".repeat(1024)).expect("valid");
        let guard = Guard { name: long.clone(), bind_rev: None };
        let guards = |n| vec![guard.clone(); n];
        assert_eq!(of(Transaction::guarded(guards(400), vec![set(1 << 20)])), Ok(()));
        let names_alone = TRANSACTION_BYTES_MAX / 1024;
        assert_eq!(of(Transaction::guarded(guards(names_alone), vec![set(1)])), Err(Kind::TooLarge));
        let append = Step::Append { name: long, bytes: vec![0; TRANSACTION_BYTES_MAX].into() };
        assert_eq!(of(Transaction::of(append)), Err(Kind::TooLarge), "an APPEND has to carry its bytes");
        let never = Step::Expire { name: name("k"), expiry: Expiry::Keep, when: ExpireWhen::Always };
        assert_eq!(of(Transaction::steps(vec![set(1 << 20), never])), Err(Kind::Invalid));
    }

    #[test]
    fn a_time_to_live_has_bounds() {
        let of = |expiry| {
            let step = Step::Expire { name: name("k"), expiry, when: ExpireWhen::Always };
            Transaction::of(step).check().is_ok()
        };
        assert!(of(Expiry::In(Duration::from_millis(1))) && of(Expiry::In(TTL_MAX)) && of(Expiry::At(0)));
        assert!(!of(Expiry::In(Duration::ZERO)) && !of(Expiry::In(TTL_MAX + Duration::from_millis(1))));
        assert!(!of(Expiry::Keep));
    }

    #[test]
    fn a_blob_that_is_not_the_one_named_is_refused() {
        let mut value = Payload::carrying(Blob::hash("a"));
        value.hash = Blob::hash("b").id();
        let step = Step::Set { name: name("k"), value, when: When::Always, expiry: Expiry::Clear };
        assert_eq!(Transaction::of(step).check().expect_err("another").kind(), Kind::Invalid);
    }
}
