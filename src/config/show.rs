//! What is in force, and who said so.
//!
//! Pure. Invariant: what is told for a setting that nobody gave is what the servers take then; a test holds the two
//! together. It must never tell a password.

use super::file::{KNOWN, PREFERRED};
use super::resolve::{Given, Settings};
use dstore_global::EngineKind;
use std::fmt::Write;

/// A setting that is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effective {
    /// Its section of the file: `global`, `local` or `repl`.
    pub section: &'static str,
    /// Its name in the file.
    pub key: &'static str,
    /// As it would be written; empty if there is none.
    pub value: String,
    /// Who gave it: a variable, or a line of the file; `None` = nobody.
    pub origin: Option<String>,
}

/// Settings that are not told.
const SECRETS: [&str; 1] = ["resp-password"];

impl Settings<'_> {
    /// Every setting of every section, in the order of the documentation.
    pub(super) fn effective(&self) -> Vec<Effective> {
        let sections = KNOWN.iter().flat_map(|(section, keys)| keys.iter().map(move |key| (*section, *key)));
        let told = sections.map(|(section, (key, default))| {
            let given = self.given(section, key, None::<String>);
            let value = given.as_ref().map_or_else(|| held(default), Given::shown);
            let value =
                if SECRETS.contains(&key) && !value.is_empty() { "(not told)".to_owned() } else { value };
            Effective { section, key, value, origin: given.map(|given| given.origin()) }
        });
        told.collect()
    }
}

fn held(default: &str) -> String {
    if default == PREFERRED { EngineKind::preferred().to_string() } else { default.to_owned() }
}

/// The settings as a configuration file has them, with who gave each if that is wanted.
pub fn as_toml(all: &[Effective], with_origin: bool) -> String {
    let (mut out, mut section) = (String::new(), "");
    let line = |one: &Effective| match one.value.as_str() {
        "" => format!("# {} is not set", one.key),
        value => format!("{} = {}", one.key, quoted(value)),
    };
    let width = all.iter().map(|one| line(one).chars().count()).max().unwrap_or_default();
    for one in all {
        if one.section != section {
            let gap = if section.is_empty() { "" } else { "\n" };
            section = one.section;
            let _ = writeln!(out, "{gap}[{section}]");
        }
        let text = line(one);
        let _ = match one.origin.as_deref() {
            _ if !with_origin => writeln!(out, "{text}"),
            origin => writeln!(out, "{text:width$}  # {}", origin.unwrap_or("default")),
        };
    }
    out
}

/// A basic string of TOML, or a boolean, as the file has it.
fn quoted(value: &str) -> String {
    if ["true", "false"].contains(&value) {
        return value.to_owned();
    }
    let mut out = String::from("\"");
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => _ = write!(out, "\\u{:04X}", u32::from(c)),
            c => out.push(c),
        }
    }
    out + "\""
}
