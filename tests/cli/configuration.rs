//! The configuration file and the environment of the real binary.

use super::Dstore;

fn refused(text: &str) -> String {
    let dstore = Dstore::new();
    std::fs::write(dstore.path().join("dstore.toml"), text).expect("written");
    let ended = dstore.run(&["--config", "dstore.toml", "status"]);
    assert_eq!((ended.code, &ended.out[..]), (Some(2), ""), "{ended:?}");
    ended.err
}

#[test]
fn an_error_of_the_file_names_file_line_and_nearest_word() {
    let table = [
        (
            "[local]\ncash-bytes = \"1MiB\"\n",
            "dstore.toml:2: unknown key `cash-bytes` in [local]: did you mean `cache-bytes`?",
        ),
        ("\n\n[lokal]\n", "dstore.toml:3: unknown section `lokal`: did you mean `[local]`?"),
        ("[repl]\nnode = \"nowhere\"\n", "dstore.toml:2: `node`: the address `nowhere` is not valid"),
        ("[repl\n", "dstore.toml:1: not TOML"),
    ];
    for (text, says) in table {
        let err = refused(text);
        assert!(err.contains(says), "{text}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let ended = Dstore::new().run(&["--config", "absent.toml", "status"]);
    assert_eq!(ended.code, Some(2));
    assert!(ended.err.contains("`absent.toml`"), "{}", ended.err);
}

#[test]
fn the_flag_wins_over_the_environment_over_the_file() {
    let dstore = Dstore::new();
    std::fs::write(dstore.path().join("dstore.toml"), "[repl]\nnode = \"unix:/by-file\"\n").expect("written");
    let asked = |args: &[&str], env: Option<&str>| {
        let mut command = dstore.command(&[&["--config", "dstore.toml", "get", "k"], args].concat());
        command.envs(env.map(|node| ("DSTORE_NODE", node)));
        String::from_utf8_lossy(&command.output().expect("dstore runs").stderr).into_owned()
    };
    assert!(asked(&[], None).contains("`unix:/by-file`"));
    assert!(asked(&[], Some("unix:/by-env")).contains("`unix:/by-env`"));
    assert!(asked(&["--node", "unix:/by-flag"], Some("unix:/by-env")).contains("`unix:/by-flag`"));
}
