//! Owns the way from untrusted bytes to numbers: a cursor that cannot leave its bytes.

use bytes::Bytes;
use dstore_shared::{BlobHash, Error};

/// Why bytes are not commits.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Damage {
    #[error("they end at byte `{at}` where `{wanted}` more are due")]
    Short { at: usize, wanted: usize },
    #[error("`{left}` bytes are left over before byte `{at}`")]
    Left { at: usize, left: usize },
    #[error("the {what} at byte `{at}` is not valid")]
    Invalid { what: &'static str, at: usize },
    #[error("the {what} `{found}` at byte `{at}` is not known")]
    Newer { what: &'static str, found: u8, at: usize },
}

impl From<Damage> for Error {
    fn from(damage: Damage) -> Self {
        match damage {
            Damage::Newer { .. } => Error::invalid(format!(
                "stored bytes were written by a newer dstore, {damage}: use that version"
            )),
            _ => Error::corrupt(format!(
                "stored bytes are damaged, {damage}: restore the data directory from a backup"
            )),
        }
    }
}

/// Takes bytes off the front of others, never more than there are.
#[derive(Debug)]
pub(crate) struct Reader {
    bytes: Bytes,
    pub(super) at: usize,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&[u8], Damage> {
        if n > self.left() {
            return Err(Damage::Short { at: self.bytes.len(), wanted: n - self.left() });
        }
        self.at += n;
        Ok(&self.bytes[self.at - n..self.at])
    }

    /// The next `n` bytes as a reader of their own.
    pub(super) fn part(&mut self, n: usize) -> Result<Self, Damage> {
        let from = self.at;
        self.take(n)?;
        Ok(Self { bytes: self.bytes.slice(..self.at), at: from })
    }

    pub(super) fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..);
        self.at = self.bytes.len();
        rest
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Damage> {
        Ok(self.take(N)?.try_into().expect("take gives as many bytes as asked"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Damage> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<usize, Damage> {
        Ok(u16::from_le_bytes(self.array()?) as usize)
    }

    pub(crate) fn u32(&mut self) -> Result<usize, Damage> {
        Ok(u32::from_le_bytes(self.array()?) as usize)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Damage> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn u128(&mut self) -> Result<u128, Damage> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    pub(super) fn hash(&mut self) -> Result<BlobHash, Damage> {
        Ok(BlobHash::from_bytes(self.array()?))
    }

    /// Flags of which only those in `known` may be set.
    pub(crate) fn flags(&mut self, what: &'static str, known: u8) -> Result<u8, Damage> {
        let flags = self.u8()?;
        if flags & !known == 0 { Ok(flags) } else { Err(self.newer(what, flags)) }
    }

    /// An error about the byte just read.
    pub(crate) fn newer(&self, what: &'static str, found: u8) -> Damage {
        Damage::Newer { what, found, at: self.at - 1 }
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), Damage> {
        match self.left() {
            0 => Ok(()),
            left => Err(Damage::Left { at: self.bytes.len(), left }),
        }
    }
}
