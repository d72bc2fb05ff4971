//! The configuration file: `[section]`s of `key = value`, each known or refused with its line.

use std::collections::BTreeMap;
use toml::de::{DeTable, DeValue};

/// Stands for what this binary prefers.
pub(super) const PREFERRED: &str = "(preferred)";

/// Every section and its keys, each with what holds if nobody gives it. A key is named like its flag.
pub(super) const KNOWN: [(&str, &[(&str, &str)]); 3] = [
    (
        "global",
        &[
            ("listen", "127.0.0.1:50051"),
            ("data", "./dstore-data"),
            ("engine", PREFERRED),
            ("sync", "group"),
            ("lease", "2s"),
            ("drain-timeout", "5s"),
            ("min-free", "256MiB"),
            ("admin", "127.0.0.1:50061"),
            ("log", "info"),
            ("log-format", "text"),
            ("insecure", "false"),
        ],
    ),
    (
        "local",
        &[
            ("global", "127.0.0.1:50051"),
            ("listen", "127.0.0.1:50052"),
            ("socket", ""),
            ("http", ""),
            ("http-host", ""),
            ("cache-bytes", "256MiB"),
            ("scrub", "1"),
            ("negatives", "false"),
            ("audits", "60"),
            ("admin", "127.0.0.1:50062"),
            ("log", "info"),
            ("log-format", "text"),
            ("insecure", "false"),
            ("resp", "127.0.0.1:50379"),
            ("resp-socket", ""),
            ("resp-threads", ""),
            ("resp-databases", "default,cache:replace"),
            ("resp-password", ""),
            ("resp-server", ""),
            ("resp-version", ""),
            ("shm", ""),
        ],
    ),
    ("repl", &[("node", "")]),
];

/// A value of the file and the line it stands on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    pub text: String,
    pub line: usize,
}

/// A file that was read.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct File {
    /// What it is called in messages.
    pub name: String,
    values: BTreeMap<(String, String), Value>,
}

impl File {
    /// Reads the text of the file `name`. The error names file, line and what to write.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let wrong = |at: usize, what: String| format!("{name}:{}: {what}", line_of(text, at));
        let table = DeTable::parse(text).map_err(|e| {
            let at = e.span().map_or(0, |span| span.start);
            wrong(at, format!("not TOML, {}", e.message().replace('\n', ", ")))
        })?;
        let mut values = BTreeMap::new();
        for (section, body) in table.get_ref() {
            let at = section.span().start;
            let section = section.get_ref().as_ref();
            let Some((_, keys)) = KNOWN.iter().find(|(known, _)| *known == section) else {
                let names: Vec<_> = KNOWN.iter().map(|(name, _)| *name).collect();
                return Err(wrong(at, unknown_section(section, &names)));
            };
            let DeValue::Table(body) = body.get_ref() else {
                return Err(wrong(at, format!("`{section}` is a section: write `[{section}]`")));
            };
            for (key, value) in body {
                let at = key.span().start;
                let key = key.get_ref().as_ref();
                if !keys.iter().any(|(known, _)| *known == key) {
                    let keys: Vec<_> = keys.iter().map(|(known, _)| *known).collect();
                    let right = nearest(key, &keys);
                    return Err(wrong(
                        at,
                        format!("unknown key `{}` in [{section}]: did you mean `{right}`?", shown(key)),
                    ));
                }
                let value = as_text(value.get_ref()).map_err(|what| wrong(at, format!("`{key}` {what}")))?;
                let value = Value { text: value, line: line_of(text, at) };
                values.insert((section.to_owned(), key.to_owned()), value);
            }
        }
        Ok(Self { name: name.to_owned(), values })
    }

    /// The value of `key` in `section`, if it stands there.
    pub fn get(&self, section: &str, key: &str) -> Option<&Value> {
        self.values.get(&(section.to_owned(), key.to_owned()))
    }
}

fn as_text(value: &DeValue<'_>) -> Result<String, &'static str> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        DeValue::Integer(_) | DeValue::Float(_) => {
            Err("is a number without a unit: write it like \"256MiB\" or \"2s\"")
        }
        _ => Err("must be a text in quotes, or true or false"),
    }
}

fn unknown_section(section: &str, names: &[&str]) -> String {
    match KNOWN.iter().find(|(_, keys)| keys.iter().any(|(key, _)| *key == section)) {
        Some((name, _)) => format!("`{section}` stands in no section: write it under `[{name}]`"),
        None => {
            format!("unknown section `{}`: did you mean `[{}]`?", shown(section), nearest(section, names))
        }
    }
}

/// The word of `words` that takes the fewest edits to become `wrong`.
pub fn nearest<'a>(wrong: &str, words: &[&'a str]) -> &'a str {
    let wrong = wrong.to_ascii_lowercase().replace('_', "-");
    words.iter().copied().min_by_key(|word| edits(&wrong, word)).unwrap_or_default()
}

/// Insertions, removals and replacements between two words (Levenshtein, 1965).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|b| *b == b'\n').count()
}

fn shown(text: &str) -> String {
    text.chars().take(64).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        File::parse("dstore.toml", text).expect_err(text)
    }

    #[test]
    fn values_are_found_with_their_lines() {
        let text = "# mine\n[global]\nlisten = \"127.0.0.1:1\"\ninsecure = true\n\n[local]\ncache-bytes = \"1MiB\"\n";
        let file = File::parse("dstore.toml", text).expect("valid");
        let value = |section, key| file.get(section, key).map(|v| (v.text.as_str(), v.line));
        assert_eq!(value("global", "listen"), Some(("127.0.0.1:1", 3)));
        assert_eq!(value("global", "insecure"), Some(("true", 4)));
        assert_eq!(value("local", "cache-bytes"), Some(("1MiB", 7)));
        assert_eq!(value("local", "listen"), None);
        assert!(File::parse("x", "").is_ok());
    }

    #[test]
    fn what_is_not_known_is_refused_with_line_and_nearest_word() {
        let table = [
            (
                "[local]\n\ncache_bytes = \"1MiB\"",
                "dstore.toml:3: unknown key `cache_bytes` in [local]: did you mean `cache-bytes`?",
            ),
            (
                "[global]\nlisen = \"x\"",
                "dstore.toml:2: unknown key `lisen` in [global]: did you mean `listen`?",
            ),
            ("[globl]\n", "dstore.toml:1: unknown section `globl`: did you mean `[global]`?"),
            ("lease = \"2s\"", "dstore.toml:1: `lease` stands in no section: write it under `[global]`"),
            ("local = 1", "dstore.toml:1: `local` is a section: write `[local]`"),
            (
                "[global]\nlease = 2",
                "dstore.toml:2: `lease` is a number without a unit: write it like \"256MiB\" or \"2s\"",
            ),
            (
                "[global]\n\nlease = [\"2s\"]",
                "dstore.toml:3: `lease` must be a text in quotes, or true or false",
            ),
        ];
        for (text, message) in table {
            assert_eq!(refused(text), message);
        }
        assert!(refused("[global]\nlisten = ").starts_with("dstore.toml:2: not TOML, "));
        assert!(refused("[global]\na=1\na=2").starts_with("dstore.toml:3: not TOML, "));
    }

    #[test]
    fn the_nearest_word_takes_the_fewest_edits() {
        assert_eq!((edits("", "abc"), edits("abc", "abc"), edits("kitten", "sitting")), (3, 0, 3));
        assert_eq!(nearest("MIN_FREE", &["lease", "min-free"]), "min-free");
    }
}
