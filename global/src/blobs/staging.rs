//! An upload: bytes are gathered into pieces, hashed and written at the same time, then handed to
//! [`place`](super::place) as a [`Draft`].
//!
//! ```text
//! write -> gather 1 MiB -> hash it on one thread, write it on another, while the next piece gathers
//!          (without a copy if the bytes come in large parts)
//! finish -> hash, outline -> header and outline, fsync -> lock of the hash -> there already? or rename, fsync dir
//! ```
//! Invariants: at most two pieces of an upload are in memory, one gathering and one on its way. A blob of
//! one piece makes no file before it is known to be new. What is not placed leaves nothing in staging.
//! Must never write to, or sync, a file again after an error.

use super::budget::Reservation;
use super::format::{Header, PAGE, crc};
use super::gather::{Gathered, PIECE, Piece};
use super::pins::Pin;
use super::place::{self, Failure};
use super::started::Started;
use super::{Blobs, Doomed, failed};
use bytes::Bytes;
use dstore_shared::{BlobHash, Error, OutlineBuilder, Result};
use dstore_sys::disk::{DiskFile, Open, Pages};
use futures_util::future::join;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Bytes of a blob that stay in the page cache, for whoever reads it next; what follows is written past it. A
/// large blob would fill the cache with pages that the machine must first find: that took more processor
/// time than all the rest of an upload.
const CACHED: u64 = 8 << 20;
/// Bytes that are hashed in place at the end: 64 KiB take about 20 µs, as long as going to another thread.
const HASH_INLINE_MAX: usize = 64 << 10;

/// A blob that is in the store, durable, and stays while `pin` lives.
#[derive(Debug)]
pub struct Staged {
    /// The hash of its bytes.
    pub hash: BlobHash,
    /// Their number.
    pub size: u64,
    /// Keeps the file until the name is journaled.
    pub pin: Pin,
    /// A file was moved in; otherwise the bytes were there already.
    pub fresh: bool,
    /// The blob was marked as damaged and is not anymore: journal that.
    pub cleared_mark: bool,
}

/// An upload under way. Dropping it removes what it wrote.
#[must_use = "an upload that is dropped stores nothing"]
pub struct Staging {
    blobs: Blobs,
    reservation: Arc<Reservation>,
    gathered: Gathered,
    /// Boxed: its 2 KiB would be copied with every future that holds it.
    builder: Box<OutlineBuilder>,
    file: Option<Arc<StagedFile>>,
    flying: Option<Started<Landed>>,
    taken: u64,
    /// A call failed or was cancelled half-way: it is not known which bytes were taken.
    torn: bool,
}

/// What comes back from a piece: the hashing, and the file it was written to.
type Landed = (Box<OutlineBuilder>, Result<Arc<StagedFile>>);

impl Staging {
    pub(super) fn new(blobs: Blobs, reservation: Reservation, hint: u64) -> Self {
        let gathered = Gathered::new(&blobs.0.counters.gauge, hint);
        let reservation = Arc::new(reservation);
        let builder = Box::default();
        Self { blobs, reservation, gathered, builder, file: None, flying: None, taken: 0, torn: false }
    }

    /// Takes the next bytes, of any number. Waits while two pieces are in memory.
    ///
    /// # Errors
    /// `TooLarge` beyond the largest blob, `Exhausted` without room, `Unavailable` if writing failed,
    /// `Closed` after an earlier error, `Exhausted` when its place was given away. After any of them the upload is lost: drop it.
    ///
    /// # Cancel safety
    /// A cancelled call may have taken a part: the upload is lost and says so from then on.
    pub async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.check()?;
        self.torn = true;
        let taken = self.taken.saturating_add(bytes.len() as u64);
        self.blobs.0.budget.admit(taken)?;
        self.reservation.grow_to(taken)?;
        self.reservation.pace.received(bytes.len() as u64, self.blobs.0.sys.clock.now());
        while !bytes.is_empty() {
            if self.gathered.len() == PIECE {
                let piece = self.gathered.take();
                self.send(piece).await?;
            }
            self.gathered.take_from(&mut bytes);
        }
        self.reservation.pace.waits(self.blobs.0.sys.clock.now());
        self.taken = taken;
        self.torn = false;
        Ok(())
    }

    /// Makes the blob durable and moves it into the store, or finds that it is there.
    ///
    /// # Errors
    /// `Corrupt` if the bytes are not those of `expected`; otherwise as [`Staging::write`]. A
    /// [`Failure::Store`] means that no change of the store can be made durable anymore.
    ///
    /// # Cancel safety
    /// A cancelled call may have stored the blob, unpinned; [`Blobs::walk`] finds it. Run it in a task that
    /// nobody cancels.
    pub async fn finish(self, expected: Option<BlobHash>) -> Result<Staged, Failure> {
        self.check()?;
        self.reservation.pace.received(0, self.blobs.0.sys.clock.now());
        let draft = if self.file.is_none() && self.flying.is_none() {
            self.draft_small(expected).await?
        } else {
            self.draft_large(expected).await?
        };
        place::place(draft).await
    }

    fn check(&self) -> Result<()> {
        if self.torn {
            return Err(Error::closed("this upload has failed or was interrupted: start another"));
        }
        self.reservation.pace.check()?;
        self.blobs.check()
    }

    /// Resolves when the place of this upload was given to one that waited, because it hardly moved: then every
    /// call fails. For whoever waits for the next bytes.
    pub fn evicted(&self) -> WaitForCancellationFutureOwned {
        self.reservation.pace.evicted().cancelled_owned()
    }

    /// Hashes and writes `piece`, after the one before it; does not wait for its end.
    async fn send(&mut self, piece: Piece) -> Result<()> {
        self.land().await?;
        let (blocking, piece) = (self.blobs.0.sys.blocking, Arc::new(piece));
        let (mut builder, hashed) = (std::mem::take(&mut self.builder), piece.clone());
        let offset = PAGE as u64 + builder.size();
        let hash = blocking.run(move || {
            hashed.parts().for_each(|part| builder.update(part));
            builder
        });
        let (blobs, reservation, file) = (self.blobs.clone(), self.reservation.clone(), self.file.clone());
        let write = blocking.run(move || {
            blobs.check_free()?;
            let file = match file {
                Some(file) => file,
                None => StagedFile::create(&blobs, reservation)?,
            };
            file.write_piece(&piece, offset)?;
            file.reservation.wrote(piece.len() as u64);
            Ok(file)
        });
        self.flying = Some(Started::new(join(hash, write)));
        Ok(())
    }

    /// Waits for the piece on its way, if there is one.
    async fn land(&mut self) -> Result<()> {
        let Some(flying) = self.flying.take() else { return Ok(()) };
        let (builder, file) = flying.wait().await;
        self.builder = builder;
        self.file = Some(file?);
        Ok(())
    }

    /// The draft of a blob of one piece, in memory.
    async fn draft_small(mut self, expected: Option<BlobHash>) -> Result<Draft> {
        let (size, piece) = (self.taken, Arc::new(self.gathered.take()));
        let (blocking, hashed, mut builder) = (self.blobs.0.sys.blocking, piece.clone(), self.builder);
        let hash = move || {
            hashed.parts().for_each(|part| builder.update(part));
            builder.finish()
        };
        let (hash, outline) = if piece.len() <= HASH_INLINE_MAX { hash() } else { blocking.run(hash).await };
        check_hash(hash, expected)?;
        let body = Body::Memory { piece, reservation: self.reservation };
        Ok(Draft { blobs: self.blobs, hash, size, outline: outline.encode(), body })
    }

    /// The draft of a longer blob, sealed unless its bytes seem to be there already.
    async fn draft_large(mut self, expected: Option<BlobHash>) -> Result<Draft> {
        if self.gathered.len() > 0 {
            let tail = self.gathered.take();
            self.send(tail).await?;
        }
        self.land().await?;
        let Some(file) = self.file else {
            return Err(Error::internal("an upload has landed without a file: report this"));
        };
        let (blobs, size, builder) = (self.blobs, self.taken, self.builder);
        let blocking = blobs.0.sys.blocking;
        let seal = move || {
            let (hash, outline) = builder.finish();
            check_hash(hash, expected)?;
            let mut draft = Draft { blobs, hash, size, outline: outline.encode(), body: Body::Written(file) };
            // Sealing is the long part: not while others wait for the lock, and not for nothing.
            if draft.blobs.held(&hash)? != Some(size) {
                draft.seal()?;
            }
            Ok(draft)
        };
        blocking.run(seal).await
    }
}

impl fmt::Debug for Staging {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Staging({} B)", self.taken)
    }
}

fn unwritten(e: std::io::Error) -> Error {
    failed("the upload could not be written", e)
}

fn check_hash(found: BlobHash, expected: Option<BlobHash>) -> Result<()> {
    match expected {
        Some(expected) if expected != found => Err(Error::corrupt(format!(
            "the bytes received are blake3:{found}, announced was blake3:{expected}: send them again"
        ))),
        _ => Ok(()),
    }
}

/// A blob whose hash is known and which is not in the store yet.
pub(super) struct Draft {
    pub blobs: Blobs,
    pub hash: BlobHash,
    pub size: u64,
    outline: Bytes,
    body: Body,
}

enum Body {
    Memory { piece: Arc<Piece>, reservation: Arc<Reservation> },
    Written(Arc<StagedFile>),
    Sealed(Arc<StagedFile>),
}

impl Draft {
    /// The whole file in staging, durable. Blocks.
    pub(super) fn seal(&mut self) -> Result<Arc<StagedFile>> {
        let header = Header { hash: self.hash, size: self.size, outline_crc: crc(&self.outline) };
        let file = match &self.body {
            Body::Sealed(file) => return Ok(file.clone()),
            Body::Memory { piece, reservation } => {
                self.blobs.check_free()?;
                let file = StagedFile::create(&self.blobs, reservation.clone())?;
                let page = header.encode();
                let parts = [&page[..]].into_iter().chain(piece.parts()).chain([&self.outline[..]]);
                let whole = parts.collect::<Vec<_>>().concat();
                let _charge = self.blobs.0.counters.gauge.charge(whole.capacity());
                file.write(&whole, 0)?;
                reservation.wrote(self.size);
                file
            }
            Body::Written(file) => {
                file.write(&header.encode(), 0)?;
                if !self.outline.is_empty() {
                    file.write(&self.outline, header.outline_at())?;
                }
                file.clone()
            }
        };
        dstore_sys::failpoint!("global::blobs::before_fsync");
        file.sync()?;
        dstore_sys::failpoint!("global::blobs::after_fsync");
        self.body = Body::Sealed(file.clone());
        Ok(file)
    }
}

/// A file in staging; removed when dropped, unless it was moved.
pub(super) struct StagedFile {
    blobs: Blobs,
    path: PathBuf,
    /// `None` only while it is dropped.
    file: Option<Box<dyn DiskFile>>,
    reservation: Arc<Reservation>,
    moved: AtomicBool,
}

impl StagedFile {
    fn create(blobs: &Blobs, reservation: Arc<Reservation>) -> Result<Arc<Self>> {
        let path = blobs.next_staged();
        let file = blobs.0.sys.disk.open(&path, Open::Create);
        let file = Some(file.map_err(|e| failed("the upload could not be staged", e))?);
        dstore_sys::failpoint!("global::blobs::created");
        Ok(Arc::new(Self { blobs: blobs.clone(), path, file, reservation, moved: AtomicBool::new(false) }))
    }

    fn file(&self) -> &dyn DiskFile {
        self.file.as_deref().expect("only drop takes the file")
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        self.file().write_all_at(bytes, offset).map_err(unwritten)
    }

    fn write_piece(&self, piece: &Piece, offset: u64) -> Result<()> {
        let parts: Vec<_> = piece.parts().collect();
        let pages = if offset < CACHED { Pages::Stay } else { Pages::Pass };
        self.file().write_parts_at(&parts, offset, pages).map_err(unwritten)
    }

    fn sync(&self) -> Result<()> {
        self.file().sync().map_err(|e| failed("the upload could not be made durable", e))
    }

    pub(super) fn move_to(&self, path: &Path) -> Result<()> {
        let moved = self.blobs.0.sys.disk.rename(&self.path, path);
        moved.map_err(|e| failed("the upload could not be moved into the store", e))?;
        self.moved.store(true, Ordering::SeqCst);
        Ok(())
    }
}

impl Drop for StagedFile {
    fn drop(&mut self) {
        if self.moved.load(Ordering::SeqCst) {
            return;
        }
        // Removing a large file takes its time: this may be an async thread. The queue has room, because
        // each of its files still holds one of the slots that it has places for.
        let doomed = Doomed {
            path: std::mem::take(&mut self.path),
            _file: self.file.take(),
            _reservation: self.reservation.clone(),
        };
        if let Err(doomed) = self.blobs.0.doomed.try_send(doomed) {
            tracing::warn!(path = %doomed.path.display(), "a staged file stays until the next start");
        }
    }
}
