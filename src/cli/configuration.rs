//! `dstore config`: what is in force, and whether it is good.

use super::screen;
use crate::config::{Effective, as_toml};
use dstore_local::repl::{Mode, exit};
use serde_json::{Map, Value, json};

/// `config show`.
pub fn show(all: &[Effective], origin: bool, mode: Mode) -> u8 {
    match mode {
        Mode::Json => {
            let mut sections = Map::new();
            for one in all {
                let section = sections.entry(one.section).or_insert_with(|| json!({}));
                section[one.key] =
                    json!({ "value": one.value, "origin": one.origin.as_deref().unwrap_or("default") });
            }
            screen::tell(&Value::from(sections).to_string());
        }
        _ => screen::tell(as_toml(all, origin).trim_end()),
    }
    exit::OK
}

/// `config check`, of one that is good.
pub fn good(file: Option<&str>, mode: Mode) -> u8 {
    match (mode, file) {
        (Mode::Json, file) => screen::tell(&json!({ "ok": true, "file": file }).to_string()),
        (_, Some(file)) => screen::tell(&format!("{file}: good")),
        (_, None) => screen::tell("good: no file was named, and the environment is as it should be"),
    }
    exit::OK
}
