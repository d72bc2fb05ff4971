//! Owns what a command asks to be done before the values in it are hashed: that may take long, and a loop must not wait.

use bytes::Bytes;
use dstore_shared::{Blob, Expiry, Name, Payload, Step, When};

/// A step whose value may not be hashed yet.
#[derive(Clone, Debug)]
pub enum Draft {
    /// Without a value.
    Step(Step),
    /// With one.
    Set {
        /// Of what.
        name: Name,
        /// To what.
        value: Bytes,
        /// When it is done.
        when: When,
        /// For how long.
        expiry: Expiry,
    },
}

impl From<Step> for Draft {
    fn from(step: Step) -> Self {
        Self::Step(step)
    }
}

impl Draft {
    /// The bytes that are to be hashed.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Step(_) => 0,
            Self::Set { value, .. } => value.len(),
        }
    }

    /// Hashes the value.
    pub fn into_step(self) -> Step {
        match self {
            Self::Step(step) => step,
            Self::Set { name, value, when, expiry } => {
                Step::Set { name, value: Payload::carrying(Blob::hash(value)), when, expiry }
            }
        }
    }

    /// The names in it.
    pub fn names(&self) -> Vec<Name> {
        match self {
            Self::Step(step) => step.names().cloned().collect(),
            Self::Set { name, .. } => vec![name.clone()],
        }
    }
}
