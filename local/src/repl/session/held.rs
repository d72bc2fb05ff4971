//! What a person asks of the node's memory: EVICT, PIN and WARM.

use super::super::command::Warm;
use super::super::escape::escape;
use super::super::outside;
use super::super::patience::{Stop, Wait};
use super::super::pretty::size;
use super::super::render::Mode;
use super::super::{exit, json};
use super::{Asked, Session, Told, name};
use dstore_client::Client;
use dstore_proto::store::{ListQuery, Slice, Store, Target, Tier};
use dstore_shared::limits::{KEY_BYTES_MAX, LIST_NAMES_MAX};
use dstore_shared::{Error, Key, Name, Namespace, Result};
use futures_util::{StreamExt, stream};
use serde_json::json;
use std::fmt::Write;
use std::io;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};

/// Of a key that is pinned, or not.
const PINNED: [&str; 2] =
    ["Key pinned (local)", "Key is not pinned: there is no such key, or no room for it"];
/// Of a key that is not pinned any more, or was not.
const UNPINNED: [&str; 2] = ["Key unpinned (local)", "Key was not pinned"];
/// Values that a WARM fetches at a time: enough to keep the link busy, few enough for others to get through.
const WARMED_AT_ONCE: usize = 16;
/// Bytes of a file of keys.
const KEYS_FILE_BYTES_MAX: u64 = 64 << 20;

impl<S: Store> Session<S> {
    pub(super) async fn evict(&mut self, keys: &[Key], mode: Mode) -> io::Result<u8> {
        let names: Vec<Name> = keys.iter().map(name).collect();
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let answer = wait.on(Box::pin(self.client.evict(&names)), None, &mut self.output).await;
        keys.iter().for_each(|key| self.keys.evicted(key));
        self.done_to("evict", keys, answer, ["Key evicted (local)", "Key is not held (local)"], mode).await
    }

    /// PIN fetches what is not held first.
    pub(super) async fn pin(&mut self, keys: &[Key], keep: bool, mode: Mode) -> io::Result<u8> {
        let names: Vec<Name> = keys.iter().map(name).collect();
        let client = self.client.clone();
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        if keep {
            for name in &names {
                wait.again();
                if let Err(stop) = wait.on(Box::pin(warmed(&client, name)), None, &mut self.output).await {
                    let asked = Asked { command: "pin", key: None, mode, in_doubt: false, request: None };
                    return self.stopped(&asked, stop).await;
                }
            }
        }
        let answer = wait.on(Box::pin(client.pin(&names, keep)), None, &mut self.output).await;
        let (command, texts) = if keep { ("pin", PINNED) } else { ("unpin", UNPINNED) };
        self.done_to(command, keys, answer, texts, mode).await
    }

    /// A line a key: what was done, or not.
    async fn done_to(
        &mut self,
        command: &'static str,
        keys: &[Key],
        answer: Result<Vec<bool>, Stop>,
        [yes, no]: [&str; 2],
        mode: Mode,
    ) -> io::Result<u8> {
        let done = match answer {
            Ok(done) => done,
            Err(stop) => {
                let asked = Asked { command, key: None, mode, in_doubt: false, request: None };
                return self.stopped(&asked, stop).await;
            }
        };
        let lines = done.iter().map(|done| if *done { yes } else { no }.to_owned()).collect();
        let one = |(key, done): (&Key, &bool)| {
            let mut one = json!({"done": done});
            json::put_key(&mut one, key);
            one
        };
        let object = json!({"keys": keys.iter().zip(&done).map(one).collect::<Vec<_>>()});
        let code = if done.iter().all(|done| *done) { exit::OK } else { exit::NOT_FOUND };
        self.told(Told::new(command, lines, object, code), mode).await?;
        Ok(code)
    }

    /// Fetches values into the node: none of their bytes but the first come here.
    pub(super) async fn warm(&mut self, what: &Warm, mode: Mode) -> io::Result<u8> {
        let asked = Asked { command: "warm", key: None, mode, in_doubt: false, request: None };
        let listed = match what {
            Warm::File(path) => match self.outside.open(path).await {
                Ok(file) => Some(keys_in(file).await),
                Err(e) => Some(Err(e)),
            },
            Warm::Prefix(_) => None,
        };
        let mut warmth = Warmth::default();
        let (mut after, mut file) = (None, listed);
        let client = self.client.clone();
        loop {
            let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
            let (names, next) = match (&mut file, what) {
                (Some(keys), _) => match std::mem::replace(keys, Ok(Vec::new())) {
                    Ok(mut keys) => {
                        let rest = keys.split_off(keys.len().min(LIST_NAMES_MAX));
                        let more = !rest.is_empty();
                        *file.get_or_insert_with(|| Ok(Vec::new())) = Ok(rest);
                        (keys, more)
                    }
                    Err(e) => return self.stopped(&asked, Stop::Failed(e)).await,
                },
                (None, Warm::Prefix(prefix)) => {
                    let (namespace, prefix) = (Namespace::default(), prefix.clone());
                    let query = ListQuery { namespace, prefix, after: after.take(), limit: LIST_NAMES_MAX };
                    match wait.on(Box::pin(client.list(&query)), None, &mut self.output).await {
                        Ok(page) => {
                            after = page.next;
                            (page.names.into_iter().map(|(key, _)| key).collect(), after.is_some())
                        }
                        Err(stop) => return self.stopped(&asked, stop).await,
                    }
                }
                (None, Warm::File(_)) => (Vec::new(), false),
            };
            let mut fetches = stream::iter(names)
                .map(|key| {
                    let client = client.clone();
                    async move { warmed(&client, &name(&key)).await }
                })
                .buffer_unordered(WARMED_AT_ONCE);
            loop {
                wait.again();
                let next = async { fetches.next().await.transpose() };
                match wait.on(next, None, &mut self.output).await {
                    Ok(Some(one)) => warmth.add(&one),
                    Ok(None) => break,
                    Err(stop) => {
                        self.output.note(&warmth.line()).await;
                        return self.stopped(&asked, stop).await;
                    }
                }
            }
            if !next {
                break;
            }
        }
        let code = if warmth.nowhere > 0 { exit::NOT_FOUND } else { exit::OK };
        self.told(Told::new("warm", vec![warmth.line()], warmth.object(), code), mode).await?;
        Ok(code)
    }
}

/// What a WARM found.
#[derive(Default)]
struct Warmth {
    fetched: u64,
    fetched_bytes: u64,
    held: u64,
    too_large: u64,
    nowhere: u64,
}

/// What became of one key of it.
enum Warmed {
    Held,
    Fetched(u64),
    TooLarge,
    Nowhere,
}

impl Warmth {
    fn add(&mut self, one: &Warmed) {
        match one {
            Warmed::Held => self.held += 1,
            Warmed::Fetched(bytes) => {
                self.fetched += 1;
                self.fetched_bytes += bytes;
            }
            Warmed::TooLarge => self.too_large += 1,
            Warmed::Nowhere => self.nowhere += 1,
        }
    }

    fn line(&self) -> String {
        let Self { fetched, fetched_bytes, held, too_large, nowhere } = self;
        let keys = |n: u64| if n == 1 { "1 key".to_owned() } else { format!("{n} keys") };
        let mut line = format!("{} fetched ({}), {held} held before", keys(*fetched), size(*fetched_bytes));
        if *too_large > 0 {
            let _ = write!(line, ", {too_large} too large to keep, or no room now");
        }
        if *nowhere > 0 {
            let _ = write!(line, ", {nowhere} not there");
        }
        line
    }

    fn object(&self) -> serde_json::Value {
        json!({
            "fetched": self.fetched, "fetched_bytes": self.fetched_bytes, "held": self.held,
            "not_kept": self.too_large, "not_found": self.nowhere,
        })
    }
}

/// Has the node read a value; the value stays there.
async fn warmed<S: Store>(client: &Client<S>, name: &Name) -> Result<Warmed> {
    let found = client.get_stream(&Target::Name(name.clone()), Slice::ALL).await?;
    Ok(match found {
        None => Warmed::Nowhere,
        Some(found) => match (found.from.tier, found.from.cached) {
            (Tier::Local, _) => Warmed::Held,
            (Tier::Global, true) => Warmed::Fetched(found.entry.size),
            (Tier::Global, false) => Warmed::TooLarge,
        },
    })
}

/// The keys on the lines of a file.
async fn keys_in(file: outside::Source) -> Result<Vec<Key>> {
    let mut lines = BufReader::new(file.take(KEYS_FILE_BYTES_MAX));
    let (mut keys, mut line) = (Vec::new(), Vec::new());
    loop {
        line.clear();
        let read = (&mut lines).take(KEY_BYTES_MAX as u64 + 2).read_until(b'\n', &mut line).await;
        match read {
            Ok(0) => return Ok(keys),
            Ok(_) => {}
            Err(e) => return Err(Error::invalid(format!("the keys cannot be read, {e}: check the file"))),
        }
        let bare = line.strip_suffix(b"\n").unwrap_or(&line);
        let bare = bare.strip_suffix(b"\r").unwrap_or(bare);
        if !bare.is_empty() {
            let n = keys.len() + 1;
            let key = Key::new(bare.to_vec()).map_err(|e| {
                Error::new(
                    e.kind(),
                    format!("line {n}, `{}`: {}", escape(&bare[..bare.len().min(40)]), e.message()),
                )
            })?;
            keys.push(key);
        }
    }
}
