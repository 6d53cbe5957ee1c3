"""Asks a broker for a route so many times a second, over a new framed connection
each. A process of its own, since a broker looks at the environment of whoever
asks.

usage: negotiators.py SOCKET SERVICE VERSION RATE; lines on standard input: "rest" (answered
by "resting", after which nothing is asked until "go"), "go", "end". At the end it
prints how many were asked, how many failed, and the first failure."""

import select
import socket
import sys
import time

from launcher_home import number_field, text_field, varint

BATCH = 20


def hello(service, version):
    """A Hello on the control lane, as a whole frame."""
    body = (number_field(1, 1) + number_field(2, 1) + text_field(3, service) + text_field(4, version) +
            text_field(5, "1.0.0"))
    frame = number_field(1, 1) + varint(4 << 3 | 2) + varint(len(body)) + body + number_field(5, 7)
    return b"\x01" + len(frame).to_bytes(4, "little") + frame


def ask(path, request):
    """What went wrong, or None."""
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(path)
            client.sendall(request)
            answer = b""
            while part := client.recv(65536):
                answer += part
    except OSError as error:
        return repr(error)
    # A route names the daemon's endpoint.
    return None if b".sock" in answer and b"Refused" not in answer else repr(answer[:300])


def main():
    path, request, rate = sys.argv[1], hello(sys.argv[2], sys.argv[3]), float(sys.argv[4])
    asked, failures = 0, []
    due, resting = time.monotonic(), False
    while True:
        wait = None if resting else max(0.0, due - time.monotonic())
        if select.select([sys.stdin], [], [], wait)[0]:
            word = sys.stdin.readline().strip()
            if word in ("end", ""):
                break
            resting = word == "rest"
            if resting:
                print("resting", flush=True)
            due = time.monotonic()
            continue
        for _ in range(BATCH):
            failure = ask(path, request)
            asked += 1
            if failure:
                failures.append(failure)
        # A machine that was busy for a moment need not be flooded later.
        due = max(due + BATCH / rate, time.monotonic() - 1.0)
    print(asked, len(failures), failures[0] if failures else "")


if __name__ == "__main__":
    main()
