//! A tour: one Global and two Locals in this process, over real connections on the loopback.
//!
//! Each step prints what was done and what came of it, and ends the example if it is not what dstore
//! promises: a hit, a fill, an occupied name, one blob for two names, a delete seen everywhere, a restart.
//!
//! ```text
//! cargo run --example two_tiers
//! ```

use dstore::{
    Address, Client, ClientConfig, Global, GlobalConfig, Local, LocalConfig, Name, Node, Result, SetOutcome,
    Sys, Tier,
};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[tokio::main]
async fn main() -> Result<()> {
    let sys = Sys::real();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let global = start_global(&sys, dir.path(), "127.0.0.1:0".parse()?).await?;
    let at = global.addresses().remove(0);
    println!("Global listens on {at}, with its data in {}\n", dir.path().display());
    let (a, b) = (Station::start(&sys, &at, "A").await?, Station::start(&sys, &at, "B").await?);

    println!("-- a value set at one Local is held there, and filled at the other");
    assert!(matches!(a.set("hi", "hello").await?, SetOutcome::Stored(_)));
    assert_eq!(a.get("hi").await?, Some(("hello".into(), Tier::Local)));
    assert_eq!(b.get("hi").await?, Some(("hello".into(), Tier::Global)));
    assert_eq!(b.get("hi").await?, Some(("hello".into(), Tier::Local)));

    println!("\n-- a name is written once; the same bytes again are no write; equal bytes are stored once");
    assert!(matches!(b.set("hi", "other").await?, SetOutcome::Occupied(_)));
    assert!(matches!(b.set("hi", "hello").await?, SetOutcome::Unchanged(_)));
    let SetOutcome::Stored(copy) = a.set("copy", "hello").await? else { panic!("`copy` was free") };
    let by_hash = b.client.get_hash(copy.hash).await?.expect("a blob");
    println!("B   GET {}  -> {:?}, {:?}", copy.hash, by_hash.bytes, by_hash.from.tier);
    assert_eq!(by_hash.from.tier, Tier::Local, "B holds the bytes under another name");

    println!("\n-- a delete that is acknowledged is seen everywhere; the other name keeps the blob");
    b.delete("hi").await?;
    assert_eq!(a.get("hi").await?, None);
    assert_eq!(b.get("hi").await?, None);
    assert!(a.get("copy").await?.is_some());

    println!("\n-- Global restarts; the Locals return by themselves, and what was acknowledged is there");
    global.stop().await?;
    let global = start_global(&sys, dir.path(), at).await?;
    for local in [&a, &b] {
        local.local.ready(Duration::from_secs(10)).await?;
    }
    assert_eq!(a.get("hi").await?, None);
    for local in [&a, &b] {
        assert_eq!(local.get("copy").await?.expect("it was acknowledged").0, "hello");
    }

    a.local.stop().await;
    b.local.stop().await;
    global.stop().await?;
    println!("\nall as promised");
    Ok(())
}

async fn start_global(sys: &Sys, data: &Path, listen: Address) -> Result<Global> {
    Global::start(sys.clone(), GlobalConfig { listen: vec![listen], ..GlobalConfig::new(data) }).await
}

/// A Local, and a client of it that prints what it does.
struct Station {
    label: &'static str,
    local: Local,
    client: Client<Node>,
}

impl Station {
    async fn start(sys: &Sys, global: &Address, label: &'static str) -> Result<Self> {
        let local = Local::start(sys.clone(), LocalConfig::new(global.clone())).await?;
        local.ready(Duration::from_secs(10)).await?;
        let client = Client::over(sys, Arc::new(local.node().clone()), ClientConfig::default());
        Ok(Self { label, local, client })
    }

    async fn set(&self, key: &'static str, value: &'static str) -> Result<SetOutcome> {
        let began = Instant::now();
        let reply = self.client.set(&Name::of(key)?, value).await?;
        let said = match &reply.outcome {
            SetOutcome::Stored(entry) => format!("stored and durable, revision {}", entry.bind_rev.0),
            SetOutcome::Unchanged(_) => "unchanged: it holds these bytes already".to_owned(),
            SetOutcome::Occupied(entry) => format!("occupied by {}", entry.hash),
            SetOutcome::NeedBlob => "never an answer to a client".to_owned(),
        };
        println!("{}   SET {key} {value}  -> {said}  ({:.0?})", self.label, began.elapsed());
        Ok(reply.outcome)
    }

    async fn get(&self, key: &'static str) -> Result<Option<(String, Tier)>> {
        let began = Instant::now();
        let value = self.client.get(&Name::of(key)?).await?;
        let took = began.elapsed();
        let found = value.map(|v| (String::from_utf8_lossy(&v.bytes).into_owned(), v.from.tier));
        match &found {
            Some((text, tier)) => {
                println!("{}   GET {key}  -> {text}, from {tier:?}  ({took:.0?})", self.label);
            }
            None => println!("{}   GET {key}  -> nothing  ({took:.0?})", self.label),
        }
        Ok(found)
    }

    async fn delete(&self, key: &'static str) -> Result<()> {
        let began = Instant::now();
        let reply = self.client.delete(&[Name::of(key)?]).await?;
        assert_eq!(reply.removed, [true]);
        let revision = reply.revision.0;
        println!(
            "{}   DEL {key}  -> gone everywhere, revision {revision}  ({:.0?})",
            self.label,
            began.elapsed()
        );
        Ok(())
    }
}
