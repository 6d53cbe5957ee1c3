"""Run as an unprivileged user by test_public_names.py: a keeper, and that many
clients at a named route at once. Arguments: programs, named route, clients."""

import os
import resource
import select
import socket
import subprocess
import sys
import time

PING = bytes.fromhex("080000000f00000000000000")


def main(tools, route, count):
    assert os.geteuid() != 0
    # The client's own end; brokers raise theirs by themselves.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = min(hard, 2 * count + 100)
    keeper = subprocess.Popen([f"{tools}/zcbroker-keeper"], stdin=subprocess.DEVNULL)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        end = time.monotonic() + 20
        while not os.path.exists(route):
            assert time.monotonic() < end, "no named route"
            select.select([], [], [], 0.01)
        begin = time.monotonic()
        clients = []
        for _ in range(count):
            client = socket.socket(socket.AF_UNIX)
            client.connect(route)
            client.sendall(PING)
            clients.append(client)
        # All are open before the first is read.
        for client in clients:
            client.settimeout(30)
            answer = client.recv(64)
            assert answer == PING, f"answered {answer!r}"
        for client in clients:
            client.sendall(PING)
        for client in clients:
            assert client.recv(64) == PING
        print(f"{count} clients at once as uid {os.geteuid()}: all answered twice, {time.monotonic() - begin:.1f} s")
    finally:
        subprocess.run([f"{tools}/zcbroker", "down", "--stop-backends"], stdin=subprocess.DEVNULL, check=False,
                       stdout=subprocess.DEVNULL)
        keeper.wait(20)


main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
