"""The ways to compile a file that are measured against each other: each has a
home, and thus a cache, a daemon and a broker, of its own."""

import os
import re
import subprocess

from harness import Home, peer, program, wait_until

VERSION = "1.11.22"
LONG_AGO = 1_600_000_000  # caches distrust files that were written just now


def named_route(home, version):
    return os.path.join(home.runtime, "zcbroker", "routes", "zccache", f"{version}.sock")


def start_kept(home, version=VERSION):
    """A broker that claims what clients look for; its daemon is not started yet."""
    home.start_kept_broker()
    wait_until("the named route", lambda: os.path.exists(named_route(home, version)))


class Contender:
    """The compiler itself, and the base of all others."""

    name = "plain"
    label = "gcc itself"
    on_path = None

    def __init__(self):
        self.home = Home(on_path=self.on_path)
        self.prefix = []
        self.extra = {}

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *words):
        self.home.__exit__(*words)

    def start(self):
        pass

    @property
    def env(self):
        return {**self.home.env, **self.extra}

    def words(self, *compiler):
        return [*self.prefix, *compiler]

    def write(self, name, text):
        path = os.path.join(self.home.src, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.home.write(name, text)
        os.utime(path, (LONG_AGO, LONG_AGO))

    def run(self, *words):
        return subprocess.run(words, env=self.env, cwd=self.home.src, stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=600, check=True).stdout

    def call(self, name, output, *compiler):
        """The file by which tests/bench/processes runs this."""
        path = os.path.join(self.home.dir, f"{name}.call")
        strings = [self.home.src, output, *(f"{k}={v}" for k, v in self.env.items()), "", *self.words(*compiler)]
        with open(path, "w", encoding="utf-8") as out:
            out.write("".join(f"{text}\0" for text in strings))
        return path

    def check(self):
        """Fails where the calls so far did not go the way that is meant."""


class Zcb(Contender):
    name = "zcb"
    label = "zcb"
    on_path = f"zccache-{VERSION}"

    def start(self):
        self.prefix = [program("client/launcher/zcb")]
        start_kept(self.home)
        assert self.home.cli("route", "zccache", VERSION).returncode == 0

    def check(self):
        records = os.path.join(self.home.runtime, "zcbroker", "fallbacks")
        assert not os.path.exists(records) or os.path.getsize(records) == 0, "the launcher ran the compiler"


class ZcbAlone(Contender):
    """The launcher where there is no broker and no daemon."""

    name = "zcb_alone"
    label = "zcb, no broker"

    def start(self):
        self.prefix = [program("client/launcher/zcb")]


class Zccache(Contender):
    name = "zccache"
    label = "zccache"

    def start(self):
        self.prefix = [os.path.join(peer(f"zccache-{VERSION}"), "zccache")]
        self.run(*self.prefix, "start")
        assert len(self.home.daemons()) == 1


class Relay(Contender):
    """zccache as it is, at the endpoint that the broker has claimed."""

    name = "relay"
    label = "zccache through zcbroker"
    on_path = f"zccache-{VERSION}"

    def start(self):
        self.prefix = [os.path.join(peer(f"zccache-{VERSION}"), "zccache")]
        start_kept(self.home)

    def check(self):
        counters = self.home.counters()
        assert counters.get("relay.connections", 0) > 0, counters


class Ccache(Contender):
    name = "ccache"
    label = "ccache"

    def start(self):
        self.prefix = ["/usr/bin/ccache"]
        self.extra = {"CCACHE_DIR": os.path.join(self.home.dir, "ccache")}


class Sccache(Contender):
    name = "sccache"
    label = "sccache"

    def start(self):
        self.prefix = [os.path.join(peer("sccache-0.16.0"), "sccache")]
        self.extra = {"SCCACHE_DIR": os.path.join(self.home.dir, "sccache"), "SCCACHE_IDLE_TIMEOUT": "0",
                      "SCCACHE_SERVER_UDS": os.path.join(self.home.runtime, "sccache.sock")}
        self.run(*self.prefix, "--start-server")


class BareRelay(Zccache):
    """zccache as it is, with the least there can be between it and its daemon."""

    name = "bare_relay"
    label = "zccache through a bare relay"

    def start(self):
        super().start()
        endpoint = os.path.join(self.home.cache, "daemon.sock")
        os.rename(endpoint, endpoint + ".daemon")
        self.relay = subprocess.Popen([program("tests/bench/bare_relay"), endpoint, endpoint + ".daemon"])
        wait_until("the bare relay", lambda: os.path.exists(endpoint))

    def __exit__(self, *words):
        self.relay.kill()
        self.relay.wait()
        super().__exit__(*words)


class BareExchange(Zcb):
    """The request that zcb sends, by a program that does nothing else."""

    name = "bare_exchange"
    label = "zcb's exchange alone"

    def call(self, name, output, *compiler):
        request = os.path.join(self.home.dir, f"{name}.request")
        trace = request + ".strace"
        self.run("strace", "-o", trace, "-xx", "-s", "1000000", "-e", "trace=connect,sendto", *self.words(*compiler))
        with open(trace, encoding="utf-8") as lines:
            calls = lines.read()

        def strings(pattern):
            return [bytes.fromhex(text.replace("\\x", "")) for text in re.findall(pattern, calls)]

        endpoint, = strings(r'sun_path="([^"]*)"')
        with open(request, "wb") as out:
            out.write(b"".join(strings(r'sendto\(\d+, "([^"]*)"')))
        zcb, self.prefix = self.prefix, [program("tests/bench/bare_exchange")]
        path = super().call(name, output, endpoint.decode(), request)
        self.prefix = zcb
        return path


CACHES = (Zcb, Zccache, Relay, Ccache, Sccache)
# What nothing of their kind can be faster than.
LEAST = (BareExchange, BareRelay)
LABELS = {kind.name: kind.label for kind in (Contender, ZcbAlone, *CACHES, *LEAST)}
