"""Measures the promises of this version against the peers, in one run, and
writes what it saw: docs/evidence.{json,md}, docs/*.svg and a part of README.md.
Called by ./dev bench. Nothing here is a test; a bar that is missed is written
down as missed."""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
import time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
sys.path.insert(0, os.path.join(ROOT, "tests", "peers"))

import harness  # pylint: disable=wrong-import-position
import measures  # pylint: disable=wrong-import-position
import pictures  # pylint: disable=wrong-import-position
import report  # pylint: disable=wrong-import-position
from contenders import VERSION  # pylint: disable=wrong-import-position
from harness import peer, program  # pylint: disable=wrong-import-position

ROWS = {"connects": measures.connects, "hits": measures.hits, "fallback": measures.fallback,
        "framed": measures.framed, "rate": measures.rate, "grpc_calls": measures.grpc_calls, "idle": measures.idle,
        "herds": measures.herds, "builds": measures.builds}


def first_line(*words):
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def versions():
    return {"zcbroker": first_line(program("service/zcbrokerd"), "--version"),
            "zccache": [VERSION, measures.NEW_VERSION], "running-process": "4.1.0",
            "gcc": first_line("gcc", "-dumpfullversion"),
            "ccache": first_line("ccache", "--version").split()[-1],
            "sccache": first_line(os.path.join(peer("sccache-0.16.0"), "sccache"), "--version").split()[-1]}


def busy(seconds=3):
    """The share of all processors' time that is in use meanwhile."""
    def jiffies():
        with open("/proc/stat", encoding="utf-8") as stat:
            numbers = [int(word) for word in stat.readline().split()[1:9]]
        return sum(numbers), numbers[3] + numbers[4]  # idle, iowait

    before = jiffies()
    time.sleep(seconds)
    total, idle = (now - then for now, then in zip(jiffies(), before))
    return round(1 - idle / total, 3)


def measure(options):
    before, began, rows = busy(), time.monotonic(), {}
    for name in options.only:
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.monotonic()
        rows[name] = ROWS[name](options)
        print(f"{name}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    return {
        "when": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores, Linux {platform.release()}, {platform.machine()}",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "busy": {"before": before, "after": busy()},
        "versions": versions(),
        "bars": report.bars(rows),
        "rows": rows,
    }


def write(seen):
    docs = os.path.join(ROOT, "docs")
    with open(os.path.join(docs, "evidence.json"), "w", encoding="utf-8") as out:
        json.dump(seen, out, indent=1)
        out.write("\n")
    for name, picture in (("hit-latency.svg", pictures.hit_latency(seen["rows"]["hits"])),
                          ("herd.svg", pictures.herd(seen["rows"]["herds"]))):
        with open(os.path.join(docs, name), "w", encoding="utf-8") as out:
            out.write(picture)
    report.write(ROOT, seen)


def chosen(words):
    names = words.split(",")
    for name in names:
        if name not in ROWS:
            raise argparse.ArgumentTypeError(f"there is no '{name}'; there are {', '.join(ROWS)}")
    return names


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="the folder of release programs (bazel-bin)")
    parser.add_argument("--peers", required=True)
    parser.add_argument("--only", type=chosen, metavar="ROWS", help=f"some of {','.join(ROWS)}; prints, writes nothing")
    parser.add_argument("--rounds", type=int, default=5000, help="samples of each round trip")
    parser.add_argument("--samples", type=int, default=1000, help="samples of each whole process")
    parser.add_argument("--herds", type=int, default=10, help="herds of 24 and 64 of each kind; a third of it of 256")
    parser.add_argument("--builds", type=int, default=3, help="builds of each kind")
    parser.add_argument("--json", action="store_true", help="print the JSON instead of writing files")
    options = parser.parse_args()
    prints = options.json or options.only is not None
    options.only = options.only or list(ROWS)
    harness.Options.bin = os.path.abspath(options.bin)
    harness.Options.peers = os.path.abspath(options.peers)
    harness.become_subreaper()
    seen = measure(options)
    if prints:
        print(json.dumps(seen, indent=1))
    else:
        write(seen)
    print("\n".join(report.bar_table(seen)), file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
