//! Files, commands and the editor of whoever is at this process's prompt or wrote its script.

use super::files::Sink;
use crate::config::Existing;
use dstore_local::repl::{Outside, Source, Writing, exit};
use dstore_shared::{Error, Result};
use futures_util::future::BoxFuture;
use std::env;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use tokio::process::Command;

/// Bytes of a text that comes back from an editor.
const EDITED_BYTES_MAX: u64 = 16 << 20;

/// The real ones.
#[derive(Clone, Copy, Debug)]
pub struct Files;

impl Outside for Files {
    fn open<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Source>> {
        Box::pin(async move {
            let failed = |e| refused(path, "read", &e);
            let file = tokio::fs::File::open(path).await.map_err(failed)?;
            // A folder can be opened, and then not be read.
            if file.metadata().await.map_err(failed)?.is_dir() {
                return Err(Error::invalid(format!("`{}` is a folder: name a file", path.display())));
            }
            Ok(Box::new(file) as Source)
        })
    }

    fn create<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Writing>> {
        Box::pin(async move {
            let kept = Sink::open(path, Existing::Replaced).map_err(|e| refused(path, "written", &e))?;
            let file = kept.file.try_clone().map_err(|e| refused(path, "written", &e))?;
            let path = path.to_owned();
            // It is synced, which blocks.
            let done = async move {
                let kept =
                    tokio::task::spawn_blocking(move || kept.keep()).await.map_err(std::io::Error::other);
                kept.and_then(|kept| kept).map(|()| exit::OK).map_err(|e| refused(&path, "written", &e))
            };
            Ok(Writing { sink: Box::new(tokio::fs::File::from_std(file)), done: Box::pin(done) })
        })
    }

    fn pipe<'a>(&'a self, command: &'a OsStr) -> BoxFuture<'a, Result<Writing>> {
        Box::pin(async move {
            let failed = |e: std::io::Error| {
                Error::invalid(format!("`{}` cannot be run, {e}: check the command", command.display()))
            };
            let mut child = Command::new("sh")
                .arg("-c")
                .arg(command)
                .stdin(Stdio::piped())
                .kill_on_drop(true)
                .spawn()
                .map_err(failed)?;
            let sink = child
                .stdin
                .take()
                .ok_or_else(|| Error::internal("a command without an input: report this"))?;
            let done = async move {
                let status =
                    child.wait().await.map_err(|e| Error::internal(format!("the command is lost, {e}")))?;
                Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(exit::INTERRUPTED))
            };
            Ok(Writing { sink: Box::new(sink), done: Box::pin(done) })
        })
    }

    fn edit<'a>(&'a self, text: &'a str) -> BoxFuture<'a, Result<String>> {
        Box::pin(async move { edited(text).await })
    }
}

/// Has the person write `text` anew, in `$VISUAL` or `$EDITOR`.
async fn edited(text: &str) -> Result<String> {
    let named = |variable| env::var_os(variable).filter(|value: &OsString| !value.is_empty());
    let editor = named("VISUAL").or_else(|| named("EDITOR")).unwrap_or_else(|| "vi".into());
    let failed = |e: std::io::Error| Error::invalid(format!("the line cannot be edited, {e}: set EDITOR"));
    // Only this user can read it, and it goes when this ends.
    let folder = env::temp_dir().join(format!("dstore-edit-{}", std::process::id()));
    let path = folder.join("line");
    let begin = || {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
        std::fs::File::create_new(&path)?.write_all(text.as_bytes())
    };
    begin().map_err(failed)?;
    // The editor's name may have options: the shell reads it.
    let mut line = editor;
    line.push(" \"$1\"");
    let run = Command::new("sh").arg("-c").arg(line).arg("sh").arg(&path).status().await;
    let read = || {
        let length = std::fs::metadata(&path)?.len();
        if length > EDITED_BYTES_MAX {
            Err(std::io::Error::other("it is too long"))
        } else {
            std::fs::read_to_string(&path)
        }
    };
    let written = read();
    let _ = std::fs::remove_dir_all(&folder);
    match run {
        Ok(status) if status.success() => written.map_err(failed),
        Ok(status) => Err(Error::invalid(format!("the editor ended with {status}: nothing was run"))),
        Err(e) => Err(failed(e)),
    }
}

fn refused(path: &Path, what: &str, e: &std::io::Error) -> Error {
    Error::invalid(format!("`{}` cannot be {what}, {e}: check its name and permissions", path.display()))
}
