//! The ways into this crate for bytes that a disk might give, for the fuzz targets: each function reads them as Global
//! does when it starts, gives the error that the operator would be told, and panics if what was read does not hold
//! what every reading must.
//!
//! Checksums would keep nearly all bytes out, so most of these make them right first: what is behind a checksum must
//! bear anything, too. Only in builds with the feature `fuzzing`.

pub use crate::blobs::fuzzing::blob_header;
pub use crate::journal::fuzzing::{journal, journal_headers};

use crate::change::{Change, Commits, Payload, decode_entry, decode_meta, encode_entry, encode_meta};
use crate::checkpoint::Checkpoints;
use crate::data_dir::Meta;
use crate::sealed::{Form, SealedWriter};
use bytes::Bytes;
use dstore_shared::{Kind, Result};
use dstore_sys::disk::{Disk, Open, SimDisk};
use std::path::Path;
use std::sync::Arc;

/// The payload of a journal batch.
pub fn commits(bytes: &[u8]) -> Result<()> {
    let (mut left, mut failed) = (bytes.len(), Ok(()));
    for read in Commits::of(Bytes::copy_from_slice(bytes)) {
        assert!(failed.is_ok(), "it ends with its first error");
        let commit = match read {
            Ok(commit) => commit,
            Err(e) => {
                failed = Err(e);
                continue;
            }
        };
        let mut payload = Payload::new();
        payload.push(&commit);
        assert_eq!(payload.len(), commit.encoded_len());
        left = left.checked_sub(payload.len()).expect("no more than was there");
        // The vector may double as it grows; a count that nothing stands behind must not reserve anything.
        assert!(commit.changes.capacity() * size_of::<Change>() <= 64 * payload.len());
        let written = Bytes::from(payload.slices().concat());
        let again: Vec<_> =
            Commits::of(written).map(|read| read.expect("what is written can be read")).collect();
        assert_eq!(again, [commit]);
    }
    assert!(failed.is_err() || left == 0, "every byte was read");
    failed
}

/// A value of the index: of a blob if the first byte is odd, else of a name. What can be read has one form only.
pub fn index_value(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let value = Bytes::copy_from_slice(bytes);
    let again =
        if which % 2 == 0 { encode_entry(&decode_entry(value)?) } else { encode_meta(&decode_meta(value)?) };
    assert_eq!(again, bytes);
    Ok(())
}

const DIR: &str = "/data";

fn disk_with(file: &str, bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("a new disk");
    let file = disk.open(&Path::new(DIR).join(file), Open::Create).expect("a new file");
    file.write_all_at(bytes, 0).expect("a disk without faults");
    disk
}

/// Writes the parts that `bytes` are (tag, length in two bytes, bytes) as a file of `form`, whole and sealed.
fn sealed(name: &str, form: Form, mut bytes: &[u8]) -> SimDisk {
    let disk = SimDisk::new();
    disk.create_dir_all(Path::new(DIR)).expect("a new disk");
    let path = Path::new(DIR).join(name);
    let mut writer = SealedWriter::create(&disk, &path, form).expect("a new file");
    while let Some(([tag, a, b], rest)) = bytes.split_first_chunk() {
        let (part, rest) = rest.split_at(usize::from(u16::from_le_bytes([*a, *b])).min(rest.len()));
        writer.push(*tag, &[part]).expect("written");
        bytes = rest;
    }
    writer.seal().and_then(|sealed| sealed.replace(None)).expect("a disk without faults");
    disk
}

/// The file `meta`: as it is if the first byte is odd, else the parts of one.
pub fn meta(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let disk = if which % 2 == 1 { disk_with("meta", bytes) } else { sealed("meta", Meta::FORM, bytes) };
    let Some(meta) = Meta::load(&disk, Path::new(DIR))? else { return Ok(()) };
    let copy = SimDisk::new();
    copy.create_dir_all(Path::new(DIR)).expect("a new disk");
    meta.write(&copy, Path::new(DIR)).expect("what was read can be written");
    let again = Meta::load(&copy, Path::new(DIR)).expect("and read");
    assert_eq!(again, Some(meta));
    Ok(())
}

/// The file `checkpoint`: as it is if the first byte is odd, else the parts of one.
pub fn checkpoint(bytes: &[u8]) -> Result<()> {
    let Some((which, bytes)) = bytes.split_first() else { return Ok(()) };
    let form = crate::checkpoint::FORM;
    let disk =
        if which % 2 == 1 { disk_with("checkpoint", bytes) } else { sealed("checkpoint", form, bytes) };
    let loaded = Checkpoints::new(Arc::new(disk), Path::new(DIR)).load();
    if let Err(e) = &loaded {
        assert!(matches!(e.kind(), Kind::Corrupt | Kind::Invalid), "{e:?}");
    }
    let Some(checkpoint) = loaded? else { return Ok(()) };
    let copy = SimDisk::new();
    copy.create_dir_all(Path::new(DIR)).expect("a new disk");
    let files = Checkpoints::new(Arc::new(copy), Path::new(DIR));
    files.write(&checkpoint).expect("what was read can be written");
    assert_eq!(files.load().expect("and read"), Some(checkpoint));
    Ok(())
}
