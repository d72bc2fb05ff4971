//! A client of the RESP door that speaks bytes over a Unix socket, and Locals that have such a door.

use crate::rig::{Global, Local, SOON, until};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

pub const DOOR: &[&str] = &["--resp-socket", "resp.sock"];

/// A connection that speaks bytes.
pub struct Talk {
    pub stream: UnixStream,
    pub unread: Vec<u8>,
}

impl Talk {
    pub fn to(local: &Local) -> Self {
        let stream = UnixStream::connect(local.folder().join("resp.sock")).expect("the door is open");
        stream.set_read_timeout(Some(SOON)).expect("set");
        stream.set_write_timeout(Some(SOON)).expect("set");
        Self { stream, unread: Vec::new() }
    }

    pub fn send(&mut self, words: &[&[u8]]) {
        self.stream.write_all(&command(words)).expect("written");
    }

    /// One line, without its end.
    pub fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|two| two == b"\r\n") {
                let line = self.unread[..end].to_vec();
                self.unread.drain(..end + 2);
                return line;
            }
            self.more();
        }
    }

    pub fn more(&mut self) {
        let mut bytes = vec![0; 65_536];
        let n = self.stream.read(&mut bytes).expect("an answer in time");
        assert!(n > 0, "the connection ended: {}", self.unread.escape_ascii());
        self.unread.extend_from_slice(&bytes[..n]);
    }

    /// One reply as text: of arrays their parts in brackets.
    pub fn reply(&mut self) -> String {
        let line = self.line();
        let text = String::from_utf8_lossy(&line).into_owned();
        let number = || text[1..].parse::<i64>().expect("a length");
        match line[0] {
            b'$' if number() < 0 => "nil".into(),
            b'$' | b'=' => {
                let len = number() as usize;
                while self.unread.len() < len + 2 {
                    self.more();
                }
                let value = String::from_utf8_lossy(&self.unread[..len]).into_owned();
                self.unread.drain(..len + 2);
                value
            }
            b'_' => "nil".into(),
            b'*' | b'~' | b'>' | b'%' if number() < 0 => "none".into(),
            b'*' | b'~' | b'>' | b'%' => {
                let n = number() as usize * if line[0] == b'%' { 2 } else { 1 };
                let parts: Vec<String> = (0..n).map(|_| self.reply()).collect();
                format!("{}[{}]", if line[0] == b'>' { ">" } else { "" }, parts.join(" "))
            }
            b':' | b'+' => text[1..].to_owned(),
            _ => text,
        }
    }

    pub fn ask(&mut self, line: &str) -> String {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        self.send(&words);
        self.reply()
    }

    /// Whether the other side ends it, without another word.
    pub fn ends(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.stream.read_to_end(&mut rest) {
            Ok(_) => self.unread.is_empty() && rest.is_empty(),
            Err(e) => e.kind() == ErrorKind::ConnectionReset,
        }
    }
}

/// A command as clients write it.
pub fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// One Global and two Locals with a door each.
pub async fn two() -> (Global, Local, Local) {
    let global = Global::start(&[]);
    let a = Local::start_with(&global, DOOR).await;
    let b = Local::start_with(&global, DOOR).await;
    (global, a, b)
}

/// In the namespace in replace mode, once it is there.
pub async fn replacing(local: &Local) -> Talk {
    let mut talk = Talk::to(local);
    assert_eq!(talk.ask("SELECT 1"), "OK");
    until("the namespace is there", async || talk.ask("EXISTS k").parse::<u32>().is_ok()).await;
    talk
}
