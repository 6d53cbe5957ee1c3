"""A service that is no zccache: the real sccache, by a definition alone. Its
clients know nothing of us; SCCACHE_SERVER_UDS leads them to the named route."""

import os
import subprocess
import unittest

from harness import Home, peer, wait_until

VERSION = "0.16.0"
HERD = 24


class Sccache(unittest.TestCase):
    def test_a_cold_herd_starts_one_server(self):
        with Home() as home:
            home.start_kept_broker()
            program = os.path.join(peer(f"sccache-{VERSION}"), "sccache")
            settings = {"SCCACHE_START_SERVER": "1", "SCCACHE_NO_DAEMON": "1", "SCCACHE_SERVER_UDS": "{endpoint}",
                        "SCCACHE_DIR": os.path.join(home.dir, "sccache"), "SCCACHE_IDLE_TIMEOUT": "0"}
            added = home.cli("service", "add", "sccache", "--binary", program,
                             *(word for name, value in settings.items() for word in ("--env", f"{name}={value}")))
            self.assertEqual((added.returncode, added.stderr), (0, ""), added.stdout)
            name = os.path.join(home.runtime, "zcbroker", "routes", "sccache", f"{VERSION}.sock")
            wait_until("the named route", lambda: os.path.exists(name))
            for i in range(HERD):
                home.write(f"f{i}.c", f"int f{i}(void) {{ return {i}; }}\n")
            calls = [subprocess.Popen([program, "gcc", "-c", f"f{i}.c", "-o", f"f{i}.o"], cwd=home.src,
                                      env={**home.env, "SCCACHE_SERVER_UDS": name}, stdin=subprocess.DEVNULL,
                                      stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
                     for i in range(HERD)]
            failures = []
            for call in calls:
                _, errors = call.communicate(timeout=120)
                if call.returncode != 0:
                    failures.append(errors)
            self.assertEqual(failures, [])
            self.assertTrue(all(os.path.exists(os.path.join(home.src, f"f{i}.o")) for i in range(HERD)))
            servers = [pid for pid, words in home.processes().items() if words[0].endswith(b"/sccache")]
            backends = home.cli_json("status")["backends"]
            self.assertEqual([(row["service"], row["version"], int(row["route"]["pid"])) for row in backends],
                             [("sccache", VERSION, servers[0])])
            self.assertEqual(len(servers), 1)
            self.assertEqual(home.counters()["backends_started"], 1)


if __name__ == "__main__":
    unittest.main()
