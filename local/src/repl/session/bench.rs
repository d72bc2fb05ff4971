//! BENCH: how long a SET, a GET that is not held, a GET that is, and a DEL take, seen from this prompt.
//!
//! It uses keys of its own, under a prefix that nobody else has, and removes them, also when it is cancelled.

use super::super::exit;
use super::super::patience::Wait;
use super::super::pretty::size;
use super::super::render::Mode;
use super::hops::short_time;
use super::{Asked, Session, Told};
use bytes::Bytes;
use dstore_client::Client;
use dstore_proto::store::Store;
use dstore_shared::{Key, Name, Namespace, Prefix, Result};
use dstore_sys::Sys;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// One kind of command, timed.
struct Timed {
    what: &'static str,
    times: Vec<Duration>,
}

impl Timed {
    fn at(&self, per_mille: usize) -> Duration {
        let last = self.times.len().saturating_sub(1);
        self.times.get((self.times.len() * per_mille / 1000).min(last)).copied().unwrap_or_default()
    }

    fn rate(&self) -> f64 {
        let all: f64 = self.times.iter().map(Duration::as_secs_f64).sum();
        if all > 0.0 { self.times.len() as f64 / all } else { 0.0 }
    }

    fn line(&self) -> String {
        let [half, most, worst] = [500, 990, 1000].map(|at| short_time(self.at(at)));
        format!("{:<12} p50 {half:>10}  p99 {most:>10}  max {worst:>10}  {:>8.0}/s", self.what, self.rate())
    }

    fn object(&self) -> Value {
        let us = |at| self.at(at).as_nanos() as f64 / 1e3;
        json!({"command": self.what, "p50_us": us(500), "p99_us": us(990), "max_us": us(1000), "per_second": self.rate()})
    }
}

impl<S: Store> Session<S> {
    pub(super) async fn bench(&mut self, count: u64, bytes: u64, mode: Mode) -> io::Result<u8> {
        let asked = Asked { command: "bench", key: None, mode, in_doubt: false, request: None };
        let prefix = Bytes::from(format!("bench:{:032x}:", self.sys.rng.next_u128()));
        let (client, sys) = (self.client.clone(), self.sys.clone());
        let mut all = Vec::new();
        let mut stopped = None;
        for what in ["SET", "GET fetched", "GET held", "DEL"] {
            let mut timed = Timed { what, times: Vec::with_capacity(count as usize) };
            for n in 0..count {
                let mut wait = Wait::new(&self.sys, &self.settings, &mut self.interrupts);
                let one = Box::pin(once(&client, &sys, what, (&prefix, n), bytes));
                match wait.on(one, None, &mut self.output).await {
                    Ok(took) => timed.times.push(took),
                    Err(stop) => {
                        stopped = Some(stop);
                        break;
                    }
                }
            }
            timed.times.sort_unstable();
            all.push(timed);
            if stopped.is_some() {
                break;
            }
        }
        if let Some(stop) = stopped {
            self.tidy(&prefix).await;
            return self.stopped(&asked, stop).await;
        }
        let lines = all.iter().map(Timed::line).collect();
        let object = json!({"count": count, "size": bytes, "timed": all.iter().map(Timed::object).collect::<Vec<_>>()});
        self.told(Told::new("bench", lines, object, exit::OK), mode).await?;
        self.output.note(&format!("{count} values of {}, one after another", size(bytes))).await;
        Ok(exit::OK)
    }

    /// Removes what a BENCH left.
    async fn tidy(&mut self, prefix: &Bytes) {
        let removed = async {
            let whole = Prefix::new(&Namespace::default(), prefix)?;
            self.client.delete_prefix(&whole).await
        };
        let limit = self.settings.patience.give_up_after;
        let told = match tokio::time::timeout(limit, removed).await {
            Ok(Ok(_)) => return,
            Ok(Err(e)) => super::failure(&e),
            Err(_) => "no answer".to_owned(),
        };
        let prefix = super::super::escape::escape(prefix);
        self.output.note(&format!("its keys could not be removed, {told}: `DEL PREFIX {prefix}`")).await;
    }
}

/// One command; the value of each key is another, so that nothing is shared.
async fn once<S: Store>(
    client: &Client<S>,
    sys: &Sys,
    what: &str,
    (prefix, n): (&Bytes, u64),
    bytes: u64,
) -> Result<Duration> {
    let key = Key::new([&prefix[..], format!("{n:06}").as_bytes()].concat())?;
    let name = Name::new(&Namespace::default(), &key);
    let value = || {
        let begin = [&prefix[..], format!("{n:06}").as_bytes()].concat();
        let mut value = begin.repeat((bytes as usize).div_ceil(begin.len()).max(1));
        value.truncate(bytes as usize);
        value
    };
    let value = if what == "SET" { value() } else { Vec::new() };
    if what == "GET fetched" {
        // Not held any more; a node that cannot forget answers as it does.
        let _ = client.evict(std::slice::from_ref(&name)).await;
    }
    let began = sys.clock.now();
    match what {
        "SET" => _ = client.set(&name, value).await?,
        "DEL" => _ = client.delete(std::slice::from_ref(&name)).await?,
        _ => _ = client.get(&name).await?,
    }
    Ok(sys.clock.now().since(began))
}
