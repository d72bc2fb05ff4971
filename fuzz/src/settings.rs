//! The configuration: command line, environment and file.

use crate::cli::args::{
    AdminFlag, CommandLine, HttpFlags, NodeFlag, RespFlags, ShmFlags, Solo, StoreFlags, Verb,
};
use crate::config::{Surroundings, resolve};
use clap::Parser;
use dstore_shared::Result;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;

/// A configuration file, read for each tier, for a client and for solo mode.
pub fn config_file(bytes: &[u8]) -> Result<()> {
    let Ok(text) = std::str::from_utf8(bytes) else { return Ok(()) };
    let around = Surroundings { env: &|_| None, read: &|_| Ok(text.to_owned()) };
    let node = || NodeFlag { node: None };
    let verbs = [
        None,
        Some(Verb::Global {
            listen: None,
            store: StoreFlags::default(),
            admin: AdminFlag::default(),
            insecure: false,
        }),
        Some(Verb::Local {
            global: None,
            listen: None,
            socket: None,
            http: HttpFlags::default(),
            cache_bytes: None,
            scrub: None,
            negatives: false,
            audits: None,
            admin: AdminFlag::default(),
            resp: RespFlags::default(),
            shm: ShmFlags::default(),
            insecure: false,
            repl: false,
        }),
        Some(Verb::Copy { from: "a".into(), to: "b".into(), node: node() }),
    ];
    let mut refused = Ok(());
    for verb in verbs {
        let line = CommandLine { config: Some("f".into()), json: false, solo: Solo::default(), verb };
        refused = refused.and(resolve(line, &around).map(drop));
    }
    refused
}

/// A command line, its words separated by NUL; words of the form `NAME=value` before the first other are the
/// environment.
pub fn command_line(bytes: &[u8]) -> Result<()> {
    let mut words = bytes.split(|b| *b == 0).peekable();
    let mut env = Vec::new();
    while let Some(word) = words.next_if(|word| word.starts_with(b"DSTORE_") && word.contains(&b'=')) {
        let at = word.iter().position(|b| *b == b'=').unwrap_or_default();
        env.push((&word[..at], OsString::from_vec(word[at + 1..].to_vec())));
    }
    let typed = words.map(|word| OsString::from_vec(word.to_vec()));
    let line = CommandLine::try_parse_from([OsString::from("dstore")].into_iter().chain(typed));
    let line = match line {
        Ok(line) => line,
        Err(e) => {
            assert!(!e.to_string().is_empty());
            return Ok(());
        }
    };
    let around = Surroundings {
        env: &|name| env.iter().find(|(n, _)| *n == name.as_bytes()).map(|(_, value)| value.clone()),
        read: &|_| Err(io::ErrorKind::NotFound.into()),
    };
    resolve(line, &around).map(drop)
}
