//! The door of a store that takes its time for each call: one request has one deadline for all of them.

use super::{Hosts, HttpDoor};
use bytes::Bytes;
use dstore_proto::IdSource;
use dstore_proto::serve::{Gate, Limits};
use dstore_proto::store::{
    Body, DeleteReply, Found, FoundMany, ListQuery, Listing, Provenance, SetOne, SetReply, Slice, Stat,
    StatMany, Status, Store, Target, Tier,
};
use dstore_proto::watch::{WatchQuery, Watching};
use dstore_shared::{
    Blob, BlobHash, CopyOutcome, Decision, Entry, Name, Prefix, PrefixOutcome, RequestId, Result, Revision,
    SetOutcome, StepOutcome, StepResult, Transaction, TransactionOutcome,
};
use dstore_sys::Sys;
use dstore_sys::net::{Address, MemoryNet};
use dstore_sys::tasks::Tasks;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Knows no name, and stores what it is given, each after a while.
#[derive(Default)]
struct Slow {
    /// What each call takes.
    each: Duration,
    /// Whether a change has come so far.
    is_changed: AtomicBool,
}

impl IdSource for Slow {
    fn next_id(&self) -> Result<RequestId> {
        Ok(RequestId::default())
    }
}

impl Store for Slow {
    async fn get(&self, _: Target, _: Slice) -> Result<Option<Found>> {
        pending().await
    }

    async fn set(&self, _: RequestId, _: Option<Name>, body: Body) -> Result<SetReply> {
        let bytes: Bytes = body.collect(1 << 30).await?;
        tokio::time::sleep(self.each).await;
        let entry = Entry::new(BlobHash::of(&bytes), bytes.len() as u64, Revision(0));
        let from = Provenance::new(Tier::Global, false, Revision(0));
        Ok(SetReply { outcome: SetOutcome::Stored(entry), from })
    }

    async fn bind(&self, _: RequestId, _: Name, _: BlobHash, _: u64) -> Result<SetReply> {
        pending().await
    }

    async fn get_many(&self, _: Vec<Name>) -> Result<FoundMany> {
        pending().await
    }

    async fn set_many(&self, _: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        pending().await
    }

    async fn copy(&self, _: RequestId, _: Name, _: Name) -> Result<CopyOutcome> {
        pending().await
    }

    async fn rename(&self, _: RequestId, _: Name, _: Name) -> Result<CopyOutcome> {
        pending().await
    }

    async fn delete(&self, _: RequestId, _: Vec<Name>) -> Result<DeleteReply> {
        pending().await
    }

    async fn delete_prefix(&self, _: RequestId, _: Prefix) -> Result<PrefixOutcome> {
        pending().await
    }

    async fn apply(&self, _: RequestId, _: Transaction) -> Result<TransactionOutcome> {
        self.is_changed.store(true, Ordering::SeqCst);
        let entry = Entry::new(Blob::hash("v").id(), 1, Revision(1));
        let step = StepOutcome { result: StepResult::Done, old: None, entry: Some(entry), number: None };
        Ok(TransactionOutcome { decision: Decision::Done(vec![step]), revision: Revision(1), at_ms: 1 })
    }

    async fn stat(&self, _: Target) -> Result<Option<Stat>> {
        tokio::time::sleep(self.each).await;
        Ok(None)
    }

    async fn stat_many(&self, _: Vec<Name>) -> Result<StatMany> {
        pending().await
    }

    async fn exists(&self, _: Vec<Name>) -> Result<Vec<bool>> {
        pending().await
    }

    async fn list(&self, _: ListQuery) -> Result<Listing> {
        pending().await
    }

    async fn watch(&self, _: WatchQuery) -> Result<Watching> {
        pending().await
    }

    async fn status(&self) -> Result<Status> {
        pending().await
    }
}

#[tokio::test]
async fn all_that_a_put_asks_of_the_store_ends_by_one_deadline() {
    // A look before the body, the body, a look before the change: each is in time by itself, all of them are not.
    for (each, handler, status, is_changed) in [(400, 1_000, 503, false), (1, 60_000, 201, true)] {
        let ms = Duration::from_millis;
        let store = Arc::new(Slow { each: ms(each), ..Slow::default() });
        let sys = Sys { net: Arc::new(MemoryNet::default()), ..Sys::real() };
        let (tasks, limits) = (Tasks::new(), Limits { handler: ms(handler), ..Limits::default() });
        let bounds = (&limits, 1 << 30);
        let door =
            HttpDoor::new(store.clone(), store.clone(), sys.rng.clone(), &tasks, Hosts::default(), bounds);
        let at = Address::Memory("slow".into());
        let _gate = Gate::open(&sys, &tasks, sys.net.listen(&at).await.expect("free"), door);
        let mut io = sys.net.connect(&at).await.expect("it listens");
        let head =
            "PUT /v1/kv/default/k HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nIf-None-Match: *\r\n";
        io.write_all(format!("{head}Content-Length: 100000\r\n\r\n").as_bytes()).await.expect("sent");
        io.write_all(&vec![b'x'; 100_000]).await.expect("sent");
        let mut told = String::new();
        tokio::time::timeout(Duration::from_secs(60), io.read_to_string(&mut told))
            .await
            .expect("it ends")
            .expect("text");
        assert!(told.starts_with(&format!("HTTP/1.1 {status} ")), "{told}");
        assert_eq!(store.is_changed.load(Ordering::SeqCst), is_changed, "{told}");
    }
}
