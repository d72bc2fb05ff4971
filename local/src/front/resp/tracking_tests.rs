use super::super::config::RespConfig;
use super::super::harness::{Harness, Talk};
use super::super::own::OwnChange;
use super::super::parse::{Limits, Parser, Step};
use super::super::{commands, table};
use super::*;

fn name(key: &str) -> Name {
    Name::of(key.to_owned()).expect("valid")
}

/// The change of a command of `talk`, as it runs.
fn own_change(harness: &Harness, talk: &mut Talk<'_>, line: &str) -> Option<OwnChange> {
    let line = format!("{line}\r\n");
    let mut parser = Parser::new(Limits::OPEN);
    let Ok(Step::Command { from, .. }) = parser.next(line.as_bytes()) else { panic!("a command") };
    let args = parser.args(&line.as_bytes()[from..]);
    let spec = table::find(args.get(0)).expect("known");
    let connection = &mut talk.connection;
    let (peer, client) = (&connection.peer, &mut connection.client);
    OwnChange::of(&commands::Call { door: harness.door(), peer, client, args, spec })
}

fn tracking<'a>(harness: &'a Harness, how: &str) -> Talk<'a> {
    let mut talk = harness.talk();
    assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
    assert_eq!(talk.say(format!("CLIENT TRACKING ON {how}\r\n").as_bytes()), b"+OK\r\n");
    talk
}

fn told(talk: &Talk<'_>) -> usize {
    talk.connection.peer.pushes.load(Ordering::Relaxed)
}

fn left(harness: &Harness, key: &str) {
    harness.door().tracking.left(Left::Names(vec![name(key)]));
}

#[test]
fn of_what_left_while_a_client_with_no_loop_changed_it_the_client_is_told_unless_it_is_as_it_wrote_it() {
    let harness = Harness::new(RespConfig::default(), true);
    for (line, reply) in
        [("SET k v", Reply::error("TRYAGAIN")), ("INCR k", Reply::Int(1)), ("DEL k", Reply::Int(1))]
    {
        let mut talk = tracking(&harness, "NOLOOP");
        let peer = talk.connection.peer.clone();
        let _ = harness.door().tracking.note(&peer, &[name("k"), name("other")]);
        let own = own_change(&harness, &mut talk, line).expect("it changes a name");
        left(&harness, "k");
        left(&harness, "other");
        assert_eq!(told(&talk), 1, "{line}: of the other name at once");
        // Global is away: whether the name is as the command left it cannot be known.
        harness
            .runtime()
            .block_on(async {
                tokio::time::timeout(std::time::Duration::from_secs(30), own.end(harness.door(), &reply))
                    .await
            })
            .expect("in time");
        assert_eq!(told(&talk), 2, "{line}");
        left(&harness, "k");
        assert_eq!(told(&talk), 2, "{line}: once, until it is read again");
    }
}

#[test]
fn a_change_that_is_given_up_tells_what_was_heard_meanwhile_and_one_without_no_loop_at_once() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = tracking(&harness, "NOLOOP");
    let peer = talk.connection.peer.clone();
    let _ = harness.door().tracking.note(&peer, &[name("k")]);
    let own = own_change(&harness, &mut talk, "SET k v");
    left(&harness, "k");
    assert_eq!(told(&talk), 0);
    drop(own);
    assert_eq!(told(&talk), 1);
    let mut plain = tracking(&harness, "");
    assert!(own_change(&harness, &mut plain, "SET k v").is_none());
}

#[test]
fn with_broadcast_only_what_the_client_itself_wrote_is_no_news_to_it() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
    let _within = harness.runtime().enter();
    assert_eq!(talk.say(b"CLIENT TRACKING ON BCAST NOLOOP PREFIX k\r\n"), b"+OK\r\n");
    let (tracking, id) = (harness.door().tracking.clone(), talk.connection.peer.id);
    let (v, w) = (Some(BlobHash::of(b"v")), Some(BlobHash::of(b"w")));
    let wrote = |talk: &mut Talk<'_>, line: &str, reply: Reply| {
        let own = own_change(&harness, talk, line).expect("it changes a name");
        harness.runtime().block_on(own.end(harness.door(), &reply));
    };
    wrote(&mut talk, "SET k v", Reply::OK);
    assert!(tracking.is_echo(id, &name("k"), v));
    assert!(!tracking.is_echo(id, &name("k"), v), "once");
    wrote(&mut talk, "SET k v", Reply::OK);
    assert!(!tracking.is_echo(id, &name("k"), w), "another's");
    assert!(!tracking.is_echo(id, &name("k"), v), "what came first was another's: both are told");
    for line in ["SET k v", "SET k w", "DEL k", "SET k v", "SET k v"] {
        wrote(&mut talk, line, Reply::OK);
    }
    let echoes = [v, w, None, v].map(|now| tracking.is_echo(id, &name("k"), now));
    assert_eq!(echoes, [true; 4], "several, in their order");
    assert!(tracking.is_echo(id, &name("k"), v));
    for line in ["SET k v", "SET k w"] {
        wrote(&mut talk, line, Reply::OK);
    }
    assert!(tracking.is_echo(id, &name("k"), w), "the first changed nothing");
    assert!(!tracking.is_echo(id, &name("k"), v));
    wrote(&mut talk, "SET k v NX", Reply::Nil);
    assert!(!tracking.is_echo(id, &name("k"), v), "whether it was done is not known before");
    let before = told(&talk);
    wrote(&mut talk, "SET k v", Reply::error("TRYAGAIN"));
    assert_eq!(told(&talk), before + 1, "another's change may have been taken for it");
    assert!(!tracking.is_echo(id, &name("k"), v), "it may not have been done");
    for unproven in [Reply::NilArray, Reply::Nil, Reply::Array(vec![Reply::OK, Reply::error("OCCUPIED")])] {
        let before = told(&talk);
        wrote(&mut talk, "SET k v", unproven);
        assert_eq!(told(&talk), before + 1, "whether it was done is not known");
        assert!(!tracking.is_echo(id, &name("k"), v), "another's equal value is told");
    }
    wrote(&mut talk, "DEL k", Reply::Int(1));
    assert!(tracking.is_echo(id, &name("k"), None));
    wrote(&mut talk, "INCR k", Reply::Int(1));
    assert!(!tracking.is_echo(id, &name("k"), v), "what it came to is not known before");
    wrote(&mut talk, "SET other v", Reply::OK);
    assert!(!tracking.is_echo(id, &name("other"), v), "of it nothing is told: it is not remembered");
    wrote(&mut talk, "SET k v", Reply::OK);
    tracking.forget_written(id);
    assert!(!tracking.is_echo(id, &name("k"), v), "the watch began anew");
}

#[test]
fn who_reads_instead_is_told_and_if_he_is_gone_the_client_is_told_that() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut instead = harness.talk();
    assert!(instead.say(b"HELLO 3\r\n").starts_with(b"%7"));
    let id = instead.connection.peer.id;
    let mut talk = tracking(&harness, &format!("REDIRECT {id}"));
    let peer = talk.connection.peer.clone();
    let _ = harness.door().tracking.note(&peer, &[name("k")]);
    left(&harness, "k");
    assert_eq!((told(&instead), told(&talk)), (1, 0));
    assert!(!talk.say(b"CLIENT TRACKINGINFO\r\n").windows(15).any(|w| w == b"broken_redirect"));
    instead.connection.leave(harness.door());
    assert!(talk.say(b"CLIENT TRACKINGINFO\r\n").windows(15).any(|w| w == b"broken_redirect"));
    let _ = harness.door().tracking.note(&peer, &[name("k")]);
    left(&harness, "k");
    assert_eq!((told(&instead), told(&talk)), (1, 1));
}

#[test]
fn a_client_that_goes_back_to_resp2_is_told_no_more_and_says_so() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = tracking(&harness, "");
    assert!(harness.door().tracking.is_used());
    assert!(talk.say(b"HELLO 2\r\n").starts_with(b"*14"));
    assert!(!harness.door().tracking.is_used());
    assert_eq!(talk.say(b"CLIENT GETREDIR\r\n"), b":-1\r\n");
    assert!(!talk.connection.client.tracking.on);
}

#[test]
fn watches_of_a_client_are_few_and_end_with_its_tracking() {
    let harness = Harness::new(RespConfig::default(), true);
    let _within = harness.runtime().enter();
    let mut talk = harness.talk();
    assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
    for _ in 0..100 {
        assert_eq!(talk.say(b"CLIENT TRACKING ON BCAST\r\n"), b"+OK\r\n");
    }
    assert_eq!(format!("{:?}", harness.door().tasks), "Tasks(1)");
    assert!(
        talk.say(b"CLIENT TRACKING ON BCAST PREFIX a\r\n")
            .starts_with(b"-ERR Prefix 'a' overlaps with an existing")
    );
    assert_eq!(talk.say(b"CLIENT TRACKING OFF\r\n"), b"+OK\r\n");
    let ended = async {
        while format!("{:?}", harness.door().tasks) != "Tasks(0)" {
            tokio::task::yield_now().await;
        }
    };
    harness
        .runtime()
        .block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), ended).await })
        .expect("they end");
    let line = ('a'..='q').fold(String::new(), |line, prefix| line + " PREFIX " + &prefix.to_string());
    assert!(
        talk.say(format!("CLIENT TRACKING ON BCAST{line}\r\n").as_bytes()).starts_with(b"-ERR at most 16")
    );
    assert!(!harness.door().tracking.is_used(), "what is refused has begun nothing");
}

#[test]
fn a_read_that_is_not_held_forgets_no_note_of_another_that_is_under_way() {
    let harness = Harness::new(RespConfig::default(), true);
    let talk = tracking(&harness, "");
    let (door, peer) = (harness.door(), talk.connection.peer.clone());
    let note = || door.tracking.note(&peer, &[name("k")]);
    let (exists, get, given_up) = (note().waits(door), note().waits(door), note().waits(door));
    assert!(matches!(exists.settle(door, Reply::Int(1)), Reply::Several(_)));
    drop(given_up);
    assert_eq!(door.tracking.len(), 1, "the GET under way is still noted");
    left(&harness, "k");
    assert_eq!(told(&talk), 1);
    let _ = note();
    assert!(matches!(get.settle(door, Reply::Nil), Reply::Several(_)));
    assert_eq!((door.tracking.len(), door.tracking.table.lock().under_way.len()), (0, 0));
}

#[test]
fn whether_anybody_is_told_is_said_under_the_lock_so_that_it_is_said_in_its_order() {
    let harness = Harness::new(RespConfig::default(), true);
    let (one, other) = (harness.talk(), harness.talk());
    let tracking = Tracking::default();
    let mut said = Vec::new();
    let mut say = |used: bool| {
        assert!(tracking.table.is_locked());
        said.push(used);
    };
    tracking.begin(&one.connection.peer, None, &mut say);
    tracking.begin(&other.connection.peer, None, &mut say);
    tracking.end(&one.connection.peer, &mut say);
    tracking.end(&one.connection.peer, &mut say);
    tracking.end(&other.connection.peer, &mut say);
    assert_eq!(said, [true, true, true, false]);
}

#[test]
fn what_exec_reads_is_tracked_and_caching_said_before_multi_holds_for_all_of_it() {
    let harness = Harness::new(RespConfig::default(), true);
    let reads = b"MULTI\r\nGET a\r\nSET b v\r\nSTRLEN c\r\nEXEC\r\n";
    let invalidated: &[u8] = b">2\r\n$10\r\ninvalidate\r\n*2\r\n$1\r\na\r\n$1\r\nc\r\n";
    for (how, caching, wanted) in [
        ("", "", true),
        ("OPTIN", "", false),
        ("OPTIN", "CLIENT CACHING YES\r\n", true),
        ("OPTOUT", "", true),
    ] {
        let mut talk = tracking(&harness, how);
        talk.patient = true;
        talk.say(caching.as_bytes());
        talk.say(reads);
        let noted = harness.door().tracking.len();
        assert_eq!(noted, if wanted { 2 } else { 0 }, "{how} {caching}: while it is under way");
        talk.patient = false;
        talk.connection.leave(harness.door());
        let mut talk = tracking(&harness, how);
        talk.say(caching.as_bytes());
        let said = talk.say(reads);
        let is_told = said.windows(invalidated.len()).any(|part| part == invalidated);
        assert_eq!(is_told, wanted, "{how} {caching}: {}", said.escape_ascii());
        assert!(talk.connection.client.tracking.caching.is_none());
        talk.connection.leave(harness.door());
    }
}
