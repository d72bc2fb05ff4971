//! `dstore` alone, in one process: the language from `-c`, `-f` and standard input.

use super::Dstore;
use std::process::Stdio;

#[test]
fn a_script_from_a_flag_a_file_or_standard_input_gives_the_same_lines() {
    let lines = "Database updated\ndb: a -> 1 2\nUnknown command!\nKey removed (global and local)\n";
    let dstore = Dstore::new();
    let ended = dstore.run(&["-c", "SET a 1 2; GET a; FOO; DEL a"]);
    assert_eq!((ended.code, &ended.out[..]), (Some(2), lines), "{}", ended.err);
    let script = "SET a 1 2\nGET a\nFOO\n\nDEL a";
    let ended = dstore.run_with(&[], script.as_bytes());
    assert_eq!((ended.code, &ended.out[..]), (Some(2), lines), "{}", ended.err);
    std::fs::write(dstore.path().join("script"), script).expect("written");
    let ended = dstore.run(&["-f", "script"]);
    assert_eq!((ended.code, &ended.out[..]), (Some(2), lines), "{}", ended.err);
    let ended = dstore.run(&["-f", "script", "--bail"]);
    assert_eq!((ended.code, ended.out.lines().count()), (Some(2), 3), "{ended:?}");
    let ended = dstore.run(&["-f", "absent"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("`absent`"), "{}", ended.err);
}

#[test]
fn standard_output_has_no_banner_no_prompt_and_no_colour() {
    let ended = Dstore::new().run_with(&[], b"GET a\n.exit 9\nFOO\n");
    assert_eq!(
        (ended.code, &ended.out[..], &ended.err[..]),
        (Some(9), "Key-Value mapping doesn't exist\n", "")
    );
}

#[test]
fn json_is_one_object_a_line() {
    let ended = Dstore::new().run(&["--json", "-c", "SET a 1; GET a; GET b"]);
    let exits: Vec<_> = ended
        .out
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["exit"].as_u64())
        .collect();
    assert_eq!((ended.code, exits), (Some(1), vec![Some(0), Some(0), Some(1)]));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let dstore = Dstore::new();
    let mut child = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    drop(child.stdout.take());
    let lines = "GET nope\n".repeat(100_000);
    let _ = std::io::Write::write_all(&mut child.stdin.take().expect("piped"), lines.as_bytes());
    let output = child.wait_with_output().expect("dstore ends");
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert!(output.status.code().is_some(), "not by a signal: {}", output.status);
}

#[test]
fn a_full_disk_behind_standard_output_is_an_error() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
    let dstore = Dstore::new();
    let output = dstore.command(&["-c", "GET a"]).stdout(full).output().expect("dstore runs");
    assert_eq!(output.status.code(), Some(70));
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output cannot be written"));
}

/// A deep checkout in a container: no `XDG_RUNTIME_DIR`, and a path too long for a socket.
#[test]
fn a_working_directory_with_a_long_path_is_no_obstacle_and_others_can_attach() {
    let dstore = Dstore::new();
    let deep = dstore.path().join("d".repeat(60)).join("e".repeat(60));
    std::fs::create_dir_all(&deep).expect("made");
    let temp = dstore.path().join("t");
    std::fs::create_dir(&temp).expect("made");
    let command = |args: &[&str]| {
        let mut command = dstore.command(args);
        command.current_dir(&deep).env("TMPDIR", &temp);
        command
    };
    let ended = super::Ended::of(&command(&["-c", "SET a 1; GET a"]).output().expect("dstore runs"));
    assert_eq!((ended.code, &ended.out[..], &ended.err[..]), (Some(0), "Database updated\ndb: a -> 1\n", ""));
    // While one runs, another process in the same directory finds it.
    let mut first = command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    let mut found = None;
    for _ in 0..200 {
        let ended = super::Ended::of(&command(&["get", "a"]).output().expect("dstore runs"));
        if ended.code == Some(0) {
            found = Some(ended.out);
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    drop(first.stdin.take());
    assert_eq!(first.wait().expect("it ends").code(), Some(0));
    assert_eq!(found.as_deref(), Some("1"));
    // A folder that others can write to is not used, which is said once; the rest works.
    let folder = std::fs::read_dir(&temp).expect("listed").next().expect("one folder").expect("read").path();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("set");
    let ended = super::Ended::of(&command(&["-c", "GET a"]).output().expect("dstore runs"));
    assert!(ended.code == Some(0) && ended.out.contains("a -> 1"), "{ended:?}");
    assert_eq!(ended.err.matches("no other process can attach").count(), 1, "{}", ended.err);
}

#[test]
fn a_watch_tells_what_became_of_keys_since_a_revision() {
    let dstore = Dstore::new();
    let ended = dstore
        .run(&["-c", "SET a 1; SET b 2; DEL a b; WATCH --from 0 --count 4; WATCH b --from 0 --count 2"]);
    let told: Vec<_> =
        ended.out.lines().skip(4).map(|line| line.split(" blake3").next().unwrap_or(line)).collect();
    assert_eq!(told, ["1 set a", "2 set b", "3 del a", "3 del b", "2 set b", "3 del b"], "{ended:?}");
    assert_eq!(ended.code, Some(0));
    // It is remembered over a restart.
    let ended = dstore.run(&["--json", "-c", "WATCH --from 2 --count 1"]);
    let event: serde_json::Value = serde_json::from_str(&ended.out).expect("JSON");
    assert_eq!((&event["kind"], &event["key"], &event["revision"]), (&"del".into(), &"a".into(), &3.into()));
}
