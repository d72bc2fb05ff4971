//! The answer to a batch, written result by result.
//!
//! Invariant: beside what each step tells without its value, which is less than 8 KiB, no more than
//! [`ANSWER_BYTES_MAX`] bytes are written: a value counts as it stands in JSON, where a byte may take six.

use super::Checked;
use crate::front::http::json;
use crate::front::http::problem::Problem;
use axum::http::StatusCode;
use axum::response::Response;
use dstore_shared::limits::FRAME_BYTES_MAX;
use dstore_shared::{Entry, Error, Revision};
use serde_json::{Map, Value, json};

/// Bytes after which no value is written any more.
pub(super) const ANSWER_BYTES_MAX: usize = FRAME_BYTES_MAX;

/// What was written of an answer.
#[derive(Default)]
pub(super) struct Answer {
    /// Results, with commas between them.
    text: Vec<u8>,
}

impl Answer {
    /// Whether a value of `size` bytes may fit: worth to be fetched.
    pub fn may_take(&self, size: u64) -> bool {
        (self.text.len() as u64).saturating_add(size) <= ANSWER_BYTES_MAX as u64
    }

    /// A value that was read; if it does not fit, what it is.
    pub fn value(&mut self, step: &Checked, entry: &Entry, value: &[u8]) {
        if self.text.len() + json::written_len(value) > ANSWER_BYTES_MAX {
            return self.full(step, entry);
        }
        let mut fields = of_entry(step, StatusCode::OK, entry);
        json::put_bytes(&mut fields, "value", value);
        self.push(fields);
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
        self.push(fields);
    }

    /// What a name is bound to.
    pub fn entry(&mut self, step: &Checked, status: StatusCode, entry: &Entry) {
        self.push(of_entry(step, status, entry));
    }

    /// A name that was unbound, or was bound to nothing.
    pub fn deleted(&mut self, step: &Checked, removed: bool, revision: Revision) {
        if !removed {
            return self.failed(step, &Problem::not_found("the key is bound to nothing"));
        }
        let mut fields = told(step, StatusCode::NO_CONTENT);
        fields.insert("revision".into(), revision.0.into());
        self.push(fields);
    }

    /// A step that was not done.
    pub fn failed(&mut self, step: &Checked, problem: &Problem) {
        let mut fields = told(step, problem.status());
        fields.insert("problem".into(), json!(problem.document()));
        self.push(fields);
    }

    fn push(&mut self, fields: Map<String, Value>) {
        if !self.text.is_empty() {
            self.text.push(b',');
        }
        serde_json::to_writer(&mut self.text, &Value::Object(fields)).expect("memory takes what is written");
    }

    /// All of it; `revision`: of which all steps were together.
    pub fn response(self, revision: Option<Revision>) -> Response {
        let mut all = Vec::with_capacity(self.text.len() + 64);
        all.extend_from_slice(b"{\"results\":[");
        all.extend_from_slice(&self.text);
        all.push(b']');
        if let Some(revision) = revision {
            all.extend_from_slice(format!(",\"revision\":{revision}").as_bytes());
        }
        all.push(b'}');
        json::written(all)
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
        let (step, mut answer) = (step(&[1; 1024]), Answer::default());
        let value = vec![1; 300_000];
        let entry = Entry::new(BlobHash::of(&value), 300_000, Revision(1));
        // Three would fit as they are kept; as they are written none does.
        assert!(answer.may_take(3 * entry.size));
        for _ in 0..256 {
            answer.value(&step, &entry, &value);
        }
        assert!(answer.text.len() < 256 * (8 << 10), "{}", answer.text.len());
        let all: Value = serde_json::from_slice(&[b"[", &answer.text[..], b"]"].concat()).expect("JSON");
        assert_eq!((&all[0]["status"], &all[0]["size"]), (&json!(413), &json!(300_000)));
        assert!(all[0].get("value").is_none());
    }

    #[test]
    fn values_fit_until_the_answer_is_as_long_as_it_may_be() {
        let (step, mut answer) = (step(b"k"), Answer::default());
        let value = vec![b'x'; 100_000];
        let entry = Entry::new(BlobHash::of(&value), 100_000, Revision(1));
        for _ in 0..20 {
            answer.value(&step, &entry, &value);
        }
        let all: Value = serde_json::from_slice(&[b"[", &answer.text[..], b"]"].concat()).expect("JSON");
        let fit = all.as_array().expect("results").iter().filter(|one| one["status"] == 200).count();
        assert_eq!(fit, 10, "ten of 100,000 bytes fit 1 MiB");
        assert!(answer.text.len() < ANSWER_BYTES_MAX + 20 * 1024, "{}", answer.text.len());
        answer.value(&step, &entry, b"there is still room for a short one");
        assert!(answer.text.ends_with(br#"short one"}"#));
    }
}
