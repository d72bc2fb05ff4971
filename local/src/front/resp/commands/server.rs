//! The server as a whole: INFO, CONFIG, TIME and what else operators and libraries ask for.

use super::{Answer, Answered, Call, Plan, Reply, Run, SYNTAX, TOO_LONG};
use crate::front::resp::door::Door;
use crate::front::resp::glob::Pattern;
use crate::front::resp::parse::Limits;
use crate::front::resp::table::TABLE;
use dstore_shared::Step;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// TIME
pub const TIME: Run = Run::Plain(|call| {
    let ms = call.door.clock.wall_ms();
    let micros = (ms % 1000) * 1000;
    Ok(Reply::Array(vec![Reply::text((ms / 1000).to_string()), Reply::text(micros.to_string())]).into())
});

/// WAIT replicas timeout
pub const WAIT: Run = Run::Plain(|call| {
    call.number(1)?;
    if call.number(2).map_err(|_| Reply::err("timeout is not an integer or out of range"))? < 0 {
        return Err(Reply::err("timeout is negative"));
    }
    Ok(Reply::Int(0).into())
});

/// MEMORY USAGE key [SAMPLES n]
pub const MEMORY: Run = Run::Steps(|call| {
    if call.sub()?.name == "help" {
        let help = call.help();
        return Ok(Plan::new(Vec::<Step>::new(), |_, _| Answer::Reply(help)));
    }
    match call.args.len() {
        3 => {}
        5 if call.args.is(3, "samples") => _ = super::scan::count_of(call, 4)?,
        _ => return Err(SYNTAX),
    }
    let name = call.name(2)?;
    let names = name.as_bytes().len() as u64;
    Ok(Plan::new(vec![Step::Get { name }], move |done, _| {
        let entry = done.first().and_then(|outcome| outcome.entry.clone());
        Answer::of(
            entry,
            |entry| Reply::Int((crate::cache::overhead() + names + entry.size) as i64),
            Reply::Nil,
        )
    }))
});

/// INFO [section ...]
pub const INFO: Run = Run::Plain(|call| {
    let wanted = |section: &str| {
        let all = |word: &[u8]| {
            [&b"default"[..], b"all", b"everything"].iter().any(|all| word.eq_ignore_ascii_case(all))
        };
        call.args.len() == 1
            || call.args.from(1).any(|word| all(word) || word.eq_ignore_ascii_case(section.as_bytes()))
    };
    let mut text = String::new();
    for (name, lines) in sections(call.door) {
        if !wanted(name) {
            continue;
        }
        if !text.is_empty() {
            text.push_str("\r\n");
        }
        let title = name[..1].to_uppercase() + &name[1..];
        _ = write!(text, "# {title}\r\n");
        for (key, value) in lines {
            _ = write!(text, "{key}:{value}\r\n");
        }
    }
    Ok(Reply::Text(text).into())
});

type Section = (&'static str, Vec<(&'static str, String)>);

fn sections(door: &Door) -> Vec<Section> {
    let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed).to_string();
    let cache = door.node.cache_stats();
    let up = door.clock.now().since(door.since).as_secs();
    let flag = |on: bool| u8::from(on).to_string();
    let replication = [
        ("role", "master".into()),
        ("connected_slaves", "0".into()),
        ("master_failover_state", "no-failover".into()),
        ("master_repl_offset", "0".into()),
    ];
    vec![
        (
            "server",
            vec![
                ("redis_version", door.config.version.clone()),
                ("redis_mode", "standalone".into()),
                ("server_name", door.config.server.clone()),
                ("dstore_version", env!("CARGO_PKG_VERSION").into()),
                ("process_id", std::process::id().to_string()),
                ("run_id", door.run.clone()),
                ("uptime_in_seconds", up.to_string()),
                ("uptime_in_days", (up / 86_400).to_string()),
            ],
        ),
        (
            "clients",
            vec![
                ("connected_clients", door.peers.len().to_string()),
                ("maxclients", door.config.clients_max.to_string()),
                ("tracking_clients", door.tracking.clients().to_string()),
            ],
        ),
        (
            "memory",
            vec![
                ("used_memory", cache.bytes().to_string()),
                ("maxmemory", cache.bytes_max.to_string()),
                ("maxmemory_policy", "allkeys-lfu".into()),
            ],
        ),
        (
            "persistence",
            vec![
                ("loading", flag(!door.is_started())),
                ("async_loading", "0".into()),
                ("aof_enabled", "1".into()),
            ],
        ),
        (
            "stats",
            vec![
                ("total_connections_received", door.peers.ever().to_string()),
                ("total_commands_processed", count(&door.stats.commands)),
                ("rejected_connections", count(&door.stats.refused)),
                ("evicted_keys", cache.names_evicted.to_string()),
                ("keyspace_hits", count(&door.stats.hits)),
                ("keyspace_misses", count(&door.stats.misses)),
                ("tracking_total_keys", door.tracking.len().to_string()),
                ("total_error_replies", count(&door.stats.errors)),
            ],
        ),
        ("replication", replication.into()),
        (
            "dstore",
            vec![
                ("serving", flag(door.node.is_serving())),
                ("names_held", cache.names.to_string()),
                ("blobs_held", cache.blobs.to_string()),
                ("cache_bytes", cache.bytes().to_string()),
                ("cache_bytes_max", cache.bytes_max.to_string()),
                ("request_bytes", door.request_bytes.load(Ordering::Relaxed).to_string()),
                ("threads", door.config.threads.to_string()),
                ("thread_panics", count(&door.stats.panics)),
            ],
        ),
        ("keyspace", door.config.databases.iter().take(0).map(|_| ("", String::new())).collect()),
    ]
}

/// Patterns of one CONFIG GET.
const PATTERNS_MAX: usize = 64;

/// CONFIG GET | SET | RESETSTAT | REWRITE
pub const CONFIG: Run = Run::Plain(|call| {
    Ok(match call.sub()?.name {
        "get" => {
            if call.args.len() - 2 > PATTERNS_MAX {
                return Err(Reply::err(format!("at most {PATTERNS_MAX} patterns")));
            }
            let patterns: Option<Vec<Pattern>> =
                call.args.from(2).map(|word| Pattern::new(&word.to_ascii_lowercase())).collect();
            let patterns = patterns.ok_or(TOO_LONG)?;
            let fits = |name: &str| patterns.iter().any(|pattern| pattern.fits(name.as_bytes()));
            let found = settings(call.door).into_iter().filter(|(name, _)| fits(name));
            Reply::Map(found.map(|(name, value)| (Reply::word(name), Reply::text(value))).collect())
        }
        "set" => set(call)?,
        "resetstat" => {
            call.door.stats.reset();
            Reply::OK
        }
        "rewrite" => return Err(Reply::err("The server is running without a config file")),
        _ => call.help(),
    }
    .into())
});

/// The few that clients ask for.
fn settings(door: &Door) -> Vec<(&'static str, String)> {
    let bytes_max = door.node.cache_stats().bytes_max;
    vec![
        ("appendfsync", "always".into()),
        ("appendonly", "yes".into()),
        ("databases", door.config.databases.len().to_string()),
        ("maxclients", door.config.clients_max.to_string()),
        ("maxmemory", bytes_max.to_string()),
        ("maxmemory-policy", "allkeys-lfu".into()),
        ("notify-keyspace-events", String::new()),
        ("proto-max-bulk-len", Limits::OPEN.bulk.to_string()),
        ("save", String::new()),
        ("timeout", "0".into()),
        ("tracking-table-max-keys", "1000000".into()),
    ]
}

/// Sets nothing: what a setting is already is taken, another value refused.
fn set(call: &Call<'_>) -> Answered<Reply> {
    if !call.args.len().is_multiple_of(2) {
        return Err(super::wrong_arity("config|set"));
    }
    let known = settings(call.door);
    for at in (2..call.args.len()).step_by(2) {
        let name = super::shown(call.args.get(at), 128).to_lowercase();
        let Some((_, value)) = known.iter().find(|(known, _)| *known == name) else {
            return Err(Reply::err(format!(
                "Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        };
        if value.as_bytes() != call.args.get(at + 1) {
            return Err(Reply::err(format!(
                "CONFIG SET failed (possibly related to argument '{name}') - it is set when the node starts"
            )));
        }
    }
    Ok(Reply::OK)
}

/// ACL CAT | WHOAMI | USERS | LIST
pub const ACL: Run = Run::Plain(|call| {
    Ok(match call.sub()?.name {
        "whoami" => Reply::word("default"),
        "users" => Reply::Array(vec![Reply::word("default")]),
        "list" => {
            let how = if call.door.config.password.is_some() { "#" } else { "nopass" };
            Reply::Array(vec![Reply::text(format!("user default on {how} ~* &* +@all"))])
        }
        "cat" if call.args.len() == 2 => {
            let mut all: Vec<&str> = TABLE.iter().flat_map(super::table::Spec::categories).collect();
            all.sort_unstable();
            all.dedup();
            Reply::Array(all.into_iter().map(Reply::word).collect())
        }
        "cat" => {
            let wanted = super::shown(call.args.get(2), 128).to_lowercase();
            let of: Vec<_> =
                TABLE.iter().filter(|spec| spec.categories().contains(&wanted.as_str())).collect();
            if of.is_empty() {
                return Err(Reply::err(format!("Unknown category '{wanted}'")));
            }
            Reply::Array(of.into_iter().map(|spec| Reply::word(spec.name)).collect())
        }
        _ => call.help(),
    }
    .into())
});
