"""A client of another cache directory or namespace has a daemon of its own; one
of another mount namespace, which no broker can start a daemon in, goes direct."""

import os
import subprocess
import unittest

from harness import Home, program, wait_until

VERSION = "1.11.22"


class Worlds(unittest.TestCase):
    def setUp(self):
        self.home = Home(on_path=f"zccache-{VERSION}")
        self.addCleanup(self.home.__exit__)
        self.home.start_broker()
        self.other = os.path.join(self.home.dir, "other-cache")

    def backends(self):
        """Process id by the cache directory and namespace it serves."""
        rows = self.home.cli_json("status")["backends"]
        return {(row["world"]["cache_root"], row["world"]["daemon_namespace"]) if "world" in row else "own":
                row["route"]["pid"] for row in rows if "route" in row}

    def test_another_cache_directory_and_another_namespace(self):
        for extra in ({}, {"ZCCACHE_CACHE_DIR": self.other}, {"ZCCACHE_DAEMON_NAMESPACE": "ci"}):
            done = self.home.cli("ping", "zccache", VERSION, **extra)
            self.assertEqual(done.returncode, 0, done.stderr)
        backends = self.backends()
        self.assertEqual(set(backends), {"own", (self.other, "default"), (self.home.cache, "ci")})
        self.assertEqual(sorted(self.home.daemons()), sorted(backends.values()))
        self.assertTrue(os.path.isdir(self.other))

        stopped = self.home.cli("stop", "zccache", VERSION, ZCCACHE_CACHE_DIR=self.other)
        self.assertEqual(stopped.returncode, 0, stopped.stderr)
        self.assertEqual(set(self.backends()), {"own", (self.home.cache, "ci")})

    def test_unmodified_clients_of_another_world_share_its_daemon(self):
        self.home.cli("ping", "zccache", VERSION)
        own, = self.home.daemons()
        for name in ("w", "x"):
            self.home.write(f"{name}.c", f"int {name}(void) {{ return 1; }}\n")
            done = self.home.zccache(VERSION, "gcc", "-c", f"{name}.c", "-o", f"{name}.o",
                                     ZCCACHE_BROKER_CONNECT="1", ZCCACHE_CACHE_DIR=self.other)
            self.assertEqual(done.returncode, 0, done.stderr)
        # Without the broker's help they find it, too, at the place of that cache.
        self.home.write("y.c", "int y(void) { return 1; }\n")
        done = self.home.zccache(VERSION, "gcc", "-c", "y.c", "-o", "y.o", ZCCACHE_CACHE_DIR=self.other)
        self.assertEqual(done.returncode, 0, done.stderr)
        backends = self.backends()
        self.assertEqual(backends["own"], own)
        self.assertEqual(sorted(self.home.daemons()), sorted([own, backends[self.other, "default"]]))

    def test_the_launcher_compiles_in_its_world(self):
        self.home.write("z.c", "int z(void) { return 1; }\n")
        for _ in range(2):
            done = subprocess.run([program("client/launcher/zcb"), "gcc", "-c", "z.c", "-o", "z.o"],
                                  env={**self.home.env, "ZCCACHE_CACHE_DIR": self.other}, cwd=self.home.src,
                                  capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(set(self.backends()), {(self.other, "default")})
        records = os.path.join(self.home.runtime, "zcbroker", "fallbacks")
        self.assertFalse(os.path.exists(records) and os.path.getsize(records), "the launcher ran the compiler")

    @unittest.skipUnless(os.geteuid() == 0, "another mount namespace takes root")
    def test_another_mount_namespace_is_refused(self):
        done = subprocess.run(["unshare", "--mount", program("client/cli/zcbroker"), "route", "zccache", VERSION],
                              env=self.home.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 7, done.stderr)
        self.assertIn("mount namespace: yours is mnt:", done.stderr)
        self.assertEqual(self.home.counters()["refused.WORLD_MISMATCH"], 1)
        self.assertEqual(self.home.daemons(), [])

    @unittest.skipUnless(os.geteuid() == 0, "another mount namespace takes root")
    def test_a_daemon_of_another_mount_namespace_is_left_alone(self):
        self.home.stop_broker()
        with open(self.home.log, "ab") as log:
            inner = subprocess.Popen(["unshare", "--mount", program("service/zcbrokerd"), "--allow-root"],
                                     env=self.home.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("the broker to answer", lambda: self.home.cli("status").returncode == 0, 20)
        # Whoever asks is outside; the daemon is started by the broker, inside.
        asked = subprocess.run(["nsenter", f"--mount=/proc/{inner.pid}/ns/mnt", program("client/cli/zcbroker"), "route",
                                "zccache", VERSION], env=self.home.env, capture_output=True, text=True, timeout=60)
        self.assertEqual(asked.returncode, 0, asked.stderr)
        daemon, = self.home.daemons()
        inner.kill()
        inner.wait(10)
        self.home.start_broker()
        done = self.home.cli("route", "zccache", VERSION)
        self.assertEqual(done.returncode, 8, done.stderr)
        self.assertIn("lives in another mount namespace", done.stderr)
        self.assertEqual(self.home.daemons(), [daemon])
