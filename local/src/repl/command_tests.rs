//! Tables of lines and what they mean.

use super::super::escape::escape;
use super::super::exit;
use super::super::scan::quote;
use super::*;
use dstore_shared::{DeleteMode, Kind};
use proptest::prelude::*;

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).expect("a valid key")
}

fn get(k: &[u8]) -> Command {
    Command::Get(Get::of(key(k)))
}

fn set(k: &[u8], value: &'static [u8]) -> Command {
    bound(k, Bytes::from_static(value))
}

fn bound(k: &[u8], value: Bytes) -> Command {
    Command::Set { key: key(k), value: Given::Bytes(value), attributes: Attributes::default() }
}

fn del(keys: &[&[u8]]) -> Command {
    Command::Delete { keys: keys.iter().map(|k| key(k)).collect(), how: How::default() }
}

fn command(line: impl Into<Bytes>) -> Command {
    let line = line.into();
    match parse(line.clone()) {
        Ok(Some(Line { command, .. })) => command,
        other => panic!("{}: {other:?}", line.escape_ascii()),
    }
}

fn refused(line: &'static str) -> Refused {
    match parse(line) {
        Err(refused) => refused,
        Ok(line) => panic!("{line:?}"),
    }
}

#[test]
fn every_word_works_in_any_case() {
    for word in ["SET", "PUT", "INSERT", "IN", "I"] {
        for word in [word.to_owned(), word.to_lowercase(), mixed(word)] {
            assert_eq!(command(format!("{word} k v")), set(b"k", b"v"), "{word}");
        }
    }
    for word in ["GET", "SELECT", "OUTPUT", "OUT", "O"] {
        for word in [word.to_owned(), word.to_lowercase(), mixed(word)] {
            assert_eq!(command(format!("{word} k")), get(b"k"), "{word}");
        }
    }
    for word in ["DEL", "DELETE", "REM", "REMOVE", "RM", "D"] {
        for word in [word.to_owned(), word.to_lowercase(), mixed(word)] {
            assert_eq!(command(format!("{word} k")), del(&[b"k"]), "{word}");
        }
    }
}

fn mixed(word: &str) -> String {
    let lower = |(i, c): (usize, char)| if i % 2 == 0 { c.to_ascii_lowercase() } else { c };
    word.chars().enumerate().map(lower).collect()
}

#[test]
fn a_value_is_the_rest_of_the_line_or_one_quoted_word() {
    let table: [(&str, Command); 18] = [
        ("SET k a b c", set(b"k", b"a b c")),
        ("  SET\tk   a  b  \r", set(b"k", b"a  b")),
        ("SET k \" a b \"", set(b"k", b" a b ")),
        ("SET k ' a\"b '", set(b"k", b" a\"b ")),
        ("SET k \"\"", set(b"k", b"")),
        ("SET k ''", set(b"k", b"")),
        ("SET k it's", set(b"k", b"it's")),
        ("SET k 5 \" tall", set(b"k", b"5 \" tall")),
        ("SET k a;b", set(b"k", b"a;b")),
        ("SET k C:\\new", set(b"k", b"C:\\new")),
        ("SET k '\\n'", set(b"k", b"\\n")),
        (r#"SET k "\n\t\r\\\"\x00\xfF""#, set(b"k", b"\n\t\r\\\"\0\xff")),
        ("SET 'a b' c", set(b"a b", b"c")),
        ("SET \"a\\\"b\" c", set(b"a\"b", b"c")),
        ("SET k -", set(b"k", b"-")),
        ("SET k -x", set(b"k", b"-x")),
        ("SET k '--x'", set(b"k", b"--x")),
        ("SET -- --k --x y", set(b"--k", b"--x y")),
    ];
    for (line, expected) in table {
        assert_eq!(command(line), expected, "{line}");
    }
}

#[test]
fn keys_and_values_are_bytes_and_not_text() {
    assert_eq!(command(&b"SET \xff\xfe \x80 \x01"[..]), set(b"\xff\xfe", b"\x80 \x01"));
    assert_eq!(command(&b"GET \"\\xff\xfe\""[..]), get(b"\xff\xfe"));
    assert_eq!(command("DEL 雪 'a b' --"), del(&["雪".as_bytes(), b"a b"]));
    assert_eq!(command("DEL -- --a --json"), del(&[b"--a", b"--json"]));
}

#[test]
fn options_go_before_the_value() {
    let mode = |line: &'static str| parse(line).expect("valid").expect("a command").mode;
    assert_eq!(mode("GET k"), None);
    assert_eq!(mode("GET --json k"), Some(Mode::Json));
    assert_eq!(mode("GET k --raw"), Some(Mode::Raw));
    assert_eq!(mode("SET k --json a b"), Some(Mode::Json));
    assert_eq!(mode("SET k 'a b' --json"), Some(Mode::Json));
    assert_eq!(mode("DEL a --json b"), Some(Mode::Json));
    assert_eq!(mode("SET k a --json"), None, "the rest of the line is the value");
    assert_eq!(command("SET k a --json"), set(b"k", b"a --json"));
}

#[test]
fn dot_words_are_read_with_their_arguments() {
    let table = [
        (".exit", Command::Exit(None)),
        (" .EXIT  7 ", Command::Exit(Some(7))),
        (".exit 255", Command::Exit(Some(255))),
        (".version", Command::Version),
        (".Help", Command::Help(None)),
        (".mode", Command::Mode(None)),
        (".mode raw", Command::Mode(Some(Mode::Raw))),
        (".mode JSON", Command::Mode(Some(Mode::Json))),
        (".mode text", Command::Mode(Some(Mode::Text))),
    ];
    for (line, expected) in table {
        assert_eq!(command(line), expected, "{line}");
    }
    for line in [".", ".x", ".exit x", ".exit 256", ".exit -1", ".exit 1 2", ".mode x", ".help me", ".exitt"]
    {
        assert!(matches!(refused(line), Refused::DotWord(_)), "{line}");
    }
}

#[test]
fn an_empty_line_is_nothing() {
    for line in ["", " ", "\t", "\r", " \r\n"] {
        assert!(matches!(parse(line), Ok(None)), "{line:?}");
    }
}

#[test]
fn unknown_words_are_told_from_wrong_forms_which_say_what_to_write() {
    for line in ["FOO", "GETT k", "# comment", "'", "\"GET", "G", "\u{2003}GET k"] {
        let wrong_quote = line.starts_with(['\'', '"']);
        assert_eq!(matches!(refused(line), Refused::UnknownWord(_)), !wrong_quote, "{line}");
    }
    let table = [
        ("GET", Kind::Invalid, "write `GET KEY`"),
        ("rm", Kind::Invalid, "write `RM KEY..`"),
        ("SET", Kind::Invalid, "write `SET KEY VALUE`"),
        ("SET k", Kind::Invalid, "`\"\"` for an empty value"),
        ("SET k   ", Kind::Invalid, "write `SET KEY VALUE`"),
        ("SET k 'a' b", Kind::Invalid, "quote all of it"),
        ("SET k \"a\"b", Kind::Invalid, "put a blank after it"),
        ("SET k \"a", Kind::Invalid, "end the word with `\"`"),
        ("SET k \"\\q\"", Kind::Invalid, "`\\q` is not an escape"),
        ("SET k \"\\x0g\"", Kind::Invalid, "`\\x0g` is not an escape"),
        ("SET k \"\\x0\"", Kind::Invalid, "is not an escape"),
        ("SET --raw k v", Kind::Invalid, "`--raw` is not an option here"),
        ("SET k --tll 5", Kind::Invalid, "quote it: \"--tll\""),
        ("SET k --ttl 5 v", Kind::Invalid, "not a time"),
        ("GET a b", Kind::Invalid, "takes one key"),
        ("GET ''", Kind::Invalid, "the key is empty"),
    ];
    for (line, kind, says) in table {
        let Refused::Usage(error) = refused(line) else { panic!("{line}") };
        assert_eq!(error.kind(), kind, "{line}");
        assert!(error.message().contains(says), "{line}: {}", error.message());
    }
}

#[test]
fn a_key_of_1024_bytes_passes_and_one_of_1025_is_too_large() {
    assert!(parse(format!("GET {}", "k".repeat(1024))).is_ok());
    let Err(Refused::Usage(error)) = parse(format!("GET {}", "k".repeat(1025))) else { panic!("too long") };
    assert_eq!(exit::of(error.kind()), exit::TOO_LARGE);
}

#[test]
fn every_word_offered_for_completion_is_understood() {
    for word in words() {
        match parse(word) {
            Err(Refused::UnknownWord(e)) => panic!("{word}: {e}"),
            Err(Refused::DotWord(e)) => assert!(e.message().contains("needs something"), "{word}: {e}"),
            Ok(_) | Err(Refused::Usage(_)) => {}
        }
    }
}

#[test]
fn what_stands_after_a_key_says_which_bytes_and_where_to() {
    let (k, slice) = (|| key(b"k"), |offset, len| Slice { offset, len: Some(len) });
    let file = |name: &str| Some(Sent::File(name.into()));
    let table = [
        ("GET k RANGE 0 99", Get { slice: slice(0, 100), ..Get::of(k()) }),
        ("GET k range 5 5", Get { slice: slice(5, 1), ..Get::of(k()) }),
        ("GET k > out", Get { to: file("out"), ..Get::of(k()) }),
        ("GET k >out", Get { to: file("out"), ..Get::of(k()) }),
        ("GET k > 'a b'", Get { to: file("a b"), ..Get::of(k()) }),
        ("GET k RANGE 0 0 > out", Get { slice: slice(0, 1), to: file("out"), ..Get::of(k()) }),
        ("GET k | wc -c | cat", Get { to: Some(Sent::Command("wc -c | cat".into())), ..Get::of(k()) }),
    ];
    for (line, get) in table {
        assert_eq!(command(line), Command::Get(get), "{line}");
    }
    let hash = BlobHash::of(b"x");
    assert_eq!(command(format!("STAT @{hash}")), Command::Stat(What::Hash(hash)));
    assert_eq!(command(format!("STAT @blake3:{hash}")), Command::Stat(What::Hash(hash)));
    assert_eq!(
        command(format!("STAT '@{hash}'")),
        Command::Stat(What::Key(key(format!("@{hash}").as_bytes()))),
        "a quoted word is a key"
    );
    assert_eq!(command("STAT @short"), Command::Stat(What::Key(key(b"@short"))));
    for wrong in [
        "GET k RANGE 5 4",
        "GET k RANGE 1",
        "GET k RANGE -1 4",
        "GET k >",
        "GET k > a b",
        "GET k |",
        "GET k RANGE 0 1 RANGE 0 1",
    ] {
        assert!(matches!(refused(wrong), Refused::Usage(_)), "{wrong}");
    }
}

#[test]
fn a_value_may_come_from_a_file_or_from_the_lines_that_follow() {
    let Command::Set { value, attributes, .. } = command("SET k --ttl 5m --type text/plain < 'a b'") else {
        panic!("a SET")
    };
    assert_eq!(value, Given::File("a b".into()));
    assert_eq!(attributes.ttl, Some(Duration::from_secs(300)));
    assert_eq!(attributes.content_type.map(|words| words.to_string()).as_deref(), Some("text/plain"));
    assert_eq!(command("SET k <html>"), set(b"k", b"<html>"), "a value may begin so");
    assert_eq!(command("SET k <<"), set(b"k", b"<<"));
    assert_eq!(command("SET k '<< END'"), set(b"k", b"<< END"));
    assert_eq!(command("SET k <<END\n a 'b\n\nEND"), set(b"k", b" a 'b\n\n"));
    assert_eq!(command("SET k <<END\nEND"), set(b"k", b""));
    assert_eq!(command("ADD <<E\nx\r\nE \r"), Command::Add(Given::Bytes(Bytes::from_static(b"x\r\n"))));
    for wrong in ["SET k < a b", "SET k <<END", "SET k <<END\nx\n", "SET k < ", "ADD", "SET k --ttl 0s x"] {
        assert!(matches!(refused(wrong), Refused::Usage(_)), "{wrong}");
    }
    assert!(is_open("SET k <<END\nx") && is_open("SET k \"a\nb") && is_open("GET a\nSET k 'x"));
    assert!(
        !is_open("SET k <<END\nx\nEND")
            && !is_open("SET k it's")
            && !is_open("SET k 5 \" tall")
            && !is_open("")
    );
}

#[test]
fn a_prefix_is_deleted_by_a_word_or_an_option_and_never_by_a_quoted_key() {
    let prefix = |sure| Command::DeletePrefix { prefix: Bytes::from_static(b"a/"), sure };
    for (line, means) in [
        ("DEL PREFIX a/", prefix(false)),
        ("del prefix a/ -y", prefix(true)),
        ("DEL PREFIX -y a/", prefix(true)),
        ("DEL --prefix a/ -y", prefix(true)),
        ("DEL 'PREFIX' a/", del(&[b"PREFIX", b"a/"])),
        ("DEL a/ PREFIX", del(&[b"a/", b"PREFIX"])),
        ("DEL -y", del(&[b"-y"])),
    ] {
        assert_eq!(command(line), means, "{line}");
    }
    for wrong in
        ["DEL PREFIX", "DEL PREFIX a b", "DEL PREFIX -y", "DEL --json PREFIX a b", "DEL PREFIX a --async"]
    {
        assert!(matches!(refused(wrong), Refused::Usage(_)), "{wrong}");
    }
}

#[test]
fn the_other_words_are_read_with_their_keys_and_options() {
    let keys = |keys: &[&[u8]]| keys.iter().map(|k| key(k)).collect::<Vec<_>>();
    let list = |prefix: &'static str, after: Option<&[u8]>, limit, long| {
        Command::List(List {
            prefix: Bytes::from_static(prefix.as_bytes()),
            after: after.map(key),
            limit,
            long,
        })
    };
    for (line, means) in [
        ("EXISTS a b", Command::Exists(keys(&[b"a", b"b"]))),
        ("same a b", Command::Same(key(b"a"), key(b"b"))),
        ("LS", list("", None, None, false)),
        ("ls u: --limit 5 --long", list("u:", None, Some(5), true)),
        ("LIST --after 'x y'", list("", Some(b"x y"), None, false)),
        ("EVICT a", Command::Evict(keys(&[b"a"]))),
        ("PIN a b", Command::Pin(keys(&[b"a", b"b"]), true)),
        ("UNPIN a", Command::Pin(keys(&[b"a"]), false)),
        ("WARM u:", Command::Warm(Warm::Prefix(Bytes::from_static(b"u:")))),
        ("WARM < f", Command::Warm(Warm::File("f".into()))),
        ("LOCALS", Command::Locals(None)),
        ("LOCALS k", Command::Locals(Some(key(b"k")))),
        ("WHY k", Command::Why(key(b"k"))),
        ("STATUS", Command::Status),
        ("UNWATCH", Command::Unwatch),
        ("BENCH --count 5", Command::Bench { count: 5, size: 100 }),
        ("ADD a b", Command::Add(Given::Bytes(Bytes::from_static(b"a b")))),
        (".timer on", Command::Timer(Some(true))),
        (".bail", Command::Bail(None)),
        (".limit 7", Command::Limit(Some(7))),
        (".pager off", Command::Pager(Some(false))),
        (".read a file", Command::Read("a file".into())),
        (".output 'x y'", Command::Output(Some("x y".into()))),
        (".output", Command::Output(None)),
        (".connect unix:/x", Command::Connect("unix:/x".into())),
        (".history 3", Command::History(3)),
        (".edit", Command::Edit),
        (".help get", Command::Help(Some(Bytes::from_static(b"get")))),
        (".mode jsonl", Command::Mode(Some(Mode::Jsonl))),
    ] {
        assert_eq!(command(line), means, "{line}");
    }
    for wrong in [
        "EXISTS",
        "SAME a",
        "SAME a b c",
        "LS a b",
        "WARM",
        "WARM a b",
        "WHY",
        "WHY a b",
        "STATUS x",
        "LOCALS a b",
        "BENCH --count 0",
        "BENCH --size 999999999",
        "LS --limit x",
        "PIN",
    ] {
        assert!(matches!(refused(wrong), Refused::Usage(_)), "{wrong}");
    }
    for wrong in [".timer x", ".limit 0", ".limit 9999", ".read", ".connect", ".edit x", ".read 'a' b"] {
        assert!(matches!(refused(wrong), Refused::DotWord(_)), "{wrong}");
    }
    for (typed, meant) in [
        ("GTE a", "did you mean `GET`"),
        (".mdoe", "did you mean `.mode`"),
        (".help wach", "did you mean `WATCH`"),
    ] {
        assert!(refused(typed).error().message().contains(meant), "{typed}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_parser_panic(line: Vec<u8>, text in r#"[sSgGdD.]?[a-z"' \\;x-]{0,30}"#) {
        for line in [line, text.into_bytes()] {
            match parse(line) {
                Ok(_) => {}
                Err(refused) => {
                    let message = refused.error().message();
                    prop_assert!(!message.is_empty());
                    prop_assert_eq!(escape(message.as_bytes()), message, "safe to show");
                }
            }
        }
    }

    #[test]
    fn a_quoted_word_reads_back(k in prop::collection::vec(any::<u8>(), 1..50), value: Vec<u8>) {
        let line = format!("SET {} {}", quote(&k), quote(&value));
        prop_assert!(line.bytes().all(|b| (b' '..=b'~').contains(&b)));
        prop_assert_eq!(command(line.clone()), bound(&k, value.into()));
        let script: Vec<_> = super::super::script::Script::new(
            format!("{line};{line}"), super::super::script::Separators::Semicolons).collect();
        prop_assert_eq!(script.len(), 2, "a quoted separator separates nothing");
        prop_assert_eq!(script[1].as_ref().ok(), Some(&Bytes::from(line)));
    }

    #[test]
    fn a_single_quoted_word_stands_for_itself(value in "[^']*") {
        let line = format!("SET k '{value}'");
        prop_assert_eq!(command(line), bound(b"k", value.into()));
    }
}

#[test]
fn a_watch_takes_a_prefix_and_options_in_any_order() {
    let watch = |prefix: &'static str, after, count| Command::Watch {
        prefix: Bytes::from_static(prefix.as_bytes()),
        after,
        count,
    };
    for (line, is) in [
        ("watch", watch("", None, None)),
        ("WATCH a/", watch("a/", None, None)),
        ("WATCH --from 7 a/ --count 3", watch("a/", Some(7), Some(3))),
        ("WATCH --count 1 'a b'", watch("a b", None, Some(1))),
        ("WATCH -- --json", watch("--json", None, None)),
    ] {
        assert_eq!(command(line), is, "{line}");
    }
    for line in ["WATCH a b", "WATCH --from", "WATCH --from x", "WATCH --count -1", "WATCH --raw"] {
        let Err(Refused::Usage(_)) = parse(line) else { panic!("{line}") };
    }
}

#[test]
fn options_of_a_command_say_how_it_is_made() {
    let k = || key(b"k");
    let ms = Duration::from_millis;
    let get = |wait| Command::Get(Get { stale_ok: Some(ms(wait)), ..Get::of(k()) });
    let del = |mode| Command::Delete { keys: vec![k()], how: How { mode, request: None } };
    let table = [
        ("GET --stale-ok k", get(500)),
        ("GET k --stale-ok=20ms", get(20)),
        ("DEL --async k", del(DeleteMode::Async)),
        ("DEL k --deadline 100ms", del(DeleteMode::Deadline(ms(100)))),
        ("DEL --deadline 2s k", del(DeleteMode::Deadline(ms(2_000)))),
        ("DEL -- k", del(DeleteMode::Strict)),
    ];
    for (line, means) in table {
        assert_eq!(command(line), means, "{line}");
    }
    let word = "00000000000000000000000000000001-2-00000000000000000000000000000003-4-5";
    let Command::Delete { how, .. } = command(format!("DEL --request {word} k")) else { panic!("a DEL") };
    assert_eq!(how.request.map(|id| (id.client.0, id.n, id.born.boot, id.born.at_ms)), Some((1, 2, 4, 5)));
    for wrong in [
        "DEL --async --deadline 1s k",
        "DEL --async --async k",
        "DEL --deadline k",
        "DEL --deadline",
        "DEL --deadline 21s k",
        "DEL --request k k",
        "DEL --stale-ok k",
        "GET --async k",
        "GET --stale-ok=soon k",
        "SET --async k v",
    ] {
        assert!(matches!(refused(wrong), Refused::Usage(_)), "{wrong}");
    }
}
