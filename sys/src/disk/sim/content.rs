//! The bytes of one simulated file: pages that are shared by clones until one of them writes.
//!
//! Invariant: bytes at or after `len` are zeros, so that growing needs no writing.

use std::collections::BTreeMap;
use std::sync::Arc;

const PAGE: usize = 4096;
static ZEROS: [u8; PAGE] = [0; PAGE];

/// Contents of a file. A page that is absent is zeros, so pre-zeroed segments cost nothing; a clone costs
/// one pointer a page, so a crash image of a large disk is cheap.
#[derive(Clone, Default, Debug)]
pub(super) struct Content {
    len: u64,
    pages: BTreeMap<u64, Arc<[u8; PAGE]>>,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let wanted = (buf.len() as u64).min(self.len.saturating_sub(offset)) as usize;
        for (page, within, part) in pieces(offset, wanted) {
            match self.pages.get(&page) {
                Some(bytes) => buf[part.clone()].copy_from_slice(&bytes[within..within + part.len()]),
                None => buf[part].fill(0),
            }
        }
        wanted
    }

    pub(super) fn write(&mut self, bytes: &[u8], offset: u64) {
        self.grow(offset + bytes.len() as u64);
        for (page, within, part) in pieces(offset, bytes.len()) {
            let bytes = &bytes[part];
            if bytes == &ZEROS[..bytes.len()] && !self.pages.contains_key(&page) {
                continue;
            }
            let page = self.pages.entry(page).or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[within..within + bytes.len()].copy_from_slice(bytes);
        }
    }

    pub(super) fn grow(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    pub(super) fn cut(&mut self, len: u64) {
        if len >= self.len {
            return;
        }
        self.len = len;
        let (last, within) = (len / PAGE as u64, (len % PAGE as u64) as usize);
        self.pages.split_off(&(last + 1));
        if let Some(page) = self.pages.get_mut(&last) {
            Arc::make_mut(page)[within..].fill(0);
        }
    }

    pub(super) fn flip(&mut self, offset: u64, mask: u8) {
        let mut byte = [0];
        if self.read(&mut byte, offset) == 1 {
            self.write(&[byte[0] ^ mask], offset);
        }
    }
}

/// Cuts `[offset, offset + len)` at page borders: page number, position within it, range of the whole.
fn pieces(offset: u64, len: usize) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let within = (at % PAGE as u64) as usize;
        let n = (PAGE - within).min(len - done);
        done += n;
        (n > 0).then(|| (at / PAGE as u64, within, done - n..done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_read_back_over_page_borders_and_clones_do_not_share_writes() {
        let mut a = Content::default();
        let bytes: Vec<u8> = (0..10_000_u32).map(|i| (i % 251) as u8 + 1).collect();
        a.write(&bytes, 4_000);
        let before = a.clone();
        a.flip(4_000, 0xff);
        let mut back = vec![9; 20_000];
        assert_eq!(before.read(&mut back, 0), 14_000);
        assert!(back[..4_000].iter().all(|b| *b == 0));
        assert_eq!(&back[4_000..14_000], &bytes[..]);
        assert_eq!(a.read(&mut back[..1], 4_000), 1);
        assert_eq!(back[0], bytes[0] ^ 0xff);
        a.cut(5_000);
        a.grow(6_000);
        assert_eq!(a.read(&mut back, 4_500), 1_500);
        assert_eq!(back[..500], bytes[500..1_000]);
        assert!(back[500..1_500].iter().all(|b| *b == 0), "what was cut off must not come back");
    }
}
