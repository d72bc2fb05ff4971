//! No node: exit 4, naming the address.

use super::Dstore;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;

/// An address where nobody listens.
fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn without_a_node_every_client_verb_ends_with_4_and_names_the_address() {
    let (dstore, address) = (Dstore::new(), nobody());
    for args in [
        &["get", "k"][..],
        &["set", "k", "v"],
        &["set", "k", "-"],
        &["del", "k"],
        &["status"],
        &["repl"],
        &["repl", "-c", "GET a"],
    ] {
        let ended = dstore.run(&[args, &["--node", &address]].concat());
        assert_eq!((ended.code, &ended.out[..]), (Some(4), ""), "{args:?}: {ended:?}");
        assert!(ended.err.contains(&format!("no node answers at `{address}`")), "{args:?}: {}", ended.err);
        assert_eq!(ended.err.lines().count(), 1, "{}", ended.err);
    }
}

#[test]
fn a_unix_socket_that_is_not_there_is_named() {
    let ended = Dstore::new().run(&["get", "k", "--node", "unix:/nowhere/s"]);
    assert_eq!(ended.code, Some(4));
    assert!(ended.err.contains("`unix:/nowhere/s`"), "{}", ended.err);
}

#[test]
fn without_node_the_socket_in_the_data_dir_is_tried_before_the_port() {
    let dstore = Dstore::new();
    let data = dstore.path().join("dstore-data");
    std::fs::create_dir(&data).expect("made");
    drop(UnixListener::bind(data.join("dstore.sock")).expect("bound"));
    let environment = nobody();
    let output =
        dstore.command(&["get", "k"]).env("DSTORE_NODE", &environment).output().expect("dstore runs");
    assert!(String::from_utf8_lossy(&output.stderr).contains(&environment), "the environment wins");

    let listener = UnixListener::bind(data.join("live.sock")).expect("bound");
    std::fs::rename(data.join("live.sock"), data.join("dstore.sock")).expect("renamed");
    let mut child = dstore.command(&["get", "k"]).spawn().expect("dstore runs");
    listener.set_nonblocking(false).expect("blocking");
    let came = listener.accept();
    let _ = child.kill();
    let _ = child.wait();
    assert!(came.is_ok(), "the socket is asked");
}
