//! What the tests of the blob store share: a store on a real disk, bytes, and hands that damage files.

mod damage;
mod faults;
mod limits;
mod race;
mod store;

use super::*;
use bytes::Bytes;
use dstore_proto::store::Slice;
use dstore_sys::disk::{Open, RealDisk};
use futures_util::StreamExt;
use std::path::Path;
use tempfile::TempDir;

/// Around every size at which something changes: inline limit, inline hash, group, piece, frame limits.
const SIZES: [usize; 22] = [
    0,
    1,
    (16 << 10) - 1,
    16 << 10,
    (16 << 10) + 1,
    (64 << 10) - 1,
    64 << 10,
    (64 << 10) + 1,
    (256 << 10) - 1,
    256 << 10,
    (256 << 10) + 1,
    (512 << 10) - 1,
    512 << 10,
    (512 << 10) + 1,
    (1 << 20) - 1,
    1 << 20,
    (1 << 20) + 1,
    (4 << 20) - 1,
    4 << 20,
    (4 << 20) + 1,
    (10 << 20) + 7,
    (2 << 20) + (256 << 10),
];

const GROUP: u64 = dstore_shared::GROUP_BYTES as u64;

/// What the journal says of a blob whose sweep is durable.
fn unknown(_: &BlobHash) -> bool {
    false
}

fn limits() -> BlobLimits {
    BlobLimits {
        blob_bytes_max: 64 << 20,
        staging_files_max: 32,
        staging_bytes_max: 512 << 20,
        staging_wait: std::time::Duration::from_millis(50),
        min_free_bytes: 0,
    }
}

async fn open_in(dir: &Path) -> Blobs {
    Blobs::open(Sys::real(), dir.join("blobs"), limits()).await.expect("a store in a temporary directory")
}

async fn fresh() -> (TempDir, Blobs) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let blobs = open_in(dir.path()).await;
    (dir, blobs)
}

/// Bytes that differ everywhere, and between seeds.
fn bytes(size: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut all = Vec::with_capacity(size + 8);
    while all.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        all.extend_from_slice(&state.to_le_bytes());
    }
    all.truncate(size);
    all.into()
}

/// Uploads `bytes` in pieces of `piece` bytes.
async fn put_in_pieces(blobs: &Blobs, bytes: &Bytes, piece: usize) -> Result<Staged, Failure> {
    let mut staging = blobs.stage(Some(bytes.len() as u64)).await?;
    for at in (0..bytes.len()).step_by(piece) {
        staging.write(bytes.slice(at..bytes.len().min(at + piece))).await?;
    }
    staging.finish(Some(BlobHash::of(bytes))).await
}

async fn put(blobs: &Blobs, bytes: &Bytes) -> Staged {
    put_in_pieces(blobs, bytes, 100_003).await.expect("stored")
}

async fn get_slice(blobs: &Blobs, hash: BlobHash, size: usize, slice: Slice) -> Result<Option<Vec<u8>>> {
    let Some(mut read) = blobs.read(hash, size as u64, slice).await? else { return Ok(None) };
    let mut all = Vec::new();
    while let Some(piece) = read.stream.next().await {
        let piece = piece?;
        assert!(!piece.is_empty() && piece.len() as u64 <= GROUP, "a piece of {} bytes", piece.len());
        all.extend_from_slice(&piece);
    }
    Ok(Some(all))
}

async fn get(blobs: &Blobs, hash: BlobHash, size: usize) -> Result<Option<Vec<u8>>> {
    get_slice(blobs, hash, size, Slice::ALL).await
}

/// Names of the files in staging.
fn staging_of(dir: &TempDir) -> Vec<String> {
    let listed = RealDisk.list(&dir.path().join("blobs/staging")).expect("staging");
    listed.into_iter().map(|e| e.name).collect()
}

fn flip(blobs: &Blobs, hash: &BlobHash, at: u64) {
    let file = RealDisk.open(&blobs.0.layout.blob(hash), Open::Write).expect("the blob's file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("within the file");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
}

fn resize(blobs: &Blobs, hash: &BlobHash, by: i64) {
    let path = blobs.0.layout.blob(hash);
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("the blob's file");
    let len = file.metadata().expect("metadata").len();
    file.set_len(len.saturating_add_signed(by)).expect("cut");
}
