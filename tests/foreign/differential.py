"""Random command sequences to Redis and to a namespace in replace mode: the replies must be equal, byte by byte.

Usage: differential.py REDIS_SOCKET HOST:PORT [COMMANDS] [SEED]

What differs on purpose is listed in docs/RESP.md, and left out or made equal here. Needs nothing but Python.
"""

import random
import socket
import sys
import time

KEYS = [b"k%d" % n for n in range(8)] + [b"\x00\xff", b"a b"]
VALUES = [b"", b"1", b"-5", b"10", b"x", b"hello world", b"\x00\r\n\xff", b"9223372036854775807", b"y" * 300]


class Wire:
    """A connection that speaks bytes."""

    def __init__(self, at):
        if ":" in at:
            host, port = at.rsplit(":", 1)
            self.socket = socket.create_connection((host, int(port)), timeout=60)
        else:
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.settimeout(60)
            self.socket.connect(at)
        self.file = self.socket.makefile("rb")

    def ask(self, *words):
        self.send(*words)
        return self.reply()

    def send(self, *words):
        parts = [b"*%d\r\n" % len(words)]
        for word in words:
            parts.append(b"$%d\r\n%s\r\n" % (len(word), word))
        self.socket.sendall(b"".join(parts))

    def reply(self):
        """The bytes of one reply."""
        line = self.file.readline()
        if not line.endswith(b"\r\n"):
            raise EOFError(f"the connection ended: {line!r}")
        kind, length = line[:1], line[1:-2]
        if kind in b"$=":
            return line if length == b"-1" else line + self.file.read(int(length) + 2)
        if kind in b"*~>":
            return line + b"".join(self.reply() for _ in range(max(0, int(length))))
        if kind == b"%":
            return line + b"".join(self.reply() for _ in range(2 * int(length)))
        return line


def command(dice):
    """One random command."""
    key, value = lambda: dice.choice(KEYS), lambda: dice.choice(VALUES)
    keys = lambda: [key() for _ in range(dice.randint(1, 4))]
    number = lambda: str(dice.choice([0, 1, -1, 5, 100, -100, 2**62, -(2**62), 2**63 - 1])).encode()
    long = lambda: str(dice.choice([1000, 5000, 100000])).encode()
    pairs = lambda: [word for k in keys() for word in (k, value())]
    expiry = lambda: dice.choice([[], [], [b"EX", long()], [b"PX", b"100000000"], [b"KEEPTTL"], [b"EX", b"0"], [b"EX"]])
    table = [
        lambda: [b"GET", key()],
        lambda: [b"SET", key(), value()],
        lambda: [b"SET", key(), value(), *dice.choice([[], [b"NX"], [b"XX"]]), *dice.choice([[], [b"GET"]]), *expiry()],
        lambda: [b"SETNX", key(), value()],
        lambda: [b"SETEX", key(), long(), value()],
        lambda: [b"PSETEX", key(), dice.choice([b"100000000", b"-1", b"0", b"x"]), value()],
        lambda: [b"GETDEL", key()],
        lambda: [b"GETEX", key(), *dice.choice([[], [b"PERSIST"], [b"EX", long()], [b"NOPE"]])],
        lambda: [b"GETSET", key(), value()],
        lambda: [b"MGET", *keys()],
        lambda: [b"MSET", *pairs()],
        lambda: [b"MSETNX", *pairs()],
        lambda: [b"STRLEN", key()],
        lambda: [b"GETRANGE", key(), number(), number()],
        lambda: [b"EXISTS", *keys()],
        lambda: [b"DEL", *keys()],
        lambda: [b"UNLINK", *keys()],
        lambda: [b"TYPE", key()],
        lambda: [b"TTL", key()],
        lambda: [b"EXPIRE", key(), dice.choice([long(), b"0", b"-1", b"x"]), *dice.choice([[], [b"NX"], [b"XX"], [b"GT"], [b"LT"]])],
        lambda: [b"EXPIREAT", key(), b"1"],
        lambda: [b"PERSIST", key()],
        lambda: [b"TOUCH", *keys()],
        lambda: [b"DBSIZE"],
        lambda: [b"COPY", key(), key(), *dice.choice([[], [b"REPLACE"], [b"NOPE"]])],
        lambda: [b"RENAME", key(), key()],
        lambda: [b"RENAMENX", key(), key()],
        lambda: [b"INCR", key()],
        lambda: [b"DECR", key()],
        lambda: [b"INCRBY", key(), number()],
        lambda: [b"DECRBY", key(), number()],
        lambda: [b"APPEND", key(), value()],
        lambda: [b"ECHO", value()],
        lambda: [b"PING"],
        lambda: [dice.choice([b"NOPE", b"get x"]), value()[:20]],
        lambda: [dice.choice([b"GET", b"SET", b"MSET", b"DEL", b"INCR"])],
        lambda: [b"MSET", *keys()[:1]],
    ]
    return dice.choice(table)()


def all_keys(wire):
    """All keys in order; None if they are not told."""
    wire.send(b"KEYS", b"*")
    line = wire.file.readline()
    if line[:1] != b"*":
        return None
    keys = []
    for _ in range(int(line[1:])):
        length = int(wire.file.readline()[1:])
        keys.append(wire.file.read(length + 2)[:-2])
    return sorted(keys)


def transaction(dice):
    """MULTI, some commands that both can queue, EXEC; now and then DISCARD."""
    out = {b"MSETNX", b"DBSIZE"}
    commands = [c for c in (command(dice) for _ in range(dice.randint(1, 5))) if c[0] not in out]
    return [[b"MULTI"], *commands, [dice.choice([b"EXEC", b"EXEC", b"EXEC", b"DISCARD"])]]


def is_the_same(words, theirs, ours):
    if theirs == ours:
        return True
    # A second may have passed between the two.
    if words[0] in (b"TTL",) and theirs[:1] == ours[:1] == b":":
        return abs(int(theirs[1:]) - int(ours[1:])) <= 2
    return False


def main():
    redis, ours = Wire(sys.argv[1]), Wire(sys.argv[2])
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 3000
    seed = int(sys.argv[4]) if len(sys.argv) > 4 else int(time.time())
    print(f"seed {seed}")
    dice = random.Random(seed)
    redis.ask(b"FLUSHALL")
    deadline = time.time() + 60
    while True:
        assert ours.ask(b"SELECT", b"1") == b"+OK\r\n"
        keys = all_keys(ours)
        if keys == []:
            break
        if keys is not None:
            ours.ask(b"DEL", *keys[:1000])
            continue
        assert time.time() < deadline, "the namespace is not there"
        time.sleep(0.1)
    done, wrong = 0, 0
    while done < count:
        if dice.random() < 0.05:
            batch = transaction(dice)
        else:
            batch = [command(dice) for _ in range(dice.choice([1, 1, 1, 2, 8]))]
        for words in batch:
            redis.send(*words)
            ours.send(*words)
        for words in batch:
            theirs, mine = redis.reply(), ours.reply()
            done += 1
            if not is_the_same(words, theirs, mine):
                wrong += 1
                print(f"DIFFERENT after {done}: {words}\n  redis  {theirs!r}\n  dstore {mine!r}")
                if wrong >= 10:
                    sys.exit(1)
    if all_keys(redis) != all_keys(ours):
        print("DIFFERENT: the keys that are left")
        wrong += 1
    print(f"{done} commands, {wrong} different")
    sys.exit(1 if wrong else 0)


main()
