"""usage: ping.py DIRECT_ENDPOINT SERVICE VERSION"""
import sys

import zcbroker

PING = bytes.fromhex("080000000f00000000000000")  # a daemon answers with the same

endpoint, service, version = sys.argv[1:]
try:
    with zcbroker.connect(endpoint, service=service, version=version) as daemon:
        daemon.sock.settimeout(5)
        daemon.sock.sendall(PING)
        assert daemon.sock.recv(64) == PING
        print(f"pong by {daemon.lane.value} at {daemon.endpoint}")
except zcbroker.NoDaemon as error:
    sys.exit(str(error))
