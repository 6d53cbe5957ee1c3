"""A broker that has nothing to do does nothing: with five ready backends, and
after whatever made them so, neither it nor its keeper makes a system call."""

import os
import re
import signal
import subprocess
import unittest

from harness import Home, program, wait_until

ATTACH_SECONDS = 1
QUIET_SECONDS = 30
BACKENDS = [f"demo{n}" for n in range(5)]
VERSION = "1.0.0"


def define(home, service):
    binary = program("client/backend_sdk/reference/zcb-reference-backend")
    home.write_definition(service, VERSION, binary, ["--endpoint", "{endpoint}", "--report-version", "{version}"])
    folder = os.path.join(home.dir, ".config", "zcbroker", "services")
    with open(os.path.join(folder, f"{service}.textproto"), "a", encoding="utf-8") as out:
        out.write("probe: PROBE_ZCCACHE_PING\nlanes: WIRE_LANE_PROST_V16\n")


def negotiate(home, service):
    """Over the framed protocol: a gRPC server would be built for gRPC."""
    here = os.path.dirname(os.path.abspath(__file__))
    code = ("import sys, negotiators; "
            "sys.exit(negotiators.ask(sys.argv[1], negotiators.hello(sys.argv[2], sys.argv[3])) or 0)")
    done = subprocess.run(["python3", "-c", code, home.socket, service, VERSION],
                          env={**home.env, "PYTHONPATH": f"{here}:{here}/../peers"}, check=False,
                          cwd=home.src, capture_output=True, text=True, timeout=60)
    return done.returncode == 0


def switches(pid):
    """How often its threads have waited, ever."""
    total = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/status", encoding="utf-8") as text:
            total += int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", text.read(), re.M).group(1))
    return total


class Idle(unittest.TestCase):
    def await_rest(self, pids):
        """Until nothing has happened for a second; the machine may be busy with others."""
        last = None

        def at_rest():
            nonlocal last
            before, last = last, [switches(pid) for pid in pids]
            signal.sigtimedwait([], 1)
            return before == last
        wait_until("broker and keeper to come to rest", at_rest, 60)

    def test_makes_no_system_call(self):
        with Home() as home:
            for service in BACKENDS:
                define(home, service)
            home.spawn_kept_broker()
            wait_until("the socket", lambda: os.path.exists(home.socket))
            for service in BACKENDS:
                wait_until(f"{service} to be ready", lambda service=service: negotiate(home, service), 60)
            pids = [wait_until("the broker", home.kept_broker), home.broker.pid]
            self.await_rest(pids)
            trace = os.path.join(home.dir, "trace")
            words = ["strace", "-f", "-q", "-ttt", "-o", trace]
            for pid in pids:
                words += ["-p", str(pid)]
            with subprocess.Popen(words, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as tracer:
                try:
                    tracer.wait(ATTACH_SECONDS + QUIET_SECONDS)
                    self.fail(f"strace ended: {tracer.stderr.read()}")
                except subprocess.TimeoutExpired:
                    tracer.terminate()
            with open(trace, encoding="utf-8", errors="replace") as text:
                lines = text.read().splitlines()
            # Being attached interrupts what they wait in, and each waits anew; being let go shows that.
            begin = float(lines[0].split()[1])
            seen = {int(line.split()[0]) for line in lines}
            late = [line for line in lines if float(line.split()[1]) > begin + ATTACH_SECONDS and
                    not line.rstrip().endswith("<detached ...>")]
            self.assertEqual(late, [], home.broker_log()[-2000:])
            self.assertEqual(seen, set(pids), "all threads were watched")
            print(f"  {len(BACKENDS)} ready backends, {QUIET_SECONDS} s: no system call of broker and keeper")
            for service in BACKENDS:
                self.assertTrue(negotiate(home, service), service)
