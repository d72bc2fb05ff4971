//! Lines as they are typed, and what a prompt shows of them.

use super::*;
use dstore_proto::store::Peek;
use dstore_shared::Key;
use proptest::prelude::*;
use std::sync::Arc;

fn key(text: &[u8]) -> Key {
    Key::new(text.to_vec()).expect("valid")
}

fn some_keys() -> Keys {
    let held = |key: &Key| if key.as_bytes() == b"model" { Peek::Held(13_002_342) } else { Peek::Absent };
    let keys = Keys::new(Arc::new(held));
    for text in ["user:1", "user:2", "model", "two words", "line\nend", "-dash"] {
        keys.saw(Some(&key(text.as_bytes())), 5, false);
    }
    keys
}

fn texts(typed: &str) -> Vec<String> {
    completions(typed, &some_keys()).1.into_iter().map(|one| one.text).collect()
}

#[test]
fn words_options_modes_and_keys_are_completed() {
    let table: [(&str, &[&str]); 20] = [
        ("sel", &["SELECT "]),
        (".v", &[".version "]),
        ("De", &["DEL ", "DELETE "]),
        ("ä", &[]),
        ("GET --s", &["--stale-ok "]),
        ("LS --l", &["--limit ", "--long "]),
        ("SET --t", &["--ttl ", "--type "]),
        ("GET us", &["user:1 ", "user:2 "]),
        ("DEL model us", &["user:1 ", "user:2 "]),
        ("SET us", &["user:1 ", "user:2 "]),
        ("SET user:1 us", &[]),
        ("COPY user:1 mo", &["model "]),
        ("GET tw", &["\"two words\" "]),
        ("GET \"two w", &["\"two words\" "]),
        ("GET 'two w", &["\"two words\" "]),
        ("GET li", &["\"line\\nend\" "]),
        ("GET \"line\\", &[]),
        (".mode js", &["json ", "jsonl "]),
        (".help wat", &["WATCH "]),
        ("FOO us", &[]),
    ];
    for (typed, expected) in table {
        assert_eq!(texts(typed), expected, "{typed}");
    }
    assert_eq!(completions("GET \"two w", &some_keys()).0, 4, "the quote is replaced too");
    assert_eq!(completions("LS --limit 5 us", &some_keys()).1.len(), 2, "an option's value is no key");
}

#[test]
fn a_hint_tells_what_a_line_still_takes_or_what_is_known_of_its_key() {
    let hint = |line: &str| hint(line, &some_keys(), 60);
    let table = [
        ("SET", Some(" KEY VALUE")),
        ("SET ", Some("KEY VALUE")),
        ("SET new", Some(" VALUE")),
        ("SET user:1", Some(" occupied, 5 B")),
        ("GET model", Some(" 12.4 MiB, local")),
        ("GET user:1", Some(" 5 B, not cached")),
        ("GET user:1 ", Some("5 B, not cached")),
        ("GET nope", None),
        ("GET \"two words\"", Some(" 5 B, not cached")),
        ("COPY user:1", Some(" 5 B, not cached")),
        ("COPY nope", Some(" KEY")),
        (".mode", Some(" [MODE]")),
        ("WAT", Some("CH")),
        ("", None),
        ("STATUS ", None),
        ("FOO x", None),
    ];
    for (line, expected) in table {
        assert_eq!(hint(line).as_deref(), expected, "{line}");
    }
    assert_eq!(super::hint("SET ", &some_keys(), 5), None, "what does not fit is not shown");
}

#[test]
fn colours_change_no_character() {
    let plain = |text: &str| {
        let mut out = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('\x1b') {
            out.push_str(&rest[..at]);
            rest = &rest[at + rest[at..].find('m').expect("a sequence ends") + 1..];
        }
        out + rest
    };
    for line in ["SET --ttl 5s a 'x y' z", "nope x", ".mode", "GET \"open", "größe 雪", "SET a it's"] {
        assert_eq!(plain(&coloured(line)), line);
    }
    assert!(coloured("GET a").starts_with("\x1b[1;36mGET\x1b[0m"));
    assert!(coloured("nope a").starts_with("\x1b[31mnope"));
    assert_eq!(coloured("nop"), "nop", "it may become a word");
}

/// A keystroke looks at what it shows, not at what is remembered.
#[test]
fn a_keystroke_looks_at_no_more_keys_than_it_shows_however_many_there_are() {
    let keys = Keys::default();
    for n in 0..20_000 {
        keys.saw(Some(&key(format!("k{n:06}").as_bytes())), n, false);
    }
    let (_, found) = completions("GET k", &keys);
    assert_eq!(found.len(), CANDIDATES_MAX);
    // The last one is among them, so that what all have in common is what is inserted.
    assert_eq!(found.last().map(|one| one.text.as_str()), Some("k019999 "));
}

proptest! {
    #[test]
    fn no_line_makes_a_prompt_panic_or_shows_what_a_terminal_obeys(
        line in r#"(GET|SET|\.mode|DEL|x)? ?[-a"' \\ä\n\t<>|@]{0,20}"#, key_bytes: Vec<u8>, room in 0_usize..100
    ) {
        let keys = Keys::default();
        if let Ok(key) = Key::new(key_bytes) {
            keys.saw(Some(&key), 1, true);
        }
        let _ = coloured(&line);
        if let Some(hint) = hint(&line, &keys, room) {
            prop_assert!(hint.chars().count() <= room);
        }
        let (at, found) = completions(&line, &keys);
        prop_assert!(line.is_char_boundary(at));
        for one in found {
            prop_assert!(!one.shown.chars().chain(one.text.chars()).any(is_active), "{one:?}");
        }
    }
}

/// `cargo test -p dstore-local --release --lib -- --ignored --nocapture keystroke`
#[test]
#[ignore = "prints figures"]
fn figures_of_a_keystroke_with_a_million_keys() {
    let keys = Keys::default();
    for n in 0..1_000_000_u64 {
        keys.saw(
            Some(&key(format!("user:{:08}", n.wrapping_mul(2_654_435_761) % 100_000_000).as_bytes())),
            n,
            false,
        );
    }
    let clock = dstore_sys::Sys::real().clock;
    let mut times: Vec<_> = (0..1000)
        .map(|n| {
            let line = format!("GET user:{:0width$}", n % 10, width = n % 8 + 1);
            let began = clock.now();
            let _ = (coloured(&line), hint(&line, &keys, 80), completions(&line, &keys));
            clock.now().since(began)
        })
        .collect();
    times.sort_unstable();
    println!("{} keys: completion, hint and colours p50 {:?}, max {:?}", keys.len(), times[500], times[999]);
}
