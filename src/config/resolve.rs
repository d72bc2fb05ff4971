//! Makes a [`Config`] of what was typed, what the environment says and what the file says.

use super::file::File;
use super::socket::Elsewhere;
use super::{
    Action, CheckSettings, Config, Existing, GLOBAL_ADMIN_ADDRESS, GlobalSettings, LOCAL_ADMIN_ADDRESS,
    Listen, LocalSettings, NamespaceVerb, Node, OutFile, SOLO_GLOBAL, ScriptSettings, Source, TreeSettings,
    socket, units,
};
use crate::cli::args::{
    AdminFlag, CommandLine, ConfigVerb, HttpFlags, NodeFlag, NsVerb, PartFlags, ScriptFlags, Solo,
    StoreFlags, Verb,
};
use clap::Parser;
use dstore_global::{EngineKind, SyncLevel};
use dstore_local::repl::{Command, Get, Given as Value, How, Mode, What, request_from, stale_wait, time};
use dstore_proto::store::Slice;
use dstore_shared::{
    Attributes, ContentType, DeleteMode, Error, Key, Namespace, NamespaceSpec, Result, check_ttl,
};
use dstore_sys::net::Address;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// Leases shorter than this are renewed more than they serve; longer ones delay a DEL beyond the promise.
const LEASE_RANGE: std::ops::RangeInclusive<Duration> = Duration::from_millis(50)..=Duration::from_secs(10);
/// A cache below this holds nothing; the smallest value with its bookkeeping fits some times.
const CACHE_BYTES_MIN: u64 = 64 << 10;

/// More audits a minute than tell anything new.
const AUDITS_MAX: u32 = 60_000;

/// What surrounds the process: its environment and how files are read.
pub struct Surroundings<'a> {
    /// A variable of the environment.
    pub env: &'a dyn Fn(&str) -> Option<OsString>,
    /// The text of a file.
    pub read: &'a dyn Fn(&std::path::Path) -> std::io::Result<String>,
}

impl fmt::Debug for Surroundings<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

/// Checks everything that was asked for.
///
/// # Errors
/// `Invalid`, or `TooLarge` for a key, naming the flag, variable or line and what to write.
#[expect(clippy::too_many_lines, reason = "one arm a verb")]
pub fn resolve(line: CommandLine, around: &Surroundings<'_>) -> Result<Config> {
    let file = config_path(&line, around);
    let settings = Settings { around, file: read_file(file.as_deref(), around)? };
    let mode = if line.json { Mode::Json } else { Mode::Text };
    if let (Some(_), Some(flag)) = (&line.verb, line.solo.given()) {
        return Err(Error::invalid(format!(
            "`{flag}` belongs to solo mode: write it after the verb, if it has it"
        )));
    }
    let (action, mode) = match line.verb {
        None => (settings.solo(line.solo)?, mode),
        Some(Verb::Global { listen, store, admin, insecure }) => {
            let mut global = settings.store(store)?;
            if let Some(given) = settings.given("global", "listen", listen) {
                global.listen = given.read::<Address>()?;
            }
            let insecure = settings.yes("global", "insecure", insecure)?;
            only_this_machine(&global.listen, insecure)?;
            global.admin = settings.admin("global", admin, insecure, GLOBAL_ADMIN_ADDRESS)?;
            (Action::Global(global), mode)
        }
        Some(Verb::Local {
            global,
            listen,
            socket,
            http,
            cache_bytes,
            scrub,
            negatives,
            audits,
            resp,
            admin,
            shm,
            insecure,
            repl,
        }) => {
            let mut local = settings.local(listen, http, cache_bytes, insecure)?;
            local.resp = settings.resp(resp, insecure)?;
            let insecure = settings.yes("local", "insecure", insecure)?;
            local.admin = settings.admin("local", admin, insecure, LOCAL_ADMIN_ADDRESS)?;
            if let Some(given) = settings.given("local", "audits", audits) {
                local.audits_a_minute = given.checked(|text| match text.parse() {
                    Ok(audits @ 0..=AUDITS_MAX) => Ok(audits),
                    _ => Err(format!("`{text}` is no number of audits a minute: write 0 to {AUDITS_MAX}")),
                })?;
            }
            local.negatives = settings.yes("local", "negatives", negatives)?;
            if let Some(given) = settings.given("local", "global", global) {
                local.global = given.read::<Address>()?;
            }
            if let Some(given) = settings.given("local", "scrub", scrub) {
                local.scrub_per_mille = given.checked(|text| match text.parse() {
                    Ok(per_mille @ 0..=1000) => Ok(per_mille),
                    _ => Err(format!("`{text}` is no share of a core: write 0 to 1000")),
                })?;
            }
            if let Some(given) = settings.given("local", "socket", socket) {
                local.socket = Some(given.checked(|text| socket::within_limit(text.into()))?);
            }
            local.shm = settings.shm(shm, local.socket.as_deref())?;
            (Action::Local { local, repl }, mode)
        }
        Some(Verb::Repl { node, script }) => {
            (Action::Repl { node: settings.node(node)?, script: script.into() }, mode)
        }
        Some(Verb::Get { key, part, stale_ok, node }) => {
            let raw = if line.json { Mode::Json } else { Mode::Raw };
            (settings.read(key, part, stale_ok, node, line.json)?, raw)
        }
        Some(Verb::Set { key, value, ttl, content_type, node }) => {
            (settings.stored(key, value, attributes(ttl, content_type)?, node)?, mode)
        }
        Some(Verb::Del { prefix: Some(prefix), yes, node, .. }) => {
            let prefix = prefix.into_vec().into();
            (settings.one_shot(node, Command::DeletePrefix { prefix, sure: yes })?, mode)
        }
        Some(Verb::Del { keys, asynchronous, deadline, request, node, .. }) => {
            let how = how(asynchronous, deadline, request)?;
            (settings.one_shot(node, Command::Delete { keys: keys_of(keys)?, how })?, mode)
        }
        Some(Verb::Watch { prefix, from, count, node }) => {
            let prefix = prefix.into_vec().into();
            (settings.one_shot(node, Command::Watch { prefix, after: from, count })?, mode)
        }
        Some(Verb::Copy { from, to, node }) => {
            (settings.one_shot(node, Command::Copy { from: key_of(from)?, to: key_of(to)? })?, mode)
        }
        Some(Verb::Rename { from, to, node }) => {
            (settings.one_shot(node, Command::Rename { from: key_of(from)?, to: key_of(to)? })?, mode)
        }
        Some(Verb::Check { data, deep, min_free, salvage }) => {
            // The engine is not asked for: the directory says it.
            let store = StoreFlags { data, min_free, ..StoreFlags::default() };
            let GlobalSettings { data, min_free, .. } = settings.store(store)?;
            (Action::Check(CheckSettings { data, deep, min_free, salvage }), mode)
        }
        Some(Verb::Ns { verb }) => {
            let (node, what) = namespaces(verb)?;
            (Action::Namespaces { node: settings.node(node)?, what }, mode)
        }
        Some(Verb::Import { dir, prefix, node }) => {
            let what = TreeSettings::Import { dir, prefix: prefix.into_vec().into() };
            (Action::Tree { node: settings.node(node)?, what }, mode)
        }
        Some(Verb::Export { prefix, dir, overwrite, node }) => {
            let what = TreeSettings::Export { prefix: prefix.into_vec().into(), dir, overwrite };
            (Action::Tree { node: settings.node(node)?, what }, mode)
        }
        Some(Verb::Look(look)) => {
            let (node, command) = look.command()?;
            (settings.one_shot(node, command)?, mode)
        }
        Some(Verb::Completions { shell }) => (Action::Completions(shell), mode),
        Some(Verb::Man { dir }) => (Action::Manual(dir), mode),
        Some(Verb::Config { verb }) => (settings.configuration(verb, line.config)?, mode),
        Some(Verb::Status { node }) => (settings.one_shot(node, Command::Status)?, mode),
    };
    let (log, log_format, log_source) = settings.logs(&action, file)?;
    Ok(Config { action, mode, log, log_format, log_source })
}

fn keys_of(typed: Vec<OsString>) -> Result<Vec<Key>> {
    typed.into_iter().map(key_of).collect()
}

/// What is said of a value besides its bytes.
fn attributes(ttl: Option<String>, content_type: Option<String>) -> Result<Attributes> {
    let ttl = ttl.map(|ttl| time(ttl.as_bytes())).transpose()?;
    let content_type = content_type.map(|words| ContentType::new(&words)).transpose()?;
    let attributes = Attributes { content_type, ttl };
    attributes.check().map(|()| attributes)
}

fn namespaces(verb: NsVerb) -> Result<(NodeFlag, NamespaceVerb)> {
    let named = |name: String| Namespace::new(name);
    Ok(match verb {
        NsVerb::Create { name, mode, ttl, node } => {
            let wrong = |flag: &str, why: String| Error::invalid(format!("`{flag}`: {why}"));
            let mode = mode.parse().map_err(|why| wrong("--mode", why))?;
            let ttl = ttl.map(|text| units::duration(&text)).transpose();
            let ttl = ttl.map_err(|why| wrong("--ttl", why))?;
            ttl.map_or(Ok(()), check_ttl)?;
            (node, NamespaceVerb::Create(named(name)?, NamespaceSpec { mode, ttl }))
        }
        NsVerb::Ls { node } => (node, NamespaceVerb::List),
        NsVerb::Stat { name, node } => (node, NamespaceVerb::Stat(named(name)?)),
        NsVerb::Drop { name, yes, node } => {
            (node, NamespaceVerb::Drop { namespace: named(name)?, sure: yes })
        }
    })
}

/// Where a value goes, if not to standard output.
fn out_of(part: PartFlags) -> Result<Option<OutFile>> {
    let Some(path) = part.out else { return Ok(None) };
    if path.file_name().is_none() {
        return Err(Error::invalid(format!("`--out`: `{}` names no file: name one", path.display())));
    }
    let how = match (part.truncate, part.append) {
        (true, _) => Existing::Replaced,
        (_, true) => Existing::Continued,
        _ => Existing::Refused,
    };
    Ok(Some(OutFile { path, how }))
}

/// How `dstore del` is to delete.
fn how(asynchronous: bool, deadline: Option<String>, request: Option<OsString>) -> Result<How> {
    let mut how = How::default();
    if asynchronous {
        how.set_mode(DeleteMode::Async)?;
    }
    if let Some(limit) = deadline {
        how.set_mode(DeleteMode::Deadline(time(limit.as_bytes())?))?;
    }
    how.request = request.map(|word| request_from(&word.into_vec())).transpose()?;
    Ok(how)
}

fn key_of(bytes: OsString) -> Result<Key> {
    Key::new(bytes.into_vec())
}

fn config_path(line: &CommandLine, around: &Surroundings<'_>) -> Option<PathBuf> {
    line.config.clone().or_else(|| (around.env)("DSTORE_CONFIG").map(PathBuf::from))
}

fn read_file(path: Option<&Path>, around: &Surroundings<'_>) -> Result<File> {
    let Some(path) = path else { return Ok(File::default()) };
    let name = path.display().to_string();
    let text = (around.read)(path).map_err(|e| {
        Error::invalid(format!("the configuration file `{name}` cannot be read, {e}: correct `--config`"))
    })?;
    File::parse(&name, &text).map_err(Error::invalid)
}

/// A value and who gave it.
pub(super) struct Given {
    text: OsString,
    by: String,
}

impl Given {
    /// The value, to be shown.
    pub(super) fn shown(&self) -> String {
        self.text.to_string_lossy().into_owned()
    }

    /// Who gave it: a flag, a variable, or a file and its line.
    pub(super) fn origin(&self) -> String {
        let by = self.by.rsplit_once(": `").map_or(self.by.as_str(), |(line, _)| line);
        by.trim_matches('`').to_owned()
    }

    /// Reads the value; an error says who gave it.
    pub(super) fn checked<T>(&self, read: impl FnOnce(&str) -> Result<T, String>) -> Result<T> {
        let text = self.text.to_str().ok_or_else(|| format!("`{}` is not UTF-8", self.text.display()));
        text.and_then(read).map_err(|wrong| Error::invalid(format!("{}: {wrong}", self.by)))
    }

    pub(super) fn read<T: FromStr<Err = Error>>(&self) -> Result<T> {
        self.checked(|text| text.parse().map_err(|e: Error| e.message().to_owned()))
    }
}

/// All sources in their order.
pub(super) struct Settings<'a> {
    around: &'a Surroundings<'a>,
    file: File,
}

impl Settings<'_> {
    /// What was given for `key`: by its flag, else by the environment, else by the file.
    pub(super) fn given(&self, section: &str, key: &str, flag: Option<impl Into<OsString>>) -> Option<Given> {
        if let Some(text) = flag {
            return Some(Given { text: text.into(), by: format!("`--{key}`") });
        }
        let variable = format!("DSTORE_{}", key.to_ascii_uppercase().replace('-', "_"));
        if let Some(text) = (self.around.env)(&variable) {
            return Some(Given { text, by: format!("`{variable}`") });
        }
        self.file.get(section, key).map(|value| {
            let by = format!("{}:{}: `{key}`", self.file.name, value.line);
            Given { text: value.text.clone().into(), by }
        })
    }

    pub(super) fn variable(&self, name: &str) -> Result<Option<String>> {
        let text = (self.around.env)(name).map(OsString::into_string).transpose();
        text.map_err(|_| Error::invalid(format!("`{name}` is not UTF-8: correct it")))
    }

    pub(super) fn yes(&self, section: &str, key: &str, flag: bool) -> Result<bool> {
        let flag = flag.then_some("true");
        let Some(given) = self.given(section, key, flag) else { return Ok(false) };
        given.checked(|text| match text {
            "true" | "1" | "yes" => Ok(true),
            "false" | "0" | "no" | "" => Ok(false),
            other => Err(format!("`{other}` is neither: write true or false")),
        })
    }

    fn store(&self, flags: StoreFlags) -> Result<GlobalSettings> {
        let mut global = GlobalSettings::default();
        if let Some(given) = self.given("global", "data", flags.data) {
            if given.text.is_empty() {
                return Err(Error::invalid(format!("{}: the path is empty: write a directory", given.by)));
            }
            global.data = given.text.into();
        }
        if let Some(given) = self.given("global", "engine", flags.engine) {
            global.engine = given.checked(engine)?;
        }
        if let Some(given) = self.given("global", "sync", flags.sync) {
            global.sync =
                given.checked(|text| text.parse::<SyncLevel>().map_err(|e| e.message().to_owned()))?;
        }
        if let Some(given) = self.given("global", "lease", flags.lease) {
            global.lease = given.checked(|text| {
                let lease = units::duration(text)?;
                let fits = LEASE_RANGE.contains(&lease);
                fits.then_some(lease).ok_or_else(|| format!("`{text}` is out of range: write 50ms to 10s"))
            })?;
        }
        if let Some(given) = self.given("global", "drain-timeout", flags.drain_timeout) {
            global.drain_timeout = given.checked(units::duration)?;
        }
        if let Some(given) = self.given("global", "min-free", flags.min_free) {
            global.min_free = given.checked(units::size)?;
        }
        Ok(global)
    }

    fn local(
        &self,
        listen: Option<String>,
        http: HttpFlags,
        cache_bytes: Option<String>,
        insecure: bool,
    ) -> Result<LocalSettings> {
        let mut local = LocalSettings::default();
        if let Some(given) = self.given("local", "http", http.http) {
            let address = given.read::<Address>()?;
            only_this_machine(&address, self.yes("local", "insecure", insecure)?)?;
            local.http = Some(address);
        }
        if let Some(given) = self.given("local", "http-host", http.http_host) {
            local.http_hosts = given.checked(hosts)?;
        }
        if let Some(given) = self.given("local", "listen", listen) {
            let address = given.read::<Address>()?;
            only_this_machine(&address, self.yes("local", "insecure", insecure)?)?;
            local.listen = Some(Listen { address, is_default: false });
        }
        if let Some(given) = self.given("local", "cache-bytes", cache_bytes) {
            local.cache_bytes = given.checked(|text| match units::size(text)? {
                bytes if bytes < CACHE_BYTES_MIN => {
                    Err(format!("`{text}` is too little: write 64KiB or more"))
                }
                bytes => Ok(bytes),
            })?;
        }
        Ok(local)
    }

    fn configuration(&self, verb: ConfigVerb, config: Option<PathBuf>) -> Result<Action> {
        let file = match verb {
            ConfigVerb::Show { origin } => return Ok(Action::ShowConfig { all: self.effective(), origin }),
            ConfigVerb::Check { file } => file.or(config),
        };
        // As each server would read it.
        for verb in ["global", "local", "repl"] {
            let parsed = CommandLine::try_parse_from(["dstore", verb]);
            let parsed =
                parsed.map_err(|e| Error::internal(format!("`{verb}` is not known, {e}: report this")))?;
            resolve(CommandLine { config: file.clone(), ..parsed }, self.around)?;
        }
        Ok(Action::ConfigIsGood(file.map(|path| path.display().to_string())))
    }

    /// Where it tells how it does.
    fn admin(&self, section: &str, flag: AdminFlag, insecure: bool, default: &str) -> Result<Option<Listen>> {
        let Some(given) = self.given(section, "admin", flag.admin) else {
            return Ok(Some(Listen::by_default(default)));
        };
        if given.checked(|text| Ok(text == "off"))? {
            return Ok(None);
        }
        let address = given.read::<Address>()?;
        only_this_machine(&address, insecure)?;
        Ok(Some(Listen { address, is_default: false }))
    }

    fn solo(&self, flags: Solo) -> Result<Action> {
        let mut global = self.store(flags.store)?;
        global.listen = Address::Memory(SOLO_GLOBAL.into());
        let mut local = self.local(flags.listen, flags.http, flags.cache_bytes, flags.insecure)?;
        local.global = global.listen.clone();
        local.resp = self.resp(flags.resp, flags.insecure)?;
        local.resp.listen = local.resp.listen.filter(|listen| !listen.is_default);
        local.listen = local.listen.filter(|listen| !listen.is_default);
        let insecure = self.yes("local", "insecure", flags.insecure)?;
        let admin = self.admin("local", flags.admin, insecure, LOCAL_ADMIN_ADDRESS)?;
        local.admin = admin.filter(|listen| !listen.is_default);
        local.socket = Some(self.socket_of(&global.data).map_err(Error::invalid)?);
        local.shm = self.shm(flags.shm, local.socket.as_deref())?;
        Ok(Action::Solo { global, local, script: flags.script.into() })
    }

    fn socket_of(&self, data: &std::path::Path) -> Result<PathBuf, String> {
        let folder = |name| (self.around.env)(name).map(PathBuf::from);
        let elsewhere = Elsewhere {
            runtime_dir: folder("XDG_RUNTIME_DIR"),
            temp_dir: folder("TMPDIR"),
            uid: rustix::process::getuid().as_raw(),
        };
        socket::of_data_dir(data, &elsewhere)
    }

    fn node(&self, flag: NodeFlag) -> Result<Node> {
        if let Some(given) = self.given("repl", "node", flag.node) {
            return Ok(Node::At(given.read()?));
        }
        let socket = self.socket_of(&GlobalSettings::default().data).ok();
        Ok(Node::Default { socket: socket.filter(|socket| socket::check_folder(socket).is_ok()) })
    }

    /// `dstore get`.
    fn read(
        &self,
        key: OsString,
        part: PartFlags,
        stale_ok: Option<String>,
        node: NodeFlag,
        json: bool,
    ) -> Result<Action> {
        let key = key_of(key)?;
        let slice = Slice { offset: part.offset.unwrap_or(0), len: part.len };
        let out = out_of(part)?;
        if out.is_some() && json {
            return Err(Error::invalid("--out writes the exact bytes: leave --json out"));
        }
        let stale_ok = stale_ok.map(|time| stale_wait(Some(time.as_bytes()))).transpose()?;
        if slice == Slice::ALL && out.is_none() {
            let what = What::written(key);
            return self.one_shot(node, Command::Get(Get { what, stale_ok, slice, to: None }));
        }
        if stale_ok.is_some() {
            return Err(Error::invalid("--stale-ok reads a whole value to standard output: leave it out"));
        }
        Ok(Action::Download { node: self.node(node)?, key, slice, out })
    }

    /// `dstore set`; `-` is standard input.
    fn stored(
        &self,
        key: OsString,
        value: OsString,
        attributes: Attributes,
        node: NodeFlag,
    ) -> Result<Action> {
        let key = key_of(key)?;
        match value.into_vec() {
            stdin if stdin == b"-" => Ok(Action::Upload { node: self.node(node)?, key, attributes }),
            value => self.one_shot(node, Command::Set { key, value: Value::Bytes(value.into()), attributes }),
        }
    }

    fn one_shot(&self, node: NodeFlag, command: Command) -> Result<Action> {
        Ok(Action::OneShot { node: self.node(node)?, command })
    }
}

/// The names of hosts, with commas between them.
fn hosts(text: &str) -> Result<Vec<String>, String> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let name = |name: &str| {
        let name = name.trim();
        let is_good = !name.is_empty() && name.bytes().all(good);
        is_good
            .then(|| name.to_owned())
            .ok_or_else(|| format!("`{name}` is no name of a host: write NAME,NAME without ports"))
    };
    text.split(',').map(name).collect()
}

fn engine(text: &str) -> Result<EngineKind, String> {
    let built_in = || EngineKind::ALL.into_iter().filter(|kind| kind.is_built_in());
    match text.parse::<EngineKind>() {
        Ok(kind) if kind.is_built_in() => Ok(kind),
        Ok(kind) => {
            let there: Vec<String> = built_in().map(|kind| kind.to_string()).collect();
            Err(format!("this build is without `{kind}`: use {}", there.join(" or ")))
        }
        Err(_) => Err(format!("`{text}` is not an engine: use fjall, sled or memory")),
    }
}

/// Nothing authenticates or encrypts yet, so listening beyond this machine must be asked for.
pub(super) fn only_this_machine(address: &Address, insecure: bool) -> Result<()> {
    let Address::Tcp(host_port) = address else { return Ok(()) };
    let host = host_port.rsplit_once(':').map_or(host_port.as_str(), |(host, _)| host);
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let here = bare == "localhost" || bare.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if here || insecure {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{host_port}` can be reached from other machines, unencrypted and open to everybody: listen at 127.0.0.1, or add `--insecure`"
    )))
}

impl Solo {
    /// A flag that was typed before the verb.
    fn given(&self) -> Option<&'static str> {
        let Self { store, listen, http, admin, cache_bytes, insecure, resp, shm, script } = self;
        [
            ("--data", store.data.is_some()),
            ("--engine", store.engine.is_some()),
            ("--sync", store.sync.is_some()),
            ("--lease", store.lease.is_some()),
            ("--drain-timeout", store.drain_timeout.is_some()),
            ("--min-free", store.min_free.is_some()),
            ("--listen", listen.is_some()),
            ("--http", http.http.is_some()),
            ("--http-host", http.http_host.is_some()),
            ("--admin", admin.admin.is_some()),
            ("--cache-bytes", cache_bytes.is_some()),
            ("--insecure", *insecure),
            ("--resp", resp.resp.is_some()),
            ("--resp-socket", resp.resp_socket.is_some()),
            ("--resp-threads", resp.resp_threads.is_some()),
            ("--resp-databases", resp.resp_databases.is_some()),
            ("--shm", shm.shm.is_some()),
            ("-c", script.commands.is_some()),
            ("-f", script.file.is_some()),
            ("--bail", script.bail),
        ]
        .into_iter()
        .find_map(|(flag, given)| given.then_some(flag))
    }
}

impl From<ScriptFlags> for ScriptSettings {
    fn from(flags: ScriptFlags) -> Self {
        let source = flags.commands.map(Source::Text).or(flags.file.map(Source::File));
        Self { source, bail: flags.bail }
    }
}
