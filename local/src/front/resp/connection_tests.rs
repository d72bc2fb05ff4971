use super::super::config::RespConfig;
use super::super::harness::Harness;
use super::*;

fn command(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

fn value(text: &str) -> Reply {
    Reply::text(text)
}

#[test]
fn an_invalidation_comes_before_and_again_behind_replies_that_were_outstanding() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
    talk.patient = true;
    assert_eq!(talk.say(b"GET a\r\nGET b\r\n"), b"", "both are under way");
    let gone = Reply::Push(vec![Reply::word("invalidate"), Reply::Array(vec![Reply::word("a")])]);
    talk.connection.peer.pushes.store(1, Ordering::Relaxed);
    assert!(talk.connection.push(&gone));
    assert_eq!(talk.say(b"GET c\r\n"), b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n", "at once");
    talk.connection.completed(1, value("b"));
    assert_eq!(talk.say(b""), b"");
    // It may have been read before the change: a cache that keeps it must be told after it.
    talk.connection.completed(0, value("old"));
    let again = b"$3\r\nold\r\n$1\r\nb\r\n>2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\na\r\n";
    assert_eq!(talk.say(b"").escape_ascii().to_string(), again.escape_ascii().to_string());
    talk.connection.completed(3, value("c"));
    assert_eq!(talk.say(b"PING\r\n"), b"$1\r\nc\r\n+PONG\r\n", "what began later is not told of again");
}

/// Sends what is left of `bytes` for as long as any of it is taken.
fn send_some(talk: &mut super::super::harness::Talk<'_>, bytes: &mut &[u8]) {
    loop {
        let (n, fate) = talk.send(&bytes[..bytes.len().min(1 << 16)]);
        assert_ne!(fate, Fate::Gone);
        *bytes = &bytes[n..];
        if n == 0 || bytes.is_empty() {
            return;
        }
    }
}

#[test]
fn commands_under_way_have_a_bound_in_bytes_and_what_they_hold_is_counted_and_given_back() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    talk.patient = true;
    let large = vec![7; 1 << 20];
    let pipeline: Vec<u8> =
        (0..40).flat_map(|n| command(&[b"SET", format!("k{n}").as_bytes(), &large])).collect();
    let (mut rest, mut done) = (&pipeline[..], 0);
    let mut most = 0;
    while done < 40 {
        send_some(&mut talk, &mut rest);
        let (held, counted) =
            (talk.connection.slots.held(), harness.door().request_bytes.load(Ordering::Relaxed));
        assert!(held < HELD_HIGH + (2 << 20), "`{held}` bytes are under way");
        assert!(counted + INPUT_FREE >= held, "`{counted}` bytes are counted of `{held}`");
        most = most.max(held);
        talk.connection.completed(done, Reply::OK);
        done += 1;
        assert_eq!(talk.turn(), Fate::Waits);
    }
    assert!(rest.is_empty() && most >= HELD_HIGH, "as much as may is under way: {most}");
    assert_eq!(talk.read(), b"+OK\r\n".repeat(40));
    assert_eq!((talk.connection.slots.held(), harness.door().request_bytes.load(Ordering::Relaxed)), (0, 0));
}

#[test]
fn when_memory_is_scarce_at_the_door_a_connection_has_one_large_command_under_way() {
    let config = RespConfig { request_bytes_max: 8 << 20, ..RespConfig::default() };
    let harness = Harness::new(config, true);
    assert!(harness.door().reserve(0, 5 << 20));
    let mut talk = harness.talk();
    talk.patient = true;
    let pipeline = command(&[b"SET", b"a", &vec![7; 1 << 20]]).repeat(1);
    let more = command(&[b"SET", b"b", &vec![7; 1 << 20]]);
    let bytes = [pipeline, more].concat();
    let mut rest = &bytes[..];
    send_some(&mut talk, &mut rest);
    assert_eq!(talk.connection.slots.running(), 1);
    assert!(!rest.is_empty(), "the second is not read");
    talk.connection.completed(0, Reply::OK);
    assert_eq!(talk.turn(), Fate::Waits);
    send_some(&mut talk, &mut rest);
    assert_eq!((talk.connection.slots.running(), rest.len()), (1, 0));
}

#[test]
fn beyond_the_bound_of_all_connections_a_command_is_refused() {
    let config = RespConfig { request_bytes_max: 8 << 20, ..RespConfig::default() };
    let harness = Harness::new(config, true);
    assert!(harness.door().reserve(0, 7 << 20));
    let mut talk = harness.talk();
    talk.patient = true;
    let bytes = command(&[b"SET", b"a", &vec![7; 4 << 20]]);
    let (mut rest, mut fate) = (&bytes[..], Fate::Waits);
    while fate != Fate::Gone {
        let (n, now) = talk.send(&rest[..rest.len().min(1 << 16)]);
        (rest, fate) = (&rest[n..], now);
        assert!(n > 0 || fate == Fate::Gone);
    }
    assert!(talk.read().starts_with(b"-OOM"));
    talk.connection.leave(harness.door());
    assert_eq!(harness.door().request_bytes.load(Ordering::Relaxed), 7 << 20);
}

#[test]
fn what_a_client_is_owed_and_what_it_queues_is_counted() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    let counted = || harness.door().request_bytes.load(Ordering::Relaxed);
    let echo = command(&[b"ECHO", &vec![7; 4 << 20]]);
    send_some(&mut talk, &mut &echo[..]);
    assert!(counted() > 3 << 20, "{}", counted());
    while talk.turn() == Fate::Waits && !talk.connection.output.is_empty() {
        talk.read();
    }
    talk.read();
    assert_eq!(counted(), 0);
    let bytes = [command(&[b"MULTI"]), command(&[b"SET", b"k", &vec![7; 4 << 20]])].concat();
    send_some(&mut talk, &mut &bytes[..]);
    assert!(counted() > 3 << 20, "{}", counted());
    send_some(&mut talk, &mut &b"DISCARD\r\n"[..]);
    assert_eq!(counted(), 0);
    let many = [b"*65536\r\n".to_vec(), b"$0\r\n\r\n".repeat(65_000)].concat();
    send_some(&mut talk, &mut &many[..]);
    assert!(counted() > 1 << 20, "the places of arguments: {}", counted());
}

#[test]
fn who_takes_a_long_reply_is_not_deaf_and_who_takes_no_push_is() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    assert!(talk.say(b"HELLO 3\r\n").starts_with(b"%7"));
    reply_of(&mut talk, 12 << 20);
    let gone = |len| Reply::Push(vec![Reply::Bulk(vec![7; len].into())]);
    assert!(talk.connection.push(&gone(1000)), "only the reply is long");
    assert!(!talk.connection.push(&gone(9 << 20)));
}

fn reply_of(talk: &mut super::super::harness::Talk<'_>, len: usize) {
    Reply::Bulk(vec![7; len].into()).write(&mut talk.connection.output, Version::Three);
}

#[test]
fn a_client_of_resp2_is_told_only_on_the_channel_that_it_listens_to() {
    let harness = Harness::new(RespConfig::default(), true);
    for (channel, wanted) in [("other", false), ("__redis__:invalidate", true)] {
        let mut talk = harness.talk();
        talk.say(format!("SUBSCRIBE {channel}\r\n").as_bytes());
        assert!(talk.connection.push(&Reply::Push(vec![Reply::word("message")])));
        assert_eq!(!talk.say(b"").is_empty(), wanted, "{channel}");
    }
}

#[test]
fn replies_are_not_turned_off_within_a_transaction() {
    let harness = Harness::new(RespConfig::default(), true);
    let mut talk = harness.talk();
    let said = talk.say(b"MULTI\r\nCLIENT REPLY OFF\r\nPING\r\nEXEC\r\nPING\r\n");
    let text = String::from_utf8_lossy(&said).into_owned();
    assert!(
        text.starts_with("+OK\r\n-ERR") && text.contains("-EXECABORT") && text.ends_with("+PONG\r\n"),
        "{text}"
    );
}

#[test]
fn a_multi_that_keeps_much_and_goes_not_on_is_given_up_and_a_refused_one_keeps_nothing() {
    let harness = Harness::new(RespConfig::default(), true);
    let patience = Duration::from_secs(10);
    let (before, after) = (Moment::from_nanos(1), Moment::from_nanos(20_000_000_000));
    for (len, wanted) in [(1000, false), (INPUT_FREE + 1, true)] {
        let mut talk = harness.talk();
        talk.say(b"MULTI\r\n");
        assert_eq!(talk.say(&command(&[b"SET", b"k", &vec![7; len]])), b"+QUEUED\r\n");
        assert!(!talk.connection.is_stuck(before, patience));
        assert_eq!(talk.connection.is_stuck(after, patience), wanted, "{len}");
        assert!(talk.say(b"GET\r\n").starts_with(b"-ERR wrong number"));
        assert!(!talk.connection.is_stuck(after, patience), "it keeps nothing");
        assert_eq!(talk.say(&command(&[b"SET", b"k", &vec![7; len]])), b"+QUEUED\r\n");
        let multi = talk.connection.client.multi.as_ref().expect("it goes on");
        assert_eq!((multi.bytes, multi.queue.len()), (0, 0));
        assert!(talk.say(b"EXEC\r\n").starts_with(b"-EXECABORT"));
    }
}
