//! A part of a large value, at both hops.

use crate::rig::{Global, Local, client, fact, name, noise, target};
use crate::wire::Wire;
use dstore_client::{Client, Slice, Target};
use dstore_shared::{BlobHash, GROUP_BYTES};
use futures_util::TryStreamExt;

const LARGE: usize = 24 << 20;

async fn read(client: &Client, target: &Target, slice: Slice) -> Vec<u8> {
    let found = client.get_stream(target, slice).await.expect("answered").expect("found");
    found.body.into_stream().try_collect::<Vec<_>>().await.expect("whole").concat()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_part_of_a_large_value_moves_little_at_both_hops() {
    let global = Global::start(&[]);
    let local = Local::start(&global).await;
    let near = Wire::to(&local.daemon.at).await;
    let caller = client(&near.at);
    let all = noise(5, LARGE);
    let hash = BlobHash::of(&all);
    global.client().set(&name("large"), all.clone()).await.expect("set");
    caller.status().await.expect("answered");
    for whole in [target("large"), Target::Hash(hash)] {
        for (offset, len) in [(0, 10), (LARGE / 2 - 5, 10), (LARGE - 7, 100), (7 * GROUP_BYTES, GROUP_BYTES)]
        {
            let (far_before, near_before) = (local.wire.down(), near.down());
            let slice = Slice { offset: offset as u64, len: Some(len as u64) };
            let got = read(&caller, &whole, slice).await;
            assert!(got == all[offset..LARGE.min(offset + len)], "{offset}+{len}");
            let (far, near) = (local.wire.down() - far_before, near.down() - near_before);
            // Bytes can be verified by the group; the outline has 32 for each.
            assert!(far < 2 * GROUP_BYTES as u64 + (64 << 10), "{far} bytes from global for {len}");
            assert!(near < len as u64 + (64 << 10), "{near} bytes from the local for {len}");
        }
    }
    let status = local.client.status().await.expect("answered");
    assert_eq!((fact(&status, "names"), fact(&status, "blobs")), (0, 0), "nothing was kept for it");
    // The whole is kept, and then its parts are hits.
    assert!(local.get("large").await.expect("found").bytes == all);
    local.holds("large").await;
    let before = local.wire.down();
    let slice = Slice { offset: 99, len: Some(1 << 20) };
    assert!(read(&caller, &target("large"), slice).await == all[99..99 + (1 << 20)]);
    assert!(local.wire.down() - before < 16 << 10, "a hit asks nobody");
}
