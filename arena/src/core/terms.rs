//! Owns what an arena's header says once and for all.

use crate::error::Error;
use crate::files;
use crate::layout::{self, PAGE_BYTES, PAGE_WORDS, bucket, header};
use crate::memory::Memory;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

/// What does not change in an arena's life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Terms {
    pub incarnation: [u64; 2],
    pub seed: u64,
    pub data_bytes: u64,
    pub segment_bytes: u64,
    pub copy_max: u64,
    pub directory_words: u64,
    pub pin_bytes_max: u64,
}

impl Terms {
    /// Words of a header for so many bytes of data: one word of directory for each chunk that could be of use.
    pub(crate) fn directory_words(data_bytes: u64) -> u64 {
        let chunk = (bucket::CHUNK * bucket::WORDS * layout::WORD) as u64;
        (data_bytes / chunk / 4 + 8).next_multiple_of(PAGE_WORDS as u64)
    }

    /// Pages of data.
    pub(super) fn pages(&self) -> u32 {
        u32::try_from(self.data_bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX)
    }

    fn header_bytes(&self) -> u64 {
        (header::DIRECTORY as u64 + self.directory_words) * layout::WORD as u64
    }

    /// Bytes of the header, and of a page for each segment that there may be.
    pub(crate) fn beside(&self) -> u64 {
        let segments = files::segments_max(self.data_bytes, self.segment_bytes);
        self.header_bytes() + segments * PAGE_BYTES as u64
    }

    pub(super) fn write(&self, to: &impl Memory) {
        let words = [
            (header::LAYOUT, u64::from(layout::VERSION)),
            (header::INCARNATION, self.incarnation[0]),
            (header::INCARNATION + 1, self.incarnation[1]),
            (header::SEED, self.seed),
            (header::DATA_BYTES, self.data_bytes),
            (header::SEGMENT_BYTES, self.segment_bytes),
            (header::COPY_MAX, self.copy_max),
            (header::DIRECTORY_WORDS, self.directory_words),
            (header::PIN_BYTES_MAX, self.pin_bytes_max),
        ];
        words.into_iter().for_each(|(at, word)| to.store(at, word, Relaxed));
        to.store(header::MAGIC, layout::MAGIC, Release);
    }

    /// Reads the terms of a mapped header.
    ///
    /// # Errors
    /// `Foreign`, `Layout`.
    pub(crate) fn read(from: &impl Memory) -> Result<Self, Error> {
        let word = |at| from.load(at, Acquire);
        if word(header::MAGIC) != layout::MAGIC {
            return Err(Error::Foreign("the header does not begin as one"));
        }
        if word(header::LAYOUT) != u64::from(layout::VERSION) {
            return Err(Error::Layout { found: word(header::LAYOUT), known: layout::VERSION });
        }
        Ok(Self {
            incarnation: [word(header::INCARNATION), word(header::INCARNATION + 1)],
            seed: word(header::SEED),
            data_bytes: word(header::DATA_BYTES),
            segment_bytes: word(header::SEGMENT_BYTES),
            copy_max: word(header::COPY_MAX),
            directory_words: word(header::DIRECTORY_WORDS),
            pin_bytes_max: word(header::PIN_BYTES_MAX),
        })
    }
}
