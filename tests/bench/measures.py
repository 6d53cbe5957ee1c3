"""What ./dev bench measures. Every function is one set of rows and returns what
goes into evidence.json; contenders take turns, in an order shuffled each round."""

import contextlib
import functools
import hashlib
import os
import random
import statistics
import subprocess
import time

from contenders import CACHES, LEAST, VERSION, Contender, Zcb, ZcbAlone, named_route, start_kept
from harness import Home, peer, program, wait_until

NEW_VERSION = "1.15.8"
HELLOS_PER_SECOND = 20_000


def quantile(ordered, share):
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


# --- In process: tests/bench/latency


def latency(home, protocol, rounds, contenders):
    """{name: {p50, p99, samples}} in microseconds."""
    words = [f"{name}={','.join(target)}" for name, target in contenders.items()]
    out = subprocess.run([program("tests/bench/latency"), protocol, str(rounds), *words],
                         env=home.env, stdout=subprocess.PIPE, text=True, check=True).stdout
    rows = {}
    for line in out.splitlines():
        name, p50, p99, samples = line.split()
        rows[name] = {"p50": float(p50), "p99": float(p99), "samples": int(samples)}
    return rows


@contextlib.contextmanager
def on_core(core):
    """What is started meanwhile runs on that core only. Left to itself, the
    scheduler puts one server beside the client and another across from it,
    which is a lottery worth 20 us on a machine whose cores halt when idle."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def start_upstream(home):
    definitions = os.path.join(home.dir, "empty-definitions")
    sockets = os.path.join(home.dir, "upstream")
    os.mkdir(definitions, 0o700)
    os.mkdir(sockets, 0o700)
    socket = os.path.join(sockets, "broker.sock")
    process = subprocess.Popen(
        [os.path.join(peer("running-process-4.1.0"), "running-process-broker-v1"), "--serve-launch", socket,
         "--service-def-dir", definitions],
        env={**home.env, "RUNNING_PROCESS_BROKER_ALLOW_PRIVILEGED": "1"},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until("upstream's broker to listen", lambda: os.path.exists(socket))
    return process, socket


def framed(options):
    """Both brokers on one core; the client beside them, then on another."""
    with Home(on_path=f"zccache-{VERSION}") as home:
        cores = sorted(os.sched_getaffinity(0))
        with on_core(cores[0]):
            home.start_broker()
            upstream, socket = start_upstream(home)
        assert home.cli("route", "zccache", VERSION).returncode == 0
        rows = {}
        for where, core in (("same_core", cores[0]), ("other_core", cores[-1])):
            with on_core(core):
                seen = latency(home, "framed", options.rounds, {
                    "ours_unknown": (home.socket, "nobody", "1.0.0"),
                    "upstream_unknown": (socket, "nobody", "1.0.0"),
                    "ours_hit": (home.socket, "zccache", VERSION),
                })
            rows.update({f"{name}_{where}": row for name, row in seen.items()})
        upstream.kill()
        upstream.wait()
        return rows


def rate(options):
    """Hellos due at a rate, on all cores; each is late from when it was due."""
    with Home(on_path=f"zccache-{VERSION}") as home:
        home.start_broker()
        assert home.cli("route", "zccache", VERSION).returncode == 0
        out = subprocess.run(
            [program("tests/bench/latency"), "framed-rate", str(HELLOS_PER_SECOND), str(options.rounds / 1000),
             f"{home.socket},zccache,{VERSION}"], env=home.env, stdout=subprocess.PIPE, text=True, check=True).stdout
        p50, p99, samples, answered = out.split()
        return {"per_second": HELLOS_PER_SECOND, "answered_per_second": int(answered), "p50": float(p50),
                "p99": float(p99), "samples": int(samples)}


def grpc_calls(options):
    with Home(on_path=f"zccache-{VERSION}") as home:
        home.start_broker()
        assert home.cli("route", "zccache", VERSION).returncode == 0
        socket = os.path.join(home.dir, "bare.sock")
        bare = subprocess.Popen([program("tests/bench/bare_grpc_server"), socket], env=home.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert bare.stdout.readline() == b"ready\n"
        rows = latency(home, "grpc", options.rounds, {
            "negotiate": (home.socket, "zccache", VERSION),
            "bare_call": (socket, "zccache", VERSION),
        })
        rows.update(latency(home, "grpc-new", min(options.rounds, 2000), {
            "negotiate_new_channel": (home.socket, "zccache", VERSION),
            "bare_call_new_channel": (socket, "zccache", VERSION),
        }))
        bare.kill()
        bare.wait()
        bare.stdout.close()
        return rows


def connects(options):
    """The client library to one and the same daemon, everything on one core."""
    with Home(on_path=f"zccache-{VERSION}") as home:
        core = min(os.sched_getaffinity(0))
        with on_core(core):
            start_kept(home)
            answer = home.cli_json("route", "zccache", VERSION)
            endpoint = answer["negotiation"]["route"]["endpoint"]
            return latency(home, "connect", 4 * options.rounds, {
                "direct": (endpoint, "direct", VERSION),
                "by_route_info": (endpoint, "route-info", VERSION),
            })


def idle(_):
    """The broker that nobody has spoken gRPC to."""
    with Home(on_path=f"zccache-{VERSION}") as home:
        log = open(home.log, "ab")
        with log:
            home.broker = subprocess.Popen([program("service/zcbrokerd"), "--allow-root"], env=home.env,
                                           stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        wait_until("the broker to serve", lambda: "serves" in home.broker_log())
        latency(home, "framed", 50, {"x": (home.socket, "zccache", VERSION)})
        with open(f"/proc/{home.broker.pid}/status", encoding="utf-8") as status:
            fields = dict(line.split(":", 1) for line in status)
        return {"resident_kib": int(fields["VmRSS"].split()[0]), "threads": int(fields["Threads"])}


# --- Whole processes: tests/bench/processes


def turns(samples, calls):
    """{name: {p50, p99, samples, percentiles}} in microseconds."""
    words = [f"{name}={call}" for name, call in calls.items()]
    out = subprocess.run([program("tests/bench/processes"), "turns", str(samples), *words],
                         stdout=subprocess.PIPE, text=True, check=True).stdout
    seen = {name: [] for name in calls}
    for line in out.splitlines():
        name, micros = line.split()
        seen[name].append(float(micros))
    rows = {}
    for name, micros in seen.items():
        micros.sort()
        rows[name] = {"p50": quantile(micros, 0.5), "p99": quantile(micros, 0.99), "samples": len(micros),
                      "percentiles": [quantile(micros, i / 100) for i in range(100)]}
    return rows


SMALL = "#include <stdio.h>\nint main(void) { puts(\"hello\"); return 0; }\n"
HEADERS = 1000


def write_sources(contender):
    contender.write("small.c", SMALL)
    for i in range(HEADERS):
        contender.write(f"h/h{i}.h", f"#ifndef H{i}\n#define H{i}\n"
                        f"struct s{i} {{ int a[{i % 7 + 1}]; struct s{i} *next; }};\n"
                        f"static inline int f{i}(const struct s{i} *s) {{ return s->a[0] + {i}; }}\n#endif\n")
    contender.write("headers.c", "".join(f'#include "h/h{i}.h"\n' for i in range(HEADERS)) +
                    "int sum(const struct s0 *s) { return f0(s); }\n")


def hits(options):
    """Warm hits, from nothing but the output's absence to the exit status."""
    with contextlib.ExitStack() as homes:
        contenders = [homes.enter_context(kind()) for kind in (*CACHES, *LEAST)]
        for contender in contenders:
            write_sources(contender)
        rows = {}
        for source in ("small", "headers"):
            compiler = ("gcc", "-c", f"{source}.c", "-o", f"{source}.o")
            for contender in contenders:
                for _ in range(3):
                    contender.run(*contender.words(*compiler))
            rows[source] = turns(options.samples, {
                c.name: c.call(source, f"{source}.o", *compiler) for c in contenders})
        for contender in contenders:
            contender.check()
        with Contender() as plain:
            write_sources(plain)
            for source in ("small", "headers"):
                call = plain.call(source, f"{source}.o", "/usr/bin/gcc", "-c", f"{source}.c", "-o", f"{source}.o")
                rows[source].update(turns(50, {"plain": call}))
                slowest = max(row["p50"] for name, row in rows[source].items() if name != "plain")
                assert slowest < rows[source]["plain"]["p50"] / 2, "that was no hit"
        return rows


def fallback(options):
    """What the launcher costs where it can only run the compiler."""
    with Contender() as plain, ZcbAlone() as alone:
        calls = {}
        for contender in (plain, alone):
            contender.write("small.c", SMALL)
            calls[contender.name] = contender.call("small", "small.o", "/usr/bin/gcc", "-c", "small.c", "-o", "small.o")
        return turns(options.samples, calls)


# --- Herds


def herd(contender, size, *prefix):
    """(seconds, failed) of that many compiles at once."""
    for i in range(size):
        contender.write(f"f{i}.c", f"int f{i}(void) {{ return {i}; }}\n")
    contender.prefix = list(prefix)
    call = contender.call("herd", "f{}.o", "/usr/bin/gcc", "-c", "f{}.c", "-o", "f{}.o")
    out = subprocess.run([program("tests/bench/processes"), "herd", str(size), call],
                         stdout=subprocess.PIPE, text=True, check=True, timeout=300).stdout
    seconds, failed = out.split()
    return float(seconds), int(failed)


class Cold(Contender):
    """Neither broker nor daemon."""


class Running(Contender):
    """The daemon of that version runs already, alone; its cache is empty."""

    def __init__(self, version):
        super().__init__()
        self.client = os.path.join(peer(f"zccache-{version}"), "zccache")

    def start(self):
        self.run(self.client, "start")


class Brokered(Contender):
    """A broker runs and has claimed the names; no daemon does."""

    def __init__(self, version):
        self.on_path = f"zccache-{version}"
        super().__init__()
        self.version = version

    def start(self):
        start_kept(self.home, self.version)


HERDS = ((24, 10), (64, 10), (256, 3))  # size, rounds


def herds(options):
    """Unmodified clients, all cold. Once also the compilers without any cache,
    and the clients of a daemon that need not be started: what no herd, and what
    no broker can be faster than."""
    rows = []
    for version in (VERSION, NEW_VERSION):
        client = os.path.join(peer(f"zccache-{version}"), "zccache")
        kinds = {"alone": Cold, "plain": Cold, "through_us": functools.partial(Brokered, version),
                 "running": functools.partial(Running, version)}
        for size, rounds in HERDS:
            rounds = max(1, round(rounds * options.herds / 10))
            ways = ["alone", "through_us"] + ["plain", "running"] * (version == VERSION)
            seen = {who: {"seconds": [], "daemons": [], "failed": 0} for who in ways}
            for _ in range(rounds):
                for who in random.sample(ways, len(ways)):
                    with kinds[who]() as contender:
                        seconds, failed = herd(contender, size, *([] if who == "plain" else [client]))
                        seen[who]["seconds"].append(round(seconds, 4))
                        seen[who]["failed"] += failed
                        seen[who]["daemons"].append(len(contender.home.daemons()))
            for who, row in seen.items():
                rows.append({"version": version, "size": size, "who": who, "compiles": size * rounds,
                             "failed": row["failed"], "daemons": sorted(row["daemons"]),
                             "median_seconds": round(statistics.median(row["seconds"]), 4),
                             "seconds": row["seconds"]})
    return rows


# --- Builds

BUILD_FILES = 500
MAKEFILE = """OBJECTS := $(patsubst %.c,%.o,$(wildcard *.c))
all: $(OBJECTS)
%.o: %.c
\t$(LAUNCH) gcc -O1 -MMD -MF $*.d -c $< -o $@
clean:
\trm -f *.o *.d
"""


def write_project(contender):
    contender.write("Makefile", MAKEFILE)
    contender.write("common/common.h", "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n")
    for i in range(BUILD_FILES):
        functions = "".join(
            f"int f{i}_{k}(const char *s) {{ int n = 0; for (; *s; ++s) n += *s * {k + 1}; return n % {i + 2}; }}\n"
            for k in range(4))
        contender.write(f"f{i}.c", f'#include "common/common.h"\n{functions}')


def objects_of(contender):
    digest = hashlib.sha256()
    for i in range(BUILD_FILES):
        with open(os.path.join(contender.home.src, f"f{i}.o"), "rb") as data:
            digest.update(data.read())
    return digest.hexdigest()


def build(contender):
    """(seconds, digest of all objects)"""
    contender.run("make", "-s", "clean")
    start = time.monotonic()
    contender.run("make", "-s", f"-j{os.cpu_count()}", f"LAUNCH={' '.join(contender.prefix)}")
    return time.monotonic() - start, objects_of(contender)


def builds(options):
    seen = {kind.name: {"cold": [], "warm": []} for kind in (Contender, *CACHES)}
    for _ in range(options.builds):
        objects = set()
        for kind in random.sample((Contender, *CACHES), 1 + len(CACHES)):
            with kind() as contender:
                write_project(contender)
                for state in ("cold", "warm") if contender.prefix else ("cold",):
                    seconds, digest = build(contender)
                    seen[kind.name][state].append(round(seconds, 3))
                    objects.add(digest)
                contender.check()
        assert len(objects) == 1, "a build made other objects"
    return {name: {state: {"median_seconds": statistics.median(seconds), "seconds": seconds}
                   for state, seconds in row.items() if seconds} for name, row in seen.items()}
