//! `committer/<size>`: SETs by 64 waiting tasks in Global's own process, so authority, journal, index and nothing
//! of a network; beside a bare log with the same queue and batching: one write into a segment that was
//! written before, one fdatasync, no index.

use crate::harness::{Contender, Plan, SIZES, Turn, Unit, compare, serial, value};
use crate::node;
use bytes::Bytes;
use dstore_global::{Global, GlobalConfig};
use dstore_proto::IdSource;
use dstore_proto::store::{Body, Store};
use dstore_shared::{Blob, SetOutcome};
use dstore_sys::Sys;
use dstore_sys::tasks::{Blocking, Lane};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;

const CLIENTS: usize = 64;
/// The longest queue and batch, as Global has them.
const QUEUE: (usize, usize) = (65_536, 4096);
/// A turn writes about so much, hashed before it begins.
const TURN_BYTES: usize = 96 << 20;
const TURN_SETS: usize = 40_000;
const SEGMENT_BYTES: u64 = 128 << 20;
const BLOCK: u64 = 4096;

pub fn run(plan: &Plan) {
    let rt =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads can be started");
    let dir = tempfile::tempdir().expect("a directory");
    let config = GlobalConfig::new(dir.path().join("data"));
    let global = rt.block_on(Global::start(Sys::real(), config)).expect("it starts");
    let store = global.store();
    let log = log(&dir.path().join("log"));
    for (label, size) in SIZES {
        let (rt, store, log) = (&rt, store.clone(), log.clone());
        let contenders = vec![
            Contender::new("dstore", move |_| {
                let store = store.clone();
                turn(rt, size, move |blob| {
                    let store = store.clone();
                    async move {
                        let id = store.next_id().expect("it serves");
                        let set =
                            store.set(id, Some(node::name(serial())), Body::Blob(blob)).await.expect("set");
                        assert!(matches!(set.outcome, SetOutcome::Stored(_)));
                    }
                })
            }),
            Contender::new("bare log", move |_| {
                let log = log.clone();
                turn(rt, size, move |blob| {
                    let log = log.clone();
                    async move {
                        let (done, synced) = oneshot::channel();
                        assert!(log.send((blob.bytes().clone(), done)).await.is_ok());
                        synced.await.expect("it is synced");
                    }
                })
            }),
        ];
        compare(plan, &format!("committer/{label}"), "both cores", Unit::PerSecond, contenders);
    }
    drop(store);
    rt.block_on(global.stop()).expect("a clean stop");
}

/// So many SETs by clients that each wait for theirs.
fn turn<F: Future<Output = ()> + Send>(
    rt: &Runtime,
    size: usize,
    set: impl Fn(Blob) -> F + Clone + Send + 'static,
) -> Turn {
    let each = (TURN_BYTES / size).min(TURN_SETS) / CLIENTS;
    let work: Vec<Vec<Blob>> =
        (0..CLIENTS).map(|_| (0..each).map(|_| Blob::hash(value(serial(), size))).collect()).collect();
    rt.block_on(async {
        let began = Instant::now();
        let clients: Vec<_> = work
            .into_iter()
            .map(|blobs| {
                let set = set.clone();
                tokio::spawn(async move {
                    let mut turn = Turn::begin();
                    for blob in blobs {
                        let began = Instant::now();
                        set(blob).await;
                        turn.note(began);
                    }
                    turn
                })
            })
            .collect();
        let mut all = Turn::begin();
        for client in clients {
            all.add(&client.await.expect("no operation failed"));
        }
        all.took = began.elapsed();
        all
    })
}

type Append = (Bytes, oneshot::Sender<()>);

fn log(path: &Path) -> Arc<Lane<Append>> {
    let file = File::create(path).expect("it can be made");
    let zeros = vec![0; 1 << 20];
    for at in (0..SEGMENT_BYTES).step_by(zeros.len()) {
        file.write_all_at(&zeros, at).expect("it can be written");
    }
    file.sync_all().expect("it can be synced");
    let (mut at, mut buffer) = (0, Vec::new());
    let (lane, _end) = Lane::start(Blocking::Threads, "bare-log", QUEUE, move |jobs: &mut Vec<Append>| {
        buffer.clear();
        for (bytes, _) in &*jobs {
            buffer.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
            buffer.extend_from_slice(bytes);
        }
        let len = (buffer.len() as u64).next_multiple_of(BLOCK);
        buffer.resize(len as usize, 0);
        if at + len > SEGMENT_BYTES {
            at = 0;
        }
        file.write_all_at(&buffer, at).expect("it can be written");
        file.sync_data().expect("it can be synced");
        at += len;
        // Whoever has gone away does not wait.
        jobs.drain(..).for_each(|(_, done)| _ = done.send(()));
    });
    Arc::new(lane)
}
