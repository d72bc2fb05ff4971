//! Owns what Global knows of the room on its disk: who may still store, and that a shortage is told.
//!
//! Invariants: below `min_free` nothing is stored that uses more space, and it is refused before a byte of it is
//! written; DEL, sweep and checkpoint are never refused here. A shortage is logged once when it begins and once
//! when it ends, however many are refused meanwhile. It must never decide from a look that is older than
//! [`LOOK_TTL`], nor look at the disk more often than that.

use dstore_shared::{Error, Moment, Result};
use dstore_sys::Sys;
use parking_lot::Mutex;
use std::path::PathBuf;
use std::time::Duration;

/// How long a look at the free space counts. Together with [`LOOK_BYTES`] far less than `min_free` is written
/// between two looks.
const LOOK_TTL: Duration = Duration::from_millis(50);
/// Bytes of changes after which the disk is looked at again, though the last look was just now.
const LOOK_BYTES: u64 = 4 << 20;
/// How long a refusal counts as a shortage after the room that it wanted could not be found.
const REFUSAL_TTL: Duration = Duration::from_secs(10);
/// What refused callers are told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The room on the disk of a data directory.
#[derive(Debug)]
pub(crate) struct Space {
    sys: Sys,
    dir: PathBuf,
    min_free: u64,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the disk was last looked at, what was free, and what may have been written since.
    look: Option<(Moment, u64)>,
    written: u64,
    /// The last refusal of something that would have fitted `min_free`: when, and what must be free for it.
    refusal: Option<(Moment, u64)>,
    /// A shortage was told: this must be free for its end.
    told: Option<u64>,
}

impl State {
    /// What must be free before all is well again; `None` if all is well.
    fn wanted(&self, min_free: u64, now: Moment) -> Option<u64> {
        let free = self.look.map_or(u64::MAX, |(_, free)| free);
        let refused = self.refusal.filter(|(at, wanted)| now.since(*at) < REFUSAL_TTL && free < *wanted);
        // What has begun ends only with some room: else it would begin again at once.
        let told = self.told.map(|_| min_free.saturating_add(min_free / 4)).filter(|wanted| free < *wanted);
        (free < min_free).then_some(min_free).max(refused.map(|(_, wanted)| wanted)).max(told)
    }
}

impl Space {
    pub(crate) fn new(sys: &Sys, dir: impl Into<PathBuf>, min_free: u64) -> Self {
        Self { sys: sys.clone(), dir: dir.into(), min_free, state: Mutex::default() }
    }

    /// Whether something of `bytes` may be stored. Looks at the disk if that is due, which takes microseconds.
    ///
    /// # Errors
    /// `Exhausted` with a delay if fewer than `min_free` bytes are free.
    pub(crate) fn admit(&self, bytes: u64) -> Result<()> {
        let now = self.sys.clock.now();
        let mut state = self.state.lock();
        state.written += bytes;
        self.look(&mut state, now);
        let (free, min) = (state.look.map_or(u64::MAX, |(_, free)| free), self.min_free);
        if free >= min {
            return Ok(());
        }
        let text =
            format!("`{free}` bytes of disk are free, SETs leave `{min}`: delete names or add disk space");
        Err(Error::exhausted(text).retry_after(RETRY_AFTER))
    }

    /// Something was refused that would fit if `wanted` bytes were free.
    pub(crate) fn refused(&self, wanted: u64) {
        let now = self.sys.clock.now();
        let mut state = self.state.lock();
        state.refusal = Some((now, wanted));
        self.tell(&mut state, now);
    }

    /// Looks if that is due, and tells a shortage that begins or ends. To be called again and again.
    pub(crate) fn watch(&self) {
        let now = self.sys.clock.now();
        let mut state = self.state.lock();
        self.look(&mut state, now);
        self.tell(&mut state, now);
    }

    /// What status says: bytes that are free, if known, and the shortage in words.
    pub(crate) fn facts(&self) -> (Option<u64>, String) {
        let now = self.sys.clock.now();
        let mut state = self.state.lock();
        self.look(&mut state, now);
        let free = state.look.map(|(_, free)| free);
        let said = match (state.wanted(self.min_free, now), free) {
            (None, _) => "enough".to_owned(),
            (Some(wanted), Some(free)) if free >= self.min_free => {
                format!("low: some SETs are refused until {} MiB are free", mib(wanted))
            }
            (Some(wanted), _) => format!("low: SETs are refused until {} MiB are free", mib(wanted)),
        };
        (free, said)
    }

    fn look(&self, state: &mut State, now: Moment) {
        let due = state.look.is_none_or(|(at, _)| now.since(at) >= LOOK_TTL) || state.written >= LOOK_BYTES;
        if !due {
            return;
        }
        // A disk that cannot be asked is not taken for a full one: whoever writes to it will say.
        let Ok(free) = self.sys.disk.free_bytes(&self.dir) else { return };
        (state.look, state.written) = (Some((now, free)), 0);
        self.tell(state, now);
    }

    /// Logs the change of the state, if there is one.
    fn tell(&self, state: &mut State, now: Moment) {
        let free = state.look.map_or(u64::MAX, |(_, free)| free);
        let wanted = state.wanted(self.min_free, now);
        match (state.told, wanted) {
            (None, Some(wanted)) => {
                let (free_mib, wanted_mib) = (free >> 20, mib(wanted));
                tracing::warn!(free_mib, wanted_mib, "disk space is low: SETs are refused, DELs go on");
            }
            (Some(_), None) => {
                tracing::info!(free_mib = free >> 20, "disk space is back: SETs are taken again");
            }
            _ => {}
        }
        state.told = wanted;
    }
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dstore_shared::Kind;
    use dstore_sys::clock::ManualClock;
    use dstore_sys::disk::SimDisk;
    use std::sync::Arc;

    const MIB: u64 = 1 << 20;

    fn space() -> (SimDisk, Arc<ManualClock>, Space) {
        let (disk, clock) = (SimDisk::default(), Arc::new(ManualClock::default()));
        let sys = Sys { disk: Arc::new(disk.clone()), clock: clock.clone(), ..Sys::real() };
        disk.set_free_bytes(Some(100 * MIB));
        (disk, clock, Space::new(&sys, "/data", 10 * MIB))
    }

    fn told(space: &Space) -> Option<u64> {
        space.state.lock().told
    }

    #[test]
    fn below_the_minimum_sets_are_refused_and_taken_again_by_themselves() {
        let (disk, clock, space) = space();
        space.admit(1).expect("room");
        disk.set_free_bytes(Some(10 * MIB - 1));
        space.admit(1).expect("the look before still counts");
        clock.advance(LOOK_TTL);
        let e = space.admit(1).expect_err("low");
        assert_eq!(e.kind(), Kind::Exhausted);
        assert_eq!(told(&space), Some(10 * MIB));
        assert_eq!(space.facts(), (Some(10 * MIB - 1), "low: SETs are refused until 13 MiB are free".into()));
        disk.set_free_bytes(Some(10 * MIB));
        clock.advance(LOOK_TTL);
        space.admit(1).expect("room again");
        assert!(space.facts().1.starts_with("low: some"), "{:?}", space.facts());
        disk.set_free_bytes(Some(13 * MIB));
        clock.advance(LOOK_TTL);
        space.watch();
        assert_eq!((told(&space), space.facts().1), (None, "enough".into()));
    }

    #[test]
    fn much_that_is_written_makes_the_next_look_due_at_once() {
        let (disk, _, space) = space();
        space.admit(1).expect("room");
        disk.set_free_bytes(Some(0));
        space.admit(LOOK_BYTES - 1).expect("not yet");
        assert_eq!(space.admit(1).expect_err("due").kind(), Kind::Exhausted);
    }

    #[test]
    fn a_refusal_is_a_shortage_until_its_room_is_there_or_it_is_long_ago() {
        let (disk, clock, space) = space();
        space.watch();
        space.refused(200 * MIB);
        assert_eq!(told(&space), Some(200 * MIB));
        assert!(space.facts().1.contains("some SETs are refused until 200 MiB"), "{:?}", space.facts());
        space.admit(1).expect("what is small still fits");
        disk.set_free_bytes(Some(200 * MIB));
        clock.advance(LOOK_TTL);
        space.watch();
        assert_eq!(told(&space), None);
        space.refused(300 * MIB);
        clock.advance(REFUSAL_TTL);
        space.watch();
        assert_eq!(told(&space), None, "nobody was refused for long");
    }
}
