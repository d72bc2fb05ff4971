//! What options of a command mean: how long, how weak, under which request. Pure.

use dstore_proto::store::STALE_WAIT;
use dstore_shared::limits::DELETE_DEADLINE_MAX;
use dstore_shared::{Born, ClientId, DeleteMode, Error, HistoryId, RequestId, Result};
use std::time::Duration;

/// How a DEL is to be made.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct How {
    /// When it is answered.
    pub mode: DeleteMode,
    /// The request that it repeats; `None` = it is a new one.
    pub request: Option<RequestId>,
}

impl How {
    /// Takes `--async` or `--deadline TIME`.
    ///
    /// # Errors
    /// `Invalid` if a mode was given before, or for a deadline out of its limits.
    pub fn set_mode(&mut self, mode: DeleteMode) -> Result<()> {
        if self.mode != DeleteMode::Strict {
            return Err(Error::invalid("a DEL is either --async or has one --deadline: leave one out"));
        }
        if mode.deadline().is_some_and(|limit| limit > DELETE_DEADLINE_MAX) {
            return Err(Error::invalid(format!(
                "--deadline is at most {DELETE_DEADLINE_MAX:?}: repeat the request after it"
            )));
        }
        self.mode = mode;
        Ok(())
    }
}

/// A time like `100ms`, `2s`, `5m`, `3h` or `7d`.
///
/// # Errors
/// `Invalid` for anything else.
pub fn time(text: &[u8]) -> Result<Duration> {
    let wrong = || {
        let shown = text[..text.len().min(32)].escape_ascii();
        Error::invalid(format!("`{shown}` is not a time: write one like 100ms, 2s, 5m, 3h or 7d"))
    };
    let text = std::str::from_utf8(text).map_err(|_| wrong())?;
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let fits = |(suffix, unit): (&str, u64)| Some((text.strip_suffix(suffix)?, unit));
    let (digits, unit): (&str, u64) = units.into_iter().find_map(fits).ok_or_else(wrong)?;
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(wrong());
    }
    let count: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_millis(count * unit))
}

/// The value of `--stale-ok`: how long Global is waited for first.
///
/// # Errors
/// As [`time`].
pub fn stale_wait(given: Option<&[u8]>) -> Result<Duration> {
    given.map_or(Ok(STALE_WAIT), time)
}

/// A request id in one word, to be given to `--request`.
pub fn request_word(id: &RequestId) -> String {
    let RequestId { client, n, born } = id;
    format!("{:032x}-{n}-{:032x}-{}-{}", client.0, born.history.0, born.boot, born.at_ms)
}

/// Reads the word that a pending DEL was told.
///
/// # Errors
/// `Invalid` for anything else.
pub fn request_from(word: &[u8]) -> Result<RequestId> {
    let read = || {
        let text = std::str::from_utf8(word).ok()?;
        let mut parts = text.split('-');
        let mut next = || parts.next().filter(|part| part.bytes().all(|b| b.is_ascii_hexdigit()));
        let (client, n) = (u128::from_str_radix(next()?, 16).ok()?, next()?.parse().ok()?);
        let history = HistoryId(u128::from_str_radix(next()?, 16).ok()?);
        let (boot, at_ms) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let born = Born { history, boot, at_ms };
        parts.next().is_none().then_some(RequestId { client: ClientId(client), n, born })
    };
    read().ok_or_else(|| Error::invalid("this is no request: copy what was told after `--request`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_reads_back_from_its_word_and_nothing_else_does() {
        let born = Born { history: HistoryId(u128::MAX), boot: 3, at_ms: 77 };
        let id = RequestId { client: ClientId(1), n: 9, born };
        let word = request_word(&id);
        assert_eq!(request_from(word.as_bytes()).unwrap(), id);
        for wrong in ["", "-", "1-2-3-4", "1-2-3-4-5-6", "x-2-3-4-5", "1-+2-3-4-5", "\u{ff}", "1--3-4-5"] {
            assert!(request_from(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_digits_and_a_unit() {
        assert_eq!(time(b"100ms").unwrap(), Duration::from_millis(100));
        assert_eq!(time(b"2s").unwrap(), Duration::from_secs(2));
        for wrong in ["", "s", "ms", "5", "-1s", "1.5s", "1 s", "9999999999s", "\u{663}s"] {
            assert!(time(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_delete_has_one_mode_and_a_deadline_within_its_limit() {
        let mut how = How::default();
        how.set_mode(DeleteMode::Async).unwrap();
        assert!(how.set_mode(DeleteMode::Deadline(Duration::ZERO)).is_err());
        let over = DELETE_DEADLINE_MAX + Duration::from_millis(1);
        assert!(How::default().set_mode(DeleteMode::Deadline(over)).is_err());
        assert!(How::default().set_mode(DeleteMode::Deadline(DELETE_DEADLINE_MAX)).is_ok());
    }
}
