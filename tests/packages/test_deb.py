"""Are the Debian packages what they promise? Builds them, has lintian look at them,
and installs, uses, upgrades and removes them in a Debian 12 of its own that
systemd-nspawn boots: guest.sh is what happens there. Called by ./dev packages,
as root; ends with "cases: N passed, M failed"."""

import argparse
import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.abspath(os.path.join(HERE, "..", ".."))
GUEST_PACKAGES = ["systemd", "dbus", "dbus-user-session", "libpam-systemd", "g++", "libc6-dev", "procps", "bash-completion",
                  "zsh", "fish", "cmake", "make", "libgrpc++-dev", "libprotobuf-dev", "libabsl-dev"]
BOOT_SECONDS = 240
PROGRAM_CONTENTS = """
usr/bin/zcb usr/bin/zcbroker usr/bin/zcbroker-keeper usr/bin/zcbrokerd
usr/lib/systemd/user/zcbroker.service usr/lib/systemd/user/zcbroker.socket
usr/share/bash-completion/completions/zcbroker usr/share/zsh/vendor-completions/_zcbroker
usr/share/fish/vendor_completions.d/zcbroker.fish
usr/share/man/man1/zcb.1.gz usr/share/man/man1/zcbroker.1.gz
usr/share/man/man8/zcbroker-keeper.8.gz usr/share/man/man8/zcbrokerd.8.gz
usr/share/doc/zcbroker/copyright usr/share/doc/zcbroker/changelog.gz usr/share/doc/zcbroker/changelog.Debian.gz
usr/share/doc/zcbroker/examples/policy.textproto usr/share/lintian/overrides/zcbroker
""".split()
LIBRARY_CONTENTS = """
usr/include/zcbroker/client/connect_daemon.h usr/include/zcbroker/client/lease.h
usr/include/zcbroker/client/backend_sdk/managed_backend.h usr/include/zcbroker/proto/zccache/v1/zccache.pb.h
usr/lib/TRIPLET/libzcbroker.a
usr/lib/TRIPLET/pkgconfig/zcbroker-backend.pc usr/lib/TRIPLET/pkgconfig/zcbroker-client.pc
usr/lib/TRIPLET/cmake/zcbroker/zcbroker-config.cmake usr/lib/TRIPLET/cmake/zcbroker/zcbroker-config-version.cmake
usr/share/doc/libzcbroker-dev/copyright usr/share/doc/libzcbroker-dev/changelog.gz
usr/share/doc/libzcbroker-dev/changelog.Debian.gz usr/share/doc/libzcbroker-dev/examples/where/main.cc
usr/share/lintian/overrides/libzcbroker-dev
""".split()
# What else may be in it, any number.
LIBRARY_FOLDERS = ("usr/include/zcbroker/client/", "usr/include/zcbroker/ipc/", "usr/include/zcbroker/proto/",
                   "usr/share/doc/libzcbroker-dev/")
# The user, a backend for zccache, a compiler that says who ran it, and what runs
# guest.sh at boot and then ends the system.
PREPARE = r"""
set -eu
useradd --uid 1000 --create-home --shell /bin/bash dev
mkdir -p /var/lib/systemd/linger && touch /var/lib/systemd/linger/dev
mkdir -p /opt/compiler
printf '#!/bin/sh\ncat /proc/$PPID/comm >>/tmp/dev-parents\nexec /usr/bin/gcc "$@"\n' >/opt/compiler/gcc
chmod 755 /opt/compiler/gcc
cat >/etc/systemd/system/test.service <<EOF
[Unit]
After=multi-user.target
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
ExecStart=/test/guest.sh $1 $2 $3
[Install]
WantedBy=default.target
EOF
systemctl enable test.service
"""


class Tally:
    def __init__(self):
        self.passed = self.failed = 0

    def add(self, ok, name, why=""):
        self.passed += ok
        self.failed += not ok
        print(f"{'ok' if ok else 'FAILED'}: {name}" + (f"\n{why}" if why and not ok else ""), flush=True)


def run(*words, **options):
    return subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **options)


def build(options, out, revision):
    """The paths of the programs' package and the library's."""
    done = run(sys.executable, os.path.join(ROOT, "service/deploy/deb.py"), "--bin", options.bin,
               "--library", options.library, "--out", out, "--revision", str(revision))
    if done.returncode != 0:
        sys.exit(f"the packages cannot be built:\n{done.stdout}")
    return done.stdout.split()


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()


def contents(package):
    """Each path with its mode and owner."""
    lines = run("dpkg-deb", "--contents", package).stdout.splitlines()
    fields = [line.split(None, 5) for line in lines]
    return {field[5][2:]: (field[0], field[1]) for field in fields if not field[5].endswith("/")}


def look_at(package, again, expected, folders, tally):
    name = os.path.basename(package).split("_")[0]
    tally.add(digest(package) == digest(again), f"{name}: the same tree gives the same package")
    found = contents(package)
    missing = [path for path in expected if path not in found]
    beside = [path for path in found if path not in expected and not path.startswith(folders)]
    tally.add(not missing and not beside, f"{name}: what is in it", f"missing {missing}, unexpected {beside}")
    wrong = [path for path, (mode, owner) in found.items()
             if owner != "root/root" or mode != ("-rwxr-xr-x" if path.startswith("usr/bin/") else "-rw-r--r--")]
    tally.add(not wrong, f"{name}: owners and modes", str(wrong))
    said = run("lintian", "--allow-root", "--fail-on", "error,warning", "--display-info", package)
    tally.add(said.returncode == 0, f"{name}: lintian", said.stdout)


def look_for_paths(package, folder, tally):
    """Where it was built is of no use to anybody."""
    subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    told = []
    for parent, _, files in os.walk(folder):
        for file in files:
            with open(os.path.join(parent, file), "rb") as opened:
                content = opened.read()
            told += [f"{file}: {path}" for path in (ROOT, os.path.expanduser("~"), "bazel-out", "execroot")
                     if path.encode() in content]
    tally.add(not told, "libzcbroker-dev: no path of the machine it was built on", "\n".join(told))


# --- A Debian of its own


def root_tree(cache):
    """A minimal Debian, made once."""
    path = os.path.join(cache, "deb-root")
    stamp = os.path.join(path, ".made-of")
    wanted = " ".join(GUEST_PACKAGES)
    if os.path.exists(stamp):
        with open(stamp, encoding="utf-8") as known:
            if known.read() == wanted:
                return path
    shutil.rmtree(path, ignore_errors=True)
    # Its own way to choose among packages fails on some that apt-get can install.
    for words in (["debootstrap", "--variant=minbase", "bookworm", path],
                  ["chroot", path, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq",
                   "--no-install-recommends", *GUEST_PACKAGES],
                  ["chroot", path, "apt-get", "clean"]):
        made = run(*words)
        if made.returncode != 0:
            sys.exit(f"{words[0]}:\n{made.stdout[-3000:]}")
    with open(stamp, "w", encoding="utf-8") as out:
        out.write(wanted)
    return path


@contextlib.contextmanager
def written_over(lower, folder):
    """`lower`, whose changes go to `folder`."""
    paths = {name: os.path.join(folder, name) for name in ("upper", "work", "root")}
    for path in paths.values():
        os.mkdir(path)
    options = f"lowerdir={lower},upperdir={paths['upper']},workdir={paths['work']}"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, paths["root"]], check=True)
    try:
        yield paths["root"]
    finally:
        subprocess.run(["umount", paths["root"]], check=True)


def boot(root, tally):
    """Boots it and counts what guest.sh found."""
    console = run("timeout", "--kill-after=10", str(BOOT_SECONDS), "systemd-nspawn", "--quiet", "--boot",
                  "--register=no", "--keep-unit", "--private-network", "--console=pipe",
                  "--directory", root, stdin=subprocess.DEVNULL)
    results = ""
    with contextlib.suppress(FileNotFoundError), open(os.path.join(root, "test/results"), encoding="utf-8") as file:
        results = file.read()
    if not results.endswith("done\n"):
        tally.add(False, "everything was tried", f"{results}\n{console.stdout[-3000:]}")
    name = ""
    why = []
    for line in [*results.splitlines(), "ok "]:
        if line.startswith(("ok ", "FAILED ")) or line == "ok ":
            if name:
                tally.add(not why, name, "\n".join(why))
            verdict, name = line.split(" ", 1)
            why = [] if verdict == "ok" else [""]
        elif why:
            why.append(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of released programs (./dev build)")
    parser.add_argument("--library", required=True, help="the folder of the library (./dev deb)")
    parser.add_argument("--cache", required=True, help="where the Debian to boot is kept")
    options = parser.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="zcb-deb-") as folder:
        first, library = build(options, folder, 1)
        second, _ = build(options, folder, 2)
        again, library_again = build(options, os.path.join(folder, "again"), 1)
        triplet = run("dpkg-architecture", "--query", "DEB_HOST_MULTIARCH").stdout.strip()
        look_at(first, again, PROGRAM_CONTENTS, ("usr/share/doc/zcbroker/",), tally)
        look_at(library, library_again, [path.replace("TRIPLET", triplet) for path in LIBRARY_CONTENTS],
                LIBRARY_FOLDERS, tally)
        look_for_paths(library, os.path.join(folder, "library"), tally)
        lower = root_tree(options.cache)
        with written_over(lower, folder) as root:
            test = os.path.join(root, "test")
            os.mkdir(test)
            for file in (first, second, library, os.path.join(HERE, "guest.sh")):
                shutil.copy(file, test)
            shutil.copy(os.path.join(options.bin, "zcb-reference-backend"), os.path.join(root, "opt"))
            prepared = run("chroot", root, "sh", "-c", PREPARE, "sh",
                           *(os.path.basename(file) for file in (first, second, library)))
            if prepared.returncode != 0:
                sys.exit(f"the system cannot be prepared:\n{prepared.stdout}")
            boot(root, tally)
    print(f"cases: {tally.passed} passed, {tally.failed} failed")
    return 0 if tally.failed == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
