//! `dstore ns`: creates, lists, explains and drops namespaces at a running node.

use super::attach::{Attached, RemoteStore, attach};
use super::{screen, sys};
use crate::config::{NamespaceVerb, Node};
use dstore_client::Client;
use dstore_local::repl::{Mode, exit};
use dstore_proto::store::ListQuery;
use dstore_shared::limits::LIST_NAMES_MAX;
use dstore_shared::{
    Error, Kind, Name, Namespace, NamespaceInfo, NamespaceMode, NamespaceResult, NamespaceSpec, Prefix,
    Result,
};
use serde_json::{Value, json};
use std::io::{BufRead, stdin};
use std::time::Duration;

/// What one of them came to: lines for people, the same for programs, and the exit code.
struct Told {
    lines: Vec<String>,
    objects: Vec<Value>,
    code: u8,
}

/// Does it, and gives the exit code.
pub async fn run(node: Node, what: NamespaceVerb, mode: Mode) -> u8 {
    let Attached { client, .. } = match attach(&sys(), node).await {
        Ok(attached) => attached,
        Err(e) => return screen::complain(&e, exit::UNREACHABLE),
    };
    let done = match what {
        NamespaceVerb::Create(namespace, spec) => create(&client, &namespace, spec).await,
        NamespaceVerb::List => client.namespaces().await.map(|all| listed(&all)),
        NamespaceVerb::Stat(namespace) => stat(&client, &namespace).await,
        NamespaceVerb::Drop { namespace, sure } => remove(&client, &namespace, sure).await,
    };
    match done {
        Ok(Told { lines, objects, code }) => {
            match mode {
                Mode::Json => objects.iter().for_each(|object| screen::tell(&object.to_string())),
                _ => lines.iter().for_each(|line| screen::tell(line)),
            }
            code
        }
        Err(e) => screen::complain(&e, exit::of(e.kind())),
    }
}

async fn create(client: &Client<RemoteStore>, namespace: &Namespace, spec: NamespaceSpec) -> Result<Told> {
    let done = client.create_namespace(namespace, spec).await?;
    let (line, outcome, code) = match done.result {
        NamespaceResult::Done => ("Namespace created", "created", exit::OK),
        NamespaceResult::Unchanged => ("Namespace is there already", "unchanged", exit::OK),
        NamespaceResult::Differs => {
            ("Namespace is there already, and allows something else", "differs", exit::OCCUPIED)
        }
        NamespaceResult::NotEmpty => {
            ("Namespace has keys: create it under a name without any", "not_empty", exit::OCCUPIED)
        }
        NamespaceResult::NotFound => return Err(Error::internal("a creation found nothing: report this")),
    };
    Ok(one(format!("{line} ({namespace}: {})", in_words(spec)), namespace, outcome, code))
}

/// Of one that was changed, or not.
fn one(line: String, namespace: &Namespace, outcome: &str, code: u8) -> Told {
    let object = json!({"command": "ns", "namespace": namespace.as_str(), "outcome": outcome, "exit": code});
    Told { lines: vec![line], objects: vec![object], code }
}

fn in_words(spec: NamespaceSpec) -> String {
    match spec.ttl {
        Some(ttl) => format!("{}, ttl {}", spec.mode, time(ttl)),
        None => spec.mode.to_string(),
    }
}

/// As `--ttl` reads it.
fn time(ttl: Duration) -> String {
    let ms = ttl.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    let whole = units.into_iter().find(|(unit, _)| ms.is_multiple_of(*unit));
    whole.map_or_else(|| format!("{ms}ms"), |(unit, name)| format!("{}{name}", ms / unit))
}

fn listed(all: &[NamespaceInfo]) -> Told {
    let line = |info: &NamespaceInfo| format!("{}\t{}", info.namespace, in_words(info.spec));
    let (lines, objects) = (all.iter().map(line).collect(), all.iter().map(|info| described(info, None)));
    Told { lines, objects: objects.collect(), code: exit::OK }
}

fn described(info: &NamespaceInfo, keys: Option<u64>) -> Value {
    let ttl_ms = info.spec.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
    let mut object = json!({
        "command": "ns", "namespace": info.namespace.as_str(), "mode": info.spec.mode.to_string(),
        "ttl_ms": ttl_ms, "created": info.created.0, "exit": exit::OK,
    });
    if let Some(keys) = keys {
        object["keys"] = keys.into();
    }
    object
}

async fn stat(client: &Client<RemoteStore>, namespace: &Namespace) -> Result<Told> {
    let known = client.namespaces().await?.into_iter().find(|info| info.namespace == *namespace);
    let keys = keys_of(client, namespace).await?;
    let Some(info) = known else {
        let line = format!("{namespace}\tnot created, used as {}\t{keys} keys", NamespaceMode::WriteOnce);
        let object = json!({
            "command": "ns", "namespace": namespace.as_str(), "outcome": "not_found", "keys": keys,
            "exit": exit::NOT_FOUND,
        });
        return Ok(Told { lines: vec![line], objects: vec![object], code: exit::NOT_FOUND });
    };
    let created = info.created;
    let line = format!("{namespace}\t{}\t{keys} keys\tcreated at revision {created}", in_words(info.spec));
    Ok(Told { lines: vec![line], objects: vec![described(&info, Some(keys))], code: exit::OK })
}

/// How many keys there are: all that were there during all of the walk, and perhaps some that came or went.
async fn keys_of(client: &Client<RemoteStore>, namespace: &Namespace) -> Result<u64> {
    let (mut keys, mut after) = (0, None);
    loop {
        let (prefix, limit) = (bytes::Bytes::new(), LIST_NAMES_MAX);
        let query = ListQuery { namespace: namespace.clone(), prefix, after, limit };
        let page = client.list(&query).await?;
        keys += page.names.len() as u64;
        after = page.next;
        if after.is_none() {
            return Ok(keys);
        }
    }
}

async fn remove(client: &Client<RemoteStore>, namespace: &Namespace, sure: bool) -> Result<Told> {
    if !client.namespaces().await?.iter().any(|info| info.namespace == *namespace) {
        let line = format!("There is no such namespace ({namespace})");
        return Ok(one(line, namespace, "not_found", exit::NOT_FOUND));
    }
    if !sure {
        let keys = keys_of(client, namespace).await?;
        ask(&format!("Remove `{namespace}` and its {keys} keys, everywhere?"))?;
    }
    let removed = empty(client, namespace).await?;
    let done = client.drop_namespace(namespace).await?;
    Ok(match done.result {
        NamespaceResult::Done => {
            one(format!("Namespace dropped ({namespace}: {removed} keys)"), namespace, "dropped", exit::OK)
        }
        NamespaceResult::NotFound => {
            one(format!("There is no such namespace ({namespace})"), namespace, "not_found", exit::NOT_FOUND)
        }
        _ => {
            let line = format!("Keys are still set in it: try again ({namespace}: {removed} keys removed)");
            one(line, namespace, "not_empty", exit::OCCUPIED)
        }
    })
}

/// A person must mean it; who is none says so by `-y`.
fn ask(question: &str) -> Result<()> {
    if !screen::has_person() {
        return Err(Error::invalid(format!("{question} Add `-y` if you mean it")));
    }
    screen::say(&format!("{question} [y/N]"));
    let mut answer = String::new();
    let read = stdin().lock().read_line(&mut answer);
    match answer.trim() {
        "y" | "Y" | "yes" if read.is_ok() => Ok(()),
        _ => Err(Error::invalid("nothing was changed: answer `y` if you mean it")),
    }
}

/// Removes all keys: at once if they are few enough, else a page at a time.
async fn empty(client: &Client<RemoteStore>, namespace: &Namespace) -> Result<u64> {
    match client.delete_prefix(&Prefix::new(namespace, b"")?).await {
        Ok(done) => return Ok(done.removed),
        Err(e) if e.kind() == Kind::TooLarge => {}
        Err(e) => return Err(e),
    }
    let mut removed = 0;
    loop {
        let (prefix, limit) = (bytes::Bytes::new(), LIST_NAMES_MAX);
        let query = ListQuery { namespace: namespace.clone(), prefix, after: None, limit };
        let page = client.list(&query).await?;
        let names: Vec<Name> = page.names.iter().map(|(key, _)| Name::new(namespace, key)).collect();
        if names.is_empty() && page.next.is_none() {
            return Ok(removed);
        }
        if !names.is_empty() {
            let done = client.delete(&names).await?;
            removed += done.removed.iter().filter(|removed| **removed).count() as u64;
        }
    }
}
