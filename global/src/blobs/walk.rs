//! A slow walk over all files, to find blobs that nothing knows: a crash came between moving a file in and
//! journaling its name, or a stop between journaling a sweep and removing the file.
//!
//! Invariants: one directory's names are in memory at a time; between directories it rests.
//! Must never unlink: who decides may know more.

use super::layout::Layout;
use super::{Blobs, failed};
use dstore_shared::{BlobHash, Result};
use futures_util::stream::{self, Stream, StreamExt};
use std::sync::Arc;
use std::time::Duration;

/// What a walk met in one directory.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Walked {
    /// Blob files.
    pub files: u64,
    /// Their bytes, header and outline included.
    pub bytes: u64,
    /// Those that nothing knows and nobody has pinned.
    pub orphans: Vec<BlobHash>,
    /// Names that are no blob's. They are left alone.
    pub foreign: u64,
}

impl Blobs {
    /// Walks over all blobs that are there as it begins, directory by directory, resting for `pause` after each. `known` is asked on a
    /// thread that may block. An orphan may get a name after it was listed: sweep it by a journaled command,
    /// as any other.
    ///
    /// The stream's errors are `Unavailable`: a directory cannot be listed; the walk goes on with the next.
    ///
    /// # Cancel safety
    /// Dropping the stream ends the walk.
    pub fn walk(
        &self,
        known: impl Fn(&BlobHash) -> bool + Send + Sync + 'static,
        pause: Duration,
    ) -> impl Stream<Item = Result<Walked>> + Send + 'static {
        let (blobs, known, looked) = (self.clone(), Arc::new(known), self.clone());
        let present = async move {
            let blocking = looked.0.sys.blocking;
            blocking.run(move || looked.0.layout.present(&*looked.0.sys.disk)).await
        };
        let dirs = stream::once(present).map(|found| match found {
            Ok(dirs) => dirs.into_iter().map(Ok).collect(),
            Err(e) => vec![Err(failed("the blobs cannot be listed", e))],
        });
        dirs.flat_map(stream::iter).then(move |first| {
            let (blobs, known) = (blobs.clone(), known.clone());
            async move {
                let (first, blocking) = (first?, blobs.0.sys.blocking);
                let walked = blocking.run(move || blobs.walk_dir(first, &*known)).await;
                if walked.as_ref().is_ok_and(|w| *w != Walked::default()) {
                    tokio::time::sleep(pause).await;
                }
                walked
            }
        })
    }

    fn walk_dir(&self, first: u8, known: &dyn Fn(&BlobHash) -> bool) -> Result<Walked> {
        let listed = match self.0.sys.disk.list(&self.0.layout.dir(first)) {
            Ok(listed) => listed,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Walked::default()),
            Err(e) => return Err(failed("a directory of blobs could not be listed", e)),
        };
        let mut walked = Walked::default();
        for file in listed {
            let Some(hash) = Layout::hash_of(first, &file.name) else {
                walked.foreign += 1;
                continue;
            };
            walked.files += 1;
            walked.bytes += file.len;
            // Pinned is asked before known: an upload is known before it is unpinned.
            if !self.0.pins.is_pinned(&hash) && !known(&hash) {
                walked.orphans.push(hash);
            }
        }
        Ok(walked)
    }
}
