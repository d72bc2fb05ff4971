//! `dstore import` and `dstore export`.

use super::{Dstore, Ended};
use rustix::fs::{CWD, Mode, mkfifoat};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Stdio};

/// A node in the directory, for as long as this lives.
struct Node(Child);

impl Node {
    fn start(dstore: &Dstore) -> Self {
        let mut child = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
        child.stdin.as_mut().expect("piped").write_all(b"GET ready\n").expect("written");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        assert_eq!(line, "Key-Value mapping doesn't exist\n");
        Self(child)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn write(path: impl AsRef<Path>, bytes: &[u8]) {
    fs::create_dir_all(path.as_ref().parent().expect("within a folder")).expect("made");
    fs::write(path, bytes).expect("written");
}

fn told(ended: &Ended) -> serde_json::Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"))
}

/// `moved`, `unchanged`, `skipped`, `failed` and the code.
fn counts(ended: &Ended) -> ([u64; 4], Option<i32>) {
    let told = told(ended);
    let count = |name: &str| told[name].as_u64().expect(name);
    (["moved", "unchanged", "skipped", "failed"].map(count), ended.code)
}

#[test]
fn a_tree_comes_back_as_it_was_and_both_ways_go_on_where_they_ended() {
    let dstore = Dstore::new();
    let _node = Node::start(&dstore);
    let at = |path: &str| dstore.path().join(path);
    // Small ones in more than one batch, an empty one, one for a stream, and names that are no text.
    for n in 0..600 {
        write(at(&format!("src/many/{n:03}")), format!("value {n}").as_bytes());
    }
    write(at("src/empty"), b"");
    let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    write(at("src/deep/er/large"), &large);
    write(at("src/two words\nand lines"), b"x");
    let import = ["import", "src", "--prefix", "t/", "--json"];
    assert_eq!(counts(&dstore.run(&import)), ([603, 0, 0, 0], Some(0)));
    assert_eq!(counts(&dstore.run(&import)), ([0, 603, 0, 0], Some(0)), "nothing is stored twice");
    write(at("src/new"), b"later");
    assert_eq!(counts(&dstore.run(&import)), ([1, 603, 0, 0], Some(0)), "only what is new");
    let export = ["export", "t/", "out", "--json"];
    assert_eq!(counts(&dstore.run(&export)), ([604, 0, 0, 0], Some(0)));
    for path in ["many/599", "empty", "deep/er/large", "two words\nand lines", "new"] {
        assert!(
            fs::read(at("out").join(path)).expect(path) == fs::read(at("src").join(path)).expect(path),
            "{path}"
        );
    }
    assert_eq!(fs::read_dir(at("out/many")).expect("listed").count(), 600, "and nothing else");
    fs::remove_file(at("out/new")).expect("removed");
    assert_eq!(counts(&dstore.run(&export)), ([1, 603, 0, 0], Some(0)), "only what is missing");
    write(at("out/new"), b"other");
    let ended = dstore.run(&export);
    assert_eq!(counts(&ended), ([0, 603, 0, 1], Some(3)));
    assert!(ended.err.contains("--overwrite"), "{}", ended.err);
    assert_eq!(fs::read(at("out/new")).expect("read"), b"other", "what is there is not lost");
    assert_eq!(
        counts(&dstore.run(&["export", "t/", "out", "--json", "--overwrite"])),
        ([1, 603, 0, 0], Some(0))
    );
    assert_eq!(fs::read(at("out/new")).expect("read"), b"later");
}

#[test]
fn what_cannot_be_moved_is_named_and_the_code_says_so() {
    let dstore = Dstore::new();
    let _node = Node::start(&dstore);
    let at = |path: &str| dstore.path().join(path);
    write(at("src/a"), b"1");
    symlink("a", at("src/link")).expect("made");
    symlink("/", at("src/root")).expect("made");
    mkfifoat(CWD, at("src/pipe"), Mode::RWXU).expect("made");
    let _socket = std::os::unix::net::UnixListener::bind(at("src/socket")).expect("bound");
    let ended = dstore.run(&["import", "src"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.out.starts_with("imported 1 file, 0 unchanged, 4 skipped, 0 failed"), "{}", ended.out);
    for said in [
        "skipped: link: a link",
        "skipped: root: a link",
        "skipped: pipe: a pipe",
        "skipped: socket: a socket",
    ] {
        assert!(ended.err.contains(said), "{said}: {}", ended.err);
    }
    // The same key with other bytes is not replaced.
    write(at("src/a"), b"2");
    let ended = dstore.run(&["import", "src", "--json"]);
    assert_eq!(counts(&ended), ([0, 0, 4, 1], Some(3)));
    assert_eq!(dstore.run(&["get", "a"]).out, "1");
    // What may not be read; whoever is root may read all.
    write(at("closed/b"), b"3");
    fs::set_permissions(at("closed/b"), fs::Permissions::from_mode(0o000)).expect("set");
    if fs::read(at("closed/b")).is_err() {
        let ended = dstore.run(&["import", "closed", "--json"]);
        assert_eq!(counts(&ended), ([0, 0, 0, 1], Some(5)), "{}", ended.err);
    }
    for wrong in [&["import", "absent"][..], &["import", "src/a"]] {
        assert_eq!(dstore.run(wrong).code, Some(2), "{wrong:?}");
    }
    let ended = dstore.run(&["import", "src", "--node", "127.0.0.1:1"]);
    assert_eq!(ended.code, Some(4), "{}", ended.err);
}

#[test]
fn no_key_leads_out_of_the_folder_and_no_link_is_followed() {
    let dstore = Dstore::new();
    let _node = Node::start(&dstore);
    let at = |path: &str| dstore.path().join(path);
    for key in ["x/../../evil", "x//etc", "x/.", "x/a\\b", "x/in/side"] {
        assert_eq!(dstore.run(&["set", key, "v"]).code, Some(0), "{key}");
    }
    fs::create_dir_all(at("out")).expect("made");
    fs::create_dir_all(at("elsewhere")).expect("made");
    symlink(at("elsewhere"), at("out/in")).expect("made");
    let ended = dstore.run(&["export", "x/", "out", "--json"]);
    assert_eq!(counts(&ended).0, [1, 0, 3, 1], "{}", ended.err);
    assert_ne!(ended.code, Some(0));
    assert!(!at("evil").exists() && !at("elsewhere/side").exists(), "{}", ended.err);
    assert_eq!(fs::read(at("out/a\\b")).expect("read"), b"v");
}
