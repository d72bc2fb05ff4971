//! `dstore copy` and `dstore rename`: what a script sees of them.

use super::Dstore;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn copy_and_rename_end_with_0_if_done_1_if_there_is_nothing_and_3_if_occupied() {
    let dstore = Dstore::new();
    let mut serving = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    // Until it serves, it cannot be asked.
    let set = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        dstore.run(&["set", "a", "1"]).code == Some(0)
    });
    assert!(set, "it serves");
    assert_eq!(dstore.run(&["set", "other", "2"]).code, Some(0));
    let table: [(&[&str], i32, &str); 9] = [
        (&["copy", "a", "b"], 0, "Database updated\n"),
        (&["copy", "a", "b"], 0, ""),
        (&["copy", "nope", "c"], 1, "Key-Value mapping doesn't exist\n"),
        (&["copy", "a", "other"], 3, "Key occupied!\n"),
        (&["rename", "a", "c"], 0, "Database updated\n"),
        (&["rename", "a", "c"], 1, "Key-Value mapping doesn't exist\n"),
        (&["rename", "c", "other"], 3, "Key occupied!\n"),
        (&["get", "c"], 0, "1"),
        (&["get", "a"], 1, ""),
    ];
    for (args, code, out) in table {
        let ended = dstore.run(args);
        assert_eq!((ended.code, &ended.out[..]), (Some(code), out), "{args:?}: {}", ended.err);
    }
    let json = dstore.run(&["--json", "rename", "c", "d"]);
    let answer: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    assert_eq!((json.code, &answer["outcome"], &answer["to"]), (Some(0), &"done".into(), &"d".into()));
    drop(serving.stdin.take());
    assert_eq!(serving.wait().expect("it ends").code(), Some(0));
}
