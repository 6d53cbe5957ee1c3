"""Real projects, from Debian's source packages, built by the compiler alone and
twice through the launcher: every file that comes out is the same."""

import hashlib
import os
import shutil
import subprocess
import time
import unittest

from harness import Home, Options, program
from launcher_home import fallbacks_of

VERSION = "1.11.22"

SOURCES = """Types: deb-src
URIs: http://deb.debian.org/debian
Suites: bookworm
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
"""

# (source package, folder below its own, what make is told, compiles at least)
PROJECTS = [
    ("libtommath", ".", ["CFLAGS=-O1 -I./", "libtommath.a"], 120),
    ("mbedtls", ".", ["CFLAGS=-O1 -g -MD", "PERL=false", "PYTHON=false", "lib"], 80),
    ("libtomcrypt", ".", ["-f", "makefile", "CFLAGS=-O1 -g -MD -Isrc/headers -DLTC_SOURCE", "libtomcrypt.a"], 300),
]


def fetch(package):
    """The package's description file, downloaded once and checked by apt."""
    folder = os.path.join(os.path.dirname(Options.peers.rstrip("/")), "sources")
    apt = os.path.join(folder, "apt")
    for name in ("etc", "state/lists/partial", "cache/archives/partial"):
        os.makedirs(os.path.join(apt, name), exist_ok=True)
    with open(os.path.join(apt, "etc", "source.sources"), "w", encoding="utf-8") as out:
        out.write(SOURCES)

    def found():
        return [os.path.join(folder, name) for name in os.listdir(folder)
                if name.startswith(f"{package}_") and name.endswith(".dsc")]
    if not found():
        config = ["-oDir::Etc::sourcelist=/dev/null", f"-oDir::Etc::sourceparts={apt}/etc", f"-oDir::State={apt}/state",
                  "-oDir::State::status=/var/lib/dpkg/status", f"-oDir::Cache={apt}/cache", "-qq"]
        subprocess.run(["apt-get", *config, "update"], check=True, stderr=subprocess.DEVNULL)
        subprocess.run(["apt-get", *config, "source", "--download-only", package], cwd=folder, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return found()[0]


def digests(folder):
    """{file: digest} of all that a build made or changed."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(root, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb") as data:
                    found[os.path.relpath(path, folder)] = hashlib.sha256(data.read()).hexdigest()
    return found


class Projects(unittest.TestCase):
    def build(self, home, description, below, words, compiler):
        tree = os.path.join(home.dir, "tree")
        shutil.rmtree(tree, ignore_errors=True)
        subprocess.run(["dpkg-source", "--no-check", "-x", description, tree], check=True, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)
        begin = time.monotonic()
        done = subprocess.run(["make", "-j2", "-C", os.path.join(tree, below), f"CC={compiler}", *words],
                              env=home.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True, check=False)
        self.assertEqual(done.returncode, 0, done.stdout[-3000:])
        return digests(tree), time.monotonic() - begin

    def test_projects(self):
        for package, below, words, compiles in PROJECTS:
            with self.subTest(package=package, words=words), Home(on_path=f"zccache-{VERSION}") as home:
                description = fetch(package)
                home.start_kept_broker()
                launcher = f"{program('client/launcher/zcb')} gcc"
                plain, plain_seconds = self.build(home, description, below, words, "gcc")
                cold, cold_seconds = self.build(home, description, below, words, launcher)
                warm, warm_seconds = self.build(home, description, below, words, launcher)
                self.assertEqual([], [name for name in plain if cold.get(name) != plain[name]], "cold")
                self.assertEqual([], [name for name in plain if warm.get(name) != plain[name]], "warm")
                self.assertEqual(set(plain), set(cold))
                self.assertEqual(set(plain), set(warm))
                objects = sum(name.endswith(".o") for name in plain)
                self.assertGreaterEqual(objects, compiles)
                # Nearly all went through the daemon.
                self.assertLess(len(fallbacks_of(home)), objects / 10)
                self.assertLess(warm_seconds, plain_seconds)
                print(f"  {package}, {objects} objects: {plain_seconds:.1f} s by the compiler, {cold_seconds:.1f} s cold, "
                      f"{warm_seconds:.1f} s warm, {len(plain)} equal files")


if __name__ == "__main__":
    unittest.main()
