//! The words of the language: what each is called, what it takes, what it means. One table, for the parser, the help,
//! completion and hints.
//!
//! It must never be written a second time: what is not in this table is no word.

use std::fmt::Write;

/// What a word does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verb {
    Get,
    Set,
    Delete,
    Add,
    Stat,
    Exists,
    Same,
    List,
    Watch,
    Unwatch,
    Copy,
    Rename,
    Evict,
    Pin,
    Unpin,
    Warm,
    Locals,
    Why,
    Status,
    Bench,
}

/// What an option is followed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Takes {
    Nothing,
    /// A word of its own.
    Value(&'static str),
    /// `=` and a word, or nothing.
    Maybe(&'static str),
}

/// An option of a word.
#[derive(Debug)]
pub(super) struct Opt {
    pub name: &'static str,
    pub takes: Takes,
    pub says: &'static str,
}

/// A word, its other names, and what may follow.
#[derive(Debug)]
pub(super) struct Grammar {
    pub verb: Verb,
    /// The first is the one that is shown.
    pub words: &'static [&'static str],
    pub form: &'static str,
    pub says: &'static str,
    pub options: &'static [Opt],
    pub example: &'static str,
}

/// A word that begins with a dot: about the session, not about the store.
#[derive(Debug)]
pub(super) struct Dot {
    pub word: &'static str,
    pub form: &'static str,
    pub says: &'static str,
}

const fn flag(name: &'static str, says: &'static str) -> Opt {
    Opt { name, takes: Takes::Nothing, says }
}

const fn value(name: &'static str, form: &'static str, says: &'static str) -> Opt {
    Opt { name, takes: Takes::Value(form), says }
}

const JSON: Opt = flag("--json", "answer with one JSON object");
const TTL: Opt = value("--ttl", "TIME", "the key lives so long: 500ms, 90s, 5m, 2h or 7d");
const TYPE: Opt = value("--type", "TYPE", "of what type the value is, as text/plain");

/// Every word, as the help tells them.
pub(super) const VERBS: [Grammar; 20] = [
    Grammar {
        verb: Verb::Set,
        words: &["SET", "PUT", "INSERT", "IN", "I"],
        form: "KEY VALUE",
        says: "store a value under a key that is free; VALUE may be `< FILE` or `<<END` and lines up to END",
        options: &[TTL, TYPE, JSON],
        example: "SET --ttl 1h greeting hello world",
    },
    Grammar {
        verb: Verb::Get,
        words: &["GET", "SELECT", "OUTPUT", "OUT", "O"],
        form: "KEY",
        says: "read a value; also `GET @HASH`, and after it `RANGE FIRST LAST`, `> FILE`, `| COMMAND`",
        options: &[
            flag("--raw", "write the exact bytes"),
            Opt {
                name: "--stale-ok",
                takes: Takes::Maybe("TIME"),
                says: "an old value will do, if global does not answer",
            },
            JSON,
        ],
        example: "GET log RANGE 0 99 | wc -c",
    },
    Grammar {
        verb: Verb::Delete,
        words: &["DEL", "DELETE", "REM", "REMOVE", "RM", "D"],
        form: "KEY..",
        says: "remove keys, all at once; `DEL PREFIX P` removes all keys that begin with P (-y: do not ask)",
        options: &[
            value("--deadline", "TIME", "answer after so long at the latest; it goes on"),
            flag("--async", "answer when it is durable; others may read the old value for a while"),
            value("--request", "WORD", "ask again about the request that was told"),
            value("--prefix", "PREFIX", "remove all keys that begin with PREFIX; -y says that you mean it"),
            JSON,
        ],
        example: "DEL PREFIX user:17/",
    },
    Grammar {
        verb: Verb::Add,
        words: &["ADD"],
        form: "VALUE",
        says: "store a value without a key and tell its hash; kept for an hour, unless a key is bound to it",
        options: &[JSON],
        example: "ADD hello",
    },
    Grammar {
        verb: Verb::Stat,
        words: &["STAT"],
        form: "KEY",
        says: "tell hash, size, revision, type and time to live, without the value; also `STAT @HASH`",
        options: &[JSON],
        example: "STAT greeting",
    },
    Grammar {
        verb: Verb::Exists,
        words: &["EXISTS"],
        form: "KEY..",
        says: "tell which keys there are, all at one moment",
        options: &[JSON],
        example: "EXISTS a b c",
    },
    Grammar {
        verb: Verb::Same,
        words: &["SAME"],
        form: "KEY KEY",
        says: "tell whether two keys have the same value, without moving it",
        options: &[JSON],
        example: "SAME a b",
    },
    Grammar {
        verb: Verb::List,
        words: &["LS", "LIST"],
        form: "[PREFIX]",
        says: "list keys in byte order, a page at a time",
        options: &[
            value("--limit", "N", "so many keys a page (.limit sets it for all)"),
            value("--after", "KEY", "only keys after this one"),
            flag("--long", "tell size, hash and revision too"),
            JSON,
        ],
        example: "LS user:",
    },
    Grammar {
        verb: Verb::Watch,
        words: &["WATCH"],
        form: "[PREFIX]",
        says: "tell what becomes of keys: above the prompt, until UNWATCH; in a script until Ctrl-C",
        options: &[
            value("--from", "REVISION", "only changes after this revision"),
            value("--count", "N", "end after so many events"),
            JSON,
        ],
        example: "WATCH user:",
    },
    Grammar {
        verb: Verb::Unwatch,
        words: &["UNWATCH"],
        form: "",
        says: "end the watches above the prompt",
        options: &[JSON],
        example: "UNWATCH",
    },
    Grammar {
        verb: Verb::Copy,
        words: &["COPY"],
        form: "KEY KEY",
        says: "let the second key have the value of the first; no bytes move",
        options: &[JSON],
        example: "COPY a b",
    },
    Grammar {
        verb: Verb::Rename,
        words: &["RENAME"],
        form: "KEY KEY",
        says: "move a value to another key, in one step",
        options: &[JSON],
        example: "RENAME a b",
    },
    Grammar {
        verb: Verb::Evict,
        words: &["EVICT"],
        form: "KEY..",
        says: "let this node forget its copies; the keys stay",
        options: &[JSON],
        example: "EVICT big",
    },
    Grammar {
        verb: Verb::Pin,
        words: &["PIN"],
        form: "KEY..",
        says: "fetch keys and keep their values in this node's memory as long as it runs, up to half of its cache",
        options: &[JSON],
        example: "PIN model",
    },
    Grammar {
        verb: Verb::Unpin,
        words: &["UNPIN"],
        form: "KEY..",
        says: "let values that were pinned leave again",
        options: &[JSON],
        example: "UNPIN model",
    },
    Grammar {
        verb: Verb::Warm,
        words: &["WARM"],
        form: "PREFIX",
        says: "fetch the values of all keys under a prefix into this node; `WARM < FILE`: of the keys in FILE, one a line",
        options: &[JSON],
        example: "WARM model/",
    },
    Grammar {
        verb: Verb::Locals,
        words: &["LOCALS"],
        form: "[KEY]",
        says: "tell which nodes are attached to global, how far behind each is, and who holds KEY",
        options: &[JSON],
        example: "LOCALS greeting",
    },
    Grammar {
        verb: Verb::Why,
        words: &["WHY"],
        form: "KEY",
        says: "tell how a GET of the key would go now, each hop with its time, and who made its last DEL wait",
        options: &[JSON],
        example: "WHY greeting",
    },
    Grammar {
        verb: Verb::Status,
        words: &["STATUS"],
        form: "",
        says: "tell how this node is",
        options: &[JSON],
        example: "STATUS",
    },
    Grammar {
        verb: Verb::Bench,
        words: &["BENCH"],
        form: "",
        says: "time SET, GET and DEL of keys of its own, one after another, and remove them",
        options: &[
            value("--count", "N", "so many of each [default: 200]"),
            value("--size", "BYTES", "values of so many bytes [default: 100]"),
            JSON,
        ],
        example: "BENCH --count 1000 --size 4096",
    },
];

/// Every dot word.
pub(super) const DOTS: [Dot; 13] = [
    Dot { word: ".help", form: "[WORD]", says: "this, or more about a word" },
    Dot {
        word: ".mode",
        form: "[MODE]",
        says: "text, pretty, raw, hex, json, jsonl or csv; alone tells which",
    },
    Dot { word: ".timer", form: "[on|off]", says: "tell after each command how long it took" },
    Dot { word: ".limit", form: "[N]", says: "how many keys LS tells at a time" },
    Dot { word: ".pager", form: "[on|off]", says: "whether LS stops after each page at a prompt" },
    Dot { word: ".read", form: "FILE", says: "run the lines of a file" },
    Dot { word: ".output", form: "[FILE]", says: "write answers to a file; alone: to the screen again" },
    Dot { word: ".edit", form: "", says: "write the last line anew in $EDITOR, and run it" },
    Dot { word: ".connect", form: "ADDR", says: "talk to another node: HOST:PORT or unix:PATH" },
    Dot { word: ".history", form: "[N]", says: "tell the last lines" },
    Dot { word: ".bail", form: "[on|off]", says: "end a script at its first failure" },
    Dot { word: ".version", form: "", says: "tell the version" },
    Dot { word: ".exit", form: "[CODE]", says: "leave; Ctrl-D does too" },
];

/// What may follow a word, and the word itself as the table has it; in any case.
pub(super) fn grammar(word: &[u8]) -> Option<(&'static Grammar, &'static str)> {
    let all = VERBS.iter().flat_map(|one| one.words.iter().map(move |word| (one, *word)));
    all.into_iter().find(|(_, known)| known.as_bytes().eq_ignore_ascii_case(word))
}

/// The dot word, in any case.
pub(super) fn dot(word: &[u8]) -> Option<&'static Dot> {
    DOTS.iter().find(|one| one.word.as_bytes().eq_ignore_ascii_case(word))
}

/// Every word a line can begin with.
pub fn words() -> impl Iterator<Item = &'static str> {
    VERBS.iter().flat_map(|one| one.words).copied().chain(DOTS.iter().map(|one| one.word))
}

/// The word that was most likely meant, if one is near enough.
pub(super) fn nearest<'a>(typed: &[u8], known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let typed = std::str::from_utf8(typed).ok()?.to_ascii_lowercase();
    let far = match typed.len() {
        0 | 1 | 24.. => return None,
        2..=5 => 1,
        _ => 2,
    };
    known
        .map(|word| (distance(typed.as_bytes(), word.to_ascii_lowercase().as_bytes()), word))
        .filter(|(distance, word)| *distance <= far && *distance < word.len())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, word)| word)
}

/// How many bytes to change, leave out, put in or swap with a neighbour (optimal string alignment).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let width = b.len() + 1;
    let mut cost = vec![0; (a.len() + 1) * width];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            cost[i * width + j] = if i == 0 || j == 0 {
                i + j
            } else {
                let at = |i: usize, j: usize| cost[i * width + j];
                let changed = at(i - 1, j - 1) + usize::from(a[i - 1] != b[j - 1]);
                let mut best = changed.min(at(i - 1, j) + 1).min(at(i, j - 1) + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    best = best.min(at(i - 2, j - 2) + 1);
                }
                best
            };
        }
    }
    cost[a.len() * width + b.len()]
}

/// `WORD FORM`, as it is to be written.
fn written(word: &str, form: &str) -> String {
    if form.is_empty() { word.to_owned() } else { format!("{word} {form}") }
}

/// The answer to `.help`.
pub fn help() -> String {
    let mut text = String::new();
    let line = |text: &mut String, written: &str, says: &str| {
        writeln!(text, "{written:<18}{says}").expect("a string takes what is written");
    };
    for one in &VERBS {
        line(&mut text, &written(one.words[0], one.form), one.says);
    }
    for one in &DOTS {
        line(&mut text, &written(one.word, one.form), one.says);
    }
    text.push_str(
        "Also: PUT INSERT IN I (SET), SELECT OUTPUT OUT O (GET), DELETE REM REMOVE RM D (DEL), LIST (LS).\n\
         A value is the rest of the line. Quote keys with blanks, and values to keep blanks around them:\n\
         'as it is' or \"with \\n \\t \\r \\\\ \\\" \\xHH\". Options go before the value. `.help WORD` tells them.\n\
         `db:` means this Local answered, `global:` that Global was asked.",
    );
    text
}

/// The answer to `.help WORD`; `None`: there is no such word.
pub(super) fn help_of(word: &[u8]) -> Option<String> {
    let dotted = [b".", word].concat();
    if let Some(one) = dot(word).or_else(|| grammar(word).is_none().then(|| dot(&dotted)).flatten()) {
        return Some(format!("{}\n  {}", written(one.word, one.form), one.says));
    }
    let (one, _) = grammar(word)?;
    let mut text = format!("{}\n  {}", written(one.words[0], one.form), one.says);
    for opt in one.options {
        let name = match opt.takes {
            Takes::Nothing => opt.name.to_owned(),
            Takes::Value(form) => format!("{} {form}", opt.name),
            Takes::Maybe(form) => format!("{}[={form}]", opt.name),
        };
        write!(text, "\n  {name:<20}{}", opt.says).expect("a string takes what is written");
    }
    if one.words.len() > 1 {
        write!(text, "\n  also: {}", one.words[1..].join(", ")).expect("a string takes what is written");
    }
    write!(text, "\n  as: {}", one.example).expect("a string takes what is written");
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found_by_its_nearest_word_and_nothing_is_made_up() {
        let table = [
            ("GTE", Some("GET")),
            ("gett", Some("GET")),
            ("wacth", Some("WATCH")),
            (".hepl", Some(".help")),
            (".moed", Some(".mode")),
            ("DLE", Some("DEL")),
            ("delte", Some("DELETE")),
            ("x", None),
            ("", None),
            ("FOO", None),
            ("zzzzzz", None),
            ("\u{fc}\u{fc}\u{fc}", None),
        ];
        for (typed, meant) in table {
            assert_eq!(nearest(typed.as_bytes(), words()), meant, "{typed}");
        }
        let long = vec![b'a'; 1 << 20];
        assert_eq!(nearest(&long, words()), None, "and at once");
    }

    #[test]
    fn the_help_names_every_word_and_each_has_help_of_its_own() {
        let all = help();
        for word in words() {
            assert!(all.contains(word), "{word}");
            let own = help_of(word.to_ascii_lowercase().as_bytes()).expect("told");
            assert!(own.lines().count() > 1, "{own}");
        }
        assert!(help_of(b"GET").expect("told").contains("--stale-ok[=TIME]"));
        assert!(help_of(b"mode").expect("told").starts_with(".mode"), "the dot may be left out");
        assert!(help_of(b"nope").is_none() && help_of(b"").is_none());
    }
}
