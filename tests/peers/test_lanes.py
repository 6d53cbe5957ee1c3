"""The connect lane and every wire lane, proved with a direct endpoint that is
dead: whatever succeeds went through the broker."""

import json
import os
import subprocess
import unittest

from harness import Home, program

VERSION = "1.11.22"
WIRES = ("v15", "v16", "frame-v1")


class Lanes(unittest.TestCase):
    def setUp(self):
        self.home = Home(on_path=f"zccache-{VERSION}")
        self.addCleanup(self.home.__exit__)
        self.home.start_broker()
        self.through_us = {"ZCCACHE_ENDPOINT": os.path.join(self.home.dir, "dead"),
                           "ZCCACHE_BROKER_CONNECT": "1"}

    def ok(self, done):
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_status_on_every_wire(self):
        for wire in WIRES:
            with self.subTest(wire=wire):
                out = self.ok(self.home.zccache(VERSION, "status", ZCCACHE_DAEMON_WIRE=wire, **self.through_us))
                self.assertIn(f"v{VERSION}", out)
        self.assertEqual(self.home.spawns(), 1)

    def test_a_session_on_every_wire(self):
        for wire in WIRES:
            with self.subTest(wire=wire):
                env = {"ZCCACHE_DAEMON_WIRE": wire, **self.through_us}
                session = json.loads(self.ok(self.home.zccache(VERSION, "session-start", **env)))["session_id"]
                source = f"s_{wire.replace('-', '_')}"
                self.home.write(f"{source}.c", "int s(void) { return 7; }\n")
                self.ok(self.home.zccache(VERSION, "gcc", "-c", f"{source}.c", "-o", f"{source}.o",
                                          ZCCACHE_SESSION_ID=session, **env))
                self.assertTrue(os.path.exists(os.path.join(self.home.src, f"{source}.o")))
                self.ok(self.home.zccache(VERSION, "session-end", session, **env))
        self.assertEqual(self.home.spawns(), 1)

    def test_the_lane_fails_without_a_broker(self):
        """What the tests above prove depends on this."""
        self.home.stop_broker()
        done = self.home.zccache(VERSION, "status", **self.through_us)
        self.assertNotEqual(done.returncode, 0)

    def test_our_client_on_every_wire(self):
        """Ping, Status and a compile by our own client, through the broker."""
        self.home.write("ours.c", "int ours(void) { return 3; }\n")
        done = subprocess.run(
            [program("tests/peers/our_client"), "zccache", VERSION, "ours.c"],
            env={**self.home.env, "ZCCACHE_ENDPOINT": self.through_us["ZCCACHE_ENDPOINT"],
                 "ZCCACHE_BROKER_CONNECT": "1", "ZCBROKER_STRICT": "1"},
            cwd=self.home.src, capture_output=True, text=True, timeout=120, check=False)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        for lane in ("bincode-v15", "prost-v16", "frame-v1"):
            self.assertIn(f"{lane}: ping, status {VERSION}, compile", done.stdout)
        self.assertTrue(os.path.exists(os.path.join(self.home.src, "ours.c.frame-v1.o")))


if __name__ == "__main__":
    unittest.main()
