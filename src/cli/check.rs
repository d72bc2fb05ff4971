//! `dstore check`: what a data directory holds, one fact a line, and whether the next start would go well.

use super::screen;
use super::sys;
use crate::config::CheckSettings;
use dstore_global::inspect::{
    BlobFacts, Checked, CheckpointFacts, IndexFacts, InspectConfig, MetaFacts, Report, SegmentFacts,
    SegmentRole, Verdict, inspect,
};
use dstore_local::repl::{Mode, escape, exit, printable};
use dstore_shared::{Error, Revision};
use serde_json::{Value, json};
use std::fmt::Display;
use std::io::{Write, stdout};

/// Looks at the directory, tells what it found, and gives the exit code.
pub fn run(settings: CheckSettings, mode: Mode) -> u8 {
    let CheckSettings { data, deep, min_free, salvage: _ } = settings;
    let config = InspectConfig { data, temp: std::env::temp_dir(), deep, min_free };
    let report = match inspect(&sys(), &config) {
        Ok(report) => report,
        Err(e) => return refused(&e, mode),
    };
    let code = code_of(report.verdict());
    let text = match mode {
        Mode::Json => vec![printable(&json_of(&report, code).to_string())],
        _ => lines_of(&report).iter().map(|line| escape(line.as_bytes())).collect(),
    };
    let out = text.join("\n") + "\n";
    match stdout().write_all(out.as_bytes()).and_then(|()| stdout().flush()) {
        Ok(()) => code,
        Err(e) => screen::complain(
            &Error::unavailable(format!("standard output cannot be written, {e}")),
            exit::SOFTWARE,
        ),
    }
}

fn refused(error: &Error, mode: Mode) -> u8 {
    if mode == Mode::Json {
        let answer = json!({
            "command": "check", "verdict": "unusable", "exit": exit::USAGE,
            "error": {"kind": error.kind().to_string(), "message": error.message()},
        });
        screen::tell(&printable(&answer.to_string()));
        return exit::USAGE;
    }
    screen::complain(error, exit::USAGE)
}

const fn code_of(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Healthy | Verdict::Mends => exit::OK,
        Verdict::Damaged => exit::INTEGRITY,
        Verdict::Unusable => exit::USAGE,
    }
}

const fn word_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Healthy => "healthy",
        Verdict::Mends => "mends",
        Verdict::Damaged => "damaged",
        Verdict::Unusable => "unusable",
    }
}

fn lines_of(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("data: {}", report.data.display())];
    lines.extend(report.meta.as_ref().map(meta_line));
    lines.extend(report.checkpoints.iter().map(checkpoint_line));
    lines.extend(report.index.as_ref().map(index_line));
    for segment in &report.segments {
        lines.push(segment_line(segment));
        lines.extend(segment.unusable.iter().map(|why| format!("  {}: {why}", segment.name)));
        for fault in &segment.faults {
            let (name, offset, why) = (&segment.name, fault.offset, &fault.reason);
            let revision = or(fault.revision, "?");
            lines.push(format!("  {name}: damaged batch at offset {offset}, revision {revision}: {why}"));
        }
    }
    if let Some(judged) = &report.journal {
        let (head, replayed) = (judged.head, judged.replayed);
        lines.push(format!("journal: ends at revision {head}, {replayed} batches after the checkpoint"));
    }
    lines.extend(report.blobs.as_ref().map(blob_line));
    if let Some(free) = report.free {
        lines.push(format!("space: {free} bytes free, at least {} wanted", report.min_free));
    }
    lines.extend(report.notes.iter().map(|note| format!("note: {note}")));
    lines.extend(report.mends.iter().map(|mend| format!("at the next start: {mend}")));
    lines.extend(report.faults.iter().map(|fault| format!("wrong: {fault}")));
    lines.push(
        match report.verdict() {
            Verdict::Healthy => "healthy",
            Verdict::Mends => "healthy after the next start, which repairs it and loses nothing acknowledged",
            Verdict::Damaged => "not healthy",
            Verdict::Unusable => "not usable by this dstore",
        }
        .to_owned(),
    );
    lines
}

fn or<T: Display>(value: Option<T>, absent: &str) -> String {
    value.map_or_else(|| absent.to_owned(), |value| value.to_string())
}

fn meta_line(meta: &MetaFacts) -> String {
    let MetaFacts { format, history, boot, clean, lease_max, negatives_ever, async_dels, relaxed, engine } =
        meta;
    let clean = clean.map_or_else(|| "not clean".to_owned(), |head| format!("clean at revision {head}"));
    let negatives = if *negatives_ever { ", of absent names too" } else { "" };
    let async_dels = if *async_dels { ", asynchronous DELs since a start in order" } else { "" };
    let relaxed = if *relaxed { ", relaxed: the next start begins a new history" } else { "" };
    format!(
        "meta: format {format}, history {:032x}, boot {boot}, last stop {clean}, leases up to {lease_max:?}{negatives}, \
         engine {engine}{async_dels}{relaxed}",
        history.0
    )
}

fn checkpoint_line(facts: &CheckpointFacts) -> String {
    let file = facts.file;
    match &facts.found {
        None => format!("{file}: none"),
        Some(Err(e)) => format!("{file}: not whole: {}", e.message()),
        Some(Ok(Checked { revision, index, age, outcomes, names, namespaces, .. })) => {
            let namespaces = match namespaces {
                0 => String::new(),
                n => format!(", {n} namespaces"),
            };
            format!(
                "{file}: whole, revision {revision}, index {index:032x}, {} s old, {outcomes} outcomes, {} \
                 names{namespaces}",
                age.as_secs(),
                or(*names, "?")
            )
        }
    }
}

fn index_line(facts: &IndexFacts) -> String {
    let engine = facts.engine;
    let proven = if facts.proven { "what" } else { "NOT what" };
    match &facts.found {
        Ok((identity, revision)) => {
            format!("index: {engine}, {identity:032x}, revision {revision}, {proven} the checkpoint proves")
        }
        Err(e) => format!("index: {engine}, cannot be opened: {}", e.message()),
    }
}

fn role_of(role: SegmentRole) -> (&'static str, Option<Revision>) {
    match role {
        SegmentRole::Continues => ("continues", None),
        SegmentRole::Origin(base) => ("origin", Some(base)),
        SegmentRole::Void => ("void", None),
        SegmentRole::Spare => ("spare", None),
        SegmentRole::Unfinished => ("unfinished", None),
        SegmentRole::Unknown => ("unknown", None),
    }
}

fn segment_line(facts: &SegmentFacts) -> String {
    let SegmentFacts { name, sequence, bytes, batches, used, .. } = facts;
    let (role, base) = role_of(facts.role);
    let base = base.map(|base| format!(" after revision {base}")).unwrap_or_default();
    let recycled = if facts.recycled { ", recycled" } else { "" };
    let relaxed = if facts.relaxed { ", relaxed" } else { "" };
    let held = match (facts.first, facts.last) {
        (Some(first), Some(last)) => format!("revisions {first} to {last} in {batches} batches, "),
        _ => String::new(),
    };
    format!(
        "segment {name}: sequence {sequence}, {role}{base}{recycled}{relaxed}, {held}{used} of {bytes} bytes used"
    )
}

fn blob_line(facts: &BlobFacts) -> String {
    let BlobFacts { files, bytes, bad, staged, staged_bytes, .. } = facts;
    let looked = if facts.deep { "every byte read" } else { "headers read" };
    format!(
        "blobs: {files} files, {bytes} bytes, {looked}, {bad} damaged, {staged} staged of {staged_bytes} bytes"
    )
}

fn json_of(report: &Report, code: u8) -> Value {
    let error = |e: &Error| json!({"kind": e.kind().to_string(), "message": e.message()});
    json!({
        "command": "check",
        "data": report.data.display().to_string(),
        "verdict": word_of(report.verdict()),
        "locked": report.locked,
        "meta": report.meta.as_ref().map(meta_json),
        "checkpoints": report.checkpoints.iter().map(checkpoint_json).collect::<Vec<_>>(),
        "index": report.index.as_ref().map(index_json),
        "segments": report.segments.iter().map(segment_json).collect::<Vec<_>>(),
        "journal": report.journal.as_ref().map(|judged| json!({
            "head": judged.head.0,
            "clean": judged.clean,
            "replayed": judged.replayed,
            "torn": judged.torn.as_ref().map(|torn| json!({
                "segment": torn.segment, "offset": torn.offset, "revision": torn.revision.0, "reason": torn.reason,
            })),
        })),
        "blobs": report.blobs.as_ref().map(blob_json),
        "missing_values": report.missing.as_ref().map(|missing| missing.values),
        "free_bytes": report.free,
        "min_free_bytes": report.min_free,
        "notes": report.notes,
        "mends": report.mends,
        "faults": report.faults.iter().map(error).collect::<Vec<_>>(),
        "exit": code,
    })
}

fn meta_json(meta: &MetaFacts) -> Value {
    json!({
        "format": meta.format,
        "history": format!("{:032x}", meta.history.0),
        "boot": meta.boot,
        "clean": meta.clean.map(|head| head.0),
        "lease_ms": u64::try_from(meta.lease_max.as_millis()).unwrap_or(u64::MAX),
        "negatives_ever": meta.negatives_ever,
        "async_dels": meta.async_dels,
        "relaxed": meta.relaxed,
        "engine": meta.engine,
    })
}

fn checkpoint_json(facts: &CheckpointFacts) -> Value {
    match &facts.found {
        None => json!({"file": facts.file, "found": false}),
        Some(Err(e)) => json!({"file": facts.file, "found": true, "whole": false, "reason": e.message()}),
        Some(Ok(c)) => json!({
            "file": facts.file,
            "found": true,
            "whole": true,
            "revision": c.revision.0,
            "previous": c.previous.0,
            "index": format!("{:032x}", c.index),
            "history": format!("{:032x}", c.history.0),
            "at_ms": c.at_ms,
            "age_ms": u64::try_from(c.age.as_millis()).unwrap_or(u64::MAX),
            "outcomes": c.outcomes,
            "namespaces": c.namespaces,
            "names": c.names,
        }),
    }
}

fn index_json(facts: &IndexFacts) -> Value {
    let found = facts.found.as_ref();
    json!({
        "engine": facts.engine.to_string(),
        "identity": found.ok().map(|(identity, _)| format!("{identity:032x}")),
        "revision": found.ok().map(|(_, revision)| revision.0),
        "reason": found.err().map(Error::message),
        "proven": facts.proven,
    })
}

fn segment_json(facts: &SegmentFacts) -> Value {
    let (role, base) = role_of(facts.role);
    let faults = facts.faults.iter().map(|fault| {
        json!({"offset": fault.offset, "revision": fault.revision.map(|r| r.0), "reason": fault.reason})
    });
    json!({
        "name": facts.name,
        "sequence": facts.sequence,
        "role": role,
        "base": base.map(|base| base.0),
        "recycled": facts.recycled,
        "relaxed": facts.relaxed,
        "bytes": facts.bytes,
        "used": facts.used,
        "batches": facts.batches,
        "first": facts.first.map(|r| r.0),
        "last": facts.last.map(|r| r.0),
        "unusable": facts.unusable,
        "damaged": faults.collect::<Vec<_>>(),
    })
}

fn blob_json(facts: &BlobFacts) -> Value {
    let named =
        facts.named.iter().map(|bad| json!({"file": bad.file.display().to_string(), "reason": bad.reason}));
    json!({
        "files": facts.files,
        "bytes": facts.bytes,
        "deep": facts.deep,
        "damaged": facts.bad,
        "named": named.collect::<Vec<_>>(),
        "foreign": facts.foreign,
        "staged": facts.staged,
        "staged_bytes": facts.staged_bytes,
    })
}
