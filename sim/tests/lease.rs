//! A Local under a lease much shorter than the default, in virtual time.

use dstore_global::{EngineKind, Global, GlobalConfig};
use dstore_local::{Local, LocalConfig};
use dstore_shared::Moment;
use dstore_sys::Sys;
use dstore_sys::clock::TokioClock;
use dstore_sys::disk::SimDisk;
use dstore_sys::net::{Address, MemoryNet};
use dstore_sys::rng::SeededRng;
use dstore_sys::tasks::Blocking;
use std::sync::Arc;
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);

/// The outside of one host, on a network that both share.
fn machine(net: &MemoryNet, seed: u64) -> Sys {
    Sys {
        clock: Arc::new(TokioClock::new(Moment::from_nanos(1_000_000_000), 1_000_000)),
        rng: Arc::new(SeededRng::new(seed)),
        net: Arc::new(net.clone()),
        disk: Arc::new(SimDisk::new()),
        blocking: Blocking::Inline { latency: MS },
    }
}

/// Promise: a Local that can reach Global serves names from its first LEASE on. The first renewal was once timed by
/// the default lease, and came after the end of a first lease much shorter than that.
#[tokio::test(start_paused = true)]
async fn a_local_with_a_lease_of_100_ms_does_not_lapse_at_its_start() {
    for seed in 0..20 {
        let net = MemoryNet::default();
        let address = Address::Memory("global".into());
        let mut config = GlobalConfig::new("/data");
        config.engine = EngineKind::Memory;
        config.listen = vec![address.clone()];
        config.lease = 100 * MS;
        let global = Global::start(machine(&net, 2 * seed), config).await.expect("a fresh directory");
        let local = Local::start(machine(&net, 2 * seed + 1), LocalConfig::new(address));
        let local = local.await.expect("it listens nowhere");
        local.ready(5_000 * MS).await.expect("global is there");
        for at in 0..2_000 {
            tokio::time::sleep(MS).await;
            assert!(
                local.ready(Duration::ZERO).await.is_ok(),
                "seed {seed}: lapsed {at} ms after its first LEASE"
            );
        }
        local.stop().await;
        global.stop().await.expect("nothing fails");
    }
}
