//! Which lines a history keeps. Pure.

/// A longer line is a value that somebody pasted.
const LINE_BYTES_MAX: usize = 2048;

/// What keys and values of secrets are called.
const SECRET_WORDS: [&str; 10] = [
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api_key",
    "apikey",
    "api-key",
    "private_key",
    "credential",
];
/// What well-known secrets begin with.
const SECRET_BEGINNINGS: [&str; 8] =
    ["-----BEGIN", "AKIA", "ghp_", "github_pat_", "glpat-", "xoxb-", "sk-", "eyJhbGciOi"];

/// Whether a line may be kept: it is not blank, does not begin with a blank, is not huge, and stores nothing that looks
/// like a secret.
pub(super) fn keeps(line: &str) -> bool {
    if line.trim().is_empty() || line.starts_with([' ', '\t']) || line.len() > LINE_BYTES_MAX {
        return false;
    }
    let lower = line.to_ascii_lowercase();
    // A paste is one text of several lines.
    let stores = lower.lines().flat_map(|line| line.split(';')).any(|line| {
        let first = line.split_ascii_whitespace().next().unwrap_or_default();
        matches!(first, "set" | "put" | "insert" | "in" | "i" | "add")
    });
    let secret = SECRET_WORDS.iter().any(|word| lower.contains(word));
    let well_known = line
        .split(|c: char| c.is_ascii_whitespace() || c == '"' || c == '\'')
        .any(|word| SECRET_BEGINNINGS.iter().any(|begin| word.starts_with(begin)));
    !(stores && (secret || well_known))
}

/// The lines, each once, where it came last.
pub(super) fn once(lines: Vec<String>) -> Vec<String> {
    let mut seen = std::collections::HashSet::new();
    let mut kept: Vec<String> = lines.into_iter().rev().filter(|line| seen.insert(line.clone())).collect();
    kept.reverse();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_huge_values_and_lines_that_begin_with_a_blank_are_not_kept() {
        for kept in [
            "GET a",
            "SET a 1",
            "GET password",
            "DEL my-token",
            ".mode raw",
            "SET task skills",
            "SET a sketch",
        ] {
            assert!(keeps(kept), "{kept}");
        }
        for dropped in [
            "",
            "  ",
            " SET a 1",
            "SET db/password hunter2",
            "put API_KEY x",
            "set k ghp_16C7e42F292c6912E7710c",
            "GET a\nSET db/password hunter2",
            "GET a; SET db/password hunter2",
            "ADD '-----BEGIN RSA PRIVATE KEY-----'",
            "SET a \"AKIAIOSFODNN7EXAMPLE\"",
            "SET jwt eyJhbGciOiJIUzI1NiJ9.e30.x",
        ] {
            assert!(!keeps(dropped), "{dropped}");
        }
        assert!(!keeps(&format!("SET a {}", "x".repeat(3000))));
    }

    #[test]
    fn a_line_is_there_once_where_it_came_last() {
        let lines = ["a", "b", "a", "c", "b"].map(str::to_owned).to_vec();
        assert_eq!(once(lines), ["a", "c", "b"]);
    }
}
