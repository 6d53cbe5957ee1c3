"""Two pictures as SVG: what a warm hit takes, and what a cold herd leaves."""

from contenders import LABELS
from report import SOURCES, WHO

COLOURS = {"zcb": "#2f9e6e", "zccache": "#d9822b", "relay": "#4c86d6", "ccache": "#a463c4", "sccache": "#c94f5f",
           "alone": "#d9822b", "through_us": "#2f9e6e"}
# Text follows the reader's scheme; without one, a grey that both can show.
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #777; }
.title { font-size: 15px; font-weight: 600; }
.small { font-size: 11px; }
.line { stroke: #888; stroke-opacity: .35; }
@media (prefers-color-scheme: light) { text { fill: #333; } }
@media (prefers-color-scheme: dark) { text { fill: #ccc; } }
</style>"""


def text(x, y, words, anchor="start", kind=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{kind}">{words}</text>'


def line(x1, y1, x2, y2):
    return f'<line class="line" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def svg(width, height, title, parts):
    head = (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" '
            f'role="img" aria-label="{title}">')
    return "\n".join([head, f"<title>{title}</title>", STYLE, *parts, "</svg>", ""])


def nice_step(span, count):
    """The smallest of 1, 2, 5, 10, ... that divides `span` into `count` at most."""
    step = 0.01
    for factor in (2, 2.5, 2) * 6:
        if span / step <= count:
            break
        step *= factor
    return step


def distribution(rows, left, top, width, height, words):
    """Which share of the hits took at most how long."""
    names = [name for name in COLOURS if name in rows]
    most = 1.15 * max(rows[name]["percentiles"][98] for name in names) / 1000
    parts = [text(left, top - 12, words, kind="title")]

    def x(milliseconds):
        return left + width * min(milliseconds, most) / most

    def y(share):
        return top + height * (1 - share)

    for share in (0, 0.5, 1):
        parts += [line(left, y(share), left + width, y(share)), text(left - 6, y(share) + 4, f"{share:.0%}", "end")]
    step = nice_step(most, 7)
    for i in range(int(most / step) + 1):
        at = x(i * step)
        parts += [line(at, top, at, top + height), text(at, top + height + 18, f"{i * step:g}", "middle")]
    parts.append(text(left + width, top + height + 36, "milliseconds", "end"))
    for name in names:
        points = " ".join(f"{x(micros / 1000):.1f},{y(i / 100):.1f}"
                          for i, micros in enumerate(rows[name]["percentiles"]))
        parts.append(f'<polyline fill="none" stroke="{COLOURS[name]}" stroke-width="2" points="{points}"/>')
    return parts


def hit_latency(rows):
    parts = [text(20, 24, "Warm hit, whole process: share of calls that took at most this long (beside each name: its "
                  "two medians)", kind="title")]
    x = 20
    for name in ("zcb", "zccache", "relay", "ccache", "sccache"):
        small, headers = (rows[source][name]["p50"] / 1000 for source in SOURCES)
        words = f"{LABELS[name]}, {small:.1f} and {headers:.1f} ms"
        parts += [f'<rect x="{x}" y="38" width="12" height="12" fill="{COLOURS[name]}"/>', text(x + 17, 48, words, kind="small")]
        x += 28 + 6.3 * len(words)
    for i, (source, words) in enumerate(SOURCES.items()):
        parts += distribution(rows[source], 60 + 500 * i, 96, 440, 220, words)
    return svg(1040, 360, "Warm hits", parts)


def bars(rows, left, top, words, value, label):
    """Pairs of bars: one group a size, a bar for each way."""
    most = max(value(row) for row in rows) or 1
    parts = [text(left, top - 12, words, kind="title"), line(left, top + 180, left + 440, top + 180)]
    groups = list(dict.fromkeys((row["version"], row["size"]) for row in rows))
    for i, (version, size) in enumerate(groups):
        at = left + 8 + i * 73
        for k, who in enumerate(WHO):
            row = next(r for r in rows if (r["version"], r["size"], r["who"]) == (version, size, who))
            height = max(1.5, 165 * value(row) / most)
            parts += [f'<rect x="{at + k * 30}" y="{top + 180 - height:.1f}" width="26" height="{height:.1f}" '
                      f'fill="{COLOURS[who]}"/>',
                      text(at + k * 30 + 13, top + 175 - height, label(row), "middle", "small")]
        parts += [text(at + 28, top + 198, size, "middle"), text(at + 28, top + 215, version, "middle")]
    return parts


def herd(rows):
    parts = [text(20, 24, "Cold herd: unmodified zccache clients at once, no daemon running", kind="title")]
    for i, (who, words) in enumerate(WHO.items()):
        parts += [f'<rect x="{20 + 80 * i}" y="38" width="12" height="12" fill="{COLOURS[who]}"/>',
                  text(37 + 80 * i, 49, words)]
    parts += bars(rows, 40, 96, "daemons left, the most of all rounds", lambda row: row["daemons"][-1],
                  lambda row: row["daemons"][-1])
    parts += bars(rows, 560, 96, "seconds, median", lambda row: row["median_seconds"],
                  lambda row: f"{row['median_seconds']:.2f}")
    return svg(1040, 330, "Cold herds", parts)
