//! `dstore set KEY -` with an input that takes its time, through a node in another process.

use super::{Dstore, Ended};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};
use std::time::Duration;

/// Longer than a transfer of which nothing moves is waited for (10 s), and than a command waits for its node.
const PAUSE: Duration = Duration::from_secs(12);

#[test]
fn a_value_from_a_slow_input_is_stored_however_long_that_takes() {
    let dstore = Dstore::new();
    let mut node = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    node.stdin.as_mut().expect("piped").write_all(b"GET a\n").expect("written");
    let mut line = String::new();
    BufReader::new(node.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "Key-Value mapping doesn't exist\n");

    // One that fits a message, one that does not: then the pause is in the middle of an upload.
    let values = [("small", 1), ("large", (1 << 20) + 5)].map(|(key, half)| (key, vec![b'x'; half]));
    let mut sets = values.each_ref().map(|(key, half)| begin(&dstore, key, half));
    // That time passes is what is tested.
    std::thread::sleep(PAUSE);
    for (set, (_, half)) in sets.iter_mut().zip(&values) {
        set.stdin.take().expect("piped").write_all(half).expect("it still reads");
    }
    for (set, (key, half)) in sets.into_iter().zip(&values) {
        let ended = Ended::of(&set.wait_with_output().expect("dstore ends"));
        assert_eq!(
            (ended.code, &ended.out[..], &ended.err[..]),
            (Some(0), "Database updated\n", ""),
            "{key}"
        );
        let got = dstore.run(&["get", key]);
        assert_eq!((got.code, got.out.len()), (Some(0), 2 * half.len()), "{key}: {}", got.err);
    }
    drop(node.stdin.take());
    assert_eq!(node.wait().expect("dstore ends").code(), Some(1), "of the GET that found nothing");
}

fn begin(dstore: &Dstore, key: &str, half: &[u8]) -> Child {
    let mut set = dstore.command(&["set", key, "-"]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    set.stdin.as_mut().expect("piped").write_all(half).expect("it reads");
    set
}
