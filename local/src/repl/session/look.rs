//! What looks at keys without their values: STAT, EXISTS, SAME, LS.

use super::super::command::{Command, Line, List, What};
use super::super::escape::escape;
use super::super::patience::Wait;
use super::super::pretty::size;
use super::super::render::{self, Mode};
use super::super::{exit, json};
use super::{Asked, Footer, Session, Step, Told, name, target};
use dstore_proto::store::{ListQuery, Listing, Stat, Store};
use dstore_shared::{Entry, Key, Name, Namespace};
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

fn asked<'a>(command: &'static str, key: Option<&'a Key>, mode: Mode) -> Asked<'a> {
    Asked { command, key, mode, in_doubt: false, request: None }
}

impl<S: Store> Session<S> {
    pub(super) async fn stat(&mut self, what: &What, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let target = target(what);
        let answer = wait.on(Box::pin(self.client.stat(&target)), None, &mut self.output).await;
        let took = wait.elapsed();
        let stat = match answer {
            Ok(Some(stat)) => stat,
            Ok(None) => return self.nowhere("stat", what, mode).await,
            Err(stop) => return self.stopped(&asked("stat", what.key(), mode), stop).await,
        };
        self.keys.saw(what.key(), stat.entry.size, stat.from.cached);
        let rows = stat_rows(&stat);
        let lines = rows.iter().map(|(name, value)| format!("{name:<9}{value}")).collect();
        let mut object = json!({
            "outcome": "found", "hash": stat.entry.hash.to_string(), "size": stat.entry.size,
            "bind_revision": stat.entry.bind_rev.0,
            "content_type": stat.entry.content_type.as_ref().map(ToString::to_string),
            "ttl_ms": stat.left().map(|left| left.as_millis() as u64),
            "tier": render::tier_name(stat.from.tier), "revision": stat.from.revision.0,
        });
        json::put_what(&mut object, what);
        self.told(Told::new("stat", lines, object, exit::OK), mode).await?;
        self.footer(&Footer { hash: None, ..Footer::of(&stat.entry, stat.from, took) }).await;
        Ok(exit::OK)
    }

    pub(super) async fn exists(&mut self, keys: &[Key], mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let names: Vec<Name> = keys.iter().map(name).collect();
        let answer = wait.on(Box::pin(self.client.exists(&names)), None, &mut self.output).await;
        let took = wait.elapsed();
        let there = match answer {
            Ok(there) => there,
            Err(stop) => return self.stopped(&asked("exists", None, mode), stop).await,
        };
        let lines = there.iter().map(|yes| if *yes { EXISTS } else { render::NOWHERE }.to_owned()).collect();
        let one = |(key, yes): (&Key, &bool)| {
            let mut one = json!({"exists": yes});
            json::put_key(&mut one, key);
            one
        };
        let object = json!({"keys": keys.iter().zip(&there).map(one).collect::<Vec<_>>()});
        let code = if there.iter().all(|yes| *yes) { exit::OK } else { exit::NOT_FOUND };
        self.told(Told::new("exists", lines, object, code), mode).await?;
        self.took(took).await;
        Ok(code)
    }

    pub(super) async fn same(&mut self, (a, b): (&Key, &Key), mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let names = [name(a), name(b)];
        let answer = wait.on(Box::pin(self.client.stat_many(&names)), None, &mut self.output).await;
        let took = wait.elapsed();
        let stats = match answer {
            Ok(many) => many.stats,
            Err(stop) => return self.stopped(&asked("same", Some(a), mode), stop).await,
        };
        let hash = |at: usize| stats.get(at).and_then(Option::as_ref).map(|stat| stat.entry.hash);
        let (line, outcome, code) = match (hash(0), hash(1)) {
            (Some(a), Some(b)) if a == b => ("same", "same", exit::OK),
            (Some(_), Some(_)) => ("different", "different", exit::NOT_FOUND),
            _ => (render::NOWHERE, "not_found", exit::NOT_FOUND),
        };
        let mut object = json!({
            "outcome": outcome,
            "hash": hash(0).map(|hash| hash.to_string()), "other_hash": hash(1).map(|hash| hash.to_string()),
        });
        json::put_key(&mut object, a);
        json::put_bytes(&mut object, "other", b.as_bytes());
        self.told(Told::new("same", vec![line.to_owned()], object, code), mode).await?;
        for (key, hash) in [(a, hash(0)), (b, hash(1))] {
            let key = escape(key.as_bytes());
            match hash {
                Some(hash) => self.output.note(&format!("{key}: blake3:{hash}")).await,
                None => self.output.note(&format!("{key}: not there")).await,
            }
        }
        self.took(took).await;
        Ok(code)
    }

    /// One page; a person is asked whether there is to be another.
    pub(super) async fn list(&mut self, list: List, mode: Mode) -> io::Result<Step> {
        let limit = list.limit.unwrap_or(self.manner.limit);
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let (namespace, prefix, after) = (Namespace::default(), list.prefix.clone(), list.after.clone());
        let query = ListQuery { namespace, prefix, after, limit };
        let answer = wait.on(Box::pin(self.client.list(&query)), None, &mut self.output).await;
        let took = wait.elapsed();
        let Listing { names, next, .. } = match answer {
            Ok(listing) => listing,
            Err(stop) => return self.stopped(&asked("ls", None, mode), stop).await.map(Step::Next),
        };
        self.keys.learn(names.iter().map(|(key, entry)| (key, entry.size)), None);
        let told = listed(&names, &list, next.as_ref());
        let n = names.len();
        self.told(told, mode).await?;
        let Some(next) = next else {
            if self.settings.chatty {
                self.output.note(&format!("{n} {}", if n == 1 { "key" } else { "keys" })).await;
            }
            self.took(took).await;
            return Ok(Step::Next(exit::OK));
        };
        let line =
            Line { command: Command::List(List { after: Some(next.clone()), ..list }), mode: Some(mode) };
        if self.settings.chatty && self.manner.pager {
            let question = format!("{n} keys; more? [Y/n] ");
            return Ok(Step::More { question, then: Box::new(line) });
        }
        let after = super::super::scan::quote(next.as_bytes());
        self.output.note(&format!("more: add `--after {after}`")).await;
        Ok(Step::Next(exit::OK))
    }
}

/// Of each key of EXISTS that is there.
const EXISTS: &str = "Key exists";

/// A page as it is written.
fn listed(names: &[(Key, Entry)], list: &List, next: Option<&Key>) -> Told {
    let short = |entry: &Entry| {
        format!("{:>10}  {}  {:>8}", size(entry.size), entry.hash.fmt_short(), entry.bind_rev)
    };
    let line = |(key, entry): &(Key, Entry)| {
        let key = escape(key.as_bytes());
        if list.long { format!("{}  {key}", short(entry)) } else { key }
    };
    let object_of = |(key, entry): &(Key, Entry)| {
        let mut one = json!({
            "size": entry.size, "hash": entry.hash.to_string(), "bind_revision": entry.bind_rev.0,
        });
        json::put_key(&mut one, key);
        one
    };
    let rows: Vec<Value> = names.iter().map(object_of).collect();
    let mut object = json!({"keys": rows});
    if let Some(next) = next {
        json::put_bytes(&mut object, "next", next.as_bytes());
    }
    let told = Told::new("ls", names.iter().map(line).collect(), object, exit::OK);
    Told { rows: Some((&["key", "size", "hash", "bind_revision"], rows)), ..told }
}

fn stat_rows(stat: &Stat) -> Vec<(&'static str, String)> {
    let Stat { entry, from } = stat;
    let exact = if entry.size < 1024 { String::new() } else { format!(" ({} B)", entry.size) };
    let mut rows = vec![("hash", format!("blake3:{}", entry.hash)), ("size", size(entry.size) + &exact)];
    if entry.bind_rev.0 > 0 {
        rows.push(("bound", format!("revision {}", entry.bind_rev)));
    }
    if let Some(words) = &entry.content_type {
        rows.push(("type", escape(words.as_str().as_bytes())));
    }
    if let Some(left) = stat.left() {
        rows.push(("lives", format!("{} more", in_words(left))));
    }
    let whence = if from.cached { "kept by this node" } else { "global says so" };
    rows.push(("known", whence.to_owned()));
    rows
}

/// A time for people, to the second.
pub(super) fn in_words(time: Duration) -> String {
    let s = time.as_secs();
    match s {
        0 => format!("{} ms", time.as_millis()),
        1..60 => format!("{s} s"),
        60..3_600 => format!("{} min {} s", s / 60, s % 60),
        3_600..86_400 => format!("{} h {} min", s / 3_600, s % 3_600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3_600),
    }
}
