//! Mistakes that a test can switch on, to see that they are noticed.
//!
//! A switch holds for its thread, so that tests beside it are not touched. Compiled only for tests.

use std::cell::Cell;

/// A mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mistake {
    /// Bytes are not compared with their hash.
    SkippedHash,
    /// A Local that resumes its session says that it has applied one revision more than it has.
    ResumeOffByOne,
    /// The guards of a transaction are not looked at.
    SkippedGuard,
    /// Of a transaction the last change is left out.
    HalfTransaction,
    /// Whoever holds a name that shall live less long is not told.
    UndrainedExpiry,
    /// A Local serves a name for as long as its lease, whatever it has to live.
    LateExpiry,
    /// A Local says that it has dropped what was invalidated, and goes on serving it.
    KeepsInvalidated,
}

thread_local! {
    static MADE: Cell<Option<Mistake>> = const { Cell::new(None) };
}

/// Makes a mistake on this thread from now on, or none.
pub fn make(mistake: Option<Mistake>) {
    MADE.set(mistake);
}

/// Whether a mistake is made on this thread.
pub fn is_made(mistake: Mistake) -> bool {
    MADE.get() == Some(mistake)
}
