//! WATCH as a session answers it: above the prompt while a person goes on typing, else until its end.
//!
//! Invariants: at most [`WATCHES_MAX`] watches above a prompt, each a task of the session; what the terminal does not take
//! in time is counted and left out, so that a watch waits for nobody.

use super::super::escape::escape;
use super::super::keys::Keys;
use super::super::patience::{Stop, pressed};
use super::super::render::{self, Mode};
use super::super::{exit, json};
use super::{Asked, Session, Told};
use bytes::Bytes;
use dstore_client::{Client, WatchQuery};
use dstore_proto::store::{ListQuery, Store};
use dstore_proto::watch::Happened;
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{Kind, Namespace, Result, Revision};
use dstore_sys::Sys;
use dstore_sys::tasks::Tasks;
use serde_json::json;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Watches above one prompt.
const WATCHES_MAX: usize = 8;
/// Lines of one batch that are shown; the others are counted.
const LINES_MAX: usize = 50;

/// Prints lines above a prompt. It may wait for the terminal, so it is called where waiting is allowed.
pub type Printer = Arc<dyn Fn(String) + Send + Sync>;

/// Where a prompt is, and what is shown above it.
pub(super) struct Above {
    printer: Printer,
    tasks: Tasks,
    /// What learns of keys.
    keys: Tasks,
    watches: usize,
}

impl fmt::Debug for Above {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Above({} watches)", self.watches)
    }
}

impl Drop for Above {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.keys.cancel();
    }
}

impl Above {
    pub fn new(printer: Printer) -> Self {
        Self { printer, tasks: Tasks::new(), keys: Tasks::new(), watches: 0 }
    }

    /// Begins to learn which keys there are, beside the prompt.
    pub fn follow<S: Store>(&self, client: Client<S>, keys: Keys, sys: Sys) {
        self.keys.spawn("keys for completion", follow(client, keys, sys));
    }
}

impl<S: Store> Session<S> {
    pub(super) async fn watch(
        &mut self,
        prefix: Bytes,
        after: Option<u64>,
        count: Option<u64>,
        mode: Mode,
    ) -> io::Result<u8> {
        if count.is_none() && self.above.is_some() {
            return self.watch_above(prefix, after, mode).await;
        }
        self.watch_here(prefix, after, count, mode).await
    }

    /// Begins a watch whose events are told above the prompt.
    async fn watch_above(&mut self, prefix: Bytes, after: Option<u64>, mode: Mode) -> io::Result<u8> {
        let shown = escape(&prefix);
        let asked = Asked { command: "watch", key: None, mode, in_doubt: false, request: None };
        let Some(above) = &mut self.above else { return Ok(exit::OK) };
        if above.watches >= WATCHES_MAX {
            let e = dstore_shared::Error::exhausted(format!(
                "there are {WATCHES_MAX} watches above the prompt: end them with `UNWATCH`"
            ));
            return self.stopped(&asked, Stop::Failed(e)).await;
        }
        above.watches += 1;
        let query =
            WatchQuery { namespace: Namespace::default(), prefix, after: after.map(Revision), history: None };
        let (mut watch, printer, blocking) =
            (self.client.watch(query), above.printer.clone(), self.sys.blocking);
        above.tasks.spawn("watch above the prompt", async move {
            loop {
                let (lines, ended) = match watch.next().await {
                    Ok(seen) if seen.events.is_empty() => continue,
                    Ok(seen) => {
                        let over = seen.events.len().saturating_sub(LINES_MAX);
                        let mut lines: Vec<String> = seen
                            .events
                            .iter()
                            .take(LINES_MAX)
                            .map(|event| match mode {
                                Mode::Json | Mode::Jsonl => json::event(event),
                                _ => render::short_event_line(event),
                            })
                            .collect();
                        if over > 0 {
                            lines.push(format!(".. and {over} more"));
                        }
                        (lines, false)
                    }
                    Err(e) => (vec![format!("the watch has ended: {}", super::failure(&e))], true),
                };
                let printer = printer.clone();
                blocking.run(move || printer(lines.join("\n") + "\n")).await;
                if ended {
                    return;
                }
            }
        });
        let of =
            if shown.is_empty() { "all keys".to_owned() } else { format!("keys that begin with `{shown}`") };
        self.output
            .note(&format!("watching {of}: events are told above the prompt; `UNWATCH` ends it"))
            .await;
        Ok(exit::OK)
    }

    /// Ends the watches above the prompt.
    pub(super) async fn unwatch(&mut self, mode: Mode) -> io::Result<u8> {
        let ended = match &mut self.above {
            Some(above) => {
                above.tasks.cancel();
                above.tasks = Tasks::new();
                std::mem::take(&mut above.watches)
            }
            None => 0,
        };
        let line = match ended {
            0 => "no watch is above the prompt".to_owned(),
            1 => "1 watch ended".to_owned(),
            n => format!("{n} watches ended"),
        };
        self.told(Told::new("unwatch", vec![line], json!({"ended": ended}), exit::OK), mode).await?;
        Ok(exit::OK)
    }

    /// Tells each event as it comes, until there were `count` or Ctrl-C is pressed.
    async fn watch_here(
        &mut self,
        prefix: Bytes,
        after: Option<u64>,
        count: Option<u64>,
        mode: Mode,
    ) -> io::Result<u8> {
        let query =
            WatchQuery { namespace: Namespace::default(), prefix, after: after.map(Revision), history: None };
        self.interrupts.mark_unchanged();
        if self.settings.chatty {
            self.output.note("watching, Ctrl-C ends it").await;
        }
        let (mut watch, mut left) = (self.client.watch(query), count.unwrap_or(u64::MAX));
        let mut labelled = false;
        while left > 0 {
            let next = tokio::select! {
                biased;
                () = pressed(&mut self.interrupts) => return Ok(exit::INTERRUPTED),
                next = watch.next() => next,
            };
            let events = match next {
                Ok(seen) => {
                    if !labelled {
                        labelled = true;
                        self.label().await;
                    }
                    seen.events
                }
                Err(e) => {
                    let asked = Asked { command: "watch", key: None, mode, in_doubt: false, request: None };
                    return self.stopped(&asked, Stop::Failed(e)).await;
                }
            };
            let shown = usize::try_from(left).unwrap_or(usize::MAX).min(events.len());
            let loss = self.client.loss();
            let text: String = events[..shown]
                .iter()
                .map(|event| match mode {
                    Mode::Json | Mode::Jsonl => json::labelled(json::event(event), loss) + "\n",
                    _ => render::event_line(event) + "\n",
                })
                .collect();
            let write = async {
                self.output.bytes(text.as_bytes()).await?;
                self.output.flush().await
            };
            tokio::select! {
                biased;
                () = pressed(&mut self.interrupts) => return Ok(exit::INTERRUPTED),
                written = write => written?,
            }
            left -= shown as u64;
        }
        Ok(exit::OK)
    }
}

/// How long to wait after a failure of learning keys: a person at a prompt does without.
const AGAIN: Duration = Duration::from_secs(5);
/// The longest pause after several refusals; then all is looked at anew.
const AGAIN_MAX: Duration = Duration::from_secs(300);

/// Learns which keys there are, then what becomes of them. A walk takes at most half of the time, so that it is in
/// nobody's way; more keys than can be remembered are not asked for.
async fn follow<S: Store>(client: Client<S>, keys: Keys, sys: Sys) {
    loop {
        let Ok(mut since) = walk(&client, &keys, &sys).await else {
            tokio::time::sleep(sys.rng.jitter(AGAIN)).await;
            continue;
        };
        // A node without a place for another watch is not walked through for each refusal.
        let mut pause = AGAIN;
        while pause <= AGAIN_MAX {
            match watch_keys(&client, &keys, &mut since).await {
                Ok(()) => pause = AGAIN,
                Err(e) if e.kind() == Kind::TooOld => break,
                Err(_) => pause *= 2,
            }
            tokio::time::sleep(sys.rng.jitter(pause)).await;
        }
    }
}

/// Learns what becomes of the keys after `since`, which moves along. `Ok`: it did, until the watch ended.
async fn watch_keys<S: Store>(client: &Client<S>, keys: &Keys, since: &mut Revision) -> Result<()> {
    let (namespace, prefix) = (Namespace::default(), Bytes::new());
    let mut watch = client.watch(WatchQuery { namespace, prefix, after: Some(*since), history: None });
    let mut seen_any = false;
    loop {
        match watch.next().await {
            Ok(seen) => {
                (*since, seen_any) = (seen.through, true);
                for event in seen.events {
                    match event.happened {
                        Happened::Bound(entry) => keys.learn([(&event.key, entry.size)], None),
                        Happened::Unbound(_) => keys.gone(&event.key),
                    }
                }
            }
            Err(e) if seen_any && e.kind() != Kind::TooOld => return Ok(()),
            Err(e) => return Err(e),
        }
    }
}

/// Walks over all keys; gives the revision from which on their changes are not known.
async fn walk<S: Store>(client: &Client<S>, keys: &Keys, sys: &Sys) -> Result<Revision> {
    let (mut after, mut since) = (None, None);
    loop {
        let began = sys.clock.now();
        let (namespace, prefix) = (Namespace::default(), Bytes::new());
        let page = client.list(&ListQuery { namespace, prefix, after, limit: LIST_NAMES_MAX }).await?;
        keys.learn(page.names.iter().map(|(key, entry)| (key, entry.size)), None);
        let since = *since.get_or_insert(page.from.revision);
        match page.next {
            Some(next) if keys.has_room() => after = Some(next),
            _ => return Ok(since),
        }
        tokio::time::sleep(sys.clock.now().since(began)).await;
    }
}
