"""A home with a real daemon that was started by hand, and the route info that
leads the launcher to it: what the launcher needs of a broker on a hit."""

import os
import shutil
import subprocess
import sys

from harness import Home, Options, peer, program, wait_until

# Numbers of zcbroker.v1.WireLane.
LANES = {"bincode-v15": 1, "prost-v16": 2, "frame-v1": 3}


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def text_field(number, text):
    data = text.encode()
    return varint(number << 3 | 2) + varint(len(data)) + data


def number_field(number, value):
    return varint(number << 3) + varint(value)


def start_time_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
        return int(stat.read().rsplit(")", 1)[1].split()[19])


def boot_id():
    with open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as text:
        return text.read().strip()


class LauncherHome(Home):
    """Compilers run with this environment; the launcher is `zcb`."""

    def __init__(self, version="1.11.22", lanes=("frame-v1",)):
        super().__init__()
        self.version = version
        self.lanes = lanes
        self.daemon = None
        self.routes = os.path.join(self.runtime, "zcbroker", "routes", "zccache")
        for folder in (os.path.join(self.runtime, "zcbroker"), os.path.dirname(self.routes), self.routes):
            os.mkdir(folder, 0o700)
        # The toolchain of Rust is found through the real home.
        real = os.path.expanduser("~")
        for name, folder in (("RUSTUP_HOME", ".rustup"), ("CARGO_HOME", ".cargo")):
            self.env.setdefault(name, os.environ.get(name, os.path.join(real, folder)))
        rustc = shutil.which("rustc")
        if rustc:
            self.env["PATH"] += ":" + os.path.dirname(rustc)

    def __exit__(self, *words):
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.wait(10)
        super().__exit__(*words)

    @property
    def zcb(self):
        return program("client/launcher/zcb")

    @property
    def endpoint(self):
        return os.path.join(self.dir, "d.sock")

    @property
    def binary(self):
        return os.path.join(peer(f"zccache-{self.version}"), "zccache-daemon")

    def start_daemon(self, umask=0o022, announce=True, **extra):
        """One daemon at an endpoint of its own, in a session of its own."""
        log = os.path.join(self.dir, "daemon.log")
        self.daemon = subprocess.Popen(
            [self.binary, "--foreground", "--endpoint", self.endpoint, "--log-file", log],
            env={**self.env, **extra}, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, cwd=self.dir, start_new_session=True, umask=umask)
        wait_until("the daemon to answer", self.daemon_answers, 20)
        if announce:
            self.write_info()

    def daemon_answers(self):
        done = subprocess.run([f"{peer('zccache-' + self.version)}/zccache", "status"],
                              env={**self.env, "ZCCACHE_ENDPOINT": self.endpoint}, capture_output=True, check=False)
        return done.returncode == 0 if self.version == "1.11.22" else os.path.exists(self.endpoint)

    def write_info(self, **fields):
        """The route info of the running daemon; `fields` replace what it says."""
        says = {"service": "zccache", "version": self.version, "endpoint": self.endpoint,
                "lanes": [LANES[lane] for lane in self.lanes], "binary": self.binary, "boot_id": boot_id(),
                "cache_root": self.cache, "daemon_namespace": "default",
                "mount_namespace": os.readlink("/proc/self/ns/mnt"), **fields}
        if "pid" not in says:
            says["pid"] = says["group"] = self.daemon.pid
            says["start_time"] = start_time_of(self.daemon.pid)
        data = b"".join([
            text_field(1, says["service"]), text_field(2, says["version"]), text_field(3, says["endpoint"]),
            b"".join(number_field(4, lane) for lane in says["lanes"]), text_field(5, says["binary"]),
            number_field(6, says["pid"]), number_field(7, says["start_time"]), text_field(8, says["boot_id"]),
            number_field(9, says["group"]), text_field(11, says["cache_root"]),
            text_field(12, says["daemon_namespace"]), text_field(13, says["mount_namespace"])])
        path = os.path.join(self.routes, f"{says['version']}.info")
        with open(path, "wb") as out:
            out.write(data)
        os.chmod(path, 0o600)

    def fallbacks(self):
        return fallbacks_of(self)


def fallbacks_of(home):
    """Reasons of the launcher's records so far: [number]."""
    try:
        with open(os.path.join(home.runtime, "zcbroker", "fallbacks"), "rb") as records:
            data = records.read()
    except FileNotFoundError:
        return []
    return [data[at + 3] for at in range(0, len(data), 64)]


if __name__ == "__main__":
    # For trying things by hand: a home that lasts as long as the command.
    Options.bin, Options.peers = sys.argv[1], sys.argv[2]
    with LauncherHome(sys.argv[3]) as home:
        home.start_daemon()
        sys.exit(subprocess.run(sys.argv[4:], env={**home.env, "ZCB": home.zcb}, cwd=home.src, check=False).returncode)
