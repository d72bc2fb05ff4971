//! Walks over names: KEYS, SCAN, DBSIZE, RANDOMKEY. Global's view, or, if the connection asked for it, this Local's.

use super::{Answered, Call, Done, NOT_INTEGER, Reply, Run, SYNTAX, TOO_LONG, replied};
use crate::front::resp::door::Door;
use crate::front::resp::gathered::Gathered;
use crate::front::resp::glob::{self, Pattern};
use bytes::Bytes;
use dstore_proto::store::{ListQuery, Store};
use dstore_shared::limits::{KEY_BYTES_MAX, LIST_NAMES_MAX};
use dstore_shared::{Key, Namespace, Result};
use std::sync::Arc;
use std::task::Poll;

/// Bytes of keys that one KEYS may answer, each with what it costs to hold it.
const KEYS_BYTES_MAX: usize = 64 << 20;
/// What a key costs beside its bytes.
const KEY_OVERHEAD: usize = 64;
/// Pages that one SCAN looks at before it answers, also with nothing.
const SCAN_PAGES: usize = 4;

/// Comparisons of bytes after which the others have a turn: some milliseconds.
const COST_MAX: usize = 4 << 20;

/// A walk over the keys of a namespace that fit a pattern.
struct Walk {
    namespace: Namespace,
    prefix: Bytes,
    pattern: Pattern,
    local: bool,
}

impl Walk {
    fn new(call: &Call<'_>, pattern: &[u8]) -> std::result::Result<Self, Reply> {
        let read = Pattern::new(pattern).ok_or(TOO_LONG)?;
        let mut prefix = glob::prefix(pattern);
        prefix.truncate(KEY_BYTES_MAX);
        let namespace = call.client.namespace.clone();
        Ok(Self { namespace, prefix: prefix.into(), pattern: read, local: call.client.local_view })
    }

    /// A page: the keys that fit, and after which to go on; `None` = that was the end.
    async fn page(&self, door: &Door, after: Option<Key>, limit: usize) -> Result<(Vec<Bytes>, Option<Key>)> {
        let limit = limit.clamp(1, LIST_NAMES_MAX);
        if self.local {
            if after.is_some() {
                let_others().await;
            }
            let (keys, next) = door.node.held_keys(&self.namespace, after.as_ref());
            let keys = keys.into_iter().map(Key::into_bytes);
            return Ok((self.fitting(keys).await, next));
        }
        let query =
            ListQuery { namespace: self.namespace.clone(), prefix: self.prefix.clone(), after, limit };
        let listing = door.node.list(query).await?;
        let keys = listing.names.into_iter().map(|(key, _)| key.into_bytes());
        Ok((self.fitting(keys).await, listing.next))
    }

    /// Those that fit; the loop's other connections have a turn now and then.
    async fn fitting(&self, keys: impl Iterator<Item = Bytes>) -> Vec<Bytes> {
        let (mut fitting, mut cost) = (Vec::new(), 0_usize);
        for key in keys {
            cost += self.pattern.cost(key.len());
            if key.starts_with(&self.prefix) && self.pattern.fits(&key) {
                fitting.push(key);
            }
            if cost > COST_MAX {
                cost = 0;
                let_others().await;
            }
        }
        fitting
    }
}

/// Lets the other connections of the loop have a turn: what this Local holds is walked without waiting for anybody.
async fn let_others() {
    let mut had = false;
    let turn = std::future::poll_fn(|context| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    });
    turn.await;
}

/// KEYS pattern
pub const KEYS: Run = Run::Only(|call| {
    call.started()?;
    let walk = Walk::new(call, call.args.get(1))?;
    let door = call.door.clone();
    Ok(Done::later(async move { replied(all(&door, &walk).await) }))
});

async fn all(door: &Door, walk: &Walk) -> Result<Reply> {
    let (mut keys, mut gathered, mut after) = (Vec::new(), Gathered::new(door), None);
    loop {
        let (page, next) = walk.page(door, after, LIST_NAMES_MAX).await?;
        let bytes = page.iter().map(|key| key.len() + KEY_OVERHEAD).sum();
        gathered.take(bytes, KEYS_BYTES_MAX, "use SCAN")?;
        keys.extend(page.into_iter().map(Reply::Bulk));
        match next {
            Some(next) => after = Some(next),
            None => return Ok(Reply::Array(keys)),
        }
    }
}

/// SCAN cursor [MATCH pattern] [COUNT n] [TYPE t]
pub const SCAN: Run = Run::Only(|call| {
    call.started()?;
    let cursor = std::str::from_utf8(call.args.get(1)).ok().and_then(|text| text.parse::<u64>().ok());
    let cursor = cursor.ok_or(Reply::error("ERR invalid cursor"))?;
    let (mut pattern, mut limit, mut strings) = (&b"*"[..], 10, true);
    for at in (2..call.args.len()).step_by(2) {
        if at + 1 == call.args.len() {
            return Err(SYNTAX);
        }
        match () {
            () if call.args.is(at, "match") => pattern = call.args.get(at + 1),
            () if call.args.is(at, "count") => {
                limit = usize::try_from(call.number(at + 1)?).map_err(|_| SYNTAX)?;
                if limit == 0 {
                    return Err(SYNTAX);
                }
            }
            () if call.args.is(at, "type") => strings = call.args.is(at + 1, "string"),
            () => return Err(SYNTAX),
        }
    }
    let after = if cursor == 0 { None } else { Some(call.door.cursors.find(cursor).ok_or_else(lost)?) };
    let walk = Walk::new(call, pattern)?;
    let door = call.door.clone();
    Ok(Done::later(async move { replied(some(&door, &walk, after, limit, strings).await) }))
});

fn lost() -> Reply {
    Reply::err("invalid cursor: it is forgotten, or another Local's; begin again with 0")
}

async fn some(
    door: &Door,
    walk: &Walk,
    mut after: Option<Key>,
    limit: usize,
    strings: bool,
) -> Result<Reply> {
    let mut keys = Vec::new();
    for _ in 0..SCAN_PAGES {
        let (page, next) = walk.page(door, after, limit).await?;
        keys.extend(page.into_iter().filter(|_| strings).map(Reply::Bulk));
        after = next;
        if after.is_none() || keys.len() >= limit {
            break;
        }
    }
    let cursor = after.map_or(0, |after| door.cursors.keep(after));
    Ok(Reply::Array(vec![Reply::text(cursor.to_string()), Reply::Array(keys)]))
}

/// DBSIZE
pub const DBSIZE: Run = Run::Only(|call| {
    call.started()?;
    let walk = Walk::new(call, b"*")?;
    let door = call.door.clone();
    Ok(Done::later(async move { replied(count(&door, &walk).await) }))
});

async fn count(door: &Arc<Door>, walk: &Walk) -> Result<Reply> {
    let (mut n, mut after) = (0, None);
    loop {
        let (page, next) = walk.page(door, after, LIST_NAMES_MAX).await?;
        n += page.len();
        match next {
            Some(next) => after = Some(next),
            None => return Ok(Reply::count(n)),
        }
    }
}

/// RANDOMKEY
pub const RANDOMKEY: Run = Run::Only(|call| {
    call.started()?;
    let walk = Walk::new(call, b"*")?;
    let door = call.door.clone();
    Ok(Done::later(async move { replied(any(&door, &walk).await) }))
});

/// The first key after a random place, or the first of all. Keys are not equally likely.
async fn any(door: &Door, walk: &Walk) -> Result<Reply> {
    let dice = door.rng.next_u64();
    let place = Key::new(dice.to_be_bytes().to_vec())?;
    let (mut keys, _) = walk.page(door, Some(place), 16).await?;
    if keys.is_empty() {
        keys = walk.page(door, None, LIST_NAMES_MAX).await?.0;
    }
    if keys.is_empty() {
        return Ok(Reply::Nil);
    }
    Ok(Reply::Bulk(keys.swap_remove(dice as usize % keys.len())))
}

/// A word that is a count.
pub fn count_of(call: &Call<'_>, at: usize) -> Answered<usize> {
    usize::try_from(call.number(at)?).map_err(|_| NOT_INTEGER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::{Context, Waker};

    #[test]
    fn keys_that_are_long_to_compare_let_the_others_have_turns() {
        let pattern = Pattern::new(&b"*a".repeat(500)).expect("short enough");
        let namespace = Namespace::new("default").expect("valid");
        let walk = Walk { namespace, prefix: Bytes::new(), pattern, local: false };
        let key = Bytes::from(vec![b'b'; 1000]);
        let mut fitting = std::pin::pin!(walk.fitting(std::iter::repeat_n(key, 50)));
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = 0;
        while fitting.as_mut().poll(&mut context).is_pending() {
            turns += 1;
        }
        assert!((5..50).contains(&turns), "{turns}");
    }

    #[test]
    fn a_walk_lets_the_others_have_a_turn_and_goes_on() {
        let mut turn = std::pin::pin!(let_others());
        let mut context = Context::from_waker(Waker::noop());
        assert!(turn.as_mut().poll(&mut context).is_pending());
        assert!(turn.as_mut().poll(&mut context).is_ready());
    }
}
