//! What the promises of `docs/GUARANTEES.md` mean for what clients and watchers saw, a file each.
//!
//! Each judge gets the whole evidence of a run and gives what is wrong, as text. None may look into the product:
//! what a client cannot notice is the affair of the machines' own tests.

pub mod g1_deletes;
pub mod g2_expiry;
mod g2_hints;
pub mod g2_one_order;
pub mod g2_watches;
pub mod g3_durable;
pub mod g4_bounded;
pub mod g5_leases;
pub mod g6_said;
pub mod g7_memory;

use crate::cluster::Trouble;
use crate::history::Watched;
use crate::linear::{Call, Value};
use crate::plan::Plan;
use std::collections::BTreeMap;

/// All that was seen of a run.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// What it was made from.
    pub plan: &'a Plan,
    /// What clients did and were told, in the order in which they began.
    pub calls: Vec<Call>,
    /// What each watcher was told.
    pub watches: BTreeMap<String, Vec<Watched>>,
    /// Times in which somebody was not served as usual.
    pub troubles: Vec<Trouble>,
    /// What each Local read at the end.
    pub looked: BTreeMap<usize, Vec<Option<Value>>>,
}

/// What is wrong.
pub fn judge(evidence: &Evidence<'_>) -> Vec<String> {
    let judges: [fn(&Evidence<'_>) -> Vec<String>; 8] = [
        g1_deletes::judge,
        g2_one_order::judge,
        g2_watches::judge,
        g2_expiry::judge,
        g3_durable::judge,
        g4_bounded::judge,
        g5_leases::judge,
        g6_said::judge,
    ];
    judges.iter().flat_map(|judge| judge(evidence)).collect()
}

/// The host at which a call was answered: that of the client, unless it says another.
pub(crate) fn host_of(by: &str) -> &str {
    match by.split_once('@') {
        Some((_, host)) => host,
        None => by.split_once('/').map_or(by, |(host, _)| host),
    }
}
