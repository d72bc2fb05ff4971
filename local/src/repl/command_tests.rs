//! Tables of lines and what they mean.

use super::super::escape::escape;
use super::super::exit;
use super::*;
use dstore_shared::Kind;
use proptest::prelude::*;

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).expect("a valid key")
}

fn get(k: &[u8]) -> Command {
    Command::Get { key: key(k), stale_ok: None }
}

fn set(k: &[u8], value: &'static [u8]) -> Command {
    Command::Set { key: key(k), value: Bytes::from_static(value) }
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
        (".Help", Command::Help),
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
        ("SET k --ttl 5", Kind::Invalid, "quote it: \"--ttl\""),
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
        if let Err(Refused::UnknownWord(e) | Refused::DotWord(e)) = parse(word) {
            panic!("{word}: {e}");
        }
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
        prop_assert_eq!(command(line.clone()), Command::Set { key: key(&k), value: value.into() });
        let script: Vec<_> = super::super::script::Script::new(
            format!("{line};{line}"), super::super::script::Separators::Semicolons).collect();
        prop_assert_eq!(script.len(), 2, "a quoted separator separates nothing");
        prop_assert_eq!(script[1].as_ref().ok(), Some(&Bytes::from(line)));
    }

    #[test]
    fn a_single_quoted_word_stands_for_itself(value in "[^']*") {
        let line = format!("SET k '{value}'");
        prop_assert_eq!(command(line), Command::Set { key: key(b"k"), value: value.into() });
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
    let get = |wait| Command::Get { key: k(), stale_ok: Some(ms(wait)) };
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
