"""Eight clients work while faults, drawn from a seed, hit everything around
them. Through `zcb` and our client library nothing fails, and every object is
the compiler's; what unmodified clients lose is counted.

./dev chaos SECONDS [SEED]; ends with "cases: N passed, N failed"."""

import argparse
import collections
import ctypes
import os
import random
import resource
import shutil
import signal
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "peers"))
sys.path.insert(0, HERE)

import harness  # pylint: disable=wrong-import-position
from harness import Home, wait_until  # pylint: disable=wrong-import-position
from workers import VERSION, Workers  # pylint: disable=wrong-import-position

CLIENTS = {"zcb": 5, "zccache": 2, "library": 1}
RESTARTS = 50  # of the broker in every run, whatever else is drawn
MAY_FAIL = {"zccache"}  # calls in flight at a broker that is killed
RUNTIME_MEGABYTES = 4
PATIENCE = 60


class NotHere(Exception):
    """This fault cannot be had on this machine."""


def signal_all(pids, number):
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


class Faults:
    """Each method is a fault; it returns when its cause is gone."""

    def __init__(self, home, workers, rng):
        self.home, self.workers, self.rng = home, workers, rng
        self.zcbroker = os.path.join(home.runtime, "zcbroker")
        self.mounted = False

    def broker(self):
        return wait_until("a broker", self.home.kept_broker, PATIENCE)

    def pause(self, least, most):
        time.sleep(self.rng.uniform(least, most))  # how long a fault lasts

    # --- processes

    def broker_killed(self):
        os.kill(self.broker(), signal.SIGKILL)

    def broker_stopped(self):
        pid = self.broker()
        os.kill(pid, signal.SIGSTOP)
        self.pause(0.2, 1.5)
        os.kill(pid, signal.SIGCONT)

    def broker_restarted(self):
        self.home.stop_broker()
        self.home.start_kept_broker()

    def broker_upgraded(self):
        """The keeper has a new one take over, as after an upgrade of its files."""
        before = self.broker()
        self.home.broker.send_signal(signal.SIGUSR2)
        wait_until("the successor", lambda: self.home.kept_broker() not in (None, before), PATIENCE)

    def daemon_killed(self):
        signal_all(self.home.daemons(), signal.SIGKILL)

    def daemon_stopped(self):
        """For good: it is found wedged, ended and replaced."""
        pids = self.home.daemons()
        signal_all(pids, signal.SIGSTOP)
        wait_until("the stopped daemon to be ended", lambda: not set(pids) & set(self.home.daemons()), PATIENCE)

    def daemon_stopped_and_continued(self):
        pids = self.home.daemons()
        signal_all(pids, signal.SIGSTOP)
        self.pause(0.1, 0.8)
        signal_all(pids, signal.SIGCONT)

    def daemon_and_broker_killed(self):
        pid = self.broker()
        signal_all([*self.home.daemons(), pid], signal.SIGKILL)

    def client_killed(self):
        with self.workers.lock:
            if self.workers.running:
                process = self.rng.choice(list(self.workers.running.values()))
                if process.returncode is None:
                    self.workers.hit.add(process.pid)
                    process.send_signal(signal.SIGKILL)

    def client_stopped(self):
        with self.workers.lock:
            victims = list(self.workers.running.values())
            for process in victims:
                process.send_signal(signal.SIGSTOP)
        self.pause(0.1, 0.8)
        for process in victims:
            process.send_signal(signal.SIGCONT)

    # --- files

    def remove(self, path):
        try:
            os.remove(path)
        except FileNotFoundError:
            pass

    def socket_deleted(self):
        self.remove(os.path.join(self.zcbroker, "broker.sock"))

    def lock_deleted(self):
        self.remove(os.path.join(self.zcbroker, "broker.lock"))

    def routes_deleted(self):
        shutil.rmtree(os.path.join(self.zcbroker, "routes"), ignore_errors=True)

    def backends_deleted(self):
        shutil.rmtree(os.path.join(self.zcbroker, "backends"), ignore_errors=True)

    def claimed_endpoint_deleted(self):
        self.remove(os.path.join(self.home.cache, "daemon.sock"))

    def runtime_directory_deleted(self):
        shutil.rmtree(self.zcbroker, ignore_errors=True)

    # --- resources

    def disk_full(self):
        if not self.mounted:
            raise NotHere("no tmpfs may be mounted")
        path = os.path.join(self.home.runtime, "filler")
        try:
            with open(path, "wb", buffering=0) as out:
                while True:
                    out.write(bytes(65536))
        except OSError:
            pass
        # With a death in it, after which journal and info have to be written.
        if self.rng.random() < 0.5:
            signal_all(self.home.daemons(), signal.SIGKILL)
        self.pause(0.5, 1.5)
        os.remove(path)

    def descriptors_exhausted(self):
        pid = self.broker()
        try:
            before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            used = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (used, before[1]))
        except PermissionError as error:
            raise NotHere("another process's limits may not be set") from error
        self.pause(0.3, 1.0)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)

    def mount_small_disk(self):
        """The runtime directory becomes a file system of a few megabytes."""
        libc = ctypes.CDLL(None, use_errno=True)
        options = f"size={RUNTIME_MEGABYTES}m,mode=0700,uid={os.getuid()}".encode()
        self.mounted = libc.mount(b"zcbroker-chaos", self.home.runtime.encode(), b"tmpfs", 0, options) == 0

    def unmount(self):
        if self.mounted:
            ctypes.CDLL(None).umount2(self.home.runtime.encode(), 2)  # MNT_DETACH


FAULTS = ["broker_killed", "broker_stopped", "broker_restarted", "broker_upgraded", "daemon_killed", "daemon_stopped",
          "daemon_stopped_and_continued", "daemon_and_broker_killed", "client_killed", "client_stopped",
          "socket_deleted", "lock_deleted", "routes_deleted", "backends_deleted", "claimed_endpoint_deleted",
          "runtime_directory_deleted", "disk_full", "descriptors_exhausted"]


def sequence(rng):
    """Every fault once in each round, in an order of its own."""
    while True:
        round_ = list(FAULTS)
        rng.shuffle(round_)
        yield from round_


NEW_BROKERS = ["broker_killed", "broker_restarted", "broker_upgraded"]


def healthy(home):
    """Broker, claimed endpoint and routes are there and answer."""
    route = os.path.join(home.runtime, "zcbroker", "routes", "zccache", f"{VERSION}.sock")
    if not os.path.exists(route) or home.cli("status").returncode != 0:
        return False
    return home.cli("route", "zccache", VERSION).returncode == 0


class Run:
    def __init__(self, seconds, seed):
        self.seconds, self.rng = seconds, random.Random(seed)
        self.passed = 0
        self.failed = []
        self.hits = collections.Counter()
        self.skipped = {}

    def check(self, what, good, why=""):
        if good:
            self.passed += 1
        else:
            self.failed.append(f"{what}: {why}")

    def hit(self, faults, name):
        before = {kind: len(tally.failures) for kind, tally in faults.workers.tallies.items()}
        begin = time.monotonic()
        try:
            getattr(faults, name)()
            wait_until(f"health after {name}", lambda: healthy(faults.home), PATIENCE)
        except NotHere as why:
            self.skipped[name] = str(why)
            return
        except AssertionError as error:
            self.check(name, False, str(error))
            return
        self.hits[name] += 1
        for kind, tally in faults.workers.tallies.items():
            for failure in tally.failures[before[kind]:]:
                print(f"  {kind}, around {name}: {failure}", flush=True)
        print(f"  {name}: well again after {time.monotonic() - begin:.2f} s", flush=True)

    def run(self):
        with Home(on_path=f"zccache-{VERSION}") as home:
            workers = Workers(home, CLIENTS)
            faults = Faults(home, workers, self.rng)
            faults.mount_small_disk()
            try:
                home.start_kept_broker()
                wait_until("health", lambda: healthy(home), PATIENCE)
                workers.start()
                try:
                    end = time.monotonic() + self.seconds
                    for name in sequence(self.rng):
                        if time.monotonic() > end or self.failed:
                            break
                        self.hit(faults, name)
                        time.sleep(self.rng.uniform(0.0, 0.5))  # so that faults meet clients at rest, too
                    while sum(self.hits[name] for name in NEW_BROKERS) < RESTARTS and not self.failed:
                        self.hit(faults, self.rng.choice(NEW_BROKERS))
                finally:
                    workers.end()
                self.judge(home, workers)
            finally:
                if self.failed:
                    print(home.broker_log()[-8000:])
                home.stop_broker()
                home.end_all()
                home.broker = None
                faults.unmount()

    def judge(self, home, workers):
        for name, count in sorted(self.hits.items()):
            self.check(name, count > 0)
        for kind, tally in workers.tallies.items():
            self.check(f"{kind} worked", tally.done > 0, "nothing was done")
            if kind not in MAY_FAIL:
                self.check(f"{kind} lost nothing", not tally.failures, "\n".join(tally.failures))
        wrong = workers.wrong_objects()
        self.check("objects are the compiler's", not wrong, "\n".join(wrong))
        daemons = wait_until("the daemons to be one again", lambda: len(home.daemons()) <= 1 and
                             [home.daemons()], PATIENCE)[0]
        print("\n| fault | survived |\n|---|---|")
        for name in FAULTS:
            print(f"| {name.replace('_', ' ')} | {self.skipped.get(name, self.hits[name])} |")
        print("\n| clients | operations | ended by us | failed | longest |\n|---|---|---|---|---|")
        for kind, tally in workers.tallies.items():
            print(f"| {kind} | {tally.done} | {tally.killed} | {len(tally.failures)} | {tally.worst:.2f} s |")
        print(f"\n{len(workers.objects)} objects, {len(daemons)} daemon left")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of built programs (bazel-bin)")
    parser.add_argument("--peers", required=True, help="the folder of real programs (./dev peers)")
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int, nargs="?", default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.become_subreaper()
    print(f"seed {options.seed}", flush=True)
    run = Run(options.seconds, options.seed)
    run.run()
    for text in run.failed:
        print(f"FAILED (seed {options.seed}) {text}")
    print(f"cases: {run.passed} passed, {len(run.failed)} failed")
    return 0 if run.passed and not run.failed else 1


if __name__ == "__main__":
    sys.exit(main())
