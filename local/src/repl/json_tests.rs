//! Answers read back by a JSON parser.

use super::*;
use dstore_proto::store::Tier;
use dstore_shared::{BlobHash, Revision};
use proptest::prelude::*;

fn from() -> Provenance {
    Provenance::new(Tier::Global, true, Revision(7))
}

fn entry(value: &[u8]) -> Entry {
    Entry {
        hash: BlobHash::of(value),
        size: value.len() as u64,
        bind_rev: Revision(5),
        expires_at: None,
        content_type: None,
    }
}

fn key(bytes: &[u8]) -> Key {
    Key::new(bytes.to_vec()).expect("valid")
}

fn read(line: &str) -> Value {
    serde_json::from_str(line).expect("an answer is JSON")
}

#[test]
fn a_found_value_comes_with_its_facts() {
    let line = found(&What::Key(key(b"hi")), b"hello", &entry(b"hello"), from());
    let hash = BlobHash::of(b"hello");
    assert_eq!(
        line,
        format!(
            r#"{{"command":"get","key":"hi","outcome":"found","value":"hello","hash":"{hash}","size":5,"tier":"global","cached":true,"revision":7,"exit":0}}"#
        )
    );
}

#[test]
fn bytes_that_are_not_utf8_stand_in_base64() {
    let table: [(&[u8], &str); 4] =
        [(b"\xff", "/w=="), (b"\xff\xfe", "//4="), (b"\xff\xfe\xfd", "//79"), (b"\xffMan", "/01hbg==")];
    for (bytes, text) in table {
        let answer = read(&found(&What::Key(key(bytes)), bytes, &entry(bytes), from()));
        assert_eq!(
            (answer["key_base64"].as_str(), answer["value_base64"].as_str()),
            (Some(text), Some(text))
        );
        assert!(answer.get("value").is_none() && answer.get("key").is_none());
    }
}

#[test]
fn failures_and_refusals_carry_kind_and_exit_code() {
    let error = Error::unavailable("global is away").retry_after(std::time::Duration::from_millis(20));
    let answer = read(&failed("set", Some(&key(b"k")), None, &error));
    assert_eq!(
        answer["error"],
        json!({"kind": "Unavailable", "message": "global is away", "retry_after_ms": 20})
    );
    assert_eq!(
        (&answer["exit"], &answer["key"], &answer["command"]),
        (&json!(4), &json!("k"), &json!("set"))
    );
    let answer = read(&refused(&Refused::UnknownWord(Error::invalid("what"))));
    assert_eq!((&answer["exit"], &answer["command"]), (&json!(2), &json!("")));
}

#[test]
fn outcomes_of_set_and_del_are_words() {
    let reply = |outcome| SetReply { outcome, from: from() };
    let outcome = |outcome| {
        let answer = read(&set(&key(b"k"), &reply(outcome)));
        (answer["outcome"].as_str().expect("a word").to_owned(), answer["exit"].as_u64().expect("a code"))
    };
    assert_eq!(outcome(SetOutcome::Stored(entry(b"v"))), ("stored".into(), 0));
    assert_eq!(outcome(SetOutcome::Unchanged(entry(b"v"))), ("unchanged".into(), 0));
    assert_eq!(outcome(SetOutcome::Occupied(entry(b"v"))), ("occupied".into(), 3));
    let reply = DeleteReply { removed: vec![true, false], revision: Revision(9), stale: None };
    let line = delete(&[key(b"a"), key(b"\xff")], &reply);
    assert_eq!(
        line,
        r#"{"command":"del","revision":9,"keys":[{"key":"a","removed":true},{"key_base64":"/w==","removed":false}],"exit":1}"#
    );
}

proptest! {
    #[test]
    fn any_value_reads_back_and_nothing_controls(value: String) {
        let line = found(&What::Key(key(b"k")), value.as_bytes(), &entry(value.as_bytes()), from());
        prop_assert!(!line.chars().any(is_active), "{line:?}");
        let answer = read(&line);
        prop_assert_eq!(answer["value"].as_str(), Some(&value[..]));
    }
}
