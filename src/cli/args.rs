//! The command line as it was typed: texts, not yet values. `config` makes values of them.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::path::PathBuf;

/// A two-tier datastore whose node caches are never stale.
///
/// Without a verb: a whole dstore in one process, with its data in ./dstore-data and a prompt; a second `dstore` in the
/// same place attaches to it. Each flag FLAG can also come from the environment as `DSTORE_FLAG`, or from the
/// configuration file.
#[derive(Parser, Clone, Debug, Default)]
#[command(name = "dstore", version, propagate_version = true, disable_help_subcommand = true)]
#[command(
    after_help = "Exit codes: 0 ok, 1 not found, 2 usage, 3 occupied, 4 unreachable, 5 denied, 6 integrity, \
                        7 too large or full, 8 pending.\nDSTORE_LOG sets what is logged on standard error, as `info` or \
                        `dstore_global=debug`."
)]
pub struct CommandLine {
    /// Read settings from FILE, as `dstore.toml` with sections [global], [local] and [repl].
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Answer with one JSON object a command.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(flatten)]
    pub solo: Solo,
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What stands before the verb: solo mode's flags.
#[derive(Args, Clone, Debug, Default)]
pub struct Solo {
    #[command(flatten)]
    pub store: StoreFlags,
    /// Serve gRPC on HOST:PORT too; without it no TCP port is open.
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,
    #[command(flatten)]
    pub http: HttpFlags,
    #[command(flatten)]
    pub admin: AdminFlag,
    /// Keep up to SIZE of values in memory [default: 256MiB].
    #[arg(long, value_name = "SIZE")]
    pub cache_bytes: Option<String>,
    /// Allow to listen beyond this machine, unencrypted and open to everybody.
    #[arg(long)]
    pub insecure: bool,
    #[command(flatten)]
    pub resp: RespFlags,
    #[command(flatten)]
    pub shm: ShmFlags,
    #[command(flatten)]
    pub script: ScriptFlags,
}

/// How workers of this machine get at shared memory.
#[derive(Args, Clone, Debug, Default)]
pub struct ShmFlags {
    /// Let worker processes read values from shared memory, which they get at the Unix socket PATH, or `off` [default: the
    /// path of the node's socket and `.shm`; without a socket off].
    #[arg(long, value_name = "PATH")]
    pub shm: Option<String>,
}

/// How Redis clients are served.
#[derive(Args, Clone, Debug, Default)]
pub struct RespFlags {
    /// Serve Redis clients on HOST:PORT, or `off` [default: 127.0.0.1:50379, or a free port if that is taken; in solo
    /// mode off].
    #[arg(long, value_name = "ADDR")]
    pub resp: Option<String>,
    /// Serve Redis clients on a Unix socket too.
    #[arg(long, value_name = "PATH")]
    pub resp_socket: Option<PathBuf>,
    /// Serve them with N threads [default: half of the cores, at most 8].
    #[arg(long, value_name = "N")]
    pub resp_threads: Option<String>,
    /// The namespaces that SELECT 0, 1, ... choose, with commas between; with `:replace` one is created in replace mode
    /// [default: default,cache:replace].
    #[arg(long, value_name = "NAMES")]
    pub resp_databases: Option<String>,
}

/// The flag of the admin port.
#[derive(Args, Clone, Debug, Default)]
pub struct AdminFlag {
    /// Tell probes, Prometheus and browsers at HOST:PORT how it does, or `off` [default: 127.0.0.1:50061 of global,
    /// 127.0.0.1:50062 of a node, or a free port if that is taken; in solo mode off].
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,
}

/// The flags of the HTTP door.
#[derive(Args, Clone, Debug, Default)]
pub struct HttpFlags {
    /// Serve HTTP/1.1 and HTTP/2 on HOST:PORT or unix:PATH too; without it nowhere.
    #[arg(long, value_name = "ADDR")]
    pub http: Option<String>,
    /// Answer HTTP as these hosts, NAME,NAME, besides localhost and addresses.
    #[arg(long, value_name = "NAMES")]
    pub http_host: Option<String>,
}

/// The flags of the persistent store.
#[derive(Args, Clone, Debug, Default)]
pub struct StoreFlags {
    /// Keep the data in DIR [default: ./dstore-data].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Index engine: fjall, sled or memory [default: fjall].
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// Make changes durable together (group), each by itself (always), or after they are acknowledged (relaxed=TIME: a
    /// crash may lose the changes of so long) [default: group].
    #[arg(long, value_name = "LEVEL")]
    pub sync: Option<String>,
    /// Lease length, 50ms to 10s [default: 2s].
    #[arg(long, value_name = "TIME")]
    pub lease: Option<String>,
    /// After a disk error go on reading this long, then exit [default: 5s].
    #[arg(long, value_name = "TIME")]
    pub drain_timeout: Option<String>,
    /// Refuse to store when less than SIZE of disk is free [default: 256MiB].
    #[arg(long, value_name = "SIZE")]
    pub min_free: Option<String>,
}

/// Where commands come from, if not from a prompt or standard input.
#[derive(Args, Clone, Debug, Default)]
pub struct ScriptFlags {
    /// Run COMMANDS, separated by `;` outside quotes.
    #[arg(short = 'c', value_name = "COMMANDS", conflicts_with = "file", allow_hyphen_values = true)]
    pub commands: Option<OsString>,
    /// Run the lines of FILE.
    #[arg(short = 'f', value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Stop at the first command that fails.
    #[arg(long)]
    pub bail: bool,
}

/// Which part of a value, and where it goes.
#[derive(Args, Clone, Debug, Default)]
pub struct PartFlags {
    /// Begin at byte N.
    #[arg(long, value_name = "N", conflicts_with = "append")]
    pub offset: Option<u64>,
    /// Write at most N bytes.
    #[arg(long, value_name = "N")]
    pub len: Option<u64>,
    /// Write to FILE, which must not exist: it is there whole, or not at all.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Refuse if FILE exists; so it is without a word.
    #[arg(long, requires = "out")]
    pub exclusive: bool,
    /// Replace FILE, in one step at the end.
    #[arg(long, requires = "out", conflicts_with = "exclusive")]
    pub truncate: bool,
    /// Go on where FILE ends: what it has is taken for the beginning of the value, and not looked at.
    #[arg(long, requires = "out", conflicts_with_all = ["exclusive", "truncate"])]
    pub append: bool,
}

/// Which node to ask.
#[derive(Args, Clone, Debug, Default)]
pub struct NodeFlag {
    /// The node: HOST:PORT or unix:PATH [default: the socket in ./dstore-data if it answers, else 127.0.0.1:50052].
    #[arg(long, value_name = "ADDR")]
    pub node: Option<String>,
}

#[derive(Subcommand, Clone, Debug)]
pub enum ConfigVerb {
    /// Show every setting that is in force, as a configuration file.
    Show {
        /// Tell who gave each: a variable, a line of the file, or nobody.
        #[arg(long)]
        origin: bool,
    },
    /// Check the configuration as the servers would, and start nothing.
    ///
    /// Ends with 0 if it is good, 2 if not.
    Check {
        /// The file [default: that of --config or `DSTORE_CONFIG`].
        file: Option<PathBuf>,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub enum NsVerb {
    /// Create a namespace. One that nobody created can be used too: it is write-once.
    Create {
        name: String,
        /// What a SET of a bound key does: write-once refuses it, replace binds the key anew.
        #[arg(long, value_name = "MODE", default_value = "write-once")]
        mode: String,
        /// How long keys live whose SET does not say [default: for ever].
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// List the namespaces that were created, and `default`.
    Ls {
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell what a namespace allows, and count its keys.
    Stat {
        name: String,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Remove all keys of a namespace, then the namespace.
    Drop {
        name: String,
        /// Yes, all of it; else it is asked at a terminal.
        #[arg(short = 'y')]
        yes: bool,
        #[command(flatten)]
        node: NodeFlag,
    },
}

#[derive(Subcommand, Clone, Debug)]
pub enum Verb {
    /// Run the authority.
    Global {
        /// Listen on HOST:PORT [default: 127.0.0.1:50051].
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        #[command(flatten)]
        store: StoreFlags,
        #[command(flatten)]
        admin: AdminFlag,
        /// Allow to listen beyond this machine, unencrypted and open to everybody.
        #[arg(long)]
        insecure: bool,
    },
    /// Run a node that caches what Global holds.
    Local {
        /// Global's address [default: 127.0.0.1:50051].
        #[arg(long, value_name = "ADDR")]
        global: Option<String>,
        /// Listen on HOST:PORT [default: 127.0.0.1:50052, or a free port if that is taken].
        #[arg(long, value_name = "ADDR")]
        listen: Option<String>,
        /// Listen on a Unix socket too.
        #[arg(long, value_name = "PATH")]
        socket: Option<PathBuf>,
        #[command(flatten)]
        http: HttpFlags,
        /// Keep up to SIZE of values in memory [default: 256MiB].
        #[arg(long, value_name = "SIZE")]
        cache_bytes: Option<String>,
        /// Check kept values for N thousandths of one core's time, 0 to 1000 [default: 1].
        #[arg(long, value_name = "N")]
        scrub: Option<String>,
        /// Keep "not found" answers too, each for half a second; a SET anywhere then has to tell this node first.
        #[arg(long)]
        negatives: bool,
        /// Ask global about N served values a minute, afterwards, whether they were right [default: 60; 0: none].
        #[arg(long, value_name = "N")]
        audits: Option<String>,
        #[command(flatten)]
        resp: RespFlags,
        #[command(flatten)]
        admin: AdminFlag,
        #[command(flatten)]
        shm: ShmFlags,
        /// Allow to listen beyond this machine, unencrypted and open to everybody.
        #[arg(long)]
        insecure: bool,
        /// Open a prompt on this node.
        #[arg(long)]
        repl: bool,
    },
    /// Talk to a running node: at a prompt, with -c, with -f, or by lines on standard input.
    Repl {
        #[command(flatten)]
        node: NodeFlag,
        #[command(flatten)]
        script: ScriptFlags,
    },
    /// Write the exact bytes of a value to standard output, or to a file.
    Get {
        key: OsString,
        /// Take an old value if the node has no lease and Global does not answer within TIME [default: 500ms].
        #[arg(long, value_name = "TIME", num_args = 0..=1, require_equals = true, default_missing_value = "500ms")]
        stale_ok: Option<String>,
        #[command(flatten)]
        part: PartFlags,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Store a value; `-` reads it, of any size, from standard input.
    Set {
        key: OsString,
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        /// How long the key lives: 500ms, 90s, 5m, 2h or 7d [default: as its namespace says].
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
        /// Of what type the value is, as text/plain.
        #[arg(long = "type", value_name = "TYPE")]
        content_type: Option<String>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Remove keys, all at once.
    Del {
        #[arg(required_unless_present = "prefix", conflicts_with = "prefix")]
        keys: Vec<OsString>,
        /// Remove every key that begins with PREFIX instead; needs -y.
        #[arg(long, value_name = "PREFIX")]
        prefix: Option<OsString>,
        /// Yes, all of them.
        #[arg(short = 'y', requires = "prefix")]
        yes: bool,
        /// Answer when it is durable; others may read the old value for the time that is told.
        #[arg(long = "async", conflicts_with_all = ["deadline", "prefix"])]
        asynchronous: bool,
        /// Answer after TIME at the latest: with exit code 8 if it is not done; it goes on.
        #[arg(long, value_name = "TIME", conflicts_with = "prefix")]
        deadline: Option<String>,
        /// Ask again about the request that was told with exit code 8.
        #[arg(long, value_name = "WORD", conflicts_with = "prefix")]
        request: Option<OsString>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Tell what becomes of keys, one line an event, until Ctrl-C.
    Watch {
        /// What the keys begin with; without it, all.
        #[arg(default_value = "")]
        prefix: OsString,
        /// Only changes after REVISION [default: from now on].
        #[arg(long, value_name = "REVISION")]
        from: Option<u64>,
        /// End after N events.
        #[arg(long, value_name = "N")]
        count: Option<u64>,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Let a key have the value of another key too; no bytes move.
    Copy {
        from: OsString,
        to: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Move a value to another key, in one step.
    Rename {
        from: OsString,
        to: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Store the files of a folder, and of those within, under their paths as keys.
    ///
    /// What is there with the same bytes is left as it is, so the same command goes on where one was broken off. Links,
    /// sockets, pipes and devices are skipped, and told. Ends with 0 if every file is stored, 3 if a key has another
    /// value, 5 if something may not be read.
    Import {
        dir: PathBuf,
        /// What the keys begin with.
        #[arg(long, value_name = "PREFIX", default_value = "")]
        prefix: OsString,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Write the values of all keys under a prefix to files in a folder, by what follows the prefix.
    Export {
        prefix: OsString,
        dir: PathBuf,
        /// Replace files that have other bytes.
        #[arg(long)]
        overwrite: bool,
        #[command(flatten)]
        node: NodeFlag,
    },
    /// Explain a data directory that no dstore uses, and change nothing in it.
    ///
    /// Ends with 0 if it is healthy or the next start repairs it, 6 if something is damaged or missing, 2 if it is
    /// in use or not usable by this dstore.
    Check {
        /// The data directory [default: ./dstore-data].
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Read every byte of every value.
        #[arg(long)]
        deep: bool,
        /// Tell if less than SIZE of disk is free [default: 256MiB].
        #[arg(long, value_name = "SIZE")]
        min_free: Option<String>,
        /// Copy what is whole into DIR, a fresh data directory that must not exist or be empty. Ends with 0 if that
        /// is everything, 6 if something was lost.
        #[arg(long, value_name = "DIR", conflicts_with = "deep")]
        salvage: Option<PathBuf>,
    },
    /// Write a script with which a shell completes words, to standard output.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write pages of the manual, one for each verb.
    Man {
        /// The folder; it is made if it is not there.
        dir: PathBuf,
    },
    /// Show and check the configuration.
    Config {
        #[command(subcommand)]
        verb: ConfigVerb,
    },
    /// Create, list and drop namespaces.
    Ns {
        #[command(subcommand)]
        verb: NsVerb,
    },
    #[command(flatten)]
    Look(super::looks::Look),
    /// Tell how a node is.
    Status {
        #[command(flatten)]
        node: NodeFlag,
    },
}
