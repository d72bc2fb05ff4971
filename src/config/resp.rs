//! How Redis clients are served, checked.

use super::resolve::{Settings, only_this_machine};
use super::{Listen, RespSettings, socket};
use crate::cli::args::RespFlags;
use dstore_local::Database;
use dstore_shared::{Namespace, Result};
use dstore_sys::net::Address;

/// More threads than any machine needs.
const THREADS_MAX: usize = 64;
/// Databases that SELECT may choose, as in Redis.
const DATABASES_MAX: usize = 16;

impl Settings<'_> {
    pub(super) fn resp(&self, flags: RespFlags, insecure: bool) -> Result<RespSettings> {
        let mut resp = RespSettings::default();
        if let Some(given) = self.given("local", "resp", flags.resp) {
            let is_off = given.checked(|text| Ok(text == "off"))?;
            resp.listen = None;
            if !is_off {
                let address = given.read::<Address>()?;
                only_this_machine(&address, self.yes("local", "insecure", insecure)?)?;
                resp.listen = Some(Listen { address, is_default: false });
            }
        }
        if let Some(given) = self.given("local", "resp-socket", flags.resp_socket) {
            resp.socket = Some(given.checked(|text| socket::within_limit(text.into()))?);
        }
        if let Some(given) = self.given("local", "resp-threads", flags.resp_threads) {
            resp.threads = Some(given.checked(|text| match text.parse() {
                Ok(threads @ 1..=THREADS_MAX) => Ok(threads),
                _ => Err(format!("`{text}` is no number of threads: write 1 to {THREADS_MAX}")),
            })?);
        }
        if let Some(given) = self.given("local", "resp-databases", flags.resp_databases) {
            resp.databases = given.checked(databases)?;
        }
        let text = |key| match self.given("local", key, None::<String>) {
            Some(given) => given.checked(|text| Ok(text.to_owned())).map(Some),
            None => Ok(None),
        };
        resp.password = text("resp-password")?.filter(|password| !password.is_empty());
        resp.server = text("resp-server")?;
        resp.version = text("resp-version")?;
        Ok(resp)
    }
}

/// Namespaces with commas between; one with `:replace` after it is created in replace mode.
fn databases(text: &str) -> std::result::Result<Vec<Database>, String> {
    let one = |text: &str| {
        let (name, replace) = text.strip_suffix(":replace").map_or((text, false), |name| (name, true));
        let namespace = Namespace::new(name.to_owned()).map_err(|e| e.message().to_owned())?;
        if replace && namespace == Namespace::default() {
            return Err(format!("`{text}`: `{namespace}` is write-once"));
        }
        Ok(Database { namespace, replace })
    };
    let names = text.split(',').map(one).collect::<std::result::Result<Vec<_>, _>>()?;
    if names.len() > DATABASES_MAX {
        return Err(format!("`{}` namespaces: write at most {DATABASES_MAX}", names.len()));
    }
    Ok(names)
}
