//! Reads commands from bytes as they come: RESP arrays of bulk strings, and the inline commands that people type.
//!
//! Pure. An argument is a span of the input, so a small command costs no allocation; one of more than
//! [`LARGE`] bytes is gathered in memory of its own, exactly as long, so that it can become a value as it is.
//! Invariants: a length that no bytes stand behind reserves next to nothing; what is over its limit is refused at its
//! header; no byte is looked at twice but the beginning of a line that has not ended.

use super::args::{Arg, Args, Request};
use super::inline;
use bytes::Bytes;

/// Arguments of more bytes than this get memory of their own.
pub const LARGE: usize = 64 << 10;
/// What a large argument reserves at first; then as much again as came.
const RESERVE: usize = 1 << 20;
/// What every argument ends with.
const END: &[u8; 2] = b"\r\n";
/// Longest line of a length: a sign and 20 digits, with room.
const LENGTH_LINE_MAX: usize = 64;

/// What a command may have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Arguments.
    pub args: usize,
    /// Bytes of one argument.
    pub bulk: usize,
    /// Bytes of all arguments together.
    pub request: usize,
    /// Bytes of an inline command.
    pub inline: usize,
}

impl Limits {
    /// Of a client that may use commands. Inline and arguments as Redis has them, within memory for a door.
    pub const OPEN: Self = Self { args: 65_536, bulk: 128 << 20, request: 160 << 20, inline: 64 << 10 };
    /// Of a client that did not say who it is, as Redis has them.
    pub const STRANGER: Self = Self { args: 10, bulk: 16_384, request: 64 << 10, inline: 64 << 10 };
}

/// The largest value that is read or written.
pub const VALUE_MAX: u64 = Limits::OPEN.bulk as u64;

/// Why bytes are no command. The connection ends after it is told.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Wrong {
    /// The count of arguments is no number or over the limit.
    #[error("invalid multibulk length")]
    Count,
    /// The length of an argument is no number or over the limit.
    #[error("invalid bulk length")]
    Length,
    /// A length whose line does not end.
    #[error("too big bulk count string")]
    LengthLine,
    /// Something else where an argument should begin.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    NoBulk(u8),
    /// An argument that does not end where its length says.
    #[error("expected CRLF after a bulk string")]
    NoEnd,
    /// An inline command that does not end.
    #[error("too big inline request")]
    Inline,
    /// A quote without its second.
    #[error("unbalanced quotes in request")]
    Quotes,
    /// Somebody speaks HTTP here, perhaps a browser that was tricked into it: he gets no answer.
    #[error("HTTP is not spoken here")]
    Http,
}

/// What a look at the input gave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// A command is whole.
    Command {
        /// Its arguments are within the input from here on: see [`Parser::args`].
        from: usize,
        /// Where it ends.
        end: usize,
    },
    /// Nothing, in so many bytes: an empty line or array.
    Nothing(usize),
    /// More must come; so many bytes are done with, and the next input begins after them.
    More(usize),
}

/// A large argument that is being gathered.
#[derive(Debug)]
struct Large {
    bytes: Vec<u8>,
    len: usize,
    /// Bytes of its end that came.
    ends: usize,
}

impl Large {
    /// Takes what belongs to it from the beginning of `input`; gives how much.
    fn take(&mut self, input: &[u8]) -> usize {
        let wanted = self.len - self.bytes.len();
        let take = wanted.min(input.len());
        if self.bytes.capacity() - self.bytes.len() < take {
            let more = take.max(RESERVE).max(self.bytes.len()).min(wanted);
            self.bytes.reserve_exact(more);
        }
        self.bytes.extend_from_slice(&input[..take]);
        take
    }
}

/// Reads commands, one after another.
#[derive(Debug)]
pub struct Parser {
    limits: Limits,
    request: Request,
    /// Arguments that are still to come.
    left: usize,
    /// How far the input is read.
    at: usize,
    /// The length of the argument that begins there, if it was read.
    bulk: Option<usize>,
    large: Option<Large>,
    /// Bytes of the arguments so far.
    taken: usize,
}

impl Parser {
    /// A parser at the beginning of a command.
    pub fn new(limits: Limits) -> Self {
        let (request, left, at, taken) = (Request::default(), 0, 0, 0);
        Self { limits, request, left, at, bulk: None, large: None, taken }
    }

    /// From the next command on.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Whether a part of a command was read.
    pub fn is_within(&self) -> bool {
        self.left > 0 || self.large.is_some()
    }

    /// Bytes that it holds besides the input: of large arguments, and for the places of all of them.
    pub fn held(&self) -> usize {
        self.request.held() + self.large.as_ref().map_or(0, |large| large.bytes.capacity())
    }

    /// Goes on reading. `input` begins where the last step left it: after the command, or after what was done with.
    ///
    /// # Errors
    /// What is wrong: nothing that follows can be understood.
    #[inline]
    pub fn next(&mut self, input: &[u8]) -> Result<Step, Wrong> {
        let mut dropped = 0;
        if self.large.is_some() {
            match self.gather(input)? {
                Some(used) => dropped = used,
                None => return Ok(Step::More(input.len())),
            }
        } else if self.left == 0 {
            match input.first() {
                None => return Ok(Step::More(0)),
                Some(b'*') => {}
                Some(_) => return self.inline(input),
            }
            self.begin();
            let Some(count) = self.number(input, Wrong::Count)? else { return Ok(Step::More(0)) };
            if count <= 0 {
                let used = std::mem::take(&mut self.at);
                return Ok(Step::Nothing(used));
            }
            self.left = usize::try_from(count).ok().filter(|n| *n <= self.limits.args).ok_or(Wrong::Count)?;
        }
        self.bulks(input, dropped)
    }

    /// Reads arguments up to the end of the command; `dropped` bytes of the input were done with before.
    fn bulks(&mut self, input: &[u8], mut dropped: usize) -> Result<Step, Wrong> {
        while self.left > 0 {
            let rest = &input[dropped..];
            let len = match self.bulk {
                Some(len) => len,
                None => match self.length(rest)? {
                    Some(len) => len,
                    None => return Ok(Step::More(dropped)),
                },
            };
            if len > LARGE {
                self.own_all(rest);
                dropped += std::mem::take(&mut self.at);
                self.bulk = None;
                self.large = Some(Large { bytes: Vec::new(), len, ends: 0 });
                match self.gather(&input[dropped..])? {
                    Some(used) => dropped += used,
                    None => return Ok(Step::More(input.len())),
                }
                continue;
            }
            let end = self.at + len;
            let Some(after) = rest.get(end..end + 2) else {
                self.bulk = Some(len);
                return Ok(Step::More(dropped));
            };
            if after != END {
                return Err(Wrong::NoEnd);
            }
            self.request.args.push(Arg::Span(self.at, end));
            (self.at, self.bulk, self.left) = (end + 2, None, self.left - 1);
        }
        Ok(Step::Command { from: dropped, end: dropped + std::mem::take(&mut self.at) })
    }

    /// The arguments of the command that [`Step::Command`] told of; `input` begins at its `from`.
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args::new(input, &self.request)
    }

    fn begin(&mut self) {
        self.request.args.clear();
        if !self.request.own.is_empty() {
            self.request.own.clear();
            self.request.own_bytes = 0;
        }
        (self.bulk, self.taken) = (None, 0);
    }

    /// Forgets the arguments of a command that is done: large ones would stay in memory.
    pub fn forget(&mut self) {
        if self.request.own.is_empty() && self.request.args.capacity() <= 64 {
            return;
        }
        self.request = Request::default();
    }

    /// The number on the line that begins at `at` with one byte of kind; `None`: the line has not ended.
    #[inline]
    fn number(&mut self, input: &[u8], wrong: Wrong) -> Result<Option<i64>, Wrong> {
        let line = &input[self.at + 1..];
        let (mut number, mut at, minus) = (0_i64, 0, line.first() == Some(&b'-'));
        at += usize::from(minus);
        let first = at;
        while let Some(digit) = line.get(at).map(|b| b.wrapping_sub(b'0')).filter(|d| *d <= 9) {
            number = number.checked_mul(10).and_then(|n| n.checked_add(digit.into())).ok_or(wrong.clone())?;
            at += 1;
        }
        if at > LENGTH_LINE_MAX {
            return Err(Wrong::LengthLine);
        }
        match (line.get(at), line.get(at + 1)) {
            (Some(b'\r'), Some(b'\n')) if at > first => {
                self.at += 1 + at + 2;
                Ok(Some(if minus { -number } else { number }))
            }
            (None, _) | (Some(b'\r'), None) => Ok(None),
            _ => Err(wrong),
        }
    }

    #[inline]
    fn length(&mut self, input: &[u8]) -> Result<Option<usize>, Wrong> {
        match input.get(self.at) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(Wrong::NoBulk(*other)),
        }
        let Some(len) = self.number(input, Wrong::Length)? else { return Ok(None) };
        let len = usize::try_from(len).ok().filter(|len| *len <= self.limits.bulk).ok_or(Wrong::Length)?;
        self.taken = self.taken.saturating_add(len);
        if self.taken > self.limits.request {
            return Err(Wrong::Length);
        }
        Ok(Some(len))
    }

    /// Takes bytes of the large argument. Gives how many it used with its end; `None`: all of them, more must come.
    fn gather(&mut self, input: &[u8]) -> Result<Option<usize>, Wrong> {
        let Some(large) = &mut self.large else { return Ok(Some(0)) };
        let mut used = large.take(input);
        while large.bytes.len() == large.len && large.ends < END.len() {
            match input.get(used) {
                Some(byte) if *byte == END[large.ends] => (used, large.ends) = (used + 1, large.ends + 1),
                Some(_) => return Err(Wrong::NoEnd),
                None => return Ok(None),
            }
        }
        if large.ends < END.len() {
            return Ok(None);
        }
        let bytes = self.large.take().map(|large| large.bytes).unwrap_or_default();
        let arg = self.request.keep(bytes.into());
        self.request.args.push(arg);
        (self.left, self.at) = (self.left - 1, 0);
        Ok(Some(used))
    }

    /// Gives the arguments so far memory of their own: their input goes.
    fn own_all(&mut self, input: &[u8]) {
        // Those before the last large one have it already.
        for at in (0..self.request.args.len()).rev() {
            let Arg::Span(from, to) = self.request.args[at] else { break };
            self.request.args[at] = self.request.keep(Bytes::copy_from_slice(&input[from..to]));
        }
    }

    fn inline(&mut self, input: &[u8]) -> Result<Step, Wrong> {
        let Some(end) = input.iter().position(|b| *b == b'\n') else {
            return if input.len() > self.limits.inline { Err(Wrong::Inline) } else { Ok(Step::More(0)) };
        };
        if end > self.limits.inline {
            return Err(Wrong::Inline);
        }
        let line = input[..end].strip_suffix(b"\r").unwrap_or(&input[..end]);
        if inline::is_http(line) {
            return Err(Wrong::Http);
        }
        let words = inline::split(line).ok_or(Wrong::Quotes)?;
        if words.is_empty() {
            return Ok(Step::Nothing(end + 1));
        }
        if words.len() > self.limits.args {
            return Err(Wrong::Count);
        }
        self.begin();
        for word in words {
            let arg = self.request.keep(word);
            self.request.args.push(arg);
        }
        Ok(Step::Command { from: 0, end: end + 1 })
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
