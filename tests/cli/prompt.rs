//! A person at a prompt: the real binary on a pseudo-terminal.
//!
//! Every wait is for something that is shown, with a deadline that a loaded machine keeps.

use super::Dstore;
use rustix::fs::{Mode, OFlags};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(60);

struct Prompt {
    child: Child,
    keys: File,
    shown: Arc<Mutex<Vec<u8>>>,
    /// Up to here it was looked at.
    looked: usize,
}

impl Prompt {
    /// `dstore` alone, on a terminal of so many columns, in this environment besides.
    fn open(dstore: &Dstore, columns: u16, env: &[(&str, &str)]) -> Self {
        let mut prompt = Self::begin(dstore, columns, env);
        prompt.sees("db > ");
        prompt
    }

    fn begin(dstore: &Dstore, columns: u16, env: &[(&str, &str)]) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&controller).expect("granted");
        unlockpt(&controller).expect("unlocked");
        let name = ptsname(&controller, Vec::new()).expect("named");
        let terminal = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).expect("opened");
        let size = Winsize { ws_row: 30, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&terminal, size).expect("sized");
        let end = || Stdio::from(terminal.try_clone().expect("cloned"));
        let mut command = dstore.command(&[]);
        command.env("TERM", "xterm").envs(env.iter().copied());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().expect("dstore runs");
        let keys = File::from(controller);
        let (shown, mut screen) = (Arc::<Mutex<Vec<u8>>>::default(), keys.try_clone().expect("cloned"));
        let to = shown.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // It ends with an error when nobody has the other end any more.
            while let Ok(n @ 1..) = screen.read(&mut buffer) {
                to.lock().expect("not poisoned").extend_from_slice(&buffer[..n]);
            }
        });
        Self { child, keys, shown, looked: 0 }
    }

    fn types(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("typed");
    }

    /// Waits for something that was not seen before; gives what was shown up to it.
    fn sees(&mut self, what: &str) -> String {
        let began = Instant::now();
        loop {
            let shown = self.shown.lock().expect("not poisoned")[self.looked..].to_vec();
            if let Some(at) = shown.windows(what.len()).position(|text| text == what.as_bytes()) {
                let end = at + what.len();
                self.looked += end;
                return String::from_utf8_lossy(&shown[..end]).into_owned();
            }
            let end = String::from_utf8_lossy(&shown[shown.len().saturating_sub(500)..]).into_owned();
            assert!(began.elapsed() < DEADLINE, "{what:?} is not shown: {}", end.escape_debug());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types a line, and gives what is shown up to the next prompt. The last of the answer, `end`, says that it is all.
    fn line(&mut self, line: &str, end: &str) -> String {
        self.types(line);
        self.types("\r");
        let mut shown = self.sees(end);
        shown += &self.sees("db > ");
        shown
    }

    /// Reads until this node keeps the value: at the start it may have no session yet.
    fn gets_locally(&mut self, key: &str) {
        let began = Instant::now();
        while !self.line(&format!("GET {key}"), ", blake3:").contains("db: ") {
            assert!(began.elapsed() < DEADLINE, "it is never kept");
        }
    }

    fn all(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().expect("not poisoned")).into_owned()
    }

    /// Leaves by Ctrl-D.
    fn leave(mut self) -> (Option<i32>, String) {
        self.types("\u{4}");
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("asked") {
                return (status.code(), self.all());
            }
            assert!(began.elapsed() < DEADLINE, "it does not end: {:?}", self.all());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Prompt {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_person_types_completes_and_sees_what_answered() {
    let dstore = Dstore::new();
    let mut prompt = Prompt::open(&dstore, 100, &[]);
    let banner = prompt.all();
    assert!(banner.starts_with(concat!("dstore v", env!("CARGO_PKG_VERSION"), " (addr: solo)")), "{banner}");
    assert!(banner.contains("Use `.exit` to exit the repl"));
    let told = prompt.line("SET user:1 {\"a\":[1,2]}", "global)");
    assert!(told.contains("Database updated") && told.contains("global, 11 B, blake3:"), "{told}");
    prompt.gets_locally("user:1");
    // The key is known by now, from the answer: Tab completes it, and the hint says where it is.
    prompt.types("GET us\t");
    prompt.sees("11 B, local");
    prompt.types("\r");
    let told = prompt.sees("local, 11 B, blake3:");
    assert!(
        told.contains("db: user:1 ->") && told.contains("  \"a\": [") && told.contains("    2"),
        "{told}"
    );
    prompt.sees("db > ");
    let told = prompt.line("wacth", "did you mean `WATCH`? ");
    assert!(told.contains("Unknown command!"), "{told}");
    let (code, all) = prompt.leave();
    assert_eq!(code, Some(0), "{all}");
}

#[test]
fn a_watch_is_told_above_the_prompt_and_a_prefix_is_asked_about() {
    let dstore = Dstore::new();
    let mut prompt = Prompt::open(&dstore, 100, &[]);
    prompt.line("WATCH a/", "`UNWATCH` ends it");
    prompt.types("SET a/1 x\r");
    prompt.sees("set a/1 1 B");
    // Half a line is typed: the event comes above it and it stays.
    prompt.types("SET a/2");
    let ended = dstore.run(&["set", "a/3", "y"]);
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    prompt.sees("set a/3 1 B");
    prompt.types(" x\r");
    prompt.sees("set a/2 1 B");
    prompt.types("DEL PREFIX a/\r");
    prompt.sees("remove 3 keys that begin with `a/`? [y/N] ");
    prompt.types("n\r");
    prompt.sees("nothing was removed");
    prompt.types("DEL PREFIX a/\r");
    prompt.sees("[y/N] ");
    prompt.types("y\r");
    prompt.sees("3 keys removed (global and local)");
    prompt.line("UNWATCH", "1 watch ended");
    assert_eq!(prompt.leave().0, Some(0));
}

#[test]
fn no_key_value_or_error_controls_the_terminal() {
    let dstore = Dstore::new();
    let mut prompt = Prompt::open(&dstore, 100, &[]);
    prompt.line("WATCH", "`UNWATCH` ends it");
    let key = "\\x1b]0;owned\\x07";
    prompt.line(&format!("SET \"{key}\" \"\\x1b[2Jred\\xc2\\x9b31m\""), "global)");
    for (command, end) in [("GET", "revision 1, "), ("STAT", "revision 1, "), ("WHY", "blake3:")] {
        prompt.line(&format!("{command} \"{key}\""), end);
    }
    prompt.line("LS", "1 key");
    prompt.line("LS --long", "1 key");
    prompt.line(&format!(".help \"{key}\""), "there is no word");
    prompt.line(&format!(".read \"{key}\""), "cannot be read");
    prompt.line(&format!("DEL \"{key}\""), "revision");
    let (code, all) = prompt.leave();
    assert_eq!(code, Some(0));
    assert!(all.contains("\\x1b]0;owned\\x07"), "it is shown, escaped: {all}");
    for control in ["\u{1b}]0;", "\u{1b}[2J", "\u{9b}", "\u{7}"] {
        let around = |at: usize| all[at..].chars().take(60).collect::<String>();
        assert_eq!(all.find(control).map(around), None, "{control:?} reached the terminal");
    }
}

/// Whether there is `ESC [ .. m`.
fn has_colour(shown: &str) -> bool {
    shown
        .split("\u{1b}[")
        .skip(1)
        .any(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';').starts_with('m'))
}

#[test]
fn a_narrow_a_plain_and_a_dumb_terminal_are_served_as_they_are() {
    let dstore = Dstore::new();
    let mut narrow = Prompt::open(&dstore, 20, &[]);
    let long = "x".repeat(100);
    narrow.line(&format!("SET narrow {long}"), "global)");
    narrow.line("GET narrow", "local, ");
    assert!(has_colour(&narrow.all()));
    narrow.line("SET bin \"\\x00\\xff\"", "global)");
    let told = narrow.line("GET bin", "hexadecimal");
    assert!(told.contains("00000000  00 ff"), "{told}");
    assert_eq!(narrow.leave().0, Some(0));

    let mut plain = Prompt::open(&dstore, 80, &[("NO_COLOR", "1")]);
    plain.line("GET narrow", "B, blake3:");
    plain.line("nope", "is not a command");
    let (code, all) = plain.leave();
    assert_eq!(code, Some(0));
    assert!(!has_colour(&all), "{}", all.escape_debug());

    let mut dumb = Prompt::open(&dstore, 80, &[("TERM", "dumb")]);
    dumb.types("GET narrow\n");
    dumb.sees("B, blake3:");
    dumb.sees("db > ");
    let (code, all) = dumb.leave();
    assert_eq!(code, Some(0));
    assert!(!all.contains('\u{1b}'), "{all:?}");
}

#[test]
fn the_history_is_private_and_keeps_no_secrets_and_a_paste_is_counted() {
    let dstore = Dstore::new();
    let mut prompt = Prompt::open(&dstore, 100, &[]);
    prompt.line("SET a 1", "global)");
    prompt.line("SET db/password hunter2", "global)");
    prompt.line(" SET quiet 1", "global)");
    // Several lines come at once; the last of them is run when the others were.
    prompt.types("\u{1b}[200~GET a\nGET db/password\u{1b}[201~\r");
    prompt.sees("2 lines pasted");
    prompt.sees("db: a -> 1");
    prompt.sees("db: db/password -> hunter2");
    prompt.sees("db > ");
    // A quote that is open wants another line.
    prompt.types("SET long \"one\r");
    prompt.types("two\"\r");
    prompt.sees("Database updated");
    prompt.sees("db > ");
    // Ctrl-R finds a line; Enter runs it.
    prompt.types("\u{12}SET a");
    prompt.types("\r");
    prompt.sees("Key occupied!");
    prompt.sees("db > ");
    assert_eq!(prompt.leave().0, Some(0));
    let file = dstore.path().join(".local/state/dstore/history");
    let mode = std::fs::metadata(&file).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let kept = std::fs::read_to_string(&file).expect("read");
    assert!(kept.contains("SET a 1") && kept.contains("SET long"), "{kept}");
    assert!(!kept.contains("hunter2") && !kept.contains("quiet"), "{kept}");
}

#[test]
fn ctrl_c_ends_the_command_that_runs_and_never_the_session() {
    let dstore = Dstore::new();
    let mut prompt = Prompt::open(&dstore, 100, &[]);
    prompt.types("WATCH --count 1\r");
    prompt.sees("watching, Ctrl-C ends it");
    kill_process(Pid::from_child(&prompt.child), Signal::INT).expect("sent");
    prompt.sees("db > ");
    // At the prompt it clears the line.
    prompt.types("GET nonsense");
    prompt.types("\u{3}");
    prompt.sees("db > ");
    let told = prompt.line("GET a", "Key-Value mapping doesn't exist");
    assert!(!told.contains("nonsense -> "), "{told}");
    prompt.types("SET edited 1\r");
    prompt.sees("global)");
    prompt.types(".exit 7\r");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = prompt.child.try_wait().expect("asked") {
            break status;
        }
        assert!(began.elapsed() < DEADLINE, "it does not end");
        std::thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(status.code(), Some(7));
}

#[test]
fn the_last_line_is_written_anew_in_an_editor_and_another_node_is_talked_to() {
    let dstore = Dstore::new();
    let other = Dstore::new();
    let mut first = Prompt::open(&other, 100, &[]);
    first.line("SET where other", "global)");
    let editor = dstore.path().join("editor");
    std::fs::write(&editor, "#!/bin/sh\nsed -i 's/hello/edited/' \"$1\"\n").expect("written");
    std::fs::set_permissions(&editor, std::fs::Permissions::from_mode(0o755)).expect("set");
    let mut prompt =
        Prompt::open(&dstore, 100, &[("EDITOR", &editor.display().to_string()), ("PATH", "/usr/bin:/bin")]);
    prompt.types("SET z hello there\r");
    prompt.sees("db > ");
    prompt.types(".edit\r");
    prompt.sees("Key occupied!");
    prompt.sees("db > ");
    let socket = other.path().join("dstore-data/dstore.sock");
    prompt.line(&format!(".connect unix:{}", socket.display()), "connected to ");
    prompt.line("GET where", "where -> other");
    prompt.line(".connect 127.0.0.1:1", "no node answers");
    prompt.line("GET where", "where -> other");
    assert_eq!(prompt.leave().0, Some(0));
    assert_eq!(first.leave().0, Some(0));
}
