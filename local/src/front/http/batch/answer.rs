//! The answer to a batch, written result by result.
//!
//! Invariant: beside what each step tells without its value, which is less than 8 KiB, no more than
//! [`ANSWER_BYTES_MAX`] bytes are written: a value counts as it stands in JSON, where a byte may take six. There is room
//! for what steps tell without values before any is done, so that what was done is told.

use super::Checked;
use crate::front::http::problem::Problem;
use crate::front::http::written::Written;
use crate::front::http::{json, no_room};
use crate::rooms::{Room, Rooms};
use axum::http::StatusCode;
use axum::response::Response;
use dstore_shared::limits::FRAME_BYTES_MAX;
use dstore_shared::{Entry, Error, Result, Revision};
use serde_json::{Map, Value, json};

/// Bytes after which no value is written any more.
pub(super) const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// What a step tells at most beside its key and its value: a namespace, an entry or a problem.
const TOLD_BYTES: usize = 3 << 10;
/// A value is in memory as it was read, as it is put in JSON, and twice while the text grows.
const COPIES: u64 = 4;

/// What was written of an answer.
pub(super) struct Answer {
    written: Written,
    rooms: Rooms,
}

impl Answer {
    /// An answer to `steps`, which may tell all of them but their values.
    ///
    /// # Errors
    /// `Exhausted` if there is no room for that.
    pub fn to(steps: &[Checked], rooms: &Rooms) -> Result<Self> {
        let told = |step: &Checked| json::written_len(step.name.key().as_bytes()) + TOLD_BYTES;
        let bytes = 2 * steps.iter().map(told).sum::<usize>() as u64;
        let room = rooms.try_take(bytes).ok_or_else(no_room)?;
        Ok(Self { written: Written::begin("{\"results\":[", room), rooms: rooms.clone() })
    }

    /// Bytes that values may still take.
    pub fn left(&self) -> u64 {
        ANSWER_BYTES_MAX.saturating_sub(self.written.len()) as u64
    }

    /// Whether a value of `size` bytes may fit: worth to be fetched.
    pub fn may_take(&self, size: u64) -> bool {
        size <= self.left()
    }

    /// Room for a value of `size` bytes while it is looked at.
    ///
    /// # Errors
    /// `Exhausted`.
    pub fn room(&self, size: u64) -> Result<Room> {
        self.rooms.try_take(size).ok_or_else(no_room)
    }

    /// A value that was read; if it does not fit, what it is.
    pub fn value(&mut self, step: &Checked, entry: &Entry, value: &[u8]) {
        let bytes = json::written_len(value);
        if self.written.len() + bytes > ANSWER_BYTES_MAX {
            return self.full(step, entry);
        }
        match self.rooms.try_take(COPIES * bytes as u64) {
            Some(room) => self.written.join(room),
            None => return self.failed(step, &no_room().into()),
        }
        let mut fields = of_entry(step, StatusCode::OK, entry);
        json::put_bytes(&mut fields, "value", value);
        self.written.push(fields);
    }

    /// A value that does not fit.
    pub fn full(&mut self, step: &Checked, entry: &Entry) {
        let text = format!(
            "the values of a batch have at most {ANSWER_BYTES_MAX} bytes together, as they stand in its answer: read \
             this one by itself"
        );
        let problem = Problem::from(Error::too_large(text));
        let mut fields = of_entry(step, problem.status(), entry);
        fields.insert("problem".into(), json!(problem.document()));
        self.written.push(fields);
    }

    /// What a name is bound to.
    pub fn entry(&mut self, step: &Checked, status: StatusCode, entry: &Entry) {
        self.written.push(of_entry(step, status, entry));
    }

    /// A name that was unbound, or was bound to nothing.
    pub fn deleted(&mut self, step: &Checked, removed: bool, revision: Revision) {
        if !removed {
            return self.failed(step, &Problem::not_found("the key is bound to nothing"));
        }
        let mut fields = told(step, StatusCode::NO_CONTENT);
        fields.insert("revision".into(), revision.0.into());
        self.written.push(fields);
    }

    /// A step that was not done.
    pub fn failed(&mut self, step: &Checked, problem: &Problem) {
        let mut fields = told(step, problem.status());
        fields.insert("problem".into(), json!(problem.document()));
        self.written.push(fields);
    }

    /// All of it; `revision`: of which all steps were together.
    pub fn response(self, revision: Option<Revision>) -> Response {
        let revision = revision.map(|revision| format!(",\"revision\":{revision}"));
        self.written.end(&format!("]{}}}", revision.unwrap_or_default()))
    }
}

fn told(step: &Checked, status: StatusCode) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("status".into(), status.as_u16().into());
    fields.insert("namespace".into(), step.name.namespace().as_str().into());
    json::put_bytes(&mut fields, "key", step.name.key().as_bytes());
    fields
}

fn of_entry(step: &Checked, status: StatusCode, entry: &Entry) -> Map<String, Value> {
    let mut fields = told(step, status);
    json::put_entry(&mut fields, entry);
    fields
}

#[cfg(test)]
mod tests {
    use super::super::Op;
    use super::*;
    use bytes::Bytes;
    use dstore_shared::{Attributes, BlobHash, Key, Name, Namespace};

    fn step(key: &'static [u8]) -> Checked {
        let name = Name::new(&Namespace::default(), &Key::new(key).expect("valid"));
        Checked {
            op: Op::Get,
            name,
            value: Bytes::new(),
            attributes: Attributes::default(),
            if_revision: None,
        }
    }

    #[test]
    fn values_that_grow_in_json_are_bounded_as_they_are_written() {
        let steps = vec![step(&[1; 1024]); 256];
        let mut answer = Answer::to(&steps, &Rooms::new(1 << 30)).expect("there is room");
        let value = vec![1; 300_000];
        let entry = Entry::new(BlobHash::of(&value), 300_000, Revision(1));
        // Three would fit as they are kept; as they are written none does.
        assert!(answer.may_take(3 * entry.size));
        for _ in 0..256 {
            answer.value(&steps[0], &entry, &value);
        }
        assert!(answer.written.text().len() < 256 * (8 << 10), "{}", answer.written.text().len());
        let all: Value = serde_json::from_slice(&[b"[", answer.written.text(), b"]"].concat()).expect("JSON");
        assert_eq!((&all[0]["status"], &all[0]["size"]), (&json!(413), &json!(300_000)));
        assert!(all[0].get("value").is_none());
    }

    #[test]
    fn values_fit_until_the_answer_is_as_long_as_it_may_be() {
        let steps = vec![step(b"k"); 21];
        let mut answer = Answer::to(&steps, &Rooms::new(1 << 30)).expect("there is room");
        let value = vec![b'x'; 100_000];
        let entry = Entry::new(BlobHash::of(&value), 100_000, Revision(1));
        for _ in 0..20 {
            answer.value(&steps[0], &entry, &value);
        }
        let all: Value = serde_json::from_slice(&[b"[", answer.written.text(), b"]"].concat()).expect("JSON");
        let fit = all.as_array().expect("results").iter().filter(|one| one["status"] == 200).count();
        assert_eq!(fit, 10, "ten of 100,000 bytes fit 1 MiB");
        assert!(
            answer.written.text().len() < ANSWER_BYTES_MAX + 20 * 1024,
            "{}",
            answer.written.text().len()
        );
        answer.value(&steps[0], &entry, b"there is still room for a short one");
        assert!(answer.written.text().ends_with(br#"short one"}"#));
    }

    #[test]
    fn a_value_for_which_there_is_no_room_is_told_to_come_again_and_the_others_are_given() {
        let (steps, value) = (vec![step(b"k"); 3], vec![b'x'; 1000]);
        let entry = Entry::new(BlobHash::of(&value), 1000, Revision(1));
        let told = 2 * 3 * (3 + TOLD_BYTES as u64);
        assert!(Answer::to(&steps, &Rooms::new(told - 1)).is_err(), "nothing is begun that cannot be told");
        let rooms = Rooms::new(told + 2 * COPIES * 1002);
        let mut answer = Answer::to(&steps, &rooms).expect("there is room");
        steps.iter().for_each(|step| answer.value(step, &entry, &value));
        let all: Value = serde_json::from_slice(&[b"[", answer.written.text(), b"]"].concat()).expect("JSON");
        let told = |i: usize| (all[i]["status"].clone(), all[i]["problem"]["retry_after_ms"].clone());
        assert_eq!(
            [0, 1, 2].map(told),
            [(json!(200), json!(null)), (json!(200), json!(null)), (json!(429), json!(1000))]
        );
        drop(answer.response(None));
        assert_eq!(rooms.taken().0, 0, "all of it is given back");
    }
}
