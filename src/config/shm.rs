//! Where workers get at shared memory, checked.

use super::resolve::Settings;
use super::{ShmSettings, socket};
use crate::cli::args::ShmFlags;
use dstore_shared::Result;
use std::path::Path;

/// Added to the path of a node's socket, it is the default: clients look there.
const BESIDE: &str = ".shm";

impl Settings<'_> {
    /// For a node that listens at `beside`, if it listens at a Unix socket.
    pub(super) fn shm(&self, flags: ShmFlags, beside: Option<&Path>) -> Result<Option<ShmSettings>> {
        if let Some(given) = self.given("local", "shm", flags.shm) {
            if given.checked(|text| Ok(text == "off"))? {
                return Ok(None);
            }
            let socket = given.checked(|text| socket::within_limit(text.into()))?;
            return Ok(Some(ShmSettings { socket, is_default: false }));
        }
        let beside = beside.and_then(|path| {
            let mut path = path.to_owned().into_os_string();
            path.push(BESIDE);
            socket::within_limit(path.into()).ok()
        });
        Ok(beside.map(|socket| ShmSettings { socket, is_default: true }))
    }
}
