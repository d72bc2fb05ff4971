//! COMMAND: what the table tells of itself.

use super::{Answered, Call, Reply, Run, SYNTAX, TOO_LONG};
use crate::front::resp::glob::Pattern;
use crate::front::resp::table::{self, Spec, Sub, TABLE, find, flag};
use std::borrow::Cow;

/// Commands that may be asked about at a time.
const ASKED_MAX: usize = 1024;

/// COMMAND [COUNT | DOCS | INFO | LIST | GETKEYS]
pub const COMMAND: Run = Run::Plain(|call| {
    if call.args.len() == 1 {
        return Ok(Reply::Array(TABLE.iter().map(info).collect()).into());
    }
    let sub = call.sub()?;
    if ["info", "docs"].contains(&sub.name) && call.args.len() - 2 > ASKED_MAX {
        return Err(Reply::err(format!("at most {ASKED_MAX} commands can be asked about at a time")));
    }
    Ok(match sub.name {
        "count" => Reply::count(TABLE.len()),
        "info" if call.args.len() == 2 => Reply::Array(TABLE.iter().map(info).collect()),
        "info" => {
            Reply::Array(call.args.from(2).map(|name| find(name).map_or(Reply::NilArray, info)).collect())
        }
        "docs" if call.args.len() == 2 => Reply::Map(TABLE.iter().map(docs).collect()),
        "docs" => Reply::Map(call.args.from(2).filter_map(find).map(docs).collect()),
        "list" => list(call)?,
        "getkeys" => keys(call)?,
        _ => call.help(),
    }
    .into())
});

fn word(text: impl Into<Cow<'static, str>>) -> Reply {
    Reply::Line(text.into())
}

fn info(spec: &'static Spec) -> Reply {
    let names = [
        (flag::WRITE, "write"),
        (flag::READONLY, "readonly"),
        (flag::DENYOOM, "denyoom"),
        (flag::ADMIN, "admin"),
        (flag::PUBSUB, "pubsub"),
        (flag::NOSCRIPT, "noscript"),
        (flag::LOADING, "loading"),
        (flag::STALE, "stale"),
        (flag::FAST, "fast"),
        (flag::NO_AUTH, "no_auth"),
    ];
    let flags = names.iter().filter(|(flag, _)| spec.has(*flag)).map(|(_, name)| word(*name)).collect();
    let (first, last, step) = spec.keys;
    let categories = spec.categories().into_iter().map(|name| word(format!("@{name}"))).collect();
    Reply::Array(vec![
        Reply::word(spec.name),
        Reply::Int(spec.arity.into()),
        Reply::Set(flags),
        Reply::Int(first.into()),
        Reply::Int(last.into()),
        Reply::Int(step.into()),
        Reply::Set(categories),
        Reply::Array(Vec::new()),
        Reply::Array(key_specs(spec)),
        Reply::Array(spec.subs.iter().map(|sub| sub_info(spec, sub)).collect()),
    ])
}

fn sub_info(spec: &Spec, sub: &Sub) -> Reply {
    let empty = || Reply::Array(Vec::new());
    Reply::Array(vec![
        Reply::text(format!("{}|{}", spec.name, sub.name)),
        Reply::Int(sub.arity.into()),
        Reply::Set(Vec::new()),
        Reply::Int(0),
        Reply::Int(0),
        Reply::Int(0),
        Reply::Set(Vec::new()),
        empty(),
        empty(),
        empty(),
    ])
}

fn key_specs(spec: &Spec) -> Vec<Reply> {
    let (first, last, step) = spec.keys;
    if first == 0 {
        return Vec::new();
    }
    let access = if spec.has(flag::WRITE) { "RW" } else { "RO" };
    let last = if last < 0 { last } else { last - first };
    let number = |n: i32| Reply::Int(n.into());
    vec![Reply::Map(vec![
        (Reply::word("flags"), Reply::Set(vec![word(access)])),
        (
            Reply::word("begin_search"),
            Reply::Map(vec![
                (Reply::word("type"), Reply::word("index")),
                (Reply::word("spec"), Reply::Map(vec![(Reply::word("index"), number(first))])),
            ]),
        ),
        (
            Reply::word("find_keys"),
            Reply::Map(vec![
                (Reply::word("type"), Reply::word("range")),
                (
                    Reply::word("spec"),
                    Reply::Map(vec![
                        (Reply::word("lastkey"), number(last)),
                        (Reply::word("keystep"), number(step)),
                        (Reply::word("limit"), number(0)),
                    ]),
                ),
            ]),
        ),
    ])]
}

fn docs(spec: &'static Spec) -> (Reply, Reply) {
    let since = if spec.group == "dstore" { "0.1.0" } else { "1.0.0" };
    let mut doc = vec![
        (Reply::word("summary"), Reply::word(spec.summary)),
        (Reply::word("since"), Reply::word(since)),
        (Reply::word("group"), Reply::word(spec.group)),
    ];
    if !spec.subs.is_empty() {
        let subs = spec.subs.iter().map(|sub| {
            let doc = vec![
                (Reply::word("summary"), Reply::word(sub.summary)),
                (Reply::word("since"), Reply::word(since)),
                (Reply::word("group"), Reply::word(spec.group)),
            ];
            (Reply::text(format!("{}|{}", spec.name, sub.name)), Reply::Map(doc))
        });
        doc.push((Reply::word("subcommands"), Reply::Map(subs.collect())));
    }
    (Reply::word(spec.name), Reply::Map(doc))
}

fn list(call: &Call<'_>) -> Answered<Reply> {
    let args = call.args;
    let filter: Box<dyn Fn(&Spec) -> bool> = match args.len() {
        2 => Box::new(|_| true),
        5 if args.is(2, "filterby") && args.is(3, "pattern") => {
            let pattern = Pattern::new(&args.get(4).to_ascii_lowercase()).ok_or(TOO_LONG)?;
            Box::new(move |spec| pattern.fits(spec.name.as_bytes()))
        }
        5 if args.is(2, "filterby") && args.is(3, "aclcat") => {
            let category = String::from_utf8_lossy(args.get(4)).to_lowercase();
            Box::new(move |spec| spec.categories().contains(&category.as_str()))
        }
        5 if args.is(2, "filterby") && args.is(3, "module") => Box::new(|_| false),
        _ => return Err(SYNTAX),
    };
    Ok(Reply::Array(TABLE.iter().filter(|spec| filter(spec)).map(|spec| Reply::word(spec.name)).collect()))
}

fn keys(call: &Call<'_>) -> Answered<Reply> {
    let spec = find(call.args.get(2)).ok_or(Reply::err("Invalid command specified"))?;
    let len = call.args.len() - 2;
    if !table::fits(spec.arity, len) {
        return Err(Reply::err("Invalid number of arguments specified for command"));
    }
    let keys: Vec<Reply> = spec.key_places(len).map(|at| Reply::Bulk(call.args.bytes(at + 2))).collect();
    if keys.is_empty() {
        return Err(Reply::err("The command has no key arguments"));
    }
    Ok(Reply::Array(keys))
}
