//! `dstore check --salvage DIR`: copies what is whole into a fresh data directory, and says what was not.

use super::screen;
use super::sys;
use crate::config::CheckSettings;
use dstore_global::inspect::{Loss, SalvageConfig, Salvaged, salvage};
use dstore_local::repl::{Mode, escape, exit, printable};
use dstore_shared::{Error, Kind};
use serde_json::json;
use std::path::PathBuf;

/// The report's name in the new directory.
const REPORT: &str = "salvage.txt";

/// Copies to `to`, tells what it did, and gives the exit code.
pub fn run(settings: CheckSettings, to: PathBuf, mode: Mode) -> u8 {
    let CheckSettings { data, min_free, .. } = settings;
    let config = SalvageConfig { data, to, temp: std::env::temp_dir(), min_free };
    let salvaged = match salvage(&sys(), &config) {
        Ok(salvaged) => salvaged,
        Err(e) => return refused(&e, mode),
    };
    let code = if salvaged.loss.is_none() { exit::OK } else { exit::INTEGRITY };
    if mode == Mode::Json {
        screen::tell(&printable(&json_of(&config, &salvaged, code).to_string()));
    } else {
        lines_of(&salvaged).iter().for_each(|line| screen::tell(&escape(line.as_bytes())));
    }
    code
}

fn refused(error: &Error, mode: Mode) -> u8 {
    let code = if error.kind() == Kind::Corrupt { exit::INTEGRITY } else { exit::USAGE };
    if mode == Mode::Json {
        let answer = json!({
            "command": "salvage", "exit": code,
            "error": {"kind": error.kind().to_string(), "message": error.message()},
        });
        screen::tell(&printable(&answer.to_string()));
        return code;
    }
    screen::complain(error, code)
}

fn lines_of(salvaged: &Salvaged) -> Vec<String> {
    let Salvaged { to, history, engine, names, values, bytes, unnamed, loss } = salvaged;
    let to = to.display();
    let mut lines = vec![
        format!(
            "made: {to}, engine {engine}, history {:032x}: a new one, no revision of the old one counts",
            history.0
        ),
        format!("copied: {names} names, {values} values of {bytes} bytes, {unnamed} of them without a name"),
    ];
    if loss.is_none() {
        lines.push("nothing was lost".to_owned());
        return lines;
    }
    let Loss { names, values, revisions, doubts, told } = loss;
    lines.push(format!("lost: {names} names, {values} values, {revisions} revisions; {doubts} other doubts"));
    lines.extend(told.iter().map(|line| format!("  {line}")));
    lines.push(format!("all of it is in {to}/{REPORT}"));
    lines
}

fn json_of(config: &SalvageConfig, salvaged: &Salvaged, code: u8) -> serde_json::Value {
    let Salvaged { to, history, engine, names, values, bytes, unnamed, loss } = salvaged;
    json!({
        "command": "salvage",
        "data": config.data.display().to_string(),
        "to": to.display().to_string(),
        "engine": engine.to_string(),
        "history": format!("{:032x}", history.0),
        "names": names,
        "values": values,
        "bytes": bytes,
        "unnamed": unnamed,
        "complete": loss.is_none(),
        "lost_names": loss.names,
        "lost_values": loss.values,
        "lost_revisions": loss.revisions,
        "doubts": loss.doubts,
        "told": loss.told,
        "report": to.join(REPORT).display().to_string(),
        "exit": code,
    })
}
