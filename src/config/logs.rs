//! What is logged, and where that is read again.

use super::Action;
use super::file::File;
use super::resolve::Settings;
use dstore_shared::{Error, Result};
use std::path::PathBuf;

/// How a line of the log is written.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// The file that the level is read from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogSource {
    path: PathBuf,
    section: &'static str,
}

impl LogSource {
    /// The level as the file has it now, if it has one.
    ///
    /// # Errors
    /// `Invalid` if the file cannot be read.
    pub fn read(&self) -> Result<Option<String>> {
        let name = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|e| Error::invalid(format!("`{name}` cannot be read, {e}")))?;
        let file = File::parse(&name, &text).map_err(Error::invalid)?;
        Ok(file.get(self.section, "log").map(|value| value.text.clone()))
    }
}

/// What a kind of process logs: level, format, and where the level is read again.
pub(super) type Logs = (Option<String>, LogFormat, Option<LogSource>);

impl Action {
    /// Whether a person types at it, or waits for its one answer.
    pub fn is_quiet(&self) -> bool {
        !matches!(self, Self::Global(_) | Self::Local { repl: false, .. })
    }

    fn section(&self) -> Option<&'static str> {
        match self {
            Self::Global(_) => Some("global"),
            Self::Local { .. } | Self::Solo { .. } => Some("local"),
            _ => None,
        }
    }
}

impl Settings<'_> {
    /// What `action` logs. Only a server has settings of a file for that.
    pub(super) fn logs(&self, action: &Action, file: Option<PathBuf>) -> Result<Logs> {
        let Some(section) = action.section() else {
            return Ok((self.variable("DSTORE_LOG")?, self.format("repl")?, None));
        };
        let by_variable = self.variable("DSTORE_LOG")?;
        // A variable cannot change while a process runs, and wins over the file.
        let source = file.filter(|_| by_variable.is_none()).map(|path| LogSource { path, section });
        let level = match self.given(section, "log", None::<String>) {
            Some(given) => Some(given.checked(|text| Ok(text.to_owned()))?),
            None => None,
        };
        Ok((level, self.format(section)?, source))
    }

    fn format(&self, section: &str) -> Result<LogFormat> {
        let Some(given) = self.given(section, "log-format", None::<String>) else {
            return Ok(LogFormat::Text);
        };
        given.checked(|text| match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            other => Err(format!("`{other}` is no format of a log: write text or json")),
        })
    }
}
