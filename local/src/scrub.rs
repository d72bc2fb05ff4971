//! Looks again and again whether what the cache holds still has its hash: memory decays, and a hit does not hash.
//!
//! ```text
//! sample of copies -> hashed on a thread that may block -> damaged? dropped with its names, counted, told
//!                  -> pause, so that the hashing takes its share of one core and no more
//! ```
//! Invariants: a copy that is found damaged is served to nobody who asks afterwards; the next GET fetches it again.
//! It must never hold a lock while it hashes, nor take more than its share.

use crate::core::Core;
use dstore_shared::Blob;
use std::sync::Arc;
use std::time::Duration;

/// Bytes that are hashed in one go, at least one value: a few milliseconds.
const SAMPLE_BYTES: u64 = 4 << 20;
/// The shortest pause: many small values are not looked at all the time, though that would take less than the share.
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// The longest: a large value, or a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Looks for ever, for `per_mille` thousandths of one core's time.
pub(crate) async fn scrub(core: Arc<Core>, per_mille: u32) {
    if per_mille == 0 {
        return;
    }
    let (mut at, mut pause) = (0, PAUSE_MIN);
    loop {
        tokio::time::sleep(core.sys.rng.jitter(pause)).await;
        let (sample, next) = core.cache.sample(at, SAMPLE_BYTES);
        at = next;
        if sample.is_empty() {
            pause = PAUSE_MIN;
            continue;
        }
        let clock = core.sys.clock.clone();
        let (damaged, took) = core
            .sys
            .blocking
            .run(move || {
                let began = clock.now();
                let damaged: Vec<Blob> = sample.into_iter().filter(|blob| !blob.is_intact()).collect();
                (damaged, clock.now().since(began))
            })
            .await;
        for blob in damaged {
            core.expel(&blob);
        }
        pause = (took * 1000 / per_mille).clamp(PAUSE_MIN, PAUSE_MAX);
    }
}
