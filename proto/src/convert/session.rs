//! The frames of the session stream.

use super::{Packer, epoch_or_none, id, lease, micros, need, packed_name};
use crate::wire::{self, session_down, session_up};
use dstore_shared::frame::{Down, Hello, Listed, Resumption, Up};
use dstore_shared::limits::SUMMARY_LEN_MAX;
use dstore_shared::{Epoch, Error, HistoryId, Incarnation, LocalId, Prefix, RegSeq, Result, Revision};
use std::ops::RangeInclusive;

/// The newest version of the tier link that this build speaks.
pub(crate) const PROTOCOL_VERSION: u32 = 2;
/// The oldest. While it is the newest too, nothing need be remembered of which one was chosen. Whoever speaks 1 would
/// pass over the type and the time to live of a SET without a word.
const OLDEST_VERSION: u32 = 2;
/// Longest label of a Local in bytes.
const LABEL_BYTES_MAX: usize = 128;

pub(crate) fn up_to(up: Up) -> wire::SessionUp {
    use session_up::Frame;
    let packer = &mut Packer::new(64);
    let (epoch, frame) = match up {
        Up::Hello(hello) => (Epoch::default(), Frame::Hello(hello_to(packer, hello))),
        Up::Keep { epoch, n, acked } => (epoch, Frame::Keep(wire::Keep { n, acked })),
        Up::Ack { epoch, seq } => (epoch, Frame::Ack(wire::Ack { seq })),
        Up::Summary { epoch, batch, names, last } => {
            let names = names.into_iter().map(listed_to).collect();
            (epoch, Frame::Summary(wire::Summary { batch, names, last }))
        }
        Up::Drop { epoch, names } => {
            let dropped = |(name, reg_seq): (dstore_shared::Name, RegSeq)| wire::Dropped {
                name: name.packed(),
                reg_seq: reg_seq.0,
            };
            (epoch, Frame::Drop(wire::DropNames { names: names.into_iter().map(dropped).collect() }))
        }
        Up::Bye { epoch } => (epoch, Frame::Bye(wire::Bye {})),
    };
    wire::SessionUp { epoch: packer.epoch(epoch), frame: Some(frame) }
}

fn hello_to(packer: &mut Packer, hello: Hello) -> wire::Hello {
    wire::Hello {
        version: PROTOCOL_VERSION,
        oldest_version: OLDEST_VERSION,
        local_id: packer.id(hello.local_id.0),
        incarnation: hello.incarnation.0,
        last_epoch: hello.last_epoch.and_then(|e| packer.epoch(e)),
        history: packer.id(hello.history.0),
        applied_rev: hello.applied_rev.0,
        label: hello.label,
        negatives: hello.negatives,
    }
}

fn listed_to(listed: Listed) -> wire::Listed {
    let Listed { name, bind_rev, reg_seq } = listed;
    wire::Listed { name: name.packed(), bind_rev: bind_rev.0, reg_seq: reg_seq.0 }
}

pub(crate) fn up_from(up: wire::SessionUp) -> Result<Up> {
    use session_up::Frame;
    let epoch = epoch_or_none(up.epoch)?;
    let frame = need(up.frame, "frame")?;
    if !matches!(frame, Frame::Hello(_)) && epoch == Epoch::default() {
        return Err(Error::invalid("a session frame has no epoch: say HELLO first"));
    }
    Ok(match frame {
        Frame::Hello(hello) => Up::Hello(hello_from(hello)?),
        Frame::Keep(wire::Keep { n, acked }) => Up::Keep { epoch, n, acked },
        Frame::Ack(wire::Ack { seq }) => Up::Ack { epoch, seq },
        Frame::Summary(summary) => {
            few(summary.names.len(), "SUMMARY")?;
            let names = summary.names.iter().map(listed_from).collect::<Result<_>>()?;
            Up::Summary { epoch, batch: summary.batch, names, last: summary.last }
        }
        Frame::Drop(drop) => {
            few(drop.names.len(), "DROP")?;
            let name = |d: wire::Dropped| Ok((packed_name(&d.name)?, RegSeq(d.reg_seq)));
            Up::Drop { epoch, names: drop.names.into_iter().map(name).collect::<Result<_>>()? }
        }
        Frame::Bye(wire::Bye {}) => Up::Bye { epoch },
    })
}

fn hello_from(hello: wire::Hello) -> Result<Hello> {
    let theirs = if hello.oldest_version == 0 { hello.version } else { hello.oldest_version }..=hello.version;
    spoken(&theirs)?;
    if hello.label.len() > LABEL_BYTES_MAX {
        let n = hello.label.len();
        return Err(Error::invalid(format!("the label has `{n}` bytes: use at most {LABEL_BYTES_MAX}")));
    }
    Ok(Hello {
        local_id: LocalId(id(&hello.local_id, "local_id")?),
        incarnation: Incarnation(hello.incarnation),
        last_epoch: hello.last_epoch.map(Epoch::try_from).transpose()?,
        history: HistoryId(id(&hello.history, "history")?),
        applied_rev: Revision(hello.applied_rev),
        label: hello.label,
        negatives: hello.negatives,
    })
}

/// The newest version that both sides speak.
fn spoken(theirs: &RangeInclusive<u32>) -> Result<u32> {
    let newest = PROTOCOL_VERSION.min(*theirs.end());
    if newest >= OLDEST_VERSION && theirs.contains(&newest) {
        return Ok(newest);
    }
    let (from, to) = theirs.clone().into_inner();
    Err(Error::invalid(format!(
        "the other side speaks versions `{from}` to `{to}` of the protocol and this one `{OLDEST_VERSION}` to \
         `{PROTOCOL_VERSION}`: run releases of dstore that are closer to each other"
    )))
}

fn listed_from(listed: &wire::Listed) -> Result<Listed> {
    Ok(Listed {
        name: packed_name(&listed.name)?,
        bind_rev: Revision(listed.bind_rev),
        reg_seq: RegSeq(listed.reg_seq),
    })
}

fn few(n: usize, frame: &str) -> Result<()> {
    if n > SUMMARY_LEN_MAX {
        return Err(Error::too_large(format!("a {frame} has `{n}` names: send at most {SUMMARY_LEN_MAX}")));
    }
    Ok(())
}

pub(crate) fn down_to(down: Down) -> wire::SessionDown {
    use session_down::Frame;
    let packer = &mut Packer::new(64);
    let epoch = packer.epoch(down.epoch());
    let frame = match down {
        Down::Welcome { epoch: _, head, resumption, lease, born, list, loss } => {
            Frame::Welcome(wire::Welcome {
                head: head.0,
                resumption: match resumption {
                    Resumption::Resume => wire::Resumption::Resume,
                    Resumption::Compacted => wire::Resumption::Compacted,
                    Resumption::NewHistory => wire::Resumption::NewHistory,
                }
                .into(),
                lease_us: micros(lease),
                born: Some(packer.born(born)),
                version: PROTOCOL_VERSION,
                list,
                loss_ms: loss.map_or(0, super::millis_up),
            })
        }
        Down::Inv { epoch: _, seq, name, upto } => {
            Frame::Inv(wire::Inv { seq, name: name.packed(), upto: upto.0 })
        }
        Down::Resync { epoch: _, seq, upto } => Frame::Resync(wire::Resync { seq, upto: upto.0 }),
        Down::InvPrefix { epoch: _, seq, prefix, upto } => {
            Frame::InvPrefix(wire::InvPrefix { seq, prefix: prefix.packed(), upto: upto.0 })
        }
        Down::Lease { epoch: _, n, lease, through, born } => Frame::Lease(wire::Lease {
            n,
            lease_us: micros(lease),
            through: through.0,
            born: Some(packer.born(born)),
        }),
        Down::Summarized { epoch: _, batch, refused } => {
            Frame::Summarized(wire::Summarized { batch, refused })
        }
        Down::Retire { epoch: _ } => Frame::Retire(wire::Retire {}),
    };
    wire::SessionDown { epoch, frame: Some(frame) }
}

pub(crate) fn down_from(down: wire::SessionDown) -> Result<Down> {
    use session_down::Frame;
    let epoch = need(down.epoch, "epoch")?.try_into()?;
    Ok(match need(down.frame, "frame")? {
        Frame::Welcome(welcome) => {
            let version = welcome.version.max(1);
            spoken(&(version..=version))?;
            Down::Welcome {
                epoch,
                head: Revision(welcome.head),
                resumption: match welcome.resumption() {
                    wire::Resumption::Resume => Resumption::Resume,
                    wire::Resumption::Compacted => Resumption::Compacted,
                    wire::Resumption::NewHistory => Resumption::NewHistory,
                    wire::Resumption::Unspecified => {
                        return Err(Error::invalid("WELCOME has no resumption: set it"));
                    }
                },
                lease: lease(welcome.lease_us)?,
                born: need(welcome.born, "born")?.try_into()?,
                list: welcome.list,
                loss: super::bound_from(welcome.loss_ms),
            }
        }
        Frame::Inv(inv) => {
            Down::Inv { epoch, seq: inv.seq, name: packed_name(&inv.name)?, upto: Revision(inv.upto) }
        }
        Frame::Resync(resync) => Down::Resync { epoch, seq: resync.seq, upto: Revision(resync.upto) },
        Frame::InvPrefix(inv) => {
            let (prefix, upto) = (Prefix::from_packed(&inv.prefix)?, Revision(inv.upto));
            Down::InvPrefix { epoch, seq: inv.seq, prefix, upto }
        }
        Frame::Lease(given) => Down::Lease {
            epoch,
            n: given.n,
            lease: lease(given.lease_us)?,
            through: Revision(given.through),
            born: need(given.born, "born")?.try_into()?,
        },
        Frame::Summarized(answer) => {
            few(answer.refused.len(), "SUMMARIZED")?;
            Down::Summarized { epoch, batch: answer.batch, refused: answer.refused }
        }
        Frame::Retire(wire::Retire {}) => Down::Retire { epoch },
    })
}
