//! What is logged, on standard error: as lines for people or objects for programs, and read again while a server runs.
//!
//! Invariant: logging never ends a process that runs: a level that cannot be read leaves the one before.

use super::screen;
use crate::config::{Config, LogFormat, LogSource};
use dstore_shared::Error;
use std::sync::OnceLock;
use tracing_subscriber::EnvFilter;

type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// How the level of this process is changed, and where it is read.
static LEVEL: OnceLock<(Change, Option<LogSource>, &'static str)> = OnceLock::new();

fn filter(text: &str) -> Result<EnvFilter, Error> {
    EnvFilter::builder().parse(text).map_err(|e| {
        Error::invalid(format!(
            "`{text}` is no log level (`DSTORE_LOG`, or `log` in the file), {e}: write one like `info` or `dstore_global=debug`"
        ))
    })
}

/// Begins to log: what servers report, and next to nothing where a person types.
///
/// # Errors
/// `Invalid` if the level cannot be read.
pub fn start(config: &Config) -> Result<(), Error> {
    let otherwise = if config.action.is_quiet() { "error" } else { "info" };
    let filter = filter(config.log.as_deref().unwrap_or(otherwise))?;
    let builder =
        tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(screen::of_process().colours);
    let change: Change = match config.log_format {
        LogFormat::Text => {
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
        LogFormat::Json => {
            let builder = builder.json().flatten_event(true).with_current_span(false);
            let builder = builder.with_env_filter(filter).with_filter_reloading();
            let handle = builder.reload_handle();
            builder.init();
            Box::new(move |filter| handle.reload(filter).map_err(|e| e.to_string()))
        }
    };
    // Looked at while it is there.
    screen::had_terminal();
    let _ = LEVEL.set((change, config.log_source.clone(), otherwise));
    Ok(())
}

/// Reads the level again where it was read.
pub fn read_again() {
    let Some((change, source, otherwise)) = LEVEL.get() else { return };
    let Some(source) = source else {
        tracing::warn!("SIGHUP: nothing to read again: the log level comes from no file");
        return;
    };
    let text = match source.read() {
        Ok(text) => text.unwrap_or_else(|| (*otherwise).to_owned()),
        Err(e) => {
            tracing::error!(error = %e, "SIGHUP: the log level stays as it was");
            return;
        }
    };
    match filter(&text).map_err(|e| e.to_string()).and_then(change) {
        Ok(()) => tracing::warn!(level = text, "SIGHUP: the log level was read again"),
        Err(error) => tracing::error!(error, "SIGHUP: the log level stays as it was"),
    }
}
