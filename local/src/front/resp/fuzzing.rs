//! What fuzzing asks of the RESP door: functions of bytes.

use super::config::RespConfig;
use super::harness::{Harness, after_reply};
use super::parse::{Limits, Parser, Step, Wrong};
use dstore_shared::{Error, Result};

/// Commands; however they are cut they are read alike, and what is read is written and reads back.
///
/// # Errors
/// `Invalid` for what is refused.
///
/// # Panics
/// If something does not hold.
pub fn resp_commands(bytes: &[u8]) -> Result<()> {
    let whole = read(bytes, usize::MAX);
    for size in [1, 7] {
        assert_eq!(read(bytes, size), whole, "cut into pieces of {size}");
    }
    let (commands, refused) = whole;
    let written: Vec<u8> = commands.iter().flat_map(|command| written(command)).collect();
    assert_eq!(read(&written, usize::MAX), (commands, None), "what is written reads back");
    refused.map_or(Ok(()), |wrong| Err(Error::invalid(format!("refused: {wrong}"))))
}

type Commands = Vec<Vec<Vec<u8>>>;

fn read(bytes: &[u8], size: usize) -> (Commands, Option<Wrong>) {
    let (mut parser, mut commands, mut input) = (Parser::new(Limits::OPEN), Vec::new(), Vec::new());
    for piece in bytes.chunks(size.min(bytes.len()).max(1)) {
        input.extend_from_slice(piece);
        loop {
            let used = match parser.next(&input) {
                Ok(Step::Command { from, end }) => {
                    commands.push(parser.args(&input[from..]).from(0).map(<[u8]>::to_vec).collect());
                    parser.forget();
                    end
                }
                Ok(Step::Nothing(used)) => used,
                Ok(Step::More(used)) => {
                    input.drain(..used);
                    assert!(parser.held() <= bytes.len() + (2 << 20), "`{}` bytes are held", parser.held());
                    break;
                }
                Err(wrong) => return (commands, Some(wrong)),
            };
            input.drain(..used);
        }
    }
    (commands, None)
}

fn written(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

thread_local! {
    static HARNESS: Harness = Harness::new(RespConfig::default(), true);
}

/// What a client says to a node without a Global: every answer is one that clients can read, and no more than one for
/// each command but where several are due.
///
/// # Errors
/// `Invalid` for what ends the connection.
///
/// # Panics
/// If something does not hold.
pub fn resp_session(bytes: &[u8]) -> Result<()> {
    HARNESS.with(|harness| {
        let mut talk = harness.talk();
        let said = talk.say(bytes);
        let mut rest = &said[..];
        while !rest.is_empty() {
            rest = after_reply(rest).unwrap_or_else(|| panic!("no reply: {}", rest.escape_ascii()));
        }
        if talk.is_closing() { Err(Error::invalid("the connection ends")) } else { Ok(()) }
    })
}
