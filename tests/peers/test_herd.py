"""Many clients at once, none of them changed: one daemon, no failure."""

import statistics
import unittest

from harness import Home, Options

VERSION = "1.11.22"
ROUNDS = 10


def alone(size):
    """What the same herd does without a broker; printed beside ours."""
    daemons, failures, seconds = [], 0, []
    for _ in range(ROUNDS):
        with Home() as home:
            took, failed, _ = home.herd(VERSION, size)
            seconds.append(took)
            failures += len(failed)
            daemons.append(len(home.daemons()))
    return daemons, failures, seconds


def report(who, daemons, failures, seconds, size):
    print(f"  herd of {size}, {who}: daemons {sorted(daemons)}, {failures} of {size * ROUNDS} compiles "
          f"failed, median {statistics.median(seconds):.3f} s")


class Herd(unittest.TestCase):
    def herd(self, size):
        daemons, failures, seconds = [], 0, []
        for _ in range(ROUNDS):
            with Home(on_path=f"zccache-{VERSION}") as home:
                home.start_broker()
                took, failed, objects = home.herd(VERSION, size, ZCCACHE_BROKER_CONNECT="1")
                seconds.append(took)
                failures += len(failed)
                daemons.append(len(home.daemons()))
                self.assertEqual(failed, [])
                self.assertEqual(objects, size)
                self.assertEqual(len(home.daemons()), 1, "daemons alive")
                self.assertEqual(home.spawns(), 1, "daemons ever started")
                self.assertEqual(home.counters()["backends_started"], 1)
        report("through the broker", daemons, failures, seconds, size)
        report("alone", *alone(size), size)

    def test_24(self):
        self.herd(24)

    def test_64(self):
        self.herd(64)


@unittest.skipUnless(Options.sanitized, "the ten rounds above are more")
class Sanitized(unittest.TestCase):
    def test_24_once(self):
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.start_broker()
            _, failed, objects = home.herd(VERSION, 24, ZCCACHE_BROKER_CONNECT="1")
            self.assertEqual((failed, objects), ([], 24))
            self.assertEqual(len(home.daemons()), 1)
            self.assertEqual(home.spawns(), 1)
