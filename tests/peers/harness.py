"""A private home for real programs: a broker of ours, daemons and clients of
zccache, and an end to all of them.

Everything runs in a directory of its own, with HOME and XDG_RUNTIME_DIR inside;
only processes whose environment names that directory are ever ended, by pid.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time

PR_SET_CHILD_SUBREAPER = 36


class Options:
    """Set once by run.py."""

    bin = ""
    peers = ""
    zcb = None
    sanitized = False


def become_subreaper():
    """Orphans of killed daemons come to us and are collected: a zombie looks
    alive to zccache."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_orphans(known):
    """Collects ended children that no Popen object waits for."""
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) in known:
            continue
        try:
            with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as stat:
                fields = stat.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] == "Z" and int(fields[1]) == os.getpid():
            try:
                os.waitpid(int(name), os.WNOHANG)
            except ChildProcessError:
                pass


def wait_until(what, condition, seconds=10.0):
    """The one way to wait for what cannot tell: asks until it holds."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s for: {what}")
        select.select([], [], [], 0.01)


class Home:
    """One user's world, as small as it gets."""

    def __init__(self, on_path=None):
        self.dir = tempfile.mkdtemp(prefix="zcp", dir="/tmp")
        self.runtime = os.path.join(self.dir, "run")
        self.src = os.path.join(self.dir, "src")
        os.mkdir(self.runtime, 0o700)
        os.mkdir(self.src)
        path = "/usr/bin:/bin"
        if on_path:
            path = f"{peer(on_path)}:{path}"
        # 1.15 takes its home from passwd when nothing says where the cache is.
        self.cache = os.path.join(self.dir, "cache")
        self.env = {"HOME": self.dir, "XDG_RUNTIME_DIR": self.runtime, "USER": "peer", "PATH": path,
                    "ZCCACHE_CACHE_DIR": self.cache}
        self.broker = None
        self.programs = None  # a folder of their own for keeper and broker
        self.log = os.path.join(self.dir, "broker.log")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        status = None
        if self.broker is not None and self.broker.poll() is None:
            self.broker.send_signal(signal.SIGTERM)
            status = self.broker.wait(30)
        self.end_all()
        text = self.broker_log()
        shutil.rmtree(self.dir, ignore_errors=True)
        # A sanitizer's finding is an exit status of its own.
        if status not in (None, 0):
            raise AssertionError(f"the broker ended with {status}:\n{text[-3000:]}")

    # --- processes

    def processes(self):
        """Whose environment says they belong to this home: {pid: command line}."""
        # Daemons that a client started have a login environment, but keep this.
        mark = f"XDG_RUNTIME_DIR={self.runtime}".encode()
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open(f"/proc/{name}/environ", "rb") as environ:
                    if mark not in environ.read().split(b"\0"):
                        continue
                with open(f"/proc/{name}/cmdline", "rb") as cmdline:
                    found[int(name)] = cmdline.read().split(b"\0")
            except OSError:
                continue
        return found

    def daemons(self, version=None):
        """Live zccache daemons of this home: [pid]."""
        reap_orphans({self.broker.pid} if self.broker else set())
        pids = []
        for pid, words in self.processes().items():
            if b"--foreground" not in words:
                continue
            if version is not None:
                exe = exe_of(pid)
                if version not in exe and version.encode() not in b" ".join(words):
                    continue
            pids.append(pid)
        return sorted(pids)

    def end_all(self):
        for pid in self.processes():
            if pid != os.getpid():
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

        def gone():
            reap_orphans({self.broker.pid} if self.broker else set())
            return not self.processes()

        if self.broker is not None:
            self.broker.wait(10)
        wait_until("all processes of the home to end", gone)

    def spawns(self):
        """How many daemons said that they had started, ever."""
        count = 0
        for folder, _, files in os.walk(self.dir):
            for name in files:
                if name.startswith("daemon-lifecycle"):
                    with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as log:
                        count += sum('"event":"spawn"' in line for line in log)
        return count

    # --- the broker

    @property
    def socket(self):
        return os.path.join(self.runtime, "zcbroker", "broker.sock")

    def start_broker(self, *arguments, **extra):
        log = open(self.log, "ab")
        with log:
            self.broker = subprocess.Popen(
                [program("service/zcbrokerd"), "--allow-root", *arguments], env={**self.env, **extra},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        wait_until("the broker to answer", lambda: self.cli("status").returncode == 0, 20)

    def start_kept_broker(self, *arguments, **extra):
        """The same under its keeper, which is `self.broker` then."""
        self.spawn_kept_broker(*arguments, **extra)
        wait_until("the broker to answer", lambda: self.cli("status").returncode == 0, 20)

    def spawn_kept_broker(self, *arguments, **extra):
        """The same without waiting: nobody has spoken gRPC then."""
        keeper, broker = program("service/keeper/zcbroker-keeper"), program("service/zcbrokerd")
        if self.programs is not None:
            keeper, broker = (os.path.join(self.programs, os.path.basename(path)) for path in (keeper, broker))
        log = open(self.log, "ab")
        with log:
            self.broker = subprocess.Popen(
                [keeper, "--broker", broker, "--", "--allow-root", *arguments], env={**self.env, **extra},
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)

    def kept_broker(self):
        """The pid of the keeper's broker, or None between two. One that has handed over may live on beside it."""
        brokers = []
        for pid in self.processes():
            try:
                with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == self.broker.pid and os.path.basename(exe_of(pid)).startswith("zcbrokerd"):
                brokers.append((int(fields[19]), pid))
        return max(brokers)[1] if brokers else None

    def kill_broker(self):
        self.broker.kill()
        self.broker.wait(10)

    def stop_broker(self):
        self.broker.send_signal(signal.SIGTERM)
        status = self.broker.wait(30)
        assert status == 0, f"the broker ended with {status}:\n{self.broker_log()[-3000:]}"

    def broker_log(self):
        try:
            with open(self.log, encoding="utf-8", errors="replace") as log:
                return log.read()
        except OSError:
            return ""

    def cli(self, *words, **extra):
        return subprocess.run([program("client/cli/zcbroker"), *words], env={**self.env, **extra},
                              cwd=self.src, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=60, check=False)

    def cli_json(self, *words, **extra):
        done = self.cli(*words, "--json", **extra)
        return json.loads(done.stdout)

    def counters(self):
        return {k: int(v) for k, v in self.cli_json("status")["broker"]["counters"].items()}

    def write_definition(self, service, version, binary, args):
        folder = os.path.join(self.dir, ".config", "zcbroker", "services")
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, f"{service}.textproto"), "w", encoding="utf-8") as out:
            out.write(f'name: "{service}"\nbinaries {{ path: "{binary}" version: "{version}" }}\n')
            for arg in args:
                out.write(f'args: "{arg}"\n')

    # --- clients

    def write(self, name, text):
        with open(os.path.join(self.src, name), "w", encoding="utf-8") as out:
            out.write(text)

    def zccache(self, version, *words, timeout=60, **extra):
        return subprocess.run([f"{peer('zccache-' + version)}/zccache", *words],
                              env={**self.env, **extra}, cwd=self.src, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=timeout, check=False)

    def herd(self, version, count, **extra):
        """`count` compiles at once; returns (seconds, failures, objects)."""
        for i in range(count):
            self.write(f"f{i}.c", f"int f{i}(void) {{ return {i}; }}\n")
            try:
                os.remove(os.path.join(self.src, f"f{i}.o"))
            except FileNotFoundError:
                pass
        program_path = f"{peer('zccache-' + version)}/zccache"
        start = time.monotonic()
        calls = [
            subprocess.Popen([program_path, "gcc", "-c", f"f{i}.c", "-o", f"f{i}.o"],
                             env={**self.env, **extra}, cwd=self.src, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            for i in range(count)
        ]
        failures = []
        for call in calls:
            _, errors = call.communicate(timeout=120)
            if call.returncode != 0:
                failures.append(errors.decode(errors="replace"))
        seconds = time.monotonic() - start
        objects = sum(os.path.exists(os.path.join(self.src, f"f{i}.o")) for i in range(count))
        return seconds, failures, objects


def program(path):
    if path == "client/launcher/zcb" and Options.zcb:
        return Options.zcb
    return os.path.join(Options.bin, path)


def peer(name):
    return os.path.join(Options.peers, name)


def metric_families(open_metrics):
    """By name, as Prometheus' own reader understands the text."""
    sys.path.insert(0, os.path.join(peer("prometheus-client-0.21.1"), "prometheus_client.zip"))
    # pylint: disable-next=import-outside-toplevel
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
    return {family.name: family for family in text_string_to_metric_families(open_metrics)}


def exe_of(pid):
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
