//! Transcripts of the words beside SET, GET and DEL: what each writes, and the code it ends with.

use super::fake::{Ran, Stage};
use super::*;
use dstore_proto::store::Tier;
use dstore_proto::watch::{Event, Happened};
use dstore_shared::{BlobHash, Key, Revision};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::Duration;

async fn out(stage: &Stage, script: &str) -> (u8, String) {
    let Ran { code, out, .. } = stage.script(script.to_owned()).await;
    (code, out)
}

fn file(stage: &Stage, name: &str) -> Option<Vec<u8>> {
    stage.outside.files.lock().get(std::path::Path::new(name)).cloned()
}

fn put(stage: &Stage, name: &str, bytes: &[u8]) {
    stage.outside.files.lock().insert(name.into(), bytes.to_vec());
}

#[tokio::test]
async fn what_looks_at_keys_moves_no_value() {
    let stage = Stage::new();
    stage.script("SET a hello; SET b hello; SET c other").await;
    let hash = BlobHash::of(b"hello");
    let stat =
        format!("hash     blake3:{hash}\nsize     5 B\nbound    revision 1\nknown    kept by this node\n");
    assert_eq!(out(&stage, "STAT a").await, (0, stat.clone()));
    assert_eq!(out(&stage, &format!("STAT @{hash}")).await, (0, stat));
    assert_eq!(out(&stage, "STAT nope").await, (1, "Key-Value mapping doesn't exist\n".into()));
    assert_eq!(
        out(&stage, "EXISTS a nope").await,
        (1, "Key exists\nKey-Value mapping doesn't exist\n".into())
    );
    assert_eq!(out(&stage, "EXISTS a b").await.0, 0);
    assert_eq!(out(&stage, "SAME a b").await, (0, "same\n".into()));
    assert_eq!(out(&stage, "SAME a c").await, (1, "different\n".into()));
    assert_eq!(out(&stage, "SAME a nope").await, (1, "Key-Value mapping doesn't exist\n".into()));
    assert_eq!(out(&stage, &format!("GET @{hash}")).await, (0, format!("db: @{hash} -> hello\n")));
    assert_eq!(out(&stage, "GET a RANGE 1 3").await, (0, "db: a -> ell\n".into()));
    let ran = stage.script("GET a RANGE 9 9").await;
    assert_eq!((ran.code, &ran.out[..]), (exit::USAGE, ""));
    let ran = stage.script("ADD x").await;
    assert_eq!((ran.code, ran.out), (0, format!("blake3:{}\n", BlobHash::of(b"x"))));
    assert!(ran.err.contains("kept for an hour"), "{}", ran.err);
}

#[tokio::test]
async fn a_list_is_paged_and_the_next_page_is_named() {
    let stage = Stage::new();
    stage.script("SET u:1 a; SET u:2 b; SET 'u:3 x' c; SET v d").await;
    assert_eq!(out(&stage, "LS u:").await, (0, "u:1\nu:2\nu:3 x\n".into()));
    let ran = stage.script("LS u: --limit 2").await;
    assert_eq!((ran.out.as_str(), ran.err.as_str()), ("u:1\nu:2\n", "more: add `--after \"u:2\"`\n"));
    assert_eq!(out(&stage, "LS u: --after u:2").await.1, "u:3 x\n");
    assert_eq!(out(&stage, ".limit 1; LS; .limit").await.1, "u:1\n1\n");
    assert_eq!(out(&stage, "LS nope").await, (0, String::new()));
    let json: serde_json::Value =
        serde_json::from_str(&out(&stage, "LS --json u: --limit 1").await.1).expect("JSON");
    assert_eq!(
        (&json["command"], &json["keys"][0]["key"], &json["next"]),
        (&"ls".into(), &"u:1".into(), &"u:1".into())
    );
    let rows = out(&stage, ".mode jsonl; LS u:").await.1;
    assert_eq!(rows.lines().count(), 3);
    let csv = out(&stage, ".mode csv; LS u:3; GET v").await.1;
    let lines: Vec<_> = csv.lines().collect();
    assert_eq!((lines[0], &lines[1][..10]), ("key,size,hash,bind_revision", "\"u:3 x\",1,"));
    assert_eq!(&lines[2..], ["key,value", "v,d"]);
}

#[tokio::test]
async fn values_go_to_files_and_commands_and_come_from_files_and_lines() {
    let stage = Stage::new();
    stage.lines(b"SET bin \"\\x00\\xff\\n\"\nGET bin > copy\n").await;
    assert_eq!(file(&stage, "copy").as_deref(), Some(&b"\0\xff\n"[..]));
    assert_eq!(out(&stage, "GET bin RANGE 1 1 > part").await, (0, String::new()));
    assert_eq!(file(&stage, "part").as_deref(), Some(&b"\xff"[..]));
    assert_eq!(out(&stage, "GET nope > none").await.0, 1);
    assert_eq!(file(&stage, "none"), None, "no file for what is not there");
    assert_eq!(out(&stage, "GET bin | wc -c").await, (0, String::new()));
    assert_eq!(stage.outside.piped.lock().pop(), Some(("wc -c".into(), b"\0\xff\n".to_vec())));
    assert_eq!(out(&stage, "GET bin | false").await.0, 1, "the code of the command");
    put(&stage, "in", b"from a file\n");
    assert_eq!(
        out(&stage, "SET f --ttl 5s --type text/plain < in; GET f").await.1,
        "Database updated\ndb: f -> from a file\\n\n"
    );
    assert_eq!(out(&stage, "SET g < absent").await, (2, String::new()));
    let said = stage.store.said.lock().clone();
    let (ttl, words) = said.last().map(|said| (said.ttl, said.content_type.clone())).expect("said");
    assert_eq!(
        (ttl, words.map(|words| words.to_string())),
        (Some(Duration::from_secs(5)), Some("text/plain".into()))
    );
    let ran = stage.lines(b"SET h <<END\none\n two; 'three\nEND\nGET h\n").await;
    assert_eq!((ran.code, &ran.out[..]), (0, "Database updated\ndb: h -> one\\n two; 'three\\n\n"));
    let ran = stage.lines(b"SET i <<END\none\n").await;
    assert_eq!((ran.code, &ran.out[..]), (2, ""), "an open end stores nothing");
    assert!(ran.err.contains("end them with `END`"), "{}", ran.err);
}

#[tokio::test]
async fn a_file_that_breaks_off_is_not_put_in_its_place() {
    let stage = Stage::new();
    stage.script("SET a 0123456789").await;
    put(&stage, "kept", b"before");
    stage.how(|how| (how.piece, how.break_after) = (2, Some(4)));
    let ran = stage.script("GET a > kept").await;
    assert_eq!(ran.code, exit::INTEGRITY, "{}", ran.err);
    assert_eq!(file(&stage, "kept").as_deref(), Some(&b"before"[..]));
}

#[tokio::test]
async fn the_node_is_told_what_to_keep_and_to_forget() {
    let stage = Stage::new();
    stage.script("SET a 1; SET b 2").await;
    assert_eq!(
        out(&stage, "EVICT a nope").await,
        (1, "Key evicted (local)\nKey is not held (local)\n".into())
    );
    assert_eq!(out(&stage, "PIN a b").await, (0, "Key pinned (local)\nKey pinned (local)\n".into()));
    assert_eq!(stage.store.pinned.lock().len(), 2);
    assert_eq!(out(&stage, "UNPIN a a").await, (1, "Key unpinned (local)\nKey was not pinned\n".into()));
    assert_eq!(out(&stage, "PIN nope").await.0, 1);
    assert_eq!(out(&stage, "WARM a").await, (0, "0 keys fetched (0 B), 1 held before\n".into()));
    stage.how(|how| (how.from.tier, how.from.cached) = (Tier::Global, true));
    put(&stage, "keys", b"a\nb\r\n\nnope\n");
    assert_eq!(
        out(&stage, "WARM < keys").await,
        (1, "2 keys fetched (2 B), 0 held before, 1 not there\n".into())
    );
    stage.how(|how| how.from.cached = false);
    let json = out(&stage, "WARM --json a").await.1;
    assert!(json.contains(r#""not_kept":1"#) && json.contains(r#""exit":0"#), "{json}");
    put(&stage, "bad", &[b'x'; 2000]);
    assert_eq!(out(&stage, "WARM < bad").await.0, exit::TOO_LARGE);
}

#[tokio::test]
async fn why_and_locals_tell_each_hop_and_holder_and_forge_no_line() {
    let stage = Stage::new();
    stage.script("SET a hello").await;
    let (code, told) = out(&stage, "WHY a").await;
    let lines: Vec<_> = told.lines().collect();
    assert_eq!(code, 0);
    assert_eq!(lines[0], "local   lookup           1.0 µs  not held: global is asked");
    assert_eq!(lines[1], "global  disk            2.50 ms  5 B read\\x1b");
    assert!(lines[2].starts_with("all ") && lines[3].starts_with("5 B of blake3:"), "{told}");
    assert_eq!(
        lines[4],
        "its change of revision 7, 1 min 30 s ago, waited 250.00 ms, to the last for `process 7`"
    );
    assert_eq!(out(&stage, "WHY nope").await.0, 1);
    let json: serde_json::Value = serde_json::from_str(&out(&stage, "WHY --json a").await.1).expect("JSON");
    assert_eq!((&json["hops"][1]["us"], &json["waited"]["for"][0]), (&2500.0.into(), &"process 7".into()));
    let (_, told) = out(&stage, "LOCALS a").await;
    let lines: Vec<_> = told.lines().collect();
    assert!(
        lines[0].starts_with("abcd0000  process 7") && lines[0].ends_with("up to date  holds it"),
        "{told}"
    );
    assert!(lines[1].contains("evil\\x1b[2J") && lines[1].ends_with("3 behind"), "{told}");
    assert!(!out(&stage, "LOCALS").await.1.contains("holds"), "nothing was asked about");
    let csv = out(&stage, ".mode csv; LOCALS").await.1;
    assert!(csv.starts_with("label,id,lease_left_ms,behind,wildcard,slow,holds\n\"process 7\","), "{csv}");
    assert!(out(&stage, "STATUS").await.1.starts_with("tier "));
}

#[tokio::test]
async fn a_bench_times_its_own_keys_and_leaves_none() {
    let stage = Stage::new();
    stage.script("SET a 1").await;
    let ran = stage.script("BENCH --count 3 --size 10").await;
    let words: Vec<_> = ran.out.lines().map(|line| line.split("  ").next().unwrap_or_default()).collect();
    assert_eq!((ran.code, words), (0, vec!["SET", "GET fetched", "GET held", "DEL"]), "{ran:?}");
    assert_eq!(stage.store.blobs.lock().len(), 1);
    let json: serde_json::Value =
        serde_json::from_str(&out(&stage, "BENCH --json --count 1").await.1).expect("JSON");
    assert!(json["timed"][0]["p99_us"].as_f64().is_some_and(|us| us > 0.0), "{json}");
}

#[tokio::test]
async fn dot_words_change_the_session_and_tell_how_it_is() {
    let stage = Stage::new();
    put(&stage, "script", b"SET r 1\nGET r\n.read inner\nGET r\n");
    put(&stage, "inner", b"GET nope\n");
    let (code, told) = out(&stage, ".read script; GET r").await;
    assert_eq!(
        (code, told.as_str()),
        (1, "Database updated\ndb: r -> 1\nKey-Value mapping doesn't exist\ndb: r -> 1\ndb: r -> 1\n")
    );
    put(&stage, "self", b".read self\n");
    let ran = stage.script(".read self; GET r").await;
    assert!(ran.code == 2 && ran.err.contains("8 deep") && ran.out == "db: r -> 1\n", "{ran:?}");
    assert_eq!(out(&stage, ".read absent; GET r").await, (2, "db: r -> 1\n".into()));
    assert_eq!(out(&stage, ".bail on; GET nope; GET r").await.1, "Key-Value mapping doesn't exist\n");
    assert_eq!(out(&stage, ".bail; .timer; .pager; .limit; .mode").await.1, "off\noff\non\n100\ntext\n");
    assert!(stage.script(".timer on; GET r").await.err.starts_with("took "));
    assert_eq!(out(&stage, ".output told; GET r; .output; GET r").await.1, "db: r -> 1\n");
    assert_eq!(file(&stage, "told").as_deref(), Some(&b"db: r -> 1\n"[..]));
    stage.script(".output end; GET r").await;
    assert_eq!(file(&stage, "end").as_deref(), Some(&b"db: r -> 1\n"[..]), "also at the end of the session");
    assert!(out(&stage, ".help why").await.1.starts_with("WHY KEY\n"));
    let ran = stage.script("GTE a; .hlep").await;
    assert_eq!(ran.out, "Unknown command!\nUnsuccessful parsing!\n");
    assert!(
        ran.err.contains("did you mean `GET`") && ran.err.contains("did you mean `.help`"),
        "{}",
        ran.err
    );
    assert_eq!(out(&stage, ".edit").await.0, 2, "an editor is for a prompt");
    assert_eq!(out(&stage, ".connect x:1").await.0, 2, "this one cannot go elsewhere");
}

#[tokio::test]
async fn values_are_laid_out_for_a_person() {
    let mut stage = Stage::new();
    stage.settings.mode = Mode::Pretty;
    stage.screen.out_is_terminal = true;
    stage.lines(b"SET j {\"a\":[1,{}]}\nSET t \"one\\ntwo\\n\"\nSET b \"\\x00\\x1b[2J\"\nSET l plain\nSET e \"a\\x1b[2J\"\n").await;
    assert_eq!(out(&stage, "GET l").await.1, "db: l -> plain\n");
    assert_eq!(out(&stage, "GET j").await.1, "db: j ->\n{\n  \"a\": [\n    1,\n    {}\n  ]\n}\n");
    assert_eq!(out(&stage, "GET t").await.1, "db: t ->\none\ntwo\n");
    assert_eq!(out(&stage, "GET e").await.1, "db: e -> a\\x1b[2J\n");
    let ran = stage.script("GET b").await;
    assert!(
        ran.out.starts_with("db: b ->\n00000000  00 1b 5b 32 4a ") && !ran.out.contains('\x1b'),
        "{}",
        ran.out
    );
    assert!(ran.err.contains("hexadecimal"), "{}", ran.err);
    stage.settings.mode = Mode::Hex;
    assert!(out(&stage, "GET l").await.1.starts_with("db: l ->\n00000000  70 6c 61 69 6e"));
    stage.screen.columns = 20;
    assert!(out(&stage, "GET l").await.1.lines().skip(1).all(|line| line.len() <= 20));
    stage.settings.mode = Mode::Pretty;
    let big = bytes::Bytes::from(vec![b'v'; 3 << 20]);
    stage.store.blobs.lock().insert(dstore_shared::Name::of("big").expect("valid"), big);
    let ran = stage.script("GET big").await;
    let zeros = bytes::Bytes::from(vec![0; 3 << 20]);
    stage.store.blobs.lock().insert(dstore_shared::Name::of("zeros").expect("valid"), zeros);
    let digits = stage.script("GET zeros").await;
    assert!(
        digits.out.starts_with("db: zeros ->\n00000000  00 ") && digits.out.len() < 20_000,
        "{}",
        digits.out.len()
    );
    assert!(digits.err.contains("the first 512 of 3145728 bytes"), "{}", digits.err);
    assert!(
        ran.out.len() < 5000 && ran.err.contains("`GET --raw` writes them all"),
        "{} {}",
        ran.out.len(),
        ran.err
    );
}

#[tokio::test]
async fn a_footer_splits_the_time_between_the_tiers() {
    let mut stage = Stage::new();
    stage.settings.chatty = true;
    stage.script("SET a hello").await;
    stage.how(|how| how.from.asked_for = Some(Duration::from_nanos(300)));
    let ran = stage.script("GET a").await;
    assert!(ran.err.contains(" local, 300 ns global)"), "{}", ran.err);
    stage.how(|how| how.from.asked_for = None);
    assert!(!stage.script("GET a").await.err.contains(" global)"));
}

/// A session at a prompt, and what was printed above it.
async fn at_prompt(
    stage: &Stage,
    act: impl AsyncFnOnce(&mut Session<super::fake::FakeStore>, Keys) -> u8,
) -> (Ran, String) {
    let printed = Arc::new(Mutex::new(String::new()));
    let to = printed.clone();
    let ran = stage
        .act(async |session| {
            let keys = session.at_prompt(Arc::new(move |lines: String| to.lock().push_str(&lines)));
            act(session, keys).await
        })
        .await;
    let printed = printed.lock().clone();
    (ran, printed)
}

async fn does(session: &mut Session<super::fake::FakeStore>, line: &str) -> Step {
    let line = parse(line.to_owned()).expect("valid").expect("a command");
    session.execute(line).await.expect("written")
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if is() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}");
}

#[tokio::test]
async fn a_watch_at_a_prompt_tells_above_it_and_commands_go_on() {
    let stage = Stage::new();
    stage.script("SET k v").await;
    let event = |revision, happened| Event {
        revision: Revision(revision),
        at_ms: 1,
        key: Key::new("e\x1b").expect("valid"),
        happened,
    };
    *stage.store.events.lock() = vec![event(7, Happened::Unbound(None))];
    let printed = Arc::new(Mutex::new(String::new()));
    let (to, seen) = (printed.clone(), printed.clone());
    let ran = stage
        .act(async |session| {
            session.at_prompt(Arc::new(move |lines: String| to.lock().push_str(&lines)));
            assert_eq!(does(session, "WATCH").await, Step::Next(0));
            until("the event is told", || !seen.lock().is_empty()).await;
            assert_eq!(does(session, "GET k").await, Step::Next(0));
            for _ in 0..7 {
                assert_eq!(does(session, "WATCH").await, Step::Next(0));
            }
            assert_eq!(does(session, "WATCH").await, Step::Next(exit::TOO_LARGE), "there is a bound");
            assert_eq!(does(session, "UNWATCH").await, Step::Next(0));
            assert_eq!(does(session, "WATCH").await, Step::Next(0), "and room again");
            0
        })
        .await;
    assert!(printed.lock().starts_with("7 del e\\x1b\n"), "{:?}", printed.lock());
    assert_eq!(ran.out, "db: k -> v\n8 watches ended\n");
}

#[tokio::test]
async fn a_prompt_learns_keys_beside_what_is_typed() {
    let stage = Stage::new();
    stage.script("SET u:1 12345; SET u:2 x").await;
    let (_, printed) = at_prompt(&stage, async |session, keys| {
        until("the keys are known", || keys.len() == 2).await;
        let hint = |keys: &Keys| keys.known(b"u:1").and_then(|known| known.size);
        assert_eq!(hint(&keys), Some(5));
        does(session, "SET u:3 y").await;
        assert_eq!(keys.begin(b"u:", 10).len(), 3);
        does(session, "DEL u:1").await;
        assert_eq!(hint(&keys), None);
        0
    })
    .await;
    assert_eq!(printed, "");
}

#[tokio::test]
async fn a_person_is_asked_before_a_prefix_goes_and_whether_to_go_on_with_a_list() {
    let mut stage = Stage::new();
    stage.settings.chatty = true;
    stage.script("SET a/1 x; SET a/2 y").await;
    let ran = stage
        .act(async |session| {
            let Step::Ask { question, then } = does(session, "DEL PREFIX a/").await else { panic!("asked") };
            assert_eq!(question, "remove 2 keys that begin with `a/`? [y/N] ");
            assert_eq!(stage.store.blobs.lock().len(), 2, "nothing is done before the answer");
            let Step::More { question, then: more } = does(session, "LS --limit 1").await else {
                panic!("asked")
            };
            assert!(question.starts_with("1 keys; more?"));
            assert_eq!(session.execute(*more).await.expect("written"), Step::Next(0));
            assert_eq!(session.execute(*then).await.expect("written"), Step::Next(0));
            assert_eq!(does(session, "DEL PREFIX a/").await, Step::Next(exit::NOT_FOUND));
            0
        })
        .await;
    assert_eq!(ran.out, "a/1\na/2\n2 keys removed (global and local)\nKey-Value mapping doesn't exist\n");
}

#[tokio::test]
async fn every_word_answers_with_one_object_in_json() {
    let mut stage = Stage::new();
    stage.script("SET a 1; SET b 1").await;
    stage.settings.mode = Mode::Json;
    for script in [
        "GET a",
        "GET nope",
        "STAT a",
        "STAT nope",
        "EXISTS a b",
        "SAME a b",
        "LS",
        "ADD x",
        "EVICT a",
        "PIN a",
        "UNPIN a",
        "WARM a",
        "LOCALS",
        "LOCALS a",
        "WHY a",
        "STATUS",
        "BENCH --count 1",
        "COPY a c",
        "RENAME c d",
        "DEL d",
        "DEL PREFIX zz",
        "UNWATCH",
        ".help",
        ".mode",
        ".timer",
        ".limit",
        ".pager",
        ".version",
        "GTE",
        ".nope",
        "GET",
        "SET k < absent",
        "LS --limit 1",
    ] {
        let told = out(&stage, script).await.1;
        assert_eq!(told.lines().count(), 1, "{script}: {told}");
        let object: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        assert!(object["exit"].is_u64() && object["command"].is_string(), "{script}: {told}");
    }
}
