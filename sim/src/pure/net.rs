//! The network: streams that deliver in order, late, or not at all.

use super::rng::{MS, Rng, Time};

/// What a stream is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Slot {
    Session,
    Requests(usize),
}

/// Request streams of a Local: unordered among each other.
pub(super) const REQUEST_STREAMS: usize = 2;

/// Frames on their way to a Local.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Queue {
    pub len: usize,
    /// One found no room, and all are left out until a RESYNC.
    pub stopped: bool,
}

#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is yes or no by itself")]
pub(super) struct Stream {
    pub local: usize,
    /// When the newest frame of each direction arrives.
    up: Time,
    down: Time,
    pub queue: Queue,
    /// Broken: nothing more is sent, and what is on its way does not arrive.
    pub cut: bool,
    /// Broken, but what is on its way arrives.
    pub late: bool,
    /// Whether each end takes it for open.
    pub at_global: bool,
    pub at_local: bool,
}

/// One Local's link to Global.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Link {
    /// Nothing connects before this.
    pub down_until: Time,
    /// Nothing arrives at Global before this.
    pub to_global: Time,
    /// Nothing arrives at the Local before this.
    pub to_local: Time,
}

#[derive(Debug)]
pub(super) struct Net {
    streams: Vec<Stream>,
    pub links: Vec<Link>,
    /// Of each Local: its streams that were not known to be over when they were last looked at.
    open: Vec<Vec<u64>>,
}

impl Net {
    pub fn new(locals: usize) -> Self {
        Self { streams: Vec::new(), links: vec![Link::default(); locals], open: vec![Vec::new(); locals] }
    }

    pub fn open(&mut self, local: usize) -> u64 {
        let (up, down, cut, late, queue) = (0, 0, false, false, Queue::default());
        let (at_global, at_local) = (true, true);
        self.streams.push(Stream { local, up, down, queue, cut, late, at_global, at_local });
        let stream = self.streams.len() as u64 - 1;
        self.open[local].push(stream);
        stream
    }

    pub fn of(&mut self, stream: u64) -> &mut Stream {
        &mut self.streams[stream as usize]
    }

    /// When a frame sent now arrives; `None` = never. Of a thousand, `slow` take long.
    pub fn deliver(&mut self, now: Time, rng: &mut Rng, stream: u64, up: bool, slow: u64) -> Option<Time> {
        let local = self.of(stream).local;
        let link = self.links[local];
        let stalled = if up { link.to_global } else { link.to_local };
        // After a stall streams deliver in any order among each other.
        let stalled = if stalled > now { stalled + rng.between(0, 2_000) * 1_000 } else { 0 };
        let delay = if rng.chance(slow) { rng.between(1, 60) * MS } else { rng.between(20, 1_500) * 1_000 };
        let stream = self.of(stream);
        if stream.cut {
            return None;
        }
        let newest = if up { &mut stream.up } else { &mut stream.down };
        *newest = (*newest + 1).max(now + delay).max(stalled);
        Some(*newest)
    }

    /// The open streams of a Local, or of all.
    pub fn open_streams(&mut self, local: Option<usize>) -> Vec<u64> {
        let Self { streams, open, .. } = self;
        let is_open = |stream: &u64| {
            let stream = &streams[*stream as usize];
            !stream.cut && (stream.at_local || stream.at_global)
        };
        open.iter_mut().for_each(|streams| streams.retain(is_open));
        if let Some(local) = local {
            return open[local].clone();
        }
        let mut all = open.concat();
        all.sort_unstable();
        all
    }

    /// The most frames that wait on one of the streams of a Local.
    pub fn longest_queue(&self, local: usize) -> Option<usize> {
        self.open[local].iter().map(|stream| self.streams[*stream as usize].queue.len).max()
    }
}
