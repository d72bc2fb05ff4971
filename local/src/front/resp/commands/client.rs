//! CLIENT: who is there, what this one is called, and how it is told of changes.

use super::{Answered, Call, Done, NOT_INTEGER, Reply, Run, SYNTAX};
use crate::front::resp::broadcast::{self, Watches};
use crate::front::resp::client::{Replies, TrackingMode};
use crate::front::resp::peers::Peer;
use crate::front::resp::reply::Version;
use std::collections::HashSet;
use std::sync::Arc;

/// CLIENT subcommand ...
pub const CLIENT: Run = Run::Plain(|call| {
    let reply = match call.sub()?.name {
        "id" => Reply::Int(call.peer.id as i64),
        "info" => Reply::Text(call.peer.line(call.door.clock.now()) + "\n"),
        "list" => list(call)?,
        "getname" => match call.peer.names().name {
            name if name.is_empty() => Reply::Nil,
            name => Reply::Bulk(name),
        },
        "setname" => {
            check_name(call.args.get(2))?;
            let name = call.args.bytes(2);
            call.peer.rename(|names| names.name = name);
            Reply::OK
        }
        "setinfo" => set_info(call)?,
        "no-evict" | "no-touch" if on_off(call, 2).is_some() => Reply::OK,
        "no-evict" | "no-touch" => return Err(SYNTAX),
        "reply" => return reply_mode(call),
        "kill" => kill(call)?,
        "tracking" => tracking(call)?,
        "caching" => caching(call)?,
        "getredir" => Reply::Int(redirect(&call.client.tracking)),
        "trackinginfo" => tracking_info(call),
        _ => call.help(),
    };
    Ok(reply.into())
});

fn on_off(call: &Call<'_>, at: usize) -> Option<bool> {
    if call.args.is(at, "on") { Some(true) } else { call.args.is(at, "off").then_some(false) }
}

/// What a client says of itself may have so many bytes: it is kept, and shown to whoever asks for all clients.
const NAME_MAX: usize = 1024;
/// Clients and filters that one command may name.
const WORDS_MAX: usize = 1024;

/// A name is shown in lines: it may have nothing that ends one, and no blanks.
pub fn check_name(name: &[u8]) -> Answered<()> {
    check_length(name)?;
    if name.iter().all(|b| (b'!'..=b'~').contains(b)) {
        return Ok(());
    }
    Err(Reply::err("Client names cannot contain spaces, newlines or special characters."))
}

fn check_length(word: &[u8]) -> Answered<()> {
    if word.len() <= NAME_MAX {
        return Ok(());
    }
    Err(Reply::err(format!("what a client says of itself has at most {NAME_MAX} bytes")))
}

fn check_words(call: &Call<'_>) -> Answered<()> {
    if call.args.len() <= WORDS_MAX {
        return Ok(());
    }
    Err(Reply::err(format!("at most {WORDS_MAX} words")))
}

fn set_info(call: &mut Call<'_>) -> Answered<Reply> {
    check_length(call.args.get(2))?;
    check_length(call.args.get(3))?;
    let (what, value) = (call.args.get(2).to_ascii_lowercase(), call.args.bytes(3));
    let is_shown = value.iter().all(|b| (b'!'..=b'~').contains(b));
    match what.as_slice() {
        b"lib-name" | b"lib-ver" if !is_shown => {
            let what = String::from_utf8_lossy(&what).into_owned();
            return Err(Reply::err(format!("{what} cannot contain spaces, newlines or special characters.")));
        }
        b"lib-name" => call.peer.rename(|names| names.library = value),
        b"lib-ver" => call.peer.rename(|names| names.version = value),
        _ => {
            let shown = super::shown(call.args.get(2), 128);
            return Err(Reply::err(format!("Unrecognized option '{shown}'")));
        }
    }
    Ok(Reply::OK)
}

fn list(call: &Call<'_>) -> Answered<Reply> {
    let mut peers = call.door.peers.all();
    let args = call.args;
    match args.len() {
        2 => {}
        4 if args.is(2, "type") => {
            let normal = args.is(3, "normal");
            if !normal && !["master", "replica", "slave", "pubsub"].iter().any(|kind| args.is(3, kind)) {
                return Err(Reply::err(format!("Unknown client type '{}'", super::shown(args.get(3), 128))));
            }
            peers.retain(|_| normal);
        }
        4.. if args.is(2, "id") => {
            check_words(call)?;
            let ids: Answered<HashSet<i64>> = (3..args.len())
                .map(|at| call.number(at).map_err(|_| Reply::err("Invalid client ID")))
                .collect();
            let ids = ids?;
            peers.retain(|peer| ids.contains(&(peer.id as i64)));
        }
        _ => return Err(SYNTAX),
    }
    let now = call.door.clock.now();
    Ok(Reply::Text(peers.iter().map(|peer| peer.line(now) + "\n").collect()))
}

fn reply_mode(call: &mut Call<'_>) -> Answered {
    let mode = match () {
        () if call.args.is(2, "on") => Replies::On,
        () if call.args.is(2, "off") => Replies::Off,
        () if call.args.is(2, "skip") => Replies::SkipNext,
        () => return Err(SYNTAX),
    };
    // OFF stays OFF until ON; SKIP is of the next command.
    if mode != Replies::SkipNext || call.client.replies != Replies::Off {
        call.client.replies = mode;
    }
    Ok(Done::Now(if mode == Replies::On { Reply::OK } else { Reply::Several(Vec::new()) }))
}

fn kill(call: &mut Call<'_>) -> Answered<Reply> {
    if call.args.len() == 3 {
        let address = call.args.get(2);
        let found = call.door.peers.all().into_iter().find(|peer| peer.address.as_bytes() == address);
        let peer = found.ok_or(Reply::err("No such client"))?;
        end(call, &peer);
        return Ok(Reply::OK);
    }
    check_words(call)?;
    let mut victims = call.door.peers.all();
    let mut skip_me = true;
    for at in (2..call.args.len()).step_by(2) {
        let value = call.args.get(at + 1);
        match () {
            () if at + 1 == call.args.len() => return Err(SYNTAX),
            () if call.args.is(at, "id") => {
                let id = call.number(at + 1).ok().filter(|id| *id > 0);
                let id = id.ok_or(Reply::err("client-id should be greater than 0"))?;
                victims.retain(|peer| peer.id as i64 == id);
            }
            () if call.args.is(at, "addr") => victims.retain(|peer| peer.address.as_bytes() == value),
            () if call.args.is(at, "laddr") => victims.retain(|peer| peer.here.as_bytes() == value),
            () if call.args.is(at, "type") => {
                let normal = value.eq_ignore_ascii_case(b"normal");
                victims.retain(|_| normal);
            }
            () if call.args.is(at, "user") => victims.retain(|_| value == b"default"),
            () if call.args.is(at, "skipme") => match () {
                () if call.args.is(at + 1, "yes") => skip_me = true,
                () if call.args.is(at + 1, "no") => skip_me = false,
                () => return Err(SYNTAX),
            },
            () => return Err(SYNTAX),
        }
    }
    victims.retain(|peer| !skip_me || peer.id != call.peer.id);
    victims.iter().for_each(|peer| end(call, peer));
    Ok(Reply::count(victims.len()))
}

fn end(call: &mut Call<'_>, peer: &Arc<Peer>) {
    if peer.id == call.peer.id {
        call.client.closing = true; // after its reply
    } else {
        peer.kill();
    }
}

fn tracking(call: &mut Call<'_>) -> Answered<Reply> {
    let on = on_off(call, 2).ok_or(SYNTAX)?;
    let mut mode = TrackingMode { on, ..TrackingMode::default() };
    let (mut at, mut prefixes) = (3, Vec::new());
    while at < call.args.len() {
        match () {
            () if call.args.is(at, "bcast") => mode.broadcast = true,
            () if call.args.is(at, "optin") => mode.opt_in = true,
            () if call.args.is(at, "optout") => mode.opt_out = true,
            () if call.args.is(at, "noloop") => mode.no_loop = true,
            () if call.args.is(at, "redirect") && at + 1 < call.args.len() => {
                at += 1;
                if mode.redirect.is_some() {
                    return Err(Reply::err("A client can only redirect to a single other client"));
                }
                let id = u64::try_from(call.number(at)?).map_err(|_| NOT_INTEGER)?;
                mode.redirect = (id != 0).then_some(id);
            }
            () if call.args.is(at, "prefix") && at + 1 < call.args.len() => {
                at += 1;
                prefixes.push(call.args.bytes(at));
            }
            () => return Err(SYNTAX),
        }
        at += 1;
    }
    if !on {
        call.door.end_tracking(call.peer);
        call.client.end_tracking();
        return Ok(Reply::OK);
    }
    check_mode(call, &mode, &prefixes)?;
    let prefixes = if mode.broadcast { broadcast::check(call, prefixes)? } else { prefixes };
    let instead = match mode.redirect {
        Some(id) => Some(
            call.door
                .peers
                .find(id)
                .ok_or(Reply::err("The client ID you want redirect to does not exist"))?,
        ),
        None if call.client.version == Version::Three => None,
        None => {
            return Err(Reply::err(
                "Client tracking can be enabled only with RESP3, or with REDIRECT to another client",
            ));
        }
    };
    call.door.begin_tracking(call.peer, instead);
    if mode.broadcast {
        broadcast::begin(call, prefixes);
    }
    call.client.tracking = mode;
    Ok(Reply::OK)
}

fn check_mode(call: &Call<'_>, mode: &TrackingMode, prefixes: &[bytes::Bytes]) -> Answered<()> {
    if !prefixes.is_empty() && !mode.broadcast {
        return Err(Reply::err("PREFIX option requires BCAST mode to be enabled"));
    }
    let before = &call.client.tracking;
    if before.on && before.broadcast != mode.broadcast {
        return Err(Reply::err(
            "You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with \
             a different mode.",
        ));
    }
    if mode.broadcast && (mode.opt_in || mode.opt_out) {
        return Err(Reply::err("OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if mode.opt_in && mode.opt_out {
        return Err(Reply::err("You can't specify both OPTIN mode and OPTOUT mode"));
    }
    if before.on && (before.opt_in && mode.opt_out || before.opt_out && mode.opt_in) {
        return Err(Reply::err(
            "You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a \
             different mode.",
        ));
    }
    Ok(())
}

fn caching(call: &mut Call<'_>) -> Answered<Reply> {
    let mode = &mut call.client.tracking;
    if !mode.on {
        return Err(Reply::err(
            "CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
        ));
    }
    match () {
        () if call.args.is(2, "yes") && mode.opt_in => mode.caching = Some(true),
        () if call.args.is(2, "yes") => {
            return Err(Reply::err(
                "CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
            ));
        }
        () if call.args.is(2, "no") && mode.opt_out => mode.caching = Some(false),
        () if call.args.is(2, "no") => {
            return Err(Reply::err(
                "CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
            ));
        }
        () => return Err(SYNTAX),
    }
    Ok(Reply::OK)
}

fn redirect(mode: &TrackingMode) -> i64 {
    match (mode.on, mode.redirect) {
        (false, _) => -1,
        (true, id) => id.unwrap_or(0) as i64,
    }
}

fn tracking_info(call: &Call<'_>) -> Reply {
    let mode = &call.client.tracking;
    let is_broken = mode.redirect.is_some_and(|id| call.door.peers.find(id).is_none());
    let mut flags = Vec::new();
    for (name, on) in [
        ("off", !mode.on),
        ("on", mode.on),
        ("bcast", mode.broadcast),
        ("optin", mode.opt_in),
        ("optout", mode.opt_out),
        ("noloop", mode.no_loop),
        ("caching-yes", mode.caching == Some(true)),
        ("caching-no", mode.caching == Some(false)),
        ("broken_redirect", is_broken),
    ] {
        if on {
            flags.push(Reply::word(name));
        }
    }
    let prefixes = call.client.watches.as_ref().map_or(&[][..], Watches::prefixes);
    Reply::Map(vec![
        (Reply::word("flags"), Reply::Set(flags)),
        (Reply::word("redirect"), Reply::Int(redirect(mode))),
        (Reply::word("prefixes"), Reply::Array(prefixes.iter().cloned().map(Reply::Bulk).collect())),
    ])
}
