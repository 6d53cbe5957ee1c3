"""Two versions side by side: never the wrong one."""

import os
import unittest

from harness import Home, peer


class Versions(unittest.TestCase):
    def setUp(self):
        self.home = Home()
        self.addCleanup(self.home.__exit__)
        for version in ("1.11.22", "1.15.8"):
            binary = os.path.join(peer(f"zccache-{version}"), "zccache-daemon")
            done = self.home.cli("service", "add", "zccache", "--binary", binary)
            self.assertEqual(done.returncode, 0, done.stderr + done.stdout)
        self.home.start_broker()

    def test_each_has_its_own_daemon_and_endpoint(self):
        old = self.home.cli_json("route", "zccache", "1.11.22")["negotiation"]["route"]
        new = self.home.cli_json("route", "zccache", "1.15.8")["negotiation"]["route"]
        self.assertNotEqual(old["endpoint"], new["endpoint"])
        self.assertNotEqual(old["pid"], new["pid"])
        self.assertEqual(self.home.daemons("1.11.22"), [old["pid"]])
        self.assertEqual(self.home.daemons("1.15.8"), [new["pid"]])
        # Unmodified clients of each reach their own.
        for version in ("1.11.22", "1.15.8"):
            self.home.write("v.c", f"int v(void) {{ return {len(version)}; }}\n")
            env = {"ZCCACHE_BROKER_CONNECT": "1"} if version == "1.11.22" else {}
            done = self.home.zccache(version, "gcc", "-c", "v.c", "-o", "v.o", **env)
            self.assertEqual(done.returncode, 0, done.stderr)
            out = self.home.zccache(version, "status", **env).stdout
            self.assertIn(f"zccache daemon v{version}", out)
        self.assertEqual(len(self.home.daemons()), 2)

    def test_a_version_nobody_has_is_refused_with_those_that_exist(self):
        done = self.home.cli("route", "zccache", "9.9.9")
        self.assertEqual(done.returncode, 5)
        self.assertIn("1.15.8, 1.11.22", done.stderr)
        report = self.home.cli_json("route", "zccache", "9.9.9")
        self.assertEqual(report["reason"], "VERSION_NOT_INSTALLED")
        self.assertEqual(report["refusal"]["installed_versions"], ["1.15.8", "1.11.22"])
        self.assertEqual(self.home.daemons(), [])
