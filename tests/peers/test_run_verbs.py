"""`zcbroker exec` around real builds with clients that know nothing of a broker."""

import os
import subprocess
import unittest

from harness import Home, program

VERSIONS = ("1.11.22", "1.15.8")
FILES = 40


def write_project(home):
    for i in range(FILES):
        home.write(f"p{i}.c", f"int p{i}(void) {{ return {i}; }}\n")
    home.write("Makefile", "OBJECTS = " + " ".join(f"p{i}.o" for i in range(FILES)) + "\n"
               "all: $(OBJECTS)\n%.o: %.c\n\tzccache gcc -c $< -o $@\n")


def build(home, *options, **extra):
    """make -j8 through exec, from a shell that has no broker yet."""
    return subprocess.run([program("client/cli/zcbroker"), "exec", "--allow-root", *options, "--", "make", "-j8"],
                          env={**home.env, **extra}, cwd=home.src, stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=120, check=False)


class Exec(unittest.TestCase):
    def objects(self, home):
        return sum(os.path.exists(os.path.join(home.src, f"p{i}.o")) for i in range(FILES))

    def test_a_cold_build_has_one_daemon_and_no_failure(self):
        for version in VERSIONS:
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                write_project(home)
                done = build(home, "--wanted", version)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("started a broker", done.stderr)
                self.assertEqual(self.objects(home), FILES)
                self.assertEqual(len(home.daemons()), 1)
                self.assertEqual(home.spawns(), 1)
                # Nothing was left to clients: the daemon is the broker's.
                backends = home.cli_json("status")["backends"]
                self.assertEqual([b["route"]["pid"] for b in backends], home.daemons())
                home.cli("down", "--stop-backends")

    def test_the_newest_version_without_being_told(self):
        with Home(on_path="zccache-1.15.8") as home:
            write_project(home)
            done = build(home)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual(self.objects(home), FILES)
            home.cli("down", "--stop-backends")

    def test_a_build_works_where_the_broker_cannot(self):
        for version in VERSIONS:
            with self.subTest(version=version), Home(on_path=f"zccache-{version}") as home:
                write_project(home)
                done = build(home, "--wanted", version, XDG_STATE_HOME="/proc/nowhere")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("without the broker", done.stderr)
                self.assertEqual(self.objects(home), FILES)

    def test_explain_sees_what_exec_gives(self):
        with Home(on_path="zccache-1.15.8") as home:
            home.cli("up", "--allow-root")
            shown = home.cli("exec", "--", program("client/cli/zcbroker"), "explain")
            self.assertIn("the broker's own name", shown.stdout)
            self.assertIn("somebody listens", shown.stdout)
            home.cli("down", "--stop-backends")
