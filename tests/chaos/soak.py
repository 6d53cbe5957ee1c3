"""A thousand negotiations a second and a build loop, for as long as one likes:
what broker and keeper hold at the end is what they held after warming up.

./dev soak SECONDS; ends with "cases: N passed, N failed"."""

import argparse
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "peers"))
sys.path.insert(0, HERE)

import harness  # pylint: disable=wrong-import-position
from harness import Home, wait_until  # pylint: disable=wrong-import-position
from workers import VERSION, Negotiators, Workers  # pylint: disable=wrong-import-position

RATE = 1000
CLIENTS = {"zcb": 1, "zccache": 1}
BUILD_PAUSE = 0.05
WARM_UP = 0.3  # of the whole time
# What may differ, measured with all clients at rest. Memory: an allocator keeps
# what a busy moment took, once; a leak of 100 bytes a negotiation would be
# 100 KB a second.
TOLERANCE = {"resident KiB": 3 * 1024, "descriptors": 4, "threads": 2, "children": 0, "sockets": 4, "files": 4}


def of_process(pid):
    with open(f"/proc/{pid}/status", encoding="utf-8") as text:
        fields = dict(line.split(":", 1) for line in text if ":" in line)
    children = 0
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children", encoding="utf-8") as text:
            children += len(text.read().split())
    return {"resident KiB": int(fields["VmRSS"].split()[0]), "threads": int(fields["Threads"]),
            "descriptors": len(os.listdir(f"/proc/{pid}/fd")), "children": children}


def of_home(home):
    with open("/proc/net/unix", encoding="utf-8") as text:
        sockets = sum(home.dir in line for line in text)
    files = sum(len(names) for _, _, names in os.walk(home.runtime))
    return {"sockets": sockets, "files": files}


class Soak:
    def __init__(self, seconds):
        self.seconds = seconds
        self.passed = 0
        self.failed = []

    def check(self, what, good, why=""):
        if good:
            self.passed += 1
        else:
            self.failed.append(f"{what}: {why}")

    def measure(self, home, workers, negotiators):
        """With everybody at rest, and what they had begun over."""
        workers.resting.set()
        negotiators.rest()
        wait_until("the compiles to end", lambda: not workers.running, 60)
        broker, last = home.kept_broker(), None

        def at_rest():
            nonlocal last
            before, last = last, len(os.listdir(f"/proc/{broker}/fd"))
            return before == last
        wait_until("the connections to end", at_rest)
        found = {"broker": of_process(broker), "keeper": of_process(home.broker.pid), "home": of_home(home)}
        workers.resting.clear()
        negotiators.go()
        return broker, found

    def run(self):
        with Home(on_path=f"zccache-{VERSION}") as home:
            home.start_kept_broker()
            wait_until("a route", lambda: home.cli("route", "zccache", VERSION).returncode == 0, 60)
            workers = Workers(home, CLIENTS, pause=BUILD_PAUSE).start()
            negotiators = Negotiators(home, RATE)
            begin = time.monotonic()
            try:
                time.sleep(self.seconds * WARM_UP)
                broker, warm = self.measure(home, workers, negotiators)
                time.sleep(max(0.0, begin + self.seconds - time.monotonic()))
                last_broker, end = self.measure(home, workers, negotiators)
            finally:
                took = time.monotonic() - begin
                workers.end()
                asked = negotiators.end()
            self.judge(workers, asked, took, warm, end)
            self.check("one broker all the time", broker == last_broker, f"{broker}, {last_broker}")
            if self.failed:
                print(home.broker_log()[-4000:])

    def judge(self, workers, negotiations, took, warm, end):
        print("| of | what | after warming up | at the end |\n|---|---|---|---|")
        for of, things in warm.items():
            for what, before in things.items():
                after = end[of][what]
                print(f"| {of} | {what} | {before} | {after} |")
                self.check(f"{of}: {what}", after <= before + TOLERANCE[what], f"{before}, then {after}")
        asked, failed, first = negotiations
        rate = asked / took
        print(f"\n{asked} negotiations, {rate:.0f} a second, {failed} failed; "
              f"{len(workers.objects)} compiles")
        self.check("negotiations", failed == 0, f"{failed}, the first: {first}")
        # The load has to have been one; how fast is the machine's affair.
        self.check("load", rate > RATE / 10, f"{rate:.0f} a second")
        for kind, tally in workers.tallies.items():
            self.check(f"{kind} lost nothing", tally.done > 0 and not tally.failures, "\n".join(tally.failures))
        wrong = workers.wrong_objects()
        self.check("objects are the compiler's", not wrong, "\n".join(wrong))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of built programs (bazel-bin)")
    parser.add_argument("--peers", required=True, help="the folder of real programs (./dev peers)")
    parser.add_argument("seconds", type=float)
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.become_subreaper()
    soak = Soak(options.seconds)
    soak.run()
    for text in soak.failed:
        print(f"FAILED {text}")
    print(f"cases: {soak.passed} passed, {len(soak.failed)} failed")
    return 0 if soak.passed and not soak.failed else 1


if __name__ == "__main__":
    sys.exit(main())
