"""Measures the promises of this version against the peers, in one run, and
writes what it saw: docs/evidence.json, docs/evidence.md and the table in
README.md. Called by ./dev bench. Nothing here is a test; a bar that is missed
is written down as missed."""

import argparse
import contextlib
import datetime
import json
import os
import platform
import random
import statistics
import subprocess
import sys

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))

import harness  # pylint: disable=wrong-import-position
from harness import Home, peer, program, wait_until  # pylint: disable=wrong-import-position

VERSION = "1.11.22"


def latency(home, protocol, rounds, contenders):
    """{name: (p50, p99, samples)} in microseconds."""
    words = [f"{name}={','.join(target)}" for name, target in contenders.items()]
    out = subprocess.run([program("tests/bench/latency"), protocol, str(rounds), *words],
                         env=home.env, capture_output=True, text=True, check=True).stdout
    rows = {}
    for line in out.splitlines():
        name, p50, p99, samples = line.split()
        rows[name] = (float(p50), float(p99), int(samples))
    return rows


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


def framed(rounds):
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
                seen = latency(home, "framed", rounds, {
                    "ours_unknown": (home.socket, "nobody", "1.0.0"),
                    "upstream_unknown": (socket, "nobody", "1.0.0"),
                    "ours_hit": (home.socket, "zccache", VERSION),
                })
            rows.update({f"{name}_{where}": row for name, row in seen.items()})
        upstream.kill()
        upstream.wait()
        return rows


def grpc_calls(rounds):
    with Home(on_path=f"zccache-{VERSION}") as home:
        home.start_broker()
        assert home.cli("route", "zccache", VERSION).returncode == 0
        socket = os.path.join(home.dir, "bare.sock")
        bare = subprocess.Popen([program("tests/bench/bare_grpc_server"), socket], env=home.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert bare.stdout.readline() == b"ready\n"
        rows = latency(home, "grpc", rounds, {
            "negotiate": (home.socket, "zccache", VERSION),
            "bare_call": (socket, "zccache", VERSION),
        })
        bare.kill()
        bare.wait()
        bare.stdout.close()
        return rows


def herds(size, rounds):
    """Cold herds with and without the broker, in an order shuffled each round."""
    seconds = {"broker": [], "alone": []}
    daemons = {"broker": [], "alone": []}
    failures = {"broker": 0, "alone": 0}
    for _ in range(rounds):
        for who in random.sample(["broker", "alone"], 2):
            with Home(on_path=f"zccache-{VERSION}") as home:
                extra = {}
                if who == "broker":
                    home.start_broker()
                    extra["ZCCACHE_BROKER_CONNECT"] = "1"
                took, failed, _ = home.herd(VERSION, size, **extra)
                seconds[who].append(took)
                failures[who] += len(failed)
                daemons[who].append(len(home.daemons()))
    return {who: {"median_seconds": round(statistics.median(seconds[who]), 4),
                  "seconds": [round(s, 4) for s in seconds[who]],
                  "daemons": sorted(daemons[who]), "failed": failures[who], "compiles": size * rounds}
            for who in seconds}


def idle():
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


def ratio(a, b):
    return round(a / b, 3)


def framed_bars(hello, where, words):
    ours, theirs = hello[f"ours_unknown_{where}"], hello[f"upstream_unknown_{where}"]
    return [
        (f"framed Hello, SERVICE_UNKNOWN, ours / upstream's broker, {words}, p50", ratio(ours[0], theirs[0]), 1.0),
        ("the same, p99", ratio(ours[1], theirs[1]), 1.0),
        (f"framed Hello, a hit of ours / upstream's SERVICE_UNKNOWN, {words}, p50",
         ratio(hello[f"ours_hit_{where}"][0], theirs[0]), 1.2),
    ]


def measure(options):
    print("framed Hellos ...", file=sys.stderr)
    hello = framed(options.rounds)
    print("gRPC calls ...", file=sys.stderr)
    calls = grpc_calls(options.rounds)
    print("idle broker ...", file=sys.stderr)
    resting = idle()
    print("herds ...", file=sys.stderr)
    herd = {str(size): herds(size, options.herds) for size in (24, 64)}
    bars = [
        ("cold herd of 24, through the broker / alone, median",
         ratio(herd["24"]["broker"]["median_seconds"], herd["24"]["alone"]["median_seconds"]), 1.0),
        *framed_bars(hello, "same_core", "client and broker on one core"),
        *framed_bars(hello, "other_core", "on two cores"),
        ("gRPC Negotiate, warm / a bare gRPC call, p50", ratio(calls["negotiate"][0], calls["bare_call"][0]), 1.3),
        ("idle broker, resident MiB", round(resting["resident_kib"] / 1024, 2), 6.0),
        ("idle broker, threads", resting["threads"], 2),
    ]
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release()}, {platform.machine()}",
        "versions": {"zcbroker": subprocess.run([program("service/zcbrokerd"), "--version"], capture_output=True,
                                                text=True, check=True).stdout.strip(),
                     "zccache": VERSION, "running-process": "4.1.0"},
        "bars": [{"what": what, "value": value, "at_most": limit, "met": value <= limit}
                 for what, value, limit in bars],
        "framed_microseconds": {name: {"p50": r[0], "p99": r[1], "samples": r[2]} for name, r in hello.items()},
        "grpc_microseconds": {name: {"p50": r[0], "p99": r[1], "samples": r[2]} for name, r in calls.items()},
        "idle": resting,
        "herds": herd,
    }


def tables(seen):
    lines = ["| promise, measured in one run | seen | at most | |", "|---|---|---|---|"]
    for bar in seen["bars"]:
        lines.append(f"| {bar['what']} | {bar['value']} | {bar['at_most']} | {'met' if bar['met'] else '**missed**'} |")
    lines += ["", "| cold herd, zccache 1.11.22, unmodified | daemons left, each round | failed compiles | median |",
              "|---|---|---|---|"]
    for size, herd in seen["herds"].items():
        for who, label in (("alone", "alone"), ("broker", "through zcbroker")):
            row = herd[who]
            lines.append(f"| {size} at once, {label} | {', '.join(map(str, row['daemons']))} | "
                         f"{row['failed']} of {row['compiles']} | {row['median_seconds']:.2f} s |")
    return "\n".join(lines)


def write(seen):
    with open(os.path.join(ROOT, "docs", "evidence.json"), "w", encoding="utf-8") as out:
        json.dump(seen, out, indent=1)
        out.write("\n")
    rows = ["| round trip | p50 | p99 | samples |", "|---|---|---|---|"]
    for group in ("framed_microseconds", "grpc_microseconds"):
        for name, row in seen[group].items():
            rows.append(f"| {name.replace('_', ' ')} | {row['p50']} us | {row['p99']} us | {row['samples']} |")
    text = f"""# Evidence

Written by `./dev bench`, which measures everything below in one run: contenders
take turns, in an order shuffled every round, after a warm-up. Repeat it with
`./dev bench`; the numbers behind the tables are in evidence.json.

Seen on {seen['when']}, {seen['machine']}; {seen['versions']['zcbroker']} (release build),
zccache {seen['versions']['zccache']}, upstream's broker {seen['versions']['running-process']}.

{tables(seen)}

{chr(10).join(rows)}

A framed round trip is a new connection, a Hello, its answer and the close; a
gRPC one is a call over a warm channel. "bare call" is a server that answers
the same request with a fixed response and does nothing else. For the framed
rows both brokers are held on one core and the client on the same one or on
another: left to itself, the scheduler decides that anew for every server, and
on a machine whose cores halt when idle the choice is worth more than the work.
"""
    with open(os.path.join(ROOT, "docs", "evidence.md"), "w", encoding="utf-8") as out:
        out.write(text)
    readme = os.path.join(ROOT, "README.md")
    with open(readme, encoding="utf-8") as old:
        before, rest = old.read().split("<!-- evidence -->\n", 1)
        _, after = rest.split("<!-- /evidence -->\n", 1)
    with open(readme, "w", encoding="utf-8") as out:
        out.write(f"{before}<!-- evidence -->\n{tables(seen)}\n<!-- /evidence -->\n{after}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of release programs (bazel-bin)")
    parser.add_argument("--peers", required=True)
    parser.add_argument("--rounds", type=int, default=5000, help="samples of each round trip")
    parser.add_argument("--herds", type=int, default=10, help="herds of each kind")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of writing files")
    options = parser.parse_args()
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.become_subreaper()
    seen = measure(options)
    if options.json:
        print(json.dumps(seen, indent=1))
    else:
        write(seen)
        print(tables(seen))
    return 0


if __name__ == "__main__":
    sys.exit(main())
