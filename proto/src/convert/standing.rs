//! What a tier tells of itself, on the wire.

use super::{Packer, millis_up, need};
use crate::store::{Attached, Drained, Hop, LOCALS_TOLD_MAX, Locals, Tier, Why};
use crate::wire;
use bytes::Bytes;
use dstore_shared::{Error, Result, Revision};
use std::time::Duration;

/// Steps that one answer may tell: more is no read.
const HOPS_MAX: usize = 100;

impl From<Locals> for wire::LocalsResponse {
    fn from(locals: Locals) -> Self {
        let local = |local: Attached| wire::AttachedLocal {
            label: local.label,
            id: Bytes::copy_from_slice(&local.id.to_be_bytes()),
            lease_left_ms: millis_up(local.lease_left),
            behind: local.behind,
            wildcard: local.wildcard,
            slow: local.slow,
            holds: local.holds,
        };
        Self { locals: locals.told.into_iter().map(local).collect(), count: locals.count, loss_ms: 0 }
    }
}

impl TryFrom<wire::LocalsResponse> for Locals {
    type Error = Error;

    fn try_from(response: wire::LocalsResponse) -> Result<Self> {
        if response.locals.len() > LOCALS_TOLD_MAX {
            return Err(Error::too_large("the answer has more Locals than one may tell"));
        }
        let local = |local: wire::AttachedLocal| {
            let id: [u8; 16] =
                local.id.as_ref().try_into().map_err(|_| Error::invalid("the id of a Local has 16 bytes"))?;
            Ok(Attached {
                label: local.label,
                id: u128::from_be_bytes(id),
                lease_left: Duration::from_millis(local.lease_left_ms),
                behind: local.behind,
                wildcard: local.wildcard,
                slow: local.slow,
                holds: local.holds,
            })
        };
        let told = response.locals.into_iter().map(local).collect::<Result<_>>()?;
        Ok(Self { told, count: response.count })
    }
}

impl From<Why> for wire::WhyResponse {
    fn from(why: Why) -> Self {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let hop = |hop: Hop| wire::Hop {
            tier: wire::Tier::from(hop.tier).into(),
            step: hop.step,
            took_ns: nanos(hop.took),
            told: hop.told,
        };
        let drained = |drained: Drained| wire::Drained {
            revision: drained.revision.0,
            ago_ms: millis_up(drained.ago),
            waited_us: nanos(drained.waited) / 1000,
            for_whom: drained.for_whom,
        };
        Self {
            entry: why.entry.as_ref().map(|entry| Packer::new(32).entry(entry)),
            hops: why.hops.into_iter().map(hop).collect(),
            drained: why.drained.map(drained),
            loss_ms: 0,
        }
    }
}

impl TryFrom<wire::WhyResponse> for Why {
    type Error = Error;

    fn try_from(response: wire::WhyResponse) -> Result<Self> {
        if response.hops.len() > HOPS_MAX {
            return Err(Error::too_large("the answer has more steps than a read has"));
        }
        let hop = |hop: wire::Hop| {
            let tier: Tier = hop.tier().try_into()?;
            Ok(Hop { tier, step: hop.step, took: Duration::from_nanos(hop.took_ns), told: hop.told })
        };
        let drained = |drained: wire::Drained| Drained {
            revision: Revision(drained.revision),
            ago: Duration::from_millis(drained.ago_ms),
            waited: Duration::from_micros(drained.waited_us),
            for_whom: drained.for_whom,
        };
        Ok(Self {
            entry: response.entry.map(TryInto::try_into).transpose()?,
            hops: response.hops.into_iter().map(hop).collect::<Result<_>>()?,
            drained: response.drained.map(drained),
        })
    }
}

/// Whether each of so many names was done to.
pub(crate) fn held_from(response: wire::HeldResponse, asked: usize) -> Result<Vec<bool>> {
    let done = response.done;
    if done.len() == asked {
        Ok(done)
    } else {
        Err(Error::internal("the answer is of other names than were asked about"))
    }
}

/// The name of a call that must have one.
pub(crate) fn name_from(name: Option<wire::Name>) -> Result<dstore_shared::Name> {
    need(name, "name")?.try_into()
}
