//! A store in memory that answers as a Local would, with the failures that a test asks for.

use super::*;
use bytes::Bytes;
use dstore_proto::store::{
    Attached, Body, DeleteReply, Drained, Found, FoundMany, Hop, ListQuery, Listing, Locals, Provenance,
    SetOne, SetReply, Slice, Stat, StatMany, Status, Store, Target, Tier, Why,
};
use dstore_proto::watch::{Event, Seen, WatchQuery, Watching};
use dstore_shared::{
    Attributes, Blob, BlobHash, Born, CopyOutcome, CopyResult, Entry, Error, HistoryId, Key, Kind, Name,
    Prefix, PrefixOutcome, RequestId, Result, Revision, SetOutcome,
};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::{Notify, watch};

/// How the store behaves.
#[derive(Clone, Debug)]
pub(super) struct Behaviour {
    pub from: Provenance,
    pub fail: Option<Error>,
    /// Calls that fail before the others succeed; `None` = all.
    pub fail_times: Option<u32>,
    pub hang: bool,
    /// Values come in pieces of this size.
    pub piece: usize,
    /// A stream breaks after this many bytes.
    pub break_after: Option<usize>,
    pub born: Option<Born>,
    pub delay: Duration,
}

impl Default for Behaviour {
    fn default() -> Self {
        let from = Provenance::new(Tier::Local, true, Revision(1));
        let born = Some(Born::default());
        Self {
            from,
            fail: None,
            fail_times: None,
            hang: false,
            piece: 512 << 10,
            break_after: None,
            born,
            delay: Duration::ZERO,
        }
    }
}

#[derive(Default)]
pub(super) struct FakeStore {
    pub how: Mutex<Behaviour>,
    pub blobs: Mutex<HashMap<Name, Bytes>>,
    pub ids: Mutex<Vec<RequestId>>,
    /// Blobs without a name.
    pub staged: Mutex<HashMap<BlobHash, Bytes>>,
    /// Names whose values stay.
    pub pinned: Mutex<HashSet<Name>>,
    /// What SETs said besides their values.
    pub said: Mutex<Vec<Attributes>>,
    /// What a watch tells, in one batch.
    pub events: Mutex<Vec<Event>>,
    /// What watches were asked for.
    pub watched: Mutex<Vec<WatchQuery>>,
    /// Told when a call hangs.
    pub hangs: Notify,
}

impl FakeStore {
    async fn answer<T>(&self, answer: impl FnOnce(Provenance) -> T) -> Result<T> {
        let how = self.how.lock().clone();
        tokio::time::sleep(how.delay).await;
        if how.hang {
            self.hangs.notify_one();
            std::future::pending::<()>().await;
        }
        let spared = how.fail_times == Some(0);
        self.how.lock().fail_times = how.fail_times.map(|times| times.saturating_sub(1));
        // Nothing but a change is ever pending.
        let reads = std::any::type_name::<T>() == std::any::type_name::<Status>();
        match how.fail {
            Some(error) if !(spared || reads && error.kind() == Kind::Pending) => Err(error),
            _ => Ok(answer(how.from)),
        }
    }

    async fn change(&self, name: Name, value: Bytes) -> Result<SetReply> {
        self.answer(|from| {
            let mut blobs = self.blobs.lock();
            let held = blobs.get(&name).cloned();
            let outcome = match held {
                Some(held) if held == value => SetOutcome::Unchanged(entry(&held)),
                Some(held) => SetOutcome::Occupied(entry(&held)),
                None => {
                    let entry = entry(&value);
                    blobs.insert(name, value);
                    SetOutcome::Stored(entry)
                }
            };
            SetReply { outcome, from }
        })
        .await
    }

    async fn copied(&self, id: RequestId, from: &Name, to: Name, unbinds: bool) -> Result<CopyOutcome> {
        self.ids.lock().push(id);
        self.answer(|_| {
            let mut blobs = self.blobs.lock();
            let result = match (blobs.get(from).cloned(), blobs.get(&to)) {
                (None, _) => CopyResult::NotFound,
                (Some(source), Some(held)) if source == *held => CopyResult::Unchanged(entry(held)),
                (Some(_), Some(held)) => CopyResult::Occupied(entry(held)),
                (Some(source), None) => {
                    let entry = entry(&source);
                    blobs.insert(to, source);
                    if unbinds {
                        blobs.remove(from);
                    }
                    CopyResult::Done(entry)
                }
            };
            CopyOutcome { result, revision: Revision(2) }
        })
        .await
    }

    fn by_hash(&self, hash: BlobHash) -> Option<Bytes> {
        let named = self.blobs.lock().values().find(|value| BlobHash::of(value) == hash).cloned();
        named.or_else(|| self.staged.lock().get(&hash).cloned())
    }

    fn body(&self, value: &Bytes) -> Body {
        let how = self.how.lock().clone();
        let whole = value.slice(..how.break_after.unwrap_or(value.len()).min(value.len()));
        let mut pieces: Vec<Result<Bytes>> =
            whole.chunks(how.piece).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        if how.break_after.is_some() {
            pieces.push(Err(Error::new(Kind::Corrupt, "the bytes do not match: set them again")));
        }
        Body::Stream(Box::pin(stream::iter(pieces)))
    }
}

fn entry(value: &[u8]) -> Entry {
    let blob = Blob::hash(value.to_vec());
    Entry { hash: blob.id(), size: blob.size(), bind_rev: Revision(1), expires_at: None, content_type: None }
}

impl Store for FakeStore {
    fn loss(&self) -> Option<Duration> {
        self.how.lock().from.loss
    }

    async fn get(&self, target: Target, slice: Slice) -> Result<Option<Found>> {
        let value = match target {
            Target::Name(name) => self.blobs.lock().get(&name).cloned(),
            Target::Hash(hash) => self.by_hash(hash),
        };
        let part = |value: &Bytes| -> Result<Body> {
            let range = slice.within(value.len() as u64)?;
            Ok(self.body(&value.slice(range.start as usize..range.end as usize)))
        };
        let found = value.map(|value| Ok::<_, Error>((entry(&value), part(&value)?))).transpose()?;
        self.answer(|from| found.map(|(entry, body)| Found { entry, from, body })).await
    }

    async fn set(&self, id: RequestId, name: Option<Name>, body: Body) -> Result<SetReply> {
        self.ids.lock().push(id);
        let value = body.collect(1 << 30).await?;
        let Some(name) = name else {
            let entry = Entry { bind_rev: Revision(0), ..entry(&value) };
            self.staged.lock().insert(entry.hash, value);
            return self.answer(|from| SetReply { outcome: SetOutcome::Stored(entry), from }).await;
        };
        self.change(name, value).await
    }

    async fn set_as(
        &self,
        id: RequestId,
        name: Option<Name>,
        body: Body,
        attributes: Attributes,
    ) -> Result<SetReply> {
        self.said.lock().push(attributes);
        self.set(id, name, body).await
    }

    async fn bind(&self, id: RequestId, name: Name, hash: BlobHash, _: u64) -> Result<SetReply> {
        self.ids.lock().push(id);
        let staged = self.staged.lock().get(&hash).cloned();
        match staged {
            Some(value) => self.change(name, value).await,
            None => self.answer(|from| SetReply { outcome: SetOutcome::NeedBlob, from }).await,
        }
    }

    async fn delete(&self, id: RequestId, names: Vec<Name>) -> Result<DeleteReply> {
        self.ids.lock().push(id);
        self.answer(|from| {
            let mut blobs = self.blobs.lock();
            let removed = names.iter().map(|name| blobs.remove(name).is_some()).collect();
            DeleteReply { removed, revision: Revision(2), stale: from.stale_for }
        })
        .await
    }

    async fn get_many(&self, _: Vec<Name>) -> Result<FoundMany> {
        self.answer(|_| FoundMany { found: Vec::new(), revision: Revision(1) }).await
    }

    async fn set_many(&self, _: Vec<SetOne>) -> Result<Vec<Result<SetReply>>> {
        self.answer(|_| Vec::new()).await
    }

    async fn copy(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, &from, to, false).await
    }

    async fn rename(&self, id: RequestId, from: Name, to: Name) -> Result<CopyOutcome> {
        self.copied(id, &from, to, true).await
    }

    async fn stat_many(&self, names: Vec<Name>) -> Result<StatMany> {
        let held: Vec<_> = names.iter().map(|name| self.blobs.lock().get(name).cloned()).collect();
        let stat = |from| move |value: Option<Bytes>| value.map(|value| Stat { entry: entry(&value), from });
        self.answer(|from| StatMany {
            stats: held.into_iter().map(stat(from)).collect(),
            revision: Revision(1),
        })
        .await
    }

    async fn exists(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        let exists = names.iter().map(|name| self.blobs.lock().contains_key(name)).collect();
        self.answer(|_| exists).await
    }

    async fn delete_prefix(&self, id: RequestId, prefix: Prefix) -> Result<PrefixOutcome> {
        self.ids.lock().push(id);
        self.answer(|_| {
            let mut blobs = self.blobs.lock();
            let before = blobs.len();
            blobs.retain(|name, _| !prefix.covers(name));
            PrefixOutcome { removed: (before - blobs.len()) as u64, revision: Revision(2) }
        })
        .await
    }

    async fn stat(&self, target: Target) -> Result<Option<Stat>> {
        let value = match target {
            Target::Name(name) => self.blobs.lock().get(&name).cloned(),
            Target::Hash(hash) => self.by_hash(hash),
        };
        self.answer(|from| value.map(|value| Stat { entry: entry(&value), from })).await
    }

    async fn list(&self, query: ListQuery) -> Result<Listing> {
        let mut names: Vec<(Key, Entry)> = self
            .blobs
            .lock()
            .iter()
            .map(|(name, value)| (name.key(), entry(value)))
            .filter(|(key, _)| key.as_bytes().starts_with(&query.prefix))
            .filter(|(key, _)| query.after.as_ref().is_none_or(|after| key > after))
            .collect();
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        let more = names.len() > query.limit;
        names.truncate(query.limit);
        let next = names.last().map(|(key, _)| key.clone()).filter(|_| more);
        self.answer(|from| Listing { names, next, from }).await
    }

    async fn locals(&self, name: Option<Name>) -> Result<Locals> {
        let local = |label: &str, behind, holds| Attached {
            label: label.to_owned(),
            id: 0xabcd << 112,
            lease_left: Duration::from_millis(1900),
            behind,
            wildcard: false,
            slow: false,
            holds: name.as_ref().map(|_| holds),
        };
        let told = vec![local("process 7", 0, true), local("evil\x1b[2J", 3, false)];
        self.answer(|_| Locals { told, count: 2 }).await
    }

    async fn why(&self, name: Name) -> Result<Why> {
        let value = self.blobs.lock().get(&name).cloned();
        let hop = |tier, step, us, told: &str| Hop::new(tier, step, Duration::from_micros(us), told);
        let hops = vec![
            hop(Tier::Local, "lookup", 1, "not held: global is asked"),
            hop(Tier::Global, "disk", 2500, "5 B read\x1b"),
        ];
        let drained = Drained {
            revision: Revision(7),
            ago: Duration::from_secs(90),
            waited: Duration::from_millis(250),
            for_whom: vec!["process 7".into()],
        };
        self.answer(|_| Why { entry: value.map(|value| entry(&value)), hops, drained: Some(drained) }).await
    }

    async fn evict(&self, names: Vec<Name>) -> Result<Vec<bool>> {
        let held = names.iter().map(|name| self.blobs.lock().contains_key(name)).collect();
        self.answer(|_| held).await
    }

    async fn pin(&self, names: Vec<Name>, keep: bool) -> Result<Vec<bool>> {
        let done = {
            let (mut pinned, blobs) = (self.pinned.lock(), self.blobs.lock());
            let one = |name: Name| match keep {
                true if blobs.contains_key(&name) => {
                    pinned.insert(name);
                    true
                }
                true => false,
                false => pinned.remove(&name),
            };
            names.into_iter().map(one).collect()
        };
        self.answer(|_| done).await
    }

    async fn watch(&self, query: WatchQuery) -> Result<Watching> {
        self.watched.lock().push(query.clone());
        let events = self.events.lock().clone();
        let after = query.after.unwrap_or(Revision(1));
        let batches = stream::iter([Ok(Seen { through: Revision(9), events })]).chain(stream::pending());
        let history = HistoryId(7);
        self.answer(|_| Watching { history, after, batches: Box::pin(batches) }).await
    }

    async fn status(&self) -> Result<Status> {
        let born = self.how.lock().born;
        self.answer(|from| Status {
            tier: from.tier,
            version: "0.1.0".into(),
            serving: born.is_some(),
            born,
            revision: Revision(1),
            lease: Duration::from_secs(2),
            facts: Vec::new(),
        })
        .await
    }
}

/// What a session wrote, and how it ended.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Ran {
    pub code: u8,
    pub out: String,
    pub err: String,
}

/// A session over a fake store, and both ends of its outputs.
pub(super) struct Stage {
    pub outside: Arc<Drawer>,
    pub store: Arc<FakeStore>,
    pub settings: Settings,
    pub screen: Screen,
    pub bail: bool,
    pub ctrl_c: watch::Sender<u64>,
}

impl Stage {
    pub fn new() -> Self {
        let settings = Settings {
            address: "127.0.0.1:50052".into(),
            mode: Mode::Text,
            one_shot: false,
            chatty: false,
            patience: Patience {
                note_after: Duration::from_secs(20),
                give_up_after: Duration::from_secs(40),
            },
        };
        let (store, screen, bail, ctrl_c) = (Arc::default(), Screen::default(), false, watch::Sender::new(0));
        Self { outside: Arc::default(), store, settings, screen, bail, ctrl_c }
    }

    /// For tests of a node that does not answer.
    pub fn impatient() -> Self {
        let mut stage = Self::new();
        let (note_after, give_up_after) = (Duration::from_millis(60), Duration::from_millis(500));
        stage.settings.patience = Patience { note_after, give_up_after };
        stage
    }

    pub fn how(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut self.store.how.lock());
    }

    pub fn session(&self, out: Sink, err: Sink) -> Session<FakeStore> {
        let output = Output::new(out, err, self.screen);
        Session::new(
            self.store.clone(),
            dstore_sys::Sys::real(),
            self.settings.clone(),
            output,
            self.ctrl_c.subscribe(),
        )
        .with_outside(self.outside.clone())
    }

    /// Runs a script given with `-c`.
    pub async fn script(&self, text: impl Into<Bytes>) -> Ran {
        self.run(Input::script(text)).await
    }

    /// Runs lines given on standard input.
    pub async fn lines(&self, bytes: &[u8]) -> Ran {
        self.run(Input::lines(std::io::Cursor::new(bytes.to_vec()))).await
    }

    pub async fn run(&self, input: Input) -> Ran {
        self.act(async |session| {
            run(session, &dstore_sys::Sys::real(), input, self.bail).await.expect("the outputs are read")
        })
        .await
    }

    /// Runs `act` on a session and gathers what it wrote.
    pub async fn act(&self, act: impl AsyncFnOnce(&mut Session<FakeStore>) -> u8) -> Ran {
        let ((out, out_end), (err, err_end)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(1 << 16));
        let acting = async {
            let mut session = self.session(Box::new(out), Box::new(err));
            act(&mut session).await
        };
        let (code, out, err) = tokio::join!(acting, gather(out_end), gather(err_end));
        Ran { code, out, err }
    }
}

async fn gather(mut end: DuplexStream) -> String {
    let mut bytes = Vec::new();
    end.read_to_end(&mut bytes).await.expect("read");
    String::from_utf8(bytes).unwrap_or_else(|e| e.into_bytes().escape_ascii().to_string())
}

/// A command, and what it was given.
pub(super) type Piped = (String, Vec<u8>);

/// Files and commands in memory.
#[derive(Default)]
pub(super) struct Drawer {
    pub files: Arc<Mutex<HashMap<PathBuf, Vec<u8>>>>,
    /// What commands were given, in order.
    pub piped: Arc<Mutex<Vec<Piped>>>,
}

/// Bytes that are written, to be put in their place at the end.
fn writing(done: impl FnOnce(Vec<u8>) -> u8 + Send + 'static) -> Writing {
    let (sink, mut end) = tokio::io::duplex(1 << 26);
    let done = async move {
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).await.expect("read");
        Ok(done(bytes))
    };
    Writing { sink: Box::new(sink), done: Box::pin(done) }
}

impl Outside for Drawer {
    fn open<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Source>> {
        let found = self.files.lock().get(path).cloned();
        let found = found.ok_or_else(|| Error::invalid(format!("`{}` cannot be read", path.display())));
        Box::pin(async move { Ok(Box::new(std::io::Cursor::new(found?)) as Source) })
    }

    fn create<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Writing>> {
        let (files, path) = (self.files.clone(), path.to_owned());
        Box::pin(async move {
            Ok(writing(move |bytes| {
                files.lock().insert(path, bytes);
                0
            }))
        })
    }

    fn pipe<'a>(&'a self, command: &'a OsStr) -> BoxFuture<'a, Result<Writing>> {
        let (piped, command) = (self.piped.clone(), command.to_string_lossy().into_owned());
        Box::pin(async move {
            Ok(writing(move |bytes| {
                let code = u8::from(command.contains("false"));
                piped.lock().push((command, bytes));
                code
            }))
        })
    }

    fn edit<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move { Ok(text.to_owned()) })
    }
}
