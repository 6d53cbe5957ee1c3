"""Keeper and broker replaced by new files under load: nobody is refused, nothing
fails, and the daemon does not notice."""

import os
import shutil
import signal
import threading
import unittest

from harness import Home, exe_of, program, wait_until
from workers import VERSION, Negotiators, Workers

UPGRADES = 5
RATE = 200
CLIENTS = {"zcb": 2, "zccache": 2, "library": 2}


def install(folder):
    """As a package manager does: beside it, and renamed into place."""
    for path in ("service/keeper/zcbroker-keeper", "service/zcbrokerd"):
        place = os.path.join(folder, os.path.basename(path))
        shutil.copy2(program(path), place + ".new")
        os.rename(place + ".new", place)


def runs(pid, path):
    """Does the process run the file that is there now?"""
    try:
        ours, there = os.stat(f"/proc/{pid}/exe"), os.stat(path)
    except OSError:
        return False
    return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)


class Asking(threading.Thread):
    """Negotiates over gRPC, again and again."""

    def __init__(self, home):
        super().__init__()
        self.home, self.ending = home, threading.Event()
        self.asked, self.failures = 0, []

    def run(self):
        while not self.ending.is_set():
            done = self.home.cli("route", "zccache", VERSION)
            self.asked += 1
            if done.returncode != 0:
                self.failures.append(done.stderr)


class Upgrade(unittest.TestCase):
    def test_under_load(self):
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.programs = os.path.join(home.dir, "bin")
            os.mkdir(home.programs)
            install(home.programs)
            home.start_kept_broker()
            keeper = os.path.join(home.programs, "zcbroker-keeper")
            broker = os.path.join(home.programs, "zcbrokerd")
            wait_until("a route", lambda: home.cli("route", "zccache", VERSION).returncode == 0)
            daemons = home.daemons()
            workers = Workers(home, CLIENTS).start()
            negotiators = Negotiators(home, RATE)
            asking = Asking(home)
            asking.start()
            try:
                for _ in range(UPGRADES):
                    install(home.programs)
                    self.assertFalse(runs(home.broker.pid, keeper))
                    before = home.kept_broker()
                    home.broker.send_signal(signal.SIGUSR2)
                    wait_until("the new keeper", lambda: runs(home.broker.pid, keeper), 30)
                    after = wait_until("the new broker", lambda: home.kept_broker() not in (before, None) and
                                       home.kept_broker(), 30)
                    self.assertTrue(runs(after, broker), exe_of(after))
                    wait_until("it to answer", lambda: home.cli("status").returncode == 0, 30)
            finally:
                workers.end()
                asked, failed, first = negotiators.end()
                asking.ending.set()
                asking.join()
            log = home.broker_log()[-4000:]
            self.assertEqual((failed, first), (0, ""), log)
            self.assertEqual(asking.failures, [], log)
            self.assertGreater(asked, 0)
            self.assertGreater(asking.asked, 0)
            for kind, tally in workers.tallies.items():
                self.assertEqual(tally.failures, [], f"{kind}: {log}")
                self.assertGreater(tally.done, 0, kind)
            self.assertEqual(workers.wrong_objects(), [])
            self.assertEqual(home.daemons(), daemons)
            self.assertEqual(home.spawns(), 1)
            counters = home.counters()
            self.assertEqual(counters["backends_adopted"], 1)
            self.assertNotIn("backends_started", counters)
            print(f"  {UPGRADES} upgrades under load: {asked} framed and {asking.asked} gRPC negotiations, "
                  f"{sum(tally.done for tally in workers.tallies.values())} calls: 0 failed; worst call "
                  f"{max(tally.worst for tally in workers.tallies.values()):.2f} s, one daemon all along")
