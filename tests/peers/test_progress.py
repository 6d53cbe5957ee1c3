"""What a person at a terminal sees while a start is awaited."""

import os
import pty
import subprocess
import unittest

from harness import Home, program

WAITING = b"\r\x1b[Kzcbroker: waiting for slow 1.0.0"
WIPED = b"\r\x1b[K"


def at_a_terminal(home, *words):
    """Status, standard output and what a terminal got of standard error."""
    ours, theirs = pty.openpty()
    with open(ours, "rb", buffering=0) as terminal:
        with subprocess.Popen([program("client/cli/zcbroker"), *words], env=home.env, cwd=home.src,
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs) as running:
            os.close(theirs)
            said = b""
            try:
                while piece := terminal.read(4096):
                    said += piece
            except OSError:  # nobody has the other end any more
                pass
            out = running.stdout.read()
    return running.returncode, out, said


class Progress(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.__exit__)
        self.home.write_definition(
            "slow", "1.0.0", program("client/backend_sdk/reference/zcb-reference-backend"),
            ["--endpoint", "{endpoint}", "--start-delay-ms", "2300"])
        self.home.start_broker()

    def test_a_terminal_is_told_after_a_second_and_is_clean_afterwards(self):
        for verb in ("route", "start"):
            with self.subTest(verb=verb):
                status, out, said = at_a_terminal(self.home, verb, "slow", "1.0.0")
                self.assertEqual(status, 0)
                self.assertIn(b"slow 1.0.0", out)
                self.assertTrue(said.startswith(WAITING), said)
                self.assertIn(b", 1 s", said)
                self.assertIn(b", 2 s", said)
                self.assertTrue(said.endswith(WIPED), said)
                self.assertEqual(self.home.cli("stop", "slow", "1.0.0").returncode, 0)

    def test_nothing_is_said_of_what_is_quick(self):
        self.assertEqual(self.home.cli("start", "slow", "1.0.0").returncode, 0)
        status, _, said = at_a_terminal(self.home, "route", "slow", "1.0.0")
        self.assertEqual((status, said), (0, b""))

    def test_nothing_is_said_to_a_file(self):
        done = self.home.cli("route", "slow", "1.0.0")
        self.assertEqual((done.returncode, done.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
