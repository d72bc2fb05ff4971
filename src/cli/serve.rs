//! Starts and stops the servers: the one place that knows how `dstore-global` and `dstore-local` start.

use super::attach::answers;
use super::client::{self, converse};
use super::screen;
use super::service::Service;
use super::signals::Signals;
use super::sys;
use crate::admin::{Admin, AdminPort, Tiers};
use crate::config::{GlobalSettings, LocalSettings, Node, RespSettings, ScriptSettings, check_folder};
use dstore_global::{Global, GlobalConfig};
use dstore_local::repl::{Mode, exit};
use dstore_local::{Listen, Local, LocalConfig, RespConfig, ShmConfig};
use dstore_shared::{Error, Kind};
use dstore_sys::Sys;
use dstore_sys::net::{Address, MemoryNet};
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How long a server may take to stop before the process ends anyhow.
const STOP_DEADLINE: Duration = Duration::from_secs(30);
/// How long calls of the admin port may hold up the end.
const ADMIN_STOP_MAX: Duration = Duration::from_millis(200);
/// How long a prompt may wait for the Local's first session.
const SESSION_SOON: Duration = Duration::from_millis(250);

/// `dstore global`.
pub async fn global(settings: GlobalSettings) -> u8 {
    let (sys, drain_timeout) = (sys(), settings.drain_timeout);
    let admin = match AdminPort::bind(&sys, settings.admin.as_ref()).await {
        Ok(admin) => admin,
        Err(e) => return refused_start(&e),
    };
    let global = match Global::start(sys.clone(), global_config(settings)).await {
        Ok(global) => global,
        Err(e) => return refused_start(&e),
    };
    let tiers = Tiers { global: Some(global.reporter()), local: None };
    let admin = admin.map(|port| port.open(&sys, tiers.clone()));
    let ended = ended_by_signal();
    for address in global.addresses() {
        screen::tell(&format!("Dstore server listening on {address}"));
    }
    tell_admin(admin.as_ref());
    let service = Service::ready(tiers);
    let code = tokio::select! {
        () = ended => exit::OK,
        () = failed(&global, drain_timeout) => exit::SOFTWARE,
    };
    let service = service.stopping();
    // The admin port goes last: until then it says that this is ending.
    stop(stop_global(global)).await;
    service.end().await;
    close_admin(admin).await;
    code
}

/// Where the admin port is.
fn tell_admin(admin: Option<&Admin>) {
    if let Some(admin) = admin {
        screen::tell(&format!("Dstore admin listening on {}", url(admin.address())));
    }
}

async fn close_admin(admin: Option<Admin>) {
    if let Some(admin) = admin {
        // Whoever asks just now need not be waited for.
        let _ = tokio::time::timeout(ADMIN_STOP_MAX, admin.stop()).await;
    }
}

/// `dstore local`.
pub async fn local(settings: LocalSettings, repl: bool, mode: Mode) -> u8 {
    let sys = sys();
    let admin = match AdminPort::bind(&sys, settings.admin.as_ref()).await {
        Ok(admin) => admin,
        Err(e) => return refused_start(&e),
    };
    let local = match Local::start(sys.clone(), local_config(settings)).await {
        Ok(local) => local,
        Err(e) => return refused_start(&e),
    };
    let tiers = Tiers { global: None, local: Some(local.reporter()) };
    let admin = admin.map(|port| port.open(&sys, tiers.clone()));
    let addresses = local.addresses();
    let mut telling = None;
    let code = if repl {
        match local.ready(SESSION_SOON).await {
            Err(e) if e.kind() == Kind::Invalid => refused_start(&e),
            _ => {
                let address = addresses.first().map_or_else(|| "none".into(), Address::to_string);
                let node = Arc::new(local.node().clone());
                Box::pin(converse(&sys, node, address, ScriptSettings::default(), mode)).await
            }
        }
    } else {
        let ended = ended_by_signal();
        for address in &addresses {
            screen::tell(&format!("Dstore local listening on {address}"));
        }
        for address in local.resp_addresses() {
            screen::tell(&format!("Dstore RESP listening on {address}"));
        }
        if let Some(address) = local.http_address() {
            screen::tell(&format!("Dstore HTTP listening on {}", url(address)));
        }
        if let Some(address) = local.shm_address() {
            screen::tell(&format!("Dstore SHM listening on {address}"));
        }
        tell_admin(admin.as_ref());
        let service = Service::ready(tiers);
        let code = tokio::select! {
            () = ended => exit::OK,
            why = local.refused() => refused_start(&why),
        };
        telling = Some(service.stopping());
        code
    };
    stop(local.stop()).await;
    if let Some(telling) = telling {
        telling.end().await;
    }
    close_admin(admin).await;
    code
}

/// `dstore` alone: both tiers and a conversation; or a conversation with the one that is there already.
pub async fn solo(
    global: GlobalSettings,
    mut local: LocalSettings,
    script: ScriptSettings,
    mode: Mode,
) -> u8 {
    local.socket = local.socket.filter(|socket| is_usable(socket));
    let socket = local.socket.clone().map(Address::Unix);
    let sys = Sys { net: Arc::new(MemoryNet::default()), ..sys() };
    if let Some(socket) = &socket
        && answers(&sys, socket).await
    {
        return Box::pin(client::repl(Node::At(socket.clone()), script, mode)).await;
    }
    if let Some(e) = local.socket.as_deref().and_then(|socket| make_folder(socket).err()) {
        return refused_start(&e);
    }
    // Somebody else may have been quicker in a folder that all can write to.
    local.socket = local.socket.filter(|socket| is_usable(socket));
    let admin = match AdminPort::bind(&sys, local.admin.as_ref()).await {
        Ok(admin) => admin,
        Err(e) => return refused_start(&e),
    };
    local.shm = local.shm.filter(|shm| !shm.is_default || local.socket.is_some());
    let drain_timeout = global.drain_timeout;
    let global = match Global::start(sys.clone(), global_config(global)).await {
        Ok(global) => global,
        // Another `dstore` may have started here at the same moment, and be ready in a moment.
        Err(e) => match socket {
            Some(socket) if answers_soon(&sys, &socket).await => {
                return Box::pin(client::repl(Node::At(socket), script, mode)).await;
            }
            _ => return refused_start(&e),
        },
    };
    let local = match Local::start(sys.clone(), local_config(local)).await {
        Ok(local) => local,
        Err(e) => {
            stop(stop_global(global)).await;
            return refused_start(&e);
        }
    };
    let tiers = Tiers { global: Some(global.reporter()), local: Some(local.reporter()) };
    let admin = admin.map(|port| port.open(&sys, tiers));
    // So that the first GET is kept; a session takes milliseconds, and without one everything works too.
    let _ = local.ready(SESSION_SOON).await;
    for address in local.addresses() {
        if matches!(address, Address::Tcp(_)) {
            screen::say(&format!("listening on {address}"));
        }
    }
    for address in local.resp_addresses() {
        screen::say(&format!("listening for RESP on {address}"));
    }
    if let Some(address) = local.http_address() {
        screen::say(&format!("listening for HTTP on {}", url(address)));
    }
    if let Some(admin) = &admin {
        screen::say(&format!("listening for admin on {}", url(admin.address())));
    }
    let code = tokio::select! {
        code = converse(&sys, Arc::new(local.node().clone()), "solo".into(), script, mode) => code,
        () = failed(&global, drain_timeout) => exit::SOFTWARE,
    };
    let stopping = async {
        local.stop().await;
        stop_global(global).await;
    };
    stop(stopping).await;
    close_admin(admin).await;
    code
}

fn global_config(settings: GlobalSettings) -> GlobalConfig {
    GlobalConfig {
        listen: vec![settings.listen],
        engine: settings.engine,
        sync: settings.sync,
        lease: settings.lease,
        drain_timeout: settings.drain_timeout,
        min_free: settings.min_free,
        ..GlobalConfig::new(settings.data)
    }
}

fn local_config(settings: LocalSettings) -> LocalConfig {
    let tcp = settings.listen.map(|listen| Listen { address: listen.address, or_any: listen.is_default });
    let socket = settings.socket.map(|path| Listen { address: Address::Unix(path), or_any: false });
    LocalConfig {
        listen: tcp.into_iter().chain(socket).collect(),
        http: settings.http.map(|address| Listen { address, or_any: false }),
        http_hosts: settings.http_hosts,
        cache_bytes: settings.cache_bytes,
        scrub_per_mille: settings.scrub_per_mille,
        negatives: settings.negatives,
        audits_a_minute: settings.audits_a_minute,
        label: format!("process {}", std::process::id()),
        resp: resp_config(settings.resp),
        shm: settings.shm.map(|shm| ShmConfig { is_default: shm.is_default, ..ShmConfig::new(shm.socket) }),
        ..LocalConfig::new(settings.global)
    }
}

fn resp_config(settings: RespSettings) -> RespConfig {
    let default = RespConfig::default();
    let tcp = settings.listen.map(|listen| Listen { address: listen.address, or_any: listen.is_default });
    let socket = settings.socket.map(|path| Listen { address: Address::Unix(path), or_any: false });
    RespConfig {
        listen: tcp.into_iter().chain(socket).collect(),
        threads: settings.threads.unwrap_or(default.threads),
        databases: settings.databases,
        password: settings.password,
        server: settings.server.unwrap_or(default.server),
        version: settings.version.unwrap_or(default.version),
        ..RespConfig::default()
    }
}

/// An address as whoever speaks HTTP writes it.
fn url(address: &Address) -> String {
    match address {
        Address::Tcp(host_port) => format!("http://{host_port}"),
        other => other.to_string(),
    }
}

/// Stops Global, telling why if leases are outstanding: the next start waits for them.
async fn stop_global(global: Global) {
    if let Err(e) = global.stop().await {
        screen::say(&format!("dstore: {}", e.message()));
    }
}

/// Ends when the store cannot write any more and has been read for `drain_timeout` since.
async fn failed(global: &Global, drain_timeout: Duration) {
    global.failed().await;
    screen::say(&format!("dstore: the disk failed, nothing can be stored: ending in {drain_timeout:?}"));
    tokio::time::sleep(drain_timeout).await;
}

async fn answers_soon(sys: &Sys, socket: &Address) -> bool {
    for _ in 0..20 {
        if answers(sys, socket).await {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    false
}

/// Ends at the next signal that asks the process to end, counted from this call on.
fn ended_by_signal() -> impl Future<Output = ()> {
    let signals = Signals::listen();
    async {
        match signals {
            Ok(mut signals) => signals.end().await,
            Err(e) => _ = screen::complain(&e, exit::SOFTWARE),
        }
    }
}

/// Waits for `stopping`; another signal, or too long a time, ends the process without it.
async fn stop(stopping: impl Future<Output = ()>) {
    tokio::select! {
        () = stopping => {}
        () = ended_by_signal() => screen::say("dstore: ended at once: what was acknowledged is on disk"),
        () = tokio::time::sleep(STOP_DEADLINE) => screen::say("dstore: ended without waiting any longer"),
    }
}

/// What keeps a server from starting is the operator's to correct, unless the data are damaged or the disk full.
fn refused_start(error: &Error) -> u8 {
    let code = match error.kind() {
        Kind::Corrupt | Kind::Exhausted | Kind::Denied | Kind::Internal => exit::of(error.kind()),
        _ => exit::USAGE,
    };
    screen::complain(error, code)
}

/// Whether a socket can be trusted to be this user's. Says so if not: without one everything else works.
fn is_usable(socket: &Path) -> bool {
    check_folder(socket)
        .inspect_err(|why| screen::say(&format!("dstore: no other process can attach: {why}: remove it")))
        .is_ok()
}

/// Makes the folder of a socket, for this user only.
fn make_folder(socket: &Path) -> Result<(), Error> {
    let Some(folder) = socket.parent() else { return Ok(()) };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|e| {
        Error::invalid(format!("the folder `{}` cannot be made, {e}: correct `--data`", folder.display()))
    })
}
