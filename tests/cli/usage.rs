//! Wrong command lines: exit 2, a clean standard output, and an error that says what to write.

use super::Dstore;

#[test]
fn a_wrong_command_line_ends_with_2_and_says_what_is_wrong() {
    let table: [(&[&str], &str); 18] = [
        (&["frobnicate"], "unrecognized subcommand"),
        (&["--frobnicate"], "unexpected argument"),
        (&["get"], "<KEY>"),
        (&["get", "a", "b"], "unexpected argument"),
        (&["set", "k"], "<VALUE>"),
        (&["del"], "<KEYS>"),
        (&["get", ""], "the key is empty"),
        (&["global", "--lease", "2"], "`--lease`: `2` is not a duration"),
        (&["global", "--min-free", "12XB"], "`--min-free`: `12XB` is not a size"),
        (&["global", "--engine", "rocksdb"], "`rocksdb` is not an engine"),
        (&["global", "--listen", "nowhere"], "HOST:PORT"),
        (&["global", "--listen", "0.0.0.0:0"], "--insecure"),
        (&["local", "--cache-bytes", "256"], "is not a size: write one like 256MiB"),
        (&["local", "--lissten", "x"], "similar argument exists: '--listen'"),
        (&["repl", "--node", "unixx"], "unix:PATH"),
        (&["repl", "-c", "GET a", "-f", "x"], "cannot be used with"),
        (&["--data", "x", "get", "k"], "`--data` belongs to solo mode"),
        (&["status", "--bail"], "unexpected argument"),
    ];
    let dstore = Dstore::new();
    for (args, says) in table {
        let ended = dstore.run(args);
        assert_eq!((ended.code, &ended.out[..]), (Some(2), ""), "{args:?}: {ended:?}");
        assert!(ended.err.contains(says), "{args:?}: {}", ended.err);
    }
    let left: Vec<_> = std::fs::read_dir(dstore.path()).expect("listed").collect();
    assert!(left.is_empty(), "a refused command line leaves nothing behind: {left:?}");
}

#[test]
fn a_key_that_is_too_long_ends_with_7() {
    let ended = Dstore::new().run(&["get", &"k".repeat(1025)]);
    assert_eq!(ended.code, Some(7));
    assert!(ended.err.contains("a key has 1 to 1024 bytes"), "{}", ended.err);
}

#[test]
fn a_wrong_log_filter_is_refused() {
    let output =
        Dstore::new().command(&["get", "k"]).env("DSTORE_LOG", "a=b=c").output().expect("dstore runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("`DSTORE_LOG`"));
}

#[test]
fn help_and_version_are_answers_and_not_errors() {
    let dstore = Dstore::new();
    let version = dstore.run(&["--version"]);
    assert_eq!((version.code, version.out), (Some(0), format!("dstore {}\n", env!("CARGO_PKG_VERSION"))));
    let help = dstore.run(&["--help"]);
    assert_eq!(help.code, Some(0));
    let old = ["global", "local", "repl", "get", "set", "del", "copy", "rename", "status", "check"];
    let looks =
        ["stat", "exists", "same", "ls", "add", "evict", "pin", "unpin", "warm", "locals", "why", "bench"];
    for verb in old.into_iter().chain(looks).chain(["import", "export"]) {
        assert!(help.out.contains(&format!("\n  {verb} ")), "{verb} in {}", help.out);
    }
    assert!(!help.out.contains("\n  top "), "only what exists is offered");
}
