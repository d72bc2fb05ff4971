//! Bytes that rot at Global, and uploads that end half-way.

use crate::rig::{Global, Local, client, dstore, failed, name, noise, target, until};
use bytes::Bytes;
use dstore_client::{BodyStream, Client, Slice, Target};
use dstore_shared::{BlobHash, Error, Kind, SetOutcome};
use futures_util::{StreamExt, TryStreamExt, stream};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

const LARGE: usize = (3 << 20) + 5;
const PIECE: usize = 256 << 10;

/// Turns one bit of the blob's file, far from its ends.
fn flip(data: &Path, hash: BlobHash) {
    let text = hash.to_string();
    let file = data.join("blobs").join(&text[..2]).join(&text[2..]);
    let file = std::fs::File::options().read(true).write(true).open(file).expect("the blob has a file");
    let (mut byte, at) = ([0], (LARGE / 2) as u64);
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x10], at).expect("written");
}

/// Every way to read the blob ends as `Corrupt`.
async fn is_corrupt(client: &Client, hash: BlobHash) {
    assert_eq!(failed(client.get(&name("k")).await).kind(), Kind::Corrupt);
    assert_eq!(failed(client.get_hash(hash).await).kind(), Kind::Corrupt);
    let streamed = match client.get_stream(&target("k"), Slice::ALL).await {
        Ok(found) => {
            found.expect("it has a name").body.into_stream().try_collect::<Vec<_>>().await.map(|_| ())
        }
        Err(e) => Err(e),
    };
    assert_eq!(failed(streamed).kind(), Kind::Corrupt);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_is_corrupt_at_every_reader_until_the_bytes_are_set_again() {
    let mut global = Global::start(&["--lease", "500ms"]);
    let value = noise(7, LARGE);
    let hash = BlobHash::of(&value);
    global.client().set(&name("k"), value.clone()).await.expect("set");
    global.client().set(&name("other"), value.clone()).await.expect("set");
    flip(&global.data(), hash);
    let (b, c) = (Local::start(&global).await, Local::start(&global).await);
    for _ in 0..2 {
        is_corrupt(&b.client, hash).await;
        is_corrupt(&c.client, hash).await;
        is_corrupt(&global.client(), hash).await;
    }
    assert_eq!(failed(b.client.get(&name("other")).await).kind(), Kind::Corrupt, "whatever its name");
    let status = b.client.status().await.expect("answered");
    assert_eq!(crate::rig::fact(&status, "blobs"), 0, "nothing of it is kept");
    let ended = dstore(global.dir.path(), &["get", "k", "--node", &b.daemon.at.to_string()]);
    let ended = { ended }.output().expect("dstore runs");
    assert_eq!(ended.status.code(), Some(6), "{ended:?}");
    // The mark is journaled, so that no restart forgets it.
    until("the mark is made", async || global.fact("blobs_marked_corrupt").await == 1).await;
    global.daemon.kill();
    global.again();
    for local in [&b, &c] {
        local.follow(&global).await;
        is_corrupt(&local.client, hash).await;
    }
    // The same bytes: they are taken, not believed to be there.
    let again = b.client.set(&name("k"), value.clone()).await.expect("set");
    assert!(matches!(again.outcome, SetOutcome::Unchanged(ref entry) if entry.hash == hash), "{again:?}");
    for client in [&b.client, &c.client, &global.client()] {
        for key in ["k", "other"] {
            assert!(client.get(&name(key)).await.expect("healed").expect("found").bytes == value);
        }
        assert!(client.get_hash(hash).await.expect("healed").expect("found").bytes == value);
    }
    global.daemon.kill();
    global.again();
    assert!(global.client().get(&name("k")).await.expect("healed for good").expect("found").bytes == value);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_that_arrive_damaged_are_fetched_once_more_before_the_caller_hears_of_it() {
    let global = Global::start(&["--lease", "500ms"]);
    let local = Local::start(&global).await;
    let arrivals =
        async || crate::rig::fact(&local.client.status().await.expect("answered"), "corrupt_arrivals");
    for (key, times) in [("once", 1), ("always", 1 << 40)] {
        let value = noise(times, LARGE);
        global.client().set(&name(key), value.clone()).await.expect("set");
        local.wire.disturb(times);
        let got = local.client.get(&name(key)).await;
        match times {
            1 => {
                assert!(local.wire.is_calm(), "it was disturbed");
                assert!(got.expect("whole the second time").expect("found").bytes == value);
            }
            _ => assert_eq!(failed(got.map(|_| ())).kind(), Kind::Corrupt, "it is not tried for ever"),
        }
        local.wire.disturb(0);
        let again = local.client.get(&name(key)).await.expect("answered").expect("found");
        assert!(again.bytes == value, "{key}: nothing damaged was kept");
    }
    assert_eq!(arrivals().await, 2, "once each");
}

/// The first half of `value` in pieces, and then an error or nothing for ever.
fn half(value: &[u8], fails: bool) -> BodyStream {
    let value = Bytes::copy_from_slice(&value[..value.len() / 2]);
    let starts = (0..value.len()).step_by(PIECE);
    let pieces: Vec<_> = starts.map(|at| Ok(value.slice(at..value.len().min(at + PIECE)))).collect();
    let rest = if fails {
        stream::iter([Err(Error::invalid("the source has gone"))]).boxed()
    } else {
        stream::pending().boxed()
    };
    Box::pin(stream::iter(pieces).chain(rest))
}

async fn left_nothing(global: &Global, client: &Client, value: &[u8]) {
    until("staging is empty", async || global.staged() == 0).await;
    assert!(client.get(&name("half")).await.expect("answered").is_none(), "no name");
    for bytes in [value, &value[..value.len() / 2]] {
        let hash = Target::Hash(BlobHash::of(bytes));
        assert!(client.stat(&hash).await.expect("answered").is_none(), "no blob");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_ends_at_half_leaves_no_name_no_blob_and_an_empty_staging() {
    let global = Global::start(&["--lease", "500ms"]);
    let local = Local::start(&global).await;
    let value = noise(9, LARGE);
    for client in [&local.client, &global.client()] {
        // The source fails.
        failed(client.set_stream(Some(&name("half")), half(&value, true)).await);
        left_nothing(&global, client, &value).await;
        // The caller goes away.
        let (going, body) = (client.clone(), half(&value, false));
        let task = tokio::spawn(async move { going.set_stream(Some(&name("half")), body).await });
        until("half is staged", async || global.staged() == 1).await;
        task.abort();
        left_nothing(&global, client, &value).await;
    }
    assert_eq!(global.fact("blobs_about").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_whose_process_is_killed_at_half_leaves_nothing() {
    let mut global = Global::start(&["--lease", "500ms"]);
    let mut local = Local::start(&global).await;
    let value = noise(11, LARGE);
    let begin = |at: &str| {
        let mut child = dstore(global.dir.path(), &["set", "half", "-", "--node", at]);
        let mut child = child.stdin(Stdio::piped()).spawn().expect("dstore runs");
        child.stdin.as_mut().expect("piped").write_all(&value[..LARGE / 2]).expect("written");
        child
    };
    // The uploader.
    for at in [&local.daemon.at, &global.daemon.at] {
        let mut uploader = begin(&at.to_string());
        until("half is staged", async || global.staged() == 1).await;
        uploader.kill().expect("killed");
        uploader.wait().expect("ended");
        left_nothing(&global, &local.client, &value).await;
    }
    // The Local that passes it on.
    let uploader = begin(&local.daemon.at.to_string());
    until("half is staged", async || global.staged() == 1).await;
    local.daemon.kill();
    assert_eq!(uploader.wait_with_output().expect("ended").status.code(), Some(4));
    left_nothing(&global, &global.client(), &value).await;
    local.again().await;
    // Global itself.
    let uploader = begin(&local.daemon.at.to_string());
    until("half is staged", async || global.staged() == 1).await;
    global.daemon.kill();
    global.again();
    local.wire.point_to(&global.daemon.at);
    assert_eq!(uploader.wait_with_output().expect("ended").status.code(), Some(4));
    local.follow(&global).await;
    left_nothing(&global, &local.client, &value).await;
    // And it goes on: the whole of it is stored.
    local.client.set(&name("half"), value.clone()).await.expect("set");
    assert!(client(&global.daemon.at).get(&name("half")).await.expect("ok").expect("found").bytes == value);
    assert_eq!(global.staged(), 0);
}
