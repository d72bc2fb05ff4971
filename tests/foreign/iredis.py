"""iredis as a person uses it: at a terminal, a line at a time.

Usage: iredis.py IREDIS PORT
"""

import os
import pty
import select
import sys
import time

IREDIS, PORT = sys.argv[1:3]
PROMPT = b"[1]>"
# What is typed, and what the screen then shows that was not typed.
LINES = [
    ("set iredis 41", b"OK"),
    ("incr iredis", b"42"),
    ("mget iredis nothing", b"(nil)"),
    ("set iredis v ex 100", b"OK"),
    ("incr iredis", b"not an integer"),
    ("object encoding iredis", b"embstr"),
    ("exists iredis nothing", b"(integer)"),
    ("getdel iredis", b'"v"'),
    ("get iredis", b"(nil)"),
]


def main():
    child, screen = pty.fork()
    if child == 0:
        os.environ.update(TERM="xterm", PROMPT_TOOLKIT_NO_CPR="1")
        os.execv(IREDIS, [IREDIS, "-p", PORT, "-n", "1"])
    seen, deadline = bytearray(), time.time() + 90

    def read():
        assert time.time() < deadline, bytes(seen[-2000:])
        if select.select([screen], [], [], 1)[0]:
            more = os.read(screen, 65536)
            assert more, bytes(seen[-2000:])
            seen.extend(more)

    def shows(mark, since):
        while mark not in seen[since:]:
            read()

    shows(PROMPT, 0)
    for line, mark in LINES:
        since = len(seen)
        os.write(screen, line.encode() + b"\r")
        # The line is drawn again as it is read; what follows is the answer, and the next prompt.
        shows(b"\x1b[?2004l", since)
        answer = seen.index(b"\x1b[?2004l", since)
        shows(mark, answer)
        shows(PROMPT, answer)
    os.write(screen, b"exit\r")
    try:
        while True:
            read()
    except OSError:
        pass
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    print("ok: iredis")


main()
