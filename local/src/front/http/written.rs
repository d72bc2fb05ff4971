//! An answer of JSON that grows name by name or result by result, and the room that it has, until its last byte has been
//! taken.

use super::json;
use crate::rooms::Room;
use axum::response::Response;
use serde_json::{Map, Value};

/// What was written so far.
pub(super) struct Written {
    text: Vec<u8>,
    begun: usize,
    room: Room,
}

impl Written {
    /// Begins with `head`. `room` is for all that is to come but what is joined to it.
    pub fn begin(head: &str, room: Room) -> Self {
        Self { text: head.into(), begun: head.len(), room }
    }

    /// Bytes so far.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// Has more room.
    pub fn join(&mut self, more: Room) {
        self.room.join(more);
    }

    /// One more of a list.
    pub fn push(&mut self, fields: Map<String, Value>) {
        if self.text.len() > self.begun {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &Value::Object(fields)).expect("memory takes what is written");
    }

    /// Ends with `tail`. What the text does not need of the room is given back, and the rest with its last byte.
    pub fn end(self, tail: &str) -> Response {
        let Self { mut text, mut room, .. } = self;
        text.extend_from_slice(tail.as_bytes());
        text.shrink_to_fit();
        room.shrink_to(text.len() as u64);
        json::written(room.hold(text))
    }

    #[cfg(test)]
    pub fn text(&self) -> &[u8] {
        &self.text[self.begun..]
    }
}
