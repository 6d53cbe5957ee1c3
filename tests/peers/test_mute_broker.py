"""A broker that says nothing, as it is stopped, holds nobody up who can go
another way."""

import os
import signal
import time
import unittest

from harness import Home, wait_until

VERSION = "1.11.22"


class MuteBroker(unittest.TestCase):
    def test_the_library_does_not_wait_at_a_name_that_is_the_brokers(self):
        """No daemon runs, and the endpoint where it would be is claimed."""
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.write("x.c", "int x;\n")
            home.start_kept_broker()
            direct = home.cli_json("explain", "--wanted", VERSION)["endpoint"]
            wait_until("the endpoint to be claimed", lambda: os.path.exists(direct))
            broker = home.kept_broker()
            os.kill(broker, signal.SIGSTOP)
            try:
                for _ in range(2):  # mute, and known to be
                    begin = time.monotonic()
                    done = home.cli("compile", "--wanted", VERSION, "--", "gcc", "-c", "x.c")
                    self.assertNotEqual(done.returncode, 0)
                    self.assertIn("is the broker's own, and no daemon runs", done.stderr)
                    self.assertLess(time.monotonic() - begin, 20)
            finally:
                os.kill(broker, signal.SIGCONT)
            self.assertEqual(home.cli("compile", "--wanted", VERSION, "--", "gcc", "-c", "x.c").returncode, 0)


if __name__ == "__main__":
    unittest.main()
