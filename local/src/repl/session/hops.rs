//! What is ours alone: WHY tells how a GET goes, hop by hop; LOCALS who is attached. And STATUS.

use super::super::escape::escape;
use super::super::patience::Wait;
use super::super::pretty::size;
pub(super) use super::super::render::short_time;
use super::super::render::{self, Mode};
use super::super::{exit, json};
use super::look::in_words;
use super::{Asked, Session, Told, name};
use dstore_proto::store::{Attached, Drained, Hop, Locals, Store, Why};
use dstore_shared::Key;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

impl<S: Store> Session<S> {
    pub(super) async fn why(&mut self, key: &Key, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let answer = wait.on(Box::pin(self.client.why(&name(key))), None, &mut self.output).await;
        let took = wait.elapsed();
        let why = match answer {
            Ok(why) => why,
            Err(stop) => {
                let asked = Asked { command: "why", key: Some(key), mode, in_doubt: false, request: None };
                return self.stopped(&asked, stop).await;
            }
        };
        let code = if why.entry.is_some() { exit::OK } else { exit::NOT_FOUND };
        let mut object = why_object(&why, took);
        json::put_key(&mut object, key);
        self.told(Told::new("why", why_lines(&why, took), object, code), mode).await?;
        Ok(code)
    }

    pub(super) async fn locals(&mut self, key: Option<&Key>, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let answer = wait.on(Box::pin(self.client.locals(key.map(name))), None, &mut self.output).await;
        let took = wait.elapsed();
        let locals = match answer {
            Ok(locals) => locals,
            Err(stop) => {
                let asked = Asked { command: "locals", key, mode, in_doubt: false, request: None };
                return self.stopped(&asked, stop).await;
            }
        };
        let rows: Vec<Value> = locals.told.iter().map(local_object).collect();
        let mut object = json!({"count": locals.count, "locals": rows});
        if let Some(key) = key {
            json::put_key(&mut object, key);
        }
        let told = Told::new("locals", local_lines(&locals, key.is_some()), object, exit::OK);
        let header = &["label", "id", "lease_left_ms", "behind", "wildcard", "slow", "holds"];
        self.told(Told { rows: Some((header, rows)), ..told }, mode).await?;
        self.took(took).await;
        Ok(exit::OK)
    }

    pub(super) async fn status(&mut self, mode: Mode) -> io::Result<u8> {
        let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
        let status = match wait.on(self.client.status(), None, &mut self.output).await {
            Ok(status) => status,
            Err(stop) => {
                let asked = Asked { command: "status", key: None, mode, in_doubt: false, request: None };
                return self.stopped(&asked, stop).await;
            }
        };
        match mode {
            Mode::Json | Mode::Jsonl => self.json(json::status(&status)).await?,
            _ => {
                for line in render::status_lines(&status) {
                    self.output.line(&line).await?;
                }
            }
        }
        Ok(if status.serving { exit::OK } else { exit::UNREACHABLE })
    }
}

fn why_lines(why: &Why, took: Duration) -> Vec<String> {
    let row = |hop: &Hop| {
        let (tier, step) = (render::tier_name(hop.tier), escape(hop.step.as_bytes()));
        format!("{tier:<7} {step:<12} {:>10}  {}", short_time(hop.took), escape(hop.told.as_bytes()))
    };
    let mut lines: Vec<String> = why.hops.iter().map(row).collect();
    lines.push(format!("{:<7} {:<12} {:>10}  as it was seen here", "all", "", short_time(took)));
    lines.push(match &why.entry {
        Some(entry) => format!("{} of blake3:{}", size(entry.size), entry.hash),
        None => render::NOWHERE.to_owned(),
    });
    lines.extend(why.drained.as_ref().map(drained_line));
    lines
}

fn drained_line(drained: &Drained) -> String {
    let whom: Vec<String> =
        drained.for_whom.iter().map(|label| format!("`{}`", escape(label.as_bytes()))).collect();
    let whom = if whom.is_empty() { "nobody by name".to_owned() } else { whom.join(", ") };
    let (waited, ago) = (short_time(drained.waited), in_words(drained.ago));
    match drained.revision.0 {
        0 => format!("a change is waiting since {ago}, for {whom}"),
        revision => {
            format!("its change of revision {revision}, {ago} ago, waited {waited}, to the last for {whom}")
        }
    }
}

fn why_object(why: &Why, took: Duration) -> Value {
    let micros = |time: Duration| time.as_nanos() as f64 / 1e3;
    let hop = |hop: &Hop| json!({"tier": render::tier_name(hop.tier), "step": hop.step, "us": micros(hop.took), "told": hop.told});
    json!({
        "outcome": if why.entry.is_some() { "found" } else { "not_found" },
        "hash": why.entry.as_ref().map(|entry| entry.hash.to_string()),
        "size": why.entry.as_ref().map(|entry| entry.size),
        "hops": why.hops.iter().map(hop).collect::<Vec<_>>(),
        "us": micros(took),
        "waited": why.drained.as_ref().map(|drained| json!({
            "revision": drained.revision.0, "us": micros(drained.waited),
            "ago_ms": drained.ago.as_millis() as u64, "for": drained.for_whom,
        })),
    })
}

fn local_object(local: &Attached) -> Value {
    json!({
        "label": local.label, "id": format!("{:032x}", local.id),
        "lease_left_ms": local.lease_left.as_millis() as u64, "behind": local.behind,
        "wildcard": local.wildcard, "slow": local.slow, "holds": local.holds,
    })
}

fn local_lines(locals: &Locals, of_key: bool) -> Vec<String> {
    let told = |local: &Attached| {
        let lease = match local.lease_left {
            Duration::ZERO => "lease run out".to_owned(),
            left => format!("lease {:.1} s more", left.as_secs_f64()),
        };
        let behind = match local.behind {
            0 => "up to date".to_owned(),
            n => format!("{n} behind"),
        };
        let mut line =
            format!("{:08x}  {:<20}  {lease:<16}  {behind}", local.id >> 96, escape(local.label.as_bytes()));
        match (local.holds, local.wildcard) {
            (Some(true), true) => line += "  may hold it (told of everything)",
            (Some(true), false) => line += "  holds it",
            (None | Some(false), true) => line += "  told of everything",
            (None | Some(false), false) => {}
        }
        if local.slow {
            line += "  slow: keeps nothing for a while";
        }
        line
    };
    let mut lines: Vec<String> = locals.told.iter().map(told).collect();
    let over = locals.count.saturating_sub(locals.told.len() as u64);
    if over > 0 {
        lines.push(format!(".. and {over} more"));
    }
    if locals.count == 0 {
        lines.push("no Local is attached".to_owned());
    } else if of_key && !locals.told.iter().any(|local| local.holds == Some(true)) {
        lines.push("nobody holds it".to_owned());
    }
    lines
}
