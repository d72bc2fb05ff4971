//! What a tier offers to whoever uses it: the seam that Global, a Local and the client all implement.
//!
//! Global answers from its journal and index, a Local from its cache or by asking Global, the client by
//! asking either over gRPC.

mod many;
mod standing;
mod transaction;

pub use many::{check_bytes, check_exists, check_names, check_sets};
pub use standing::{Attached, Drained, Hop, LOCALS_TOLD_MAX, Locals, Peek, Why};
pub use transaction::fitting;

use crate::watch::{WatchQuery, Watching};
use bytes::Bytes;
use dstore_shared::{
    Attributes, Blob, BlobHash, Born, CopyOutcome, DeleteMode, Entry, Error, Key, Name, Namespace,
    NamespaceInfo, NamespaceOutcome, NamespaceSpec, Prefix, PrefixOutcome, RequestId, Result, Revision,
    SetOutcome, Transaction, TransactionOutcome,
};
use futures_util::stream::{self, Stream, StreamExt};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

/// Which tier knew the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Tier {
    /// The node, under its lease.
    Local,
    /// The authority.
    Global,
}

/// Where an answer came from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Provenance {
    /// Which tier knew the answer. For an occupied SET, `Local` says that the node held the name, under its
    /// lease, when the command came (Global was asked all the same).
    pub tier: Tier,
    /// The node holds the name now.
    pub cached: bool,
    /// The revision as of which the answer holds.
    pub revision: Revision,
    /// Only if a stale answer was asked for: the answer may have been wrong for so long. `None` = it is right.
    pub stale_for: Option<Duration>,
    /// Only at `--sync relaxed`: a crash of Global may take the changes of its last so long, and the answer may tell of
    /// them. `None` = what it tells is durable.
    pub loss: Option<Duration>,
    /// Journal time of the answer in milliseconds since 1970, if it tells of a name with a time to live: what is left of
    /// that is `expires_at` less this.
    pub journal_ms: Option<u64>,
    /// How long the node waited for Global to give this answer; `None`: it did not ask, or does not say.
    pub asked_for: Option<Duration>,
}

impl Provenance {
    /// Of an answer that is right.
    pub const fn new(tier: Tier, cached: bool, revision: Revision) -> Self {
        Self { tier, cached, revision, stale_for: None, loss: None, journal_ms: None, asked_for: None }
    }

    /// The same, as of journal time `at_ms`.
    #[must_use]
    pub const fn timed(mut self, at_ms: u64) -> Self {
        self.journal_ms = Some(at_ms);
        self
    }
}

/// How long a read that takes an old value too waits for Global first, unless it says otherwise: well over a
/// round trip, well under what a person or a request that must be served waits.
pub const STALE_WAIT: Duration = Duration::from_millis(500);

/// A part of a blob.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Slice {
    /// The first byte.
    pub offset: u64,
    /// How many bytes; `None` = to the end. A slice past the end is cut.
    pub len: Option<u64>,
}

impl Slice {
    /// The whole blob.
    pub const ALL: Self = Self { offset: 0, len: None };

    /// The bytes that this selects of a blob of `size` bytes.
    ///
    /// # Errors
    /// `Invalid` if it begins past the end.
    pub fn within(self, size: u64) -> Result<std::ops::Range<u64>> {
        if self.offset > size {
            let offset = self.offset;
            return Err(Error::invalid(format!(
                "offset `{offset}` is past the end: the blob has `{size}` bytes"
            )));
        }
        let len = self.len.unwrap_or(u64::MAX).min(size - self.offset);
        Ok(self.offset..self.offset + len)
    }
}

/// What to read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// The blob that a name is bound to.
    Name(Name),
    /// The blob with a hash, named or not.
    Hash(BlobHash),
}

/// The bytes of a blob or of a slice of it, every one verified before it is passed on.
pub enum Body {
    /// All at once: a whole blob.
    Blob(Blob),
    /// All at once: a slice of a verified blob.
    Bytes(Bytes),
    /// In order, in pieces of at most [`CHUNK_BYTES`](dstore_shared::limits::CHUNK_BYTES). An error ends the
    /// stream; a stream that ends early has one. Dropping it stops the transfer.
    Stream(BodyStream),
}

/// A stream of pieces.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

impl Body {
    /// The pieces, whatever the form.
    pub fn into_stream(self) -> BodyStream {
        match self {
            Self::Blob(blob) => pieces(blob.bytes().clone()),
            Self::Bytes(bytes) => pieces(bytes),
            Self::Stream(stream) => stream,
        }
    }

    /// Gathers the bytes.
    ///
    /// # Errors
    /// `TooLarge` beyond `max` bytes; whatever ended the stream.
    pub async fn collect(self, max: u64) -> Result<Bytes> {
        let over = || Error::too_large(format!("the value has more than `{max}` bytes: read it as a stream"));
        let mut stream = match self {
            Self::Blob(blob) if blob.size() <= max => return Ok(blob.bytes().clone()),
            Self::Bytes(bytes) if bytes.len() as u64 <= max => return Ok(bytes),
            Self::Stream(stream) => stream,
            _ => return Err(over()),
        };
        let mut all = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            if (all.len() + piece.len()) as u64 > max {
                return Err(over());
            }
            all.extend_from_slice(&piece);
        }
        Ok(all.into())
    }
}

fn pieces(bytes: Bytes) -> BodyStream {
    let chunk = dstore_shared::limits::CHUNK_BYTES;
    let starts = (0..bytes.len()).step_by(chunk);
    Box::pin(stream::iter(starts.map(move |at| Ok(bytes.slice(at..bytes.len().min(at + chunk))))))
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(blob) => blob.fmt(f),
            Self::Bytes(bytes) => write!(f, "Bytes({} B)", bytes.len()),
            Self::Stream(_) => f.write_str("Stream"),
        }
    }
}

/// A blob that was found.
#[derive(Debug)]
pub struct Found {
    /// Hash and size of the whole blob; `bind_rev` of its name, 0 if it was asked for by hash.
    pub entry: Entry,
    /// Where the answer came from.
    pub from: Provenance,
    /// The bytes asked for.
    pub body: Body,
}

/// What is known of a name or blob without its bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stat {
    /// Hash and size of the blob; `bind_rev` of the name, 0 if it was asked for by hash.
    pub entry: Entry,
    /// Where the answer came from.
    pub from: Provenance,
}

impl Stat {
    /// How long the name had to live at the answer; `None` = for ever.
    pub fn left(&self) -> Option<Duration> {
        self.entry.left(self.from.journal_ms.unwrap_or_default())
    }
}

/// The values of several names, all bound so at one moment.
#[derive(Debug)]
pub struct FoundMany {
    /// Of each name, in the order of the call; `None` = it is not bound. Each body is whole.
    pub found: Vec<Option<Found>>,
    /// The revision as of which all of it holds.
    pub revision: Revision,
}

/// What is known of several names without their bytes, all at one moment.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatMany {
    /// Of each name, in the order of the call; `None` = it is not bound.
    pub stats: Vec<Option<Stat>>,
    /// The revision as of which all of it holds.
    pub revision: Revision,
}

/// One value of a [`Store::set_many`].
#[derive(Clone, Debug)]
pub struct SetOne {
    /// Names this change, over all its attempts.
    pub id: RequestId,
    /// The name to bind.
    pub name: Name,
    /// The value.
    pub value: Blob,
    /// What is said besides.
    pub attributes: Attributes,
}

/// Which names to list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ListQuery {
    /// In which namespace.
    pub namespace: Namespace,
    /// What their keys begin with, 0 to 1,024 bytes.
    pub prefix: Bytes,
    /// Only keys after this one.
    pub after: Option<Key>,
    /// At most so many; never more than [`LIST_NAMES_MAX`](dstore_shared::limits::LIST_NAMES_MAX).
    pub limit: usize,
}

/// A page of a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listing {
    /// Keys in byte order, and what they are bound to. Fewer than asked for does not mean that these were the
    /// last.
    pub names: Vec<(Key, Entry)>,
    /// Go on after this key; `None` = these were the last.
    pub next: Option<Key>,
    /// Where the answer came from; all of the page holds as of its revision.
    pub from: Provenance,
}

/// What became of a SET, and where it was decided.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetReply {
    /// What became of it; `NeedBlob` only of a [`Store::bind`].
    pub outcome: SetOutcome,
    /// Where it was decided.
    pub from: Provenance,
}

/// What became of a DEL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeleteReply {
    /// For each name, whether it was bound.
    pub removed: Vec<bool>,
    /// The revision at which they were unbound.
    pub revision: Revision,
    /// Of an asynchronous DEL: for so long others may still read the old values. `None` = nobody can.
    pub stale: Option<Duration>,
}

/// How a tier is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Status {
    /// Which tier answers.
    pub tier: Tier,
    /// Its version, as in `0.1.0`.
    pub version: String,
    /// Whether it serves: at a Local, whether its lease is valid.
    pub serving: bool,
    /// The newest of Global's clock that it has seen; a client stamps its requests with it. `None` = none yet.
    pub born: Option<Born>,
    /// The newest revision it knows.
    pub revision: Revision,
    /// The lease length in force.
    pub lease: Duration,
    /// Further facts for people, as `name` and `value`, in a stable order.
    pub facts: Vec<(String, String)>,
}

/// What a tier offers. Every call ends by the deadline that the caller sets around it (dropping the future);
/// a change whose caller went away goes on and its outcome is kept under its id.
pub trait Store: Send + Sync + 'static {
    /// Reads a blob or a slice of it. `Ok(None)`: no such name or blob.
    ///
    /// # Errors
    /// `Unavailable` when Global is needed and away, `Corrupt` when the bytes do not match their hash,
    /// `Invalid` for a slice past the end.
    fn get(&self, target: Target, slice: Slice) -> impl Future<Output = Result<Option<Found>>> + Send;

    /// Stores a blob and, if `name` is given, binds it, unless the name is bound to another.
    /// Without `name` the blob is kept for a grace only (one hour), `Stored` has `bind_rev` 0, and `id` is not
    /// looked at: to store a blob twice is to store it once.
    ///
    /// An id that is made before a long `body` is old at its end: store without a name, then [`Store::bind`].
    ///
    /// # Errors
    /// `TooLarge`, `Exhausted`, `Unavailable` (the message says if the outcome is unknown), `Closed` if the
    /// id is too old. An occupied name is an outcome, not an error.
    fn set(
        &self,
        id: RequestId,
        name: Option<Name>,
        body: Body,
    ) -> impl Future<Output = Result<SetReply>> + Send;

    /// Binds `name` to a blob of `size` bytes that was stored before, unless the name is bound to another.
    /// The outcome is `NeedBlob` if it is not there, or damaged: then nothing was changed.
    ///
    /// # Errors
    /// `Unavailable` (the message says if the outcome is unknown), `Closed` if the id is too old, `Invalid` if
    /// the blob has another size. An occupied name is an outcome, not an error.
    fn bind(
        &self,
        id: RequestId,
        name: Name,
        hash: BlobHash,
        size: u64,
    ) -> impl Future<Output = Result<SetReply>> + Send;

    /// As [`Store::set`], and says of what type the value is and how long the name lives. Without a name nothing is
    /// kept of that.
    ///
    /// A write-once name that is bound to the same bytes keeps the type that it has; with a time to live it is given
    /// that, counted anew. In a replace namespace the name is bound with what is said, and nothing else.
    ///
    /// # Errors
    /// As [`Store::set`]; `Invalid` for a time to live that no name may have.
    fn set_as(
        &self,
        id: RequestId,
        name: Option<Name>,
        body: Body,
        attributes: Attributes,
    ) -> impl Future<Output = Result<SetReply>> + Send {
        async move {
            if name.is_some() && !attributes.is_default() {
                return Err(knows_none("content types, nor times to live in a SET"));
            }
            self.set(id, name, body).await
        }
    }

    /// As [`Store::bind`], with what [`Store::set_as`] says. `blob`: its hash and size.
    ///
    /// # Errors
    /// As [`Store::bind`]; `Invalid` for a time to live that no name may have.
    fn bind_as(
        &self,
        id: RequestId,
        name: Name,
        (hash, size): (BlobHash, u64),
        attributes: Attributes,
    ) -> impl Future<Output = Result<SetReply>> + Send {
        async move {
            if !attributes.is_default() {
                return Err(knows_none("content types, nor times to live in a SET"));
            }
            self.bind(id, name, hash, size).await
        }
    }

    /// Reads the values of `names` as they were bound at one moment: nobody sees half of a change of several names.
    /// No name: nothing.
    ///
    /// # Errors
    /// As [`Store::get`]; `TooLarge` for more than
    /// [`GET_MANY_NAMES_MAX`](dstore_shared::limits::GET_MANY_NAMES_MAX) names, or
    /// [`GET_MANY_BYTES_MAX`](dstore_shared::limits::GET_MANY_BYTES_MAX) bytes of values together. A body that fails
    /// later ends with an error.
    fn get_many(&self, names: Vec<Name>) -> impl Future<Output = Result<FoundMany>> + Send;

    /// Stores values under their names, each by itself: some may be done and others not, and all may be seen at
    /// different moments. Gives what became of each, in the order of the call. No value: nothing.
    ///
    /// # Errors
    /// Of one value: as [`Store::set`]. Of the whole call, and then nothing was done: `TooLarge` for more than
    /// [`SET_MANY_NAMES_MAX`](dstore_shared::limits::SET_MANY_NAMES_MAX) values or
    /// [`SET_MANY_BYTES_MAX`](dstore_shared::limits::SET_MANY_BYTES_MAX) bytes of names and values; over gRPC also
    /// `Unavailable`, then the outcome of each is unknown.
    fn set_many(&self, sets: Vec<SetOne>) -> impl Future<Output = Result<Vec<Result<SetReply>>>> + Send;

    /// Binds `to` to the blob that `from` is bound to, unless `to` is bound to another. No bytes move.
    ///
    /// # Errors
    /// `Unavailable` (the message says if the outcome is unknown), `Closed` if the id is too old. A name that is
    /// occupied, or not there, is an outcome, not an error.
    fn copy(&self, id: RequestId, from: Name, to: Name) -> impl Future<Output = Result<CopyOutcome>> + Send;

    /// As [`Store::copy`], and unbinds `from` in the same step: at no moment is the blob seen under both names or
    /// under neither. When it returns, no GET of `from` anywhere returns it.
    ///
    /// # Errors
    /// As [`Store::copy`].
    fn rename(&self, id: RequestId, from: Name, to: Name)
    -> impl Future<Output = Result<CopyOutcome>> + Send;

    /// Unbinds names atomically; when it returns, no GET anywhere returns what they were bound to.
    ///
    /// # Errors
    /// `Invalid` for no name, `TooLarge` for too many, `Unavailable`, `Closed` as for `set`.
    fn delete(&self, id: RequestId, names: Vec<Name>) -> impl Future<Output = Result<DeleteReply>> + Send;

    /// Unbinds all names under a prefix atomically; when it returns, no GET anywhere returns what they were bound to.
    /// It waits for every Local there is, whatever it holds.
    ///
    /// # Errors
    /// `TooLarge` if there are more than 100,000 names, or 16 MiB of keys: then list and delete, in several steps.
    /// `Unavailable`, `Closed` as for `set`.
    fn delete_prefix(
        &self,
        id: RequestId,
        prefix: Prefix,
    ) -> impl Future<Output = Result<PrefixOutcome>> + Send;
    /// As [`Store::delete`], answered when `mode` says. A tier that knows no modes deletes strictly, which is no
    /// less.
    ///
    /// # Errors
    /// As [`Store::delete`]; `Pending` once the deadline of its mode has passed: the change goes on and is not
    /// durable yet, ask again under the same id. `Invalid` for too long a deadline.
    fn delete_in(
        &self,
        id: RequestId,
        names: Vec<Name>,
        _mode: DeleteMode,
    ) -> impl Future<Output = Result<DeleteReply>> + Send {
        self.delete(id, names)
    }

    /// Decides several reads and changes together, at one revision: all of them, or none if a guard fails. When it
    /// returns, no GET anywhere returns what they changed.
    ///
    /// Values of more than [`CARRIED_BYTES_MAX`](dstore_shared::limits::CARRIED_BYTES_MAX) bytes are to be stored
    /// before, by [`Store::set`] without a name, and named by their hash; a step that names a blob which is not there
    /// makes the outcome [`NeedBlobs`](dstore_shared::Decision::NeedBlobs).
    ///
    /// # Errors
    /// `TooLarge` beyond the limits of [`Transaction::check`], `Invalid` for a step that makes no sense, `Unavailable`
    /// (the message says if the outcome is unknown), `Closed` if the id is too old. A guard or step that does not hold
    /// is an outcome, not an error.
    fn apply(
        &self,
        _id: RequestId,
        _transaction: Transaction,
    ) -> impl Future<Output = Result<TransactionOutcome>> + Send {
        async { Err(knows_none("transactions")) }
    }

    /// The namespaces that were created, and `default`, in the order of their names.
    ///
    /// # Errors
    /// `Unavailable` when Global is needed and away.
    fn namespaces(&self) -> impl Future<Output = Result<Vec<NamespaceInfo>>> + Send {
        async { Err(knows_none("namespaces")) }
    }

    /// Creates a namespace. One that nobody created can be used all the same: it is write-once, and names in it live
    /// for ever. What allows names to be bound anew is created only where there are no names.
    ///
    /// # Errors
    /// `Invalid` for `default`, which is as it is, and for a time to live that no name may have; `Exhausted` if there
    /// are as many as there may be; `Unavailable`, `Closed` as for `set`.
    fn create_namespace(
        &self,
        _id: RequestId,
        _namespace: Namespace,
        _spec: NamespaceSpec,
    ) -> impl Future<Output = Result<NamespaceOutcome>> + Send {
        async { Err(knows_none("namespaces")) }
    }

    /// Forgets that a namespace was created. Only of one without names: delete them first.
    ///
    /// # Errors
    /// As [`Store::create_namespace`].
    fn drop_namespace(
        &self,
        _id: RequestId,
        _namespace: Namespace,
    ) -> impl Future<Output = Result<NamespaceOutcome>> + Send {
        async { Err(knows_none("namespaces")) }
    }

    /// As [`Store::get`]; but if the tier has no lease and Global does not answer within `wait`, the value that it
    /// held last will do: such an answer has `stale_for`. A tier that is never stale answers as by `get`.
    ///
    /// # Errors
    /// As [`Store::get`]; `Unavailable` also where nothing old is held that is not known to be deleted.
    fn get_stale(
        &self,
        target: Target,
        slice: Slice,
        _wait: Duration,
    ) -> impl Future<Output = Result<Option<Found>>> + Send {
        self.get(target, slice)
    }

    /// As [`Store::stat`], with the leave of [`Store::get_stale`].
    ///
    /// # Errors
    /// As [`Store::get_stale`].
    fn stat_stale(
        &self,
        target: Target,
        _wait: Duration,
    ) -> impl Future<Output = Result<Option<Stat>>> + Send {
        self.stat(target)
    }

    /// What a name is bound to, or whether a blob is there, without its bytes.
    ///
    /// # Errors
    /// `Unavailable` when Global is needed and away.
    fn stat(&self, target: Target) -> impl Future<Output = Result<Option<Stat>>> + Send;

    /// What each of `names` is bound to, all at one moment. No name: nothing.
    ///
    /// # Errors
    /// As [`Store::stat`]; `TooLarge` for more than
    /// [`GET_MANY_NAMES_MAX`](dstore_shared::limits::GET_MANY_NAMES_MAX) names.
    fn stat_many(&self, names: Vec<Name>) -> impl Future<Output = Result<StatMany>> + Send;

    /// Whether each of `names` is bound, all at one moment. No name: nothing.
    ///
    /// # Errors
    /// As [`Store::stat`]; `TooLarge` for more names than a DEL may have.
    fn exists(&self, names: Vec<Name>) -> impl Future<Output = Result<Vec<bool>>> + Send;

    /// Names in byte order, a page at a time, each as of one revision. A name that is bound during all of a
    /// walk over the pages is on exactly one of them.
    ///
    /// # Errors
    /// `Unavailable` when Global is needed and away.
    fn list(&self, query: ListQuery) -> impl Future<Output = Result<Listing>> + Send;

    /// What becomes of names from a revision on: ordered, without a gap, nothing twice. [`crate::watch`] says more.
    ///
    /// # Errors
    /// `TooOld` if changes after the revision asked for are forgotten, or it is not reached here, or of another
    /// history: list, then watch after the list's revision. `Exhausted` if there are as many watches as there may be,
    /// `Unavailable` when Global is needed and away. They may also end the stream.
    ///
    /// # Cancel safety
    /// A watch that is dropped has done nothing; another one after the last `through` misses nothing.
    fn watch(&self, query: WatchQuery) -> impl Future<Output = Result<Watching>> + Send;

    /// As of the newest answer: a crash of Global may take the changes of its last so long, because it runs with
    /// `--sync relaxed`. `None` = what is answered is durable, or nothing was answered yet.
    fn loss(&self) -> Option<Duration> {
        None
    }

    /// Which Locals are attached to Global, and which of them may hold `name`.
    ///
    /// # Errors
    /// `Unavailable` when Global is needed and away.
    fn locals(&self, _name: Option<Name>) -> impl Future<Output = Result<Locals>> + Send {
        async { Err(knows_none("lists of Locals")) }
    }

    /// How a read of `name` goes now: made for the sake of its times, changing nothing and keeping nothing.
    ///
    /// # Errors
    /// As [`Store::get`].
    fn why(&self, _name: Name) -> impl Future<Output = Result<Why>> + Send {
        async { Err(knows_none("explanations of a GET")) }
    }

    /// Forgets what is held of `names`, here and nowhere else; for each, whether anything was.
    ///
    /// # Errors
    /// `Invalid` where nothing is held that could be forgotten, as at Global.
    fn evict(&self, _names: Vec<Name>) -> impl Future<Output = Result<Vec<bool>>> + Send {
        async { Err(Error::invalid("only a Local keeps copies: ask one")) }
    }

    /// Keeps the values of `names` in memory as long as the tier runs, or, with `false`, lets them leave again; for each,
    /// whether it is so. Only of what is held: read it first.
    ///
    /// # Errors
    /// As [`Store::evict`].
    fn pin(&self, _names: Vec<Name>, _keep: bool) -> impl Future<Output = Result<Vec<bool>>> + Send {
        async { Err(Error::invalid("only a Local keeps copies: ask one")) }
    }

    /// What is known of `name` without asking anybody, at once.
    fn peek(&self, _name: &Name) -> Peek {
        Peek::Unknown
    }

    /// How the tier is.
    ///
    /// # Errors
    /// `Unavailable` when it cannot be reached.
    fn status(&self) -> impl Future<Output = Result<Status>> + Send;
}

fn knows_none(what: &str) -> Error {
    Error::invalid(format!("this tier knows no {what}: ask a newer dstore"))
}
