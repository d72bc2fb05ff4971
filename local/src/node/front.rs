//! What doors within the process ask of a node, beside what every tier offers: the hit path itself, without a future.

use super::Node;
use crate::cache::{Cursor, Hit, Left};
use crate::core::Core;
use dstore_shared::{Key, Name, Namespace};
use std::sync::Arc;

/// Slots of the cache that one page of [`Node::held_keys`] looks at.
const SLOTS: usize = 1024;

impl Node {
    /// What the node's parts share.
    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// As [`Node::hit`], by the packed name, with all that is held.
    #[inline]
    pub(crate) fn hit_packed(&self, name: &[u8]) -> Option<Hit> {
        self.core.hit(name)
    }

    /// Whether names are served under a lease now.
    pub(crate) fn is_serving(&self) -> bool {
        self.core.is_serving()
    }

    /// Whether Global was ever reached.
    pub(crate) fn knows_global(&self) -> bool {
        self.core.born().is_some()
    }

    /// Some of the keys that this node holds, in no order, and the place to go on at, if that was not all.
    pub(crate) fn held_keys(&self, namespace: &Namespace, from: Option<&Key>) -> (Vec<Key>, Option<Key>) {
        let place = from.and_then(|key| Some(usize::from_be_bytes(key.as_bytes().try_into().ok()?)));
        let (names, next) = self.core.cache.held_names(Cursor::at(place.unwrap_or(0)), SLOTS);
        let keys = names.into_iter().filter(|name| name.namespace() == *namespace).map(|name| name.key());
        let next = next.and_then(|next| Key::new(next.place().to_be_bytes().to_vec()).ok());
        (keys.collect(), next)
    }

    /// Lets this node forget a name; Global is told that it is not held here any more. Whether it was held.
    pub(crate) fn forget(&self, name: &Name) -> bool {
        self.core.forget(name)
    }

    /// Whether somebody wants to know which names leave the cache.
    pub(crate) fn want_gone(&self, wanted: bool) {
        self.core.cache.want_gone(wanted);
    }

    /// Tells `told` of names that left the cache, before Global is told that they did. Only the first who asks.
    pub(crate) fn tell_gone_to(&self, told: Arc<dyn Fn(Left) + Send + Sync>) {
        let _ = self.core.gone_to.set(told);
    }
}
