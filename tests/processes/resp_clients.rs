//! Clients of Redis that others wrote, in this process: redis-rs as it is, and the bytes that go-redis connects with.

use crate::resp_talk::{DOOR, Talk, replacing, two};
use crate::rig::{Global, Local, noise, until};
use redis::{Commands, ConnectionLike, Pipeline, RedisError, RedisResult};
use std::io::Write;

/// A client of the database in replace mode, with or without RESP3.
fn client(local: &Local, protocol: &str) -> redis::Connection {
    let path = local.folder().join("resp.sock");
    let at = format!("redis+unix://{}?db=1{protocol}", path.display());
    redis::Client::open(at).expect("an address").get_connection().expect("connected")
}

fn all_commands(one: &mut redis::Connection, other: &mut redis::Connection) -> RedisResult<()> {
    assert!(one.check_connection());
    let value = noise(3, 300_000);
    one.set::<_, _, ()>("k", &value[..])?;
    assert_eq!(other.get::<_, Vec<u8>>("k")?, value);
    assert_eq!(one.get::<_, Option<String>>("absent")?, None);
    assert_eq!(one.incr::<_, _, i64>("n", 5)?, 5);
    assert_eq!(other.incr::<_, _, i64>("n", -2)?, 3);
    assert_eq!(one.mget::<_, Vec<Option<i64>>>(&["n", "absent"])?, [Some(3), None]);
    assert!(one.expire::<_, bool>("n", 100)?);
    assert!((90..=100).contains(&other.ttl::<_, i64>("n")?));
    let (set, read): (String, i64) = redis::pipe().set("p", 7).get("p").query(one)?;
    assert_eq!((set.as_str(), read), ("OK", 7));
    let (sum,): (i64,) = Pipeline::new().atomic().set("p", 1).ignore().incr("p", 1).query(one)?;
    assert_eq!((sum, other.get::<_, i64>("p")?), (2, 2));
    let doubled: (i64,) = redis::transaction(one, &["p"], |one, pipe| {
        let p: i64 = one.get("p")?;
        pipe.set("p", p * 2).ignore().get("p").query(one)
    })?;
    assert_eq!(doubled, (4,));
    let mut found: Vec<String> = one.scan_match("*")?.collect::<RedisResult<_>>()?;
    found.sort();
    assert_eq!(found, ["k", "n", "p"]);
    let wrong: RedisError = one.incr::<_, _, i64>("k", 1).expect_err("it is no number");
    assert!(wrong.to_string().contains("not an integer"), "{wrong}");
    assert_eq!(one.del::<_, i64>(&["k", "n", "p"])?, 3);
    assert!(!other.exists::<_, bool>("k")?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_rs_uses_two_nodes_as_it_is() {
    let (_global, a, b) = two().await;
    replacing(&a).await;
    replacing(&b).await;
    for protocol in ["", "&protocol=resp3"] {
        let (mut one, mut other) = (client(&a, protocol), client(&b, protocol));
        all_commands(&mut one, &mut other).unwrap_or_else(|e| panic!("{protocol}: {e}"));
    }
}

/// What go-redis says when it connects, version by version, and the kinds of the replies. It goes on after an error of
/// all but HELLO, of which it then does without.
const GO_REDIS: &[(&str, &[u8], &[&str])] = &[
    (
        "9.0, with a client's name and a database",
        b"*2\r\n$5\r\nhello\r\n$1\r\n3\r\n\
          *2\r\n$6\r\nselect\r\n$1\r\n1\r\n*3\r\n$6\r\nclient\r\n$7\r\nsetname\r\n$6\r\nworker\r\n",
        &["[server redis version ", "OK", "OK"],
    ),
    (
        "9.8, without RESP3",
        b"*2\r\n$5\r\nhello\r\n$1\r\n2\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$8\r\nLIB-NAME\r\n$19\r\ngo-redis(,go1.23.4)\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$7\r\nLIB-VER\r\n$5\r\n9.8.0\r\n",
        &["[server redis version ", "OK", "OK"],
    ),
    (
        "9.8",
        b"*2\r\n$5\r\nhello\r\n$1\r\n3\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$8\r\nLIB-NAME\r\n$19\r\ngo-redis(,go1.23.4)\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$7\r\nLIB-VER\r\n$5\r\n9.8.0\r\n",
        &["[server redis version ", "OK", "OK"],
    ),
    (
        "9.16, which asks to be told of maintenance",
        b"*2\r\n$5\r\nhello\r\n$1\r\n3\r\n\
          *5\r\n$6\r\nclient\r\n$19\r\nmaint_notifications\r\n$2\r\non\r\n$20\r\nmoving-endpoint-type\r\n$4\r\nnone\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$8\r\nLIB-NAME\r\n$19\r\ngo-redis(,go1.25.3)\r\n\
          *4\r\n$6\r\nclient\r\n$7\r\nsetinfo\r\n$7\r\nLIB-VER\r\n$6\r\n9.16.0\r\n\
          *3\r\n$3\r\nset\r\n$2\r\ngo\r\n$5\r\nredis\r\n*2\r\n$3\r\nget\r\n$2\r\ngo\r\n",
        &["[server redis version ", "-ERR unknown subcommand 'maint_notifications'.", "OK", "OK", "OK", "redis"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn go_redis_connects_with_the_bytes_that_it_sends() {
    let global = Global::start(&[]);
    let a = Local::start_with(&global, DOOR).await;
    let mut first = Talk::to(&a);
    until("the namespaces are there", async || first.ask("EXISTS k") == "0").await;
    let mut connected = Vec::new();
    for (version, bytes, replies) in GO_REDIS {
        // At once, and as a network may cut it.
        for size in [bytes.len(), 7] {
            let mut talk = Talk::to(&a);
            for piece in bytes.chunks(size) {
                talk.stream.write_all(piece).expect("written");
            }
            for wanted in *replies {
                let reply = talk.reply();
                assert!(reply.starts_with(wanted), "go-redis {version}: {reply} instead of {wanted}");
            }
            connected.push(talk);
        }
    }
    let list = first.ask("CLIENT LIST");
    for wanted in ["name=worker ", "lib-name=go-redis(,go1.25.3) lib-ver=9.16.0"] {
        assert_eq!(list.matches(wanted).count(), 2, "{wanted}: {list}");
    }
}
