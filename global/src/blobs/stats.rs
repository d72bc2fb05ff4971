//! What the blob store counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// What the blob store did since it was opened, and holds now.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BlobStats {
    /// Files moved in; files there before the start are counted by [`Blobs::walk`](super::Blobs::walk).
    pub placed_files: u64,
    /// Their data in bytes.
    pub placed_bytes: u64,
    /// Files unlinked.
    pub unlinked_files: u64,
    /// Their bytes, header and outline included.
    pub unlinked_bytes: u64,
    /// Uploads under way, those being cleaned up included.
    pub staged_files: u64,
    /// Their bytes, announced or received.
    pub staged_bytes: u64,
    /// Uploads whose bytes were there already.
    pub dedup_hits: u64,
    /// Reads that met damage.
    pub corrupt_reads: u64,
    /// Hashes marked as damaged now.
    pub marked: u64,
    /// Damaged files that an upload replaced.
    pub healed: u64,
    /// Hashes pinned now.
    pub pinned: u64,
    /// Memory in buffers of uploads and reads now, in bytes; a piece that was read counts until it is dropped.
    pub buffered_bytes: u64,
    /// The most that it ever was.
    pub buffered_bytes_peak: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub placed_files: AtomicU64,
    pub placed_bytes: AtomicU64,
    pub unlinked_files: AtomicU64,
    pub unlinked_bytes: AtomicU64,
    pub dedup_hits: AtomicU64,
    pub corrupt_reads: AtomicU64,
    pub healed: AtomicU64,
    pub gauge: Gauge,
}

/// Adds to a counter.
pub(super) fn count(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> BlobStats {
        BlobStats {
            placed_files: self.placed_files.load(Relaxed),
            placed_bytes: self.placed_bytes.load(Relaxed),
            unlinked_files: self.unlinked_files.load(Relaxed),
            unlinked_bytes: self.unlinked_bytes.load(Relaxed),
            dedup_hits: self.dedup_hits.load(Relaxed),
            corrupt_reads: self.corrupt_reads.load(Relaxed),
            healed: self.healed.load(Relaxed),
            buffered_bytes: self.gauge.now(),
            buffered_bytes_peak: self.gauge.0.peak.load(Relaxed),
            ..BlobStats::default()
        }
    }
}

/// Memory held in buffers.
#[derive(Clone, Debug, Default)]
pub(super) struct Gauge(Arc<Level>);

#[derive(Debug, Default)]
struct Level {
    now: AtomicU64,
    peak: AtomicU64,
}

impl Gauge {
    /// Counts `bytes` until the charge is dropped.
    pub(super) fn charge(&self, bytes: usize) -> Charge {
        let now = self.0.now.fetch_add(bytes as u64, Relaxed) + bytes as u64;
        self.0.peak.fetch_max(now, Relaxed);
        Charge { bytes: bytes as u64, gauge: self.clone() }
    }

    /// Bytes counted now.
    pub(super) fn now(&self) -> u64 {
        self.0.now.load(Relaxed)
    }
}

/// A buffer's part of the gauge.
#[derive(Debug)]
pub(super) struct Charge {
    bytes: u64,
    gauge: Gauge,
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.gauge.0.now.fetch_sub(self.bytes, Relaxed);
    }
}

/// A buffer that is counted while it lives, even as part of [`Bytes`](bytes::Bytes).
#[derive(Debug)]
pub(super) struct Buffer {
    bytes: Vec<u8>,
    _charge: Charge,
}

impl Buffer {
    /// `len` zeros, to be filled.
    pub(super) fn zeros(len: usize, gauge: &Gauge) -> Self {
        Self::new(vec![0; len], gauge)
    }

    /// Counts `bytes`, by what they occupy.
    pub(super) fn new(bytes: Vec<u8>, gauge: &Gauge) -> Self {
        let charge = gauge.charge(bytes.capacity());
        Self { bytes, _charge: charge }
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}
