//! Writes a value that was found: as a line, as exact bytes or as JSON, in constant memory but for JSON.

use super::escape::Escaper;
use super::json;
use super::output::Output;
use super::patience::{Stop, Wait};
use super::render::{Mode, around_value};
use bytes::Bytes;
use dstore_proto::store::{BodyStream, Found};
use dstore_shared::{Error, Key, Result};
use futures_util::{StreamExt, stream};

/// A value up to this is gathered before the first byte is written, so that its line is whole or not there.
const GATHERED_BYTES_MAX: u64 = 1 << 20;
/// On a terminal a line shows this much of a value.
const SHOWN_BYTES_MAX: usize = 4 << 10;
/// JSON holds a value in one string, so it must fit in memory some times over.
const JSON_VALUE_BYTES_MAX: u64 = 16 << 20;

/// Writes `found` in `mode`.
pub(super) async fn show(
    key: &Key,
    found: Found,
    mode: Mode,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<(), Stop> {
    let Found { entry, from, body } = found;
    match mode {
        Mode::Json if entry.size > JSON_VALUE_BYTES_MAX => Err(Stop::Failed(Error::too_large(format!(
            "the value has `{}` bytes, --json shows at most `{JSON_VALUE_BYTES_MAX}`: write it out with `dstore get`",
            entry.size
        )))),
        Mode::Json => {
            let value = gather(body.into_stream(), wait, output).await?;
            output.line(&json::labelled(json::found(key, &value, &entry, from), from.loss)).await?;
            Ok(())
        }
        Mode::Raw => raw(body.into_stream(), wait, output).await,
        Mode::Text => {
            let mut value = body.into_stream();
            if entry.size <= GATHERED_BYTES_MAX {
                let whole = gather(value, wait, output).await?;
                value = Box::pin(stream::iter([Ok(whole)]));
            }
            let (before, after) = around_value(key, from);
            wait.write(before.as_bytes(), output).await?;
            let shown = escaped(value, wait, output).await;
            // A line that was begun is ended, whatever happened to the value.
            output.line(if shown.is_ok() { after } else { "" }).await?;
            if let Some(shown) = shown? {
                let size = entry.size;
                output.note(&format!("`{shown}` of `{size}` bytes shown: `GET --raw` writes them all")).await;
            }
            Ok(())
        }
    }
}

/// The next piece. The time for it begins when it is asked for.
async fn next(
    value: &mut BodyStream,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<Option<Bytes>, Stop> {
    wait.again();
    wait.on(async { value.next().await.transpose() }, None, output).await
}

async fn gather(mut value: BodyStream, wait: &mut Wait<'_>, output: &mut Output) -> Result<Bytes, Stop> {
    let mut pieces = Vec::new();
    let mut size = 0;
    while let Some(piece) = next(&mut value, wait, output).await? {
        size += piece.len() as u64;
        if size > JSON_VALUE_BYTES_MAX {
            return Err(
                Error::internal(format!("the value is longer than its entry says, `{size}` bytes")).into()
            );
        }
        pieces.push(piece);
    }
    Ok(if pieces.len() == 1 { pieces.remove(0) } else { pieces.concat().into() })
}

/// Writes the value on one line, on a terminal only its beginning; then gives the number of bytes shown.
async fn escaped(
    mut value: BodyStream,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<Option<usize>, Stop> {
    let mut escaper = Escaper::one_line();
    let mut room = if output.screen().out_is_terminal { SHOWN_BYTES_MAX } else { usize::MAX };
    while let Some(mut piece) = next(&mut value, wait, output).await? {
        let over = piece.len() > room;
        piece.truncate(room);
        room -= piece.len();
        wait.write(escaper.push(&piece).as_bytes(), output).await?;
        if over {
            wait.write(b"..", output).await?;
            return Ok(Some(SHOWN_BYTES_MAX));
        }
    }
    wait.write(escaper.finish().as_bytes(), output).await?;
    Ok(None)
}

/// Writes the exact bytes; on a terminal what it would obey is escaped, and the next prompt gets its own line.
async fn raw(mut value: BodyStream, wait: &mut Wait<'_>, output: &mut Output) -> Result<(), Stop> {
    if !output.screen().out_is_terminal {
        while let Some(piece) = next(&mut value, wait, output).await? {
            wait.write(&piece, output).await?;
        }
        return Ok(());
    }
    let mut escaper = Escaper::keeping_layout();
    let (mut line_ended, mut changed) = (true, false);
    while let Some(piece) = next(&mut value, wait, output).await? {
        let text = escaper.push(&piece);
        changed |= text.as_bytes() != &piece[..];
        line_ended = if text.is_empty() { line_ended } else { text.ends_with('\n') };
        wait.write(text.as_bytes(), output).await?;
    }
    let rest = escaper.finish();
    wait.write(rest.as_bytes(), output).await?;
    if !line_ended || !rest.is_empty() {
        wait.write(b"\n", output).await?;
    }
    if changed {
        output.note("shown escaped, because a terminal would obey some of these bytes: write them to a file or pipe").await;
    }
    Ok(())
}
