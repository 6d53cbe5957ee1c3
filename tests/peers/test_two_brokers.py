"""Two brokers of one user, with different runtime directories and the same
cache: what answers at the names of one is its relay, and no daemon."""

import contextlib
import os
import signal
import subprocess
import unittest

from harness import Home, program, wait_until

VERSIONS = ("1.11.22", "1.15.8")


class TwoBrokers(unittest.TestCase):
    @contextlib.contextmanager
    def second_broker(self, home):
        """Its XDG_RUNTIME_DIR."""
        runtime = os.path.join(home.dir, "run2")
        os.mkdir(runtime, 0o700)
        with open(os.path.join(home.dir, "second.log"), "ab") as log:
            broker = subprocess.Popen(
                [program("service/zcbrokerd"), "--allow-root"], env={**home.env, "XDG_RUNTIME_DIR": runtime},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home.dir)
        try:
            wait_until("the second broker",
                       lambda: home.cli("status", XDG_RUNTIME_DIR=runtime).returncode == 0)
            yield runtime
        finally:
            broker.send_signal(signal.SIGTERM)
            self.assertEqual(broker.wait(30), 0)

    def refused_without_a_start(self, home, version, runtime, why):
        done = home.cli("route", "zccache", version, XDG_RUNTIME_DIR=runtime)
        self.assertEqual(done.returncode, 8, done.stdout)
        self.assertIn(why, done.stderr)
        done = home.cli("down", "--stop-backends", XDG_RUNTIME_DIR=runtime)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("it had no backends", done.stdout)
        self.assertEqual(len(home.daemons()), 1)

    def test_neither_takes_the_other_for_a_daemon(self):
        for version in VERSIONS:
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                home.write("x.c", "int x;\n")
                home.start_kept_broker()
                done = home.cli("route", "zccache", version)
                self.assertEqual(done.returncode, 0, done.stderr)
                direct = home.cli_json("explain", "--wanted", version)["endpoint"]
                wait_until("the endpoint to be claimed", lambda: os.path.exists(direct))
                first = home.kept_broker()
                with self.second_broker(home) as runtime:
                    said = f"another broker of yours, process {first}, has that name"
                    doctor = home.cli("doctor", "--wanted", version, XDG_RUNTIME_DIR=runtime)
                    self.assertIn(said, doctor.stdout)
                    self.refused_without_a_start(home, version, runtime, said)
                self.assertEqual(home.kept_broker(), first)
                self.assertNotIn("another broker of yours", home.cli("doctor", "--wanted", version).stdout)
                # The keeper has a socket in which the process before it is named.
                os.kill(first, signal.SIGKILL)
                wait_until("the next", lambda: home.kept_broker() not in (None, first))
                os.rename(os.path.join(home.dir, "run2"), os.path.join(home.dir, "run1"))
                with self.second_broker(home) as runtime:
                    self.refused_without_a_start(home, version, runtime, "has ended, and another has its socket")
                done = home.zccache(version, "gcc", "-c", "x.c", "-o", "x.o")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(home.daemons()), 1)


if __name__ == "__main__":
    unittest.main()
