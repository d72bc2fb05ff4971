//! Writes a value that was found: as a line, as exact bytes or as JSON, in constant memory but for JSON.

use super::command::What;
use super::escape::{Escaper, escape};
use super::json;
use super::output::Output;
use super::patience::{Stop, Wait};
use super::pretty::{DUMPED_BYTES_MAX, Shown, dump, shown};
use super::render::{Mode, around_value, named};
use bytes::Bytes;
use dstore_proto::store::{BodyStream, Found, Provenance};
use dstore_shared::{Error, Result};
use futures_util::{StreamExt, stream};

/// A value up to this is gathered before the first byte is written, so that its line is whole or not there.
const GATHERED_BYTES_MAX: u64 = 1 << 20;
/// On a terminal a line shows this much of a value.
const SHOWN_BYTES_MAX: usize = 4 << 10;
/// Columns of a terminal that does not say.
const COLUMNS: u16 = 80;
/// JSON holds a value in one string, so it must fit in memory some times over.
const JSON_VALUE_BYTES_MAX: u64 = 16 << 20;

/// Writes `found` in `mode`.
pub(super) async fn show(
    what: &What,
    found: Found,
    mode: Mode,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<(), Stop> {
    let Found { entry, from, body } = found;
    match mode {
        Mode::Json | Mode::Jsonl | Mode::Csv if entry.size > JSON_VALUE_BYTES_MAX => {
            Err(Stop::Failed(Error::too_large(format!(
                "the value has `{}` bytes, --json shows at most `{JSON_VALUE_BYTES_MAX}`: write it out with `dstore get`",
                entry.size
            ))))
        }
        Mode::Json | Mode::Jsonl => {
            let value = gather(body.into_stream(), wait, output).await?;
            output.line(&json::labelled(json::found(what, &value, &entry, from), from.loss)).await?;
            Ok(())
        }
        Mode::Csv => {
            let value = gather(body.into_stream(), wait, output).await?;
            let value = String::from_utf8(value.to_vec()).unwrap_or_else(|_| escape(&value));
            output.line("key,value").await?;
            output.line(&format!("{},{}", json::field(&named(what)), json::field(&value))).await?;
            Ok(())
        }
        Mode::Raw => raw(body.into_stream(), wait, output).await,
        Mode::Pretty | Mode::Hex if entry.size <= GATHERED_BYTES_MAX => {
            let value = gather(body.into_stream(), wait, output).await?;
            pretty(what, &value, from, mode, output).await
        }
        Mode::Text | Mode::Pretty | Mode::Hex => {
            let mut value = body.into_stream();
            if entry.size <= GATHERED_BYTES_MAX {
                let whole = gather(value, wait, output).await?;
                value = Box::pin(stream::iter([Ok(whole)]));
            } else if mode != Mode::Text {
                let first = next(&mut value, wait, output).await?.unwrap_or_default();
                let head = &first[..first.len().min(SHOWN_BYTES_MAX)];
                if mode == Mode::Hex || !is_text(head) {
                    return digits(what, (head, entry.size), from, output).await;
                }
                value = Box::pin(stream::iter([Ok(first)]).chain(value));
            }
            let (before, after) = around_value(what, from);
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

/// For a person: what fits on the line is there, everything else has lines of its own.
async fn pretty(
    what: &What,
    value: &[u8],
    from: Provenance,
    mode: Mode,
    output: &mut Output,
) -> Result<(), Stop> {
    let ((before, after), screen) = (around_value(what, from), output.screen());
    let columns = if screen.columns == 0 { COLUMNS } else { screen.columns };
    let shown = match mode {
        Mode::Hex => Shown::Digits(dump(value, columns), value.len().min(DUMPED_BYTES_MAX)),
        _ => shown(value, columns),
    };
    let cut = |text: String| match text.char_indices().nth(SHOWN_BYTES_MAX) {
        Some((at, _)) if screen.out_is_terminal => (format!("{}..", &text[..at]), true),
        _ => (text, false),
    };
    let size = value.len();
    match shown {
        Shown::Line(text) => {
            let (text, was_cut) = cut(text);
            output.line(&format!("{before}{text}{after}")).await?;
            if was_cut {
                output.note(&format!("the beginning of `{size}` bytes: `GET --raw` writes them all")).await;
            }
        }
        Shown::Block(text) => {
            let (text, was_cut) = cut(text);
            output.line(&format!("{}{after}\n{text}", before.trim_end())).await?;
            if was_cut {
                output.note(&format!("the beginning of `{size}` bytes: `GET --raw` writes them all")).await;
            }
        }
        Shown::Digits(digits, bytes) => {
            output.line(&format!("{}{after}\n{digits}", before.trim_end())).await?;
            let part =
                if bytes < size { format!("the first {bytes} of {size} bytes") } else { "bytes".to_owned() };
            output
                .note(&format!("{part} as hexadecimal digits: `GET KEY > FILE` writes them as they are"))
                .await;
        }
    }
    Ok(())
}

/// Whether a value that begins so is text; its last character may be cut.
fn is_text(head: &[u8]) -> bool {
    let whole = match std::str::from_utf8(head) {
        Ok(_) => true,
        Err(e) => e.error_len().is_none(),
    };
    whole && !head.contains(&0)
}

/// The beginning of a large value that is no text.
async fn digits(
    what: &What,
    (head, size): (&[u8], u64),
    from: Provenance,
    output: &mut Output,
) -> Result<(), Stop> {
    let ((before, after), columns) = (around_value(what, from), output.screen().columns);
    let dump = dump(head, if columns == 0 { COLUMNS } else { columns });
    output.line(&format!("{}{after}\n{dump}", before.trim_end())).await?;
    let bytes = head.len().min(DUMPED_BYTES_MAX);
    let told = format!(
        "the first {bytes} of {size} bytes as hexadecimal digits: `GET KEY > FILE` writes them as they are"
    );
    output.note(&told).await;
    Ok(())
}

/// Writes the exact bytes, to something that is no terminal; gives how many.
pub(super) async fn exact(
    mut value: BodyStream,
    wait: &mut Wait<'_>,
    output: &mut Output,
) -> Result<u64, Stop> {
    let mut size = 0;
    while let Some(piece) = next(&mut value, wait, output).await? {
        wait.write(&piece, output).await?;
        size += piece.len() as u64;
    }
    Ok(size)
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
        return exact(value, wait, output).await.map(|_| ());
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
