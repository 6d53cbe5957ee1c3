"""Clients that go on and on: compiling through `zcb`, through the unmodified
wrapper at a public name, and asking with our client library."""

import collections
import os
import subprocess
import sys
import threading
import time

from harness import peer, program

VERSION = "1.11.22"
SOURCES = 40
OP_SECONDS = 60
SOURCE = ("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
          'int s{0}(int x) {{ printf("%d", x + {0}); return {0}; }}\n')


class Negotiators:
    """negotiators.py in the home's environment."""

    def __init__(self, home, rate):
        here = os.path.dirname(os.path.abspath(__file__))
        env = {**home.env, "PYTHONPATH": os.path.join(here, "..", "peers")}
        self.process = subprocess.Popen(
            [sys.executable, os.path.join(here, "negotiators.py"), home.socket, "zccache", VERSION, str(rate)], env=env,
            cwd=home.src, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)

    def rest(self):
        self.process.stdin.write("rest\n")
        assert self.process.stdout.readline() == "resting\n"

    def go(self):
        self.process.stdin.write("go\n")

    def end(self):
        """(asked, failed, the first failure)"""
        out, _ = self.process.communicate("end\n", timeout=60)
        asked, failed, first = out.rstrip("\n").split(" ", 2)
        return int(asked), int(failed), first


class Tally:
    """What became of the operations of one kind of client."""

    def __init__(self):
        self.done = self.killed = 0
        self.failures = []
        self.worst = 0.0


class Workers:
    """`kinds`: {"zcb": 5, "zccache": 2, "library": 1}, one thread each. Every object is
    compared with the compiler's own as soon as it is there, and once more at the end."""

    def __init__(self, home, kinds, pause=0.0):
        self.home = home
        self.pause = pause
        self.lock = threading.Lock()
        self.tallies = {kind: Tally() for kind in kinds}
        self.running = {}  # worker: Popen
        self.hit = set()  # pids that the chaos ended
        self.objects = collections.deque()  # (path, number of its source)
        self.ending = threading.Event()
        self.resting = threading.Event()  # set: begin nothing new
        self.plain = []
        folder = self.folder("plain")
        for i in range(SOURCES):
            with open(os.path.join(folder, f"s{i}.c"), "w", encoding="utf-8") as out:
                out.write(SOURCE.format(i))
            subprocess.run(["gcc", "-O1", "-c", f"s{i}.c", "-o", f"s{i}.o"], cwd=folder, env=home.env, check=True)
            with open(os.path.join(folder, f"s{i}.o"), "rb") as made:
                self.plain.append(made.read())
        workers = [kind for kind, count in kinds.items() for _ in range(count)]
        self.threads = [threading.Thread(target=self.work, args=(n, kind)) for n, kind in enumerate(workers)]

    def folder(self, name):
        path = os.path.join(self.home.src, name)
        os.makedirs(path, exist_ok=True)
        return path

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def end(self):
        self.ending.set()
        for thread in self.threads:
            thread.join()

    def work(self, number, kind):
        count = 0
        while not self.ending.is_set():
            if self.resting.is_set():
                self.ending.wait(0.02)
                continue
            count += 1
            self.one(number, kind, count)
            if self.pause:
                self.ending.wait(self.pause)

    def one(self, number, kind, count):
        source = (count * 7 + number) % SOURCES
        obj = None
        if kind == "library":
            direct = os.path.join(self.home.cache, "daemon.sock")
            words, cwd = [program("tests/chaos/library_client"), direct, VERSION, "30"], self.home.src
            env = {**self.home.env, "ZCCACHE_BROKER_CONNECT": "1"}
        else:
            # Each third file is news to the cache.
            cwd = self.folder(f"w{number}/{count}" if count % 3 == 0 else f"w{number}")
            path = os.path.join(cwd, f"s{source}.c")
            if not os.path.exists(path):
                with open(path, "w", encoding="utf-8") as out:
                    out.write(SOURCE.format(source) + f"/* {number} {count if count % 3 == 0 else 0} */\n")
            obj = os.path.join(cwd, f"{count}.o")
            command = program("client/launcher/zcb") if kind == "zcb" else f"{peer('zccache-' + VERSION)}/zccache"
            words = [command, "gcc", "-O1", "-c", f"s{source}.c", "-o", f"{count}.o"]
            env = self.home.env
        begin = time.monotonic()
        process = subprocess.Popen(words, env=env, cwd=cwd, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        with self.lock:
            self.running[number] = process
        try:
            _, errors = process.communicate(timeout=OP_SECONDS)
            failure = f"status {process.returncode}: {errors.decode(errors='replace')[-400:]}" if process.returncode else None
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            failure = f"no end within {OP_SECONDS} s"
        took = time.monotonic() - begin
        with self.lock:
            del self.running[number]
            tally = self.tallies[kind]
            if process.pid in self.hit:
                self.hit.discard(process.pid)
                tally.killed += 1
                return
            tally.done += 1
            tally.worst = max(tally.worst, took)
        if failure is None and obj is not None:
            failure = self.wrong(obj, source)
            self.objects.append((obj, source))
        if failure is not None:
            with self.lock:
                tally.failures.append(f"{time.strftime('%H:%M:%S')} after {took:.2f} s, {failure}")

    def wrong(self, obj, source):
        try:
            with open(obj, "rb") as made:
                return None if made.read() == self.plain[source] else f"{obj} is not what gcc makes of it"
        except OSError as error:
            return str(error)

    def wrong_objects(self):
        """After the end: nobody has written later."""
        return [text for text in (self.wrong(*each) for each in self.objects) if text]
