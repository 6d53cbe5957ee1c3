"""A broker that says nothing, as it is stopped, holds nobody up for long."""

import contextlib
import os
import signal
import time
import unittest

from harness import Home, wait_until

VERSION = "1.11.22"


class MuteBroker(unittest.TestCase):
    def stop_broker_of(self, home, version):
        """Its process, once it has claimed the endpoint where no daemon runs."""
        home.write("x.c", "int x;\n")
        home.start_kept_broker()
        direct = home.cli_json("explain", "--wanted", version)["endpoint"]
        wait_until("the endpoint to be claimed", lambda: os.path.exists(direct))
        broker = home.kept_broker()
        os.kill(broker, signal.SIGSTOP)
        return broker

    def test_unmodified_clients_are_served_by_the_next_one(self):
        """The keeper sees them wait, and ends a broker that gives no sign of life. 1.11.22 has no other way out; 1.15.8
        gives up after 5 s and starts a daemon of its own."""
        for version in (VERSION, "1.15.8"):
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                broker = self.stop_broker_of(home, version)
                begin = time.monotonic()
                done = home.zccache(version, "gcc", "-c", "x.c", "-o", "x.o")
                took = time.monotonic() - begin
                self.assertEqual(done.returncode, 0, done.stderr)
                wait_until("the next broker", lambda: home.kept_broker() not in (None, broker), 20)
                self.assertIn("has given no sign of life for 9s", home.broker_log())
                done = home.zccache(version, "gcc", "-c", "x.c", "-o", "y.o")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(len(home.daemons()), 1)
                print(f"  {version}, broker stopped: compiled after {took:.1f} s")

    def test_the_library_does_not_wait_at_a_name_that_is_the_brokers(self):
        """No daemon runs, and the endpoint where it would be is claimed."""
        with Home(on_path=f"zccache-{VERSION}") as home:
            broker = self.stop_broker_of(home, VERSION)
            try:
                for _ in range(2):  # mute, and known to be
                    begin = time.monotonic()
                    done = home.cli("compile", "--wanted", VERSION, "--", "gcc", "-c", "x.c")
                    self.assertNotEqual(done.returncode, 0)
                    self.assertIn("is the broker's own, and no daemon runs", done.stderr)
                    self.assertLess(time.monotonic() - begin, 20)
            finally:
                # Where this took long, the keeper has ended it.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(broker, signal.SIGCONT)
            self.assertEqual(home.cli("compile", "--wanted", VERSION, "--", "gcc", "-c", "x.c").returncode, 0)


if __name__ == "__main__":
    unittest.main()
