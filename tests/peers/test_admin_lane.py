"""Upstream's own command line, unmodified, against our broker: every verb is
answered in the shape in which upstream's broker answers it."""

import json
import os
import re
import subprocess
import tempfile
import unittest

from harness import Home, peer, wait_until

JSON_VERBS = (["status", "--json"], ["dump"], ["list-instances"], ["backend-health", "zccache"], ["config"],
              ["diagnose", "--output", "bundle.tar.gz"])
TEXT_VERBS = (["status"], ["healthz"], ["readyz"], ["metrics"])


# It refuses to run as root, and says so by its exit status only.
PRIVILEGED = {"RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED": "1"}


def upstream():
    return os.path.join(peer("running-process-4.1.0"), "running-process-broker-v1")


def ask(socket, words, home):
    return subprocess.run([upstream(), "--socket", socket, *words], env={**home.env, **PRIVILEGED}, cwd=home.src,
                          text=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=20, check=False)


def shape(value):
    """The keys of all objects and the kinds of all values; what a list holds is the other side's business."""
    if isinstance(value, dict):
        return {key: shape(child) for key, child in value.items()}
    if isinstance(value, bool) or isinstance(value, (str, list)):
        return type(value).__name__
    return "number" if isinstance(value, (int, float)) else "null"


class UpstreamBroker:
    """The real one, at a socket of its own."""

    def __init__(self, home):
        self.dir = tempfile.mkdtemp(prefix="up", dir=home.dir)
        self.socket = os.path.join(self.dir, "b.sock")
        self.home = home

    def __enter__(self):
        self.process = subprocess.Popen([upstream(), "--serve-launch", self.socket, "--service-def-dir", self.dir],
                                        env={**self.home.env, **PRIVILEGED},
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                        stderr=subprocess.DEVNULL)
        wait_until("upstream's broker", lambda: os.path.exists(self.socket))
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait(10)


class AdminLane(unittest.TestCase):
    def test_every_verb_is_answered_in_upstreams_shape(self):
        with Home(on_path="zccache-1.11.22") as home, UpstreamBroker(home) as theirs:
            home.start_kept_broker()
            home.write("a.c", "int a(void) { return 1; }\n")
            self.assertEqual(home.zccache("1.11.22", "gcc", "-c", "a.c", "-o", "a.o").returncode, 0)
            for words in JSON_VERBS:
                with self.subTest(verb=words[0]):
                    ours, real = ask(home.socket, words, home), ask(theirs.socket, words, home)
                    self.assertEqual((ours.returncode, ours.stderr), (real.returncode, real.stderr))
                    self.assertEqual(shape(json.loads(ours.stdout)), shape(json.loads(real.stdout)))
                    keys = list(json.loads(ours.stdout))
                    self.assertEqual(keys, list(json.loads(real.stdout)))
            for words in TEXT_VERBS:
                with self.subTest(verb=words[0], text=True):
                    ours, real = ask(home.socket, words, home), ask(theirs.socket, words, home)
                    self.assertEqual((ours.returncode, ours.stderr), (real.returncode, real.stderr))
                    self.assertEqual(no_values(ours.stdout), no_values(real.stdout))
            # What upstream leaves empty is filled in.
            status = json.loads(ask(home.socket, ["status", "--json"], home).stdout)
            self.assertEqual(status["broker_pid"], int(home.cli_json("status")["broker"]["pid"]))
            self.assertEqual([(row["service_version"], row["state"]) for row in status["backends"]],
                             [("1.11.22", "running")])
            self.assertEqual([row["pid"] for row in status["backends"]], home.daemons())


def no_values(text):
    """Without what differs from one broker to the next: its name, and samples."""
    text = re.sub(r"(broker_instance: ).*", r"\1X", text)
    return re.sub(r"^(\w+_(?:connections_open|uptime_seconds)) \d+$", r"\1 N", text, flags=re.M)


if __name__ == "__main__":
    unittest.main()
