//! Names that nobody changes any more: each must stay as it was last, whatever is killed.
//!
//! Invariants: at most [`BOUND_MAX`] bound names and [`UNBOUND_MAX`] others are kept, those that came last; one that
//! is changed here is read by nobody meanwhile, and left alone if the outcome is unknown.

use crate::told::Told;
use dstore_client::Client;
use dstore_shared::{BlobHash, Error, Name};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tokio::sync::RwLock;

/// Names that are bound and stay so.
const BOUND_MAX: usize = 2000;
/// Names that are not, and stay so.
const UNBOUND_MAX: usize = 4000;

/// What is on it.
#[derive(Debug, Default)]
pub struct Shelf {
    bound: Mutex<VecDeque<Arc<Kept>>>,
    unbound: Mutex<VecDeque<Arc<Kept>>>,
}

/// A name, and what it is bound to, if anybody knows.
#[derive(Debug)]
#[expect(clippy::option_option, reason = "nobody knows, or what it is bound to if to anything")]
pub struct Kept {
    name: Name,
    is: RwLock<Option<Option<BlobHash>>>,
}

impl Shelf {
    /// Keeps a name. Gives one that has to be unbound for it, if there are too many.
    pub fn keep(&self, name: Name, is: Option<BlobHash>) -> Option<Arc<Kept>> {
        let kept = Arc::new(Kept { name, is: RwLock::new(Some(is)) });
        if is.is_none() {
            self.keep_unbound(kept);
            return None;
        }
        let mut bound = self.bound.lock().expect("nobody panics with it");
        bound.push_back(kept);
        if bound.len() > BOUND_MAX { bound.pop_front() } else { None }
    }

    fn keep_unbound(&self, kept: Arc<Kept>) {
        let mut unbound = self.unbound.lock().expect("nobody panics with it");
        unbound.push_back(kept);
        if unbound.len() > UNBOUND_MAX {
            unbound.pop_front();
        }
    }

    /// One of them, as `draw` falls.
    pub fn any(&self, draw: u64) -> Option<Arc<Kept>> {
        let of = if draw & 1 == 0 { &self.bound } else { &self.unbound };
        let of = of.lock().expect("nobody panics with it");
        let at = (draw >> 1) as usize % of.len().max(1);
        of.get(at).cloned()
    }

    /// All of them.
    pub fn all(&self) -> Vec<Arc<Kept>> {
        let of = |of: &Mutex<VecDeque<Arc<Kept>>>| of.lock().expect("nobody panics with it").clone();
        of(&self.bound).into_iter().chain(of(&self.unbound)).collect()
    }

    /// Unbinds a name that has been on it for long, and keeps it as an unbound one.
    pub async fn unbind(&self, kept: Arc<Kept>, client: &Client, told: &Told) {
        let mut is = kept.is.write().await;
        match client.delete(std::slice::from_ref(&kept.name)).await {
            Ok(reply) => {
                if is.is_some() && reply.removed != [true] {
                    told.accuse(format!("{:?} was unbound already, though nobody unbound it", kept.name));
                }
                *is = Some(None);
                drop(is);
                self.keep_unbound(kept);
            }
            Err(_) => *is = None,
        }
    }
}

impl Kept {
    /// Reads it, and accuses if it is not as it was.
    ///
    /// # Errors
    /// If it was not answered.
    pub async fn check(&self, client: &Client, by: &str, told: &Told) -> Result<(), Error> {
        let is = self.is.read().await;
        let Some(expected) = *is else { return Ok(()) };
        let found = client.get(&self.name).await?;
        let found = found.map(|value| (value.entry.hash, BlobHash::of(&value.bytes)));
        if found != expected.map(|hash| (hash, hash)) {
            let name = &self.name;
            told.accuse(format!(
                "{by}: {name:?} was left as {expected:?} and is found as {found:?} (hash told, hash of the bytes)"
            ));
        }
        told.count("shelf");
        Ok(())
    }

    /// The key, and what it is bound to if that is known.
    pub async fn state(&self) -> (Name, Option<Option<BlobHash>>) {
        (self.name.clone(), *self.is.read().await)
    }
}
