//! Signals, sent to the real binary.

use super::{Dstore, Ended};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

fn send(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).expect("sent");
}

/// A script that has run its first line and waits for the next.
fn waiting(dstore: &Dstore) -> Child {
    let mut child = dstore.command(&[]).stdin(Stdio::piped()).spawn().expect("dstore runs");
    child.stdin.as_mut().expect("piped").write_all(b"GET a\n").expect("written");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("read");
    assert_eq!(line, "Key-Value mapping doesn't exist\n");
    child
}

#[test]
fn a_script_ends_on_ctrl_c_with_130_and_on_sigterm_with_143() {
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 143)] {
        let dstore = Dstore::new();
        let mut child = waiting(&dstore);
        send(&child, signal);
        let kept = child.stdin.take();
        let ended = Ended::of(&child.wait_with_output().expect("dstore ends"));
        drop(kept);
        assert_eq!((ended.code, &ended.err[..]), (Some(code), ""), "{signal:?}");
        assert!(!dstore.path().join("dstore-data/dstore.sock").exists(), "the socket is taken away");
    }
}

#[test]
fn servers_say_where_they_listen_and_stop_on_a_signal() {
    let dstore = Dstore::new();
    let (global, local) = ("Dstore server listening on 127.0.0.1:", "Dstore local listening on 127.0.0.1:");
    let resp = "Dstore RESP listening on 127.0.0.1:";
    let admin = "Dstore admin listening on http://127.0.0.1:";
    let table: [(&[&str], &[&str], Signal); 5] = [
        (&["global", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"], &[global, admin], Signal::TERM),
        (&["global", "--listen", "127.0.0.1:0", "--admin", "off"], &[global], Signal::INT),
        (&["local", "--listen", "127.0.0.1:0", "--resp", "off", "--admin", "off"], &[local], Signal::TERM),
        (&["local", "--listen", "127.0.0.1:0", "--resp", "127.0.0.1:0"], &[local, resp, admin], Signal::TERM),
        // Its ports may be taken: then it has others.
        (&["local", "--listen", "127.0.0.1:0"], &[local, resp, admin], Signal::INT),
    ];
    for (args, says, signal) in table {
        let mut child = dstore.command(args).spawn().expect("dstore runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        for says in says {
            let mut line = String::new();
            out.read_line(&mut line).expect("read");
            assert!(line.starts_with(says) && !line.ends_with(":0\n"), "{line}");
        }
        send(&child, signal);
        assert_eq!(child.wait().expect("dstore ends").code(), Some(0), "{args:?}");
        let mut rest = String::new();
        out.read_line(&mut rest).expect("read");
        assert_eq!(rest, "", "nothing else");
    }
}

#[test]
fn a_taken_port_that_was_asked_for_is_an_error() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let address = taken.local_addr().expect("bound").to_string();
    let dstore = Dstore::new();
    for verb in ["global", "local"] {
        let ended = dstore.run(&[verb, "--listen", &address]);
        assert_eq!((ended.code, &ended.out[..]), (Some(2), ""), "{verb}");
        assert!(ended.err.contains(&address), "{}", ended.err);
    }
}
