//! What engines with a folder of their own share: opening it, removing it whole, and reading what the index says of itself.

use crate::sealed::failed;
use dstore_shared::{Error, Result};
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

const HELD_TRIES: u32 = 50;
const HELD_PAUSE: Duration = Duration::from_millis(10);

/// Opens an index. Engines assert what they find in their files; a damaged index must not end the process.
pub(super) fn open<E>(dir: &Path, open: impl FnOnce() -> Result<E>) -> Result<E> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        let dir = dir.display();
        Err(Error::corrupt(format!("the index in `{dir}` is damaged: it is rebuilt if the journal allows")))
    })
}

/// Opens what another process may hold for a moment still: one that was killed until it is gone, one that starts a
/// child until that runs. Tried for half a second.
pub(super) fn once_free<T, E>(open: impl Fn() -> Result<T, E>, is_held: impl Fn(&E) -> bool) -> Result<T, E> {
    for _ in 0..HELD_TRIES {
        match open() {
            Err(e) if is_held(&e) => std::thread::sleep(HELD_PAUSE),
            opened => return opened,
        }
    }
    open()
}

/// Removes the folder `name` of `dir`. It is renamed first, so that a crash leaves none of it or all of it.
pub(super) fn discard(dir: &Path, name: &str) -> Result<()> {
    finish_discard(dir, name)?;
    let (folder, gone) = (dir.join(name), dir.join(format!("{name}.gone")));
    match std::fs::metadata(&folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(failed("look at", &folder, e)),
        Ok(_) => {}
    }
    rename(&folder, &gone)?;
    finish_discard(dir, name)
}

/// Removes what a crash left of a [`discard`].
pub(super) fn finish_discard(dir: &Path, name: &str) -> Result<()> {
    let gone = dir.join(format!("{name}.gone"));
    match std::fs::remove_dir_all(&gone) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done.map_err(|e| failed("remove", &gone, e)),
    }
}

#[expect(clippy::disallowed_methods, reason = "an engine's own folder does not go through the disk seam")]
fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(|e| failed("rename", from, e))
}

/// Refuses an index of a newer format.
pub(super) fn check_format(found: &[u8], now: u32) -> Result<()> {
    let found = u32::from_le_bytes(fixed(found)?);
    if found > now {
        return Err(Error::invalid(format!(
            "the index has format `{found}`, this dstore knows `{now}`: use the newer dstore"
        )));
    }
    Ok(())
}

/// Bytes of a number.
pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| {
        Error::corrupt("the index says nonsense of itself: restore the data directory from a backup")
    })
}

/// The error of a system that refused something, which says nothing of what is stored.
pub(super) fn refused(io: &io::Error, e: &dyn fmt::Display) -> Error {
    if matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
        return Error::exhausted(format!("the index cannot be written, {e}: free some space on its disk"));
    }
    Error::unavailable(format!("the index cannot be read or written, {e}: check disk and limits"))
}

/// Whether an error of the system tells of damage: a file that is missing or too short. Any other says nothing
/// of what is stored.
pub(super) fn is_damage(e: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidData, InvalidInput, NotFound, UnexpectedEof};
    // A folder that lacks some of its files is made anew over the others; in a file that is shorter than its trailer one
    // is looked for before the beginning.
    matches!(e.kind(), NotFound | AlreadyExists | UnexpectedEof | InvalidData | InvalidInput)
}
