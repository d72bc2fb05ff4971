//! The messages between a Local and Global: the frames of the session stream and the batched requests.
//!
//! These are the inputs and outputs of the two pure coherence machines; `dstore-proto` carries them as
//! protobuf. Rule numbers are those of docs/PROTOCOL.md.

use crate::{
    Blob, BlobHash, Born, Entry, Epoch, Error, FlightId, HistoryId, Incarnation, LocalId, Name, Outcome,
    Prefix, RegSeq, RequestId, Revision,
};
use std::time::Duration;

/// Local to Global, on the session stream.
#[derive(Clone, Debug)]
pub enum Up {
    /// Opens the session; the first frame of every stream.
    Hello(Hello),
    /// Asks for a renewal of the lease.
    Keep {
        /// The session.
        epoch: Epoch,
        /// Counts the KEEPs of this stream; the LEASE that answers it carries the same number.
        n: u64,
        /// Every INV up to this `seq` has been applied.
        acked: u64,
    },
    /// Every INV up to `seq` has been applied: names removed and flights poisoned (rule 13).
    Ack {
        /// The session.
        epoch: Epoch,
        /// The largest applied `seq`.
        seq: u64,
    },
    /// Lists names that the Local holds but may not serve until Global has registered them (rule 19).
    Summary {
        /// The session.
        epoch: Epoch,
        /// Counts the batches of this stream.
        batch: u64,
        /// The names.
        names: Vec<Listed>,
        /// No further batch of this round follows.
        last: bool,
    },
    /// The Local no longer holds these names (rule 20).
    Drop {
        /// The session.
        epoch: Epoch,
        /// Each name with the registration it had.
        names: Vec<(Name, RegSeq)>,
    },
    /// The Local has stopped serving names and leaves (rule 18).
    Bye {
        /// The session.
        epoch: Epoch,
    },
}

/// Who a Local is and what it knows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hello {
    /// The Local, over restarts.
    pub local_id: LocalId,
    /// This life of its process.
    pub incarnation: Incarnation,
    /// The session it had before, if any in this incarnation.
    pub last_epoch: Option<Epoch>,
    /// The history it knows.
    pub history: HistoryId,
    /// It has applied every change up to this revision.
    pub applied_rev: Revision,
    /// For people: host and process, at most 128 bytes.
    pub label: String,
    /// It keeps "not found" answers (rule 28).
    pub negatives: bool,
}

/// One name of a SUMMARY.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Listed {
    /// The name.
    pub name: Name,
    /// The binding that the Local holds.
    pub bind_rev: Revision,
    /// The registration it asks for.
    pub reg_seq: RegSeq,
}

/// What a session's beginning means for the names the Local holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Resumption {
    /// Every change after `applied_rev` follows as INVs: names stay as servable as they were.
    Resume,
    /// They do not: no name may be served until it was listed and registered (rule 31).
    Compacted,
    /// This is another history: drop all names (rule 31).
    NewHistory,
}

/// Global to Local, on the session stream.
#[derive(Clone, Debug)]
pub enum Down {
    /// Answers HELLO.
    Welcome {
        /// The new session.
        epoch: Epoch,
        /// Global's newest visible revision.
        head: Revision,
        /// What it means for names held.
        resumption: Resumption,
        /// The lease length D now in force.
        lease: Duration,
        /// Global's clock.
        born: Born,
        /// The session is a wildcard until the Local has listed its names (rule 19). Names that stay servable are
        /// listed meanwhile.
        list: bool,
        /// A crash of Global may take the changes of its last so long; `None` = what it answers is durable.
        loss: Option<Duration>,
    },
    /// Remove the name if its binding is not newer than `upto`, and poison its flights (rule 10).
    Inv {
        /// The session.
        epoch: Epoch,
        /// Counts the INVs of this session, from 1.
        seq: u64,
        /// What is changing.
        name: Name,
        /// Bindings up to this revision are void.
        upto: Revision,
    },
    /// Stands for INVs that were not sent, because too many waited: every one before `seq`. No name may be served
    /// until it was listed and registered, as after COMPACTED; flights are poisoned like by an INV of each
    /// (rule 14).
    Resync {
        /// The session.
        epoch: Epoch,
        /// Its number among the INVs; those between the last one sent and it are left out.
        seq: u64,
        /// Bindings up to this revision may be void, of any name.
        upto: Revision,
    },
    /// As `Inv`, of every name under a prefix.
    InvPrefix {
        /// The session.
        epoch: Epoch,
        /// Counted with the INVs of single names.
        seq: u64,
        /// What is changing.
        prefix: Prefix,
        /// Bindings up to this revision are void.
        upto: Revision,
    },
    /// Extends the lease (rules 2 and 3).
    Lease {
        /// The session.
        epoch: Epoch,
        /// The KEEP that it answers; 0 answers HELLO.
        n: u64,
        /// The lease length D.
        lease: Duration,
        /// Every INV of a change up to this revision was sent before this frame.
        through: Revision,
        /// Global's clock.
        born: Born,
    },
    /// Answers one SUMMARY batch.
    Summarized {
        /// The session.
        epoch: Epoch,
        /// The batch.
        batch: u64,
        /// Positions, in that batch, of names that are not registered and must be dropped.
        refused: Vec<u32>,
    },
    /// Global is about to stop: serve no more names and answer BYE (rule 29).
    Retire {
        /// The session.
        epoch: Epoch,
    },
}

impl Down {
    /// The session the frame belongs to (rule 13).
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Welcome { epoch, .. }
            | Self::Inv { epoch, .. }
            | Self::Resync { epoch, .. }
            | Self::InvPrefix { epoch, .. }
            | Self::Lease { epoch, .. }
            | Self::Summarized { epoch, .. }
            | Self::Retire { epoch } => *epoch,
        }
    }
}

/// Local to Global, on a request stream.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names the request on its stream's connection; the reply carries it.
    pub flight: FlightId,
    /// The session the Local had when it sent this; default if none.
    pub epoch: Epoch,
    /// The registration asked for.
    pub reg_seq: RegSeq,
    /// What is asked.
    pub ask: Ask,
}

/// What a [`Request`] asks.
#[derive(Clone, Debug)]
pub enum Ask {
    /// What is `name` bound to?
    Resolve {
        /// The name.
        name: Name,
        /// A blob the Local holds already: its bytes need not travel.
        have: Option<BlobHash>,
        /// Whether the Local would cache the answer (register it as a holder).
        cache: bool,
        /// Whether small bytes may travel with the answer.
        carry: bool,
    },
    /// What is each of `names` bound to, all as of one revision?
    ResolveMany {
        /// The names, at least one. The registration asked for the first is the request's, for each further one it
        /// is one more.
        names: Vec<Name>,
        /// Whether the Local would cache the answers (register it as a holder).
        cache: bool,
        /// Whether small bytes may travel with the answers, as many as fit a batch.
        carry: bool,
    },
    /// Make a change.
    Change {
        /// Names the change, over all attempts.
        id: RequestId,
        /// The change. A SET asks to be cached with `reg_seq` if that is not 0 (rule 23).
        command: crate::Command,
    },
}

/// Global to Local, on a request stream.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request.
    pub flight: FlightId,
    /// What was found or done.
    pub answer: Answer,
    /// Global's clock, if it is worth telling.
    pub born: Born,
    /// Journal time of the answer in milliseconds since 1970, if it tells of a name with a time to live, which must be
    /// counted from the asking; else 0.
    pub journal_ms: u64,
}

/// What became of an [`Ask`].
#[derive(Clone, Debug)]
pub enum Answer {
    /// Of a Resolve.
    Resolved(Resolved),
    /// Of a `ResolveMany`: of each name, in order, all with one `head`.
    ResolvedMany(Vec<Resolved>),
    /// Of a Change.
    Changed {
        /// What it did.
        outcome: Outcome,
        /// The Local was registered as holder in the step that made a SET visible, in this epoch (rule 23).
        cacheable: Option<Epoch>,
        /// Of an asynchronous DEL: for so long others may still read the old value (rule 27). `None` = nobody can.
        stale: Option<Duration>,
    },
    /// It was not done.
    Failed(Error),
}

/// What a name is bound to.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The binding; `None` = the name is not bound.
    pub entry: Option<Entry>,
    /// The bytes, if they were asked for and are small.
    pub carried: Option<Blob>,
    /// The Local is registered as holder of the name, in this epoch, and may install the answer; also of an absent
    /// name, if it keeps such answers (rule 28).
    pub cacheable: Option<Epoch>,
    /// Global's newest visible revision at the read.
    pub head: Revision,
}
