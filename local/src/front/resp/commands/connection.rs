//! The connection itself: HELLO, AUTH, PING, SELECT and their kin.

use super::{Answered, Call, Reply, Run, SYNTAX, client, wrong_arity};
use crate::front::resp::broadcast;
use crate::front::resp::client::Client;
use crate::front::resp::peers::number_of;
use crate::front::resp::reply::Version;
use bytes::Bytes;
use dstore_shared::Namespace;
use std::sync::atomic::Ordering;

/// PING [message]
pub const PING: Run = Run::Plain(|call| {
    if call.args.len() > 2 {
        return Err(wrong_arity("ping"));
    }
    if !call.client.channels.is_empty() && call.client.version == Version::Two {
        let message = Reply::Bulk(call.args.bytes(1));
        return Ok(Reply::Array(vec![Reply::word("pong"), message]).into());
    }
    Ok(if call.args.len() == 2 { echo(call) } else { Reply::Line("PONG".into()) }.into())
});

/// ECHO message
pub const ECHO: Run = Run::Plain(|call| Ok(echo(call).into()));

/// A copy: what a client is owed is counted by who has it alone.
fn echo(call: &Call<'_>) -> Reply {
    Reply::Bulk(Bytes::copy_from_slice(call.args.get(1)))
}

/// QUIT
pub const QUIT: Run = Run::Only(|call| {
    call.client.closing = true;
    Ok(Reply::OK.into())
});

/// RESET
pub const RESET: Run = Run::Only(|call| {
    call.door.end_tracking(call.peer);
    *call.client = Client::new(call.door.first_namespace(), call.door.config.password.is_none());
    call.peer.rename(|names| names.name = Bytes::new());
    call.peer.three.store(false, Ordering::Relaxed);
    call.peer.database.store(0, Ordering::Relaxed);
    Ok(Reply::Line("RESET".into()).into())
});

/// The namespace of a database's number.
pub fn database(call: &Call<'_>, at: usize) -> Answered<(usize, Namespace)> {
    let number = call.number(at).map_err(|_| Reply::err("invalid DB index"))?;
    let place = usize::try_from(number).ok();
    let found =
        place.and_then(|place| Some((place, call.door.config.databases.get(place)?.namespace.clone())));
    found.ok_or_else(|| Reply::err("DB index is out of range"))
}

/// SELECT n
pub const SELECT: Run = Run::Plain(|call| {
    let (number, namespace) = database(call, 1)?;
    call.client.select(number, &namespace);
    call.peer.database.store(number, Ordering::Relaxed);
    broadcast::select(call);
    Ok(Reply::OK.into())
});

/// AUTH [user] password
pub const AUTH: Run = Run::Only(|call| {
    let (user, password) = match call.args.len() {
        2 => (None, call.args.get(1)),
        3 => (Some(call.args.get(1)), call.args.get(2)),
        _ => return Err(SYNTAX),
    };
    if user.is_none() && call.door.config.password.is_none() {
        return Err(Reply::err(
            "AUTH <password> called without any password configured for the default user. Are you sure your \
             configuration is correct?",
        ));
    }
    identify(call, user.unwrap_or(b"default"), password)?;
    Ok(Reply::OK.into())
});

/// Whether it is the default user with the right password; then the client is known.
fn identify(call: &mut Call<'_>, user: &[u8], password: &[u8]) -> Answered<()> {
    let right = match &call.door.config.password {
        None => true,
        Some(wanted) => same(wanted.as_bytes(), password),
    };
    if user != b"default" || !right {
        return Err(Reply::error("WRONGPASS invalid username-password pair or user is disabled."));
    }
    call.client.known = true;
    Ok(())
}

/// Compares in a time that does not tell where they differ: the hashes are compared.
fn same(a: &[u8], b: &[u8]) -> bool {
    dstore_shared::BlobHash::of(a) == dstore_shared::BlobHash::of(b)
}

/// HELLO [2 | 3 [AUTH user password] [SETNAME name]]
pub const HELLO: Run = Run::Only(|call| {
    let mut version = call.client.version;
    if call.args.len() > 1 {
        version = match call.number(1) {
            Ok(2) => Version::Two,
            Ok(3) => Version::Three,
            Ok(_) => return Err(Reply::error("NOPROTO unsupported protocol version")),
            Err(_) => return Err(Reply::err("Protocol version is not an integer or out of range")),
        };
    }
    let (mut name, mut auth, mut at) = (None, None, 2);
    while at < call.args.len() {
        let more = call.args.len() - at - 1;
        match () {
            () if call.args.is(at, "auth") && more >= 2 => {
                auth = Some((call.args.bytes(at + 1), call.args.bytes(at + 2)));
                at += 3;
            }
            () if call.args.is(at, "setname") && more >= 1 => {
                client::check_name(call.args.get(at + 1))?;
                name = Some(call.args.bytes(at + 1));
                at += 2;
            }
            () => {
                let option = super::shown(call.args.get(at), 128);
                return Err(Reply::err(format!("Syntax error in HELLO option '{option}'")));
            }
        }
    }
    if let Some((user, password)) = auth {
        identify(call, &user, &password)?;
    }
    if !call.client.known {
        return Err(Reply::error(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> \
             <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    if let Some(name) = name {
        call.peer.rename(|names| names.name = name);
    }
    if version == Version::Two && call.client.tracking.on && call.client.tracking.redirect.is_none() {
        // There is no way to tell it any more.
        call.door.end_tracking(call.peer);
        call.client.end_tracking();
    }
    call.client.version = version;
    call.peer.three.store(version == Version::Three, Ordering::Relaxed);
    let config = &call.door.config;
    Ok(Reply::Map(vec![
        (Reply::word("server"), Reply::text(config.server.clone())),
        (Reply::word("version"), Reply::text(config.version.clone())),
        (Reply::word("proto"), Reply::Int(number_of(version))),
        (Reply::word("id"), Reply::Int(call.peer.id as i64)),
        (Reply::word("mode"), Reply::word("standalone")),
        (Reply::word("role"), Reply::word("master")),
        (Reply::word("modules"), Reply::Array(Vec::new())),
    ])
    .into())
});
