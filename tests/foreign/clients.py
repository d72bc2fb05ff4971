"""redis-py as its users use it, against two Locals of one Global.

Usage: clients.py HOST:PORT_OF_A HOST:PORT_OF_B SOCKET_OF_A
"""

import asyncio
import sys
import threading
import time

import redis
import redis.asyncio
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

A, B = (at.rsplit(":", 1) for at in sys.argv[1:3])
SOCKET = sys.argv[3]


def at(place, db=1, **more):
    return redis.Redis(host=place[0], port=int(place[1]), db=db, decode_responses=True, **more)


def ready(client):
    deadline = time.time() + 60
    while True:
        try:
            client.set("ready", "yes")
            return client
        except redis.exceptions.RedisError as e:
            assert time.time() < deadline, e
            time.sleep(0.1)


def eventually(what, holds):
    deadline = time.time() + 30
    while not holds():
        assert time.time() < deadline, what
        time.sleep(0.01)


def both_protocols():
    for protocol in (2, 3):
        r = ready(at(A, protocol=protocol))
        assert r.ping()
        assert r.set("a", "1") and r.get("a") == "1"
        assert r.set("a", "2", nx=True) is None and r.get("a") == "1"
        assert r.set("a", "2", get=True) == "1"
        assert r.incr("a") == 3 and r.append("a", "0") == 2 and r.getrange("a", 0, 0) == "3"
        assert r.mset({"x": "1", "y": "2"}) and r.mget("x", "y", "nope") == ["1", "2", None]
        assert r.exists("x", "x", "nope") == 2 and r.delete("x", "y") == 2
        assert r.set("t", "v", ex=100) and 98 <= r.ttl("t") <= 100 and r.persist("t") and r.ttl("t") == -1
        assert r.expire("t", 50) and r.getdel("t") == "v" and r.type("t") == "none"
        assert r.info("replication")["role"] == "master" and r.info()["loading"] == 0
        assert "get" in r.command() and r.config_get("save") == {"save": ""}
        assert r.client_setname("me") and r.client_getname() == "me"
        assert any(client["name"] == "me" for client in r.client_list())
        assert set(r.scan_iter(match="a*", count=1)) >= {"a"}
        raw = redis.Redis(host=A[0], port=int(A[1]), db=1, protocol=protocol)
        every = bytes(range(256))
        assert raw.set(every, every * 1000) and raw.get(every) == every * 1000
        large = every * 8192  # 2 MiB
        assert raw.set("large", large) and raw.get("large") == large
        assert redis.Redis(host=B[0], port=int(B[1]), db=1, protocol=protocol).get("large") == large
        try:
            r.execute_command("NOPE", "x")
            raise SystemExit("an unknown command was taken")
        except redis.exceptions.ResponseError as e:
            assert "unknown command 'NOPE'" in str(e), e
        r.close()
    assert redis.Redis(unix_socket_path=SOCKET).ping()


def write_once():
    r = ready(at(A, db=0))
    r.delete("once")
    assert r.set("once", "1") and r.set("once", "1")
    try:
        r.set("once", "2")
        raise SystemExit("an occupied key was taken")
    except redis.exceptions.ResponseError as e:
        assert str(e).startswith("OCCUPIED Key occupied! (blake3:"), e
    assert r.get("once") == "1" and at(B, db=0).get("once") == "1"


def pipelines():
    r = at(A)
    for transaction in (True, False):
        with r.pipeline(transaction=transaction) as pipe:
            pipe.set("p", "1").incr("p").get("p").mget("p", "nope").delete("p")
            assert pipe.execute() == [True, 2, "2", ["2", None], 1]
    with r.pipeline(transaction=False) as pipe:
        for n in range(5000):
            pipe.set(f"many{n}", n)
        assert all(pipe.execute())
        for n in range(5000):
            pipe.get(f"many{n}")
        assert pipe.execute() == [str(n) for n in range(5000)]
    r.set("w", "1")
    with r.pipeline() as pipe:
        pipe.watch("w")
        at(B).set("w", "2")
        pipe.multi()
        pipe.set("w", "3")
        try:
            pipe.execute()
            raise SystemExit("a watched key changed, and EXEC ran")
        except redis.exceptions.WatchError:
            pass
    assert r.get("w") == "2"
    assert r.transaction(lambda pipe: pipe.multi() or pipe.incr("w"), "w") == [3]


def never_stale():
    """With client-side caching off: what is written through one Local is what every later GET through the other reads."""
    a, b = at(A), at(B)
    for n in range(300):
        a.set("fresh", n)
        assert b.get("fresh") == str(n)
        b.set("fresh", -n)
        assert a.get("fresh") == str(-n)
        if n % 50 == 0:
            a.delete("fresh")
            assert b.get("fresh") is None


def client_side_caching():
    cached = at(A, protocol=3, cache_config=redis.cache.CacheConfig())
    cache = cached.get_cache()
    other = at(B)
    other.set("c", "1")
    assert cached.get("c") == "1"
    eventually("the value is kept in the client", lambda: cached.get("c") == "1" and cache.size >= 1)
    other.set("c", "2")
    eventually("the invalidation is read", lambda: cached.get("c") == "2")
    for _ in range(100):
        assert cached.get("c") == "2"
    other.delete("c")
    eventually("the deletion is read", lambda: cached.get("c") is None)
    # One who writes and then reads reads what he wrote.
    for n in range(50):
        cached.set("own", n)
        eventually("an own write is read", lambda: cached.get("own") == str(n))
    cached.close()


def pools():
    pool = redis.BlockingConnectionPool(
        host=A[0], port=int(A[1]), db=1, max_connections=8, retry=Retry(ExponentialBackoff(), 5), timeout=60
    )
    failures = []

    def work(worker):
        try:
            r = redis.Redis(connection_pool=pool)
            for n in range(100):
                r.set(f"pool{worker}", n)
                assert r.get(f"pool{worker}") == str(n).encode()
                assert r.incr("pool") > 0
        except Exception as e:  # noqa: BLE001
            failures.append(e)

    redis.Redis(connection_pool=pool).delete("pool")
    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert redis.Redis(connection_pool=pool).get("pool") == b"1600"


async def asynchronous():
    for protocol in (2, 3):
        r = redis.asyncio.Redis(host=A[0], port=int(A[1]), db=1, protocol=protocol, decode_responses=True)
        await r.set("async", "1")
        assert await r.get("async") == "1"
        values = await asyncio.gather(*(r.get("async") for _ in range(100)))
        assert values == ["1"] * 100
        async with r.pipeline(transaction=True) as pipe:
            assert await pipe.incr("async").get("async").execute() == [2, "2"]
        await r.aclose()


def killed_clients_return():
    r = at(A, retry=Retry(ExponentialBackoff(), 3))
    number = r.client_id()
    assert at(A).client_kill_filter(_id=number) == 1
    assert r.ping() and r.client_id() != number


for part in (both_protocols, write_once, pipelines, never_stale, client_side_caching, pools, killed_clients_return):
    part()
    print(f"ok: redis-py, {part.__name__.replace('_', ' ')}", flush=True)
asyncio.run(asynchronous())
print("ok: redis-py, asyncio")
