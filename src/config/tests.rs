//! What wins over what, and what is refused.

use super::*;
use crate::cli::args::CommandLine;
use clap::Parser;
use dstore_local::repl::Given;
use dstore_shared::Kind;

/// Resolves `dstore ARGS` with an environment and, as dstore.toml, a file.
fn config(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> Result<Config, String> {
    let line = CommandLine::try_parse_from([&["dstore"], args].concat()).map_err(|e| e.to_string())?;
    let around = Surroundings {
        env: &|name| env.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v)),
        read: &|path| match (path.to_str(), file) {
            (Some("dstore.toml"), Some(text)) => Ok(text.to_owned()),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        },
    };
    resolve(line, &around).map_err(|e| {
        assert_eq!(e.kind(), Kind::Invalid);
        e.message().to_owned()
    })
}

fn global(args: &[&str], env: &[(&str, &str)], file: Option<&str>) -> GlobalSettings {
    match config(args, env, file).expect("valid").action {
        Action::Global(global) => global,
        other => panic!("{other:?}"),
    }
}

/// Arguments, environment, and what the refusal says.
type Row = (&'static [&'static str], &'static [(&'static str, &'static str)], &'static str);

fn tcp(text: &str) -> Address {
    Address::Tcp(text.into())
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = Some("[global]\nlease = \"3s\"\nlisten = \"127.0.0.1:3\"\nmin-free = \"3MiB\"\n");
    let env = [("DSTORE_CONFIG", "dstore.toml"), ("DSTORE_LEASE", "4s"), ("DSTORE_LISTEN", "127.0.0.1:4")];
    let all = global(&["global", "--lease", "5s"], &env, file);
    assert_eq!(all.lease, Duration::from_secs(5), "flag");
    assert_eq!(all.listen, tcp("127.0.0.1:4"), "environment");
    assert_eq!(all.min_free, 3 << 20, "file");
    assert_eq!(all.drain_timeout, GlobalSettings::default().drain_timeout, "default");
    assert_eq!(global(&["global", "--config", "dstore.toml"], &[], file).listen, tcp("127.0.0.1:3"));
    assert_eq!(global(&["global"], &[], file), GlobalSettings::default(), "no file is read unasked");
}

#[test]
fn the_defaults_are_as_documented() {
    let defaults = global(&["global"], &[], None);
    assert_eq!(
        (defaults.listen.to_string(), defaults.data),
        ("127.0.0.1:50051".into(), "./dstore-data".into())
    );
    assert_eq!((defaults.lease, defaults.drain_timeout), (Duration::from_secs(2), Duration::from_secs(5)));
    assert_eq!(defaults.min_free, 256 << 20);
    let Action::Local { local, repl } = config(&["local"], &[], None).expect("valid").action else {
        panic!()
    };
    assert_eq!(
        (local.global, local.cache_bytes, local.socket, repl),
        (tcp("127.0.0.1:50051"), 256 << 20, None, false)
    );
    assert_eq!(local.listen, Some(Listen { address: tcp("127.0.0.1:50052"), is_default: true }));
}

#[test]
fn the_sync_level_comes_from_flag_environment_or_file() {
    let file = Some("[global]\nsync = \"always\"\n");
    let env = [("DSTORE_CONFIG", "dstore.toml"), ("DSTORE_SYNC", "group")];
    assert_eq!(global(&["global"], &[], None).sync, SyncLevel::Group, "default");
    assert_eq!(global(&["global"], &env[..1], file).sync, SyncLevel::Always, "file");
    assert_eq!(global(&["global"], &env, file).sync, SyncLevel::Group, "environment");
    assert_eq!(global(&["global", "--sync", "always"], &env, file).sync, SyncLevel::Always, "flag");
    let Action::Solo { global, .. } = config(&["--sync", "always"], &[], None).expect("valid").action else {
        panic!()
    };
    assert_eq!(global.sync, SyncLevel::Always, "both tiers in one process");
    let relaxed = |ms| SyncLevel::Relaxed(Duration::from_millis(ms));
    assert_eq!(super::tests::global(&["global", "--sync", "relaxed"], &env, file).sync, relaxed(100));
    let env = [("DSTORE_SYNC", "relaxed=50ms")];
    assert_eq!(super::tests::global(&["global"], &env, None).sync, relaxed(50), "environment");
    let (env, file) = ([("DSTORE_CONFIG", "dstore.toml")], Some("[global]\nsync = \"relaxed=2s\"\n"));
    assert_eq!(super::tests::global(&["global"], &env, file).sync, relaxed(2_000), "file");
}

#[test]
fn solo_opens_a_socket_and_no_tcp_port_unless_told() {
    let Action::Solo { global, local, script } = config(&[], &[], None).expect("valid").action else {
        panic!()
    };
    assert_eq!((global.listen.clone(), local.listen), (Address::Memory("global".into()), None));
    assert_eq!(local.global, global.listen);
    assert!(local.socket.expect("a socket").ends_with("dstore-data/dstore.sock"));
    assert_eq!(script, ScriptSettings::default());
    let args = ["--listen", "127.0.0.1:0", "-c", "GET a", "--bail"];
    let Action::Solo { local, script, .. } = config(&args, &[], None).expect("valid").action else {
        panic!()
    };
    assert_eq!(local.listen, Some(Listen { address: tcp("127.0.0.1:0"), is_default: false }));
    assert_eq!(script, ScriptSettings { source: Some(Source::Text("GET a".into())), bail: true });
}

#[test]
fn http_is_served_only_where_it_is_asked_for_and_as_the_hosts_that_are_named() {
    let local =
        |args: &[&str], env: &[(&str, &str)], file| match config(args, env, file).expect("valid").action {
            Action::Local { local, .. } | Action::Solo { local, .. } => (local.http, local.http_hosts),
            other => panic!("{other:?}"),
        };
    assert_eq!(local(&["local"], &[], None), (None, vec![]));
    assert_eq!(local(&[], &[], None), (None, vec![]));
    let hosts = || vec!["a.example".to_owned(), "b".to_owned()];
    assert_eq!(
        local(&["--http", "127.0.0.1:0", "--http-host", "a.example, b"], &[], None),
        (Some(tcp("127.0.0.1:0")), hosts())
    );
    let file = Some("[local]\nhttp = \"unix:/h\"\nhttp-host = \"a.example,b\"\n");
    let env = [("DSTORE_CONFIG", "dstore.toml"), ("DSTORE_HTTP", "[::1]:80")];
    assert_eq!(local(&["local"], &env[..1], file), (Some(Address::Unix("/h".into())), hosts()));
    assert_eq!(local(&["local"], &env, file), (Some(tcp("[::1]:80")), hosts()));
    assert!(
        config(&["local", "--http", "0.0.0.0:1"], &[], None).expect_err("open").contains("add `--insecure`")
    );
    assert_eq!(local(&["local", "--http", "0.0.0.0:1", "--insecure"], &[], None).0, Some(tcp("0.0.0.0:1")));
    for bad in ["", "a,", "a:80", "http://a", "*"] {
        let refused = config(&["local", "--http-host", bad], &[], None).expect_err(bad);
        assert!(refused.contains("is no name of a host: write NAME,NAME"), "{refused}");
    }
}

#[test]
fn one_shot_commands_take_any_bytes_and_json_anywhere() {
    for args in [&["--json", "get", "k"][..], &["get", "--json", "k"], &["get", "k", "--json"]] {
        assert_eq!(config(args, &[], None).expect("valid").mode, Mode::Json, "{args:?}");
    }
    assert_eq!(config(&["get", "k"], &[], None).expect("valid").mode, Mode::Raw);
    let set = |args: &[&str]| config(args, &[], None).expect("valid").action;
    let value = |action| match action {
        Action::OneShot { command: Command::Set { value: Given::Bytes(value), .. }, .. } => {
            String::from_utf8(value.into()).expect("text")
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(value(set(&["set", "k", "a b"])), "a b");
    assert_eq!(value(set(&["set", "k", ""])), "");
    assert_eq!(value(set(&["set", "k", "-v1"])), "-v1");
    assert_eq!(value(set(&["set", "k", "--", "--json"])), "--json");
    assert!(matches!(set(&["set", "k", "-"]), Action::Upload { .. }));
    assert!(matches!(
        set(&["set", "k", "-", "--node", "unix:/s"]),
        Action::Upload { node: Node::At(Address::Unix(_)), .. }
    ));
    let bytes = std::os::unix::ffi::OsStringExt::from_vec(vec![0xff, 0xfe]);
    let line = CommandLine::try_parse_from(["dstore".into(), "del".into(), bytes, OsString::from("b")])
        .expect("valid");
    let around = Surroundings { env: &|_| None, read: &|_| Err(std::io::ErrorKind::NotFound.into()) };
    let Action::OneShot { command: Command::Delete { keys, .. }, .. } =
        resolve(line, &around).expect("valid").action
    else {
        panic!()
    };
    assert_eq!(keys[0].as_bytes(), [0xff, 0xfe]);
}

#[test]
fn what_is_wrong_is_refused_naming_who_gave_it_and_what_to_write() {
    let file = "[global]\n\nlease = \"2\"\n";
    let table: [Row; 22] = [
        (&["global", "--lease", "2"], &[], "`--lease`: `2` is not a duration: write one like"),
        (&["global"], &[("DSTORE_LEASE", "x")], "`DSTORE_LEASE`: `x` is not a duration"),
        (&["global", "--config", "dstore.toml"], &[], "dstore.toml:3: `lease`: `2` is not a duration"),
        (&["global", "--lease", "10ms"], &[], "`--lease`: `10ms` is out of range: write 50ms to 10s"),
        (&["global", "--lease", "11s"], &[], "out of range"),
        (&["global", "--min-free", "1 GiB"], &[], "`--min-free`: `1 GiB` is not a size"),
        (&["global", "--engine", "redb"], &[], "`redb` is not an engine: use fjall, sled or memory"),
        (
            &["global", "--sync", "loose"],
            &[],
            "`--sync`: `loose` is not a sync level: use group, always or relaxed=100ms",
        ),
        (&["global", "--sync", "relaxed=5ms"], &[], "`--sync`: `5ms` is out of range: write 10ms to 10s"),
        (&["--sync", "Group"], &[], "`Group` is not a sync level"),
        (&["global"], &[("DSTORE_SYNC", "")], "`DSTORE_SYNC`: `` is not a sync level"),
        (&["--sync", "always", "get", "k"], &[], "`--sync` belongs to solo mode"),
        (&["global"], &[("DSTORE_DATA", "")], "`DSTORE_DATA`: the path is empty"),
        (
            &["global", "--listen", "50051"],
            &[],
            "`--listen`: the address `50051` is not valid: write HOST:PORT",
        ),
        (&["global", "--listen", "0.0.0.0:1"], &[], "add `--insecure`"),
        (&["local", "--listen", "[::]:1"], &[], "add `--insecure`"),
        (&["local", "--cache-bytes", "1B"], &[], "write 64KiB or more"),
        (&["local", "--global", "nowhere"], &[], "`--global`: the address `nowhere` is not valid"),
        (&["repl", "--node", "x"], &[], "`--node`: the address `x` is not valid"),
        (&["global", "--config", "other.toml"], &[], "`other.toml` cannot be read"),
        (
            &["global"],
            &[("DSTORE_INSECURE", "maybe")],
            "`DSTORE_INSECURE`: `maybe` is neither: write true or false",
        ),
        (&["--data", "x", "get", "k"], &[], "`--data` belongs to solo mode"),
    ];
    for (args, env, says) in table {
        let message = config(args, env, Some(file)).expect_err(says);
        assert!(message.contains(says), "{args:?}: {message}");
    }
    let long = "x".repeat(108);
    assert!(config(&["local", "--socket", &long], &[], None).expect_err("long").contains("at most `107`"));
}

#[test]
fn listening_beyond_this_machine_must_be_asked_for() {
    for host in ["127.0.0.1", "127.9.9.9", "localhost", "[::1]"] {
        assert!(config(&["global", "--listen", &format!("{host}:1")], &[], None).is_ok(), "{host}");
    }
    assert!(config(&["global", "--listen", "0.0.0.0:1", "--insecure"], &[], None).is_ok());
    assert!(config(&["local", "--listen", "0.0.0.0:1"], &[("DSTORE_INSECURE", "1")], None).is_ok());
}

#[test]
fn a_client_looks_for_the_socket_in_the_data_dir_first() {
    let node = |args: &[&str], env: &[(&str, &str)]| match config(args, env, None).expect("valid").action {
        Action::Repl { node, .. } => node,
        other => panic!("{other:?}"),
    };
    let Node::Default { socket: Some(socket) } = node(&["repl"], &[]) else { panic!("no socket") };
    assert!(socket.ends_with("dstore-data/dstore.sock"));
    assert_eq!(node(&["repl", "--node", "127.0.0.1:9"], &[]), Node::At(tcp("127.0.0.1:9")));
    assert_eq!(node(&["repl"], &[("DSTORE_NODE", "http://127.0.0.1:8")]), Node::At(tcp("127.0.0.1:8")));
}

#[test]
fn the_command_line_definition_is_consistent() {
    <CommandLine as clap::CommandFactory>::command().debug_assert();
}

#[test]
fn what_is_shown_as_default_is_what_holds_when_nobody_says_anything() {
    let Action::ShowConfig { all, .. } = config(&["config", "show"], &[], None).expect("valid").action else {
        panic!()
    };
    assert!(all.iter().all(|one| one.origin.is_none()));
    let file = as_toml(&all, true);
    for args in [&["global", "--config", "dstore.toml"], &["local", "--config", "dstore.toml"]] {
        let (said, unsaid) = (config(args, &[], Some(&file)), config(&args[..1], &[], None));
        // An address that is asked for must be this one: the only difference.
        let told = |action: Action| format!("{action:?}").replace("is_default: true", "is_default: false");
        assert_eq!(told(said.expect("valid").action), told(unsaid.expect("valid").action), "{file}");
    }
}

#[test]
fn who_gave_a_setting_is_told_and_a_password_is_not() {
    let file = "# mine\n[global]\nlease = \"3s\"\n[local]\nresp-password = \"secret\"\n";
    let env = [("DSTORE_CONFIG", "dstore.toml"), ("DSTORE_MIN_FREE", "1GiB")];
    let action = config(&["config", "show", "--origin"], &env, Some(file)).expect("valid").action;
    let Action::ShowConfig { all, origin: true } = action else { panic!("{action:?}") };
    let text = as_toml(&all, true);
    let line = |begin: &str| text.lines().find(|line| line.starts_with(begin)).expect("told").to_owned();
    assert!(line("lease = \"3s\"").ends_with("  # dstore.toml:3"), "{text}");
    assert!(line("min-free = \"1GiB\"").ends_with("  # DSTORE_MIN_FREE"), "{text}");
    assert!(line("sync = \"group\"").ends_with("  # default"), "{text}");
    assert!(line("resp-password = ").ends_with("  # dstore.toml:5") && !text.contains("secret"), "{text}");
}

#[test]
fn a_file_is_checked_as_each_server_would_read_it() {
    let good =
        |file| config(&["config", "check", "dstore.toml"], &[], Some(file)).map(|config| config.action);
    let found = Action::ConfigIsGood(Some("dstore.toml".into()));
    assert_eq!(good("[global]\nlease = \"3s\"\n[local]\nresp = \"off\"\n"), Ok(found));
    for (file, wanted) in [
        ("[local]\n\ncache-bytes = \"much\"\n", "dstore.toml:3: `cache-bytes`: `much` is not a size"),
        (
            "[global]\nleese = \"3s\"\n",
            "dstore.toml:2: unknown key `leese` in [global]: did you mean `lease`?",
        ),
        ("[repl]\nnode = \"nowhere\"\n", "dstore.toml:2: `node`: "),
        ("[global]\nadmin = \"0.0.0.0:1\"\n", "can be reached from other machines"),
    ] {
        let refused = good(file).expect_err(file);
        assert!(refused.contains(wanted), "{refused}");
    }
}

#[test]
fn what_is_logged_comes_from_the_environment_or_the_section_of_the_server() {
    let file = Some("[global]\nlog = \"debug\"\n[local]\nlog-format = \"json\"\n");
    let of = |args: &[&str], env: &[(&str, &str)]| {
        let env = [&[("DSTORE_CONFIG", "dstore.toml")], env].concat();
        let config = config(args, &env, file).expect("valid");
        (config.log, config.log_format, config.log_source.is_some())
    };
    assert_eq!(of(&["global"], &[]), (Some("debug".into()), LogFormat::Text, true));
    assert_eq!(of(&["local"], &[]), (None, LogFormat::Json, true));
    let by_variable = of(&["global"], &[("DSTORE_LOG", "warn")]);
    assert_eq!(by_variable, (Some("warn".into()), LogFormat::Text, false), "a file cannot change it");
    assert_eq!(of(&["status"], &[("DSTORE_LOG", "warn")]), (Some("warn".into()), LogFormat::Text, false));
    let refused = config(&["global"], &[("DSTORE_LOG_FORMAT", "xml")], None).expect_err("no format");
    assert_eq!(refused, "`DSTORE_LOG_FORMAT`: `xml` is no format of a log: write text or json");
}
