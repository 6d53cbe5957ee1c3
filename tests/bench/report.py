"""What the measurements say: bars, tables, docs/evidence.md, the README's part."""

import os

from contenders import LABELS, VERSION
from measures import HEADERS, NEW_VERSION

WHO = {"alone": "alone", "through_us": "through zcbroker"}
HERDS = {**WHO, "running": "alone, its daemon running already"}
SOURCES = {"small": "small file", "headers": f"{HEADERS} headers"}
CORES = {"same_core": "client and broker on one core", "other_core": "on two cores"}
ROUND_TRIPS = {"ours_unknown": "framed Hello, SERVICE_UNKNOWN, ours", "ours_hit": "framed Hello, a hit, ours",
               "upstream_unknown": "framed Hello, SERVICE_UNKNOWN, upstream's broker"}


def ratio(a, b):
    return round(a / b, 3)


def bar(what, value, limit):
    return {"what": what, "value": value, "at_most": limit, "met": value <= limit}


def herd_of(rows, version, size, who):
    return next(row for row in rows if (row["version"], row["size"], row["who"]) == (version, size, who))


def connect_bars(rows):
    direct, ours = rows["direct"], rows["by_route_info"]
    return [bar(f"client library, connect and Ping, by route info / direct, {q}", ratio(ours[q], direct[q]), limit)
            for q, limit in (("p50", 1.05), ("p99", 1.10))]


def hit_bars(rows):
    bars = []
    for source, words in SOURCES.items():
        p50 = {name: row["p50"] for name, row in rows[source].items()}
        bars.append(bar(f"warm hit, {words}, zccache through the relay / zccache alone",
                        ratio(p50["relay"], p50["zccache"]), 1.04))
        bars += [bar(f"warm hit, {words}, zcb / {LABELS[peer]}", ratio(p50["zcb"], p50[peer]), 0.40)
                 for peer in ("zccache", "ccache", "sccache")]
    return bars


def fallback_bars(rows):
    added = (rows["zcb_alone"]["p50"] - rows["plain"]["p50"]) / 1000
    return [bar("zcb without broker and daemon, added to the compiler, ms", round(added, 2), 1.0)]


def herd_bars(rows):
    ours, alone = (herd_of(rows, VERSION, 24, who) for who in ("through_us", "alone"))
    bars = [bar("cold herd of 24, through zcbroker / zccache alone, median",
                ratio(ours["median_seconds"], alone["median_seconds"]), 0.6)]
    mine = [row for row in rows if row["who"] == "through_us"]
    bars.append(bar("cold herds of 24, 64 and 256, both versions, through zcbroker: most daemons",
                    max(row["daemons"][-1] for row in mine), 1))
    bars.append(bar("the same: failed compiles", sum(row["failed"] for row in mine), 0))
    return bars


def framed_bars(rows):
    bars = []
    for where, words in CORES.items():
        ours, theirs = rows[f"ours_unknown_{where}"], rows[f"upstream_unknown_{where}"]
        bars += [
            bar(f"framed Hello, SERVICE_UNKNOWN, ours / upstream's broker, {words}, p50",
                ratio(ours["p50"], theirs["p50"]), 1.0),
            bar("the same, p99", ratio(ours["p99"], theirs["p99"]), 1.0),
            bar(f"framed Hello, a hit of ours / upstream's SERVICE_UNKNOWN, {words}, p50",
                ratio(rows[f"ours_hit_{where}"]["p50"], theirs["p50"]), 1.2)]
    return bars


def rate_bars(rows):
    return [bar(f"framed Hellos, {rows['per_second']} a second on all cores: due / answered a second",
                ratio(rows["per_second"], rows["answered_per_second"]), 1.02),
            bar("the same, p99 from when each was due, ms", round(rows["p99"] / 1000, 2), 5.0)]


def grpc_bars(rows):
    warm = ratio(rows["negotiate"]["p50"], rows["bare_call"]["p50"])
    new = round(rows["negotiate_new_channel"]["p50"] / 1000, 2)
    return [bar("gRPC Negotiate, warm / a bare gRPC call, p50", warm, 1.3),
            bar("gRPC Negotiate, new channel and first call, p50, ms", new, 2.0)]


def idle_bars(rows):
    return [bar("idle broker, resident MiB", round(rows["resident_kib"] / 1024, 2), 6.0),
            bar("idle broker, threads", rows["threads"], 2)]


BARS = {"connects": connect_bars, "hits": hit_bars, "fallback": fallback_bars, "herds": herd_bars,
        "framed": framed_bars, "rate": rate_bars, "grpc_calls": grpc_bars, "idle": idle_bars, "builds": lambda rows: []}


def bars(rows):
    return [line for name, make in BARS.items() if name in rows for line in make(rows[name])]


# --- Tables


def table(head, rows):
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return lines + [f"| {' | '.join(map(str, row))} |" for row in rows]


def bar_table(seen):
    return table(("promise, measured in one run", "seen", "at most", ""),
                 [(b["what"], b["value"], b["at_most"], "met" if b["met"] else "**missed**") for b in seen["bars"]])


def milliseconds(micros):
    return f"{micros / 1000:.2f} ms"


def hit_table(rows):
    lines = []
    for name in ("zcb", "bare_exchange", "zccache", "relay", "bare_relay", "ccache", "sccache", "plain"):
        cells = [LABELS[name]]
        for source in SOURCES:
            cells += [milliseconds(rows[source][name]["p50"]), milliseconds(rows[source][name]["p99"])]
        lines.append(cells + [rows["small"][name]["samples"]])
    head = ["warm hit, whole process"] + [f"{words}, {q}" for words in SOURCES.values() for q in ("p50", "p99")]
    return table(head + ["samples of each"], lines)


def least(rows, name):
    """A yardstick's share, for each source."""
    return " and ".join(f"{ratio(rows[source][name]['p50'], rows[source]['zccache']['p50']):.3f}" for source in SOURCES)


def daemons(counts):
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"


def herd_table(rows):
    lines = []
    for row in rows:
        plain = row["who"] == "plain"
        what = f"gcc itself, {row['size']} at once" if plain else (
            f"zccache {row['version']}, {row['size']} at once, {HERDS[row['who']]}")
        lines.append((what, "" if plain else daemons(row["daemons"]), f"{row['failed']} of {row['compiles']}",
                      f"{row['median_seconds']:.2f} s"))
    return table(("cold herd", "daemons left", "failed compiles", "median"), lines)


def build_table(rows):
    return table(("500 files, make -j", "cold", "warm"),
                 [(LABELS[name], f"{row['cold']['median_seconds']:.2f} s",
                   "" if name == "plain" else f"{row['warm']['median_seconds']:.2f} s") for name, row in rows.items()])


def connect_table(rows):
    return table(("connect and Ping", "p50", "p99", "samples"),
                 [(words, f"{rows[name]['p50']} us", f"{rows[name]['p99']} us", rows[name]["samples"])
                  for name, words in (("direct", "direct"), ("by_route_info", "by route info"))])


def fallback_table(rows):
    return table(("small file", "p50", "p99", "samples"),
                 [(LABELS[name], milliseconds(rows[name]["p50"]), milliseconds(rows[name]["p99"]),
                   rows[name]["samples"]) for name in ("plain", "zcb_alone")])


def round_trip_table(framed, calls):
    lines = [(f"{words}, {core}", framed[f"{name}_{where}"]) for where, core in CORES.items()
             for name, words in ROUND_TRIPS.items()]
    lines += [("gRPC Negotiate, warm channel", calls["negotiate"]),
              ("bare gRPC call, warm channel", calls["bare_call"]),
              ("gRPC Negotiate, new channel", calls["negotiate_new_channel"]),
              ("bare gRPC call, new channel", calls["bare_call_new_channel"])]
    return table(("round trip", "p50", "p99", "samples"),
                 [(words, f"{row['p50']} us", f"{row['p99']} us", row["samples"]) for words, row in lines])


def evidence(seen):
    rows, versions = seen["rows"], seen["versions"]

    def text(lines):
        return "\n".join(lines)

    return f"""# Evidence

Written by `./dev bench`, which measures everything below in one run: contenders
take turns, in an order shuffled every round, after a warm-up. Repeat it with
`./dev bench`, some of it with `./dev bench --only hits,herds` (which prints and
writes nothing); the numbers behind the tables are in evidence.json.

Seen on {seen['when']}, {seen['machine']}, in {seen['minutes']} minutes. In the seconds before and
after, others used {seen['busy']['before']:.0%} and {seen['busy']['after']:.0%} of the processors.
{versions['zcbroker']} (release build), zccache {VERSION} and {NEW_VERSION}, ccache {versions['ccache']},
sccache {versions['sccache']}, upstream's broker {versions['running-process']}, gcc {versions['gcc']}.

{text(bar_table(seen))}

## Warm hits

From `posix_spawn` to the exit status; the object is removed before each. All
caches with their default settings, sccache over a Unix socket. "Through
zcbroker" is the same unmodified wrapper where the broker has claimed its
endpoint. Each contender has a daemon of its own. A process that does nothing
takes its share of this, and more of it on a virtual machine.

Two rows are yardsticks. "zcb's exchange alone" connects, sends what `zcb` sends,
waits for the answer and exits, without even the C library's start
(tests/bench/bare_exchange.cc): {least(rows['hits'], 'bare_exchange')} of zccache. "A bare relay"
is thirty lines that check nothing and serve one client at a time
(tests/bench/bare_relay.cc): {least(rows['hits'], 'bare_relay')} of zccache alone.

![warm hits](hit-latency.svg)

{text(hit_table(rows['hits']))}

## Without any broker

`zcb` where there is neither broker nor daemon, so that it becomes the compiler.

{text(fallback_table(rows['fallback']))}

## Cold herds

Unmodified zccache clients, started at once by `posix_spawn`, no daemon running.
"Through zcbroker": a broker runs already and has claimed the endpoint; it
starts the daemon when the first client connects. Daemons are counted when the
last client has ended. "gcc itself" is the same compiles without any cache: what
no cold herd can be faster than. "Its daemon running already" has an empty cache
and nothing to start: what no broker can make faster.

![herds](herd.svg)

{text(herd_table(rows['herds']))}

## A build

500 files of four small functions, `make -j{os.cpu_count()}`, gcc -O1 -MMD: with an empty
cache, then again after `make clean`. Median of {len(rows['builds']['plain']['cold'])}. All objects of all builds
were the same, byte for byte.

{text(build_table(rows['builds']))}

## Connecting

Our client library to one daemon, {VERSION}, in one process: `ConnectDaemon`,
Ping, close. Direct: told where the daemon listens. By route info: it reads the
broker's file, and asks no broker. Everything is held on one core: left to
itself, the scheduler decides anew for every server whether it wakes a second
core, and that costs more than the work.

{text(connect_table(rows['connects']))}

## Asking the broker

{text(round_trip_table(rows['framed'], rows['grpc_calls']))}

A framed round trip is a new connection, a Hello, its answer and the close; a
gRPC one is a call over a warm channel, or over a new one with all that belongs
to it. "Bare call" is a server that answers the same request with a fixed
response and does nothing else. For the framed rows both brokers are held on one
core and the client on the same one or on another.
"""


def summary(seen):
    """What the README shows."""
    rows = seen["rows"]
    missed = sum(not b["met"] for b in seen["bars"])
    words = "all targets met" if missed == 0 else f"{missed} of {len(seen['bars'])} targets missed"
    parts = ["![warm hits](docs/hit-latency.svg)", "![cold herds](docs/herd.svg)",
             "\n".join(hit_table(rows["hits"])), "\n".join(herd_table(rows["herds"])),
             "\n".join(build_table(rows["builds"])),
             f"Seen on {seen['when']}, {seen['machine']}; {words}: [docs/evidence.md](docs/evidence.md)."]
    return "\n\n".join(parts) + "\n"


def write_readme(path, seen):
    with open(path, encoding="utf-8") as old:
        before, rest = old.read().split("<!-- evidence -->\n", 1)
        _, after = rest.split("<!-- /evidence -->\n", 1)
    with open(path, "w", encoding="utf-8") as out:
        out.write(f"{before}<!-- evidence -->\n{summary(seen)}<!-- /evidence -->\n{after}")


def write(root, seen):
    with open(os.path.join(root, "docs", "evidence.md"), "w", encoding="utf-8") as out:
        out.write(evidence(seen))
    write_readme(os.path.join(root, "README.md"), seen)
