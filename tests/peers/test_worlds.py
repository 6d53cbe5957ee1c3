"""A client of another world is refused with that reason and goes direct."""

import os
import unittest

from harness import Home

VERSION = "1.11.22"


class Worlds(unittest.TestCase):
    def setUp(self):
        self.home = Home(on_path=f"zccache-{VERSION}")
        self.addCleanup(self.home.__exit__)
        self.home.start_broker()

    def test_another_cache_directory(self):
        other = os.path.join(self.home.dir, "other-cache")
        done = self.home.cli("route", "zccache", VERSION, ZCCACHE_CACHE_DIR=other)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertIn(f"yours is {other}, the broker's is {self.home.cache}", done.stderr)

    def test_another_namespace(self):
        done = self.home.cli("route", "zccache", VERSION, ZCCACHE_DAEMON_NAMESPACE="ci")
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertIn("yours is ci, the broker's is default", done.stderr)

    def test_an_unmodified_client_of_another_world_goes_direct(self):
        other = os.path.join(self.home.dir, "other-cache")
        self.home.write("w.c", "int w(void) { return 1; }\n")
        done = self.home.zccache(VERSION, "gcc", "-c", "w.c", "-o", "w.o",
                                 ZCCACHE_BROKER_CONNECT="1", ZCCACHE_CACHE_DIR=other)
        self.assertEqual(done.returncode, 0, done.stderr)
        counters = self.home.counters()
        self.assertGreaterEqual(counters["refused.WORLD_MISMATCH"], 1)
        self.assertNotIn("backends_started", counters)
        self.assertTrue(os.path.isdir(other))
