"""Real daemons that leave while unmodified clients go on: nobody loses anything."""

import os
import threading
import time
import unittest

from harness import Home, peer, wait_until

VERSIONS = ("1.11.22", "1.15.8")
FILES = 80
CLIENTS = 6
DRAINS = 4


def define_idle_stop(home, version, seconds):
    folder = os.path.join(home.dir, ".config", "zcbroker", "services")
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "zccache.textproto"), "w", encoding="utf-8") as out:
        out.write(f'name: "zccache"\nbinaries {{ path: "{peer("zccache-" + version)}/zccache-daemon" }}\n'
                  f"idle_stop {{ seconds: {seconds} }}\n")


def compile_one(home, version, name):
    home.write(f"{name}.c", f"int {name}(void) {{ return 1; }}\n")
    return home.zccache(version, "gcc", "-c", f"{name}.c", "-o", f"{name}.o")


def row(home):
    return home.cli_json("status")["backends"][0]


class Leaving(unittest.TestCase):
    def test_a_build_goes_on_while_its_daemon_is_drained(self):
        for version in VERSIONS:
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                home.start_kept_broker()
                self.assertEqual(compile_one(home, version, "first").returncode, 0)
                names = iter([f"f{i}" for i in range(FILES)])
                lock = threading.Lock()
                done, failures = [], []

                def build():
                    while True:
                        with lock:
                            name = next(names, None)
                        if name is None:
                            return
                        result = compile_one(home, version, name)
                        with lock:
                            done.append(name)
                            if result.returncode != 0:
                                failures.append(result.stderr)

                clients = [threading.Thread(target=build) for _ in range(CLIENTS)]
                for client in clients:
                    client.start()
                drained = 0
                for i in range(1, DRAINS + 1):
                    wait_until("some of the build", lambda: len(done) >= i * FILES // (DRAINS + 1), 60)
                    gone = home.cli_json("drain", "zccache", version)
                    self.assertEqual(gone["service"], "zccache", gone)
                    drained += gone["last_end"] == "drain asked for"
                    self.assertLessEqual(len(home.daemons()), 1)
                for client in clients:
                    client.join()
                self.assertEqual(failures, [])
                self.assertEqual(drained, DRAINS)
                self.assertEqual(home.counters()["backends_drained"], DRAINS)
                # One for each, and none that a client had to start.
                self.assertLessEqual(home.spawns(), DRAINS + 1)
                home.cli("down", "--stop-backends")

    def test_what_is_used_stays_and_what_is_not_is_stopped(self):
        for version in VERSIONS:
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                define_idle_stop(home, version, 3)
                home.start_kept_broker()
                self.assertEqual(compile_one(home, version, "first").returncode, 0)
                daemon = home.daemons()
                self.assertEqual(len(daemon), 1)
                wait_until("the daemon to be stopped", lambda: not home.daemons(), 60)
                self.assertRegex(row(home)["last_end"], "^unused for ")
                self.assertEqual(compile_one(home, version, "second").returncode, 0)
                self.assertNotEqual(home.daemons(), daemon)
                home.cli("down", "--stop-backends")

    def test_short_connections_are_use(self):
        version = VERSIONS[0]
        with Home(on_path=f"zccache-{version}") as home:
            define_idle_stop(home, version, 3)
            home.start_kept_broker()
            self.assertEqual(compile_one(home, version, "first").returncode, 0)
            daemon = home.daemons()
            # Whether or not a call is under way when the broker looks.
            end = time.monotonic() + 8
            calls = 0
            while time.monotonic() < end:
                calls += 1
                self.assertEqual(compile_one(home, version, f"f{calls}").returncode, 0)
            self.assertEqual(home.daemons(), daemon)
            home.cli("down", "--stop-backends")


if __name__ == "__main__":
    unittest.main()
