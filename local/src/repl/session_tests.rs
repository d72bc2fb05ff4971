//! Sessions over a store in memory: each row of the table, each exit code, each way to go wrong.

use super::fake::{Ran, Stage};
use super::*;
use bytes::Bytes;
use dstore_proto::store::Tier;
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{Attributes, BlobHash, Entry, Error, Key, Kind, Revision};
use futures_util::stream;
use std::time::Duration;

fn from_global(stage: &Stage, cached: bool) {
    stage.how(|how| (how.from.tier, how.from.cached) = (Tier::Global, cached));
}

#[tokio::test]
async fn each_row_of_the_table_is_written_exactly_and_alone() {
    let stage = Stage::new();
    let ran =
        stage.script("SET key value; GET key; SET key other; SET key value; GET nope; DEL key nope").await;
    let lines = [
        "Database updated",
        "db: key -> value",
        "Key occupied!",
        "Key occupied!",
        "Key-Value mapping doesn't exist",
        "Key removed (global and local)",
        "Key-Value mapping doesn't exist",
        "",
    ];
    assert_eq!(ran.out, lines.join("\n"));
    assert_eq!(ran.code, exit::OCCUPIED, "the first failure's code");
    assert!(ran.err.contains("it holds blake3:") && ran.err.contains("unchanged"), "{}", ran.err);

    let stage = Stage::new();
    stage.script("SET hi hello").await;
    from_global(&stage, true);
    assert_eq!(stage.script("GET hi").await.out, "global: hi -> hello     (Updating Local)\n");
    assert_eq!(
        stage.script("SET hi x").await,
        Ran {
            code: 3,
            out: "(Updated local) Key occupied!\n".into(),
            err: stage.script("SET hi x").await.err,
        }
    );
    from_global(&stage, false);
    assert_eq!(
        stage.script("GET hi").await,
        Ran { code: 0, out: "global: hi -> hello\n".into(), err: String::new() }
    );
    assert_eq!(stage.script("SET hi x").await.out, "Key occupied!\n");
}

#[tokio::test]
async fn copy_and_rename_answer_with_the_texts_and_codes_of_set_and_get() {
    let stage = Stage::new();
    stage.script("SET a 1; SET other 2").await;
    let copied = stage.script("COPY a b; copy a b; COPY a other; COPY nope c; GET b").await;
    let lines = [
        "Database updated",
        "Key occupied!",
        "Key occupied!",
        "Key-Value mapping doesn't exist",
        "db: b -> 1",
        "",
    ];
    assert_eq!(copied.out, lines.join("\n"));
    assert_eq!(copied.code, exit::OCCUPIED, "the first failure's code");
    assert!(copied.err.contains("unchanged") && copied.err.contains("it holds blake3:"), "{}", copied.err);
    let renamed = stage.script("RENAME a c; RENAME a d; GET c; RENAME c other").await;
    let lines = ["Database updated", "Key-Value mapping doesn't exist", "db: c -> 1", "Key occupied!", ""];
    assert_eq!((renamed.out, renamed.code), (lines.join("\n"), exit::NOT_FOUND));
    let json = stage.script("RENAME --json c d; COPY --json nope d").await;
    assert!(json.out.contains(r#""command":"rename","key":"c","outcome":"done","to":"d""#), "{}", json.out);
    assert!(json.out.contains(r#""outcome":"not_found""#) && json.code == exit::NOT_FOUND, "{}", json.out);
    for wrong in ["COPY", "COPY a", "RENAME a b c"] {
        let ran = stage.script(wrong).await;
        assert_eq!((ran.code, &ran.out[..]), (exit::USAGE, ""), "{wrong}: {}", ran.err);
    }
}

#[tokio::test]
async fn a_bad_line_is_answered_and_the_script_goes_on() {
    let stage = Stage::new();
    let ran = stage.script("FOO; .foo; GET; SET a 1; GET a").await;
    assert_eq!(ran.out, "Unknown command!\nUnsuccessful parsing!\nDatabase updated\ndb: a -> 1\n");
    assert_eq!(ran.code, exit::USAGE);
    assert!(ran.err.contains("write `GET KEY`"), "{}", ran.err);
}

#[tokio::test]
async fn bail_stops_at_the_first_failure() {
    let mut stage = Stage::new();
    stage.bail = true;
    let ran = stage.script("SET a 1; GET nope; SET b 2").await;
    assert_eq!((ran.code, &ran.out[..]), (1, "Database updated\nKey-Value mapping doesn't exist\n"));
    assert_eq!(stage.script("FOO; GET a").await.code, 2);
    assert_eq!(stage.script("GET a; GET b").await.out, "db: a -> 1\nKey-Value mapping doesn't exist\n");
}

#[tokio::test]
async fn exit_leaves_with_its_code_or_that_of_the_first_failure() {
    let stage = Stage::new();
    let table = [
        (".exit; FOO", 0, ""),
        ("GET a; .exit", 1, "Key-Value mapping doesn't exist\n"),
        ("GET a; .exit 0", 0, "Key-Value mapping doesn't exist\n"),
        (".exit 42", 42, ""),
        (".exit 256; .exit", 2, "Unsuccessful parsing!\n"),
    ];
    for (script, code, out) in table {
        let ran = stage.script(script).await;
        assert_eq!((ran.code, &ran.out[..]), (code, out), "{script}");
    }
}

#[tokio::test]
async fn every_kind_of_error_ends_a_script_with_its_code_and_a_clean_stdout() {
    for kind in Kind::ALL {
        let stage = Stage::impatient();
        stage.how(|how| how.fail = Some(Error::new(kind, "the \u{1b}[2J message")));
        for script in ["GET a", "SET a 1", "DEL a"] {
            let ran = stage.script(script).await;
            assert_eq!((ran.code, &ran.out[..]), (exit::of(kind), ""), "{kind} {script}");
            let last = ran.err.lines().last().map(str::to_owned);
            assert_eq!(last, Some(format!("{kind}: the \\x1b[2J message")), "{}", ran.err);
        }
    }
}

#[tokio::test]
async fn lines_come_from_a_stream_with_or_without_a_last_line_end() {
    let stage = Stage::new();
    let ran = stage.lines(b"\n\r\nSET a 1;2\r\n\n  \nGET a").await;
    assert_eq!((ran.code, &ran.out[..]), (0, "Database updated\ndb: a -> 1;2\n"));
    let ran = stage.lines(b"").await;
    assert_eq!((ran.code, &ran.out[..], &ran.err[..]), (0, "", ""));
}

#[tokio::test]
async fn binary_values_and_keys_come_out_safe_in_text_and_exact_in_raw() {
    let stage = Stage::new();
    let ran = stage.lines(b"SET \xff\x01 \x1b[2J\xfe\0\nGET \xff\x01\n").await;
    assert_eq!(ran.out, "Database updated\ndb: \\xff\\x01 -> \\x1b[2J\\xfe\\x00\n");
    let ran = stage.lines(b"GET --raw \xff\x01\n").await;
    assert_eq!(ran.out, b"\x1b[2J\xfe\0".escape_ascii().to_string());
    let ran = stage
        .lines(b"SET t two\\nlines\n.mode raw\nGET t\nGET t\nGET nope\nSET t x\n.mode\n.mode text\nGET t")
        .await;
    assert_eq!(ran.out, "Database updated\ntwo\\nlinestwo\\nlinesdb: t -> two\\nlines\n");
    for line in ["Key-Value mapping doesn't exist\n", "Key occupied!\n", "raw\n"] {
        assert!(ran.err.contains(line), "{line}: {}", ran.err);
    }
}

#[tokio::test]
async fn on_a_terminal_raw_values_are_escaped_and_long_lines_cut() {
    let mut stage = Stage::new();
    stage.screen.out_is_terminal = true;
    stage.lines(b"SET a \x1b]0;x\x07 \nSET b \"l1\\n\\tl2\"\n").await;
    let ran = stage.script("GET --raw a").await;
    assert_eq!(ran.out, "\\x1b]0;x\\x07\n");
    assert!(ran.err.contains("shown escaped"), "{}", ran.err);
    assert_eq!(
        stage.script("GET --raw b").await,
        Ran { code: 0, out: "l1\n\tl2\n".into(), err: String::new() }
    );
    let long = "x".repeat(5000);
    let ran = stage.script(format!("SET c {long}; GET c")).await;
    assert_eq!(ran.out, format!("Database updated\ndb: c -> {}..\n", &long[..4096]));
    assert!(ran.err.contains("`4096` of `5000` bytes shown"), "{}", ran.err);
    stage.screen.out_is_terminal = false;
    assert_eq!(stage.script("GET c").await.out, format!("db: c -> {long}\n"));
}

#[tokio::test]
async fn colours_are_for_terminals_that_want_them() {
    let mut stage = Stage::new();
    assert!(!stage.script("FOO").await.err.contains('\x1b'));
    stage.screen.colours = true;
    let ran = stage.script("FOO").await;
    assert!(ran.err.starts_with("\x1b[31m") && ran.err.ends_with("\x1b[0m\n"), "{:?}", ran.err);
    assert_eq!(ran.out, "Unknown command!\n");
}

#[tokio::test]
async fn json_is_one_object_a_command() {
    let mut stage = Stage::impatient();
    stage.settings.mode = Mode::Json;
    let ran =
        stage.script("SET a 1; GET a; GET b; DEL a; FOO; .nope; GET; .version; .mode text; GET b").await;
    let mut lines: Vec<_> = ran.out.lines().collect();
    assert_eq!(lines.pop(), Some("Key-Value mapping doesn't exist"));
    let exits: Vec<_> = lines
        .iter()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect(line)["exit"].as_u64())
        .collect();
    assert_eq!(exits, [0, 0, 1, 0, 2, 2, 2, 0].map(Some));
    stage.how(|how| how.fail = Some(Error::unavailable("away")));
    let ran = stage.script("GET a").await;
    assert!(ran.out.contains(r#""error":{"kind":"Unavailable","message":"away"}"#), "{}", ran.out);
    assert_eq!(ran.code, 4);
}

#[tokio::test]
async fn a_value_larger_than_a_line_is_streamed_and_larger_than_json_refused() {
    let mut stage = Stage::new();
    let value = Bytes::from(vec![b'v'; (16 << 20) + 1]);
    stage.store.blobs.lock().insert(dstore_shared::Name::of("big").expect("valid"), value.clone());
    let ran = stage.script("GET big").await;
    assert_eq!((ran.code, ran.out.len()), (0, "db: big -> \n".len() + value.len()));
    let ran = stage.script("GET --raw big").await;
    assert!(ran.out.as_bytes() == value, "exact bytes");
    stage.settings.mode = Mode::Json;
    let ran = stage.script("GET big").await;
    assert_eq!(ran.code, exit::TOO_LARGE);
    assert!(ran.out.contains("TooLarge") && ran.out.len() < 500);
}

#[tokio::test]
async fn a_value_that_breaks_off_is_an_error_and_never_a_shorter_line() {
    let stage = Stage::new();
    stage.how(|how| (how.piece, how.break_after) = (10, Some(25)));
    stage.script(format!("SET a {}", "x".repeat(100))).await;
    let ran = stage.script("GET a; FOO").await;
    assert_eq!((ran.code, &ran.out[..]), (exit::INTEGRITY, "Unknown command!\n"));
    assert!(ran.err.contains("Corrupt: the bytes do not match"), "{}", ran.err);
    let big = Bytes::from(vec![b'x'; 2 << 20]);
    stage.store.blobs.lock().insert(dstore_shared::Name::of("big").expect("valid"), big);
    stage.how(|how| how.piece = 1 << 20);
    from_global(&stage, true);
    stage.how(|how| how.break_after = Some(1 << 20));
    let ran = stage.script("GET big; FOO").await;
    assert_eq!(ran.code, exit::INTEGRITY);
    assert!(ran.out.ends_with("x\nUnknown command!\n"), "the line that was begun is ended");
}

#[tokio::test]
async fn a_node_that_hangs_is_noted_then_given_up_and_the_session_goes_on() {
    let stage = Stage::impatient();
    stage.how(|how| how.hang = true);
    let clock = dstore_sys::Sys::real().clock;
    let began = clock.now();
    let ran = stage.script("GET a; .exit").await;
    let waited = clock.now().since(began);
    assert!(waited >= stage.settings.patience.give_up_after, "{waited:?}");
    assert_eq!((ran.code, &ran.out[..]), (exit::UNREACHABLE, ""));
    let lines: Vec<_> = ran.err.lines().collect();
    assert_eq!(lines[0], "waiting for 127.0.0.1:50052, 0.5 s at most ..");
    assert!(lines[1].starts_with("Unavailable: no answer from `127.0.0.1:50052`"), "{}", ran.err);
    assert!(!ran.err.contains("unknown"), "a read has no outcome: {}", ran.err);
}

#[tokio::test]
async fn a_change_that_was_sent_and_not_answered_has_an_unknown_outcome() {
    // The client lets a large value move on as long as it moves; this one does not.
    let large = format!("SET a {}", "x".repeat(1 << 20));
    for change in ["SET a 2", "DEL a", &large] {
        let stage = Stage::impatient();
        let ran = stage
            .act(async |session| {
                let sys = dstore_sys::Sys::real();
                run(session, &sys, Input::script("DEL nope"), false).await.expect("written");
                stage.how(|how| how.hang = true);
                run(session, &sys, Input::script(change.to_owned()), false).await.expect("written")
            })
            .await;
        assert_eq!(ran.code, exit::UNREACHABLE);
        let told = if change.len() > 10 {
            // It was not stored yet, so no name can have been bound.
            "Unavailable: no answer from `127.0.0.1:50052` within 0.5 s: see `dstore status`\n"
        } else {
            "Unavailable: outcome unknown: no answer from `127.0.0.1:50052` within 0.5 s, look before you repeat it\n"
        };
        assert!(ran.err.ends_with(told), "{}: {}", &change[..5], ran.err);
    }
}

#[tokio::test]
async fn what_is_unavailable_for_a_moment_is_tried_again_under_the_same_id() {
    let stage = Stage::new();
    stage.how(|how| how.fail = Some(Error::unavailable("global is away")));
    for script in ["GET a", "SET a 1", "DEL a"] {
        stage.how(|how| how.fail_times = Some(3));
        let ran = stage.script(script).await;
        assert!(!ran.out.is_empty() && ran.err.is_empty(), "{script}: {ran:?}");
    }
    stage.how(|how| how.fail_times = Some(0));
    let ran = stage
        .act(async |session| {
            let sys = dstore_sys::Sys::real();
            run(session, &sys, Input::script("SET b 1"), false).await.expect("written");
            stage.store.ids.lock().clear();
            stage.how(|how| how.fail_times = Some(3));
            run(session, &sys, Input::script("SET c 1"), false).await.expect("written")
        })
        .await;
    assert_eq!((ran.code, &ran.out[..]), (0, "Database updated\nDatabase updated\n"), "{ran:?}");
    let ids = stage.store.ids.lock().clone();
    assert!(ids.len() == 4 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
}

#[tokio::test]
async fn other_errors_are_not_tried_again() {
    let stage = Stage::new();
    stage.how(|how| (how.fail, how.fail_times) = (Some(Error::new(Kind::Corrupt, "flipped")), Some(1)));
    assert_eq!(stage.script("GET a").await.code, exit::INTEGRITY);
    assert_eq!(stage.script("GET a").await.code, exit::NOT_FOUND);
}

#[tokio::test]
async fn a_node_that_never_saw_global_refuses_changes_after_the_deadline() {
    let stage = Stage::impatient();
    stage.how(|how| how.born = None);
    let ran = stage.script("SET a 1").await;
    assert_eq!((ran.code, &ran.out[..]), (exit::UNREACHABLE, ""));
    let told = "Unavailable: `127.0.0.1:50052` has not reached global, waited 0.5 s: see `dstore status`\n";
    assert!(ran.err.ends_with(told), "{}", ran.err);
    assert!(stage.store.ids.lock().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn a_fast_answer_is_not_noted() {
    let stage = Stage::new();
    stage.how(|how| how.delay = Duration::from_millis(5));
    assert_eq!(stage.script("GET a").await.err, "");
}

#[tokio::test]
async fn ctrl_c_cancels_the_running_command_and_ends_a_script() {
    let stage = Stage::new();
    stage.how(|how| how.hang = true);
    let press = async {
        stage.store.hangs.notified().await;
        stage.ctrl_c.send_modify(|n| *n += 1);
    };
    let both = async { tokio::join!(stage.script("GET a; GET b; GET c"), press) };
    let (ran, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("cancelled");
    assert_eq!(ran, Ran { code: exit::INTERRUPTED, out: String::new(), err: "cancelled\n".into() });
}

#[tokio::test]
async fn a_ctrl_c_before_a_command_does_not_cancel_it() {
    let stage = Stage::new();
    let ran = stage
        .act(async |session| {
            stage.ctrl_c.send_modify(|n| *n += 1);
            let line = parse("SET a 1").expect("valid").expect("a command");
            let step = session.execute(line).await.expect("written");
            assert_eq!(step, Step::Next(exit::OK));
            0
        })
        .await;
    assert_eq!(ran.out, "Database updated\n");
}

#[tokio::test]
async fn ctrl_c_ends_a_script_that_waits_for_its_next_line() {
    let stage = Stage::new();
    let (lines, mut typist) = tokio::io::duplex(64);
    let press = async {
        tokio::io::AsyncWriteExt::write_all(&mut typist, b"SET a 1\nSET b").await.expect("written");
        while stage.store.blobs.lock().is_empty() {
            tokio::task::yield_now().await;
        }
        stage.ctrl_c.send_modify(|n| *n += 1);
    };
    let (ran, ()) = tokio::join!(stage.run(Input::lines(tokio::io::BufReader::new(lines))), press);
    assert_eq!((ran.code, &ran.out[..]), (exit::INTERRUPTED, "Database updated\n"));
    assert_eq!(stage.store.blobs.lock().len(), 1, "half a line is no command");
}

#[tokio::test]
async fn a_reader_that_goes_away_ends_a_session_quietly() {
    let stage = Stage::new();
    stage.script("SET a 1").await;
    let ((out, out_end), (err, _err_end)) = (tokio::io::duplex(64), tokio::io::duplex(1 << 16));
    drop(out_end);
    let mut session = stage.session(Box::new(out), Box::new(err));
    let code = run(&mut session, &dstore_sys::Sys::real(), Input::script("GET a; SET b 1"), false).await;
    assert_eq!(code.expect("a reader that went away is no error"), 0);
    let ran = stage.script("GET b").await;
    assert_eq!(ran.code, exit::NOT_FOUND, "nothing runs after it");
}

#[tokio::test]
async fn nobody_reading_standard_error_changes_nothing() {
    let stage = Stage::new();
    let ((out, mut out_end), (err, err_end)) = (tokio::io::duplex(1 << 16), tokio::io::duplex(64));
    drop(err_end);
    let mut session = stage.session(Box::new(out), Box::new(err));
    let code = run(&mut session, &dstore_sys::Sys::real(), Input::script("FOO; SET a 1"), false).await;
    assert_eq!(code.expect("goes on"), exit::USAGE);
    drop(session);
    let mut text = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut out_end, &mut text).await.expect("read");
    assert_eq!(text, "Unknown command!\nDatabase updated\n");
}

#[tokio::test]
async fn a_line_at_the_limit_passes_and_one_beyond_it_is_skipped_whole() {
    let stage = Stage::new();
    let fits = format!("SET a {}", "x".repeat(LINE_BYTES_MAX - 6));
    assert_eq!(fits.len(), LINE_BYTES_MAX);
    let text = format!("{fits}\n{fits}yy\nGET nope\n");
    let ran = stage.lines(text.as_bytes()).await;
    assert_eq!(ran.out, "Database updated\nKey-Value mapping doesn't exist\n");
    assert_eq!(ran.code, exit::TOO_LARGE);
    assert!(ran.err.contains("dstore set KEY -"), "{}", ran.err);
}

#[tokio::test]
async fn input_that_breaks_is_not_taken_for_its_end() {
    struct Broken;
    impl tokio::io::AsyncRead for Broken {
        fn poll_read(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
            _: &mut tokio::io::ReadBuf<'_>,
        ) -> std::task::Poll<std::io::Result<()>> {
            std::task::Poll::Ready(Err(std::io::Error::other("torn")))
        }
    }
    let ran = Stage::new().run(Input::lines(tokio::io::BufReader::new(Broken))).await;
    assert_eq!((ran.code, &ran.out[..]), (exit::USAGE, ""));
    assert!(ran.err.contains("torn"), "{}", ran.err);
}

#[tokio::test]
async fn an_upload_may_wait_for_its_input_longer_than_for_the_node() {
    let stage = Stage::impatient();
    let slow = stream::unfold(0, |n| async move {
        // Longer than the patience of 500 ms: that time passes is what is tested.
        tokio::time::sleep(Duration::from_millis(800)).await;
        (n < 2).then(|| (Ok(Bytes::from_static(b"abc")), n + 1))
    });
    let key = Key::new("k").expect("valid");
    let ran = stage
        .act(async |session| {
            session.upload(&key, Box::pin(slow), &Attributes::default()).await.expect("written")
        })
        .await;
    assert_eq!((ran.code, &ran.out[..]), (0, "Database updated\n"), "{}", ran.err);
    assert_eq!(stage.script("GET k").await.out, "db: k -> abcabc\n");

    stage.how(|how| how.hang = true);
    stage.how(|how| how.born = Some(dstore_shared::Born::default()));
    let quick = stream::iter([Ok(Bytes::from_static(b"abc"))]);
    let ran = stage
        .act(async |session| {
            session.upload(&key, Box::pin(quick), &Attributes::default()).await.expect("written")
        })
        .await;
    assert_eq!(ran.code, exit::UNREACHABLE, "but not for a node that hangs");
}

#[tokio::test]
async fn an_upload_whose_input_breaks_binds_nothing() {
    let stage = Stage::new();
    let torn =
        stream::iter([Ok(Bytes::from_static(b"abc")), Err(Error::invalid("the input cannot be read"))]);
    let key = Key::new("k").expect("valid");
    let ran = stage
        .act(async |session| {
            session.upload(&key, Box::pin(torn), &Attributes::default()).await.expect("written")
        })
        .await;
    assert_eq!((ran.code, &ran.out[..]), (exit::USAGE, ""));
    assert_eq!(stage.script("GET k").await.code, exit::NOT_FOUND);
}

#[tokio::test]
async fn one_shot_says_unchanged_on_standard_error_only() {
    let mut stage = Stage::new();
    stage.settings.one_shot = true;
    assert_eq!(stage.script("SET a 1").await.out, "Database updated\n");
    assert_eq!(stage.script("SET a 1").await, Ran { code: 0, out: String::new(), err: "unchanged\n".into() });
    assert_eq!(stage.script("SET a 2").await.code, exit::OCCUPIED);
}

#[tokio::test]
async fn each_change_has_an_id_of_its_own_under_one_caller() {
    let stage = Stage::new();
    stage.script("SET a 1; SET b 2; GET a; DEL a b").await;
    let ids = stage.store.ids.lock().clone();
    assert_eq!(ids.iter().map(|id| id.n).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(ids.iter().all(|id| id.client == ids[0].client && id.client.0 != 0));
    stage.script("SET c 1").await;
    assert_ne!(stage.store.ids.lock()[3].client, ids[0].client, "another session is another caller");
}

#[tokio::test]
async fn a_person_is_told_the_facts_on_standard_error() {
    let mut stage = Stage::new();
    stage.settings.chatty = true;
    let ran = stage.script("SET a hello; GET a; DEL a").await;
    assert_eq!(ran.out, "Database updated\ndb: a -> hello\nKey removed (global and local)\n");
    let facts: Vec<_> = ran.err.lines().collect();
    let hash = dstore_shared::BlobHash::of(b"hello").fmt_short();
    assert!(facts[1].starts_with(&format!("local, 5 B, blake3:{hash}.., revision 1, ")), "{}", facts[1]);
    assert_eq!(facts.len(), 3, "{facts:?}");
}

fn events() -> Vec<Event> {
    let entry = Entry {
        hash: BlobHash::of(b"1"),
        size: 1,
        bind_rev: Revision(7),
        expires_at: None,
        content_type: None,
    };
    let event = |revision, key: &str, happened| Event {
        revision: Revision(revision),
        at_ms: 1000 + revision,
        key: Key::new(key.to_owned()).expect("valid"),
        happened,
    };
    vec![
        event(7, "a b", Happened::Bound(entry.clone())),
        event(8, "a b", Happened::Unbound(Some(entry))),
        event(8, "line\n", Happened::Unbound(None)),
    ]
}

#[tokio::test]
async fn a_watch_tells_one_line_an_event_and_ends_after_its_count() {
    let stage = Stage::new();
    *stage.store.events.lock() = events();
    let hash = BlobHash::of(b"1");
    let ran = stage.script("WATCH --count 3; GET nope").await;
    let lines = format!("7 set a b blake3:{hash} 1 B\n8 del a b\n8 del line\\n\n");
    assert_eq!(ran.out, lines + "Key-Value mapping doesn't exist\n");
    let ran = stage.script("WATCH --json --count 2 --from 6 a").await;
    let told: Vec<serde_json::Value> =
        ran.out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (bound, unbound) = (&told[0], &told[1]);
    assert_eq!((told.len(), ran.code), (2, exit::OK));
    assert_eq!(
        (&bound["kind"], &bound["key"], &bound["revision"]),
        (&"set".into(), &"a b".into(), &7.into())
    );
    assert_eq!((&bound["hash"], &bound["size"]), (&hash.to_string().into(), &1.into()));
    assert_eq!((&unbound["kind"], &unbound["hash"]), (&"del".into(), &hash.to_string().into()));
    let asked = stage.store.watched.lock().clone();
    assert_eq!((asked[0].after, asked[1].after), (None, Some(Revision(6))));
    assert_eq!((&asked[0].prefix[..], &asked[1].prefix[..]), (&b""[..], &b"a"[..]));
}

#[tokio::test]
async fn ctrl_c_ends_a_watch_and_an_error_is_told() {
    let stage = Stage::new();
    *stage.store.events.lock() = events();
    let press = async {
        while stage.store.watched.lock().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        stage.ctrl_c.send_modify(|n| *n += 1);
    };
    let both = async { tokio::join!(stage.script("WATCH; GET a"), press) };
    let (ran, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("ended");
    assert_eq!((ran.code, ran.out.lines().count()), (exit::INTERRUPTED, 3));
    let old = dstore_proto::watch::too_old(Revision(1), Revision(5));
    stage.how(|how| how.fail = Some(old));
    let ran = stage.script("WATCH --from 1 --json").await;
    assert_eq!(ran.code, exit::OCCUPIED);
    assert!(ran.out.contains("TooOld") && ran.err.contains("list, then watch"), "{ran:?}");
}

#[tokio::test]
async fn a_delete_by_prefix_is_made_by_a_script_and_not_by_a_person_who_did_not_say_that_he_means_it() {
    let stage = Stage::new();
    let ran = stage.script("SET a/1 x; SET a/2 y; SET b z; DEL --prefix a/; DEL --prefix a/; GET b").await;
    let told: Vec<&str> = ran.out.lines().skip(3).collect();
    assert_eq!(told, ["2 keys removed (global and local)", "Key-Value mapping doesn't exist", "db: b -> z"]);
    assert_eq!(ran.code, exit::NOT_FOUND);
    for person in [|s: &mut Settings| s.chatty = true, |s: &mut Settings| s.one_shot = true] {
        let mut stage = Stage::new();
        person(&mut stage.settings);
        stage.script("SET a/1 x").await;
        let ran = stage.script("DEL --prefix a/").await;
        assert_eq!((ran.code, stage.store.blobs.lock().len()), (exit::USAGE, 1));
        assert!(ran.err.contains("every key that begins with `a/`: add `-y`"), "{}", ran.err);
        let ran = stage.script("DEL --prefix a/ -y --json").await;
        let told: serde_json::Value = serde_json::from_str(&ran.out).expect("JSON");
        assert_eq!((&told["removed"], &told["prefix"]), (&1.into(), &"a/".into()));
        assert!(stage.store.blobs.lock().is_empty());
    }
    for line in ["DEL --prefix", "DEL --prefix a b", "DEL --prefix a --raw"] {
        assert_eq!(stage.script(line).await.code, exit::USAGE, "{line}");
    }
}

#[tokio::test]
async fn a_stale_value_and_a_stale_bound_are_told_beside_the_answer() {
    let stage = Stage::new();
    stage.script("SET k v").await;
    stage.how(|how| how.from.stale_for = Some(Duration::from_micros(1_500_300)));
    let ran = stage.script("GET --stale-ok k").await;
    assert_eq!((ran.code, ran.out.as_str()), (exit::OK, "db: k -> v\n"), "the line of a hit");
    assert!(ran.err.contains("stale: global does not answer") && ran.err.contains("1.500 s"), "{}", ran.err);
    let json = stage.script("GET --stale-ok --json k").await.out;
    assert!(json.contains("\"stale_ms\":1501"), "never told shorter: {json}");
    let ran = stage.script("DEL --async k").await;
    assert_eq!((ran.code, ran.out.as_str()), (exit::OK, "Key removed (global and local)\n"));
    assert!(ran.err.contains("others may read the old value for up to 1.500 s"), "{}", ran.err);
    stage.how(|how| how.from.stale_for = None);
    stage.script("SET k v").await;
    let ran = stage.script("DEL --async k; DEL --json k").await;
    assert!(ran.err.is_empty() && !ran.out.contains("stale"), "nothing is stale: {ran:?}");
}

#[tokio::test]
async fn what_a_crash_may_take_is_told_beside_every_answer() {
    let stage = Stage::new();
    let lines = [
        "SET k v",
        "GET k",
        "GET none",
        "COPY k other",
        "RENAME other third",
        "DEL k",
        "DEL k",
        "DEL --prefix t -y",
    ];
    for lossy in [false, true] {
        stage.how(|how| how.from.loss = lossy.then(|| Duration::from_millis(100)));
        for line in lines {
            let ran = stage.script(line).await;
            let note = "up to 100 ms of changes may be lost by a crash of global";
            assert_eq!(ran.err.contains(note), lossy, "{line}: {ran:?}");
        }
        for line in lines {
            let json = line.replacen(' ', " --json ", 1);
            let ran = stage.script(json.clone()).await;
            assert_eq!(ran.out.contains("\"loss_ms\":100}"), lossy, "{json}: {ran:?}");
            assert_eq!(ran.out.matches("loss_ms").count(), usize::from(lossy), "{json}: {ran:?}");
        }
    }
}

#[tokio::test]
async fn a_pending_delete_ends_with_code_8_and_its_request_is_the_one_that_was_sent() {
    let stage = Stage::new();
    stage.script("SET k v").await;
    stage.how(|how| how.fail = Some(Error::new(Kind::Pending, "waiting for `process 7`: not durable yet")));
    let ran = stage.script("DEL --deadline 100ms --json k").await;
    assert_eq!(ran.code, exit::PENDING);
    assert!(ran.err.contains("Pending: waiting for `process 7`"), "{}", ran.err);
    let sent = *stage.store.ids.lock().last().expect("a DEL");
    let word = super::options::request_word(&sent);
    assert!(ran.err.contains(&format!("ask again with `--request {word}`")), "{}", ran.err);
    assert!(
        ran.out.contains(&format!("\"request\":\"{word}\"")) && ran.out.contains("\"exit\":8"),
        "{}",
        ran.out
    );
    stage.how(|how| how.fail = None);
    let ran = stage.script(format!("DEL --deadline 100ms --request {word} k")).await;
    assert_eq!((ran.code, ran.out.as_str()), (exit::OK, "Key removed (global and local)\n"));
    assert_eq!(stage.store.ids.lock().last(), Some(&sent), "the same request");
}
