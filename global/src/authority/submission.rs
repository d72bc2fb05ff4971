//! What the sessions machine is told of a change: which names it wants, whom it waits for, when it is answered.

use super::Responder;
use crate::committer::Work;
use crate::sessions::{Caller, Submission};
use dstore_shared::limits::{DELETE_DEADLINE_MAX, DELETE_NAME_BYTES_MAX, DELETE_NAMES_MAX};
use dstore_shared::{Command, DeleteMode, Error, Name, Prefix, RequestId, Result};

/// Whether a change may be taken.
///
/// # Errors
/// `Invalid` or `TooLarge`.
pub(super) fn check(command: &Command) -> Result<()> {
    match command {
        Command::Delete { names, mode } => {
            check_mode(*mode)?;
            let bytes: usize = names.iter().map(|name| name.as_bytes().len()).sum();
            if names.is_empty() {
                return Err(Error::invalid("a DEL names no key: name at least one"));
            }
            if names.len() > DELETE_NAMES_MAX || bytes > DELETE_NAME_BYTES_MAX {
                return Err(Error::too_large("too many keys for one DEL: delete in several steps"));
            }
        }
        Command::Set { hash, size, carried: Some(blob), .. } => {
            if (blob.id(), blob.size()) != (*hash, *size) {
                return Err(Error::invalid("a SET carries another blob than it names: report this"));
            }
        }
        Command::Set { .. }
        | Command::DeletePrefix { .. }
        | Command::Copy { .. }
        | Command::Rename { .. } => {}
    }
    Ok(())
}

/// What the machine is told of a change: the prefix or the names that it wants, and whom it waits for.
pub(super) fn of(
    id: RequestId,
    command: Command,
    caller: Option<Caller>,
    responder: Responder,
) -> (Option<Prefix>, Submission<Work, Responder>) {
    let (mut drains, mut spared, mut wanted, mut mode) = (false, None, None, DeleteMode::Strict);
    // What stays in memory must not keep the frame that it came in.
    let (names, job) = match command {
        Command::Set { name, hash, size, carried } => {
            let (name, carried) = (name.compact(), carried.map(|blob| blob.compact()));
            (vec![name.clone()], Work::Set { id, name, hash, size, carried })
        }
        Command::Delete { names, mode: asked } => {
            (drains, mode) = (true, asked);
            let names: Vec<Name> = names.iter().map(Name::compact).collect();
            (names.clone(), Work::Delete { id, names, asynchronous: asked == DeleteMode::Async })
        }
        Command::DeletePrefix { prefix } => {
            drains = true;
            wanted = Some(prefix.clone());
            (Vec::new(), Work::DeletePrefix { id, prefix })
        }
        Command::Copy { from, to } => {
            let (from, to) = (from.compact(), to.compact());
            spared = Some(to.clone());
            (vec![from.clone(), to.clone()], Work::Copy { id, from, to, unbinds: false })
        }
        Command::Rename { from, to } => {
            let (from, to) = (from.compact(), to.compact());
            (drains, spared) = (from != to, Some(to.clone()));
            (vec![from.clone(), to.clone()], Work::Copy { id, from, to, unbinds: true })
        }
    };
    let caller = caller.filter(|_| wanted.is_none());
    (wanted, Submission { id, names, drains, spared, mode, job, caller, responder })
}

fn check_mode(mode: DeleteMode) -> Result<()> {
    if mode.deadline().is_some_and(|limit| limit > DELETE_DEADLINE_MAX) {
        return Err(Error::invalid(format!(
            "a deadline of a DEL is at most {DELETE_DEADLINE_MAX:?}: ask again with the same id instead"
        )));
    }
    Ok(())
}
