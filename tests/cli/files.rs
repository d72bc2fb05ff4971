//! Values out of a node into files, and parts of them.

use super::{Dstore, Ended};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Command, Stdio};

/// A Global whose process ends with the value.
struct Node {
    child: Child,
    dstore: Dstore,
    at: String,
}

impl Node {
    fn start() -> Self {
        let dstore = Dstore::new();
        let mut child = dstore.command(&["global", "--listen", "127.0.0.1:0"]).spawn().expect("dstore runs");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
        let at = line.trim_end().rsplit(' ').next().expect("an address").to_owned();
        Self { child, dstore, at }
    }

    fn run(&self, args: &[&str]) -> Ended {
        self.dstore.run(&[args, &["--node", &self.at]].concat())
    }

    fn bytes(&self, args: &[&str]) -> Vec<u8> {
        let output =
            self.dstore.command(&[args, &["--node", &self.at]].concat()).output().expect("dstore runs");
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        output.stdout
    }

    fn set(&self, key: &str, value: &[u8]) {
        assert_eq!(self.dstore.run_with(&["set", key, "-", "--node", &self.at], value).code, Some(0));
    }

    fn file(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.dstore.path().join(name)).ok()
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dstore.path().join(name), bytes).expect("written");
    }

    /// What is in the directory besides the data.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dstore.path()).expect("listed");
        let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text"));
        let mut names: Vec<_> = names.filter(|name| name != "dstore-data").collect();
        names.sort();
        names
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value(len: usize) -> Vec<u8> {
    (0..len).map(|i| ((i * 31) ^ (i / 1009)) as u8).collect()
}

#[test]
fn a_part_of_a_value_is_written_and_a_beginning_past_its_end_is_refused() {
    let node = Node::start();
    for len in [0, 10, 70_000, 1_000_000] {
        let (key, all) = (format!("k{len}"), value(len));
        node.set(&key, &all);
        for (offset, n) in [(0, 0), (0, 1), (3, 4), (len / 2, len), (len, 5), (len / 3, len / 4)] {
            if offset > len {
                continue;
            }
            let (from, count) = (offset.to_string(), n.to_string());
            let got = node.bytes(&["get", &key, "--offset", &from, "--len", &count]);
            assert!(got == all[offset..len.min(offset + n)], "{len}: {offset}+{n}");
            assert!(node.bytes(&["get", &key, "--offset", &from]) == all[offset..], "{len}: from {offset}");
        }
        let past = node.run(&["get", &key, "--offset", &(len + 1).to_string()]);
        assert_eq!((past.code, &past.out[..]), (Some(2), ""), "{past:?}");
    }
}

#[test]
fn a_file_is_made_replaced_or_refused_as_asked_and_never_half() {
    let node = Node::start();
    let (a, b) = (value(300_000), b"short".to_vec());
    node.set("a", &a);
    node.set("b", &b);
    assert_eq!(
        node.run(&["get", "a", "--out", "file"]),
        Ended { code: Some(0), out: String::new(), err: String::new() }
    );
    assert!(node.file("file") == Some(a.clone()));
    for how in [&[][..], &["--exclusive"]] {
        let refused = node.run(&[&["get", "b", "--out", "file"], how].concat());
        assert_eq!(refused.code, Some(3), "{refused:?}");
        assert!(refused.err.contains("--truncate"), "{refused:?}");
        assert!(node.file("file") == Some(a.clone()), "it is as it was");
    }
    let path = node.dstore.path().join("file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("set");
    std::os::unix::fs::symlink("file", node.dstore.path().join("link")).expect("linked");
    assert_eq!(node.run(&["get", "b", "--out", "link", "--truncate"]).code, Some(0));
    assert_eq!(node.file("file"), Some(b.clone()), "what the link leads to is replaced");
    assert!(node.dstore.path().join("link").is_symlink());
    assert_eq!(std::fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o640);
    // Not there: nothing is made or touched.
    for how in [&["--out", "new"][..], &["--out", "file", "--truncate"], &["--out", "new", "--append"]] {
        assert_eq!(node.run(&[&["get", "nowhere"], how].concat()).code, Some(1), "{how:?}");
    }
    assert_eq!(node.file("file"), Some(b));
    assert_eq!(node.files(), ["file", "link"], "nothing is left beside them");
    for (args, code) in [
        (&["--out", "no/such/folder/file"][..], 2),
        (&["--out", "new", "--json"], 2),
        (&["--exclusive"], 2),
        (&["--out", "new", "--append", "--offset", "1"], 2),
    ] {
        let ended = node.run(&[&["get", "a"], args].concat());
        assert_eq!(ended.code, Some(code), "{args:?}: {ended:?}");
    }
    assert_eq!(node.run(&["get", "a", "--out", "/dev/null", "--truncate"]).code, Some(0));
    assert!(!std::fs::metadata("/dev/null").expect("there").is_file(), "a device is not replaced");
}

#[test]
fn a_file_goes_on_where_it_ends() {
    let node = Node::start();
    let all = value(2_000_000);
    node.set("k", &all);
    node.write("file", &all[..1_234_567]);
    assert_eq!(node.run(&["get", "k", "--out", "file", "--append", "--len", "10"]).code, Some(0));
    assert!(node.file("file").as_deref() == Some(&all[..1_234_577]));
    assert_eq!(node.run(&["get", "k", "--out", "file", "--append"]).code, Some(0));
    assert!(node.file("file") == Some(all.clone()), "the rest");
    assert_eq!(node.run(&["get", "k", "--out", "file", "--append"]).code, Some(0), "there is nothing to add");
    assert!(node.file("file") == Some(all.clone()));
    assert_eq!(node.run(&["get", "k", "--out", "fresh", "--append"]).code, Some(0));
    assert!(node.file("fresh") == Some(all.clone()));
    node.write("longer", &[&all[..], b"!"].concat());
    assert_eq!(node.run(&["get", "k", "--out", "longer", "--append"]).code, Some(2), "it is another's");
    assert_eq!(node.file("longer").map(|bytes| bytes.len()), Some(all.len() + 1));
}

#[test]
fn a_file_system_that_is_full_leaves_no_half_file() {
    let node = Node::start();
    node.set("k", &value(4_000_000));
    let small = node.dstore.path().join("small");
    std::fs::create_dir(&small).expect("made");
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=1m", "dstore-test"]).arg(&small).stderr(Stdio::null());
    if !mount.status().is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: no file system can be mounted here");
        return;
    }
    let out = small.join("file");
    let ended = node.run(&["get", "k", "--out", out.to_str().expect("text")]);
    let left = std::fs::read_dir(&small).expect("listed").count();
    let _ = Command::new("umount").arg("--lazy").arg(&small).status();
    assert_eq!((ended.code, left), (Some(7), 0), "{ended:?}");
}
