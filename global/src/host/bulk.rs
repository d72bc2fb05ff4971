//! Blobs on their way to and from Global, and what becomes of damaged ones.
//!
//! Invariants: what is given out was verified, group by group or as a whole; what is damaged is marked in the journal
//! before anybody may take it for there.

use crate::authority::Authority;
use crate::blobs::{Failure, Held};
use crate::committer::Work;
use bytes::{Bytes, BytesMut};
use dstore_proto::link::Fetch;
use dstore_proto::store::{BodyStream, Slice};
use dstore_shared::limits::INLINE_BYTES_MAX;
use dstore_shared::{Blob, BlobHash, Error, GROUP_BYTES, Outline, OutlineBuilder, Result};
use futures_util::stream::StreamExt;
use std::pin::pin;
use std::sync::Arc;
use tokio::sync::oneshot;

impl Authority {
    /// Bytes of the index as a blob; damaged ones are marked.
    pub(super) fn verified(self: &Arc<Self>, bytes: Bytes, hash: BlobHash) -> Result<Blob> {
        Blob::verify(bytes, hash).inspect_err(|_| self.mark(hash, "its bytes have another hash"))
    }

    /// Has the journal remember that a blob is damaged.
    pub(crate) fn mark(self: &Arc<Self>, hash: BlobHash, why: &str) {
        tracing::error!(%hash, why, "a blob is damaged: set it again");
        let authority = self.clone();
        self.tasks.spawn("mark", async move {
            // If it cannot be journaled now, the next reader finds it again.
            let _ = authority.commit(Work::Mark { hash }).await;
        });
    }

    /// Takes a blob in: small ones into the index, large ones into a file. It is kept for the grace.
    pub(crate) async fn take_blob(
        self: &Arc<Self>,
        size: Option<u64>,
        mut body: BodyStream,
    ) -> Result<(BlobHash, u64)> {
        if let Some(e) = self.failed() {
            return Err(e);
        }
        // What it would be named by is refused already: better now than after the upload.
        self.event(|m, _| m.check_taking())?;
        let mut head = BytesMut::new();
        while head.len() <= INLINE_BYTES_MAX {
            if let Some(piece) = body.next().await {
                head.extend_from_slice(&piece?);
            } else {
                let blob = Blob::hash(head.freeze());
                let (hash, size) = (blob.id(), blob.size());
                self.commit(Work::Keep { hash, size, carried: Some(blob.compact()) }).await?;
                return Ok((hash, size));
            }
        }
        let mut staging = self.blobs.stage(size).await?;
        staging.write(head.freeze()).await?;
        let mut evicted = pin!(staging.evicted());
        loop {
            let next = tokio::select! {
                biased;
                next = body.next() => next,
                // The next call says why.
                () = &mut evicted => Some(Ok(Bytes::new())),
            };
            let Some(piece) = next else { break };
            staging.write(piece?).await?;
        }
        let staged = staging.finish(None).await.map_err(|failure| match failure {
            Failure::Own(e) => e,
            Failure::Store(e) => {
                self.fail(&e);
                Error::unavailable(format!("outcome unknown: {}", e.message()))
            }
        })?;
        if !staged.fresh && self.is_marked(staged.hash).await? {
            // The damaged file was taken for a good one, because the mark was not in memory yet.
            self.blobs.restore_marks([staged.hash]);
            return Err(Error::unavailable(
                "the blob was damaged at global: set it again, it will be replaced",
            ));
        }
        self.keep(Held { size: staged.size, pin: staged.pin }).await?;
        Ok((staged.hash, staged.size))
    }

    /// Has the journal know of a file. Its pin lives until that is visible or failed, though the caller goes
    /// away: else a sweep could remove the file of a blob that is about to be known.
    pub(crate) async fn keep(self: &Arc<Self>, held: Held) -> Result<()> {
        let (to, answer) = oneshot::channel();
        let authority = self.clone();
        self.tasks.spawn_graceful(async move {
            let Held { size, pin } = held;
            let kept = authority.commit(Work::Keep { hash: pin.hash(), size, carried: None }).await;
            dstore_sys::failpoint!("global::blobs::kept");
            drop(pin);
            // The caller may have gone away.
            let _ = to.send(kept.map(|_| ()));
        });
        answer.await.unwrap_or_else(|_| Err(Error::unavailable("outcome unknown: global is stopping")))
    }

    async fn is_marked(&self, hash: BlobHash) -> Result<bool> {
        let catalog = self.catalog.clone();
        let meta = self.sys.blocking.run(move || catalog.blob(&hash)).await?;
        Ok(meta.is_some_and(|meta| meta.corrupt))
    }

    /// A blob's bytes by its hash, each group verified.
    pub(crate) async fn give_blob(self: &Arc<Self>, hash: BlobHash, slice: Slice) -> Result<Option<Fetch>> {
        let catalog = self.catalog.clone();
        let known = self.sys.blocking.run(move || -> Result<_> {
            let Some(meta) = catalog.blob(&hash)? else { return Ok(None) };
            Ok(Some((meta, catalog.inline(&hash)?)))
        });
        let Some((meta, inline)) = known.await? else { return Ok(None) };
        let range = slice.within(meta.size)?;
        if meta.corrupt {
            return Err(Error::corrupt(format!("blake3:{hash} is damaged at global: set the value again")));
        }
        if let Some(bytes) = inline {
            let blob = self.verified(bytes, hash)?;
            return Ok(Some(whole(&blob, range)));
        }
        if let Some(read) = self.blobs.read(hash, meta.size, slice).await? {
            return Ok(Some(Fetch { size: read.size, outline: read.outline.encode(), body: read.stream }));
        }
        // It was swept since the look, or its file was taken away: a sweep takes nothing that a name is bound to.
        if self.is_bound(hash).await? {
            self.mark(hash, "its file is missing");
            return Err(Error::corrupt(format!("blake3:{hash} is missing at global: set the value again")));
        }
        Ok(None)
    }

    async fn is_bound(&self, hash: BlobHash) -> Result<bool> {
        let catalog = self.catalog.clone();
        let meta = self.sys.blocking.run(move || catalog.blob(&hash)).await?;
        Ok(meta.is_some_and(|meta| meta.refs > 0))
    }
}

/// A blob in memory as a fetch.
fn whole(blob: &Blob, range: std::ops::Range<u64>) -> Fetch {
    let outline = if blob.bytes().len() > GROUP_BYTES { outline(blob).encode() } else { Bytes::new() };
    // Whoever asks has the range within the size that he was told.
    let end = (range.end as usize).min(blob.bytes().len());
    let bytes = blob.bytes().slice((range.start as usize).min(end)..end);
    Fetch { size: blob.size(), outline, body: dstore_proto::store::Body::Bytes(bytes).into_stream() }
}

fn outline(blob: &Blob) -> Outline {
    let mut builder = OutlineBuilder::new();
    builder.update(blob.bytes());
    builder.finish().1
}
