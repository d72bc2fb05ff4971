//! `dstore check` on directories that the real binary left.

use super::{Dstore, Ended};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// Every file's hash and time of change, by its path.
fn contents(dir: &Path) -> BTreeMap<PathBuf, (String, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let meta = std::fs::symlink_metadata(&path).expect("there");
        let changed = meta.modified().expect("known");
        if meta.is_dir() {
            found.extend(contents(&path));
            found.insert(path, (String::new(), changed));
        } else {
            let bytes = if meta.is_file() { std::fs::read(&path).expect("read") } else { Vec::new() };
            found.insert(path, (blake3::hash(&bytes).to_string(), changed));
        }
    }
    found
}

#[test]
fn what_a_stop_and_a_kill_leave_is_healthy_on_each_engine_and_no_byte_is_changed() {
    for engine in ["fjall", "sled", "memory"] {
        let dstore = Dstore::new();
        let data = dstore.path().join("dstore-data");
        let large = "x".repeat(5000);
        let ended = dstore.run(&["--engine", engine, "-c", &format!("SET a 1; SET b {large}; SET c 3")]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let before = contents(&data);
        let ended = dstore.run(&["check", "--deep"]);
        assert_eq!(ended.code, Some(0), "{engine}: {ended:?}");
        assert!(ended.out.ends_with("\nhealthy\n"), "{engine}: {}", ended.out);
        assert!(ended.out.contains("clean at revision"), "{engine}: {}", ended.out);
        assert_eq!(contents(&data), before, "{engine}: nothing was changed");

        let mut child =
            dstore.command(&["--engine", engine]).stdin(Stdio::piped()).spawn().expect("dstore runs");
        child.stdin.as_mut().expect("piped").write_all(b"SET d 4\n").expect("written");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        assert_eq!(line, "Database updated\n");
        let used = dstore.run(&["check"]);
        assert_eq!((used.code, &used.out[..]), (Some(2), ""), "{engine}");
        assert!(used.err.contains("in use"), "{engine}: {}", used.err);
        child.kill().expect("killed");
        child.wait().expect("ended");

        let before = contents(&data);
        let ended = dstore.run(&["check", "--json"]);
        let report = json(&ended);
        assert_eq!(ended.code, Some(0), "{engine}: {report:#}");
        assert_eq!((&report["exit"], &report["meta"]["engine"]), (&0.into(), &engine.into()));
        assert_eq!((&report["meta"]["clean"], &report["index"]["proven"]), (&Value::Null, &true.into()));
        assert_eq!(contents(&data), before, "{engine}: nothing was changed");
        let ended = dstore.run(&["--engine", engine, "-c", "GET d"]);
        assert!(ended.out.ends_with(": d -> 4\n"), "{engine}: {ended:?}");
    }
}

#[test]
fn what_a_kill_leaves_open_is_told_weaker_changes_and_all() {
    let dstore = Dstore::new();
    let sync = ["--sync", "relaxed=10s"];
    let mut child = dstore.command(&sync).stdin(Stdio::piped()).spawn().expect("dstore runs");
    child.stdin.as_mut().expect("piped").write_all(b"SET a 1\nDEL a --async\n").expect("written");
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    assert_eq!(lines.next().expect("a line").expect("read"), "Database updated");
    assert!(lines.next().expect("a line").expect("read").starts_with("Key removed"));
    child.kill().expect("killed");
    child.wait().expect("ended");

    let ended = dstore.run(&["check", "--json"]);
    let report = json(&ended);
    let told = |report: &Value| (report["meta"]["relaxed"].clone(), report["meta"]["async_dels"].clone());
    assert_eq!((ended.code, told(&report)), (Some(0), (true.into(), true.into())), "{report:#}");
    let segments = report["segments"].as_array().expect("a list");
    assert!(segments.iter().any(|segment| segment["relaxed"] == true), "{report:#}");
    let text = dstore.run(&["check"]).out;
    assert!(text.contains("asynchronous DELs since a start in order, relaxed: the next start"), "{text}");
    assert!(text.lines().any(|line| line.starts_with("segment ") && line.contains(", relaxed")), "{text}");

    // The first ends in order, the second begins so.
    for key in ["b", "c"] {
        assert_eq!(dstore.run(&["-c", &format!("SET {key} 2")]).code, Some(0));
    }
    let report = json(&dstore.run(&["check", "--json"]));
    assert_eq!(told(&report), (false.into(), false.into()), "{report:#}");
}

/// A copy of a directory and all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("made");
    for entry in std::fs::read_dir(from).expect("a directory") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &to);
        } else if path.is_file() {
            std::fs::copy(&path, &to).expect("copied");
        }
    }
}

#[test]
fn a_damaged_index_changes_nothing_and_is_healthy_only_if_a_start_reads_all_of_it() {
    for engine in ["fjall", "sled"] {
        let dstore = Dstore::new();
        let (whole, data) = (dstore.path().join("whole"), dstore.path().join("dstore-data"));
        let lines: Vec<_> = (0..600).map(|i| format!("SET k{i} {}", "v".repeat(2000))).collect();
        let script = lines.join("\n");
        let reads = (0..600).map(|i| format!("GET k{i}")).collect::<Vec<_>>().join("\n");
        assert_eq!(
            dstore.run_with(&["--engine", engine, "--data", "whole"], script.as_bytes()).code,
            Some(0)
        );
        let index = whole.join("index");
        let files: Vec<_> = contents(&index).into_keys().filter(|path| path.is_file()).collect();
        let tables = files.iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("tables")));
        assert_eq!(tables.count() > 0, engine == "fjall", "{files:?}");
        // Each costs some copies of the journal's empty segments.
        for file in files.iter().step_by(files.len().div_ceil(5)) {
            let _ = std::fs::remove_dir_all(&data);
            copy(&whole, &data);
            let damaged = data.join(file.strip_prefix(&whole).expect("within"));
            let mut bytes = std::fs::read(&damaged).expect("read");
            bytes.iter_mut().take(64).for_each(|byte| *byte ^= 0xa5);
            std::fs::write(&damaged, bytes).expect("written");
            let before = contents(&data);
            let ended = dstore.run(&["check", "--deep"]);
            assert_eq!(contents(&data), before, "{}: nothing was changed", damaged.display());
            let starts = dstore.run_with(&["--engine", engine], reads.as_bytes()).code == Some(0);
            // Some of an index is read by changes only: then it is damaged all the same.
            let told = ended.code == Some(6) && ended.out.contains("wrong: Corrupt: the index is damaged");
            assert!((ended.code == Some(0)) == starts || told, "{}: {ended:?}", damaged.display());
            assert!(starts || ended.code != Some(0), "{}: not healthy, {ended:?}", damaged.display());
        }
    }
}

#[test]
fn damage_ends_with_6_and_no_directory_with_2() {
    let dstore = Dstore::new();
    let ended = dstore.run(&["check"]);
    assert_eq!((ended.code, &ended.out[..]), (Some(2), ""));
    assert!(ended.err.contains("--data"), "{}", ended.err);
    assert!(!dstore.path().join("dstore-data").exists(), "none is made");
    assert_eq!(dstore.run(&["-c", "SET a 1"]).code, Some(0));
    let meta = dstore.path().join("dstore-data/meta");
    let mut bytes = std::fs::read(&meta).expect("read");
    bytes[30] ^= 1;
    std::fs::write(&meta, bytes).expect("written");
    let ended = dstore.run(&["check", "--data", "dstore-data", "--json"]);
    assert_eq!(ended.code, Some(6), "{ended:?}");
    assert_eq!(json(&ended)["verdict"], "damaged");
    let ended = dstore.run(&["check"]);
    assert_eq!(ended.code, Some(6));
    assert!(ended.out.contains("wrong: ") && ended.out.ends_with("\nnot healthy\n"), "{}", ended.out);
}

#[test]
fn salvage_ends_with_0_if_nothing_was_lost_6_if_something_was_and_2_if_nothing_was_copied() {
    let dstore = Dstore::new();
    let (data, large) = (dstore.path().join("dstore-data"), vec![7; 200_000]);
    assert_eq!(dstore.run(&["-c", "SET a 1; SET b 2"]).code, Some(0));
    let mut child = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    let mut line = String::new();
    child.stdin.as_mut().expect("piped").write_all(b"GET a\n").expect("written");
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(dstore.run_with(&["set", "large", "-"], &large).code, Some(0), "through its socket");
    let used = dstore.run(&["check", "--salvage", "used"]);
    assert_eq!((used.code, &used.out[..]), (Some(2), ""), "{used:?}");
    child.kill().expect("killed");
    child.wait().expect("ended");

    let before = contents(&data);
    let ended = dstore.run(&["check", "--salvage", "whole"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.ends_with("nothing was lost\n"), "{}", ended.out);
    let again = dstore.run(&["check", "--salvage", "whole"]);
    assert_eq!((again.code, &again.out[..]), (Some(2), ""), "{again:?}");
    assert!(again.err.contains("not empty"), "{again:?}");

    let above = |path: &Path| path.ancestors().nth(2).is_some_and(|dir| dir.ends_with("blobs"));
    let blobs: Vec<_> = before.keys().filter(|path| above(path) && path.is_file()).collect();
    assert_eq!(blobs.len(), 1, "{blobs:?}");
    for blob in blobs {
        let mut bytes = std::fs::read(blob).expect("read");
        bytes[100_000] ^= 1;
        std::fs::write(blob, bytes).expect("written");
    }
    let before = contents(&data);
    let ended = dstore.run(&["check", "--salvage", "damaged", "--json"]);
    let report = json(&ended);
    assert_eq!(ended.code, Some(6), "{report:#}");
    assert_eq!((&report["lost_names"], &report["names"]), (&1.into(), &2.into()), "{report:#}");
    assert_eq!(contents(&data), before, "the source is as it was");
    assert!(dstore.path().join("damaged/salvage.txt").exists());
    for (dir, large) in [("whole", Some(0)), ("damaged", Some(1))] {
        assert_eq!(dstore.run(&["check", "--deep", "--data", dir]).code, Some(0), "{dir}");
        let served = dstore.run(&["--data", dir, "-c", "GET a; GET b"]).out;
        assert!(served.contains(": a -> 1") && served.contains(": b -> 2"), "{dir}: {served}");
        assert_eq!(dstore.run(&["--data", dir, "-c", "GET large"]).code, large, "{dir}");
    }
}
