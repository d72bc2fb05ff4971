//! HTTP/1.1 as a caller writes and reads it, byte by byte: nothing of a library, so that nothing is put right on the way.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// For what must come.
const SOON: Duration = Duration::from_secs(60);

/// A connection.
pub struct Http {
    stream: BufReader<TcpStream>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// By their names in small letters.
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The body as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// The end of the problem's type, after checking that it is a problem as RFC 9457 has it.
    pub fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let document = self.json();
        assert_eq!(document["status"], self.status, "{self:?}");
        assert!(document["title"].is_string() && document["detail"].is_string(), "{self:?}");
        let kind = document["type"].as_str().expect("a type");
        kind.strip_prefix("urn:dstore:problem:").expect("one of ours").to_owned()
    }
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(SOON, what).await.expect("in time")
}

impl Http {
    pub async fn to(at: &str) -> Self {
        let stream = soon(TcpStream::connect(at)).await.expect("connected");
        Self { stream: BufReader::new(stream) }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        soon(self.stream.get_mut().write_all(bytes)).await.expect("sent");
    }

    /// One call without more than it is given.
    pub async fn call(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        if !body.is_empty() || method == "PUT" || method == "POST" {
            write!(head, "Content-Length: {}\r\n", body.len()).expect("a string takes it");
        }
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").expect("a string takes it");
        }
        self.send(&[head.as_bytes(), b"\r\n", body].concat()).await;
        self.answer(method == "HEAD").await
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.call("GET", path, &[], b"").await
    }

    pub async fn put(&mut self, path: &str, body: &[u8]) -> Answer {
        self.call("PUT", path, &[], body).await
    }

    pub async fn delete(&mut self, path: &str) -> Answer {
        self.call("DELETE", path, &[], b"").await
    }

    /// A line without its end.
    pub async fn line(&mut self) -> String {
        let mut line = String::new();
        soon(self.stream.read_line(&mut line)).await.expect("read");
        assert!(line.ends_with('\n'), "the connection ended after {line:?}");
        line.trim_end_matches(['\r', '\n']).to_owned()
    }

    /// Status and headers.
    pub async fn head(&mut self) -> (u16, BTreeMap<String, String>) {
        let status = self.line().await;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line().await;
            let Some((name, value)) = line.split_once(':') else { break };
            let before = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            assert_eq!(before, None, "`{name}` comes twice");
        }
        (status.expect("a status"), headers)
    }

    /// The next answer; `bare`: to a HEAD.
    pub async fn answer(&mut self, bare: bool) -> Answer {
        let (status, headers) = self.head().await;
        let mut answer = Answer { status, headers, body: Vec::new() };
        if bare || matches!(status, 100..200 | 204 | 304) {
            return answer;
        }
        if answer.header("transfer-encoding") == "chunked" {
            loop {
                let piece = self.chunk().await;
                if piece.is_empty() {
                    return answer;
                }
                answer.body.extend(piece);
            }
        }
        let len: usize = answer.header("content-length").parse().expect("a length");
        answer.body.resize(len, 0);
        soon(self.stream.read_exact(&mut answer.body)).await.expect("the whole");
        answer
    }

    /// A chunk of a chunked body; empty: the last.
    pub async fn chunk(&mut self) -> Vec<u8> {
        let len = usize::from_str_radix(&self.line().await, 16).expect("the length of a chunk");
        let mut piece = vec![0; len];
        soon(self.stream.read_exact(&mut piece)).await.expect("the chunk");
        assert_eq!(self.line().await, "");
        piece
    }

    /// Reads until the other side ends the connection; what came.
    pub async fn rest(mut self) -> Vec<u8> {
        let mut all = Vec::new();
        _ = soon(self.stream.read_to_end(&mut all)).await;
        all
    }

    /// Ends the connection without a word.
    pub fn cut(self) {
        let stream = self.stream.into_inner();
        _ = stream.set_zero_linger();
        drop(stream);
    }
}
